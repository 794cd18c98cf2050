//! One node process: its configuration, its log, and the faults that hit it.
//!
//! Invariant: a process started here does not outlive its [`Node`].
//!
//! Deliberately absent: the meaning of its answers; see [`crate::cluster`].

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use tokio::process::{Child, Command};

use crate::port::Port;
use crate::wait::within;

/// Time limit for a process to end after it was stopped or killed.
const END: Duration = Duration::from_secs(20);

/// The nodes' log filter, unless the environment sets one: a dead peer is nothing unusual here.
const LOGGED: &str = "info";

/// Text in a log line that shows an error.
const COMPLAINTS: [&str; 2] = [" ERROR vulpes", "panicked at"];

/// Lines of a node's log shown when a test fails.
const SHOWN: usize = 60;

/// What a node does in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Entry,
    Storage,
    Sync,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Entry, Self::Storage, Self::Sync];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Storage => "storage",
            Self::Sync => "sync",
        }
    }
}

/// The ports of one node.
#[derive(Debug)]
pub struct Ports {
    pub(crate) peer: Port,
    pub(crate) wamp: Port,
    pub(crate) mqtt: Port,
    pub(crate) admin: Port,
}

impl Ports {
    /// The ports on an address that belongs to the run.
    pub(crate) fn at(address: IpAddr) -> Self {
        let port = |number| Port::at(address, number);
        Self { peer: port(1735), wamp: port(9031), mqtt: port(1881), admin: port(9081) }
    }

    pub(crate) fn claim() -> Result<Self> {
        let (peer, wamp) = (Port::claim()?, Port::claim()?);
        Ok(Self { peer, wamp, mqtt: Port::claim()?, admin: Port::claim()? })
    }
}

/// How a node's process is started.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// A command that runs the node's command, such as one that enters a namespace.
    pub through: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// The process ends when this one does, however that ends.
    pub tied: bool,
}

/// A node: a folder, ports, and a process if it runs.
#[derive(Debug)]
pub struct Node {
    pub id: u64,
    pub roles: Vec<Role>,
    /// Its storage group, if there are several.
    pub group: Option<u64>,
    ports: Ports,
    binary: PathBuf,
    folder: PathBuf,
    launch: Launch,
    child: Option<Child>,
}

impl Node {
    pub(crate) fn new(id: u64, roles: Vec<Role>, ports: Ports, binary: &Path, root: &Path) -> Self {
        let folder = root.join(format!("node-{id}"));
        let (binary, launch) = (binary.to_owned(), Launch::default());
        Self { id, roles, group: None, ports, binary, folder, launch, child: None }
    }

    /// Sets how its process is started from now on.
    pub fn launch(&mut self, launch: Launch) {
        self.launch = launch;
    }

    #[must_use]
    pub fn wamp(&self) -> SocketAddr {
        self.ports.wamp.address()
    }

    #[must_use]
    pub fn mqtt(&self) -> SocketAddr {
        self.ports.mqtt.address()
    }

    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.ports.admin.address()
    }

    #[must_use]
    pub fn is_entry(&self) -> bool {
        self.roles.contains(&Role::Entry)
    }

    /// The node's data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The node's configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// Where other nodes reach it.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.ports.peer.address()
    }

    /// The folder with all files of this node.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Rewrites the configuration file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn configure(&self, text: &str) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        File::create(self.config())?.write_all(text.as_bytes())?;
        Ok(())
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Starts the process.
    ///
    /// # Errors
    /// If it runs already or can't be started.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "node {} runs already", self.id);
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let Launch { through, environment, tied } = &self.launch;
        let mut words = through.iter().map(OsStr::new).chain([self.binary.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).envs(environment.iter().map(|(name, value)| (name, value)));
        let stdin = if *tied { Stdio::piped() } else { Stdio::null() };
        let child = command
            .env("NO_COLOR", "1")
            .env("VULPES_LOG", std::env::var("VULPES_LOG").as_deref().unwrap_or(LOGGED))
            .arg("node")
            .arg("--config")
            .arg(self.config())
            .args(tied.then_some("--stop-on-stdin-close"))
            .stdin(stdin)
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills the process as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("node {} is down", self.id))?;
        within("a killed node ends", END, async { Ok(child.kill().await?) }).await
    }

    /// Asks the process to stop, and waits until it has.
    ///
    /// # Errors
    /// If it does not run, or does not stop in time; then it is killed.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal("TERM").await?;
        let mut child = self.child.take().with_context(|| format!("node {} is down", self.id))?;
        within("a node stops when told", END, async { Ok(child.wait().await?) }).await
    }

    /// Freezes the process: its sockets stay open, but it does not answer.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn pause(&self) -> Result<()> {
        self.signal("STOP").await
    }

    /// Resumes a frozen process.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn resume(&self) -> Result<()> {
        self.signal("CONT").await
    }

    // The shell's own `kill`, because a system call would need unsafe code.
    async fn signal(&self, name: &str) -> Result<()> {
        let command = format!("kill -{name} {}", self.process()?);
        let status = Command::new("sh").arg("-c").arg(&command).status().await?;
        ensure!(status.success(), "{command}: {status}");
        Ok(())
    }

    /// The process's number.
    ///
    /// # Errors
    /// If it does not run.
    pub fn process(&self) -> Result<u32> {
        let child = self.child.as_ref().with_context(|| format!("node {} is down", self.id))?;
        child.id().with_context(|| format!("node {} has ended", self.id))
    }

    /// Fails if the process has ended by itself.
    ///
    /// # Errors
    /// How it ended.
    pub fn check_alive(&mut self) -> Result<()> {
        let id = self.id;
        let child = self.child.as_mut().with_context(|| format!("node {id} is down"))?;
        match child.try_wait()? {
            Some(status) => bail!("node {id} ended by itself: {status}\n{}", self.log_tail()),
            None => Ok(()),
        }
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// If it does not run, or does not end in time.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let id = self.id;
        let child = self.child.as_mut().with_context(|| format!("node {id} is down"))?;
        let status =
            within("a node ends by itself", END, async { Ok(child.wait().await?) }).await?;
        self.child = None;
        Ok(status)
    }

    /// Memory the process holds, in bytes (resident set).
    ///
    /// # Errors
    /// If it does not run.
    pub fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let text = line.context("no VmRSS in /proc")?.trim().trim_end_matches(" kB");
        Ok(text.parse::<u64>()? * 1024)
    }

    /// The last line of its log that shows an error. The log spans all processes that the node had.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let bytes = std::fs::read(self.log()).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let wrong = |line: &&str| COMPLAINTS.iter().any(|word| line.contains(word));
        text.lines().rfind(wrong).map(str::to_owned)
    }

    /// The last lines the process wrote.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let Ok(bytes) = std::fs::read(self.log()) else { return String::new() };
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let mut tail = format!("--- node {}, the last lines of its log ---\n", self.id);
        for line in &lines[lines.len().saturating_sub(SHOWN)..] {
            let _ = writeln!(tail, "{line}");
        }
        tail
    }
}

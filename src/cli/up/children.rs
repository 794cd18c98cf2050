//! The node processes of `vulpes up`.
//!
//! Invariant: a child ends when its standard input closes, which the operating system does however this process ends. A child
//! that does not end is killed after a deadline.
//!
//! Deliberately absent: signals to children. They run in their own process group, so that Ctrl-C reaches only this process.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::process::{ChildStdin, Command};
use vulpes_raft::ids::NodeId;

/// A log larger than this, in bytes, is renamed when its node starts; the previously renamed one is lost.
const LOG: u64 = 16 << 20;

/// Most lines of a log that are shown when its node has died.
const LAST_LINES: usize = 12;

/// How many bytes of the log's end are searched for them.
const LAST_BYTES: u64 = 8192;

/// A node's process.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    /// Open as long as the node shall run.
    stdin: Option<ChildStdin>,
    log: PathBuf,
    ended: bool,
}

impl Child {
    /// Starts `vulpes node` with this configuration; its output is appended to the log.
    pub(super) fn start(
        executable: &Path,
        node: NodeId,
        config: &Path,
        log: &Path,
    ) -> anyhow::Result<Self> {
        if std::fs::metadata(log).is_ok_and(|metadata| metadata.len() > LOG) {
            std::fs::rename(log, log.with_extension("log.old"))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("can't write {}", log.display()))?;
        let mut process = Command::new(executable)
            .arg("node")
            .arg("--config")
            .arg(config)
            .arg("--stop-on-stdin-close")
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("can't start node {node} as {}", executable.display()))?;
        let stdin = process.stdin.take();
        Ok(Self { process, stdin, log: log.to_owned(), ended: false })
    }

    /// Its process number, while it runs.
    pub(super) fn process(&self) -> Option<u32> {
        self.process.id()
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.ended
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, reported once.
    pub(super) fn take_end(&mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        match self.process.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => {
                self.ended = true;
                Some(describe(status))
            }
            Err(error) => {
                self.ended = true;
                Some(format!("it can't be waited for: {error}"))
            }
        }
    }

    /// The end of its log, which may be empty.
    pub(super) fn last_lines(&self) -> Vec<String> {
        let tail = || -> std::io::Result<Vec<u8>> {
            let mut file = std::fs::File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LAST_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(LAST_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = tail().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let first = lines.len().saturating_sub(LAST_LINES);
        lines[first..].iter().map(ToString::to_string).collect()
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => "it stopped without an error".into(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Asks all of them to stop, waits, and kills those that take longer than `patience`.
pub(super) async fn stop(children: &mut [Child], patience: Duration) {
    for child in children.iter_mut() {
        child.stdin = None;
    }
    let deadline = tokio::time::Instant::now() + patience;
    for child in children {
        if tokio::time::timeout_at(deadline, child.process.wait()).await.is_err() {
            let process = child.process().map_or_else(String::new, |process| process.to_string());
            eprintln!("process {process} did not stop in {patience:?}: killed");
            // It may have just ended by itself, which is fine.
            let _ = child.process.kill().await;
        }
        child.ended = true;
    }
}

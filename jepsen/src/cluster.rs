//! A cluster of real node processes on this machine, in a folder that is deleted with it.
//!
//! Invariant: all processes end, and all ports are released, when the [`Cluster`] is dropped. It then prints the
//! logs' last lines, which the test runner shows if the test failed. With `VULPES_KEEP=1` the folder stays.
//!
//! Deliberately absent: reading the order; see [`crate::load`] and [`crate::history`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{ensure, Context, Result};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::client::Client;
use crate::http::{self, Response};
use crate::layout::Layout;
use crate::mqtt::Mqtt;
use crate::node::{Node, Ports, Role};
use crate::wait::{until, within, PATIENCE};
use crate::wamp::Wamp;

/// The realm of every cluster started here.
pub const REALM: &str = "realm1";

/// The shape of a cluster.
#[derive(Debug)]
pub struct Builder {
    binary: PathBuf,
    nodes: Vec<(Vec<Role>, Option<u64>)>,
    settings: String,
    addresses: BTreeMap<u64, IpAddr>,
    folder: Option<PathBuf>,
}

impl Builder {
    /// `count` nodes with all three roles each.
    #[must_use]
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes.extend((0..count).map(|_| (Role::ALL.to_vec(), None)));
        self
    }

    /// `count` nodes with one role each.
    #[must_use]
    pub fn only(mut self, role: Role, count: usize) -> Self {
        self.nodes.extend((0..count).map(|_| (vec![role], None)));
        self
    }

    /// Nodes with these roles, in these storage groups.
    #[must_use]
    pub fn layout(mut self, layout: &Layout) -> Self {
        let nodes = layout.nodes().into_iter();
        self.nodes.extend(nodes.map(|node| (layout.roles(node), layout.group(node))));
        self
    }

    /// Adds these lines of TOML, which are separate tables, to every node's configuration.
    #[must_use]
    pub fn settings(mut self, toml: &str) -> Self {
        self.settings.push_str(toml);
        self
    }

    /// Nodes have these addresses, with the usual ports, instead of free ports of the loopback interface.
    #[must_use]
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = (u64, IpAddr)>) -> Self {
        self.addresses.extend(addresses);
        self
    }

    /// Puts all files into this folder, which is not deleted; the ends of the logs are not printed.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Writes all configurations and starts nothing.
    ///
    /// # Errors
    /// If there is no room for a folder or no port.
    pub fn prepare(self) -> Result<Cluster> {
        let folder = match self.folder {
            Some(folder) => Folder::Kept(folder),
            None => Folder::temporary()?,
        };
        let mut nodes = Vec::new();
        for (index, (roles, group)) in self.nodes.into_iter().enumerate() {
            let id = index as u64 + 1;
            let ports = match self.addresses.get(&id) {
                Some(address) => Ports::at(*address),
                None => Ports::claim()?,
            };
            let mut node = Node::new(id, roles, ports, &self.binary, folder.path());
            node.group = group;
            nodes.push(node);
        }
        let cluster = Cluster { binary: self.binary, nodes, settings: self.settings, folder };
        for node in &cluster.nodes {
            node.configure(&cluster.config_of(node.id)?)?;
        }
        Ok(cluster)
    }

    /// Starts all nodes and waits until they serve.
    ///
    /// # Errors
    /// If a node ends, or does not serve in time.
    pub async fn start(self) -> Result<Cluster> {
        let mut cluster = self.prepare()?;
        for node in &mut cluster.nodes {
            node.start()?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }
}

/// Where a cluster's files are.
#[derive(Debug)]
enum Folder {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn temporary() -> Result<Self> {
        let mut folder = tempfile::Builder::new().prefix("vulpes-").tempdir()?;
        if std::env::var("VULPES_KEEP").is_ok_and(|value| value == "1") {
            println!("this cluster's folder stays: {}", folder.path().display());
            folder.disable_cleanup(true);
        }
        Ok(Self::Temporary(folder))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(path) => path,
        }
    }
}

/// Nodes that know each other; see [`Cluster::builder`].
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    nodes: Vec<Node>,
    settings: String,
    folder: Folder,
}

impl Cluster {
    /// A cluster of processes of this program.
    pub fn builder(binary: impl AsRef<Path>) -> Builder {
        Builder {
            binary: binary.as_ref().to_owned(),
            nodes: Vec::new(),
            settings: String::new(),
            addresses: BTreeMap::new(),
            folder: None,
        }
    }

    /// All nodes; the first has id 1.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Ids of the nodes that run.
    #[must_use]
    pub fn running(&self) -> Vec<u64> {
        self.nodes.iter().filter(|node| node.is_running()).map(|node| node.id).collect()
    }

    /// The folder with all files of this cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The node with this id.
    ///
    /// # Panics
    /// If there is none: the test is wrong.
    #[must_use]
    pub fn node(&self, id: u64) -> &Node {
        self.nodes.iter().find(|node| node.id == id).expect("the test names a node it made")
    }

    /// The node with this id, to start it or inject faults.
    ///
    /// # Panics
    /// If there is none: the test is wrong.
    pub fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).expect("the test names a node it made")
    }

    /// The text of a node's configuration file.
    ///
    /// # Errors
    /// Never on a machine with memory.
    pub fn config_of(&self, id: u64) -> Result<String> {
        let me = self.node(id);
        let mut text = String::new();
        writeln!(text, "cluster = \"test\"\nnode = {id}")?;
        if !me.peer().ip().is_loopback() {
            // In a network of its own, which only the cluster's nodes and the tests reach.
            writeln!(text, "insecure = true")?;
        }
        writeln!(text, "data = {:?}\nrealms = [{REALM:?}]", me.data())?;
        writeln!(text, "default_realm = {REALM:?}\n\n[listen]\nadmin = \"{}\"", me.admin())?;
        if me.is_entry() {
            writeln!(text, "wamp = \"{}\"\nmqtt = \"{}\"", me.wamp(), me.mqtt())?;
        }
        for node in &self.nodes {
            let roles: Vec<&str> = node.roles.iter().map(|role| role.name()).collect();
            writeln!(text, "\n[[nodes]]\nid = {}", node.id)?;
            writeln!(text, "peer = \"{}\"\nroles = {roles:?}", node.peer())?;
            writeln!(text, "admin = \"{}\"", node.admin())?;
            if let Some(group) = node.group {
                writeln!(text, "group = {group}")?;
            }
        }
        writeln!(text, "\n[timing]\nheartbeat_ms = 100\nelection_min_ms = 750")?;
        writeln!(text, "election_max_ms = 1000\nlease_ms = 3000")?;
        writeln!(text, "\n{}", self.settings)?;
        Ok(text)
    }

    /// Waits until every node that runs serves.
    ///
    /// # Errors
    /// If one ends, or does not serve in time.
    pub async fn ready(&mut self) -> Result<()> {
        for id in self.running() {
            self.ready_node(id).await?;
        }
        Ok(())
    }

    /// Waits until this node serves.
    ///
    /// # Errors
    /// If it ends, or does not serve in time.
    pub async fn ready_node(&mut self, id: u64) -> Result<()> {
        let node = self.node_mut(id);
        let address = node.admin();
        until(&format!("node {id} answers /readyz with 200"), PATIENCE, || {
            let alive = node.check_alive();
            async move {
                alive?;
                let answer = http::get(address, "/readyz").await?;
                ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
                Ok(())
            }
        })
        .await
    }

    /// Restarts a node and waits until it serves.
    ///
    /// # Errors
    /// Like [`Node::start`] and [`Cluster::ready_node`].
    pub async fn restart(&mut self, id: u64) -> Result<()> {
        self.node_mut(id).start()?;
        self.ready_node(id).await
    }

    /// Gets a page of a node's admin server.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn page(&self, id: u64, path: &str) -> Result<Response> {
        http::get(self.node(id).admin(), path).await
    }

    /// A node's `/status`.
    ///
    /// # Errors
    /// If it does not answer with JSON.
    pub async fn status(&self, id: u64) -> Result<Value> {
        let answer = self.page(id, "/status").await?;
        ensure!(answer.status == 200, "node {id}: {} {}", answer.status, answer.body);
        serde_json::from_str(&answer.body).context("/status is not JSON")
    }

    /// Waits until the running nodes of the sync group agree on a running leader, and returns it.
    ///
    /// # Errors
    /// If they don't agree in time.
    pub async fn leader(&self) -> Result<u64> {
        let running = self.running();
        let members: Vec<u64> = (self.nodes.iter())
            .filter(|node| node.is_running() && node.roles.contains(&Role::Sync))
            .map(|node| node.id)
            .collect();
        let (running, members) = (&running, &members);
        until("the sync group agrees on a leader", PATIENCE, || async move {
            let mut leader = None;
            for &id in members {
                let named = self.status(id).await?["sync"]["leader"].as_u64();
                let named = named.with_context(|| format!("node {id} knows no leader"))?;
                ensure!(running.contains(&named), "node {id} names {named}, which is down");
                ensure!(*leader.get_or_insert(named) == named, "two leaders are named");
            }
            leader.context("no node of the sync group runs")
        })
        .await
    }

    /// Runs `vulpes verify`, which proves that all storages hold the same log; node `id` names the others.
    ///
    /// # Errors
    /// Its message if they don't.
    pub async fn verify(&self, id: u64) -> Result<()> {
        let admin = format!("http://{}", self.node(id).admin());
        let mut command = Command::new(&self.binary);
        command.args(["verify", "--node-admin", &admin]).stdin(Stdio::null()).kill_on_drop(true);
        let output = within("vulpes verify", PATIENCE * 2, async { Ok(command.output().await?) });
        let output = output.await?;
        let (told, complaint) = (&output.stdout, &output.stderr);
        let said = String::from_utf8_lossy(told).into_owned() + &String::from_utf8_lossy(complaint);
        ensure!(output.status.success(), "vulpes verify: {}: {said}", output.status);
        Ok(())
    }

    /// A WAMP session at a node.
    ///
    /// # Errors
    /// If the node refuses.
    pub async fn wamp(&self, id: u64) -> Result<Client> {
        Ok(Client::Wamp(Box::new(Wamp::connect(self.node(id).wamp(), REALM).await?)))
    }

    /// An MQTT session at a node.
    ///
    /// # Errors
    /// If the node refuses.
    pub async fn mqtt(&self, id: u64) -> Result<Client> {
        Ok(Client::Mqtt(Mqtt::connect(self.node(id).mqtt()).await?))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let kept = matches!(self.folder, Folder::Kept(_));
        for node in self.nodes.iter().filter(|_| !kept) {
            println!("{}", node.log_tail());
        }
    }
}

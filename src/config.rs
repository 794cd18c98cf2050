//! A node's configuration: one TOML file, checked as a whole before anything is opened.
//!
//! Invariant: a [`NodeConfig`] that exists is consistent: the node is one of the cluster's, every address is
//! well-formed, no two listeners share one, the cluster has each role at least once, and every storage group has a
//! storage. All problems are reported together.
//!
//! Deliberately absent: limits (`limits`), and whether the other nodes' files agree. A node with another cluster's name is
//! refused in the handshake between nodes.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{NodeId, Shards};

use crate::retention::Retention;
use crate::types::topic::{Realm, RealmError};

pub mod disk;
mod exposure;
mod file;
pub mod first_administrator;
pub mod hosts;
pub mod identity;
pub mod limits;
pub mod listener;
pub mod origins;
pub mod peer_tls;
pub mod tokens;

use disk::LowWater;
use first_administrator::{FirstAdministrator, FirstAdministratorMistake};
pub use identity::open_identity;
use limits::Limits;
use listener::{Listener, ListenerMistake, LISTENERS};
use peer_tls::PeerTls;
use tokens::{TokenConfig, TokenMistake};

/// Longest name of a cluster, in bytes. It has to fit the first frame between nodes.
pub const CLUSTER_NAME: usize = 64;

/// Most nodes in a cluster.
pub const NODES: usize = 64;

/// Most realms of a cluster.
pub const REALMS: usize = 1024;

/// Largest configuration file, in bytes.
pub const CONFIG_FILE: usize = 1 << 20;

/// Everything a node needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The cluster's name; all its nodes have the same.
    pub cluster: String,
    /// Which of the nodes this one is.
    pub node: NodeId,
    /// The data directory.
    pub data: PathBuf,
    /// The realms clients may join: at least one, each once.
    pub realms: Vec<Realm>,
    /// The realm of MQTT clients whose user name contains no realm: one of `realms`.
    pub default_realm: Realm,
    /// The realms in which every retained publish merges: a subset of `realms`, the same on all nodes. The entry that accepts
    /// an event records in it whether it merges, so nodes that are configured differently still agree on every value.
    pub merging: BTreeSet<Realm>,
    pub listen: Listen,
    /// What it listens on beside that: at most [`LISTENERS`].
    pub listeners: Vec<Listener>,
    /// What encrypts the node port. Without it, whoever reaches that port is believed.
    pub peer_tls: Option<PeerTls>,
    /// Whether the operator has said that the node may listen beyond loopback without what protects it.
    pub insecure: bool,
    /// The user that the cluster begins with; the same on all nodes. Without it, everybody comes in as long as the log has no users.
    pub first_administrator: Option<FirstAdministrator>,
    /// Every node of the cluster, ascending by number, this one too.
    pub nodes: Vec<Member>,
    pub timing: Timing,
    /// Tokens that clients may log in with, if any.
    pub tokens: Option<TokenConfig>,
    /// How much of the log is retained. The strictest limits of all entries apply.
    pub retention: Retention,
    /// What the clients of one user or address may have and do.
    pub limits: Limits,
    /// How much of its disk is left free; read again while the node runs.
    pub low_water: LowWater,
    /// What the process logs, as a filter of `tracing`; read again while the node runs.
    pub log: Option<String>,
}

/// What this node listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// For other nodes: the node's own `peer` address, unless the file gives another one to listen on.
    pub peer: Address,
    /// WAMP over WebSocket; entries only.
    pub wamp: Option<Address>,
    /// MQTT over TCP; entries only.
    pub mqtt: Option<Address>,
    /// Admin HTTP.
    pub admin: Option<Address>,
    /// Origins of web pages that may connect, besides those of the node's own hosts.
    pub origins: Vec<String>,
    /// Names by which admin HTTP may be asked, besides the node's own hosts.
    pub hosts: Vec<String>,
}

/// A node of the cluster, as all nodes know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: NodeId,
    /// Where other nodes reach it.
    pub peer: Address,
    /// Where operators reach its admin HTTP, if anywhere.
    pub admin: Option<Address>,
    /// Ascending, each once, at least one.
    pub roles: Vec<Role>,
    /// The storage group it belongs to, if it is a storage; groups are numbered from 1, with no number left out.
    pub group: u16,
}

impl Member {
    /// Whether it has this role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// What a node does (`src/ARCHITECTURE.md`, "Roles").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves clients.
    Entry,
    /// Stores segment bodies.
    Storage,
    /// Decides the order.
    Sync,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Entry, Self::Storage, Self::Sync];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entry => "entry",
            Self::Storage => "storage",
            Self::Sync => "sync",
        })
    }
}

/// Timeouts and intervals between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a sync leader sends a heartbeat.
    pub heartbeat: Duration,
    /// A follower stands for election after a random silence between this (or three quarters of the maximum) …
    pub election_min: Duration,
    /// … and this.
    pub election_max: Duration,
    /// How long an entry may be silent before its incarnation is closed.
    pub lease: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(750),
            election_max: Duration::from_millis(1000),
            lease: Duration::from_secs(3),
        }
    }
}

/// `host:port`, the host a name, an IPv4 address, or an IPv6 address in brackets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    text: String,
    port: u16,
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address; write host:port, as in 127.0.0.1:1735 or [::1]:1735")]
pub struct AddressError(String);

impl Address {
    /// Builds an address from host and port; an IPv6 address gets brackets.
    ///
    /// # Errors
    /// If the host is not valid.
    pub fn new(host: &str, port: u16) -> Result<Self, AddressError> {
        if host.contains(':') && !host.starts_with('[') {
            return format!("[{host}]:{port}").parse();
        }
        format!("{host}:{port}").parse()
    }

    /// The whole text, in the form that [`vulpes_raft::host::Net`] takes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before the port, brackets included.
    #[must_use]
    pub fn host(&self) -> &str {
        self.text.rsplit_once(':').map_or(self.text.as_str(), |(host, _)| host)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it stands for all addresses of a machine.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        matches!(self.host(), "0.0.0.0" | "[::]")
    }

    /// Whether only this machine reaches it. A name other than `localhost` may mean any address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Whether two listeners on one machine would conflict. Port 0 never does.
    fn clashes(&self, other: &Self) -> bool {
        let same_host = self.host() == other.host() || self.is_wildcard() || other.is_wildcard();
        self.port != 0 && self.port == other.port && same_host
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let inner = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or_else(wrong)?;
                inner.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
                inner
            }
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let bad = |c: char| c.is_whitespace() || c.is_control() || "/@?#[]".contains(c);
        if inner.is_empty() || inner.len() > 255 || inner.contains(bad) {
            return Err(wrong());
        }
        Ok(Self { text: text.to_owned(), port })
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.text
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.text)
    }
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("can't read the configuration {path}: {error}", path = path.display())]
    Read { path: PathBuf, error: io::Error },
    /// It is not TOML, lacks a setting, or has an unknown one.
    #[error("the configuration {path} can't be understood: {error}\ndemo/vulpes.example.toml shows every setting", path = path.display())]
    Syntax { path: PathBuf, error: String },
    #[error("the configuration {path} has {}:{}", count(.problems), list(.problems), path = path.display())]
    Invalid { path: PathBuf, problems: Vec<Problem> },
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "a mistake".into(),
        several => format!("{several} mistakes"),
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n- {problem}")).collect()
}

/// One mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("cluster: the name is 1 to {CLUSTER_NAME} bytes without control characters")]
    ClusterName,
    #[error("nodes: the list is empty; list every node of the cluster as a [[nodes]] table")]
    NoNodes,
    #[error("nodes: {0} are too many; a cluster may have {NODES}")]
    TooManyNodes(usize),
    #[error("nodes: numbers begin at 1; give node 0 another one")]
    ZeroNode,
    #[error("nodes: number {0} is given twice; give each node its own")]
    DuplicateNode(NodeId),
    #[error("node: number {0} is not among the [[nodes]]; add a table for it or correct `node`")]
    UnknownNode(NodeId),
    #[error("nodes: node {0} has no role; give it one or more of entry, storage and sync")]
    NoRole(NodeId),
    #[error("nodes: node {node} has the role {role} twice; write it once")]
    DuplicateRole { node: NodeId, role: Role },
    #[error("nodes: node {0} has a storage group, but is not a storage; remove `group` or add the role storage")]
    GroupWithoutStorage(NodeId),
    #[error("nodes: node {0} has the storage group 0; groups are numbered from 1")]
    ZeroGroup(NodeId),
    #[error("nodes: no node is in storage group {missing}, but one is in {last}; number the groups from 1 without a gap")]
    GroupMissing { missing: u16, last: u16 },
    #[error("nodes: no node has the role {0}; a cluster needs at least one of each role")]
    RoleMissing(Role),
    #[error("nodes: the peer address {address} of node {node} has port 0, which nobody can reach; name a port")]
    PeerPortZero { node: NodeId, address: Address },
    #[error("nodes: the peer address {address} of node {node} names no machine; write the address others reach it at (listen.peer may be {address})")]
    PeerWildcard { node: NodeId, address: Address },
    #[error("{first} and {second} are both {address}; give each its own port")]
    SharedAddress { first: String, second: String, address: Address },
    #[error("listen.{0}: node {1} is not an entry, and only entries serve clients; remove it or add the role entry")]
    ListenWithoutEntry(&'static str, NodeId),
    #[error("listen: node {0} is an entry, but has neither listen.wamp nor listen.mqtt nor a [[listener]] for clients; add one, or remove the role entry")]
    EntryWithoutListen(NodeId),
    #[error("listener: {0} are too many; a node may have {LISTENERS}")]
    TooManyListeners(usize),
    /// Listeners are numbered from 1, as they stand in the file.
    #[error("listener {number}: {mistake}")]
    Listener { number: usize, mistake: ListenerMistake },
    #[error("listen.peer: other machines may reach {0}, and without [peer_tls] the node believes everybody there: they can read, forge and stop everything. `vulpes init` makes certificates, and demo/vulpes.example.toml explains [peer_tls]. If only the cluster's nodes reach that address, write this line above the first table: insecure = true")]
    OpenNodePort(Address),
    #[error("{place}: other machines may reach {address}, and nothing is encrypted there: whoever is in between reads passwords and messages, and changes them. Make it a [[listener]] with [listener.tls], as `vulpes init --host` writes it and demo/vulpes.example.toml explains it. If everybody who reaches that address is trusted, write this line above the first table: insecure = true")]
    OpenListener { place: String, address: Address },
    #[error("first_administrator: {0}")]
    FirstAdministrator(FirstAdministratorMistake),
    #[error("peer_tls.{0} is empty; name a PEM file")]
    NoPeerTlsPath(&'static str),
    #[error("jwt: {0}")]
    Tokens(TokenMistake),
    #[error("realms: the list is empty; name at least one, as in realms = [\"realm1\"]")]
    NoRealms,
    #[error("realms: {0} are too many; a cluster may have {REALMS}")]
    TooManyRealms(usize),
    #[error("realms: {name:?} is not a realm name: {error}")]
    BadRealm { name: String, error: RealmError },
    #[error("realms: {0} is given twice; name it once")]
    DuplicateRealm(Realm),
    #[error("default_realm: {0:?} is not among the realms; add it there or choose one of them")]
    UnknownDefaultRealm(String),
    #[error("realm.{0:?}: there is no such realm; add it to the realms or remove the table")]
    UnknownRealm(String),
    #[error("data: the path is empty; name a directory for the node's data")]
    NoData,
    #[error("timing.{name}: {value} ms is outside of {least} to {most} ms")]
    TimingRange { name: &'static str, value: u64, least: u64, most: u64 },
    #[error("retention.{name}: {value} is outside of {least} to {most}; leave it out to keep everything")]
    RetentionRange { name: &'static str, value: u64, least: u64, most: u64 },
    #[error(
        "limits.{name}: {value} is outside of {least} to {most}; leave it out to set no limit"
    )]
    LimitRange { name: String, value: u64, least: u64, most: u64 },
    #[error("limits.role: {0:?} can't be the name of a role")]
    LimitRole(String),
    #[error("disk.low_water: {0:?} is neither a size nor a share; write one as in \"2 GiB\" or \"5 %\", or 0 to fill the disk")]
    LowWater(String),
    #[error("log: {0:?} is not a log filter; write error, warn, info, debug or trace, or one with modules, as in info,vulpes=debug")]
    Log(String),
    #[error("listen.origins: {0:?} is not an origin; write https://app.example, with a port if it has one and nothing behind it, null for pages in files, or * for all")]
    Origin(String),
    #[error("listen.hosts: {0:?} is not the name of a host; write vulpes.example, without a port")]
    Host(String),
    #[error("timing.election_min_ms: must be at least twice heartbeat_ms, or a single late heartbeat starts an election")]
    ElectionTooSoon,
    #[error("timing.election_max_ms: must be more than election_min_ms, or two candidates can split the votes for ever")]
    ElectionNotSpread,
    #[error("timing.lease_ms: must be at least twice election_max_ms, or entries lose their lease at every election")]
    LeaseTooShort,
}

impl NodeConfig {
    /// Reads a file. Its `data` is relative to the file.
    ///
    /// # Errors
    /// If it can't be read, parsed or used.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let error = |error| ConfigError::Read { path: path.to_owned(), error };
        let length = std::fs::metadata(path).map_err(error)?.len();
        if length > CONFIG_FILE as u64 {
            let reason = format!("{length} bytes are too much for a configuration");
            return Err(error(io::Error::other(reason)));
        }
        let text = std::fs::read_to_string(path).map_err(error)?;
        Self::parse(&text, path)
    }

    /// Reads a text as if it were the file at `path`.
    ///
    /// # Errors
    /// If it can't be parsed or used.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        file::parse(text, path)
    }

    /// The text of a file that [`NodeConfig::parse`] reads back as this configuration, with a comment for each setting.
    #[must_use]
    pub fn to_toml(&self) -> String {
        file::write(self)
    }

    /// This node, as the others know it.
    #[must_use]
    pub fn own(&self) -> &Member {
        let own = self.nodes.iter().find(|member| member.id == self.node);
        own.expect("a configuration whose node is not listed is refused")
    }

    /// Whether this node has this role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.own().has(role)
    }

    /// The nodes with this role, ascending by number; at least one.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.nodes.iter().filter(move |member| member.has(role))
    }

    /// How many storage groups there are, at least 1.
    #[must_use]
    pub fn storage_groups(&self) -> u16 {
        self.with_role(Role::Storage).map(|member| member.group).max().unwrap_or(1)
    }

    /// The shards that a storage's group holds.
    #[must_use]
    pub fn shards(&self, storage: &Member) -> Shards {
        Shards::part(u32::from(storage.group) - 1, u32::from(self.storage_groups()))
    }
}

#[cfg(test)]
mod tests;

//! A node's status: the answer to `/status`, and the source of `vulpes status`.
//!
//! Invariant: a role's part is there exactly if the node has that role.
//!
//! Deliberately absent: counters over time; those are metrics.

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{DiskId, Incarnation, NodeId, Position, Slot};

use crate::config::listener::{Listener, ListenerProtocol};
use crate::config::{Address, Member, NodeConfig, Role};

/// A node, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub cluster: String,
    pub node: NodeId,
    /// The identity of its data directory, in hexadecimal digits; empty while the node is starting.
    pub disk: String,
    /// The release it runs.
    pub version: String,
    pub roles: Vec<Role>,
    pub listen: Addresses,
    /// All nodes of the cluster, as this one was configured.
    pub members: Vec<MemberStatus>,
    /// Whether clients can be served, and the reason if not.
    pub ready: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// Seconds since the process started.
    pub uptime_seconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncStatus>,
    /// Only of entries and storages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaStatus>,
    /// Only of entries and storages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryStatus>,
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    pub peer: Address,
    pub wamp: Option<Address>,
    pub mqtt: Option<Address>,
    pub admin: Option<Address>,
    /// The listeners beside these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<ListenerStatus>,
}

/// A listener, from the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    pub protocol: ListenerProtocol,
    pub address: Address,
    /// Whether it speaks TLS.
    pub tls: bool,
}

impl ListenerStatus {
    fn new(listener: &Listener) -> Self {
        let Listener { protocol, address, tls, .. } = listener;
        Self { protocol: *protocol, address: address.clone(), tls: tls.is_some() }
    }
}

/// A node of the cluster, from the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    pub node: NodeId,
    pub roles: Vec<Role>,
    /// The storage group it belongs to, if it is a storage and there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u16>,
    pub peer: Address,
    pub admin: Option<Address>,
}

impl MemberStatus {
    /// A member of a configuration.
    #[must_use]
    pub fn new(member: &Member, config: &NodeConfig) -> Self {
        let grouped = member.has(Role::Storage) && config.storage_groups() > 1;
        Self {
            node: member.id,
            roles: member.roles.clone(),
            group: grouped.then_some(member.group),
            peer: member.peer.clone(),
            admin: member.admin.clone(),
        }
    }
}

/// A sync node's state in its Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    Leader,
    Follower,
    Candidate,
    /// Not part of a group yet.
    Learner,
    /// It ended because of a failure that is in the node's log.
    Stopped,
}

/// The sync role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    pub state: SyncState,
    pub term: u64,
    /// The leader as this node knows it.
    pub leader: Option<NodeId>,
    /// Members of the Raft group that vote, ascending.
    pub voters: Vec<NodeId>,
    /// Index of the last entry in this node's Raft log.
    pub last_index: Option<u64>,
    /// Index of the last entry this node applied.
    pub applied_index: Option<u64>,
    /// Last slot of the order as this node applied it; 0 if there is none yet.
    pub tail_slot: Slot,
    /// Position of the next event, as far as this node applied the order; 1 if there is none yet.
    pub tail_position: Position,
}

/// The node's replica of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Last slot it has applied; 0 if there is none yet.
    pub applied_slot: Slot,
    /// Position of the first event it has not applied yet; 1 if there is none yet.
    pub applied_position: Position,
    /// Position of the log's next event, as far as this node knows.
    pub tail_position: Position,
    /// Events since the process started that are withheld from this node's clients: they come from a newer release,
    /// and must be understood before they are shown. Upgrade the node.
    #[serde(default)]
    pub withheld_events: u64,
}

/// The realms' state as this node has folded it: equal on all nodes at an equal slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateStatus {
    /// The first slot that is not in it yet.
    pub next_slot: Slot,
    /// A hash of the whole state, in hexadecimal digits.
    pub hash: String,
    pub sessions: u64,
    /// Topics with a retained value, over all realms.
    pub retained: u64,
    /// Conditional publishes that are waiting.
    pub waiting: u64,
    /// The first retained slot of the log.
    pub oldest_slot: Slot,
    /// The first retained position.
    pub oldest_position: Position,
    /// Persistent sessions of connected clients.
    pub kept_attached: u64,
    /// Persistent sessions of clients that are away.
    pub kept_away: u64,
}

/// The storage role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageStatus {
    /// The first slot it has.
    pub oldest_slot: Slot,
    /// Bodies it holds, resolved or not.
    pub segments: u64,
    /// Size of its database file in bytes.
    pub file_bytes: u64,
    /// Bodies that it had to fetch since the process started, because they had not arrived from their entries: zero while all
    /// nodes work normally.
    #[serde(default)]
    pub bodies_fetched: u64,
    /// How often waiting for such a body timed out before.
    #[serde(default)]
    pub bodies_late: u64,
    /// Its disk has less free space than the mark (`disk.low_water`): no entry takes publishes.
    #[serde(default)]
    pub disk_low: bool,
}

/// The entry role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryStatus {
    /// Its incarnation, granted by sync; none while it has no lease.
    pub incarnation: Option<Incarnation>,
    pub wamp_sessions: u64,
    pub mqtt_sessions: u64,
    /// Sealed segments that are not resolved yet.
    pub pending_segments: u64,
    /// Messages of clients since the process started that were dropped because WAMP has no answer for them.
    #[serde(default)]
    pub dropped_messages: u64,
    /// The storages whose disks run low, so that clients' publishes are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refuses_for_disks: Vec<NodeId>,
}

impl NodeStatus {
    /// A status with what the configuration provides; the roles' parts have to be filled in.
    #[must_use]
    pub fn new(config: &NodeConfig, disk: Option<DiskId>) -> Self {
        Self {
            cluster: config.cluster.clone(),
            node: config.node,
            disk: disk.map_or_else(String::new, |disk| format!("{:016x}", disk.0)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            roles: config.own().roles.clone(),
            listen: Addresses {
                peer: config.listen.peer.clone(),
                wamp: config.listen.wamp.clone(),
                mqtt: config.listen.mqtt.clone(),
                admin: config.listen.admin.clone(),
                others: config.listeners.iter().map(ListenerStatus::new).collect(),
            },
            members: config.nodes.iter().map(|member| MemberStatus::new(member, config)).collect(),
            ready: false,
            not_ready: Some("the node is starting".into()),
            uptime_seconds: 0,
            sync: None,
            replica: None,
            state: None,
            storage: None,
            entry: None,
        }
    }
}

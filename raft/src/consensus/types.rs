//! The types openraft is configured with.
//!
//! Invariant: a log entry carries its command as bytes, encoded once, at the leader, and decoded once per member,
//! when it is applied.
//!
//! Deliberately absent: behaviour.

use std::fmt;

use bytes::Bytes;
use openraft_rt::deterministic_rng::DeterministicRng;
use serde::{Deserialize, Serialize};

use crate::ids::{DiskId, NodeId};
use crate::net::wire;
use crate::sequencer::{Answer, Command};

/// The runtime whose randomness comes from the host: see [`DeterministicRng::scope`].
pub(crate) type Runtime = DeterministicRng<openraft::impls::TokioRuntime>;

openraft::declare_raft_types!(
    /// The Raft group's types.
    pub(crate) Types:
        D = EncodedCommand,
        R = Answers,
        NodeId = NodeId,
        Node = Voter,
        AsyncRuntime = Runtime,
);

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type LogEntry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Membership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
/// A snapshot whose data is one encoded sequencer.
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Types, Bytes>;

/// A command in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EncodedCommand(pub(crate) Bytes);

impl EncodedCommand {
    pub(crate) fn new(command: &Command) -> Self {
        Self(wire::encode(command).into())
    }

    pub(crate) fn decode(&self) -> Result<Command, wire::DecodeError> {
        wire::decode(&self.0)
    }
}

impl fmt::Display for EncodedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The answers to one command's steps; none for entries that are not commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answers(pub(crate) Vec<Answer>);

/// A member of the Raft group, as enrolled. Persisted: fields keep their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Voter {
    /// Its address when it was enrolled; the configuration's address takes precedence.
    pub(crate) address: String,
    /// The disk it votes with. A node that comes with another disk is not this member.
    pub(crate) disk: DiskId,
}

/// The log store's test suite makes node ids from plain numbers.
#[cfg(test)]
impl From<u64> for NodeId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

//! A sync member's state, for status pages and tests.
//!
//! Invariant: one status is one moment of this member, not of the group.
//!
//! Deliberately absent: waiting of any kind.

use openraft::async_runtime::watch::WatchReceiver;
use openraft::ServerState;
use serde::{Deserialize, Serialize};

use super::SyncNode;
use crate::ids::{Incarnation, NodeId, Position, Slot};
use crate::order::StorageGroups;

/// A member's current role in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    Leader,
    Follower,
    Candidate,
    /// Not part of a group yet.
    Learner,
    Stopped,
}

/// One member's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    pub node: NodeId,
    pub leader: Option<NodeId>,
    pub term: u64,
    pub state: MemberState,
    /// Index of the last log entry here.
    pub last_log: Option<u64>,
    /// Index of the last log entry applied here.
    pub applied_log: Option<u64>,
    /// The last slot of the order; 0 while it is empty.
    pub tail: Slot,
    pub next_position: Position,
    pub groups: StorageGroups,
    /// Every entry that ever opened, its newest incarnation, and whether that is open.
    pub entries: Vec<(NodeId, Incarnation, bool)>,
    /// The oldest slot that followers can get here.
    pub oldest_retained: Slot,
    /// The members of the Raft group.
    pub voters: Vec<NodeId>,
}

impl SyncNode {
    /// This member's current status.
    #[must_use]
    pub fn status(&self) -> SyncStatus {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let state = self.inner.applied.state();
        let sequencer = &state.sequencer;
        SyncStatus {
            node: metrics.id,
            leader: metrics.current_leader,
            term: metrics.current_term,
            state: match metrics.state {
                ServerState::Leader => MemberState::Leader,
                ServerState::Follower => MemberState::Follower,
                ServerState::Candidate => MemberState::Candidate,
                ServerState::Learner => MemberState::Learner,
                ServerState::Shutdown => MemberState::Stopped,
            },
            last_log: metrics.last_log_index,
            applied_log: state.last.map(|last| last.index),
            tail: Slot(sequencer.next_slot().0 - 1),
            next_position: sequencer.next_position(),
            groups: sequencer.groups().clone(),
            entries: sequencer.entries().collect(),
            oldest_retained: sequencer.oldest_retained(),
            voters: metrics.membership_config.voter_ids().collect(),
        }
    }
}

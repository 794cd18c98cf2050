//! What is asked of a sync member, by other nodes over [`Service::Sync`](crate::wire::Service::Sync) or by its own.
//!
//! Invariant: everything that reaches the leader's queue can be repeated without harm. Variants and fields keep their
//! order, new ones go last; a change of meaning is a new protocol version.
//!
//! Deliberately absent: how a request finds the leader (`client`), and what it does there (`node`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, NodeId, Slot};
use crate::order::{Resolution, SealedSegment, SegmentOutcome, StorageGroup};
use crate::sequencer::Opened;

/// Segments in one proposal; more are proposed in several.
pub const MAX_PROPOSED: usize = 256;

/// Rows in one answer to a follower.
pub const MAX_FOLLOWED: usize = 4_096;

/// The longest a follower can ask to wait.
pub const MAX_FOLLOW_WAIT: Duration = Duration::from_secs(10);

/// How long a call may take from end to end, the wait of a follower apart.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the wait for the storage group lasts.
pub const GROUP_WAIT: Duration = Duration::from_secs(10);

/// What the followed order had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Followed {
    /// Resolutions from the asked slot on, dense; none if none came while waiting.
    Rows(Vec<Resolution>),
    /// The asked slot is no longer kept here. Read the rows before `oldest` from a storage.
    Behind { oldest: Slot },
}

/// What became of an entry's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lease {
    /// It runs anew from now on.
    Held,
    /// The incarnation is closed, or a newer one has opened.
    Lost,
}

/// Why the order could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// It was certainly not done; try again later.
    #[error("the sync group can't be reached or has no leader: {0}")]
    Unavailable(String),
    /// It may have been done or not. Ask again: a repeat gets the first answer.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// This node's disk is not the one that the cluster knows it by. It can't take part under this number.
    #[error("{0}")]
    Wiped(String),
    /// This node is shutting down.
    #[error("this node is shutting down")]
    Shutdown,
}

/// A request to one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SyncCall {
    /// Has this member ever been part of a group?
    Who,
    Propose(Vec<SealedSegment>),
    Open {
        entry: NodeId,
        request: u64,
    },
    Renew {
        entry: NodeId,
        incarnation: Incarnation,
    },
    Close {
        entry: NodeId,
        incarnation: Incarnation,
    },
    Stored {
        storage: NodeId,
        through: Slot,
    },
    Group,
    Follow {
        from: Slot,
        max: u32,
        wait_ms: u32,
    },
}

impl tarpc::RequestName for SyncCall {
    fn name(&self) -> &str {
        match self {
            Self::Who => "who",
            Self::Propose(_) => "propose",
            Self::Open { .. } => "open",
            Self::Renew { .. } => "renew",
            Self::Close { .. } => "close",
            Self::Stored { .. } => "stored",
            Self::Group => "group",
            Self::Follow { .. } => "follow",
        }
    }
}

/// One member's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SyncReply {
    Who {
        blank: bool,
    },
    Segments(Vec<SegmentOutcome>),
    Opened(Opened),
    Lease(Lease),
    Done,
    Group(StorageGroup),
    Followed(Followed),
    /// Not done: another member leads, as far as this one knows.
    NotLeader {
        leader: Option<NodeId>,
    },
    /// Not done.
    Unavailable(String),
    /// Perhaps done.
    Unknown(String),
}

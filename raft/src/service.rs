//! Requests to a sync member, by other nodes over [`Service::Sync`](crate::net::wire::Service::Sync) or by its own.
//!
//! Invariant: everything that reaches the leader's queue can be repeated without harm. Variants and fields keep their
//! order, new ones go last; a change of meaning is a new protocol version.
//!
//! Deliberately absent: how a request finds the leader (`client`), and what it does there (`node`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, NodeId, Slot};
use crate::order::{Resolution, SealedSegment, SegmentOutcome, StorageGroups};
use crate::sequencer::{Held, Opened};

/// Most segments in one proposal; more are sent in several.
pub const MAX_PROPOSED: usize = 256;

/// Most rows in one answer to a follower.
pub const MAX_FOLLOWED: usize = 4_096;

/// The longest a follower can ask to wait.
pub const MAX_FOLLOW_WAIT: Duration = Duration::from_secs(10);

/// Time limit of a call from end to end, without the wait of a follower.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a starting node waits for what the members know of it.
pub const ADMISSION_WAIT: Duration = Duration::from_millis(1_000);

/// How long to wait for the storage group.
pub const GROUP_WAIT: Duration = Duration::from_secs(10);

/// The result of following the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Followed {
    /// Resolutions from the requested slot on, dense; none if none came while waiting.
    Rows(Vec<Resolution>),
    /// The requested slot is no longer kept here. Read the rows before `oldest` from a storage.
    Behind { oldest: Slot },
}

/// The state of an entry's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lease {
    /// It was renewed.
    Held,
    /// The incarnation is closed, or a newer one has opened.
    Lost,
}

/// A node's progress, as far as the order records it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// How far it holds the log, as a sync member.
    pub held: Held,
    /// The slot through which it has the order on disk, as a storage.
    pub stored: Slot,
}

/// Why a request to sync failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// It was certainly not done; try again later.
    #[error("the sync group can't be reached or has no leader: {0}")]
    Unavailable(String),
    /// It may have been done or not. Repeat the request: a repeat gets the first answer.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// This node's disk is not the one that the cluster enrolled. It can't take part under this number.
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
    Groups,
    Follow {
        from: Slot,
        max: u32,
        wait_ms: u32,
    },
    /// How far has this node come, as member and as storage?
    Known {
        node: NodeId,
    },
    /// Does a majority still follow this leader?
    Confirm,
}

impl SyncCall {
    /// Checks that a node speaks for itself: for its own entry and its own storage.
    pub(crate) fn check_speaker(&self, peer: NodeId) -> Result<(), String> {
        let spoken_for = match self {
            Self::Propose(segments) => {
                segments.iter().map(|segment| segment.id.entry).find(|entry| *entry != peer)
            }
            Self::Open { entry, .. } | Self::Renew { entry, .. } | Self::Close { entry, .. } => {
                Some(*entry)
            }
            Self::Stored { storage, .. } => Some(*storage),
            Self::Who | Self::Groups | Self::Follow { .. } | Self::Known { .. } | Self::Confirm => {
                None
            }
        };
        match spoken_for.filter(|node| *node != peer) {
            Some(node) => Err(format!("node {peer} speaks for itself, not for node {node}")),
            None => Ok(()),
        }
    }
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
            Self::Groups => "groups",
            Self::Follow { .. } => "follow",
            Self::Known { .. } => "known",
            Self::Confirm => "confirm",
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
    Groups(StorageGroups),
    Followed(Followed),
    /// Not done: another member leads, as far as this one knows.
    NotLeader {
        leader: Option<NodeId>,
    },
    /// Not done.
    Unavailable(String),
    /// Perhaps done.
    Unknown(String),
    Known(Known),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Position, Stamp};
    use crate::net::wire::{decode, encode};
    use crate::order::Step;

    #[test]
    fn golden_bytes() {
        let calls = [
            (SyncCall::Who, vec![0]),
            (SyncCall::Propose(vec![]), vec![1, 0]),
            (SyncCall::Open { entry: NodeId(1), request: 300 }, vec![2, 1, 251, 44, 1]),
            (SyncCall::Renew { entry: NodeId(1), incarnation: Incarnation(2) }, vec![3, 1, 2]),
            (SyncCall::Close { entry: NodeId(1), incarnation: Incarnation(2) }, vec![4, 1, 2]),
            (SyncCall::Stored { storage: NodeId(1), through: Slot(9) }, vec![5, 1, 9]),
            (SyncCall::Groups, vec![6]),
            (SyncCall::Follow { from: Slot(1), max: 2, wait_ms: 3 }, vec![7, 1, 2, 3]),
            (SyncCall::Known { node: NodeId(3) }, vec![8, 3]),
            (SyncCall::Confirm, vec![9]),
        ];
        for (call, bytes) in calls {
            assert_eq!(encode(&call), bytes, "{call:?}");
            assert_eq!(decode::<SyncCall>(&bytes).unwrap(), call);
        }
        let (entry, incarnation) = (NodeId(1), Incarnation(2));
        let row = Resolution {
            slot: Slot(4),
            stamp: Stamp(5),
            ahead: -2,
            base: Position(6),
            step: Step::Opened { entry, incarnation },
        };
        let replies = [
            (SyncReply::Who { blank: true }, vec![0, 1]),
            (SyncReply::Segments(vec![SegmentOutcome::NotOpen]), vec![1, 1, 3]),
            (SyncReply::Lease(Lease::Lost), vec![3, 1]),
            (SyncReply::Done, vec![4]),
            (SyncReply::Groups(StorageGroups::default()), vec![5, 0]),
            (SyncReply::Followed(Followed::Rows(vec![row])), vec![6, 0, 1, 4, 5, 3, 6, 1, 1, 2]),
            (SyncReply::Followed(Followed::Behind { oldest: Slot(7) }), vec![6, 1, 7]),
            (SyncReply::NotLeader { leader: Some(NodeId(3)) }, vec![7, 1, 3]),
            (SyncReply::Unavailable("x".into()), vec![8, 1, b'x']),
            (SyncReply::Unknown("x".into()), vec![9, 1, b'x']),
            (
                SyncReply::Known(Known { held: Held { term: 1, index: 2 }, stored: Slot(3) }),
                vec![10, 1, 2, 3],
            ),
        ];
        for (reply, bytes) in replies {
            assert_eq!(encode(&reply), bytes, "{reply:?}");
            assert_eq!(decode::<SyncReply>(&bytes).unwrap(), reply);
        }
    }
}

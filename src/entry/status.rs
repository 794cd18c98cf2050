//! An entry's state, for the status page.
//!
//! Invariant: a snapshot at the end of a turn. No decision depends on it.
//!
//! Deliberately absent: history. Counters only grow; to get rates, compare two snapshots.

use vulpes_raft::ids::{Incarnation, NodeId};

/// An entry's state at the end of a turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryStatus {
    /// The incarnation it seals under; `None` while it waits for one.
    pub incarnation: Option<Incarnation>,
    /// Events in the open segment.
    pub open_events: u32,
    /// Sealed segments that are not in the order yet.
    pub pending_segments: usize,
    /// Bytes of their bodies.
    pub pending_bytes: usize,
    /// Events whose publishers wait for an answer.
    pub unanswered: u64,
    /// The members of the storage group.
    pub storages: Vec<StorageStatus>,
    pub counters: Counters,
}

/// A storage as an entry sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageStatus {
    pub node: NodeId,
    /// Segments that may be on the way to it at once; 0 while it does not answer.
    pub credit: u32,
    /// Segments on the way to it.
    pub outstanding: usize,
}

/// Counters since the entry started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub incarnations: u64,
    pub segments_sealed: u64,
    pub events_sealed: u64,
    pub segments_resolved: u64,
    pub events_resolved: u64,
    /// Segments that were sealed, but never ordered because their incarnation ended.
    pub segments_lost: u64,
    /// Events whose publishers got the answer that the outcome is unknown.
    pub events_expired: u64,
    /// Bodies that a storage did not store, or not in time.
    pub keeps_failed: u64,
    /// Proposals without an answer.
    pub proposals_failed: u64,
}

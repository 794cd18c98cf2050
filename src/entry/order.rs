//! Sync, as an entry sees it: it grants incarnations and orders sealed segments.
//!
//! Invariant: every call may be repeated. A repeated opening gets the same incarnation, a repeated proposal the same
//! outcome, so an entry that does not know a call's outcome simply repeats it.
//!
//! Deliberately absent: leaders and addresses. Implementations of [`OrderService`] find them.

use futures::future::BoxFuture;
use vulpes_raft::ids::{Incarnation, NodeId};
use vulpes_raft::order::{SealedSegment, SegmentOutcome, StorageGroups};

/// A new life of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub incarnation: Incarnation,
    /// The storages its segments go to.
    pub groups: StorageGroups,
}

/// Whether an incarnation is still the entry's open one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    Held,
    /// It was closed or fenced, and none of its segments is resolved from now on.
    Lost,
}

/// Why sync gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Nothing has happened: no leader was reached, or there are no storage groups yet. Retry later.
    #[error("sync can't be reached; is a majority of the sync nodes running?")]
    Unavailable,
    /// It may or may not have happened. Repeat the call to find out.
    #[error("sync took the request but gave no answer")]
    Unknown,
    /// Sync refuses this node for good: its disk is not the one it was enrolled with.
    #[error("sync refuses this node because its disk was wiped or exchanged; enrol it under a new node id")]
    Wiped,
    /// This node is stopping.
    #[error("this node is stopping")]
    Shutdown,
}

/// An entry's requests to sync.
pub trait OrderService: Send + Sync + 'static {
    /// Begins a new incarnation of an entry, which fences all older ones. The same `request` gets the same
    /// incarnation while that one is open.
    fn open(&self, entry: NodeId, request: u64) -> BoxFuture<'_, Result<Opened, OrderError>>;

    /// Proposes segments, in number order. Returns one outcome per segment, in their order.
    fn propose(
        &self,
        segments: Vec<SealedSegment>,
    ) -> BoxFuture<'_, Result<Vec<SegmentOutcome>, OrderError>>;

    /// Renews the lease of an incarnation, so that it is not closed after a silence. A proposal renews it too.
    fn renew(
        &self,
        entry: NodeId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<Lease, OrderError>>;

    /// The current storage groups.
    fn groups(&self) -> BoxFuture<'_, Result<StorageGroups, OrderError>>;
}

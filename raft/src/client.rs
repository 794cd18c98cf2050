//! Access to the sync group from any node, with or without the sync role.
//!
//! Invariant: if the node is a member itself, that member answers what any member can answer.
//!
//! Deliberately absent: the search for the leader (`router`), and queues. A caller that wants its proposals in order
//! sends them one after the other, or many in one call.

use std::sync::Arc;
use std::time::Duration;

use crate::host::Host;
use crate::ids::{Incarnation, NodeId, Slot};
use crate::net::wire::Identity;
use crate::node::{Member, SyncNode};
use crate::order::{SealedSegment, SegmentOutcome, StorageGroups};
use crate::router::Router;
use crate::sequencer::Opened;
use crate::service::{Followed, Known, Lease, SyncError, ADMISSION_WAIT};

/// Access to the sync group. Clones share their connections.
#[derive(Clone)]
pub struct SyncClient {
    router: Arc<Router>,
    local: Option<SyncNode>,
}

impl SyncClient {
    /// A client of these sync members; `local` is the one on this node, if there is one.
    #[must_use]
    pub fn new(host: Host, own: Identity, members: Vec<Member>, local: Option<SyncNode>) -> Self {
        let addresses = members.into_iter().map(|member| (member.node, member.address));
        Self { router: Arc::new(Router::new(host, own, addresses)), local }
    }

    /// Proposes sealed segments. Returns one outcome per segment, in the same order.
    ///
    /// # Errors
    /// [`SyncError`]. After [`SyncError::Unknown`], propose the same segments again.
    pub async fn propose(
        &self,
        segments: Vec<SealedSegment>,
    ) -> Result<Vec<SegmentOutcome>, SyncError> {
        self.router.propose(self.local.as_ref(), segments).await
    }

    /// Begins a new incarnation of an entry. The same `request` gets the same incarnation while that is open.
    ///
    /// # Errors
    /// [`SyncError`]. After [`SyncError::Unknown`], repeat the call with the same `request`.
    pub async fn open(&self, entry: NodeId, request: u64) -> Result<Opened, SyncError> {
        self.router.open(self.local.as_ref(), entry, request).await
    }

    /// Renews an entry's lease; proposing does too.
    ///
    /// # Errors
    /// [`SyncError`]. The lease keeps running meanwhile.
    pub async fn renew(&self, entry: NodeId, incarnation: Incarnation) -> Result<Lease, SyncError> {
        self.router.renew(self.local.as_ref(), entry, incarnation).await
    }

    /// Ends an incarnation, because its entry leaves.
    ///
    /// # Errors
    /// [`SyncError`]. `Ok` means that it is closed, by this call or an earlier one.
    pub async fn close(&self, entry: NodeId, incarnation: Incarnation) -> Result<(), SyncError> {
        self.router.close(self.local.as_ref(), entry, incarnation).await
    }

    /// Reports that a storage has the rows of all slots through this one on disk.
    ///
    /// # Errors
    /// [`SyncError`]; a later report makes up for it.
    pub async fn stored(&self, storage: NodeId, through: Slot) -> Result<(), SyncError> {
        self.router.stored(self.local.as_ref(), storage, through).await
    }

    /// Makes the leader confirm that a majority still follows it. Searches for the leader for at most `limit`.
    ///
    /// # Errors
    /// [`SyncError`]: there is no leader, it has no majority, or it can't be reached.
    pub async fn confirm(&self, limit: Duration) -> Result<(), SyncError> {
        self.router.confirm(self.local.as_ref(), limit).await
    }

    /// The storage groups; waits up to [`GROUP_WAIT`](crate::service::GROUP_WAIT) for them to form.
    ///
    /// # Errors
    /// [`SyncError::Unavailable`] if there are none yet or no member can be asked.
    pub async fn groups(&self) -> Result<StorageGroups, SyncError> {
        match &self.local {
            Some(local) => local.groups().await,
            None => self.router.groups().await,
        }
    }

    /// What the other sync members know about a node's progress: one answer for each member that answered in time.
    pub async fn known(&self, node: NodeId) -> Vec<Known> {
        self.router.known(node, ADMISSION_WAIT).await
    }

    /// Up to `max` resolutions from `from` on; waits up to `wait` for the first one. Asks the member on this node if there is
    /// one, otherwise any member, and keeps asking the member that answered.
    ///
    /// # Errors
    /// [`SyncError::Unavailable`] if no member can be asked.
    pub async fn follow(
        &self,
        from: Slot,
        max: usize,
        wait: Duration,
    ) -> Result<Followed, SyncError> {
        match &self.local {
            Some(local) => local.follow(from, max, wait).await,
            None => self.router.follow(from, max, wait).await,
        }
    }
}

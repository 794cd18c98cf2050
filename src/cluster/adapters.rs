//! How the roles reach each other: sync and storages, as replicas and entries use them.
//!
//! Invariant: an adapter only translates between types.
//!
//! Deliberately absent: connections (`peer`, and the sync client).

use futures::future::BoxFuture;
use futures::FutureExt;
use std::time::Duration;
use tokio::time::Instant;
use vulpes_raft::client::SyncClient;
use vulpes_raft::ids::{Incarnation, NodeId, Slot};
use vulpes_raft::order::{SealedSegment, SegmentOutcome, StorageGroups};
use vulpes_raft::service::{Followed as SyncFollowed, Lease as SyncLease, SyncError};

use crate::entry::order::{Lease, Opened, OrderError, OrderService};
use crate::replica::{Followed, IndexFailure, OrderFeed, SlotIndex};
use crate::storage::{IndexError, Storage};
use crate::types::limits;
use crate::types::row::IndexedRow;

/// How long a follower waits for the next slot before it asks again.
const FOLLOW_WAIT: Duration = Duration::from_secs(5);

/// Sync, for replicas and entries.
#[derive(Clone)]
pub(crate) struct SyncTier(pub(crate) SyncClient);

impl OrderFeed for SyncTier {
    fn follow(&self, from: Slot) -> BoxFuture<'_, Result<Followed, String>> {
        async move {
            match self.0.follow(from, limits::READ_ROWS, FOLLOW_WAIT).await {
                Ok(SyncFollowed::Rows(rows)) => Ok(Followed::Rows(rows)),
                Ok(SyncFollowed::Behind { .. }) => Ok(Followed::Behind),
                Err(error) => Err(error.to_string()),
            }
        }
        .boxed()
    }
}

fn order_error(error: SyncError) -> OrderError {
    tracing::debug!(%error, "sync did not answer");
    match error {
        SyncError::Unavailable(_) => OrderError::Unavailable,
        SyncError::Unknown(_) => OrderError::Unknown,
        SyncError::Wiped(_) => OrderError::Wiped,
        SyncError::Shutdown => OrderError::Shutdown,
    }
}

impl OrderService for SyncTier {
    fn open(&self, entry: NodeId, request: u64) -> BoxFuture<'_, Result<Opened, OrderError>> {
        async move {
            let opened = self.0.open(entry, request).await.map_err(order_error)?;
            Ok(Opened { incarnation: opened.incarnation, groups: opened.groups })
        }
        .boxed()
    }

    fn propose(
        &self,
        segments: Vec<SealedSegment>,
    ) -> BoxFuture<'_, Result<Vec<SegmentOutcome>, OrderError>> {
        async move { self.0.propose(segments).await.map_err(order_error) }.boxed()
    }

    fn renew(
        &self,
        entry: NodeId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<Lease, OrderError>> {
        async move {
            match self.0.renew(entry, incarnation).await.map_err(order_error)? {
                SyncLease::Held => Ok(Lease::Held),
                SyncLease::Lost => Ok(Lease::Lost),
            }
        }
        .boxed()
    }

    fn groups(&self) -> BoxFuture<'_, Result<StorageGroups, OrderError>> {
        async move { self.0.groups().await.map_err(order_error) }.boxed()
    }
}

impl SlotIndex for Storage {
    fn lacks(&self, segment: &SealedSegment) -> bool {
        Self::lacks(self, segment)
    }

    fn comes(&self, segment: &SealedSegment) -> bool {
        Self::comes(self, segment.id)
    }

    fn arrival<'a>(&'a self, segment: &'a SealedSegment, until: Instant) -> BoxFuture<'a, ()> {
        self.await_arrival(segment, until).boxed()
    }

    fn fetched(&self, bodies: u64) {
        self.has_fetched(bodies);
    }

    fn index(&self, rows: Vec<IndexedRow>) -> BoxFuture<'_, Result<(), IndexFailure>> {
        async move {
            Storage::index(self, rows).await.map_err(|error| match error {
                IndexError::Closed => IndexFailure::Closing,
                refused => IndexFailure::Refused(refused.to_string()),
            })
        }
        .boxed()
    }
}

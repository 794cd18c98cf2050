//! Reads what has left a node's memory: rows and bodies, from the storages.
//!
//! Invariant: a body is returned only if it is the one that was voted for. Every storage has all rows; the bodies of a segment
//! are at the storages of its group, which are asked first. A frozen or unreachable storage blocks no read: the next one is
//! asked as well.
//!
//! Deliberately absent: what is retained and what is released, which the log knows.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, BoxFuture};
use futures::stream::FuturesUnordered;
use futures::StreamExt;
use vulpes_raft::ids::{AdvanceSegment, Position, Shard, Slot};
use vulpes_raft::order::{Resolution, SealedSegment};

use super::{open_body, ReadError};
use crate::segment::Segment;

/// How long to wait for one storage before the next one is asked as well.
const HEDGE: Duration = Duration::from_millis(200);

/// The error if there is no storage to ask.
const NONE_KNOWN: &str = "this node knows no storage";

/// Rows of the order, as a storage has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// Dense from the requested slot; empty if that is past the storage's last row.
    pub rows: Vec<Resolution>,
    /// The oldest slot it still has.
    pub oldest: Slot,
    /// Offsets of events that subscribers never see, by slot; slots without any are left out.
    pub hidden: Vec<(Slot, Vec<u32>)>,
}

/// A storage can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a storage can't be read: {0}")]
pub struct SourceError(pub String);

/// A source of old rows and bodies: a storage, here or elsewhere.
pub trait Source: Send + Sync + 'static {
    /// Whether it stores bodies of this shard's segments.
    fn stores(&self, shard: Shard) -> bool;

    /// Rows from a slot on.
    fn rows(&self, from: Slot, max: usize) -> BoxFuture<'_, Result<Rows, SourceError>>;

    /// Bodies, as many from the front as fit one answer; `None` if it lacks one.
    fn bodies(
        &self,
        segments: Vec<AdvanceSegment>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, SourceError>>;

    /// The row whose segment contains a position; `None` if it has none.
    fn row_of(&self, position: Position) -> BoxFuture<'_, Result<Option<Resolution>, SourceError>>;

    /// The first slot that is retained anywhere, as far as it knows.
    fn head(&self) -> BoxFuture<'_, Result<Slot, SourceError>>;
}

/// The storages, nearest first.
#[derive(Clone)]
pub(super) struct Sources(pub(super) Arc<[Arc<dyn Source>]>);

impl Sources {
    fn iter(&self) -> impl Iterator<Item = &dyn Source> {
        self.0.iter().map(|source| source.as_ref())
    }

    /// Whether one of them knows that a slot is released.
    pub(super) async fn know_released(&self, slot: Slot) -> bool {
        for source in self.iter() {
            if source.head().await.is_ok_and(|head| head > slot) {
                return true;
            }
        }
        false
    }

    /// Rows from a slot on, from the first storage that has any.
    pub(super) async fn rows(&self, from: Slot, max: usize) -> Result<Rows, ReadError> {
        first(self.0.iter().cloned().map(move |source| async move {
            match source.rows(from, max).await {
                // It deletes earlier or later than this node, or has not filled in a gap from its downtime yet.
                Ok(Rows { oldest, .. }) if oldest > from => {
                    Err(format!("a storage has slots only from {oldest} on"))
                }
                Ok(found) if found.rows.first().is_some_and(|row| row.slot == from) => Ok(found),
                Ok(_) => Err(format!("no storage has slot {from} yet")),
                Err(error) => Err(error.to_string()),
            }
        }))
        .await
    }

    /// The row whose segment contains a position; `None` if no storage has it.
    pub(super) async fn row_of(&self, position: Position) -> Result<Option<Resolution>, ReadError> {
        let mut failure = NONE_KNOWN.to_owned();
        let mut answered = false;
        for source in self.iter() {
            match source.row_of(position).await {
                Ok(Some(row)) => return Ok(Some(row)),
                Ok(None) => answered = true,
                Err(error) => failure = error.to_string(),
            }
        }
        if answered {
            Ok(None)
        } else {
            Err(ReadError::Unavailable(failure))
        }
    }

    /// Bodies of some segments, a run from the front; at least one. All storage groups are asked in parallel for
    /// their own.
    pub(super) async fn bodies(&self, wanted: &[SealedSegment]) -> Result<Vec<Segment>, ReadError> {
        let mut groups = BTreeMap::<Option<usize>, Vec<&SealedSegment>>::new();
        for sealed in wanted {
            groups.entry(self.nearest(sealed.shard)).or_default().push(sealed);
        }
        let asked = groups.into_iter().map(|(nearest, wanted)| async move {
            (nearest, self.bodies_of_a_group(&wanted).await.map(Vec::into_iter))
        });
        let mut answers: BTreeMap<_, _> = join_all(asked).await.into_iter().collect();
        let mut found = Vec::with_capacity(wanted.len());
        for sealed in wanted {
            match answers.get_mut(&self.nearest(sealed.shard)) {
                Some(Ok(segments)) => match segments.next() {
                    Some(segment) => found.push(segment),
                    None => break,
                },
                Some(Err(error)) if found.is_empty() => return Err(error.clone()),
                Some(Err(_)) | None => break,
            }
        }
        Ok(found)
    }

    /// The nearest storage that stores a shard: all shards of a group have the same one.
    fn nearest(&self, shard: Shard) -> Option<usize> {
        self.iter().position(|source| source.stores(shard))
    }

    /// The same for segments of one group. Storages of other groups are asked last: a storage may hold more than the
    /// configured groups say.
    async fn bodies_of_a_group(
        &self,
        wanted: &[&SealedSegment],
    ) -> Result<Vec<Segment>, ReadError> {
        let Some(shard) = wanted.first().map(|first| first.shard) else { return Ok(Vec::new()) };
        let (stores, others): (Vec<_>, Vec<_>) =
            self.0.iter().cloned().partition(|source| source.stores(shard));
        let wanted: Arc<[SealedSegment]> = wanted.iter().map(|sealed| (*sealed).clone()).collect();
        let asks = stores.into_iter().chain(others).map(|source| (source, wanted.clone()));
        first(asks.map(|(source, wanted)| async move {
            let names = wanted.iter().map(|sealed| sealed.id).collect();
            let bodies = source.bodies(names).await.map_err(|error| error.to_string())?;
            let mut failure = NONE_KNOWN.to_owned();
            let mut found = Vec::with_capacity(bodies.len());
            for (sealed, body) in wanted.iter().zip(bodies) {
                match body.map(|body| open_body(sealed, body)) {
                    Some(Ok(segment)) => found.push(segment),
                    Some(Err(error)) => {
                        tracing::error!(segment = %sealed.id, %error, "a storage gave a damaged body");
                        failure = error.to_string();
                        break;
                    }
                    None => {
                        failure = format!("segment {} is missing", sealed.id);
                        break;
                    }
                }
            }
            Some(found).filter(|found| !found.is_empty()).ok_or(failure)
        }))
        .await
    }
}

/// The first good answer. Sources are asked one after the other: the next one if the last one failed or is slow.
/// Every call runs to its end, even if its answer is no longer needed: an unanswered call is how a dead connection is
/// noticed.
async fn first<T, F>(mut asks: impl Iterator<Item = F>) -> Result<T, ReadError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, String>> + Send + 'static,
{
    let mut failure = NONE_KNOWN.to_owned();
    let mut asked = FuturesUnordered::new();
    asked.extend(asks.next());
    loop {
        match tokio::time::timeout(HEDGE, asked.next()).await {
            Ok(Some(Ok(answer))) => {
                if !asked.is_empty() {
                    tokio::spawn(async move { while asked.next().await.is_some() {} });
                }
                return Ok(answer);
            }
            Ok(Some(Err(error))) => {
                failure = error;
                asked.extend(asks.next());
            }
            Ok(None) => return Err(ReadError::Unavailable(failure)),
            Err(_) => asked.extend(asks.next()),
        }
    }
}

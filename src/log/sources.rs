//! Reading what has left a node's memory: rows and bodies, from the storages.
//!
//! Invariant: a body is given only where it is the one that was voted for. Every storage has all rows; the bodies of a
//! segment are with the storages of its group, which are asked first.
//!
//! Deliberately absent: what is kept and what is released, which the log knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{join_all, BoxFuture};
use vulpes_raft::ids::{AdvanceSegment, Position, Shard, Slot};
use vulpes_raft::order::{Resolution, SealedSegment};

use super::{open_body, ReadError};
use crate::segment::Segment;

/// What is said where there is nobody to ask.
const NONE_KNOWN: &str = "this node knows no storage";

/// Rows of the order, as a storage has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// Dense from the slot asked for; empty where that is past the storage's last row.
    pub rows: Vec<Resolution>,
    /// The oldest slot it still has.
    pub oldest: Slot,
    /// Offsets of events that subscribers never see, by slot; slots without any are not named.
    pub hidden: Vec<(Slot, Vec<u32>)>,
}

/// A storage can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a storage can't be read: {0}")]
pub struct SourceError(pub String);

/// Where old rows and bodies come from: a storage, here or elsewhere.
pub trait Source: Send + Sync + 'static {
    /// Whether it keeps bodies of this shard's segments.
    fn keeps(&self, shard: Shard) -> bool;

    /// Rows from a slot on.
    fn rows(&self, from: Slot, max: usize) -> BoxFuture<'_, Result<Rows, SourceError>>;

    /// Bodies, as many from the front as fit one answer; `None` where it does not have one.
    fn bodies(
        &self,
        segments: Vec<AdvanceSegment>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, SourceError>>;

    /// The row in whose segment a position stands; `None` where it is outside of what it has.
    fn row_of(&self, position: Position) -> BoxFuture<'_, Result<Option<Resolution>, SourceError>>;

    /// The first slot that is kept anywhere, as far as it knows.
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
        let mut failure = NONE_KNOWN.to_owned();
        for source in self.iter() {
            match source.rows(from, max).await {
                // It is behind or ahead of this node in deleting, or has yet to fill in what it was not there for.
                Ok(Rows { oldest, .. }) if oldest > from => {
                    failure = format!("a storage has slots from {oldest} on only");
                }
                Ok(found) if found.rows.first().is_some_and(|row| row.slot == from) => {
                    return Ok(found);
                }
                Ok(_) => failure = format!("no storage has slot {from} yet"),
                Err(error) => failure = error.to_string(),
            }
        }
        Err(ReadError::Unavailable(failure))
    }

    /// The row in whose segment a position stands; `None` where no storage has it.
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

    /// The bodies of some segments, a run from the front; at least one. Every storage group is asked for its own, all at
    /// the same time.
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

    /// The nearest storage that keeps a shard: all shards of a group have the same.
    fn nearest(&self, shard: Shard) -> Option<usize> {
        self.iter().position(|source| source.keeps(shard))
    }

    /// The same of segments of one group. Those who are not of it are asked as well, at last: what the configuration says of
    /// groups is less than what a storage holds.
    async fn bodies_of_a_group(
        &self,
        wanted: &[&SealedSegment],
    ) -> Result<Vec<Segment>, ReadError> {
        let Some(shard) = wanted.first().map(|first| first.shard) else { return Ok(Vec::new()) };
        let keepers = self.iter().filter(|source| source.keeps(shard));
        let others = self.iter().filter(|source| !source.keeps(shard));
        let mut failure = NONE_KNOWN.to_owned();
        for source in keepers.chain(others) {
            let names = wanted.iter().map(|sealed| sealed.id).collect();
            let bodies = match source.bodies(names).await {
                Ok(bodies) => bodies,
                Err(error) => {
                    failure = error.to_string();
                    continue;
                }
            };
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
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Err(ReadError::Unavailable(failure))
    }
}

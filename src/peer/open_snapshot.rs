//! A connection's snapshot of the realms' state: what a peer reads page by page.
//!
//! Invariant: a connection has at most one snapshot, at most [`IDLE`] after its last page and [`LONGEST`] in all:
//! while it lives, the storage's file can't reuse freed space. It ends with its connection.
//!
//! Deliberately absent: how many snapshots a node may have, which the storage decides.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::wire::StateHead;
use crate::storage::{ReadError, StatePage, StateSnapshot, Storage};

/// Longest time between two requests for pages.
pub(super) const IDLE: Duration = Duration::from_secs(10);

/// Longest time for all pages.
pub(super) const LONGEST: Duration = Duration::from_secs(300);

/// A connection's snapshot. Clones share it.
#[derive(Clone, Default)]
pub(super) struct OpenSnapshot(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    /// The number of the last snapshot.
    id: u64,
    open: Option<Open>,
}

struct Open {
    snapshot: StateSnapshot,
    began: Instant,
    asked: Instant,
}

impl Open {
    fn ends(&self) -> Instant {
        (self.asked + IDLE).min(self.began + LONGEST)
    }
}

impl OpenSnapshot {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new snapshot, replacing the one before.
    pub(super) fn begin(&self, storage: &Storage) -> Result<StateHead, ReadError> {
        let mut slot = self.lock();
        slot.open = None;
        let snapshot = storage.snapshot()?;
        slot.id += 1;
        let tail = snapshot.tail().cloned();
        let now = Instant::now();
        slot.open = Some(Open { snapshot, began: now, asked: now });
        tokio::spawn(end_in_time(Arc::downgrade(&self.0), slot.id, now + IDLE));
        Ok(StateHead { id: slot.id, tail })
    }

    /// The next page of a snapshot; the last page ends it.
    pub(super) fn next(&self, id: u64) -> Result<StatePage, ReadError> {
        let mut slot = self.lock();
        let is_current = slot.id == id;
        let open = slot.open.as_mut().filter(|_| is_current).ok_or(ReadError::SnapshotGone)?;
        open.asked = Instant::now();
        let page = open.snapshot.next_page();
        if page.as_ref().map_or(true, |page| page.last) {
            slot.open = None;
        }
        page
    }
}

/// Ends an abandoned snapshot.
async fn end_in_time(lent: Weak<Mutex<Slot>>, id: u64, mut by: Instant) {
    loop {
        tokio::time::sleep_until(by).await;
        let Some(lent) = lent.upgrade().map(OpenSnapshot) else { return };
        let mut slot = lent.lock();
        if slot.id != id {
            return;
        }
        match &slot.open {
            Some(open) if open.ends() > by => by = open.ends(),
            Some(_) => slot.open = None,
            None => return,
        }
    }
}

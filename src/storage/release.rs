//! Both ends of a storage's part of the log: deleting what was released, starting over from another storage's state, and
//! filling in the retained rows before that.
//!
//! Invariant: after a power cut at any time, the rows are dense, each segment in them has its body, and the state is the one
//! after the last row. One caller at a time moves an end. Deleting goes forward from the oldest row, filling in goes backward
//! from it, both in portions, so that no group commit becomes long. The last row is never deleted: it gives the slot and
//! position of the next one.
//!
//! Deliberately absent: what was released (`realm`), and when this is done (`cluster::upkeep`).

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use vulpes_raft::ids::{Incarnation, NodeId, Slot};
use vulpes_raft::mutant::{planted, Mutant};
use vulpes_raft::order::{Resolution, Step};

use super::error::{IndexError, ReadError, ReleaseError};
use super::staging::Write;
use super::writer::Work;
use super::{is_body_of, Closing, Storage};
use crate::types::limits;
use crate::types::row::IndexedRow;

/// Most rows deleted in one group commit.
const PORTION_ROWS: usize = limits::READ_ROWS;

/// Bytes of bodies deleted in one group commit; one more body may exceed it.
const PORTION_BYTES: usize = 8 << 20;

impl Storage {
    /// Deletes everything that is durable here before a slot, and returns once that is done.
    ///
    /// # Errors
    /// If the disk can't be read, or the node is ending.
    pub async fn release(&self, before: Slot) -> Result<(), ReleaseError> {
        self.inner.head.fetch_max(before.0, Ordering::Relaxed);
        let before = if planted(Mutant::DeleteKept) { before.next() } else { before };
        if self.oldest()? < before {
            let indexed = *self.inner.durable.indexed.borrow();
            self.before_deleting(indexed).await;
        }
        while self.release_portion(before).await? {}
        Ok(())
    }

    /// Returns whether something was deleted.
    async fn release_portion(&self, before: Slot) -> Result<bool, ReleaseError> {
        let _alone = self.inner.ends.lock().await;
        self.delete_portion(before).await
    }

    async fn delete_portion(&self, before: Slot) -> Result<bool, ReleaseError> {
        let before = before.min(*self.inner.durable.indexed.borrow());
        let oldest = self.oldest()?;
        if oldest >= before {
            return Ok(false);
        }
        let mut bytes = 0;
        let mut writes = Vec::new();
        for row in self.rows(oldest, PORTION_ROWS)? {
            if row.slot >= before || bytes >= PORTION_BYTES {
                break;
            }
            bytes += body_length(&row);
            writes.push(released(&row));
        }
        let permit = self.room(0).await.ok_or(ReleaseError::Closed)?;
        let (waiting, done) = oneshot::channel();
        {
            let mut staging = self.staging();
            staging.released(&writes);
            let work = Work::Release { writes, waiting };
            self.submit(work, permit).map_err(|Closing| ReleaseError::Closed)?;
        }
        done.await.map_err(|_| ReleaseError::Closed)?;
        Ok(true)
    }

    /// Starts over after another storage's row, with that storage's state as the row's changes. This is for a storage that
    /// lacks what all others have released. `entries` are the incarnations that are open at that row. Bodies that are not in
    /// the order as far as this storage knows stay: it voted for them, and rows that are filled in may name them.
    ///
    /// No rows may be indexed meanwhile.
    ///
    /// # Errors
    /// If the row is not ahead of those here, its body is not the one that was voted for, the disk can't be
    /// read, or the node is ending.
    pub async fn adopt(
        &self,
        row: IndexedRow,
        entries: &[(NodeId, Incarnation)],
    ) -> Result<(), ReleaseError> {
        check_body(&row)?;
        let _alone = self.inner.ends.lock().await;
        let queued = Slot(self.staging().next().slot.0 - 1);
        let _ = self.indexed().wait_for(|indexed| *indexed >= queued).await;
        if row.resolution.slot <= queued {
            let (expected, found) = (queued.next(), row.resolution.slot);
            return Err(IndexError::NotNext { expected, found }.into());
        }
        self.before_deleting(queued).await;
        while self.delete_portion(queued).await? {}
        let weight = row.weight();
        let permit = self.room(weight).await.ok_or(ReleaseError::Closed)?;
        let (waiting, done) = oneshot::channel();
        {
            let old = self.tail();
            let mut staging = self.staging();
            let mut writes: Vec<Write> = old.iter().map(released).collect();
            writes.push(Write::Forget);
            writes.extend(staging.adopt(row, entries)?);
            let work = Work::Release { writes, waiting };
            self.submit(work, permit).map_err(|Closing| ReleaseError::Closed)?;
        }
        done.await.map_err(|_| ReleaseError::Closed)
    }

    /// Fills in rows before the oldest one here, the last of them right before it, each with its body if this storage
    /// lacks it. Returns once they are durable.
    ///
    /// # Errors
    /// If they do not directly precede the oldest row here, a body is missing or wrong, the disk can't be read, or the node is
    /// ending.
    pub async fn fill(&self, rows: Vec<IndexedRow>) -> Result<(), ReleaseError> {
        let mut weight = 0;
        for row in &rows {
            check_body(row)?;
            weight += row.weight();
        }
        let _alone = self.inner.ends.lock().await;
        let oldest = self.oldest()?;
        let last = rows.last().map(|row| row.resolution.slot);
        if let Some(last) = last.filter(|last| last.next() != oldest) {
            return Err(IndexError::NotNext { expected: oldest, found: last.next() }.into());
        }
        let permit = self.room(weight).await.ok_or(ReleaseError::Closed)?;
        let (waiting, done) = oneshot::channel();
        {
            let mut staging = self.staging();
            let writes = staging.fill(rows)?;
            let work = Work::Release { writes, waiting };
            self.submit(work, permit).map_err(|Closing| ReleaseError::Closed)?;
        }
        done.await.map_err(|_| ReleaseError::Closed)
    }
}

fn body_length(row: &Resolution) -> usize {
    match &row.step {
        Step::Segment(sealed) => sealed.length as usize,
        Step::Opened { .. } | Step::Closed { .. } => 0,
    }
}

fn released(row: &Resolution) -> Write {
    let body = match &row.step {
        Step::Segment(sealed) => Some(sealed.id),
        Step::Opened { .. } | Step::Closed { .. } => None,
    };
    Write::Release { slot: row.slot, body }
}

fn check_body(row: &IndexedRow) -> Result<(), ReleaseError> {
    match (&row.resolution.step, &row.body) {
        (Step::Segment(sealed), Some(body)) if !is_body_of(sealed, body) => {
            Err(IndexError::BodyWrong(sealed.id).into())
        }
        _ => Ok(()),
    }
}

impl From<ReadError> for ReleaseError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<IndexError> for ReleaseError {
    fn from(error: IndexError) -> Self {
        Self::Rows(error)
    }
}

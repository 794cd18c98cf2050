//! What a storage writes in a group commit: applies queued writes in its transaction, then completes the jobs.
//!
//! Invariant: callers get the answers to their jobs, and readers see the rows, only after the transaction is durable.
//!
//! Deliberately absent: decisions about what is written. The one exception is a body that comes again when its number
//! has been resolved: only the tables have the answer, and the transaction reads them in order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redb::{ReadableTable, Table, WriteTransaction};
use tokio::sync::{oneshot, watch, OwnedSemaphorePermit};
use vulpes_raft::disk::commit::Writer;
use vulpes_raft::disk::failure::CommitError;
use vulpes_raft::ids::{AdvanceSegment, Slot};
use vulpes_raft::net::wire;
use vulpes_raft::order::Resolution;

use super::staging::Write;
use super::tables::{self, Key};
use crate::append::AppendError;
use crate::types::row::Change;

/// How long rows and deletions may wait for a commit that another job starts. No caller waits for rows: a storage that lacks
/// some after a crash reads them again. Deleting is not urgent either.
const RIDE: Duration = Duration::from_millis(50);

/// Something to write, and its waiting caller.
pub(super) struct Job {
    pub(super) work: Work,
    /// Its share of the queue, released when it is done.
    pub(super) permit: OwnedSemaphorePermit,
    /// How long a body may wait for other jobs.
    pub(super) patience: Duration,
}

pub(super) enum Work {
    /// Writes, then sends this answer. A refusal waits in the queue too: the write that caused it may not be durable yet.
    Append { writes: Vec<Write>, answer: Result<(), AppendError>, waiting: Waiting },
    /// Compares a body with the one held since its number was resolved; a missing one was released.
    KeepAgain { id: AdvanceSegment, checksum: u64, waiting: Waiting },
    /// Writes rows of the order, and what goes with them.
    Index { writes: Vec<Write> },
    /// Makes the writes that move the ends of the local log, then notifies the caller.
    Release { writes: Vec<Write>, waiting: oneshot::Sender<()> },
}

pub(super) type Waiting = oneshot::Sender<Result<(), AppendError>>;

/// The durable part of the order.
pub(super) struct Durable {
    pub(super) tail: Mutex<Option<Resolution>>,
    pub(super) indexed: watch::Sender<Slot>,
}

impl Durable {
    pub(super) fn new(tail: Option<Resolution>) -> Self {
        let slot = tail.as_ref().map_or(Slot(0), |tail| tail.slot);
        Self { tail: Mutex::new(tail), indexed: watch::Sender::new(slot) }
    }

    pub(super) fn tail(&self) -> Option<Resolution> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn advance(&self, tail: Resolution) {
        let slot = tail.slot;
        *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = Some(tail);
        self.indexed.send_replace(slot);
    }
}

pub(super) struct SegmentWriter {
    durable: Arc<Durable>,
    /// The last row of the order in the current commit.
    tail: Option<Resolution>,
    /// Buffer for a body's row, to avoid an allocation for each.
    row: Vec<u8>,
}

impl SegmentWriter {
    pub(super) fn new(durable: Arc<Durable>) -> Self {
        Self { durable, tail: None, row: Vec::new() }
    }
}

impl Work {
    /// Turns a comparison into its answer.
    fn compare(&mut self, tables: &Tables<'_>) -> Result<(), CommitError> {
        let done = Self::Index { writes: Vec::new() };
        let Self::KeepAgain { id, checksum, waiting } = std::mem::replace(self, done) else {
            return Ok(());
        };
        let held = tables
            .bodies
            .get(&id.to_key())?
            .map(|row| tables::decode_body(row.value()).is_some_and(|(held, _)| held == checksum));
        let answer = match held {
            Some(true) => Ok(()),
            Some(false) => Err(AppendError::Conflict(id)),
            None => Err(AppendError::Released(id)),
        };
        *self = Self::Append { writes: Vec::new(), answer, waiting };
        Ok(())
    }

    fn writes_nothing(&self) -> bool {
        match self {
            Self::Append { writes, .. } | Self::Index { writes } | Self::Release { writes, .. } => {
                writes.is_empty()
            }
            Self::KeepAgain { .. } => false,
        }
    }

    fn complete(self) {
        match self {
            // A caller that no longer waits does not need the answer; what was written stays.
            Self::Append { answer, waiting, .. } => drop(waiting.send(answer)),
            Self::Release { waiting, .. } => drop(waiting.send(())),
            Self::KeepAgain { .. } | Self::Index { .. } => {}
        }
    }
}

impl Writer for SegmentWriter {
    type Job = Job;

    fn patience(job: &Job) -> Duration {
        match &job.work {
            Work::Append { .. } => job.patience,
            Work::KeepAgain { .. } => Duration::ZERO,
            Work::Index { .. } | Work::Release { .. } => RIDE,
        }
    }

    fn changes(job: &Job) -> bool {
        !job.work.writes_nothing()
    }

    fn write(
        &mut self,
        transaction: &WriteTransaction,
        jobs: &mut [Job],
    ) -> Result<(), CommitError> {
        let mut tables = Tables::open(transaction)?;
        for job in jobs {
            match &mut job.work {
                Work::Append { writes, .. }
                | Work::Index { writes }
                | Work::Release { writes, .. } => {
                    for write in writes.drain(..) {
                        tables.apply(write, &mut self.row, &mut self.tail)?;
                    }
                }
                Work::KeepAgain { .. } => job.work.compare(&tables)?,
            }
        }
        Ok(())
    }

    fn complete(&mut self, jobs: &mut Vec<Job>) {
        if let Some(tail) = self.tail.take() {
            self.durable.advance(tail);
        }
        for Job { work, permit, .. } in jobs.drain(..) {
            // Room first, so that the credit in the answer counts it.
            drop(permit);
            work.complete();
        }
    }
}

/// All tables, open for writing.
pub(super) struct Tables<'t> {
    bodies: Table<'t, Key, &'static [u8]>,
    slots: Table<'t, u64, &'static [u8]>,
    fences: Table<'t, u64, &'static [u8]>,
    state: Table<'t, &'static [u8], &'static [u8]>,
    hidden: Table<'t, u64, &'static [u8]>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, CommitError> {
        Ok(Self {
            bodies: transaction.open_table(tables::BODIES)?,
            slots: transaction.open_table(tables::SLOTS)?,
            fences: transaction.open_table(tables::FENCES)?,
            state: transaction.open_table(tables::STATE)?,
            hidden: transaction.open_table(tables::HIDDEN)?,
        })
    }

    fn apply(
        &mut self,
        write: Write,
        row: &mut Vec<u8>,
        tail: &mut Option<Resolution>,
    ) -> Result<(), CommitError> {
        match write {
            Write::Body { id, checksum, body } => {
                tables::encode_body(checksum, &body, row);
                self.bodies.insert(&id.to_key(), row.as_slice())?;
            }
            Write::Replace { id, checksum, body } => {
                let is_there = self.bodies.get(&id.to_key())?.is_some();
                if is_there {
                    tables::encode_body(checksum, &body, row);
                    self.bodies.insert(&id.to_key(), row.as_slice())?;
                }
            }
            Write::Discard { id } => {
                self.bodies.remove(&id.to_key())?;
            }
            Write::Row(resolution) => {
                self.slots.insert(resolution.slot.0, wire::encode(&resolution).as_slice())?;
                *tail = Some(resolution);
            }
            Write::Hidden { slot, offsets } => {
                self.hidden.insert(slot.0, wire::encode(&offsets).as_slice())?;
            }
            Write::State(Change { key, value: Some(value) }) => {
                self.state.insert(key.as_ref(), value.as_ref())?;
            }
            Write::State(Change { key, value: None }) => {
                self.state.remove(key.as_ref())?;
            }
            Write::Release { slot, body } => {
                self.slots.remove(slot.0)?;
                self.hidden.remove(slot.0)?;
                if let Some(id) = body {
                    self.bodies.remove(&id.to_key())?;
                }
            }
            Write::Older(resolution) => {
                self.slots.insert(resolution.slot.0, wire::encode(&resolution).as_slice())?;
            }
            Write::Forget => {
                self.slots.retain(|_, _| false)?;
                self.hidden.retain(|_, _| false)?;
                self.state.retain(|_, _| false)?;
            }
            Write::Fence { entry, fence } => {
                self.fences.insert(entry.0, tables::encode_fence(fence).as_slice())?;
            }
        }
        Ok(())
    }
}

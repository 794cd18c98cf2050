//! The ways into a group commit: a queue for each writer, and one gate for all of them.
//!
//! Invariant: a job that passed the gate first is in no later batch. A full queue blocks only its own writer.
//!
//! Deliberately absent: when a batch is taken (`commit`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::{Semaphore, TryAcquireError};
use tokio::time::Instant;

use super::Part;

/// One writer's way into the group commit. The writer's queue closes when the last clone is gone.
pub struct CommitQueue<J> {
    pub(super) door: Arc<Door<J>>,
}

impl<J> Clone for CommitQueue<J> {
    fn clone(&self) -> Self {
        Self { door: self.door.clone() }
    }
}

/// The queue is closed: the node is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the commit queue is closed because the node is shutting down")]
pub struct QueueClosed;

/// Why a job was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrySubmitError {
    Full,
    /// The node is ending.
    Closed,
}

impl<J: Send + 'static> CommitQueue<J> {
    /// Queues a job with its writer's patience, and waits while the queue is full.
    ///
    /// # Errors
    /// [`QueueClosed`] if the node is ending.
    pub async fn submit(&self, job: J) -> Result<(), QueueClosed> {
        self.door.room.acquire().await.map_err(|_| QueueClosed)?.forget();
        self.door.push(job)
    }

    /// Like [`CommitQueue::submit`], without waiting.
    ///
    /// # Errors
    /// [`TrySubmitError`].
    pub fn try_submit(&self, job: J) -> Result<(), TrySubmitError> {
        match self.door.room.try_acquire() {
            Ok(place) => place.forget(),
            Err(TryAcquireError::NoPermits) => return Err(TrySubmitError::Full),
            Err(TryAcquireError::Closed) => return Err(TrySubmitError::Closed),
        }
        self.door.push(job).map_err(|QueueClosed| TrySubmitError::Closed)
    }

    /// Closes the queue for all clones. Queued jobs are still written.
    pub fn close(&self) {
        self.door.close();
    }
}

/// The shared state of one writer's handles.
pub(super) struct Door<J> {
    pub(super) line: Arc<Line<J>>,
    pub(super) gate: Arc<Gate>,
    /// Free slots in the queue.
    pub(super) room: Semaphore,
    pub(super) patience: fn(&J) -> Duration,
}

impl<J> Door<J> {
    fn push(&self, job: J) -> Result<(), QueueClosed> {
        let due = Instant::now() + (self.patience)(&job);
        // A job that passes here first is in no later batch: the gate is held while a batch is taken, too.
        let mut gate = self.gate.lock();
        let mut line = self.line.lock();
        if !line.open {
            return Err(QueueClosed);
        }
        line.jobs.push(job);
        if gate.due.is_none_or(|earliest| due < earliest) {
            gate.due = Some(due);
        }
        if gate.looks.is_none_or(|looks| due < looks) {
            gate.wake();
        }
        Ok(())
    }

    fn close(&self) {
        self.room.close();
        let mut gate = self.gate.lock();
        self.line.lock().open = false;
        gate.wake();
    }
}

impl<J> Drop for Door<J> {
    fn drop(&mut self) {
        self.close();
    }
}

/// The waiting jobs of one writer.
pub(super) struct Line<J>(Mutex<Waiting<J>>);

pub(super) struct Waiting<J> {
    pub(super) jobs: Vec<J>,
    pub(super) open: bool,
}

impl<J> Line<J> {
    pub(super) fn new(open: bool) -> Self {
        Self(Mutex::new(Waiting { jobs: Vec::new(), open }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting<J>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held while a job is queued, and while all queues are drained.
#[derive(Default)]
pub(super) struct Gate(Mutex<Turn>);

#[derive(Default)]
pub(super) struct Turn {
    /// When the next commit begins at the latest; none if no jobs wait.
    pub(super) due: Option<Instant>,
    /// Writers that the committer has not added yet.
    pub(super) joining: Vec<Box<dyn Part>>,
    /// No more writers will join.
    pub(super) complete: bool,
    /// There are no more commits.
    pub(super) ended: bool,
    /// The committer's waker, while it waits.
    pub(super) waker: Option<Waker>,
    /// When the committer checks by itself.
    pub(super) looks: Option<Instant>,
}

impl Gate {
    pub(super) fn lock(&self) -> MutexGuard<'_, Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

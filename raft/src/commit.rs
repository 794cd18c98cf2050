//! Group commit: many jobs, one transaction, one fsync.
//!
//! Invariant: a job is completed only after the transaction that holds it is durable, and jobs are committed in the
//! order in which they were queued. A failed commit has an unknown outcome, so it ends the node.
//!
//! A batch is whatever queued up while the last one was being synced. Jobs that nobody waits for start none of their
//! own at once: they ride on the next one, or go after [`RIDE`].
//!
//! Deliberately absent: what a job is.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::host::{CommitMode, Host};
use crate::mutant::{planted, Mutant};

/// How long jobs that nobody waits for may wait for one that somebody does.
pub const RIDE: Duration = Duration::from_millis(50);

/// Writes batches. The committer owns its database for writing.
pub trait Committer: Send + 'static {
    type Job: Send + 'static;

    /// How much of a batch's byte budget this job takes.
    fn weight(job: &Self::Job) -> usize;

    /// Whether somebody waits for this job; others are held back for up to [`RIDE`].
    fn is_awaited(_job: &Self::Job) -> bool {
        true
    }

    /// Writes all jobs in one transaction, makes it durable, then completes each of them, leaving `jobs` empty.
    ///
    /// # Errors
    /// Any error means that the disk can't be trusted any more: the node ends, and no job of the batch is completed.
    fn commit(&mut self, jobs: &mut Vec<Self::Job>) -> Result<(), CommitError>;
}

/// Why a commit failed. Its outcome is unknown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CommitError(pub String);

impl<E: Into<redb::Error>> From<E> for CommitError {
    fn from(error: E) -> Self {
        Self(error.into().to_string())
    }
}

/// What opening a database after a crash costs, against what each commit costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Commits sync once; opening after a crash reads the whole file. For files that stay small.
    Walk,
    /// Commits record what recovery needs, which redb couples with a second sync; opening takes milliseconds.
    Quick,
}

/// Begins the one transaction of a group commit, durable when its commit returns.
///
/// # Errors
/// Where the disk fails.
pub fn begin_write(
    database: &redb::Database,
    recovery: Recovery,
) -> Result<redb::WriteTransaction, CommitError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(recovery == Recovery::Quick);
    if planted(Mutant::SkipFsync) {
        transaction.set_durability(redb::Durability::None)?;
    }
    Ok(transaction)
}

/// The limits of one commit queue.
#[derive(Clone, Copy, Debug)]
pub struct CommitLimits {
    /// Jobs that may wait; a full queue makes senders wait.
    pub queue: usize,
    /// Jobs in one batch.
    pub batch_jobs: usize,
    /// Bytes in one batch, by [`Committer::weight`]; a single larger job still goes alone.
    pub batch_bytes: usize,
}

/// The way into a commit queue.
#[derive(Debug)]
pub struct CommitQueue<J> {
    sender: mpsc::Sender<J>,
}

impl<J> Clone for CommitQueue<J> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

/// The queue's committer is gone: the node is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the commit queue is closed because the node is shutting down")]
pub struct QueueClosed;

/// Why a job was handed back.
#[derive(Debug)]
pub enum TrySubmitError<J> {
    /// The queue is full.
    Full(J),
    /// The node is ending.
    Closed(J),
}

impl<J: Send + 'static> CommitQueue<J> {
    /// Queues a job, waiting while the queue is full.
    ///
    /// # Errors
    /// [`QueueClosed`] when the node is ending.
    pub async fn submit(&self, job: J) -> Result<(), QueueClosed> {
        self.sender.send(job).await.map_err(|_| QueueClosed)
    }

    /// Queues a job, or hands it back when there is no room.
    ///
    /// # Errors
    /// The job itself, in [`TrySubmitError`].
    pub fn try_submit(&self, job: J) -> Result<(), TrySubmitError<J>> {
        self.sender.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(job) => TrySubmitError::Full(job),
            mpsc::error::TrySendError::Closed(job) => TrySubmitError::Closed(job),
        })
    }

    /// How many more jobs fit right now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.sender.capacity()
    }
}

/// Starts a committer and returns the way in. It ends when all senders are gone.
pub fn spawn<C: Committer>(
    host: &Host,
    name: &str,
    limits: CommitLimits,
    committer: C,
) -> std::io::Result<CommitQueue<C::Job>> {
    let (sender, receiver) = mpsc::channel(limits.queue);
    let fatal = host.fatal.clone();
    let name = name.to_owned();
    match &host.commits {
        CommitMode::Thread => {
            let mut worker = Worker { receiver, limits, committer, batch: Vec::new() };
            std::thread::Builder::new().name(name.clone()).spawn(move || {
                while worker.fill_blocking() {
                    if let Err(error) = worker.commit() {
                        fatal(&format!("{name}: the disk failed, outcome unknown: {error}"));
                        return;
                    }
                }
            })?;
        }
        CommitMode::Task { delay } => {
            let delay = delay.clone();
            let mut worker = Worker { receiver, limits, committer, batch: Vec::new() };
            tokio::spawn(async move {
                while worker.fill().await {
                    tokio::time::sleep(delay()).await;
                    if let Err(error) = worker.commit() {
                        fatal(&format!("{name}: the disk failed, outcome unknown: {error}"));
                        return;
                    }
                }
            });
        }
    }
    Ok(CommitQueue { sender })
}

/// What is in a batch so far.
#[derive(Default)]
struct Gathered {
    bytes: usize,
    awaited: bool,
    /// There are jobs, but none that is awaited.
    holds_back: bool,
}

/// Wakes the commit thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

struct Worker<C: Committer> {
    receiver: mpsc::Receiver<C::Job>,
    limits: CommitLimits,
    committer: C,
    /// What the next commit writes.
    batch: Vec<C::Job>,
}

impl<C: Committer> Worker<C> {
    fn fill_blocking(&mut self) -> bool {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut gathered = Gathered::default();
        let mut limit: Option<Instant> = None;
        loop {
            match (self.poll_batch(&mut context, &mut gathered), limit) {
                (Poll::Ready(open), _) => return open,
                (Poll::Pending, None) if gathered.holds_back => {
                    limit = Some(Instant::now() + RIDE);
                }
                (Poll::Pending, None) => std::thread::park(),
                (Poll::Pending, Some(limit)) => {
                    match limit.checked_duration_since(Instant::now()) {
                        Some(left) if !left.is_zero() => std::thread::park_timeout(left),
                        _ => return true,
                    }
                }
            }
        }
    }

    async fn fill(&mut self) -> bool {
        let mut gathered = Gathered::default();
        let first = std::future::poll_fn(|context| match self.poll_batch(context, &mut gathered) {
            Poll::Pending if gathered.holds_back => Poll::Ready(None),
            batch => batch.map(Some),
        });
        if let Some(open) = first.await {
            return open;
        }
        let rest = std::future::poll_fn(|context| self.poll_batch(context, &mut gathered));
        tokio::time::timeout(RIDE, rest).await.unwrap_or(true)
    }

    /// Takes what has queued up, within the limits of a batch. Ready once the batch is to be written; `false` when
    /// nothing is left and nothing more comes.
    fn poll_batch(&mut self, context: &mut Context<'_>, gathered: &mut Gathered) -> Poll<bool> {
        while self.batch.len() < self.limits.batch_jobs && gathered.bytes < self.limits.batch_bytes
        {
            match self.receiver.poll_recv(context) {
                Poll::Ready(Some(job)) => {
                    gathered.bytes += C::weight(&job);
                    gathered.awaited |= C::is_awaited(&job);
                    self.batch.push(job);
                }
                Poll::Ready(None) => return Poll::Ready(!self.batch.is_empty()),
                Poll::Pending if self.batch.is_empty() => return Poll::Pending,
                Poll::Pending if gathered.awaited => return Poll::Ready(true),
                Poll::Pending => {
                    gathered.holds_back = true;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(true)
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        self.committer.commit(&mut self.batch)
    }
}

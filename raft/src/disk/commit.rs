//! Group commit: many jobs from all writers of a file, one transaction, one fsync.
//!
//! Invariant: a job is completed only after the transaction that holds it is durable. A job that was queued before
//! another one, of the same writer or not, is durable no later: each batch is everything that is queued. A failed
//! commit has an unknown outcome, so it ends the node.
//!
//! A batch is whatever was queued while the last one was being synced. Jobs without a waiting caller have patience:
//! they join the next commit that another job starts, and start one themselves only when their patience runs out.
//!
//! Deliberately absent: what a job is, and limits of a batch other than those of the queues.

mod queue;

use std::future::Future;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use redb::{Database, WriteTransaction};
use tokio::sync::{watch, Semaphore};
use tokio::time::Instant;

use crate::disk::failure::CommitError;
use crate::disk::witness::Witness;
use crate::host::{CommitMode, Host};
use crate::mutant::{planted, Mutant};
use queue::{Door, Gate, Line};

pub use queue::{CommitQueue, QueueClosed, TrySubmitError};

/// How soon after a commit the committer checks for more work by itself. A job that can wait that long need not wake
/// it, and an idle committer is not woken at all.
const LOOK: Duration = Duration::from_millis(20);

/// A writer of a file.
pub trait Writer: Send + 'static {
    type Job: Send + 'static;

    /// How long this job may wait for a commit that another job starts.
    fn patience(_job: &Self::Job) -> Duration {
        Duration::ZERO
    }

    /// Whether this job changes anything. A job that changes nothing only waits for the jobs before it.
    fn changes(_job: &Self::Job) -> bool {
        true
    }

    /// Writes the jobs, in their order.
    ///
    /// # Errors
    /// Any error means that the disk can't be trusted any more: the node ends, and no job of the batch is
    /// completed.
    fn write(
        &mut self,
        transaction: &WriteTransaction,
        jobs: &mut [Self::Job],
    ) -> Result<(), CommitError>;

    /// The jobs are durable: answers their callers, and leaves `jobs` empty.
    fn complete(&mut self, jobs: &mut Vec<Self::Job>);
}

/// Begins the one transaction of a group commit, durable when its commit returns. redb's quick repair would cost a
/// second fsync per commit, and delay every acknowledgement. Without it, a restart after a crash walks the file,
/// which takes a few seconds per gigabyte.
///
/// # Errors
/// If the disk fails.
pub fn begin_write(database: &Database) -> Result<WriteTransaction, CommitError> {
    let mut transaction = database.begin_write()?;
    if planted(Mutant::SkipFsync) {
        transaction.set_durability(redb::Durability::None)?;
    }
    Ok(transaction)
}

/// A database with its group commit, which writers can join. Once this is dropped no more writers can join, and the
/// database is closed when all writers' queues are.
pub struct Commits {
    database: Weak<Database>,
    gate: Arc<Gate>,
    closed: watch::Receiver<()>,
}

impl Commits {
    /// Starts the group commit of a database. In a simulation, call it within the node's runtime.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(host: &Host, database: Database, witness: Witness) -> std::io::Result<Self> {
        let (ending, closed) = watch::channel(());
        let database = Arc::new(database);
        let gate = Arc::<Gate>::default();
        let (shared, commits) = (Arc::downgrade(&database), gate.clone());
        let mut committer =
            Committer { gate, parts: Vec::new(), database, witness, look: None, _ending: ending };
        let fatal = host.fatal.clone();
        let end = move |error: CommitError| {
            match error {
            CommitError::Failed(reason) => {
                fatal(&format!(
                    "the disk failed, outcome unknown: {reason}; see that it is healthy and has room, then start the node again"
                ));
            }
            CommitError::Damaged(reason) => fatal(&format!(
                "the node's file is damaged: {reason}; give the node an empty data directory and a new number"
            )),
        }
        };
        match &host.commits {
            CommitMode::Thread => {
                std::thread::Builder::new().name("commit".into()).spawn(move || {
                    while committer.wait_blocking() {
                        committer.take();
                        if let Err(error) = committer.commit() {
                            return end(error);
                        }
                    }
                })?;
            }
            CommitMode::Task { delay } => {
                let delay = delay.clone();
                tokio::spawn(async move {
                    while committer.wait().await {
                        committer.take();
                        tokio::time::sleep(delay()).await;
                        if let Err(error) = committer.commit() {
                            return end(error);
                        }
                    }
                });
            }
        }
        Ok(Self { database: shared, gate: commits, closed })
    }

    /// The database, for reading; it is gone once its group commit has ended.
    #[must_use]
    pub fn database(&self) -> &Weak<Database> {
        &self.database
    }

    /// Adds a writer, with a queue for `queue` jobs.
    pub fn join<W: Writer>(&self, writer: W, queue: usize) -> CommitQueue<W::Job> {
        let mut gate = self.gate.lock();
        let line = Arc::new(Line::new(!gate.ended));
        let door = Arc::new(Door {
            line: line.clone(),
            gate: self.gate.clone(),
            room: Semaphore::new(queue),
            patience: W::patience,
        });
        let joined = Joined { line, door: Arc::downgrade(&door), writer, batch: Vec::new() };
        gate.joining.push(Box::new(joined));
        CommitQueue { door }
    }

    /// Closes when the database has been closed.
    #[must_use]
    pub fn closed(&self) -> watch::Receiver<()> {
        self.closed.clone()
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        let mut gate = self.gate.lock();
        gate.complete = true;
        gate.wake();
    }
}

/// A writer of any kind.
trait Part: Send {
    /// Takes all its jobs into the batch; returns whether there are any. The gate is held.
    fn take(&mut self) -> bool;
    /// Accepts no more jobs, and drops waiting ones: they will not be written.
    fn end(&mut self);
    fn is_open(&self) -> bool;
    fn changes(&self) -> bool;
    fn write(&mut self, transaction: &WriteTransaction) -> Result<(), CommitError>;
    fn complete(&mut self);
}

struct Joined<W: Writer> {
    line: Arc<Line<W::Job>>,
    /// Gets room for more jobs once waiting ones are taken.
    door: Weak<Door<W::Job>>,
    writer: W,
    /// The jobs of the next commit.
    batch: Vec<W::Job>,
}

impl<W: Writer> Part for Joined<W> {
    fn take(&mut self) -> bool {
        self.batch.append(&mut self.line.lock().jobs);
        if let Some(door) = self.door.upgrade() {
            door.room.add_permits(self.batch.len());
        }
        !self.batch.is_empty()
    }

    fn end(&mut self) {
        if let Some(door) = self.door.upgrade() {
            door.room.close();
        }
        let jobs = {
            let mut line = self.line.lock();
            line.open = false;
            std::mem::take(&mut line.jobs)
        };
        drop(jobs);
    }

    fn is_open(&self) -> bool {
        let line = self.line.lock();
        line.open || !line.jobs.is_empty()
    }

    fn changes(&self) -> bool {
        self.batch.iter().any(W::changes)
    }

    fn write(&mut self, transaction: &WriteTransaction) -> Result<(), CommitError> {
        if self.changes() {
            self.writer.write(transaction, &mut self.batch)?;
        }
        Ok(())
    }

    fn complete(&mut self) {
        if !self.batch.is_empty() {
            self.writer.complete(&mut self.batch);
        }
    }
}

/// Wakes the commit thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// When the next commit begins.
enum Next {
    /// Now.
    Due,
    /// At this moment, unless something wakes the committer earlier.
    At(Instant),
    /// When it is woken.
    Idle,
    /// All queues are closed and empty.
    Never,
}

struct Committer {
    gate: Arc<Gate>,
    parts: Vec<Box<dyn Part>>,
    database: Arc<Database>,
    witness: Witness,
    /// When to check again after a commit.
    look: Option<Instant>,
    /// Dropped after the database, which is closed then.
    _ending: watch::Sender<()>,
}

/// Notifies waiting callers that their jobs will not be written.
impl Drop for Committer {
    fn drop(&mut self) {
        let mut gate = self.gate.lock();
        gate.ended = true;
        self.parts.append(&mut gate.joining);
        drop(gate);
        for part in &mut self.parts {
            part.end();
        }
    }
}

impl Committer {
    /// What to do next; the waker is woken when that changes.
    fn next(&mut self, waker: &Waker) -> Next {
        let mut gate = self.gate.lock();
        self.parts.append(&mut gate.joining);
        match gate.due {
            Some(due) if due <= Instant::now() => return Next::Due,
            None if gate.complete && !self.parts.iter().any(|part| part.is_open()) => {
                return Next::Never;
            }
            _ => {}
        }
        gate.waker = Some(waker.clone());
        self.look = self.look.filter(|look| *look > Instant::now());
        gate.looks = gate.due.into_iter().chain(self.look).min();
        gate.looks.map_or(Next::Idle, Next::At)
    }

    fn wait_blocking(&mut self) -> bool {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            match self.next(&waker) {
                Next::Due => return true,
                Next::Never => return false,
                Next::Idle => std::thread::park(),
                Next::At(due) => std::thread::park_timeout(due - Instant::now()),
            }
        }
    }

    async fn wait(&mut self) -> bool {
        let mut timer = Box::pin(tokio::time::sleep_until(Instant::now()));
        std::future::poll_fn(|context: &mut Context<'_>| loop {
            match self.next(context.waker()) {
                Next::Due => return Poll::Ready(true),
                Next::Never => return Poll::Ready(false),
                Next::Idle => return Poll::Pending,
                Next::At(due) => {
                    timer.as_mut().reset(due);
                    if timer.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        })
        .await
    }

    /// Takes everything that is queued.
    fn take(&mut self) {
        let mut gate = self.gate.lock();
        gate.due = None;
        self.parts.append(&mut gate.joining);
        let mut taken = false;
        for part in self.parts.iter_mut().rev() {
            if taken && planted(Mutant::WrittenBeforeBody) {
                gate.due = Some(Instant::now());
                break;
            }
            taken |= part.take();
        }
    }

    /// Writes the batch, and answers the waiting callers.
    fn commit(&mut self) -> Result<(), CommitError> {
        if self.parts.iter().any(|part| part.changes()) {
            match self.write() {
                Err(_) if planted(Mutant::SwallowEio) => {}
                written => written?,
            }
        }
        for part in &mut self.parts {
            part.complete();
        }
        self.look = Some(Instant::now() + LOOK);
        Ok(())
    }

    fn write(&mut self) -> Result<(), CommitError> {
        let transaction = begin_write(&self.database)?;
        for part in &mut self.parts {
            part.write(&transaction)?;
        }
        self.witness.commit(transaction)
    }
}

#[cfg(test)]
mod tests;

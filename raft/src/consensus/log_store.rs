//! The Raft log and vote in a node's file.
//!
//! Invariant: appends, votes, truncations, purges and snapshots go through one commit queue, and reach the disk in the order in
//! which they were made. An entry can be read when `append` returns; its flush is reported after the fsync that covers it. The
//! bodies of its early segments (`local_bodies`) were queued before it, so they are in the same commit or an earlier one. What
//! is not yet on disk is in memory: reads never see what a truncation removed.
//!
//! Deliberately absent: a sync for each change of the committed index. It is written with some of the appends, because it
//! usually only saves a restarted member some waiting, and each write costs pages of a second table. When bodies are about to
//! be deleted (`local_bodies`), the sync is requested explicitly.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::OptionalSend;
use redb::Database;
use tokio::sync::oneshot;

use super::beside::Beside;
use super::memory::Memory;
use super::tables::{self, begin_read, decode, read, SaveSnapshot, VALUES};
use super::types::{LogEntry, LogId, Types, Vote};
use crate::disk::commit::{CommitQueue, Writer};
use crate::disk::failure::CommitError;
use crate::disk::file::{LOG, NUMBER};
use crate::net::wire;

const VOTE: &str = "vote";
const PURGED: &str = "purged";
const COMMITTED: &str = "committed";

/// A read for replication stops after this many bytes, well within a frame.
const READ_BYTES: usize = 2 << 20;

/// Capacity of the queue of log jobs that wait for the group commit.
pub(super) const QUEUE: usize = 1_024;

/// What goes through the commit queue.
pub(super) enum Job {
    Append {
        /// Counts appends, so that entries know whether they are on disk.
        number: u64,
        entries: Vec<(u64, Vec<u8>)>,
        committed: Option<LogId>,
        flushed: IOFlushed<Types>,
    },
    Vote {
        vote: Vec<u8>,
        saved: oneshot::Sender<()>,
    },
    /// Records how far the log is known to be committed.
    Committed {
        committed: LogId,
        saved: oneshot::Sender<()>,
    },
    /// Removes the entries from this index on.
    Truncate {
        from: u64,
    },
    /// Removes the entries through this one.
    Purge {
        through: LogId,
    },
    Snapshot(SaveSnapshot),
}

/// Writes the log's jobs.
pub(super) struct LogWriter {
    memory: Arc<Mutex<Memory>>,
    /// What the newest snapshot on disk covers.
    snapshot: Option<LogId>,
    /// How far the log is committed according to the disk.
    committed: Option<LogId>,
}

/// The log of this member; clones read the same log.
#[derive(Clone)]
pub(crate) struct LogStore {
    database: Weak<Database>,
    memory: Arc<Mutex<Memory>>,
    queue: CommitQueue<Job>,
    beside: Beside,
}

impl LogWriter {
    /// Reads what the file holds.
    pub(super) fn load(database: &Weak<Database>) -> Result<Self, CommitError> {
        let transaction = begin_read(database)?;
        let values = transaction.open_table(VALUES)?;
        let log = transaction.open_table(LOG)?;
        let purged: Option<LogId> = read(&values, PURGED)?;
        let last = match log.range(..NUMBER)?.next_back().transpose()? {
            Some((_, entry)) => Some(decode::<LogEntry>(entry.value())?.log_id()),
            None => purged,
        };
        let snapshot = tables::read_snapshot_meta(&values)?.and_then(|meta| meta.last_log_id);
        let committed = read(&values, COMMITTED)?;
        let memory = Memory::opened(read(&values, VOTE)?, purged, last, committed);
        Ok(Self { memory: Arc::new(Mutex::new(memory)), snapshot, committed })
    }

    /// The store that feeds this writer through a queue.
    pub(super) fn store(
        &self,
        database: Weak<Database>,
        beside: Beside,
    ) -> impl FnOnce(CommitQueue<Job>) -> LogStore {
        let memory = self.memory.clone();
        move |queue| LogStore { database, memory, queue, beside }
    }
}

impl Writer for LogWriter {
    type Job = Job;

    fn write(
        &mut self,
        transaction: &redb::WriteTransaction,
        jobs: &mut [Job],
    ) -> Result<(), CommitError> {
        let mut log = transaction.open_table(LOG)?;
        let mut values = transaction.open_table(VALUES)?;
        for job in jobs.iter() {
            match job {
                Job::Append { entries, committed, .. } => {
                    for (index, entry) in entries {
                        log.insert(index, entry.as_slice())?;
                    }
                    if let Some(committed) = *committed {
                        save_committed(&mut values, &mut self.committed, committed)?;
                    }
                }
                Job::Vote { vote, .. } => {
                    values.insert(VOTE, vote.as_slice())?;
                }
                Job::Committed { committed, .. } => {
                    save_committed(&mut values, &mut self.committed, *committed)?;
                }
                Job::Truncate { from } => {
                    log.retain_in::<u64, _>(*from..NUMBER, |_, _| false)?;
                }
                Job::Purge { through } => {
                    log.retain_in::<u64, _>(..=through.index, |_, _| false)?;
                    values.insert(PURGED, wire::encode(through).as_slice())?;
                }
                // A snapshot built slowly must not replace a newer one that was installed meanwhile.
                Job::Snapshot(snapshot) if snapshot.meta.last_log_id < self.snapshot => {}
                Job::Snapshot(snapshot) => {
                    tables::write_snapshot(transaction, &mut values, snapshot)?;
                    self.snapshot = snapshot.meta.last_log_id;
                }
            }
        }
        Ok(())
    }

    fn complete(&mut self, jobs: &mut Vec<Job>) {
        let newest = jobs.iter().rev().find_map(|job| match job {
            Job::Append { number, .. } => Some(*number),
            _ => None,
        });
        if let Some(newest) = newest {
            lock(&self.memory).on_disk(newest);
        }
        for job in jobs.drain(..) {
            match job {
                Job::Append { flushed, .. } => flushed.io_completed(Ok(())),
                // The waiting side may have been shut down meanwhile.
                Job::Vote { saved, .. }
                | Job::Committed { saved, .. }
                | Job::Snapshot(SaveSnapshot { saved, .. }) => drop(saved.send(())),
                Job::Truncate { .. } | Job::Purge { .. } => {}
            }
        }
    }
}

impl LogStore {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// The queue through which snapshots are saved too.
    pub(super) fn queue(&self) -> CommitQueue<Job> {
        self.queue.clone()
    }

    /// Returns once the committed index that is known now is durable.
    ///
    /// # Errors
    /// If the node is ending.
    pub(crate) async fn remember_committed(&self) -> io::Result<()> {
        let (saved, done) = oneshot::channel();
        let committed = {
            let mut memory = self.memory();
            memory.committed_saved = memory.committed_saved.max(memory.committed);
            memory.committed_saved
        };
        if let Some(committed) = committed {
            self.submit(Job::Committed { committed, saved }).await?;
            done.await.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// The index through which the log is known to be committed.
    pub(crate) fn committed(&self) -> u64 {
        self.memory().committed.map_or(0, |committed| committed.index)
    }

    /// Whether exactly this entry is in the log, on disk or not.
    pub(crate) fn has(&self, log_id: Option<LogId>) -> io::Result<bool> {
        let Some(log_id) = log_id else { return Ok(true) };
        let found = self.entries(log_id.index, log_id.index + 1, usize::MAX)?;
        Ok(found.first().is_some_and(|entry| entry.log_id == log_id))
    }

    /// Accepts no more jobs, so that the file can be closed.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    async fn submit(&self, job: Job) -> io::Result<()> {
        self.queue.submit(job).await.map_err(io::Error::other)
    }

    /// Entries of `[start, end)`, at most `limit` bytes of them but at least one if there is one.
    fn entries(&self, start: u64, end: u64, limit: usize) -> io::Result<Vec<LogEntry>> {
        let (disk_end, cached, start) = {
            let memory = self.memory();
            let start = start.max(memory.purged.map_or(0, |purged| purged.index + 1));
            let (disk_end, cached) = memory.cached(start, end);
            (disk_end, cached, start)
        };
        let mut entries = Vec::new();
        let mut bytes = 0;
        if start < disk_end {
            let on_disk = self.read_disk(start, disk_end, limit).map_err(io::Error::other)?;
            bytes = on_disk.iter().map(weight).sum();
            entries = on_disk;
        }
        for entry in cached {
            if bytes > limit && !entries.is_empty() {
                break;
            }
            bytes += weight(&entry);
            entries.push(entry);
        }
        Ok(entries)
    }

    fn read_disk(&self, start: u64, end: u64, limit: usize) -> Result<Vec<LogEntry>, CommitError> {
        let transaction = begin_read(&self.database)?;
        let log = transaction.open_table(LOG)?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for row in log.range(start..end)? {
            if bytes > limit {
                break;
            }
            let (_, entry) = row?;
            bytes += entry.value().len();
            entries.push(decode(entry.value())?);
        }
        Ok(entries)
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(start, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.memory().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<LogEntry>, io::Error> {
        self.entries(start, end, READ_BYTES)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let memory = self.memory();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (saved, done) = oneshot::channel();
        self.submit(Job::Vote { vote: wire::encode(vote), saved }).await?;
        done.await.map_err(io::Error::other)?;
        self.memory().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.memory().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.memory().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let committed = self.beside.check(&entries).map_err(io::Error::other)?;
        let without_bodies =
            entries.iter().map(|entry| entry.log_id).find(|log_id| Some(log_id.index) == committed);
        let job = {
            let mut memory = self.memory();
            memory.appends += 1;
            let mut encoded = Vec::with_capacity(entries.len());
            for entry in entries {
                let bytes = wire::encode(&entry);
                encoded.push((entry.index(), bytes));
                let size = encoded.last().map_or(0, |(_, bytes)| bytes.len());
                memory.push(entry, size);
            }
            let committed = memory.committed_to_save(without_bodies);
            Job::Append { number: memory.appends, entries: encoded, committed, flushed }
        };
        self.submit(job).await
    }

    async fn truncate_after(&mut self, after: Option<LogId>) -> Result<(), io::Error> {
        self.memory().truncate(after);
        self.submit(Job::Truncate { from: after.map_or(0, |after| after.index + 1) }).await
    }

    async fn purge(&mut self, through: LogId) -> Result<(), io::Error> {
        self.memory().purge(through);
        self.submit(Job::Purge { through }).await
    }
}

/// The approximate bytes that an entry takes in a frame.
fn weight(entry: &LogEntry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.0.len() + 32,
        openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => 1_024,
    }
}

/// A panic while it was held is a bug of ours that has been reported; the data itself is whole.
fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records how far the log is committed. Requests come independently of appends, so a later one may already be
/// written.
fn save_committed(
    values: &mut redb::Table<'_, &'static str, &'static [u8]>,
    on_disk: &mut Option<LogId>,
    committed: LogId,
) -> Result<(), CommitError> {
    if Some(committed) > *on_disk {
        values.insert(COMMITTED, wire::encode(&committed).as_slice())?;
        *on_disk = Some(committed);
    }
    Ok(())
}

//! What is known about the Raft log without reading the disk: its ends, its newest entries, how far it is committed.
//!
//! Invariant: everything that is not on disk yet is here, and nothing that a truncation or a purge has removed.
//!
//! Deliberately absent: the disk (`log_store`).

use std::collections::VecDeque;

use openraft::entry::RaftEntry;

use super::types::{LogEntry, LogId, Vote};

/// Up to this many of the newest entries stay in memory, so that replicating and applying them reads no disk.
const CACHED_ENTRIES: usize = 4_096;
/// And up to this many bytes of them.
const CACHED_BYTES: usize = 16 << 20;
/// Committed log entries before the index on disk follows.
const COMMITTED_STEP: u64 = 256;
/// What the log's readers and its writer share.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    /// The last entry, or the purged one if there is none.
    pub(super) last: Option<LogId>,
    /// The newest entries, ending with the last one; they include all that are not on disk.
    cache: VecDeque<Cached>,
    cached_bytes: usize,
    pub(super) appends: u64,
    /// Appends through this number are on disk.
    durable: u64,
    pub(super) committed: Option<LogId>,
    pub(super) committed_saved: Option<LogId>,
}

struct Cached {
    entry: LogEntry,
    bytes: usize,
    append: u64,
}

impl Memory {
    /// The state of a file: its vote, its ends, and how far it is committed.
    pub(super) fn opened(
        vote: Option<Vote>,
        purged: Option<LogId>,
        last: Option<LogId>,
        committed: Option<LogId>,
    ) -> Self {
        Self { vote, purged, last, committed, committed_saved: committed, ..Self::default() }
    }

    pub(super) fn push(&mut self, entry: LogEntry, bytes: usize) {
        self.last = Some(entry.log_id());
        self.cached_bytes += bytes;
        self.cache.push_back(Cached { entry, bytes, append: self.appends });
    }

    /// The committed index that the current append records. All entries through it were queued before, so on disk it
    /// never gets ahead of them. Entries that were accepted without their bodies need it at once: if this member
    /// restarts and leads, it can't give the bodies to others, but it can say that they are not needed.
    pub(super) fn committed_to_save(&mut self, without_bodies: Option<LogId>) -> Option<LogId> {
        if without_bodies > self.committed_saved {
            self.committed_saved = without_bodies;
            return without_bodies;
        }
        let next = self.committed_saved.map_or(0, |saved| saved.index) + COMMITTED_STEP;
        let due = self.committed.filter(|committed| committed.index >= next);
        self.committed_saved = due.or(self.committed_saved);
        due
    }

    pub(super) fn on_disk(&mut self, append: u64) {
        self.durable = append;
        while self.cache.len() > CACHED_ENTRIES || self.cached_bytes > CACHED_BYTES {
            let Some(first) = self.cache.front().filter(|first| first.append <= self.durable)
            else {
                break;
            };
            self.cached_bytes -= first.bytes;
            self.cache.pop_front();
        }
    }

    pub(super) fn truncate(&mut self, after: Option<LogId>) {
        let from = after.map_or(0, |after| after.index + 1);
        while let Some(last) = self.cache.back().filter(|last| last.entry.index() >= from) {
            self.cached_bytes -= last.bytes;
            self.cache.pop_back();
        }
        self.last = self.last.min(after).max(self.purged);
    }

    pub(super) fn purge(&mut self, through: LogId) {
        while let Some(first) = self.cache.front().filter(|c| c.entry.index() <= through.index) {
            self.cached_bytes -= first.bytes;
            self.cache.pop_front();
        }
        self.purged = self.purged.max(Some(through));
        self.last = self.last.max(self.purged);
    }

    /// The entries of `[start, end)` that are in memory, and where the part on disk ends.
    pub(super) fn cached(&self, start: u64, end: u64) -> (u64, Vec<LogEntry>) {
        let after_last = self.last.map_or(0, |last| last.index + 1);
        let first = self.cache.front().map_or(after_last, |first| first.entry.index());
        let skipped = self.cache.partition_point(|cached| cached.entry.index() < start);
        let cached = self.cache.iter().skip(skipped).map(|cached| &cached.entry);
        let entries = cached.take_while(|entry| entry.index() < end).cloned().collect();
        (first.min(end), entries)
    }
}

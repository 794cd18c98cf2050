//! The newest snapshot of the sequencer in a node's file: how it is saved and read.
//!
//! Invariant: it goes through the log's commit queue, in order with everything the log writes.
//!
//! Deliberately absent: more than one snapshot. The newest covers everything that older ones did.

use std::sync::Weak;

use bytes::Bytes;
use redb::{Database, ReadableTable};
use tokio::sync::oneshot;

use super::beside::Beside;
use super::log_store::{self, Job, LogStore, LogWriter};
use super::tables::{begin_read, read_snapshot_meta, SaveSnapshot, SNAPSHOT, VALUES};
use super::types::SnapshotMeta;
use crate::disk::commit::CommitQueue;
use crate::disk::failure::CommitError;
use crate::disk::file::{File, OpenError, LOG};

/// Saves and reads the newest snapshot.
#[derive(Clone)]
pub(crate) struct SnapshotStore {
    database: Weak<Database>,
    queue: CommitQueue<Job>,
}

/// Loads Raft's part of a node's file, and joins its group commit.
pub(crate) fn open(file: &File, beside: Beside) -> Result<(LogStore, SnapshotStore), OpenError> {
    file.prepare(&VALUES, |transaction| {
        transaction.open_table(LOG)?;
        transaction.open_table(VALUES)?;
        transaction.open_table(SNAPSHOT)?;
        Ok(())
    })?;
    let database = file.commits.database().clone();
    let writer = LogWriter::load(&database).map_err(|error| file.failed(&error))?;
    let store = writer.store(database.clone(), beside);
    let log = store(file.commits.join(writer, log_store::QUEUE));
    let snapshots = SnapshotStore { database, queue: log.queue() };
    Ok((log, snapshots))
}

impl SnapshotStore {
    /// Saves a snapshot; durable when it returns, unless a newer one was saved meanwhile.
    pub(super) async fn save(&self, meta: SnapshotMeta, data: Bytes) -> std::io::Result<()> {
        let (saved, done) = oneshot::channel();
        let job = Job::Snapshot(SaveSnapshot { meta, data, saved });
        self.queue.submit(job).await.map_err(std::io::Error::other)?;
        done.await.map_err(std::io::Error::other)
    }

    /// The newest snapshot.
    pub(super) fn read(&self) -> Result<Option<(SnapshotMeta, Bytes)>, CommitError> {
        let transaction = begin_read(&self.database)?;
        let Some(meta) = read_snapshot_meta(&transaction.open_table(VALUES)?)? else {
            return Ok(None);
        };
        let mut data = Vec::new();
        for chunk in transaction.open_table(SNAPSHOT)?.iter()? {
            data.extend_from_slice(chunk?.1.value());
        }
        Ok(Some((meta, data.into())))
    }
}

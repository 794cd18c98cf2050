//! The newest snapshot of the sequencer in a node's file.
//!
//! Invariant: a snapshot and its description change in one transaction, in chunks that stay below redb's next power of
//! two.
//!
//! Deliberately absent: more than one snapshot. The newest covers everything that older ones did.

use std::sync::Weak;

use bytes::Bytes;
use redb::{Database, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use super::log_store::{self, begin_read, Job, LogStore, LogWriter, VALUES};
use super::types::SnapshotMeta;
use crate::bodies::Beside;
use crate::commit::{CommitError, CommitQueue};
use crate::file::{File, OpenError, LOG};
use crate::wire;

/// The chunks of the newest snapshot, by number.
const SNAPSHOT: TableDefinition<u32, &[u8]> = TableDefinition::new("snapshot");

const SNAPSHOT_META: &str = "snapshot";

/// A value just above a power of two would take twice the space.
const CHUNK: usize = (1 << 20) - 200;

/// A snapshot on its way to the disk.
pub(super) struct SaveSnapshot {
    pub(super) meta: SnapshotMeta,
    pub(super) data: Bytes,
    pub(super) saved: oneshot::Sender<()>,
}

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

fn put<T: serde::Serialize>(
    values: &mut redb::Table<'_, &'static str, &'static [u8]>,
    key: &str,
    value: &T,
) -> Result<(), CommitError> {
    values.insert(key, wire::encode(value).as_slice())?;
    Ok(())
}

/// Replaces the snapshot in the transaction of a group commit.
pub(super) fn write(
    transaction: &redb::WriteTransaction,
    values: &mut redb::Table<'_, &'static str, &'static [u8]>,
    snapshot: &SaveSnapshot,
) -> Result<(), CommitError> {
    let mut chunks = transaction.open_table(SNAPSHOT)?;
    chunks.retain(|_, _| false)?;
    for (number, chunk) in (0u32..).zip(snapshot.data.chunks(CHUNK)) {
        chunks.insert(number, chunk)?;
    }
    put(values, SNAPSHOT_META, &snapshot.meta)
}

/// What the snapshot on disk covers.
pub(super) fn read_meta(
    values: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<SnapshotMeta>, CommitError> {
    log_store::read(values, SNAPSHOT_META)
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
        let Some(meta) = read_meta(&transaction.open_table(VALUES)?)? else { return Ok(None) };
        let mut data = Vec::new();
        for chunk in transaction.open_table(SNAPSHOT)?.iter()? {
            data.extend_from_slice(chunk?.1.value());
        }
        Ok(Some((meta, data.into())))
    }
}

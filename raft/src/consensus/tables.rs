//! Raft's tables in a node's file, except for the log itself: single values, and the newest snapshot.
//!
//! Invariant: a snapshot and its description change in one transaction, in chunks that stay below redb's next power of
//! two.
//!
//! Deliberately absent: when they are written (`log_store`).

use std::sync::Weak;

use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use super::types::SnapshotMeta;
use crate::disk::failure::CommitError;
use crate::net::wire;

/// Single values, by name.
pub(super) const VALUES: TableDefinition<&str, &[u8]> = TableDefinition::new("raft");

/// The chunks of the newest snapshot, by number.
pub(super) const SNAPSHOT: TableDefinition<u32, &[u8]> = TableDefinition::new("snapshot");

const SNAPSHOT_META: &str = "snapshot";

/// A value just above a power of two would take twice the space.
const CHUNK: usize = (1 << 20) - 200;

/// A snapshot on its way to the disk.
pub(super) struct SaveSnapshot {
    pub(super) meta: SnapshotMeta,
    pub(super) data: Bytes,
    pub(super) saved: oneshot::Sender<()>,
}

/// Begins to read an open file.
pub(super) fn begin_read(database: &Weak<Database>) -> Result<ReadTransaction, CommitError> {
    let database = database.upgrade();
    Ok(database
        .ok_or_else(|| CommitError::Failed("the node is shutting down".into()))?
        .begin_read()?)
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, CommitError> {
    wire::decode(bytes)
        .map_err(|error| CommitError::Damaged(format!("what Raft keeps can't be read: {error}")))
}

pub(super) fn read<T: serde::de::DeserializeOwned>(
    values: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<T>, CommitError> {
    values.get(key)?.map(|row| decode(row.value())).transpose()
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
pub(super) fn write_snapshot(
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
pub(super) fn read_snapshot_meta(
    values: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<SnapshotMeta>, CommitError> {
    read(values, SNAPSHOT_META)
}

//! `raft.redb` as a file: its format, whom it belongs to, and the newest snapshot of the sequencer in it.
//!
//! Invariant: a file of a newer format, another cluster, node or disk is refused before anything is read from it. A
//! snapshot and its description change in one transaction, in chunks that stay below redb's next power of two.
//!
//! Deliberately absent: more than one snapshot. The newest covers all that older ones did.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use super::log_store::{self, Job, LogCommitter, LogStore, META};
use super::types::SnapshotMeta;
use crate::bodies::Beside;
use crate::commit::{self, begin_write, CommitError, CommitQueue, Recovery};
use crate::host::{self, Host};
use crate::wire::{self, Identity};
use crate::witness::{Witness, WitnessError};

/// The chunks of the newest snapshot, by number.
const SNAPSHOT: TableDefinition<u32, &[u8]> = TableDefinition::new("snapshot");

const FORMAT: &str = "format";
const IDENTITY: &str = "identity";
const SNAPSHOT_META: &str = "snapshot";

/// The format this release writes. Persisted: a change of anything on disk gets the next number. 1 had the number of the last
/// commit in a table of its own, 2 no early segments.
const FORMAT_VERSION: u32 = 3;

/// The oldest format that is one of this release as it stands.
const FORMAT_OLDEST: u32 = 2;

/// A value just over a power of two would take twice the room.
const CHUNK: usize = (1 << 20) - 200;

/// Why `raft.redb` could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the database: {0}")]
    Database(redb::DatabaseError),
    #[error(
        "the database is damaged: {0}; give the node an empty data directory and a new number"
    )]
    Damaged(String),
    #[error("cannot read the database: {0}")]
    Read(#[from] CommitError),
    #[error("cannot start the commit thread: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the database has format {found}, this release knows formats up to {FORMAT_VERSION}; run a newer release")]
    Newer { found: u32 },
    #[error(
        "the database has format {found}, from before the first release, and this one needs {FORMAT_VERSION}; it can't be carried \
         over: start the whole cluster with fresh data directories"
    )]
    Older { found: u32 },
    #[error("the database belongs to {found:?}, but this is {own:?}; give each node its own data directory")]
    Foreign { found: Box<Identity>, own: Box<Identity> },
}

impl From<WitnessError> for OpenError {
    fn from(error: WitnessError) -> Self {
        match error {
            WitnessError::Database(error) => Self::Read(error),
            error if error.is_damage() => Self::Damaged(error.to_string()),
            error => Self::Read(CommitError(error.to_string())),
        }
    }
}

impl From<redb::DatabaseError> for OpenError {
    fn from(error: redb::DatabaseError) -> Self {
        match host::damage(&error) {
            Some(reason) => Self::Damaged(reason),
            None => Self::Database(error),
        }
    }
}

/// A snapshot on its way to the disk.
pub(super) struct SaveSnapshot {
    pub(super) meta: SnapshotMeta,
    pub(super) data: Bytes,
    pub(super) saved: oneshot::Sender<()>,
}

/// Saves and reads the newest snapshot.
#[derive(Clone)]
pub(crate) struct SnapshotStore {
    database: Arc<Database>,
    queue: CommitQueue<Job>,
}

/// Opens `raft.redb` for this node, or makes it.
pub(crate) fn open(
    host: &Host,
    path: &Path,
    own: &Identity,
    beside: Beside,
) -> Result<(LogStore, SnapshotStore), OpenError> {
    let database = Arc::new(host.disk.open_database(path)?);
    claim(&database, own)?;
    let witness = Witness::open(host, path, &database, log_store::NUMBER_ROW)?;
    let committer = LogCommitter::load(database.clone(), witness, &beside)?;
    let store = committer.store(beside);
    let queue = commit::spawn(host, "raft.redb", log_store::LIMITS, committer)?;
    let log = store(queue);
    let snapshots = SnapshotStore { database, queue: log.queue() };
    Ok((log, snapshots))
}

/// Checks whose file this is and which format it has; a new file becomes ours.
fn claim(database: &Database, own: &Identity) -> Result<(), OpenError> {
    let transaction = begin_write(database, Recovery::Walk)?;
    log_store::create_tables(&transaction)?;
    let changed = {
        let mut meta = transaction.open_table(META).map_err(CommitError::from)?;
        transaction.open_table(SNAPSHOT).map_err(CommitError::from)?;
        let found: Option<u32> = log_store::read(&meta, FORMAT)?;
        if let Some(found) = found.filter(|found| *found > FORMAT_VERSION) {
            return Err(OpenError::Newer { found });
        }
        if let Some(found) = found.filter(|found| *found < FORMAT_OLDEST) {
            return Err(OpenError::Older { found });
        }
        let owner: Option<Identity> = log_store::read(&meta, IDENTITY)?;
        if let Some(found) = owner.filter(|owner| owner != own) {
            let (found, own) = (Box::new(found), Box::new(own.clone()));
            return Err(OpenError::Foreign { found, own });
        }
        if found.is_none() {
            put(&mut meta, IDENTITY, own)?;
        }
        let changed = found != Some(FORMAT_VERSION);
        if changed {
            put(&mut meta, FORMAT, &FORMAT_VERSION)?;
        }
        changed
    };
    if changed {
        transaction.commit().map_err(CommitError::from)?;
    } else {
        transaction.abort().map_err(CommitError::from)?;
    }
    Ok(())
}

fn put<T: serde::Serialize>(
    meta: &mut redb::Table<'_, &'static str, &'static [u8]>,
    key: &str,
    value: &T,
) -> Result<(), CommitError> {
    meta.insert(key, wire::encode(value).as_slice())?;
    Ok(())
}

/// Replaces the snapshot in the transaction of a group commit.
pub(super) fn write(
    transaction: &redb::WriteTransaction,
    meta: &mut redb::Table<'_, &'static str, &'static [u8]>,
    snapshot: &SaveSnapshot,
) -> Result<(), CommitError> {
    let mut chunks = transaction.open_table(SNAPSHOT)?;
    chunks.retain(|_, _| false)?;
    for (number, chunk) in (0u32..).zip(snapshot.data.chunks(CHUNK)) {
        chunks.insert(number, chunk)?;
    }
    put(meta, SNAPSHOT_META, &snapshot.meta)
}

/// What the snapshot on disk covers.
pub(super) fn read_meta(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<SnapshotMeta>, CommitError> {
    log_store::read(meta, SNAPSHOT_META)
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
        let transaction = self.database.begin_read()?;
        let Some(meta) = read_meta(&transaction.open_table(META)?)? else { return Ok(None) };
        let mut data = Vec::new();
        for chunk in transaction.open_table(SNAPSHOT)?.iter()? {
            data.extend_from_slice(chunk?.1.value());
        }
        Ok(Some((meta, data.into())))
    }
}

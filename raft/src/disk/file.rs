//! A node's file, `node.redb`: its format, its owner, and the group commit that all its writers share.
//!
//! A storage's and a sync member's data are in one file. So one commit, with one fsync, makes a body and the log
//! entry that names it durable, and no log entry is durable before the bodies it names.
//!
//! Invariant: a file of another node, cluster or disk, or of a format that this release does not open, is never
//! written to.
//!
//! Deliberately absent: migrations that change bytes (`format`), and the roles' tables.

use std::path::{Path, PathBuf};

use redb::{
    Database, ReadableDatabase, TableDefinition, TableError, TableHandle, WriteTransaction,
};

use crate::disk::commit::{begin_write, Commits};
use crate::disk::failure::CommitError;
use crate::disk::witness::{NumberRow, Witness, WitnessError};
use crate::format::{LOG_FORMAT, OLDEST_LOG_FORMAT};
use crate::host::{self, Host};
use crate::net::wire::{self, Identity};

/// The file's name within the data directory.
pub const FILE: &str = "node.redb";

/// The witnesses of the files up to format 3, when storage and sync had a file each.
const OLDER: [&str; 2] = ["segments.witness", "raft.witness"];

/// Raft's log, by index. It also holds the commit number, because most commits append to it, and each further table
/// costs a commit pages.
pub(crate) const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");

/// The key of the last commit's number: an index that no entry reaches.
pub(crate) const NUMBER: u64 = u64::MAX;

const NUMBER_ROW: NumberRow = NumberRow { table: LOG, key: NUMBER };

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
const META_IDENTITY: &str = "identity";

/// Why a node's file can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{path} was written by a newer release (log format {found}, this release has {LOG_FORMAT}); run the newer \
         release, or give this node an empty data directory and a new number"
    )]
    Newer { path: PathBuf, found: u32 },
    #[error(
        "{path} was written by an older release (log format {}, this release has {LOG_FORMAT}), which makes something \
         else of the same log; run the release that wrote it, or start the whole cluster with fresh data directories",
        found.map_or_else(|| "3 or less".to_owned(), |found| found.to_string())
    )]
    Older { path: PathBuf, found: Option<u32> },
    #[error(
        "{path} belongs to node {} of cluster {:?} (disk {}), and this is node {} of cluster {:?} (disk {}); \
         start it with its own data directory",
        found.node, found.cluster, found.disk, own.node, own.cluster, own.disk
    )]
    Foreign { path: PathBuf, found: Box<Identity>, own: Box<Identity> },
    #[error("{path} is damaged: {reason}; give the node an empty data directory and a new number")]
    Damaged { path: PathBuf, reason: String },
    #[error("{path} can't be opened: {reason}; check that no other process uses it, and its permissions")]
    Disk { path: PathBuf, reason: String },
}

impl OpenError {
    /// Whether the disk is the cause, rather than the operator.
    #[must_use]
    pub fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Disk { .. })
    }
}

/// A node's file while writers join it.
pub struct File {
    pub path: PathBuf,
    pub commits: Commits,
}

impl File {
    /// Opens the file of a data directory, or creates it, and starts its group commit. In a simulation, call it
    /// within the node's runtime.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(host: &Host, folder: &Path, own: &Identity) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        let (database, witness) = checked(host, folder, &path, own)?;
        let commits = Commits::start(host, database, witness)
            .map_err(|error| OpenError::Disk { path: path.clone(), reason: error.to_string() })?;
        Ok(Self { path, commits })
    }

    /// Creates all tables of a role in one transaction, if the given one is missing.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn prepare(
        &self,
        one: &impl TableHandle,
        make: impl FnOnce(&WriteTransaction) -> Result<(), CommitError>,
    ) -> Result<(), OpenError> {
        let prepared = || {
            let database = self.commits.database().upgrade();
            let database =
                database.ok_or_else(|| CommitError::Failed("the node is ending".into()))?;
            let before = database.begin_read()?;
            let mut tables = before.list_tables()?;
            if !tables.any(|table| table.name() == one.name()) {
                let transaction = begin_write(&database)?;
                make(&transaction)?;
                transaction.commit()?;
            }
            Ok(())
        };
        prepared().map_err(|error: CommitError| self.failed(&error))
    }

    /// The error for damage in a role's part of the file.
    #[must_use]
    pub fn damaged(&self, reason: &impl ToString) -> OpenError {
        OpenError::Damaged { path: self.path.clone(), reason: reason.to_string() }
    }

    /// The error for a role's failed read or write of its part.
    #[must_use]
    pub fn failed(&self, error: &CommitError) -> OpenError {
        failed(&self.path, error)
    }

    /// Like [`File::damaged`], but for a part that could not be read.
    #[must_use]
    pub fn disk(&self, reason: &impl ToString) -> OpenError {
        OpenError::Disk { path: self.path.clone(), reason: reason.to_string() }
    }
}

fn failed(path: &Path, error: &CommitError) -> OpenError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error {
        CommitError::Failed(_) => OpenError::Disk { path, reason },
        CommitError::Damaged(_) => OpenError::Damaged { path, reason },
    }
}

/// Shrinks the file of a stopped node to its contents.
///
/// # Errors
/// If the file is not this node's, is open elsewhere, or its disk fails.
pub fn compact(host: &Host, folder: &Path, own: &Identity) -> Result<(), OpenError> {
    let path = folder.join(FILE);
    let (mut database, _) = checked(host, folder, &path, own)?;
    let disk = |error: redb::CompactionError| OpenError::Disk {
        path: path.clone(),
        reason: error.to_string(),
    };
    // Each round moves what it can; the last one finds nothing.
    while database.compact().map_err(disk)? {}
    Ok(())
}

/// Opens the database and checks that it is this node's, and has not gone back in time.
fn checked(
    host: &Host,
    folder: &Path,
    path: &Path,
    own: &Identity,
) -> Result<(Database, Witness), OpenError> {
    let disk = |reason: String| OpenError::Disk { path: path.to_owned(), reason };
    for name in OLDER {
        let older = folder.join(name);
        if host.disk.read_file(&older).map_err(|error| disk(error.to_string()))?.is_some() {
            return Err(OpenError::Older { path: older, found: None });
        }
    }
    let database = host.disk.open_database(path).map_err(|error| match host::damage(&error) {
        Some(reason) => OpenError::Damaged { path: path.to_owned(), reason },
        None => disk(error.to_string()),
    })?;
    claim(&database, own, path)?;
    let witness = Witness::open(host, path, &database, NUMBER_ROW);
    let witness = witness.map_err(|error: WitnessError| match error.is_damage() {
        true => OpenError::Damaged { path: path.to_owned(), reason: error.to_string() },
        false => disk(error.to_string()),
    })?;
    Ok((database, witness))
}

/// Marks a new file as this node's, or checks that an existing one is.
fn claim(database: &Database, own: &Identity, path: &Path) -> Result<(), OpenError> {
    let path = || path.to_owned();
    let damaged = |reason: &str| OpenError::Damaged { path: path(), reason: reason.into() };
    let failed = |error: CommitError| failed(&path(), &error);
    match read_meta(database).map_err(|error| failed(error.into()))? {
        (None, None) => create(database, own).map_err(failed),
        (None, Some(_)) => Err(damaged("its format is missing")),
        (Some(format), identity) => {
            let format = format.try_into().map_err(|_| damaged("its format can't be read"))?;
            let format = u32::from_le_bytes(format);
            match format {
                OLDEST_LOG_FORMAT..=LOG_FORMAT => {}
                found if found > LOG_FORMAT => {
                    return Err(OpenError::Newer { path: path(), found });
                }
                found => return Err(OpenError::Older { path: path(), found: Some(found) }),
            }
            let identity = identity.ok_or_else(|| damaged("it does not say whose it is"))?;
            let found: Identity =
                wire::decode(&identity).map_err(|_| damaged("it does not say whose it is"))?;
            if found != *own {
                let (found, own) = (Box::new(found), Box::new(own.clone()));
                return Err(OpenError::Foreign { path: path(), found, own });
            }
            match format {
                LOG_FORMAT => Ok(()),
                _ => raise(database).map_err(failed),
            }
        }
    }
}

/// The format and the identity.
type Meta = (Option<Vec<u8>>, Option<Vec<u8>>);

fn read_meta(database: &Database) -> Result<Meta, redb::Error> {
    let meta = match database.begin_read()?.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => return Ok((None, None)),
        Err(error) => return Err(error.into()),
    };
    let read = |key| Ok::<_, redb::Error>(meta.get(key)?.map(|value| value.value().to_vec()));
    Ok((read(META_FORMAT)?, read(META_IDENTITY)?))
}

/// Records the file's owner.
fn create(database: &Database, own: &Identity) -> Result<(), CommitError> {
    let transaction = begin_write(database)?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert(META_FORMAT, LOG_FORMAT.to_le_bytes().as_slice())?;
        meta.insert(META_IDENTITY, wire::encode(own).as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

/// Keeps older releases from opening the file: they can't read what this one will write to it.
fn raise(database: &Database) -> Result<(), CommitError> {
    let transaction = begin_write(database)?;
    transaction.open_table(META)?.insert(META_FORMAT, LOG_FORMAT.to_le_bytes().as_slice())?;
    transaction.commit()?;
    tracing::info!(format = LOG_FORMAT, "the data directory has this release's log format now");
    Ok(())
}

#[cfg(test)]
mod tests;

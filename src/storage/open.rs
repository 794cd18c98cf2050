//! Opening `segments.redb`: a new file is made whole, an old one is checked before anything else is read from it.
//!
//! Invariant: a file of another format, or of another node, cluster or disk, is never written to.
//!
//! Deliberately absent: migrations. The format before this one was never released.

use std::path::Path;

use redb::{Database, ReadableDatabase};
use vulpes_raft::commit::CommitError;
use vulpes_raft::host::{self, Host};
use vulpes_raft::ids::Slot;
use vulpes_raft::order::Resolution;
use vulpes_raft::wire::{self, Identity};
use vulpes_raft::witness::Witness;

use super::error::{OpenError, ReadError};
use super::reader::Reader;
use super::staging::{Next, Staging};
use super::{committer, tables};

/// Opens the file, or makes it.
pub(super) fn database(host: &Host, path: &Path) -> Result<Database, OpenError> {
    host.disk.open_database(path).map_err(|error| {
        let path = path.to_owned();
        match host::damage(&error) {
            Some(reason) => OpenError::Damaged { path, reason },
            None => OpenError::Disk { path, reason: error.to_string() },
        }
    })
}

/// Checks that the file has not gone back in time.
pub(super) fn witness(host: &Host, path: &Path, database: &Database) -> Result<Witness, OpenError> {
    Witness::open(host, path, database, tables::NUMBER_ROW).map_err(|error| {
        let (path, reason) = (path.to_owned(), error.to_string());
        match error.is_damage() {
            true => OpenError::Damaged { path, reason },
            false => OpenError::Disk { path, reason },
        }
    })
}

/// Makes the tables of a new file, or checks that the file is one of ours and this node's.
pub(super) fn prepare(database: &Database, own: &Identity, path: &Path) -> Result<(), OpenError> {
    let disk =
        |error: redb::Error| OpenError::Disk { path: path.to_owned(), reason: error.to_string() };
    let damaged =
        |reason: &str| OpenError::Damaged { path: path.to_owned(), reason: reason.into() };
    match read_meta(database).map_err(disk)? {
        Meta { format: None, identity: None } => create(database, own)
            .map_err(|error| OpenError::Disk { path: path.to_owned(), reason: error.to_string() }),
        Meta { format: Some(format), identity } => {
            let format = format.try_into().map_err(|_| damaged("its format can't be read"))?;
            let found = u32::from_le_bytes(format);
            if found > tables::FORMAT {
                let known = tables::FORMAT;
                return Err(OpenError::Newer { path: path.to_owned(), found, known });
            }
            if found < tables::FORMAT {
                let known = tables::FORMAT;
                return Err(OpenError::Older { path: path.to_owned(), found, known });
            }
            let identity = identity.ok_or_else(|| damaged("it does not say whose it is"))?;
            let found: Identity =
                wire::decode(&identity).map_err(|_| damaged("it does not say whose it is"))?;
            if found != *own {
                let (found, own) = (Box::new(found), Box::new(own.clone()));
                return Err(OpenError::Foreign { path: path.to_owned(), found, own });
            }
            Ok(())
        }
        Meta { format: None, identity: Some(_) } => Err(damaged("its format is missing")),
    }
}

struct Meta {
    format: Option<Vec<u8>>,
    identity: Option<Vec<u8>>,
}

fn read_meta(database: &Database) -> Result<Meta, redb::Error> {
    let meta = match database.begin_read()?.open_table(tables::META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => {
            return Ok(Meta { format: None, identity: None })
        }
        Err(error) => return Err(error.into()),
    };
    let read = |key| Ok::<_, redb::Error>(meta.get(key)?.map(|value| value.value().to_vec()));
    Ok(Meta { format: read(tables::META_FORMAT)?, identity: read(tables::META_IDENTITY)? })
}

/// Makes all tables in one transaction: a file has all of them or none.
fn create(database: &Database, own: &Identity) -> Result<(), CommitError> {
    let transaction = committer::begin_write(database)?;
    {
        committer::Tables::open(&transaction)?;
        let mut meta = transaction.open_table(tables::META)?;
        meta.insert(tables::META_FORMAT, tables::FORMAT.to_le_bytes().as_slice())?;
        meta.insert(tables::META_IDENTITY, wire::encode(own).as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

/// Shrinks the file of a storage that is not open to what it holds.
///
/// # Errors
/// Where the file is not this node's, is open elsewhere, or its disk fails.
pub fn compact(host: &Host, own: &Identity, path: &Path) -> Result<(), OpenError> {
    let disk = |reason: String| OpenError::Disk { path: path.to_owned(), reason };
    let mut database = self::database(host, path)?;
    prepare(&database, own, path)?;
    witness(host, path, &database)?;
    // Each round moves what it can; the last one finds nothing.
    while database.compact().map_err(|error| disk(error.to_string()))? {}
    Ok(())
}

/// Takes up what the tables hold, and the last row.
pub(super) fn load(reader: &Reader) -> Result<(Staging, Option<Resolution>), ReadError> {
    let tail = reader.tail()?;
    if !reader.is_dense()? {
        return Err(ReadError::DamagedRow(tail.map_or(Slot(0), |tail| tail.slot)));
    }
    let fences = reader.fences()?;
    let staging = Staging::new(reader.unresolved(&fences)?, fences, Next::after(tail.as_ref()));
    Ok((staging, tail))
}

//! Opening a storage's part of a node's file: its tables are made in a new one, and what they hold is taken up.
//!
//! Invariant: a file has all tables or none.
//!
//! Deliberately absent: whose file it is, and its format (`vulpes_raft::file`).

use std::sync::Weak;

use redb::{Database, ReadableDatabase, TableError};
use vulpes_raft::commit::{self, CommitError};
use vulpes_raft::file::{File, OpenError};
use vulpes_raft::ids::Slot;
use vulpes_raft::order::Resolution;

use super::error::ReadError;
use super::reader::Reader;
use super::staging::{Next, Staging};
use super::{committer, tables};

/// What the tables of a file hold, and the last row. They are made where they are not there.
pub(super) fn open(
    file: &File,
    reader: &Reader,
) -> Result<(Staging, Option<Resolution>), OpenError> {
    prepare(file.commits.database()).map_err(|error| file.disk(&error))?;
    load(reader).map_err(|error| match error {
        ReadError::Disk(reason) => file.disk(&reason),
        damaged => file.damaged(&damaged),
    })
}

/// Makes all tables in one transaction.
fn prepare(database: &Weak<Database>) -> Result<(), CommitError> {
    let database = database.upgrade().ok_or_else(|| CommitError("it is closed".into()))?;
    match database.begin_read()?.open_table(tables::BODIES) {
        Ok(_) => return Ok(()),
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let transaction = commit::begin_write(&database)?;
    committer::Tables::open(&transaction)?;
    transaction.commit()?;
    Ok(())
}

fn load(reader: &Reader) -> Result<(Staging, Option<Resolution>), ReadError> {
    let tail = reader.tail()?;
    if !reader.is_dense()? {
        return Err(ReadError::DamagedRow(tail.map_or(Slot(0), |tail| tail.slot)));
    }
    let fences = reader.fences()?;
    let staging = Staging::new(reader.unresolved(&fences)?, fences, Next::after(tail.as_ref()));
    Ok((staging, tail))
}

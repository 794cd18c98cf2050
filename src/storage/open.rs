//! Opens a storage's part of a node's file: creates its tables in a new file, and loads their contents.
//!
//! Invariant: a file has all tables of a storage or none.
//!
//! Deliberately absent: the file's owner and its format (`vulpes_raft::disk::file`).

use vulpes_raft::disk::file::{File, OpenError};
use vulpes_raft::ids::{Shards, Slot};
use vulpes_raft::order::Resolution;

use super::error::ReadError;
use super::reader::Reader;
use super::staging::{Next, Staging};
use super::tables;
use super::writer::Tables;

/// The contents of a file's tables, and the last row. Missing tables are created.
pub(super) fn open(
    file: &File,
    reader: &Reader,
    shards: Shards,
) -> Result<(Staging, Option<Resolution>), OpenError> {
    file.prepare(&tables::BODIES, |transaction| Tables::open(transaction).map(drop))?;
    load(reader, shards).map_err(|error| match error {
        ReadError::Disk(reason) => file.disk(&reason),
        damaged => file.damaged(&damaged),
    })
}

fn load(reader: &Reader, shards: Shards) -> Result<(Staging, Option<Resolution>), ReadError> {
    let tail = reader.tail()?;
    if !reader.is_dense()? {
        return Err(ReadError::DamagedRow(tail.map_or(Slot(0), |tail| tail.slot)));
    }
    let fences = reader.fences()?;
    let (unresolved, next) = (reader.unresolved(&fences)?, Next::after(tail.as_ref()));
    let staging = Staging::new(shards, unresolved, fences, next);
    Ok((staging, tail))
}

//! Opening a storage's part of a node's file: its tables are made in a new one, and what they hold is taken up.
//!
//! Invariant: a file has all tables of a storage or none.
//!
//! Deliberately absent: whose file it is, and its format (`vulpes_raft::file`).

use vulpes_raft::file::{File, OpenError};
use vulpes_raft::ids::Slot;
use vulpes_raft::order::Resolution;

use super::error::ReadError;
use super::reader::Reader;
use super::staging::{Next, Staging};
use super::tables;
use super::writer::Tables;

/// What the tables of a file hold, and the last row. They are made where they are not there.
pub(super) fn open(
    file: &File,
    reader: &Reader,
) -> Result<(Staging, Option<Resolution>), OpenError> {
    file.prepare(&tables::BODIES, |transaction| Tables::open(transaction).map(drop))?;
    load(reader).map_err(|error| match error {
        ReadError::Disk(reason) => file.disk(&reason),
        damaged => file.damaged(&damaged),
    })
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

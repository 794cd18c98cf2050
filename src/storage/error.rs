//! A storage's errors: one type for each kind of request, one variant for each reaction of the caller.
//!
//! Invariant: a message tells the operator what to do next, or the caller what was wrong.
//!
//! Deliberately absent: refusals of bodies, which entries have to know ([`crate::append::AppendError`]).

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{AdvanceSegment, NodeId, Position, Slot};

/// Why rows of the order are not indexed. None of them is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Another row is expected next. Queue the rows from `expected` on.
    #[error("the next slot to be indexed is {expected}, not {found}")]
    NotNext { expected: Slot, found: Slot },
    /// The order contradicts itself: positions are not dense.
    #[error("slot {slot} begins at position {found}, and the one before it ends at {expected}")]
    WrongBase { slot: Slot, expected: Position, found: Position },
    /// The order contradicts itself: the segment is in the order already, or its incarnation was fenced before.
    #[error("slot {slot} resolves segment {segment}, which the order before it rules out")]
    Fenced { slot: Slot, segment: AdvanceSegment },
    /// The body is not here, or not the one that was voted for. Fetch it and pass it with the row.
    #[error("slot {slot} names segment {segment}, whose body is not here")]
    BodyMissing { slot: Slot, segment: AdvanceSegment },
    /// The body passed with the row is not the one that was voted for.
    #[error("the body given for segment {0} is another one")]
    BodyWrong(AdvanceSegment),
    #[error("the node is shutting down")]
    Closed,
}

/// Why an end of the stored log is not moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Try again later.
    #[error(transparent)]
    Read(ReadError),
    /// Fetch the rows again.
    #[error(transparent)]
    Rows(IndexError),
    #[error("the node is shutting down")]
    Closed,
}

/// Why a body is not replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// The body given is not the one that was voted for.
    #[error("the body given for segment {0} is another one")]
    BodyWrong(AdvanceSegment),
    /// There is nothing to replace.
    #[error("segment {0} is not held here")]
    NotHeld(AdvanceSegment),
    #[error("the node is shutting down")]
    Closed,
}

/// Why a storage can't answer a read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ReadError {
    /// The body's bytes are not those that were written. Fetch it from another storage, and replace it here.
    #[error("the body of segment {0} is damaged on disk")]
    Damaged(AdvanceSegment),
    /// A row of the order can't be read. If this persists, give the node a new disk and number.
    #[error("the row of slot {0} is damaged on disk")]
    DamagedRow(Slot),
    #[error("the segment store can't be read: {0}")]
    Disk(String),
    /// A row of the realms' state can't be read. Start a newer release, or give the node a new disk and number.
    #[error("a row of the realms' state can't be read; was it written by a newer release?")]
    DamagedState,
    /// Ask again later, or another storage.
    #[error("this storage is already sending its state to the maximum number of nodes")]
    Busy,
    /// Start over: the snapshot was not read in time, or a newer one was begun on this connection.
    #[error("this snapshot of the state no longer exists")]
    SnapshotGone,
    /// An entry's fence can't be read. Give the node a new disk and number.
    #[error("the fence of entry {0} is damaged on disk")]
    DamagedFence(NodeId),
    /// The file is not what was written. Give the node a new disk and number.
    #[error("the segment store is damaged: {0}")]
    DamagedFile(String),
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        let error = error.into();
        match vulpes_raft::host::is_damage(&error) {
            true => Self::DamagedFile(error.to_string()),
            false => Self::Disk(error.to_string()),
        }
    }
}

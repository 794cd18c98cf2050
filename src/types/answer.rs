//! An entry's answers to publishes.
//!
//! Invariant: "stored" is final. If the outcome is not known yet, the answer says so.
//!
//! Deliberately absent: how a protocol expresses an answer (`gate`), and decisions of the fold
//! ([`crate::types::act::Refusal`]).

use vulpes_raft::ids::{Position, Slot, Stamp};

/// The outcome of a run of consecutive publishes of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Sequence number of the first.
    pub first: u64,
    /// How many.
    pub count: u32,
    pub outcome: Result<Stored, PublishError>,
}

/// A run of events that are durable and have their permanent, consecutive positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Position of the first; the others follow densely.
    pub position: Position,
    pub slot: Slot,
    pub stamp: Stamp,
    /// Offset of the first within the slot's segment.
    pub offset: u32,
}

/// Why a publish was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It is not known yet whether it will be in the log.
    #[error("no quorum answered in time; the message may or may not be stored")]
    Unknown,
    /// It is not in the log and never will be.
    #[error("this node lost its lease; the message was not stored")]
    NotStored,
}

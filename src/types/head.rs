//! The head of the log: the first retained place.
//!
//! Persisted and sent: fields never change.
//!
//! Deliberately absent: whether it may move, which the realms' state decides (`realm`).

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{Position, Slot};

/// A place between two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Head {
    /// The first retained slot.
    pub slot: Slot,
    /// The position of the first event at or after it.
    pub position: Position,
}

impl Default for Head {
    /// The head while nothing has been released.
    fn default() -> Self {
        Self { slot: Slot(1), position: Position(1) }
    }
}

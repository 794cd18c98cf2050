//! A client's session without its socket: what it decides, as values that inputs go into and outputs come out of.
//!
//! - [`core`]: all of it together, with what outlives a connection, and what is left of one that is gone.
//! - [`ledger`]: its events on their way into the log, and what becomes of them.
//! - [`reader`]: its view of the log.
//! - [`delivery`]: what it has at hand for its client.
//! - [`liveness`], `room`: whether its client is there, and whether more may be made for it.
//! - [`events`]: what it says of itself in the log.
//!
//! Invariant: pure. A test says everything that happens to a session, and in which order.
//!
//! Deliberately absent: anything of a protocol (`gate`); sockets, channels, timers and what all sessions of a node share
//! (`server/session`).

pub(crate) mod core;
pub(crate) mod delivery;
pub(crate) mod events;
pub(crate) mod ledger;
pub(crate) mod liveness;
pub(crate) mod reader;
mod room;
#[cfg(test)]
pub(crate) mod testing;

use vulpes_raft::ids::Position;

use crate::realm::{Decision, EndCause, FilterOutcome};

/// What the realms' state says to one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Joined,
    Ended(EndCause),
    /// What it asked for at this place is decided.
    Decided {
        asked: Position,
        decision: Decision,
    },
    /// Its publish at this place is the next one in its line.
    Turn {
        waiting: Position,
    },
    /// The oldest [`crate::gate::Request::Persist`] is done, or not for lack of room.
    FilterOutcome(FilterOutcome),
    /// The session it took over from has said its last word.
    Released,
}

//! A client's session without its socket: its decisions, as a value that takes inputs and gives outputs.
//!
//! - [`core`]: puts the parts together; also the part that outlives a connection, and the remaining work for a client that is
//!   gone.
//! - [`ledger`]: the session's events on their way into the log, and their outcomes.
//! - [`reader`]: its view of the log.
//! - [`delivery`]: the segment or retained values that are being delivered to the client.
//! - [`liveness`], `room`: whether the client is still there, and whether more output may be made for it.
//! - [`events`]: the events that the session itself adds to the log.
//!
//! Invariant: pure. A test controls all inputs of a session and their order.
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
mod sight;
#[cfg(test)]
pub(crate) mod testing;

use vulpes_raft::ids::Position;

use crate::realm::{Decision, EndCause, FilterOutcome};

/// A notice from the realms' state to one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Joined,
    Ended(EndCause),
    /// The request that the session put into the log at position `asked` is decided.
    Decided {
        asked: Position,
        decision: Decision,
    },
    /// The session's publish at position `waiting` is the next in its queue.
    Turn {
        waiting: Position,
    },
    /// The oldest [`crate::gate::Request::Persist`] is done, or there was no room for it.
    FilterOutcome(FilterOutcome),
    /// The session from which this one took over has published its act `Gone`.
    Released,
    /// Clients from the connection's address are banned.
    AddressBanned,
}

//! Subscriptions: how one is named, where its reading of the log begins, and why one fails.
//!
//! Deliberately absent: matching events with them (`dispatch`), and how a protocol expresses them (`gate`).

use vulpes_raft::ids::{EventId, Position};

use crate::types::limits;

/// A subscription of one session: chosen by its gate, unique within the session, 1 to 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

/// Where to begin reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Position(Position),
    Event(EventId),
}

/// Why a subscription failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The replay would begin before the retained part of the log.
    #[error("the log is kept only from position {oldest} on")]
    Gone { oldest: Position },
    /// The replay would begin after the tail.
    #[error("that place is beyond the end of the log; its last position is {last}")]
    Ahead { last: Position },
    #[error(
        "a session may have {} subscriptions at most, with {} bytes of topics all together; a pattern of more \
         than {} levels counts several times",
        limits::SESSION_SUBSCRIPTIONS,
        limits::SESSION_PATTERNS,
        crate::types::topic::INDEXED_PARTS
    )]
    TooMany,
    #[error("this node has no room for more subscriptions; connect to another one")]
    NodeFull,
    #[error("the user, or the address, has as many subscriptions at this node as it may have")]
    QuotaReached,
    #[error("there is no room for more persistent filters")]
    NoRoom,
    #[error("the user may not subscribe to this")]
    NotAllowed,
    /// The log can't be read right now: no storage answers.
    #[error("the log can't be read right now; try again")]
    Unavailable,
}

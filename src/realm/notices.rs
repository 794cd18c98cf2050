//! The notifications that a node gets when a slot is applied: work for the node, and news for its sessions.
//!
//! Invariant: all nodes get the same notices; each picks out those that concern its own sessions.
//!
//! Deliberately absent: what a node does with a notice (`server/session_manager`).

use vulpes_raft::ids::Position;

use super::{At, EndCause};
use crate::types::act::{DueId, Refusal};
use crate::types::event::SessionId;
use crate::types::procedure::RegistrationId;
use crate::types::topic::Realm;

/// The outcome of a conditional publish or a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is published, at this position. For a registration: its position is the registration's number.
    Accepted(At),
    Refused(Refusal),
}

/// Work for a node, or news for one of its sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A session has begun. Everything that its client's earlier sessions left is in the log before this slot.
    Joined { session: SessionId },
    /// A session has begun, but its client must not learn of it before everything its earlier sessions left is published. The
    /// session's own entry publishes that at once.
    HeldBack { session: SessionId },
    /// A session is over.
    Ended { session: SessionId, cause: EndCause },
    /// The outcome of the conditional publish, or other request decided in the order, at `asked`.
    Decided { session: SessionId, asked: Position, decision: Decision },
    /// It is a waiting publish's turn: its entry has to publish it again ([`Act::Granted`]).
    Turn { session: SessionId, waiting: Position },
    /// A session left a publish that is now due ([`Act::Due`]).
    Due(DueId),
    /// The outcome of a session's requests to store or drop filters, in order.
    FilterOutcome { session: SessionId, noted: FilterOutcome },
    /// The session that this one took over from has sent its last word.
    Released { session: SessionId },
    /// A session that was taken over has sent its last word, and has not withdrawn this publish that it left.
    Confirmed(DueId),
    /// A session is not a callee of this registration any more: its client may not register it.
    Withdrawn { session: SessionId, registration: RegistrationId },
    /// A client is away and has left a persistent session that expires ([`Act::Expire`]).
    Away { realm: Realm, client: String },
    /// Addresses were banned: each node ends the sessions of its clients there.
    AddressesBanned,
}

/// The outcome of a session's request to store or drop filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterOutcome {
    /// It takes effect: the first position that it covers.
    From(Position),
    /// There is no room for more.
    NoRoom,
}

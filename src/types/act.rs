//! Acts: an event's request to the realm's state machine (`realm`), in addition to being delivered.
//!
//! Most events have none. An act is encoded once, when the event is made, and travels in its segment as bytes.
//!
//! Invariant: persisted and sent; the order of variants and fields never changes, new variants go to the end.
//!
//! Deliberately absent: an act's outcome, which its place in the order decides.

mod persistent;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{Position, Slot};
use vulpes_raft::net::wire;

use crate::types::access::ChangeUsers;
use crate::types::ban::ChangeBans;
use crate::types::event::{Payload, Qos, SessionId};
use crate::types::limits;
use crate::types::procedure::{Invoke, Register, RegistrationId};
use crate::types::rule::ChangeRoles;
use crate::types::topic::Topic;
use crate::types::value::Value;

pub use persistent::{
    Attach, Detach, Expire, Gone, InFlight, PersistentSubscription, Progress, NEVER,
};

/// An event's request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// A publish on terms.
    Publish(Terms),
    /// A waiting publish whose turn has come, published again by its own entry.
    Granted {
        /// Its position when it began to wait.
        waiting: Position,
        terms: Terms,
    },
    /// A publish left behind by a session that has ended: see [`DueId`].
    Due(DueId),
    /// A session begins. The event's publisher is the session.
    Join(Join),
    /// The publisher's session ends. Up to format 6 of the log; now [`Act::Gone`] does that.
    Leave(Leave),
    /// The log is retained from this slot on, whose first event has this position.
    Release { slot: Slot, position: Position },
    /// The publisher registers a procedure. Decided at its place in the order, and hidden from subscribers.
    Register(Register),
    /// The publisher unregisters a procedure. Decided as well, and hidden from subscribers.
    Unregister(RegistrationId),
    /// A persistent session begins.
    Attach(Attach),
    /// The connection of such a session ends. Up to format 6 of the log.
    Detach(Detach),
    /// The publisher's session adds these persistent filters.
    Subscribe(Vec<(String, PersistentSubscription)>),
    /// The publisher's session removes these filters.
    Unsubscribe(Vec<String>),
    /// The progress of sessions of one entry.
    Progress(Vec<(SessionId, Progress)>),
    /// A client's persistent state is removed.
    Expire(Expire),
    /// The connection of the publisher's session has ended. Also published if another session has taken it over before: what
    /// its client sent to its own node still counts.
    Gone(Gone),
    /// Users change. Up to format 9 of the log; now [`Act::Administer`] does that.
    ChangeUsers(ChangeUsers),
    /// Roles change. Up to format 9 of the log, too.
    ChangeRoles(ChangeRoles),
    /// Users, roles or bans change, and that is remembered.
    Administer(Administer),
    /// A publish of QoS 2 in a persistent session: its packet identifier stands for it until [`Act::Complete`].
    Once { packet_id: u16, terms: Terms },
    /// The publisher's client knows that its publish of QoS 2 with this packet identifier was received. Decided as well, and
    /// hidden from subscribers.
    Complete { packet_id: u16 },
}

/// A change that an administrator makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Administer {
    Users(ChangeUsers),
    Roles(ChangeRoles),
    Bans(ChangeBans),
}

impl Administer {
    /// The user who asks for it; empty if there are no users.
    #[must_use]
    pub fn author(&self) -> &str {
        match self {
            Self::Users(change) => &change.author,
            Self::Roles(change) => &change.author,
            Self::Bans(change) => &change.author,
        }
    }
}

/// The terms of a publish.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// A retained object is merged into the one before, deeply, instead of replacing it.
    pub merge: bool,
    /// Publish only if the topic's retained value matches this; [`Value::Null`] means that there must be none.
    pub when: Option<Value>,
    /// If it does not match, wait in the queue until it does.
    pub watch: bool,
    /// What the topic gets when the publisher's session ends.
    pub will: Option<Payload>,
}

impl Terms {
    /// Whether there are no terms.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.merge && self.when.is_none() && self.will.is_none()
    }

    /// The encoded act of a publish on these terms: empty without terms.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        if self.is_plain() {
            return Bytes::new();
        }
        Act::Publish(self.clone()).encode()
    }

    /// Whether the publish may be refused or have to wait: its outcome is decided in the order, not by being stored.
    #[must_use]
    pub fn is_conditional(&self) -> bool {
        self.when.is_some()
    }
}

/// Names a publish that a session left behind; the number counts within the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DueId {
    pub session: SessionId,
    pub number: u32,
}

/// A session's beginning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// The client's name (MQTT client identifier): an older session of that name in the realm ends.
    pub client: Option<String>,
    /// Published when the session ends, unless the client's DISCONNECT drops it (MQTT 5 section 3.1.2.5).
    pub will: Option<Will>,
    /// Its description for others in WAMP's session meta API, in JSON.
    pub details: String,
}

/// A session's end, as its own entry saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// The client asked for its will to be dropped (MQTT 5 section 3.14.4).
    pub drop_will: bool,
}

/// An MQTT will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Will {
    pub topic: Topic,
    pub payload: Payload,
    pub properties: Bytes,
    pub qos: Qos,
    pub retain: bool,
    /// Seconds between the session's end and the publish (MQTT 5 section 3.1.3.2.2).
    pub delay: u32,
}

/// Why a conditional publish, or a registration, was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the topic's value does not fit")]
    NotAccepted,
    #[error("{} publishes wait for this topic already", limits::TOPIC_WAITERS)]
    LineFull,
    #[error("the session has ended")]
    SessionEnded,
    #[error("the procedure is registered already")]
    ProcedureExists,
    #[error("the procedure is registered with invoke={}, and can only be shared that way", .0.word())]
    OtherPolicy(Invoke),
    #[error("a session may have {} registrations at most", limits::SESSION_REGISTRATIONS)]
    TooManyRegistrations,
    #[error("a registration may have {} callees at most", limits::REGISTRATION_CALLEES)]
    TooManyCallees,
    #[error("this session has no such registration")]
    NoSuchRegistration,
    #[error("the user may not do this")]
    NotAllowed,
    #[error("there is no room for more publishes of QoS 2 whose exchange is not complete")]
    TooManyExchanges,
}

impl Act {
    /// The encoded act of an event.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        wire::encode(self).into()
    }

    /// Decodes an event's act; `None` if this release does not know it.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        wire::decode(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::access::{User, UserChange};
    use crate::types::ban::{AddBan, BanChange, BanTarget};
    use crate::types::event::Encoding;
    use crate::types::procedure::{Matching, Procedure};
    use crate::types::rule::{Role, RoleChange};

    #[test]
    fn golden_bytes() {
        let terms = Terms {
            merge: true,
            when: Some(Value::Dict(vec![("a".into(), Value::Int(-1))])),
            watch: true,
            will: Some(Payload {
                encoding: Encoding::Json,
                args: "[1]".into(),
                kwargs: Bytes::new(),
            }),
        };
        let register = Register {
            procedure: Procedure::new("a.b", Matching::Exact).unwrap(),
            matching: Matching::Prefix,
            invoke: Invoke::Last,
            concurrency: 3,
            disclose_caller: true,
        };
        let user = User { verifier: "v".into(), roles: vec!["r".into()], disabled: true };
        let changes = vec![
            UserChange::Add { name: "a".into(), user: user.clone() },
            UserChange::Set { name: "b".into(), user, unchanged_since: Position(7) },
            UserChange::Remove { name: "c".into() },
        ];
        let users = ChangeUsers { author: "x".into(), changes };
        let rules = vec!["deny publish,register a/+ in r".parse().unwrap()];
        let changes = vec![
            RoleChange::Set { name: "a".into(), role: Role { rules } },
            RoleChange::Remove { name: "b".into() },
        ];
        let roles = ChangeRoles { author: "x".into(), changes };
        let once = Terms { merge: true, ..Terms::default() };
        let cases: [(Act, &[u8]); 11] = [
            (Act::Once { packet_id: 300, terms: once }, &[18, 251, 44, 1, 1, 0, 0, 0]),
            (Act::Complete { packet_id: 7 }, &[19, 7]),
            (Act::Publish(Terms::default()), &[0, 0, 0, 0, 0]),
            (
                Act::Granted { waiting: Position(7), terms },
                &[1, 7, 1, 1, 8, 1, 1, b'a', 2, 1, 1, 1, 1, 3, b'[', b'1', b']', 0],
            ),
            (Act::Due(DueId { session: SessionId(5), number: 1 }), &[2, 5, 1]),
            (Act::Leave(Leave { drop_will: true }), &[4, 1]),
            (Act::Release { slot: Slot(7), position: Position(9) }, &[5, 7, 9]),
            (Act::Register(register), &[6, 3, b'a', b'.', b'b', 1, 4, 3, 1]),
            (Act::Unregister(RegistrationId(7)), &[7, 7]),
            (
                Act::ChangeUsers(users),
                &[
                    15, 1, b'x', 3, 0, 1, b'a', 1, b'v', 1, 1, b'r', 1, 1, 1, b'b', 1, b'v', 1, 1,
                    b'r', 1, 7, 2, 1, b'c',
                ],
            ),
            (
                Act::ChangeRoles(roles),
                &[
                    16, 1, b'x', 2, 0, 1, b'a', 1, 1, 2, 0, 4, 3, b'a', b'/', b'+', 1, 1, b'r', 1,
                    1, b'b',
                ],
            ),
        ];
        for (act, bytes) in cases {
            assert_eq!(act.encode(), bytes, "{act:?}");
            assert_eq!(Act::decode(bytes), Some(act));
        }
        assert_eq!(Terms::default().encode(), "");
        assert_eq!(Terms { merge: true, ..Terms::default() }.encode(), &[0, 1, 0, 0, 0][..]);
        assert_eq!(Act::decode(&[99]), None);
        assert_eq!(Act::decode(&[4, 1, 0]), None);
    }

    #[test]
    fn golden_bytes_of_changes() {
        let target = BanTarget::User("a".into());
        let ban = AddBan { target: target.clone(), reason: "r".into(), lasts: Some(9) };
        let changes = vec![BanChange::Add(ban), BanChange::Remove(target)];
        let bans = Administer::Bans(ChangeBans { author: "x".into(), changes });
        let of_users = Administer::Users(ChangeUsers { author: "x".into(), changes: vec![] });
        let of_roles = Administer::Roles(ChangeRoles { author: "x".into(), changes: vec![] });
        let cases: [(Act, &[u8]); 3] = [
            (Act::Administer(of_users), &[17, 0, 1, b'x', 0]),
            (Act::Administer(of_roles), &[17, 1, 1, b'x', 0]),
            (
                Act::Administer(bans),
                &[17, 2, 1, b'x', 2, 0, 0, 1, b'a', 1, b'r', 1, 9, 1, 0, 1, b'a'],
            ),
        ];
        for (act, bytes) in cases {
            assert_eq!(act.encode(), bytes, "{act:?}");
            assert_eq!(Act::decode(bytes), Some(act));
        }
    }
}

//! The realm's state as rows: its form on disk, and its hash.
//!
//! Invariant: the hash is a sum over all rows, so it depends on the rows alone and not on their history. Persisted:
//! variants of [`Key`] and fields of the values under them never change, new ones go to the end.
//!
//! Deliberately absent: what rows mean (`realm`), and the disk (`storage`).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{NodeId, Position};
use vulpes_raft::net::wire;
use xxhash_rust::xxh3::xxh3_128;

use crate::types::act::DueId;
use crate::types::ban::BanTarget;
use crate::types::event::SessionId;
use crate::types::procedure::{Matching, Procedure};
use crate::types::row::Change;
use crate::types::topic::{Realm, Topic};

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Key {
    Entry(NodeId),
    Session(SessionId),
    Retained(Realm, Topic),
    Waiter(Realm, Topic, Position),
    Due(DueId),
    Head,
    Registration(Realm, Matching, Procedure),
    /// A client's persistent session, by its name.
    PersistentSession(Realm, String),
    /// A filter of a persistent session.
    PersistentFilter(Realm, String, String),
    User(String),
    /// The user whose client has the session, if it logged in.
    SessionUser(SessionId),
    Role(String),
    /// A role has been set, so the fold decides by rules.
    Ruled,
    /// The user whose will a publish is that a session left.
    DueUser(DueId),
    Ban(BanTarget),
    /// What is remembered of the change at this position.
    Audit(Position),
    /// From where on all changes are remembered.
    AuditFrom,
    /// A client's publish of QoS 2 whose exchange is not complete, by its packet identifier.
    Received(Realm, String, u16),
}

/// A sum over all rows: equal state, equal hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHash(pub u128);

impl std::fmt::Display for StateHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The hash so far, and the rows that changed since they were last taken.
#[derive(Debug, Default)]
pub(super) struct Rows {
    hash: StateHash,
    changes: BTreeMap<Vec<u8>, Changed>,
}

#[derive(Debug)]
struct Changed {
    /// It existed before the first change.
    existed: bool,
    value: Option<Vec<u8>>,
}

impl Rows {
    /// Records that a row changed from one value to another.
    pub(super) fn change<V: Serialize>(&mut self, key: &Key, old: Option<&V>, new: Option<&V>) {
        let key = wire::encode(key);
        if let Some(old) = old {
            self.hash.0 = self.hash.0.wrapping_sub(hash(&key, &wire::encode(old)));
        }
        let new = new.map(wire::encode);
        if let Some(new) = &new {
            self.hash.0 = self.hash.0.wrapping_add(hash(&key, new));
        }
        let changed = self.changes.entry(key);
        changed.or_insert(Changed { existed: old.is_some(), value: None }).value = new;
    }

    /// Counts a row that was loaded.
    pub(super) fn loaded(&mut self, key: &[u8], value: &[u8]) {
        self.hash.0 = self.hash.0.wrapping_add(hash(key, value));
    }

    pub(super) fn hash(&self) -> StateHash {
        self.hash
    }

    /// The rows that changed since the last call.
    pub(super) fn take(&mut self) -> Vec<Change> {
        let change = |(key, Changed { existed, value }): (Vec<u8>, Changed)| {
            let value = value.map(Bytes::from);
            (existed || value.is_some()).then(|| Change { key: key.into(), value })
        };
        std::mem::take(&mut self.changes).into_iter().filter_map(change).collect()
    }
}

fn hash(key: &[u8], value: &[u8]) -> u128 {
    let mut row = Vec::with_capacity(8 + key.len() + value.len());
    row.extend_from_slice(&(key.len() as u64).to_le_bytes());
    row.extend_from_slice(key);
    row.extend_from_slice(value);
    xxh3_128(&row)
}

#[cfg(test)]
mod tests {
    use vulpes_raft::ids::{OrderTime, Slot, Stamp};

    use super::*;
    use crate::realm::registrations::{Callee, Registration};
    use crate::realm::{PersistentFilter, PersistentSession};
    use crate::types::act::{InFlight, PersistentSubscription, Progress};
    use crate::types::event::Qos;
    use crate::types::head::Head;
    use crate::types::procedure::{Invoke, RegistrationId};

    #[test]
    fn golden_bytes_of_the_head() {
        assert_eq!(wire::encode(&Key::Head), [5]);
        let head = Head { slot: Slot(7), position: Position(9) };
        assert_eq!(wire::encode(&head), [7, 9]);
    }

    #[test]
    fn golden_bytes_of_bans_and_of_what_is_remembered() {
        assert_eq!(wire::encode(&Key::Ban(BanTarget::User("a".into()))), [14, 0, 1, b'a']);
        assert_eq!(wire::encode(&Key::Audit(Position(9))), [15, 9]);
        assert_eq!(wire::encode(&Key::AuditFrom), [16]);
        assert_eq!(wire::encode(&crate::realm::audit::From(Position(9))), [9]);
    }

    #[test]
    fn golden_bytes_of_registrations() {
        let procedure = Procedure::new("a.b", Matching::Exact).unwrap();
        let key = Key::Registration(Realm::new("r").unwrap(), Matching::Wildcard, procedure);
        assert_eq!(wire::encode(&key), [6, 1, b'r', 2, 3, b'a', b'.', b'b']);
        let callee = Callee { session: SessionId(4), concurrency: 2, disclose_caller: true };
        let (id, created) = (RegistrationId(7), Stamp(3));
        let shared =
            Registration { id, created, invoke: Invoke::RoundRobin, callees: vec![callee] };
        assert_eq!(wire::encode(&shared), [7, 3, 1, 1, 4, 2, 1]);
    }

    #[test]
    fn golden_bytes_of_what_clients_keep() {
        let realm = Realm::new("r").unwrap();
        let key = Key::PersistentSession(realm.clone(), "c".into());
        assert_eq!(wire::encode(&key), [7, 1, b'r', 1, b'c']);
        let in_flight = vec![InFlight { position: Position(7), packet_id: 2 }];
        let progress = Progress { sent: Position(9), in_flight, doubt: Position(8) };
        let persistent = PersistentSession {
            expiry: 60,
            attached: Some(SessionId(4)),
            resumed: true,
            awaited: None,
            since: OrderTime(3),
            progress,
        };
        assert_eq!(wire::encode(&persistent), [60, 1, 4, 1, 0, 3, 9, 1, 7, 2, 8]);
        let key = Key::PersistentFilter(realm, "c".into(), "a/+".into());
        assert_eq!(wire::encode(&key), [8, 1, b'r', 1, b'c', 3, b'a', b'/', b'+']);
        let subscription = PersistentSubscription {
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: true,
            changes: false,
            identifier: Some(5),
            condition: None,
        };
        let filter = PersistentFilter { subscription, from: Position(9) };
        assert_eq!(wire::encode(&filter), [1, 0, 1, 0, 1, 5, 0, 9]);
    }
}

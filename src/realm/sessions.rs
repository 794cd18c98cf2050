//! Sessions as all nodes know them: who has joined where, and what remains to be done when one ends.
//!
//! Invariant: a session ends once, and its wills become due at that very place in the order. Of a client's name there
//! is one session in a realm.
//!
//! Deliberately absent: what outlives a session (`kept`); subscriptions that don't, which sessions keep to themselves.

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{Incarnation, NodeId, OrderTime};
use vulpes_raft::mutant::{planted, Mutant};

use super::{Due, Incoming, Key, Notice, Realms};
use crate::act::{DueId, Join, Will};
use crate::event::{Qos, SessionId};
use crate::topic::Realm;

/// A session that lives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionState {
    pub realm: Realm,
    /// The entry it is at, in that entry's incarnation.
    pub entry: NodeId,
    pub incarnation: Incarnation,
    pub client: Option<String>,
    pub will: Option<Will>,
    /// In JSON, for WAMP's session meta API.
    pub details: String,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// Its entry said so.
    Left {
        /// The client has taken its MQTT will back.
        drop_will: bool,
    },
    /// Another session came under its client's name.
    TakenOver,
    /// Its entry began a new incarnation, or was closed.
    EntryLost,
}

impl Realms {
    /// A session begins that keeps nothing; tells whether subscribers are to see its event.
    pub(super) fn join(
        &mut self,
        incoming: &Incoming<'_>,
        place: (NodeId, Incarnation),
        join: Join,
    ) -> bool {
        if !self.may_join(incoming.event.publisher, place) {
            return false;
        }
        if let Some(client) = &join.client {
            let name = (incoming.realm.clone(), client.clone());
            self.take_over(&name);
            self.drop_kept(&name);
        }
        self.begin_session(incoming, place, join);
        true
    }

    pub(super) fn may_join(&self, session: SessionId, place: (NodeId, Incarnation)) -> bool {
        !self.sessions.contains_key(&session) && self.entries.get(&place.0) == Some(&place.1)
    }

    /// Ends the session that a client's name stands for; tells which one that was.
    pub(super) fn take_over(&mut self, name: &(Realm, String)) -> Option<SessionId> {
        let older = self.names.get(name).copied()?;
        self.end_session(older, EndCause::TakenOver);
        Some(older)
    }

    pub(super) fn begin_session(
        &mut self,
        incoming: &Incoming<'_>,
        (entry, incarnation): (NodeId, Incarnation),
        join: Join,
    ) {
        let (realm, session) = (incoming.realm.clone(), incoming.event.publisher);
        let Join { client, will, details } = join;
        let state = SessionState { realm, entry, incarnation, client, will, details };
        self.rows.change(&Key::Session(session), None, Some(&state));
        self.insert_session(session, state);
        self.notices.push(Notice::Joined { session });
    }

    /// The wills of a client that wait for it to come back.
    fn delayed(&self, (realm, client): &(Realm, String)) -> Vec<DueId> {
        let theirs = |due: &Due| {
            due.not_before > self.time && due.realm == *realm && due.client.as_ref() == Some(client)
        };
        self.due.iter().filter(|(_, due)| theirs(due)).map(|(id, _)| *id).collect()
    }

    /// A client that comes back in time has no will published (MQTT 5 section 3.1.3.2.2).
    pub(super) fn keep_back(&mut self, name: &(Realm, String)) {
        for id in self.delayed(name) {
            self.remove_due(id);
        }
    }

    /// What a client has kept is gone, so that its will waits no longer.
    pub(super) fn hurry(&mut self, name: &(Realm, String)) {
        for id in self.delayed(name) {
            if let Some(due) = self.remove_due(id) {
                self.add_due(id, Due { not_before: OrderTime(0), ..due });
            }
        }
    }

    pub(super) fn insert_session(&mut self, session: SessionId, state: SessionState) {
        if let Some(client) = &state.client {
            self.names.insert((state.realm.clone(), client.clone()), session);
        }
        self.sessions.insert(session, state);
    }

    pub(super) fn end_sessions_of(&mut self, entry: NodeId, over: impl Fn(Incarnation) -> bool) {
        let ended = |(id, state): (&SessionId, &super::SessionState)| {
            (state.entry == entry && over(state.incarnation)).then_some(*id)
        };
        let ended: Vec<SessionId> = self.sessions.iter().filter_map(ended).collect();
        for session in ended {
            self.end_session(session, EndCause::EntryLost);
        }
    }

    /// Ends a session; `false` where there is none of that number.
    pub(super) fn end_session(&mut self, session: SessionId, cause: EndCause) -> bool {
        let Some(state) = self.sessions.remove(&session) else { return false };
        self.rows.change(&Key::Session(session), Some(&state), None);
        if let Some(client) = &state.client {
            self.names.remove(&(state.realm.clone(), client.clone()));
        }
        self.notices.push(Notice::Ended { session, cause });
        let longest = self.part_from_kept(session, &state, cause);
        self.end_waits(session);
        self.end_registrations(session);
        let mut number = self.next_due(session);
        let bonds = self.bonds.get(&session).cloned().unwrap_or_default();
        let lost = cause == EndCause::EntryLost && planted(Mutant::LoseWill);
        for (realm, topic) in bonds.into_iter().filter(|_| !lost) {
            let retained = self.retained.get(&realm).and_then(|topics| topics.get(&topic));
            let Some(bond) = retained.and_then(|retained| retained.bound.clone()) else { continue };
            let due = Due {
                realm,
                topic,
                payload: bond.will,
                properties: bytes::Bytes::new(),
                qos: Qos::AtLeastOnce,
                retain: true,
                bound: true,
                entry: state.entry,
                client: state.client.clone(),
                not_before: OrderTime(0),
            };
            self.add_due(DueId { session, number }, due);
            number += 1;
        }
        let drop_will = matches!(cause, EndCause::Left { drop_will: true });
        if let Some(will) = state.will.filter(|_| !drop_will) {
            // No longer than what the client has kept (MQTT 5 section 3.1.3.2.2).
            let delay = u64::from(will.delay.min(longest)) * 1000;
            let due = Due {
                realm: state.realm,
                topic: will.topic,
                payload: will.payload,
                properties: will.properties,
                qos: will.qos,
                retain: will.retain,
                bound: false,
                entry: state.entry,
                client: state.client,
                not_before: match delay {
                    0 => OrderTime(0),
                    delay => OrderTime(self.time.0.saturating_add(delay)),
                },
            };
            self.add_due(DueId { session, number }, due);
        }
        true
    }

    fn next_due(&self, session: SessionId) -> u32 {
        let all = DueId { session, number: 0 }..=DueId { session, number: u32::MAX };
        self.due.range(all).next_back().map_or(0, |(last, _)| last.number.saturating_add(1))
    }

    fn add_due(&mut self, id: DueId, due: Due) {
        self.rows.change(&Key::Due(id), None, Some(&due));
        self.due.insert(id, due);
        self.notices.push(Notice::Due(id));
    }

    fn remove_due(&mut self, id: DueId) -> Option<Due> {
        let due = self.due.remove(&id)?;
        self.rows.change(&Key::Due(id), Some(&due), None);
        Some(due)
    }

    /// What a session left behind is published; tells whether subscribers are to see it.
    pub(super) fn publish_due(&mut self, incoming: &Incoming<'_>, id: DueId) -> bool {
        let Some(due) = self.due.get(&id) else { return false };
        if due.not_before > self.time {
            return false;
        }
        if planted(Mutant::RepeatWill) {
            self.publish(incoming, &crate::act::Terms::default());
            return true;
        }
        let Some(due) = self.remove_due(id) else { return false };
        let retained = self.retained.get(&due.realm).and_then(|topics| topics.get(&due.topic));
        let bond = retained.and_then(|retained| retained.bound.as_ref());
        if due.bound && bond.is_none_or(|bond| bond.session != id.session) {
            return false;
        }
        self.publish(incoming, &crate::act::Terms::default());
        true
    }
}

//! Sessions as all nodes know them: which have joined, at which entry, and what remains to be done when one ends.
//!
//! What a session leaves has to take effect before its client learns that a new session began. So a session is held back while
//! earlier sessions of its client have left publishes that are still due: it has begun, but its client learns of it only once
//! the last of these is published or void.
//!
//! Invariant: a session ends once, and its wills become due at that position in the order. A realm has at most one session per
//! client name, and nothing is left under that name once the client has been told that the session began.
//!
//! Deliberately absent: what outlives a session (`persistent`); other subscriptions, which the state does not know.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{Incarnation, NodeId, OrderTime};
use vulpes_raft::mutant::{planted, Mutant};

use super::{Incoming, Key, Notice, Realms};
use crate::types::access::ANONYMOUS;
use crate::types::act::{Detach, DueId, Gone, Join, Will};
use crate::types::event::{Payload, Qos, SessionId};
use crate::types::topic::{Realm, Topic};

/// A live session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionState {
    pub realm: Realm,
    /// Its entry, and that entry's incarnation.
    pub entry: NodeId,
    pub incarnation: Incarnation,
    pub client: Option<Arc<str>>,
    pub will: Option<Box<Will>>,
    /// In JSON, for WAMP's session meta API.
    pub details: Box<str>,
}

impl SessionState {
    /// The name under which its client leaves something.
    pub(super) fn name(&self) -> Option<(Realm, String)> {
        Some((self.realm.clone(), self.client.as_deref()?.to_owned()))
    }
}

/// A publish left behind by a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    pub realm: Realm,
    pub topic: Topic,
    pub payload: Payload,
    pub properties: Bytes,
    pub qos: Qos,
    pub retain: bool,
    /// Only published while the topic's value is still bound to the session.
    pub bound: bool,
    /// The session's entry.
    pub entry: NodeId,
    /// The session's client. It may come back before the publish is due; otherwise the client is told that its next session
    /// began only after this is published.
    pub client: Option<String>,
    /// Not published before this time.
    pub not_before: OrderTime,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// Its entry reported the end.
    Left {
        /// The client dropped its MQTT will.
        drop_will: bool,
    },
    /// Another session joined under its client's name.
    TakenOver,
    /// Its entry began a new incarnation, or was closed.
    EntryLost,
    /// Its user was removed or disabled, or it has none and needs one. Its MQTT will is dropped.
    Revoked,
    /// Its user or its client's name was banned. Its MQTT will is dropped.
    Banned,
}

impl Realms {
    /// A session begins that is not persistent; returns whether subscribers see its event.
    pub(super) fn join(
        &mut self,
        incoming: &Incoming<'_>,
        place: (NodeId, Incarnation),
        join: Join,
    ) -> bool {
        if !self.may_join(incoming.event.publisher, place)
            || !self.admit(incoming)
            || self.turns_away(incoming, join.client.as_deref())
        {
            return false;
        }
        if let Some(client) = &join.client {
            let name = (incoming.realm.clone(), client.clone());
            self.take_over(&name);
            self.drop_persistent(&name);
            // Even if there was no persistent session, so that everything left can be published now.
            self.hurry(&name);
        }
        self.begin_session(incoming, place, join);
        true
    }

    pub(super) fn may_join(&self, session: SessionId, place: (NodeId, Incarnation)) -> bool {
        !self.sessions.contains_key(&session) && self.entries.get(&place.0) == Some(&place.1)
    }

    /// Ends the current session of a client's name; returns it.
    pub(super) fn take_over(&mut self, name: &(Realm, String)) -> Option<SessionId> {
        let older = self.named(&name.0, &name.1)?;
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
        let (client, will) = (client.map(Arc::from), will.map(Box::new));
        let details = details.into();
        let state = SessionState { realm, entry, incarnation, client, will, details };
        self.rows.change(&Key::Session(session), None, Some(&state));
        let held_back = self.is_held_back(&state);
        self.insert_session(session, state);
        self.belongs(incoming);
        self.notices.push(match held_back {
            true => Notice::HeldBack { session },
            false => Notice::Joined { session },
        });
    }

    /// Whether earlier sessions of its client have left something unpublished.
    fn is_held_back(&self, state: &SessionState) -> bool {
        let left = state.name().is_some_and(|name| self.left.contains_key(&name));
        left && !planted(Mutant::BirthBeforeWill)
    }

    /// If the last publish that earlier sessions of a client left is in the log, the client is told that the session that was
    /// held back has begun.
    fn let_in(&mut self, realm: Realm, client: String) {
        let name = (realm, client);
        if self.left.contains_key(&name) || planted(Mutant::BirthBeforeWill) {
            return;
        }
        let waits = self.named(&name.0, &name.1);
        self.notices.extend(waits.map(|session| Notice::Joined { session }));
    }

    /// The publishes that are awaited before the client is told that this session began.
    pub fn left_before(&self, session: SessionId) -> impl Iterator<Item = DueId> + '_ {
        let name = self.sessions.get(&session).and_then(SessionState::name);
        let left = name.and_then(|name| self.left.get(&name));
        left.into_iter().flatten().copied()
    }

    /// The entry of the session that waits for this publish.
    #[must_use]
    pub fn awaited_at(&self, due: &Due) -> Option<NodeId> {
        let session = self.named(&due.realm, due.client.as_deref()?)?;
        self.sessions.get(&session).map(|state| state.entry)
    }

    /// The current session of a client's name.
    fn named(&self, realm: &Realm, client: &str) -> Option<SessionId> {
        self.names.get(realm)?.get(client).copied()
    }

    /// The delayed wills of a client, which wait for it to come back.
    fn delayed(&self, name: &(Realm, String)) -> Vec<DueId> {
        let is_delayed = |id: &&DueId| self.due.get(id).is_some_and(|d| d.not_before > self.time);
        self.left.get(name).into_iter().flatten().filter(is_delayed).copied().collect()
    }

    /// The client came back in time, so its delayed wills are not published (MQTT 5 section 3.1.3.2.2).
    pub(super) fn keep_back(&mut self, name: &(Realm, String)) {
        for id in self.delayed(name) {
            self.remove_due(id);
        }
    }

    /// A client's persistent session is gone, so its delayed wills are due now.
    pub(super) fn hurry(&mut self, name: &(Realm, String)) {
        for id in self.delayed(name) {
            let author = self.forget_author(id);
            if let Some(due) = self.remove_due(id) {
                self.add_due(id, Due { not_before: OrderTime(0), ..due });
                if let Some(author) = author {
                    self.note_author(id, author);
                }
            }
        }
    }

    pub(super) fn insert_session(&mut self, session: SessionId, state: SessionState) {
        if let Some(client) = &state.client {
            let names = self.names.entry(state.realm.clone()).or_default();
            names.insert(client.clone(), session);
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

    /// Ends a session; `false` if it does not exist.
    pub(super) fn end_session(&mut self, session: SessionId, cause: EndCause) -> bool {
        let Some(state) = self.sessions.remove(&session) else { return false };
        // A session whose client was never told that it began leaves no will.
        let held_back = self.is_held_back(&state);
        self.rows.change(&Key::Session(session), Some(&state), None);
        if let (Some(client), Some(names)) = (&state.client, self.names.get_mut(&state.realm)) {
            names.remove(client);
        }
        let user = self.forget_user_of(session);
        self.notices.push(Notice::Ended { session, cause });
        let longest = self.part_from_persistent(session, &state, cause);
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
                properties: Bytes::new(),
                qos: Qos::AtLeastOnce,
                retain: true,
                bound: true,
                entry: state.entry,
                client: state.client.as_deref().map(str::to_owned),
                not_before: OrderTime(0),
            };
            self.add_due(DueId { session, number }, due);
            number += 1;
        }
        let drop_will = held_back
            || matches!(
                cause,
                EndCause::Left { drop_will: true } | EndCause::Revoked | EndCause::Banned
            );
        if let Some(will) = state.will.filter(|_| !drop_will) {
            // No longer than the client's persistent session exists (MQTT 5 section 3.1.3.2.2).
            let delay = match planted(Mutant::ForgetDelay) {
                true => 0,
                false => u64::from(will.delay.min(longest)) * 1000,
            };
            let due = Due {
                realm: state.realm,
                topic: will.topic,
                payload: will.payload,
                properties: will.properties,
                qos: will.qos,
                retain: will.retain,
                bound: false,
                entry: state.entry,
                client: state.client.as_deref().map(str::to_owned),
                not_before: match delay {
                    0 => OrderTime(0),
                    delay => OrderTime(self.time.0.saturating_add(delay)),
                },
            };
            let id = DueId { session, number };
            self.add_due(id, due);
            self.note_author(id, user.unwrap_or_else(|| ANONYMOUS.to_owned()));
        }
        true
    }

    /// The connection of a session has ended. Subscribers see the event if the session ends with it.
    pub(super) fn gone(&mut self, session: SessionId, gone: Gone) -> bool {
        let Gone { drop_will, expiry, progress } = gone;
        if self.sessions.contains_key(&session) {
            return match progress {
                Some(progress) => self.detach(session, Detach { drop_will, expiry, progress }),
                None => self.end_session(session, EndCause::Left { drop_will }),
            };
        }
        self.release_from(session, expiry == Some(0), progress);
        let all = DueId { session, number: 0 }..=DueId { session, number: u32::MAX };
        let heeded = !planted(Mutant::IgnoreLastWord);
        let wills = self.due.range(all).filter(|(_, due)| heeded && !due.bound).map(|(id, _)| *id);
        for id in wills.collect::<Vec<_>>() {
            if !drop_will {
                self.notices.push(Notice::Confirmed(id));
                continue;
            }
            if let Some(Due { realm, client: Some(client), .. }) = self.remove_due(id) {
                self.let_in(realm, client);
            }
        }
        false
    }

    fn next_due(&self, session: SessionId) -> u32 {
        let all = DueId { session, number: 0 }..=DueId { session, number: u32::MAX };
        self.due.range(all).next_back().map_or(0, |(last, _)| last.number.saturating_add(1))
    }

    fn add_due(&mut self, id: DueId, due: Due) {
        self.rows.change(&Key::Due(id), None, Some(&due));
        self.insert_due(id, due);
        self.notices.push(Notice::Due(id));
    }

    pub(super) fn insert_due(&mut self, id: DueId, due: Due) {
        if let Some(client) = &due.client {
            let name = (due.realm.clone(), client.clone());
            self.left.entry(name).or_default().insert(id);
        }
        self.due.insert(id, due);
    }

    fn remove_due(&mut self, id: DueId) -> Option<Due> {
        let due = self.due.remove(&id)?;
        self.forget_author(id);
        if let Some(client) = &due.client {
            let name = (due.realm.clone(), client.clone());
            if let Some(left) = self.left.get_mut(&name) {
                left.remove(&id);
                if left.is_empty() {
                    self.left.remove(&name);
                }
            }
        }
        self.rows.change(&Key::Due(id), Some(&due), None);
        Some(due)
    }

    /// A publish that a session left is published; returns whether subscribers see it.
    pub(super) fn publish_due(&mut self, incoming: &Incoming<'_>, id: DueId) -> bool {
        let Some(due) = self.due.get(&id) else { return false };
        if due.not_before > self.time {
            return false;
        }
        if planted(Mutant::RepeatWill) {
            self.publish(incoming, &crate::types::act::Terms::default());
            return true;
        }
        let may = self.may_leave(id, due) && !self.is_of_banned(id, due);
        let Some(due) = self.remove_due(id) else { return false };
        let retained = self.retained.get(&due.realm).and_then(|topics| topics.get(&due.topic));
        let bond = retained.and_then(|retained| retained.bound.as_ref());
        let stands = may && (!due.bound || bond.is_some_and(|bond| bond.session == id.session));
        if stands {
            self.publish(incoming, &crate::types::act::Terms::default());
        }
        if let Some(client) = due.client {
            self.let_in(due.realm, client);
        }
        stands
    }
}

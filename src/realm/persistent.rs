//! Persistent sessions: a client's filters and its progress in the log, which outlive its connections.
//!
//! A client's name has at most one persistent session in a realm. A session attaches to it. When that session ends, the client
//! is away until another session attaches, at any entry, or until the persistent session expires. A session that takes over
//! from a live one waits for the older session's last word, which reports its progress. It comes as the
//! [`Act::Gone`](crate::types::act::Act) of a session that is already over. After waiting long enough, the new session
//! announces with an [`Act::Progress`](crate::types::act::Act) that it begins without the last word, and begins once that act
//! is in the order. So the awaited session is always the last one that sent anything.
//!
//! Invariant: a filter applies from the position in the order where it was requested. Every event before the progress was
//! acknowledged by the client, unless it is in flight. The total of all clients is limited.
//!
//! Deliberately absent: events. A client that comes back reads them from the log.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{Incarnation, NodeId, OrderTime, Position};
use vulpes_raft::mutant::{planted, Mutant};
use vulpes_raft::net::wire;

use super::{EndCause, FilterOutcome, Incoming, Key, Notice, Realms, SessionState};
use crate::types::act::{Attach, Detach, Expire, PersistentSubscription, Progress, NEVER};
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::topic::Realm;

/// A client's name in its realm.
pub(super) type Name = (Realm, String);

/// A client's persistent session, without its filters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistentSession {
    /// Seconds after which it expires while the client is away.
    pub expiry: u32,
    /// The session that is attached to it; none while the client is away.
    pub attached: Option<SessionId>,
    /// That session found an earlier state.
    pub resumed: bool,
    /// The session that was taken over and has not reported its progress yet.
    pub awaited: Option<SessionId>,
    /// Since when the client has been attached, or away.
    pub since: OrderTime,
    pub progress: Progress,
}

/// A filter of a persistent session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PersistentFilter {
    pub subscription: PersistentSubscription,
    /// The first position it covers.
    pub from: Position,
}

/// A client's persistent session, with its filters.
#[derive(Clone, Debug, PartialEq)]
pub struct PersistentState {
    pub persistent: PersistentSession,
    pub filters: BTreeMap<String, PersistentFilter>,
    /// Packet identifiers of publishes of QoS 2 whose exchange is not complete.
    pub(super) received: BTreeSet<u16>,
    pub(super) bytes: usize,
}

/// How many persistent sessions there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PersistentCounts {
    pub attached: u64,
    pub away: u64,
}

/// The persistent sessions of all clients, by name.
#[derive(Debug, Default)]
pub(super) struct PersistentTable {
    pub(super) states: BTreeMap<Name, PersistentState>,
    /// Sessions that are over and have not reported their progress yet.
    pub(super) awaited: BTreeMap<SessionId, Name>,
    pub(super) filters: usize,
    pub(super) bytes: usize,
}

impl PersistentSession {
    /// When it expires, if the client does not come back.
    fn expires(&self) -> Option<OrderTime> {
        let away = self.attached.is_none() && self.expiry != NEVER;
        away.then(|| OrderTime(self.since.0.saturating_add(u64::from(self.expiry) * 1000)))
    }

    fn is_over(&self, now: OrderTime) -> bool {
        self.expires().is_some_and(|at| at <= now)
    }
}

impl PersistentState {
    /// Packet identifiers of publishes of QoS 2 whose exchange is not complete.
    #[must_use]
    pub fn received(&self) -> Vec<u16> {
        self.received.iter().copied().collect()
    }

    /// The lowest position in the log that the client still needs.
    fn wanted(&self) -> Option<Position> {
        let progress = &self.persistent.progress;
        let in_flight = progress.in_flight.first().map(|first| first.position);
        let first = self.filters.values().map(|filter| filter.from).min();
        let unsent = first.map(|from| from.max(progress.sent));
        in_flight.into_iter().chain(unsent).min()
    }
}

impl PersistentTable {
    pub(super) fn load(&mut self, name: Name, persistent: PersistentSession) {
        if let Some(awaited) = persistent.awaited {
            self.awaited.insert(awaited, name.clone());
        }
        self.bytes += name.1.len();
        match self.states.get_mut(&name) {
            Some(state) => state.persistent = persistent,
            None => {
                let (filters, received) = (BTreeMap::new(), BTreeSet::new());
                let state = PersistentState { persistent, filters, received, bytes: 0 };
                self.states.insert(name, state);
            }
        }
    }

    /// Rows of filters come after those of their clients.
    pub(super) fn load_filter(
        &mut self,
        name: &Name,
        text: String,
        filter: PersistentFilter,
    ) -> Option<()> {
        self.states.contains_key(name).then(|| drop(self.insert_filter(name, text, filter)))
    }

    fn insert_filter(
        &mut self,
        name: &Name,
        text: String,
        filter: PersistentFilter,
    ) -> Option<PersistentFilter> {
        let state = self.states.get_mut(name)?;
        let bytes = weight(name, &text, &filter.subscription);
        state.bytes += bytes;
        self.bytes += bytes;
        self.filters += 1;
        let old = state.filters.insert(text.clone(), filter);
        if let Some(old) = &old {
            let bytes = weight(name, &text, &old.subscription);
            state.bytes -= bytes;
            self.bytes -= bytes;
            self.filters -= 1;
        }
        old
    }

    fn remove_filter(&mut self, name: &Name, text: &str) -> Option<PersistentFilter> {
        let state = self.states.get_mut(name)?;
        let old = state.filters.remove(text)?;
        let bytes = weight(name, text, &old.subscription);
        state.bytes -= bytes;
        self.bytes -= bytes;
        self.filters -= 1;
        Some(old)
    }

    /// Rows of exchanges come after those of their clients.
    pub(super) fn load_received(&mut self, name: &Name, packet_id: u16) -> Option<()> {
        self.states.contains_key(name).then(|| self.receive(name, packet_id))
    }

    pub(super) fn has_received(&self, name: &Name, packet_id: u16) -> bool {
        self.states.get(name).is_some_and(|state| state.received.contains(&packet_id))
    }

    pub(super) fn has_room_to_receive(&self, name: &Name) -> bool {
        let count = self.states.get(name).map_or(0, |state| state.received.len());
        count < limits::SESSION_EXCHANGES
            && self.bytes + exchange_weight(name) <= limits::PERSISTENT_BYTES
    }

    pub(super) fn receive(&mut self, name: &Name, packet_id: u16) {
        let Some(state) = self.states.get_mut(name) else { return };
        if state.received.insert(packet_id) {
            self.bytes += exchange_weight(name);
        }
    }

    /// Returns whether it was there.
    pub(super) fn forget_received(&mut self, name: &Name, packet_id: u16) -> bool {
        let Some(state) = self.states.get_mut(name) else { return false };
        let found = state.received.remove(&packet_id);
        if found {
            self.bytes -= exchange_weight(name);
        }
        found
    }

    pub(super) fn received(&self, name: &Name) -> Vec<u16> {
        self.states.get(name).map_or_else(Vec::new, PersistentState::received)
    }

    fn has_room_for(&self, name: &Name, filters: &[(String, PersistentSubscription)]) -> bool {
        let bytes: usize =
            filters.iter().map(|(text, persistent)| weight(name, text, persistent)).sum();
        self.filters + filters.len() <= limits::PERSISTENT_FILTERS
            && self.bytes + bytes <= limits::PERSISTENT_BYTES
    }
}

/// The bytes counted for an exchange of QoS 2. Its row contains the client's name.
fn exchange_weight((_, client): &Name) -> usize {
    client.len() + limits::EXCHANGE_OVERHEAD
}

/// The bytes counted for a filter. Its row contains the client's name.
fn weight((_, client): &Name, text: &str, subscription: &PersistentSubscription) -> usize {
    client.len() + text.len() + wire::encode(subscription).len()
}

impl Realms {
    /// A session begins that attaches to a persistent session; returns whether subscribers see its event.
    pub(super) fn attach(
        &mut self,
        incoming: &Incoming<'_>,
        place: (NodeId, Incarnation),
        attach: Attach,
    ) -> bool {
        let Attach { join, clean, expiry } = attach;
        let Some(client) = join.client.clone() else { return false };
        let session = incoming.event.publisher;
        if !self.may_join(session, place)
            || !self.admit(incoming)
            || self.turns_away(incoming, Some(&client))
        {
            return false;
        }
        let name = (incoming.realm.clone(), client);
        let older = self.take_over(&name);
        let over = |state: &PersistentState| state.persistent.is_over(self.time);
        if clean || self.persistent.states.get(&name).is_some_and(over) {
            self.drop_persistent(&name);
        }
        self.keep_back(&name);
        let here = incoming.at.position;
        let attached = |persistent: Option<&PersistentSession>| PersistentSession {
            expiry,
            attached: Some(session),
            resumed: persistent.is_some(),
            awaited: persistent.and_then(|persistent| persistent.awaited.or(older)),
            since: self.time,
            progress: match persistent {
                Some(persistent) if older.is_some() => {
                    // The older session's last word will say what was sent up to here.
                    let doubt = persistent.progress.doubt.max(here);
                    Progress { doubt, ..persistent.progress.clone() }
                }
                Some(persistent) => persistent.progress.clone(),
                None => Progress { sent: here, in_flight: Vec::new(), doubt: Position(0) },
            },
        };
        let old = self.persistent.states.get(&name).map(|state| &state.persistent);
        // If there is no room, the session begins anyway, but is not persistent.
        if old.is_some() || expiry > 0 && self.has_room_for_persistent(&name) {
            let persistent = attached(old);
            self.set_persistent(&name, persistent);
        }
        self.begin_session(incoming, place, join);
        true
    }

    fn has_room_for_persistent(&self, (_, client): &Name) -> bool {
        self.persistent.states.len() < limits::PERSISTENT_SESSIONS
            && self.persistent.bytes + client.len() <= limits::PERSISTENT_BYTES
    }

    fn set_persistent(&mut self, name: &Name, persistent: PersistentSession) {
        let old = self.persistent.states.get(name).map(|state| state.persistent.clone());
        let key = Key::PersistentSession(name.0.clone(), name.1.clone());
        self.rows.change(&key, old.as_ref(), Some(&persistent));
        if let Some(old) = old {
            self.forget_persistent(name, &old);
        }
        self.persistent.load(name.clone(), persistent);
    }

    fn forget_persistent(&mut self, name: &Name, old: &PersistentSession) {
        self.persistent.bytes -= name.1.len();
        if let Some(awaited) = old.awaited {
            self.persistent.awaited.remove(&awaited);
        }
    }

    /// Drops a client's persistent session. Its delayed wills become due at once.
    pub(super) fn drop_persistent(&mut self, name: &Name) {
        let Some(state) = self.persistent.states.get(name) else { return };
        let (old, texts) =
            (state.persistent.clone(), state.filters.keys().cloned().collect::<Vec<_>>());
        for text in texts {
            self.remove_filter(name, text);
        }
        self.drop_exchanges(name);
        self.rows.change(&Key::PersistentSession(name.0.clone(), name.1.clone()), Some(&old), None);
        self.forget_persistent(name, &old);
        self.persistent.states.remove(name);
        self.hurry(name);
    }

    fn remove_filter(&mut self, name: &Name, text: String) {
        if let Some(old) = self.persistent.remove_filter(name, &text) {
            let key = Key::PersistentFilter(name.0.clone(), name.1.clone(), text);
            self.rows.change(&key, Some(&old), None);
        }
    }

    /// The state that the session is attached to.
    pub(super) fn attached_to(&self, session: SessionId) -> Option<(Name, &PersistentState)> {
        let state = self.sessions.get(&session)?;
        let name = state.name()?;
        let persistent = self.persistent.states.get(&name)?;
        (persistent.persistent.attached == Some(session)).then_some((name, persistent))
    }

    /// A session ends; returns for how many seconds its persistent session outlives it.
    pub(super) fn part_from_persistent(
        &mut self,
        session: SessionId,
        state: &SessionState,
        cause: EndCause,
    ) -> u32 {
        let Some(name) = state.name() else { return 0 };
        let Some(found) = self.persistent.states.get(&name) else { return 0 };
        if found.persistent.attached != Some(session) {
            return 0;
        }
        let mut persistent = found.persistent.clone();
        persistent.attached = None;
        if !planted(Mutant::ExpireSinceAttached) {
            persistent.since = self.time;
        }
        if matches!(cause, EndCause::EntryLost | EndCause::Revoked | EndCause::Banned) {
            // It may have sent everything so far.
            persistent.progress.doubt = persistent.progress.doubt.max(self.position);
        }
        let expiry = persistent.expiry;
        self.set_persistent(&name, persistent);
        // After a takeover, the persistent session continues at once, or is dropped.
        if cause != EndCause::TakenOver {
            match expiry {
                0 => self.drop_persistent(&name),
                NEVER => {}
                _ => self.notices.push(Notice::Away { realm: name.0, client: name.1 }),
            }
        }
        expiry
    }

    /// The connection of a session ends. Subscribers see the event if the session ends with it, but not if the
    /// session was already over.
    pub(super) fn detach(&mut self, session: SessionId, detach: Detach) -> bool {
        let Detach { drop_will, expiry, progress } = detach;
        if let Some((name, state)) = self.attached_to(session) {
            let mut persistent = state.persistent.clone();
            // An expiry of zero can't be raised when the client disconnects (MQTT 5 section 3.14.2.2.2).
            persistent.expiry =
                expiry.filter(|_| persistent.expiry > 0).unwrap_or(persistent.expiry);
            persistent.progress = progress;
            persistent.awaited = None;
            self.set_persistent(&name, persistent);
        } else if let Some(name) = self.persistent.awaited.get(&session).cloned() {
            self.release(&name, progress);
        }
        self.end_session(session, EndCause::Left { drop_will })
    }

    /// A session that was taken over has sent its last word. With `ends`, the persistent session was to end with that
    /// connection; otherwise it continues. A session that was never open has made no progress.
    pub(super) fn release_from(
        &mut self,
        session: SessionId,
        ends: bool,
        progress: Option<Progress>,
    ) {
        let Some(name) = self.persistent.awaited.get(&session).cloned() else { return };
        let Some(state) = self.persistent.states.get(&name) else { return };
        if !ends {
            let progress = progress.unwrap_or_else(|| state.persistent.progress.clone());
            return self.release(&name, progress);
        }
        // The waiting session begins with an empty persistent session.
        let texts: Vec<String> = state.filters.keys().cloned().collect();
        let persistent = PersistentSession { resumed: false, ..state.persistent.clone() };
        texts.into_iter().for_each(|text| self.remove_filter(&name, text));
        self.drop_exchanges(&name);
        self.set_persistent(&name, persistent);
        let anew = Progress { sent: self.position, in_flight: Vec::new(), doubt: Position(0) };
        self.release(&name, anew);
    }

    /// A session that was taken over has reported its progress.
    fn release(&mut self, name: &Name, progress: Progress) {
        let Some(state) = self.persistent.states.get(name) else { return };
        let persistent = PersistentSession { awaited: None, progress, ..state.persistent.clone() };
        // The session that waited may have ended already.
        let waits = persistent.attached.map(|session| Notice::Released { session });
        self.notices.extend(waits);
        self.set_persistent(name, persistent);
    }

    /// Progress of sessions of one entry; subscribers do not see it.
    pub(super) fn progress(
        &mut self,
        (entry, incarnation): (NodeId, Incarnation),
        all: Vec<(SessionId, Progress)>,
    ) -> bool {
        for (session, progress) in all {
            let theirs = self
                .sessions
                .get(&session)
                .is_some_and(|state| (state.entry, state.incarnation) == (entry, incarnation));
            let Some((name, state)) = self.attached_to(session).filter(|_| theirs) else {
                continue;
            };
            // This session begins without the last word of the awaited one.
            let waits = state.persistent.awaited.map(|_| Notice::Released { session });
            let persistent =
                PersistentSession { awaited: None, progress, ..state.persistent.clone() };
            self.notices.extend(waits);
            self.set_persistent(&name, persistent);
        }
        false
    }

    /// A session stores filters; subscribers do not see it.
    pub(super) fn store_filters(
        &mut self,
        incoming: &Incoming<'_>,
        filters: Vec<(String, PersistentSubscription)>,
    ) -> bool {
        let session = incoming.event.publisher;
        let Some((name, _)) = self.attached_to(session) else { return false };
        let from = incoming.at.position.next();
        let mut noted = FilterOutcome::NoRoom;
        if self.persistent.has_room_for(&name, &filters) {
            noted = FilterOutcome::From(from);
            for (text, subscription) in filters {
                let known =
                    self.persistent.states.get(&name).and_then(|state| state.filters.get(&text));
                // Subscribing again only changes options, so no event is missed.
                let from = known.map_or(from, |known| known.from);
                let filter = PersistentFilter { subscription, from };
                let key = Key::PersistentFilter(name.0.clone(), name.1.clone(), text.clone());
                let old = self.persistent.insert_filter(&name, text, filter.clone());
                self.rows.change(&key, old.as_ref(), Some(&filter));
            }
        }
        self.notices.push(Notice::FilterOutcome { session, noted });
        false
    }

    /// A session drops filters; subscribers do not see it.
    pub(super) fn drop_filters(&mut self, incoming: &Incoming<'_>, texts: &[String]) -> bool {
        let session = incoming.event.publisher;
        let Some((name, _)) = self.attached_to(session) else { return false };
        for text in texts {
            self.remove_filter(&name, text.clone());
        }
        let noted = FilterOutcome::From(incoming.at.position.next());
        self.notices.push(Notice::FilterOutcome { session, noted });
        false
    }

    /// A client's persistent session is dropped if it has expired; subscribers do not see it.
    pub(super) fn expire(&mut self, incoming: &Incoming<'_>, expire: Expire) -> bool {
        let name = (incoming.realm.clone(), expire.client);
        let over = |state: &PersistentState| {
            state.persistent.since == expire.since && state.persistent.is_over(self.time)
        };
        if self.persistent.states.get(&name).is_some_and(over) {
            self.drop_persistent(&name);
        }
        false
    }

    /// The persistent session that the session is attached to, as it is now.
    #[must_use]
    pub fn persistent_of(&self, session: SessionId) -> Option<PersistentState> {
        self.attached_to(session).map(|(_, state)| state.clone())
    }

    /// For a client that is away: when its persistent session expires, and the act that drops it.
    #[must_use]
    pub fn expiring(&self, realm: &Realm, client: &str) -> Option<(OrderTime, Expire)> {
        let state = self.persistent.states.get(&(realm.clone(), client.to_owned()))?;
        let expire = Expire { client: client.to_owned(), since: state.persistent.since };
        Some((state.persistent.expires()?, expire))
    }

    /// All persistent sessions, by realm and name.
    pub fn persistent(&self) -> impl Iterator<Item = (&Realm, &str, &PersistentSession)> {
        self.persistent
            .states
            .iter()
            .map(|((realm, client), state)| (realm, client.as_str(), &state.persistent))
    }

    /// How many clients have a persistent session, connected or away.
    #[must_use]
    pub fn persistent_counts(&self) -> PersistentCounts {
        let mut counts = PersistentCounts::default();
        for state in self.persistent.states.values() {
            match state.persistent.attached {
                Some(_) => counts.attached += 1,
                None => counts.away += 1,
            }
        }
        counts
    }

    /// The lowest position in the log that a client which may come back still needs. Waiting publishes, wills and retained
    /// values are in the state itself, and need nothing from the log.
    #[must_use]
    pub fn wanted(&self) -> Option<Position> {
        let states =
            self.persistent.states.values().filter(|state| !state.persistent.is_over(self.time));
        states.filter_map(PersistentState::wanted).min()
    }
}

//! What clients keep beyond their sessions: their filters, and their progress in the log.
//!
//! A client's name has at most one such state in a realm. A session attaches to it. When that session ends, the
//! client is away until another session attaches, at any entry, or until the state expires. A session that takes over
//! from a living one waits for that one's last word on its progress, which comes as the
//! [`Act::Gone`](crate::types::act::Act) of a session that is already over. If it has waited long enough, it says with an
//! [`Act::Progress`](crate::types::act::Act) that it begins without, and begins once that is in the order. So the awaited
//! session is always the last one that sent anything.
//!
//! Invariant: a filter applies from the place in the order where it was requested. Every event before a state's
//! progress was acknowledged by the client, unless it is in flight. The total of all clients is limited.
//!
//! Deliberately absent: events. A client that comes back reads them from the log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{Incarnation, NodeId, OrderTime, Position};
use vulpes_raft::mutant::{planted, Mutant};
use vulpes_raft::wire;

use super::{EndCause, Incoming, Key, Noted, Notice, Realms, SessionState};
use crate::types::act::{Attach, Detach, Expire, KeptSubscription, Progress, NEVER};
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::topic::Realm;

/// A client's name in its realm.
pub(super) type Name = (Realm, String);

/// A client's kept state, besides its filters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Seconds that it is kept while the client is away.
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

/// A filter that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptFilter {
    pub subscription: KeptSubscription,
    /// The first position it covers.
    pub from: Position,
}

/// A client's whole kept state.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptState {
    pub kept: Kept,
    pub filters: BTreeMap<String, KeptFilter>,
    pub(super) bytes: usize,
}

/// How many clients have kept something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptCounts {
    pub attached: u64,
    pub away: u64,
}

/// The kept states of all clients, by name.
#[derive(Debug, Default)]
pub(super) struct KeptTable {
    pub(super) states: BTreeMap<Name, KeptState>,
    /// Sessions that are over and have not reported their progress yet.
    pub(super) awaited: BTreeMap<SessionId, Name>,
    pub(super) filters: usize,
    pub(super) bytes: usize,
}

impl Kept {
    /// When it expires, if the client does not come back.
    fn expires(&self) -> Option<OrderTime> {
        let away = self.attached.is_none() && self.expiry != NEVER;
        away.then(|| OrderTime(self.since.0.saturating_add(u64::from(self.expiry) * 1000)))
    }

    fn is_over(&self, now: OrderTime) -> bool {
        self.expires().is_some_and(|at| at <= now)
    }
}

impl KeptState {
    /// The lowest place in the log that the client still needs.
    fn wanted(&self) -> Option<Position> {
        let progress = &self.kept.progress;
        let in_flight = progress.in_flight.first().map(|first| first.position);
        let first = self.filters.values().map(|filter| filter.from).min();
        let unsent = first.map(|from| from.max(progress.sent));
        in_flight.into_iter().chain(unsent).min()
    }
}

impl KeptTable {
    pub(super) fn load(&mut self, name: Name, kept: Kept) {
        if let Some(awaited) = kept.awaited {
            self.awaited.insert(awaited, name.clone());
        }
        self.bytes += name.1.len();
        match self.states.get_mut(&name) {
            Some(state) => state.kept = kept,
            None => {
                let state = KeptState { kept, filters: BTreeMap::new(), bytes: 0 };
                self.states.insert(name, state);
            }
        }
    }

    /// Rows of filters come after those of their clients.
    pub(super) fn load_filter(
        &mut self,
        name: &Name,
        text: String,
        filter: KeptFilter,
    ) -> Option<()> {
        self.states.contains_key(name).then(|| drop(self.insert_filter(name, text, filter)))
    }

    fn insert_filter(
        &mut self,
        name: &Name,
        text: String,
        filter: KeptFilter,
    ) -> Option<KeptFilter> {
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

    fn remove_filter(&mut self, name: &Name, text: &str) -> Option<KeptFilter> {
        let state = self.states.get_mut(name)?;
        let old = state.filters.remove(text)?;
        let bytes = weight(name, text, &old.subscription);
        state.bytes -= bytes;
        self.bytes -= bytes;
        self.filters -= 1;
        Some(old)
    }

    fn has_room_for(&self, name: &Name, filters: &[(String, KeptSubscription)]) -> bool {
        let bytes: usize = filters.iter().map(|(text, kept)| weight(name, text, kept)).sum();
        self.filters + filters.len() <= limits::KEPT_FILTERS
            && self.bytes + bytes <= limits::KEPT_BYTES
    }
}

/// Bytes that a filter counts for. Its row contains the client's name.
fn weight((_, client): &Name, text: &str, subscription: &KeptSubscription) -> usize {
    client.len() + text.len() + wire::encode(subscription).len()
}

impl Realms {
    /// A session begins that outlives its connection; returns whether subscribers see its event.
    pub(super) fn attach(
        &mut self,
        incoming: &Incoming<'_>,
        place: (NodeId, Incarnation),
        attach: Attach,
    ) -> bool {
        let Attach { join, clean, expiry } = attach;
        let Some(client) = join.client.clone() else { return false };
        let session = incoming.event.publisher;
        if !self.may_join(session, place) {
            return false;
        }
        let name = (incoming.realm.clone(), client);
        let older = self.take_over(&name);
        let over = |state: &KeptState| state.kept.is_over(self.time);
        if clean || self.kept.states.get(&name).is_some_and(over) {
            self.drop_kept(&name);
        }
        self.keep_back(&name);
        let here = incoming.at.position;
        let attached = |kept: Option<&Kept>| Kept {
            expiry,
            attached: Some(session),
            resumed: kept.is_some(),
            awaited: kept.and_then(|kept| kept.awaited.or(older)),
            since: self.time,
            progress: match kept {
                Some(kept) if older.is_some() => {
                    // The older session's last word will say what was sent up to here.
                    let doubt = kept.progress.doubt.max(here);
                    Progress { doubt, ..kept.progress.clone() }
                }
                Some(kept) => kept.progress.clone(),
                None => Progress { sent: here, in_flight: Vec::new(), doubt: Position(0) },
            },
        };
        let old = self.kept.states.get(&name).map(|state| &state.kept);
        // If there is no room, the session begins all the same, but keeps nothing.
        if old.is_some() || expiry > 0 && self.has_room_for_kept(&name) {
            let kept = attached(old);
            self.set_kept(&name, kept);
        }
        self.begin_session(incoming, place, join);
        true
    }

    fn has_room_for_kept(&self, (_, client): &Name) -> bool {
        self.kept.states.len() < limits::KEPT_SESSIONS
            && self.kept.bytes + client.len() <= limits::KEPT_BYTES
    }

    fn set_kept(&mut self, name: &Name, kept: Kept) {
        let old = self.kept.states.get(name).map(|state| state.kept.clone());
        let key = Key::Kept(name.0.clone(), name.1.clone());
        self.rows.change(&key, old.as_ref(), Some(&kept));
        if let Some(old) = old {
            self.forget_kept(name, &old);
        }
        self.kept.load(name.clone(), kept);
    }

    fn forget_kept(&mut self, name: &Name, old: &Kept) {
        self.kept.bytes -= name.1.len();
        if let Some(awaited) = old.awaited {
            self.kept.awaited.remove(&awaited);
        }
    }

    /// Drops a client's kept state. Its will no longer waits for anything.
    pub(super) fn drop_kept(&mut self, name: &Name) {
        let Some(state) = self.kept.states.get(name) else { return };
        let (old, texts) = (state.kept.clone(), state.filters.keys().cloned().collect::<Vec<_>>());
        for text in texts {
            self.remove_filter(name, text);
        }
        self.rows.change(&Key::Kept(name.0.clone(), name.1.clone()), Some(&old), None);
        self.forget_kept(name, &old);
        self.kept.states.remove(name);
        self.hurry(name);
    }

    fn remove_filter(&mut self, name: &Name, text: String) {
        if let Some(old) = self.kept.remove_filter(name, &text) {
            let key = Key::KeptFilter(name.0.clone(), name.1.clone(), text);
            self.rows.change(&key, Some(&old), None);
        }
    }

    /// The state that the session is attached to.
    fn attached_to(&self, session: SessionId) -> Option<(Name, &KeptState)> {
        let state = self.sessions.get(&session)?;
        let name = (state.realm.clone(), state.client.clone()?);
        let kept = self.kept.states.get(&name)?;
        (kept.kept.attached == Some(session)).then_some((name, kept))
    }

    /// A session ends; returns for how many seconds its kept state outlives it.
    pub(super) fn part_from_kept(
        &mut self,
        session: SessionId,
        state: &SessionState,
        cause: EndCause,
    ) -> u32 {
        let Some(client) = &state.client else { return 0 };
        let name = (state.realm.clone(), client.clone());
        let Some(found) = self.kept.states.get(&name) else { return 0 };
        if found.kept.attached != Some(session) {
            return 0;
        }
        let mut kept = found.kept.clone();
        kept.attached = None;
        if !planted(Mutant::ExpireSinceAttached) {
            kept.since = self.time;
        }
        if cause == EndCause::EntryLost {
            // It may have sent everything so far.
            kept.progress.doubt = kept.progress.doubt.max(self.position);
        }
        let expiry = kept.expiry;
        self.set_kept(&name, kept);
        // A state that is taken over continues at once, or is dropped.
        if cause != EndCause::TakenOver {
            match expiry {
                0 => self.drop_kept(&name),
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
            let mut kept = state.kept.clone();
            // A session that was to end with its connection still does (MQTT 5 section 3.14.2.2.2).
            kept.expiry = expiry.filter(|_| kept.expiry > 0).unwrap_or(kept.expiry);
            kept.progress = progress;
            kept.awaited = None;
            self.set_kept(&name, kept);
        } else if let Some(name) = self.kept.awaited.get(&session).cloned() {
            self.release(&name, progress);
        }
        self.end_session(session, EndCause::Left { drop_will })
    }

    /// A session that was taken over has sent its last word. What it kept was to end with its connection, or goes on; one that
    /// was never open has no progress of its own.
    pub(super) fn release_from(
        &mut self,
        session: SessionId,
        ends: bool,
        progress: Option<Progress>,
    ) {
        let Some(name) = self.kept.awaited.get(&session).cloned() else { return };
        let Some(state) = self.kept.states.get(&name) else { return };
        if !ends {
            let progress = progress.unwrap_or_else(|| state.kept.progress.clone());
            return self.release(&name, progress);
        }
        // The session that waits begins anew.
        let texts: Vec<String> = state.filters.keys().cloned().collect();
        let kept = Kept { resumed: false, ..state.kept.clone() };
        texts.into_iter().for_each(|text| self.remove_filter(&name, text));
        self.set_kept(&name, kept);
        let anew = Progress { sent: self.position, in_flight: Vec::new(), doubt: Position(0) };
        self.release(&name, anew);
    }

    /// A session that was taken over has reported its progress.
    fn release(&mut self, name: &Name, progress: Progress) {
        let Some(state) = self.kept.states.get(name) else { return };
        let kept = Kept { awaited: None, progress, ..state.kept.clone() };
        // The session that waited may be gone again.
        let waits = kept.attached.map(|session| Notice::Released { session });
        self.notices.extend(waits);
        self.set_kept(name, kept);
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
            // The awaited session is no longer awaited: this one begins without it.
            let waits = state.kept.awaited.map(|_| Notice::Released { session });
            let kept = Kept { awaited: None, progress, ..state.kept.clone() };
            self.notices.extend(waits);
            self.set_kept(&name, kept);
        }
        false
    }

    /// A session keeps filters; subscribers do not see it.
    pub(super) fn keep_filters(
        &mut self,
        incoming: &Incoming<'_>,
        filters: Vec<(String, KeptSubscription)>,
    ) -> bool {
        let session = incoming.event.publisher;
        let Some((name, _)) = self.attached_to(session) else { return false };
        let from = incoming.at.position.next();
        let mut noted = Noted::NoRoom;
        if self.kept.has_room_for(&name, &filters) {
            noted = Noted::From(from);
            for (text, subscription) in filters {
                let known = self.kept.states.get(&name).and_then(|state| state.filters.get(&text));
                // Subscribing again only changes options, so no event is missed.
                let from = known.map_or(from, |known| known.from);
                let filter = KeptFilter { subscription, from };
                let key = Key::KeptFilter(name.0.clone(), name.1.clone(), text.clone());
                let old = self.kept.insert_filter(&name, text, filter.clone());
                self.rows.change(&key, old.as_ref(), Some(&filter));
            }
        }
        self.notices.push(Notice::Noted { session, noted });
        false
    }

    /// A session drops filters; subscribers do not see it.
    pub(super) fn drop_filters(&mut self, incoming: &Incoming<'_>, texts: &[String]) -> bool {
        let session = incoming.event.publisher;
        let Some((name, _)) = self.attached_to(session) else { return false };
        for text in texts {
            self.remove_filter(&name, text.clone());
        }
        let noted = Noted::From(incoming.at.position.next());
        self.notices.push(Notice::Noted { session, noted });
        false
    }

    /// A client's kept state is dropped if it has expired; subscribers do not see it.
    pub(super) fn expire(&mut self, incoming: &Incoming<'_>, expire: Expire) -> bool {
        let name = (incoming.realm.clone(), expire.client);
        let over =
            |state: &KeptState| state.kept.since == expire.since && state.kept.is_over(self.time);
        if self.kept.states.get(&name).is_some_and(over) {
            self.drop_kept(&name);
        }
        false
    }

    /// The current state that the session is attached to.
    #[must_use]
    pub fn kept_by(&self, session: SessionId) -> Option<KeptState> {
        self.attached_to(session).map(|(_, state)| state.clone())
    }

    /// The state of a client that is away, and when it expires.
    #[must_use]
    pub fn expiring(&self, realm: &Realm, client: &str) -> Option<(OrderTime, Expire)> {
        let state = self.kept.states.get(&(realm.clone(), client.to_owned()))?;
        let expire = Expire { client: client.to_owned(), since: state.kept.since };
        Some((state.kept.expires()?, expire))
    }

    /// All kept states, by realm and name.
    pub fn kept(&self) -> impl Iterator<Item = (&Realm, &str, &Kept)> {
        self.kept
            .states
            .iter()
            .map(|((realm, client), state)| (realm, client.as_str(), &state.kept))
    }

    /// How many clients have kept state, connected or away.
    #[must_use]
    pub fn kept_counts(&self) -> KeptCounts {
        let mut counts = KeptCounts::default();
        for state in self.kept.states.values() {
            match state.kept.attached {
                Some(_) => counts.attached += 1,
                None => counts.away += 1,
            }
        }
        counts
    }

    /// The lowest place in the log that a client that may come back still needs. Waiting publishes, wills and
    /// retained values are in the state itself, and need nothing from the log.
    #[must_use]
    pub fn wanted(&self) -> Option<Position> {
        let states = self.kept.states.values().filter(|state| !state.kept.is_over(self.time));
        states.filter_map(KeptState::wanted).min()
    }
}

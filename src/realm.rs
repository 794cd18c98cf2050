//! The realms' state: a fold of the log.
//!
//! Every node applies the same slots in the same order, and comes to the same retained values, sessions and decisions
//! about conditional publishes, whatever its clock says.
//!
//! Some decisions need a further publish (a will, a waiting publish whose turn has come). A node publishes it as a separate
//! event, so that everything subscribers see has a position in the log. The state names what has to be published, and by which
//! entry. An event that comes a second time, or too late, is hidden.
//!
//! Invariant: pure and deterministic. Applying equal slots gives equal rows and an equal [`StateHash`], however often
//! the state was stored and loaded in between.
//!
//! Deliberately absent: disks (`storage`), sockets and clocks, and carrying out what a [`Notice`] asks for
//! (`server`).
//!
//! In reading order: `value`, `retained`, `rows`, `lines` (waiting publishes), `sessions`, `persistent` (what outlives
//! sessions), `exchanges` (QoS 2), `registrations`, `grants` (users and roles), `access` (users), `roles`, `past`, `bans`, `audit` (what is remembered of
//! changes of these), `head` (where the retained log begins).

mod access;
mod audit;
mod bans;
mod exchanges;
mod grants;
mod head;
mod lines;
mod notices;
mod past;
mod persistent;
mod reading;
mod registrations;
mod retained;
mod roles;
mod rows;
mod sessions;
mod shared;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use vulpes_raft::ids::{Incarnation, NodeId, OrderTime, Position, Slot};
use vulpes_raft::mutant::{planted, Mutant};
use vulpes_raft::net::wire;
use vulpes_raft::order::{Resolution, Step};

use crate::payload;
use crate::segment::{Segment, StoredEvent};
use crate::types::act::{Act, DueId, Terms};
use crate::types::event::{Payload, SessionId};
use crate::types::head::Head;
use crate::types::row::{BadRow, Change, FromRows};
use crate::types::topic::{Realm, Topic};

pub use notices::{Decision, FilterOutcome, Notice};
pub use past::PastPermissions;
pub use persistent::{PersistentCounts, PersistentFilter, PersistentSession, PersistentState};
pub use reading::{ReadValue, Unread};
pub use registrations::{Callee, Place, Registration};
pub use retained::{At, Bond, Found, Retained, RetainedMap};
pub use rows::StateHash;
pub use sessions::{Due, EndCause, SessionState};
pub use shared::SharedRealms;
pub use value::{fits, merged, Compared};

use access::Access;
use audit::Audit;
use bans::Bans;
use lines::Line;
use persistent::PersistentTable;
use reading::ReadValues;
use registrations::Registrations;
use rows::{Key, Rows};

/// The outcome of applying a slot.
#[derive(Debug, Default)]
pub struct Applied {
    /// Offsets of events that subscribers never see, ascending.
    pub hidden: Vec<u32>,
    /// Rows that changed.
    pub changes: Vec<Change>,
    pub notices: Vec<Notice>,
}

/// The retained values of all realms before a slot.
#[derive(Clone, Debug)]
pub struct View {
    /// It contains everything before this slot, and nothing from it on.
    pub next: Slot,
    /// The position that the next event gets.
    pub position: Position,
    realms: OrdMap<Realm, RetainedMap>,
}

impl View {
    /// A realm's retained values.
    #[must_use]
    pub fn realm(&self, realm: &Realm) -> RetainedMap {
        self.realms.get(realm).cloned().unwrap_or_default()
    }
}

/// The state of all realms.
#[derive(Debug)]
pub struct Realms {
    next: Slot,
    position: Position,
    /// The order's time at the last slot, which decides everything that waits for time to pass.
    time: OrderTime,
    retained: OrdMap<Realm, RetainedMap>,
    lines: BTreeMap<(Realm, Topic), Line>,
    sessions: BTreeMap<SessionId, SessionState>,
    /// Client names of sessions.
    names: BTreeMap<Realm, BTreeMap<Arc<str>, SessionId>>,
    /// Topics whose value is bound to a session.
    bonds: BTreeMap<SessionId, BTreeSet<(Realm, Topic)>>,
    /// Waiting publishes of a session.
    waits: BTreeMap<SessionId, BTreeSet<(Realm, Topic, Position)>>,
    entries: BTreeMap<NodeId, Incarnation>,
    due: BTreeMap<DueId, Due>,
    /// The publishes in `due`, by the names of the clients that left them.
    left: BTreeMap<(Realm, String), BTreeSet<DueId>>,
    head: Head,
    registrations: Registrations,
    persistent: PersistentTable,
    access: Access,
    bans: Bans,
    audit: Audit,
    rows: Rows,
    /// Large values that have been decoded.
    read: ReadValues,
    notices: Vec<Notice>,
}

/// An event while it is applied.
struct Incoming<'a> {
    realm: &'a Realm,
    topic: &'a Topic,
    event: &'a StoredEvent,
    at: At,
}

impl Default for Realms {
    fn default() -> Self {
        Self {
            next: Slot(1),
            position: Position(1),
            time: OrderTime(0),
            retained: OrdMap::new(),
            lines: BTreeMap::new(),
            sessions: BTreeMap::new(),
            names: BTreeMap::new(),
            bonds: BTreeMap::new(),
            waits: BTreeMap::new(),
            entries: BTreeMap::new(),
            due: BTreeMap::new(),
            left: BTreeMap::new(),
            head: Head::default(),
            registrations: Registrations::default(),
            persistent: PersistentTable::default(),
            access: Access::default(),
            bans: Bans::default(),
            audit: Audit::default(),
            rows: Rows::default(),
            read: ReadValues::default(),
            notices: Vec::new(),
        }
    }
}

impl FromRows for Realms {
    fn from_rows(
        tail: Option<&Resolution>,
        rows: impl IntoIterator<Item = (Bytes, Bytes)>,
    ) -> Result<Self, BadRow> {
        let mut realms = Self::default();
        if let Some(tail) = tail {
            let again = planted(Mutant::ApplyTwiceOnReplay);
            realms.next = if again { tail.slot } else { tail.slot.next() };
            realms.position = if again { tail.base } else { tail.end() };
            realms.time = tail.time();
        }
        for (key, value) in rows {
            realms.rows.loaded(&key, &value);
            realms.load_row(&key, &value).ok_or(BadRow)?;
        }
        Ok(realms)
    }
}

impl Realms {
    fn load_row(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match wire::decode(key).ok()? {
            Key::Entry(entry) => {
                self.entries.insert(entry, wire::decode(value).ok()?);
            }
            Key::Session(session) => {
                self.insert_session(session, wire::decode(value).ok()?);
            }
            Key::Retained(realm, topic) => {
                let retained = Retained::load(value)?;
                self.note_bond(&realm, &topic, None, Some(&retained));
                let topics = self.retained.entry(realm).or_default();
                topics.insert(topic, Arc::new(retained));
            }
            Key::Waiter(realm, topic, position) => {
                let waiter: lines::Waiter = wire::decode(value).ok()?;
                self.insert_waiter(realm, topic, position, waiter);
            }
            Key::Due(id) => self.insert_due(id, wire::decode(value).ok()?),
            Key::Head => self.head = wire::decode(value).ok()?,
            Key::Registration(realm, matching, procedure) => {
                let place = Place { realm, matching, procedure };
                self.registrations.load(place, wire::decode(value).ok()?);
            }
            Key::PersistentSession(realm, client) => {
                self.persistent.load((realm, client), wire::decode(value).ok()?);
            }
            Key::User(name) => self.access.load_user(name, wire::decode(value).ok()?),
            Key::SessionUser(session) => {
                self.access.load_session(session, wire::decode(value).ok()?);
            }
            Key::Role(name) => self.access.now.roles.load(name, wire::decode(value).ok()?),
            Key::Ruled => self.access.ruled = true,
            Key::DueUser(id) => {
                self.access.due_users.insert(id, wire::decode(value).ok()?);
            }
            Key::Ban(target) => self.bans.load(target, wire::decode(value).ok()?),
            Key::Audit(at) => self.audit.load(at, wire::decode(value).ok()?),
            Key::AuditFrom => self.audit.load_from(wire::decode(value).ok()?),
            Key::Received(realm, client, packet_id) => {
                self.persistent.load_received(&(realm, client), packet_id)?;
            }
            Key::PersistentFilter(realm, client, text) => {
                self.persistent.load_filter(&(realm, client), text, wire::decode(value).ok()?)?;
            }
        }
        Some(())
    }

    /// Applies the next slot.
    ///
    /// # Panics
    /// If it is not the next one: the caller follows the order.
    pub fn apply(&mut self, resolution: &Resolution, segment: Option<&Segment>) -> Applied {
        assert_eq!(resolution.slot, self.next, "slots are applied densely and in order");
        self.time = resolution.time();
        if planted(Mutant::ExpireByTheStamp) {
            self.time = OrderTime(resolution.stamp.0);
        }
        let mut hidden = Vec::new();
        match &resolution.step {
            Step::Opened { entry, incarnation } => {
                let old = self.entries.insert(*entry, *incarnation);
                self.rows.change(&Key::Entry(*entry), old.as_ref(), Some(incarnation));
                self.end_sessions_of(*entry, |of| of < *incarnation);
            }
            Step::Closed { entry, incarnation, .. } => {
                if self.entries.get(entry).is_some_and(|open| open <= incarnation) {
                    let old = self.entries.remove(entry);
                    self.rows.change(&Key::Entry(*entry), old.as_ref(), None);
                }
                self.end_sessions_of(*entry, |of| of <= *incarnation);
            }
            Step::Segment(_) => {
                if let Some(segment) = segment.filter(|segment| segment.touches_state()) {
                    self.apply_segment(resolution, segment, &mut hidden);
                }
            }
        }
        self.next = resolution.slot.next();
        self.position = resolution.end();
        let changes = self.rows.take();
        Applied { hidden, changes, notices: std::mem::take(&mut self.notices) }
    }

    /// Applies the next slot, with the values that have been decoded for it.
    pub(super) fn apply_with(
        &mut self,
        (resolution, segment): (&Resolution, Option<&Segment>),
        read: Vec<ReadValue>,
    ) -> Applied {
        read.into_iter().for_each(|read| self.read.put(read));
        self.apply(resolution, segment)
    }

    fn apply_segment(&mut self, resolution: &Resolution, segment: &Segment, hidden: &mut Vec<u32>) {
        for event in segment.events() {
            if !event.retain && event.act.is_empty() {
                continue;
            }
            let (realm, topic) = &segment.topics()[event.topic as usize];
            let at = At {
                position: Position(resolution.base.0 + u64::from(event.offset)),
                slot: resolution.slot,
                stamp: resolution.stamp,
                offset: event.offset,
            };
            let incoming = Incoming { realm, topic, event: &event, at };
            let shown = if event.act.is_empty() {
                self.publish(&incoming, &Terms::default());
                true
            } else {
                self.act(&incoming, segment)
            };
            if !shown && !planted(Mutant::ShowRefused) {
                hidden.push(event.offset);
            }
        }
        self.trim_read();
    }

    /// Applies an event's act; returns whether subscribers see the event.
    fn act(&mut self, incoming: &Incoming<'_>, segment: &Segment) -> bool {
        let id = segment.id();
        let place = (id.entry, id.incarnation);
        match Act::decode(&incoming.event.act) {
            Some(Act::Publish(terms)) => self.publish_on_terms(incoming, &terms),
            Some(Act::Granted { waiting, terms }) => self.granted(incoming, waiting, &terms),
            Some(Act::Due(id)) => self.publish_due(incoming, id),
            Some(Act::Join(join)) => self.join(incoming, place, join),
            Some(Act::Leave(leave)) => {
                let cause = EndCause::Left { drop_will: leave.drop_will };
                self.end_session(incoming.event.publisher, cause)
            }
            Some(Act::Release { slot, position }) => {
                let end = Head { slot: incoming.at.slot, position: incoming.at.position };
                self.move_head(Head { slot, position }, end);
                false
            }
            Some(Act::Register(register)) => {
                self.register(incoming, register);
                false
            }
            Some(Act::Unregister(id)) => {
                self.unregister(incoming, id);
                false
            }
            Some(Act::Attach(attach)) => self.attach(incoming, place, attach),
            Some(Act::Detach(detach)) => self.detach(incoming.event.publisher, detach),
            Some(Act::Subscribe(filters)) => self.store_filters(incoming, filters),
            Some(Act::Unsubscribe(texts)) => self.drop_filters(incoming, &texts),
            Some(Act::Progress(progress)) => self.progress(place, progress),
            Some(Act::Expire(expire)) => self.expire(incoming, expire),
            Some(Act::Gone(gone)) => self.gone(incoming.event.publisher, gone),
            Some(Act::ChangeUsers(change)) => {
                self.change_users(incoming, change);
                false
            }
            Some(Act::ChangeRoles(change)) => {
                self.change_roles(incoming, change);
                false
            }
            Some(Act::Administer(change)) => {
                self.administer(incoming, change);
                false
            }
            Some(Act::Once { packet_id, terms }) => self.publish_once(incoming, packet_id, &terms),
            Some(Act::Complete { packet_id }) => {
                self.complete(incoming, packet_id);
                false
            }
            // A newer release may have acts that this one does not know.
            None => false,
        }
    }

    /// Publishes an event: subscribers see it, and its topic retains it if it is marked so.
    fn publish(&mut self, incoming: &Incoming<'_>, terms: &Terms) {
        if incoming.event.retain {
            self.retain(incoming, terms);
        }
    }

    fn retain(&mut self, incoming: &Incoming<'_>, terms: &Terms) {
        let Incoming { realm, topic, event, at } = *incoming;
        let old = self.retained.get(realm).and_then(|topics| topics.get(topic)).cloned();
        let new = self.new_payload(incoming, terms, old.as_deref());
        let bond = |will: &Payload| Bond { session: event.publisher, will: copied(will) };
        let new = new.map(|payload| Retained {
            at,
            publisher: event.publisher,
            disclose_me: event.disclose_me,
            qos: event.qos,
            payload,
            properties: Bytes::copy_from_slice(&event.properties),
            bound: terms.will.as_ref().map(bond),
            client: event.client,
            extensions: event.extensions.copied(),
        });
        let key = Key::Retained(realm.clone(), topic.clone());
        if old.is_some() || new.is_some() {
            self.rows.change(&key, old.as_deref(), new.as_ref());
        }
        self.note_bond(realm, topic, old.as_deref(), new.as_ref());
        // Changed in place: values that no reader holds are not copied.
        if let Some(new) = new {
            let topics = self.retained.entry(realm.clone()).or_default();
            topics.insert(topic.clone(), Arc::new(new));
        } else if let Some(topics) = self.retained.get_mut(realm) {
            topics.remove(topic);
            if topics.is_empty() {
                self.retained.remove(realm);
            }
        }
        self.wake(realm, topic);
    }

    fn note_bond(
        &mut self,
        realm: &Realm,
        topic: &Topic,
        old: Option<&Retained>,
        new: Option<&Retained>,
    ) {
        let session_of = |retained: Option<&Retained>| {
            retained.and_then(|retained| retained.bound.as_ref()).map(|bond| bond.session)
        };
        let (old, new) = (session_of(old), session_of(new));
        if old == new {
            return;
        }
        let place = (realm.clone(), topic.clone());
        if let Some(old) = old {
            if let Some(bonds) = self.bonds.get_mut(&old) {
                bonds.remove(&place);
                if bonds.is_empty() {
                    self.bonds.remove(&old);
                }
            }
        }
        if let Some(new) = new {
            self.bonds.entry(new).or_default().insert(place);
        }
    }

    /// The payload that a topic retains from an event; `None` if the event deletes the value.
    fn new_payload(
        &mut self,
        incoming: &Incoming<'_>,
        terms: &Terms,
        old: Option<&Retained>,
    ) -> Option<Payload> {
        let payload = &incoming.event.payload;
        if payload::is_nothing(payload) {
            return None;
        }
        // Merging would lose a field that restricts who may see the old value, and show the value to all subscribers.
        let Some(old) = old.filter(|old| terms.merge && !old.extensions.is_critical()) else {
            return Some(copied(payload));
        };
        let place = (incoming.realm.clone(), incoming.topic.clone());
        let read = self.read.take(&place, old.at);
        let value = read.unwrap_or_else(|| payload::value(&old.payload));
        let merged = value::merged_payload(value, payload);
        Some(copied(merged.as_ref().unwrap_or(payload)))
    }

    /// How many retained values change when a session ends.
    #[must_use]
    pub fn wills(&self, session: SessionId) -> usize {
        self.bonds.get(&session).map_or(0, BTreeSet::len)
    }

    /// The next slot to apply.
    #[must_use]
    pub fn next(&self) -> Slot {
        self.next
    }

    /// The order's time at the last slot that was applied.
    #[must_use]
    pub fn time(&self) -> OrderTime {
        self.time
    }

    /// The hash of all rows.
    #[must_use]
    pub fn hash(&self) -> StateHash {
        self.rows.hash()
    }

    /// The retained values as they are now.
    #[must_use]
    pub fn view(&self) -> View {
        View { next: self.next, position: self.position, realms: self.retained.clone() }
    }

    /// How many topics have a retained value, over all realms.
    #[must_use]
    pub fn retained(&self) -> usize {
        self.retained.values().map(RetainedMap::len).sum()
    }

    /// A session that has joined and not ended.
    #[must_use]
    pub fn session(&self, session: SessionId) -> Option<&SessionState> {
        self.sessions.get(&session)
    }

    /// All sessions, by their numbers.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &SessionState)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// How many conditional publishes are waiting.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.waits.values().map(BTreeSet::len).sum()
    }

    /// The open entries.
    pub fn entries(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.entries.keys().copied()
    }

    /// The open entries, each with its incarnation.
    pub fn incarnations(&self) -> impl Iterator<Item = (NodeId, Incarnation)> + '_ {
        self.entries.iter().map(|(entry, incarnation)| (*entry, *incarnation))
    }

    /// The pending publish with this name.
    #[must_use]
    pub fn due_of(&self, id: DueId) -> Option<&Due> {
        self.due.get(&id)
    }

    /// All pending publishes that sessions left.
    pub fn due(&self) -> impl Iterator<Item = (DueId, &Due)> {
        self.due.iter().map(|(id, due)| (*id, due))
    }
}

/// A copy of the payload in separate memory: a long-lived value must not keep its segment in memory.
fn copied(payload: &Payload) -> Payload {
    Payload {
        encoding: payload.encoding,
        args: Bytes::copy_from_slice(&payload.args),
        kwargs: Bytes::copy_from_slice(&payload.kwargs),
    }
}

//! The sessions of an entry node: passes on what the realms' state signals about one session to that session, and about all to
//! the node's calls, and publishes what sessions have left to be published.
//!
//! Every entry node is notified of everything that is due. They take turns, so that usually only one of them publishes: the
//! entry of the session that waits for it, else the entry that the session was at, then the others in the order of their
//! numbers. An entry that is known to be closed has no turn. If something is published twice, the state hides the second event.
//!
//! Invariant: from its registration on, a session gets all signals that concern it, in the order of the log. The channel of a
//! session that is too slow to take them is closed.
//!
//! Deliberately absent: sessions' own events, which they hand to the entry themselves.

mod mailbox;
mod order_now;
mod upkeep;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use vulpes_raft::ids::{NodeId, OrderTime};

use crate::entry::{Batch, EntryHandle};
use crate::realm::{Due, EndCause, Notice, Realms, SharedRealms};
use crate::session::Signal;
use crate::types::act::{Act, DueId, Progress};
use crate::types::event::{ClientTag, Event, Extensions, SessionId};
use crate::types::topic::Realm;
use mailbox::Slot;
use order_now::OrderNow;
use upkeep::{Moved, Upkeep};

use super::bans::Bans;
use super::calls::Calls;
use super::identity;

pub(crate) use mailbox::Mailbox;

/// How long an entry waits for the one before it to publish what is due.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait for the act `Gone` of a session that was taken over: its client may have withdrawn its will.
const LAST_WORD: Duration = Duration::from_millis(300);

/// How long to wait before publishing again what has had no effect.
const AGAIN: Duration = Duration::from_secs(3);

/// The most events published in one batch.
const DUE_BATCH: usize = 256;

/// The way to each session.
type Sessions = Arc<Mutex<BTreeMap<SessionId, Slot>>>;

/// Passes on signals to the sessions of this node.
#[derive(Clone)]
pub(crate) struct SessionManager {
    sessions: Sessions,
    calls: Calls,
    bans: Bans,
    moved: Moved,
    /// How many sessions have ended, at all nodes.
    ended: Arc<AtomicU64>,
}

impl SessionManager {
    pub(crate) fn new(calls: Calls, bans: Bans) -> Self {
        let (sessions, moved, ended) = (Arc::default(), Moved::default(), Arc::default());
        Self { sessions, calls, bans, moved, ended }
    }

    /// What the node knows for its bans.
    pub(crate) fn bans(&self) -> &Bans {
        &self.bans
    }

    /// How many sessions have ended since the node began, at all nodes.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<SessionId, Slot>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on, a session gets its signals. The channel closes if the session is too slow.
    pub(crate) fn register(&self, session: SessionId) -> Mailbox {
        let (slot, mailbox) = mailbox::mailbox();
        self.sessions().insert(session, slot);
        if let Some(address) = identity::address() {
            self.bans.note(session, address);
        }
        mailbox
    }

    pub(crate) fn forget(&self, session: SessionId) {
        self.sessions().remove(&session);
        self.moved.forget(session);
        self.bans.forget(session);
    }

    /// Saves a session's progress soon.
    pub(crate) fn save(&self, session: SessionId, realm: Realm, progress: Progress) {
        self.moved.note(session, realm, progress);
    }

    fn tell(&self, session: SessionId, word: Signal) {
        let mut sessions = self.sessions();
        let Some(slot) = sessions.get(&session) else { return };
        if !slot.put(word) {
            sessions.remove(&session);
        }
    }

    /// Passes on the state's notices, for as long as the node lives.
    pub(crate) async fn run(
        self,
        node: NodeId,
        entry: EntryHandle,
        realms: SharedRealms,
        mut notices: mpsc::Receiver<Vec<Notice>>,
    ) {
        let mut time = OrderNow::new(realms.clone());
        let mut upkeep = Upkeep::new(node, realms.clone(), self.moved.clone());
        let mut duties = Duties {
            node,
            realms,
            due: BTreeMap::new(),
            awaited: BTreeMap::new(),
            waits: VecDeque::new(),
        };
        duties.take_up();
        loop {
            time.look();
            let saved = upkeep.next(&time);
            let next = duties.next(&time).map_or(saved, |next| next.min(saved));
            tokio::select! {
                biased;
                heard = notices.recv() => {
                    let Some(heard) = heard else { return };
                    for notice in heard {
                        self.pass_on(notice, &mut duties, &mut upkeep);
                    }
                }
                () = tokio::time::sleep_until(next) => {
                    time.look();
                    let mut events = duties.ready(&time);
                    events.extend(upkeep.ready(&time));
                    if events.is_empty() {
                        continue;
                    }
                    if entry.submit(Batch::own(events)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn pass_on(&self, notice: Notice, duties: &mut Duties, upkeep: &mut Upkeep) {
        match notice {
            Notice::Joined { session } => self.tell(session, Signal::Joined),
            Notice::HeldBack { session } => duties.hurry(session),
            Notice::Ended { session, cause } => {
                self.ended.fetch_add(1, Ordering::Relaxed);
                self.calls.ended(session);
                if cause == EndCause::TakenOver {
                    duties.awaits(session);
                }
                self.tell(session, Signal::Ended(cause));
            }
            Notice::Decided { session, asked, decision } => {
                self.tell(session, Signal::Decided { asked, decision });
            }
            Notice::Turn { session, waiting } => self.tell(session, Signal::Turn { waiting }),
            Notice::FilterOutcome { session, noted } => {
                self.tell(session, Signal::FilterOutcome(noted))
            }
            Notice::Released { session } => self.tell(session, Signal::Released),
            Notice::Withdrawn { session, registration } => {
                self.calls.withdrawn(session, registration);
            }
            Notice::Due(id) => duties.note(id),
            Notice::Confirmed(id) => duties.confirmed(id),
            Notice::Away { realm, client } => upkeep.note(realm, client),
            Notice::AddressesBanned => {
                let banned = self.bans.banned();
                banned.into_iter().for_each(|session| self.tell(session, Signal::AddressBanned));
            }
        }
    }
}

/// What sessions have left to be published, and when it is this node's turn to do it.
struct Duties {
    node: NodeId,
    realms: SharedRealms,
    due: BTreeMap<DueId, Duty>,
    /// Sessions that were taken over a moment ago, and until when to wait for their acts `Gone`.
    awaited: BTreeMap<SessionId, Instant>,
    /// The same, ordered by the end of the wait.
    waits: VecDeque<(Instant, SessionId)>,
}

/// When to look at something due: not before either of the two times.
#[derive(Clone, Copy)]
struct Duty {
    time: OrderTime,
    moment: Instant,
    /// This node publishes it then. Otherwise it becomes due then, and this node's turn is still to be determined.
    turn: bool,
}

impl Duty {
    fn in_turn(moment: Instant) -> Self {
        Self { time: OrderTime(0), moment, turn: true }
    }

    fn at(self, time: &OrderNow) -> Instant {
        if self.time == OrderTime(0) {
            return self.moment;
        }
        self.moment.max(time.at(self.time))
    }
}

impl Duties {
    /// Begins with what was due already.
    fn take_up(&mut self) {
        let ids: Vec<DueId> = self.realms.with(|realms| realms.due().map(|(id, _)| id).collect());
        ids.into_iter().for_each(|id| self.note(id));
    }

    fn note(&mut self, id: DueId) {
        let duty = self.realms.with(|realms| {
            let due = realms.due_of(id)?;
            Some(match due.not_before {
                OrderTime(0) => Duty::in_turn(Instant::now() + self.patience(realms, id, due)),
                time => Duty { time, moment: Instant::now(), turn: false },
            })
        });
        if let Some(duty) = duty {
            self.due.insert(id, duty);
        }
    }

    /// A session waits for what earlier sessions of its client have left: if it is a session of this node, that is published
    /// first.
    fn hurry(&mut self, session: SessionId) {
        let ids: Vec<(DueId, Duration)> = self.realms.with(|realms| {
            let own = realms.session(session).is_some_and(|state| state.entry == self.node);
            let left = realms.left_before(session).filter(|_| own);
            left.filter_map(|id| Some((id, self.last_word(id, realms.due_of(id)?)))).collect()
        });
        let now = Instant::now();
        self.due.extend(ids.into_iter().map(|(id, wait)| (id, Duty::in_turn(now + wait))));
    }

    /// The session that left this has published its act `Gone`: if a session of this node waits for it, it is published at
    /// once.
    fn confirmed(&mut self, id: DueId) {
        self.awaited.remove(&id.session);
        let own = self.realms.with(|realms| {
            realms.due_of(id).is_some_and(|due| realms.awaited_at(due) == Some(self.node))
        });
        if own {
            self.due.insert(id, Duty::in_turn(Instant::now()));
        }
    }

    /// A session was taken over: its client may have disconnected from it properly before that.
    fn awaits(&mut self, session: SessionId) {
        let now = Instant::now();
        while let Some((_, over)) = self.waits.front().filter(|(until, _)| *until <= now) {
            self.awaited.remove(over);
            self.waits.pop_front();
        }
        self.waits.push_back((now + LAST_WORD, session));
        self.awaited.insert(session, now + LAST_WORD);
    }

    /// How long to wait because the session that left this may still withdraw it.
    fn last_word(&self, id: DueId, due: &Due) -> Duration {
        let until = self.awaited.get(&id.session).filter(|_| !due.bound);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// How long this node leaves it to others.
    fn patience(&self, realms: &Realms, id: DueId, due: &Due) -> Duration {
        let foremost = realms.awaited_at(due).unwrap_or(due.entry);
        self.last_word(id, due) + PATIENCE * turn(realms, self.node, Some(foremost))
    }

    fn next(&self, time: &OrderNow) -> Option<Instant> {
        self.due.values().map(|duty| duty.at(time)).min()
    }

    /// What to publish now. Each is published again later, in case that this has no effect.
    fn ready(&mut self, time: &OrderNow) -> Vec<Event> {
        let now = Instant::now();
        let ready = self.due.iter().filter(|(_, duty)| duty.at(time) <= now);
        let ready: Vec<(DueId, bool)> = ready.map(|(id, duty)| (*id, duty.turn)).collect();
        let mut events = Vec::new();
        for (id, its_turn) in ready.into_iter().take(DUE_BATCH) {
            let found = self.realms.with(|realms| {
                let due = realms.due_of(id)?;
                let wait = if its_turn { Duration::ZERO } else { self.patience(realms, id, due) };
                Some((due.clone(), wait))
            });
            match found {
                None => drop(self.due.remove(&id)),
                Some((due, wait)) if wait.is_zero() => {
                    self.due
                        .insert(id, Duty { time: due.not_before, ..Duty::in_turn(now + AGAIN) });
                    events.push(event(id, due));
                }
                Some((_, wait)) => drop(self.due.insert(id, Duty::in_turn(now + wait))),
            }
        }
        events
    }
}

/// How many entries come before this node in publishing what is due, with `foremost` first; all of them if the node is no open
/// entry.
pub(crate) fn turn(realms: &Realms, node: NodeId, foremost: Option<NodeId>) -> u32 {
    let mut entries: Vec<NodeId> = realms.entries().collect();
    entries.sort_by_key(|entry| (Some(*entry) != foremost, *entry));
    let turn = entries.iter().position(|entry| *entry == node).unwrap_or(entries.len());
    u32::try_from(turn).unwrap_or(u32::MAX)
}

fn event(id: DueId, due: Due) -> Event {
    let client = due.client.as_deref().map_or(ClientTag::NONE, ClientTag::of);
    Event {
        realm: due.realm,
        topic: due.topic,
        publisher: id.session,
        client,
        exclude_me: false,
        disclose_me: false,
        retain: due.retain,
        qos: due.qos,
        payload: due.payload,
        properties: due.properties,
        act: Act::Due(id).encode(),
        extensions: Extensions::default(),
    }
}

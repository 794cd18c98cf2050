//! Distributes events: the node's live subscriptions, matched once per segment.
//!
//! A subscription is either here, or its session reads the log by itself; never both. A session whose mailbox is full
//! leaves the index at that slot, and comes back with [`Dispatcher::join`] when it has caught up. A mailbox does not keep its
//! segments in memory, so a slow subscriber costs no more than its place in the log.
//!
//! Invariant: between joining and leaving, a session gets every slot that holds an event for it, in order, once.
//!
//! Deliberately absent: reading the log, and what a session does with an event.

mod index;
mod patterns;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use vulpes_raft::ids::Slot;

use crate::log::Placed;
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::subscription::SubscriptionId;
use crate::types::topic::{Pattern, Realm, Topic};

use index::{Index, Target};
use patterns::Patterns;

/// A segment handed to a session, with its hits.
#[derive(Debug, Clone)]
pub struct Handed {
    pub slot: Slot,
    /// Not kept alive for the session: a slow one may find it gone, and then reads it from the log.
    pub placed: Weak<Placed>,
    pub hits: Hits,
}

/// The topics of a segment's dictionary that have subscriptions, by their numbers, ascending; each with its
/// subscriptions, ascending, too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hits(Vec<(u32, Vec<SubscriptionId>)>);

impl Hits {
    /// The hits of one session's own subscriptions in a segment; `None` if there are none.
    #[must_use]
    pub fn of(topics: &[(Realm, Topic)], realm: &Realm, matcher: &Matcher) -> Option<Self> {
        let mut hits = Self::default();
        for (number, (of, topic)) in (0..).zip(topics) {
            if of != realm {
                continue;
            }
            let ids = matcher.patterns.search(topic);
            if !ids.is_empty() {
                hits.0.push((number, ids));
            }
        }
        (!hits.0.is_empty()).then_some(hits)
    }

    /// The subscriptions that want a topic, by its number in the dictionary.
    #[must_use]
    pub fn on(&self, topic: u32) -> &[SubscriptionId] {
        let found = self.0.binary_search_by_key(&topic, |(number, _)| *number);
        found.map_or(&[], |at| &self.0[at].1)
    }

    /// Adds a subscription that wants a topic, in ascending order of both.
    fn push(&mut self, topic: u32, id: SubscriptionId) {
        match self.0.last_mut() {
            Some((last, ids)) if *last == topic => ids.push(id),
            _ => self.0.push((topic, vec![id])),
        }
    }
}

/// One session's subscriptions, ready to be matched.
#[derive(Debug, Default)]
pub struct Matcher {
    patterns: Patterns<SubscriptionId>,
}

impl Matcher {
    pub fn insert(&mut self, id: SubscriptionId, pattern: &Pattern) {
        self.patterns.insert(pattern, id);
    }

    pub fn remove(&mut self, id: SubscriptionId, pattern: &Pattern) {
        self.patterns.remove(pattern, id);
    }
}

impl<'a> FromIterator<(SubscriptionId, &'a Pattern)> for Matcher {
    fn from_iter<I: IntoIterator<Item = (SubscriptionId, &'a Pattern)>>(all: I) -> Self {
        let mut wanted = Self::default();
        all.into_iter().for_each(|(id, pattern)| wanted.insert(id, pattern));
        wanted
    }
}

/// A session's request to join the live stream.
#[derive(Debug)]
pub struct Join {
    pub session: SessionId,
    pub realm: Realm,
    pub subscriptions: Vec<(SubscriptionId, Pattern)>,
    /// The slot up to which the session has read, excluded; `None` to begin with the next one.
    pub at: Option<Slot>,
    /// The session's mailbox, if it has none here yet.
    pub mailbox: Option<Mailbox>,
}

/// The dispatcher's end of a session's mailbox. It is closed when it is full, and then holds the first slot that is
/// missing from it.
#[derive(Debug, Clone)]
pub struct Mailbox {
    sender: mpsc::Sender<Handed>,
    left_at: Arc<AtomicU64>,
}

/// The session's end of its mailbox.
#[derive(Debug)]
pub struct Deliveries {
    receiver: mpsc::Receiver<Handed>,
    left_at: Arc<AtomicU64>,
}

/// A mailbox's value if its session was not put out of the live stream: slots begin with 1.
const NOT_LEFT: Slot = Slot(0);

/// A mailbox with the named limit.
#[must_use]
pub fn mailbox() -> (Mailbox, Deliveries) {
    let (sender, receiver) = mpsc::channel(limits::SESSION_DELIVERIES);
    let left_at = Arc::new(AtomicU64::new(NOT_LEFT.0));
    (Mailbox { sender, left_at: left_at.clone() }, Deliveries { receiver, left_at })
}

impl Deliveries {
    /// The next segment; `None` when the mailbox was closed and is empty.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Handed>> {
        self.receiver.poll_recv(context)
    }

    /// Whether it is empty, and will get the next slots. A pending poll does not prove that: a task that has used up its turn
    /// gets `Pending` even if its mailbox is full.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.receiver.is_closed() && self.receiver.is_empty()
    }

    /// After the mailbox was closed: the first slot that is missing from it; `None` if the dispatcher itself has ended.
    #[must_use]
    pub fn left_at(&self) -> Option<Slot> {
        Some(Slot(self.left_at.load(Ordering::Acquire))).filter(|slot| *slot != NOT_LEFT)
    }
}

/// The session can't join here: it has to read further by itself, and join again with a new mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the live stream is at slot {next}")]
pub struct JoinError {
    /// Where the live stream is.
    pub next: Slot,
}

/// All live subscriptions of a node.
#[derive(Debug)]
pub struct Dispatcher {
    next: Slot,
    index: Index,
    sessions: BTreeMap<SessionId, Member>,
    /// The last dispatched slots, so that sessions close to the tail can join while it moves.
    last: VecDeque<Weak<Placed>>,
}

#[derive(Debug)]
struct Member {
    realm: Realm,
    mailbox: Mailbox,
    subscriptions: HashMap<SubscriptionId, Pattern>,
}

/// How far behind the tail a joining session may be. Less than its mailbox holds.
const JOIN_GAP: usize = 32;

const _: () = assert!(JOIN_GAP < limits::SESSION_DELIVERIES);

impl Dispatcher {
    /// Without sessions, at a slot.
    #[must_use]
    pub fn new(next: Slot) -> Self {
        let last = VecDeque::with_capacity(JOIN_GAP);
        Self { next, index: Index::default(), sessions: BTreeMap::new(), last }
    }

    /// Adds subscriptions of a session to the live stream; returns the first slot that it gets there.
    ///
    /// # Errors
    /// [`JoinError`] if the session has to read the log up to here first.
    pub fn join(&mut self, join: Join) -> Result<Slot, JoinError> {
        let next = self.next;
        let at = join.at.unwrap_or(next);
        if at > next || next.0 - at.0 > self.last.len() as u64 {
            return Err(JoinError { next });
        }
        let mailbox = match (join.mailbox, self.sessions.get(&join.session)) {
            (Some(mailbox), None) => mailbox,
            (None, Some(member)) => member.mailbox.clone(),
            // It gave up its mailbox, because a segment in it was gone.
            (Some(mailbox), Some(member)) if member.mailbox.sender.is_closed() => {
                self.remove(join.session);
                mailbox
            }
            // Removed for being slow since it last looked, or left over from before: it has to start over.
            (None, None) | (Some(_), Some(_)) => return Err(JoinError { next }),
        };
        let behind = self.last.len() - (next.0 - at.0) as usize;
        let mut missed = Vec::new();
        // A session that joins at the tail has missed nothing; this is the usual case.
        let mut wanted = None;
        for weak in self.last.iter().skip(behind) {
            let placed = weak.upgrade().ok_or(JoinError { next })?;
            let Some(segment) = &placed.segment else { continue };
            let wanted = wanted.get_or_insert_with(|| {
                join.subscriptions.iter().map(|(id, pattern)| (*id, pattern)).collect::<Matcher>()
            });
            if let Some(hits) = Hits::of(segment.topics(), &join.realm, wanted) {
                missed.push(Handed { slot: placed.resolution.slot, placed: weak.clone(), hits });
            }
        }
        // What the session has missed would come behind later slots, and could not be told apart from them if the session falls
        // behind. It reads on until it has missed nothing.
        let is_unread = mailbox.sender.capacity() < mailbox.sender.max_capacity();
        if is_unread && !missed.is_empty() {
            return Err(JoinError { next });
        }
        // Only this side fills the mailbox, so the room seen here is still there below.
        if mailbox.sender.capacity() < missed.len() {
            return Err(JoinError { next });
        }
        for handed in missed {
            // A closed mailbox belongs to a session that ended; its removal is on the way.
            let _ = mailbox.sender.try_send(handed);
        }
        let member = self.sessions.entry(join.session).or_insert_with(|| Member {
            realm: join.realm.clone(),
            mailbox,
            subscriptions: HashMap::new(),
        });
        for (id, pattern) in join.subscriptions {
            self.index.insert(&join.realm, &pattern, Target { session: join.session, id });
            member.subscriptions.insert(id, pattern);
        }
        Ok(at)
    }

    /// Ends one subscription of a session.
    pub fn leave(&mut self, session: SessionId, id: SubscriptionId) {
        if let Some(member) = self.sessions.get_mut(&session) {
            if let Some(pattern) = member.subscriptions.remove(&id) {
                self.index.remove(&member.realm, &pattern, Target { session, id });
            }
        }
    }

    /// Removes a session with all its subscriptions.
    pub fn remove(&mut self, session: SessionId) {
        if let Some(member) = self.sessions.remove(&session) {
            for (id, pattern) in member.subscriptions {
                self.index.remove(&member.realm, &pattern, Target { session, id });
            }
        }
    }

    /// Hands the next slot to all sessions that want it.
    pub fn dispatch(&mut self, placed: &Arc<Placed>) {
        assert_eq!(placed.resolution.slot, self.next, "slots are dispatched densely and in order");
        self.next = self.next.next();
        if self.last.len() == JOIN_GAP {
            self.last.pop_front();
        }
        self.last.push_back(Arc::downgrade(placed));
        let Some(segment) = &placed.segment else { return };
        let topics = segment.topics();
        let mut handed: BTreeMap<SessionId, Hits> = BTreeMap::new();
        for (number, (realm, topic)) in (0..).zip(topics) {
            for target in self.index.find(realm, topic).iter() {
                handed.entry(target.session).or_default().push(number, target.id);
            }
        }
        for (session, hits) in handed {
            let Some(member) = self.sessions.get(&session) else { continue };
            let slot = placed.resolution.slot;
            let handed = Handed { slot, placed: Arc::downgrade(placed), hits };
            if member.mailbox.sender.try_send(handed).is_err() {
                member.mailbox.left_at.store(slot.0, Ordering::Release);
                self.remove(session);
            }
        }
    }

    /// Number of sessions in the live stream.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests;

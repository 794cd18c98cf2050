//! A session's view of the log: its live subscriptions and its replays.
//!
//! A subscription that asks for retained values begins with those, as of one slot, and reads on from that slot.
//!
//! A subscription is live (the dispatcher hands over what matches) or replaying (the session reads the log at its own
//! cursor). A replay that reaches the tail joins the live stream; a session that was put out of the live stream for
//! being slow becomes a replay of all its live subscriptions from that slot on.
//!
//! Slow work is [`Work`], one piece at a time: [`Reader::next`] gives it out, and [`Reader::done`] takes its result.
//!
//! Invariant: a subscription gets each event at or after its start once, in order. Bounded: one read ahead. After
//! [`Step::Wait`] work is under way, or nothing live was found, or there is no room.
//!
//! Deliberately absent: the gate, and the driver that does the work (`server/reader`).

mod persistent;
mod replays;
mod requests;
mod retained;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use vulpes_raft::ids::{Position, Slot};

use crate::dispatch::{Hits, JoinError};
use crate::gate::{PersistentReading, Subscription};
use crate::log::{Placed, ReadError, Start, Tail};
use crate::realm::View;
use crate::types::subscription::{After, SubscribeError, SubscriptionId};
use crate::types::topic::{Pattern, Realm};
use crate::types::value::Value;
use persistent::Cursor;
use replays::{Replay, ReplayId, Replays, AT_CURSOR};
use requests::Working;
pub(crate) use retained::RetainedValues;
use retained::Retaining;

/// The cost of looking at an event, or at a subscription that may match it, in bytes.
pub(crate) const LOOK_TOIL: usize = 16;

/// What a reader uses of its node.
pub(crate) trait Source {
    /// A subscription's share of the room for all of them.
    type Room;

    /// How far the node has read the log.
    fn tail(&self) -> Tail;

    /// The retained values as they are now.
    fn view(&self) -> View;

    /// Room for a subscription of this size, if there is some.
    fn try_room(&self, bytes: usize) -> Result<Self::Room, SubscribeError>;

    /// The next of the live stream. If there is none, the session is woken when there is more.
    fn next_live(&mut self) -> Live;
}

/// What the live stream gives a session.
#[derive(Debug)]
pub(crate) enum Live {
    /// A segment with events for the session; `None` if it is no longer in memory.
    Segment { slot: Slot, placed: Option<Arc<Placed>>, hits: Hits },
    /// The session was put out of the stream at this slot.
    Left(Slot),
    /// The node is ending; nothing more comes.
    Ended,
    /// Nothing for now.
    Nothing,
    /// Nothing for now, and everything before this place was handed over.
    Idle(Start),
}

/// Work that a reader gives out.
#[derive(Debug, PartialEq)]
pub(crate) enum Work {
    /// Find where the log continues after a place.
    StartAfter(After),
    /// Find where the log continues from a position.
    StartAt(Position),
    /// Read some of the log; `later` means that the same read has just failed.
    Read { from: Slot, later: bool },
    /// Wait until this node has read the log up to this slot.
    Reach(Slot),
    /// Join the live stream, with a mailbox if there is none.
    Join { subscriptions: Vec<(SubscriptionId, Pattern)>, at: Option<Slot>, mailbox: bool },
    /// Take a subscription out of the live stream.
    Leave(SubscriptionId),
    /// Wait a little.
    Pause,
}

/// The result of a reader's work.
#[derive(Debug)]
pub(crate) enum Done {
    /// Of [`Work::StartAfter`] and [`Work::StartAt`].
    Start(Result<Start, SubscribeError>),
    Read(Result<Vec<Arc<Placed>>, ReadError>),
    Joined(Result<Slot, JoinError>),
    /// The result of work without an outcome.
    Over,
    /// The node is ending.
    Stopped,
}

/// The reader's next step.
pub(crate) enum Step {
    /// Something for the session.
    Reading(Reading),
    /// Work to be done; none is under way.
    Work(Work),
    /// It has made progress, and there may be more.
    Moved,
    /// Nothing, until an input comes.
    Wait,
}

/// A result for the session.
#[derive(Debug)]
pub(crate) enum Reading {
    Subscribed(SubscriptionId, Result<(), SubscribeError>),
    Unsubscribed(SubscriptionId),
    Ended(SubscriptionId),
    /// A segment with events for the session.
    Segment(Wanted),
    /// A filter change has reached the reader, or (false) there was no room for it.
    FilterOutcome(bool),
    /// Some retained values for the session.
    Retained(RetainedValues),
    /// A segment that the session had dropped and that was read again. The session may no longer need it.
    Back(Arc<Placed>),
    /// A replay reached a place that retention has removed meanwhile.
    Gone,
    /// The node is ending.
    Stopped,
}

/// A segment with what the session wants of it.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) slot: Slot,
    /// `None` if it was dropped, until it is read again.
    pub(crate) placed: Option<Arc<Placed>>,
    pub(crate) hits: Hits,
    /// Events before this position are not wanted.
    pub(crate) from: Position,
    /// The session's cursor is at this segment.
    pub(crate) at_cursor: bool,
}

/// Which of the events that match its pattern a subscription leaves out.
pub(crate) struct EventFilter<R> {
    /// Only events that change a retained value.
    pub(crate) changes_only: bool,
    /// Only events whose value matches.
    pub(crate) filter: Option<Value>,
    /// Only events from here on.
    pub(crate) from: Position,
    /// The subscription's share of the room for all of them at this node. For a persistent session it may be missing: those
    /// have a size limit of their own (`realm`).
    _room: Option<R>,
}

/// A session's subscriptions and where each of them is in the log.
pub(crate) struct Reader<R> {
    realm: Realm,
    /// All subscriptions that have not ended, live or not.
    active: HashMap<SubscriptionId, EventFilter<R>>,
    /// Those that are still getting retained values, in the order of their turns.
    retaining: BTreeMap<SubscriptionId, Retaining>,
    /// Those in the live stream, with the slot from which each of them is in it.
    live: BTreeMap<SubscriptionId, (Pattern, Slot)>,
    /// It has a mailbox in the live stream.
    mailbox: bool,
    replays: Replays,
    asked: VecDeque<ReaderRequest>,
    /// The work in progress.
    working: Option<Box<Working>>,
    /// The work, until it is given out.
    work: Option<Box<Work>>,
    /// The place of a persistent session in the log.
    cursor: Option<Box<Cursor>>,
    /// Whose turn is next, so that live events and replays do not starve each other.
    replay_next: bool,
    /// A segment is being read again.
    again: bool,
}

enum ReaderRequest {
    Subscribe(Subscription),
    Unsubscribe(SubscriptionId),
    /// `noted` is the outcome to report to the session.
    Persist {
        subscribe: Vec<PersistentReading>,
        unsubscribe: Vec<SubscriptionId>,
        noted: Option<bool>,
    },
    /// A segment that was dropped.
    Again(Slot),
}

impl<R> Reader<R> {
    pub(crate) fn new(realm: Realm) -> Self {
        Self {
            realm,
            active: HashMap::new(),
            retaining: BTreeMap::new(),
            live: BTreeMap::new(),
            mailbox: false,
            replays: Replays::default(),
            asked: VecDeque::new(),
            working: None,
            work: None,
            cursor: None,
            replay_next: false,
            again: false,
        }
    }

    /// Bytes of the log that it has read ahead.
    pub(crate) fn ahead(&self) -> usize {
        self.replays.size()
    }

    /// Drops them; they are read again.
    pub(crate) fn let_go(&mut self) {
        self.replays.let_go();
    }

    /// Whether the mailbox in the live stream is still in use. If not, the driver drops it.
    pub(crate) fn has_mailbox(&self) -> bool {
        self.mailbox
    }

    /// Lets go of memory that is free.
    pub(crate) fn rest(&mut self) {
        self.asked.shrink_to_fit();
    }

    /// Reads a segment again that the session has dropped.
    pub(crate) fn read_again(&mut self, slot: Slot) {
        if !std::mem::replace(&mut self.again, true) {
            self.asked.push_back(ReaderRequest::Again(slot));
        }
    }

    pub(crate) fn subscribe(&mut self, subscription: Subscription) {
        self.asked.push_back(ReaderRequest::Subscribe(subscription));
    }

    pub(crate) fn unsubscribe(&mut self, id: SubscriptionId) {
        self.asked.push_back(ReaderRequest::Unsubscribe(id));
    }

    /// Whether a subscription may still be sent events.
    pub(crate) fn is_active(&self, id: SubscriptionId) -> bool {
        self.active.contains_key(&id)
    }

    /// What an active subscription leaves out.
    pub(crate) fn wish(&self, id: SubscriptionId) -> Option<&EventFilter<R>> {
        self.active.get(&id)
    }

    /// Takes one step. Gives segments and values only if `room` says that they can be taken.
    pub(crate) fn next<S: Source<Room = R>>(&mut self, source: &mut S, room: bool) -> Step {
        if let Some(work) = self.work.take() {
            return Step::Work(*work);
        }
        if self.working.is_none() {
            if let Some(asked) = self.asked.pop_front() {
                return self.begin(asked, source).map_or(Step::Moved, Step::Reading);
            }
        }
        if !room {
            return Step::Wait;
        }
        if let Some(reading) = self.next_retained() {
            return Step::Reading(reading);
        }
        if matches!(self.working.as_deref(), Some(Working::Joining { .. })) {
            // Whether the joining subscriptions are live has to be known before the live ones can fall behind. `replay_next`
            // does not change meanwhile, or a failing join could repeat again and again before the live stream gives the
            // reason.
            return Step::Wait;
        }
        self.replay_next = !self.replay_next;
        let step = match self.replay_next {
            true => self.next_of_replay(source).or_else(|| self.next_live(source)),
            false => self.next_live(source).or_else(|| self.next_of_replay(source)),
        };
        step.unwrap_or(Step::Wait)
    }

    /// Continues with the live stream; `None` if it has nothing.
    fn next_live<S: Source<Room = R>>(&mut self, source: &mut S) -> Option<Step> {
        if !self.mailbox {
            return None;
        }
        match source.next_live() {
            Live::Segment { slot, placed: Some(placed), hits } => {
                let from = placed.resolution.base;
                let at_cursor = self.is_live_at_cursor();
                let wanted = Wanted { slot, placed: Some(placed), hits, from, at_cursor };
                Some(Step::Reading(Reading::Segment(wanted)))
            }
            Live::Segment { slot, placed: None, .. } | Live::Left(slot) => {
                self.fall_behind(slot);
                Some(Step::Moved)
            }
            Live::Ended => {
                self.mailbox = false;
                Some(Step::Reading(Reading::Stopped))
            }
            Live::Nothing => None,
            Live::Idle(start) => {
                self.idle_until(start);
                None
            }
        }
    }

    /// Continues as a replay of all subscriptions that were live.
    fn fall_behind(&mut self, next: Slot) {
        self.mailbox = false;
        let at_cursor = self.is_live_at_cursor();
        let live = std::mem::take(&mut self.live);
        let mut replay = Replay { next, sought: true, ..Replay::default() };
        for (id, (pattern, since)) in live {
            // A subscription may have joined when the missing segment was in the mailbox already: it has seen its events, or
            // must not see them. It continues with the others all the same, so that events reach all of them in one order.
            let all = match at_cursor || since <= next {
                true => &mut replay.subscriptions,
                false => replay.later.entry(since).or_default(),
            };
            all.insert(id, pattern);
        }
        if at_cursor {
            self.replays.set_cursor(replay);
        } else {
            self.replays.begin_all(replay);
        }
    }

    /// Continues with the current replay; `None` if there is none, or it has to wait.
    fn next_of_replay<S: Source<Room = R>>(&mut self, source: &S) -> Option<Step> {
        if self.working.is_some() {
            // The work in progress may be for this very replay, and there is one piece of work at a time.
            return None;
        }
        let (id, replay) = self.replays.first()?;
        let at_cursor = id == AT_CURSOR;
        let again = at_cursor && self.cursor.as_deref().is_some_and(Cursor::is_resuming);
        if replay.is_empty() && !again {
            self.replays.end(id);
            return Some(Step::Moved);
        }
        if replay.until.is_some_and(|until| replay.next >= until) {
            return Some(self.end_snapshot(id).map_or(Step::Moved, Step::Reading));
        }
        if let Some(placed) = replay.advance() {
            let topics = placed.segment.as_ref().map_or(&[][..], |segment| segment.topics());
            let from = replay.from;
            let mut hits = replay.hits(topics, &self.realm);
            if at_cursor {
                hits = self.hits_at_cursor(&placed, hits);
            }
            let slot = placed.resolution.slot;
            let placed = Some(placed);
            let wanted = hits.map(|hits| Wanted { slot, placed, hits, from, at_cursor });
            return Some(
                wanted.map_or(Step::Moved, |wanted| Step::Reading(Reading::Segment(wanted))),
            );
        }
        if !self.seek() {
            self.work_on_replay(source.tail().next_slot);
        }
        Some(Step::Moved)
    }

    /// Reads more of the log for the current replay, or lets it join the live stream.
    fn work_on_replay(&mut self, tail: Slot) {
        let Some((id, replay)) = self.replays.first() else { return };
        let next = replay.next;
        replay.reached(next.min(tail));
        // The state and the live stream are a little ahead of the log's tail; asking for it again and again would only slow it
        // down.
        let ahead = replay.later.keys().next_back().copied().unwrap_or(next).max(next);
        if next < tail {
            self.begin_work(Working::Reading(id), Work::Read { from: next, later: false });
        } else if ahead > tail {
            self.begin_work(Working::Reading(id), Work::Reach(Slot(ahead.0 - 1)));
        } else {
            replay.closed = true;
            let subscriptions = replay.subscriptions.clone().into_iter().collect();
            self.join(requests::Joining::Replay(id), subscriptions, Some(next));
        }
    }

    /// A snapshot has ended, and so do its subscriptions, one at a time.
    fn end_snapshot(&mut self, replay: ReplayId) -> Option<Reading> {
        let id = *self.replays.get_mut(replay)?.subscriptions.keys().next()?;
        self.replays.leave(id);
        self.active.remove(&id);
        Some(Reading::Ended(id))
    }
}

#[cfg(test)]
mod tests;

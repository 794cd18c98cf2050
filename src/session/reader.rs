//! A session's view of the log: its live subscriptions and its replays.
//!
//! A subscription that asks for retained values begins with those, as of one slot, and reads on from that slot.
//!
//! A subscription is live (the dispatcher hands over what matches) or replaying (the session reads the log at its own
//! cursor). A replay that reaches the tail joins the live stream; a session that was put out of the live stream for
//! being slow becomes a replay of all its live subscriptions from that slot on.
//!
//! What takes time is [`Work`], one piece at a time: [`Reader::next`] gives it out, and [`Reader::done`] takes what came of it.
//!
//! Invariant: a subscription sees each event at or after its start once, in order. Bounded: one read ahead. Where the reader
//! has nothing more to do ([`Step::Wait`]), its work is under way, or it has found nothing live, or there is no room.
//!
//! Deliberately absent: the gate, and who does the work (`server/reader`).

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

/// What it costs to look at an event, or at a subscription that may be for it, in bytes.
pub(crate) const LOOK_TOIL: usize = 16;

/// What a reader finds at its node.
pub(crate) trait Source {
    /// A subscription's share of the room for all of them.
    type Room;

    /// How far the node has read the log.
    fn tail(&self) -> Tail;

    /// The retained values as they are now.
    fn view(&self) -> View;

    /// Room for a subscription of this size, if there is some.
    fn try_room(&self, bytes: usize) -> Option<Self::Room>;

    /// What the live stream has next. Where that is nothing, somebody wakes the session when there is more.
    fn next_live(&mut self) -> Live;
}

/// What the live stream has for a session.
#[derive(Debug)]
pub(crate) enum Live {
    /// A segment with events for the session; `None` where it is no longer in memory.
    Segment { slot: Slot, placed: Option<Arc<Placed>>, hits: Hits },
    /// The session was put out of the stream at this slot.
    Left(Slot),
    /// The node is ending, and nothing comes any more.
    Ended,
    /// Nothing for now.
    Nothing,
    /// Nothing for now, and all before this place was handed over.
    Idle(Start),
}

/// What a reader asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Work {
    /// Find where the log goes on after a place.
    StartAfter(After),
    /// Find where the log goes on from a position.
    StartAt(Position),
    /// Read some of the log; `later` means that it was asked for in vain just now.
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

/// What came of a reader's work.
#[derive(Debug)]
pub(crate) enum Done {
    /// Of [`Work::StartAfter`] and [`Work::StartAt`].
    Start(Result<Start, SubscribeError>),
    Read(Result<Vec<Arc<Placed>>, ReadError>),
    Joined(Result<Slot, JoinError>),
    /// Of all that has no outcome.
    Over,
    /// The node is ending.
    Stopped,
}

/// What a reader has next.
pub(crate) enum Step {
    /// Something for the session.
    Reading(Reading),
    /// Something to be done; there is none under way.
    Work(Work),
    /// It has got on, and there may be more.
    Moved,
    /// Nothing, until something comes.
    Wait,
}

/// What the reader has for its session.
#[derive(Debug)]
pub(crate) enum Reading {
    Subscribed(SubscriptionId, Result<(), SubscribeError>),
    Unsubscribed(SubscriptionId),
    Ended(SubscriptionId),
    /// A segment with events for the session.
    Segment(Wanted),
    /// What was to be kept or dropped is read, or not any more, or there was no room for it.
    FilterOutcome(bool),
    /// Some retained values for the session.
    Retained(RetainedValues),
    /// The segment that the session had let go of, or another one that took its place meanwhile.
    Back(Arc<Placed>),
    /// A replay came to a place that retention has taken away meanwhile.
    Gone,
    /// The node is ending.
    Stopped,
}

/// A segment with what the session wants of it.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) slot: Slot,
    /// Nothing where it was let go of, until it is read again.
    pub(crate) placed: Option<Arc<Placed>>,
    pub(crate) hits: Hits,
    /// Events before this position are not wanted.
    pub(crate) from: Position,
    /// It is what the session's cursor has come to.
    pub(crate) at_cursor: bool,
}

/// What a subscription leaves out of what fits its pattern.
pub(crate) struct EventFilter<R> {
    /// Only events that change a retained value.
    pub(crate) changes_only: bool,
    /// Only events whose value fits.
    pub(crate) filter: Option<Value>,
    /// Only events from here on.
    pub(crate) from: Position,
    /// What the subscription holds of the room for all of them at this node. A persistent session's is counted as far as there
    /// is room: all of those have a size of their own (`realm`).
    _room: Option<R>,
}

/// A session's subscriptions and where each of them is in the log.
pub(crate) struct Reader<R> {
    realm: Realm,
    /// All subscriptions that have not ended, live or not.
    active: HashMap<SubscriptionId, EventFilter<R>>,
    /// Those on their way through the retained values, in the order in which they take their turn.
    retaining: BTreeMap<SubscriptionId, Retaining>,
    /// Those in the live stream, with the slot from which on each of them is.
    live: BTreeMap<SubscriptionId, (Pattern, Slot)>,
    /// It has a mailbox in the live stream.
    mailbox: bool,
    replays: Replays,
    asked: VecDeque<ReaderRequest>,
    /// What is being worked on.
    working: Option<Working>,
    /// The work, until it is given out.
    work: Option<Work>,
    /// Where a session that outlives its connection is in the log.
    cursor: Option<Cursor>,
    /// Whose turn it is, so that neither live events nor replays starve the other.
    replay_next: bool,
    /// A segment is being read again.
    again: bool,
}

enum ReaderRequest {
    Subscribe(Subscription),
    Unsubscribe(SubscriptionId),
    /// With what the session is to hear of it.
    Persist {
        subscribe: Vec<PersistentReading>,
        unsubscribe: Vec<SubscriptionId>,
        noted: Option<bool>,
    },
    /// A segment that was let go of.
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

    /// Lets go of them: they are read again.
    pub(crate) fn let_go(&mut self) {
        self.replays.let_go();
    }

    /// Whether the mailbox in the live stream is still its own. If not, it is to be dropped.
    pub(crate) fn has_mailbox(&self) -> bool {
        self.mailbox
    }

    /// Has a segment read again that the session has let go of.
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

    /// What a subscription that may be sent events leaves out.
    pub(crate) fn wish(&self, id: SubscriptionId) -> Option<&EventFilter<R>> {
        self.active.get(&id)
    }

    /// Goes one step. Segments and values only come where `room` says that they can be taken.
    pub(crate) fn next<S: Source<Room = R>>(&mut self, source: &mut S, room: bool) -> Step {
        if let Some(work) = self.work.take() {
            return Step::Work(work);
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
        if matches!(self.working, Some(Working::Joining { .. })) {
            // What is joining belongs to the live ones already, or not: that has to be known before they can fall behind. Whose
            // turn it is does not change meanwhile, or a join that fails could come again and again before the live stream
            // says why.
            return Step::Wait;
        }
        self.replay_next = !self.replay_next;
        let step = match self.replay_next {
            true => self.next_of_replay(source).or_else(|| self.next_live(source)),
            false => self.next_live(source).or_else(|| self.next_of_replay(source)),
        };
        step.unwrap_or(Step::Wait)
    }

    /// Goes on with the live stream; `None` where that has nothing.
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

    /// Goes on as a replay of all that was live.
    fn fall_behind(&mut self, next: Slot) {
        self.mailbox = false;
        let at_cursor = self.is_live_at_cursor();
        let live = std::mem::take(&mut self.live);
        let mut replay = Replay { next, sought: true, ..Replay::default() };
        for (id, (pattern, since)) in live {
            // A subscription may have joined when what is missing stood in the mailbox already: it has seen that, or is not to.
            // It goes on with the others all the same, so that events come to all of them in one order.
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

    /// Goes on with the replay that is read now; `None` where there is none, or it has to wait.
    fn next_of_replay<S: Source<Room = R>>(&mut self, source: &S) -> Option<Step> {
        if self.working.is_some() {
            // What is being worked on may be this very replay; and there is one piece of work at a time.
            return None;
        }
        let (id, replay) = self.replays.first()?;
        let at_cursor = id == AT_CURSOR;
        let again = at_cursor && self.cursor.as_ref().is_some_and(Cursor::is_resuming);
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

    /// Reads more of the log for the replay that is read now, or has it join the live stream.
    fn work_on_replay(&mut self, tail: Slot) {
        let Some((id, replay)) = self.replays.first() else { return };
        let next = replay.next;
        replay.reached(next.min(tail));
        // The state, and the live stream, are a little ahead of the log's tail, which asking again and again would only hold up.
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

    /// A snapshot has come to its end: so do its subscriptions, one at a time.
    fn end_snapshot(&mut self, replay: ReplayId) -> Option<Reading> {
        let id = *self.replays.get_mut(replay)?.subscriptions.keys().next()?;
        self.replays.leave(id);
        self.active.remove(&id);
        Some(Reading::Ended(id))
    }
}

#[cfg(test)]
mod tests;

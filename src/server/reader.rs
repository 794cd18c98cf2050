//! A session's view of the log: its live subscriptions and its replays.
//!
//! A subscription that asks for retained values begins with those, as of one slot, and reads on from that slot.
//!
//! A subscription is live (the dispatcher hands over what matches) or replaying (the session reads the log at its own
//! cursor). A replay that reaches the tail joins the live stream; a session that was put out of the live stream for
//! being slow becomes a replay of all its live subscriptions from that slot on.
//!
//! Invariant: a subscription sees each event at or after its start once, in order. Bounded: one read ahead.
//!
//! Deliberately absent: the socket and the gate.

mod kept;
mod replays;
mod retained;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::sync::{mpsc, oneshot, OwnedSemaphorePermit, Semaphore};
use vulpes_raft::ids::{Position, Slot};
use vulpes_raft::mutant::{planted, Mutant};

use crate::dispatch::{mailbox, Deliveries, Handed, Hits, Join, JoinError};
use crate::gate::{most_subscriptions, KeptReading, RetainedMode, Subscription};
use crate::log::{Log, Placed, ReadError, Start, Tail};
use crate::realm::SharedRealms;
use crate::replica::Command;
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::subscription::{After, SubscribeError, SubscriptionId};
use crate::types::topic::{Pattern, Realm};
use crate::types::value::Value;
use kept::Cursor;
use replays::{Replay, ReplayId, Replays, AT_CURSOR};
pub(super) use retained::RetainedValues;
use retained::Retaining;

/// What it costs to look at an event, or at a subscription that may be for it, in bytes.
pub(super) const LOOK_TOIL: usize = 16;

/// How long a replay waits before it reads again where no storage answered.
const RETRY: Duration = Duration::from_millis(200);

/// Steps in one turn that bring nothing for the session, however much there is to be done.
const STEPS_A_TURN: usize = 64;

/// What the reader has for its session.
pub(super) enum Reading {
    Subscribed(SubscriptionId, Result<(), SubscribeError>),
    Unsubscribed(SubscriptionId),
    Ended(SubscriptionId),
    /// A segment with events for the session.
    Segment(Wanted),
    /// What was to be kept or dropped is read, or not any more, or there was no room for it.
    Noted(bool),
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
pub(super) struct Wanted {
    pub(super) slot: Slot,
    /// Nothing where it was let go of, until it is read again.
    pub(super) placed: Option<Arc<Placed>>,
    pub(super) hits: Hits,
    /// Events before this position are not wanted.
    pub(super) from: Position,
    /// It is what the session's cursor has come to.
    pub(super) at_cursor: bool,
}

/// What a subscription leaves out of what fits its pattern.
#[derive(Default)]
pub(super) struct Wish {
    /// Only events that change a retained value.
    pub(super) changes_only: bool,
    /// Only events whose value fits.
    pub(super) filter: Option<Value>,
    /// Only events from here on.
    pub(super) from: Position,
    /// What the subscription holds of the room for all of them at this node. A persistent session's is counted as far as there
    /// is room: all of those have a size of their own (`realm`).
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

/// A session's subscriptions and where each of them is in the log.
pub(super) struct Reader {
    session: SessionId,
    realm: Realm,
    log: Log,
    realms: SharedRealms,
    commands: mpsc::Sender<Command>,
    /// All subscriptions that have not ended, live or not.
    active: HashMap<SubscriptionId, Wish>,
    /// Those on their way through the retained values, in the order in which they take their turn.
    retaining: BTreeMap<SubscriptionId, Retaining>,
    live: BTreeMap<SubscriptionId, Pattern>,
    deliveries: Option<Deliveries>,
    replays: Replays,
    asked: VecDeque<Asked>,
    working: Option<BoxFuture<'static, Done>>,
    /// The work is a join.
    joining: bool,
    /// Where a session that outlives its connection is in the log.
    cursor: Option<Cursor>,
    /// Whose turn it is, so that neither live events nor replays starve the other.
    replay_next: bool,
    /// A segment is being read again.
    again: bool,
    /// The room for subscriptions at this node.
    rooms: Arc<Semaphore>,
}

/// Bytes of the room for subscriptions that one permit stands for.
const ROOM_UNIT: usize = 64;

/// The room for all subscriptions at a node.
pub(super) fn room_for_subscriptions() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(limits::SUBSCRIPTIONS_BYTES / ROOM_UNIT))
}

enum Asked {
    Subscribe(Subscription),
    Unsubscribe(SubscriptionId),
    /// With what the session is to hear of it.
    Keep {
        subscribe: Vec<KeptReading>,
        unsubscribe: Vec<SubscriptionId>,
        noted: Option<bool>,
    },
    /// A segment that was let go of.
    Again(Slot),
}

enum Done {
    /// A replay's start was found, or not.
    Started {
        subscription: Subscription,
        start: Result<Start, SubscribeError>,
    },
    /// Subscriptions joined the live stream, or not; with a new mailbox, if one was offered.
    Joined {
        subscriptions: Joining,
        deliveries: Option<Deliveries>,
        result: Result<Slot, JoinError>,
    },
    Left(SubscriptionId),
    /// More of the log was read for a replay.
    Read(ReplayId, Result<Vec<Arc<Placed>>, ReadError>),
    /// A segment was read again.
    Back(Slot, Result<Vec<Arc<Placed>>, ReadError>),
    /// A place that the session's cursor goes to.
    Sought(Result<Start, SubscribeError>),
    /// What failed may be tried again.
    Again,
    Stopped,
}

enum Joining {
    Fresh(SubscriptionId, Pattern),
    Replay(ReplayId),
}

impl Reader {
    pub(super) fn new(
        session: SessionId,
        realm: Realm,
        (log, realms): (Log, SharedRealms),
        commands: mpsc::Sender<Command>,
        rooms: Arc<Semaphore>,
    ) -> Self {
        Self {
            session,
            realm,
            log,
            realms,
            commands,
            active: HashMap::new(),
            retaining: BTreeMap::new(),
            live: BTreeMap::new(),
            deliveries: None,
            replays: Replays::default(),
            asked: VecDeque::new(),
            working: None,
            joining: false,
            cursor: None,
            replay_next: false,
            again: false,
            rooms,
        }
    }

    /// Bytes of the log that it has read ahead.
    pub(super) fn ahead(&self) -> usize {
        self.replays.size()
    }

    /// Lets go of them: they are read again.
    pub(super) fn let_go(&mut self) {
        self.replays.let_go();
    }

    /// Has a segment read again that the session has let go of.
    pub(super) fn read_again(&mut self, slot: Slot) {
        if !std::mem::replace(&mut self.again, true) {
            self.asked.push_back(Asked::Again(slot));
        }
    }

    pub(super) fn subscribe(&mut self, subscription: Subscription) {
        self.asked.push_back(Asked::Subscribe(subscription));
    }

    pub(super) fn unsubscribe(&mut self, id: SubscriptionId) {
        self.asked.push_back(Asked::Unsubscribe(id));
    }

    /// Whether a subscription may still be sent events.
    pub(super) fn is_active(&self, id: SubscriptionId) -> bool {
        self.active.contains_key(&id)
    }

    /// What a subscription that may be sent events leaves out.
    pub(super) fn wish(&self, id: SubscriptionId) -> Option<&Wish> {
        self.active.get(&id)
    }

    /// The next thing for the session. Segments only come where `room` says that they can be taken.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, room: bool) -> Poll<Reading> {
        for _ in 0..STEPS_A_TURN {
            if let Some(working) = &mut self.working {
                if let Poll::Ready(done) = working.poll_unpin(context) {
                    self.working = None;
                    self.joining = false;
                    if let Some(reading) = self.done(done) {
                        return Poll::Ready(reading);
                    }
                    continue;
                }
            } else if let Some(asked) = self.asked.pop_front() {
                if let Some(reading) = self.begin(asked) {
                    return Poll::Ready(reading);
                }
                continue;
            }
            if !room {
                return Poll::Pending;
            }
            if let Some(reading) = self.next_retained() {
                return Poll::Ready(reading);
            }
            self.replay_next = !self.replay_next;
            let reading = if self.replay_next {
                match self.poll_replay() {
                    Poll::Ready(reading) => reading,
                    Poll::Pending => ready!(self.poll_live(context)),
                }
            } else {
                match self.poll_live(context) {
                    Poll::Ready(reading) => reading,
                    Poll::Pending => ready!(self.poll_replay()),
                }
            };
            if let Some(reading) = reading {
                return Poll::Ready(reading);
            }
        }
        // Others have their turn, this session's own socket among them.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// The next live segment. Ready without one where the state changed and polling goes on.
    fn poll_live(&mut self, context: &mut Context<'_>) -> Poll<Option<Reading>> {
        if self.joining {
            // What is joining belongs to the live ones already, or not: that has to be known before they can fall behind.
            return Poll::Pending;
        }
        let Some(deliveries) = &mut self.deliveries else { return Poll::Pending };
        // Everything before the tail was handed over before the tail was moved on.
        let Tail { next_slot, next_position } = self.log.tail();
        let Poll::Ready(handed) = deliveries.poll_next(context) else {
            if deliveries.is_idle() {
                self.idle_until(Start { slot: next_slot, position: next_position });
            }
            return Poll::Pending;
        };
        match handed {
            Some(Handed { slot, placed, hits }) => match placed.upgrade() {
                Some(placed) => {
                    let from = placed.resolution.base;
                    let at_cursor = self.is_live_at_cursor();
                    let wanted = Wanted { slot, placed: Some(placed), hits, from, at_cursor };
                    Poll::Ready(Some(Reading::Segment(wanted)))
                }
                None => {
                    self.fall_behind(slot);
                    Poll::Ready(None)
                }
            },
            None => {
                let next = deliveries.left_at();
                self.fall_behind(next);
                Poll::Ready(None)
            }
        }
    }

    /// Goes on as a replay of all that was live.
    fn fall_behind(&mut self, next: Slot) {
        self.deliveries = None;
        let at_cursor = self.is_live_at_cursor();
        let subscriptions = std::mem::take(&mut self.live);
        let replay = Replay { subscriptions, next, sought: true, ..Replay::default() };
        if at_cursor {
            self.replays.set_cursor(replay);
        } else {
            self.replays.begin_all(replay);
        }
    }

    /// The next segment of the replay that is read now. Ready without one where the state changed and polling goes on.
    fn poll_replay(&mut self) -> Poll<Option<Reading>> {
        if self.working.is_some() {
            // What is being worked on may be this very replay; and there is one piece of work at a time.
            return Poll::Pending;
        }
        let Some((id, replay)) = self.replays.first() else { return Poll::Pending };
        let at_cursor = id == AT_CURSOR;
        let again = at_cursor && self.cursor.as_ref().is_some_and(Cursor::is_resuming);
        if replay.subscriptions.is_empty() && !again {
            self.replays.end(id);
            return Poll::Ready(None);
        }
        if replay.until.is_some_and(|until| replay.next >= until) {
            return Poll::Ready(self.end_snapshot(id));
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
            return Poll::Ready(wanted.map(Reading::Segment));
        }
        if self.seek() {
            return Poll::Ready(None);
        }
        self.working = self.work_on_replay();
        match self.working {
            Some(_) => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Reads more of the log for the replay that is read now, or has it join the live stream.
    fn work_on_replay(&mut self) -> Option<BoxFuture<'static, Done>> {
        let tail = self.log.tail().next_slot;
        let log = self.log.clone();
        let (id, replay) = self.replays.first()?;
        let next = replay.next;
        Some(if next < tail {
            async move { Done::Read(id, log.read(next).await) }.boxed()
        } else if next > tail {
            // The state is a little ahead of the stream, which asking again and again would only hold up.
            async move {
                log.reached(Slot(next.0 - 1)).await;
                Done::Read(id, Ok(Vec::new()))
            }
            .boxed()
        } else {
            replay.closed = true;
            let subscriptions = replay.subscriptions.clone().into_iter().collect();
            self.join(Joining::Replay(id), subscriptions, Some(next))
        })
    }

    /// A snapshot has come to its end: so do its subscriptions, one at a time.
    fn end_snapshot(&mut self, replay: ReplayId) -> Option<Reading> {
        let id = *self.replays.get_mut(replay)?.subscriptions.keys().next()?;
        self.replays.leave(id);
        self.active.remove(&id);
        Some(Reading::Ended(id))
    }

    /// Room for a subscription, if there is some.
    fn try_room(&self, pattern: &Pattern, filter: Option<&Value>) -> Option<OwnedSemaphorePermit> {
        let bytes = pattern.held() + filter.map_or(0, Value::held) + limits::SUBSCRIPTION_OVERHEAD;
        let permits = u32::try_from(bytes / ROOM_UNIT).ok()?;
        self.rooms.clone().try_acquire_many_owned(permits).ok()
    }

    fn begin(&mut self, asked: Asked) -> Option<Reading> {
        match asked {
            Asked::Keep { subscribe, unsubscribe, noted } => {
                self.begin_keep(subscribe, unsubscribe, noted)
            }
            Asked::Again(slot) => {
                let log = self.log.clone();
                self.working = Some(async move { Done::Back(slot, log.read(slot).await) }.boxed());
                None
            }
            Asked::Unsubscribe(id) => {
                self.active.remove(&id);
                self.retaining.remove(&id);
                self.replays.leave(id);
                if self.live.remove(&id).is_none() {
                    return Some(Reading::Unsubscribed(id));
                }
                let (commands, session) = (self.commands.clone(), self.session);
                self.working = Some(
                    async move {
                        let (answer, answered) = oneshot::channel();
                        let leave = Command::Leave { session, id, answer };
                        if commands.send(leave).await.is_err() || answered.await.is_err() {
                            return Done::Stopped;
                        }
                        Done::Left(id)
                    }
                    .boxed(),
                );
                None
            }
            Asked::Subscribe(subscription) => {
                let id = subscription.id;
                if self.active.len() >= most_subscriptions() {
                    return Some(Reading::Subscribed(id, Err(SubscribeError::TooMany)));
                }
                let is_last = self.active.len() + 1 == most_subscriptions();
                if is_last && planted(Mutant::LoseLastSubscription) {
                    return Some(Reading::Subscribed(id, Ok(())));
                }
                let room = self.try_room(&subscription.pattern, subscription.filter.as_ref());
                if room.is_none() {
                    return Some(Reading::Subscribed(id, Err(SubscribeError::NodeFull)));
                }
                let changes_only = subscription.retained == RetainedMode::Changes;
                let filter = subscription.filter.clone();
                self.active
                    .insert(id, Wish { changes_only, filter, from: Position(0), _room: room });
                if subscription.retained != RetainedMode::None {
                    return self.begin_retained(subscription);
                }
                let beginning = subscription.snapshot.then_some(After::Position(Position(0)));
                self.working = Some(if let Some(after) = subscription.after.or(beginning) {
                    let log = self.log.clone();
                    async move {
                        let start = log.start_after(after).await;
                        Done::Started { subscription, start }
                    }
                    .boxed()
                } else {
                    let pattern = subscription.pattern;
                    let subscriptions = vec![(id, pattern.clone())];
                    self.join(Joining::Fresh(id, pattern), subscriptions, None)
                });
                None
            }
        }
    }

    fn join(
        &mut self,
        joining: Joining,
        subscriptions: Vec<(SubscriptionId, Pattern)>,
        at: Option<Slot>,
    ) -> BoxFuture<'static, Done> {
        self.joining = true;
        let (mailbox, deliveries) =
            if self.deliveries.is_none() { Some(mailbox()) } else { None }.unzip();
        let (session, realm) = (self.session, self.realm.clone());
        let commands = self.commands.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            let join = Join { session, realm, subscriptions, at, mailbox };
            if commands.send(Command::Join { join, answer }).await.is_err() {
                return Done::Stopped;
            }
            match answered.await {
                Ok(result) => Done::Joined { subscriptions: joining, deliveries, result },
                Err(_) => Done::Stopped,
            }
        }
        .boxed()
    }

    fn done(&mut self, done: Done) -> Option<Reading> {
        match done {
            Done::Stopped => Some(Reading::Stopped),
            Done::Left(id) => Some(Reading::Unsubscribed(id)),
            Done::Started { subscription, start } => self.started(subscription, start),
            Done::Joined { subscriptions, deliveries, result } => {
                if result.is_ok() && deliveries.is_some() {
                    self.deliveries = deliveries;
                }
                self.joined(subscriptions, result)
            }
            Done::Sought(start) => self.sought(start),
            Done::Again => None,
            Done::Read(id, Ok(placed)) => {
                let replay = self.replays.get_mut(id)?;
                replay.sought = false;
                replay.buffer.extend(placed);
                None
            }
            Done::Back(slot, Ok(placed)) => {
                self.again = false;
                // What was read behind it is not for now.
                let back = placed.into_iter().find(|placed| placed.resolution.slot == slot);
                back.map(Reading::Back)
            }
            Done::Read(_, Err(ReadError::Gone { .. }))
            | Done::Back(_, Err(ReadError::Gone { .. })) => Some(Reading::Gone),
            Done::Back(slot, Err(ReadError::Unavailable(reason))) => {
                tracing::debug!(reason, "a session waits for a storage");
                let log = self.log.clone();
                self.working = Some(
                    async move {
                        tokio::time::sleep(RETRY).await;
                        Done::Back(slot, log.read(slot).await)
                    }
                    .boxed(),
                );
                None
            }
            Done::Read(id, Err(ReadError::Unavailable(reason))) => {
                tracing::debug!(reason, "a replay waits for a storage");
                let (log, next) = (self.log.clone(), self.replays.get_mut(id)?.next);
                self.working = Some(
                    async move {
                        tokio::time::sleep(RETRY).await;
                        Done::Read(id, log.read(next).await)
                    }
                    .boxed(),
                );
                None
            }
        }
    }

    fn started(
        &mut self,
        subscription: Subscription,
        start: Result<Start, SubscribeError>,
    ) -> Option<Reading> {
        let id = subscription.id;
        let start = match start {
            Ok(start) => start,
            Err(error) => {
                self.active.remove(&id);
                return Some(Reading::Subscribed(id, Err(error)));
            }
        };
        if subscription.retained != RetainedMode::None {
            self.retain(subscription);
            return Some(Reading::Subscribed(id, Ok(())));
        }
        let until = subscription.snapshot.then(|| self.log.tail().next_slot);
        self.replays.begin(id, subscription.pattern, start, until);
        Some(Reading::Subscribed(id, Ok(())))
    }

    fn joined(&mut self, joining: Joining, result: Result<Slot, JoinError>) -> Option<Reading> {
        match (joining, result) {
            (Joining::Fresh(id, pattern), Ok(_)) => {
                self.live.insert(id, pattern);
                Some(Reading::Subscribed(id, Ok(())))
            }
            (Joining::Fresh(id, pattern), Err(JoinError { next })) => {
                // Put out of the live stream just now: it begins as a replay from where the stream is.
                let start = Start { slot: next, position: Position(0) };
                self.replays.begin(id, pattern, start, None);
                Some(Reading::Subscribed(id, Ok(())))
            }
            (Joining::Replay(id), Ok(_)) => {
                let replay = self.replays.end(id)?;
                self.live.extend(replay.subscriptions);
                None
            }
            // The tail moved on: the replay reads on.
            (Joining::Replay(_), Err(_)) => None,
        }
    }
}

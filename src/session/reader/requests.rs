//! A session's requests to its reader, one after the other, and the results of the reader's work.
//!
//! Invariant: a request begins when no work is under way, and each piece of work has one outcome.
//!
//! Deliberately absent: what persists over several connections (`persistent`), and reading retained values (`retained`).

use std::sync::Arc;

use vulpes_raft::ids::{Position, Slot};
use vulpes_raft::mutant::{planted, Mutant};

use super::{Done, EventFilter, Reader, ReaderRequest, Reading, ReplayId, Source, Work};
use crate::dispatch::JoinError;
use crate::gate::{most_subscriptions, RetainedMode, Subscription};
use crate::log::{Placed, ReadError, Start};
use crate::types::limits;
use crate::types::subscription::{After, SubscribeError, SubscriptionId};
use crate::types::topic::Pattern;
use crate::types::value::Value;

/// What a reader's work is for.
#[derive(Debug)]
pub(super) enum Working {
    /// Finding the place where a subscription begins.
    Starting(Subscription),
    /// Live subscriptions joining, with a new mailbox or the existing one.
    Joining {
        joining: Joining,
        mailbox: bool,
    },
    Leaving(SubscriptionId),
    /// Reading more of a replay.
    Reading(ReplayId),
    /// Reading a segment again that was dropped.
    Again(Slot),
    /// Finding the place to which the session's cursor skips.
    Seeking,
    /// Waiting before a retry.
    Pausing,
}

#[derive(Debug)]
pub(super) enum Joining {
    Fresh(SubscriptionId, Pattern),
    Replay(ReplayId),
}

/// Reserves room for a subscription, if there is some.
pub(super) fn try_room<S: Source>(
    source: &S,
    pattern: &Pattern,
    filter: Option<&Value>,
) -> Result<S::Room, SubscribeError> {
    let bytes = pattern.held() + filter.map_or(0, Value::held) + limits::SUBSCRIPTION_OVERHEAD;
    source.try_room(bytes)
}

impl<R> Reader<R> {
    pub(super) fn begin_work(&mut self, working: Working, work: Work) {
        (self.working, self.work) = (Some(Box::new(working)), Some(Box::new(work)));
    }

    pub(super) fn begin<S: Source<Room = R>>(
        &mut self,
        asked: ReaderRequest,
        source: &S,
    ) -> Option<Reading> {
        match asked {
            ReaderRequest::Persist { subscribe, unsubscribe, noted } => {
                self.begin_persist(subscribe, unsubscribe, noted, source)
            }
            ReaderRequest::Again(slot) => {
                self.begin_work(Working::Again(slot), Work::Read { from: slot, later: false });
                None
            }
            ReaderRequest::Unsubscribe(id) => {
                self.active.remove(&id);
                self.retaining.remove(&id);
                self.replays.leave(id);
                if self.live.remove(&id).is_none() {
                    return Some(Reading::Unsubscribed(id));
                }
                self.begin_work(Working::Leaving(id), Work::Leave(id));
                None
            }
            ReaderRequest::Subscribe(subscription) => {
                let id = subscription.id;
                self.begin_subscription(subscription, source)
                    .unwrap_or_else(|error| Some(Reading::Subscribed(id, Err(error))))
            }
        }
    }

    fn begin_subscription<S: Source<Room = R>>(
        &mut self,
        subscription: Subscription,
        source: &S,
    ) -> Result<Option<Reading>, SubscribeError> {
        let id = subscription.id;
        if self.active.len() >= most_subscriptions() {
            return Err(SubscribeError::TooMany);
        }
        let is_last = self.active.len() + 1 == most_subscriptions();
        if is_last && planted(Mutant::LoseLastSubscription) {
            return Ok(Some(Reading::Subscribed(id, Ok(()))));
        }
        let room = try_room(source, &subscription.pattern, subscription.filter.as_ref())?;
        let changes_only = subscription.retained == RetainedMode::Changes;
        let (filter, from) = (subscription.filter.clone(), Position(0));
        self.active.insert(id, EventFilter { changes_only, filter, from, _room: Some(room) });
        if subscription.retained != RetainedMode::None {
            return Ok(self.begin_retained(subscription, source));
        }
        let beginning = subscription.snapshot.then_some(After::Position(Position(0)));
        if let Some(after) = subscription.after.or(beginning) {
            self.begin_work(Working::Starting(subscription), Work::StartAfter(after));
        } else {
            let pattern = subscription.pattern;
            let subscriptions = vec![(id, pattern.clone())];
            self.join(Joining::Fresh(id, pattern), subscriptions, None);
        }
        Ok(None)
    }

    pub(super) fn join(
        &mut self,
        joining: Joining,
        subscriptions: Vec<(SubscriptionId, Pattern)>,
        at: Option<Slot>,
    ) {
        let mailbox = !self.mailbox;
        let work = Work::Join { subscriptions, at, mailbox };
        self.begin_work(Working::Joining { joining, mailbox }, work);
    }

    /// Takes the result of the work that was given out last.
    pub(crate) fn done<S: Source<Room = R>>(&mut self, done: Done, source: &S) -> Option<Reading> {
        let working = self.working.take().map(|working| *working);
        match (working, done) {
            (_, Done::Stopped) => Some(Reading::Stopped),
            (Some(Working::Starting(subscription)), Done::Start(start)) => {
                self.started(subscription, start, source)
            }
            (Some(Working::Seeking), Done::Start(start)) => self.sought(start),
            (Some(Working::Joining { joining, mailbox }), Done::Joined(result)) => {
                self.mailbox |= mailbox && result.is_ok();
                self.joined(joining, result)
            }
            (Some(Working::Leaving(id)), Done::Over) => Some(Reading::Unsubscribed(id)),
            (Some(Working::Pausing), Done::Over) => None,
            // The node has read as far as the replay, which continues.
            (Some(Working::Reading(id)), Done::Over) => self.read(id, Vec::new()),
            (Some(Working::Reading(id)), Done::Read(Ok(placed))) => self.read(id, placed),
            (Some(Working::Again(slot)), Done::Read(Ok(placed))) => {
                self.again = false;
                // Later segments of the read are not used.
                let back = placed.into_iter().find(|placed| placed.resolution.slot == slot);
                back.map(Reading::Back)
            }
            (
                Some(Working::Reading(_) | Working::Again(_)),
                Done::Read(Err(ReadError::Gone { .. })),
            ) => Some(Reading::Gone),
            (Some(working), Done::Read(Err(ReadError::Unavailable(_)))) => {
                self.read_later(working);
                None
            }
            (working, done) => panic!("{done:?} does not come of {working:?}"),
        }
    }

    fn read(&mut self, id: ReplayId, placed: Vec<Arc<Placed>>) -> Option<Reading> {
        let replay = self.replays.get_mut(id)?;
        replay.sought = false;
        replay.buffer.extend(placed);
        None
    }

    /// No storage answered: the read is repeated, if its result is still wanted.
    fn read_later(&mut self, working: Working) {
        let from = match &working {
            Working::Again(slot) => Some(*slot),
            Working::Reading(id) => self.replays.get_mut(*id).map(|replay| replay.next),
            _ => None,
        };
        if let Some(from) = from {
            self.begin_work(working, Work::Read { from, later: true });
        }
    }

    fn started<S: Source<Room = R>>(
        &mut self,
        subscription: Subscription,
        start: Result<Start, SubscribeError>,
        source: &S,
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
            self.retain(subscription, source);
            return Some(Reading::Subscribed(id, Ok(())));
        }
        let until = subscription.snapshot.then(|| source.tail().next_slot);
        self.replays.begin(id, subscription.pattern, start, until);
        Some(Reading::Subscribed(id, Ok(())))
    }

    /// After a failed join: whether it failed because the session was put out of the live stream and has not been notified yet.
    fn is_put_out(&self) -> bool {
        self.mailbox && !self.is_live_at_cursor()
    }

    fn joined(&mut self, joining: Joining, result: Result<Slot, JoinError>) -> Option<Reading> {
        match (joining, result) {
            (Joining::Fresh(id, pattern), Ok(since)) => {
                self.live.insert(id, (pattern, since));
                Some(Reading::Subscribed(id, Ok(())))
            }
            (Joining::Fresh(id, pattern), Err(JoinError { next })) if self.is_put_out() => {
                // The live stream is about to report that; the subscription then continues with the others.
                self.live.insert(id, (pattern, next));
                Some(Reading::Subscribed(id, Ok(())))
            }
            (Joining::Fresh(id, pattern), Err(JoinError { next })) => {
                // It begins as a replay from the stream's current slot.
                let start = Start { slot: next, position: Position(0) };
                self.replays.begin(id, pattern, start, None);
                Some(Reading::Subscribed(id, Ok(())))
            }
            (Joining::Replay(id), Ok(since)) => {
                let joined = self.replays.end(id)?.subscriptions.into_iter();
                self.live.extend(joined.map(|(id, pattern)| (id, (pattern, since))));
                None
            }
            // The tail has moved: the replay reads on.
            (Joining::Replay(_), Err(_)) => None,
        }
    }
}

//! The subscriptions of a persistent session: all read at one cursor, in one order.
//!
//! The cursor begins where an earlier session left it. Events that were in flight then are read again first, each at its own
//! position, and other events that were sent already are skipped. When a filter is added or removed, all subscriptions start
//! again at the cursor, and rejoin the live stream when they have reached it.
//!
//! Invariant: every event before the cursor that is for the session was handed to its gate, or handled by an earlier session.
//! Either all subscriptions at the cursor are live, or none is.
//!
//! Deliberately absent: replays and snapshots, which have cursors of their own.

use std::collections::BTreeMap;

use vulpes_raft::ids::{Position, Slot};
use vulpes_raft::mutant::{planted, Mutant};

use super::requests::{try_room, Working};
use super::retained::{Retaining, Then};
use super::{EventFilter, Reader, ReaderRequest, Reading, Replay, Source, Work, AT_CURSOR};
use crate::dispatch::Hits;
use crate::gate::{PersistentReading, RetainedMode, Sending};
use crate::log::{Placed, Start};
use crate::types::act::Progress;
use crate::types::subscription::{SubscribeError, SubscriptionId};

/// A persistent session's place in the log.
pub(super) struct Cursor {
    /// The next slot to read; `None` if only the position is known.
    slot: Option<Slot>,
    position: Position,
    /// Events before this one are done, unless they are in flight.
    sent: Position,
    in_flight: BTreeMap<Position, u16>,
    /// Events before this one may have been sent.
    doubt: Position,
    /// The gate was handed an event since `take_touched` was last called.
    touched: bool,
}

impl Cursor {
    /// The next position to read, if events before it can be skipped; otherwise `None`.
    fn leap(&self) -> Option<Position> {
        let again = self.in_flight.range(self.position..).next().map(|(at, _)| *at);
        let next = again.map_or(self.sent, |again| again.min(self.sent));
        (next > self.position || self.slot.is_none()).then_some(next.max(self.position))
    }

    /// Whether there is an event to be sent again.
    pub(super) fn is_resuming(&self) -> bool {
        self.in_flight.range(self.position..).next().is_some()
    }

    /// There is nothing for the session before this place. A place before the cursor changes nothing: the log's tail moves only
    /// after everything before it was handed over, and an older value of it may be seen.
    fn idle_until(&mut self, start: Start) {
        if (self.slot, self.position) < (Some(start.slot), start.position) {
            (self.slot, self.position) = (Some(start.slot), start.position);
        }
    }

    fn is_in_flight(&self, placed: &Placed) -> bool {
        let (base, end) = (placed.resolution.base, placed.resolution.end());
        self.in_flight.range(base..end).next().is_some()
    }
}

impl<R> Reader<R> {
    /// Reads on from where an earlier session was. `tail` is the position of the log's next event.
    pub(crate) fn resume(
        &mut self,
        progress: Progress,
        readings: Vec<PersistentReading>,
        tail: Position,
    ) {
        let Progress { sent, in_flight, doubt } = progress;
        // Events before the start of the first filter are for none of them.
        let first = readings.iter().filter_map(|reading| reading.from).min();
        let mut sent = sent.max(first.unwrap_or(tail));
        if planted(Mutant::ResumeOneTooFar) {
            sent = sent.next();
        }
        let in_flight: BTreeMap<_, _> =
            in_flight.into_iter().map(|message| (message.position, message.packet_id)).collect();
        let position = in_flight.keys().next().map_or(sent, |first| sent.min(*first));
        let cursor = Cursor { slot: None, position, sent, in_flight, doubt, touched: false };
        self.cursor = Some(Box::new(cursor));
        self.asked.push_back(ReaderRequest::Persist {
            subscribe: readings,
            unsubscribe: Vec::new(),
            noted: None,
        });
    }

    /// Changes what is read at the cursor; [`Reading::FilterOutcome`] reports when that is done.
    pub(crate) fn persist(
        &mut self,
        subscribe: Vec<PersistentReading>,
        unsubscribe: Vec<SubscriptionId>,
        room: bool,
    ) {
        self.asked.push_back(ReaderRequest::Persist { subscribe, unsubscribe, noted: Some(room) });
    }

    /// Every event before this one is done, unless it is in flight.
    pub(crate) fn sent(&self) -> Option<Position> {
        self.cursor.as_ref().map(|cursor| cursor.sent.max(cursor.position))
    }

    /// Whether the gate was handed an event since the last call.
    pub(crate) fn take_touched(&mut self) -> bool {
        self.cursor.as_mut().is_some_and(|cursor| std::mem::take(&mut cursor.touched))
    }

    /// The session has handled everything before this place.
    pub(crate) fn reached(&mut self, slot: Slot, position: Position) {
        if let Some(cursor) = &mut self.cursor {
            cursor.slot = Some(slot);
            cursor.position = position;
        }
    }

    /// The gate was handed an event.
    pub(crate) fn touch(&mut self) {
        if let Some(cursor) = &mut self.cursor {
            cursor.touched = true;
        }
    }

    /// How an event is sent to the session; `None` if it is not.
    pub(crate) fn sending(&self, at_cursor: bool, position: Position) -> Option<Sending> {
        let Some(cursor) = self.cursor.as_ref().filter(|_| at_cursor) else {
            return Some(Sending::Aside);
        };
        if let Some(packet_id) = cursor.in_flight.get(&position) {
            return Some(Sending::Again(*packet_id));
        }
        if position < cursor.sent {
            None
        } else if position < cursor.doubt {
            Some(Sending::Doubtful)
        } else {
            Some(Sending::First)
        }
    }

    /// Whether the live stream is at the cursor.
    pub(super) fn is_live_at_cursor(&self) -> bool {
        self.cursor.is_some() && !self.replays.has_cursor()
    }

    pub(super) fn begin_persist<S: Source<Room = R>>(
        &mut self,
        subscribe: Vec<PersistentReading>,
        unsubscribe: Vec<SubscriptionId>,
        noted: Option<bool>,
        source: &S,
    ) -> Option<Reading> {
        let changes = !subscribe.is_empty() || !unsubscribe.is_empty();
        if noted.is_some() && !changes {
            return noted.map(Reading::FilterOutcome);
        }
        let live = std::mem::take(&mut self.live).into_iter();
        let mut subscriptions: BTreeMap<_, _> =
            live.map(|(id, (pattern, _))| (id, pattern)).collect();
        // This leaves the live stream: the mailbox that is made on rejoining replaces this one.
        self.mailbox = false;
        if let Some(replay) = self.replays.end(AT_CURSOR) {
            subscriptions.extend(replay.subscriptions);
        }
        for id in unsubscribe {
            self.active.remove(&id);
            self.retaining.remove(&id);
            subscriptions.remove(&id);
        }
        for reading in subscribe {
            subscriptions.insert(reading.id, reading.pattern.clone());
            self.wish_for(reading, source);
        }
        let first = subscriptions.keys().filter_map(|id| Some(self.active.get(id)?.from)).min();
        let cursor = self.cursor.as_mut()?;
        // Events that are for none of them need not be read.
        if let Some(first) = first.filter(|first| *first > cursor.position.max(cursor.sent)) {
            cursor.sent = first;
        }
        let (next, from) = (cursor.slot.unwrap_or(Slot(0)), cursor.position);
        self.replays.set_cursor(Replay { subscriptions, next, from, ..Replay::default() });
        noted.map(Reading::FilterOutcome)
    }

    /// Adds a persistent subscription.
    fn wish_for<S: Source<Room = R>>(&mut self, reading: PersistentReading, source: &S) {
        let PersistentReading { id, pattern, retained, changes, condition, from } = reading;
        let asked = from.unwrap_or(Position(0));
        let from = self.active.get(&id).map_or(asked, |known| known.from);
        let room = try_room(source, &pattern, condition.as_ref()).ok();
        if retained != RetainedMode::None {
            let values = source.view().realm(&self.realm);
            let then = Then::Nothing { kept_before: asked };
            let snapshot = false;
            let retaining = Retaining { pattern, values, behind: None, then, snapshot };
            self.retaining.insert(id, retaining);
        }
        self.active.insert(
            id,
            EventFilter { changes_only: changes, filter: condition, from, _room: room },
        );
    }

    /// The hits of a segment read at the cursor, if it has something for the session; otherwise the cursor moves behind it.
    pub(super) fn hits_at_cursor(&mut self, placed: &Placed, hits: Option<Hits>) -> Option<Hits> {
        let cursor = self.cursor.as_mut()?;
        let hits = hits.or_else(|| cursor.is_in_flight(placed).then(Hits::default));
        if hits.is_none() {
            cursor.slot = Some(placed.resolution.slot.next());
            cursor.position = cursor.position.max(placed.resolution.end());
        }
        hits
    }

    /// Called before the log is read at the cursor: true if the cursor can skip to a later place first.
    pub(super) fn seek(&mut self) -> bool {
        let Some((AT_CURSOR, replay)) = self.replays.first() else { return false };
        let sought = replay.sought;
        let leap = self.cursor.as_deref().and_then(Cursor::leap);
        let Some(position) = leap.filter(|_| !sought) else { return false };
        self.begin_work(Working::Seeking, Work::StartAt(position));
        true
    }

    pub(super) fn sought(&mut self, start: Result<Start, SubscribeError>) -> Option<Reading> {
        let replay = self.replays.get_mut(AT_CURSOR)?;
        match start {
            Ok(start) => {
                replay.next = start.slot;
                replay.from = start.position;
                replay.sought = true;
                self.reached(start.slot, start.position);
                None
            }
            Err(SubscribeError::Gone { .. }) => Some(Reading::Gone),
            // Retried later.
            Err(_) => {
                self.begin_work(Working::Pausing, Work::Pause);
                None
            }
        }
    }

    /// The live stream has nothing more for the session before this place.
    pub(super) fn idle_until(&mut self, start: Start) {
        if self.is_live_at_cursor() && !self.live.is_empty() {
            if let Some(cursor) = &mut self.cursor {
                cursor.idle_until(start);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It went back, and a client that disconnected at once was sent events again, unmarked, that it had acknowledged.
    #[test]
    fn a_tail_that_is_late_does_not_take_the_cursor_back() {
        let mut cursor = Cursor {
            slot: Some(Slot(8)),
            position: Position(80),
            sent: Position(70),
            in_flight: BTreeMap::new(),
            doubt: Position(0),
            touched: false,
        };
        for (slot, position, expected) in
            [(7, 70, (8, 80)), (8, 80, (8, 80)), (9, 80, (9, 80)), (10, 90, (10, 90))]
        {
            cursor.idle_until(Start { slot: Slot(slot), position: Position(position) });
            let expected = (Some(Slot(expected.0)), Position(expected.1));
            assert_eq!((cursor.slot, cursor.position), expected, "{slot}, {position}");
        }
    }
}

//! The replays of a session: subscriptions at places in the log, one after the other.
//!
//! Subscriptions that begin at the same place are read together, so that ten thousand subscriptions in one write read the log
//! once. The replay at the session's cursor is first, so that it is live before any subscription joins that is not at the
//! cursor.
//!
//! Invariant: a subscription is in one replay at most. Finding, starting or ending one costs the same however many there are.
//!
//! Deliberately absent: reading the log.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use vulpes_raft::ids::{Position, Slot};

use crate::dispatch::{Hits, Matcher};
use crate::log::{Placed, Start};
use crate::types::subscription::SubscriptionId;
use crate::types::topic::{Pattern, Realm, Topic};

/// A replay's id. Replays are read in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReplayId(u64);

/// The replay of a persistent session's subscriptions.
pub(super) const AT_CURSOR: ReplayId = ReplayId(0);

/// Some subscriptions at one place in the log.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) subscriptions: BTreeMap<SubscriptionId, Pattern>,
    /// Subscriptions that get only events from a slot on that the replay has not reached yet.
    pub(super) later: BTreeMap<Slot, BTreeMap<SubscriptionId, Pattern>>,
    /// Built when the first segment is matched: a replay at the tail never needs it.
    pub(super) matcher: Option<Matcher>,
    pub(super) next: Slot,
    pub(super) from: Position,
    /// Ends before this slot instead of joining.
    pub(super) until: Option<Slot>,
    pub(super) buffer: VecDeque<Arc<Placed>>,
    /// Its next place was looked up and is to be read now.
    pub(super) sought: bool,
    /// It has advanced since it began, or is about to join: it takes no more subscriptions.
    pub(super) closed: bool,
}

impl Replay {
    /// Bytes of what was read.
    pub(super) fn size(&self) -> usize {
        self.buffer.iter().map(|placed| placed.size()).sum()
    }

    /// All its subscriptions.
    fn ids(&self) -> impl Iterator<Item = &SubscriptionId> {
        self.subscriptions.keys().chain(self.later.values().flat_map(BTreeMap::keys))
    }

    /// Whether it has no subscriptions.
    pub(super) fn is_empty(&self) -> bool {
        self.subscriptions.is_empty() && self.later.is_empty()
    }

    /// Adds the subscriptions that get events from this slot on.
    pub(super) fn reached(&mut self, slot: Slot) {
        while let Some(entry) = self.later.first_entry().filter(|entry| *entry.key() <= slot) {
            for (id, pattern) in entry.remove() {
                self.insert(id, pattern);
            }
        }
    }

    /// The next segment of what was read.
    pub(super) fn advance(&mut self) -> Option<Arc<Placed>> {
        let placed = self.buffer.pop_front()?;
        let slot = placed.resolution.slot;
        self.reached(slot);
        self.next = slot.next();
        self.closed = true;
        Some(placed)
    }

    /// What its subscriptions want of a segment.
    pub(super) fn hits(&mut self, topics: &[(Realm, Topic)], realm: &Realm) -> Option<Hits> {
        let subscriptions = &self.subscriptions;
        let matcher = self
            .matcher
            .get_or_insert_with(|| subscriptions.iter().map(|(id, text)| (*id, text)).collect());
        Hits::of(topics, realm, matcher)
    }

    fn insert(&mut self, id: SubscriptionId, pattern: Pattern) {
        if let Some(matcher) = &mut self.matcher {
            matcher.insert(id, &pattern);
        }
        self.subscriptions.insert(id, pattern);
    }

    fn remove(&mut self, id: SubscriptionId) {
        self.later.retain(|_, all| {
            all.remove(&id);
            !all.is_empty()
        });
        let Some(pattern) = self.subscriptions.remove(&id) else { return };
        if let Some(matcher) = &mut self.matcher {
            matcher.remove(id, &pattern);
        }
    }
}

/// All replays of a session.
#[derive(Default)]
pub(super) struct Replays {
    replays: BTreeMap<ReplayId, Replay>,
    /// The replay of each subscription. Those at the cursor are not in it.
    of: HashMap<SubscriptionId, ReplayId>,
    last: u64,
}

impl Replays {
    /// The current replay.
    pub(super) fn first(&mut self) -> Option<(ReplayId, &mut Replay)> {
        self.replays.iter_mut().next().map(|(id, replay)| (*id, replay))
    }

    pub(super) fn get_mut(&mut self, id: ReplayId) -> Option<&mut Replay> {
        self.replays.get_mut(&id)
    }

    pub(super) fn has_cursor(&self) -> bool {
        self.replays.contains_key(&AT_CURSOR)
    }

    /// Bytes read ahead for the current replay; the others have none.
    pub(super) fn size(&self) -> usize {
        self.replays.first_key_value().map_or(0, |(_, replay)| replay.size())
    }

    /// Drops what was read ahead; it is read again.
    pub(super) fn let_go(&mut self) {
        if let Some((_, replay)) = self.first() {
            replay.buffer.clear();
        }
    }

    /// Replaces the replay at the cursor. It is read first.
    pub(super) fn set_cursor(&mut self, replay: Replay) {
        self.let_go();
        self.replays.insert(AT_CURSOR, replay);
    }

    /// Adds a subscription at a place.
    pub(super) fn begin(
        &mut self,
        id: SubscriptionId,
        pattern: Pattern,
        start: Start,
        until: Option<Slot>,
    ) {
        let together = self.replays.iter_mut().next_back().filter(|(replay_id, replay)| {
            let place = (replay.next, replay.from, replay.until);
            let same = place == (start.slot, start.position, until);
            same && !replay.closed && **replay_id != AT_CURSOR
        });
        if let Some((replay_id, replay)) = together {
            replay.insert(id, pattern);
            self.of.insert(id, *replay_id);
            return;
        }
        self.begin_all(Replay {
            subscriptions: BTreeMap::from([(id, pattern)]),
            next: start.slot,
            from: start.position,
            until,
            sought: true,
            ..Replay::default()
        });
    }

    /// Adds a replay that is not at the cursor.
    pub(super) fn begin_all(&mut self, replay: Replay) {
        self.last += 1;
        let replay_id = ReplayId(self.last);
        self.of.extend(replay.ids().map(|id| (*id, replay_id)));
        self.replays.insert(replay_id, replay);
    }

    /// Removes a subscription.
    pub(super) fn leave(&mut self, id: SubscriptionId) {
        let replay_id = self.of.remove(&id).unwrap_or(AT_CURSOR);
        if let Some(replay) = self.replays.get_mut(&replay_id) {
            replay.remove(id);
        }
    }

    /// Ends a replay.
    pub(super) fn end(&mut self, id: ReplayId) -> Option<Replay> {
        let replay = self.replays.remove(&id)?;
        if id != AT_CURSOR {
            for id in replay.ids() {
                self.of.remove(id);
            }
        }
        Some(replay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(slot: u64) -> Start {
        Start { slot: Slot(slot), position: Position(10 * slot) }
    }

    fn pattern() -> Pattern {
        Pattern::from_mqtt("a/#").unwrap()
    }

    #[test]
    fn what_begins_at_one_place_is_read_together() {
        let mut replays = Replays::default();
        for (id, slot) in [(1, 5), (2, 5), (3, 6), (4, 6), (5, 5)] {
            replays.begin(SubscriptionId(id), pattern(), start(slot), None);
        }
        replays.begin(SubscriptionId(6), pattern(), start(5), Some(Slot(9)));
        replays.begin(SubscriptionId(7), pattern(), start(5), Some(Slot(9)));
        replays.leave(SubscriptionId(3));
        let mut read = Vec::new();
        while let Some((id, replay)) = replays.first() {
            read.push(replay.subscriptions.keys().map(|id| id.0).collect::<Vec<_>>());
            replays.end(id);
        }
        assert_eq!(read, [vec![1, 2], vec![4], vec![5], vec![6, 7]]);
        assert!(replays.of.is_empty());
    }

    #[test]
    fn one_that_has_moved_on_takes_nobody_up() {
        let mut replays = Replays::default();
        replays.begin(SubscriptionId(1), pattern(), start(5), None);
        replays.first().unwrap().1.closed = true;
        replays.begin(SubscriptionId(2), pattern(), start(5), None);
        assert_eq!(replays.replays.len(), 2);
    }
}

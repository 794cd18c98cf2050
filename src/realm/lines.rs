//! Conditional publishes: accepted, refused, or queued until their topic's value fits.
//!
//! First come, first served: whenever the value changes, the turn goes to the first publish in the queue whose condition fits.
//! Its entry then publishes it again. Until that event is in the order, no other conditional publish overtakes it.
//!
//! Invariant: at most one publish of a queue has the turn. A waiting publish belongs to a live session.
//!
//! Deliberately absent: the contents of waiting publishes, which only their entry stores.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::Position;
use vulpes_raft::mutant::{planted, Mutant};

use super::{fits, At, Compared, Decision, Incoming, Key, Notice, Realms};
use crate::types::act::{Refusal, Terms};
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::topic::{Realm, Topic};
use crate::types::value::Value;

/// A publish that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiter {
    pub(super) session: SessionId,
    pub(super) when: Value,
    /// It has the turn: its entry has to publish it again.
    pub(super) turn: bool,
}

/// The queue of publishes that wait for one topic's value, by their positions.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiters: BTreeMap<Position, Waiter>,
    turn: Option<Position>,
    /// Bytes of the waiters' conditions.
    bytes: usize,
}

impl Realms {
    /// Decides a conditional publish; returns whether subscribers see it.
    pub(super) fn publish_on_terms(&mut self, incoming: &Incoming<'_>, terms: &Terms) -> bool {
        let Incoming { realm, topic, event, at } = *incoming;
        let bound_to_nobody =
            (terms.will.is_some() || terms.watch) && !self.sessions.contains_key(&event.publisher);
        let Some(when) = &terms.when else {
            // Its publisher was told that it is stored, so rules that have changed on its way come too late.
            if !bound_to_nobody {
                self.publish(incoming, terms);
            }
            return !bound_to_nobody;
        };
        let place = (realm.clone(), topic.clone());
        let busy = self.lines.get(&place).is_some_and(|line| line.turn.is_some())
            && !planted(Mutant::PushIn);
        let retained = self.retained.get(realm).and_then(|topics| topics.get(topic));
        let own_slot = retained.is_some_and(|retained| retained.at.slot == at.slot);
        let overlooked = planted(Mutant::OverlookOwnSlot) && own_slot;
        let fitting = overlooked || fits(&self.value_of(realm, topic), when);
        let decision = if bound_to_nobody {
            Decision::Refused(Refusal::SessionEnded)
        } else if !self.may_publish(incoming) {
            Decision::Refused(Refusal::NotAllowed)
        } else if !busy && fitting {
            self.publish(incoming, terms);
            Decision::Accepted(at)
        } else if !terms.watch {
            Decision::Refused(Refusal::NotAccepted)
        } else if self.lines.get(&place).is_some_and(Line::is_full) {
            Decision::Refused(Refusal::LineFull)
        } else {
            let waiter = Waiter { session: event.publisher, when: when.clone(), turn: false };
            let key = Key::Waiter(place.0.clone(), place.1.clone(), at.position);
            self.rows.change(&key, None, Some(&waiter));
            self.insert_waiter(place.0, place.1, at.position, waiter);
            return false;
        };
        let session = event.publisher;
        self.notices.push(Notice::Decided { session, asked: at.position, decision });
        matches!(decision, Decision::Accepted(_))
    }

    /// A waiting publish whose turn it is comes again; returns whether subscribers see it.
    pub(super) fn granted(
        &mut self,
        incoming: &Incoming<'_>,
        waiting: Position,
        terms: &Terms,
    ) -> bool {
        let Incoming { realm, topic, event, at } = *incoming;
        let place = (realm.clone(), topic.clone());
        let Some(line) = self.lines.get(&place) else { return false };
        let its_turn = line.turn == Some(waiting)
            && line.waiters.get(&waiting).is_some_and(|first| first.session == event.publisher);
        if !its_turn {
            return false;
        }
        let fitting = terms.when.as_ref().is_some_and(|w| fits(&self.value_of(realm, topic), w));
        if !fitting {
            // The value was changed without a condition meanwhile: the publish keeps its place in the queue.
            self.set_turn(&place, waiting, false);
            self.wake(realm, topic);
            return false;
        }
        self.remove_waiter(&place, waiting);
        let session = event.publisher;
        if !self.may_publish(incoming) {
            let decision = Decision::Refused(Refusal::NotAllowed);
            self.notices.push(Notice::Decided { session, asked: waiting, decision });
            self.wake(realm, topic);
            return false;
        }
        let told = if planted(Mutant::TellOldToken) { waiting } else { at.position };
        let decision = Decision::Accepted(At { position: told, ..at });
        self.notices.push(Notice::Decided { session, asked: waiting, decision });
        self.publish(incoming, terms);
        // A publish that is not retained changes nothing: the next one may fit as well.
        self.wake(realm, topic);
        true
    }

    /// Gives the turn to the first publish in the queue whose condition fits the topic's value, unless one has the turn
    /// already.
    pub(super) fn wake(&mut self, realm: &Realm, topic: &Topic) {
        let place = (realm.clone(), topic.clone());
        let Some(line) = self.lines.get(&place) else { return };
        if line.turn.is_some() {
            return;
        }
        let value = self.value_of(realm, topic);
        let value = Compared::new(&value);
        let mut fitting = line.waiters.iter().filter(|(_, waiter)| value.fits(&waiter.when));
        let first = match planted(Mutant::LastComeFirstServed) {
            false => fitting.next(),
            true => fitting.next_back(),
        };
        let Some((waiting, session)) = first.map(|(at, waiter)| (*at, waiter.session)) else {
            return;
        };
        self.set_turn(&place, waiting, true);
        self.notices.push(Notice::Turn { session, waiting });
    }

    fn set_turn(&mut self, place: &(Realm, Topic), waiting: Position, turn: bool) {
        let Some(line) = self.lines.get_mut(place) else { return };
        line.turn = turn.then_some(waiting);
        let Some(waiter) = line.waiters.get_mut(&waiting) else { return };
        let old = waiter.clone();
        waiter.turn = turn;
        let key = Key::Waiter(place.0.clone(), place.1.clone(), waiting);
        self.rows.change(&key, Some(&old), Some(waiter));
    }

    pub(super) fn insert_waiter(
        &mut self,
        realm: Realm,
        topic: Topic,
        position: Position,
        waiter: Waiter,
    ) {
        let waits = self.waits.entry(waiter.session).or_default();
        waits.insert((realm.clone(), topic.clone(), position));
        let line = self.lines.entry((realm, topic)).or_default();
        if waiter.turn {
            line.turn = Some(position);
        }
        line.bytes += waiter.when.held();
        line.waiters.insert(position, waiter);
    }

    /// Removes a publish from its queue; returns whether it had the turn.
    fn remove_waiter(&mut self, place: &(Realm, Topic), waiting: Position) -> bool {
        let Some(line) = self.lines.get_mut(place) else { return false };
        let Some(waiter) = line.waiters.remove(&waiting) else { return false };
        line.bytes -= waiter.when.held();
        let had_turn = line.turn == Some(waiting);
        if had_turn {
            line.turn = None;
        }
        if line.waiters.is_empty() {
            self.lines.remove(place);
        }
        let wait = (place.0.clone(), place.1.clone(), waiting);
        if let Some(waits) = self.waits.get_mut(&waiter.session) {
            waits.remove(&wait);
            if waits.is_empty() {
                self.waits.remove(&waiter.session);
            }
        }
        self.rows.change(&Key::Waiter(wait.0, wait.1, waiting), Some(&waiter), None);
        had_turn
    }

    /// Bytes that every node has to read to decide a publish to a topic: the value, if the publish is compared or merged with
    /// it or if publishes wait for it, and the conditions of the waiting publishes.
    #[must_use]
    pub fn looked_at(&self, realm: &Realm, topic: &Topic, compares: bool) -> usize {
        let line = self.lines.get(&(realm.clone(), topic.clone())).map_or(0, |line| line.bytes);
        if line == 0 && !compares {
            return 0;
        }
        let retained = self.retained.get(realm).and_then(|topics| topics.get(topic));
        line + retained.map_or(0, |retained| retained.payload.len())
    }

    /// Whether any publish waits for a value.
    #[must_use]
    pub fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Removes all waiting publishes of a session from their queues.
    pub(super) fn end_waits(&mut self, session: SessionId) {
        let mut without_turn = BTreeSet::new();
        for (realm, topic, waiting) in self.waits.get(&session).cloned().unwrap_or_default() {
            let place = (realm, topic);
            if self.remove_waiter(&place, waiting) {
                without_turn.insert(place);
            }
        }
        // In the other queues the publish that was removed had no turn: another publish has it, or no condition fits and the
        // value has not changed.
        for (realm, topic) in without_turn {
            self.wake(&realm, &topic);
        }
    }
}

impl Line {
    fn is_full(&self) -> bool {
        self.waiters.len() >= limits::TOPIC_WAITERS
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
}

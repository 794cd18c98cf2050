//! The shared state according to the order alone: a second fold, as simple as its meaning, with which the product's
//! output is compared.
//!
//! Checked here: a conditional publish is shown exactly if the value fits at the publish's position in the order; no waiting
//! publish is overtaken; a value's will comes once, when its session has ended, and only while the value is still there; all
//! nodes hide the same events.
//!
//! Invariant: only events and steps decide, not the product's state. The checked topics begin with `$`.
//!
//! Deliberately absent: merging, delays and fields, which the simulation's clients don't use (the product's own tests
//! do).

use std::collections::{BTreeMap, BTreeSet};

use vulpes::log::Placed;
use vulpes::payload;
use vulpes::segment::StoredEvent;
use vulpes::types::act::{Act, Terms};
use vulpes::types::event::{Payload, SessionId};
use vulpes::types::value::Value;
use vulpes_raft::ids::{Incarnation, NodeId, Position};
use vulpes_raft::order::Step;

use crate::births;
use crate::delays;

/// A change of a topic's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) position: Position,
    pub(crate) topic: String,
    /// Null if it was deleted.
    pub(crate) value: Value,
}

/// The topics that have a value, with the value's position.
pub(crate) type View = BTreeMap<String, Position>;

fn is_judged_elsewhere(topic: &str) -> bool {
    topic.starts_with(births::TOPICS) || topic.starts_with(delays::TOPICS)
}

/// The state so far.
#[derive(Default)]
pub(crate) struct StateLog {
    sessions: BTreeMap<SessionId, (NodeId, Incarnation)>,
    topics: BTreeMap<String, Standing>,
    changes: Vec<Change>,
}

/// One topic.
#[derive(Default)]
struct Standing {
    value: Option<(Position, Value)>,
    /// The session whose end gives the topic this value.
    bond: Option<(SessionId, Value)>,
    waiters: BTreeMap<Position, (SessionId, Value)>,
}

impl Standing {
    fn fits(&self, when: &Value) -> bool {
        self.value.as_ref().map_or(&Value::Null, |(_, value)| value) == when
    }

    /// The waiting publish that is next.
    fn next(&self) -> Option<Position> {
        self.waiters.iter().find(|(_, (_, when))| self.fits(when)).map(|(at, _)| *at)
    }
}

impl StateLog {
    /// The next slot, whose first event is at `base`.
    pub(crate) fn take(&mut self, placed: &Placed) -> Result<(), String> {
        match &placed.resolution.step {
            Step::Opened { entry, incarnation } => self.end_all(*entry, |of| of < *incarnation),
            Step::Closed { entry, incarnation, .. } => {
                self.end_all(*entry, |of| of <= *incarnation);
            }
            Step::Segment(_) => {}
        }
        let Some(segment) = &placed.segment else { return Ok(()) };
        let id = segment.id();
        for event in segment.events() {
            let topic = segment.topics()[event.topic as usize].1.as_str();
            let act = Act::decode(&event.act);
            match act {
                Some(Act::Join(_) | Act::Attach(_)) => {
                    self.sessions.insert(event.publisher, (id.entry, id.incarnation));
                }
                Some(Act::Gone(_)) => self.end(event.publisher),
                act if topic.starts_with('$') && !is_judged_elsewhere(topic) => {
                    let position = Position(placed.resolution.base.0 + u64::from(event.offset));
                    let shown = self.event(topic, position, &event, act.as_ref());
                    if shown == placed.is_hidden(event.offset) {
                        let (is, was) =
                            if shown { ("has", "hidden") } else { ("has not", "shown") };
                        return Err(format!(
                            "{topic} {is} its value from position {position}, which is {was}: {act:?}"
                        ));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn end_all(&mut self, entry: NodeId, over: impl Fn(Incarnation) -> bool) {
        self.sessions.retain(|_, (at, incarnation)| *at != entry || !over(*incarnation));
        let left: BTreeSet<SessionId> = self.sessions.keys().copied().collect();
        for standing in self.topics.values_mut() {
            standing.waiters.retain(|_, (session, _)| left.contains(session));
        }
    }

    fn end(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        for standing in self.topics.values_mut() {
            standing.waiters.retain(|_, (waiting, _)| *waiting != session);
        }
    }

    /// Applies an event; returns whether subscribers see it.
    fn event(
        &mut self,
        topic: &str,
        position: Position,
        event: &StoredEvent,
        act: Option<&Act>,
    ) -> bool {
        let publisher = event.publisher;
        let lives = self.sessions.contains_key(&publisher);
        let standing = self.topics.entry(topic.to_owned()).or_default();
        let plain = Terms::default();
        let terms = match act {
            None | Some(Act::Due(_)) => &plain,
            Some(Act::Publish(terms) | Act::Granted { terms, .. }) => terms,
            Some(_) => return true,
        };
        let shown = match (act, &terms.when) {
            (Some(Act::Due(id)), _) => {
                !self.sessions.contains_key(&id.session)
                    && standing.bond.as_ref().is_some_and(|(session, will)| {
                        *session == id.session && *will == payload::value(&event.payload)
                    })
            }
            (Some(Act::Granted { waiting, .. }), Some(when)) => {
                let its_turn = standing.next() == Some(*waiting) && standing.fits(when);
                its_turn
                    && standing.waiters.remove(waiting).is_some_and(|(who, _)| who == publisher)
            }
            (_, Some(when)) => {
                let bound = terms.watch || terms.will.is_some();
                let free = standing.next().is_none() && standing.fits(when);
                if terms.watch && lives && !free {
                    standing.waiters.insert(position, (publisher, when.clone()));
                }
                free && (lives || !bound)
            }
            (_, None) => lives || terms.will.is_none(),
        };
        if shown && event.retain {
            let value = payload::value(&event.payload);
            let will = |will: &Payload| (publisher, payload::value(will));
            standing.bond = terms.will.as_ref().map(will);
            standing.value = Some((position, value.clone())).filter(|_| value != Value::Null);
            self.changes.push(Change { position, topic: topic.to_owned(), value });
        }
        shown
    }

    /// All changes, in their order.
    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The current values of the topics below one.
    pub(crate) fn view(&self, below: &str) -> View {
        let below = self.topics.iter().filter(|(topic, _)| topic.starts_with(below));
        below.filter_map(|(topic, it)| Some((topic.clone(), it.value.as_ref()?.0))).collect()
    }

    /// A topic that still has the value of a session that has ended.
    pub(crate) fn unfinished(&self) -> Option<&str> {
        let left = |standing: &Standing| {
            standing.bond.as_ref().is_some_and(|(whose, _)| !self.sessions.contains_key(whose))
        };
        self.topics.iter().find(|(_, standing)| left(standing)).map(|(topic, _)| topic.as_str())
    }
}

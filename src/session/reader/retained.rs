//! The retained values that a subscription begins with, as of one slot.
//!
//! Invariant: only a few are taken and looked at in one step, however many there are.
//!
//! Deliberately absent: the values themselves (`realm`), and whether a gate has room for them.

use std::sync::Arc;

use vulpes_raft::ids::{Position, Slot};
use vulpes_raft::mutant::{planted, Mutant};

use super::requests::Working;
use super::{Reader, Reading, Source, Work, LOOK_TOIL};
use crate::gate::Subscription;
use crate::log::Start;
use crate::realm::{fits, Found, Retained, RetainedMap};
use crate::types::subscription::SubscriptionId;
use crate::types::topic::{Pattern, Topic};
use crate::types::value::Value;

/// Retained values taken in one step.
const RETAINED_BATCH: usize = 128;

/// Retained values looked at in one step, over all subscriptions, if their patterns or filters let few through.
const RETAINED_LOOKS: usize = 4096;

/// This many bytes of a value that a filter is applied to count as one look.
const LOOK_BYTES: usize = 64;

/// Retained values with which a subscription begins.
#[derive(Debug)]
pub(crate) struct RetainedValues {
    pub(crate) id: SubscriptionId,
    pub(crate) values: Vec<(Topic, Arc<Retained>)>,
    /// The cost of finding them, in bytes.
    pub(crate) toil: usize,
}

/// A subscription that is getting retained values.
pub(super) struct Retaining {
    pub(super) pattern: Pattern,
    pub(super) values: RetainedMap,
    /// The topic looked at last.
    pub(super) behind: Option<Topic>,
    pub(super) then: Then,
    pub(super) snapshot: bool,
}

/// What follows a subscription's retained values.
#[derive(Clone, Copy)]
pub(super) enum Then {
    /// The log, from the place of the retained values.
    Log(Start),
    /// Nothing: the log is read at the same time, from this position on, and has all values that were retained since.
    Nothing { kept_before: Position },
}

impl Retaining {
    /// The next of its values, one batch at most, and whether that was all.
    fn look(
        &mut self,
        filter: Option<&Value>,
        looks: &mut usize,
    ) -> (Vec<(Topic, Arc<Retained>)>, bool) {
        let mut values = Vec::new();
        // Finding nothing also counts as a look.
        while values.len() < RETAINED_BATCH && *looks > 0 {
            *looks -= 1;
            match self.values.next_match(&self.pattern, self.behind.as_ref(), looks) {
                Found::Match(topic, retained) => {
                    let here = match self.then {
                        Then::Log(_) => true,
                        Then::Nothing { kept_before } => retained.at.position < kept_before,
                    };
                    let fitting = here
                        && filter.is_none_or(|filter| {
                            *looks = looks.saturating_sub(retained.payload.len() / LOOK_BYTES);
                            fits(&crate::payload::value(&retained.payload), filter)
                        });
                    if fitting {
                        values.push((topic.clone(), retained.clone()));
                    }
                    self.behind = Some(topic.clone());
                }
                Found::Behind(topic) => self.behind = Some(topic),
                Found::End => return (values, true),
            }
        }
        (values, false)
    }
}

impl<R> Reader<R> {
    /// The next retained values: one batch of one subscription, which is empty if many were looked at and none matched.
    pub(super) fn next_retained(&mut self) -> Option<Reading> {
        let mut looks = RETAINED_LOOKS;
        loop {
            let mut first = self.retaining.first_entry()?;
            let id = *first.key();
            let filter = self.active.get(&id).and_then(|wish| wish.filter.as_ref());
            let (values, all) = first.get_mut().look(filter, &mut looks);
            if !all || !values.is_empty() {
                let toil = (RETAINED_LOOKS - looks) * LOOK_TOIL;
                return Some(Reading::Retained(RetainedValues { id, values, toil }));
            }
            let Retaining { pattern, then, snapshot, .. } = first.remove();
            if snapshot {
                self.active.remove(&id);
                return Some(Reading::Ended(id));
            }
            if let Then::Log(start) = then {
                self.replays.begin(id, pattern, start, None);
            }
        }
    }

    /// Retained values come first; with `after`, only once this node has read the log up to there.
    pub(super) fn begin_retained<S: Source<Room = R>>(
        &mut self,
        subscription: Subscription,
        source: &S,
    ) -> Option<Reading> {
        let after = subscription.after.filter(|_| !planted(Mutant::ReadWithoutWaiting));
        if let Some(after) = after {
            self.begin_work(Working::Starting(subscription), Work::StartAfter(after));
            return None;
        }
        let id = subscription.id;
        self.retain(subscription, source);
        Some(Reading::Subscribed(id, Ok(())))
    }

    pub(super) fn retain<S: Source<Room = R>>(&mut self, subscription: Subscription, source: &S) {
        let view = source.view();
        let skipped = u64::from(planted(Mutant::SkipBehindRetained));
        let start = Start { slot: Slot(view.next.0 + skipped), position: view.position };
        let retaining = Retaining {
            pattern: subscription.pattern,
            values: view.realm(&self.realm),
            behind: None,
            then: Then::Log(start),
            snapshot: subscription.snapshot,
        };
        self.retaining.insert(subscription.id, retaining);
    }
}

//! The retained values that a subscription begins with, as of one slot.
//!
//! Invariant: few at a time are taken, and looked at, however many there are.
//!
//! Deliberately absent: what they are (`realm`), and whether a gate has room for them.

use std::sync::Arc;

use futures::FutureExt;
use vulpes_raft::ids::{Position, Slot};
use vulpes_raft::mutant::{planted, Mutant};

use super::{Done, Reader, Reading};
use crate::gate::{Subscription, SubscriptionId};
use crate::log::Start;
use crate::realm::{fits, Found, Retained, RetainedMap};
use crate::topic::{Pattern, Topic};

/// Retained values taken at once.
const RETAINED_BATCH: usize = 128;

/// Retained values looked at for one batch, where a pattern or a filter lets few through.
const RETAINED_LOOKS: usize = 4096;

/// What a subscription begins with.
pub(in crate::server) struct RetainedValues {
    pub(in crate::server) id: SubscriptionId,
    pub(in crate::server) values: Vec<(Topic, Arc<Retained>)>,
}

/// A subscription on its way through the retained values.
pub(super) struct Retaining {
    pub(super) id: SubscriptionId,
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
    /// The log from the place that they are of.
    Log(Start),
    /// Nothing: the log is read beside them from this place on, and with it what was kept since.
    Nothing { kept_before: Position },
}

impl Reader {
    /// Some more of the retained values that a subscription begins with.
    pub(super) fn next_retained(&mut self) -> Option<Reading> {
        let retaining = self.retaining.front_mut()?;
        let filter = self.active.get(&retaining.id).and_then(|wish| wish.filter.as_ref());
        let mut values = Vec::new();
        let mut looks = RETAINED_LOOKS;
        let mut all = false;
        while values.len() < RETAINED_BATCH && looks > 0 {
            let behind = retaining.behind.as_ref();
            match retaining.values.next_match(&retaining.pattern, behind, &mut looks) {
                Found::Match(topic, retained) => {
                    let here = match retaining.then {
                        Then::Log(_) => true,
                        Then::Nothing { kept_before } => retained.at.position < kept_before,
                    };
                    let fitting = here
                        && filter.is_none_or(|filter| {
                            fits(&crate::payload::value(&retained.payload), filter)
                        });
                    if fitting {
                        values.push((topic.clone(), retained.clone()));
                    }
                    retaining.behind = Some(topic.clone());
                }
                Found::Behind(topic) => retaining.behind = Some(topic),
                Found::End => {
                    all = true;
                    break;
                }
            }
        }
        let id = retaining.id;
        if !all || !values.is_empty() {
            return Some(Reading::Retained(RetainedValues { id, values }));
        }
        let Retaining { pattern, then, snapshot, .. } = self.retaining.pop_front()?;
        if snapshot {
            self.active.remove(&id);
            return Some(Reading::Ended(id));
        }
        if let Then::Log(start) = then {
            self.replay(id, pattern, start, None);
        }
        self.next_retained()
    }

    /// Retained values come first; with `after`, once this node has read the log up to there.
    pub(super) fn begin_retained(&mut self, subscription: Subscription) -> Option<Reading> {
        let after = subscription.after.filter(|_| !planted(Mutant::ReadWithoutWaiting));
        let Some(after) = after else {
            let id = subscription.id;
            self.retain(subscription);
            return Some(Reading::Subscribed(id, Ok(())));
        };
        let log = self.log.clone();
        self.working = Some(
            async move {
                let start = log.start_after(after).await;
                Done::Started { subscription, start }
            }
            .boxed(),
        );
        None
    }

    pub(super) fn retain(&mut self, subscription: Subscription) {
        let view = self.realms.view();
        let skipped = u64::from(planted(Mutant::SkipBehindRetained));
        self.retaining.push_back(Retaining {
            id: subscription.id,
            pattern: subscription.pattern,
            values: view.realm(&self.realm),
            behind: None,
            then: Then::Log(Start { slot: Slot(view.next.0 + skipped), position: view.position }),
            snapshot: subscription.snapshot,
        });
    }
}

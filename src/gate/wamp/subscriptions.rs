//! The subscriptions of one WAMP session.
//!
//! Invariant: at most [`limits::SESSION_SUBSCRIPTIONS`] subscriptions and requests for them together, with topics of
//! [`limits::SESSION_PATTERNS`] and filters of [`limits::SESSION_FILTERS`] bytes. An id is never reused in a session.
//!
//! Deliberately absent: matching, which the driver does.

use std::collections::BTreeMap;

use super::message::RequestId;
use crate::gate::most_subscriptions;
use crate::types::limits;
use crate::types::subscription::SubscriptionId;
use crate::types::topic::Pattern;

#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    table: BTreeMap<SubscriptionId, Entry>,
    /// Subscriptions that another SUBSCRIBE to the same topics shares (WAMP basic profile, "Subscribing").
    shared: BTreeMap<Pattern, SubscriptionId>,
    last: u64,
    /// Requests that wait for the answer to another request's subscription.
    waiting: usize,
    /// Bytes of all topics.
    texts: usize,
    /// Bytes of all filters.
    filters: usize,
}

/// What defines a subscription, besides its pattern.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kind {
    /// It has reading options of its own, so it is never shared with another SUBSCRIBE to the same topics.
    pub(super) own: bool,
    /// It shows changes of retained values only.
    pub(super) changes: bool,
    /// Bytes of its topic.
    pub(super) text: usize,
    /// Bytes of its filter.
    pub(super) filter: usize,
}

#[derive(Debug)]
struct Entry {
    stage: Stage,
    kind: Kind,
    /// Its key in `shared`, if it is there.
    shared: Option<Pattern>,
}

#[derive(Debug)]
enum Stage {
    /// The driver was asked; these requests wait for its answer.
    Asked(Vec<RequestId>),
    Standing,
    /// The driver was asked to end it; this request waits for its answer.
    Ending(RequestId),
}

/// What to do about a SUBSCRIBE.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subscribe {
    /// Ask the driver for this one.
    Ask(SubscriptionId),
    /// It exists: answer.
    Answer(SubscriptionId),
    /// It was already asked for: wait.
    Wait,
    TooMany,
    TooLargeFilters,
}

/// What to tell the client about a subscription that ended by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Unasked,
    /// The client had just asked for that.
    Asked(RequestId),
    /// Nothing: it knows of no such subscription.
    Unknown,
}

impl Subscriptions {
    /// Takes a SUBSCRIBE.
    pub(super) fn subscribe(
        &mut self,
        request: RequestId,
        pattern: &Pattern,
        kind: Kind,
    ) -> Subscribe {
        let shared = self.shared.get(pattern).filter(|_| !kind.own).copied();
        if let Some(id) = shared {
            if self.standing(id).is_some() {
                return Subscribe::Answer(id);
            }
        }
        if self.table.len() + self.waiting >= most_subscriptions() {
            return Subscribe::TooMany;
        }
        if self.texts + kind.text > limits::SESSION_PATTERNS {
            return Subscribe::TooMany;
        }
        if self.filters + kind.filter > limits::SESSION_FILTERS {
            return Subscribe::TooLargeFilters;
        }
        if let Some(entry) = shared.and_then(|id| self.table.get_mut(&id)) {
            if let Stage::Asked(requests) = &mut entry.stage {
                requests.push(request);
                self.waiting += 1;
                return Subscribe::Wait;
            }
        }
        self.last += 1;
        let id = SubscriptionId(self.last);
        let shared = (!kind.own).then(|| pattern.clone());
        if let Some(pattern) = &shared {
            self.shared.insert(pattern.clone(), id);
        }
        self.texts += kind.text;
        self.filters += kind.filter;
        self.table.insert(id, Entry { stage: Stage::Asked(vec![request]), kind, shared });
        Subscribe::Ask(id)
    }

    /// The driver answered: returns the requests that waited for it.
    pub(super) fn subscribed(&mut self, id: SubscriptionId, stands: bool) -> Vec<RequestId> {
        let Some(entry) = self.table.get_mut(&id) else { return Vec::new() };
        let Stage::Asked(requests) = &mut entry.stage else { return Vec::new() };
        let requests = std::mem::take(requests);
        self.waiting -= requests.len() - 1;
        entry.stage = Stage::Standing;
        if !stands {
            self.remove(id);
        }
        requests
    }

    /// Takes an UNSUBSCRIBE; `false` if there is no such subscription.
    pub(super) fn unsubscribe(&mut self, request: RequestId, id: SubscriptionId) -> bool {
        let Some(entry) = self.table.get_mut(&id) else { return false };
        if !matches!(entry.stage, Stage::Standing) {
            return false;
        }
        entry.stage = Stage::Ending(request);
        if let Some(pattern) = entry.shared.take() {
            self.shared.remove(&pattern);
        }
        true
    }

    /// The driver ended it on request: returns the request that waited for it.
    pub(super) fn unsubscribed(&mut self, id: SubscriptionId) -> Option<RequestId> {
        match self.table.get(&id)?.stage {
            Stage::Ending(request) => {
                self.remove(id);
                Some(request)
            }
            _ => None,
        }
    }

    /// It ended by itself.
    pub(super) fn ended(&mut self, id: SubscriptionId) -> Ended {
        match self.remove(id).map(|entry| entry.stage) {
            Some(Stage::Ending(request)) => Ended::Asked(request),
            Some(Stage::Standing) => Ended::Unasked,
            Some(Stage::Asked(requests)) => {
                self.waiting -= requests.len() - 1;
                Ended::Unknown
            }
            None => Ended::Unknown,
        }
    }

    /// The kind of a subscription that the client knows and still wants.
    pub(super) fn standing(&self, id: SubscriptionId) -> Option<Kind> {
        let entry = self.table.get(&id)?;
        matches!(entry.stage, Stage::Standing).then_some(entry.kind)
    }

    fn remove(&mut self, id: SubscriptionId) -> Option<Entry> {
        let entry = self.table.remove(&id)?;
        self.texts -= entry.kind.text;
        self.filters -= entry.kind.filter;
        if let Some(pattern) = &entry.shared {
            self.shared.remove(pattern);
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_so_many_subscriptions_and_no_more() {
        let mut subscriptions = Subscriptions::default();
        let pattern = |at: usize| Pattern::from_wamp(&format!("a.{at}")).unwrap();
        let request = RequestId(1);
        let (shared, own) = (Kind::default(), Kind { own: true, ..Kind::default() });
        for at in 0..limits::SESSION_SUBSCRIPTIONS - 2 {
            let id = SubscriptionId(at as u64 + 1);
            assert_eq!(subscriptions.subscribe(request, &pattern(at), shared), Subscribe::Ask(id));
        }
        assert_eq!(subscriptions.subscribe(request, &pattern(0), shared), Subscribe::Wait);
        assert_eq!(subscriptions.subscribe(request, &pattern(0), shared), Subscribe::Wait);
        assert_eq!(subscriptions.subscribe(request, &pattern(0), shared), Subscribe::TooMany);
        assert_eq!(subscriptions.subscribe(request, &pattern(0), own), Subscribe::TooMany);
        assert_eq!(subscriptions.subscribed(SubscriptionId(1), true).len(), 3);
        let next = SubscriptionId(limits::SESSION_SUBSCRIPTIONS as u64 - 1);
        assert_eq!(subscriptions.subscribe(request, &pattern(0), own), Subscribe::Ask(next));
    }

    #[test]
    fn topics_have_a_size_all_together() {
        let mut subscriptions = Subscriptions::default();
        let pattern = Pattern::from_wamp("a").unwrap();
        let half = Kind { own: true, text: limits::SESSION_PATTERNS / 2, ..Kind::default() };
        let mut ask = || subscriptions.subscribe(RequestId(1), &pattern, half);
        assert_eq!(ask(), Subscribe::Ask(SubscriptionId(1)));
        assert_eq!((ask(), ask()), (Subscribe::Ask(SubscriptionId(2)), Subscribe::TooMany));
        subscriptions.subscribed(SubscriptionId(1), false);
        let id = SubscriptionId(3);
        assert_eq!(subscriptions.subscribe(RequestId(1), &pattern, half), Subscribe::Ask(id));
    }

    #[test]
    fn filters_have_a_size_all_together() {
        let mut subscriptions = Subscriptions::default();
        let pattern = Pattern::from_wamp("a").unwrap();
        let half = Kind { own: true, filter: limits::SESSION_FILTERS / 2, ..Kind::default() };
        let mut ask = || subscriptions.subscribe(RequestId(1), &pattern, half);
        assert_eq!(
            (ask(), ask()),
            (Subscribe::Ask(SubscriptionId(1)), Subscribe::Ask(SubscriptionId(2)))
        );
        assert_eq!(ask(), Subscribe::TooLargeFilters);
        subscriptions.subscribed(SubscriptionId(1), false);
        let id = SubscriptionId(3);
        assert_eq!(subscriptions.subscribe(RequestId(1), &pattern, half), Subscribe::Ask(id));
    }
}

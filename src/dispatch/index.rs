//! A node's live subscriptions by realm and pattern.
//!
//! Invariant: [`Index::find`] gives every target whose pattern matches, each once, in ascending order. The size of
//! the cache does not depend on the length of topics.
//!
//! Deliberately absent: matching itself (`patterns`), sessions and mailboxes.

use std::collections::HashMap;
use std::sync::Arc;

use super::patterns::Patterns;
use crate::types::event::SessionId;
use crate::types::subscription::SubscriptionId;
use crate::types::topic::{Pattern, Realm, Topic};

/// One subscription of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) session: SessionId,
    pub(super) id: SubscriptionId,
}

/// Topics with cached targets; the cache is emptied when there are more, or when a subscription changes.
const REMEMBERED_TOPICS: usize = 16_384;

/// Bytes of the texts of such topics and of their targets; beyond it, the cache is emptied.
const REMEMBERED_BYTES: usize = 16 << 20;

#[derive(Debug, Default)]
pub(super) struct Index {
    realms: HashMap<Realm, RealmIndex>,
}

#[derive(Debug, Default)]
struct RealmIndex {
    patterns: Patterns<Target>,
    remembered: HashMap<Topic, Arc<[Target]>>,
    remembered_bytes: usize,
}

impl Index {
    pub(super) fn insert(&mut self, realm: &Realm, pattern: &Pattern, target: Target) {
        let index = self.realms.entry(realm.clone()).or_default();
        index.forget();
        index.patterns.insert(pattern, target);
    }

    pub(super) fn remove(&mut self, realm: &Realm, pattern: &Pattern, target: Target) {
        let Some(index) = self.realms.get_mut(realm) else { return };
        index.forget();
        index.patterns.remove(pattern, target);
    }

    /// All targets of a topic.
    pub(super) fn find(&mut self, realm: &Realm, topic: &Topic) -> Arc<[Target]> {
        let Some(index) = self.realms.get_mut(realm) else { return Arc::new([]) };
        if let Some(found) = index.remembered.get(topic) {
            return found.clone();
        }
        let found: Arc<[Target]> = index.patterns.search(topic).into();
        index.remember(topic, &found);
        found
    }
}

impl RealmIndex {
    fn forget(&mut self) {
        self.remembered.clear();
        self.remembered_bytes = 0;
    }

    fn remember(&mut self, topic: &Topic, found: &Arc<[Target]>) {
        let bytes = topic.as_str().len() + size_of_val(&**found);
        let is_full = self.remembered.len() >= REMEMBERED_TOPICS
            || self.remembered_bytes + bytes > REMEMBERED_BYTES;
        if is_full {
            self.forget();
        }
        if bytes <= REMEMBERED_BYTES {
            self.remembered_bytes += bytes;
            self.remembered.insert(topic.clone(), found.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::patterns::DEPTH;
    use super::*;

    fn any_pattern() -> impl Strategy<Value = Pattern> {
        let part = prop_oneof![Just("a"), Just("b"), Just("+"), Just("$x")];
        let parts = (any_depth(), proptest::collection::vec(part, 1..4), any::<bool>()).prop_map(
            |(deep, mut parts, rest)| {
                if rest {
                    parts.push("#");
                }
                Pattern::from_mqtt(&(deep + &parts.join("/"))).unwrap()
            },
        );
        let prefix = "[abä.]{1,4}".prop_map(|text| Pattern::from_wamp_prefix(&text).unwrap());
        prop_oneof![parts, prefix]
    }

    /// A prefix: mostly empty, and sometimes about as many parts as the trie is deep.
    fn any_depth() -> impl Strategy<Value = String> {
        let deep = (DEPTH - 2..DEPTH + 2).prop_map(|count| "a/".repeat(count));
        prop_oneof![3 => Just(String::new()), 1 => deep]
    }

    #[test]
    fn what_is_remembered_has_a_size() {
        let realm = Realm::new("r").unwrap();
        let mut index = Index::default();
        let target = Target { session: SessionId(1), id: SubscriptionId(1) };
        index.insert(&realm, &Pattern::from_mqtt("#").unwrap(), target);
        let long = "x/".repeat(30_000);
        for number in 0..2 * REMEMBERED_BYTES / long.len() {
            let topic = Topic::from_mqtt(&format!("{long}{number}")).unwrap();
            assert_eq!(&*index.find(&realm, &topic), [target]);
            assert!(index.realms[&realm].remembered_bytes <= REMEMBERED_BYTES);
        }
    }

    proptest! {
        #[test]
        fn finds_what_matching_one_by_one_finds(
            patterns in proptest::collection::vec((any_pattern(), any::<bool>()), 1..20),
            topics in proptest::collection::vec(
                (any_depth(), "(a|b|ä|aä|\\$x)(/(a|b|c)){0,3}"),
                1..10,
            ),
        ) {
            let realm = Realm::new("r").unwrap();
            let target = |n: usize| Target { session: SessionId(n as u64 % 3), id: SubscriptionId(n as u64) };
            let mut index = Index::default();
            for (n, (pattern, _)) in patterns.iter().enumerate() {
                index.insert(&realm, pattern, target(n));
            }
            for (n, (pattern, kept)) in patterns.iter().enumerate() {
                if !kept {
                    index.remove(&realm, pattern, target(n));
                }
            }
            for (deep, topic) in topics {
                let topic = Topic::from_mqtt(&(deep + &topic)).unwrap();
                let mut expected: Vec<Target> = patterns
                    .iter()
                    .enumerate()
                    .filter(|(_, (pattern, kept))| *kept && pattern.matches(&topic))
                    .map(|(n, _)| target(n))
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(&*index.find(&realm, &topic), &expected[..]);
                prop_assert_eq!(&*index.find(&realm, &topic), &expected[..]);
            }
        }
    }
}

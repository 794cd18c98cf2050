//! Subscriptions by realm and pattern: exact topics by hash, patterns by a trie of parts, prefixes by their text.
//!
//! Invariant: [`Index::find`] gives every target whose pattern matches, each once, in ascending order.
//!
//! Deliberately absent: sessions and mailboxes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::event::SessionId;
use crate::gate::SubscriptionId;
use crate::topic::{Pattern, PatternPart, Realm, Topic};

/// One subscription of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) session: SessionId,
    pub(super) id: SubscriptionId,
}

/// Topics whose targets are remembered; all are forgotten when there are more, or when a subscription changes.
const REMEMBERED_TOPICS: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Index {
    realms: HashMap<Realm, RealmIndex>,
}

#[derive(Debug, Default)]
struct RealmIndex {
    exact: HashMap<Topic, Vec<Target>>,
    parts: Node,
    prefixes: BTreeMap<String, Vec<Target>>,
    remembered: HashMap<Topic, Arc<[Target]>>,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    one: Option<Box<Node>>,
    /// Targets whose pattern ends here.
    here: Vec<Target>,
    /// Targets whose pattern goes on with anything from here.
    rest: Vec<Target>,
}

impl Index {
    pub(super) fn insert(&mut self, realm: &Realm, pattern: &Pattern, target: Target) {
        let index = self.realms.entry(realm.clone()).or_default();
        index.remembered.clear();
        match pattern {
            Pattern::Exact(topic) => index.exact.entry(topic.clone()).or_default().push(target),
            Pattern::Parts(parts) => index.parts.insert(parts, target),
            Pattern::Prefix(prefix) => {
                index.prefixes.entry(prefix.clone()).or_default().push(target);
            }
        }
    }

    pub(super) fn remove(&mut self, realm: &Realm, pattern: &Pattern, target: Target) {
        let Some(index) = self.realms.get_mut(realm) else { return };
        index.remembered.clear();
        match pattern {
            Pattern::Exact(topic) => {
                if let Some(targets) = index.exact.get_mut(topic) {
                    targets.retain(|other| *other != target);
                    if targets.is_empty() {
                        index.exact.remove(topic);
                    }
                }
            }
            Pattern::Parts(parts) => index.parts.remove(parts, target),
            Pattern::Prefix(prefix) => {
                if let Some(targets) = index.prefixes.get_mut(prefix) {
                    targets.retain(|other| *other != target);
                    if targets.is_empty() {
                        index.prefixes.remove(prefix);
                    }
                }
            }
        }
    }

    /// All targets of a topic.
    pub(super) fn find(&mut self, realm: &Realm, topic: &Topic) -> Arc<[Target]> {
        let Some(index) = self.realms.get_mut(realm) else { return Arc::new([]) };
        if let Some(found) = index.remembered.get(topic) {
            return found.clone();
        }
        let found: Arc<[Target]> = index.search(topic).into();
        if index.remembered.len() >= REMEMBERED_TOPICS {
            index.remembered.clear();
        }
        index.remembered.insert(topic.clone(), found.clone());
        found
    }
}

impl RealmIndex {
    fn search(&self, topic: &Topic) -> Vec<Target> {
        let mut found = self.exact.get(topic).cloned().unwrap_or_default();
        let parts: Vec<&str> = topic.parts().collect();
        self.parts.search(&parts, topic.is_reserved(), &mut found);
        if !self.prefixes.is_empty() {
            let text = topic.to_wamp();
            for (end, _) in text.char_indices().chain([(text.len(), ' ')]) {
                if let Some(targets) = self.prefixes.get(&text[..end]) {
                    found.extend_from_slice(targets);
                }
            }
        }
        found.sort_unstable();
        found
    }
}

impl Node {
    fn insert(&mut self, parts: &[PatternPart], target: Target) {
        match parts.split_first() {
            None => self.here.push(target),
            Some((PatternPart::Rest, _)) => self.rest.push(target),
            Some((PatternPart::One, tail)) => {
                self.one.get_or_insert_default().insert(tail, target);
            }
            Some((PatternPart::Literal(part), tail)) => {
                self.literals.entry(part.clone()).or_default().insert(tail, target);
            }
        }
    }

    fn remove(&mut self, parts: &[PatternPart], target: Target) {
        match parts.split_first() {
            None => self.here.retain(|other| *other != target),
            Some((PatternPart::Rest, _)) => self.rest.retain(|other| *other != target),
            Some((PatternPart::One, tail)) => {
                if let Some(node) = &mut self.one {
                    node.remove(tail, target);
                    if node.is_empty() {
                        self.one = None;
                    }
                }
            }
            Some((PatternPart::Literal(part), tail)) => {
                if let Some(node) = self.literals.get_mut(part) {
                    node.remove(tail, target);
                    if node.is_empty() {
                        self.literals.remove(part);
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.literals.is_empty()
            && self.one.is_none()
            && self.here.is_empty()
            && self.rest.is_empty()
    }

    /// `hidden`: the topic begins with `$`, which no wildcard in the first part matches (MQTT 5 section 4.7.2).
    fn search(&self, parts: &[&str], hidden: bool, found: &mut Vec<Target>) {
        if !hidden {
            found.extend_from_slice(&self.rest);
        }
        let Some((part, tail)) = parts.split_first() else {
            found.extend_from_slice(&self.here);
            return;
        };
        if let Some(node) = self.literals.get(*part) {
            node.search(tail, false, found);
        }
        if let Some(node) = self.one.as_ref().filter(|_| !hidden) {
            node.search(tail, false, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_pattern() -> impl Strategy<Value = Pattern> {
        let part = prop_oneof![Just("a"), Just("b"), Just("+"), Just("$x")];
        let parts =
            (proptest::collection::vec(part, 1..4), any::<bool>()).prop_map(|(mut parts, rest)| {
                if rest {
                    parts.push("#");
                }
                Pattern::from_mqtt(&parts.join("/")).unwrap()
            });
        prop_oneof![parts, "[ab.]{1,3}".prop_map(|text| Pattern::from_wamp_prefix(&text).unwrap())]
    }

    proptest! {
        #[test]
        fn finds_what_matching_one_by_one_finds(
            patterns in proptest::collection::vec((any_pattern(), any::<bool>()), 1..20),
            topics in proptest::collection::vec("(a|b|\\$x)(/(a|b|c)){0,3}", 1..10),
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
            for topic in topics {
                let topic = Topic::from_mqtt(&topic).unwrap();
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

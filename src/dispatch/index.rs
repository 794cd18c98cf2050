//! Subscriptions by realm and pattern: exact topics by hash, patterns by a trie of their first parts, prefixes by their
//! text.
//!
//! Invariant: [`Index::find`] gives every target whose pattern matches, each once, in ascending order. Neither the depth of
//! the trie nor what is remembered of topics grows with how long topics and patterns are, and no topic costs more than
//! matching the patterns one by one.
//!
//! Deliberately absent: sessions and mailboxes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::event::SessionId;
use crate::gate::SubscriptionId;
use crate::topic::{Pattern, PatternPart, PatternParts, Realm, Topic};

/// One subscription of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) session: SessionId,
    pub(super) id: SubscriptionId,
}

/// Topics whose targets are remembered; all are forgotten when there are more, or when a subscription changes.
const REMEMBERED_TOPICS: usize = 16_384;

/// Bytes of the texts of such topics and of their targets; past it, all are forgotten.
const REMEMBERED_BYTES: usize = 16 << 20;

/// Parts of a pattern that the trie has nodes for. It is searched by recursion. Patterns that go on for longer are matched
/// one by one where it ends.
const DEPTH: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Index {
    realms: HashMap<Realm, RealmIndex>,
}

#[derive(Debug, Default)]
struct RealmIndex {
    exact: HashMap<Topic, Vec<Target>>,
    parts: Node,
    prefixes: BTreeMap<Arc<str>, Vec<Target>>,
    remembered: HashMap<Topic, Arc<[Target]>>,
    remembered_bytes: usize,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    one: Option<Box<Node>>,
    /// Targets whose pattern ends here.
    here: Vec<Target>,
    /// Targets whose pattern goes on with anything from here.
    rest: Vec<Target>,
    /// Targets whose pattern goes on beyond the depth of the trie.
    deep: Vec<(PatternParts, Target)>,
}

impl Index {
    pub(super) fn insert(&mut self, realm: &Realm, pattern: &Pattern, target: Target) {
        let index = self.realms.entry(realm.clone()).or_default();
        index.forget();
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
        index.forget();
        match pattern {
            Pattern::Exact(topic) => {
                if let Some(targets) = index.exact.get_mut(topic) {
                    targets.retain(|other| *other != target);
                    if targets.is_empty() {
                        index.exact.remove(topic);
                    }
                }
            }
            Pattern::Parts(parts) => index.parts.remove(parts.iter(), 0, target),
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

    fn search(&self, topic: &Topic) -> Vec<Target> {
        let mut found = self.exact.get(topic).cloned().unwrap_or_default();
        // One more than there are nodes for tells whether it goes on.
        let parts: Vec<&str> = topic.parts().take(DEPTH + 1).collect();
        self.parts.search(topic, &parts, topic.is_reserved(), &mut found);
        if !self.prefixes.is_empty() {
            self.search_prefixes(&topic.to_wamp(), &mut found);
        }
        found.sort_unstable();
        found
    }

    /// The longest prefix of a text comes last of those that are not behind it in their order, unless another text comes
    /// between: then what they have in common is the longest that there can be.
    fn search_prefixes(&self, text: &str, found: &mut Vec<Target>) {
        let mut bound = Bound::Included(text);
        loop {
            let mut range = self.prefixes.range::<str, _>((Bound::Unbounded, bound));
            let Some((prefix, targets)) = range.next_back() else { return };
            if text.starts_with(&**prefix) {
                found.extend_from_slice(targets);
                bound = Bound::Excluded(&**prefix);
            } else {
                bound = Bound::Included(&text[..common(text, prefix)]);
            }
        }
    }
}

/// How many bytes of whole characters two texts have in common.
fn common(a: &str, b: &str) -> usize {
    let differ = a.bytes().zip(b.bytes()).position(|(a, b)| a != b);
    let mut common = differ.unwrap_or(a.len().min(b.len()));
    while !a.is_char_boundary(common) {
        common -= 1;
    }
    common
}

impl Node {
    fn insert(&mut self, pattern: &PatternParts, target: Target) {
        let mut node = self;
        for (depth, part) in pattern.iter().enumerate() {
            if depth == DEPTH {
                return node.deep.push((pattern.clone(), target));
            }
            node = match part {
                PatternPart::Rest => return node.rest.push(target),
                PatternPart::One => node.one.get_or_insert_default(),
                PatternPart::Literal(part) => node.literals.entry(part.into()).or_default(),
            };
        }
        node.here.push(target);
    }

    fn remove<'a>(
        &mut self,
        mut parts: impl Iterator<Item = PatternPart<'a>>,
        depth: usize,
        target: Target,
    ) {
        match parts.next() {
            None => self.here.retain(|other| *other != target),
            Some(_) if depth == DEPTH => self.deep.retain(|(_, other)| *other != target),
            Some(PatternPart::Rest) => self.rest.retain(|other| *other != target),
            Some(PatternPart::One) => {
                if let Some(node) = &mut self.one {
                    node.remove(parts, depth + 1, target);
                    if node.is_empty() {
                        self.one = None;
                    }
                }
            }
            Some(PatternPart::Literal(part)) => {
                if let Some(node) = self.literals.get_mut(part) {
                    node.remove(parts, depth + 1, target);
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
            && self.deep.is_empty()
    }

    /// `hidden`: the topic begins with `$`, which no wildcard in the first part matches (MQTT 5 section 4.7.2).
    fn search(&self, topic: &Topic, parts: &[&str], hidden: bool, found: &mut Vec<Target>) {
        if !hidden {
            found.extend_from_slice(&self.rest);
        }
        let deep = self.deep.iter().filter(|(pattern, _)| pattern.matches(topic));
        found.extend(deep.map(|(_, target)| *target));
        let Some((part, tail)) = parts.split_first() else {
            found.extend_from_slice(&self.here);
            return;
        };
        if let Some(node) = self.literals.get(*part) {
            node.search(topic, tail, false, found);
        }
        if let Some(node) = self.one.as_ref().filter(|_| !hidden) {
            node.search(topic, tail, false, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// What goes before: mostly nothing, and sometimes as many parts as the trie is deep, or nearly.
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

    /// Patterns and topics of as many parts as a text can have.
    #[test]
    fn depth_costs_no_stack() {
        let realm = Realm::new("r").unwrap();
        let mut index = Index::default();
        let target = |n: u64| Target { session: SessionId(n), id: SubscriptionId(n) };
        let deep = "/".repeat(crate::limits::TOPIC - 1);
        let patterns = [format!("{deep}#"), format!("+{deep}"), deep.clone() + "+", "+/#".into()];
        let patterns = patterns.map(|text| Pattern::from_mqtt(&text).unwrap());
        for (n, pattern) in (1..).zip(&patterns) {
            index.insert(&realm, pattern, target(n));
        }
        for (topic, expected) in [
            (deep.clone(), vec![target(1), target(2), target(3), target(4)]),
            (format!("a{deep}"), vec![target(2), target(4)]),
        ] {
            let topic = Topic::from_mqtt(&topic).unwrap();
            assert_eq!(&*index.find(&realm, &topic), expected);
        }
        for (n, pattern) in (1..).zip(&patterns) {
            index.remove(&realm, pattern, target(n));
        }
        assert!(index.realms[&realm].parts.is_empty());
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

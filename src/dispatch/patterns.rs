//! Patterns and their targets, indexed to find the targets of a topic: exact topics by hash, patterns by a trie of their first
//! parts, prefixes by their text.
//!
//! Invariant: [`Patterns::search`] gives every target whose pattern matches, each once, in ascending order. Nothing
//! here recurses, and the depth of the trie does not grow with the length of patterns. No topic costs more than
//! matching the patterns one by one.
//!
//! Deliberately absent: realms, sessions and mailboxes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::types::topic::{Pattern, PatternPart, PatternParts, Topic, INDEXED_PARTS};

/// Depth of the trie in parts. Longer patterns are matched one by one where it ends.
pub(super) const DEPTH: usize = INDEXED_PARTS;

/// Patterns of one realm.
#[derive(Debug)]
pub(super) struct Patterns<T> {
    exact: HashMap<Topic, Targets<T>>,
    parts: Trie<T>,
    prefixes: BTreeMap<Arc<str>, Targets<T>>,
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), parts: Trie::default(), prefixes: BTreeMap::new() }
    }
}

impl<T: Copy + Ord> Patterns<T> {
    pub(super) fn insert(&mut self, pattern: &Pattern, target: T) {
        match pattern {
            Pattern::Exact(topic) => self.exact.entry(topic.clone()).or_default().add(target),
            Pattern::Parts(parts) => self.parts.insert(parts, target),
            Pattern::Prefix(prefix) => {
                self.prefixes.entry(prefix.clone()).or_default().add(target);
            }
        }
    }

    pub(super) fn remove(&mut self, pattern: &Pattern, target: T) {
        match pattern {
            Pattern::Exact(topic) => {
                if self.exact.get_mut(topic).is_some_and(|targets| targets.take(target)) {
                    self.exact.remove(topic);
                }
            }
            Pattern::Parts(parts) => self.parts.remove(parts, target),
            Pattern::Prefix(prefix) => {
                if self.prefixes.get_mut(prefix).is_some_and(|targets| targets.take(target)) {
                    self.prefixes.remove(prefix);
                }
            }
        }
    }

    /// All targets of a topic.
    pub(super) fn search(&self, topic: &Topic) -> Vec<T> {
        let mut found = Vec::new();
        self.exact.get(topic).into_iter().for_each(|targets| targets.add_to(&mut found));
        self.parts.search(topic, &mut found);
        if !self.prefixes.is_empty() {
            self.search_prefixes(&topic.to_wamp(), &mut found);
        }
        found.sort_unstable();
        found
    }

    /// The longest prefix of a text is the last key that is not greater, unless another text comes between: then no
    /// prefix can be longer than what the two have in common.
    fn search_prefixes(&self, text: &str, found: &mut Vec<T>) {
        let mut bound = Bound::Included(text);
        loop {
            let mut range = self.prefixes.range::<str, _>((Bound::Unbounded, bound));
            let Some((prefix, targets)) = range.next_back() else { return };
            if text.starts_with(&**prefix) {
                targets.add_to(found);
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

/// The targets of one pattern: usually one. Adding and removing one takes a time that hardly grows with their number.
#[derive(Debug)]
enum Targets<T> {
    One(Option<T>),
    Many(BTreeSet<T>),
}

impl<T> Default for Targets<T> {
    fn default() -> Self {
        Self::One(None)
    }
}

impl<T: Copy + Ord> Targets<T> {
    fn add(&mut self, target: T) {
        match self {
            Self::One(Some(one)) if *one == target => {}
            Self::One(Some(one)) => *self = Self::Many(BTreeSet::from([*one, target])),
            Self::One(none) => *none = Some(target),
            Self::Many(targets) => drop(targets.insert(target)),
        }
    }

    /// Removes a target; returns whether none are left.
    fn take(&mut self, target: T) -> bool {
        match self {
            Self::One(one) => *one = one.filter(|one| *one != target),
            Self::Many(targets) => drop(targets.remove(&target)),
        }
        self.is_empty()
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::One(one) => one.is_none(),
            Self::Many(targets) => targets.is_empty(),
        }
    }

    fn add_to(&self, found: &mut Vec<T>) {
        match self {
            Self::One(one) => found.extend(one),
            Self::Many(targets) => found.extend(targets),
        }
    }
}

/// The number of a node.
type Number = usize;

/// Where a trie begins.
const ROOT: Number = 0;

/// Patterns part by part. The nodes are in one list, so that dropping a deep trie does not recurse.
#[derive(Debug)]
struct Trie<T> {
    nodes: Vec<Node<T>>,
    /// Nodes that are not used.
    free: Vec<Number>,
}

#[derive(Debug)]
struct Node<T> {
    literals: HashMap<Box<str>, Number>,
    one: Option<Number>,
    /// Targets whose pattern ends here.
    here: Targets<T>,
    /// Targets whose pattern continues with anything from here.
    rest: Targets<T>,
    /// Patterns that continue beyond the depth of the trie, with their targets.
    deep: BTreeMap<PatternParts, Targets<T>>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            literals: HashMap::new(),
            one: None,
            here: Targets::default(),
            rest: Targets::default(),
            deep: BTreeMap::new(),
        }
    }
}

impl<T: Copy + Ord> Node<T> {
    fn is_empty(&self) -> bool {
        self.literals.is_empty()
            && self.one.is_none()
            && self.here.is_empty()
            && self.rest.is_empty()
            && self.deep.is_empty()
    }

    fn find_deep(&self, topic: &Topic, found: &mut Vec<T>) {
        let fitting = self.deep.iter().filter(|(pattern, _)| pattern.matches(topic));
        fitting.for_each(|(_, targets)| targets.add_to(found));
    }

    fn child(&self, part: PatternPart<'_>) -> Option<Number> {
        match part {
            PatternPart::Literal(part) => self.literals.get(part).copied(),
            PatternPart::One => self.one,
            PatternPart::Rest => None,
        }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], free: Vec::new() }
    }
}

/// Where a pattern ends in its last node.
enum End {
    Here,
    Rest,
    Deep,
}

impl<T: Copy + Ord> Trie<T> {
    /// Adds a target, with the nodes that lead to it.
    fn insert(&mut self, pattern: &PatternParts, target: T) {
        let mut at = ROOT;
        for (depth, part) in pattern.iter().enumerate() {
            if depth == DEPTH {
                return self.nodes[at].deep.entry(pattern.clone()).or_default().add(target);
            }
            if part == PatternPart::Rest {
                return self.nodes[at].rest.add(target);
            }
            at = match self.nodes[at].child(part) {
                Some(child) => child,
                None => self.sprout(at, part),
            };
        }
        self.nodes[at].here.add(target);
    }

    fn sprout(&mut self, at: Number, part: PatternPart<'_>) -> Number {
        let child = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            self.nodes.len() - 1
        });
        let node = &mut self.nodes[at];
        match part {
            PatternPart::Literal(part) => {
                node.literals.insert(part.into(), child);
            }
            PatternPart::One | PatternPart::Rest => node.one = Some(child),
        }
        child
    }

    /// Removes a target of a pattern, and the nodes that only it used.
    fn remove(&mut self, pattern: &PatternParts, target: T) {
        let mut way = Vec::new();
        let mut at = ROOT;
        let mut end = End::Here;
        for (depth, part) in pattern.iter().enumerate() {
            if depth == DEPTH {
                end = End::Deep;
                break;
            }
            if part == PatternPart::Rest {
                end = End::Rest;
                break;
            }
            let Some(child) = self.nodes[at].child(part) else { return };
            way.push((at, part));
            at = child;
        }
        let node = &mut self.nodes[at];
        match end {
            End::Here => drop(node.here.take(target)),
            End::Rest => drop(node.rest.take(target)),
            End::Deep => {
                if node.deep.get_mut(pattern).is_some_and(|targets| targets.take(target)) {
                    node.deep.remove(pattern);
                }
            }
        }
        while let Some((parent, part)) = way.pop() {
            if !self.nodes[at].is_empty() {
                return;
            }
            self.nodes[at] = Node::default();
            self.free.push(at);
            let parent_node = &mut self.nodes[parent];
            match part {
                PatternPart::Literal(part) => {
                    parent_node.literals.remove(part);
                }
                PatternPart::One | PatternPart::Rest => parent_node.one = None,
            }
            at = parent;
        }
        if self.free.len() + 1 == self.nodes.len() {
            self.nodes.truncate(ROOT + 1);
            self.free.clear();
        }
    }

    fn search(&self, topic: &Topic, found: &mut Vec<T>) {
        // The nodes that the parts so far lead to. A wildcard in the first part does not match a topic that begins
        // with `$` (MQTT 5 section 4.7.2).
        let mut hidden = topic.is_reserved();
        let mut here = vec![ROOT];
        let mut next = Vec::new();
        for part in topic.parts() {
            for node in here.drain(..).map(|number| &self.nodes[number]) {
                node.find_deep(topic, found);
                if !hidden {
                    node.rest.add_to(found);
                    next.extend(node.one);
                }
                next.extend(node.literals.get(part));
            }
            std::mem::swap(&mut here, &mut next);
            hidden = false;
            if here.is_empty() {
                return;
            }
        }
        for node in here.drain(..).map(|number| &self.nodes[number]) {
            node.find_deep(topic, found);
            node.rest.add_to(found);
            node.here.add_to(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::from_mqtt(text).unwrap()
    }

    /// Patterns and topics with as many parts as a text can have.
    #[test]
    fn depth_costs_no_stack() {
        let deep = "/".repeat(crate::types::limits::TOPIC - 1);
        let all = [format!("{deep}#"), format!("+{deep}"), deep.clone() + "+", "+/#".into()];
        let all = all.map(|text| pattern(&text));
        let mut patterns = Patterns::default();
        for (n, pattern) in (1..).zip(&all) {
            patterns.insert(pattern, n);
        }
        for (topic, expected) in
            [(deep.clone(), vec![1, 2, 3, 4]), (format!("a{deep}"), vec![2, 4])]
        {
            let topic = Topic::from_mqtt(&topic).unwrap();
            assert_eq!(patterns.search(&topic), expected);
        }
        for (n, pattern) in (1..).zip(&all) {
            patterns.remove(pattern, n);
        }
        assert_eq!((patterns.parts.nodes.len(), patterns.parts.free.len()), (1, 0));
        assert!(patterns.parts.nodes[ROOT].is_empty());
    }

    /// A client may have ten thousand filters for one topic, such as replays from different places.
    #[test]
    fn what_is_taken_out_leaves_nothing_behind() {
        let mut patterns = Patterns::default();
        let all = [pattern("a/b"), pattern("a/+/c"), pattern("a/#"), pattern("+/+")];
        for (at, pattern) in all.iter().enumerate() {
            for target in 0..10_000 {
                patterns.insert(pattern, target * 4 + at);
            }
        }
        assert_eq!(patterns.search(&Topic::from_mqtt("a/b").unwrap()).len(), 30_000);
        for (at, pattern) in all.iter().enumerate() {
            for target in 0..10_000 {
                patterns.remove(pattern, target * 4 + at);
            }
        }
        assert!(patterns.exact.is_empty() && patterns.prefixes.is_empty());
        assert_eq!((patterns.parts.nodes.len(), patterns.parts.free.len()), (1, 0));
        assert!(patterns.parts.nodes[ROOT].is_empty());
    }
}

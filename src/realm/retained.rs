//! A realm's retained values, in the order of their topics' texts, as an immutable map: a copy costs nothing, so that
//! a reader takes the values as of one position and looks through them at its own pace.
//!
//! A pattern is looked up as in a trie: from one candidate the search jumps to the next topic that can match, past whole
//! subtrees that can't.
//!
//! Deliberately absent: how values change (`realm`).

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{EventId, Position, Slot, Stamp};

use crate::event::{Payload, Qos, SessionId};
use crate::topic::{Pattern, PatternPart, Topic};

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    pub position: Position,
    pub slot: Slot,
    pub stamp: Stamp,
    /// Within the slot's segment.
    pub offset: u32,
}

impl At {
    /// The event's id.
    #[must_use]
    pub fn id(&self) -> EventId {
        EventId::new(self.stamp, self.slot, self.offset)
    }
}

/// A topic's last value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retained {
    /// Where it was last changed.
    pub at: At,
    pub publisher: SessionId,
    pub disclose_me: bool,
    pub qos: Qos,
    pub payload: Payload,
    pub properties: Bytes,
    /// Set while the value lives with a session.
    pub bound: Option<Bond>,
}

/// A value's tie to a session: what takes its place when that ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    pub session: SessionId,
    pub will: Payload,
}

/// The retained values of a realm as of one position. Clones share what they have in common.
#[derive(Clone, Debug, Default)]
pub struct RetainedMap {
    topics: OrdMap<Topic, Arc<Retained>>,
}

impl RetainedMap {
    /// How many topics have a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether no topic has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// A topic's value.
    #[must_use]
    pub fn get(&self, topic: &Topic) -> Option<&Arc<Retained>> {
        self.topics.get(topic)
    }

    pub(super) fn insert(&mut self, topic: Topic, retained: Arc<Retained>) {
        self.topics.insert(topic, retained);
    }

    pub(super) fn remove(&mut self, topic: &Topic) {
        self.topics.remove(topic);
    }

    /// The first topic behind another one (from the beginning, if there is none) that fits a pattern.
    #[must_use]
    pub fn next_match(
        &self,
        pattern: &Pattern,
        behind: Option<&Topic>,
    ) -> Option<(&Topic, &Arc<Retained>)> {
        if let Pattern::Exact(topic) = pattern {
            let found = self.topics.get_key_value(topic)?;
            return behind.is_none_or(|behind| behind < topic).then_some(found);
        }
        let literal = literal_prefix(pattern);
        let mut from = match behind {
            Some(behind) if behind.as_str() >= literal.as_str() => Bound::Excluded(behind.clone()),
            _ => Bound::Included(Topic::from_canonical(&literal)),
        };
        loop {
            let (topic, retained) = self.topics.range((from, Bound::Unbounded)).next()?;
            if !topic.as_str().starts_with(literal.as_str()) {
                return None;
            }
            if pattern.matches(topic) {
                return Some((topic, retained));
            }
            from = match pattern {
                Pattern::Parts(parts) => next_candidate(parts, topic),
                Pattern::Exact(_) | Pattern::Prefix(_) => Bound::Excluded(topic.clone()),
            };
        }
    }
}

/// What the canonical text of every topic that fits begins with.
fn literal_prefix(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Exact(topic) => topic.as_str().to_owned(),
        // Escapes differ between the spellings: only what comes before the first of them is sure.
        Pattern::Prefix(prefix) => {
            let plain = prefix.find(['%', '/', '+']).unwrap_or(prefix.len());
            prefix[..plain].replace('.', "/")
        }
        Pattern::Parts(parts) => literal_run(parts),
    }
}

/// The text of the literals that parts begin with, with the separator behind them where another part has to follow.
fn literal_run(parts: &[PatternPart]) -> String {
    let mut run = String::new();
    for (at, part) in parts.iter().enumerate() {
        match part {
            PatternPart::Literal(literal) => {
                run.push_str(literal);
                if matches!(parts.get(at + 1), Some(PatternPart::Literal(_) | PatternPart::One)) {
                    run.push('/');
                }
            }
            PatternPart::One | PatternPart::Rest => break,
        }
    }
    run
}

/// The character behind the separator: a text with it in the separator's place comes after a whole subtree.
const BEHIND_SEPARATOR: char = '0';

/// Where the next topic that can match is to be looked for, given one that does not match.
fn next_candidate(pattern: &[PatternPart], topic: &Topic) -> Bound<Topic> {
    let text = topic.as_str();
    let mut parts = text.split('/');
    let mut begin = 0;
    for (at, wanted) in pattern.iter().enumerate() {
        // Too short: what is below it may match, and what comes before that may as well.
        let Some(part) = parts.next() else { return Bound::Excluded(topic.clone()) };
        if let PatternPart::Literal(literal) = wanted {
            if part != &**literal {
                let candidate = format!("{}{}", &text[..begin], literal_run(&pattern[at..]));
                // Where nothing need follow, other parts may stand between a topic and those below it.
                let below = format!("{candidate}/");
                let mut candidates = [candidate, below].into_iter();
                let next = candidates.find(|candidate| candidate.as_str() > text);
                return match next {
                    Some(next) => Bound::Included(Topic::from_canonical(&next)),
                    None => behind_subtree(&text[..begin]),
                };
            }
        }
        begin = (begin + part.len() + 1).min(text.len());
    }
    if begin >= text.len() {
        return Bound::Excluded(topic.clone());
    }
    // Too long: so is everything below the parts that fit.
    behind_subtree(&text[..begin])
}

/// Behind all topics that begin with a text that ends in a separator; at the very end where it is empty.
fn behind_subtree(text: &str) -> Bound<Topic> {
    match text.strip_suffix('/') {
        Some(parent) => {
            Bound::Included(Topic::from_canonical(&format!("{parent}{BEHIND_SEPARATOR}")))
        }
        None => Bound::Excluded(Topic::from_canonical("\u{10FFFF}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn retained() -> Arc<Retained> {
        let at = At { position: Position(1), slot: Slot(1), stamp: Stamp(0), offset: 0 };
        Arc::new(Retained {
            at,
            publisher: SessionId(1),
            disclose_me: false,
            qos: Qos::AtMostOnce,
            payload: Payload::raw("x".into()),
            properties: Bytes::new(),
            bound: None,
        })
    }

    fn found(map: &RetainedMap, pattern: &Pattern) -> Vec<Topic> {
        let mut found: Vec<Topic> = Vec::new();
        while let Some((topic, _)) = map.next_match(pattern, found.last()) {
            found.push(topic.clone());
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_pattern_finds_what_a_scan_finds(
            topics in proptest::collection::btree_set("[a$]?[ab !]{0,2}(/[ab 0]{0,2}){0,3}", 0..24),
            pattern in "([ab ]{0,2}|\\+)(/([ab 0]{0,2}|\\+)){0,3}(/#)?|#|\\+/#",
            prefix in "[ab]{1,2}([.][ab]{0,1})?",
        ) {
            let topics: Vec<Topic> =
                topics.iter().filter(|t| !t.is_empty()).map(|t| Topic::from_canonical(t)).collect();
            let mut map = RetainedMap::default();
            for topic in &topics {
                map.insert(topic.clone(), retained());
            }
            let patterns = [Pattern::from_mqtt(&pattern), Pattern::from_wamp_prefix(&prefix)];
            for pattern in patterns.into_iter().flatten() {
                let expected: Vec<_> = topics.iter().filter(|t| pattern.matches(t)).cloned().collect();
                prop_assert_eq!(found(&map, &pattern), expected);
            }
        }
    }

    #[test]
    fn parts_that_sort_before_the_separator_are_found() {
        let mut map = RetainedMap::default();
        for topic in [" ", "  ///", "a", "a b", "a/x", "a/x b", "a/x/1"] {
            map.insert(Topic::from_canonical(topic), retained());
        }
        for (pattern, topics) in [("+//+/+", &["  ///"][..]), ("+/x/#", &["a/x", "a/x/1"])] {
            let expected: Vec<_> = topics.iter().map(|text| Topic::from_canonical(text)).collect();
            assert_eq!(found(&map, &Pattern::from_mqtt(pattern).unwrap()), expected, "{pattern}");
        }
    }

    #[test]
    fn a_lookup_jumps_over_what_can_not_match() {
        let mut map = RetainedMap::default();
        for number in 0..1000 {
            for leaf in 0..100 {
                map.insert(Topic::from_canonical(&format!("room/{number}/{leaf}")), retained());
            }
        }
        let pattern = Pattern::from_mqtt("room/+/7").unwrap();
        let (mut steps, mut from) = (0, Bound::Included(Topic::from_canonical("room/")));
        let Pattern::Parts(parts) = &pattern else { panic!("it has a wildcard") };
        while let Some((topic, _)) = map.topics.range((from, Bound::Unbounded)).next() {
            steps += 1;
            from = match pattern.matches(topic) {
                true => Bound::Excluded(topic.clone()),
                false => next_candidate(parts, topic),
            };
        }
        assert!(steps < 4000, "{steps} topics were looked at for 1000 of 100,000");
    }
}

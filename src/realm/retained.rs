//! A realm's retained values, in the order of their topics' texts, as an immutable map. Copying it is cheap, so a reader takes
//! the values as of one position and searches them at its own pace.
//!
//! A pattern is looked up as in a trie: from one candidate the search jumps to the next topic that can match, past whole
//! subtrees that can't. The caller limits how many topics one search examines.
//!
//! Deliberately absent: how values change (`realm`).

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{EventId, Position, Slot, Stamp};
use vulpes_raft::net::wire;

use crate::types::event::{ClientTag, Extensions, Payload, Qos, SessionId};
use crate::types::topic::{Pattern, PatternPart, PatternParts, Topic};

/// An event's position in the log.
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
    /// Set while the value is bound to a session.
    pub bound: Option<Bond>,
    /// The publisher's client, which may have other sessions.
    pub client: ClientTag,
    /// Written into a row only if there are any, so that rows without them have the older format: see [`Retained::load`].
    #[serde(skip_serializing_if = "Extensions::is_empty", skip_deserializing)]
    pub extensions: Extensions,
}

impl Retained {
    /// Reads a row; `None` if it can't be read. Bytes after the other fields are the extension fields.
    pub(super) fn load(row: &[u8]) -> Option<Self> {
        let (mut retained, rest) = wire::decode_front::<Self>(row).ok()?;
        if !rest.is_empty() {
            let fields: Bytes = wire::decode(rest).ok()?;
            retained.extensions = Extensions::parse(fields).ok()?;
        }
        Some(retained)
    }
}

/// A value's bond to a session: what replaces it when the session ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    pub session: SessionId,
    pub will: Payload,
}

/// The result of a search.
#[derive(Debug)]
pub enum Found<'a> {
    /// The next topic that fits.
    Match(&'a Topic, &'a Arc<Retained>),
    /// The limit of topics to examine was reached; the search continues after this topic.
    Behind(Topic),
    /// Nothing more fits.
    End,
}

/// The retained values of a realm as of one position. Clones share their common parts.
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

    /// The first topic after another one (or from the beginning) that fits a pattern. Each topic that is examined reduces
    /// `looks` by one, or by more if its text is long.
    #[must_use]
    pub fn next_match(
        &self,
        pattern: &Pattern,
        behind: Option<&Topic>,
        looks: &mut usize,
    ) -> Found<'_> {
        if let Pattern::Exact(topic) = pattern {
            *looks = looks.saturating_sub(1);
            let found = self.topics.get_key_value(topic);
            return match found.filter(|_| behind.is_none_or(|behind| behind < topic)) {
                Some((topic, retained)) => Found::Match(topic, retained),
                None => Found::End,
            };
        }
        let literal = literal_prefix(pattern);
        let mut from = match behind {
            Some(behind) if behind.as_str() >= literal.as_str() => Bound::Excluded(behind.clone()),
            _ => Bound::Included(Topic::from_canonical(&literal)),
        };
        loop {
            let next = self.topics.range((from, Bound::Unbounded)).next();
            let below = |topic: &Topic| topic.as_str().starts_with(literal.as_str());
            let Some((topic, retained)) = next.filter(|(topic, _)| below(topic)) else {
                return Found::End;
            };
            *looks = looks.saturating_sub(1 + (topic.as_str().len() + pattern.size()) / LOOK);
            if pattern.matches(topic) {
                return Found::Match(topic, retained);
            }
            if *looks == 0 {
                return Found::Behind(topic.clone());
            }
            from = match pattern {
                Pattern::Parts(parts) => next_candidate(parts, topic),
                Pattern::Exact(_) | Pattern::Prefix(_) => Bound::Excluded(topic.clone()),
            };
        }
    }
}

/// Bytes of text that one look covers.
const LOOK: usize = 1024;

/// The common prefix of the canonical texts of all topics that fit.
fn literal_prefix(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Exact(topic) => topic.as_str().to_owned(),
        // If the text ends within an escape, its meaning depends on what follows: only the part before it is certain.
        Pattern::Prefix(prefix) => {
            let plain = prefix.find('%').unwrap_or(prefix.len());
            prefix[..plain].replace('/', "%2F").replace('+', "%2B").replace('.', "/")
        }
        Pattern::Parts(parts) => literal_run(parts.iter()),
    }
}

/// The text of the leading literal parts, with a separator at the end if another part has to follow.
fn literal_run<'a>(parts: impl Iterator<Item = PatternPart<'a>>) -> String {
    let mut run = String::new();
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        match part {
            PatternPart::Literal(literal) => {
                run.push_str(literal);
                if matches!(parts.peek(), Some(PatternPart::Literal(_) | PatternPart::One)) {
                    run.push('/');
                }
            }
            PatternPart::One | PatternPart::Rest => break,
        }
    }
    run
}

/// The character after the separator: a text with it in the separator's place comes after a whole subtree.
const BEHIND_SEPARATOR: char = '0';

/// Where to look for the next topic that can match, given one that does not.
fn next_candidate(pattern: &PatternParts, topic: &Topic) -> Bound<Topic> {
    let text = topic.as_str();
    let mut parts = text.split('/');
    let mut begin = 0;
    let mut wanted_parts = pattern.iter();
    loop {
        let behind = wanted_parts.clone();
        let Some(wanted) = wanted_parts.next() else { break };
        // Too short: topics below it may match, and so may those that come before them.
        let Some(part) = parts.next() else { return Bound::Excluded(topic.clone()) };
        if let PatternPart::Literal(literal) = wanted {
            if part != literal {
                let candidate = format!("{}{}", &text[..begin], literal_run(behind));
                // If nothing has to follow, other parts may come between a topic and those below it.
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

/// After all topics that begin with a text that ends in a separator; at the very end if it is empty.
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
            client: ClientTag::NONE,
            extensions: Extensions::default(),
        })
    }

    fn found(map: &RetainedMap, pattern: &Pattern) -> Vec<Topic> {
        looked_for(map, pattern, usize::MAX).0
    }

    /// The topics found when each search may examine `at_once` topics, and how many were examined in all.
    fn looked_for(map: &RetainedMap, pattern: &Pattern, at_once: usize) -> (Vec<Topic>, usize) {
        let (mut found, mut behind, mut looked) = (Vec::new(), None, 0);
        loop {
            let mut looks = at_once;
            let next = map.next_match(pattern, behind.as_ref(), &mut looks);
            looked += at_once - looks;
            behind = match next {
                Found::Match(topic, _) => {
                    found.push(topic.clone());
                    Some(topic.clone())
                }
                Found::Behind(topic) => Some(topic),
                Found::End => return (found, looked),
            };
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_pattern_finds_what_a_scan_finds(
            topics in proptest::collection::btree_set(
                "[a$]?([ab !.%]|%2[FB]){0,2}(/([ab 0.]|%2F){0,2}){0,3}",
                0..24,
            ),
            pattern in "([ab ]{0,2}|\\+)(/([ab 0]{0,2}|\\+)){0,3}(/#)?|#|\\+/#",
            prefix in "([ab/+%]|%2){1,2}([.][ab/+]{0,1})?",
            at_once in 1_usize..5,
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
                prop_assert_eq!(&found(&map, &pattern), &expected);
                prop_assert_eq!(looked_for(&map, &pattern, at_once).0, expected);
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
        for house in 0..100 {
            for room in 0..50 {
                for leaf in 0..20 {
                    let topic = format!("h{house}/r{room}/{leaf}");
                    map.insert(Topic::from_canonical(&topic), retained());
                }
            }
        }
        let all = map.len();
        // The number of topics to find, and the most that may be examined for them: a few times the number of nodes that a trie
        // has on the way.
        let table = [
            ("h7/r7/7", 1, 2),
            ("h7/r7/none", 0, 1),
            ("h7/+/7", 50, 210),
            ("h7/r7/#", 20, 22),
            ("h7/#", 1000, 1002),
            ("+/r7/7", 100, 410),
            ("+/r7/#", 2000, 2420),
            ("+/+/7", 5000, 20_500),
            ("+/none/#", 0, 420),
            ("+/+/none", 0, 20_500),
            ("none/+/7", 0, 1),
            ("+/+", 0, 10_200),
            ("+", 0, 210),
            ("#", all, all),
        ];
        for (text, matches, most) in table {
            let pattern = Pattern::from_mqtt(text).unwrap();
            let (found, looked) = looked_for(&map, &pattern, usize::MAX);
            assert_eq!(found.len(), matches, "{text}");
            assert!(looked <= most, "{looked} of {all} topics were looked at for {text}");
        }
        let prefix = Pattern::from_wamp_prefix("h7.r").unwrap();
        let (found, looked) = looked_for(&map, &prefix, usize::MAX);
        assert_eq!((found.len(), looked), (1000, 1000));
    }
}

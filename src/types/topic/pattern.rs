//! Patterns: which topics a subscription is for.
//!
//! Invariant: a pattern holds no more than its text, and nothing here recurses over parts.
//!
//! Deliberately absent: subscribers (`dispatch`).

use std::fmt;
use std::sync::Arc;

use super::{
    check_mqtt, check_text, check_wamp, joined, wamp_part_to_canonical, Topic, TopicError, BRIDGES,
    PUBLISHED, ROUTERS_OWN, WAMP_TEXT,
};

/// Which topics a subscription is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// Only this topic.
    Exact(Topic),
    /// Part by part.
    Parts(PatternParts),
    /// Topics whose WAMP spelling begins with this text.
    Prefix(Arc<str>),
}

/// The parts of a pattern, by its canonical text: an MQTT topic filter. No literal part is `+` or `#`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PatternParts(Arc<str>);

/// One part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternPart<'a> {
    /// This part, in canonical text.
    Literal(&'a str),
    /// Any one part.
    One,
    /// All remaining parts, maybe none; only at the end.
    Rest,
}

impl PatternParts {
    /// Whether a topic matches.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        parts_match(self, topic)
    }

    /// The parts in order.
    pub fn iter(&self) -> impl Iterator<Item = PatternPart<'_>> + Clone {
        self.0.split('/').map(|part| match part {
            "+" => PatternPart::One,
            "#" => PatternPart::Rest,
            literal => PatternPart::Literal(literal),
        })
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PatternParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Parts of a pattern that an index has nodes for. A longer pattern is matched separately, part by part.
pub const INDEXED_PARTS: usize = 32;

/// How many times such a pattern counts among the patterns of a session.
const DEEP: usize = 16;

/// Parts of a pattern that count no more than their text. The index has a node of about [`NODE`] bytes for each of the others.
const PLAIN_PARTS: usize = 8;
const NODE: usize = 128;

/// What an MQTT topic filter counts among the patterns of a session: its bytes, and more if it has wildcards and many parts.
#[must_use]
pub fn weight(filter: &str) -> usize {
    if !filter.contains(['+', '#']) {
        return filter.len();
    }
    match filter.split('/').count() {
        parts if parts > INDEXED_PARTS => filter.len() * DEEP,
        parts => filter.len() + NODE * parts.saturating_sub(PLAIN_PARTS),
    }
}

impl Pattern {
    /// Reads an MQTT topic filter (MQTT 5 section 4.7.1).
    ///
    /// # Errors
    /// If MQTT or our limits forbid it.
    pub fn from_mqtt(text: &str) -> Result<Self, TopicError> {
        check_mqtt(text)?;
        if !text.contains(['+', '#']) {
            return Ok(Self::Exact(Topic(text.into())));
        }
        let mut parts = text.split('/').peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            let alone = part == "+" || part == "#" && is_last;
            if !alone && part.contains(['+', '#']) {
                return Err(TopicError::MisplacedWildcard);
            }
        }
        Ok(Self::Parts(PatternParts(text.into())))
    }

    /// Reads a WAMP topic to subscribe to without `match`: exact, or a fox pattern if parts are `*` or `#`.
    ///
    /// # Errors
    /// If WAMP or our limits forbid it.
    pub fn from_wamp(text: &str) -> Result<Self, TopicError> {
        if !text.split('.').any(|part| part == "*" || part == "#") {
            return Topic::from_wamp(text).map(Self::Exact);
        }
        check_text(text, WAMP_TEXT)?;
        let mut parts = text.split('.').peekable();
        let part = || {
            let part = parts.next()?;
            Some(match part {
                "*" => Ok("+".to_owned()),
                "#" if parts.peek().is_none() => Ok("#".to_owned()),
                "#" => Err(TopicError::MisplacedWildcard),
                "" => Err(TopicError::EmptyPart),
                _ => literal_from_wamp(part),
            })
        };
        joined(part).map(|text| Self::Parts(PatternParts(text)))
    }

    /// Reads a WAMP topic with `match: wildcard`: an empty part is any one part (WAMP advanced profile,
    /// "Pattern-based Subscription").
    ///
    /// # Errors
    /// If WAMP or our limits forbid it.
    pub fn from_wamp_wildcard(text: &str) -> Result<Self, TopicError> {
        check_wamp(text)?;
        let mut parts = text.split('.');
        let part = || {
            let part = parts.next()?;
            Some(match part {
                "" => Ok("+".to_owned()),
                _ => literal_from_wamp(part),
            })
        };
        joined(part).map(|text| Self::Parts(PatternParts(text)))
    }

    /// Reads a WAMP topic with `match: prefix`: any topic whose WAMP text begins with it.
    ///
    /// # Errors
    /// If WAMP or our limits forbid it.
    pub fn from_wamp_prefix(text: &str) -> Result<Self, TopicError> {
        check_wamp(text)?;
        Ok(Self::Prefix(text.into()))
    }

    /// What it counts among the patterns of a session, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Parts(parts) => weight(parts.as_str()),
            Self::Exact(_) | Self::Prefix(_) => self.size(),
        }
    }

    /// Bytes that a node holds for a subscription to it, roughly.
    #[must_use]
    pub fn held(&self) -> usize {
        let parts = match self {
            Self::Parts(parts) => parts.iter().take(INDEXED_PARTS).count(),
            Self::Exact(_) | Self::Prefix(_) => 1,
        };
        2 * self.size() + NODE * parts
    }

    /// Bytes of its text.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Exact(topic) => topic.as_str().len(),
            Self::Parts(parts) => parts.as_str().len(),
            Self::Prefix(prefix) => prefix.len(),
        }
    }

    /// Whether it matches only the router's own topics on which nothing is published, so that a subscriber would wait
    /// for ever.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        let own = |text: &str, separator: char| {
            let (first, _) = text.split_once(separator).unwrap_or((text, ""));
            ROUTERS_OWN.contains(&first)
        };
        let (is_own, of_bridges) = match self {
            Self::Exact(topic) => (topic.is_routers_own(), false),
            Self::Parts(parts) => (own(parts.as_str(), '/'), parts.as_str().starts_with(BRIDGES)),
            // A prefix that ends within the first part matches other topics as well.
            Self::Prefix(prefix) => {
                let bridges = BRIDGES.replace('/', ".");
                (prefix.contains('.') && own(prefix, '.'), prefix.starts_with(&bridges))
            }
        };
        is_own
            && !of_bridges
            && !PUBLISHED.iter().any(|topic| self.matches(&Topic::from_canonical(topic)))
    }

    /// Whether a topic matches.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        match self {
            Self::Exact(wanted) => wanted == topic,
            Self::Prefix(prefix) => topic.to_wamp().starts_with(&**prefix),
            Self::Parts(parts) => parts.matches(topic),
        }
    }
}

fn parts_match(pattern: &PatternParts, topic: &Topic) -> bool {
    let leading_wildcard = pattern.as_str().starts_with(['+', '#']);
    if leading_wildcard && topic.is_reserved() {
        return false;
    }
    let mut parts = topic.parts();
    for wanted in pattern.iter() {
        match wanted {
            PatternPart::Rest => return true,
            PatternPart::One if parts.next().is_some() => {}
            PatternPart::Literal(literal) if parts.next() == Some(literal) => {}
            PatternPart::One | PatternPart::Literal(_) => return false,
        }
    }
    parts.next().is_none()
}

fn literal_from_wamp(part: &str) -> Result<String, TopicError> {
    check_wamp(part)?;
    Ok(wamp_part_to_canonical(part))
}

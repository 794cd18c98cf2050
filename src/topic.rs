//! Topics and patterns: lists of parts, spelled with `.` in WAMP and with `/` in MQTT.
//!
//! Inside, a topic has one canonical text: its MQTT spelling. A part may hold the other protocol's separator, so each
//! spelling escapes what it can't say plainly, and only that: on the WAMP side `.` is `%2E`; on the MQTT side `/`, `+`
//! and `#` are `%2F`, `%2B` and `%23`. A text that already looks like such an escape gets one more `25` behind its `%`
//! (`%2E` becomes `%252E`, that becomes `%25252E`), which makes both spellings one-to-one with the parts.
//!
//! Invariant: from a spelling to the parts and back is the identity, and two topics never share a spelling.
//!
//! Deliberately absent: who is subscribed to what (`dispatch`).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits;

/// A realm's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Realm(Arc<str>);

/// A topic, by its canonical text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Topic(Arc<str>);

/// What a text that names a topic or pattern does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("a topic must not be empty")]
    Empty,
    #[error("a topic may have {} bytes at most", limits::TOPIC)]
    TooLong,
    #[error("a topic may have {} parts at most", limits::TOPIC_PARTS)]
    TooManyParts,
    #[error("a topic must not hold control characters or U+0000")]
    ControlCharacter,
    #[error("a topic must not hold white space or '#'")]
    Reserved,
    #[error("a topic that is published to must not hold the wildcards '+' and '#'")]
    Wildcard,
    #[error("a wildcard stands alone in its part, and '#' only at the end")]
    MisplacedWildcard,
    #[error("an empty part is a wildcard only with match=wildcard")]
    EmptyPart,
}

/// What is wrong with a realm's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a realm's name is 1 to {} bytes without white space, control characters and '#'",
    limits::REALM
)]
pub struct RealmError;

impl Realm {
    /// Checks a realm's name: a loose WAMP URI.
    ///
    /// # Errors
    /// Where it is empty, too long, or holds white space, control characters or `#`.
    pub fn new(name: &str) -> Result<Self, RealmError> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '#';
        if name.is_empty() || name.len() > limits::REALM || name.contains(bad) {
            return Err(RealmError);
        }
        Ok(Self(name.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Topic {
    /// Reads an MQTT topic name (MQTT 5 section 4.7).
    ///
    /// # Errors
    /// Where MQTT or our limits forbid it.
    pub fn from_mqtt(text: &str) -> Result<Self, TopicError> {
        check_text(text)?;
        if text.contains(['+', '#']) {
            return Err(TopicError::Wildcard);
        }
        check_parts(text.split('/').count())?;
        Ok(Self(text.into()))
    }

    /// Reads a WAMP topic: a loose URI (WAMP basic profile, "URIs"), no part empty.
    ///
    /// # Errors
    /// Where WAMP or our limits forbid it.
    pub fn from_wamp(text: &str) -> Result<Self, TopicError> {
        check_wamp(text)?;
        if text.split('.').any(str::is_empty) {
            return Err(TopicError::EmptyPart);
        }
        check_parts(text.split('.').count())?;
        if !text.contains(['%', '/', '+']) {
            return Ok(Self(text.replace('.', "/").into()));
        }
        let parts: Vec<String> = text.split('.').map(wamp_part_to_canonical).collect();
        Ok(Self(parts.join("/").into()))
    }

    /// Takes a canonical text that was checked when it entered the system, as from a stored segment.
    #[must_use]
    pub fn from_canonical(text: &str) -> Self {
        Self(text.into())
    }

    /// The canonical text, which is also the MQTT spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it belongs to the system (`$…`, `wamp.…`): then no leading wildcard matches it.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$') || self.is_routers_own()
    }

    /// Whether only the router itself publishes there (`wamp.…`).
    #[must_use]
    pub fn is_routers_own(&self) -> bool {
        self.parts().next() == Some("wamp")
    }

    /// The parts, each in canonical text.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The WAMP spelling.
    #[must_use]
    pub fn to_wamp(&self) -> Cow<'_, str> {
        if !self.0.contains(['%', '.']) {
            if !self.0.contains('/') {
                return Cow::Borrowed(&self.0);
            }
            return Cow::Owned(self.0.replace('/', "."));
        }
        let parts: Vec<String> = self.0.split('/').map(canonical_part_to_wamp).collect();
        Cow::Owned(parts.join("."))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({})", self.0)
    }
}

impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Realm({})", self.0)
    }
}

/// Which topics a subscription is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// This topic alone.
    Exact(Topic),
    /// Part by part.
    Parts(Vec<PatternPart>),
    /// Topics whose WAMP spelling begins with this text.
    Prefix(String),
}

/// One part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PatternPart {
    /// This part, in canonical text.
    Literal(Box<str>),
    /// Any one part.
    One,
    /// What is left, which may be nothing: last only.
    Rest,
}

impl Pattern {
    /// Reads an MQTT topic filter (MQTT 5 section 4.7.1).
    ///
    /// # Errors
    /// Where MQTT or our limits forbid it.
    pub fn from_mqtt(text: &str) -> Result<Self, TopicError> {
        check_text(text)?;
        let count = text.split('/').count();
        check_parts(count)?;
        if !text.contains(['+', '#']) {
            return Ok(Self::Exact(Topic(text.into())));
        }
        let part = |(at, part): (usize, &str)| match part {
            "+" => Ok(PatternPart::One),
            "#" if at + 1 == count => Ok(PatternPart::Rest),
            _ if part.contains(['+', '#']) => Err(TopicError::MisplacedWildcard),
            _ => Ok(PatternPart::Literal(part.into())),
        };
        Ok(Self::Parts(text.split('/').enumerate().map(part).collect::<Result<_, _>>()?))
    }

    /// Reads a WAMP topic to subscribe to without `match`: exact, or a fox pattern where parts are `*` or `#`.
    ///
    /// # Errors
    /// Where WAMP or our limits forbid it.
    pub fn from_wamp(text: &str) -> Result<Self, TopicError> {
        if !text.split('.').any(|part| part == "*" || part == "#") {
            return Topic::from_wamp(text).map(Self::Exact);
        }
        check_text(text)?;
        let count = text.split('.').count();
        check_parts(count)?;
        let part = |(at, part): (usize, &str)| match part {
            "*" => Ok(PatternPart::One),
            "#" if at + 1 == count => Ok(PatternPart::Rest),
            "#" => Err(TopicError::MisplacedWildcard),
            "" => Err(TopicError::EmptyPart),
            _ => literal_from_wamp(part),
        };
        Ok(Self::Parts(text.split('.').enumerate().map(part).collect::<Result<_, _>>()?))
    }

    /// Reads a WAMP topic with `match: wildcard`: an empty part is any one part (WAMP advanced profile,
    /// "Pattern-based Subscription").
    ///
    /// # Errors
    /// Where WAMP or our limits forbid it.
    pub fn from_wamp_wildcard(text: &str) -> Result<Self, TopicError> {
        check_wamp(text)?;
        check_parts(text.split('.').count())?;
        let part = |part: &str| match part {
            "" => Ok(PatternPart::One),
            _ => literal_from_wamp(part),
        };
        Ok(Self::Parts(text.split('.').map(part).collect::<Result<_, _>>()?))
    }

    /// Reads a WAMP topic with `match: prefix`: any topic whose WAMP text begins with it.
    ///
    /// # Errors
    /// Where WAMP or our limits forbid it.
    pub fn from_wamp_prefix(text: &str) -> Result<Self, TopicError> {
        check_wamp(text)?;
        Ok(Self::Prefix(text.into()))
    }

    /// Whether a topic fits.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        match self {
            Self::Exact(wanted) => wanted == topic,
            Self::Prefix(prefix) => topic.to_wamp().starts_with(prefix.as_str()),
            Self::Parts(pattern) => parts_match(pattern, topic),
        }
    }
}

fn parts_match(pattern: &[PatternPart], topic: &Topic) -> bool {
    let leading_wildcard = matches!(pattern.first(), Some(PatternPart::One | PatternPart::Rest));
    if leading_wildcard && topic.is_reserved() {
        return false;
    }
    let mut parts = topic.parts();
    for wanted in pattern {
        match wanted {
            PatternPart::Rest => return true,
            PatternPart::One if parts.next().is_some() => {}
            PatternPart::Literal(literal) if parts.next() == Some(literal) => {}
            PatternPart::One | PatternPart::Literal(_) => return false,
        }
    }
    parts.next().is_none()
}

fn literal_from_wamp(part: &str) -> Result<PatternPart, TopicError> {
    check_wamp(part)?;
    Ok(PatternPart::Literal(wamp_part_to_canonical(part).into()))
}

fn check_text(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > limits::TOPIC {
        return Err(TopicError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(TopicError::ControlCharacter);
    }
    Ok(())
}

fn check_wamp(text: &str) -> Result<(), TopicError> {
    check_text(text)?;
    if text.contains(|c: char| c == '#' || c.is_whitespace()) {
        return Err(TopicError::Reserved);
    }
    Ok(())
}

fn check_parts(count: usize) -> Result<(), TopicError> {
    if count > limits::TOPIC_PARTS {
        return Err(TopicError::TooManyParts);
    }
    Ok(())
}

/// The escapes of each spelling: the characters it can't say plainly, by their two hexadecimal digits.
const WAMP_ESCAPES: &[(char, &str)] = &[('.', "2E")];
const MQTT_ESCAPES: &[(char, &str)] = &[('/', "2F"), ('+', "2B"), ('#', "23")];

fn wamp_part_to_canonical(part: &str) -> String {
    escape(&unescape(part, WAMP_ESCAPES), MQTT_ESCAPES)
}

fn canonical_part_to_wamp(part: &str) -> String {
    escape(&unescape(part, MQTT_ESCAPES), WAMP_ESCAPES)
}

/// Length of the run `%25…25` that makes `text` look like an escape, and the character meant, if it does.
fn escape_run(text: &str, escapes: &[(char, &str)]) -> Option<(usize, char)> {
    let mut rest = text.strip_prefix('%')?;
    let mut run = 1;
    loop {
        if let Some((character, _)) = escapes.iter().find(|(_, digits)| rest.starts_with(digits)) {
            return Some((run, *character));
        }
        rest = rest.strip_prefix("25")?;
        run += 2;
    }
}

fn escape(raw: &str, escapes: &[(char, &str)]) -> String {
    let mut text = String::with_capacity(raw.len());
    for (at, character) in raw.char_indices() {
        if let Some((_, digits)) = escapes.iter().find(|(escaped, _)| *escaped == character) {
            text.push('%');
            text.push_str(digits);
        } else {
            text.push(character);
            if escape_run(&raw[at..], escapes).is_some() {
                text.push_str("25");
            }
        }
    }
    text
}

fn unescape(text: &str, escapes: &[(char, &str)]) -> String {
    let mut raw = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        match escape_run(rest, escapes) {
            Some((1, meant)) => {
                raw.push(meant);
                rest = &rest[3..];
            }
            Some((run, _)) => {
                // One "25" less: the rest of the run is literal.
                raw.push_str(&rest[..run - 2]);
                rest = &rest[run..];
            }
            None => {
                raw.push(character);
                rest = &rest[character.len_utf8()..];
            }
        }
    }
    raw
}

#[cfg(test)]
mod tests;

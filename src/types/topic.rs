//! Topics and patterns: lists of parts, spelled with `.` in WAMP and with `/` in MQTT.
//!
//! Internally, a topic has one canonical text: its MQTT spelling. A part may hold the other protocol's separator, so
//! each spelling escapes exactly what it can't express: on the WAMP side `.` is `%2E`; on the MQTT side `/`, `+` and
//! `#` are `%2F`, `%2B` and `%23`. A text that already looks like such an escape gets one more `25` after its `%`
//! (`%2E` becomes `%252E`, that becomes `%25252E`), which makes both spellings one-to-one with the parts.
//!
//! A topic may have MQTT's maximum length, and any number of parts. The limit is on the canonical text, so that every
//! topic has both spellings; the WAMP one may be up to three times as long.
//!
//! Invariant: from a spelling to the parts and back is the identity, and two topics never share a spelling.
//!
//! Deliberately absent: subscriptions (`dispatch`).

mod pattern;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::types::limits;

pub use pattern::{weight, Pattern, PatternPart, PatternParts, INDEXED_PARTS};

/// First parts of topics that no client publishes to.
const ROUTERS_OWN: &[&str] = &["wamp", "$SYS", "$share", "$replay", "$snapshot"];

/// The error for a publish to one.
pub const ROUTERS_OWN_TEXT: &str =
    "topics that begin with wamp, $SYS, $share, $replay or $snapshot are the router's own";

/// The error for a subscription to a topic on which nothing is published.
pub const SILENT_TEXT: &str = "nothing is ever published there: of the router's own topics there are \
     wamp.session.on_join and wamp.session.on_leave; /status on the admin port tells how the node is";

/// The topics on which the router publishes.
const PUBLISHED: &[&str] = &["wamp/session/on_join", "wamp/session/on_leave"];

/// Bridges report here, also by their wills, whether they are connected; other servers allow that as well.
const BRIDGES: &str = "$SYS/broker/connection/";

/// A realm's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Realm(Arc<str>);

/// A topic, by its canonical text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Topic(Arc<str>);

/// What is wrong with a topic or pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("a topic must not be empty")]
    Empty,
    #[error("a topic may have {} bytes at most, as MQTT spells it", limits::TOPIC)]
    TooLong,
    #[error(
        "a procedure may have {} bytes and {} parts at most",
        limits::PROCEDURE,
        limits::PROCEDURE_PARTS
    )]
    ProcedureTooLong,
    #[error("a topic must not hold control characters or U+0000")]
    ControlCharacter,
    #[error("a topic must not hold white space or '#'")]
    Reserved,
    #[error("a topic to publish to must not have the wildcards '+' and '#'")]
    Wildcard,
    #[error("a wildcard must be alone in its part, and '#' must be the last part")]
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
    /// If it is empty, too long, or has white space, control characters or `#`.
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
    /// If MQTT or our limits forbid it.
    pub fn from_mqtt(text: &str) -> Result<Self, TopicError> {
        check_mqtt(text)?;
        if text.contains(['+', '#']) {
            return Err(TopicError::Wildcard);
        }
        Ok(Self(text.into()))
    }

    /// Reads a WAMP topic: a loose URI (WAMP basic profile, "URIs") without empty parts.
    ///
    /// # Errors
    /// If WAMP or our limits forbid it.
    pub fn from_wamp(text: &str) -> Result<Self, TopicError> {
        check_wamp(text)?;
        if text.split('.').any(str::is_empty) {
            return Err(TopicError::EmptyPart);
        }
        if !text.contains(['%', '/', '+']) {
            return canonical(text.replace('.', "/")).map(Self);
        }
        let mut parts = text.split('.');
        joined(|| parts.next().map(|part| Ok(wamp_part_to_canonical(part)))).map(Self)
    }

    /// A canonical text that was already checked, as from a stored segment.
    #[must_use]
    pub fn from_canonical(text: &str) -> Self {
        Self(text.into())
    }

    /// The canonical text, which is also the MQTT spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it belongs to the system (`$…`, `wamp…`), so that no leading wildcard matches it.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$') || self.is_routers_own()
    }

    /// Whether clients can't publish there: only the router does, or nobody.
    #[must_use]
    pub fn is_routers_own(&self) -> bool {
        self.parts().next().is_some_and(|first| ROUTERS_OWN.contains(&first))
            && !self.is_state_of_bridge()
    }

    /// Whether a bridge reports its state there: `$SYS/broker/connection/<name>/state`.
    fn is_state_of_bridge(&self) -> bool {
        let name = self.0.strip_prefix(BRIDGES).and_then(|rest| rest.strip_suffix("/state"));
        name.is_some_and(|name| !name.contains('/'))
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
        let mut text = String::with_capacity(self.0.len());
        for part in self.0.split('/') {
            text.push_str(&canonical_part_to_wamp(part));
            text.push('.');
        }
        text.pop();
        Cow::Owned(text)
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

/// Joins parts to a canonical text.
fn joined(
    mut next: impl FnMut() -> Option<Result<String, TopicError>>,
) -> Result<Arc<str>, TopicError> {
    let mut text = String::new();
    while let Some(part) = next() {
        text.push_str(&part?);
        text.push('/');
    }
    text.pop();
    canonical(text)
}

fn canonical(text: String) -> Result<Arc<str>, TopicError> {
    match text.len() <= limits::TOPIC {
        true => Ok(text.into()),
        false => Err(TopicError::TooLong),
    }
}

/// Longest WAMP spelling of a topic: each escaped character takes three.
const WAMP_TEXT: usize = 3 * limits::TOPIC;

fn check_mqtt(text: &str) -> Result<(), TopicError> {
    check_text(text, limits::TOPIC)
}

fn check_text(text: &str, longest: usize) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > longest {
        return Err(TopicError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(TopicError::ControlCharacter);
    }
    Ok(())
}

fn check_wamp(text: &str) -> Result<(), TopicError> {
    check_text(text, WAMP_TEXT)?;
    if text.contains(|c: char| c == '#' || c.is_whitespace()) {
        return Err(TopicError::Reserved);
    }
    Ok(())
}

/// The escapes of each spelling: the characters it can't express, by their two hexadecimal digits.
const WAMP_ESCAPES: &[(char, &str)] = &[('.', "2E")];
const MQTT_ESCAPES: &[(char, &str)] = &[('/', "2F"), ('+', "2B"), ('#', "23")];

fn wamp_part_to_canonical(part: &str) -> String {
    escape(&unescape(part, WAMP_ESCAPES), MQTT_ESCAPES)
}

fn canonical_part_to_wamp(part: &str) -> String {
    escape(&unescape(part, MQTT_ESCAPES), WAMP_ESCAPES)
}

/// Length of the run `%25…25` that makes `text` look like an escape, and the escaped character, if there is one.
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

//! Procedures that callees register and callers call, by WAMP URIs.
//!
//! Invariant: persisted and sent; the order of variants and fields is never changed, new ones go to the end.
//!
//! Deliberately absent: MQTT spellings, because MQTT has no calls; and where a call goes (`realm`).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::Position;

use crate::types::limits;
use crate::types::topic::{Pattern, Topic, TopicError};

/// A procedure's URI, or a pattern of registered procedures, in WAMP's spelling.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Procedure(Arc<str>);

/// A registration: the position of the event that made it. A WAMP id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegistrationId(pub u64);

/// Which calls a registration is for (WAMP advanced profile, "Pattern-based Registration").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Matching {
    /// Calls of this procedure.
    Exact,
    /// Calls of any procedure whose URI begins with this text.
    Prefix,
    /// Part by part; an empty part matches any one part.
    Wildcard,
}

/// Which of several callees a call goes to (WAMP advanced profile, "Shared Registration").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Invoke {
    /// There is one callee only.
    Single,
    RoundRobin,
    Random,
    /// The oldest one.
    First,
    /// The newest one.
    Last,
}

/// A callee's registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    pub procedure: Procedure,
    pub matching: Matching,
    pub invoke: Invoke,
    /// Calls that may be in flight at this callee; 0: unlimited.
    pub concurrency: u32,
    /// The callee wants to learn the caller.
    pub disclose_caller: bool,
}

impl From<Position> for RegistrationId {
    fn from(position: Position) -> Self {
        Self(position.0)
    }
}

impl Procedure {
    /// Reads a procedure as called or registered.
    ///
    /// # Errors
    /// If WAMP or our limits forbid it.
    pub fn new(text: &str, matching: Matching) -> Result<Self, TopicError> {
        let is_too_long =
            text.len() > limits::PROCEDURE || text.split('.').count() > limits::PROCEDURE_PARTS;
        if is_too_long {
            return Err(TopicError::ProcedureTooLong);
        }
        match matching {
            Matching::Exact => Topic::from_wamp(text).map(drop)?,
            Matching::Prefix => Pattern::from_wamp_prefix(text).map(drop)?,
            Matching::Wildcard => Pattern::from_wamp_wildcard(text).map(drop)?,
        }
        Ok(Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it belongs to the router (`wamp.…`): clients can't register it.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.split('.').next() == Some("wamp")
    }
}

/// Lets maps of procedures be searched with a text.
impl Borrow<str> for Procedure {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Procedure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Procedure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Procedure({})", self.0)
    }
}

impl Matching {
    /// WAMP's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Prefix => "prefix",
            Self::Wildcard => "wildcard",
        }
    }

    /// The inverse of [`Matching::word`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Exact, Self::Prefix, Self::Wildcard].into_iter().find(|one| one.word() == word)
    }
}

impl Invoke {
    const ALL: [Self; 5] = [Self::Single, Self::RoundRobin, Self::Random, Self::First, Self::Last];

    /// WAMP's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::RoundRobin => "roundrobin",
            Self::Random => "random",
            Self::First => "first",
            Self::Last => "last",
        }
    }

    /// The inverse of [`Invoke::word`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procedures_are_checked_as_they_are_matched() {
        for (text, matching, fits) in [
            ("a.b", Matching::Exact, true),
            ("a..b", Matching::Exact, false),
            ("a..b", Matching::Wildcard, true),
            (".", Matching::Wildcard, true),
            ("a.b.", Matching::Prefix, true),
            ("", Matching::Prefix, false),
            ("a b", Matching::Exact, false),
        ] {
            assert_eq!(Procedure::new(text, matching).is_ok(), fits, "{text} {matching:?}");
        }
        let parts = |count: usize| vec!["a"; count].join(".");
        for (text, fits) in [
            (parts(limits::PROCEDURE_PARTS), true),
            (parts(limits::PROCEDURE_PARTS + 1), false),
            ("a".repeat(limits::PROCEDURE), true),
            ("a".repeat(limits::PROCEDURE + 1), false),
        ] {
            assert_eq!(Procedure::new(&text, Matching::Exact).is_ok(), fits, "{}", text.len());
        }
        for (text, reserved) in [("wamp", true), ("wamp.x", true), ("wampx.y", false)] {
            assert_eq!(
                Procedure::new(text, Matching::Prefix).map(|p| p.is_reserved()),
                Ok(reserved)
            );
        }
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for invoke in Invoke::ALL {
            assert_eq!(Invoke::from_word(invoke.word()), Some(invoke));
        }
        assert_eq!(Matching::from_word("prefix"), Some(Matching::Prefix));
        assert_eq!((Matching::from_word("x"), Invoke::from_word("x")), (None, None));
    }
}

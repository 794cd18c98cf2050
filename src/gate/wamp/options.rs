//! The options of HELLO, PUBLISH and SUBSCRIBE.
//!
//! Invariant: an option that would change what happens, and that this release does not know how to honour, is refused
//! by name and never ignored. Options nobody defined are ignored, as WAMP says.
//!
//! Deliberately absent: the answer to a bad option, which depends on the message (`wamp`).

use vulpes_raft::ids::Position;

use super::uri;
use crate::gate::After;
use crate::payload::{decode, entries, Malformed, Serializer, Value};
use crate::topic::{Pattern, TopicError};

/// The only way to be let in so far.
const ANONYMOUS: &str = "anonymous";

/// What is wrong with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum OptionError {
    #[error("the option {0} is not implemented yet; leave it out")]
    NotImplemented(&'static str),
    #[error("the option {option} has to be {expected}")]
    Wrong { option: &'static str, expected: &'static str },
}

impl OptionError {
    pub(super) fn uri(self) -> &'static str {
        match self {
            Self::NotImplemented(_) => uri::NOT_IMPLEMENTED,
            Self::Wrong { .. } => uri::INVALID_ARGUMENT,
        }
    }
}

/// Whether a client that says HELLO like this can be let in: it names no way of authentication, or ours among others.
pub(super) fn may_be_anonymous(serializer: Serializer, details: &[u8]) -> Result<bool, Malformed> {
    let mut may = true;
    entries(serializer, details, |key, value| {
        if key != "authmethods" {
            return;
        }
        may = match decode(serializer, value) {
            Ok(Value::Null) => true,
            Ok(Value::List(methods)) => {
                let ours = |method: &Value| matches!(method, Value::Str(name) if name == ANONYMOUS);
                methods.is_empty() || methods.iter().any(ours)
            }
            _ => false,
        };
    })?;
    Ok(may)
}

/// The options of PUBLISH.
#[derive(Debug)]
pub(super) struct PublishOptions {
    pub(super) acknowledge: bool,
    pub(super) exclude_me: bool,
    pub(super) disclose_me: bool,
    /// The first that was wrong. It stands beside the others, because they say how to answer it.
    pub(super) error: Option<OptionError>,
}

impl PublishOptions {
    pub(super) fn read(serializer: Serializer, raw: &[u8]) -> Result<Self, Malformed> {
        let mut options =
            Self { acknowledge: false, exclude_me: true, disclose_me: false, error: None };
        entries(serializer, raw, |key, value| {
            let reader = Reader { serializer, value };
            let read = match key {
                "acknowledge" => reader.flag("acknowledge", &mut options.acknowledge),
                "exclude_me" => reader.flag("exclude_me", &mut options.exclude_me),
                "disclose_me" => reader.flag("disclose_me", &mut options.disclose_me),
                "retain" => reader.not_set("retain"),
                "watch" => reader.not_set("watch"),
                "when" => Err(OptionError::NotImplemented("when")),
                "will" => Err(OptionError::NotImplemented("will")),
                "exclude" => Err(OptionError::NotImplemented("exclude")),
                "exclude_authid" => Err(OptionError::NotImplemented("exclude_authid")),
                "exclude_authrole" => Err(OptionError::NotImplemented("exclude_authrole")),
                "eligible" => Err(OptionError::NotImplemented("eligible")),
                "eligible_authid" => Err(OptionError::NotImplemented("eligible_authid")),
                "eligible_authrole" => Err(OptionError::NotImplemented("eligible_authrole")),
                _ => Ok(()),
            };
            options.error = options.error.or(read.err());
        })?;
        Ok(options)
    }
}

/// How the topic of a subscription is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    /// Exact, or a fox pattern.
    Unsaid,
    Exact,
    Prefix,
    Wildcard,
}

/// The options of SUBSCRIBE.
#[derive(Debug)]
pub(super) struct SubscribeOptions {
    matching: Match,
    pub(super) after: Option<After>,
    pub(super) snapshot: bool,
}

impl SubscribeOptions {
    pub(super) fn read(
        serializer: Serializer,
        raw: &[u8],
    ) -> Result<Result<Self, OptionError>, Malformed> {
        let mut options = Self { matching: Match::Unsaid, after: None, snapshot: false };
        let mut error = None;
        entries(serializer, raw, |key, value| {
            let reader = Reader { serializer, value };
            let read = match key {
                "match" => reader.matching().map(|matching| options.matching = matching),
                "after" => reader.after().map(|after| options.after = after),
                "snapshot" => reader.flag("snapshot", &mut options.snapshot),
                "retained" => reader.not_set("retained"),
                "retainedState" => reader.not_set("retainedState"),
                "filter" => Err(OptionError::NotImplemented("filter")),
                _ => Ok(()),
            };
            error = error.or(read.err());
        })?;
        Ok(error.map_or(Ok(options), Err))
    }

    /// Reads the subscription's topic in the way that was asked for.
    pub(super) fn pattern(&self, topic: &str) -> Result<Pattern, TopicError> {
        match self.matching {
            Match::Unsaid => Pattern::from_wamp(topic),
            Match::Exact => crate::topic::Topic::from_wamp(topic).map(Pattern::Exact),
            Match::Prefix => Pattern::from_wamp_prefix(topic),
            Match::Wildcard => Pattern::from_wamp_wildcard(topic),
        }
    }
}

/// One option's value.
struct Reader<'a> {
    serializer: Serializer,
    value: &'a [u8],
}

impl Reader<'_> {
    fn read(&self) -> Option<Value> {
        decode(self.serializer, self.value).ok()
    }

    fn flag(&self, option: &'static str, flag: &mut bool) -> Result<(), OptionError> {
        match self.read() {
            Some(Value::Bool(value)) => *flag = value,
            // What clients in JavaScript and Python send where they were given nothing.
            Some(Value::Null) => {}
            _ => return Err(OptionError::Wrong { option, expected: "true or false" }),
        }
        Ok(())
    }

    /// Lets an option pass that is not there yet, if it is not used.
    fn not_set(&self, option: &'static str) -> Result<(), OptionError> {
        match self.read() {
            Some(Value::Bool(false) | Value::Null) => Ok(()),
            _ => Err(OptionError::NotImplemented(option)),
        }
    }

    fn matching(&self) -> Result<Match, OptionError> {
        let expected = "\"exact\", \"prefix\" or \"wildcard\"";
        match self.read() {
            Some(Value::Null) => Ok(Match::Unsaid),
            Some(Value::Str(name)) if name == "exact" => Ok(Match::Exact),
            Some(Value::Str(name)) if name == "prefix" => Ok(Match::Prefix),
            Some(Value::Str(name)) if name == "wildcard" => Ok(Match::Wildcard),
            _ => Err(OptionError::Wrong { option: "match", expected }),
        }
    }

    fn after(&self) -> Result<Option<After>, OptionError> {
        let expected = "a position (an integer, 0 for the beginning) or an event id (a string)";
        let wrong = OptionError::Wrong { option: "after", expected };
        match self.read() {
            Some(Value::Null) => Ok(None),
            Some(Value::Int(number)) => match u64::try_from(number) {
                Ok(number) => Ok(Some(After::Position(Position(number)))),
                Err(_) => Err(wrong),
            },
            Some(Value::Str(text)) => match (text.parse(), text.parse()) {
                (Ok(id), _) => Ok(Some(After::Event(id))),
                (Err(_), Ok(number)) => Ok(Some(After::Position(Position(number)))),
                (Err(_), Err(_)) => Err(wrong),
            },
            _ => Err(wrong),
        }
    }
}

//! The options of HELLO, PUBLISH and SUBSCRIBE; those of calls are in `calls/options`.
//!
//! Every option may also be written with a leading underscore (`_after`), which is how WAMP marks options that are
//! not its own: wampy and autobahn-python send no other foreign options. Both spellings at once are refused.
//!
//! Invariant: an option that would change the outcome, and that this release does not support, is refused by name and
//! never ignored. Undefined options are ignored, as WAMP says.
//!
//! Deliberately absent: the answer to a bad option, which depends on the message (`wamp`).

use vulpes_raft::ids::Position;

use super::uri;
use crate::gate::terms::{self, TermsError};
use crate::gate::RetainedMode;
use crate::payload::{decode, entries, is_odd, Malformed, Serializer, Writer};
use crate::types::access::ANONYMOUS;
use crate::types::act::Terms;
use crate::types::event::Payload;
use crate::types::login::{Extra, Method};
use crate::types::subscription::After;
use crate::types::topic::{Pattern, TopicError};
use crate::types::value::Value;

/// What is wrong with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum OptionError {
    #[error("the option {0} is not implemented yet; leave it out")]
    NotImplemented(&'static str),
    #[error("the option {option} has to be {expected}")]
    Wrong { option: &'static str, expected: &'static str },
    #[error("the option {0} is given twice; write it with or without an underscore")]
    Twice(&'static str),
    #[error(transparent)]
    Terms(#[from] TermsError),
}

impl OptionError {
    pub(super) fn uri(self) -> &'static str {
        match self {
            Self::NotImplemented(_) => uri::NOT_IMPLEMENTED,
            Self::Wrong { .. } | Self::Twice(_) | Self::Terms(_) => uri::INVALID_ARGUMENT,
        }
    }
}

/// The options of a message by name, in both spellings.
pub(super) struct Names {
    known: &'static [&'static str],
    /// One bit for each option seen.
    seen: u32,
}

impl Names {
    pub(super) fn new(known: &'static [&'static str]) -> Self {
        assert!(known.len() <= 32, "one bit for each");
        Self { known, seen: 0 }
    }

    /// The option that a key names; `None` if it is not defined.
    pub(super) fn option(&mut self, key: &str) -> Result<Option<&'static str>, OptionError> {
        let name = match key.strip_prefix('_') {
            // Such names have no capital letters in WAMP.
            Some("retained_state") => "retainedState",
            Some(name) => name,
            None => key,
        };
        let Some(at) = self.known.iter().position(|known| *known == name) else { return Ok(None) };
        let bit = 1 << at;
        if self.seen & bit != 0 {
            return Err(OptionError::Twice(self.known[at]));
        }
        self.seen |= bit;
        Ok(Some(self.known[at]))
    }
}

/// How a client offers to say who it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Offered {
    /// It may stay anonymous: it says so, or names no method.
    pub(super) anonymous: bool,
    /// The methods that it names and that there are.
    pub(super) methods: Vec<Method>,
    pub(super) authid: Option<String>,
    pub(super) extra: Extra,
}

/// Reads what a HELLO says about that.
pub(super) fn offered(serializer: Serializer, details: &[u8]) -> Result<Offered, Malformed> {
    let mut offered = Offered { anonymous: true, ..Offered::default() };
    let is_asked = |key: &str| matches!(key, "authid" | "authmethods" | "authextra");
    entries(serializer, details, |key, value| {
        if !is_asked(key) {
            return;
        }
        match (key, decode(serializer, value)) {
            ("authid", Ok(Value::Str(authid))) => offered.authid = Some(authid),
            ("authextra", Ok(Value::Dict(fields))) => offered.extra = extra_of(fields),
            ("authmethods", Ok(Value::Null)) => {}
            ("authmethods", Ok(Value::List(methods))) => {
                let has = |wanted: &str| {
                    methods
                        .iter()
                        .any(|method| matches!(method, Value::Str(name) if name == wanted))
                };
                offered.anonymous = methods.is_empty() || has(ANONYMOUS);
                let is_named = |method: &Method| has(method.name());
                offered.methods = Method::ALL.into_iter().filter(is_named).collect();
            }
            ("authmethods", _) => offered.anonymous = false,
            _ => {}
        }
    })?;
    Ok(offered)
}

/// Reads what AUTHENTICATE has beside the signature.
pub(super) fn extra(serializer: Serializer, raw: &[u8]) -> Result<Extra, Malformed> {
    Ok(match decode(serializer, raw)? {
        Value::Dict(fields) => extra_of(fields),
        _ => Extra::default(),
    })
}

/// Fields that are not text are as good as none.
fn extra_of(fields: Vec<(String, Value)>) -> Extra {
    let mut extra = Extra::default();
    for (key, value) in fields {
        let field = match key.as_str() {
            "nonce" => &mut extra.nonce,
            "pubkey" => &mut extra.pubkey,
            "channel_binding" => &mut extra.channel_binding,
            "cbind_data" => &mut extra.cbind_data,
            "kdf" => &mut extra.kdf,
            _ => continue,
        };
        *field = match value {
            Value::Str(text) => Some(text),
            _ => None,
        };
    }
    extra
}

/// The options of PUBLISH.
#[derive(Debug)]
pub(super) struct PublishOptions {
    pub(super) acknowledge: bool,
    pub(super) exclude_me: bool,
    pub(super) disclose_me: bool,
    pub(super) retain: bool,
    pub(super) terms: Terms,
    /// The first error. It is next to the other fields, because they say how to answer it.
    pub(super) error: Option<OptionError>,
}

const PUBLISH_OPTIONS: &[&str] = &[
    "acknowledge",
    "exclude_me",
    "disclose_me",
    "retain",
    "merge",
    "watch",
    "when",
    "will",
    "exclude",
    "exclude_authid",
    "exclude_authrole",
    "eligible",
    "eligible_authid",
    "eligible_authrole",
];

impl PublishOptions {
    pub(super) fn read(serializer: Serializer, raw: &[u8]) -> Result<Self, Malformed> {
        let mut options = Self {
            acknowledge: false,
            exclude_me: true,
            disclose_me: false,
            retain: false,
            terms: Terms::default(),
            error: None,
        };
        let mut names = Names::new(PUBLISH_OPTIONS);
        entries(serializer, raw, |key, value| {
            let reader = Reader { serializer, value };
            let name = names.option(key);
            let twice = name.err();
            let read = match name.ok().flatten().unwrap_or_default() {
                "acknowledge" => reader.flag("acknowledge", &mut options.acknowledge),
                "exclude_me" => reader.flag("exclude_me", &mut options.exclude_me),
                "disclose_me" => reader.flag("disclose_me", &mut options.disclose_me),
                "retain" => reader.flag("retain", &mut options.retain),
                "merge" => reader.flag("merge", &mut options.terms.merge),
                "watch" => reader.flag("watch", &mut options.terms.watch),
                // Null is a value here: in `when` it means that there must be none, in `will` that the value is
                // deleted.
                "when" => reader.condition("when").map(|when| options.terms.when = Some(when)),
                "will" => reader.will().map(|will| options.terms.will = Some(will)),
                "" => Ok(()),
                not_built => Err(OptionError::NotImplemented(not_built)),
            };
            options.error = options.error.or(twice).or(read.err());
        })?;
        let together = terms::check(&options.terms, options.retain);
        options.error = options.error.or(together.err().map(OptionError::from));
        Ok(options)
    }
}

/// How to read a subscription's topic.
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
    pub(super) retained: RetainedMode,
    pub(super) filter: Option<Value>,
}

const SUBSCRIBE_OPTIONS: &[&str] =
    &["match", "after", "snapshot", "retained", "retainedState", "get_retained", "filter"];

impl SubscribeOptions {
    pub(super) fn read(
        serializer: Serializer,
        raw: &[u8],
    ) -> Result<Result<Self, OptionError>, Malformed> {
        let mut options = Self {
            matching: Match::Unsaid,
            after: None,
            snapshot: false,
            retained: RetainedMode::None,
            filter: None,
        };
        let (mut retained, mut state, mut get_retained) = (false, false, false);
        let mut error = None;
        let mut names = Names::new(SUBSCRIBE_OPTIONS);
        entries(serializer, raw, |key, value| {
            let reader = Reader { serializer, value };
            let name = names.option(key);
            let twice = name.err();
            let read = match name.ok().flatten().unwrap_or_default() {
                "match" => reader.matching().map(|matching| options.matching = matching),
                "after" => reader.after().map(|after| options.after = after),
                "snapshot" => reader.flag("snapshot", &mut options.snapshot),
                "retained" => reader.flag("retained", &mut retained),
                "retainedState" => reader.flag("retainedState", &mut state),
                // WAMP's own name for it (WAMP advanced profile, "Event Retention").
                "get_retained" => reader.flag("get_retained", &mut get_retained),
                "filter" => reader.condition("filter").map(|filter| options.filter = Some(filter)),
                _ => Ok(()),
            };
            error = error.or(twice).or(read.err());
        })?;
        match terms::retained_mode(retained, state || get_retained) {
            Ok(mode) => options.retained = mode,
            Err(both) => error = error.or(Some(both.into())),
        }
        Ok(error.map_or(Ok(options), Err))
    }

    /// Whether it has reading options of its own, so that no other SUBSCRIBE to the same topics can share it.
    pub(super) fn is_own(&self) -> bool {
        self.after.is_some()
            || self.snapshot
            || self.retained != RetainedMode::None
            || self.filter.is_some()
    }

    /// Reads the subscription's topic with the requested matching.
    pub(super) fn pattern(&self, topic: &str) -> Result<Pattern, TopicError> {
        match self.matching {
            Match::Unsaid => Pattern::from_wamp(topic),
            Match::Exact => crate::types::topic::Topic::from_wamp(topic).map(Pattern::Exact),
            Match::Prefix => Pattern::from_wamp_prefix(topic),
            Match::Wildcard => Pattern::from_wamp_wildcard(topic),
        }
    }
}

/// One option's value.
pub(super) struct Reader<'a> {
    pub(super) serializer: Serializer,
    pub(super) value: &'a [u8],
}

impl Reader<'_> {
    pub(super) fn read(&self) -> Option<Value> {
        decode(self.serializer, self.value).ok()
    }

    pub(super) fn flag(&self, option: &'static str, flag: &mut bool) -> Result<(), OptionError> {
        match self.read() {
            Some(Value::Bool(value)) => *flag = value,
            // JavaScript and Python clients send this for an option that was not given.
            Some(Value::Null) => {}
            _ => return Err(OptionError::Wrong { option, expected: "true or false" }),
        }
        Ok(())
    }

    fn condition(&self, option: &'static str) -> Result<Value, OptionError> {
        Ok(terms::condition(option, self.serializer, self.value)?)
    }

    /// The payload that a will publishes: the value as the one argument.
    fn will(&self) -> Result<Payload, OptionError> {
        let will = self.condition("will")?;
        let mut writer = Writer::new(self.serializer, self.value.len() + 8);
        writer.begin_list(1);
        match is_odd(self.serializer, self.value) {
            true => writer.value(&will),
            false => writer.raw(self.value),
        }
        writer.end_list();
        let (encoding, args) = (self.serializer.encoding(), writer.finish().into());
        Ok(Payload { encoding, args, kwargs: bytes::Bytes::new() })
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
            Some(Value::Str(text)) => match (text.parse(), text.parse()) {
                (Ok(id), _) => Ok(Some(After::Event(id))),
                (Err(_), Ok(number)) => Ok(Some(After::Position(Position(number)))),
                (Err(_), Err(_)) => Err(wrong),
            },
            value => match value.as_ref().and_then(Value::whole) {
                Some(number) => Ok(Some(After::Position(Position(number)))),
                None => Err(wrong),
            },
        }
    }
}

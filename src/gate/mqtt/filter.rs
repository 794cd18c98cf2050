//! Parses one filter of a SUBSCRIBE: a pattern, and how to read it (`src/SEMANTICS.md`, "Subscribe options").
//!
//! `$replay/<event id or position>/<filter>` replays after that place and continues live; `$snapshot/<filter>` shows
//! what there is and ends by itself, from the log's beginning if no place is given. Both may be combined. MQTT 5
//! clients may say the same for all filters of a packet in the user properties `vulpes-after` (a JSON text or number)
//! and `vulpes-snapshot` (`true` or `false`); a filter's own text takes precedence. Other properties are
//! `vulpes-retained` and `vulpes-retainedState` (`true` or `false`) and `vulpes-filter` (JSON). Without the first
//! two, retained values come as MQTT says, except before a replay, which shows them as events.
//!
//! Invariant: an option that is unknown or not built fails its SUBACK; none is ignored. User properties without our
//! prefix mean nothing here.
//!
//! Deliberately absent: shared subscriptions (`$share/…`). They are refused, like every filter that can never match
//! (`$SYS/#`).

use std::borrow::Cow;

use vulpes_raft::ids::Position;

use super::packet::codec::RetainHandling;
use super::packet::property;
use super::packet::{Reason, Violation};
use crate::gate::terms;
use crate::gate::RetainedMode;
use crate::payload::Serializer;
use crate::types::subscription::After;
use crate::types::topic::{Pattern, SILENT_TEXT};
use crate::types::value::Value;

const REPLAY: &str = "$replay/";
const SNAPSHOT: &str = "$snapshot/";
const SHARE: &str = "$share/";

/// Largest possible position.
const LAST_POSITION: u64 = 1 << 53;

/// From where in the log, and whether with retained values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reading {
    pub(crate) after: Option<After>,
    pub(crate) snapshot: bool,
    /// `None` if MQTT's own rules apply.
    pub(crate) retained: Option<RetainedMode>,
}

/// Options for all filters of a SUBSCRIBE, from its user properties.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Options {
    pub(crate) reading: Reading,
    /// Only events whose value matches.
    pub(crate) filter: Option<Value>,
}

impl Reading {
    /// Whether the log is read from an earlier place, so that a repeated SUBSCRIBE replays again.
    pub(crate) fn is_replay(&self) -> bool {
        self.after.is_some() || self.snapshot
    }

    /// How to treat retained values; `is_new` if the session has no subscription to the filter yet.
    pub(crate) fn retained_mode(&self, handling: RetainHandling, is_new: bool) -> RetainedMode {
        if let Some(mode) = self.retained {
            return mode;
        }
        let wanted = match handling {
            RetainHandling::EveryTime => true,
            RetainHandling::IfNew => is_new,
            RetainHandling::Never => false,
        };
        match wanted && !self.is_replay() {
            true => RetainedMode::State,
            false => RetainedMode::None,
        }
    }
}

/// Reads the options in a SUBSCRIBE's user properties. All other properties belong to the client.
pub(crate) fn read_options(properties: &[(String, String)]) -> Result<Options, Violation> {
    let mut options = Options::default();
    let (mut snapshot, mut retained, mut state) = (None, None, None);
    for (name, value) in properties {
        let Some(option) = property::option(name) else { continue };
        let flag = match option {
            "snapshot" => &mut snapshot,
            "retained" => &mut retained,
            "retainedState" => &mut state,
            "after" if options.reading.after.is_none() => {
                options.reading.after = Some(read_after(value)?);
                continue;
            }
            "filter" if options.filter.is_none() => {
                let filter = terms::condition("filter", Serializer::Json, value.as_bytes());
                options.filter = Some(filter.map_err(|error| wrong(error.to_string()))?);
                continue;
            }
            "after" | "filter" => return Err(wrong(format!("{name} is given twice"))),
            _ => return Err(property::no_such_option(name, "SUBSCRIBE")),
        };
        let value = match value.as_str() {
            "true" => true,
            "false" => false,
            _ => return Err(wrong(format!("the user property {name} is true or false"))),
        };
        if flag.replace(value).is_some() {
            return Err(wrong(format!("{name} is given twice")));
        }
    }
    let given = |flag: Option<bool>| flag == Some(true);
    options.reading.snapshot = given(snapshot);
    let mode = terms::retained_mode(given(retained), given(state))
        .map_err(|error| wrong(error.to_string()))?;
    options.reading.retained = (mode != RetainedMode::None).then_some(mode);
    Ok(options)
}

fn wrong(text: impl Into<Cow<'static, str>>) -> Violation {
    Violation::new(Reason::ImplementationSpecific, text)
}

fn read_after(value: &str) -> Result<After, Violation> {
    let expected =
        "the user property vulpes-after is a JSON text with an event id, or a position as a number";
    let text = match serde_json::from_str(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(serde_json::Value::Number(number)) => number.to_string(),
        _ => return Err(wrong(expected)),
    };
    read_place(&text).ok_or_else(|| wrong(expected))
}

/// A position is all digits; an event id never is.
fn read_place(text: &str) -> Option<After> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let position = text.parse().ok().filter(|position| *position <= LAST_POSITION)?;
        return Some(After::Position(Position(position)));
    }
    text.parse().ok().map(After::Event)
}

/// Parses a filter, given the options of the packet's user properties.
pub(crate) fn read(text: &str, options: Reading) -> Result<(Pattern, Reading), Violation> {
    let invalid = |text: String| Violation::new(Reason::TopicFilterInvalid, text);
    let mut rest = text;
    let mut reading = Reading::default();
    loop {
        if let (Some(behind), false) = (rest.strip_prefix(SNAPSHOT), reading.snapshot) {
            reading.snapshot = true;
            rest = behind;
        } else if let (Some(behind), None) = (rest.strip_prefix(REPLAY), reading.after) {
            let (place, filter) = behind.split_once('/').unwrap_or((behind, ""));
            reading.after = Some(read_place(place).ok_or_else(|| {
                invalid("expected $replay/<event id or position>/<filter>".to_owned())
            })?);
            rest = filter;
        } else {
            break;
        }
    }
    if rest.starts_with(SHARE) || rest == "$share" {
        return Err(Violation::new(
            Reason::SharedSubscriptionsNotSupported,
            "shared subscriptions are not available",
        ));
    }
    let pattern = Pattern::from_mqtt(rest).map_err(|error| invalid(error.to_string()))?;
    if pattern.is_silent() {
        return Err(Violation::new(Reason::NotAuthorized, SILENT_TEXT));
    }
    reading.after = reading.after.or(options.after);
    reading.snapshot |= options.snapshot;
    reading.retained = options.retained;
    // A snapshot shows the retained values if these are asked for, else all events.
    if reading.snapshot && reading.retained.is_none() {
        reading.after.get_or_insert(After::Position(Position(0)));
    }
    Ok((pattern, reading))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u64) -> Option<After> {
        Some(After::Position(Position(position)))
    }

    #[test]
    fn filters_say_where_to_begin() {
        let event = Some(After::Event("2611221742b1za3".parse().unwrap()));
        use RetainedMode::{Changes, State};
        type Expected = Result<(&'static str, Reading), Reason>;
        let table: &[(&str, Reading, Expected)] = &[
            ("a/+", none(), Ok(("a/+", none()))),
            ("$replay/17/a", none(), Ok(("a", reading(at(17), false)))),
            ("$replay/0/a/#", none(), Ok(("a/#", reading(at(0), false)))),
            ("$replay/2611221742b1za3/a", none(), Ok(("a", reading(event, false)))),
            ("$snapshot/a", none(), Ok(("a", reading(at(0), true)))),
            ("$snapshot/$replay/5/a", none(), Ok(("a", reading(at(5), true)))),
            ("$replay/5/$snapshot/a", none(), Ok(("a", reading(at(5), true)))),
            ("a", reading(at(3), false), Ok(("a", reading(at(3), false)))),
            ("$replay/5/a", reading(at(3), true), Ok(("a", reading(at(5), true)))),
            ("$snapshot/a", reading(at(3), false), Ok(("a", reading(at(3), true)))),
            ("a", with(State, none()), Ok(("a", with(State, none())))),
            ("$snapshot/a", with(State, none()), Ok(("a", with(State, reading(None, true))))),
            ("$replay/5/a", with(Changes, none()), Ok(("a", with(Changes, reading(at(5), false))))),
            ("$snapshot/$snapshot/a", none(), Err(Reason::NotAuthorized)),
            ("$replay", none(), Err(Reason::NotAuthorized)),
            // Topics without and with a publisher.
            ("$SYS/#", none(), Err(Reason::NotAuthorized)),
            ("$replay/0/$SYS/broker/uptime", none(), Err(Reason::NotAuthorized)),
            (
                "$SYS/broker/connection/+/state",
                none(),
                Ok(("$SYS/broker/connection/+/state", none())),
            ),
            ("wamp/registration/on_create", none(), Err(Reason::NotAuthorized)),
            ("wamp/#", none(), Ok(("wamp/#", none()))),
            ("$replay/", none(), Err(Reason::TopicFilterInvalid)),
            ("$replay/5", none(), Err(Reason::TopicFilterInvalid)),
            ("$replay/5/", none(), Err(Reason::TopicFilterInvalid)),
            ("$replay/-5/a", none(), Err(Reason::TopicFilterInvalid)),
            ("$replay//a", none(), Err(Reason::TopicFilterInvalid)),
            ("$replay/9007199254740993/a", none(), Err(Reason::TopicFilterInvalid)),
            ("$replay/99999999999999999999999/a", none(), Err(Reason::TopicFilterInvalid)),
            ("$snapshot/", none(), Err(Reason::TopicFilterInvalid)),
            ("a/#/b", none(), Err(Reason::TopicFilterInvalid)),
            ("a+", none(), Err(Reason::TopicFilterInvalid)),
            ("", none(), Err(Reason::TopicFilterInvalid)),
            ("$share/g/a", none(), Err(Reason::SharedSubscriptionsNotSupported)),
            ("$snapshot/$share/g/a", none(), Err(Reason::SharedSubscriptionsNotSupported)),
        ];
        for (text, options, expected) in table {
            let read = read(text, *options).map_err(|violation| violation.reason);
            let expected =
                expected.map(|(pattern, reading)| (Pattern::from_mqtt(pattern).unwrap(), reading));
            assert_eq!(read, expected, "{text}");
        }
    }

    fn none() -> Reading {
        Reading::default()
    }

    fn reading(after: Option<After>, snapshot: bool) -> Reading {
        Reading { after, snapshot, retained: None }
    }

    fn with(retained: RetainedMode, reading: Reading) -> Reading {
        Reading { retained: Some(retained), ..reading }
    }

    #[test]
    fn user_properties_say_where_to_begin() {
        let event = Some(After::Event("2611221742b1za3".parse().unwrap()));
        type Properties = &'static [(&'static str, &'static str)];
        let table: &[(Properties, Option<Reading>)] = &[
            (&[], Some(none())),
            (&[("colour", "red"), ("after", "1"), ("filter", "{"), ("match", "x")], Some(none())),
            (&[("vulpes-after", "17")], Some(reading(at(17), false))),
            (&[("vulpes-after", "\"17\"")], Some(reading(at(17), false))),
            (&[("vulpes-after", "\"2611221742b1za3\"")], Some(reading(event, false))),
            (&[("vulpes-snapshot", "true"), ("vulpes-after", "1")], Some(reading(at(1), true))),
            (&[("vulpes-snapshot", "false")], Some(none())),
            (&[("vulpes-snapshot", "yes")], None),
            (&[("vulpes-snapshot", "true"), ("vulpes-snapshot", "true")], None),
            (&[("vulpes-after", "1"), ("vulpes-after", "2")], None),
            (&[("vulpes-after", "1.5")], None),
            (&[("vulpes-after", "-1")], None),
            (&[("vulpes-after", "null")], None),
            (&[("vulpes-after", "")], None),
            (&[("vulpes-after", "\"\"")], None),
            (&[("vulpes-retained", "true")], Some(with(RetainedMode::Changes, none()))),
            (&[("vulpes-retainedState", "true")], Some(with(RetainedMode::State, none()))),
            (&[("vulpes-retainedState", "false"), ("vulpes-retained", "false")], Some(none())),
            (&[("vulpes-retained", "true"), ("vulpes-retainedState", "true")], None),
            (&[("vulpes-retained", "true"), ("vulpes-retained", "true")], None),
            (&[("vulpes-retained", "1")], None),
            (&[("vulpes-filter", "{}")], Some(none())),
            (&[("vulpes-filter", "{}"), ("vulpes-filter", "{}")], None),
            (&[("vulpes-filter", "{")], None),
            (&[("vulpes-filter", "")], None),
            (&[("vulpes-match", "\"prefix\"")], None),
        ];
        for (properties, expected) in table {
            let owned = properties.iter().map(|(n, v)| (n.to_string(), v.to_string()));
            let read = read_options(&owned.collect::<Vec<_>>()).map(|options| options.reading);
            assert_eq!(read.ok(), *expected, "{properties:?}");
        }
    }

    #[test]
    fn retained_values_come_as_mqtt_says_unless_asked_for_by_name() {
        use RetainHandling::{EveryTime, IfNew, Never};
        use RetainedMode::{Changes, State};
        let table = [
            (none(), EveryTime, [State, State]),
            (none(), IfNew, [State, RetainedMode::None]),
            (none(), Never, [RetainedMode::None; 2]),
            (reading(at(5), false), EveryTime, [RetainedMode::None; 2]),
            (reading(at(0), true), EveryTime, [RetainedMode::None; 2]),
            (with(Changes, none()), Never, [Changes; 2]),
            (with(State, reading(at(5), false)), Never, [State; 2]),
        ];
        for (reading, handling, expected) in table {
            let modes = [true, false].map(|is_new| reading.retained_mode(handling, is_new));
            assert_eq!(modes, expected, "{reading:?} {handling:?}");
        }
    }
}

//! What one line of a SUBSCRIBE asks for: a pattern, and from where in the log (SEMANTICS, "Subscribe options").
//!
//! `$replay/<event id or position>/<filter>` replays after that place and goes on live; `$snapshot/<filter>` shows
//! what there is and ends by itself, from the log's beginning where no place is given. Both may stand together. MQTT 5
//! clients may say the same for all filters of a packet in the user properties `after` (a JSON text or number) and
//! `snapshot` (`true` or `false`); what a filter itself says goes first.
//!
//! Invariant: an option that is not built fails its SUBACK; none is ignored.
//!
//! Deliberately absent: shared subscriptions (`$share/…`), which are refused.

use std::borrow::Cow;

use vulpes_raft::ids::Position;

use super::packet::{Reason, Violation};
use crate::gate::After;
use crate::topic::Pattern;

const REPLAY: &str = "$replay/";
const SNAPSHOT: &str = "$snapshot/";
const SHARE: &str = "$share/";

/// Largest position there can be.
const LAST_POSITION: u64 = 1 << 53;

/// Options named in user properties that are not built yet.
const OPTIONS_NOT_BUILT: &[&str] = &["retained", "retainedState", "filter", "match"];

/// From where in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reading {
    pub(crate) after: Option<After>,
    pub(crate) snapshot: bool,
}

impl Reading {
    /// Whether the log is read from an earlier place, so that asking twice means to see it twice.
    pub(crate) fn is_replay(&self) -> bool {
        self.after.is_some() || self.snapshot
    }
}

/// Reads the options that stand in a SUBSCRIBE's user properties. Others than ours are the client's own business.
pub(crate) fn read_options(properties: &[(String, String)]) -> Result<Reading, Violation> {
    let mut reading = Reading::default();
    let mut seen_snapshot = false;
    for (name, value) in properties {
        match name.as_str() {
            "after" if reading.after.is_none() => reading.after = Some(read_after(value)?),
            "snapshot" if !seen_snapshot => {
                seen_snapshot = true;
                reading.snapshot = match value.as_str() {
                    "true" => true,
                    "false" => false,
                    _ => return Err(wrong("the user property snapshot is true or false")),
                };
            }
            "after" | "snapshot" => return Err(wrong(format!("{name} is there twice"))),
            other if OPTIONS_NOT_BUILT.contains(&other) => {
                return Err(wrong(format!("the subscribe option {other} is not available")));
            }
            _ => {}
        }
    }
    Ok(reading)
}

fn wrong(text: impl Into<Cow<'static, str>>) -> Violation {
    Violation::new(Reason::ImplementationSpecific, text)
}

fn read_after(value: &str) -> Result<After, Violation> {
    let expected =
        "the user property after is a JSON text with an event id, or a position as a number";
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

/// Reads a filter, given what the packet's user properties say.
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
    reading.after = reading.after.or(options.after);
    reading.snapshot |= options.snapshot;
    if reading.snapshot {
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
            // A topic's own name, once the option has been read.
            ("$snapshot/$snapshot/a", none(), Ok(("$snapshot/a", reading(at(0), true)))),
            ("$replay", none(), Ok(("$replay", none()))),
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
        Reading { after, snapshot }
    }

    #[test]
    fn user_properties_say_where_to_begin() {
        let event = Some(After::Event("2611221742b1za3".parse().unwrap()));
        type Properties = &'static [(&'static str, &'static str)];
        let table: &[(Properties, Option<Reading>)] = &[
            (&[], Some(none())),
            (&[("colour", "red")], Some(none())),
            (&[("after", "17")], Some(reading(at(17), false))),
            (&[("after", "\"17\"")], Some(reading(at(17), false))),
            (&[("after", "\"2611221742b1za3\"")], Some(reading(event, false))),
            (&[("snapshot", "true"), ("after", "1")], Some(reading(at(1), true))),
            (&[("snapshot", "false")], Some(none())),
            (&[("snapshot", "yes")], None),
            (&[("snapshot", "true"), ("snapshot", "true")], None),
            (&[("after", "1"), ("after", "2")], None),
            (&[("after", "1.5")], None),
            (&[("after", "-1")], None),
            (&[("after", "null")], None),
            (&[("after", "")], None),
            (&[("after", "\"\"")], None),
            (&[("retained", "true")], None),
            (&[("retainedState", "false")], None),
            (&[("filter", "{}")], None),
            (&[("match", "\"prefix\"")], None),
        ];
        for (properties, expected) in table {
            let owned = properties.iter().map(|(n, v)| (n.to_string(), v.to_string()));
            assert_eq!(read_options(&owned.collect::<Vec<_>>()).ok(), *expected, "{properties:?}");
        }
    }
}

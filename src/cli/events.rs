//! How the client commands show events, and parse their arguments.
//!
//! Invariant: one event is one line, whatever it contains.
//!
//! Deliberately absent: where events come from.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{json, Map, Value};
use vulpes_raft::ids::Position;

use crate::client::wamp::{Arguments, ReceivedEvent};

/// Writes an event. `subscribed` is its topic if the node did not name one.
pub(super) fn print(event: &ReceivedEvent, subscribed: &str, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", line(event, subscribed, as_json))?;
    out.flush()
}

/// Writes the position that a publish was given.
pub(super) fn print_position(position: Position, topic: &str, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{}", json!({"position": position, "topic": topic}))?;
    } else {
        writeln!(out, "{position}")?;
    }
    out.flush()
}

/// Parses an argument: as JSON, or else as a string, like MQTT payloads.
pub(super) fn argument(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// Parses keyword arguments.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

/// Parses a duration, such as 500ms, 30s, 5m.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a time, as in 30s"))?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("{unit:?} is no unit of time: use ms, s, m, h or d")),
    };
    Ok(Duration::from_millis(number.saturating_mul(milliseconds)))
}

fn line(event: &ReceivedEvent, subscribed: &str, as_json: bool) -> String {
    let topic = event.topic.as_deref().unwrap_or(subscribed);
    if as_json {
        let mut object = json!({
            "position": event.position,
            "event_id": event.event_id,
            "topic": topic,
            "args": event.arguments.args,
        });
        if !event.arguments.kwargs.is_empty() {
            object["kwargs"] = event.arguments.kwargs.clone().into();
        }
        return object.to_string();
    }
    let id = event.event_id.as_deref().unwrap_or("-");
    // A published topic must not control a terminal; JSON escapes the payload.
    let topic: String =
        topic.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    format!("{} {id} {topic} {}", event.position, payload(&event.arguments)).trim_end().to_owned()
}

/// The payload as MQTT subscribers get it: nothing, the only argument, the list, or both kinds of arguments.
pub(super) fn payload(arguments: &Arguments) -> String {
    match (arguments.args.as_slice(), arguments.kwargs.is_empty()) {
        ([], true) => String::new(),
        ([only], true) => only.to_string(),
        (several, true) => Value::from(several).to_string(),
        (args, false) => json!({"args": args, "kwargs": arguments.kwargs}).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let kwargs: Map<String, Value> = [("k".to_owned(), json!(1))].into_iter().collect();
        let cases = [
            (vec![], Map::new(), "7 2611a1a1 a.b"),
            (vec![json!("x\ny")], Map::new(), r#"7 2611a1a1 a.b "x\ny""#),
            (vec![json!(1), json!(null)], Map::new(), "7 2611a1a1 a.b [1,null]"),
            (vec![json!(1)], kwargs, r#"7 2611a1a1 a.b {"args":[1],"kwargs":{"k":1}}"#),
        ];
        for (args, kwargs, expected) in cases {
            let event = ReceivedEvent {
                subscription: 1,
                position: Position(7),
                event_id: Some("2611a1a1".into()),
                topic: None,
                arguments: Arguments { args, kwargs },
            };
            assert_eq!(line(&event, "a.b", false), expected);
            let object: Value = serde_json::from_str(&line(&event, "a.b", true)).unwrap();
            assert_eq!(object["position"], 7);
            assert_eq!(object["topic"], "a.b");
        }
    }
}

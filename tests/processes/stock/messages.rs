//! What stock clients publish, and how every client must see it.
//!
//! Invariant: both are next to each other in one table for each protocol (`src/SEMANTICS.md`, "Payloads and values").
//!
//! Deliberately absent: whole floating-point numbers, which the clients' languages write differently.

use base64::Engine;
use serde_json::{json, Value};

use super::Shown;

/// A numbered burst after the table, to test the order.
const BURST: usize = 30;

/// What a WAMP client publishes: the line for its script, and what all clients see.
pub(super) fn wamp(topic: &str) -> Vec<(Value, Value)> {
    let line =
        |args: Value, kwargs: Value| json!({ "topic": topic, "args": args, "kwargs": kwargs });
    let only = |arg: Value| (line(json!([arg]), json!({})), json!({ "value": arg }));
    let mut table = vec![
        only(json!({ "from": topic, "nested": { "list": [1, null, "ü"] } })),
        only(json!("text, and 日本語")),
        only(json!(42)),
        only(json!(-1.5)),
        only(json!(true)),
        only(json!(null)),
        only(json!([])),
        (line(json!([]), json!({})), json!({ "empty": true })),
        (line(json!([1, "two", [3]]), json!({})), json!({ "value": [1, "two", [3]] })),
        (
            line(json!([1]), json!({ "k": "v" })),
            json!({ "value": { "args": [1], "kwargs": { "k": "v" } } }),
        ),
        (line(json!([{ "$hex": "00ff10" }]), json!({})), json!({ "binary": "00ff10" })),
    ];
    table.extend((0..BURST).map(|number| only(json!(format!("burst {number}")))));
    table
}

/// What an MQTT client publishes, at each quality of service: the line for its script, and what all clients see.
pub(super) fn mqtt(topic: &str) -> Vec<(Value, Value)> {
    let topic = topic.replace('.', "/");
    let text = |qos: u8, text: &str, value: Value| {
        (json!({ "topic": topic, "qos": qos, "text": text }), json!({ "value": value }))
    };
    let bytes = |hex: &str, shown: Value| (json!({ "topic": topic, "qos": 2, "hex": hex }), shown);
    let mut table = vec![
        text(
            1,
            "{\"n\": 1, \"list\": [1, null, \"ü\"]}",
            json!({ "n": 1, "list": [1, null, "ü"] }),
        ),
        text(0, "text, and 日本語", json!("text, and 日本語")),
        text(1, "42", json!(42)),
        text(0, "[1, 2]", json!([1, 2])),
        text(1, "null", json!(null)),
        text(1, "\"quoted\"", json!("quoted")),
        text(2, "{not json", json!("{not json")),
        bytes("00ff10", json!({ "binary": "00ff10" })),
        bytes("", json!({ "empty": true })),
    ];
    for number in 0..BURST {
        let burst = format!("burst {number}");
        table.push(text((number % 3) as u8, &burst, json!(burst)));
    }
    table
}

/// Input for `mosquitto_pub -l`: texts without line breaks.
pub(super) fn lines(topic: &str) -> Vec<(String, Value)> {
    let table = mqtt(topic).into_iter();
    let texts = table.filter_map(|(line, value)| Some((line["text"].as_str()?.to_owned(), value)));
    texts.collect()
}

/// An MQTT payload, as the scripts show it.
pub(super) fn show_bytes(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return json!({ "empty": true });
    }
    match (std::str::from_utf8(bytes), serde_json::from_slice::<Value>(bytes)) {
        (_, Ok(value)) => json!({ "value": value }),
        (Ok(text), _) => json!({ "value": text }),
        _ => json!({ "binary": hex(bytes) }),
    }
}

/// Topic and value of a line that a subscriber printed.
pub(super) fn shown(event: &Value) -> Shown {
    let mut value = event.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("topic");
        fields.remove("position");
    }
    // Bytes from WAMP are a text in JSON, and MQTT clients can't know that they are bytes.
    if let Some(text) = value["value"].as_str().and_then(|text| text.strip_prefix('\0')) {
        if let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(text) {
            value = json!({ "binary": hex(&bytes) });
        }
    }
    (event["topic"].as_str().unwrap_or_default().to_owned(), value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

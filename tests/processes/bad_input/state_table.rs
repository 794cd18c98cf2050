//! Invalid or too large options on shared state: each is refused, and its session continues.
//!
//! Invariant: a refused option has no effect. The next request of the session that sent it succeeds.
//!
//! Deliberately absent: the texts of the refusals (the gates' own tests have those).

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};
use serde_json::json;
use vulpes::types::limits;
use vulpes_jepsen::mqtt::{packet, string, Mqtt};
use vulpes_jepsen::wait::within;

use super::wamp_table::{Outcome, SessionCase};
use super::TURNED_AWAY;

const ARGUMENT: &str = "wamp.error.invalid_argument";

/// A value in JSON whose nesting, number of values or number of bytes is one above the limit.
fn deep() -> String {
    "[".repeat(33) + &"]".repeat(33)
}

fn many() -> String {
    format!("[{}]", vec!["1"; 4096].join(","))
}

fn long() -> String {
    format!("\"{}\"", "x".repeat(65_535))
}

pub(super) fn wamp_cases() -> Vec<SessionCase> {
    let publish =
        |options: &str| format!("[16,1,{{\"acknowledge\":true,{options}}},\"bad.t\",[1]]");
    let subscribe = |options: &str| format!("[32,1,{{{options}}},\"bad.t\"]");
    let violation = Outcome::Abort("wamp.error.protocol_violation");
    let mut cases = vec![
        SessionCase::new("a when that is no JSON", publish("\"when\":{]"), violation),
        SessionCase::new(
            "a place behind the log",
            subscribe("\"after\":9007199254740991"),
            Outcome::Error("vulpes.error.no_such_position"),
        ),
        SessionCase::new(
            "a retained read behind the log",
            subscribe("\"after\":9007199254740991,\"retained\":true"),
            Outcome::Error("vulpes.error.no_such_position"),
        ),
        SessionCase::new(
            "a retained value that is too large",
            json!([16, 1, { "acknowledge": true, "retain": true }, "bad.t", ["x".repeat(limits::EVENT)]])
                .to_string(),
            Outcome::Error("wamp.error.payload_size_exceeded"),
        ),
    ];
    let table = [
        ("retain with a text", publish("\"retain\":\"yes\"")),
        ("watch with a number", publish("\"when\":1,\"watch\":1")),
        ("watch without when", publish("\"watch\":true")),
        ("will without retain", publish("\"will\":null")),
        ("a deep when", publish(&format!("\"when\":{}", deep()))),
        ("a when of many values", publish(&format!("\"when\":{}", many()))),
        ("a long when", publish(&format!("\"when\":{}", long()))),
        ("a deep will", publish(&format!("\"retain\":true,\"will\":{}", deep()))),
        ("a will of many values", publish(&format!("\"retain\":true,\"will\":{}", many()))),
        ("a long will", publish(&format!("\"retain\":true,\"will\":{}", long()))),
        ("a deep filter", subscribe(&format!("\"filter\":{}", deep()))),
        ("a filter of many values", subscribe(&format!("\"filter\":{}", many()))),
        ("a long filter", subscribe(&format!("\"filter\":{}", long()))),
        ("after with a text that is no place", subscribe("\"after\":\"soup\"")),
        ("a place below 0", subscribe("\"after\":-1")),
        ("half a place", subscribe("\"after\":1.5")),
        ("a place that is an object", subscribe("\"after\":{}")),
        ("both ways of retained values", subscribe("\"retained\":true,\"retainedState\":true")),
        ("snapshot with a number", subscribe("\"snapshot\":1")),
        ("an unknown match", subscribe("\"match\":\"soup\"")),
    ];
    let refused = |(name, text)| SessionCase::new(name, text, Outcome::Error(ARGUMENT));
    cases.extend(table.map(refused));
    cases
}

/// A packet of MQTT 5 that is answered with a reason above 0x80.
pub(super) struct RefusedCase {
    name: &'static str,
    subscribes: bool,
    properties: Vec<(&'static str, String)>,
    topic: &'static str,
}

impl RefusedCase {
    pub(super) async fn play(self, address: SocketAddr) -> Result<()> {
        let name = self.name;
        within(name, TURNED_AWAY, self.run(address)).await.with_context(|| format!("MQTT: {name}"))
    }

    async fn run(self, address: SocketAddr) -> Result<()> {
        let mut session = Mqtt::open(address).await?;
        session.send(&super::mqtt_table::connect(5, self.name)).await?;
        let welcome = session.receive().await?.context("no CONNACK")?;
        ensure!(welcome.0 == 0x20, "not let in: {welcome:02x?}");
        session.send(&self.packet()).await?;
        let (first, body) = session.receive().await?.context("hung up")?;
        let expected = if self.subscribes { 0x90 } else { 0x40 };
        ensure!(first == expected, "no refusal but {first:#04x} {body:02x?}");
        let reason = if self.subscribes { body.last() } else { body.get(2) };
        ensure!(reason.is_some_and(|reason| *reason >= 0x80), "not refused: {body:02x?}");
        session.send(&[0xc0, 0]).await?;
        let alive = session.receive().await?.context("hung up after a refusal")?;
        ensure!(alive.0 == 0xd0, "the session does not go on: {alive:02x?}");
        Ok(())
    }

    fn packet(&self) -> Vec<u8> {
        let mut properties = Vec::new();
        for (name, value) in &self.properties {
            properties.push(38);
            properties.extend(string(name));
            properties.extend(string(value));
        }
        // The length of properties is written as that of a packet is.
        let properties = packet(0, &properties)[1..].to_vec();
        let topic = string(self.topic);
        match self.subscribes {
            true => packet(0x82, &[vec![0, 1], properties, topic, vec![1]].concat()),
            false => packet(0x32, &[topic, vec![0, 1], properties, b"1".to_vec()].concat()),
        }
    }
}

pub(super) fn mqtt_cases() -> Vec<RefusedCase> {
    let retain = || ("vulpes-retain", "true".to_owned());
    let (when, will) = (|text: String| ("vulpes-when", text), |text: String| ("vulpes-will", text));
    let (filter, after) =
        (|text: String| ("vulpes-filter", text), |text: &str| ("vulpes-after", text.to_owned()));
    let publishes = vec![
        ("a when that is no JSON", vec![when("{".into())]),
        ("an empty when", vec![when(String::new())]),
        ("two whens", vec![when("1".into()), when("1".into())]),
        ("a deep when", vec![when(deep())]),
        ("a when of many values", vec![when(many())]),
        ("a deep will", vec![retain(), will(deep())]),
        ("a will without retain", vec![will("1".into())]),
        ("a watch without when", vec![("vulpes-watch", "true".into())]),
        ("a watch that is no flag", vec![when("1".into()), ("vulpes-watch", "1".into())]),
        ("an unknown option", vec![("vulpes-wen", "1".into())]),
        ("a retain that is no flag", vec![("vulpes-retain", "yes".into())]),
    ];
    let subscribes = vec![
        ("a filter that is no JSON", vec![filter("{".into())]),
        ("a deep filter", vec![filter(deep())]),
        ("a filter of many values", vec![filter(many())]),
        ("an after that is no place", vec![after("\"soup\"")]),
        ("an after below 0", vec![after("-1")]),
        ("an after behind the log", vec![after("9007199254740991")]),
        ("an unknown option to subscribe with", vec![("vulpes-match", "1".into())]),
        ("a snapshot that is no flag", vec![("vulpes-snapshot", "1".into())]),
        (
            "two ways",
            vec![("vulpes-retained", "true".into()), ("vulpes-retainedState", "true".into())],
        ),
    ];
    let case = |subscribes| {
        move |(name, properties)| RefusedCase { name, subscribes, properties, topic: "bad/t" }
    };
    let spelled = |(name, topic)| RefusedCase { topic, ..case(true)((name, Vec::new())) };
    let filters = [
        ("a replay from nowhere", "$replay/soup/bad/t"),
        ("a replay without a filter", "$replay/0"),
        ("a replay from behind the log", "$replay/9007199254740991/bad/t"),
        ("what other brokers tell of themselves", "$SYS/#"),
        ("events of WAMP that there are not", "wamp/registration/on_create"),
    ];
    let topics = [
        ("a topic of the router's", "$SYS/broker/uptime"),
        ("a topic that is an option", "$replay/0/bad/t"),
        ("a control character in a topic", "bad/\u{1}"),
    ];
    let published = |(name, topic)| RefusedCase { topic, ..case(false)((name, Vec::new())) };
    let mut cases: Vec<_> = publishes.into_iter().map(case(false)).collect();
    cases.extend(subscribes.into_iter().map(case(true)));
    cases.extend(filters.map(spelled));
    cases.extend(topics.map(published));
    cases
}

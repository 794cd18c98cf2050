//! Bench clients that read retained values: subscribe to a topic, get its value, unsubscribe.
//!
//! Invariant: a read counts once it got exactly the value of its topic. A connection has at most one subscription of
//! a topic at a time, so that a value belongs to one read.
//!
//! Deliberately absent: changing values while they are read.

use std::time::Duration;

use anyhow::{bail, ensure, Context};
use bytes::BytesMut;
use futures::SinkExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::load::{Load, Plan};
use super::mqtt::{self as mqtt_client, Connection, IDS};
use super::payload::Content;
use super::wamp::{self as wamp_client, close, head, open, receive, EVENT_TAIL};
use crate::client::mqtt::{self, Packet};

/// Values that are set or deleted at the same time.
const AT_ONCE: usize = 64;

/// The value of a topic.
fn value(plan: &Plan, topic: usize) -> BytesMut {
    let mut value = BytesMut::new();
    let content = Content { publisher: 0, sequence: topic as u64, sent: 0 };
    plan.mark.write(&mut value, content, plan.shape.size);
    value
}

fn topics(plan: &Plan, separator: char) -> Vec<String> {
    let prefix = format!("bench{separator}{:08x}{separator}kept", plan.run);
    (0..plan.shape.topics).map(|topic| format!("{prefix}{topic}")).collect()
}

/// Sets the topics' values over MQTT, or deletes them.
pub(super) async fn mqtt(plan: &Plan, target: &str, values: bool) -> anyhow::Result<()> {
    let client = format!("vulpes-bench-{:08x}", plan.run);
    let mut connection = Connection::open(plan, target, &client).await?;
    let all: Vec<(usize, String)> = topics(plan, '/').into_iter().enumerate().collect();
    for some in all.chunks(AT_ONCE) {
        for ((number, topic), id) in some.iter().zip(1..) {
            let value = if values { value(plan, *number) } else { BytesMut::new() };
            mqtt::retain(&mut connection.output, topic, id, &value);
        }
        connection.flush().await?;
        for _ in some {
            let acknowledged = |packet: Packet<'_>| match packet {
                Packet::PubAck { id } => Some(id),
                _ => None,
            };
            connection.expect(acknowledged).await.context("a value was not accepted")?;
        }
    }
    connection.close().await
}

/// Sets the topics' values over WAMP, or deletes them.
pub(super) async fn wamp(plan: &Plan, target: &str, values: bool) -> anyhow::Result<()> {
    let mut socket = open(plan, target).await?;
    let all: Vec<(usize, String)> = topics(plan, '.').into_iter().enumerate().collect();
    for some in all.chunks(AT_ONCE) {
        for (number, topic) in some {
            let value = value(plan, *number);
            let arguments = if values { json!([std::str::from_utf8(&value)?]) } else { json!([]) };
            let options = json!({"acknowledge": true, "retain": true});
            let publish = json!([16, number + 1, options, topic, arguments]);
            socket.feed(Message::text(publish.to_string())).await?;
        }
        socket.flush().await?;
        for _ in some {
            let answer = receive(&mut socket).await?;
            let taken = head(&answer).is_some_and(|(code, _)| code == 17);
            ensure!(taken, "a value was not accepted: {answer:.200}");
        }
    }
    close(&mut socket).await
}

/// The read that each topic's subscription is for.
struct Reads(Vec<Option<u64>>);

impl Reads {
    fn new(plan: &Plan) -> Self {
        Self(vec![None; plan.shape.topics as usize])
    }

    /// Begins the next read, if there is room and time for one; returns the number of its topic.
    fn begin(&mut self, load: &mut Load, now: Duration) -> Option<usize> {
        let content = load.begin(now)?;
        let topic = load.topic(content.sequence);
        self.0[topic] = Some(content.sequence);
        Some(topic)
    }

    /// Handles a message with a value, which `tail` bytes follow; returns the number of its topic.
    fn answered(
        &mut self,
        load: &mut Load,
        message: &[u8],
        tail: usize,
        now: Duration,
    ) -> anyhow::Result<usize> {
        let plan = load.plan();
        let content = plan.mark.find(message, plan.shape.size, tail);
        let topic = content.and_then(|content| usize::try_from(content.sequence).ok());
        let known = topic.and_then(|topic| Some((topic, self.0.get_mut(topic)?.take()?)));
        let Some((topic, sequence)) = known else {
            bail!("the answer is not the value of a topic that is being read");
        };
        ensure!(load.answered(sequence, now), "a value came that no read waits for");
        Ok(topic)
    }
}

/// Reads over MQTT.
pub(super) struct MqttReads {
    topics: Vec<String>,
    reads: Reads,
    /// The packet identifier that was used last.
    id: u64,
}

/// A client that reads over MQTT.
pub(super) async fn mqtt_reader(
    plan: &Plan,
    target: &str,
    number: u16,
) -> anyhow::Result<mqtt_client::Asking<MqttReads>> {
    let client = format!("vulpes-bench-{:08x}-r{number}", plan.run);
    let connection = Connection::open(plan, target, &client).await?;
    let reads = MqttReads { topics: topics(plan, '/'), reads: Reads::new(plan), id: 0 };
    Ok(mqtt_client::Asking::new(connection, reads))
}

impl MqttReads {
    fn next_id(&mut self) -> u16 {
        self.id = self.id % IDS + 1;
        self.id as u16
    }
}

impl mqtt_client::Requests for MqttReads {
    fn ask(&mut self, load: &mut Load, now: Duration, output: &mut BytesMut) {
        while let Some(topic) = self.reads.begin(load, now) {
            mqtt::subscribe(output, self.next_id(), &self.topics[topic], 0);
        }
    }

    fn take(
        &mut self,
        load: &mut Load,
        packet: Packet<'_>,
        now: Duration,
        output: &mut BytesMut,
    ) -> anyhow::Result<()> {
        match packet {
            Packet::Publish { topic, payload, .. } => {
                let number = self.reads.answered(load, payload, 0, now)?;
                let id = self.next_id();
                let expected = &self.topics[number];
                let is_its = topic == expected.as_bytes();
                ensure!(is_its, "the value of {expected} came for another topic");
                mqtt::unsubscribe(output, id, expected);
            }
            Packet::SubAck { granted, .. } => {
                let granted = granted.iter().all(|qos| *qos < 0x80);
                ensure!(granted, "the broker refuses a subscription");
            }
            Packet::UnsubAck { .. } => {}
            other => bail!("the broker sent {other:?} to a reader"),
        }
        Ok(())
    }
}

/// Reads over WAMP.
pub(super) struct WampReads {
    topics: Vec<String>,
    reads: Reads,
    /// The request that was sent last.
    request: u64,
}

/// A client that reads over WAMP.
pub(super) async fn wamp_reader(
    plan: &Plan,
    target: &str,
) -> anyhow::Result<wamp_client::Asking<WampReads>> {
    let socket = open(plan, target).await?;
    let reads = WampReads { topics: topics(plan, '.'), reads: Reads::new(plan), request: 0 };
    Ok(wamp_client::Asking::new(socket, reads))
}

impl wamp_client::Requests for WampReads {
    fn next(&mut self, load: &mut Load, now: Duration) -> anyhow::Result<Option<Message>> {
        let Some(topic) = self.reads.begin(load, now) else { return Ok(None) };
        self.request += 1;
        let subscribe = json!([32, self.request, {"get_retained": true}, self.topics[topic]]);
        Ok(Some(Message::text(subscribe.to_string())))
    }

    fn take(
        &mut self,
        load: &mut Load,
        text: &str,
        now: Duration,
    ) -> anyhow::Result<Option<Message>> {
        match head(text) {
            Some((36, subscription)) => {
                self.reads.answered(load, text.as_bytes(), EVENT_TAIL, now)?;
                self.request += 1;
                let unsubscribe = json!([34, self.request, subscription]);
                Ok(Some(Message::text(unsubscribe.to_string())))
            }
            Some((33 | 35, _)) => Ok(None),
            _ => bail!("the node sent to a reader: {text:.200}"),
        }
    }
}

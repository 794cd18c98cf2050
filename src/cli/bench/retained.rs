//! Bench clients that read retained values: subscribe to a topic, get its value, unsubscribe.
//!
//! Invariant: a read counts when the very value came that was given to its topic. At any moment a connection has one
//! subscription of a topic at most, so that a value belongs to one read.
//!
//! Deliberately absent: changing values while they are read.

use std::time::Duration;

use anyhow::{bail, ensure, Context};
use bytes::{Buf, BytesMut};
use futures::SinkExt;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout_at;
use tokio_tungstenite::tungstenite::Message;

use super::load::{Load, Plan, Published, Schedule};
use super::mqtt::{Connection, IDS};
use super::payload::Content;
use super::wamp::{close, head, open, receive, receive_now, wait_start, Socket, EVENT_TAIL};
use crate::client::mqtt::{self, Packet};

/// Values that are given or taken away at the same time.
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

/// Gives the topics their values over MQTT, or takes them away.
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
            connection.expect(acknowledged).await.context("a value was not taken")?;
        }
    }
    connection.close().await
}

/// Gives the topics their values over WAMP, or takes them away.
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
            ensure!(taken, "a value was not taken: {answer:.200}");
        }
    }
    close(&mut socket).await
}

/// Which read each topic's subscription is for.
struct Reads(Vec<Option<u64>>);

impl Reads {
    fn new(plan: &Plan) -> Self {
        Self(vec![None; plan.shape.topics as usize])
    }

    /// Begins the next read, if there is room and time for one: the number of its topic.
    fn begin(&mut self, load: &mut Load, now: Duration) -> Option<usize> {
        let content = load.begin(now)?;
        let topic = load.topic(content.sequence);
        self.0[topic] = Some(content.sequence);
        Some(topic)
    }

    /// Takes a message with a value, which `tail` bytes follow: the number of its topic.
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
            bail!("what came is not the value of a topic that is being read");
        };
        ensure!(load.answered(sequence, now), "a value came that nobody waits for");
        Ok(topic)
    }
}

/// Reads over MQTT.
pub(super) struct MqttReader {
    connection: Connection,
    topics: Vec<String>,
}

impl MqttReader {
    pub(super) async fn connect(plan: &Plan, target: &str, number: u16) -> anyhow::Result<Self> {
        let client = format!("vulpes-bench-{:08x}-r{number}", plan.run);
        let connection = Connection::open(plan, target, &client).await?;
        Ok(Self { connection, topics: topics(plan, '/') })
    }

    pub(super) async fn run(
        mut self,
        mut load: Load,
        mut start: watch::Receiver<Option<Schedule>>,
        name: String,
    ) -> Published {
        load.wait_start(&mut start).await;
        let outcome = timeout_at(load.deadline(), self.read(&mut load)).await;
        load.finish(failure(outcome, &name))
    }

    async fn read(&mut self, load: &mut Load) -> anyhow::Result<()> {
        let connection = &mut self.connection;
        let mut reads = Reads::new(load.plan());
        let mut id = 0;
        let mut next_id = || {
            id = id % IDS + 1;
            id as u16
        };
        loop {
            let now = load.plan().now();
            while let Some(topic) = reads.begin(load, now) {
                mqtt::subscribe(&mut connection.output, next_id(), &self.topics[topic], 0);
            }
            connection.flush().await?;
            if load.is_done(now) {
                return connection.close().await;
            }
            tokio::select! {
                filled = connection.fill() => filled?,
                () = load.wait_due() => continue,
            }
            let now = load.plan().now();
            while let Some((packet, length)) = mqtt::read(&connection.input)? {
                match packet {
                    Packet::Publish { topic, payload, .. } => {
                        let number = reads.answered(load, payload, 0, now)?;
                        let expected = &self.topics[number];
                        ensure!(
                            topic == expected.as_bytes(),
                            "the value of {expected} came for another topic"
                        );
                        mqtt::unsubscribe(&mut connection.output, next_id(), expected);
                    }
                    Packet::SubAck { granted, .. } => {
                        ensure!(
                            granted.iter().all(|qos| *qos < 0x80),
                            "the broker refuses a subscription"
                        );
                    }
                    Packet::UnsubAck { .. } => {}
                    other => bail!("the broker sent {other:?} to a reader"),
                }
                connection.input.advance(length);
            }
        }
    }
}

/// Reads over WAMP.
pub(super) struct WampReader {
    socket: Socket,
    topics: Vec<String>,
}

impl WampReader {
    pub(super) async fn connect(plan: &Plan, target: &str) -> anyhow::Result<Self> {
        Ok(Self { socket: open(plan, target).await?, topics: topics(plan, '.') })
    }

    pub(super) async fn run(
        mut self,
        mut load: Load,
        mut start: watch::Receiver<Option<Schedule>>,
        name: String,
    ) -> Published {
        if let Err(error) = wait_start(&mut self.socket, &mut load, &mut start).await {
            return load.finish(Some(format!("{name}: {error:#}")));
        }
        let outcome = timeout_at(load.deadline(), self.read(&mut load)).await;
        load.finish(failure(outcome, &name))
    }

    async fn read(&mut self, load: &mut Load) -> anyhow::Result<()> {
        let mut reads = Reads::new(load.plan());
        let mut request = 0u64;
        loop {
            let now = load.plan().now();
            while let Some(topic) = reads.begin(load, now) {
                request += 1;
                let subscribe = json!([32, request, {"get_retained": true}, self.topics[topic]]);
                self.socket.feed(Message::text(subscribe.to_string())).await?;
            }
            self.socket.flush().await?;
            if load.is_done(now) {
                return close(&mut self.socket).await;
            }
            let mut next = tokio::select! {
                text = receive(&mut self.socket) => Some(text?),
                () = load.wait_due() => continue,
            };
            let now = load.plan().now();
            while let Some(text) = next.take() {
                match head(&text) {
                    Some((36, subscription)) => {
                        reads.answered(load, text.as_bytes(), EVENT_TAIL, now)?;
                        request += 1;
                        let unsubscribe = json!([34, request, subscription]);
                        self.socket.feed(Message::text(unsubscribe.to_string())).await?;
                    }
                    Some((33 | 35, _)) => {}
                    _ => bail!("the node sent to a reader: {text:.200}"),
                }
                next = receive_now(&mut self.socket)?;
            }
        }
    }
}

/// What went wrong, if anything did.
fn failure(
    outcome: Result<anyhow::Result<()>, tokio::time::error::Elapsed>,
    name: &str,
) -> Option<String> {
    match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{name}: {error:#}")),
        Err(_) => Some(format!("{name}: some values did not come in time")),
    }
}

//! Bench clients that speak MQTT 3.1.1.
//!
//! Invariant: each turn reads what has arrived, then writes all its answers at once.
//!
//! Deliberately absent: packets; see `client::mqtt`.

use anyhow::{bail, ensure, Context};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout_at;
use vulpes_raft::host::BoxStream;

use super::load::{Load, Plan, Published, Schedule};
use super::reception::{Received, Reception};
use crate::client::mqtt::{self, Packet};
use crate::config::Address;

/// Packet identifiers wrap below this (MQTT 3.1.1 section 2.3.1): 0 is invalid.
pub(super) const IDS: u64 = 65_535;

/// A filter with an invalid position in the log.
const NO_PLACE: &str = "$replay/?/bench";

pub(super) struct Connection {
    stream: BoxStream,
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
    /// Space for each read, in bytes.
    room: usize,
}

impl Connection {
    pub(super) async fn open(plan: &Plan, target: &str, client: &str) -> anyhow::Result<Self> {
        let (address, encrypted) = match target.strip_prefix("mqtts://") {
            Some(address) => (address, true),
            None => (target.strip_prefix("mqtt://").unwrap_or(target), false),
        };
        let advice = || {
            format!("can't reach {target}; name an MQTT address as host:port, or mqtts://host:port")
        };
        let address: Address = address.parse().with_context(advice)?;
        let stream = plan.dialer.connect(&address, encrypted).await.with_context(advice)?;
        let room = plan.shape.buffer;
        let (input, output) = (BytesMut::with_capacity(room), BytesMut::with_capacity(room));
        let mut connection = Self { stream, input, output, room };
        let user = plan.shape.realm.as_ref().map(|realm| format!("bench@{realm}"));
        mqtt::connect(&mut connection.output, client, user.as_deref());
        connection.flush().await?;
        let code = connection.expect(|packet| match packet {
            Packet::ConnAck { code } => Some(code),
            _ => None,
        });
        let code = code.await?;
        ensure!(code == 0, "the broker refuses the connection: {}", mqtt::refusal(code));
        Ok(connection)
    }

    /// Reads until a packet matches; others are dropped.
    pub(super) async fn expect<T>(
        &mut self,
        wanted: impl Fn(Packet<'_>) -> Option<T>,
    ) -> anyhow::Result<T> {
        loop {
            while let Some((packet, length)) = mqtt::read(&self.input)? {
                let found = wanted(packet);
                self.input.advance(length);
                if let Some(found) = found {
                    return Ok(found);
                }
            }
            self.fill().await?;
        }
    }

    pub(super) async fn fill(&mut self) -> anyhow::Result<()> {
        self.input.reserve(self.room);
        let length = self.stream.read_buf(&mut self.input).await?;
        ensure!(length > 0, "the broker closed the connection");
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all_buf(&mut self.output).await?;
        Ok(self.stream.flush().await?)
    }

    /// Subscribes to a filter; returns whether the broker granted it.
    pub(super) async fn subscribe(&mut self, filter: &str, qos: u8) -> anyhow::Result<bool> {
        mqtt::subscribe(&mut self.output, 1, filter, qos);
        self.flush().await?;
        let granted = self.expect(|packet| match packet {
            Packet::SubAck { granted, .. } => granted.first().copied(),
            _ => None,
        });
        Ok(granted.await? < 0x80)
    }

    /// Sends a DISCONNECT.
    pub(super) async fn close(&mut self) -> anyhow::Result<()> {
        mqtt::disconnect(&mut self.output);
        self.flush().await
    }
}

/// Whether the broker supports positions in a log.
pub(super) async fn knows_places(plan: &Plan, target: &str) -> anyhow::Result<bool> {
    let client = format!("vulpes-bench-{:08x}", plan.run);
    let mut connection = Connection::open(plan, target, &client).await?;
    let granted = connection.subscribe(NO_PLACE, 0).await?;
    connection.close().await?;
    Ok(!granted)
}

/// A client's requests to a broker.
pub(super) trait Requests {
    /// Writes requests as far as there is room and time.
    fn ask(&mut self, load: &mut Load, now: Duration, output: &mut BytesMut);

    /// Handles a packet, and writes the packets that have to follow it.
    ///
    /// # Errors
    /// If it answers no request.
    fn take(
        &mut self,
        load: &mut Load,
        packet: Packet<'_>,
        now: Duration,
        output: &mut BytesMut,
    ) -> anyhow::Result<()>;
}

/// A client that makes requests repeatedly.
pub(super) struct Asking<R> {
    connection: Connection,
    requests: R,
}

impl<R: Requests> Asking<R> {
    pub(super) fn new(connection: Connection, requests: R) -> Self {
        Self { connection, requests }
    }

    pub(super) async fn run(
        mut self,
        mut load: Load,
        mut start: watch::Receiver<Option<Schedule>>,
        name: String,
    ) -> Published {
        load.wait_start(&mut start).await;
        let outcome = timeout_at(load.deadline(), self.ask(&mut load)).await;
        load.conclude(outcome, &name)
    }

    async fn ask(&mut self, load: &mut Load) -> anyhow::Result<()> {
        let Self { connection, requests } = self;
        loop {
            let now = load.plan().now();
            requests.ask(load, now, &mut connection.output);
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
                requests.take(load, packet, now, &mut connection.output)?;
                connection.input.advance(length);
            }
        }
    }
}

/// Publishes to these topics.
pub(super) struct Publishes {
    topics: Vec<String>,
    payload: BytesMut,
}

/// A client that publishes.
pub(super) async fn publisher(
    plan: &Plan,
    target: &str,
    number: u16,
) -> anyhow::Result<Asking<Publishes>> {
    let client = format!("vulpes-bench-{:08x}-p{number}", plan.run);
    let connection = Connection::open(plan, target, &client).await?;
    let topics =
        (0..plan.shape.topics).map(|topic| format!("bench/{:08x}/{topic}", plan.run)).collect();
    Ok(Asking::new(connection, Publishes { topics, payload: BytesMut::new() }))
}

impl Requests for Publishes {
    fn ask(&mut self, load: &mut Load, now: Duration, output: &mut BytesMut) {
        while let Some(content) = load.begin(now) {
            self.payload.clear();
            load.write(&mut self.payload, content);
            let topic = &self.topics[load.topic(content.sequence)];
            let id = (content.sequence % IDS + 1) as u16;
            mqtt::publish(output, topic, id, &self.payload);
        }
    }

    fn take(
        &mut self,
        load: &mut Load,
        packet: Packet<'_>,
        now: Duration,
        _: &mut BytesMut,
    ) -> anyhow::Result<()> {
        let Packet::PubAck { id } = packet else {
            bail!("the broker sent {packet:?} to a publisher");
        };
        let known = sequence_of(id, load.first()).is_some_and(|at| load.answered(at, now));
        ensure!(known, "the broker acknowledged packet {id}, which is not in flight");
        Ok(())
    }
}

/// The sequence number at or after `first` that has this packet identifier.
fn sequence_of(id: u16, first: u64) -> Option<u64> {
    let place = u64::from(id).checked_sub(1)?;
    Some(first + (place + IDS - first % IDS) % IDS)
}

pub(super) struct Subscriber {
    connection: Connection,
    /// When it subscribed.
    at: Duration,
}

impl Subscriber {
    pub(super) async fn connect(plan: &Plan, target: &str, number: u16) -> anyhow::Result<Self> {
        let client = format!("vulpes-bench-{:08x}-s{number}", plan.run);
        let mut connection = Connection::open(plan, target, &client).await?;
        let place = if plan.shape.replay { "$replay/0/" } else { "" };
        let filter = format!("{place}bench/{:08x}/#", plan.run);
        let at = plan.now();
        let granted = connection.subscribe(&filter, plan.shape.subscribe_qos).await?;
        ensure!(granted, "the broker refuses the subscription to {filter}");
        Ok(Self { connection, at })
    }

    pub(super) async fn run(mut self, mut reception: Reception, name: String) -> Received {
        reception.subscribed(self.at);
        let expiry = reception.expiry();
        let error = tokio::select! {
            outcome = self.receive(&mut reception) => {
                outcome.err().map(|error| format!("{name}: {error:#}"))
            }
            // Anything missing then counts as lost.
            () = expiry => None,
        };
        reception.finish(error)
    }

    async fn receive(&mut self, reception: &mut Reception) -> anyhow::Result<()> {
        let connection = &mut self.connection;
        let publishers_done = reception.publishers_done();
        tokio::pin!(publishers_done);
        let mut watching = true;
        loop {
            let now = reception.plan().now();
            while let Some((packet, length)) = mqtt::read(&connection.input)? {
                if let Packet::Publish { qos, id, payload, .. } = packet {
                    reception.received(payload, 0, now);
                    if qos > 0 {
                        mqtt::puback(&mut connection.output, id);
                    }
                }
                connection.input.advance(length);
            }
            connection.flush().await?;
            if reception.is_done() {
                return connection.close().await;
            }
            tokio::select! {
                filled = connection.fill() => filled?,
                () = &mut publishers_done, if watching => watching = false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_identifiers_lead_back_to_their_publish() {
        for first in [0, 1, 65_534, 65_535, 65_536, 1_000_000_007] {
            for sequence in [first, first + 1, first + 16_383] {
                let id = (sequence % IDS + 1) as u16;
                assert_eq!(sequence_of(id, first), Some(sequence));
            }
        }
        assert_eq!(sequence_of(0, 5), None);
    }
}

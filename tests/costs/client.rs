//! An MQTT client in the simulation.
//!
//! Deliberately absent: everything that a publisher does not need.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use turmoil::net::TcpStream;
use vulpes::client::mqtt::{self, Packet};

use crate::cluster::{name, MQTT_PORT};

/// How long a node may refuse, and the pause before the next attempt.
const PATIENCE: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(200);

pub(crate) struct Client {
    stream: TcpStream,
    input: BytesMut,
}

impl Client {
    /// Connects as soon as the node admits clients.
    pub(crate) async fn connect(node: u64, client: &str) -> io::Result<Self> {
        let until = Instant::now() + PATIENCE;
        loop {
            match Self::try_connect(node, client).await {
                Err(_) if Instant::now() < until => tokio::time::sleep(AGAIN).await,
                outcome => return outcome,
            }
        }
    }

    async fn try_connect(node: u64, client: &str) -> io::Result<Self> {
        let stream = TcpStream::connect((name(node), MQTT_PORT)).await?;
        let mut this = Self { stream, input: BytesMut::new() };
        let mut packet = BytesMut::new();
        mqtt::connect(&mut packet, client, None);
        this.stream.write_all(&packet).await?;
        this.expect(Packet::ConnAck { code: 0 }).await?;
        Ok(this)
    }

    /// Publishes this many messages at once, and waits until all are acknowledged.
    pub(crate) async fn publish(&mut self, count: u16, payload: &[u8]) -> io::Result<()> {
        let mut packets = BytesMut::new();
        for id in 1..=count {
            mqtt::publish(&mut packets, "costs/a", id, payload);
        }
        self.stream.write_all(&packets).await?;
        for id in 1..=count {
            self.expect(Packet::PubAck { id }).await?;
        }
        Ok(())
    }

    /// Subscribes to everything that is published.
    pub(crate) async fn subscribe(&mut self) -> io::Result<()> {
        let mut packet = BytesMut::new();
        mqtt::subscribe(&mut packet, 1, "costs/#", 0);
        self.stream.write_all(&packet).await?;
        self.expect(Packet::SubAck { id: 1, granted: &[0] }).await
    }

    /// The payload of the next event.
    pub(crate) async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some((packet, length)) = mqtt::read(&self.input).map_err(io::Error::other)? {
                let payload = match packet {
                    Packet::Publish { payload, .. } => Some(payload.to_vec()),
                    _ => None,
                };
                self.input.advance(length);
                if let Some(payload) = payload {
                    return Ok(payload);
                }
                continue;
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn expect(&mut self, expected: Packet<'_>) -> io::Result<()> {
        loop {
            if let Some((packet, length)) = mqtt::read(&self.input).map_err(io::Error::other)? {
                if packet != expected {
                    return Err(io::Error::other(format!("{packet:?} instead of {expected:?}")));
                }
                self.input.advance(length);
                return Ok(());
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

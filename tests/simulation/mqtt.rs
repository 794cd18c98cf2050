//! A client of MQTT 3.1.1, and of the part of MQTT 5 that delays need, for the simulation, down to the bytes.
//!
//! Invariant: the client itself only waits for the answers to its handshake; its callers set the time limits.
//!
//! Deliberately absent: the rest of MQTT.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turmoil::net::TcpStream;
use vulpes_raft::ids::Position;

use crate::connection::{Gone, Outcome, Said, MQTT_PORT};

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const AT_LEAST_ONCE: u8 = 0x02;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGREQ: u8 = 0xc0;
const PINGRESP: u8 = 0xd0;

const DISCONNECT: u8 = 0xe0;
const SESSION_EXPIRY: u8 = 0x11;
const WILL_DELAY: u8 = 0x18;
const DUPLICATE: u8 = 0x08;

/// The messages to a client with a persistent session.
pub(crate) enum Received {
    Message { text: String, id: u16, duplicate: bool },
    Alive,
}

/// What an MQTT 5 client requests to outlive its connection.
pub(crate) struct Lasting {
    /// The session's expiry in seconds.
    pub(crate) expiry: u32,
    /// A will: its topic, and how many seconds it is delayed.
    pub(crate) will: Option<(String, u32)>,
}

impl Lasting {
    /// The body of a CONNECT with these settings.
    fn connect(&self, name: &str) -> BytesMut {
        let mut body = BytesMut::new();
        text(&mut body, "MQTT");
        // A will at QoS 1; resume the session; no keep-alive; five bytes of properties.
        let flags = if self.will.is_some() { 0x0c } else { 0 };
        body.put_slice(&[5, flags, 0, 0, 5, SESSION_EXPIRY]);
        body.put_u32(self.expiry);
        text(&mut body, name);
        if let Some((topic, delay)) = &self.will {
            body.put_slice(&[5, WILL_DELAY]);
            body.put_u32(*delay);
            text(&mut body, topic);
            text(&mut body, name);
        }
        body
    }
}

/// An open session.
pub(crate) struct Mqtt {
    stream: TcpStream,
    input: BytesMut,
    /// Packets that arrived before the awaited answer.
    early: VecDeque<(u8, Bytes)>,
}

fn failed(reason: impl ToString) -> io::Error {
    io::Error::other(reason.to_string())
}

fn text(into: &mut BytesMut, text: &str) {
    into.put_u16(text.len() as u16);
    into.put_slice(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> BytesMut {
    let mut packet = BytesMut::new();
    packet.put_u8(first);
    let mut rest = body.len();
    while rest >= 0x80 {
        packet.put_u8((rest % 0x80) as u8 | 0x80);
        rest /= 0x80;
    }
    packet.put_u8(rest as u8);
    packet.put_slice(body);
    packet
}

impl Mqtt {
    pub(crate) async fn open(node: &str, name: &str) -> io::Result<Self> {
        // A clean session.
        let (mqtt, _) = Self::connect(node, 0x02, &[name]).await?;
        Ok(mqtt)
    }

    /// Opens a session that outlives its connection; returns whether there was one.
    pub(crate) async fn resume(node: &str, name: &str, user: &str) -> io::Result<(Self, bool)> {
        Self::connect(node, 0x80, &[name, user]).await
    }

    /// Opens a session with a will: its topic and its text.
    pub(crate) async fn with_will(
        node: &str,
        name: &str,
        (topic, will): (&str, &str),
        clean: bool,
    ) -> io::Result<Self> {
        // A retained will at QoS 1.
        let flags = if clean { 0x2e } else { 0x2c };
        let (mqtt, _) = Self::connect(node, flags, &[name, topic, will]).await?;
        Ok(mqtt)
    }

    /// Opens a session of MQTT 5; returns whether an earlier one was resumed.
    pub(crate) async fn lasting(
        node: &str,
        name: &str,
        lasting: &Lasting,
    ) -> io::Result<(Self, bool)> {
        let stream = TcpStream::connect((node, MQTT_PORT)).await?;
        let mut mqtt = Self { stream, input: BytesMut::new(), early: VecDeque::new() };
        mqtt.stream.write_all(&packet(CONNECT, &lasting.connect(name))).await?;
        match mqtt.packet().await? {
            (CONNACK, body) if body.len() > 2 && body[1] == 0 => Ok((mqtt, body[0] == 1)),
            other => Err(failed(format!("not connected: {other:?}"))),
        }
    }

    async fn connect(node: &str, flags: u8, names: &[&str]) -> io::Result<(Self, bool)> {
        let stream = TcpStream::connect((node, MQTT_PORT)).await?;
        let mut mqtt = Self { stream, input: BytesMut::new(), early: VecDeque::new() };
        let mut body = BytesMut::new();
        text(&mut body, "MQTT");
        // Version 3.1.1, no keep-alive.
        body.put_slice(&[4, flags, 0, 0]);
        names.iter().for_each(|name| text(&mut body, name));
        mqtt.stream.write_all(&packet(CONNECT, &body)).await?;
        match mqtt.packet().await? {
            (CONNACK, body) if body.len() == 2 && body[1] == 0 => Ok((mqtt, body[0] == 1)),
            other => Err(failed(format!("not connected: {other:?}"))),
        }
    }

    /// Subscribes to a filter; events may come before the answer.
    pub(crate) async fn subscribe_to(&mut self, filter: &str) -> io::Result<()> {
        let mut body = BytesMut::new();
        body.put_u16(1);
        text(&mut body, filter);
        body.put_u8(1);
        self.stream.write_all(&packet(SUBSCRIBE, &body)).await?;
        loop {
            match self.packet().await? {
                (SUBACK, body) if body[..] == [0, 1, 1] => return Ok(()),
                (SUBACK, body) => return Err(failed(format!("not subscribed: {body:?}"))),
                early => self.early.push_back(early),
            }
        }
    }

    /// The next message for a client that acknowledges by itself.
    pub(crate) async fn next_received(&mut self) -> io::Result<Received> {
        let (first, mut body) = match self.early.pop_front() {
            Some(early) => early,
            None => self.packet().await?,
        };
        match first & 0xf6 {
            of if of == PUBLISH | AT_LEAST_ONCE && body.len() > 4 => {
                let topic = usize::from(body.get_u16());
                body.advance(topic);
                let id = body.get_u16();
                let text = String::from_utf8(body.to_vec()).map_err(failed)?;
                let text = serde_json::from_str(&text).unwrap_or(text);
                Ok(Received::Message { text, id, duplicate: first & DUPLICATE != 0 })
            }
            PINGRESP => Ok(Received::Alive),
            _ => Err(failed(format!("unexpected packet {first:#x}"))),
        }
    }

    pub(crate) async fn acknowledge(&mut self, id: u16) -> io::Result<()> {
        self.stream.write_all(&packet(PUBACK, &id.to_be_bytes())).await
    }

    /// Sends DISCONNECT and waits until the node closes the connection.
    pub(crate) async fn leave(&mut self) -> io::Result<()> {
        self.stream.write_all(&packet(DISCONNECT, &[])).await?;
        loop {
            match self.packet().await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) async fn publish(&mut self, topic: &str, number: u64, said: &str) -> io::Result<()> {
        let mut body = BytesMut::new();
        text(&mut body, topic);
        body.put_u16(number as u16 + 1);
        body.put_slice(said.as_bytes());
        self.stream.write_all(&packet(PUBLISH | AT_LEAST_ONCE, &body)).await
    }

    /// Subscribes to everything after a position; by its event id, if that is given.
    pub(crate) async fn subscribe(
        &mut self,
        after: Position,
        id: Option<String>,
    ) -> io::Result<()> {
        let after = id.unwrap_or_else(|| after.to_string());
        let mut body = BytesMut::new();
        body.put_u16(1);
        text(&mut body, &format!("$replay/{after}/#"));
        body.put_u8(1);
        self.stream.write_all(&packet(SUBSCRIBE, &body)).await?;
        match self.packet().await? {
            (SUBACK, body) if body[..] == [0, 1, 1] => Ok(()),
            (SUBACK, body) if body[..] == [0, 1, 0x80] => {
                Err(io::Error::other(Gone { oldest: None }))
            }
            other => Err(failed(format!("not subscribed: {other:?}"))),
        }
    }

    pub(crate) async fn ping(&mut self) -> io::Result<()> {
        self.stream.write_all(&packet(PINGREQ, &[])).await
    }

    pub(crate) async fn next(&mut self) -> io::Result<Said> {
        let (first, mut body) = self.packet().await?;
        match first & 0xf0 {
            PUBACK if body.len() == 2 => {
                let number = u64::from(body.get_u16()) - 1;
                Ok(Said::Answer { number, outcome: Outcome::Stored(None) })
            }
            PUBLISH if body.len() > 2 => {
                let topic = usize::from(body.get_u16());
                body.advance(topic);
                if first & 0x06 == AT_LEAST_ONCE {
                    let id = body.get_u16();
                    self.stream.write_all(&packet(PUBACK, &id.to_be_bytes())).await?;
                }
                // Publishes of WAMP clients arrive as JSON.
                let text = String::from_utf8(body.to_vec()).map_err(failed)?;
                let text = serde_json::from_str(&text).unwrap_or(text);
                Ok(Said::Event { text, place: None })
            }
            PINGRESP => Ok(Said::Alive),
            _ => Err(failed(format!("unexpected packet {first:#x}"))),
        }
    }

    /// The next packet's first byte and body.
    async fn packet(&mut self) -> io::Result<(u8, Bytes)> {
        loop {
            if let Some(found) = self.whole() {
                return Ok(found);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn whole(&mut self) -> Option<(u8, Bytes)> {
        let mut length = 0;
        let mut at = 1;
        loop {
            let byte = *self.input.get(at)?;
            length |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if self.input.len() < at + length {
            return None;
        }
        let first = self.input[0];
        self.input.advance(at);
        Some((first, self.input.split_to(length).freeze()))
    }
}

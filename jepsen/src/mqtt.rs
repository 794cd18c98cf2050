//! An MQTT 3.1.1 client for tests: QoS 1 in both directions.
//!
//! Invariant: a packet that the server must not send here is an error. Each event is acknowledged after it was returned, before
//! the next one is awaited. Cancelling that wait loses nothing.
//!
//! Deliberately absent: MQTT 5, QoS 2, keep-alive (stock clients have them). Tests that need a session that outlives its
//! connection send their own packets.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{bail, ensure, Context, Result};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Said, Seen};
use crate::wait::{within, PATIENCE};

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;

/// The QoS 1 bit of PUBLISH.
const QOS_1: u8 = 0x02;

/// The RETAIN bit of PUBLISH.
const RETAIN: u8 = 0x01;

const DISCONNECT: u8 = 0xe0;

/// CONNECT's flags: a clean session; a will at QoS 1 that is retained.
const CLEAN: u8 = 0x02;
const WILL: u8 = 0x2c;

/// The DUP bit of PUBLISH.
const AGAIN: u8 = 0x08;

/// Largest packet read, in bytes.
const LARGEST: usize = 4 << 20;

/// Bytes read from the socket at once.
const READ: usize = 64 << 10;

/// A session.
#[derive(Debug)]
pub struct Mqtt {
    stream: TcpStream,
    /// The packet identifier used last.
    identifier: u16,
    /// Messages that arrived while waiting for something else.
    early: VecDeque<Said>,
    /// Bytes of an incomplete packet.
    partial: BytesMut,
    /// Acknowledgements that are not sent yet, of events that were returned.
    acknowledgements: BytesMut,
}

impl Mqtt {
    /// Connects as a client with a new name, with a clean session.
    ///
    /// # Errors
    /// If no process listens, or the server refuses.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        Self::connect_with(address, None).await
    }

    /// As [`Mqtt::connect`], with a will: its topic and its text.
    ///
    /// # Errors
    /// If no process listens, or the server refuses.
    pub async fn connect_with(address: SocketAddr, will: Option<(&str, &str)>) -> Result<Self> {
        static NAMES: AtomicU64 = AtomicU64::new(0);
        let number = NAMES.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", std::process::id());
        Self::connect_as(address, &name, will).await
    }

    /// Like [`Mqtt::connect_with`], under a name that may have been used before.
    ///
    /// # Errors
    /// If no process listens, or the server refuses.
    pub async fn connect_as(
        address: SocketAddr,
        name: &str,
        will: Option<(&str, &str)>,
    ) -> Result<Self> {
        within("an MQTT session opens", PATIENCE, async {
            let mut session = Self::open(address).await?;
            let mut body = string("MQTT");
            // Level 4 is 3.1.1; no keep-alive.
            body.extend([4, CLEAN | if will.is_some() { WILL } else { 0 }, 0, 0]);
            body.extend(string(name));
            if let Some((topic, text)) = will {
                body.extend([string(topic), string(text)].concat());
            }
            session.send(&packet(CONNECT, &body)).await?;
            let answer = session.receive().await?.context("closed before CONNACK")?;
            ensure!(answer.0 == CONNACK && answer.1 == [0, 0], "no welcome but {answer:02x?}");
            Ok(session)
        })
        .await
    }

    /// Only connects to the port, for tests that send arbitrary bytes.
    ///
    /// # Errors
    /// If no process listens there.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            identifier: 0,
            early: VecDeque::new(),
            partial: BytesMut::new(),
            acknowledgements: BytesMut::new(),
        })
    }

    /// Sends these bytes unchanged.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.acknowledge().await?;
        Ok(self.stream.write_all(bytes).await?)
    }

    async fn acknowledge(&mut self) -> Result<()> {
        while !self.acknowledgements.is_empty() {
            self.stream.write_buf(&mut self.acknowledgements).await?;
        }
        Ok(())
    }

    /// The next packet's first byte and body, or nothing if the connection is gone. Canceling this loses nothing of a
    /// packet.
    ///
    /// # Errors
    /// If it is not an MQTT packet.
    pub async fn receive(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some((first, body, whole)) = split(&self.partial)? {
                let answer = (first, body.to_vec());
                self.partial.advance(whole);
                return Ok(Some(answer));
            }
            self.partial.reserve(READ);
            match self.stream.read_buf(&mut self.partial).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
        }
    }

    /// Publishes at QoS 1; returns the packet identifier.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn publish(&mut self, topic: &str, text: &str) -> Result<u64> {
        self.publish_with(topic, text, false).await
    }

    /// Like [`Mqtt::publish`], optionally as the topic's retained value.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn publish_with(&mut self, topic: &str, text: &str, retain: bool) -> Result<u64> {
        let identifier = self.identify();
        let mut body = string(topic);
        body.extend(identifier.to_be_bytes());
        body.extend(text.as_bytes());
        let retain = if retain { RETAIN } else { 0 };
        self.send(&packet(PUBLISH | QOS_1 | retain, &body)).await?;
        Ok(u64::from(identifier))
    }

    /// Sends DISCONNECT, which drops the session's will.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn goodbye(&mut self) -> Result<()> {
        self.send(&packet(DISCONNECT, &[])).await
    }

    /// Subscribes at QoS 1, and waits for the answer.
    ///
    /// # Errors
    /// If the server refuses or grants less.
    pub async fn subscribe(&mut self, filter: &str) -> Result<()> {
        let identifier = self.identify().to_be_bytes();
        let mut body = identifier.to_vec();
        body.extend(string(filter));
        body.push(1);
        self.send(&packet(SUBSCRIBE, &body)).await?;
        within("a subscription is answered", PATIENCE, async {
            loop {
                let (first, body) = self.receive().await?.context("closed before SUBACK")?;
                if first == SUBACK && body[..2] == identifier {
                    ensure!(body[2..] == [1], "{filter}: granted {:02x?}", &body[2..]);
                    return Ok(());
                }
                let said = self.understand(first, &body)?;
                self.early.push_back(said);
            }
        })
        .await
    }

    /// The server's next message.
    ///
    /// # Errors
    /// If it is not allowed here.
    pub async fn next(&mut self) -> Result<Said> {
        if let Some(said) = self.early.pop_front() {
            return Ok(said);
        }
        if self.acknowledge().await.is_err() {
            return Ok(Said::Closed("the connection is gone".to_owned()));
        }
        match self.receive().await? {
            Some((first, body)) => self.understand(first, &body),
            None => Ok(Said::Closed("the connection is gone".to_owned())),
        }
    }

    fn understand(&mut self, first: u8, body: &[u8]) -> Result<Said> {
        match first {
            PUBACK => {
                let identifier: [u8; 2] = body.try_into().context("a PUBACK of another length")?;
                let request = u64::from(u16::from_be_bytes(identifier));
                Ok(Said::Acknowledged { request, position: None })
            }
            _ if first & 0xf0 == PUBLISH => {
                let (seen, identifier) = event(first, body)?;
                if let Some(identifier) = identifier {
                    self.acknowledgements.extend_from_slice(&packet(PUBACK, &identifier));
                }
                Ok(Said::Event(seen))
            }
            _ => bail!("unexpected packet {first:#04x} {body:02x?}"),
        }
    }

    fn identify(&mut self) -> u16 {
        self.identifier = self.identifier.checked_add(1).unwrap_or(1);
        self.identifier
    }
}

/// An event of QoS 1 as it arrived, with its delivery details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    pub seen: Seen,
    pub packet: u16,
    /// The DUP flag: it may have been sent before.
    pub again: bool,
}

/// Reads an event, for clients that control their acknowledgements.
///
/// # Errors
/// If the packet is anything else.
pub fn arrived(first: u8, body: &[u8]) -> Result<Arrived> {
    ensure!(first & 0xf0 == PUBLISH, "unexpected packet {first:#04x} {body:02x?}");
    let (seen, identifier) = event(first, body)?;
    let packet = u16::from_be_bytes(identifier.context("an event that wants no PUBACK")?);
    Ok(Arrived { seen, packet, again: first & AGAIN != 0 })
}

/// A packet with this first byte.
#[must_use]
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let low = (rest % 128) as u8;
        rest /= 128;
        bytes.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// A string as MQTT writes it: two bytes of length, then the text.
#[must_use]
pub fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    bytes
}

/// First byte, body and whole length of the packet at the start of `bytes`, if it is complete.
fn split(bytes: &[u8]) -> Result<Option<(u8, &[u8], usize)>> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let mut length = 0;
    for (index, &byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            ensure!(length <= LARGEST, "a packet of {length} bytes");
            let start = index + 2;
            let body = bytes.get(start..start + length);
            return Ok(body.map(|body| (first, body, start + length)));
        }
    }
    ensure!(rest.len() < 4, "a packet length of more than four bytes");
    Ok(None)
}

fn event(first: u8, body: &[u8]) -> Result<(Seen, Option<[u8; 2]>)> {
    let (length, rest) = body.split_first_chunk().context("no topic")?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (topic, rest) = rest.split_at_checked(length).context("a cut topic")?;
    let (identifier, payload) = match first & 0x06 {
        0 => (None, rest),
        _ => {
            let (identifier, payload) = rest.split_first_chunk().context("no identifier")?;
            (Some(*identifier), payload)
        }
    };
    let text = std::str::from_utf8(payload)?;
    // Text from WAMP is JSON here; remove the quotes, so that it reads the same in both protocols.
    let payload = serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_owned());
    let topic = std::str::from_utf8(topic)?.replace('/', ".");
    let retained = first & RETAIN != 0;
    Ok((Seen { topic, payload, position: None, retained }, identifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_go_round() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 2_097_152] {
            let body = vec![7; length];
            let bytes = packet(PUBLISH, &body);
            assert_eq!(split(&bytes).unwrap(), Some((PUBLISH, &body[..], bytes.len())));
            assert_eq!(split(&bytes[..bytes.len() - 1]).unwrap(), None, "{length}");
        }
        assert!(split(&[PUBLISH, 0xff, 0xff, 0xff, 0xff]).is_err());
    }

    #[test]
    fn events_read_the_same_from_both_protocols() {
        let (topic, payload) = ("a.b".to_owned(), "x".to_owned());
        let seen = Seen { topic, payload, position: None, retained: false };
        let table: [(u8, &[u8], _); 3] = [
            (0x30, b"\0\x03a/bx", None),
            (0x32, b"\0\x03a/b\0\x05x", Some([0, 5])),
            (0x3a, b"\0\x03a/b\0\x05\"x\"", Some([0, 5])),
        ];
        for (first, body, identifier) in table {
            assert_eq!(event(first, body).unwrap(), (seen.clone(), identifier), "{body:?}");
        }
        let again = Arrived { seen, packet: 5, again: true };
        assert_eq!(arrived(0x3a, b"\0\x03a/b\0\x05x").unwrap(), again);
        assert!(arrived(0x30, b"\0\x03a/bx").is_err() && arrived(0x40, b"\0\x05").is_err());
        for body in [&b""[..], b"\0", b"\0\x05ab", b"\0\x01\xff"] {
            assert!(event(0x30, body).is_err(), "{body:?}");
        }
    }
}

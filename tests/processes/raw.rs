//! A client of either protocol at the level of bytes: a test controls how much is sent in one write, and when the client reads.
//!
//! Deliberately absent: the protocols' rules, except where a message begins and ends.

use std::net::{IpAddr, SocketAddr};

use anyhow::{bail, ensure, Context, Result};
use bytes::{Buf, BytesMut};
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use vulpes_jepsen::cluster::REALM;
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::wait::{within, PATIENCE};

/// Flags in the CONNECT of an ordinary client: 3.1.1, a clean session, no keep-alive.
const CLEAN: u8 = 2;

pub(crate) struct Raw {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    input: BytesMut,
    /// WAMP messages that arrived before the awaited ones.
    passed: Vec<Value>,
}

/// A text frame of a client, with a mask of zeros.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

pub(crate) fn hello() -> Vec<u8> {
    let roles = json!({
        "publisher": {}, "subscriber": {}, "caller": {}, "callee": {},
    });
    frame(&json!([1, REALM, { "roles": roles }]).to_string())
}

/// A CONNECT of MQTT 3.1.1.
pub(crate) fn connect(name: &str, flags: u8, keep_alive: u16) -> Vec<u8> {
    let mut body = string("MQTT");
    body.extend([4, flags]);
    body.extend(keep_alive.to_be_bytes());
    body.extend(string(name));
    packet(0x10, &body)
}

/// Like [`connect`], with a clean session and a will of QoS 1.
pub(crate) fn connect_with_will(
    name: &str,
    keep_alive: u16,
    (topic, text): (&str, &str),
) -> Vec<u8> {
    let mut body = string("MQTT");
    body.extend([4, CLEAN | 0x0c]);
    body.extend(keep_alive.to_be_bytes());
    body.extend([string(name), string(topic), string(text)].concat());
    packet(0x10, &body)
}

impl Raw {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        Self::on(TcpStream::connect(address).await?)
    }

    /// From this address of the machine.
    pub(crate) async fn open_from(address: SocketAddr, from: IpAddr) -> Result<Self> {
        Self::on(Self::stream_from(address, from).await?)
    }

    pub(crate) async fn stream_from(address: SocketAddr, from: IpAddr) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        Ok(socket.connect(address).await?)
    }

    fn on(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader, writer, input: BytesMut::new(), passed: Vec::new() })
    }

    /// A WebSocket without any messages yet.
    pub(crate) async fn websocket(address: SocketAddr) -> Result<Self> {
        Self::websocket_with(address, "").await
    }

    /// Like [`Raw::websocket`], with these lines in its request.
    pub(crate) async fn websocket_with(address: SocketAddr, lines: &str) -> Result<Self> {
        Self::open(address).await?.upgraded(lines).await
    }

    /// Like [`Raw::websocket`], from this address of the machine.
    pub(crate) async fn websocket_from(address: SocketAddr, from: IpAddr) -> Result<Self> {
        Self::open_from(address, from).await?.upgraded("").await
    }

    async fn upgraded(mut self, lines: &str) -> Result<Self> {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: wamp.2.json\r\n{lines}\r\n"
        );
        self.send(request.as_bytes()).await?;
        within("an upgrade", PATIENCE, async {
            loop {
                if let Some(at) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                    ensure!(self.input.starts_with(b"HTTP/1.1 101"), "{:?}", self.input);
                    self.input.advance(at + 4);
                    return Ok(());
                }
                self.more().await?;
            }
        })
        .await?;
        Ok(self)
    }

    /// A WAMP session.
    pub(crate) async fn wamp(address: SocketAddr) -> Result<Self> {
        let mut raw = Self::websocket(address).await?;
        raw.send(&hello()).await?;
        let welcome = within("a welcome", PATIENCE, raw.message()).await?;
        ensure!(welcome[0] == 2, "{welcome}");
        Ok(raw)
    }

    /// An MQTT session of 3.1.1 with a clean session.
    pub(crate) async fn mqtt(address: SocketAddr, name: &str) -> Result<Self> {
        Self::mqtt_with(address, &connect(name, CLEAN, 0)).await
    }

    pub(crate) async fn mqtt_with(address: SocketAddr, connect: &[u8]) -> Result<Self> {
        let mut raw = Self::open(address).await?;
        raw.send(connect).await?;
        let (first, body) = within("a welcome", PATIENCE, raw.packet()).await?;
        ensure!(first == 0x20 && body[1] == 0, "{first:02x} {body:02x?}");
        Ok(raw)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.writer.write_all(bytes).await?)
    }

    /// Shuts down the sending side; reading continues.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        Ok(self.writer.shutdown().await?)
    }

    /// Sends everything in one write as far as the socket takes it, while it reads what arrives.
    pub(crate) async fn say(&mut self, bytes: &[u8]) -> Result<()> {
        let (reader, input) = (&mut self.reader, &mut self.input);
        let mut sent = Box::pin(self.writer.write_all(bytes));
        loop {
            tokio::select! {
                result = &mut sent => return Ok(result?),
                read = reader.read_buf(input) => ensure!(read? > 0, "closed while something is sent"),
            }
        }
    }

    /// Reads some input, now or when it arrives, and buffers it.
    pub(crate) async fn buffer(&mut self, most: usize) -> Result<()> {
        let mut buffer = vec![0; most];
        let read = self.reader.read(&mut buffer).await?;
        ensure!(read > 0, "the connection is closed");
        self.input.extend_from_slice(&buffer[..read]);
        Ok(())
    }

    async fn more(&mut self) -> Result<()> {
        ensure!(self.reader.read_buf(&mut self.input).await? > 0, "the connection is closed");
        Ok(())
    }

    /// The next MQTT packet.
    pub(crate) async fn packet(&mut self) -> Result<(u8, Vec<u8>)> {
        loop {
            if let Some((first, header, length)) = packet_head(&self.input)? {
                if self.input.len() >= header + length {
                    self.input.advance(header);
                    return Ok((first, self.input.split_to(length).to_vec()));
                }
            }
            self.more().await?;
        }
    }

    /// The next WAMP message; pings before it are answered.
    pub(crate) async fn message(&mut self) -> Result<Value> {
        loop {
            let (opcode, payload) = self.frame().await?;
            match opcode {
                1 => return Ok(serde_json::from_slice(&payload)?),
                8 => bail!("closed"),
                9 => self.send(&[0x8a, 0x80, 0, 0, 0, 0]).await?,
                _ => {}
            }
        }
    }

    /// The next WebSocket frame: its opcode and payload.
    pub(crate) async fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        loop {
            if let Some((header, length)) = frame_head(&self.input) {
                if self.input.len() >= header + length {
                    let opcode = self.input[0] & 0x0f;
                    self.input.advance(header);
                    return Ok((opcode, self.input.split_to(length).to_vec()));
                }
            }
            self.more().await?;
        }
    }

    /// This many WAMP messages of a kind, skipping others.
    pub(crate) async fn messages(&mut self, code: u64, count: usize) -> Result<Vec<Value>> {
        let passed = std::mem::take(&mut self.passed);
        let (mut found, mut others): (Vec<Value>, Vec<Value>) =
            passed.into_iter().partition(|message| message[0] == code);
        let all = async {
            while found.len() < count {
                let message = self.message().await?;
                match message[0] == code {
                    true => found.push(message),
                    false => others.push(message),
                }
            }
            Ok(())
        };
        let waited = within("all messages", PATIENCE, all).await;
        let last = others.last();
        waited.with_context(|| format!("{} of {count}; last {last:?}", found.len()))?;
        others.extend(found.split_off(count));
        self.passed = others;
        Ok(found)
    }
}

/// The first byte of a packet, and the lengths of its header and its body.
fn packet_head(input: &[u8]) -> Result<Option<(u8, usize, usize)>> {
    let mut length = 0;
    for (at, byte) in input.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((input[0], at + 2, length)));
        }
    }
    ensure!(input.len() < 5, "a packet without a length");
    Ok(None)
}

/// The lengths of a frame's header and its payload.
fn frame_head(input: &[u8]) -> Option<(usize, usize)> {
    let short = usize::from(*input.get(1)? & 0x7f);
    match short {
        126 => Some((4, usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?)))),
        127 => Some((10, u64::from_be_bytes(input.get(2..10)?.try_into().ok()?) as usize)),
        _ => Some((2, short)),
    }
}

//! The answer that a refused client gets, byte for byte, while it is still sending two mebibytes in one write.
//!
//! Invariant: no connection is reset. Everything that the client sends is read, and the connection ends right after
//! the last answer.
//!
//! Deliberately absent: clients that never stop sending; those are cut off.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::wait::within;

use super::mqtt_table::connect;
use super::wamp_table::{frame, request};
use super::TURNED_AWAY;

/// Data still on its way when the fault is found.
const MORE: usize = 2 << 20;

struct Case {
    name: &'static str,
    /// Input that has to be answered first.
    opening: Vec<u8>,
    bytes: Vec<u8>,
    expected: Expected,
}

/// The last answer.
enum Expected {
    /// These bytes and no more.
    Exactly(Vec<u8>),
    /// A packet or frame of this type that begins with these bytes, followed by the reason.
    Says(u8, Vec<u8>),
    /// An HTTP answer with this status that contains this text.
    Http(u16, &'static str),
}

impl Expected {
    fn is(&self, said: &[u8]) -> bool {
        match self {
            Self::Exactly(bytes) => said == bytes,
            Self::Says(first, bytes) => {
                // After the length, of one byte.
                said.first() == Some(first) && said.get(2..).is_some_and(|s| s.starts_with(bytes))
            }
            Self::Http(status, text) => {
                let said = String::from_utf8_lossy(said);
                said.starts_with(&format!("HTTP/1.1 {status} ")) && said.contains(text)
            }
        }
    }
}

impl Case {
    async fn play(self, address: SocketAddr) -> Result<()> {
        let name = self.name;
        within(name, TURNED_AWAY, self.run(address)).await.with_context(|| name)
    }

    async fn run(self, address: SocketAddr) -> Result<()> {
        let mut stream = TcpStream::connect(address).await?;
        if !self.opening.is_empty() {
            stream.write_all(&self.opening).await?;
            let mut answer = [0; 4096];
            ensure!(stream.read(&mut answer).await? > 0, "hung up on good input");
        }
        let (mut reading, mut writing) = stream.into_split();
        let writer = async {
            writing.write_all(&self.bytes).await.context("the other side takes all of it")
        };
        let reader = async {
            let mut said = Vec::new();
            let ended = reading.read_to_end(&mut said).await;
            ended.context("the connection ends in order").map(|_| said)
        };
        let ((), said) = tokio::try_join!(writer, reader)?;
        let shown = String::from_utf8_lossy(&said);
        ensure!(self.expected.is(&said), "was told {said:02x?}, {shown}");
        Ok(())
    }
}

fn websocket_cases() -> Vec<Case> {
    let more = frame(0x81, &vec![b' '; MORE]);
    let with_more = |bytes: Vec<u8>| [bytes, more.clone()].concat();
    let mut unmasked = frame(0x81, b"[1]");
    unmasked[1] &= 0x7f;
    let closing =
        |body: &[u8]| [vec![0x88, 0x80 | body.len() as u8, 0, 0, 0, 0], body.to_vec()].concat();
    let fault = |code: u16| Expected::Says(0x88, code.to_be_bytes().to_vec());
    let table = [
        ("a message of 2 MiB", more.clone(), fault(1009)),
        (
            "a frame of 2^62 bytes",
            with_more([vec![0x81, 0xff, 0x40], vec![0; 11]].concat()),
            fault(1009),
        ),
        ("a frame without a mask", with_more(unmasked), fault(1002)),
        ("a reserved bit", with_more(frame(0xc1, b"[1]")), fault(1002)),
        ("a reserved opcode", with_more(frame(0x83, b"[1]")), fault(1002)),
        ("a continuation of nothing", with_more(frame(0x80, b"[1]")), fault(1002)),
        ("a ping in parts", with_more(vec![0x09, 0x80, 0, 0, 0, 0]), fault(1002)),
        ("a close frame of one byte", with_more(closing(b"x")), fault(1002)),
        ("a text that is no UTF-8", with_more(frame(0x81, &[b'[', 0xc3, 0x28, b']'])), fault(1007)),
        ("a binary message in JSON", with_more(frame(0x82, b"[1]")), fault(1003)),
    ];
    let case =
        |(name, bytes, expected)| Case { name, opening: request("wamp.2.json"), bytes, expected };
    let mut cases: Vec<Case> = table.into_iter().map(case).collect();
    for (name, body) in [
        ("a close frame", &[0x03, 0xe8][..]),
        ("a close frame with a reason", b"\x0f\xa0bye"),
        ("a close frame without a code", b""),
    ] {
        cases.push(Case {
            name,
            opening: request("wamp.2.json"),
            bytes: with_more(closing(body)),
            expected: Expected::Exactly([&[0x88, body.len() as u8], body].concat()),
        });
    }
    cases
}

fn http_cases() -> Vec<Case> {
    let good = String::from_utf8(request("wamp.2.json")).expect("a request is text");
    let more = "x".repeat(MORE);
    let posted = good.replace("GET", "POST") + &more;
    let table = [
        ("another method", posted, 405, "\r\nallow: GET\r\n"),
        ("an old version", good.replace(": 13", ": 8"), 426, "\r\nsec-websocket-version: 13\r\n"),
        (
            "no version",
            good.replace("Sec-WebSocket-Version", "X"),
            426,
            "\r\nupgrade: websocket\r\n",
        ),
        ("a page", good.replace("Upgrade: websocket", "X: y"), 426, "\r\nupgrade: websocket\r\n"),
        (
            "a page of another site",
            good.replace("Host:", "Origin: https://evil.example\r\nHost:"),
            403,
            "origins",
        ),
        ("a bad key", good.replace("dGhl", "dGh"), 400, "Sec-WebSocket-Key"),
        ("no key", good.replace("Sec-WebSocket-Key", "X"), 400, "Sec-WebSocket-Key"),
        ("an unknown subprotocol", good.replace("wamp.2.json", "soup"), 400, "wamp.2.json"),
        ("frames before the answer", good.clone() + &more, 400, "before"),
        ("a header without end", good.replace("\r\n\r\n", "\r\nX: ") + &more, 431, "too long"),
        ("no HTTP", "\x01\x02\x03\x04".repeat(MORE / 4), 400, "\r\nconnection: close\r\n"),
    ];
    let case = |(name, bytes, status, holds): (_, String, _, _)| Case {
        name,
        opening: Vec::new(),
        bytes: bytes.into_bytes(),
        expected: Expected::Http(status, holds),
    };
    table.into_iter().map(case).collect()
}

fn mqtt_cases() -> Vec<Case> {
    let more = packet(0x30, &[string("a"), vec![b'x'; MORE]].concat());
    let with_more = |bytes: Vec<u8>| [bytes, more.clone()].concat();
    let table = [
        ("a PUBLISH of 2 MiB", more.clone(), 0x95),
        ("packet type 0", with_more(vec![0x00, 0]), 0x82),
        ("a PUBLISH that is cut off", with_more(vec![0x30, 1, 0]), 0x81),
        ("a length without end", with_more(vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x7f]), 0x81),
        ("a second CONNECT", with_more(connect(5, "again")), 0x82),
    ];
    let mut cases = Vec::new();
    for (name, bytes, reason) in table {
        let opening = |level| connect(level, &format!("{name} {level}"));
        // 3.1.1 can't express a reason: the connection ends in order.
        for (level, expected) in
            [(5, Expected::Says(0xe0, vec![reason])), (4, Expected::Exactly(Vec::new()))]
        {
            cases.push(Case { name, opening: opening(level), bytes: bytes.clone(), expected });
        }
    }
    cases
}

#[tokio::test]
async fn every_last_word_arrives() -> Result<()> {
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let (wamp, mqtt) = (cluster.node(1).wamp(), cluster.node(1).mqtt());
    let told = [
        join_all(websocket_cases().into_iter().map(|case| case.play(wamp))).await,
        join_all(http_cases().into_iter().map(|case| case.play(wamp))).await,
        join_all(mqtt_cases().into_iter().map(|case| case.play(mqtt))).await,
    ];
    let failed: Vec<String> = told
        .into_iter()
        .flatten()
        .filter_map(|told| told.err())
        .map(|error| format!("{error:#}"))
        .collect();
    cluster.node_mut(1).check_alive()?;
    ensure!(failed.is_empty(), "{failed:#?}");
    Ok(())
}

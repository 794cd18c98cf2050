//! What no WAMP client may send: bytes below the WebSocket, and messages within a session.
//!
//! Invariant: a case about a single message says whether the session survives it (ERROR) or not (ABORT).
//!
//! Deliberately absent: MessagePack and CBOR; their readers have their own tests.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use vulpes_jepsen::cluster::REALM;
use vulpes_jepsen::wait::within;
use vulpes_jepsen::wamp::Wamp;

use super::{garbage, hangs_up_after, TURNED_AWAY};

/// Bytes on the port, after an upgrade to WebSocket or not.
pub(super) struct RawCase {
    name: &'static str,
    upgraded: bool,
    bytes: Vec<u8>,
}

impl RawCase {
    pub(super) async fn play(self, address: SocketAddr) -> Result<()> {
        let upgrade = request("wamp.2.json");
        let parts = if self.upgraded { vec![upgrade, self.bytes] } else { vec![self.bytes] };
        let told = hangs_up_after(address, &parts).await;
        told.with_context(|| format!("WAMP: {}", self.name)).map(drop)
    }
}

pub(super) fn request(protocol: &str) -> Vec<u8> {
    format!(
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
    .into_bytes()
}

/// A whole WebSocket frame with a mask of zeros.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | 127];
    bytes.extend((payload.len() as u64).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

pub(super) fn raw_cases() -> Vec<RawCase> {
    let mut unmasked = frame(0x81, b"[1]");
    unmasked[1] &= 0x7f;
    let table = [
        ("garbage", false, garbage(4000)),
        ("half a request and silence", false, b"GET / HT".to_vec()),
        ("a page, not a WebSocket", false, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("an unknown subprotocol", false, request("soup")),
        (
            "a header without end",
            false,
            [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat(),
        ),
        ("garbage after the upgrade", true, garbage(4000)),
        ("silence after the upgrade", true, Vec::new()),
        ("half a frame and silence", true, frame(0x81, b"[1, \"realm1\"]")[..12].to_vec()),
        ("a frame of 2^62 bytes", true, [vec![0x81, 0xff, 0x40], vec![0; 11]].concat()),
        ("a frame without a mask", true, unmasked),
        ("a text that is no UTF-8", true, frame(0x81, &[b'[', 0xc3, 0x28, b']'])),
        ("a binary message in JSON", true, frame(0x82, b"[1]")),
        ("a reserved opcode", true, frame(0x83, b"[1]")),
        ("a message of 3 MB", true, frame(0x81, &vec![b'['; 3 << 20])),
        ("a continuation of nothing", true, frame(0x80, b"[1]")),
    ];
    let case = |(name, upgraded, bytes)| RawCase { name, upgraded, bytes };
    table.into_iter().map(case).collect()
}

/// The result of a message.
pub(super) enum Outcome {
    /// ABORT with this reason, and the connection ends.
    Abort(&'static str),
    /// ERROR with this reason, and the session continues.
    Error(&'static str),
    /// Nothing, and the session continues.
    Dropped,
}

/// A text in a WebSocket, before or after HELLO.
pub(super) struct SessionCase {
    name: &'static str,
    joined: bool,
    text: String,
    outcome: Outcome,
}

impl SessionCase {
    /// A text within a session.
    pub(super) fn new(name: &'static str, text: String, outcome: Outcome) -> Self {
        Self { name, joined: true, text, outcome }
    }

    pub(super) async fn play(self, address: SocketAddr) -> Result<()> {
        let name = self.name;
        within(name, TURNED_AWAY, self.run(address)).await.with_context(|| format!("WAMP: {name}"))
    }

    async fn run(self, address: SocketAddr) -> Result<()> {
        let mut session = match self.joined {
            true => Wamp::connect(address, REALM).await?,
            false => Wamp::open(address).await?,
        };
        session.send_text(self.text).await?;
        match self.outcome {
            Outcome::Abort(reason) => {
                let answer = session.receive().await?.context("no answer")?;
                ensure!(answer[0] == 3 && answer[2] == reason, "no ABORT {reason} but {answer}");
                let more = session.receive().await?;
                ensure!(more.is_none(), "{more:?} after ABORT");
            }
            Outcome::Error(reason) => {
                let answer = session.receive().await?.context("no answer")?;
                ensure!(answer[0] == 8 && answer[4] == reason, "no ERROR {reason} but {answer}");
                goes_on(&mut session).await?;
            }
            Outcome::Dropped => goes_on(&mut session).await?,
        }
        Ok(())
    }
}

/// Checks that the next request gets the next answer.
async fn goes_on(session: &mut Wamp) -> Result<()> {
    // A separate request id: request ids count from 1, and that one is used already.
    session.send(&json!([32, 2, {}, "load.fine"])).await?;
    let answer = session.receive().await?.context("the session ended")?;
    ensure!(answer[0] == 33, "the session does not go on: {answer}");
    Ok(())
}

/// Publishes without `acknowledge` that can't be taken.
pub(super) fn dropped_cases() -> Vec<SessionCase> {
    let large = format!("\"{}\"", "x".repeat(vulpes::types::limits::EVENT));
    let deep = "[".repeat(5000) + &"]".repeat(5000);
    let table = [
        ("a bad topic to publish, unasked", "{}", "a..b", "1"),
        ("an option that is not built, unasked", "{\"eligible\":[1]}", "bad.t", "1"),
        ("a will without retain, unasked", "{\"will\":1}", "bad.t", "1"),
        ("an event that is too large, unasked", "{}", "bad.t", large.as_str()),
        ("an event that is nested too deeply, unasked", "{}", "bad.t", deep.as_str()),
        ("a number without end, unasked", "{}", "bad.t", "1e400"),
    ];
    let text = |options, topic, value| format!("[16,1,{options},\"{topic}\",[{value}]]");
    let case = |(name, options, topic, value)| {
        SessionCase::new(name, text(options, topic, value), Outcome::Dropped)
    };
    table.into_iter().map(case).collect()
}

pub(super) fn session_cases() -> Vec<SessionCase> {
    const VIOLATION: &str = "wamp.error.protocol_violation";
    const URI: &str = "wamp.error.invalid_uri";
    let deep = format!(
        "[16, 1, {{\"acknowledge\": true}}, \"a\", {}{}]",
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let hello = json!([1, "nowhere", { "roles": { "publisher": {} } }]);
    let text = |value: Value| value.to_string();
    let abort = Outcome::Abort;
    let error = Outcome::Error;
    let table = [
        ("no JSON", false, "hello".to_owned(), abort(VIOLATION)),
        ("no list", false, text(json!({ "a": 1 })), abort(VIOLATION)),
        ("an empty list", false, text(json!([])), abort(VIOLATION)),
        ("SUBSCRIBE before HELLO", false, text(json!([32, 1, {}, "a"])), abort(VIOLATION)),
        ("no such realm", false, text(hello), abort("wamp.error.no_such_realm")),
        ("HELLO without a realm", false, text(json!([1])), abort(VIOLATION)),
        ("a second HELLO", true, text(json!([1, REALM, {}])), abort(VIOLATION)),
        ("an unknown message", true, text(json!([999, 1])), abort(VIOLATION)),
        ("a router's message", true, text(json!([17, 1, 1])), abort(VIOLATION)),
        ("a PUBLISH without a topic", true, text(json!([16, 1, {}])), abort(VIOLATION)),
        ("a request that is no number", true, text(json!([32, "x", {}, "a"])), abort(VIOLATION)),
        ("a request below 1", true, text(json!([32, 0, {}, "a"])), abort(VIOLATION)),
        ("options that are no dictionary", true, text(json!([32, 1, 5, "a"])), abort(VIOLATION)),
        ("too deep", true, deep, error("wamp.error.invalid_argument")),
        ("a bad topic", true, text(json!([32, 1, {}, "a b..#c"])), error(URI)),
        (
            "a bad topic to publish",
            true,
            text(json!([16, 1, { "acknowledge": true }, "a..b", []])),
            error(URI),
        ),
        (
            "UNSUBSCRIBE of nothing",
            true,
            text(json!([34, 1, 4711])),
            error("wamp.error.no_such_subscription"),
        ),
    ];
    let case = |(name, joined, text, outcome)| SessionCase { name, joined, text, outcome };
    table.into_iter().map(case).collect()
}

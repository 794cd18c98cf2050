//! Values that break the clients that read them, published in the bytes of each serializer and over MQTT.
//!
//! Invariant: each value is either accepted, and then every subscriber gets a form that it can read, or refused. Its
//! publisher's session continues in either case.
//!
//! Deliberately absent: which of the two happens, and what subscribers read (the payload's own tests).

use std::net::SocketAddr;

use anyhow::{bail, ensure, Context, Result};
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{client_async, WebSocketStream};
use vulpes_jepsen::mqtt::Mqtt;
use vulpes_jepsen::wait::{within, PATIENCE};
use vulpes_jepsen::{Node, Said};

const TOPIC: &str = "cross.hostile";

/// Values as JSON texts: for WAMP, and as whole MQTT payloads.
const JSON: [&str; 13] = [
    "1e400",
    "18446744073709551615",
    "18446744073709551616",
    "\"\\ud800\"",
    "{\"\\udc00\":1}",
    "\"\\u0000x\"",
    "{\"\\u0000x\":1}",
    "{\"a\":1,\"a\":2}",
    "{\"__proto__\":1}",
    "{\"constructor\":{\"prototype\":1},\"\":0}",
    "NaN",
    "[-Infinity]",
    "-0",
];

const MSGPACK: [&[u8]; 17] = [
    b"\x81\x01\xa1x",
    b"\x81\xc0\xc0",
    b"\x81\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\xc0",
    b"\x81\xc4\x01a\xc0",
    b"\x81\x91\x01\xc0",
    b"\x81\xa9__proto__\x01",
    b"\x82\xa1a\x01\xa1a\x02",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    b"\xd6\xff\x00\x00\x00\x07",
    b"\xc7\x03\xff\x00\x00\x00",
    b"\xd4\x05\x00",
    b"\xd4\x00\x00",
    b"\xa1\xff",
    b"\xa2\x00x",
    b"\xa3\xed\xa0\x80",
];

const CBOR: [&[u8]; 18] = [
    b"\xa1\x01\x61x",
    b"\xa1\xf7\x01",
    b"\xa1\x81\x01\x01",
    b"\xa1\xa0\x01",
    b"\xf7",
    b"\xf0",
    b"\xf8\xff",
    b"\xf9\x7e\x00",
    b"\xf9\x7c\x00",
    b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xc0\x64soup",
    b"\xc2\x49\x01\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\xc4\x82\x21\x19\x6a\xb3",
    b"\xd8\x1c\x81\xd8\x1d\x00",
    b"\xd8\x1e\x82\x01\x00",
    b"\xd8\x23\x61(",
    b"\x61\xff",
    b"\xbf\x61a\x9f\x7f\x61b\x61c\xff\xff\xff",
];

/// Publishes all of them, as the argument and as a keyword; returns how many were accepted.
pub(super) async fn publish_all(node: &Node) -> Result<usize> {
    let mut taken = 0;
    let (topic, json) = (format!("\"{TOPIC}\""), JSON.map(str::as_bytes));
    let text = |request: usize, value: &[u8]| {
        let head = format!("[16,{request},{{\"acknowledge\":true}},{topic}");
        [
            [head.as_bytes(), b",[", value, b"]]"].concat(),
            [head.as_bytes(), b",[],{\"k\":", value, b"}]"].concat(),
        ]
    };
    taken += publish(node.wamp(), "wamp.2.json", &json, text).await?;
    let packed = |request: usize, value: &[u8]| {
        let head = |length: u8| {
            let start = [length, 0x10, 0xcc, request as u8, 0x81, 0xab];
            [&start[..], b"acknowledge\xc3", &[0xa0 | TOPIC.len() as u8], TOPIC.as_bytes()].concat()
        };
        [
            [&head(0x95)[..], b"\x91", value].concat(),
            [&head(0x96)[..], b"\x90\x81\xa1k", value].concat(),
        ]
    };
    taken += publish(node.wamp(), "wamp.2.msgpack", &MSGPACK, packed).await?;
    let concise = |request: usize, value: &[u8]| {
        let head = |length: u8| {
            let start = [length, 0x10, 0x18, request as u8, 0xa1, 0x6b];
            [&start[..], b"acknowledge\xf5", &[0x60 | TOPIC.len() as u8], TOPIC.as_bytes()].concat()
        };
        [
            [&head(0x85)[..], b"\x81", value].concat(),
            [&head(0x86)[..], b"\x80\xa1\x61k", value].concat(),
        ]
    };
    taken += publish(node.wamp(), "wamp.2.cbor", &CBOR, concise).await?;

    let mut mqtt = Mqtt::connect(node.mqtt()).await?;
    // MQTT's subscribers get half a surrogate pair as bytes, and print something that is not JSON.
    let payloads = JSON.into_iter().filter(|payload| !payload.contains("\\ud"));
    for payload in payloads.chain(["\0", "\0x", "\u{feff}1"]) {
        mqtt.publish(&TOPIC.replace('.', "/"), payload).await?;
        match within("a PUBACK", PATIENCE, mqtt.next()).await? {
            Said::Acknowledged { .. } => taken += 1,
            other => bail!("{other:?} for {payload:?}"),
        }
    }
    Ok(taken)
}

async fn publish(
    address: SocketAddr,
    protocol: &'static str,
    values: &[&[u8]],
    message: impl Fn(usize, &[u8]) -> [Vec<u8>; 2],
) -> Result<usize> {
    let mut socket = open(address, protocol).await?;
    let mut taken = 0;
    // Request ids that take two bytes in both MessagePack and CBOR.
    for (value, first) in values.iter().zip((100..).step_by(2)) {
        for at in [0, 1] {
            let [argument, keyword] = message(first + at, value);
            let message = if at == 0 { argument } else { keyword };
            send(&mut socket, protocol, message).await?;
            let answer = receive(&mut socket).await.with_context(|| format!("{value:02x?}"))?;
            match code(&answer) {
                17 => taken += 1,
                8 => {}
                _ => bail!("{protocol} {value:02x?}: {answer:02x?}"),
            }
        }
    }
    println!("{protocol}: {taken} of {} taken", 2 * values.len());
    Ok(taken)
}

type Socket = WebSocketStream<TcpStream>;

async fn open(address: SocketAddr, protocol: &'static str) -> Result<Socket> {
    let mut request = format!("ws://{address}/").into_client_request()?;
    let name = HeaderValue::from_static(protocol);
    request.headers_mut().insert("Sec-WebSocket-Protocol", name);
    let (mut socket, _) = client_async(request, TcpStream::connect(address).await?).await?;
    let hello = match protocol {
        "wamp.2.json" => b"[1,\"realm1\",{}]".to_vec(),
        "wamp.2.msgpack" => b"\x93\x01\xa6realm1\x80".to_vec(),
        _ => b"\x83\x01\x66realm1\xa0".to_vec(),
    };
    send(&mut socket, protocol, hello).await?;
    let welcome = receive(&mut socket).await?;
    ensure!(code(&welcome) == 2, "no WELCOME: {welcome:02x?}");
    Ok(socket)
}

async fn send(socket: &mut Socket, protocol: &str, message: Vec<u8>) -> Result<()> {
    let message = match protocol {
        "wamp.2.json" => Message::text(String::from_utf8(message)?),
        _ => Message::binary(message),
    };
    Ok(socket.send(message).await?)
}

async fn receive(socket: &mut Socket) -> Result<Vec<u8>> {
    within("an answer", PATIENCE, async {
        match socket.next().await.context("the session is over")?? {
            message @ (Message::Text(_) | Message::Binary(_)) => Ok(message.into_data().to_vec()),
            other => bail!("{other:?}"),
        }
    })
    .await
}

/// The type of a message, in any of the three serializers.
fn code(message: &[u8]) -> u8 {
    match message {
        [b'[', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
            digits.fold(0, |code, digit| code * 10 + (digit - b'0'))
        }
        [_, code, ..] => *code,
        _ => 0,
    }
}

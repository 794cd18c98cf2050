//! Whole runs against brokers in this process, a good one and faulty ones.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::{Buf, BytesMut};
use clap::Parser;
use futures::{SinkExt, StreamExt};
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::WebSocketStream;

use super::*;

/// What a broker does wrong with its seventh publish.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Drop,
    Double,
    /// Closes the publisher's connection instead of acknowledging.
    Hang,
}

/// The seventh publish, over all connections.
const SEVENTH: u64 = 7;

/// What all connections of a fake broker share.
#[derive(Clone)]
struct Broker {
    fault: Fault,
    count: Arc<AtomicU64>,
    /// Payloads on their way to subscribers.
    events: broadcast::Sender<Vec<u8>>,
    /// The channel to the callee. Each call has the channel for its result.
    callee: Arc<Mutex<Option<mpsc::Sender<Call>>>>,
    /// Retained values by topic.
    kept: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

type Call = (Value, oneshot::Sender<Value>);

impl Broker {
    fn new(fault: Fault) -> Self {
        let (events, _) = broadcast::channel(1 << 16);
        Self { fault, count: Arc::default(), events, callee: Arc::default(), kept: Arc::default() }
    }

    /// Passes on a call; with the wrong arguments if it is the seventh and that is the fault.
    async fn call(&self, message: &[Value]) -> Value {
        let mut arguments = message[4].clone();
        let seventh = self.count.fetch_add(1, Ordering::Relaxed) + 1 == SEVENTH;
        if seventh && self.fault == Fault::Double {
            arguments[0] = "something else".into();
        }
        let (answer, answered) = oneshot::channel();
        let callee = self.callee.lock().unwrap().clone().expect("somebody has registered");
        callee.send((arguments, answer)).await.unwrap();
        json!([50, message[1], {}, answered.await.unwrap()])
    }

    fn keep(&self, topic: &str, value: &[u8]) {
        self.kept.lock().unwrap().insert(topic.to_owned(), value.to_vec());
    }

    /// A topic's retained value; the seventh time another value, if that is the fault.
    fn kept(&self, topic: &str) -> Option<Vec<u8>> {
        let mut value = self.kept.lock().unwrap().get(topic).cloned()?;
        let seventh = self.count.fetch_add(1, Ordering::Relaxed) + 1 == SEVENTH;
        if seventh && self.fault == Fault::Double {
            value[0] = b'x';
        }
        Some(value)
    }

    /// Passes on a payload; returns whether to acknowledge it.
    fn publish(&self, payload: &[u8]) -> bool {
        let seventh = self.count.fetch_add(1, Ordering::Relaxed) + 1 == SEVENTH;
        let times = match self.fault {
            Fault::Drop | Fault::Hang if seventh => 0,
            Fault::Double if seventh => 2,
            _ => 1,
        };
        for _ in 0..times {
            // Without subscribers there are no receivers.
            let _ = self.events.send(payload.to_vec());
        }
        !(seventh && self.fault == Fault::Hang)
    }
}

async fn mqtt_broker(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let broker = Broker::new(fault);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(mqtt_connection(stream, broker.clone()));
        }
    });
    address
}

/// One length byte is enough for the tests' packets.
fn mqtt_packet(input: &mut BytesMut) -> Option<(u8, Vec<u8>)> {
    let length = usize::from(*input.get(1)?);
    assert!(length < 128);
    let body = input.get(2..2 + length)?.to_vec();
    let first = input[0];
    input.advance(2 + length);
    Some((first, body))
}

async fn mqtt_connection(mut stream: TcpStream, broker: Broker) {
    let mut input = BytesMut::new();
    let mut events = None;
    loop {
        let mut output = Vec::new();
        while let Some((first, body)) = mqtt_packet(&mut input) {
            match first >> 4 {
                1 => output.extend(b"\x20\x02\x00\x00"),
                8 => {
                    output.extend([0x90, 3, body[0], body[1], 1]);
                    let topic = &body[4..body.len() - 1];
                    match broker.kept(std::str::from_utf8(topic).unwrap()) {
                        Some(value) => {
                            let length = 2 + topic.len() + value.len();
                            output.extend([0x31, length as u8, 0, topic.len() as u8]);
                            output.extend(topic);
                            output.extend(value);
                        }
                        None => events = Some(broker.events.subscribe()),
                    }
                }
                10 => output.extend([0xb0, 2, body[0], body[1]]),
                3 if first & 1 == 1 => {
                    let topic = usize::from(body[1]) + 2;
                    let name = std::str::from_utf8(&body[2..topic]).unwrap();
                    broker.keep(name, &body[topic + 2..]);
                    output.extend([0x40, 2, body[topic], body[topic + 1]]);
                }
                3 => {
                    let topic = usize::from(body[1]) + 2;
                    if !broker.publish(&body[topic + 2..]) {
                        return;
                    }
                    output.extend([0x40, 2, body[topic], body[topic + 1]]);
                }
                4 => {}
                _ => return,
            }
        }
        stream.write_all(&output).await.unwrap();
        let event = async {
            match &mut events {
                Some(events) => events.recv().await.unwrap(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            length = stream.read_buf(&mut input) => {
                if length.unwrap_or(0) == 0 {
                    return;
                }
            }
            payload = event => {
                let mut packet = vec![0x32, payload.len() as u8 + 5, 0, 1, b't', 0, 9];
                packet.extend(payload);
                // A subscriber that has seen enough may be gone.
                let _ = stream.write_all(&packet).await;
            }
        }
    }
}

async fn wamp_router(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let broker = Broker::new(fault);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(wamp_connection(stream, broker.clone()));
        }
    });
    format!("ws://{address}/")
}

async fn wamp_accept(stream: TcpStream) -> WebSocketStream<TcpStream> {
    // The library dictates the callback's type.
    #[allow(clippy::result_large_err)]
    let choose = |_: &Request, mut response: Response| {
        let protocol = HeaderValue::from_static("wamp.2.json");
        response.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        Ok(response)
    };
    tokio_tungstenite::accept_hdr_async(stream, choose).await.unwrap()
}

/// Handles a PUBLISH; returns whether to acknowledge it.
fn wamp_publish(broker: &Broker, message: &[Value]) -> bool {
    let value = message[4][0].as_str().unwrap_or_default().as_bytes();
    if message[2]["retain"] != true {
        return broker.publish(value);
    }
    broker.keep(message[3].as_str().unwrap(), value);
    true
}

async fn wamp_connection(stream: TcpStream, broker: Broker) {
    let mut socket = wamp_accept(stream).await;
    let mut events = None;
    let mut calls: Option<mpsc::Receiver<Call>> = None;
    let mut called = Vec::new();
    loop {
        let event = async {
            match &mut events {
                Some(events) => broadcast::Receiver::recv(events).await.unwrap(),
                None => std::future::pending().await,
            }
        };
        let call = async {
            match &mut calls {
                Some(calls) => calls.recv().await.unwrap(),
                None => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            message = socket.next() => {
                let Some(Ok(Message::Text(text))) = message else { return };
                let message: Vec<Value> = serde_json::from_str(&text).unwrap();
                match message[0].as_u64().unwrap() {
                    1 => json!([2, 1, {"roles": {}}]),
                    32 => {
                        let subscribed = json!([33, message[1], 5]);
                        match broker.kept(message[3].as_str().unwrap()) {
                            Some(value) => {
                                socket.send(Message::text(subscribed.to_string())).await.unwrap();
                                let value = String::from_utf8(value).unwrap();
                                json!([36, 5, 99, {"retained": true}, [value]])
                            }
                            None => {
                                events = Some(broker.events.subscribe());
                                subscribed
                            }
                        }
                    }
                    34 => json!([35, message[1]]),
                    6 => return,
                    48 => broker.call(&message).await,
                    64 => {
                        let (callee, from) = mpsc::channel(64);
                        *broker.callee.lock().unwrap() = Some(callee);
                        calls = Some(from);
                        json!([65, message[1], 9])
                    }
                    70 => {
                        let answer: oneshot::Sender<Value> = called.remove(0);
                        // A caller that has seen enough may be gone.
                        let _ = answer.send(message[3].clone());
                        continue;
                    }
                    _ => match wamp_publish(&broker, &message) {
                        true => json!([17, message[1], 99]),
                        false => return,
                    },
                }
            }
            payload = event => {
                let payload = String::from_utf8(payload).unwrap();
                json!([36, 5, 99, {"event_id": "x"}, [payload]])
            }
            (arguments, answer) = call => {
                called.push(answer);
                json!([68, called.len(), 9, {}, arguments])
            }
        };
        // A subscriber that has seen enough may be gone.
        let _ = socket.send(Message::text(answer.to_string())).await;
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    bench: Bench,
}

async fn measure(protocol: &str, target: &str, more: &str) -> Report {
    let size = if more.contains("--size") { "" } else { "--size 64" };
    let line = format!(
        "bench --protocol {protocol} --targets {target} --connections 2 --window 4 {size} \
         --seconds 1 --warmup 0 --drain 1 --topics 3 {more}"
    );
    let bench = Line::try_parse_from(line.split_whitespace()).unwrap().bench;
    bench.run.measure().await.unwrap()
}

#[tokio::test]
async fn brokers_that_behave_are_measured() {
    for (protocol, target) in
        [("mqtt", mqtt_broker(Fault::None).await), ("wamp", wamp_router(Fault::None).await)]
    {
        let report = measure(protocol, &target, "--subscribers 2").await;
        assert!(report.is_clean(), "{report}");
        let counts = serde_json::to_value(&report).unwrap();
        let (acknowledged, deliveries) = (&counts["acknowledged"], &counts["deliveries"]);
        assert!(acknowledged.as_u64().unwrap() > 10, "{report}");
        // Each subscriber gets everything, including events before and after the measured time.
        assert!(deliveries.as_u64() >= acknowledged.as_u64().map(|count| count * 2), "{report}");
    }
}

#[tokio::test]
async fn a_fixed_rate_is_kept() {
    for (protocol, target) in
        [("mqtt", mqtt_broker(Fault::None).await), ("wamp", wamp_router(Fault::None).await)]
    {
        let report = measure(protocol, &target, "--subscribers 2 --rate 200").await;
        assert!(report.is_clean(), "{report}");
        assert!(report.to_string().contains("200 publishes a second"), "{report}");
        // On a busy machine an answer may come too late to count, but there is never an additional one.
        let acknowledged = serde_json::to_value(&report).unwrap()["acknowledged"].as_u64();
        assert!((50..=200).contains(&acknowledged.unwrap()), "{report}");
    }
}

#[tokio::test]
async fn brokers_that_misbehave_are_found_out() {
    for (fault, expected) in [
        (Fault::Drop, "2 gaps, 0 duplicates, 0 out of order, 2 lost"),
        (Fault::Double, "0 gaps, 2 duplicates, 0 out of order, 0 lost"),
        (Fault::Hang, "error       publisher"),
    ] {
        for (protocol, target) in
            [("mqtt", mqtt_broker(fault).await), ("wamp", wamp_router(fault).await)]
        {
            let report = measure(protocol, &target, "--subscribers 2").await;
            assert!(!report.is_clean(), "{protocol} {fault:?}: {report}");
            assert!(report.to_string().contains(expected), "{protocol} {fault:?}: {report}");
        }
    }
}

#[tokio::test]
async fn calls_are_measured_and_their_results_looked_at() {
    for (fault, is_clean) in [(Fault::None, true), (Fault::Double, false)] {
        let target = wamp_router(fault).await;
        let line = format!(
            "bench --protocol wamp --targets {target} --callees {target} --connections 2 --window 4 \
             --size 64 --seconds 1 --warmup 0 --drain 1"
        );
        let bench = Line::try_parse_from(line.split_whitespace()).unwrap().bench;
        let report = bench.run.measure().await.unwrap();
        assert_eq!(report.is_clean(), is_clean, "{report}");
        let text = report.to_string();
        let expected = if is_clean { " answered a second" } else { "what it was called with" };
        assert!(text.contains(expected), "{text}");
    }
    let line = "bench --protocol mqtt --callees ws://127.0.0.1:1/";
    let bench = Line::try_parse_from(line.split_whitespace()).unwrap().bench;
    assert!(bench.run.measure().await.is_err());
}

#[tokio::test]
async fn a_target_that_is_not_there_is_named() {
    let line = "bench --protocol mqtt --targets 127.0.0.1:1 --subscribers 0";
    let bench = Line::try_parse_from(line.split_whitespace()).unwrap().bench;
    let error = format!("{:#}", bench.run.measure().await.err().unwrap());
    assert!(error.contains("publisher 0 at 127.0.0.1:1: can't reach 127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn retained_values_are_read_and_looked_at() {
    for (fault, is_clean) in [(Fault::None, true), (Fault::Double, false)] {
        for (protocol, target) in
            [("mqtt", mqtt_broker(fault).await), ("wamp", wamp_router(fault).await)]
        {
            let report = measure(protocol, &target, "--retained").await;
            let text = report.to_string();
            assert_eq!(report.is_clean(), is_clean, "{protocol}: {text}");
            let counts = serde_json::to_value(&report).unwrap();
            // Each connection reads all topics at once, and no more.
            assert_eq!((&counts["window"], &counts["subscribers"]), (&json!(3), &json!(0)));
            let expected = if is_clean { " answered a second" } else { "is not the value of" };
            assert!(text.contains(expected), "{protocol}: {text}");
            assert!(!is_clean || counts["acknowledged"].as_u64() > Some(10), "{text}");
        }
    }
}

#[tokio::test]
async fn who_has_no_log_is_told_so_before_anything_is_published() {
    for (protocol, target) in
        [("mqtt", mqtt_broker(Fault::None).await), ("wamp", wamp_router(Fault::None).await)]
    {
        let line = format!("bench --protocol {protocol} --targets {target} --replay");
        let bench = Line::try_parse_from(line.split_whitespace()).unwrap().bench;
        let error = format!("{:#}", bench.run.measure().await.err().unwrap());
        assert!(error.contains(&format!("{target} is not a Vulpes node")), "{error}");
    }
}

#[tokio::test]
async fn payloads_of_either_form_come_through() {
    for size in ["--size 16", "--size 37", "--size 38"] {
        for (protocol, target) in
            [("mqtt", mqtt_broker(Fault::None).await), ("wamp", wamp_router(Fault::None).await)]
        {
            let report = measure(protocol, &target, &format!("--subscribers 2 {size}")).await;
            assert!(report.is_clean(), "{protocol} {size}: {report}");
            let counts = serde_json::to_value(&report).unwrap();
            assert!(counts["deliveries"].as_u64() > Some(10), "{report}");
        }
    }
}

#[test]
fn command_lines_that_make_no_sense_are_refused() {
    for (line, is_good) in [
        ("bench", true),
        ("bench --size 16 --connections 5000", true),
        ("bench --size 1048576", true),
        ("bench --size 15", false),
        ("bench --size 1048577", false),
        ("bench --connections 5001", false),
        ("bench --retained --replay", false),
        ("bench --callees ws://a/ --retained", false),
        ("bench compare --target a=127.0.0.1:1", true),
        ("bench compare --target a=127.0.0.1:1 --retained --rounds 5", true),
        ("bench compare --target a=127.0.0.1:1 --vary window=1,64", true),
        ("bench compare --target a=127.0.0.1:1 --vary topics=1,64", false),
        ("bench compare", false),
        ("bench compare --target 127.0.0.1:1", false),
        ("bench --protocol mqtt compare --target a=127.0.0.1:1", false),
    ] {
        assert_eq!(Line::try_parse_from(line.split_whitespace()).is_ok(), is_good, "{line}");
    }
}

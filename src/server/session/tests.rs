//! Wake-ups of a session: a socket may take the waiting bytes in any number of steps, and whatever else happens meanwhile, the
//! session continues as long as there is something to be taken.

mod alive;
mod ends;
mod limit;
mod memory;
mod planted;
mod withheld;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::WebSocketStream;
use vulpes_raft::host::BoxStream;

use super::testing::{realm, rest, Break, Node, Socket};
use super::*;
use crate::gate::mqtt::{MqttConfig, MqttGate};
use crate::gate::wamp::{Serializer, WampGate};
use crate::server::intake::{Framing, Intake, Terms};
use crate::server::metered::metered;
use crate::server::transport::{MqttTransport, WampTransport};
use crate::server::upgrade::websocket_config;

/// Bytes of all messages together: several times the most that waits for a socket.
const BACKLOG: usize = 6 * limits::SESSION_OUTPUT;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Protocol {
    /// With this many seconds of keep-alive.
    Mqtt(u8),
    Wamp,
}

/// What happens between two polls of a session.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The socket takes this many bytes.
    Take(usize),
    /// The client sends something that is answered.
    Say,
    /// Something is published.
    Publish,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![1_usize..200, 1_usize..400_000, Just(limits::SESSION_OUTPUT)];
    let step = prop_oneof![
        8 => bytes.prop_map(Step::Take),
        1 => Just(Step::Say),
        1 => Just(Step::Publish),
    ];
    proptest::collection::vec(step, 1..40)
}

/// A frame of a client, masked with zeros.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend(text.as_bytes());
    frame
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut rest = body.len();
    while rest >= 0x80 {
        packet.push(u8::try_from(rest % 0x80).unwrap() | 0x80);
        rest /= 0x80;
    }
    packet.push(u8::try_from(rest).unwrap());
    packet.extend(body);
    packet
}

/// What a client sends to read the log from the beginning.
fn replay(protocol: Protocol) -> Vec<u8> {
    match protocol {
        Protocol::Mqtt(_) => packet(0x82, b"\0\x01\0\x0b$replay/0/#\0"),
        Protocol::Wamp => frame(r##"[32,1,{"after":0},"#"]"##),
    }
}

/// A connected client; the handle returns how its session ends.
fn connect(protocol: Protocol, node: &Node, socket: &Socket) -> JoinHandle<TransportError> {
    let stream: BoxStream = Box::new(socket.clone());
    let (clients, id) = (node.clients.clone(), node.clients.new_session());
    match protocol {
        Protocol::Mqtt(keep_alive) => {
            let config = MqttConfig {
                default_realm: realm(),
                realms: Arc::default(),
                merging: crate::gate::MergingRealms::default(),
            };
            let gate = MqttGate::new(config, id, clients.now());
            let intake = Intake::new(Framing::Mqtt, &Terms::CLIENT, &clients.login);
            let mut session =
                Session::new(gate, MqttTransport::new(stream, intake), Shown::default(), clients);
            let mut hello = *b"\0\x04MQTT\x04\x02\0\0\0\x01c";
            hello[9] = keep_alive;
            session.core.received(packet(0x10, &hello).into());
            begin(session)
        }
        Protocol::Wamp => {
            let gate = WampGate::new(Serializer::Json, id, clients.now());
            let (stream, meter) = metered(stream);
            let intake = Intake::new(Framing::WebSocket, &Terms::CLIENT, &clients.login);
            let stream = intake.on(stream);
            let config = websocket_config();
            tokio::spawn({
                let hello = r#"[1,"realm1",{"roles":{"subscriber":{}}}]"#;
                async move {
                    let socket =
                        WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
                    let transport = WampTransport::new(socket, true, (meter, intake));
                    let mut session = Session::new(gate, transport, Shown::default(), clients);
                    session.core.received(hello.into());
                    begin(session).await.unwrap()
                }
            })
        }
    }
}

/// Runs a session that is in the realms' state.
fn begin<G: Gate + 'static, T: Transport + 'static>(
    mut session: Box<Session<G, T>>,
) -> JoinHandle<TransportError> {
    assert!(session.handle(Wake::Inputs).is_none());
    session.core.open();
    session.turn();
    tokio::spawn(session.run())
}

fn message(number: usize, size: usize) -> String {
    format!("\"<{number:08}>{}\"", "x".repeat(size))
}

/// The numbers of all messages that arrived.
fn numbers(taken: &[u8]) -> Vec<usize> {
    let starts = taken.iter().enumerate().filter(|(_, byte)| **byte == b'<').map(|(at, _)| at);
    let digits = starts.filter_map(|at| std::str::from_utf8(taken.get(at + 1..at + 9)?).ok());
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

/// Publishes a backlog, lets a client read it in steps, and returns what arrived.
async fn read_in_steps(
    protocol: Protocol,
    sizes: &[usize],
    steps: &[Step],
    others: Others,
) -> Vec<usize> {
    let node = Node::new();
    let mut held = node.clients.output.account();
    held.overdraw(others.output);
    let mut segments = node.clients.segments.account();
    segments.overdraw(others.segments);
    let socket = Socket::default();
    let mut published = 0;
    let mut bytes = 0;
    let mut publish = |count: usize| {
        let sizes = sizes.iter().cycle().skip(published).take(count);
        let payloads: Vec<String> =
            sizes.enumerate().map(|(at, size)| message(published + at, *size)).collect();
        published += count;
        node.publish("t", &payloads);
        (published, payloads.iter().map(String::len).sum::<usize>())
    };
    while bytes < BACKLOG {
        bytes += publish(25).1;
    }
    let _session = connect(protocol, &node, &socket);
    socket.send(replay(protocol));
    rest().await;
    let began = Instant::now();
    let mut all = publish(1).0;
    for step in steps.iter().cycle().take(3 * steps.len()).chain(&[Step::Take(usize::MAX / 2)]) {
        match step {
            Step::Take(bytes) => socket.take(*bytes),
            Step::Say => socket.send(match protocol {
                Protocol::Mqtt(_) => packet(0xc0, &[]),
                Protocol::Wamp => frame(r#"[34,5,77]"#),
            }),
            Step::Publish => all = publish(3).0,
        }
        rest().await;
        if socket.room() > 0 {
            let came = numbers(&socket.taken()).len();
            assert_eq!(came, all, "the socket would take {} bytes more", socket.room());
        }
    }
    assert!(began.elapsed() < Duration::from_secs(5), "it was woken by a timer only");
    let came = numbers(&socket.taken());
    assert_eq!(came.len(), all);
    came
}

/// Runs this on the current thread, with a time that advances only when all tasks are idle.
fn run<T>(future: impl Future<Output = T>) -> T {
    paused().block_on(future)
}

/// A runtime on this thread with such a time.
fn paused() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true);
    runtime.build().unwrap()
}

fn check(protocol: Protocol, sizes: &[usize], steps: &[Step]) {
    check_beside(protocol, sizes, steps, Others::default());
}

/// Bytes that other sessions hold of shared budgets.
#[derive(Clone, Copy, Default)]
struct Others {
    output: usize,
    segments: usize,
}

fn check_beside(protocol: Protocol, sizes: &[usize], steps: &[Step], others: Others) {
    let came = run(read_in_steps(protocol, sizes, steps, others));
    assert!(came.iter().copied().eq(0..came.len()), "each comes once and in its order");
}

/// The session was woken only if one poll saw its output shrink from full to nothing.
#[test]
fn a_client_that_reads_in_two_steps_goes_on() {
    let half = limits::SESSION_OUTPUT / 2;
    for protocol in [Protocol::Mqtt(0), Protocol::Wamp] {
        check(protocol, &[1000], &[Step::Take(half + 2000), Step::Take(half + 2000)]);
        check(protocol, &[1000], &[Step::Take(7)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With no room except for the part that is free for each session, events of that size come one after the other.
    #[test]
    fn a_session_goes_on_while_others_hold_all_room(
        wamp in any::<bool>(),
        sizes in proptest::collection::vec(200_usize..25_000, 1..20),
        steps in steps(),
    ) {
        let protocol = if wamp { Protocol::Wamp } else { Protocol::Mqtt(0) };
        let others = Others { output: limits::OUTPUT_BYTES, segments: limits::SEGMENTS_HELD };
        check_beside(protocol, &sizes, &steps, others);
    }

    /// It drops each segment that it can't send at once, and reads it again.
    #[test]
    fn a_session_goes_on_without_room_for_segments(
        wamp in any::<bool>(),
        sizes in proptest::collection::vec(prop_oneof![200_usize..1000, 0_usize..60_000], 1..20),
        steps in steps(),
    ) {
        let protocol = if wamp { Protocol::Wamp } else { Protocol::Mqtt(0) };
        let others = Others { segments: limits::SEGMENTS_HELD, ..Others::default() };
        check_beside(protocol, &sizes, &steps, others);
    }

    #[test]
    fn a_session_goes_on_however_its_socket_drains(
        wamp in any::<bool>(),
        sizes in proptest::collection::vec(prop_oneof![200_usize..1000, 0_usize..60_000], 1..20),
        steps in steps(),
    ) {
        let protocol = if wamp { Protocol::Wamp } else { Protocol::Mqtt(0) };
        check(protocol, &sizes, &steps);
    }
}

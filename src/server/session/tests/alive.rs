//! Liveness over a socket, whatever the session does: a client that takes a little of the waiting bytes in time stays
//! connected; one that freezes is disconnected within its documented time, whatever waits for it.
//!
//! Deliberately absent: clients with no waiting output (`liveness`).

use super::*;
use crate::server::session::wake::TIMER_SLACK;

/// Bytes that wait at least, however much the client takes.
const WAITING: usize = 400 << 10;

/// Most that the client takes at once.
const SIP: usize = 8 << 10;

/// How long a client of this protocol may stay without a sign of life.
fn patience(protocol: Protocol) -> Duration {
    match protocol {
        Protocol::Wamp => 2 * limits::WAMP_SILENCE,
        Protocol::Mqtt(0) => limits::SESSION_STALLED,
        Protocol::Mqtt(keep_alive) => Duration::from_millis(1500 * u64::from(keep_alive)),
    }
}

/// A client takes this many bytes, each time after this many thousandths of its patience, and then nothing more.
async fn take_and_freeze(protocol: Protocol, sips: &[(u32, usize)]) {
    let (node, socket) = (Node::new(), Socket::default());
    let taken: usize = sips.iter().map(|(_, bytes)| bytes).sum();
    let mut published = 0;
    while published * 1000 < WAITING + taken {
        let payloads: Vec<String> = (published..published + 25).map(|n| message(n, 1000)).collect();
        node.publish("t", &payloads);
        published += payloads.len();
    }
    let session = connect(protocol, &node, &socket);
    socket.send(replay(protocol));
    rest().await;
    let mut last_sign = Instant::now();
    for (share, bytes) in sips {
        tokio::time::sleep(patience(protocol) * *share / 1000).await;
        assert!(
            !session.is_finished(),
            "it was cut, {:?} after a sign of life",
            last_sign.elapsed()
        );
        socket.take(*bytes);
        rest().await;
        assert_eq!(socket.room(), 0, "there was more to take");
        last_sign = Instant::now();
    }
    // The time to detect it, to try to write the last message, and to wait for the client to hang up.
    let most = patience(protocol) + TIMER_SLACK + 2 * limits::LINGER + Duration::from_secs(1);
    let end = tokio::time::timeout(most, session).await;
    assert!(end.is_ok(), "a frozen client is still there {most:?} after it froze");
    let lived = last_sign.elapsed();
    assert!(lived + TIMER_SLACK >= patience(protocol), "it was cut after {lived:?}");
}

pub(super) fn check(protocol: Protocol, sips: &[(u32, usize)]) {
    run(take_and_freeze(protocol, sips));
}

pub(super) const PROTOCOLS: [Protocol; 3] = [Protocol::Wamp, Protocol::Mqtt(0), Protocol::Mqtt(10)];

#[test]
fn a_client_that_freezes_at_once_is_gone_in_time() {
    PROTOCOLS.iter().for_each(|protocol| check(*protocol, &[]));
}

#[test]
fn a_client_that_takes_a_byte_in_time_is_there() {
    PROTOCOLS.iter().for_each(|protocol| check(*protocol, &[(950, 1); 10]));
}

/// A message that arrives in parts, each in time; within it the client can't send anything else.
async fn send_slowly(protocol: Protocol) {
    const LENGTH: usize = 40_000;
    let (node, socket) = (Node::new(), Socket::default());
    socket.take(usize::MAX / 2);
    let session = connect(protocol, &node, &socket);
    rest().await;
    let body = vec![b'x'; LENGTH];
    let message = match protocol {
        Protocol::Mqtt(_) => packet(0x30, &[&b"\0\x01t"[..], &body].concat()),
        Protocol::Wamp => [&[0x81, 0xfe, 0x9c, 0x40, 0, 0, 0, 0][..], &body].concat(),
    };
    for part in message[..LENGTH].chunks(LENGTH / 12) {
        socket.send(part.to_vec());
        tokio::time::sleep(patience(protocol) * 950 / 1000).await;
        assert!(!session.is_finished(), "it was cut while its bytes came");
    }
    let most = patience(protocol) + TIMER_SLACK + 2 * limits::LINGER + Duration::from_secs(1);
    let end = tokio::time::timeout(most, session).await;
    assert_eq!(end.is_ok(), protocol != Protocol::Mqtt(0), "no more of it comes");
}

#[test]
fn a_client_that_sends_a_large_message_slowly_is_there() {
    PROTOCOLS.iter().for_each(|protocol| run(send_slowly(*protocol)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_client_is_there_for_as_long_as_it_takes_something(
        protocol in proptest::sample::select(PROTOCOLS.to_vec()),
        sips in proptest::collection::vec((1_u32..960, 1_usize..SIP), 0..20),
    ) {
        check(protocol, &sips);
    }
}

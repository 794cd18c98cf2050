//! The end of a session, whatever its reason: others learn of it, and nothing of the node's budgets stays held.
//!
//! Deliberately absent: what clients receive then (the gates' tests).

use super::*;
use crate::entry::Batch;

const PROTOCOLS: [Protocol; 3] = [Protocol::Mqtt(0), Protocol::Mqtt(60), Protocol::Wamp];

/// A session with much to read, whose client takes nothing.
async fn stuck(protocol: Protocol, node: &Node, socket: &Socket) -> JoinHandle<TransportError> {
    for at in 0..20 {
        node.publish("t", &[message(at, 100_000)]);
    }
    let session = connect(protocol, node, socket);
    socket.send(replay(protocol));
    rest().await;
    session
}

/// Fills the queue to the entry, as if no quorum answered.
async fn fill(node: &Node) {
    while let Ok(submitted) = tokio::time::timeout(
        Duration::from_millis(1),
        node.clients.entry.submit(Batch::own(Vec::new())),
    )
    .await
    {
        submitted.unwrap();
    }
}

async fn gives_back_before_it_is_told(protocol: Protocol) {
    let (node, socket) = (Node::new(), Socket::default());
    let session = stuck(protocol, &node, &socket).await;
    let clients = &node.clients;
    assert!(clients.output.held() > 0 && clients.segments.held() > 0);
    fill(&node).await;
    socket.breaks(Break::Reset);
    rest().await;
    assert!(!session.is_finished(), "nobody could be told that it has left");
    assert_eq!((clients.output.held(), clients.segments.held(), clients.input.held()), (0, 0, 0));
}

#[test]
fn a_session_that_waits_to_leave_holds_nothing_that_all_share() {
    PROTOCOLS.iter().for_each(|protocol| run(gives_back_before_it_is_told(*protocol)));
}

async fn leaves_after_a_panic(protocol: Protocol) {
    let (mut node, socket) = (Node::new(), Socket::default());
    let session = stuck(protocol, &node, &socket).await;
    node.inbox.events();
    socket.breaks(Break::Panic);
    assert!(matches!(session.await, Ok(TransportError::Panicked)));
    let acts = node.inbox.events().len();
    assert_eq!(acts, 1, "its end is on its way to all");
}

/// Its locks and registrations would be held for as long as the node lives.
#[test]
fn a_session_that_panics_leaves() {
    PROTOCOLS.iter().for_each(|protocol| run(leaves_after_a_panic(*protocol)));
}

async fn is_ended_where_others_wait(protocol: Protocol, trickle: usize) {
    let (node, socket) = (Node::new(), Socket::default());
    let session = stuck(protocol, &node, &socket).await;
    // The rest is held by others, and one of them waits.
    let output = &node.clients.output;
    let mut others = output.account();
    others.overdraw(limits::OUTPUT_BYTES);
    let mut waiting = output.account();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waiting.poll_take(1 << 20, &mut context).is_pending());
    let began = Instant::now();
    let window = limits::OUTPUT_PACE.0;
    for _ in 0..20 {
        socket.take(trickle);
        tokio::time::sleep(window / 4).await;
        if session.is_finished() {
            break;
        }
    }
    let enough = trickle * 4 >= limits::OUTPUT_PACE.1 * 2;
    assert_eq!(session.is_finished(), !enough, "after {:?}", began.elapsed());
    assert!(enough || matches!(session.await, Ok(TransportError::TooSlow)));
}

/// A session that held output before, and holds none now, has no pace to check. It is polled only as often as its socket and
/// its deadlines require.
async fn rests_when_all_is_taken(protocol: Protocol) {
    let (node, socket) = (Node::new(), Socket::default());
    let session = stuck(protocol, &node, &socket).await;
    tokio::time::sleep(limits::OUTPUT_PACE.0 / 2).await;
    socket.take(usize::MAX / 2);
    rest().await;
    assert_eq!(node.clients.output.held(), 0);
    let before = socket.polls();
    assert!(tokio::time::timeout(limits::OUTPUT_PACE.0 * 2, session).await.is_err());
    let polls = socket.polls() - before;
    assert!(polls < 100, "{polls} polls of its socket while nothing happens");
}

#[test]
fn a_session_that_holds_nothing_rests() {
    PROTOCOLS.iter().for_each(|protocol| run(rests_when_all_is_taken(*protocol)));
}

/// One byte a minute was enough to withhold events from all other sessions of the node.
#[test]
fn who_holds_output_that_others_wait_for_takes_it_or_ends() {
    for protocol in PROTOCOLS {
        run(is_ended_where_others_wait(protocol, 0));
        run(is_ended_where_others_wait(protocol, 1000));
        run(is_ended_where_others_wait(protocol, limits::OUTPUT_PACE.1 / 2));
    }
}

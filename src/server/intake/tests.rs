use std::task::Waker;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{duplex, AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const TERMS: Terms = Terms { free: 100, largest: 1000, pace: (Duration::from_secs(10), 10) };

/// A connection, with the other side's end of it.
struct Connection {
    intake: Intake,
    stream: BoxStream,
    other: DuplexStream,
}

impl Connection {
    fn new(framing: Framing, budget: &Budget) -> Self {
        let intake = Intake::new(framing, &TERMS, budget);
        let (stream, other) = duplex(1 << 20);
        Self { stream: intake.on(Box::new(stream)), intake, other }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.other.write_all(bytes).await.unwrap();
    }

    /// Reads as much as it may at once; an error is an end.
    fn read(&mut self) -> io::Result<usize> {
        let mut all = 0;
        loop {
            let mut bytes = [0; 400];
            let mut buffer = ReadBuf::new(&mut bytes);
            let mut context = Context::from_waker(Waker::noop());
            match Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer) {
                Poll::Ready(read) => read?,
                Poll::Pending => return Ok(all),
            }
            all += buffer.filled().len();
        }
    }
}

/// A frame of this many bytes in all.
fn frame(length: usize) -> Vec<u8> {
    let mut frame = (length as u32 - 4).to_be_bytes().to_vec();
    frame.resize(length, 7);
    frame
}

#[tokio::test]
async fn an_unfinished_message_holds_what_it_was_granted_and_no_more() {
    let budget = Budget::new(900);
    let mut connections: Vec<_> =
        (0..4).map(|_| Connection::new(Framing::Length, &budget)).collect();
    for connection in &mut connections {
        connection.send(&frame(1000)[..999]).await;
    }
    let read: Vec<_> = connections.iter_mut().map(|one| one.read().unwrap()).collect();
    assert_eq!(read, [999, 100, 100, 100], "one has room; the others have what is free");
    assert_eq!(budget.held(), 900);
    assert!(!connections[0].intake.is_held_up() && connections[1].intake.is_held_up());
    // The end of the message is read, and counted until it is settled.
    connections[0].send(&[7]).await;
    assert_eq!(connections[0].read().unwrap(), 1);
    assert_eq!(connections[1].read().unwrap(), 0);
    connections[0].intake.settle();
    assert_eq!(connections[2].read().unwrap(), 0, "it came later");
    assert_eq!(connections[1].read().unwrap(), 899);
    // A closed connection gives back what it held.
    connections.remove(1);
    assert_eq!(connections[1].read().unwrap(), 899);
}

#[tokio::test]
async fn small_messages_go_on_while_there_is_no_room() {
    let budget = Budget::new(900);
    let mut large = Connection::new(Framing::Length, &budget);
    large.send(&frame(1000)[..500]).await;
    assert_eq!(large.read().unwrap(), 500);
    let mut small = Connection::new(Framing::Length, &budget);
    small.send(&frame(30).repeat(20)).await;
    let mut all = 0;
    while all < 600 {
        let read = small.read().unwrap();
        assert!((1..=100).contains(&read), "{read}");
        all += read;
        small.intake.settle();
    }
    assert_eq!(budget.held(), 900, "none of it is theirs");
    // With room, they are read in larger amounts.
    drop(large);
    small.send(&frame(30).repeat(20)).await;
    assert_eq!(small.read().unwrap(), 600);
    assert_eq!(budget.held(), 500);
    small.intake.settle();
    assert_eq!(budget.held(), 0);
}

#[tokio::test]
async fn who_is_not_read_until_it_is_settled_is_woken_then() {
    let budget = Budget::new(1);
    let mut full = budget.account();
    full.overdraw(1);
    let mut connection = Connection::new(Framing::Length, &budget);
    connection.send(&frame(30).repeat(5)).await;
    let mut bytes = [0; 400];
    assert_eq!(connection.stream.read(&mut bytes).await.unwrap(), 100);
    let (intake, mut stream) = (connection.intake, connection.stream);
    let reading = tokio::spawn(async move { stream.read(&mut [0; 400]).await });
    tokio::task::yield_now().await;
    assert!(!reading.is_finished());
    intake.settle();
    // Ten bytes of the fourth message have arrived.
    assert_eq!(reading.await.unwrap().unwrap(), 50);
}

/// Lets a window pass; true if a message arrived too slowly in it.
async fn is_too_slow(connection: &Connection, read: bool) -> bool {
    let mut slow = false;
    for _ in 0..4 {
        tokio::time::advance(TERMS.pace.0 / 4).await;
        let mut context = Context::from_waker(Waker::noop());
        slow |= connection.intake.poll_too_slow(&mut context, read).is_ready();
    }
    slow
}

/// A connection that has room for a message and has read this many bytes of it, and one that waits for room.
async fn two(budget: &Budget, come: usize) -> [Connection; 2] {
    let [mut first, mut next] = [(); 2].map(|()| Connection::new(Framing::Length, budget));
    first.send(&frame(900)[..come]).await;
    assert_eq!(first.read().unwrap(), come);
    next.send(&frame(900)).await;
    assert_eq!(next.read().unwrap(), 100);
    [first, next]
}

#[tokio::test(start_paused = true)]
async fn a_large_message_may_take_its_time_unless_others_wait() {
    let budget = Budget::new(900);
    let mut slow = Connection::new(Framing::Length, &budget);
    slow.send(&frame(1000)[..500]).await;
    assert_eq!(slow.read().unwrap(), 500);
    for _ in 0..3 {
        assert!(!is_too_slow(&slow, true).await, "nobody waits");
    }
    let mut other = Connection::new(Framing::Length, &budget);
    other.send(&frame(500)).await;
    assert_eq!(other.read().unwrap(), 100);
    assert!(!is_too_slow(&slow, true).await, "nobody waited when this window began");
    assert!(!is_too_slow(&other, true).await, "it holds nothing");
    assert!(!is_too_slow(&slow, true).await, "nobody looked in the window before");
    assert!(is_too_slow(&slow, true).await);
    drop(slow);
    assert_eq!(other.read().unwrap(), 400);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_at_the_pace_is_left_alone() {
    let budget = Budget::new(800);
    let [mut steady, mut next] = two(&budget, 100).await;
    for _ in 0..8 {
        assert!(!is_too_slow(&steady, true).await);
        steady.send(&[7; 100]).await;
        assert_eq!(steady.read().unwrap(), 100);
    }
    steady.intake.settle();
    assert_eq!(next.read().unwrap(), 800);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_read_is_not_too_slow() {
    let budget = Budget::new(800);
    let [held, _next] = two(&budget, 100).await;
    for _ in 0..3 {
        assert!(!is_too_slow(&held, false).await);
    }
    assert!(!is_too_slow(&held, true).await, "it has a window of its own from there on");
    assert!(is_too_slow(&held, true).await);
}

/// It is not read, because it does not read itself.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_claim_its_room_holds_it_all_the_same() {
    let budget = Budget::new(800);
    let [first, next] = two(&budget, 100).await;
    assert!(next.intake.is_held_up());
    drop(first);
    assert!(!next.intake.is_held_up(), "there is room");
    let mut other = Connection::new(Framing::Length, &budget);
    other.send(&frame(900)).await;
    assert_eq!(other.read().unwrap(), 100);
    let mut slow = false;
    for _ in 0..3 {
        slow |= is_too_slow(&next, true).await;
    }
    assert!(slow, "others wait for it");
}

/// As for connections of other nodes.
#[tokio::test(start_paused = true)]
async fn a_read_fails_where_no_session_looks_after_it() {
    let budget = Budget::new(800);
    let [mut slow, _next] = two(&budget, 100).await;
    slow.intake.state().by_itself = true;
    let mut failed = None;
    for _ in 0..12 {
        tokio::time::advance(TERMS.pace.0 / 4).await;
        failed = failed.or(slow.read().err());
    }
    assert_eq!(failed.map(|error| error.kind()), Some(io::ErrorKind::TimedOut));
}

/// The message began before the session was open, and ends after that.
#[tokio::test]
async fn a_message_keeps_its_room_when_another_budget_counts() {
    let (login, input) = (Budget::new(1000), Budget::new(1000));
    let mut connection = Connection::new(Framing::Length, &login);
    connection.send(&frame(900)[..500]).await;
    assert_eq!((connection.read().unwrap(), login.held()), (500, 800));
    connection.intake.belongs_to(&input);
    connection.intake.settle();
    connection.send(&[7; 399]).await;
    assert_eq!((connection.read().unwrap(), login.held(), input.held()), (399, 800, 0));
    connection.send(&[7]).await;
    assert_eq!(connection.read().unwrap(), 1);
    connection.intake.settle();
    assert_eq!((login.held(), input.held()), (0, 0));
}

#[tokio::test]
async fn who_stops_leaves_the_line_and_holds_what_has_come() {
    let budget = Budget::new(800);
    let [first, next] = two(&budget, 100).await;
    next.intake.stop();
    assert!(!budget.is_short());
    first.intake.stop();
    first.intake.forget_unfinished();
    assert_eq!(budget.held(), 0);
    // Whole messages are counted until they are settled.
    let mut whole = Connection::new(Framing::Length, &budget);
    whole.send(&frame(500)).await;
    whole.send(&frame(900)[..50]).await;
    assert_eq!(whole.read().unwrap(), 550);
    whole.intake.stop();
    whole.intake.forget_unfinished();
    assert_eq!(budget.held(), 400);
    whole.intake.settle();
    assert_eq!(budget.held(), 0);
}

#[tokio::test]
async fn a_message_that_no_codec_takes_is_not_waited_for() {
    let budget = Budget::new(2000);
    let mut connection = Connection::new(Framing::Length, &budget);
    connection.send(&frame(5000)).await;
    assert_eq!(connection.read().unwrap(), 5000);
    assert!(budget.held() <= 2000);
    connection.intake.stop();
    connection.intake.forget_unfinished();
    connection.intake.settle();
    assert_eq!(budget.held(), 0);
    connection.send(&frame(900)[..800]).await;
    assert_eq!((connection.read().unwrap(), budget.held()), (800, 0));
}

#[tokio::test]
async fn frames_without_a_payload_hold_nothing() {
    let budget = Budget::new(1500);
    let mut connection = Connection::new(Framing::WebSocket, &budget);
    connection.send(&[0x02, 1, 7]).await;
    for _ in 0..500 {
        connection.send(&[0x00, 0, 0x89, 3, 1, 2, 3]).await;
        assert!(connection.read().unwrap() > 0);
        connection.intake.settle();
        assert_eq!(budget.held(), 0);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_message_in_fragments_takes_the_most_that_it_can_be() {
    let budget = Budget::new(1500);
    let mut connection = Connection::new(Framing::WebSocket, &budget);
    let fragment = |first: u8| [vec![first, 60], vec![7; 60]].concat();
    connection.send(&fragment(0x02)).await;
    assert_eq!((connection.read().unwrap(), budget.held()), (62, 0));
    connection.send(&fragment(0x00)).await;
    assert_eq!((connection.read().unwrap(), budget.held()), (62, 900));
    connection.send(&fragment(0x80)).await;
    assert_eq!((connection.read().unwrap(), budget.held()), (62, 80), "now its size is known");
    connection.intake.settle();
    assert_eq!(budget.held(), 0);
}

#[tokio::test]
async fn another_budget_holds_what_comes_from_then_on() {
    let (login, input) = (Budget::new(1000), Budget::new(1000));
    let mut others = login.account();
    others.overdraw(1000);
    let mut connection = Connection::new(Framing::Length, &login);
    connection.send(&frame(400)).await;
    assert_eq!(connection.read().unwrap(), 100);
    assert!(connection.intake.is_held_up() && login.is_short());
    connection.intake.belongs_to(&input);
    assert!(!login.is_short(), "it has left the line");
    assert_eq!((connection.read().unwrap(), input.held()), (300, 300));
}

/// Room for parts of 3000 bytes, and 1000 in reserve.
fn parts() -> Budget {
    Budget::in_parts(4000)
}

#[tokio::test]
async fn a_message_that_is_told_and_does_not_come_holds_nothing() {
    let budget = parts();
    for told in [1000, 101] {
        let mut connection = Connection::new(Framing::Length, &budget);
        connection.send(&frame(told)[..99]).await;
        assert_eq!((connection.read().unwrap(), budget.held()), (99, 0));
    }
}

#[tokio::test]
async fn a_message_holds_little_more_than_has_come_of_it_while_room_is_short() {
    let budget = parts();
    let mut others = budget.account();
    others.overdraw(1500);
    let mut connection = Connection::new(Framing::Length, &budget);
    for (bytes, held) in [(99, 0), (1, 100), (99, 100), (1, 300), (199, 300), (1, 700), (400, 900)]
    {
        let come = connection.intake.state().come();
        connection.send(&frame(1000)[come..come + bytes]).await;
        assert_eq!((connection.read().unwrap(), budget.held() - 1500), (bytes, held), "at {come}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_stand_still_hold_up_the_others_for_two_windows_at_most() {
    let budget = parts();
    let mut still: Vec<_> = (0..40).map(|_| Connection::new(Framing::Length, &budget)).collect();
    for connection in &mut still {
        connection.send(&frame(1000)[..101]).await;
        assert!((100..=101).contains(&connection.read().unwrap()));
        tokio::task::yield_now().await;
    }
    assert!(budget.is_short() && budget.held() <= 4000);
    let mut whole = Connection::new(Framing::Length, &budget);
    whole.send(&frame(1000)).await;
    assert_eq!(whole.read().unwrap(), 100);
    for quarter in 0..8 {
        assert_eq!(whole.read().unwrap(), 0, "after {quarter} quarters of a window");
        tokio::time::advance(TERMS.pace.0 / 4).await;
        let context = &mut Context::from_waker(Waker::noop());
        still.retain(|one| one.intake.poll_too_slow(context, true).is_pending());
    }
    // They came earlier.
    still.iter_mut().for_each(|one| drop(one.read()));
    assert_eq!(whole.read().unwrap(), 900);
}

proptest! {
    /// Connections that settle their messages when they have arrived get everything that was sent, whatever it is, and together
    /// they hold no more than the budget.
    #[test]
    fn all_comes_through(
        lengths in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![4..60usize, 100..1000usize], 1..8), 1..12),
        total in 3600..8000usize,
        steps in proptest::collection::vec((0..12usize, 1..700usize), 0..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let budget = Budget::in_parts(total);
            let mut connections: Vec<_> = lengths
                .iter()
                .map(|lengths| {
                    let bytes: Vec<u8> = lengths.iter().flat_map(|at| frame(*at)).collect();
                    (Connection::new(Framing::Length, &budget), bytes, 0, 0)
                })
                .collect();
            let steps = steps.into_iter().chain((0..4000).map(|at| (at, 700)));
            for (at, length) in steps {
                let count = connections.len();
                let (connection, bytes, sent, read) = &mut connections[at % count];
                let next = (*sent + length).min(bytes.len());
                connection.send(&bytes[*sent..next]).await;
                *sent = next;
                *read += connection.read().unwrap();
                assert!(budget.held() <= total, "{} of {total}", budget.held());
                connection.intake.settle();
                tokio::task::yield_now().await;
            }
            for (_, bytes, _, read) in &connections {
                assert_eq!(*read, bytes.len());
            }
            assert_eq!(budget.held(), 0);
        });
    }
}

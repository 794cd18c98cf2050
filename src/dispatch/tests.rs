use bytes::Bytes;
use vulpes_raft::ids::{
    AdvanceSegment, Incarnation, NodeId, Position, SegmentNumber, Shard, Stamp,
};
use vulpes_raft::order::{Resolution, Step};

use super::*;
use crate::segment::{OpenSegment, Segment};
use crate::types::event::{ClientTag, Event, Extensions, Payload, Qos};

fn realm() -> Realm {
    Realm::new("r").unwrap()
}

/// A slot with one event per topic; the test keeps it alive, as the log's recent slots do.
fn placed(slot: u64, topics: &[&str]) -> Arc<Placed> {
    let mut open = OpenSegment::default();
    for topic in topics {
        let event = Event {
            realm: realm(),
            topic: Topic::from_mqtt(topic).unwrap(),
            publisher: SessionId(9),
            client: ClientTag::NONE,
            exclude_me: false,
            disclose_me: false,
            retain: false,
            qos: Qos::AtMostOnce,
            payload: Payload::raw(Bytes::new()),
            properties: Bytes::new(),
            act: Bytes::new(),
            extensions: Extensions::default(),
        };
        open.push(&event).unwrap();
    }
    let id = AdvanceSegment {
        entry: NodeId(1),
        incarnation: Incarnation(1),
        number: SegmentNumber(slot - 1),
    };
    let sealed = open.seal(id, Shard(0));
    let resolution = Resolution {
        slot: Slot(slot),
        stamp: Stamp(0),
        ahead: 0,
        base: Position(slot),
        step: Step::Segment(sealed.proposal(vec![])),
    };
    let segment = Some(Segment::parse(sealed.body).unwrap());
    Arc::new(Placed { resolution, segment, hidden: Box::default() })
}

fn join(id: u64, pattern: &str, at: Option<u64>, mailbox: Option<Mailbox>) -> Join {
    Join {
        session: SessionId(1),
        realm: realm(),
        subscriptions: vec![(SubscriptionId(id), Pattern::from_mqtt(pattern).unwrap())],
        at: at.map(Slot),
        mailbox,
    }
}

/// The contents of a mailbox: slot and wanted subscriptions of the first topic; and whether it was closed.
fn drain(deliveries: &mut Deliveries) -> (Vec<(u64, Vec<u64>)>, bool) {
    let mut context = Context::from_waker(std::task::Waker::noop());
    let mut found = Vec::new();
    loop {
        match deliveries.poll_next(&mut context) {
            Poll::Ready(Some(handed)) => {
                let ids = handed.hits.on(0).iter().map(|id| id.0).collect();
                found.push((handed.slot.0, ids));
            }
            Poll::Ready(None) => return (found, true),
            Poll::Pending => return (found, false),
        }
    }
}

#[test]
fn a_session_gets_what_it_joined_for_from_there_on() {
    let mut dispatcher = Dispatcher::new(Slot(1));
    let (mailbox, mut deliveries) = mailbox();
    dispatcher.dispatch(&placed(1, &["a"]));
    assert_eq!(dispatcher.join(join(5, "a", None, Some(mailbox))), Ok(Slot(2)));
    dispatcher.dispatch(&placed(2, &["a"]));
    dispatcher.dispatch(&placed(3, &["b"]));
    assert_eq!(dispatcher.join(join(6, "+", None, None)), Ok(Slot(4)));
    dispatcher.dispatch(&placed(4, &["a", "b"]));
    dispatcher.leave(SessionId(1), SubscriptionId(5));
    dispatcher.dispatch(&placed(5, &["a"]));
    dispatcher.remove(SessionId(1));
    dispatcher.dispatch(&placed(6, &["a"]));
    let expected = vec![(2, vec![5]), (4, vec![5, 6]), (5, vec![6])];
    assert_eq!(drain(&mut deliveries), (expected, true));
}

#[test]
fn a_session_within_sight_of_the_tail_joins_without_a_gap() {
    let mut dispatcher = Dispatcher::new(Slot(1));
    let held: Vec<_> = (1..=40).map(|slot| placed(slot, &["a"])).collect();
    for placed in &held {
        dispatcher.dispatch(placed);
    }
    let (first, mut deliveries) = mailbox();
    let too_early = Err(JoinError { next: Slot(41) });
    assert_eq!(dispatcher.join(join(5, "a", Some(8), Some(first.clone()))), too_early);
    assert_eq!(dispatcher.join(join(5, "a", Some(42), Some(first.clone()))), too_early);
    assert_eq!(dispatcher.join(join(5, "a", Some(39), Some(first))), Ok(Slot(39)));
    dispatcher.dispatch(&placed(41, &["a"]));
    let slots: Vec<u64> = drain(&mut deliveries).0.into_iter().map(|(slot, _)| slot).collect();
    assert_eq!(slots, [39, 40, 41]);
}

#[test]
fn a_slow_session_is_put_out_and_told_where() {
    let mut dispatcher = Dispatcher::new(Slot(1));
    let (first, mut deliveries) = mailbox();
    assert_eq!(dispatcher.join(join(5, "a", None, Some(first))), Ok(Slot(1)));
    let bound = limits::SESSION_DELIVERIES as u64;
    for slot in 1..=bound + 5 {
        dispatcher.dispatch(&placed(slot, &["a"]));
    }
    assert_eq!(dispatcher.sessions(), 0);
    assert_eq!(dispatcher.join(join(6, "a", None, None)), Err(JoinError { next: Slot(bound + 6) }));
    let (got, closed) = drain(&mut deliveries);
    assert_eq!((got.len() as u64, closed), (bound, true));
    assert_eq!(deliveries.left_at(), Some(Slot(bound + 1)));
}

#[test]
fn a_dispatcher_that_ends_puts_nobody_out() {
    let mut dispatcher = Dispatcher::new(Slot(1));
    let (first, mut deliveries) = mailbox();
    assert_eq!(dispatcher.join(join(5, "a", None, Some(first))), Ok(Slot(1)));
    dispatcher.dispatch(&placed(1, &["a"]));
    drop(dispatcher);
    assert_eq!(drain(&mut deliveries), (vec![(1, vec![5])], true));
    assert_eq!(deliveries.left_at(), None);
}

#[test]
fn nothing_is_held_for_a_session() {
    let mut dispatcher = Dispatcher::new(Slot(1));
    let (mailbox, mut deliveries) = mailbox();
    assert_eq!(dispatcher.join(join(5, "a", None, Some(mailbox))), Ok(Slot(1)));
    let held = placed(1, &["a"]);
    dispatcher.dispatch(&held);
    dispatcher.dispatch(&placed(2, &["a"]));
    let mut context = Context::from_waker(std::task::Waker::noop());
    let mut is_there = || match deliveries.poll_next(&mut context) {
        Poll::Ready(Some(handed)) => (handed.slot, handed.placed.upgrade().is_some()),
        other => panic!("{other:?}"),
    };
    assert_eq!(is_there(), (Slot(1), true));
    assert_eq!(is_there(), (Slot(2), false));
    // Nor for a session that joins: it reads the missing segment from the log.
    let gone = Err(JoinError { next: Slot(3) });
    assert_eq!(dispatcher.join(join(6, "a", Some(1), None)), gone);
    assert_eq!(dispatcher.join(join(6, "a", Some(3), None)), Ok(Slot(3)));
}

#[test]
fn a_session_that_gave_its_mailbox_up_joins_with_a_new_one() {
    let mut dispatcher = Dispatcher::new(Slot(1));
    let (first, deliveries) = mailbox();
    assert_eq!(dispatcher.join(join(5, "a", None, Some(first))), Ok(Slot(1)));
    dispatcher.dispatch(&placed(1, &["a"]));
    drop(deliveries);
    let (second, mut deliveries) = mailbox();
    assert_eq!(dispatcher.join(join(5, "a", Some(2), Some(second))), Ok(Slot(2)));
    dispatcher.dispatch(&placed(2, &["a"]));
    assert_eq!(drain(&mut deliveries), (vec![(2, vec![5])], false));
}

/// A session's place moved past its mailbox's contents, which were then skipped when it rejoined.
#[tokio::test]
async fn a_task_that_has_had_its_turn_does_not_take_its_mailbox_for_empty() {
    let mut dispatcher = Dispatcher::new(Slot(1));
    let (mailbox, mut deliveries) = mailbox();
    dispatcher.join(join(5, "a", None, Some(mailbox))).unwrap();
    let only = placed(1, &["a"]);
    assert!(deliveries.is_idle());
    dispatcher.dispatch(&only);
    let (sender, mut others) = mpsc::channel(1_000);
    (0..1_000).for_each(|number| sender.try_send(number).unwrap());
    std::future::poll_fn(|context| {
        while others.poll_recv(context).is_ready() {}
        assert!(deliveries.poll_next(context).is_pending() && !deliveries.is_idle());
        Poll::Ready(())
    })
    .await;
    tokio::task::yield_now().await;
    assert_eq!(drain(&mut deliveries), (vec![(1, vec![5])], false));
    assert!(deliveries.is_idle());
    dispatcher.remove(SessionId(1));
    assert!(!deliveries.is_idle());
}

use proptest::prelude::*;
use vulpes_raft::ids::{Incarnation, SegmentNumber};

use crate::event::{Encoding, Payload, Qos};

use super::*;

fn id() -> AdvanceSegment {
    AdvanceSegment { entry: NodeId(1), incarnation: Incarnation(2), number: SegmentNumber(3) }
}

fn event(topic: &str, args: &[u8]) -> Event {
    Event {
        realm: Realm::new("realm1").unwrap(),
        topic: Topic::from_canonical(topic),
        publisher: SessionId(7),
        client: ClientTag(9),
        exclude_me: true,
        disclose_me: false,
        retain: false,
        qos: Qos::AtLeastOnce,
        payload: Payload::raw(Bytes::copy_from_slice(args)),
        properties: Bytes::new(),
        act: Bytes::new(),
    }
}

fn seal(events: &[Event]) -> SealedBody {
    let mut open = OpenSegment::default();
    for event in events {
        open.push(event).unwrap();
    }
    let size = open.size();
    let sealed = open.seal(id(), Shard(4));
    assert!(sealed.body.len() <= size);
    sealed
}

fn read(segment: &Segment) -> Vec<Event> {
    let event = |stored: StoredEvent| {
        let (realm, topic) = segment.topics()[stored.topic as usize].clone();
        Event {
            realm,
            topic,
            publisher: stored.publisher,
            client: stored.client,
            exclude_me: stored.exclude_me,
            disclose_me: stored.disclose_me,
            retain: stored.retain,
            qos: stored.qos,
            payload: stored.payload,
            properties: stored.properties,
            act: stored.act,
        }
    };
    segment.events().map(event).collect()
}

#[test]
fn golden_bytes() {
    let sealed = seal(&[event("a/b", b"hi")]);
    let mut expected = b"VSG2".to_vec();
    for number in [1u64, 2, 3] {
        expected.extend(number.to_le_bytes());
    }
    expected.extend(4u32.to_le_bytes());
    expected.extend([6, 0, 0, 0b0101, 0, b'h', b'i']);
    expected.extend(b"\x06realm1\x03a/b");
    expected.extend(7u64.to_le_bytes());
    expected.extend(9u64.to_le_bytes());
    for number in [39u32, 1, 1, 1] {
        expected.extend(number.to_le_bytes());
    }
    assert_eq!(sealed.body, expected);
    assert_eq!(sealed.checksum, 1_722_775_211_754_606_578);
}

#[test]
fn the_largest_event_fits_an_empty_segment_and_no_second_one() {
    let mut open = OpenSegment::default();
    let topic = "t".repeat(limits::TOPIC);
    assert_eq!(open.push(&event(&topic, &vec![0; limits::EVENT])), Ok(0));
    assert_eq!(open.push(&event(&topic, &vec![0; limits::EVENT])), Err(SegmentFull));
    let sealed = open.seal(id(), Shard(0));
    assert!(sealed.body.len() <= limits::SEGMENT_BODY);
    assert_eq!(Segment::parse(sealed.body).unwrap().count(), 1);
}

#[test]
fn reading_goes_on_where_it_stopped() {
    let events: Vec<Event> = (0..10u8).map(|n| event("t", &[n])).collect();
    let segment = Segment::parse(seal(&events).body).unwrap();
    let mut first = segment.events();
    first.by_ref().take(4).for_each(drop);
    let rest: Vec<u32> = segment.events_from(first.place()).map(|event| event.offset).collect();
    assert_eq!(rest, [4, 5, 6, 7, 8, 9]);
}

fn any_event() -> impl Strategy<Value = Event> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let payload = (0u8..4, bytes(), bytes()).prop_map(|(tag, args, kwargs)| {
        let encoding = Encoding::from_tag(tag).unwrap();
        let kwargs = if encoding == Encoding::Raw { Bytes::new() } else { kwargs };
        Payload { encoding, args, kwargs }
    });
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0u8..3);
    ("[a-c/]{1,3}", (1u64..5, 0u64..2), flags, payload, bytes(), bytes()).prop_map(
        |(topic, (publisher, client), flags, payload, properties, act)| {
            let (exclude_me, disclose_me, retain, qos) = flags;
            Event {
                realm: Realm::new("r").unwrap(),
                topic: Topic::from_canonical(&topic),
                publisher: SessionId(publisher),
                client: ClientTag(client),
                exclude_me,
                disclose_me,
                retain,
                qos: Qos::from_tag(qos).unwrap(),
                payload,
                properties,
                act,
            }
        },
    )
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(events in proptest::collection::vec(any_event(), 1..50)) {
        let sealed = seal(&events);
        let segment = Segment::parse(sealed.body.clone()).unwrap();
        prop_assert_eq!(segment.id(), id());
        prop_assert_eq!(segment.count(), sealed.count);
        prop_assert_eq!(read(&segment), events);
    }

    #[test]
    fn damaged_bodies_never_panic(
        events in proptest::collection::vec(any_event(), 1..8),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut body = seal(&events).body.to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let short = body[..cut.index(body.len())].to_vec();
        for bytes in [body, short] {
            if let Ok(segment) = Segment::parse(bytes.into()) {
                read(&segment);
            }
        }
    }
}

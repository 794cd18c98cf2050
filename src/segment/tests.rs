use proptest::prelude::*;
use vulpes_raft::ids::{Incarnation, SegmentNumber};

use crate::types::event::{Encoding, Extensions, Field, Payload, Qos, Tag};

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
        extensions: Extensions::default(),
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
            extensions: stored.extensions,
        }
    };
    segment.events().map(event).collect()
}

/// A body with this magic and these bytes of events, between a header and the dictionaries of one topic and publisher.
fn golden(magic: &[u8; 4], events: &[&[u8]]) -> Vec<u8> {
    let mut body = magic.to_vec();
    for number in [1u64, 2, 3] {
        body.extend(number.to_le_bytes());
    }
    body.extend(4u32.to_le_bytes());
    body.extend(events.concat());
    let topics_at = body.len() as u32;
    body.extend(b"\x06realm1\x03a/b");
    body.extend(7u64.to_le_bytes());
    body.extend(9u64.to_le_bytes());
    for number in [topics_at, 1, 1, events.len() as u32] {
        body.extend(number.to_le_bytes());
    }
    body
}

/// An event without extension fields or other rare parts.
const PLAIN: &[u8] = &[6, 0, 0, 0b0101, 0, b'h', b'i'];

/// The same with properties, kwargs, an act and two fields.
const FULL: &[u8] = b"\x15\0\0\xb5\x81\x01\x02\x01\x07pkkA\x01\x01x\xac\x02\x01yhi";

fn full() -> Event {
    let plain = event("a/b", b"hi");
    let fields = [Field { tag: Tag(1), value: b"x" }, Field { tag: Tag(300), value: b"y" }];
    Event {
        payload: Payload { encoding: Encoding::Json, kwargs: "kk".into(), ..plain.payload },
        properties: "p".into(),
        act: "A".into(),
        extensions: Extensions::new(&fields).unwrap(),
        ..plain
    }
}

#[test]
fn golden_bytes() {
    let sealed = seal(&[event("a/b", b"hi")]);
    assert_eq!(sealed.body, golden(b"VSG3", &[PLAIN]));
    let sealed = seal(&[event("a/b", b"hi"), full()]);
    assert_eq!(sealed.body, golden(b"VSG3", &[PLAIN, FULL]));
    let segment = Segment::parse(sealed.body).unwrap();
    assert_eq!(read(&segment), [event("a/b", b"hi"), full()]);
    assert_eq!(segment.withheld(), 1);
}

#[test]
fn bodies_of_the_older_format_are_read() {
    let with_act = b"\x08\0\0\x85\0\x01Ahi";
    let body = golden(b"VSG2", &[PLAIN, with_act]);
    assert_eq!(checksum(&golden(b"VSG2", &[PLAIN])), 1_722_775_211_754_606_578);
    let segment = Segment::parse(body.into()).unwrap();
    let plain = event("a/b", b"hi");
    assert_eq!(read(&segment), [plain.clone(), Event { act: "A".into(), ..plain }]);
    assert_eq!((segment.id(), segment.shard()), (id(), Shard(4)));
    // The older format has no extension fields, and the reader does not guess.
    assert!(Segment::parse(golden(b"VSG2", &[FULL]).into()).is_err());
    assert!(Segment::parse(golden(b"VSG1", &[PLAIN]).into()).is_err());
}

#[test]
fn malformed_fields_and_unknown_forms_are_refused() {
    for bad in [
        // Fields longer than the event, cut short, out of order, and a form with an undefined bit.
        &b"\x05\0\0\x05\x80\x01"[..],
        b"\x06\0\0\x05\x80\x01\x01",
        b"\x09\0\0\x05\x80\x04\x03\0\x01\0",
        b"\x06\0\0\x05\x40hi",
    ] {
        assert!(Segment::parse(golden(b"VSG3", &[bad]).into()).is_err(), "{bad:?}");
    }
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

fn any_extensions() -> impl Strategy<Value = Extensions> {
    let value = proptest::collection::vec(any::<u8>(), 0..30);
    proptest::collection::btree_map(1u32..400, value, 0..4).prop_map(|fields| {
        let fields: Vec<_> =
            fields.iter().map(|(tag, value)| Field { tag: Tag(*tag), value }).collect();
        Extensions::new(&fields).unwrap()
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let payload = (0u8..4, bytes(), bytes()).prop_map(|(tag, args, kwargs)| {
        let encoding = Encoding::from_tag(tag).unwrap();
        let kwargs = if encoding == Encoding::Raw { Bytes::new() } else { kwargs };
        Payload { encoding, args, kwargs }
    });
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0u8..3);
    ("[a-c/]{1,3}", (1u64..5, 0u64..2), flags, payload, bytes(), (bytes(), any_extensions()))
        .prop_map(|(topic, (publisher, client), flags, payload, properties, (act, extensions))| {
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
                extensions,
            }
        })
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
        let mut older = body.clone();
        older[3] = b'2';
        for bytes in [body, short, older] {
            if let Ok(segment) = Segment::parse(bytes.into()) {
                read(&segment);
            }
        }
    }
}

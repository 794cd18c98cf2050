//! Random bytes: nothing panics, nothing is doubled, and frames are cut in one way only.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::packet::publish::Outgoing;
use super::super::packet::{self, complete_prefix, first_complete, FrameError, Incoming, Version};
use super::*;
use crate::types::login::LoginStep;

/// Valid packets of both versions, to be corrupted.
const SOUND: &[&str] = &[
    r#"30 | s"a/b" "payload""#,
    r#"32 | s"a/b" 0007 p[] "payload""#,
    r#"32 | s"a" 0007 p[01 01 02 00000009 03 s"t" 08 s"r" 09 s"c" 26 s"k" s"v"] "x""#,
    r#"33 | s"a" 0007 p[26 s"vulpes-retain" s"true" 26 s"vulpes-when" s"null" 26 s"vulpes-watch" s"true" 26 s"vulpes-will" s"[1]"] "x""#,
    r#"40 | 0001"#,
    r#"40 | 0001 10 p[1f s"why" 26 s"k" s"v"]"#,
    r#"82 | 0001 s"a/b" 01 s"$replay/5/c" 00"#,
    r#"82 | 0001 p[26 s"vulpes-retained" s"true" 26 s"vulpes-filter" s"{}"] s"a/b" 1d s"c" 2a"#,
    r#"82 | 0001 p[0b c801 26 s"vulpes-after" s"5"] s"a/b" 05 s"c" 2a"#,
    r#"a2 | 0001 s"a/b" s"c""#,
    r#"a2 | 0001 p[26 s"k" s"v"] s"a/b" s"c""#,
    "c0 |",
    "e0 | 00 p[11 00000000 1f s\"bye\"]",
    "23 | 0d",
    r#"10 | s"MQTT" 04 f6 000a s"c" s"w" s"x" s"u@r" s"p""#,
    r#"10 | s"MQTT" 05 c6 000a p[11 00000001 21 0001 27 00000100 26 s"k" s"v"] s"c" p[18 00000001 01 01] s"w" s"x" s"u" s"p""#,
    r#"10 | s"MQTT" 05 02 000a p[15 s"m" 16 s"d" 17 01 19 00 22 0001] s"c""#,
];

#[test]
fn frames_are_cut_where_they_end() {
    let table: &[(&str, Result<usize, FrameError>)] = &[
        ("", Ok(0)),
        ("c0", Ok(0)),
        ("c000", Ok(2)),
        ("c000 c0", Ok(2)),
        ("c000 30 03 0001", Ok(2)),
        ("c000 30 03 000161", Ok(7)),
        ("30 80", Ok(0)),
        ("30 8000", Ok(3)),
        ("30 ffff7f", Err(FrameError::TooLarge { size: 2_097_155, limit: 100 })),
        ("30 ffffff", Ok(0)),
        ("30 ffffffff", Err(FrameError::Length)),
        ("c000 30 ffffffff", Ok(2)),
        ("30 62", Ok(0)),
        ("30 63", Err(FrameError::TooLarge { size: 101, limit: 100 })),
    ];
    for (bytes, expected) in table {
        assert_eq!(complete_prefix(&assemble(bytes), 100), *expected, "{bytes}");
    }
}

/// A client with a persistent session.
const KEEPS: &str = r#"10 | s"MQTT" 05 00 0000 p[11 0000003c] s"c""#;

fn spoiled() -> impl Strategy<Value = Vec<u8>> {
    let spoils = vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..4);
    (prop::sample::select(SOUND), spoils).prop_map(|(sound, spoils)| {
        let mut bytes = packets(sound).to_vec();
        for (at, byte, how) in spoils {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes[at] ^= 1 << (byte & 7),
            }
        }
        bytes
    })
}

/// Answers all requests as a well-meaning node would.
fn serve(gate: &mut MqttGate, published: &mut u64) -> bool {
    let mut closed = false;
    while let Some(request) = gate.poll_request() {
        assert!(!closed, "nothing is asked for after Close");
        match request {
            Request::Login(LoginStep::Password(login)) => {
                gate.logged_in(Ok(login::accepted(&login.user, None)));
            }
            Request::Login(step) => panic!("{step:?}"),
            Request::Open { .. } => gate.opened(Ok(())),
            Request::Attach { .. } => {
                resume_line(gate, true, &["9", "3:1,4:7", "a/b@1q1"]);
                gate.opened(Ok(()));
            }
            Request::Resume(_) => {}
            Request::Persist { .. } => gate.noted(true),
            Request::Publish { .. } | Request::Decide(_) => {
                let stored = Stored {
                    position: Position(*published + 1),
                    slot: Slot(1),
                    stamp: Stamp(0),
                    offset: 0,
                };
                // Answered even when the session has ended: the answer is then ignored.
                gate.answered(Answer { first: *published, count: 1, outcome: Ok(stored) });
                gate.decided(*published, Ok(stored));
                *published += 1;
            }
            Request::Subscribe(subscription) => gate.subscribed(subscription.id, Ok(())),
            Request::Unsubscribe(id) => gate.unsubscribed(id),
            Request::Call(_) => unreachable!("MQTT has no calls"),
            Request::Close { .. } => closed = true,
        }
    }
    gate.poll_output();
    closed
}

fn play(connect: &str, inputs: Vec<Vec<u8>>) {
    let mut gate = new_gate();
    let mut published = 0;
    gate.receive(packets(connect), Moment(0));
    for input in inputs {
        gate.receive(Bytes::from(input), Moment(0));
        if serve(&mut gate, &mut published) {
            assert!(gate.close_reason().is_some() || gate.poll_request().is_none());
            return;
        }
        if gate.can_deliver() {
            deliver_line(&mut gate, "change", "a/b q1 by 77 to 1,2,3 \"x\"");
            deliver_line(&mut gate, "cursor", "4 again:7 a/b q1 by 77 to 1,2,3 \"x\"");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..200), open in 0..4usize) {
        let _ = complete_prefix(&bytes, 100);
        play(["", SHORT[0].1, SHORT[1].1, KEEPS][open], vec![bytes]);
    }

    #[test]
    fn spoiled_packets_do_no_harm(inputs in vec(spoiled(), 1..6), open in 0..4usize) {
        play(["", SHORT[0].1, SHORT[1].1, KEEPS][open], inputs);
    }

    #[test]
    fn a_prefix_is_whole_packets(inputs in vec(spoiled(), 1..6), cut in any::<prop::sample::Index>()) {
        let mut bytes = inputs.concat();
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(whole) = complete_prefix(&bytes, 1000) {
            prop_assert!(whole <= bytes.len());
            prop_assert_eq!(complete_prefix(&bytes[..whole], 1000), Ok(whole));
            // One at a time, they are the same packets.
            let mut at = 0;
            while at < whole {
                let one = first_complete(&bytes[at..], 1000).unwrap();
                prop_assert!(one > 0 && at + one <= whole);
                prop_assert_eq!(first_complete(&bytes[at..at + one - 1], 1000), Ok(0));
                at += one;
            }
        }
    }

    #[test]
    fn what_is_sent_can_be_read(
        topic in "[a-zé/]{1,300}",
        payload in vec(any::<u8>(), 0..300),
        properties in prop::sample::select(&["", r#"03 s"t""#, r#"01 00 26 s"k" s"v""#][..]),
        (qos, packet_id) in prop_oneof![
            Just((Qos::AtMostOnce, None)),
            (1..=u16::MAX).prop_map(|id| (Qos::AtLeastOnce, Some(id))),
            (1..=u16::MAX).prop_map(|id| (Qos::ExactlyOnce, Some(id))),
        ],
        v5 in any::<bool>(),
        retain in any::<bool>(),
    ) {
        let version = if v5 { Version::V5 } else { Version::V311 };
        let properties = assemble(properties);
        let outgoing = Outgoing {
            duplicate: retain && packet_id.is_some(),
            retain,
            qos,
            packet_id,
            topic: &topic,
            identifiers: &[],
            properties: &properties,
            payload: &payload,
        };
        let mut bytes = BytesMut::new();
        outgoing.write(version, &mut bytes);
        let bytes = bytes.freeze();
        prop_assert_eq!(outgoing.size(version), bytes.len());
        let frame = packet::frame(&bytes, 0, 10_000).unwrap().unwrap();
        prop_assert_eq!(frame.whole.end, bytes.len());
        let Ok(Incoming::Publish(publish)) = frame.read(&bytes, version) else {
            return Err(TestCaseError::fail("not read"));
        };
        prop_assert_eq!(publish.topic, topic);
        prop_assert_eq!((publish.retain, publish.qos), (retain, qos));
        prop_assert_eq!(&publish.payload[..], &payload[..]);
        prop_assert_eq!(publish.packet_id, packet_id.unwrap_or(0));
        prop_assert_eq!(publish.properties, if v5 { properties } else { Bytes::new() });
    }
}

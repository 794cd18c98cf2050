//! Messages to subscribers.

use super::*;
use crate::types::event::Encoding;

/// Subscriptions 1 (QoS 1, identifier 5), 2 (QoS 0, identifier 200) and 3 (QoS 1, No Local, no identifier).
const THREE: &str = r##"
    in 82 | 0001 p[0b 05] s"a/b" 01; 82 | 0002 p[0b c801] s"a/#" 00; 82 | 0003 p[] s"+/b" 05
    ask subscribe 1 state Exact(Topic(a/b))
    ask subscribe 2 state Parts([Literal("a"), Rest])
    ask subscribe 3 state Parts([One, Literal("b")])
    subscribed 1
    out 90 | 0001 p[] 01
    subscribed 2
    out 90 | 0002 p[] 00
    subscribed 3
    out 90 | 0003 p[] 01
"##;

#[test]
fn an_event_comes_once_for_all_its_subscriptions() {
    check(&format!(
        r#"{OPEN5} {THREE}
        deliver a/b q1 by 1 to 1,2,3 "x"
        out 32 | s"a/b" 0001 p[0b 05 0b c801] "x"
        deliver a/c q1 by 1 to 2 "x"
        out 30 | s"a/c" p[0b c801] "x"
        deliver a/b q2 by 1 to 2,3 "x"
        out 32 | s"a/b" 0002 p[0b c801] "x"
        deliver a/b q0 by 1 to 1,2,3 "x"
        out 30 | s"a/b" p[0b 05 0b c801] "x"
        deliver a/b q1 by 1 to 9 "x""#
    ));
}

/// No Local goes by the client identifier: an earlier session is the client's own, and so is its will.
#[test]
fn no_local_goes_by_client() {
    check(&format!(
        r#"{OPEN5} in 82 | 0001 p[] s"a" 05 s"b" 01
        ask subscribe 1 state Exact(Topic(a))
        ask subscribe 2 state Exact(Topic(b))
        subscribed 1
        subscribed 2
        out 90 | 0001 p[] 0101
        deliver a q1 by 78 to 1 "x"
        retained a q1 by 78 to 1 "x"
        deliver b q0 by 78 to 2 "x"
        out 30 | s"b" p[] "x"
        deliver a q0 by 9 to 1 "x"
        out 30 | s"a" p[] "x""#
    ));
}

#[test]
fn own_messages_come_unless_no_local() {
    check(&format!(
        r#"{OPEN5} {THREE}
        deliver a/b q1 by 77 to 1,3 "x"
        out 32 | s"a/b" 0001 p[0b 05] "x"
        deliver a/b q1 by 77 to 3 "x""#
    ));
    check(&format!(
        r#"{OPEN4} in 82 | 0001 s"a" 00
        ask subscribe 1 state Exact(Topic(a))
        subscribed 1
        out 90 | 0001 00
        deliver a q1 by 77 to 1 "x"
        out 30 | s"a" "x""#
    ));
}

#[test]
fn properties_reach_mqtt_5_only() {
    check(&format!(
        r#"{OPEN5} {THREE}
        deliver a/c q0 by 1 to 2 "x" with 03 s"t"
        out 30 | s"a/c" p[0b c801 03 s"t"] "x""#
    ));
    check(&format!(
        r#"{OPEN4} in 82 | 0001 s"a" 00
        ask subscribe 1 state Exact(Topic(a))
        subscribed 1
        out 90 | 0001 00
        deliver a q0 by 1 to 1 "x" with 03 s"t"
        out 30 | s"a" "x""#
    ));
}

#[test]
fn the_window_holds_events_back() {
    check(
        r#"in 10 | s"MQTT" 05 02 0000 p[21 0002] s"c"
        ask $ASK
        full
        opened
        out $CONNACK5
        in 82 | 0001 p[] s"a" 01
        ask subscribe 1 state Exact(Topic(a))
        subscribed 1
        out 90 | 0001 p[] 01
        deliver a q1 by 1 to 1 "1"
        out 32 | s"a" 0001 p[] "1"
        room
        deliver a q1 by 1 to 1 "2"
        out 32 | s"a" 0002 p[] "2"
        full
        in 40 | 0003; 40 | ffff
        full
        in 40 | 0002
        room
        deliver a q1 by 1 to 1 "3"
        out 32 | s"a" 0002 p[] "3"
        full
        in 40 | 0001 10; 40 | 0002 80 p[1f s"no"]
        room
        deliver a q1 by 1 to 1 "4"
        out 32 | s"a" 0001 p[] "4""#,
    );
}

#[test]
fn what_a_client_has_no_room_for_is_dropped_and_counted() {
    check(
        r#"in 10 | s"MQTT" 05 02 0000 p[27 00000023] s"c"
        ask $ASK
        opened
        out $CONNACK5
        in 82 | 0001 p[] s"a" 01
        ask subscribe 1 state Exact(Topic(a))
        subscribed 1
        out 90 | 0001 p[] 01
        deliver a q1 by 1 to 1 "123456789012345678901234567"
        out 32 | s"a" 0001 p[] "123456789012345678901234567"
        deliver a q1 by 1 to 1 "1234567890123456789012345678"
        oversized 1
        deliver a q1 by 1 to 1 "3"
        out 32 | s"a" 0002 p[] "3"
        in e0 |
        ask close dropping the will
        oversized 1"#,
    );
}

#[test]
fn payloads_of_wamp_publishers_are_turned_into_json() {
    let mut gate = new_gate();
    gate.receive(packets(SHORT[0].1), Moment(0));
    gate.opened(Ok(()));
    gate.receive(packets(r#"82 | 0001 s"a" 01"#), Moment(0));
    gate.subscribed(SubscriptionId(1), Ok(()));
    gate.poll_output();
    let table: &[(&[u8], &str)] = &[(b"[]", ""), (b"[17]", "17"), (b"[1,null]", "[1,null]")];
    for (args, expected) in table {
        let payload = Payload {
            encoding: Encoding::Json,
            args: Bytes::from_static(args),
            kwargs: Bytes::new(),
        };
        deliver_payload(&mut gate, payload);
        let sent = gate.poll_output().unwrap();
        assert_eq!(&sent[7..], expected.as_bytes());
    }
}

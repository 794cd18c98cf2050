//! QoS 2, both ways.

use super::*;
use crate::types::limits;

/// A new persistent session.
const PERSISTENT: &str = r#"in 10 | s"MQTT" 05 00 0000 p[11 0000003c] s"c"
    ask attach realm="home" client="c" for 60
    keeps
    opened
    ask resume
    out $CONNACK5
"#;

#[test]
fn a_publish_is_received_once_and_then_complete() {
    check(&format!(
        r#"{OPEN4} in 34 | s"a" 0007 "x"; 3c | s"a" 0007 "x"
        ask publish a q2 x
        stored 0 1
        out 50 | 0007
        in 3c | s"a" 0007 "x"
        out 50 | 0007
        in 62 | 0007
        out 70 | 0007
        in 62 | 0007
        out 70 | 0007
        in 34 | s"a" 0007 "y"
        ask publish a q2 y
        stored 1 1
        out 50 | 0007"#
    ));
    check(&format!(
        r#"{OPEN5} in 34 | s"a" 0007 p[] "x"; 32 | s"a" 0008 p[] "y"
        ask publish a q2 x
        ask publish a q1 y
        stored 0 2
        out 50 | 0007; 40 | 0008
        in 62 | 0007 00 p[]
        out 70 | 0007
        in 62 | 0009
        out 70 | 0009 92"#
    ));
}

#[test]
fn a_refused_publish_ends_its_exchange() {
    let text = "PUBLISH: topics that begin with wamp, $SYS, $share, $replay or $snapshot are the router's own";
    check(&format!(
        r#"{OPEN5} in 34 | s"a" 0001 p[] "x"; 34 | s"wamp" 0002 p[] "x"; 34 | s"b" 0003 p[] "x"
        ask publish a q2 x
        ask publish b q2 x
        stored 0 1
        out 50 | 0001; 50 | 0002 90 p[1f s"{text}"]
        in 62 | 0002
        out 70 | 0002 92
        stored 1 1
        out 50 | 0003
        in 34 | s"a" 0002 p[] "y"
        ask publish a q2 y
        unknown 2 1
        out e0 | 89 p[1f s"no quorum answered in time; the message may or may not be stored"]
        ask close
        reason no quorum answered in time; the message may or may not be stored"#
    ));
}

#[test]
fn a_publish_of_a_persistent_session_is_decided_in_the_order() {
    check(&format!(
        r#"{PERSISTENT} in 34 | s"a" 0007 p[] "x"; 34 | s"b" 0008 p[] "y"; 34 | s"wamp" 0009 p[]
        ask publish a q2 x once 7
        ask publish b q2 y once 8
        stored 0 2
        decided 1 11
        decided 0 10
        out 50 | 0007; 50 | 0008; 50 | 0009 90 p[1f s"PUBLISH: topics that begin with wamp, $SYS, $share, $replay or $snapshot are the router's own"]
        in 62 | 0007
        ask complete 7
        in 62 | 0007
        stored 2 1
        decided 2 12
        out 70 | 0007
        in 62 | 0007
        out 70 | 0007 92
        in 34 | s"a" 0007 p[] "z"
        ask publish a q2 z once 7
        stored 3 1
        sessionended 3
        out 50 | 0007 80 p[1f s"the session has ended"]"#
    ));
}

/// What an earlier connection's PUBREC was to say is said again before anything can refuse it: a refusal would free the
/// identifier for another message, which all nodes would take for this one.
#[test]
fn what_earlier_connections_published_is_received_whatever_holds_now() {
    check(
        r#"in 10 | s"MQTT" 05 00 0000 p[11 0000003c] s"c"
        ask attach realm="home" client="c" for 60
        resume 20 - received:1 received:2
        opened
        ask resume
        out 20 | 0100 p[21 2000 27 00108000 22 0000 2801 2901 2a00]
        in 3c | s"wamp" 0001 p[] "x"
        out 50 | 0001
        in 62 | 0001; 62 | 0002; 62 | 0003
        ask complete 1
        ask complete 2
        out 70 | 0003 92
        stored 0 2
        decided 0 30
        out 70 | 0001
        decided 1 31
        out 70 | 0002
        in 34 | s"a" 0001 p[] "new"
        ask publish a q2 new once 1
        stored 2 1
        decided 2 32
        out 50 | 0001"#,
    );
}

/// A publish may wait for a lock for hours.
#[test]
fn publishes_overtake_one_that_waits() {
    check(&format!(
        r#"{OPEN5} in 35 | s"l" 0001 p[26 s"vulpes-when" s"null" 26 s"vulpes-watch" s"true"] "1"; 34 | s"a" 0002 p[] "2"
        ask publish l q2 1 retain when null watch
        ask publish a q2 2
        stored 0 2
        out 50 | 0002
        in 62 | 0002
        out 70 | 0002
        decided 0 9
        out 50 | 0001
        in 62 | 0001
        out 70 | 0001"#
    ));
}

#[test]
fn violations_of_an_exchange_end_the_connection() {
    check(&format!(
        r#"{OPEN5} in 34 | s"a" 0001 p[] "x"; 62 | 0001
        ask publish a q2 x
        out e0 | 82 p[1f s"a PUBREL before its PUBREC"]
        ask close
        reason a PUBREL before its PUBREC"#
    ));
    check(&format!(
        r#"{PERSISTENT} in 34 | s"a" 0001 p[] "x"
        ask publish a q2 x once 1
        stored 0 1
        decided 0 10
        out 50 | 0001
        in 62 | 0001; 34 | s"a" 0001 p[] "x"
        ask complete 1
        out e0 | 82 p[1f s"a packet identifier is used again before its PUBCOMP"]
        ask close
        reason a packet identifier is used again before its PUBCOMP"#
    ));
}

/// A session of MQTT 3.1.1 whose earlier connections left this many exchanges.
fn resumed_with(received: usize) -> MqttGate {
    let mut gate = new_gate();
    gate.receive(packets(r#"10 | s"MQTT" 04 00 0000 s"c""#), Moment(0));
    gate.resume(Resumed {
        present: true,
        in_flight: Vec::new(),
        received: (1..=received as u16).collect(),
        filters: Vec::new(),
        back_at: Position(1),
    });
    gate.opened(Ok(()));
    gate
}

/// The Receive Maximum counts exchanges until their PUBCOMP, also for clients that have not heard of it.
#[test]
fn exchanges_are_limited() {
    for (version, properties) in [("04", ""), ("05", "p[]")] {
        let mut gate = new_gate();
        let connect = format!(r#"10 | s"MQTT" {version} 02 0000 {properties} s"c""#);
        gate.receive(packets(&connect), Moment(0));
        gate.opened(Ok(()));
        let publish = |id: usize| packets(&format!(r#"34 | s"a" {id:04x} {properties}"#));
        for id in 1..=limits::SESSION_UNANSWERED {
            gate.receive(publish(id), Moment(0));
            let stored =
                Stored { position: Position(1), slot: Slot(1), stamp: Stamp(0), offset: 0 };
            gate.answered(Answer { first: id as u64 - 1, count: 1, outcome: Ok(stored) });
        }
        gate.receive(packets("62 | 0001"), Moment(0));
        gate.receive(publish(1), Moment(0));
        assert_eq!(gate.close_reason(), None);
        gate.receive(publish(limits::SESSION_UNANSWERED + 1), Moment(0));
        let reason = gate.close_reason().unwrap();
        assert!(reason.contains("Receive Maximum"), "{reason}");
    }
    // Publishes of QoS 1 do not count in MQTT 3.1.1, and exchanges of earlier connections never do.
    for mut gate in [new_gate(), resumed_with(limits::SESSION_UNANSWERED)] {
        if gate.poll_request().is_none() {
            gate.receive(packets(r#"10 | s"MQTT" 04 02 0000 s"c""#), Moment(0));
            gate.opened(Ok(()));
            for id in 1..=limits::SESSION_UNANSWERED {
                gate.receive(packets(&format!(r#"32 | s"a" {id:04x}"#)), Moment(0));
            }
        }
        gate.receive(packets(r#"34 | s"a" ffff"#), Moment(0));
        assert_eq!(gate.close_reason(), None);
    }
}

#[test]
fn a_message_is_sent_once_until_it_is_complete() {
    let subscribe = r#"in 82 | 0001 p[] s"a" 02
        ask subscribe 1 state Exact(Topic(a))
        subscribed 1
        out 90 | 0001 p[] 02"#;
    check(&format!(
        r#"{OPEN5} {subscribe}
        deliver a q2 by 1 to 1 "x"
        out 34 | s"a" 0001 p[] "x"
        deliver a q1 by 1 to 1 "y"
        out 32 | s"a" 0002 p[] "y"
        in 50 | 0001
        out 62 | 0001
        in 50 | 0001; 40 | 0001; 40 | 0002
        out 62 | 0001
        in 70 | 0001; 70 | 0001
        in 50 | 0005
        out 62 | 0005 92
        # The client has failed.
        deliver a q2 by 1 to 1 "z"
        out 34 | s"a" 0003 p[] "z"
        in 50 | 0003 83 p[]; 50 | 0003 83; 70 | 0003
        leaves"#
    ));
    check(&format!(
        r#"{OPEN4} in 82 | 0001 s"a" 02
        ask subscribe 1 state Exact(Topic(a))
        subscribed 1
        out 90 | 0001 02
        retained a q2 by 1 to 1 "x"
        out 35 | s"a" 0001 "x"
        in 50 | 0009
        out 62 | 0009"#
    ));
    // A persistent session is granted QoS 1.
    check(&format!(
        r#"{PERSISTENT} in 82 | 0001 p[] s"a" 02
        ask persist a q1 as 1 state
        noted
        out 90 | 0001 p[] 01"#
    ));
}

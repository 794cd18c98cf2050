//! From CONNECT to the session's end.

use super::*;
use crate::gate::details;
use crate::types::limits;

#[test]
fn sessions_open_and_end() {
    check(&format!(
        "{OPEN4} room \n in e0 | \n ask close dropping the will \n reason none \n full"
    ));
    check(&format!("{OPEN5} in e0 | \n ask close dropping the will \n reason none"));
    check(&format!("{OPEN5} in e0 | 04 \n ask close \n reason none"));
    check(&format!("{OPEN5} in e0 | 00 p[11 00000000] \n ask close dropping the will"));
    check(&format!(
        "{OPEN5} in e0 | 81 p[1f s\"oh\"] \n ask close
        reason the client disconnected with reason 0x81"
    ));
    // Input after a DISCONNECT is ignored.
    check(&format!("{OPEN4} in e0 | ; 30 | s\"a\" \n ask close dropping the will \n in c0 |"));
}

#[test]
fn a_client_is_asked_for_by_realm_and_name() {
    check(
        r#"in 10 | s"MQTT" 04 c2 0000 s"c" s"joe@home.lab" s"secret"
           ask open realm="home.lab" client="c"
           opened
           out $CONNACK4
           deadline none"#,
    );
    // A password may be any bytes; in MQTT 5 it may come without a user name.
    check(
        r#"in 10 | s"MQTT" 05 42 0000 p[] s"c" 0002 ff00
           ask open realm="home" client="c"
           opened
           out $CONNACK5"#,
    );
    check(
        r#"in 10 | s"MQTT" 04 c2 0000 s"c" s"a@b@c" 0001 ff
           ask open realm="c" client="c"
           norealm
           out 20 | 0004
           ask close
           reason c: no such realm"#,
    );
    check(
        r#"in 10 | s"MQTT" 05 02 0000 p[] s"c"
           ask $ASK
           busy
           out 20 | 0089 p[1f s"home: this node has as many connections as it takes"]
           ask close"#,
    );
}

#[test]
fn a_session_that_can_not_be_opened_now_is_turned_away() {
    check(
        r#"in 10 | s"MQTT" 05 02 0000 p[] s"c"
           ask $ASK
           nonode
           out 20 | 0088 p[1f s"home: no quorum answers right now; try again, or at another node"]
           ask close"#,
    );
    check("in $CONNECT4 \n ask $ASK \n nonode \n out 20 | 0003 \n ask close");
}

/// CONNECTs, and the `authid` and protocol that others are shown.
#[test]
fn a_session_is_described_to_others() {
    for (connect, authid, protocol) in [
        (r#"10 | s"MQTT" 04 02 000a s"c""#, "c", "mqtt.3.1.1"),
        (r#"10 | s"MQTT" 05 02 000a p[] s"c""#, "c", "mqtt.5"),
        (r#"10 | s"MQTT" 05 02 000a p[] s"""#, "vulpes-77", "mqtt.5"),
        (r#"10 | s"MQTT" 04 82 000a s"c" s"joe""#, "joe", "mqtt.3.1.1"),
        (r#"10 | s"MQTT" 04 82 000a s"c" s"joe@home""#, "joe", "mqtt.3.1.1"),
        (r#"10 | s"MQTT" 04 82 000a s"c" s"@home""#, "c", "mqtt.3.1.1"),
        (r#"10 | s"MQTT" 04 82 000a s"c" s"bob@example.com""#, "bob@example.com", "mqtt.3.1.1"),
        (r#"10 | s"MQTT" 04 82 000a s"c" s"bob@example.com@c""#, "bob@example.com", "mqtt.3.1.1"),
        (r#"10 | s"MQTT" 04 82 000a s"c" s"joe@bad realm""#, "joe@bad realm", "mqtt.3.1.1"),
        (r#"10 | s"MQTT" 04 82 000a s"c" s"joe@""#, "joe@", "mqtt.3.1.1"),
        (r#"10 | s"MQTT" 04 82 000a s"c" s"home""#, "home", "mqtt.3.1.1"),
    ] {
        let mut gate = new_gate();
        gate.receive(packets(connect), Moment(0));
        let Some(Request::Open { join, .. }) = gate.poll_request() else { panic!("{connect}") };
        let expected = format!(
            r#"{{"authid":"{authid}","authmethod":"anonymous","authprovider":"static","authrole":"anonymous","session":77,"transport":{{"protocol":"{protocol}","type":"tcp"}}}}"#
        );
        assert_eq!(join.details, expected, "{connect}");
    }
}

#[test]
fn clients_without_a_name_get_one() {
    check(
        r#"in 10 | s"MQTT" 05 02 0000 p[11 0000003c] s""
           ask attach realm="home" client="vulpes-77" clean for 60
           opened
           out 20 | 0000 p[11 00000000 21 2000 27 00108000 12 s"vulpes-77" 22 0000 2801 2901 2a00]"#,
    );
    check(
        r#"in 10 | s"MQTT" 04 02 0000 s""
           ask open realm="home" client="vulpes-77"
           opened
           out $CONNACK4"#,
    );
}

/// The client's largest packet is too small for any refusal.
#[test]
fn a_refusal_that_the_client_does_not_take_is_its_end() {
    check(
        r#"in 10 | s"MQTT" 05 02 0000 p[15 s"m" 27 00000004] s"c"
           ask close dropping the will
           deadline none"#,
    );
}

/// Bodies of CONNECTs, and the CONNACK to each.
fn check_refused(table: &[(&str, &str)]) {
    for (connect, connack) in table {
        check(&format!("in 10 | {connect} \n out {connack} \n ask close \n deadline none"));
    }
}

#[test]
fn what_is_not_available_is_refused() {
    check_refused(&[
        // Unsupported versions, refused in a form that such a client can read, bridge or not.
        (r#"s"MQIsdp" 02 02 0000 s"c""#, "20 | 0001"),
        (r#"s"MQIsdp" 04 02 0000 s"c""#, "20 | 0001"),
        (r#"s"MQIsdp" 84 02 0000 s"c""#, "20 | 0001"),
        (r#"s"MQTT" 03 02 0000 s"c""#, "20 | 0001"),
        (r#"s"MQTT" 83 02 0000 s"c""#, "20 | 0001"),
        (r#"s"MQTT" 80 02 0000 s"c""#, "20 | 0001"),
        (
            r#"s"MQTT" 06 02 0000 00 s"c""#,
            r#"20 | 0084 p[1f s"MQTT protocol level 6 is not supported: use 3, 4 or 5"]"#,
        ),
        (
            r#"s"MQTT" 86 02 0000 00 s"c""#,
            r#"20 | 0084 p[1f s"MQTT protocol level 134 is not supported: use 3, 4 or 5"]"#,
        ),
        (r#"s"MQIsdp" 03 02 0000 s"""#, "20 | 0002"),
        (r#"s"HTTP" 04 02 0000 s"c""#, ""),
        (r#"s"MQTT""#, ""),
        ("", ""),
        (r#"s"MQTT" 04 00 0000 s"""#, "20 | 0002"),
        (
            r#"s"MQTT" 05 02 0000 p[15 s"SCRAM" 16 s"x"] s"c""#,
            r#"20 | 008c p[1f s"this cluster has no users: leave out the authentication method"]"#,
        ),
    ]);
}

#[test]
fn names_are_as_long_as_mqtt_has_them() {
    let long = "x".repeat(limits::MQTT_TEXT);
    // The largest CONNECT without properties: with a will, a user name and a password.
    for (protocol, properties) in [("04", ""), ("05", "p[]")] {
        let connack = if properties.is_empty() { "$CONNACK4" } else { "$CONNACK5" };
        let connect = format!(
            r#"s"MQTT" {protocol} c6 0000 {properties} s"{long}" {properties} s"w" s"{long}" s"{long}" s"{long}""#
        );
        check(&format!(
            "in 10 | {connect} \n ask open realm=\"home\" client=\"{long}\" will w q0 {long} \n opened \n out {connack}"
        ));
    }
    // A name may be all escapes in JSON.
    let escapes = "\u{1}".repeat(limits::MQTT_TEXT);
    let mut gate = new_gate();
    gate.receive(packets(&format!("10 | s\"MQTT\" 04 82 0000 s\"c\" s\"{escapes}\"")), Moment(0));
    let Some(Request::Open { join, .. }) = gate.poll_request() else { panic!("taken") };
    assert!(join.details.len() < 6 * limits::MQTT_TEXT + details::BESIDE_AUTHID);
}

/// A mosquitto bridge tries level 0x84 first, and 0x83 if it was configured for 3.1.
#[test]
fn older_versions_and_bridges_are_taken() {
    for (connect, protocol) in [
        (r#"s"MQIsdp" 03 02 000a s"c""#, "mqtt.3.1"),
        (r#"s"MQIsdp" 83 02 000a s"c""#, "mqtt.3.1"),
        (r#"s"MQTT" 84 02 000a s"c""#, "mqtt.3.1.1"),
        (r#"s"MQTT" 85 02 000a p[] s"c""#, "mqtt.5"),
    ] {
        let mut gate = new_gate();
        gate.receive(packets(&format!("10 | {connect}")), Moment(0));
        let Some(Request::Open { join, .. }) = gate.poll_request() else { panic!("{connect}") };
        assert!(join.details.contains(&format!("{protocol:?}")), "{}", join.details);
        gate.opened(Ok(()));
        let connack = if protocol == "mqtt.5" { SHORT[3].1 } else { SHORT[2].1 };
        assert_eq!(gate.poll_output(), Some(packets(connack)), "{connect}");
    }
    // Everything else in such a CONNECT is read in the same way.
    check(
        r#"in 10 | s"MQIsdp" 83 c6 0000 s"c" s"a" s"gone" s"joe" s"pw"
           ask $ASK will a q0 gone
           opened
           out $CONNACK4
           in 32 | s"a" 0001 "x"; c0 |
           ask publish a q1 x
           out d0 |
           stored 0 1
           out 40 | 0001
           in e0 |
           ask close dropping the will"#,
    );
}

/// Before MQTT 5, a CONNACK with code 5, "not authorized", is the only answer: a closed connection alone would give no reason.
#[test]
fn a_will_that_can_not_be_is_refused_in_words() {
    check_refused(&[
        (r#"s"MQTT" 04 06 0000 s"c" s"wamp/x" s"x""#, "20 | 0005"),
        (r#"s"MQIsdp" 03 06 0000 s"c" s"a/#" s"x""#, "20 | 0005"),
    ]);
}

#[test]
fn connects_not_as_the_protocol_says_are_refused() {
    check_refused(&[
        (r#"s"MQTT" 04 03 0000 s"c""#, ""),
        (r#"s"MQTT" 04 42 0000 s"c" s"pw""#, ""),
        (r#"s"MQTT" 04 0a 0000 s"c""#, ""),
        (r#"s"MQTT" 04 1e 0000 s"c" s"w" s"x""#, ""),
        (r#"s"MQTT" 04 02 0000 s"c" 00"#, ""),
        (r#"s"MQTT" 04 02 0000 0001 ff"#, ""),
        (r#"s"MQTT" 04 02 0000 0005 "c""#, ""),
        (r#"s"MQTT" 04 02 00"#, ""),
        (
            r#"s"MQTT" 05 02 0000 p[] s"c" 00"#,
            r#"20 | 0081 p[1f s"bytes are left over after the packet's last field"]"#,
        ),
        (
            r#"s"MQTT" 05 02 0000 p[01 00] s"c""#,
            r#"20 | 0081 p[1f s"a property that the packet can't have"]"#,
        ),
        (
            r#"s"MQTT" 05 02 0000 p[11 00000000 11 00000000] s"c""#,
            r#"20 | 0082 p[1f s"a property is given twice"]"#,
        ),
        (
            r#"s"MQTT" 05 02 0000 p[21 0000] s"c""#,
            r#"20 | 0082 p[1f s"a property that must not be 0 is 0"]"#,
        ),
        (
            r#"s"MQTT" 05 02 0000 p[27 00000000] s"c""#,
            r#"20 | 0082 p[1f s"a property that must not be 0 is 0"]"#,
        ),
        (
            r#"s"MQTT" 05 02 0000 p[17 02] s"c""#,
            r#"20 | 0082 p[1f s"a property that is 0 or 1 has another value"]"#,
        ),
        (
            r#"s"MQTT" 05 02 0000 p[16 s"x"] s"c""#,
            r#"20 | 0082 p[1f s"authentication data without a method"]"#,
        ),
        (
            r#"s"MQTT" 05 02 0000 p[26 s"k" 0003 "v"] s"c""#,
            r#"20 | 0081 p[1f s"a field reaches beyond the packet's end"]"#,
        ),
        (
            r#"s"MQTT" 05 02 0000 8000 s"c""#,
            r#"20 | 0081 p[1f s"a variable byte integer is not in its shortest form"]"#,
        ),
        // A reason string that does not fit into the client's maximum packet size is left out.
        (r#"s"MQTT" 05 02 0000 p[15 s"m" 27 00000005] s"c""#, "20 | 008c p[]"),
    ]);
}

#[test]
fn connect_comes_first_and_once() {
    for first in ["c0 |", "30 | s\"a\"", "e0 |", "f0 |", "00 |", "20 | 0000"] {
        check(&format!("in {first} \n ask close \n reason the first packet is not a CONNECT"));
    }
    check(&format!("{OPEN4} in $CONNECT4 \n ask close \n reason a second CONNECT"));
    check(&format!("{OPEN5} in $CONNECT5 \n out e0 | 82 p[1f s\"a second CONNECT\"] \n ask close"));
    // Also if the first one is not answered yet.
    check(
        "in $CONNECT4; $CONNECT4 \n ask $ASK \n opened \n out $CONNACK4 \n ask close
         reason a second CONNECT",
    );
}

#[test]
fn a_client_need_not_wait_for_its_connack() {
    check(
        r#"in $CONNECT4; c0 |
           ask $ASK
           in 32 | s"a" 0001 "x"
           opened
           out $CONNACK4; d0 |
           ask publish a q1 x"#,
    );
    // If it is refused, no part of it counts.
    check(
        r#"in $CONNECT4; 30 | s"a" "x"
           ask $ASK
           norealm
           out 20 | 0004
           ask close"#,
    );
}

#[test]
fn what_is_held_before_the_connack_has_a_limit() {
    let mut gate = new_gate();
    gate.receive(packets("10 | s\"MQTT\" 04 02 0000 s\"c\""), Moment(0));
    assert!(gate.poll_request().is_some());
    let ping = packets("30 | s\"a\"").repeat(100_000);
    for _ in 0..20 {
        gate.receive(Bytes::from(ping.clone()), Moment(0));
    }
    assert_eq!(gate.poll_request(), Some(Request::Close { drop_will: true }));
    assert_eq!(gate.poll_output(), Some(packets("20 | 0003")));
    assert_eq!(
        gate.close_reason(),
        Some("too much was sent before the CONNECT was answered"),
        "20 times 500 kB"
    );
}

#[test]
fn time_runs_out() {
    check("deadline 10000 \n at 9999 \n tick \n at 10000 \n tick \n ask close \n deadline none");
    check(
        r#"in $CONNECT5
           ask $ASK
           deadline 10000
           at 10000
           tick
           out 20 | 0088 p[1f s"home: no quorum answers right now; try again, or at another node"]
           ask close"#,
    );
    // Ten seconds of keep-alive, so fifteen of silence.
    check(&format!(
        "at 5
         {OPEN5} deadline 5
         at 100
         tick
         deadline 15100
         at 15000
         in c0 |
         out d0 |
         deadline 30000
         at 29999
         tick
         at 30000
         tick
         out e0 | 8d p[1f s\"nothing came for one and a half times the keep-alive interval\"]
         ask close"
    ));
    // A client that reads its backlog, or whose input is not read, is alive: the driver says so.
    check(&format!(
        "{OPEN4} in 30 | s\"a\"
         ask publish a q0 \n at 15000 \n alive \n tick \n deadline 30000
         stored 0 1 \n at 30000 \n tick \n ask close"
    ));
}

#[test]
fn the_node_ends_sessions() {
    let table = [
        ("shutdown", "8b", "the node is shutting down"),
        ("takenover", "8e", "another connection took the session over"),
        ("unanswerable", "89", "a message stays unanswered; it may or may not be stored"),
        ("tooslow", "89", "a large message came too slowly while others waited"),
        ("leaselost", "89", "the node lost its lease; the session is over everywhere"),
        ("fellbehind", "83", "the log is kept only from position 7 on"),
    ];
    for (word, code, text) in table {
        check(&format!("{OPEN5} {word} \n out e0 | {code} p[1f s\"{text}\"] \n ask close"));
        check(&format!("{OPEN4} {word} \n ask close \n reason {text} \n {word}"));
        check(&format!("{word} \n ask close \n opened"));
        check(&format!("in $CONNECT4 \n ask $ASK \n {word} \n out 20 | 0003 \n ask close"));
    }
    check(
        r#"in $CONNECT5
           ask $ASK
           takenover
           out 20 | 0088 p[1f s"another connection took the session over"]
           ask close
           opened"#,
    );
}

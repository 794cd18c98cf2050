//! Publishes of clients, and their answers.

use super::*;
use crate::types::limits;

#[test]
fn publishes_become_events_and_are_answered_in_order() {
    check(&format!(
        r#"{OPEN4} in 30 | s"a/b" "zero"; 32 | s"a/b" 0007 "one"; 3a | s"c" 0008
        ask publish a/b q0 zero
        ask publish a/b q1 one
        ask publish c q1
        stored 0 1
        stored 1 2
        out 40 | 0007; 40 | 0008"#
    ));
    check(&format!(
        r#"{OPEN5} in 32 | s"a" 0007 p[] "one"; 30 | s"a" p[] "two"; 32 | s"a" ffff p[] "x"
        ask publish a q1 one
        ask publish a q0 two
        ask publish a q1 x
        stored 0 3
        out 40 | 0007; 40 | ffff"#
    ));
    // The same identifier again, unanswered, is a new message.
    check(&format!(
        r#"{OPEN5} in 32 | s"a" 0007 p[] "1"; 3a | s"a" 0007 p[] "1"
        ask publish a q1 1
        ask publish a q1 1
        stored 0 2
        out 40 | 0007; 40 | 0007"#
    ));
}

#[test]
fn the_routers_own_topics_are_refused() {
    let text = "PUBLISH: topics that begin with wamp, $SYS, $share, $replay or $snapshot are the router's own";
    check(&format!(
        r#"{OPEN5} in 32 | s"wamp/session/on_join" 0001 p[] "1"; 32 | s"wampx" 0002 p[] "2"
        out 40 | 0001 90 p[1f s"{text}"]
        ask publish wampx q1 2"#
    ));
    check(&format!(
        r#"{OPEN5} in 30 | s"wamp" p[] "1"
        out e0 | 90 p[1f s"{text}"]
        ask close"#
    ));
    check(&format!(
        r#"{OPEN4} in 32 | s"wamp/a" 0001 "1"
        ask close
        reason {text}"#
    ));
}

#[test]
fn nobody_publishes_where_the_router_says_something_or_nobody_does() {
    let text = format!("PUBLISH: {}", crate::types::topic::ROUTERS_OWN_TEXT);
    for topic in [
        "$SYS/broker/uptime",
        "$SYS",
        "$share/g/a",
        "$replay/0/a",
        "$snapshot/a",
        "$SYS/broker/connection/a/b/state",
        "$SYS/broker/connection/state",
    ] {
        check(&format!(
            r#"{OPEN5} in 32 | s"{topic}" 0001 p[] "1"
            out 40 | 0001 90 p[1f s"{text}"]"#
        ));
        check(&format!("{OPEN4} in 32 | s\"{topic}\" 0001 \n ask close \n reason {text}"));
    }
    // A mosquitto bridge announces here that it is connected; its will announces that it is not.
    check(
        r#"in 10 | s"MQTT" 84 2e 000a s"c" s"$SYS/broker/connection/b.c/state" s"0"
        ask $ASK will $SYS/broker/connection/b.c/state q1 0 retain
        opened
        out $CONNACK4
        in 33 | s"$SYS/broker/connection/b.c/state" 0001 "1"; 30 | s"$other/a" "x"
        ask publish $SYS/broker/connection/b.c/state q1 1 retain
        ask publish $other/a q0 x
        stored 0 2
        out 40 | 0001"#,
    );
}

#[test]
fn unknown_outcomes_end_the_connection_unacknowledged() {
    let unknown = "no quorum answered in time; the message may or may not be stored";
    check(&format!(
        r#"{OPEN5} in 32 | s"a" 0001 p[] "1"; 32 | s"a" 0002 p[] "2"
        ask publish a q1 1
        ask publish a q1 2
        unknown 0 2
        out e0 | 89 p[1f s"{unknown}"]
        ask close"#
    ));
    check(&format!(
        r#"{OPEN4} in 32 | s"a" 0001 "1"
        ask publish a q1 1
        unknown 0 1
        ask close
        reason {unknown}"#
    ));
    // QoS 0 has no answer.
    check(&format!(
        r#"{OPEN4} in 30 | s"a" "1"; 32 | s"a" 0001 "2"
        ask publish a q0 1
        ask publish a q1 2
        unknown 0 1
        stored 1 1
        out 40 | 0001"#
    ));
    let lost = "this node lost its lease; the message was not stored";
    check(&format!(
        r#"{OPEN5} in 32 | s"a" 0001 p[] "1"
        ask publish a q1 1
        lost 0 1
        out 40 | 0001 80 p[1f s"{lost}"]"#
    ));
    check(&format!(
        r#"{OPEN4} in 32 | s"a" 0001 "1"
        ask publish a q1 1
        lost 0 1
        ask close
        reason {lost}"#
    ));
}

#[test]
fn properties_go_on_as_they_came() {
    let persistent = r#"01 01 03 s"text/plain" 08 s"re/ply" 09 s"id" 26 s"k" s"v" 26 s"k" s"w""#;
    check(&format!(
        r#"{OPEN5} in 30 | s"a" p[{persistent}] "x"
        ask publish a q0 x with {}"#,
        hex(&assemble(persistent))
    ));
    // The expiry interval is not obeyed, and so not shown.
    check(&format!(
        r#"{OPEN5} in 30 | s"a" p[03 s"t" 02 00000005 26 s"k" s"v"] "x"
        ask publish a q0 x with {}"#,
        hex(&assemble(r#"03 s"t" 26 s"k" s"v""#))
    ));
    check(&format!("{OPEN5} in 30 | s\"a\" p[02 00000005] \"x\" \n ask publish a q0 x"));
    check(&format!(
        r#"{OPEN5} in 30 | s"a" p[26 s"vulpes-exclude_me" s"true" 26 s"vulpes-disclose_me" s"true"] "x"
        ask publish a q0 x exclude_me disclose"#
    ));
}

/// Names that look like options, from an application that does not know us: passed on in order, and ignored.
const FOREIGN: &str = r#"26 s"when" s"noon" 26 s"will" s"{" 26 s"retain" s"yes" 26 s"filter" s"" 26 s"after" s"x"
    26 s"match" s"prefix" 26 s"exclude" s"[1]" 26 s"exclude_me" s"true" 26 s"watch" s"true" 26 s"when" s"2"
    26 s"Vulpes-when" s"1" 26 s"vulpes" s"1" 26 s"vulpes_when" s"1" 26 s"snapshot" s"1" 26 s"" s"""#;

#[test]
fn user_properties_of_the_application_pass_unaltered() {
    let properties = FOREIGN.replace('\n', " ");
    let with = hex(&assemble(&properties));
    check(&format!(
        r#"{OPEN5} in 30 | s"a" p[{properties}] "x"; 32 | s"a" 0001 p[{properties}] "x"; 31 | s"a" p[{properties}]
        ask publish a q0 x with {with}
        ask publish a q1 x with {with}
        ask publish a q0 retain with {with}
        stored 0 3
        out 40 | 0001
        in 82 | 0002 p[{properties}] s"a" 00; a2 | 0003 p[{properties}] s"b"
        ask subscribe 1 state Exact(Topic(a))
        out b0 | 0003 p[] 11
        subscribed 1
        out 90 | 0002 p[] 00
        deliver a q0 by 9 to 1 "x" with {properties}
        out 30 | s"a" p[{properties}] "x"
        retained a q0 by 9 to 1 "x" with {properties}
        out 31 | s"a" p[{properties}] "x""#
    ));
    // Our options among others are removed, and the order of the others stays.
    check(&format!(
        r#"{OPEN5} in 30 | s"a" p[26 s"b" s"1" 26 s"vulpes-exclude_me" s"true" 26 s"a" s"2" 26 s"b" s"0"] "x"
        ask publish a q0 x exclude_me with {}"#,
        hex(&assemble(r#"26 s"b" s"1" 26 s"a" s"2" 26 s"b" s"0""#))
    ));
    check(&format!(
        r#"in 10 | s"MQTT" 05 06 000a p[{properties}] s"c" p[{properties}] s"w" s"gone"
        ask $ASK will w q0 gone with {with}"#
    ));
}

#[test]
fn what_is_not_known_under_our_own_prefix_is_refused() {
    let text = |name: &str, place: &str| {
        format!("there is no option {name} in a {place}: names that begin with vulpes- are the router's own")
    };
    let wen = r#"26 s"k" s"v" 26 s"vulpes-wen" s"1""#;
    check(&format!(
        r#"{OPEN5} in 32 | s"a" 0001 p[{wen}] "1"; 82 | 0002 p[{wen}] s"a" 00
        out 40 | 0001 83 p[1f s"{}"]; 90 | 0002 p[1f s"{}"] 83
        in a2 | 0003 p[{wen}] s"a"
        out e0 | 83 p[1f s"{}"]
        ask close"#,
        text("vulpes-wen", "PUBLISH"),
        text("vulpes-wen", "SUBSCRIBE"),
        text("vulpes-wen", "UNSUBSCRIBE")
    ));
    // An option known elsewhere is unknown here; a long name is shown shortened.
    let long = format!("vulpes-{}", "x".repeat(200));
    for (name, shown) in
        [("vulpes-when", "vulpes-when"), ("vulpes-", "vulpes-"), (&long, &long[..64])]
    {
        check(&format!(
            r#"in 10 | s"MQTT" 05 02 0000 p[26 s"{name}" s"1"] s"c"
            out 20 | 0083 p[1f s"{}"]
            ask close"#,
            text(shown, "CONNECT")
        ));
    }
}

#[test]
fn refused_messages_keep_their_place_among_the_acknowledgements() {
    let text = "the option vulpes-exclude is not available";
    check(&format!(
        r#"{OPEN5} in 32 | s"a" 0001 p[] "1"; 32 | s"a" 0002 p[26 s"vulpes-exclude" s"[1]"] "2"; 32 | s"a" 0003 p[] "3"
        ask publish a q1 1
        ask publish a q1 3
        stored 0 1
        out 40 | 0001; 40 | 0002 83 p[1f s"{text}"]
        stored 1 1
        out 40 | 0003"#
    ));
    check(&format!(
        r#"{OPEN5} in 32 | s"a" 0002 p[01 01] ff
        out 40 | 0002 99 p[1f s"the payload is not UTF-8 as announced"]"#
    ));
    check(&format!(
        r#"{OPEN5} in 30 | s"a" p[26 s"vulpes-exclude" s"[1]"] "2"
        out e0 | 83 p[1f s"{text}"]
        ask close"#
    ));
    // A client that does not want reason strings gets one only with a DISCONNECT.
    check(
        r#"in 10 | s"MQTT" 05 02 0000 p[17 00] s"c"
        ask $ASK
        opened
        out $CONNACK5
        in 32 | s"a" 0002 p[26 s"vulpes-exclude_me" s"maybe"]
        out 40 | 0002 83 p[]"#,
    );
}

/// A packet, and the code and text of the DISCONNECT that answers it.
#[test]
fn violations_end_the_connection() {
    let table = [
        // PUBLISH
        (r#"36 | s"a" 0001 p[]"#, "81", "a PUBLISH has QoS 3"),
        (r#"38 | s"a" p[]"#, "81", "a PUBLISH with QoS 0 is marked as a duplicate"),
        (r#"32 | s"a" 0000 p[]"#, "82", "a packet identifier is 0"),
        (r#"32 | s"a" 00"#, "81", "a field reaches beyond the packet's end"),
        (r#"30 | s"a" p[23 0001]"#, "94", "a topic alias was used, but none are offered"),
        (r#"30 | s"" p[23 0001]"#, "94", "a topic alias was used, but none are offered"),
        (r#"30 | s"" p[]"#, "90", "PUBLISH: a topic must not be empty"),
        (
            r#"30 | s"a/+" p[]"#,
            "90",
            "PUBLISH: a topic to publish to must not have the wildcards '+' and '#'",
        ),
        (r#"30 | 0001 00 p[]"#, "81", "a text holds U+0000"),
        (r#"30 | 0001 ff p[]"#, "81", "a text is not UTF-8"),
        (r#"30 | 0003 eda080 p[]"#, "81", "a text is not UTF-8"),
        (r#"30 | s"a" p[0b 01]"#, "82", "a client's PUBLISH has a subscription identifier"),
        (r#"30 | s"a" p[01 02]"#, "82", "a property that is 0 or 1 has another value"),
        (r#"30 | s"a" p[01 00 01 00]"#, "82", "a property is given twice"),
        (r#"30 | s"a" p[08 s"a/#"]"#, "82", "a response topic is empty or has wildcards"),
        (r#"30 | s"a" p[24 01]"#, "81", "a property that the packet can't have"),
        (r#"30 | s"a" 05 01"#, "81", "a field reaches beyond the packet's end"),
        // Packets that are not offered, or that no client sends
        ("60 | 0001", "81", "reserved flags are set in the fixed header"),
        ("62 | 0000", "82", "a packet identifier is 0"),
        ("50 | 00", "81", "a field reaches beyond the packet's end"),
        ("70 | 0001 00 p[11 00000000]", "81", "a property that the packet can't have"),
        (
            r#"f0 | 19 p[15 s"m"]"#,
            "8c",
            "AUTH was sent, but no authentication method was agreed on",
        ),
        ("20 | 0000", "82", "a packet that no client sends"),
        ("23 | 0d", "81", "reserved flags are set in the fixed header"),
        ("90 | 0001 00", "82", "a packet that no client sends"),
        ("b0 | 0001 00", "82", "a packet that no client sends"),
        ("d0 |", "82", "a packet that no client sends"),
        ("00 |", "82", "a packet that no client sends"),
        // Others
        ("c1 |", "81", "reserved flags are set in the fixed header"),
        ("c0 | 00", "81", "a PINGREQ has no body"),
        ("40 | 0000", "82", "a packet identifier is 0"),
        ("40 | 0001 00 p[11 00000000]", "81", "a property that the packet can't have"),
        ("40 | 0001 01", "81", "Invalid return code received as response for connect = 1"),
        ("e0 | 00 p[] 00", "81", "bytes are left over after the packet's last field"),
        ("e0 | 00 p[1c s\"x\"]", "81", "a property that the packet can't have"),
        ("30 | s\"a\" p[]; c0", "81", "a packet is cut off"),
        (
            "30 ff ff ff ff",
            "81",
            "the remaining length takes more than four bytes; is the client speaking MQTT?",
        ),
        (
            "30 ff ff ff 7f",
            "95",
            "a packet of 268435460 bytes was begun, but at most 1081344 are accepted",
        ),
    ];
    for (packet, code, text) in table {
        let asked = if packet.ends_with("c0") { "ask publish a q0 \n" } else { "" };
        check(&format!(
            "{OPEN5} in {packet} \n out e0 | {code} p[1f s\"{text}\"] \n {asked} ask close
            reason {text} \n in c0 | \n deliver a q1 by 1 to 1 \"x\""
        ));
    }
}

#[test]
fn violations_of_3_1_1_close_the_connection() {
    let table = [
        r#"36 | s"a" 0001"#,
        r#"38 | s"a""#,
        r#"32 | s"a" 0000"#,
        r#"30 | s"""#,
        r#"30 | s"a/#""#,
        r#"30 | 0001 ff"#,
        "50 | 0000",
        "62 | 0001 00",
        "70 | 00",
        "f0 |",
        "40 | 0001 00",
        "40 | 00",
        "e0 | 00",
        "c0 | 00",
        "d0 |",
        "30 ff ff ff ff",
    ];
    for packet in table {
        check(&format!("{OPEN4} in {packet} \n ask close \n full"));
    }
}

#[test]
fn unanswered_publishes_have_a_limit() {
    let mut gate = new_gate();
    gate.receive(packets(SHORT[1].1), Moment(0));
    gate.opened(Ok(()));
    gate.poll_output();
    let publish = packets(r#"32 | s"a" 0001 p[]"#);
    gate.receive(Bytes::from(publish.repeat(8192)), Moment(0));
    assert_eq!(gate.poll_output(), None);
    gate.receive(publish, Moment(0));
    let text = "more messages are unanswered than the Receive Maximum allows";
    assert_eq!(gate.poll_output(), Some(packets(&format!("e0 | 93 p[1f s\"{text}\"]"))));
}

#[test]
fn messages_have_a_limit() {
    let mut packet = BytesMut::new();
    packet.put_u8(0x30);
    put_varint(&mut packet, limits::EVENT as u32 + 4);
    packet.put_slice(&[0, 1, b'a', 0]);
    let mut fits = packet.clone();
    fits.put_bytes(b'x', limits::EVENT);
    packet.clear();
    packet.put_u8(0x30);
    put_varint(&mut packet, limits::EVENT as u32 + 5);
    packet.put_slice(&[0, 1, b'a', 0]);
    packet.put_bytes(b'x', limits::EVENT + 1);
    let mut gate = new_gate();
    gate.receive(packets(SHORT[1].1), Moment(0));
    gate.opened(Ok(()));
    gate.poll_output();
    gate.poll_request();
    let fits = fits.freeze();
    gate.receive(fits.clone(), Moment(0));
    let Some(Request::Publish { event, .. }) = gate.poll_request() else { panic!("published") };
    // Not copied.
    assert_eq!(event.payload.args.as_ptr(), fits[fits.len() - limits::EVENT..].as_ptr());
    gate.receive(packet.freeze(), Moment(0));
    let text = "a message may have 1064960 bytes at most";
    assert_eq!(gate.poll_output(), Some(packets(&format!("e0 | 95 p[1f s\"{text}\"]"))));
}

//! SUBSCRIBE and UNSUBSCRIBE.

use super::*;

/// A bridge before MQTT 5 can't ask for it: it sees the RETAIN flag as published, and nothing of its own.
#[test]
fn a_bridge_gets_what_it_can_pass_on() {
    for (level, sent_back) in [("84", false), ("04", true)] {
        let own = if sent_back { "out 30 | s\"a\" \"own\"\n" } else { "" };
        let flag = if sent_back { "30" } else { "31" };
        check(&format!(
            r#"in 10 | s"MQTT" {level} 02 000a s"c"
            ask $ASK
            opened
            out $CONNACK4
            in 82 | 0001 s"a" 00
            ask subscribe 1 state Exact(Topic(a))
            subscribed 1
            out 90 | 0001 00
            deliver a q0 by 77 to 1 "own"
            {own}change a q0 by 9 to 1 "x"
            out {flag} | s"a" "x""#
        ));
    }
    // MQTT 5 has options for both.
    check(
        r#"in 10 | s"MQTT" 85 02 000a p[] s"c"
        ask $ASK
        opened
        out $CONNACK5
        in 82 | 0001 p[] s"a" 00
        ask subscribe 1 state Exact(Topic(a))
        subscribed 1
        out 90 | 0001 p[] 00
        deliver a q0 by 77 to 1 "own"
        out 30 | s"a" p[] "own""#,
    );
}

/// A filter that never matches is refused.
#[test]
fn filters_that_nothing_comes_to_are_refused() {
    let text = crate::types::topic::SILENT_TEXT;
    check(&format!(
        r#"{OPEN5} in 82 | 0001 p[] s"$SYS/#" 00 s"a" 00 s"wamp/session/on_leave" 01
        ask subscribe 1 state Exact(Topic(a))
        ask subscribe 2 state Exact(Topic(wamp/session/on_leave))
        subscribed 1
        subscribed 2
        out 90 | 0001 p[1f s"{text}"] 870001"#
    ));
    check(&format!("{OPEN4} in 82 | 0001 s\"$SYS/broker/uptime\" 00 \n out 90 | 0001 80"));
}

/// A SUBACK of MQTT 3.1 can't express a refusal, and the DUP flag may be set in a SUBSCRIBE.
#[test]
fn a_filter_that_can_not_be_granted_ends_a_session_of_3_1() {
    check(
        r#"in 10 | s"MQIsdp" 03 02 000a s"c"
        ask $ASK
        opened
        out $CONNACK4
        in 8a | 0001 s"a" 00; aa | 0002 s"b"
        ask subscribe 1 state Exact(Topic(a))
        out b0 | 0002
        subscribed 1
        out 90 | 0001 00
        in 82 | 0003 s"a/#/b" 00
        ask close
        reason a filter is refused: a wildcard must be alone in its part, and '#' must be the last part"#,
    );
    check(&format!("{OPEN4} in 8a | 0001 s\"a\" 00 \n ask close"));
}

const AB: &str = "Exact(Topic(a/b))";

#[test]
fn subscriptions_are_answered_when_the_node_has_answered_for_all_of_them() {
    check(&format!(
        r##"{OPEN4} in 82 | 0009 s"a/b" 02 s"+/#" 00 s"a/#/b" 01
        ask subscribe 1 state {AB}
        ask subscribe 2 state Parts([One, Rest])
        subscribed 2
        subscribed 1
        out 90 | 0009 020080"##
    ));
    check(&format!(
        r#"{OPEN5} in 82 | 0009 p[] s"a/b" 02 s"$share/g/a" 00
        ask subscribe 1 state {AB}
        subscribed 1
        out 90 | 0009 p[1f s"shared subscriptions are not available"] 029e"#
    ));
    check(&format!(
        r#"{OPEN5} in 82 | 0009 p[] s"" 02 s"a+" 00
        out 90 | 0009 p[1f s"a topic must not be empty"] 8f8f"#
    ));
}

#[test]
fn the_node_refuses_subscriptions() {
    let table = [
        ("gone 1 7", "83", "the log is kept only from position 7 on"),
        ("ahead 1 7", "83", "that place is beyond the end of the log; its last position is 7"),
        ("toomany 1", "97", "a session may have 10000 subscriptions at most, with 1048576 bytes of topics all together; a pattern of more than 32 levels counts several times"),
        ("unavailable 1", "80", "the log can't be read right now; try again"),
    ];
    for (word, code, text) in table {
        check(&format!(
            r#"{OPEN5} in 82 | 0009 p[] s"$replay/5/a/b" 01
            ask subscribe 1 after Position(Position(5)) {AB}
            {word}
            out 90 | 0009 p[1f s"{text}"] {code}
            in a2 | 000a p[] s"$replay/5/a/b"
            out b0 | 000a p[] 11"#
        ));
        check(&format!(
            r#"{OPEN4} in 82 | 0009 s"a/b" 01
            ask subscribe 1 state {AB}
            {word}
            out 90 | 0009 80"#
        ));
    }
}

#[test]
fn subscribing_again_changes_the_options_without_a_gap() {
    check(&format!(
        r#"{OPEN5} in 82 | 0001 p[0b 05] s"a/b" 00; 82 | 0002 p[0b 06] s"a/b" 01
        ask subscribe 1 state {AB}
        subscribed 1
        out 90 | 0001 p[] 00; 90 | 0002 p[] 01
        deliver a/b q1 by 1 to 1 "x"
        out 32 | s"a/b" 0001 p[0b 06] "x"
        in 82 | 0003 p[] s"a/b" 20
        out 90 | 0003 p[] 00
        deliver a/b q1 by 1 to 1 "x"
        out 30 | s"a/b" p[] "x""#
    ));
    // Twice in one packet.
    check(&format!(
        r#"{OPEN4} in 82 | 0001 s"a/b" 00 s"a/b" 01
        ask subscribe 1 state {AB}
        subscribed 1
        out 90 | 0001 0001"#
    ));
    // A replay starts again.
    check(&format!(
        r#"{OPEN4} in 82 | 0001 s"$replay/5/a/b" 00
        ask subscribe 1 after Position(Position(5)) {AB}
        subscribed 1
        out 90 | 0001 00
        in 82 | 0002 s"$replay/5/a/b" 00
        ask unsubscribe 1
        ask subscribe 2 after Position(Position(5)) {AB}
        deliver a/b q0 by 1 to 1 "old"
        unsubscribed 1
        subscribed 2
        out 90 | 0002 00
        deliver a/b q0 by 1 to 2 "new"
        out 30 | s"a/b" "new""#
    ));
}

#[test]
fn user_properties_choose_where_to_begin() {
    check(&format!(
        r#"{OPEN5} in 82 | 0001 p[26 s"vulpes-after" s"17" 26 s"vulpes-snapshot" s"true"] s"a/b" 00 s"$replay/3/c" 00
        ask subscribe 1 after Position(Position(17)) snapshot {AB}
        ask subscribe 2 after Position(Position(3)) snapshot Exact(Topic(c))
        subscribed 1
        ended 1
        subscribed 2
        out 90 | 0001 p[] 0000
        in a2 | 0002 p[] s"a/b" s"$replay/3/c"
        ask unsubscribe 2
        out b0 | 0002 p[] 1100"#
    ));
    check(&format!(
        r#"{OPEN5} in 82 | 0001 p[26 s"vulpes-match" s"true"] s"a/b" 00 s"c" 00
        out 90 | 0001 p[1f s"there is no option vulpes-match in a SUBSCRIBE: names that begin with vulpes- are the router's own"] 8383"#
    ));
    check(&format!(
        r#"{OPEN4} in 82 | 0001 s"$snapshot/a/b" 01
        ask subscribe 1 after Position(Position(0)) snapshot {AB}
        subscribed 1
        out 90 | 0001 01
        ended 1
        deliver a/b q0 by 1 to 1 "x""#
    ));
}

#[test]
fn unsubscribing_takes_effect_at_once() {
    check(&format!(
        r#"{OPEN4} in 82 | 0001 s"a/b" 01
        ask subscribe 1 state {AB}
        subscribed 1
        out 90 | 0001 01
        in a2 | 0002 s"a/b" s"never"
        ask unsubscribe 1
        out b0 | 0002
        deliver a/b q0 by 1 to 1 "x"
        unsubscribed 1
        in 82 | 0003 s"a/b" 01
        ask subscribe 2 state {AB}
        subscribed 2
        out 90 | 0003 01"#
    ));
    // Even before the node has answered: both are answered, and the new one is separate.
    for answers in ["subscribed 1 \n {SUBACK} \n unsubscribed 1", "unsubscribed 1 \n {SUBACK}"] {
        let answers = answers.replace("{SUBACK}", "out 90 | 0001 p[] 01");
        check(&format!(
            r#"{OPEN5} in 82 | 0001 p[] s"a/b" 01; a2 | 0002 p[] s"a/b"; a2 | 0003 p[] s"a/b"
            ask subscribe 1 state {AB}
            ask unsubscribe 1
            out b0 | 0002 p[] 00; b0 | 0003 p[] 11
            in 82 | 0004 p[] s"a/b" 00
            ask subscribe 2 state {AB}
            {answers}
            deliver a/b q0 by 1 to 1 "x"
            subscribed 2
            out 90 | 0004 p[] 00
            deliver a/b q1 by 1 to 2 "x"
            out 30 | s"a/b" p[] "x""#
        ));
    }
}

#[test]
fn subscriptions_out_of_range_end_the_connection() {
    let options = "the options of a subscription are out of range";
    let none = "a packet that must name a topic filter names none";
    let table = [
        (r#"82 | 0001 p[] s"a" 03"#, "81", options),
        (r#"82 | 0001 p[] s"a" 30"#, "81", options),
        (r#"82 | 0001 p[] s"a" 40"#, "81", options),
        (r#"82 | 0001 p[] s"a""#, "81", "a field reaches beyond the packet's end"),
        ("82 | 0001 p[]", "82", none),
        ("a2 | 0001 p[]", "82", none),
        (r#"82 | 0000 p[] s"a" 00"#, "82", "a packet identifier is 0"),
        (r#"82 | 0001 p[0b 00] s"a" 00"#, "82", "a property that must not be 0 is 0"),
        (r#"82 | 0001 p[0b 01 0b 02] s"a" 00"#, "82", "a property is given twice"),
        (r#"a2 | 0001 p[0b 01] s"a""#, "81", "a property that the packet can't have"),
        (r#"80 | 0001 p[] s"a" 00"#, "81", "reserved flags are set in the fixed header"),
        (r#"a0 | 0001 p[] s"a""#, "81", "reserved flags are set in the fixed header"),
        (r#"82 | 0001 p[] 0001 ff 00"#, "81", "a text is not UTF-8"),
    ];
    for (packet, code, text) in table {
        check(&format!("{OPEN5} in {packet} \n out e0 | {code} p[1f s\"{text}\"] \n ask close"));
    }
    for packet in [r#"82 | 0001 s"a" 04"#, r#"82 | 0001 s"a" 03"#, "82 | 0001", "a2 | 0001"] {
        check(&format!("{OPEN4} in {packet} \n ask close"));
    }
}

#[test]
fn an_answer_the_client_has_no_room_for_ends_the_connection() {
    check(
        r#"in 10 | s"MQTT" 05 02 0000 p[27 00000023] s"c"
        ask $ASK
        opened
        out $CONNACK5
        in a2 | 0001 p[] s"a" s"b" s"c"
        out b0 | 0001 p[] 111111
        in a2 | 0001 p[] s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a" s"a"
        out e0 | 95 p[]
        ask close"#,
    );
}

#[test]
fn subscriptions_have_limits() {
    let mut gate = new_gate();
    gate.receive(packets(SHORT[0].1), Moment(0));
    gate.opened(Ok(()));
    // The same filter again and again, before the node has answered: the waiting filters are limited, too.
    let again = packets(r#"82 | 0001 s"a" 00"#);
    gate.receive(Bytes::from(again.repeat(10_000)), Moment(0));
    gate.poll_output();
    gate.receive(again, Moment(0));
    assert_eq!(gate.poll_output(), Some(packets("90 | 0001 80")));
    gate.subscribed(SubscriptionId(1), Ok(()));
    assert_eq!(gate.output_size(), 10_000 * 5);
    gate.poll_output();
    // Long filters: a megabyte of them, not ten thousand.
    let mut codes = Vec::new();
    for number in 0..300 {
        let text = format!("{number}/{}", "x".repeat(4000));
        gate.receive(packets(&format!("82 | 0001 s\"{text}\" 00")), Moment(0));
        codes.extend(gate.poll_output());
        while gate.poll_request().is_some() {}
    }
    assert_eq!(codes.len(), 300 - (1 << 20) / 4004);
    assert!(codes.iter().all(|code| *code == packets("90 | 0001 80")));
}

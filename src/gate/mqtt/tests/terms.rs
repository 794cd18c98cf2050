//! Publishing into shared state: retained values, conditions, and when they are answered.

use super::*;
use crate::types::limits;

/// User properties for a lock.
const LOCK: &str = r#"26 s"vulpes-retain" s"true" 26 s"vulpes-when" s"null" 26 s"vulpes-will" s"null" 26 s"vulpes-watch" s"true""#;

#[test]
fn the_flag_retains_as_mqtt_does() {
    check(&format!(
        r#"{OPEN4} in 31 | s"a" "1"; 33 | s"a" 0007
        ask publish a q0 1 retain
        ask publish a q1 retain
        stored 0 2
        out 40 | 0007"#
    ));
    check(&format!(
        r#"{OPEN5} in 33 | s"a" 0007 p[] "1"
        ask publish a q1 1 retain
        stored 0 1
        out 40 | 0007"#
    ));
}

#[test]
fn user_properties_are_terms_and_are_not_handed_on() {
    let table = [
        (r#"26 s"vulpes-retain" s"true""#, " retain"),
        (r#"26 s"vulpes-retain" s"true" 26 s"vulpes-merge" s"true""#, " retain merge"),
        (r#"26 s"vulpes-retain" s"false""#, ""),
        (r#"26 s"vulpes-when" s"null""#, " when null"),
        (
            r#"26 s"vulpes-when" s"{`a`: [1, 2.5]}" 26 s"vulpes-watch" s"true""#,
            r#" when {"a":[1,2.5]} watch"#,
        ),
        (LOCK, " retain when null watch will <>"),
        (
            r#"26 s"vulpes-retain" s"true" 26 s"vulpes-will" s"{`x`: 1}""#,
            r#" retain will <{"x": 1}>"#,
        ),
    ];
    let others = r#"01 01 03 s"t" 26 s"k" s"v""#;
    let with = hex(&assemble(others));
    for (properties, terms) in table {
        check(&format!(
            r#"{OPEN5} in 30 | s"a" p[{properties}] "x"
            ask publish a q0 x{terms}
            in 30 | s"a" p[{properties} {others} 02 00000009] "x"
            ask publish a q0 x{terms} with {with}"#
        ));
    }
}

#[test]
fn the_flag_and_terms_go_together() {
    check(&format!(
        r#"{OPEN5} in 31 | s"a" p[26 s"vulpes-will" s"7"] "x"
        ask publish a q0 x retain will <7>
        in 31 | s"a" p[26 s"vulpes-merge" s"true"] "x"
        ask publish a q0 x retain merge
        in 31 | s"a" p[26 s"vulpes-retain" s"false"] "x"
        ask publish a q0 x retain
        in 31 | s"a" p[26 s"vulpes-when" s"1" 26 s"k" s"v"] "x"
        ask publish a q0 x retain when 1 with {}"#,
        hex(&assemble(r#"26 s"k" s"v""#))
    ));
}

#[test]
fn a_conditional_publish_is_answered_when_it_is_decided() {
    check(&format!(
        r#"{OPEN5} in 32 | s"l" 0001 p[{LOCK}] "me"; 32 | s"a" 0002 p[] "2"; 32 | s"a" 0003 p[] "3"
        ask publish l q1 me retain when null watch will <>
        ask publish a q1 2
        ask publish a q1 3
        stored 0 2
        out 40 | 0002
        stored 2 1
        out 40 | 0003
        decided 0 17
        out 40 | 0001
        decided 0 17
        decided 5 17"#
    ));
    // Golden: PUBACKs of the refusals.
    let when = r#"26 s"vulpes-when" s"1""#;
    for (refusal, code, text) in [
        ("notaccepted", "87", "the topic's value does not fit"),
        ("linefull", "97", "10000 publishes wait for this topic already"),
        ("sessionended", "80", "the session has ended"),
    ] {
        check(&format!(
            r#"{OPEN5} in 32 | s"a" 0009 p[{when}] "x"; 30 | s"a" p[{when}] "y"
            ask publish a q1 x when 1
            ask publish a q0 y when 1
            stored 0 2
            {refusal} 1
            {refusal} 0
            out 40 | 0009 {code} p[1f s"{text}"]"#
        ));
    }
    // An event that is not stored needs no decision.
    check(&format!(
        r#"{OPEN5} in 32 | s"a" 0009 p[{when}] "x"
        ask publish a q1 x when 1
        lost 0 1
        out 40 | 0009 80 p[1f s"this node lost its lease; the message was not stored"]
        decided 0 5"#
    ));
    // While it waits, the driver keeps reading, so the client's silence counts.
    check(&format!(
        r#"{OPEN5} in 32 | s"a" 0009 p[{when}] "x"
        ask publish a q1 x when 1
        stored 0 1
        deadline 15000
        at 15000
        tick
        out e0 | 8d p[1f s"nothing came for one and a half times the keep-alive interval"]
        ask close
        decided 0 5"#
    ));
}

#[test]
fn terms_that_make_no_sense_are_refused() {
    let deep = "[".repeat(33) + &"]".repeat(33);
    let deep = format!(r#"26 s"vulpes-when" s"{deep}""#);
    let table = [
        (r#"26 s"vulpes-watch" s"true""#, "the option watch needs when: it says what to wait for"),
        (
            r#"26 s"vulpes-will" s"null""#,
            "the option will needs retain: it replaces a retained value",
        ),
        (r#"26 s"vulpes-retain" s"1""#, "the user property vulpes-retain is true or false"),
        (
            r#"26 s"vulpes-when" s"1" 26 s"vulpes-watch" s"yes""#,
            "the user property vulpes-watch is true or false",
        ),
        (r#"26 s"vulpes-when" s"""#, "the option when can't be read: cut short at byte 0"),
        (r#"26 s"vulpes-when" s"{""#, "the option when can't be read: cut short at byte 1"),
        (
            r#"26 s"vulpes-retain" s"true" 26 s"vulpes-will" s"1 2""#,
            "the option will can't be read: something left over at byte 2",
        ),
        (
            r#"26 s"vulpes-when" s"1" 26 s"vulpes-when" s"1""#,
            "the user property vulpes-when is given twice",
        ),
        (&deep, "the option when has 65536 bytes, 4096 values and 32 levels of nesting at most"),
    ];
    for (properties, text) in table {
        check(&format!(
            r#"{OPEN5} in 32 | s"a" 0001 p[{properties}] "x"
            out 40 | 0001 83 p[1f s"{text}"]
            in 30 | s"a" p[{properties}] "x"
            out e0 | 83 p[1f s"{text}"]
            ask close"#
        ));
    }
}

#[test]
fn a_session_waits_for_so_many_decisions_and_no_more() {
    let mut gate = new_gate();
    gate.receive(packets(SHORT[1].1), Moment(0));
    gate.opened(Ok(()));
    gate.poll_output();
    let conditional = |first: &str| packets(&format!(r#"{first} p[26 s"vulpes-when" s"1"]"#));
    for _ in 0..limits::SESSION_WAITS / 2 {
        gate.receive(conditional(r#"32 | s"a" 0001"#), Moment(0));
        gate.receive(conditional(r#"30 | s"a""#), Moment(0));
    }
    assert_eq!(gate.poll_output(), None);
    let text = "a session may have 64 conditional publishes undecided, of 4194304 bytes together; wait for an answer";
    let refusal = packets(&format!("40 | 0002 97 p[1f s\"{text}\"]"));
    let stored = Stored { position: Position(9), slot: Slot(1), stamp: Stamp(0), offset: 0 };
    gate.answered(answer(0, limits::SESSION_WAITS as u64, Ok(stored)));
    assert_eq!(gate.poll_output(), None);
    gate.receive(conditional(r#"32 | s"a" 0002"#), Moment(0));
    assert_eq!(gate.poll_output(), Some(refusal));
    gate.decided(1, Err(Refusal::NotAccepted));
    gate.receive(conditional(r#"32 | s"a" 0002"#), Moment(0));
    assert_eq!(gate.poll_output(), None);
    // Only the connection's end could tell the client.
    gate.receive(conditional(r#"30 | s"a""#), Moment(0));
    assert_eq!(gate.poll_output(), Some(packets(&format!("e0 | 97 p[1f s\"{text}\"]"))));
}

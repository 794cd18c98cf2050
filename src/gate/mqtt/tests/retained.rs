//! Reading retained values.

use super::*;

const A: &str = "Exact(Topic(a))";

/// Golden packets: a retained value carries RETAIN, a live event does not.
#[test]
fn kept_values_are_marked() {
    check(&format!(
        r#"{OPEN4} in 82 | 0001 s"a" 01
        ask subscribe 1 state {A}
        subscribed 1
        out 90 | 0001 01
        retained a q1 by 9 to 1 "k"
        out 33 | s"a" 0001 "k"
        retained a q0 by 77 to 1 "k"
        out 31 | s"a" "k"
        change a q0 by 9 to 1 "x"
        out 30 | s"a" "x""#
    ));
    check(&format!(
        r#"{OPEN5} in 82 | 0001 p[0b 05] s"a" 01
        ask subscribe 1 state {A}
        subscribed 1
        out 90 | 0001 p[] 01
        retained a q1 by 9 to 1 "k" with 03 s"t"
        out 33 | s"a" 0001 p[0b 05 03 s"t"] "k"
        change a q0 by 9 to 1 "x"
        out 30 | s"a" p[0b 05] "x""#
    ));
}

#[test]
fn retain_as_published_shows_the_flag() {
    check(&format!(
        r#"{OPEN5} in 82 | 0001 p[] s"a" 08 s"+" 00
        ask subscribe 1 state {A}
        ask subscribe 2 state Parts([One])
        subscribed 1
        subscribed 2
        out 90 | 0001 p[] 0000
        change a q0 by 9 to 1 "x"
        out 31 | s"a" p[] "x"
        change a q0 by 9 to 1,2 "x"
        out 31 | s"a" p[] "x"
        change a q0 by 9 to 2 "x"
        out 30 | s"a" p[] "x"
        deliver a q0 by 9 to 1,2 "x"
        out 30 | s"a" p[] "x""#
    ));
}

#[test]
fn retain_handling_says_when_values_come() {
    for (options, mode, again) in
        [("00", "state ", true), ("10", "state ", false), ("20", "", false)]
    {
        let more = match again {
            true => format!(
                r#"ask subscribe 2 snapshot state {A}
                deliver a q0 by 9 to 1 "live"
                out 30 | s"a" p[] "live"
                subscribed 2
                out 90 | 0002 p[] 00
                retained a q0 by 9 to 2 "k"
                out 31 | s"a" p[] "k"
                ended 2
                retained a q0 by 9 to 2 "late""#
            ),
            false => "out 90 | 0002 p[] 00".to_owned(),
        };
        check(&format!(
            r#"{OPEN5} in 82 | 0001 p[] s"a" {options}
            ask subscribe 1 {mode}{A}
            subscribed 1
            out 90 | 0001 p[] 00
            in 82 | 0002 p[] s"a" {options}
            {more}
            deliver a q0 by 9 to 1 "x"
            out 30 | s"a" p[] "x"
            in a2 | 0003 p[] s"a"
            ask unsubscribe 1
            out b0 | 0003 p[] 00"#
        ));
    }
}

#[test]
fn values_that_come_again_end_with_their_subscription() {
    // Requested again before the first values are complete, and unsubscribed meanwhile.
    check(&format!(
        r#"{OPEN4} in 82 | 0001 s"a" 00
        ask subscribe 1 state {A}
        subscribed 1
        out 90 | 0001 00
        in 82 | 0002 s"a" 00; 82 | 0003 s"a" 01
        ask subscribe 2 snapshot state {A}
        ask unsubscribe 2
        ask subscribe 3 snapshot state {A}
        subscribed 2
        out 90 | 0002 00
        retained a q1 by 9 to 2 "k"
        unsubscribed 2
        subscribed 3
        out 90 | 0003 01
        retained a q1 by 9 to 3 "k"
        out 33 | s"a" 0001 "k"
        in a2 | 0004 s"a"
        ask unsubscribe 1
        ask unsubscribe 3
        out b0 | 0004
        retained a q1 by 9 to 3 "k"
        deliver a q1 by 9 to 1 "x"
        unsubscribed 1
        unsubscribed 3"#
    ));
    // The node can't show them: the subscription stays as it was.
    check(&format!(
        r#"{OPEN5} in 82 | 0001 p[] s"a" 00
        ask subscribe 1 state {A}
        subscribed 1
        out 90 | 0001 p[] 00
        in 82 | 0002 p[] s"a" 00
        ask subscribe 2 snapshot state {A}
        unavailable 2
        out 90 | 0002 p[1f s"the log can't be read right now; try again"] 80
        deliver a q0 by 9 to 1 "x"
        out 30 | s"a" p[] "x""#
    ));
    // Requested only in the second SUBSCRIBE, before the node has answered the first.
    check(&format!(
        r#"{OPEN5} in 82 | 0001 p[] s"a" 20; 82 | 0002 p[] s"a" 00
        ask subscribe 1 {A}
        ask unsubscribe 1
        ask subscribe 2 state {A}
        subscribed 1
        out 90 | 0001 p[] 00
        subscribed 2
        out 90 | 0002 p[] 00"#
    ));
}

#[test]
fn user_properties_choose_how_values_are_read() {
    let table = [
        (r#"26 s"vulpes-retained" s"true""#, "changes"),
        (r#"26 s"vulpes-retainedState" s"true""#, "state"),
        (r#"26 s"vulpes-retained" s"false""#, "state"),
        (r#"26 s"vulpes-after" s"5""#, "after Position(Position(5))"),
        (
            r#"26 s"vulpes-after" s"5" 26 s"vulpes-retainedState" s"true""#,
            "after Position(Position(5)) state",
        ),
        (
            r#"26 s"vulpes-after" s"5" 26 s"vulpes-retained" s"true""#,
            "after Position(Position(5)) changes",
        ),
        (r#"26 s"vulpes-retainedState" s"true" 26 s"vulpes-snapshot" s"true""#, "snapshot state"),
        (r#"26 s"vulpes-snapshot" s"true""#, "after Position(Position(0)) snapshot"),
        (r#"26 s"vulpes-filter" s"[1, null]""#, "state filter [1,null]"),
        (r#"26 s"vulpes-filter" s"null" 26 s"vulpes-retained" s"true""#, "changes filter null"),
    ];
    for (properties, read) in table {
        check(&format!(
            r#"{OPEN5} in 82 | 0001 p[{properties}] s"a" 00
            ask subscribe 1 {read} {A}"#
        ));
    }
    let twice = "retained and retainedState exclude each other";
    for (properties, text) in [
        (r#"26 s"vulpes-retained" s"true" 26 s"vulpes-retainedState" s"true""#, twice),
        (r#"26 s"vulpes-retained" s"yes""#, "the user property vulpes-retained is true or false"),
        (r#"26 s"vulpes-filter" s"{""#, "the option filter can't be read: cut short at byte 1"),
        (r#"26 s"vulpes-filter" s"1" 26 s"vulpes-filter" s"1""#, "vulpes-filter is given twice"),
    ] {
        check(&format!(
            r#"{OPEN5} in 82 | 0001 p[{properties}] s"a" 00 s"b" 01
            out 90 | 0001 p[1f s"{text}"] 8383"#
        ));
    }
}

#[test]
fn changes_are_marked_and_begin_anew() {
    check(&format!(
        r#"{OPEN5} in 82 | 0001 p[26 s"vulpes-retained" s"true"] s"a" 00
        ask subscribe 1 changes {A}
        subscribed 1
        out 90 | 0001 p[] 00
        retained a q0 by 9 to 1 "k"
        out 31 | s"a" p[] "k"
        change a q0 by 9 to 1 "x"
        out 31 | s"a" p[] "x"
        in 82 | 0002 p[] s"a" 10
        ask unsubscribe 1
        ask subscribe 2 {A}
        subscribed 2
        out 90 | 0002 p[] 00
        change a q0 by 9 to 2 "x"
        out 30 | s"a" p[] "x"
        in 82 | 0003 p[26 s"vulpes-filter" s"1"] s"a" 20
        ask unsubscribe 2
        ask subscribe 3 filter 1 {A}"#
    ));
}

#[test]
fn conditions_of_a_session_have_a_size_all_together() {
    let mut gate = new_gate();
    gate.receive(packets(SHORT[1].1), Moment(0));
    gate.opened(Ok(()));
    gate.poll_request();
    gate.poll_output();
    let list = format!("[{}]", vec!["1"; 4000].join(","));
    let filters: String = (0..100).map(|number| format!("s\"a/{number}\" 00 ")).collect();
    let packet = format!("82 | 0001 p[26 s\"vulpes-filter\" s\"{list}\"] {filters}");
    gate.receive(packets(&packet), Moment(0));
    let asked = std::iter::from_fn(|| gate.poll_request()).count();
    let weight = 4001 * size_of::<Value>();
    assert_eq!(asked, crate::types::limits::SESSION_FILTERS / weight);
}

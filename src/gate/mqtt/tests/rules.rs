//! What a client may not do is refused, and everything else goes on.

use super::*;
use crate::rules::testing::permissions;
use crate::types::limits;

/// Runs a script with a client that may do this.
fn check_with(rules: &[&str], script: &str) {
    let mut gate = new_gate();
    *gate.permissions() = permissions(rules);
    check_gate(gate, script);
}

const MAY_NOT: &str = "PUBLISH: the user may not publish this there";

#[test]
fn publishes_are_refused_one_by_one() {
    let rules = ["allow publish a/#", "allow retain a/{client}", "deny publish a/b"];
    check_with(
        &rules,
        &format!(
            r#"{OPEN5} in 32 | s"a/b" 0001 p[] "1"; 32 | s"a/x" 0002 p[] "2"; 33 | s"a/x" 0003 p[] "3"; 33 | s"a/c" 0004 p[] "4"
            out 40 | 0001 87 p[1f s"{MAY_NOT}"]
            ask publish a/x q1 2
            ask publish a/c q1 4 retain
            stored 0 2
            out 40 | 0002; 40 | 0003 87 p[1f s"{MAY_NOT}"]; 40 | 0004"#
        ),
    );
    for open in [OPEN4, OPEN5] {
        let properties = if open == OPEN5 { "p[]" } else { "" };
        check_with(
            &rules,
            &format!(
                r#"{open} in 30 | s"b" {properties} "1"; 30 | s"a" {properties} "2"; 31 | s"a" {properties} "3"
                ask publish a q0 2
                dropped {MAY_NOT}"#
            ),
        );
    }
    // To acknowledge it would say that it is stored.
    check_with(
        &rules,
        &format!(
            r#"{OPEN4} in 32 | s"b" 0001 "1"
            ask close
            reason {MAY_NOT}"#
        ),
    );
}

#[test]
fn what_a_value_is_has_to_be_visible_to_compare_with_it() {
    let rules = ["allow publish a", "allow publish,subscribe b"];
    let when = |value: &str| format!(r#"p[26 s"vulpes-when" s"{value}"]"#);
    let (one, null) = (when("1"), when("null"));
    check_with(
        &rules,
        &format!(
            r#"{OPEN5} in 32 | s"a" 0001 {one} "1"
            out 40 | 0001 87 p[1f s"{MAY_NOT}"]
            in 32 | s"a" 0002 {null} "2"
            ask publish a q1 2 when null
            in 32 | s"b" 0003 {one} "3"
            ask publish b q1 3 when 1"#
        ),
    );
}

#[test]
fn so_many_filters_are_refused_and_no_more() {
    for (count, closes) in
        [(limits::FORBIDDEN_FILTERS, false), (limits::FORBIDDEN_FILTERS + 1, true)]
    {
        let mut gate = new_gate();
        *gate.permissions() = permissions(&["allow subscribe b"]);
        gate.receive(packets(r#"10 | s"MQTT" 04 02 000a s"c""#), Moment(0));
        gate.opened(Ok(()));
        while gate.poll_request().is_some() || gate.poll_output().is_some() {}
        let filters = "s\"a\" 00 ".repeat(count);
        gate.receive(packets(&format!("82 | 0001 {filters}")), Moment(0));
        assert_eq!(gate.poll_request().is_some(), closes, "{count}");
        assert_eq!(gate.poll_output().is_some(), !closes, "{count}");
    }
}

#[test]
fn filters_are_refused_one_by_one() {
    let rules = ["allow subscribe a/#", "deny subscribe a/b/#"];
    let text = SubscribeError::NotAllowed.to_string();
    check_with(
        &rules,
        &format!(
            r##"{OPEN5} in 82 | 0001 p[] s"b" 00 s"a/b/c" 00 s"a/c" 01 s"$replay/0/b" 00
            ask subscribe 1 state Exact(Topic(a/c))
            subscribed 1
            out 90 | 0001 p[1f s"{text}"] 87 87 01 87
            in 82 | 0002 p[] s"#" 01 s"+/x" 00 s"a/b/+" 00 s"b/#" 00
            ask subscribe 2 state Parts([Rest])
            ask subscribe 3 state Parts([One, Literal("x")])
            subscribed 2
            subscribed 3
            out 90 | 0002 p[1f s"{text}"] 01 00 87 87"##
        ),
    );
    check_with(
        &rules,
        &format!(
            r#"{OPEN4} in 82 | 0001 s"b" 00 s"a" 01
            ask subscribe 1 state Exact(Topic(a))
            subscribed 1
            out 90 | 0001 80 01"#
        ),
    );
}

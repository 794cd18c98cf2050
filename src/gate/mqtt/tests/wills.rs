//! Wills: read from a CONNECT, and withdrawn by a DISCONNECT.

use super::*;

#[test]
fn a_will_goes_with_the_session() {
    let persistent = r#"01 01 03 s"text/plain" 08 s"re/ply" 09 s"id" 26 s"k" s"v""#;
    let with = hex(&assemble(persistent));
    let expiry = "11 0000003c";
    // A CONNECT's body, and the will that is asked for.
    for (connect, will) in [
        (r#"s"MQTT" 04 06 000a s"c" s"a/b" s"gone""#.to_owned(), "a/b q0 gone".to_owned()),
        (r#"s"MQTT" 04 2e 000a s"c" s"a/b" s"gone""#.into(), "a/b q1 gone retain".into()),
        (r#"s"MQTT" 04 36 000a s"c" s"a/b" s"""#.into(), "a/b q2  retain".into()),
        (r#"s"MQTT" 04 c6 000a s"c" s"a" s"x" s"u" s"p""#.into(), "a q0 x".into()),
        (r#"s"MQTT" 05 06 000a p[] s"c" p[] s"a" s"x""#.into(), "a q0 x".into()),
        (
            format!(r#"s"MQTT" 05 16 000a p[] s"c" p[{persistent} 02 00000009] s"a" s"x""#),
            format!("a q2 x with {with}"),
        ),
        (
            format!(r#"s"MQTT" 05 06 000a p[{expiry}] s"c" p[18 00000007] s"a" s"x""#),
            "a q0 x delay 7".into(),
        ),
        // No longer than the session, which here ends with the connection.
        (
            format!(r#"s"MQTT" 05 06 000a p[{expiry}] s"c" p[18 00000070] s"a" s"x""#),
            "a q0 x delay 60".into(),
        ),
        (r#"s"MQTT" 05 06 000a p[] s"c" p[18 00000070] s"a" s"x""#.into(), "a q0 x".into()),
    ] {
        let ask = match connect.contains(expiry) {
            true => r#"ask attach realm="home" client="c" clean for 60"#,
            false => "ask $ASK",
        };
        check(&format!("in 10 | {connect} \n {ask} will {will}"));
    }
}

#[test]
fn a_will_not_as_the_protocol_says_is_refused() {
    let wildcard = "will: a topic to publish to must not have the wildcards '+' and '#'";
    for (connect, reason) in [
        (r#"s"MQTT" 04 06 0000 s"c" s"a/#" s"x""#, wildcard),
        (r#"s"MQTT" 04 06 0000 s"c" s"" s"x""#, "will: a topic must not be empty"),
        (
            r#"s"MQTT" 04 06 0000 s"c" s"wamp/x" s"x""#,
            "will: topics that begin with wamp, $SYS, $share, $replay or $snapshot are the router's own",
        ),
    ] {
        check(&format!("in 10 | {connect} \n out 20 | 0005 \n ask close \n reason {reason}"));
    }
    for (connect, reason) in [
        (r#"s"MQTT" 04 1e 0000 s"c" s"a" s"x""#, "the will has QoS 3"),
        (r#"s"MQTT" 04 22 0000 s"c""#, "flags of a will are set, but there is none"),
        (r#"s"MQTT" 04 06 0000 s"c" s"a""#, "a field reaches beyond the packet's end"),
    ] {
        check(&format!("in 10 | {connect} \n ask close \n reason {reason}"));
    }
    for (will, code, text) in [
        (r#"p[] s"+" s"x""#, "90", wildcard),
        (r#"p[] s"" s"x""#, "90", "will: a topic must not be empty"),
        (r#"p[] s"wamp" s"x""#, "90", "will: topics that begin with wamp, $SYS, $share, $replay or $snapshot are the router's own"),
        (r#"p[01 01] s"a" 0001 ff"#, "99", "the will's payload is not UTF-8 as announced"),
        (
            r#"p[26 s"vulpes-when" s"null"] s"a" s"x""#,
            "83",
            "there is no option vulpes-when in a will: names that begin with vulpes- are the router's own",
        ),
        (r#"p[11 00000001] s"a" s"x""#, "81", "a property that the packet can't have"),
        (r#"p[18 00000001 18 00000001] s"a" s"x""#, "82", "a property is given twice"),
        (r#"p[08 s"a/+"] s"a" s"x""#, "82", "a response topic is empty or has wildcards"),
    ] {
        check(&format!(
            "in 10 | s\"MQTT\" 05 06 0000 p[] s\"c\" {will}
             out 20 | 00{code} p[1f s\"{text}\"] \n ask close"
        ));
    }
}

#[test]
fn only_a_normal_disconnect_takes_the_will_back() {
    let dropping = "ask close dropping the will";
    for (end, close) in [
        ("in e0 |", dropping),
        ("in e0 | 00", dropping),
        ("in e0 | 00 p[]", dropping),
        ("in e0 | 04", "ask close"),
        ("in e0 | 80", "ask close"),
        ("in e0 | 81 p[]", "ask close"),
        ("in c0 | 00 \n out e0 | 81 p[1f s\"a PINGREQ has no body\"]", "ask close"),
        (
            "takenover \n out e0 | 8e p[1f s\"another connection took the session over\"]",
            "ask close",
        ),
    ] {
        check(&format!("{OPEN5} {end} \n {close}"));
    }
    check(&format!("{OPEN4} in e0 | \n {dropping}"));
    check(&format!("{OPEN4} in c0 | 00 \n ask close"));
    let silent = "at 5 \n tick \n at 20000 \n tick \n ask close";
    check(&format!("{OPEN4} {silent}"));
}

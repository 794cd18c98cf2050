//! The scripts, by subject.

use super::*;

#[test]
fn a_session_opens_and_says_goodbye() {
    check(&format!(
        r#"
        > [1,"realm1",{{"roles":{{"publisher":{{}},"subscriber":{{}}}},"authmethods":["ticket","anonymous"],"x":1}}]
        ! open realm1
        = opened
        < [2,77,{{"realm":"realm1","authid":"anonymous","authrole":"anonymous","authmethod":"anonymous","authprovider":"static","agent":"vulpes/{}","roles":{{{}}}}}]
        > [6,{{}},"wamp.close.close_realm"]
        < [6,{{}},"wamp.close.goodbye_and_out"]
        ! close
        > [16,1,{{}},"a"]
        = opened
        = answered 0 1 5
        = deliver 1 5 a 9
        = end shutdown
        "#,
        env!("CARGO_PKG_VERSION"),
        ROLES,
    ));
}

#[test]
fn a_session_is_refused() {
    check(
        r#"
        > [1,"realm2",{}]
        ! open realm2
        = opened no-such-realm
        < [3,{"message":"no such realm"},"wamp.error.no_such_realm"]
        ! close
        "#,
    );
    check(
        r#"
        > [1,"realm1",{}]
        ! open realm1
        = opened unavailable
        ! close again vulpes.error.unavailable: no quorum answers right now; try again, or at another node
        "#,
    );
    check(
        r#"
        > [1,"realm1",{}]
        ! open realm1
        = opened too-many
        ! close again vulpes.error.too_many_connections: this node has as many connections as it takes
        "#,
    );
    check(
        r##"
        > [1,"a b",{}]
        < [3,{"message":"a realm's name is 1 to 128 bytes without white space, control characters and '#'"},"wamp.error.invalid_uri"]
        ! close
        "##,
    );
    for methods in [r#"["ticket"]"#, r#""ticket""#, "[1]"] {
        check(&format!(
            r#"
            > [1,"realm1",{{"authmethods":{methods}}}]
            < [3,{{"message":"this cluster has no users; offer the authmethod \"anonymous\", or none"}},"wamp.error.no_matching_auth_method"]
            ! close
            "#,
        ));
    }
    for methods in ["[]", "null", r#"["anonymous"]"#] {
        check(&format!(
            r#"
            > [1,"realm1",{{"authmethods":{methods}}}]
            ! open realm1
            "#,
        ));
    }
}

#[test]
fn a_client_leaves_at_any_time() {
    check(
        r#"
        > [3,{},"wamp.close.normal"]
        ! close
        "#,
    );
    check(
        r#"
        > [1,"realm1",{}]
        ! open realm1
        > [3,{},"wamp.close.normal"]
        ! close
        = opened
        "#,
    );
    check_open(
        r#"
        > [3,{},"wamp.close.normal"]
        ! close
        "#,
    );
}

/// Stock clients do not reconnect after GOODBYE and ABORT, so these go only to clients that should stay away.
#[test]
fn our_side_ends_a_session() {
    for (reason, farewell) in [
        (
            "shutdown",
            "away wamp.close.system_shutdown: this node is stopping; connect to another one",
        ),
        (
            "unavailable",
            "again vulpes.error.unavailable: no quorum answers; publishes not acknowledged so far may or \
             may not be stored",
        ),
        (
            "lost",
            "again vulpes.error.session_lost: this node lost its lease, and with it the session is over \
             everywhere; reconnect",
        ),
        (
            "too-slow",
            "again vulpes.error.too_slow: a large message came too slowly while others waited; \
             reconnect and send it again",
        ),
        ("behind", "again vulpes.error.history_gone: the log is kept only from position 7 on"),
    ] {
        check(&format!(
            r#"
            = end {reason}
            ! close {farewell}
            "#
        ));
        check_open(&format!(
            r#"
            > [16,1,{{"acknowledge":true}},"a"]
            ! publish a
            = end {reason}
            ! close {farewell}
            = answered 0 1 5
            "#
        ));
    }
    check_open(
        r#"
        = end taken-over
        < [6,{"message":"another connection took this session over"},"wamp.close.killed"]
        ! close
        "#,
    );
}

#[test]
fn publishes_are_answered_with_their_positions() {
    check_open(
        r#"
        > [16,1,{"acknowledge":true},"a.b",[1,"x",null,-5,1.5,"\u0000AAH/"],{"k":{"l":[]}}]
        ! publish a/b [1,"x",null,-5,1.5,"\u0000AAH/"] {"k":{"l":[]}}
        > [16,2,{},"a.b",[],{}]
        ! publish a/b
        > [16,3,{"acknowledge":false,"exclude_me":false,"disclose_me":true,"unheard_of":1},"a.b",[2],{}]
        ! publish a/b [2] include_me disclose_me
        > [16,9007199254740992,{"acknowledge":true,"retain":false,"watch":false,"exclude_me":null},"a/b"]
        ! publish a%2Fb
        > [16,5,{"acknowledge":true},"a",[],{"k":1}]
        ! publish a [] {"k":1}
        > [16,6,{"acknowledge":true},"a"]
        ! publish a
        = answered 0 2 100
        < [17,1,100]
        = answered 2 2 200
        < [17,9007199254740992,201]
        = answered 4 1 unknown
        < [8,16,5,{},"vulpes.error.unknown_outcome",["no quorum answered in time; the message may or may not be stored"]]
        = answered 5 1 not-stored
        < [8,16,6,{},"vulpes.error.not_stored",["this node lost its lease; the message was not stored"]]
        = answered 6 1 300
        "#,
    );
}

#[test]
fn a_publish_that_cannot_be_taken_is_never_swallowed() {
    for (topic, option, uri, sentence) in [
        (
            "a..b",
            "\"x\":1",
            "wamp.error.invalid_uri",
            "an empty part is a wildcard only with match=wildcard",
        ),
        ("", "\"x\":1", "wamp.error.invalid_uri", "a topic must not be empty"),
        ("a b", "\"x\":1", "wamp.error.invalid_uri", "a topic must not hold white space or '#'"),
        (
            "a",
            "\"exclude_me\":1",
            "wamp.error.invalid_argument",
            "the option exclude_me has to be true or false",
        ),
    ] {
        refused_publish(topic, option, uri, sentence);
    }
    for (name, value) in [
        ("exclude", "[1]"),
        ("exclude_authid", "[]"),
        ("exclude_authrole", "[]"),
        ("eligible", "[]"),
        ("eligible_authid", "[]"),
        ("eligible_authrole", "[]"),
    ] {
        let sentence = format!("the option {name} is not implemented yet; leave it out");
        let option = format!("\"{name}\":{value}");
        refused_publish("a", &option, "vulpes.error.not_implemented", &sentence);
    }
}

fn refused_publish(topic: &str, option: &str, uri: &str, sentence: &str) {
    check_open(&format!(
        r#"
        > [16,5,{{{option},"acknowledge":true}},"{topic}",[1]]
        < [8,16,5,{{}},"{uri}",["{sentence}"]]
        > [16,6,{{"acknowledge":true}},"b"]
        ! publish b
        = answered 0 1 10
        < [17,6,10]
        "#
    ));
    check_open(&format!(
        r#"
        > [16,5,{{{option}}},"{topic}",[1]]
        ~ PUBLISH 5: {sentence}
        "#
    ));
}

#[test]
fn subscriptions_come_and_go() {
    check_open(
        r#"
        > [32,1,{},"a.b"]
        ! subscribe 1 exact a/b
        > [32,2,{"match":"exact"},"a.b"]
        = deliver 1 4 a/b 9
        = subscribed 1
        < [33,1,1]
        < [33,2,1]
        > [32,3,{},"a.b"]
        < [33,3,1]
        = deliver 1 5 a/b 9 [1]
        < [36,1,5,{"topic":"a.b","event_id":"2611221742b1za3"},[1]]
        > [34,4,1]
        ! unsubscribe 1
        = deliver 1 6 a/b 9 [1]
        > [34,5,1]
        < [8,34,5,{},"wamp.error.no_such_subscription",["this session has no subscription 1"]]
        > [32,6,{},"a.b"]
        ! subscribe 2 exact a/b
        = unsubscribed 1
        < [35,4]
        = subscribed 2
        < [33,6,2]
        = unsubscribed 1
        = subscribed 7
        > [34,7,1]
        < [8,34,7,{},"wamp.error.no_such_subscription",["this session has no subscription 1"]]
        "#,
    );
}

#[test]
fn subscriptions_match_in_every_way() {
    check_open(
        r##"
        > [32,1,{},"a.*.b.#"]
        ! subscribe 1 parts a/+/b/#
        > [32,2,{"match":"wildcard"},"a..b"]
        ! subscribe 2 parts a/+/b
        > [32,3,{"match":"prefix"},"a.b"]
        ! subscribe 3 prefix a.b
        > [32,4,{"match":"exact"},"a.*"]
        ! subscribe 4 exact a/*
        > [32,5,{"match":null,"after":null,"snapshot":null,"retained":false,"get_retained":null},"a/b"]
        ! subscribe 5 exact a%2Fb
        > [32,6,{},"a..b"]
        < [8,32,6,{},"wamp.error.invalid_uri",["an empty part is a wildcard only with match=wildcard"]]
        > [32,7,{"match":"prefix"},"#"]
        < [8,32,7,{},"wamp.error.invalid_uri",["a topic must not hold white space or '#'"]]
        > [32,8,{"match":"regex"},"a"]
        < [8,32,8,{},"wamp.error.invalid_argument",["the option match has to be \"exact\", \"prefix\" or \"wildcard\""]]
        > [32,9,{"snapshot":1},"a"]
        < [8,32,9,{},"wamp.error.invalid_argument",["the option snapshot has to be true or false"]]
        "##,
    );
}

#[test]
fn history_is_replayed_from_any_place() {
    check_open(
        r#"
        > [32,1,{},"a"]
        ! subscribe 1 exact a
        > [32,2,{"after":0},"a"]
        ! subscribe 2 exact a after 0
        > [32,3,{"after":"17"},"a"]
        ! subscribe 3 exact a after 17
        > [32,4,{"after":"2611221742b1za3","snapshot":true},"a"]
        ! subscribe 4 exact a after 2611221742b1za3 snapshot
        > [32,5,{"snapshot":true},"a"]
        ! subscribe 5 exact a snapshot
        = subscribed 1
        < [33,1,1]
        = subscribed 2 gone 50
        < [8,32,2,{},"vulpes.error.history_gone",["the log is kept only from position 50 on"],{"oldest":50}]
        = subscribed 3 ahead 9
        < [8,32,3,{},"vulpes.error.no_such_position",["that place is beyond the end of the log; its last position is 9"],{"last":9}]
        = subscribed 5 unavailable
        < [8,32,5,{},"vulpes.error.unavailable",["the log can't be read right now; try again"]]
        = subscribed 4
        < [33,4,4]
        = deliver 1,4 6 a 9
        < [36,1,6,{"topic":"a","event_id":"2611221742b1za3"}]
        < [36,4,6,{"topic":"a","event_id":"2611221742b1za3"}]
        = ended 4
        < [35,0,{"subscription":4,"reason":"vulpes.close.snapshot_complete"}]
        = ended 4
        = deliver 1,4 7 a 9
        < [36,1,7,{"topic":"a","event_id":"2611221742b1za3"}]
        > [32,6,{"after":3,"snapshot":true},"a"]
        ! subscribe 6 exact a after 3 snapshot
        = subscribed 6
        < [33,6,6]
        > [34,7,6]
        ! unsubscribe 6
        = ended 6
        < [35,7]
        = unsubscribed 6
        "#,
    );
    for after in ["-1", "1.5", "true", "\"yesterday\"", "[1]"] {
        check_open(&format!(
            r#"
            > [32,1,{{"after":{after}}},"a"]
            < [8,32,1,{{}},"wamp.error.invalid_argument",["the option after has to be a position (an integer, 0 for the beginning) or an event id (a string)"]]
            "#
        ));
    }
}

#[test]
fn events_are_shown_as_their_publisher_wants() {
    check_open(
        r#"
        > [32,1,{"match":"prefix"},"a"]
        ! subscribe 1 prefix a
        = subscribed 1
        < [33,1,1]
        = deliver 1 5 a/b.c 9!
        < [36,1,5,{"topic":"a.b%2Ec","event_id":"2611221742b1za3","publisher":9}]
        = deliver 1 6 a 77
        = deliver 1 6 a 77+
        < [36,1,6,{"topic":"a","event_id":"2611221742b1za3"}]
        = deliver 1 7 a 9  {"k":1}
        < [36,1,7,{"topic":"a","event_id":"2611221742b1za3"},[],{"k":1}]
        = deliver 1 8 a 9 raw
        < [36,1,8,{"topic":"a","event_id":"2611221742b1za3"},[]]
        = deliver 1 9 a 9 raw {"t":21.5}
        < [36,1,9,{"topic":"a","event_id":"2611221742b1za3"},[{"t":21.5}]]
        = deliver 1 10 a 9 raw on
        < [36,1,10,{"topic":"a","event_id":"2611221742b1za3"},["on"]]
        "#,
    );
}

#[test]
fn breaches_of_the_protocol_end_the_session() {
    let integer = "has to be an integer from 1 to 2^53";
    for (message, sentence) in [
        ("{}", "this is not a message: expected a list at byte 0"),
        ("1", "this is not a message: expected a list at byte 0"),
        ("[]", "a message begins with its type, an integer"),
        ("[\"16\"]", "a message begins with its type, an integer"),
        ("[-1]", "a message begins with its type, an integer"),
        ("[99]", "clients do not send messages of type 99"),
        ("[2,1,{}]", "clients do not send messages of type 2"),
        ("[36,1,1,{}]", "clients do not send messages of type 36"),
        ("[5,\"x\",{}]", "AUTHENTICATE without a CHALLENGE"),
        (
            "[8,16,1,{},\"a\"]",
            "element 1 of ERROR, its request type, has to be 68, of an INVOCATION",
        ),
        ("[70,1]", "YIELD has 3 to 5 elements, not 2"),
        ("[69,1,{}]", "clients do not send messages of type 69"),
        ("[1,\"realm1\",{}]", "HELLO a second time"),
        ("[1,\"realm1\"]", "HELLO has 3 elements, not 2"),
        ("[16,1,{}]", "PUBLISH has 4 to 6 elements, not 3"),
        ("[16,1,{},\"a\",[],{},1,2,3,4]", "PUBLISH has 4 to 6 elements, not 10"),
        ("[32,1,{},\"a\",1]", "SUBSCRIBE has 4 elements, not 5"),
        ("[34,1]", "UNSUBSCRIBE has 3 to 4 elements, not 2"),
        ("[6,{}]", "GOODBYE has 3 elements, not 2"),
        ("[6,{},1]", "element 2 of GOODBYE, its reason, has to be a string"),
        ("[16,0,{},\"a\"]", &format!("element 1 of PUBLISH, its request, {integer}")),
        ("[16,-1,{},\"a\"]", &format!("element 1 of PUBLISH, its request, {integer}")),
        ("[16,1.5,{},\"a\"]", &format!("element 1 of PUBLISH, its request, {integer}")),
        ("[16,\"1\",{},\"a\"]", &format!("element 1 of PUBLISH, its request, {integer}")),
        (
            "[16,9007199254740993,{},\"a\"]",
            &format!("element 1 of PUBLISH, its request, {integer}"),
        ),
        ("[34,1,\"x\"]", &format!("element 2 of UNSUBSCRIBE, its subscription, {integer}")),
        ("[16,1,[],\"a\"]", "element 2 of PUBLISH, its options, has to be a dictionary"),
        ("[16,1,null,\"a\"]", "element 2 of PUBLISH, its options, has to be a dictionary"),
        ("[16,1,{},1]", "element 3 of PUBLISH, its topic, has to be a string"),
        ("[16,1,{},\"a\",null]", "element 4 of PUBLISH, its arguments, has to be a list"),
        ("[16,1,{},\"a\",{}]", "element 4 of PUBLISH, its arguments, has to be a list"),
        (
            "[16,1,{},\"a\",[],[]]",
            "element 5 of PUBLISH, its keyword arguments, has to be a dictionary",
        ),
        ("[32,1,{},[\"a\"]]", "element 3 of SUBSCRIBE, its topic, has to be a string"),
        ("[48,1,{},\"a\",[],{},1]", "CALL has 4 to 6 elements, not 7"),
        ("[49,\"x\",{}]", &format!("element 1 of CANCEL, its request, {integer}")),
    ] {
        check_open(&format!(
            r#"
            > {message}
            < [3,{{"message":"{sentence}"}},"wamp.error.protocol_violation"]
            ! close
            > [16,1,{{}},"a"]
            "#
        ));
    }
}

#[test]
fn messages_before_their_time_end_the_session() {
    check(
        r#"
        > [16,1,{},"a"]
        < [3,{"message":"PUBLISH before HELLO"},"wamp.error.protocol_violation"]
        ! close
        "#,
    );
    check(
        r#"
        > [1,"realm1",{}]
        ! open realm1
        > [32,1,{},"a"]
        < [3,{"message":"SUBSCRIBE before WELCOME"},"wamp.error.protocol_violation"]
        ! close
        = opened
        "#,
    );
}

#[test]
fn bytes_that_are_no_message_end_the_session() {
    let bottomless =
        "[16,1,{},\"a\",".to_owned() + &"[".repeat(100_000) + &"]".repeat(100_000) + "]";
    for (serializer, bytes, sentence) in [
        (Serializer::Json, &b""[..], "cut short at byte 0"),
        (Serializer::Json, b"[16,1,{},\"a\"", "cut short at byte 12"),
        (Serializer::Json, b"[16,1,{},\"a\"] x", "something left over at byte 14"),
        (Serializer::Json, b"[16,1,{},\"\xff\"]", "text is not UTF-8 at byte 10"),
        (Serializer::Json, bottomless.as_bytes(), "nested too deeply at byte 65615"),
        (Serializer::MsgPack, b"\x94\x10\x01\x80", "cut short at byte 4"),
        (Serializer::Cbor, b"\x84\x10\x01\xa0\x61", "cut short at byte 5"),
    ] {
        let mut gate = open(serializer);
        gate.receive(Bytes::copy_from_slice(bytes), Moment(1000));
        run(
            &mut gate,
            &format!(
                r#"
                < [3,{{"message":"this is not a message: {sentence}"}},"wamp.error.protocol_violation"]
                ! close
                "#
            ),
        );
    }
}

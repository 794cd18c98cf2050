//! Shared state by scripts: retained values, conditions, wills, and the subscriptions that read them.

use super::*;
use crate::types::act::Join;

#[test]
fn terms_go_with_the_publish() {
    check_open(
        r#"
        > [16,1,{"retain":true},"a",[{"x":1}]]
        ! publish a [{"x":1}] retain
        > [16,1,{"retain":true,"merge":true},"a",[{"x":1}]]
        ! publish a [{"x":1}] retain merge
        > [16,1,{"retain":true,"merge":false},"a",[{"x":1}]]
        ! publish a [{"x":1}] retain
        > [16,2,{"retain":null,"watch":false},"a",[1]]
        ! publish a [1]
        > [16,3,{"acknowledge":true,"when":null},"a",[2]]
        ! publish a [2] when null
        > [16,4,{"retain":true,"when":{"v":[1,"x",null,-1.5]},"will":null,"watch":true,"exclude_me":false},"a",[3]]
        ! publish a [3] include_me retain when {"v":[1,"x",null,-1.5]} watch will [null]
        > [16,5,{"retain":true,"will":{"gone":[true]}},"a",[],{"k":1}]
        ! publish a [] {"k":1} retain will [{"gone":[true]}]
        "#,
    );
}

/// As wampy and autobahn-python write them.
#[test]
fn options_may_have_an_underscore() {
    check_open(
        r#"
        > [16,1,{"_acknowledge":true,"_retain":true,"_merge":true,"_when":null,"_will":{"x":1},"_watch":true,"_exclude_me":false,"_when_":1},"a",[1]]
        ! publish a [1] include_me retain merge when null watch will [{"x":1}]
        > [32,2,{"_after":17,"_snapshot":true,"_filter":{"x":1},"_match":"prefix","_other":1},"a"]
        ! subscribe 1 prefix a after 17 snapshot filter {"x":1}
        > [32,3,{"_retained":true},"a"]
        ! subscribe 2 exact a retained
        > [32,4,{"_retainedState":true},"a"]
        ! subscribe 3 exact a retainedState
        > [32,5,{"_retained_state":true},"a"]
        ! subscribe 4 exact a retainedState
        > [32,6,{"_get_retained":true,"retained_state":false},"a"]
        ! subscribe 5 exact a retainedState
        > [16,7,{"acknowledge":true,"_exclude":[1]},"a"]
        < [8,16,7,{},"vulpes.error.not_implemented",["the option exclude is not implemented yet; leave it out"]]
        > [16,8,{"acknowledge":true,"_when":1,"when":1},"a"]
        < [8,16,8,{},"wamp.error.invalid_argument",["the option when is given twice; write it with or without an underscore"]]
        > [32,9,{"retainedState":true,"_retained_state":true},"a"]
        < [8,32,9,{},"wamp.error.invalid_argument",["the option retainedState is given twice; write it with or without an underscore"]]
        > [64,10,{"_concurrency":3,"_invoke":"random","invoke":"random"},"p"]
        < [8,64,10,{},"wamp.error.invalid_argument",["the option invoke is given twice; write it with or without an underscore"]]
        > [64,11,{"_concurrency":0},"p"]
        < [8,64,11,{},"wamp.error.invalid_argument",["the option concurrency has to be an integer from 1"]]
        "#,
    );
}

#[test]
fn a_realm_may_merge_all_that_is_retained() {
    let script = |terms: &str| {
        format!(
            r#"
            > [16,1,{{"retain":true}},"a",[{{"x":1}}]]
            ! publish a [{{"x":1}}] retain{terms}
            > [16,2,{{"retain":true,"merge":false}},"a",[1]]
            ! publish a [1] retain{terms}
            > [16,3,{{}},"a",[{{"x":1}}]]
            ! publish a [{{"x":1}}]
            "#
        )
    };
    for (realm, terms) in [("realm1", " merge"), ("realm2", "")] {
        let merging = MergingRealms::from_iter([Realm::new(realm).unwrap()]);
        let mut gate = open(Serializer::Json).merging_in(merging);
        run(&mut gate, &script(terms));
    }
}

#[test]
fn a_lock_is_asked_for_and_granted() {
    let options = r#"{"acknowledge":true,"retain":true,"when":null,"will":null,"watch":true}"#;
    check_open(&format!(
        r#"
        > [16,1,{options},"lock",["me"]]
        ! publish lock ["me"] retain when null watch will [null]
        > [16,2,{{"acknowledge":true}},"x"]
        ! publish x
        = answered 0 2 100
        < [17,2,101]
        > [16,3,{{"acknowledge":true}},"x"]
        ! publish x
        = answered 2 1 300
        < [17,3,300]
        = decided 0 250
        < [17,1,250]
        = decided 0 250
        = decided 9 250
        "#
    ));
}

#[test]
fn a_refused_condition_is_answered_once_it_is_decided() {
    for (refusal, uri, sentence) in [
        ("not-accepted", "fox.error.not_accepted", "the topic's value does not fit"),
        ("line-full", "vulpes.error.line_full", "10000 publishes wait for this topic already"),
        ("session-ended", "vulpes.error.session_ended", "the session has ended"),
    ] {
        check_open(&format!(
            r#"
            > [16,1,{{"acknowledge":true,"when":1}},"a"]
            ! publish a when 1
            > [16,2,{{"when":1}},"a"]
            ! publish a when 1
            = answered 0 2 100
            = decided 1 {refusal}
            = decided 0 {refusal}
            < [8,16,1,{{}},"{uri}",["{sentence}"]]
            "#
        ));
    }
}

#[test]
fn what_is_not_stored_is_not_decided() {
    check_open(
        r#"
        > [16,1,{"acknowledge":true,"when":1},"a"]
        ! publish a when 1
        > [16,2,{"when":1},"a"]
        ! publish a when 1
        > [16,3,{"acknowledge":true},"a"]
        ! publish a
        > [16,4,{"acknowledge":true,"when":1},"a"]
        ! publish a when 1
        > [16,5,{"acknowledge":true,"when":1},"a"]
        ! publish a when 1
        = answered 0 4 not-stored
        < [8,16,3,{},"vulpes.error.not_stored",["this node lost its lease; the message was not stored"]]
        < [8,16,1,{},"vulpes.error.not_stored",["this node lost its lease; the message was not stored"]]
        < [8,16,4,{},"vulpes.error.not_stored",["this node lost its lease; the message was not stored"]]
        = decided 0 7
        = answered 4 1 9
        = decided 4 9
        < [17,5,9]
        "#,
    );
}

#[test]
fn terms_that_make_no_sense_are_refused() {
    let large = format!("\"when\":\"{}\"", "x".repeat(limits::CONDITION));
    let deep = |name: &str, depth: usize| {
        format!("\"retain\":true,\"{name}\":{}{}", "[".repeat(depth), "]".repeat(depth))
    };
    let many = format!("\"retain\":true,\"will\":[{}0]", "0,".repeat(limits::CONDITION_VALUES));
    let at_most = "has 65536 bytes, 4096 values and 32 levels of nesting at most";
    for (option, sentence) in [
        (r#""watch":true"#, "the option watch needs when: it says what to wait for"),
        (r#""will":null"#, "the option will needs retain: it replaces a retained value"),
        (
            r#""will":1,"retain":false"#,
            "the option will needs retain: it replaces a retained value",
        ),
        (r#""retain":1"#, "the option retain has to be true or false"),
        (r#""when":1,"watch":"yes""#, "the option watch has to be true or false"),
        (&large, &format!("the option when {at_most}")),
        (&deep("when", limits::CONDITION_DEPTH + 1), &format!("the option when {at_most}")),
        (&deep("will", limits::CONDITION_DEPTH + 1), &format!("the option will {at_most}")),
        (&many, &format!("the option will {at_most}")),
    ] {
        let uri = "wamp.error.invalid_argument";
        check_open(&format!(
            r#"
            > [16,5,{{"acknowledge":true,{option}}},"a",[1]]
            < [8,16,5,{{}},"{uri}",["{sentence}"]]
            > [16,6,{{{option}}},"a",[1]]
            ~ PUBLISH 6: {sentence}
            "#
        ));
    }
}

#[test]
fn a_session_waits_for_so_many_decisions_and_no_more() {
    let mut gate = open(Serializer::Json);
    for request in 1..=limits::SESSION_WAITS {
        let acknowledge = request % 2 == 0;
        send(
            &mut gate,
            &format!("[16,{request},{{\"acknowledge\":{acknowledge},\"when\":1}},\"a\"]"),
        );
        assert!(matches!(gate.poll_request(), Some(Request::Publish { .. })));
    }
    let too_many = r#"
        > [16,100,{"acknowledge":true,"when":1},"a"]
        < [8,16,100,{},"vulpes.error.too_many_waits",["a session may have 64 conditional publishes undecided, of 4194304 bytes together; wait for an answer"]]
        > [16,101,{"acknowledge":true},"a"]
        ! publish a
    "#;
    run(&mut gate, too_many);
    run(&mut gate, "= answered 0 64 100");
    run(&mut gate, too_many);
    run(
        &mut gate,
        r#"
        = decided 0 100
        > [16,102,{"acknowledge":true,"when":1},"a"]
        ! publish a when 1
        > [16,103,{"when":1},"a"]
        ~ PUBLISH 103: a session may have 64 conditional publishes undecided, of 4194304 bytes together; wait for an answer
        = decided 1 100
        < [17,2,100]
        "#,
    );
}

#[test]
fn subscriptions_read_retained_values() {
    check_open(
        r#"
        > [32,1,{},"a"]
        ! subscribe 1 exact a
        > [32,2,{"retained":true},"a"]
        ! subscribe 2 exact a retained
        > [32,3,{"retainedState":true,"after":17},"a"]
        ! subscribe 3 exact a after 17 retainedState
        > [32,4,{"get_retained":true},"a"]
        ! subscribe 4 exact a retainedState
        > [32,5,{"get_retained":true,"retainedState":true,"snapshot":true,"match":"prefix"},"a"]
        ! subscribe 5 prefix a snapshot retainedState
        > [32,6,{"filter":{"x":[1,null]}},"a"]
        ! subscribe 6 exact a filter {"x":[1,null]}
        > [32,7,{"filter":null,"after":3},"a"]
        ! subscribe 7 exact a after 3 filter null
        > [32,8,{"retained":true,"filter":1},"a"]
        ! subscribe 8 exact a retained filter 1
        = subscribed 1
        < [33,1,1]
        = subscribed 2
        < [33,2,2]
        = subscribed 4
        < [33,4,4]
        = retained 2 5 a 9 [1]
        < [36,2,5,{"topic":"a","event_id":"2611221742b1za3","retained":true},[1]]
        = retained 4 5 a 77! [1]
        < [36,4,5,{"topic":"a","event_id":"2611221742b1za3","publisher":77,"retained":true},[1]]
        = deliver 1,2,4 6 a 9 [2]
        < [36,1,6,{"topic":"a","event_id":"2611221742b1za3"},[2]]
        < [36,2,6,{"topic":"a","event_id":"2611221742b1za3","retained":true},[2]]
        < [36,4,6,{"topic":"a","event_id":"2611221742b1za3"},[2]]
        = deliver 1,2,4 7 a 77 [3]
        "#,
    );
}

#[test]
fn subscriptions_that_make_no_sense_are_refused() {
    let both = "retained and retainedState exclude each other";
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    for (options, sentence) in [
        (r#""retained":true,"retainedState":true"#, both),
        (r#""retained":true,"get_retained":true"#, both),
        (r#""retained":1"#, "the option retained has to be true or false"),
        (r#""retainedState":"x""#, "the option retainedState has to be true or false"),
        (r#""get_retained":0"#, "the option get_retained has to be true or false"),
        (
            &format!("\"filter\":{deep}"),
            "the option filter has 65536 bytes, 4096 values and 32 levels of nesting at most",
        ),
    ] {
        check_open(&format!(
            r#"
            > [32,1,{{{options}}},"a"]
            < [8,32,1,{{}},"wamp.error.invalid_argument",["{sentence}"]]
            "#
        ));
    }
}

#[test]
fn filters_of_a_session_have_a_size_all_together() {
    let mut gate = open(Serializer::Json);
    let filter = "x".repeat(limits::CONDITION - 2);
    let fit = limits::SESSION_FILTERS / limits::CONDITION;
    for request in 1..=fit {
        send(&mut gate, &format!("[32,{request},{{\"filter\":\"{filter}\"}},\"a\"]"));
        assert_eq!(matches!(gate.poll_request(), Some(Request::Subscribe(_))), request < fit);
    }
    let refusal = gate.poll_output().map(|message| to_json(Serializer::Json, &message));
    let uri = "vulpes.error.too_large_filters";
    assert!(refusal.as_ref().is_some_and(|refusal| refusal.contains(uri)), "{refusal:?}");
}

#[test]
fn a_session_is_described_to_others() {
    for (serializer, protocol) in
        [(Serializer::Json, "wamp.2.json"), (Serializer::Cbor, "wamp.2.cbor")]
    {
        let mut gate = connect(serializer);
        send(&mut gate, "[1,\"realm1\",{\"authid\":\"somebody\"}]");
        let Some(Request::Open { join, .. }) = gate.poll_request() else { panic!("no request") };
        let expected = format!(
            r#"{{"authid":"anonymous","authmethod":"anonymous","authprovider":"static","authrole":"anonymous","session":77,"transport":{{"protocol":"{protocol}","type":"websocket"}}}}"#
        );
        assert_eq!(join, Join { client: None, will: None, details: expected });
    }
}

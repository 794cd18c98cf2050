//! Calls by scripts: the session as a caller and as a callee.

use crate::call::{
    CallError, CallId, CallMessage, CallRequest, Invocation, InvocationId, Mode, Serve,
};
use crate::types::procedure::{Matching, Procedure, Register, RegistrationId};

use super::*;

pub(super) fn show_request(asked: &CallRequest) -> String {
    match asked {
        CallRequest::Call(call) => {
            let mut text = format!("call {} {}", call.id.0, call.procedure);
            text += &show_payload(&call.payload);
            text += if call.receive_progress { " progress" } else { "" };
            text += if call.disclose_me { " disclose" } else { "" };
            let timeout = call.timeout.map(|timeout| format!(" within {timeout:?}"));
            text + &timeout.unwrap_or_default()
        }
        CallRequest::Cancel { call, mode } => format!("cancel {} {mode:?}", call.0),
        CallRequest::Serve(Serve { registration, concurrency, interrupts }) => {
            format!("serve {} {concurrency} {interrupts}", registration.0)
        }
        CallRequest::StopServing(registration) => format!("stop-serving {}", registration.0),
        CallRequest::Yield { invocation, progress, payload } => {
            let progress = if *progress { " progress" } else { "" };
            format!("yield {}{}{progress}", invocation.0, show_payload(payload))
        }
        CallRequest::Fail { invocation, uri, payload } => {
            format!("fail {} {uri}{}", invocation.0, show_payload(payload))
        }
    }
}

pub(super) fn show_register(register: &Register) -> String {
    let Register { procedure, matching, invoke, concurrency, disclose_caller } = register;
    let disclose = if *disclose_caller { " disclose" } else { "" };
    format!(" register {procedure} {} {} {concurrency}{disclose}", matching.word(), invoke.word())
}

/// The gate's input: `invocation ID REGISTRATION PROCEDURE|- CALLER|- PAYLOAD`, `result ID PAYLOAD`, and so on.
pub(super) fn told(words: &[&str]) -> CallMessage {
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let payload = |from: usize| {
        let bytes = |at: usize| Bytes::from(words.get(at).unwrap_or(&"").to_string());
        Payload { encoding: Encoding::Json, args: bytes(from), kwargs: bytes(from + 1) }
    };
    match words[0] {
        "invocation" | "invocation-progress" => CallMessage::Invocation(Invocation {
            id: InvocationId(number(1)),
            registration: RegistrationId(number(2)),
            procedure: Procedure::new(words[3], Matching::Exact).ok().filter(|_| words[3] != "-"),
            caller: words[4].parse().ok().map(SessionId),
            receive_progress: words[0] != "invocation",
            payload: payload(5),
        }),
        "interrupt" => {
            CallMessage::Interrupt { invocation: InvocationId(number(1)), mode: Mode::Kill }
        }
        "result" | "progress" => CallMessage::Result {
            call: CallId(number(1)),
            progress: words[0] == "progress",
            payload: payload(2),
        },
        "callee-error" => {
            let error = CallError::Callee { uri: words[2].into(), payload: payload(3) };
            CallMessage::Failed { call: CallId(number(1)), error }
        }
        "call-error" => {
            let error = match words[2] {
                "no-such-procedure" => CallError::NoSuchProcedure,
                "canceled" => CallError::Canceled,
                "lost" => CallError::CalleeLost,
                "unreachable" => CallError::Unreachable,
                "timeout" => CallError::Timeout,
                "busy" => CallError::CalleeBusy,
                "too-many" => CallError::TooManyCalls,
                "slow" => CallError::CallerSlow,
                _ => CallError::Own { uri: words[2].into(), sentence: words[3].into() },
            };
            CallMessage::Failed { call: CallId(number(1)), error }
        }
        _ => panic!("not a call: {words:?}"),
    }
}

#[test]
fn a_call_is_made_and_answered() {
    check_open(
        r#"
        > [48,3,{},"a.b",[1],{"k":2}]
        ! call 3 a.b [1] {"k":2}
        > [48,4,{"receive_progress":true,"disclose_me":true,"timeout":1500,"x":1},"wamp.session.count"]
        ! call 4 wamp.session.count progress disclose within 1.5s
        > [48,5,{"timeout":0,"receive_progress":null},"a",[],{"k":1}]
        ! call 5 a [] {"k":1}
        = progress 4 [1]
        < [50,4,{"progress":true},[1]]
        = result 4 [] {"n":2}
        < [50,4,{},[],{"n":2}]
        = result 3
        < [50,3,{}]
        = callee-error 5 app.error.x ["why"] {"k":1}
        < [8,48,5,{},"app.error.x",["why"],{"k":1}]
        > [48,3,{},"a"]
        ! call 3 a
        "#,
    );
}

#[test]
fn a_call_that_fails_says_why() {
    for (error, uri, sentence) in [
        (
            "no-such-procedure",
            "wamp.error.no_such_procedure",
            "no callee has registered this procedure",
        ),
        ("canceled", "wamp.error.canceled", "the call was canceled"),
        (
            "lost",
            "wamp.error.canceled",
            "the callee or the connection to it is gone; it is not known whether the call was carried out",
        ),
        (
            "unreachable",
            "vulpes.error.unavailable",
            "the callee's node can't be reached; the call was not carried out",
        ),
        (
            "timeout",
            "wamp.error.timeout",
            "the time is up; it is not known whether the call was carried out",
        ),
        (
            "busy",
            "vulpes.error.callee_busy",
            "too many calls wait for this callee; the call was not carried out",
        ),
        (
            "too-many",
            "vulpes.error.too_many_calls",
            "too many calls are in flight; the call was not carried out",
        ),
        (
            "slow",
            "vulpes.error.result_dropped",
            "the caller or the connection to it is too slow; the callee's answer was dropped",
        ),
        ("wamp.error.x why", "wamp.error.x", "why"),
    ] {
        check_open(&format!(
            r#"
            > [48,3,{{}},"a"]
            ! call 3 a
            = call-error 3 {error}
            < [8,48,3,{{}},"{uri}",["{sentence}"]]
            "#
        ));
    }
}

#[test]
fn a_call_is_taken_back_while_it_is_in_flight() {
    check_open(
        r#"
        > [48,3,{},"a"]
        ! call 3 a
        > [49,3,{}]
        ! cancel 3 KillNoWait
        > [49,3,{"mode":"kill"}]
        ! cancel 3 Kill
        > [49,3,{"mode":"skip"}]
        ! cancel 3 Skip
        > [49,3,{"mode":null}]
        ! cancel 3 KillNoWait
        = call-error 3 canceled
        < [8,48,3,{},"wamp.error.canceled",["the call was canceled"]]
        > [49,3,{}]
        > [49,4,{"mode":"x"}]
        ~ CANCEL 4: the option mode has to be "skip", "kill" or "killnowait"
        "#,
    );
}

#[test]
fn a_procedure_is_registered_and_taken_back() {
    check_open(
        r#"
        > [64,1,{},"a.b"]
        ! publish wamp/registration/register register a.b exact single 0
        > [64,2,{"match":"wildcard","invoke":"roundrobin","concurrency":3,"disclose_caller":true},"a..c"]
        ! publish wamp/registration/register register a..c wildcard roundrobin 3 disclose
        > [16,3,{"acknowledge":true},"t"]
        ! publish t
        = answered 0 3 100
        < [17,3,102]
        = decided 1 90
        < [65,2,90]
        ! serve 90 3 false
        = decided 0 100
        < [65,1,100]
        ! serve 100 0 false
        > [66,4,90]
        ! publish wamp/registration/unregister unregister 90
        = answered 3 1 103
        = decided 3 103
        < [67,4]
        ! stop-serving 90
        = decided 3 103
        > [66,5,7]
        ! publish wamp/registration/unregister unregister 7
        = answered 4 1 104
        = decided 4 no-such-registration
        < [8,66,5,{},"wamp.error.no_such_registration",["this session has no such registration"]]
        "#,
    );
}

#[test]
fn a_registration_is_refused_with_the_reason() {
    for (refusal, uri, sentence) in [
        ("exists", "wamp.error.procedure_already_exists", "the procedure is registered already"),
        (
            "other-policy",
            "wamp.error.procedure_exists_with_different_invocation_policy",
            "the procedure is registered with invoke=random, and can only be shared that way",
        ),
        (
            "too-many-registrations",
            "vulpes.error.too_many_registrations",
            "a session may have 10000 registrations at most",
        ),
        (
            "too-many-callees",
            "vulpes.error.too_many_callees",
            "a registration may have 1024 callees at most",
        ),
        ("session-ended", "vulpes.error.session_ended", "the session has ended"),
    ] {
        check_open(&format!(
            r#"
            > [64,1,{{}},"a"]
            ! publish wamp/registration/register register a exact single 0
            = answered 0 1 100
            = decided 0 {refusal}
            < [8,64,1,{{}},"{uri}",["{sentence}"]]
            "#
        ));
    }
    check_open(
        r#"
        > [64,1,{},"a"]
        ! publish wamp/registration/register register a exact single 0
        > [66,2,3]
        ! publish wamp/registration/unregister unregister 3
        = answered 0 2 unknown
        < [8,64,1,{},"vulpes.error.unknown_outcome",["no quorum answered in time; the message may or may not be stored"]]
        < [8,66,2,{},"vulpes.error.unknown_outcome",["no quorum answered in time; the message may or may not be stored"]]
        = decided 0 100
        "#,
    );
}

#[test]
fn what_is_asked_for_wrongly_is_refused() {
    let number = "has to be an integer from 1";
    let matches = r#"has to be \"exact\", \"prefix\" or \"wildcard\""#;
    let invokes = r#"has to be \"single\", \"roundrobin\", \"random\", \"first\" or \"last\""#;
    let flag = "has to be true or false";
    let milliseconds = "has to be milliseconds, an integer that is not negative";
    let (invalid, not_yet) = ("wamp.error.invalid_argument", "vulpes.error.not_implemented");
    for (code, options, uri, sentence) in [
        (64, r#""concurrency":0"#, invalid, format!("the option concurrency {number}")),
        (64, r#""concurrency":-1"#, invalid, format!("the option concurrency {number}")),
        (64, r#""concurrency":"x""#, invalid, format!("the option concurrency {number}")),
        (64, r#""match":"x""#, invalid, format!("the option match {matches}")),
        (64, r#""invoke":1"#, invalid, format!("the option invoke {invokes}")),
        (64, r#""disclose_caller":1"#, invalid, format!("the option disclose_caller {flag}")),
        (
            64,
            r#""force_reregister":true"#,
            not_yet,
            "the option force_reregister is not implemented yet; leave it out".to_owned(),
        ),
        (48, r#""timeout":-1"#, invalid, format!("the option timeout {milliseconds}")),
        (48, r#""receive_progress":1"#, invalid, format!("the option receive_progress {flag}")),
        (
            48,
            r#""progress":true"#,
            not_yet,
            "the option progress is not implemented yet; leave it out".to_owned(),
        ),
    ] {
        check_open(&format!(
            r#"
            > [{code},1,{{{options}}},"a"]
            < [8,{code},1,{{}},"{uri}",["{sentence}"]]
            "#
        ));
    }
    for (message, sentence) in [
        (r#"[64,1,{},"wamp.x"]"#, r#"procedures that begin with wamp are the router's own"#),
        (
            r#"[64,1,{"match":"prefix"},"wamp."]"#,
            r#"procedures that begin with wamp are the router's own"#,
        ),
        (r#"[64,1,{},"a..b"]"#, "an empty part is a wildcard only with match=wildcard"),
        (r#"[48,1,{},"a..b"]"#, "an empty part is a wildcard only with match=wildcard"),
        (
            r#"[16,1,{"acknowledge":true},"wamp.session.on_join"]"#,
            r#"topics that begin with wamp, $SYS, $share, $replay or $snapshot are the router's own"#,
        ),
    ] {
        let code = &message[1..3];
        check_open(&format!(
            r#"
            > {message}
            < [8,{code},1,{{}},"wamp.error.invalid_uri",["{sentence}"]]
            "#
        ));
    }
}

#[test]
fn a_callee_is_invoked_and_answers() {
    check_open(
        r#"
        = invocation 1 90 - - [1] {"k":2}
        < [68,1,90,{},[1],{"k":2}]
        = invocation-progress 2 90 a.b.c 9
        < [68,2,90,{"procedure":"a.b.c","caller":9,"receive_progress":true}]
        = interrupt 2
        > [70,1,{},[3]]
        ! yield 1 [3]
        > [70,2,{"progress":true},[],{"n":1}]
        ! yield 2 [] {"n":1} progress
        > [8,68,2,{},"app.error.x",["why"],{"k":1}]
        ! fail 2 app.error.x ["why"] {"k":1}
        > [70,3,{"progress":1}]
        ! fail 3 wamp.error.invalid_argument ["the option progress has to be true or false"]
        > [8,68,4,{},"no uri",["why"]]
        ! fail 4 wamp.error.invalid_uri ["why"]
        > [8,68,5,{},""]
        ! fail 5 wamp.error.invalid_uri
        "#,
    );
}

#[test]
fn who_says_so_is_interrupted() {
    check(&format!(
        r#"
        > [1,"realm1",{{"roles":{{"callee":{{"features":{{"call_canceling":true}}}}}}}}]
        ! open realm1
        = opened
        < [2,77,{{"realm":"realm1","authid":"anonymous","authrole":"anonymous","authmethod":"anonymous","authprovider":"static","agent":"vulpes/{}","roles":{{{}}}}}]
        > [64,1,{{}},"a"]
        ! publish wamp/registration/register register a exact single 0
        = answered 0 1 100
        = decided 0 100
        < [65,1,100]
        ! serve 100 0 true
        = interrupt 2
        < [69,2,{{"mode":"kill"}}]
        "#,
        env!("CARGO_PKG_VERSION"),
        ROLES,
    ));
}

#[test]
fn a_result_has_a_size_limit() {
    let mut gate = open(Serializer::Json);
    for (size, fits) in [(limits::EVENT - 4, true), (limits::EVENT - 3, false)] {
        send(&mut gate, &format!("[70,5,{{}},[\"{}\"]]", "x".repeat(size)));
        match gate.poll_request() {
            Some(Request::Call(CallRequest::Yield { .. })) => assert!(fits),
            Some(Request::Call(CallRequest::Fail { uri, .. })) => {
                assert_eq!((uri.as_str(), fits), ("wamp.error.payload_size_exceeded", false));
            }
            other => panic!("{other:?}"),
        }
        send(&mut gate, &format!("[48,{size},{{}},\"a\",[\"{}\"]]", "x".repeat(size)));
        assert_eq!(gate.poll_request().is_some(), fits);
        assert_eq!(gate.poll_output().is_some(), !fits);
    }
}

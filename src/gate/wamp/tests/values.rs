//! Values that a client may write and others can't read, in raw bytes: refused, or rewritten.

use Serializer::{Cbor, Json, MsgPack};

use super::*;
use crate::call::CallRequest;

/// Checks the gate's output for a message, in bytes of its own serializer.
fn check_bytes(serializer: Serializer, message: &[u8], script: &str) {
    let mut gate = open(serializer);
    gate.receive(Bytes::copy_from_slice(message), Moment(1000));
    run(&mut gate, script);
}

const EXTENSION: &str = "an extension type of MessagePack at byte";

#[test]
fn what_can_be_written_anew_is() {
    for (serializer, message, request) in [
        (MsgPack, &b"\x95\x10\x05\x80\xa1a\x91\x81\x01\xa1x"[..], "publish a [{\"1\":\"x\"}]"),
        (MsgPack, b"\x96\x10\x05\x80\xa1a\x90\x81\xc3\x02", "publish a [] {\"true\":2}"),
        (Cbor, b"\x85\x10\x05\xa0\x61a\x81\xf7", "publish a [null]"),
        (Cbor, b"\x85\x18\x30\x05\xa0\x61a\x81\xa1\x01\x02", "call 5 a [{\"1\":2}]"),
        (Cbor, b"\x84\x18\x46\x05\xa0\x81\xc1\x07", "yield 5 [7]"),
        (Json, b"[16,5,{},\"a\",[\"\\ud800\"]]", "publish a [\"\u{fffd}\"]"),
        (
            Json,
            b"[16,5,{\"retain\":true,\"will\":\"\\udc00\"},\"a\"]",
            "publish a retain will [\"\u{fffd}\"]",
        ),
    ] {
        check_bytes(serializer, message, &format!("! {request}"));
        let mut gate = open(serializer);
        gate.receive(Bytes::copy_from_slice(message), Moment(1000));
        let payload = match gate.poll_request() {
            Some(Request::Publish { event, .. }) => event.payload,
            Some(Request::Call(CallRequest::Call(call))) => call.payload,
            Some(Request::Call(CallRequest::Yield { payload, .. })) => payload,
            other => panic!("{other:?}"),
        };
        for part in [payload.args, payload.kwargs].iter().filter(|part| !part.is_empty()) {
            assert!(!crate::payload::is_odd(serializer, part), "{request}");
        }
    }
}

#[test]
fn what_cannot_be_passed_on_is_refused_by_itself() {
    let extension = b"\xd4\x05\x00";
    let with = |head: &[u8]| [head, extension].concat();
    let sentence = |at: usize| format!("{EXTENSION} {at} can't be passed on to everybody");
    let invalid = "wamp.error.invalid_argument";
    let acknowledged = b"\x95\x10\x05\x81\xabacknowledge\xc3\xa1a\x91";
    for (message, answer) in [
        (with(acknowledged), format!("< [8,16,5,{{}},\"{invalid}\",[\"{}\"]]", sentence(21))),
        (with(b"\x95\x10\x05\x80\xa1a\x91"), format!("~ PUBLISH 5: {}", sentence(8))),
        (
            with(b"\x95\x30\x05\x80\xa1a\x91"),
            format!("< [8,48,5,{{}},\"{invalid}\",[\"{}\"]]", sentence(8)),
        ),
        (
            [&b"\x94\x20\x05\x81\xa6filter"[..], extension, b"\xa1a"].concat(),
            format!("< [8,32,5,{{}},\"{invalid}\",[\"{}\"]]", sentence(12)),
        ),
        (
            [&b"\x94\x40\x05\x81\xa1x"[..], extension, b"\xa1a"].concat(),
            format!("< [8,64,5,{{}},\"{invalid}\",[\"{}\"]]", sentence(7)),
        ),
        (with(b"\x94\x46\x05\x80\x91"), format!("! fail 5 {invalid} [\"{}\"]", sentence(6))),
        (
            with(b"\x96\x08\x44\x05\x80\xa1a\x91"),
            format!("! fail 5 {invalid} [\"{}\"]", sentence(9)),
        ),
    ] {
        check_bytes(MsgPack, &message, &answer);
    }
}

#[test]
fn what_is_nested_too_deeply_is_refused_by_itself() {
    let too_deep = limits::PAYLOAD_DEPTH + 1;
    for levels in [too_deep, 1000, 50_000] {
        let (json, rest) = ("[".repeat(levels), "]".repeat(levels));
        let [json, msgpack, cbor] = [
            [&b"[16,5,{},\"a\","[..], json.as_bytes(), rest.as_bytes(), b"]"].concat(),
            [&b"\x95\x10\x05\x80\xa1a"[..], &vec![0x91; levels - 1], b"\x90"].concat(),
            [&b"\x85\x10\x05\xa0\x61a"[..], &vec![0x9f; levels], &vec![0xff; levels]].concat(),
        ];
        for (serializer, message, at) in
            [(Json, json, 78), (MsgPack, msgpack, 71), (Cbor, cbor, 71)]
        {
            let sentence =
                format!("nested too deeply at byte {at} can't be passed on to everybody");
            check_bytes(serializer, &message, &format!("~ PUBLISH 5: {sentence}"));
        }
        // Dictionaries nested within keys, of which only the beginnings are there.
        let mut keys = [&b"\x95\x10\x05\x80\xa1a\x91"[..], &vec![0x81; levels], b"\xc0"].concat();
        keys.extend(vec![0xc0; levels]);
        let mut gate = open(MsgPack);
        gate.receive(keys.into(), Moment(1000));
        assert!(gate.poll_dropped().is_some() && gate.poll_request().is_none());
    }
}

/// wampy writes every number as a float when it uses CBOR.
#[test]
fn ids_may_be_whole_floats() {
    let float = |number: f64| [&[0xfb][..], &number.to_be_bytes()].concat();
    for (number, taken) in [
        (1.0, true),
        (9_007_199_254_740_992.0, true),
        (0.0, false),
        (-1.0, false),
        (1.5, false),
        (9_007_199_254_740_994.0, false),
        (f64::INFINITY, false),
        (f64::NAN, false),
    ] {
        let message = [&b"\x84"[..], &float(32.0), &float(number), b"\xa0\x61a"].concat();
        let mut gate = open(Cbor);
        gate.receive(message.into(), Moment(1000));
        let asked = gate.poll_request();
        assert_eq!(matches!(asked, Some(Request::Subscribe(_))), taken, "{number}: {asked:?}");
    }
    check_open(
        r#"
        > [32.0,1.0,{"after":7.0},"a"]
        ! subscribe 1 exact a after 7
        = subscribed 1
        < [33,1,1]
        > [34,2e0,1.0]
        ! unsubscribe 1
        = unsubscribed 1
        < [35,2]
        > [48,3.0,{"timeout":1e3},"a"]
        ! call 3 a within 1s
        > [49,30e-1,{}]
        ! cancel 3 KillNoWait
        > [64,4,{"concurrency":2.0},"a.b"]
        ! publish wamp/registration/register register a.b exact single 2
        "#,
    );
    // The text is above 2^53: only rounding would make it a valid id.
    let mut gate = open(Json);
    gate.receive(Bytes::from_static(b"[32,9007199254740993.0,{},\"a\"]"), Moment(1000));
    assert_eq!(gate.poll_request(), Some(Request::Close { drop_will: false }));
}

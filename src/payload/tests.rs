use base64::Engine;
use proptest::prelude::*;

use super::*;
use Serializer::{Cbor, Json, MsgPack};

mod random;

fn wamp(encoding: Encoding, args: &[u8], kwargs: &[u8]) -> Payload {
    Payload { encoding, args: Bytes::copy_from_slice(args), kwargs: Bytes::copy_from_slice(kwargs) }
}

fn raw(bytes: &[u8]) -> Payload {
    Payload::raw(Bytes::copy_from_slice(bytes))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A payload of these JSON texts in another serializer.
fn translated(serializer: Serializer, args: &str, kwargs: &str) -> Payload {
    let json = wamp(Encoding::Json, args.as_bytes(), kwargs.as_bytes());
    let Arguments { args, kwargs } = to_wamp(&json, serializer);
    Payload { encoding: serializer.encoding(), args, kwargs }
}

#[test]
fn from_wamp_to_everybody() {
    for (args, kwargs, mqtt) in [
        ("", "", ""),
        ("[]", "", ""),
        ("[]", "{}", ""),
        ("[1]", "", "1"),
        ("[\"a\"]", "", "\"a\""),
        ("[null]", "", "null"),
        ("[[]]", "", "[]"),
        ("[[1,2]]", "", "[1,2]"),
        ("[{\"a\":1}]", "", "{\"a\":1}"),
        ("[{\"a\":1}]", "{}", "{\"a\":1}"),
        ("[1,\"b\"]", "", "[1,\"b\"]"),
        ("[1]", "{\"k\":2}", "{\"args\":[1],\"kwargs\":{\"k\":2}}"),
        ("", "{\"k\":2}", "{\"args\":[],\"kwargs\":{\"k\":2}}"),
        ("[\"\\u0000AAH/\"]", "", "\"\\u0000AAH/\""),
        (
            "[-1,1.5,true,false,18446744073709551615]",
            "",
            "[-1,1.5,true,false,18446744073709551615]",
        ),
        ("[\"é\\n\\\"\\\\\"]", "", "\"é\\n\\\"\\\\\""),
    ] {
        for serializer in Serializer::ALL {
            let payload = translated(serializer, args, kwargs);
            assert_eq!(text(&to_mqtt(&payload)), mqtt, "{serializer:?} {args} {kwargs}");
            let expected = match mqtt {
                "" => Value::Null,
                _ => decode(Serializer::Json, mqtt.as_bytes()).unwrap(),
            };
            if kwargs.len() <= 2 {
                assert_eq!(value(&payload), expected, "{serializer:?} {args} {kwargs}");
            }
            for other in Serializer::ALL {
                let through = to_wamp(&payload, other);
                let direct = translated(other, args, kwargs);
                assert_eq!(through.args, direct.args, "{serializer:?} to {other:?}");
                // An empty dictionary of keywords counts as none, once it has to be read.
                let none = kwargs == "{}";
                assert!(none || through.kwargs == direct.kwargs, "{serializer:?} to {other:?}");
            }
        }
    }
}

#[test]
fn from_mqtt_to_everybody() {
    for (bytes, json) in [
        (&b""[..], "[]"),
        (b"1", "[1]"),
        (b" {\"a\": [1]} ", "[ {\"a\": [1]} ]"),
        (b"hello", "[\"hello\"]"),
        (b"{a}", "[\"{a}\"]"),
        (b"1 2", "[\"1 2\"]"),
        (b"1,2", "[\"1,2\"]"),
        (b"\"x\"", "[\"x\"]"),
        (b"\0", "[\"\\u0000AA==\"]"),
        (b"\0x", "[\"\\u0000AHg=\"]"),
        (b"1e400", "[\"1e400\"]"),
        (b"NaN", "[\"NaN\"]"),
        (b"[18446744073709551616]", "[\"[18446744073709551616]\"]"),
        (b"\"\\u0000x\"", "[\"\\\"\\\\u0000x\\\"\"]"),
        (b"{\"\\ud800\":\"\\udc00\"}", "[{\"\u{fffd}\":\"\u{fffd}\"}]"),
        (b"\xff\x00", "[\"\\u0000/wA=\"]"),
        (b"\"\\u0000/wA=\"", "[\"\\u0000/wA=\"]"),
    ] {
        let payload = raw(bytes);
        assert_eq!(to_mqtt(&payload), bytes);
        let args = to_wamp(&payload, Serializer::Json);
        assert_eq!((text(&args.args).as_str(), &args.kwargs[..]), (json, &b""[..]));
        for serializer in [Serializer::MsgPack, Serializer::Cbor] {
            let expected = decode(Serializer::Json, json.as_bytes()).unwrap();
            let args = to_wamp(&payload, serializer).args;
            assert_eq!(decode(serializer, &args), Ok(expected), "{bytes:?}");
        }
    }
    let binary = to_wamp(&raw(b"\xff\x00"), Serializer::MsgPack).args;
    assert_eq!(&binary[..], b"\x91\xc4\x02\xff\x00");
    let binary = to_wamp(&raw(b"\xff\x00"), Serializer::Cbor).args;
    assert_eq!(&binary[..], b"\x81\x42\xff\x00");
    assert_eq!(value(&raw(b"")), Value::Null);
    assert_eq!(value(&raw(b"[1,2]")), Value::List(vec![Value::Int(1), Value::Int(2)]));
    assert_eq!(value(&raw(b"off")), Value::Str("off".into()));
}

#[test]
fn the_value_of_an_event_is_its_arguments_and_not_its_keywords() {
    for (args, kwargs, expected, nothing) in [
        ("", "", "null", true),
        ("[]", "", "null", true),
        ("[]", "{}", "null", true),
        ("[null]", "", "null", true),
        ("[null]", "{}", "null", true),
        ("", "{\"k\":2}", "null", false),
        ("[]", "{\"k\":2}", "null", false),
        ("[null]", "{\"k\":null}", "null", false),
        ("[1]", "{\"k\":2}", "1", false),
        ("[{\"a\":1}]", "{\"args\":[2]}", "{\"a\":1}", false),
        ("[null,null]", "", "[null,null]", false),
        ("[[]]", "", "[]", false),
        ("[{}]", "", "{}", false),
        ("[0]", "", "0", false),
        ("[\"\"]", "", "\"\"", false),
    ] {
        for serializer in Serializer::ALL {
            let payload = translated(serializer, args, kwargs);
            let expected = decode(Serializer::Json, expected.as_bytes()).unwrap();
            assert_eq!(value(&payload), expected, "{serializer:?} {args} {kwargs}");
            assert_eq!(is_nothing(&payload), nothing, "{serializer:?} {args} {kwargs}");
        }
    }
    let spaces = " ".repeat(1000);
    assert!(is_nothing(&wamp(Encoding::Json, format!("{spaces}[{spaces}null ]").as_bytes(), b"")));
    for broken in [&b"\x91"[..], b"\x91\xc0\xc0", b"\xc0", b"\xc1"] {
        assert!(!is_nothing(&wamp(Encoding::MsgPack, broken, b"")), "{broken:?}");
    }
}

#[test]
fn only_an_mqtt_payload_without_bytes_is_nothing() {
    assert!(is_nothing(&raw(b"")));
    for bytes in [&b"null"[..], b" null", b"null\n", b"\"\"", b"[]", b"{}", b" ", b"\0", b"\xc0"] {
        assert!(!is_nothing(&raw(bytes)), "{bytes:?}");
    }
    assert_eq!(value(&raw(b"null")), Value::Null);
    assert_eq!(value(&raw(b" null")), Value::Null);
}

#[test]
fn the_same_serializer_copies_nothing() {
    for serializer in Serializer::ALL {
        let payload = translated(serializer, "[1,2]", "{\"a\":1}");
        let out = to_wamp(&payload, serializer);
        assert_eq!(out.args.as_ptr(), payload.args.as_ptr());
        assert_eq!(out.kwargs.as_ptr(), payload.kwargs.as_ptr());
    }
    let payload = wamp(Encoding::Json, b"[ {\"x\" : 1} ]", b"");
    assert_eq!(to_mqtt(&payload), &b"{\"x\" : 1}"[..]);
}

#[test]
fn what_was_stored_wrongly_is_still_shown() {
    let broken = wamp(Encoding::MsgPack, b"\xc1", b"\xc1");
    assert_eq!(text(&to_mqtt(&broken)), "\"\\u0000wQ==\"");
    assert_eq!(text(&to_wamp(&broken, Serializer::Json).args), "[\"\\u0000wQ==\"]");
    assert!(to_wamp(&broken, Serializer::Json).kwargs.is_empty());
}

#[test]
fn nesting_has_a_limit() {
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let at_most = limits::PAYLOAD_DEPTH;
    for serializer in Serializer::ALL {
        let nested = |levels: usize| match serializer {
            Serializer::Json => deep(levels).into_bytes(),
            Serializer::MsgPack => [vec![0x91; levels - 1], vec![0x90]].concat(),
            Serializer::Cbor => [vec![0x9f; levels], vec![0xff; levels]].concat(),
        };
        assert!(decode(serializer, &nested(at_most)).is_ok());
        assert_eq!(decode(serializer, &nested(at_most + 1)).unwrap_err().what, "nested too deeply");
        assert!(decode(serializer, &nested(1_000_000)).is_err());
        assert!(read::check(serializer, &nested(at_most), at_most).unwrap().unfit.is_none());
        assert!(read::check(serializer, &nested(at_most + 1), at_most).unwrap().unfit.is_some());
        assert!(read::check(serializer, &nested(1_000_000), at_most).is_err());
    }
    // A value from MQTT is put into a list.
    for (levels, is_json) in [(at_most - 1, true), (at_most, false)] {
        let args = to_wamp(&raw(deep(levels).as_bytes()), Serializer::MsgPack).args;
        assert!(
            matches!(
                (decode(Serializer::MsgPack, &args), is_json),
                (Ok(Value::List(list)), true) if matches!(list[..], [Value::List(_)]),
            ) || !is_json && text(&args).contains("[[[")
        );
        let args = to_wamp(&raw(deep(levels).as_bytes()), Serializer::Json).args;
        assert_eq!(args.starts_with(b"[["), is_json);
        assert!(decode(Serializer::Json, &args).is_ok());
    }
}

#[test]
fn bad_bytes_say_where() {
    let json = Serializer::Json;
    for (serializer, bytes, expected) in [
        (json, &b""[..], "cut short at byte 0"),
        (json, b"[1,]", "expected a JSON value at byte 3"),
        (json, b"[1 2]", "expected ',' or the end of the list or dictionary at byte 3"),
        (json, b"[1", "cut short at byte 2"),
        (json, b"{\"a\" 1}", "expected ':' at byte 5"),
        (json, b"{1:1}", "expected a string as key at byte 1"),
        (json, b"\"a", "cut short at byte 2"),
        (json, b"\"\\x\"", "no such escape in a string at byte 1"),
        (json, b"\"\\u12g4\"", "no such escape in a string at byte 1"),
        (json, b"\"sixteen and more bytes\n\"", "control character in a string at byte 23"),
        (json, b"\"\n\"", "control character in a string at byte 1"),
        (json, b"\"\xff\"", "text is not UTF-8 at byte 1"),
        (json, b"1 2", "something left over at byte 2"),
        (json, b"01", "something left over at byte 1"),
        (json, b"1.", "expected a digit at byte 2"),
        (json, b"nul", "expected a JSON value at byte 0"),
        (Serializer::MsgPack, b"\xc1", "marker that MessagePack does not use at byte 0"),
        (Serializer::MsgPack, b"\xa2a", "cut short at byte 1"),
        (Serializer::MsgPack, b"\xdd\xff\xff\xff\xff\x00", "cut short at byte 6"),
        (Serializer::MsgPack, b"\xa1\xff", "text that is not UTF-8 at byte 1"),
        (Serializer::MsgPack, b"\x01\x02", "something left over at byte 1"),
        (Serializer::Cbor, b"\xff", "an end without a beginning at byte 1"),
        (Serializer::Cbor, b"\xbf\x01\xff", "an end without a beginning at byte 3"),
        (Serializer::Cbor, b"\x1c", "a length that CBOR does not use at byte 1"),
        (Serializer::Cbor, b"\x1f", "a length is missing at byte 1"),
        (Serializer::Cbor, b"\x7f\x41a\xff", "a piece of another kind in a string at byte 2"),
        (Serializer::Cbor, b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "cut short at byte 9"),
        (Serializer::Cbor, b"\xe0", "a simple value that means nothing here at byte 1"),
        (Serializer::Cbor, b"\xc2\x01", "a big number that is not bytes at byte 2"),
    ] {
        let error = decode(serializer, bytes).unwrap_err();
        assert_eq!(error.to_string(), expected, "{bytes:?}");
    }
}

#[test]
fn each_serializer_has_its_own_spellings() {
    let string = |text: &str| Value::Str(text.into());
    for (serializer, bytes, expected) in [
        (
            Serializer::Json,
            &b"\"\\ud83d\\ude00 \\ud83d \\udc00\\u0041\""[..],
            string("😀 \u{fffd} \u{fffd}A"),
        ),
        (Serializer::Json, b"-0", Value::Float(-0.0)),
        (Serializer::Json, b"1e3", Value::Float(1000.0)),
        (Serializer::Json, b"-9223372036854775808", Value::Int(i64::MIN)),
        (Serializer::Json, b"\"\\u0000\"", Value::Bytes(vec![])),
        (Serializer::MsgPack, b"\xcf\x00\x00\x00\x00\x00\x00\x00\x05", Value::Int(5)),
        (Serializer::MsgPack, b"\xca\x3f\xc0\x00\x00", Value::Float(1.5)),
        (Serializer::MsgPack, b"\x81\x01\xc0", Value::Dict(vec![("1".into(), Value::Null)])),
        (Serializer::Cbor, b"\xf9\x3e\x00", Value::Float(1.5)),
        (Serializer::Cbor, b"\xf9\x00\x01", Value::Float(5.960_464_477_539_063e-8)),
        (Serializer::Cbor, b"\xf7", Value::Null),
        (Serializer::Cbor, b"\xd9\xd9\xf7\xc0\x61a", string("a")),
        (Serializer::Cbor, b"\x7f\x61a\x61b\xff", string("ab")),
        (Serializer::Cbor, b"\x5f\x41a\x41b\xff", Value::Bytes(b"ab".to_vec())),
        (
            Serializer::Cbor,
            b"\xbf\x61a\x9f\x01\xff\xff",
            Value::Dict(vec![("a".into(), Value::List(vec![Value::Int(1)]))]),
        ),
        (Serializer::Cbor, b"\xc2\x42\x01\x00", Value::Int(256)),
        (Serializer::Cbor, b"\xc3\x41\x00", Value::Int(-1)),
    ] {
        assert_eq!(decode(serializer, bytes), Ok(expected), "{bytes:?}");
    }
    assert_eq!(encode(Serializer::Json, &Value::Float(f64::NAN)), b"null");
}

#[test]
fn the_last_of_equal_keys_counts() {
    let dict = decode(Serializer::Json, b"{\"a\":1,\"b\":2,\"a\":3}").unwrap();
    assert_eq!(dict.get("a"), Some(&Value::Int(3)));
    assert_eq!(dict.get("c"), None);
    assert_eq!(Value::Null.get("a"), None);
}

/// The result for an incoming value: why it is refused, or what all receivers get, in JSON.
fn passed(serializer: Serializer, value: &[u8]) -> Result<String, &'static str> {
    let args = match serializer {
        Serializer::Json => [b"[", value, b"]"].concat(),
        Serializer::MsgPack => [b"\x91", value].concat(),
        Serializer::Cbor => [b"\x81", value].concat(),
    };
    let (unfit, odd) = elements(serializer, &args).map(|e| (e.unfit(), e.is_odd())).unwrap();
    if let Some(unfit) = unfit {
        return Err(unfit.what);
    }
    let args = if odd { mended(serializer, &args) } else { args.into() };
    let payload = Payload { encoding: serializer.encoding(), args, kwargs: Bytes::new() };
    let shown = Serializer::ALL.map(|to| {
        let args = to_wamp(&payload, to).args;
        let notes = read::check(to, &args, limits::PAYLOAD_DEPTH);
        assert_eq!(notes, Ok(Notes::default()), "{value:02x?} to {to:?}");
        text(&encode(Serializer::Json, &decode(to, &args).unwrap()))
    });
    assert_eq!(shown[0], shown[1], "{value:02x?}");
    assert_eq!(shown[0], shown[2], "{value:02x?}");
    Ok(shown[0][1..shown[0].len() - 1].to_owned())
}

const TAG: &str = "a CBOR tag whose content means nothing without it";
const EXTENSION: &str = "an extension type of MessagePack";
const KEY: &str = "a key that is no string";
const ALIKE: &str = read::ALIKE;
const SIMPLE: &str = "a simple value that means nothing here";
const ZERO: &str = "a string that begins with U+0000";
const FINITE: &str = token::NOT_FINITE;
const LARGE: &str = token::TOO_LARGE;
const UTF8: &str = "text that is not UTF-8";

/// An incoming value, and what all receivers get, or why it is refused.
type Row = (Serializer, &'static [u8], Result<&'static str, &'static str>);

const HOSTILE: &[Row] = &[
    // Keys that are not strings.
    (MsgPack, b"\x81\x01\xa1x", Ok("{\"1\":\"x\"}")),
    (MsgPack, b"\x81\xc0\xa1x", Ok("{\"null\":\"x\"}")),
    (MsgPack, b"\x81\xc3\x81\xff\xc0", Ok("{\"true\":{\"-1\":null}}")),
    (MsgPack, b"\x81\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\xc0", Ok("{\"1.5\":null}")),
    (MsgPack, b"\x81\xc4\x01a\xc0", Err(KEY)),
    (MsgPack, b"\x81\x91\x01\xc0", Err(KEY)),
    (MsgPack, b"\x81\x80\xc0", Err(KEY)),
    (MsgPack, b"\x82\x01\xc0\xa11\xc3", Err(ALIKE)),
    (MsgPack, b"\x82\x01\xc0\xa12\xc3", Ok("{\"1\":null,\"2\":true}")),
    (Cbor, b"\x81\xa3\x61x\x01\x02\x03\x612\x04", Err(ALIKE)),
    (Cbor, b"\xa1\x01\x61x", Ok("{\"1\":\"x\"}")),
    (Cbor, b"\xa1\x41a\xf6", Err(KEY)),
    (Cbor, b"\xbf\xf5\x01\xff", Ok("{\"true\":1}")),
    (Json, b"{\"a\":1,\"a\":2}", Ok("{\"a\":1,\"a\":2}")),
    (Json, b"{\"__proto__\":1}", Err("the key __proto__")),
    (Json, b"[{\"\\u005f_proto__\":1}]", Err("the key __proto__")),
    (Json, b"[\"__proto__\"]", Ok("[\"__proto__\"]")),
    // Numbers.
    (Json, b"9223372036854775807", Ok("9223372036854775807")),
    (Json, b"18446744073709551615", Ok("18446744073709551615")),
    (Json, b"18446744073709551616", Err(LARGE)),
    (Json, b"-9223372036854775808", Ok("-9223372036854775808")),
    (Json, b"-9223372036854775809", Err(LARGE)),
    (Json, b"-0", Ok("-0.0")),
    (Json, b"1e308", Ok("1e308")),
    (Json, b"1e400", Err(FINITE)),
    (Json, b"-1E400", Err(FINITE)),
    (Json, b"1e-400", Ok("0.0")),
    (Json, b"0.30000000000000004", Ok("0.30000000000000004")),
    (Json, b"NaN", Err(FINITE)),
    (Json, b"-Infinity", Err(FINITE)),
    (Json, b"{\"a\":Infinity}", Err(FINITE)),
    (MsgPack, b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", Ok("18446744073709551615")),
    (MsgPack, b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", Ok("-9223372036854775808")),
    (MsgPack, b"\xca\x3d\xcc\xcc\xcd", Ok("0.10000000149011612")),
    (MsgPack, b"\xca\x7f\xc0\x00\x00", Err(FINITE)),
    (MsgPack, b"\xcb\xff\xf0\x00\x00\x00\x00\x00\x00", Err(FINITE)),
    (Cbor, b"\xf9\x3e\x00", Ok("1.5")),
    (Cbor, b"\xf9\x7e\x00", Err(FINITE)),
    (Cbor, b"\xf9\x7c\x00", Err(FINITE)),
    (Cbor, b"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff", Ok("-9223372036854775808")),
    (Cbor, b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", Err(LARGE)),
    (Cbor, b"\xc2\x42\x01\x00", Ok("256")),
    (Cbor, b"\xc2\x49\x01\x00\x00\x00\x00\x00\x00\x00\x00", Err(LARGE)),
    (Cbor, b"\xc3\x48\xff\xff\xff\xff\xff\xff\xff\xff", Err(LARGE)),
    // Values that only one serializer can express.
    (MsgPack, b"\xd4\x00\x00", Ok("null")),
    (MsgPack, b"\xd6\xff\x00\x00\x00\x07", Ok("7")),
    (MsgPack, b"\xd7\xff\x77\x35\x94\x00\x00\x00\x00\x07", Ok("7.5")),
    (MsgPack, b"\xd7\xff\xff\xff\xff\xff\x00\x00\x00\x07", Err(EXTENSION)),
    (MsgPack, b"\xc7\x0c\xff\x1d\xcd\x65\x00\xff\xff\xff\xff\xff\xff\xff\xfe", Ok("-1.5")),
    (MsgPack, b"\xc7\x03\xff\x00\x00\x00", Err(EXTENSION)),
    (MsgPack, b"\x92\x01\xd4\x05\x00", Err(EXTENSION)),
    (Cbor, b"\xf7", Ok("null")),
    (Cbor, b"\x82\x01\xf7", Ok("[1,null]")),
    (Cbor, b"\xbf\x61a\x9f\x7f\x61b\x61c\xff\xff\xff", Ok("{\"a\":[\"bc\"]}")),
    (Cbor, b"\x5f\x41\xff\xff", Ok("\"\\u0000/w==\"")),
    (Cbor, b"\xf0", Err(SIMPLE)),
    (Cbor, b"\xf8\xff", Err(SIMPLE)),
    (Cbor, b"\xc0\x64soup", Ok("\"soup\"")),
    (Cbor, b"\xc1\x01", Ok("1")),
    (Cbor, b"\xd9\xd9\xf7\x01", Ok("1")),
    (Cbor, b"\xd9\x01\x02\x81\x01", Ok("[1]")),
    (Cbor, b"\xc4\x82\x21\x19\x6a\xb3", Err(TAG)),
    (Cbor, b"\xd8\x1c\x81\xd8\x1d\x00", Err(TAG)),
    (Cbor, b"\xd9\x01\x00\x80", Err(TAG)),
    // Strings.
    (Json, b"\"\\ud83d\\ude00\"", Ok("\"😀\"")),
    (Json, b"\"\\ud83d\"", Ok("\"\u{fffd}\"")),
    (Json, b"\"\\ud83dx\\ude00\"", Ok("\"\u{fffd}x\u{fffd}\"")),
    (Json, b"\"\\ud83d\\ud83d\\ude00\"", Ok("\"\u{fffd}😀\"")),
    (Json, b"{\"\\udc00\":1}", Ok("{\"\u{fffd}\":1}")),
    (Json, b"\"\\u0000AAH/\"", Ok("\"\\u0000AAH/\"")),
    (Json, b"\"\\u0000x\"", Err(ZERO)),
    (Json, b"\"x\\u0000\"", Ok("\"x\\u0000\"")),
    (Json, b"{\"\\u0000x\":1}", Ok("{\"\\u0000x\":1}")),
    (MsgPack, b"\xa2\x00x", Err(ZERO)),
    (MsgPack, b"\xa1\xff", Err(UTF8)),
    (MsgPack, b"\x81\xa1\xff\x01", Err(UTF8)),
    (MsgPack, b"\xa3\xed\xa0\x80", Err(UTF8)),
    (Cbor, b"\x62\x00x", Err(ZERO)),
    (Cbor, b"\x7f\x61\x00\x61x\xff", Err(ZERO)),
    (Cbor, b"\x61\xff", Err(UTF8)),
];

#[test]
fn no_value_ends_a_receiver() {
    for (serializer, value, expected) in HOSTILE {
        let found = passed(*serializer, value);
        assert_eq!(
            found.as_deref().map_err(|what| *what),
            *expected,
            "{serializer:?} {value:02x?}"
        );
    }
}

/// The values that grow most from one serializer to another, by their bytes in one of them.
#[test]
fn values_grow_no_more_than_the_limit_says() {
    const COUNT: u16 = 1000;
    let list = [&[0x99][..], &COUNT.to_be_bytes()].concat();
    let items: [(Serializer, &[u8]); 7] = [
        (Serializer::Cbor, &[0x40]),
        (Serializer::Cbor, &[0xf4]),
        (Serializer::Cbor, &[0x61, 0x01]),
        (Serializer::Cbor, &[0xf9, 0x00, 0x01]),
        (Serializer::MsgPack, &[0xc0]),
        (Serializer::MsgPack, &[0xc4, 0x00]),
        (Serializer::MsgPack, &[0xca, 0x00, 0x00, 0x00, 0x01]),
    ];
    let mut most = 0;
    for (serializer, item) in items {
        let head = match serializer {
            Serializer::Cbor => list.clone(),
            _ => [&[0xdc][..], &COUNT.to_be_bytes()].concat(),
        };
        let args = [head, item.repeat(COUNT.into())].concat();
        let payload = wamp(serializer.encoding(), &args, &[]);
        let json = to_wamp(&payload, Serializer::Json).args.len().max(to_mqtt(&payload).len());
        assert!(json <= limits::GROWTH * args.len(), "{serializer:?} {item:02x?}: {json}");
        most = most.max(json / args.len());
    }
    assert_eq!(most + 1, limits::GROWTH, "the limit is as small as it can be");
}

use base64::Engine;
use proptest::prelude::*;

use super::*;

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
            assert_eq!(value(&payload), expected, "{serializer:?} {args} {kwargs}");
            for other in Serializer::ALL {
                let through = to_wamp(&payload, other);
                let direct = translated(other, args, kwargs);
                assert_eq!(through.args, direct.args, "{serializer:?} to {other:?}");
                // An empty dictionary of keywords is none, once it has to be read.
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
        (b"\0", "[\"\\u0000\"]"),
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
            // JSON's word for an empty binary and for the string of one zero is the same.
            if bytes != b"\0" {
                assert_eq!(decode(serializer, &args), Ok(expected), "{bytes:?}");
            }
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
        assert!(read::check(serializer, &nested(at_most + 1), at_most).is_err());
    }
    // A list goes around what came from MQTT.
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
        (Serializer::Json, b"\"\\u0000not base64\"", string("\0not base64")),
        (Serializer::Json, b"\"\\u0000\"", Value::Bytes(vec![])),
        (Serializer::MsgPack, b"\xd6\xff\x01\x02\x03\x04", Value::Bytes(vec![1, 2, 3, 4])),
        (Serializer::MsgPack, b"\xcf\x00\x00\x00\x00\x00\x00\x00\x05", Value::Int(5)),
        (Serializer::MsgPack, b"\xca\x3f\xc0\x00\x00", Value::Float(1.5)),
        (Serializer::MsgPack, b"\x81\x01\xc0", Value::Dict(vec![("1".into(), Value::Null)])),
        (Serializer::MsgPack, b"\x81\x91\x01\xc0", Value::Dict(vec![("[1]".into(), Value::Null)])),
        (Serializer::Cbor, b"\xf9\x3e\x00", Value::Float(1.5)),
        (Serializer::Cbor, b"\xf9\x00\x01", Value::Float(5.960_464_477_539_063e-8)),
        (Serializer::Cbor, b"\xf9\xfc\x00", Value::Float(f64::NEG_INFINITY)),
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
        (
            Serializer::Cbor,
            b"\xc2\x49\x01\x00\x00\x00\x00\x00\x00\x00\x00",
            Value::Float(18_446_744_073_709_551_616.0),
        ),
        (
            Serializer::Cbor,
            b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
            Value::Float(-18_446_744_073_709_551_616.0),
        ),
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

/// Values that each serializer can say.
fn any_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-200i64..70_000).prop_map(Value::Int),
        any::<u64>().prop_map(Value::integer),
        any::<f64>()
            .prop_filter("JSON has none of these", |n| n.is_finite())
            .prop_map(Value::Float),
        "[^\\x00]\\PC{0,40}".prop_map(Value::Str),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
    ];
    scalar.prop_recursive(4, 64, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::List),
            prop::collection::vec(("\\PC{0,8}", inner), 0..20).prop_map(Value::Dict),
        ]
    })
}

fn serde_json_of(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(number) => (*number).into(),
        Value::UInt(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Str(text) => text.clone().into(),
        Value::Bytes(bytes) => format!("\0{}", BASE64.encode(bytes)).into(),
        Value::List(items) => items.iter().map(serde_json_of).collect(),
        Value::Dict(pairs) => serde_json::Value::Object(
            pairs.iter().map(|(k, v)| (k.clone(), serde_json_of(v))).collect(),
        ),
    }
}

fn without_floats(value: &Value) -> Value {
    match value {
        Value::Float(_) => Value::Null,
        Value::List(items) => Value::List(items.iter().map(without_floats).collect()),
        Value::Dict(pairs) => {
            Value::Dict(pairs.iter().map(|(k, v)| (k.clone(), without_floats(v))).collect())
        }
        other => other.clone(),
    }
}

fn ciborium_of(value: &Value) -> ciborium::Value {
    match value {
        Value::Null => ciborium::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(number) => (*number).into(),
        Value::UInt(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Str(text) => text.clone().into(),
        Value::Bytes(bytes) => bytes.clone().into(),
        Value::List(items) => ciborium::Value::Array(items.iter().map(ciborium_of).collect()),
        Value::Dict(pairs) => {
            let pair = |(k, v): &(String, Value)| (k.clone().into(), ciborium_of(v));
            ciborium::Value::Map(pairs.iter().map(pair).collect())
        }
    }
}

proptest! {
    #[test]
    fn a_value_survives_each_serializer(value in any_value()) {
        for serializer in Serializer::ALL {
            let bytes = encode(serializer, &value);
            prop_assert_eq!(decode(serializer, &bytes), Ok(value.clone()), "{:?}", serializer);
            prop_assert_eq!(read::check(serializer, &bytes, limits::PAYLOAD_DEPTH), Ok(()));
        }
    }

    #[test]
    fn others_write_the_same_and_read_what_we_write(value in any_value()) {
        // serde_json reads a float's last digit only nearly, so it gets none to read.
        let ours = encode(Serializer::Json, &without_floats(&value));
        let theirs = serde_json::from_slice::<serde_json::Value>(&ours).unwrap();
        prop_assert_eq!(theirs, serde_json_of(&without_floats(&value)));
        let theirs = serde_json::to_vec(&serde_json_of(&value)).unwrap();
        prop_assert_eq!(
            serde_json_of(&decode(Serializer::Json, &theirs).unwrap()),
            serde_json_of(&value)
        );

        let ours = encode(Serializer::Cbor, &value);
        prop_assert_eq!(ciborium::from_reader::<ciborium::Value, _>(&ours[..]).unwrap(), ciborium_of(&value));
        let mut theirs = Vec::new();
        ciborium::into_writer(&ciborium_of(&value), &mut theirs).unwrap();
        prop_assert_eq!(decode(Serializer::Cbor, &theirs), Ok(value.clone()));

        // MessagePack by way of CBOR's value, which keeps binaries apart from strings.
        let ours = encode(Serializer::MsgPack, &value);
        prop_assert_eq!(rmp_serde::from_slice::<ciborium::Value>(&ours).unwrap(), ciborium_of(&value));
        let theirs = rmp_serde::to_vec(&ciborium_of(&value)).unwrap();
        prop_assert_eq!(decode(Serializer::MsgPack, &theirs), Ok(value));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for serializer in Serializer::ALL {
            never_panics(serializer, &bytes)?;
        }
    }

    #[test]
    fn no_damage_makes_a_reader_panic(
        value in any_value(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for serializer in Serializer::ALL {
            let mut bytes = encode(serializer, &value);
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            never_panics(serializer, &bytes)?;
        }
    }

    #[test]
    fn json_is_what_serde_json_takes_for_it(text in "[\\[\\]{}:,\"\\\\ntrue0-9.eE+ u\\-]{0,12}") {
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        let ours = decode(Serializer::Json, text.as_bytes());
        // Numbers beyond a float are JSON; surrogates without their other half are, too.
        if !text.contains(['e', 'E', 'u']) {
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs);
        }
    }
}

fn never_panics(serializer: Serializer, bytes: &[u8]) -> Result<(), TestCaseError> {
    let decoded = decode(serializer, bytes);
    let checked = read::check(serializer, bytes, limits::PAYLOAD_DEPTH);
    prop_assert_eq!(decoded.err(), checked.err());
    let _ = elements(serializer, bytes);
    let _ = entries(serializer, bytes, |_, _| {});
    let payload = wamp(serializer.encoding(), bytes, bytes);
    for payload in [payload, raw(bytes)] {
        for to in Serializer::ALL {
            let Arguments { args, kwargs } = to_wamp(&payload, to);
            if payload.encoding != to.encoding() {
                prop_assert!(args.is_empty() || matches!(decode(to, &args), Ok(Value::List(_))));
                prop_assert!(
                    kwargs.is_empty() || matches!(decode(to, &kwargs), Ok(Value::Dict(_)))
                );
            }
        }
        let _ = (to_mqtt(&payload), value(&payload));
    }
    Ok(())
}

//! Random values and random bytes, through each serializer and back.

use super::*;

/// Values that each serializer can express.
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
            let notes = read::check(serializer, &bytes, limits::PAYLOAD_DEPTH);
            prop_assert_eq!(notes, Ok(Notes::default()));
        }
    }

    #[test]
    fn others_write_the_same_and_read_what_we_write(value in any_value()) {
        // serde_json reads a float's last digit only approximately, so floats are left out.
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
        // Numbers beyond a float are JSON; so are surrogates without their other half.
        if !text.contains(['e', 'E', 'u']) {
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs);
        }
    }
}

fn never_panics(serializer: Serializer, bytes: &[u8]) -> Result<(), TestCaseError> {
    let decoded = decode(serializer, bytes);
    let checked = read::check(serializer, bytes, limits::PAYLOAD_DEPTH);
    let refused = checked.map_or_else(Some, |notes| notes.unfit);
    prop_assert_eq!(decoded.err(), refused);
    let _ = elements(serializer, bytes);
    let _ = entries(serializer, bytes, |_, _| {});
    let payload = wamp(serializer.encoding(), bytes, bytes);
    for payload in [payload, raw(bytes)] {
        for to in Serializer::ALL {
            let Arguments { args, kwargs } = to_wamp(&payload, to);
            // Data of an older release may have values that are refused now.
            let read = |bytes: &[u8]| {
                read::decode(to, bytes, limits::PAYLOAD_DEPTH).ok().map(|read| read.0)
            };
            if payload.encoding != to.encoding() {
                prop_assert!(args.is_empty() || matches!(read(&args), Some(Value::List(_))));
                prop_assert!(kwargs.is_empty() || matches!(read(&kwargs), Some(Value::Dict(_))));
            }
        }
        let _ = (to_mqtt(&payload), value(&payload));
    }
    Ok(())
}

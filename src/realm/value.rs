//! The meaning of values for the realm's state: whether one fits a condition, and how two are merged.
//!
//! Invariant: deterministic, whatever serializer the values came in. Numbers are compared by value.
//!
//! Deliberately absent: payloads (`payload::value` gives their values).

use std::collections::HashMap;

use crate::payload::{self, Serializer};
use crate::types::event::{Encoding, Payload};
use crate::types::limits;
use crate::types::value::Value;

/// Fields that are searched one by one.
const FEW_FIELDS: usize = 16;

/// Whether a value fits a condition: `null` requires that there is none, an object requires each of its fields to be
/// there and fit, anything else requires the same value.
#[must_use]
pub fn fits(value: &Value, condition: &Value) -> bool {
    match condition {
        Value::Null => *value == Value::Null,
        Value::Dict(fields) => {
            let Value::Dict(pairs) = value else { return false };
            let known = Fields::new(pairs, fields.len());
            fields.iter().all(|(name, condition)| {
                known.get(name).is_some_and(|field| fits(field, condition))
            })
        }
        _ => same(value, condition),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Dict(a_fields), Value::Dict(b_fields)) => {
            let within = |fields: &[(String, Value)], others: &[(String, Value)]| {
                let others = Fields::new(others, fields.len());
                let is_there = |name: &str, value| others.get(name).is_some_and(|o| same(value, o));
                fields.iter().all(|(name, value)| is_there(name, value))
            };
            within(a_fields, b_fields) && within(b_fields, a_fields)
        }
        _ => a == b || number(a).is_some_and(|number_a| number(b) == Some(number_a)),
    }
}

/// The fields of an object, found by name: of two with the same name, the last one. Objects have as many fields as a client
/// likes, so many lookups in a large one go through an index.
enum Fields<'a> {
    Few(&'a [(String, Value)]),
    Many(HashMap<&'a str, &'a Value>),
}

impl<'a> Fields<'a> {
    fn new(pairs: &'a [(String, Value)], lookups: usize) -> Self {
        match lookups > 1 && pairs.len() > FEW_FIELDS {
            true => Self::Many(pairs.iter().map(|(name, value)| (name.as_str(), value)).collect()),
            false => Self::Few(pairs),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        match self {
            Self::Few(pairs) => {
                pairs.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
            }
            Self::Many(index) => index.get(name).copied(),
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::UInt(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}

/// Merges a value over another one: objects field by field, deeply; anything else replaces the old value.
#[must_use]
pub fn merged(old: Value, new: Value) -> Value {
    match (old, new) {
        (Value::Dict(mut fields), Value::Dict(news)) => {
            let mut places: HashMap<String, usize> =
                fields.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
            for (name, new) in news {
                match places.get(&name) {
                    Some(&at) => {
                        let old = std::mem::replace(&mut fields[at].1, Value::Null);
                        fields[at].1 = merged(old, new);
                    }
                    None => {
                        places.insert(name.clone(), fields.len());
                        fields.push((name, new));
                    }
                }
            }
            Value::Dict(fields)
        }
        (_, new) => new,
    }
}

/// The payload of a topic after merging an object into its value; the new payload if they are not both objects, or if
/// the result would be larger than an event may be. Keyword arguments are the newer event's.
#[must_use]
pub(super) fn merged_payload(old: &Payload, new_payload: &Payload) -> Payload {
    match (payload::value(old), payload::value(new_payload)) {
        (old @ Value::Dict(_), new @ Value::Dict(_)) => {
            let value = Value::List(vec![merged(old, new)]);
            let args: bytes::Bytes = payload::encode(Serializer::Json, &value).into();
            let kwargs = payload::kwargs(new_payload, Serializer::Json);
            let merged = Payload { encoding: Encoding::Json, args, kwargs };
            match merged.len() > limits::EVENT {
                true => new_payload.clone(),
                false => merged,
            }
        }
        _ => new_payload.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        payload::decode(Serializer::Json, text.as_bytes()).unwrap()
    }

    #[test]
    fn values_fit_conditions() {
        let fit = [
            ("null", "null"),
            ("{}", "{}"),
            (r#"{"a":1,"b":2}"#, r#"{"a":1}"#),
            (r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"b":1}}"#),
            (r#"{"a":null}"#, r#"{"a":null}"#),
            ("1", "1.0"),
            ("[1,2]", "[1.0,2]"),
            (r#"[{"a":1,"b":2}]"#, r#"[{"b":2,"a":1}]"#),
            (r#""x""#, r#""x""#),
        ];
        for (value, condition) in fit {
            assert!(fits(&json(value), &json(condition)), "{value} fits {condition}");
        }
        let unfit = [
            ("1", "null"),
            ("{}", "null"),
            ("null", "{}"),
            ("1", "{}"),
            (r#"{"b":2}"#, r#"{"a":1}"#),
            (r#"{"b":2}"#, r#"{"a":null}"#),
            ("[1]", "[1,2]"),
            ("true", "1"),
            (r#"[{"a":1,"b":2}]"#, r#"[{"b":2}]"#),
            (r#""1""#, "1"),
        ];
        for (value, condition) in unfit {
            assert!(!fits(&json(value), &json(condition)), "{value} does not fit {condition}");
        }
    }

    #[test]
    fn objects_merge_deeply_and_all_else_replaces() {
        let cases = [
            (r#"{"a":1,"b":{"c":2}}"#, r#"{"b":{"d":3}}"#, r#"{"a":1,"b":{"c":2,"d":3}}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":2}"#, r#"{"a":2}"#),
            ("[1]", r#"{"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":2}"#, "3", "3"),
        ];
        for (old, new, expected) in cases {
            assert_eq!(merged(json(old), json(new)), json(expected));
        }
    }

    /// All nodes do this at the same place in the order, and everybody waits for it.
    #[test]
    fn the_work_grows_with_the_fields_and_not_with_their_square() {
        const FIELDS: usize = 100_000;
        let object = |names: std::ops::Range<usize>| {
            Value::Dict(names.map(|name| (name.to_string(), Value::Int(1))).collect())
        };
        let (a, b) = (object(0..FIELDS), object(FIELDS / 2..FIELDS + FIELDS / 2));
        let started = tokio::time::Instant::now();
        assert!(fits(&a, &object(0..FIELDS)) && !fits(&a, &b));
        assert!(fits(&Value::List(vec![a.clone()]), &Value::List(vec![a.clone()])));
        assert_eq!(merged(a, b), object(0..FIELDS + FIELDS / 2));
        // The square is ten thousand million comparisons of names.
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[test]
    fn of_two_fields_with_one_name_the_last_counts() {
        let with = |more: i64, last: i64| {
            let filling = (0..more).map(|at| (format!("f{at}"), Value::Int(at)));
            let twice =
                [("a", 1), ("a", last)].map(|(name, value)| (name.into(), Value::Int(value)));
            Value::Dict(filling.chain(twice).collect())
        };
        let condition = json(r#"{"a":2,"f0":0}"#);
        for fields in [1, 100] {
            assert!(fits(&with(fields, 2), &condition) && !fits(&with(fields, 3), &condition));
            let merged = merged(with(fields, 2), json(r#"{"a":3}"#));
            assert_eq!(merged.get("a"), Some(&Value::Int(3)));
        }
    }

    #[test]
    fn what_grows_beyond_an_event_is_replaced() {
        let object = |name: &str| {
            let text = format!("{{\"{name}\":\"{}\"}}", "x".repeat(limits::EVENT / 2));
            Payload::raw(text.into())
        };
        let merged = merged_payload(&object("a"), &object("b"));
        assert_eq!(merged, object("b"));
        assert!(matches!(merged_payload(&object("a"), &object("a")).encoding, Encoding::Json));
    }

    #[test]
    fn merging_leaves_keywords_alone() {
        let wamp = |args: &'static str, kwargs: &'static str| Payload {
            encoding: Encoding::Json,
            args: args.into(),
            kwargs: kwargs.into(),
        };
        let old = wamp(r#"[{"a":1}]"#, r#"{"old":1}"#);
        let merged = merged_payload(&old, &wamp(r#"[{"b":2}]"#, r#"{"new":2}"#));
        assert_eq!(merged, wamp(r#"[{"a":1,"b":2}]"#, r#"{"new":2}"#));
        let no_value = wamp("[]", r#"{"new":2}"#);
        assert_eq!(merged_payload(&old, &no_value), no_value, "there is nothing to merge");
    }
}

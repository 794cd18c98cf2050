//! The meaning of values for the realm's state: whether one fits a condition, and how two are merged.
//!
//! Invariant: deterministic, whatever serializer the values came in. Numbers are compared by value.
//!
//! Deliberately absent: payloads (`payload::value` gives their values).

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;

use crate::payload::{self, Serializer};
use crate::types::event::{Encoding, Payload};
use crate::types::limits;
use crate::types::value::Value;

/// Up to this many fields are searched one by one.
const FEW_FIELDS: usize = 16;

/// A value that conditions are compared with. The objects in it are indexed once some of their fields have been searched: a
/// value may have 100,000 fields, and 10,000 publishes may wait for it to fit.
pub struct Compared<'a> {
    value: &'a Value,
    /// Fields that were searched one by one.
    searched: Cell<usize>,
    fields: OnceCell<HashMap<&'a str, Compared<'a>>>,
}

impl<'a> Compared<'a> {
    #[must_use]
    pub fn new(value: &'a Value) -> Self {
        Self { value, searched: Cell::new(0), fields: OnceCell::new() }
    }

    /// Whether it fits a condition. `null` requires that there is no value; an object requires that each of its fields is there
    /// and fits; anything else requires an equal value.
    #[must_use]
    pub fn fits(&self, condition: &Value) -> bool {
        match condition {
            Value::Null => *self.value == Value::Null,
            Value::Dict(conditions) => {
                let Value::Dict(pairs) = self.value else { return false };
                let searched = self.searched.get() + conditions.len();
                self.searched.set(searched);
                if searched <= FEW_FIELDS {
                    return conditions.iter().all(|(name, condition)| {
                        let found = pairs.iter().find(|(known, _)| known == name);
                        found.is_some_and(|(_, field)| Self::new(field).fits(condition))
                    });
                }
                let index = || pairs.iter().map(|(name, value)| (name.as_str(), Self::new(value)));
                let fields = self.fields.get_or_init(|| index().collect());
                conditions.iter().all(|(name, condition)| {
                    fields.get(name.as_str()).is_some_and(|field| field.fits(condition))
                })
            }
            _ => same(self.value, condition),
        }
    }
}

/// Whether a value fits a single condition; see [`Compared::fits`].
#[must_use]
pub fn fits(value: &Value, condition: &Value) -> bool {
    Compared::new(value).fits(condition)
}

/// Whether two values are equal. The order of an object's fields does not matter. No part is examined twice.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Dict(a), Value::Dict(b)) => {
            a.len() == b.len()
                && match a.len() > FEW_FIELDS {
                    true => {
                        let index: HashMap<&str, &Value> =
                            a.iter().map(|(name, value)| (name.as_str(), value)).collect();
                        b.iter()
                            .all(|(name, b)| index.get(name.as_str()).is_some_and(|a| same(a, b)))
                    }
                    false => b.iter().all(|(name, b)| {
                        a.iter().find(|(known, _)| known == name).is_some_and(|(_, a)| same(a, b))
                    }),
                }
        }
        _ => a == b || number(a).is_some_and(|number_a| number(b) == Some(number_a)),
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
        (Value::Dict(mut fields), Value::Dict(news)) if news.len() <= FEW_FIELDS => {
            for (name, new) in news {
                match fields.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, field)) => {
                        *field = merged(std::mem::replace(field, Value::Null), new);
                    }
                    None => fields.push((name, new)),
                }
            }
            Value::Dict(fields)
        }
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

/// The payload of a topic after merging an object into its value; nothing if they are not both objects, or if the result
/// would be larger than an event may be. Keyword arguments are the newer event's.
#[must_use]
pub(super) fn merged_payload(old: Value, new_payload: &Payload) -> Option<Payload> {
    let (Value::Dict(_), new @ Value::Dict(_)) = (&old, payload::value(new_payload)) else {
        return None;
    };
    let value = Value::List(vec![merged(old, new)]);
    let args: bytes::Bytes = payload::encode(Serializer::Json, &value).into();
    let kwargs = payload::kwargs(new_payload, Serializer::Json);
    let merged = Payload { encoding: Encoding::Json, args, kwargs };
    (merged.len() <= limits::EVENT).then_some(merged)
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

    #[test]
    fn what_grows_beyond_an_event_is_replaced() {
        let object = |name: &str| {
            let text = format!("{{\"{name}\":\"{}\"}}", "x".repeat(limits::EVENT / 2));
            Payload::raw(text.into())
        };
        let merge =
            |old: &str, new: &str| merged_payload(payload::value(&object(old)), &object(new));
        assert_eq!(merge("a", "b"), None);
        assert_eq!(merge("a", "a").map(|merged| merged.encoding), Some(Encoding::Json));
    }

    #[test]
    fn merging_leaves_keywords_alone() {
        let wamp = |args: &'static str, kwargs: &'static str| Payload {
            encoding: Encoding::Json,
            args: args.into(),
            kwargs: kwargs.into(),
        };
        let old = wamp(r#"[{"a":1}]"#, r#"{"old":1}"#);
        let merged = merged_payload(payload::value(&old), &wamp(r#"[{"b":2}]"#, r#"{"new":2}"#));
        assert_eq!(merged, Some(wamp(r#"[{"a":1,"b":2}]"#, r#"{"new":2}"#)));
        let no_value = wamp("[]", r#"{"new":2}"#);
        let merged = merged_payload(payload::value(&old), &no_value);
        assert_eq!(merged, None, "there is nothing to merge");
    }
}

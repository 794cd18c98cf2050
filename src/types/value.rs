//! A decoded value, independent of its serializer.
//!
//! Invariant: one number has one form: an integer is [`Value::Int`] wherever it fits.
//!
//! Deliberately absent: values that only one serializer can express. CBOR's tags become their content, and keys that
//! are not strings their JSON text.

use std::collections::{HashMap, VecDeque};

use xxhash_rust::xxh3::xxh3_64;

use serde::{Deserialize, Serialize};

/// Floats can represent all integers up to this one.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A decoded value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// Above `i64::MAX` only.
    UInt(u64),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    /// In the order they came; the last of equal keys counts.
    Dict(Vec<(String, Value)>),
}

impl Value {
    /// Bytes that it takes in memory, roughly.
    #[must_use]
    pub fn held(&self) -> usize {
        let held = match self {
            Self::Str(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(items) => items.iter().map(Self::held).sum(),
            Self::Dict(pairs) => {
                pairs.iter().map(|(key, v)| size_of::<String>() + key.len() + v.held()).sum()
            }
            _ => 0,
        };
        size_of::<Self>() + held
    }

    /// Whether a dictionary in it has a key more than once.
    #[must_use]
    pub fn repeats_keys(&self) -> bool {
        match self {
            Self::List(items) => items.iter().any(Self::repeats_keys),
            Self::Dict(pairs) => {
                may_repeat(pairs) || pairs.iter().any(|(_, value)| value.repeats_keys())
            }
            _ => false,
        }
    }

    /// The same value with each key of its dictionaries once.
    #[must_use]
    pub fn with_distinct_keys(self) -> Self {
        match self {
            Self::List(items) => {
                Self::List(items.into_iter().map(Self::with_distinct_keys).collect())
            }
            Self::Dict(mut pairs) => {
                if may_repeat(&pairs) {
                    let last: HashMap<&str, usize> =
                        pairs.iter().enumerate().map(|(at, (key, _))| (key.as_str(), at)).collect();
                    let is_last = |(at, (key, _)): (usize, &(String, Self))| {
                        last.get(key.as_str()) == Some(&at)
                    };
                    let mut counts: VecDeque<bool> =
                        pairs.iter().enumerate().map(is_last).collect();
                    pairs.retain(|_| counts.pop_front().unwrap_or_default());
                }
                Self::Dict(pairs.into_iter().map(|(k, v)| (k, v.with_distinct_keys())).collect())
            }
            other => other,
        }
    }

    /// An integer in its canonical form.
    #[must_use]
    pub fn integer(number: u64) -> Self {
        i64::try_from(number).map_or(Self::UInt(number), Self::Int)
    }

    /// Its value, if it is a non-negative integer; a whole float counts, as far as floats are exact.
    #[must_use]
    pub fn whole(&self) -> Option<u64> {
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::UInt(number) => Some(*number),
            Self::Float(number) => {
                let is_whole = number.fract() == 0.0 && (0.0..=EXACT).contains(number);
                is_whole.then_some(*number as u64)
            }
            _ => None,
        }
    }

    /// The value of a key, if this is a dictionary that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Dict(pairs) => pairs.iter().rev().find(|(name, _)| name == key).map(|(_, v)| v),
            _ => None,
        }
    }
}

/// Whether two keys may be the same: true if two of their hashes are. Sorting the hashes takes a fraction of the time of a
/// table of all keys, and few values need that table.
fn may_repeat(pairs: &[(String, Value)]) -> bool {
    match pairs {
        [] | [_] => false,
        [(a, _), (b, _)] => a == b,
        _ => {
            let mut hashes: Vec<u64> =
                pairs.iter().map(|(key, _)| xxh3_64(key.as_bytes())).collect();
            hashes.sort_unstable();
            hashes.windows(2).any(|pair| pair[0] == pair[1])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_keys_stays() {
        let dict = |pairs: &[(&str, Value)]| {
            Value::Dict(pairs.iter().map(|(key, value)| ((*key).into(), value.clone())).collect())
        };
        let one = |n| Value::Int(n);
        let inner = dict(&[("x", one(1)), ("x", one(2))]);
        let twice = dict(&[("a", one(1)), ("b", Value::List(vec![inner])), ("a", one(3))]);
        let inner = dict(&[("x", one(2))]);
        let once = dict(&[("b", Value::List(vec![inner])), ("a", one(3))]);
        assert_eq!(twice.with_distinct_keys(), once);
        assert_eq!(once.clone().with_distinct_keys(), once);
    }
}

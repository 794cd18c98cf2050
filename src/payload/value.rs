//! A decoded value, whatever it was written in.
//!
//! Invariant: one number has one form: an integer is [`Value::Int`] wherever it fits.
//!
//! Deliberately absent: what only one serializer can say. MessagePack's extensions become their bytes, CBOR's tags
//! their content, and keys that are not strings their JSON text.

use serde::{Deserialize, Serialize};

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
    /// An integer in the form that it has here.
    #[must_use]
    pub fn integer(number: u64) -> Self {
        i64::try_from(number).map_or(Self::UInt(number), Self::Int)
    }

    /// The value of a key, where this is a dictionary that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Dict(pairs) => pairs.iter().rev().find(|(name, _)| name == key).map(|(_, v)| v),
            _ => None,
        }
    }
}

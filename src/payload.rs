//! Payloads, and their conversion between WAMP's three serializers and MQTT.
//!
//! | from \ to | WAMP | MQTT |
//! |---|---|---|
//! | WAMP, same serializer | the same bytes | |
//! | WAMP | the same values | no argument: empty; one: its JSON; several: a JSON list; kwargs: `{"args": […], "kwargs": {…}}` |
//! | MQTT | empty: `args: []`; JSON: the one argument; other UTF-8: a string; other bytes: a binary | the same bytes |
//!
//! A binary is WAMP's own type if the serializer has one, and in JSON the string `"\0…"` with base64 after the zero
//! (WAMP basic profile, "Binary conversion of JSON Strings").
//!
//! WAMP publishes, calls and results are checked when they arrive, because a client that receives a value it can't represent
//! loses its session:
//!
//! | input | result |
//! |---|---|
//! | a key that is a number, a boolean or null | its JSON text; the last of equal keys counts |
//! | a CBOR tag, `undefined`, a time, half a surrogate pair in JSON | the tag's content, null, seconds since 1970, U+FFFD |
//! | CBOR without a length (indefinite) | the same with one |
//! | integers of more than 64 bits, NaN and infinities, `1e400` | refused |
//! | MessagePack's other extensions; tags whose content means nothing alone; other simple values; keys that are lists, dictionaries or binaries | refused |
//! | text that is not UTF-8; a string that begins with U+0000, unless it is JSON's binary | refused |
//! | nested deeper than [`limits::PAYLOAD_DEPTH`]; the key `__proto__` | refused |
//! | 64-bit integers, floats of any width | the same value for all; a fraction in JSON is the nearest float |
//!
//! An MQTT payload that is such JSON is a string to WAMP clients, and text that begins with U+0000 a binary.
//!
//! Readers and writers are our own because the gates need a combination in one pass that no crate offers: unchanged slices of a
//! message, a check of everything in them, and a limit on nesting. The tests compare them with serde_json, rmp-serde and
//! ciborium.
//!
//! Invariant: no bytes make a reader panic, and reading takes memory in proportion to the bytes. Refused values never
//! reach the log as a WAMP payload.
//!
//! Deliberately absent: messages (`gate`), and the meaning of values for `when` and `filter`.

mod cbor;
mod cursor;
mod json;
mod msgpack;
mod read;
mod token;
mod write;

use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

pub(crate) use self::read::{elements, entries, Elements, Kind};
pub use self::token::Malformed;
pub(crate) use self::write::Writer;

use self::token::Notes;
use crate::types::event::{Encoding, Payload};
use crate::types::limits;
use crate::types::value::Value;

/// WAMP's serializers: a WebSocket subprotocol is `wamp.2.` and the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Serializer {
    Json,
    MsgPack,
    Cbor,
}

impl Serializer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Json, Self::MsgPack, Self::Cbor];

    /// Whether its messages are WebSocket text and not binary.
    #[must_use]
    pub fn is_text(self) -> bool {
        self == Self::Json
    }

    /// The encoding of its payloads in an event.
    #[must_use]
    pub fn encoding(self) -> Encoding {
        match self {
            Self::Json => Encoding::Json,
            Self::MsgPack => Encoding::MsgPack,
            Self::Cbor => Encoding::Cbor,
        }
    }

    fn of(encoding: Encoding) -> Option<Self> {
        Some(match encoding {
            Encoding::Raw => return None,
            Encoding::Json => Self::Json,
            Encoding::MsgPack => Self::MsgPack,
            Encoding::Cbor => Self::Cbor,
        })
    }
}

/// A payload in WAMP's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// An encoded list, or empty.
    pub args: Bytes,
    /// An encoded dictionary, or empty.
    pub kwargs: Bytes,
}

/// Reads a single value.
///
/// # Errors
/// If the bytes are not exactly one value that can be passed on to all receivers.
pub fn decode(serializer: Serializer, bytes: &[u8]) -> Result<Value, Malformed> {
    decode_within(serializer, bytes, limits::PAYLOAD_DEPTH)
}

fn decode_within(serializer: Serializer, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
    let (value, notes) = read::decode(serializer, bytes, depth)?;
    notes.unfit.map_or(Ok(value), Err)
}

/// A value rewritten in the same serializer, so that nothing in it breaks a reader. An unreadable value is returned unchanged.
pub(crate) fn mended(serializer: Serializer, bytes: &[u8]) -> Bytes {
    match read::decode(serializer, bytes, limits::PAYLOAD_DEPTH) {
        Ok((value, _)) => encode(serializer, &value).into(),
        Err(_) => Bytes::copy_from_slice(bytes),
    }
}

/// Whether a value has to be [`mended`] before it is passed on.
pub(crate) fn is_odd(serializer: Serializer, bytes: &[u8]) -> bool {
    read::check(serializer, bytes, limits::PAYLOAD_DEPTH).is_ok_and(|notes| notes.odd)
}

/// Writes one value.
#[must_use]
pub fn encode(serializer: Serializer, value: &Value) -> Vec<u8> {
    let mut writer = Writer::new(serializer, 64);
    writer.value(value);
    writer.finish()
}

/// A payload for a WAMP client with this serializer. If it came in the same one, nothing is read or copied.
#[must_use]
pub fn to_wamp(payload: &Payload, serializer: Serializer) -> Arguments {
    let Some(from) = Serializer::of(payload.encoding) else {
        let args = raw_to_list(&payload.args, serializer);
        return Arguments { args, kwargs: Bytes::new() };
    };
    if from == serializer {
        return Arguments { args: payload.args.clone(), kwargs: payload.kwargs.clone() };
    }
    let translate = |part: Option<Value>| match part {
        Some(value) => encode(serializer, &value).into(),
        None => Bytes::new(),
    };
    let args = stored_args(from, &payload.args).map(Value::List);
    Arguments { args: translate(args), kwargs: translate(stored_kwargs(from, &payload.kwargs)) }
}

/// A payload for an MQTT client.
#[must_use]
pub fn to_mqtt(payload: &Payload) -> Bytes {
    let Some(from) = Serializer::of(payload.encoding) else { return payload.args.clone() };
    if from != Serializer::Json || !payload.kwargs.is_empty() {
        return match wamp_value(from, payload) {
            None => Bytes::new(),
            Some(value) => encode(Serializer::Json, &value).into(),
        };
    }
    if payload.args.is_empty() {
        return Bytes::new();
    }
    match elements(from, &payload.args) {
        Ok(list) if list.count() == 0 => Bytes::new(),
        Ok(list) if list.count() == 1 => payload.args.slice_ref(list.get(0).raw),
        _ => payload.args.clone(),
    }
}

/// Whether a payload is rewritten for a WAMP client with this serializer, or for an MQTT client if there is none. That may make
/// it [`limits::GROWTH`] times as large.
#[must_use]
pub(crate) fn is_translated(payload: &Payload, to: Option<Serializer>) -> bool {
    match (Serializer::of(payload.encoding), to) {
        (None, None) => false,
        (Some(Serializer::Json), None) => !payload.kwargs.is_empty(),
        (from, to) => from != to,
    }
}

/// The bytes of a payload for a WAMP client with this serializer, or for an MQTT client if there is none.
#[must_use]
pub(crate) fn translated_size(payload: &Payload, to: Option<Serializer>) -> usize {
    let Some(to) = to else { return to_mqtt(payload).len() };
    let Arguments { args, kwargs } = to_wamp(payload, to);
    args.len() + kwargs.len()
}

/// The value of an event, for `when`, `filter` and retained merges: null if there are no arguments, the single argument, else
/// the list; for MQTT the parsed JSON. Keyword arguments are headers: they travel with the event but are not part of its value.
#[must_use]
pub fn value(payload: &Payload) -> Value {
    let value = match Serializer::of(payload.encoding) {
        None if payload.args.is_empty() => Value::Null,
        None => raw_value(&payload.args),
        Some(from) => args_value(stored_args(from, &payload.args)).unwrap_or(Value::Null),
    };
    value.with_distinct_keys()
}

/// Whether a retained event with this payload deletes the value: an MQTT payload without bytes, or a WAMP payload with neither
/// arguments nor keywords, or with a single null. An MQTT payload of `null` does not delete.
#[must_use]
pub fn is_nothing(payload: &Payload) -> bool {
    match Serializer::of(payload.encoding) {
        None => payload.args.is_empty(),
        Some(from) => {
            read::is_nothing_or_null(from, &payload.args)
                && stored_kwargs(from, &payload.kwargs).is_none()
        }
    }
}

/// The keywords of a payload as an encoded dictionary of this serializer; empty if it has none.
#[must_use]
pub(crate) fn kwargs(payload: &Payload, serializer: Serializer) -> Bytes {
    let from = Serializer::of(payload.encoding);
    let kwargs = from.and_then(|from| stored_kwargs(from, &payload.kwargs));
    kwargs.map_or_else(Bytes::new, |kwargs| encode(serializer, &kwargs).into())
}

/// The arguments of a stored payload. A gate only accepts lists; any other bytes are shown as a binary.
fn stored_args(from: Serializer, bytes: &Bytes) -> Option<Vec<Value>> {
    match read::decode(from, bytes, limits::PAYLOAD_DEPTH) {
        _ if bytes.is_empty() => None,
        Ok((Value::List(args), _)) => Some(args),
        _ => Some(vec![Value::Bytes(bytes.to_vec())]),
    }
}

/// The keywords of a stored payload, if it has any.
fn stored_kwargs(from: Serializer, bytes: &Bytes) -> Option<Value> {
    match read::decode(from, bytes, limits::PAYLOAD_DEPTH) {
        Ok((Value::Dict(pairs), _)) if !pairs.is_empty() => Some(Value::Dict(pairs)),
        _ => None,
    }
}

/// The value sent to MQTT subscribers; `None` if there is neither argument nor keyword.
fn wamp_value(from: Serializer, payload: &Payload) -> Option<Value> {
    let args = stored_args(from, &payload.args);
    if let Some(kwargs) = stored_kwargs(from, &payload.kwargs) {
        let pair = |name: &str, value| (name.to_owned(), value);
        let args = Value::List(args.unwrap_or_default());
        return Some(Value::Dict(vec![pair("args", args), pair("kwargs", kwargs)]));
    }
    args_value(args)
}

/// The value of arguments.
fn args_value(args: Option<Vec<Value>>) -> Option<Value> {
    let mut args = args?;
    match args.len() {
        0 => None,
        1 => args.pop(),
        _ => Some(Value::List(args)),
    }
}

/// An MQTT payload as the single argument. It may be nested one level less deeply, because it is put into a list.
fn raw_value(bytes: &[u8]) -> Value {
    if let Ok(value) = decode_within(Serializer::Json, bytes, limits::PAYLOAD_DEPTH - 1) {
        return value;
    }
    match std::str::from_utf8(bytes) {
        // WAMP's JSON can't express a string that begins with a zero character.
        Ok(text) if !text.starts_with('\0') => Value::Str(text.to_owned()),
        _ => Value::Bytes(bytes.to_vec()),
    }
}

fn raw_to_list(bytes: &Bytes, serializer: Serializer) -> Bytes {
    let mut writer = Writer::new(serializer, bytes.len() + 16);
    if bytes.is_empty() {
        writer.begin_list(0);
    } else {
        writer.begin_list(1);
        let json = || read::check(Serializer::Json, bytes, limits::PAYLOAD_DEPTH - 1);
        if serializer == Serializer::Json && json().is_ok_and(|notes| notes == Notes::default()) {
            writer.raw(bytes);
        } else {
            writer.value(&raw_value(bytes));
        }
    }
    writer.end_list();
    writer.finish().into()
}

const BASE64: base64::engine::GeneralPurpose = STANDARD;

#[cfg(test)]
mod tests;

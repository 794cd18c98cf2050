//! Reading: what the three readers have in common, and what is built on it.
//!
//! Invariant: nothing here reads outside its bytes or recurses deeper than it was allowed to.
//!
//! Deliberately absent: the serializers' own grammar (`json`, `msgpack`, `cbor`).

use std::borrow::Cow;

use base64::Engine;

use super::{cbor, json, msgpack, Serializer, Value, Writer, BASE64};
use crate::limits;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Malformed {
    /// Where, from 0.
    pub at: usize,
    pub what: &'static str,
}

/// One scalar, or the beginning of a container.
#[derive(Debug, Clone)]
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    /// A JSON number, checked but not yet read.
    Number(&'a str),
    Text(Text<'a>),
    Bytes(Cow<'a, [u8]>),
    List(Inside),
    Dict(Inside),
}

/// A string.
#[derive(Debug, Clone)]
pub(super) enum Text<'a> {
    Plain(&'a str),
    /// What stands between the quotes in JSON, with escapes that were checked.
    Escaped(&'a str),
    /// Put together from pieces.
    Joined(String),
}

impl<'a> Text<'a> {
    fn into_cow(self) -> Cow<'a, str> {
        match self {
            Self::Plain(text) => Cow::Borrowed(text),
            Self::Escaped(raw) => Cow::Owned(json::unescape(raw)),
            Self::Joined(text) => Cow::Owned(text),
        }
    }
}

/// Where a reader stands in a container.
#[derive(Debug, Clone, Copy)]
pub(super) enum Inside {
    /// So many are left.
    Counted(u64),
    /// It goes on until this byte.
    Until { end: u8, first: bool },
}

impl Inside {
    pub(super) fn until(end: u8) -> Self {
        Self::Until { end, first: true }
    }
}

/// A serializer's reader.
pub(super) trait Read<'a>: Sized {
    fn new(bytes: &'a [u8]) -> Result<Self, Malformed>;

    fn bytes(&self) -> &'a [u8];

    /// Moves to where the next value begins, and returns it.
    fn begin(&mut self) -> usize;

    /// Where it stands: behind the last value read.
    fn position(&self) -> usize;

    fn token(&mut self) -> Result<Token<'a>, Malformed>;

    /// Reads a dictionary's key, and what separates it from its value.
    fn key(&mut self) -> Result<Token<'a>, Malformed>;

    /// Whether the container holds one more; reads what separates them, and its end.
    fn more(&mut self, inside: &mut Inside) -> Result<bool, Malformed>;

    fn malformed<T>(&self, what: &'static str) -> Result<T, Malformed> {
        Err(Malformed { at: self.position(), what })
    }

    fn end(&mut self) -> Result<(), Malformed> {
        match self.begin() == self.bytes().len() {
            true => Ok(()),
            false => self.malformed("something left over"),
        }
    }
}

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar,
    List,
    Dict,
}

/// One element of a list, left as it came.
#[derive(Debug, Clone)]
pub(crate) struct Element<'a> {
    pub(crate) raw: &'a [u8],
    /// How many it holds, where it is a container.
    pub(crate) items: u64,
    token: Token<'a>,
}

impl<'a> Element<'a> {
    pub(crate) fn kind(&self) -> Kind {
        match self.token {
            Token::List(_) => Kind::List,
            Token::Dict(_) => Kind::Dict,
            _ => Kind::Scalar,
        }
    }

    /// The integer it is, where it is one that is not negative.
    pub(crate) fn integer(&self) -> Option<u64> {
        match self.token {
            Token::Int(number) => u64::try_from(number).ok(),
            Token::UInt(number) => Some(number),
            Token::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The string it is, where it is one.
    pub(crate) fn text(&self) -> Option<Cow<'a, str>> {
        match &self.token {
            Token::Text(text) => Some(text.clone().into_cow()),
            _ => None,
        }
    }
}

/// Most elements of a list that [`elements`] keeps.
const ELEMENTS: usize = 8;

/// The elements of a list.
#[derive(Debug)]
pub(crate) struct Elements<'a> {
    kept: [Element<'a>; ELEMENTS],
    count: usize,
}

impl<'a> Elements<'a> {
    /// How many the list has, which may be more than are kept.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// One of the first eight; null behind the end.
    pub(crate) fn get(&self, at: usize) -> &Element<'a> {
        &self.kept[at]
    }
}

/// Checks a list whole, and tells where its elements stand. Each may be nested as deep as a payload.
pub(crate) fn elements(serializer: Serializer, bytes: &[u8]) -> Result<Elements<'_>, Malformed> {
    match serializer {
        Serializer::Json => elements_with(json::Reader::new(bytes)?),
        Serializer::MsgPack => elements_with(msgpack::Reader::new(bytes)?),
        Serializer::Cbor => elements_with(cbor::Reader::new(bytes)?),
    }
}

fn elements_with<'a, R: Read<'a>>(mut reader: R) -> Result<Elements<'a>, Malformed> {
    let Token::List(mut inside) = reader.token()? else {
        return Err(Malformed { at: 0, what: "expected a list" });
    };
    let nothing = Element { raw: &[], items: 0, token: Token::Null };
    let mut kept: [Element<'a>; ELEMENTS] = std::array::from_fn(|_| nothing.clone());
    let mut count = 0;
    while reader.more(&mut inside)? {
        let begin = reader.begin();
        let token = reader.token()?;
        let items = skip_rest(&mut reader, &token, limits::PAYLOAD_DEPTH)?;
        if let Some(place) = kept.get_mut(count) {
            *place = Element { raw: &reader.bytes()[begin..reader.position()], items, token };
        }
        count += 1;
    }
    reader.end()?;
    Ok(Elements { kept, count })
}

/// Shows each key of a dictionary with its value, left as it came.
pub(crate) fn entries<'a>(
    serializer: Serializer,
    bytes: &'a [u8],
    show: impl FnMut(&str, &'a [u8]),
) -> Result<(), Malformed> {
    match serializer {
        Serializer::Json => entries_with(json::Reader::new(bytes)?, show),
        Serializer::MsgPack => entries_with(msgpack::Reader::new(bytes)?, show),
        Serializer::Cbor => entries_with(cbor::Reader::new(bytes)?, show),
    }
}

fn entries_with<'a, R: Read<'a>>(
    mut reader: R,
    mut show: impl FnMut(&str, &'a [u8]),
) -> Result<(), Malformed> {
    let Token::Dict(mut inside) = reader.token()? else {
        return Err(Malformed { at: 0, what: "expected a dictionary" });
    };
    while reader.more(&mut inside)? {
        let key = reader.key()?;
        skip_rest(&mut reader, &key, limits::PAYLOAD_DEPTH)?;
        let begin = reader.begin();
        let token = reader.token()?;
        skip_rest(&mut reader, &token, limits::PAYLOAD_DEPTH)?;
        if let Token::Text(key) = key {
            show(&key.into_cow(), &reader.bytes()[begin..reader.position()]);
        }
    }
    reader.end()
}

/// Checks that the bytes are one value, nested no deeper than this.
pub(super) fn check(serializer: Serializer, bytes: &[u8], depth: usize) -> Result<(), Malformed> {
    match serializer {
        Serializer::Json => check_with(json::Reader::new(bytes)?, depth),
        Serializer::MsgPack => check_with(msgpack::Reader::new(bytes)?, depth),
        Serializer::Cbor => check_with(cbor::Reader::new(bytes)?, depth),
    }
}

fn check_with<'a, R: Read<'a>>(mut reader: R, depth: usize) -> Result<(), Malformed> {
    let token = reader.token()?;
    skip_rest(&mut reader, &token, depth)?;
    reader.end()
}

/// Reads what belongs to a token that was read, and returns how many it holds.
fn skip_rest<'a, R: Read<'a>>(
    reader: &mut R,
    token: &Token<'a>,
    depth: usize,
) -> Result<u64, Malformed> {
    let mut items = 0;
    match token {
        Token::List(inside) => {
            let (mut inside, depth) = (*inside, deeper(reader, depth)?);
            while reader.more(&mut inside)? {
                let token = reader.token()?;
                skip_rest(reader, &token, depth)?;
                items += 1;
            }
        }
        Token::Dict(inside) => {
            let (mut inside, depth) = (*inside, deeper(reader, depth)?);
            while reader.more(&mut inside)? {
                let key = reader.key()?;
                skip_rest(reader, &key, depth)?;
                let token = reader.token()?;
                skip_rest(reader, &token, depth)?;
                items += 1;
            }
        }
        _ => {}
    }
    Ok(items)
}

fn deeper<'a, R: Read<'a>>(reader: &R, depth: usize) -> Result<usize, Malformed> {
    depth.checked_sub(1).map_or_else(|| reader.malformed("nested too deeply"), Ok)
}

/// Reads one value, which must be all there is and nested no deeper than this.
pub(super) fn decode(
    serializer: Serializer,
    bytes: &[u8],
    depth: usize,
) -> Result<Value, Malformed> {
    match serializer {
        Serializer::Json => decode_with(json::Reader::new(bytes)?, depth),
        Serializer::MsgPack => decode_with(msgpack::Reader::new(bytes)?, depth),
        Serializer::Cbor => decode_with(cbor::Reader::new(bytes)?, depth),
    }
}

fn decode_with<'a, R: Read<'a>>(mut reader: R, depth: usize) -> Result<Value, Malformed> {
    let token = reader.token()?;
    let value = value_of(&mut reader, token, depth)?;
    reader.end()?;
    Ok(value)
}

fn value_of<'a, R: Read<'a>>(
    reader: &mut R,
    token: Token<'a>,
    depth: usize,
) -> Result<Value, Malformed> {
    Ok(match token {
        Token::Null => Value::Null,
        Token::Bool(value) => Value::Bool(value),
        Token::Int(number) => Value::Int(number),
        Token::UInt(number) => Value::integer(number),
        Token::Float(number) => Value::Float(number),
        Token::Number(text) => json::number(text),
        Token::Text(Text::Escaped(raw)) => binary_or_text(json::unescape(raw)),
        Token::Text(text) => Value::Str(text.into_cow().into_owned()),
        Token::Bytes(bytes) => Value::Bytes(bytes.into_owned()),
        Token::List(mut inside) => {
            let depth = deeper(reader, depth)?;
            let mut items = Vec::new();
            while reader.more(&mut inside)? {
                let token = reader.token()?;
                items.push(value_of(reader, token, depth)?);
            }
            Value::List(items)
        }
        Token::Dict(mut inside) => {
            let depth = deeper(reader, depth)?;
            let mut pairs = Vec::new();
            while reader.more(&mut inside)? {
                let key = reader.key()?;
                let key = key_of(reader, key, depth)?;
                let token = reader.token()?;
                pairs.push((key, value_of(reader, token, depth)?));
            }
            Value::Dict(pairs)
        }
    })
}

/// A key that is not a string goes by its JSON text.
fn key_of<'a, R: Read<'a>>(
    reader: &mut R,
    token: Token<'a>,
    depth: usize,
) -> Result<String, Malformed> {
    if let Token::Text(text) = token {
        return Ok(text.into_cow().into_owned());
    }
    let mut writer = Writer::new(Serializer::Json, 16);
    writer.value(&value_of(reader, token, depth)?);
    Ok(String::from_utf8_lossy(&writer.finish()).into_owned())
}

/// WAMP's binary in a JSON string: base64 behind a zero.
fn binary_or_text(text: String) -> Value {
    match text.strip_prefix('\0').map(|encoded| BASE64.decode(encoded)) {
        Some(Ok(bytes)) => Value::Bytes(bytes),
        _ => Value::Str(text),
    }
}

/// A place in bytes, for the binary serializers.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn malformed<T>(&self, what: &'static str) -> Result<T, Malformed> {
        Err(Malformed { at: self.at, what })
    }

    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => self.malformed("cut short"),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// A big-endian number of 1, 2, 4 or 8 bytes.
    pub(super) fn unsigned(&mut self, bytes: u64) -> Result<u64, Malformed> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub(super) fn text(&mut self, length: u64) -> Result<&'a str, Malformed> {
        let at = self.at;
        let what = "text that is not UTF-8";
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed { at, what })
    }
}

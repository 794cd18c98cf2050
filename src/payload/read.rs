//! Reading: values, elements and checks, built on the tokens of the three readers.
//!
//! Invariant: nothing here reads outside its bytes or recurses deeper than allowed.
//!
//! Deliberately absent: the serializers' own grammar (`json`, `msgpack`, `cbor`).

use std::borrow::Cow;

use base64::Engine;

use super::token::{Inside, Malformed, Notes, Read, Text, Token, NOT_FINITE};
use super::{cbor, json, msgpack, Serializer, Writer, BASE64};
use crate::types::limits;
use crate::types::value::Value;

impl<'a> Text<'a> {
    /// Whether every serializer can express it. In JSON a string that begins with a zero character is a binary in base64, or
    /// unreadable for clients.
    fn is_sayable(&self) -> bool {
        match self {
            Self::Plain(text) => !text.starts_with('\0'),
            Self::Joined(text) => !text.starts_with('\0'),
            Self::Escaped(raw) => {
                !raw.starts_with("\\u0000") || BASE64.decode(&json::unescape(raw)[1..]).is_ok()
            }
        }
    }

    fn is(&self, other: &str) -> bool {
        match self {
            Self::Plain(text) => *text == other,
            Self::Joined(text) => text == other,
            Self::Escaped(raw) => json::unescape(raw) == other,
        }
    }

    pub(super) fn into_cow(self) -> Cow<'a, str> {
        match self {
            Self::Plain(text) => Cow::Borrowed(text),
            Self::Escaped(raw) => Cow::Owned(json::unescape(raw)),
            Self::Joined(text) => Cow::Owned(text),
        }
    }
}

/// The kind of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar,
    List,
    Dict,
}

/// One element of a list, still encoded.
#[derive(Debug, Clone)]
pub(crate) struct Element<'a> {
    pub(crate) raw: &'a [u8],
    /// The number of its items, if it is a container.
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

    /// Its value, if it is a non-negative integer. Some clients write whole numbers as floats.
    pub(crate) fn integer(&self) -> Option<u64> {
        match self.token {
            Token::Int(number) => u64::try_from(number).ok(),
            Token::UInt(number) => Some(number),
            Token::Float(number) => Value::Float(number).whole(),
            Token::Number(text) => json::whole(text),
            _ => None,
        }
    }

    /// Its value, if it is a string.
    pub(crate) fn text(&self) -> Option<Cow<'a, str>> {
        match &self.token {
            Token::Text(text) => Some(text.clone().into_cow()),
            _ => None,
        }
    }
}

/// Most levels of nesting that are skipped in a value that is nested too deeply.
const DEEPEST: usize = 1 << 16;

/// A key for which JavaScript's MessagePack throws an error, because it is used to tamper with prototypes.
const PROTO: &str = "__proto__";

const TOO_DEEP: &str = "nested too deeply";

/// What is wrong with a dictionary that has the keys 1 and "1".
pub(super) const ALIKE: &str = "a dictionary with keys that are the same as text";

/// Most elements of a list that [`elements`] returns.
const ELEMENTS: usize = 8;

/// The elements of a list.
#[derive(Debug)]
pub(crate) struct Elements<'a> {
    kept: [Element<'a>; ELEMENTS],
    count: usize,
    notes: Notes,
}

impl<'a> Elements<'a> {
    /// The number of elements of the list, which may be more than are held here.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Why it can't be passed on: it holds something that only some receivers could read, or that none could exactly.
    pub(crate) fn unfit(&self) -> Option<Malformed> {
        self.notes.unfit
    }

    /// Whether its contents have to be rewritten, by [`super::mended`], before they are passed on.
    pub(crate) fn is_odd(&self) -> bool {
        self.notes.odd
    }

    /// One of the first eight elements; null beyond the end of the list.
    pub(crate) fn get(&self, at: usize) -> &Element<'a> {
        &self.kept[at]
    }
}

/// Checks a whole list, and finds its elements. Each may be nested as deep as a payload.
pub(crate) fn elements(serializer: Serializer, bytes: &[u8]) -> Result<Elements<'_>, Malformed> {
    let mut found = match serializer {
        Serializer::Json => elements_with(json::Reader::new(bytes)?),
        Serializer::MsgPack => elements_with(msgpack::Reader::new(bytes)?),
        Serializer::Cbor => elements_with(cbor::Reader::new(bytes)?),
    }?;
    if found.notes.odd && found.notes.unfit.is_none() && repeats_keys(serializer, bytes) {
        found.notes.unfit(0, ALIKE);
    }
    Ok(found)
}

/// Whether a dictionary in a list has keys that become equal once all keys are text: then only one of their values would
/// arrive.
fn repeats_keys(serializer: Serializer, bytes: &[u8]) -> bool {
    let list = decode(serializer, bytes, limits::PAYLOAD_DEPTH + 1);
    list.is_ok_and(|(list, _)| list.repeats_keys())
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
        let token = value_token(&mut reader)?;
        let items = skip_rest(&mut reader, &token, limits::PAYLOAD_DEPTH)?;
        if let Some(place) = kept.get_mut(count) {
            *place = Element { raw: &reader.bytes()[begin..reader.position()], items, token };
        }
        count += 1;
    }
    reader.end()?;
    Ok(Elements { kept, count, notes: *reader.notes() })
}

/// Passes on each key of a dictionary with its encoded value.
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

/// Whether bytes are empty, an empty list, or a list with a single null. Reads no further than necessary, however
/// long they are.
pub(super) fn is_nothing_or_null(serializer: Serializer, bytes: &[u8]) -> bool {
    let found = match serializer {
        _ if bytes.is_empty() => Ok(true),
        Serializer::Json => json::Reader::new(bytes).and_then(is_nothing_or_null_with),
        Serializer::MsgPack => msgpack::Reader::new(bytes).and_then(is_nothing_or_null_with),
        Serializer::Cbor => cbor::Reader::new(bytes).and_then(is_nothing_or_null_with),
    };
    found.unwrap_or(false)
}

fn is_nothing_or_null_with<'a, R: Read<'a>>(mut reader: R) -> Result<bool, Malformed> {
    let Token::List(mut inside) = reader.token()? else { return Ok(false) };
    if reader.more(&mut inside)?
        && (!matches!(reader.token()?, Token::Null) || reader.more(&mut inside)?)
    {
        return Ok(false);
    }
    reader.end().map(|()| true)
}

/// Checks a single value, nested no deeper than this.
pub(super) fn check(
    serializer: Serializer,
    bytes: &[u8],
    depth: usize,
) -> Result<Notes, Malformed> {
    match serializer {
        Serializer::Json => check_with(json::Reader::new(bytes)?, depth),
        Serializer::MsgPack => check_with(msgpack::Reader::new(bytes)?, depth),
        Serializer::Cbor => check_with(cbor::Reader::new(bytes)?, depth),
    }
}

fn check_with<'a, R: Read<'a>>(mut reader: R, depth: usize) -> Result<Notes, Malformed> {
    let token = value_token(&mut reader)?;
    skip_rest(&mut reader, &token, depth)?;
    reader.end()?;
    Ok(*reader.notes())
}

/// Reads a token that is a value or begins one, and notes what is wrong with it.
fn value_token<'a, R: Read<'a>>(reader: &mut R) -> Result<Token<'a>, Malformed> {
    let token = reader.token()?;
    let unfit = match &token {
        Token::Float(number) if !number.is_finite() => Some(NOT_FINITE),
        Token::Number(text) => json::unfit_number(text),
        Token::Text(text) if !text.is_sayable() => Some("a string that begins with U+0000"),
        _ => None,
    };
    if let Some(what) = unfit {
        let at = reader.position();
        reader.notes().unfit(at, what);
    }
    Ok(token)
}

/// Reads a key, and notes what is wrong with it. A number, boolean or null is read as its JSON text.
fn key_token<'a, R: Read<'a>>(reader: &mut R) -> Result<Token<'a>, Malformed> {
    let token = reader.key()?;
    let unfit = match &token {
        Token::Text(text) => {
            if text.is(PROTO) {
                let at = reader.position();
                reader.notes().unfit(at, "the key __proto__");
            }
            return Ok(token);
        }
        Token::Float(number) if !number.is_finite() => Some(NOT_FINITE),
        Token::List(_) | Token::Dict(_) | Token::Bytes(_) => Some("a key that is no string"),
        _ => None,
    };
    let at = reader.position();
    let notes = reader.notes();
    notes.odd = true;
    if let Some(what) = unfit {
        notes.unfit(at, what);
    }
    Ok(token)
}

/// Skips the rest of a value after its first token; returns the number of its items.
fn skip_rest<'a, R: Read<'a>>(
    reader: &mut R,
    token: &Token<'a>,
    depth: usize,
) -> Result<u64, Malformed> {
    let (Token::List(inside) | Token::Dict(inside)) = token else { return Ok(0) };
    let is_dict = matches!(token, Token::Dict(_));
    let Some(depth) = depth.checked_sub(1) else {
        let at = reader.position();
        reader.notes().unfit(at, TOO_DEEP);
        return skip_deep(reader, *inside, is_dict).map(|()| 0);
    };
    let (mut inside, mut items) = (*inside, 0);
    while reader.more(&mut inside)? {
        if is_dict {
            let key = key_token(reader)?;
            skip_rest(reader, &key, depth)?;
        }
        let token = value_token(reader)?;
        skip_rest(reader, &token, depth)?;
        items += 1;
    }
    Ok(items)
}

/// Skips what is nested too deeply, level by level with a stack on the heap: the rest of the message has to be read so that its
/// sender can get an error.
fn skip_deep<'a, R: Read<'a>>(
    reader: &mut R,
    inside: Inside,
    is_dict: bool,
) -> Result<(), Malformed> {
    // For each level: whether the value of a key comes next; `None` in a list.
    let mut levels = vec![(inside, is_dict.then_some(false))];
    while let Some((inside, value_next)) = levels.last_mut() {
        let token = if *value_next == Some(true) {
            *value_next = Some(false);
            reader.token()?
        } else if !reader.more(inside)? {
            levels.pop();
            continue;
        } else if let Some(value_next) = value_next {
            *value_next = true;
            reader.key()?
        } else {
            reader.token()?
        };
        match token {
            _ if levels.len() > DEEPEST => return reader.malformed(TOO_DEEP),
            Token::List(inside) => levels.push((inside, None)),
            Token::Dict(inside) => levels.push((inside, Some(false))),
            _ => {}
        }
    }
    Ok(())
}

fn deeper<'a, R: Read<'a>>(reader: &R, depth: usize) -> Result<usize, Malformed> {
    depth.checked_sub(1).map_or_else(|| reader.malformed(TOO_DEEP), Ok)
}

/// Reads a single value, nested no deeper than this, with the notes about it.
pub(super) fn decode(
    serializer: Serializer,
    bytes: &[u8],
    depth: usize,
) -> Result<(Value, Notes), Malformed> {
    match serializer {
        Serializer::Json => decode_with(json::Reader::new(bytes)?, depth),
        Serializer::MsgPack => decode_with(msgpack::Reader::new(bytes)?, depth),
        Serializer::Cbor => decode_with(cbor::Reader::new(bytes)?, depth),
    }
}

fn decode_with<'a, R: Read<'a>>(mut reader: R, depth: usize) -> Result<(Value, Notes), Malformed> {
    let token = value_token(&mut reader)?;
    let value = value_of(&mut reader, token, depth)?;
    reader.end()?;
    Ok((value, *reader.notes()))
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
                let token = value_token(reader)?;
                items.push(value_of(reader, token, depth)?);
            }
            Value::List(items)
        }
        Token::Dict(mut inside) => {
            let depth = deeper(reader, depth)?;
            let mut pairs = Vec::new();
            while reader.more(&mut inside)? {
                let key = key_token(reader)?;
                let key = key_of(reader, key, depth)?;
                let token = value_token(reader)?;
                pairs.push((key, value_of(reader, token, depth)?));
            }
            Value::Dict(pairs)
        }
    })
}

/// A key that is not a string becomes its JSON text.
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

/// WAMP's binary in a JSON string: base64 after a zero.
fn binary_or_text(text: String) -> Value {
    match text.strip_prefix('\0').map(|encoded| BASE64.decode(encoded)) {
        Some(Ok(bytes)) => Value::Bytes(bytes),
        _ => Value::Str(text),
    }
}

//! JSON (RFC 8259).
//!
//! Invariant: what the reader accepts without a note is JSON that every reader accepts. An escaped surrogate without
//! its other half, which the grammar allows and Unicode doesn't, is noted as odd and reads as U+FFFD; Python's `NaN`
//! and `Infinity`, which are not JSON, are noted as unfit.
//!
//! Deliberately absent: leniency. Comments and trailing commas are errors.

use super::token::{Inside, Malformed, Notes, Read, Text, Token, NOT_FINITE, TOO_LARGE};
use crate::types::value::Value;

pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    notes: Notes,
}

impl<'a> Read<'a> for Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let not_text =
            |e: std::str::Utf8Error| Malformed { at: e.valid_up_to(), what: "text is not UTF-8" };
        let text = std::str::from_utf8(bytes).map_err(not_text)?;
        Ok(Self { text, at: 0, notes: Notes::default() })
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn begin(&mut self) -> usize {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
        self.at
    }

    fn position(&self) -> usize {
        self.at
    }

    fn token(&mut self) -> Result<Token<'a>, Malformed> {
        self.begin();
        match self.peek() {
            Some(b'"') => self.string().map(Token::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'[') => Ok(Token::List(self.open(b']'))),
            Some(b'{') => Ok(Token::Dict(self.open(b'}'))),
            Some(b't') => self.word("true", Token::Bool(true)),
            Some(b'f') => self.word("false", Token::Bool(false)),
            Some(b'n') => self.word("null", Token::Null),
            Some(b'N') => self.not_finite("NaN"),
            Some(b'I') => self.not_finite("Infinity"),
            Some(_) => self.malformed("expected a JSON value"),
            None => self.malformed("cut short"),
        }
    }

    fn key(&mut self) -> Result<Token<'a>, Malformed> {
        self.begin();
        if self.peek() != Some(b'"') {
            return self.malformed("expected a string as key");
        }
        let key = self.string()?;
        self.begin();
        if self.peek() != Some(b':') {
            return self.malformed("expected ':'");
        }
        self.at += 1;
        Ok(Token::Text(key))
    }

    fn more(&mut self, inside: &mut Inside) -> Result<bool, Malformed> {
        let Inside::Until { end, first } = inside else { return Ok(false) };
        self.begin();
        let begins = std::mem::take(first);
        match self.peek() {
            Some(byte) if byte == *end => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !begins => {
                self.at += 1;
                Ok(true)
            }
            Some(_) if begins => Ok(true),
            Some(_) => self.malformed("expected ',' or the end of the list or dictionary"),
            None => self.malformed("cut short"),
        }
    }
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn open(&mut self, end: u8) -> Inside {
        self.at += 1;
        Inside::until(end)
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Result<Token<'a>, Malformed> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.malformed("expected a JSON value");
        }
        self.at += word.len();
        Ok(token)
    }

    /// Python's spelling of numbers that JSON does not have.
    fn not_finite(&mut self, word: &str) -> Result<Token<'a>, Malformed> {
        self.notes.unfit(self.at, NOT_FINITE);
        self.word(word, Token::Null)
    }

    fn string(&mut self) -> Result<Text<'a>, Malformed> {
        let bytes = self.text.as_bytes();
        let begin = self.at + 1;
        let mut at = begin;
        let mut escaped = false;
        // The offset where the other half of a surrogate pair has to be.
        let mut half = None;
        loop {
            at += plain(&bytes[at..]);
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    let length = self.escape(at)?;
                    half = self.surrogate(at, half);
                    at += length;
                }
                Some(_) => return Err(Malformed { at, what: "control character in a string" }),
                None => return Err(Malformed { at, what: "cut short" }),
            }
        }
        self.notes.odd |= half.is_some();
        self.at = at + 1;
        let text = &self.text[begin..at];
        Ok(if escaped { Text::Escaped(text) } else { Text::Plain(text) })
    }

    /// Length of the escape that begins here.
    fn escape(&self, at: usize) -> Result<usize, Malformed> {
        let bytes = &self.text.as_bytes()[at..];
        match bytes.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
            Some(b'u') if hex(bytes.get(2..6)).is_some() => Ok(6),
            _ => Err(Malformed { at, what: "no such escape in a string" }),
        }
    }

    /// Notes a surrogate without its other half. `half` is the offset where the previous surrogate's other half has to be;
    /// returns the same for this one.
    fn surrogate(&mut self, at: usize, half: Option<usize>) -> Option<usize> {
        let bytes = &self.text.as_bytes()[at..];
        let unit = bytes.strip_prefix(b"\\u").and_then(|digits| hex(digits.get(..4)));
        match unit {
            Some(0xdc00..=0xdfff) if half == Some(at) => return None,
            Some(0xdc00..=0xdfff) => self.notes.odd = true,
            _ => self.notes.odd |= half.is_some(),
        }
        matches!(unit, Some(0xd800..=0xdbff)).then_some(at + "\\uXXXX".len())
    }

    fn number(&mut self) -> Result<Token<'a>, Malformed> {
        let begin = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'I') if self.at > begin => return self.not_finite("Infinity"),
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Token::Number(&self.text[begin..self.at]))
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let begin = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == begin {
            return self.malformed("expected a digit");
        }
        Ok(())
    }
}

/// How many bytes at the front are ordinary characters of a string. It checks whole blocks first, which the compiler
/// turns into a few instructions each.
fn plain(bytes: &[u8]) -> usize {
    const BLOCK: usize = 16;
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    let is_plain = |block: &&[u8]| !block.iter().fold(false, |found, byte| found | special(byte));
    let blocks = bytes.chunks_exact(BLOCK).take_while(is_plain).count() * BLOCK;
    blocks + bytes[blocks..].iter().take_while(|byte| !special(byte)).count()
}

fn hex(digits: Option<&[u8]>) -> Option<u32> {
    digits?.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

/// Why a well-formed number can't be represented: it is an integer of more than 64 bits, or exceeds the largest float.
pub(super) fn unfit_number(text: &str) -> Option<&'static str> {
    /// Fewer digits always fit.
    const SHORT: usize = "-9223372036854775808".len() - 1;
    if text.len() < SHORT && !text.contains(['e', 'E']) {
        return None;
    }
    match number(text) {
        Value::Float(number) if !number.is_finite() => Some(NOT_FINITE),
        Value::Float(_) if !text.contains(['.', 'e', 'E']) && text != "-0" => Some(TOO_LARGE),
        _ => None,
    }
}

/// The value of a number if it is a non-negative integer, however it is spelled.
pub(super) fn whole(text: &str) -> Option<u64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (units, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{units}{fraction}");
    let significant = digits.trim_end_matches('0');
    // The power of ten of the significant digits.
    let power = exponent.parse::<i32>().ok()?;
    let power = power.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let power = power.checked_add(i32::try_from(digits.len() - significant.len()).ok()?)?;
    match significant.trim_start_matches('0') {
        "" => Some(0),
        significant => {
            let power = 10u64.checked_pow(u32::try_from(power).ok()?)?;
            significant.parse::<u64>().ok()?.checked_mul(power)
        }
    }
}

/// Reads a checked number.
pub(super) fn number(text: &str) -> Value {
    let is_integer = !text.contains(['.', 'e', 'E']) && text != "-0";
    if is_integer {
        if let Ok(number) = text.parse() {
            return Value::Int(number);
        }
        if let Ok(number) = text.parse() {
            return Value::UInt(number);
        }
    }
    Value::Float(text.parse().unwrap_or(f64::NAN))
}

/// Decodes the escapes of a checked string.
pub(super) fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escape = &rest[at..];
        let (character, length) = match escape.as_bytes().get(1) {
            Some(b'u') => unescape_unicode(escape),
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(b'"') => ('"', 2),
            Some(b'/') => ('/', 2),
            _ => ('\\', 2),
        };
        text.push(character);
        rest = escape.get(length..).unwrap_or_default();
    }
    text.push_str(rest);
    text
}

/// The character of `\uXXXX`, or of two that are a surrogate pair, and how many bytes they take.
fn unescape_unicode(escape: &str) -> (char, usize) {
    const LENGTH: usize = "\\uXXXX".len();
    let unit = |at: usize| {
        let digits = escape.as_bytes().get(at..at + LENGTH)?.strip_prefix(b"\\u")?;
        u16::try_from(hex(Some(digits))?).ok()
    };
    let units = [unit(0), unit(LENGTH)].into_iter().map_while(|unit| unit);
    match char::decode_utf16(units).next() {
        Some(Ok(character)) => (character, LENGTH * character.len_utf16()),
        // Half a pair is not a character, and the next escape is separate from it.
        Some(Err(_)) | None => (char::REPLACEMENT_CHARACTER, LENGTH),
    }
}

//! Writing values and messages, in any of the three serializers, into one buffer.
//!
//! Invariant: what the caller announces (`begin_list(3)`) is what it writes; integers and lengths take their shortest
//! form.
//!
//! Deliberately absent: values that only one serializer can express.

use base64::Engine;

use super::{Serializer, BASE64};
use crate::types::value::Value;

/// Writes one value after the other, with the separators in JSON.
#[derive(Debug)]
pub(crate) struct Writer {
    serializer: Serializer,
    buffer: Vec<u8>,
    /// In JSON: the next value is not the first one in its container.
    comma: bool,
}

impl Writer {
    pub(crate) fn new(serializer: Serializer, capacity: usize) -> Self {
        Self { serializer, buffer: Vec::with_capacity(capacity), comma: false }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.buffer
    }

    pub(crate) fn begin_list(&mut self, count: usize) {
        match self.serializer {
            Serializer::Json => self.open(b'['),
            Serializer::MsgPack if count < 16 => self.buffer.push(0x90 | count as u8),
            Serializer::MsgPack => self.msgpack_length([0xdc, 0xdc, 0xdd], count, false),
            Serializer::Cbor => self.cbor_head(4, count as u64),
        }
    }

    pub(crate) fn end_list(&mut self) {
        self.close(b']');
    }

    pub(crate) fn begin_dict(&mut self, count: usize) {
        match self.serializer {
            Serializer::Json => self.open(b'{'),
            Serializer::MsgPack if count < 16 => self.buffer.push(0x80 | count as u8),
            Serializer::MsgPack => self.msgpack_length([0xde, 0xde, 0xdf], count, false),
            Serializer::Cbor => self.cbor_head(5, count as u64),
        }
    }

    pub(crate) fn end_dict(&mut self) {
        self.close(b'}');
    }

    pub(crate) fn key(&mut self, key: &str) {
        self.text(key);
        if self.serializer == Serializer::Json {
            self.buffer.push(b':');
            self.comma = false;
        }
    }

    /// A value that is already encoded in this serializer.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.separate();
        self.buffer.extend_from_slice(bytes);
    }

    pub(crate) fn integer(&mut self, number: u64) {
        self.separate();
        match self.serializer {
            Serializer::Json => self.decimal(number),
            Serializer::MsgPack => self.msgpack_unsigned(number),
            Serializer::Cbor => self.cbor_head(0, number),
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.separate();
        match self.serializer {
            Serializer::Json => {
                self.buffer.push(b'"');
                self.json_escape(text);
                self.buffer.push(b'"');
            }
            Serializer::MsgPack => {
                match text.len() {
                    length @ 0..32 => self.buffer.push(0xa0 | length as u8),
                    length => self.msgpack_length([0xd9, 0xda, 0xdb], length, true),
                }
                self.buffer.extend_from_slice(text.as_bytes());
            }
            Serializer::Cbor => {
                self.cbor_head(3, text.len() as u64);
                self.buffer.extend_from_slice(text.as_bytes());
            }
        }
    }

    pub(crate) fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.constant(b"null", 0xc0, 0xf6),
            Value::Bool(false) => self.constant(b"false", 0xc2, 0xf4),
            Value::Bool(true) => self.constant(b"true", 0xc3, 0xf5),
            Value::Int(number) => match u64::try_from(*number) {
                Ok(number) => self.integer(number),
                Err(_) => self.negative(*number),
            },
            Value::UInt(number) => self.integer(*number),
            Value::Float(number) => self.float(*number),
            // In JSON such a string would be read as a binary.
            Value::Str(text) if self.serializer == Serializer::Json && text.starts_with('\0') => {
                self.binary(text.as_bytes());
            }
            Value::Str(text) => self.text(text),
            Value::Bytes(bytes) => self.binary(bytes),
            Value::List(items) => {
                self.begin_list(items.len());
                items.iter().for_each(|item| self.value(item));
                self.end_list();
            }
            Value::Dict(pairs) => {
                self.begin_dict(pairs.len());
                for (key, value) in pairs {
                    self.key(key);
                    self.value(value);
                }
                self.end_dict();
            }
        }
    }

    fn separate(&mut self) {
        if self.serializer == Serializer::Json {
            if self.comma {
                self.buffer.push(b',');
            }
            self.comma = true;
        }
    }

    fn open(&mut self, bracket: u8) {
        self.separate();
        self.buffer.push(bracket);
        self.comma = false;
    }

    fn close(&mut self, bracket: u8) {
        if self.serializer == Serializer::Json {
            self.buffer.push(bracket);
            self.comma = true;
        }
    }

    fn constant(&mut self, json: &[u8], msgpack: u8, cbor: u8) {
        self.separate();
        match self.serializer {
            Serializer::Json => self.buffer.extend_from_slice(json),
            Serializer::MsgPack => self.buffer.push(msgpack),
            Serializer::Cbor => self.buffer.push(cbor),
        }
    }

    fn negative(&mut self, number: i64) {
        self.separate();
        match self.serializer {
            Serializer::Json => {
                self.buffer.push(b'-');
                self.decimal(number.unsigned_abs());
            }
            Serializer::MsgPack => self.msgpack_negative(number),
            // CBOR encodes -1 - number, which for a negative number is its bitwise complement.
            Serializer::Cbor => self.cbor_head(1, !number as u64),
        }
    }

    fn float(&mut self, number: f64) {
        self.separate();
        match self.serializer {
            // Rust's shortest spelling that reads back as the same number is JSON.
            Serializer::Json if number.is_finite() => {
                self.buffer.extend_from_slice(format!("{number:?}").as_bytes());
            }
            // JSON can't express the others.
            Serializer::Json => self.buffer.extend_from_slice(b"null"),
            Serializer::MsgPack => self.marked(0xcb, &number.to_be_bytes()),
            Serializer::Cbor => self.marked(0xfb, &number.to_be_bytes()),
        }
    }

    fn binary(&mut self, bytes: &[u8]) {
        self.separate();
        match self.serializer {
            Serializer::Json => {
                self.buffer.extend_from_slice(b"\"\\u0000");
                self.buffer.extend_from_slice(BASE64.encode(bytes).as_bytes());
                self.buffer.push(b'"');
            }
            Serializer::MsgPack => {
                self.msgpack_length([0xc4, 0xc5, 0xc6], bytes.len(), true);
                self.buffer.extend_from_slice(bytes);
            }
            Serializer::Cbor => {
                self.cbor_head(2, bytes.len() as u64);
                self.buffer.extend_from_slice(bytes);
            }
        }
    }

    fn marked(&mut self, marker: u8, bytes: &[u8]) {
        self.buffer.push(marker);
        self.buffer.extend_from_slice(bytes);
    }

    fn decimal(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.buffer.extend_from_slice(&digits[at..]);
    }

    fn json_escape(&mut self, text: &str) {
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte >= 0x20 && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.buffer.extend_from_slice(&text.as_bytes()[plain..at]);
            plain = at + 1;
            match byte {
                b'"' | b'\\' => self.buffer.extend_from_slice(&[b'\\', byte]),
                b'\n' => self.buffer.extend_from_slice(b"\\n"),
                b'\r' => self.buffer.extend_from_slice(b"\\r"),
                b'\t' => self.buffer.extend_from_slice(b"\\t"),
                _ => self.buffer.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            }
        }
        self.buffer.extend_from_slice(&text.as_bytes()[plain..]);
    }

    /// A length after the marker for its width: one byte (if there is such a form), two, or four. Lengths come from a
    /// message that was read, so they fit.
    fn msgpack_length(&mut self, markers: [u8; 3], length: usize, has_short_form: bool) {
        match length {
            0..=0xff if has_short_form => self.marked(markers[0], &[length as u8]),
            0..=0xffff => self.marked(markers[1], &(length as u16).to_be_bytes()),
            _ => self.marked(markers[2], &(length as u32).to_be_bytes()),
        }
    }

    fn msgpack_unsigned(&mut self, number: u64) {
        match number {
            0..=0x7f => self.buffer.push(number as u8),
            0x80..=0xff => self.marked(0xcc, &[number as u8]),
            0x100..=0xffff => self.marked(0xcd, &(number as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.marked(0xce, &(number as u32).to_be_bytes()),
            _ => self.marked(0xcf, &number.to_be_bytes()),
        }
    }

    fn msgpack_negative(&mut self, number: i64) {
        if number >= -32 {
            self.buffer.push(number as u8);
        } else if let Ok(number) = i8::try_from(number) {
            self.marked(0xd0, &number.to_be_bytes());
        } else if let Ok(number) = i16::try_from(number) {
            self.marked(0xd1, &number.to_be_bytes());
        } else if let Ok(number) = i32::try_from(number) {
            self.marked(0xd2, &number.to_be_bytes());
        } else {
            self.marked(0xd3, &number.to_be_bytes());
        }
    }

    fn cbor_head(&mut self, major: u8, number: u64) {
        let major = major << 5;
        match number {
            0..24 => self.buffer.push(major | number as u8),
            24..=0xff => self.marked(major | 24, &[number as u8]),
            0x100..=0xffff => self.marked(major | 25, &(number as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.marked(major | 26, &(number as u32).to_be_bytes()),
            _ => self.marked(major | 27, &number.to_be_bytes()),
        }
    }
}

//! MessagePack (msgpack.org, specification of 2017).
//!
//! Invariant: strings are UTF-8.
//!
//! Deliberately absent: the meaning of extension types other than times. They are noted as unfit for other serializers, and
//! read as a binary.

use std::borrow::Cow;

use super::cursor::Cursor;
use super::token::{Inside, Malformed, Notes, Read, Token};

pub(super) struct Reader<'a>(Cursor<'a>);

impl<'a> Read<'a> for Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Ok(Self(Cursor::new(bytes)))
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.0.notes
    }

    fn bytes(&self) -> &'a [u8] {
        self.0.bytes
    }

    fn begin(&mut self) -> usize {
        self.0.at
    }

    fn position(&self) -> usize {
        self.0.at
    }

    fn token(&mut self) -> Result<Token<'a>, Malformed> {
        let marker = self.0.u8()?;
        // The n-th of a family of markers is followed by a number of 1, 2, 4 or 8 bytes.
        let width = |first: u8| 1u64 << (marker - first);
        Ok(match marker {
            0x00..=0x7f => Token::Int(i64::from(marker)),
            0x80..=0x8f => Token::Dict(Inside::Counted(u64::from(marker & 0x0f))),
            0x90..=0x9f => Token::List(Inside::Counted(u64::from(marker & 0x0f))),
            0xa0..=0xbf => self.text(u64::from(marker & 0x1f))?,
            0xc0 => Token::Null,
            0xc1 => {
                self.0.at -= 1;
                return self.malformed("marker that MessagePack does not use");
            }
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4..=0xc6 => {
                let length = self.0.unsigned(width(0xc4))?;
                self.binary(length)?
            }
            0xc7..=0xc9 => {
                let length = self.0.unsigned(width(0xc7))?;
                self.extension(length)?
            }
            0xca => Token::Float(f32::from_be_bytes(self.0.array()?).into()),
            0xcb => Token::Float(f64::from_be_bytes(self.0.array()?)),
            0xcc..=0xcf => Token::UInt(self.0.unsigned(width(0xcc))?),
            0xd0 => Token::Int(i8::from_be_bytes(self.0.array()?).into()),
            0xd1 => Token::Int(i16::from_be_bytes(self.0.array()?).into()),
            0xd2 => Token::Int(i32::from_be_bytes(self.0.array()?).into()),
            0xd3 => Token::Int(i64::from_be_bytes(self.0.array()?)),
            0xd4..=0xd8 => self.extension(width(0xd4))?,
            0xd9..=0xdb => {
                let length = self.0.unsigned(width(0xd9))?;
                self.text(length)?
            }
            0xdc | 0xdd => Token::List(Inside::Counted(self.0.unsigned(2 * width(0xdc))?)),
            0xde | 0xdf => Token::Dict(Inside::Counted(self.0.unsigned(2 * width(0xde))?)),
            0xe0..=0xff => Token::Int(i64::from(marker as i8)),
        })
    }

    fn key(&mut self) -> Result<Token<'a>, Malformed> {
        self.token()
    }

    fn more(&mut self, inside: &mut Inside) -> Result<bool, Malformed> {
        let Inside::Counted(left) = inside else { return Ok(false) };
        match left.checked_sub(1) {
            Some(less) => {
                *left = less;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

impl<'a> Reader<'a> {
    fn text(&mut self, length: u64) -> Result<Token<'a>, Malformed> {
        Ok(Token::Text(self.0.text(length)?))
    }

    fn binary(&mut self, length: u64) -> Result<Token<'a>, Malformed> {
        Ok(Token::Bytes(Cow::Borrowed(self.0.take(length)?)))
    }

    /// An extension. Times, and JavaScript's undefined as msgpackr writes it, can be expressed in every serializer.
    fn extension(&mut self, length: u64) -> Result<Token<'a>, Malformed> {
        let at = self.0.at;
        let kind = self.0.u8()?;
        let bytes = self.0.take(length)?;
        let token = match (kind as i8, bytes) {
            (0, [0]) => Some(Token::Null),
            (-1, bytes) => time(bytes),
            _ => None,
        };
        match token {
            Some(_) => self.0.notes.odd = true,
            None => self.0.notes.unfit(at, "an extension type of MessagePack"),
        }
        Ok(token.unwrap_or(Token::Bytes(Cow::Borrowed(bytes))))
    }
}

/// Seconds since 1970 (MessagePack, "Timestamp extension type"), like the content of CBOR's tag for a time.
fn time<'a>(bytes: &[u8]) -> Option<Token<'a>> {
    const SECONDS: u32 = 34;
    let unsigned = bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    let (seconds, nanoseconds) = match bytes {
        [_, _, _, _] => (i64::try_from(unsigned).ok()?, 0),
        [_, _, _, _, _, _, _, _] => {
            (i64::try_from(unsigned & ((1 << SECONDS) - 1)).ok()?, unsigned >> SECONDS)
        }
        [_, _, _, _, seconds @ ..] => {
            (i64::from_be_bytes(seconds.try_into().ok()?), unsigned >> u32::BITS)
        }
        _ => return None,
    };
    match nanoseconds {
        0 => Some(Token::Int(seconds)),
        // Close enough to this century that a float can represent microseconds.
        1..1_000_000_000 if seconds.unsigned_abs() < 1 << SECONDS => {
            Some(Token::Float(seconds as f64 + nanoseconds as f64 / 1e9))
        }
        _ => None,
    }
}

//! CBOR (RFC 8949).
//!
//! Invariant: text is UTF-8, in each chunk if it comes in chunks.
//!
//! Deliberately absent: the meaning of tags, which are read as their content. Only big numbers (tags 2 and 3) are numbers;
//! those beyond 64 bits, and tags whose content means nothing without them, are noted as unfit.

use std::borrow::Cow;

use super::cursor::Cursor;
use super::token::{Inside, Malformed, Notes, Read, Text, Token, TOO_LARGE};

/// Ends an item of indefinite length.
const BREAK: u8 = 0xff;

const BIG_POSITIVE: u64 = 2;
const BIG_NEGATIVE: u64 = 3;

/// Tags whose content means something else without them: decimals and big floats, references to other strings and
/// values, rationals.
const STRUCTURAL: [u64; 7] = [4, 5, 25, 28, 29, 30, 256];

pub(super) struct Reader<'a>(Cursor<'a>);

/// The argument after the major type.
enum Argument {
    Number(u64),
    Indefinite,
}

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
        loop {
            let head = self.0.u8()?;
            if head >> 5 == 7 {
                return self.simple(head & 31);
            }
            let argument = self.argument(head & 31)?;
            return Ok(match (head >> 5, argument) {
                (0, Argument::Number(number)) => Token::UInt(number),
                (1, Argument::Number(number)) => self.negative(number),
                (2, argument) => Token::Bytes(self.binary(argument)?),
                (3, argument) => Token::Text(self.text(argument)?),
                (4, argument) => Token::List(inside(argument)),
                (5, argument) => Token::Dict(inside(argument)),
                (6, Argument::Number(BIG_POSITIVE)) => self.big_number(false)?,
                (6, Argument::Number(BIG_NEGATIVE)) => self.big_number(true)?,
                (6, Argument::Number(tag)) => {
                    self.0.notes.odd = true;
                    if STRUCTURAL.contains(&tag) {
                        self.0.unfit("a CBOR tag whose content means nothing without it");
                    }
                    continue;
                }
                _ => return self.malformed("a length is missing"),
            });
        }
    }

    fn key(&mut self) -> Result<Token<'a>, Malformed> {
        self.token()
    }

    fn more(&mut self, inside: &mut Inside) -> Result<bool, Malformed> {
        match inside {
            Inside::Counted(0) => Ok(false),
            Inside::Counted(left) => {
                *left -= 1;
                Ok(true)
            }
            Inside::Until { .. } => Ok(!self.broken()),
        }
    }
}

impl<'a> Reader<'a> {
    fn argument(&mut self, minor: u8) -> Result<Argument, Malformed> {
        Ok(match minor {
            0..=23 => Argument::Number(u64::from(minor)),
            24..=27 => Argument::Number(self.0.unsigned(1 << (minor - 24))?),
            // Not every reader accepts these.
            31 => {
                self.0.notes.odd = true;
                Argument::Indefinite
            }
            _ => return self.malformed("a length that CBOR does not use"),
        })
    }

    /// Reads the end of an item of indefinite length, if it is here.
    fn broken(&mut self) -> bool {
        let broken = self.0.bytes.get(self.0.at) == Some(&BREAK);
        self.0.at += usize::from(broken);
        broken
    }

    fn simple(&mut self, minor: u8) -> Result<Token<'a>, Malformed> {
        Ok(match minor {
            20 => Token::Bool(false),
            21 => Token::Bool(true),
            22 => Token::Null,
            // JavaScript's undefined.
            23 => {
                self.0.notes.odd = true;
                Token::Null
            }
            25 => Token::Float(half(u16::from_be_bytes(self.0.array()?))),
            26 => Token::Float(f32::from_be_bytes(self.0.array()?).into()),
            27 => Token::Float(f64::from_be_bytes(self.0.array()?)),
            31 => return self.malformed("an end without a beginning"),
            // A simple value in a separate byte.
            24 => {
                self.0.u8()?;
                self.nothing()
            }
            0..=19 => self.nothing(),
            _ => return self.malformed("a length that CBOR does not use"),
        })
    }

    /// The number -1 - `number`.
    fn negative(&mut self, number: u64) -> Token<'a> {
        match i64::try_from(number) {
            Ok(number) => Token::Int(-1 - number),
            Err(_) => {
                self.0.unfit(TOO_LARGE);
                Token::Float(-1.0 - number as f64)
            }
        }
    }

    fn nothing(&mut self) -> Token<'a> {
        self.0.unfit("a simple value that means nothing here");
        Token::Null
    }

    fn binary(&mut self, argument: Argument) -> Result<Cow<'a, [u8]>, Malformed> {
        match argument {
            Argument::Number(length) => Ok(Cow::Borrowed(self.0.take(length)?)),
            Argument::Indefinite => {
                let mut joined = Vec::new();
                while !self.broken() {
                    let length = self.piece(2)?;
                    joined.extend_from_slice(self.0.take(length)?);
                }
                Ok(Cow::Owned(joined))
            }
        }
    }

    fn text(&mut self, argument: Argument) -> Result<Text<'a>, Malformed> {
        match argument {
            Argument::Number(length) => self.0.text(length),
            Argument::Indefinite => {
                let mut joined = String::new();
                while !self.broken() {
                    let length = self.piece(3)?;
                    joined.push_str(&self.0.text(length)?.into_cow());
                }
                Ok(Text::Joined(joined))
            }
        }
    }

    /// Length of one chunk of a chunked string.
    fn piece(&mut self, major: u8) -> Result<u64, Malformed> {
        let head = self.0.u8()?;
        match self.argument(head & 31)? {
            Argument::Number(length) if head >> 5 == major => Ok(length),
            _ => self.malformed("a piece of another kind in a string"),
        }
    }

    fn big_number(&mut self, is_negative: bool) -> Result<Token<'a>, Malformed> {
        let head = self.0.u8()?;
        if head >> 5 != 2 {
            return self.malformed("a big number that is not bytes");
        }
        let argument = self.argument(head & 31)?;
        let bytes = self.binary(argument)?;
        self.0.notes.odd = true;
        let significant = bytes.iter().position(|b| *b != 0).map_or(&[][..], |at| &bytes[at..]);
        if significant.len() <= 8 {
            let number = significant.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
            return Ok(if is_negative { self.negative(number) } else { Token::UInt(number) });
        }
        self.0.unfit(TOO_LARGE);
        let number = significant.iter().fold(0.0, |n, byte| n * 256.0 + f64::from(*byte));
        Ok(Token::Float(if is_negative { -1.0 - number } else { number }))
    }
}

fn inside(argument: Argument) -> Inside {
    match argument {
        Argument::Number(count) => Inside::Counted(count),
        Argument::Indefinite => Inside::until(BREAK),
    }
}

/// IEEE 754 binary16 (RFC 8949 appendix D).
fn half(bits: u16) -> f64 {
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f64::from(bits & 0x3ff);
    let magnitude = match exponent {
        0 => fraction * f64::powi(2.0, -24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1024.0) * f64::powi(2.0, exponent - 25),
    };
    if bits >> 15 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

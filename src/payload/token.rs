//! What the three readers have in common: each returns a value as the same tokens.
//!
//! Invariant: a reader reads nothing beyond the end of its bytes, and its tokens borrow from them.
//!
//! Deliberately absent: the serializers' own grammar (`json`, `msgpack`, `cbor`), and what is built of tokens (`read`).

use std::borrow::Cow;

pub(super) const NOT_FINITE: &str = "a number that is not finite";
pub(super) const TOO_LARGE: &str = "an integer of more than 64 bits";

/// Bytes that are not valid.
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
    /// JSON text between the quotes, with checked escapes.
    Escaped(&'a str),
    /// Put together from pieces.
    Joined(String),
}

/// A reader's position in a container.
#[derive(Debug, Clone, Copy)]
pub(super) enum Inside {
    /// This many elements are left.
    Counted(u64),
    /// It continues until this byte.
    Until { end: u8, first: bool },
}

impl Inside {
    pub(super) fn until(end: u8) -> Self {
        Self::Until { end, first: true }
    }
}

/// What a reader found that is well-formed but can't be passed on unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// The first value that can't be represented for all receivers.
    pub(super) unfit: Option<Malformed>,
    /// Something is encoded in a way that breaks other readers, and can be encoded differently: it has to be rewritten.
    pub(super) odd: bool,
}

impl Notes {
    pub(super) fn unfit(&mut self, at: usize, what: &'static str) {
        self.unfit.get_or_insert(Malformed { at, what });
    }
}

/// A serializer's reader.
pub(super) trait Read<'a>: Sized {
    fn new(bytes: &'a [u8]) -> Result<Self, Malformed>;

    /// Its notes so far.
    fn notes(&mut self) -> &mut Notes;

    fn bytes(&self) -> &'a [u8];

    /// Moves to where the next value begins, and returns that offset.
    fn begin(&mut self) -> usize;

    /// Its offset: after the last value read.
    fn position(&self) -> usize;

    fn token(&mut self) -> Result<Token<'a>, Malformed>;

    /// Reads a dictionary's key, and what separates it from its value.
    fn key(&mut self) -> Result<Token<'a>, Malformed>;

    /// Whether the container has another element; reads separators and the end of the container.
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

//! A cursor over bytes, shared by the readers of the binary serializers.
//!
//! Invariant: nothing is read beyond the end.
//!
//! Deliberately absent: anything specific to a serializer.

use super::token::{Malformed, Notes, Text};

const NOT_UTF8: &str = "text that is not UTF-8";

#[derive(Debug)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    pub(super) notes: Notes,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, notes: Notes::default() }
    }

    pub(super) fn unfit(&mut self, what: &'static str) {
        self.notes.unfit(self.at, what);
    }

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

    /// Text; invalid text is noted, and read with replacement characters.
    pub(super) fn text(&mut self, length: u64) -> Result<Text<'a>, Malformed> {
        let at = self.at;
        let bytes = self.take(length)?;
        Ok(match std::str::from_utf8(bytes) {
            Ok(text) => Text::Plain(text),
            Err(_) => {
                self.notes.unfit(at, NOT_UTF8);
                Text::Joined(String::from_utf8_lossy(bytes).into_owned())
            }
        })
    }
}

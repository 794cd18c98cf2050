//! Extension fields of an event: what it carries beside its fixed parts. Each is a tag and some bytes.
//!
//! ```text
//! per field: tag, length of the value (varints), value; tags ascend strictly, 0 is none
//! ```
//!
//! A field with an even tag is *critical*: a node that does not know it shows the event to nobody, because the field may say
//! who is to see it or how its payload is to be read. A field with an odd tag may be ignored.
//!
//! Invariant: the bytes are well-formed and within the limits, and a field that is not known is passed on unaltered.
//! Which fields this release knows decides only what a node shows. The fold carries fields and never looks at them, so
//! that releases that know different tags come to the same state; a field that the fold has to act on needs another
//! [`LOG_FORMAT`](vulpes_raft::format::LOG_FORMAT).
//!
//! Deliberately absent: what fields mean. No tag is in use yet.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{limits, varint};

/// Names a field. Persisted: a number that was in use is never given another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tag(pub u32);

/// The tags that this release understands.
const KNOWN: &[Tag] = &[];

impl Tag {
    /// Whether an event with this field must be withheld by a node that does not know it.
    #[must_use]
    pub fn is_critical(self) -> bool {
        self.0 % 2 == 0
    }
}

/// The fields of one event, as they stand in its segment. Mostly none, which takes no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Extensions(Bytes);

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub tag: Tag,
    pub value: &'a [u8],
}

/// The fields can't stand in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionsError {
    #[error("an event's extension fields may take {} bytes together", limits::EXTENSION_BYTES)]
    TooLong,
    #[error("an event may have {} extension fields", limits::EXTENSION_FIELDS)]
    TooMany,
    #[error("extension fields have to stand in ascending order of their tags, each of them once")]
    OutOfOrder,
    #[error("extension fields are cut short")]
    CutShort,
}

impl Extensions {
    /// Encodes fields, which come in ascending order of their tags.
    ///
    /// # Errors
    /// Where they are out of order, or pass a limit.
    pub fn new(fields: &[Field<'_>]) -> Result<Self, ExtensionsError> {
        let value_bytes = fields.iter().map(|field| field.value.len()).sum::<usize>();
        if value_bytes > limits::EXTENSION_BYTES {
            return Err(ExtensionsError::TooLong);
        }
        let mut bytes = Vec::with_capacity(value_bytes + fields.len() * 2);
        for Field { tag, value } in fields {
            varint::put(&mut bytes, tag.0);
            varint::put(&mut bytes, value.len() as u32);
            bytes.extend_from_slice(value);
        }
        Self::parse(bytes.into())
    }

    /// Checks encoded fields. Costs no more than they are long.
    ///
    /// # Errors
    /// Where they are not well-formed, or pass a limit.
    pub fn parse(bytes: Bytes) -> Result<Self, ExtensionsError> {
        check(&bytes)?;
        Ok(Self(bytes))
    }

    /// Encoded fields that were checked before.
    pub(crate) fn checked(bytes: Bytes) -> Self {
        debug_assert_eq!(check(&bytes), Ok(()));
        Self(bytes)
    }

    /// The encoded fields.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes that they take.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields, in ascending order of their tags.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        Fields(&self.0).map_while(Result::ok)
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, tag: Tag) -> Option<&[u8]> {
        self.fields().find(|field| field.tag == tag).map(|field| field.value)
    }

    /// Whether this release must not show the event: it has a critical field that this release does not know.
    #[must_use]
    pub fn withhold(&self) -> bool {
        self.fields().any(|field| field.tag.is_critical() && !KNOWN.contains(&field.tag))
    }

    /// Whether there is a critical field, known or not.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        self.fields().any(|field| field.tag.is_critical())
    }

    /// The same in memory of its own: what is kept for long must not hold on to the segment it came in.
    #[must_use]
    pub fn copied(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

/// Checks encoded fields.
fn check(bytes: &[u8]) -> Result<(), ExtensionsError> {
    if bytes.len() > limits::EXTENSION_BYTES {
        return Err(ExtensionsError::TooLong);
    }
    let mut last = Tag(0);
    for (at, field) in Fields(bytes).enumerate() {
        let tag = field?.tag;
        if at == limits::EXTENSION_FIELDS {
            return Err(ExtensionsError::TooMany);
        }
        if tag <= last {
            return Err(ExtensionsError::OutOfOrder);
        }
        last = tag;
    }
    Ok(())
}

/// Reads fields one by one; ends behind the first error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, ExtensionsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = split_field(self.0);
        self.0 = field.map_or(&[], |(_, rest)| rest);
        Some(field.map(|(field, _)| field).ok_or(ExtensionsError::CutShort))
    }
}

fn split_field(bytes: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let (tag, tag_len) = varint::read(bytes)?;
    let bytes = &bytes[tag_len..];
    let (length, length_len) = varint::read(bytes)?;
    let (value, rest) = bytes[length_len..].split_at_checked(length as usize)?;
    Some((Field { tag: Tag(tag), value }, rest))
}

#[cfg(test)]
mod tests;

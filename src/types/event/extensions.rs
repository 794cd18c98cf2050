//! Extension fields of an event, in addition to its fixed parts. Each is a tag and some bytes.
//!
//! ```text
//! per field: tag, length of the value (varints), value; tags ascend strictly, 0 is none
//! ```
//!
//! A field with an even tag is *critical*: a node that does not know it shows the event to nobody, because the field
//! may say who may see it or how to read its payload. A field with an odd tag may be ignored.
//!
//! Invariant: the bytes are well-formed and within the limits, and an unknown field is passed on unchanged. Which
//! fields this release knows decides only what a node shows. The fold carries fields without reading them, so that
//! releases that know different tags come to the same state; a field that the fold has to act on needs another
//! [`LOG_FORMAT`](vulpes_raft::format::LOG_FORMAT).
//!
//! Deliberately absent: what fields mean.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{limits, varint};

/// Names a field. Persisted: a used number never gets another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tag(pub u32);

/// The tags that this release understands.
const KNOWN: &[Tag] = &[USER];

/// The user that the publisher's client logged in as, in UTF-8: only on a session's first event.
const USER: Tag = Tag(1);

impl Tag {
    /// Whether a node that does not know this field must withhold the event.
    #[must_use]
    pub fn is_critical(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

/// The fields of one event, as in its segment. Usually none, which takes no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Extensions(Bytes);

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub tag: Tag,
    pub value: &'a [u8],
}

/// Why an event can't have these fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionsError {
    #[error("an event's extension fields may take {} bytes together", limits::EXTENSION_BYTES)]
    TooLong,
    #[error("an event may have {} extension fields", limits::EXTENSION_FIELDS)]
    TooMany,
    #[error("extension fields must be in ascending order of their tags, each at most once")]
    OutOfOrder,
    #[error("extension fields are cut short")]
    CutShort,
}

impl Extensions {
    /// Encodes fields, in ascending order of their tags.
    ///
    /// # Errors
    /// If they are out of order, or exceed a limit.
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

    /// Checks encoded fields, in time proportional to their length.
    ///
    /// # Errors
    /// If they are not well-formed, or exceed a limit.
    pub fn parse(bytes: Bytes) -> Result<Self, ExtensionsError> {
        check(&bytes)?;
        Ok(Self(bytes))
    }

    /// The first event of a session whose client logged in as this user.
    ///
    /// # Errors
    /// If the name is too long.
    pub fn of_user(user: &str) -> Result<Self, ExtensionsError> {
        Self::new(&[Field { tag: USER, value: user.as_bytes() }])
    }

    /// The user that the publisher's client logged in as, where the event says so.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        std::str::from_utf8(self.get(USER)?).ok()
    }

    /// Encoded fields that were already checked.
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

    /// Whether this release must not show the event, because it does not know one of its critical fields.
    #[must_use]
    pub fn withhold(&self) -> bool {
        self.fields().any(|field| field.tag.is_critical() && !KNOWN.contains(&field.tag))
    }

    /// Whether there is a critical field, known or not.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        self.fields().any(|field| field.tag.is_critical())
    }

    /// A copy in memory of its own: a long-lived value must not keep its segment alive.
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

/// Reads fields one by one; ends after the first error.
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

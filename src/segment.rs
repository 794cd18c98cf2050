//! The body of an advance segment: events, encoded once, with a dictionary of their topics and publishers.
//!
//! ```text
//! header   magic "VSG3", entry u64, incarnation u64, number u64, shard u32          (little-endian, 32 bytes)
//! events   per event: length of the rest, topic, publisher (varints), flags u8, form u8,
//!          [length of properties, if flagged], [length of kwargs, if flagged], [length of act, if flagged],
//!          [length of extensions, if flagged], properties, kwargs, act, extensions, args
//! topics   per topic: length of realm, realm, length of text, text (varint lengths)
//! sessions per publisher: session u64, tag of its client u64 (0: no name)
//! footer   offset of topics u32, number of topics u32, number of publishers u32, number of events u32  (16 bytes)
//! ```
//!
//! The form's low four bits are the payload's encoding. Its top bit says that there are extension fields
//! ([`Extensions`](crate::types::event::Extensions)), and the three bits between are 0. Bodies with the magic "VSG2", which an
//! older release wrote, have no extension fields, and are otherwise the same.
//!
//! Invariant: a body that [`Segment::parse`] accepts yields all its events without error, and parsing never reads outside the
//! body or allocates more than it is long, whatever the bytes. Persisted, and sent between nodes: never change the format, add
//! a new magic instead.
//!
//! Deliberately absent: the checksum (XXH3-64 over the whole body), which travels beside the body.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use vulpes_raft::ids::{AdvanceSegment, NodeId, Shard};
use vulpes_raft::order::SealedSegment;

use crate::types::event::{ClientTag, Event, SessionId};
use crate::types::limits;
use crate::types::topic::{Realm, Topic};
use crate::types::varint;

mod read;

pub use self::read::{Events, Place, Segment, SegmentError, StoredEvent};

const MAGIC: [u8; 4] = *b"VSG3";

/// Bodies without extension fields, which are read but no longer written.
const MAGIC_BEFORE_EXTENSIONS: [u8; 4] = *b"VSG2";

const HEADER: usize = 32;
const FOOTER: usize = 16;

/// Bytes of a publisher in the dictionary.
const PUBLISHER: usize = 16;

/// Bits of an event's form.
mod form {
    pub(super) const ENCODING: u8 = 0x0f;
    pub(super) const EXTENSIONS: u8 = 0x80;
}

mod flag {
    pub(super) const EXCLUDE_ME: u8 = 1;
    pub(super) const RETAIN: u8 = 1 << 1;
    pub(super) const QOS_SHIFT: u8 = 2;
    pub(super) const QOS_MASK: u8 = 3 << QOS_SHIFT;
    pub(super) const KWARGS: u8 = 1 << 4;
    pub(super) const PROPERTIES: u8 = 1 << 5;
    pub(super) const DISCLOSE_ME: u8 = 1 << 6;
    pub(super) const ACT: u8 = 1 << 7;
}

/// The checksum of a body.
#[must_use]
pub fn checksum(body: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(body)
}

/// The event did not fit: the segment has to be sealed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFull;

/// A segment that takes events. Its name is given to it when it is sealed.
#[derive(Debug)]
pub struct OpenSegment {
    buffer: BytesMut,
    count: u32,
    topics: Vec<(Realm, Topic)>,
    topic_index: HashMap<(Realm, Topic), u32>,
    /// Bytes that the topics will take in the dictionary.
    topics_size: usize,
    publishers: Vec<Publisher>,
    publisher_index: HashMap<Publisher, u32>,
}

/// A session, and its client.
type Publisher = (SessionId, ClientTag);

/// A sealed segment with its body, ready for the storages. It takes no more events.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SealedBody {
    pub id: AdvanceSegment,
    pub shard: Shard,
    pub count: u32,
    pub checksum: u64,
    pub body: Bytes,
}

impl SealedBody {
    /// The proposal to sync, with the storages that voted; none for an early proposal.
    #[must_use]
    pub fn proposal(&self, votes: Vec<NodeId>) -> SealedSegment {
        SealedSegment {
            id: self.id,
            shard: self.shard,
            count: self.count,
            length: u32::try_from(self.body.len()).expect("a body is under the segment limit"),
            checksum: self.checksum,
            votes,
        }
    }
}

impl Default for OpenSegment {
    fn default() -> Self {
        let mut buffer = BytesMut::with_capacity(4096);
        buffer.put_bytes(0, HEADER);
        Self {
            buffer,
            count: 0,
            topics: Vec::new(),
            topic_index: HashMap::new(),
            topics_size: 0,
            publishers: Vec::new(),
            publisher_index: HashMap::new(),
        }
    }
}

impl OpenSegment {
    /// Number of events in it.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Size of the body if sealed now.
    #[must_use]
    pub fn size(&self) -> usize {
        self.buffer.len() + self.topics_size + self.publishers.len() * PUBLISHER + FOOTER
    }

    /// Appends an event and returns its offset.
    ///
    /// # Errors
    /// [`SegmentFull`] if it would exceed the limits of size or events. An event within [`limits::EVENT`]
    /// always fits an empty segment.
    pub fn push(&mut self, event: &Event) -> Result<u32, SegmentFull> {
        let room = event.size()
            + event.topic.as_str().len()
            + event.realm.as_str().len()
            + PUBLISHER // if it is new
            + 9 * varint::LONGEST
            + 2;
        if self.count as usize >= limits::SEGMENT_EVENTS
            || self.size() + room > limits::SEGMENT_BODY
        {
            return Err(SegmentFull);
        }
        let topic = self.topic_number(event);
        let publisher = self.publisher_number((event.publisher, event.client));
        self.encode(event, topic, publisher);
        self.count += 1;
        Ok(self.count - 1)
    }

    fn topic_number(&mut self, event: &Event) -> u32 {
        // Publishers mostly repeat a topic: the last one is found without hashing.
        if let Some((realm, topic)) = self.topics.last() {
            if *topic == event.topic && *realm == event.realm {
                return self.topics.len() as u32 - 1;
            }
        }
        let key = (event.realm.clone(), event.topic.clone());
        if let Some(number) = self.topic_index.get(&key) {
            return *number;
        }
        let number = self.topics.len() as u32;
        self.topics_size += 2 * varint::LONGEST + key.0.as_str().len() + key.1.as_str().len();
        self.topics.push(key.clone());
        self.topic_index.insert(key, number);
        number
    }

    fn publisher_number(&mut self, publisher: Publisher) -> u32 {
        *self.publisher_index.entry(publisher).or_insert_with(|| {
            self.publishers.push(publisher);
            self.publishers.len() as u32 - 1
        })
    }

    fn encode(&mut self, event: &Event, topic: u32, publisher: u32) {
        let mut flags = (event.qos as u8) << flag::QOS_SHIFT;
        flags |= if event.exclude_me { flag::EXCLUDE_ME } else { 0 };
        flags |= if event.disclose_me { flag::DISCLOSE_ME } else { 0 };
        flags |= if event.retain { flag::RETAIN } else { 0 };
        let mut form = event.payload.encoding as u8;
        let mut length = 2 + varint::len(topic) + varint::len(publisher) + event.size();
        let mut part = |bytes: &[u8], bits: &mut u8, bit: u8| {
            let size = bytes.len() as u32;
            if size > 0 {
                *bits |= bit;
                length += varint::len(size);
            }
            size
        };
        let sizes = [
            part(&event.properties, &mut flags, flag::PROPERTIES),
            part(&event.payload.kwargs, &mut flags, flag::KWARGS),
            part(&event.act, &mut flags, flag::ACT),
            part(event.extensions.as_bytes(), &mut form, form::EXTENSIONS),
        ];
        self.buffer.reserve(length + varint::LONGEST);
        varint::put(&mut self.buffer, length as u32);
        varint::put(&mut self.buffer, topic);
        varint::put(&mut self.buffer, publisher);
        self.buffer.put_u8(flags);
        self.buffer.put_u8(form);
        for size in sizes.into_iter().filter(|size| *size > 0) {
            varint::put(&mut self.buffer, size);
        }
        self.buffer.put_slice(&event.properties);
        self.buffer.put_slice(&event.payload.kwargs);
        self.buffer.put_slice(&event.act);
        self.buffer.put_slice(event.extensions.as_bytes());
        self.buffer.put_slice(&event.payload.args);
    }

    /// Seals it under a name.
    #[must_use]
    pub fn seal(mut self, id: AdvanceSegment, shard: Shard) -> SealedBody {
        let mut header = &mut self.buffer[..HEADER];
        header.put_slice(&MAGIC);
        header.put_u64_le(id.entry.0);
        header.put_u64_le(id.incarnation.0);
        header.put_u64_le(id.number.0);
        header.put_u32_le(shard.0);
        let topics_at = self.buffer.len() as u32;
        self.buffer.reserve(self.topics_size + self.publishers.len() * PUBLISHER + FOOTER);
        for (realm, topic) in &self.topics {
            put_text(&mut self.buffer, realm.as_str());
            put_text(&mut self.buffer, topic.as_str());
        }
        for publisher in &self.publishers {
            self.buffer.put_u64_le(publisher.0 .0);
            self.buffer.put_u64_le(publisher.1 .0);
        }
        self.buffer.put_u32_le(topics_at);
        self.buffer.put_u32_le(self.topics.len() as u32);
        self.buffer.put_u32_le(self.publishers.len() as u32);
        self.buffer.put_u32_le(self.count);
        let body = self.buffer.freeze();
        SealedBody { id, shard, count: self.count, checksum: checksum(&body), body }
    }
}

fn put_text(buffer: &mut BytesMut, text: &str) {
    varint::put(buffer, text.len() as u32);
    buffer.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests;

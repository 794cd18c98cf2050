//! The body of an advance segment: events, encoded once, with a dictionary of their topics and publishers.
//!
//! ```text
//! header   magic "VSG1", entry u64, incarnation u64, number u64, shard u32          (little-endian, 32 bytes)
//! events   per event: length of the rest, topic, publisher (varints), flags u8, encoding u8,
//!          [length of properties, if flagged], [length of kwargs, if flagged], properties, kwargs, args
//! topics   per topic: length of realm, realm, length of text, text (varint lengths)
//! sessions per publisher: u64
//! footer   offset of topics u32, number of topics u32, number of publishers u32, number of events u32  (16 bytes)
//! ```
//!
//! Invariant: a body that [`Segment::parse`] accepts yields all its events without error, and parsing never reads
//! outside the body or allocates more than it is long, whatever the bytes. Persisted and sent: never change, add a
//! new magic instead.
//!
//! Deliberately absent: the checksum (XXH3-64 over the whole body), which travels beside the body.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use vulpes_raft::ids::{AdvanceSegment, Incarnation, NodeId, SegmentNumber, Shard};
use vulpes_raft::order::SealedSegment;

use crate::event::{Encoding, Event, Payload, Qos, SessionId};
use crate::limits;
use crate::topic::{Realm, Topic};

const MAGIC: [u8; 4] = *b"VSG1";
const HEADER: usize = 32;
const FOOTER: usize = 16;

/// Longest varint of a `u32`, in bytes.
const VARINT: usize = 5;

mod flag {
    pub(super) const EXCLUDE_ME: u8 = 1;
    pub(super) const RETAIN: u8 = 1 << 1;
    pub(super) const QOS_SHIFT: u8 = 2;
    pub(super) const QOS_MASK: u8 = 3 << QOS_SHIFT;
    pub(super) const KWARGS: u8 = 1 << 4;
    pub(super) const PROPERTIES: u8 = 1 << 5;
    pub(super) const DISCLOSE_ME: u8 = 1 << 6;
    pub(super) const UNKNOWN: u8 = 1 << 7;
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
    /// Bytes the topics will take in the dictionary.
    topics_size: usize,
    publishers: Vec<SessionId>,
    publisher_index: HashMap<SessionId, u32>,
}

/// A sealed segment with its body: what goes to the storages. It takes no more events.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SealedBody {
    pub id: AdvanceSegment,
    pub shard: Shard,
    pub count: u32,
    pub checksum: u64,
    pub body: Bytes,
}

impl SealedBody {
    /// What is proposed to sync once these storages voted.
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

    /// Bytes the body would have if sealed now.
    #[must_use]
    pub fn size(&self) -> usize {
        self.buffer.len() + self.topics_size + self.publishers.len() * 8 + FOOTER
    }

    /// Appends an event and returns its offset.
    ///
    /// # Errors
    /// [`SegmentFull`] where it would pass the size or event limit. An event within [`limits::EVENT`] always fits an
    /// empty segment.
    pub fn push(&mut self, event: &Event) -> Result<u32, SegmentFull> {
        let room = event.size()
            + event.topic.as_str().len()
            + event.realm.as_str().len()
            + 8 // its publisher, if new
            + 7 * VARINT
            + 2;
        if self.count as usize >= limits::SEGMENT_EVENTS
            || self.size() + room > limits::SEGMENT_BODY
        {
            return Err(SegmentFull);
        }
        let topic = self.topic_number(event);
        let publisher = self.publisher_number(event.publisher);
        self.encode(event, topic, publisher);
        self.count += 1;
        Ok(self.count - 1)
    }

    fn topic_number(&mut self, event: &Event) -> u32 {
        // Publishers mostly stay on a topic: the last one is found without hashing.
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
        self.topics_size += 2 * VARINT + key.0.as_str().len() + key.1.as_str().len();
        self.topics.push(key.clone());
        self.topic_index.insert(key, number);
        number
    }

    fn publisher_number(&mut self, publisher: SessionId) -> u32 {
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
        let (properties, kwargs) =
            (event.properties.len() as u32, event.payload.kwargs.len() as u32);
        let mut length = 2 + varint_len(topic) + varint_len(publisher) + event.size();
        if properties > 0 {
            flags |= flag::PROPERTIES;
            length += varint_len(properties);
        }
        if kwargs > 0 {
            flags |= flag::KWARGS;
            length += varint_len(kwargs);
        }
        self.buffer.reserve(length + VARINT);
        put_varint(&mut self.buffer, length as u32);
        put_varint(&mut self.buffer, topic);
        put_varint(&mut self.buffer, publisher);
        self.buffer.put_u8(flags);
        self.buffer.put_u8(event.payload.encoding as u8);
        if properties > 0 {
            put_varint(&mut self.buffer, properties);
        }
        if kwargs > 0 {
            put_varint(&mut self.buffer, kwargs);
        }
        self.buffer.put_slice(&event.properties);
        self.buffer.put_slice(&event.payload.kwargs);
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
        self.buffer.reserve(self.topics_size + self.publishers.len() * 8 + FOOTER);
        for (realm, topic) in &self.topics {
            put_text(&mut self.buffer, realm.as_str());
            put_text(&mut self.buffer, topic.as_str());
        }
        for publisher in &self.publishers {
            self.buffer.put_u64_le(publisher.0);
        }
        self.buffer.put_u32_le(topics_at);
        self.buffer.put_u32_le(self.topics.len() as u32);
        self.buffer.put_u32_le(self.publishers.len() as u32);
        self.buffer.put_u32_le(self.count);
        let body = self.buffer.freeze();
        SealedBody { id, shard, count: self.count, checksum: checksum(&body), body }
    }
}

/// A parsed body: events can be read from it.
#[derive(Debug, Clone)]
pub struct Segment {
    id: AdvanceSegment,
    shard: Shard,
    body: Bytes,
    events_end: usize,
    count: u32,
    topics: Vec<(Realm, Topic)>,
    publishers: Vec<SessionId>,
}

/// A body that is not a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a segment body: {0}")]
pub struct SegmentError(&'static str);

/// One event as it stands in a segment.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its place in the segment, from 0.
    pub offset: u32,
    /// Index into [`Segment::topics`].
    pub topic: u32,
    pub publisher: SessionId,
    pub exclude_me: bool,
    pub disclose_me: bool,
    pub retain: bool,
    pub qos: Qos,
    pub payload: Payload,
    pub properties: Bytes,
}

impl Segment {
    /// Reads a body and checks all of it.
    ///
    /// # Errors
    /// Where it is not a whole, well-formed segment.
    pub fn parse(body: Bytes) -> Result<Self, SegmentError> {
        if body.len() < HEADER + FOOTER || body.len() > limits::SEGMENT_BODY {
            return Err(SegmentError("wrong length"));
        }
        if body[..4] != MAGIC {
            return Err(SegmentError("wrong magic; written by a newer release?"));
        }
        let id = AdvanceSegment {
            entry: NodeId(read_u64(&body, 4)),
            incarnation: Incarnation(read_u64(&body, 12)),
            number: SegmentNumber(read_u64(&body, 20)),
        };
        let shard = Shard(read_u32(&body, 28));
        let footer = body.len() - FOOTER;
        let events_end = read_u32(&body, footer) as usize;
        let topic_count = read_u32(&body, footer + 4) as usize;
        let publisher_count = read_u32(&body, footer + 8) as usize;
        let count = read_u32(&body, footer + 12);
        if !(HEADER..=footer).contains(&events_end) {
            return Err(SegmentError("dictionary outside"));
        }
        // A topic takes two bytes at least, so that a lying count can't make us reserve more than the body is long.
        if topic_count > (footer - events_end) / 2 || publisher_count > (footer - events_end) / 8 {
            return Err(SegmentError("dictionary too long"));
        }
        let mut reader = Reader { bytes: &body[..footer], at: events_end };
        let mut topics = Vec::with_capacity(topic_count);
        for _ in 0..topic_count {
            let realm = Realm::new(reader.text()?).map_err(|_| SegmentError("bad realm"))?;
            topics.push((realm, Topic::from_canonical(reader.text()?)));
        }
        let mut publishers = Vec::with_capacity(publisher_count);
        for _ in 0..publisher_count {
            publishers.push(SessionId(reader.u64()?));
        }
        if reader.at != footer {
            return Err(SegmentError("bytes left over behind the dictionary"));
        }
        let segment = Self { id, shard, body, events_end, count, topics, publishers };
        segment.check_events()?;
        Ok(segment)
    }

    fn check_events(&self) -> Result<(), SegmentError> {
        let mut reader = Reader { bytes: &self.body[..self.events_end], at: HEADER };
        for _ in 0..self.count {
            let frame = Frame::read(&mut reader)?;
            if frame.topic as usize >= self.topics.len()
                || frame.publisher as usize >= self.publishers.len()
            {
                return Err(SegmentError("event refers outside the dictionary"));
            }
        }
        if reader.at != self.events_end {
            return Err(SegmentError("bytes left over behind the events"));
        }
        Ok(())
    }

    #[must_use]
    pub fn id(&self) -> AdvanceSegment {
        self.id
    }

    #[must_use]
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// Number of events.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The whole body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The topics that occur, with their realms. [`StoredEvent::topic`] is an index into it.
    #[must_use]
    pub fn topics(&self) -> &[(Realm, Topic)] {
        &self.topics
    }

    /// The events in order.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        Events { segment: self, at: HEADER, offset: 0 }
    }

    /// The events from where an iterator once stood: see [`Events::place`].
    #[must_use]
    pub fn events_from(&self, place: Place) -> Events<'_> {
        Events { segment: self, at: place.at, offset: place.offset }
    }
}

/// Where an iterator stands in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    at: usize,
    offset: u32,
}

impl Default for Place {
    fn default() -> Self {
        Self { at: HEADER, offset: 0 }
    }
}

/// The events of a segment, in order.
#[derive(Debug, Clone)]
pub struct Events<'a> {
    segment: &'a Segment,
    at: usize,
    offset: u32,
}

impl Events<'_> {
    /// Where the iterator stands, to go on from later.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { at: self.at, offset: self.offset }
    }
}

impl Iterator for Events<'_> {
    type Item = StoredEvent;

    fn next(&mut self) -> Option<StoredEvent> {
        let segment = self.segment;
        if self.offset >= segment.count {
            return None;
        }
        let mut reader = Reader { bytes: &segment.body[..segment.events_end], at: self.at };
        let frame = Frame::read(&mut reader).expect("all events were checked when it was parsed");
        self.at = reader.at;
        self.offset += 1;
        let kwargs_at = frame.data + frame.properties;
        let args_at = kwargs_at + frame.kwargs;
        Some(StoredEvent {
            offset: self.offset - 1,
            topic: frame.topic,
            publisher: segment.publishers[frame.publisher as usize],
            exclude_me: frame.flags & flag::EXCLUDE_ME != 0,
            disclose_me: frame.flags & flag::DISCLOSE_ME != 0,
            retain: frame.flags & flag::RETAIN != 0,
            qos: frame.qos,
            payload: Payload {
                encoding: frame.encoding,
                args: segment.body.slice(args_at..reader.at),
                kwargs: segment.body.slice(kwargs_at..args_at),
            },
            properties: segment.body.slice(frame.data..kwargs_at),
        })
    }
}

/// An event's fixed part.
struct Frame {
    topic: u32,
    publisher: u32,
    flags: u8,
    qos: Qos,
    encoding: Encoding,
    properties: usize,
    kwargs: usize,
    /// Where its properties, kwargs and args begin.
    data: usize,
}

impl Frame {
    /// Reads an event and leaves the reader behind it.
    fn read(reader: &mut Reader<'_>) -> Result<Self, SegmentError> {
        let length = reader.varint()? as usize;
        let end = reader.at.checked_add(length).ok_or(SegmentError("event too long"))?;
        if end > reader.bytes.len() {
            return Err(SegmentError("event too long"));
        }
        let mut inner = Reader { bytes: &reader.bytes[..end], at: reader.at };
        let topic = inner.varint()?;
        let publisher = inner.varint()?;
        let flags = inner.u8()?;
        if flags & flag::UNKNOWN != 0 {
            return Err(SegmentError("event with unknown flags"));
        }
        let qos = Qos::from_tag((flags & flag::QOS_MASK) >> flag::QOS_SHIFT)
            .ok_or(SegmentError("event with unknown quality of service"))?;
        let encoding =
            Encoding::from_tag(inner.u8()?).ok_or(SegmentError("event of unknown encoding"))?;
        let properties = if flags & flag::PROPERTIES != 0 { inner.varint()? as usize } else { 0 };
        let kwargs = if flags & flag::KWARGS != 0 { inner.varint()? as usize } else { 0 };
        if properties + kwargs > end - inner.at {
            return Err(SegmentError("event parts longer than the event"));
        }
        let data = inner.at;
        reader.at = end;
        Ok(Self { topic, publisher, flags, qos, encoding, properties, kwargs, data })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], SegmentError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(SegmentError("cut short"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, SegmentError> {
        Ok(self.take(1)?[0])
    }

    fn u64(&mut self) -> Result<u64, SegmentError> {
        Ok(read_u64(self.take(8)?, 0))
    }

    fn varint(&mut self) -> Result<u32, SegmentError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(SegmentError("number too large"))
    }

    fn text(&mut self) -> Result<&'a str, SegmentError> {
        let length = self.varint()? as usize;
        std::str::from_utf8(self.take(length)?).map_err(|_| SegmentError("text is not UTF-8"))
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn varint_len(value: u32) -> usize {
    (value.max(1).ilog2() as usize) / 7 + 1
}

fn put_varint(buffer: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        buffer.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

fn put_text(buffer: &mut BytesMut, text: &str) {
    put_varint(buffer, text.len() as u32);
    buffer.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests;

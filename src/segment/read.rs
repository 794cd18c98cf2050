//! Reading a segment's body.
//!
//! Invariant: a body that [`Segment::parse`] accepts yields all its events without error; nothing is read outside the
//! body, and no more is allocated than its length.
//!
//! Deliberately absent: what acts mean. Their bytes are passed on unread.

use bytes::Bytes;
use vulpes_raft::ids::{AdvanceSegment, Incarnation, NodeId, SegmentNumber, Shard};

use super::{flag, form, Publisher, FOOTER, HEADER, MAGIC, MAGIC_BEFORE_EXTENSIONS, PUBLISHER};
use crate::types::event::{ClientTag, Encoding, Extensions, Payload, Qos, SessionId};
use crate::types::topic::{Realm, Topic};
use crate::types::{limits, varint};

/// A parsed body: events can be read from it.
#[derive(Debug, Clone)]
pub struct Segment {
    id: AdvanceSegment,
    shard: Shard,
    body: Bytes,
    events_end: usize,
    count: u32,
    topics: Vec<(Realm, Topic)>,
    publishers: Vec<Publisher>,
    touches_state: bool,
    withheld: u32,
    /// Bits of an event's form that may be set.
    forms: u8,
}

/// A body that is not a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a segment body: {0}")]
pub struct SegmentError(&'static str);

/// One event in a segment.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its index in the segment, from 0.
    pub offset: u32,
    /// Index into [`Segment::topics`].
    pub topic: u32,
    pub publisher: SessionId,
    /// The publisher's client, which may have other sessions.
    pub client: ClientTag,
    pub exclude_me: bool,
    pub disclose_me: bool,
    pub retain: bool,
    pub qos: Qos,
    pub payload: Payload,
    pub properties: Bytes,
    /// An encoded `Act`, or nothing.
    pub act: Bytes,
    /// Usually none.
    pub extensions: Extensions,
}

impl Segment {
    /// Parses a body and checks all of it.
    ///
    /// # Errors
    /// If it is not a whole, well-formed segment.
    pub fn parse(body: Bytes) -> Result<Self, SegmentError> {
        if body.len() < HEADER + FOOTER || body.len() > limits::SEGMENT_BODY {
            return Err(SegmentError("wrong length"));
        }
        let forms = match &body[..4] {
            magic if *magic == MAGIC => form::ENCODING | form::EXTENSIONS,
            magic if *magic == MAGIC_BEFORE_EXTENSIONS => form::ENCODING,
            _ => return Err(SegmentError("wrong magic; written by a newer release?")),
        };
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
        // A topic takes at least two bytes, so a false count can't reserve more than the body's length.
        if topic_count > (footer - events_end) / 2
            || publisher_count > (footer - events_end) / PUBLISHER
        {
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
            publishers.push((SessionId(reader.u64()?), ClientTag(reader.u64()?)));
        }
        if reader.at != footer {
            return Err(SegmentError("bytes left over behind the dictionary"));
        }
        let (touches_state, withheld) = (false, 0);
        let mut segment = Self {
            id,
            shard,
            body,
            events_end,
            count,
            topics,
            publishers,
            touches_state,
            withheld,
            forms,
        };
        segment.check_events()?;
        Ok(segment)
    }

    fn check_events(&mut self) -> Result<(), SegmentError> {
        let (mut touches_state, mut withheld) = (false, 0);
        let mut reader = Reader { bytes: &self.body[..self.events_end], at: HEADER };
        for _ in 0..self.count {
            let frame = Frame::read(&mut reader, self.forms)?;
            if frame.topic as usize >= self.topics.len()
                || frame.publisher as usize >= self.publishers.len()
            {
                return Err(SegmentError("event refers outside the dictionary"));
            }
            if frame.extensions > 0 {
                let at = frame.extensions_at();
                let fields = Extensions::parse(self.body.slice(at..at + frame.extensions))
                    .map_err(|_| SegmentError("event with malformed extension fields"))?;
                withheld += u32::from(fields.withhold());
            }
            touches_state |= frame.flags & (flag::RETAIN | flag::ACT) != 0;
        }
        if reader.at != self.events_end {
            return Err(SegmentError("bytes left over behind the events"));
        }
        self.touches_state = touches_state;
        self.withheld = withheld;
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

    /// Whether any event is retained or has an act: if not, the realms' state does not change.
    #[must_use]
    pub fn touches_state(&self) -> bool {
        self.touches_state
    }

    /// How many events have a critical extension field that this release does not know. They keep their positions and affect
    /// the state, but this node delivers them to no subscriber.
    #[must_use]
    pub fn withheld(&self) -> u32 {
        self.withheld
    }

    /// The whole body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The topics of the segment, with their realms. [`StoredEvent::topic`] is an index into it.
    #[must_use]
    pub fn topics(&self) -> &[(Realm, Topic)] {
        &self.topics
    }

    /// The events in order.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        Events { segment: self, at: HEADER, offset: 0 }
    }

    /// The events from an earlier position of an iterator: see [`Events::place`].
    #[must_use]
    pub fn events_from(&self, place: Place) -> Events<'_> {
        Events { segment: self, at: place.at, offset: place.offset }
    }
}

/// An iterator's position in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    at: usize,
    offset: u32,
}

impl Place {
    /// The offset of the next event.
    #[must_use]
    pub fn offset(self) -> u32 {
        self.offset
    }
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
    /// The iterator's position, to continue from later.
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
        let frame = Frame::read(&mut reader, segment.forms)
            .expect("all events were checked when it was parsed");
        self.at = reader.at;
        self.offset += 1;
        let kwargs_at = frame.data + frame.properties;
        let act_at = kwargs_at + frame.kwargs;
        let extensions_at = frame.extensions_at();
        let args_at = extensions_at + frame.extensions;
        let (publisher, client) = segment.publishers[frame.publisher as usize];
        Some(StoredEvent {
            offset: self.offset - 1,
            topic: frame.topic,
            publisher,
            client,
            exclude_me: frame.flags & flag::EXCLUDE_ME != 0,
            disclose_me: frame.flags & flag::DISCLOSE_ME != 0,
            retain: frame.flags & flag::RETAIN != 0,
            qos: frame.qos,
            payload: Payload {
                encoding: frame.encoding,
                args: segment.body.slice(args_at..reader.at),
                kwargs: segment.body.slice(kwargs_at..act_at),
            },
            properties: segment.body.slice(frame.data..kwargs_at),
            act: segment.body.slice(act_at..extensions_at),
            extensions: Extensions::checked(segment.body.slice(extensions_at..args_at)),
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
    act: usize,
    extensions: usize,
    /// Where its properties, kwargs, act, extensions and args begin.
    data: usize,
}

impl Frame {
    /// Reads an event and leaves the reader after it.
    fn read(reader: &mut Reader<'_>, forms: u8) -> Result<Self, SegmentError> {
        let length = reader.varint()? as usize;
        let end = reader.at.checked_add(length).ok_or(SegmentError("event too long"))?;
        if end > reader.bytes.len() {
            return Err(SegmentError("event too long"));
        }
        let mut inner = Reader { bytes: &reader.bytes[..end], at: reader.at };
        let topic = inner.varint()?;
        let publisher = inner.varint()?;
        let flags = inner.u8()?;
        let qos = Qos::from_tag((flags & flag::QOS_MASK) >> flag::QOS_SHIFT)
            .ok_or(SegmentError("event with unknown quality of service"))?;
        let form = inner.u8()?;
        let encoding = Encoding::from_tag(form & form::ENCODING).filter(|_| form & !forms == 0);
        let encoding = encoding.ok_or(SegmentError("event of unknown form"))?;
        let properties = if flags & flag::PROPERTIES != 0 { inner.varint()? as usize } else { 0 };
        let kwargs = if flags & flag::KWARGS != 0 { inner.varint()? as usize } else { 0 };
        let act = if flags & flag::ACT != 0 { inner.varint()? as usize } else { 0 };
        let extensions = if form & form::EXTENSIONS != 0 { inner.varint()? as usize } else { 0 };
        if properties + kwargs + act + extensions > end - inner.at {
            return Err(SegmentError("event parts longer than the event"));
        }
        let data = inner.at;
        reader.at = end;
        Ok(Self {
            topic,
            publisher,
            flags,
            qos,
            encoding,
            properties,
            kwargs,
            act,
            extensions,
            data,
        })
    }

    fn extensions_at(&self) -> usize {
        self.data + self.properties + self.kwargs + self.act
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
        let (value, length) = varint::read(&self.bytes[self.at..])
            .ok_or(SegmentError("number cut short or too large"))?;
        self.at += length;
        Ok(value)
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

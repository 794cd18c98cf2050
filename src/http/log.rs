//! The log in admin HTTP: one row per slot, with the checksum of the body on this node.
//!
//! Invariant: two nodes that hold the same log show the same rows, byte for byte.
//!
//! Deliberately absent: the events themselves, which clients read.

use std::fmt;

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{
    AdvanceSegment, Incarnation, NodeId, OrderTime, Position, SegmentNumber, Slot, Stamp,
};
use vulpes_raft::order::{CloseReason, Resolution, Step};

/// A range of the log of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    pub node: NodeId,
    /// The first slot this node has.
    pub oldest: Slot,
    /// The first slot this node does not have yet.
    pub end: Slot,
    /// In order, from the requested slot; empty only at the end.
    pub rows: Vec<LogRow>,
}

/// A slot and its contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRow {
    pub slot: Slot,
    pub stamp: Stamp,
    /// The order's own time at this slot.
    pub time: OrderTime,
    /// Position of the first event at or after this slot.
    pub base: Position,
    #[serde(flatten)]
    pub step: LogStep,
}

/// The contents of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum LogStep {
    Segment {
        /// `entry/incarnation/number`.
        #[serde(with = "segment_text")]
        segment: AdvanceSegment,
        /// Number of events.
        count: u32,
        /// Length of the body in bytes, according to the order.
        length: u32,
        /// Checksum of the body, according to the order.
        checksum: Checksum,
        /// Checksum of the body as just read on this node; `null` if it could not be read.
        body_checksum: Option<Checksum>,
        /// The body was not read: another storage group stores it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        elsewhere: bool,
    },
    Opened {
        entry: NodeId,
        incarnation: Incarnation,
    },
    Closed {
        entry: NodeId,
        incarnation: Incarnation,
        reason: CloseReason,
    },
}

/// A segment's body on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// It was read, and has this checksum.
    Read(u64),
    /// It is not there, or damaged.
    Unreadable,
    /// Another storage group stores it.
    Elsewhere,
}

impl LogRow {
    /// The row of a resolution, and for a segment the result of reading its body.
    #[must_use]
    pub fn new(resolution: &Resolution, body: Body) -> Self {
        let step = match &resolution.step {
            Step::Segment(sealed) => LogStep::Segment {
                segment: sealed.id,
                count: sealed.count,
                length: sealed.length,
                checksum: Checksum(sealed.checksum),
                body_checksum: match body {
                    Body::Read(checksum) => Some(Checksum(checksum)),
                    Body::Unreadable | Body::Elsewhere => None,
                },
                elsewhere: body == Body::Elsewhere,
            },
            Step::Opened { entry, incarnation } => {
                LogStep::Opened { entry: *entry, incarnation: *incarnation }
            }
            Step::Closed { entry, incarnation, reason } => {
                LogStep::Closed { entry: *entry, incarnation: *incarnation, reason: *reason }
            }
        };
        let Resolution { slot, stamp, base, .. } = *resolution;
        Self { slot, stamp, time: resolution.time(), base, step }
    }

    /// Position of the first event after this slot.
    #[must_use]
    pub fn end(&self) -> Position {
        match self.step {
            LogStep::Segment { count, .. } => {
                Position(self.base.0.saturating_add(u64::from(count)))
            }
            LogStep::Opened { .. } | LogStep::Closed { .. } => self.base,
        }
    }
}

/// XXH3-64 of a body; its text is 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Checksum(pub u64);

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({self})")
    }
}

impl TryFrom<String> for Checksum {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> Self {
        checksum.to_string()
    }
}

mod segment_text {
    use serde::{de::Error, Deserialize as _, Deserializer, Serializer};

    use super::{AdvanceSegment, Incarnation, NodeId, SegmentNumber};

    pub(super) fn serialize<S: Serializer>(
        segment: &AdvanceSegment,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(segment)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<AdvanceSegment, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut numbers = text.split('/').map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(entry)), Some(Ok(incarnation)), Some(Ok(number)), None) => {
                Ok(AdvanceSegment {
                    entry: NodeId(entry),
                    incarnation: Incarnation(incarnation),
                    number: SegmentNumber(number),
                })
            }
            _ => Err(D::Error::custom(format!("{text:?} is not entry/incarnation/number"))),
        }
    }
}

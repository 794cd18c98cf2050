//! Checks a log row by row.
//!
//! Invariant: if a log passes, every slot and every position is there once, each incarnation's segments are in number
//! order, none comes after its fence, and time never runs backwards.
//!
//! Deliberately absent: where rows come from.

use std::collections::BTreeMap;

use vulpes_raft::ids::{
    AdvanceSegment, Incarnation, NodeId, OrderTime, Position, SegmentNumber, Slot, Stamp,
};

use crate::http::{Checksum, LogRow, LogStep};

/// One kind of damage to a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("slot {expected} is missing: slot {found} stands in its place")]
    SlotGap { expected: Slot, found: Slot },
    #[error("slot {slot} begins at position {found} instead of {expected}: positions are {}", gap(*.expected, *.found))]
    BaseGap { slot: Slot, expected: Position, found: Position },
    #[error("slot {slot} has the stamp {found}, before the {earlier} of the slot before")]
    StampBackwards { slot: Slot, earlier: Stamp, found: Stamp },
    #[error("the order's time at slot {slot} is {found}, before the {earlier} of the slot before")]
    TimeBackwards { slot: Slot, earlier: OrderTime, found: OrderTime },
    #[error("slot {slot} holds segment {segment}, but number {expected} is due")]
    OutOfOrder { slot: Slot, segment: AdvanceSegment, expected: SegmentNumber },
    #[error("slot {slot} holds segment {segment} of a fenced incarnation: {fence}")]
    Fenced { slot: Slot, segment: AdvanceSegment, fence: String },
    #[error("slot {slot} holds segment {segment} of an incarnation that never opened")]
    NotOpened { slot: Slot, segment: AdvanceSegment },
    #[error("slot {slot} opens incarnation {found} of entry {entry} after {current}: incarnations must rise")]
    IncarnationNotRising { slot: Slot, entry: NodeId, current: Incarnation, found: Incarnation },
    #[error("slot {slot} closes incarnation {incarnation} of entry {entry}, which is not open")]
    ClosedTwice { slot: Slot, entry: NodeId, incarnation: Incarnation },
    #[error("slot {slot} holds segment {segment} without any event")]
    NoEvents { slot: Slot, segment: AdvanceSegment },
    #[error("slot {slot}: the body of segment {segment} can't be read here")]
    BodyMissing { slot: Slot, segment: AdvanceSegment },
    #[error("slot {slot}: the body of segment {segment} has the checksum {found} here, the order says {expected}")]
    BodyDamaged { slot: Slot, segment: AdvanceSegment, expected: Checksum, found: Checksum },
}

fn gap(expected: Position, found: Position) -> &'static str {
    if found < expected {
        "given out twice"
    } else {
        "missing"
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    incarnation: Incarnation,
    open: bool,
    /// The segment number that has to come next; not known if the log begins in the middle of an incarnation.
    due: Option<SegmentNumber>,
}

/// Checks a log from its oldest slot on.
#[derive(Clone, Debug)]
pub struct LogCheck {
    next: Slot,
    /// Not known before the first row, if the log's beginning has been released.
    base: Option<Position>,
    stamp: Stamp,
    time: OrderTime,
    /// The log is read from its very beginning: no entry can have opened before.
    from_start: bool,
    entries: BTreeMap<NodeId, Entry>,
    events: u64,
}

impl LogCheck {
    /// A check that has seen nothing yet; the first row has to be of slot `oldest`.
    #[must_use]
    pub fn new(oldest: Slot) -> Self {
        let from_start = oldest <= Slot(1);
        Self {
            next: oldest.max(Slot(1)),
            base: from_start.then_some(Position(1)),
            stamp: Stamp(0),
            time: OrderTime(0),
            from_start,
            entries: BTreeMap::new(),
            events: 0,
        }
    }

    /// Events seen so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Takes the next row.
    ///
    /// # Errors
    /// What is wrong with it. The check can't be used any more then.
    pub fn row(&mut self, row: &LogRow) -> Result<(), Damage> {
        let slot = row.slot;
        if slot != self.next {
            return Err(Damage::SlotGap { expected: self.next, found: slot });
        }
        let expected = self.base.unwrap_or(row.base);
        if row.base != expected {
            return Err(Damage::BaseGap { slot, expected, found: row.base });
        }
        if row.stamp < self.stamp {
            return Err(Damage::StampBackwards { slot, earlier: self.stamp, found: row.stamp });
        }
        if row.time < self.time {
            return Err(Damage::TimeBackwards { slot, earlier: self.time, found: row.time });
        }
        match row.step {
            LogStep::Segment { segment, count, .. } => {
                if count == 0 {
                    return Err(Damage::NoEvents { slot, segment });
                }
                self.segment(slot, segment)?;
                self.events += u64::from(count);
            }
            LogStep::Opened { entry, incarnation } => self.opened(slot, entry, incarnation)?,
            LogStep::Closed { entry, incarnation, .. } => self.closed(slot, entry, incarnation)?,
        }
        self.next = slot.next();
        self.base = Some(row.end());
        (self.stamp, self.time) = (row.stamp, row.time);
        Ok(())
    }

    fn segment(&mut self, slot: Slot, segment: AdvanceSegment) -> Result<(), Damage> {
        let AdvanceSegment { entry, incarnation, number } = segment;
        let Some(known) = self.entries.get_mut(&entry) else {
            if self.from_start {
                return Err(Damage::NotOpened { slot, segment });
            }
            let due = Some(number.next());
            self.entries.insert(entry, Entry { incarnation, open: true, due });
            return Ok(());
        };
        if incarnation > known.incarnation {
            return Err(Damage::NotOpened { slot, segment });
        }
        if incarnation < known.incarnation {
            let fence = format!("incarnation {} opened before", known.incarnation);
            return Err(Damage::Fenced { slot, segment, fence });
        }
        if !known.open {
            return Err(Damage::Fenced { slot, segment, fence: "it was closed before".into() });
        }
        let expected = known.due.unwrap_or(number);
        if number != expected {
            return Err(Damage::OutOfOrder { slot, segment, expected });
        }
        known.due = Some(number.next());
        Ok(())
    }

    fn opened(
        &mut self,
        slot: Slot,
        entry: NodeId,
        incarnation: Incarnation,
    ) -> Result<(), Damage> {
        if let Some(known) = self.entries.get(&entry) {
            if incarnation <= known.incarnation {
                let current = known.incarnation;
                return Err(Damage::IncarnationNotRising {
                    slot,
                    entry,
                    current,
                    found: incarnation,
                });
            }
        }
        let due = Some(SegmentNumber(0));
        self.entries.insert(entry, Entry { incarnation, open: true, due });
        Ok(())
    }

    fn closed(
        &mut self,
        slot: Slot,
        entry: NodeId,
        incarnation: Incarnation,
    ) -> Result<(), Damage> {
        let known = self.entries.get(&entry);
        let fits = match known {
            Some(known) => known.open && known.incarnation == incarnation,
            None => !self.from_start,
        };
        if !fits {
            return Err(Damage::ClosedTwice { slot, entry, incarnation });
        }
        self.entries.insert(entry, Entry { incarnation, open: false, due: None });
        Ok(())
    }
}

/// What is wrong with the body of a row's segment, on the node that showed the row.
#[must_use]
pub fn body_damage(row: &LogRow) -> Option<Damage> {
    let slot = row.slot;
    match row.step {
        LogStep::Segment { segment, body_checksum: None, elsewhere: false, .. } => {
            Some(Damage::BodyMissing { slot, segment })
        }
        LogStep::Segment { segment, checksum, body_checksum: Some(found), .. }
            if found != checksum =>
        {
            Some(Damage::BodyDamaged { slot, segment, expected: checksum, found })
        }
        _ => None,
    }
}

/// Whether the node read the body of a row's segment, or the row has no segment.
#[must_use]
pub fn is_whole(row: &LogRow) -> bool {
    !matches!(row.step, LogStep::Segment { body_checksum: None, .. })
}

/// Whether two nodes show different rows, ignoring what each read of the body.
#[must_use]
pub fn differs(first: &LogRow, second: &LogRow) -> bool {
    without_reading(first) != without_reading(second)
}

fn without_reading(row: &LogRow) -> LogRow {
    let mut row = row.clone();
    if let LogStep::Segment { body_checksum, elsewhere, .. } = &mut row.step {
        (*body_checksum, *elsewhere) = (None, false);
    }
    row
}

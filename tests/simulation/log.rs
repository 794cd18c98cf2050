//! The order, as the nodes showed it, and the rules for it at every step.
//!
//! Checked here, of "What must never happen" (`src/ARCHITECTURE.md`): no two nodes disagree about a slot, before and
//! after restarts (2); every resolution has a quorum of votes of its storage group (3); no segment of an older
//! incarnation is placed after its fence (4); slots and positions are dense, stamps don't fall, numbers are in order
//! within an incarnation, each value has one position, in the order of its session (1); all nodes hide the same
//! events of a slot. The log is released only up to the beginning of a slot.
//!
//! Invariant: what was shown once is recorded for good; everything shown later is compared with it.
//!
//! Deliberately absent: the answers that clients got (`record`), and whether votes were true (`observe`).

use std::collections::BTreeMap;

use vulpes::log::Placed;
use vulpes::segment::checksum;
use vulpes::types::act::Act;
use vulpes::types::head::Head;
use vulpes_raft::ids::{EventId, Incarnation, NodeId, Position, SegmentNumber, Slot};
use vulpes_raft::order::{Resolution, SealedSegment, Step};

use crate::births::LifeLog;
use crate::delays::DelayLog;
use crate::insiders::RuleLog;
use crate::keepers::KeptLog;
use crate::locks::{self, LockLog};
use crate::plan::{Shape, QUORUM};
use crate::state::StateLog;
use crate::times::Times;
use crate::value::Value;

/// The order as shown so far.
#[derive(Default)]
pub(crate) struct OrderLog {
    pub(crate) shape: Shape,
    slots: Vec<Resolution>,
    /// By position, from 1; `None` for the nodes' own events about sessions.
    values: Vec<Option<Value>>,
    places: BTreeMap<Value, Position>,
    entries: BTreeMap<NodeId, Life>,
    pub(crate) lock: LockLog,
    /// The successive beginnings of the retained log.
    heads: Vec<Head>,
    pub(crate) state: StateLog,
    pub(crate) times: Times,
    pub(crate) life: LifeLog,
    pub(crate) delays: DelayLog,
    pub(crate) rules: RuleLog,
    /// The hidden events of each slot.
    hidden: Vec<Box<[u32]>>,
    pub(crate) persistent: KeptLog,
    /// The last number of each session in the log.
    sessions: BTreeMap<(u64, u64), u64>,
    /// Slots shown by a node that began after a slot that no node has shown yet.
    parked: BTreeMap<Slot, Placed>,
}

/// An entry's incarnation, according to the order.
struct Life {
    incarnation: Incarnation,
    open: bool,
    next: SegmentNumber,
}

impl OrderLog {
    /// Takes a slot that a node shows; returns the segments that became known by it.
    pub(crate) fn show(&mut self, placed: &Placed) -> Result<Vec<SealedSegment>, String> {
        let slot = placed.resolution.slot;
        if slot.0 == 0 {
            return Err("a slot numbered 0".into());
        }
        if let Some(known) = self.slots.get(slot.0 as usize - 1) {
            if *known != placed.resolution {
                return Err(format!("{known:?} became {:?}", placed.resolution));
            }
            body_fits(placed)?;
            if self.hidden[slot.0 as usize - 1] != placed.hidden {
                return Err(format!("slot {slot} hides {:?} now", placed.hidden));
            }
            return Ok(Vec::new());
        }
        if slot.0 > self.slots.len() as u64 + 1 {
            return match self.parked.insert(slot, placed.clone()) {
                Some(known) if known.resolution != placed.resolution => {
                    Err(format!("{:?} became {:?}", known.resolution, placed.resolution))
                }
                _ => Ok(Vec::new()),
            };
        }
        let mut found = Vec::new();
        self.take(placed, &mut found)?;
        while let Some(parked) = self.parked.remove(&Slot(self.slots.len() as u64 + 1)) {
            self.take(&parked, &mut found)?;
        }
        Ok(found)
    }

    /// Takes a storage's row of a slot whose body another group stores.
    pub(crate) fn show_bare(&self, row: &Resolution, hidden: &[u32]) -> Result<(), String> {
        let at = row.slot.0 as usize - 1;
        match self.slots.get(at) {
            Some(known) if known != row => Err(format!("{known:?} became {row:?}")),
            Some(_) if *self.hidden[at] != *hidden => {
                Err(format!("slot {} hides {hidden:?} now", row.slot))
            }
            _ => Ok(()),
        }
    }

    /// Takes the next slot.
    fn take(&mut self, placed: &Placed, found: &mut Vec<SealedSegment>) -> Result<(), String> {
        let resolution = &placed.resolution;
        let slot = resolution.slot;
        let end = self.slots.last().map_or(Position(1), Resolution::end);
        if resolution.base != end {
            return Err(format!("slot {slot} begins at {}, not at {end}", resolution.base));
        }
        if self.slots.last().is_some_and(|last| last.stamp > resolution.stamp) {
            return Err(format!("the stamp falls at slot {slot}"));
        }
        self.times.take(resolution)?;
        self.state.take(placed)?;
        self.life.take(placed)?;
        self.delays.take(placed, self.times.now)?;
        self.rules.take(placed);
        match &resolution.step {
            Step::Opened { entry, incarnation } => self.opened(*entry, *incarnation)?,
            Step::Closed { entry, incarnation, .. } => {
                let life = self.entries.get_mut(entry);
                match life.filter(|life| life.open && life.incarnation == *incarnation) {
                    Some(life) => life.open = false,
                    None => return Err(format!("slot {slot} closes what is not open")),
                }
            }
            Step::Segment(sealed) => {
                self.segment(slot, sealed)?;
                self.events(placed)?;
                found.push(sealed.clone());
            }
        }
        self.slots.push(resolution.clone());
        self.hidden.push(placed.hidden.clone());
        Ok(())
    }

    fn opened(&mut self, entry: NodeId, incarnation: Incarnation) -> Result<(), String> {
        let life = Life { incarnation, open: true, next: SegmentNumber(0) };
        match self.entries.insert(entry, life) {
            Some(old) if old.incarnation >= incarnation => Err(format!(
                "entry {entry} opened incarnation {incarnation} after {}",
                old.incarnation
            )),
            _ => Ok(()),
        }
    }

    fn segment(&mut self, slot: Slot, sealed: &SealedSegment) -> Result<(), String> {
        let id = sealed.id;
        let Some(life) = self.entries.get_mut(&id.entry) else {
            return Err(format!("slot {slot} has segment {id} of an entry that never opened"));
        };
        if !life.open || life.incarnation != id.incarnation {
            return Err(format!("slot {slot} has segment {id}, which was fenced before"));
        }
        if life.next != id.number {
            return Err(format!("slot {slot} has segment {id} where number {} is next", life.next));
        }
        life.next = id.number.next();
        let storages = self.shape.storages_of(sealed.shard);
        let known = |vote: &NodeId| storages.contains(&vote.0);
        let rising = sealed.votes.windows(2).all(|pair| pair[0] < pair[1]);
        // Without votes it was proposed early: the disks show whether a quorum has it.
        let enough = sealed.votes.is_empty() || sealed.votes.len() >= QUORUM;
        if !rising || !sealed.votes.iter().all(known) || !enough {
            return Err(format!("slot {slot} has no quorum of votes: {:?}", sealed.votes));
        }
        Ok(())
    }

    fn events(&mut self, placed: &Placed) -> Result<(), String> {
        body_fits(placed)?;
        let Some(segment) = &placed.segment else { return Ok(()) };
        for event in segment.events() {
            let topic = segment.topics()[event.topic as usize].1.as_str();
            if !event.act.is_empty() || topic.starts_with('$') {
                self.released(&placed.resolution, &event.act)?;
                self.values.push(None);
                let position = Position(self.values.len() as u64);
                self.persistent.shown(position, event.publisher, &event.act);
                if topic == locks::TOPIC && !placed.is_hidden(event.offset) {
                    self.lock.shown(position, &event.payload)?;
                }
                continue;
            }
            let value = Value::stored(&event.payload)?;
            let position = Position(self.values.len() as u64 + 1);
            if let Some(first) = self.places.insert(value, position) {
                return Err(format!("{value} stands at position {first} and at {position}"));
            }
            let session = (value.client, value.session);
            match self.sessions.insert(session, value.sequence) {
                Some(last) if last >= value.sequence => {
                    return Err(format!("{value} stands behind number {last} of its session"));
                }
                _ => self.values.push(Some(value)),
            }
        }
        Ok(())
    }

    fn released(&mut self, at: &Resolution, act: &bytes::Bytes) -> Result<(), String> {
        let Some(Act::Release { slot, position }) = Act::decode(act) else { return Ok(()) };
        let named = if slot == at.slot { Some(at) } else { self.slots.get(slot.0 as usize - 1) };
        if named.is_none_or(|named| named.base != position) {
            return Err(format!(
                "slot {} releases up to slot {slot}, position {position}",
                at.slot
            ));
        }
        if let Some(last) = (slot.0 as usize).checked_sub(2).and_then(|last| self.slots.get(last)) {
            self.times.released(last, at)?;
        }
        if slot > self.head().slot {
            self.heads.push(Head { slot, position });
        }
        Ok(())
    }

    /// Where the retained log begins.
    pub(crate) fn head(&self) -> Head {
        self.heads.last().copied().unwrap_or_default()
    }

    /// The successive beginnings of the retained log, without the very first.
    pub(crate) fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// How many slots are known.
    pub(crate) fn len(&self) -> u64 {
        self.slots.len() as u64
    }

    /// All known resolutions.
    pub(crate) fn slots(&self) -> &[Resolution] {
        &self.slots
    }

    /// Values by position, from 1.
    pub(crate) fn values(&self) -> &[Option<Value>] {
        &self.values
    }

    /// The first position after another one that has a value, if one is known.
    pub(crate) fn next_value(&self, behind: Position) -> Option<Position> {
        let skipped = self.values.iter().skip(behind.0 as usize).position(Option::is_some)?;
        Some(Position(behind.0 + skipped as u64 + 1))
    }

    /// The last position that has a value; 0 if none has.
    pub(crate) fn last_value(&self) -> Position {
        Position(self.values.iter().rposition(Option::is_some).map_or(0, |at| at as u64 + 1))
    }

    /// A value's position.
    pub(crate) fn place(&self, value: Value) -> Option<Position> {
        self.places.get(&value).copied()
    }

    /// Slots that were shown before all earlier ones are known.
    pub(crate) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// The event id of a known position.
    pub(crate) fn event_id(&self, position: Position) -> Option<EventId> {
        let at = self.slots.partition_point(|slot| slot.end() <= position);
        let slot = self.slots.get(at)?;
        let offset = u32::try_from(position.0.checked_sub(slot.base.0)?).ok()?;
        Some(EventId::new(slot.stamp, slot.slot, offset))
    }
}

/// Whether the shown body is the one that was voted for.
fn body_fits(placed: &Placed) -> Result<(), String> {
    let slot = placed.resolution.slot;
    match (&placed.resolution.step, &placed.segment) {
        (Step::Segment(sealed), Some(segment)) => {
            let (id, count) = (segment.id(), segment.count());
            if checksum(segment.body()) != sealed.checksum
                || id != sealed.id
                || count != sealed.count
            {
                return Err(format!("slot {slot} shows another body than the one voted for"));
            }
            Ok(())
        }
        (Step::Opened { .. } | Step::Closed { .. }, None) => Ok(()),
        _ => Err(format!("slot {slot} shows a step without its body, or a body without a step")),
    }
}

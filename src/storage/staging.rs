//! What a storage knows without its disk: bodies that are not in the order yet, fences, and the next slot.
//!
//! It decides what a body or a row of the order changes, as a list of [`Write`]s for the next group commit. Its state is the
//! state of the disk once everything queued so far is written, so writes have to be queued in the order of the decisions.
//!
//! Invariant: a body is discarded only if the order itself shows that it can't be resolved any more. A row that names
//! a body of the storage's shards is written only if the body is held or comes with it.
//!
//! Deliberately absent: the disk, the queue, and checking arriving bodies.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vulpes_raft::ids::{
    AdvanceSegment, Incarnation, NodeId, Position, SegmentNumber, Shards, Slot,
};
use vulpes_raft::mutant::{planted, Mutant};
use vulpes_raft::order::{Resolution, SealedSegment, Step};

use super::error::IndexError;
use crate::types::row::{Change, IndexedRow};

/// Most bodies that one storage holds without their being in the order.
const UNRESOLVED: usize = 65_536;

/// Most bodies recorded as damaged until they are repaired; further ones are found again at their next read.
const DAMAGED: usize = 4096;

/// The lowest incarnation and number of an entry that may still be resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fence {
    pub(super) incarnation: Incarnation,
    pub(super) number: SegmentNumber,
}

impl Fence {
    /// After everything an entry seals.
    pub(super) const LAST: Self =
        Self { incarnation: Incarnation(u64::MAX), number: SegmentNumber(u64::MAX) };

    fn at(id: AdvanceSegment) -> Self {
        Self { incarnation: id.incarnation, number: id.number }
    }

    /// The first segment of an entry that is not fenced by it.
    pub(super) fn of(self, entry: NodeId) -> AdvanceSegment {
        AdvanceSegment { entry, incarnation: self.incarnation, number: self.number }
    }
}

/// One change to the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// Writes a body, replacing one of that name if there is one.
    Body { id: AdvanceSegment, checksum: u64, body: Bytes },
    /// Writes a body over one of that name, if that is still there.
    Replace { id: AdvanceSegment, checksum: u64, body: Bytes },
    /// Removes a body that can't be resolved any more.
    Discard { id: AdvanceSegment },
    /// Writes a row of the order.
    Row(Resolution),
    /// Writes which events of a slot are hidden.
    Hidden { slot: Slot, offsets: Vec<u32> },
    /// Writes or removes a row of the realms' state.
    State(Change),
    /// Removes a row of the order, and everything that belongs to it.
    Release { slot: Slot, body: Option<AdvanceSegment> },
    /// Writes a row of the order before the existing ones.
    Older(Resolution),
    /// Removes all rows of the order and of the realms' state.
    Forget,
    /// Raises an entry's fence.
    Fence { entry: NodeId, fence: Fence },
}

/// The decision about a body that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is held once these are written.
    Held(Vec<Write>),
    /// Its number is already in the order: only the tables show whether it is the same body.
    Resolved,
}

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its incarnation is fenced.
    Fenced,
    /// Another body is held under its name.
    Conflict,
    /// There are too many bodies that are not in the order.
    Full,
}

/// What is known about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyState {
    /// A body with this checksum is held or about to be, and is not in the order.
    Unresolved { checksum: u64 },
    /// It is before the fence: it is in the order, or never will be.
    Past,
    /// No body of that name has arrived yet.
    Unknown,
}

/// The slot and position of the next row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) slot: Slot,
    pub(super) base: Position,
}

impl Next {
    pub(super) fn after(tail: Option<&Resolution>) -> Self {
        match tail {
            Some(tail) => Self { slot: tail.slot.next(), base: tail.end() },
            None => Self { slot: Slot(1), base: Position(1) },
        }
    }
}

#[derive(Debug)]
pub(super) struct Staging {
    /// The shards of the storage's group.
    shards: Shards,
    /// The checksums of bodies that are not in the order.
    unresolved: BTreeMap<AdvanceSegment, u64>,
    fences: BTreeMap<NodeId, Fence>,
    damaged: BTreeSet<AdvanceSegment>,
    next: Next,
}

impl Staging {
    /// Loads the contents of the tables.
    pub(super) fn new(
        shards: Shards,
        unresolved: BTreeMap<AdvanceSegment, u64>,
        fences: BTreeMap<NodeId, Fence>,
        next: Next,
    ) -> Self {
        Self { shards, unresolved, fences, damaged: BTreeSet::new(), next }
    }

    /// Whether exactly this body is here, or the order shows its segment's outcome.
    pub(super) fn held(&self, sealed: &SealedSegment) -> bool {
        match self.body_state(sealed.id) {
            BodyState::Unresolved { checksum } => checksum == sealed.checksum,
            BodyState::Past => true,
            BodyState::Unknown => false,
        }
    }

    fn fence(&self, entry: NodeId) -> Fence {
        self.fences.get(&entry).copied().unwrap_or_default()
    }

    pub(super) fn is_fenced(&self, entry: NodeId, incarnation: Incarnation) -> bool {
        incarnation < self.fence(entry).incarnation
    }

    /// How many bodies are not in the order.
    pub(super) fn unresolved(&self) -> usize {
        self.unresolved.len()
    }

    pub(super) fn body_state(&self, id: AdvanceSegment) -> BodyState {
        match self.unresolved.get(&id) {
            Some(checksum) => BodyState::Unresolved { checksum: *checksum },
            None if Fence::at(id) < self.fence(id.entry) => BodyState::Past,
            None => BodyState::Unknown,
        }
    }

    /// Takes a body that passed its checks.
    pub(super) fn append(
        &mut self,
        id: AdvanceSegment,
        checksum: u64,
        body: &Bytes,
    ) -> Result<Admission, Refusal> {
        if self.is_fenced(id.entry, id.incarnation) {
            return Err(Refusal::Fenced);
        }
        match self.body_state(id) {
            BodyState::Past => Ok(Admission::Resolved),
            BodyState::Unresolved { checksum: held } if held != checksum => Err(Refusal::Conflict),
            BodyState::Unresolved { .. } => {
                // If the copy on disk is damaged, the same body arriving again repairs it.
                let mended = self.damaged.remove(&id);
                let write = mended.then(|| Write::Body { id, checksum, body: body.clone() });
                Ok(Admission::Held(write.into_iter().collect()))
            }
            BodyState::Unknown if self.unresolved.len() >= UNRESOLVED => Err(Refusal::Full),
            BodyState::Unknown => {
                self.unresolved.insert(id, checksum);
                Ok(Admission::Held(vec![Write::Body { id, checksum, body: body.clone() }]))
            }
        }
    }

    /// Takes the next rows of the order, all or none, each with a body to write if the storage lacks it. The bodies
    /// have been checked against their rows.
    pub(super) fn index(&mut self, rows: Vec<IndexedRow>) -> Result<Vec<Write>, IndexError> {
        let (raised, next) = self.check(&rows)?;
        let changes: usize = rows.iter().map(|row| row.changes.len()).sum();
        let mut writes = Vec::with_capacity(rows.len() * 2 + changes + raised.len());
        for IndexedRow { resolution, body, hidden, changes } in rows {
            match &resolution.step {
                Step::Segment(sealed) => self.resolve(sealed, body, &mut writes),
                Step::Opened { entry, .. } | Step::Closed { entry, .. } => {
                    if let Some(fence) = raised_by(&resolution.step) {
                        self.discard_below(*entry, fence.incarnation, &mut writes);
                    }
                }
            }
            if !hidden.is_empty() {
                writes.push(Write::Hidden { slot: resolution.slot, offsets: hidden });
            }
            if !(planted(Mutant::LoseStateRows) && resolution.slot.0 % 8 == 0) {
                writes.extend(changes.into_iter().map(Write::State));
            }
            writes.push(Write::Row(resolution));
        }
        writes.extend(
            raised.iter().map(|(entry, fence)| Write::Fence { entry: *entry, fence: *fence }),
        );
        self.fences.extend(raised);
        self.next = next;
        Ok(writes)
    }

    /// Checks rows without changing anything; returns the fences that they raise and what comes after them.
    fn check(&self, rows: &[IndexedRow]) -> Result<(BTreeMap<NodeId, Fence>, Next), IndexError> {
        let mut next = self.next;
        let mut raised = BTreeMap::<NodeId, Fence>::new();
        for IndexedRow { resolution, body, .. } in rows {
            let slot = resolution.slot;
            if slot != next.slot {
                return Err(IndexError::NotNext { expected: next.slot, found: slot });
            }
            if resolution.base != next.base {
                let (expected, found) = (next.base, resolution.base);
                return Err(IndexError::WrongBase { slot, expected, found });
            }
            let (entry, fence) = match &resolution.step {
                Step::Segment(sealed) => {
                    let entry = sealed.id.entry;
                    let fence = raised.get(&entry).copied().unwrap_or_else(|| self.fence(entry));
                    if Fence::at(sealed.id) < fence {
                        return Err(IndexError::Fenced { slot, segment: sealed.id });
                    }
                    if body.is_none() && self.wants(sealed) {
                        return Err(IndexError::BodyMissing { slot, segment: sealed.id });
                    }
                    let number = sealed.id.number.next();
                    (entry, Fence { incarnation: sealed.id.incarnation, number })
                }
                step @ (Step::Opened { entry, .. } | Step::Closed { entry, .. }) => {
                    (*entry, raised_by(step).unwrap_or_default())
                }
            };
            let before = raised.get(&entry).copied().unwrap_or_else(|| self.fence(entry));
            raised.insert(entry, before.max(fence));
            next = Next::after(Some(resolution));
        }
        Ok((raised, next))
    }

    /// Whether the body that was voted for belongs here, and no copy of it that is not known to be damaged is held.
    pub(super) fn lacks(&self, sealed: &SealedSegment) -> bool {
        self.wants(sealed) || self.names(sealed) && self.damaged.contains(&sealed.id)
    }

    /// Whether that body belongs here, and was never stored. A body that was found damaged since then gets its row anyway: it
    /// is known to need repair, and another reader may have found the damage just after the caller learned that it is here.
    fn wants(&self, sealed: &SealedSegment) -> bool {
        self.shards.contains(sealed.shard) && !self.names(sealed)
    }

    fn names(&self, sealed: &SealedSegment) -> bool {
        self.unresolved.get(&sealed.id) == Some(&sealed.checksum)
    }

    fn resolve(&mut self, sealed: &SealedSegment, body: Option<Bytes>, writes: &mut Vec<Write>) {
        let (id, checksum) = (sealed.id, sealed.checksum);
        let has = self.names(sealed) && !self.damaged.contains(&id);
        if let Some(body) = body.filter(|_| !has) {
            self.damaged.remove(&id);
            writes.push(Write::Body { id, checksum, body });
        }
        self.unresolved.remove(&id);
    }

    fn discard_below(&mut self, entry: NodeId, incarnation: Incarnation, writes: &mut Vec<Write>) {
        let first = |incarnation| AdvanceSegment { entry, incarnation, number: SegmentNumber(0) };
        let range = first(Incarnation(0))..first(incarnation);
        let discarded: Vec<_> = self.unresolved.range(range).map(|(id, _)| *id).collect();
        for id in discarded {
            self.unresolved.remove(&id);
            self.damaged.remove(&id);
            writes.push(Write::Discard { id });
        }
    }

    /// The slot and position of the next row.
    pub(super) fn next(&self) -> Next {
        self.next
    }

    /// Deleted bodies need no repair.
    pub(super) fn released(&mut self, writes: &[Write]) {
        for write in writes {
            if let Write::Release { body: Some(id), .. } = write {
                self.damaged.remove(id);
            }
        }
    }

    /// Replaces all rows with another storage's row, with that storage's whole state as its changes. The fences follow from the
    /// incarnations that are open after it. How many segments of these are resolved is known only from earlier rows, once those
    /// are filled in. Until then, bodies that are already in the order may be accepted. They are discarded when the entry's
    /// next incarnation opens, except for bodies from before a restart, which can't be distinguished from others by then.
    pub(super) fn adopt(
        &mut self,
        row: IndexedRow,
        entries: &[(NodeId, Incarnation)],
    ) -> Result<Vec<Write>, IndexError> {
        let next = Next::after(Some(&row.resolution));
        let state = row.changes.clone();
        let mut writes = self.older(IndexedRow { changes: Vec::new(), ..row.clone() })?;
        writes.pop();
        writes.push(Write::Row(row.resolution));
        writes.extend(state.into_iter().map(Write::State));
        for (entry, incarnation) in entries {
            let fence = Fence { incarnation: *incarnation, number: SegmentNumber(0) };
            self.raise(*entry, fence, &mut writes);
        }
        self.next = next;
        Ok(writes)
    }

    /// Takes rows before the existing ones.
    pub(super) fn fill(&mut self, rows: Vec<IndexedRow>) -> Result<Vec<Write>, IndexError> {
        for row in &rows {
            self.check_held(row)?;
        }
        let mut writes = Vec::new();
        for row in rows {
            writes.extend(self.older(row)?);
        }
        Ok(writes)
    }

    fn check_held(&self, row: &IndexedRow) -> Result<(), IndexError> {
        match &row.resolution.step {
            Step::Segment(_) if planted(Mutant::SnapshotWithoutBodies) => Ok(()),
            Step::Segment(sealed) if row.body.is_none() && self.wants(sealed) => {
                Err(IndexError::BodyMissing { slot: row.resolution.slot, segment: sealed.id })
            }
            _ => Ok(()),
        }
    }

    /// A row with its writes, the row itself last. It raises the fences that it would have raised if it had been indexed in
    /// order.
    fn older(&mut self, row: IndexedRow) -> Result<Vec<Write>, IndexError> {
        self.check_held(&row)?;
        let IndexedRow { resolution, body, hidden, .. } = row;
        let mut writes = Vec::new();
        let fence = match &resolution.step {
            Step::Segment(sealed) => {
                self.resolve(sealed, body, &mut writes);
                let (incarnation, number) = (sealed.id.incarnation, sealed.id.number.next());
                Some((sealed.id.entry, Fence { incarnation, number }))
            }
            step @ (Step::Opened { entry, .. } | Step::Closed { entry, .. }) => {
                raised_by(step).map(|fence| (*entry, fence))
            }
        };
        if let Some((entry, fence)) = fence {
            self.raise(entry, fence, &mut writes);
        }
        if !hidden.is_empty() {
            writes.push(Write::Hidden { slot: resolution.slot, offsets: hidden });
        }
        writes.push(Write::Older(resolution));
        Ok(writes)
    }

    fn raise(&mut self, entry: NodeId, fence: Fence, writes: &mut Vec<Write>) {
        if fence > self.fence(entry) {
            self.fences.insert(entry, fence);
            writes.push(Write::Fence { entry, fence });
        }
    }

    pub(super) fn mark_damaged(&mut self, id: AdvanceSegment) {
        if self.damaged.len() < DAMAGED {
            self.damaged.insert(id);
        }
    }

    pub(super) fn is_damaged(&self, id: AdvanceSegment) -> bool {
        self.damaged.contains(&id)
    }

    pub(super) fn mended(&mut self, id: AdvanceSegment) {
        self.damaged.remove(&id);
    }

    pub(super) fn damaged(&self) -> impl Iterator<Item = AdvanceSegment> + '_ {
        self.damaged.iter().copied()
    }
}

/// The fence that an entry's opening or closing raises.
fn raised_by(step: &Step) -> Option<Fence> {
    let incarnation = match step {
        Step::Segment(_) => return None,
        Step::Opened { incarnation, .. } => *incarnation,
        Step::Closed { incarnation, .. } => incarnation.next(),
    };
    Some(Fence { incarnation, number: SegmentNumber(0) })
}

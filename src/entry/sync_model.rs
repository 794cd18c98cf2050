//! A model of sync for the entry's tests: the sequencer's rules in a few lines.
//!
//! Invariant: the log only grows, and contains everything that was ever answered.
//!
//! Deliberately absent: everything replicated.

use std::collections::BTreeSet;

use vulpes_raft::ids::{
    AdvanceSegment, DiskId, Incarnation, NodeId, Position, SegmentNumber, Slot, Stamp,
};
use vulpes_raft::order::{
    CloseReason, Place, Resolution, SealedSegment, SegmentOutcome, Step, StorageGroup,
    StorageGroups, StorageMember,
};

use super::order::{Lease, Opened};

/// The sequencer of one entry; other entries are only noise.
#[derive(Debug)]
pub(super) struct SyncModel {
    entry: NodeId,
    incarnation: Incarnation,
    request: Option<u64>,
    resolved: Vec<(u64, Place)>,
    next_position: Position,
    /// How often a proposal came too early.
    pub(super) gaps: u64,
    /// Segments whose bodies a quorum of sync members has.
    pub(super) held: BTreeSet<AdvanceSegment>,
    pub(super) groups: StorageGroups,
    pub(super) log: Vec<Resolution>,
}

/// Groups of these nodes.
pub(super) fn groups_of(groups: &[&[u64]]) -> StorageGroups {
    let member = |node: &u64| StorageMember { node: NodeId(*node), disk: DiskId(*node) };
    let group = |nodes: &&[u64]| StorageGroup { members: nodes.iter().map(member).collect() };
    StorageGroups::even(groups.iter().map(group).collect())
}

impl SyncModel {
    pub(super) fn new(entry: NodeId) -> Self {
        Self {
            entry,
            incarnation: Incarnation(0),
            request: None,
            resolved: Vec::new(),
            next_position: Position(1),
            gaps: 0,
            held: BTreeSet::new(),
            groups: groups_of(&[&[1, 2, 3]]),
            log: Vec::new(),
        }
    }

    pub(super) fn open(&mut self, request: u64) -> Opened {
        if self.request != Some(request) {
            self.incarnation = self.incarnation.next();
            self.request = Some(request);
            self.resolved.clear();
            let (entry, incarnation) = (self.entry, self.incarnation);
            self.push(Step::Opened { entry, incarnation }, 0);
        }
        Opened { incarnation: self.incarnation, groups: self.groups.clone() }
    }

    /// Another process opens the same entry.
    pub(super) fn steal(&mut self) {
        self.open(u64::MAX - self.log.len() as u64);
    }

    /// The lease runs out.
    pub(super) fn close(&mut self) {
        if self.request.take().is_some() {
            let (entry, incarnation) = (self.entry, self.incarnation);
            let reason = CloseReason::LeaseLost;
            self.push(Step::Closed { entry, incarnation, reason }, 0);
        }
    }

    /// Another entry opens.
    pub(super) fn noise(&mut self) {
        let entry = NodeId(self.entry.0 + 1);
        self.push(Step::Opened { entry, incarnation: Incarnation(1) }, 0);
    }

    pub(super) fn renew(&self, incarnation: Incarnation) -> Lease {
        let held = self.request.is_some() && self.incarnation == incarnation;
        if held {
            Lease::Held
        } else {
            Lease::Lost
        }
    }

    pub(super) fn propose(&mut self, segments: Vec<SealedSegment>) -> Vec<SegmentOutcome> {
        segments.into_iter().map(|segment| self.resolve(segment)).collect()
    }

    fn resolve(&mut self, segment: SealedSegment) -> SegmentOutcome {
        let (id, expected) = (segment.id, SegmentNumber(self.resolved.len() as u64));
        if id.incarnation != self.incarnation {
            return SegmentOutcome::Fenced { current: self.incarnation };
        }
        if let Some((checksum, place)) = self.resolved.get(id.number.0 as usize) {
            assert_eq!(*checksum, segment.checksum, "a name stands for one body");
            return SegmentOutcome::Resolved(*place);
        }
        if self.request.is_none() {
            return SegmentOutcome::NotOpen;
        }
        if id.number > expected {
            self.gaps += 1;
            return SegmentOutcome::Gap { expected };
        }
        let early = segment.votes.is_empty() && self.held.contains(&id);
        let group = self.groups.of(segment.shard).unwrap();
        if !early && !group.is_quorum(&segment.votes) {
            return SegmentOutcome::NoQuorum;
        }
        let (checksum, count) = (segment.checksum, segment.count);
        let place = self.push(Step::Segment(segment), count);
        self.resolved.push((checksum, place));
        SegmentOutcome::Resolved(place)
    }

    fn push(&mut self, step: Step, count: u32) -> Place {
        let slot = Slot(self.log.len() as u64 + 1);
        let place = Place { slot, stamp: Stamp(slot.0), base: self.next_position };
        self.log.push(Resolution { slot, stamp: place.stamp, ahead: 0, base: place.base, step });
        self.next_position = Position(self.next_position.0 + u64::from(count));
        place
    }
}

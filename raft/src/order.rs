//! The order's inputs and outputs: proposals, their outcomes, and resolutions.
//!
//! Invariant: a [`Resolution`], once shown, never changes. These types are persisted and sent between nodes through
//! `wire`; enum variants and struct fields keep their order for ever, new ones go last.
//!
//! Deliberately absent: the rules that turn a proposal into a resolution (`sequencer`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{
    AdvanceSegment, DiskId, Incarnation, NodeId, OrderTime, Position, SegmentNumber, Shard, Shards,
    Slot, Stamp,
};
use crate::mutant::{planted, Mutant};

/// A sealed segment, as its entry proposes it to sync. Once it is in the order, a quorum of its storages holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSegment {
    pub id: AdvanceSegment,
    pub shard: Shard,
    /// Number of events, at least 1.
    pub count: u32,
    /// Length of the body in bytes.
    pub length: u32,
    /// XXH3-64 of the body.
    pub checksum: u64,
    /// The storages that gave their storage vote, ascending, each once. None if it was proposed early: then the
    /// quorum of sync members with the log entry has its body (see [`crate::local_bodies`]).
    pub votes: Vec<NodeId>,
}

/// One step of the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    pub slot: Slot,
    pub stamp: Stamp,
    /// How far [`Resolution::time`] is ahead of the stamp: 0, as long as no majority of clocks was set back.
    pub ahead: i64,
    /// Position of the first event at or after this slot.
    pub base: Position,
    pub step: Step,
}

/// The content of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A segment was ordered: its events have the positions from the resolution's base on.
    Segment(SealedSegment),
    /// An entry began a new incarnation; no segment of an older one is resolved from here on.
    Opened { entry: NodeId, incarnation: Incarnation },
    /// An entry's incarnation ended; none of its segments is resolved from here on.
    Closed { entry: NodeId, incarnation: Incarnation, reason: CloseReason },
}

impl Resolution {
    /// A step at this place, as of this time.
    #[must_use]
    pub fn new(Place { slot, stamp, base }: Place, time: OrderTime, step: Step) -> Self {
        Self { slot, stamp, ahead: time.0.wrapping_sub(stamp.0) as i64, base, step }
    }

    /// The order's time at this slot.
    #[must_use]
    pub fn time(&self) -> OrderTime {
        OrderTime(self.stamp.0.wrapping_add_signed(self.ahead))
    }

    /// Position of the first event after this slot.
    #[must_use]
    pub fn end(&self) -> Position {
        match &self.step {
            Step::Segment(segment) => Position(self.base.0 + u64::from(segment.count)),
            Step::Opened { .. } | Step::Closed { .. } => self.base,
        }
    }
}

/// Why an incarnation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseReason {
    /// The entry closed it.
    Left,
    /// Its lease ran out.
    LeaseLost,
}

/// A segment's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub slot: Slot,
    pub stamp: Stamp,
    pub base: Position,
}

/// The answer to one proposed segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentOutcome {
    /// It is in the order, now or since an earlier proposal of the same segment.
    Resolved(Place),
    /// An earlier number of the same incarnation has to be proposed first. Propose from `expected` on.
    Gap { expected: SegmentNumber },
    /// The incarnation is no longer the entry's current one: this segment will never be resolved unless it already was.
    Fenced { current: Incarnation },
    /// The entry never opened, or its incarnation was closed. Open a new one.
    NotOpen,
    /// Its votes are not a quorum of the storage group that now holds its shard. Collect more votes.
    NoQuorum,
    /// The number was resolved with another body: two writers share an incarnation. A bug, or a copied process image.
    Conflict,
    /// It was resolved so long ago that its place is no longer in memory here; the log has it.
    Forgotten,
}

/// A member of the storage group, with the disk it was enrolled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StorageMember {
    pub node: NodeId,
    pub disk: DiskId,
}

/// The storages that hold a range of shards.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StorageGroup {
    /// Ascending by node.
    pub members: Vec<StorageMember>,
}

impl StorageGroup {
    /// How many votes make a quorum: more than half.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.members.len() / 2 + usize::from(!planted(Mutant::QuorumOffByOne))
    }

    /// Whether these votes, each node counted once, are a quorum of this group.
    #[must_use]
    pub fn is_quorum(&self, votes: &[NodeId]) -> bool {
        let held = self.members.iter().filter(|member| votes.contains(&member.node)).count();
        !self.members.is_empty() && held >= self.quorum()
    }
}

/// Which storage group holds which shards. Once there are groups, each shard belongs to one.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StorageGroups {
    /// By the first shard that the group holds; a group's range ends where the next one begins.
    groups: BTreeMap<Shard, StorageGroup>,
}

impl StorageGroups {
    /// Groups that hold equal parts of all shards, in this order. At most as many as there are shards.
    #[must_use]
    pub fn even(groups: Vec<StorageGroup>) -> Self {
        let of = groups.len() as u32;
        let first = |part| Shards::part(part, of).first();
        Self { groups: (0..).map(first).zip(groups).collect() }
    }

    /// The group that holds a shard.
    #[must_use]
    pub fn of(&self, shard: Shard) -> Option<&StorageGroup> {
        self.range_of(shard).map(|(_, group)| group)
    }

    /// Like [`StorageGroups::of`], with the first shard that the group holds.
    #[must_use]
    pub fn range_of(&self, shard: Shard) -> Option<(Shard, &StorageGroup)> {
        let shard = if planted(Mutant::OneGroupForAll) { Shard(0) } else { shard };
        self.groups.range(..=shard).next_back().map(|(first, group)| (*first, group))
    }

    /// The group that holds all shards, if there is only one.
    #[must_use]
    pub fn sole(&self) -> Option<&StorageGroup> {
        self.groups.values().next().filter(|_| self.groups.len() == 1)
    }

    /// All groups, each with the first shard that it holds, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Shard, &StorageGroup)> {
        self.groups.iter().map(|(first, group)| (*first, group))
    }

    /// The members of all groups.
    pub fn members(&self) -> impl Iterator<Item = StorageMember> + '_ {
        self.groups.values().flat_map(|group| group.members.iter().copied())
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is no group yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

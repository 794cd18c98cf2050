//! The sequencer: the pure state machine that gives advance segments their places in the order.
//!
//! Invariant: the same commands in the same order give the same state and the same answers on every member. Slots are
//! dense from 1, positions are dense from 1, stamps and the order's time never run backwards. An incarnation's
//! segments are resolved in number order and never after a newer incarnation opened, and a repeated proposal gets its
//! first answer again. Every command is total: a bad one is an answer, never a panic.
//!
//! Deliberately absent: clocks (a command has what a majority of them vouches for), leases (the leader keeps them in
//! memory), disks and networks.

mod clock;
mod entries;
mod tail;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{AdvanceSegment, DiskId, Incarnation, NodeId, OrderTime, Position, Slot, Stamp};
use crate::mutant::{planted, Mutant};
use crate::order::{
    CloseReason, Place, Resolution, SealedSegment, SegmentOutcome, Step, StorageGroup,
    StorageGroups, StorageMember,
};

use clock::OrderClock;
use entries::{Entries, Entry};
use tail::Tail;

pub use clock::TOLERANCE;

/// How many resolved segments of an entry's current incarnation keep their place, to answer repeated proposals.
pub const RECENT_PER_ENTRY: usize = 256;

/// The most resolutions that are kept for followers.
pub const RETAINED_RESOLUTIONS: usize = 16_384;

/// How many of the newest resolutions are kept even if all storages have them on disk, because followers that are slightly
/// behind still request them.
pub const RETAINED_FOR_FOLLOWERS: usize = 1_024;

/// The most entries that can ever open.
pub const ENTRIES_MAX: usize = 1_024;

/// The most members that all storage groups may have together.
pub const GROUP_MEMBERS_MAX: usize = 64;

/// Positions stay below this, so that they are valid WAMP ids.
pub const POSITION_END: Position = Position(1 << 53);

/// One Raft entry's request to the sequencer. Persisted: fields and variants keep their order, new ones go last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The members' clocks when the leader made the command.
    pub clocks: Vouched,
    pub steps: Vec<Proposal>,
}

/// The time that a majority of the sync members' clocks vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouched {
    /// A majority of the clocks is at or past this.
    pub from: Stamp,
    /// A majority of the clocks is at or before this.
    pub until: Stamp,
}

impl Vouched {
    /// Fewer clocks than a majority are known.
    pub const NOTHING: Self = Self { from: Stamp(0), until: Stamp(u64::MAX) };
}

/// One request to the sequencer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proposal {
    /// Begin a new incarnation of an entry. A repeat of the request that opened the current one gets that one again.
    Open { entry: NodeId, request: u64 },
    /// Give a sealed segment its place.
    Resolve(SealedSegment),
    /// End an incarnation. Nothing happens if it isn't the entry's open one.
    Close { entry: NodeId, incarnation: Incarnation, reason: CloseReason },
    /// Like [`Proposal::FormGroups`] with only this group. It is in logs that began before there could be several groups.
    Form { group: StorageGroup },
    /// A storage has the rows of all slots through this one on its disk.
    Stored { storage: NodeId, through: Slot },
    /// Give an early segment its place: the members of the sync group are the storages of its group, and each has its
    /// body with the log entry (see [`crate::local_bodies`]).
    ResolveEarly(SealedSegment),
    /// Form the storage groups, which hold equal parts of the shards. The first ones are final; later proposals get
    /// them as their answer.
    FormGroups { groups: Vec<StorageGroup> },
    /// Record how far members hold the log.
    Held { marks: Vec<(NodeId, Held)> },
}

/// How far a member of the sync group holds the log on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The term it was in, at least.
    pub term: u64,
    /// The index of its last log entry, at least.
    pub index: u64,
}

/// The answer to one proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Opened(Opened),
    Segment(SegmentOutcome),
    /// The incarnation is not open, because of this proposal or an earlier one.
    Closed,
    Formed(StorageGroups),
    Stored,
    /// There are no storage groups yet, or the proposed ones have no members, too many, or one twice.
    NotFormed,
    /// [`ENTRIES_MAX`] entries have opened already.
    TooManyEntries,
}

/// An entry's new incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    pub incarnation: Incarnation,
    /// The opening's place in the order.
    pub place: Place,
    /// The storages its segments go to.
    pub groups: StorageGroups,
}

/// The sequencer's whole state. Persisted as a snapshot: fields keep their order, new ones go last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequencer {
    entries: Entries,
    next_slot: Slot,
    next_position: Position,
    clock: OrderClock,
    groups: StorageGroups,
    /// The disk each storage was enrolled with.
    enrolled: BTreeMap<NodeId, DiskId>,
    tail: Tail,
    /// The slot through which each storage of a group has its rows on disk.
    stored: BTreeMap<NodeId, Slot>,
    /// How far each member of the sync group holds the log, updated now and then.
    held: BTreeMap<NodeId, Held>,
}

impl Default for Sequencer {
    fn default() -> Self {
        Self {
            entries: Entries::default(),
            next_slot: Slot(1),
            next_position: Position(1),
            clock: OrderClock::default(),
            groups: StorageGroups::default(),
            enrolled: BTreeMap::new(),
            tail: Tail::default(),
            stored: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }
}

impl Sequencer {
    /// Applies one command; the answers are in the order of its steps.
    pub fn apply(&mut self, command: Command) -> Vec<Answer> {
        self.clock.take(command.clocks);
        command.steps.into_iter().map(|step| self.step(step)).collect()
    }

    fn step(&mut self, step: Proposal) -> Answer {
        match step {
            Proposal::Open { entry, request } => self.open(entry, request),
            Proposal::Resolve(segment) => Answer::Segment(self.resolve(segment, false)),
            Proposal::ResolveEarly(segment) => Answer::Segment(self.resolve(segment, true)),
            Proposal::Close { entry, incarnation, reason } => {
                self.close(entry, incarnation, reason)
            }
            Proposal::Form { group } => self.form(vec![group]),
            Proposal::FormGroups { groups } => self.form(groups),
            Proposal::Stored { storage, through } => self.mark_stored(storage, through),
            Proposal::Held { marks } => self.mark_held(marks),
        }
    }

    fn open(&mut self, entry: NodeId, request: u64) -> Answer {
        let groups = self.groups.clone();
        if groups.is_empty() {
            return Answer::NotFormed;
        }
        let known = self.entries.get(entry);
        if let Some(current) = known.filter(|known| known.open && known.request == request) {
            let (incarnation, place) = (current.incarnation, current.opened);
            return Answer::Opened(Opened { incarnation, place, groups });
        }
        if known.is_none() && self.entries.len() >= ENTRIES_MAX {
            return Answer::TooManyEntries;
        }
        let incarnation = match known {
            Some(known) if planted(Mutant::ForgetIncarnation) => known.incarnation,
            Some(known) => known.incarnation.next(),
            None => Incarnation(1),
        };
        let place = self.place(Step::Opened { entry, incarnation }, 0);
        self.entries.insert(entry, Entry::new(incarnation, request, place));
        Answer::Opened(Opened { incarnation, place, groups })
    }

    fn resolve(&mut self, mut segment: SealedSegment, early: bool) -> SegmentOutcome {
        let id = segment.id;
        let group = self.groups.of(segment.shard);
        // Each event needs a position, and positions are limited. A body without events is a bug of its writer.
        let room = POSITION_END.0 - self.next_position.0;
        if segment.count == 0 || u64::from(segment.count) > room {
            return SegmentOutcome::Conflict;
        }
        let Some(entry) = self.entries.get(id.entry) else { return SegmentOutcome::NotOpen };
        if let Some(outcome) = entry.refuse(id.incarnation, id.number, segment.checksum) {
            return outcome;
        }
        let Some(group) = group else { return SegmentOutcome::NoQuorum };
        let enough = early
            || group.is_quorum(&segment.votes)
            || (planted(Mutant::AcknowledgeBeforeQuorum) && !segment.votes.is_empty());
        if !enough {
            return SegmentOutcome::NoQuorum;
        }
        segment.votes.retain(|vote| group.members.iter().any(|member| member.node == *vote));
        segment.votes.sort_unstable();
        segment.votes.dedup();

        let (checksum, count) = (segment.checksum, segment.count);
        let place = self.place(Step::Segment(segment), count);
        self.entries.resolved(id.entry, id.number, checksum, place);
        SegmentOutcome::Resolved(place)
    }

    fn close(&mut self, entry: NodeId, incarnation: Incarnation, reason: CloseReason) -> Answer {
        if self.entries.close(entry, incarnation) {
            self.place(Step::Closed { entry, incarnation, reason }, 0);
        }
        Answer::Closed
    }

    fn form(&mut self, mut groups: Vec<StorageGroup>) -> Answer {
        if !self.groups.is_empty() {
            return Answer::Formed(self.groups.clone());
        }
        let mut named = BTreeSet::new();
        for group in &mut groups {
            group.members.sort_unstable();
            let twice = group.members.iter().any(|member| !named.insert(member.node));
            if twice || group.members.is_empty() {
                return Answer::NotFormed;
            }
        }
        if named.is_empty() || named.len() > GROUP_MEMBERS_MAX {
            return Answer::NotFormed;
        }
        self.groups = StorageGroups::even(groups);
        for StorageMember { node, disk } in self.groups.members() {
            self.enrolled.insert(node, disk);
            self.stored.insert(node, Slot(0));
        }
        Answer::Formed(self.groups.clone())
    }

    fn mark_stored(&mut self, storage: NodeId, through: Slot) -> Answer {
        let last = Slot(self.next_slot.0 - 1);
        if let Some(mark) = self.stored.get_mut(&storage) {
            *mark = (*mark).max(through.min(last));
            self.trim();
        }
        Answer::Stored
    }

    fn mark_held(&mut self, marks: Vec<(NodeId, Held)>) -> Answer {
        for (node, mark) in marks {
            if self.held.len() < GROUP_MEMBERS_MAX || self.held.contains_key(&node) {
                let held = self.held.entry(node).or_default();
                let Held { term, index } = *held;
                *held = Held { term: term.max(mark.term), index: index.max(mark.index) };
            }
        }
        Answer::Stored
    }

    /// Puts a step in the next slot; `count` events take the next positions.
    fn place(&mut self, step: Step, count: u32) -> Place {
        let (slot, stamp, base) = (self.next_slot, self.clock.stamp, self.next_position);
        let place = Place { slot, stamp, base };
        self.tail.push(Resolution::new(place, self.clock.time, step));
        self.trim();
        if planted(Mutant::ReuseSlot) && place.slot.0.is_multiple_of(16) {
            return place;
        }
        self.next_slot = self.next_slot.next();
        self.next_position = Position(self.next_position.0 + u64::from(count));
        assert!(
            self.next_position <= POSITION_END,
            "positions were checked before they were given"
        );
        place
    }

    fn trim(&mut self) {
        self.tail.trim(self.stored_everywhere());
    }

    /// The slot through which all storages have their rows on disk.
    #[must_use]
    pub fn stored_everywhere(&self) -> Slot {
        self.stored.values().min().copied().unwrap_or(Slot(0))
    }

    /// How much of the log the sync member with this number holds at least, and the slot through which the storage with this
    /// number has its rows on disk.
    #[must_use]
    pub fn told_by(&self, node: NodeId) -> (Held, Slot) {
        let held = self.held.get(&node).copied().unwrap_or_default();
        (held, self.stored.get(&node).copied().unwrap_or_default())
    }

    /// The slot of the next resolution.
    #[must_use]
    pub fn next_slot(&self) -> Slot {
        self.next_slot
    }

    /// The position of the next event.
    #[must_use]
    pub fn next_position(&self) -> Position {
        self.next_position
    }

    /// The least stamp of the next resolution.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.clock.stamp
    }

    /// The order's time as of the newest command.
    #[must_use]
    pub fn time(&self) -> OrderTime {
        self.clock.time
    }

    /// The oldest slot whose resolution is still kept here; the next slot if none is.
    #[must_use]
    pub fn oldest_retained(&self) -> Slot {
        self.tail.oldest().unwrap_or(self.next_slot)
    }

    /// Up to `max` kept resolutions from `from` on; `None` if those are no longer kept.
    #[must_use]
    pub fn rows(&self, from: Slot, max: usize) -> Option<Vec<Resolution>> {
        (from >= self.oldest_retained()).then(|| self.tail.rows(from, max))
    }

    /// The storage groups; none before they are formed.
    #[must_use]
    pub fn groups(&self) -> &StorageGroups {
        &self.groups
    }

    /// The disk a storage was enrolled with.
    #[must_use]
    pub fn enrolled(&self, storage: NodeId) -> Option<DiskId> {
        self.enrolled.get(&storage).copied()
    }

    /// Whether this segment has no outcome yet, and can still get one.
    #[must_use]
    pub fn awaits(&self, id: AdvanceSegment) -> bool {
        self.is_open(id.entry, id.incarnation)
            && self.entries.get(id.entry).is_some_and(|entry| entry.awaits(id.number))
    }

    /// Whether this entry ever opened.
    #[must_use]
    pub fn knows(&self, entry: NodeId) -> bool {
        self.entries.get(entry).is_some()
    }

    /// Every entry that ever opened: its newest incarnation and whether that is still open. Ascending by entry.
    pub fn entries(&self) -> impl Iterator<Item = (NodeId, Incarnation, bool)> + '_ {
        self.entries.iter().map(|(node, entry)| (node, entry.incarnation, entry.open))
    }

    /// Whether this is the entry's open incarnation.
    #[must_use]
    pub fn is_open(&self, entry: NodeId, incarnation: Incarnation) -> bool {
        self.entries.get(entry).is_some_and(|known| known.open && known.incarnation == incarnation)
    }
}

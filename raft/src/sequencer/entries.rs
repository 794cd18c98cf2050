//! The sequencer's state of each entry: its newest incarnation, and the places of its last segments.
//!
//! Invariant: `next` is one more than the highest number resolved in this incarnation, and `recent` holds the last
//! segments in number order without a hole, so that every repeat is answered or known to be forgotten.
//!
//! Deliberately absent: the outcome of older incarnations. They are fenced, and the log has what they resolved.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::RECENT_PER_ENTRY;
use crate::ids::{Incarnation, NodeId, SegmentNumber};
use crate::mutant::{planted, Mutant};
use crate::order::{Place, SegmentOutcome};

/// All entries that ever opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entries(BTreeMap<NodeId, Entry>);

/// One entry. Persisted: fields keep their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) incarnation: Incarnation,
    pub(super) open: bool,
    /// The request that opened this incarnation.
    pub(super) request: u64,
    /// The opening's place.
    pub(super) opened: Place,
    next: SegmentNumber,
    recent: VecDeque<Recent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Recent {
    number: SegmentNumber,
    checksum: u64,
    place: Place,
}

impl Entry {
    pub(super) fn new(incarnation: Incarnation, request: u64, opened: Place) -> Self {
        Self {
            incarnation,
            open: true,
            request,
            opened,
            next: SegmentNumber(0),
            recent: VecDeque::new(),
        }
    }

    /// The outcome of a segment that can't be resolved now; `None` if it is the next one of the open incarnation.
    pub(super) fn refuse(
        &self,
        incarnation: Incarnation,
        number: SegmentNumber,
        checksum: u64,
    ) -> Option<SegmentOutcome> {
        if incarnation < self.incarnation && !planted(Mutant::ForgetFences) {
            return Some(SegmentOutcome::Fenced { current: self.incarnation });
        }
        if incarnation > self.incarnation {
            return Some(SegmentOutcome::NotOpen);
        }
        // Repeats are answered even after the close: the entry may still owe its clients that answer.
        if number < self.next {
            return Some(self.repeated(number, checksum));
        }
        if !self.open && !planted(Mutant::ForgetFences) {
            return Some(SegmentOutcome::NotOpen);
        }
        if number > self.next && !planted(Mutant::ResolveOutOfOrder) {
            return Some(SegmentOutcome::Gap { expected: self.next });
        }
        None
    }

    /// Whether a number of this incarnation is unresolved.
    pub(super) fn awaits(&self, number: SegmentNumber) -> bool {
        number >= self.next
    }

    fn repeated(&self, number: SegmentNumber, checksum: u64) -> SegmentOutcome {
        let at = self.recent.partition_point(|recent| recent.number < number);
        match self.recent.get(at) {
            Some(recent) if recent.number != number => SegmentOutcome::Forgotten,
            Some(recent) if recent.checksum == checksum => SegmentOutcome::Resolved(recent.place),
            Some(_) => SegmentOutcome::Conflict,
            None => SegmentOutcome::Forgotten,
        }
    }
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, entry: NodeId) -> Option<&Entry> {
        self.0.get(&entry)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Entry)> {
        self.0.iter().map(|(node, entry)| (*node, entry))
    }

    pub(super) fn insert(&mut self, node: NodeId, entry: Entry) {
        if let Some(old) = self.0.insert(node, entry) {
            assert!(
                self.0[&node].incarnation > old.incarnation || planted(Mutant::ForgetIncarnation),
                "incarnations only grow"
            );
        }
    }

    /// Closes an entry's open incarnation; `false` if this isn't it.
    pub(super) fn close(&mut self, node: NodeId, incarnation: Incarnation) -> bool {
        match self.0.get_mut(&node) {
            Some(entry) if entry.open && entry.incarnation == incarnation => {
                entry.open = false;
                true
            }
            _ => false,
        }
    }

    /// Records a segment's place.
    pub(super) fn resolved(
        &mut self,
        node: NodeId,
        number: SegmentNumber,
        checksum: u64,
        place: Place,
    ) {
        let entry = self.0.get_mut(&node).expect("only segments of known entries are resolved");
        let next = number == entry.next || planted(Mutant::ResolveOutOfOrder);
        let open = entry.open || planted(Mutant::ForgetFences);
        assert!(open && next, "segments are resolved in number order");
        entry.next = number.next();
        if entry.recent.len() == RECENT_PER_ENTRY {
            entry.recent.pop_front();
        }
        entry.recent.push_back(Recent { number, checksum, place });
    }
}

//! What may be on its way to this storage: which entries send it bodies, and which bodies they have announced not to send.
//!
//! Invariant: an error here costs time, never a body. At worst, a body that is on its way is also fetched and arrives twice, or
//! a body that is not coming is fetched late.
//!
//! Deliberately absent: bodies that are here (`staging`), and fetching.

use std::collections::BTreeMap;

use vulpes_raft::ids::{AdvanceSegment, NodeId};

/// Most entries that are tracked; bodies of others are not expected.
const SENDERS: usize = 1024;

/// All entries that have sent something lately.
#[derive(Debug, Default)]
pub(super) struct Senders {
    entries: BTreeMap<NodeId, Sender>,
}

#[derive(Debug, Default)]
struct Sender {
    /// It is connected: it has begun or sent something, and no body has been late since then.
    sends: bool,
    /// Bodies through this segment that were missing when the entry sent its skip notice are not on their way.
    skipped: Option<AdvanceSegment>,
}

impl Senders {
    /// An entry has begun, or has sent a body.
    pub(super) fn heard(&mut self, entry: NodeId) {
        self.entry(entry).sends = true;
    }

    /// An entry's connection has ended, or one of its bodies is late: its bodies are not expected until it is heard from again.
    pub(super) fn lost(&mut self, entry: NodeId) {
        if let Some(sender) = self.entries.get_mut(&entry) {
            sender.sends = false;
        }
    }

    /// An entry says that it will not send the bodies that are missing through this segment.
    pub(super) fn skipped(&mut self, through: AdvanceSegment) {
        let sender = self.entry(through.entry);
        sender.skipped = sender.skipped.max(Some(through));
    }

    /// Whether a missing body may be on its way.
    pub(super) fn send(&self, segment: AdvanceSegment) -> bool {
        let sender = self.entries.get(&segment.entry);
        sender.is_some_and(|sender| sender.sends && sender.skipped < Some(segment))
    }

    fn entry(&mut self, entry: NodeId) -> &mut Sender {
        // Peers name their entries themselves, and may name any number of them.
        if self.entries.len() >= SENDERS && !self.entries.contains_key(&entry) {
            self.entries.clear();
        }
        self.entries.entry(entry).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::testing::segment_id;

    #[test]
    fn an_entry_is_waited_for_while_it_sends() {
        let mut senders = Senders::default();
        let (first, second, later) =
            (segment_id(1, 1, 0), segment_id(1, 1, 1), segment_id(1, 2, 0));
        assert!(!senders.send(first), "it is not there");
        senders.heard(NodeId(1));
        assert!(senders.send(first) && !senders.send(segment_id(2, 1, 0)));
        senders.skipped(first);
        assert!(!senders.send(first) && senders.send(second) && senders.send(later));
        senders.skipped(segment_id(1, 1, 5));
        senders.skipped(second);
        assert!(!senders.send(segment_id(1, 1, 5)) && senders.send(later));
        senders.lost(NodeId(1));
        assert!(!senders.send(later));
        senders.heard(NodeId(1));
        assert!(senders.send(later));
    }

    #[test]
    fn entries_that_are_made_up_take_no_room() {
        let mut senders = Senders::default();
        for entry in 0..3 * SENDERS as u64 {
            senders.heard(NodeId(entry));
            assert!(senders.entries.len() <= SENDERS);
            assert!(senders.send(segment_id(entry, 1, 0)));
        }
    }
}

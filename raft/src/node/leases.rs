//! Entry leases: which entries have been heard from lately. Pure: time is an input.
//!
//! Invariant: an incarnation is given up only after a whole lease in which this leader did not hear of it. A new
//! leader starts all leases afresh, since it does not know what the last one heard.
//!
//! Deliberately absent: the closing itself, which is a step of the order.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::ids::{Incarnation, NodeId};

/// The leases that this node tracks while it leads.
#[derive(Debug)]
pub(super) struct Leases {
    lease: Duration,
    /// The term in which these leases were granted.
    term: Option<u64>,
    ends: BTreeMap<NodeId, (Incarnation, Instant)>,
}

impl Leases {
    pub(super) fn new(lease: Duration) -> Self {
        Self { lease, term: None, ends: BTreeMap::new() }
    }

    /// An entry was heard from.
    pub(super) fn renew(&mut self, entry: NodeId, incarnation: Incarnation, now: Instant) {
        match self.ends.get(&entry) {
            Some((held, _)) if *held > incarnation => {}
            _ => {
                self.ends.insert(entry, (incarnation, now + self.lease));
            }
        }
    }

    /// Checks all open incarnations while leading in `term`; returns those whose lease ran out. They are returned
    /// again after a while, if their closing has not been decided by then.
    pub(super) fn check(
        &mut self,
        term: u64,
        open: impl Iterator<Item = (NodeId, Incarnation)>,
        now: Instant,
    ) -> Vec<(NodeId, Incarnation)> {
        if self.term != Some(term) {
            self.term = Some(term);
            self.ends.clear();
        }
        let mut known = std::mem::take(&mut self.ends);
        let mut lost = Vec::new();
        for (entry, incarnation) in open {
            let held = known.remove(&entry).filter(|(held, _)| *held == incarnation);
            let mut end = held.map_or(now + self.lease, |(_, end)| end);
            if end <= now {
                lost.push((entry, incarnation));
                end = now + self.lease / 2;
            }
            self.ends.insert(entry, (incarnation, end));
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn open(list: &[(u64, u64)]) -> impl Iterator<Item = (NodeId, Incarnation)> + '_ {
        list.iter().map(|(entry, incarnation)| (NodeId(*entry), Incarnation(*incarnation)))
    }

    #[tokio::test(start_paused = true)]
    async fn leases_run_out_only_when_nothing_is_heard() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut leases = Leases::new(LEASE);
        let entries = [(1, 1), (2, 5)];
        assert_eq!(leases.check(1, open(&entries), at(0)), []);
        leases.renew(NodeId(1), Incarnation(1), at(8));
        assert_eq!(leases.check(1, open(&entries), at(9)), []);
        assert_eq!(leases.check(1, open(&entries), at(10)), [(NodeId(2), Incarnation(5))]);
        // The close is in progress. It is requested again only if that fails.
        assert_eq!(leases.check(1, open(&entries), at(11)), []);
        assert_eq!(leases.check(1, open(&entries), at(15)), [(NodeId(2), Incarnation(5))]);
        // A new incarnation has its own lease, and an old one can't renew it.
        let reopened = [(1, 1), (2, 6)];
        assert_eq!(leases.check(1, open(&reopened), at(16)), []);
        leases.renew(NodeId(2), Incarnation(5), at(25));
        let both = [(NodeId(1), Incarnation(1)), (NodeId(2), Incarnation(6))];
        assert_eq!(leases.check(1, open(&reopened), at(26)), both);
        // In a new term the leader does not know what the last one heard.
        assert_eq!(leases.check(2, open(&reopened), at(90)), []);
        assert_eq!(leases.check(2, open(&reopened), at(99)), []);
        assert_eq!(leases.check(2, open(&reopened), at(100)), both);
    }
}

//! Checks what one subscriber got from each publisher: gaps, duplicates, disorder, losses.
//!
//! Invariant: each delivery is counted in exactly one way, and memory is bounded whatever arrives.
//!
//! Deliberately absent: order between publishers; `vulpes verify` and the tests compare that.

use std::collections::{BTreeMap, BTreeSet};

/// Most missing sequence numbers that are tracked, over all publishers. Beyond this limit, a late event counts as a duplicate.
const HOLES: u64 = 1 << 20;

/// The faults in what a subscriber got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// How often the next event of a publisher was not the expected one.
    pub(super) gaps: u64,
    /// Events that arrived more than once.
    pub(super) duplicates: u64,
    /// Events that arrived after a later one of the same publisher.
    pub(super) reordered: u64,
    /// Acknowledged events that never arrived.
    pub(super) lost: u64,
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.gaps += other.gaps;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.lost += other.lost;
    }
}

/// The state of one subscriber's check.
#[derive(Debug, Default)]
pub(super) struct DeliveryCheck {
    /// The next expected sequence number, by publisher.
    due: Vec<u64>,
    /// Skipped so far, by publisher.
    holes: BTreeMap<u16, BTreeSet<u64>>,
    hole_count: u64,
    faults: Faults,
}

impl DeliveryCheck {
    /// An event arrived.
    pub(super) fn delivered(&mut self, publisher: u16, sequence: u64) {
        let index = usize::from(publisher);
        if index >= self.due.len() {
            self.due.resize(index + 1, 0);
        }
        let due = self.due[index];
        if sequence == due {
            self.due[index] = due + 1;
        } else if sequence > due {
            self.faults.gaps += 1;
            let remembered = due..sequence.min(due + (HOLES - self.hole_count));
            self.hole_count += remembered.end - remembered.start;
            self.holes.entry(publisher).or_default().extend(remembered);
            self.due[index] = sequence + 1;
        } else if self.holes.get_mut(&publisher).is_some_and(|holes| holes.remove(&sequence)) {
            self.hole_count -= 1;
            self.faults.reordered += 1;
        } else {
            self.faults.duplicates += 1;
        }
    }

    /// Whether all acknowledged events have arrived. `acknowledged` is their count, by publisher.
    pub(super) fn is_complete(&self, acknowledged: &[u64]) -> bool {
        acknowledged
            .iter()
            .enumerate()
            .all(|(publisher, count)| self.due.get(publisher).copied().unwrap_or(0) >= *count)
    }

    /// What was wrong, given each publisher's acknowledged count.
    pub(super) fn faults(&self, acknowledged: &[u64]) -> Faults {
        let mut faults = self.faults;
        for (publisher, count) in (0u16..).zip(acknowledged) {
            let due = self.due.get(usize::from(publisher)).copied().unwrap_or(0);
            let holes = self.holes.get(&publisher);
            let inside = holes.map_or(0, |holes| holes.range(..*count).count() as u64);
            faults.lost += count.saturating_sub(due) + inside;
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_counted_once() {
        let cases: &[(&[u64], u64, [u64; 4])] = &[
            // What arrived, acknowledged count: gaps, duplicates, reordered, lost.
            (&[0, 1, 2], 3, [0, 0, 0, 0]),
            (&[0, 1, 2], 2, [0, 0, 0, 0]),
            (&[], 3, [0, 0, 0, 3]),
            (&[0, 1], 3, [0, 0, 0, 1]),
            (&[0, 2], 3, [1, 0, 0, 1]),
            (&[0, 2, 1], 3, [1, 0, 1, 0]),
            (&[0, 1, 1, 0, 2], 3, [0, 2, 0, 0]),
            (&[0, 2, 1, 1], 3, [1, 1, 1, 0]),
            (&[3], 4, [1, 0, 0, 3]),
            (&[3], 1, [1, 0, 0, 1]),
            (&[5, 9], 12, [2, 0, 0, 10]),
        ];
        for (came, acknowledged, [gaps, duplicates, reordered, lost]) in cases {
            let mut check = DeliveryCheck::default();
            came.iter().for_each(|sequence| check.delivered(1, *sequence));
            let expected =
                Faults { gaps: *gaps, duplicates: *duplicates, reordered: *reordered, lost: *lost };
            assert_eq!(check.faults(&[0, *acknowledged]), expected, "{came:?}");
        }
    }

    #[test]
    fn completeness_is_over_all_publishers() {
        let mut check = DeliveryCheck::default();
        assert!(check.is_complete(&[]) && check.is_complete(&[0, 0]));
        check.delivered(0, 0);
        assert!(!check.is_complete(&[1, 1]));
        check.delivered(1, 0);
        assert!(check.is_complete(&[1, 1]) && !check.is_complete(&[1, 2]));
    }

    #[test]
    fn a_leap_costs_bounded_memory() {
        let mut check = DeliveryCheck::default();
        check.delivered(0, u64::MAX - 1);
        assert_eq!(check.hole_count, HOLES);
        check.delivered(1, 10);
        assert_eq!(check.faults(&[]).gaps, 2);
    }
}

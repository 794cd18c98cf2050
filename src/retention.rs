//! How much of the log is retained, and from where on, by the order's own time and sizes.
//!
//! Rows are counted as they come. Milestones divide them, and the log is released up to one of those. Their number keeps the
//! steps small compared with the limits, however large the log is.
//!
//! Invariant: pure. `due` is always the beginning of a slot, everything before it exceeds the limits, and it never moves back.
//!
//! Deliberately absent: reading rows and requesting a release (`node`), and whether it is granted (`realm`).

use std::collections::VecDeque;
use std::time::Duration;

use vulpes_raft::ids::{OrderTime, Slot};
use vulpes_raft::order::{Resolution, Step};

use crate::types::head::Head;

/// The log is released in steps of a limit divided by this.
const STEPS: u64 = 32;

/// Bytes that a slot counts in addition to its body: its row, and its entries in the tables.
pub const SLOT_BYTES: u64 = 256;

/// How much of the log is retained; without limits, all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Maximum age of an event compared with the newest one, by the order's own time.
    pub age: Option<Duration>,
    /// Bytes of bodies to retain, each slot counted with [`SLOT_BYTES`].
    pub size: Option<u64>,
}

impl Retention {
    /// Whether there is any limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.age.is_some() || self.size.is_some()
    }
}

#[derive(Clone, Copy, Debug)]
struct Milestone {
    head: Head,
    /// The time of its first slot: nothing before it is younger.
    time: OrderTime,
    /// Bytes from it to the next milestone, or the end.
    bytes: u64,
}

/// Measures the retained part of a log.
#[derive(Debug)]
pub struct Gauge {
    limits: Retention,
    /// The next row.
    next: Slot,
    /// Everything before it exceeds the limits.
    due: Head,
    /// Ascending, none before `due`, and only a few more than [`STEPS`] for each limit.
    milestones: VecDeque<Milestone>,
    /// Bytes from the first of them on.
    bytes: u64,
}

impl Gauge {
    /// Begins at the head of the log.
    #[must_use]
    pub fn new(limits: Retention, head: Head) -> Self {
        Self { limits, next: head.slot, due: head, milestones: VecDeque::new(), bytes: 0 }
    }

    /// The slot of the next row to count.
    #[must_use]
    pub fn next(&self) -> Slot {
        self.next
    }

    /// The place from which on the log should be retained.
    #[must_use]
    pub fn due(&self) -> Head {
        self.due
    }

    /// Counts the next row.
    pub fn row(&mut self, row: &Resolution) {
        if self.milestones.back().is_none_or(|last| self.is_step(last, row.time())) {
            let head = Head { slot: row.slot, position: row.base };
            self.milestones.push_back(Milestone { head, time: row.time(), bytes: 0 });
        }
        let body = match &row.step {
            Step::Segment(sealed) => u64::from(sealed.length),
            Step::Opened { .. } | Step::Closed { .. } => 0,
        };
        if let Some(last) = self.milestones.back_mut() {
            last.bytes += body + SLOT_BYTES;
        }
        self.bytes += body + SLOT_BYTES;
        self.next = row.slot.next();
        while let Some(second) = self.milestones.get(1).filter(|second| self.is_over(second, row)) {
            self.due = second.head;
            let first = self.milestones.pop_front();
            self.bytes -= first.map_or(0, |first| first.bytes);
        }
    }

    fn is_step(&self, last: &Milestone, time: OrderTime) -> bool {
        let far = |size: u64| last.bytes >= size / STEPS;
        let long = |age: Duration| time.0.saturating_sub(last.time.0) >= millis(age) / STEPS;
        self.limits.size.is_some_and(far) || self.limits.age.is_some_and(long)
    }

    /// Whether the step before the second milestone exceeds a limit.
    fn is_over(&self, second: &Milestone, newest: &Resolution) -> bool {
        let old = |age| second.time.0.saturating_add(millis(age)) <= newest.time().0;
        self.limits.size.is_some_and(|size| self.bytes > size) || self.limits.age.is_some_and(old)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vulpes_raft::ids::{
        AdvanceSegment, Incarnation, NodeId, Position, SegmentNumber, Shard, Stamp,
    };
    use vulpes_raft::order::SealedSegment;

    use super::*;

    fn rows(bodies: &[(u32, u64)]) -> Vec<Resolution> {
        let (mut time, mut base) = (1_000_000, 1);
        let row = |(slot, (length, later)): (u64, &(u32, u64))| {
            time += later.cast_signed();
            let id = AdvanceSegment {
                entry: NodeId(1),
                incarnation: Incarnation(1),
                number: SegmentNumber(slot),
            };
            let (shard, votes) = (Shard(0), Vec::new());
            let sealed = SealedSegment { id, shard, count: 2, length: *length, checksum: 0, votes };
            base += 2;
            Resolution {
                slot: Slot(slot),
                stamp: Stamp(0),
                ahead: time,
                base: Position(base - 2),
                step: Step::Segment(sealed),
            }
        };
        (1..).zip(bodies).map(row).collect()
    }

    fn cost(row: &Resolution) -> u64 {
        match &row.step {
            Step::Segment(sealed) => u64::from(sealed.length) + SLOT_BYTES,
            _ => SLOT_BYTES,
        }
    }

    #[test]
    fn without_limits_nothing_is_due() {
        let mut gauge = Gauge::new(Retention::default(), Head::default());
        rows(&[(1 << 20, 1 << 40); 100]).iter().for_each(|row| gauge.row(row));
        assert_eq!(gauge.due(), Head::default());
        assert!(!Retention::default().is_limited());
    }

    #[test]
    fn a_log_far_over_its_limit_is_measured_with_few_milestones() {
        let size = Some(1 << 20);
        let mut gauge = Gauge::new(Retention { age: None, size }, Head::default());
        let mut most = 0;
        for row in rows(&[(1_000, 1); 20_000]) {
            gauge.row(&row);
            most = most.max(gauge.milestones.len());
        }
        assert!(most <= STEPS as usize + 2, "{most} milestones");
        let kept = 20_000 - (gauge.due().slot.0 - 1);
        assert!((760..=836).contains(&kept), "{kept} slots of 1,256 bytes are kept");
    }

    proptest! {
        #[test]
        fn what_is_due_is_over_the_limits_and_little_more_is_kept(
            bodies in prop::collection::vec((0..20_000u32, 0..2_000u64), 1..300),
            size in prop::option::of(1_000..1_000_000u64),
            age in prop::option::of(1..100_000u64),
        ) {
            let limits = Retention { age: age.map(Duration::from_millis), size };
            let mut gauge = Gauge::new(limits, Head::default());
            let rows = rows(&bodies);
            let mut due = Head::default();
            for (at, row) in rows.iter().enumerate() {
                gauge.row(row);
                prop_assert!(gauge.due() >= due);
                due = gauge.due();
                let first = due.slot.0 as usize - 1;
                prop_assert!(first <= at && rows[first].base == due.position);
                let kept: u64 = rows[first..=at].iter().map(cost).sum();
                if let Some(size) = size {
                    // One step and one body may be retained in addition.
                    prop_assert!(kept <= size + size / STEPS + 2 * (20_000 + SLOT_BYTES));
                }
                if let (Some(age), true) = (age, first > 0) {
                    let before = row.time().0 - rows[first - 1].time().0;
                    let over = size.is_some_and(|size| kept + size / STEPS + 20_000 + SLOT_BYTES > size);
                    prop_assert!(before >= age || over, "{before} ms, {kept} bytes");
                }
            }
        }
    }
}

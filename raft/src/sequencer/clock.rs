//! The order's own time, which decides everything irreversible.
//!
//! There are two notions, and each slot has both. The **stamp** names and orders: it is the time of day that a
//! majority of the members' clocks vouches for, and never runs backwards. The **time** measures: it advances with the
//! vouched time, and says how much has passed between two slots. They are equal as long as no clock is set back. If a
//! majority of the clocks was ahead and is corrected, the stamp stands still until the time of day has caught up, and
//! the time runs on.
//!
//! Invariant: neither ever runs backwards. Clocks move them only if a majority agrees; a difference below [`TOLERANCE`] does
//! not set the vouched time back.
//!
//! Deliberately absent: clocks. A command has their values, and every member draws the same conclusion.

use serde::{Deserialize, Serialize};

use super::Vouched;
use crate::ids::{OrderTime, Stamp};
use crate::mutant::{planted, Mutant};

/// The vouched time is set back only if a majority of the clocks is behind it by more than this, in milliseconds.
pub const TOLERANCE: u64 = 10_000;

/// Persisted: fields keep their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OrderClock {
    /// The last vouched time of day; 0 before the first.
    vouched: Stamp,
    pub(super) stamp: Stamp,
    pub(super) time: OrderTime,
}

impl OrderClock {
    /// Applies a command's clocks.
    pub(super) fn take(&mut self, clocks: Vouched) {
        let Vouched { from, until } = clocks;
        if self.vouched == Stamp(0) {
            self.vouched = from;
            self.time = OrderTime(from.0);
        } else if from > self.vouched {
            let passed = from.0 - self.vouched.0;
            self.vouched = from;
            self.time = OrderTime(self.time.0.saturating_add(passed));
            if planted(Mutant::FutureStandsStill) {
                self.time = OrderTime(self.stamp.0.max(from.0));
            }
        } else if until.0.saturating_add(TOLERANCE) < self.vouched.0 {
            self.vouched = until;
        }
        if self.vouched > self.stamp || planted(Mutant::StampsRunBack) {
            self.stamp = self.vouched;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 86_400_000;
    const NOON: u64 = 20_000 * DAY;

    /// Two times, counted from noon.
    type Times = (u64, u64);

    /// Takes spans one after the other, as (from, until), and compares with (stamp, time).
    fn check(script: &[(Times, Times)]) {
        let mut clock = OrderClock::default();
        for (line, ((from, until), (stamp, time))) in script.iter().enumerate() {
            let at = |time: &u64| Stamp(if *time == u64::MAX { *time } else { NOON + time });
            let from = if *until == u64::MAX { Stamp(0) } else { at(from) };
            clock.take(Vouched { from, until: at(until) });
            let shown = (clock.stamp.0 - NOON, clock.time.0 - NOON);
            assert_eq!(shown, (*stamp, *time), "line {line}");
        }
    }

    #[test]
    fn time_goes_on_as_a_majority_says() {
        let nothing = (0, u64::MAX);
        check(&[
            ((0, 0), (0, 0)),
            ((50, 60), (50, 50)),
            // Fewer clocks than a majority are known, or none: the time stands still.
            ((20, 90), (50, 50)),
            (nothing, (50, 50)),
            ((0, 40), (50, 50)),
            ((70, 70), (70, 70)),
        ]);
    }

    /// A majority was 400 days ahead, and is corrected: stamps stay in the future, and nothing else does.
    #[test]
    fn a_future_that_was_a_mistake_is_left_behind() {
        let ahead = 400 * DAY;
        check(&[
            ((ahead, ahead), (ahead, ahead)),
            ((ahead + 5, ahead + 5), (ahead + 5, ahead + 5)),
            ((1_000, 1_000), (ahead + 5, ahead + 5)),
            ((3_000, 3_000), (ahead + 5, ahead + 2_005)),
            ((DAY, DAY), (ahead + 5, ahead + DAY - 995)),
            ((ahead + 7, ahead + 7), (ahead + 7, 2 * ahead - 988)),
        ]);
    }

    #[test]
    fn before_any_clock_is_known_there_is_no_time() {
        let mut clock = OrderClock::default();
        clock.take(Vouched::NOTHING);
        assert_eq!(clock, OrderClock::default());
        clock.take(Vouched { from: Stamp(NOON), until: Stamp(u64::MAX) });
        assert_eq!((clock.stamp, clock.time), (Stamp(NOON), OrderTime(NOON)));
        clock.take(Vouched { from: Stamp(u64::MAX), until: Stamp(u64::MAX) });
        clock.take(Vouched { from: Stamp(1), until: Stamp(1) });
        clock.take(Vouched { from: Stamp(u64::MAX), until: Stamp(u64::MAX) });
        assert_eq!(clock.time, OrderTime(u64::MAX));
    }

    proptest! {
        #[test]
        fn it_never_runs_backwards(spans in prop::collection::vec((0..9 * DAY, 0..9 * DAY), 1..50)) {
            let mut clock = OrderClock::default();
            for (from, more) in spans {
                let before = clock;
                clock.take(Vouched { from: Stamp(from), until: Stamp(from + more) });
                prop_assert!(clock.stamp >= before.stamp && clock.time >= before.time);
                let grown = clock.time.0 - before.time.0;
                prop_assert!(before == OrderClock::default() || grown <= from.saturating_sub(before.vouched.0));
            }
        }
    }
}

//! A token bucket: how much of something there may be each second, and how much at once.
//!
//! Invariant: over any time, no more is taken than what the bucket holds and what flows in, except for one debt: what came in
//! one piece is paid off before anything else is taken.
//!
//! Deliberately absent: a clock, and waiting.

use crate::types::moment::Moment;

/// Parts of a token, so that what flows in within a millisecond is a whole number of them.
const PARTS: i128 = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    /// Tokens a second.
    rate: u64,
    /// The most that it holds.
    most: u64,
    /// What it holds, in parts of a token; less than nothing while there is a debt.
    level: i128,
    at: Moment,
}

impl Bucket {
    /// A full one, which holds what flows in within so many seconds.
    pub(super) fn new(rate: u64, seconds: u64, now: Moment) -> Self {
        let most = rate.saturating_mul(seconds).max(1);
        Self { rate, most, level: i128::from(most) * PARTS, at: now }
    }

    fn fill(&mut self, now: Moment) {
        // Moments of two tasks may come in either order.
        let passed = now.0.saturating_sub(self.at.0);
        self.at = self.at.max(now);
        // A thousandth of a second brings a thousandth of the rate.
        let come = i128::from(self.rate) * i128::from(passed);
        self.level = (self.level + come).min(i128::from(self.most) * PARTS);
    }

    /// Takes this many tokens, if all of them are there.
    pub(super) fn try_take(&mut self, tokens: u64, now: Moment) -> bool {
        self.fill(now);
        let wanted = i128::from(tokens.min(self.most)) * PARTS;
        let enough = self.level >= wanted;
        if enough {
            self.level -= wanted;
        }
        enough
    }

    /// Takes this many tokens, whether they are there or not.
    pub(super) fn spend(&mut self, tokens: u64, now: Moment) {
        self.fill(now);
        self.level -= i128::from(tokens) * PARTS;
    }

    /// Whole tokens.
    pub(super) fn room(&mut self, now: Moment) -> u64 {
        self.fill(now);
        u64::try_from(self.level / PARTS).unwrap_or(0)
    }

    /// When there is a whole token again; nothing if there is one.
    pub(super) fn ready_at(&mut self, now: Moment) -> Option<Moment> {
        self.fill(now);
        let missing = PARTS - self.level;
        if missing <= 0 {
            return None;
        }
        let rate = i128::from(self.rate.max(1));
        let wait = u64::try_from((missing + rate - 1) / rate).unwrap_or(u64::MAX);
        Some(Moment(self.at.0.saturating_add(wait)))
    }

    /// Whether it is as full as it was in the beginning.
    pub(super) fn is_full(&mut self, now: Moment) -> bool {
        self.fill(now);
        self.level >= i128::from(self.most) * PARTS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_gives_what_it_holds_and_then_what_flows_in() {
        let mut bucket = Bucket::new(2, 3, Moment(0));
        assert!((0..6).all(|_| bucket.try_take(1, Moment(0))));
        assert!(!bucket.try_take(1, Moment(499)) && bucket.try_take(1, Moment(500)));
        assert_eq!(bucket.ready_at(Moment(500)), Some(Moment(1000)));
        assert_eq!(bucket.room(Moment(1_000_000)), 6, "it holds no more than that");
        assert!(bucket.is_full(Moment(1_000_000)) && bucket.ready_at(Moment(1_000_000)).is_none());
    }

    #[test]
    fn a_debt_is_paid_off_first() {
        let mut bucket = Bucket::new(100, 1, Moment(0));
        bucket.spend(300, Moment(0));
        assert_eq!(bucket.room(Moment(1999)), 0);
        assert_eq!(bucket.ready_at(Moment(0)), Some(Moment(2010)));
        assert!(!bucket.try_take(1, Moment(2009)) && bucket.try_take(1, Moment(2010)));
    }

    #[test]
    fn what_is_larger_than_the_bucket_takes_all_of_it() {
        let mut bucket = Bucket::new(10, 1, Moment(0));
        assert!(bucket.try_take(1000, Moment(0)) && !bucket.try_take(1, Moment(99)));
        assert!(bucket.try_take(1, Moment(100)));
    }

    proptest! {
        /// Whatever is taken and when: within any time, no more than what it holds and what flows in.
        #[test]
        fn no_more_is_taken_than_flows_in(
            (rate, seconds) in (1..50u64, 1..5u64),
            steps in proptest::collection::vec((0..700u64, 1..4u64), 1..60),
        ) {
            let (mut bucket, mut now, mut taken) = (Bucket::new(rate, seconds, Moment(0)), 0, 0);
            for (later, tokens) in steps {
                now += later;
                let tokens = tokens.min(rate * seconds);
                let due = bucket.ready_at(Moment(now));
                if bucket.try_take(tokens, Moment(now)) {
                    taken += tokens;
                    prop_assert!(due.is_none());
                }
                if let Some(due) = due {
                    prop_assert!(due.0 > now);
                    let mut later = bucket.clone();
                    prop_assert!(later.room(due) >= 1);
                }
                prop_assert!(taken * 1000 <= rate * seconds * 1000 + rate * now);
            }
        }
    }
}

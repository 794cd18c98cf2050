//! The members' clocks, and the time that a majority of them vouches for.
//!
//! Each member reports its clock to the leader with every answer to an append. The leader puts a span into the log: a majority
//! of the clocks is at or past its beginning, and a majority is at or before its end. With all members present both are the
//! median; with some silent, the span is as wide as it has to be. So a minority of wrong clocks, even if the leader's own is
//! one of them, never moves the span beyond what the correct clocks say. Without a majority there is no span.
//!
//! A member's clock starts as its time of day when its process starts. From then on it follows the time of day at a speed
//! between [`SLOWEST`] and [`FASTEST`], relative to the process's monotonic clock. So if the time of day jumps while the
//! process runs, the clock follows no faster than that, even if all members' clocks jump together.
//!
//! Invariant: no decision made from this depends on one clock.
//!
//! Deliberately absent: how the order uses a span (`sequencer`), and setting any clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::host::Clock;
use crate::ids::{NodeId, Stamp};
use crate::mutant::{planted, Mutant};
use crate::sequencer::Vouched;

/// The slowest and fastest speed of a member's clock, relative to the monotonic clock, in halves.
const SLOWEST: u64 = 1;
const FASTEST: u64 = 20;

/// How long a member's answer is used.
const FRESH: Duration = Duration::from_secs(3);

/// A time of day that differs by more than this is reported to the operator.
const OFF: Duration = Duration::from_secs(5);

/// A clock that follows the time of day, but never jumps. In microseconds.
#[derive(Debug)]
struct Steady {
    time: u64,
    read: Instant,
}

impl Steady {
    fn new(time_of_day: Stamp, now: Instant) -> Self {
        Self { time: micros(time_of_day), read: now }
    }

    fn read(&mut self, time_of_day: Stamp, now: Instant) -> Stamp {
        let passed = now.saturating_duration_since(self.read).as_micros();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX / FASTEST);
        let least = self.time.saturating_add(passed * SLOWEST / 2);
        let most = self.time.saturating_add(passed * FASTEST / 2);
        self.time = micros(time_of_day).clamp(least, most);
        self.read = self.read.max(now);
        Stamp(self.time / 1_000)
    }
}

fn micros(stamp: Stamp) -> u64 {
    stamp.0.saturating_mul(1_000)
}

/// A member's clock, as reported to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClockReport {
    /// The steady clock, which decisions use.
    pub(crate) clock: Stamp,
    /// Its time of day, shown to operators.
    pub(crate) time_of_day: Stamp,
}

/// A member's answer, which was true at some moment between these two.
#[derive(Clone, Copy, Debug)]
struct Reading {
    told: ClockReport,
    asked: Instant,
    received: Instant,
}

impl Reading {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.asked) < FRESH
    }

    /// The lowest and the highest time that the clock can show now.
    fn now(&self, now: Instant) -> (Stamp, Stamp) {
        let later = |since: Instant| {
            let passed = now.saturating_duration_since(since).as_millis();
            Stamp(self.told.clock.0.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)))
        };
        (later(self.received), later(self.asked))
    }
}

/// The span that a majority of `members` vouches for. `clocks` are the known clocks, each with the lowest and the highest time
/// that it can show.
fn vouched(mut clocks: Vec<(Stamp, Stamp)>, members: usize) -> Vouched {
    let majority = members / 2 + 1;
    if clocks.len() < majority {
        return Vouched::NOTHING;
    }
    clocks.sort_unstable_by_key(|(least, _)| *least);
    let from = clocks[clocks.len() - majority].0;
    clocks.sort_unstable_by_key(|(_, most)| *most);
    let until = clocks[majority - 1].1;
    Vouched { from, until: until.max(from) }
}

/// This member's clock, and the others' answers.
pub(crate) struct Clocks {
    clock: Arc<dyn Clock>,
    own: NodeId,
    members: Vec<NodeId>,
    state: Mutex<State>,
}

struct State {
    steady: Steady,
    readings: BTreeMap<NodeId, Reading>,
}

impl Clocks {
    pub(crate) fn new(clock: Arc<dyn Clock>, own: NodeId, members: Vec<NodeId>) -> Arc<Self> {
        let steady = Steady::new(clock.now(), Instant::now());
        let state = Mutex::new(State { steady, readings: BTreeMap::new() });
        Arc::new(Self { clock, own, members, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This member's clock, to be reported to the leader.
    pub(crate) fn tell(&self) -> ClockReport {
        let time_of_day = self.clock.now();
        ClockReport { clock: self.state().steady.read(time_of_day, Instant::now()), time_of_day }
    }

    /// Records the answer of a member that was asked at this moment.
    pub(crate) fn heard(&self, member: NodeId, told: ClockReport, asked: Instant) {
        if self.members.contains(&member) && member != self.own {
            let reading = Reading { told, asked, received: Instant::now() };
            self.state().readings.insert(member, reading);
        }
    }

    /// The span that a majority vouches for now.
    pub(crate) fn vouched(&self) -> Vouched {
        let own = self.tell().clock;
        if planted(Mutant::TimeOfTheLeader) {
            let now = self.clock.now();
            return Vouched { from: now, until: now };
        }
        let now = Instant::now();
        let state = self.state();
        let fresh = state.readings.values().filter(|reading| reading.is_fresh(now));
        let clocks = fresh.map(|reading| reading.now(now)).chain([(own, own)]).collect();
        vouched(clocks, self.members.len())
    }

    /// The members whose time of day differs by more than [`OFF`] from the median of those known, and by how many
    /// milliseconds it is ahead.
    pub(crate) fn off(&self) -> Vec<(NodeId, i64)> {
        let now = Instant::now();
        let own = (self.own, self.clock.now().0);
        let state = self.state();
        let fresh = state.readings.iter().filter(|(_, reading)| reading.is_fresh(now));
        let others = fresh.map(|(node, reading)| {
            let passed = now.saturating_duration_since(reading.received).as_millis() as u64;
            (*node, reading.told.time_of_day.0.saturating_add(passed))
        });
        off([own].into_iter().chain(others).collect())
    }
}

/// The clocks that are far from the median.
fn off(mut clocks: Vec<(NodeId, u64)>) -> Vec<(NodeId, i64)> {
    clocks.sort_unstable_by_key(|(_, clock)| *clock);
    let Some((_, middle)) = clocks.get(clocks.len() / 2).copied() else { return Vec::new() };
    let ahead = |clock: u64| clock.wrapping_sub(middle) as i64;
    let clocks = clocks.into_iter().map(|(node, clock)| (node, ahead(clock)));
    clocks.filter(|(_, ahead)| ahead.unsigned_abs() > OFF.as_millis() as u64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 86_400_000;
    const NOON: u64 = 20_000 * DAY;

    fn of(clocks: &[u64], members: usize) -> Option<(u64, u64)> {
        let clocks = clocks.iter().map(|clock| (Stamp(*clock), Stamp(*clock))).collect();
        let vouched = vouched(clocks, members);
        (vouched != Vouched::NOTHING).then_some((vouched.from.0, vouched.until.0))
    }

    #[test]
    fn a_majority_vouches() {
        for (clocks, members, expected) in [
            (&[][..], 1, None),
            (&[7], 1, Some((7, 7))),
            (&[7], 3, None),
            (&[7], 2, None),
            (&[7, 9], 2, Some((7, 9))),
            (&[7, 9], 3, Some((7, 9))),
            (&[7, 9, 1_000], 3, Some((9, 9))),
            (&[7, 9, 0], 3, Some((7, 7))),
            (&[1, 2, 3, 4, 5], 5, Some((3, 3))),
            (&[1, 2, 3, 4], 5, Some((2, 3))),
            (&[3, 4, 5], 5, Some((3, 5))),
            (&[3, 4], 5, None),
            (&[1, 2, 3, 4], 4, Some((2, 3))),
        ] {
            assert_eq!(of(clocks, members), expected, "{clocks:?} of {members}");
        }
    }

    #[test]
    fn who_is_far_off_is_known() {
        let of = |clocks: &[u64]| {
            let clocks = (1..).zip(clocks).map(|(node, clock)| (NodeId(node), *clock));
            off(clocks.collect()).iter().map(|(node, ahead)| (node.0, *ahead)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[NOON]), []);
        assert_eq!(of(&[NOON, NOON + 4_000, NOON + 5_000]), []);
        assert_eq!(of(&[NOON, NOON + 400 * DAY, NOON + 1]), [(2, (400 * DAY).cast_signed() - 1)]);
        assert_eq!(of(&[NOON, NOON + 2, 0]), [(3, -NOON.cast_signed())]);
    }

    proptest! {
        /// Holds for any minority that is wrong or silent, however wrong it is.
        #[test]
        fn a_minority_moves_the_span_nowhere(
            right in prop::collection::vec(1_000u64..2_000, 1..5),
            wrong in prop::collection::vec(any::<u64>(), 0..5),
            silent in 0usize..5,
        ) {
            let wrong = &wrong[..wrong.len().min(right.len() - 1)];
            let members = right.len() + wrong.len();
            let known: Vec<u64> =
                wrong.iter().chain(&right).copied().take(members - silent.min(members)).collect();
            let (least, most) = (*right.iter().min().unwrap(), *right.iter().max().unwrap());
            if let Some((from, until)) = of(&known, members) {
                prop_assert!(from <= most && until >= least && from <= until);
                if known.len() == members {
                    prop_assert!(from >= least && until <= most);
                }
            }
        }

        /// Spans that different majorities vouch for at one moment always overlap: none contradicts another.
        #[test]
        fn spans_of_one_moment_meet(
            clocks in prop::collection::vec(any::<u64>(), 1..8),
            one in any::<u8>(),
            other in any::<u8>(),
        ) {
            let some = |mask: u8| -> Vec<u64> {
                let known = clocks.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0);
                known.map(|(_, clock)| *clock).collect()
            };
            let (one, other) = (of(&some(one), clocks.len()), of(&some(other), clocks.len()));
            if let (Some((from, _)), Some((_, until))) = (one, other) {
                prop_assert!(from <= until);
            }
        }
    }

    /// (milliseconds that passed, the time of day then, what the clock shows)
    fn steps(steps: &[(u64, u64, u64)]) {
        let mut now = Instant::now();
        let mut steady = Steady::new(Stamp(NOON), now);
        for (passed, time_of_day, expected) in steps {
            now += Duration::from_millis(*passed);
            let shown = steady.read(Stamp(NOON + time_of_day), now);
            assert_eq!(shown, Stamp(NOON + expected), "{passed} ms on, at {time_of_day}");
        }
    }

    #[tokio::test]
    async fn a_clock_that_jumps_is_followed_slowly() {
        steps(&[(0, 0, 0), (100, 100, 100), (1_000, 1_103, 1_103), (1, 1_103, 1_103)]);
        // 400 days ahead for four seconds, and back.
        let ahead = 400 * DAY;
        steps(&[
            (10, ahead, 100),
            (4_000, ahead, 40_100),
            (4_000, 8_010, 42_100),
            (90_000, 98_010, 98_010),
        ]);
        // Back, and never corrected.
        let mut steady = Steady::new(Stamp(NOON), Instant::now());
        let later = Instant::now() + Duration::from_secs(1_000);
        assert!(steady.read(Stamp(1), later).0 - NOON - 500_000 < 100);
    }
}

//! Whether a connection moves the bytes that it holds of a budget fast enough, while others wait for them.
//!
//! Time is divided into windows. In each window a connection has to move a given number of bytes, or all that it held when the
//! window began.
//!
//! Invariant: a connection that moves nothing is detected within two windows after others begin to wait. A window only counts
//! if others waited during all of it, only the other side kept the bytes from moving, and the node itself was running.
//!
//! Deliberately absent: the bytes, the budget, and the timer.

use std::time::Duration;

use tokio::time::Instant;

/// How often a connection is checked within a window. A window in which two checks in a row were missed does not count: the
/// node was busy, or stopped.
const LOOKS: u32 = 4;

/// The length of a window, and how many bytes a second have to move in it.
pub(crate) type Terms = (Duration, usize);

/// What a check of a connection shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Bytes that have moved so far.
    pub(crate) moved: u64,
    /// Bytes that are still to be moved.
    pub(crate) held: usize,
    /// Others wait for them, and only the other side keeps them from moving.
    pub(crate) judged: bool,
}

#[derive(Debug)]
pub(crate) struct Pace {
    terms: Terms,
    /// The end of the window.
    until: Instant,
    looked: Instant,
    /// What was seen when the window began; `judged` if it was so at every check since.
    begin: Seen,
}

impl Pace {
    /// Begins a window.
    pub(crate) fn new(terms: Terms, now: Instant, seen: Seen) -> Self {
        Self { terms, until: now + terms.0, looked: now, begin: seen }
    }

    /// The time of the next check at the latest.
    pub(crate) fn look_until(&self) -> Instant {
        self.until.min(self.looked + self.terms.0 / LOOKS)
    }

    /// Whether a window has just ended in which too few bytes moved; the next one begins.
    pub(crate) fn is_too_slow(&mut self, now: Instant, seen: Seen) -> bool {
        let (window, rate) = self.terms;
        let ran = now - self.looked <= window / LOOKS * 2;
        self.looked = now;
        self.begin.judged &= seen.judged && ran;
        if now < self.until {
            return false;
        }
        let least = (rate as u64 * window.as_secs()).min(self.begin.held as u64);
        let slow = seen.moved.saturating_sub(self.begin.moved) < least;
        let judged = self.begin.judged;
        *self = Self::new(self.terms, now, seen);
        slow && judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = (Duration::from_secs(2), 50);

    /// Moves this many bytes in each quarter of a second; returns at which of them that is too slow. Checks at some of them only.
    fn watch(
        looks: impl Fn(u64) -> bool,
        bytes: impl Fn(u64) -> u64,
        judged: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let start = Instant::now();
        let seen = |at: u64| {
            let moved: u64 = (0..=at).map(&bytes).sum();
            Seen { moved, held: 1000, judged: judged(at) }
        };
        let mut pace = Pace::new(TERMS, start, seen(0));
        (1..400).filter(|at| looks(*at)).find(|&at| {
            let now = start + Duration::from_millis(250 * at);
            assert!(pace.look_until() <= pace.until);
            pace.is_too_slow(now, seen(at))
        })
    }

    const ALWAYS: fn(u64) -> bool = |_| true;

    #[test]
    fn a_connection_that_stands_still_is_found_in_two_windows() {
        assert_eq!(watch(ALWAYS, |_| 0, ALWAYS), Some(8));
        assert_eq!(watch(ALWAYS, |at| if at < 17 { 1 << 20 } else { 0 }, ALWAYS), Some(24));
        assert_eq!(watch(ALWAYS, |_| 0, |at| at > 80), Some(96));
        assert_eq!(watch(ALWAYS, |_| 0, |at| at > 79), Some(88));
    }

    #[test]
    fn the_rate_is_enough_and_less_is_not() {
        assert_eq!(watch(ALWAYS, |at| if at % 4 == 0 { 50 } else { 0 }, ALWAYS), None);
        assert_eq!(watch(ALWAYS, |at| if at % 8 == 0 { 100 } else { 0 }, ALWAYS), None);
        assert_eq!(watch(ALWAYS, |at| if at % 4 == 0 { 49 } else { 0 }, ALWAYS), Some(8));
    }

    #[test]
    fn windows_in_which_nobody_waits_for_a_moment_do_not_count() {
        assert_eq!(watch(ALWAYS, |_| 0, |at| at % 8 != 3), None);
        assert_eq!(watch(ALWAYS, |_| 0, |_| false), None);
    }

    #[test]
    fn windows_in_which_the_node_stood_still_do_not_count() {
        assert_eq!(watch(|at| at % 8 < 4, |_| 0, ALWAYS), None);
        assert_eq!(watch(|at| at % 2 == 0, |_| 0, ALWAYS), Some(8));
    }

    #[test]
    fn what_was_there_at_the_beginning_is_enough() {
        let start = Instant::now();
        let seen = |moved, held| Seen { moved, held, judged: true };
        let mut pace = Pace::new(TERMS, start, seen(0, 30));
        let mut look =
            |at: u64, seen| pace.is_too_slow(start + Duration::from_millis(500 * at), seen);
        assert!((1..4).all(|at| !look(at, seen(0, 30))));
        assert!(!look(4, seen(30, 90)), "all of it has moved");
        assert!((5..8).all(|at| !look(at, seen(30, 90))));
        assert!(look(8, seen(119, 20)), "a byte of it is still there");
    }
}

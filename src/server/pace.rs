//! Whether a connection moves what it holds of a budget fast enough, while others wait for it.
//!
//! Time is cut into windows. In each window a connection moves a named number of bytes, or comes to its end.
//!
//! Invariant: a connection that stands still is found within two windows from the moment somebody waits, however much it
//! moved before that.
//!
//! Deliberately absent: the bytes, the budget, and the timer.

use std::time::Duration;

use tokio::time::Instant;

/// How long a window is, and how many bytes a second have to move in it.
pub(super) type Terms = (Duration, usize);

#[derive(Debug)]
pub(super) struct Pace {
    terms: Terms,
    /// The end of the window.
    until: Instant,
    /// Bytes that had moved at its beginning.
    before: u64,
}

impl Pace {
    /// Begins a window, with so many bytes moved so far.
    pub(super) fn new(terms: Terms, now: Instant, moved: u64) -> Self {
        Self { terms, until: now + terms.0, before: moved }
    }

    /// When to look at the latest.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Whether a window has ended in which too few bytes moved; the next one begins. `judged` tells whether somebody waited,
    /// and nobody but the other side kept the bytes from moving.
    pub(super) fn is_too_slow(&mut self, now: Instant, moved: u64, judged: bool) -> bool {
        if now < self.until {
            return false;
        }
        let (window, rate) = self.terms;
        let least = rate as u64 * window.as_secs();
        let slow = moved.saturating_sub(self.before) < least;
        *self = Self::new(self.terms, now, moved);
        slow && judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = (Duration::from_secs(2), 50);

    /// Moves so many bytes each second; tells when that is too slow.
    fn watch(bytes: impl Fn(u64) -> u64, judged: impl Fn(u64) -> bool) -> Option<u64> {
        let start = Instant::now();
        let mut pace = Pace::new(TERMS, start, 0);
        let mut moved = 0;
        (1..100).find(|&second| {
            moved += bytes(second);
            pace.is_too_slow(start + Duration::from_secs(second), moved, judged(second))
        })
    }

    #[test]
    fn a_connection_that_stands_still_is_found_in_two_windows() {
        assert_eq!(watch(|_| 0, |_| true), Some(2));
        assert_eq!(watch(|second| if second < 4 { 1 << 20 } else { 0 }, |_| true), Some(6));
        assert_eq!(watch(|_| 0, |second| second > 20), Some(22));
    }

    #[test]
    fn the_rate_is_enough_and_less_is_not() {
        assert_eq!(watch(|_| 50, |_| true), None);
        assert_eq!(watch(|second| 100 * (second % 2), |_| true), None);
        assert_eq!(watch(|_| 49, |_| true), Some(2));
    }

    #[test]
    fn nobody_is_too_slow_while_nobody_waits() {
        assert_eq!(watch(|_| 0, |_| false), None);
    }
}

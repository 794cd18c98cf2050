//! The undecided conditional publishes of a session.
//!
//! Invariant: their number and total bytes are limited, because their entry keeps each: when its turn comes, it is
//! published again.
//!
//! Deliberately absent: the answers, which each protocol gives in its own way.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use crate::types::limits;

/// A session has reached its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a session may have {} conditional publishes undecided, of {} bytes together; wait for an answer",
    limits::SESSION_WAITS,
    limits::SESSION_WAIT_BYTES
)]
pub(super) struct TooManyWaits;

/// What has to be known of each when it is decided, by its sequence number.
#[derive(Debug)]
pub(super) struct Waits<T> {
    undecided: BTreeMap<u64, (T, usize)>,
    bytes: usize,
}

impl<T> Default for Waits<T> {
    fn default() -> Self {
        Self { undecided: BTreeMap::new(), bytes: 0 }
    }
}

impl<T: Copy> Waits<T> {
    /// Whether one more of this size fits.
    pub(super) fn check(&self, bytes: usize) -> Result<(), TooManyWaits> {
        let room = self.undecided.len() < limits::SESSION_WAITS
            && self.bytes + bytes <= limits::SESSION_WAIT_BYTES;
        room.then_some(()).ok_or(TooManyWaits)
    }

    pub(super) fn insert(&mut self, sequence: u64, value: T, bytes: usize) {
        self.bytes += bytes;
        if let Some((_, replaced)) = self.undecided.insert(sequence, (value, bytes)) {
            self.bytes -= replaced;
        }
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Option<T> {
        let (value, bytes) = self.undecided.remove(&sequence)?;
        self.bytes -= bytes;
        Some(value)
    }

    /// Takes out the first one in a range.
    pub(super) fn remove_first(&mut self, sequences: impl RangeBounds<u64>) -> Option<T> {
        let first = *self.undecided.range(sequences).next()?.0;
        self.remove(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_bounded_by_number_and_by_size() {
        let mut waits = Waits::default();
        for sequence in 0..limits::SESSION_WAITS as u64 {
            waits.check(1).unwrap();
            waits.insert(sequence, sequence, 1);
        }
        assert_eq!(waits.check(1), Err(TooManyWaits));
        assert_eq!(waits.remove_first(5..9), Some(5));
        assert_eq!(waits.remove(5), None);
        let left = limits::SESSION_WAIT_BYTES - (limits::SESSION_WAITS - 1);
        assert_eq!(waits.check(left + 1), Err(TooManyWaits));
        waits.check(left).unwrap();
        waits.insert(5, 5, left);
        waits.insert(5, 5, left);
        waits.remove(5);
        waits.check(left).unwrap();
    }
}

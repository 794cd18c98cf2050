//! Moments: the time as an input of pure state machines.
//!
//! Invariant: moments of one process can be compared; those of two can't.
//!
//! Deliberately absent: a clock. The driver of a state machine has one.

use std::time::Duration;

/// A moment on the driver's monotonic clock, in milliseconds since some start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment so much later.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(by))
    }
}

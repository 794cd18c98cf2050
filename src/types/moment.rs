//! Moments: the time as an input of pure state machines.
//!
//! Invariant: moments of one process can be compared; those of two can't.
//!
//! Deliberately absent: a clock. The driver of a state machine has one.

/// A moment on the driver's monotonic clock, in milliseconds since some start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

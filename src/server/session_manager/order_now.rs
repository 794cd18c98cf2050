//! This node's estimate of the order's time: the time of the last slot that it has read, plus the time since by its own
//! monotonic clock.
//!
//! Invariant: the estimate only decides when to ask for something. Whether it is time is decided by the slot of that request
//! (`realm`), so a request that comes too early is refused, and gives the order's time with its slot.
//!
//! Deliberately absent: the time of day, of this node or any other.

use std::time::Duration;

use tokio::time::Instant;
use vulpes_raft::ids::{OrderTime, Slot};

use crate::realm::SharedRealms;

/// How much later than estimated to ask, so that requests rarely come too early.
const MARGIN: Duration = Duration::from_millis(100);

pub(super) struct OrderNow {
    realms: SharedRealms,
    /// The slot after the last one that was read, its time, and when it was read.
    next: Slot,
    time: OrderTime,
    read: Instant,
}

impl OrderNow {
    pub(super) fn new(realms: SharedRealms) -> Self {
        let (next, time) = (Slot(0), OrderTime(0));
        let mut order_now = Self { realms, next, time, read: Instant::now() };
        order_now.look();
        order_now
    }

    /// Takes the last slot's time. Call it often, since time before a slot is looked at does not count.
    pub(super) fn look(&mut self) {
        let (next, time) = self.realms.with(|realms| (realms.next(), realms.time()));
        if next != self.next {
            *self = Self { realms: self.realms.clone(), next, time, read: Instant::now() };
        }
    }

    /// The order's time now.
    pub(super) fn now(&self) -> OrderTime {
        later(self.time, self.read.elapsed())
    }

    /// When it will be this time, plus a margin. A time that a slot has shown to be past needs no margin: with one, a
    /// continuous stream of slots would delay it for ever.
    pub(super) fn at(&self, time: OrderTime) -> Instant {
        if time <= self.time {
            return self.read;
        }
        let ahead = Duration::from_millis(time.0.saturating_sub(self.time.0));
        // Times further off are looked at again before that.
        self.read + ahead.min(FAR) + MARGIN
    }
}

/// The longest sleep.
const FAR: Duration = Duration::from_secs(86_400);

/// So much later.
pub(super) fn later(time: OrderTime, by: Duration) -> OrderTime {
    OrderTime(time.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_now(time: u64) -> OrderNow {
        let realms = SharedRealms::default();
        OrderNow { realms, next: Slot(5), time: OrderTime(time), read: Instant::now() }
    }

    #[test]
    fn what_a_slot_has_shown_to_be_past_is_due_at_once() {
        let read = order_now(1000);
        assert!([0, 999, 1000].into_iter().all(|time| read.at(OrderTime(time)) <= Instant::now()));
    }

    #[test]
    fn what_is_still_to_come_is_due_a_little_later_than_it_seems() {
        let read = order_now(1000);
        assert_eq!(read.at(OrderTime(1001)) - read.read, Duration::from_millis(1) + MARGIN);
        assert_eq!(read.at(OrderTime(u64::MAX)) - read.read, FAR + MARGIN);
    }
}

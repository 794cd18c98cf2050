//! How many bytes a session may have waiting for its socket.
//!
//! A small amount is free; more than that has to be granted by the node's budget for all output. While nothing is left there, a
//! session uses the free part for one small event after the other, and a large event waits in the queue for its room.
//!
//! Invariant: an event is handed to the gate only if there is room for it, as far as its size is known before it is written.
//! Answers are written in any case, and counted.
//!
//! Deliberately absent: the gate and the socket, whose bytes are counted.

use std::task::{ready, Context, Poll};

use tokio::time::Instant;

use super::budget::{Account, Budget};
use super::pace::{Pace, Seen};
use crate::types::limits;

/// Bytes that may wait at no cost: as many as leave room for one more event, and one event of the same size.
const FREE: usize = 2 * limits::OUTPUT_FREE;

/// A session's share of the node's output.
pub(super) struct Outgo {
    /// What waits in excess of [`FREE`].
    account: Account,
    /// The size of an event that could not be handed over, and how many bytes of the budget it needs.
    wanted: Option<(usize, usize)>,
    /// That event may be handed over now.
    granted: bool,
    /// How fast the socket takes the held bytes, while there are some.
    pace: Option<Box<Pace>>,
}

impl Outgo {
    pub(super) fn new(budget: &Budget) -> Self {
        Self { account: budget.account(), wanted: None, granted: false, pace: None }
    }

    /// Whether more may be written behind the waiting bytes.
    pub(super) fn has_room(&mut self, waiting: usize) -> bool {
        self.granted
            || waiting < limits::OUTPUT_FREE
            || waiting < limits::SESSION_OUTPUT && self.account.try_hold(limits::SESSION_OUTPUT)
    }

    /// Whether this many bytes may be written behind the waiting bytes. If not, the session does not queue for them.
    pub(super) fn has_room_for(&mut self, waiting: usize, bytes: usize) -> bool {
        let beyond = (waiting + bytes).saturating_sub(FREE);
        self.granted || self.has_room(waiting) && (beyond == 0 || self.account.try_hold(beyond))
    }

    /// Whether the client may send more requests that have to be answered in any case.
    pub(super) fn has_room_for_answers(&mut self, waiting: usize) -> bool {
        waiting < FREE
            || waiting < limits::SESSION_OUTPUT_MOST && !self.account.budget().is_used_up()
    }

    /// How many bytes there is room for behind the waiting bytes, at least one event of this size. If it is 0, try again when
    /// [`Outgo::poll`] is ready, or when the socket has taken more.
    pub(super) fn takes(&mut self, waiting: usize, size: usize) -> usize {
        if std::mem::take(&mut self.granted) {
            // What was written meanwhile is counted with it: a session that holds some bytes does not wait for more.
            return size;
        }
        if !self.has_room(waiting) {
            return 0;
        }
        let beyond = (waiting + size).saturating_sub(FREE);
        let all = beyond.max(limits::SESSION_OUTPUT);
        if beyond > 0 && !self.account.try_hold(all) && !self.account.try_hold(beyond) {
            self.wanted = Some((size, beyond - self.account.held()));
            return 0;
        }
        let most = (FREE + self.account.held()).min(limits::SESSION_OUTPUT);
        most.saturating_sub(waiting).max(size)
    }

    /// Whether more waits than is free for each session.
    pub(super) fn holds_some(&self) -> bool {
        self.account.held() > 0
    }

    /// Whether the socket, which has taken this many bytes in all, is too slow for others that wait for the room. The waiting
    /// bytes must have been counted just now.
    pub(super) fn is_too_slow(&mut self, now: Instant, taken: u64) -> bool {
        if !self.holds_some() {
            self.pace = None;
            return false;
        }
        // What was granted and is not written yet can't be taken by the client.
        let judged = self.account.budget().is_short() && !self.granted;
        let seen = Seen { moved: taken, held: self.account.held(), judged };
        let pace =
            self.pace.get_or_insert_with(|| Box::new(Pace::new(limits::OUTPUT_PACE, now, seen)));
        pace.is_too_slow(now, seen)
    }

    /// Stops checking how fast the socket is.
    pub(super) fn rest(&mut self) {
        self.pace = None;
    }

    /// The time of the next check at the latest.
    pub(super) fn look_until(&self) -> Option<Instant> {
        self.pace.as_deref().map(Pace::look_until)
    }

    /// Gives back everything, and stops waiting.
    pub(super) fn let_go(&mut self) {
        self.account.leave();
        self.account.keep(0);
        (self.wanted, self.granted, self.pace) = (None, false, None);
    }

    /// Whether there is room for the event that waited for it.
    pub(super) fn is_granted(&self) -> bool {
        self.granted
    }

    /// Whether an event waits in the queue for its room.
    pub(super) fn is_held_up(&self) -> bool {
        self.wanted.is_some()
    }

    /// Waits in the queue for the room of the event that was not taken, or until enough of the waiting bytes are written.
    pub(super) fn poll(&mut self, waiting: usize, context: &mut Context<'_>) -> Poll<()> {
        let Some((size, beyond)) = self.wanted else { return Poll::Pending };
        if waiting + size <= FREE {
            self.account.leave();
        } else {
            ready!(self.account.poll_take(beyond, context));
        }
        (self.wanted, self.granted) = (None, true);
        Poll::Ready(())
    }

    /// Counts the bytes that wait now.
    pub(super) fn count(&mut self, waiting: usize) {
        self.granted = false;
        let beyond = waiting.saturating_sub(FREE);
        if beyond > self.account.held() {
            self.account.overdraw(beyond);
        } else if self.account.held() > 0 {
            self.account.keep(beyond);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const LARGE: usize = 1 << 20;

    fn poll(outgo: &mut Outgo) -> bool {
        outgo.poll(limits::OUTPUT_FREE, &mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_session_fills_its_output_while_there_is_room_for_all() {
        let budget = Budget::new(4 * LARGE);
        let mut outgo = Outgo::new(&budget);
        assert!(outgo.has_room(limits::SESSION_OUTPUT - 1));
        assert!(!outgo.has_room(limits::SESSION_OUTPUT));
        assert_eq!(outgo.takes(limits::SESSION_OUTPUT - 1, LARGE), LARGE);
        outgo.count(limits::SESSION_OUTPUT + LARGE);
        assert_eq!(budget.held(), limits::SESSION_OUTPUT + LARGE - FREE);
        outgo.count(10);
        assert_eq!(budget.held(), 0);
        drop(outgo);
    }

    #[test]
    fn without_room_it_goes_on_with_little_and_waits_in_line_with_much() {
        let budget = Budget::new(LARGE);
        let [mut slow, mut first, mut second] = [(); 3].map(|()| Outgo::new(&budget));
        slow.count(LARGE + FREE);
        for outgo in [&mut first, &mut second] {
            assert_eq!(outgo.takes(0, 10), FREE);
            assert!(outgo.has_room(limits::OUTPUT_FREE - 1));
            assert!(!outgo.has_room(limits::OUTPUT_FREE));
            assert!(!poll(outgo), "nothing is waited for");
            assert!(outgo.takes(0, LARGE) == 0 && outgo.is_held_up() && !poll(outgo));
        }
        slow.count(0);
        assert!(!poll(&mut second), "it came later");
        assert!(poll(&mut first) && first.takes(0, LARGE) == LARGE);
        first.count(LARGE);
        assert!(!poll(&mut second));
        first.count(0);
        assert!(poll(&mut second) && second.takes(0, LARGE) == LARGE);
    }

    #[test]
    fn who_only_looks_for_room_waits_for_none() {
        let budget = Budget::new(LARGE);
        let [mut slow, mut outgo] = [(); 2].map(|()| Outgo::new(&budget));
        assert!(outgo.has_room_for(0, LARGE + FREE) && budget.held() == LARGE);
        outgo.count(0);
        slow.count(LARGE + FREE);
        assert!(outgo.has_room_for(0, FREE) && !outgo.has_room_for(0, FREE + 1));
        assert!(!outgo.is_held_up() && !budget.is_short());
    }

    #[test]
    fn an_event_that_fits_once_enough_has_gone_waits_for_nobody() {
        let budget = Budget::new(LARGE);
        let [mut slow, mut outgo] = [(); 2].map(|()| Outgo::new(&budget));
        slow.count(LARGE + FREE);
        let size = limits::OUTPUT_FREE + 1;
        assert_eq!(outgo.takes(limits::OUTPUT_FREE - 1, size), FREE - limits::OUTPUT_FREE + 1);
        assert!(outgo.takes(limits::OUTPUT_FREE - 1, size + 1) == 0 && !poll(&mut outgo));
        let mut context = Context::from_waker(Waker::noop());
        assert!(outgo.poll(0, &mut context).is_ready());
        assert_eq!(outgo.takes(0, size + 1), size + 1);
        assert!(!budget.is_short());
    }

    #[test]
    fn what_is_written_is_counted_even_where_there_is_no_room() {
        let budget = Budget::new(LARGE);
        let mut outgo = Outgo::new(&budget);
        outgo.count(3 * LARGE + FREE);
        assert_eq!(budget.held(), 3 * LARGE);
        assert!(!Outgo::new(&budget).has_room(limits::OUTPUT_FREE));
    }

    #[test]
    fn who_holds_what_others_wait_for_has_to_take_it() {
        let budget = Budget::new(LARGE);
        let [mut slow, mut other] = [(); 2].map(|()| Outgo::new(&budget));
        let (window, rate) = limits::OUTPUT_PACE;
        let began = Instant::now();
        let mut looks = 0;
        let mut a_window = |outgo: &mut Outgo, taken: u64| {
            (0..4).any(|_| {
                looks += 1;
                outgo.is_too_slow(began + window / 4 * looks, taken)
            })
        };
        slow.count(LARGE + FREE);
        assert!(!slow.is_too_slow(began, 0) && !a_window(&mut slow, 0), "nobody waits");
        assert_eq!(other.takes(0, LARGE), 0);
        assert!(!poll(&mut other));
        let enough = rate as u64 * window.as_secs();
        assert!(!a_window(&mut slow, enough) && !a_window(&mut slow, 2 * enough));
        assert!(a_window(&mut slow, 3 * enough - 1));
        // A session that holds nothing may take its time.
        assert!(!a_window(&mut other, 0) && !a_window(&mut other, 0));
        slow.count(FREE);
        assert!(!a_window(&mut slow, 0));
        assert_eq!(slow.look_until(), None);
        // After `let_go` it waits for nothing.
        other.let_go();
        assert!(!budget.is_short() && budget.held() == 0);
    }
}

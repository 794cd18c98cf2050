//! What a session is told by the realms' state, until it looks.
//!
//! Invariant: bounded. A session that is too slow to look is let go: its mailbox closes behind what is in it.
//!
//! Deliberately absent: room for what is not there. Most sessions are told once in their life that they have begun.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::session::Signal;
use crate::types::limits;

#[derive(Default)]
struct Shared {
    words: VecDeque<Signal>,
    closed: bool,
    waker: Option<Waker>,
}

/// Where words for a session are put in. The mailbox closes with it.
pub(super) struct Slot(Arc<Mutex<Shared>>);

/// A session's own end.
pub(crate) struct Mailbox(Arc<Mutex<Shared>>);

/// A new mailbox.
pub(super) fn mailbox() -> (Slot, Mailbox) {
    let shared = Arc::<Mutex<Shared>>::default();
    (Slot(shared.clone()), Mailbox(shared))
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    /// Puts a word in, if there is room.
    pub(super) fn put(&self, word: Signal) -> bool {
        let mut shared = lock(&self.0);
        let has_room = shared.words.len() < limits::SESSION_SIGNALS;
        if has_room {
            shared.words.push_back(word);
            let waker = shared.waker.take();
            drop(shared);
            waker.into_iter().for_each(Waker::wake);
        }
        has_room
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        shared.closed = true;
        let waker = shared.waker.take();
        drop(shared);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Mailbox {
    /// The next word; nothing once it is closed and empty.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Signal>> {
        let mut shared = lock(&self.0);
        if let Some(word) = shared.words.pop_front() {
            if shared.words.is_empty() {
                shared.words = VecDeque::new();
            }
            return Poll::Ready(Some(word));
        }
        if shared.closed {
            return Poll::Ready(None);
        }
        if shared.waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
            shared.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn words_come_in_their_order_and_the_last_ones_also_where_it_is_closed() {
        let count = Arc::<Count>::default();
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let woken = || count.0.swap(0, Ordering::Relaxed);
        let (slot, mut mailbox) = mailbox();
        assert!(mailbox.poll(&mut context).is_pending() && woken() == 0);
        assert!(slot.put(Signal::Joined) && slot.put(Signal::Released) && woken() == 1);
        assert!(matches!(mailbox.poll(&mut context), Poll::Ready(Some(Signal::Joined))));
        assert!(matches!(mailbox.poll(&mut context), Poll::Ready(Some(Signal::Released))));
        assert!(mailbox.poll(&mut context).is_pending());
        let taken = (0..2 * limits::SESSION_SIGNALS).filter(|_| slot.put(Signal::Joined)).count();
        assert!(taken == limits::SESSION_SIGNALS && woken() == 1);
        drop(slot);
        for _ in 0..taken {
            assert!(matches!(mailbox.poll(&mut context), Poll::Ready(Some(_))));
        }
        assert!(matches!(mailbox.poll(&mut context), Poll::Ready(None)));
    }

    #[test]
    fn who_waits_hears_that_it_is_closed() {
        let count = Arc::<Count>::default();
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let (slot, mut mailbox) = mailbox();
        assert!(mailbox.poll(&mut context).is_pending());
        drop(slot);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(matches!(mailbox.poll(&mut context), Poll::Ready(None)));
    }
}

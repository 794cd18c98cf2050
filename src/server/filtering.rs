//! A session's turn at reading large values for its filters.
//!
//! Reading a mebibyte takes milliseconds, and each of a thousand sessions may have a filter on the same event. Only one session
//! reads at a time, so that the node's other work for clients continues between two reads.
//!
//! Invariant: the turn is given back at the end of the session's own turn, used or not.
//!
//! Deliberately absent: which values are large (`delivery`).

use std::task::{ready, Context, Poll};

use super::budget::{Account, Budget};

pub(super) struct Filtering {
    budget: Budget,
    /// There while it takes turns.
    account: Option<Box<Account>>,
    /// It waits for its turn.
    wanted: bool,
}

impl Filtering {
    pub(super) fn new(budget: &Budget) -> Self {
        Self { budget: budget.clone(), account: None, wanted: false }
    }

    /// Whether it is the session's turn now. If not, [`Filtering::poll`] waits for it.
    pub(super) fn try_take(&mut self) -> bool {
        self.wanted = !self.account().try_hold(1);
        !self.wanted
    }

    fn account(&mut self) -> &mut Account {
        self.account.get_or_insert_with(|| Box::new(self.budget.account()))
    }

    /// Ready when it does not wait any more.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.wanted {
            ready!(self.account().poll_take(1, context));
            self.wanted = false;
        }
        Poll::Ready(())
    }

    /// Gives the turn back. If the session waits for one, it keeps waiting.
    pub(super) fn give_back(&mut self) {
        if let Some(account) = &mut self.account {
            account.keep(0);
        }
    }

    /// There is nothing to read any more.
    pub(super) fn forget(&mut self) {
        self.account = None;
        self.wanted = false;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn sessions_take_turns() {
        let budget = Budget::new(1);
        let [mut a, mut b, mut c] = [(); 3].map(|()| Filtering::new(&budget));
        let poll = |filtering: &mut Filtering| {
            filtering.poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        assert!(poll(&mut a), "it waits for nothing");
        assert!(a.try_take() && !b.try_take() && !c.try_take());
        assert!(!poll(&mut b) && !poll(&mut c));
        a.give_back();
        assert!(!a.try_take(), "others wait");
        assert!(!poll(&mut a) && !poll(&mut c) && poll(&mut b) && b.try_take());
        c.forget();
        b.give_back();
        assert!(poll(&mut a) && a.try_take(), "who has left is not waited for");
    }
}

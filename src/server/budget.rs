//! Bytes that many connections may hold together; each of them takes and gives back its part.
//!
//! A holder that can't get what it needs waits in a queue; it is not closed for that. Only holders that already hold a part of
//! what they need may overtake it, so many holders with small needs do not starve one with a large need.
//!
//! Invariant: the bytes held never exceed the total, except for what was taken with [`Account::overdraw`]. The first in the
//! queue gets what it wants once enough was given back. If everything was given back, that always is enough: a holder that is
//! alone is granted more than the total.
//!
//! Two holders that each wait for a second part of what they need could wait for each other for ever. So a holder either asks
//! once for all that it needs to finish, or states with each request how much it still needs in all: a budget with a reserve
//! ([`Budget::in_parts`]) always has room for one such holder to finish.
//!
//! Deliberately absent: what the bytes are, and how long they may be held.

mod ledger;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use ledger::{Grant, Ledger, Need, Ticket};

use crate::types::limits;

/// A budget. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Mutex<Ledger<Waker>>>);

impl Budget {
    pub(crate) fn new(total: usize) -> Self {
        Self::with_reserve(total, 0)
    }

    /// A budget for messages of a limited size, whose holders may take what they need in parts.
    pub(crate) fn in_parts(total: usize) -> Self {
        Self::with_reserve(total, total / limits::RESERVES)
    }

    /// A budget whose holders may take what they need in parts, as long as none needs more than the reserve in all.
    fn with_reserve(total: usize, reserve: usize) -> Self {
        Self(Arc::new(Mutex::new(Ledger::new(total, reserve))))
    }

    /// An account that holds nothing yet.
    pub(crate) fn account(&self) -> Account {
        Account { budget: self.clone(), held: 0, complete: false, ticket: None }
    }

    /// Whether any holder waits for bytes.
    pub(crate) fn is_short(&self) -> bool {
        self.ledger().is_waited_for()
    }

    /// Whether nothing is left, even for small needs.
    pub(crate) fn is_used_up(&self) -> bool {
        self.ledger().is_used_up()
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.ledger().held()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, grant: Grant) {
        let woken = self.ledger().give_back(grant);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// The bytes that one connection holds of a budget. They are given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Budget,
    held: usize,
    /// It needs nothing more than it holds.
    complete: bool,
    ticket: Option<Ticket>,
}

impl Account {
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Makes it hold this many bytes in all, if they are available outside of the reserve and no holder waits for them.
    pub(crate) fn try_hold(&mut self, bytes: usize) -> bool {
        if bytes <= self.held {
            return true;
        }
        let taken = self.budget.ledger().try_part(bytes - self.held);
        if taken {
            self.take(Grant { bytes: bytes - self.held, complete: false });
        }
        taken
    }

    /// Adds what the ledger has granted.
    fn take(&mut self, Grant { bytes, complete }: Grant) {
        if complete != self.complete {
            // Everything that it holds is of one kind: what it takes after its whole need is a part again.
            let parts = if complete { self.held } else { bytes };
            let woken = self.budget.ledger().complete(parts);
            woken.into_iter().for_each(Waker::wake);
        }
        self.complete |= complete;
        self.held += bytes;
    }

    /// Waits in the queue for this many more bytes. The number must not change while it waits.
    pub(crate) fn poll_take(&mut self, bytes: usize, context: &mut Context<'_>) -> Poll<()> {
        self.poll_need(Need { part: bytes, all: bytes, holds: false }, context)
    }

    /// Waits in the queue for a part of its remaining need, or for all of it. Neither number may change while it waits.
    pub(crate) fn poll_take_part(
        &mut self,
        part: usize,
        all: usize,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        self.poll_need(Need { part, all, holds: self.held > 0 }, context)
    }

    fn poll_need(&mut self, need: Need, context: &mut Context<'_>) -> Poll<()> {
        let mut ledger = self.budget.ledger();
        let taken = match self.ticket {
            Some(_) => None,
            None => ledger.try_take(need),
        };
        let grant = match taken {
            Some(grant) => Some(grant),
            None => {
                let ticket = *self.ticket.get_or_insert_with(|| ledger.queue(need));
                ledger.claim(ticket, context.waker())
            }
        };
        drop(ledger);
        let Some(grant) = grant else { return Poll::Pending };
        self.ticket = None;
        self.take(grant);
        Poll::Ready(())
    }

    /// Whether it waits in the queue, and nothing has been granted to it yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.ticket.is_some_and(|ticket| !self.budget.ledger().is_granted(ticket))
    }

    /// Leaves the queue.
    pub(crate) fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let woken = self.budget.ledger().leave(ticket);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// Makes it hold this many bytes in all, available or not: they exist already.
    pub(crate) fn overdraw(&mut self, bytes: usize) {
        if bytes > self.held {
            let more = Grant { bytes: bytes - self.held, complete: self.complete };
            self.budget.ledger().overdraw(more);
            self.held = bytes;
        }
    }

    /// Limits what it holds to this many bytes, and gives back the rest.
    pub(crate) fn keep(&mut self, bytes: usize) {
        if self.held > bytes {
            let less = Grant { bytes: self.held - bytes, complete: self.complete };
            self.held = bytes;
            self.complete &= bytes > 0;
            self.budget.give_back(less);
        }
    }

    /// Moves what it holds to an account of its own.
    pub(crate) fn split(&mut self) -> Self {
        let (held, complete) = (std::mem::take(&mut self.held), std::mem::take(&mut self.complete));
        Self { budget: self.budget.clone(), held, complete, ticket: None }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.leave();
        self.keep(0);
    }
}

#[cfg(test)]
mod tests;

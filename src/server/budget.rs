//! Bytes that many connections may hold together, taken and given back by each of them.
//!
//! Whoever can't have what it needs waits in line. It is not closed for that, and nobody who came later overtakes it but
//! those who hold a part of what they need, so that many who want little do not keep away one who wants much.
//!
//! Invariant: what is held is never more than the total, but for what was taken with [`Account::overdraw`]; and the first
//! in line gets what it wants once enough was given back. It is enough when all was: more than the total is granted to
//! one who holds it alone.
//!
//! Two holders that each wait for a second part of what they need could wait for each other for ever. So a holder asks
//! once for all it needs to come to its end, or says each time how much that still is: a budget with a reserve
//! ([`Budget::in_parts`]) always has room for one of those to finish.
//!
//! Deliberately absent: what the bytes are, and how long somebody may hold them.

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

    /// A budget whose holders may take what they need in parts: none needs more than the reserve in all.
    fn with_reserve(total: usize, reserve: usize) -> Self {
        Self(Arc::new(Mutex::new(Ledger::new(total, reserve))))
    }

    /// An account that holds nothing yet.
    pub(crate) fn account(&self) -> Account {
        Account { budget: self.clone(), held: 0, complete: false, ticket: None }
    }

    /// Whether somebody waits for bytes.
    pub(crate) fn is_short(&self) -> bool {
        self.ledger().is_waited_for()
    }

    /// Whether there is nothing left, for whoever needs little.
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

/// What one connection holds of a budget. It is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Budget,
    held: usize,
    /// It needs nothing beside what it holds.
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

    /// Holds so many bytes in all, if they are there outside of the reserve and nobody waits for them.
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

    /// Holds what the ledger has given.
    fn take(&mut self, Grant { bytes, complete }: Grant) {
        if complete != self.complete {
            // All that it holds is of one kind. What it takes beside a whole is a part again.
            let parts = if complete { self.held } else { bytes };
            let woken = self.budget.ledger().complete(parts);
            woken.into_iter().for_each(Waker::wake);
        }
        self.complete |= complete;
        self.held += bytes;
    }

    /// Waits in line for so many more bytes. The number may not change while it waits.
    pub(crate) fn poll_take(&mut self, bytes: usize, context: &mut Context<'_>) -> Poll<()> {
        self.poll_need(Need { part: bytes, all: bytes, holds: false }, context)
    }

    /// Waits in line for a part of all that it needs beside what it holds, or for all of that. Neither may change while it
    /// waits.
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

    /// Whether it waits in line, and nothing was granted to it yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.ticket.is_some_and(|ticket| !self.budget.ledger().is_granted(ticket))
    }

    /// Leaves the line.
    pub(crate) fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let woken = self.budget.ledger().leave(ticket);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// Holds so many bytes in all, there or not: they exist already.
    pub(crate) fn overdraw(&mut self, bytes: usize) {
        if bytes > self.held {
            let more = Grant { bytes: bytes - self.held, complete: self.complete };
            self.budget.ledger().overdraw(more);
            self.held = bytes;
        }
    }

    /// Holds so many bytes at most from now on.
    pub(crate) fn keep(&mut self, bytes: usize) {
        if self.held > bytes {
            let less = Grant { bytes: self.held - bytes, complete: self.complete };
            self.held = bytes;
            self.complete &= bytes > 0;
            self.budget.give_back(less);
        }
    }

    /// What it holds, as an account of its own.
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

//! The books of a budget: who holds how much is the holders' business, who is next is kept here.
//!
//! Invariant: tickets are granted in the order in which they were drawn.
//!
//! Deliberately absent: waking. Whom a change concerns is handed out to the caller, as whatever it left here.

use std::collections::{BTreeMap, VecDeque};

/// A place in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// `W` is what wakes who waits.
#[derive(Debug)]
pub(super) struct Ledger<W> {
    total: usize,
    /// Granted ones included.
    held: usize,
    next: u64,
    line: VecDeque<Waiting<W>>,
    /// Granted, and not claimed yet.
    granted: BTreeMap<Ticket, usize>,
}

#[derive(Debug)]
struct Waiting<W> {
    ticket: Ticket,
    bytes: usize,
    woken_by: Option<W>,
}

impl<W: Clone> Ledger<W> {
    pub(super) fn new(total: usize) -> Self {
        Self { total, held: 0, next: 0, line: VecDeque::new(), granted: BTreeMap::new() }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn is_waited_for(&self) -> bool {
        !self.line.is_empty()
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.held >= self.total
    }

    /// Takes bytes now, or not at all.
    pub(super) fn try_take(&mut self, bytes: usize) -> bool {
        let there = self.line.is_empty() && self.is_there(bytes);
        if there {
            self.held += bytes;
        }
        there
    }

    fn is_there(&self, bytes: usize) -> bool {
        self.held == 0 || self.held.saturating_add(bytes) <= self.total
    }

    /// Takes bytes that can't be waited for.
    pub(super) fn overdraw(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// Draws a ticket.
    pub(super) fn queue(&mut self, bytes: usize) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.line.push_back(Waiting { ticket, bytes, woken_by: None });
        ticket
    }

    /// What was granted to a ticket, which is used up then; until then, `wake` is told when it was.
    pub(super) fn claim(&mut self, ticket: Ticket, wake: &W) -> Option<usize> {
        if let Some(bytes) = self.granted.remove(&ticket) {
            return Some(bytes);
        }
        let at = self.line.binary_search_by_key(&ticket, |waiting| waiting.ticket);
        if let Some(waiting) = at.ok().and_then(|at| self.line.get_mut(at)) {
            waiting.woken_by = Some(wake.clone());
        }
        None
    }

    /// Gives a ticket back, with what was granted to it. Tells who is to be woken.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Vec<W> {
        if let Ok(at) = self.line.binary_search_by_key(&ticket, |waiting| waiting.ticket) {
            self.line.remove(at);
        }
        let granted = self.granted.remove(&ticket).unwrap_or_default();
        self.give_back(granted)
    }

    /// Gives bytes back. Tells who is to be woken.
    pub(super) fn give_back(&mut self, bytes: usize) -> Vec<W> {
        self.held = self.held.checked_sub(bytes).expect("nobody gives back what nobody took");
        let mut woken = Vec::new();
        while let Some(first) = self.line.front() {
            if !self.is_there(first.bytes) {
                break;
            }
            let Some(Waiting { ticket, bytes, woken_by }) = self.line.pop_front() else { break };
            self.held += bytes;
            self.granted.insert(ticket, bytes);
            woken.extend(woken_by);
        }
        woken
    }
}

//! The books of a budget: who holds how much is the holders' business, who is next is kept here.
//!
//! A holder may come back for more of what it needs in all, so all of them could hold a part and wait for the rest. Two rules
//! keep that from happening. Holders have a line of their own, which goes first. And a reserve is for them alone: where there
//! is no room for a part, the first of them is granted all that it still needs, waits for nothing more, and comes to its end.
//!
//! Invariant: the tickets of each line are granted in the order in which they were drawn. Those who may come back for more
//! hold no part of the reserve.
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
    /// The part of it that only those get who need nothing more then.
    reserve: usize,
    /// Granted ones included.
    held: usize,
    next: u64,
    /// Those who hold nothing that they could need more beside.
    line: Line<W>,
    /// Those who do, and go first.
    holders: Line<W>,
    /// Granted, and not claimed yet.
    granted: BTreeMap<Ticket, usize>,
}

type Line<W> = VecDeque<Waiting<W>>;

#[derive(Debug)]
struct Waiting<W> {
    ticket: Ticket,
    need: Need,
    woken_by: Option<W>,
}

/// What somebody needs of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Need {
    /// Bytes that it can go on with for now.
    pub(in crate::server) part: usize,
    /// Bytes that it needs to come to its end, `part` included.
    pub(in crate::server) all: usize,
    /// It holds a part already, and needs this beside it.
    pub(in crate::server) holds: bool,
}

impl<W: Clone> Ledger<W> {
    pub(super) fn new(total: usize, reserve: usize) -> Self {
        let (line, holders) = (VecDeque::new(), VecDeque::new());
        Self { total, reserve, held: 0, next: 0, line, holders, granted: BTreeMap::new() }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn is_waited_for(&self) -> bool {
        !self.line.is_empty() || !self.holders.is_empty()
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.held >= self.total
    }

    /// Takes bytes now, or not at all; tells how many.
    pub(super) fn try_take(&mut self, need: Need) -> Option<usize> {
        let first = self.holders.is_empty() && (need.holds || self.line.is_empty());
        let granted = first.then(|| self.grant(need)).flatten()?;
        self.held += granted;
        Some(granted)
    }

    /// Takes bytes outside of the reserve now, or not at all.
    pub(super) fn try_part(&mut self, bytes: usize) -> bool {
        let there = !self.is_waited_for() && self.fits(bytes, self.total - self.reserve);
        if there {
            self.held += bytes;
        }
        there
    }

    /// How much the one whose turn it is gets: all that it needs, while there is room for twice as much as is held; or else
    /// a part, outside of the reserve; or else, if it holds some already, all again, out of the reserve.
    fn grant(&self, Need { part, all, holds }: Need) -> Option<usize> {
        let parts = self.total - self.reserve;
        if self.fits(all, parts / 2) {
            return Some(all);
        }
        if self.fits(part, parts) {
            return Some(part);
        }
        (holds && self.fits(all, self.total)).then_some(all)
    }

    fn fits(&self, bytes: usize, total: usize) -> bool {
        self.held == 0 || self.held.saturating_add(bytes) <= total
    }

    /// Takes bytes that can't be waited for.
    pub(super) fn overdraw(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// Draws a ticket.
    pub(super) fn queue(&mut self, need: Need) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        let line = if need.holds { &mut self.holders } else { &mut self.line };
        line.push_back(Waiting { ticket, need, woken_by: None });
        ticket
    }

    /// What was granted to a ticket, which is used up then; until then, `wake` is told when it was.
    pub(super) fn claim(&mut self, ticket: Ticket, wake: &W) -> Option<usize> {
        if let Some(bytes) = self.granted.remove(&ticket) {
            return Some(bytes);
        }
        for line in [&mut self.holders, &mut self.line] {
            if let Some(waiting) = place_of(line, ticket).and_then(|at| line.get_mut(at)) {
                waiting.woken_by = Some(wake.clone());
            }
        }
        None
    }

    /// Gives a ticket back, with what was granted to it. Tells who is to be woken.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Vec<W> {
        for line in [&mut self.holders, &mut self.line] {
            if let Some(at) = place_of(line, ticket) {
                line.remove(at);
            }
        }
        let granted = self.granted.remove(&ticket).unwrap_or_default();
        self.give_back(granted)
    }

    /// Gives bytes back. Tells who is to be woken.
    pub(super) fn give_back(&mut self, bytes: usize) -> Vec<W> {
        self.held = self.held.checked_sub(bytes).expect("nobody gives back what nobody took");
        let mut woken = Vec::new();
        loop {
            let line = if self.holders.is_empty() { &self.line } else { &self.holders };
            let Some(granted) = line.front().and_then(|first| self.grant(first.need)) else {
                break;
            };
            let first = self.holders.pop_front().or_else(|| self.line.pop_front());
            let Some(Waiting { ticket, woken_by, .. }) = first else { break };
            self.held += granted;
            self.granted.insert(ticket, granted);
            woken.extend(woken_by);
        }
        woken
    }
}

fn place_of<W>(line: &Line<W>, ticket: Ticket) -> Option<usize> {
    line.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()
}

//! The bookkeeping of a budget: the queues, and the totals. Each holder keeps its own count.
//!
//! Holders may ask again for more of what they need in all, so all of them could hold a part and wait for the rest. Two rules
//! prevent that. Holders have a queue of their own, and when there is room, the two queues take turns. And a reserve is for
//! holders only: if there is no room for a part, the first of them is granted all that it still needs, so it waits for nothing
//! more and finishes.
//!
//! Invariant: the tickets of each queue are granted in the order in which they were issued. Holders that may ask for more hold
//! nothing of the reserve, all together.
//!
//! Deliberately absent: waking. The wakers to be called after a change are returned to the caller.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;

/// A place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(NonZeroU64);

/// `W` wakes a waiting holder.
#[derive(Debug)]
pub(super) struct Ledger<W> {
    total: usize,
    /// The part of it that is only granted if it completes a need.
    reserve: usize,
    /// Includes granted bytes.
    held: usize,
    /// The part of `held` whose holders may ask for more.
    parts: usize,
    next: NonZeroU64,
    /// Those that do not hold a part of what they need.
    line: Line<W>,
    /// Those that do.
    holders: Line<W>,
    /// The holders' queue has the next turn.
    holders_first: bool,
    /// Granted, but not claimed yet.
    granted: BTreeMap<Ticket, Grant>,
}

type Line<W> = VecDeque<Waiting<W>>;

#[derive(Debug)]
struct Waiting<W> {
    ticket: Ticket,
    need: Need,
    woken_by: Option<W>,
}

/// Bytes granted from a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) bytes: usize,
    /// They complete the need.
    pub(crate) complete: bool,
}

/// A need for bytes of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// Bytes that allow it to continue for now.
    pub(crate) part: usize,
    /// Bytes that allow it to finish, `part` included.
    pub(crate) all: usize,
    /// It holds a part already, and needs this in addition.
    pub(crate) holds: bool,
}

impl<W: Clone> Ledger<W> {
    pub(super) fn new(total: usize, reserve: usize) -> Self {
        let (line, holders) = (VecDeque::new(), VecDeque::new());
        let granted = BTreeMap::new();
        let (held, parts, next, holders_first) = (0, 0, NonZeroU64::MIN, true);
        Self { total, reserve, held, parts, next, line, holders, holders_first, granted }
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

    /// Takes bytes now, or none; returns how many.
    pub(super) fn try_take(&mut self, need: Need) -> Option<Grant> {
        let first = self.holders.is_empty() && (need.holds || self.line.is_empty());
        let grant = first.then(|| self.grant(need)).flatten()?;
        self.take(grant);
        Some(grant)
    }

    /// Takes bytes outside of the reserve now, or none.
    pub(super) fn try_part(&mut self, bytes: usize) -> bool {
        let there = !self.is_waited_for() && self.fits_in_parts(bytes);
        if there {
            self.take(Grant { bytes, complete: false });
        }
        there
    }

    fn take(&mut self, Grant { bytes, complete }: Grant) {
        self.held += bytes;
        if !complete {
            self.parts += bytes;
        }
    }

    /// A holder that has this many bytes in parts needs nothing more. Returns whom to wake.
    pub(super) fn complete(&mut self, held: usize) -> Vec<W> {
        self.parts = self.parts.checked_sub(held).expect("nobody completes what nobody took");
        self.grant_next()
    }

    /// What the first in a queue gets: all that it needs, if half of the budget outside of the reserve stays free; or else a
    /// part, outside of the reserve; or else, if it holds some already, all that it needs, out of the reserve.
    fn grant(&self, Need { part, all, holds }: Need) -> Option<Grant> {
        let all = Grant { bytes: all, complete: true };
        if self.fits(all.bytes, (self.total - self.reserve) / 2) {
            return Some(all);
        }
        if part < all.bytes && self.fits_in_parts(part) {
            return Some(Grant { bytes: part, complete: false });
        }
        let may_end = holds || self.reserve == 0 || self.fits_in_parts(all.bytes);
        (may_end && self.fits(all.bytes, self.total)).then_some(all)
    }

    fn fits_in_parts(&self, bytes: usize) -> bool {
        let parts = self.parts.saturating_add(bytes);
        (self.parts == 0 || parts <= self.total - self.reserve) && self.fits(bytes, self.total)
    }

    fn fits(&self, bytes: usize, total: usize) -> bool {
        self.held == 0 || self.held.saturating_add(bytes) <= total
    }

    /// Takes bytes whatever is free, because they can't be waited for.
    pub(super) fn overdraw(&mut self, grant: Grant) {
        self.take(grant);
    }

    /// Issues a ticket.
    pub(super) fn queue(&mut self, need: Need) -> Ticket {
        let ticket = Ticket(self.next);
        self.next = self.next.saturating_add(1);
        let line = if need.holds { &mut self.holders } else { &mut self.line };
        line.push_back(Waiting { ticket, need, woken_by: None });
        ticket
    }

    /// Takes what was granted to a ticket, which uses it up; if nothing was yet, stores `wake` to be called then.
    pub(super) fn claim(&mut self, ticket: Ticket, wake: &W) -> Option<Grant> {
        if let Some(grant) = self.granted.remove(&ticket) {
            return Some(grant);
        }
        for line in [&mut self.holders, &mut self.line] {
            if let Some(waiting) = place_of(line, ticket).and_then(|at| line.get_mut(at)) {
                waiting.woken_by = Some(wake.clone());
            }
        }
        None
    }

    /// Whether something was granted to a ticket.
    pub(super) fn is_granted(&self, ticket: Ticket) -> bool {
        self.granted.contains_key(&ticket)
    }

    /// Gives a ticket back, with what was granted to it. Returns whom to wake.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Vec<W> {
        for line in [&mut self.holders, &mut self.line] {
            if let Some(at) = place_of(line, ticket) {
                line.remove(at);
            }
        }
        match self.granted.remove(&ticket) {
            Some(grant) => self.give_back(grant),
            None => self.grant_next(),
        }
    }

    /// Gives bytes back. Returns whom to wake.
    pub(super) fn give_back(&mut self, Grant { bytes, complete }: Grant) -> Vec<W> {
        let less =
            |from: usize| from.checked_sub(bytes).expect("nobody gives back what nobody took");
        self.held = less(self.held);
        if !complete {
            self.parts = less(self.parts);
        }
        self.grant_next()
    }

    /// Grants what there is room for now.
    fn grant_next(&mut self) -> Vec<W> {
        let mut woken = Vec::new();
        while let Some((grant, Waiting { ticket, woken_by, .. })) = self.next_granted() {
            self.take(grant);
            self.granted.insert(ticket, grant);
            woken.extend(woken_by);
        }
        woken
    }

    /// Takes the first out of one of the queues, if it can be granted something.
    fn next_granted(&mut self) -> Option<(Grant, Waiting<W>)> {
        for of_holders in [self.holders_first, !self.holders_first] {
            let line = if of_holders { &self.holders } else { &self.line };
            if let Some(grant) = line.front().and_then(|first| self.grant(first.need)) {
                self.holders_first = !of_holders;
                let line = if of_holders { &mut self.holders } else { &mut self.line };
                return Some((grant, line.pop_front()?));
            }
        }
        None
    }
}

fn place_of<W>(line: &Line<W>, ticket: Ticket) -> Option<usize> {
    line.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()
}

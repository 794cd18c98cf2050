//! A session's ledger: its events on their way into the log, and what becomes of them.
//!
//! A publish without a condition is done when the entry has answered it. A conditional one is stored first, and its
//! outcome is decided in the order: until then its event is kept here, because a turn in line is taken by publishing it
//! again. Registrations are stored and decided as well.
//!
//! What a client's publishes are called in its protocol is not carried along here. MQTT has to acknowledge them in their order
//! with refused ones in between, which are never published, so its gate keeps a queue of its own in any case. And what an
//! entry keeps is a part of a segment, not of a session.
//!
//! Invariant: what is kept here is bounded by a session's limits, as long as nothing is taken from its client while there is
//! no [`Ledger::has_room`]. One errand is under way at a time.
//!
//! Deliberately absent: the way to the entry, and the bytes that all sessions of a node share (`server/publishing`).

use std::collections::{BTreeMap, VecDeque};

use vulpes_raft::ids::{Incarnation, Position};
use vulpes_raft::mutant::{planted, Mutant};

use super::Signal;
use crate::gate::Allowed;
use crate::realm::{At, Decision};
use crate::types::act::{Act, Refusal, Terms};
use crate::types::answer::{Answer, PublishError, Stored};
use crate::types::event::Event;
use crate::types::limits;
use crate::types::value::Value;

/// A decided publish: its sequence number and its outcome.
pub(crate) type Decided = (u64, Result<Stored, Refusal>);

/// How many of a session's events may be undecided; with as many, its socket is not read. Publishes alone never fill it,
/// because they may wait for what their own session does next.
const UNDECIDED: usize = limits::SESSION_WAITS + limits::SESSION_REGISTERS;

/// What is to be done for the ledger.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Wait for room for so many bytes that every node looks at.
    Admit(usize),
    /// Hand this to the entry.
    Submit(Batch),
}

/// What came of an errand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// There is room for so many bytes.
    Admitted(usize),
    /// The entry has the batch.
    Submitted,
    /// The entry takes no more.
    Closed,
}

/// What goes to the entry at once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) incarnation: Option<Incarnation>,
    /// Sequence number of the first event.
    pub(crate) first: u64,
    pub(crate) events: Vec<Event>,
    /// They are the client's publishes, which the entry answers. Otherwise they are the session's own.
    pub(crate) answered: bool,
    /// Bytes that these events make every node look at.
    pub(crate) compared: usize,
}

#[derive(Default)]
pub(crate) struct Ledger {
    incarnation: Option<Incarnation>,
    /// The client's events that the entry has not been handed.
    batch: VecDeque<Pushed>,
    /// How many of them compare something.
    comparisons: usize,
    /// The room that there is for what the next of them make every node look at.
    admitted: Option<usize>,
    /// Some publishes had a will.
    has_wills: bool,
    /// Sequence number of the batch's first event.
    next: u64,
    /// Events before this one have been answered.
    answered: u64,
    /// Batches that are not fully answered: the sequence number behind each, and its bytes.
    unanswered: VecDeque<(u64, usize)>,
    unanswered_bytes: usize,
    /// An errand is under way.
    busy: bool,
    /// The session ends: its own events are its last words, and follow what its client has said.
    leaving: bool,
    /// What the order decides and has no known place yet; of publishes, what is published again.
    undecided: VecDeque<(u64, Option<Conditional>)>,
    /// What the order has not decided, by its place.
    waits: BTreeMap<Position, (u64, Option<Conditional>)>,
    /// Bytes of the conditional publishes in both.
    waiting: usize,
    /// What the order said of places that the entry has not told of yet.
    early: BTreeMap<Position, Signal>,
    /// The session's own events, beside its client's publishes.
    own: Vec<Event>,
}

/// A client's event.
struct Pushed {
    event: Event,
    /// It is compared with a value, or merged into one.
    compares: bool,
}

/// A retained value beyond this size counts as looked at itself: what is compared with it next is to find it applied.
const LARGE_VALUE: usize = 16 << 10;

impl Pushed {
    /// Bytes that it makes every node look at, as far as this node can tell by now.
    fn looked_at(&self, looked_at: &impl Fn(&Event, bool) -> usize) -> usize {
        let Self { event, compares } = self;
        let mut bytes = if *compares || event.retain { looked_at(event, *compares) } else { 0 };
        if *compares || bytes > 0 {
            bytes = bytes.max(limits::COMPARED_LEAST);
        }
        let own = event.payload.len();
        // A merge makes the value larger for the next one.
        let grows = if *compares { own } else { 0 };
        (bytes + grows).max(if event.retain && own > LARGE_VALUE { own } else { 0 })
    }
}

/// A publish that may have to be published again.
struct Conditional {
    event: Event,
    terms: Terms,
}

impl Conditional {
    /// Bytes that it takes while it waits.
    fn held(&self) -> usize {
        self.event.held() + self.terms.when.as_ref().map_or(0, Value::held)
    }
}

impl Ledger {
    /// Takes a client's publish.
    pub(crate) fn publish(&mut self, event: Event, terms: Terms) {
        self.has_wills |= terms.will.is_some();
        let compares = terms.merge || terms.is_conditional();
        self.comparisons += usize::from(compares);
        if terms.is_conditional() {
            let conditional = Conditional { event: event.clone(), terms };
            self.waiting += conditional.held();
            self.undecided.push_back((self.following(), Some(conditional)));
        }
        self.batch.push_back(Pushed { event, compares });
    }

    /// Takes an event of the client that the order decides, and that only the state sees.
    pub(crate) fn decide(&mut self, event: Event) {
        self.undecided.push_back((self.following(), None));
        self.batch.push_back(Pushed { event, compares: false });
    }

    /// Sequence number of the next event.
    fn following(&self) -> u64 {
        self.next + self.batch.len() as u64
    }

    /// Takes an event of the session itself.
    pub(crate) fn push_own(&mut self, event: Event) {
        self.own.push(event);
    }

    /// The session is known to all, in this incarnation of its entry.
    pub(crate) fn joined(&mut self, incarnation: Incarnation) {
        self.incarnation = Some(incarnation);
    }

    /// The session ends.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
    }

    /// What is to be done next, unless something is under way; [`Ledger::done`] tells what came of it. `looked_at` tells how many
    /// bytes an event makes every node look at by now, where it is compared with them or not.
    pub(crate) fn next(&mut self, looked_at: impl Fn(&Event, bool) -> usize) -> Option<Errand> {
        if self.busy {
            return None;
        }
        let errand = match (self.own.is_empty(), self.batch.is_empty()) {
            (true, true) => return None,
            (true, false) => self.next_of_clients(&looked_at),
            (false, false) if self.leaving => self.next_of_clients(&looked_at),
            // Its own are few, and others wait for them; what becomes of them is seen in the order.
            (false, _) => Errand::Submit(self.own_batch()),
        };
        self.busy = true;
        Some(errand)
    }

    fn next_of_clients(&mut self, looked_at: &impl Fn(&Event, bool) -> usize) -> Errand {
        let (count, compared) = self.next_events(looked_at);
        if compared > self.admitted.unwrap_or(0) {
            // Where it has grown meanwhile, it waits anew.
            return Errand::Admit(compared);
        }
        self.admitted = None;
        Errand::Submit(self.clients_batch(count, compared))
    }

    /// How many of the next events go together, and the bytes that they make every node look at: one event, or no more of
    /// those bytes than there is room for. A client may have sent any number of events in one write, and what they look at
    /// may have grown while they waited for that room.
    fn next_events(&self, looked_at: &impl Fn(&Event, bool) -> usize) -> (usize, usize) {
        let room = self.admitted.unwrap_or(limits::COMPARED_BYTES);
        let (mut count, mut compared) = (0, 0);
        for one in &self.batch {
            let bytes = one.looked_at(looked_at);
            if count > 0 && bytes > 0 && compared + bytes > room {
                break;
            }
            count += 1;
            compared += bytes;
        }
        (count, compared)
    }

    fn own_batch(&mut self) -> Batch {
        let events = std::mem::take(&mut self.own);
        Batch { incarnation: self.incarnation, first: 0, events, answered: false, compared: 0 }
    }

    fn clients_batch(&mut self, count: usize, compared: usize) -> Batch {
        let mut events = Vec::with_capacity(count);
        for Pushed { event, compares } in self.batch.drain(..count) {
            self.comparisons -= usize::from(compares);
            events.push(event);
        }
        if planted(Mutant::ReorderPublisher) {
            events.reverse();
        }
        let first = self.next;
        self.next += events.len() as u64;
        let bytes = events.iter().map(Event::held).sum();
        self.unanswered.push_back((self.next, bytes));
        self.unanswered_bytes += bytes;
        Batch { incarnation: self.incarnation, first, events, answered: true, compared }
    }

    /// Takes what came of the errand.
    pub(crate) fn done(&mut self, done: Done) {
        self.busy = false;
        if let Done::Admitted(bytes) = done {
            self.admitted = Some(bytes);
        }
    }

    /// What there is room for. `waits` tells whether the node has room for more conditional publishes, and `wills` how many
    /// wills of the session are known.
    pub(crate) fn allowed(&self, waits: bool, wills: impl FnOnce() -> usize) -> Allowed {
        let wills = !self.has_wills || wills() + self.unanswered() < limits::SESSION_WILLS;
        Allowed { waits, wills }
    }

    fn unanswered(&self) -> usize {
        (self.next - self.answered) as usize
    }

    /// Bytes of the conditional publishes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    fn waits_no_more(&mut self, conditional: Option<&Conditional>) {
        self.waiting -= conditional.map_or(0, Conditional::held);
    }

    /// Whether the entry has taken all of the client's publishes.
    pub(crate) fn is_idle(&self) -> bool {
        !self.busy && self.batch.is_empty()
    }

    /// Whether something is still to be answered: by the entry, or by the order without waiting for anybody.
    pub(crate) fn is_owed(&self) -> bool {
        let waits_for_nobody = |conditional: &Option<Conditional>| {
            conditional.as_ref().is_none_or(|conditional| !conditional.terms.watch)
        };
        !self.is_answered()
            || self.waits.values().any(|(_, conditional)| waits_for_nobody(conditional))
    }

    /// Whether the entry has answered all that it was given, and nothing is on its way there.
    pub(crate) fn is_answered(&self) -> bool {
        self.is_idle() && self.answered >= self.next
    }

    /// Whether the batch may grow: not where it makes all nodes look at as much as they may have to for this node.
    pub(crate) fn may_grow(&self) -> bool {
        self.comparisons < limits::COMPARED_BYTES / limits::COMPARED_LEAST
    }

    /// Whether more may be taken from the client.
    pub(crate) fn has_room(&self) -> bool {
        self.is_idle()
            && self.unanswered() < limits::SESSION_UNANSWERED
            && self.unanswered.len() < limits::SESSION_BATCHES
            && self.unanswered_bytes < limits::SESSION_UNANSWERED_BYTES
            && self.undecided.len() + self.waits.len() < UNDECIDED
    }

    /// Whether this answer leaves it unknown if something will ever be decided: a publish may stand in a line and hold that
    /// up, a registration may be called, so the session has to end.
    pub(crate) fn loses_sight(&self, answer: &Answer) -> bool {
        let end = answer.first + u64::from(answer.count);
        answer.outcome == Err(PublishError::Unknown)
            && self.undecided.front().is_some_and(|(sequence, _)| *sequence < end)
    }

    /// The entry has answered; gives what the order had decided before that.
    pub(crate) fn answered(&mut self, answer: &Answer) -> Vec<Decided> {
        let end = answer.first + u64::from(answer.count);
        self.answered = end;
        while let Some((behind, bytes)) = self.unanswered.front() {
            if *behind > self.answered {
                break;
            }
            self.unanswered_bytes -= bytes;
            self.unanswered.pop_front();
        }
        let mut decided = Vec::new();
        while self.undecided.front().is_some_and(|(sequence, _)| *sequence < end) {
            let Some((sequence, conditional)) = self.undecided.pop_front() else { break };
            // What is not stored is never decided.
            let Ok(stored) = &answer.outcome else {
                self.waits_no_more(conditional.as_ref());
                continue;
            };
            let position = Position(stored.position.0 + (sequence - answer.first));
            self.waits.insert(position, (sequence, conditional));
            if let Some(word) = self.early.remove(&position) {
                decided.extend(self.told(word));
            }
        }
        decided
    }

    /// The order has said something about a publish or a registration.
    pub(crate) fn told(&mut self, word: Signal) -> Option<Decided> {
        match word {
            Signal::Decided { asked, decision } => {
                let Some((sequence, conditional)) = self.waits.remove(&asked) else {
                    self.keep_early(asked, word);
                    return None;
                };
                self.waits_no_more(conditional.as_ref());
                Some((sequence, outcome(decision)))
            }
            Signal::Turn { waiting } => {
                let Some((_, waits)) = self.waits.get(&waiting) else {
                    self.keep_early(waiting, word);
                    return None;
                };
                let conditional = waits.as_ref()?;
                let act = Act::Granted { waiting, terms: conditional.terms.clone() };
                let event = Event { act: act.encode(), ..conditional.event.clone() };
                self.own.push(event);
                None
            }
            Signal::Joined | Signal::FilterOutcome(_) | Signal::Released | Signal::Ended(_) => None,
        }
    }

    /// A place of which the entry says nothing because it gave up waiting is dropped with the oldest.
    fn keep_early(&mut self, position: Position, word: Signal) {
        self.early.insert(position, word);
        if self.early.len() > limits::SESSION_SIGNALS {
            self.early.pop_first();
        }
    }
}

/// A decision in the gates' terms.
fn outcome(decision: Decision) -> Result<Stored, Refusal> {
    match decision {
        Decision::Accepted(At { position, slot, stamp, offset, .. }) => {
            Ok(Stored { position, slot, stamp, offset })
        }
        Decision::Refused(refusal) => Err(refusal),
    }
}

#[cfg(test)]
mod tests;

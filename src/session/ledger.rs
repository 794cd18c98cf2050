//! A session's ledger: its events on their way into the log, and their outcomes.
//!
//! A publish without a condition is done when the entry has answered it. A conditional publish is stored first, and its outcome
//! is decided in the order. Its event is kept here until then, because the session takes its turn in the queue by publishing it
//! again. Registrations are stored and decided as well.
//!
//! The ledger does not hold the protocol's ids of publishes. MQTT has to acknowledge publishes in their order, including
//! refused ones, which are never published; so its gate needs a queue of its own in any case. An entry's records are per
//! segment, not per session.
//!
//! Invariant: the ledger is bounded by a session's limits, as long as nothing is taken from its client while
//! [`Ledger::has_room`] is false. One errand is under way at a time.
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

/// How many of a session's events may be undecided; beyond that its socket is not read. Publishes alone never reach this limit,
/// because they may wait for something that their own session does next.
const UNDECIDED: usize = limits::SESSION_WAITS + limits::SESSION_REGISTERS;

/// Work for the ledger.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Wait until there is room for this many bytes that every node looks at.
    Admit(usize),
    /// Hand this to the entry.
    Submit(Batch),
}

/// The result of an errand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// There is room for this many bytes.
    Admitted(usize),
    /// The entry has taken the batch.
    Submitted,
    /// The entry takes no more batches.
    Closed,
}

/// Events that go to the entry together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) incarnation: Option<Incarnation>,
    /// Sequence number of the first event.
    pub(crate) first: u64,
    pub(crate) events: Vec<Event>,
    /// They are the client's publishes, which the entry answers. Otherwise they are the session's own events.
    pub(crate) answered: bool,
    /// Bytes that these events make every node look at.
    pub(crate) compared: usize,
}

#[derive(Default)]
pub(crate) struct Ledger {
    incarnation: Option<Incarnation>,
    /// The client's events that the entry has not been handed.
    batch: VecDeque<Pushed>,
    /// How many of them are compared with a value.
    comparisons: usize,
    /// The room granted for the bytes that the next of them make every node look at.
    admitted: Option<usize>,
    /// Some publishes had a will.
    has_wills: bool,
    /// Sequence number of the batch's first event.
    next: u64,
    /// Events before this one have been answered.
    answered: u64,
    /// Batches that are not fully answered: the sequence number after each, and its bytes.
    unanswered: VecDeque<(u64, usize)>,
    unanswered_bytes: usize,
    /// An errand is under way.
    busy: bool,
    /// The session ends: its own events now come after the client's events.
    leaving: bool,
    /// What the order decides, once there was something of that kind.
    decisions: Option<Box<Decisions>>,
    /// The session's own events, which are not its client's publishes.
    own: Vec<Event>,
}

/// What the order decides of a session's events.
struct Decisions {
    /// What has no known place yet; of publishes, what is published again.
    undecided: VecDeque<(u64, Option<Conditional>)>,
    /// Events that the order has not decided, by position.
    waits: BTreeMap<Position, (u64, Option<Conditional>)>,
    /// Bytes of the conditional publishes in both.
    waiting: usize,
    /// Signals about positions that the entry has not answered yet.
    early: BTreeMap<Position, Signal>,
}

static NO_DECISIONS: Decisions = Decisions::NONE;

impl Decisions {
    const NONE: Self = Self {
        undecided: VecDeque::new(),
        waits: BTreeMap::new(),
        waiting: 0,
        early: BTreeMap::new(),
    };

    fn is_empty(&self) -> bool {
        self.undecided.is_empty() && self.waits.is_empty() && self.early.is_empty()
    }

    fn waits_no_more(&mut self, conditional: Option<&Conditional>) {
        self.waiting -= conditional.map_or(0, Conditional::held);
    }

    /// If the entry gave up waiting and never answers a position, its signal is dropped as the oldest.
    fn keep_early(&mut self, position: Position, word: Signal) {
        self.early.insert(position, word);
        if self.early.len() > limits::SESSION_SIGNALS {
            self.early.pop_first();
        }
    }
}

/// A client's event.
struct Pushed {
    event: Event,
    /// It is compared with a value, or merged into one.
    compares: bool,
}

/// A retained value beyond this size counts as looked at itself, so that the next event that is compared with it finds it
/// applied.
const LARGE_VALUE: usize = 16 << 10;

impl Pushed {
    /// Bytes that it makes every node look at, as far as this node can tell now.
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
        if terms.is_conditional() {
            let conditional = Conditional { event: event.clone(), terms };
            let sequence = self.following();
            let decisions = self.decisions_mut();
            decisions.waiting += conditional.held();
            decisions.undecided.push_back((sequence, Some(conditional)));
        }
        self.push(event, compares);
    }

    /// Takes a client's publish of which the order decides whether it is new.
    pub(crate) fn publish_once(&mut self, event: Event, terms: &Terms) {
        self.has_wills |= terms.will.is_some();
        let sequence = self.following();
        self.decisions_mut().undecided.push_back((sequence, None));
        self.push(event, terms.merge);
    }

    fn push(&mut self, event: Event, compares: bool) {
        self.comparisons += usize::from(compares);
        self.batch.push_back(Pushed { event, compares });
    }

    /// Takes a client's event that the order decides, and that only the state sees.
    pub(crate) fn decide(&mut self, event: Event) {
        let sequence = self.following();
        self.decisions_mut().undecided.push_back((sequence, None));
        self.batch.push_back(Pushed { event, compares: false });
    }

    /// How many events of the client it has taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.following()
    }

    /// Sequence number of the next event.
    fn following(&self) -> u64 {
        self.next + self.batch.len() as u64
    }

    /// Lets go of memory that is free.
    pub(crate) fn rest(&mut self) {
        self.batch.shrink_to_fit();
        self.unanswered.shrink_to_fit();
        self.decisions.take_if(|decisions| decisions.is_empty());
    }

    /// Takes an event of the session itself.
    pub(crate) fn push_own(&mut self, event: Event) {
        // Mostly there is one, and many sessions may begin or end at once.
        if self.own.is_empty() {
            self.own.reserve_exact(1);
        }
        self.own.push(event);
    }

    /// The session is in the realms' state, under this incarnation of its entry.
    pub(crate) fn joined(&mut self, incarnation: Incarnation) {
        self.incarnation = Some(incarnation);
    }

    /// The session ends.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
    }

    /// The next errand, unless one is under way; its result comes with [`Ledger::done`]. `looked_at` tells how many bytes an
    /// event makes every node look at now, depending on whether it is compared with them.
    pub(crate) fn next(&mut self, looked_at: impl Fn(&Event, bool) -> usize) -> Option<Errand> {
        if self.busy {
            return None;
        }
        let errand = match (self.own.is_empty(), self.batch.is_empty()) {
            (true, true) => return None,
            (true, false) => self.next_of_clients(&looked_at),
            (false, false) if self.leaving => self.next_of_clients(&looked_at),
            // Its own events are few, and others wait for them; their outcome shows in the order.
            (false, _) => Errand::Submit(self.own_batch()),
        };
        self.busy = true;
        Some(errand)
    }

    fn next_of_clients(&mut self, looked_at: &impl Fn(&Event, bool) -> usize) -> Errand {
        let (count, compared) = self.next_events(looked_at);
        if compared > self.admitted.unwrap_or(0) {
            // If the number has grown meanwhile, the batch waits again.
            return Errand::Admit(compared);
        }
        self.admitted = None;
        Errand::Submit(self.clients_batch(count, compared))
    }

    /// How many of the next events go together, and the bytes that they make every node look at: one event, or no more of those
    /// bytes than there is room for. A client may have sent any number of events in one write, and the values that they are
    /// compared with may have grown while they waited for that room.
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

    /// Takes the result of the errand.
    pub(crate) fn done(&mut self, done: Done) {
        self.busy = false;
        if let Done::Admitted(bytes) = done {
            self.admitted = Some(bytes);
        }
    }

    /// Which publishes the gate may accept. `room` is what the node has room for, and `wills` says how many wills of the session
    /// are in the state.
    pub(crate) fn allowed(&self, room: Allowed, wills: impl FnOnce() -> usize) -> Allowed {
        let wills = !self.has_wills || wills() + self.unanswered() < limits::SESSION_WILLS;
        Allowed { wills, ..room }
    }

    fn unanswered(&self) -> usize {
        (self.next - self.answered) as usize
    }

    /// Bytes of the conditional publishes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.decisions().waiting
    }

    fn decisions(&self) -> &Decisions {
        self.decisions.as_deref().unwrap_or(&NO_DECISIONS)
    }

    fn decisions_mut(&mut self) -> &mut Decisions {
        self.decisions.get_or_insert_with(|| Box::new(Decisions::NONE))
    }

    /// Whether the entry has taken all of the client's publishes.
    pub(crate) fn is_idle(&self) -> bool {
        !self.busy && self.batch.is_empty()
    }

    /// Whether an answer is still to come: from the entry, or from the order without waiting for another client.
    pub(crate) fn is_owed(&self) -> bool {
        let waits_for_nobody = |conditional: &Option<Conditional>| {
            conditional.as_ref().is_none_or(|conditional| !conditional.terms.watch)
        };
        !self.is_answered()
            || self.decisions().waits.values().any(|(_, conditional)| waits_for_nobody(conditional))
    }

    /// Whether the entry has answered everything, and nothing is on its way there.
    pub(crate) fn is_answered(&self) -> bool {
        self.is_idle() && self.answered >= self.next
    }

    /// Whether the batch may grow: not if it makes all nodes look at as many bytes as this node may ask of them.
    pub(crate) fn may_grow(&self) -> bool {
        self.comparisons < limits::COMPARED_BYTES / limits::COMPARED_LEAST
    }

    /// Whether more may be taken from the client.
    pub(crate) fn has_room(&self) -> bool {
        self.is_idle()
            && self.unanswered() < limits::SESSION_UNANSWERED
            && self.unanswered.len() < limits::SESSION_BATCHES
            && self.unanswered_bytes < limits::SESSION_UNANSWERED_BYTES
            && self.decisions().undecided.len() + self.decisions().waits.len() < UNDECIDED
    }

    /// Whether this answer leaves unknown if an event will ever be decided. A publish may stand in a queue and block it, and a
    /// registration may be called, so the session has to end.
    pub(crate) fn loses_sight(&self, answer: &Answer) -> bool {
        let end = answer.first + u64::from(answer.count);
        answer.outcome == Err(PublishError::Unknown)
            && self.decisions().undecided.front().is_some_and(|(sequence, _)| *sequence < end)
    }

    /// The entry has answered; returns the decisions that had come before that.
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
        while self.decisions().undecided.front().is_some_and(|(sequence, _)| *sequence < end) {
            let decisions = self.decisions_mut();
            let Some((sequence, conditional)) = decisions.undecided.pop_front() else { break };
            // An event that is not stored is never decided.
            let Ok(stored) = &answer.outcome else {
                decisions.waits_no_more(conditional.as_ref());
                continue;
            };
            let position = Position(stored.position.0 + (sequence - answer.first));
            decisions.waits.insert(position, (sequence, conditional));
            if let Some(word) = decisions.early.remove(&position) {
                decided.extend(self.told(word));
            }
        }
        decided
    }

    /// Takes a signal about a publish or a registration.
    pub(crate) fn told(&mut self, word: Signal) -> Option<Decided> {
        match word {
            Signal::Decided { asked, decision } => {
                let decisions = self.decisions_mut();
                let Some((sequence, conditional)) = decisions.waits.remove(&asked) else {
                    decisions.keep_early(asked, word);
                    return None;
                };
                decisions.waits_no_more(conditional.as_ref());
                Some((sequence, outcome(decision)))
            }
            Signal::Turn { waiting } => {
                let decisions = self.decisions_mut();
                let Some((_, waits)) = decisions.waits.get(&waiting) else {
                    decisions.keep_early(waiting, word);
                    return None;
                };
                let conditional = waits.as_ref()?;
                let act = Act::Granted { waiting, terms: conditional.terms.clone() };
                let event = Event { act: act.encode(), ..conditional.event.clone() };
                self.own.push(event);
                None
            }
            Signal::Joined
            | Signal::FilterOutcome(_)
            | Signal::Released
            | Signal::Ended(_)
            | Signal::AddressBanned => None,
        }
    }
}

/// A decision in the gate's types.
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

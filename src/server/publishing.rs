//! A session's events on their way into the log, and what becomes of them.
//!
//! A publish without a condition is done when the entry has answered it. A conditional one is stored first, and its
//! fate is decided in the order: until then its event is kept here, because a turn in line is taken by publishing it
//! again. Registrations are stored and decided as well.
//!
//! Invariant: what waits here is bounded by the limits of a session.
//!
//! Deliberately absent: the socket and the gate.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::sync::mpsc;
use vulpes_raft::ids::{Incarnation, Position, Slot};
use vulpes_raft::mutant::{planted, Mutant};

use crate::entry::{AnswerTo, Batch, EntryClosed, EntryHandle, SESSION_ANSWERS};
use crate::gate::Allowed;
use crate::log::Log;
use crate::realm::{At, Decision, SharedRealms};
use crate::types::act::{Act, Terms};
use crate::types::answer::{Answer, PublishError, Stored};
use crate::types::event::{Event, SessionId};
use crate::types::limits;
use crate::types::value::Value;

use super::budget::{Account, Budget};
use super::desk::Word;

/// A decided publish: its sequence number and its fate.
pub(super) type Decided = (u64, Decision);

/// What of a session's events the order may have to decide still; past it, its socket is not read. Publishes alone never
/// fill it, because they may wait for what their own session does next.
const UNDECIDED: usize = limits::SESSION_WAITS + limits::SESSION_REGISTERS;

pub(super) struct Publishing {
    session: SessionId,
    incarnation: Option<Incarnation>,
    /// Events that the entry has not been handed.
    batch: VecDeque<Pushed>,
    /// How many of them compare something.
    comparisons: usize,
    /// Room for the bytes that the next of them make every node look at.
    admitted: Option<Account>,
    /// What batches hold of the room for such bytes, with the sequence number behind each, until this node has applied them.
    comparing: VecDeque<(u64, Account)>,
    /// The room for them, and for what waits.
    rooms: Rooms,
    /// What the publishes that wait hold of it.
    waiting: Account,
    waiting_bytes: usize,
    /// Some had a will.
    has_wills: bool,
    /// Sequence number of the next event.
    next: u64,
    /// Events before this one have been answered.
    answered: u64,
    /// Batches that are not answered whole: the sequence number behind each, and its bytes.
    unanswered: VecDeque<(u64, usize)>,
    unanswered_bytes: usize,
    answers: mpsc::Receiver<Answer>,
    answer_to: mpsc::Sender<Answer>,
    submitting: Option<BoxFuture<'static, Submitted>>,
    /// What the order decides and has no known place yet; of publishes, what is published again.
    undecided: VecDeque<(u64, Option<Conditional>)>,
    /// What the order has not decided, by its place.
    waits: BTreeMap<Position, (u64, Option<Conditional>)>,
    /// What the order said of places that the entry has not told of yet.
    early: BTreeMap<Position, Word>,
    /// What the session itself has to say, beside its client's publishes.
    own: Vec<Event>,
}

/// A client's event.
struct Pushed {
    event: Event,
    /// It is compared with a value, or merged into one.
    compares: bool,
}

/// A retained value from this size on counts as looked at itself: what is compared with it next is to find it applied.
const LARGE_VALUE: usize = 16 << 10;

impl Pushed {
    /// Bytes that it makes every node look at, as far as this node can tell by now.
    fn looked_at(&self, states: &SharedRealms) -> usize {
        let Self { event, compares } = self;
        let mut bytes = 0;
        if *compares || event.retain && states.has_lines() {
            bytes = states.with(|realms| realms.looked_at(&event.realm, &event.topic, *compares));
        }
        if *compares || bytes > 0 {
            bytes = bytes.max(limits::COMPARED_LEAST);
        }
        let own = event.payload.len();
        bytes.max(if event.retain && own > LARGE_VALUE { own } else { 0 })
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

/// The room that all sessions of a node share for conditional publishes.
#[derive(Clone)]
pub(super) struct Rooms {
    /// For bytes that every node looks at ([`limits::COMPARED_BYTES`]).
    pub(super) compared: Budget,
    /// For publishes that wait ([`limits::WAITS_BYTES`]).
    pub(super) waits: Budget,
}

impl Default for Rooms {
    fn default() -> Self {
        let (compared, waits) = (limits::COMPARED_BYTES, limits::WAITS_BYTES);
        Self { compared: Budget::new(compared), waits: Budget::new(waits) }
    }
}

/// What has come of handing events to the entry.
enum Submitted {
    /// There is room for what the next ones make every node look at.
    Admitted(Account),
    /// A batch was handed over, with what it holds until it is applied.
    Batch(Option<Account>),
    Closed,
}

impl Publishing {
    pub(super) fn new(session: SessionId, rooms: Rooms) -> Self {
        let (answer_to, answers) = mpsc::channel(SESSION_ANSWERS);
        Self {
            session,
            incarnation: None,
            batch: VecDeque::new(),
            comparisons: 0,
            admitted: None,
            comparing: VecDeque::new(),
            waiting: rooms.waits.account(),
            rooms,
            waiting_bytes: 0,
            has_wills: false,
            next: 0,
            answered: 0,
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            answers,
            answer_to,
            submitting: None,
            undecided: VecDeque::new(),
            waits: BTreeMap::new(),
            early: BTreeMap::new(),
            own: Vec::new(),
        }
    }

    /// Takes a client's event.
    pub(super) fn push(&mut self, event: Event) {
        let act = Some(&event.act).filter(|act| !act.is_empty());
        let act = act.and_then(|act| Act::decode(act));
        let terms = match &act {
            Some(Act::Publish(terms)) => Some(terms),
            _ => None,
        };
        self.has_wills |= terms.is_some_and(|terms| terms.will.is_some());
        let compares = terms.is_some_and(|terms| terms.merge || terms.when.is_some());
        self.comparisons += usize::from(compares);
        let act = act.filter(Act::is_decided);
        if let Some(act) = act {
            let sequence = self.next + self.batch.len() as u64;
            let conditional = match act {
                Act::Publish(terms) => Some(Conditional { event: event.clone(), terms }),
                _ => None,
            };
            self.waits_for(conditional.as_ref().map_or(0, Conditional::held));
            self.undecided.push_back((sequence, conditional));
        }
        self.batch.push_back(Pushed { event, compares });
    }

    /// Takes an event of the session's own.
    pub(super) fn push_own(&mut self, event: Event) {
        self.own.push(event);
    }

    /// Hands what has gathered to the entry, if it is not busy with what came before.
    pub(super) fn submit(&mut self, entry: &EntryHandle, states: &SharedRealms) {
        if self.submitting.is_some() {
            return;
        }
        // Its own are few, and others wait for them; what becomes of them is seen in the order.
        if !self.own.is_empty() {
            let events = std::mem::take(&mut self.own);
            return self.hand_over(entry, self.batch_of(0, events, None), None);
        }
        let (count, compared) = self.next_events(states);
        if count == 0 {
            return;
        }
        if compared > 0 && self.admitted.is_none() {
            let mut account = self.rooms.compared.account();
            let admitted = async move {
                poll_fn(|context| account.poll_take(compared, context)).await;
                Submitted::Admitted(account)
            };
            self.submitting = Some(admitted.boxed());
            return;
        }
        let comparisons = self.batch.iter().take(count).filter(|one| one.compares).count();
        self.comparisons -= comparisons;
        let mut events: Vec<Event> = self.batch.drain(..count).map(|one| one.event).collect();
        if planted(Mutant::ReorderPublisher) {
            events.reverse();
        }
        let first = self.next;
        self.next += events.len() as u64;
        let bytes = events.iter().map(Event::held).sum();
        self.unanswered.push_back((self.next, bytes));
        self.unanswered_bytes += bytes;
        let batch = self.batch_of(first, events, Some(self.answer_to.clone()));
        let mut account = self.admitted.take();
        if let Some(account) = &mut account {
            account.overdraw(compared);
            account.keep(compared);
        }
        self.hand_over(entry, batch, account);
    }

    fn hand_over(&mut self, entry: &EntryHandle, batch: Batch, account: Option<Account>) {
        let entry = entry.clone();
        let submit = async move {
            match entry.submit(batch).await {
                Ok(()) => Submitted::Batch(account),
                Err(EntryClosed) => Submitted::Closed,
            }
        };
        self.submitting = Some(submit.boxed());
    }

    /// How many of the next events go together, and the bytes that they make every node look at: one event, or no more of
    /// those bytes than there is room for. A client may have sent any number of events in one write, and what they look at
    /// may have grown while they waited for that room.
    fn next_events(&self, states: &SharedRealms) -> (usize, usize) {
        let room = self.admitted.as_ref().map_or(limits::COMPARED_BYTES, Account::held);
        let (mut count, mut compared) = (0, 0);
        for one in &self.batch {
            let bytes = one.looked_at(states);
            if count > 0 && bytes > 0 && compared + bytes > room {
                break;
            }
            count += 1;
            compared += bytes;
        }
        (count, compared)
    }

    /// So many bytes more wait, or no more.
    fn waits_for(&mut self, bytes: usize) {
        self.waiting_bytes += bytes;
        self.waiting.overdraw(self.waiting_bytes);
    }

    fn waits_no_more(&mut self, conditional: Option<&Conditional>) {
        self.waiting_bytes -= conditional.map_or(0, Conditional::held);
        self.waiting.keep(self.waiting_bytes);
    }

    /// What there is room for. `wills` tells how many wills of the session are known.
    pub(super) fn allowed(&self, wills: impl FnOnce() -> usize) -> Allowed {
        let unanswered = (self.next - self.answered) as usize;
        Allowed {
            waits: !self.rooms.waits.is_used_up(),
            wills: !self.has_wills || wills() + unanswered < limits::SESSION_WILLS,
        }
    }

    /// What batches hold whose events have been answered, with the slot that has to be applied first.
    pub(super) fn compared(&mut self, answer: &Answer) -> Vec<(Slot, Account)> {
        let end = answer.first + u64::from(answer.count);
        let mut compared = Vec::new();
        while self.comparing.front().is_some_and(|(behind, _)| *behind <= end) {
            let Some((_, account)) = self.comparing.pop_front() else { break };
            if let Ok(stored) = &answer.outcome {
                compared.push((stored.slot, account));
            }
        }
        compared
    }

    fn submitted(&mut self, submitted: Submitted) -> Result<(), EntryClosed> {
        match submitted {
            Submitted::Admitted(account) => self.admitted = Some(account),
            Submitted::Batch(Some(account)) => self.comparing.push_back((self.next, account)),
            Submitted::Batch(None) => {}
            Submitted::Closed => return Err(EntryClosed),
        }
        Ok(())
    }

    fn batch_of(&self, first: u64, events: Vec<Event>, answers: AnswerTo) -> Batch {
        let (session, incarnation) = (self.session, self.incarnation);
        Batch { session, incarnation, first, events, answers }
    }

    /// The session is known to all, in this incarnation of its entry.
    pub(super) fn joined(&mut self, incarnation: Incarnation) {
        self.incarnation = Some(incarnation);
    }

    /// Hands the rest of what the client said to the entry, and then the session's last words.
    pub(super) async fn finish(
        &mut self,
        entry: &EntryHandle,
        (log, states): (&Log, &SharedRealms),
    ) {
        let last_words = std::mem::take(&mut self.own);
        let mut last_words = Some(last_words);
        loop {
            if let Some(submitting) = self.submitting.take() {
                // A closed entry is a node that ends, and with it all its sessions.
                let submitted = submitting.await;
                if self.submitted(submitted).is_err() {
                    return;
                }
            }
            if self.batch.is_empty() {
                let Some(last_words) = last_words.take() else { break };
                self.own = last_words;
            }
            self.submit(entry, states);
        }
        // Who comes and goes is no reason to give its room to the next one before it is applied.
        self.answer_to = mpsc::channel(1).0;
        while !self.comparing.is_empty() {
            let Some(answer) = self.answers.recv().await else { return };
            for (slot, account) in self.compared(&answer) {
                log.reached(slot).await;
                drop(account);
            }
        }
    }

    /// Whether the entry has taken all that was handed to it.
    pub(super) fn is_idle(&self) -> bool {
        self.submitting.is_none() && self.batch.is_empty()
    }

    /// Whether the entry has something to answer still.
    pub(super) fn is_owed(&self) -> bool {
        !self.is_idle() || self.answered < self.next
    }

    /// Whether the batch may grow: not where it makes all nodes read as much as they may have to read for this node.
    pub(super) fn may_grow(&self) -> bool {
        self.comparisons < limits::COMPARED_BYTES / limits::COMPARED_LEAST
    }

    /// Whether more may be taken from the client.
    pub(super) fn has_room(&self) -> bool {
        self.submitting.is_none()
            && self.batch.is_empty()
            && self.next - self.answered < limits::SESSION_UNANSWERED as u64
            && self.unanswered.len() < limits::SESSION_BATCHES
            && self.unanswered_bytes < limits::SESSION_UNANSWERED_BYTES
            && self.undecided.len() + self.waits.len() < UNDECIDED
    }

    pub(super) fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Answer> {
        match self.answers.poll_recv(context) {
            Poll::Ready(Some(answer)) => Poll::Ready(answer),
            // It holds a sender itself: the channel is never closed.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    pub(super) fn try_answer(&mut self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    pub(super) fn poll_submitted(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), EntryClosed>> {
        let Some(submitting) = &mut self.submitting else { return Poll::Pending };
        let result = std::task::ready!(submitting.poll_unpin(context));
        self.submitting = None;
        Poll::Ready(self.submitted(result))
    }

    /// Whether this answer leaves it unknown if something will ever be decided: a publish may stand in a line and hold that
    /// up, a registration may be called, so the session has to end.
    pub(super) fn loses_sight(&self, answer: &Answer) -> bool {
        let end = answer.first + u64::from(answer.count);
        answer.outcome == Err(PublishError::Unknown)
            && self.undecided.front().is_some_and(|(sequence, _)| *sequence < end)
    }

    /// The entry has answered; gives what the order had decided before that.
    pub(super) fn answered(&mut self, answer: &Answer) -> Vec<Decided> {
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

    /// The order has said something about a conditional publish.
    pub(super) fn told(&mut self, word: Word) -> Option<Decided> {
        match word {
            Word::Decided { asked, decision } => {
                let Some((sequence, conditional)) = self.waits.remove(&asked) else {
                    self.keep_early(asked, word);
                    return None;
                };
                self.waits_no_more(conditional.as_ref());
                Some((sequence, decision))
            }
            Word::Turn { waiting } => {
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
            Word::Joined | Word::Noted(_) | Word::Released | Word::Ended(_) => None,
        }
    }

    /// A place of which the entry says nothing because it gave up waiting is dropped with the oldest.
    fn keep_early(&mut self, position: Position, word: Word) {
        self.early.insert(position, word);
        if self.early.len() > limits::SESSION_WORDS {
            self.early.pop_first();
        }
    }
}

/// A place in the gates' terms.
pub(super) fn stored(at: At) -> Stored {
    Stored { position: at.position, slot: at.slot, stamp: at.stamp, offset: at.offset }
}

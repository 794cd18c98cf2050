//! A session's way to the entry: its batches go there, and their answers come back.
//!
//! Invariant: the room that a session's publishes hold of what all sessions of a node share is given back when this node has
//! applied them, or when they wait no more.
//!
//! Deliberately absent: the content of publishes, and the meaning of answers (`session::ledger`).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::sync::mpsc;
use vulpes_raft::ids::Slot;

use crate::entry::{self, EntryClosed, EntryHandle, SESSION_ANSWERS};
use crate::log::Log;
use crate::realm::SharedRealms;
use crate::session::ledger::{Batch, Done, Errand, Ledger};
use crate::types::answer::Answer;
use crate::types::event::{Event, SessionId};
use crate::types::limits;

use super::budget::{Account, Budget};

pub(super) struct Publishing {
    session: SessionId,
    rooms: Rooms,
    /// What it holds of them. Most clients publish nothing that needs room.
    held: Option<Box<Held>>,
    /// Present while something is to be answered: a client that publishes nothing has none.
    answers: Option<Answers>,
    busy: Option<BoxFuture<'static, Finished>>,
}

/// What a session holds of the room for conditional publishes.
struct Held {
    /// What batches hold of the room for bytes that every node looks at, with the sequence number after each, until this node
    /// has applied them.
    comparing: VecDeque<(u64, Account)>,
    /// Room for the bytes that the next batch makes every node look at.
    admitted: Option<Account>,
    /// What the waiting publishes hold of the room for those.
    waiting: Account,
}

/// The channel for a session's answers.
struct Answers {
    to: mpsc::Sender<Answer>,
    from: mpsc::Receiver<Answer>,
}

impl Default for Answers {
    fn default() -> Self {
        let (to, from) = mpsc::channel(SESSION_ANSWERS);
        Self { to, from }
    }
}

/// The room that all sessions of a node share for conditional publishes.
#[derive(Clone)]
pub(crate) struct Rooms {
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

/// The result of an errand, with the room held for it.
enum Finished {
    Admitted(Account),
    /// With the room that the batch holds until it is applied, and the sequence number after it.
    Submitted(Option<(u64, Account)>),
    Closed,
}

impl Publishing {
    pub(super) fn new(session: SessionId, rooms: Rooms) -> Self {
        Self { session, rooms, held: None, answers: None, busy: None }
    }

    fn held(&mut self) -> &mut Held {
        let waits = &self.rooms.waits;
        self.held.get_or_insert_with(|| {
            let (comparing, admitted) = (VecDeque::new(), None);
            Box::new(Held { comparing, admitted, waiting: waits.account() })
        })
    }

    fn is_comparing(&self) -> bool {
        self.held.as_ref().is_some_and(|held| !held.comparing.is_empty())
    }

    /// Lets go of the way for answers, and of what holds nothing. There must be nothing to be answered.
    pub(super) fn rest(&mut self) {
        if !self.is_comparing() && self.busy.is_none() {
            self.answers = None;
            self.held.take_if(|held| held.admitted.is_none() && held.waiting.held() == 0);
        }
    }

    /// The waiting publishes have this many bytes.
    pub(super) fn count_waiting(&mut self, bytes: usize) {
        if bytes > 0 || self.held.is_some() {
            let waiting = &mut self.held().waiting;
            waiting.overdraw(bytes);
            waiting.keep(bytes);
        }
    }

    /// Begins an errand of the ledger. None may be under way.
    pub(super) fn begin(&mut self, errand: Errand, entry: &EntryHandle) {
        let batch = match errand {
            Errand::Submit(batch) => batch,
            Errand::Admit(bytes) => {
                // A session that waits holds nothing meanwhile.
                self.held().admitted = None;
                let mut account = self.rooms.compared.account();
                let admit = async move {
                    poll_fn(|context| account.poll_take(bytes, context)).await;
                    Finished::Admitted(account)
                };
                return self.busy = Some(admit.boxed());
            }
        };
        let Batch { incarnation, first, events, answered, compared } = batch;
        // The session's own events need no room; what was admitted is for the client's events.
        let mut account =
            if answered { self.held.as_mut().and_then(|held| held.admitted.take()) } else { None };
        if let Some(account) = &mut account {
            account.keep(compared);
        }
        let behind = first + events.len() as u64;
        let answers = answered.then(|| self.answers.get_or_insert_default().to.clone());
        let batch = entry::Batch { session: self.session, incarnation, first, events, answers };
        let entry = entry.clone();
        let submit = async move {
            match entry.submit(batch).await {
                Ok(()) => Finished::Submitted(account.map(|account| (behind, account))),
                Err(EntryClosed) => Finished::Closed,
            }
        };
        self.busy = Some(submit.boxed());
    }

    /// Whether the node has room for more waiting publishes.
    pub(super) fn has_room_to_wait(&self) -> bool {
        !self.rooms.waits.is_used_up()
    }

    /// Gives back the room of batches whose events have been answered, once they are applied.
    pub(super) fn give_back(&mut self, answer: &Answer, log: &Log) {
        for (slot, account) in self.compared(answer) {
            let log = log.clone();
            tokio::spawn(async move {
                log.reached(slot).await;
                drop(account);
            });
        }
    }

    /// The room of batches whose events have been answered, with the slot that has to be applied first.
    fn compared(&mut self, answer: &Answer) -> Vec<(Slot, Account)> {
        let end = answer.first + u64::from(answer.count);
        let mut compared = Vec::new();
        let Some(Held { comparing, .. }) = self.held.as_deref_mut() else { return compared };
        while comparing.front().is_some_and(|(behind, _)| *behind <= end) {
            let Some((_, account)) = comparing.pop_front() else { break };
            if let Ok(stored) = &answer.outcome {
                compared.push((stored.slot, account));
            }
        }
        compared
    }

    /// Hands the rest of the client's events to the entry, and then the session's own last events.
    pub(super) async fn finish(
        &mut self,
        ledger: &mut Ledger,
        entry: &EntryHandle,
        (log, states): (&Log, &SharedRealms),
    ) {
        ledger.leave();
        loop {
            if let Some(errand) = ledger.next(|event, compares| looked_at(states, event, compares))
            {
                self.begin(errand, entry);
            }
            let next = poll_fn(|context| match self.poll_answer(context) {
                Poll::Ready(answer) => Poll::Ready(Err(answer)),
                Poll::Pending => self.poll_done(context).map(Ok),
            });
            match next.await {
                // An errand that waits for room may wait for what this session holds itself.
                Err(answer) => self.give_back(&answer, log),
                Ok(None) => break,
                // A closed entry means that the node ends, and with it all its sessions.
                Ok(Some(Done::Closed)) => return,
                Ok(Some(done)) => ledger.done(done),
            }
        }
        // A session that ends must not free its room for others before its batches are applied.
        let Some(Answers { to, mut from }) = self.answers.take() else { return };
        drop(to);
        while self.is_comparing() {
            let Some(answer) = from.recv().await else { return };
            self.give_back(&answer, log);
        }
    }

    pub(super) fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Answer> {
        match self.answers.as_mut().map(|answers| answers.from.poll_recv(context)) {
            Some(Poll::Ready(Some(answer))) => Poll::Ready(answer),
            // The session has a sender itself: the channel is never closed.
            Some(Poll::Ready(None) | Poll::Pending) | None => Poll::Pending,
        }
    }

    pub(super) fn try_answer(&mut self) -> Option<Answer> {
        self.answers.as_mut()?.from.try_recv().ok()
    }

    /// Ready when the errand is done; with `None` if none is under way.
    pub(super) fn poll_done(&mut self, context: &mut Context<'_>) -> Poll<Option<Done>> {
        let Some(busy) = &mut self.busy else { return Poll::Ready(None) };
        let finished = std::task::ready!(busy.poll_unpin(context));
        self.busy = None;
        Poll::Ready(Some(match finished {
            Finished::Admitted(account) => {
                let held = account.held();
                self.held().admitted = Some(account);
                Done::Admitted(held)
            }
            Finished::Submitted(compared) => {
                if let Some(compared) = compared {
                    self.held().comparing.push_back(compared);
                }
                Done::Submitted
            }
            Finished::Closed => Done::Closed,
        }))
    }
}

/// Bytes that an event makes every node look at, in addition to its own.
pub(super) fn looked_at(states: &SharedRealms, event: &Event, compares: bool) -> usize {
    if !compares && !states.has_lines() {
        return 0;
    }
    states.with(|realms| realms.looked_at(&event.realm, &event.topic, compares))
}

//! The segment writer: batches go into the open segment, one after the other.
//!
//! Invariant: events are in segments in the order in which their batches came. At most one batch is partly written, and no
//! other is accepted meanwhile.
//!
//! Deliberately absent: when a segment is sealed, which depends on credit (`core`).

use std::collections::VecDeque;
use std::mem;
use std::vec;

use vulpes_raft::ids::{AdvanceSegment, Shard};

use super::tickets::{Part, Tickets};
use super::{deadline_of, Batch, Output};
use crate::segment::{OpenSegment, SealedBody};
use crate::types::answer::PublishError;
use crate::types::event::Event;
use crate::types::limits;
use crate::types::moment::Moment;

/// The open segment, and the batch that waits for the next one.
#[derive(Debug)]
pub(super) struct Writer<A> {
    open: OpenSegment,
    tickets: Tickets<A>,
    rest: Option<Rest<A>>,
    /// Tickets of events that were never sealed and never will be. Answered after everything sealed before.
    discarded: Tickets<A>,
    /// Size in bytes at which the open segment takes no more events.
    target: usize,
    /// The latest submission time seen. Sessions timestamp their batches themselves, so two may arrive slightly out
    /// of order; they then count as simultaneous.
    newest: Moment,
}

/// The part of a batch that is not written yet.
#[derive(Debug)]
struct Rest<A> {
    answers: A,
    /// The session's sequence number of the next event.
    first: u64,
    events: vec::IntoIter<Event>,
    submitted: Moment,
}

impl<A> Default for Writer<A> {
    fn default() -> Self {
        Self {
            open: OpenSegment::default(),
            tickets: Tickets::default(),
            rest: None,
            discarded: Tickets::default(),
            target: limits::SEGMENT_TARGET,
            newest: Moment::default(),
        }
    }
}

impl<A: Clone> Writer<A> {
    /// Sets the segments' target size.
    pub(super) fn aim_at(&mut self, target: usize) {
        self.target = target;
    }

    /// Whether a batch still waits for room, so that no other can be taken.
    pub(super) fn is_full(&self) -> bool {
        self.rest.is_some()
    }

    /// Events in the open segment.
    pub(super) fn open_events(&self) -> u32 {
        self.open.count()
    }

    /// Size in bytes of the open segment as a body.
    pub(super) fn open_size(&self) -> usize {
        self.open.size()
    }

    /// Events not sealed yet whose publishers wait for an answer.
    pub(super) fn unanswered(&self) -> u64 {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.events.len() as u64);
        self.discarded.events() + self.tickets.events() + rest
    }

    /// When the oldest ticket expires.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let rest = self.rest.as_ref().map(|rest| deadline_of(rest.submitted));
        self.discarded.deadline().or(self.tickets.deadline()).or(rest)
    }

    /// Takes a batch; [`Writer::fill`] writes it.
    pub(super) fn take(&mut self, batch: Batch<A>, submitted: Moment) {
        assert!(self.rest.is_none(), "no batch is taken while another waits for room");
        if batch.events.is_empty() {
            return;
        }
        self.newest = self.newest.max(submitted);
        let Batch { answers, first, events, session: _, incarnation: _ } = batch;
        let events = events.into_iter();
        self.rest = Some(Rest { answers, first, events, submitted: self.newest });
    }

    /// Writes waiting events into the open segment, as far as there is room. `false`: it has to be sealed first.
    pub(super) fn fill(&mut self) -> bool {
        let Some(mut rest) = self.rest.take() else { return true };
        let offset = self.open.count();
        while let Some(event) = rest.events.as_slice().first() {
            if self.open.size() >= self.target || self.open.push(event).is_err() {
                break;
            }
            rest.events.next();
        }
        assert!(self.open.count() > 0, "gates refuse events that don't fit an empty segment");
        let count = self.open.count() - offset;
        let (first, submitted) = (rest.first, rest.submitted);
        rest.first += u64::from(count);
        let done = rest.events.as_slice().is_empty();
        if done {
            self.tickets.push(Part { answers: rest.answers, first, count, offset, submitted });
            return true;
        }
        if count > 0 {
            let answers = rest.answers.clone();
            self.tickets.push(Part { answers, first, count, offset, submitted });
        }
        self.rest = Some(rest);
        false
    }

    /// Seals the open segment and begins another.
    pub(super) fn seal(&mut self, id: AdvanceSegment, shard: Shard) -> (SealedBody, Tickets<A>) {
        assert!(self.open.count() > 0, "a segment begins with its first event");
        let body = mem::take(&mut self.open).seal(id, shard);
        (body, mem::take(&mut self.tickets))
    }

    /// Answers expired tickets. Events already written stay and may still be ordered. Events that had no room yet are dropped,
    /// so that after an outage no backlog of events remains whose publishers have given up.
    pub(super) fn expire(&mut self, now: Moment, outputs: &mut VecDeque<Output<A>>) -> u64 {
        let mut expired = self.discarded.expire(now, None, outputs);
        expired += self.tickets.expire(now, None, outputs);
        if self.rest.as_ref().is_some_and(|rest| deadline_of(rest.submitted) <= now) {
            expired += self.give_up_rest(outputs);
        }
        expired
    }

    /// Answers everything with an unknown outcome, because the entry ends.
    pub(super) fn end(&mut self, outputs: &mut VecDeque<Output<A>>) {
        self.discarded.answer(Err(PublishError::Unknown), outputs);
        self.tickets.answer(Err(PublishError::Unknown), outputs);
        self.give_up_rest(outputs);
    }

    /// Drops everything unsealed: it is not stored and never will be.
    pub(super) fn discard(&mut self) {
        self.open = OpenSegment::default();
        // A batch that came too late for its incarnation may have been discarded before the written ones.
        self.discarded.merge(mem::take(&mut self.tickets));
        self.discard_rest();
    }

    /// Drops the batch that waits for room.
    pub(super) fn discard_rest(&mut self) {
        if let Some(part) = self.take_rest() {
            self.discarded.push(part);
        }
    }

    /// Answers what was discarded, once everything sealed before it has been answered.
    pub(super) fn settle(&mut self, outputs: &mut VecDeque<Output<A>>) {
        self.discarded.answer(Err(PublishError::NotStored), outputs);
    }

    fn give_up_rest(&mut self, outputs: &mut VecDeque<Output<A>>) -> u64 {
        let Some(part) = self.take_rest() else { return 0 };
        let count = part.count;
        outputs.push_back(part.answered(Err(PublishError::Unknown)));
        u64::from(count)
    }

    fn take_rest(&mut self) -> Option<Part<A>> {
        let Rest { answers, first, events, submitted } = self.rest.take()?;
        let count = u32::try_from(events.len()).expect("a batch is under the session's limit");
        Some(Part { answers, first, count, offset: 0, submitted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::core::tests::event;
    use crate::types::event::SessionId;

    fn batch(answers: u8) -> Batch<u8> {
        let events = vec![event(1, "x".into())];
        Batch { session: SessionId(1), incarnation: None, first: 0, events, answers }
    }

    #[test]
    fn a_batch_that_came_too_late_is_discarded_ahead_of_older_ones() {
        let mut writer = Writer::default();
        writer.take(batch(b'a'), Moment(1));
        assert!(writer.fill());
        writer.take(batch(b'b'), Moment(2));
        writer.discard_rest();
        writer.discard();
        assert_eq!((writer.unanswered(), writer.deadline()), (2, Some(deadline_of(Moment(1)))));
        let mut outputs = VecDeque::new();
        writer.settle(&mut outputs);
        let told = outputs.iter().map(|output| match output {
            Output::Answer { to, answer } => (*to, answer.outcome),
            other => panic!("{other:?}"),
        });
        let not_stored = Err(PublishError::NotStored);
        assert_eq!(told.collect::<Vec<_>>(), [(b'a', not_stored), (b'b', not_stored)]);
        assert_eq!(writer.unanswered(), 0);
    }
}

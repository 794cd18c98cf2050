//! Tickets: which sessions wait for the outcome of which events of one segment.
//!
//! Invariant: a part is answered once, and parts are answered in the order in which they were written, which is the
//! order of each session. Submission times never decrease from part to part.
//!
//! Deliberately absent: a ticket per event. A part covers a whole run of them.

use std::collections::VecDeque;

use vulpes_raft::ids::Position;
use vulpes_raft::order::Place;

use super::{deadline_of, Output};
use crate::types::answer::{Answer, PublishError, Stored};
use crate::types::moment::Moment;

/// A run of consecutive publishes of one session within one segment.
#[derive(Debug)]
pub(super) struct Part<A> {
    pub(super) answers: A,
    /// The session's sequence number of the first.
    pub(super) first: u64,
    pub(super) count: u32,
    /// Offset of the first within the segment.
    pub(super) offset: u32,
    pub(super) submitted: Moment,
}

/// The unanswered parts of one segment.
#[derive(Debug)]
pub(super) struct Tickets<A> {
    parts: VecDeque<Part<A>>,
    events: u64,
}

impl<A> Default for Tickets<A> {
    fn default() -> Self {
        Self { parts: VecDeque::new(), events: 0 }
    }
}

impl<A> Tickets<A> {
    pub(super) fn push(&mut self, part: Part<A>) {
        let newest = self.parts.back().map_or(Moment::default(), |last| last.submitted);
        assert!(part.submitted >= newest, "the writer keeps moments in order");
        self.events += u64::from(part.count);
        self.parts.push_back(part);
    }

    /// Adds others, which may be older than some existing ones.
    pub(super) fn merge(&mut self, others: Self) {
        self.events += others.events;
        self.parts.extend(others.parts);
        self.parts.make_contiguous().sort_by_key(|part| part.submitted);
    }

    /// Events whose publishers wait for an answer.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// When the oldest part expires.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.parts.front().map(|part| deadline_of(part.submitted))
    }

    /// Answers everything unanswered.
    pub(super) fn answer(
        &mut self,
        outcome: Result<Place, PublishError>,
        outputs: &mut VecDeque<Output<A>>,
    ) {
        while let Some(part) = self.take() {
            outputs.push_back(part.answered(outcome));
        }
    }

    /// Answers the parts that have expired with what is known now. Returns how many events they have.
    pub(super) fn expire(
        &mut self,
        now: Moment,
        place: Option<Place>,
        outputs: &mut VecDeque<Output<A>>,
    ) -> u64 {
        let before = self.events;
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            let Some(part) = self.take() else { break };
            outputs.push_back(part.answered(place.ok_or(PublishError::Unknown)));
        }
        before - self.events
    }

    fn take(&mut self) -> Option<Part<A>> {
        let part = self.parts.pop_front()?;
        self.events -= u64::from(part.count);
        Some(part)
    }
}

impl<A> Part<A> {
    pub(super) fn answered(self, outcome: Result<Place, PublishError>) -> Output<A> {
        let outcome = outcome.map(|place| Stored {
            position: Position(place.base.0 + u64::from(self.offset)),
            slot: place.slot,
            stamp: place.stamp,
            offset: self.offset,
        });
        let answer = Answer { first: self.first, count: self.count, outcome };
        Output::Answer { to: self.answers, answer }
    }
}

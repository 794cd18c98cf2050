//! Sealed segments of one incarnation that are not in the order yet: their votes, proposals and tickets.
//!
//! Invariant: numbers are dense from the front on. A segment is proposed with a quorum of storage votes, or early; in the early
//! case sync ensures that a quorum has the body once the segment is in the order. It is proposed only when every earlier one is
//! placed, is proposed, or is in the same call. Tickets are answered in number order.
//!
//! Deliberately absent: when to propose or send again (`core`), and which storage has credit (`storages`).

use std::collections::VecDeque;

use vulpes_raft::ids::{AdvanceSegment, Incarnation, NodeId, Shard};
use vulpes_raft::mutant::{planted, Mutant};
use vulpes_raft::order::{Place, SealedSegment, StorageGroups};

use super::tickets::Tickets;
use super::Output;
use crate::segment::SealedBody;
use crate::types::answer::PublishError;
use crate::types::limits;
use crate::types::moment::Moment;

/// The sealed segments that are not in the order yet, in number order.
#[derive(Debug)]
pub(super) struct Pending<A> {
    segments: VecDeque<Sealed<A>>,
    bytes: usize,
}

#[derive(Debug)]
struct Sealed<A> {
    body: SealedBody,
    /// The storages that voted, ascending.
    votes: Vec<NodeId>,
    /// The votes are a quorum.
    appended: bool,
    /// It may be proposed without votes.
    early: bool,
    stage: Stage,
    tickets: Tickets<A>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Votes are lacking.
    Collecting,
    /// It can be proposed: a quorum of storages has it, or it may go early.
    Ready,
    /// It is part of this call.
    Proposed(u64),
    /// It has been placed; an earlier one is not known to be placed yet.
    Placed(Place),
}

/// The result of placing a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placing {
    /// It is placed, now or already before, or is no longer pending here. This many segments and events are settled with it.
    Done { segments: u64, events: u64 },
    /// Another body with this name was placed.
    Conflict,
}

impl<A> Default for Pending<A> {
    fn default() -> Self {
        Self { segments: VecDeque::new(), bytes: 0 }
    }
}

impl<A> Sealed<A> {
    fn count(&mut self, groups: &StorageGroups) {
        let is_quorum =
            groups.of(self.body.shard).is_some_and(|group| group.is_quorum(&self.votes));
        let too_few = planted(Mutant::AcknowledgeBeforeQuorum) && !self.votes.is_empty();
        self.appended = is_quorum || too_few;
        if matches!(self.stage, Stage::Collecting | Stage::Ready) {
            self.unpropose();
        }
    }

    /// Makes it wait for missing votes, or for the next proposal.
    fn unpropose(&mut self) {
        self.stage = if self.appended || self.early { Stage::Ready } else { Stage::Collecting };
    }
}

impl<A> Pending<A> {
    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Bytes of all bodies.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Their common incarnation.
    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.segments.front().map(|segment| segment.body.id.incarnation)
    }

    /// Events whose publishers wait for an answer.
    pub(super) fn unanswered(&self) -> u64 {
        self.segments.iter().map(|segment| segment.tickets.events()).sum()
    }

    /// When the oldest ticket expires.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.segments.iter().find_map(|segment| segment.tickets.deadline())
    }

    /// Whether a segment of this size may be sealed.
    pub(super) fn has_room(&self, size: usize) -> bool {
        self.segments.len() < limits::ENTRY_PENDING
            && self.bytes + size <= limits::ENTRY_PENDING_BYTES
    }

    /// Takes a segment that was just sealed.
    pub(super) fn push(&mut self, body: SealedBody, tickets: Tickets<A>, early: bool) {
        if let Some(last) = self.segments.back() {
            let next = AdvanceSegment { number: last.body.id.number.next(), ..last.body.id };
            assert_eq!(body.id, next, "numbers are dense within an incarnation");
        }
        assert!(self.has_room(body.body.len()), "sealing waits for room");
        self.bytes += body.body.len();
        self.segments.push_back(Sealed {
            body,
            votes: Vec::new(),
            appended: false,
            early,
            stage: if early { Stage::Ready } else { Stage::Collecting },
            tickets,
        });
    }

    /// The segments to send to storages, with their votes: those that lack a quorum, and early ones to every storage,
    /// because sync members wait for them.
    pub(super) fn lacking(&self) -> impl Iterator<Item = (&SealedBody, &[NodeId])> {
        self.segments
            .iter()
            .filter(|segment| segment.early || !segment.appended)
            .filter(|segment| !matches!(segment.stage, Stage::Placed(_)))
            .map(|segment| (&segment.body, segment.votes.as_slice()))
    }

    /// The shard of the oldest segment, if that lacks votes.
    pub(super) fn collecting(&self) -> Option<Shard> {
        let oldest = self.segments.front().filter(|oldest| oldest.stage == Stage::Collecting);
        oldest.map(|oldest| oldest.body.shard)
    }

    /// The body of a segment that is not in the order yet.
    pub(super) fn body(&self, id: AdvanceSegment) -> Option<&SealedBody> {
        self.index(id).map(|at| &self.segments[at].body)
    }

    /// Counts a storage vote.
    pub(super) fn vote(&mut self, id: AdvanceSegment, storage: NodeId, groups: &StorageGroups) {
        let Some(at) = self.index(id) else { return };
        let segment = &mut self.segments[at];
        if let Err(place) = segment.votes.binary_search(&storage) {
            segment.votes.insert(place, storage);
        }
        segment.count(groups);
    }

    /// Recounts all votes, because the groups changed.
    pub(super) fn recount(&mut self, groups: &StorageGroups) {
        for segment in &mut self.segments {
            segment.count(groups);
        }
    }

    /// Takes the segments that can be proposed now into a call: a run of ready segments with no gap before it. Early segments
    /// are proposed without votes.
    pub(super) fn propose(&mut self, call: u64) -> Vec<SealedSegment> {
        let mut proposal = Vec::new();
        for segment in &mut self.segments {
            match segment.stage {
                Stage::Placed(_) | Stage::Proposed(_) => {}
                Stage::Collecting => break,
                Stage::Ready => {
                    segment.stage = Stage::Proposed(call);
                    let votes = if segment.appended { segment.votes.clone() } else { Vec::new() };
                    proposal.push(segment.body.proposal(votes));
                }
            }
        }
        proposal
    }

    /// A segment of this call has to be proposed again.
    pub(super) fn propose_again(&mut self, id: AdvanceSegment, call: u64) {
        let Some(at) = self.index(id) else { return };
        let segment = &mut self.segments[at];
        if segment.stage == Stage::Proposed(call) {
            segment.unpropose();
        }
    }

    /// Sync does not accept a segment early: the segment waits for votes from now on. `false` if it already did.
    pub(super) fn wait_for_votes(&mut self, id: AdvanceSegment) -> bool {
        let Some(at) = self.index(id) else { return false };
        std::mem::take(&mut self.segments[at].early)
    }

    /// A segment has been placed. Answers its tickets and those of the segments after it, up to the first segment that is not
    /// placed.
    pub(super) fn place(
        &mut self,
        id: AdvanceSegment,
        checksum: u64,
        place: Place,
        outputs: &mut VecDeque<Output<A>>,
    ) -> Placing {
        let (mut segments, mut events) = (0, 0);
        let Some(at) = self.index(id) else { return Placing::Done { segments, events } };
        let segment = &mut self.segments[at];
        if segment.body.checksum != checksum {
            return Placing::Conflict;
        }
        match segment.stage {
            Stage::Placed(before) if before != place => {
                tracing::error!(%id, "the order shows two places for one segment");
            }
            _ => segment.stage = Stage::Placed(place),
        }
        while let Some(Stage::Placed(place)) = self.segments.front().map(|segment| segment.stage) {
            segments += 1;
            events += self.pop(Ok(place), outputs);
        }
        Placing::Done { segments, events }
    }

    /// Answers expired tickets; the segments stay.
    pub(super) fn expire(&mut self, now: Moment, outputs: &mut VecDeque<Output<A>>) -> u64 {
        let mut expired = 0;
        for segment in &mut self.segments {
            let place = match segment.stage {
                Stage::Placed(place) => Some(place),
                Stage::Collecting | Stage::Ready | Stage::Proposed(_) => None,
            };
            expired += segment.tickets.expire(now, place, outputs);
            if segment.tickets.deadline().is_some() {
                break;
            }
        }
        expired
    }

    /// The incarnation's segments can't be placed any more: gives up all of them, with this answer. Returns how many were not
    /// placed.
    pub(super) fn give_up(
        &mut self,
        error: PublishError,
        outputs: &mut VecDeque<Output<A>>,
    ) -> u64 {
        let mut lost = 0;
        while let Some(stage) = self.segments.front().map(|segment| segment.stage) {
            let outcome = if let Stage::Placed(place) = stage { Ok(place) } else { Err(error) };
            lost += u64::from(outcome.is_err());
            self.pop(outcome, outputs);
        }
        lost
    }

    /// Takes out the first one and answers its tickets. Returns its number of events.
    fn pop(
        &mut self,
        outcome: Result<Place, PublishError>,
        outputs: &mut VecDeque<Output<A>>,
    ) -> u64 {
        let mut segment = self.segments.pop_front().expect("the caller saw the first one");
        self.bytes -= segment.body.body.len();
        segment.tickets.answer(outcome, outputs);
        u64::from(segment.body.count)
    }

    fn index(&self, id: AdvanceSegment) -> Option<usize> {
        let front = self.segments.front()?.body.id;
        if id.entry != front.entry || id.incarnation != front.incarnation {
            return None;
        }
        let at = usize::try_from(id.number.0.checked_sub(front.number.0)?).ok()?;
        (at < self.segments.len()).then_some(at)
    }
}

//! The entry's write path as a state machine: from batches of events to answers.
//!
//! Inputs are batches, the end of a turn, and news from storages, sync and the followed log. Outputs are polled
//! ([`Core::poll`]), and have to be drained before the next turn.
//!
//! Invariant: every ticket is answered once, per session in order. The answer is "stored" only for events that sync or the log
//! has placed in the order, and "not stored" only for events that, according to the log, can't be placed any more. Memory is
//! bounded: one open segment, one batch that waits for room, and the pending segments.
//!
//! Deliberately absent: sockets, tasks and clocks (`driver`).

mod life;
mod pending;
mod proposer;
mod storages;
mod tickets;
mod turn;
mod writer;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use vulpes_raft::ids::{AdvanceSegment, Incarnation, NodeId, SegmentNumber, Shard};
use vulpes_raft::order::{Place, Resolution, SealedSegment, SegmentOutcome, Step, StorageGroups};

use self::life::Life;
use self::pending::{Pending, Placing};
use self::proposer::{Call, Proposer};
use self::storages::Storages;
use self::writer::Writer;
use super::order::{Lease, Opened, OrderError};
use super::status::{Counters, EntryStatus};
use super::EntryTuning;
use crate::append::{AppendError, Appended};
use crate::segment::SealedBody;
use crate::types::answer::{Answer, PublishError};
use crate::types::event::{Event, SessionId};
use crate::types::limits;
use crate::types::moment::Moment;

/// First pause before a retry, in milliseconds. Each further one is twice as long.
const BACKOFF_FIRST: u64 = 50;

/// Longest pause before a retry, in milliseconds.
const BACKOFF_LAST: u64 = 1600;

/// Consecutive publishes of one session.
#[derive(Debug, Clone)]
pub struct Batch<A> {
    pub session: SessionId,
    /// The incarnation in which the session lives. When that ends, the session is over, and none of its publishes may enter the
    /// log afterwards. `None` for publishes outside of a session that all nodes know.
    pub incarnation: Option<Incarnation>,
    /// The session's sequence number of the first event.
    pub first: u64,
    /// Each within [`limits::EVENT`], or a session's own event, which fits a segment.
    pub events: Vec<Event>,
    /// Where the answers go.
    pub answers: A,
}

impl<A> Batch<Option<A>> {
    /// Publishes of the node itself, without a session. They get no answer: their outcome shows in the order.
    pub fn own(events: Vec<Event>) -> Self {
        Self { session: SessionId(0), incarnation: None, first: 0, events, answers: None }
    }
}

/// A request of the core.
#[derive(Debug)]
pub(super) enum Output<A> {
    /// Ask sync for an incarnation; answered by [`Core::opened`].
    Open { request: u64 },
    /// Announce the incarnation to a storage and ask for credit; answered by [`Core::begun`].
    Begin { storage: NodeId, incarnation: Incarnation },
    /// A segment was sealed; readers near the tail will soon need its body.
    Sealed(SealedBody),
    /// Send a body to a storage; answered by [`Core::voted`].
    Append { storage: NodeId, body: SealedBody },
    /// Notify a storage that the bodies it lacks through this segment will not be sent; answered by [`Core::told`].
    Skip { storage: NodeId, through: AdvanceSegment },
    /// Propose to sync; answered by [`Core::proposed`].
    Propose { call: u64, segments: Vec<SealedSegment> },
    /// Ask sync for the storage groups; answered by [`Core::regrouped`].
    Regroup,
    /// Renew the lease; answered by [`Core::renewed`].
    Renew { incarnation: Incarnation },
    /// Send a session the outcome of its publishes.
    Answer { to: A, answer: Answer },
}

/// The entry's state machine. `A` identifies where a session's answers go.
#[derive(Debug)]
pub(super) struct Core<A> {
    node: NodeId,
    life: Life,
    writer: Writer<A>,
    pending: Pending<A>,
    storages: Storages,
    proposer: Proposer,
    next_number: SegmentNumber,
    next_shard: Shard,
    /// Segments are proposed as soon as they are sealed.
    early: bool,
    outputs: VecDeque<Output<A>>,
    counters: Counters,
}

fn after(moment: Moment, milliseconds: u64) -> Moment {
    Moment(moment.0.saturating_add(milliseconds))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// When to retry after this failure, given the number of failures before it.
fn backoff(now: Moment, failures: u32) -> Moment {
    after(now, (BACKOFF_FIRST << failures.min(8)).min(BACKOFF_LAST))
}

/// When a ticket expires.
fn deadline_of(submitted: Moment) -> Moment {
    after(submitted, milliseconds(limits::PUBLISH_TIMEOUT))
}

impl<A: Clone> Core<A> {
    /// An entry on this node. `request` is a random number that names its requests for incarnations; `lease` is how
    /// long sync waits for a sign of life.
    pub(super) fn new(node: NodeId, request: u64, lease: Duration) -> Self {
        Self {
            node,
            life: Life::new(request, milliseconds(lease) / 3),
            writer: Writer::default(),
            pending: Pending::default(),
            storages: Storages::default(),
            proposer: Proposer::default(),
            next_number: SegmentNumber::default(),
            next_shard: Shard::default(),
            early: false,
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Reduces the limits.
    pub(super) fn tuned(mut self, tuning: EntryTuning) -> Self {
        self.writer.aim_at(tuning.segment_target);
        self.storages.use_at_most(tuning.storage_credit, tuning.storage_sent_bytes);
        self.early = tuning.early;
        self
    }

    /// The next request.
    pub(super) fn poll(&mut self) -> Option<Output<A>> {
        self.outputs.pop_front()
    }

    /// Whether outputs have to be drained before more batches are taken.
    pub(super) fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// Whether a batch waits for room. If so, no other batch may be passed to [`Core::accept`].
    pub(super) fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    /// Events whose publishers wait for an answer.
    pub(super) fn unanswered(&self) -> u64 {
        self.writer.unanswered() + self.pending.unanswered()
    }

    /// When [`Core::end_turn`] has to be called at the latest.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let tickets = self.pending.deadline().or(self.writer.deadline());
        let proposer = self.proposer.deadline();
        let due = [tickets, proposer, self.life.deadline(), self.begin_deadline()];
        due.into_iter().flatten().min()
    }

    fn begin_deadline(&self) -> Option<Moment> {
        self.life.current().and_then(|_| self.storages.deadline())
    }

    /// Accepts a batch that was submitted at this moment. Must not be called while [`Core::is_full`].
    pub(super) fn accept(&mut self, batch: Batch<A>, submitted: Moment) {
        let over = batch.incarnation.is_some() && batch.incarnation != self.life.current();
        self.writer.take(batch, submitted);
        if over {
            self.writer.discard_rest();
        }
        self.write();
    }

    /// Sync answered the request for an incarnation.
    pub(super) fn opened(&mut self, result: Result<Opened, OrderError>, now: Moment) {
        match result {
            Ok(Opened { incarnation, groups }) => {
                if self.life.granted(incarnation, now) {
                    self.counters.incarnations += 1;
                    self.storages.restart(groups, now);
                    self.proposer.restart();
                }
            }
            Err(_) => self.life.not_granted(now),
        }
    }

    /// A storage answered the announcement of an incarnation, with its credit or a failure.
    pub(super) fn begun(
        &mut self,
        storage: NodeId,
        incarnation: Incarnation,
        result: Result<u32, AppendError>,
        now: Moment,
    ) {
        if self.life.current() != Some(incarnation) {
            return;
        }
        match result {
            Ok(credit) => self.storages.begun(storage, Some(credit), now),
            Err(error) => {
                self.storages.begun(storage, None, now);
                if error == AppendError::Fenced {
                    self.lose(incarnation, now);
                }
            }
        }
    }

    /// A storage answered the append of a body.
    pub(super) fn voted(
        &mut self,
        storage: NodeId,
        id: AdvanceSegment,
        result: Result<Appended, AppendError>,
        now: Moment,
    ) {
        let error = match result {
            Ok(appended) if self.is_vote_for(storage, id, &appended) => {
                self.storages.appended(storage, id, appended.credit);
                self.pending.vote(id, storage, self.storages.groups());
                return;
            }
            Ok(_) => {
                tracing::error!(%id, %storage, "a storage voted for another body than was sent to it");
                None
            }
            Err(error) => Some(error),
        };
        self.counters.keeps_failed += 1;
        self.storages.failed(storage, id, now);
        match error {
            Some(AppendError::Fenced) => self.lose(id.incarnation, now),
            Some(AppendError::Conflict(_)) => {
                tracing::error!(%id, %storage, "another writer uses this incarnation; opening anew");
                self.lose(id.incarnation, now);
            }
            Some(AppendError::Damaged(reason)) => {
                tracing::warn!(%id, %storage, reason, "a body was damaged on its way");
            }
            Some(AppendError::Unreachable { .. } | AppendError::Released(_)) | None => {}
        }
    }

    /// A storage was notified which bodies will not be sent to it.
    pub(super) fn told(
        &mut self,
        storage: NodeId,
        through: AdvanceSegment,
        result: Result<(), AppendError>,
        now: Moment,
    ) {
        self.storages.told(storage, through, result.is_ok(), now);
    }

    fn is_vote_for(&self, storage: NodeId, id: AdvanceSegment, appended: &Appended) -> bool {
        let vote = appended.vote;
        vote.storage == storage
            && vote.segment == id
            // If the segment has been placed meanwhile, only the credit matters.
            && self.pending.body(id).is_none_or(|body| {
                vote.checksum == body.checksum && vote.length as usize == body.body.len()
            })
    }

    /// Sync answered a proposal.
    pub(super) fn proposed(
        &mut self,
        call: u64,
        result: Result<Vec<SegmentOutcome>, OrderError>,
        now: Moment,
    ) {
        let Some(Call { failures, segments, .. }) = self.proposer.finished(call) else { return };
        let outcomes = match result {
            Ok(outcomes) if outcomes.len() == segments.len() => outcomes,
            Ok(_) | Err(_) => {
                self.counters.proposals_failed += 1;
                self.proposer.failed(failures, now);
                for (id, _) in segments {
                    self.pending.propose_again(id, call);
                }
                return;
            }
        };
        for ((id, checksum), outcome) in segments.into_iter().zip(outcomes) {
            self.outcome(call, id, checksum, &outcome, now);
        }
    }

    fn outcome(
        &mut self,
        call: u64,
        id: AdvanceSegment,
        checksum: u64,
        outcome: &SegmentOutcome,
        now: Moment,
    ) {
        match outcome {
            SegmentOutcome::Resolved(place) => {
                if self.life.current() == Some(id.incarnation) {
                    self.life.heard(now);
                }
                self.proposer.succeeded();
                self.place(id, checksum, *place, now);
            }
            SegmentOutcome::Gap { .. } => {
                // A later proposal overtook an earlier one: all are proposed again, in order, once no call is in flight.
                self.proposer.wait_for_all();
                self.pending.propose_again(id, call);
            }
            SegmentOutcome::NoQuorum => {
                if !self.pending.wait_for_votes(id) {
                    self.proposer.group_is_stale(now);
                }
                self.pending.propose_again(id, call);
            }
            SegmentOutcome::Fenced { .. } | SegmentOutcome::NotOpen => {
                self.lose(id.incarnation, now);
            }
            SegmentOutcome::Conflict | SegmentOutcome::Forgotten => {
                // Both happen only if two writers share an incarnation. Only the log shows the outcome. Opening a new
                // incarnation makes sure that the log shows the end of this one.
                tracing::error!(%id, "sync does not know this segment as ours; opening anew");
                self.lose(id.incarnation, now);
            }
        }
    }

    /// Sync sent the storage groups.
    pub(super) fn regrouped(&mut self, result: Result<StorageGroups, OrderError>, now: Moment) {
        self.proposer.regrouped(result.is_ok(), now);
        if let Ok(groups) = result {
            self.storages.regroup(groups, now);
            self.pending.recount(self.storages.groups());
        }
    }

    /// Sync answered a renewal.
    pub(super) fn renewed(
        &mut self,
        incarnation: Incarnation,
        result: Result<Lease, OrderError>,
        now: Moment,
    ) {
        if self.life.current() != Some(incarnation) {
            return;
        }
        match result {
            Ok(Lease::Held) => self.life.heard(now),
            Ok(Lease::Lost) => self.lose(incarnation, now),
            Err(_) => self.life.not_renewed(now),
        }
    }

    /// The next step of the followed log.
    pub(super) fn observed(&mut self, resolution: &Resolution, now: Moment) {
        if !self.life.shows(resolution.slot) {
            return;
        }
        match &resolution.step {
            Step::Segment(segment) if segment.id.entry == self.node => {
                let Resolution { slot, stamp, base, .. } = *resolution;
                self.place(segment.id, segment.checksum, Place { slot, stamp, base }, now);
            }
            Step::Opened { entry, incarnation } if *entry == self.node => {
                self.ended(Incarnation(incarnation.0.saturating_sub(1)), now);
                self.life.shows_opening(*incarnation);
            }
            Step::Closed { entry, incarnation, .. } if *entry == self.node => {
                self.ended(*incarnation, now);
            }
            Step::Segment(_) | Step::Opened { .. } | Step::Closed { .. } => {}
        }
    }

    /// The log shows that this incarnation and all older ones are over.
    fn ended(&mut self, incarnation: Incarnation, now: Moment) {
        self.life.shows_end(incarnation);
        if let Some(over) = self.pending.incarnation().filter(|over| *over <= incarnation) {
            let whole = self.life.is_whole(over);
            let error = if whole { PublishError::NotStored } else { PublishError::Unknown };
            self.counters.segments_lost += self.pending.give_up(error, &mut self.outputs);
        }
        if let Some(current) = self.life.current().filter(|current| self.life.is_over(*current)) {
            self.lose(current, now);
        }
    }

    fn place(&mut self, id: AdvanceSegment, checksum: u64, place: Place, now: Moment) {
        match self.pending.place(id, checksum, place, &mut self.outputs) {
            Placing::Done { segments, events } => {
                self.counters.segments_resolved += segments;
                self.counters.events_resolved += events;
            }
            Placing::Conflict => {
                tracing::error!(%id, "the log has another body under this name; opening anew");
                self.lose(id.incarnation, now);
            }
        }
    }

    fn lose(&mut self, incarnation: Incarnation, now: Moment) {
        if self.life.lose(incarnation, now) {
            tracing::warn!(%incarnation, "the entry's incarnation is lost; asking for another");
            // The sessions end with their incarnation: their unsealed events must not appear in the next incarnation, after
            // their wills.
            self.writer.discard();
        }
    }

    /// The entry ends: the outcome of everything unanswered is unknown.
    pub(super) fn end(&mut self) {
        self.pending.give_up(PublishError::Unknown, &mut self.outputs);
        self.writer.end(&mut self.outputs);
    }

    /// Reports its state.
    pub(super) fn report(&self, into: &mut EntryStatus) {
        into.incarnation = self.life.live();
        into.open_events = self.writer.open_events();
        into.pending_segments = self.pending.len();
        into.pending_bytes = self.pending.bytes();
        into.unanswered = self.unanswered();
        self.storages.report(&mut into.storages);
        into.counters = self.counters;
    }
}

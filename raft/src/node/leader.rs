//! A leader's duties: it puts proposals into the order, tracks the entries' leases, and forms the storage groups.
//!
//! Invariant: an answer comes from the order itself. Leases only decide when a closing is proposed.
//!
//! Deliberately absent: finding out which member leads. Raft refuses requests to a member that no longer does.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::proposer::{Outcome, Submission};
use super::{bootstrap, Inner};
use crate::ids::{Incarnation, NodeId};
use crate::order::{CloseReason, SealedSegment};
use crate::sequencer::{Answer, Proposal, GROUP_MEMBERS_MAX};
use crate::service::{Lease, SyncReply, CALL_TIMEOUT, MAX_PROPOSED};

/// Why an outcome is unknown.
const STOPPED: &str = "the node stopped";

/// How long an early segment's body may be on its way from its entry to the leader. After that, the segment can be proposed
/// with storage votes instead, without this member.
const BODY_WAIT: Duration = Duration::from_millis(200);

/// How often to check the storage groups while they are not formed.
const FORM_AGAIN: Duration = Duration::from_secs(1);

impl Inner {
    pub(super) async fn submit(&self, steps: Vec<Proposal>) -> Outcome {
        let decided = self.queue(steps).await;
        decided.await.unwrap_or_else(|_| Outcome::Unknown(STOPPED.into()))
    }

    /// Queues steps for the log.
    async fn queue(&self, steps: Vec<Proposal>) -> oneshot::Receiver<Outcome> {
        let (outcome, decided) = oneshot::channel();
        let submission = Submission { steps, outcome };
        if let Err(mpsc::error::SendError(submission)) = self.submissions.send(submission).await {
            // Only this caller waits for the outcome.
            drop(submission.outcome.send(Outcome::Stopped));
        }
        decided
    }

    /// The answers to these steps, or the reply to send instead.
    async fn decide(&self, steps: Vec<Proposal>) -> Result<Vec<Answer>, SyncReply> {
        Self::decided(self.submit(steps).await)
    }

    fn decided(outcome: Outcome) -> Result<Vec<Answer>, SyncReply> {
        match outcome {
            Outcome::Done(answers) => Ok(answers),
            Outcome::NotLeader(leader) => Err(SyncReply::NotLeader { leader }),
            Outcome::Unknown(reason) => Err(SyncReply::Unknown(reason)),
            Outcome::Stopped => Err(SyncReply::Unavailable("Raft has stopped here".into())),
        }
    }

    pub(super) async fn propose(&self, segments: Vec<SealedSegment>) -> SyncReply {
        let too_many = segments.len() > MAX_PROPOSED;
        if too_many || segments.iter().any(|segment| segment.votes.len() > GROUP_MEMBERS_MAX) {
            return SyncReply::Unavailable(format!(
                "a proposal has at most {MAX_PROPOSED} segments of {GROUP_MEMBERS_MAX} votes each"
            ));
        }
        self.heard_of(segments.iter().map(|segment| (segment.id.entry, segment.id.incarnation)));
        let decided = self.queue_segments(segments).await;
        let outcome = decided.await.unwrap_or_else(|_| Outcome::Unknown(STOPPED.into()));
        match Self::decided(outcome) {
            Ok(answers) => {
                let outcomes = answers.into_iter().map(|answer| match answer {
                    Answer::Segment(outcome) => outcome,
                    other => unreachable!("a segment was answered with {other:?}"),
                });
                SyncReply::Segments(outcomes.collect())
            }
            Err(reply) => reply,
        }
    }

    /// Queues the segments of a proposal. Early ones are queued once their bodies are here, in order for each entry.
    async fn queue_segments(&self, segments: Vec<SealedSegment>) -> oneshot::Receiver<Outcome> {
        let turn = segments.first().map(|segment| self.turn(segment.id.entry));
        let _turn = match &turn {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        let early = self.early(&segments);
        let comes =
            early.is_empty() || self.beside.come(early.clone(), None, BODY_WAIT).await.is_ok();
        let step = |segment: SealedSegment| {
            let early = comes && early.iter().any(|early| early.id == segment.id);
            if early {
                Proposal::ResolveEarly(segment)
            } else {
                Proposal::Resolve(segment)
            }
        };
        self.queue(segments.into_iter().map(step).collect()).await
    }

    /// The lock for an entry's proposals that wait. Unknown entries share one lock.
    fn turn(&self, entry: NodeId) -> Arc<tokio::sync::Mutex<()>> {
        let known = self.applied.state().sequencer.knows(entry);
        let entry = if known { entry } else { NodeId(0) };
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(entry).or_default().clone()
    }

    /// The early segments to propose once their bodies are here: only if the members are the only group of storages, and only
    /// segments without an outcome. Other segments are proposed as they are, and get their outcome, or the answer that they
    /// lack a quorum.
    fn early(&self, segments: &[SealedSegment]) -> Vec<SealedSegment> {
        if segments.iter().all(|segment| !segment.votes.is_empty())
            || !self.members_are_the_storages()
        {
            return Vec::new();
        }
        let state = self.applied.state();
        let early = segments.iter().filter(|segment| segment.votes.is_empty());
        early.filter(|segment| state.sequencer.awaits(segment.id)).cloned().collect()
    }

    fn members_are_the_storages(&self) -> bool {
        let mut voters: Vec<NodeId> = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.voter_ids().collect()
        };
        voters.sort_unstable();
        let state = self.applied.state();
        let storages = state.sequencer.groups().sole().map(|group| group.members.iter());
        storages.is_some_and(|storages| storages.map(|member| member.node).eq(voters))
    }

    pub(super) async fn open(&self, entry: NodeId, request: u64) -> SyncReply {
        let answer = match self.decide(vec![Proposal::Open { entry, request }]).await {
            Ok(mut answers) => answers.pop(),
            Err(reply) => return reply,
        };
        match answer {
            Some(Answer::Opened(opened)) => {
                self.heard_of([(entry, opened.incarnation)].into_iter());
                SyncReply::Opened(opened)
            }
            Some(Answer::NotFormed) => {
                SyncReply::Unavailable("the storage groups are not formed yet".into())
            }
            other => SyncReply::Unavailable(format!("no entry can be opened: {other:?}")),
        }
    }

    pub(super) async fn done(&self, step: Proposal) -> SyncReply {
        match self.decide(vec![step]).await {
            Ok(_) => SyncReply::Done,
            Err(reply) => reply,
        }
    }

    pub(super) fn renew(&self, entry: NodeId, incarnation: Incarnation) -> Lease {
        if !self.applied.state().sequencer.is_open(entry, incarnation) {
            return Lease::Lost;
        }
        self.heard_of([(entry, incarnation)].into_iter());
        Lease::Held
    }

    fn heard_of(&self, entries: impl Iterator<Item = (NodeId, Incarnation)>) {
        let now = Instant::now();
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = None;
        for heard in entries {
            // A proposal usually has one entry.
            if last != Some(heard) {
                leases.renew(heard.0, heard.1, now);
                last = Some(heard);
            }
        }
    }

    /// Reports clocks that are far off to the operator, each once until it is right again.
    fn tell_of_clocks(&self, known: &mut BTreeSet<NodeId>) {
        let off = self.clocks.off();
        for (node, ahead) in off.iter().filter(|(node, _)| !known.contains(node)) {
            let (seconds, side) =
                (ahead.unsigned_abs() / 1_000, if *ahead > 0 { "ahead of" } else { "behind" });
            tracing::warn!(
                "the clock of node {node} is {seconds} s {side} the others'; set it right. As long as most are right, \
                 nothing comes of it"
            );
        }
        *known = off.into_iter().map(|(node, _)| node).collect();
    }

    /// The leader's periodic duties: leases, and the storage groups while there are none.
    pub(super) async fn keep_leases(&self) {
        let mut form_at = Instant::now();
        let mut off = BTreeSet::new();
        loop {
            tokio::time::sleep(self.config.lease / 8).await;
            let Some(term) = self.leading() else { continue };
            self.tell_of_clocks(&mut off);
            let (lost, formed) = {
                let state = self.applied.state();
                let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
                let open = state.sequencer.entries().filter(|(_, _, open)| *open);
                let open = open.map(|(entry, incarnation, _)| (entry, incarnation));
                let lost = leases.check(term, open, Instant::now());
                (lost, !state.sequencer.groups().is_empty())
            };
            if !formed && Instant::now() >= form_at {
                // Bounded, so that a leader without a quorum returns to check its leases.
                let _ = tokio::time::timeout(CALL_TIMEOUT, bootstrap::form(self)).await;
                form_at = Instant::now() + FORM_AGAIN;
            }
            if !lost.is_empty() {
                for (entry, incarnation) in &lost {
                    tracing::info!("the lease of entry {entry}, incarnation {incarnation}, ran out: it is closed");
                }
                let reason = CloseReason::LeaseLost;
                let close = |(entry, incarnation)| Proposal::Close { entry, incarnation, reason };
                let steps = lost.into_iter().map(close).collect();
                let _ = tokio::time::timeout(CALL_TIMEOUT, self.submit(steps)).await;
            }
        }
    }
}

//! What a member does while it leads: it puts proposals into the order, keeps the entries' leases, and forms the storage
//! group.
//!
//! Invariant: an answer comes from the order itself. Leases only decide when a closing is proposed.
//!
//! Deliberately absent: finding out who leads. Whatever is asked of a member that no longer does is refused by Raft.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::proposer::{Outcome, Submission};
use super::{bootstrap, Inner};
use crate::ids::{Incarnation, NodeId};
use crate::order::{CloseReason, SealedSegment};
use crate::sequencer::{Answer, Proposal, GROUP_MEMBERS_MAX};
use crate::service::{Lease, SyncReply, CALL_TIMEOUT, MAX_PROPOSED};

/// How often the storage group is looked after while it is not formed.
const FORM_AGAIN: Duration = Duration::from_secs(1);

impl Inner {
    pub(super) async fn submit(&self, steps: Vec<Proposal>) -> Outcome {
        let (outcome, decided) = oneshot::channel();
        let submission = Submission { steps, outcome };
        if self.submissions.send(submission).await.is_err() {
            return Outcome::Stopped;
        }
        decided.await.unwrap_or_else(|_| Outcome::Unknown("the node stopped".into()))
    }

    /// The answers to these steps, or what to reply without them.
    async fn decide(&self, steps: Vec<Proposal>) -> Result<Vec<Answer>, SyncReply> {
        match self.submit(steps).await {
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
        let steps = segments.into_iter().map(Proposal::Resolve).collect();
        match self.decide(steps).await {
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
                SyncReply::Unavailable("the storage group is not formed yet".into())
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
            // A proposal is usually one entry's.
            if last != Some(heard) {
                leases.renew(heard.0, heard.1, now);
                last = Some(heard);
            }
        }
    }

    /// The leader's duties that time brings: leases, and the storage group while there is none.
    pub(super) async fn keep_leases(&self) {
        let mut form_at = Instant::now();
        loop {
            tokio::time::sleep(self.config.lease / 8).await;
            let Some(term) = self.leading() else { continue };
            let (lost, formed) = {
                let state = self.applied.state();
                let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
                let open = state.sequencer.entries().filter(|(_, _, open)| *open);
                let open = open.map(|(entry, incarnation, _)| (entry, incarnation));
                let lost = leases.check(term, open, Instant::now());
                (lost, state.sequencer.group().is_some())
            };
            if !formed && Instant::now() >= form_at {
                // Bounded, so that a leader without a quorum comes back to look at its leases.
                let _ = tokio::time::timeout(CALL_TIMEOUT, bootstrap::form(self)).await;
                form_at = Instant::now() + FORM_AGAIN;
            }
            if !lost.is_empty() {
                tracing::info!("the leases of {lost:?} ran out");
                let reason = CloseReason::LeaseLost;
                let close = |(entry, incarnation)| Proposal::Close { entry, incarnation, reason };
                let steps = lost.into_iter().map(close).collect();
                let _ = tokio::time::timeout(CALL_TIMEOUT, self.submit(steps)).await;
            }
        }
    }
}

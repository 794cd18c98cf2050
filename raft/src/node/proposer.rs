//! The leader's way into the Raft log: proposals of all entries, gathered into as few log entries as possible.
//!
//! Invariant: proposals enter the log in the order in which they were queued. Each gets exactly one outcome, and counts as not
//! done only if the proposal never entered the log.
//!
//! Deliberately absent: timers. A log entry takes what was queued while earlier ones were on their way.

use std::sync::Arc;

use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use tokio::sync::{mpsc, oneshot, Semaphore};

use super::marks::Marks;
use crate::clocks::Clocks;
use crate::consensus::machine::Applied;
use crate::consensus::machine::Raft;
use crate::consensus::types::EncodedCommand;
use crate::ids::NodeId;
use crate::mutant::{planted, Mutant};
use crate::sequencer::{Answer, Command, Proposal};

/// Capacity of the queue of submissions; beyond it, submitters wait.
pub(super) const QUEUE: usize = 1_024;

/// Most proposals in one log entry.
const ENTRY_PROPOSALS: usize = 256;

/// Most log entries in flight at once.
const ENTRIES_IN_FLIGHT: usize = 4;

/// Proposals that belong together, and the caller that waits for their answers.
pub(super) struct Submission {
    pub(super) steps: Vec<Proposal>,
    pub(super) outcome: oneshot::Sender<Outcome>,
}

/// The outcome of a submission.
#[derive(Debug)]
pub(super) enum Outcome {
    /// One answer per proposal, in order.
    Done(Vec<Answer>),
    /// Not done: this node does not lead.
    NotLeader(Option<NodeId>),
    /// Perhaps done.
    Unknown(String),
    /// Not done: Raft has stopped on this node.
    Stopped,
}

/// Feeds the queue into the log until the queue's senders are gone or Raft stops.
pub(super) async fn run(
    clocks: Arc<Clocks>,
    raft: Raft,
    applied: Arc<Applied>,
    mut queue: mpsc::Receiver<Submission>,
) {
    let permits = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT));
    let mut carried = None;
    let mut marks = Marks::default();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let Some(batch) = gather(&mut queue, &mut carried).await else { return };
        let (mut steps, waiting) = split(batch);
        // After the proposals with waiting callers: its answer is ignored.
        steps.extend(marks.step(&raft, &applied));
        let command = Command { clocks: clocks.vouched(), steps };
        let (responder, done) = ProgressResponder::complete_only();
        let sent = raft.client_write_ff(EncodedCommand::new(&command), Some(responder)).await;
        if sent.is_err() {
            for (_, outcome) in waiting {
                tell(outcome, Outcome::Stopped);
            }
            continue;
        }
        if planted(Mutant::DispatchBeforeCommit) {
            applied.apply_early(command);
        }
        tokio::spawn(async move {
            match done.await {
                Ok(Ok(written)) => answer(waiting, written.data.0),
                Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                    for (_, outcome) in waiting {
                        tell(outcome, Outcome::NotLeader(forward.leader_id));
                    }
                }
                Ok(Err(error)) => unknown(waiting, &error.to_string()),
                Err(_) => unknown(waiting, "Raft stopped before it was decided"),
            }
            drop(permit);
        });
    }
}

/// The next submissions whose callers still wait, as many as fit in one log entry.
async fn gather(
    queue: &mut mpsc::Receiver<Submission>,
    carried: &mut Option<Submission>,
) -> Option<Vec<Submission>> {
    let first = loop {
        let next = match carried.take() {
            Some(carried) => carried,
            None => queue.recv().await?,
        };
        if !next.outcome.is_closed() {
            break next;
        }
    };
    let mut proposals = first.steps.len();
    let mut batch = vec![first];
    while proposals < ENTRY_PROPOSALS {
        let Ok(next) = queue.try_recv() else { break };
        if next.outcome.is_closed() {
            continue;
        }
        proposals += next.steps.len();
        if proposals > ENTRY_PROPOSALS {
            *carried = Some(next);
            break;
        }
        batch.push(next);
    }
    Some(batch)
}

type Waiting = Vec<(usize, oneshot::Sender<Outcome>)>;

fn split(batch: Vec<Submission>) -> (Vec<Proposal>, Waiting) {
    let mut steps = Vec::new();
    let mut waiting = Vec::with_capacity(batch.len());
    for submission in batch {
        waiting.push((submission.steps.len(), submission.outcome));
        steps.extend(submission.steps);
    }
    (steps, waiting)
}

fn answer(waiting: Waiting, answers: Vec<Answer>) {
    let mut answers = answers.into_iter();
    for (count, outcome) in waiting {
        let own: Vec<_> = answers.by_ref().take(count).collect();
        assert_eq!(own.len(), count, "the sequencer answers every step of a command");
        tell(outcome, Outcome::Done(own));
    }
}

fn unknown(waiting: Waiting, reason: &str) {
    for (_, outcome) in waiting {
        tell(outcome, Outcome::Unknown(reason.to_owned()));
    }
}

fn tell(outcome: oneshot::Sender<Outcome>, what: Outcome) {
    // The caller may have given up; the order has the proposal anyway.
    drop(outcome.send(what));
}

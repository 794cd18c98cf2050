//! The publishes of a session that the client has no answer to yet.
//!
//! A conditional one is answered when it is decided and not when it is stored, so that it leaves the line of the others.
//!
//! Invariant: a publish is answered at most once.
//!
//! Deliberately absent: a limit for those without a condition. The driver reads no more from a socket with
//! [`crate::limits::SESSION_UNANSWERED`] publishes unanswered.

use std::collections::VecDeque;

use vulpes_raft::ids::Position;

use super::message::RequestId;
use crate::gate::waits::{TooManyWaits, Waits};
use crate::gate::{Answer, PublishError};

#[derive(Debug, Default)]
pub(super) struct Publishes {
    /// Sequence number of the next publish.
    next: u64,
    /// Those that want an answer once they are stored, by sequence number.
    unanswered: VecDeque<(u64, RequestId)>,
    /// The conditional ones; `None` wants no answer.
    undecided: Waits<Option<RequestId>>,
}

impl Publishes {
    /// Whether one more conditional publish of this size may be made.
    pub(super) fn may_wait(&self, bytes: usize) -> Result<(), TooManyWaits> {
        self.undecided.check(bytes)
    }

    /// A publish was made; `request` wants an answer. A conditional one has its size with it.
    pub(super) fn begin(&mut self, request: Option<RequestId>, conditional: Option<usize>) {
        if let Some(bytes) = conditional {
            self.undecided.insert(self.next, request, bytes);
        } else if let Some(request) = request {
            self.unanswered.push_back((self.next, request));
        }
        self.next += 1;
    }

    /// Takes out the next request that an answer is an answer to, until there is none. Of the conditional ones, only
    /// failure is one: where they are stored, they are still to be decided.
    pub(super) fn next_answered(
        &mut self,
        answer: &Answer,
    ) -> Option<(RequestId, Result<Position, PublishError>)> {
        let end = answer.first + u64::from(answer.count);
        if let Some((sequence, request)) = self.unanswered.front().copied() {
            if sequence < end {
                self.unanswered.pop_front();
                let place = |base: Position| Position(base.0 + (sequence - answer.first));
                return Some((request, answer.outcome.map(|stored| place(stored.position))));
            }
        }
        let error = answer.outcome.err()?;
        loop {
            if let Some(request) = self.undecided.remove_first(answer.first..end)? {
                return Some((request, Err(error)));
            }
        }
    }

    /// A conditional publish was decided; returns who waits for that.
    pub(super) fn decided(&mut self, sequence: u64) -> Option<RequestId> {
        self.undecided.remove(sequence)?
    }
}

//! What a session has put into the log, and the client has no answer to yet: publishes, and registrations.
//!
//! A conditional publish is answered when it is decided and not when it is stored, so that it leaves the line of the
//! others; and so is a registration.
//!
//! Invariant: each is answered at most once. At most [`limits::SESSION_WAITS`] publishes are undecided.
//!
//! Deliberately absent: a limit for the others. The driver reads no more from a socket with
//! [`limits::SESSION_UNANSWERED`] publishes unanswered, or [`limits::SESSION_REGISTERS`] registrations undecided.

use std::collections::{BTreeMap, VecDeque};

use vulpes_raft::ids::Position;

use super::message::{code, RequestId};
use crate::gate::{Answer, PublishError};
use crate::limits;
use crate::procedure::RegistrationId;

/// What is decided in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undecided {
    /// A conditional publish; `None` wants no answer.
    Publish(Option<RequestId>),
    Register {
        request: RequestId,
        concurrency: u32,
    },
    Unregister {
        request: RequestId,
        registration: RegistrationId,
    },
}

/// A request that has failed: the code of its message, and its number.
pub(super) type Answered = (u64, RequestId);

#[derive(Debug, Default)]
pub(super) struct Publishes {
    /// Sequence number of the next.
    next: u64,
    /// Those that want an answer once they are stored, by sequence number.
    unanswered: VecDeque<(u64, RequestId)>,
    /// Those that are decided later, by sequence number.
    undecided: BTreeMap<u64, Undecided>,
    /// How many of them are publishes.
    waits: usize,
}

impl Publishes {
    /// Whether one more conditional publish may be made.
    pub(super) fn may_wait(&self) -> bool {
        self.waits < limits::SESSION_WAITS
    }

    /// A publish was made that is done when it is stored; `request` wants an answer.
    pub(super) fn begin(&mut self, request: Option<RequestId>) {
        self.unanswered.extend(request.map(|request| (self.next, request)));
        self.next += 1;
    }

    /// Something was asked for that is decided in the order.
    pub(super) fn begin_undecided(&mut self, what: Undecided) {
        self.waits += usize::from(matches!(what, Undecided::Publish(_)));
        self.undecided.insert(self.next, what);
        self.next += 1;
    }

    /// Takes out the next request that an answer is an answer to, until there is none. Of those that are decided later,
    /// only failure is one: where they are stored, they are still to be decided.
    pub(super) fn next_answered(
        &mut self,
        answer: &Answer,
    ) -> Option<(Answered, Result<Position, PublishError>)> {
        let end = answer.first + u64::from(answer.count);
        if let Some((sequence, request)) = self.unanswered.front().copied() {
            if sequence < end {
                self.unanswered.pop_front();
                let place = |base: Position| Position(base.0 + (sequence - answer.first));
                let outcome = answer.outcome.map(|stored| place(stored.position));
                return Some(((code::PUBLISH, request), outcome));
            }
        }
        let error = answer.outcome.err()?;
        loop {
            let (sequence, _) = self.undecided.range(answer.first..end).next()?;
            let sequence = *sequence;
            if let Some(answered) = self.decided(sequence).and_then(Undecided::request) {
                return Some((answered, Err(error)));
            }
        }
    }

    /// Something was decided.
    pub(super) fn decided(&mut self, sequence: u64) -> Option<Undecided> {
        let what = self.undecided.remove(&sequence)?;
        self.waits -= usize::from(matches!(what, Undecided::Publish(_)));
        Some(what)
    }
}

impl Undecided {
    /// Who waits for it.
    pub(super) fn request(self) -> Option<Answered> {
        match self {
            Self::Publish(request) => Some((code::PUBLISH, request?)),
            Self::Register { request, .. } => Some((code::REGISTER, request)),
            Self::Unregister { request, .. } => Some((code::UNREGISTER, request)),
        }
    }
}

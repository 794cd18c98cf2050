//! A session's requests in the log that have no answer yet: publishes and registrations.
//!
//! A conditional publish is answered when it is decided, not when it is stored, so it leaves the queue of the others.
//! The same holds for a registration.
//!
//! Invariant: each is answered at most once.
//!
//! Deliberately absent: a limit for the others. The driver stops reading from a socket with
//! [`SESSION_UNANSWERED`](crate::types::limits::SESSION_UNANSWERED) publishes unanswered, or
//! [`SESSION_REGISTERS`](crate::types::limits::SESSION_REGISTERS) registrations undecided.

use std::collections::{BTreeMap, VecDeque};

use vulpes_raft::ids::Position;

use super::message::{code, RequestId};
use crate::gate::waits::{Allowed, TooMany, Waits};
use crate::types::act::Terms;
use crate::types::answer::{Answer, PublishError};
use crate::types::procedure::RegistrationId;

/// A request that is decided in the order.
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

/// A failed request: the code of its message, and its number.
pub(super) type Answered = (u64, RequestId);

#[derive(Debug, Default)]
pub(super) struct Publishes {
    /// Sequence number of the next.
    next: u64,
    /// Those that are answered once they are stored, by sequence number.
    unanswered: VecDeque<(u64, RequestId)>,
    /// Conditional publishes; `None` wants no answer.
    waits: Waits<Option<RequestId>>,
    /// Registrations and similar requests, by sequence number.
    registering: BTreeMap<u64, Undecided>,
}

impl Publishes {
    pub(super) fn allow(&mut self, allowed: Allowed) {
        self.waits.allow(allowed);
    }

    /// Whether there is room for a publish of this size on these terms.
    pub(super) fn check(&self, terms: &Terms, bytes: usize) -> Result<(), TooMany> {
        self.waits.check(terms, bytes)
    }

    /// A publish was made that is done once it is stored; `request` wants an answer.
    pub(super) fn begin(&mut self, request: Option<RequestId>) {
        self.unanswered.extend(request.map(|request| (self.next, request)));
        self.next += 1;
    }

    /// A conditional publish of this size was made; `request` wants an answer.
    pub(super) fn begin_waiting(&mut self, request: Option<RequestId>, bytes: usize) {
        self.waits.insert(self.next, request, bytes);
        self.next += 1;
    }

    /// A registration or similar request was made.
    pub(super) fn begin_registering(&mut self, what: Undecided) {
        self.registering.insert(self.next, what);
        self.next += 1;
    }

    /// Takes out the next request that this answer completes, or `None`. Requests that are decided later are
    /// completed only by a failure: once stored, they still have to be decided.
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
        while let Some(request) = self.waits.remove_first(answer.first..end) {
            if let Some(request) = request {
                return Some(((code::PUBLISH, request), Err(error)));
            }
        }
        let sequence = *self.registering.range(answer.first..end).next()?.0;
        let answered = self.registering.remove(&sequence).and_then(Undecided::request)?;
        Some((answered, Err(error)))
    }

    /// A request was decided.
    pub(super) fn decided(&mut self, sequence: u64) -> Option<Undecided> {
        let publish = self.waits.remove(sequence).map(Undecided::Publish);
        publish.or_else(|| self.registering.remove(&sequence))
    }
}

impl Undecided {
    /// The request that waits for it.
    pub(super) fn request(self) -> Option<Answered> {
        match self {
            Self::Publish(request) => Some((code::PUBLISH, request?)),
            Self::Register { request, .. } => Some((code::REGISTER, request)),
            Self::Unregister { request, .. } => Some((code::UNREGISTER, request)),
        }
    }
}

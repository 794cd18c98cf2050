//! The entry's incarnation: requested, held, lost, and what the followed log has shown of it.
//!
//! Invariant: a segment counts as not stored only if the log was seen without a gap from its incarnation's opening to its end.
//! An incarnation whose end the log has shown is never resumed.
//!
//! Deliberately absent: the segments themselves (`pending`).

use vulpes_raft::ids::{Incarnation, Slot};

use super::{after, backoff};
use crate::types::moment::Moment;

/// Shortest time between two incarnations, in milliseconds. It slows down two processes that have the same node id and fence
/// each other.
pub(super) const REOPEN_PAUSE: u64 = 1000;

/// The entry's state with sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IncarnationState {
    /// It has to request an incarnation.
    Without { ask_at: Moment },
    /// The request is in flight.
    Asking,
    /// It has an incarnation, but segments of the previous one are not settled yet.
    Granted(Incarnation),
    /// It seals under this incarnation.
    Live(Incarnation),
}

/// The lease on the incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewal {
    Due { at: Moment },
    Asked,
}

/// An entry's incarnations, one after the other.
#[derive(Debug)]
pub(super) struct Life {
    state: IncarnationState,
    /// Names the request for an incarnation, so that a repeat is recognized.
    request: u64,
    failures: u32,
    opened_at: Option<Moment>,
    renewal: Renewal,
    /// Time without contact after which a renewal is requested, in milliseconds.
    renew_every: u64,
    shown: Shown,
}

/// What the log has shown.
#[derive(Debug, Default)]
struct Shown {
    last: Option<Slot>,
    /// This incarnation and older ones have ended.
    ended: Incarnation,
    /// The incarnation whose opening was shown, with no gap in the log since.
    whole: Option<Incarnation>,
}

impl Life {
    pub(super) fn new(request: u64, renew_every: u64) -> Self {
        Self {
            state: IncarnationState::Without { ask_at: Moment::default() },
            request,
            failures: 0,
            opened_at: None,
            renewal: Renewal::Due { at: Moment::default() },
            renew_every,
            shown: Shown::default(),
        }
    }

    /// The incarnation that segments are sealed under.
    pub(super) fn live(&self) -> Option<Incarnation> {
        match self.state {
            IncarnationState::Live(incarnation) => Some(incarnation),
            _ => None,
        }
    }

    /// The newest incarnation that sync granted and that is not known to be lost.
    pub(super) fn current(&self) -> Option<Incarnation> {
        match self.state {
            IncarnationState::Live(incarnation) | IncarnationState::Granted(incarnation) => {
                Some(incarnation)
            }
            IncarnationState::Without { .. } | IncarnationState::Asking => None,
        }
    }

    /// The request for an incarnation, if one is due now. It counts as sent.
    pub(super) fn ask(&mut self, now: Moment) -> Option<u64> {
        match self.state {
            IncarnationState::Without { ask_at } if ask_at <= now => {
                self.state = IncarnationState::Asking;
                Some(self.request)
            }
            _ => None,
        }
    }

    /// Sync granted an incarnation. `false`: it is over already, or was not requested.
    pub(super) fn granted(&mut self, incarnation: Incarnation, now: Moment) -> bool {
        if self.state != IncarnationState::Asking {
            return false;
        }
        self.request = self.request.wrapping_add(1);
        self.failures = 0;
        self.opened_at = Some(now);
        self.state = IncarnationState::Granted(incarnation);
        self.heard(now);
        if incarnation <= self.shown.ended {
            self.lose(incarnation, now);
            return false;
        }
        true
    }

    /// Sync did not answer the request; it is repeated later.
    pub(super) fn not_granted(&mut self, now: Moment) {
        if self.state == IncarnationState::Asking {
            self.state = IncarnationState::Without { ask_at: backoff(now, self.failures) };
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Segments of the previous incarnation are settled: the granted one begins.
    pub(super) fn begin(&mut self) -> bool {
        match self.state {
            IncarnationState::Granted(incarnation) => {
                self.state = IncarnationState::Live(incarnation);
                true
            }
            _ => false,
        }
    }

    /// An incarnation is lost. `true` if it was the current one; then a new one is requested.
    pub(super) fn lose(&mut self, incarnation: Incarnation, now: Moment) -> bool {
        if self.current() != Some(incarnation) {
            return false;
        }
        let earliest = self.opened_at.map_or(now, |opened| after(opened, REOPEN_PAUSE));
        self.state = IncarnationState::Without { ask_at: earliest.max(now) };
        true
    }

    /// Sync answered for the current incarnation, which renews its lease.
    pub(super) fn heard(&mut self, now: Moment) {
        self.renewal = Renewal::Due { at: after(now, self.renew_every) };
    }

    /// The incarnation to renew, if that is due now. The renewal counts as sent.
    pub(super) fn renew(&mut self, now: Moment) -> Option<Incarnation> {
        let incarnation = self.current()?;
        match self.renewal {
            Renewal::Due { at } if at <= now => {
                self.renewal = Renewal::Asked;
                Some(incarnation)
            }
            _ => None,
        }
    }

    /// A renewal got no answer; it is repeated soon.
    pub(super) fn not_renewed(&mut self, now: Moment) {
        if self.renewal == Renewal::Asked {
            self.renewal = Renewal::Due { at: backoff(now, 2) };
        }
    }

    /// The log's next slot. `false`: it was shown before.
    pub(super) fn shows(&mut self, slot: Slot) -> bool {
        if self.shown.last.is_some_and(|last| slot <= last) {
            return false;
        }
        if self.shown.last.is_some_and(|last| slot != last.next()) {
            self.shown.whole = None;
        }
        self.shown.last = Some(slot);
        true
    }

    /// The log shows an opening of this entry.
    pub(super) fn shows_opening(&mut self, incarnation: Incarnation) {
        self.shown.whole = Some(incarnation);
    }

    /// The log shows that this incarnation and all older ones are over.
    pub(super) fn shows_end(&mut self, incarnation: Incarnation) {
        self.shown.ended = self.shown.ended.max(incarnation);
    }

    /// Whether the log has shown the end of this incarnation.
    pub(super) fn is_over(&self, incarnation: Incarnation) -> bool {
        incarnation <= self.shown.ended
    }

    /// Whether the log has shown all of this incarnation so far.
    pub(super) fn is_whole(&self, incarnation: Incarnation) -> bool {
        self.shown.whole == Some(incarnation)
    }

    /// When its next request is due.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match (self.state, self.renewal) {
            (IncarnationState::Without { ask_at }, _) => Some(ask_at),
            (IncarnationState::Granted(_) | IncarnationState::Live(_), Renewal::Due { at }) => {
                Some(at)
            }
            (
                IncarnationState::Asking | IncarnationState::Granted(_) | IncarnationState::Live(_),
                _,
            ) => None,
        }
    }
}

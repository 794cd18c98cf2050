//! The calls to sync that propose segments: how many are in flight, and when the next one may be made.
//!
//! Invariant: at most [`PROPOSALS_IN_FLIGHT`] calls at once. After a gap, nothing is proposed until no call is in flight; after
//! a failure, nothing until the pause is over; with a stale group, nothing until a fresh one is known.
//!
//! Deliberately absent: which segments are ready (`pending`).

use vulpes_raft::ids::AdvanceSegment;

use super::backoff;
use crate::types::moment::Moment;

/// Most proposals an entry has in flight at once.
pub(super) const PROPOSALS_IN_FLIGHT: usize = 4;

/// Makes the proposals.
#[derive(Debug, Default)]
pub(super) struct Proposer {
    calls: Vec<Call>,
    next_call: u64,
    /// No proposal goes before this moment.
    not_before: Option<Moment>,
    failures: u32,
    waits_for_all: bool,
    group: GroupAge,
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    id: u64,
    /// How many failures there had been when it began.
    pub(super) failures: u32,
    /// Names and checksums, in number order.
    pub(super) segments: Vec<(AdvanceSegment, u64)>,
}

/// Whether the known storage groups are current.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum GroupAge {
    #[default]
    Fresh,
    /// Sync counts another quorum: the groups have to be requested.
    Stale {
        ask_at: Moment,
    },
    Asked,
}

impl Proposer {
    /// A new incarnation comes with a fresh group. Calls for older incarnations may still be in flight.
    pub(super) fn restart(&mut self) {
        self.not_before = None;
        self.failures = 0;
        self.waits_for_all = false;
        self.group = GroupAge::Fresh;
    }

    pub(super) fn may_propose(&mut self, now: Moment) -> bool {
        if self.not_before.is_some_and(|at| at <= now) {
            self.not_before = None;
        }
        self.calls.len() < PROPOSALS_IN_FLIGHT
            && (!self.waits_for_all || self.calls.is_empty())
            && self.not_before.is_none()
            && self.group == GroupAge::Fresh
    }

    /// The number of the next call.
    pub(super) fn next_call(&self) -> u64 {
        self.next_call
    }

    /// A call was sent.
    pub(super) fn begun(&mut self, call: u64, segments: Vec<(AdvanceSegment, u64)>) {
        assert!(
            self.calls.len() < PROPOSALS_IN_FLIGHT && call == self.next_call,
            "calls are paced"
        );
        self.next_call += 1;
        self.waits_for_all = false;
        self.calls.push(Call { id: call, failures: self.failures, segments });
    }

    /// A call is over.
    pub(super) fn finished(&mut self, call: u64) -> Option<Call> {
        let at = self.calls.iter().position(|under_way| under_way.id == call)?;
        Some(self.calls.remove(at))
    }

    /// A call got no answer. `since` is the number of failures when it began. Calls that were in flight together usually fail
    /// together, because their leader failed, so only the first failure sets the pause.
    pub(super) fn failed(&mut self, since: u32, now: Moment) {
        if since == self.failures {
            self.not_before = Some(backoff(now, self.failures));
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// A segment was placed.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Proposals overtook each other.
    pub(super) fn wait_for_all(&mut self) {
        self.waits_for_all = true;
    }

    /// Sync does not accept our quorum.
    pub(super) fn group_is_stale(&mut self, now: Moment) {
        if self.group == GroupAge::Fresh {
            // If the new groups are no different, because they came from a member that is behind, the pauses grow.
            self.group = GroupAge::Stale { ask_at: now };
            self.failed(self.failures, now);
        }
    }

    /// Whether to request the groups now. They count as requested.
    pub(super) fn asks_for_group(&mut self, now: Moment) -> bool {
        let due = matches!(self.group, GroupAge::Stale { ask_at } if ask_at <= now);
        if due {
            self.group = GroupAge::Asked;
        }
        due
    }

    /// The request for the groups is over, with an answer or without.
    pub(super) fn regrouped(&mut self, answered: bool, now: Moment) {
        if self.group == GroupAge::Asked {
            let ask_at = backoff(now, 2);
            self.group = if answered { GroupAge::Fresh } else { GroupAge::Stale { ask_at } };
        }
    }

    /// When it has to act without further input.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self.group {
            GroupAge::Stale { ask_at } => Some(ask_at),
            GroupAge::Asked => None,
            GroupAge::Fresh => self.not_before,
        }
    }
}

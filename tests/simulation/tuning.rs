//! Small limits and late answers of a run, so that events that are rare with production limits happen all the time.
//!
//! Invariant: the tuning follows from the seed, and about every other run has none. Nothing that nodes have to agree on is
//! changed.
//!
//! Deliberately absent: the limits themselves (`vulpes::node::tuning`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vulpes::entry::EntryTuning;
use vulpes::log::RECENT_SLOTS;
use vulpes::node::tuning::{Answers, Fate, Tuning};
use vulpes_raft::ids::NodeId;
use vulpes_raft::node::Tuning as SyncTuning;

use crate::chance::Chance;

/// The tuning of all nodes of a run; `None` is as usual.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunTuning {
    /// Bytes at which a segment takes no more events.
    segment: Option<usize>,
    /// Segments on the way to a quorum of storages.
    credit: Option<u32>,
    /// Bytes of bodies on the way to a storage.
    sent: Option<usize>,
    /// Bytes of bodies in memory.
    bodies: Option<usize>,
    /// Slots in memory.
    slots: Option<usize>,
    sync: Option<SyncTuning>,
    late: Option<Lateness>,
    /// The storage that gets bodies only from other storages.
    unreached: Option<u64>,
    /// Segments wait for storage votes before they are proposed.
    voting: bool,
}

/// The fate of answers to entries.
#[derive(Clone, Copy, Debug)]
struct Lateness {
    /// The longest that most answers take, in milliseconds.
    most: u64,
    /// One in this many is lost.
    lost: u64,
}

impl RunTuning {
    pub(crate) fn new(chance: &mut Chance) -> Self {
        if chance.one_in(2) {
            return Self::default();
        }
        let snapshots =
            |shown| SyncTuning { snapshot_every: 30, log_kept: 5, lag_limit: 40, shown };
        Self {
            segment: chance.pick(&[None, Some(500), Some(2_000)]),
            credit: chance.pick(&[None, Some(1), Some(2)]),
            bodies: chance.pick(&[None, Some(0), Some(2_000)]),
            slots: chance.pick(&[None, Some(16), Some(64)]),
            sync: chance.pick(&[None, Some(snapshots(u64::MAX)), Some(snapshots(20))]),
            late: chance.pick(&[
                None,
                Some(Lateness { most: 20, lost: 50 }),
                Some(Lateness { most: 150, lost: 20 }),
            ]),
            unreached: chance.pick(&[None, None, Some(1), Some(2), Some(3)]),
            sent: chance.pick(&[None, Some(300), Some(2_000)]),
            voting: false,
        }
    }

    /// Segments are only proposed with storage votes.
    pub(crate) fn voting(self) -> Self {
        Self { voting: true, ..self }
    }

    /// No small limits, but late answers.
    pub(crate) fn with_late_answers() -> Self {
        Self { late: Some(Lateness { most: 150, lost: 20 }), ..Self::default() }
    }

    pub(crate) fn is_voting(&self) -> bool {
        self.voting
    }

    /// Keeps a quorum reachable if this node may be lost.
    pub(crate) fn spare(&mut self, lost: Option<u64>) {
        self.unreached = self.unreached.and(lost.or(self.unreached));
    }

    /// Whether slots leave the memory before a run is over.
    pub(crate) fn is_forgetful(&self) -> bool {
        self.slots.is_some()
    }

    /// The tuning of one life of a node. From `quiet` on, in milliseconds, no answer is late any more.
    pub(crate) fn node(self, chance: Chance, quiet: u64) -> Tuning {
        let usual = Tuning::default();
        Tuning {
            connections: usual.connections,
            sync: self.sync.unwrap_or_default(),
            entry: EntryTuning {
                segment_target: self.segment.unwrap_or(usual.entry.segment_target),
                storage_credit: self.credit.unwrap_or(usual.entry.storage_credit),
                storage_sent_bytes: self.sent.unwrap_or(usual.entry.storage_sent_bytes),
                early: !self.voting,
            },
            recent_bodies: self.bodies.unwrap_or(usual.recent_bodies),
            recent_slots: self.slots.unwrap_or(RECENT_SLOTS),
            answers: self.late.map(|lateness| lateness.answers(chance, quiet)),
            unreached: self.unreached.map(NodeId),
        }
    }
}

impl Lateness {
    fn answers(self, chance: Chance, quiet: u64) -> Answers {
        let (chance, quiet) = (Mutex::new(chance), Duration::from_millis(quiet));
        Answers(Arc::new(move || {
            // An entry whose renewals stay late keeps losing its lease, and could never serve again.
            if turmoil::sim_elapsed().is_some_and(|now| now >= quiet) {
                return Fate::Late(Duration::ZERO);
            }
            let mut chance = chance.lock().unwrap_or_else(PoisonError::into_inner);
            if chance.one_in(self.lost) {
                return Fate::Lost;
            }
            // Some answers come much later than those to later requests.
            let times = if chance.one_in(20) { 5 } else { 1 };
            Fate::Late(Duration::from_millis(chance.below(self.most) * times))
        }))
    }
}

//! How far the members hold the log, as the leader records it in the order now and then.
//!
//! Invariant: a mark is at most what the member has acknowledged in this leader's term, and is committed: no later leader
//! removes it. So a member that has less has forgotten something.
//!
//! Deliberately absent: separate log entries. Marks are added to a command that is made anyway, so that an idle log
//! stays unchanged.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use crate::consensus::machine::Applied;
use crate::consensus::machine::Raft;
use crate::sequencer::{Held, Proposal};

/// The shortest time between two marks.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Marks {
    written: Option<Instant>,
}

impl Marks {
    /// The step that writes the marks, if one is due and this member leads.
    pub(super) fn step(&mut self, raft: &Raft, applied: &Applied) -> Option<Proposal> {
        if self.written.is_some_and(|written| written.elapsed() < EVERY) {
            return None;
        }
        // The metrics are released before the state is locked: holding both could wait for Raft for ever.
        let (term, matched) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_term, metrics.replication.clone()?)
        };
        let committed = applied.state().last.map_or(0, |last| last.index);
        let marks = matched.into_iter().filter_map(|(node, matched)| {
            let index = matched?.index.min(committed);
            Some((node, Held { term, index }))
        });
        let marks = marks.collect();
        self.written = Some(Instant::now());
        Some(Proposal::Held { marks })
    }
}

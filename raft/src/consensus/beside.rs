//! What the log requires of the storage on the same node before it takes an entry that names bodies (`local_bodies`).
//!
//! Invariant: an entry that is not known to be committed is taken only once its bodies are here.
//!
//! Deliberately absent: how bodies are stored, which a storage does.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::types::LogEntry;
use crate::ids::NodeId;
use crate::local_bodies::LocalBodies;
use crate::mutant::{planted, Mutant};
use crate::order::SealedSegment;
use crate::sequencer::Proposal;

/// How long a body may be on its way from its entry before it is fetched from the leader. After that, the entry counts as not
/// sending until one of its bodies arrives. So a broken connection from an entry costs this delay once, not once per log entry.
const ON_ITS_WAY: Duration = Duration::from_millis(25);

/// What the log knows of bodies.
#[derive(Clone)]
pub(crate) struct Beside {
    /// None if the sync members are not the storages: then no early segment is accepted.
    bodies: Option<Arc<dyn LocalBodies>>,
    /// The index through which the log is known to be committed. A leader sends it before its entries are accepted.
    committed: Arc<AtomicU64>,
}

/// The body of an early segment is missing.
#[derive(Debug, thiserror::Error)]
#[error("the body of {} is not here", .0.id)]
pub(crate) struct Lacking(SealedSegment);

impl Beside {
    pub(crate) fn new(bodies: Option<Arc<dyn LocalBodies>>) -> Self {
        Self { bodies, committed: Arc::default() }
    }

    fn held(&self, segment: &SealedSegment) -> bool {
        self.bodies.as_ref().is_some_and(|bodies| bodies.held(segment))
    }

    /// Checks that the bodies of these entries are here; returns the index of the last entry that is accepted without its
    /// bodies, because it is committed.
    ///
    /// # Errors
    /// If a body is missing, and the entry is not known to be committed.
    pub(crate) fn check(&self, entries: &[LogEntry]) -> Result<Option<u64>, Lacking> {
        let committed = self.committed.load(Ordering::Acquire);
        let mut without = None;
        for entry in entries {
            for segment in early(entry) {
                match self.held(&segment) {
                    true => {}
                    false if entry.log_id.index <= committed => without = Some(entry.log_id.index),
                    false if planted(Mutant::TakeWithoutBody) => {}
                    false => return Err(Lacking(segment)),
                }
            }
        }
        Ok(without)
    }

    /// Waits until the bodies of these entries are here, except for committed entries. Bodies that do not arrive by themselves
    /// are fetched from the leader.
    ///
    /// # Errors
    /// If one has not come in time.
    pub(crate) async fn take_in(
        &self,
        entries: &[LogEntry],
        committed: u64,
        leader: NodeId,
        limit: Duration,
    ) -> Result<(), Lacking> {
        self.committed.fetch_max(committed, Ordering::AcqRel);
        let fresh = entries.iter().filter(|entry| entry.log_id.index > committed);
        self.come(fresh.flat_map(early).collect(), Some(leader), limit).await
    }

    /// Waits until all these bodies are here. Bodies that are no longer on their way are fetched, if there is a member to fetch
    /// from.
    ///
    /// # Errors
    /// If one has not come in time, or is known not to come.
    pub(crate) async fn come(
        &self,
        mut segments: Vec<SealedSegment>,
        from: Option<NodeId>,
        limit: Duration,
    ) -> Result<(), Lacking> {
        let Some(bodies) = &self.bodies else {
            return segments.pop().map_or(Ok(()), |segment| Err(Lacking(segment)));
        };
        if planted(Mutant::TakeWithoutBody) {
            return Ok(());
        }
        let mut arrived = bodies.arrived();
        segments.retain(|segment| !bodies.held(segment));
        let begun = Instant::now();
        let deadline = begun + limit;
        // Without a member to fetch from, it can only wait.
        let late_at = if from.is_some() { deadline.min(begun + ON_ITS_WAY) } else { deadline };
        let mut late = false;
        let mut asked = BTreeSet::new();
        let mut ask_again = begun;
        while !segments.is_empty() {
            let now = Instant::now();
            if now >= late_at && !late {
                late = true;
                bodies.late(&segments);
            }
            if now >= ask_again {
                asked.clear();
                ask_again = now + ON_ITS_WAY;
            }
            let mut gone = segments.iter().filter(|segment| late || !bodies.comes(segment));
            match from {
                Some(from) if now < deadline => {
                    let gone = gone.filter(|segment| !asked.contains(&segment.id));
                    let gone: Vec<SealedSegment> = gone.cloned().collect();
                    if !gone.is_empty() && bodies.fetch(from, &gone) {
                        asked.extend(gone.iter().map(|segment| segment.id));
                        ask_again = now + ON_ITS_WAY;
                    }
                }
                _ => {
                    if let Some(lacking) = gone.next() {
                        return Err(Lacking(lacking.clone()));
                    }
                }
            }
            let until = if late { ask_again } else { late_at.min(ask_again) };
            let _ = tokio::time::timeout_at(until.min(deadline), arrived.changed()).await;
            segments.retain(|segment| !bodies.held(segment));
        }
        Ok(())
    }
}

/// The early segments of an entry.
fn early(entry: &LogEntry) -> Vec<SealedSegment> {
    let openraft::EntryPayload::Normal(command) = &entry.payload else { return Vec::new() };
    // An unreadable entry is reported when it is applied.
    let Ok(command) = command.decode() else { return Vec::new() };
    let early = command.steps.into_iter().filter_map(|step| match step {
        Proposal::ResolveEarly(segment) => Some(segment),
        _ => None,
    });
    early.collect()
}

#[cfg(test)]
pub(crate) mod tests;

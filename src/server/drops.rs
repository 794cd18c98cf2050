//! Messages that are dropped without an answer, as WAMP requires: counted, and reported to the operator.
//!
//! Invariant: at most one line per [`QUIET`] is logged, whatever clients do.
//!
//! Deliberately absent: which messages these are (`gate`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::gate::Dropped;
use crate::types::event::SessionId;

/// The shortest time between two lines in the log.
const QUIET: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Drops {
    count: AtomicU64,
    told: Mutex<Option<LastReport>>,
}

/// The last line in the log.
#[derive(Debug)]
struct LastReport {
    at: Instant,
    count: u64,
}

impl Drops {
    /// How many messages were dropped since the process started.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// A session has dropped messages.
    pub(crate) fn note(&self, session: SessionId, dropped: &Dropped) {
        let count = self.count.fetch_add(dropped.count, Ordering::Relaxed) + dropped.count;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if told.as_ref().is_some_and(|told| now < told.at + QUIET) {
            return;
        }
        let since = count - told.as_ref().map_or(0, |told| told.count);
        *told = Some(LastReport { at: now, count });
        let reason = &dropped.reason;
        tracing::warn!(session = session.0, since, reason, "dropped, and the client was not told");
    }
}

//! The realms' state as a node shares it: the replica applies slots, sessions read.
//!
//! Deliberately absent: waiting. Readers hold the lock only while they copy what they need.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vulpes_raft::order::Resolution;

use super::{Applied, Realms, View};
use crate::segment::Segment;

/// A node's state of all realms. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SharedRealms {
    realms: Arc<Mutex<Realms>>,
    /// Whether anybody waits for a value, as of the last slot.
    lines: Arc<AtomicBool>,
}

impl SharedRealms {
    #[must_use]
    pub fn new(realms: Realms) -> Self {
        let lines = Arc::new(AtomicBool::new(realms.has_lines()));
        Self { realms: Arc::new(Mutex::new(realms)), lines }
    }

    /// Applies the next slot: for the replica alone.
    pub fn apply(&self, resolution: &Resolution, segment: Option<&Segment>) -> Applied {
        let mut realms = self.realms.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = realms.apply(resolution, segment);
        self.lines.store(realms.has_lines(), Ordering::Relaxed);
        applied
    }

    /// Whether anybody waits for a value. Costs no lock.
    #[must_use]
    pub fn has_lines(&self) -> bool {
        self.lines.load(Ordering::Relaxed)
    }

    /// The retained values as they are now.
    #[must_use]
    pub fn view(&self) -> View {
        self.with(Realms::view)
    }

    /// Reads the state.
    pub fn with<R>(&self, look: impl FnOnce(&Realms) -> R) -> R {
        look(&self.realms.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

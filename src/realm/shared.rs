//! The realms' state as a node shares it: the replica applies slots, sessions read.
//!
//! Deliberately absent: waiting. Readers hold the lock only while they copy what they need.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vulpes_raft::ids::Position;
use vulpes_raft::order::Resolution;

use super::{Applied, ReadValue, Realms, Unread, View};
use crate::segment::Segment;

/// A node's state of all realms. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SharedRealms {
    realms: Arc<Mutex<Realms>>,
    /// Whether any publish waits for a value, as of the last slot.
    lines: Arc<AtomicBool>,
    /// The position of the last change of users or roles, as of the last slot.
    access: Arc<AtomicU64>,
}

impl SharedRealms {
    #[must_use]
    pub fn new(realms: Realms) -> Self {
        let lines = Arc::new(AtomicBool::new(realms.has_lines()));
        let access = Arc::new(AtomicU64::new(realms.access_changed().0));
        Self { realms: Arc::new(Mutex::new(realms)), lines, access }
    }

    /// The large values that a segment needs and that are not decoded yet, for [`SharedRealms::apply`]. The caller decodes them
    /// without holding the lock.
    #[must_use]
    pub fn unread(&self, segment: Option<&Segment>) -> Vec<Unread> {
        match segment.filter(|segment| segment.touches_state()) {
            Some(segment) => self.lock().unread(segment),
            None => Vec::new(),
        }
    }

    /// Applies the next slot, with the values that were decoded for it. Only the replica calls this.
    pub fn apply(
        &self,
        resolution: &Resolution,
        segment: Option<&Segment>,
        read: Vec<ReadValue>,
    ) -> Applied {
        let mut realms = self.lock();
        let applied = realms.apply_with((resolution, segment), read);
        self.lines.store(realms.has_lines(), Ordering::Relaxed);
        self.access.store(realms.access_changed().0, Ordering::Release);
        applied
    }

    fn lock(&self) -> MutexGuard<'_, Realms> {
        self.realms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any publish waits for a value. Takes no lock.
    #[must_use]
    pub fn has_lines(&self) -> bool {
        self.lines.load(Ordering::Relaxed)
    }

    /// The position of the last change of users or roles since this node started. Takes no lock.
    #[must_use]
    pub fn access_changed(&self) -> Position {
        Position(self.access.load(Ordering::Acquire))
    }

    /// The retained values as they are now.
    #[must_use]
    pub fn view(&self) -> View {
        self.with(Realms::view)
    }

    /// Reads the state.
    pub fn with<R>(&self, look: impl FnOnce(&Realms) -> R) -> R {
        look(&self.lock())
    }
}

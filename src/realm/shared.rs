//! The realms' state as a node shares it: the replica applies slots, sessions read.
//!
//! Deliberately absent: waiting. Readers hold the lock only while they copy what they need.

use std::sync::{Arc, Mutex, PoisonError};

use vulpes_raft::order::Resolution;

use super::{Applied, Realms, View};
use crate::segment::Segment;

/// A node's state of all realms. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SharedRealms(Arc<Mutex<Realms>>);

impl SharedRealms {
    #[must_use]
    pub fn new(realms: Realms) -> Self {
        Self(Arc::new(Mutex::new(realms)))
    }

    /// Applies the next slot: for the replica alone.
    pub fn apply(&self, resolution: &Resolution, segment: Option<&Segment>) -> Applied {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).apply(resolution, segment)
    }

    /// The retained values as they are now.
    #[must_use]
    pub fn view(&self) -> View {
        self.with(Realms::view)
    }

    /// Reads the state.
    pub fn with<R>(&self, look: impl FnOnce(&Realms) -> R) -> R {
        look(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

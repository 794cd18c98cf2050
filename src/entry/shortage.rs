//! Whether the storages have room for what clients publish.
//!
//! One storage whose disk runs low is enough: what is published goes to every storage of its group, so its disk would fill, and
//! the node would end. A storage that does not answer does not count. So to go on without it, stop its node.
//!
//! Invariant: it is only about what clients publish. Sessions, wills, users and releases go on.
//!
//! Deliberately absent: who asks the storages (`cluster::space`), and what a client is told (`gate`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vulpes_raft::ids::NodeId;

/// The storages whose disks run low, as an entry knows it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shortage(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_there: AtomicBool,
    low: Mutex<BTreeSet<NodeId>>,
}

impl Shortage {
    /// Whether there is one, so that clients may not publish.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_there.load(Ordering::Relaxed)
    }

    /// The storages that have one, ascending.
    #[must_use]
    pub fn storages(&self) -> Vec<NodeId> {
        self.low().iter().copied().collect()
    }

    /// Notes whether a storage's disk runs low; true if that is new.
    pub fn note(&self, storage: NodeId, is_low: bool) -> bool {
        let mut low = self.low();
        let changed = if is_low { low.insert(storage) } else { low.remove(&storage) };
        self.0.is_there.store(!low.is_empty(), Ordering::Relaxed);
        changed
    }

    fn low(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.0.low.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_storage_is_enough_and_all_have_to_have_room_again() {
        let shortage = Shortage::default();
        assert!(!shortage.note(NodeId(1), false) && !shortage.is_there());
        assert!(shortage.note(NodeId(2), true) && shortage.note(NodeId(1), true));
        assert!(!shortage.note(NodeId(1), true));
        assert_eq!(shortage.storages(), [NodeId(1), NodeId(2)]);
        assert!(shortage.note(NodeId(2), false) && shortage.is_there());
        assert!(shortage.note(NodeId(1), false) && !shortage.is_there());
    }
}

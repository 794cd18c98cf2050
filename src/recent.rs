//! The bodies a node has seen lately, for readers near the tail.
//!
//! Invariant: bounded in bytes; the oldest is dropped first. A miss only means a slower read.
//!
//! Deliberately absent: any promise about durability or order. A body here may never be resolved.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use vulpes_raft::ids::AdvanceSegment;

/// A shared, bounded set of recent bodies.
#[derive(Clone, Debug)]
pub struct RecentBodies {
    inner: Arc<Mutex<Inner>>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Inner {
    bodies: HashMap<AdvanceSegment, Bytes>,
    order: VecDeque<AdvanceSegment>,
    size: usize,
}

impl RecentBodies {
    /// An empty set of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { inner: Arc::default(), limit }
    }

    /// Adds a body, and drops the oldest ones if there is no room.
    pub fn insert(&self, id: AdvanceSegment, body: Bytes) {
        let mut inner = self.lock();
        inner.size += body.len();
        match inner.bodies.insert(id, body) {
            Some(replaced) => inner.size -= replaced.len(),
            None => inner.order.push_back(id),
        }
        while inner.size > self.limit {
            let Some(oldest) = inner.order.pop_front() else { break };
            if let Some(body) = inner.bodies.remove(&oldest) {
                inner.size -= body.len();
            }
        }
    }

    /// A body, if it is still here.
    #[must_use]
    pub fn get(&self, id: AdvanceSegment) -> Option<Bytes> {
        self.lock().bodies.get(&id).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use vulpes_raft::ids::{Incarnation, NodeId, SegmentNumber};

    use super::*;

    #[test]
    fn the_oldest_go_first_and_the_bound_holds() {
        let recent = RecentBodies::new(100);
        let id = |number| AdvanceSegment {
            entry: NodeId(1),
            incarnation: Incarnation(1),
            number: SegmentNumber(number),
        };
        for number in 0..5 {
            recent.insert(id(number), Bytes::from(vec![0; 40]));
            recent.insert(id(number), Bytes::from(vec![0; 40]));
        }
        recent.insert(id(4), Bytes::from(vec![0; 50]));
        let kept: Vec<bool> = (0..5).map(|number| recent.get(id(number)).is_some()).collect();
        assert_eq!(kept, [false, false, false, true, true]);
    }
}

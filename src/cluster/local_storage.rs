//! The storage beside a sync member: with it, segments can be proposed before they have storage votes.
//!
//! Invariant: it is used only if the configuration makes all sync members storages and all storages sync members, in one group.
//!
//! Deliberately absent: the rules (`vulpes_raft::local_bodies`), and when to propose early (`entry`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use vulpes_raft::ids::NodeId;
use vulpes_raft::local_bodies::{Deleting, LocalBodies};
use vulpes_raft::order::SealedSegment;

use crate::config::{Member, NodeConfig, Role};
use crate::peer::StorageClient;
use crate::segment::SealedBody;
use crate::storage::Storage;

/// Whether segments can be proposed early in a cluster.
pub(crate) fn early(config: &NodeConfig) -> bool {
    let one = |member: &Member| member.has(Role::Sync) == member.has(Role::Storage);
    config.storage_groups() == 1 && config.nodes.iter().all(one)
}

/// How long a body waits for the log entry that names it, so that one commit takes both. The log entry usually arrives within a
/// millisecond, or else within a round trip to the leader; before that, nothing can use the fact that the body is on disk.
pub(crate) const FOR_ITS_ENTRY: Duration = Duration::from_millis(50);

/// A node's storage, and those of the others.
#[derive(Clone)]
pub(crate) struct StoredBodies {
    storage: Storage,
    others: BTreeMap<NodeId, StorageClient>,
    /// The nodes from which bodies are being fetched.
    asked: Arc<Mutex<BTreeSet<NodeId>>>,
}

impl LocalBodies for StoredBodies {
    fn held(&self, segment: &SealedSegment) -> bool {
        self.storage.held(segment)
    }

    fn arrived(&self) -> watch::Receiver<u64> {
        self.storage.arrivals()
    }

    fn before_deleting(&self, then: Deleting) {
        self.storage.when_deleting(then);
    }

    fn comes(&self, segment: &SealedSegment) -> bool {
        self.storage.comes(segment.id)
    }

    fn late(&self, segments: &[SealedSegment]) {
        let entries: BTreeSet<NodeId> = segments.iter().map(|segment| segment.id.entry).collect();
        for entry in entries {
            self.storage.late(entry);
        }
    }

    /// A fetch continues for as long as any call between nodes may take, however soon the log entry is given up: an unanswered
    /// call shows that its connection is dead.
    fn fetch(&self, from: NodeId, segments: &[SealedSegment]) -> bool {
        let Some(other) = self.others.get(&from).cloned() else { return true };
        if !self.asked().insert(from) {
            return false;
        }
        let (this, segments) = (self.clone(), segments.to_vec());
        tokio::spawn(async move {
            this.fetch_from(&other, segments).await;
            this.asked().remove(&from);
            // Other fetches from there may be waiting.
            this.storage.look_again();
        });
        true
    }
}

impl StoredBodies {
    pub(crate) fn new(storage: Storage, others: BTreeMap<NodeId, StorageClient>) -> Self {
        Self { storage, others, asked: Arc::default() }
    }

    fn asked(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer holds as many bodies from the front as fit into it.
    async fn fetch_from(&self, other: &StorageClient, mut segments: Vec<SealedSegment>) {
        while !segments.is_empty() {
            let names = segments.iter().map(|segment| segment.id).collect();
            let bodies = match other.bodies(names).await {
                Ok(bodies) if bodies.is_empty() => return,
                Ok(bodies) => bodies,
                Err(error) => {
                    tracing::debug!(%error, "bodies that the leader proposed are not to be had yet");
                    return;
                }
            };
            let rest = segments.split_off(segments.len().min(bodies.len()));
            for (segment, body) in segments.into_iter().zip(bodies) {
                let Some(body) = body else { continue };
                let SealedSegment { id, shard, count, checksum, .. } = segment;
                let sealed = SealedBody { id, shard, count, checksum, body };
                if let Err(error) = self.storage.take_fetched(sealed).await {
                    tracing::debug!(%error, "a body from the leader is not appended");
                }
            }
            segments = rest;
        }
    }
}

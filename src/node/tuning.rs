//! Limits that a simulation makes smaller, and answers that it delays or drops, so that rare cases become common: segments that
//! fill up, credit that runs out, bodies and slots that have left the memory, answers that come late or get lost.
//!
//! Invariant: outside of a simulation a node uses the default, which has the values of `limits`. Nodes with different tunings
//! still agree on everything: nothing here affects the order or its fold.
//!
//! Deliberately absent: the network and the disk, which a simulation replaces as a whole (`vulpes_raft::host`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::FutureExt;
use vulpes_raft::ids::{AdvanceSegment, Incarnation, NodeId};
use vulpes_raft::node::Tuning as SyncTuning;
use vulpes_raft::order::{SealedSegment, SegmentOutcome, StorageGroups};

use crate::append::{AppendError, Appended, SegmentStore};
use crate::entry::{EntryTuning, Lease, Opened, OrderError, OrderService};
use crate::log::RECENT_SLOTS;
use crate::segment::SealedBody;
use crate::types::limits;

/// Limits of a node.
#[derive(Clone, Debug)]
pub struct Tuning {
    pub sync: SyncTuning,
    pub entry: EntryTuning,
    /// Client connections; further ones are refused.
    pub connections: usize,
    /// Bytes of bodies in memory that are not read yet.
    pub recent_bodies: usize,
    /// Slots in memory for readers near the tail.
    pub recent_slots: usize,
    /// What happens to the answers that the node's entry gets from storages and sync.
    pub answers: Option<Answers>,
    /// A storage that bodies from the node's entry never reach. Other storages have to be its quorum, and this one has to fetch
    /// them.
    pub unreached: Option<NodeId>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            sync: SyncTuning::default(),
            entry: EntryTuning::default(),
            connections: limits::CONNECTIONS,
            recent_bodies: limits::RECENT_BODIES,
            recent_slots: RECENT_SLOTS,
            answers: None,
            unreached: None,
        }
    }
}

/// Draws the fate of answers.
#[derive(Clone)]
pub struct Answers(pub Arc<dyn Fn() -> Fate + Send + Sync>);

/// What happens to an answer. The request is carried out in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Late(Duration),
    Lost,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

impl Answers {
    /// Applies a fate to an answer; a lost answer becomes this error.
    async fn meet<T, E>(&self, answer: Result<T, E>, lost: E) -> Result<T, E> {
        match (self.0)() {
            Fate::Late(by) => {
                tokio::time::sleep(by).await;
                answer
            }
            Fate::Lost => Err(lost),
        }
    }
}

impl Tuning {
    /// The limits of a process that may have this many files open: clients leave enough of them for everything else.
    #[must_use]
    pub fn with_files(files: Option<u64>) -> Self {
        let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
        let left = files.saturating_sub(limits::RESERVED_FILES).max(files / 2);
        Self { connections: limits::CONNECTIONS.min(left), ..Self::default() }
    }

    pub(crate) fn store(&self, store: Arc<dyn SegmentStore>) -> Arc<dyn SegmentStore> {
        let unreached = self.unreached == Some(store.storage());
        match &self.answers {
            None if !unreached => store,
            answers => Arc::new(TunedStore { store, answers: answers.clone(), unreached }),
        }
    }

    pub(crate) fn ordering(&self, ordering: Arc<dyn OrderService>) -> Arc<dyn OrderService> {
        match self.answers.clone() {
            None => ordering,
            Some(answers) => Arc::new(TunedOrdering { ordering, answers }),
        }
    }
}

struct TunedStore {
    store: Arc<dyn SegmentStore>,
    answers: Option<Answers>,
    unreached: bool,
}

impl TunedStore {
    fn lost(&self, reason: &str) -> AppendError {
        AppendError::Unreachable { storage: self.store.storage(), reason: reason.to_owned() }
    }

    async fn meet<T>(&self, answer: Result<T, AppendError>) -> Result<T, AppendError> {
        match &self.answers {
            None => answer,
            Some(answers) => answers.meet(answer, self.lost("its answer is lost")).await,
        }
    }
}

impl SegmentStore for TunedStore {
    fn storage(&self) -> NodeId {
        self.store.storage()
    }

    fn begin(
        &self,
        entry: NodeId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<u32, AppendError>> {
        async move { self.meet(self.store.begin(entry, incarnation).await).await }.boxed()
    }

    fn append(&self, body: SealedBody) -> BoxFuture<'_, Result<Appended, AppendError>> {
        async move {
            if self.unreached {
                return Err(self.lost("bodies do not reach it"));
            }
            self.meet(self.store.append(body).await).await
        }
        .boxed()
    }

    fn skip(&self, through: AdvanceSegment) -> BoxFuture<'_, Result<(), AppendError>> {
        async move { self.meet(self.store.skip(through).await).await }.boxed()
    }
}

struct TunedOrdering {
    ordering: Arc<dyn OrderService>,
    answers: Answers,
}

impl TunedOrdering {
    async fn meet<T>(&self, answer: Result<T, OrderError>) -> Result<T, OrderError> {
        self.answers.meet(answer, OrderError::Unknown).await
    }
}

impl OrderService for TunedOrdering {
    fn open(&self, entry: NodeId, request: u64) -> BoxFuture<'_, Result<Opened, OrderError>> {
        async move { self.meet(self.ordering.open(entry, request).await).await }.boxed()
    }

    fn propose(
        &self,
        segments: Vec<SealedSegment>,
    ) -> BoxFuture<'_, Result<Vec<SegmentOutcome>, OrderError>> {
        async move { self.meet(self.ordering.propose(segments).await).await }.boxed()
    }

    fn renew(
        &self,
        entry: NodeId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<Lease, OrderError>> {
        async move { self.meet(self.ordering.renew(entry, incarnation).await).await }.boxed()
    }

    fn groups(&self) -> BoxFuture<'_, Result<StorageGroups, OrderError>> {
        async move { self.meet(self.ordering.groups().await).await }.boxed()
    }
}

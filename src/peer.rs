//! Services between nodes: appending bodies to storages, fetching bodies and rows from them, and passing on calls between
//! entries.
//!
//! | service | asks | answers |
//! |---|---|---|
//! | append | an entry | a storage: its storage votes and credit |
//! | fetch | any node | a storage: bodies, rows, slots of positions, status, the realms' state |
//! | calls | an entry | an entry: the progress of calls (both send, without waiting for answers) |
//!
//! Invariant: appending and fetching have separate connections, so that a vote never waits behind a history replay. Whatever
//! bytes a peer sends, they end at most their own connection.
//!
//! Deliberately absent: accepting connections and the hello (`wire`, and the node's wiring), and repeating calls.
//!
//! In reading order: `wire` has the messages; `serve` answers requests, `open_snapshot` holds state between answers;
//! `connection` dials. `calls` is separate.

mod calls;
mod connection;
mod open_snapshot;
mod serve;
mod wire;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use vulpes_raft::host::Host;
use vulpes_raft::ids::{
    AdvanceSegment, DiskId, Incarnation, NodeId, Position, Shard, Shards, Slot,
};
use vulpes_raft::net::wire::{Identity, Service};
use vulpes_raft::order::Resolution;

use crate::append::{AppendError, Appended, SegmentStore};
use crate::log::{self, Source, SourceError};
use crate::segment::SealedBody;
use crate::storage::{self, ReadError, Reads, Storage, StorageStatus};
use crate::types::limits;
use crate::types::row::{BadRow, FromRows};
use connection::{Connector, Peer};
use wire::{AppendAnswer, AppendRequest, FetchAnswer, FetchRequest, StateHead};

pub use calls::{talk, Talker};
pub use serve::{serve_append, serve_fetch};
pub use wire::Rows;

/// Time limit to append a body, including dialling and the storage's group commit. Callers have to wait longer: a call that its
/// caller gives up earlier does not count as a failure of the connection, which is then kept.
pub(crate) const APPEND_DEADLINE: Duration = Duration::from_millis(2_500);

/// Time limit of one read, including dialling. Replicas wait for reads, and so do their subscribers.
const FETCH_DEADLINE: Duration = Duration::from_secs(3);

/// Why a fetch from a storage failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It can't be reached or did not answer in time. Retrying is harmless.
    #[error("storage {storage} does not answer: {reason}")]
    Unreachable { storage: NodeId, reason: String },
    /// The node at that address has another disk than the enrolled one: it holds nothing that was voted for.
    #[error("storage {storage} lost its disk: {}", vulpes_raft::net::wire::wiped(*.storage))]
    Wiped { storage: NodeId },
    /// It refuses us, or is another node. Retrying helps only after an operator has changed something.
    #[error("storage {storage} can't be used: {reason}")]
    Refused { storage: NodeId, reason: String },
    /// It answers, but can't read its disk.
    #[error("storage {storage}: {error}")]
    Read { storage: NodeId, error: ReadError },
}

/// Keys and values.
pub type StateRows = Vec<(Bytes, Bytes)>;

/// A storage of the cluster, here or on another node. Clones share its connections.
#[derive(Clone)]
pub struct StorageClient {
    place: Where,
}

#[derive(Clone)]
enum Where {
    Here(Storage, Reads),
    There(Arc<Remote>),
}

struct Remote {
    peer: Arc<Peer>,
    /// The shards of its group.
    shards: Shards,
    append: Connector<AppendRequest, AppendAnswer>,
    fetch: Connector<FetchRequest, FetchAnswer>,
    /// Held while the state is read: a connection has only one snapshot.
    reading_state: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for StorageClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StorageClient({})", self.node())
    }
}

impl StorageClient {
    /// This node's own storage, with this way of reading.
    #[must_use]
    pub fn local(storage: Storage, reads: Reads) -> Self {
        Self { place: Where::Here(storage, reads) }
    }

    /// A storage on another node, whose group holds these shards. It is dialled at the first request. If `disk` is
    /// known, a node with another disk is rejected.
    #[must_use]
    pub fn remote(
        host: &Host,
        own: &Identity,
        (node, shards): (NodeId, Shards),
        address: &str,
        disk: Option<DiskId>,
    ) -> Self {
        let peer = Arc::new(Peer {
            host: host.clone(),
            own: own.clone(),
            node,
            address: address.to_owned(),
            disk: disk.into(),
        });
        let append = (serve::APPEND_REQUESTS, APPEND_DEADLINE);
        let fetch = (serve::FETCH_REQUESTS, FETCH_DEADLINE);
        Self {
            place: Where::There(Arc::new(Remote {
                append: Connector::new(peer.clone(), Service::Append, append.0, append.1),
                fetch: Connector::new(peer.clone(), Service::Fetch, fetch.0, fetch.1),
                reading_state: tokio::sync::Mutex::default(),
                peer,
                shards,
            })),
        }
    }

    /// The storage's node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        match &self.place {
            Where::Here(storage, _) => storage.node(),
            Where::There(remote) => remote.peer.node,
        }
    }

    /// Whether it stores bodies of this shard's segments.
    #[must_use]
    pub fn stores(&self, shard: Shard) -> bool {
        match &self.place {
            Where::Here(storage, _) => storage.stores(shard),
            Where::There(remote) => remote.shards.contains(shard),
        }
    }

    /// Sets the disk it was enrolled with. A connection to another one is not used again.
    pub fn expect_disk(&self, disk: DiskId) {
        if let Where::There(remote) = &self.place {
            *remote.peer.disk.lock().unwrap_or_else(PoisonError::into_inner) = Some(disk);
        }
    }

    /// Bodies by name, as many from the front as fit one answer; `None` if it has none, or a damaged one. The caller
    /// checks that a body is the one that was voted for.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn bodies(
        &self,
        segments: Vec<AdvanceSegment>,
    ) -> Result<Vec<Option<Bytes>>, FetchError> {
        match &self.place {
            Where::Here(storage, reads) => {
                let storage = storage.clone();
                self.read(reads.run(move || storage::read_bodies(&storage, &segments)).await)
            }
            Where::There(remote) => {
                match remote.fetch.call(FetchRequest::Bodies(segments)).await? {
                    FetchAnswer::Bodies(bodies) => self.read(bodies),
                    _ => Err(self.confused()),
                }
            }
        }
    }

    /// Rows of the order from a slot on, at most `max` and [`limits::READ_ROWS`].
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn rows(&self, from: Slot, max: usize) -> Result<Rows, FetchError> {
        match &self.place {
            Where::Here(storage, reads) => {
                let storage = storage.clone();
                self.read(reads.run(move || serve::read_rows(&storage, from, max)).await)
            }
            Where::There(remote) => {
                let max = max.min(limits::READ_ROWS) as u32;
                match remote.fetch.call(FetchRequest::Rows { from, max }).await? {
                    FetchAnswer::Rows(rows) => self.read(rows),
                    _ => Err(self.confused()),
                }
            }
        }
    }

    /// The row whose segment contains a position; `None` if the storage has none.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn slot_of(&self, position: Position) -> Result<Option<Resolution>, FetchError> {
        match &self.place {
            Where::Here(storage, reads) => {
                let storage = storage.clone();
                self.read(reads.run(move || storage.slot_of(position)).await)
            }
            Where::There(remote) => {
                match remote.fetch.call(FetchRequest::SlotOf(position)).await? {
                    FetchAnswer::SlotOf(row) => self.read(row),
                    _ => Err(self.confused()),
                }
            }
        }
    }

    /// The storage's status.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn status(&self) -> Result<StorageStatus, FetchError> {
        match &self.place {
            Where::Here(storage, _) => self.read(storage.status()),
            Where::There(remote) => match remote.fetch.call(FetchRequest::Status).await? {
                FetchAnswer::Status(status) => self.read(status),
                _ => Err(self.confused()),
            },
        }
    }

    /// Whether the storage's disk has too little free space.
    ///
    /// # Errors
    /// If it can't be reached or did not answer in time.
    pub async fn is_low(&self) -> Result<bool, AppendError> {
        match self.call_append(AppendRequest::Space).await? {
            AppendAnswer::Space { is_low } => Ok(is_low),
            _ => Err(self.confused().into()),
        }
    }

    /// The realms' state of the storage, as of one row of the order.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn state<S: FromRows>(&self) -> Result<S, FetchError> {
        match &self.place {
            Where::Here(storage, _) => self.read(storage.state()),
            Where::There(remote) => {
                let (tail, rows) = self.fetch_state(remote).await?;
                let state = S::from_rows(tail.as_ref(), rows);
                self.read(state.map_err(|BadRow| ReadError::DamagedState))
            }
        }
    }

    /// The rows of the realms' state of another node's storage, and the row of the order that they belong to.
    ///
    /// # Errors
    /// See [`FetchError`]; also if the storage is this node's own.
    pub async fn state_rows(&self) -> Result<(Option<Resolution>, StateRows), FetchError> {
        match &self.place {
            Where::Here(..) => {
                let reason = "it is this node's own".into();
                Err(FetchError::Refused { storage: self.node(), reason })
            }
            Where::There(remote) => self.fetch_state(remote).await,
        }
    }

    async fn fetch_state(
        &self,
        remote: &Remote,
    ) -> Result<(Option<Resolution>, StateRows), FetchError> {
        let _one = remote.reading_state.lock().await;
        let fetch = &remote.fetch;
        let StateHead { id, tail } = match fetch.call(FetchRequest::StateBegin).await? {
            FetchAnswer::StateBegin(head) => self.read(head)?,
            _ => return Err(self.confused()),
        };
        let mut rows = Vec::new();
        loop {
            let page = match fetch.call(FetchRequest::StateNext { id }).await? {
                FetchAnswer::StateNext(page) => self.read(page)?,
                _ => return Err(self.confused()),
            };
            if page.rows.is_empty() && !page.last {
                return Err(self.confused());
            }
            rows.extend(page.rows);
            if page.last {
                return Ok((tail, rows));
            }
        }
    }

    fn read<T>(&self, result: Result<T, ReadError>) -> Result<T, FetchError> {
        result.map_err(|error| FetchError::Read { storage: self.node(), error })
    }

    /// The peer sent the answer to another kind of request.
    fn confused(&self) -> FetchError {
        let reason = "it answers what was not asked; run the same release on all nodes".into();
        FetchError::Refused { storage: self.node(), reason }
    }

    async fn call_append(&self, request: AppendRequest) -> Result<AppendAnswer, AppendError> {
        match &self.place {
            Where::Here(storage, _) => Ok(match request {
                AppendRequest::Begin { entry, incarnation } => {
                    AppendAnswer::Begin(storage.begin(entry, incarnation))
                }
                AppendRequest::Append(body) => AppendAnswer::Append(storage.append(body).await),
                AppendRequest::Skip(through) => {
                    storage.skipped(through);
                    AppendAnswer::Skip(Ok(()))
                }
                AppendRequest::Space => AppendAnswer::Space { is_low: storage.is_low() },
            }),
            Where::There(remote) => remote.append.call(request).await.map_err(AppendError::from),
        }
    }
}

impl From<FetchError> for AppendError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Unreachable { storage, reason }
            | FetchError::Refused { storage, reason } => Self::Unreachable { storage, reason },
            FetchError::Wiped { storage } => {
                Self::Unreachable { storage, reason: vulpes_raft::net::wire::wiped(storage) }
            }
            FetchError::Read { storage, error } => {
                Self::Unreachable { storage, reason: error.to_string() }
            }
        }
    }
}

impl SegmentStore for StorageClient {
    fn storage(&self) -> NodeId {
        self.node()
    }

    fn begin(
        &self,
        entry: NodeId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<u32, AppendError>> {
        Box::pin(async move {
            match self.call_append(AppendRequest::Begin { entry, incarnation }).await? {
                AppendAnswer::Begin(credit) => credit,
                _ => Err(self.confused().into()),
            }
        })
    }

    fn append(&self, body: SealedBody) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            match self.call_append(AppendRequest::Append(body)).await? {
                AppendAnswer::Append(appended) => appended,
                _ => Err(self.confused().into()),
            }
        })
    }

    fn skip(&self, through: AdvanceSegment) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async move {
            match self.call_append(AppendRequest::Skip(through)).await? {
                AppendAnswer::Skip(heard) => heard,
                _ => Err(self.confused().into()),
            }
        })
    }
}

impl From<FetchError> for SourceError {
    fn from(error: FetchError) -> Self {
        Self(error.to_string())
    }
}

impl Source for StorageClient {
    fn stores(&self, shard: Shard) -> bool {
        Self::stores(self, shard)
    }

    fn rows(&self, from: Slot, max: usize) -> BoxFuture<'_, Result<log::Rows, SourceError>> {
        Box::pin(async move {
            let Rows { rows, oldest, hidden, .. } = Self::rows(self, from, max).await?;
            Ok(log::Rows { rows, oldest, hidden })
        })
    }

    fn bodies(
        &self,
        segments: Vec<AdvanceSegment>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, SourceError>> {
        Box::pin(async move { Ok(Self::bodies(self, segments).await?) })
    }

    fn row_of(&self, position: Position) -> BoxFuture<'_, Result<Option<Resolution>, SourceError>> {
        Box::pin(async move { Ok(self.slot_of(position).await?) })
    }

    fn head(&self) -> BoxFuture<'_, Result<Slot, SourceError>> {
        Box::pin(async move { Ok(self.status().await?.head) })
    }
}

#[cfg(test)]
mod tests;

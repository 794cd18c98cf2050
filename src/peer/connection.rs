//! A connection to a peer for one service: dialled when first needed, and redialled when it broke.
//!
//! Invariant: there is at most one connection and at most one dial at a time, and never two dials within the backoff.
//! A call that gets no answer in time closes its connection, since a network that lost the answer may never deliver
//! on it again.
//!
//! Deliberately absent: repeating a call. The caller knows whether that is harmless.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::Serialize;
use tarpc::client::{self, Channel, RpcError};
use tarpc::RequestName;
use tokio::task::AbortHandle;
use tokio::time::{timeout_at, Instant};
use vulpes_raft::host::Host;
use vulpes_raft::ids::{DiskId, NodeId};
use vulpes_raft::net::rpc::Contexts;
use vulpes_raft::net::wire::{self, Identity, Link, LinkError, Service};

use super::wire::client_transport;
use super::FetchError;

/// First pause between two dials.
const BACKOFF_LEAST: Duration = Duration::from_millis(50);

/// Longest pause between two dials.
const BACKOFF_MOST: Duration = Duration::from_secs(2);

/// The dialled peer, and the dialling node.
pub(super) struct Peer {
    pub(super) host: Host,
    pub(super) own: Identity,
    pub(super) node: NodeId,
    pub(super) address: String,
    /// The disk it was enrolled with, once known.
    pub(super) disk: Mutex<Option<DiskId>>,
}

impl Peer {
    fn expected_disk(&self) -> Option<DiskId> {
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreachable(&self, reason: impl ToString) -> FetchError {
        FetchError::Unreachable { storage: self.node, reason: reason.to_string() }
    }

    fn failure(&self, error: LinkError) -> FetchError {
        let storage = self.node;
        match error {
            LinkError::Refused(reason) if reason == wire::wiped(storage) => {
                FetchError::Wiped { storage }
            }
            LinkError::Refused(reason) | LinkError::NotAPeer(reason) => {
                FetchError::Refused { storage, reason }
            }
            error @ (LinkError::Io(_) | LinkError::Timeout(_)) => self.unreachable(error),
        }
    }
}

/// The one connection to a peer for a service.
pub(super) struct Connector<Req, Resp> {
    peer: Arc<Peer>,
    service: Service,
    /// Most calls in flight; further ones wait in a queue.
    most: usize,
    /// Time limit of a call, including dialling.
    deadline: Duration,
    /// Failed dials; callers queued behind one fail with it.
    failures: AtomicU64,
    /// Set when a call was answered: the backoff restarts.
    answered: AtomicBool,
    state: tokio::sync::Mutex<State<Req, Resp>>,
}

struct State<Req, Resp> {
    connection: Option<Arc<Connection<Req, Resp>>>,
    failure: Option<FetchError>,
    dial_after: Option<Instant>,
    backoff: Duration,
}

struct Connection<Req, Resp> {
    contexts: Contexts,
    channel: Channel<Req, Resp>,
    disk: DiskId,
    ended: Arc<AtomicBool>,
    dispatch: AbortHandle,
}

impl<Req, Resp> Connection<Req, Resp> {
    /// Closes it: calls that wait on it fail, and the next one dials.
    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.dispatch.abort();
    }
}

impl<Req, Resp> Drop for Connection<Req, Resp> {
    fn drop(&mut self) {
        self.dispatch.abort();
    }
}

impl<Req, Resp> Connector<Req, Resp>
where
    Req: RequestName + Serialize + Send + 'static,
    Resp: DeserializeOwned + Send + 'static,
{
    pub(super) fn new(peer: Arc<Peer>, service: Service, most: usize, deadline: Duration) -> Self {
        Self {
            peer,
            service,
            most,
            deadline,
            failures: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            state: tokio::sync::Mutex::new(State {
                connection: None,
                failure: None,
                dial_after: None,
                backoff: BACKOFF_LEAST,
            }),
        }
    }

    /// Makes one call, without retries.
    ///
    /// # Errors
    /// If there is no connection or no answer in time. The request may still have been carried out.
    pub(super) async fn call(&self, request: Req) -> Result<Resp, FetchError> {
        let by = Instant::now() + self.deadline;
        let late = || self.peer.unreachable(format!("no answer within {:?}", self.deadline));
        let connection = timeout_at(by, self.connection()).await.map_err(|_| late())??;
        let call = connection.channel.call(connection.contexts.next(), request);
        match timeout_at(by, call).await {
            Ok(Ok(response)) => {
                self.answered.store(true, Ordering::Relaxed);
                Ok(response)
            }
            Ok(Err(error)) => {
                if !matches!(error, RpcError::Server(_)) {
                    connection.end();
                }
                Err(self.peer.unreachable(error))
            }
            Err(_) => {
                connection.end();
                Err(late())
            }
        }
    }

    /// The connection. Dials if there is none.
    async fn connection(&self) -> Result<Arc<Connection<Req, Resp>>, FetchError> {
        let failures = self.failures.load(Ordering::Relaxed);
        let mut state = self.state.lock().await;
        let expected = self.peer.expected_disk();
        if let Some(connection) = &state.connection {
            let is_expected = expected.is_none_or(|disk| disk == connection.disk);
            if is_expected && !connection.ended.load(Ordering::Relaxed) {
                return Ok(connection.clone());
            }
            state.connection = None;
        }
        if self.failures.load(Ordering::Relaxed) != failures {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
        }
        if let Some(dial_after) = state.dial_after.filter(|at| *at > Instant::now()) {
            // A reader can ask other storages, and does so as soon as it learns that this one is unreachable.
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            tokio::time::sleep_until(dial_after).await;
        }
        self.dial(&mut state, expected).await
    }

    async fn dial(
        &self,
        state: &mut State<Req, Resp>,
        expected: Option<DiskId>,
    ) -> Result<Arc<Connection<Req, Resp>>, FetchError> {
        let Peer { host, own, node, address, .. } = &*self.peer;
        // Recorded before dialling, so that if a caller gives up while dialling, the next one does not dial at once.
        if self.answered.swap(false, Ordering::Relaxed) {
            state.backoff = BACKOFF_LEAST;
        }
        let half = state.backoff / 2;
        let jitter = host.random.next_u64() % (half.as_millis() as u64 + 1);
        state.dial_after = Some(Instant::now() + half + Duration::from_millis(jitter));
        state.backoff = (state.backoff * 2).min(BACKOFF_MOST);
        match wire::dial(host, own, address, self.service, (*node, expected)).await {
            Ok(link) => {
                let connection = Arc::new(self.start(link));
                state.connection = Some(connection.clone());
                if state.failure.take().is_some() {
                    let service = self.service;
                    tracing::info!("storage {node} at {address} is reached again for {service}");
                }
                Ok(connection)
            }
            Err(error) => {
                if state.failure.is_none() {
                    let service = self.service;
                    tracing::warn!(
                        "storage {node} at {address} can't be reached for {service}: {error}"
                    );
                }
                let failure = self.peer.failure(error);
                state.failure = Some(failure.clone());
                self.failures.fetch_add(1, Ordering::Relaxed);
                Err(failure)
            }
        }
    }

    fn start(&self, link: Link) -> Connection<Req, Resp> {
        let mut config = client::Config::default();
        config.max_in_flight_requests = self.most;
        config.pending_request_buffer = self.most;
        let client = client::new(config, client_transport(link.stream));
        let ended = Arc::new(AtomicBool::new(false));
        let (over, node) = (ended.clone(), self.peer.node);
        let dispatch = tokio::spawn(async move {
            let outcome = client.dispatch.await;
            over.store(true, Ordering::Relaxed);
            if let Err(error) = outcome {
                tracing::debug!(storage = %node, %error, "a connection to a storage broke");
            }
        });
        let (channel, dispatch) = (client.client, dispatch.abort_handle());
        let contexts = Contexts::default();
        Connection { contexts, channel, disk: link.peer.disk, ended, dispatch }
    }
}

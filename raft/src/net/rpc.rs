//! Calls between nodes: tarpc over a connection made by [`wire::dial`], one connection per peer and purpose.
//!
//! Invariant: every call has a deadline, and its failure says whether the peer may have received it. Requests reach
//! the handler in the order in which they were called. A connection on which a call went unanswered is replaced: data
//! that the network lost on it may block everything behind it.
//!
//! Deliberately absent: retries. Only the caller knows whether its request can be repeated.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::StreamExt;
use serde::{de::DeserializeOwned, Serialize};
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::{context, ClientMessage, RequestName, Response};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::host::Host;
use crate::ids::{DiskId, NodeId};
use crate::net::wire::{self, Identity, Link, LinkError, Service};

/// Calls in flight on one connection; further ones wait.
const CALLS_IN_FLIGHT: usize = 256;

/// Calls that a server handles for one connection; more are refused. Our own clients stay below.
const CALLS_SERVED: usize = 2 * CALLS_IN_FLIGHT;

/// Answers that may wait for a slow connection before their handlers have to.
const ANSWERS_WAITING: usize = 64;

/// How much of a call's time dialling may take: a host that is off does not even refuse the connection.
const REACH: Duration = Duration::from_millis(500);

/// tarpc's own deadline, which never fires: see [`Contexts`].
const NEVER: Duration = Duration::from_secs(3_600);

/// How much later each call's deadline is than the one before: more than the machine's clock may differ between the
/// two ends of a connection in one process.
const LATER: Duration = Duration::from_secs(60);

/// Calls after which the deadlines start over, so that they stay within the range of tarpc's timers.
const DEADLINES: u64 = 1 << 16;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The peer certainly did not receive it.
    #[error(transparent)]
    NotSent(#[from] LinkError),
    /// The peer may have received it.
    #[error("no answer: {0}")]
    Lost(String),
}

/// The contexts of one connection's calls.
///
/// tarpc's deadlines follow the machine's clock, which a simulation can't control. Here they are far off, so that tokio's
/// timers do the work. Each is later than the one before, because tarpc's tasks wake up for an earlier deadline, which would
/// depend on the machine's clock.
#[derive(Debug, Default)]
pub struct Contexts(AtomicU64);

impl Contexts {
    /// The context of the next call.
    pub fn next(&self) -> context::Context {
        let call = self.0.fetch_add(1, Ordering::Relaxed) % DEADLINES;
        let mut context = context::current();
        context.deadline += NEVER + LATER * u32::try_from(call).unwrap_or_default();
        context
    }
}

/// The client side of one connection.
struct Caller<Req, Resp> {
    contexts: Contexts,
    channel: tarpc::client::Channel<Req, Resp>,
    dispatch: AbortHandle,
}

impl<Req, Resp> Drop for Caller<Req, Resp> {
    fn drop(&mut self) {
        self.dispatch.abort();
    }
}

impl<Req, Resp> Caller<Req, Resp>
where
    Req: RequestName + Serialize + Send + 'static,
    Resp: DeserializeOwned + Send + 'static,
{
    fn start(link: Link) -> Self {
        let transport = wire::transport::<Response<Resp>, ClientMessage<Req>>(link.stream);
        let mut config = tarpc::client::Config::default();
        config.max_in_flight_requests = CALLS_IN_FLIGHT;
        config.pending_request_buffer = CALLS_IN_FLIGHT;
        let client = tarpc::client::new(config, transport);
        let peer = link.peer.node;
        let dispatch = tokio::spawn(async move {
            if let Err(error) = client.dispatch.await {
                tracing::debug!("connection to node {peer} ended: {error}");
            }
        });
        let contexts = Contexts::default();
        Self { contexts, channel: client.client, dispatch: dispatch.abort_handle() }
    }
}

/// Access to one peer for one purpose: dialled when first used, and redialled after it broke.
pub struct Lane<Req, Resp> {
    host: Host,
    own: Identity,
    address: String,
    service: Service,
    expected: (NodeId, Option<DiskId>),
    caller: Mutex<Option<Arc<Caller<Req, Resp>>>>,
    /// Whether it has been logged that the peer can't be reached.
    unreached: AtomicBool,
}

impl<Req, Resp> Lane<Req, Resp>
where
    Req: RequestName + Serialize + Send + 'static,
    Resp: DeserializeOwned + Send + 'static,
{
    /// A lane to the node `expected`, with its disk if known.
    #[must_use]
    pub fn new(
        host: &Host,
        own: &Identity,
        address: &str,
        service: Service,
        expected: (NodeId, Option<DiskId>),
    ) -> Self {
        Self {
            host: host.clone(),
            own: own.clone(),
            address: address.to_owned(),
            service,
            expected,
            caller: Mutex::new(None),
            unreached: AtomicBool::new(false),
        }
    }

    /// Sends a request and waits up to `limit` for its answer, including at most half a second for dialling.
    ///
    /// # Errors
    /// [`CallError`] says whether the peer may have received it.
    pub async fn call(&self, request: Req, limit: Duration) -> Result<Resp, CallError> {
        let deadline = Instant::now() + limit;
        let reach = limit.min(REACH);
        let reached = tokio::time::timeout(reach, self.caller()).await;
        let reached = reached.unwrap_or(Err(LinkError::Timeout(reach)));
        self.tell(reached.as_ref().err());
        let caller = reached?;
        let called = caller.channel.call(caller.contexts.next(), request);
        let error = match tokio::time::timeout_at(deadline, called).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("none within {limit:?}"),
        };
        self.give_up(&caller).await;
        Err(CallError::Lost(error))
    }

    /// Logs when the peer becomes unreachable, and when it is reachable again.
    fn tell(&self, failure: Option<&LinkError>) {
        if self.unreached.swap(failure.is_some(), Ordering::Relaxed) == failure.is_some() {
            return;
        }
        let (node, address, service) = (self.expected.0, &self.address, self.service);
        match failure {
            Some(failure) => {
                tracing::warn!(
                    "node {node} at {address} can't be reached for {service}: {failure}"
                );
            }
            None => tracing::info!("node {node} at {address} is reached again for {service}"),
        }
    }

    async fn caller(&self) -> Result<Arc<Caller<Req, Resp>>, LinkError> {
        let mut current = self.caller.lock().await;
        if let Some(caller) = current.as_ref().filter(|caller| !caller.dispatch.is_finished()) {
            return Ok(caller.clone());
        }
        let link =
            wire::dial(&self.host, &self.own, &self.address, self.service, self.expected).await?;
        let caller = Arc::new(Caller::start(link));
        *current = Some(caller.clone());
        Ok(caller)
    }

    /// Drops a connection that failed a call, unless it has been replaced already.
    async fn give_up(&self, failed: &Arc<Caller<Req, Resp>>) {
        let mut current = self.caller.lock().await;
        if current.as_ref().is_some_and(|caller| Arc::ptr_eq(caller, failed)) {
            *current = None;
            failed.dispatch.abort();
        }
    }
}

/// Serves one connection until it ends. Handlers start in the order of their requests, and are dropped when the peer
/// gives up on them or the connection ends: they must hand on everything that has to be finished.
pub async fn serve<Req, Resp, Handler, Answering>(link: Link, handler: Handler)
where
    Req: RequestName + DeserializeOwned + Send + 'static,
    Resp: Serialize + Send + 'static,
    Handler: Fn(Req) -> Answering,
    Answering: Future<Output = Resp>,
{
    let transport = wire::transport::<ClientMessage<Req>, Response<Resp>>(link.stream);
    let config = tarpc::server::Config { pending_response_buffer: ANSWERS_WAITING };
    let channel = BaseChannel::new(config, transport).max_concurrent_requests(CALLS_SERVED);
    let mut requests = pin!(channel.requests());
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = running.next(), if !running.is_empty() => {}
            request = requests.next() => {
                let request = match request {
                    Some(Ok(request)) => request,
                    Some(Err(error)) => {
                        tracing::debug!("connection from node {} ended: {error}", link.peer.node);
                        break;
                    }
                    None => break,
                };
                let serve = tarpc::server::serve(|_, request| {
                    let answer = handler(request);
                    async move { Ok(answer.await) }
                });
                // Polled once before the next request is read: this keeps them in order.
                let mut answering = Box::pin(request.execute(serve));
                if futures::poll!(&mut answering).is_pending() {
                    running.push(answering);
                }
            }
        }
    }
}

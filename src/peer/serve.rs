//! Answers one peer's connection from this node's storage.
//!
//! Invariant: a connection costs the memory of at most [`APPEND_REQUESTS`] or [`FETCH_REQUESTS`] requests, and its
//! errors end only that connection.
//!
//! Deliberately absent: accepting connections. Nothing here writes either: a body is in the storage's queue or
//! nowhere, so a handler that is dropped halfway loses nothing.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tarpc::server::{self, BaseChannel, Channel, Config};
use tarpc::{ClientMessage, RequestName, Response, Transport};
use tokio::task::JoinSet;
use tokio::time::Instant;
use vulpes_raft::ids::{NodeId, Slot};
use vulpes_raft::net::wire::Link;

use super::open_snapshot::OpenSnapshot;
use super::wire::{server_transport, AppendAnswer, AppendRequest, FetchAnswer, FetchRequest, Rows};
use crate::append::AppendError;
use crate::storage::{self, ReadError, Reads, Storage, Stored};

/// Most requests of one entry in flight on its connection.
pub(super) const APPEND_REQUESTS: usize = 72;

/// Most reads of one peer in flight. Each answer may be several bodies.
pub(super) const FETCH_REQUESTS: usize = 4;

/// How long a connection without requests stays open. The peer may have vanished silently; if not, it dials again.
const IDLE: Duration = Duration::from_secs(120);

const _: () = assert!(
    APPEND_REQUESTS >= crate::types::limits::STORAGE_SENDS + 2,
    "a begin, and word of what is not sent, don't wait behind bodies"
);

/// Serves an entry's bodies until its connection ends.
pub async fn serve_append(link: Link, storage: Storage) {
    let peer = link.peer.node;
    let appended = storage.clone();
    let answer = move |request| answer_append(peer, appended.clone(), request);
    let ended = serve(server_transport(link.stream), answer, APPEND_REQUESTS).await;
    storage.lost_sight_of(peer);
    tracing::debug!(%peer, ?ended, "a connection for keeping bodies ended");
}

/// Serves a peer's reads through `reads` until its connection ends.
pub async fn serve_fetch(link: Link, storage: Storage, reads: Reads) {
    let peer = link.peer.node;
    let lent = OpenSnapshot::default();
    let answer = move |request| {
        let (storage, lent, reads) = (storage.clone(), lent.clone(), reads.clone());
        async move { reads.run(move || answer_fetch(&storage, &lent, request)).await }
    };
    let ended = serve(server_transport(link.stream), answer, FETCH_REQUESTS).await;
    tracing::debug!(%peer, ?ended, "a connection for fetching ended");
}

/// Serves requests, a limited number at once, until the connection ends or idles.
async fn serve<T, Req, Resp, F, Answer>(transport: T, answer: F, most: usize) -> io::Result<()>
where
    T: Transport<Response<Resp>, ClientMessage<Req>, TransportError = io::Error>,
    Req: RequestName + Send + 'static,
    Resp: Send + 'static,
    F: Fn(Req) -> Answer + Clone + Send + 'static,
    Answer: Future<Output = Resp> + Send + 'static,
{
    let config = Config { pending_response_buffer: most };
    let channel = BaseChannel::new(config, transport).max_concurrent_requests(most);
    let mut requests = std::pin::pin!(channel.requests());
    let mut handlers = JoinSet::new();
    let mut last_request = Instant::now();
    loop {
        tokio::select! {
            biased;
            request = requests.next() => match request {
                Some(Ok(request)) => {
                    last_request = Instant::now();
                    let answer = answer.clone();
                    let handler = server::serve(move |_, request| answer(request).map(Ok));
                    handlers.spawn(request.execute(handler));
                }
                Some(Err(error)) => return Err(io::Error::other(error.to_string())),
                None => return Ok(()),
            },
            Some(_) = handlers.join_next() => {}
            () = tokio::time::sleep_until(last_request + IDLE), if handlers.is_empty() => {
                return Ok(());
            }
        }
    }
}

/// An entry speaks only for itself: its bodies and incarnations come from its own node.
async fn answer_append(peer: NodeId, storage: Storage, request: AppendRequest) -> AppendAnswer {
    let stranger = |entry| {
        AppendError::Damaged(format!("node {peer} speaks for itself, not for node {entry}"))
    };
    match request {
        AppendRequest::Begin { entry, .. } if entry != peer => {
            AppendAnswer::Begin(Err(stranger(entry)))
        }
        AppendRequest::Begin { entry, incarnation } => {
            AppendAnswer::Begin(storage.begin(entry, incarnation))
        }
        AppendRequest::Append(body) if body.id.entry != peer => {
            AppendAnswer::Append(Err(stranger(body.id.entry)))
        }
        AppendRequest::Append(body) => AppendAnswer::Append(storage.append(body).await),
        AppendRequest::Skip(through) if through.entry != peer => {
            AppendAnswer::Skip(Err(stranger(through.entry)))
        }
        AppendRequest::Skip(through) => {
            storage.skipped(through);
            AppendAnswer::Skip(Ok(()))
        }
        AppendRequest::Space => AppendAnswer::Space { is_low: storage.is_low() },
    }
}

fn answer_fetch(storage: &Storage, lent: &OpenSnapshot, request: FetchRequest) -> FetchAnswer {
    match request {
        FetchRequest::Bodies(segments) => {
            FetchAnswer::Bodies(storage::read_bodies(storage, &segments))
        }
        FetchRequest::Rows { from, max } => {
            FetchAnswer::Rows(read_rows(storage, from, max as usize))
        }
        FetchRequest::SlotOf(position) => FetchAnswer::SlotOf(storage.slot_of(position)),
        FetchRequest::Status => FetchAnswer::Status(storage.status()),
        FetchRequest::StateBegin => FetchAnswer::StateBegin(lent.begin(storage)),
        FetchRequest::StateNext { id } => FetchAnswer::StateNext(lent.next(id)),
    }
}

/// Rows of the order, with the oldest and the last slot here, which explain why there may be no rows.
pub(super) fn read_rows(storage: &Storage, from: Slot, max: usize) -> Result<Rows, ReadError> {
    let indexed = *storage.indexed().borrow();
    let Stored { rows, hidden } = storage.rows_and_hidden(from, max)?;
    Ok(Rows { rows, oldest: storage.oldest()?, indexed, hidden })
}

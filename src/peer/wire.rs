//! The messages between two nodes on a connection for appending or fetching, and their adapter to tarpc.
//!
//! Invariant: no frame of a peer can make this node panic, or wait longer than its own limits. So tarpc's own messages, which
//! carry the peer's deadline, stay local; only a number and a request are sent. A server has no separate deadline: a client
//! that gives up sends a cancellation, or ends the connection.
//!
//! Deliberately absent: connections and the answers' contents.

use std::io;

use bytes::Bytes;
use futures::{future, SinkExt, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tarpc::{trace, ClientMessage, Request, RequestName, Response, Transport};
use vulpes_raft::host::BoxStream;
use vulpes_raft::ids::{AdvanceSegment, Incarnation, NodeId, Position, Slot};
use vulpes_raft::net::rpc::Contexts;
use vulpes_raft::net::wire;
use vulpes_raft::order::Resolution;

use crate::append::{AppendError, Appended};
use crate::segment::SealedBody;
use crate::storage::{ReadError, StatePage, StorageStatus};

/// Rows of the order, as a storage has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Dense from the requested slot; empty if that is past the storage's last row.
    pub rows: Vec<Resolution>,
    /// The oldest slot it still has; if it has none, the slot of the next row it takes.
    pub oldest: Slot,
    /// The last slot that is durable there.
    pub indexed: Slot,
    /// Offsets of events that subscribers never see, by slot; slots without any are left out.
    pub hidden: Vec<(Slot, Vec<u32>)>,
}

/// A snapshot of the realms' state that can be read now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StateHead {
    /// Its number within the connection.
    pub(super) id: u64,
    /// The row of the order that it belongs to.
    pub(super) tail: Option<Resolution>,
}

/// The requests of `Service::Append`. Sent between nodes: variants keep their order, new ones go last.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum AppendRequest {
    Begin {
        entry: NodeId,
        incarnation: Incarnation,
    },
    Append(SealedBody),
    /// Missing bodies through this segment will not be sent.
    Skip(AdvanceSegment),
    /// Whether the storage's disk has too little free space.
    Space,
}

/// The answer to the [`AppendRequest`] of the same name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum AppendAnswer {
    Begin(Result<u32, AppendError>),
    Append(Result<Appended, AppendError>),
    Skip(Result<(), AppendError>),
    Space { is_low: bool },
}

/// The requests of `Service::Fetch`. Sent between nodes: variants keep their order, new ones go last.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FetchRequest {
    /// As many from the front as fit one answer.
    Bodies(Vec<AdvanceSegment>),
    Rows {
        from: Slot,
        max: u32,
    },
    SlotOf(Position),
    Status,
    /// Begins the connection's snapshot of the realms' state, replacing an earlier one.
    StateBegin,
    /// The next page of the snapshot of that number.
    StateNext {
        id: u64,
    },
}

/// The answer to the [`FetchRequest`] of the same name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FetchAnswer {
    Bodies(Result<Vec<Option<Bytes>>, ReadError>),
    Rows(Result<Rows, ReadError>),
    SlotOf(Result<Option<Resolution>, ReadError>),
    Status(Result<StorageStatus, ReadError>),
    StateBegin(Result<StateHead, ReadError>),
    StateNext(Result<StatePage, ReadError>),
}

impl RequestName for AppendRequest {
    fn name(&self) -> &str {
        match self {
            Self::Begin { .. } => "begin",
            Self::Append(_) => "append",
            Self::Skip(_) => "skip",
            Self::Space => "space",
        }
    }
}

impl RequestName for FetchRequest {
    fn name(&self) -> &str {
        match self {
            Self::Bodies(_) => "bodies",
            Self::Rows { .. } => "rows",
            Self::SlotOf(_) => "slot_of",
            Self::Status => "status",
            Self::StateBegin => "state_begin",
            Self::StateNext { .. } => "state_next",
        }
    }
}

/// A client's message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Call<R> {
    Request { id: u64, request: R },
    Cancel { id: u64 },
}

impl<R> Call<R> {
    fn from_tarpc(message: ClientMessage<R>) -> io::Result<Self> {
        match message {
            ClientMessage::Request(Request { id, message, .. }) => {
                Ok(Self::Request { id, request: message })
            }
            ClientMessage::Cancel { request_id, .. } => Ok(Self::Cancel { id: request_id }),
            _ => Err(io::Error::other("tarpc has a message this release does not know")),
        }
    }

    fn into_tarpc(self, contexts: &Contexts) -> ClientMessage<R> {
        match self {
            Self::Request { id, request } => {
                let context = contexts.next();
                ClientMessage::Request(Request { context, id, message: request })
            }
            Self::Cancel { id } => {
                ClientMessage::Cancel { trace_context: trace::Context::default(), request_id: id }
            }
        }
    }
}

/// A client's end of a connection.
pub(super) fn client_transport<Req, Resp>(
    stream: BoxStream,
) -> impl Transport<ClientMessage<Req>, Response<Resp>, Error = io::Error, TransportError = io::Error>
where
    Req: Serialize,
    Resp: DeserializeOwned,
{
    wire::transport::<Response<Resp>, Call<Req>>(stream)
        .with(|message| future::ready(Call::from_tarpc(message)))
}

/// A server's end of a connection.
pub(super) fn server_transport<Req, Resp>(
    stream: BoxStream,
) -> impl Transport<Response<Resp>, ClientMessage<Req>, Error = io::Error, TransportError = io::Error>
where
    Req: DeserializeOwned,
    Resp: Serialize,
{
    let contexts = Contexts::default();
    wire::transport::<Call<Req>, Response<Resp>>(stream)
        .map(move |call| call.map(|call| call.into_tarpc(&contexts)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::testing::{proposal, sealed, segment_id, Order};

    #[test]
    fn golden_bytes_of_requests() {
        let request = |request| Call::Request { id: 7, request };
        let begin = AppendRequest::Begin { entry: NodeId(1), incarnation: Incarnation(2) };
        assert_eq!(wire::encode(&request(begin)), [0, 7, 0, 1, 2]);
        assert_eq!(wire::encode(&Call::<AppendRequest>::Cancel { id: 7 }), [1, 7]);

        let body = SealedBody { checksum: 5, body: Bytes::from_static(b"xy"), ..sealed_one() };
        let append = request(AppendRequest::Append(body));
        assert_eq!(wire::encode(&append), [0, 7, 1, 1, 2, 3, 0, 1, 5, 2, b'x', b'y']);

        let skip = request(AppendRequest::Skip(segment_id(1, 2, 3)));
        assert_eq!(wire::encode(&skip), [0, 7, 2, 1, 2, 3]);
        assert_eq!(wire::encode(&request(AppendRequest::Space)), [0, 7, 3]);

        let request = |request| Call::Request { id: 7, request };
        let bodies = FetchRequest::Bodies(vec![segment_id(1, 2, 3)]);
        assert_eq!(wire::encode(&request(bodies)), [0, 7, 0, 1, 1, 2, 3]);
        let rows = FetchRequest::Rows { from: Slot(4), max: 5 };
        assert_eq!(wire::encode(&request(rows)), [0, 7, 1, 4, 5]);
        let slot_of = FetchRequest::SlotOf(Position(6));
        assert_eq!(wire::encode(&request(slot_of)), [0, 7, 2, 6]);
        assert_eq!(wire::encode(&request(FetchRequest::Status)), [0, 7, 3]);
        assert_eq!(wire::encode(&request(FetchRequest::StateBegin)), [0, 7, 4]);
        assert_eq!(wire::encode(&request(FetchRequest::StateNext { id: 9 })), [0, 7, 5, 9]);
    }

    #[test]
    fn golden_bytes_of_answers() {
        let refused = AppendAnswer::Append(Err(AppendError::Conflict(segment_id(1, 2, 3))));
        let response = Response { request_id: 7, message: Ok(refused) };
        assert_eq!(wire::encode(&response), [7, 0, 1, 1, 1, 1, 2, 3]);
        let response = Response { request_id: 7, message: Ok(AppendAnswer::Skip(Ok(()))) };
        assert_eq!(wire::encode(&response), [7, 0, 2, 0]);
        assert_eq!(wire::encode(&AppendAnswer::Space { is_low: true }), [3, 1]);

        let mut order = Order::default();
        let row = order.segment(&SealedBody { checksum: 5, ..sealed_one() });
        let hidden = vec![(Slot(4), vec![5, 6])];
        let rows = Rows { rows: vec![], oldest: Slot(1), indexed: Slot(0), hidden };
        assert_eq!(wire::encode(&FetchAnswer::Rows(Ok(rows))), [1, 0, 0, 1, 0, 1, 4, 2, 5, 6]);
        let head = StateHead { id: 9, tail: None };
        assert_eq!(wire::encode(&FetchAnswer::StateBegin(Ok(head))), [4, 0, 9, 0]);
        let pair = (Bytes::from_static(b"k"), Bytes::from_static(b"vw"));
        let page = StatePage { rows: vec![pair], last: true };
        let bytes = [5, 0, 1, 1, b'k', 2, b'v', b'w', 1];
        assert_eq!(wire::encode(&FetchAnswer::StateNext(Ok(page))), bytes);
        let busy = FetchAnswer::StateBegin(Err(ReadError::Busy));
        assert_eq!(wire::encode(&busy), [4, 1, 4]);
        let gone = FetchAnswer::StateNext(Err(ReadError::SnapshotGone));
        assert_eq!(wire::encode(&gone), [5, 1, 5]);
        assert_eq!(wire::encode(&FetchAnswer::SlotOf(Ok(None))), [2, 0, 0]);
        let bytes = wire::encode(&FetchAnswer::SlotOf(Ok(Some(row))));
        assert_eq!(bytes[..3], [2, 0, 1]);
        assert_eq!(proposal(&sealed_one()).id, segment_id(1, 2, 3));
        let bodies = FetchAnswer::Bodies(Ok(vec![None, Some(Bytes::from_static(b"x"))]));
        assert_eq!(wire::encode(&bodies), [0, 0, 2, 0, 1, 1, b'x']);
    }

    fn sealed_one() -> SealedBody {
        sealed(segment_id(1, 2, 3), b"")
    }
}

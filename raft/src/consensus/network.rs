//! Raft's messages between members, in both directions.
//!
//! An append waits for the bodies that its entries name, before it is handed to Raft (`local_bodies`).
//!
//! Invariant: heartbeats and votes have a separate connection, so that they never wait behind entries or snapshots. Appends are
//! pipelined in order. Messages go to a member only while it has the disk it was enrolled with. A member leads and stands for
//! election in its own name, and in a term that the others can go on from.
//!
//! Deliberately absent: retries and backoff, which openraft does.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use serde::{de::DeserializeOwned, Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::beside::Beside;
use super::claims;
use super::log_store::LogStore;
use super::machine::{Raft, MAX_SNAPSHOT};
use super::types::{Snapshot, SnapshotMeta, Types, Vote, Voter};
use crate::clocks::{ClockReport, Clocks};
use crate::host::Host;
use crate::ids::{DiskId, NodeId};
use crate::net::rpc::Lane;
use crate::net::wire::{self, Identity, Service};

/// Appends in flight to one member.
const PIPELINE: usize = 8;

/// Bytes of a snapshot in one message.
const SNAPSHOT_PART: usize = 1 << 20;

/// Time limit of a member for one part of a snapshot; for the last one this includes its fsync.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);

/// A message of Raft; the bytes are openraft's own types, encoded.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RaftCall {
    Append {
        request: Bytes,
        /// The index through which the leader knows the log to be committed, even from before its restart: openraft
        /// only reports what it has seen committed since then.
        committed: u64,
    },
    Vote(Bytes),
    PreVote(Bytes),
    TransferLeader(Bytes),
    Snapshot(SnapshotPart),
}

impl tarpc::RequestName for RaftCall {
    fn name(&self) -> &str {
        match self {
            Self::Append { .. } => "append",
            Self::Vote(_) => "vote",
            Self::PreVote(_) => "pre_vote",
            Self::TransferLeader(_) => "transfer_leader",
            Self::Snapshot(_) => "snapshot",
        }
    }
}

/// A piece of a snapshot. The parts of one come in order on one connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotPart {
    vote: Bytes,
    meta: Bytes,
    offset: u64,
    total: u64,
    data: Bytes,
}

/// The answer to any [`RaftCall`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RaftReply {
    /// openraft's own type, encoded.
    Done(Bytes),
    Failed(String),
    /// The answer to an append, with the member's clock.
    Appended {
        answer: Bytes,
        told: ClockReport,
    },
}

type RaftLane = Lane<RaftCall, RaftReply>;

/// The purpose of a connection to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    /// Heartbeats, votes and leader transfer.
    Control,
    Entries,
    Snapshots,
}

/// Makes openraft's clients. They share one connection for each member and purpose.
pub(crate) struct Network {
    pub(crate) host: Host,
    pub(crate) own: Identity,
    /// The members' addresses according to the configuration.
    pub(crate) addresses: BTreeMap<NodeId, String>,
    /// How long an append may go unanswered.
    pub(crate) append_timeout: Duration,
    /// This member's log.
    pub(crate) log: LogStore,
    pub(crate) clocks: Arc<Clocks>,
    pub(crate) lanes: Mutex<BTreeMap<(NodeId, DiskId, String), Lanes>>,
}

/// The connections to one member.
#[derive(Clone)]
pub(crate) struct Lanes {
    control: Arc<RaftLane>,
    entries: Arc<RaftLane>,
    snapshots: Arc<RaftLane>,
}

impl Network {
    fn client(&self, target: NodeId, voter: &Voter, purpose: Purpose) -> Client {
        let address = self.addresses.get(&target).unwrap_or(&voter.address);
        let lane = || {
            let expected = (target, Some(voter.disk));
            Arc::new(Lane::new(&self.host, &self.own, address, Service::Raft, expected))
        };
        let mut known = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = known.entry((target, voter.disk, address.clone())).or_insert_with(|| Lanes {
            control: lane(),
            entries: lane(),
            snapshots: lane(),
        });
        let (log, clocks) = (self.log.clone(), self.clocks.clone());
        let follower = Follower { node: target, log, clocks };
        Client { lanes: lanes.clone(), follower, purpose, append_timeout: self.append_timeout }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, voter: &Voter) -> Client {
        self.client(target, voter, Purpose::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, voter: &Voter) -> Client {
        self.client(target, voter, Purpose::Control)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, voter: &Voter) -> Client {
        self.client(target, voter, Purpose::Snapshots)
    }
}

/// openraft's client of one member.
pub(crate) struct Client {
    lanes: Lanes,
    follower: Follower,
    purpose: Purpose,
    append_timeout: Duration,
}

fn unreachable(text: impl ToString) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(text))
}

/// One call with its types encoded.
async fn call<Answer: DeserializeOwned>(
    lane: &RaftLane,
    request: RaftCall,
    limit: Duration,
) -> Result<Answer, RPCError<Types>> {
    match lane.call(request, limit).await.map_err(unreachable)? {
        RaftReply::Done(answer) | RaftReply::Appended { answer, .. } => {
            wire::decode(&answer).map_err(unreachable)
        }
        RaftReply::Failed(reason) => Err(unreachable(reason)),
    }
}

/// The member that answers appends.
#[derive(Clone)]
struct Follower {
    node: NodeId,
    log: LogStore,
    clocks: Arc<Clocks>,
}

impl Follower {
    /// Sends an append; its answer also has the member's clock.
    async fn append(
        &self,
        lane: &RaftLane,
        request: &AppendEntriesRequest<Types>,
        limit: Duration,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let asked = Instant::now();
        let committed = self.log.committed();
        let request = RaftCall::Append { request: encoded(request), committed };
        match lane.call(request, limit).await.map_err(unreachable)? {
            RaftReply::Appended { answer, told } => {
                self.clocks.heard(self.node, told, asked);
                wire::decode(&answer).map_err(unreachable)
            }
            RaftReply::Done(_) => Err(unreachable("an append was answered as something else")),
            RaftReply::Failed(reason) => Err(unreachable(reason)),
        }
    }
}

fn encoded<T: Serialize>(value: &T) -> Bytes {
    wire::encode(value).into()
}

/// The result of an append, and whether more may follow it on the same stream.
struct Appended {
    result: Result<StreamAppendResult<Types>, RPCError<Types>>,
    whole: bool,
}

async fn append(
    lane: Arc<RaftLane>,
    follower: Follower,
    request: AppendEntriesRequest<Types>,
    limit: Duration,
) -> Appended {
    let previous = request.prev_log_id;
    let last = request.entries.last().map(|entry| entry.log_id).or(previous);
    match follower.append(&lane, &request, limit).await {
        Ok(AppendEntriesResponse::PartialSuccess(through)) => {
            Appended { result: Ok(Ok(through)), whole: through == last }
        }
        Ok(answer) => {
            let result = answer.into_stream_result(previous, last);
            Appended { whole: result.is_ok(), result: Ok(result) }
        }
        Err(error) => Appended { result: Err(error), whole: false },
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.follower.append(&self.lanes.control, &request, option.hard_ttl()).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let (lane, limit) = match self.purpose {
            Purpose::Control => (self.lanes.control.clone(), option.hard_ttl()),
            Purpose::Entries | Purpose::Snapshots => {
                (self.lanes.entries.clone(), self.append_timeout)
            }
        };
        let follower = self.follower.clone();
        let answers = input
            .map(move |request| append(lane.clone(), follower.clone(), request, limit))
            .buffered(PIPELINE)
            .boxed();
        let results = futures::stream::unfold(Some(answers), |answers| async move {
            let mut answers = answers?;
            let Appended { result, whole } = answers.next().await?;
            Some((result, whole.then_some(answers)))
        });
        async move { Ok(results.boxed()) }.boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        call(&self.lanes.control, RaftCall::Vote(encoded(&request)), option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        call(&self.lanes.control, RaftCall::PreVote(encoded(&request)), option.hard_ttl()).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let request = RaftCall::TransferLeader(encoded(&request));
        call(&self.lanes.control, request, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let lane = self.lanes.snapshots.clone();
        let sending = async move {
            let (vote, meta) = (encoded(&vote), encoded(&snapshot.meta));
            let data = snapshot.snapshot;
            let mut offset = 0;
            loop {
                let end = data.len().min(offset + SNAPSHOT_PART);
                let part = SnapshotPart {
                    vote: vote.clone(),
                    meta: meta.clone(),
                    offset: offset as u64,
                    total: data.len() as u64,
                    data: data.slice(offset..end),
                };
                let answer: Option<SnapshotResponse<Types>> =
                    call(&lane, RaftCall::Snapshot(part), SNAPSHOT_TIMEOUT).await?;
                match answer {
                    Some(answer) => return Ok(answer),
                    None if end == data.len() => {
                        return Err(unreachable("the snapshot was not taken").into())
                    }
                    None => offset = end,
                }
            }
        };
        tokio::select! {
            answer = sending => answer,
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }
}

/// The receiving side of one connection.
pub(crate) struct Receiver {
    peer: NodeId,
    raft: Raft,
    log: LogStore,
    beside: Beside,
    clocks: Arc<Clocks>,
    /// Whether this member already takes part.
    admitted: watch::Receiver<bool>,
    /// How long an append may wait for bodies.
    limit: Duration,
    /// Held by the next append: later ones wait, in their order, while it waits for bodies.
    turn: tokio::sync::Mutex<()>,
    /// The parts of a snapshot received so far.
    parts: Mutex<BytesMut>,
}

impl Receiver {
    /// `append_timeout` is how long the leader waits for an answer.
    pub(crate) fn new(
        peer: NodeId,
        (raft, log): (Raft, LogStore),
        beside: Beside,
        clocks: Arc<Clocks>,
        admitted: watch::Receiver<bool>,
        append_timeout: Duration,
    ) -> Self {
        let (limit, turn) = (append_timeout / 2, tokio::sync::Mutex::default());
        Self { peer, raft, log, beside, clocks, admitted, limit, turn, parts: Mutex::default() }
    }

    /// Answers one message. Everything to be persisted is handed to Raft's own task before this first waits.
    pub(crate) async fn answer(&self, call: RaftCall) -> RaftReply {
        if !*self.admitted.borrow() {
            return RaftReply::Failed(
                "this member does not know yet whether it may take part".into(),
            );
        }
        let answer = match call {
            RaftCall::Append { request, committed } => {
                return match self.append(&request, committed).await {
                    Ok(answer) => RaftReply::Appended { answer, told: self.clocks.tell() },
                    Err(reason) => RaftReply::Failed(reason),
                };
            }
            RaftCall::Vote(request) => self.vote(&request).await,
            RaftCall::PreVote(request) => self.pre_vote(&request).await,
            RaftCall::TransferLeader(request) => self.transfer_leader(&request).await,
            RaftCall::Snapshot(part) => self.snapshot(part).await,
        };
        answer.map_or_else(RaftReply::Failed, RaftReply::Done)
    }

    fn check(&self, vote: &Vote) -> Result<(), String> {
        claims::check(vote, self.peer, self.raft.metrics().borrow_watched().current_term)
    }

    async fn append(&self, request: &[u8], committed: u64) -> Result<Bytes, String> {
        let request: AppendEntriesRequest<Types> =
            wire::decode(request).map_err(|error| error.to_string())?;
        self.check(&request.vote)?;
        // An append without entries refers to the last entry of the append before it, so it must not overtake that either.
        let turn = self.turn.lock().await;
        let leader = request.vote.leader_id.node_id;
        let taken = self.beside.take_in(&request.entries, committed, leader, self.limit).await;
        taken.map_err(|error| error.to_string())?;
        let mut appending = Box::pin(self.raft.append_entries(request));
        // Once polled, it has been handed to Raft's own task.
        let answer = futures::poll!(&mut appending);
        drop(turn);
        let answer = match answer {
            Poll::Ready(answer) => answer,
            Poll::Pending => appending.await,
        };
        answer.map(|answer| encoded(&answer)).map_err(|error| error.to_string())
    }

    async fn vote(&self, request: &[u8]) -> Result<Bytes, String> {
        let request: VoteRequest<Types> =
            wire::decode(request).map_err(|error| error.to_string())?;
        self.check(&request.vote)?;
        let answer = self.raft.vote(request).await;
        answer.map(|answer| encoded(&answer)).map_err(|error| error.to_string())
    }

    async fn pre_vote(&self, request: &[u8]) -> Result<Bytes, String> {
        let request: VoteRequest<Types> =
            wire::decode(request).map_err(|error| error.to_string())?;
        self.check(&request.vote)?;
        let answer = self.raft.pre_vote(request).await;
        answer.map(|answer| encoded(&answer)).map_err(|error| error.to_string())
    }

    async fn transfer_leader(&self, request: &[u8]) -> Result<Bytes, String> {
        let request: TransferLeaderRequest<Types> =
            wire::decode(request).map_err(|error| error.to_string())?;
        self.check(request.from_leader())?;
        let answer = self.raft.handle_transfer_leader(request).await;
        answer.map(|answer| encoded(&answer)).map_err(|error| error.to_string())
    }

    /// Takes one part; the last one installs the snapshot and has an answer.
    async fn snapshot(&self, part: SnapshotPart) -> Result<Bytes, String> {
        let data = {
            let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            if part.offset == 0 {
                parts.clear();
            }
            if part.offset != parts.len() as u64 || part.total > MAX_SNAPSHOT as u64 {
                return Err("the parts of a snapshot came out of order, or it is too large".into());
            }
            parts.extend_from_slice(&part.data);
            if (parts.len() as u64) < part.total {
                return Ok(encoded(&None::<SnapshotResponse<Types>>));
            }
            std::mem::take(&mut *parts).freeze()
        };
        let vote: Vote = wire::decode(&part.vote).map_err(|error| error.to_string())?;
        self.check(&vote)?;
        let meta: SnapshotMeta = wire::decode(&part.meta).map_err(|error| error.to_string())?;
        // This member has the entries already, only its disk is slow, and openraft rejects a snapshot that ends
        // before entries being written. Once a heartbeat says how far the log is committed, openraft treats the
        // snapshot as done.
        let committed = self.raft.metrics().borrow_watched().local_committed;
        if meta.last_log_id > committed
            && self.log.has(meta.last_log_id).map_err(|error| error.to_string())?
        {
            return Err("the log has all that the snapshot covers".into());
        }
        let snapshot = Snapshot { meta, snapshot: data };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await;
        answer.map(|answer| encoded(&Some(answer))).map_err(|error| error.to_string())
    }
}

//! A member of the sync group that has been taken over: it has its certificate, its disk's number, and says what it likes.
//!
//! Invariant: the messages have the form of the product's own, field by field; a member that did not understand them would say so.

use anyhow::{Context, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tarpc::client::{self, Config};
use tarpc::{ClientMessage, RequestName, Response};
use vulpes_jepsen::wait::{within, PATIENCE};
use vulpes_raft::ids::{AdvanceSegment, Incarnation, NodeId, SegmentNumber, Shard, Slot};
use vulpes_raft::net::rpc::Contexts;
use vulpes_raft::net::wire::{self, Link};
use vulpes_raft::order::SealedSegment;

#[derive(Debug, Serialize, Deserialize)]
enum RaftCall {
    Append { request: Bytes, committed: u64 },
    Vote(Bytes),
    PreVote(Bytes),
}

impl RequestName for RaftCall {
    fn name(&self) -> &str {
        "raft"
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum RaftReply {
    Done(Bytes),
    Failed(String),
}

/// Requests to sync, up to the last one that speaks for a node.
#[derive(Debug, Serialize, Deserialize)]
enum SyncCall {
    Who,
    Propose(Vec<SealedSegment>),
    Open { entry: NodeId, request: u64 },
    Renew { entry: NodeId, incarnation: Incarnation },
    Close { entry: NodeId, incarnation: Incarnation },
    Stored { storage: NodeId, through: Slot },
}

impl RequestName for SyncCall {
    fn name(&self) -> &str {
        "sync"
    }
}

/// Answers of a member, as far as they have no content.
#[derive(Debug, Serialize, Deserialize)]
enum SyncReply {
    Who { blank: bool },
    Segments(()),
    Opened(()),
    Lease(u8),
    Done,
    Groups(()),
    Followed(()),
    NotLeader { leader: Option<NodeId> },
    Unavailable(String),
}

/// What is claimed: a term, and in whose name.
pub(super) type Claim = (u64, u64);

/// The claim as a candidate's, as one's before an election, and as a leader's, with the longest log that there can be.
fn calls((term, node): Claim) -> [RaftCall; 3] {
    let leader = (term, node);
    let longest = Some((leader, u64::MAX));
    let vote = |committed| (leader, committed);
    // The election is part of a transfer, so that it does not wait for the leader's lease to end.
    let candidate = Bytes::from(wire::encode(&(vote(false), longest, true)));
    // An append without entries, on top of nothing.
    let append = (vote(true), None::<(Claim, u64)>, Vec::<u8>::new(), None::<(Claim, u64)>);
    let request = Bytes::from(wire::encode(&append));
    [
        RaftCall::PreVote(candidate.clone()),
        RaftCall::Vote(candidate),
        RaftCall::Append { request, committed: 0 },
    ]
}

/// What a member answers to these claims.
pub(super) async fn answers(link: Link, claim: Claim) -> Result<Vec<String>> {
    let transport = wire::transport::<Response<RaftReply>, ClientMessage<RaftCall>>(link.stream);
    let channel = client::new(Config::default(), transport).spawn();
    let contexts = Contexts::default();
    let mut answers = Vec::new();
    for call in calls(claim) {
        let called = async { Ok(channel.call(contexts.next(), call).await?) };
        let answer = within("an answer", PATIENCE, called).await.context("no answer")?;
        answers.push(match answer {
            RaftReply::Failed(reason) => reason,
            RaftReply::Done(answer) => format!("done: {answer:?}"),
        });
    }
    Ok(answers)
}

/// What a member answers to requests in the name of another node.
pub(super) async fn answers_for(link: Link, node: NodeId) -> Result<Vec<String>> {
    let transport = wire::transport::<Response<SyncReply>, ClientMessage<SyncCall>>(link.stream);
    let channel = client::new(Config::default(), transport).spawn();
    let contexts = Contexts::default();
    let incarnation = Incarnation(u64::MAX);
    let id = AdvanceSegment { entry: node, incarnation, number: SegmentNumber(1) };
    let votes = vec![NodeId(1), NodeId(2), NodeId(3)];
    let segment = SealedSegment { id, shard: Shard(0), count: 1, length: 100, checksum: 1, votes };
    let calls = [
        SyncCall::Open { entry: node, request: 1 },
        SyncCall::Renew { entry: node, incarnation },
        SyncCall::Close { entry: node, incarnation },
        SyncCall::Stored { storage: node, through: Slot(u64::MAX) },
        SyncCall::Propose(vec![segment]),
    ];
    let mut answers = Vec::new();
    for call in calls {
        let called = async { Ok(channel.call(contexts.next(), call).await?) };
        let answer = within("an answer", PATIENCE, called).await.context("no answer")?;
        answers.push(match answer {
            SyncReply::Unavailable(reason) => reason,
            other => format!("{other:?}"),
        });
    }
    Ok(answers)
}

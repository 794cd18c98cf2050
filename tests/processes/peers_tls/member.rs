//! A member of the sync group that has been taken over: it has its certificate, its disk's number, and says what it likes.
//!
//! Invariant: the messages have the form of the product's own, field by field; a member that did not understand them would say so.

use anyhow::{Context, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tarpc::client::{self, Config};
use tarpc::{ClientMessage, RequestName, Response};
use vulpes_jepsen::wait::{within, PATIENCE};
use vulpes_raft::net::rpc::Contexts;
use vulpes_raft::net::wire::{self, Link};

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

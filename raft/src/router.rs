//! The search for the sync member that can answer.
//!
//! Invariant: a request that may have reached a leader is not sent again; its caller learns that the outcome is
//! unknown. A request that certainly was not carried out is tried elsewhere until its time is up.
//!
//! Deliberately absent: what a member does with a request (`node`).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::host::Host;
use crate::ids::{Incarnation, NodeId, Slot};
use crate::net::rpc::{CallError, Lane};
use crate::net::wire::{self, Identity, LinkError, Service};
use crate::order::{SealedSegment, SegmentOutcome, StorageGroups};
use crate::sequencer::Opened;
use crate::service::{
    Followed, Known, Lease, SyncCall, SyncError, SyncReply, CALL_TIMEOUT, GROUP_WAIT,
    MAX_FOLLOW_WAIT, MAX_PROPOSED,
};

/// How long to wait for one member before another one is tried, if that is allowed.
const ATTEMPT: Duration = Duration::from_millis(700);

/// The first and the longest pause between two attempts. All publishers wait until the next leader is found, and
/// asking a member is cheap.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// The sync member on this node, which is called without a connection.
pub(crate) trait Local: Sync {
    fn id(&self) -> NodeId;

    /// The leader, as far as this member knows.
    fn leader(&self) -> Option<NodeId>;

    /// Carries out a request that only the leader may, or answers with the leader.
    fn lead(&self, call: SyncCall) -> impl Future<Output = SyncReply> + Send;
}

/// Finds a member that can answer.
pub(crate) struct Router {
    host: Host,
    own: Identity,
    /// Ascending by node.
    lanes: BTreeMap<NodeId, Lane<SyncCall, SyncReply>>,
    /// The last known leader.
    leader: Mutex<Option<NodeId>>,
    /// The member that answered a follower last.
    followed: Mutex<Option<NodeId>>,
}

/// What to do after asking one member.
enum Attempt {
    Answered(SyncReply),
    /// Not done there; `leader` is the leader according to that member.
    Elsewhere {
        leader: Option<NodeId>,
        reason: String,
    },
}

impl Router {
    /// A router to the members at these addresses.
    pub(crate) fn new(
        host: Host,
        own: Identity,
        members: impl IntoIterator<Item = (NodeId, String)>,
    ) -> Self {
        let lane = |(node, address): (NodeId, String)| {
            (node, Lane::new(&host, &own, &address, Service::Sync, (node, None)))
        };
        let lanes = members.into_iter().map(lane).collect();
        Self { host, own, lanes, leader: Mutex::new(None), followed: Mutex::new(None) }
    }

    pub(crate) async fn propose(
        &self,
        local: Option<&impl Local>,
        mut segments: Vec<SealedSegment>,
    ) -> Result<Vec<SegmentOutcome>, SyncError> {
        let mut outcomes = Vec::with_capacity(segments.len());
        while !segments.is_empty() {
            let rest = segments.split_off(segments.len().min(MAX_PROPOSED));
            let asked = segments.len();
            match self.lead(local, SyncCall::Propose(segments)).await? {
                SyncReply::Segments(part) if part.len() == asked => outcomes.extend(part),
                other => return Err(mismatch(&other)),
            }
            segments = rest;
        }
        Ok(outcomes)
    }

    pub(crate) async fn open(
        &self,
        local: Option<&impl Local>,
        entry: NodeId,
        request: u64,
    ) -> Result<Opened, SyncError> {
        match self.lead(local, SyncCall::Open { entry, request }).await? {
            SyncReply::Opened(opened) => Ok(opened),
            other => Err(mismatch(&other)),
        }
    }

    pub(crate) async fn renew(
        &self,
        local: Option<&impl Local>,
        entry: NodeId,
        incarnation: Incarnation,
    ) -> Result<Lease, SyncError> {
        match self.lead(local, SyncCall::Renew { entry, incarnation }).await? {
            SyncReply::Lease(lease) => Ok(lease),
            other => Err(mismatch(&other)),
        }
    }

    pub(crate) async fn close(
        &self,
        local: Option<&impl Local>,
        entry: NodeId,
        incarnation: Incarnation,
    ) -> Result<(), SyncError> {
        match self.lead(local, SyncCall::Close { entry, incarnation }).await? {
            SyncReply::Done => Ok(()),
            other => Err(mismatch(&other)),
        }
    }

    pub(crate) async fn stored(
        &self,
        local: Option<&impl Local>,
        storage: NodeId,
        through: Slot,
    ) -> Result<(), SyncError> {
        match self.lead(local, SyncCall::Stored { storage, through }).await? {
            SyncReply::Done => Ok(()),
            other => Err(mismatch(&other)),
        }
    }

    pub(crate) async fn confirm(
        &self,
        local: Option<&impl Local>,
        limit: Duration,
    ) -> Result<(), SyncError> {
        match self.lead_within(local, SyncCall::Confirm, limit).await? {
            SyncReply::Done => Ok(()),
            other => Err(mismatch(&other)),
        }
    }

    /// Sends a request to the leader, searching for it until the call's time is up.
    async fn lead(
        &self,
        local: Option<&impl Local>,
        call: SyncCall,
    ) -> Result<SyncReply, SyncError> {
        self.lead_within(local, call, CALL_TIMEOUT).await
    }

    async fn lead_within(
        &self,
        local: Option<&impl Local>,
        call: SyncCall,
        time: Duration,
    ) -> Result<SyncReply, SyncError> {
        let deadline = Instant::now() + time;
        let known = local.and_then(Local::leader).or(*lock(&self.leader));
        let here = local.map(Local::id);
        let mut target = known.or(here).or_else(|| self.after(None)).ok_or_else(nobody)?;
        let mut pause = PAUSE.0;
        loop {
            let limit = deadline - Instant::now();
            let (leader, reason) = match self.ask(local, target, call.clone(), limit).await? {
                Attempt::Answered(reply) => {
                    *lock(&self.leader) = Some(target);
                    return Ok(reply);
                }
                Attempt::Elsewhere { leader, reason } => (leader, reason),
            };
            // A named leader is asked at once; otherwise the members are asked in turn.
            let named = leader.filter(|leader| *leader != target);
            target = named.or_else(|| self.after(Some(target))).unwrap_or(target);
            if named.is_none() {
                tokio::time::sleep(self.jittered(pause)).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            if Instant::now() >= deadline {
                return Err(SyncError::Unavailable(reason));
            }
        }
    }

    /// Sends one member a request that only the leader carries out.
    async fn ask(
        &self,
        local: Option<&impl Local>,
        target: NodeId,
        call: SyncCall,
        limit: Duration,
    ) -> Result<Attempt, SyncError> {
        let reply = match (local.filter(|local| local.id() == target), self.lanes.get(&target)) {
            (Some(local), _) => match tokio::time::timeout(limit, local.lead(call)).await {
                Ok(reply) => reply,
                Err(_) => return Err(SyncError::Unknown(format!("no quorum within {limit:?}"))),
            },
            (None, Some(lane)) => match lane.call(call, limit).await {
                Ok(reply) => reply,
                Err(CallError::NotSent(error)) => {
                    self.own_disk(&error)?;
                    let reason = format!("node {target}: {error}");
                    return Ok(Attempt::Elsewhere { leader: None, reason });
                }
                Err(CallError::Lost(reason)) => {
                    *lock(&self.leader) = None;
                    return Err(SyncError::Unknown(format!("node {target}: {reason}")));
                }
            },
            (None, None) => {
                let reason = format!("the leader, node {target}, is not among the sync members");
                return Ok(Attempt::Elsewhere { leader: None, reason });
            }
        };
        match reply {
            SyncReply::NotLeader { leader } => {
                Ok(Attempt::Elsewhere { leader, reason: "no member leads now".into() })
            }
            SyncReply::Unavailable(reason) => Ok(Attempt::Elsewhere { leader: None, reason }),
            SyncReply::Unknown(reason) => Err(SyncError::Unknown(reason)),
            reply => Ok(Attempt::Answered(reply)),
        }
    }

    /// What each other member that answers in time knows about a node.
    pub(crate) async fn known(&self, node: NodeId, limit: Duration) -> Vec<Known> {
        let others = self.lanes.iter().filter(|(member, _)| **member != node);
        let asked = others.map(|(_, lane)| async move {
            match lane.call(SyncCall::Known { node }, limit).await {
                Ok(SyncReply::Known(known)) => Some(known),
                _ => None,
            }
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    pub(crate) async fn groups(&self) -> Result<StorageGroups, SyncError> {
        let deadline = Instant::now() + GROUP_WAIT;
        match self.any(SyncCall::Groups, ATTEMPT, deadline).await? {
            SyncReply::Groups(groups) => Ok(groups),
            other => Err(mismatch(&other)),
        }
    }

    pub(crate) async fn follow(
        &self,
        from: Slot,
        max: usize,
        wait: Duration,
    ) -> Result<Followed, SyncError> {
        let wait = wait.min(MAX_FOLLOW_WAIT);
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let call = SyncCall::Follow { from, max, wait_ms };
        let limit = wait + ATTEMPT;
        match self.any(call, limit, Instant::now() + limit + CALL_TIMEOUT).await? {
            SyncReply::Followed(followed) => Ok(followed),
            other => Err(mismatch(&other)),
        }
    }

    /// Sends a read-only request to any member, first to the one that answered last.
    async fn any(
        &self,
        call: SyncCall,
        limit: Duration,
        deadline: Instant,
    ) -> Result<SyncReply, SyncError> {
        let last = *lock(&self.followed);
        let mut target = last.or_else(|| self.after(None)).ok_or_else(nobody)?;
        let mut pause = PAUSE.0;
        loop {
            let Some(lane) = self.lanes.get(&target) else { return Err(nobody()) };
            let reason = match lane.call(call.clone(), limit).await {
                Ok(SyncReply::Unavailable(reason)) => reason,
                Ok(reply) => {
                    *lock(&self.followed) = Some(target);
                    return Ok(reply);
                }
                Err(error) => {
                    if let CallError::NotSent(error) = &error {
                        self.own_disk(error)?;
                    }
                    error.to_string()
                }
            };
            if Instant::now() >= deadline {
                return Err(SyncError::Unavailable(format!("node {target}: {reason}")));
            }
            target = self.after(Some(target)).unwrap_or(target);
            tokio::time::sleep(self.jittered(pause)).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// If the failure is a refusal because of this node's own disk, it is final.
    fn own_disk(&self, error: &LinkError) -> Result<(), SyncError> {
        match error {
            LinkError::Refused(reason) if *reason == wire::wiped(self.own.node) => {
                Err(SyncError::Wiped(reason.clone()))
            }
            _ => Ok(()),
        }
    }

    /// The member after this one, in turn.
    fn after(&self, node: Option<NodeId>) -> Option<NodeId> {
        let first = self.lanes.keys().next().copied();
        let next = node.and_then(|node| self.lanes.keys().find(|member| **member > node).copied());
        next.or(first)
    }

    /// Between half and the whole of a pause, so that nodes don't retry in step.
    fn jittered(&self, pause: Duration) -> Duration {
        let share = (self.host.random.next_u64() % 512) as u32;
        pause / 2 + pause * share / 1024
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nobody() -> SyncError {
    SyncError::Unavailable("no sync members are configured".into())
}

fn mismatch(reply: &SyncReply) -> SyncError {
    SyncError::Unknown(format!("a sync member answered another question: {reply:?}"))
}

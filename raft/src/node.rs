//! A member of the sync group: Raft, the leader's duties, and the service for all nodes.
//!
//! Invariant: whatever is answered as done has been committed by a quorum of the group and applied here. A member
//! whose Raft has failed ends its process.
//!
//! Deliberately absent: listening. The node that owns the sockets hands accepted connections to [`SyncNode::serve`].

mod admission;
mod answers;
mod bootstrap;
mod leader;
mod leases;
mod marks;
mod proposer;
mod status;
mod watcher;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::async_runtime::Instant as _;
use openraft::{Config, SnapshotPolicy};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::clocks::Clocks;
use crate::consensus::beside::Beside;
use crate::consensus::log_store::LogStore;
use crate::consensus::machine::{Applied, Machine, Raft};
use crate::consensus::network::{Network, Receiver};
use crate::consensus::snapshot_store;
use crate::consensus::types::Runtime;
use crate::disk::file::{File, OpenError};
use crate::host::Host;
use crate::ids::{DiskId, Incarnation, NodeId, Slot};
use crate::local_bodies::LocalBodies;
use crate::net::rpc;
use crate::net::wire::{self, Identity, Link, Service};
use crate::order::{SealedSegment, SegmentOutcome, StorageGroups};
use crate::router::Router;
use crate::sequencer::{Held, Opened};
use crate::service::{Followed, Lease, SyncError, GROUP_WAIT, MAX_FOLLOWED, MAX_FOLLOW_WAIT};

use leases::Leases;
use proposer::Submission;

pub use status::{MemberState, SyncStatus};

/// Most log entries in one message between members.
const MESSAGE_ENTRIES: u64 = 64;
/// Most messages that may wait for Raft's own task.
const RAFT_QUEUE: u64 = 4_096;

/// How long a storage that is about to delete bodies waits for its sync member's log to reach the storage's slot.
const REMEMBER_WAIT: Duration = Duration::from_secs(1);

/// A node's number and address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
}

/// A sync member's configuration.
#[derive(Clone, Debug)]
pub struct SyncConfig {
    pub identity: Identity,
    /// All sync members, this one among them.
    pub members: Vec<Member>,
    /// All storages, by group.
    pub storages: Vec<Vec<Member>>,
    /// The longest time between two signs of life of a leader.
    pub heartbeat: Duration,
    /// A member stands for election after a silence between these two, drawn anew each time.
    pub election: (Duration, Duration),
    /// How long an entry may be silent before its incarnation is closed.
    pub lease: Duration,
}

/// When the log is folded into a snapshot, and how much of the order is shown. The defaults suit every group; a
/// simulation finds more with smaller values.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// A snapshot is made after this many log entries.
    pub snapshot_every: u64,
    /// Log entries kept behind a snapshot, for members that are only a little behind.
    pub log_kept: u64,
    /// A member further behind than this gets a snapshot instead of entries.
    pub lag_limit: u64,
    /// The newest resolutions that followers are shown, in addition to those that some storage lacks; a follower that
    /// is further behind reads from a storage.
    pub shown: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { snapshot_every: 10_000, log_kept: 2_000, lag_limit: 20_000, shown: u64::MAX }
    }
}

/// Why a sync member did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the configuration of the sync group is wrong: {0}")]
    Config(String),
    #[error("Raft did not start: {0}")]
    Raft(String),
}

/// A member of the sync group. Clones are the same member.
#[derive(Clone)]
pub struct SyncNode {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    config: SyncConfig,
    /// See [`Tuning::shown`].
    shown: u64,
    raft: Raft,
    applied: Arc<Applied>,
    clocks: Arc<Clocks>,
    log: LogStore,
    beside: Beside,
    /// Locked by an entry's proposal that waits for bodies. The entry's later proposals wait for the lock, in order.
    turns: Mutex<BTreeMap<NodeId, Arc<tokio::sync::Mutex<()>>>>,
    submissions: mpsc::Sender<Submission>,
    leases: Mutex<Leases>,
    router: Router,
    /// See [`admission`].
    admitted: watch::Sender<bool>,
    stopping: watch::Sender<bool>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl SyncNode {
    /// Loads the node's file and starts taking part. A blank group is initialised in the background.
    ///
    /// # Errors
    /// [`StartError`]: the disk, the configuration, or Raft itself.
    pub async fn start(host: Host, config: SyncConfig, file: &File) -> Result<Self, StartError> {
        Self::start_tuned(host, config, file, Tuning::default(), None).await
    }

    /// Like [`SyncNode::start`], with other snapshot intervals. `bodies` is the storage that joined the file before this
    /// member, if the configuration makes all members storages and all storages members.
    ///
    /// # Errors
    /// Like [`SyncNode::start`].
    pub async fn start_tuned(
        host: Host,
        config: SyncConfig,
        file: &File,
        tuning: Tuning,
        bodies: Option<Arc<dyn LocalBodies>>,
    ) -> Result<Self, StartError> {
        let raft_config = Arc::new(raft_config(&config, tuning)?);
        let beside = Beside::new(bodies.clone());
        let (log, snapshots) = snapshot_store::open(file, beside.clone())?;
        let applied = Applied::new();
        let machine =
            Machine::load(applied.clone(), snapshots).map_err(|error| file.failed(&error))?;
        let own = config.identity.node;
        let members = config.members.iter().map(|member| member.node).collect();
        let clocks = Clocks::new(host.clock.clone(), own, members);
        let address = |member: &Member| (member.node, member.address.clone());
        let addresses: BTreeMap<_, _> = config.members.iter().map(address).collect();
        let network = Network {
            host: host.clone(),
            own: config.identity.clone(),
            addresses: addresses.clone(),
            append_timeout: config.election.1,
            log: log.clone(),
            clocks: clocks.clone(),
            lanes: Mutex::default(),
        };
        let starting = Raft::new(own, raft_config, network, log.clone(), machine);
        let raft = Runtime::scope(host.random.next_u64(), Box::pin(starting))
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let (submissions, queue) = mpsc::channel(proposer::QUEUE);
        let inner = Inner {
            router: Router::new(host.clone(), config.identity.clone(), addresses),
            leases: Mutex::new(Leases::new(config.lease)),
            admitted: watch::Sender::new(false),
            stopping: watch::Sender::new(false),
            tasks: Mutex::default(),
            turns: Mutex::default(),
            beside,
            host,
            config,
            shown: tuning.shown,
            raft,
            applied,
            clocks,
            log,
            submissions,
        };
        let node = Self { inner: Arc::new(inner) };
        if let Some(storage) = bodies {
            let member = Arc::downgrade(&node.inner);
            storage.before_deleting(Box::new(move |through| {
                let member = member.clone();
                Box::pin(async move {
                    if let Some(member) = member.upgrade() {
                        member.remember(through).await;
                    }
                })
            }));
        }
        let held = admission::held_here(&node.inner).await.map_err(|error| file.disk(&error))?;
        node.spawn_tasks(queue, held);
        Ok(node)
    }

    fn spawn_tasks(&self, queue: mpsc::Receiver<Submission>, held: Held) {
        let inner = &self.inner;
        let proposing =
            proposer::run(inner.clocks.clone(), inner.raft.clone(), inner.applied.clone(), queue);
        let (beginning, leading, watching) = (inner.clone(), inner.clone(), inner.clone());
        let asking = inner.clone();
        let tasks = [
            tokio::spawn(proposing),
            tokio::spawn(async move { admission::admit(&asking, held).await }),
            tokio::spawn(async move { bootstrap::run(&beginning).await }),
            tokio::spawn(async move { leading.keep_leases().await }),
            tokio::spawn(async move { watcher::until_raft_fails(&watching).await }),
        ];
        let mut kept = inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(tasks.iter().map(tokio::task::JoinHandle::abort_handle));
    }

    /// This node's number.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.inner.own().node
    }

    /// Serves one accepted connection of [`Service::Raft`] or [`Service::Sync`] until it ends.
    pub async fn serve(&self, link: Link) {
        let mut stopping = self.inner.stopping.subscribe();
        let service = link.service;
        let serving = async {
            match service {
                Service::Raft => {
                    let receiver = Arc::new(self.inner.receiver(link.peer.node));
                    let answer = |call| {
                        let receiver = receiver.clone();
                        async move { receiver.answer(call).await }
                    };
                    rpc::serve(link, answer).await;
                }
                Service::Sync => {
                    let peer = link.peer.node;
                    let answer = |call| {
                        let node = self.clone();
                        async move { node.answer(peer, call).await }
                    };
                    rpc::serve(link, answer).await;
                }
                Service::Append | Service::Fetch | Service::Calls => {
                    tracing::warn!("a connection for {service} is not for the sync member");
                }
            }
        };
        tokio::select! {
            () = serving => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    /// Whether a peer may use a service, according to the disks that the sync group knows; for [`wire::welcome`].
    ///
    /// # Errors
    /// The answer to the peer: its disk is not the enrolled one, or it is not a member of the Raft group.
    pub fn admit(&self, peer: &Identity, service: Service) -> Result<(), String> {
        let voter = self.inner.voter_disk(peer.node);
        let storage = self.inner.applied.state().sequencer.enrolled(peer.node);
        if [voter, storage].into_iter().flatten().any(|disk| disk != peer.disk) {
            return Err(wire::wiped(peer.node));
        }
        let configured = self.inner.config.members.iter().any(|member| member.node == peer.node);
        if service == Service::Raft && voter.is_none() && !configured {
            return Err(format!("node {} is not a member of the sync group", peer.node));
        }
        Ok(())
    }

    /// See [`SyncClient::propose`](crate::client::SyncClient::propose).
    ///
    /// # Errors
    /// The same.
    pub async fn propose(
        &self,
        segments: Vec<SealedSegment>,
    ) -> Result<Vec<SegmentOutcome>, SyncError> {
        self.inner.router.propose(Some(self), segments).await
    }

    /// See [`SyncClient::open`](crate::client::SyncClient::open).
    ///
    /// # Errors
    /// The same.
    pub async fn open(&self, entry: NodeId, request: u64) -> Result<Opened, SyncError> {
        self.inner.router.open(Some(self), entry, request).await
    }

    /// See [`SyncClient::renew`](crate::client::SyncClient::renew).
    ///
    /// # Errors
    /// The same.
    pub async fn renew(&self, entry: NodeId, incarnation: Incarnation) -> Result<Lease, SyncError> {
        self.inner.router.renew(Some(self), entry, incarnation).await
    }

    /// See [`SyncClient::close`](crate::client::SyncClient::close).
    ///
    /// # Errors
    /// The same.
    pub async fn close(&self, entry: NodeId, incarnation: Incarnation) -> Result<(), SyncError> {
        self.inner.router.close(Some(self), entry, incarnation).await
    }

    /// See [`SyncClient::stored`](crate::client::SyncClient::stored).
    ///
    /// # Errors
    /// The same.
    pub async fn stored(&self, storage: NodeId, through: Slot) -> Result<(), SyncError> {
        self.inner.router.stored(Some(self), storage, through).await
    }

    /// The storage groups, as applied here; waits up to [`GROUP_WAIT`] for them.
    ///
    /// # Errors
    /// [`SyncError::Unavailable`] if they are not formed by then.
    pub async fn groups(&self) -> Result<StorageGroups, SyncError> {
        self.inner.groups(GROUP_WAIT).await
    }

    /// Up to `max` resolutions from `from` on, as applied here; waits up to `wait` for the first one.
    ///
    /// # Errors
    /// [`SyncError::Shutdown`].
    pub async fn follow(
        &self,
        from: Slot,
        max: usize,
        wait: Duration,
    ) -> Result<Followed, SyncError> {
        let deadline = Instant::now() + wait.min(MAX_FOLLOW_WAIT);
        let max = max.min(MAX_FOLLOWED);
        let mut changes = self.inner.applied.changes();
        let mut stopping = self.inner.stopping.subscribe();
        loop {
            changes.mark_unchanged();
            {
                let state = self.inner.applied.state();
                let newest = state.sequencer.next_slot().0.saturating_sub(self.inner.shown);
                let shown = Slot(newest).min(state.sequencer.stored_everywhere().next());
                match state.sequencer.rows(from, max).filter(|_| from >= shown) {
                    None => {
                        let oldest = state.sequencer.oldest_retained().max(shown);
                        return Ok(Followed::Behind { oldest });
                    }
                    Some(rows) if !rows.is_empty() => return Ok(Followed::Rows(rows)),
                    Some(_) => {}
                }
            }
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return Err(SyncError::Shutdown),
                changed = changes.changed() => changed.map_err(|_| SyncError::Shutdown)?,
                () = tokio::time::sleep_until(deadline) => return Ok(Followed::Rows(Vec::new())),
            }
        }
    }

    /// Stops taking part. Connections end, and pending calls have an unknown outcome.
    pub async fn shutdown(&self) {
        self.inner.stopping.send_replace(true);
        let tasks = {
            let mut tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        tasks.iter().for_each(AbortHandle::abort);
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!("Raft did not stop in order: {error}");
        }
        self.inner.log.close();
    }

    /// The leader, as far as this member knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.inner.raft.metrics().borrow_watched().current_leader
    }
}

impl Inner {
    fn receiver(&self, peer: NodeId) -> Receiver {
        Receiver::new(
            peer,
            (self.raft.clone(), self.log.clone()),
            self.beside.clone(),
            self.clocks.clone(),
            self.admitted.subscribe(),
            self.config.election.1,
        )
    }

    fn own(&self) -> &Identity {
        &self.config.identity
    }

    /// The disk a member of the Raft group was enrolled with.
    fn voter_disk(&self, node: NodeId) -> Option<DiskId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.get_node(&node).map(|voter| voter.disk)
    }

    /// Whether a majority has followed this leader within the time in which it would have elected another one. A
    /// single member confirms itself.
    fn is_confirmed(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let acked = metrics.last_quorum_acked.map(|acked| acked.into_inner());
        metrics.membership_config.voter_ids().count() == 1
            || acked.is_some_and(|acked| acked.elapsed() <= self.config.election.1)
    }

    /// The term in which this member leads, once it has applied everything that earlier leaders committed.
    fn leading(&self) -> Option<u64> {
        // The metrics are released before the state is locked: holding both could deadlock with Raft.
        let (term, leads) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_term, metrics.state.is_leader())
        };
        let caught_up = self.applied.state().last.is_some_and(|last| last.leader_id.term == term);
        (leads && caught_up).then_some(term)
    }

    /// Returns once this member has recorded durably that the order is committed through this slot. If its own log does not get
    /// that far in time, its storage continues anyway: the member may be cut off from the leader, and learn the order from
    /// other members.
    async fn remember(&self, through: Slot) {
        let deadline = Instant::now() + REMEMBER_WAIT;
        let mut changes = self.applied.changes();
        loop {
            changes.mark_unchanged();
            if self.applied.state().sequencer.next_slot() > through {
                break;
            }
            if !matches!(tokio::time::timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                tracing::info!("the storage is at slot {through}, and the log of sync is not");
                break;
            }
        }
        if let Err(error) = self.log.remember_committed().await {
            tracing::debug!(%error, "how far the log is committed is not written down");
        }
    }

    async fn groups(&self, wait: Duration) -> Result<StorageGroups, SyncError> {
        let deadline = Instant::now() + wait;
        let mut changes = self.applied.changes();
        loop {
            changes.mark_unchanged();
            let groups = self.applied.state().sequencer.groups().clone();
            if !groups.is_empty() {
                return Ok(groups);
            }
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(SyncError::Shutdown),
                Err(_) => {
                    let reason = "the storage groups are not formed yet";
                    return Err(SyncError::Unavailable(reason.into()));
                }
            }
        }
    }
}

fn raft_config(config: &SyncConfig, tuning: Tuning) -> Result<Config, StartError> {
    let own = config.identity.node;
    if !config.members.iter().any(|member| member.node == own) {
        return Err(StartError::Config(format!("node {own} is not among the sync members")));
    }
    if config.storages.iter().all(Vec::is_empty) {
        return Err(StartError::Config("no storages are named".into()));
    }
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (patience, lease) =
        patience(millis(config.heartbeat), (millis(config.election.0), millis(config.election.1)));
    let raft = Config {
        cluster_name: config.identity.cluster.clone(),
        heartbeat_interval: millis(config.heartbeat),
        election_timeout_min: patience,
        election_timeout_max: lease,
        max_payload_entries: MESSAGE_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(tuning.snapshot_every),
        max_in_snapshot_log_to_keep: tuning.log_kept,
        replication_lag_threshold: tuning.lag_limit,
        api_channel_size: Some(RAFT_QUEUE),
        backoff: "50ms 100ms ...400ms".into(),
        enable_pre_vote: Some(true),
        // Off until the other members have reported what they know of this one.
        enable_elect: false,
        // A restarted leader may have lost applied state that it will only learn again from its log.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    raft.validate().map_err(|error| StartError::Config(error.to_string()))
}

/// openraft's minimum and maximum election timeout for a silence between two bounds, in milliseconds.
///
/// In openraft a member stands for election after the leader's lease, which is as long as the maximum timeout, plus a
/// random timeout: so between the sum of both and twice the maximum. The minimum is also the time limit of a vote
/// with its fsync, and so at least half of the maximum, even if a member then stands a little later than it could.
fn patience(heartbeat: u64, (least, most): (u64, u64)) -> (u64, u64) {
    let lease = most / 2;
    let patience = least.saturating_sub(lease).max(lease / 2).max(heartbeat + 1);
    (patience, lease.max(patience + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_stands_for_election_after_the_silence_that_was_asked_for() {
        for (heartbeat, silence, expected) in [
            (100, (750, 1000), (250, 500)),
            (80, (720, 960), (240, 480)),
            // The minimum stays long enough for a vote and its fsync.
            (100, (400, 800), (200, 400)),
            (100, (200, 300), (101, 150)),
            (100, (200, 201), (101, 102)),
        ] {
            let (patience, lease) = patience(heartbeat, silence);
            assert_eq!((patience, lease), expected);
            assert!(heartbeat < patience && patience < lease);
        }
    }
}

//! A node's status and log for its operators, collected from its roles.
//!
//! Invariant: nothing here changes anything but users, roles and bans (`users`, `roles`, `bans`). What a storage shows of the log is what is on its own disk.
//!
//! Deliberately absent: HTTP (`http`).

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::time::Instant;
use vulpes_raft::ids::{NodeId, Slot};
use vulpes_raft::node::MemberState;
use vulpes_raft::order::{Resolution, Step};

use crate::config::NodeConfig;
use crate::http::{
    Admin, AuditAdmin, BanAdmin, Body, EntryStatus, LogPage, LogReadError, LogRow, NodeStatus,
    Readiness, ReplicaStatus, RoleAdmin, StateStatus, StorageStatus, SyncState, SyncStatus,
    UserAdmin,
};
use crate::log::{Log, ReadError};
use crate::realm::PersistentCounts;
use crate::segment::{checksum, Segment};
use crate::storage::Storage;

use super::readiness::{self, Confirmed};
use super::wiring::Node;

/// Answers admin HTTP, from the start of the process on.
pub(crate) struct NodeAdmin {
    config: NodeConfig,
    started: Instant,
    running: OnceLock<Running>,
}

struct Running {
    node: Arc<Node>,
    confirmed: Arc<Confirmed>,
}

impl NodeAdmin {
    /// The status of a node that is starting.
    pub(crate) fn new(config: NodeConfig) -> Self {
        Self { config, started: Instant::now(), running: OnceLock::new() }
    }

    /// The node has started.
    pub(crate) fn runs(&self, node: Arc<Node>, confirmed: Arc<Confirmed>) {
        // This happens once.
        let _ = self.running.set(Running { node, confirmed });
    }

    fn readiness(&self) -> Readiness {
        match self.running.get() {
            Some(Running { node, confirmed }) => readiness::of(node, confirmed),
            None => Readiness::not_yet("the node is starting"),
        }
    }
}

impl Admin for NodeAdmin {
    fn ready(&self) -> BoxFuture<'_, Readiness> {
        async move { self.readiness() }.boxed()
    }

    fn status(&self) -> BoxFuture<'_, NodeStatus> {
        async move {
            let readiness = self.readiness();
            let disk = self.running.get().map(|running| running.node.disk());
            let mut status = NodeStatus {
                ready: readiness.ready,
                not_ready: readiness.reason,
                uptime_seconds: self.started.elapsed().as_secs(),
                ..NodeStatus::new(&self.config, disk)
            };
            if let Some(Running { node, .. }) = self.running.get() {
                status.sync = sync_status(node);
                status.replica = replica_status(node);
                status.state = state_status(node);
                status.storage = storage_status(node);
                status.entry = entry_status(node);
            }
            status
        }
        .boxed()
    }

    fn log(&self, from: Slot, max: usize) -> BoxFuture<'_, Result<LogPage, LogReadError>> {
        async move {
            let Some(Running { node: running, .. }) = self.running.get() else {
                return Err(LogReadError::Unavailable("the node is starting".into()));
            };
            let node = self.config.node;
            match (running.storage(), running.log()) {
                (Some(storage), Some(log)) => {
                    let (storage, head) = (storage.clone(), log.head().slot);
                    // The disk may be slow, and probes are answered on this thread.
                    let read = move || stored_page(node, &storage, head, (from, max));
                    let page = tokio::task::spawn_blocking(read).await;
                    page.unwrap_or_else(|_| {
                        Err(LogReadError::Unavailable("the log could not be read".into()))
                    })
                }
                (_, Some(log)) => read_page(log, from, max)
                    .await
                    .map(|(oldest, end, rows)| LogPage { node, oldest, end, rows }),
                (_, None) => Err(LogReadError::NoLog),
            }
        }
        .boxed()
    }

    fn users(&self) -> Option<&dyn UserAdmin> {
        let users = self.running.get()?.node.users.as_ref()?;
        Some(users)
    }

    fn roles(&self) -> Option<&dyn RoleAdmin> {
        let users = self.running.get()?.node.users.as_ref()?;
        Some(users)
    }

    fn bans(&self) -> Option<&dyn BanAdmin> {
        let users = self.running.get()?.node.users.as_ref()?;
        Some(users)
    }

    fn audit(&self) -> Option<&dyn AuditAdmin> {
        let users = self.running.get()?.node.users.as_ref()?;
        Some(users)
    }
}

fn sync_status(node: &Node) -> Option<SyncStatus> {
    let status = node.sync()?.status();
    Some(SyncStatus {
        state: match status.state {
            MemberState::Leader => SyncState::Leader,
            MemberState::Follower => SyncState::Follower,
            MemberState::Candidate => SyncState::Candidate,
            MemberState::Learner => SyncState::Learner,
            MemberState::Stopped => SyncState::Stopped,
        },
        term: status.term,
        leader: status.leader,
        voters: status.voters,
        last_index: status.last_log,
        applied_index: status.applied_log,
        tail_slot: status.tail,
        tail_position: status.next_position,
    })
}

fn replica_status(node: &Node) -> Option<ReplicaStatus> {
    let log = node.log()?;
    let tail = log.tail();
    let known = node.sync().map_or(tail.next_position, |sync| sync.status().next_position);
    Some(ReplicaStatus {
        applied_slot: Slot(tail.next_slot.0 - 1),
        applied_position: tail.next_position,
        tail_position: known.max(tail.next_position),
        withheld_events: log.withheld_events(),
    })
}

fn state_status(node: &Node) -> Option<StateStatus> {
    Some(node.realms.as_ref()?.with(|realms| {
        let PersistentCounts { attached, away } = realms.persistent_counts();
        StateStatus {
            next_slot: realms.next(),
            hash: realms.hash().to_string(),
            sessions: realms.sessions().count() as u64,
            retained: realms.retained() as u64,
            waiting: realms.waiting_count() as u64,
            oldest_slot: realms.head().slot,
            oldest_position: realms.head().position,
            kept_attached: attached,
            kept_away: away,
        }
    }))
}

fn storage_status(node: &Node) -> Option<StorageStatus> {
    let storage = node.storage()?;
    // If the disk can't be read for its status, the process will soon end by itself.
    let status = storage.status().ok()?;
    Some(StorageStatus {
        oldest_slot: status.oldest,
        segments: status.bodies,
        file_bytes: status.file_length,
        bodies_fetched: storage.fetched(),
        bodies_late: storage.late_bodies(),
        disk_low: storage.is_low(),
    })
}

fn entry_status(node: &Node) -> Option<EntryStatus> {
    let status = node.entry.as_ref()?.status();
    let status = status.borrow();
    let clients = node.clients.as_ref()?;
    Some(EntryStatus {
        incarnation: status.incarnation,
        wamp_sessions: clients.wamp_sessions.load(Ordering::Relaxed),
        mqtt_sessions: clients.mqtt_sessions.load(Ordering::Relaxed),
        pending_segments: status.pending_segments as u64,
        dropped_messages: clients.drops.count(),
        refuses_for_disks: clients.shortage.storages(),
    })
}

/// Rows and bodies as they are on this storage's own disk. Released ones are not shown, whether deleted yet or not.
fn stored_page(
    node: NodeId,
    storage: &Storage,
    head: Slot,
    (from, max): (Slot, usize),
) -> Result<LogPage, LogReadError> {
    let unavailable =
        |error: crate::storage::ReadError| LogReadError::Unavailable(error.to_string());
    let oldest = || Ok(storage.oldest().map_err(unavailable)?.max(head));
    let from = if from == Slot(0) { oldest()? } else { from };
    let rows = storage.rows(from, max).map_err(unavailable)?;
    let body = |row: &Resolution| match &row.step {
        Step::Segment(sealed) if !storage.stores(sealed.shard) => Body::Elsewhere,
        Step::Segment(sealed) => match storage.body(&sealed.id) {
            Ok(Some(body)) => Body::Read(checksum(&body)),
            // A damaged body is shown as one that could not be read.
            Ok(None) | Err(_) => Body::Unreadable,
        },
        Step::Opened { .. } | Step::Closed { .. } => Body::Unreadable,
    };
    let rows = rows.iter().map(|row| LogRow::new(row, body(row))).collect();
    // Read last: rows that were deleted during the read must not look lost.
    let oldest = oldest()?;
    if from < oldest {
        return Err(LogReadError::TooOld { oldest });
    }
    let end = storage.tail().map_or(oldest, |row| row.slot.next());
    Ok(LogPage { node, oldest, end, rows })
}

/// The log as an entry without a storage reads it.
async fn read_page(
    log: &Log,
    from: Slot,
    max: usize,
) -> Result<(Slot, Slot, Vec<LogRow>), LogReadError> {
    let failed = |error: ReadError| match error {
        ReadError::Gone { oldest } => LogReadError::TooOld { oldest },
        ReadError::Unavailable(reason) => LogReadError::Unavailable(reason),
    };
    let oldest = log.head().slot;
    let from = if from == Slot(0) { oldest } else { from };
    if from < oldest {
        return Err(LogReadError::TooOld { oldest });
    }
    let placed = log.read(from).await.map_err(failed)?;
    let row = |placed: &Arc<crate::log::Placed>| {
        let read = |segment: &Segment| Body::Read(checksum(segment.body()));
        let body = placed.segment.as_ref().map_or(Body::Unreadable, read);
        LogRow::new(&placed.resolution, body)
    };
    let rows = placed.iter().take(max).map(row).collect();
    Ok((oldest, log.tail().next_slot, rows))
}

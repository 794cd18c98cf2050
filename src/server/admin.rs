//! A node as its operators see it: the roles' own words about themselves, put together.
//!
//! Invariant: nothing here changes anything. What a storage shows of the log is what is on its own disk.
//!
//! Deliberately absent: HTTP (`http`).

use std::sync::atomic::Ordering;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::time::Instant;
use vulpes_raft::ids::{NodeId, Slot};
use vulpes_raft::node::MemberState;
use vulpes_raft::order::{Resolution, Step};

use crate::http::{
    Admin, Body, EntryStatus, LogPage, LogReadError, LogRow, NodeStatus, Readiness, ReplicaStatus,
    StateStatus, StorageStatus, SyncState, SyncStatus,
};
use crate::log::{Log, ReadError};
use crate::realm::KeptCounts;
use crate::segment::{checksum, Segment};
use crate::storage::Storage;

use super::node::Node;

/// What admin HTTP asks.
pub(super) struct NodeAdmin {
    pub(super) node: Arc<Node>,
    pub(super) started: Instant,
}

impl Admin for NodeAdmin {
    fn ready(&self) -> BoxFuture<'_, Readiness> {
        async move { self.node.readiness() }.boxed()
    }

    fn status(&self) -> BoxFuture<'_, NodeStatus> {
        async move {
            let node = &self.node;
            let readiness = node.readiness();
            NodeStatus {
                ready: readiness.ready,
                not_ready: readiness.reason,
                uptime_seconds: self.started.elapsed().as_secs(),
                sync: sync_status(node),
                replica: replica_status(node),
                state: state_status(node),
                storage: storage_status(node),
                entry: entry_status(node),
                ..NodeStatus::new(node.config(), node.disk())
            }
        }
        .boxed()
    }

    fn log(&self, from: Slot, max: usize) -> BoxFuture<'_, Result<LogPage, LogReadError>> {
        async move {
            let node = self.node.config().node;
            match (self.node.storage(), self.node.log()) {
                (Some(storage), Some(log)) => {
                    stored_page(node, storage, log.head().slot, (from, max))
                }
                (_, Some(log)) => read_page(log, from, max)
                    .await
                    .map(|(oldest, end, rows)| LogPage { node, oldest, end, rows }),
                (_, None) => Err(LogReadError::NoLog),
            }
        }
        .boxed()
    }
}

impl Node {
    /// Whether clients can be served right now.
    pub(super) fn readiness(&self) -> Readiness {
        if let Some(sync) = &self.sync {
            if sync.status().leader.is_none() {
                return Readiness::not_yet("sync has no leader; are most sync nodes running?");
            }
        }
        if let Some(entry) = &self.entry {
            if entry.status().borrow().incarnation.is_none() {
                return Readiness::not_yet("this entry waits for sync to let it open");
            }
        }
        Readiness::ready()
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
    let tail = node.log()?.tail();
    let known = node.sync().map_or(tail.next_position, |sync| sync.status().next_position);
    Some(ReplicaStatus {
        applied_slot: Slot(tail.next_slot.0 - 1),
        applied_position: tail.next_position,
        tail_position: known.max(tail.next_position),
    })
}

fn state_status(node: &Node) -> Option<StateStatus> {
    Some(node.realms.as_ref()?.with(|realms| {
        let KeptCounts { attached, away } = realms.kept_counts();
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
    // A disk that can't be read for its status ends the process soon enough by itself.
    let status = node.storage()?.status().ok()?;
    Some(StorageStatus {
        oldest_slot: status.oldest,
        segments: status.bodies,
        file_bytes: status.file_length,
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
    })
}

/// Rows and bodies as they are on this storage's own disk. What is released is not shown, deleted already or not.
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
        Step::Segment(sealed) if !storage.keeps(sealed.shard) => Body::Elsewhere,
        Step::Segment(sealed) => match storage.body(&sealed.id) {
            Ok(Some(body)) => Body::Read(checksum(&body)),
            // A damaged body is shown as one that could not be read.
            Ok(None) | Err(_) => Body::Unreadable,
        },
        Step::Opened { .. } | Step::Closed { .. } => Body::Unreadable,
    };
    let rows = rows.iter().map(|row| LogRow::new(row, body(row))).collect();
    // Asked for last: what was deleted while it was read is not to look like something lost.
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

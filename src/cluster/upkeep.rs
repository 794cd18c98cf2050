//! A storage's upkeep: it deletes what was released, fills in what it missed while it was away, and starts over from another
//! storage's state if it was away for longer than the log is retained.
//!
//! Invariant: a storage starts over only if everything that it has in the order is released. So none of its votes is withdrawn.
//!
//! Deliberately absent: what is released (`retention` requests, `realm` decides).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use vulpes_raft::ids::{NodeId, Slot};
use vulpes_raft::mutant::{planted, Mutant};
use vulpes_raft::order::{Resolution, SealedSegment, Step};

use crate::log::{Log, Rows};
use crate::peer::{Rows as PeerRows, StorageClient};
use crate::realm::{Realms, SharedRealms};
use crate::segment::Segment;
use crate::storage::Storage;
use crate::types::limits;
use crate::types::row::{Change, FromRows, IndexedRow};

/// How long to wait before a retry.
const RETRY: Duration = Duration::from_millis(500);

/// How long a starting storage waits for the others to report where their log begins.
const ANSWER: Duration = Duration::from_secs(1);

/// The most rows filled in at once.
const FILL_ROWS: u64 = 256;

/// Keeps the log and this node's storage at the head. Returns the sender with which the replica reports that the head has left
/// the node behind, and a receiver that becomes true when the node has to be started again for that.
pub(crate) fn start_upkeep(
    storage: Option<Storage>,
    others: Vec<StorageClient>,
    log: &Log,
    realms: &SharedRealms,
) -> (watch::Sender<bool>, watch::Receiver<bool>) {
    log.release(realms.with(Realms::head));
    let (left_behind, mut behind) = watch::channel(false);
    let (ready, wait) = watch::channel(false);
    if let Some(storage) = &storage {
        tokio::spawn(upkeep(storage.clone(), log.clone()));
    }
    tokio::spawn(async move {
        if behind.wait_for(|behind| *behind).await.is_err() {
            return;
        }
        if let Some(storage) = storage {
            begin_anew(&storage, &others).await;
        }
        ready.send_replace(true);
    });
    (left_behind, wait)
}

/// Keeps a storage's oldest slot at the head of the log, for as long as the node lives.
async fn upkeep(storage: Storage, log: Log) {
    let mut heads = log.heads();
    loop {
        let head = heads.borrow_and_update().slot;
        let done = match storage.oldest() {
            Ok(oldest) if oldest > head => fill(&storage, &log, head, oldest).await.map(|()| false),
            Ok(_) => storage.release(head).await.map(|()| true).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match done {
            Ok(false) => {}
            Ok(true) => {
                if heads.changed().await.is_err() {
                    return;
                }
            }
            Err(reason) => {
                tracing::debug!(%head, reason, "the ends of the storage can't be moved right now");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Fills in some of the rows right before the oldest one.
async fn fill(storage: &Storage, log: &Log, head: Slot, oldest: Slot) -> Result<(), String> {
    let from = Slot(head.0.max(oldest.0.saturating_sub(FILL_ROWS)));
    let mut found = Rows { rows: Vec::new(), oldest, hidden: Vec::new() };
    let mut next = from;
    while next < oldest {
        let count = (oldest.0 - next.0) as usize;
        let more = log.stored_rows(next, count).await.map_err(|error| error.to_string())?;
        let rows = more.rows.into_iter().take_while(|row| row.slot < oldest);
        found.rows.extend(rows);
        found.hidden.extend(more.hidden);
        next = found.rows.last().map_or(oldest, |row| row.slot.next());
    }
    let mut at = found.rows.len();
    let mut bytes = 0;
    while at > 0 && bytes < limits::READ_BYTES {
        at -= 1;
        bytes += sealed(&found.rows[at]).map_or(0, |sealed| sealed.length as usize);
    }
    let rows = found.rows.split_off(at);
    let lacked = |row: &Resolution| sealed(row).filter(|sealed| storage.lacks(sealed)).cloned();
    let lacks: Vec<Option<SealedSegment>> = rows.iter().map(lacked).collect();
    let wanted: Vec<SealedSegment> = lacks.iter().flatten().cloned().collect();
    let mut bodies: Vec<Segment> = Vec::new();
    while bodies.len() < wanted.len() {
        let more = log.bodies(&wanted[bodies.len()..]).await.map_err(|error| error.to_string())?;
        bodies.extend(more);
    }
    let mut bodies = bodies.into_iter();
    let mut hidden = found.hidden.into_iter().collect::<BTreeMap<_, _>>();
    let row = |(resolution, lacks): (Resolution, Option<SealedSegment>)| {
        let body = lacks.and_then(|_| bodies.next());
        let body = body.filter(|_| !planted(Mutant::SnapshotWithoutBodies));
        IndexedRow {
            body: body.map(|segment| segment.body().clone()),
            hidden: hidden.remove(&resolution.slot).unwrap_or_default(),
            changes: Vec::new(),
            resolution,
        }
    };
    let rows = rows.into_iter().zip(lacks).map(row).collect();
    storage.fill(rows).await.map_err(|error| error.to_string())
}

fn sealed(row: &Resolution) -> Option<&SealedSegment> {
    match &row.step {
        Step::Segment(sealed) => Some(sealed),
        Step::Opened { .. } | Step::Closed { .. } => None,
    }
}

/// Lets a storage start over before clients are let in, if another storage knows that it has to. Storages that do not answer
/// soon are not waited for: the replica finds out as well, only later.
pub(crate) async fn catch_up(storage: &Storage, others: &[StorageClient]) {
    let next = storage.tail().map_or(Slot(1), |row| row.slot.next());
    let asked = others.iter().map(|other| tokio::time::timeout(ANSWER, other.status()));
    let answers = futures::future::join_all(asked).await;
    if answers.into_iter().flatten().flatten().any(|status| status.head > next) {
        begin_anew(storage, others).await;
    }
}

/// Lets a storage start over from the state of one of the others; retried until one of them can provide it.
async fn begin_anew(storage: &Storage, others: &[StorageClient]) {
    loop {
        for other in others {
            match adopt(storage, other, others).await {
                Ok(slot) => {
                    tracing::warn!(%slot, from = %other.node(), "the storage begins anew behind another one's state");
                    return;
                }
                Err(reason) => {
                    tracing::info!(from = %other.node(), reason, "can't begin anew from this storage");
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// A body, from any storage that has it.
async fn body_of(sealed: &SealedSegment, others: &[StorageClient]) -> Result<Bytes, String> {
    let mut failure = String::new();
    for other in others.iter().filter(|other| other.stores(sealed.shard)) {
        match other.bodies(vec![sealed.id]).await {
            Ok(bodies) => match bodies.into_iter().next().flatten() {
                Some(body) => return Ok(body),
                None => failure = format!("node {} lacks it", other.node()),
            },
            Err(error) => failure = error.to_string(),
        }
    }
    Err(format!("the newest body {} is not to be had: {failure}", sealed.id))
}

/// Adopts another storage's state; returns the slot after which this storage continues.
async fn adopt(
    storage: &Storage,
    other: &StorageClient,
    others: &[StorageClient],
) -> Result<Slot, String> {
    let (tail, rows) = other.state_rows().await.map_err(|error| error.to_string())?;
    let tail = tail.ok_or("it has nothing")?;
    let realms = Realms::from_rows(Some(&tail), rows.iter().cloned()).map_err(|e| e.to_string())?;
    let next = storage.tail().map_or(Slot(1), |row| row.slot.next());
    if realms.head().slot <= next {
        return Err(format!("it keeps slot {next}, where this one goes on"));
    }
    let entries: Vec<(NodeId, _)> = realms.incarnations().collect();
    let PeerRows { hidden, .. } = other.rows(tail.slot, 1).await.map_err(|e| e.to_string())?;
    let hidden = hidden.into_iter().find(|(slot, _)| *slot == tail.slot);
    let body = match sealed(&tail) {
        Some(sealed) if storage.stores(sealed.shard) => Some(body_of(sealed, others).await?),
        _ => None,
    };
    let slot = tail.slot;
    let row = IndexedRow {
        resolution: tail,
        body,
        hidden: hidden.map(|(_, offsets)| offsets).unwrap_or_default(),
        changes: rows.into_iter().map(|(key, value)| Change { key, value: Some(value) }).collect(),
    };
    storage.adopt(row, &entries).await.map_err(|error| error.to_string())?;
    Ok(slot)
}

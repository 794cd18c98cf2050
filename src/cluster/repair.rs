//! Repairs bodies that a storage found damaged, from the other storages.
//!
//! Invariant: a body is replaced only by one with the length and checksum that the order has for it.
//!
//! Deliberately absent: finding damage. Reads find it; `vulpes verify` reads everything.

use std::collections::BTreeSet;
use std::time::Duration;

use vulpes_raft::ids::{AdvanceSegment, Slot};
use vulpes_raft::order::{SealedSegment, Step};

use crate::peer::StorageClient;
use crate::storage::Storage;
use crate::types::limits;

/// How often a storage checks whether it has something to repair.
const INTERVAL: Duration = Duration::from_secs(2);

/// Repairs a storage's bodies for as long as the node lives.
pub(crate) async fn repair(storage: Storage, others: Vec<StorageClient>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let damaged: BTreeSet<AdvanceSegment> = storage.damaged().into_iter().collect();
        if damaged.is_empty() {
            continue;
        }
        for sealed in resolved(&storage, damaged) {
            match mend(&storage, &others, &sealed).await {
                Ok(()) => {
                    tracing::warn!(segment = %sealed.id, "a damaged body was mended from another storage")
                }
                Err(reason) => {
                    tracing::error!(segment = %sealed.id, reason, "a damaged body can't be mended yet")
                }
            }
        }
    }
}

/// The order's rows of damaged bodies. Damage is rare, so scanning all rows is cheaper than an index.
fn resolved(storage: &Storage, mut damaged: BTreeSet<AdvanceSegment>) -> Vec<SealedSegment> {
    let mut found = Vec::new();
    let mut next = storage.oldest().unwrap_or(Slot(1));
    while !damaged.is_empty() {
        let Ok(rows) = storage.rows(next, limits::READ_ROWS) else { break };
        let Some(last) = rows.last() else { break };
        next = last.slot.next();
        for row in rows {
            if let Step::Segment(sealed) = row.step {
                if damaged.remove(&sealed.id) {
                    found.push(sealed);
                }
            }
        }
    }
    found
}

async fn mend(
    storage: &Storage,
    others: &[StorageClient],
    sealed: &SealedSegment,
) -> Result<(), String> {
    let mut failure = "there is no other storage".to_owned();
    for other in others {
        let body = match other.bodies(vec![sealed.id]).await {
            Ok(bodies) => bodies.into_iter().next().flatten(),
            Err(error) => {
                failure = error.to_string();
                continue;
            }
        };
        match body {
            Some(body) => match storage.replace(sealed, body).await {
                Ok(()) => return Ok(()),
                Err(error) => failure = error.to_string(),
            },
            None => failure = format!("node {} does not have it either", other.node()),
        }
    }
    Err(failure)
}

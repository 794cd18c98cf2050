//! The states that the nodes have folded from their logs: states at an equal slot must have equal hashes.
//!
//! Invariant: hashes are compared only if they are of the same slot.
//!
//! Deliberately absent: which row of the state differs; a hash does not show that.

use std::collections::BTreeMap;
use std::time::Duration;

use vulpes_raft::ids::{NodeId, Slot};

use super::VerifyError;
use crate::client::admin::{AdminClient, AdminUrl};

/// How often all nodes are asked, at most.
const ROUNDS: usize = 20;

/// How long to wait between two rounds.
const PAUSE: Duration = Duration::from_millis(50);

/// Two nodes have different states from the same log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "before slot {slot}, the state of node {first_node} has the hash {first}, and that of node {second_node} has \
     {second}; stop clients from using either of them, and report this as a bug"
)]
pub struct StatesDiffer {
    pub slot: Slot,
    pub first_node: NodeId,
    pub first: String,
    pub second_node: NodeId,
    pub second: String,
}

/// The hashes that were seen, by slot and node.
#[derive(Debug, Default)]
struct Seen(BTreeMap<Slot, BTreeMap<NodeId, String>>);

impl Seen {
    /// Takes a node's hash, and returns how many nodes have been seen at its slot.
    fn take(&mut self, node: NodeId, slot: Slot, hash: String) -> Result<usize, StatesDiffer> {
        let seen = self.0.entry(slot).or_default();
        if let Some((first_node, first)) = seen.iter().find(|(_, first)| **first != hash) {
            return Err(StatesDiffer {
                slot,
                first_node: *first_node,
                first: first.clone(),
                second_node: node,
                second: hash,
            });
        }
        seen.insert(node, hash);
        Ok(seen.len())
    }
}

/// Asks nodes for their states until all were seen at one slot, `end` or later, and returns that slot; `None` if that never
/// happened.
pub(super) async fn compare(
    client: &AdminClient,
    urls: &[AdminUrl],
    nodes: &[NodeId],
    end: Slot,
) -> Result<Option<Slot>, VerifyError> {
    let mut seen = Seen::default();
    for round in 0..ROUNDS {
        if round > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        for status in futures::future::join_all(urls.iter().map(|url| client.status(url))).await {
            let status = status?;
            let Some(state) = status.state else { continue };
            let all = seen.take(status.node, state.next_slot, state.hash)? == nodes.len();
            if all && state.next_slot >= end {
                return Ok(Some(state.next_slot));
            }
        }
    }
    Ok(None)
}

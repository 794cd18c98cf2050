//! The storages of the cluster, as a node sees them: the client of each, their groups and disks, and this storage's reports to
//! sync.
//!
//! Invariant: a storage ends if it is not on the disk that it was enrolled with, or has less than it reported to the cluster. A
//! node ends if its configuration has other groups than those that the cluster was formed with. Neither follows the order
//! before that is checked.
//!
//! Deliberately absent: requests to storages (`peer`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vulpes_raft::client::SyncClient;
use vulpes_raft::host::Host;
use vulpes_raft::ids::{DiskId, NodeId, Slot};
use vulpes_raft::mutant::{planted, Mutant};
use vulpes_raft::net::wire::{self, Identity};
use vulpes_raft::order::StorageGroups;

use crate::config::{Member, NodeConfig, Role};
use crate::log::Source;
use crate::peer::StorageClient;
use crate::storage::{Reads, Storage};

/// How long to wait before a retry.
pub(crate) const RETRY: Duration = Duration::from_millis(200);

/// How often, at most, a storage reports its last stored slot to sync.
const STORED_INTERVAL: Duration = Duration::from_secs(1);

/// The client of each storage.
pub(crate) type Storages = BTreeMap<NodeId, StorageClient>;

/// The client of each storage; this node's own storage is read by at most `reads` at once. Each set of clients has a limit of
/// its own, so its reads do not wait for those of others.
pub(crate) fn storages(
    host: &Host,
    config: &NodeConfig,
    identity: &Identity,
    own: Option<&Storage>,
    reads: usize,
) -> Storages {
    let reads = Reads::new(host.clients.clone(), reads);
    let client = |member: &Member| match own {
        Some(storage) if member.id == identity.node => {
            StorageClient::local(storage.clone(), reads.clone())
        }
        _ => {
            let storage = (member.id, config.shards(member));
            StorageClient::remote(host, identity, storage, member.peer.as_str(), None)
        }
    };
    config.with_role(Role::Storage).map(|member| (member.id, client(member))).collect()
}

/// The storage on this node, as it was when the node started.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    pub(crate) node: NodeId,
    pub(crate) disk: DiskId,
    /// The last slot of the order that it has on disk.
    pub(crate) stored: Slot,
    /// This node is the only sync member, so no other one could know of more.
    pub(crate) alone: bool,
}

/// The storages that answer, the one that has stored most first.
pub(crate) async fn furthest_first(storages: &Storages) -> Vec<&StorageClient> {
    let asked = storages.values().map(|storage| async move { (storage, storage.status().await) });
    let mut found = Vec::new();
    for (storage, status) in futures::future::join_all(asked).await {
        match status {
            Ok(status) => found.push((status.indexed, storage)),
            Err(error) => tracing::info!(%error, "a storage to begin from does not answer"),
        }
    }
    found.sort_by_key(|(indexed, _)| std::cmp::Reverse(*indexed));
    found.into_iter().map(|(_, storage)| storage).collect()
}

/// All storages, this node's own first, so that reads cross the network only if they must. The order of a group's other members
/// differs between nodes, so that not all nodes ask the same one.
pub(crate) fn nearest_first(config: &NodeConfig, storages: &Storages) -> Vec<Arc<dyn Source>> {
    let mut nodes = Vec::with_capacity(storages.len());
    for group in 1..=config.storage_groups() {
        let members = config.with_role(Role::Storage).filter(|member| member.group == group);
        let mut members: Vec<NodeId> = members.map(|member| member.id).collect();
        let first = config.node.0 % members.len() as u64;
        members.rotate_left(first as usize);
        nodes.extend(members);
    }
    nodes.sort_by_key(|node| *node != config.node);
    let found = nodes.into_iter().filter_map(|node| storages.get(&node));
    found.map(|storage| Arc::new(storage.clone()) as Arc<dyn Source>).collect()
}

/// Learns the storage groups, and with them the expected disk of each storage. A storage that is not on the disk it was
/// enrolled with must not vote: it ends. So does a node that was configured with other groups. True if everything is as it was.
pub(crate) async fn enrol(
    host: Host,
    order: SyncClient,
    (storages, for_clients): (Storages, Storages),
    told: u16,
    own: Option<Own>,
) -> bool {
    let groups = loop {
        match order.groups().await {
            Ok(groups) => break groups,
            Err(error) => {
                tracing::debug!(%error, "the storage groups are not known yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    if let Some(node) = misplaced(&groups, &storages, told) {
        (host.fatal)(&format!(
            "node {node} is in another storage group than when the cluster was formed, with {} of them; \
             put each `group` in the configuration back to what it was",
            groups.len()
        ));
        return false;
    }
    for member in groups.members() {
        match own {
            Some(own) if own.node == member.node => {
                if own.disk != member.disk {
                    (host.fatal)(&wire::wiped(own.node));
                    return false;
                }
            }
            _ => {
                let ways = [&storages, &for_clients].into_iter();
                ways.filter_map(|ways| ways.get(&member.node))
                    .for_each(|client| client.expect_disk(member.disk));
            }
        }
    }
    match own {
        Some(own) if !own.alone => has_all_it_told(&host, &order, own).await,
        _ => true,
    }
}

/// Whether this storage has on its disk what the order says that it has. A storage that has less is an older copy: it ends.
async fn has_all_it_told(host: &Host, order: &SyncClient, own: Own) -> bool {
    let known = loop {
        let answers = order.known(own.node).await;
        match answers.into_iter().map(|known| known.stored).max() {
            Some(known) => break known,
            None => tokio::time::sleep(RETRY).await,
        }
    };
    let Own { node, stored, .. } = own;
    if known > stored && !planted(Mutant::AcceptOlderDisk) {
        (host.fatal)(&format!(
            "node {node} has less than it has told the cluster: it had the order on disk through slot {known}, and has it \
             through {stored}. Its data directory was put back from an older copy, or its disk lost what was written; give it \
             the newest one, or an empty data directory and a new number"
        ));
        return false;
    }
    true
}

/// A storage whose group is not the configured one, where `told` is the configured number of groups.
fn misplaced(groups: &StorageGroups, storages: &Storages, told: u16) -> Option<NodeId> {
    let members = groups
        .iter()
        .flat_map(|(first, group)| group.members.iter().map(move |member| (first, member.node)));
    let mut known = members.filter_map(|(first, node)| Some((first, storages.get(&node)?)));
    let moved =
        known.find(|(first, storage)| groups.len() != usize::from(told) || !storage.stores(*first));
    moved.map(|(_, storage)| storage.node())
}

/// Reports the last stored slot of this storage to sync from time to time, so that sync can drop the rows.
pub(crate) async fn report_stored(order: SyncClient, storage: Storage) {
    let mut indexed = storage.indexed();
    let mut told = Slot(0);
    loop {
        let through = *indexed.borrow_and_update();
        if through > told {
            match order.stored(storage.node(), through).await {
                Ok(()) => told = through,
                Err(error) => tracing::debug!(%error, "sync was not told how far the storage is"),
            }
        }
        tokio::time::sleep(STORED_INTERVAL).await;
        if *indexed.borrow() == told && indexed.changed().await.is_err() {
            return;
        }
    }
}

//! How a cluster begins: its lowest-numbered member forms the Raft group once, and that group's first leader forms
//! the storage groups once.
//!
//! Invariant: the group is initialised only when every sync member and every storage has been reached and every sync
//! member is blank. So a wiped lowest member never starts a second group beside its old one.
//!
//! Deliberately absent: later changes of any group.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::errors::{InitializeError, RaftError};

use super::{Inner, Member};
use crate::consensus::types::Voter;
use crate::ids::{DiskId, NodeId};
use crate::net::rpc::Lane;
use crate::net::wire::{self, LinkError, Service};
use crate::order::{StorageGroup, StorageMember};
use crate::sequencer::Proposal;
use crate::service::{SyncCall, SyncReply, CALL_TIMEOUT};

/// How long to wait before contacting the others again.
const AGAIN: Duration = Duration::from_millis(500);

/// Why the group can't be initialised yet.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    #[error("waiting for {what} {node} at {address}: {reason}")]
    Missing { what: &'static str, node: NodeId, address: String, reason: String },
    /// Another member already belongs to a group: this node's data is gone, or never existed.
    #[error(
        "node {node} belongs to a sync group already, but this node's data directory is new. \
         Give this node its old data directory back, or a new number; it does not take part under this one"
    )]
    Wiped { node: NodeId },
}

/// How often a blank member asks the others whether they enrolled its number with another disk.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Initialises the group if that is this node's task, waiting for the others as long as it takes. Any other blank
/// member waits to be enrolled, and reports if it can't be.
pub(super) async fn run(inner: &Inner) {
    let lowest = inner.config.members.iter().map(|member| member.node).min();
    if lowest == Some(inner.own().node) {
        begin(inner).await;
    } else {
        wait(inner).await;
    }
}

async fn wait(inner: &Inner) {
    while let Ok(false) = inner.raft.is_initialized().await {
        for member in inner.config.members.iter().filter(|other| other.node != inner.own().node) {
            let hello = disk_of(inner, member, Service::Sync, "sync member").await;
            if let Err(wiped @ NotYet::Wiped { .. }) = hello {
                tracing::error!("{wiped}");
                break;
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn begin(inner: &Inner) {
    let mut waiting_for = String::new();
    loop {
        match inner.raft.is_initialized().await {
            Ok(false) => {}
            // Stopped, or part of a group.
            Ok(true) | Err(_) => return,
        }
        match gather(inner).await {
            Ok(voters) => {
                let members = voters.len();
                match inner.raft.initialize(voters).await {
                    Ok(()) => {
                        tracing::info!("initialised the sync group with {members} members");
                        return;
                    }
                    Err(RaftError::APIError(InitializeError::NotAllowed(_))) => return,
                    Err(error) => tracing::error!("cannot initialise the sync group: {error}"),
                }
            }
            Err(refusal @ NotYet::Wiped { .. }) => tracing::error!("{refusal}"),
            Err(missing @ NotYet::Missing { .. }) => {
                let text = missing.to_string();
                if text != waiting_for {
                    tracing::info!("the sync group is not initialised yet; {text}");
                    waiting_for = text;
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Contacts all nodes; returns the members' addresses and disks if all are there and blank.
async fn gather(inner: &Inner) -> Result<BTreeMap<NodeId, Voter>, NotYet> {
    let mut voters = BTreeMap::new();
    let mut missing = None;
    for member in &inner.config.members {
        let disk = if member.node == inner.own().node {
            inner.own().disk
        } else {
            match blank(inner, member).await {
                Ok(disk) => disk,
                Err(wiped @ NotYet::Wiped { .. }) => return Err(wiped),
                // The others are still asked: one of them may already belong to a group.
                Err(not_yet) => {
                    missing.get_or_insert(not_yet);
                    continue;
                }
            }
        };
        voters.insert(member.node, Voter { address: member.address.clone(), disk });
    }
    for storage in inner.config.storages.iter().flatten() {
        if let Err(not_yet) = storage_disk(inner, storage).await {
            missing.get_or_insert(not_yet);
        }
    }
    missing.map_or(Ok(voters), Err)
}

/// The disk of another sync member that has never been part of a group.
async fn blank(inner: &Inner, member: &Member) -> Result<DiskId, NotYet> {
    let disk = disk_of(inner, member, Service::Sync, "sync member").await?;
    let expected = (member.node, Some(disk));
    let lane: Lane<SyncCall, SyncReply> =
        Lane::new(&inner.host, inner.own(), &member.address, Service::Sync, expected);
    match lane.call(SyncCall::Who, CALL_TIMEOUT).await {
        Ok(SyncReply::Who { blank: true }) => Ok(disk),
        Ok(SyncReply::Who { blank: false }) => Err(NotYet::Wiped { node: member.node }),
        Ok(other) => Err(missing("sync member", member, format!("it answered {other:?}"))),
        Err(error) => Err(missing("sync member", member, error.to_string())),
    }
}

/// The disk of a storage: for a sync member the enrolled one, for another node the one that it reports.
async fn storage_disk(inner: &Inner, storage: &Member) -> Result<DiskId, NotYet> {
    if storage.node == inner.own().node {
        return Ok(inner.own().disk);
    }
    if let Some(disk) = inner.voter_disk(storage.node) {
        return Ok(disk);
    }
    let sync = inner.config.members.iter().any(|member| member.node == storage.node);
    let service = if sync { Service::Sync } else { Service::Fetch };
    disk_of(inner, storage, service, "storage").await
}

/// Connects to a node to learn its disk from the handshake.
async fn disk_of(
    inner: &Inner,
    member: &Member,
    service: Service,
    what: &'static str,
) -> Result<DiskId, NotYet> {
    let expected = (member.node, None);
    match wire::dial(&inner.host, inner.own(), &member.address, service, expected).await {
        Ok(link) => Ok(link.peer.disk),
        Err(LinkError::Refused(reason)) if reason == wire::wiped(inner.own().node) => {
            Err(NotYet::Wiped { node: member.node })
        }
        Err(error) => Err(missing(what, member, error.to_string())),
    }
}

fn missing(what: &'static str, member: &Member, reason: String) -> NotYet {
    NotYet::Missing { what, node: member.node, address: member.address.clone(), reason }
}

/// Proposes the storage groups, once, as the leader of a sync group that has none.
pub(super) async fn form(inner: &Inner) {
    let mut groups = Vec::with_capacity(inner.config.storages.len());
    for storages in &inner.config.storages {
        let mut members = Vec::with_capacity(storages.len());
        for storage in storages {
            match storage_disk(inner, storage).await {
                Ok(disk) => members.push(StorageMember { node: storage.node, disk }),
                Err(not_yet) => {
                    tracing::info!("the storage groups are not formed yet; {not_yet}");
                    return;
                }
            }
        }
        groups.push(StorageGroup { members });
    }
    let outcome = inner.submit(vec![Proposal::FormGroups { groups }]).await;
    tracing::debug!("proposed the storage groups: {outcome:?}");
}

//! Ends the node when Raft has failed, because of its disk or a broken invariant, and logs who leads.
//!
//! Invariant: a node does not outlive its Raft, even if Raft's task panicked without a reason.
//!
//! Deliberately absent: a requested stop. It stops Raft, whose state then shows that.

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;

use super::Inner;
use crate::consensus::types::Types;
use crate::ids::NodeId;

/// Returns once Raft was stopped, or the node has been ended.
pub(super) async fn until_raft_fails(node: &Inner) {
    let mut metrics = node.raft.metrics();
    let mut gone = false;
    let mut told = (None, 0);
    loop {
        let (state, leader) = {
            let metrics = metrics.borrow_watched();
            (metrics.running_state.clone(), (metrics.current_leader, metrics.current_term))
        };
        if leader != told {
            told = leader;
            tell_who_leads(node, leader);
        }
        match (state, gone) {
            (Ok(()), false) => {}
            (state, _) => {
                if let Some(reason) = failure(&state) {
                    (node.host.fatal)(&reason);
                }
                return;
            }
        }
        gone = metrics.changed().await.is_err();
    }
}

/// Logs elections.
fn tell_who_leads(node: &Inner, (leader, term): (Option<NodeId>, u64)) {
    match leader {
        Some(leader) if leader == node.own().node => {
            tracing::info!("this node, {leader}, leads sync in term {term}");
        }
        Some(leader) => tracing::info!("node {leader} leads sync in term {term}"),
        None => tracing::info!("sync has no leader in term {term}"),
    }
}

/// Why a node has to end after its Raft stopped with this state.
fn failure(state: &Result<(), Fatal<Types>>) -> Option<String> {
    match state {
        Err(Fatal::Stopped) => None,
        Err(error) => Some(format!("Raft failed: {error}")),
        Ok(()) => Some("Raft failed: its task ended without a word".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::disk::file::File;
    use crate::host::Host;
    use crate::ids::DiskId;
    use crate::net::wire::Identity;
    use crate::node::{Member, SyncConfig, SyncNode};

    #[test]
    fn only_a_raft_that_was_stopped_may_be_gone() {
        assert_eq!(failure(&Err(Fatal::Stopped)), None);
        assert!(failure(&Err(Fatal::Panicked)).is_some());
        assert!(failure(&Ok(())).is_some());
    }

    #[tokio::test]
    async fn a_node_whose_raft_panics_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (ends, mut ended) = tokio::sync::mpsc::channel(1);
        let fatal = move |reason: &str| drop(ends.try_send(reason.to_owned()));
        let host = Host { fatal: Arc::new(fatal), ..Host::real() };
        let members = vec![Member { node: NodeId(1), address: "127.0.0.1:1".into() }];
        let config = SyncConfig {
            identity: Identity { cluster: "test".into(), node: NodeId(1), disk: DiskId(1) },
            storages: vec![members.clone()],
            members,
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(1_500), Duration::from_millis(2_000)),
            lease: Duration::from_secs(10),
        };
        let file = File::open(&host, folder.path(), &config.identity).unwrap();
        let node = SyncNode::start(host, config, &file).await.unwrap();
        let panics = node.inner.raft.with_raft_state(|_| -> () { panic!("on purpose") });
        assert!(panics.await.is_err());
        let reason = tokio::time::timeout(Duration::from_secs(20), ended.recv()).await;
        assert!(reason.unwrap().unwrap().contains("Raft failed"));
    }
}

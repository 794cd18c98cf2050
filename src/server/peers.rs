//! Listening for other nodes: one loop, one task a connection.
//!
//! Invariant: a connection takes one of a bounded number of places; one for a role that this node has not, or has not
//! yet, is refused with the reason.
//!
//! Deliberately absent: what is served (the roles themselves).

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use vulpes_raft::host::Listener;
use vulpes_raft::node::SyncNode;
use vulpes_raft::wire::{self, Identity, Link, Service};

use crate::peer::{serve_fetch, serve_keep};
use crate::storage::{Reads, Storage};

use super::calls::links::serve_calls;
use super::calls::Calls;
use super::node::RETRY;

/// Connections from other nodes that may be open at once: several services from each, and some that are being replaced.
const PEER_CONNECTIONS: usize = 1024;

/// What this node serves to others.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) sync: Option<SyncNode>,
    pub(super) storage: Option<Storage>,
    /// How other nodes read it.
    pub(super) reads: Reads,
    /// Whether the storage is known to have all that it told, so that it may vote.
    pub(super) enrolled: watch::Receiver<bool>,
    /// There once the node is an entry that reads the log.
    pub(super) calls: Arc<OnceLock<Calls>>,
}

/// Accepts other nodes for as long as the node lives.
pub(super) async fn serve_peers(
    mut listener: Box<dyn Listener>,
    identity: Identity,
    served: Served,
) {
    let places = Arc::new(tokio::sync::Semaphore::new(PEER_CONNECTIONS));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a node's connection could not be accepted: {error}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (identity, served) = (identity.clone(), served.clone());
        tokio::spawn(async move {
            let admit = |peer: &Identity, service| served.admit(peer, service);
            match wire::welcome(stream, &identity, admit).await {
                Ok(link) => served.serve(link).await,
                Err(error) => {
                    tracing::warn!(
                        "a connection to the node port from {address} was not taken: {error}"
                    );
                }
            }
            drop(place);
        });
    }
}

impl Served {
    fn admit(&self, peer: &Identity, service: Service) -> Result<(), String> {
        match (service, &self.sync) {
            (Service::Raft | Service::Sync, Some(sync)) => sync.admit(peer, service),
            (Service::Raft | Service::Sync, None) => Err("this node has no sync role".into()),
            (Service::Keep, _) if self.storage.is_some() && !*self.enrolled.borrow() => {
                Err("this storage does not know yet whether it has all that it told".into())
            }
            (Service::Keep | Service::Fetch, _) if self.storage.is_some() => Ok(()),
            (Service::Keep | Service::Fetch, _) => Err("this node has no storage role".into()),
            (Service::Calls, _) if self.calls.get().is_some() => Ok(()),
            (Service::Calls, _) => Err("this node is no entry, or not yet".into()),
        }
    }

    async fn serve(self, link: Link) {
        match (link.service, self.sync, self.storage, self.calls.get()) {
            (Service::Raft | Service::Sync, Some(sync), _, _) => sync.serve(link).await,
            (Service::Keep, _, Some(storage), _) => serve_keep(link, storage).await,
            (Service::Fetch, _, Some(storage), _) => serve_fetch(link, storage, self.reads).await,
            (Service::Calls, _, _, Some(calls)) => serve_calls(link, calls.clone()).await,
            // `admit` has turned it away.
            _ => {}
        }
    }
}

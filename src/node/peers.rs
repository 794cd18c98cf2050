//! Listening for other nodes: one loop, one task per connection.
//!
//! Invariant: a connection takes one of a bounded number of permits, a different one before it has identified itself, and is
//! read only as far as there is room for its input. A connection for a role that this node does not have, or does not have yet,
//! is refused with the reason.
//!
//! Deliberately absent: the services (the roles themselves).

use std::sync::{Arc, OnceLock};

use tokio::sync::{watch, Semaphore};
use vulpes_raft::host::Listener;
use vulpes_raft::net::wire::{self, Identity, Link, Service};
use vulpes_raft::node::SyncNode;

use crate::peer::{serve_append, serve_fetch};
use crate::storage::{Reads, Storage};
use crate::types::limits;

use crate::cluster::storages::RETRY;
use crate::server::budget::Budget;
use crate::server::calls::links::serve_calls;
use crate::server::calls::Calls;
use crate::server::intake::{Framing, Intake, Terms};

/// What this node serves to others.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) sync: Option<SyncNode>,
    pub(crate) storage: Option<Storage>,
    /// Limits how many reads of other nodes it serves at once.
    pub(crate) reads: Reads,
    /// Whether the storage is known to have everything that it reported, so that it may vote.
    pub(crate) enrolled: watch::Receiver<bool>,
    /// Present once the node is an entry that reads the log.
    pub(crate) calls: Arc<OnceLock<Calls>>,
}

/// Accepts other nodes for as long as the node lives.
pub(crate) async fn serve_peers(
    mut listener: Box<dyn Listener>,
    identity: Identity,
    served: Served,
) {
    let places = Arc::new(Semaphore::new(limits::PEER_CONNECTIONS));
    let strangers = Arc::new(Semaphore::new(limits::PEER_STRANGERS));
    let (others, raft) =
        (Budget::in_parts(limits::PEER_BYTES), Budget::in_parts(limits::RAFT_BYTES));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a node's connection could not be accepted: {error}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let Ok(stranger) = strangers.clone().try_acquire_owned() else { continue };
        let (identity, served, places) = (identity.clone(), served.clone(), places.clone());
        let intake = Intake::settled_by_reading(Framing::Length, &Terms::PEER, &others);
        let raft = raft.clone();
        tokio::spawn(async move {
            let place = |()| {
                places.try_acquire_owned().map_err(|_| "it has too many connections".to_owned())
            };
            let mut taken = None;
            let admit = |peer: &Identity, service| {
                taken = Some(served.admit(peer, service).and_then(place)?);
                if service == Service::Raft {
                    intake.belongs_to(&raft);
                }
                Ok(())
            };
            let welcome = wire::welcome(intake.on(stream), &identity, admit).await;
            drop(stranger);
            match welcome {
                Ok(link) => served.serve(link).await,
                Err(error) => {
                    tracing::warn!(
                        "a connection to the node port from {address} was not taken: {error}"
                    );
                }
            }
            drop(taken);
        });
    }
}

impl Served {
    fn admit(&self, peer: &Identity, service: Service) -> Result<(), String> {
        match (service, &self.sync) {
            (Service::Raft | Service::Sync, Some(sync)) => sync.admit(peer, service),
            (Service::Raft | Service::Sync, None) => Err("this node has no sync role".into()),
            (Service::Append, _) if self.storage.is_some() && !*self.enrolled.borrow() => {
                Err("this storage does not know yet whether it has all that it told".into())
            }
            (Service::Append | Service::Fetch, _) if self.storage.is_some() => Ok(()),
            (Service::Append | Service::Fetch, _) => Err("this node has no storage role".into()),
            (Service::Calls, _) if self.calls.get().is_some() => Ok(()),
            (Service::Calls, _) => Err("this node is no entry, or not yet".into()),
        }
    }

    async fn serve(self, link: Link) {
        match (link.service, self.sync, self.storage, self.calls.get()) {
            (Service::Raft | Service::Sync, Some(sync), _, _) => sync.serve(link).await,
            (Service::Append, _, Some(storage), _) => serve_append(link, storage).await,
            (Service::Fetch, _, Some(storage), _) => serve_fetch(link, storage, self.reads).await,
            (Service::Calls, _, _, Some(calls)) => serve_calls(link, calls.clone()).await,
            // `admit` has refused it.
            _ => {}
        }
    }
}

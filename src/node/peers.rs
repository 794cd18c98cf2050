//! Listening for other nodes: one loop, one task per connection.
//!
//! Invariant: a connection takes one of a bounded number of permits, a different one before it has identified itself, and is
//! read only as far as there is room for its input. If the port has TLS, nothing is said to a peer without a certificate of the
//! cluster, and a peer whose certificate is another node's is refused, both within the time for a hello. A connection for a
//! role that this node does not have, or does not have yet, is refused with the reason.
//!
//! Deliberately absent: the services (the roles themselves).

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::sync::{watch, Semaphore};
use tokio::time::{timeout_at, Instant};
use vulpes_raft::host::{BoxStream, Listener};
use vulpes_raft::net::wire::{self, Identity, Link, LinkError, Service, HELLO_TIMEOUT};
use vulpes_raft::node::SyncNode;

use crate::peer::{serve_append, serve_fetch};
use crate::storage::{Reads, Storage};
use crate::tls::nodes::{NodeTls, Shown};
use crate::types::limits;

use crate::cluster::storages::RETRY;
use crate::server::budget::Budget;
use crate::server::calls::links::serve_calls;
use crate::server::calls::Calls;
use crate::server::intake::{Framing, Intake, Terms};
use crate::server::linger::linger_on;

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

/// Where other nodes come in.
pub(crate) struct NodePort {
    pub(crate) listener: Box<dyn Listener>,
    /// Without it, nothing is encrypted, and everybody is believed.
    pub(crate) tls: Option<NodeTls>,
}

/// Accepts other nodes for as long as the node lives.
pub(crate) async fn serve_peers(port: NodePort, identity: Identity, served: Served) {
    let NodePort { mut listener, tls } = port;
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
        let (raft, tls) = (raft.clone(), tls.clone());
        tokio::spawn(async move {
            let secured = match secure(tls.as_ref(), stream).await {
                Ok(secured) => secured,
                Err(error) => return tell(address, error),
            };
            let place = |()| {
                places.try_acquire_owned().map_err(|_| "it has too many connections".to_owned())
            };
            let mut taken = None;
            let admit = |peer: &Identity, service| {
                if let Some(shown) = &secured.shown {
                    shown.fits(peer).map_err(|error| error.to_string())?;
                }
                taken = Some(served.admit(peer, service).and_then(place)?);
                if service == Service::Raft {
                    intake.belongs_to(&raft);
                }
                Ok(())
            };
            let welcome = wire::welcome(intake.on(secured.stream), &identity, admit);
            let welcome = by(secured.deadline, welcome).await;
            drop(stranger);
            match welcome {
                Ok(link) => served.serve(link).await,
                Err(error) => tell(address, error),
            }
            drop(taken);
        });
    }
}

/// A connection that may begin with its hello.
struct Secured {
    stream: BoxStream,
    shown: Option<Shown>,
    /// By when it has to have said who it is, if it has used up some of its time already.
    deadline: Option<Instant>,
}

/// Encrypts a connection, if the port has TLS.
async fn secure(tls: Option<&NodeTls>, stream: BoxStream) -> Result<Secured, LinkError> {
    let Some(tls) = tls else { return Ok(Secured { stream, shown: None, deadline: None }) };
    let deadline = Some(Instant::now() + HELLO_TIMEOUT);
    let securing = async {
        match tls.accept(stream).await {
            Ok((stream, shown)) => Ok(Secured { stream, shown: Some(shown), deadline }),
            Err((error, mut stream)) => {
                // It was told why in an alert, which is lost if the connection is closed with input left.
                linger_on(&mut stream).await;
                Err(LinkError::NotAPeer(error.to_string()))
            }
        }
    };
    by(deadline, securing).await
}

/// Limits what a stranger's connection takes.
async fn by<T>(
    deadline: Option<Instant>,
    future: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    match deadline {
        None => future.await,
        Some(deadline) => {
            timeout_at(deadline, future).await.unwrap_or(Err(LinkError::Timeout(HELLO_TIMEOUT)))
        }
    }
}

fn tell(address: SocketAddr, error: LinkError) {
    tracing::warn!("a connection to the node port from {address} was not taken: {error}");
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

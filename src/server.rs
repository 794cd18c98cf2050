//! A node: sockets, roles and the wiring between them.
//!
//! - [`node`]: starts the roles that the configuration names, and stops them.
//! - `links`, `peers`: how its roles reach each other, and other nodes reach them.
//! - `listen`, `transport`, `session`, `publishing`, `reader`, `delivery`, `events`, `clients`: client connections.
//! - `calls`: calls between them, and to and from other entries.
//! - `desk`: what the realms' state has to say to them, and what they have left to be published.
//! - `storages`: the way to each storage, and whether they are as when the cluster was formed.
//! - `repair`: mending damaged bodies from other storages.
//! - `retention`, `upkeep`: asking for what is too old to be released, and deleting what was.
//! - `admin`: what operators are told.
//! - [`tuning`]: what a simulation makes smaller, or late.
//!
//! Invariant: nothing here decides about order or durability; it only carries.

mod admin;
mod bodies;
mod calls;
mod clients;
mod delivery;
mod desk;
mod events;
mod files;
mod links;
mod listen;
pub mod node;
mod peers;
mod publishing;
mod reader;
mod repair;
mod retention;
mod session;
mod storages;
mod transport;
pub mod tuning;
mod upkeep;

use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::time::Instant;
use vulpes_raft::host::{Host, Workers};

use crate::config::NodeConfig;
use crate::http;

pub use node::{Node, StartError};

/// Why a node ended in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// It was away for longer than the log is kept, and has to be started again to go on from where the others are.
    LeftBehind,
}

/// Runs a node in this process until `stop` completes, or it has to be started again. Its clients are served by these
/// workers; all the rest, operators' questions included, goes on in the runtime that this is called in.
///
/// # Errors
/// Where a port is in use, or the data directory is not this node's or can't be read.
pub async fn run(
    config: NodeConfig,
    clients: Workers,
    stop: impl Future<Output = ()>,
) -> Result<Ended, StartError> {
    let admin = match &config.listen.admin {
        Some(address) => {
            let listener = TcpListener::bind(address.as_str()).await;
            Some(listener.map_err(|error| StartError::Listen {
                what: "admin HTTP",
                address: address.to_string(),
                error,
            })?)
        }
        None => None,
    };
    let started = Instant::now();
    let starting = Node::start(Host { clients, ..Host::real() }, config);
    tokio::pin!(stop);
    let node = tokio::select! {
        node = starting => Arc::new(node?),
        // A node that still waits for the others has nothing to say goodbye to.
        () = &mut stop => return Ok(Ended::Stopped),
    };
    tracing::info!(node = %node.config().node, roles = ?node.config().own().roles, "started");
    if let Some(listener) = admin {
        let admin = Arc::new(admin::NodeAdmin { node: node.clone(), started });
        tokio::spawn(async move {
            if let Err(error) = http::serve(listener, admin).await {
                tracing::error!(%error, "admin HTTP ended");
            }
        });
    }
    let ended = tokio::select! {
        () = stop => Ended::Stopped,
        () = node.left_behind() => Ended::LeftBehind,
    };
    node.stop().await;
    Ok(ended)
}

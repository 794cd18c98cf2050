//! A node: starts its roles, wires them to each other, and reports to operators.
//!
//! - `wiring`: starts the roles that the configuration names, in the order of the data flow, and stops them.
//! - `peers`: listens for other nodes.
//! - `retention`: requests the release of what exceeds the log's limits.
//! - `users`, `roles`, `bans`: change these, tell what is remembered of that, and decide who may use admin HTTP.
//! - `first_administrator`: lets clients in once the log has users.
//! - `files`: checks that the files on disk are still those that the node has open.
//! - `admin`, `readiness`: the node's status for operators.
//! - [`tuning`]: limits that a simulation makes smaller, and answers that it delays or drops.
//!
//! Invariant: nothing here decides about order or durability; it only carries.
//!
//! Deliberately absent: serving clients' connections (`server`), and the clients of other nodes (`cluster`).

mod admin;
mod bans;
mod files;
mod first_administrator;
mod peers;
mod readiness;
mod retention;
mod roles;
pub mod tuning;
mod users;
mod wiring;

use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use vulpes_raft::host::{Host, Workers};

use crate::config::listener::{Listener, ListenerProtocol};
use crate::config::{Address, NodeConfig};
use crate::http::{self, Visitors};
use crate::tls::certificates::{Acceptor, Certificates};

use tuning::Tuning;
pub use wiring::{Node, StartError};

/// Why a node ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop.
    Stopped,
    /// It was away for longer than the log is retained, and has to be started again to continue from the others' state.
    LeftBehind,
}

/// Runs a node in this process until `stop` completes, or until it has to be started again. `clients` are the workers that
/// serve its clients. Operators' requests are served on a thread of their own, everything else in the current runtime. `files`
/// is the number of files that the process may have open, `certificates` are those of its listeners. Of a configuration that is
/// read again, what can change while the node runs takes effect.
///
/// # Errors
/// If a port is in use, or the data directory is not this node's or can't be read.
pub async fn run(
    configured: watch::Receiver<NodeConfig>,
    certificates: Arc<Certificates>,
    clients: Workers,
    files: Option<u64>,
    stop: impl Future<Output = ()>,
) -> Result<Ended, StartError> {
    let config = configured.borrow().clone();
    let admin = Arc::new(admin::NodeAdmin::new(config.clone()));
    serve_admin(&config, &certificates, &admin).await?;
    tokio::spawn(certificates.clone().watch());
    let (host, tuning) = (Host { clients, ..Host::real() }, Tuning::with_files(files));
    let starting = Node::start_with(host, config, tuning, &certificates);
    tokio::pin!(stop);
    let node = tokio::select! {
        node = starting => Arc::new(node?),
        // A node that still waits for the others has nothing to close.
        () = &mut stop => return Ok(Ended::Stopped),
    };
    tracing::info!("{}", introduction(node.config()));
    let confirmed = Arc::<readiness::Confirmed>::default();
    admin.runs(node.clone(), confirmed.clone());
    tokio::spawn(readiness::watch(node.clone(), confirmed));
    tokio::spawn(follow(configured, node.clone()));
    let ended = tokio::select! {
        () = stop => Ended::Stopped,
        () = node.left_behind() => Ended::LeftBehind,
    };
    node.stop().await;
    Ok(ended)
}

/// Applies what can change while the node runs, whenever its configuration is read again.
async fn follow(mut configured: watch::Receiver<NodeConfig>, node: Arc<Node>) {
    while configured.changed().await.is_ok() {
        node.low_water.send_replace(configured.borrow_and_update().low_water);
    }
}

/// Listens for admin HTTP wherever the configuration says.
async fn serve_admin(
    config: &NodeConfig,
    certificates: &Certificates,
    admin: &Arc<admin::NodeAdmin>,
) -> Result<(), StartError> {
    let visitors = Visitors::of(config);
    let others = config.listeners.iter().filter(|one| one.protocol == ListenerProtocol::Admin);
    let others = others.map(|one| (&one.address, one.tls.as_ref()));
    for (address, tls) in config.listen.admin.iter().map(|one| (one, None)).chain(others) {
        let failed =
            |error| StartError::Listen { what: "admin HTTP", address: address.to_string(), error };
        let listeners = vulpes_raft::host::listen_all(address.as_str()).await.map_err(failed)?;
        let tls = tls.map(|files| certificates.acceptor(files));
        serve_admin_on(listeners, tls, admin, &visitors).map_err(failed)?;
    }
    Ok(())
}

/// Serves admin HTTP on a thread of its own, so that neither clients nor a database that is being opened delay a probe.
fn serve_admin_on(
    listeners: Vec<TcpListener>,
    tls: Option<Acceptor>,
    admin: &Arc<admin::NodeAdmin>,
    visitors: &Visitors,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for listener in listeners {
        let listener = {
            let _within = runtime.enter();
            TcpListener::from_std(listener.into_std()?)?
        };
        let (admin, tls, visitors) = (admin.clone(), tls.clone(), visitors.clone());
        runtime.spawn(async move {
            if let Err(error) = http::serve_with(listener, tls, admin, visitors).await {
                tracing::error!("admin HTTP ended: {error}");
            }
        });
    }
    // The thread ends with the process.
    let serve = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("admin".into()).spawn(serve)?;
    Ok(())
}

/// The node's roles and where it listens.
fn introduction(config: &NodeConfig) -> String {
    let roles: Vec<String> = config.own().roles.iter().map(ToString::to_string).collect();
    let listen = &config.listen;
    let places = [
        ("nodes", Some(&listen.peer)),
        ("WAMP", listen.wamp.as_ref()),
        ("MQTT", listen.mqtt.as_ref()),
        ("admin HTTP", listen.admin.as_ref()),
    ];
    let place = |(what, address): (&str, Option<&Address>)| {
        address.map(|address| format!("{what} on {address}"))
    };
    let other = |one: &Listener| {
        let Listener { protocol, address, tls, .. } = one;
        let tls = if tls.is_some() { " with TLS" } else { "" };
        format!("{protocol}{tls} on {address}")
    };
    let mut places: Vec<String> = places.into_iter().filter_map(place).collect();
    places.extend(config.listeners.iter().map(other));
    format!(
        "node {} of cluster {} started: Vulpes {}, {}; it listens for {}",
        config.node,
        config.cluster,
        env!("CARGO_PKG_VERSION"),
        roles.join(", "),
        places.join(", ")
    )
}

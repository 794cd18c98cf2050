//! Lets clients in once the log has users, where the configuration names a first administrator.
//!
//! Each entry that finds no users in the log proposes that user. The first of these proposals adds it, in the order and so at all nodes;
//! the others come when there are users, and change nothing. So it does not matter which node starts first, or how many do at once.
//!
//! Invariant: a node whose file names a first administrator accepts no client before its own state of the log has users. As there is
//! then always one that administers, nothing is proposed ever after.
//!
//! Deliberately absent: what a node does whose file names none (`config::exposure`), and admin HTTP, which does not answer meanwhile.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use vulpes_raft::host::Host;

use super::users::{Unsubmitted, Writer};
use crate::cluster::storages::RETRY;
use crate::config::first_administrator::FirstAdministrator;
use crate::config::NodeConfig;
use crate::entry::EntryHandle;
use crate::log::Log;
use crate::realm::{Realms, SharedRealms};
use crate::server::clients::Clients;
use crate::server::listen::{self, Entrance};
use crate::types::access::{ChangeUsers, UserChange};
use crate::types::act::Act;
use crate::types::limits;

/// Whether clients are let in; the first administrator is proposed if that is needed.
pub(super) fn doors(
    host: &Host,
    config: &NodeConfig,
    (log, realms): (&Log, &SharedRealms),
    entry: &EntryHandle,
) -> watch::Receiver<bool> {
    let first = config.first_administrator.clone();
    let (doors, opened) = watch::channel(first.is_none());
    if let Some(first) = first {
        let writer = Writer::new(host, entry.clone(), log, &config.default_realm);
        tokio::spawn(propose(first, writer, realms.clone(), doors));
    }
    opened
}

/// Serves clients from the moment at which they are let in.
pub(super) fn let_in(
    host: &Host,
    doors: &watch::Receiver<bool>,
    entrances: Vec<Entrance>,
    clients: &Arc<Clients>,
) {
    for entrance in entrances {
        let (mut doors, clients) = (doors.clone(), clients.clone());
        host.clients.spawn(async move {
            if doors.wait_for(|open| *open).await.is_ok() {
                listen::serve(entrance, clients).await;
            }
        });
    }
}

/// Proposes the first administrator until there are users, and then opens the doors.
async fn propose(
    first: FirstAdministrator,
    writer: Writer,
    realms: SharedRealms,
    doors: watch::Sender<bool>,
) {
    let name = first.name();
    let add = UserChange::Add { name: name.to_owned(), user: first.user().clone() };
    let act = Act::ChangeUsers(ChangeUsers { author: String::new(), changes: vec![add] });
    while !realms.with(Realms::has_users) {
        let deadline = Instant::now() + limits::USER_CHANGES_TIME;
        match writer.submit(&act, deadline).await {
            Ok(stored) => {
                tracing::info!(name, position = %stored.position, "proposed the first administrator");
            }
            // It is proposed again; whichever comes first counts.
            Err(Unsubmitted::NotStored | Unsubmitted::Unknown) => tokio::time::sleep(RETRY).await,
        }
    }
    doors.send_replace(true);
}

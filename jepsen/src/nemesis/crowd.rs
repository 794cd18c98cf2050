//! Clients that put a load on nodes: many that connect at once, and some that subscribe to everything and read nothing.
//!
//! Invariant: they publish nothing, and disconnect all at once, without a goodbye.
//!
//! Deliberately absent: the effects on other clients, which record these themselves.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{ensure, Result};
use futures::future::join_all;
use serde_json::json;
use tokio::time::timeout;

use crate::client::Client;
use crate::cluster::REALM;
use crate::mqtt::Mqtt;
use crate::stage::ROOT;
use crate::wamp::Wamp;

/// Connections of a storm to each node, and clients of each node that read nothing.
const STORM: usize = 200;
const DEAF: usize = 4;

/// Time limit for a node to admit one of them.
const OPEN: Duration = Duration::from_secs(3);

/// A node's client ports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entrance {
    pub(super) wamp: SocketAddr,
    pub(super) mqtt: SocketAddr,
}

async fn open(entrance: Entrance, number: usize) -> Result<Client> {
    if number.is_multiple_of(2) {
        let session = Wamp::connect(entrance.wamp, REALM).await?;
        Ok(Client::Wamp(Box::new(session)))
    } else {
        Ok(Client::Mqtt(Mqtt::connect(entrance.mqtt).await?))
    }
}

/// Connects to all entries, many times at once.
pub(super) async fn storm(entrances: &[Entrance]) -> Result<Vec<Client>> {
    let knocking = entrances
        .iter()
        .flat_map(|entrance| (0..STORM).map(move |number| timeout(OPEN, open(*entrance, number))));
    let opened = join_all(knocking).await;
    let clients: Vec<Client> = opened.into_iter().flatten().flatten().collect();
    ensure!(!clients.is_empty(), "nobody was let in");
    Ok(clients)
}

/// Subscribes to everything, from the beginning of the log, at all entries.
pub(super) async fn deaf(entrances: &[Entrance]) -> Result<Vec<Client>> {
    let subscribing = entrances.iter().flat_map(|entrance| {
        (0..DEAF).map(move |number| {
            timeout(OPEN, async move {
                let mut client = open(*entrance, number).await?;
                match &mut client {
                    Client::Wamp(session) => {
                        let options = json!({ "match": "prefix", "after": 0 });
                        session.subscribe(&format!("{ROOT}."), &options).await?;
                    }
                    Client::Mqtt(session) => {
                        session.subscribe(&format!("$replay/0/{ROOT}/#")).await?;
                    }
                }
                anyhow::Ok(client)
            })
        })
    });
    let opened = join_all(subscribing).await;
    let clients: Vec<Client> = opened.into_iter().flatten().flatten().collect();
    ensure!(!clients.is_empty(), "nobody could subscribe");
    Ok(clients)
}

//! A WAMP session that makes one request after the other. The requests are with the tests that need them.
//!
//! Deliberately absent: waiting for several answers at once.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::Value;
use vulpes_jepsen::cluster::REALM;
use vulpes_jepsen::wamp::Wamp;
use vulpes_jepsen::Cluster;

pub(crate) struct Peer {
    pub(crate) wamp: Wamp,
    /// The id of the newest request.
    pub(crate) request: u64,
}

impl Peer {
    pub(crate) async fn at(cluster: &Cluster, node: u64) -> Result<Self> {
        Self::connect(cluster.node(node).wamp()).await
    }

    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self { wamp: Wamp::connect(address, REALM).await?, request: 0 })
    }

    /// The next message.
    pub(crate) async fn receive(&mut self) -> Result<Value> {
        self.wamp.receive().await?.context("the session has ended")
    }
}

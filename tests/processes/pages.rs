//! Web pages of other sites can't reach a node through the browser of a user who visits them.
//!
//! Deliberately absent: what an origin is (`config/origins`).

use anyhow::{ensure, Result};

use crate::raw::Raw;

#[tokio::test]
async fn pages_of_the_nodes_hosts_and_of_listed_origins_may_connect() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    let may = |origin: &str| {
        let (address, line) = (cluster.node(1).wamp(), format!("Origin: {origin}\r\n"));
        async move { Raw::websocket_with(address, &line).await.is_ok() }
    };
    for (origin, expected) in [
        ("http://localhost:3000", true),
        ("http://127.0.0.1", true),
        ("https://evil.example", false),
        ("http://localhost.evil.example", false),
        ("null", false),
    ] {
        ensure!(may(origin).await == expected, "{origin}");
    }
    ensure!(Raw::websocket(cluster.node(1).wamp()).await.is_ok(), "what is no browser may");
    Ok(())
}

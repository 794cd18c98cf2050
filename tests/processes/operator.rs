//! Operators' mistakes, and the cost of an idle node.
//!
//! Invariant: a node that can't run as configured ends at once, with an exit code and a message that names the cause.
//!
//! Deliberately absent: each rule of the configuration, which its own tests have.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use anyhow::{ensure, Context, Result};
use vulpes_jepsen::Cluster;

/// Most memory of an idle node, in bytes (resident set), also in a debug build.
const IDLE: u64 = 60 << 20;

/// Starts node 1, and expects it to end with an error that contains `expected`.
async fn ends_complaining(cluster: &mut Cluster, name: &str, expected: &str) -> Result<()> {
    let node = cluster.node_mut(1);
    node.start()?;
    let status = node.ended().await.with_context(|| name.to_owned())?;
    let complaint = node.log_tail();
    ensure!(!status.success() && status.code().is_some(), "{name}: {status}");
    ensure!(complaint.contains(expected), "{name}: no word of {expected:?} in\n{complaint}");
    ensure!(!complaint.contains("panicked"), "{name}: {complaint}");
    Ok(())
}

#[tokio::test]
async fn a_wrong_configuration_is_explained() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).prepare()?;
    let good = cluster.config_of(1)?;
    let wamp = cluster.node(1).wamp().to_string();
    let peer = cluster.node(2).peer().to_string();
    let table = [
        ("no TOML", "node = 1", "node = = 1", "line 2"),
        ("an unknown key", "node = 1", "node = 1\ncolour = \"red\"", "colour"),
        ("a missing key", "cluster = \"test\"\n", "", "cluster"),
        ("an unknown role", "\"entry\"", "\"butler\"", "butler"),
        ("a node of no cluster", "node = 1", "node = 7", "node"),
        ("no address", &wamp, "somewhere", "somewhere"),
        ("one address twice", &peer, &wamp, &wamp),
        ("no such realm", "default_realm = \"realm1\"", "default_realm = \"x\"", "default_realm"),
        ("an open node port", "[listen]", "[listen]\npeer = \"0.0.0.0:1\"", "insecure = true"),
        ("too impatient", "heartbeat_ms = 100", "heartbeat_ms = 0", "heartbeat_ms"),
    ];
    for (name, from, to, expected) in table {
        let text = good.replacen(from, to, 1);
        ensure!(text != good, "{name}: the test changes nothing");
        cluster.node(1).configure(&text)?;
        ends_complaining(&mut cluster, name, expected).await?;
    }
    std::fs::remove_file(cluster.node(1).config())?;
    ends_complaining(&mut cluster, "no file", "config.toml").await
}

#[tokio::test]
async fn a_port_in_use_is_named() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).prepare()?;
    let node = cluster.node(1);
    for address in [node.peer(), node.wamp(), node.mqtt(), node.admin()] {
        let taken = TcpListener::bind(address)?;
        ends_complaining(&mut cluster, "a port in use", &address.to_string()).await?;
        drop(taken);
    }
    Ok(())
}

#[tokio::test]
async fn foreign_data_is_left_alone() -> Result<()> {
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let good = cluster.config_of(1)?;
    let mut client = cluster.wamp(1).await?;
    client.publish_and_wait("load.a", "a-0").await?;
    drop(client);
    cluster.node_mut(1).stop().await?;

    let renamed = good.replace("cluster = \"test\"", "cluster = \"another\"");
    cluster.node(1).configure(&renamed)?;
    ends_complaining(&mut cluster, "data of another cluster", "cluster").await?;
    let renumbered = good.replace("node = 1", "node = 2").replace("id = 1", "id = 2");
    cluster.node(1).configure(&renumbered)?;
    ends_complaining(&mut cluster, "data of another node", "node").await?;

    cluster.node(1).configure(&good)?;
    let identity = cluster.node(1).data().join("identity.toml");
    let mine = std::fs::read_to_string(&identity)?;
    std::fs::write(&identity, mine.replace("format = 1", "format = 9"))?;
    ends_complaining(&mut cluster, "a newer format", "format").await?;
    std::fs::write(&identity, mine)?;

    cluster.restart(1).await?;
    let log = vulpes_jepsen::load::read_log_through(&cluster, 1, "load", "a-0").await?;
    ensure!(log.len() == 1, "after all that the data is as it was: {log:?}");
    Ok(())
}

#[tokio::test]
async fn an_idle_node_is_small() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    for node in cluster.nodes() {
        let resident = node.resident()?;
        println!("node {} holds {} KiB", node.id, resident >> 10);
        ensure!(resident < IDLE, "node {} holds {} KiB", node.id, resident >> 10);
    }
    Ok(())
}

#[tokio::test]
async fn only_its_user_can_look_into_a_data_directory() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    let mode = std::fs::metadata(cluster.node(1).data())?.permissions().mode();
    ensure!(mode & 0o777 == 0o700, "{mode:o}");
    Ok(())
}

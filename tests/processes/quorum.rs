//! Too few nodes: no publish is acknowledged, no client is disconnected, and everything resumes by itself.
//!
//! Invariant: a refusal is clear; its outcome is unknown, so the event may still appear, once.
//!
//! Deliberately absent: how long a publish waits, except that it ends.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use vulpes_jepsen::history::{check_acknowledged, check_log, check_run};
use vulpes_jepsen::load::{read_log_through, Publisher, Reader};
use vulpes_jepsen::wait::{until, PATIENCE};
use vulpes_jepsen::{Client, Said};

/// A publisher gets an answer after 10 seconds at the latest; the rest is for a busy machine.
const TOLD: Duration = Duration::from_secs(25);

/// The answer to a publisher without a quorum.
async fn refusal(client: &mut Client, text: &str) -> Result<Said> {
    // A node may also refuse by closing the session.
    if let Err(error) = client.publish("load.lonely", text).await {
        return Ok(Said::Closed(error.to_string()));
    }
    client.next_within(TOLD).await
}

#[tokio::test]
async fn without_a_quorum_nothing_is_acknowledged() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let readers = [
        Reader::start(cluster.wamp(1).await?, "load").await?,
        Reader::start(cluster.mqtt(1).await?, "load").await?,
    ];
    let record = {
        let publisher = Publisher::start(cluster.wamp(1).await?, "a", "load.a");
        publisher.acknowledged(50).await?;
        publisher.finish().await?
    };
    let (mut wamp, mut mqtt) = (cluster.wamp(1).await?, cluster.mqtt(1).await?);
    cluster.node_mut(2).kill().await?;
    cluster.node_mut(3).kill().await?;

    let (told_wamp, told_mqtt) =
        tokio::join!(refusal(&mut wamp, "lonely-0"), refusal(&mut mqtt, "alone-0"));
    match told_wamp? {
        Said::Refused { reason, .. } | Said::Closed(reason) => ensure!(!reason.is_empty()),
        other => anyhow::bail!("WAMP without a quorum: {other:?}"),
    }
    let told_mqtt = told_mqtt?;
    ensure!(matches!(told_mqtt, Said::Closed(_)), "MQTT without a quorum: {told_mqtt:?}");
    for reader in &readers {
        ensure!(reader.closed().is_none(), "a subscriber was closed: {:?}", reader.closed());
    }
    let page = cluster.page(1, "/healthz").await?;
    ensure!(page.status == 200, "the process is well: {page:?}");

    cluster.node_mut(2).start()?;
    let publisher = until("publishing goes on", PATIENCE, || async {
        let mut client = cluster.wamp(1).await?;
        client.publish_and_wait("load.again", "again-0").await?;
        Ok(client)
    });
    let mut publisher = publisher.await.context("by itself, with two of three")?;
    cluster.ready_node(2).await?;
    publisher.publish_and_wait("load.mark", "mark").await?;
    let mut seen = Vec::new();
    for reader in &readers {
        seen.push(reader.until_seen("mark").await?);
    }
    let log = read_log_through(&cluster, 2, "load", "mark").await?;
    // The probe may have been stored more often than it was acknowledged; each of the others at most once.
    let distinct: Vec<_> = log.iter().filter(|seen| seen.topic != "load.again").cloned().collect();
    let doubled = distinct
        .iter()
        .enumerate()
        .find(|(index, one)| distinct[..*index].iter().any(|other| other.payload == one.payload));
    ensure!(doubled.is_none(), "stored twice: {doubled:?}");
    check_acknowledged(&log, &record)?;
    check_log(&log[..record.acknowledged.len()])?;
    for events in seen {
        check_run(&log, &events)?;
    }
    Ok(())
}

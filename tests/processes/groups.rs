//! Two storage groups: each stores its part of what is published, and all nodes show one order.
//!
//! Invariant: acknowledged events are still there with one node of each group killed, and after all nodes were killed.
//!
//! Deliberately absent: faults of other kinds, which the simulation has.

use std::time::Duration;

use anyhow::{ensure, Context, Error, Result};
use vulpes::cli::verify::verify;
use vulpes::client::admin::{AdminClient, AdminUrl};
use vulpes_jepsen::history::{check_acknowledged, check_log, check_run};
use vulpes_jepsen::layout::Layout;
use vulpes_jepsen::load::{read_log_through, Publisher, Reader};
use vulpes_jepsen::node::Node;
use vulpes_jepsen::wait::{until, PATIENCE};
use vulpes_jepsen::{Client, Cluster};

/// Two groups of three nodes with all roles.
async fn start() -> Result<Cluster> {
    crate::cluster().layout(&Layout::whole(6).grouped(2)?).start().await
}

async fn segments(cluster: &Cluster, node: u64) -> Result<u64> {
    let status = cluster.status(node).await?;
    status["storage"]["segments"].as_u64().context("a storage counts its segments")
}

async fn mark(cluster: &Cluster, node: u64) -> Result<()> {
    let mut client: Client = cluster.wamp(node).await?;
    client.publish_and_wait("load.mark", "mark").await?;
    Ok(())
}

#[tokio::test]
async fn each_group_keeps_a_part_and_all_nodes_show_the_whole() -> Result<()> {
    let mut cluster = start().await?;
    let readers = [
        Reader::start(cluster.wamp(2).await?, "load").await?,
        Reader::start(cluster.mqtt(5).await?, "load").await?,
    ];
    let publishers = [
        Publisher::start(cluster.wamp(1).await?, "a", "load.a"),
        Publisher::start(cluster.mqtt(6).await?, "b", "load.b"),
    ];
    for publisher in &publishers {
        publisher.acknowledged(100).await?;
    }
    // One storage of each group is down from here on.
    cluster.node_mut(3).kill().await?;
    cluster.node_mut(4).kill().await?;
    let mut records = Vec::new();
    for publisher in publishers {
        publisher.acknowledged(300).await?;
        records.push(publisher.finish().await?);
    }
    mark(&cluster, 5).await?;
    let mut seen = Vec::new();
    for reader in &readers {
        seen.push(reader.until_seen("mark").await?);
    }

    for node in 1..=6 {
        if node != 3 && node != 4 {
            cluster.node_mut(node).kill().await?;
        }
    }
    for node in 1..=6 {
        cluster.node_mut(node).start()?;
    }
    cluster.ready().await?;
    for node in [3, 4] {
        let log = read_log_through(&cluster, node, "load", "mark").await?;
        check_log(&log)?;
        records.iter().try_for_each(|record| check_acknowledged(&log, record))?;
        seen.iter().try_for_each(|events| check_run(&log, events))?;
    }

    let url = |node: &Node| node.admin().to_string().parse::<AdminUrl>().map_err(Error::msg);
    let urls: Vec<AdminUrl> = cluster.nodes().iter().map(url).collect::<Result<_>>()?;
    let proof = verify(&AdminClient::default(), &urls, Duration::from_secs(30)).await?;
    ensure!(proof.elsewhere == 0 && proof.events >= 600, "{proof}");
    let half = verify(&AdminClient::default(), &urls[..3], Duration::from_secs(30)).await?;
    ensure!(half.elsewhere > 0, "the other group keeps nothing: {half}");
    // The storages of a group hold the same once those that were down have caught up, and none holds everything.
    let all = half.end.0 - half.oldest.0;
    until("the storages of a group hold the same", PATIENCE, || async {
        let mut held = Vec::new();
        for node in 1..=6 {
            held.push(segments(&cluster, node).await?);
        }
        let equal = |group: &[u64]| group.iter().all(|held| *held == group[0]);
        ensure!(equal(&held[..3]) && equal(&held[3..]), "{held:?}");
        ensure!(
            held[0] + held[3] <= all && held.iter().all(|held| *held * 4 > all),
            "{held:?} of {all}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_node_that_was_moved_to_another_group_says_so_and_ends() -> Result<()> {
    let mut cluster = start().await?;
    cluster.node_mut(6).stop().await?;
    for _ in 0..20 {
        mark(&cluster, 1).await?;
    }
    let text = cluster.config_of(6)?;
    let (before, behind) = text.rsplit_once("group = 2").context("the group of node 6")?;
    let node = cluster.node_mut(6);
    node.configure(&format!("{before}group = 1{behind}"))?;
    node.start()?;
    let status = node.ended().await?;
    let told = node.log_tail();
    ensure!(!status.success() && told.contains("node 6 is in another storage group"), "{told}");
    // Back in its group, it has what belongs to the group: it had stored nothing under the wrong one.
    node.configure(&text)?;
    node.start()?;
    cluster.ready_node(6).await?;
    until("the logs are proved to be one", PATIENCE, || cluster.verify(6)).await
}

#[tokio::test]
async fn a_group_without_a_majority_is_passed_by() -> Result<()> {
    let mut cluster = start().await?;
    mark(&cluster, 1).await?;
    cluster.node_mut(5).kill().await?;
    cluster.node_mut(6).kill().await?;
    // Publishes on their way to the second group are not answered. With this many in a row, some would belong to the second
    // group.
    until("publishing goes on with the first group alone", PATIENCE, || async {
        let mut client = cluster.wamp(1).await?;
        for number in 0..20 {
            client.publish_and_wait("load.on", &format!("on-{number}")).await?;
        }
        Ok(())
    })
    .await?;
    cluster.node_mut(5).start()?;
    cluster.node_mut(6).start()?;
    cluster.ready().await?;
    until("both groups take what is published", PATIENCE, || async {
        let before = (segments(&cluster, 1).await?, segments(&cluster, 4).await?);
        mark(&cluster, 1).await?;
        mark(&cluster, 1).await?;
        let after = (segments(&cluster, 1).await?, segments(&cluster, 4).await?);
        ensure!(after.0 > before.0 && after.1 > before.1, "{before:?}, then {after:?}");
        Ok(())
    })
    .await?;
    cluster.verify(1).await
}

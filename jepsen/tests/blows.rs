//! Faults of a node, tried on a program that does nothing.
//!
//! Invariant: the tools with which tests of the router kill, freeze and end nodes work without the router.
//!
//! Deliberately absent: readiness and clients, which need the real program.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use vulpes_jepsen::cluster::Cluster;
use vulpes_jepsen::wait::{until, PATIENCE};
use vulpes_jepsen::Node;

fn stand_ins() -> Result<Cluster> {
    Cluster::builder(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand_in.sh")).nodes(3).prepare()
}

async fn said_something(node: &Node) -> Result<()> {
    until("it runs", PATIENCE, || async {
        ensure!(node.log_tail().contains("called with node --config"), "{}", node.log_tail());
        Ok(())
    })
    .await
}

/// The letter for a process's state in /proc: T is stopped.
fn is_frozen(node: &Node) -> Result<bool> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", node.process()?))?;
    Ok(text.rsplit_once(") ").context("no state")?.1.starts_with('T'))
}

#[tokio::test]
async fn a_node_is_killed_and_comes_back() -> Result<()> {
    let mut cluster = stand_ins()?;
    cluster.node_mut(1).start()?;
    cluster.node_mut(2).start()?;
    ensure!(cluster.node_mut(1).start().is_err(), "started twice");
    said_something(cluster.node(1)).await?;
    ensure!(cluster.running() == [1, 2]);
    let before = cluster.node(1).process()?;
    cluster.node_mut(1).kill().await?;
    ensure!(cluster.running() == [2]);
    ensure!(!std::fs::exists(format!("/proc/{before}"))?, "it is still there");
    cluster.node_mut(1).start()?;
    cluster.node_mut(1).check_alive()?;
    ensure!(cluster.node(1).process()? != before);
    ensure!(cluster.node(2).resident()? > 0);
    Ok(())
}

#[tokio::test]
async fn a_node_is_frozen_and_told_to_stop() -> Result<()> {
    let mut cluster = stand_ins()?;
    let node = cluster.node_mut(1);
    node.start()?;
    said_something(node).await?;
    node.pause().await?;
    until("it is frozen", PATIENCE, || async { is_frozen(node)?.then_some(()).context("no") })
        .await?;
    node.resume().await?;
    until("it goes on", PATIENCE, || async { (!is_frozen(node)?).then_some(()).context("no") })
        .await?;
    let status = node.stop().await?;
    ensure!(status.signal() == Some(15), "{status}");
    ensure!(!node.is_running());
    Ok(())
}

#[tokio::test]
async fn a_node_that_ends_by_itself_is_noticed() -> Result<()> {
    let mut cluster = Cluster::builder("/bin/false").nodes(1).prepare()?;
    let node = cluster.node_mut(1);
    node.start()?;
    let status = node.ended().await?;
    ensure!(status.code() == Some(1), "{status}");
    node.start()?;
    let ended = until("the end is seen", Duration::from_secs(5), || {
        let alive = node.check_alive();
        async move { Ok(alive.err().context("alive")?.to_string()) }
    });
    ensure!(ended.await?.contains("ended by itself"));
    Ok(())
}

#[tokio::test]
async fn nothing_outlives_its_cluster() -> Result<()> {
    let mut cluster = stand_ins()?;
    cluster.node_mut(3).start()?;
    let process = cluster.node(3).process()?;
    let folder = cluster.folder().to_owned();
    drop(cluster);
    until("the process is gone", PATIENCE, || async {
        // A process that has ended but was not waited for has no memory any more.
        let status = std::fs::read_to_string(format!("/proc/{process}/status"));
        ensure!(!status.is_ok_and(|text| text.contains("VmRSS")), "still there");
        Ok(())
    })
    .await?;
    ensure!(!folder.exists(), "its folder is still there");
    Ok(())
}

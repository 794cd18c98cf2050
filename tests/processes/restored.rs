//! Data directories that changed: put back from an older copy, or removed under a running node.
//!
//! Invariant: a node that has less than it acknowledged to the others ends with a message that says so; the others continue
//! without it.
//!
//! Deliberately absent: wiped disks, and databases that went back alone, which other tests have.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use tokio::time::Instant;
use vulpes_jepsen::node::Role;
use vulpes_jepsen::wait::{until, PATIENCE};
use vulpes_jepsen::{Client, Cluster};

/// How long to publish, so that the nodes' progress is recorded in the order, which happens at most once a second.
const LONG: Duration = Duration::from_millis(2_500);

/// The exit code of a node that can't trust its disk.
const DISK_FAILED: i32 = 70;

/// Publishes at a node, for a while or once.
async fn publish(cluster: &Cluster, node: u64, long: Duration) -> Result<()> {
    let until = Instant::now() + long;
    let mut client: Client = cluster.wamp(node).await?;
    loop {
        client.publish_and_wait("restored.n", "text").await?.context("no position")?;
        if Instant::now() >= until {
            return Ok(());
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Copies the data of a node that is down; returns the path of the copy.
fn backup(cluster: &Cluster, node: u64) -> Result<PathBuf> {
    let to = cluster.folder().join(format!("backup-{node}"));
    copy(&cluster.node(node).data(), &to)?;
    Ok(to)
}

fn put_back(cluster: &Cluster, node: u64, from: &Path) -> Result<()> {
    let data = cluster.node(node).data();
    std::fs::remove_dir_all(&data)?;
    copy(from, &data)
}

/// Checks that the node has ended because of its disk, with this text in its log.
async fn ended_with(cluster: &mut Cluster, node: u64, words: &str) -> Result<()> {
    let status = cluster.node_mut(node).ended().await?;
    let said = cluster.node(node).log_tail();
    ensure!(status.code() == Some(DISK_FAILED) && said.contains(words), "{status}: {said}");
    Ok(())
}

async fn goes_on(cluster: &Cluster, node: u64) -> Result<()> {
    let once = || publish(cluster, node, Duration::ZERO);
    until(&format!("node {node} takes what is published"), PATIENCE, once).await
}

#[tokio::test]
async fn a_folder_from_yesterday_is_refused() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    publish(&cluster, 1, Duration::ZERO).await?;
    cluster.node_mut(3).kill().await?;
    let yesterday = backup(&cluster, 3)?;
    // The same folder, unchanged, is not an older one.
    put_back(&cluster, 3, &yesterday)?;
    cluster.restart(3).await?;
    cluster.ready_node(3).await?;
    publish(&cluster, 1, LONG).await?;
    cluster.node_mut(3).kill().await?;
    put_back(&cluster, 3, &yesterday)?;
    cluster.node_mut(3).start()?;
    ended_with(&mut cluster, 3, "has less than it has told").await?;
    goes_on(&cluster, 1).await?;
    // Nor may it come back together with all others, when the only memory is on the disks.
    for node in [1, 2] {
        cluster.node_mut(node).kill().await?;
    }
    for node in [3, 1, 2] {
        cluster.node_mut(node).start()?;
    }
    ended_with(&mut cluster, 3, "has less than it has told").await?;
    goes_on(&cluster, 2).await
}

#[tokio::test]
async fn a_storage_from_yesterday_is_refused() -> Result<()> {
    let roles = crate::cluster().only(Role::Sync, 3).only(Role::Storage, 3).only(Role::Entry, 1);
    let mut cluster = roles.start().await?;
    publish(&cluster, 7, Duration::ZERO).await?;
    cluster.node_mut(5).kill().await?;
    let yesterday = backup(&cluster, 5)?;
    cluster.restart(5).await?;
    cluster.ready_node(5).await?;
    publish(&cluster, 7, LONG).await?;
    cluster.node_mut(5).kill().await?;
    put_back(&cluster, 5, &yesterday)?;
    cluster.node_mut(5).start()?;
    ended_with(&mut cluster, 5, "has less than it has told").await?;
    goes_on(&cluster, 7).await
}

#[tokio::test]
async fn a_node_ends_whose_files_are_taken_away() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    publish(&cluster, 1, Duration::ZERO).await?;
    std::fs::remove_dir_all(cluster.node(2).data())?;
    ended_with(&mut cluster, 2, "was removed while the node ran").await?;
    goes_on(&cluster, 1).await?;
    // Nor is another file under the same name accepted.
    let data = cluster.node(3).data();
    let copied = backup(&cluster, 3)?;
    std::fs::rename(&data, cluster.folder().join("aside"))?;
    std::fs::rename(copied, &data)?;
    ended_with(&mut cluster, 3, "was replaced while the node ran").await
}

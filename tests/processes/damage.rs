//! A node's file that is not what the node wrote: the process either reports that and ends with exit code 70, or does not
//! notice and serves what is intact. It never ends by a panic or a signal, or silently.
//!
//! Invariant: the same seed damages the same pages.
//!
//! Deliberately absent: what the other nodes do about a damaged body, which the simulation and the fault-injection
//! suite show.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use tokio::time::{timeout, Instant};
use vulpes_jepsen::dice::Dice;
use vulpes_jepsen::Cluster;

/// redb's pages have this size.
const PAGE: u64 = 4096;

/// How long a damaged node is watched and queried.
const WATCHED: Duration = Duration::from_secs(4);

/// The exit code of a node with a failed or damaged disk.
const OF_THE_DISK: i32 = 70;

/// How much of the file is overwritten: one page in this many.
const SHARES: [u64; 8] = [1, 2, 3, 5, 8, 16, 32, 64];

#[tokio::test]
async fn a_file_whose_pages_were_overwritten_is_called_damaged() -> Result<()> {
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let mut client = cluster.wamp(1).await?;
    for number in 0..150 {
        let payload = format!("{number}-{}", "x".repeat(3_000));
        client.publish_and_wait(&format!("load.t{}", number % 50), &payload).await?;
    }
    drop(client);
    cluster.node_mut(1).stop().await?;
    let file = cluster.node(1).data().join("node.redb");
    let witness = cluster.node(1).data();
    let good = keep(&witness)?;

    let mut called_damaged = 0;
    for (seed, share) in (0..).zip(SHARES) {
        restore(&good, &witness)?;
        overwrite(&file, share, &mut Dice::new(seed))?;
        let name = format!("one page in {share}, seed {seed}");
        called_damaged += usize::from(ends_well(&mut cluster).await.context(name)?);
    }
    ensure!(called_damaged > 2, "only {called_damaged} times was it called damaged");

    restore(&good, &witness)?;
    cluster.restart(1).await
}

/// A copy of all files of a data directory.
type Kept = Vec<(std::ffi::OsString, Vec<u8>)>;

fn keep(folder: &std::path::Path) -> Result<Kept> {
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        kept.push((entry.file_name(), std::fs::read(entry.path())?));
    }
    Ok(kept)
}

fn restore(kept: &Kept, folder: &std::path::Path) -> Result<()> {
    for (name, content) in kept {
        std::fs::write(folder.join(name), content)?;
    }
    Ok(())
}

/// Overwrites pages with garbage, or with another page, except for the first page of the file.
fn overwrite(path: &std::path::Path, share: u64, dice: &mut Dice) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let pages = file.metadata()?.len() / PAGE;
    for page in 1..pages {
        if dice.below(share) != 0 {
            continue;
        }
        let mut content = vec![0; PAGE as usize];
        if dice.chance(0.5) {
            content.fill_with(|| dice.below(256) as u8);
        } else {
            file.read_exact_at(&mut content, dice.between(1, pages - 1) * PAGE)?;
        }
        file.write_all_at(&content, page * PAGE)?;
    }
    Ok(())
}

/// Starts the damaged node and reads everything from it; returns whether it reported damage.
async fn ends_well(cluster: &mut Cluster) -> Result<bool> {
    cluster.node_mut(1).start()?;
    let until = Instant::now() + WATCHED;
    let mut from = 0;
    while Instant::now() < until && cluster.node_mut(1).check_alive().is_ok() {
        // It may still be starting, or the rows may be damaged.
        let page = cluster.page(1, &format!("/log?from={from}&max=50")).await;
        if page.is_ok_and(|page| page.status == 200) {
            from += 50;
        }
        if let Ok(mut client) = cluster.wamp(1).await {
            let published = client.publish_and_wait("load.more", "more");
            let _ = timeout(Duration::from_secs(1), published).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let node = cluster.node_mut(1);
    let Err(ended) = node.check_alive() else {
        // It has noticed nothing so far.
        let status = node.stop().await?;
        ensure!(
            status.success() || status.code() == Some(OF_THE_DISK),
            "{status}\n{}",
            node.log_tail()
        );
        return Ok(false);
    };
    let status = node.ended().await?;
    ensure!(status.code() == Some(OF_THE_DISK), "{ended:#}");
    let last = node.log_tail();
    let last = last.lines().last().unwrap_or_default();
    ensure!(last.contains("vulpes: ") && !last.contains("a bug"), "{ended:#}");
    Ok(last.contains("damaged"))
}

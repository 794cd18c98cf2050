//! A log of which only a part is retained: its file stays small, and every client that comes too late gets an error.
//!
//! Invariant: events are published in rounds, each of about the retained size, so that the log is released many times.
//!
//! Deliberately absent: retention by age, which would take an hour; the measuring has its own tests.

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use vulpes_jepsen::code::{ERROR, EVENT, PUBLISH, PUBLISHED, SUBSCRIBE, SUBSCRIBED};
use vulpes_jepsen::wait::{until, PATIENCE};
use vulpes_jepsen::wamp::Wamp;
use vulpes_jepsen::Cluster;

/// The smallest log that can be configured.
const SETTINGS: &str = "[retention]\nsize_mib = 1";

/// A round: this many events of this many bytes.
const EVENTS: u64 = 60;
const EVENT_BYTES: usize = 20_000;

const ROUNDS: usize = 24;

/// The largest file. It doubles as it grows, and at any time holds what was published since the log was last
/// measured.
const FILE: u64 = 20 << 20;

const _: () = assert!(ROUNDS as u64 * EVENTS * EVENT_BYTES as u64 > FILE * 4 / 3);

struct Publisher {
    wamp: Wamp,
    request: u64,
}

impl Publisher {
    async fn at(cluster: &Cluster, node: u64) -> Result<Self> {
        Ok(Self { wamp: Wamp::connect(cluster.node(node).wamp(), "realm1").await?, request: 0 })
    }

    /// Publishes a round of events; returns the last position.
    async fn round(&mut self) -> Result<u64> {
        let options = json!({ "acknowledge": true });
        let text = "x".repeat(EVENT_BYTES);
        for _ in 0..EVENTS {
            self.request += 1;
            let event = json!([PUBLISH, self.request, options, "kept.n", [text]]);
            self.wamp.send(&event).await?;
        }
        loop {
            let answer = self.wamp.receive().await?.context("closed before PUBLISHED")?;
            ensure!(answer[0] == PUBLISHED, "{answer}");
            if answer[1] == self.request {
                return answer[2].as_u64().context("no position");
            }
        }
    }
}

fn oldest(status: &Value) -> Result<(u64, u64)> {
    let state = &status["state"];
    let slot = state["oldest_slot"].as_u64().context("no oldest slot")?;
    Ok((slot, state["oldest_position"].as_u64().context("no oldest position")?))
}

/// Waits until the log at a node begins after a position, and its storage has deleted everything before; returns the first
/// retained position, and the length of the storage's file.
async fn shortened(cluster: &Cluster, node: u64, behind: u64) -> Result<(u64, u64)> {
    until(&format!("the log of node {node} begins behind {behind}"), PATIENCE, || async move {
        let status = cluster.status(node).await?;
        let (slot, position) = oldest(&status)?;
        let storage = &status["storage"];
        ensure!(position > behind && storage["oldest_slot"] == slot, "{status}");
        Ok((position, storage["file_bytes"].as_u64().context("no length")?))
    })
    .await
}

/// Requests the log after a position; returns the first position shown, or the error.
async fn first_after(cluster: &Cluster, node: u64, after: Value) -> Result<Result<u64, Value>> {
    let mut wamp = Wamp::connect(cluster.node(node).wamp(), "realm1").await?;
    wamp.send(&json!([SUBSCRIBE, 1, { "after": after }, "kept.n"])).await?;
    loop {
        let answer = wamp.receive().await?.context("closed before an answer")?;
        match answer[0].as_u64() {
            Some(SUBSCRIBED) => {}
            Some(ERROR) => return Ok(Err(answer)),
            Some(EVENT) => return Ok(Ok(answer[2].as_u64().context("no position")?)),
            _ => anyhow::bail!("{answer}"),
        }
    }
}

/// Checks that all nodes retain the log from the same position after this one on, show it from there, and refuse earlier
/// positions.
async fn all_keep_the_same(cluster: &Cluster, behind: u64) -> Result<()> {
    let (kept, _) = shortened(cluster, 1, behind).await?;
    for node in [1, 2, 3] {
        let (begins, _) = shortened(cluster, node, behind).await?;
        ensure!(begins == kept, "node {node} keeps the log from {begins} on, not {kept}");
        let error = first_after(cluster, node, json!(1)).await?;
        let error = error.err().context("what is released was shown")?;
        let oldest = &error[6]["oldest"];
        ensure!(error[4] == "vulpes.error.history_gone" && *oldest == kept, "{error}, not {kept}");
        let shown = first_after(cluster, node, json!(0)).await?;
        let next = first_after(cluster, node, json!(kept - 1)).await?;
        ensure!(shown == next && shown.is_ok_and(|shown| shown >= kept), "{next:?}");
    }
    Ok(())
}

/// Compares the nodes' logs, retrying while a node restarts because it was left behind.
async fn verified(cluster: &Cluster) -> Result<()> {
    until("the logs are proved to be one", PATIENCE, || cluster.verify(1)).await
}

#[tokio::test]
async fn the_file_stays_small_and_who_was_away_comes_back() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).settings(SETTINGS).start().await?;
    let mut keeper = Publisher::at(&cluster, 2).await?;
    keeper
        .wamp
        .send(&json!([PUBLISH, 9, {"acknowledge": true, "retain": true}, "kept.value", [7]]))
        .await?;
    keeper.wamp.receive().await?;
    let mut publisher = Publisher::at(&cluster, 1).await?;
    let first = publisher.round().await?;
    cluster.node_mut(3).kill().await?;
    let mut lengths = Vec::new();
    let mut last = first;
    for _ in 0..ROUNDS {
        let (before, after) = (last, publisher.round().await?);
        let (kept, length) = shortened(&cluster, 1, before.saturating_sub(EVENTS)).await?;
        ensure!(kept <= after, "all of the log is gone");
        lengths.push(length >> 10);
        last = after;
    }
    println!("the file took {lengths:?} KiB");
    let longest = lengths.iter().copied().max().unwrap_or_default();
    ensure!(longest << 10 < FILE, "the file took {lengths:?} KiB");

    // The node that was away lacks what all others have deleted.
    cluster.restart(3).await?;
    let (kept, _) = shortened(&cluster, 3, first).await?;
    // The last published events may still be on their way.
    let kept = kept - 1;
    until("all nodes keep the same", PATIENCE, || all_keep_the_same(&cluster, kept)).await?;
    verified(&cluster).await?;
    // It serves and votes like the others: without it and one more, there would be no quorum.
    drop((publisher, keeper));
    cluster.node_mut(2).kill().await?;
    let mut publisher = Publisher::at(&cluster, 3).await?;
    publisher.round().await?;
    cluster.restart(2).await?;
    verified(&cluster).await?;
    let mut reader = Wamp::connect(cluster.node(3).wamp(), "realm1").await?;
    let options = json!({ "retained": true, "snapshot": true });
    reader.send(&json!([SUBSCRIBE, 1, options, "kept.value"])).await?;
    loop {
        let answer = reader.receive().await?.context("closed before the value")?;
        if answer[0] == EVENT {
            ensure!(answer[4] == json!([7]), "{answer}");
            return Ok(());
        }
    }
}

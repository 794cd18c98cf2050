//! Very many retained values: a node that was killed or stopped comes back with all of them, and finds the few that are
//! requested.
//!
//! `VULPES_TOPICS=1000000` raises their number; the times are printed.
//!
//! Invariant: the assertions hold on a busy machine, too. Times and sizes are printed but not checked, except against limits
//! that only a scan or a copy could exceed.
//!
//! Deliberately absent: how many topics a lookup visits, which the product's own tests count.

use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::json;
use tokio::time::Instant;
use vulpes_jepsen::mqtt::{packet, string, Mqtt};
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;

use crate::peer::Peer;

/// Topics in an ordinary run.
const TOPICS: u64 = 20_000;

/// Topics below each topic of the next higher level.
const BRANCHES: u64 = 100;

/// Messages that one publisher has in flight.
const WINDOW: u64 = 2_000;

/// Time limit for each thousand topics.
const EACH_THOUSAND: Duration = Duration::from_secs(5);

/// Time limit for a node to come back, with the ordinary number of topics on a busy machine.
const BACK: Duration = Duration::from_secs(20);

fn topic(number: u64) -> String {
    format!(
        "site/{}/{}/{}",
        number / BRANCHES / BRANCHES,
        number / BRANCHES % BRANCHES,
        number % BRANCHES
    )
}

/// Gives all topics a value.
async fn fill(cluster: &Cluster, topics: u64) -> Result<()> {
    let mut mqtt = Mqtt::connect(cluster.node(1).mqtt()).await?;
    let (mut sent, mut answered) = (0, 0);
    while answered < topics {
        let mut bytes = Vec::new();
        while sent < topics && sent - answered < WINDOW && bytes.len() < 64 << 10 {
            let identifier = (sent % 60_000 + 1) as u16;
            let mut body = string(&topic(sent));
            body.extend(identifier.to_be_bytes());
            body.extend(format!("{{\"value\":{sent},\"unit\":\"kelvin\"}}").as_bytes());
            bytes.extend(packet(0x33, &body));
            sent += 1;
        }
        mqtt.send(&bytes).await?;
        while answered < sent && (sent == topics || sent - answered > WINDOW / 2) {
            let (first, _) = mqtt.receive().await?.context("the node hung up")?;
            ensure!(first == 0x40, "no PUBACK but {first:#04x}");
            answered += 1;
        }
    }
    Ok(())
}

/// Waits until a node reports that it has all values.
async fn has_all(cluster: &Cluster, node: u64, topics: u64) -> Result<()> {
    until("a node has all values", PATIENCE, || async {
        let retained = &cluster.status(node).await?["state"]["retained"];
        ensure!(*retained == topics, "{retained} of {topics}");
        Ok(())
    })
    .await
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |meta| meta.len())
}

fn tell(cluster: &Cluster, what: &str) -> Result<()> {
    for node in cluster.nodes() {
        let file = length(&node.data().join("node.redb"));
        let resident = node.resident()?;
        println!(
            "{what}: node {} holds {} MiB, node.redb {} MiB",
            node.id,
            resident >> 20,
            file >> 20
        );
    }
    Ok(())
}

/// Looks up some values with patterns that match few among many.
async fn look_up(cluster: &Cluster, node: u64, topics: u64) -> Result<()> {
    let mut peer = Peer::connect(cluster.node(node).wamp()).await?;
    let last = topics - 1;
    let found = |pattern: String| (pattern, json!({ "retainedState": true, "snapshot": true }));
    let table = [
        (found(topic(last).replace('/', ".")), 1),
        (found(format!("site.0.*.{}", last % BRANCHES)), BRANCHES),
        (found(format!("site.0.{}.#", last / BRANCHES % BRANCHES)), BRANCHES),
        (found(format!("*.0.{}.7", last / BRANCHES % BRANCHES)), 1),
        (found("#.nothing".replace("#.", "*.")), 0),
        (found("site.*.nothing.*".into()), 0),
    ];
    for ((pattern, options), count) in table {
        let begun = Instant::now();
        let values = within(&pattern, PATIENCE, peer.snapshot(&pattern, options)).await?;
        println!("{pattern}: {} values in {:?}", values.len(), begun.elapsed());
        ensure!(values.len() as u64 == count, "{pattern}: {} of {count}", values.len());
    }
    Ok(())
}

#[tokio::test]
async fn very_many_retained_values_are_back_after_a_restart() -> Result<()> {
    let topics = std::env::var("VULPES_TOPICS").ok().and_then(|text| text.parse().ok());
    let topics: u64 = topics.unwrap_or(TOPICS);
    ensure!(topics >= BRANCHES * BRANCHES, "the lookups need {} at least", BRANCHES * BRANCHES);
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let begun = Instant::now();
    let limit = EACH_THOUSAND * (topics / 1000) as u32;
    within("all topics have a value", limit, fill(&cluster, topics)).await?;
    println!("{topics} retained values in {:?}", begun.elapsed());
    for node in 1..=3 {
        has_all(&cluster, node, topics).await?;
    }
    tell(&cluster, "filled")?;
    look_up(&cluster, 1, topics).await?;

    let begun = Instant::now();
    cluster.node_mut(2).kill().await?;
    cluster.restart(2).await?;
    let after_kill = begun.elapsed();
    has_all(&cluster, 2, topics).await?;
    let begun = Instant::now();
    cluster.node_mut(3).stop().await?;
    let stopped = begun.elapsed();
    cluster.restart(3).await?;
    let after_stop = begun.elapsed() - stopped;
    has_all(&cluster, 3, topics).await?;
    println!(
        "back in {after_kill:?} after kill -9, in {after_stop:?} after a clean stop of {stopped:?}"
    );
    tell(&cluster, "restarted")?;
    look_up(&cluster, 2, topics).await?;
    if topics == TOPICS {
        ensure!(after_kill < BACK && after_stop < BACK, "{after_kill:?} {after_stop:?}");
    }
    cluster.verify(1).await
}

//! `kill -9` under load: nothing acknowledged is lost, and the other nodes continue.
//!
//! Invariant: the killed node's own publishers and readers end with it; their records are judged, too.
//!
//! Deliberately absent: lost or torn writes. A killed process leaves what it wrote to the kernel.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use tokio::time::Instant;
use vulpes_jepsen::history::{check_acknowledged, check_log, check_run};
use vulpes_jepsen::load::{read_log_through, Publisher, Reader};
use vulpes_jepsen::{Cluster, Seen};

/// How long publishing may pause at the surviving nodes.
const STANDSTILL: Duration = Duration::from_secs(2);

/// The longest pause if a node is frozen: its connections stay open, so only a timeout shows it.
const FROZEN_STANDSTILL: Duration = Duration::from_secs(5);

/// Messages that each publisher has acknowledged before and after the kill.
const MESSAGES: usize = 150;

const MARK: &str = "mark";

struct Load {
    publishers: Vec<(u64, Publisher)>,
    readers: Vec<(u64, Reader)>,
}

impl Load {
    /// A publisher and a reader at each node, of alternating protocols.
    async fn start(cluster: &Cluster) -> Result<Self> {
        let (mut publishers, mut readers) = (Vec::new(), Vec::new());
        for node in cluster.nodes() {
            let (wamp, mqtt) = (cluster.wamp(node.id).await?, cluster.mqtt(node.id).await?);
            let (writing, reading) = if node.id % 2 == 1 { (wamp, mqtt) } else { (mqtt, wamp) };
            readers.push((node.id, Reader::start(reading, "load").await?));
            let (name, topic) = (format!("p{}", node.id), format!("load.p{}", node.id));
            publishers.push((node.id, Publisher::start(writing, &name, &topic)));
        }
        let load = Self { publishers, readers };
        load.advance(&[]).await?;
        Ok(load)
    }

    /// Waits until every publisher except those at `without` has made progress.
    async fn advance(&self, without: &[u64]) -> Result<()> {
        for (id, publisher) in self.publishers.iter().filter(|(id, _)| !without.contains(id)) {
            let so_far = publisher.record().acknowledged.len();
            let got_on = publisher.acknowledged(so_far + MESSAGES).await;
            got_on.with_context(|| format!("the publisher at node {id}"))?;
        }
        Ok(())
    }

    /// The longest pause after `blow` of any publisher except those at `without`.
    async fn standstill(&self, blow: Instant, without: &[u64]) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        for (id, publisher) in self.publishers.iter().filter(|(id, _)| !without.contains(id)) {
            publisher.next_acknowledged().await.with_context(|| format!("at node {id}"))?;
            publisher.next_acknowledged().await.with_context(|| format!("at node {id}"))?;
            let record = publisher.record();
            let mut last = blow;
            for told in record.acknowledged.iter().filter(|told| told.at > blow) {
                longest = longest.max(told.at - last);
                last = told.at;
            }
        }
        Ok(longest)
    }

    /// Ends all publishers and checks every record against every node's log.
    async fn judge(self, cluster: &Cluster) -> Result<Vec<Seen>> {
        let mut records = Vec::new();
        for (_, publisher) in self.publishers {
            records.push(publisher.finish().await?);
        }
        let mut marker = cluster.wamp(1).await?;
        marker.publish_and_wait("load.mark", MARK).await?;
        let log = read_log_through(cluster, 1, "load", MARK).await?;
        check_log(&log)?;
        for record in &records {
            check_acknowledged(&log, record)?;
        }
        for (id, reader) in &self.readers {
            if reader.closed().is_none() {
                let seen = reader.until_seen(MARK).await?;
                ensure!(seen.last().is_some_and(is_mark), "{seen:?} behind the last event");
            }
            let run = check_run(&log, &reader.seen());
            run.with_context(|| format!("the reader at node {id}"))?;
        }
        for node in cluster.nodes() {
            let other = read_log_through(cluster, node.id, "load", MARK).await?;
            ensure!(other == log, "node {} shows another log", node.id);
        }
        cluster.verify(1).await?;
        Ok(log)
    }
}

fn is_mark(seen: &Seen) -> bool {
    seen.payload == MARK
}

/// Kills one node under load, lets the others continue, and brings it back.
async fn dies_under_load(mut cluster: Cluster, victim: u64) -> Result<()> {
    let load = Load::start(&cluster).await?;
    cluster.node_mut(victim).kill().await?;
    let blow = Instant::now();
    let standstill = load.standstill(blow, &[victim]).await?;
    println!("publishing stood still for {standstill:?}");
    ensure!(standstill < STANDSTILL, "publishing stood still for {standstill:?}");
    load.advance(&[victim]).await?;
    cluster.restart(victim).await?;
    load.advance(&[victim]).await?;
    // The node that came back serves like the others.
    let mut client = cluster.mqtt(victim).await?;
    client.publish_and_wait("load.back", "back-0").await?;
    let log = load.judge(&cluster).await?;
    ensure!(log.iter().any(|seen| seen.payload == "back-0"), "what it took itself is lost");
    Ok(())
}

#[tokio::test]
async fn a_follower_dies() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let leader = cluster.leader().await?;
    let victim = if leader == 3 { 2 } else { 3 };
    dies_under_load(cluster, victim).await
}

#[tokio::test]
async fn the_leader_dies() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let leader = cluster.leader().await?;
    dies_under_load(cluster, leader).await
}

#[tokio::test]
async fn all_die_at_once() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let load = Load::start(&cluster).await?;
    for id in [1, 2, 3] {
        cluster.node_mut(id).kill().await?;
    }
    for id in [1, 2, 3] {
        cluster.node_mut(id).start()?;
    }
    cluster.ready().await?;
    load.judge(&cluster).await?;
    Ok(())
}

#[tokio::test]
async fn a_frozen_leader_is_replaced() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let frozen = cluster.leader().await?;
    let load = Load::start(&cluster).await?;
    cluster.node(frozen).pause().await?;
    let standstill = load.standstill(Instant::now(), &[frozen]).await?;
    load.advance(&[frozen]).await?;
    cluster.node(frozen).resume().await?;
    println!("publishing stood still for {standstill:?}");
    ensure!(standstill < FROZEN_STANDSTILL, "publishing stood still for {standstill:?}");
    load.advance(&[frozen]).await?;
    load.judge(&cluster).await?;
    Ok(())
}

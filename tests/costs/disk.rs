//! A segment's cost on the disks that store it: syncs, and bytes written.
//!
//! Idle, a segment holds one message. Under load it holds many, and many segments share a commit.
//!
//! Invariant: counts are of all files of a node together, and include delayed writes (rows of the order, which wait for other
//! jobs' commits).
//!
//! Deliberately absent: reads.

use std::time::Duration;

use vulpes_raft::host::sim::DiskUse;

use crate::client::Client;
use crate::cluster::{run, Cluster, Delays};

const DELAYS: Delays =
    Delays { message: Duration::from_millis(1), commit: Duration::from_millis(3), voting: false };

/// Messages of the idle cluster, one after the other.
const MESSAGES: u64 = 20;

/// Under load: publishers, and the messages that each of them repeatedly has in flight.
const PUBLISHERS: u64 = 8;
const WINDOW: u16 = 50;
const TURNS: u64 = 10;

/// The payload of each message.
const PAYLOAD: [u8; 128] = [b'x'; 128];

/// The cost of a run for one node.
#[derive(Clone, Copy, Debug)]
struct Cost {
    segments: u64,
    used: DiskUse,
}

impl Cost {
    fn syncs(&self) -> f64 {
        self.used.syncs as f64 / self.segments as f64
    }

    /// Bytes written per segment.
    fn written(&self) -> f64 {
        self.used.written as f64 / self.segments as f64
    }
}

/// A node's files, together.
fn total(cluster: &Cluster, node: u64) -> DiskUse {
    let zero = DiskUse::default();
    cluster.used(node).into_values().fold(zero, |sum, used| DiskUse {
        syncs: sum.syncs + used.syncs,
        written: sum.written + used.written,
    })
}

/// The use of each node's disk while clients of node 1 work.
fn costs<F>(nodes: u64, work: impl FnOnce(Cluster) -> F + 'static) -> Vec<Cost>
where
    F: std::future::Future<Output = std::io::Result<()>> + 'static,
{
    run(nodes, DELAYS, |cluster| async move {
        cluster.settled().await;
        // The first publish opens files and tables.
        Client::connect(1, "first").await?.publish(1, &PAYLOAD).await?;
        cluster.quiet().await;
        let before: Vec<_> = cluster
            .nodes()
            .map(|node| (cluster.segments(node), total(&cluster, node), cluster.used(node)))
            .collect();
        work(cluster.clone()).await?;
        cluster.quiet().await;
        let cost = |(node, (segments, used, files)): (u64, _)| {
            let cost = Cost {
                segments: cluster.segments(node) - segments,
                used: total(&cluster, node) - used,
            };
            println!("node {node} of {nodes}: {} segments", cost.segments);
            for (name, used) in cluster.used(node) {
                let before = std::collections::BTreeMap::get(&files, &name).copied();
                println!("    {name}: {:?}", used - before.unwrap_or_default());
            }
            println!("    a segment: {:.2} syncs, {:.0} bytes", cost.syncs(), cost.written());
            cost
        };
        Ok(cluster.nodes().zip(before).map(cost).collect())
    })
}

async fn one_by_one(cluster: Cluster) -> std::io::Result<()> {
    let mut client = Client::connect(1, "publisher").await?;
    for _ in 0..MESSAGES {
        client.publish(1, &PAYLOAD).await?;
        cluster.quiet().await;
    }
    Ok(())
}

async fn all_at_once(_: Cluster) -> std::io::Result<()> {
    let publish = |number: u64| async move {
        let mut client = Client::connect(1, &format!("publisher-{number}")).await?;
        for _ in 0..TURNS {
            client.publish(WINDOW, &PAYLOAD).await?;
        }
        std::io::Result::Ok(())
    };
    futures::future::try_join_all((0..PUBLISHERS).map(publish)).await?;
    Ok(())
}

/// The highest cost of a segment for a node.
struct Most {
    syncs: f64,
    written: f64,
}

/// Checks that a segment costs no node more than this.
fn check(costs: &[Cost], most: &Most) {
    for cost in costs {
        assert!(cost.syncs() <= most.syncs, "{:.2} syncs a segment", cost.syncs());
        assert!(cost.written() <= most.written, "{:.0} bytes a segment", cost.written());
    }
}

/// A body and the log entry that orders it are synced together, or one after the other; the row of the order, for which no
/// caller waits, is synced later.
#[test]
fn an_idle_cluster_syncs_a_segment_four_times_a_node() {
    for (nodes, most) in
        [(1, Most { syncs: 3.2, written: 95_000.0 }), (3, Most { syncs: 4.2, written: 120_000.0 })]
    {
        let costs = costs(nodes, one_by_one);
        check(&costs, &most);
        for cost in costs {
            // The publisher's session is a segment, too.
            let segments = MESSAGES..=MESSAGES + 2;
            assert!(segments.contains(&cost.segments), "a segment a message: {}", cost.segments);
            assert!(cost.syncs() >= 1.0, "what is acknowledged is synced");
        }
    }
}

/// Segments share commits, and messages share segments.
#[test]
fn a_loaded_cluster_syncs_less_than_once_a_segment_a_node() {
    for (nodes, most) in
        [(1, Most { syncs: 0.9, written: 42_000.0 }), (3, Most { syncs: 0.95, written: 46_000.0 })]
    {
        let costs = costs(nodes, all_at_once);
        check(&costs, &most);
        let messages = PUBLISHERS * u64::from(WINDOW) * TURNS;
        for cost in costs {
            assert!(messages / cost.segments >= 40, "{} segments", cost.segments);
            assert!(cost.used.written >= messages * PAYLOAD.len() as u64, "all is written");
        }
    }
}

//! From a publish to its subscribers, at each node: bodies reach all storages without being fetched, and no node waits for a
//! body that does not come.
//!
//! A storage whose disk is ten times slower than the others' is always behind. The entries limit what they send to it, and
//! announce what they do not send.
//!
//! Invariant: nothing fails here, so nothing is late.
//!
//! Deliberately absent: a real machine's speed (`vulpes bench` reports both latencies for each node).

use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::Instant;
use vulpes_raft::mutant::{plant, Mutant};

use crate::client::Client;
use crate::cluster::{run_with, Cluster, Delays, Odd};

const DELAYS: Delays =
    Delays { message: Duration::from_millis(1), commit: Duration::from_millis(3), voting: false };

/// The commits of the slow disk.
const SLOW: Duration = Duration::from_millis(30);

/// Publishers at each node, and the messages that each of them repeatedly has in flight.
const PUBLISHERS: u64 = 3;
const WINDOW: u16 = 16;
const TURNS: u64 = 40;

/// The payload: the time, and this many more bytes.
const PADDING: usize = 120;

const NODES: u64 = 3;

/// What a run found.
struct Found {
    acknowledged: Vec<Duration>,
    /// By node.
    delivered: Vec<Vec<Duration>>,
    /// By node: bodies that were fetched, and how often waiting for one timed out.
    fetched: Vec<(u64, u64)>,
}

fn p99(latencies: &[Duration]) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() * 99 / 100]
}

/// Publishers and a subscriber at every node, optionally with one slow disk, and with this limit of bytes on the way to a
/// storage.
fn load(slow: Option<u64>, sent_bytes: usize) -> Found {
    let node = slow.unwrap_or(1);
    let commit = if slow.is_some() { SLOW } else { DELAYS.commit };
    let odd = Odd { node, commit, sent_bytes };
    run_with(NODES, DELAYS, Some(odd), |cluster| async move {
        cluster.settled().await;
        let begun = Instant::now();
        let mut receiving = Vec::new();
        for node in cluster.nodes() {
            let mut client = Client::connect(node, &format!("subscriber-{node}")).await?;
            client.subscribe().await?;
            receiving.push(spawn_local(received(client, begun)));
        }
        let fetched_before = fetched(&cluster);
        let publishing = cluster.nodes().flat_map(|node| (0..PUBLISHERS).map(move |it| (node, it)));
        let publishing: Vec<_> =
            publishing.map(|(node, number)| spawn_local(published(node, number, begun))).collect();
        let mut acknowledged = Vec::new();
        for publisher in publishing {
            acknowledged.extend(publisher.await??);
        }
        let mut delivered = Vec::new();
        for subscriber in receiving {
            delivered.push(subscriber.await??);
        }
        let since = |(now, before): ((u64, u64), (u64, u64))| (now.0 - before.0, now.1 - before.1);
        let fetched = fetched(&cluster).into_iter().zip(fetched_before).map(since).collect();
        println!("leader {:?}", cluster.leader());
        Ok(Found { acknowledged, delivered, fetched })
    })
}

fn fetched(cluster: &Cluster) -> Vec<(u64, u64)> {
    cluster.nodes().map(|node| cluster.fetched(node)).collect()
}

/// How long acknowledgements took.
async fn published(node: u64, number: u64, begun: Instant) -> std::io::Result<Vec<Duration>> {
    let mut client = Client::connect(node, &format!("publisher-{node}-{number}")).await?;
    let mut latencies = Vec::new();
    for _ in 0..TURNS {
        let sent = begun.elapsed();
        let mut payload = (sent.as_micros() as u64).to_be_bytes().to_vec();
        payload.extend([b'x'; PADDING]);
        client.publish(WINDOW, &payload).await?;
        latencies.push(begun.elapsed() - sent);
    }
    Ok(latencies)
}

/// How long the delivery of each published event took.
async fn received(mut client: Client, begun: Instant) -> std::io::Result<Vec<Duration>> {
    let all = NODES * PUBLISHERS * u64::from(WINDOW) * TURNS;
    let mut latencies = Vec::new();
    for _ in 0..all {
        let payload = client.next().await?;
        let sent: [u8; 8] = payload[..8].try_into().map_err(std::io::Error::other)?;
        let sent = Duration::from_micros(u64::from_be_bytes(sent));
        latencies.push(begun.elapsed() - sent);
    }
    Ok(latencies)
}

/// Prints the results, and checks that each node gets events soon enough, except one that may be slow.
fn check(found: &Found, slow: Option<u64>) {
    let acknowledged = p99(&found.acknowledged);
    println!("acknowledged: p99 {acknowledged:?}; fetched {:?}", found.fetched);
    for (node, latencies) in (1..).zip(&found.delivered) {
        let delivered = p99(latencies);
        println!("delivered at {node}: p99 {delivered:?}");
        let most = if Some(node) == slow { acknowledged + 4 * SLOW } else { 2 * acknowledged };
        assert!(delivered <= most, "node {node}: {delivered:?} after {acknowledged:?}");
    }
}

#[test]
fn a_healthy_cluster_fetches_no_body_and_delivers_what_it_acknowledges() {
    let found = load(None, vulpes::types::limits::STORAGE_SENT_BYTES);
    check(&found, None);
    assert_eq!(found.fetched, [(0, 0); NODES as usize]);
}

#[test]
fn who_is_slow_is_sent_all_bodies_and_fetches_none() {
    for slow in 1..=NODES {
        let found = load(Some(slow), vulpes::types::limits::STORAGE_SENT_BYTES);
        check(&found, Some(slow));
        assert_eq!(found.fetched, [(0, 0); NODES as usize], "{slow} is slow");
    }
}

/// A storage without room for a body fetches it, without waiting first.
#[test]
fn what_is_not_sent_is_fetched_and_not_waited_for() {
    let mut fetched = 0;
    for slow in 1..=NODES {
        let found = load(Some(slow), 2_000);
        check(&found, Some(slow));
        fetched += found.fetched[slow as usize - 1].0;
        assert_eq!(found.fetched[slow as usize - 1].1, 0, "{slow} waited for what is not sent");
    }
    assert!(fetched > 10, "there was room for all");
}

/// Shows that the check would notice it.
#[test]
fn skipping_a_storage_without_saying_so_is_seen() {
    let mut late = 0;
    for slow in 1..=NODES {
        plant(Some(Mutant::SkipWithoutSaying));
        let found = load(Some(slow), 2_000);
        plant(None);
        late += found.fetched[slow as usize - 1].1;
    }
    assert!(late > 0, "nobody waited in vain");
}

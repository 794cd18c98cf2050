//! What a node holds for many connections together: no more than its budgets, even if the limits of all connections add up to
//! more.
//!
//! Invariant: while a budget is used up, small messages of other clients pass at once, and large ones wait for their turn.
//! Everything continues when there is room again.
//!
//! Deliberately absent: the order of waiters, which the budget's own tests have.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use futures::future::{join_all, try_join_all};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vulpes_jepsen::cluster::REALM;
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::wait::{until, within};
use vulpes_jepsen::wamp::Wamp;
use vulpes_jepsen::{Cluster, Said};
use vulpes_raft::host::Host;
use vulpes_raft::ids::{DiskId, NodeId};
use vulpes_raft::net::wire::{self, Identity, Service};

const MIB: usize = 1 << 20;

/// Memory in addition to a budget: each connection's own allowance, data on its way to the log, and a debug build's overhead.
const SLACK: u64 = 64 << 20;

const PATIENCE: Duration = Duration::from_secs(60);

async fn node() -> Result<Cluster> {
    crate::cluster().nodes(1).start().await
}

/// The most that the node holds in addition while this runs.
async fn growth<T>(
    cluster: &Cluster,
    load: impl std::future::Future<Output = T>,
) -> Result<(T, u64)> {
    let before = cluster.node(1).resident()?;
    let mut most = before;
    let mut load = std::pin::pin!(load);
    loop {
        tokio::select! {
            done = &mut load => {
                most = most.max(cluster.node(1).resident()?);
                return Ok((done, most - before));
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                most = most.max(cluster.node(1).resident()?);
            }
        }
    }
}

/// Writes as many bytes to a stream as the other side accepts now.
async fn push(address: SocketAddr, bytes: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.write_all(bytes)).await;
    Ok(stream)
}

fn connect(name: &str) -> Vec<u8> {
    packet(0x10, &[string("MQTT"), vec![4, 2, 0, 0], string(name)].concat())
}

fn publish(number: u16, topic: &str, length: usize) -> Vec<u8> {
    packet(0x32, &[string(topic), number.to_be_bytes().to_vec(), vec![b'x'; length]].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_packets_before_login_cost_little() -> Result<()> {
    const CONNECTIONS: usize = 300;
    const BUDGET: u64 = 16 << 20;
    let cluster = node().await?;
    let (mqtt, wamp) = (cluster.node(1).mqtt(), cluster.node(1).wamp());
    let mut client = cluster.mqtt(1).await?;
    let bytes = publish(1, "unfinished", MIB);
    let bytes = &bytes[..bytes.len() - 1];
    let upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: wamp.2.json\r\n\r\n";
    let frame = [&[0x81, 0xFF][..], &(MIB as u64).to_be_bytes(), &vec![0; MIB][..]].concat();
    let over_websocket = |address| {
        let frame = &frame;
        async move {
            let mut stream = push(address, upgrade).await?;
            let mut answer = vec![0; 1024];
            let _ = stream.read(&mut answer).await?;
            let _ = tokio::time::timeout(Duration::from_secs(2), stream.write_all(frame)).await;
            anyhow::Ok(stream)
        }
    };
    let load = async {
        let raw = join_all((0..CONNECTIONS).map(|_| push(mqtt, bytes)));
        let (raw, framed) =
            tokio::join!(raw, join_all((0..CONNECTIONS).map(|_| over_websocket(wamp))));
        // Meanwhile clients come, small and large ones.
        client.publish_and_wait("load.a", "small").await?;
        client.publish_and_wait("load.a", &"x".repeat(MIB)).await?;
        cluster.wamp(1).await?.publish_and_wait("load.a", "fresh").await?;
        drop((raw, framed));
        anyhow::Ok(())
    };
    let (done, growth) = growth(&cluster, load).await?;
    done?;
    println!("{} MiB unfinished, {} MiB held", 2 * CONNECTIONS, growth >> 20);
    ensure!(growth < BUDGET + SLACK, "the node held {} MiB more", growth >> 20);
    // There is room again: a login that needs some succeeds.
    let name = "n".repeat(900);
    let will = [string("last/will"), string(&"w".repeat(60_000))].concat();
    let body = [string("MQTT"), vec![4, 6, 0, 0], string(&name), will].concat();
    let welcomed = until("a large login is welcomed", PATIENCE, || async {
        let mut stream = push(mqtt, &packet(0x10, &body)).await?;
        let mut answer = [0; 4];
        within("an answer", PATIENCE, async { Ok(stream.read_exact(&mut answer).await?) }).await?;
        ensure!(answer == [0x20, 2, 0, 0], "{answer:02x?}");
        Ok(())
    });
    welcomed.await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_publishes_at_once_take_turns() -> Result<()> {
    const CLIENTS: usize = 400;
    const BUDGET: u64 = 64 << 20;
    let cluster = node().await?;
    let address = cluster.node(1).mqtt();
    // The memory of the log itself is in use already: recent events, caches.
    let mut first = cluster.mqtt(1).await?;
    let text = "x".repeat(MIB);
    for _ in 0..60 {
        first.publish_and_wait("load.a", &text).await?;
    }
    let bytes = publish(7, "load/a", MIB);
    let one = |number: usize| {
        let bytes = &bytes;
        async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&connect(&format!("large-{number}"))).await?;
            stream.write_all(bytes).await?;
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).await.context("no acknowledgement")?;
            ensure!(answer == [0x20, 2, 0, 0, 0x40, 2, 0, 7], "{answer:02x?}");
            anyhow::Ok(())
        }
    };
    let load = within("all are acknowledged", PATIENCE, try_join_all((0..CLIENTS).map(one)));
    let (done, growth) = growth(&cluster, load).await?;
    done?;
    println!("{CLIENTS} MiB published at once, {} MiB held", growth >> 20);
    // The unsealed events and the storages' queues are full now as well, and the allocator keeps some freed memory.
    // Without sharing it would be 700 MiB.
    ensure!(growth < BUDGET + 2 * SLACK + (48 << 20), "the node held {} MiB more", growth >> 20);
    Ok(())
}

/// Clients that announce a large message, and send little of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_that_are_told_and_do_not_come_hold_up_nobody() -> Result<()> {
    const CLIENTS: usize = 1000;
    const AT_MOST: Duration = Duration::from_secs(10);
    let cluster = node().await?;
    let address = cluster.node(1).mqtt();
    let bytes = publish(7, "load/a", MIB);
    let one = |number: usize| {
        // Some of them send more than the free allowance.
        let bytes = if number.is_multiple_of(5) { &bytes[..6 << 10] } else { &bytes[..5] };
        async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&connect(&format!("teller{number}"))).await?;
            let mut welcome = [0; 4];
            within("a welcome", PATIENCE, async { Ok(stream.read_exact(&mut welcome).await?) })
                .await?;
            stream.write_all(bytes).await?;
            anyhow::Ok(stream)
        }
    };
    let mut client = cluster.mqtt(1).await?;
    let mut tellers = Vec::new();
    for first in (0..CLIENTS).step_by(100) {
        tellers.extend(try_join_all((first..first + 100).map(one)).await?);
    }
    for text in ["x".repeat(MIB), "x".repeat(20_000)] {
        for _ in 0..3 {
            within("a large publish", AT_MOST, client.publish_and_wait("load.b", &text)).await?;
        }
    }
    drop(tellers);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_for_many_subscriptions_is_made_as_it_is_taken() -> Result<()> {
    const SUBSCRIPTIONS: usize = 500;
    let cluster = node().await?;
    let mut session = Wamp::connect(cluster.node(1).wamp(), REALM).await?;
    // Patterns that all fit one topic with many parts.
    let parts = 12;
    let topic = vec!["p"; parts].join(".");
    for number in 0..SUBSCRIPTIONS {
        let part = |at: usize| if number >> at & 1 == 1 { "" } else { "p" };
        let pattern: Vec<&str> = (0..parts).map(part).collect();
        let options = json!({ "match": "wildcard" });
        session.subscribe(&pattern.join("."), &options).await?;
    }
    let mut publisher = cluster.mqtt(1).await?;
    let text = "x".repeat(MIB);
    let load = async {
        publisher.publish_and_wait(&topic, &text).await?;
        // It takes long to begin, but does not delay other clients.
        for number in 0..20 {
            publisher.publish_and_wait("others.a", &format!("a-{number}")).await?;
        }
        anyhow::Ok(())
    };
    let (done, grown) = growth(&cluster, load).await?;
    done?;
    println!("{SUBSCRIPTIONS} MiB for one session, {} MiB held", grown >> 20);
    ensure!(grown < SLACK, "the node held {} MiB more", grown >> 20);
    let reading = async {
        for number in 0..SUBSCRIPTIONS {
            let seen = within("an event", PATIENCE, session.next()).await?;
            ensure!(matches!(seen, Said::Event(_)), "{seen:?} instead of event {number}");
        }
        anyhow::Ok(())
    };
    let (done, grown) = growth(&cluster, reading).await?;
    done?;
    ensure!(grown < SLACK, "the node held {} MiB more", grown >> 20);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_frames_at_the_node_port_cost_little() -> Result<()> {
    const FRAMES: usize = 60;
    const BUDGET: u64 = 64 << 20;
    let cluster = node().await?;
    let mut client = cluster.wamp(1).await?;
    let own = Identity { cluster: "test".into(), node: NodeId(1), disk: DiskId(7) };
    let address = cluster.node(1).peer().to_string();
    let bytes = vec![1; wire::MAX_FRAME - 1];
    let host = Host::real();
    let frame = || async {
        let expected = (NodeId(1), None);
        let link = wire::dial(&host, &own, &address, Service::Fetch, expected).await?;
        let mut stream = link.stream;
        stream.write_u32(wire::MAX_FRAME as u32).await?;
        let _ = tokio::time::timeout(Duration::from_secs(3), stream.write_all(&bytes)).await;
        anyhow::Ok(stream)
    };
    let load = async {
        let held = try_join_all((0..FRAMES).map(|_| frame())).await?;
        client.publish_and_wait("load.a", "small").await?;
        client.publish_and_wait("load.a", &"x".repeat(MIB)).await?;
        drop(held);
        anyhow::Ok(())
    };
    let (done, growth) = growth(&cluster, load).await?;
    done?;
    println!("{} MiB unfinished, {} MiB held", (FRAMES * wire::MAX_FRAME) >> 20, growth >> 20);
    ensure!(growth < BUDGET + SLACK, "the node held {} MiB more", growth >> 20);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_that_read_nothing_hold_what_they_may_together() -> Result<()> {
    const SUBSCRIBERS: u16 = 800;
    const EVENTS: usize = 60;
    // The output for the subscribers, and the segments that they read; in addition, each one's own allowance, and what is being
    // read from the disk for some of them.
    const BUDGETS: u64 = ((128 + 64) << 20) + ((SUBSCRIBERS as u64) << 15) + (16 << 20);
    let cluster = node().await?;
    let mut first = cluster.mqtt(1).await?;
    let text = "x".repeat(MIB);
    // The memory of the log itself is in use already.
    for _ in 0..EVENTS {
        first.publish_and_wait("frozen.a", &text).await?;
    }
    let address = cluster.node(1).mqtt();
    let subscribe = |number: u16| async move {
        let mut stream = push(address, &connect(&format!("frozen-{number}"))).await?;
        let filter = [vec![0, 1], string("$replay/0/frozen/#"), vec![0]].concat();
        stream.write_all(&packet(0x82, &filter)).await?;
        let mut answer = [0; 9];
        stream.read_exact(&mut answer).await?;
        anyhow::Ok(stream)
    };
    let load = async {
        let mut frozen = try_join_all((0..SUBSCRIBERS).map(subscribe)).await?;
        for number in 0..20 {
            first.publish_and_wait("others.a", &format!("a-{number}")).await?;
        }
        // One of them continues to read, once the others are gone.
        let mut one = frozen.swap_remove(7);
        drop(frozen);
        let mut rest = vec![0; EVENTS * MIB];
        within("all that it missed", PATIENCE, async { Ok(one.read_exact(&mut rest).await?) })
            .await?;
        anyhow::Ok(())
    };
    let (done, growth) = growth(&cluster, load).await?;
    done?;
    println!("{SUBSCRIBERS} subscribers of {EVENTS} MiB, {} MiB held", growth >> 20);
    // The allocator keeps some freed memory. Without sharing it would be 800 MiB.
    ensure!(growth < BUDGETS + 2 * SLACK, "the node held {} MiB more", growth >> 20);
    Ok(())
}

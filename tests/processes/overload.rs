//! More load than a node can handle: its clients wait, but the cluster and the clients of other nodes are not affected.
//!
//! Invariant: no entry loses its lease, whatever clients request, and events pass between the other nodes. If the only problem
//! is a flood of requests, the sync group keeps its leader, too; if clients were served on the cluster's threads, it would not.
//!
//! Deliberately absent: speed, which a busy machine can't show; `vulpes bench` measures it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use futures::future::try_join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use vulpes::types::limits;
use vulpes_jepsen::matrix::PLANT;
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::node::Launch;
use vulpes_jepsen::wait::within;
use vulpes_jepsen::{Cluster, Said};

use crate::raw::{frame, Raw};

/// How long a load lasts: several times as long as a lease.
const LOAD: Duration = Duration::from_secs(10);

/// Time limit of one event between other nodes, on a busy machine.
const SLOW: Duration = Duration::from_secs(5);

const CONNECT: u8 = 0x10;
const SUBSCRIBE: u8 = 0x82;

/// An MQTT connection whose client does nothing by itself.
async fn connect(address: SocketAddr, name: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&packet(CONNECT, &body(name))).await?;
    welcome(&mut stream).await?;
    Ok(stream)
}

fn body(name: &str) -> Vec<u8> {
    [string("MQTT"), vec![4, 2, 0, 0], string(name)].concat()
}

async fn welcome(stream: &mut TcpStream) -> Result<()> {
    let mut answer = [0; 4];
    within("a welcome", SLOW, async { Ok(stream.read_exact(&mut answer).await?) }).await?;
    ensure!(answer == [0x20, 2, 0, 0], "{answer:02x?} is no welcome");
    Ok(())
}

fn subscribe(number: u16, filter: &str) -> Vec<u8> {
    packet(SUBSCRIBE, &[&number.to_be_bytes()[..], &string(filter), &[0]].concat())
}

/// Sends this over and over and ignores the answers, until it is canceled.
async fn pour(mut stream: TcpStream, bytes: Vec<u8>) -> Result<()> {
    let (mut from, mut to) = stream.split();
    let reading = async {
        let mut thrown = vec![0; 64 << 10];
        while from.read(&mut thrown).await? > 0 {}
        bail!("the node has closed the connection")
    };
    let writing = async {
        loop {
            to.write_all(&bytes).await?;
        }
    };
    tokio::select! { ended = reading => ended, ended = writing => ended }
}

/// The incarnation under which each node's entry has its lease.
async fn leases(cluster: &Cluster) -> Result<Vec<serde_json::Value>> {
    let mut found = Vec::new();
    for node in cluster.nodes() {
        let status = cluster.status(node.id).await?;
        let incarnation = status["entry"]["incarnation"].clone();
        ensure!(incarnation.is_u64(), "node {} has no lease: {status}", node.id);
        found.push(incarnation);
    }
    Ok(found)
}

/// While node 1 is under a load, events go from node 2 to node 3, node 1 answers its operator, and in the end all
/// entries still have their leases.
async fn nobody_else_notices(cluster: &Cluster, mut load: JoinSet<Result<()>>) -> Result<()> {
    let before = leases(cluster).await?;
    let mut publisher = cluster.mqtt(2).await?;
    let mut subscriber = cluster.mqtt(3).await?;
    subscriber.subscribe_below("others").await?;
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    let mut number = 0;
    while began.elapsed() < LOAD {
        let asked = Instant::now();
        publisher.publish_and_wait("others.a", &format!("a-{number}")).await?;
        let seen = subscriber.next_within(SLOW).await.context("between the others")?;
        ensure!(matches!(seen, Said::Event(_)), "{seen:?} instead of event {number}");
        slowest = slowest.max(asked.elapsed());
        number += 1;
        let healthy = within("node 1 answers its operator", SLOW, cluster.page(1, "/healthz"));
        ensure!(healthy.await?.status == 200);
        if let Some(ended) = load.try_join_next() {
            ended??;
        }
        // Leaves some of the processor to the load.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{number} events between others, the slowest in {slowest:?}");
    ensure!(slowest < SLOW, "an event between others took {slowest:?}");
    ensure!(leases(cluster).await? == before, "a lease was lost");
    Ok(())
}

/// The newest term that any node knows of.
async fn term(cluster: &Cluster) -> Result<u64> {
    let mut newest = 0;
    for node in cluster.nodes() {
        let status = cluster.status(node.id).await?;
        let term = status["sync"]["term"].as_u64();
        newest = newest.max(term.with_context(|| format!("no term in {status}"))?);
    }
    Ok(newest)
}

/// A hundred clients flood node 1 with SUBSCRIBEs: no other node is affected, and the sync group keeps its leader.
async fn flood(cluster: &Cluster) -> Result<()> {
    const CLIENTS: usize = 100;
    let filters = (1..=9_000).flat_map(|n| subscribe(n, &format!("flood/{n}/+/x")));
    let flood: Vec<u8> = filters.collect();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(connect(cluster.node(1).mqtt(), &format!("flood-{number}")).await?);
    }
    let mut load = JoinSet::new();
    for stream in clients {
        load.spawn(pour(stream, flood.clone()));
    }
    let before = term(cluster).await?;
    nobody_else_notices(cluster, load).await?;
    let after = term(cluster).await?;
    ensure!(after == before, "a leader was lost: term {before} became {after}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_subscribes_costs_nobody_a_lease() -> Result<()> {
    flood(&crate::cluster().nodes(3).start().await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_on_the_clusters_threads_are_caught() -> Result<()> {
    // How long they block the cluster depends on the machine.
    const TRIES: usize = 4;
    for _ in 0..TRIES {
        let mut cluster = crate::cluster().nodes(3).prepare()?;
        for id in 1..=3 {
            let environment = vec![(PLANT.to_owned(), "ClientsWithTheCluster".to_owned())];
            cluster.node_mut(id).launch(Launch { environment, ..Launch::default() });
            cluster.node_mut(id).start()?;
        }
        cluster.ready().await?;
        if let Err(reason) = flood(&cluster).await {
            println!("caught: {reason:#}");
            return Ok(());
        }
    }
    bail!("nothing is lost with the bug")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_replays_at_once_cost_nobody_a_lease() -> Result<()> {
    const CLIENTS: usize = 100;
    /// More than a node may have in memory.
    const EVENTS: usize = 3 * (24 << 20) / SIZE;
    const SIZE: usize = 32 << 10;
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut publisher = cluster.mqtt(1).await?;
    let text = "x".repeat(SIZE);
    for _ in 0..EVENTS {
        publisher.publish_and_wait("replayed.a", &text).await?;
    }
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(connect(cluster.node(1).mqtt(), &format!("replay-{number}")).await?);
    }
    let mut load = JoinSet::new();
    for mut stream in clients {
        let all = subscribe(1, "$replay/0/replayed/#");
        stream.write_all(&all).await?;
        load.spawn(async move {
            let mut thrown = vec![0; 64 << 10];
            while stream.read(&mut thrown).await? > 0 {}
            bail!("the node has closed the connection")
        });
    }
    nobody_else_notices(&cluster, load).await
}

/// Checks that other nodes are not affected when a client of node 1 produces this load.
async fn nobody_notices_beside<L>(load: fn(SocketAddr) -> L) -> Result<()>
where
    L: Future<Output = Result<()>> + Send + 'static,
{
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut loads = JoinSet::new();
    loads.spawn(load(cluster.node(1).wamp()));
    nobody_else_notices(&cluster, loads).await
}

/// With a few kilobytes, one client can make every node read a large value for each of its publishes.
async fn merges(address: SocketAddr) -> Result<()> {
    let mut client = Raw::wamp(address).await?;
    let retain = json!({ "retain": true, "acknowledge": true });
    client.say(&frame(&json!([16, 1, retain, "load.value", [large()]]).to_string())).await?;
    client.messages(17, 1).await?;
    let merge = json!({ "retain": true, "merge": true, "acknowledge": true });
    let unfit = json!({ "when": { "k7": 2 }, "acknowledge": true });
    let one = |n: usize| {
        let options = if n.is_multiple_of(4) { &unfit } else { &merge };
        frame(&json!([16, n, options, "load.value", [{ "a": n }]]).to_string())
    };
    client.say(&(2..200).flat_map(one).collect::<Vec<u8>>()).await?;
    loop {
        client.message().await?;
    }
}

/// An object of about a mebibyte.
fn large() -> serde_json::Value {
    (0..60_000).map(|n| (format!("k{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merges_into_a_large_value_cost_nobody_a_lease() -> Result<()> {
    nobody_notices_beside(merges).await
}

/// An MQTT client may send any number of publishes in one write, and the node reads them in one go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merges_in_one_write_cost_nobody_a_lease() -> Result<()> {
    const MERGES: u16 = 200;
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut stream = TcpStream::connect(cluster.node(1).mqtt()).await?;
    let properties = [vec![0x26], string("vulpes-merge"), string("true")].concat();
    let publish = |number: u16, properties: &[u8], value: serde_json::Value| {
        let head = [&string("load/value"), &number.to_be_bytes()[..]].concat();
        let length = u8::try_from(properties.len()).unwrap_or_default();
        packet(0x33, &[&head[..], &[length], properties, value.to_string().as_bytes()].concat())
    };
    let connect = [string("MQTT"), vec![5, 2, 0, 0, 0], string("merging")].concat();
    let merges = (2..MERGES).flat_map(|n| publish(n, &properties, json!({ "a": n })));
    let all = [packet(CONNECT, &connect), publish(1, &[], large()), merges.collect()].concat();
    let mut load = JoinSet::new();
    load.spawn(async move {
        stream.write_all(&all).await?;
        let mut thrown = vec![0; 64 << 10];
        while stream.read(&mut thrown).await? > 0 {}
        bail!("the node has closed the connection")
    });
    nobody_else_notices(&cluster, load).await
}

/// Publishes that wait with conditions as large as they may be, of sessions that all leave.
async fn waiters(address: SocketAddr) -> Result<()> {
    let condition: Vec<usize> = (0..4_000).collect();
    let options = json!({ "retain": true, "when": condition, "watch": true, "acknowledge": true });
    for _ in 0..3 {
        let mut sessions = Vec::new();
        for _ in 0..6 {
            let mut client = Raw::wamp(address).await?;
            let one = |n: usize| frame(&json!([16, n, options, "load.line", [n]]).to_string());
            client.say(&(1..=60).flat_map(one).collect::<Vec<u8>>()).await?;
            sessions.push(client);
        }
        // All six together exceed what the node has room for.
        if let Some(last) = sessions.last_mut() {
            let refused = last.messages(8, 1).await?;
            ensure!(refused[0][4] == "vulpes.error.too_many_waits", "{refused:?}");
        }
    }
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_that_wait_and_leave_cost_nobody_a_lease() -> Result<()> {
    nobody_notices_beside(waiters).await
}

/// Sessions with as many wills as they may have, which end.
async fn wills(address: SocketAddr) -> Result<()> {
    let will = json!({ "retain": true, "will": null, "acknowledge": true });
    for _ in 0..2 {
        let mut client = Raw::wamp(address).await?;
        // More than a session may have, and more than it may have unanswered.
        let one =
            |n: usize| frame(&json!([16, n, will, format!("load.will.{n}"), [n]]).to_string());
        client.say(&(1..3 * limits::SESSION_WILLS).flat_map(one).collect::<Vec<u8>>()).await?;
        let refused = client.messages(8, 1).await?;
        ensure!(refused[0][4] == "vulpes.error.too_many_wills", "{refused:?}");
    }
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_with_many_wills_cost_nobody_a_lease() -> Result<()> {
    nobody_notices_beside(wills).await
}

/// Many sessions whose filters have to read large values.
async fn filters(address: SocketAddr) -> Result<()> {
    let mut sessions = Vec::new();
    for _ in 0..100 {
        let mut client = Raw::wamp(address).await?;
        let filter = json!({ "filter": { "k7": 2 } });
        client.say(&frame(&json!([32, 1, filter, "load.filtered"]).to_string())).await?;
        client.messages(33, 1).await?;
        sessions.push(client);
    }
    let mut publisher = Raw::wamp(address).await?;
    let publish = json!([16, 1, { "acknowledge": true }, "load.filtered", [large()]]).to_string();
    loop {
        publisher.say(&frame(&publish)).await?;
        publisher.messages(17, 1).await?;
    }
}

/// They share a node with other clients, which are served in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_on_large_values_leave_room_for_others() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    let mut load = JoinSet::new();
    load.spawn(filters(cluster.node(1).wamp()));
    let mut publisher = cluster.mqtt(1).await?;
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < LOAD {
        let asked = Instant::now();
        publisher.publish_and_wait("others.a", "x").await?;
        slowest = slowest.max(asked.elapsed());
        if let Some(ended) = load.try_join_next() {
            ended??;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("the slowest event of others took {slowest:?}");
    ensure!(slowest < SLOW / 2, "an event of others took {slowest:?}");
    Ok(())
}

/// All clients of a node that ended connect to the other nodes at once, and a busy node accepts them as soon as it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_all_at_once_are_all_accepted() -> Result<()> {
    const CLIENTS: usize = 1500;
    let system = std::fs::read_to_string("/proc/sys/net/core/somaxconn")?.trim().parse()?;
    let clients = CLIENTS.min(system);
    let cluster = crate::cluster().nodes(1).start().await?;
    let address = cluster.node(1).mqtt();
    cluster.node(1).pause().await?;
    let one = |number: usize| async move {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&packet(CONNECT, &body(&format!("back-{number}")))).await?;
        anyhow::Ok(stream)
    };
    let all = try_join_all((0..clients).map(one));
    let mut streams = within("a frozen node's system accepts them", SLOW, all).await?;
    cluster.node(1).resume().await?;
    for stream in &mut streams {
        welcome(stream).await?;
    }
    Ok(())
}

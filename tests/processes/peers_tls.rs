//! Nodes that speak with each other in TLS, as `vulpes init` sets them up: strangers of every kind, certificates and an authority
//! that are replaced under load, handshakes that never end, and a member that was taken over.
//!
//! Invariant: whoever has no certificate of the cluster, or another node's, learns and changes nothing.
//!
//! Deliberately absent: the wording for each bad file, and what each pair of nodes makes of each other, which their modules' own
//! tests have.

mod member;
pub(crate) mod set_up;

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use vulpes::types::limits;
use vulpes_jepsen::client::Said;
use vulpes_jepsen::cluster::REALM;
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::wamp::Wamp;
use vulpes_raft::ids::NodeId;
use vulpes_raft::net::wire::{LinkError, Service, HELLO_TIMEOUT};

use self::set_up::{init, shown, stranger, SetUp};

#[tokio::test]
async fn a_cluster_of_init_serves_and_strangers_get_nothing() -> Result<()> {
    let mut set_up = SetUp::start().await?;
    let cluster = &set_up.cluster;
    cluster.mqtt(1).await?.publish_and_wait("peers.t", "x").await?;
    for node in 1..=3 {
        set_up.dial(2, 2, node, Service::Fetch).await.context("a node itself is let in")?;
    }
    // Of the same name, and with the same numbers.
    let foreign = tempfile::tempdir()?;
    init(foreign.path(), &["--open"])?;
    for node in 1..=3 {
        for service in
            [Service::Raft, Service::Sync, Service::Append, Service::Fetch, Service::Calls]
        {
            let refused = set_up.dial(2, 3, node, service).await;
            let Err(LinkError::Refused(reason)) = refused.map(|_| ()) else {
                anyhow::bail!("node {node} takes node 2's certificate for node 3's: {service}");
            };
            let expected =
                "that of vulpes://test/nodes/2, and it has to be that of vulpes://test/nodes/3";
            ensure!(reason.contains(expected), "{reason}");
            let refused = set_up.dial_from(foreign.path(), 2, 2, node, service).await;
            ensure!(matches!(refused, Err(LinkError::Io(_))), "of another authority");
            let refused = set_up.dial_plainly(2, node, service).await;
            ensure!(refused.is_err(), "without TLS");
        }
        let address = set_up.cluster.node(node).peer();
        let mut stream = stranger(address).await?;
        let mut told = Vec::new();
        let hello = set_up.hello(2);
        let _ = stream.write_all(&hello).await;
        let read =
            within("the node closes", PATIENCE, async { Ok(stream.read_to_end(&mut told).await) });
        ensure!(read.await?.is_err() && told.is_empty(), "without a certificate: {told:?}");
    }
    // The node that it reaches is not the one that it wanted.
    let other = set_up.cluster.node(3).peer().to_string();
    let refused = set_up.dial_at(&other, 2, 1).await.map(|_| ()).unwrap_err().to_string();
    ensure!(
        refused.contains("that of vulpes://test/nodes/3, and it has to be that of"),
        "{refused}"
    );
    set_up.cluster.mqtt(2).await?.publish_and_wait("peers.t", "y").await?;
    set_up.alive()?;
    set_up.cluster.verify(1).await
}

/// Publishes at a node until it is told to stop; returns how many were acknowledged. Every publish has to be.
async fn load(
    address: std::net::SocketAddr,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) -> Result<u64> {
    let mut session = Wamp::connect(address, REALM).await?;
    let mut number = 0;
    while stop.try_recv().is_err() {
        session.publish("peers.load", &number.to_string()).await?;
        let answer = within("an acknowledgement", PATIENCE, session.next()).await?;
        ensure!(matches!(answer, Said::Acknowledged { .. }), "{number}: {answer:?}");
        number += 1;
    }
    Ok(number)
}

/// Waits until new connections to all nodes get another certificate than before.
async fn renewed(set_up: &SetUp, before: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let mut now = Vec::new();
    for (node, before) in set_up.cluster.nodes().iter().zip(before) {
        let address = node.peer();
        let other = || async move {
            let found = shown(address).await?;
            ensure!(found != *before, "it is the same");
            Ok(found)
        };
        now.push(until("a node has another certificate", PATIENCE, other).await?);
    }
    Ok(now)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_the_authority_are_replaced_under_load() -> Result<()> {
    let mut set_up = SetUp::start().await?;
    let mut reader = Wamp::connect(set_up.cluster.node(3).wamp(), REALM).await?;
    reader.subscribe("peers.load", &json!({})).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let loading = tokio::spawn(load(set_up.cluster.node(1).wamp(), stopped));
    let mut certificates = Vec::new();
    for node in set_up.cluster.nodes() {
        certificates.push(shown(node.peer()).await?);
    }
    // Without a signal, and with one.
    for hang_up in [false, true] {
        set_up.certs(&["renew", "--ca", "CA"]).await?;
        if hang_up {
            set_up.hang_up().await?;
        }
        certificates = renewed(&set_up, &certificates).await?;
    }
    // A node that comes back finds the others with their new certificates.
    set_up.cluster.node_mut(2).kill().await?;
    set_up.cluster.restart(2).await?;

    set_up.certs(&["authority", "--cluster", "test", "--dir", "NEW"]).await?;
    let (old, new) = (set_up.authority("ca")?, set_up.authority("new")?);
    let both = format!("{old}{new}");
    set_up.trust(&both).await?;
    set_up.certs(&["renew", "--ca", "NEW"]).await?;
    set_up.hang_up().await?;
    renewed(&set_up, &certificates).await?;
    std::fs::write(set_up.first().join("tls/node2/ca.pem"), &both)?;
    set_up.dial_from(&set_up.first(), 2, 2, 1, Service::Fetch).await?;
    set_up.trust(&new).await?;
    let refused = set_up.dial_from(&set_up.first(), 2, 2, 1, Service::Fetch).await;
    ensure!(refused.is_err(), "what the old authority has signed is worth nothing now");
    set_up.cluster.node_mut(3).kill().await?;
    set_up.cluster.restart(3).await?;
    set_up.certs(&["show"]).await?;

    let _ = stop.send(());
    let acknowledged = within("the load ends", PATIENCE, async { loading.await? }).await?;
    ensure!(acknowledged > 50, "{acknowledged} publishes are no load");
    set_up.cluster.verify(1).await?;
    let mut log = Wamp::connect(set_up.cluster.node(3).wamp(), REALM).await?;
    log.subscribe("peers.load", &json!({ "after": 0 })).await?;
    for number in 0..acknowledged {
        let said = within("an event", PATIENCE, log.next()).await?;
        let Said::Event(seen) = said else { anyhow::bail!("{said:?} instead of {number}") };
        ensure!(seen.payload == number.to_string(), "{seen:?} instead of {number}");
    }
    set_up.alive()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_handshakes_that_stall_leave_the_cluster_alive() -> Result<()> {
    let mut set_up = SetUp::start().await?;
    let mut client = set_up.cluster.mqtt(1).await?;
    let noise: Vec<u8> = (0..0x4000_u32).map(|number| ((number * 7919) >> 3) as u8).collect();
    let record = [&[0x16, 3, 1, 0x40, 0][..], &noise].concat();
    let hello = set_up.hello(2);
    let mut stalled = Vec::new();
    let began = Instant::now();
    for node in set_up.cluster.nodes() {
        // More than may be strangers at a time.
        for number in 0..limits::PEER_STRANGERS + 50 {
            let mut stream = TcpStream::connect(node.peer()).await?;
            let says =
                [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0, 1, 0], &noise, &record, &hello, &[0xff; 9]];
            // It may have been closed by then.
            let _ = stream.write_all(says[number % says.len()]).await;
            stalled.push(stream);
        }
    }
    for number in 0..20 {
        client.publish_and_wait("peers.alive", &number.to_string()).await?;
    }
    for stream in &mut stalled {
        let mut told = Vec::new();
        let read =
            within("it is closed", PATIENCE, async { Ok(stream.read_to_end(&mut told).await) });
        let _ = read.await?;
        // An alert, or nothing.
        ensure!(told.is_empty() || told.first() == Some(&0x15) && told.len() == 7, "{told:?}");
    }
    let took = began.elapsed();
    ensure!(took < HELLO_TIMEOUT + limits::LINGER + Duration::from_secs(10), "{took:?}");
    // Now there is room for nodes again.
    set_up.cluster.node_mut(3).kill().await?;
    set_up.cluster.restart(3).await?;
    client.publish_and_wait("peers.alive", "after").await?;
    set_up.alive()?;
    set_up.cluster.verify(1).await
}

#[tokio::test]
async fn a_member_that_was_taken_over_speaks_only_for_itself() -> Result<()> {
    let mut set_up = SetUp::start().await?;
    let mut client = set_up.cluster.mqtt(1).await?;
    client.publish_and_wait("peers.t", "before").await?;
    for to in [1, 3] {
        for (claim, expected) in [
            ((u64::MAX, 2), "node 2 comes with term 18446744073709551615"),
            ((1 << 40, 2), "node 2 comes with term 1099511627776"),
            ((3, 1), "node 2 speaks for itself, not for node 1"),
            ((u64::MAX, 3), "node 2 speaks for itself, not for node 3"),
        ] {
            let link = set_up.dial_as_member(2, to, Service::Raft).await?;
            for answer in member::answers(link, claim).await? {
                ensure!(answer.contains(expected), "{claim:?} at node {to}: {answer}");
            }
        }
        let link = set_up.dial_as_member(2, to, Service::Sync).await?;
        for answer in member::answers_for(link, NodeId(4 - to)).await? {
            let expected = format!("node 2 speaks for itself, not for node {}", 4 - to);
            ensure!(answer == expected, "at node {to}: {answer}");
        }
    }
    client.publish_and_wait("peers.t", "after").await?;
    let leader = set_up.cluster.leader().await?;
    set_up.cluster.node_mut(leader).kill().await?;
    let other = set_up.cluster.running()[0];
    set_up.cluster.leader().await?;
    set_up.cluster.mqtt(other).await?.publish_and_wait("peers.t", "elected").await?;
    set_up.cluster.restart(leader).await?;
    set_up.alive()?;
    set_up.cluster.verify(other).await
}

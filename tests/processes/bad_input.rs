//! Clients that break every rule: each is refused, and no other client is affected.
//!
//! Invariant: while the tables below are played, good clients of both protocols publish and read at the same node,
//! and none of them may lose anything. The node's memory stays bounded, and the process lives.
//!
//! Deliberately absent: exact answers beyond the protocols' rules; the gates' own tests have those.

mod last_words;
mod mqtt_table;
mod state_table;
mod wamp_table;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use futures::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vulpes_jepsen::history::{check_acknowledged, check_log, check_run};
use vulpes_jepsen::load::{read_log_through, Publisher, Reader};
use vulpes_jepsen::wait::within;
use vulpes_jepsen::Said;

use crate::peer::Peer;

/// A handshake may take 10 seconds; the rest is for a busy machine.
const TURNED_AWAY: Duration = Duration::from_secs(25);

/// Most memory of a node whatever its clients do, in bytes (resident set), in a debug build: the databases' caches,
/// recent bodies, the storage queue, and each connection's own limit.
const MEMORY: u64 = 256 << 20;

/// Bytes that make no sense in any protocol, always the same.
fn garbage(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Sends these parts, each once the other side has answered the one before, and reads until it closes the connection.
/// Returns the last answer.
async fn hangs_up_after(address: SocketAddr, parts: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let mut answer = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        // The other side may close before it has read all of a large part.
        let sent = within("a part is taken", TURNED_AWAY, async {
            let _ = stream.write_all(part).await;
            Ok(())
        });
        sent.await?;
        if index + 1 < parts.len() {
            answer.resize(4096, 0);
            let length =
                within("an answer", TURNED_AWAY, async { Ok(stream.read(&mut answer).await?) });
            let length = length.await?;
            ensure!(length > 0, "hung up on good input");
            answer.truncate(length);
        }
    }
    within("the other side hangs up", TURNED_AWAY, async {
        let mut last = Vec::new();
        // A reset also closes the connection.
        let _ = stream.read_to_end(&mut last).await;
        Ok(last)
    })
    .await
}

#[tokio::test]
async fn bad_clients_harm_nobody() -> Result<()> {
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let readers = [
        Reader::start(cluster.wamp(1).await?, "load").await?,
        Reader::start(cluster.mqtt(1).await?, "load").await?,
    ];
    let publishers = [
        Publisher::start(cluster.wamp(1).await?, "a", "load.a"),
        Publisher::start(cluster.mqtt(1).await?, "b", "load.b"),
    ];

    let (wamp, mqtt) = (cluster.node(1).wamp(), cluster.node(1).mqtt());
    let dropped = wamp_table::dropped_cases();
    let drops = dropped.len();
    let (mqtt_told, raw_told, wamp_told, dropped_told, state_told, refused_told) = tokio::join!(
        join_all(mqtt_table::cases().into_iter().map(|case| case.play(mqtt))),
        join_all(wamp_table::raw_cases().into_iter().map(|case| case.play(wamp))),
        join_all(wamp_table::session_cases().into_iter().map(|case| case.play(wamp))),
        join_all(dropped.into_iter().map(|case| case.play(wamp))),
        join_all(state_table::wamp_cases().into_iter().map(|case| case.play(wamp))),
        join_all(state_table::mqtt_cases().into_iter().map(|case| case.play(mqtt))),
    );
    let told = mqtt_told.into_iter().chain(raw_told).chain(wamp_told).chain(dropped_told);
    let failed: Vec<String> = (told.chain(state_told).chain(refused_told))
        .filter_map(|told| told.err())
        .map(|error| format!("{error:#}"))
        .collect();
    cluster.node_mut(1).check_alive()?;
    ensure!(failed.is_empty(), "{failed:#?}");
    let status = cluster.status(1).await?;
    ensure!(status["entry"]["dropped_messages"] == drops, "{drops} were dropped: {status}");

    let options = json!({ "retainedState": true, "snapshot": true });
    let left = Peer::connect(wamp).await?.snapshot("bad.#", options).await?;
    ensure!(left.is_empty(), "what was refused left {left:?}");

    for publisher in &publishers {
        publisher.next_acknowledged().await.context("good clients go on")?;
    }
    let mut records = Vec::new();
    for publisher in publishers {
        records.push(publisher.finish().await?);
    }
    cluster.wamp(1).await?.publish_and_wait("load.mark", "mark").await?;
    let log = read_log_through(&cluster, 1, "load", "mark").await?;
    check_log(&log)?;
    for record in &records {
        ensure!(record.closed.is_none() && record.refused.is_empty(), "{record:?}");
        check_acknowledged(&log, record)?;
    }
    for reader in &readers {
        let seen = reader.until_seen("mark").await?;
        ensure!(seen.len() == log.len(), "{} of {}", seen.len(), log.len());
        check_run(&log, &seen)?;
    }
    let resident = cluster.node(1).resident()?;
    println!("after all bad clients the node holds {} KiB", resident >> 10);
    ensure!(resident < MEMORY, "the node holds {} KiB", resident >> 10);
    Ok(())
}

#[tokio::test]
async fn the_node_port_takes_no_clients() -> Result<()> {
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let mut publisher = cluster.wamp(1).await?;
    let peer = cluster.node(1).peer();
    for bytes in [garbage(1000), b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0xff; 64], vec![0; 64]] {
        hangs_up_after(peer, std::slice::from_ref(&bytes)).await?;
    }
    cluster.node_mut(1).check_alive()?;
    publisher.publish_and_wait("load.a", "a-0").await?;
    Ok(())
}

#[tokio::test]
async fn readers_that_do_not_read_cost_little() -> Result<()> {
    /// Events of this size in bytes, and this many, are several times what the node may hold.
    const SIZE: usize = 256 << 10;
    const COUNT: usize = 1200;
    /// A reader gets stuck after this many events each time, so that each is at another position of the log.
    const EVERY: usize = 60;
    let cluster = crate::cluster().nodes(1).start().await?;
    let mut publisher = cluster.mqtt(1).await?;
    let text = "x".repeat(SIZE);
    let (mut stuck, mut most) = (Vec::new(), 0);
    for number in 0..COUNT {
        if number % EVERY == 0 {
            for mut client in [cluster.wamp(1).await?, cluster.mqtt(1).await?] {
                client.subscribe_below("load").await?;
                stuck.push((COUNT - number, client));
            }
        }
        publisher.publish_and_wait("load.a", &text).await?;
        most = most.max(cluster.node(1).resident()?);
    }
    println!("{} MiB published, at most {} MiB held", (SIZE * COUNT) >> 20, most >> 20);
    ensure!(most < MEMORY, "the node held {} MiB", most >> 20);
    // A client that starts to read again gets everything.
    for (count, client) in stuck.iter_mut().rev().skip(4).take(2) {
        for number in 0..*count {
            match client.next_within(TURNED_AWAY).await? {
                Said::Event(seen) => ensure!(seen.payload.len() == SIZE),
                other => bail!("{other:?} instead of event {number}"),
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn publishers_that_pour_cost_little() -> Result<()> {
    const SIZE: usize = 256 << 10;
    const COUNT: usize = 400;
    let cluster = crate::cluster().nodes(1).start().await?;
    let mut publishers = [cluster.mqtt(1).await?, cluster.wamp(1).await?];
    let text = "x".repeat(SIZE);
    let mut most = 0;
    for _ in 0..COUNT {
        // As fast as the node accepts it, without reading any answer.
        for publisher in &mut publishers {
            let poured = publisher.publish("load.a", &text);
            within("the node takes more", TURNED_AWAY, poured).await?;
        }
        most = most.max(cluster.node(1).resident()?);
    }
    for publisher in &mut publishers {
        for number in 0..COUNT {
            match publisher.next_within(TURNED_AWAY).await? {
                Said::Acknowledged { .. } => {}
                other => bail!("{other:?} instead of acknowledgement {number}"),
            }
        }
    }
    println!("{} MiB poured, at most {} MiB held", (2 * SIZE * COUNT) >> 20, most >> 20);
    ensure!(most < MEMORY, "the node held {} MiB", most >> 20);
    Ok(())
}

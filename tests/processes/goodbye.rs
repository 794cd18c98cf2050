//! Clients that reconnect at once: their DISCONNECT to the first node takes effect at the node to which they reconnect.
//!
//! Deliberately absent: clients that reconnect because their node is lost (`births`).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure, Result};
use tokio::task::JoinSet;
use tokio::time::timeout;
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Said;

use crate::raw::{connect, Raw};

/// Connects again and again, always under one name; returns only with an error.
async fn come_again(address: SocketAddr, connected: &AtomicUsize) -> Result<()> {
    // A session that outlives its connection.
    let connect = connect("goodbye-storm", 0, 0);
    loop {
        let mut client = Raw::open(address).await?;
        client.send(&connect).await?;
        let (_, body) = within("an answer", PATIENCE, client.packet()).await?;
        if body[1] == 0 {
            connected.fetch_add(1, Ordering::Relaxed);
            // The connection lasts until it is taken over.
            let _ = timeout(PATIENCE, client.packet()).await;
        }
    }
}

/// Regression: with three clients under one name that reconnect at once, each was taken over before it was open. In five
/// seconds, one of thousands was connected.
#[tokio::test]
async fn clients_of_one_name_that_come_again_at_once_are_connected_in_turn() -> Result<()> {
    const CONNECTED: usize = 10;
    let cluster = crate::cluster().nodes(3).start().await?;
    let connected = Arc::<AtomicUsize>::default();
    let mut clients = JoinSet::new();
    for node in 1..=3 {
        let (address, connected) = (cluster.node(node).mqtt(), connected.clone());
        clients.spawn(async move { come_again(address, &connected).await });
    }
    until("they were connected some times", Duration::from_secs(10), || async {
        let connected = connected.load(Ordering::Relaxed);
        ensure!(connected >= CONNECTED, "{connected} times");
        Ok(())
    })
    .await?;
    ensure!(clients.try_join_next().is_none(), "a client was not answered");
    Ok(())
}

/// A CONNECT of MQTT 5 with a retained will, whose session outlives its connection by five minutes.
fn connect_with_will(name: &str) -> Vec<u8> {
    let expiry = [5, 0x11, 0, 0, 1, 44];
    let will = [vec![0], string(&format!("goodbye/{name}")), string("off")].concat();
    let head = [string("MQTT"), vec![5, 0x2c, 0, 0]].concat();
    packet(0x10, &[head, expiry.to_vec(), string(name), will].concat())
}

/// A DISCONNECT that withdraws the will and ends the session.
const GOODBYE: [u8; 9] = [0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0];

/// Regression: some of their wills were published and retained, and some sessions were resumed.
#[tokio::test]
async fn what_a_client_says_at_the_end_counts_where_it_comes_back_at_once() -> Result<()> {
    const CLIENTS: u64 = 60;
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut subscriber = cluster.mqtt(1).await?;
    subscriber.subscribe_below("goodbye").await?;
    let mut resumed = 0_u64;
    for number in 0..CLIENTS {
        let name = format!("back-{number}");
        let mut client =
            Raw::mqtt_with(cluster.node(number % 3 + 1).mqtt(), &connect_with_will(&name)).await?;
        client.send(&GOODBYE).await?;
        if number % 2 == 0 {
            // The node has closed the connection as well.
            ensure!(within("the end", PATIENCE, client.packet()).await.is_err());
        }
        drop(client);
        // At the same node, or at another one.
        let next = cluster.node((number + number / 3 % 3) % 3 + 1);
        let mut client = Raw::open(next.mqtt()).await?;
        client.send(&connect_with_will(&name)).await?;
        let (_, body) = within("a welcome", PATIENCE, client.packet()).await?;
        ensure!(body[1] == 0, "{body:02x?}");
        resumed += u64::from(body[0]);
        client.send(&GOODBYE).await?;
        let _ = within("the end", PATIENCE, client.packet()).await;
    }
    // Any will would have been published before the client reconnected, and so before this.
    cluster.mqtt(2).await?.publish_and_wait("goodbye/end", "end").await?;
    let wills = within("the end", PATIENCE, async {
        for wills in 0.. {
            match subscriber.next().await? {
                Said::Event(event) if event.payload.trim_matches('"') == "end" => return Ok(wills),
                Said::Event(event) => ensure!(event.payload == "off", "{event:?}"),
                other => bail!("{other:?}"),
            }
        }
        Ok(0)
    })
    .await?;
    ensure!((resumed, wills) == (0, 0), "of {CLIENTS}: {resumed} resumed, {wills} wills");
    Ok(())
}

//! A client learns that it is connected only after the wills of its earlier connections.
//!
//! Checked here, at three nodes and in MQTT 3.1.1 and 5: a client with a retained will "offline" drops, is taken over
//! or loses its node to kill -9; its next connection, at another node, publishes "online" right after its CONNACK.
//!
//! Invariant: only the history of the client's topic decides.
//!
//! Deliberately absent: delayed wills, which the fold's own tests have.

use anyhow::{ensure, Context, Result};
use futures::future::try_join_all;
use serde_json::json;
use vulpes_jepsen::mqtt::{packet, string, Mqtt};
use vulpes_jepsen::wait::{within, PATIENCE};
use vulpes_jepsen::Cluster;

use crate::peer::Peer;

/// Connections of each client that follow another one.
const ROUNDS: u64 = 40;

/// Clients that lose their node at once.
const CLIENTS: u64 = 10;

#[derive(Clone, Copy, Debug)]
enum Version {
    V311,
    V5,
}

/// A client's connection, until it is dropped.
struct Life {
    _mqtt: Mqtt,
}

impl Life {
    /// Connects, and publishes as soon as it is connected.
    async fn begin(
        cluster: &Cluster,
        node: u64,
        version: Version,
        (client, number): (&str, u64),
    ) -> Result<Self> {
        let topic = format!("life/{client}");
        let mut mqtt = Mqtt::open(cluster.node(node).mqtt()).await?;
        // An empty list of properties, where the version has one.
        let none: &[u8] = match version {
            Version::V311 => &[],
            Version::V5 => &[0],
        };
        let level = match version {
            Version::V311 => 4,
            Version::V5 => 5,
        };
        let mut connect = string("MQTT");
        // A will at QoS 1 that is retained; every other session outlives its connection.
        connect.extend([level, 0x2c | ((number as u8 & 1) << 1), 0, 0]);
        connect.extend(none);
        connect.extend(string(client));
        connect.extend(none);
        connect.extend(string(&topic));
        connect.extend(string(&format!("offline {number}")));
        mqtt.send(&packet(0x10, &connect)).await?;
        let answer = within("a CONNACK", PATIENCE, mqtt.receive()).await?;
        let (first, body) = answer.context("closed before CONNACK")?;
        ensure!(first == 0x20 && body[1] == 0, "no welcome but {first:#04x} {body:02x?}");
        let mut publish = string(&topic);
        publish.extend([0, 1]);
        publish.extend(none);
        publish.extend(format!("online {number}").as_bytes());
        mqtt.send(&packet(0x33, &publish)).await?;
        let answer = within("a PUBACK", PATIENCE, mqtt.receive()).await?;
        let (first, body) = answer.context("closed before PUBACK")?;
        ensure!(first == 0x40, "no PUBACK but {first:#04x} {body:02x?}");
        Ok(Self { _mqtt: mqtt })
    }
}

/// Checks everything that was published on a client's topic.
async fn judge(cluster: &Cluster, node: u64, client: &str, lives: u64) -> Result<()> {
    let mut peer = Peer::at(cluster, node).await?;
    // After everything that was acknowledged.
    let mark = peer.publish("mark", json!(1), json!({})).await?.ok().context("refused")?;
    let topic = format!("life.{client}");
    let here = json!({ "retainedState": true, "after": mark, "snapshot": true });
    let kept = peer.snapshot(&topic, here).await?;
    let last = format!("online {}", lives - 1);
    ensure!(kept.len() == 1 && kept[0].0 == last.as_str(), "{client} ends as {kept:?}");
    let all = peer.snapshot(&topic, json!({ "after": 0, "snapshot": true })).await?;
    let texts: Vec<&str> = all.iter().filter_map(|(value, _)| value.as_str()).collect();
    let places = |text: String| texts.iter().position(|t| *t == text);
    for number in 1..lives {
        let will = places(format!("offline {}", number - 1));
        let birth = places(format!("online {number}"));
        ensure!(will.is_some() && will < birth, "{client}: {will:?} is not before {birth:?}");
    }
    ensure!(texts.len() as u64 == 2 * lives - 1, "{client}: {texts:?}");
    Ok(())
}

async fn by_turns(version: Version, take_over: bool) -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut last: Option<Life> = None;
    for number in 0..=ROUNDS {
        let before = last.take().filter(|_| take_over);
        let life = Life::begin(&cluster, number % 3 + 1, version, ("c", number)).await;
        last = Some(life.with_context(|| format!("life {number}"))?);
        drop(before);
    }
    judge(&cluster, 1, "c", ROUNDS + 1).await?;
    drop(last);
    cluster.verify(1).await
}

#[tokio::test]
async fn a_will_comes_before_the_next_birth_of_a_client_that_drops() -> Result<()> {
    by_turns(Version::V311, false).await?;
    by_turns(Version::V5, false).await
}

#[tokio::test]
async fn a_will_comes_before_the_birth_of_the_one_that_takes_over() -> Result<()> {
    by_turns(Version::V311, true).await?;
    by_turns(Version::V5, true).await
}

#[tokio::test]
async fn a_will_comes_before_the_next_birth_when_the_node_is_killed() -> Result<()> {
    for version in [Version::V311, Version::V5] {
        let mut cluster = crate::cluster().nodes(3).start().await?;
        let names: Vec<String> = (0..CLIENTS).map(|client| format!("c{client}")).collect();
        let lives = ROUNDS / CLIENTS + 1;
        let mut last = Vec::new();
        for number in 0..lives {
            let node = number % 3 + 1;
            let all = names.iter().map(|name| Life::begin(&cluster, node, version, (name, number)));
            let all = within("all are there", PATIENCE, try_join_all(all)).await;
            last = all.with_context(|| format!("lives {number}"))?;
            if number > 0 {
                cluster.restart((number - 1) % 3 + 1).await?;
            }
            if number + 1 < lives {
                cluster.node_mut(node).kill().await?;
            }
        }
        for name in &names {
            judge(&cluster, 1, name, lives).await?;
        }
        drop(last);
        cluster.verify(1).await?;
    }
    Ok(())
}

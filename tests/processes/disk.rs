//! Disks that run low: publishes are refused before a disk is full, at every node, and all else goes on.
//!
//! The mark is set above what is free, and back, on nodes that run.
//!
//! Invariant: whatever was acknowledged is there, and what was refused is not.
//!
//! Deliberately absent: disks that are full (`damage`).

use std::process::Command;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use vulpes_jepsen::code::{ERROR, EVENT, PUBLISHED, SUBSCRIBED};
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;

use crate::raw::{connect, frame, Raw};

const URI: &str = "vulpes.error.disk_full";

/// More than any disk has free.
const NEVER_ENOUGH: &str = "\"100 %\"";

/// Sets the mark of a node that runs.
fn set_mark(cluster: &Cluster, node: u64, mark: &str) -> Result<()> {
    let text = cluster.config_of(node)?;
    let me = cluster.node(node);
    me.configure(&format!("{text}\n[disk]\nlow_water = {mark}\n"))?;
    let hangup = Command::new("kill").arg("-HUP").arg(me.process()?.to_string()).status()?;
    ensure!(hangup.success(), "{hangup}");
    Ok(())
}

/// Waits until a node refuses publishes because of these storages.
async fn refuses(cluster: &Cluster, node: u64, low: &[u64]) -> Result<()> {
    until("the node knows of the disks", PATIENCE, || async move {
        let status = cluster.status(node).await?;
        let found = status["entry"].get("refuses_for_disks").cloned().unwrap_or(json!([]));
        ensure!(found == json!(low), "{found}");
        Ok(())
    })
    .await
}

/// The answer to a WAMP request.
async fn answer(raw: &mut Raw, request: Value) -> Result<Value> {
    raw.send(&frame(&request.to_string())).await?;
    within("an answer", PATIENCE, raw.message()).await
}

fn publish(request: u64, options: Value) -> Value {
    let mut all = json!({ "acknowledge": true });
    all.as_object_mut().into_iter().for_each(|all| {
        all.extend(options.as_object().cloned().unwrap_or_default());
    });
    json!([16, request, all, "disk.n", [request]])
}

/// A CONNECT of MQTT 5, with a clean start.
fn connect_5(name: &str) -> Vec<u8> {
    packet(0x10, &[string("MQTT"), vec![5, 2, 0, 0, 0], string(name)].concat())
}

/// A PUBLISH of QoS 1 or 0 to `disk/n`.
fn publish_mqtt(level: u8, id: Option<u16>) -> Vec<u8> {
    let mut body = string("disk/n");
    body.extend(id.map(u16::to_be_bytes).into_iter().flatten());
    body.extend((level == 5).then_some(0));
    body.push(b'7');
    packet(if id.is_some() { 0x32 } else { 0x30 }, &body)
}

async fn mqtt(cluster: &Cluster, node: u64, connect: &[u8]) -> Result<Raw> {
    let mut raw = Raw::open(cluster.node(node).mqtt()).await?;
    raw.send(connect).await?;
    let (first, body) = within("a CONNACK", PATIENCE, raw.packet()).await?;
    ensure!(first == 0x20 && body[1] == 0, "{body:?}");
    Ok(raw)
}

#[tokio::test]
async fn a_low_disk_stops_publishes_at_every_node_and_nothing_else() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut other = Raw::wamp(cluster.node(1).wamp()).await?;
    let kept = answer(&mut other, publish(1, json!({ "retain": true }))).await?;
    ensure!(kept[0] == PUBLISHED, "{kept}");
    let subscribed = answer(&mut other, json!([32, 2, {}, "disk.n"])).await?;
    ensure!(subscribed[0] == SUBSCRIBED, "{subscribed}");
    let mut five = mqtt(&cluster, 2, &connect_5("five")).await?;
    let mut old = mqtt(&cluster, 1, &connect("old", 2, 0)).await?;

    set_mark(&cluster, 3, NEVER_ENOUGH)?;
    for node in [1, 2, 3] {
        refuses(&cluster, node, &[3]).await?;
    }
    // The answers come in order, and the client may go on.
    for request in [3, 4] {
        let refused = answer(&mut other, publish(request, json!({}))).await?;
        ensure!(refused[0] == ERROR && refused[4] == URI, "{refused}");
        ensure!(refused[5][0].as_str().is_some_and(|text| text.contains("runs low")), "{refused}");
    }
    five.send(&[publish_mqtt(5, None), publish_mqtt(5, Some(9))].concat()).await?;
    let (first, body) = within("a PUBACK", PATIENCE, five.packet()).await?;
    ensure!(first == 0x40 && body[..3] == [0, 9, 0x97], "{body:?}");
    // MQTT 3.1.1 has no such answer: no PUBACK, and the connection ends. QoS 0 is dropped.
    old.send(&[publish_mqtt(4, None), packet(0xc0, &[])].concat()).await?;
    let (first, _) = within("a PINGRESP", PATIENCE, old.packet()).await?;
    ensure!(first == 0xd0, "{first:x}");
    old.send(&publish_mqtt(4, Some(1))).await?;
    let ended = within("the end", PATIENCE, old.packet()).await;
    ensure!(ended.is_err(), "{ended:?}");
    // Sessions begin and end, and the log is read.
    let mut reader = Raw::wamp(cluster.node(2).wamp()).await?;
    let retained = json!({ "retained": true, "snapshot": true });
    answer(&mut reader, json!([32, 1, retained, "disk.n"])).await?;
    let value = within("a value", PATIENCE, reader.message()).await?;
    ensure!(value[0] == EVENT && value[4] == json!([1]), "{value}");
    let page = cluster.page(1, "/readyz").await?;
    ensure!(page.status == 200, "a node with a low disk serves readers");

    set_mark(&cluster, 3, "0")?;
    for node in [1, 2] {
        refuses(&cluster, node, &[]).await?;
    }
    five.send(&publish_mqtt(5, Some(10))).await?;
    let (first, body) = within("a PUBACK", PATIENCE, five.packet()).await?;
    ensure!(first == 0x40 && (body.len() == 2 || body[2] == 0), "{body:?}");
    let event = within("an event", PATIENCE, other.message()).await?;
    ensure!(event[0] == EVENT && event[4] == json!([7]), "what was refused is not there: {event}");
    cluster.verify(1).await.context("the logs are one")
}

/// Who has no other way out stops the node: a storage that does not answer does not count.
#[tokio::test]
async fn a_storage_that_is_gone_is_not_low() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    set_mark(&cluster, 3, NEVER_ENOUGH)?;
    refuses(&cluster, 1, &[3]).await?;
    cluster.node_mut(3).stop().await?;
    refuses(&cluster, 1, &[]).await?;
    cluster.mqtt(1).await?.publish_and_wait("disk.n", "x").await?;
    Ok(())
}

/// One node that has no more room for its own is refused alike.
#[tokio::test]
async fn a_single_node_says_so_and_goes_on() -> Result<()> {
    let settings = format!("[disk]\nlow_water = {NEVER_ENOUGH}");
    let cluster = crate::cluster().nodes(1).settings(&settings).start().await?;
    refuses(&cluster, 1, &[1]).await?;
    let status = cluster.status(1).await?;
    ensure!(status["storage"]["disk_low"] == true, "{status}");
    let mut wamp = Raw::wamp(cluster.node(1).wamp()).await?;
    let refused = answer(&mut wamp, publish(1, json!({}))).await?;
    ensure!(refused[4] == URI, "{refused}");
    let log = std::fs::read_to_string(cluster.node(1).folder().join("log"))?;
    ensure!(log.contains("the disk runs low") && log.contains("low_water"), "{log}");
    Ok(())
}

//! Limits at their edge: a client requests as much as is allowed in one write, and then one more.
//!
//! Invariant: at a limit everything is granted; past it only the excess is refused. In both cases the client, the node and all
//! other clients continue. Every limit of a single client has a line in [`LIMITS`]: a new limit is either tested here, or its
//! line gives the reason why not.
//!
//! Deliberately absent: input below a limit that breaks other rules (`bad_input`), and the lengths of topics.

use std::collections::BTreeSet;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use vulpes::types::limits;
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::wait::{within, PATIENCE};
use vulpes_jepsen::Cluster;

use crate::raw::{connect, frame, Raw};

/// Where a client's limit is tested at its edge.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    /// In this file.
    Here,
    /// In the tests of its own module, because a single client can't reach it, or not within a test's time.
    Elsewhere,
    /// Nowhere: it only slows a client down, and is never visible to it.
    Pace,
}

use Edge::{Elsewhere, Here, Pace};

/// Prefixes of the limits that one client can reach.
const OF_CLIENTS: [&str; 5] = ["SESSION_", "CALLEE_", "CONDITION", "PAYLOAD_", "WAMP_"];

const LIMITS: &[(&str, Edge)] = &[
    ("PAYLOAD_DEPTH", Here),
    ("CONDITION", Here),
    ("CONDITION_VALUES", Here),
    ("CONDITION_DEPTH", Here),
    ("SESSION_FILTERS", Here),
    ("WAMP_SILENCE", Elsewhere),
    ("SESSION_STALLED", Elsewhere),
    ("SESSION_SUBSCRIPTIONS", Here),
    ("SESSION_PATTERNS", Here),
    ("SESSION_STATES_BYTES", Elsewhere),
    ("SESSION_EXCHANGES", Elsewhere),
    ("SESSION_UNANSWERED", Here),
    ("SESSION_UNANSWERED_BYTES", Elsewhere),
    ("SESSION_BATCHES", Pace),
    ("SESSION_OUTPUT", Elsewhere),
    ("SESSION_OUTPUT_MOST", Elsewhere),
    ("SESSION_READ", Pace),
    ("SESSION_READ_AHEAD", Pace),
    ("SESSION_DELIVERIES", Pace),
    ("SESSION_WILLS", Elsewhere),
    ("SESSION_WAITS", Here),
    ("SESSION_WAIT_BYTES", Elsewhere),
    ("SESSION_REGISTRATIONS", Here),
    ("SESSION_REGISTERS", Here),
    ("SESSION_FILTER_CHANGES", Here),
    ("SESSION_SIGNALS", Pace),
    ("SESSION_CALLS", Here),
    ("SESSION_CALL_BYTES", Elsewhere),
    ("CALLEE_CALLS", Here),
    ("CALLEE_BYTES", Elsewhere),
    ("CALLEE_UNAWARE", Pace),
];

#[test]
fn every_limit_of_a_client_has_its_edge() {
    let text = include_str!("../../src/types/limits.rs");
    let declared: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'))
        .map(|(name, _)| name)
        .filter(|name| OF_CLIENTS.iter().any(|begins| name.starts_with(begins)))
        .collect();
    let listed: BTreeSet<&str> = LIMITS.iter().map(|(name, _)| *name).collect();
    assert_eq!(declared, listed);
}

/// A SUBSCRIBE of MQTT 3.1.1 for `count` filters that begin with `begins`.
fn subscribe(begins: &str, count: usize) -> Vec<u8> {
    let mut body = vec![0, 1];
    for number in 0..count {
        body.extend(string(&format!("{begins}/{number}")));
        body.push(1);
    }
    packet(0x82, &body)
}

fn unsubscribe(begins: &str, count: usize) -> Vec<u8> {
    let mut body = vec![0, 2];
    (0..count).for_each(|number| body.extend(string(&format!("{begins}/{number}"))));
    packet(0xa2, &body)
}

/// WAMP messages in one write.
fn frames(messages: impl Iterator<Item = Value>) -> Vec<u8> {
    messages.flat_map(|message| frame(&message.to_string())).collect()
}

async fn next_packet(client: &mut Raw, wanted: u8) -> Result<Vec<u8>> {
    within("a packet", PATIENCE, async {
        loop {
            let (first, body) = client.packet().await?;
            if first & 0xf0 == wanted {
                return Ok(body);
            }
        }
    })
    .await
}

/// Publishes to a topic from another session.
async fn publish(cluster: &Cluster, topic: &str) -> Result<()> {
    cluster.mqtt(1).await?.publish_and_wait(topic, "x").await?;
    Ok(())
}

#[tokio::test]
async fn one_subscribe_of_mqtt_may_have_as_many_filters_as_a_session() -> Result<()> {
    const MOST: usize = limits::SESSION_SUBSCRIPTIONS;
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let address = cluster.node(1).mqtt();
    publish(&cluster, "edge/1/1").await?;
    // A session that ends with its connection, a persistent one, and replays of everything.
    let table =
        [("plain", 2_u8, "edge/1"), ("kept", 0, "edge/1"), ("replays", 2, "$replay/0/edge/1")];
    for (name, flags, begins) in table {
        for count in [MOST, MOST + 1] {
            let mut client = Raw::mqtt_with(address, &connect(name, flags, 0)).await?;
            client.say(&subscribe(begins, count)).await?;
            let body = next_packet(&mut client, 0x90).await.context(name)?;
            let refused = body[2..].iter().filter(|code| **code == 0x80).count();
            ensure!(body.len() == count + 2, "{name}: {} codes", body.len() - 2);
            ensure!(refused == count - MOST, "{name}: {refused} of {count} are refused");
            publish(&cluster, &format!("edge/1/{}", MOST - 1)).await?;
            let body = next_packet(&mut client, 0x30).await.context(name)?;
            ensure!(body[2..].starts_with(b"edge/1/"), "{name}: {body:02x?}");
            client.say(&unsubscribe(begins, count)).await?;
            next_packet(&mut client, 0xb0).await.context(name)?;
            client.say(&packet(0xe0, &[])).await?;
            cluster.node_mut(1).check_alive()?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn as_many_wamp_subscriptions_come_in_one_write() -> Result<()> {
    const MOST: usize = limits::SESSION_SUBSCRIPTIONS;
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let address = cluster.node(1).wamp();
    publish(&cluster, "edge/1").await?;
    let table = [
        json!({}),
        json!({ "retainedState": true }),
        json!({ "retained": true }),
        json!({ "after": 0 }),
        json!({ "after": 0, "snapshot": true }),
        json!({ "retainedState": true, "snapshot": true }),
    ];
    for options in table {
        for more in [0, 1] {
            let mut client = Raw::wamp(address).await?;
            let count = MOST + more;
            let asked = (0..count).map(|number| {
                // Only one of these subscriptions finds a retained value.
                json!([32, number + 1, options, format!("edge.{number}")])
            });
            client.say(&frames(asked)).await?;
            let snapshot = options.get("snapshot").is_some();
            let told = client.messages(33, if snapshot { 1 } else { MOST }).await;
            let told = told.with_context(|| options.to_string())?;
            if more > 0 && !snapshot {
                // Refused at once, before the subscription exists.
                let subscription = told[7][2].clone();
                client.say(&frame(&json!([34, count + 1, subscription]).to_string())).await?;
                client.messages(35, 1).await.with_context(|| options.to_string())?;
            }
            cluster.node_mut(1).check_alive()?;
        }
    }
    // Only this one is refused: existing subscriptions continue.
    let mut client = Raw::wamp(address).await?;
    let asked = (0..=MOST).map(|number| json!([32, number + 1, {}, format!("edge.{number}")]));
    client.say(&frames(asked)).await?;
    let refused = client.messages(8, 1).await?;
    ensure!(refused[0][2] == MOST + 1, "{refused:?}");
    client.messages(33, MOST).await?;
    publish(&cluster, &format!("edge/{}", MOST - 1)).await?;
    client.messages(36, 1).await?;
    Ok(())
}

#[tokio::test]
async fn as_many_registrations_come_in_one_write() -> Result<()> {
    const MOST: usize = limits::SESSION_REGISTRATIONS;
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let mut client = Raw::wamp(cluster.node(1).wamp()).await?;
    let asked = (0..=MOST).map(|number| json!([64, number + 1, {}, format!("edge.{number}")]));
    client.say(&frames(asked)).await?;
    let stand = client.messages(65, MOST).await?;
    let refused = client.messages(8, 1).await?;
    ensure!(refused[0][2] == MOST + 1, "{refused:?}");
    // One registration is withdrawn, so there is room for another one.
    let again = [json!([66, MOST + 2, stand[0][2]]), json!([64, MOST + 3, {}, "edge.again"])];
    client.say(&frames(again.into_iter())).await?;
    client.messages(67, 1).await?;
    client.messages(65, 1).await?;
    cluster.node_mut(1).check_alive()?;
    // All registrations end with the session, and their procedures are free again.
    drop(client);
    let mut next = Raw::wamp(cluster.node(1).wamp()).await?;
    within("a procedure is free", PATIENCE, async {
        for request in 1.. {
            next.say(&frame(&json!([64, request, {}, "edge.7"]).to_string())).await?;
            if next.message().await?[0] == 65 {
                break;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn as_many_publishes_and_calls_wait_at_once() -> Result<()> {
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let address = cluster.node(1).wamp();
    let mut holder = Raw::wamp(address).await?;
    let lock =
        json!({ "acknowledge": true, "retain": true, "when": null, "watch": true, "will": null });
    holder.say(&frame(&json!([16, 1, lock, "edge.lock", [1]]).to_string())).await?;
    holder.messages(17, 1).await?;
    let mut waiting = Raw::wamp(address).await?;
    let most = limits::SESSION_WAITS;
    let asked = (0..=most).map(|number| json!([16, number + 1, lock, "edge.lock", [number]]));
    waiting.say(&frames(asked)).await?;
    let refused = waiting.messages(8, 1).await?;
    ensure!(refused[0][2] == most + 1, "{refused:?}");
    holder.say(&frame(&json!([16, 2, { "retain": true }, "edge.lock", []]).to_string())).await?;
    waiting.messages(17, 1).await?;

    // A callee that answers nothing: each caller's calls wait, and all together at the callee.
    let mut callee = Raw::wamp(address).await?;
    callee.say(&frame(&json!([64, 1, { "concurrency": 1 }, "edge.slow"]).to_string())).await?;
    callee.messages(65, 1).await?;
    let mut callers = Vec::new();
    let calls = limits::SESSION_CALLS;
    for _ in 0..limits::CALLEE_CALLS / calls {
        let mut caller = Raw::wamp(address).await?;
        let asked = (0..=calls).map(|number| json!([48, number + 1, {}, "edge.slow", [number]]));
        caller.say(&frames(asked)).await?;
        let refused = caller.messages(8, 1).await?;
        ensure!(refused[0][2] == calls + 1 && refused[0][4] == "vulpes.error.too_many_calls");
        callers.push(caller);
    }
    let mut last = Raw::wamp(address).await?;
    last.say(&frame(&json!([48, 1, {}, "edge.slow"]).to_string())).await?;
    let refused = last.messages(8, 1).await?;
    ensure!(refused[0][4] == "vulpes.error.callee_busy", "{refused:?}");
    drop(callee);
    for caller in &mut callers {
        caller.messages(8, calls).await?;
    }
    cluster.node_mut(1).check_alive()
}

#[tokio::test]
async fn more_publishes_than_may_be_unanswered_come_in_one_write() -> Result<()> {
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let mut client = Raw::mqtt(cluster.node(1).mqtt(), "pours").await?;
    // MQTT 3.1.1 has no receive maximum: instead, the node stops reading the socket for a while.
    let count = limits::SESSION_UNANSWERED as u16 + 1000;
    let mut bytes = Vec::new();
    for number in 1..=count {
        bytes.extend(packet(0x32, &[string("edge/pour"), number.to_be_bytes().to_vec()].concat()));
    }
    client.say(&bytes).await?;
    for number in 1..=count {
        let body = next_packet(&mut client, 0x40).await?;
        ensure!(body == number.to_be_bytes(), "{body:02x?} instead of {number}");
    }
    cluster.node_mut(1).check_alive()
}

/// A value of lists that are nested `depth` levels deep.
fn deep(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

#[tokio::test]
async fn values_may_be_as_large_as_their_limits() -> Result<()> {
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let publish = |payload: &str| format!("[16,7,{{\"acknowledge\":true}},\"edge.t\",{payload}]");
    let when =
        |value: &str| format!("[16,7,{{\"acknowledge\":true,\"when\":{value}}},\"edge.t\",[1]]");
    let filter = |value: &str| format!("[32,7,{{\"filter\":{value}}},\"edge.t\"]");
    let many = |count: usize| format!("[{}]", vec!["1"; count - 1].join(","));
    let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    // The answers at the limit, and past it.
    let table = [
        (
            "depth",
            publish(&deep(limits::PAYLOAD_DEPTH)),
            publish(&deep(limits::PAYLOAD_DEPTH + 1)),
            17,
        ),
        (
            "when, depth",
            when(&deep(limits::CONDITION_DEPTH)),
            when(&deep(limits::CONDITION_DEPTH + 1)),
            0,
        ),
        (
            "when, values",
            when(&many(limits::CONDITION_VALUES)),
            when(&many(limits::CONDITION_VALUES + 1)),
            0,
        ),
        ("when, bytes", when(&long(limits::CONDITION)), when(&long(limits::CONDITION + 1)), 0),
        (
            "filter, depth",
            filter(&deep(limits::CONDITION_DEPTH)),
            filter(&deep(limits::CONDITION_DEPTH + 1)),
            33,
        ),
        (
            "filter, bytes",
            filter(&long(limits::CONDITION)),
            filter(&long(limits::CONDITION + 1)),
            33,
        ),
    ];
    for (name, at, past, granted) in table {
        let mut client = Raw::wamp(cluster.node(1).wamp()).await?;
        client.say(&frame(&at)).await?;
        let told = within(name, PATIENCE, client.message()).await?;
        // A condition of this size fits no value, which is decided only in the order.
        let undecided = told[0] == 8 && told[4] == "fox.error.not_accepted";
        ensure!(told[0] == granted || (granted == 0 && undecided), "{name}: {told}");
        client.say(&frame(&past)).await?;
        let told = within(name, PATIENCE, client.message()).await?;
        ensure!(
            (told[0] == 8 || told[0] == 3) && told[4] != "fox.error.not_accepted",
            "{name}: {told}"
        );
        cluster.node_mut(1).check_alive()?;
    }
    filters_have_a_size_together(&cluster).await
}

/// Subscribes with conditions until a session has no room for one more.
async fn filters_have_a_size_together(cluster: &Cluster) -> Result<()> {
    let mut client = Raw::wamp(cluster.node(1).wamp()).await?;
    let text = "x".repeat(limits::CONDITION / 2);
    let asked = (1..=limits::SESSION_FILTERS / text.len())
        .map(|request| json!([32, request, { "filter": text }, "edge.f"]));
    client.say(&frames(asked)).await?;
    let refused = client.messages(8, 1).await?;
    ensure!(refused[0][4] == "vulpes.error.too_large_filters", "{refused:?}");
    client.say(&frame(&json!([32, 1000, {}, "edge.f"]).to_string())).await?;
    loop {
        if client.messages(33, 1).await?[0][1] == 1000 {
            return Ok(());
        }
    }
}

/// The patterns of a session's subscriptions reach their common limit of bytes in one write; patterns with many levels and
/// wildcards count sixteen times.
#[tokio::test]
async fn patterns_have_a_size_together() -> Result<()> {
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let longest = limits::TOPIC;
    let plain = |number: usize| format!("{number:02}{}", "x".repeat(longest - 2));
    let full: Vec<String> = (0..limits::SESSION_PATTERNS / longest).map(plain).collect();
    let deep = "+/".repeat(longest / 2) + "+";
    let rest = "r".repeat(limits::SESSION_PATTERNS % longest);
    for fill in [&full[..], &[deep]] {
        let mut client = Raw::mqtt(cluster.node(1).mqtt(), "patterns").await?;
        let mut body = vec![0, 1];
        let filters = fill.iter().chain([&rest]).map(String::as_str);
        for filter in filters.chain(["x"]) {
            body.extend([string(filter), vec![1]].concat());
        }
        client.say(&packet(0x82, &body)).await?;
        let codes = next_packet(&mut client, 0x90).await?.split_off(2);
        let (last, granted) = codes.split_last().context("no codes")?;
        ensure!(*last == 0x80 && granted.iter().all(|code| *code == 1), "{codes:02x?}");
    }
    let mut client = Raw::wamp(cluster.node(1).wamp()).await?;
    let topics = full.iter().chain([&rest]).map(String::as_str).chain(["x"]);
    let asked = (1..).zip(topics).map(|(request, topic)| json!([32, request, {}, topic]));
    client.say(&frames(asked)).await?;
    let refused = client.messages(8, 1).await?;
    ensure!(refused[0][2] == full.len() + 2, "{refused:?}");
    client.messages(33, full.len() + 1).await?;
    cluster.node_mut(1).check_alive()
}

/// In JSON it is six times as large as it was sent, because each byte becomes an escape.
#[tokio::test]
async fn the_largest_event_arrives_in_json() -> Result<()> {
    const LENGTH: usize = limits::EVENT - 100;
    let cluster = crate::cluster().nodes(1).start().await?;
    let address = cluster.node(1).wamp();
    let subscribe = frame(&json!([32, 1, { "retained": true }, "edge.json"]).to_string());
    let mut live = Raw::wamp(address).await?;
    live.say(&subscribe).await?;
    live.messages(33, 1).await?;
    let mut client = Raw::mqtt(cluster.node(1).mqtt(), "escapes").await?;
    let head = [string("edge/json"), vec![0, 1]].concat();
    client.say(&packet(0x33, &[head, vec![0x1b; LENGTH]].concat())).await?;
    let (first, _) = within("an acknowledgement", PATIENCE, client.packet()).await?;
    ensure!(first == 0x40, "{first:02x}");
    let mut late = Raw::wamp(address).await?;
    late.say(&subscribe).await?;
    for mut reader in [live, late] {
        let event = reader.messages(36, 1).await?;
        let text = event[0][4][0].as_str().context("no text")?;
        ensure!(text.len() == LENGTH, "{} bytes", text.len());
    }
    Ok(())
}

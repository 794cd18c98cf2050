//! Subscriptions that begin with retained values, at random moments, while these values change: first the values as of one
//! position in the log, then each later change once.
//!
//! `VULPES_JOINS=10000` raises the number of subscriptions.
//!
//! Invariant: every payload is unique, so that it identifies an event in both protocols. What a subscription saw is
//! compared with the log, which is read at the end.
//!
//! Deliberately absent: nodes that die (`simulation`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value};
use tokio::sync::watch;
use tokio::time::Instant;
use vulpes_jepsen::cluster::REALM;
use vulpes_jepsen::load::read_log_through;
use vulpes_jepsen::mqtt::{packet, string, Mqtt};
use vulpes_jepsen::wait::within;
use vulpes_jepsen::wamp::Wamp;
use vulpes_jepsen::Seen;

use crate::peer::Peer;

/// Subscriptions in an ordinary run.
const JOINS: usize = 300;

/// Subscriptions that one connection makes, one after the other.
const EACH: usize = 30;

/// Topics that have a value, or had one.
const TOPICS: u64 = 40;

/// Writers, and the time between two changes that one of them makes.
const WRITERS: u64 = 12;
const PACE: Duration = Duration::from_millis(15);

/// Time limit of one subscription; a busy machine runs many of them at once.
const PATIENCE: Duration = Duration::from_secs(120);

const MARK: &str = "mark";

/// An event as a subscription saw it: its payload, empty if a value was deleted.
type Got = (String, String);

/// What one subscription saw.
#[derive(Debug, Default)]
struct Seeing {
    values: Vec<Got>,
    changes: Vec<Got>,
}

impl Seeing {
    fn got(&mut self, retained: bool, got: Got) -> Result<()> {
        if retained {
            ensure!(self.changes.is_empty(), "{got:?} came behind {:?}", self.changes);
            self.values.push(got);
        } else {
            self.changes.push(got);
        }
        Ok(())
    }
}

/// Changes a topic's value again and again, or deletes it, until it is stopped.
async fn writer(at: SocketAddr, number: u64, stopped: watch::Receiver<bool>) -> Result<()> {
    let mut peer = Peer::connect(at).await?;
    for count in 0_u64.. {
        let topic = format!("join.t{}", (count * 7 + number * 13) % TOPICS);
        let value = match count % 10 {
            9 => Value::Null,
            _ => json!(format!("{number}/{count}")),
        };
        let written = peer.publish(&topic, value, json!({ "retain": true })).await?;
        written.map_err(|uri| anyhow::anyhow!("a change was refused: {uri}"))?;
        if *stopped.borrow() {
            break;
        }
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

/// How many changes a subscription sees before it ends.
fn wanted(number: usize) -> usize {
    1 + number * 7 % 5
}

async fn join_wamp(at: SocketAddr, joins: usize) -> Result<Vec<Seeing>> {
    let mut wamp = Wamp::connect(at, REALM).await?;
    let (mut all, mut request) = (Vec::new(), 0);
    for number in 0..joins {
        request += 1;
        // Each subscription uses one of the equivalent options.
        let (topic, options) = match number % 3 {
            0 => ("join.*", json!({ "retainedState": true })),
            1 => ("join.", json!({ "match": "prefix", "get_retained": true })),
            _ => ("join.#", json!({ "retainedState": true, "after": 1 })),
        };
        wamp.send(&json!([32, request, options, topic])).await?;
        let mut seeing = Seeing::default();
        let mut subscription = Value::Null;
        while seeing.changes.len() < wanted(number) {
            let message = wamp.receive().await?.context("the node hung up")?;
            match message[0].as_u64() {
                Some(33) => subscription = message[2].clone(),
                Some(36) => {
                    ensure!(message[1] == subscription, "an event of another subscription");
                    let topic = message[3]["topic"].as_str().context("no topic")?.to_owned();
                    let payload = message[4][0].as_str().unwrap_or_default().to_owned();
                    seeing.got(message[3]["retained"] == true, (topic, payload))?;
                }
                _ => bail!("unexpected {message}"),
            }
        }
        all.push(seeing);
        request += 1;
        wamp.send(&json!([34, request, subscription])).await?;
        loop {
            let message = wamp.receive().await?.context("the node hung up")?;
            match message[0].as_u64() {
                Some(35) => break,
                Some(36) => {}
                _ => bail!("unexpected {message}"),
            }
        }
    }
    Ok(all)
}

async fn join_mqtt(at: SocketAddr, joins: usize) -> Result<Vec<Seeing>> {
    let mut mqtt = Mqtt::connect(at).await?;
    let mut all = Vec::new();
    for number in 0..joins {
        let mut body = vec![0, 1];
        body.extend(string("join/#"));
        // QoS 0: this test judges the contents, not the delivery.
        let unsubscribe = packet(0xa2, &body);
        body.push(0);
        mqtt.send(&packet(0x82, &body)).await?;
        let mut seeing = Seeing::default();
        while seeing.changes.len() < wanted(number) {
            let (first, body) = mqtt.receive().await?.context("the node hung up")?;
            match first & 0xf0 {
                0x90 => ensure!(body == [0, 1, 0], "not subscribed: {body:02x?}"),
                0x30 => {
                    let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let (topic, payload) = body[2..].split_at(length);
                    let topic = std::str::from_utf8(topic)?.replace('/', ".");
                    // A value from WAMP is JSON here.
                    let payload: Value = serde_json::from_slice(payload).unwrap_or_default();
                    let payload = payload.as_str().unwrap_or_default().to_owned();
                    seeing.got(first & 1 == 1, (topic, payload))?;
                }
                _ => bail!("unexpected packet {first:#04x}"),
            }
        }
        all.push(seeing);
        mqtt.send(&unsubscribe).await?;
        loop {
            let (first, _) = mqtt.receive().await?.context("the node hung up")?;
            match first & 0xf0 {
                0xb0 => break,
                0x30 => {}
                _ => bail!("unexpected packet {first:#04x}"),
            }
        }
    }
    Ok(all)
}

/// Compares what subscriptions saw with the log, in one pass.
fn judge(log: &[Seen], mut all: Vec<Seeing>) -> Result<()> {
    let changes: Vec<Got> = log.iter().map(|s| (s.topic.clone(), s.payload.clone())).collect();
    // Payloads are unique; a deletion is identified by the change before it.
    let mut places: BTreeMap<&Got, Vec<usize>> = BTreeMap::new();
    for (at, change) in changes.iter().enumerate() {
        places.entry(change).or_default().push(at);
    }
    let mut begins = Vec::new();
    for seeing in all.drain(..) {
        let at = |run: &usize| changes[*run..].starts_with(&seeing.changes);
        let candidates = places.get(&seeing.changes[0]).context("a change that nobody made")?;
        let candidates: Vec<usize> = candidates.iter().copied().filter(at).collect();
        ensure!(!candidates.is_empty(), "no run of the log: {:?}", seeing.changes);
        begins.push((candidates, seeing));
    }
    let mut wanted: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, (candidates, _)) in begins.iter().enumerate() {
        candidates.iter().for_each(|at| wanted.entry(*at).or_default().push(number));
    }
    let mut fitting = vec![false; begins.len()];
    let mut stood: BTreeMap<String, String> = BTreeMap::new();
    for (at, (topic, payload)) in changes.iter().enumerate() {
        for number in wanted.remove(&at).unwrap_or_default() {
            let mut values = begins[number].1.values.clone();
            values.sort_unstable();
            let stood = stood.iter().map(|(topic, payload)| (topic.clone(), payload.clone()));
            fitting[number] |= values == stood.collect::<Vec<_>>();
        }
        match payload.as_str() {
            "" => stood.remove(topic),
            _ => stood.insert(topic.clone(), payload.clone()),
        };
    }
    let misled = fitting.iter().position(|fits| !fits);
    let misled = misled.map(|number| format!("{:?}", begins[number]));
    ensure!(misled.is_none(), "values and changes do not join: {misled:?}");
    Ok(())
}

#[tokio::test]
async fn values_and_changes_join_exactly_under_load() -> Result<()> {
    let joins = std::env::var("VULPES_JOINS").ok().and_then(|text| text.parse().ok());
    let joins: usize = joins.unwrap_or(JOINS);
    let cluster = crate::cluster().nodes(3).start().await?;
    let (stop, stopped) = watch::channel(false);
    let at = |number: u64| cluster.node(number % 3 + 1).wamp();
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| tokio::spawn(writer(at(number), number, stopped.clone())))
        .collect();
    let begun = Instant::now();
    let mut joining = Vec::new();
    for number in 0..joins.div_ceil(EACH) {
        let node = cluster.node(number as u64 % 3 + 1);
        let (wamp, mqtt) = (node.wamp(), node.mqtt());
        joining.push(tokio::spawn(async move {
            match number % 2 {
                0 => join_wamp(wamp, EACH).await,
                _ => join_mqtt(mqtt, EACH).await,
            }
        }));
        // Spread out, so that they begin at different moments.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut all = Vec::new();
    for joined in joining {
        let limit = PATIENCE * (1 + joins as u32 / 1000);
        all.extend(within("subscriptions join", limit, async { joined.await? }).await?);
    }
    let took = begun.elapsed();
    let _ = stop.send(true);
    for writer in writers {
        within("a writer ends", PATIENCE, async { writer.await? }).await?;
    }
    let mut marker = cluster.wamp(1).await?;
    marker.publish_and_wait("join.mark", MARK).await?;
    let mut log = read_log_through(&cluster, 1, "join", MARK).await?;
    log.iter_mut().filter(|seen| seen.payload == "null").for_each(|seen| seen.payload.clear());
    println!("{} joins and {} changes in {took:?}", all.len(), log.len());
    ensure!(all.len() >= joins, "{} of {joins}", all.len());
    judge(&log, all)
}

#[test]
fn a_join_that_is_not_exact_is_caught() {
    let seen = |(topic, payload): &(&str, &str)| Seen {
        topic: (*topic).to_owned(),
        payload: (*payload).to_owned(),
        position: None,
        retained: false,
    };
    let log = [("a", "1"), ("b", "2"), ("a", "3"), ("b", ""), ("a", "4")].map(|line| seen(&line));
    let got = |events: &[(&str, &str)]| -> Vec<Got> {
        events.iter().map(|(topic, payload)| ((*topic).into(), (*payload).into())).collect()
    };
    let check = |values: &[(&str, &str)], changes: &[(&str, &str)]| {
        judge(&log, vec![Seeing { values: got(values), changes: got(changes) }])
    };
    check(&[], &[("a", "1"), ("b", "2")]).unwrap();
    check(&[("a", "1"), ("b", "2")], &[("a", "3"), ("b", "")]).unwrap();
    check(&[("a", "3")], &[("a", "4")]).unwrap();
    for (name, failure) in [
        ("a gap", check(&[("a", "1")], &[("a", "3")])),
        ("a value twice", check(&[("a", "3"), ("b", "2")], &[("a", "3")])),
        ("values of two places", check(&[("a", "3"), ("b", "2")], &[("a", "4")])),
        ("a change that is missing", check(&[("a", "1"), ("b", "2")], &[("a", "3"), ("a", "4")])),
    ] {
        assert!(failure.is_err(), "{name} was not seen");
    }
}

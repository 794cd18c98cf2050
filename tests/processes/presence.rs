//! Whether a client is alive: slow clients are, frozen ones are not; and everything that a client sent before it left takes
//! effect.
//!
//! Invariant: that a socket accepts more output proves nothing here, so all clients have a larger backlog than their sockets
//! hold.
//!
//! Deliberately absent: the rules themselves, which the session's own tests have.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::json;
use tokio::time::{interval, sleep, timeout, Instant};
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::{Cluster, Said};

use crate::raw::{connect, connect_with_will, frame, Raw};

/// More than the sockets on both sides of a client hold.
const BACKLOG: usize = 24 << 20;

/// Bytes of one message.
const MESSAGE: usize = 128 << 10;

/// A silent WAMP client is closed after ten to fifteen seconds; the rest is for a busy machine.
const GIVEN_UP: Duration = Duration::from_secs(25);

async fn pour(cluster: &Cluster, topic: &str, bytes: usize) -> Result<usize> {
    let mut publisher = cluster.mqtt(1).await?;
    let text = "x".repeat(MESSAGE);
    let count = bytes / MESSAGE;
    for _ in 0..count {
        publisher.publish_and_wait(topic, &text).await?;
    }
    Ok(count)
}

fn subscribe(filter: &str) -> Vec<u8> {
    packet(0x82, &[vec![0, 1], string(filter), vec![0]].concat())
}

async fn next_publish(client: &mut Raw) -> Result<Vec<u8>> {
    loop {
        let (first, body) = client.packet().await?;
        if first & 0xf0 == 0x30 {
            return Ok(body);
        }
    }
}

/// Regression: it stopped for good as soon as its socket had taken the backlog in two steps.
#[tokio::test]
async fn a_reader_of_qos_0_comes_to_the_end_of_a_replay() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    let count = pour(&cluster, "present/replay", 2 * BACKLOG).await?;
    let mut readers = Vec::new();
    for name in ["fast", "slow"] {
        let mut client = Raw::mqtt(cluster.node(1).mqtt(), name).await?;
        // From here on it sends nothing that would wake its session.
        client.say(&subscribe("$replay/0/present/#")).await?;
        readers.push((name, client));
    }
    for (name, client) in &mut readers {
        for number in 0..count {
            let came = within("the next message", PATIENCE, next_publish(client)).await;
            let came = came.with_context(|| format!("{name}: {number} of {count}"))?;
            ensure!(came.len() > MESSAGE, "{name}: {} bytes", came.len());
            if *name == "slow" && number % 8 == 0 {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_frozen_client_with_a_backlog_holds_nothing() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    let (wamp, mqtt) = (cluster.node(1).wamp(), cluster.node(1).mqtt());
    let lock =
        json!({ "acknowledge": true, "retain": true, "when": null, "watch": true, "will": null });
    // Neither reads anything from now on.
    let mut holder = Raw::wamp(wamp).await?;
    let asked = [json!([64, 2, {}, "present.work"]), json!([16, 1, lock, "present.lock", [1]])];
    holder.say(&frame(&asked[0].to_string())).await?;
    holder.messages(65, 1).await?;
    holder.say(&frame(&asked[1].to_string())).await?;
    holder.messages(17, 1).await?;
    holder.say(&frame(&json!([32, 3, {}, "present.flood"]).to_string())).await?;
    holder.messages(33, 1).await?;
    let will = connect_with_will("frozen", 2, ("present/will", "gone"));
    let mut frozen = Raw::mqtt_with(mqtt, &will).await?;
    frozen.say(&subscribe("present/flood")).await?;
    frozen.packet().await?;

    let mut watching = cluster.mqtt(1).await?;
    watching.subscribe_below("present/will").await?;
    let mut next = Raw::wamp(wamp).await?;
    next.say(&frame(&json!([16, 1, lock, "present.lock", [2]]).to_string())).await?;
    pour(&cluster, "present/flood", BACKLOG).await?;
    let began = Instant::now();
    let turn = within("the lock", GIVEN_UP, next.message()).await?;
    ensure!(turn[0] == 17, "{turn}");
    println!("the lock was free after {:?}", began.elapsed());
    let will = watching.next_within(GIVEN_UP).await?;
    ensure!(matches!(&will, Said::Event(event) if event.payload == "gone"), "{will:?}");
    println!("the will came after {:?}", began.elapsed());
    next.say(&frame(&json!([64, 2, {}, "present.work"]).to_string())).await?;
    next.messages(65, 1).await?;
    drop((holder, frozen));
    Ok(())
}

/// Reads 40 KB a second for a while, and sends this ping at this interval, if there is one.
async fn crawl(mut client: Raw, ping: Option<(&[u8], Duration)>, time: Duration) -> Result<Raw> {
    const STEP: Duration = Duration::from_millis(100);
    let (ping, every) = ping.unwrap_or((b"", time));
    let (mut reads, mut pings) = (interval(STEP), interval(every));
    let crawling = async {
        loop {
            tokio::select! {
                _ = reads.tick() => client.buffer(4 << 10).await?,
                _ = pings.tick() => client.send(ping).await?,
            }
        }
    };
    match timeout(time, crawling).await {
        Ok(ended) => ended,
        Err(_) => Ok(client),
    }
}

#[tokio::test]
async fn a_client_on_a_slow_link_stays() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    let count = pour(&cluster, "present/slow", BACKLOG).await?;
    let mqtt = async {
        let hello = connect("slow", 2, 2);
        let mut client = Raw::mqtt_with(cluster.node(1).mqtt(), &hello).await?;
        client.say(&subscribe("$replay/0/present/slow")).await?;
        let every = Duration::from_millis(1500);
        let ping = packet(0xc0, &[]);
        let mut client = crawl(client, Some((&ping, every)), Duration::from_secs(12)).await?;
        for number in 0..count {
            let came = within("the next message", PATIENCE, next_publish(&mut client)).await;
            came.with_context(|| format!("MQTT: {number} of {count}"))?;
        }
        anyhow::Ok(())
    };
    let wamp = async {
        let mut client = Raw::wamp(cluster.node(1).wamp()).await?;
        client.say(&frame(&json!([32, 3, { "after": 0 }, "present.slow"]).to_string())).await?;
        // Like a browser: it sends no pings, and answers a ping only when it has read up to it.
        let mut client = crawl(client, None, Duration::from_secs(22)).await?;
        client.messages(36, count).await.context("WAMP")?;
        anyhow::Ok(())
    };
    tokio::try_join!(mqtt, wamp).map(drop)
}

/// Regression: nothing that they sent was published.
#[tokio::test]
async fn all_that_a_client_said_before_it_left_is_done() -> Result<()> {
    const CLIENTS: usize = 30;
    const MESSAGES: usize = 200;
    let cluster = crate::cluster().nodes(1).start().await?;
    let mut watching = cluster.mqtt(1).await?;
    watching.subscribe_below("present").await?;
    for client in 0..CLIENTS {
        let mut bytes = connect(&format!("hasty-{client}"), 2, 0);
        for number in 0..MESSAGES {
            let id = (number as u16 + 1).to_be_bytes().to_vec();
            let text = format!("mqtt-{client}-{number}").into_bytes();
            // Alternately with and without an acknowledgement, which no client is there to read.
            let (first, id) = if client % 2 == 0 { (0x32, id) } else { (0x30, Vec::new()) };
            bytes.extend(packet(first, &[string("present/hasty"), id, text].concat()));
        }
        bytes.extend(packet(0xe0, &[]));
        Raw::open(cluster.node(1).mqtt()).await?.send(&bytes).await?;
        let mut wamp = Raw::wamp(cluster.node(1).wamp()).await?;
        let publish = |number: usize| {
            let text = format!("wamp-{client}-{number}");
            let options = json!({ "acknowledge": client % 2 == 0 });
            frame(&json!([16, number + 1, options, "present.hasty", [text]]).to_string())
        };
        let mut bytes: Vec<u8> = (0..MESSAGES).flat_map(publish).collect();
        bytes.extend(frame(&json!([6, {}, "wamp.close.close_realm"]).to_string()));
        wamp.send(&bytes).await?;
    }
    let mut came = std::collections::BTreeMap::<String, usize>::new();
    while came.values().sum::<usize>() < 2 * CLIENTS * MESSAGES {
        let said = watching.next_within(PATIENCE).await;
        let Said::Event(event) = said.with_context(|| format!("{came:?}"))? else { continue };
        let text = event.payload.trim_matches('"').to_owned();
        let (client, number) = text.rsplit_once('-').context("a foreign message")?;
        let next = came.entry(client.to_owned()).or_default();
        ensure!(number.parse() == Ok(*next), "{text} instead of {next}");
        *next += 1;
    }
    Ok(())
}

/// This many publishes at QoS 1.
fn publishes(topic: &str, count: u16) -> Vec<u8> {
    let publish = |number: u16| {
        let text = format!("{topic}-{number}").into_bytes();
        packet(0x32, &[string(topic), number.to_be_bytes().to_vec(), text].concat())
    };
    (1..=count).flat_map(publish).collect()
}

/// Regression: the publishes took effect, but no answer came.
#[tokio::test]
async fn a_client_that_only_reads_any_more_gets_its_answers() -> Result<()> {
    const MESSAGES: u16 = 200;
    let cluster = crate::cluster().nodes(3).start().await?;
    for node in 1..=3 {
        // Together with its CONNECT, and in a session that is open already.
        for early in [true, false] {
            let connect = connect(&format!("half-{node}-{early}"), 2, 0);
            let mut client = Raw::open(cluster.node(node).mqtt()).await?;
            client.send(&connect).await?;
            if !early {
                within("a welcome", PATIENCE, client.packet()).await?;
            }
            client.send(&publishes("present/half", MESSAGES)).await?;
            client.finish().await?;
            if early {
                within("a welcome", PATIENCE, client.packet()).await?;
            }
            for number in 1..=MESSAGES {
                let (first, body) = within("an answer", PATIENCE, client.packet()).await?;
                ensure!((first, &body[..2]) == (0x40, &number.to_be_bytes()[..]), "{body:02x?}");
            }
        }
    }
    Ok(())
}

/// Regression: the WebSocket library writes nothing after the end of the input, so the answers and the reason of the end did
/// not come.
#[tokio::test]
async fn a_wamp_client_that_only_reads_any_more_gets_its_answers_and_why_it_ends() -> Result<()> {
    const MESSAGES: usize = 200;
    let cluster = crate::cluster().nodes(3).start().await?;
    for node in 1..=3 {
        let mut client = Raw::wamp(cluster.node(node).wamp()).await?;
        let publish = |number| json!([16, number, { "acknowledge": true }, "present.half", [1]]);
        let publishes: Vec<u8> =
            (1..=MESSAGES).flat_map(|number| frame(&publish(number).to_string())).collect();
        client.send(&publishes).await?;
        client.finish().await?;
        for number in 1..=MESSAGES {
            let answer = within("an answer", PATIENCE, client.message()).await?;
            ensure!(answer[0] == 17 && answer[1] == number, "{answer}");
        }
        for _ in 0..20 {
            let mut client = Raw::wamp(cluster.node(node).wamp()).await?;
            client.send(&frame("[16, \"violation\"]")).await?;
            client.finish().await?;
            let abort = within("an abort", PATIENCE, client.message()).await?;
            ensure!(abort[0] == 3, "{abort}");
        }
    }
    Ok(())
}

/// The order decides such a publish, after the entry has answered that it is stored.
#[tokio::test]
async fn a_conditional_publish_is_answered_to_a_client_that_only_reads() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    for number in 0..20 {
        let name = format!("half-when-{number}");
        let connect = [string("MQTT"), vec![5, 2, 0, 0, 0], string(&name)].concat();
        let when = [vec![0x26], string("vulpes-when"), string("null")].concat();
        let head = [string(&format!("present/{name}")), vec![0, 1]].concat();
        let publish = [head, vec![u8::try_from(when.len())?], when, b"1".to_vec()].concat();
        let mut client = Raw::open(cluster.node(1).mqtt()).await?;
        client.send(&[packet(0x10, &connect), packet(0x33, &publish)].concat()).await?;
        client.finish().await?;
        let (first, _) = within("a welcome", PATIENCE, client.packet()).await?;
        let (next, body) = within("an answer", PATIENCE, client.packet()).await?;
        ensure!((first, next, &body[..2]) == (0x20, 0x40, &[0, 1]), "{next:02x} {body:02x?}");
    }
    Ok(())
}

/// Regression: it waited for room that it held itself, and all other clients waited behind it.
#[tokio::test]
async fn a_client_that_leaves_behind_its_merges_holds_up_nobody() -> Result<()> {
    const LARGE: usize = 600 << 10;
    let cluster = crate::cluster().nodes(1).start().await?;
    let address = cluster.node(1).mqtt();
    let name =
        |name: &str| packet(0x10, &[string("MQTT"), vec![5, 2, 0, 0, 0], string(name)].concat());
    let publish = |first: u8, properties: &[u8], text: &str| {
        let id = if first & 6 == 0 { Vec::new() } else { vec![0, 1] };
        let length = vec![u8::try_from(properties.len()).unwrap_or_default()];
        let head = [string("present/merged"), id, length].concat();
        packet(first, &[&head, properties, text.as_bytes()].concat())
    };
    let merge = [vec![0x26], string("vulpes-merge"), string("true")].concat();
    let mut client = Raw::mqtt_with(address, &name("holder")).await?;
    let large = json!({ "x": "x".repeat(LARGE) }).to_string();
    client.say(&publish(0x33, &[], &large)).await?;
    within("an answer", PATIENCE, client.packet()).await?;
    let merges = publish(0x31, &merge, r#"{"a":1}"#).repeat(3);
    let mut leaving = Raw::mqtt_with(address, &name("leaving")).await?;
    leaving.send(&[merges, packet(0xe0, &[])].concat()).await?;
    drop(leaving);
    for _ in 0..3 {
        client.say(&publish(0x33, &merge, r#"{"b":2}"#)).await?;
        let (first, _) = within("an answer", PATIENCE, client.packet()).await?;
        ensure!(first == 0x40, "{first:02x}");
    }
    Ok(())
}

/// Regression: nothing took effect if the session was not open yet.
#[tokio::test]
async fn all_in_front_of_a_malformed_packet_is_done() -> Result<()> {
    const MESSAGES: u16 = 50;
    let cluster = crate::cluster().nodes(1).start().await?;
    let mut watching = cluster.mqtt(1).await?;
    watching.subscribe_below("present").await?;
    let malformed = [0x30, 0xff, 0xff, 0xff, 0xff, 0xff];
    let bytes = [connect("bad-end", 2, 0), publishes("present/bad", MESSAGES), malformed.to_vec()];
    let mut client = Raw::open(cluster.node(1).mqtt()).await?;
    client.send(&bytes.concat()).await?;
    for number in 1..=MESSAGES {
        let Said::Event(event) = watching.next_within(PATIENCE).await? else { continue };
        ensure!(event.payload.ends_with(&format!("bad-{number}")), "{}", event.payload);
    }
    Ok(())
}

/// A CONNECT of MQTT 5 whose session expires after 2 s, with a will that is delayed by 1 s.
fn connect_for_a_while(name: &str) -> Vec<u8> {
    let expiry = [&[5, 0x11][..], &2_u32.to_be_bytes()].concat();
    let delay = [&[5, 0x18][..], &1_u32.to_be_bytes()].concat();
    let will = [delay, string("present/will"), string(name)].concat();
    packet(0x10, &[string("MQTT"), vec![5, 0x0e, 0, 60], expiry, string(name), will].concat())
}

/// Regression: wills were published and sessions expired only when the publishes stopped.
#[tokio::test]
async fn delayed_wills_come_and_sessions_expire_while_others_publish() -> Result<()> {
    const CLIENTS: usize = 6;
    const SOON: Duration = Duration::from_secs(10);
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut watching = cluster.mqtt(2).await?;
    watching.subscribe_below("present").await?;
    let mut publisher = cluster.mqtt(3).await?;
    let load =
        tokio::spawn(
            async move { while publisher.publish_and_wait("load.a", "x").await.is_ok() {} },
        );
    for number in 0..CLIENTS {
        let node = number as u64 % 3 + 1;
        let connect = connect_for_a_while(&format!("away-{number}"));
        drop(Raw::mqtt_with(cluster.node(node).mqtt(), &connect).await?);
    }
    let wills = async {
        let mut came = 0;
        while came < CLIENTS {
            came += usize::from(matches!(watching.next().await?, Said::Event(_)));
        }
        Ok(())
    };
    within("all wills", SOON, wills).await?;
    let expired = until("all sessions are gone", SOON, || async {
        let status = cluster.status(1).await?;
        ensure!(status["state"]["kept_away"] == 0, "{status}");
        Ok(())
    });
    expired.await?;
    ensure!(!load.is_finished(), "the load has ended");
    load.abort();
    Ok(())
}

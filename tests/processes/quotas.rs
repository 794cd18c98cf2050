//! Limits for users and addresses, each at its edge, against a node that serves others meanwhile.
//!
//! Invariant: at a limit everything is granted, past it only the excess is refused or made to wait, and whoever keeps within
//! the limits notices nothing.
//!
//! Deliberately absent: how tokens flow, which the buckets' own tests have.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::Instant;
use vulpes_jepsen::code::{ERROR, PUBLISHED, SUBSCRIBED};
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;

use crate::raw::{connect, frame, Raw};
use crate::users::{add_ann, file, mqtt, settled, user, vulpes, wamp, Who, ANN, JOE};

const QUOTA: &str = "vulpes.error.quota_exceeded";

/// The first bytes of what a node answers to an MQTT CONNECT that comes from an address.
async fn connects_from(
    from: &str,
    to: SocketAddr,
    level: u8,
) -> Result<(tokio::net::TcpStream, [u8; 4])> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from.parse::<IpAddr>()?, 0).into())?;
    let mut stream = socket.connect(to).await?;
    let mut body = [string("MQTT"), vec![level, 2, 0, 0]].concat();
    body.extend((level == 5).then_some(0));
    body.extend(string(""));
    stream.write_all(&packet(0x10, &body)).await?;
    let mut answer = [0; 4];
    within("a CONNACK", PATIENCE, async { Ok(stream.read_exact(&mut answer).await?) }).await?;
    Ok((stream, answer))
}

#[tokio::test]
async fn an_address_has_only_so_many_connections() -> Result<()> {
    let settings = "[limits.address]\nconnections = 2";
    let cluster = crate::cluster().nodes(1).settings(settings).start().await?;
    let (node, wamp) = (cluster.node(1).mqtt(), cluster.node(1).wamp());
    let (first, answer) = connects_from("127.0.0.2", node, 5).await?;
    ensure!(answer[3] == 0, "{answer:?}");
    let (_second, answer) = connects_from("127.0.0.2", node, 4).await?;
    ensure!(answer[3] == 0, "{answer:?}");
    let (_, answer) = connects_from("127.0.0.2", node, 5).await?;
    ensure!(answer[0] == 0x20 && answer[3] == 0x97, "{answer:?}");
    let (_, answer) = connects_from("127.0.0.2", node, 4).await?;
    ensure!(answer == [0x20, 2, 0, 3], "{answer:?}");
    // Another address is not harmed, until it has as many itself.
    let mut neighbour = Raw::wamp(wamp).await?;
    let _more = Raw::mqtt(node, "more").await?;
    let refused = Raw::websocket(wamp).await.err().context("it came in")?.to_string();
    ensure!(refused.contains("429"), "{refused}");
    let published =
        ask(&mut neighbour, json!([16, 1, { "acknowledge": true }, "q.a", [1]])).await?;
    ensure!(published[0] == PUBLISHED, "{published}");
    // A place that is given back is there for the next.
    drop(first);
    until("there is a place again", PATIENCE, || async {
        let (_, answer) = connects_from("127.0.0.2", node, 5).await?;
        ensure!(answer[3] == 0, "{answer:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_address_connects_only_so_fast() -> Result<()> {
    // Ten seconds' worth at once.
    let settings = "[limits.address]\nconnects_per_second = 1";
    let cluster = crate::cluster().nodes(1).settings(settings).start().await?;
    let node = cluster.node(1).mqtt();
    let mut came = 0;
    let began = Instant::now();
    let refused = loop {
        let (_, answer) = connects_from("127.0.0.2", node, 5).await?;
        if answer[3] != 0 {
            break answer[3];
        }
        came += 1;
    };
    ensure!(refused == 0x9f, "{refused:x}");
    let most = 10 + began.elapsed().as_secs() + 1;
    ensure!((10..=most).contains(&came), "{came} came in {:?}", began.elapsed());
    let (_, answer) = connects_from("127.0.0.3", node, 5).await?;
    ensure!(answer[3] == 0, "a neighbour is refused: {answer:?}");
    until("it may connect again", PATIENCE, || async {
        let (_, answer) = connects_from("127.0.0.2", node, 5).await?;
        ensure!(answer[3] == 0, "{answer:?}");
        Ok(())
    })
    .await
}

/// The answer to a WAMP request.
async fn ask(raw: &mut Raw, request: Value) -> Result<Value> {
    raw.send(&frame(&request.to_string())).await?;
    within("an answer", PATIENCE, raw.message()).await
}

/// A node where `joe` has the role `small`, and `ann` administers.
async fn with_users(settings: &str) -> Result<Cluster> {
    let cluster = crate::cluster().nodes(1).settings(settings).start().await?;
    add_ann(&cluster, 1, " --anonymous").await?;
    for line in [
        format!("add joe --new-password-file {}", file(&cluster, "geheim")?),
        "roles joe small".into(),
    ] {
        user(&cluster, 1, ANN, &line).await?;
    }
    let role = vulpes(&cluster, 1, ANN, &["role", "set", "small", "allow all #"]).await?;
    ensure!(role.status.success(), "{role:?}");
    settled(&cluster).await?;
    Ok(cluster)
}

async fn session(cluster: &Cluster, who: Who<'_>) -> Result<Raw> {
    let (raw, uri) = wamp(cluster.node(1).wamp(), who).await?;
    ensure!(uri.is_none(), "{uri:?}");
    Ok(raw)
}

#[tokio::test]
async fn a_user_has_only_so_many_connections_and_subscriptions() -> Result<()> {
    let settings = "[limits.role.small]\nconnections = 3\nsubscriptions = 2";
    let cluster = with_users(settings).await?;
    let (node, address) = (cluster.node(1).mqtt(), cluster.node(1).wamp());
    let mut one = session(&cluster, JOE).await?;
    let mut other = session(&cluster, JOE).await?;
    let (mut third, code) = mqtt(node, 5, JOE).await?;
    ensure!(code == 0, "{code:x}");
    let (_, code) = mqtt(node, 5, JOE).await?;
    ensure!(code == 0x97, "{code:x}");
    let (_, uri) = wamp(address, JOE).await?;
    ensure!(uri.as_deref() == Some(QUOTA), "{uri:?}");
    // Other users, and those who do not log in, have limits of their own.
    let mut neighbour = session(&cluster, ANN).await?;
    let (_, code) = mqtt(node, 5, None).await?;
    ensure!(code == 0, "{code:x}");
    // Two subscriptions, over all its sessions.
    for (raw, topic) in [(&mut one, "q.a"), (&mut other, "q.b")] {
        let granted = ask(raw, json!([32, 1, {}, topic])).await?;
        ensure!(granted[0] == SUBSCRIBED, "{granted}");
    }
    let refused = ask(&mut other, json!([32, 2, {}, "q.c"])).await?;
    ensure!(refused[0] == ERROR && refused[4] == QUOTA, "{refused}");
    third.send(&packet(0x82, &[&[0, 7, 0][..], &string("q/d"), &[1]].concat())).await?;
    let (first, body) = within("a SUBACK", PATIENCE, third.packet()).await?;
    ensure!(first == 0x90 && body.last() == Some(&0x97), "{body:?}");
    let granted = ask(&mut neighbour, json!([32, 1, {}, "q.d"])).await?;
    ensure!(granted[0] == SUBSCRIBED, "{granted}");
    // What is given back is there again.
    drop(one);
    until("there is a place again", PATIENCE, || async {
        let (_, uri) = wamp(address, JOE).await?;
        ensure!(uri.is_none(), "{uri:?}");
        Ok(())
    })
    .await?;
    until("there is a subscription again", PATIENCE, || async {
        let mut again = session(&cluster, JOE).await?;
        let granted = ask(&mut again, json!([32, 1, {}, "q.e"])).await?;
        ensure!(granted[0] == SUBSCRIBED, "{granted}");
        Ok(())
    })
    .await
}

/// A session that outlives its connection has its subscriptions in the log, and may have no more of them.
#[tokio::test]
async fn a_persistent_session_has_only_so_many_subscriptions() -> Result<()> {
    let settings = "[limits.anonymous]\nsubscriptions = 2";
    let cluster = crate::cluster().nodes(1).settings(settings).start().await?;
    let mut raw = Raw::mqtt_with(cluster.node(1).mqtt(), &connect("kept", 0, 0)).await?;
    let filters = ["q/a", "q/b", "q/c"].map(|filter| [string(filter), vec![1]].concat()).concat();
    raw.send(&packet(0x82, &[&[0, 7][..], &filters].concat())).await?;
    let (first, body) = within("a SUBACK", PATIENCE, raw.packet()).await?;
    ensure!(first == 0x90 && body[2..] == [1, 1, 0x80], "{body:?}");
    Ok(())
}

/// Publishes as much as it can, in one write, and tells how long it took until all was acknowledged.
async fn publish_all(raw: &mut Raw, count: u16, size: usize) -> Result<Duration> {
    let one = |id: u16| {
        let mut body = string("q/n");
        body.extend(id.to_be_bytes());
        body.push(0);
        body.resize(body.len() + size, b'x');
        packet(0x32, &body)
    };
    let began = Instant::now();
    raw.say(&(1..=count).flat_map(one).collect::<Vec<u8>>()).await?;
    for id in 1..=count {
        let (first, body) = within("a PUBACK", PATIENCE, raw.packet()).await?;
        ensure!(first == 0x40 && body[..2] == id.to_be_bytes(), "{id}: {first:x} {body:?}");
        ensure!(body.len() == 2 || body[2] == 0, "nothing is refused for coming fast: {body:?}");
    }
    Ok(began.elapsed())
}

async fn slowed(settings: &str, count: u16, size: usize, least: Duration) -> Result<()> {
    let cluster = with_users(settings).await?;
    let node = cluster.node(1).mqtt();
    let (mut joe, _) = mqtt(node, 5, JOE).await?;
    let (mut ann, _) = mqtt(node, 5, ANN).await?;
    let (slow, fast) =
        tokio::try_join!(publish_all(&mut joe, count, size), publish_all(&mut ann, count, size))?;
    println!("the limited one took {slow:?}, the other one {fast:?}");
    ensure!(slow >= least, "it took {slow:?}, and not {least:?}");
    ensure!(fast < slow / 2, "the neighbour took {fast:?}, beside {slow:?}");
    // It still may: a session with the same user goes on from there.
    joe.send(&packet(0xc0, &[])).await?;
    let (first, _) = within("a PINGRESP", PATIENCE, joe.packet()).await?;
    ensure!(first == 0xd0, "{first:x}");
    Ok(())
}

#[tokio::test]
async fn a_user_publishes_only_so_fast() -> Result<()> {
    // 20 at once, and the other 60 within three seconds.
    let least = Duration::from_millis(2_900);
    slowed("[limits.role.small]\npublishes_per_second = 20", 80, 10, least).await
}

#[tokio::test]
async fn a_user_sends_only_so_many_bytes() -> Result<()> {
    // 64 KiB at once. What was read in one piece before that counts, and nothing else is read until it is made up for.
    let least = Duration::from_millis(2_500);
    slowed("[limits.role.small]\nbytes_per_second = 65536", 65, 4096, least).await
}

#[tokio::test]
async fn who_does_not_log_in_writes_only_so_much_by_connecting() -> Result<()> {
    let settings = "[limits]\nanonymous_log_kib_per_second = 1";
    let cluster = with_users(settings).await?;
    let node = cluster.node(1).mqtt();
    // 256 KiB at once; each session counts about two.
    let mut came = 0;
    let code = loop {
        let (_, answer) = connects_from("127.0.0.2", node, 5).await?;
        if answer[3] != 0 {
            break answer[3];
        }
        came += 1;
        ensure!(came < 500, "there is no budget");
    };
    ensure!(code == 0x9f && came > 50, "{code:x} after {came}");
    // All of them share it. Meanwhile there may be room for one more, which an attempt takes.
    until("another address is refused", PATIENCE, || async {
        let (_, answer) = connects_from("127.0.0.3", node, 4).await?;
        ensure!(answer == [0x20, 2, 0, 3], "{answer:?}");
        Ok(())
    })
    .await?;
    until("WAMP is refused", PATIENCE, || async {
        let (_, uri) = wamp(cluster.node(1).wamp(), None).await?;
        ensure!(uri.as_deref() == Some("vulpes.error.connection_rate_exceeded"), "{uri:?}");
        Ok(())
    })
    .await?;
    session(&cluster, JOE).await?;
    Ok(())
}

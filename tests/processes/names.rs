//! Names and topics of MQTT's maximum length, names that clients may not use, and a client's identity over its
//! connections.
//!
//! Invariant: input that the protocol allows is accepted, or refused in a way that keeps the connection.
//!
//! Deliberately absent: every packet's bytes, which the gate's own tests have.

use std::io::ErrorKind;
use std::process::Output;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use tokio::process::Command;
use vulpes_jepsen::mqtt::{packet, string, Mqtt};
use vulpes_jepsen::wait::{within, PATIENCE};
use vulpes_jepsen::Cluster;

use crate::peer::Peer;

const CONNACK: u8 = 0x20;
const PUBACK: u8 = 0x40;
const SUBACK: u8 = 0x90;

/// The longest text of MQTT, in bytes.
const LONGEST: usize = 65_535;

/// The flags of a CONNECT: a will, a user name and a password.
const ALL_FIELDS: u8 = 0xc4;

/// A packet's first byte and body, within a time limit.
async fn next(mqtt: &mut Mqtt) -> Result<(u8, Vec<u8>)> {
    within("a packet comes", PATIENCE, async {
        mqtt.receive().await?.context("the connection was closed")
    })
    .await
}

fn short(body: &[u8]) -> &[u8] {
    &body[..body.len().min(40)]
}

/// A CONNECT without properties. `fields` come after its head.
fn connect(level: u8, flags: u8, fields: &[&str]) -> Vec<u8> {
    let mut body = string("MQTT");
    body.extend([level, flags, 0, 60]);
    body.extend(fields.iter().flat_map(|field| string(field)));
    packet(0x10, &body)
}

fn subscribe(filter: &str) -> Vec<u8> {
    packet(0x82, &[vec![0, 1], string(filter), vec![1]].concat())
}

fn publish(first: u8, topic: &str, text: &str) -> Vec<u8> {
    packet(first, &[string(topic), vec![0, 1], text.as_bytes().to_vec()].concat())
}

/// A SUBSCRIBE of MQTT 5 at QoS 1, without its own messages.
fn subscribe_to_others(filter: &str) -> Vec<u8> {
    packet(0x82, &[vec![0, 1, 0], string(filter), vec![0x05]].concat())
}

/// Every text at its maximum length in one write, in a session that outlives its connection and is resumed at another node.
#[tokio::test]
async fn names_and_topics_are_as_long_as_mqtt_has_them() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let name = "n".repeat(LONGEST);
    let levels = "/".repeat(LONGEST);
    let below = format!("{}#", "/".repeat(LONGEST - 1));
    let will = "w".repeat(LONGEST);
    let fields = [&*name, &will, &will, &name, &name];
    let hello = connect(4, ALL_FIELDS, &fields);
    let all = [hello.clone(), subscribe(&below), publish(0x33, &levels, "deep"), packet(0xc0, &[])];
    let mut mqtt = Mqtt::open(cluster.node(1).mqtt()).await?;
    mqtt.send(&all.concat()).await?;
    let (mut answers, mut messages) = (Vec::new(), Vec::new());
    while answers.len() < 4 || messages.is_empty() {
        let (first, body) = next(&mut mqtt).await?;
        match first & 0xf0 {
            0x30 => messages.push(body),
            CONNACK | PUBACK | SUBACK => answers.push((first, body)),
            _ => answers.push((first, Vec::new())),
        }
    }
    answers.sort();
    let expected: [(u8, &[u8]); 4] =
        [(CONNACK, &[0, 0]), (PUBACK, &[0, 1]), (SUBACK, &[0, 1, 1]), (0xd0, &[])];
    let found: Vec<(u8, &[u8])> = answers.iter().map(|(first, body)| (*first, &**body)).collect();
    ensure!(found == expected, "{found:02x?}");
    ensure!(messages.iter().all(|body| body.ends_with(b"deep") && body.len() > LONGEST));

    // The will, of the longest topic and payload, shows that the connection is gone.
    let mut watch = Mqtt::open(cluster.node(2).mqtt()).await?;
    watch.send(&[connect(4, 2, &["watch"]), subscribe(&will)].concat()).await?;
    while next(&mut watch).await?.0 != SUBACK {}
    drop(mqtt);
    while !next(&mut watch).await?.1.ends_with(will.as_bytes()) {}

    let mut again = Mqtt::open(cluster.node(3).mqtt()).await?;
    again.send(&hello).await?;
    let welcome = next(&mut again).await?;
    ensure!(welcome == (CONNACK, vec![1, 0]), "not resumed: {:02x?}", short(&welcome.1));
    Ok(())
}

/// Each spelling of a topic of maximum length reaches the other protocol.
#[tokio::test]
async fn long_topics_cross_the_protocols() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    let dots = ".".repeat(LONGEST);
    let mut mqtt = Mqtt::open(cluster.node(1).mqtt()).await?;
    mqtt.send(&[connect(4, 2, &["dots"]), subscribe(&dots)].concat()).await?;
    ensure!(next(&mut mqtt).await?.0 == CONNACK && next(&mut mqtt).await?.0 == SUBACK);

    let mut peer = Peer::at(&cluster, 1).await?;
    let spelled = "%2E".repeat(LONGEST);
    peer.wamp.send(&json!([32, 1, {}, spelled])).await?;
    let subscribed = peer.receive().await?;
    ensure!(subscribed[0] == 33, "{subscribed}");
    let options = json!({ "acknowledge": true, "exclude_me": false });
    peer.wamp.send(&json!([16, 2, options, spelled, ["x"]])).await?;
    let told = [peer.receive().await?, peer.receive().await?];
    let of = |code: u64| told.iter().find(|message| message[0] == code);
    ensure!(of(17).is_some(), "no PUBLISHED among {}", told[0][0]);
    let event = of(36).context("no EVENT")?;
    ensure!(event[3]["topic"] == Value::String(spelled), "another topic");
    let (first, body) = next(&mut mqtt).await?;
    ensure!(first & 0xf0 == 0x30 && body.ends_with(b"\"x\""), "{first:02x}");

    // A topic that would be longer in MQTT is refused, and the session continues.
    let slashes = "/".repeat(LONGEST / 3 + 1);
    peer.wamp.send(&json!([16, 3, { "acknowledge": true }, slashes, ["x"]])).await?;
    let refused = peer.receive().await?;
    ensure!(refused[0] == 8 && refused[4] == "wamp.error.invalid_uri", "{refused}");
    peer.wamp.send(&json!([32, 4, {}, "wamp.registration.on_create"])).await?;
    let refused = peer.receive().await?;
    ensure!(refused[0] == 8 && refused[4] == "wamp.error.feature_not_supported", "{refused}");
    Ok(())
}

/// A bridge like those of mosquitto and NanoMQ, and a client of MQTT 3.1.
#[tokio::test]
async fn bridges_and_old_clients_connect() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    let state = "$SYS/broker/connection/b/state";
    let mut bridge = Mqtt::open(cluster.node(1).mqtt()).await?;
    bridge.send(&connect(0x84, 0x2e, &["b", state, "0"])).await?;
    bridge.send(&[publish(0x33, state, "1"), subscribe("in/#")].concat()).await?;
    let mut told = vec![next(&mut bridge).await?, next(&mut bridge).await?];
    told.push(next(&mut bridge).await?);
    told.sort();
    let expected = vec![(CONNACK, vec![0, 0]), (PUBACK, vec![0, 1]), (SUBACK, vec![0, 1, 1])];
    ensure!(told == expected, "{told:02x?}");
    let mut old = Mqtt::open(cluster.node(1).mqtt()).await?;
    let hello = [string("MQIsdp"), vec![3, 2, 0, 60], string("old")].concat();
    old.send(&[packet(0x10, &hello), subscribe("$SYS/broker/connection/#")].concat()).await?;
    ensure!(next(&mut old).await? == (CONNACK, vec![0, 0]));
    let (first, body) = loop {
        match next(&mut old).await? {
            (SUBACK, _) => {}
            message => break message,
        }
    };
    ensure!(first & 1 == 1 && body.ends_with(b"1"), "no state of the bridge: {first:02x}");
    Ok(())
}

/// A client of MQTT 5 whose session outlives its connection, with a will.
async fn come(cluster: &Cluster, node: u64) -> Result<Mqtt> {
    let mut body = [string("MQTT"), vec![5, 0x0c, 0, 60, 5, 0x11, 0, 0, 0, 60]].concat();
    body.extend(string("own"));
    body.push(0);
    body.extend([string("nl/will"), string("gone")].concat());
    let mut mqtt = Mqtt::open(cluster.node(node).mqtt()).await?;
    mqtt.send(&packet(0x10, &body)).await?;
    let (first, body) = next(&mut mqtt).await?;
    ensure!(first == CONNACK && body[1] == 0, "{first:02x} {body:02x?}");
    Ok(mqtt)
}

/// With No Local, a client gets neither what it published at another node nor its own will.
#[tokio::test]
async fn no_local_goes_by_client_over_all_nodes() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut watch = Mqtt::open(cluster.node(3).mqtt()).await?;
    watch.send(&[connect(4, 2, &["watch"]), subscribe("nl/#")].concat()).await?;
    ensure!(next(&mut watch).await?.0 == CONNACK && next(&mut watch).await?.0 == SUBACK);
    let mut seen = Vec::new();

    let mut own = come(&cluster, 1).await?;
    own.send(&subscribe_to_others("nl/#")).await?;
    ensure!(next(&mut own).await?.0 == SUBACK);
    let five = packet(0x33, &[string("nl/own"), vec![0, 1, 0], b"own".to_vec()].concat());
    own.send(&five).await?;
    ensure!(next(&mut own).await?.0 == PUBACK);
    // Dropped: its will is published at once.
    drop(own);
    while !seen.ends_with(b"gone") {
        seen = next(&mut watch).await?.1;
    }
    let mut other = Mqtt::open(cluster.node(2).mqtt()).await?;
    other.send(&[connect(4, 2, &["other"]), publish(0x32, "nl/other", "other")].concat()).await?;
    ensure!(next(&mut other).await?.0 == CONNACK && next(&mut other).await?.0 == PUBACK);

    // The first event is the other client's, and so is the retained value.
    let mut again = come(&cluster, 2).await?;
    let (first, body) = next(&mut again).await?;
    ensure!(first & 0xf0 == 0x30 && body.ends_with(b"other"), "{first:02x} {body:02x?}");
    again.send(&subscribe_to_others("nl/own")).await?;
    other.send(&publish(0x32, "nl/own", "theirs")).await?;
    loop {
        let (first, body) = next(&mut again).await?;
        if first & 0xf0 == 0x30 {
            ensure!(body.ends_with(b"theirs"), "its own came back: {body:02x?}");
            break;
        }
    }
    Ok(())
}

/// Runs a program of mosquitto against a node; `None` if it is not installed.
async fn mosquitto(cluster: &Cluster, program: &str, arguments: &[&str]) -> Result<Option<Output>> {
    let address = cluster.node(1).mqtt();
    let mut command = Command::new(program);
    command.args(["-V", "5", "-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    let run = async {
        match command.args(arguments).kill_on_drop(true).output().await {
            Ok(output) => Ok(Some(output)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    within(program, PATIENCE, run).await
}

/// An application's user properties whose names resemble our options reach a stock client in order.
#[tokio::test]
async fn stock_clients_keep_their_user_properties() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    let mut arguments = vec!["-t", "up/a", "-q", "1", "-r", "-m", "x"];
    for pair in [["when", "noon"], ["will", "{"], ["retain", "no"], ["after", "1"], ["b", "2"]] {
        arguments.extend(["-D", "publish", "user-property"]);
        arguments.extend(pair);
    }
    let Some(published) = mosquitto(&cluster, "mosquitto_pub", &arguments).await? else {
        println!("skipped: mosquitto_pub is not installed");
        return Ok(());
    };
    ensure!(published.status.success(), "{published:?}");
    let arguments = ["-t", "up/#", "-C", "1", "-F", "%P|%p"];
    let seen = mosquitto(&cluster, "mosquitto_sub", &arguments).await?.context("installed")?;
    let seen = String::from_utf8(seen.stdout)?;
    ensure!(seen.trim() == "when:noon will:{ retain:no after:1 b:2|x", "{seen}");

    let arguments =
        ["-t", "up/a", "-q", "1", "-m", "y", "-D", "publish", "user-property", "vulpes-wen", "1"];
    let refused = mosquitto(&cluster, "mosquitto_pub", &arguments).await?.context("installed")?;
    let told = String::from_utf8(refused.stderr)?;
    ensure!(told.contains("mplementation specific"), "not told of the option: {told}");
    let silent = mosquitto(&cluster, "mosquitto_sub", &["-t", "$SYS/#"]).await?;
    let told = String::from_utf8(silent.context("installed")?.stderr)?;
    ensure!(told.contains("denied") || told.contains("authori"), "not told: {told}");
    Ok(())
}

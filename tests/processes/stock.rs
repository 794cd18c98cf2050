//! Stock clients, unpatched: each publishes at one node and subscribes at another, and all must have seen the same.
//!
//! Invariant: a client that is not installed is named, with how to install it; with `VULPES_REQUIRE_CLIENTS=1` it is
//! a failure. Scripts and their output: tests/clients/README.md.
//!
//! Deliberately absent: what only our own options do; stock clients of MQTT 3.1.1 can't send them.

mod calls;
mod hostile;
mod kinds;
mod logins;
mod messages;
mod program;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;
use vulpes_jepsen::wait::until;
use vulpes_jepsen::Node;

use self::kinds::{installed, Client, Protocol};
use self::program::Program;

/// Two dozen interpreters may have to start on two busy cores.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a client saw of an event: its topic, and its value in the form of tests/clients/README.md.
type Shown = (String, Value);

#[tokio::test]
async fn every_client_hears_every_other() -> Result<()> {
    let clients = installed();
    ensure_required(&clients)?;
    let cluster = crate::cluster().nodes(3).start().await?;

    let mut subscribers = Vec::new();
    for (client, node) in clients.iter().zip([3, 2].into_iter().cycle()) {
        subscribers.push((client, client.subscribe(cluster.node(node))?));
    }
    for (_, subscriber) in &subscribers {
        until("a subscriber is ready", PATIENCE, || async { subscriber.ready() }).await?;
    }
    let mut publishers = Vec::new();
    for (client, node) in clients.iter().zip([1, 1, 2].into_iter().cycle()) {
        publishers.push((client, client.publish(cluster.node(node)).await?));
    }

    let mut expected = BTreeMap::new();
    for (client, publisher) in &mut publishers {
        publisher.finish(PATIENCE).await.with_context(|| format!("{} publishes", client.name()))?;
        expected.insert(client.topic(), client.expected());
    }
    let total = expected.values().map(Vec::len).sum();
    let mut seen = Vec::new();
    for (client, subscriber) in &subscribers {
        let events =
            until("a subscriber has seen all", PATIENCE, || async { subscriber.events(total) });
        let events = events.await.with_context(|| format!("{} subscribes", client.name()))?;
        seen.push((client.name(), events));
    }
    compare(&expected, &seen)?;
    for (client, publisher) in &publishers {
        if client.protocol() == Protocol::Wamp {
            compare_positions(client, publisher, &seen)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn sessions_of_stock_clients_go_on_at_another_node() -> Result<()> {
    let clients = installed();
    ensure_required(&clients)?;
    let clients = clients.iter().filter(|client| client.protocol() == Protocol::Mqtt);
    let clients: Vec<&Client> = clients.collect();
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut before = Vec::new();
    for client in &clients {
        before.push(client.keep(cluster.node(1))?);
    }
    for program in &before {
        until("a subscriber is ready", PATIENCE, || async { program.ready() }).await?;
    }
    // They are killed, without a DISCONNECT or GOODBYE.
    drop(before);
    let mut publisher = cluster.mqtt(2).await?;
    for number in 0..100 {
        publisher.publish_and_wait("cross.kept", &format!("missed-{number}")).await?;
    }
    for client in &clients {
        let program = client.keep(cluster.node(3))?;
        let events = until("all has come", PATIENCE, || async { program.events(100) }).await;
        let events = events.with_context(|| client.name())?;
        for (number, event) in events.iter().enumerate() {
            ensure!(event["value"] == format!("missed-{number}"), "{}: {event}", client.name());
        }
    }
    Ok(())
}

#[tokio::test]
async fn stock_clients_exchange_messages_of_qos_2() -> Result<()> {
    let clients = installed();
    ensure_required(&clients)?;
    let clients = clients.iter().filter(|client| client.protocol() == Protocol::Mqtt);
    let clients: Vec<&Client> = clients.collect();
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut subscribers = Vec::new();
    for (client, node) in clients.iter().zip([2, 3].into_iter().cycle()) {
        subscribers.push((client.name(), client.subscribe_exactly(cluster.node(node))?));
    }
    for (_, subscriber) in &subscribers {
        until("a subscriber is ready", PATIENCE, || async { subscriber.ready() }).await?;
    }
    // Publishes each line with QoS 2.
    let Some(mosquitto) = clients.iter().find(|client| client.name().starts_with("mosquitto"))
    else {
        return Ok(());
    };
    let mut publisher = mosquitto.publish_lines(cluster.node(1))?;
    for number in 0..100 {
        publisher.say(&format!("exact-{number}")).await?;
    }
    publisher.finish(PATIENCE).await?;
    for (name, subscriber) in &subscribers {
        let events = until("all has come", PATIENCE, || async { subscriber.events(100) }).await;
        for (number, event) in events.with_context(|| name.clone())?.iter().enumerate() {
            ensure!(event["value"] == format!("exact-{number}"), "{name}: {event}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn stock_clients_come_back_to_a_node_that_was_stopped() -> Result<()> {
    let clients = installed();
    ensure_required(&clients)?;
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let mut programs = Vec::new();
    // mosquitto_sub ends when an MQTT 5 node says that it stops.
    for client in clients.iter().filter(|client| client.name() != "mosquitto mqttv5") {
        programs.push((client.name(), client.come_back(cluster.node(1))?));
    }
    for times in 1..=2 {
        for (name, program) in &programs {
            let there = until("it is there", PATIENCE, || async { program.ready_times(times) });
            there.await.with_context(|| format!("{name}, time {times}"))?;
        }
        if times == 1 {
            let status = cluster.node_mut(1).stop().await?;
            ensure!(status.success(), "the node ended with {status}");
            cluster.restart(1).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn no_value_ends_a_stock_client() -> Result<()> {
    let clients = installed();
    ensure_required(&clients)?;
    let cluster = crate::cluster().nodes(1).start().await?;
    let node = cluster.node(1);
    let mut subscribers = Vec::new();
    for client in &clients {
        subscribers.push((client.name(), client.subscribe(node)?));
    }
    for (_, subscriber) in &subscribers {
        until("a subscriber is ready", PATIENCE, || async { subscriber.ready() }).await?;
    }
    let taken = hostile::publish_all(node).await?;
    for (name, subscriber) in &subscribers {
        let events = until("all has come", PATIENCE, || async { subscriber.events(taken) }).await;
        events.with_context(|| format!("{name} is still there"))?;
    }
    Ok(())
}

#[tokio::test]
async fn mosquitto_reaches_autobahn_while_a_node_dies() -> Result<()> {
    let clients = installed();
    ensure_required(&clients)?;
    let find = |name: &str| clients.iter().find(|client| client.name().starts_with(name));
    let (Some(mosquitto), Some(autobahn)) = (find("mosquitto"), find("autobahn-js")) else {
        return Ok(());
    };
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let subscriber = autobahn.subscribe(cluster.node(3))?;
    until("autobahn-js is ready", PATIENCE, || async { subscriber.ready() }).await?;
    let mut publisher = mosquitto.publish_lines(cluster.node(1))?;
    for number in 0..100 {
        publisher.say(&format!("before-{number}")).await?;
    }
    until("half has come", PATIENCE, || async { subscriber.events(100) }).await?;
    cluster.node_mut(2).kill().await?;
    for number in 0..100 {
        publisher.say(&format!("after-{number}")).await?;
    }
    publisher.finish(PATIENCE).await?;
    let events = until("all has come", PATIENCE, || async { subscriber.events(200) }).await?;
    let numbered = |name: &'static str| (0..100).map(move |number| format!("{name}-{number}"));
    for (event, text) in events.iter().zip(numbered("before").chain(numbered("after"))) {
        ensure!(event["value"] == text, "{event} instead of {text}");
    }
    Ok(())
}

fn ensure_required(clients: &[Client]) -> Result<()> {
    let missing = kinds::missing(clients);
    for note in &missing {
        // Written to the handle itself, because the test runner hides the macros' output of a passed test.
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: {note}");
    }
    let required = std::env::var("VULPES_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
    ensure!(missing.is_empty() || !required, "not installed: {missing:#?}");
    Ok(())
}

/// All subscribers must have seen the same in the same order, and of each publisher what it published, in its order.
fn compare(expected: &BTreeMap<String, Vec<Value>>, seen: &[(String, Vec<Value>)]) -> Result<()> {
    let Some((first_name, first)) = seen.first() else { return Ok(()) };
    let reference: Vec<Shown> = first.iter().map(messages::shown).collect();
    for (topic, values) in expected {
        let of_topic: Vec<&Value> =
            reference.iter().filter(|(one, _)| one == topic).map(|(_, value)| value).collect();
        ensure!(
            of_topic.iter().copied().eq(values),
            "{topic}: {first_name} saw {of_topic:#?} instead of {values:#?}"
        );
    }
    for (name, events) in seen {
        for (event, one) in events.iter().zip(&reference) {
            let shown = messages::shown(event);
            ensure!(shown == *one, "{name} saw {shown:?} where {first_name} saw {one:?}");
        }
    }
    Ok(())
}

/// The positions that a publisher got must be those at which every WAMP subscriber saw its events.
fn compare_positions(
    publisher: &Client,
    program: &Program,
    seen: &[(String, Vec<Value>)],
) -> Result<()> {
    let mut told: Vec<u64> = program.acknowledged();
    told.sort_unstable();
    ensure!(told.len() == publisher.expected().len(), "{} was told {told:?}", publisher.name());
    for (name, events) in seen {
        let of_topic = events.iter().filter(|event| event["topic"] == publisher.topic());
        let positions: Vec<u64> = of_topic.filter_map(|event| event["position"].as_u64()).collect();
        // wampy doesn't show them.
        let wamp = name.starts_with("autobahn");
        ensure!(!wamp || positions == told, "{name} saw {positions:?} instead of {told:?}");
    }
    Ok(())
}

fn address(node: &Node, protocol: Protocol) -> std::net::SocketAddr {
    match protocol {
        Protocol::Wamp => node.wamp(),
        Protocol::Mqtt => node.mqtt(),
    }
}

//! A register over retained values, used at all nodes while nodes are killed, is as linearizable as one variable.
//!
//! Invariant: clients write at one node and read at another, and record when they sent a request and when they got the answer.
//! A client whose connection fails leaves its operation open: it may have happened or not.
//!
//! Deliberately absent: partitions (`simulation`), with the same clients and the same judge.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value};
use tokio::sync::watch;
use tokio::time::Instant;
use vulpes_jepsen::register::{Answer, Call, Registers};
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;

use crate::peer::Peer;

/// Clients, each with its own two nodes.
const CLIENTS: u64 = 5;

/// How long each register is used.
const SPAN: Duration = Duration::from_millis(300);

/// How long a client waits for one operation before it connects to another node.
const OPERATION: Duration = Duration::from_secs(5);

/// Operations that have to be answered between two kills.
const ANSWERS: usize = 120;

struct Shared {
    registers: Mutex<Registers>,
    begun: Instant,
}

impl Shared {
    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a client writes and where it reads.
struct Using {
    shared: Arc<Shared>,
    writing: Peer,
    reading: Peer,
}

impl Using {
    /// A position after everything that any client has learned so far.
    async fn mark(&mut self) -> Result<u64> {
        let marked = self.writing.publish("marker", Value::Null, json!({})).await?;
        let position = marked.map_err(|uri| anyhow::anyhow!("a marker was refused: {uri}"))?;
        self.shared.registers().told(position);
        Ok(position)
    }

    async fn operate(&mut self, register: u64, number: u64) -> Result<()> {
        let topic = format!("register.{register}");
        let (call, options) = {
            let mut registers = self.shared.registers();
            match number % 5 {
                0 | 1 => (Call::Read, Value::Null),
                2 => (Call::Write(registers.fresh()), json!({ "retain": true })),
                _ => {
                    let seen = registers.seen(register);
                    let when = json!({ "retain": true, "when": seen });
                    (Call::Swap(seen, registers.fresh()), when)
                }
            }
        };
        let ticket = self.shared.registers().call(register, call);
        let answer = match call {
            Call::Read => Answer::Value(self.read(&topic, number.is_multiple_of(2)).await?),
            Call::Write(value) | Call::Swap(_, value) => {
                match self.writing.publish(&topic, json!(value), options).await? {
                    Ok(position) => {
                        self.shared.registers().told(position);
                        Answer::Written
                    }
                    Err(uri) if uri == "fox.error.not_accepted" => {
                        self.mark().await?;
                        Answer::Refused
                    }
                    Err(uri) => bail!("not written: {uri}"),
                }
            }
        };
        self.shared.registers().answer(register, ticket, answer);
        Ok(())
    }

    /// Reads after its own marker, or after the newest position that any client learned.
    async fn read(&mut self, topic: &str, marked: bool) -> Result<Option<u64>> {
        let after = match marked {
            true => self.mark().await?,
            false => self.shared.registers().newest(),
        };
        let options = json!({ "retainedState": true, "snapshot": true, "after": after });
        let values = self.reading.snapshot(topic, options).await?;
        ensure!(values.len() <= 1, "one topic has {} values", values.len());
        let Some((value, position)) = values.into_iter().next() else { return Ok(None) };
        self.shared.registers().told(position);
        Ok(Some(value.as_u64().context("a value that nobody wrote")?))
    }
}

async fn client(
    nodes: [std::net::SocketAddr; 3],
    client: u64,
    shared: Arc<Shared>,
    stopped: watch::Receiver<bool>,
) {
    let mut number = client;
    while !*stopped.borrow() {
        let at = |number: u64| nodes[(number % 3) as usize];
        let (one, other) = (at(number), at(number / 3 + client));
        let connecting = async { Ok((Peer::connect(one).await?, Peer::connect(other).await?)) };
        let Ok((writing, reading)) = within("two sessions", OPERATION, connecting).await else {
            number += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut using = Using { shared: shared.clone(), writing, reading };
        while !*stopped.borrow() {
            let register = (shared.begun.elapsed().as_millis() / SPAN.as_millis()) as u64;
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) >> 1;
            let operation = using.operate(register, number >> 20);
            if within("an operation", OPERATION, operation).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn more_answers(shared: &Shared) -> Result<()> {
    let before = shared.registers().answered();
    until("registers are used", PATIENCE * 2, || async {
        let answered = shared.registers().answered() - before;
        ensure!(answered >= ANSWERS, "{answered} operations answered");
        Ok(())
    })
    .await
}

fn addresses(cluster: &Cluster) -> [std::net::SocketAddr; 3] {
    [1, 2, 3].map(|node| cluster.node(node).wamp())
}

#[tokio::test]
async fn a_register_is_linearizable_while_nodes_are_killed() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let begun = Instant::now();
    let shared = Arc::new(Shared { registers: Mutex::default(), begun });
    let (stop, stopped) = watch::channel(false);
    let nodes = addresses(&cluster);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(nodes, number, shared.clone(), stopped.clone())))
        .collect();
    more_answers(&shared).await?;
    let leader = cluster.leader().await?;
    for victim in [leader, leader % 3 + 1, (leader + 1) % 3 + 1] {
        cluster.node_mut(victim).kill().await?;
        more_answers(&shared).await?;
        cluster.restart(victim).await?;
        more_answers(&shared).await?;
    }
    for node in 1..=3 {
        cluster.node_mut(node).kill().await?;
    }
    for node in 1..=3 {
        cluster.node_mut(node).start()?;
    }
    cluster.ready().await?;
    more_answers(&shared).await?;
    let _ = stop.send(true);
    for client in clients {
        within("a client ends", PATIENCE, async { Ok(client.await?) }).await?;
    }
    let registers = shared.registers();
    println!("{} operations in {:?}", registers.answered(), begun.elapsed());
    registers.check()
}

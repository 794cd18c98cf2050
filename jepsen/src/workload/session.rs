//! MQTT sessions that outlive their connections: clients that move between nodes, with a goodbye, without one, or by
//! taking over their own sessions, and events that are published meanwhile.
//!
//! Invariant: an acknowledgement is recorded before the client receives again, and an acknowledgement that may have been sent
//! counts as sent. A client's filter counts as active once its node has confirmed it.
//!
//! Deliberately absent: sessions that expire, and the effect of a clean session on a persistent one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, Instant};

use super::log::Publisher;
use crate::check::MARK;
use crate::dice::Dice;
use crate::mqtt::{arrived, packet, string, Arrived, Mqtt};
use crate::op::{Attach, Filter, Hear, Heard, Leave, Pattern, Protocol};
use crate::stage::{undress, Phase, Stage, OPEN};

const CLIENTS: u64 = 5;
const PUBLISHERS: u64 = 3;

/// All events of the workload are below this topic.
pub(super) const BASE: &str = "j.ses";
const FILTER: &str = "j/ses/#";

/// How long a connection stays open, and how long a client is away, in milliseconds.
const STAY: (u64, u64) = (200, 5_000);
const AWAY: u64 = 1_500;

/// Most events of one line of the history, and how long it waits for a further one.
const BATCH: usize = 64;
const LULL: Duration = Duration::from_millis(20);

/// How long a client waits for an event before it tries another node.
const SILENCE: Duration = Duration::from_secs(4);

/// Events that a client may leave unacknowledged for a while.
const HELD: usize = 12;

/// How long a node may take to close a connection after a goodbye.
const CLOSES: Duration = Duration::from_secs(3);

/// Time limit for a client to see the last published events.
const LAST: Duration = Duration::from_secs(60);

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;

pub(super) fn start(stage: &Arc<Stage>, clients: &mut JoinSet<()>) {
    for number in 0..PUBLISHERS {
        let protocol = if number == 0 { Protocol::Wamp } else { Protocol::Mqtt };
        let publisher = Publisher::new(stage, &format!("q{number}"), BASE, protocol);
        clients.spawn(publisher.run());
    }
    for number in 0..CLIENTS {
        let name = format!("s{number}");
        let dice = stage.dice(&name);
        clients.spawn(Keeper::new(stage.clone(), name, dice).run());
    }
}

/// A client with a persistent session.
struct Keeper {
    stage: Arc<Stage>,
    client: String,
    dice: Dice,
    life: u64,
    /// Its filter is confirmed.
    stands: bool,
    /// Final events of the run that it has seen.
    marks: Vec<String>,
    /// A connection to be taken over.
    older: Option<Mqtt>,
}

/// An open connection.
struct Connection {
    mqtt: Mqtt,
    /// Events that arrived while waiting for something else.
    early: Vec<Arrived>,
    /// Packet identifiers of unacknowledged events, and the events' ids, in order.
    held: Vec<(u16, String)>,
}

impl Keeper {
    fn new(stage: Arc<Stage>, client: String, dice: Dice) -> Self {
        Self { stage, client, dice, life: 0, stands: false, marks: Vec::new(), older: None }
    }

    async fn run(mut self) {
        while self.stage.works() {
            let stay = Duration::from_millis(self.dice.between(STAY.0, STAY.1));
            self.live(stay).await;
            if self.older.is_none() {
                sleep(Duration::from_millis(self.dice.below(AWAY))).await;
            }
        }
        let deadline = Instant::now() + LAST;
        while !self.is_done() && Instant::now() < deadline {
            self.live(deadline.saturating_duration_since(Instant::now())).await;
        }
    }

    /// One connection, from the attempt to its end.
    async fn live(&mut self, stay: Duration) {
        let Some(mut connection) = self.attach().await else {
            return sleep(LULL).await;
        };
        // The connection that was taken over is no longer used.
        self.older = None;
        let mut goes_on = self.stands || self.filter(&mut connection).await;
        let until = Instant::now() + stay;
        while goes_on && Instant::now() < until && !self.is_done() {
            goes_on = self.hear(&mut connection).await;
        }
        self.leave(connection, goes_on).await;
    }

    async fn attach(&mut self) -> Option<Connection> {
        let door = self.stage.door(&mut self.dice);
        self.life += 1;
        let (client, life, node) = (self.client.clone(), self.life, door.node);
        let mut what = Attach { client, life, node, present: None, reason: None };
        let open = self.stage.journal.ask("attach", &what);
        let attached = timeout(OPEN, async {
            let mut mqtt = Mqtt::open(door.mqtt).await?;
            let mut body = string("MQTT");
            // Level 4 is 3.1.1; no flags: the session is not clean; no keep-alive.
            body.extend([4, 0, 0, 0]);
            body.extend(string(&self.client));
            mqtt.send(&packet(CONNECT, &body)).await?;
            let (first, body) = mqtt.receive().await?.context("closed before CONNACK")?;
            ensure!(first == CONNACK && body[1..] == [0], "no welcome but {first:#x} {body:02x?}");
            anyhow::Ok((mqtt, body[0] == 1))
        });
        match attached.await {
            Ok(Ok((mqtt, present))) => {
                what.present = Some(present);
                self.stage.journal.ok(open, &what);
                Some(Connection { mqtt, early: Vec::new(), held: Vec::new() })
            }
            Ok(Err(error)) => {
                what.reason = Some(format!("{error:#}"));
                self.stage.journal.unknown(open, &what);
                None
            }
            Err(_) => {
                what.reason = Some("no answer in time".to_owned());
                self.stage.journal.unknown(open, &what);
                None
            }
        }
    }

    /// Subscribes the filter; returns whether the connection can still be used.
    async fn filter(&mut self, connection: &mut Connection) -> bool {
        let pattern = Pattern::Below { topic: BASE.to_owned() };
        let what = Filter { client: self.client.clone(), life: self.life, pattern };
        let open = self.stage.journal.ask("filter", &what);
        let stands = matches!(timeout(OPEN, connection.filter()).await, Ok(Ok(())));
        if stands {
            self.stands = true;
            self.stage.journal.ok(open, &what);
        } else {
            self.stage.journal.unknown(open, &what);
        }
        stands
    }

    /// Records the events that come next, and acknowledges some of them; returns whether more may come.
    async fn hear(&mut self, connection: &mut Connection) -> bool {
        let mut what = Hear { client: self.client.clone(), life: self.life, ..Hear::default() };
        let open = self.stage.journal.ask("hear", &what);
        let mut goes_on = true;
        let mut wait = if connection.held.is_empty() { SILENCE } else { LULL };
        while what.events.len() < BATCH {
            match timeout(wait, connection.next()).await {
                Ok(Ok(came)) => {
                    let event = undress(came.seen);
                    if event.topic.ends_with(MARK) {
                        self.marks.push(event.id.clone());
                    }
                    let (topic, id, packet) = (event.topic, event.id, came.packet);
                    connection.held.push((packet, id.clone()));
                    what.events.push(Heard { topic, id, packet, again: came.again });
                    wait = LULL;
                }
                Ok(Err(_)) => {
                    goes_on = false;
                    break;
                }
                // A pause ends the batch, a long silence the connection.
                Err(_) => {
                    goes_on = wait == LULL;
                    break;
                }
            }
        }
        let keeps = self.stage.works() && connection.held.len() < HELD && self.dice.chance(0.5);
        let keeps = if keeps { self.dice.below(connection.held.len() as u64 + 1) } else { 0 };
        if goes_on {
            let count = connection.held.len() - keeps as usize;
            let (acknowledged, sent) = connection.acknowledge(count).await;
            what.acknowledged = acknowledged;
            goes_on = sent;
        }
        self.stage.journal.ok(open, &what);
        goes_on
    }

    async fn leave(&mut self, mut connection: Connection, stands: bool) {
        let (client, life) = (self.client.clone(), self.life);
        let mut what = Leave { client, life, goodbye: false, closed: false };
        let open = self.stage.journal.ask("leave", &what);
        match self.dice.below(10) {
            0..=4 if stands => {
                what.goodbye = connection.mqtt.goodbye().await.is_ok();
                let closed = timeout(CLOSES, connection.end()).await;
                what.closed = matches!(closed, Ok(Ok(())));
            }
            5..=6 if stands && self.stage.works() => self.older = Some(connection.mqtt),
            _ => {}
        }
        self.stage.journal.ok(open, &what);
    }

    /// Whether it has seen everything that it should see in the end.
    fn is_done(&self) -> bool {
        let Phase::Finish { marks, .. } = &*self.stage.phase.borrow() else { return false };
        let below = |topic: &str| topic.starts_with(BASE);
        let mut mine = marks.iter().filter(|(topic, _)| below(topic));
        mine.all(|(_, id)| self.marks.contains(id))
    }
}

impl Connection {
    async fn filter(&mut self) -> Result<()> {
        let mut body = vec![0, 1];
        body.extend(string(FILTER));
        body.push(1);
        self.mqtt.send(&packet(SUBSCRIBE, &body)).await?;
        loop {
            match self.mqtt.receive().await?.context("closed before SUBACK")? {
                (SUBACK, body) => {
                    ensure!(body == [0, 1, 1], "refused: {body:02x?}");
                    return Ok(());
                }
                (first, body) => self.early.push(arrived(first, &body)?),
            }
        }
    }

    async fn next(&mut self) -> Result<Arrived> {
        if !self.early.is_empty() {
            return Ok(self.early.remove(0));
        }
        match self.mqtt.receive().await? {
            Some((first, body)) => arrived(first, &body),
            None => bail!("the connection is gone"),
        }
    }

    /// Acknowledges the oldest events; returns their ids, and whether all was sent.
    async fn acknowledge(&mut self, count: usize) -> (Vec<String>, bool) {
        let (mut bytes, mut ids) = (Vec::new(), Vec::new());
        for (identifier, id) in self.held.drain(..count) {
            bytes.extend(packet(PUBACK, &identifier.to_be_bytes()));
            ids.push(id);
        }
        let sent = self.mqtt.send(&bytes).await.is_ok();
        (ids, sent)
    }

    /// Waits until the node has closed the connection.
    async fn end(&mut self) -> Result<()> {
        while self.mqtt.receive().await?.is_some() {}
        Ok(())
    }
}

//! Keepers: MQTT clients with persistent sessions that move between nodes during faults.
//!
//! Checked here: from its subscription on, a keeper gets every value, in the order of the log; values that come again are
//! marked; and what it acknowledged on a connection that it saw closed in order never comes again. A session is never lost.
//!
//! Invariant: what a keeper got is compared with the log's order alone. Of the product's state, only two kinds of acts are
//! used: those that show where a subscription begins, and those that show which connection's end all nodes know.
//!
//! Deliberately absent: time. The process tests show how soon a session is taken over.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use vulpes::types::act::Act;
use vulpes::types::event::SessionId;
use vulpes_raft::ids::Position;

use crate::chance::Chance;
use crate::connection::within;
use crate::log::OrderLog;
use crate::mqtt::{Mqtt, Received};
use crate::plan::Plan;
use crate::record::{Phase, Shared};
use crate::value::Value;

/// Their seeds start here.
const CHANCES: u64 = 300;

/// Time limit for opening and subscribing: a node may wait for another one's last word, and for a quorum.
const OPENING: Duration = Duration::from_millis(3_000);

/// How long a keeper hears nothing before it checks whether its node is alive, and then again before it leaves.
const SILENCE: Duration = Duration::from_millis(600);

/// A keeper's connections are numbered.
type Connection = (u64, u64);

/// What the log shows about keepers.
#[derive(Default)]
pub(crate) struct KeptLog {
    sessions: BTreeMap<SessionId, Connection>,
    /// Each keeper's newest session.
    newest: BTreeMap<u64, SessionId>,
    /// Where each keeper's subscription begins.
    from: BTreeMap<u64, Position>,
    /// Connections whose acknowledgements all nodes knew before the next connection began. A connection that begins
    /// earlier waits for only a second, and then has to send again what may have been acknowledged.
    detached: BTreeSet<Connection>,
}

impl KeptLog {
    /// The next act in the log.
    pub(crate) fn shown(&mut self, position: Position, publisher: SessionId, act: &[u8]) {
        match Act::decode(act) {
            Some(Act::Attach(attach)) => {
                let details: serde_json::Value =
                    serde_json::from_str(&attach.join.details).unwrap_or_default();
                let connection = details["authid"].as_str().and_then(|name| {
                    let (keeper, number) = name.strip_prefix("keeper-")?.split_once('-')?;
                    Some((keeper.parse().ok()?, number.parse().ok()?))
                });
                if let Some((keeper, number)) = connection {
                    self.sessions.insert(publisher, (keeper, number));
                    self.newest.insert(keeper, publisher);
                }
            }
            // An older connection's request takes effect only if it comes before the newer connection's beginning.
            Some(Act::Subscribe(_)) => {
                if let Some((keeper, _)) = self.sessions.get(&publisher) {
                    if self.newest.get(keeper) == Some(&publisher) {
                        self.from.entry(*keeper).or_insert(position);
                    }
                }
            }
            Some(Act::Gone(gone)) if gone.progress.is_some() => {
                if let Some(connection) = self.sessions.get(&publisher) {
                    if self.newest.get(&connection.0) == Some(&publisher) {
                        self.detached.insert(*connection);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A value that a keeper received.
struct Heard {
    connection: u64,
    value: Value,
    duplicate: bool,
    acknowledged: bool,
}

/// What keepers received.
#[derive(Default)]
pub(crate) struct KeptRecord {
    heard: BTreeMap<u64, Vec<Heard>>,
    /// Connections that their node closed after the keeper's DISCONNECT.
    orderly: BTreeSet<Connection>,
    pub(crate) repeats: u64,
}

impl KeptRecord {
    /// A keeper that has not received the last value yet.
    pub(crate) fn waiting(&self, log: &OrderLog, keepers: u64) -> Option<u64> {
        let last = log.last_value();
        (0..keepers).find(|keeper| {
            // A keeper that subscribed after the last value has nothing to wait for.
            let Some(from) = log.persistent.from.get(keeper) else { return true };
            let heard = self.heard.get(keeper).into_iter().flatten();
            let newest = heard.filter_map(|heard| log.place(heard.value)).max();
            newest.unwrap_or(*from) < last
        })
    }

    /// Compares what all keepers received with the log.
    pub(crate) fn verdict(&self, log: &OrderLog) -> Result<(), String> {
        for (keeper, heard) in &self.heard {
            self.judge(*keeper, heard, log)?;
        }
        Ok(())
    }

    fn judge(&self, keeper: u64, all: &[Heard], log: &OrderLog) -> Result<(), String> {
        let Some(from) = log.persistent.from.get(&keeper) else {
            return Err(format!("keeper {keeper} has no subscription in the log"));
        };
        let mut last = *from;
        let mut done = BTreeSet::new();
        for heard in all {
            let Heard { connection, value, duplicate, acknowledged } = *heard;
            let Some(position) = log.place(value) else {
                return Err(format!("keeper {keeper} got {value}, which is nowhere"));
            };
            if position > last {
                let next = log.next_value(last);
                if next != Some(position) {
                    return Err(format!(
                        "keeper {keeper} got {value} at {position} where {next:?} was next"
                    ));
                }
                last = position;
            } else if !duplicate {
                return Err(format!("keeper {keeper} got {value} again, not marked so"));
            } else if done.contains(&position) {
                return Err(format!("keeper {keeper} got {value} again, which it was done with"));
            }
            let known = (keeper, connection);
            if acknowledged
                && self.orderly.contains(&known)
                && log.persistent.detached.contains(&known)
            {
                done.insert(position);
            }
        }
        Ok(())
    }
}

/// Uses one persistent session for the whole run.
pub(crate) async fn keeper(plan: Plan, keeper: u64, shared: Shared) {
    let mut chance = plan.chance(CHANCES + keeper);
    let entries = plan.shape.entries();
    let mut keeping =
        Persistence { keeper, shared: shared.clone(), connection: 0, subscribed: false };
    loop {
        keeping.connection += 1;
        let node = chance.pick(&entries);
        let end = keeping.connect(node, &mut chance).await;
        shared.borrow_mut().trace(|| format!("keeper {keeper} leaves node {node}: {end:?}"));
        tokio::time::sleep(Duration::from_millis(chance.between(5, 300))).await;
    }
}

struct Persistence {
    keeper: u64,
    shared: Shared,
    connection: u64,
    subscribed: bool,
}

impl Persistence {
    async fn connect(&mut self, node: u64, chance: &mut Chance) -> io::Result<()> {
        let (keeper, number) = (self.keeper, self.connection);
        let (name, user) = (format!("keeper-{keeper}"), format!("keeper-{keeper}-{number}"));
        let node = crate::node::name(node);
        let (mut mqtt, present) = within(OPENING, Mqtt::resume(&node, &name, &user)).await?;
        if self.subscribed && !present {
            let reason = format!("the session of keeper {keeper} is forgotten");
            self.shared.borrow_mut().check(Err(reason));
        }
        if !self.subscribed {
            within(OPENING, mqtt.subscribe_to("sim/#")).await?;
            self.subscribed = true;
        }
        let mut asked = false;
        loop {
            match within(SILENCE, mqtt.next_received()).await {
                Ok(Received::Alive) => asked = false,
                Ok(Received::Message { text, id, duplicate }) => {
                    asked = false;
                    self.heard(&mut mqtt, &text, (id, duplicate), chance).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !asked => {
                    asked = true;
                    mqtt.ping().await?;
                }
                Err(error) => return Err(error),
            }
            let restless = self.shared.borrow().phase == Phase::Work;
            // Some leave silently, others send DISCONNECT and wait for the end.
            if restless && chance.one_in(40) {
                return Ok(());
            }
            if restless && chance.one_in(25) {
                within(OPENING, mqtt.leave()).await?;
                self.shared.borrow_mut().persistent.orderly.insert((keeper, number));
                return Ok(());
            }
        }
    }

    async fn heard(
        &mut self,
        mqtt: &mut Mqtt,
        text: &str,
        (id, duplicate): (u16, bool),
        chance: &mut Chance,
    ) -> io::Result<()> {
        let value: Value = match text.parse() {
            Ok(value) => value,
            Err(reason) => {
                let reason = format!("keeper {}: {reason}", self.keeper);
                self.shared.borrow_mut().check(Err(reason));
                return Ok(());
            }
        };
        // Some stay unacknowledged, because the keeper is not done with them; in the rest phase, none do.
        let acknowledged = self.shared.borrow().phase == Phase::Rest || !chance.one_in(8);
        if acknowledged {
            mqtt.acknowledge(id).await?;
        }
        let (keeper, connection) = (self.keeper, self.connection);
        let mut record = self.shared.borrow_mut();
        record.trace(|| format!("keeper {keeper} gets {value} as {id}, again: {duplicate}"));
        record.persistent.repeats += u64::from(duplicate);
        let heard = Heard { connection, value, duplicate, acknowledged };
        record.persistent.heard.entry(keeper).or_default().push(heard);
        Ok(())
    }
}

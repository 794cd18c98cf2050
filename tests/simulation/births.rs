//! Births: MQTT clients that publish "here" as soon as they are connected, and leave a will "gone".
//!
//! Checked here: what such a client publishes comes after the wills of all its earlier sessions, however those ended; each will
//! comes once, and only if its session ended without a DISCONNECT.
//!
//! Invariant: only events and steps decide, not the product's state. A client is not told that it is connected while it has an
//! unpublished will: a session that ends before that leaves no will itself.
//!
//! Deliberately absent: delays, and values bound to a session (`state` has those).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use vulpes::log::Placed;
use vulpes::types::act::{Act, Join};
use vulpes::types::event::SessionId;
use vulpes_raft::ids::{Incarnation, NodeId};
use vulpes_raft::order::Step;

use crate::chance::Chance;
use crate::connection::within;
use crate::mqtt::Mqtt;
use crate::plan::Plan;
use crate::record::{Phase, Shared};

/// Prefix of their topics, which subscribers of everything don't get.
pub(crate) const TOPICS: &str = "$life/";

/// Number of clients.
pub(crate) const CLIENTS: u64 = 2;

/// Their seeds start here.
const CHANCES: u64 = 600;

/// Time limit for opening: a node may wait for another one's last word, and for a quorum.
const OPENING: Duration = Duration::from_millis(3_000);

/// Time limit of an answer.
const ANSWER: Duration = Duration::from_millis(1_500);

/// Whether this step ends the sessions of an entry's incarnation.
pub(crate) fn ends(step: &Step, (at, of): (NodeId, Incarnation)) -> bool {
    match step {
        Step::Opened { entry, incarnation } => at == *entry && of < *incarnation,
        Step::Closed { entry, incarnation, .. } => at == *entry && of <= *incarnation,
        Step::Segment(_) => false,
    }
}

/// A session that has not ended.
struct Living {
    place: (NodeId, Incarnation),
    client: String,
    has_will: bool,
    /// Its client had left something when it began.
    held_back: bool,
}

/// What the log shows about these clients.
#[derive(Default)]
pub(crate) struct LifeLog {
    living: BTreeMap<SessionId, Living>,
    /// Wills that are due, and their clients.
    left: BTreeMap<SessionId, String>,
    /// Publishes of clients after one of their wills.
    pub(crate) births: u64,
}

impl LifeLog {
    /// The next slot.
    pub(crate) fn take(&mut self, placed: &Placed) -> Result<(), String> {
        self.end_all(|place| ends(&placed.resolution.step, place));
        let Some(segment) = &placed.segment else { return Ok(()) };
        let id = segment.id();
        for event in segment.events() {
            let topic = segment.topics()[event.topic as usize].1.as_str();
            match Act::decode(&event.act) {
                Some(Act::Join(join)) => {
                    self.begin(event.publisher, (id.entry, id.incarnation), join);
                }
                Some(Act::Attach(attach)) => {
                    self.begin(event.publisher, (id.entry, id.incarnation), attach.join);
                }
                Some(Act::Gone(gone)) => self.gone(event.publisher, gone.drop_will),
                Some(Act::Due(due)) if topic.starts_with(TOPICS) => {
                    let shown = self.left.remove(&due.session).is_some();
                    if shown == placed.is_hidden(event.offset) {
                        let what = if shown { "is hidden" } else { "is shown" };
                        return Err(format!("the will of {:?} on {topic} {what}", due.session));
                    }
                    self.let_in(topic);
                }
                None if topic.starts_with(TOPICS) => self.publishes(event.publisher, topic)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn begin(&mut self, session: SessionId, place: (NodeId, Incarnation), join: Join) {
        let Some(client) = join.client.filter(|client| client.starts_with(NAME)) else { return };
        let older = self.living.iter().find(|(_, living)| living.client == client);
        if let Some(older) = older.map(|(older, _)| *older) {
            self.end(older, false);
        }
        let held_back = self.left.values().any(|left| *left == client);
        let living = Living { place, client, has_will: join.will.is_some(), held_back };
        self.living.insert(session, living);
    }

    fn end(&mut self, session: SessionId, drop_will: bool) {
        let Some(living) = self.living.remove(&session) else { return };
        if living.has_will && !living.held_back && !drop_will {
            self.left.insert(session, living.client);
        }
    }

    /// A connection has ended. A session that was taken over before may withdraw its will.
    fn gone(&mut self, session: SessionId, drop_will: bool) {
        if self.living.contains_key(&session) {
            return self.end(session, drop_will);
        }
        if !drop_will {
            return;
        }
        if let Some(client) = self.left.remove(&session) {
            self.let_in(&client.replacen(NAME, TOPICS, 1));
        }
    }

    fn end_all(&mut self, over: impl Fn((NodeId, Incarnation)) -> bool) {
        let ended = self.living.iter().filter(|(_, living)| over(living.place));
        for session in ended.map(|(session, _)| *session).collect::<Vec<_>>() {
            self.end(session, false);
        }
    }

    /// A will was published or withdrawn: if it was the last of its client's wills, the client may now be told that its session
    /// began.
    fn let_in(&mut self, topic: &str) {
        let client = topic.replacen(TOPICS, NAME, 1);
        if self.left.values().any(|left| *left == client) {
            return;
        }
        let waits = self.living.values_mut().filter(|living| living.client == client);
        waits.for_each(|living| living.held_back = false);
    }

    /// A session publishes something, so its client was told that it is connected.
    fn publishes(&mut self, session: SessionId, topic: &str) -> Result<(), String> {
        // A publish that was on its way when its session ended may come after that.
        let Some(living) = self.living.get(&session) else { return Ok(()) };
        if living.held_back {
            return Err(format!("{session:?} publishes on {topic} before its client's will comes"));
        }
        self.births += 1;
        Ok(())
    }

    /// A will that has yet to be published.
    pub(crate) fn unfinished(&self) -> Option<String> {
        let (session, client) = self.left.first_key_value()?;
        Some(format!("the will that {client} has left in {session:?} is not published"))
    }
}

/// Prefix of the clients' names.
const NAME: &str = "born-";

/// Connects again and again, at any node, until it has connected in the rest phase.
pub(crate) async fn born(plan: Plan, client: u64, shared: Shared) {
    let mut chance = plan.chance(CHANCES + client);
    let entries = plan.shape.entries();
    // Sessions that are still open when the next one comes.
    let mut others = Vec::new();
    for number in 0_u64.. {
        let node = chance.pick(&entries);
        let end = live(node, client, number, &shared, &mut chance).await;
        shared.borrow_mut().trace(|| {
            format!("client {client} was born {number} times, at node {node}: {:?}", end.is_ok())
        });
        match end {
            Ok((Phase::Rest, _)) => return shared.borrow_mut().born(client),
            Ok((Phase::Work, mqtt)) => others.push(mqtt),
            Err(_) => {}
        }
        if chance.one_in(2) {
            others.clear();
        }
        tokio::time::sleep(Duration::from_millis(chance.between(0, 60))).await;
    }
}

/// One connection; returns in which phase it began.
async fn live(
    node: u64,
    client: u64,
    number: u64,
    shared: &Shared,
    chance: &mut Chance,
) -> io::Result<(Phase, Mqtt)> {
    let (name, topic) = (format!("{NAME}{client}"), format!("{TOPICS}{client}"));
    let (node, will) = (crate::node::name(node), format!("gone {number}"));
    let clean = chance.one_in(2);
    let phase = shared.borrow().phase;
    let opening = Mqtt::with_will(&node, &name, (&topic, &will), clean);
    let mut mqtt = within(OPENING, opening).await?;
    mqtt.publish(&topic, number, &format!("here {number}")).await?;
    within(ANSWER, mqtt.next()).await?;
    tokio::time::sleep(Duration::from_millis(chance.between(0, 100))).await;
    if chance.one_in(6) || phase == Phase::Rest {
        within(OPENING, mqtt.leave()).await?;
    }
    Ok((phase, mqtt))
}

/// A client that has not connected since the last fault.
pub(crate) fn unborn(born: &BTreeSet<u64>) -> Option<String> {
    let unborn = (0..CLIENTS).find(|client| !born.contains(client))?;
    Some(format!("client {unborn} of those with wills was not connected"))
}

//! Consumers: they subscribe, record what they see, and continue at another node where they stopped.
//!
//! Invariant: an event is recorded before the next one is awaited, even if a connection ends in between.
//!
//! Deliberately absent: whether they saw the right things.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, Result};
use serde_json::json;
use tokio::time::{sleep, timeout, timeout_at, Instant};

use crate::check::MARK;
use crate::client::{Client, Said};
use crate::cluster::REALM;
use crate::dice::Dice;
use crate::op::{Mode, Pattern, Poll, Protocol, Subscribe};
use crate::stage::{undress, Door, Phase, Stage, OPEN, ROOT};
use crate::wait::{within, PATIENCE};
use crate::wamp::Wamp;

/// Most events of one poll, and how long it waits for a further one.
const BATCH: usize = 128;
const LULL: Duration = Duration::from_millis(20);

/// How long a consumer waits for an event before it tries another node.
const SILENCE: Duration = Duration::from_secs(4);

/// How long a connection stays open, in milliseconds.
const STAY: (u64, u64) = (1_500, 12_000);

/// Time limit for a consumer to see the last published events.
const LAST: Duration = Duration::from_secs(60);

/// A consumer.
pub(super) struct Consumer {
    stage: Arc<Stage>,
    name: String,
    protocol: Protocol,
    pattern: Pattern,
    mode: Mode,
    pub(super) dice: Dice,
    life: u64,
    /// The position it saw last.
    last: Option<u64>,
    /// Final events of the run that it has seen.
    marks: Vec<String>,
}

impl Consumer {
    pub(super) fn new(
        stage: &Arc<Stage>,
        name: &str,
        protocol: Protocol,
        pattern: Pattern,
        mode: Mode,
    ) -> Self {
        let dice = stage.dice(name);
        let (stage, name) = (stage.clone(), name.to_owned());
        Self { stage, name, protocol, pattern, mode, dice, life: 0, last: None, marks: Vec::new() }
    }

    /// One connection, for at most this time and until `enough` holds.
    pub(super) async fn live(&mut self, stay: Duration, enough: impl Fn(&Self) -> bool) {
        let door = self.stage.door(&mut self.dice);
        let Some(mut client) = self.stage.open(door, self.protocol).await else {
            sleep(LULL).await;
            return;
        };
        self.life += 1;
        let mut what = Subscribe {
            consumer: self.name.clone(),
            life: self.life,
            node: door.node,
            protocol: self.protocol,
            pattern: self.pattern.clone(),
            mode: self.mode,
            after: self.after(),
            drain: false,
            reason: None,
        };
        let open = self.stage.journal.ask("subscribe", &what);
        match timeout(OPEN, subscribe(&mut client, &what)).await {
            Ok(Ok(())) => self.stage.journal.ok(open, &what),
            Ok(Err(error)) => {
                what.reason = Some(format!("{error:#}"));
                return self.stage.journal.unknown(open, &what);
            }
            Err(_) => {
                what.reason = Some("no answer in time".to_owned());
                return self.stage.journal.unknown(open, &what);
            }
        }
        let until = Instant::now() + stay;
        while Instant::now() < until && !enough(self) {
            if !self.poll(&mut client).await {
                return;
            }
        }
    }

    /// The position to continue after. MQTT events have no positions, so the largest position known in the run is used.
    fn after(&mut self) -> Option<u64> {
        if self.mode == Mode::State {
            return None;
        }
        if let (Phase::Finish { floor, .. }, None) = (&*self.stage.phase.borrow(), self.last) {
            return Some(*floor);
        }
        match (self.last, self.dice.below(4)) {
            (Some(last), _) => Some(last),
            (None, 0) => Some(0),
            (None, 1) => Some(self.stage.known()),
            (None, _) => None,
        }
    }

    /// Records the events that come next; returns whether more may come.
    async fn poll(&mut self, client: &mut Client) -> bool {
        let mut poll =
            Poll { consumer: self.name.clone(), life: self.life, events: Vec::new(), ended: false };
        let open = self.stage.journal.ask("poll", &poll);
        let mut goes_on = true;
        let mut wait = SILENCE;
        while poll.events.len() < BATCH {
            match timeout(wait, client.next()).await {
                Ok(Ok(Said::Event(seen))) => {
                    poll.events.push(undress(seen));
                    wait = LULL;
                }
                Ok(Ok(Said::Closed(_)) | Err(_)) => {
                    goes_on = false;
                    break;
                }
                Ok(Ok(_)) => {}
                // A pause ends the poll, a long silence the connection.
                Err(_) => {
                    goes_on = !poll.events.is_empty();
                    break;
                }
            }
        }
        self.last = poll.events.iter().filter_map(|event| event.position).next_back().or(self.last);
        let marks = poll.events.iter().filter(|event| event.topic.ends_with(MARK));
        self.marks.extend(marks.map(|event| event.id.clone()));
        self.stage.journal.ok(open, &poll);
        goes_on
    }

    /// Whether it has seen everything that it should see in the end.
    fn is_done(&self) -> bool {
        let Phase::Finish { marks, .. } = &*self.stage.phase.borrow() else { return false };
        let mut mine = marks.iter().filter(|(topic, _)| self.pattern.fits(topic));
        mine.all(|(_, id)| self.marks.contains(id))
    }
}

/// A consumer that stays for the whole run, at one node after the other.
pub(super) async fn stay(mut consumer: Consumer) {
    while consumer.stage.works() {
        let stay = consumer.dice.between(STAY.0, STAY.1);
        consumer.live(Duration::from_millis(stay), Consumer::is_done).await;
    }
    let deadline = Instant::now() + LAST;
    while !consumer.is_done() && Instant::now() < deadline {
        let _ = timeout_at(deadline, consumer.live(LAST, Consumer::is_done)).await;
    }
}

async fn subscribe(client: &mut Client, what: &Subscribe) -> Result<()> {
    match client {
        Client::Wamp(session) => {
            let mut options = match &what.pattern {
                Pattern::Below { .. } => json!({ "match": "prefix" }),
                Pattern::Child { .. } => json!({ "match": "wildcard" }),
                Pattern::Exact { .. } => json!({}),
            };
            if let Some(after) = what.after {
                options["after"] = after.into();
            }
            if what.mode == Mode::State {
                options["retainedState"] = true.into();
            }
            let topic = match &what.pattern {
                Pattern::Below { topic } | Pattern::Child { topic } => format!("{topic}."),
                Pattern::Exact { topic } => topic.clone(),
            };
            session.subscribe(&topic, &options).await
        }
        Client::Mqtt(session) => {
            let filter = match &what.pattern {
                Pattern::Below { topic } => format!("{topic}.#"),
                Pattern::Child { topic } => format!("{topic}.+"),
                Pattern::Exact { topic } => topic.clone(),
            };
            let filter = filter.replace('.', "/");
            let place = what.after.map_or(String::new(), |after| format!("$replay/{after}/"));
            session.subscribe(&format!("{place}{filter}")).await
        }
    }
}

/// Reads all events of the run from a node's log.
///
/// # Errors
/// If the node does not show all of it in time.
pub async fn drain(stage: &Stage, door: Door) -> Result<()> {
    let name = format!("drain-{}", door.node);
    let what = Subscribe {
        consumer: name.clone(),
        life: 1,
        node: door.node,
        protocol: Protocol::Wamp,
        pattern: Pattern::Below { topic: ROOT.to_owned() },
        mode: Mode::Events,
        after: Some(0),
        drain: true,
        reason: None,
    };
    let open = stage.journal.ask("subscribe", &what);
    let mut session = Wamp::connect(door.wamp, REALM).await?;
    let options = json!({ "match": "prefix", "after": 0, "snapshot": true });
    session.subscribe(&format!("{ROOT}."), &options).await?;
    stage.journal.ok(open, &what);
    within(&format!("node {} shows its log", door.node), PATIENCE * 2, async {
        let mut poll = Poll { consumer: name, life: 1, events: Vec::new(), ended: false };
        while !poll.ended {
            let asked = Poll { events: Vec::new(), ..poll.clone() };
            let open = stage.journal.ask("poll", &asked);
            poll.events.clear();
            while poll.events.len() < BATCH && !poll.ended {
                match session.next().await? {
                    Said::Event(event) => poll.events.push(undress(event)),
                    Said::Ended => poll.ended = true,
                    other => bail!("{other:?} in the middle of the log"),
                }
            }
            stage.journal.ok(open, &poll);
        }
        Ok(())
    })
    .await
}

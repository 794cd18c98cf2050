//! Publishers with many publishes in flight, and consumers that come and go.
//!
//! Invariant: a publisher's session ends with the first missing answer.
//!
//! Deliberately absent: conditions, retained values and wills.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{interval, sleep, sleep_until, Instant, MissedTickBehavior};

use super::asking::{is_refusal, ANSWER};
use super::consumer::{self, Consumer};
use crate::client::{Client, Said};
use crate::dice::Dice;
use crate::journal::Open;
use crate::op::{Mode, Pattern, Protocol, Publish};
use crate::stage::{dress, Stage};

/// Publishers and consumers.
const PUBLISHERS: u64 = 6;
const CONSUMERS: u64 = 6;

/// All events of the workload are below this topic.
pub(super) const BASE: &str = "j.log";

/// Time between two publishes of one publisher.
const PACE: Duration = Duration::from_millis(20);

/// Most publishes of one session in flight.
const WINDOW: u64 = 16;

/// Publishes of one session before the publisher connects to another node.
const SESSION: u64 = 400;

/// Keys; a small one is drawn more often than a large one.
const KEYS: u64 = 8;

/// Pause after a node that does not admit a client.
const AGAIN: Duration = Duration::from_millis(100);

pub(super) fn start(stage: &Arc<Stage>, clients: &mut JoinSet<()>) {
    for number in 0..PUBLISHERS {
        let name = format!("p{number}");
        let publisher = Publisher::new(stage, &name, BASE, protocol(number));
        clients.spawn(publisher.run());
    }
    let topic = || BASE.to_owned();
    for number in 0..CONSUMERS {
        let pattern = match number {
            0..=2 => Pattern::Below { topic: topic() },
            3 | 4 => Pattern::Child { topic: topic() },
            _ => Pattern::Exact { topic: "j.log.k0".to_owned() },
        };
        let name = format!("c{number}");
        let protocol = protocol(number);
        let consumer = Consumer::new(stage, &name, protocol, pattern, Mode::Events);
        clients.spawn(consumer::stay(consumer));
    }
}

fn protocol(number: u64) -> Protocol {
    if number.is_multiple_of(2) {
        Protocol::Wamp
    } else {
        Protocol::Mqtt
    }
}

/// A payload size from one byte to more than a segment's usual size; most are small.
fn size(dice: &mut Dice) -> usize {
    let size = match dice.below(1_000) {
        0..=99 => 1,
        100..=899 => dice.between(2, 100),
        900..=989 => dice.between(100, 5_000),
        990..=998 => dice.between(5_000, 60_000),
        _ => dice.between(260_000, 600_000),
    };
    size as usize
}

/// A publisher, in one session after the other.
pub(super) struct Publisher {
    stage: Arc<Stage>,
    name: String,
    /// The common prefix of its topics.
    base: &'static str,
    dice: Dice,
    protocol: Protocol,
}

/// Publishes in flight, by request: when each was sent, and the publish itself.
type Waiting = BTreeMap<u64, (Instant, Open, Publish)>;

impl Publisher {
    pub(super) fn new(
        stage: &Arc<Stage>,
        name: &str,
        base: &'static str,
        protocol: Protocol,
    ) -> Self {
        let dice = stage.dice(name);
        Self { stage: stage.clone(), name: name.to_owned(), base, dice, protocol }
    }

    pub(super) async fn run(mut self) {
        while self.stage.works() {
            let door = self.stage.door(&mut self.dice);
            match self.stage.open(door, self.protocol).await {
                Some(client) => self.session(client, door.node).await,
                None => sleep(AGAIN).await,
            }
        }
    }

    async fn session(&mut self, mut client: Client, node: u64) {
        let session = self.stage.id(&format!("{}.", self.name));
        let window = self.dice.between(1, WINDOW) as usize;
        let most = self.dice.between(1, SESSION);
        let mut waiting = Waiting::new();
        let mut number = 0;
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let goes_on = number < most && self.stage.works();
            if !goes_on && waiting.is_empty() {
                return;
            }
            let patience = waiting.values().map(|(sent, ..)| *sent).min();
            let patience = patience.unwrap_or_else(Instant::now) + ANSWER;
            tokio::select! {
                said = client.next() => match said {
                    Ok(said) => if let Some(reason) = self.hear(said, &mut waiting) {
                        return self.give_up(waiting, &reason);
                    },
                    Err(error) => return self.give_up(waiting, &format!("{error:#}")),
                },
                () = sleep_until(patience) => {
                    return self.give_up(waiting, "no answer in time");
                }
                _ = pace.tick(), if goes_on && waiting.len() < window => {
                    number += 1;
                    let (mut what, text) = self.next(&session, number, node);
                    let open = self.stage.journal.ask("publish", &what);
                    match client.publish(&what.topic, &text).await {
                        Ok(request) => drop(waiting.insert(request, (Instant::now(), open, what))),
                        Err(error) => {
                            what.reason = Some(format!("{error:#}"));
                            self.stage.journal.unknown(open, &what);
                            return self.give_up(waiting, "the connection is gone");
                        }
                    }
                }
            }
        }
    }

    fn next(&mut self, session: &str, number: u64, node: u64) -> (Publish, String) {
        let id = self.stage.id(&format!("{}-", self.name));
        let key = self.dice.below(KEYS).min(self.dice.below(KEYS));
        let (topic, text) = dress(&id, &format!("{}.k{key}", self.base), size(&mut self.dice));
        let what = Publish {
            session: session.to_owned(),
            number,
            id,
            topic,
            node,
            protocol: self.protocol,
            retain: false,
            expect: None,
            watch: false,
            will: None,
            position: None,
            reason: None,
        };
        (what, text)
    }

    /// Records a message of the node; returns why the session is over, if it is.
    fn hear(&self, said: Said, waiting: &mut Waiting) -> Option<String> {
        match said {
            Said::Acknowledged { request, position } => {
                let (_, open, mut what) = waiting.remove(&request)?;
                self.stage.learn(position);
                what.position = position;
                self.stage.journal.ok(open, &what);
            }
            Said::Refused { request, reason } => {
                let (_, open, mut what) = waiting.remove(&request)?;
                let refused = is_refusal(&reason);
                what.reason = Some(reason);
                if refused {
                    self.stage.journal.fail(open, &what);
                } else {
                    self.stage.journal.unknown(open, &what);
                }
            }
            Said::Closed(reason) => return Some(reason),
            Said::Event(_) | Said::Ended => {}
        }
        None
    }

    fn give_up(&self, waiting: Waiting, reason: &str) {
        for (_, open, mut what) in waiting.into_values() {
            what.reason = Some(reason.to_owned());
            self.stage.journal.unknown(open, &what);
        }
    }
}

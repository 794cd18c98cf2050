//! Watchers: subscribers that begin with the retained values, at random moments.
//!
//! Checked here: a watcher begins with the values as of one position of the log, and then gets each later change once, in the
//! log's order, with the log's own positions and values.
//!
//! Invariant: each subscription is checked by itself, against the log's changes. A watcher never resumes from an earlier
//! position.
//!
//! Deliberately absent: subscribers of all events (`clients`).

use std::io;
use std::time::Duration;

use serde_json::{json, Value as Json};
use vulpes::types::value::Value;
use vulpes_raft::ids::Position;

use crate::chance::Chance;
use crate::plan::Plan;
use crate::record::{Phase, Shared};
use crate::registers::BELOW;
use crate::state::{Change, StateLog, View};
use crate::wamp::{Wamp, EVENT, SUBSCRIBE, SUBSCRIBED};

/// Number of watchers.
pub(crate) const WATCHERS: u64 = 2;

/// Their seeds start here.
const CHANCES: u64 = 500;

/// How long a watcher receives nothing before it checks whether its node is alive, and then again before it leaves.
const SILENCE: Duration = Duration::from_millis(400);

/// How long a watcher waits for its subscription.
const OPENING: Duration = Duration::from_millis(1_500);

/// The events of one subscription.
#[derive(Default)]
pub(crate) struct Watch {
    /// The values it began with.
    values: View,
    /// The later changes.
    changes: Vec<Change>,
}

impl Watch {
    /// The current values according to what the subscription received.
    fn view(&self) -> View {
        let mut view = self.values.clone();
        for change in &self.changes {
            match change.value {
                Value::Null => view.remove(&change.topic),
                _ => view.insert(change.topic.clone(), change.position),
            };
        }
        view
    }

    /// Compares what was received with the log's changes.
    fn check(&self, log: &[Change]) -> Result<(), String> {
        let Some(first) = self.changes.first() else { return Ok(()) };
        let begins = log.partition_point(|change| change.position < first.position);
        let mut stood = View::new();
        for change in &log[..begins] {
            match change.value {
                Value::Null => stood.remove(&change.topic),
                _ => stood.insert(change.topic.clone(), change.position),
            };
        }
        if self.values != stood {
            let values = &self.values;
            return Err(format!("before {first:?} stood {stood:?}, not {values:?}"));
        }
        let mut expected = log[begins..].iter();
        self.changes.iter().try_for_each(|change| match expected.next() {
            Some(next) if next == change => Ok(()),
            next => Err(format!("{change:?} came where {next:?} is next")),
        })
    }
}

/// What all watchers got.
#[derive(Default)]
pub(crate) struct Watches {
    /// By watcher.
    now: [Watch; WATCHERS as usize],
    over: Vec<Watch>,
}

impl Watches {
    fn begin(&mut self, watcher: u64) {
        let watch = std::mem::take(&mut self.now[watcher as usize]);
        self.over.push(watch);
    }

    /// How many subscriptions joined values and changes.
    pub(crate) fn joins(&self) -> u64 {
        self.over.iter().chain(&self.now).filter(|watch| !watch.changes.is_empty()).count() as u64
    }

    /// A watcher that does not have all current values.
    pub(crate) fn unfinished(&self, state: &StateLog) -> Option<String> {
        let all = state.view(&format!("{BELOW}/"));
        let behind = self.now.iter().position(|watch| watch.view() != all)?;
        Some(format!("watcher {behind} does not have the values as they are"))
    }

    /// Checks that each subscription got what it should.
    pub(crate) fn verdict(&self, state: &StateLog) -> Result<(), String> {
        let below = format!("{BELOW}/");
        let all = state.changes().iter().filter(|change| change.topic.starts_with(&below));
        let all: Vec<Change> = all.cloned().collect();
        let mut watches = self.over.iter().chain(&self.now);
        watches.try_for_each(|watch| {
            watch.check(&all).map_err(|reason| format!("a watcher was misled: {reason}"))
        })
    }
}

/// Watches all shared values below one topic, for the whole run.
pub(crate) async fn watcher(plan: Plan, watcher: u64, shared: Shared) {
    let mut chance = plan.chance(CHANCES + watcher);
    let entries = plan.shape.entries();
    loop {
        let node = chance.pick(&entries);
        let end = watch(node, watcher, &shared, &mut chance).await;
        shared.borrow_mut().trace(|| format!("watcher {watcher} leaves node {node}: {end:?}"));
        tokio::time::sleep(Duration::from_millis(chance.between(1, 50))).await;
    }
}

fn failed(reason: impl ToString) -> io::Error {
    io::Error::other(reason.to_string())
}

async fn watch(node: u64, watcher: u64, shared: &Shared, chance: &mut Chance) -> io::Result<()> {
    let name = crate::node::name(node);
    let opening = async {
        let mut wamp = Wamp::open(&name).await?;
        let options = json!({ "retainedState": true });
        wamp.send(&json!([SUBSCRIBE, 1, options, format!("{BELOW}.#")])).await?;
        match wamp.message().await? {
            Some(message) if message[0] == SUBSCRIBED => Ok(wamp),
            other => Err(failed(format!("not subscribed: {other:?}"))),
        }
    };
    let opened = tokio::time::timeout(OPENING, opening).await;
    let mut wamp = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    shared.borrow_mut().watches.begin(watcher);
    let mut asked = false;
    loop {
        match tokio::time::timeout(SILENCE, wamp.message()).await {
            Ok(message) => {
                asked = false;
                let Some(message) = message? else { continue };
                let mut record = shared.borrow_mut();
                let (change, retained) = read(&message)?;
                record.trace(|| format!("watcher {watcher} gets {change:?}"));
                let watch = &mut record.watches.now[watcher as usize];
                if !retained {
                    watch.changes.push(change);
                } else if watch.changes.is_empty() {
                    watch.values.insert(change.topic, change.position);
                } else {
                    record.check(Err(format!("watcher {watcher} gets {change:?} late")));
                }
            }
            Err(_) if !asked => {
                asked = true;
                wamp.ping().await?;
            }
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
        // Most start over before long, at a random moment.
        if shared.borrow().phase == Phase::Work && chance.one_in(12) {
            return Ok(());
        }
    }
}

/// An event: its change, and whether it is the topic's retained value.
fn read(message: &Json) -> io::Result<(Change, bool)> {
    let (position, topic) = (message[2].as_u64(), message[3]["topic"].as_str());
    let (Some(EVENT), Some(position), Some(topic)) = (message[0].as_u64(), position, topic) else {
        return Err(failed(format!("unexpected: {message}")));
    };
    let value = message[4][0].as_str().map_or(Value::Null, |text| Value::Str(text.to_owned()));
    let change = Change { position: Position(position), topic: topic.replace('.', "/"), value };
    Ok((change, message[3]["retained"] == true))
}

//! Insiders: WAMP clients that publish and read topics which, one after the other, they may not see any more.
//!
//! In plans with rules, the cluster has users, and an operator at each node denies one topic after the other to all clients. All
//! other clients of the run then live under rules as well.
//!
//! Checked here: no insider gets an event of a topic that is denied at the event's position and ever after, live or replayed,
//! whatever its node knows.
//!
//! Invariant: the log's acts alone say what is denied where. An operator's change that another one overtakes in the order may
//! allow a topic again for a while: then its events may come late.
//!
//! Deliberately absent: how rules are matched, and what they refuse to do.

use std::io;
use std::time::Duration;

use serde_json::json;
use vulpes::entry::{Batch, EntryHandle};
use vulpes::log::Placed;
use vulpes::types::access::{ChangeUsers, User, UserChange, ADMIN, ANONYMOUS};
use vulpes::types::act::Act;
use vulpes::types::event::{Event, SessionId};
use vulpes::types::rule::{ChangeRoles, Role, RoleChange, DEFAULT};
use vulpes::types::topic::Realm;
use vulpes_raft::ids::Position;

use crate::chance::Chance;
use crate::plan::Plan;
use crate::record::{Phase, Shared};
use crate::wamp::{Wamp, EVENT, PUBLISH, SUBSCRIBE, SUBSCRIBED};

/// Number of insiders.
pub(crate) const INSIDERS: u64 = 3;

/// Their seeds start here.
const CHANCES: u64 = 700;

/// Topics are denied at this pace.
const PACE: Duration = Duration::from_millis(250);

/// How long an insider waits for its subscription.
const OPENING: Duration = Duration::from_millis(1_500);

/// The topics with lower numbers are denied from now on, if an operator comes through.
fn denied_now() -> u64 {
    (turmoil::sim_elapsed().unwrap_or_default().as_millis() / PACE.as_millis()) as u64
}

/// What the log says about rules.
#[derive(Default)]
pub(crate) struct RuleLog {
    has_users: bool,
    /// From which position on how many topics are denied.
    denied: Vec<(Position, u64)>,
}

impl RuleLog {
    /// The next slot. All its events go by the rules at its end.
    pub(crate) fn take(&mut self, placed: &Placed) {
        let Some(segment) = &placed.segment else { return };
        let mut last = None;
        for event in segment.events() {
            match Act::decode(&event.act) {
                Some(Act::ChangeUsers(_)) => self.has_users = true,
                Some(Act::ChangeRoles(change)) if self.has_users => {
                    last = change.changes.into_iter().next();
                }
                _ => {}
            }
        }
        if let Some(RoleChange::Set { role, .. }) = last {
            let denied = role.rules.iter().filter(|rule| rule.deny).count() as u64;
            self.denied.push((placed.resolution.base, denied));
        }
    }

    /// The position from which on a topic is denied at an event's position and ever after.
    fn is_denied(&self, topic: u64, at: Position) -> Option<Position> {
        let before = self.denied.partition_point(|(from, _)| *from <= at);
        let from = before.checked_sub(1)?;
        self.denied[from..].iter().all(|(_, denied)| topic < *denied).then(|| self.denied[from].0)
    }
}

/// What insiders got: positions and topics.
#[derive(Default)]
pub(crate) struct Insiders {
    heard: Vec<(Position, u64)>,
}

impl Insiders {
    pub(crate) fn heard(&self) -> u64 {
        self.heard.len() as u64
    }

    pub(crate) fn verdict(&self, log: &RuleLog) -> Result<(), String> {
        for (at, topic) in &self.heard {
            if let Some(from) = log.is_denied(*topic, *at) {
                return Err(format!(
                    "an insider got $secret.{topic} at {at}, which is denied from {from} on"
                ));
            }
        }
        Ok(())
    }
}

fn failed(reason: impl ToString) -> io::Error {
    io::Error::other(reason.to_string())
}

/// Denies one topic after the other, as an operator at a node, until faults end.
pub(crate) async fn operator(entry: EntryHandle, mut chance: Chance, quiet_from: Duration) {
    let admin = User { roles: vec![ADMIN.into()], verifier: "v".into(), disabled: false };
    let add = |name: &str, user| UserChange::Add { name: name.into(), user };
    let users = vec![add("admin", admin), add(ANONYMOUS, User::default())];
    let users = Act::ChangeUsers(ChangeUsers { author: String::new(), changes: users });
    while turmoil::sim_elapsed().is_some_and(|now| now < quiet_from) {
        let deny = (0..denied_now()).map(|topic| format!("deny subscribe $secret/{topic}"));
        let rules = std::iter::once("allow all #".to_owned()).chain(deny);
        let role = Role { rules: rules.map(|rule| rule.parse().expect("a rule")).collect() };
        let changes = vec![RoleChange::Set { name: DEFAULT.into(), role }];
        let roles = Act::ChangeRoles(ChangeRoles { author: "admin".into(), changes });
        let event = |act: &Act| {
            let realm = Realm::new("realm1").expect("a realm's name");
            Event::of_act(realm, "vulpes/access", SessionId(0), act.encode())
        };
        let batch = Batch::own(vec![event(&users), event(&roles)]);
        if entry.submit(batch).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(chance.between(50, 600))).await;
    }
}

/// Publishes and reads, at one node after the other, until faults end.
pub(crate) async fn insider(plan: Plan, insider: u64, shared: Shared) {
    let mut chance = plan.chance(CHANCES + insider);
    let entries = plan.shape.entries();
    while shared.borrow().phase == Phase::Work {
        let node = chance.pick(&entries);
        let end = listen(node, &shared, &mut chance).await;
        shared.borrow_mut().trace(|| format!("insider {insider} leaves node {node}: {end:?}"));
        tokio::time::sleep(Duration::from_millis(chance.between(1, 100))).await;
    }
}

async fn listen(node: u64, shared: &Shared, chance: &mut Chance) -> io::Result<()> {
    let name = crate::node::name(node);
    let replay = chance.one_in(2);
    let opening = async {
        let mut wamp = Wamp::open(&name).await?;
        let options = if replay { json!({"after": 0}) } else { json!({}) };
        wamp.send(&json!([SUBSCRIBE, 1, options, "$secret.#"])).await?;
        loop {
            match wamp.message().await? {
                Some(message) if message[0] == SUBSCRIBED => return Ok(wamp),
                Some(other) => return Err(failed(format!("not subscribed: {other}"))),
                None => {}
            }
        }
    };
    let opened = tokio::time::timeout(OPENING, opening).await;
    let mut wamp = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    for number in 2..chance.between(10, 60) {
        if shared.borrow().phase == Phase::Rest {
            break;
        }
        let topic = format!("$secret.{}", denied_now() + chance.below(3));
        wamp.send(&json!([PUBLISH, number, {"exclude_me": false}, topic, [number]])).await?;
        let pause = Duration::from_millis(chance.between(5, 60));
        let until = tokio::time::Instant::now() + pause;
        while let Ok(message) = tokio::time::timeout_at(until, wamp.message()).await {
            let Some(message) = message?.filter(|message| message[0] == EVENT) else { continue };
            let topic = message[3]["topic"].as_str();
            let topic = topic.and_then(|topic| topic.strip_prefix("$secret.")?.parse().ok());
            let at = message[2].as_u64().map(Position);
            let heard = at.zip(topic).ok_or_else(|| failed(format!("no event: {message}")))?;
            shared.borrow_mut().insiders.heard.push(heard);
        }
    }
    Ok(())
}

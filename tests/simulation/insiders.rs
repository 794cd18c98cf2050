//! Insiders: WAMP clients that publish and read topics which, one after the other, they may not see any more.
//!
//! In plans with rules, the cluster has users, and an operator at each node denies one topic after the other to all clients. It
//! often comes late, and allows some of them again for a while. All other clients of the run then live under rules as well.
//!
//! Checked here: an insider gets exactly those events that it may see by the rules at each event's own position, whatever its
//! node knows. One that replays gets no event that is denied at its position and ever after.
//!
//! Invariant: the log's acts alone say what is denied where.
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

/// What the log says about rules, and what insiders could get.
#[derive(Default)]
pub(crate) struct RuleLog {
    has_users: bool,
    /// How many topics are denied from behind a position on.
    denied: Vec<(Position, u64)>,
    /// The positions and topics of insiders' events.
    events: Vec<Heard>,
}

/// An insiders' event: its position, and its topic.
type Heard = (Position, u64);

impl RuleLog {
    /// The next slot.
    pub(crate) fn take(&mut self, placed: &Placed) {
        let Some(segment) = &placed.segment else { return };
        for event in segment.events() {
            let at = Position(placed.resolution.base.0 + u64::from(event.offset));
            let (_, topic) = &segment.topics()[event.topic as usize];
            if let Some(topic) = topic.as_str().strip_prefix("$secret/") {
                self.events.push((at, topic.parse().expect("an insiders' topic")));
            }
            match Act::decode(&event.act) {
                Some(Act::ChangeUsers(_)) => self.has_users = true,
                Some(Act::ChangeRoles(change)) if self.has_users => {
                    if let Some(RoleChange::Set { role, .. }) = change.changes.first() {
                        let denied = role.rules.iter().filter(|rule| rule.deny).count();
                        self.denied.push((at, denied as u64));
                    }
                }
                _ => {}
            }
        }
    }

    /// The changes from the last one before a position on.
    fn from(&self, at: Position) -> &[(Position, u64)] {
        let behind = self.denied.partition_point(|(from, _)| *from < at);
        behind.checked_sub(1).map_or(&[], |last| &self.denied[last..])
    }

    /// The position of the change by which an event is denied.
    fn denial(&self, (at, topic): Heard) -> Option<Position> {
        let (from, denied) = self.from(at).first()?;
        (topic < *denied).then_some(*from)
    }

    /// Whether an event is denied by its own rules and by all later ones.
    fn is_denied_for_good(&self, (at, topic): Heard) -> bool {
        let rules = self.from(at);
        !rules.is_empty() && rules.iter().all(|(_, denied)| topic < *denied)
    }

    /// What an insider should have got between its first event and its last one.
    fn due(&self, heard: &[Heard]) -> Vec<Heard> {
        let [Some(first), Some(last)] = [heard.first(), heard.last()] else { return Vec::new() };
        let span = self.events.iter().filter(|event| (first.0..=last.0).contains(&event.0));
        span.filter(|event| self.denial(**event).is_none()).copied().collect()
    }
}

/// What insiders got, session by session.
#[derive(Default)]
pub(crate) struct Insiders {
    live: Vec<Vec<Heard>>,
    replayed: Vec<Heard>,
}

impl Insiders {
    pub(crate) fn heard(&self) -> u64 {
        (self.live.iter().map(Vec::len).sum::<usize>() + self.replayed.len()) as u64
    }

    pub(crate) fn verdict(&self, log: &RuleLog) -> Result<(), String> {
        let denied = |(at, topic): &Heard, from: Position| {
            format!("an insider got $secret.{topic} at {at}, which is denied from {from} on")
        };
        for heard in self.live.iter().flatten() {
            if let Some(from) = log.denial(*heard) {
                return Err(denied(heard, from));
            }
        }
        for heard in &self.replayed {
            let from = log.denial(*heard).filter(|_| log.is_denied_for_good(*heard));
            if let Some(from) = from {
                return Err(denied(heard, from));
            }
        }
        for heard in &self.live {
            let due = log.due(heard);
            if *heard != due {
                let missed: Vec<_> = due.iter().filter(|event| !heard.contains(event)).collect();
                return Err(format!("an insider missed {missed:?} of what it could see"));
            }
        }
        Ok(())
    }

    /// A session begins that reads from now on.
    fn begin(&mut self) -> usize {
        self.live.push(Vec::new());
        self.live.len() - 1
    }

    /// Such a session, or one that replays, got an event.
    fn note(&mut self, live: Option<usize>, heard: Heard) {
        match live {
            Some(session) => self.live[session].push(heard),
            None => self.replayed.push(heard),
        }
    }
}

fn failed(reason: impl ToString) -> io::Error {
    io::Error::other(reason.to_string())
}

/// Denies one topic after the other, and allows some for a while, as an operator at a node, until faults end.
pub(crate) async fn operator(entry: EntryHandle, mut chance: Chance, quiet_from: Duration) {
    let admin = User { roles: vec![ADMIN.into()], verifier: "v".into(), disabled: false };
    let add = |name: &str, user| UserChange::Add { name: name.into(), user };
    let users = vec![add("admin", admin), add(ANONYMOUS, User::default())];
    let users = Act::ChangeUsers(ChangeUsers { author: String::new(), changes: users });
    while turmoil::sim_elapsed().is_some_and(|now| now < quiet_from) {
        let again = if chance.one_in(3) { chance.below(4) } else { 0 };
        let denied = denied_now().saturating_sub(again);
        let deny = (0..denied).map(|topic| format!("deny subscribe $secret/{topic}"));
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
    let live = (!replay).then(|| shared.borrow_mut().insiders.begin());
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
            shared.borrow_mut().insiders.note(live, heard);
        }
    }
    Ok(())
}

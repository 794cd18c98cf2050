//! The history in the checks' terms: operations with their outcomes, consumers with what they saw, and the log.
//!
//! Invariant: an answer belongs to the operation its process had open. A history that breaks the rules of
//! [`crate::op`] is refused, not judged.
//!
//! Deliberately absent: any judgement.

use std::collections::{BTreeMap, HashMap};

use anyhow::{bail, ensure, Context, Result};

use crate::op::{
    Attach, Blow, Call, Died, End, Event, Filter, Healed, Hear, Heard, Invoked, Kind, Leave, Op,
    Order, Pattern, Plan, Poll, Process, Publish, Read, Row, State, Subscribe, Testament, Use,
};

/// A line of the history: its index gives the order, its time is for reports and deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub index: u64,
    pub time: u64,
}

/// The outcome of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate<T> {
    Ok(Moment, T),
    Failed(Moment, T),
    /// Unknown; with the client's last note, if there is one.
    Unknown(Option<T>),
}

impl<T> Fate<T> {
    pub fn ok(&self) -> Option<(Moment, &T)> {
        match self {
            Self::Ok(moment, answer) => Some((*moment, answer)),
            _ => None,
        }
    }
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked<T> {
    pub f: String,
    pub at: Moment,
    pub what: T,
    pub fate: Fate<T>,
    /// When the client recorded its outcome, if it could.
    pub told: Option<Moment>,
}

/// One connection of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    pub asked: Subscribe,
    /// When it was about to subscribe.
    pub at: Moment,
    /// When the node confirmed the subscription.
    pub granted: Option<Moment>,
    pub seen: Vec<(Moment, Event)>,
    pub ended: bool,
}

/// One connection of a client whose MQTT session outlives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sitting {
    pub asked: Attach,
    /// When the node admitted it, and whether it had found the session.
    pub granted: Option<(Moment, bool)>,
    pub filter: Option<Filtered>,
    pub heard: Vec<(Moment, Heard)>,
    /// Ids of events that it acknowledged, or tried to.
    pub acknowledged: Vec<String>,
    /// When it was about to leave, and how it did.
    pub left: Option<(Moment, Leave)>,
}

/// A session subscribes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filtered {
    pub pattern: Pattern,
    /// When the node confirmed the subscription.
    pub granted: Option<Moment>,
}

/// A fault, from before its beginning to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub blow: Blow,
    /// When the nemesis was about to strike.
    pub struck: Moment,
    /// When it was proved; never, if it failed.
    pub from: Option<Moment>,
    /// When it was over. The effects of a failed one were undone.
    pub to: Option<Moment>,
}

/// A run.
#[derive(Debug, Clone, Default)]
pub struct Story {
    pub plan: Option<Plan>,
    pub publishes: Vec<Asked<Publish>>,
    pub consumers: BTreeMap<String, Vec<Life>>,
    pub reads: Vec<Asked<Read>>,
    pub uses: Vec<Asked<Use>>,
    pub testaments: Vec<Asked<Testament>>,
    pub calls: Vec<Asked<Call>>,
    /// Further answers to calls.
    pub answers: Vec<Call>,
    /// What callees were asked to carry out.
    pub invocations: Vec<(Moment, Invoked)>,
    pub sittings: BTreeMap<String, Vec<Sitting>>,
    pub ends: BTreeMap<String, (Moment, End)>,
    /// Rows of the order by node, and whether they are complete.
    pub orders: BTreeMap<u64, (Vec<Row>, bool)>,
    pub states: Vec<State>,
    pub faults: Vec<Fault>,
    /// Nodes that ended without a reason.
    pub died: Vec<Died>,
    /// Nodes that acknowledged nothing after healing, and the reason they reported.
    pub silent: Vec<Died>,
    pub healed: Option<(Moment, Healed)>,
}

impl Story {
    /// Reads a history.
    ///
    /// # Errors
    /// If it breaks the rules of histories.
    pub fn new(ops: &[Op]) -> Result<Self> {
        let mut story = Self::default();
        let mut open: BTreeMap<Process, &Op> = BTreeMap::new();
        let mut retired = std::collections::BTreeSet::new();
        for (place, op) in ops.iter().enumerate() {
            ensure!(op.index == place as u64, "line {place} has the index {}", op.index);
            if op.process == Process::Nemesis {
                story.nemesis(op)?;
                continue;
            }
            ensure!(!retired.contains(&op.process), "{:?} goes on after an info", op.process);
            match op.kind {
                Kind::Invoke => {
                    let before = open.insert(op.process, op);
                    ensure!(before.is_none(), "{:?} asks twice at {place}", op.process);
                    continue;
                }
                Kind::Info if !open.contains_key(&op.process) => {
                    story.note(op)?;
                    continue;
                }
                Kind::Info => {
                    retired.insert(op.process);
                }
                Kind::Ok | Kind::Fail => {}
            }
            let asked = open.remove(&op.process);
            let asked = asked.with_context(|| format!("an answer to nothing at {place}"))?;
            ensure!(asked.f == op.f, "{} is answered by {} at {place}", asked.f, op.f);
            story.answered(asked, op)?;
        }
        for asked in open.into_values() {
            story.answered(asked, &Op { kind: Kind::Info, ..asked.clone() })?;
        }
        story.publishes.sort_by_key(|publish| publish.at);
        Ok(story)
    }

    fn nemesis(&mut self, op: &Op) -> Result<()> {
        let at = moment(op);
        match op.f.as_str() {
            "plan" => self.plan = Some(op.read()?),
            "strike" => {
                self.faults.push(Fault { blow: op.read()?, struck: at, from: None, to: None });
            }
            "start" | "stop" | "failed" => {
                let blow: Blow = op.read()?;
                let fault = self.faults.iter_mut().find(|f| f.blow.number == blow.number);
                let fault = fault.with_context(|| format!("{blow:?} was never struck"))?;
                fault.blow = blow;
                let moment = if op.f == "start" { &mut fault.from } else { &mut fault.to };
                *moment = Some(at);
            }
            "died" => self.died.push(op.read()?),
            "silent" => self.silent.push(op.read()?),
            "healed" => self.healed = Some((at, op.read()?)),
            "state" => self.states.push(op.read()?),
            "order" => {
                let part: Order = op.read()?;
                let (rows, ended) = self.orders.entry(part.node).or_default();
                rows.extend(part.rows);
                *ended |= part.ended;
            }
            other => bail!("the nemesis does {other}"),
        }
        Ok(())
    }

    /// A client's note, without an operation.
    fn note(&mut self, op: &Op) -> Result<()> {
        match op.f.as_str() {
            "end" => {
                let end: End = op.read()?;
                self.ends.entry(end.session.clone()).or_insert((moment(op), end));
            }
            "answer" => self.answers.push(op.read()?),
            "invoked" => self.invocations.push((moment(op), op.read()?)),
            other => bail!("a note of {other}"),
        }
        Ok(())
    }

    fn answered(&mut self, asked: &Op, answer: &Op) -> Result<()> {
        match asked.f.as_str() {
            "publish" | "write" | "cas" | "acquire" | "release" | "bind" => {
                self.publishes.push(pair(asked, answer)?);
            }
            "read" => self.reads.push(pair(asked, answer)?),
            "use" => self.uses.push(pair(asked, answer)?),
            "testament" => self.testaments.push(pair(asked, answer)?),
            "call" => self.calls.push(pair(asked, answer)?),
            "subscribe" => {
                let what: Subscribe = asked.read()?;
                let granted = (answer.kind == Kind::Ok).then(|| moment(answer));
                let lives = self.consumers.entry(what.consumer.clone()).or_default();
                let at = moment(asked);
                lives.push(Life { asked: what, at, granted, seen: Vec::new(), ended: false });
            }
            "poll" => self.polled(answer)?,
            "attach" => {
                let (what, said): (Attach, Attach) = (asked.read()?, answer.read()?);
                let present = said.present.filter(|_| answer.kind == Kind::Ok);
                self.sittings.entry(what.client.clone()).or_default().push(Sitting {
                    asked: what,
                    granted: present.map(|present| (moment(answer), present)),
                    filter: None,
                    heard: Vec::new(),
                    acknowledged: Vec::new(),
                    left: None,
                });
            }
            "filter" => {
                let Filter { client, life, pattern } = asked.read()?;
                let granted = (answer.kind == Kind::Ok).then(|| moment(answer));
                self.sitting(&client, life)?.filter = Some(Filtered { pattern, granted });
            }
            "hear" => {
                let Hear { client, life, events, acknowledged } = answer.read()?;
                let sitting = self.sitting(&client, life)?;
                sitting.heard.extend(events.into_iter().map(|event| (moment(answer), event)));
                sitting.acknowledged.extend(acknowledged);
            }
            "leave" => {
                let leave: Leave = answer.read()?;
                let sitting = self.sitting(&leave.client, leave.life)?;
                sitting.left = Some((moment(asked), leave));
            }
            other => bail!("an operation {other}"),
        }
        Ok(())
    }

    fn polled(&mut self, answer: &Op) -> Result<()> {
        let poll: Poll = answer.read()?;
        let lives = self.consumers.get_mut(&poll.consumer);
        let life = lives.and_then(|lives| lives.iter_mut().find(|l| l.asked.life == poll.life));
        let life = life.with_context(|| format!("{} polls before it subscribes", poll.consumer))?;
        if answer.kind == Kind::Ok {
            life.seen.extend(poll.events.into_iter().map(|event| (moment(answer), event)));
            life.ended |= poll.ended;
        }
        Ok(())
    }

    fn sitting(&mut self, client: &str, life: u64) -> Result<&mut Sitting> {
        let mut sittings = self.sittings.get_mut(client).into_iter().flatten();
        let sitting = sittings.find(|sitting| sitting.asked.life == life);
        sitting.with_context(|| format!("{client} has no connection {life}"))
    }

    /// Complete reads of the log, each with its node.
    pub fn drains(&self) -> impl Iterator<Item = (u64, &Life)> {
        let lives = self.consumers.values().flatten();
        lives.filter(|life| life.asked.drain && life.ended).map(|life| (life.asked.node, life))
    }

    /// The log of the first node that showed all of it. `positions` compares the others with it.
    #[must_use]
    pub fn log(&self) -> Option<Log<'_>> {
        let (_, life) = self.drains().next()?;
        Some(Log::new(life.seen.iter().map(|(_, event)| event)))
    }

    /// Whether there was a fault between two moments, or up to this many nanoseconds before the first.
    #[must_use]
    pub fn is_hurt(&self, from: Moment, to: Moment, after: u64) -> bool {
        self.faults.iter().any(|fault| {
            let over = fault.to.map_or(u64::MAX, |over| over.time.saturating_add(after));
            fault.struck <= to && from.time <= over
        })
    }

    /// Publishes by id. Deletions have none.
    #[must_use]
    pub fn by_id(&self) -> HashMap<&str, &Asked<Publish>> {
        let with_id = self.publishes.iter().filter(|publish| !publish.what.id.is_empty());
        with_id.map(|publish| (publish.what.id.as_str(), publish)).collect()
    }
}

fn moment(op: &Op) -> Moment {
    Moment { index: op.index, time: op.time }
}

fn pair<T: for<'a> serde::Deserialize<'a>>(asked: &Op, answer: &Op) -> Result<Asked<T>> {
    let at = moment(answer);
    let fate = match answer.kind {
        Kind::Ok => Fate::Ok(at, answer.read()?),
        Kind::Fail => Fate::Failed(at, answer.read()?),
        Kind::Info | Kind::Invoke => Fate::Unknown(Some(answer.read()?)),
    };
    let told = (answer.index > asked.index).then_some(at);
    Ok(Asked { f: asked.f.clone(), at: moment(asked), what: asked.read()?, fate, told })
}

/// The contents of the log.
#[derive(Debug)]
pub struct Log<'a> {
    pub events: Vec<&'a Event>,
    /// The first index of each id in `events`.
    pub places: HashMap<&'a str, usize>,
}

impl<'a> Log<'a> {
    fn new(events: impl Iterator<Item = &'a Event>) -> Self {
        let events: Vec<&Event> = events.collect();
        let mut places = HashMap::new();
        for (place, event) in events.iter().enumerate() {
            if !event.id.is_empty() {
                places.entry(event.id.as_str()).or_insert(place);
            }
        }
        Self { events, places }
    }

    /// The position of the event with this id.
    #[must_use]
    pub fn position(&self, id: &str) -> Option<u64> {
        self.events[*self.places.get(id)?].position
    }

    /// A publish's position: that of the event with its id, or, for a deletion, the reported one.
    #[must_use]
    pub fn position_of(&self, publish: &Asked<Publish>) -> Option<u64> {
        if publish.what.id.is_empty() {
            publish.fate.ok().and_then(|(_, answer)| answer.position)
        } else {
            self.position(&publish.what.id)
        }
    }
}

/// Why there is nothing to compare with.
pub const NO_LOG: &str = "no node showed its whole log";

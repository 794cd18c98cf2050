//! What happened in a run: publishes, answers and deliveries, compared with the log at once.
//!
//! Checked here, of "What must never happen" (`src/ARCHITECTURE.md`): an acknowledged value is at the position in the
//! acknowledgement, and at no other (1); every subscriber sees the log's own order without gap or repeat (1, 2); the log has
//! nothing that no client published, and nothing that was answered as not stored (8); all nodes have the same state at the same
//! slot.
//!
//! Invariant: the first violation is recorded, and a run with a violation has failed. A missing answer leaves the outcome
//! unknown, which may turn out either way.
//!
//! Deliberately absent: nodes and their faults (`cluster`).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use vulpes::log::Placed;
use vulpes::realm::StateHash;
use vulpes_jepsen::register::Registers;
use vulpes_raft::ids::{Position, Slot};
use vulpes_raft::order::SealedSegment;

use crate::births;
use crate::calls::CALLERS;
use crate::delays::{self, Delays};
use crate::insiders::Insiders;
use crate::keepers::KeptRecord;
use crate::locks::LOCKERS;
use crate::log::OrderLog;
use crate::plan::Plan;
use crate::value::Value;
use crate::watchers::Watches;

/// The phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// There are faults, and clients publish.
    #[default]
    Work,
    /// There are no more faults: everything has to settle.
    Rest,
}

/// What is known of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Stored,
    NotStored,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) attempts: u64,
    pub(crate) acknowledged: u64,
    pub(crate) delivered: u64,
    pub(crate) crashes: u64,
    pub(crate) cuts: u64,
    pub(crate) grants: u64,
    /// Nodes that failed with their disks.
    pub(crate) broken: u64,
    /// How often a clock was wrong.
    pub(crate) clocks: u64,
    /// Nodes that were away for longer than the log was retained.
    pub(crate) left_behind: u64,
    /// How often the log was shortened.
    pub(crate) released: u64,
    /// Disks that have rotted.
    pub(crate) rotten: u64,
    /// Nodes that can't continue with their disks' contents.
    pub(crate) retired: u64,
    /// Answers to operations on registers.
    pub(crate) answers: u64,
    /// Subscriptions that continued after their initial values.
    pub(crate) joins: u64,
    pub(crate) calls: u64,
    /// Segments in the order without storage votes.
    pub(crate) early: u64,
    pub(crate) results: u64,
    /// Events that insiders got.
    pub(crate) heard: u64,
    /// What clients with wills published.
    pub(crate) births: u64,
    /// Delayed wills that came in time.
    pub(crate) delayed: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.crashes += other.crashes;
        self.cuts += other.cuts;
        self.grants += other.grants;
        self.broken += other.broken;
        self.clocks += other.clocks;
        self.left_behind += other.left_behind;
        self.released += other.released;
        self.rotten += other.rotten;
        self.retired += other.retired;
        self.answers += other.answers;
        self.joins += other.joins;
        self.calls += other.calls;
        self.early += other.early;
        self.results += other.results;
        self.heard += other.heard;
        self.births += other.births;
        self.delayed += other.delayed;
    }
}

/// A value that a subscriber got, with its position and event id, if known.
type Heard = (Value, Option<(Position, String)>);

/// What happened so far.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) log: OrderLog,
    pub(crate) persistent: KeptRecord,
    pub(crate) delays: Delays,
    pub(crate) insiders: Insiders,
    pub(crate) phase: Phase,
    pub(crate) counts: Counts,
    /// Milliseconds since the simulation began.
    pub(crate) now: u64,
    attempts: BTreeMap<Value, Outcome>,
    /// Positions that clients got in answers or events, but that no node has shown yet.
    awaited: BTreeMap<Position, Vec<(Value, String)>>,
    /// The last position each subscriber has seen.
    readers: BTreeMap<u64, Position>,
    /// Deliveries beyond the known log.
    heard: BTreeMap<u64, VecDeque<Heard>>,
    /// Subscribers whose position was released, and the first retained position that they got.
    outrun: Vec<(u64, Position)>,
    /// Lockers that were granted the lock, with the token.
    grants: Vec<(u64, Position)>,
    /// Lockers that have had the lock since the last fault.
    relocked: Vec<u64>,
    pub(crate) registers: Registers,
    pub(crate) watches: Watches,
    /// Callers that have had a result since the last fault.
    recalled: Vec<u64>,
    /// Clients with wills that were connected since the last fault.
    born: BTreeSet<u64>,
    /// The hash of the realms' state before a slot, according to the first node.
    states: BTreeMap<Slot, StateHash>,
    /// Nodes that stay away for good.
    pub(crate) retired: Vec<u64>,
    /// Nodes whose clients have had a publish acknowledged since the last fault.
    served: Vec<u64>,
    violation: Option<String>,
    trace: Vec<String>,
}

/// The record, shared by all clients and the loop of one run.
pub(crate) type Shared = Rc<RefCell<Record>>;

impl Record {
    /// Records something that a run with the same seed has to repeat.
    pub(crate) fn trace(&mut self, what: impl FnOnce() -> String) {
        let line = format!("{:>6} {}", self.now, what());
        self.trace.push(line);
    }

    /// Records a violation, if the result is an error.
    pub(crate) fn check(&mut self, result: Result<(), String>) {
        if let Err(reason) = result {
            self.trace(|| format!("VIOLATION {reason}"));
            self.violation.get_or_insert(reason);
        }
    }

    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub(crate) fn into_trace(self) -> Vec<String> {
        self.trace
    }

    /// A node shows a slot; returns the segments that became known by it.
    pub(crate) fn shown(&mut self, node: u64, placed: &Placed) -> Vec<SealedSegment> {
        let known = self.log.values().len();
        let found = match self.log.show(placed) {
            Ok(found) => found,
            Err(reason) => {
                self.check(Err(format!("node {node}: {reason}")));
                return Vec::new();
            }
        };
        self.trace(|| format!("node {node} shows {:?}", placed.resolution));
        for at in known..self.log.values().len() {
            if let Some(value) = self.log.values()[at] {
                self.placed(Position(at as u64 + 1), value);
            }
        }
        let readers: Vec<u64> = self.heard.keys().copied().collect();
        readers.into_iter().for_each(|reader| self.follow(reader));
        found
    }

    /// A value was ordered.
    fn placed(&mut self, position: Position, value: Value) {
        match self.attempts.get(&value) {
            Some(Outcome::Unknown | Outcome::Stored) => {}
            Some(Outcome::NotStored) => {
                self.check(Err(format!(
                    "{value} is in the log, and its publisher was told that it is not"
                )));
            }
            None => self.check(Err(format!("{value} is in the log, and nobody published it"))),
        }
        for (told, who) in self.awaited.remove(&position).unwrap_or_default() {
            self.check(same(position, value, told, &who));
        }
    }

    /// A client learned that a value is at a position.
    fn told(&mut self, position: Position, value: Value, who: String) {
        let known = (position.0 as usize).checked_sub(1).map(|at| self.log.values().get(at));
        match known {
            None => self.check(Err(format!("{who} was told of position 0"))),
            Some(Some(Some(known))) => {
                let known = *known;
                self.check(same(position, known, value, &who));
            }
            Some(Some(None)) => {
                self.check(Err(format!("{who} was told of {value} at {position}, which has none")));
            }
            Some(None) => self.awaited.entry(position).or_default().push((value, who)),
        }
    }

    /// A client is about to publish.
    pub(crate) fn attempt(&mut self, value: Value) {
        self.counts.attempts += 1;
        let first = self.attempts.insert(value, Outcome::Unknown);
        assert_eq!(first, None, "the simulation published {value} twice");
    }

    /// A publisher got the answer that its value is stored, with the position if its protocol has it.
    pub(crate) fn acknowledged(&mut self, value: Value, position: Option<Position>) {
        self.trace(|| format!("{value} is acknowledged at {position:?}"));
        self.counts.acknowledged += 1;
        match self.attempts.insert(value, Outcome::Stored) {
            Some(Outcome::Unknown) => {}
            other => self.check(Err(format!("{value} was acknowledged after {other:?}"))),
        }
        if let Some(position) = position {
            self.told(position, value, format!("the publisher of {value}"));
        }
    }

    /// A publisher got the answer that its value is not stored and never will be.
    pub(crate) fn refused(&mut self, value: Value) {
        self.trace(|| format!("{value} is refused"));
        match self.attempts.insert(value, Outcome::NotStored) {
            Some(Outcome::Unknown) => {}
            other => self.check(Err(format!("{value} was refused after {other:?}"))),
        }
        if let Some(position) = self.log.place(value) {
            let reason = format!("{value} was refused, and stands at position {position}");
            self.check(Err(reason));
        }
    }

    /// A subscriber got an event. MQTT has no positions: the event has to be the next one.
    pub(crate) fn delivered(
        &mut self,
        reader: u64,
        value: Value,
        told: Option<(Position, String)>,
    ) {
        self.counts.delivered += 1;
        self.heard.entry(reader).or_default().push_back((value, told));
        self.follow(reader);
    }

    /// Compares a subscriber's events with the log, as far as that is known: a client may get an event in the same moment in
    /// which its node shows it.
    fn follow(&mut self, reader: u64) {
        while let Some(next) = self.log.next_value(self.read_by(reader)) {
            let heard = self.heard.get_mut(&reader).and_then(VecDeque::pop_front);
            let Some((value, told)) = heard else { return };
            self.trace(|| format!("reader {reader} gets {value}, expecting {next}"));
            if let Some((position, id)) = told {
                if position != next {
                    let reason =
                        format!("reader {reader} got position {position} where {next} is next");
                    self.check(Err(reason));
                }
                let known = self.log.event_id(position).map(|known| known.to_string());
                if known.as_ref().is_some_and(|known| *known != id) {
                    let reason =
                        format!("position {position} is {known:?}, and reader {reader} got {id}");
                    self.check(Err(reason));
                }
            }
            self.readers.insert(reader, next);
            self.told(next, value, format!("reader {reader}"));
        }
    }

    /// A subscriber got the error that its position is released, with the first retained position.
    pub(crate) fn gone(&mut self, reader: u64, oldest: Position) {
        let read = self.read_by(reader);
        // A subscriber right before the head may still be refused: its event id can't be compared any more once the event is
        // released.
        if oldest < read.next() {
            let reason = format!("reader {reader} has read {read}, and is sent on to {oldest}");
            self.check(Err(reason));
        }
        self.outrun.push((reader, oldest));
        self.skip(reader, oldest);
    }

    /// A subscriber continues at a position, whatever comes before it.
    pub(crate) fn skip(&mut self, reader: u64, next: Position) {
        self.trace(|| format!("reader {reader} goes on at {next}"));
        self.heard.remove(&reader);
        let read = self.readers.entry(reader).or_default();
        *read = (*read).max(Position(next.0 - 1));
    }

    /// A client was granted the lock, with this token.
    pub(crate) fn granted(&mut self, locker: u64, token: Position) {
        self.trace(|| format!("locker {locker} has the lock with token {token}"));
        self.grants.push((locker, token));
        self.counts.grants += 1;
        if self.phase == Phase::Rest && !self.relocked.contains(&locker) {
            self.relocked.push(locker);
        }
    }

    /// A call is about to be made; returns its number.
    pub(crate) fn call(&mut self) -> u64 {
        self.counts.calls += 1;
        self.counts.calls
    }

    /// A call was answered, with a result or an error, or wrongly.
    pub(crate) fn called(&mut self, caller: u64, number: u64, outcome: Result<bool, String>) {
        self.trace(|| format!("call {number} of caller {caller} is answered: {outcome:?}"));
        if outcome == Ok(true) {
            self.counts.results += 1;
            if self.phase == Phase::Rest && !self.recalled.contains(&caller) {
                self.recalled.push(caller);
            }
        }
        self.check(outcome.map(drop));
    }

    /// A client with a will was connected since the last fault.
    pub(crate) fn born(&mut self, client: u64) {
        self.born.insert(client);
    }

    /// Whether a caller has had a result since the last fault.
    pub(crate) fn has_called(&self, caller: u64) -> bool {
        self.recalled.contains(&caller)
    }

    /// A node's state of the realms, after a slot.
    pub(crate) fn state(&mut self, node: u64, next: Slot, hash: StateHash) {
        let first = *self.states.entry(next).or_insert(hash);
        if first != hash {
            self.check(Err(format!("node {node} has another state before slot {next}")));
        }
    }

    /// The last position a subscriber has seen.
    pub(crate) fn read_by(&self, reader: u64) -> Position {
        self.readers.get(&reader).copied().unwrap_or_default()
    }

    /// A node answered a publish that was made since the last fault.
    pub(crate) fn served(&mut self, node: u64) {
        self.trace(|| format!("node {node} serves again"));
        self.served.push(node);
    }

    /// What the cluster's clients still wait for, after the last fault.
    pub(crate) fn waiting(&self, plan: &Plan, readers: u64) -> Option<String> {
        let mut entries = plan.serving();
        entries.retain(|node| !self.retired.contains(node));
        if let Some(node) = entries.iter().find(|node| !self.served.contains(node)) {
            return Some(format!("a publish at node {node} is not acknowledged"));
        }
        // A publisher may learn of a position a moment before any node shows it.
        if let Some((position, told)) = self.awaited.first_key_value() {
            return Some(format!("position {position} was told and is not shown: {told:?}"));
        }
        let last = self.log.last_value();
        // Checked before the clients that it would block.
        if let Some(topic) = self.log.state.unfinished() {
            return Some(format!("{topic} has the value of a session that has ended"));
        }
        if let Some(locker) = (0..LOCKERS).find(|locker| !self.relocked.contains(locker)) {
            return Some(format!("locker {locker} has not had the lock"));
        }
        if let Some(reason) = self.watches.unfinished(&self.log.state) {
            return Some(reason);
        }
        if let Some(caller) = (0..CALLERS).find(|caller| !self.recalled.contains(caller)) {
            return Some(format!("caller {caller} has had no result"));
        }
        let delayed = delays::unfinished(&self.log.delays, &self.delays, self.phase);
        if let Some(reason) = delayed.filter(|_| plan.clocks.is_some()) {
            return Some(reason);
        }
        let life = self.log.life.unfinished().or_else(|| births::unborn(&self.born));
        if life.is_some() {
            return life;
        }
        if let Some(keeper) = self.persistent.waiting(&self.log, plan.keepers) {
            return Some(format!("keeper {keeper} has not got the last value"));
        }
        // If the log is released past its last value, a reader continues after that.
        let behind = (0..readers).find(|reader| self.read_by(*reader) < last)?;
        let at = self.read_by(behind);
        Some(format!("reader {behind} is at position {at} of {last}"))
    }

    /// The rules for the end, when everything has settled.
    pub(crate) fn verdict(&mut self) {
        self.check(self.log.times.verdict());
        let lost = self.attempts.iter().find(|(value, outcome)| {
            **outcome == Outcome::Stored && self.log.place(**value).is_none()
        });
        let lost = lost.map(|(value, _)| format!("{value} was acknowledged and is lost"));
        self.check(lost.map_or(Ok(()), Err));
        let awaited = self.awaited.iter().next();
        let awaited = awaited.map(|(position, told)| {
            format!("position {position} is in no node's log, but was told: {told:?}")
        });
        self.check(awaited.map_or(Ok(()), Err));
        let unheard = self.heard.iter().find(|(_, heard)| !heard.is_empty());
        let unheard = unheard.map(|(reader, heard)| format!("reader {reader} got {heard:?}"));
        self.check(unheard.map_or(Ok(()), Err));
        let heads: Vec<Position> = self.log.heads().iter().map(|head| head.position).collect();
        let wrong = self.outrun.iter().find(|(_, oldest)| !heads.contains(oldest)).copied();
        let wrong = wrong.map(|(reader, oldest)| {
            format!("reader {reader} was told that the log begins at {oldest}, it did at {heads:?}")
        });
        self.check(wrong.map_or(Ok(()), Err));
        let granted = self.log.lock.verdict(&self.grants);
        self.check(granted);
        self.check(self.watches.verdict(&self.log.state));
        self.check(self.registers.check().map_err(|error| format!("{error:#}")));
        self.check(self.insiders.verdict(&self.log.rules));
        let persistent = self.persistent.verdict(&self.log);
        self.check(persistent);
        if self.log.parked() > 0 {
            self.check(Err("a slot was shown, and the one before it never".into()));
        }
    }
}

fn same(position: Position, stands: Value, told: Value, who: &str) -> Result<(), String> {
    if stands == told {
        Ok(())
    } else {
        Err(format!("{stands} stands at position {position}, and {who} was told that {told} does"))
    }
}

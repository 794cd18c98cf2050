//! Histories of a correct cluster, generated from a seed.
//!
//! Invariant: one log explains every answer. Each operation takes effect at one moment between its beginning and its end, or
//! never if no client got the answer that it did.
//!
//! Deliberately absent: time. Each line is [`STEP`] after the one before.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{json, Value};

use super::keepers::Keeper;
use crate::dice::Dice;
use crate::layout::Layout;
use crate::op::{Kind, Op, Process};

/// Steps of a generated run before it ends.
const STEPS: usize = 1_000;

/// Nanoseconds between two lines.
pub(super) const STEP: u64 = 1_000_000_000;

const NODES: u64 = 3;

/// Consumers; every other one begins with retained values.
const READERS: usize = 12;

/// A pending operation.
struct Under {
    process: u64,
    f: &'static str,
    value: Value,
}

/// A connected consumer.
struct Reader {
    name: String,
    life: u64,
    wamp: bool,
    state: bool,
    /// Its index in the log.
    at: usize,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) ops: Vec<Op>,
    processes: u64,
    numbers: BTreeMap<String, u64>,
    /// Events: position, topic, id.
    pub(super) log: Vec<(u64, String, String)>,
    values: BTreeMap<String, String>,
    position: u64,
    ids: u64,
    begun: VecDeque<Under>,
    done: Vec<Under>,
    readers: Vec<Reader>,
    pub(super) keepers: Vec<Keeper>,
    /// The session that holds the lock, or waits for it.
    lock: Option<String>,
    /// Sessions with a will: topic, the expected value, and whether a goodbye drops it.
    wills: Vec<(String, String, String, bool)>,
}

/// A whole run.
pub(super) fn history(seed: u64) -> Vec<Op> {
    let mut dice = Dice::new(seed);
    let mut world = World::default();
    world.nemesis(
        "plan",
        json!({ "seed": seed, "layout": Layout::whole(NODES), "seconds": 1, "nemeses": ["kill"],
                "workloads": ["log", "kv", "lock", "retained", "will", "calls", "session"] }),
    );
    for _ in 0..STEPS {
        world.step(&mut dice);
    }
    world.end(&mut dice);
    world.ops
}

impl World {
    fn say(&mut self, kind: Kind, process: Process, f: &str, value: Value) {
        let index = self.ops.len() as u64;
        self.ops.push(Op { index, time: index * STEP, kind, process, f: f.to_owned(), value });
    }

    fn nemesis(&mut self, f: &str, value: Value) {
        self.say(Kind::Info, Process::Nemesis, f, value);
    }

    fn note(&mut self, f: &str, value: Value) {
        self.processes += 1;
        self.say(Kind::Info, Process::Client(self.processes), f, value);
    }

    fn begin(&mut self, f: &'static str, value: Value) {
        self.processes += 1;
        self.say(Kind::Invoke, Process::Client(self.processes), f, value.clone());
        self.begun.push_back(Under { process: self.processes, f, value });
    }

    pub(super) fn at_once(&mut self, f: &str, value: Value, answer: Value) {
        self.processes += 1;
        let process = Process::Client(self.processes);
        self.say(Kind::Invoke, process, f, value);
        self.say(Kind::Ok, process, f, answer);
    }

    fn id(&mut self) -> String {
        self.ids += 1;
        format!("e{}", self.ids)
    }

    fn publish(&mut self, session: &str, topic: &str, id: &str) -> Value {
        let number = self.numbers.entry(session.to_owned()).or_default();
        *number += 1;
        json!({ "session": session, "number": *number, "id": id, "topic": topic,
                "node": self.processes % NODES + 1, "protocol": "wamp" })
    }

    fn append(&mut self, dice: &mut Dice, topic: &str, id: &str, retain: bool) -> u64 {
        // Positions in between belong to events that no client sees.
        self.position += 1 + dice.below(2);
        self.log.push((self.position, topic.to_owned(), id.to_owned()));
        if retain {
            self.values.insert(topic.to_owned(), id.to_owned());
        }
        self.position
    }

    fn step(&mut self, dice: &mut Dice) {
        match dice.below(30) {
            0..=3 => {
                let (session, topic) = (dice.below(4), dice.below(3));
                let id = self.id();
                let mut value = self.publish(&format!("p{session}"), &format!("log.t{topic}"), &id);
                value["retain"] = dice.chance(0.3).into();
                self.begin("publish", value);
            }
            4..=6 => self.register(dice),
            7 => self.lock(dice),
            8 | 27 => self.will(dice),
            9 => {
                let id = self.id();
                let call = json!({ "id": id, "node": 1, "argument": 7 });
                let mut answer = call.clone();
                answer["result"] = 8.into();
                self.processes += 1;
                let process = Process::Client(self.processes);
                self.say(Kind::Invoke, process, "call", call);
                self.note("invoked", json!({ "id": answer["id"], "node": 2 }));
                self.say(Kind::Ok, process, "call", answer);
            }
            10..=15 => self.take_effect(dice),
            16..=21 => self.finish(dice),
            22 => {
                let number = self.ops.len();
                let blow = json!({ "number": number, "nemesis": "kill", "how": "one", "nodes": [2],
                                   "proof": "seen" });
                self.nemesis("strike", blow.clone());
                if dice.chance(0.1) {
                    return self.nemesis("failed", blow);
                }
                self.nemesis("start", blow.clone());
                for _ in 0..dice.below(8) {
                    self.take_effect(dice);
                    self.finish(dice);
                }
                self.nemesis("stop", blow);
            }
            23..=26 => self.read(dice),
            _ => super::keepers::step(self, dice),
        }
    }

    fn register(&mut self, dice: &mut Dice) {
        let topic = format!("kv.r{}", dice.below(2));
        let busy = |under: &Under| under.value["session"] == "k";
        if dice.chance(0.4) {
            self.begin("read", json!({ "topic": topic, "node": 1 }));
        } else if !self.begun.iter().any(busy) {
            let id = self.id();
            let mut value = self.publish("k", &topic, &id);
            value["retain"] = true.into();
            if dice.chance(0.8) {
                let now = self.values.get(&topic).cloned().unwrap_or_default();
                value["expect"] = if dice.chance(0.7) { now.into() } else { "other".into() };
                self.begin("cas", value);
            } else {
                self.begin("write", value);
            }
        }
    }

    /// A client gets the lock, uses the protected resource, and then frees the lock or ends its session.
    fn lock(&mut self, dice: &mut Dice) {
        let Some(session) = self.lock.take() else {
            let session = format!("h{}", self.ops.len());
            let id = self.id();
            let mut value = self.publish(&session, "lock.a", &id);
            value["retain"] = true.into();
            value["watch"] = true.into();
            value["expect"] = "".into();
            value["will"] = "".into();
            self.processes += 1;
            let process = Process::Client(self.processes);
            self.say(Kind::Invoke, process, "acquire", value.clone());
            let token = self.append(dice, "lock.a", &id, true);
            value["position"] = token.into();
            self.say(Kind::Ok, process, "acquire", value);
            let used = json!({ "topic": "lock.a", "session": session, "token": token });
            self.at_once("use", used.clone(), used);
            self.lock = Some(session);
            return;
        };
        if dice.chance(0.5) {
            let mut value = self.publish(&session, "lock.a", "");
            value["retain"] = true.into();
            let mut answer = value.clone();
            answer["position"] = self.append(dice, "lock.a", "", true).into();
            self.at_once("release", value, answer);
        } else {
            self.note("end", json!({ "session": session, "clean": false }));
            self.append(dice, "lock.a", "", true);
        }
    }

    fn will(&mut self, dice: &mut Dice) {
        if dice.chance(0.5) {
            let session = format!("w{}", self.ops.len());
            let topic = format!("will.{session}");
            let will = format!("down-{session}");
            let voids = dice.chance(0.75);
            if !voids {
                let id = self.id();
                let mut value = self.publish(&session, &topic, &id);
                value["retain"] = true.into();
                value["will"] = will.clone().into();
                let mut answer = value.clone();
                answer["position"] = self.append(dice, &topic, &id, true).into();
                self.at_once("bind", value, answer);
            } else {
                let value = json!({ "session": session, "node": 1, "topic": topic, "will": will });
                self.at_once("testament", value.clone(), value);
            }
            self.wills.push((session, topic, will, voids));
        } else {
            self.die(dice);
        }
    }

    /// The session with the last will ends.
    fn die(&mut self, dice: &mut Dice) {
        let Some((session, topic, will, voids)) = self.wills.pop() else { return };
        let clean = voids && dice.chance(0.8);
        self.note("end", json!({ "session": session, "clean": clean, "known": clean }));
        if !clean {
            self.append(dice, &topic, &will, true);
        }
    }

    /// The oldest operation of one session takes effect.
    fn take_effect(&mut self, dice: &mut Dice) {
        let Some(first) = self.begun.pop_front() else { return };
        let Under { process, f, mut value } = first;
        if f == "read" {
            let topic = value["topic"].as_str().unwrap_or_default();
            value["id"] = self.values.get(topic).cloned().unwrap_or_default().into();
        } else {
            let topic = value["topic"].as_str().unwrap_or_default().to_owned();
            let id = value["id"].as_str().unwrap_or_default().to_owned();
            let now = self.values.get(&topic).cloned().unwrap_or_default();
            if value["expect"].as_str().is_some_and(|expected| expected != now) {
                value["reason"] = "not accepted".into();
            } else if dice.chance(0.03) {
                // The request was lost on the way; its outcome stays unknown.
                return;
            } else {
                let retain = value["retain"] == true;
                value["position"] = self.append(dice, &topic, &id, retain).into();
            }
        }
        self.done.push(Under { process, f, value });
    }

    fn finish(&mut self, dice: &mut Dice) {
        if self.done.is_empty() {
            return;
        }
        let at = dice.below(self.done.len() as u64) as usize;
        let Under { process, f, mut value } = self.done.swap_remove(at);
        let kind = match (value.get("reason"), dice.chance(0.05)) {
            (_, true) => Kind::Info,
            (Some(_), _) => Kind::Fail,
            (None, _) => Kind::Ok,
        };
        if kind == Kind::Info {
            value = json!(value);
        }
        self.say(kind, Process::Client(process), f, value);
    }

    fn read(&mut self, dice: &mut Dice) {
        match dice.below(3) {
            0 if self.readers.len() < READERS => {
                let name = format!("c{}", self.ops.len());
                let (wamp, state) = (dice.chance(0.6), self.readers.len().is_multiple_of(2));
                let at = self.log.len();
                self.readers.push(Reader { name, life: 1, wamp, state, at });
                self.subscribe(self.readers.len() - 1, None);
            }
            1 if !self.readers.is_empty() => {
                let at = dice.below(self.readers.len() as u64) as usize;
                self.poll(at, 1 + dice.below(6) as usize);
            }
            _ if !self.readers.is_empty() => {
                let at = dice.below(self.readers.len() as u64) as usize;
                let reader = &mut self.readers[at];
                if reader.state {
                    return;
                }
                reader.life += 1;
                let resumes = reader.wamp && reader.at > 0 && dice.chance(0.7);
                let after = resumes.then(|| self.log[reader.at - 1].0);
                if after.is_none() {
                    reader.at = self.log.len();
                }
                self.subscribe(at, after);
            }
            _ => {}
        }
    }

    fn subscribe(&mut self, reader: usize, after: Option<u64>) {
        let Reader { name, life, wamp, state, .. } = &self.readers[reader];
        let value = json!({
            "consumer": name, "life": life, "node": 1, "protocol": if *wamp { "wamp" } else { "mqtt" },
            "pattern": { "match": "below", "topic": "log" },
            "mode": if *state { "state" } else { "events" }, "after": after,
        });
        let (name, life, wamp, state) = (name.clone(), *life, *wamp, *state);
        self.at_once("subscribe", value.clone(), value);
        if state {
            let shown: Vec<Value> = (self.values.iter())
                .filter(|(topic, _)| topic.starts_with("log."))
                .map(|(topic, id)| {
                    let position = self.log.iter().rev().find(|event| &event.2 == id);
                    let position = position.filter(|_| wamp).map(|event| event.0);
                    json!([position, topic, id, true])
                })
                .collect();
            self.seen(&name, life, shown);
        }
    }

    fn seen(&mut self, name: &str, life: u64, events: Vec<Value>) {
        let asked = json!({ "consumer": name, "life": life });
        let answer = json!({ "consumer": name, "life": life, "events": events });
        self.at_once("poll", asked, answer);
    }

    fn poll(&mut self, reader: usize, most: usize) {
        let Reader { name, life, wamp, at, .. } = &mut self.readers[reader];
        let mut events = Vec::new();
        while events.len() < most && *at < self.log.len() {
            let (position, topic, id) = &self.log[*at];
            *at += 1;
            if topic.starts_with("log.") {
                events.push(json!([wamp.then_some(*position), topic, id, false]));
            }
        }
        let (name, life) = (name.clone(), *life);
        self.seen(&name, life, events);
    }

    fn end(&mut self, dice: &mut Dice) {
        while !self.begun.is_empty() {
            self.take_effect(dice);
        }
        while !self.done.is_empty() {
            self.finish(dice);
        }
        while !self.wills.is_empty() {
            self.die(dice);
        }
        self.nemesis("healed", json!({ "lost": [] }));
        for node in 1..=NODES {
            let id = self.id();
            let mut value = self.publish(&format!("mark{node}"), "log.mark", &id);
            value["node"] = node.into();
            let mut answer = value.clone();
            answer["position"] = self.append(dice, "log.mark", &id, false).into();
            self.at_once("publish", value, answer);
        }
        for reader in 0..self.readers.len() {
            self.poll(reader, usize::MAX);
        }
        super::keepers::end(self, dice);
        for node in 1..=NODES {
            let name = format!("drain-{node}");
            let value = json!({ "consumer": name, "life": 1, "node": node, "protocol": "wamp", "drain": true,
                                "pattern": { "match": "below", "topic": "log" }, "mode": "events", "after": 0 });
            self.at_once("subscribe", value.clone(), value);
            let events: Vec<Value> = (self.log.iter())
                .map(|(position, topic, id)| json!([position, topic, id, false]))
                .collect();
            let asked = json!({ "consumer": name, "life": 1 });
            let answer = json!({ "consumer": name, "life": 1, "events": events, "ended": true });
            self.at_once("poll", asked, answer);
            let mut rows = vec![json!([1, 1, 0, 5, "opened", 1, 1, null, null, null])];
            let mut base = 1;
            while base <= self.position {
                let count = 10.min(self.position + 1 - base);
                let (slot, number) = (rows.len() + 1, rows.len() - 1);
                let checksum = format!("{base:016x}");
                rows.push(json!([
                    slot,
                    base,
                    count,
                    5 + base,
                    "segment",
                    1,
                    1,
                    number,
                    checksum,
                    checksum
                ]));
                base += count;
            }
            let slot = rows.len() + 1;
            self.nemesis("order", json!({ "node": node, "rows": rows, "ended": true }));
            self.nemesis("state", json!({ "node": node, "slot": slot, "hash": "abc" }));
        }
    }
}

//! Runs the scripts: reads `> input` lines, and records the core's requests after each.
//!
//! Invariant: after every input except `take` the turn ends and all outputs are drained, as the driver does it.
//!
//! Deliberately absent: any check besides comparing the texts and checking that the core never asks to be woken in the past.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use vulpes_raft::ids::{Position, Slot, Stamp};
use vulpes_raft::order::CloseReason;

use super::super::*;
use crate::append::StorageVote;
use crate::entry::sync_model::groups_of;
use crate::types::event::{ClientTag, Extensions, Payload, Qos};
use crate::types::topic::{Realm, Topic};

const NODE: NodeId = NodeId(7);

pub(in crate::entry::core) fn event(session: u64, payload: Bytes) -> Event {
    Event {
        realm: Realm::new("realm").unwrap(),
        topic: Topic::from_mqtt("a/b").unwrap(),
        publisher: SessionId(session),
        client: ClientTag::NONE,
        exclude_me: true,
        disclose_me: false,
        retain: false,
        qos: Qos::AtLeastOnce,
        payload: Payload::raw(payload),
        properties: Bytes::new(),
        act: Bytes::new(),
        extensions: Extensions::default(),
    }
}

struct Bench {
    core: Core<char>,
    now: Moment,
    next: BTreeMap<char, u64>,
    sealed: BTreeMap<AdvanceSegment, SealedBody>,
    calls: BTreeMap<u64, usize>,
    text: String,
}

/// Runs a script of an entry whose segments wait for votes, and compares the output.
pub(super) fn check(script: &str) {
    run(false, script);
}

fn run(early: bool, script: &str) {
    let tuning = EntryTuning { early, ..EntryTuning::default() };
    let mut bench = Bench {
        core: Core::new(NODE, 0, Duration::from_secs(9)).tuned(tuning),
        now: Moment(0),
        next: BTreeMap::new(),
        sealed: BTreeMap::new(),
        calls: BTreeMap::new(),
        text: String::new(),
    };
    let script: Vec<&str> = script.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for line in &script {
        if let Some(input) = line.strip_prefix("> ") {
            writeln!(bench.text, "{line}").unwrap();
            let words: Vec<&str> = input.split(' ').collect();
            bench.input(&words);
            bench.outputs();
        }
    }
    assert_eq!(bench.text.lines().collect::<Vec<_>>(), script, "\n{}", bench.text);
}

/// The usual beginning: incarnation 1 is open, all three storages grant a credit of 2.
pub(super) fn check_open(script: &str) {
    run(false, &format!("{OPEN}{script}"));
}

/// The same with segments that are proposed as soon as they are sealed.
pub(super) fn check_early(script: &str) {
    run(true, &format!("{OPEN}{script}"));
}

const OPEN: &str = "
        > turn
          open 0
        > opened 1
          begin 1 of 1
          begin 2 of 1
          begin 3 of 1
        > begun 1 2
        > begun 2 2
        > begun 3 2
        > log 1 opened 1
    ";

fn id(text: &str) -> AdvanceSegment {
    let (incarnation, number) = text.split_once('/').unwrap();
    AdvanceSegment {
        entry: NODE,
        incarnation: Incarnation(incarnation.parse().unwrap()),
        number: SegmentNumber(number.parse().unwrap()),
    }
}

/// Groups, as in `1,2,3+4,5`.
fn groups(text: &str) -> StorageGroups {
    let nodes = |group: &str| group.split(',').map(|node| node.parse().unwrap()).collect();
    let groups: Vec<Vec<u64>> = text.split('+').map(nodes).collect();
    groups_of(&groups.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn order_error(text: &str) -> OrderError {
    match text {
        "unavailable" => OrderError::Unavailable,
        "unknown" => OrderError::Unknown,
        other => panic!("no such error: {other}"),
    }
}

fn place(base: u64) -> Place {
    Place { slot: Slot(base), stamp: Stamp(base), base: Position(base) }
}

impl Bench {
    /// Every input except `take` ends the turn.
    fn input(&mut self, words: &[&str]) {
        let now = self.now;
        match words {
            ["turn"] => {}
            ["after", time] => self.now = after(now, time.parse().unwrap()),
            ["take" | "submit", session, count] => self.submit(session, count, 10, None),
            ["submit", session, count, "of", incarnation] => {
                let incarnation = Incarnation(incarnation.parse().unwrap());
                self.submit(session, count, 10, Some(incarnation));
            }
            ["take" | "submit", session, count, size] => {
                self.submit(session, count, size.parse().unwrap(), None);
            }
            ["opened", incarnation] => self.opened(incarnation, "1,2,3"),
            ["opened", incarnation, "groups", groups] => self.opened(incarnation, groups),
            ["open", error] => self.core.opened(Err(order_error(error)), now),
            ["begun", storage, credit] => {
                let storage = NodeId(storage.parse().unwrap());
                let current = self.core.life.current().unwrap();
                let failed = AppendError::Unreachable { storage, reason: String::new() };
                let result = credit.parse().map_err(|_| failed);
                self.core.begun(storage, current, result, now);
            }
            ["vote", storage, segment, rest @ ..] => self.vote(storage, id(segment), rest),
            ["told", storage, through, rest @ ..] => {
                let storage = NodeId(storage.parse().unwrap());
                let failed = AppendError::Unreachable { storage, reason: String::new() };
                let result = if rest.is_empty() { Ok(()) } else { Err(failed) };
                self.core.told(storage, id(through), result, now);
            }
            ["proposed", call, outcomes @ ..] => self.proposed(call.parse().unwrap(), outcomes),
            ["regrouped", named] => self.core.regrouped(Ok(groups(named)), now),
            ["renewed", incarnation, outcome] => {
                let result = match *outcome {
                    "held" => Ok(Lease::Held),
                    "lost" => Ok(Lease::Lost),
                    error => Err(order_error(error)),
                };
                self.core.renewed(Incarnation(incarnation.parse().unwrap()), result, now);
            }
            ["log", slot, step @ ..] => self.log(slot.parse().unwrap(), step),
            other => panic!("no such input: {other:?}"),
        }
        if words[0] != "take" {
            self.core.end_turn(self.now);
            let deadline = self.core.deadline();
            assert!(deadline.is_none_or(|at| at > self.now), "{deadline:?} at {:?}", self.now);
        }
    }

    fn submit(
        &mut self,
        session: &str,
        count: &str,
        size: usize,
        incarnation: Option<Incarnation>,
    ) {
        let session = session.chars().next().unwrap();
        let count: u64 = count.parse().unwrap();
        let first = self.next.entry(session).or_default();
        let events = (0..count).map(|_| event(1, Bytes::from(vec![0; size]))).collect();
        let batch =
            Batch { session: SessionId(1), incarnation, first: *first, events, answers: session };
        *first += count;
        self.core.accept(batch, self.now);
    }

    fn opened(&mut self, incarnation: &str, named: &str) {
        let incarnation = Incarnation(incarnation.parse().unwrap());
        self.core.opened(Ok(Opened { incarnation, groups: groups(named) }), self.now);
    }

    fn vote(&mut self, storage: &str, segment: AdvanceSegment, rest: &[&str]) {
        let storage = NodeId(storage.parse().unwrap());
        let body = &self.sealed[&segment];
        let mut vote = StorageVote {
            storage,
            segment,
            length: body.body.len() as u32,
            checksum: body.checksum,
        };
        let result = match rest {
            [] => Ok(2),
            ["credit", credit] => Ok(credit.parse().unwrap()),
            ["wrong"] => {
                vote.checksum ^= 1;
                Ok(2)
            }
            ["unreachable"] => Err(AppendError::Unreachable { storage, reason: String::new() }),
            ["fenced"] => Err(AppendError::Fenced),
            ["conflict"] => Err(AppendError::Conflict(segment)),
            other => panic!("no such vote: {other:?}"),
        };
        let result = result.map(|credit| Appended { vote, credit });
        self.core.voted(storage, segment, result, self.now);
    }

    fn proposed(&mut self, call: u64, outcomes: &[&str]) {
        let outcome = |text: &&str| match *text {
            "gap" => SegmentOutcome::Gap { expected: SegmentNumber(0) },
            "fenced" => SegmentOutcome::Fenced { current: Incarnation(99) },
            "closed" => SegmentOutcome::NotOpen,
            "no-quorum" => SegmentOutcome::NoQuorum,
            "forgotten" => SegmentOutcome::Forgotten,
            base => SegmentOutcome::Resolved(place(base.parse().unwrap())),
        };
        let result = match outcomes {
            [error @ ("unknown" | "unavailable")] => Err(order_error(error)),
            outcomes => Ok(outcomes.iter().map(outcome).collect()),
        };
        self.core.proposed(call, result, self.now);
    }

    fn log(&mut self, base: u64, step: &[&str]) {
        let number = |text: &str| Incarnation(text.parse().unwrap());
        let step = match step {
            ["other"] => Step::Opened { entry: NodeId(1), incarnation: Incarnation(1) },
            ["opened", incarnation] => {
                Step::Opened { entry: NODE, incarnation: number(incarnation) }
            }
            ["closed", incarnation] => Step::Closed {
                entry: NODE,
                incarnation: number(incarnation),
                reason: CloseReason::LeaseLost,
            },
            [segment, "of", "another"] => {
                let mut sealed = self.sealed[&id(segment)].proposal(Vec::new());
                sealed.checksum ^= 1;
                Step::Segment(sealed)
            }
            [segment] => Step::Segment(self.sealed[&id(segment)].proposal(Vec::new())),
            other => panic!("no such step: {other:?}"),
        };
        let Place { slot, stamp, base } = place(base);
        self.core.observed(&Resolution { slot, stamp, ahead: 0, base, step }, self.now);
    }

    fn outputs(&mut self) {
        while let Some(output) = self.core.poll() {
            let text = match output {
                Output::Open { request } => format!("open {request}"),
                Output::Begin { storage, incarnation } => {
                    format!("begin {storage} of {incarnation}")
                }
                Output::Sealed(body) => {
                    let text = format!("sealed {} {}", short(body.id), body.count);
                    self.sealed.insert(body.id, body);
                    text
                }
                Output::Append { storage, body } => {
                    format!("append {} at {storage}", short(body.id))
                }
                Output::Skip { storage, through } => {
                    format!("skip through {} at {storage}", short(through))
                }
                Output::Propose { call, segments } => {
                    self.calls.insert(call, segments.len());
                    let names: Vec<_> = segments.iter().map(|s| short(s.id)).collect();
                    format!("propose #{call} {}", names.join(" "))
                }
                Output::Regroup => "regroup".to_owned(),
                Output::Renew { incarnation } => format!("renew {incarnation}"),
                Output::Answer { to, answer } => {
                    let outcome = match answer.outcome {
                        Ok(stored) => format!("stored at {}", stored.position),
                        Err(PublishError::Unknown) => "unknown".to_owned(),
                        Err(PublishError::NotStored) => "not stored".to_owned(),
                    };
                    format!("answer {to} {}+{} {outcome}", answer.first, answer.count)
                }
            };
            writeln!(self.text, "{text}").unwrap();
        }
    }
}

fn short(id: AdvanceSegment) -> String {
    format!("{}/{}", id.incarnation, id.number)
}

//! Scripts of the ledger, and random schedules of it.
//!
//! A script has `> input` lines, each followed by all its effects: batches for the entry, decisions for the gate, and changes
//! of whether to read from the client.
//!
//! Invariant: a script lists everything that happens; nothing else may happen.
//!
//! Deliberately absent: the shared budget, which the driver counts.

use std::fmt::Write;

use bytes::Bytes;
use proptest::prelude::*;
use vulpes_raft::ids::{Slot, Stamp};

use super::*;
use crate::types::event::SessionId;
use crate::types::topic::Realm;

fn event(name: &str) -> Event {
    Event::of_act(Realm::new("realm").unwrap(), name, SessionId(7), Bytes::new())
}

fn terms(words: &[&str]) -> Terms {
    Terms {
        merge: words.contains(&"merge"),
        when: words.contains(&"when").then_some(Value::Null),
        watch: words.contains(&"when"),
        will: words.contains(&"will").then(|| event("will").payload),
    }
}

fn answer(first: u64, count: u32, outcome: &str) -> Answer {
    let place = |position| Stored {
        position: Position(position),
        slot: Slot(position),
        stamp: Stamp(0),
        offset: 0,
    };
    let outcome = match outcome {
        "unknown" => Err(PublishError::Unknown),
        "not-stored" => Err(PublishError::NotStored),
        position => Ok(place(position.parse().unwrap())),
    };
    Answer { first, count, outcome }
}

fn accepted(asked: u64, position: u64) -> Signal {
    let at = At { position: Position(position), slot: Slot(1), stamp: Stamp(0), offset: 0 };
    Signal::Decided { asked: Position(asked), decision: Decision::Accepted(at) }
}

fn refused(asked: u64) -> Signal {
    let decision = Decision::Refused(Refusal::NotAccepted);
    Signal::Decided { asked: Position(asked), decision }
}

/// An event of a batch as scripts show it.
fn shown(event: &Event) -> String {
    match Act::decode(&event.act) {
        Some(Act::Granted { waiting, .. }) => format!("{}@{waiting}", event.topic),
        _ => event.topic.to_string(),
    }
}

#[derive(Default)]
struct Bench {
    ledger: Ledger,
    room: bool,
    text: String,
}

impl Bench {
    fn input(&mut self, words: &[&str]) {
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let mut decided = Vec::new();
        match words[0] {
            "publish" => self.ledger.publish(event(words[1]), terms(&words[2..])),
            "retain" => {
                let event = Event { retain: true, ..event(words[1]) };
                self.ledger.publish(event, terms(&words[2..]));
            }
            "decide" => self.ledger.decide(event(words[1])),
            "own" => self.ledger.push_own(event(words[1])),
            "submitted" => self.ledger.done(Done::Submitted),
            "admitted" => self.ledger.done(Done::Admitted(number(1) as usize)),
            "joined" => self.ledger.joined(Incarnation(number(1))),
            "leave" => self.ledger.leave(),
            "answered" => {
                let answer = answer(number(1), number(2) as u32, words[3]);
                if self.ledger.loses_sight(&answer) {
                    self.text.push_str("lost\n");
                }
                decided = self.ledger.answered(&answer);
            }
            "accepted" => decided.extend(self.ledger.told(accepted(number(1), number(2)))),
            "refused" => decided.extend(self.ledger.told(refused(number(1)))),
            "turn" => {
                let waiting = Position(number(1));
                decided.extend(self.ledger.told(Signal::Turn { waiting }));
            }
            _ => panic!("not an input: {words:?}"),
        }
        for (sequence, outcome) in decided {
            let outcome = outcome.map(|stored| format!("at {}", stored.position));
            let outcome = outcome.unwrap_or_else(|refusal| format!("not: {refusal}"));
            writeln!(self.text, "decided {sequence} {outcome}").unwrap();
        }
    }

    fn outputs(&mut self) {
        let looked_at = |_: &Event, compares: bool| if compares { 10_000 } else { 0 };
        while let Some(errand) = self.ledger.next(looked_at) {
            let batch = match errand {
                Errand::Submit(batch) => batch,
                Errand::Admit(bytes) => {
                    writeln!(self.text, "admit {bytes}").unwrap();
                    continue;
                }
            };
            let events: Vec<String> = batch.events.iter().map(shown).collect();
            let whose = match batch.answered {
                true => format!("batch {}", batch.first),
                false => "own".to_owned(),
            };
            write!(self.text, "{whose}: {}", events.join(" ")).unwrap();
            if batch.compared > 0 {
                write!(self.text, ", compares {}", batch.compared).unwrap();
            }
            if let Some(incarnation) = batch.incarnation {
                write!(self.text, ", in {incarnation}").unwrap();
            }
            self.text.push('\n');
        }
        if std::mem::replace(&mut self.room, self.ledger.has_room()) != self.room {
            self.text.push_str(if self.room { "room\n" } else { "no room\n" });
        }
    }
}

fn check(script: &str) -> Ledger {
    let mut bench = Bench { room: true, ..Bench::default() };
    let script: Vec<&str> = script.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for line in &script {
        if let Some(input) = line.strip_prefix("> ") {
            writeln!(bench.text, "{line}").unwrap();
            bench.input(&input.split(' ').collect::<Vec<_>>());
            bench.outputs();
        }
    }
    assert_eq!(bench.text.lines().collect::<Vec<_>>(), script, "\n{}", bench.text);
    bench.ledger
}

#[test]
fn publishes_gather_while_a_batch_is_on_its_way() {
    check(
        "
        > publish a
          batch 0: a
          no room
        > publish b
        > publish c
        > joined 3
        > submitted
          batch 1: b c, in 3
        > answered 0 1 100
        > submitted
          room
        > answered 1 2 101
        ",
    );
}

#[test]
fn a_sessions_own_events_go_first_until_it_leaves() {
    check(
        "
        > own join
          own: join
          no room
        > publish a
        > own persistent
        > submitted
          own: persistent
        > submitted
          batch 0: a
        > publish b
        > own leave
        > leave
        > submitted
          batch 1: b
        > submitted
          own: leave
        > submitted
          room
        ",
    );
}

#[test]
fn a_condition_is_decided_after_it_is_stored() {
    let ledger = check(
        "
        > publish a when
          admit 10000
          no room
        > publish b when
        > admitted 20000
          batch 0: a b, compares 20000
        > submitted
          room
        > answered 0 2 100
        > refused 101
          decided 1 not: the topic's value does not fit
        > turn 100
          own: a@100
          no room
        > submitted
          room
        > accepted 100 200
          decided 0 at 200
        > accepted 100 200
        ",
    );
    assert_eq!((ledger.waiting(), ledger.decisions().waits.len()), (0, 0));
}

/// The order may be faster than the entry's answer.
#[test]
fn a_word_that_comes_early_waits_for_its_place() {
    check(
        "
        > publish a when
          admit 10000
          no room
        > admitted 10000
          batch 0: a, compares 10000
        > submitted
          room
        > accepted 101 150
        > turn 100
        > publish b
          batch 1: b
          no room
        > decide c
        > submitted
          batch 2: c
        > submitted
          room
        > answered 0 1 100
          own: a@100
          no room
        > submitted
          room
        > answered 1 2 150
        > accepted 151 151
          decided 2 at 151
        > accepted 100 160
          decided 0 at 160
        ",
    );
}

#[test]
fn what_is_not_stored_is_not_decided_and_what_is_unknown_ends_the_session() {
    let ledger = check(
        "
        > publish a when
          admit 10000
          no room
        > admitted 10000
          batch 0: a, compares 10000
        > submitted
          room
        > answered 0 1 not-stored
        > publish b
          batch 1: b
          no room
        > decide c
        > submitted
          batch 2: c
        > submitted
          room
        > answered 1 1 unknown
        > answered 2 1 unknown
          lost
        ",
    );
    assert_eq!(ledger.waiting(), 0);
}

#[test]
fn what_all_nodes_look_at_is_admitted_first() {
    check(
        "
        > retain a
          batch 0: a
          no room
        > publish b
        > publish c merge
        > publish d will
        > retain e merge
        > submitted
          admit 20000
        > own f
        > admitted 20000
          own: f
        > submitted
          batch 1: b c d e, compares 20000
        ",
    );
}

/// The values that events are compared with may have grown meanwhile, or there are more of these events.
#[test]
fn only_as_much_goes_together_as_was_admitted() {
    check(
        "
        > publish a merge
          admit 10000
          no room
        > publish b merge
        > publish c
        > publish d merge
        > admitted 10000
          batch 0: a, compares 10000
        > submitted
          admit 20000
        > admitted 10000
          batch 1: b c, compares 10000
        > submitted
          admit 10000
        > admitted 5000
          admit 10000
        > admitted 10000
          batch 3: d, compares 10000
        > submitted
          room
        ",
    );
}

fn next(ledger: &mut Ledger) -> Option<Errand> {
    ledger.next(|_, _| 0)
}

#[test]
fn a_session_has_so_much_unanswered_and_no_more() {
    let mut bench = Bench { room: true, ..Bench::default() };
    for _ in 0..limits::SESSION_BATCHES {
        assert!(bench.ledger.has_room());
        bench.ledger.publish(event("a"), Terms::default());
        assert!(next(&mut bench.ledger).is_some() && !bench.ledger.has_room());
        bench.ledger.done(Done::Submitted);
    }
    assert!(!bench.ledger.has_room() && bench.ledger.is_owed());
    assert!(bench.ledger.answered(&answer(0, 1, "100")).is_empty());
    assert!(bench.ledger.has_room());
}

#[test]
fn wills_are_counted_with_what_is_unanswered() {
    let mut ledger = Ledger::default();
    assert!(ledger.allowed(Allowed::default(), || panic!("it has no wills")).wills);
    ledger.publish(event("a"), terms(&["will"]));
    next(&mut ledger);
    assert!(ledger.allowed(Allowed::default(), || limits::SESSION_WILLS - 2).wills);
    assert!(!ledger.allowed(Allowed::default(), || limits::SESSION_WILLS - 1).wills);
    ledger.answered(&answer(0, 1, "100"));
    assert!(ledger.allowed(Allowed::default(), || limits::SESSION_WILLS - 1).wills);
}

/// One step of a random schedule.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish,
    Conditional,
    Decide,
    Own,
    /// The errand that is under way is done.
    Done,
    /// The entry answers this many of what it has, at most.
    Answer(u64),
    /// The order decides something that the entry has, answered or not.
    Decision(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Publish),
        2 => Just(Step::Conditional),
        1 => Just(Step::Decide),
        1 => Just(Step::Own),
        4 => Just(Step::Done),
        3 => (1_u64..9).prop_map(Step::Answer),
        3 => any::<usize>().prop_map(Step::Decision),
    ];
    proptest::collection::vec(step, 0..120)
}

/// An entry and an order that do what they were asked to when a schedule says so.
#[derive(Default)]
struct World {
    ledger: Ledger,
    under_way: Option<Done>,
    /// For each publish: whether the order decides it.
    published: Vec<bool>,
    owned: usize,
    /// The publishes that the entry got, by number; `own` has the session's own events.
    came: Vec<String>,
    own: Vec<String>,
    answered: u64,
    /// Sent to be decided, but not decided.
    undecided: Vec<u64>,
    decided: Vec<u64>,
}

impl World {
    fn step(&mut self, step: Step) {
        let name = self.published.len().to_string();
        match step {
            Step::Publish => self.ledger.publish(event(&name), Terms::default()),
            Step::Conditional => self.ledger.publish(event(&name), terms(&["when"])),
            Step::Decide => self.ledger.decide(event(&name)),
            Step::Own => {
                self.ledger.push_own(event(&self.owned.to_string()));
                self.owned += 1;
            }
            Step::Done => {
                if let Some(done) = self.under_way.take() {
                    self.ledger.done(done);
                }
            }
            Step::Answer(count) => self.answer(count),
            Step::Decision(at) if !self.undecided.is_empty() => {
                let sequence = self.undecided.remove(at % self.undecided.len());
                let decided = self.ledger.told(accepted(100 + sequence, 100 + sequence));
                self.decided.extend(decided.map(|(sequence, _)| sequence));
            }
            Step::Decision(_) => {}
        }
        if matches!(step, Step::Publish | Step::Conditional | Step::Decide) {
            self.published.push(!matches!(step, Step::Publish));
        }
        let errand = self.ledger.next(|_, compares| if compares { 10_000 } else { 0 });
        match &errand {
            Some(Errand::Admit(bytes)) => self.under_way = Some(Done::Admitted(*bytes)),
            Some(Errand::Submit(_)) => self.under_way = Some(Done::Submitted),
            None => {}
        }
        if let Some(Errand::Submit(batch)) = errand {
            let names = batch.events.iter().map(|event| event.topic.to_string());
            if batch.answered {
                assert_eq!(batch.first, self.came.len() as u64);
                let sequences = batch.first..batch.first + batch.events.len() as u64;
                let published = &self.published;
                self.undecided.extend(sequences.filter(|at| published[*at as usize]));
                self.came.extend(names);
            } else {
                self.own.extend(names);
            }
        }
    }

    fn answer(&mut self, count: u64) {
        let count = count.min(self.came.len() as u64 - self.answered);
        let outcome = (100 + self.answered).to_string();
        let decided = self.ledger.answered(&answer(self.answered, count as u32, &outcome));
        self.answered += count;
        self.decided.extend(decided.into_iter().map(|(sequence, _)| sequence));
    }
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

proptest! {
    /// Whatever the order of batches, answers and decisions: each event reaches the entry once and in order, each decision
    /// reaches the gate once, and the ledger is empty in the end.
    #[test]
    fn any_schedule_comes_to_the_same(steps in steps()) {
        let mut world = World::default();
        steps.iter().for_each(|step| world.step(*step));
        while world.under_way.is_some() {
            world.step(Step::Done);
        }
        world.step(Step::Answer(u64::MAX));
        while !world.undecided.is_empty() {
            world.step(Step::Decision(0));
        }
        prop_assert_eq!(world.came, numbers(world.published.len()));
        prop_assert_eq!(world.own, numbers(world.owned));
        let asked = world.published.iter().enumerate().filter(|(_, decided)| **decided);
        world.decided.sort_unstable();
        prop_assert_eq!(world.decided, asked.map(|(at, _)| at as u64).collect::<Vec<_>>());
        let ledger = &world.ledger;
        prop_assert!(ledger.has_room());
        prop_assert_eq!((ledger.waiting(), ledger.unanswered_bytes, ledger.decisions().early.len()), (0, 0, 0));
    }
}

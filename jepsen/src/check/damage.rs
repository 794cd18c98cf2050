//! Good histories pass, and each kind of random damage to one is found by the check for it.
//!
//! Invariant: a damage changes the cluster's answers, never the requests, and in a way that no correct cluster explains.
//!
//! Deliberately absent: damage that several checks may explain in different ways; `bad` has those by hand.

// All damages have the same type, and some of them change the number of lines.
#![allow(clippy::ptr_arg)]

mod services;

use std::collections::BTreeMap;

use serde_json::{json, Value};

use super::ideal::history;
use super::{judge, Outcome, Story};
use crate::dice::Dice;
use crate::layout::Layout;
use crate::op::{Kind, Op};
use services::{
    answer_again, carry_out_refused, carry_out_twice, come_again, miss, no_mark_of_repetition,
    not_found, wrong_result,
};

/// How many histories are damaged.
const HISTORIES: u64 = 1_000;

type Damage = fn(&mut Vec<Op>, &mut Dice) -> Option<()>;

/// Each kind: the damage, and the check that must find it.
const KINDS: [(&str, &str, Damage); 35] = [
    ("an acknowledged event is lost", "loss", lose),
    ("an event nobody published", "phantom", invent),
    ("a refused event is shown", "phantom", refuse),
    ("an event is acknowledged with another's position", "positions", misname),
    ("an event is there twice", "positions", double),
    ("two nodes disagree on two neighbours", "positions", disagree),
    ("a slot is missing", "order", drop_slot),
    ("a body differs at one node", "order", differ),
    ("a segment is resolved twice", "order", repeat_segment),
    ("a consumer misses an event", "consumers", skip),
    ("a consumer sees an event again", "consumers", repeat),
    ("a consumer sees two events in the wrong order", "consumers", swap),
    ("a session's events change places", "publishers", reorder),
    ("an event stands before one acknowledged earlier", "real-time", overtake),
    ("a read is stale", "register", stale),
    ("a compare-and-set succeeds though it does not fit", "register", misfit),
    ("a lock has two holders", "locks", hold_twice),
    ("a smaller token is let in", "locks", old_token),
    ("a holder's will comes though it lives", "locks", steal),
    ("a retained value is left out", "retained", forget),
    ("an event behind the retained values is left out", "retained", gap),
    ("a will comes twice", "wills", will_twice),
    ("a will never comes", "wills", will_never),
    ("a will comes after a goodbye", "wills", will_after_goodbye),
    ("a call is answered again", "calls", answer_again),
    ("a call gets another's result", "calls", wrong_result),
    ("a call is carried out twice", "calls", carry_out_twice),
    ("a call that was refused is carried out", "calls", carry_out_refused),
    ("a session misses an event", "sessions", miss),
    ("an acknowledged event comes again", "sessions", come_again),
    ("a repetition is not marked", "sessions", no_mark_of_repetition),
    ("a kept session is not found", "sessions", not_found),
    ("two states differ", "convergence", other_state),
    ("a node does not serve again", "convergence", no_mark),
    ("a node does not show all of its log", "convergence", no_end),
];

fn red(ops: &[Op]) -> (Vec<&'static str>, Outcome, String) {
    let verdict = judge(&Story::new(ops).unwrap());
    (verdict.red(), verdict.outcome, verdict.to_string())
}

#[test]
fn good_histories_pass() {
    for seed in 0..HISTORIES / 4 {
        let (_, outcome, told) = red(&history(seed));
        assert_eq!(outcome, Outcome::Passed, "seed {seed}\n{told}");
    }
}

#[test]
fn every_damage_is_seen() {
    let mut done: BTreeMap<&str, u64> = BTreeMap::new();
    let mut seed = 0;
    while done.values().sum::<u64>() < HISTORIES {
        seed += 1;
        assert!(seed < 2 * HISTORIES, "most damages find nothing to damage: {done:?}");
        let mut dice = Dice::new(seed);
        let (name, check, damage) = KINDS[seed as usize % KINDS.len()];
        let mut ops = history(seed);
        if damage(&mut ops, &mut dice).is_none() {
            continue;
        }
        for (index, op) in ops.iter_mut().enumerate() {
            op.index = index as u64;
        }
        let (red, outcome, told) = red(&ops);
        assert!(red.contains(&check), "seed {seed}: {name} was not seen by {check}\n{told}");
        assert_eq!(outcome, Outcome::Violated, "seed {seed}: {name}");
        *done.entry(name).or_default() += 1;
    }
    for (name, ..) in KINDS {
        assert!(done.get(name).is_some_and(|count| *count >= 10), "{name}: {done:?}");
    }
}

#[test]
fn a_run_without_its_faults_or_its_end_does_not_pass() {
    let whole = history(1);
    let without = |f: &str| {
        let mut ops: Vec<Op> = whole.iter().filter(|op| op.f != f).cloned().collect();
        for (index, op) in ops.iter_mut().enumerate() {
            op.index = index as u64;
        }
        red(&ops).1
    };
    assert_eq!(without("nothing"), Outcome::Passed);
    let no_blow: Vec<Op> = (whole.iter())
        .filter(|op| !["strike", "start", "stop", "failed"].contains(&op.f.as_str()))
        .enumerate()
        .map(|(index, op)| Op { index: index as u64, ..op.clone() })
        .collect();
    assert_eq!(red(&no_blow).1, Outcome::Inconclusive);
    for f in ["plan", "healed", "read"] {
        assert_eq!(without(f), Outcome::Inconclusive, "{f}");
    }
}

#[test]
fn each_role_owes_its_own() {
    // Node 1 shows nothing of the log.
    let mut ops = history(1);
    ops.retain(|op| {
        let of_state = ["order", "state"].contains(&op.f.as_str()) && op.value["node"] == 1;
        !of_state && op.value["consumer"] != "drain-1"
    });
    for (index, op) in ops.iter_mut().enumerate() {
        op.index = index as u64;
    }
    assert_eq!(red(&ops).0, ["convergence"]);
    // A sync node has nothing to show. But only the second node of a generated run is hit by faults.
    ops[0].value["layout"] = json!(Layout::split(1, 1, 1).unwrap());
    let (red_of_split, outcome, told) = red(&ops);
    assert_eq!((red_of_split, outcome), (vec!["coverage"], Outcome::Inconclusive), "{told}");
    assert!(told.contains("nothing was done to any sync node"), "{told}");
    assert!(!told.contains("any storage node"), "{told}");
}

/// Indexes of lines that match.
fn lines(ops: &[Op], fits: impl Fn(&Op) -> bool) -> Vec<usize> {
    (0..ops.len()).filter(|at| fits(&ops[*at])).collect()
}

fn pick(places: &[usize], dice: &mut Dice) -> Option<usize> {
    if places.is_empty() {
        None
    } else {
        Some(*dice.pick(places))
    }
}

fn is_drain(op: &Op) -> bool {
    let drains = |value: &Value| value.as_str().is_some_and(|name| name.starts_with("drain"));
    op.f == "poll" && op.kind == Kind::Ok && drains(&op.value["consumer"])
}

fn events(op: &mut Op) -> &mut Vec<Value> {
    op.value["events"].as_array_mut().unwrap()
}

/// Changes all nodes' logs.
fn in_logs(ops: &mut [Op], change: impl Fn(&mut Vec<Value>)) {
    ops.iter_mut().filter(|op| is_drain(op)).for_each(|op| change(events(op)));
}

/// The index of the answer of an acknowledged publish of this kind.
fn acknowledged(ops: &[Op], f: &str, dice: &mut Dice) -> Option<usize> {
    pick(&lines(ops, |op| op.f == f && op.kind == Kind::Ok), dice)
}

fn asked(ops: &[Op], answer: usize) -> usize {
    (0..answer).rev().find(|at| ops[*at].process == ops[answer].process).unwrap()
}

fn lose(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = acknowledged(ops, "publish", dice)?;
    let id = ops[at].value["id"].clone();
    in_logs(ops, |log| log.retain(|event| event[2] != id));
    Some(())
}

fn invent(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = pick(&lines(ops, is_drain), dice)?;
    events(&mut ops[at]).push(json!([1_000_000, "log.t1", "nobody", false]));
    Some(())
}

fn refuse(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = acknowledged(ops, "publish", dice)?;
    ops[at].kind = Kind::Fail;
    Some(())
}

fn misname(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let (one, other) = (acknowledged(ops, "publish", dice)?, acknowledged(ops, "publish", dice)?);
    ops[one].value["position"] = ops[other].value["position"].clone();
    (one != other).then_some(())
}

fn double(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = acknowledged(ops, "publish", dice)?;
    let (topic, id) = (ops[at].value["topic"].clone(), ops[at].value["id"].clone());
    in_logs(ops, |log| log.push(json!([1_000_000, topic, id, false])));
    Some(())
}

fn disagree(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = *lines(ops, is_drain).last()?;
    let log = events(&mut ops[at]);
    let place = dice.below(log.len() as u64 - 1) as usize;
    let (one, other) = (log[place][2].clone(), log[place + 1][2].clone());
    (log[place][2], log[place + 1][2]) = (other.clone(), one.clone());
    (one != other).then_some(())
}

/// Changes the rows of the order: of all nodes, or of the last one.
fn in_orders(ops: &mut [Op], all: bool, change: impl Fn(&mut Vec<Value>)) {
    let orders = lines(ops, |op| op.f == "order");
    let first = if all { 0 } else { orders.len() - 1 };
    for at in &orders[first..] {
        change(ops[*at].value["rows"].as_array_mut().unwrap());
    }
}

fn some_row(ops: &[Op], dice: &mut Dice) -> Option<usize> {
    let rows = ops.iter().find(|op| op.f == "order")?.value["rows"].as_array()?.len() as u64;
    (rows > 4).then(|| dice.between(2, rows - 2) as usize)
}

fn drop_slot(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let row = some_row(ops, dice)?;
    in_orders(ops, true, |rows| drop(rows.remove(row)));
    Some(())
}

fn differ(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let row = some_row(ops, dice)?;
    in_orders(ops, false, |rows| rows[row][9] = "0".into());
    Some(())
}

fn repeat_segment(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let row = some_row(ops, dice)?;
    in_orders(ops, true, |rows| rows[row][7] = rows[row - 1][7].clone());
    Some(())
}

/// Consumers' polls with at least this many events, none of them retained values.
fn polls(ops: &[Op], least: usize) -> Vec<usize> {
    let live = |op: &Op| op.f == "poll" && op.kind == Kind::Ok && !is_drain(op);
    let plain =
        |events: &Vec<Value>| events.len() >= least && events.iter().all(|event| event[3] == false);
    let state: Vec<Value> = (ops.iter())
        .filter(|op| op.f == "subscribe" && op.value["mode"] == "state")
        .map(|op| op.value["consumer"].clone())
        .collect();
    lines(ops, |op| {
        live(op)
            && op.value["events"].as_array().is_some_and(plain)
            && !state.contains(&op.value["consumer"])
    })
}

fn skip(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = pick(&polls(ops, 3), dice)?;
    let log = events(&mut ops[at]);
    log.remove(1 + dice.below(log.len() as u64 - 2) as usize);
    Some(())
}

fn repeat(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = pick(&polls(ops, 1), dice)?;
    let log = events(&mut ops[at]);
    let again = log[log.len() - 1].clone();
    log.push(again);
    Some(())
}

fn swap(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = pick(&polls(ops, 2), dice)?;
    let log = events(&mut ops[at]);
    let place = dice.below(log.len() as u64 - 1) as usize;
    log.swap(place, place + 1);
    Some(())
}

/// Two acknowledged publishes, the first with the smaller position and answered before the second began.
fn pair(ops: &[Op], dice: &mut Dice, same_session: bool) -> Option<(usize, usize)> {
    for _ in 0..200 {
        let (one, other) =
            (acknowledged(ops, "publish", dice)?, acknowledged(ops, "publish", dice)?);
        let same = ops[one].value["session"] == ops[other].value["session"];
        let ordered = ops[one].value["position"].as_u64() < ops[other].value["position"].as_u64();
        if ordered && one < asked(ops, other) && (same || !same_session) {
            return Some((one, other));
        }
    }
    None
}

fn reorder(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let (one, other) = pair(ops, dice, true)?;
    let (first, second) = (ops[one].value["id"].clone(), ops[other].value["id"].clone());
    let (low, high) = (ops[one].value["position"].clone(), ops[other].value["position"].clone());
    (ops[one].value["position"], ops[other].value["position"]) = (high, low);
    for op in ops.iter_mut().filter(|op| op.f == "poll" && op.kind == Kind::Ok) {
        for event in events(op) {
            if event[2] == first {
                event[2] = second.clone();
            } else if event[2] == second {
                event[2] = first.clone();
            }
        }
    }
    Some(())
}

fn overtake(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let (one, other) = pair(ops, dice, false)?;
    // The second publish was sent and answered before the first began.
    let answer = ops.remove(other);
    let question = ops.remove(asked_at(ops, &answer, other));
    let place = asked(ops, one);
    ops.insert(place, answer);
    ops.insert(place, question);
    Some(())
}

fn asked_at(ops: &[Op], answer: &Op, before: usize) -> usize {
    (0..before).rev().find(|at| ops[*at].process == answer.process).unwrap()
}

fn stale(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = pick(&lines(ops, |op| op.f == "read" && op.kind == Kind::Ok), dice)?;
    let (topic, asked) = (ops[at].value["topic"].clone(), asked(ops, at));
    // Values whose replacement was acknowledged before the read began.
    let written: Vec<&Value> = (ops[..asked].iter())
        .filter(|op| op.kind == Kind::Ok && op.value["topic"] == topic && op.f != "read")
        .map(|op| &op.value)
        .collect();
    let last = written.iter().filter_map(|value| value["position"].as_u64()).max();
    let old: Vec<&&Value> =
        written.iter().filter(|value| value["position"].as_u64() < last).collect();
    if old.is_empty() {
        return None;
    }
    let id = dice.pick(&old)["id"].clone();
    ops[at].value["id"] = id;
    Some(())
}

fn misfit(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = acknowledged(ops, "cas", dice)?;
    let asked = asked(ops, at);
    for place in [at, asked] {
        ops[place].value["expect"] = "something else".into();
    }
    Some(())
}

/// Removes the deletion after a grant from the log, or inserts one.
fn grant(ops: &[Op], dice: &mut Dice) -> Option<(Value, u64)> {
    let at = acknowledged(ops, "acquire", dice)?;
    Some((ops[at].value["session"].clone(), ops[at].value["position"].as_u64()?))
}

fn hold_twice(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let (_, granted) = grant(ops, dice)?;
    let log = ops.iter_mut().find(|op| is_drain(op)).map(events)?.clone();
    let mut behind = log.iter().filter(|e| e[1] == "lock.a" && e[0].as_u64() > Some(granted));
    let (freed, _next) = (behind.next()?.clone(), behind.next()?);
    in_logs(ops, |log| log.retain(|event| *event != freed));
    Some(())
}

fn old_token(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let uses = lines(ops, |op| op.f == "use" && op.kind == Kind::Ok);
    if uses.len() < 2 {
        return None;
    }
    let at = 1 + dice.below(uses.len() as u64 - 1) as usize;
    let (early, late) = (uses[at - 1], uses[at]);
    // The earlier holder uses the resource again, after the later one.
    let again: Vec<Op> = [asked(ops, early), early].map(|place| ops[place].clone()).to_vec();
    for (place, op) in again.into_iter().enumerate() {
        ops.insert(late + 1 + place, op);
    }
    Some(())
}

fn steal(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = acknowledged(ops, "release", dice)?;
    let released = ops[at].value["position"].as_u64()?;
    let log = ops.iter_mut().find(|op| is_drain(op)).map(events)?.clone();
    let place = log.iter().position(|event| event[0] == released)?;
    let before = log[place - 1][0].as_u64()?;
    // Inserts a grant to another client before the holder freed the lock, if there is a position in between.
    (before + 1 < released).then_some(())?;
    in_logs(ops, |log| log.insert(place, json!([released - 1, "lock.a", "", false])));
    Some(())
}

/// Polls of subscriptions that begin with retained values.
fn joins(ops: &[Op]) -> Vec<usize> {
    lines(ops, |op| {
        let events = op.value["events"].as_array();
        op.f == "poll" && events.is_some_and(|e| e.first().is_some_and(|e| e[3] == true))
    })
}

fn forget(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    // A missing value could have been the very first one, if all were published later.
    let places: Vec<usize> =
        joins(ops).into_iter().filter(|at| ops[*at].value["events"][1] != json!(null)).collect();
    let at = pick(&places, dice)?;
    let shown = events(&mut ops[at]);
    let oldest = (0..shown.len()).min_by_key(|at| {
        let text = shown[*at][2].as_str().unwrap_or_default();
        text[1..].parse::<u64>().unwrap_or_default()
    })?;
    shown.remove(oldest);
    Some(())
}

fn gap(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = pick(&joins(ops), dice)?;
    let consumer = ops[at].value["consumer"].clone();
    let next = (at + 1..ops.len()).find(|at| {
        let op = &ops[*at];
        let some = op.value["events"].as_array().is_some_and(|events| events.len() > 2);
        op.f == "poll" && op.value["consumer"] == consumer && some
    })?;
    // Without the first one, the values could be those of a later position.
    events(&mut ops[next]).remove(1);
    Some(())
}

fn a_will(ops: &mut [Op], dice: &mut Dice) -> Option<Value> {
    let log = ops.iter_mut().find(|op| is_drain(op)).map(events)?;
    let is_will = |e: &&Value| e[2].as_str().is_some_and(|id| id.starts_with("down"));
    let wills: Vec<Value> = log.iter().filter(is_will).cloned().collect();
    if wills.is_empty() {
        None
    } else {
        Some(dice.pick(&wills).clone())
    }
}

fn will_twice(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let will = a_will(ops, dice)?;
    in_logs(ops, |log| log.push(json!([1_000_000, will[1], will[2], false])));
    Some(())
}

fn will_never(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let will = a_will(ops, dice)?;
    in_logs(ops, |log| log.retain(|event| event[2] != will[2]));
    Some(())
}

fn will_after_goodbye(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = pick(&lines(ops, |op| op.f == "end" && op.value["clean"] == true), dice)?;
    let session = ops[at].value["session"].clone();
    let left = ops.iter().find(|op| op.f == "testament" && op.value["session"] == session)?;
    let (topic, will) = (left.value["topic"].clone(), left.value["will"].clone());
    in_logs(ops, |log| log.push(json!([1_000_000, topic, will, false])));
    Some(())
}

fn other_state(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = pick(&lines(ops, |op| op.f == "state"), dice)?;
    ops[at].value["hash"] = "abd".into();
    Some(())
}

fn no_mark(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let marks = lines(ops, |op| op.kind == Kind::Ok && op.value["topic"] == "log.mark");
    let at = pick(&marks, dice)?;
    ops[at].kind = Kind::Info;
    Some(())
}

fn no_end(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = pick(&lines(ops, is_drain), dice)?;
    ops[at].value["ended"] = false.into();
    Some(())
}

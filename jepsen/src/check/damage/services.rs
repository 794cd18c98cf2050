//! Damage to the answers of callers, callees and clients with persistent sessions.
//!
//! Invariant: as in `damage`.
//!
//! Deliberately absent: which check must find it, which the table in `damage` has.

use serde_json::{json, Value};

use super::{acknowledged, events, lines, pick};
use crate::check::{ideal, sessions};
use crate::dice::Dice;
use crate::op::{Kind, Op, Process};

pub(super) fn answer_again(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = acknowledged(ops, "call", dice)?;
    let again = Op {
        kind: Kind::Info,
        f: "answer".to_owned(),
        process: Process::Client(1_000_000),
        ..ops[at].clone()
    };
    ops.insert(at + 1, again);
    Some(())
}

pub(super) fn wrong_result(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = acknowledged(ops, "call", dice)?;
    ops[at].value["result"] = 9.into();
    Some(())
}

/// A callee is asked to carry out a call once more.
fn invoke_again(ops: &mut Vec<Op>, at: usize) {
    let value = json!({ "id": ops[at].value["id"], "node": 3 });
    let (kind, process) = (Kind::Info, Process::Client(1_000_000));
    let again = Op { kind, f: "invoked".to_owned(), process, value, ..ops[at].clone() };
    ops.insert(at + 1, again);
}

pub(super) fn carry_out_twice(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = acknowledged(ops, "call", dice)?;
    invoke_again(ops, at);
    Some(())
}

pub(super) fn carry_out_refused(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = acknowledged(ops, "call", dice)?;
    ops[at].kind = Kind::Fail;
    ops[at].value["reason"] = "vulpes.error.unavailable".into();
    Some(())
}

/// A session misses an event from the middle of a batch: removes it from everything that the client received.
pub(super) fn miss(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let three = |op: &Op| op.value["events"].as_array().is_some_and(|events| events.len() > 2);
    let at = pick(&lines(ops, |op| op.f == "hear" && three(op)), dice)?;
    let (client, id) = (ops[at].value["client"].clone(), ops[at].value["events"][1][1].clone());
    for op in ops.iter_mut().filter(|op| op.f == "hear" && op.value["client"] == client) {
        if let Some(acknowledged) = op.value["acknowledged"].as_array_mut() {
            acknowledged.retain(|other| *other != id);
            events(op).retain(|event| event[1] != id);
        }
    }
    Some(())
}

pub(super) fn come_again(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let mut goodbyes =
        lines(ops, |op| op.f == "leave" && op.kind == Kind::Invoke && op.value["goodbye"] == true);
    dice.shuffle(&mut goodbyes);
    let (next, id) = goodbyes.into_iter().find_map(|left| settled(ops, left))?;
    events(&mut ops[next]).insert(0, json!(["log.t1", id, 7, true]));
    Some(())
}

/// The line where a session that its client left without faults nearby receives events again, and an event that was
/// acknowledged before.
fn settled(ops: &[Op], left: usize) -> Option<(usize, Value)> {
    let quiet = (sessions::SHAKEN / ideal::STEP) as usize;
    let mine = |op: &Op, f: &str| op.f == f && op.value["client"] == ops[left].value["client"];
    let answered = |at: &usize, f: &str| mine(&ops[*at], f) && ops[*at].kind == Kind::Ok;
    let back = (left..ops.len()).find(|at| answered(at, "attach"))?;
    let hurt = |op: &Op| ["strike", "start", "stop", "failed"].contains(&op.f.as_str());
    if ops[left.saturating_sub(quiet + 1)..=back].iter().any(hurt) {
        return None;
    }
    let life = &ops[left].value["life"];
    // Nothing that it may hold comes after its last acknowledgement.
    let mut told =
        (0..left).rev().filter(|at| answered(at, "hear") && ops[*at].value["life"] == *life);
    let id = told.find_map(|at| ops[at].value["acknowledged"].as_array()?.last().cloned())?;
    let next = (back..ops.len()).find(|at| answered(at, "hear"))?;
    (ops[next].value["life"] == ops[back].value["life"]).then_some((next, id))
}

pub(super) fn no_mark_of_repetition(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let marked = |event: &Value| event[3] == true;
    let again = lines(ops, |op| {
        op.f == "hear" && op.value["events"].as_array().is_some_and(|all| all.iter().any(marked))
    });
    let at = pick(&again, dice)?;
    let first = events(&mut ops[at]).iter_mut().find(|event| event[3] == true)?;
    first[3] = false.into();
    Some(())
}

pub(super) fn not_found(ops: &mut Vec<Op>, dice: &mut Dice) -> Option<()> {
    let at = pick(&lines(ops, |op| op.f == "attach" && op.value["present"] == true), dice)?;
    ops[at].value["present"] = false.into();
    Some(())
}

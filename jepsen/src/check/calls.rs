//! A call is answered once, by its own result or by an error, and carried out at most once.
//!
//! If a callee's node dies, and nothing else is wrong, its callers get an error soon, before the node's lease is over.
//!
//! Invariant: a caller whose session ended before the answer needs none.
//!
//! Deliberately absent: whether a call that ended in an error was carried out, unless the error shows it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::story::{Asked, Fate, Fault, Moment, Story};
use super::Findings;
use crate::op::Call;

/// The error if the callee, or its node, is gone.
const LOST: &str = "wamp.error.canceled";

/// Nanoseconds after the proof that a callee's node is dead within which its callers must get an error: less than a lease.
const SOON: u64 = 2_000_000_000;

/// The reason a client gives for a call without an answer, although its session was open.
pub const UNANSWERED: &str = "unanswered";

pub(super) fn check(story: &Story) -> Findings {
    let mut found = Findings::default();
    let twice: HashSet<&str> = story.answers.iter().map(|answer| answer.id.as_str()).collect();
    let mut invoked: HashMap<&str, Vec<(Moment, u64)>> = HashMap::new();
    for (at, invocation) in &story.invocations {
        invoked.entry(&invocation.id).or_default().push((*at, invocation.node));
    }
    for call in &story.calls {
        let id = call.what.id.as_str();
        found.expect(!twice.contains(id), || format!("call {id:?} was answered again"));
        answered(call, &mut found);
        let invoked = invoked.remove(id).unwrap_or_default();
        if let [invoked] = invoked[..] {
            told_soon(story, call, invoked, &mut found);
        }
        carried_out(call, &invoked, &mut found);
    }
    for id in invoked.keys() {
        found.expect(false, || format!("{id:?} was carried out, and nobody had called"));
    }
    found
}

fn answered(call: &Asked<Call>, found: &mut Findings) {
    let id = &call.what.id;
    match &call.fate {
        Fate::Ok(_, answer) => {
            found.expect(answer.result == Some(call.what.argument + 1), || {
                format!("call {id:?} with {} came to {:?}", call.what.argument, answer.result)
            });
        }
        Fate::Unknown(Some(answer)) => {
            found.expect(answer.reason.as_deref() != Some(UNANSWERED), || {
                format!("call {id:?} at node {} was never answered", call.what.node)
            });
        }
        Fate::Failed(..) | Fate::Unknown(None) => {}
    }
}

/// The callee's node died during the call: its caller, at another node, gets an error before the lease is over.
fn told_soon(story: &Story, call: &Asked<Call>, (at, node): (Moment, u64), found: &mut Findings) {
    let (Fate::Unknown(Some(answer)), Some(told)) = (&call.fate, call.told) else { return };
    if answer.reason.as_deref() != Some(LOST) {
        return;
    }
    let kills = |fault: &&Fault| {
        let blow = &fault.blow;
        matches!(blow.nemesis.as_str(), "kill" | "power")
            && blow.nodes.contains(&node)
            && !blow.nodes.contains(&call.what.node)
            && at < fault.struck
            && fault.struck < told
    };
    let Some(kill) = story.faults.iter().find(kills) else { return };
    let Some(dead) = kill.from else { return };
    let until = Moment { time: dead.time + SOON, ..dead };
    let alone = story.faults.iter().all(|other| {
        let over = other.to.map_or(u64::MAX, |over| over.time.saturating_add(SOON));
        other == kill || over < kill.struck.time || until.time < other.struck.time
    });
    if alone {
        let late = Duration::from_nanos(told.time.saturating_sub(dead.time));
        found.expect(told.time <= until.time, || {
            format!(
                "call {:?}, carried out at node {node}, was given up {late:.1?} after that died",
                call.what.id
            )
        });
    }
}

fn carried_out(call: &Asked<Call>, invoked: &[(Moment, u64)], found: &mut Findings) {
    let (id, count) = (&call.what.id, invoked.len());
    let (least, most) = match &call.fate {
        Fate::Ok(..) => (1, 1),
        Fate::Failed(..) => (0, 0),
        Fate::Unknown(_) => (0, 1),
    };
    found.expect((least..=most).contains(&count), || {
        format!("call {id:?} was carried out {count} times; it came to {:?}", call.fate)
    });
    let early = invoked.iter().any(|(at, _)| at.index < call.at.index);
    found.expect(!early, || format!("call {id:?} was carried out before it was made"));
}

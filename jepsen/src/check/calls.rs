//! A call is answered once, by the result that belongs to it or by an error, and carried out once at most.
//!
//! Invariant: a caller whose session ended before the answer is owed none.
//!
//! Deliberately absent: whether a call that ended in an error was carried out, where the error does not tell.

use std::collections::{HashMap, HashSet};

use super::story::{Asked, Fate, Moment, Story};
use super::Findings;
use crate::op::Call;

/// The reason a client gives for having waited in vain while its session stood.
pub const UNANSWERED: &str = "unanswered";

pub(super) fn check(story: &Story) -> Findings {
    let mut found = Findings::default();
    let twice: HashSet<&str> = story.answers.iter().map(|answer| answer.id.as_str()).collect();
    let mut invoked: HashMap<&str, Vec<Moment>> = HashMap::new();
    for (at, invocation) in &story.invocations {
        invoked.entry(&invocation.id).or_default().push(*at);
    }
    for call in &story.calls {
        let id = call.what.id.as_str();
        found.expect(!twice.contains(id), || format!("call {id:?} was answered again"));
        answered(call, &mut found);
        carried_out(call, &invoked.remove(id).unwrap_or_default(), &mut found);
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

fn carried_out(call: &Asked<Call>, invoked: &[Moment], found: &mut Findings) {
    let (id, count) = (&call.what.id, invoked.len());
    let (least, most) = match &call.fate {
        Fate::Ok(..) => (1, 1),
        Fate::Failed(..) => (0, 0),
        Fate::Unknown(_) => (0, 1),
    };
    found.expect((least..=most).contains(&count), || {
        format!("call {id:?} was carried out {count} times; it came to {:?}", call.fate)
    });
    let early = invoked.iter().any(|at| at.index < call.at.index);
    found.expect(!early, || format!("call {id:?} was carried out before it was made"));
}

//! A call is answered once: by the result that belongs to it, or by an error.
//!
//! Invariant: a caller whose session ended before the answer is owed none.
//!
//! Deliberately absent: whether the callee did it. A call is tried once, and its error may hide a result.

use std::collections::HashSet;

use super::story::{Fate, Story};
use super::Findings;

/// The reason a client gives for having waited in vain while its session stood.
pub(super) const UNANSWERED: &str = "unanswered";

pub(super) fn check(story: &Story) -> Findings {
    let mut found = Findings::default();
    let twice: HashSet<&str> = story.answers.iter().map(|answer| answer.id.as_str()).collect();
    for call in &story.calls {
        let id = call.what.id.as_str();
        found.expect(!twice.contains(id), || format!("call {id:?} was answered again"));
        match &call.fate {
            Fate::Ok(_, answer) => found
                .expect(answer.result == Some(call.what.argument + 1), || {
                    format!("call {id:?} with {} came to {:?}", call.what.argument, answer.result)
                }),
            Fate::Unknown(Some(answer)) => {
                found.expect(answer.reason.as_deref() != Some(UNANSWERED), || {
                    format!("call {id:?} at node {} was never answered", call.what.node)
                });
            }
            Fate::Failed(..) | Fate::Unknown(None) => {}
        }
    }
    found
}

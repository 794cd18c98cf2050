//! The order of publishes: each session's own, and that of real time.
//!
//! Invariant: waiting publishes are ordered when their turn comes, so they are not part of a session's own order.
//!
//! Deliberately absent: what consumers see; they are compared with the log.

use std::collections::HashMap;

use super::story::{Story, NO_LOG};
use super::Findings;

/// The log keeps the order in which each session published.
pub(super) fn own_order(story: &Story) -> Findings {
    let Some(log) = story.log() else { return Findings::blind(NO_LOG) };
    let mut found = Findings::default();
    let mut last: HashMap<&str, (u64, u64)> = HashMap::new();
    let mut publishes: Vec<_> = story.publishes.iter().filter(|p| !p.what.watch).collect();
    publishes.sort_by_key(|publish| publish.what.number);
    for publish in publishes {
        let what = &publish.what;
        let Some(position) = log.position_of(publish) else { continue };
        let before = last.insert(&what.session, (position, what.number));
        found.expect(before.is_none_or(|(before, _)| before < position), || {
            format!(
                "number {} of {} is at {position}, (position, number) {before:?}",
                what.number, what.session
            )
        });
    }
    found
}

/// What is published after an acknowledgement comes after the acknowledged event in the log, also across sessions.
pub(super) fn real_time(story: &Story) -> Findings {
    let Some(log) = story.log() else { return Findings::blind(NO_LOG) };
    let mut found = Findings::default();
    // The acknowledgements in their order, each with the largest position known by then.
    let mut known: Vec<(u64, u64, &str)> = Vec::new();
    for publish in &story.publishes {
        if let (Some((at, _)), Some(position)) = (publish.fate.ok(), log.position_of(publish)) {
            known.push((at.index, position, &publish.what.id));
        }
    }
    known.sort_unstable();
    for at in 1..known.len() {
        if known[at].1 < known[at - 1].1 {
            (known[at].1, known[at].2) = (known[at - 1].1, known[at - 1].2);
        }
    }
    for publish in &story.publishes {
        let Some(position) = log.position_of(publish) else { continue };
        let before = known.partition_point(|(index, ..)| *index < publish.at.index);
        let Some((_, furthest, id)) = before.checked_sub(1).map(|at| known[at]) else { continue };
        found.expect(position > furthest, || {
            format!(
                "{:?} is at {position}, before {id:?} at {furthest}, acknowledged earlier",
                publish.what.id
            )
        });
    }
    found
}

//! Acknowledged events are in the log, and all events in the log were published.
//!
//! Invariant: an unknown outcome is right either way.
//!
//! Deliberately absent: whether nodes agree; see `positions`.

use std::collections::BTreeMap;

use super::story::{Fate, Story, NO_LOG};
use super::Findings;

/// Every acknowledged event is in every node's log, at the acknowledged position.
pub(super) fn lost(story: &Story) -> Findings {
    let mut found = Findings::default();
    for (node, life) in story.drains() {
        let ids: BTreeMap<&str, Option<u64>> =
            life.seen.iter().map(|(_, event)| (event.id.as_str(), event.position)).collect();
        let positions: BTreeMap<Option<u64>, (&str, &str)> = (life.seen.iter())
            .map(|(_, event)| (event.position, (event.id.as_str(), event.topic.as_str())))
            .collect();
        for publish in &story.publishes {
            let Some((_, answer)) = publish.fate.ok() else { continue };
            let (id, topic) = (publish.what.id.as_str(), publish.what.topic.as_str());
            let there = match answer.position {
                Some(_) => positions.get(&answer.position) == Some(&(id, topic)),
                None => ids.contains_key(id),
            };
            found.expect(there, || {
                let place = ids.get(id).copied().flatten();
                let what = &publish.what;
                format!(
                    "{:?} on {topic}, acknowledged by node {} with position {:?}, is at {place:?} in the log of node {node}",
                    what.id, what.node, answer.position
                )
            });
        }
    }
    if story.drains().next().is_none() {
        return Findings::blind(NO_LOG);
    }
    found
}

/// Every event that a client saw was published to that topic before, and not refused.
pub(super) fn phantom(story: &Story) -> Findings {
    let mut found = Findings::default();
    let by_id = story.by_id();
    let wills = super::wills::all(story);
    let mut deletions: BTreeMap<&str, i64> = BTreeMap::new();
    for publish in &story.publishes {
        let deletes = publish.what.id.is_empty() && !matches!(publish.fate, Fate::Failed(..));
        let leaves = publish.what.will.as_deref() == Some("");
        *deletions.entry(&publish.what.topic).or_default() +=
            i64::from(deletes) + i64::from(leaves);
    }
    for life in story.consumers.values().flatten() {
        let consumer = &life.asked.consumer;
        let mut deleted: BTreeMap<&str, i64> = BTreeMap::new();
        for (seen, event) in &life.seen {
            let place = || format!("{consumer} saw {:?} on {}", event.id, event.topic);
            if event.id.is_empty() {
                let count = deleted.entry(&event.topic).or_default();
                *count += 1;
                let most = deletions.get(event.topic.as_str()).copied().unwrap_or_default();
                found.expect(*count <= most, || {
                    format!("{}, for the {count}th time, of {most} that can be", place())
                });
                continue;
            }
            if let Some((since, topic)) = wills.get(event.id.as_str()) {
                let right = *topic == event.topic && since.index < seen.index;
                found.expect(right, || format!("{}, a will of {topic}", place()));
                continue;
            }
            let Some(publish) = by_id.get(event.id.as_str()) else {
                found.expect(false, || format!("{}, which nobody published", place()));
                continue;
            };
            let right = publish.what.topic == event.topic && publish.at.index < seen.index;
            found.expect(right, || {
                format!(
                    "{}, which was published to {} later or elsewhere",
                    place(),
                    publish.what.topic
                )
            });
            if let Fate::Failed(_, answer) = &publish.fate {
                found.problem(format!("{}, which was refused: {:?}", place(), answer.reason));
            }
        }
    }
    found
}

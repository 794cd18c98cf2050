//! A position holds the same event for every witness, and an event has one position.
//!
//! Invariant: all witnesses count: publishers' acknowledgements, consumers, and each node's whole log.
//!
//! Deliberately absent: the order of positions; see `consumers`.

use std::collections::HashMap;

use super::story::{Story, NO_LOG};
use super::Findings;

pub(super) fn check(story: &Story) -> Findings {
    let mut found = Findings::default();
    let mut at: HashMap<u64, (&str, &str, String)> = HashMap::new();
    let mut of: HashMap<&str, (u64, String)> = HashMap::new();
    let mut witness = |position: u64, id, topic, who: String| {
        let before = at.entry(position).or_insert_with(|| (id, topic, who.clone()));
        found.expect((before.0, before.1) == (id, topic), || {
            format!(
                "position {position} holds {id:?} for {who}, and {:?} for {}",
                before.0, before.2
            )
        });
        if id.is_empty() {
            return;
        }
        let before = of.entry(id).or_insert_with(|| (position, who.clone()));
        found.expect(before.0 == position, || {
            format!("{id:?} is at {position} for {who}, and at {} for {}", before.0, before.1)
        });
    };
    for publish in &story.publishes {
        let Some((_, answer)) = publish.fate.ok() else { continue };
        if let Some(position) = answer.position {
            let who = format!("its publisher {}", publish.what.session);
            witness(position, &publish.what.id, &publish.what.topic, who);
        }
    }
    for life in story.consumers.values().flatten() {
        for (_, event) in &life.seen {
            if let Some(position) = event.position {
                let who = format!("{} at node {}", life.asked.consumer, life.asked.node);
                witness(position, &event.id, &event.topic, who);
            }
        }
    }
    agree(story, &mut found);
    found
}

/// All nodes show the same log.
fn agree(story: &Story, found: &mut Findings) {
    let Some((first, reference)) = story.drains().next() else {
        *found = Findings::blind(NO_LOG);
        return;
    };
    for (node, life) in story.drains().skip(1) {
        let (mine, theirs) = (&reference.seen, &life.seen);
        let differs = mine.iter().zip(theirs).find(|(one, other)| one.1 != other.1);
        found.expect(differs.is_none(), || {
            let (one, other) = differs.map(|(one, other)| (&one.1, &other.1)).unzip();
            format!("node {first} shows {one:?} where node {node} shows {other:?}")
        });
        found.expect(mine.len() == theirs.len(), || {
            format!("node {first} shows {} events, node {node} {}", mine.len(), theirs.len())
        });
    }
}

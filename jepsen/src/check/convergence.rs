//! Once all faults are over, every node serves again, and all reach the same state.
//!
//! Invariant: a node that refuses to continue with a damaged disk is lost, and nothing is required of it.
//!
//! Deliberately absent: how fast, beyond [`LIMIT`].

use std::collections::{BTreeMap, BTreeSet};

use super::story::{Moment, Story};
use super::Findings;
use crate::node::Role;
use crate::op::Mode;

/// Nanoseconds until each node of a healed cluster acknowledges again.
const LIMIT: u64 = 60_000_000_000;

/// The last part of the topics that are published to once everything is healed.
pub const MARK: &str = "mark";

pub(super) fn check(story: &Story) -> Findings {
    let (Some(plan), Some((healed, after))) = (&story.plan, &story.healed) else {
        return Findings::blind("the run did not come to its end");
    };
    let kept = |nodes: &[u64]| -> BTreeSet<u64> {
        nodes.iter().copied().filter(|node| !after.lost.contains(node)).collect()
    };
    let layout = &plan.layout;
    let mut found = Findings::default();
    for died in &story.died {
        found.expect(false, || died.told.clone());
    }
    serves(story, *healed, &kept(layout.of(Role::Entry)), &mut found);
    shows(story, &kept(layout.of(Role::Entry)), &kept(layout.of(Role::Storage)), &mut found);
    caught_up(story, *healed, &mut found);
    same_state(story, &kept(&layout.readers()), &mut found);
    found
}

fn serves(story: &Story, healed: Moment, entries: &BTreeSet<u64>, found: &mut Findings) {
    for node in entries {
        let serves = story.publishes.iter().any(|publish| {
            let soon = publish.fate.ok().is_some_and(|(at, _)| at.time <= healed.time + LIMIT);
            publish.what.node == *node && publish.at > healed && soon
        });
        found.expect(serves, || {
            let told = story.silent.iter().find(|silent| silent.node == *node);
            format!(
                "node {node} acknowledged nothing within {} s of healing: {}",
                LIMIT / 1_000_000_000,
                told.map_or("it said nothing", |silent| silent.told.as_str())
            )
        });
    }
}

/// Every node shows everything it has: an entry that reports to be ready but can't show the log is wrong.
fn shows(story: &Story, entries: &BTreeSet<u64>, storages: &BTreeSet<u64>, found: &mut Findings) {
    for node in entries {
        found.expect(story.drains().any(|(of, _)| of == *node), || {
            format!("node {node} serves, and did not show its whole log")
        });
    }
    for node in storages {
        found.expect(story.orders.get(node).is_some_and(|(_, ended)| *ended), || {
            format!("node {node} serves, and did not show its whole order")
        });
    }
}

/// Consumers that stayed see what was published after healing.
fn caught_up(story: &Story, healed: Moment, found: &mut Findings) {
    let marks: Vec<_> = (story.publishes.iter())
        .filter(|publish| publish.at > healed && publish.fate.ok().is_some())
        .filter(|publish| publish.what.topic.rsplit('.').next() == Some(MARK))
        .collect();
    for (name, lives) in &story.consumers {
        let Some(life) = lives.last() else { continue };
        if life.asked.drain || life.ended || life.asked.mode == Mode::State {
            continue;
        }
        let seen: BTreeSet<&str> =
            lives.iter().flat_map(|life| &life.seen).map(|(_, event)| event.id.as_str()).collect();
        for mark in marks.iter().filter(|mark| life.asked.pattern.fits(&mark.what.topic)) {
            found.expect(seen.contains(mark.what.id.as_str()), || {
                format!("{name} at node {} never saw {:?}", life.asked.node, mark.what.id)
            });
        }
    }
}

/// The nodes' states are equal wherever two nodes were seen at one slot, and there is a slot at which all were seen.
fn same_state(story: &Story, nodes: &BTreeSet<u64>, found: &mut Findings) {
    let mut at: BTreeMap<u64, BTreeMap<u64, &str>> = BTreeMap::new();
    for state in &story.states {
        at.entry(state.slot).or_default().insert(state.node, &state.hash);
    }
    for (slot, hashes) in &at {
        let distinct: BTreeSet<&&str> = hashes.values().collect();
        found.expect(distinct.len() == 1, || {
            format!("before slot {slot} the states of nodes are different: {hashes:?}")
        });
    }
    let together = at.values().any(|hashes| nodes.iter().all(|node| hashes.contains_key(node)));
    found.expect(together, || "the nodes were never seen at one slot".to_owned());
}

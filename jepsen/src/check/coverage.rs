//! Checks that the run contains what it was made for. A run without its faults, or without operations during them, proves
//! nothing.
//!
//! Invariant: a problem found here is the run's, not the cluster's.
//!
//! Deliberately absent: how hard a run was beyond that.

use std::collections::BTreeSet;

use super::story::{Fault, Moment, Story};
use super::Findings;
use crate::nemesis::schedule;
use crate::node::Role;
use crate::op::{Mode, Plan};

/// Acknowledged publishes that a run needs, in all and during faults.
const ACKNOWLEDGED: usize = 100;
const MEANWHILE: usize = 20;

/// How often each kind of operation that a workload is for has to occur.
const EACH: usize = 5;

pub(super) fn check(story: &Story) -> Findings {
    let Some(plan) = &story.plan else { return Findings::blind("the history names no plan") };
    let mut found = Findings::default();
    for nemesis in &plan.nemeses {
        let mut mine = story.faults.iter().filter(|fault| &fault.blow.nemesis == nemesis);
        let real = mine.clone().any(|fault| fault.from.is_some() && !fault.blow.proof.is_empty());
        found.expect(real, || {
            format!("{nemesis} never happened; failed: {:?}", mine.next().map(|f| &f.blow))
        });
    }
    every_role(story, plan, &mut found);
    let acknowledged: Vec<u64> =
        story.publishes.iter().filter_map(|p| p.fate.ok()).map(|(at, _)| at.time).collect();
    found.expect(acknowledged.len() >= ACKNOWLEDGED, || {
        format!("{} publishes were acknowledged, {ACKNOWLEDGED} are needed", acknowledged.len())
    });
    let meanwhile = |time: &&u64| {
        story.faults.iter().any(|fault| {
            let to = if is_for_good(story, fault) { None } else { fault.to };
            fault.from.is_some_and(|from| from.time <= **time)
                && to.is_none_or(|to| **time <= to.time)
        })
    };
    let meanwhile = acknowledged.iter().filter(meanwhile).count();
    found.expect(plan.nemeses.is_empty() || meanwhile >= MEANWHILE, || {
        format!("{meanwhile} publishes were acknowledged during faults, {MEANWHILE} are needed")
    });
    for workload in &plan.workloads {
        for (what, count) in done(story, workload) {
            found
                .expect(count >= EACH, || format!("{workload}: {count} {what}, {EACH} are needed"));
        }
    }
    found
}

/// With split roles, each role that these nemeses can hit was hit.
fn every_role(story: &Story, plan: &Plan, found: &mut Findings) {
    let aimed: BTreeSet<Role> = (plan.nemeses.iter())
        .filter(|_| plan.layout.is_split())
        .flat_map(|nemesis| schedule::reached(nemesis))
        .collect();
    for role in aimed {
        let nodes = plan.layout.of(role);
        let hit = story.faults.iter().any(|fault| {
            fault.from.is_some() && fault.blow.nodes.iter().any(|node| nodes.contains(node))
        });
        found.expect(hit, || format!("nothing was done to any {} node", role.name()));
    }
}

/// A node that refuses to continue with its damaged disk is missing for the rest of the run.
fn is_for_good(story: &Story, fault: &Fault) -> bool {
    let lost = story.healed.iter().flat_map(|(_, healed)| &healed.lost);
    fault.blow.nemesis == "corrupt"
        && fault.blow.nodes.iter().any(|node| lost.clone().any(|l| l == node))
}

/// The kinds of operations that a workload has to contain, and how often they occurred.
fn done(story: &Story, workload: &str) -> Vec<(&'static str, usize)> {
    let acknowledged =
        |f: &str| story.publishes.iter().filter(|p| p.f == f && p.fate.ok().is_some()).count();
    let lives = || story.consumers.values().flatten();
    match workload {
        "log" => vec![
            ("events published", acknowledged("publish")),
            ("consumers' connections", lives().filter(|life| !life.seen.is_empty()).count()),
        ],
        "kv" => vec![
            ("values set if another stood", acknowledged("cas")),
            ("reads", story.reads.iter().filter(|read| read.fate.ok().is_some()).count()),
        ],
        "lock" => vec![
            ("grants", acknowledged("acquire")),
            ("uses", story.uses.iter().filter(|used| used.fate.ok().is_some()).count()),
        ],
        "retained" => {
            let joined = lives().filter(|life| {
                life.asked.mode == Mode::State && life.seen.iter().any(|(_, event)| !event.retained)
            });
            vec![("joins", joined.count())]
        }
        "will" => {
            let goodbyes = story.ends.values().filter(|(_, end)| end.clean && end.known).count();
            vec![
                ("wills bound", acknowledged("bind") + story.testaments.len()),
                ("goodbyes that are in the log", goodbyes),
            ]
        }
        "session" => {
            let sittings = || story.sittings.values().flatten();
            let found = |granted: &Option<(Moment, bool)>| granted.is_some_and(|(_, found)| found);
            vec![
                ("sessions found again", sittings().filter(|s| found(&s.granted)).count()),
                ("events sent to them", sittings().map(|sitting| sitting.heard.len()).sum()),
            ]
        }
        "calls" => vec![("calls", story.calls.iter().filter(|c| c.fate.ok().is_some()).count())],
        _ => vec![("known workloads of this name", 0)],
    }
}

//! A subscription with retained values: the values as of one position, then every later event, once.
//!
//! Invariant: judged only if an event followed the values, or the node reported that they were complete; a connection that
//! broke earlier proves nothing.
//!
//! Deliberately absent: how old the values may be. A subscription without `after` may begin at any position.

use std::collections::HashMap;

use super::story::{Life, Log, Story, NO_LOG};
use super::Findings;
use crate::op::{Event, Mode};

pub(super) fn check(story: &Story) -> Findings {
    let with_state = |life: &&Life| life.asked.mode == Mode::State;
    if !story.consumers.values().flatten().any(|life| with_state(&life)) {
        return Findings::default();
    }
    let Some(log) = story.log() else { return Findings::blind(NO_LOG) };
    let kept = kept(story, &log);
    let mut found = Findings::default();
    for life in story.consumers.values().flatten().filter(with_state) {
        let values = life.seen.iter().take_while(|(_, event)| event.retained).count();
        let seen: Vec<&Event> = life.seen.iter().map(|(_, event)| event).collect();
        let (values, rest) = seen.split_at(values);
        if rest.is_empty() && !life.ended {
            continue;
        }
        let problem = join(life, values, rest, &log, &kept);
        found.expect(problem.is_none(), || {
            format!(
                "{} (connection {}) {}",
                life.asked.consumer,
                life.asked.life,
                problem.unwrap_or_default()
            )
        });
    }
    found
}

/// Which events of the log become their topic's value.
fn kept(story: &Story, log: &Log) -> Vec<bool> {
    let by_id = story.by_id();
    let wills = super::wills::all(story);
    let keeps = |event: &&Event| {
        let retain = |publish: &&super::story::Asked<crate::op::Publish>| publish.what.retain;
        event.id.is_empty()
            || wills.contains_key(event.id.as_str())
            || by_id.get(event.id.as_str()).is_some_and(retain)
    };
    log.events.iter().map(keeps).collect()
}

/// What is wrong with a join, if anything.
fn join(
    life: &Life,
    values: &[&Event],
    rest: &[&Event],
    log: &Log,
    kept: &[bool],
) -> Option<String> {
    if let Some(late) = rest.iter().find(|event| event.retained) {
        return Some(format!("was shown {late:?} as a retained value in the middle of events"));
    }
    let mut wanted: HashMap<&str, &str> = HashMap::new();
    for event in values {
        if event.id.is_empty() || wanted.insert(&event.topic, &event.id).is_some() {
            return Some(format!(
                "was shown {event:?}, which is no value, or its topic's second one"
            ));
        }
    }
    let fitting: Vec<usize> = (0..log.events.len())
        .filter(|place| life.asked.pattern.fits(&log.events[*place].topic))
        .collect();
    let mut fold: HashMap<&str, &str> = HashMap::new();
    // Number of topics whose value at this point of the log differs from what was shown.
    let mut different = wanted.len();
    let mut together = 0;
    for at in 0..=fitting.len() {
        let enough = at == fitting.len()
            || life.asked.after.is_none_or(|after| log.events[fitting[at]].position > Some(after));
        if different == 0 && enough {
            together += 1;
            let next = fitting[at..].iter().map(|place| log.events[*place]);
            let goes_on = rest.len() <= fitting.len() - at
                && rest.iter().zip(next).all(|(seen, next)| {
                    (&seen.id, &seen.topic) == (&next.id, &next.topic)
                        && (seen.position.is_none() || seen.position == next.position)
                });
            if goes_on {
                return None;
            }
        }
        let Some(&place) = fitting.get(at) else { continue };
        if kept[place] {
            let event = log.events[place];
            let (topic, id) = (event.topic.as_str(), event.id.as_str());
            let fits = |fold: &HashMap<&str, &str>| fold.get(topic) == wanted.get(topic);
            let before = fits(&fold);
            if id.is_empty() {
                fold.remove(topic)
            } else {
                fold.insert(topic, id)
            };
            match (before, fits(&fold)) {
                (true, false) => different += 1,
                (false, true) => different -= 1,
                _ => {}
            }
        }
    }
    let first = rest.first();
    Some(match together {
        0 => format!("was shown {} values that never stood together, then {first:?}", values.len()),
        _ => format!(
            "was shown {} values, and then {first:?}, which is not what came next",
            values.len()
        ),
    })
}

//! The will of a session that ends comes once, unless the topic got another value before; and before anything that its client
//! publishes on a later connection.
//!
//! Invariant: a session must not publish anything after its will. A goodbye counts only if it is known to be in the log; a
//! goodbye that was lost with its node may be followed by the will.
//!
//! Deliberately absent: how soon a will comes. A node's end is noticed by its lease.

use std::collections::HashMap;

use super::story::{Asked, Fate, Log, Moment, Story, NO_LOG};
use super::Findings;
use crate::op::Testament;

/// All wills by id: since when they may come, and where.
pub(super) fn all(story: &Story) -> HashMap<&str, (Moment, &str)> {
    let mut wills = HashMap::new();
    for publish in &story.publishes {
        if let Some(will) = publish.what.will.as_deref().filter(|will| !will.is_empty()) {
            wills.insert(will, (publish.at, publish.what.topic.as_str()));
        }
    }
    for asked in &story.testaments {
        wills.insert(asked.what.will.as_str(), (asked.at, asked.what.topic.as_str()));
    }
    wills
}

pub(super) fn check(story: &Story) -> Findings {
    let mut found = Findings::default();
    if all(story).is_empty() {
        return found;
    }
    let Some(log) = story.log() else { return Findings::blind(NO_LOG) };
    let mut times: HashMap<&str, u64> = HashMap::new();
    for event in &log.events {
        *times.entry(&event.id).or_default() += 1;
    }
    let times = |will: &str| times.get(will).copied().unwrap_or_default();
    bound(story, &log, &times, &mut found);
    for asked in &story.testaments {
        let will = asked.what.will.as_str();
        let (least, most) = match (&asked.fate, story.ends.get(&asked.what.session)) {
            (Fate::Failed(..), _) => (0, 0),
            (Fate::Ok(..), Some((_, end))) if end.clean && end.known => (0, 0),
            (Fate::Ok(..), Some((_, end))) if !end.clean => (1, 1),
            _ => (0, 1),
        };
        found.expect((least..=most).contains(&times(will)), || {
            format!("{will:?} came {} times instead of {least} to {most}", times(will))
        });
    }
    births(story, &log, &mut found);
    found
}

/// A client's publishes come after the wills of those earlier connections that it knew to be open. A connection that it did not
/// know to be open may have been opened after the later one.
fn births(story: &Story, log: &Log, found: &mut Findings) {
    let mut known: HashMap<&str, Vec<&Asked<Testament>>> = HashMap::new();
    for asked in story.testaments.iter().filter(|asked| asked.fate.ok().is_some()) {
        if let Some(client) = &asked.what.client {
            known.entry(client).or_default().push(asked);
        }
    }
    for lives in known.values() {
        for life in lives {
            let said = story.publishes.iter().filter(|p| p.what.session == life.what.session);
            let first = said.filter_map(|said| log.position(&said.what.id)).min();
            let Some(first) = first else { continue };
            let earlier = lives.iter().filter(|other| other.at < life.at);
            let late = earlier.map(|other| (log.position(&other.what.will), &other.what.will));
            for (place, will) in late {
                found.expect(place.is_none_or(|place| place < first), || {
                    format!(
                        "{will:?} came at {place:?}, and {} was told before that it is connected: it published at {first}",
                        life.what.session
                    )
                });
            }
        }
    }
}

/// Wills that are bound to a retained value.
fn bound(story: &Story, log: &Log, times: &dyn Fn(&str) -> u64, found: &mut Findings) {
    let mut by_topic: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, event) in log.events.iter().enumerate() {
        by_topic.entry(&event.topic).or_default().push(place);
    }
    for publish in &story.publishes {
        let (what, Some(will)) = (&publish.what, publish.what.will.as_deref()) else { continue };
        let Some(&place) = log.places.get(what.id.as_str()) else { continue };
        if will.is_empty() {
            continue;
        }
        let on_topic = &by_topic[what.topic.as_str()];
        let next =
            on_topic.get(on_topic.partition_point(|at| *at <= place)).map(|at| log.events[*at]);
        let over = story.ends.contains_key(&what.session);
        let (least, most) = match next {
            Some(next) if next.id == will => (1, 1),
            Some(_) => (0, 0),
            None => (u64::from(over), 1),
        };
        found.expect((least..=most).contains(&times(will)), || {
            format!(
                "{will:?} of {} came {} times instead of {least} to {most}; behind it on {} stands {next:?}",
                what.session, times(will), what.topic
            )
        });
        let Some(fired) = log.position(will) else { continue };
        let later = story.publishes.iter().find(|publish| {
            publish.what.session == what.session && log.position_of(publish) > Some(fired)
        });
        found.expect(later.is_none(), || {
            let later = later.map(|later| &later.what.id);
            format!("{will:?} came at {fired}, and its session went on with {later:?}")
        });
    }
}

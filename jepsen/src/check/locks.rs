//! A lock has one holder at a time, and a later holder has a larger token.
//!
//! Invariant: only the log and what the protected resource accepted decide, not a clock.
//!
//! Deliberately absent: fairness. Clients do not see a waiting publish's place in the queue.

use std::collections::{BTreeMap, HashMap};

use super::story::{Asked, Fate, Log, Story, NO_LOG};
use super::Findings;
use crate::op::Publish;

pub(super) fn check(story: &Story) -> Findings {
    let mut found = Findings::default();
    if !story.publishes.iter().any(|publish| publish.f == "acquire") {
        return found;
    }
    let Some(log) = story.log() else { return Findings::blind(NO_LOG) };
    one_holder(story, &log, &mut found);
    resource(story, &mut found);
    found
}

/// Between two grants the lock was freed: by its holder, or by the end of its session.
fn one_holder(story: &Story, log: &Log, found: &mut Findings) {
    let grants: HashMap<&str, &Asked<Publish>> = (story.publishes.iter())
        .filter(|publish| publish.f == "acquire")
        .map(|publish| (publish.what.id.as_str(), publish))
        .collect();
    let last_of = last_positions(story, log);
    let mut holders: BTreeMap<&str, (&Asked<Publish>, u64)> = BTreeMap::new();
    for event in &log.events {
        let (topic, position) = (event.topic.as_str(), event.position.unwrap_or_default());
        if let Some(grant) = grants.get(event.id.as_str()) {
            let holder = holders.insert(topic, (grant, position));
            found.expect(holder.is_none(), || {
                let holder = holder.map(|(holder, at)| (&holder.what.id, at));
                format!(
                    "{topic} was granted to {:?} at {position} while {holder:?} had it",
                    event.id
                )
            });
            continue;
        }
        if !event.id.is_empty() {
            continue;
        }
        let Some((holder, granted)) = holders.remove(topic) else { continue };
        let session = holder.what.session.as_str();
        let gave_back = story.publishes.iter().any(|publish| {
            let mine = publish.f == "release" && publish.what.session == session;
            let fits = match &publish.fate {
                Fate::Ok(_, answer) => answer.position == Some(position),
                Fate::Failed(..) => false,
                Fate::Unknown(_) => true,
            };
            mine && fits && publish.what.topic == topic && publish.at > holder.at
        });
        // Otherwise its session must have ended, and publish nothing afterwards.
        let last = last_of.get(session).copied().unwrap_or_default();
        found.expect(gave_back || last < position, || {
            format!(
                "{topic}, granted to {:?} at {granted}, was taken away at {position}, and its session went on to {last}",
                holder.what.id
            )
        });
    }
}

/// The last event of each session in the log.
fn last_positions<'a>(story: &'a Story, log: &Log) -> HashMap<&'a str, u64> {
    let mut last = HashMap::new();
    for publish in &story.publishes {
        if let Some(position) = log.position_of(publish) {
            let known = last.entry(publish.what.session.as_str()).or_insert(position);
            *known = position.max(*known);
        }
    }
    last
}

/// What the protected resource accepted: granted tokens, never a smaller one after a larger one.
fn resource(story: &Story, found: &mut Findings) {
    let mut granted: HashMap<(&str, u64), &str> = HashMap::new();
    for publish in story.publishes.iter().filter(|publish| publish.f == "acquire") {
        if let Some((_, Publish { position: Some(token), .. })) = publish.fate.ok() {
            let holder = publish.what.session.as_str();
            let before = granted.insert((publish.what.topic.as_str(), *token), holder);
            found.expect(before.is_none(), || {
                format!(
                    "token {token} of {} was given to {before:?} and {holder}",
                    publish.what.topic
                )
            });
        }
    }
    let mut let_in: Vec<_> = (story.uses.iter())
        .filter_map(|used| used.fate.ok().map(|(at, _)| (at.index, &used.what)))
        .collect();
    let_in.sort_by_key(|(index, _)| *index);
    let mut last: HashMap<&str, (u64, &str)> = HashMap::new();
    for (_, used) in let_in {
        let owner = granted.get(&(used.topic.as_str(), used.token));
        found.expect(owner == Some(&used.session.as_str()), || {
            format!(
                "{} came to {} with token {}, which is {owner:?}'s",
                used.session, used.topic, used.token
            )
        });
        let before = last.insert(&used.topic, (used.token, &used.session));
        found.expect(before.is_none_or(|(before, _)| before <= used.token), || {
            format!(
                "{} was let in to {} with token {} after {before:?}",
                used.session, used.topic, used.token
            )
        });
    }
}

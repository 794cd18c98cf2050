//! A consumer sees a gapless run of the log, and continues where it stopped when it comes back.
//!
//! Invariant: MQTT consumers, which get no positions, are judged by the log positions of what they saw.
//!
//! Deliberately absent: the retained values with which some consumers begin; see `retained`.

use super::story::{Life, Log, Story, NO_LOG};
use super::Findings;
use crate::op::Mode;

pub(super) fn check(story: &Story) -> Findings {
    let Some(log) = story.log() else { return Findings::blind(NO_LOG) };
    let mut found = Findings::default();
    for (name, lives) in &story.consumers {
        for life in lives.iter().filter(|life| life.asked.mode == Mode::Events) {
            rises(life, &mut found);
            if !life.asked.drain {
                runs(name, life, &log, &mut found);
                misses_nothing(name, life, story, &log, &mut found);
            }
        }
        resumes(name, lives, &log, &mut found);
    }
    found
}

/// Positions are ascending within a connection, also for consumers that read the whole log.
fn rises(life: &Life, found: &mut Findings) {
    let mut last = life.asked.after;
    for (_, event) in &life.seen {
        let Some(position) = event.position else { continue };
        found.expect(last.is_none_or(|last| position > last), || {
            format!("{} was shown position {position} behind {last:?}", life.asked.consumer)
        });
        last = Some(position);
    }
}

/// Each event is the next matching one in the log.
fn runs(name: &str, life: &Life, log: &Log, found: &mut Findings) {
    let fits = |place: &usize| life.asked.pattern.fits(&log.events[*place].topic);
    let place_of = |event: &crate::op::Event| {
        let by_position = event.position.and_then(|position| {
            log.events.binary_search_by_key(&Some(position), |event| event.position).ok()
        });
        by_position.or_else(|| log.places.get(event.id.as_str()).copied())
    };
    let Some((_, first)) = life.seen.first() else { return };
    let start = match life.asked.after {
        Some(after) => log.events.partition_point(|event| event.position <= Some(after)),
        None => match place_of(first) {
            Some(place) => place,
            None => {
                found.expect(false, || format!("{name} began with {first:?}, not in the log"));
                return;
            }
        },
    };
    let mut expected = (start..log.events.len()).filter(fits);
    for (_, event) in &life.seen {
        let next = expected.next().map(|place| log.events[place]);
        let same = next.is_some_and(|next| {
            (&next.id, &next.topic) == (&event.id, &event.topic)
                && (event.position.is_none() || event.position == next.position)
        });
        found.expect(same, || {
            format!(
                "{name} (connection {}) saw {event:?} where the log has {next:?}",
                life.asked.life
            )
        });
        if !same {
            // After one gap, every later event would be reported.
            return;
        }
    }
}

/// A subscription without a start position shows at least everything published after it was granted, up to the last event it
/// saw.
fn misses_nothing(name: &str, life: &Life, story: &Story, log: &Log, found: &mut Findings) {
    let (Some(granted), None, Some((_, first))) =
        (life.granted, life.asked.after, life.seen.first())
    else {
        return;
    };
    let Some(&start) = log.places.get(first.id.as_str()) else { return };
    for publish in &story.publishes {
        let place = log.places.get(publish.what.id.as_str());
        let late = publish.at.index > granted.index && life.asked.pattern.fits(&publish.what.topic);
        if let (true, Some(&place)) = (late, place) {
            found.expect(place >= start, || {
                format!(
                    "{name} missed {:?}, published after its subscription stood",
                    publish.what.id
                )
            });
        }
    }
}

/// A connection with a start position continues right after the last event of the connection before.
fn resumes(name: &str, lives: &[Life], log: &Log, found: &mut Findings) {
    let mut last: Option<u64> = None;
    for life in lives.iter().filter(|life| !life.asked.drain && life.asked.mode == Mode::Events) {
        if life.asked.after.is_none() {
            // It started over at the log's current end.
            last = None;
        }
        let positions = || life.seen.iter().filter_map(|(_, event)| event.position);
        if let (Some(last), Some(next)) = (last, positions().next()) {
            let between = log.events.iter().filter(|event| {
                let inside = event.position > Some(last) && event.position < Some(next);
                inside && life.asked.pattern.fits(&event.topic)
            });
            let skipped = between.count();
            found.expect(next > last && skipped == 0, || {
                format!("{name} came back at {next} after {last}: {skipped} events were skipped")
            });
        }
        last = positions().next_back().or(last);
    }
}

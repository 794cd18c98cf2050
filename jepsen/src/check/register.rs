//! Retained values as registers: is there one moment for each operation, within its time, that explains all answers?
//!
//! The log gives the order of the writes, so no search is needed. Each write gets the earliest moment that is after the write
//! before it, after its own beginning, and after the reads of the previous value. A read gets the earliest moment at which its
//! value held. Earlier is never worse for later operations, so an operation that is too late in this assignment is too late in
//! every other.
//!
//! Invariant: exact for writes, successful compare-and-sets, and reads of values. Refused compare-and-sets and empty
//! reads are checked one by one: each must have had a moment, although two of them may have needed the same one.
//!
//! Deliberately absent: reads that may be stale; those are consumers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::story::{Asked, Fate, Story, NO_LOG};
use super::Findings;
use crate::op::Publish;

/// The time in which a value was in the register.
struct Reign<'a> {
    id: &'a str,
    write: Option<&'a Asked<Publish>>,
    /// Beginnings and ends of its reads.
    reads: Vec<(u64, u64)>,
    earliest: u64,
    latest: u64,
}

pub(super) fn check(story: &Story) -> Findings {
    let written = |publish: &&Asked<Publish>| matches!(publish.f.as_str(), "write" | "cas");
    let topics: BTreeSet<&str> =
        story.publishes.iter().filter(written).map(|p| p.what.topic.as_str()).collect();
    if topics.is_empty() {
        return Findings::default();
    }
    let Some(log) = story.log() else { return Findings::blind(NO_LOG) };
    let by_id = story.by_id();
    let mut found = Findings::default();
    let mut reigns: BTreeMap<&str, Vec<Reign>> = BTreeMap::new();
    for topic in topics {
        reigns.insert(topic, vec![Reign::new("", None)]);
    }
    for event in &log.events {
        let Some(register) = reigns.get_mut(event.topic.as_str()) else { continue };
        let write = by_id.get(event.id.as_str()).copied();
        let before = register.last().map_or("", |reign| reign.id);
        if let Some(expected) = write.and_then(|write| write.what.expect.as_deref()) {
            found.expect(expected == before, || {
                format!(
                    "{:?} was set for {expected:?}, and {before:?} stood in {}",
                    event.id, event.topic
                )
            });
        }
        register.push(Reign::new(&event.id, write));
    }
    for (topic, register) in &mut reigns {
        assign(story, topic, register, &mut found);
        forward(topic, register, &mut found);
        backward(register);
        others(story, topic, register, &mut found);
    }
    found
}

impl<'a> Reign<'a> {
    fn new(id: &'a str, write: Option<&'a Asked<Publish>>) -> Self {
        Self { id, write, reads: Vec::new(), earliest: 0, latest: u64::MAX }
    }

    /// The time in which its write happened.
    fn span(&self) -> (u64, u64) {
        let Some(write) = self.write else {
            return (0, if self.id.is_empty() { u64::MAX } else { 0 });
        };
        let end = write.fate.ok().map_or(u64::MAX, |(at, _)| at.index);
        (write.at.index, end)
    }
}

/// Assigns each read to the value it saw.
fn assign(story: &Story, topic: &str, register: &mut [Reign], found: &mut Findings) {
    let places: HashMap<&str, usize> =
        register.iter().enumerate().map(|(place, reign)| (reign.id, place)).collect();
    for read in story.reads.iter().filter(|read| read.what.topic == topic) {
        let Some((at, answer)) = read.fate.ok() else { continue };
        let id = answer.id.as_deref().unwrap_or_default();
        if id.is_empty() {
            continue;
        }
        match places.get(id) {
            Some(&place) => register[place].reads.push((read.at.index, at.index)),
            None => found
                .expect(false, || format!("{id:?} was read from {topic}, and never stood there")),
        }
    }
}

/// A read that began too late moves the next write past that write's end: the problem is reported at the write.
fn forward(topic: &str, register: &mut [Reign], found: &mut Findings) {
    let mut now = 0;
    for reign in register {
        let (begin, end) = reign.span();
        let write = now.max(begin);
        found.expect(write <= end, || {
            format!("{:?} was set in {topic} when what stands behind it had been seen", reign.id)
        });
        reign.earliest = write;
        now = write;
        for &(begin, end) in &reign.reads {
            let read = write.max(begin);
            found.expect(read <= end, || {
                format!(
                    "{:?} was read from {topic} by {begin} to {end}, before it stood there",
                    reign.id
                )
            });
            now = now.max(read);
        }
    }
}

fn backward(register: &mut [Reign]) {
    let mut limit = u64::MAX;
    for reign in register.iter_mut().rev() {
        let (_, end) = reign.span();
        let reads = reign.reads.iter().map(|(_, end)| *end).min().unwrap_or(u64::MAX);
        reign.latest = limit.min(end).min(reads);
        limit = reign.latest;
    }
}

/// Operations that need a moment in which a value did, or did not, hold.
fn others(story: &Story, topic: &str, register: &[Reign], found: &mut Findings) {
    // From the latest moment at which a value began to the earliest at which it ended, it certainly held.
    let surely = |place: usize| {
        let end = register.get(place + 1).map_or(u64::MAX, |next| next.earliest);
        let begin = if place == 0 { 0 } else { register[place].latest };
        (begin, end)
    };
    for publish in story.publishes.iter().filter(|p| p.what.topic == topic) {
        let (Fate::Failed(at, _), Some(expected)) = (&publish.fate, &publish.what.expect) else {
            continue;
        };
        let places = (0..register.len()).filter(|place| register[*place].id == expected);
        let forced = places.map(surely).any(|(from, to)| from < publish.at.index && at.index < to);
        found.expect(!forced, || {
            format!(
                "{:?} was refused in {topic} while {expected:?}, which it asked for, stood there",
                publish.what.id
            )
        });
    }
    for read in story.reads.iter().filter(|read| read.what.topic == topic) {
        let Some((at, answer)) = read.fate.ok() else { continue };
        if !answer.id.as_deref().unwrap_or_default().is_empty() {
            continue;
        }
        let possible =
            (0..register.len()).filter(|place| register[*place].id.is_empty()).any(|place| {
                let end = register.get(place + 1).map_or(u64::MAX, |next| next.latest);
                register[place].earliest <= at.index && read.at.index <= end
            });
        found.expect(possible, || {
            format!(
                "nothing was read from {topic} by {} to {}, when a value stood there",
                read.at.index, at.index
            )
        });
    }
}

//! An MQTT session that outlives its connections: it misses nothing while its client is away, and marks events that come again.
//!
//! The log gives the order. Within a connection events come only in that order, and over all connections everything
//! after the first one comes, unless the client had acknowledged it before.
//!
//! Invariant: an acknowledgement that was sent may have been lost with its connection. An acknowledged event must not come
//! again only if the client sent DISCONNECT, saw the node close the connection, and no fault happened until it was back.
//!
//! Deliberately absent: sessions that expire or are ended by a clean session.

use std::collections::{HashMap, HashSet};

use super::convergence::MARK;
use super::story::{Log, Moment, Sitting, Story, NO_LOG};
use super::Findings;
use crate::op::{Heard, Pattern};

/// Nanoseconds after a fault in which a node may record acknowledgements late.
pub(super) const SHAKEN: u64 = 4_000_000_000;

pub(super) fn check(story: &Story) -> Findings {
    if story.sittings.is_empty() {
        return Findings::default();
    }
    let Some(log) = story.log() else { return Findings::blind(NO_LOG) };
    let mut found = Findings::default();
    for (client, sittings) in &story.sittings {
        is_found(client, sittings, &mut found);
        let filters = || sittings.iter().filter_map(|sitting| sitting.filter.as_ref());
        let Some(pattern) = filters().next().map(|filter| &filter.pattern) else { continue };
        let stands = filters().find_map(|filter| filter.granted);
        let mut reading = Reading::new(client, story, &log, pattern, stands);
        for (place, sitting) in sittings.iter().enumerate() {
            let before = place.checked_sub(1).map(|before| &sittings[before]);
            let orderly = before.filter(|before| is_orderly(story, before, sitting));
            reading.sit(sitting, orderly, &mut found);
        }
        if stands.is_some() {
            reading.ends(story, pattern, &mut found);
        }
    }
    found
}

/// A session is found if its client was admitted before, and only if the client had tried to connect before.
fn is_found(client: &str, sittings: &[Sitting], found: &mut Findings) {
    let mut known = false;
    for (place, sitting) in sittings.iter().enumerate() {
        let Some((_, present)) = sitting.granted else { continue };
        let life = sitting.asked.life;
        found.expect(present || !known, || {
            format!("the session of {client} was not found by connection {life}")
        });
        found.expect(!present || place > 0, || {
            format!("a session of {client} was found before there was one")
        });
        known = true;
    }
}

/// Whether everything acknowledged on the first connection is certainly known when the second begins.
fn is_orderly(story: &Story, before: &Sitting, next: &Sitting) -> bool {
    let (Some((left, leave)), Some((back, _))) = (&before.left, &next.granted) else {
        return false;
    };
    leave.goodbye && leave.closed && !story.is_hurt(*left, *back, SHAKEN)
}

/// A client's progress.
struct Reading<'a> {
    client: &'a str,
    /// Events that match its filter, in order, and their indexes.
    events: Vec<&'a str>,
    places: HashMap<&'a str, usize>,
    /// The index of the first event that it must see, if known.
    first: Option<usize>,
    /// The events that it may have acknowledged on an earlier connection.
    done: Vec<bool>,
    /// What it has seen, with the last packet identifier.
    seen: HashMap<&'a str, u16>,
}

impl<'a> Reading<'a> {
    fn new(
        client: &'a str,
        story: &'a Story,
        log: &Log<'a>,
        pattern: &Pattern,
        stands: Option<Moment>,
    ) -> Self {
        let for_it = log.events.iter().filter(|event| pattern.fits(&event.topic));
        let events: Vec<&str> = for_it.map(|event| event.id.as_str()).collect();
        let places: HashMap<&str, usize> =
            events.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        let late = story.publishes.iter().filter(|publish| Some(publish.at) > stands);
        let late = late.filter(|_| stands.is_some());
        let first = late.filter_map(|publish| places.get(publish.what.id.as_str()).copied()).min();
        let done = vec![false; events.len()];
        Self { client, events, places, first, done, seen: HashMap::new() }
    }

    /// Checks one connection; `orderly` is the one before, if that ended in order without doubt.
    fn sit(&mut self, sitting: &'a Sitting, orderly: Option<&Sitting>, found: &mut Findings) {
        let settled: HashSet<&str> =
            orderly.iter().flat_map(|before| &before.acknowledged).map(String::as_str).collect();
        let mut last: Option<usize> = None;
        for (_, heard) in &sitting.heard {
            let (client, life) = (self.client, sitting.asked.life);
            let Some(&place) = self.places.get(heard.id.as_str()) else {
                found.expect(false, || {
                    format!("{client} (connection {life}) was sent {heard:?}, not in the log")
                });
                continue;
            };
            found.expect(last.is_none_or(|last| last < place), || {
                format!("{client} (connection {life}) was sent {heard:?} behind a later event")
            });
            self.skips_nothing(life, heard, last, place, found);
            self.repeats_rightly(life, heard, orderly.is_some(), &settled, found);
            last = Some(place);
            self.seen.insert(&heard.id, heard.packet);
        }
        for id in &sitting.acknowledged {
            if let Some(&place) = self.places.get(id.as_str()) {
                self.done[place] = true;
            }
        }
    }

    /// Everything between two events of a connection, or before its first one, was acknowledged earlier.
    fn skips_nothing(
        &mut self,
        life: u64,
        heard: &Heard,
        last: Option<usize>,
        place: usize,
        found: &mut Findings,
    ) {
        // The first event it sees shows where its filter begins, unless that is known to be earlier.
        let first = *self.first.get_or_insert(place);
        let from = last.map_or(first, |last| last + 1);
        let skipped = (from..place).find(|at| !self.done[*at]);
        found.expect(skipped.is_none(), || {
            let skipped = skipped.map(|at| self.events[at]);
            format!(
                "{} (connection {life}) was sent {heard:?}, and {skipped:?} before it was skipped",
                self.client
            )
        });
    }

    fn repeats_rightly(
        &self,
        life: u64,
        heard: &Heard,
        orderly: bool,
        settled: &HashSet<&str>,
        found: &mut Findings,
    ) {
        let Some(packet) = self.seen.get(heard.id.as_str()) else { return };
        let client = self.client;
        found.expect(heard.again, || {
            format!("{client} (connection {life}) was sent {heard:?} again, without a mark")
        });
        if orderly {
            let again = settled.contains(heard.id.as_str());
            found.expect(!again, || {
                format!(
                    "{client} (connection {life}) was sent {heard:?}, acknowledged on the connection before"
                )
            });
            found.expect(again || heard.packet == *packet, || {
                format!(
                    "{client} (connection {life}) was sent {heard:?}, which was packet {packet}"
                )
            });
        }
    }

    /// In the end it has seen what was published after healing.
    fn ends(&self, story: &Story, pattern: &Pattern, found: &mut Findings) {
        let Some((healed, _)) = story.healed else { return };
        for publish in story.publishes.iter().filter(|publish| publish.at > healed) {
            let what = &publish.what;
            let mark = what.topic.rsplit('.').next() == Some(MARK) && pattern.fits(&what.topic);
            if mark && publish.fate.ok().is_some() {
                found.expect(self.seen.contains_key(what.id.as_str()), || {
                    format!("{} never saw {:?}", self.client, what.id)
                });
            }
        }
    }
}

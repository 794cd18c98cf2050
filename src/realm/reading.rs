//! Decoded large retained values: decoding one takes milliseconds, and conditions and merges need it again and again.
//!
//! The replica decodes the values that a segment will need before it applies the segment, outside of the state's lock.
//!
//! Invariant: a value that is not here is decoded where it is needed, so the contents change no result. Each value was decoded
//! from the payload that the topic retains. The result of a merge is decoded from its payload like any other, because the
//! payload may not express everything in the merged value.
//!
//! Deliberately absent: small values, which are decoded as fast as they would be looked up here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{At, Realms, Retained};
use crate::payload;
use crate::segment::Segment;
use crate::types::act::{Act, Terms};
use crate::types::limits;
use crate::types::topic::{Realm, Topic};
use crate::types::value::Value;

/// Payloads of at least this many bytes are held here decoded. The fold's own tests use small ones.
const LARGE: usize = if cfg!(test) { 2 } else { 16 << 10 };

/// A value is dropped after this many segments with state none of which needed it.
const IDLE: u32 = 1000;

/// A retained value that a segment needs and that is not decoded yet.
pub struct Unread {
    place: (Realm, Topic),
    retained: Arc<Retained>,
}

/// A decoded retained value.
pub struct ReadValue {
    place: (Realm, Topic),
    at: At,
    value: Value,
    /// Bytes that it takes in memory.
    held: usize,
    /// Segments that did not need it.
    idle: u32,
}

impl Unread {
    /// Decodes it.
    #[must_use]
    pub fn read(self) -> ReadValue {
        let Self { place, retained } = self;
        let value = payload::value(&retained.payload);
        let held = value.held();
        ReadValue { place, at: retained.at, value, held, idle: 0 }
    }
}

/// The decoded values, by realm and topic.
#[derive(Default)]
pub(super) struct ReadValues(BTreeMap<(Realm, Topic), ReadValue>);

impl std::fmt::Debug for ReadValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} values", self.0.len())
    }
}

impl ReadValues {
    /// Takes out the value of a topic, if it is that of the event at this position.
    pub(super) fn take(&mut self, place: &(Realm, Topic), at: At) -> Option<Value> {
        self.0.get(place).filter(|read| read.at == at)?;
        self.0.remove(place).map(|read| read.value)
    }

    pub(super) fn put(&mut self, read: ReadValue) {
        self.0.insert(read.place.clone(), read);
    }

    /// A segment has been applied: keeps the values that topics still retain, as far as there is room. The least recently
    /// needed ones are dropped first.
    fn trim(&mut self, retains: impl Fn(&(Realm, Topic), At) -> bool) {
        self.0.values_mut().for_each(|read| read.idle += 1);
        self.0.retain(|place, read| read.idle < IDLE && retains(place, read.at));
        while self.0.values().map(|read| read.held).sum::<usize>() > limits::READ_VALUES_BYTES {
            let longest = self.0.values().max_by_key(|read| read.idle);
            let Some(place) = longest.map(|read| read.place.clone()) else { return };
            self.0.remove(&place);
        }
    }
}

impl Realms {
    /// Drops values that were decoded for the last segment and are of no use for the next ones.
    pub(super) fn trim_read(&mut self) {
        let Self { read, retained, .. } = self;
        read.trim(|(realm, topic), at| {
            let found = retained.get(realm).and_then(|topics| topics.get(topic));
            found.is_some_and(|retained| retained.at == at)
        });
    }

    /// The large values that a segment needs, as they are before it, and that are not decoded yet.
    pub(super) fn unread(&mut self, segment: &Segment) -> Vec<Unread> {
        let mut unread: Vec<Unread> = Vec::new();
        for event in segment.events().filter(|event| !event.act.is_empty()) {
            let terms = match Act::decode(&event.act) {
                Some(
                    Act::Publish(terms) | Act::Granted { terms, .. } | Act::Once { terms, .. },
                ) => terms,
                _ => continue,
            };
            let (realm, topic) = &segment.topics()[event.topic as usize];
            let Some(retained) = self.needed(realm, topic, &terms) else { continue };
            let place = (realm.clone(), topic.clone());
            if let Some(read) = self.read.0.get_mut(&place).filter(|read| read.at == retained.at) {
                read.idle = 0;
            } else if unread.iter().all(|unread| unread.place != place) {
                unread.push(Unread { place, retained });
            }
        }
        unread
    }

    fn needed(&self, realm: &Realm, topic: &Topic, terms: &Terms) -> Option<Arc<Retained>> {
        if !terms.merge && terms.when.is_none() {
            return None;
        }
        let retained = self.retained.get(realm)?.get(topic)?;
        (retained.payload.len() >= LARGE).then(|| retained.clone())
    }

    /// The value of a topic that conditions are compared with.
    pub(super) fn value_of(&self, realm: &Realm, topic: &Topic) -> Cow<'_, Value> {
        let retained = self.retained.get(realm).and_then(|topics| topics.get(topic));
        let Some(retained) = retained else { return Cow::Owned(Value::Null) };
        if retained.payload.len() >= LARGE {
            let read = self.read.0.get(&(realm.clone(), topic.clone()));
            if let Some(read) = read.filter(|read| read.at == retained.at) {
                return Cow::Borrowed(&read.value);
            }
        }
        Cow::Owned(payload::value(&retained.payload))
    }
}

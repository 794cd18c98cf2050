//! A cache of the topics that a session used lately, so that a repeated one is not parsed or encoded again.
//!
//! Invariant: a session caches at most [`TEXTS`] topics and [`BYTES`] bytes of text in each direction. A single topic longer
//! than that is parsed and encoded again each time.
//!
//! Deliberately absent: an eviction order. A full cache is emptied.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::hash::Hash;

use crate::payload::{Serializer, Writer};
use crate::types::topic::{Topic, TopicError};

/// Topics cached in each direction.
const TEXTS: usize = 64;

/// Bytes of text cached in each direction.
const BYTES: usize = 8 << 10;

/// Topics by the publisher's spelling.
#[derive(Debug, Default)]
pub(super) struct Published(Recent<Box<str>, Topic>);

impl Published {
    pub(super) fn topic(&mut self, text: &str) -> Result<Topic, TopicError> {
        if let Some(topic) = self.0.get(text) {
            return Ok(topic.clone());
        }
        let topic = Topic::from_wamp(text)?;
        self.0.put(text.into(), topic.clone(), text.len());
        Ok(topic)
    }
}

/// WAMP texts of topics, as strings in the session's serializer.
#[derive(Debug, Default)]
pub(super) struct Delivered(Recent<Topic, Box<[u8]>>);

impl Delivered {
    /// The text of a topic.
    pub(super) fn text(&mut self, serializer: Serializer, topic: &Topic) -> Cow<'_, [u8]> {
        if self.0.get(topic).is_none() {
            let mut writer = Writer::new(serializer, topic.as_str().len() + 8);
            writer.text(&topic.to_wamp());
            let text = writer.finish();
            let size = text.len();
            if size > BYTES {
                return text.into();
            }
            self.0.put(topic.clone(), text.into(), size);
        }
        match self.0.get(topic) {
            Some(text) => Cow::Borrowed(text),
            None => Cow::Borrowed(&[]),
        }
    }
}

#[derive(Debug)]
struct Recent<K, V> {
    map: HashMap<K, V>,
    bytes: usize,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), bytes: 0 }
    }
}

impl<K: Eq + Hash, V> Recent<K, V> {
    fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.map.get(key)
    }

    fn put(&mut self, key: K, value: V, size: usize) {
        if size > BYTES {
            return;
        }
        if self.map.len() >= TEXTS || self.bytes + size > BYTES {
            self.map.clear();
            self.bytes = 0;
        }
        self.bytes += size;
        self.map.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_right() {
        let (mut published, mut delivered) = (Published::default(), Delivered::default());
        for at in 0..10 * TEXTS {
            let text = format!("a.{at}.x{}", "x".repeat(at));
            let topic = published.topic(&text).unwrap();
            assert_eq!(published.topic(&text), Ok(topic.clone()));
            let spelled = format!("\"{text}\"").into_bytes();
            assert_eq!(*delivered.text(Serializer::Json, &topic), spelled);
            assert_eq!(*delivered.text(Serializer::Json, &topic), spelled);
            assert!(published.0.map.len() <= TEXTS && published.0.bytes <= BYTES);
            assert!(delivered.0.map.len() <= TEXTS && delivered.0.bytes <= BYTES);
        }
        let long = "x".repeat(2 * BYTES);
        let topic = published.topic(&long).unwrap();
        assert_eq!(delivered.text(Serializer::Json, &topic).len(), long.len() + 2);
        assert!(published.0.bytes <= BYTES && delivered.0.bytes <= BYTES);
        assert_eq!(published.topic("a..b"), Err(TopicError::EmptyPart));
    }
}

//! A cache of the topics a client publishes to, parsed once each: publishers mostly use a few.
//!
//! Invariant: it takes at most [`CACHE_BYTES`] bytes of text, and never changes how a topic is parsed. A longer topic is parsed
//! again each time.
//!
//! Deliberately absent: an eviction order. A full cache is emptied.

use std::collections::HashMap;

use crate::types::topic::{Topic, TopicError};

/// Bytes of topic texts cached for one session.
const CACHE_BYTES: usize = 16 << 10;

/// What an entry costs beyond its text.
const ENTRY_BYTES: usize = 64;

/// Topics by the text they came with.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    last: Option<Topic>,
    by_text: HashMap<Box<str>, Topic>,
    bytes: usize,
}

impl Topics {
    pub(crate) fn read(&mut self, text: &str) -> Result<Topic, TopicError> {
        if let Some(last) = &self.last {
            if last.as_str() == text {
                return Ok(last.clone());
            }
        }
        let topic = match self.by_text.get(text) {
            Some(topic) => topic.clone(),
            None => self.insert(text)?,
        };
        self.last = Some(topic.clone()).filter(|topic| topic.as_str().len() <= CACHE_BYTES);
        Ok(topic)
    }

    fn insert(&mut self, text: &str) -> Result<Topic, TopicError> {
        let topic = Topic::from_mqtt(text)?;
        let cost = text.len() + ENTRY_BYTES;
        if cost > CACHE_BYTES {
            return Ok(topic);
        }
        if self.bytes + cost > CACHE_BYTES {
            self.by_text.clear();
            self.bytes = 0;
        }
        self.bytes += cost;
        self.by_text.insert(text.into(), topic.clone());
        Ok(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_stay_what_they_are_however_many_there_are() {
        let mut topics = Topics::default();
        for round in 0..3 {
            for number in 0..1000 {
                let text = format!("a/{}", number * (round + 1));
                assert_eq!(topics.read(&text).unwrap().as_str(), text);
                assert!(topics.bytes <= CACHE_BYTES);
            }
        }
        assert_eq!(topics.read("a/+"), Err(TopicError::Wildcard));
        let long = "x".repeat(crate::types::limits::TOPIC);
        assert_eq!(topics.read(&long).unwrap().as_str(), long);
        assert!(topics.last.is_none() && topics.bytes <= CACHE_BYTES);
    }
}

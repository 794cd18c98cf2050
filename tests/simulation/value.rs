//! The values that the simulation's clients publish: unique, with their publisher and sequence.
//!
//! Invariant: no two publish attempts have the same value, so that every loss, duplicate, move or invention shows.
//!
//! Deliberately absent: topics; each client has its own.

use std::fmt;
use std::str::FromStr;

use vulpes::types::event::{Encoding, Payload};

/// One attempt to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Value {
    pub(crate) client: u64,
    /// The client's connections are numbered.
    pub(crate) session: u64,
    /// The n-th publish on the connection, from 0.
    pub(crate) sequence: u64,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.client, self.session, self.sequence)
    }
}

impl FromStr for Value {
    type Err = String;

    /// Reads a value; anything after it and a space is padding.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is nothing that anybody published");
        let name = text.split(' ').next().unwrap_or_default();
        let numbers: Result<Vec<u64>, _> = name.split(':').map(str::parse).collect();
        match numbers.map_err(|_| wrong())?[..] {
            [client, session, sequence] => Ok(Self { client, session, sequence }),
            _ => Err(wrong()),
        }
    }
}

impl Value {
    /// The value's text, padded by this many bytes.
    pub(crate) fn text(&self, padding: u64) -> String {
        format!("{self} {}", "x".repeat(padding as usize))
    }

    /// Reads a value from the log.
    pub(crate) fn stored(payload: &Payload) -> Result<Self, String> {
        match payload.encoding {
            Encoding::Raw => std::str::from_utf8(&payload.args).map_err(|e| e.to_string())?.parse(),
            Encoding::Json => {
                let list: Vec<String> =
                    serde_json::from_slice(&payload.args).map_err(|error| error.to_string())?;
                list.first().ok_or("an event without a value")?.parse()
            }
            other => Err(format!("nobody publishes {other:?}")),
        }
    }
}

//! What all clients of a run share: the nodes' addresses, the journal, and when to stop.
//!
//! Invariant: each event of a run has a unique id, in its text or else in its topic.
//!
//! Deliberately absent: what clients do; see [`crate::workload`].

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::client::{Client, Seen};
use crate::cluster::REALM;
use crate::dice::Dice;
use crate::journal::Journal;
use crate::mqtt::Mqtt;
use crate::op::{Event, Protocol};
use crate::wamp::Wamp;

/// All topics of a run are below this one.
pub const ROOT: &str = "j";

/// How long a client waits for a node before it tries another.
pub const OPEN: Duration = Duration::from_secs(4);

/// The text of events whose id is in their topic.
const SMALLEST: &str = "1";

/// A node's address, as clients know it.
#[derive(Debug, Clone, Copy)]
pub struct Door {
    pub node: u64,
    pub wamp: SocketAddr,
    pub mqtt: SocketAddr,
}

/// What clients should do.
#[derive(Debug, Clone)]
pub enum Phase {
    Work,
    /// Stop publishing, and end once these events (topic and id) were seen. Everything in the log by now is at or
    /// before the position `floor`, as far as is known.
    Finish {
        marks: Arc<Vec<(String, String)>>,
        floor: u64,
    },
}

/// See the top of the file.
#[derive(Debug)]
pub struct Stage {
    pub journal: Arc<Journal>,
    pub doors: Vec<Door>,
    pub phase: watch::Receiver<Phase>,
    dice: Dice,
    ids: AtomicU64,
    /// The largest position that any client learned.
    known: AtomicU64,
}

impl Stage {
    #[must_use]
    pub fn new(
        journal: Arc<Journal>,
        doors: Vec<Door>,
        phase: watch::Receiver<Phase>,
        dice: Dice,
    ) -> Self {
        Self { journal, doors, phase, dice, ids: AtomicU64::new(0), known: AtomicU64::new(0) }
    }

    /// A client's own source of randomness.
    #[must_use]
    pub fn dice(&self, client: &str) -> Dice {
        // FNV-1a: the same client gets the same numbers in every run of a seed.
        let hash = client.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.dice.fork(hash)
    }

    /// A unique id of an event.
    #[must_use]
    pub fn id(&self, what: &str) -> String {
        format!("{what}{}", self.ids.fetch_add(1, Ordering::Relaxed))
    }

    pub fn learn(&self, position: Option<u64>) {
        self.known.fetch_max(position.unwrap_or(0), Ordering::Relaxed);
    }

    #[must_use]
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn works(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Work)
    }

    /// A random node's address.
    #[must_use]
    pub fn door(&self, dice: &mut Dice) -> Door {
        *dice.pick(&self.doors)
    }

    /// Opens a session, if the node admits it within [`OPEN`].
    pub async fn open(&self, door: Door, protocol: Protocol) -> Option<Client> {
        let opened = timeout(OPEN, async {
            match protocol {
                Protocol::Wamp => {
                    Wamp::connect(door.wamp, REALM).await.map(|wamp| Client::Wamp(Box::new(wamp)))
                }
                Protocol::Mqtt => Mqtt::connect(door.mqtt).await.map(Client::Mqtt),
            }
        });
        opened.await.ok()?.ok()
    }
}

/// Topic and text of an event with this id and about this size.
#[must_use]
pub fn dress(id: &str, topic: &str, size: usize) -> (String, String) {
    if size <= SMALLEST.len() {
        return (format!("{topic}.{id}"), SMALLEST.to_owned());
    }
    let mut text = format!("{id} {size} ");
    if size <= text.len() {
        return (topic.to_owned(), id.to_owned());
    }
    text.extend(std::iter::repeat_n('x', size - text.len()));
    (topic.to_owned(), text)
}

/// A received event, by its id; a damaged one gets an id that no client published.
#[must_use]
pub fn undress(seen: Seen) -> Event {
    let Seen { topic, payload, position, retained } = seen;
    let id = match payload.as_str() {
        "" | "null" => String::new(),
        SMALLEST => topic.rsplit('.').next().unwrap_or_default().to_owned(),
        text => match text.split_once(' ') {
            None => text.to_owned(),
            Some((id, rest)) => {
                let (size, padding) = rest.split_once(' ').unwrap_or_default();
                let whole = size.parse() == Ok(text.len()) && padding.bytes().all(|b| b == b'x');
                if whole {
                    id.to_owned()
                } else {
                    format!("damaged: {text:.40}")
                }
            }
        },
    };
    Event { position, topic, id, retained }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_keep_their_ids_at_any_size() {
        for size in [1, 2, 9, 10, 11, 12, 100, 600_000] {
            let (topic, payload) = dress("a17", "j.log.k1", size);
            assert!(size == 1 || size < 10 || payload.len() == size, "{size}: {}", payload.len());
            let seen = Seen { topic, payload, position: None, retained: false };
            let event = undress(seen.clone());
            assert_eq!(event.id, "a17", "{size}");
            if size > 20 {
                let payload = format!("{}y", &seen.payload[..size - 1]);
                assert_ne!(undress(Seen { payload, ..seen.clone() }).id, "a17");
                let payload = seen.payload[..size - 1].to_owned();
                assert_ne!(undress(Seen { payload, ..seen }).id, "a17");
            }
        }
        let deleted =
            Seen { topic: "t".into(), payload: "null".into(), position: Some(1), retained: false };
        assert_eq!(undress(deleted).id, "");
    }
}

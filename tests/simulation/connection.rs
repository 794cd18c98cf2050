//! A client's connection to a node, in either protocol.
//!
//! Invariant: every wait has a limit, because a simulated connection that lost a message never continues.
//!
//! Deliberately absent: what is published and how answers are used (`clients`).

use std::future::Future;
use std::io;
use std::time::Duration;

use vulpes_raft::ids::Position;

use crate::mqtt::Mqtt;
use crate::wamp::Wamp;

/// Where a node listens for clients.
pub(crate) const WAMP_PORT: u16 = 9031;
pub(crate) const MQTT_PORT: u16 = 1881;

/// How long opening a session may take.
const OPENING: Duration = Duration::from_millis(1_000);

/// How long writing may take.
const WRITING: Duration = Duration::from_millis(500);

/// Time limit for a subscription. A node that has not reached the requested position yet may take longer; then another one is
/// tried.
const SUBSCRIBING: Duration = Duration::from_millis(1_500);

/// The outcome of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is stored; only WAMP reports the position.
    Stored(Option<Position>),
    /// It is not stored and never will be.
    NotStored,
    /// Its condition was not met.
    Refused,
    /// The node doesn't know.
    Unknown,
}

/// A node's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The publish with this number of the session has its outcome.
    Answer { number: u64, outcome: Outcome },
    /// An event; WAMP has its position and event id.
    Event { text: String, place: Option<(Position, String)> },
    /// The node has answered a ping.
    Alive,
}

/// A subscription was refused, because its position is released or can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    /// The first retained position, if the node reported it.
    pub(crate) oldest: Option<Position>,
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refused; the log is kept from {:?} on", self.oldest)
    }
}

impl std::error::Error for Gone {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Wamp,
    Mqtt,
}

/// An open session.
pub(crate) enum Connection {
    Wamp(Box<Wamp>),
    Mqtt(Box<Mqtt>),
}

pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Connection {
    pub(crate) async fn open(protocol: Protocol, node: u64, name: &str) -> io::Result<Self> {
        let node = crate::node::name(node);
        within(OPENING, async {
            match protocol {
                Protocol::Wamp => Ok(Self::Wamp(Box::new(Wamp::open(&node).await?))),
                Protocol::Mqtt => Ok(Self::Mqtt(Box::new(Mqtt::open(&node, name).await?))),
            }
        })
        .await
    }

    /// Publishes the session's publish with this number, from 0.
    pub(crate) async fn publish(&mut self, client: u64, number: u64, text: &str) -> io::Result<()> {
        within(WRITING, async {
            match self {
                Self::Wamp(wamp) => wamp.publish(&format!("sim.{client}"), number, text).await,
                Self::Mqtt(mqtt) => mqtt.publish(&format!("sim/{client}"), number, text).await,
            }
        })
        .await
    }

    pub(crate) async fn subscribe(
        &mut self,
        after: Position,
        id: Option<String>,
    ) -> io::Result<()> {
        within(SUBSCRIBING, async {
            match self {
                Self::Wamp(wamp) => wamp.subscribe(after, id).await,
                Self::Mqtt(mqtt) => mqtt.subscribe(after, id).await,
            }
        })
        .await
    }

    pub(crate) async fn ping(&mut self) -> io::Result<()> {
        within(WRITING, async {
            match self {
                Self::Wamp(wamp) => wamp.ping().await,
                Self::Mqtt(mqtt) => mqtt.ping().await,
            }
        })
        .await
    }

    /// The node's next message.
    ///
    /// # Errors
    /// Also [`io::ErrorKind::TimedOut`], after which it may be called again.
    pub(crate) async fn next(&mut self, limit: Duration) -> io::Result<Said> {
        within(limit, async {
            match self {
                Self::Wamp(wamp) => wamp.next().await,
                Self::Mqtt(mqtt) => mqtt.next().await,
            }
        })
        .await
    }
}

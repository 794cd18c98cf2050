//! A client's requests and answers, whichever protocol it speaks.
//!
//! Invariant: a request is acknowledged or refused only if the node has answered so; otherwise its outcome is unknown.
//!
//! Deliberately absent: reconnecting. Tests want to see a lost connection.

use std::time::Duration;

use anyhow::{bail, Result};

use crate::mqtt::Mqtt;
use crate::wait::within;
use crate::wamp::Wamp;

/// An event as a subscriber saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The topic, with dots between its parts in both protocols.
    pub topic: String,
    /// Text unchanged, anything else as JSON.
    pub payload: String,
    /// If the protocol has it.
    pub position: Option<u64>,
    /// It was shown as a retained value.
    pub retained: bool,
}

/// A message of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Acknowledged {
        request: u64,
        position: Option<u64>,
    },
    Refused {
        request: u64,
        reason: String,
    },
    Event(Seen),
    /// A snapshot subscription is complete.
    Ended,
    /// The connection has ended, with the reason that the node gave.
    Closed(String),
}

/// A session of either protocol.
#[derive(Debug)]
pub enum Client {
    Wamp(Box<Wamp>),
    Mqtt(Mqtt),
}

impl Client {
    /// Publishes without waiting for the answer, which [`Client::next`] returns under the number returned here.
    /// `topic` has dots between its parts.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn publish(&mut self, topic: &str, text: &str) -> Result<u64> {
        match self {
            Self::Wamp(session) => session.publish(topic, text).await,
            Self::Mqtt(session) => session.publish(&topic.replace('.', "/"), text).await,
        }
    }

    /// Publishes, waits for the answer, and returns the position if the protocol has it.
    ///
    /// # Errors
    /// If it is not acknowledged.
    pub async fn publish_and_wait(&mut self, topic: &str, text: &str) -> Result<Option<u64>> {
        let sent = self.publish(topic, text).await?;
        loop {
            match self.next().await? {
                Said::Acknowledged { request, position } if request == sent => return Ok(position),
                Said::Refused { request, reason } if request == sent => bail!("refused: {reason}"),
                Said::Closed(reason) => bail!("closed: {reason}"),
                _ => {}
            }
        }
    }

    /// Subscribes to all topics below `topic`, which has dots between its parts.
    ///
    /// # Errors
    /// If the node refuses.
    pub async fn subscribe_below(&mut self, topic: &str) -> Result<()> {
        match self {
            Self::Wamp(session) => {
                let options = serde_json::json!({ "match": "prefix" });
                session.subscribe(&format!("{topic}."), &options).await
            }
            Self::Mqtt(session) => {
                session.subscribe(&format!("{}/#", topic.replace('.', "/"))).await
            }
        }
    }

    /// The node's next message. After [`Said::Closed`] there is nothing more.
    ///
    /// # Errors
    /// If the node sends something that its protocol does not allow.
    pub async fn next(&mut self) -> Result<Said> {
        match self {
            Self::Wamp(session) => session.next().await,
            Self::Mqtt(session) => session.next().await,
        }
    }

    /// Like [`Client::next`], with a limit.
    ///
    /// # Errors
    /// Like [`Client::next`], and if nothing comes in time.
    pub async fn next_within(&mut self, limit: Duration) -> Result<Said> {
        within("a node says something", limit, self.next()).await
    }
}

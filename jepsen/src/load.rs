//! Publishers and readers that run beside a test and record everything they receive.
//!
//! Invariant: each message published here has a unique text, `publisher-number`, so that a record can be compared
//! with the log. A message that was neither acknowledged nor refused is in no list: its outcome is unknown.
//!
//! Deliberately absent: judging; see [`crate::history`]. Reconnecting: a publisher ends with its node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{bail, ensure, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout, Instant, MissedTickBehavior};

use crate::client::{Client, Said, Seen};
use crate::wait::{until, within, PATIENCE};
use crate::wamp::Wamp;
use crate::Cluster;

/// Most messages that a publisher has in flight.
const WINDOW: usize = 64;

/// Time between two messages of one publisher. The log must stay small enough to compare.
const PACE: Duration = Duration::from_millis(3);

/// How long a publisher that was stopped waits for its last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(20);

/// A message that the node acknowledged as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    pub payload: String,
    pub position: Option<u64>,
    pub at: Instant,
}

/// The answers that one publisher got.
#[derive(Debug, Default)]
pub struct Record {
    pub acknowledged: Vec<Acknowledged>,
    pub refused: Vec<(String, String)>,
    /// How its connection ended, if it did.
    pub closed: Option<String>,
}

/// A publisher at work.
#[derive(Debug)]
pub struct Publisher {
    record: Arc<Mutex<Record>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<()>>,
}

impl Publisher {
    /// Publishes `name-0`, `name-1`, … to `topic` until it is stopped or loses its connection.
    #[must_use]
    pub fn start(client: Client, name: &str, topic: &str) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let (stop, stopped) = watch::channel(false);
        let run = Run {
            client,
            name: name.to_owned(),
            topic: topic.to_owned(),
            record: Arc::clone(&record),
            waiting: BTreeMap::new(),
        };
        Self { record, stop, task: tokio::spawn(run.run(stopped)) }
    }

    /// The answers so far.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }

    /// Waits until one more message is acknowledged; returns when that happened.
    ///
    /// # Errors
    /// If that does not happen in time.
    pub async fn next_acknowledged(&self) -> Result<Instant> {
        let before = self.record().acknowledged.len();
        until("a publisher gets on", PATIENCE, || async {
            let record = self.record();
            let next = record.acknowledged.get(before).map(|next| next.at);
            next.ok_or_else(|| anyhow::anyhow!("{before} so far; closed: {:?}", record.closed))
        })
        .await
    }

    /// Waits until `count` messages are acknowledged.
    ///
    /// # Errors
    /// If that does not happen in time.
    pub async fn acknowledged(&self, count: usize) -> Result<()> {
        until("a publisher gets its answers", PATIENCE, || async {
            let record = self.record();
            let got = record.acknowledged.len();
            ensure!(got >= count, "{got} of {count}; closed: {:?}", record.closed);
            Ok(())
        })
        .await
    }

    /// Lets it finish what is in flight; returns its record.
    ///
    /// # Errors
    /// If the node sent something that its protocol does not allow.
    pub async fn finish(self) -> Result<Record> {
        // A publisher that lost its connection has ended already.
        let _ = self.stop.send(true);
        within("a publisher stops", LAST_ANSWERS + PATIENCE, async { self.task.await? }).await?;
        Ok(std::mem::take(&mut *lock(&self.record)))
    }
}

struct Run {
    client: Client,
    name: String,
    topic: String,
    record: Arc<Mutex<Record>>,
    /// Requests in flight, and their texts.
    waiting: BTreeMap<u64, String>,
}

impl Run {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Result<()> {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0_u64;
        loop {
            tokio::select! {
                _ = stopped.changed() => break,
                said = self.client.next() => if self.note(said?) { return Ok(()) },
                _ = pace.tick(), if self.waiting.len() < WINDOW => {
                    let text = format!("{}-{number}", self.name);
                    number += 1;
                    match self.client.publish(&self.topic, &text).await {
                        Ok(request) => drop(self.waiting.insert(request, text)),
                        Err(error) => {
                            lock(&self.record).closed = Some(error.to_string());
                            return Ok(());
                        }
                    }
                }
            }
        }
        // If answers are missing, those outcomes stay unknown in the record.
        let _ = timeout(LAST_ANSWERS, async {
            while !self.waiting.is_empty() {
                let said = self.client.next().await?;
                if self.note(said) {
                    break;
                }
            }
            anyhow::Ok(())
        })
        .await;
        Ok(())
    }

    /// Records a message of the node; returns whether it was the last one.
    fn note(&mut self, said: Said) -> bool {
        let mut record = lock(&self.record);
        match said {
            Said::Acknowledged { request, position } => {
                if let Some(payload) = self.waiting.remove(&request) {
                    let at = Instant::now();
                    record.acknowledged.push(Acknowledged { payload, position, at });
                }
            }
            Said::Refused { request, reason } => {
                if let Some(payload) = self.waiting.remove(&request) {
                    record.refused.push((payload, reason));
                }
            }
            Said::Closed(reason) => record.closed = Some(reason),
            Said::Event(_) | Said::Ended => {}
        }
        record.closed.is_some()
    }
}

/// A subscriber at work.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Mutex<Read>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Read {
    seen: Vec<Seen>,
    closed: Option<String>,
}

impl Reader {
    /// Reads all below `topic`, live, until its connection ends.
    ///
    /// # Errors
    /// If the node refuses the subscription.
    pub async fn start(mut client: Client, topic: &str) -> Result<Self> {
        client.subscribe_below(topic).await?;
        let shared = Arc::new(Mutex::new(Read::default()));
        let mine = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                let said = client.next().await.unwrap_or_else(|e| Said::Closed(e.to_string()));
                match said {
                    Said::Event(seen) => lock(&mine).seen.push(seen),
                    Said::Closed(reason) => {
                        lock(&mine).closed = Some(reason);
                        return;
                    }
                    _ => {}
                }
            }
        });
        Ok(Self { shared, task })
    }

    /// What it has seen so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared).seen.clone()
    }

    /// How its connection ended, if it did.
    #[must_use]
    pub fn closed(&self) -> Option<String> {
        lock(&self.shared).closed.clone()
    }

    /// Waits until it has seen this text; returns all it has seen.
    ///
    /// # Errors
    /// If that does not happen in time, or its connection ends.
    pub async fn until_seen(&self, payload: &str) -> Result<Vec<Seen>> {
        until(&format!("a reader sees {payload}"), PATIENCE, || async {
            let read = lock(&self.shared);
            match read.seen.iter().rposition(|seen| seen.payload == payload) {
                Some(_) => Ok(read.seen.clone()),
                None => bail!("{} events so far, closed: {:?}", read.seen.len(), read.closed),
            }
        })
        .await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads everything below `topic` in the log of a node.
///
/// # Errors
/// If the node refuses, or does not come to an end in time.
pub async fn read_log(cluster: &Cluster, node: u64, topic: &str) -> Result<Vec<Seen>> {
    let mut session = Wamp::connect(cluster.node(node).wamp(), crate::cluster::REALM).await?;
    let options = serde_json::json!({ "match": "prefix", "after": 0, "snapshot": true });
    session.subscribe(&format!("{topic}."), &options).await?;
    let mut seen = Vec::new();
    within(&format!("node {node} shows its log"), PATIENCE * 2, async {
        loop {
            match session.next().await? {
                Said::Event(event) => seen.push(event),
                Said::Ended => return Ok(()),
                other => bail!("{other:?} in the middle of the log"),
            }
        }
    })
    .await?;
    Ok(seen)
}

/// Like [`read_log`], once the node knows the message with this text.
///
/// # Errors
/// If that does not happen in time.
pub async fn read_log_through(
    cluster: &Cluster,
    node: u64,
    topic: &str,
    payload: &str,
) -> Result<Vec<Seen>> {
    until(&format!("the log of node {node} holds {payload}"), PATIENCE, || async {
        let log = read_log(cluster, node, topic).await?;
        if log.iter().any(|seen| seen.payload == payload) {
            return Ok(log);
        }
        let status = cluster.status(node).await?;
        bail!("it shows {} events, and says of itself {status}", log.len())
    })
    .await
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that failed while it held the lock has failed already.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

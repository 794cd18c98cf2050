//! A WAMP session that makes one request after the other.
//!
//! Invariant: after a missing answer, the session is not used again.
//!
//! Deliberately absent: many requests at once; see `log`.

use std::time::Duration;

use serde_json::{json, Value};
use tokio::time::timeout;

use crate::client::{Client, Said};
use crate::journal::Open;
use crate::op::{Protocol, Publish, Read};
use crate::stage::{undress, Door, Stage};
use crate::wamp::Wamp;

/// Time limit of an answer before the client gives up on the session.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// Errors after which it is certain that nothing was published.
const REFUSALS: [&str; 3] =
    ["fox.error.not_accepted", "vulpes.error.not_stored", "vulpes.error.line_full"];

/// Whether a node's error means that nothing was published, now or later.
pub(super) fn is_refusal(reason: &str) -> bool {
    REFUSALS.contains(&reason.trim_matches('"'))
}

/// Something to publish.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    pub f: &'static str,
    pub topic: String,
    /// Empty if it deletes the retained value.
    pub id: String,
    pub retain: bool,
    pub expect: Option<String>,
    pub watch: bool,
    pub will: Option<String>,
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    At(u64),
    Refused,
    Lost,
}

/// A session.
#[derive(Debug)]
pub struct Asking {
    wamp: Wamp,
    pub session: String,
    pub node: u64,
    number: u64,
}

impl Asking {
    /// Opens a session at a node.
    pub async fn open(stage: &Stage, client: &str, door: Door) -> Option<Self> {
        let Client::Wamp(wamp) = stage.open(door, Protocol::Wamp).await? else { return None };
        let session = stage.id(&format!("{client}."));
        Some(Self { wamp: *wamp, session, node: door.node, number: 0 })
    }

    /// Publishes, and waits for the answer.
    pub async fn publish(&mut self, stage: &Stage, draft: Draft, limit: Duration) -> Answer {
        self.number += 1;
        let Draft { f, topic, id, retain, expect, watch, will } = draft;
        let mut options = json!({ "retain": retain });
        let value = |id: &str| if id.is_empty() { Value::Null } else { id.into() };
        if let Some(expected) = &expect {
            options["when"] = value(expected);
        }
        if watch {
            options["watch"] = true.into();
        }
        if let Some(will) = &will {
            options["will"] = value(will);
        }
        let mut what = Publish {
            session: self.session.clone(),
            number: self.number,
            id,
            topic,
            node: self.node,
            protocol: Protocol::Wamp,
            retain,
            expect,
            watch,
            will,
            position: None,
            reason: None,
        };
        let open = stage.journal.ask(f, &what);
        let text = (!what.id.is_empty()).then_some(what.id.as_str());
        let asked = async {
            let request = self.wamp.publish_with(&what.topic, text, options).await?;
            loop {
                match self.wamp.next().await? {
                    Said::Acknowledged { request: of, position } if of == request => {
                        return anyhow::Ok(Ok(position));
                    }
                    Said::Refused { request: of, reason } if of == request => {
                        return Ok(Err(reason))
                    }
                    Said::Closed(reason) => anyhow::bail!(reason),
                    _ => {}
                }
            }
        };
        let answer = match timeout(limit, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(anyhow::anyhow!("no answer in time")),
        };
        match answer {
            Ok(Ok(Some(position))) => {
                stage.learn(Some(position));
                what.position = Some(position);
                stage.journal.ok(open, &what);
                Answer::At(position)
            }
            Ok(Err(reason)) if is_refusal(&reason) => {
                what.reason = Some(reason);
                stage.journal.fail(open, &what);
                Answer::Refused
            }
            Ok(Ok(None)) => lost(stage, open, what, "acknowledged without a position".to_owned()),
            Ok(Err(reason)) => lost(stage, open, what, reason),
            Err(error) => lost(stage, open, what, format!("{error:#}")),
        }
    }

    /// Reads a topic's retained value in another session, no older than now: it publishes a mark first, and the read waits
    /// until the node has read the log up to that.
    pub async fn read(
        &mut self,
        stage: &Stage,
        reader: &mut Self,
        topic: &str,
        mark: &str,
    ) -> Option<String> {
        let mut what = Read { topic: topic.to_owned(), node: reader.node, id: None, reason: None };
        let open = stage.journal.ask("read", &what);
        let draft =
            Draft { f: "publish", topic: mark.to_owned(), id: stage.id("m"), ..Draft::default() };
        let Answer::At(position) = self.publish(stage, draft, ANSWER).await else {
            what.reason = Some("the mark was not acknowledged".to_owned());
            stage.journal.unknown(open, &what);
            return None;
        };
        let asked = async {
            let options = json!({ "after": position, "retained": true, "snapshot": true });
            reader.wamp.subscribe(topic, &options).await?;
            let mut id = String::new();
            loop {
                match reader.wamp.next().await? {
                    Said::Event(seen) => id = undress(seen).id,
                    Said::Ended => return anyhow::Ok(id),
                    Said::Closed(reason) => anyhow::bail!(reason),
                    _ => {}
                }
            }
        };
        let reason = match timeout(ANSWER, asked).await {
            Ok(Ok(id)) => {
                what.id = Some(id.clone());
                stage.journal.ok(open, &what);
                return Some(id);
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "no answer in time".to_owned(),
        };
        what.reason = Some(reason);
        stage.journal.unknown(open, &what);
        None
    }
}

fn lost(stage: &Stage, open: Open, mut what: Publish, reason: String) -> Answer {
    what.reason = Some(reason);
    stage.journal.unknown(open, &what);
    Answer::Lost
}

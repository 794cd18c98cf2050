//! `vulpes sub`: shows events as they come.
//!
//! Invariant: events are shown in the order in which the node sends them, each once.
//!
//! Deliberately absent: reconnecting; the error says how to continue from where the connection ended.

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::{events, ClientArgs};
use crate::client::wamp::Incoming;

const EXAMPLES: &str = "\
Examples:
  vulpes sub demo.hello
  vulpes sub 'demo.#'                       this and all below
  vulpes sub 'demo.*.state' --count 1       any one part; end after one event
  vulpes sub 'demo.#' --after 4711          first what came after position 4711, then live
  vulpes sub demo --match prefix --json";

/// Show events as they come: position, event id, topic, payload
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Subscribe {
    /// Topic or pattern in WAMP's spelling; `*` stands for one part, `#` at the end for the rest
    pattern: String,
    /// How WAMP reads the pattern, if not as above
    #[arg(long = "match", value_name = "HOW")]
    how: Option<Match>,
    /// First replay what came after this position or event id
    #[arg(long, value_name = "ID", value_parser = super::after)]
    after: Option<Value>,
    /// End after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Match {
    Exact,
    Prefix,
    Wildcard,
}

impl Match {
    fn word(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Prefix => "prefix",
            Self::Wildcard => "wildcard",
        }
    }
}

impl Subscribe {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut options = Map::new();
        if let Some(how) = self.how {
            options.insert("match".into(), how.word().into());
        }
        if let Some(after) = &self.after {
            options.insert("after".into(), after.clone());
        }
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut client = self.client.connect().await?;
        client.subscribe(&self.pattern, options).await?;
        eprintln!("subscribed to {} at {}; Ctrl-C ends", self.pattern, self.client.node);
        let mut last = None;
        while left > 0 {
            let incoming = client.next().await.with_context(|| match last {
                Some(position) => format!("continue with --after {position} at any node"),
                None => "start again, at any node".to_owned(),
            })?;
            match incoming {
                Incoming::Event(event) => {
                    events::print(&event, &self.pattern, self.client.json)?;
                    last = Some(event.position);
                    left -= 1;
                }
                Incoming::Ended { .. } => anyhow::bail!("the node ended the subscription"),
            }
        }
        client.close().await;
        Ok(())
    }
}

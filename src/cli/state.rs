//! `vulpes get`, `vulpes set` and `vulpes history`: topics' retained values, and what was published before.
//!
//! Invariant: a reading command ends when it has shown everything that existed when it began.
//!
//! Deliberately absent: merging itself. The cluster merges objects, at the event's position in the order.

use clap::Args;
use serde_json::{Map, Value};

use super::{events, ClientArgs};
use crate::client::wamp::{Arguments, Incoming};

const GET_EXAMPLES: &str = "\
Examples:
  vulpes get demo.state                      one topic's value
  vulpes get 'demo.#'                        those of all topics below
  vulpes get demo.state --after 4711         as of position 4711 or later: read your own write at any node
  vulpes get 'demo.#' --filter '{\"on\": true}'";

/// Show what topics have kept: position, event id, topic, value
#[derive(Debug, Args)]
#[command(after_help = GET_EXAMPLES)]
pub(super) struct Get {
    /// Topic or pattern in WAMP's spelling; `*` stands for one part, `#` at the end for the rest
    pattern: String,
    /// Wait until the node has read the log up to this position or event id
    #[arg(long, value_name = "ID", value_parser = super::after)]
    after: Option<Value>,
    /// Only values that fit: the same value, or an object that has these fields
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    filter: Option<Value>,
    #[command(flatten)]
    client: ClientArgs,
}

const SET_EXAMPLES: &str = "\
Examples:
  vulpes set demo.state '{\"on\": true}'       replaces the current value
  vulpes set demo.state '{\"n\": 1}' --merge   merges into the current object
  vulpes set demo.state --delete
  vulpes set demo.state '{\"n\": 2}' --when '{\"n\": 1}'     only if it fits: compare and set
  vulpes set demo.leader me --when null      only if there is none";

/// Keep a value as a topic's last one, and print the position it has
#[derive(Debug, Args)]
#[command(after_help = SET_EXAMPLES)]
pub(super) struct Set {
    /// Topic in WAMP's spelling, as in demo.state
    topic: String,
    /// The value: JSON, or else a string
    #[arg(required_unless_present = "delete", conflicts_with = "delete")]
    value: Option<String>,
    /// Delete what the topic has kept
    #[arg(long)]
    delete: bool,
    /// Merge an object deeply into the existing one instead of replacing it
    #[arg(long, conflicts_with = "delete")]
    merge: bool,
    /// Only if what the topic has kept fits this; `null`: only if it has nothing
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    when: Option<Value>,
    #[command(flatten)]
    client: ClientArgs,
}

const HISTORY_EXAMPLES: &str = "\
Examples:
  vulpes history 'demo.#'                    all that was published there
  vulpes history demo.state --after 4711     what came after position 4711";

/// Show what was published before now: position, event id, topic, payload
#[derive(Debug, Args)]
#[command(after_help = HISTORY_EXAMPLES)]
pub(super) struct History {
    /// Topic or pattern in WAMP's spelling; `*` stands for one part, `#` at the end for the rest
    pattern: String,
    /// Only what came after this position or event id
    #[arg(long, value_name = "ID", value_parser = super::after)]
    after: Option<Value>,
    /// Only events whose value fits: the same value, or an object that has these fields
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    filter: Option<Value>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn json_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}; quote strings: '\"x\"'"))
}

impl Get {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut options = options(self.after, self.filter);
        options.insert("retainedState".into(), true.into());
        show(&self.client, &self.pattern, options).await
    }
}

impl History {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        show(&self.client, &self.pattern, options(self.after, self.filter)).await
    }
}

fn options(after: Option<Value>, filter: Option<Value>) -> Map<String, Value> {
    let options = [("after", after), ("filter", filter), ("snapshot", Some(true.into()))];
    let given = options.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    given.collect()
}

/// Shows the events of a snapshot subscription, to its end.
async fn show(args: &ClientArgs, pattern: &str, options: Map<String, Value>) -> anyhow::Result<()> {
    let mut client = args.connect().await?;
    client.subscribe(pattern, options).await?;
    while let Incoming::Event(event) = client.next().await? {
        events::print(&event, pattern, args.json)?;
    }
    client.close().await;
    Ok(())
}

impl Set {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let value = self.value.as_deref().map_or(Value::Null, events::argument);
        let mut options = Map::from_iter([("retain".to_owned(), Value::from(true))]);
        if self.merge {
            options.insert("merge".into(), true.into());
        }
        if let Some(when) = self.when {
            options.insert("when".into(), when);
        }
        let mut client = self.client.connect().await?;
        let arguments = Arguments { args: vec![value], kwargs: Map::new() };
        let position = client.publish(&self.topic, options, &arguments).await?;
        events::print_position(position, &self.topic, self.client.json)?;
        client.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        set: Set,
    }

    #[test]
    fn a_value_or_its_deletion_is_asked_for_and_never_both() {
        let parsed = |line: &[&str]| Line::try_parse_from(line).map(|line| line.set);
        assert!(parsed(&["set", "t"]).is_err());
        assert!(parsed(&["set", "t", "1", "--delete"]).is_err());
        assert!(parsed(&["set", "t", "--merge", "--delete"]).is_err());
        assert!(parsed(&["set", "t", "1", "--merge"]).unwrap().merge);
        assert!(parsed(&["set", "t", "1", "--when", "{"]).is_err());
        let set = parsed(&["set", "t", "1", "--when", "null"]).unwrap();
        assert_eq!((set.value.as_deref(), set.when), (Some("1"), Some(Value::Null)));
        assert!(parsed(&["set", "t", "--delete"]).unwrap().value.is_none());
    }
}

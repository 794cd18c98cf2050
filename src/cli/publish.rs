//! `vulpes pub`: publishes one event, or one for each line of standard input.
//!
//! Invariant: a position is printed only for an event that the node acknowledged; the first failure ends the command.
//!
//! Deliberately absent: retries. After an unknown outcome, only the user knows whether publishing twice is worse than not at
//! all.

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::events::{self, argument};
use super::ClientArgs;
use crate::client::wamp::{Arguments, WampClient};
use crate::types::limits;

const EXAMPLES: &str = "\
Examples:
  vulpes pub demo.hello '{\"text\": \"hi\"}'
  vulpes pub demo.hello 1 2 three                three arguments; what is not JSON is a string
  vulpes pub demo.state on --retain              keep it as the topic's last value
  uptime | vulpes pub demo.load -                one event a line
  vulpes pub demo.hello hi --node ws://127.0.0.1:9033/
  vulpes pub demo.hello -- --text                an argument that begins with a dash";

/// Publish an event and print its position once it is durable and ordered
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Publish {
    /// Topic in WAMP's spelling, as in demo.hello
    topic: String,
    /// Arguments: each JSON, or else a string; a single `-` publishes every line of standard input
    #[arg(value_name = "ARGUMENT", allow_negative_numbers = true)]
    arguments: Vec<String>,
    /// Keyword arguments, a JSON object
    #[arg(long, value_name = "JSON", value_parser = events::object)]
    kwargs: Option<Map<String, Value>>,
    /// Keep it as the topic's last value
    #[arg(long)]
    retain: bool,
    #[command(flatten)]
    client: ClientArgs,
}

impl Publish {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut client = self.client.connect().await?;
        if self.arguments != ["-"] {
            let args = self.arguments.iter().map(|text| argument(text)).collect();
            self.publish(&mut client, args).await?;
        } else {
            let mut input = BufReader::new(tokio::io::stdin());
            let mut line = Vec::new();
            while self.read_line(&mut input, &mut line).await? {
                let text = std::str::from_utf8(&line).context("standard input is not UTF-8")?;
                self.publish(&mut client, vec![argument(text.trim_end_matches(['\n', '\r']))])
                    .await?;
            }
        }
        client.close().await;
        Ok(())
    }

    async fn read_line(
        &self,
        input: &mut BufReader<tokio::io::Stdin>,
        line: &mut Vec<u8>,
    ) -> anyhow::Result<bool> {
        use tokio::io::AsyncReadExt;
        line.clear();
        let limit = limits::EVENT as u64 + 1;
        input.take(limit).read_until(b'\n', line).await.context("can't read standard input")?;
        anyhow::ensure!(
            line.len() <= limits::EVENT,
            "a line of standard input has more than the {} bytes an event may have",
            limits::EVENT
        );
        Ok(!line.is_empty())
    }

    async fn publish(&self, client: &mut WampClient, args: Vec<Value>) -> anyhow::Result<()> {
        let mut options = Map::new();
        if self.retain {
            options.insert("retain".into(), true.into());
        }
        let arguments = Arguments { args, kwargs: self.kwargs.clone().unwrap_or_default() };
        let position = client.publish(&self.topic, options, &arguments).await?;
        events::print_position(position, &self.topic, self.client.json)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        publish: Publish,
    }

    #[test]
    fn arguments_and_options_are_told_apart() {
        for (line, arguments, node) in [
            ("pub t", &[][..], crate::cli::DEFAULT_NODE),
            ("pub t -", &["-"], crate::cli::DEFAULT_NODE),
            ("pub t -5 x --node ws://h:1/", &["-5", "x"], "ws://h:1/"),
            ("pub --node ws://h:1/ t -- --node", &["--node"], "ws://h:1/"),
        ] {
            let publish = Line::try_parse_from(line.split(' ')).unwrap().publish;
            assert_eq!(publish.arguments, arguments, "{line}");
            assert_eq!(publish.client.node, node, "{line}");
        }
        assert!(Line::try_parse_from(["pub", "t", "--nonsense"]).is_err());
    }

    #[test]
    fn what_is_not_json_is_a_string() {
        for (text, expected) in [
            ("1", json!(1)),
            ("{\"a\":[]}", json!({"a": []})),
            ("hi", json!("hi")),
            ("{", json!("{")),
        ] {
            assert_eq!(argument(text), expected);
        }
    }
}

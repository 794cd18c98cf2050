//! `vulpes call`: calls a procedure, wherever its callee is.
//!
//! Invariant: standard output has the result, and its parts if they were requested. Exit code 1 means that the call was
//! answered with an error; standard error has its URI.
//!
//! Deliberately absent: retries. Only the user knows whether calling twice is worse than not at all.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use serde_json::{json, Map, Value};

use super::{events, ClientArgs};
use crate::client::wamp::{Arguments, CallError};

const EXAMPLES: &str = "\
Examples:
  vulpes call wamp.session.count               how many sessions there are, at all nodes
  vulpes call demo.add 2 3 --timeout 10s       give up after ten seconds
  vulpes call demo.search fox --progress       show parts of the result as they come, a line each
  vulpes call demo.set --kwargs '{\"on\": true}'";

/// Call a procedure and print its result
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Call {
    /// Procedure, as in demo.add
    procedure: String,
    /// Arguments: each JSON, or else a string
    #[arg(value_name = "ARGUMENT", allow_negative_numbers = true)]
    arguments: Vec<String>,
    /// Keyword arguments, a JSON object
    #[arg(long, value_name = "JSON", value_parser = events::object)]
    kwargs: Option<Map<String, Value>>,
    /// How long to wait for the result, as in 500ms, 30s, 5m; without it, there is no limit
    #[arg(long, value_name = "TIME", value_parser = events::duration)]
    timeout: Option<Duration>,
    /// Print parts of the result as they come
    #[arg(long)]
    progress: bool,
    #[command(flatten)]
    client: ClientArgs,
}

impl Call {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut client = self.client.connect().await?;
        let args = self.arguments.iter().map(|text| events::argument(text)).collect();
        let arguments = Arguments { args, kwargs: self.kwargs.unwrap_or_default() };
        let as_json = self.client.json;
        let mut show = |part: Arguments| print(&part, true, as_json);
        let show: Option<&mut dyn FnMut(Arguments) -> io::Result<()>> =
            if self.progress { Some(&mut show) } else { None };
        match client.call(&self.procedure, &arguments, self.timeout, show).await {
            Ok(result) => print(&result, false, as_json)?,
            Err(failed @ CallError::Failed { .. }) => {
                client.close().await;
                return Err(failed.into());
            }
            Err(error) => return Err(error.into()),
        }
        client.close().await;
        Ok(())
    }
}

fn print(arguments: &Arguments, progress: bool, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", line(arguments, progress, as_json))?;
    out.flush()
}

fn line(arguments: &Arguments, progress: bool, as_json: bool) -> String {
    if !as_json {
        return events::payload(arguments);
    }
    let mut object = json!({"args": arguments.args});
    if !arguments.kwargs.is_empty() {
        object["kwargs"] = arguments.kwargs.clone().into();
    }
    if progress {
        object["progress"] = true.into();
    }
    object.to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        call: Call,
    }

    #[test]
    fn arguments_and_options_are_told_apart() {
        let words = ["call", "p", "-1", "x", "--kwargs", "{\"k\":1}", "--timeout", "2s"];
        let call = Line::try_parse_from(words).unwrap().call;
        assert_eq!(call.arguments, ["-1", "x"]);
        assert_eq!(call.timeout, Some(Duration::from_secs(2)));
        assert_eq!(call.kwargs.map(Value::from), Some(json!({"k": 1})));
        assert!(Line::try_parse_from(["call"]).is_err());
        assert!(Line::try_parse_from(["call", "p", "--kwargs", "[1]"]).is_err());
    }

    #[test]
    fn a_result_is_a_line() {
        let one = Arguments { args: vec![json!("x\ny")], kwargs: Map::new() };
        assert_eq!(line(&one, true, false), r#""x\ny""#);
        assert_eq!(line(&one, true, true), r#"{"args":["x\ny"],"progress":true}"#);
        let kwargs: Map<String, Value> = [("k".to_owned(), json!(1))].into_iter().collect();
        let both = Arguments { args: vec![], kwargs };
        assert_eq!(line(&both, false, true), r#"{"args":[],"kwargs":{"k":1}}"#);
    }
}

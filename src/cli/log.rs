//! `vulpes log`: the log of a realm, in order, up to its current end.
//!
//! Invariant: the positions shown are ascending; the command fails if they are not.
//!
//! Deliberately absent: other realms, and topics that begin with `$`, which wildcards don't match.

use clap::Args;
use serde_json::{Map, Value};

use super::{events, ClientArgs};
use crate::client::wamp::Incoming;

const EXAMPLES: &str = "\
Examples:
  vulpes log
  vulpes log --after 4711 --limit 10
  vulpes log --after 2611221742b1za3 --json
  vulpes log --node ws://127.0.0.1:9033/    the same, read from another node";

/// Read a realm's log in order: position, event id, topic, payload
///
/// Topics that begin with $ are not shown; subscribe to them by name.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Log {
    /// Begin after this position or event id; 0 is where the log begins
    #[arg(long, value_name = "ID", value_parser = super::after, default_value = "0")]
    after: Value,
    /// Show at most this many events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

impl Log {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut client = self.client.connect().await?;
        let mut options = Map::new();
        options.insert("after".into(), self.after);
        options.insert("snapshot".into(), true.into());
        client.subscribe("#", options).await?;
        let mut last = None;
        while left > 0 {
            let event = match client.next().await? {
                Incoming::Event(event) => event,
                Incoming::Ended { .. } => break,
            };
            anyhow::ensure!(
                last < Some(event.position),
                "position {} came after position {last:?}: the node broke the order; run `vulpes verify`",
                event.position
            );
            last = Some(event.position);
            events::print(&event, "", self.client.json)?;
            left -= 1;
        }
        client.close().await;
        Ok(())
    }
}

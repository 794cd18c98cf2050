//! `vulpes lock`: runs a command while holding a lock of the whole cluster.
//!
//! The lock is a retained value, published on the condition that there is none, and bound to the session. The
//! position of that publish is the fencing token: every later holder's is larger.
//!
//! Invariant: the command runs only while this process knows of nothing that ended its lock. The command is killed as soon as
//! the session is lost, and the lock is freed in every case.
//!
//! Deliberately absent: a guarantee that two commands never overlap. A process can be stopped for longer than its session
//! lives. The token covers that case: the resource refuses a token that is smaller than one it has seen.

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::{json, Map, Value};
use tokio::process::{Child, Command};
use tokio::signal::unix::{signal, SignalKind};

use super::{events, ClientArgs, Ended};
use crate::client::wamp::{Arguments, WampClient, WampError};

const EXAMPLES: &str = "\
Examples:
  vulpes lock nightly.backup -- ./backup.sh
  vulpes lock nightly.backup --wait 0s -- ./backup.sh       fail at once if somebody has it
  vulpes lock db --wait 30s -- sh -c 'echo my token is $VULPES_TOKEN'
  vulpes get nightly.backup                                 who has it

The exit code is COMMAND's; 1 if the lock was not acquired or was lost.";

/// The environment variable with the command's fencing token.
const TOKEN: &str = "VULPES_TOKEN";

/// As in shells, the exit code of a process that was ended by a signal is this plus the signal's number.
const SIGNALLED: i32 = 128;

/// Hold a lock of the whole cluster while a command runs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Lock {
    /// The lock's name: a topic in WAMP's spelling
    name: String,
    /// How long to wait in line for it, as in 500ms, 30s, 5m; without it, there is no limit
    #[arg(long, value_name = "TIME", value_parser = events::duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    client: ClientArgs,
    /// Command to run, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Why we stop waiting for the command.
enum End {
    Command(std::io::Result<ExitStatus>),
    /// The session has ended, and the lock with it.
    Lost(WampError),
    Terminated,
}

impl Lock {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut client = self.client.connect().await?;
        let Some(token) = self.acquire(&mut client).await? else {
            client.close().await;
            anyhow::bail!("somebody else holds {}; `vulpes get {0}` shows who", self.name);
        };
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .env(TOKEN, token.to_string())
            .kill_on_drop(true)
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                client.close().await;
                return Err(error).with_context(|| format!("can't run {}", self.command[0]));
            }
        };
        match hold(&mut client, &mut child).await? {
            End::Command(status) => {
                // The session's end frees the lock, too; freeing it here makes sure that it is free before this process exits.
                let free = Map::from_iter([("retain".to_owned(), Value::from(true))]);
                let null = Arguments { args: vec![Value::Null], kwargs: Map::new() };
                let freed = client.publish(&self.name, free, &null).await;
                client.close().await;
                if let Err(error) = freed {
                    eprintln!("vulpes: the lock could not be freed now, it is freed as the session ends: {error}");
                }
                ended(status.context("can't wait for the command")?)
            }
            End::Lost(error) => {
                stop(&mut child).await;
                Err(error).context("the lock is lost, so the command was killed")
            }
            End::Terminated => {
                stop(&mut child).await;
                client.close().await;
                anyhow::bail!("stopped: the command was killed and the lock is freed");
            }
        }
    }

    /// Waits for the lock and returns the token.
    async fn acquire(&self, client: &mut WampClient) -> anyhow::Result<Option<u64>> {
        let options = Map::from_iter([
            ("retain".to_owned(), Value::from(true)),
            ("when".to_owned(), Value::Null),
            ("will".to_owned(), Value::Null),
            ("watch".to_owned(), Value::from(self.wait != Some(Duration::ZERO))),
        ]);
        let holder = json!({
            "session": client.session(),
            "process": std::process::id(),
            "command": self.command[0],
        });
        let arguments = Arguments { args: vec![holder], kwargs: Map::new() };
        let limit = self.wait.filter(|wait| !wait.is_zero());
        match client.publish_within(&self.name, options, &arguments, limit).await {
            Ok(position) => Ok(Some(position.0)),
            Err(WampError::Refused { uri, .. }) if uri == "fox.error.not_accepted" => Ok(None),
            Err(WampError::Timeout) if limit.is_some() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits for the first event that ends it.
async fn hold(client: &mut WampClient, child: &mut Child) -> anyhow::Result<End> {
    let mut terminate = signal(SignalKind::terminate())?;
    // In a terminal the command gets this signal as well, and its exit decides.
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(End::Command(status)),
            incoming = client.next() => {
                if let Err(error) = incoming {
                    return Ok(End::Lost(error));
                }
            }
            _ = terminate.recv() => return Ok(End::Terminated),
            _ = interrupt.recv() => {}
        }
    }
}

async fn stop(child: &mut Child) {
    if let Err(error) = child.kill().await {
        eprintln!("vulpes: the command could not be killed: {error}");
    }
}

fn ended(status: ExitStatus) -> anyhow::Result<()> {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| SIGNALLED + status.signal().unwrap_or_default());
    match u8::try_from(code) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Ended(code).into()),
        Err(_) => Err(Ended(u8::MAX).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in [("500ms", 500), ("30s", 30_000), ("2", 2000), ("5m", 300_000)]
        {
            assert_eq!(events::duration(text), Ok(Duration::from_millis(milliseconds)));
        }
        for wrong in ["", "s", "1 s", "-1s", "1w"] {
            assert!(events::duration(wrong).is_err(), "{wrong:?}");
        }
    }
}

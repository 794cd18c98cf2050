//! `vulpes node`: one node in this process, until it is told to stop.
//!
//! Invariant: nothing is opened before the configuration was found good.
//!
//! Deliberately absent: what a node does (`server`), and any change of the process's own state but its log and how many files it
//! may have open.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::runtime::Runtime;
use tokio::signal::unix::{signal, SignalKind};
use tracing_subscriber::EnvFilter;
use vulpes_raft::host::Workers;

use crate::config::NodeConfig;
use crate::server::Ended;

const EXAMPLES: &str = "\
Examples:
  vulpes init --nodes 3 --dir etc           write the configurations of a cluster
  vulpes node --config etc/node1.toml       run one of its nodes

The environment variable VULPES_LOG says how much is logged, as in VULPES_LOG=debug or
VULPES_LOG=info,vulpes=trace. SIGTERM or Ctrl-C stops the node.";

/// What is logged unless the environment says otherwise: tarpc tells of every call, openraft of every step and of
/// every heartbeat that a missing node does not answer.
const LOG_FILTER: &str = "info,tarpc=warn,openraft=error";

/// Run one node of a cluster
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Node {
    /// The node's configuration; demo/vulpes.example.toml explains every setting
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Also stop when standard input, a pipe, is closed: when the process that started this one is gone
    #[arg(long)]
    stop_on_stdin_close: bool,
}

impl Node {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let clients = client_runtime()?;
        let ran = self.serve(Workers::Apart(clients.handle().clone())).await;
        clients.shutdown_background();
        ran
    }

    async fn serve(self, clients: Workers) -> anyhow::Result<()> {
        let config = NodeConfig::load(&self.config)?;
        let filter = match std::env::var("VULPES_LOG") {
            Ok(text) => EnvFilter::try_new(&text)
                .with_context(|| format!("VULPES_LOG={text:?} is no log filter"))?,
            Err(_) => EnvFilter::new(LOG_FILTER),
        };
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .init();
        // A client takes one each, and a service manager's default is soon used up.
        let files = super::files::raise();
        tracing::debug!(?files, "how many files may be open");
        let stop = stop(self.stop_on_stdin_close)?;
        match crate::server::run(config, clients, stop).await? {
            Ended::Stopped => Ok(()),
            Ended::LeftBehind => Err(start_again()),
        }
    }
}

/// Where clients are served, so that nothing they do takes the threads that keep the cluster alive.
fn client_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().thread_name("clients").enable_all().build()
}

/// Replaces this process with a new one of the same program and arguments; returns only where that fails.
fn start_again() -> anyhow::Error {
    tracing::warn!("starting again, from where the other nodes are");
    let program =
        std::env::current_exe().ok().or_else(|| std::env::args_os().next().map(PathBuf::from));
    let failed =
        |error: io::Error| anyhow::Error::new(error).context("the node has to be started again");
    match program {
        Some(program) => {
            failed(std::process::Command::new(program).args(std::env::args_os().skip(1)).exec())
        }
        None => failed(io::ErrorKind::NotFound.into()),
    }
}

/// Completes when the node is to stop.
fn stop(on_stdin_close: bool) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stdin = if on_stdin_close { Some(stdin_pipe()?) } else { None };
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping: told by SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping: told by SIGINT"),
            () = closed(stdin) => tracing::info!("stopping: standard input was closed"),
        }
    })
}

/// Standard input as a pipe that can be waited for without a thread, which would outlive the runtime.
fn stdin_pipe() -> anyhow::Result<pipe::Receiver> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    pipe::Receiver::from_owned_fd(stdin)
        .context("--stop-on-stdin-close needs a pipe as standard input")
}

async fn closed(stdin: Option<pipe::Receiver>) {
    let Some(mut stdin) = stdin else { return std::future::pending().await };
    let mut ignored = [0; 64];
    // An unreadable pipe is as good as a closed one.
    while stdin.read(&mut ignored).await.is_ok_and(|length| length > 0) {}
}

//! `vulpes node`: one node in this process, until it is stopped.
//!
//! Invariant: nothing is opened before the configuration has been checked.
//!
//! SIGTERM and Ctrl-C stop the node cleanly; on SIGHUP it rereads the part of its configuration that can change while
//! it runs.
//!
//! Deliberately absent: what a node does (`crate::node`). The only process-wide state that changes here is the log, the panic
//! hook, the limit of open files and who may read new ones.

mod logging;
pub(super) mod panics;

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::runtime::Runtime;
use tokio::signal::unix::{signal, Signal, SignalKind};
use tokio::sync::watch;
use vulpes_raft::host::{Host, Workers};
use vulpes_raft::mutant::{planted, Mutant};

use crate::config::disk::LowWater;
use crate::config::NodeConfig;
use crate::node::{Ended, StartError};
use crate::tls::certificates::Certificates;
use logging::Logging;

const EXAMPLES: &str = "\
Examples:
  vulpes init --nodes 3 --dir etc           write the configurations of a cluster
  vulpes node --config etc/node1.toml       run one of its nodes

`log` in the configuration says how much is logged, and the environment variable VULPES_LOG takes precedence, as in
VULPES_LOG=debug or VULPES_LOG=info,vulpes=trace. SIGTERM or Ctrl-C stops the node; on SIGHUP it reads
`log`, `disk.low_water` and its certificates again.

The exit code is 70 if the disk failed or is damaged.";

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
        let apart = Workers::Apart(clients.handle().clone());
        let shared = planted(Mutant::ClientsWithTheCluster);
        let ran = self.serve(if shared { Workers::Here } else { apart }).await;
        clients.shutdown_background();
        ran
    }

    async fn serve(self, clients: Workers) -> anyhow::Result<()> {
        super::files::keep_private();
        let config = NodeConfig::load(&self.config)?;
        let logging = Logging::start(config.log.as_deref())?;
        panics::end_the_process(config.data.clone());
        // Each client takes a file, and a service manager's default limit is small.
        let files = super::files::raise();
        let stop = stop(self.stop_on_stdin_close)?;
        let certificates = Certificates::load(&config, Host::real().clock);
        let certificates = certificates.map_err(StartError::Tls)?;
        let hangup = signal(SignalKind::hangup())?;
        let (changes, configured) = watch::channel(config);
        tokio::spawn(reload(hangup, (logging, changes), certificates.clone(), self.config));
        match crate::node::run(configured, certificates, clients, files, stop).await? {
            Ended::Stopped => Ok(()),
            Ended::LeftBehind => Err(start_again()),
        }
    }
}

/// The runtime that serves clients, so that they never occupy the threads that keep the cluster alive.
fn client_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().thread_name("clients").enable_all().build()
}

/// Replaces this process with a new one of the same program and arguments; returns only if that fails.
fn start_again() -> anyhow::Error {
    tracing::warn!("restarting, to continue from the state of another storage");
    let program =
        std::env::current_exe().ok().or_else(|| std::env::args_os().next().map(PathBuf::from));
    let failed =
        |error: io::Error| anyhow::Error::new(error).context("the node has to be restarted");
    match program {
        Some(program) => {
            failed(std::process::Command::new(program).args(std::env::args_os().skip(1)).exec())
        }
        None => failed(io::ErrorKind::NotFound.into()),
    }
}

/// Rereads the settings that can change, each time the process gets SIGHUP.
async fn reload(
    mut hangup: Signal,
    (logging, changes): (Logging, watch::Sender<NodeConfig>),
    certificates: Arc<Certificates>,
    path: PathBuf,
) {
    while hangup.recv().await.is_some() {
        certificates.reload();
        match read_again(&logging, &changes, &path) {
            Ok((told, mark)) => tracing::info!(
                "reloaded on SIGHUP: the log is {told}, disk.low_water is {mark}; other changes in {} take effect at the next start",
                path.display()
            ),
            Err(error) => tracing::warn!("could not reload on SIGHUP, nothing changed: {error:#}"),
        }
    }
}

fn read_again(
    logging: &Logging,
    changes: &watch::Sender<NodeConfig>,
    path: &Path,
) -> anyhow::Result<(String, LowWater)> {
    let config = NodeConfig::load(path)?;
    let told = logging.change(config.log.as_deref())?;
    let mark = config.low_water;
    changes.send_replace(config);
    Ok((told, mark))
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
    // An unreadable pipe counts as closed.
    while stdin.read(&mut ignored).await.is_ok_and(|length| length > 0) {}
}

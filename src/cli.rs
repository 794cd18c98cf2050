//! The command line: `vulpes up`, `node`, `init`, and the client commands.
//!
//! Invariant: the exit code is 0 if the command succeeded, 1 if it failed, 2 if its arguments are wrong, and 70 if a
//! node's disk failed or is damaged. Every error on standard error says what to do; standard output holds results
//! only.
//!
//! Deliberately absent: what a node does (`node`) and what clients speak (`client`).

use std::io;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::Value;
use vulpes_raft::disk::file::OpenError;
use vulpes_raft::ids::EventId;

use crate::client::wamp::{WampClient, WampError};
use crate::node::StartError;

mod asked;
mod audit;
mod authority;
mod ban;
#[cfg_attr(not(feature = "bench"), path = "cli/no_bench.rs")]
mod bench;
mod call;
mod certs;
mod compact;
mod events;
mod files;
mod first_administrator;
mod init;
mod lock;
mod log;
mod login;
mod node;
mod plan;
mod publish;
mod role;
mod secure;
mod state;
mod status;
mod subscribe;
mod up;
mod user;
pub mod verify;

/// The exit code for a failed or damaged disk.
const EXIT_FATAL: u8 = node::panics::EXIT_FATAL as u8;

const EXAMPLES: &str = "\
Examples:
  vulpes up                                   a cluster of three nodes on this machine, until Ctrl-C
  vulpes sub 'demo.#'                         show what is published
  vulpes pub demo.hello '{\"text\": \"hi\"}'      publish, and print the event's position
  vulpes set demo.state '{\"on\": true}'        keep a value; `vulpes get demo.state` shows it, at any node
  vulpes lock demo.job -- ./job.sh            run a command while holding a lock of the whole cluster
  vulpes call wamp.session.list               call a procedure, wherever its callee is
  vulpes log --after 100                      read the log after position 100
  vulpes status                               how the nodes are doing
  vulpes verify                               prove that all nodes hold the same log
  vulpes user add ann                         let in only users, of whom ann is the first
  vulpes role set app 'allow all app/#'       say what users with a role may do
  vulpes ban add user joe --for 10m           end a user's sessions, and let it in again after ten minutes
  vulpes audit                                who changed users, roles and bans
  vulpes init --dir etc --nodes 3             configurations and certificates of a cluster for several machines

`vulpes COMMAND --help` has details.";

/// A node's threads besides those for its clients and its disk.
const CLUSTER_THREADS: usize = 2;

/// The first node of `vulpes up`, and where clients connect by default.
const DEFAULT_NODE: &str = "ws://127.0.0.1:9031/";
const DEFAULT_ADMIN: &str = "http://127.0.0.1:9081";
const DEFAULT_REALM: &str = "realm1";

/// A WAMP and MQTT router on one durable, totally ordered log
#[derive(Debug, Parser)]
#[command(name = "vulpes", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Init(init::Init),
    Node(node::Node),
    Status(status::Status),
    Pub(publish::Publish),
    Sub(subscribe::Subscribe),
    Get(state::Get),
    Set(state::Set),
    History(state::History),
    Lock(lock::Lock),
    Call(call::Call),
    Log(log::Log),
    Verify(verify::Verify),
    User(user::Users),
    Role(role::Roles),
    Can(role::Can),
    Ban(ban::Bans),
    Audit(audit::Audit),
    Certs(certs::Certs),
    Compact(compact::Compact),
    Bench(Box<bench::Bench>),
}

/// Where a client command connects.
#[derive(Debug, Args)]
struct ClientArgs {
    /// WAMP URL of the node to speak with; wss:// if it is encrypted
    #[arg(long, value_name = "URL", default_value = DEFAULT_NODE, value_parser = wamp_url)]
    node: String,
    /// Realm to join
    #[arg(long, default_value = DEFAULT_REALM)]
    realm: String,
    #[command(flatten)]
    tls: secure::TlsArgs,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    login: login::LoginArgs,
}

impl ClientArgs {
    /// Opens a session, as the user that was named, if any.
    async fn connect(&self) -> anyhow::Result<WampClient> {
        let login = self.login.read()?;
        let (dialer, login) = (self.tls.dialer()?, login.as_ref());
        let connected = WampClient::connect_with(&dialer, &self.node, &self.realm, login).await;
        connected.map_err(|error| match error {
            WampError::LoginRefused { .. } => anyhow::anyhow!("{error}; {}", login::ADVICE),
            error => error.into(),
        })
    }
}

/// The failure was already reported in the requested form: only the exit code is left.
#[derive(Debug, thiserror::Error)]
#[error("the command failed")]
struct Reported;

/// A command that was run for the caller has failed, and we pass on its exit code.
#[derive(Debug, thiserror::Error)]
#[error("the command ended with exit code {0}")]
struct Ended(u8);

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    let error = match run(Cli::parse()) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    if error.is::<Reported>() {
        return ExitCode::FAILURE;
    }
    if let Some(Ended(code)) = error.downcast_ref::<Ended>() {
        return ExitCode::from(*code);
    }
    // A reader that stops early, as `head` does, is not an error.
    if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("vulpes: {error:#}");
    if is_of_the_disk(&error) {
        return ExitCode::from(EXIT_FATAL);
    }
    ExitCode::FAILURE
}

/// Whether a node has to stop because of its disk.
fn is_of_the_disk(error: &anyhow::Error) -> bool {
    let of_file = |error: &OpenError| error.is_of_the_disk();
    error.downcast_ref::<StartError>().is_some_and(StartError::is_of_the_disk)
        || error.downcast_ref::<OpenError>().is_some_and(of_file)
}

fn run(cli: Cli) -> anyhow::Result<()> {
    // The work that keeps a cluster alive is small but must not wait: `node` has another runtime for its clients. A client
    // command has little to do and shares the machine with nodes, so one thread is enough.
    let mut builder = match cli.command {
        Command::Node(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime =
        builder.worker_threads(CLUSTER_THREADS).thread_name("cluster").enable_all().build()?;
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Up(up) => Box::pin(up.run()).await,
            Command::Init(init) => init.run(),
            Command::Node(node) => Box::pin(node.run()).await,
            Command::Status(status) => Box::pin(status.run()).await,
            Command::Pub(publish) => Box::pin(publish.run()).await,
            Command::Sub(subscribe) => Box::pin(subscribe.run()).await,
            Command::Get(get) => Box::pin(get.run()).await,
            Command::Set(set) => Box::pin(set.run()).await,
            Command::History(history) => Box::pin(history.run()).await,
            Command::Lock(lock) => Box::pin(lock.run()).await,
            Command::Call(call) => Box::pin(call.run()).await,
            Command::Log(log) => Box::pin(log.run()).await,
            Command::Verify(verify) => Box::pin(verify.run()).await,
            Command::User(user) => Box::pin(user.run()).await,
            Command::Role(role) => Box::pin(role.run()).await,
            Command::Can(can) => match Box::pin(can.run()).await? {
                true => Ok(()),
                false => Err(Reported.into()),
            },
            Command::Ban(ban) => Box::pin(ban.run()).await,
            Command::Audit(audit) => Box::pin(audit.run()).await,
            Command::Certs(certs) => certs.run(),
            Command::Compact(compact) => compact.run(),
            Command::Bench(bench) => Box::pin(bench.run()).await,
        }
    });
    // A thread may still wait for standard input; nothing needs its answer.
    runtime.shutdown_background();
    outcome
}

fn wamp_url(text: &str) -> Result<String, String> {
    crate::client::wamp::url_address(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// A position or an event id, as the `after` option takes it.
fn after(text: &str) -> Result<Value, String> {
    if let Ok(position) = text.parse::<u64>() {
        if position < 1 << 53 {
            return Ok(position.into());
        }
    }
    text.parse::<EventId>().map(|_| text.into()).map_err(|_| {
        format!(
            "{text:?} is neither a position, as in 4711, nor an event id, as in 2611221742b1za3"
        )
    })
}

#[cfg(test)]
mod tests;

//! `vulpes verify`: reads the whole log from every node and proves that all hold the same log, dense and in order, or
//! shows the first difference. Then it compares the hashes of the nodes' states at one slot.
//!
//! Invariant: "proved" refers only to slots that every node showed and whose bodies every node read at that time, and
//! to states only if all nodes were seen at one slot.
//!
//! Deliberately absent: what the events mean. A body is compared by its checksum, which the order itself names.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::Instant;
use vulpes_raft::ids::{NodeId, Slot};

use super::login::{self, LoginArgs};
use super::secure::TlsArgs;
use super::status::ask_all;
use super::Reported;
use crate::client::admin::{self, AdminClient, AdminUrl};
use crate::config::Role;
use crate::http::{LogPage, LogRow, LOG_ROWS};
use check::{body_damage, differs, is_whole, Damage, LogCheck};
pub use states::StatesDiffer;

pub mod check;
mod states;

/// Pause before a node that is behind is asked again.
const POLL: Duration = Duration::from_millis(100);

/// Most restarts of the comparison if the log is released faster than it is read.
const ATTEMPTS: usize = 10;

const EXAMPLES: &str = "\
Examples:
  vulpes verify
  vulpes verify --node-admin http://10.0.0.2:9081
  vulpes verify --nodes http://10.0.0.1:9081,http://10.0.0.2:9081 --json

The exit code is 1 if something is wrong, or if it could not be proved.";

/// Prove that all nodes hold the same log, dense and in order, and have the same state
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Verify {
    /// Admin URLs of the nodes to read from [default: of all storages that --node-admin knows]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    nodes: Vec<AdminUrl>,
    /// Admin URL of a node to ask about the others
    #[arg(
        long,
        value_name = "URL",
        default_value = super::DEFAULT_ADMIN,
        conflicts_with = "nodes"
    )]
    node_admin: AdminUrl,
    #[command(flatten)]
    tls: TlsArgs,
    /// How long to wait for a node that is behind the others
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
    #[command(flatten)]
    login: LoginArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why the nodes' logs could not be proved to be the same.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A node can't be read.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    #[error("node {node} at {url} does not show slot {slot}, which the log had when this began, within {waited:?}; is it catching up? Try again, with a longer --wait")]
    Behind { node: NodeId, url: AdminUrl, slot: Slot, waited: Duration },
    #[error("{first} and {second} are both node {node}; name each node once")]
    SameNode { node: NodeId, first: AdminUrl, second: AdminUrl },
    /// The log is wrong.
    #[error("node {node}: {damage}")]
    Damaged { node: NodeId, damage: Damage },
    #[error("the log is released faster than it can be read, {ATTEMPTS} times in a row; try again when less is published")]
    Outrun,
    #[error(transparent)]
    States(#[from] StatesDiffer),
    #[error("slot {}: node {first_node} shows\n  {}\nnode {second_node} shows\n  {}", .first.slot, show(.first), show(.second))]
    Different { first_node: NodeId, first: Box<LogRow>, second_node: NodeId, second: Box<LogRow> },
}

fn show(row: &LogRow) -> String {
    serde_json::to_string(row).unwrap_or_else(|_| format!("{row:?}"))
}

/// What was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The nodes, in the order in which their URLs were given.
    pub nodes: Vec<NodeId>,
    /// The first slot that all of them have.
    pub oldest: Slot,
    /// The first slot that was not checked.
    pub end: Slot,
    /// Events in these slots.
    pub events: u64,
    /// Segments whose bodies none of the nodes stores, because they belong to other storage groups.
    pub elsewhere: u64,
    /// The slot before which all nodes' states were compared and found equal; `None` if they were never seen at one
    /// slot.
    pub states: Option<Slot>,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(ToString::to_string).collect();
        let nodes = nodes.join(", ");
        if self.oldest >= self.end {
            return write!(f, "nothing to prove: the log of nodes {nodes} is empty");
        }
        writeln!(
            f,
            "proved: nodes {nodes} hold the same log: slots {} to {}, {} events, dense and in order, every body{} whole",
            self.oldest,
            self.end.0 - 1,
            self.events,
            if self.elsewhere > 0 { " that they keep" } else { "" }
        )?;
        if self.elsewhere > 0 {
            writeln!(
                f,
                "not checked: the bodies of {} segments, which none of these nodes keeps; name one of each storage group",
                self.elsewhere
            )?;
        }
        match self.states {
            Some(slot) => write!(f, "proved: their states are the same before slot {slot}"),
            None => write!(
                f,
                "their states could not be compared: the nodes were not seen at one slot; try again when less is published"
            ),
        }
    }
}

impl Verify {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let dialer = self.tls.dialer()?;
        let client = self.login.admin()?;
        let urls = match self.nodes.is_empty() {
            true => storages(&client, &self.node_admin.trusting(&dialer)).await?,
            false => self.nodes.into_iter().map(|url| url.trusting(&dialer)).collect(),
        };
        let outcome = verify(&client, &urls, Duration::from_secs(self.wait)).await;
        if !self.json {
            let proof = outcome?;
            writeln!(std::io::stdout(), "{proof}")?;
            return Ok(());
        }
        let object = match &outcome {
            Ok(proof) => json!({
                "proved": true,
                "nodes": proof.nodes,
                "oldest": proof.oldest,
                "end": proof.end,
                "events": proof.events,
                "elsewhere": proof.elsewhere,
                "states": proof.states,
            }),
            Err(error) => json!({"proved": false, "error": error.to_string()}),
        };
        writeln!(std::io::stdout(), "{object}")?;
        outcome.map(|_| ()).map_err(|_| Reported.into())
    }
}

/// The admin URLs of all storages of the cluster.
async fn storages(client: &AdminClient, url: &AdminUrl) -> anyhow::Result<Vec<AdminUrl>> {
    let asked = ask_all(client, std::slice::from_ref(url)).await;
    let hint = "Start it, or name the nodes to compare with --nodes";
    let mut urls = Vec::new();
    for asked in asked {
        if let (None, Some(error)) = (asked.node, &asked.error) {
            let advice = if login::is_advised(error) { "" } else { hint };
            anyhow::bail!("{error} {advice}");
        }
        if !asked.roles.contains(&Role::Storage) {
            continue;
        }
        let node = asked.node.unwrap_or_default();
        match (asked.error, asked.admin) {
            (None, Some(admin)) => {
                let admin: AdminUrl = admin.parse().map_err(anyhow::Error::msg)?;
                urls.push(admin.trusting_as(url));
            }
            (error, _) => {
                let error = error.unwrap_or_default();
                anyhow::bail!("node {node} is a storage and can't be read from: {error} {hint}")
            }
        }
    }
    anyhow::ensure!(
        !urls.is_empty(),
        "there is no storage to read from; name the nodes to compare with --nodes"
    );
    Ok(urls)
}

/// Compares the logs of the nodes at these URLs up to the end that the log has when this begins, then their states. It waits
/// for nodes that are behind. If the log is released meanwhile, it starts over with what is left.
///
/// # Errors
/// The first difference or damage, or why the comparison can't be completed.
pub async fn verify(
    client: &AdminClient,
    urls: &[AdminUrl],
    patience: Duration,
) -> Result<Proof, VerifyError> {
    let end = end(client, urls).await;
    for _ in 0..ATTEMPTS {
        let stretch = Stretch::of_all(client, urls, end).await?;
        match stretch.prove(client, urls, patience).await {
            Err(VerifyError::Admin(error)) if error.is_gone() => {}
            proved => return proved,
        }
    }
    Err(VerifyError::Outrun)
}

/// The end of the log, according to the most advanced node that answers. All acknowledged events are before it: sync has all of
/// them in its order, while what a storage shows from its disk may be slightly behind.
async fn end(client: &AdminClient, urls: &[AdminUrl]) -> Slot {
    let asked = ask_all(client, urls).await;
    let tails = asked.iter().filter_map(|asked| asked.status.as_ref()).map(|status| {
        let sync = status.sync.as_ref().map(|sync| sync.tail_slot);
        sync.max(status.replica.as_ref().map(|replica| replica.applied_slot))
    });
    tails.flatten().max().map_or(Slot(1), Slot::next)
}

/// A range to compare.
struct Stretch {
    nodes: Vec<NodeId>,
    oldest: Slot,
    end: Slot,
}

impl Stretch {
    /// The range that starts where every node has the log, and ends at `end` or where the most advanced node ends, whichever is
    /// later.
    async fn of_all(
        client: &AdminClient,
        urls: &[AdminUrl],
        mut end: Slot,
    ) -> Result<Self, VerifyError> {
        let mut nodes = Vec::new();
        let mut oldest = Slot(1);
        for (at, url) in urls.iter().enumerate() {
            let page = client.log(url, Slot(0), 1).await?;
            if let Some(earlier) = nodes.iter().position(|node| *node == page.node) {
                let (first, second) = (urls[earlier].clone(), urls[at].clone());
                return Err(VerifyError::SameNode { node: page.node, first, second });
            }
            nodes.push(page.node);
            oldest = oldest.max(page.oldest);
            end = end.max(page.end);
        }
        Ok(Self { nodes, oldest, end })
    }

    async fn prove(
        self,
        client: &AdminClient,
        urls: &[AdminUrl],
        patience: Duration,
    ) -> Result<Proof, VerifyError> {
        let Self { nodes, oldest, end } = self;
        let mut check = LogCheck::new(oldest);
        let (mut from, mut elsewhere) = (oldest, 0);
        while from < end {
            let mut reference: Vec<LogRow> = Vec::new();
            let mut whole_at: Vec<bool> = Vec::new();
            for (url, node) in urls.iter().zip(&nodes) {
                // The first node's page limits this round, so that no node has to be ahead.
                let wanted = if reference.is_empty() { LOG_ROWS } else { reference.len() };
                let wanted = wanted.min(usize::try_from(end.0 - from.0).unwrap_or(usize::MAX));
                let whole = !reference.is_empty();
                let page = Wanted { client, url, node: *node, from, rows: wanted, whole };
                let rows = read(page, patience).await?;
                compare(&mut check, &reference, nodes[0], *node, &rows)?;
                whole_at.resize(rows.len(), false);
                whole_at.iter_mut().zip(&rows).for_each(|(whole, row)| *whole |= is_whole(row));
                if reference.is_empty() {
                    reference = rows;
                }
            }
            elsewhere += whole_at.iter().filter(|whole| !**whole).count() as u64;
            from = Slot(from.0 + reference.len() as u64);
        }
        let states = states::compare(client, urls, &nodes, end).await?;
        let events = check.events();
        Ok(Proof { nodes, oldest, end: from, events, elsewhere, states })
    }
}

/// Rows that a node is asked for.
struct Wanted<'a> {
    client: &'a AdminClient,
    url: &'a AdminUrl,
    node: NodeId,
    from: Slot,
    /// How many.
    rows: usize,
    /// All of them, not only at least one.
    whole: bool,
}

/// Reads rows: at least one, or all that are wanted.
async fn read(wanted: Wanted<'_>, patience: Duration) -> Result<Vec<LogRow>, VerifyError> {
    let Wanted { client, url, node, from, rows: wanted, whole } = wanted;
    let deadline = Instant::now() + patience;
    let mut rows: Vec<LogRow> = Vec::new();
    loop {
        let next = Slot(from.0 + rows.len() as u64);
        let LogPage { rows: page, .. } = client.log(url, next, wanted - rows.len()).await?;
        let stuck = page.is_empty();
        rows.extend(page.into_iter().take(wanted - rows.len()));
        if rows.len() == wanted || !whole && !rows.is_empty() {
            return Ok(rows);
        }
        if stuck && Instant::now() >= deadline {
            let (url, waited) = (url.clone(), patience);
            return Err(VerifyError::Behind { node, url, slot: next, waited });
        }
        if stuck {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Checks the first node's rows by themselves, and the other nodes' rows against them.
fn compare(
    check: &mut LogCheck,
    reference: &[LogRow],
    first_node: NodeId,
    node: NodeId,
    rows: &[LogRow],
) -> Result<(), VerifyError> {
    for (at, row) in rows.iter().enumerate() {
        match reference.get(at) {
            None => check.row(row).map_err(|damage| VerifyError::Damaged { node, damage })?,
            Some(first) if differs(first, row) => {
                return Err(VerifyError::Different {
                    first_node,
                    first: Box::new(first.clone()),
                    second_node: node,
                    second: Box::new(row.clone()),
                });
            }
            Some(_) => {}
        }
        if let Some(damage) = body_damage(row) {
            return Err(VerifyError::Damaged { node, damage });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

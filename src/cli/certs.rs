//! `vulpes certs`: shows the certificates of nodes, gives them new ones, and makes an authority that replaces another.
//!
//! Invariant: no node gets a certificate that its own file of authorities does not let the others take. All certificates are
//! made and checked before the first is written.
//!
//! Deliberately absent: asking nodes that run. They read their files again by themselves.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::{presets, Table};
use time::OffsetDateTime;
use vulpes_raft::ids::Stamp;

use super::authority::{now, write_pair, Kept};
use super::Reported;
use crate::config::peer_tls::PeerTls;
use crate::config::NodeConfig;
use crate::tls::authority::NODE_DAYS;
use crate::tls::files::trusts;
use crate::tls::inspect::{inspect, Described};

const EXAMPLES: &str = "\
Examples:
  vulpes certs show etc/node1.toml              what a node's certificates are, and whether it can use them
  vulpes certs renew --ca etc/ca etc/node*.toml
      new certificates and keys; nodes that run use them within seconds

To replace the authority, take three steps, each at all nodes before the next. Between them, nodes have a few seconds to read
their files again; `kill -HUP` makes them do it at once, and their logs say so.
  vulpes certs authority --dir etc/ca2 --cluster vulpes
  for ca in etc/tls/*/ca.pem; do cat etc/ca2/ca.pem >> $ca; done     1. trust both
  vulpes certs renew --ca etc/ca2 etc/node*.toml                     2. show the new one's
  for ca in etc/tls/*/ca.pem; do cat etc/ca2/ca.pem > $ca; done      3. trust the new one alone
Connections that are open keep what they began with. If the old key was stolen, restart the nodes after step 3, one at a time.";

/// Show and renew the certificates by which nodes know each other
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Certs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the certificates of nodes; the exit code is 1 if one can't be used, or has expired
    Show(Show),
    /// Give nodes new certificates and keys
    Renew(Renew),
    /// Make another authority, which replaces the first or signs for a new cluster
    Authority(Fresh),
}

#[derive(Debug, Args)]
struct Show {
    /// The nodes' configurations
    #[arg(required = true, value_name = "FILE")]
    configs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Renew {
    /// Directory with the authority's ca.pem and ca.key, as `vulpes init` makes it
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// How long the certificates are valid
    #[arg(long, default_value_t = NODE_DAYS, value_parser = clap::value_parser!(u16).range(1..=3_650))]
    days: u16,
    /// The nodes' configurations, whose [peer_tls] says where their files are
    #[arg(required = true, value_name = "FILE")]
    configs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Fresh {
    /// Directory to write ca.pem and ca.key to
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The cluster's name
    #[arg(long, default_value = "vulpes")]
    cluster: String,
}

impl Certs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.action {
            Action::Show(show) => show.run(),
            Action::Renew(renew) => renew.run(),
            Action::Authority(fresh) => fresh.run(),
        }
    }
}

impl Show {
    fn run(self) -> anyhow::Result<()> {
        let now = now();
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        table.set_header(["node", "file", "subject", "signed by", "expires", "fits"]);
        let mut wrong = Vec::new();
        for path in &self.configs {
            let config = NodeConfig::load(path)?;
            let found = inspect(&config);
            if config.peer_tls.is_none() {
                wrong.push(format!(
                    "{} has no [peer_tls]: nothing is encrypted between its node and the others",
                    path.display()
                ));
            }
            for inspected in found {
                let fits = if inspected.verdict.is_ok() { "yes" } else { "no" };
                for one in inspected.certificates {
                    if one.expires.is_none_or(|at| at <= now) {
                        wrong.push(format!("{} has expired: {}", one.path.display(), one.subject));
                    }
                    let Described { path, subject, issuer, expires } = one;
                    let node = config.node.to_string();
                    let (path, expires) = (path.display().to_string(), expiry(expires, now));
                    table.add_row([node, path, subject, issuer, expires, fits.to_owned()]);
                }
                wrong.extend(
                    inspected.verdict.err().map(|error| format!("{}: {error}", inspected.user)),
                );
            }
        }
        if !table.is_empty() {
            writeln!(std::io::stdout(), "{table}")?;
        }
        wrong.iter().for_each(|wrong| eprintln!("vulpes: {wrong}"));
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Reported.into())
        }
    }
}

impl Renew {
    fn run(self) -> anyhow::Result<()> {
        let mut nodes: Vec<(NodeConfig, PeerTls)> = Vec::with_capacity(self.configs.len());
        for path in &self.configs {
            let config = NodeConfig::load(path)?;
            let files = config.peer_tls.clone().with_context(|| {
                format!("{} has no [peer_tls], so there is nothing to renew", path.display())
            })?;
            nodes.push((config, files));
        }
        let mut pairs = Vec::with_capacity(nodes.len());
        for (config, files) in &nodes {
            let kept = Kept::read(&self.ca, &config.cluster)?;
            anyhow::ensure!(
                trusts(&files.ca, kept.authority.certificate())?,
                "{} does not have the authority of {}, so the other nodes would refuse what it signs; \
                 add its ca.pem to the ca file of every node first",
                files.ca.display(),
                self.ca.display()
            );
            pairs.extend(kept.issue(std::iter::once(config), self.days)?);
        }
        let mut out = std::io::stdout().lock();
        let until = date(Stamp(now().0 + u64::from(self.days) * DAY));
        for ((config, files), pair) in nodes.iter().zip(&pairs) {
            write_pair(files, pair)?;
            let path = files.certificate.display();
            writeln!(out, "node {}: {path} is valid until {until}", config.node)?;
        }
        Ok(())
    }
}

impl Fresh {
    fn run(self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !Kept::is_in(&self.dir),
            "{} has an authority already, and certificates of it may be in use; choose another --dir",
            self.dir.display()
        );
        Kept::new(&self.dir, &self.cluster)?.write()
    }
}

/// A day in milliseconds.
const DAY: u64 = 86_400_000;

fn expiry(at: Option<Stamp>, now: Stamp) -> String {
    match at {
        None => "unreadable".into(),
        Some(at) if at <= now => format!("{}, expired", date(at)),
        Some(at) => format!("{}, in {} days", date(at), (at.0 - now.0) / DAY),
    }
}

fn date(at: Stamp) -> String {
    let seconds = i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_or_else(|_| "never".into(), |at| at.date().to_string())
}

#[cfg(test)]
mod tests;

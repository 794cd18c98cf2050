//! `vulpes compact`: returns the space of deleted data in a storage's file to the file system.
//!
//! Invariant: only the file of a stopped node is touched, since the file can be open only once.
//!
//! Deliberately absent: compacting a running node. It reuses the freed space, which costs nothing.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use vulpes_raft::disk::file;
use vulpes_raft::host::Host;

use crate::config::{open_identity, NodeConfig, Role};

const EXAMPLES: &str = "\
Examples:
  vulpes compact --config etc/node1.toml

Stop the node first, and only as many nodes at once as the cluster can spare. A large file takes a while, and needs no
more room than it has.";

/// Shrink the file of a stopped storage node to what it still holds
///
/// A node reuses the space of deleted data, but its file does not shrink by itself.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Compact {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Compact {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = NodeConfig::load(&self.config)?;
        anyhow::ensure!(config.has(Role::Storage), "node {} is not a storage", config.node);
        super::node::panics::end_the_process(config.data.clone());
        let path = config.data.join(file::FILE);
        let length = || {
            let file = std::fs::metadata(&path);
            file.map(|file| file.len()).with_context(|| format!("can't read {}", path.display()))
        };
        let before = length()?;
        let host = Host::real();
        file::compact(&host, &config.data, &open_identity(&host, &config)?)?;
        writeln!(
            std::io::stdout(),
            "{}: {before} bytes before, {} now",
            path.display(),
            length()?
        )?;
        Ok(())
    }
}

//! Which nodes have which roles.
//!
//! Invariant: nodes are numbered from 1, and each has a role at least.
//!
//! Deliberately absent: addresses and processes; see `crate::cluster`.

use anyhow::{ensure, Result};
use serde::{Deserialize, Serialize};

use crate::node::Role;

/// Most nodes of a cluster.
pub const NODES: u64 = 9;

/// The nodes with each role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    sync: Vec<u64>,
    storage: Vec<u64>,
    entry: Vec<u64>,
}

impl Layout {
    /// So many nodes with all three roles each.
    #[must_use]
    pub fn whole(count: u64) -> Self {
        let all: Vec<u64> = (1..=count).collect();
        Self { sync: all.clone(), storage: all.clone(), entry: all }
    }

    /// Nodes with one role each: first so many of sync, then so many storages, then so many entries.
    ///
    /// # Errors
    /// If there is none of a role, or there are more than [`NODES`] in all.
    pub fn split(sync: u64, storage: u64, entry: u64) -> Result<Self> {
        ensure!(sync.min(storage).min(entry) > 0, "each role needs a node");
        // Each of them first, so that a sum can't overflow.
        let most = sync.max(storage).max(entry);
        ensure!(most <= NODES && sync + storage + entry <= NODES, "{NODES} nodes at most");
        Ok(Self {
            sync: (1..=sync).collect(),
            storage: (sync + 1..=sync + storage).collect(),
            entry: (sync + storage + 1..=sync + storage + entry).collect(),
        })
    }

    #[must_use]
    pub fn is_split(&self) -> bool {
        self.sync != self.entry
    }

    /// The nodes with a role.
    #[must_use]
    pub fn of(&self, role: Role) -> &[u64] {
        match role {
            Role::Sync => &self.sync,
            Role::Storage => &self.storage,
            Role::Entry => &self.entry,
        }
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<u64> {
        let mut nodes = [&self.sync[..], &self.storage, &self.entry].concat();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// A node's roles.
    #[must_use]
    pub fn roles(&self, node: u64) -> Vec<Role> {
        Role::ALL.into_iter().filter(|role| self.of(*role).contains(&node)).collect()
    }

    /// Nodes that read the log, and have a state of what they made of it.
    #[must_use]
    pub fn readers(&self) -> Vec<u64> {
        let reads = |node: &u64| self.storage.contains(node) || self.entry.contains(node);
        self.nodes().into_iter().filter(reads).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_dealt() {
        let whole = Layout::whole(3);
        assert!(!whole.is_split() && whole.nodes() == [1, 2, 3] && whole.roles(2).len() == 3);
        let split = Layout::split(3, 3, 2).unwrap();
        assert!(split.is_split());
        assert_eq!(split.nodes(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(split.of(Role::Storage), [4, 5, 6]);
        assert_eq!(split.readers(), [4, 5, 6, 7, 8]);
        assert_eq!(split.roles(8), [Role::Entry]);
        for bad in [(0, 3, 3), (3, 3, 0), (3, 3, 4), (u64::MAX, 1, 1)] {
            assert!(Layout::split(bad.0, bad.1, bad.2).is_err(), "{bad:?}");
        }
    }
}

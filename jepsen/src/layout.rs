//! Which nodes have which roles, and which storages form a group.
//!
//! Invariant: nodes are numbered from 1, and each has at least one role. All groups have the same number of storages.
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
    /// The number of storage groups; the first storages are in the first one.
    #[serde(default = "one")]
    groups: u64,
}

fn one() -> u64 {
    1
}

impl Layout {
    /// `count` nodes with all three roles each.
    #[must_use]
    pub fn whole(count: u64) -> Self {
        let all: Vec<u64> = (1..=count).collect();
        Self { sync: all.clone(), storage: all.clone(), entry: all, groups: 1 }
    }

    /// Nodes with one role each: first `sync` sync nodes, then `storage` storages, then `entry` entries.
    ///
    /// # Errors
    /// If a role has none, or there are more than [`NODES`] in all.
    pub fn split(sync: u64, storage: u64, entry: u64) -> Result<Self> {
        ensure!(sync.min(storage).min(entry) > 0, "each role needs a node");
        // Each count is checked first, so that the sum can't overflow.
        let most = sync.max(storage).max(entry);
        ensure!(most <= NODES && sync + storage + entry <= NODES, "{NODES} nodes at most");
        Ok(Self {
            sync: (1..=sync).collect(),
            storage: (sync + 1..=sync + storage).collect(),
            entry: (sync + storage + 1..=sync + storage + entry).collect(),
            groups: 1,
        })
    }

    /// The same layout with the storages in `groups` groups. If nodes have all roles, only those of the first group are sync
    /// members.
    ///
    /// # Errors
    /// If the storages can't be divided evenly.
    pub fn grouped(self, groups: u64) -> Result<Self> {
        let storages = self.storage.len() as u64;
        ensure!(
            groups > 0 && storages.is_multiple_of(groups),
            "{storages} storages can't be in {groups} equal groups"
        );
        let split = self.is_split();
        let first = |node: &u64| split || *node <= storages / groups;
        Ok(Self { sync: self.sync.iter().copied().filter(first).collect(), groups, ..self })
    }

    /// The storage group of a node; none if there is only one, or the node is not a storage.
    #[must_use]
    pub fn group(&self, node: u64) -> Option<u64> {
        let at = self.storage.iter().position(|storage| *storage == node)? as u64;
        (self.groups > 1).then(|| at * self.groups / self.storage.len() as u64 + 1)
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

    /// Nodes that read the log, and so have the realms' state.
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
        let grouped = Layout::whole(6).grouped(2).unwrap();
        assert_eq!(grouped.of(Role::Sync), [1, 2, 3]);
        assert_eq!((grouped.of(Role::Storage).len(), grouped.of(Role::Entry).len()), (6, 6));
        assert_eq!([3, 4, 6].map(|node| grouped.group(node)), [Some(1), Some(2), Some(2)]);
        let apart = Layout::split(3, 4, 2).unwrap().grouped(2).unwrap();
        assert_eq!([3, 5, 6, 8].map(|node| apart.group(node)), [None, Some(1), Some(2), None]);
        assert_eq!((apart.of(Role::Sync).len(), whole.group(1)), (3, None));
        assert!(Layout::whole(5).grouped(2).is_err() && Layout::whole(5).grouped(0).is_err());
        for bad in [(0, 3, 3), (3, 3, 0), (3, 3, 4), (u64::MAX, 1, 1)] {
            assert!(Layout::split(bad.0, bad.1, bad.2).is_err(), "{bad:?}");
        }
    }
}

//! Bugs planted in a live cluster on purpose: the check that guards against each of them must go red.
//!
//! Invariant: a bug counts as caught only if the named check is red, the nodes confirm that they have the bug, and
//! the same seeds are green without it.
//!
//! Deliberately absent: bugs that no client can see within minutes; the router's simulation has those.

use std::path::Path;

/// The environment variable that names a node's bug. Only a router built with the feature `mutants` knows it.
pub const PLANT: &str = "VULPES_MUTANT";

/// Not a bug of the router, but of the disk under it: fifteen of sixteen syncs do nothing.
pub const LYING_DISK: &str = "LyingDisk";

/// Whether a node of the run in this folder confirms that it has the planted bug.
#[must_use]
pub fn confessed(folder: &Path, bug: &str) -> bool {
    let said = format!("vulpes: the bug {bug} is planted in this process");
    let nodes = std::fs::read_dir(folder).into_iter().flatten().flatten();
    nodes.map(|node| node.path()).any(|node| {
        let text = |name: &str| std::fs::read(node.join(name)).unwrap_or_default();
        let told = |name: &str, what: &str| String::from_utf8_lossy(&text(name)).contains(what);
        if bug == LYING_DISK {
            node.join("faults/armed").exists() && told("faults/disk", "lies")
        } else {
            told("log", &said)
        }
    })
}

/// A planted bug, and how to look for it.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// The router's name for it.
    pub bug: &'static str,
    /// The checks that guard against it: one of them must go red.
    pub checks: &'static [&'static str],
    pub workloads: &'static [&'static str],
    pub nemeses: &'static [&'static str],
    /// Most runs.
    pub budget: u64,
}

/// How long faults are injected in each run, in seconds.
pub const SECONDS: u64 = 30;

/// All of them.
pub const PLANTED: [Planted; 13] = [
    Planted {
        bug: "DispatchBeforeCommit",
        checks: &["loss", "positions", "consumers"],
        workloads: &["log", "kv"],
        nemeses: &["kill", "partition"],
        budget: 6,
    },
    Planted {
        bug: "ResumeOneTooFar",
        checks: &["sessions"],
        workloads: &["session"],
        nemeses: &[],
        budget: 2,
    },
    Planted {
        bug: "LoseWill",
        checks: &["wills"],
        workloads: &["log", "will"],
        nemeses: &["kill"],
        budget: 3,
    },
    Planted {
        bug: "RepeatWill",
        checks: &["wills"],
        workloads: &["log", "will"],
        nemeses: &[],
        budget: 2,
    },
    Planted {
        bug: "BirthBeforeWill",
        checks: &["wills"],
        workloads: &["log", "will"],
        nemeses: &[],
        budget: 2,
    },
    Planted {
        bug: "TellOldToken",
        checks: &["loss"],
        workloads: &["log", "lock"],
        nemeses: &[],
        budget: 2,
    },
    Planted {
        bug: "SkipBehindRetained",
        checks: &["retained"],
        workloads: &["retained"],
        nemeses: &[],
        budget: 2,
    },
    Planted {
        bug: "ShowRefused",
        checks: &["phantom"],
        workloads: &["log", "kv"],
        nemeses: &[],
        budget: 2,
    },
    Planted {
        bug: "ReadWithoutWaiting",
        checks: &["register"],
        workloads: &["log", "kv"],
        nemeses: &["slow"],
        budget: 3,
    },
    Planted {
        bug: "OverlookOwnSlot",
        checks: &["register"],
        workloads: &["log", "kv"],
        nemeses: &["slow"],
        // It shows only if two clients set the same value in one segment.
        budget: 10,
    },
    Planted {
        bug: "KeepCallsOfLostLinks",
        checks: &["calls"],
        workloads: &["log", "calls"],
        nemeses: &["kill"],
        budget: 3,
    },
    Planted {
        bug: "SkipFsync",
        // As below: after a power loss, what is left of the order may contradict itself.
        checks: &["loss", "convergence"],
        workloads: &["log", "kv"],
        nemeses: &["power"],
        budget: 4,
    },
    Planted {
        bug: LYING_DISK,
        // The nodes themselves find that the order contradicts itself, and refuse to continue.
        checks: &["loss", "convergence"],
        workloads: &["log", "kv"],
        nemeses: &["power"],
        budget: 4,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CHECKS;
    use crate::nemesis::NEMESES;
    use crate::workload::WORKLOADS;

    #[test]
    fn every_name_is_known() {
        for planted in PLANTED {
            let bug = planted.bug;
            for check in planted.checks {
                assert!(CHECKS.iter().any(|known| known.name == *check), "{bug}: {check}");
            }
            for workload in planted.workloads {
                assert!(WORKLOADS.iter().any(|(name, _)| name == workload), "{bug}: {workload}");
            }
            for nemesis in planted.nemeses {
                assert!(NEMESES.iter().any(|(name, ..)| name == nemesis), "{bug}: {nemesis}");
            }
        }
    }
}

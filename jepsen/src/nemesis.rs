//! The nemesis: which faults hit which nodes of a cluster, and when.
//!
//! - [`schedule`]: from a seed to a plan of faults, pure.
//! - [`arena`]: the nemesis's view of the cluster: which nodes are down, frozen, cut off. `links`: which links a partition
//!   cuts.
//! - `crowd`: clients that put a load on nodes.
//! - `damage`: damage to a disk while its node is down.
//!
//! Invariant: a fault that happens is proved by something visible from outside; a fault that can't be injected is recorded as
//! failed, never skipped silently.
//!
//! Deliberately absent: what clients do meanwhile.

pub mod arena;
mod crowd;
mod damage;
mod links;
pub mod schedule;

/// All nemeses: the name, what it does, and whether it needs a router built with the feature `faults`.
pub const NEMESES: [(&str, &str, bool); 14] = [
    ("kill", "kill -9, and a new start after a while", false),
    ("pause", "SIGSTOP for longer than a lease, then SIGCONT", false),
    ("partition", "links fall silent: halves, one node, ring, bridge, one way", false),
    ("flaky", "links lose, delay, double and reorder packets", false),
    ("restart", "rolling restart: one node after the other is stopped and started", false),
    ("power", "power loss of one node, or of all at once: unsynced data is lost or torn", true),
    ("relay", "two nodes are frozen, the third loses power and comes back, then the two lose power", true),
    ("storm", "hundreds of connections at once, that all break at once", false),
    ("deaf", "subscribers of everything that read nothing", false),
    ("corrupt", "bits flip, blocks are stale, tails are cut off on one node's disk while it is down", true),
    ("eio", "a disk that can't be read, written or synced any more; the node starts again with a good one", true),
    ("enospc", "a full disk, until there is room again", true),
    ("slow", "a disk that takes its time to sync", true),
    ("clock", "clocks that jump: back and forth, by milliseconds and by hours", true),
];

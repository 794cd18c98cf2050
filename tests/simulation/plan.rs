//! The meaning of a seed: the cluster's shape, its network and disks, the faults and their times, and how clients
//! publish.
//!
//! Invariant: pure; the same seed gives the same plan. Every fault ends by itself, and there are none after
//! [`Plan::quiet_from`].
//!
//! Deliberately absent: how to cause a fault (`cluster`).

use std::ops::RangeInclusive;
use std::time::Duration;

use vulpes_raft::host::sim::{DiskTrouble, Rot};
use vulpes_raft::ids::{Shard, Shards};

use crate::chance::Chance;
use crate::tuning::RunTuning;

/// When the last fault has ended and the rest phase begins, in milliseconds of the simulation.
const QUIET_FROM: u64 = 6_000;

/// When the first fault may begin.
const FIRST_FAULT: u64 = 400;

/// A disk rots in one of this many runs.
const ROTS: u64 = 5;

/// Segments wait for storage votes in one of this many runs.
const VOTING: u64 = 3;

/// The cluster has users, and rules that change, in one of this many runs.
const RULES: u64 = 3;

/// The error of a clock that was never set, or set to the wrong year: 400 days.
const FAR_OFF: i64 = 400 * 86_400_000;

/// Most clients with persistent sessions. There are none where there are users: their connections have user names, which would
/// need passwords.
const KEEPERS: u64 = 2;

/// The shape of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Three nodes with all roles.
    #[default]
    Whole,
    /// Three nodes that order and store, two that serve clients.
    Split,
    /// Two storage groups: three nodes that order and store, three that store and serve clients.
    Groups,
}

/// The quorum of a storage group: each has three storages.
pub(crate) const QUORUM: usize = 2;

impl Shape {
    pub(crate) fn nodes(self) -> u64 {
        match self {
            Self::Whole => 3,
            Self::Split => 5,
            Self::Groups => 6,
        }
    }

    pub(crate) fn is_entry(self, node: u64) -> bool {
        self == Self::Whole || node > 3
    }

    pub(crate) fn is_sync(self, node: u64) -> bool {
        node <= 3
    }

    /// How many nodes are storages: the first ones.
    pub(crate) fn storages(self) -> u64 {
        match self {
            Self::Whole | Self::Split => 3,
            Self::Groups => 6,
        }
    }

    /// The storage group of a node that is a storage.
    pub(crate) fn group(self, node: u64) -> u16 {
        if self.storages_of(Shard(0)).contains(&node) {
            1
        } else {
            2
        }
    }

    /// The storages that store a shard.
    pub(crate) fn storages_of(self, shard: Shard) -> RangeInclusive<u64> {
        match self {
            Self::Groups if Shards::part(1, 2).contains(shard) => 4..=6,
            Self::Whole | Self::Split | Self::Groups => 1..=3,
        }
    }

    pub(crate) fn entries(self) -> Vec<u64> {
        (1..=self.nodes()).filter(|node| self.is_entry(*node)).collect()
    }
}

/// The target of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Node(u64),
    /// The current leader of the sync group.
    Leader,
    All,
}

/// How clocks are wrong, in a plan about clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WrongClocks {
    /// One node's, by up to 400 days.
    One,
    /// All are ahead by the same amount, and corrected later. Then all nodes restart.
    All,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process ends; unsynced writes are dropped or torn. With `power`, so does its machine, silently.
    Crash { target: Target, power: bool },
    /// A node's disk is replaced with an empty one while it is down.
    Wipe { node: u64 },
    /// Something is wrong with the network.
    Cut(Cut),
    /// A node's group commits take this many times as long.
    SlowDisk { node: u64, times: u64 },
    /// A node's disk fails, and with it the node, which restarts when the disk is repaired.
    BadDisk { node: u64, trouble: DiskTrouble },
    /// A node's time of day is wrong, by milliseconds.
    WrongClock { node: u64, by: i64 },
    /// Copies a node's disk, for stale pages later.
    Remember { node: u64 },
    /// Restores the copy of a node's whole disk while the node is down.
    PutBack { node: u64 },
    /// A node's disk rots while it is down, or, if a bit of a body flips, while it runs.
    Rot { node: u64, rot: Rot },
}

/// Something that is wrong with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Two nodes can't reach each other.
    Partition { one: u64, other: u64 },
    /// What one node sends doesn't reach the other.
    OneWay { from: u64, to: u64 },
    /// A node is cut off from all other nodes; its clients still reach it.
    Isolate { target: Target },
    /// Messages between two nodes are held back, and arrive later.
    Hold { one: u64, other: u64 },
    /// Half of the clients can't reach a node, or, one way, get no answers from it.
    Unheard { node: u64, side: usize, one_way: bool },
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Episode {
    pub(crate) begins: u64,
    pub(crate) ends: u64,
    pub(crate) fault: Fault,
}

/// Everything that follows from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) shape: Shape,
    /// Shortest and longest delay of a message, in milliseconds.
    pub(crate) latency: (u64, u64),
    /// How long a lease lasts, in milliseconds.
    pub(crate) lease: u64,
    pub(crate) nodes: Vec<NodePlan>,
    /// By beginning.
    pub(crate) episodes: Vec<Episode>,
    /// The most publishes a publisher has unanswered at once.
    pub(crate) window: u64,
    /// The longest pause between two bursts of a publisher, in milliseconds.
    pub(crate) pause: u64,
    pub(crate) quiet_from: u64,
    /// How many bytes of the log are retained; `None`: all.
    pub(crate) log_size: Option<u64>,
    /// Maximum age of the retained log, in milliseconds; `None`: unlimited.
    pub(crate) age: Option<u64>,
    pub(crate) clocks: Option<WrongClocks>,
    /// How many clients have persistent sessions, which retain the part of the log that they have not read.
    pub(crate) keepers: u64,
    /// The cluster has users, and rules that change.
    pub(crate) rules: bool,
    pub(crate) tuning: RunTuning,
}

/// How a node differs from the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodePlan {
    /// How far its clock is ahead, in milliseconds.
    pub(crate) clock_ahead: i64,
    /// The longest usual group commit.
    pub(crate) commit: Duration,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let shape = match seed % 8 {
            3 | 7 => Shape::Split,
            5 => Shape::Groups,
            _ => Shape::Whole,
        };
        Self::of(shape, seed)
    }

    /// A plan with two storage groups.
    pub(crate) fn with_groups(seed: u64) -> Self {
        Self::of(Shape::Groups, seed)
    }

    fn of(shape: Shape, seed: u64) -> Self {
        let root = Chance::new(seed);
        let mut chance = root.branch(1);
        let fastest = chance.between(0, 2);
        let latency = (fastest, fastest + chance.pick(&[2, 8, 30]));
        let mut node = || NodePlan {
            clock_ahead: chance.below(600_000) as i64 - 300_000,
            commit: Duration::from_micros(chance.pick(&[500, 2_000, 8_000])),
        };
        let nodes = (0..shape.nodes()).map(|_| node()).collect();
        let mut episodes = crashes(&mut root.branch(2), shape);
        episodes.extend(partitions(&mut root.branch(3), shape));
        episodes.extend(slow_disks(&mut root.branch(4), shape));
        episodes.extend(bad_disks(&mut root.branch(6), shape));
        episodes.extend(wrong_clocks(&mut root.branch(7), shape));
        episodes.extend(rot(&mut root.branch(9), shape));
        episodes.sort_by_key(|episode| episode.begins);
        let mut tuning = RunTuning::new(&mut root.branch(8));
        tuning.spare(lost(&episodes));
        // With several groups, the sync members are never the storages.
        if root.branch(10).one_in(VOTING) || shape == Shape::Groups {
            tuning = tuning.voting();
        }
        let rules = root.branch(11).one_in(RULES);
        Self {
            seed,
            shape,
            latency,
            lease: chance.pick(&[600, 1_000, 2_000]),
            nodes,
            episodes,
            window: chance.pick(&[2, 6, 12]),
            pause: chance.pick(&[100, 200, 400]),
            quiet_from: QUIET_FROM,
            log_size: (seed % 5 == 2).then(|| log_size(&root)),
            age: None,
            clocks: None,
            keepers: if rules { 0 } else { KEEPERS },
            rules,
            tuning,
        }
    }

    /// A plan in which segments wait for storage votes.
    pub(crate) fn with_votes(seed: u64) -> Self {
        Self::new(seed).voting()
    }

    /// A plan in which rules change.
    pub(crate) fn with_rules(seed: u64) -> Self {
        Self { rules: true, keepers: 0, ..Self::new(seed) }
    }

    /// The same plan where segments wait for storage votes.
    pub(crate) fn voting(self) -> Self {
        Self { tuning: self.tuning.voting(), ..self }
    }

    /// A plan in which little of the log is retained; in every other such plan no persistent session holds it back.
    pub(crate) fn with_retention(seed: u64) -> Self {
        Self::new(seed).retaining()
    }

    fn retaining(mut self) -> Self {
        self.log_size = Some(log_size(&Chance::new(self.seed)));
        self.keepers *= self.seed % 2;
        self
    }

    /// A plan in which clocks are wrong by 400 days and the log is retained for a second and a half.
    pub(crate) fn with_wrong_clocks(seed: u64) -> Self {
        let mut plan = Self { rules: false, ..Self::of(Shape::Whole, seed) };
        let mut chance = plan.chance(305);
        let others = |fault| {
            !matches!(fault, Fault::Rot { .. } | Fault::Remember { .. } | Fault::WrongClock { .. })
        };
        plan.episodes.retain(|episode| others(episode.fault));
        for node in &mut plan.nodes {
            node.clock_ahead = chance.below(50) as i64;
        }
        if chance.one_in(2) {
            plan.clocks = Some(WrongClocks::One);
            let node = chance.between(1, 3);
            plan.episodes.extend(lane(&mut chance, (50, 1_000), (200, 4_000), |chance| {
                let by = chance.pick(&[-FAR_OFF, FAR_OFF, FAR_OFF, 3_600_000]);
                Fault::WrongClock { node, by }
            }));
        } else {
            plan.clocks = Some(WrongClocks::All);
            let ends = chance.between(1_000, 3_000);
            plan.episodes.extend((1..=3).map(|node| {
                let fault = Fault::WrongClock { node, by: FAR_OFF };
                Episode { begins: 0, ends, fault }
            }));
            let begins = chance.between(3_100, 4_000);
            let fault = Fault::Crash { target: Target::All, power: true };
            plan.episodes.push(Episode { begins, ends: begins + 300, fault });
        }
        plan.episodes.sort_by_key(|episode| episode.begins);
        (plan.log_size, plan.age, plan.keepers) = (None, Some(1_500), 0);
        plan.quiet_from = 2 * QUIET_FROM;
        plan
    }

    /// A plan in which a node is away for longer than the log is retained, and nothing else goes wrong but partitions.
    pub(crate) fn with_absence(seed: u64) -> Self {
        Self::of(Shape::Whole, seed * 4).retaining().lacking_one()
    }

    /// The same with two storage groups.
    pub(crate) fn with_absence_and_groups(seed: u64) -> Self {
        Self::with_groups(seed).retaining().lacking_one()
    }

    fn lacking_one(self) -> Self {
        let mut plan = self;
        let mut chance = plan.chance(203);
        plan.keepers = 0;
        plan.episodes.retain(|episode| matches!(episode.fault, Fault::Cut(_)));
        let target = Target::Node(chance.between(1, plan.shape.storages()));
        let fault = Fault::Crash { target, power: chance.one_in(2) };
        plan.episodes.push(Episode { begins: chance.between(500, 1_500), ends: 5_500, fault });
        plan.episodes.sort_by_key(|episode| episode.begins);
        plan
    }

    /// A plan in which entries lose their incarnations all the time, with no other faults but crashes and partitions.
    pub(crate) fn with_short_leases(seed: u64) -> Self {
        let mut plan = Self::new(seed);
        plan.lease = 150;
        plan.tuning = RunTuning::with_late_answers();
        let chosen = |fault| matches!(fault, Fault::Cut(_) | Fault::Crash { .. });
        plan.episodes.retain(|episode| chosen(episode.fault));
        plan
    }

    /// A plan in which a bit of a body flips on a disk that is used.
    pub(crate) fn with_rot(seed: u64) -> Self {
        let mut chance = Chance::new(seed).branch(302);
        let begins = chance.between(1_500, 5_500);
        let fault = Fault::Rot { node: chance.between(1, 3), rot: Rot::Run };
        Self::new(seed).rotting(vec![Episode { begins, ends: begins, fault }])
    }

    /// A plan in which a node comes back with a database as it was a while ago.
    pub(crate) fn with_backup(seed: u64) -> Self {
        let mut chance = Chance::new(seed).branch(304);
        let node = chance.between(1, 3);
        let (copied, begins) = (chance.between(800, 2_500), chance.between(3_000, 5_000));
        let copy = Episode { begins: copied, ends: copied, fault: Fault::Remember { node } };
        let fault = Fault::Rot { node, rot: Rot::Older };
        Self::new(seed).rotting(vec![copy, Episode { begins, ends: begins + 200, fault }])
    }

    /// A plan in which a node comes back with a copy of its whole folder from a while ago.
    pub(crate) fn with_older_folder(seed: u64) -> Self {
        let mut chance = Chance::new(seed).branch(306);
        let node = chance.between(1, 3);
        let (copied, begins) = (chance.between(800, 1_500), chance.between(4_000, 5_000));
        let copy = Episode { begins: copied, ends: copied, fault: Fault::Remember { node } };
        let fault = Fault::PutBack { node };
        Self::new(seed).rotting(vec![copy, Episode { begins, ends: begins + 200, fault }])
    }

    /// The plan with these episodes as its only disk rot.
    fn rotting(mut self, rot: Vec<Episode>) -> Self {
        let others = |fault| !matches!(fault, Fault::Rot { .. } | Fault::Remember { .. });
        self.episodes.retain(|episode| others(episode.fault));
        self.episodes.extend(rot);
        self.episodes.sort_by_key(|episode| episode.begins);
        self.tuning.spare(lost(&self.episodes));
        self
    }

    /// A plan in which one storage of three loses its disk, and nothing else goes wrong but partitions.
    pub(crate) fn with_wiped_disk(seed: u64) -> Self {
        Self::of(Shape::Whole, seed * 4).losing_one()
    }

    /// The same with two storage groups.
    pub(crate) fn with_wiped_disk_and_groups(seed: u64) -> Self {
        Self::with_groups(seed).losing_one()
    }

    fn losing_one(self) -> Self {
        let mut plan = self;
        plan.log_size = None;
        let mut chance = plan.chance(201);
        plan.episodes.retain(|episode| matches!(episode.fault, Fault::Cut(_)));
        let begins = chance.between(1_000, 4_000);
        let fault = Fault::Wipe { node: chance.between(1, plan.shape.storages()) };
        plan.episodes.push(Episode { begins, ends: begins + chance.between(50, 1_000), fault });
        plan.episodes.sort_by_key(|episode| episode.begins);
        plan.tuning.spare(lost(&plan.episodes));
        plan
    }

    /// The node whose disk rots, if one does.
    pub(crate) fn rots(&self) -> Option<u64> {
        lost(&self.episodes).filter(|_| self.wiped().is_none())
    }

    /// The node whose disk is wiped, if one is.
    pub(crate) fn wiped(&self) -> Option<u64> {
        self.episodes.iter().find_map(|episode| match episode.fault {
            Fault::Wipe { node } => Some(node),
            _ => None,
        })
    }

    /// The nodes that have to serve clients in the end.
    pub(crate) fn serving(&self) -> Vec<u64> {
        let entries = self.shape.entries().into_iter();
        entries.filter(|node| Some(*node) != self.wiped()).collect()
    }

    /// Randomness for a purpose with a number above those used here.
    pub(crate) fn chance(&self, purpose: u64) -> Chance {
        Chance::new(self.seed).branch(100 + purpose)
    }
}

/// The node whose disk may be lost for good.
fn lost(episodes: &[Episode]) -> Option<u64> {
    episodes.iter().find_map(|episode| match episode.fault {
        Fault::Rot { node, .. } | Fault::PutBack { node } | Fault::Wipe { node } => Some(node),
        _ => None,
    })
}

fn log_size(root: &Chance) -> u64 {
    root.branch(5).pick(&[10 << 10, 20 << 10, 50 << 10])
}

/// Episodes one after the other, with pauses between them.
fn lane(
    chance: &mut Chance,
    pause: (u64, u64),
    length: (u64, u64),
    mut fault: impl FnMut(&mut Chance) -> Fault,
) -> Vec<Episode> {
    let mut episodes = Vec::new();
    let mut begins = FIRST_FAULT + chance.below(pause.1);
    loop {
        let ends = begins + chance.between(length.0, length.1);
        if ends > QUIET_FROM {
            return episodes;
        }
        episodes.push(Episode { begins, ends, fault: fault(chance) });
        begins = ends + chance.between(pause.0, pause.1);
    }
}

fn crashes(chance: &mut Chance, shape: Shape) -> Vec<Episode> {
    lane(chance, (300, 1_800), (50, 1_500), |chance| {
        let target = match chance.below(10) {
            0..=4 => Target::Node(chance.between(1, shape.nodes())),
            5..=7 => Target::Leader,
            _ => Target::All,
        };
        Fault::Crash { target, power: chance.one_in(2) }
    })
}

fn partitions(chance: &mut Chance, shape: Shape) -> Vec<Episode> {
    lane(chance, (100, 1_500), (50, 2_000), |chance| {
        let one = chance.between(1, shape.nodes());
        let other = (one + chance.between(1, shape.nodes() - 1) - 1) % shape.nodes() + 1;
        Fault::Cut(match chance.below(9) {
            0 => Cut::Partition { one, other },
            1 | 2 => Cut::OneWay { from: one, to: other },
            3 => Cut::Isolate { target: Target::Node(one) },
            4 | 5 => Cut::Isolate { target: Target::Leader },
            6 => {
                let side = chance.below(2) as usize;
                Cut::Unheard { node: one, side, one_way: chance.one_in(2) }
            }
            _ => Cut::Hold { one, other },
        })
    })
}

fn slow_disks(chance: &mut Chance, shape: Shape) -> Vec<Episode> {
    lane(chance, (500, 3_000), (200, 2_000), |chance| Fault::SlowDisk {
        node: chance.between(1, shape.storages()),
        times: chance.pick(&[5, 20, 60]),
    })
}

fn bad_disks(chance: &mut Chance, shape: Shape) -> Vec<Episode> {
    lane(chance, (1_500, 6_000), (50, 1_000), |chance| Fault::BadDisk {
        node: chance.between(1, shape.storages()),
        trouble: chance.pick(&[DiskTrouble::Broken, DiskTrouble::Full]),
    })
}

fn wrong_clocks(chance: &mut Chance, shape: Shape) -> Vec<Episode> {
    lane(chance, (200, 3_000), (50, 2_000), |chance| Fault::WrongClock {
        node: chance.between(1, shape.nodes()),
        by: chance.pick(&[-3_600_000, -60_000, -1_000, 1_000, 60_000, 3_600_000]),
    })
}

/// One disk rots in some runs. It is a minority, because its contents can't be recovered.
fn rot(chance: &mut Chance, shape: Shape) -> Vec<Episode> {
    if !chance.one_in(ROTS) {
        return Vec::new();
    }
    let node = chance.between(1, shape.storages());
    let rot = chance.pick(&[Rot::Bits, Rot::Stale, Rot::Tail, Rot::Older, Rot::Run, Rot::Run]);
    let remembered = chance.between(FIRST_FAULT, 2_000);
    let begins = remembered + chance.between(100, 3_000);
    let ends = begins + chance.between(50, 900);
    vec![
        Episode { begins: remembered, ends: remembered, fault: Fault::Remember { node } },
        Episode { begins, ends, fault: Fault::Rot { node, rot } },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_has_faults_and_ends_them() {
        let mut crashed = 0;
        for seed in 0..500 {
            let plan = Plan::new(seed);
            assert!(plan.episodes.len() >= 3, "seed {seed}: {plan:?}");
            assert!(plan.episodes.iter().all(|episode| episode.ends <= plan.quiet_from));
            let is_crash = |episode: &Episode| matches!(episode.fault, Fault::Crash { .. });
            crashed += u64::from(plan.episodes.iter().any(is_crash));
            for episode in &plan.episodes {
                if let Fault::Cut(Cut::Partition { one, other } | Cut::Hold { one, other }) =
                    episode.fault
                {
                    assert!(one != other && other >= 1 && other <= plan.shape.nodes());
                }
            }
        }
        assert_eq!(crashed, 500);
    }
}

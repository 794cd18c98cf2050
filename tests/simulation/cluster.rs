//! The simulated cluster and its faults.
//!
//! Invariant: every fault can be ended, and ends only itself: two cuts never overlap, and a crash leaves existing
//! ones as they are.
//!
//! Deliberately absent: a node's inside (`node`), and observing what nodes show (`observe`).

use std::sync::atomic::Ordering;
use std::time::Duration;

use turmoil::Sim;
use vulpes_raft::host::sim::Rot;

use crate::chance::Chance;
use crate::node::{name, Simulated};
use crate::plan::{self, Fault, Plan, Target};
use crate::record::Record;

/// The hosts that clients run on.
pub(crate) const CLIENTS: [&str; 2] = ["east", "west"];

/// More slots than the order's record of a node's progress may lag behind, since it is updated every second.
const MUCH: u64 = 60;

/// A node that has run this long has reported its progress after the restart, and the order has recorded it.
const SETTLED: Duration = Duration::from_secs(2);

/// All nodes, and their current faults.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Simulated>,
    chance: Chance,
    /// Pairs of hosts between which something is wrong.
    cuts: Vec<Cut>,
    /// Nodes keep few slots in memory.
    pub(crate) forgetful: bool,
}

struct Cut {
    one: String,
    other: String,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Both,
    OneWay,
    Hold,
}

/// A fault in progress, to be ended.
pub(crate) enum Ongoing {
    Crashed(Vec<u64>),
    Cut,
    Slow(u64),
    BadDisk(u64),
    WrongClock(u64),
    /// It is over, or never ends.
    Over,
}

impl Cluster {
    /// Adds the plan's nodes to a simulation.
    pub(crate) fn new(sim: &mut Sim<'_>, plan: &Plan) -> Self {
        let nodes = plan.nodes.iter().zip(1..);
        let nodes = nodes.map(|(node_plan, id)| Simulated::new(sim, plan, id, *node_plan));
        let forgetful = plan.tuning.is_forgetful();
        Self { nodes: nodes.collect(), chance: plan.chance(200), cuts: Vec::new(), forgetful }
    }

    fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    fn node(&mut self, id: u64) -> &mut Simulated {
        &mut self.nodes[id as usize - 1]
    }

    /// The leader of the sync group, according to its newest leader.
    pub(crate) fn leader(&self) -> Option<u64> {
        let statuses = self.nodes.iter().filter_map(|node| Some(node.handles()?.sync?.status()));
        let leaders = statuses.filter(|status| status.leader == Some(status.node));
        leaders.max_by_key(|status| status.term).map(|status| status.node.0)
    }

    fn targets(&mut self, target: Target) -> Vec<u64> {
        match target {
            Target::Node(node) => vec![node],
            Target::All => self.ids(),
            Target::Leader => {
                let leader = self.leader();
                vec![leader.unwrap_or_else(|| self.chance.between(1, 3))]
            }
        }
    }

    /// Starts a fault.
    pub(crate) fn begin(
        &mut self,
        sim: &mut Sim<'_>,
        fault: Fault,
        record: &mut Record,
    ) -> Ongoing {
        record.trace(|| format!("{fault:?} begins"));
        match fault {
            Fault::Crash { target, power } => {
                let mut targets = self.targets(target);
                targets.retain(|node| !self.nodes[*node as usize - 1].crashed);
                record.trace(|| format!("crash of {targets:?}"));
                record.counts.crashes += targets.len() as u64;
                targets.iter().for_each(|node| self.crash(sim, *node, power));
                Ongoing::Crashed(targets)
            }
            Fault::Wipe { node } => {
                record.counts.crashes += 1;
                self.crash(sim, node, true);
                let node = self.node(node);
                node.disk.wipe();
                node.wiped = true;
                Ongoing::Crashed(vec![node.id])
            }
            Fault::Cut(cut) => {
                record.counts.cuts += 1;
                let cuts = self.cuts_of(cut);
                self.cut(sim, cuts);
                Ongoing::Cut
            }
            Fault::SlowDisk { node, times } => {
                self.node(node).slowness.store(times, Ordering::Relaxed);
                Ongoing::Slow(node)
            }
            Fault::BadDisk { node, trouble } => {
                let node = self.node(node);
                node.disk.trouble(Some(trouble));
                node.doomed = true;
                Ongoing::BadDisk(node.id)
            }
            Fault::Remember { node } => {
                self.node(node).disk.remember();
                self.node(node).remembered = record.log.len();
                Ongoing::Over
            }
            Fault::PutBack { node } => self.put_back(sim, node, record),
            Fault::Rot { node, rot } => self.rot(sim, node, rot, record),
            Fault::WrongClock { node, by } => {
                record.counts.clocks += 1;
                self.node(node).wrong.store(by, Ordering::Relaxed);
                Ongoing::WrongClock(node)
            }
        }
    }

    fn rot(&mut self, sim: &mut Sim<'_>, id: u64, rot: Rot, record: &mut Record) -> Ongoing {
        let seed = self.chance.next();
        if rot != Rot::Run && record.log.len() == 0 {
            // A cluster that has never been complete waits for each of its nodes, so none may be lost yet.
            return Ongoing::Over;
        }
        if self.node(id).crashed {
            // It is down for another reason, and comes back when that ends.
            self.node(id).rot(rot, seed, record);
            return Ongoing::Over;
        }
        if rot == Rot::Run {
            self.node(id).rot(rot, seed, record);
            return Ongoing::Over;
        }
        record.counts.crashes += 1;
        self.crash(sim, id, true);
        self.node(id).rot(rot, seed, record);
        Ongoing::Crashed(vec![id])
    }

    fn put_back(&mut self, sim: &mut Sim<'_>, id: u64, record: &mut Record) -> Ongoing {
        let ends_here = !self.node(id).crashed;
        if ends_here {
            record.counts.crashes += 1;
            self.crash(sim, id, true);
        }
        let now = sim.elapsed();
        let node = self.node(id);
        if node.remembered > 0 && node.disk.put_back() {
            (node.rotten, node.put_back) = (true, true);
            let settled = now.saturating_sub(node.runs_since) >= SETTLED;
            node.older = settled && record.log.len() > node.remembered + MUCH;
            record.counts.rotten += 1;
        }
        if ends_here {
            Ongoing::Crashed(vec![id])
        } else {
            Ongoing::Over
        }
    }

    /// Ends a fault.
    pub(crate) fn end(&mut self, sim: &mut Sim<'_>, ongoing: Ongoing, record: &mut Record) {
        match ongoing {
            Ongoing::Crashed(nodes) => {
                record.trace(|| format!("restart of {nodes:?}"));
                nodes.iter().for_each(|node| self.node(*node).restart(sim));
            }
            Ongoing::Cut => {
                record.trace(|| "the network heals".into());
                self.cut(sim, Vec::new());
            }
            Ongoing::Slow(node) => {
                record.trace(|| format!("the disk of {node} is as fast as before"));
                self.node(node).slowness.store(1, Ordering::Relaxed);
            }
            Ongoing::BadDisk(node) => {
                record.trace(|| format!("the disk of {node} is mended"));
                let node = self.node(node);
                node.disk.trouble(None);
                node.doomed = false;
                if std::mem::take(&mut node.buried) {
                    node.restart(sim);
                }
            }
            Ongoing::WrongClock(node) => {
                record.trace(|| format!("the clock of {node} is right again"));
                self.node(node).wrong.store(0, Ordering::Relaxed);
            }
            Ongoing::Over => {}
        }
    }

    /// Ends the nodes whose disks have failed, as their processes would by themselves. A node whose disk has rotted stays down,
    /// as an operator would leave it.
    pub(crate) fn bury(&mut self, sim: &mut Sim<'_>, record: &mut Record) {
        let dead = self.nodes.iter().filter(|node| !node.crashed && node.is_dying());
        for id in dead.map(|node| node.id).collect::<Vec<_>>() {
            let reason = self.node(id).reason().unwrap_or_default();
            record.trace(|| format!("node {id} ends because its disk has failed: {reason}"));
            self.crash(sim, id, false);
            let node = self.node(id);
            node.buried = node.doomed || !node.rotten;
            if !node.buried {
                record.check(says_so(id, &reason));
                record.retired.push(id);
                record.counts.retired += 1;
            } else {
                record.counts.broken += 1;
            }
        }
    }

    /// Restarts the nodes that were away for longer than the log is retained, as their process would.
    pub(crate) fn start_again(&mut self, sim: &mut Sim<'_>, record: &mut Record) {
        let left_behind = self.nodes.iter().filter(|node| !node.crashed && node.is_left_behind());
        for id in left_behind.map(|node| node.id).collect::<Vec<_>>() {
            record.trace(|| format!("node {id} was left behind and starts again"));
            record.counts.left_behind += 1;
            self.crash(sim, id, false);
            self.node(id).restart(sim);
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, id: u64, power: bool) {
        let seed = self.chance.next();
        let others = self.everybody_but(id);
        let node = self.node(id);
        others.iter().for_each(|other| sim.partition(node.name.as_str(), other.as_str()));
        node.crash(sim, seed);
        others.iter().for_each(|other| sim.release(node.name.as_str(), other.as_str()));
        if !power {
            node.start_idle(sim);
        }
        self.apply_cuts(sim);
    }

    fn everybody_but(&self, id: u64) -> Vec<String> {
        let others = self.nodes.iter().filter(|node| node.id != id);
        let others = others.map(|node| node.name.clone());
        others.chain(CLIENTS.map(str::to_owned)).collect()
    }

    fn cuts_of(&mut self, cut: plan::Cut) -> Vec<Cut> {
        let nodes = |one, other, kind| Cut { one: name(one), other: name(other), kind };
        match cut {
            plan::Cut::Partition { one, other } => vec![nodes(one, other, Kind::Both)],
            plan::Cut::OneWay { from, to } => vec![nodes(from, to, Kind::OneWay)],
            plan::Cut::Hold { one, other } => vec![nodes(one, other, Kind::Hold)],
            plan::Cut::Isolate { target } => {
                let alone = self.targets(target)[0];
                let others = self.ids().into_iter().filter(|other| *other != alone);
                others.map(|other| nodes(alone, other, Kind::Both)).collect()
            }
            plan::Cut::Unheard { node, side, one_way } => {
                let kind = if one_way { Kind::OneWay } else { Kind::Both };
                vec![Cut { one: name(node), other: CLIENTS[side].to_owned(), kind }]
            }
        }
    }

    fn cut(&mut self, sim: &Sim<'_>, cuts: Vec<Cut>) {
        for cut in std::mem::replace(&mut self.cuts, cuts) {
            sim.release(cut.one, cut.other);
        }
        self.apply_cuts(sim);
    }

    fn apply_cuts(&self, sim: &Sim<'_>) {
        for Cut { one, other, kind } in &self.cuts {
            match kind {
                Kind::Both => sim.partition(one.as_str(), other.as_str()),
                Kind::OneWay => sim.partition_oneway(one.as_str(), other.as_str()),
                Kind::Hold => sim.hold(one.as_str(), other.as_str()),
            }
        }
    }
}

/// Checks that a node that does not start because its disk has rotted reports the damage.
fn says_so(id: u64, reason: &str) -> Result<(), String> {
    if reason.contains("does not start") && !reason.contains("damaged") {
        return Err(format!("node {id} does not say that its disk has rotted: {reason}"));
    }
    Ok(())
}

//! The simulated cluster: nodes on turmoil hosts, what goes wrong with them, and what they show.
//!
//! Checked here, of DESIGN.md section 6: the storages that a resolution names as its voters hold the body, now and
//! after every restart (3, 5); a node comes back from every crash (5) and never ends by itself.
//!
//! Invariant: nodes are the production code behind [`Node::start`]; only their edges are simulated. What a dying node
//! still has open can't reach its disk.
//!
//! Deliberately absent: what has to hold of the order (`log`) and of its clients (`record`).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use turmoil::Sim;
use vulpes::config::{Address, Listen, Member, NodeConfig, Role, Timing};
use vulpes::log::{Log, Placed};
use vulpes::segment::{checksum, Segment};
use vulpes::server::Node;
use vulpes::storage::Storage;
use vulpes::topic::Realm;
use vulpes_raft::host::{CommitMode, Host};
use vulpes_raft::ids::{NodeId, Slot};
use vulpes_raft::node::SyncNode;
use vulpes_raft::order::{SealedSegment, Step};
use vulpes_raft::sim::{self, SimConfig, SimDisk};

use crate::chance::Chance;
use crate::connection::{MQTT_PORT, WAMP_PORT};
use crate::plan::{Fault, NodePlan, Plan, Shape, Target};
use crate::record::Record;

const PEER_PORT: u16 = 1735;

/// The longest a group commit takes on the slowest disk.
const SLOWEST_COMMIT: Duration = Duration::from_millis(1_500);

/// The hosts that clients run on.
pub(crate) const CLIENTS: [&str; 2] = ["east", "west"];

/// A node's name in the simulated network.
pub(crate) fn name(node: u64) -> String {
    format!("node-{node}")
}

/// What can be seen of a node from outside of it.
#[derive(Default)]
enum Probe {
    /// Not started, or starting.
    #[default]
    Down,
    Running(Handles),
    /// It did not start.
    Failed(String),
}

#[derive(Clone)]
struct Handles {
    log: Log,
    sync: Option<SyncNode>,
    storage: Option<Storage>,
}

/// One node.
struct Simulated {
    id: u64,
    name: String,
    disk: SimDisk,
    probe: Arc<Mutex<Probe>>,
    /// How many times as long its group commits take.
    slowness: Arc<AtomicU64>,
    /// Its machine runs, and the node doesn't.
    idle: Arc<AtomicBool>,
    /// The slot it shows next, while it runs.
    next: Option<Slot>,
    crashed: bool,
}

impl Simulated {
    fn handles(&self) -> Option<Handles> {
        match &*self.probe.lock().unwrap_or_else(PoisonError::into_inner) {
            Probe::Running(handles) => Some(handles.clone()),
            Probe::Down | Probe::Failed(_) => None,
        }
    }

    fn failure(&self) -> Option<String> {
        match &*self.probe.lock().unwrap_or_else(PoisonError::into_inner) {
            Probe::Failed(reason) => Some(format!("does not start: {reason}")),
            Probe::Down | Probe::Running(_) => self.disk.death(),
        }
    }

    fn storage(&self) -> Option<Storage> {
        self.handles()?.storage
    }
}

/// All nodes, and what is wrong with them just now.
pub(crate) struct Cluster {
    nodes: Vec<Simulated>,
    chance: Chance,
    /// Pairs of nodes between which something is wrong.
    cuts: Vec<(u64, u64, Cut)>,
}

#[derive(Clone, Copy)]
enum Cut {
    Both,
    OneWay,
    Hold,
}

/// A fault that was brought about, to be ended.
pub(crate) enum Ongoing {
    Crashed(Vec<u64>),
    Cut,
    Slow(u64),
}

impl Cluster {
    /// Adds the plan's nodes to a simulation.
    pub(crate) fn new(sim: &mut Sim<'_>, plan: &Plan) -> Self {
        let node = |(at, node_plan): (usize, &NodePlan)| {
            let id = at as u64 + 1;
            let simulated = Simulated {
                id,
                name: name(id),
                disk: SimDisk::new(),
                probe: Arc::default(),
                slowness: Arc::new(AtomicU64::new(1)),
                idle: Arc::default(),
                next: None,
                crashed: false,
            };
            add(sim, plan, *node_plan, &simulated);
            simulated
        };
        let nodes = plan.nodes.iter().enumerate().map(node).collect();
        Self { nodes, chance: plan.chance(200), cuts: Vec::new() }
    }

    fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    fn node(&mut self, id: u64) -> &mut Simulated {
        &mut self.nodes[id as usize - 1]
    }

    /// Who leads the sync group, as far as its newest leader knows.
    fn leader(&self) -> Option<u64> {
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

    /// Brings a fault about.
    pub(crate) fn begin(
        &mut self,
        sim: &mut Sim<'_>,
        fault: Fault,
        record: &mut Record,
    ) -> Ongoing {
        let cut = |record: &mut Record| {
            record.counts.cuts += 1;
            Ongoing::Cut
        };
        match fault {
            Fault::Crash { target, power } => {
                let mut targets = self.targets(target);
                targets.retain(|node| !self.nodes[*node as usize - 1].crashed);
                record.trace(|| format!("crash of {targets:?}, power cut: {power}"));
                record.counts.crashes += targets.len() as u64;
                targets.iter().for_each(|node| self.crash(sim, *node, power));
                Ongoing::Crashed(targets)
            }
            Fault::Partition { one, other } => {
                record.trace(|| format!("partition of {one} and {other}"));
                self.cut(sim, vec![(one, other, Cut::Both)]);
                cut(record)
            }
            Fault::OneWay { from, to } => {
                record.trace(|| format!("one-way partition from {from} to {to}"));
                self.cut(sim, vec![(from, to, Cut::OneWay)]);
                cut(record)
            }
            Fault::Hold { one, other } => {
                record.trace(|| format!("hold between {one} and {other}"));
                self.cut(sim, vec![(one, other, Cut::Hold)]);
                cut(record)
            }
            Fault::Isolate { target } => {
                let targets = self.targets(target);
                record.trace(|| format!("isolation of {targets:?}"));
                let alone = targets[0];
                let others = self.ids().into_iter().filter(|other| *other != alone);
                self.cut(sim, others.map(|other| (alone, other, Cut::Both)).collect());
                cut(record)
            }
            Fault::SlowDisk { node, times } => {
                record.trace(|| format!("disk of {node} is {times} times slower"));
                self.node(node).slowness.store(times, Ordering::Relaxed);
                Ongoing::Slow(node)
            }
        }
    }

    /// Ends a fault.
    pub(crate) fn end(&mut self, sim: &mut Sim<'_>, ongoing: Ongoing, record: &mut Record) {
        match ongoing {
            Ongoing::Crashed(nodes) => {
                record.trace(|| format!("restart of {nodes:?}"));
                for id in nodes {
                    let node = self.node(id);
                    node.crashed = false;
                    if node.idle.swap(false, Ordering::Relaxed) {
                        sim.crash(node.name.as_str());
                    }
                    sim.bounce(node.name.as_str());
                }
            }
            Ongoing::Cut => {
                record.trace(|| "the network heals".into());
                self.cut(sim, Vec::new());
            }
            Ongoing::Slow(node) => self.node(node).slowness.store(1, Ordering::Relaxed),
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, id: u64, power: bool) {
        let seed = self.chance.next();
        let others = self.everybody_but(id);
        let node = self.node(id);
        // A crash drops the node's tasks in an order that depends on other tests of this process. Cut off, none of them
        // can say goodbye, and the order doesn't matter.
        others.iter().for_each(|other| sim.partition(node.name.as_str(), other.as_str()));
        node.disk.crash(seed);
        node.crashed = true;
        node.next = None;
        *node.probe.lock().unwrap_or_else(PoisonError::into_inner) = Probe::Down;
        sim.crash(node.name.as_str());
        others.iter().for_each(|other| sim.release(node.name.as_str(), other.as_str()));
        if !power {
            // The machine is still there, and answers what comes for its dead process with a reset.
            node.idle.store(true, Ordering::Relaxed);
            sim.bounce(node.name.as_str());
        }
        self.apply_cuts(sim);
    }

    fn everybody_but(&self, id: u64) -> Vec<String> {
        let others = self.nodes.iter().filter(|node| node.id != id);
        let others = others.map(|node| node.name.clone());
        others.chain(CLIENTS.map(str::to_owned)).collect()
    }

    fn cut(&mut self, sim: &Sim<'_>, cuts: Vec<(u64, u64, Cut)>) {
        for (one, other, _) in std::mem::replace(&mut self.cuts, cuts) {
            sim.release(name(one), name(other));
        }
        self.apply_cuts(sim);
    }

    fn apply_cuts(&self, sim: &Sim<'_>) {
        for (one, other, cut) in &self.cuts {
            match cut {
                Cut::Both => sim.partition(name(*one), name(*other)),
                Cut::OneWay => sim.partition_oneway(name(*one), name(*other)),
                Cut::Hold => sim.hold(name(*one), name(*other)),
            }
        }
    }

    /// Looks at what every node shows, after each step of the simulation.
    pub(crate) fn observe(&mut self, record: &mut Record) {
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            let id = node.id;
            if let Some(reason) = node.failure() {
                record.check(Err(format!("node {id}: {reason}")));
                return;
            }
            let Some(handles) = node.handles() else { continue };
            let next = match node.next {
                Some(next) => next,
                None => {
                    record.trace(|| format!("node {id} runs"));
                    record.check(came_back(id, &handles, record_of(record)));
                    let shown = stored(&handles);
                    record.check(
                        shown.as_ref().map(|_| ()).map_err(|error| format!("node {id}: {error}")),
                    );
                    shown
                        .unwrap_or_default()
                        .iter()
                        .for_each(|placed| self.show(id, placed, record));
                    beginning(&handles.log)
                }
            };
            let mut next = next;
            while next < handles.log.tail().next_slot {
                match handles.log.recent(next) {
                    Some(placed) => self.show(id, &placed, record),
                    None => record.check(Err(format!("node {id} does not show slot {next}"))),
                }
                next = next.next();
            }
            self.nodes[at].next = Some(next);
        }
    }

    fn show(&self, id: u64, placed: &Placed, record: &mut Record) {
        for sealed in record.shown(id, placed) {
            for voter in &sealed.votes {
                let storage = self.nodes.get(voter.0 as usize - 1).and_then(Simulated::storage);
                record.check(storage.map_or(Ok(()), |storage| holds(voter.0, &storage, &sealed)));
            }
        }
    }

    /// What the nodes still have to do, after things went wrong last.
    pub(crate) fn unfinished(&self, record: &Record) -> Option<String> {
        let all = Slot(record.log.len());
        self.nodes.iter().find_map(|node| {
            let id = node.id;
            let Some(handles) = node.handles() else {
                return Some(format!("node {id} does not run"));
            };
            let tail = handles.log.tail();
            if tail.next_slot != all.next() {
                return Some(format!("node {id} goes on at slot {}, all is {all}", tail.next_slot));
            }
            let indexed = handles.storage.map(|storage| *storage.indexed().borrow());
            indexed.filter(|indexed| *indexed != all).map(|indexed| {
                format!("the storage of node {id} has slots up to {indexed}, all is {all}")
            })
        })
    }

    /// What every storage holds in the end.
    pub(crate) fn verdict(&self, record: &mut Record) {
        for node in &self.nodes {
            let Some(handles) = node.handles() else { continue };
            if handles.storage.is_none() {
                continue;
            }
            let id = node.id;
            record.check(came_back(id, &handles, record_of(record)));
            match stored(&handles) {
                Ok(placed) if placed.len() as u64 == record.log.len() => {
                    placed.iter().for_each(|placed| self.show(id, placed, record));
                }
                Ok(placed) => {
                    let reason = format!("storage {id} has {} slots in the end", placed.len());
                    record.check(Err(reason));
                }
                Err(error) => record.check(Err(format!("storage {id}: {error}"))),
            }
        }
    }
}

/// All segments that are known to be resolved.
fn record_of(record: &Record) -> Vec<SealedSegment> {
    let sealed = record.log.slots().iter().filter_map(|slot| match &slot.step {
        Step::Segment(sealed) => Some(sealed.clone()),
        Step::Opened { .. } | Step::Closed { .. } => None,
    });
    sealed.collect()
}

/// A storage that comes back has every body that it voted for.
fn came_back(id: u64, handles: &Handles, resolved: Vec<SealedSegment>) -> Result<(), String> {
    let Some(storage) = &handles.storage else { return Ok(()) };
    let voted = resolved.iter().filter(|sealed| sealed.votes.contains(&NodeId(id)));
    voted.into_iter().try_for_each(|sealed| holds(id, storage, sealed))
}

/// Whether a storage has a body that it voted for on its disk.
fn holds(id: u64, storage: &Storage, sealed: &SealedSegment) -> Result<(), String> {
    match storage.body(&sealed.id) {
        Ok(Some(body)) if checksum(&body) == sealed.checksum => Ok(()),
        Ok(Some(_)) => Err(format!("storage {id} voted for another body of {}", sealed.id)),
        Ok(None) => Err(format!("storage {id} voted for {}, and does not hold it", sealed.id)),
        Err(error) => Err(format!("storage {id} can't read {}: {error}", sealed.id)),
    }
}

/// All slots that a node's storage has.
fn stored(handles: &Handles) -> Result<Vec<Placed>, String> {
    let mut found: Vec<Placed> = Vec::new();
    let Some(storage) = &handles.storage else { return Ok(found) };
    loop {
        let from = found.last().map_or(Slot(1), |placed| placed.resolution.slot.next());
        let rows = storage.rows(from, usize::MAX).map_err(|error| error.to_string())?;
        if rows.is_empty() {
            return Ok(found);
        }
        for resolution in rows {
            let segment = match &resolution.step {
                Step::Segment(sealed) => {
                    let body = storage.body(&sealed.id).map_err(|error| error.to_string())?;
                    let body =
                        body.ok_or_else(|| format!("the body of {} is missing", sealed.id))?;
                    Some(Segment::parse(body).map_err(|error| error.to_string())?)
                }
                Step::Opened { .. } | Step::Closed { .. } => None,
            };
            found.push(Placed { resolution, segment });
        }
    }
}

/// The first slot that a node which has just started shows.
fn beginning(log: &Log) -> Slot {
    let mut slot = log.tail().next_slot;
    while slot.0 > 1 && log.recent(Slot(slot.0 - 1)).is_some() {
        slot = Slot(slot.0 - 1);
    }
    slot
}

/// Adds a node's host to the simulation.
fn add(sim: &mut Sim<'_>, plan: &Plan, node_plan: NodePlan, node: &Simulated) {
    let config = config(plan, node.id);
    let (disk, probe, slowness) = (node.disk.clone(), node.probe.clone(), node.slowness.clone());
    let idle = node.idle.clone();
    let lives = AtomicU64::new(0);
    let seeds = plan.chance(300 + node.id);
    sim.host(node.name.as_str(), move || {
        let life = lives.fetch_add(1, Ordering::Relaxed);
        let sim_config = SimConfig {
            seed: seeds.branch(life).next(),
            clock_ahead: node_plan.clock_ahead,
            commit: node_plan.commit,
        };
        let host = slowed(sim::host(sim_config, &disk), slowness.clone());
        let (config, probe) = (config.clone(), probe.clone());
        let idle = idle.load(Ordering::Relaxed);
        async move {
            if idle {
                std::future::pending::<()>().await;
            }
            let (seen, node) = match Node::start(host, config).await {
                Ok(node) => {
                    let log = node.log().expect("a node that stores or is an entry reads").clone();
                    let (sync, storage) = (node.sync().cloned(), node.storage().cloned());
                    (Probe::Running(Handles { log, sync, storage }), Some(node))
                }
                Err(error) => (Probe::Failed(error.to_string()), None),
            };
            *probe.lock().unwrap_or_else(PoisonError::into_inner) = seen;
            std::future::pending::<()>().await;
            drop(node);
            Ok(())
        }
    });
}

/// The host with a disk that can be slowed down.
fn slowed(mut host: Host, slowness: Arc<AtomicU64>) -> Host {
    if let CommitMode::Task { delay } = host.commits.clone() {
        let slow = move || SLOWEST_COMMIT.min(delay() * slowness.load(Ordering::Relaxed) as u32);
        host.commits = CommitMode::Task { delay: Arc::new(slow) };
    }
    host
}

fn address(host: &str, port: u16) -> Address {
    Address::new(host, port).expect("the simulation's names are addresses")
}

fn config(plan: &Plan, node: u64) -> NodeConfig {
    let realm = Realm::new("realm1").expect("a realm's name");
    let is_entry = plan.shape.is_entry(node);
    let listen = |port: u16| address("0.0.0.0", port);
    NodeConfig {
        cluster: "simulated".into(),
        node: NodeId(node),
        data: PathBuf::from("data"),
        realms: vec![realm.clone()],
        default_realm: realm,
        listen: Listen {
            peer: listen(PEER_PORT),
            wamp: is_entry.then(|| listen(WAMP_PORT)),
            mqtt: is_entry.then(|| listen(MQTT_PORT)),
            admin: None,
        },
        nodes: (1..=plan.shape.nodes()).map(|id| member(plan.shape, id)).collect(),
        timing: Timing {
            heartbeat: Duration::from_millis(80),
            election_min: Duration::from_millis(240),
            election_max: Duration::from_millis(480),
            lease: Duration::from_millis(plan.lease),
        },
    }
}

fn member(shape: Shape, id: u64) -> Member {
    let mut roles = BTreeSet::new();
    if shape.is_entry(id) {
        roles.insert(Role::Entry);
    }
    if shape.is_keeper(id) {
        roles.extend([Role::Storage, Role::Sync]);
    }
    Member {
        id: NodeId(id),
        peer: address(&name(id), PEER_PORT),
        admin: None,
        roles: roles.into_iter().collect(),
    }
}

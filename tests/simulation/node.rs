//! One simulated node: the production code behind [`Node::start`], with simulated edges.
//!
//! Invariant: a dying node's open handles can't reach its disk, and each of its lives has its own randomness.
//!
//! Deliberately absent: when it dies and comes back (`cluster`).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use turmoil::Sim;
use vulpes::config::disk::LowWater;
use vulpes::config::limits::Limits;
use vulpes::config::{Address, Listen, Member, NodeConfig, Role, Timing};
use vulpes::log::Log;
use vulpes::node::Node;
use vulpes::realm::SharedRealms;
use vulpes::retention::Retention;
use vulpes::storage::Storage;
use vulpes::types::topic::Realm;
use vulpes_raft::host::sim::{self, Rot, SimConfig, SimDisk};
use vulpes_raft::host::{Clock, CommitMode, Host};
use vulpes_raft::ids::{NodeId, Slot, Stamp};
use vulpes_raft::node::SyncNode;

use crate::connection::{MQTT_PORT, WAMP_PORT};
use crate::insiders::operator;
use crate::plan::{NodePlan, Plan, Shape};
use crate::record::Record;

const PEER_PORT: u16 = 1735;

/// The longest a group commit takes on the slowest disk.
const SLOWEST_COMMIT: Duration = Duration::from_millis(1_500);

/// A node's name in the simulated network.
pub(crate) fn name(node: u64) -> String {
    format!("node-{node}")
}

/// A node, seen from outside.
#[derive(Default)]
pub(crate) enum Probe {
    /// Not started, or starting.
    #[default]
    Down,
    Running(Handles),
    /// It was away for longer than the log is retained, and has to be restarted.
    LeftBehind,
    /// It did not start.
    Failed(String),
}

#[derive(Clone)]
pub(crate) struct Handles {
    pub(crate) log: Log,
    pub(crate) sync: Option<SyncNode>,
    pub(crate) storage: Option<Storage>,
    pub(crate) realms: Option<SharedRealms>,
}

/// One node.
pub(crate) struct Simulated {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) disk: SimDisk,
    pub(crate) probe: Arc<Mutex<Probe>>,
    /// Factor on the duration of its group commits.
    pub(crate) slowness: Arc<AtomicU64>,
    /// Its machine runs, but the node does not.
    pub(crate) idle: Arc<AtomicBool>,
    /// The slot it shows next, while it runs.
    pub(crate) next: Option<Slot>,
    pub(crate) crashed: bool,
    /// The error of its time of day, in milliseconds.
    pub(crate) wrong: Arc<AtomicI64>,
    /// Its disk fails, so the node may fail too.
    pub(crate) doomed: bool,
    /// Its disk has failed, and the node waits for its repair.
    pub(crate) buried: bool,
    /// Its disk was replaced: it is another node now, and must not rejoin under its old number.
    pub(crate) wiped: bool,
    /// When it was last started.
    pub(crate) runs_since: Duration,
    /// How many slots there were when its disk was copied.
    pub(crate) remembered: u64,
    /// It has an older copy of its folder: its later votes are gone.
    pub(crate) put_back: bool,
    /// So much has happened since then that the node has to notice, and end.
    pub(crate) older: bool,
    /// Its disk has rotted: it may refuse to start, or end, or have bodies that it knows to be damaged.
    pub(crate) rotten: bool,
}

impl Simulated {
    /// Adds a node to a simulation, with an empty disk.
    pub(crate) fn new(sim: &mut Sim<'_>, plan: &Plan, id: u64, node_plan: NodePlan) -> Self {
        let node = Self {
            id,
            name: name(id),
            disk: SimDisk::new(),
            probe: Arc::default(),
            slowness: Arc::new(AtomicU64::new(1)),
            idle: Arc::default(),
            next: None,
            crashed: false,
            wrong: Arc::default(),
            doomed: false,
            buried: false,
            wiped: false,
            runs_since: Duration::ZERO,
            remembered: 0,
            put_back: false,
            older: false,
            rotten: false,
        };
        if plan.rots() == Some(id) {
            node.disk.cache_nothing();
            // A last commit that rots at the moment of a power loss can't be distinguished from a torn one.
            node.disk.write_through();
        }
        add(sim, plan, node_plan, &node);
        node
    }

    /// Ends the node and its machine, which must be cut off from all others: a crash drops the node's tasks in an order that
    /// depends on other tests of this process, and none of them may send anything.
    pub(crate) fn crash(&mut self, sim: &mut Sim<'_>, seed: u64) {
        self.disk.crash(seed);
        self.crashed = true;
        self.next = None;
        self.see(Probe::Down);
        sim.crash(self.name.as_str());
    }

    /// Starts the machine without the node: packets for the dead process are answered with a reset.
    pub(crate) fn start_idle(&self, sim: &mut Sim<'_>) {
        self.idle.store(true, Ordering::Relaxed);
        sim.bounce(self.name.as_str());
    }

    /// Starts the node again.
    pub(crate) fn restart(&mut self, sim: &mut Sim<'_>) {
        self.crashed = false;
        self.runs_since = sim.elapsed();
        if self.idle.swap(false, Ordering::Relaxed) {
            sim.crash(self.name.as_str());
        }
        sim.bounce(self.name.as_str());
    }

    fn see(&self, seen: Probe) {
        *self.probe.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    pub(crate) fn handles(&self) -> Option<Handles> {
        match &*self.probe.lock().unwrap_or_else(PoisonError::into_inner) {
            Probe::Running(handles) => Some(handles.clone()),
            Probe::Down | Probe::LeftBehind | Probe::Failed(_) => None,
        }
    }

    /// Damages its disk.
    pub(crate) fn rot(&mut self, rot: Rot, seed: u64, record: &mut Record) {
        let id = self.id;
        let Some(what) = self.disk.rot(rot, seed) else { return };
        record.trace(|| format!("the disk of {id} rots, {what}"));
        record.counts.rotten += 1;
        self.rotten = true;
    }

    /// Records that it can't continue with its disk's contents, and why.
    pub(crate) fn give_up(&self, reason: String) {
        self.see(Probe::Failed(reason));
    }

    /// Its disk has failed, as the plan has it.
    pub(crate) fn is_dying(&self) -> bool {
        (self.doomed || self.rotten) && self.reason().is_some()
    }

    /// Why it is not running, if it should be.
    pub(crate) fn failure(&self) -> Option<String> {
        self.reason().filter(|_| !self.doomed && !self.rotten)
    }

    pub(crate) fn reason(&self) -> Option<String> {
        match &*self.probe.lock().unwrap_or_else(PoisonError::into_inner) {
            Probe::Failed(reason) => Some(format!("does not start: {reason}")),
            Probe::Down | Probe::LeftBehind | Probe::Running(_) => self.disk.death(),
        }
    }

    pub(crate) fn is_left_behind(&self) -> bool {
        let probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*probe, Probe::LeftBehind)
    }

    /// Its storage, if that still has to hold what it voted for.
    pub(crate) fn storage(&self) -> Option<Storage> {
        self.handles()?.storage.filter(|_| !self.wiped && !self.put_back && !self.is_dying())
    }
}

/// Adds a node's host to the simulation.
fn add(sim: &mut Sim<'_>, plan: &Plan, node_plan: NodePlan, node: &Simulated) {
    let config = config(plan, node.id);
    let (disk, probe, slowness) = (node.disk.clone(), node.probe.clone(), node.slowness.clone());
    let (idle, wrong) = (node.idle.clone(), node.wrong.clone());
    let lives = AtomicU64::new(0);
    let (tunings, quiet_from, rules) = (plan.tuning, plan.quiet_from, plan.rules);
    let seeds = plan.chance(300 + node.id);
    sim.host(node.name.as_str(), move || {
        let life = lives.fetch_add(1, Ordering::Relaxed);
        let sim_config = SimConfig {
            seed: seeds.branch(life).next(),
            clock_ahead: node_plan.clock_ahead,
            commit: node_plan.commit,
        };
        let mut host = slowed(sim::host(sim_config, &disk), slowness.clone());
        host.clock = Arc::new(WrongClock { right: host.clock.clone(), wrong: wrong.clone() });
        let (config, probe) = (config.clone(), probe.clone());
        let quiet = Duration::from_millis(quiet_from);
        let operators = seeds.branch(life).branch(2);
        let idle = idle.load(Ordering::Relaxed);
        let tuning = tunings.node(seeds.branch(life).branch(1), quiet_from);
        async move {
            if idle {
                std::future::pending::<()>().await;
            }
            let (seen, node) = match Node::start_tuned(host, config, tuning).await {
                Ok(node) => {
                    let log = node.log().expect("a node that stores or is an entry reads").clone();
                    let (sync, storage) = (node.sync().cloned(), node.storage().cloned());
                    let realms = node.realms().cloned();
                    (Probe::Running(Handles { log, sync, storage, realms }), Some(node))
                }
                Err(error) => (Probe::Failed(error.to_string()), None),
            };
            *probe.lock().unwrap_or_else(PoisonError::into_inner) = seen;
            if let Some(entry) = node.as_ref().and_then(Node::entry).filter(|_| rules) {
                tokio::task::spawn_local(operator(entry.clone(), operators, quiet));
            }
            if let Some(node) = &node {
                node.left_behind().await;
                *probe.lock().unwrap_or_else(PoisonError::into_inner) = Probe::LeftBehind;
            }
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

/// A clock that is sometimes wrong.
struct WrongClock {
    right: Arc<dyn Clock>,
    wrong: Arc<AtomicI64>,
}

impl Clock for WrongClock {
    fn now(&self) -> Stamp {
        Stamp(self.right.now().0.saturating_add_signed(self.wrong.load(Ordering::Relaxed)))
    }
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
        merging: BTreeSet::new(),
        listen: Listen {
            peer: listen(PEER_PORT),
            wamp: is_entry.then(|| listen(WAMP_PORT)),
            mqtt: is_entry.then(|| listen(MQTT_PORT)),
            admin: None,
            origins: Vec::new(),
            hosts: Vec::new(),
        },
        listeners: Vec::new(),
        peer_tls: None,
        insecure: true,
        first_administrator: None,
        nodes: (1..=plan.shape.nodes()).map(|id| member(plan.shape, id)).collect(),
        timing: Timing {
            heartbeat: Duration::from_millis(80),
            election_min: Duration::from_millis(720),
            election_max: Duration::from_millis(960),
            lease: Duration::from_millis(plan.lease),
        },
        tokens: None,
        limits: Limits::default(),
        low_water: LowWater::default(),
        retention: Retention { age: plan.age.map(Duration::from_millis), size: plan.log_size },
        log: None,
    }
}

fn member(shape: Shape, id: u64) -> Member {
    let mut roles = BTreeSet::new();
    if shape.is_entry(id) {
        roles.insert(Role::Entry);
    }
    if shape.is_sync(id) {
        roles.insert(Role::Sync);
    }
    if id <= shape.storages() {
        roles.insert(Role::Storage);
    }
    Member {
        id: NodeId(id),
        peer: address(&name(id), PEER_PORT),
        admin: None,
        roles: roles.into_iter().collect(),
        group: shape.group(id),
    }
}

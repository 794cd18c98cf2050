//! A simulated cluster in which only two things take time: a message on the network, and a group commit.
//!
//! Invariant: nothing is random, and nothing happens besides clients' requests and heartbeats.
//!
//! Deliberately absent: faults.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use turmoil::{Builder, Sim};
use vulpes::config::disk::LowWater;
use vulpes::config::limits::Limits;
use vulpes::config::{Address, Listen, Member, NodeConfig, Role, Timing};
use vulpes::entry::EntryTuning;
use vulpes::node::tuning::Tuning;
use vulpes::node::Node;
use vulpes::retention::Retention;
use vulpes::storage::Storage;
use vulpes::types::topic::Realm;
use vulpes_raft::host::sim::{self, DiskUse, SimConfig, SimDisk};
use vulpes_raft::host::CommitMode;
use vulpes_raft::ids::NodeId;
use vulpes_raft::node::SyncNode;

pub(crate) const MQTT_PORT: u16 = 1881;
const PEER_PORT: u16 = 1735;

/// One step of the simulation.
const TICK: Duration = Duration::from_millis(1);

/// Longest simulated time of a test.
const LONGEST: Duration = Duration::from_secs(600);

/// The shortest time that followers wait for a leader.
const PATIENCE: Duration = Duration::from_millis(400);

/// One node that differs from the others.
#[derive(Clone, Copy)]
pub(crate) struct Odd {
    pub(crate) node: u64,
    /// How long its group commits take.
    pub(crate) commit: Duration,
    /// Bytes of bodies that entries have on the way to any storage.
    pub(crate) sent_bytes: usize,
}

/// What takes time.
#[derive(Clone, Copy)]
pub(crate) struct Delays {
    /// From one node to another, one way.
    pub(crate) message: Duration,
    pub(crate) commit: Duration,
    /// Segments wait for storage votes before they are proposed, as in clusters with split roles.
    pub(crate) voting: bool,
}

/// A node, seen from outside.
#[derive(Clone)]
struct Handles {
    sync: SyncNode,
    storage: Storage,
}

/// All nodes, seen from outside.
#[derive(Clone)]
pub(crate) struct Cluster {
    disks: Vec<SimDisk>,
    handles: Rc<RefCell<BTreeMap<u64, Handles>>>,
}

pub(crate) fn name(node: u64) -> String {
    format!("node-{node}")
}

/// Runs a client against a cluster of this many nodes, until the client is done; returns its result.
pub(crate) fn run<T, F>(nodes: u64, delays: Delays, client: impl FnOnce(Cluster) -> F) -> T
where
    T: 'static,
    F: Future<Output = std::io::Result<T>> + 'static,
{
    run_with(nodes, delays, None, client)
}

/// Like [`run`], with one node that differs from the others.
pub(crate) fn run_with<T, F>(
    nodes: u64,
    delays: Delays,
    odd: Option<Odd>,
    client: impl FnOnce(Cluster) -> F,
) -> T
where
    T: 'static,
    F: Future<Output = std::io::Result<T>> + 'static,
{
    let mut builder = Builder::new();
    builder
        .rng_seed(1)
        .epoch(SystemTime::UNIX_EPOCH)
        .tick_duration(TICK)
        .simulation_duration(LONGEST)
        .tcp_capacity(4096)
        .min_message_latency(delays.message)
        .max_message_latency(delays.message);
    let mut sim = builder.build();
    let disks = (0..nodes).map(|_| SimDisk::new()).collect();
    let cluster = Cluster { disks, handles: Rc::default() };
    for id in 1..=nodes {
        add(&mut sim, (nodes, id), delays, odd, &cluster);
    }
    let found = Rc::new(RefCell::new(None));
    let (work, keep) = (client(cluster), found.clone());
    sim.client("client", async move {
        let outcome = work.await?;
        *keep.borrow_mut() = Some(outcome);
        Ok(())
    });
    sim.run().expect("the client gets through");
    let outcome = found.borrow_mut().take();
    outcome.expect("the client is done")
}

fn add(
    sim: &mut Sim<'_>,
    (nodes, id): (u64, u64),
    delays: Delays,
    odd: Option<Odd>,
    cluster: &Cluster,
) {
    let commit = odd.filter(|odd| odd.node == id).map_or(delays.commit, |odd| odd.commit);
    let usual = EntryTuning::default();
    let storage_sent_bytes = odd.map_or(usual.storage_sent_bytes, |odd| odd.sent_bytes);
    let entry = EntryTuning { early: !delays.voting, storage_sent_bytes, ..usual };
    let (disk, handles) = (cluster.disks[id as usize - 1].clone(), cluster.handles.clone());
    sim.host(name(id), move || {
        let config = SimConfig { seed: id, clock_ahead: 0, commit };
        let mut host = sim::host(config, &disk);
        host.commits = CommitMode::Task { delay: Arc::new(move || commit) };
        let handles = handles.clone();
        async move {
            let tuning = Tuning { entry, ..Tuning::default() };
            let node = Node::start_tuned(host, config_of(nodes, id, delays), tuning).await?;
            let (sync, storage) = (node.sync().cloned(), node.storage().cloned());
            let (sync, storage) = sync.zip(storage).expect("every node has all roles");
            handles.borrow_mut().insert(id, Handles { sync, storage });
            std::future::pending::<()>().await;
            drop(node);
            Ok(())
        }
    });
}

fn address(host: &str, port: u16) -> Address {
    Address::new(host, port).expect("the simulation's names are addresses")
}

fn config_of(nodes: u64, node: u64, delays: Delays) -> NodeConfig {
    let realm = Realm::new("realm1").expect("a realm's name");
    let listen = |port: u16| address("0.0.0.0", port);
    let member = |id: u64| Member {
        group: 1,
        id: NodeId(id),
        peer: address(&name(id), PEER_PORT),
        admin: None,
        roles: Role::ALL.to_vec(),
    };
    // Enough time for a vote, which two disks have to write.
    let patience = ((delays.message + delays.commit) * 4).max(PATIENCE);
    NodeConfig {
        cluster: "costs".into(),
        node: NodeId(node),
        data: PathBuf::from("data"),
        realms: vec![realm.clone()],
        default_realm: realm,
        merging: BTreeSet::new(),
        listen: Listen {
            peer: listen(PEER_PORT),
            wamp: None,
            mqtt: Some(listen(MQTT_PORT)),
            admin: None,
            origins: Vec::new(),
            hosts: Vec::new(),
        },
        listeners: Vec::new(),
        peer_tls: None,
        insecure: true,
        first_administrator: None,
        nodes: (1..=nodes).map(member).collect(),
        timing: Timing {
            heartbeat: patience / 4,
            election_min: patience * 3,
            election_max: patience * 4,
            // A lease that is not renewed during a test leaves the log unchanged.
            lease: LONGEST * 3,
        },
        tokens: None,
        retention: Retention { age: None, size: None },
        limits: Limits::default(),
        low_water: LowWater::default(),
        log: None,
    }
}

impl Cluster {
    /// Waits until all nodes run and one leads; then until nothing changes any more.
    pub(crate) async fn settled(&self) {
        while self.handles.borrow().len() < self.disks.len() || self.leader().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.quiet().await;
    }

    /// Waits until the disks have been idle for a while.
    pub(crate) async fn quiet(&self) {
        loop {
            let before: Vec<_> = self.disks.iter().map(SimDisk::used).collect();
            tokio::time::sleep(Duration::from_secs(3)).await;
            let after: Vec<_> = self.disks.iter().map(SimDisk::used).collect();
            if before == after {
                return;
            }
        }
    }

    /// The leader of the sync group, if all agree.
    pub(crate) fn leader(&self) -> Option<u64> {
        let handles = self.handles.borrow();
        let mut leaders = handles.values().map(|node| node.sync.status().leader);
        let first = leaders.next()??;
        leaders.all(|leader| leader == Some(first)).then_some(first.0)
    }

    pub(crate) fn nodes(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.disks.len() as u64
    }

    /// Segments that a node has stored.
    pub(crate) fn segments(&self, node: u64) -> u64 {
        let handles = self.handles.borrow();
        handles[&node].storage.status().expect("the disk is well").bodies
    }

    /// Bodies that a node had to fetch, and how often waiting for one timed out before.
    pub(crate) fn fetched(&self, node: u64) -> (u64, u64) {
        let handles = self.handles.borrow();
        let storage = &handles[&node].storage;
        (storage.fetched(), storage.late_bodies())
    }

    /// The use of a node's disk so far, by file name.
    pub(crate) fn used(&self, node: u64) -> BTreeMap<String, DiskUse> {
        let used = self.disks[node as usize - 1].used();
        let name = |path: PathBuf| path.file_name().expect("a file").to_string_lossy().into_owned();
        used.into_iter().map(|(path, used)| (name(path), used)).collect()
    }
}

//! Three sync members in one deterministic simulation, and the controls that crash them.
//!
//! Invariant: everything a run does follows from its seed.
//!
//! Deliberately absent: storages as separate processes. The members are also the storages.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use vulpes_raft::client::SyncClient;
use vulpes_raft::disk::file::File;
use vulpes_raft::host::sim::{self, SimConfig, SimDisk};
use vulpes_raft::host::Host;
use vulpes_raft::ids::{AdvanceSegment, DiskId, Incarnation, NodeId, SegmentNumber, Shard, Slot};
use vulpes_raft::net::wire::{self, Identity};
use vulpes_raft::node::{Member, SyncConfig, SyncNode, Tuning};
use vulpes_raft::order::{Resolution, SealedSegment};
use vulpes_raft::sequencer::Opened;
use vulpes_raft::service::{Followed, SyncError};

#[cfg(not(tokio_unstable))]
compile_error!(
    "the simulation needs tokio_unstable, as .cargo/config.toml sets it; RUSTFLAGS overrides that file"
);

pub(crate) const LEASE: Duration = Duration::from_secs(3);
const PORT: u16 = 7_000;

/// The members' addresses.
pub(crate) fn members() -> Vec<Member> {
    let member = |n: u64| Member { node: NodeId(n), address: format!("n{n}:{PORT}") };
    (1..=3).map(member).collect()
}

fn identity(node: u64, disk: u64) -> Identity {
    Identity { cluster: "sim".into(), node: NodeId(node), disk: DiskId(disk) }
}

/// One simulated member.
#[derive(Clone)]
pub(crate) struct SimNode {
    node: u64,
    seed: u64,
    disk: SimDisk,
    /// The running member; none while it is down.
    running: Rc<RefCell<Option<SyncNode>>>,
    tuning: Tuning,
}

impl SimNode {
    async fn run(self) -> turmoil::Result {
        let life = turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64;
        let config = SimConfig {
            seed: self.seed ^ (life << 8) ^ self.node,
            clock_ahead: (self.node as i64 - 2) * 1_500,
            commit: Duration::from_millis(3),
        };
        let host = sim::host(config, &self.disk);
        let own = identity(self.node, disk_id(&host)?);
        let sync = SyncConfig {
            identity: own.clone(),
            members: members(),
            storages: vec![members()],
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(900), Duration::from_millis(1_200)),
            lease: LEASE,
        };
        let file = File::open(&host, Path::new("data"), &own)?;
        let node = SyncNode::start_tuned(host.clone(), sync, &file, self.tuning, None).await?;
        drop(file);
        *self.running.borrow_mut() = Some(node.clone());
        let mut listener = host.net.listen(&format!("0.0.0.0:{PORT}")).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let (node, own) = (node.clone(), own.clone());
            tokio::spawn(async move {
                let admit = |peer: &Identity, service| node.admit(peer, service);
                if let Ok(link) = wire::welcome(stream, &own, admit).await {
                    node.serve(link).await;
                }
            });
        }
    }
}

/// The disk's identity: made with the first start on an empty disk.
fn disk_id(host: &Host) -> std::io::Result<u64> {
    let path = PathBuf::from("data/disk");
    if let Some(bytes) = host.disk.read_file(&path)? {
        return Ok(wire::decode(&bytes).expect("what was written below"));
    }
    let fresh = host.random.next_u64();
    host.disk.write_file(&path, &wire::encode(&fresh))?;
    Ok(fresh)
}

enum Order {
    Crash(u64),
    Start(u64),
}

/// A test's controls of the cluster.
#[derive(Clone)]
pub(crate) struct Hand {
    pub(crate) seed: u64,
    nodes: Rc<Vec<SimNode>>,
    orders: Rc<RefCell<VecDeque<Order>>>,
}

impl Hand {
    /// Cuts a member's power.
    pub(crate) async fn crash(&self, node: u64) {
        self.give(Order::Crash(node)).await;
    }

    /// Starts a member that is down.
    pub(crate) async fn start(&self, node: u64) {
        self.give(Order::Start(node)).await;
    }

    /// Puts an empty disk into a member that is down.
    pub(crate) fn wipe(&self, node: u64) {
        self.sim_node(node).disk.wipe();
    }

    async fn give(&self, order: Order) {
        self.orders.borrow_mut().push_back(order);
        until("the order is carried out", || self.orders.borrow().is_empty().then_some(())).await;
    }

    fn sim_node(&self, node: u64) -> &SimNode {
        &self.nodes[node as usize - 1]
    }

    /// The member, if it runs. Called from here, it measures time by the test's clock, which no lease uses.
    pub(crate) fn node(&self, node: u64) -> Option<SyncNode> {
        self.sim_node(node).running.borrow().clone()
    }

    /// All members that run.
    pub(crate) fn running(&self) -> Vec<SyncNode> {
        (1..=3).filter_map(|node| self.node(node)).collect()
    }

    /// A client on a separate node that is no entry.
    pub(crate) fn client(&self) -> SyncClient {
        self.client_of(100)
    }

    /// A client on the node of an entry or a storage: nodes speak for themselves.
    pub(crate) fn client_of(&self, node: u64) -> SyncClient {
        let config = SimConfig {
            seed: self.seed ^ 0xc11e,
            clock_ahead: 0,
            commit: Duration::from_millis(1),
        };
        let host = sim::host(config, &SimDisk::new());
        SyncClient::new(host, identity(node, node), members(), None)
    }

    /// Opens an entry through any member, retrying until it succeeds.
    pub(crate) async fn open(&self, entry: u64) -> Opened {
        let client = self.client_of(entry);
        insist(|| client.open(NodeId(entry), 1)).await
    }

    /// Waits until one member leads and a majority knows it.
    pub(crate) async fn leader(&self) -> u64 {
        until("a leader", || {
            let running = self.running();
            let leaders: Vec<_> = running.iter().filter_map(|node| node.status().leader).collect();
            let leader = *leaders.first()?;
            let known = leaders.iter().filter(|known| **known == leader).count();
            let runs = running.iter().any(|node| node.id() == leader);
            (known >= 2 && runs).then_some(leader.0)
        })
        .await
    }
}

/// Checks again every few milliseconds of simulated time, for at most a minute.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not within a minute: {what}");
}

/// Runs a test on three members, with snapshots as rare as in production.
pub(crate) fn simulate<F: Future<Output = ()> + 'static>(seed: u64, test: impl FnOnce(Hand) -> F) {
    simulate_tuned(seed, Tuning::default(), test);
}

/// Runs a test on three members.
pub(crate) fn simulate_tuned<F: Future<Output = ()> + 'static>(
    seed: u64,
    tuning: Tuning,
    test: impl FnOnce(Hand) -> F,
) {
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(5))
        .tcp_capacity(4_096);
    let mut sim = builder.build();
    let node = |node| SimNode { node, seed, disk: SimDisk::new(), running: Rc::default(), tuning };
    let nodes: Rc<Vec<_>> = Rc::new((1..=3).map(node).collect());
    for node in nodes.iter() {
        let node = node.clone();
        sim.host(format!("n{}", node.node), move || node.clone().run());
    }
    let orders = Rc::new(RefCell::new(VecDeque::new()));
    let hand = Hand { seed, nodes, orders };
    let testing = test(hand.clone());
    sim.client("test", async move {
        testing.await;
        Ok(())
    });
    let mut crashes = seed;
    loop {
        if sim.step().expect("no node ends by itself") {
            return;
        }
        for node in hand.nodes.iter() {
            if let Some(reason) = node.disk.death() {
                panic!("node {} ended: {reason}", node.node);
            }
        }
        let orders: Vec<_> = hand.orders.borrow_mut().drain(..).collect();
        for order in orders {
            match order {
                Order::Crash(node) => {
                    crashes = crashes.wrapping_add(0x9e37_79b9);
                    hand.sim_node(node).disk.crash(crashes);
                    hand.sim_node(node).running.borrow_mut().take();
                    // A power cut closes no connections. (Besides, the order in which a dying runtime closes its connections
                    // depends on how many tasks this process ever had, not on the seed.)
                    others(node).for_each(|other| sim.partition(format!("n{node}"), other));
                    sim.crash(format!("n{node}"));
                }
                Order::Start(node) => {
                    others(node).for_each(|other| sim.repair(format!("n{node}"), other));
                    sim.bounce(format!("n{node}"));
                }
            }
        }
    }
}

fn others(node: u64) -> impl Iterator<Item = String> {
    let members = (1..=3).filter(move |other| *other != node).map(|other| format!("n{other}"));
    members.chain(["test".to_owned()])
}

/// A segment with the votes of storages 1 and 2.
pub(crate) fn segment(entry: u64, incarnation: Incarnation, number: u64) -> SealedSegment {
    SealedSegment {
        id: AdvanceSegment { entry: NodeId(entry), incarnation, number: SegmentNumber(number) },
        shard: Shard(0),
        count: 1 + (number % 7) as u32,
        length: 100,
        checksum: entry * 1_000_000 + number,
        votes: vec![NodeId(1), NodeId(2)],
    }
}

/// Repeats a call until its outcome is known.
pub(crate) async fn insist<T, F: Future<Output = Result<T, SyncError>>>(
    mut call: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match call().await {
            Ok(done) => return done,
            Err(SyncError::Unavailable(_) | SyncError::Unknown(_)) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// All rows of a member through `last`.
pub(crate) async fn rows(node: &SyncNode, last: Slot) -> Vec<Resolution> {
    let mut rows: Vec<Resolution> = Vec::new();
    while rows.last().is_none_or(|row| row.slot < last) {
        let from = Slot(rows.len() as u64 + 1);
        match node.follow(from, 100, Duration::from_secs(5)).await.expect("running") {
            Followed::Rows(more) => {
                assert!(!more.is_empty(), "node {} stays behind slot {last}", node.id());
                rows.extend(more);
            }
            Followed::Behind { oldest } => panic!("slot {from} is gone, the oldest is {oldest}"),
        }
    }
    rows
}

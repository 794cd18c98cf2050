//! Random crashes, power cuts and partitions under load, judged by what must never happen to the order.
//!
//! Invariant: a seed replays its run to the byte. A failing seed becomes a line in `KNOWN`.
//!
//! Deliberately absent: bodies, storages and real entries, which the whole cluster's simulation has.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::support::{rows, segment, simulate_tuned, until, Hand};
use vulpes_raft::client::SyncClient;
use vulpes_raft::ids::{AdvanceSegment, Incarnation, NodeId, Position, SegmentNumber, Slot, Stamp};
use vulpes_raft::mutant::{plant, Mutant};
use vulpes_raft::node::Tuning;
use vulpes_raft::order::{Place, Resolution, SegmentOutcome, Step};
use vulpes_raft::service::{Followed, SyncError};

/// Seeds that once failed.
const KNOWN: [u64; 0] = [];

/// How long the trouble lasts, in simulated time.
const TROUBLE: Duration = Duration::from_secs(20);

const OFTEN: Tuning = Tuning { snapshot_every: 60, log_kept: 10, lag_limit: 100, shown: u64::MAX };

/// SplitMix64, for the choices of the test itself.
#[derive(Clone)]
struct Chance(Rc<RefCell<u64>>);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(seed)))
    }

    fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.borrow_mut();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// What entries and followers saw.
#[derive(Default)]
struct Seen {
    acknowledged: BTreeMap<AdvanceSegment, Place>,
    shown: BTreeMap<Slot, Resolution>,
    crashes: u64,
    partitions: u64,
    unknown: u64,
}

/// The results of a finished run, for comparison.
#[derive(Debug, PartialEq)]
struct Trace {
    order: Vec<Resolution>,
    acknowledged: BTreeMap<AdvanceSegment, Place>,
    faults: (u64, u64, u64),
}

fn run(seed: u64) -> Trace {
    let trace = Rc::new(RefCell::new(None));
    let kept = trace.clone();
    simulate_tuned(seed, OFTEN, move |hand| async move {
        let seen = Rc::new(RefCell::new(Seen::default()));
        let chance = Chance::new(seed);
        let mut tasks = Vec::new();
        for entry in [50, 60, 70] {
            let work = publish(hand.clone(), entry, chance.clone(), seen.clone());
            tasks.push(tokio::task::spawn_local(work));
        }
        for node in 1..=3 {
            tasks.push(tokio::task::spawn_local(watch(hand.clone(), node, seen.clone())));
        }
        let trouble = trouble(&hand, &chance, &seen);
        assert!(tokio::time::timeout(TROUBLE, trouble).await.is_err());
        heal(&hand).await;
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        let order = converge(&hand).await;
        judge(&order, &seen.borrow());
        let seen = seen.take();
        *kept.borrow_mut() = Some(Trace {
            order,
            acknowledged: seen.acknowledged,
            faults: (seen.crashes, seen.partitions, seen.unknown),
        });
    });
    let trace = trace.take();
    trace.expect("the run ended")
}

/// An entry: opens, proposes in number order, repeats what is unknown, reopens when it is fenced.
async fn publish(hand: Hand, entry: u64, chance: Chance, seen: Rc<RefCell<Seen>>) {
    let client = hand.client_of(entry);
    let mut request = 0;
    loop {
        request += 1;
        let opened = loop {
            match client.open(NodeId(entry), request).await {
                Ok(opened) => break opened,
                Err(error) => note(&error, &seen),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let mut next = 0;
        while let Some(through) =
            propose(&hand, &client, (entry, opened.incarnation), next, &chance, &seen).await
        {
            next = through;
            // Sometimes a new process takes over while the old one's proposals are still on their way.
            if chance.below(60) == 0 {
                break;
            }
        }
    }
}

/// Proposes the next few segments until each is resolved; returns the next number, or none if the incarnation is over.
async fn propose(
    hand: &Hand,
    client: &SyncClient,
    (entry, incarnation): (u64, Incarnation),
    next: u64,
    chance: &Chance,
    seen: &Rc<RefCell<Seen>>,
) -> Option<u64> {
    let through = next + 1 + chance.below(5);
    let batch: Vec<_> = (next..through).map(|number| segment(entry, incarnation, number)).collect();
    loop {
        tokio::time::sleep(Duration::from_millis(chance.below(60))).await;
        // A client that knows the leader, or one that has not found it yet.
        let outcomes = match chance.below(4) {
            0 => hand.client_of(entry).propose(batch.clone()).await,
            _ => client.propose(batch.clone()).await,
        };
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            Err(error) => {
                note(&error, seen);
                continue;
            }
        };
        for (segment, outcome) in batch.iter().zip(outcomes) {
            match outcome {
                SegmentOutcome::Resolved(place) => {
                    let mut seen = seen.borrow_mut();
                    let first = *seen.acknowledged.entry(segment.id).or_insert(place);
                    assert_eq!(first, place, "{} moved", segment.id);
                }
                SegmentOutcome::Fenced { .. } | SegmentOutcome::NotOpen => return None,
                other => panic!("{}: {other:?}", segment.id),
            }
        }
        return Some(through);
    }
}

fn note(error: &SyncError, seen: &Rc<RefCell<Seen>>) {
    match error {
        SyncError::Unknown(_) => seen.borrow_mut().unknown += 1,
        SyncError::Unavailable(_) | SyncError::Shutdown => {}
        SyncError::Wiped(reason) => panic!("{reason}"),
    }
}

/// Follows one member: what one member has shown, every member has to show for ever.
async fn watch(hand: Hand, node: u64, seen: Rc<RefCell<Seen>>) {
    let mut next = Slot(1);
    loop {
        let Some(member) = hand.node(node) else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let followed = member.follow(next, 50, Duration::from_millis(200)).await;
        let Ok(Followed::Rows(rows)) = followed else { continue };
        for row in rows {
            assert_eq!(row.slot, next, "node {node} left a slot out");
            next = next.next();
            let mut seen = seen.borrow_mut();
            let first = seen.shown.entry(row.slot).or_insert_with(|| row.clone());
            assert_eq!(*first, row, "node {node} shows another order");
        }
    }
}

/// Injects faults now and then, without end.
async fn trouble(hand: &Hand, chance: &Chance, seen: &Rc<RefCell<Seen>>) {
    let name = |node: u64| format!("n{node}");
    loop {
        tokio::time::sleep(Duration::from_millis(200 + chance.below(1_500))).await;
        let node = 1 + chance.below(3);
        let other = 1 + node % 3;
        match chance.below(7) {
            0 | 1 if hand.node(node).is_some() => {
                hand.crash(node).await;
                seen.borrow_mut().crashes += 1;
                tokio::time::sleep(Duration::from_millis(chance.below(1_500))).await;
                hand.start(node).await;
            }
            2 => {
                for node in 1..=3 {
                    hand.crash(node).await;
                    seen.borrow_mut().crashes += 1;
                }
                for node in 1..=3 {
                    hand.start(node).await;
                }
            }
            3 | 4 => {
                turmoil::partition(name(node), name(other));
                seen.borrow_mut().partitions += 1;
            }
            5 => {
                turmoil::partition(name(node), name(other));
                turmoil::partition(name(node), name(6 - node - other));
                turmoil::partition(name(node), "test");
                seen.borrow_mut().partitions += 1;
            }
            _ => repair(),
        }
    }
}

fn repair() {
    for (a, b) in [("n1", "n2"), ("n2", "n3"), ("n1", "n3")] {
        turmoil::repair(a, b);
    }
    for node in ["n1", "n2", "n3"] {
        turmoil::repair(node, "test");
    }
}

async fn heal(hand: &Hand) {
    repair();
    for node in 1..=3 {
        if hand.node(node).is_none() {
            hand.start(node).await;
        }
    }
    hand.leader().await;
}

/// Waits until all members show the same order, and returns it.
async fn converge(hand: &Hand) -> Vec<Resolution> {
    // Something new has to commit, so that no member's end is an old one.
    hand.open(90).await;
    let last = until("all members are level", || {
        let tails: Vec<_> = hand.running().iter().map(|node| node.status().tail).collect();
        (tails.len() == 3 && tails.iter().all(|tail| *tail == tails[0])).then_some(tails[0])
    })
    .await;
    let mut orders = Vec::new();
    for node in hand.running() {
        orders.push(rows(&node, last).await);
    }
    let order = orders.pop().expect("three");
    assert!(orders.iter().all(|other| *other == order), "the members disagree");
    order
}

/// What must never happen (`src/ARCHITECTURE.md`), as far as the order itself shows it.
fn judge(order: &[Resolution], seen: &Seen) {
    let (mut base, mut stamp) = (Position(1), Stamp(0));
    let mut current: BTreeMap<NodeId, (Incarnation, u64)> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (slot, row) in (1..).map(Slot).zip(order) {
        assert_eq!((row.slot, row.base), (slot, base), "slots and positions are dense");
        assert!(row.stamp >= stamp, "stamps run backwards at {slot}");
        (base, stamp) = (row.end(), row.stamp);
        match &row.step {
            Step::Opened { entry, incarnation } => {
                let older = current.insert(*entry, (*incarnation, 0));
                assert!(older.is_none_or(|(older, _)| older < *incarnation));
            }
            Step::Closed { entry, incarnation, .. } => {
                let closed = current.insert(*entry, (*incarnation, u64::MAX));
                assert_eq!(closed.map(|(closed, _)| closed), Some(*incarnation));
            }
            Step::Segment(segment) => {
                let (incarnation, next) = current.get_mut(&segment.id.entry).expect("opened");
                assert_eq!(segment.id.incarnation, *incarnation, "fenced at {slot}");
                assert_eq!(segment.id.number, SegmentNumber(*next), "number order at {slot}");
                *next += 1;
                let place = Place { slot, stamp, base: row.base };
                assert_eq!(places.insert(segment.id, place), None, "{} twice", segment.id);
            }
        }
    }
    for (segment, place) in &seen.acknowledged {
        assert_eq!(places.get(segment), Some(place), "{segment} was acknowledged");
    }
    for (slot, row) in &seen.shown {
        assert_eq!(order.get(slot.0 as usize - 1), Some(row), "slot {slot} was shown");
    }
}

#[test]
fn the_order_survives_random_trouble() {
    let (mut crashes, mut partitions, mut unknown, mut acknowledged) = (0, 0, 0, 0);
    let count = std::env::var("VULPES_ORDER_SEEDS").ok().and_then(|count| count.parse().ok());
    let seeds = 1_000..1_000 + count.unwrap_or(4);
    for seed in KNOWN.into_iter().chain(seeds) {
        eprintln!("seed {seed}");
        let trace = run(seed);
        crashes += trace.faults.0;
        partitions += trace.faults.1;
        unknown += trace.faults.2;
        acknowledged += trace.acknowledged.len();
    }
    eprintln!("{crashes} crashes, {partitions} partitions, {unknown} unknown, {acknowledged} acknowledged");
    assert!(crashes > 10 && partitions > 5 && unknown > 5, "the runs saw too little trouble");
    assert!(acknowledged > 500, "the runs did too little");
}

#[test]
fn a_seed_replays_its_run() {
    let (first, second) = (run(77), run(77));
    let differs = first.order.iter().zip(&second.order).position(|(first, second)| first != second);
    if let Some(at) = differs {
        panic!("the runs part at {:?} and {:?}", first.order[at], second.order[at]);
    }
    assert!(first == second, "the runs end differently");
}

/// The environment variable that names the bug a process has to look for.
const LOOK_FOR: &str = "VULPES_LOOK_FOR";

const BUGS: [Mutant; 3] = [Mutant::SkipFsync, Mutant::ReuseSlot, Mutant::ForgetIncarnation];

/// Shows that the checks can fail.
///
/// Each bug gets a separate process: when a task of openraft panics, turmoil makes tokio shut down, which drops its
/// tasks while holding the scheduler. If one of them wakes another in a destructor, that aborts the process, or not,
/// depending on how many tasks there ever were.
#[test]
fn planted_bugs_are_found() {
    let program = std::env::current_exe().expect("this program");
    for bug in BUGS {
        let mut look = std::process::Command::new(&program);
        look.args(["--exact", "chaos::a_planted_bug", "--nocapture"]);
        let looked = look.env(LOOK_FOR, format!("{bug:?}")).output().expect("it runs");
        let said = String::from_utf8_lossy(&looked.stderr);
        let complaint = said.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
        assert!(!looked.status.success(), "{bug:?} went unnoticed");
        println!("{bug:?}: {}", complaint.expect("a run that fails says why"));
    }
}

/// Searches for the bug that the environment names, if any.
#[test]
fn a_planted_bug() {
    let Ok(name) = std::env::var(LOOK_FOR) else { return };
    let bug = BUGS.into_iter().find(|bug| format!("{bug:?}") == name);
    plant(Some(bug.expect("one of the bugs")));
    (2_000..2_010).for_each(|seed| drop(run(seed)));
}

//! The whole cluster in a deterministic simulation: production code, simulated edges, one seed per run.
//!
//! A run starts a cluster, lets clients of both protocols publish and subscribe at all nodes, crashes, cuts off and slows down
//! nodes as its seed determines, and checks `src/ARCHITECTURE.md`, "What must never happen", after every simulated millisecond.
//! When the last fault has ended, every node has to serve again, all have to show the same log, and every subscriber has to
//! have read it.
//!
//! In about every other run limits are small and answers late (`tuning`), so that events that are rare with production limits
//! happen all the time. In every third, segments wait for storage votes, as they do with split roles; in the others they are
//! proposed early. In some, a disk rots: its node refuses to start and stays down, or repairs what it has.
//!
//! In every third run the cluster has users, and rules that change (`insiders`).
//!
//! - `VULPES_SEED=17 cargo test --test simulation replay -- --nocapture` runs one seed and prints its trace.
//!   With `VULPES_VOTES=1`, segments are proposed with storage votes in it; with `VULPES_GROUPS=1`, it has two storage
//!   groups. With `VULPES_CLOCKS=1`, clocks are wrong by 400 days.
//! - `VULPES_SEEDS=5000 cargo test --test simulation more -- --nocapture` runs this many seeds in addition to those
//!   that always run, on all cores; `VULPES_FROM=$(date +%s)00000` starts at seeds that have never run.
//!
//! Invariant: a seed means the same run every time, which `a_seed_means_one_run` proves. A seed that ever failed has a
//! name in [`REGRESSIONS`].
//!
//! Deliberately absent: real sockets, files and clients (`processes`).

#[cfg(not(tokio_unstable))]
compile_error!(
    "the simulation is deterministic only with `--cfg tokio_unstable`, which .cargo/config.toml sets; \
     RUSTFLAGS in the environment replaces it: add the flag there, or unset RUSTFLAGS"
);

mod births;
mod calls;
mod chance;
mod clients;
mod cluster;
mod connection;
mod delays;
mod insiders;
mod keepers;
mod locks;
mod log;
mod mqtt;
mod mutants;
mod node;
mod observe;
mod plan;
mod record;
mod registers;
mod run;
mod state;
mod times;
mod tuning;
mod value;
mod wamp;
mod watchers;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use tokio::time::Instant;

use plan::Plan;
use record::Counts;
use run::{run, Report};

/// Seeds that once found a bug. Most did so when every segment waited for storage votes.
const REGRESSIONS: &[(&str, u64)] = &[
    ("a storage that is away holds up who can ask another", 11),
    ("the log is released past its last value", 2_026_112_767),
    ("a disk rots before the cluster has met for the first time", 20_003),
    ("a disk that rots has an older commit of its database, whole", 179_581_582_500_058),
    ("a disk that rots takes Raft's log back", 179_582_026_900_126),
    ("bits of a database's magic number flip", 179_582_385_003_612),
    ("whom every crash was meant for had ended by its disk", 179_582_026_900_090),
    ("a storage deletes bodies that a member of sync still waits for", 179_585_430_600_152),
    ("a leader knows from its last life alone what is committed", 179_587_224_700_482),
    (
        "a session begins without the last word of the one before, which comes later",
        179_587_926_401_390,
    ),
    ("a publish is acknowledged right before the run is judged", 179_588_109_102_168),
    ("an older connection subscribes behind the newer one's beginning", 179_580_564_000_856),
    ("a node ends while it has live subscriptions", 179_605_686_300_077),
];

/// Where the additional seeds start.
const MORE: u64 = 10_000;

/// Report progress after this many seeds: a long run may be cut short, and its results still count.
const PROGRESS: u64 = 100;

/// What has to happen in a run on average. Only some runs have a failing disk.
const ATTEMPTS: u64 = 60;
const GRANTS: u64 = 6;
const ANSWERS: u64 = 10;
const JOINS: u64 = 2;
const CALLS: u64 = 20;
/// Of a run with rules.
const HEARD: u64 = 20;
const EARLY: u64 = 20;
const FAILED_DISKS: f64 = 0.3;
const ROTTEN_DISKS: f64 = 0.08;

fn print(report: &Report) {
    report.trace.iter().for_each(|line| println!("{line}"));
    println!(
        "seed {}: {} ms, {} slots, {:?}: {}",
        report.seed,
        report.simulated,
        report.slots,
        report.counts,
        report.failure.as_deref().unwrap_or("passed")
    );
}

/// The sum of many runs.
#[derive(Default)]
struct Sum {
    runs: u64,
    /// Runs whose segments wait for storage votes.
    voting: u64,
    /// Runs about clocks, in which no disk rots.
    clocks: u64,
    /// Runs in which rules change.
    rules: u64,
    counts: Counts,
    failures: Vec<String>,
}

impl Sum {
    fn add(&mut self, plan: &Plan, report: Report) {
        self.runs += 1;
        self.voting += u64::from(plan.tuning.is_voting());
        self.clocks += u64::from(plan.clocks.is_some());
        self.rules += u64::from(plan.rules);
        self.counts += report.counts;
        let seed = report.seed;
        self.failures.extend(report.failure.map(|reason| {
            format!(
                "seed {seed}: {reason}\n    \
                 VULPES_SEED={seed} cargo test --test simulation replay -- --nocapture"
            )
        }));
    }

    /// Fails if a run failed, with how to replay it, or if too little happened in all runs together.
    fn judge(self) {
        let Self { runs, voting, clocks, rules, counts, failures } = self;
        assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.join("\n"));
        assert!(
            counts.acknowledged * 2 >= counts.attempts
                && counts.attempts >= ATTEMPTS * runs
                && counts.grants >= GRANTS * runs
                && counts.calls >= CALLS * runs
                && counts.heard >= HEARD * rules
                && counts.answers >= ANSWERS * runs
                && counts.joins >= JOINS * runs
                && counts.early >= EARLY * (runs - voting)
                && counts.broken as f64 >= FAILED_DISKS * runs as f64
                && counts.rotten as f64 >= ROTTEN_DISKS * (runs - clocks) as f64
                && counts.clocks >= runs,
            "too little happened in {runs} runs: {counts:?}"
        );
    }
}

/// Runs seeds one after the other.
fn check(seeds: Range<u64>) {
    let mut sum = Sum::default();
    for plan in seeds.map(Plan::new) {
        sum.add(&plan, run(&plan, None));
    }
    sum.judge();
}

/// Runs seeds on all cores, and reports how many per minute.
fn check_on_all_cores(seeds: Range<u64>) {
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, sum) = (AtomicU64::new(seeds.start), Mutex::new(Sum::default()));
    println!("seeds {} to {} on {threads} cores", seeds.start, seeds.end - 1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if !seeds.contains(&seed) {
                    return;
                }
                let plan = plan(seed);
                let report = run(&plan, None);
                if let Some(reason) = &report.failure {
                    println!("seed {seed}: {reason}");
                }
                let mut sum = sum.lock().expect("no run panics");
                sum.add(&plan, report);
                if sum.runs % PROGRESS == 0 {
                    println!("{} seeds, {} failed", sum.runs, sum.failures.len());
                }
            });
        }
    });
    let sum = sum.into_inner().expect("no run panics");
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!("{} seeds, {:.0} a minute: {:?}", sum.runs, sum.runs as f64 / minutes, sum.counts);
    sum.judge();
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// The plan that the environment selects.
fn plan(seed: u64) -> Plan {
    if number("VULPES_CLOCKS").is_some() {
        return Plan::with_wrong_clocks(seed);
    }
    match (number("VULPES_VOTES"), number("VULPES_GROUPS")) {
        (None, None) => Plan::new(seed),
        (Some(_), None) => Plan::with_votes(seed),
        (_, Some(_)) => Plan::with_groups(seed),
    }
}

/// Only a few: each run of `.ci/run` adds a hundred new ones.
#[test]
fn seeds_00_to_19() {
    check(0..20);
}

/// Runs special plans, each of which has to pass, and sums up what happened.
fn all_pass(plans: impl Iterator<Item = Plan>) -> Counts {
    let mut counts = Counts::default();
    for plan in plans {
        let report = run(&plan, None);
        if report.failure.is_some() {
            print(&report);
        }
        assert_eq!(report.failure, None, "seed {}", report.seed);
        counts += report.counts;
    }
    counts
}

#[test]
fn regressions() {
    all_pass(REGRESSIONS.iter().flat_map(|(name, seed)| {
        println!("{name}");
        [Plan::with_votes(*seed), Plan::new(*seed)]
    }));
}

#[test]
fn replay() {
    let Some(seed) = number("VULPES_SEED") else { return };
    if std::env::var("RUST_LOG").is_ok() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .without_time()
            .with_ansi(false)
            .with_writer(std::io::stdout)
            .init();
    }
    let report = run(&plan(seed), None);
    print(&report);
    assert_eq!(report.failure, None);
}

#[test]
fn more() {
    let Some(count) = number("VULPES_SEEDS") else { return };
    let from = number("VULPES_FROM").unwrap_or(MORE);
    check_on_all_cores(from..from + count);
}

#[test]
fn each_storage_group_keeps_its_own_part() {
    all_pass((0..8).map(Plan::with_groups));
}

#[test]
fn a_wiped_disk_is_another_node() {
    all_pass((0..8).map(Plan::with_wiped_disk));
    all_pass((0..8).map(Plan::with_wiped_disk_and_groups));
}

#[test]
fn a_body_that_rots_is_mended() {
    let rotten = all_pass((0..8).map(Plan::with_rot)).rotten;
    assert!(rotten >= 4, "{rotten} bodies have rotted: too few to mean anything");
}

#[test]
fn a_database_from_a_backup_is_refused() {
    let counts = all_pass((0..8).map(Plan::with_backup));
    assert!(counts.retired >= 6, "{} nodes have refused: too few to mean anything", counts.retired);
}

#[test]
fn an_older_copy_of_a_folder_is_refused() {
    let counts = all_pass((0..8).map(Plan::with_older_folder));
    assert!(counts.retired >= 5, "{} nodes have refused: too few to mean anything", counts.retired);
}

#[test]
fn a_node_that_was_away_for_too_long_fills_in_what_it_lacks() {
    for plan in [Plan::with_absence, Plan::with_absence_and_groups] {
        let mut counts = all_pass((0..8).map(plan));
        // Whether the log is released in time depends on the schedule, which changes with any change of the code.
        for seed in 8..40 {
            if counts.left_behind > 0 {
                break;
            }
            counts += all_pass([plan(seed)].into_iter());
        }
        assert!(counts.left_behind >= 1, "no node was left behind");
    }
}

#[test]
fn a_log_that_is_released_serves_as_one_that_is_not() {
    let voting = |seed| Plan::with_retention(seed).voting();
    let counts = all_pass((0..20).flat_map(|seed| [Plan::with_retention(seed), voting(seed)]));
    println!("released {} times, {} nodes were left behind", counts.released, counts.left_behind);
    // Nodes that are left behind have separate tests, in which they are away for long enough.
    assert!(counts.released >= 24, "too little happened to mean anything");
}

#[test]
fn wrong_clocks_move_the_orders_time_nowhere() {
    let counts = all_pass((0..8).map(Plan::with_wrong_clocks));
    println!("released {} times, {} delayed wills", counts.released, counts.delayed);
    assert!(counts.released >= 8, "too little is released because of its age");
    assert!(counts.delayed >= 24, "too few wills were delayed");
}

#[test]
fn a_seed_means_one_run() {
    for seed in [1, 2, 3] {
        let plan = Plan::new(seed);
        let (first, second) = (run(&plan, None), run(&plan, None));
        let lines = first.trace.iter().zip(&second.trace);
        let differs = lines.clone().position(|(one, other)| one != other);
        if let Some(at) = differs {
            panic!("seed {seed}: {} became {}", first.trace[at], second.trace[at]);
        }
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
        assert!(first.trace.len() > 500, "seed {seed}: a trace that is too short to prove much");
    }
}

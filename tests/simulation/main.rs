//! The whole cluster in a deterministic simulation: production code, simulated edges, one seed a run.
//!
//! A run starts a cluster, lets clients of both protocols publish and subscribe at all nodes, crashes, cuts off and
//! slows down nodes as its seed says, and checks DESIGN.md section 6 after every simulated millisecond. When the last
//! fault has ended, every node has to serve again, all have to show the same log, and every subscriber has to have read
//! it.
//!
//! - `VULPES_SEED=17 cargo test --test simulation replay -- --nocapture` runs one seed and prints its trace.
//! - `VULPES_SEEDS=5000 cargo test --test simulation more -- --nocapture` runs as many seeds beyond those run always.
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

mod calls;
mod chance;
mod clients;
mod cluster;
mod connection;
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
mod value;
mod wamp;
mod watchers;

use std::ops::Range;

use plan::Plan;
use run::{run, Report};

/// Seeds that found something once.
const REGRESSIONS: &[(&str, u64)] = &[];

/// Where `VULPES_SEEDS` goes on.
const MORE: u64 = 10_000;

/// Operations on registers that have an answer, and subscriptions that join values and changes, in a run on average.
const ANSWERS: u64 = 10;
const JOINS: u64 = 2;

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

/// Runs seeds; where some fail, tells how to see each.
fn check(seeds: impl Iterator<Item = u64>) {
    let (mut runs, mut attempts, mut acknowledged, mut answers, mut joins) = (0, 0, 0, 0, 0);
    let failures: Vec<String> = seeds
        .filter_map(|seed| {
            let report = run(&Plan::new(seed), None);
            attempts += report.counts.attempts;
            acknowledged += report.counts.acknowledged;
            runs += 1;
            answers += report.counts.answers;
            joins += report.counts.joins;
            let reason = report.failure?;
            Some(format!(
                "seed {seed}: {reason}\n    \
                 VULPES_SEED={seed} cargo test --test simulation replay -- --nocapture"
            ))
        })
        .collect();
    assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.join("\n"));
    assert!(
        acknowledged * 2 >= attempts,
        "of {attempts} publishes only {acknowledged} were acknowledged"
    );
    assert!(
        answers >= ANSWERS * runs && joins >= JOINS * runs,
        "{answers} operations on registers and {joins} joins in {runs} runs are too few"
    );
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

macro_rules! seeds {
    ($($name:ident: $seeds:expr,)*) => {
        $(
            #[test]
            fn $name() {
                let seeds: Range<u64> = $seeds;
                check(seeds);
            }
        )*
    };
}

seeds! {
    seeds_000_to_049: 0..50,
    seeds_050_to_099: 50..100,
    seeds_100_to_149: 100..150,
    seeds_150_to_199: 150..200,
    seeds_200_to_239: 200..240,
}

#[test]
fn regressions() {
    check(REGRESSIONS.iter().map(|(name, seed)| {
        println!("{name}");
        *seed
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
    let report = run(&Plan::new(seed), None);
    print(&report);
    assert_eq!(report.failure, None);
}

#[test]
fn more() {
    let Some(count) = number("VULPES_SEEDS") else { return };
    check(MORE..MORE + count);
}

#[test]
fn a_wiped_disk_is_another_node() {
    for seed in 0..8 {
        let report = run(&Plan::with_wiped_disk(seed), None);
        if report.failure.is_some() {
            print(&report);
        }
        assert_eq!(report.failure, None, "seed {seed}");
    }
}

#[test]
fn a_log_that_is_released_serves_as_one_that_is_not() {
    let (mut left_behind, mut released) = (0, 0);
    for seed in 0..10 {
        let report = run(&Plan::with_retention(seed), None);
        if report.failure.is_some() {
            print(&report);
        }
        assert_eq!(report.failure, None, "seed {seed}");
        left_behind += report.counts.left_behind;
        released += report.counts.released;
    }
    println!("released {released} times, {left_behind} nodes were left behind");
    assert!(released >= 10 && left_behind >= 1, "too little happened to mean anything");
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

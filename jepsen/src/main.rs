//! The fault-injection suite: runs, and verdicts on runs.
//!
//! Invariant: the exit code is 0 only if everything that was requested was checked and nothing was wrong; 1 if the cluster
//! broke a promise; 2 if the run reached no verdict.
//!
//! Deliberately absent: decisions; see the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use clap::{Args, Parser, Subcommand};
use vulpes_jepsen::check::{Outcome, Verdict, CHECKS};
use vulpes_jepsen::dice::Dice;
use vulpes_jepsen::layout::{Layout, NODES};
use vulpes_jepsen::matrix::{confessed, Planted, PLANTED, SECONDS};
use vulpes_jepsen::nemesis::NEMESES;
use vulpes_jepsen::op::Plan;
use vulpes_jepsen::report;
use vulpes_jepsen::run::{find_binary, Settings};
use vulpes_jepsen::store;
use vulpes_jepsen::workload::WORKLOADS;

/// Injects faults into a Vulpes cluster, and judges what its clients saw
#[derive(Debug, Parser)]
#[command(name = "vulpes-jepsen", version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One run: a real cluster, real clients, faults, and a verdict
    Run(Run),
    /// Run again and again with new seeds, until time is up or something is wrong
    Soak(Soak),
    /// Plant bugs in the nodes, one after the other: each must be found by its check, and the same run must be green
    /// without it
    Matrix(Matrix),
    /// Judge the history of an earlier run again
    Check {
        /// The run's folder
        folder: PathBuf,
    },
    /// Name all workloads, nemeses and checks
    List,
}

#[derive(Debug, Clone, Args)]
struct Run {
    /// What clients do, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "log")]
    workload: Vec<String>,
    /// Faults to inject, separated by commas; "none" for nothing
    #[arg(long, value_delimiter = ',', default_value = "kill,partition")]
    nemesis: Vec<String>,
    /// How long to inject faults, in seconds
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u64).range(10..86_400))]
    time: u64,
    /// Nodes, with all three roles each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=NODES), conflicts_with = "split")]
    nodes: u64,
    /// Nodes with one role each: how many of sync, storages, entries
    #[arg(long, value_name = "SYNC,STORAGES,ENTRIES", num_args = 0..=1, default_missing_value = "3,3,3", value_parser = split)]
    split: Option<Layout>,
    /// Number of storage groups, all of the same size
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=NODES))]
    groups: u64,
    /// The seed of all randomness [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// The router's program [default: `vulpes` beside this one]
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where runs are kept
    #[arg(long, default_value = "store")]
    store: PathBuf,
}

#[derive(Debug, Args)]
struct Soak {
    #[command(flatten)]
    run: Run,
    /// How long, in minutes
    #[arg(long, default_value_t = 60)]
    minutes: u64,
}

#[derive(Debug, Args)]
struct Matrix {
    /// Only these bugs, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    bug: Vec<String>,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The router's program, built with the features `faults` and `mutants` [default: `vulpes` beside this one]
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where runs are kept
    #[arg(long, default_value = "store")]
    store: PathBuf,
}

/// Parses the value of `--split`.
fn split(text: &str) -> Result<Layout> {
    let counts: Vec<u64> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let [sync, storages, entries] = counts[..] else { bail!("three numbers, such as 3,3,2") };
    Layout::split(sync, storages, entries)
}

/// The user wants the program to end.
#[derive(Debug)]
struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stopped by Ctrl-C")
    }
}

impl std::error::Error for Stopped {}

fn main() -> ExitCode {
    let program = Program::parse();
    let outcome = match program.command {
        Command::List => {
            list();
            Ok(Outcome::Passed)
        }
        Command::Check { folder } => check(&folder),
        Command::Run(run) => start(&run),
        Command::Soak(soak) => soak_for(&soak),
        Command::Matrix(matrix) => plant(&matrix),
    };
    match outcome {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Violated) => ExitCode::from(1),
        Ok(Outcome::Inconclusive) => ExitCode::from(2),
        Err(error) => {
            eprintln!("the harness failed: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn list() {
    println!("workloads");
    for (name, what) in WORKLOADS {
        println!("  {name:<12} {what}");
    }
    println!("nemeses (* needs a router built with --features faults)");
    for (name, what, needs) in NEMESES {
        println!("  {name:<11}{} {what}", if needs { "*" } else { " " });
    }
    println!("checks");
    for check in CHECKS {
        println!("  {:<12} {}", check.name, check.claim);
    }
}

fn check(folder: &std::path::Path) -> Result<Outcome> {
    let (story, verdict) = store::judge_folder(folder)?;
    report::write(folder, &story, &verdict)?;
    println!("{verdict}");
    Ok(verdict.outcome)
}

/// Time since 1970. It is only used for names of folders and for seeds.
#[allow(clippy::disallowed_methods)]
fn clock() -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or_default()
}

fn start(run: &Run) -> Result<Outcome> {
    let seed = run.seed.unwrap_or_else(|| Dice::new(clock().as_nanos() as u64).below(1_000_000));
    Ok(once(&settings(run, seed)?)?.outcome)
}

fn once(settings: &Settings) -> Result<Verdict> {
    let Plan { seed, workloads, nemeses, seconds, .. } = &settings.plan;
    println!("seed {seed}: {workloads:?} under {nemeses:?} for {seconds} s");
    let runtime = tokio::runtime::Runtime::new()?;
    let ran = runtime.block_on(async {
        tokio::select! {
            ran = vulpes_jepsen::run::run(settings) => ran,
            _ = tokio::signal::ctrl_c() => Err(Stopped.into()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    println!("  {}", settings.folder.display());
    ran?;
    let (story, verdict) = store::judge_folder(&settings.folder)?;
    report::write(&settings.folder, &story, &verdict)?;
    println!("{verdict}");
    store::settle_disks(&settings.folder, verdict.outcome)?;
    Ok(verdict)
}

fn settings(run: &Run, seed: u64) -> Result<Settings> {
    let mut nemeses = run.nemesis.clone();
    nemeses.retain(|name| name != "none");
    for name in &nemeses {
        let known = NEMESES.iter().any(|(known, ..)| known == name);
        ensure!(known, "there is no nemesis {name:?}; see `vulpes-jepsen list`");
    }
    for name in &run.workload {
        let known = WORKLOADS.iter().any(|(known, _)| known == name);
        ensure!(known, "there is no workload {name:?}; see `vulpes-jepsen list`");
    }
    let plan = Plan {
        seed,
        layout: run
            .split
            .clone()
            .unwrap_or_else(|| Layout::whole(run.nodes))
            .grouped(run.groups)?,
        workloads: run.workload.clone(),
        nemeses,
        seconds: run.time,
    };
    let binary = run.binary.clone().map_or_else(find_binary, Ok)?;
    let store = std::path::absolute(&run.store).context("the store's path")?;
    let folder = store::make(&store, clock().as_secs(), seed)?;
    Ok(Settings { plan, binary, folder, planted: None })
}

fn soak_for(soak: &Soak) -> Result<Outcome> {
    let end = clock() + Duration::from_secs(60 * soak.minutes);
    let first = soak.run.seed.unwrap_or_else(|| clock().as_secs() % 1_000_000);
    let mut runs = 0;
    while clock() < end {
        let seed = Some(first + runs);
        runs += 1;
        let outcome = start(&Run { seed, ..soak.run.clone() })?;
        if outcome != Outcome::Passed {
            println!("run {runs}, seed {seed:?}");
            return Ok(outcome);
        }
    }
    println!("{runs} runs passed");
    Ok(Outcome::Passed)
}

/// Each bug in turn: with it and without, on the same seed.
fn plant(matrix: &Matrix) -> Result<Outcome> {
    let wanted = |planted: &&Planted| {
        matrix.bug.is_empty() || matrix.bug.iter().any(|bug| bug == planted.bug)
    };
    let bugs: Vec<&Planted> = PLANTED.iter().filter(wanted).collect();
    ensure!(!bugs.is_empty(), "there is no bug {:?}", matrix.bug);
    let mut lines = Vec::new();
    let mut outcome = Outcome::Passed;
    for planted in bugs {
        let (line, caught) = hunt(matrix, planted)?;
        println!("{line}\n");
        lines.push(line);
        if !caught {
            outcome = Outcome::Violated;
        }
    }
    println!("{}", lines.join("\n"));
    Ok(outcome)
}

/// Searches for one bug, then repeats the run without it. Returns the result in words, and whether it is as expected.
fn hunt(matrix: &Matrix, planted: &Planted) -> Result<(String, bool)> {
    let Planted { bug, checks, workloads, nemeses, budget } = *planted;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let run = Run {
        workload: names(workloads),
        nemesis: names(nemeses),
        time: SECONDS,
        nodes: 3,
        split: None,
        groups: 1,
        seed: None,
        binary: matrix.binary.clone(),
        store: matrix.store.clone(),
    };
    for seed in matrix.seed..matrix.seed + budget {
        println!("with the bug {bug}:");
        let mut ill = settings(&run, seed)?;
        ill.planted = Some(bug);
        let red = match once(&ill) {
            Ok(verdict) => verdict.red(),
            // A run that does not finish has no history that a check could judge.
            Err(error) if error.is::<Stopped>() => return Err(error),
            Err(error) => {
                println!("  no verdict: {error:#}");
                continue;
            }
        };
        ensure!(confessed(&ill.folder, bug), "no node has the bug {bug}: its feature is missing");
        let Some(check) = checks.iter().find(|check| red.contains(check)) else { continue };
        println!("without it:");
        let clean = once(&settings(&run, seed)?)?;
        let green = clean.outcome == Outcome::Passed;
        let runs = seed - matrix.seed + 1;
        let without = if green { "green" } else { "NOT GREEN" };
        return Ok((format!("{bug:<24} seen by {check} in run {runs}; {without} without"), green));
    }
    Ok((format!("{bug:<24} NOT SEEN by any of {checks:?} in {budget} runs"), false))
}

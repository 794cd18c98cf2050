//! `vulpes bench compare`: several targets, measured in turn A B A B …, so that other load on the machine affects all
//! of them alike; with `--vary`, at each value of an option.
//!
//! Invariant: every target gets the same load, and each figure is shown with its minimum and maximum.
//!
//! Deliberately absent: whether a difference is significant. The spread is more informative than a significance test of three
//! rounds.

mod curve;
mod summary;
mod svg;
mod target;
mod vary;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::super::Reported;
use super::{print, Knobs, Run};
use curve::Curve;
use summary::{Comparison, Summary};
use target::Target;
use vary::Vary;

/// Most targets.
const TARGETS: usize = 16;

const EXAMPLES: &str = "\
Examples:
  vulpes bench compare --target vulpes=127.0.0.1:1881,127.0.0.1:1882,127.0.0.1:1883 --target mosquitto=127.0.0.1:1884
  vulpes bench compare --target mqtt=127.0.0.1:1881 --target wamp=ws://127.0.0.1:9031/ --rounds 5 --svg compare.svg
  vulpes bench compare --target one=127.0.0.1:1881 --target three=127.0.0.1:1891:mqtt --connections 100 --size 1024
  vulpes bench compare --target vulpes=127.0.0.1:1881 --vary connections=1,10,100,1000 --svg connections.svg

Ratios compare medians with the first target's. The exit code is 1 if any single run would have failed.";

/// Measure several targets in turn, and show them side by side
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Compare {
    /// What to compare: a name, its WAMP URLs or MQTT addresses, and :mqtt or :wamp at the end for the protocol, if
    /// it does not follow from the address
    #[arg(long = "target", value_name = "NAME=ADDRESS[,ADDRESS…][:PROTOCOL]", required = true)]
    targets: Vec<Target>,
    /// How often each target is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Measure at each of these values of connections, window, size or subscribers
    #[arg(long, value_name = "KNOB=VALUE[,VALUE…]")]
    vary: Option<Vary>,
    #[command(flatten)]
    knobs: Knobs,
    /// Also draw it
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let comparisons = self.measure().await?;
        let (picture, is_clean) = match &self.vary {
            Some(vary) => {
                let points = vary.values.iter().copied().zip(comparisons);
                let curve = Curve::new(vary.name(), points);
                print(&curve, self.json)?;
                (curve.draw(), curve.is_clean())
            }
            None => {
                print(&comparisons[0], self.json)?;
                (svg::draw(&comparisons[0]), comparisons[0].is_clean())
            }
        };
        if let Some(path) = &self.svg {
            std::fs::write(path, picture)
                .with_context(|| format!("can't write {}", path.display()))?;
        }
        if is_clean {
            Ok(())
        } else {
            Err(Reported.into())
        }
    }

    /// One comparison for each varied value, or the only one.
    async fn measure(&self) -> anyhow::Result<Vec<Comparison>> {
        anyhow::ensure!(self.targets.len() <= TARGETS, "{TARGETS} targets at most can be compared");
        for (number, target) in self.targets.iter().enumerate() {
            let again = self.targets[..number].iter().any(|other| other.name == target.name);
            anyhow::ensure!(!again, "two targets have the name {:?}", target.name);
        }
        let knobs = match &self.vary {
            Some(vary) => vary.values.iter().map(|value| vary.set(&self.knobs, *value)).collect(),
            None => vec![self.knobs.clone()],
        };
        let mut reports = vec![vec![Vec::new(); self.targets.len()]; knobs.len()];
        for round in 1..=self.rounds {
            for (knobs, reports) in knobs.iter().zip(&mut reports) {
                for (target, reports) in self.targets.iter().zip(reports) {
                    let run = run_of(target, knobs);
                    let report = run.measure().await.with_context(|| target.name.clone())?;
                    let (rate, rounds) = (report.acknowledged_per_second, self.rounds);
                    let settings = run.settings();
                    eprintln!(
                        "round {round} of {rounds}: {} {rate:.0} a second: {settings}",
                        target.name
                    );
                    reports.push(report);
                }
            }
        }
        let compare = |(knobs, reports): (&Knobs, Vec<Vec<_>>)| {
            let summaries = self.targets.iter().zip(&reports);
            let summaries =
                summaries.map(|(target, reports)| Summary::new(target, reports)).collect();
            Comparison::new(run_of(&self.targets[0], knobs).settings(), self.rounds, summaries)
        };
        Ok(knobs.iter().zip(reports).map(compare).collect())
    }
}

fn run_of(target: &Target, knobs: &Knobs) -> Run {
    Run {
        protocol: target.protocol,
        targets: target.addresses.clone(),
        callees: Vec::new(),
        replay: false,
        knobs: knobs.clone(),
    }
}

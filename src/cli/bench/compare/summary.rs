//! The rounds of each target summed up, for people and as JSON.
//!
//! Invariant: a median lies between the minimum and the maximum, and a ratio is one of medians.
//!
//! Deliberately absent: measuring, and drawing.

use std::fmt;

use comfy_table::{presets, CellAlignment, Table};
use serde::Serialize;

use super::target::Target;
use crate::cli::bench::report::{Report, Settings};

/// One figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
    /// The median relative to that of the first target; none if that is 0.
    pub(super) ratio: Option<f64>,
}

impl Spread {
    /// The spread of at least one value, without a ratio.
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => (values[middle - 1] + values[middle]) / 2.0,
        };
        Self { min: values[0], median, max: values[values.len() - 1], ratio: None }
    }

    fn relate(&mut self, first: Self) {
        self.ratio = (first.median > 0.0).then(|| self.median / first.median);
    }
}

/// One target.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    pub(super) name: String,
    protocol: &'static str,
    addresses: Vec<String>,
    pub(super) acknowledged_per_second: Spread,
    pub(super) deliveries_per_second: Spread,
    /// From request to answer.
    pub(super) p50_us: Spread,
    pub(super) p99_us: Spread,
    /// Median of 64 KiB written and synced, 200 times per round; none if it could not be measured.
    pub(super) disk_median_us: Option<Spread>,
    pub(super) disk_p99_us: Option<Spread>,
    /// Rounds in which something was lost, doubled or out of order, or a connection failed.
    unclean_rounds: usize,
    errors: Vec<String>,
}

impl Summary {
    pub(super) fn new(target: &Target, reports: &[Report]) -> Self {
        let spread = |figure: fn(&Report) -> f64| Spread::of(reports.iter().map(figure));
        let disks: Vec<_> = reports.iter().filter_map(|report| report.disk.as_ref()).collect();
        let disk = |figure: fn(&super::super::disk::Disk) -> u64| {
            let values = disks.iter().map(|disk| figure(disk) as f64);
            (!disks.is_empty()).then(|| Spread::of(values))
        };
        Self {
            name: target.name.clone(),
            protocol: target.protocol.name(),
            addresses: target.addresses.clone(),
            acknowledged_per_second: spread(|report| report.acknowledged_per_second),
            deliveries_per_second: spread(|report| report.deliveries_per_second),
            p50_us: spread(|report| report.latency.p50_us as f64),
            p99_us: spread(|report| report.latency.p99_us as f64),
            disk_median_us: disk(|disk| disk.median_us),
            disk_p99_us: disk(|disk| disk.p99_us),
            unclean_rounds: reports.iter().filter(|report| !report.is_clean()).count(),
            errors: reports.iter().flat_map(|report| report.errors.clone()).collect(),
        }
    }

    /// The figures to compare: name, values, and whether they are in microseconds.
    pub(super) fn figures(&self) -> [(&'static str, Spread, bool); 4] {
        [
            ("acknowledged/s", self.acknowledged_per_second, false),
            ("deliveries/s", self.deliveries_per_second, false),
            ("p50", self.p50_us, true),
            ("p99", self.p99_us, true),
        ]
    }
}

/// All targets.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Comparison {
    /// The first target's settings; the others have the same, except for the protocol.
    pub(super) settings: Settings,
    pub(super) rounds: u16,
    /// In the order in which they were named; at least one.
    pub(super) targets: Vec<Summary>,
}

impl Comparison {
    pub(super) fn new(settings: Settings, rounds: u16, mut targets: Vec<Summary>) -> Self {
        let first = targets[0].clone();
        for target in &mut targets {
            target.acknowledged_per_second.relate(first.acknowledged_per_second);
            target.deliveries_per_second.relate(first.deliveries_per_second);
            target.p50_us.relate(first.p50_us);
            target.p99_us.relate(first.p99_us);
        }
        Self { settings, rounds, targets }
    }

    /// Whether nothing went wrong.
    pub(super) fn is_clean(&self) -> bool {
        self.targets.iter().all(|target| target.unclean_rounds == 0)
    }

    /// What went wrong, a line each.
    pub(super) fn troubles(&self) -> impl Iterator<Item = String> + '_ {
        self.targets.iter().flat_map(|Summary { name, unclean_rounds, errors, .. }| {
            let unclean = (*unclean_rounds > 0)
                .then(|| format!("{unclean_rounds} rounds of {name} were not clean"));
            let errors = errors.iter().map(move |error| format!("error       {name}: {error}"));
            unclean.into_iter().chain(errors)
        })
    }
}

/// A figure with its significant digits.
pub(super) fn shown(value: f64, micros: bool) -> String {
    match micros {
        true => format!("{:.2} ms", value / 1000.0),
        false => format!("{value:.0}"),
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {} rounds in turn", self.settings, self.rounds)?;
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        let what = self.settings.measured.plural();
        table.set_header([what, "target", "min", "median", "max", "ratio"]);
        let first = &self.targets[0];
        for (at, (name, _, micros)) in first.figures().into_iter().enumerate() {
            for (target, name) in
                self.targets.iter().zip([name].into_iter().chain(std::iter::repeat("")))
            {
                let (_, spread, _) = target.figures()[at];
                let ratio = spread.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
                table.add_row([
                    name.to_owned(),
                    target.name.clone(),
                    shown(spread.min, micros),
                    shown(spread.median, micros),
                    shown(spread.max, micros),
                    ratio,
                ]);
            }
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for line in table.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        for target in &self.targets {
            if let (Some(median), Some(p99)) = (target.disk_median_us, target.disk_p99_us) {
                let (name, least, most) = (&target.name, median.min, median.max);
                let (middle, p99) = (median.median, p99.median);
                writeln!(
                    f,
                    "disk before {name}: 64 KiB written and synced in {middle:.0} µs ({least:.0} to {most:.0}; p99 {p99:.0})"
                )?;
            }
        }
        self.troubles().try_for_each(|trouble| writeln!(f, "{trouble}"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::bench::load::Work;
    use crate::cli::bench::Protocol;

    #[test]
    fn spreads_add_up() {
        for (values, min, median, max) in [
            (&[5.0][..], 5.0, 5.0, 5.0),
            (&[9.0, 1.0], 1.0, 5.0, 9.0),
            (&[9.0, 1.0, 2.0], 1.0, 2.0, 9.0),
            (&[4.0, 3.0, 2.0, 1.0], 1.0, 2.5, 4.0),
        ] {
            let expected = Spread { min, median, max, ratio: None };
            assert_eq!(Spread::of(values.iter().copied()), expected, "{values:?}");
        }
    }

    /// Two targets with these medians of all figures.
    pub(in super::super) fn comparison(medians: &[f64]) -> Comparison {
        let settings = Settings {
            protocol: "mqtt",
            measured: Work::Publish,
            connections: 1,
            window: 1,
            rate_per_second: None,
            size_bytes: 16,
            seconds: 1,
            subscribers: 0,
            replay: false,
            callees: 0,
        };
        let summary = |(number, median): (usize, &f64)| {
            let spread = Spread::of([median - 1.0, *median, median + 1.0].into_iter());
            Summary {
                name: format!("t<{number}>"),
                protocol: Protocol::Mqtt.name(),
                addresses: Vec::new(),
                acknowledged_per_second: spread,
                deliveries_per_second: Spread::of([0.0].into_iter()),
                p50_us: spread,
                p99_us: spread,
                disk_median_us: Some(spread),
                disk_p99_us: Some(spread),
                unclean_rounds: 0,
                errors: Vec::new(),
            }
        };
        let targets = medians.iter().enumerate().map(summary).collect();
        Comparison::new(settings, 3, targets)
    }

    #[test]
    fn ratios_are_to_the_first() {
        let comparison = comparison(&[2000.0, 500.0]);
        let ratios: Vec<_> =
            comparison.targets.iter().map(|target| target.acknowledged_per_second.ratio).collect();
        assert_eq!(ratios, [Some(1.0), Some(0.25)]);
        assert_eq!(comparison.targets[1].deliveries_per_second.ratio, None, "nothing to relate to");
        let text = comparison.to_string();
        let row = text.lines().find(|line| line.contains("t<1>")).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["t<1>", "499", "500", "501", "0.25"], "{text}");
        assert!(text.contains("2.00 ms"), "{text}");
        let json = serde_json::to_value(&comparison).unwrap();
        assert_eq!(json["targets"][1]["p99_us"]["ratio"], 0.25);
        assert_eq!(json["settings"]["size_bytes"], 16);
    }

    #[test]
    fn what_went_wrong_in_any_round_is_told() {
        let mut comparison = comparison(&[1.0, 2.0]);
        assert!(comparison.is_clean());
        comparison.targets[1].unclean_rounds = 1;
        assert!(!comparison.is_clean());
        assert!(comparison.to_string().contains("1 rounds of t<1> were not clean"));
    }
}

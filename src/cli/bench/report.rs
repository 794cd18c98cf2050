//! The results of a bench run, for people and as JSON.
//!
//! Invariant: rates are over the measured time only, faults over the whole run.
//!
//! Deliberately absent: judging the figures.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::check::Faults;
use super::disk::Disk;
use super::load::{latencies, Latencies, Published, Work};
use super::reception::Received;

/// The requested settings.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Settings {
    pub(super) protocol: &'static str,
    pub(super) measured: Work,
    pub(super) connections: u16,
    pub(super) window: u16,
    /// Requested publishes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_per_second: Option<u32>,
    pub(super) size_bytes: u32,
    pub(super) seconds: u32,
    pub(super) subscribers: u16,
    /// Subscribers read everything from the log's beginning, after it was published.
    pub(super) replay: bool,
    /// The callees, if calls are measured instead of publishes.
    pub(super) callees: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

impl Percentiles {
    fn new<'a>(parts: impl Iterator<Item = &'a Latencies>) -> Self {
        let mut all = latencies();
        for part in parts {
            all.add(part).expect("all have the same bounds");
        }
        Self {
            p50_us: all.value_at_quantile(0.5),
            p99_us: all.value_at_quantile(0.99),
            p999_us: all.value_at_quantile(0.999),
            max_us: all.max(),
        }
    }

    /// None if nothing was measured.
    fn of_any<'a>(parts: impl Iterator<Item = &'a Latencies> + Clone) -> Option<Self> {
        parts.clone().any(|part| !part.is_empty()).then(|| Self::new(parts))
    }

    /// The two main percentiles.
    fn short(&self) -> String {
        let ms = |us: u64| us as f64 / 1000.0;
        format!("p50 {:.2} ms, p99 {:.2} ms", ms(self.p50_us), ms(self.p99_us))
    }
}

impl fmt::Display for AtTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}:", self.target)?;
        if let Some(latency) = &self.latency {
            write!(f, " answers {}", latency.short())?;
        }
        match (&self.latency, &self.delivery) {
            (Some(_), Some(delivery)) => write!(f, "; deliveries {}", delivery.short()),
            (None, Some(delivery)) => write!(f, " deliveries {}", delivery.short()),
            (Some(_), None) => Ok(()),
            (None, None) => write!(f, " nothing was measured"),
        }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        write!(
            f,
            "p50 {:.2} ms, p99 {:.2} ms, p999 {:.2} ms, max {:.2} ms",
            ms(self.p50_us),
            ms(self.p99_us),
            ms(self.p999_us),
            ms(self.max_us)
        )
    }
}

/// The clients' results at one target, if there are several.
#[derive(Clone, Debug, Serialize)]
pub(super) struct AtTarget {
    target: String,
    /// From request to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Percentiles>,
    /// From publish to delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<Percentiles>,
}

/// The results of all clients.
pub(super) struct Done<'a> {
    pub(super) published: &'a [Published],
    pub(super) received: &'a [Received],
    /// For each publisher, the number below which all sequence numbers were acknowledged.
    pub(super) acknowledged: &'a [u64],
}

impl Done<'_> {
    fn at(&self, number: usize, target: &str) -> AtTarget {
        let published = self.published.iter().filter(|published| published.target == number);
        let received = self.received.iter().filter(|received| received.target == number);
        AtTarget {
            target: target.to_owned(),
            latency: Percentiles::of_any(published.map(|published| &published.latencies)),
            delivery: Percentiles::of_any(received.map(|received| &received.latencies)),
        }
    }
}

/// The outcome of a run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    settings: Settings,
    pub(super) acknowledged_per_second: f64,
    acknowledged: u64,
    /// From request to answer.
    pub(super) latency: Percentiles,
    /// The longest time without any acknowledgement.
    longest_pause_ms: u64,
    pub(super) deliveries_per_second: f64,
    deliveries: u64,
    /// From publish to delivery; for a replay, from subscribing to the first event.
    delivery: Percentiles,
    /// The same for each target, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<AtTarget>,
    gaps: u64,
    duplicates: u64,
    reordered: u64,
    lost: u64,
    unanswered: u64,
    foreign: u64,
    pub(super) errors: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) disk: Option<Disk>,
}

impl Report {
    pub(super) fn new(
        settings: Settings,
        targets: &[String],
        done: &Done<'_>,
        pause: Duration,
        disk: Option<Disk>,
    ) -> Self {
        let Done { published, received, acknowledged } = *done;
        let each = targets.iter().enumerate().filter(|_| targets.len() > 1);
        let mut faults = Faults::default();
        for received in received {
            faults += received.check.faults(acknowledged);
        }
        let measured: u64 = published.iter().map(|published| published.measured).sum();
        let errors = published
            .iter()
            .map(|published| &published.error)
            .chain(received.iter().map(|received| &received.error))
            .flatten()
            .cloned()
            .collect();
        let rate = |received: &Received| {
            received.delivered as f64 / received.time.as_secs_f64().max(0.001)
        };
        Self {
            acknowledged_per_second: measured as f64 / f64::from(settings.seconds),
            acknowledged: measured,
            latency: Percentiles::new(published.iter().map(|published| &published.latencies)),
            longest_pause_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            // The sum of no floating-point numbers is -0.0.
            deliveries_per_second: 0.0 + received.iter().map(rate).sum::<f64>(),
            deliveries: received.iter().map(|received| received.delivered).sum(),
            delivery: Percentiles::new(received.iter().map(|received| &received.latencies)),
            targets: each.map(|(number, target)| done.at(number, target)).collect(),
            gaps: faults.gaps,
            duplicates: faults.duplicates,
            reordered: faults.reordered,
            lost: faults.lost,
            unanswered: published.iter().map(|published| published.unanswered).sum(),
            foreign: received.iter().map(|received| received.foreign).sum(),
            errors,
            disk,
            settings,
        }
    }

    /// Adds other errors.
    pub(super) fn with_errors(mut self, errors: impl IntoIterator<Item = String>) -> Self {
        self.errors.extend(errors);
        self
    }

    /// Whether nothing went wrong.
    pub(super) fn is_clean(&self) -> bool {
        let counted = self.gaps + self.duplicates + self.reordered + self.lost + self.foreign;
        counted + self.unanswered == 0 && self.errors.is_empty()
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocol, connections, window) = (self.protocol, self.connections, self.window);
        write!(f, "{protocol}: {connections} connections, window {window}, ")?;
        if let Some(rate) = self.rate_per_second {
            write!(f, "{rate} {} a second, ", self.measured.plural())?;
        }
        write!(f, "{} byte payloads, {} s", self.size_bytes, self.seconds)?;
        match self.measured {
            Work::Publish => write!(f, ", {} subscribers", self.subscribers),
            Work::Call => write!(f, ", {} callees", self.callees),
            Work::ReadRetained => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        let what = settings.measured.plural();
        let answered = if settings.measured == Work::Publish { "acknowledged" } else { "answered" };
        writeln!(f, "{settings}")?;
        match &self.disk {
            Some(disk) => writeln!(f, "disk        {disk}")?,
            None => writeln!(f, "disk        not measured: name a directory with --fsync-dir")?,
        }
        writeln!(f, "{what:<9}   {:.0} {answered} a second", self.acknowledged_per_second)?;
        writeln!(f, "            {}", self.latency)?;
        writeln!(f, "            longest pause {} ms", self.longest_pause_ms)?;
        if settings.subscribers > 0 {
            let (name, from) = match settings.replay {
                true => ("replay", "subscribing to the first event"),
                false => ("deliveries", "publish to delivery"),
            };
            writeln!(f, "{name:<10}  {:.0} a second", self.deliveries_per_second)?;
            writeln!(f, "            {}, from {from}", self.delivery)?;
            writeln!(
                f,
                "            {} gaps, {} duplicates, {} out of order, {} lost",
                self.gaps, self.duplicates, self.reordered, self.lost
            )?;
        }
        for target in &self.targets {
            writeln!(f, "            {target}")?;
        }
        for (count, what) in [
            (self.unanswered, format!("{what} were never answered: their outcome is unknown")),
            (self.foreign, "messages came that this run did not publish".into()),
        ] {
            if count > 0 {
                writeln!(f, "            {count} {what}")?;
            }
        }
        for error in &self.errors {
            writeln!(f, "error       {error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::check::DeliveryCheck;

    fn published(error: Option<String>) -> Published {
        let mut latencies = latencies();
        (1..=1000).for_each(|ms| latencies.saturating_record(ms * 1000));
        Published {
            publisher: 0,
            target: 1,
            measured: 5000,
            acknowledged_below: 2,
            unanswered: 0,
            latencies,
            error,
        }
    }

    fn received(sequences: &[u64]) -> Received {
        let mut check = DeliveryCheck::default();
        sequences.iter().for_each(|sequence| check.delivered(0, *sequence));
        Received {
            target: 0,
            check,
            delivered: 300,
            time: Duration::from_secs(3),
            foreign: 0,
            latencies: latencies(),
            error: None,
        }
    }

    fn settings() -> Settings {
        Settings {
            protocol: "mqtt",
            measured: Work::Publish,
            connections: 1,
            window: 1,
            rate_per_second: None,
            size_bytes: 128,
            seconds: 5,
            subscribers: 2,
            replay: false,
            callees: 0,
        }
    }

    fn report(error: Option<String>, sequences: &[u64]) -> Report {
        let received = [received(sequences), received(&[0, 1])];
        let published = [published(error)];
        let done = Done { published: &published, received: &received, acknowledged: &[2] };
        let targets = ["one".into(), "two".into()];
        Report::new(settings(), &targets, &done, Duration::from_millis(7), None)
    }

    #[test]
    fn each_target_has_its_own_latencies() {
        let mut late = received(&[0, 1]);
        late.latencies.saturating_record(40_000);
        let received = [late, received(&[0, 1])];
        let published = [published(None)];
        let done = Done { published: &published, received: &received, acknowledged: &[2] };
        let targets = ["one".into(), "two".into(), "three".into()];
        let report = Report::new(settings(), &targets, &done, Duration::ZERO, None);
        let text = report.to_string();
        for expected in [
            "at one: deliveries p50 40",
            "at two: answers p50 500",
            "at three: nothing was measured",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["targets"][0]["delivery"]["p99_us"].as_u64() >= Some(40_000));
        let alone = Report::new(settings(), &targets[..1], &done, Duration::ZERO, None);
        assert!(!alone.to_string().contains("at one"), "it is all there is");
    }

    #[test]
    fn rates_percentiles_and_faults_add_up() {
        let good = report(None, &[0, 1]);
        assert!(good.is_clean());
        let text = good.to_string();
        for expected in
            ["1000 acknowledged a second", "p50 500", "p99 99", "200 a second", "0 lost", "7 ms"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let bad = report(None, &[1]);
        assert!(!bad.is_clean());
        assert!(bad.to_string().contains("1 gaps, 0 duplicates, 0 out of order, 1 lost"));
        assert!(!report(Some("gone".into()), &[0, 1]).is_clean());
        assert_eq!(serde_json::to_value(&bad).unwrap()["lost"], 1);
    }

    #[test]
    fn nothing_delivered_is_nothing_a_second() {
        let published = [published(None)];
        let done = Done { published: &published, received: &[], acknowledged: &[] };
        let alone = Report::new(settings(), &[], &done, Duration::ZERO, None);
        assert!(alone.deliveries_per_second.is_sign_positive(), "not -0");
    }
}

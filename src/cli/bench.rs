//! `vulpes bench`: publishers or callers in a closed loop or at a fixed rate, and what checks that the right things come
//! out: subscribers, or the callers themselves.
//!
//! Invariant: what is counted was acknowledged, and every gap, duplicate and loss that a subscriber could see is told.
//!
//! Deliberately absent: reconnecting. A connection that ends is reported, and its open publishes are unknown.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Reported;
use callee::Callee;
use check::DeliveryCheck;
use load::{Load, Plan, Published, Received, Reception};
use report::{Report, Settings};

mod callee;
mod check;
mod disk;
mod load;
mod mqtt;
mod payload;
mod report;
mod wamp;

/// How long connections may take to be made and subscriptions to stand.
const SETUP: Duration = Duration::from_secs(20);

/// How often the count of acknowledgements is looked at, to find the longest pause.
const PAUSE_SAMPLE: Duration = Duration::from_millis(10);

const EXAMPLES: &str = "\
Examples:
  vulpes bench --protocol mqtt
  vulpes bench --protocol wamp --connections 9 --window 256 --size 128 --seconds 30
  vulpes bench --protocol mqtt --rate 10000                  latency at 10,000 publishes a second
  vulpes bench --protocol mqtt --targets 127.0.0.1:1883      any MQTT broker
  vulpes bench --protocol wamp --callees ws://127.0.0.1:9031/ --targets ws://127.0.0.1:9032/     calls across nodes
  vulpes bench --protocol mqtt --fsync-dir vulpes-data       and what the disk alone can do

The exit code is 1 where a connection failed, or an event was lost, doubled or out of order.";

/// Measure acknowledged publishes a second, their latency, and what subscribers get; or calls, and their results
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Bench {
    /// What publishers and subscribers speak
    #[arg(long)]
    protocol: Protocol,
    /// WAMP URLs or MQTT addresses; connections are dealt out over them [default: three local nodes]
    #[arg(long, value_name = "TARGET", value_delimiter = ',')]
    targets: Vec<String>,
    /// Publishing connections
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=2000))]
    connections: u16,
    /// Unacknowledged publishes each connection keeps in flight
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=16384))]
    window: u16,
    /// Publishes a second, over all connections; a publish that is held up counts from when it was due [default: as many
    /// as the window allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Payload size in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(payload::LEAST as i64..=900_000))]
    size: u32,
    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// How long to run before measuring
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=3600))]
    warmup: u32,
    /// How long to wait at the end for what is still on its way
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=3600))]
    drain: u32,
    /// Subscribing connections; each gets everything
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=2000))]
    subscribers: u16,
    /// Topics that each publisher goes through in turn
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    topics: u32,
    /// Call instead of publishing: one callee at each of these WAMP URLs gives back what it gets, and callers are dealt out
    /// over them
    #[arg(long, value_name = "TARGET", value_delimiter = ',', conflicts_with_all = ["subscribers", "topics"])]
    callees: Vec<String>,
    /// Quality of service that MQTT subscribers ask for
    #[arg(long, value_name = "0|1", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    subscribe_qos: u8,
    /// Realm to use [default: realm1 for WAMP, the node's own default for MQTT]
    #[arg(long)]
    realm: Option<String>,
    /// Also measure what the disk of this directory can do: 64 KiB written and synced, one after the other
    #[arg(long, value_name = "DIR")]
    fsync_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Mqtt,
    Wamp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Wamp => "wamp",
        }
    }

    fn default_targets(self) -> [&'static str; 3] {
        match self {
            Self::Mqtt => ["127.0.0.1:1881", "127.0.0.1:1882", "127.0.0.1:1883"],
            Self::Wamp => ["ws://127.0.0.1:9031/", "ws://127.0.0.1:9032/", "ws://127.0.0.1:9033/"],
        }
    }
}

impl Bench {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let report = self.measure().await?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
        } else {
            write!(out, "{report}")?;
        }
        out.flush()?;
        if report.is_clean() {
            Ok(())
        } else {
            Err(Reported.into())
        }
    }

    async fn measure(&self) -> anyhow::Result<Report> {
        let is_wamp = self.protocol == Protocol::Wamp;
        anyhow::ensure!(is_wamp || self.callees.is_empty(), "calls are WAMP: --protocol wamp");
        // Before anything else uses the disk.
        let disk = self.fsync_dir.as_deref().map(disk::measure).transpose()?;
        let plan = Arc::new(Plan::new(rand::random(), self.shape()));
        let clients = Clients {
            protocol: self.protocol,
            plan: plan.clone(),
            targets: self.targets(),
            callees: self.callees.clone(),
        };
        let (go, start) = watch::channel(None);
        let (finish, finished) = watch::channel(None);
        let mut callees = clients.register(finished.clone()).await?;
        let mut subscribers = clients.subscribe(self.subscribers(), finished).await?;
        let mut publishers = clients.publish(self.connections, start).await?;
        let schedule = self.schedule(plan.now());
        // An error would mean that nobody waits for it any more, which the publishers' own results tell.
        let _ = go.send(Some(schedule));
        let pauses = tokio::spawn(longest_pause(plan.clone(), schedule));
        let mut published: Vec<Published> = Vec::new();
        while let Some(joined) = publishers.join_next().await {
            published.push(joined.context("a publisher panicked")?);
        }
        published.sort_by_key(|published| published.publisher);
        let acknowledged: Arc<Vec<u64>> =
            Arc::new(published.iter().map(|published| published.acknowledged_below).collect());
        // As above: the subscribers' own results tell.
        let _ = finish.send(Some((acknowledged.clone(), schedule.deadline)));
        let mut received: Vec<Received> = Vec::new();
        while let Some(joined) = subscribers.join_next().await {
            received.push(joined.context("a subscriber panicked")?);
        }
        let mut failed = Vec::new();
        while let Some(joined) = callees.join_next().await {
            failed.extend(joined.context("a callee panicked")?);
        }
        let pause = pauses.await.context("the pause watcher panicked")?;
        let settings = self.settings();
        let report = Report::new(settings, &published, &received, &acknowledged, pause, disk);
        Ok(report.with_errors(failed))
    }

    fn subscribers(&self) -> u16 {
        if self.callees.is_empty() {
            self.subscribers
        } else {
            0
        }
    }

    fn targets(&self) -> Vec<String> {
        if self.targets.is_empty() {
            self.protocol.default_targets().map(str::to_owned).to_vec()
        } else {
            self.targets.clone()
        }
    }

    fn shape(&self) -> load::Shape {
        load::Shape {
            size: self.size as usize,
            window: u64::from(self.window),
            interval: self
                .rate
                .map(|rate| Duration::from_secs_f64(f64::from(self.connections) / f64::from(rate))),
            topics: self.topics,
            realm: self.realm.clone(),
            subscribe_qos: self.subscribe_qos,
        }
    }

    fn schedule(&self, now: Duration) -> load::Schedule {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let measure_from = now + seconds(self.warmup);
        let stop_at = measure_from + seconds(self.seconds);
        load::Schedule {
            begin_at: now,
            measure_from,
            stop_at,
            deadline: stop_at + seconds(self.drain),
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            protocol: self.protocol.name(),
            connections: self.connections,
            window: self.window,
            rate: self.rate,
            size: self.size,
            seconds: self.seconds,
            subscribers: self.subscribers(),
            callees: self.callees.len(),
        }
    }
}

/// Makes the connections.
struct Clients {
    protocol: Protocol,
    plan: Arc<Plan>,
    targets: Vec<String>,
    callees: Vec<String>,
}

impl Clients {
    fn target(&self, number: u16) -> &str {
        &self.targets[usize::from(number) % self.targets.len()]
    }

    async fn register(
        &self,
        finished: watch::Receiver<load::Finished>,
    ) -> anyhow::Result<JoinSet<Option<String>>> {
        let mut tasks = JoinSet::new();
        for (number, target) in self.callees.iter().enumerate() {
            let name = format!("callee {number} at {target}");
            let callee = setup(&name, Callee::connect(&self.plan, target, number)).await?;
            tasks.spawn(callee.run(finished.clone(), name));
        }
        Ok(tasks)
    }

    async fn subscribe(
        &self,
        count: u16,
        finished: watch::Receiver<load::Finished>,
    ) -> anyhow::Result<JoinSet<Received>> {
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let target = self.target(number).to_owned();
            let reception = Reception::new(self.plan.clone(), finished.clone());
            let name = format!("subscriber {number} at {target}");
            match self.protocol {
                Protocol::Mqtt => {
                    let client = mqtt::Subscriber::connect(&self.plan, &target, number);
                    let client = setup(&name, client).await?;
                    tasks.spawn(client.run(reception, name));
                }
                Protocol::Wamp => {
                    let client = wamp::Subscriber::connect(&self.plan, &target);
                    let client = setup(&name, client).await?;
                    tasks.spawn(client.run(reception, name));
                }
            }
        }
        Ok(tasks)
    }

    async fn publish(
        &self,
        count: u16,
        start: watch::Receiver<Option<load::Schedule>>,
    ) -> anyhow::Result<JoinSet<Published>> {
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let target = self.target(number).to_owned();
            let load = Load::new(self.plan.clone(), number);
            let name = format!("publisher {number} at {target}");
            match self.protocol {
                Protocol::Mqtt => {
                    let client = mqtt::Publisher::connect(&self.plan, &target, number);
                    let client = setup(&name, client).await?;
                    tasks.spawn(client.run(load, start.clone(), name));
                }
                Protocol::Wamp if !self.callees.is_empty() => {
                    let callee = usize::from(number) % self.callees.len();
                    let client = wamp::Publisher::calling(&self.plan, &target, callee);
                    let client = setup(&name, client).await?;
                    tasks.spawn(client.run(load, start.clone(), name));
                }
                Protocol::Wamp => {
                    let client = wamp::Publisher::connect(&self.plan, &target);
                    let client = setup(&name, client).await?;
                    tasks.spawn(client.run(load, start.clone(), name));
                }
            }
        }
        Ok(tasks)
    }
}

async fn setup<T>(
    name: &str,
    future: impl std::future::Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::time::timeout(SETUP, future)
        .await
        .map_err(|_| anyhow::anyhow!("no answer within {SETUP:?}"))
        .and_then(|outcome| outcome)
        .with_context(|| name.to_owned())
}

/// The longest time without any acknowledgement while measuring.
async fn longest_pause(plan: Arc<Plan>, schedule: load::Schedule) -> Duration {
    tokio::time::sleep_until(plan.instant(schedule.measure_from)).await;
    let (mut longest, mut last) = (Duration::ZERO, plan.acknowledged.load(Ordering::Relaxed));
    let mut since = Instant::now();
    let end = plan.instant(schedule.stop_at);
    while Instant::now() < end {
        tokio::time::sleep(PAUSE_SAMPLE).await;
        let count = plan.acknowledged.load(Ordering::Relaxed);
        if count != last {
            last = count;
            since = Instant::now();
        }
        longest = longest.max(since.elapsed());
    }
    longest
}

/// Acknowledgements so far, over all publishers.
type Counter = AtomicU64;

#[cfg(test)]
mod tests;

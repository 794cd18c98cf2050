//! `vulpes bench`: publishers, readers of retained values or callers, in a closed loop or at a fixed rate; and the checks of
//! what comes out: by subscribers, live or from the log's beginning, or by the requesting clients.
//!
//! Invariant: only acknowledged work is counted, and every gap, duplicate and loss that a subscriber could see is
//! reported.
//!
//! Deliberately absent: reconnecting. A connection that ends is reported, and the outcome of its open publishes is
//! unknown.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use tokio::sync::watch;
use tokio::time::Instant;

use super::secure::TlsArgs;
use super::Reported;
use clients::{gather, Clients};
use load::{Plan, Work};
use reception::Received;
use report::{Done, Report, Settings};

mod callee;
mod check;
mod clients;
mod compare;
mod disk;
mod load;
mod mqtt;
mod payload;
mod reception;
mod report;
mod retained;
mod wamp;

/// Time limit to make a connection and its subscription.
const SETUP: Duration = Duration::from_secs(20);

/// Most connections of one kind.
pub(crate) const CONNECTIONS: i64 = 5000;

/// Largest window of a connection.
const WINDOW: i64 = 16_384;

/// Largest payload, in bytes. A Vulpes node takes a little less.
const LARGEST: i64 = 1 << 20;

/// How often acknowledgements are counted, to find the longest pause.
const PAUSE_SAMPLE: Duration = Duration::from_millis(10);

/// Where nodes of this machine keep their data, if `vulpes up` used its default.
const DATA: &str = "vulpes-data";

const EXAMPLES: &str = "\
Examples:
  vulpes bench --protocol mqtt
  vulpes bench --protocol wamp --connections 9 --window 256 --size 128 --seconds 30
  vulpes bench --protocol mqtt --rate 10000                  latency at 10,000 publishes a second
  vulpes bench --protocol mqtt --targets 127.0.0.1:1883      any MQTT broker
  vulpes bench --protocol wamp --callees ws://127.0.0.1:9031/ --targets ws://127.0.0.1:9032/     calls across nodes
  vulpes bench --protocol mqtt --retained                    read retained values
  vulpes bench --protocol mqtt --replay                      and read all of it again from the log's beginning
  vulpes bench compare --target vulpes=127.0.0.1:1881 --target mosquitto=127.0.0.1:1884     in turn, side by side

The exit code is 1 if a connection failed, or an event was lost, doubled or out of order.";

/// Measure publishes, calls or reads: their rate and latency, and what subscribers get
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Bench {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compare(compare::Compare),
}

/// Options of a single run.
#[derive(Clone, Debug, Args)]
struct Run {
    /// What publishers and subscribers speak
    #[arg(long, default_value = "mqtt")]
    protocol: Protocol,
    /// WAMP URLs or MQTT addresses; connections are spread over them [default: three local nodes]
    #[arg(long, value_name = "TARGET", value_delimiter = ',')]
    targets: Vec<String>,
    /// Call instead of publishing: one callee at each of these WAMP URLs echoes its arguments, and callers are spread
    /// over them
    #[arg(long, value_name = "TARGET", value_delimiter = ',', conflicts_with_all = ["subscribers", "topics", "retained", "replay"])]
    callees: Vec<String>,
    /// Subscribers start once everything is published, and read it from the log's beginning; only with Vulpes
    #[arg(long, conflicts_with = "retained")]
    replay: bool,
    #[command(flatten)]
    knobs: Knobs,
}

/// Options that work with any target.
#[derive(Clone, Debug, Args)]
struct Knobs {
    /// Publishing, calling or reading connections
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=CONNECTIONS))]
    connections: u16,
    /// Unanswered publishes, calls or reads each connection keeps in flight
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=WINDOW))]
    window: u16,
    /// Publishes a second, over all connections; the latency of a delayed publish counts from when it was due
    /// [default: as many as the window allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Payload size in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(payload::LEAST as i64..=LARGEST))]
    size: u32,
    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// How long to run before measuring
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=3600))]
    warmup: u32,
    /// How long to wait at the end for outstanding answers
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=3600))]
    drain: u32,
    /// Subscribing connections; each gets everything
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=CONNECTIONS))]
    subscribers: u16,
    /// Topics that each publisher goes through in turn, or that have a retained value
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    topics: u32,
    /// Read instead of publishing: subscribe to a topic with a retained value, get it, unsubscribe. A connection
    /// reads as many topics at once as its window allows
    #[arg(long, conflicts_with = "subscribers")]
    retained: bool,
    /// Quality of service that MQTT subscribers ask for
    #[arg(long, value_name = "0|1", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    subscribe_qos: u8,
    /// Realm to use [default: realm1 for WAMP, the node's own default for MQTT]
    #[arg(long)]
    realm: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Where to measure what the disk can do: 64 KiB written and synced, one after the other [default: vulpes-data if
    /// it exists, else the current directory]
    #[arg(long, value_name = "DIR")]
    fsync_dir: Option<PathBuf>,
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
        if let Some(Command::Compare(compare)) = self.command {
            return compare.run().await;
        }
        let report = self.run.measure().await?;
        print(&report, self.json)?;
        if report.is_clean() {
            Ok(())
        } else {
            Err(Reported.into())
        }
    }
}

/// Prints a report as text, or as one JSON object.
fn print(report: &(impl std::fmt::Display + serde::Serialize), json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(out.flush()?)
}

impl Run {
    async fn measure(&self) -> anyhow::Result<Report> {
        let is_wamp = self.protocol == Protocol::Wamp;
        anyhow::ensure!(is_wamp || self.callees.is_empty(), "calls are WAMP: --protocol wamp");
        let subscribers = self.subscribers();
        let others = usize::from(subscribers) + self.callees.len();
        super::files::allow(u64::from(self.knobs.connections) + others as u64)?;
        // Before anything else uses the disk.
        let disk = self.disk()?;
        let plan = Plan::new(rand::random(), self.shape());
        let plan = Arc::new(plan.trusting(self.knobs.tls.dialer()?));
        let clients = Clients {
            protocol: self.protocol,
            plan: plan.clone(),
            targets: self.targets(),
            callees: self.callees.clone(),
        };
        let (go, start) = watch::channel(None);
        let (finish, finished) = watch::channel(None);
        if self.replay {
            clients.can_replay().await?;
        }
        if self.knobs.retained {
            clients.retain(true).await?;
        }
        let callees = clients.register(finished.clone()).await?;
        let live = if self.replay { 0 } else { subscribers };
        let mut receiving = clients.subscribe(live, finished.clone()).await?;
        let publishers = clients.publish(self.knobs.connections, start).await?;
        let schedule = self.schedule(plan.now());
        // An error means that no publisher waits for it any more, which the publishers' own results report.
        let _ = go.send(Some(schedule));
        let pauses = tokio::spawn(longest_pause(plan.clone(), schedule));
        let mut published = gather(publishers).await?;
        published.sort_by_key(|published| published.publisher);
        let acknowledged: Arc<Vec<u64>> =
            Arc::new(published.iter().map(|published| published.acknowledged_below).collect());
        let deadline = match self.replay {
            true => plan.now() + Duration::from_secs(self.knobs.drain.into()),
            false => schedule.deadline,
        };
        // As above: the subscribers' own results report it.
        let _ = finish.send(Some((acknowledged.clone(), deadline)));
        if self.replay {
            receiving = clients.subscribe(subscribers, finished).await?;
        }
        let received: Vec<Received> = gather(receiving).await?;
        let failed = gather(callees).await?;
        let pause = pauses.await.context("the pause watcher panicked")?;
        if self.knobs.retained {
            clients.retain(false).await?;
        }
        let done = Done { published: &published, received: &received, acknowledged: &acknowledged };
        let report = Report::new(self.settings(), &clients.targets, &done, pause, disk);
        Ok(report.with_errors(failed.into_iter().flatten()))
    }

    fn work(&self) -> Work {
        match (self.callees.is_empty(), self.knobs.retained) {
            (false, _) => Work::Call,
            (true, true) => Work::ReadRetained,
            (true, false) => Work::Publish,
        }
    }

    fn subscribers(&self) -> u16 {
        if self.work() == Work::Publish {
            self.knobs.subscribers
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

    /// Measures the disk. Only a directory that was requested has to be usable.
    fn disk(&self) -> anyhow::Result<Option<disk::Disk>> {
        if let Some(directory) = &self.knobs.fsync_dir {
            return disk::measure(directory).map(Some);
        }
        let data = std::path::Path::new(DATA);
        let directory = if data.is_dir() { data } else { std::path::Path::new(".") };
        Ok(disk::measure(directory).ok())
    }

    fn shape(&self) -> load::Shape {
        let connections = u64::from(self.knobs.connections) + u64::from(self.subscribers());
        load::Shape {
            work: self.work(),
            replay: self.replay,
            size: self.knobs.size as usize,
            window: u64::from(self.window()),
            interval: self.knobs.rate.map(|rate| {
                Duration::from_secs_f64(f64::from(self.knobs.connections) / f64::from(rate))
            }),
            topics: self.knobs.topics,
            realm: self.knobs.realm.clone(),
            subscribe_qos: self.knobs.subscribe_qos,
            buffer: load::buffer(connections),
        }
    }

    /// A connection has only one subscription that reads a topic's value at a time.
    fn window(&self) -> u16 {
        match self.work() {
            Work::ReadRetained => {
                self.knobs.window.min(u16::try_from(self.knobs.topics).unwrap_or(u16::MAX))
            }
            Work::Publish | Work::Call => self.knobs.window,
        }
    }

    fn schedule(&self, now: Duration) -> load::Schedule {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let measure_from = now + seconds(self.knobs.warmup);
        let stop_at = measure_from + seconds(self.knobs.seconds);
        load::Schedule {
            begin_at: now,
            measure_from,
            stop_at,
            deadline: stop_at + seconds(self.knobs.drain),
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            protocol: self.protocol.name(),
            measured: self.work(),
            connections: self.knobs.connections,
            window: self.window(),
            rate_per_second: self.knobs.rate,
            size_bytes: self.knobs.size,
            seconds: self.knobs.seconds,
            subscribers: self.subscribers(),
            replay: self.replay,
            callees: self.callees.len(),
        }
    }
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

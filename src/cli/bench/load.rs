//! The parts of publishers, callers and readers that both protocols share: the plan, and requests in flight.
//!
//! Invariant: a publisher has at most its window in flight, and its sequence numbers are dense. At a fixed rate, a
//! publish counts from the moment it was due, so that a pause of the broker shows in the latency of everything it
//! delayed.
//!
//! Deliberately absent: sockets and packets.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use hdrhistogram::Histogram;
use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::Instant;

use super::payload::{Content, Mark};
use super::Counter;
use crate::client::dial::Dialer;

/// What connections do repeatedly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Work {
    Publish,
    Call,
    /// Subscribe, get the retained value, unsubscribe.
    ReadRetained,
}

impl Work {
    /// The name of the clients.
    pub(super) fn who(self) -> &'static str {
        match self {
            Self::Publish => "publisher",
            Self::Call => "caller",
            Self::ReadRetained => "reader",
        }
    }

    /// The name of the counted requests.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Publish => "publishes",
            Self::Call => "calls",
            Self::ReadRetained => "reads",
        }
    }
}

/// Initial bytes of all connections' buffers.
const BUFFERS: u64 = 64 << 20;

/// The initial size of a connection's buffers, with this many connections.
pub(super) fn buffer(connections: u64) -> usize {
    // Each has one for input and one for output.
    let fair = BUFFERS / (2 * connections.max(1));
    fair.clamp(4 << 10, 64 << 10) as usize
}

/// What is published and how.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) work: Work,
    /// Subscribers read the log from its beginning.
    pub(super) replay: bool,
    /// Payload size, in bytes.
    pub(super) size: usize,
    /// Publishes in flight on each connection.
    pub(super) window: u64,
    /// Time between two publishes of one connection; none if only the window limits it.
    pub(super) interval: Option<Duration>,
    pub(super) topics: u32,
    pub(super) realm: Option<String>,
    pub(super) subscribe_qos: u8,
    /// Size of a connection's buffers, in bytes.
    pub(super) buffer: usize,
}

/// One run.
pub(super) struct Plan {
    pub(super) run: u32,
    pub(super) shape: Shape,
    pub(super) mark: Mark,
    /// Whom its clients trust.
    pub(super) dialer: Dialer,
    start: Instant,
    /// Acknowledgements so far, over all publishers.
    pub(super) acknowledged: Counter,
}

/// The times of a run's phases, on its own clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) begin_at: Duration,
    pub(super) measure_from: Duration,
    /// From then on, nothing is published.
    pub(super) stop_at: Duration,
    /// From then on, no answer is awaited.
    pub(super) deadline: Duration,
}

impl Schedule {
    fn measures(&self, now: Duration) -> bool {
        (self.measure_from..self.stop_at).contains(&now)
    }
}

/// For each publisher, the number below which all sequence numbers were acknowledged; and how long subscribers wait for these.
pub(super) type Finished = Option<(Arc<Vec<u64>>, Duration)>;

impl Plan {
    pub(super) fn new(run: u32, shape: Shape) -> Self {
        let start = Instant::now();
        let (mark, dialer) = (Mark::new(run), Dialer::default());
        Self { run, shape, mark, dialer, start, acknowledged: Counter::new(0) }
    }

    /// The same with clients that trust whom the dialer trusts.
    pub(super) fn trusting(self, dialer: Dialer) -> Self {
        Self { dialer, ..self }
    }

    /// The time since the run began.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn instant(&self, moment: Duration) -> Instant {
        self.start + moment
    }
}

/// The golden ratio's fraction: its multiples modulo 1 are spread evenly over the unit interval, however many there are.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// Latencies from 1 µs to 10 min, to three digits.
pub(super) type Latencies = Histogram<u64>;

pub(super) fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("these bounds are valid")
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Publishes in flight, by sequence number. Answers may come in any order.
#[derive(Debug, Default)]
struct Window {
    /// All below are answered.
    first: u64,
    /// From `first` on: when it was sent, in microseconds; none once it was answered.
    sent: VecDeque<Option<u64>>,
}

impl Window {
    fn next(&self) -> u64 {
        self.first + self.sent.len() as u64
    }

    /// Removes a publish in flight; returns when it was sent.
    fn answered(&mut self, sequence: u64) -> Option<u64> {
        let at = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        let sent = self.sent.get_mut(at)?.take()?;
        while self.sent.front().is_some_and(Option::is_none) {
            self.sent.pop_front();
            self.first += 1;
        }
        Some(sent)
    }
}

/// One publisher's side of the loop.
pub(super) struct Load {
    plan: Arc<Plan>,
    publisher: u16,
    window: Window,
    schedule: Schedule,
    measured: u64,
    latencies: Latencies,
}

/// What a publisher achieved.
pub(super) struct Published {
    pub(super) publisher: u16,
    /// The target it was connected to.
    pub(super) target: usize,
    /// Acknowledged while measuring.
    pub(super) measured: u64,
    /// All sequence numbers below were acknowledged.
    pub(super) acknowledged_below: u64,
    /// Published, never answered.
    pub(super) unanswered: u64,
    pub(super) latencies: Latencies,
    pub(super) error: Option<String>,
}

impl Load {
    pub(super) fn new(plan: Arc<Plan>, publisher: u16) -> Self {
        let never = Schedule {
            begin_at: Duration::ZERO,
            measure_from: Duration::ZERO,
            stop_at: Duration::ZERO,
            deadline: Duration::ZERO,
        };
        Self {
            plan,
            publisher,
            window: Window::default(),
            schedule: never,
            measured: 0,
            latencies: latencies(),
        }
    }

    pub(super) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Waits for the common start.
    pub(super) async fn wait_start(&mut self, start: &mut watch::Receiver<Option<Schedule>>) {
        if let Ok(schedule) = start.wait_for(Option::is_some).await {
            self.schedule = schedule.unwrap_or(self.schedule);
        }
    }

    /// The moment after which no answer is awaited.
    pub(super) fn deadline(&self) -> Instant {
        self.plan.instant(self.schedule.deadline)
    }

    /// The oldest publish that is not answered.
    pub(super) fn first(&self) -> u64 {
        self.window.first
    }

    /// When the next publish is due, if there is room and time for one.
    fn due(&self) -> Option<Duration> {
        if self.window.sent.len() as u64 >= self.plan.shape.window {
            return None;
        }
        let due = match self.plan.shape.interval {
            None => Duration::ZERO,
            Some(interval) => {
                // Publishers are out of step, like independent clients.
                let step = interval.mul_f64(f64::from(self.publisher) * GOLDEN % 1.0);
                self.schedule.begin_at + step + interval.mul_f64(self.window.next() as f64)
            }
        };
        (due < self.schedule.stop_at).then_some(due)
    }

    /// Completes when the next publish is due, or when nothing is in flight and publishing has ended. Never completes if an
    /// answer has to arrive first.
    pub(super) async fn wait_due(&self) {
        let over = || self.window.sent.is_empty().then_some(self.schedule.stop_at);
        let due = self.due().filter(|_| self.plan.now() < self.schedule.stop_at);
        match due.or_else(over) {
            Some(moment) => tokio::time::sleep_until(self.plan.instant(moment)).await,
            None => std::future::pending().await,
        }
    }

    /// Begins the next publish if there is room and time for one.
    pub(super) fn begin(&mut self, now: Duration) -> Option<Content> {
        let due = self.due().filter(|due| *due <= now && now < self.schedule.stop_at)?;
        let from = if self.plan.shape.interval.is_some() { due } else { now };
        let (sequence, sent) = (self.window.next(), micros(from));
        self.window.sent.push_back(Some(sent));
        Some(Content { publisher: self.publisher, sequence, sent })
    }

    /// Writes a payload.
    pub(super) fn write(&self, buffer: &mut BytesMut, content: Content) {
        self.plan.mark.write(buffer, content, self.plan.shape.size);
    }

    /// Whether a message has the payload of this publisher and sequence number.
    pub(super) fn is_own(&self, message: &[u8], tail: usize, sequence: u64) -> bool {
        let found = self.plan.mark.find(message, self.plan.shape.size, tail);
        found.is_some_and(|it| (it.publisher, it.sequence) == (self.publisher, sequence))
    }

    /// The number of this publish's topic.
    pub(super) fn topic(&self, sequence: u64) -> usize {
        // Publishers begin at different topics, so that all topics are in use at any moment.
        let number = sequence.wrapping_add(u64::from(self.publisher) * 7);
        (number % u64::from(self.plan.shape.topics)) as usize
    }

    /// An acknowledgement arrived. Returns whether it was for a publish in flight.
    pub(super) fn answered(&mut self, sequence: u64, now: Duration) -> bool {
        let Some(sent) = self.window.answered(sequence) else { return false };
        self.plan.acknowledged.fetch_add(1, Ordering::Relaxed);
        if self.schedule.measures(now) {
            self.measured += 1;
            self.latencies.saturating_record(micros(now).saturating_sub(sent));
        }
        true
    }

    /// Whether there is nothing left to do.
    pub(super) fn is_done(&self, now: Duration) -> bool {
        self.window.sent.is_empty() && now >= self.schedule.stop_at
    }

    /// The results until its deadline.
    pub(super) fn conclude(
        self,
        outcome: Result<anyhow::Result<()>, Elapsed>,
        name: &str,
    ) -> Published {
        let error = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{name}: {error:#}")),
            Err(_) => {
                let what = self.plan.shape.work.plural();
                Some(format!("{name}: some {what} were not answered in time"))
            }
        };
        self.finish(error)
    }

    pub(super) fn finish(self, error: Option<String>) -> Published {
        Published {
            publisher: self.publisher,
            target: 0,
            measured: self.measured,
            acknowledged_below: self.window.first,
            unanswered: self.window.sent.iter().flatten().count() as u64,
            latencies: self.latencies,
            error,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_window_moves_with_its_oldest_answer() {
        let mut window = Window::default();
        for sent in 10..14 {
            window.sent.push_back(Some(sent));
        }
        assert_eq!(window.answered(2), Some(12));
        assert_eq!((window.first, window.next()), (0, 4));
        assert_eq!(window.answered(2), None, "answered twice");
        assert_eq!(window.answered(0), Some(10));
        assert_eq!(window.answered(1), Some(11));
        assert_eq!((window.first, window.next()), (3, 4));
        assert_eq!(window.answered(1), None);
        assert_eq!(window.answered(9), None, "never sent");
    }

    pub(in super::super) fn shape(interval: Option<Duration>) -> Shape {
        let (work, replay, realm) = (Work::Publish, false, None);
        let (topics, buffer) = (2, 4 << 10);
        let (size, window) = (64, 3);
        Shape { work, replay, size, window, interval, topics, realm, subscribe_qos: 0, buffer }
    }

    #[test]
    fn many_connections_share_what_there_is_for_buffers() {
        for (connections, expected) in [(0, 64), (1, 64), (512, 64), (2048, 16), (10_000, 4)] {
            assert_eq!(buffer(connections) >> 10, expected, "{connections}");
        }
    }

    fn schedule(second: Duration) -> Schedule {
        Schedule {
            begin_at: Duration::ZERO,
            measure_from: second,
            stop_at: second * 3,
            deadline: second * 4,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_rate_counts_from_when_a_publish_was_due() {
        let ms = Duration::from_millis;
        let plan = Arc::new(Plan::new(1, shape(Some(ms(100)))));
        let mut load = Load::new(plan.clone(), 0);
        let (_go, mut start) = watch::channel(Some(schedule(ms(1000))));
        load.wait_start(&mut start).await;
        let sent = |content: Content| content.sent;
        assert_eq!(load.begin(ms(5)).map(sent), Some(0));
        assert_eq!(load.begin(ms(99)), None, "the next is not due yet");
        load.wait_due().await;
        assert_eq!(plan.now(), ms(100));
        // A broker that does not answer delays publishes that are due, and the delay counts.
        assert_eq!(load.begin(ms(1150)).map(sent), Some(100_000));
        assert_eq!(load.begin(ms(1150)).map(sent), Some(200_000));
        assert_eq!(load.begin(ms(1150)), None, "the window is full");
        assert!((0..3).all(|sequence| load.answered(sequence, ms(1200))));
        assert_eq!(load.latencies.max() / 1000, 1200);
        // Overdue publishes go out at once, until the time is up.
        assert_eq!(load.begin(ms(1200)).map(sent), Some(300_000));
        assert_eq!(load.begin(ms(3000)), None);
        assert!(load.answered(3, ms(1200)) && load.is_done(ms(3000)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_waits_for_answers_is_not_woken() {
        let ms = Duration::from_millis;
        for interval in [None, Some(ms(100))] {
            let plan = Arc::new(Plan::new(1, shape(interval)));
            let mut load = Load::new(plan.clone(), 0);
            let (_go, mut start) = watch::channel(Some(schedule(ms(1000))));
            load.wait_start(&mut start).await;
            assert!(load.begin(ms(0)).is_some());
            tokio::time::advance(ms(3000)).await;
            assert_eq!(load.begin(plan.now()), None, "the time is up");
            assert_eq!(load.wait_due().now_or_never(), None, "{interval:?}");
            assert!(load.answered(0, plan.now()));
            assert_eq!(load.wait_due().now_or_never(), Some(()), "{interval:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_keeps_its_window_and_its_time() {
        let plan = Arc::new(Plan::new(1, shape(None)));
        let mut load = Load::new(plan.clone(), 5);
        assert_eq!(load.begin(Duration::ZERO), None, "it has not started");
        let second = Duration::from_secs(1);
        let (_go, mut start) = watch::channel(Some(schedule(second)));
        load.wait_start(&mut start).await;
        let begun = std::iter::from_fn(|| load.begin(second / 2)).count();
        assert_eq!(begun, 3);
        assert!(load.answered(0, second / 2) && !load.answered(0, second / 2));
        assert!(load.answered(1, second * 2) && load.answered(2, second * 2));
        assert_eq!(load.begin(second * 3), None);
        assert!(load.is_done(second * 3) && !load.is_done(second * 2));
        let published = load.finish(None);
        assert_eq!(published.measured, 2);
        assert_eq!((published.acknowledged_below, published.unanswered), (3, 0));
        assert_eq!(published.latencies.max() / 1000, 1500);
        assert_eq!(plan.acknowledged.load(Ordering::Relaxed), 3);
    }
}

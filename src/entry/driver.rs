//! The entry's task: one owner of the core, one loop: wait, handle, flush.
//!
//! Invariant: the task never waits for a storage, for sync or for a session. Calls are futures that it polls itself. Their
//! number is bounded by the limits per storage and by the core's own limits. Every call ends, at the latest by a timeout.
//!
//! Deliberately absent: decisions. The core makes them.

mod handle;

#[cfg(test)]
mod fakes;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{timeout, Instant};
use vulpes_raft::host::Host;
use vulpes_raft::ids::{AdvanceSegment, Incarnation, NodeId};
use vulpes_raft::order::{Resolution, SegmentOutcome, StorageGroups};

#[cfg(test)]
pub(crate) use self::handle::Inbox;
use self::handle::Submitted;
pub use self::handle::{EntryClosed, EntryHandle, Permit};
use super::core::{Core, Output};
use super::order::{Lease, Opened, OrderError, OrderService};
use super::status::EntryStatus;
use super::{AnswerTo, EntryTuning};
use crate::append::{AppendError, Appended, SegmentStore};
use crate::recent::RecentBodies;
use crate::types::answer::{Answer, PublishError};
use crate::types::limits;
use crate::types::moment::Moment;

/// Time limit for a storage to store a body. After that, the call counts as failed and is retried.
const APPEND_TIMEOUT: Duration = Duration::from_secs(3);

const _: () = assert!(
    crate::peer::APPEND_DEADLINE.as_millis() < APPEND_TIMEOUT.as_millis(),
    "a connection that lost a call is replaced only if the call ends by its own deadline"
);

/// Time limit for sync to answer.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5);

/// Most batches accepted in one turn, so that votes and outcomes don't wait behind them.
const TURN_BATCHES: usize = 256;

/// Most messages of the followed log handled in one turn.
const TURN_OBSERVED: usize = 64;

/// How far ahead timers are set when there is nothing to wait for.
const IDLE: Duration = Duration::from_secs(3600);

/// The configuration of an entry.
pub struct EntryConfig {
    pub node: NodeId,
    /// All storages that may be in a group.
    pub storages: Vec<Arc<dyn SegmentStore>>,
    /// How long sync waits for a sign of life before it closes an incarnation. It is renewed after a third of that.
    pub lease: Duration,
    pub tuning: EntryTuning,
}

/// The entry role.
pub struct Entry {
    core: Core<AnswerTo>,
    config: EntryConfig,
    order: Arc<dyn OrderService>,
    recent: RecentBodies,
    calls: FuturesUnordered<BoxFuture<'static, Done>>,
    batches: mpsc::Receiver<Submitted>,
    observed: mpsc::Receiver<Arc<Vec<Resolution>>>,
    status: watch::Sender<EntryStatus>,
    /// The origin of the core's moments.
    start: Instant,
    /// No more batches can be submitted.
    closing: bool,
    /// The node is stopping.
    stopped: bool,
}

/// A completed call.
enum Done {
    Opened(Result<Opened, OrderError>),
    Begun(NodeId, Incarnation, Result<u32, AppendError>),
    Voted(NodeId, AdvanceSegment, Result<Appended, AppendError>),
    Told(NodeId, AdvanceSegment, Result<(), AppendError>),
    Proposed(u64, Result<Vec<SegmentOutcome>, OrderError>),
    Regrouped(Result<StorageGroups, OrderError>),
    Renewed(Incarnation, Result<Lease, OrderError>),
}

impl Entry {
    /// Starts an entry's task. It runs until its last handle is dropped and everything is answered, until the log it follows
    /// ends, or until sync says that the node is stopping. Publishes that are unanswered then get the answer that their outcome
    /// is unknown.
    ///
    /// `observed` is the followed log, beginning before this call: every slot once, in order.
    pub fn start(
        config: EntryConfig,
        host: &Host,
        order: Arc<dyn OrderService>,
        observed: mpsc::Receiver<Arc<Vec<Resolution>>>,
        recent: RecentBodies,
    ) -> EntryHandle {
        let (sender, batches) = mpsc::channel(limits::ENTRY_BATCHES);
        let (status, watched) = watch::channel(EntryStatus::default());
        let entry = Self {
            core: Core::new(config.node, host.random.next_u64(), config.lease).tuned(config.tuning),
            config,
            order,
            recent,
            calls: FuturesUnordered::new(),
            batches,
            observed,
            status,
            start: Instant::now(),
            closing: false,
            stopped: false,
        };
        tokio::spawn(entry.run());
        EntryHandle::new(sender, watched)
    }

    async fn run(mut self) {
        let mut armed = self.start;
        let timer = tokio::time::sleep_until(armed);
        tokio::pin!(timer);
        while !self.is_over() {
            let now = self.now();
            self.core.end_turn(now);
            self.flush();
            self.status.send_modify(|status| self.core.report(status));
            // A timer that fires early does no harm, so it is moved only if it would fire too late.
            let deadline = self.deadline();
            if timer.is_elapsed() || deadline < armed {
                armed = deadline;
                timer.as_mut().reset(armed);
            }
            tokio::select! {
                biased;
                Some(done) = self.calls.next() => self.done(done),
                rows = self.observed.recv() => self.observe(rows),
                batch = self.batches.recv(), if self.takes_batches() => self.take(batch),
                () = &mut timer => {}
            }
            self.drain();
        }
        self.end();
    }

    fn is_over(&self) -> bool {
        self.stopped || (self.closing && self.core.unanswered() == 0)
    }

    fn takes_batches(&self) -> bool {
        !self.closing && !self.core.is_full()
    }

    fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    fn moment(&self, at: Instant) -> Moment {
        let since = at.saturating_duration_since(self.start);
        Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn deadline(&self) -> Instant {
        match self.core.deadline() {
            Some(moment) => self.start + Duration::from_millis(moment.0),
            None => Instant::now() + IDLE,
        }
    }

    /// Handles everything that is ready.
    fn drain(&mut self) {
        while let Some(Some(done)) = self.calls.next().now_or_never() {
            self.done(done);
        }
        for _ in 0..TURN_OBSERVED {
            let Ok(rows) = self.observed.try_recv() else { break };
            self.observe(Some(rows));
        }
        for _ in 0..TURN_BATCHES {
            // Segments sealed meanwhile go out first.
            if !self.takes_batches() || self.core.has_output() {
                break;
            }
            match self.batches.try_recv() {
                Ok(batch) => self.take(Some(batch)),
                Err(_) => break,
            }
        }
    }

    fn take(&mut self, batch: Option<Submitted>) {
        match batch {
            Some(Submitted { batch, at, room }) => {
                self.core.accept(batch, self.moment(at));
                drop(room);
            }
            None => self.closing = true,
        }
    }

    fn observe(&mut self, rows: Option<Arc<Vec<Resolution>>>) {
        let Some(rows) = rows else {
            self.stopped = true;
            return;
        };
        let now = self.now();
        for row in rows.iter() {
            self.core.observed(row, now);
        }
    }

    fn done(&mut self, done: Done) {
        let now = self.now();
        match done {
            Done::Opened(result) => {
                self.check(result.as_ref().err());
                self.core.opened(result, now);
            }
            Done::Begun(storage, incarnation, result) => {
                self.core.begun(storage, incarnation, result, now);
            }
            Done::Voted(storage, id, result) => self.core.voted(storage, id, result, now),
            Done::Told(storage, through, result) => {
                self.core.told(storage, through, result, now);
            }
            Done::Proposed(call, result) => {
                self.check(result.as_ref().err());
                self.core.proposed(call, result, now);
            }
            Done::Regrouped(result) => {
                self.check(result.as_ref().err());
                self.core.regrouped(result, now);
            }
            Done::Renewed(incarnation, result) => {
                self.check(result.as_ref().err());
                self.core.renewed(incarnation, result, now);
            }
        }
    }

    /// Handles permanent errors. After other errors the core retries.
    fn check(&mut self, error: Option<&OrderError>) {
        match error {
            Some(OrderError::Shutdown) => self.stopped = true,
            Some(error @ OrderError::Wiped) => tracing::error!("{error}"),
            Some(OrderError::Unavailable | OrderError::Unknown) | None => {}
        }
    }

    /// Carries out the core's requests.
    fn flush(&mut self) {
        while let Some(output) = self.core.poll() {
            match output {
                Output::Answer { to, answer } => give(&to, answer),
                Output::Sealed(sealed) => self.recent.insert(sealed.id, sealed.body),
                output => {
                    if let Some(call) = self.call(output) {
                        self.calls.push(call);
                    }
                }
            }
        }
    }

    /// The call that an output asks for.
    fn call(&self, output: Output<AnswerTo>) -> Option<BoxFuture<'static, Done>> {
        let (order, node) = (Arc::clone(&self.order), self.config.node);
        Some(match output {
            Output::Answer { .. } | Output::Sealed(_) => return None,
            Output::Begin { storage, incarnation } => {
                let store = self.store(storage);
                async move {
                    let begin = async { store?.begin(node, incarnation).await };
                    Done::Begun(storage, incarnation, in_time(storage, begin).await)
                }
                .boxed()
            }
            Output::Append { storage, body } => {
                let (store, id) = (self.store(storage), body.id);
                async move {
                    let append = async { store?.append(body).await };
                    Done::Voted(storage, id, in_time(storage, append).await)
                }
                .boxed()
            }
            Output::Skip { storage, through } => {
                let store = self.store(storage);
                async move {
                    let skip = async { store?.skip(through).await };
                    Done::Told(storage, through, in_time(storage, skip).await)
                }
                .boxed()
            }
            Output::Open { request } => {
                async move { Done::Opened(answered(order.open(node, request)).await) }.boxed()
            }
            Output::Propose { call, segments } => {
                async move { Done::Proposed(call, answered(order.propose(segments)).await) }.boxed()
            }
            Output::Regroup => {
                async move { Done::Regrouped(answered(order.groups()).await) }.boxed()
            }
            Output::Renew { incarnation } => async move {
                Done::Renewed(incarnation, answered(order.renew(node, incarnation)).await)
            }
            .boxed(),
        })
    }

    fn store(&self, storage: NodeId) -> Result<Arc<dyn SegmentStore>, AppendError> {
        let store = self.config.storages.iter().find(|store| store.storage() == storage);
        store.map(Arc::clone).ok_or_else(|| AppendError::Unreachable {
            storage,
            reason: "it is in a storage group, but not in this node's configuration".into(),
        })
    }

    /// Answers everything unanswered, so that no session waits for an entry that has ended.
    fn end(mut self) {
        self.core.end();
        self.flush();
        self.batches.close();
        while let Ok(Submitted { batch, .. }) = self.batches.try_recv() {
            let count = u32::try_from(batch.events.len()).unwrap_or(u32::MAX);
            let outcome = Err(PublishError::Unknown);
            if count > 0 {
                give(&batch.answers, Answer { first: batch.first, count, outcome });
            }
        }
        self.status.send_modify(|status| self.core.report(status));
    }
}

fn give(to: &AnswerTo, answer: Answer) {
    let Some(to) = to else { return };
    match to.try_send(answer) {
        Ok(()) => {}
        // The session has ended and needs no answer.
        Err(TrySendError::Closed(_)) => {}
        Err(TrySendError::Full(_)) => {
            tracing::error!("a session has less room for answers than it has batches waiting; an answer is lost");
        }
    }
}

/// A storage's answer, or a timeout.
async fn in_time<T>(
    storage: NodeId,
    call: impl std::future::Future<Output = Result<T, AppendError>>,
) -> Result<T, AppendError> {
    let late = || AppendError::Unreachable { storage, reason: "no answer in time".into() };
    timeout(APPEND_TIMEOUT, call).await.unwrap_or_else(|_| Err(late()))
}

/// Sync's answer, or an unknown outcome.
async fn answered<T>(
    call: impl std::future::Future<Output = Result<T, OrderError>>,
) -> Result<T, OrderError> {
    timeout(ORDER_TIMEOUT, call).await.unwrap_or(Err(OrderError::Unknown))
}

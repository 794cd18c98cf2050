//! One replica of the log per node. It follows the order slot by slot, gets each body, folds it into the realms'
//! state, hands it to the dispatcher, and has its storage index it together with the changes of the state.
//!
//! Invariant: slots are taken densely and in order; bases are dense; stamps and the order's time never decrease. If
//! the order contradicts what this node has already shown, the node ends rather than show two orders. A missing body
//! is fetched, never skipped. The state is applied only here, so it is never behind what subscribers and the storage
//! get.
//!
//! Deliberately absent: what subscribers do with events (`dispatch`, `server`), what the state is (`realm`), and
//! carrying out what it asks for.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use vulpes_raft::host::Host;
use vulpes_raft::ids::{AdvanceSegment, OrderTime, Position, Slot, Stamp};
use vulpes_raft::order::{Resolution, SealedSegment, Step};

use crate::dispatch::{Dispatcher, Join, JoinError};
use crate::log::{bodies_wanted, open_body, Log, LogTail, Placed};
use crate::realm::{Applied, Notice, ReadValue, Realms, SharedRealms, Unread, View};
use crate::recent::RecentBodies;
use crate::segment::Segment;
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::row::IndexedRow;
use crate::types::subscription::SubscriptionId;

/// The result of following the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The next slots, or none within the wait.
    Rows(Vec<Resolution>),
    /// Sync no longer has such old rows: read them from a storage.
    Behind,
}

/// The order, as a replica follows it. On an error the caller retries later.
pub trait OrderFeed: Send + Sync + 'static {
    /// The slots from `from` on, waiting a while for the first.
    fn follow(&self, from: Slot) -> BoxFuture<'_, Result<Followed, String>>;
}

/// A storage's index of slots, which its node's replica fills.
pub trait SlotIndex: Send + Sync + 'static {
    /// Whether the body belongs to this storage, and is missing.
    fn lacks(&self, segment: &SealedSegment) -> bool;

    /// Whether a missing body may be on its way from its entry.
    fn comes(&self, segment: &SealedSegment) -> bool;

    /// Waits for a body while it may be on its way, at most until this moment.
    fn arrival<'a>(&'a self, segment: &'a SealedSegment, until: Instant) -> BoxFuture<'a, ()>;

    /// Counts missing bodies that were fetched.
    fn fetched(&self, bodies: u64);

    /// Takes slots in order, with the bodies that it lacks.
    fn index(&self, rows: Vec<IndexedRow>) -> BoxFuture<'_, Result<(), IndexFailure>>;
}

/// Why a storage did not take slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexFailure {
    /// The node is shutting down.
    Closing,
    /// They contradict its own.
    Refused(String),
}

/// A session's commands to the dispatcher.
#[derive(Debug)]
pub enum Command {
    Join { join: Join, answer: oneshot::Sender<Result<Slot, JoinError>> },
    Leave { session: SessionId, id: SubscriptionId, answer: oneshot::Sender<()> },
    Remove(SessionId),
}

/// What a replica needs.
pub struct Replica {
    pub host: Host,
    pub order: Arc<dyn OrderFeed>,
    /// The node's own storage, if it has that role.
    pub index: Option<Arc<dyn SlotIndex>>,
    pub log: Log,
    pub recent: RecentBodies,
    /// The state after the slots that were read so far: the replica continues with the next one.
    pub realms: SharedRealms,
    /// Receives the state's notices, slot by slot, after the slot itself. The replica waits for it: see
    /// [`NOTICE_SLOTS`].
    pub notices: Option<mpsc::Sender<Vec<Notice>>>,
    /// Receives new slots to dispatch.
    pub placed: mpsc::Sender<Arc<Placed>>,
    /// Set when the replica ends because other storages have released what it would need next.
    pub left_behind: watch::Sender<bool>,
    /// Receive the rows, for this node's entry to find its own segments.
    pub observers: Vec<mpsc::Sender<Arc<Vec<Resolution>>>>,
}

/// Slots with notices that may wait to be carried out; beyond this, the replica waits.
pub const NOTICE_SLOTS: usize = 256;

/// How long to wait for bodies that are probably on their way before fetching them.
const ARRIVAL_WAIT: Duration = Duration::from_millis(50);

/// How long to wait before a retry.
const RETRY: Duration = Duration::from_millis(100);

/// How long rows wait for more before the storage indexes them. A commit with rows changes two more tables than a commit with
/// only bodies. Publishers wait for commits of bodies; nothing waits for rows.
const ROWS_WAIT: Duration = Duration::from_millis(20);

/// Most bytes of bodies and changes that wait with them; one row may exceed it.
const ROWS_BYTES: usize = 1 << 20;

/// Rows that the storage still has to index.
#[derive(Default)]
struct Unindexed {
    rows: Vec<IndexedRow>,
    bytes: usize,
    /// When to give them to the storage at the latest.
    due: Option<Instant>,
    /// One of them fences an incarnation, which can't wait.
    fences: bool,
}

/// What the next row has to agree with.
struct Expected {
    slot: Slot,
    position: Position,
    stamp: Stamp,
    time: OrderTime,
}

impl Replica {
    /// Follows the order as long as the node lives.
    pub async fn run(self) {
        let View { next, position, .. } = self.realms.view();
        let mut expected = Expected { slot: next, position, stamp: Stamp(0), time: OrderTime(0) };
        let mut unindexed = Unindexed::default();
        loop {
            let next = self.next_rows(expected.slot);
            let Ok(next) = self.index_meanwhile(next, &mut unindexed).await else { return };
            let rows = match next {
                Ok(rows) if rows.is_empty() => continue,
                Ok(rows) => rows,
                Err(reason) => {
                    tracing::debug!(slot = %expected.slot, reason, "the order can't be followed right now");
                    if *self.left_behind.borrow() {
                        return;
                    }
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            for row in &rows {
                if let Err(contradiction) = expected.take(row) {
                    (self.host.fatal)(&contradiction);
                    return;
                }
            }
            if self.take(rows, &mut unindexed).await.is_err() {
                return;
            }
        }
    }

    /// Waits for the next rows, and lets the storage index earlier ones when they are due. An error means that the node ends.
    async fn index_meanwhile<T>(
        &self,
        next: impl Future<Output = T>,
        unindexed: &mut Unindexed,
    ) -> Result<T, ()> {
        let mut next = std::pin::pin!(next);
        if let Some(due) = unindexed.due {
            match tokio::time::timeout_at(due, &mut next).await {
                Ok(next) => return Ok(next),
                Err(_) => self.index(unindexed).await?,
            }
        }
        Ok(next.await)
    }

    /// Gives rows to the storage. An error means that the node ends.
    async fn index(&self, unindexed: &mut Unindexed) -> Result<(), ()> {
        let Some(index) = &self.index else { return Ok(()) };
        match index.index(std::mem::take(unindexed).rows).await {
            Ok(()) => {}
            Err(IndexFailure::Closing) => return Err(()),
            Err(IndexFailure::Refused(reason)) => {
                (self.host.fatal)(&format!("the storage refuses the order: {reason}"));
                return Err(());
            }
        }
        // After the rows in the storage's queue, so that nothing is deleted before the row that releases it is
        // durable.
        self.release();
        Ok(())
    }

    /// Publishes the log's head to the tasks that delete.
    fn release(&self) {
        self.log.release(self.realms.with(Realms::head));
    }

    async fn next_rows(&self, from: Slot) -> Result<Vec<Resolution>, String> {
        match self.order.follow(from).await? {
            Followed::Rows(rows) => Ok(rows),
            Followed::Behind => match self.log.rows(from, limits::READ_ROWS).await {
                Ok(rows) => Ok(rows),
                Err(error) => {
                    self.is_left_behind(from).await;
                    Err(format!("neither sync nor a storage has slot {from}: {error}"))
                }
            },
        }
    }

    /// Whether the log has been released from the slot that this node needs next. Then it has to start over.
    async fn is_left_behind(&self, slot: Slot) -> bool {
        let left_behind = self.log.is_released(slot).await;
        if left_behind {
            tracing::warn!(%slot, "this node was away for longer than the log is kept");
            self.left_behind.send_replace(true);
        }
        left_behind
    }

    /// Gets the bodies of some rows and passes both on. An error means that the node ends.
    async fn take(&self, rows: Vec<Resolution>, unindexed: &mut Unindexed) -> Result<(), ()> {
        let rows = Arc::new(rows);
        for observer in &self.observers {
            observer.send(rows.clone()).await.map_err(drop)?;
        }
        let mut ahead = BTreeMap::new();
        let patience = Instant::now() + ARRIVAL_WAIT;
        for (at, row) in rows.iter().enumerate() {
            let segment = match &row.step {
                Step::Segment(sealed) => match ahead.remove(&sealed.id) {
                    Some(segment) => Some(segment),
                    None => {
                        let following = &rows[at..];
                        let found = self.segment(sealed, following, patience, &mut ahead).await;
                        Some(found.ok_or(())?)
                    }
                },
                Step::Opened { .. } | Step::Closed { .. } => None,
            };
            let read = self.read(self.realms.unread(segment.as_ref())).await;
            let applied = self.realms.apply(row, segment.as_ref(), read);
            let Applied { hidden, changes, notices } = applied;
            if let Some(index) = &self.index {
                let body = body_missing(index.as_ref(), row, segment.as_ref());
                let (resolution, hidden) = (row.clone(), hidden.clone());
                unindexed.push(IndexedRow { resolution, body, hidden, changes });
            }
            let hidden = hidden.into();
            let placed = Arc::new(Placed { resolution: row.clone(), segment, hidden });
            self.placed.send(placed).await.map_err(drop)?;
            if let Some(told) = self.notices.as_ref().filter(|_| !notices.is_empty()) {
                told.send(notices).await.map_err(drop)?;
            }
            if unindexed.is_full() {
                self.index(unindexed).await?;
            }
        }
        if self.index.is_none() {
            self.release();
        }
        Ok(())
    }

    /// Reads large values on another thread, so that leases, Raft and readers of the state do not wait for it.
    async fn read(&self, unread: Vec<Unread>) -> Vec<ReadValue> {
        if unread.is_empty() {
            return Vec::new();
        }
        let read = || unread.into_iter().map(Unread::read).collect();
        self.host.clients.block(read).await
    }

    /// The events of a segment, wherever its body is; retried until a storage has it, or knows that it is released. `rows`
    /// begin with the segment's row. Bodies are fetched together with following ones, into `ahead`: a node that was away has
    /// many to fetch, and with several storage groups a node fetches what the others store.
    async fn segment(
        &self,
        sealed: &SealedSegment,
        rows: &[Resolution],
        patience: Instant,
        ahead: &mut BTreeMap<AdvanceSegment, Segment>,
    ) -> Option<Segment> {
        let near = match self.recent.get(sealed.id) {
            Some(body) => Some(body),
            None => self.nearly_here(sealed, patience).await,
        };
        if let Some(Ok(segment)) = near.map(|body| open_body(sealed, body)) {
            return Some(segment);
        }
        let mut wanted = bodies_wanted(rows, limits::READ_BYTES);
        wanted.retain(|next| {
            let comes = ahead.contains_key(&next.id) || self.comes_by_itself(next, patience);
            next.id == sealed.id || !comes
        });
        loop {
            match self.log.bodies(&wanted).await {
                Ok(segments) => {
                    self.count(&wanted[..segments.len()]);
                    ahead.extend(segments.into_iter().map(|segment| (segment.id(), segment)));
                    if let Some(segment) = ahead.remove(&sealed.id) {
                        return Some(segment);
                    }
                }
                Err(error) => {
                    tracing::warn!(segment = %sealed.id, %error, "waiting for a body");
                }
            }
            if self.is_left_behind(rows[0].slot).await {
                return None;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The order may be faster than bodies that entries are just sending to this node. Rows that arrive together share one
    /// wait, because a node that was away is not sent any bodies.
    async fn nearly_here(&self, sealed: &SealedSegment, patience: Instant) -> Option<Bytes> {
        // Bodies are sent only to the storages of their group.
        let index = self.index.as_ref().filter(|index| index.lacks(sealed))?;
        index.arrival(sealed, patience).await;
        self.recent.get(sealed.id)
    }

    /// Counts the fetched bodies that the storage lacked.
    fn count(&self, fetched: &[SealedSegment]) {
        if let Some(index) = &self.index {
            let lacked = fetched.iter().filter(|sealed| index.lacks(sealed)).count();
            index.fetched(lacked as u64);
        }
    }

    /// Whether a body is in memory, or is probably being sent here.
    fn comes_by_itself(&self, sealed: &SealedSegment, patience: Instant) -> bool {
        let comes = |index: &Arc<dyn SlotIndex>| index.lacks(sealed) && index.comes(sealed);
        let comes = self.index.as_ref().is_some_and(comes);
        comes && Instant::now() < patience || self.recent.get(sealed.id).is_some()
    }
}

impl Unindexed {
    fn push(&mut self, row: IndexedRow) {
        self.due.get_or_insert_with(|| Instant::now() + ROWS_WAIT);
        self.fences |= !matches!(row.resolution.step, Step::Segment(_));
        self.bytes += row.weight();
        self.rows.push(row);
    }

    fn is_full(&self) -> bool {
        self.fences || self.bytes >= ROWS_BYTES || self.rows.len() >= limits::READ_ROWS
    }
}

/// The body of a row, if the storage lacks it.
fn body_missing(
    index: &dyn SlotIndex,
    row: &Resolution,
    segment: Option<&Segment>,
) -> Option<Bytes> {
    match &row.step {
        Step::Segment(sealed) if index.lacks(sealed) => {
            segment.map(|segment| segment.body().clone())
        }
        Step::Segment(_) | Step::Opened { .. } | Step::Closed { .. } => None,
    }
}

impl Expected {
    fn take(&mut self, row: &Resolution) -> Result<(), String> {
        let backwards = row.stamp < self.stamp || row.time() < self.time;
        if row.slot != self.slot || row.base != self.position || backwards {
            return Err(format!(
                "the order contradicts itself: expected slot {} at position {} not before {}, got slot {} at \
                 position {} stamped {}; stop this node and run `vulpes verify` on the others",
                self.slot, self.position, self.stamp, row.slot, row.base, row.stamp
            ));
        }
        let (stamp, time) = (row.stamp, row.time());
        *self = Self { slot: row.slot.next(), position: row.end(), stamp, time };
        Ok(())
    }
}

/// Commands to handle before the next slot.
const COMMANDS_A_TURN: usize = 64;

/// The dispatcher's loop: the only owner of the live index and of the log's tail.
pub async fn dispatch(
    mut dispatcher: Dispatcher,
    tail: LogTail,
    mut placed: mpsc::Receiver<Arc<Placed>>,
    mut commands: mpsc::Receiver<Command>,
) {
    loop {
        // Commands first: a joining session should miss as little as possible. But only so many, so that sessions
        // can't hold up the log.
        for _ in 0..COMMANDS_A_TURN {
            let Ok(command) = commands.try_recv() else { break };
            obey(&mut dispatcher, command);
        }
        tokio::select! {
            biased;
            next = placed.recv() => {
                let Some(next) = next else { return };
                // A reader that sees the new tail has been handed everything before it.
                dispatcher.dispatch(&next);
                tail.append(next);
            }
            // Without clients there are no commands, and this branch is off.
            Some(command) = commands.recv() => obey(&mut dispatcher, command),
        }
    }
}

fn obey(dispatcher: &mut Dispatcher, command: Command) {
    match command {
        Command::Join { join, answer } => {
            let session = join.session;
            let result = dispatcher.join(join);
            if answer.send(result).is_err() && result.is_ok() {
                dispatcher.remove(session);
            }
        }
        Command::Leave { session, id, answer } => {
            dispatcher.leave(session, id);
            let _ = answer.send(());
        }
        Command::Remove(session) => dispatcher.remove(session),
    }
}

#[cfg(test)]
mod tests;

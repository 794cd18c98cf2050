//! One replica of the log a node: follows the order slot by slot, gets each body, folds it into the realms' state, hands
//! it to the dispatcher, and has its storage index it together with what changed in the state.
//!
//! Invariant: slots are taken densely and in order; bases are dense; stamps and the order's time don't fall. Where the order contradicts what
//! this node has already shown, the node ends rather than show two orders. A missing body is fetched, never skipped.
//! The state is applied here and nowhere else, so it is never behind what subscribers and the storage are given.
//!
//! Deliberately absent: what subscribers do with events (`dispatch`, `server`), what the state is (`realm`), and who
//! carries out what it asks for.

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
use crate::realm::{Applied, Notice, Realms, SharedRealms, View};
use crate::recent::RecentBodies;
use crate::segment::Segment;
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::row::IndexedRow;
use crate::types::subscription::SubscriptionId;

/// What following the order brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The next slots, or none within the wait.
    Rows(Vec<Resolution>),
    /// Sync keeps no rows that old any more: they are to be read from a storage.
    Behind,
}

/// The order, as a replica follows it. Errors mean: not now, try again.
pub trait Order: Send + Sync + 'static {
    /// The slots from one on, waiting a while for the first.
    fn follow(&self, from: Slot) -> BoxFuture<'_, Result<Followed, String>>;
}

/// A storage's index of slots, as its node's replica fills it.
pub trait SlotIndex: Send + Sync + 'static {
    /// Whether the body is to be kept here, and is not here yet.
    fn lacks(&self, segment: &SealedSegment) -> bool;

    /// Whether a body that is not here yet may be on its way from its entry.
    fn comes(&self, segment: &SealedSegment) -> bool;

    /// Waits for a body for as long as it may be on its way, and until this moment at the latest.
    fn arrival<'a>(&'a self, segment: &'a SealedSegment, until: Instant) -> BoxFuture<'a, ()>;

    /// So many bodies that it lacks were fetched.
    fn fetched(&self, bodies: u64);

    /// Takes slots in order, with the bodies that it lacks.
    fn index(&self, rows: Vec<IndexedRow>) -> BoxFuture<'_, Result<(), IndexFailure>>;
}

/// Why a storage takes no slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexFailure {
    /// The node is shutting down.
    Closing,
    /// They contradict what it has.
    Refused(String),
}

/// What sessions ask of the dispatcher.
#[derive(Debug)]
pub enum Command {
    Join { join: Join, answer: oneshot::Sender<Result<Slot, JoinError>> },
    Leave { session: SessionId, id: SubscriptionId, answer: oneshot::Sender<()> },
    Remove(SessionId),
}

/// What a replica works with.
pub struct Replica {
    pub host: Host,
    pub order: Arc<dyn Order>,
    /// The node's own storage, if it has that role.
    pub index: Option<Arc<dyn SlotIndex>>,
    pub log: Log,
    pub recent: RecentBodies,
    /// The state behind the slots that were read so far: the replica goes on at the next one.
    pub realms: SharedRealms,
    /// Where what the state asks for goes, slot by slot, behind the slot itself. Waited for: see [`NOTICE_SLOTS`].
    pub notices: Option<mpsc::Sender<Vec<Notice>>>,
    /// Where new slots go to be dispatched.
    pub placed: mpsc::Sender<Arc<Placed>>,
    /// Told when the replica ends because other storages have released what it would need next.
    pub left_behind: watch::Sender<bool>,
    /// Where the rows go that this node's entry watches for its own segments.
    pub observers: Vec<mpsc::Sender<Arc<Vec<Resolution>>>>,
}

/// Slots with notices that may wait for who carries them out; past it, the replica waits.
pub const NOTICE_SLOTS: usize = 256;

/// How long bodies that are probably on their way are waited for before they are fetched.
const ARRIVAL_WAIT: Duration = Duration::from_millis(50);

/// How long to wait before what failed is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How long rows wait for more before the storage indexes them. Each commit that has rows changes two tables more than one
/// with bodies alone, and publishers wait for those; nobody waits for rows.
const ROWS_WAIT: Duration = Duration::from_millis(20);

/// Bytes of bodies and changes that wait with them, at most; one row may go beyond it.
const ROWS_BYTES: usize = 1 << 20;

/// Rows that the storage is to index.
#[derive(Default)]
struct Unindexed {
    rows: Vec<IndexedRow>,
    bytes: usize,
    /// When they are given to the storage at the latest.
    due: Option<Instant>,
    /// Among them is one that others may be refused for: it can't wait.
    fences: bool,
}

/// What the order has to agree with.
struct Expected {
    slot: Slot,
    position: Position,
    stamp: Stamp,
    time: OrderTime,
}

impl Replica {
    /// Follows the order for as long as the node lives.
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

    /// Waits for the next rows, and has those before them indexed when they are due. An error means that the node ends.
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
        // Behind the rows in the storage's queue, so that nothing is deleted before the row that says so is durable.
        self.release();
        Ok(())
    }

    /// Tells whoever deletes where the log's head is.
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

    /// Whether the log is not kept any more from the slot on that this node needs next. Then it has to begin anew.
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
            let Applied { hidden, changes, notices } = self.realms.apply(row, segment.as_ref());
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

    /// The events of a segment, wherever its body is; retried until a storage has it, or knows that it is released.
    /// `rows` begin with the segment's: what has to be fetched is fetched together with what follows, into `ahead`, because
    /// a node that was away has much to fetch, and one of several storage groups fetches what the others keep.
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

    /// The order may be faster than the bodies that their entries are sending here just now. Rows that come together
    /// wait together: those who were away are not sent anything.
    async fn nearly_here(&self, sealed: &SealedSegment, patience: Instant) -> Option<Bytes> {
        // Bodies are sent to the storages of their group only.
        let index = self.index.as_ref().filter(|index| index.lacks(sealed))?;
        index.arrival(sealed, patience).await;
        self.recent.get(sealed.id)
    }

    /// Counts what was fetched of what the storage lacks.
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

/// The body of a row, where the storage lacks it.
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

/// Commands that are obeyed before the next slot is looked for.
const COMMANDS_A_TURN: usize = 64;

/// The dispatcher's loop: the only owner of the live index and of the log's tail.
pub async fn dispatch(
    mut dispatcher: Dispatcher,
    tail: LogTail,
    mut placed: mpsc::Receiver<Arc<Placed>>,
    mut commands: mpsc::Receiver<Command>,
) {
    loop {
        // Commands first: a session that joins is to miss as little as possible. But only so many: the log goes on, however
        // much sessions have to ask.
        for _ in 0..COMMANDS_A_TURN {
            let Ok(command) = commands.try_recv() else { break };
            obey(&mut dispatcher, command);
        }
        tokio::select! {
            biased;
            next = placed.recv() => {
                let Some(next) = next else { return };
                // Whoever sees the new tail has been handed all that is before it.
                dispatcher.dispatch(&next);
                tail.append(next);
            }
            // A node without clients has no commands: that branch is off then.
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

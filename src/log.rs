//! The log as this node reads it: its recent tail from memory, everything older from a storage.
//!
//! Invariant: a read of a slot returns the resolution that the order has there, with the very body that was voted
//! for: length and checksum are compared with the resolution, wherever the body came from. Which events are hidden
//! was decided by the fold of the log.
//!
//! Deliberately absent: following the order and handing it to subscribers (`replica`, `dispatch`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use vulpes_raft::ids::{Position, Slot};
use vulpes_raft::order::{Resolution, SealedSegment, Step};

use crate::segment::{checksum, Segment};
use crate::types::head::Head;
use crate::types::limits;
use crate::types::subscription::{After, SubscribeError};
use sources::Sources;

pub use sources::{Rows, Source, SourceError};

mod sources;

/// One slot and its contents.
#[derive(Debug, Clone)]
pub struct Placed {
    pub resolution: Resolution,
    /// The segment's events; `None` if the step is not a segment.
    pub segment: Option<Segment>,
    /// Offsets of its events that subscribers never see, ascending. Usually empty.
    pub hidden: Box<[u32]>,
}

impl Placed {
    /// Bytes of its body.
    #[must_use]
    pub fn size(&self) -> usize {
        self.segment.as_ref().map_or(0, |segment| segment.body().len())
    }

    /// Whether subscribers never get the event at this offset.
    #[must_use]
    pub fn is_hidden(&self, offset: u32) -> bool {
        !self.hidden.is_empty() && self.hidden.binary_search(&offset).is_ok()
    }
}

/// How far a node has read the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// The next slot to read.
    pub next_slot: Slot,
    /// The position of the next event.
    pub next_position: Position,
}

/// Where a replay begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    pub slot: Slot,
    /// The first wanted position.
    pub position: Position,
}

/// Why a place can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the log is kept only from slot {oldest} on")]
    Gone { oldest: Slot },
    #[error("no storage answers: {0}")]
    Unavailable(String),
}

/// How long a reader waits for this node to reach a place that another node may know already.
const AHEAD_WAIT: Duration = Duration::from_secs(3);

/// Slots kept in memory for readers near the tail; their bytes are limited as well.
pub const RECENT_SLOTS: usize = 4096;

/// The log, read by any number of readers, appended to by the replica alone.
#[derive(Clone)]
pub struct Log {
    recent: Arc<Mutex<Recent>>,
    tail: watch::Receiver<Tail>,
    head: Arc<watch::Sender<Head>>,
    withheld: Arc<AtomicU64>,
    sources: Sources,
}

/// The replica's end of a [`Log`].
pub struct LogTail {
    recent: Arc<Mutex<Recent>>,
    /// Most slots kept in memory.
    slots: usize,
    tail: watch::Sender<Tail>,
    withheld: Arc<AtomicU64>,
}

#[derive(Default)]
struct Recent {
    placed: VecDeque<Arc<Placed>>,
    bytes: usize,
}

impl Recent {
    fn get(&self, slot: Slot) -> Option<Arc<Placed>> {
        let first = self.placed.front()?.resolution.slot;
        let at = usize::try_from(slot.0.checked_sub(first.0)?).ok()?;
        self.placed.get(at).cloned()
    }
}

fn body_len(placed: &Placed) -> usize {
    placed.segment.as_ref().map_or(0, |segment| segment.body().len())
}

/// A log whose next slot is `tail`, with the storages it can read older slots from, nearest first.
#[must_use]
pub fn log(tail: Tail, sources: Vec<Arc<dyn Source>>) -> (LogTail, Log) {
    let recent = Arc::<Mutex<Recent>>::default();
    let (sender, receiver) = watch::channel(tail);
    let head = Arc::new(watch::Sender::new(Head::default()));
    let sources = Sources(sources.into());
    let withheld = Arc::<AtomicU64>::default();
    let log =
        Log { recent: recent.clone(), tail: receiver, head, withheld: withheld.clone(), sources };
    (LogTail { recent, slots: RECENT_SLOTS, tail: sender, withheld }, log)
}

impl LogTail {
    /// The same, with fewer slots kept in memory.
    #[must_use]
    pub fn retaining(self, slots: usize) -> Self {
        Self { slots, ..self }
    }

    /// Adds the next slot and lets readers see it.
    pub fn append(&self, placed: Arc<Placed>) {
        let resolution = &placed.resolution;
        let tail = Tail { next_slot: resolution.slot.next(), next_position: resolution.end() };
        let withheld = placed.segment.as_ref().map_or(0, Segment::withheld);
        if withheld > 0 {
            self.count_withheld(u64::from(withheld), resolution.slot);
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.bytes += body_len(&placed);
        recent.placed.push_back(placed);
        while recent.placed.len() > self.slots || recent.bytes > limits::RECENT_BODIES {
            let Some(oldest) = recent.placed.pop_front() else { break };
            recent.bytes -= body_len(&oldest);
        }
        drop(recent);
        self.tail.send_replace(tail);
    }

    /// Counts events that are withheld from this node's clients, and logs each time their number has doubled.
    fn count_withheld(&self, events: u64, slot: Slot) {
        let before = self.withheld.fetch_add(events, Ordering::Relaxed);
        let all = before + events;
        if all.ilog2() > before.checked_ilog2().unwrap_or(0) || before == 0 {
            tracing::warn!(
                %slot, events = all,
                "events of a newer release are withheld from the clients of this node; upgrade this node"
            );
        }
    }
}

impl Log {
    /// The same log, read from these storages, nearest first: the replica and clients use separate queues.
    #[must_use]
    pub fn reading_from(&self, sources: Vec<Arc<dyn Source>>) -> Self {
        Self { sources: Sources(sources.into()), ..self.clone() }
    }

    /// Events since the process started that are withheld from this node's clients, because they have a critical
    /// extension field that this release does not know.
    #[must_use]
    pub fn withheld_events(&self) -> u64 {
        self.withheld.load(Ordering::Relaxed)
    }

    /// How far this node has read the order.
    #[must_use]
    pub fn tail(&self) -> Tail {
        *self.tail.borrow()
    }

    /// The first retained place, as far as this node has read the order.
    #[must_use]
    pub fn head(&self) -> Head {
        *self.head.borrow()
    }

    /// The same, as it moves.
    #[must_use]
    pub fn heads(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// Everything before this place is released. Only for the replica.
    pub fn release(&self, head: Head) {
        self.head.send_if_modified(|known| {
            let moves = head > *known;
            *known = head.max(*known);
            moves
        });
    }

    /// Whether a storage knows that a slot is released. A node that has not read that slot yet can't continue from
    /// its own data.
    pub async fn is_released(&self, slot: Slot) -> bool {
        self.sources.know_released(slot).await
    }

    /// Waits until this node has read the order up to and including a slot; for ever, if it never comes.
    pub async fn reached(&self, slot: Slot) {
        // The replica lives as long as the node: a closed channel means that the node ends.
        let _ = self.tail.clone().wait_for(|tail| tail.next_slot > slot).await;
    }

    /// A slot near the tail, from memory.
    #[must_use]
    pub fn recent(&self, slot: Slot) -> Option<Arc<Placed>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).get(slot)
    }

    /// Reads some slots from one on, none past this node's tail: nothing if `from` is the tail.
    ///
    /// # Errors
    /// If the slot is no longer retained, or no storage answers.
    pub async fn read(&self, from: Slot) -> Result<Vec<Arc<Placed>>, ReadError> {
        let tail = self.tail();
        if from >= tail.next_slot {
            return Ok(Vec::new());
        }
        let recent = self.read_recent(from);
        if !recent.is_empty() {
            return Ok(recent);
        }
        let count = (tail.next_slot.0 - from.0).min(limits::READ_ROWS as u64) as usize;
        let rows = self.stored_rows(from, count).await?;
        self.with_bodies(rows).await
    }

    fn read_recent(&self, from: Slot) -> Vec<Arc<Placed>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        let mut found = Vec::new();
        let mut slot = from;
        while let Some(placed) = recent.get(slot) {
            bytes += body_len(&placed);
            found.push(placed);
            if bytes > limits::SESSION_READ_AHEAD || found.len() >= limits::READ_ROWS {
                break;
            }
            slot = slot.next();
        }
        found
    }

    /// Rows from a slot on, from the first storage that has any; at least one.
    ///
    /// # Errors
    /// If the slot is no longer retained, or no storage answers.
    pub async fn rows(&self, from: Slot, max: usize) -> Result<Vec<Resolution>, ReadError> {
        Ok(self.stored_rows(from, max).await?.rows)
    }

    /// The same, with their hidden events.
    ///
    /// # Errors
    /// Like [`Log::rows`].
    pub async fn stored_rows(&self, from: Slot, max: usize) -> Result<Rows, ReadError> {
        let oldest = self.head().slot;
        if from < oldest {
            return Err(ReadError::Gone { oldest });
        }
        self.sources.rows(from, max).await
    }

    async fn with_bodies(&self, rows: Rows) -> Result<Vec<Arc<Placed>>, ReadError> {
        let Rows { rows, hidden, .. } = rows;
        let mut hidden: BTreeMap<Slot, Vec<u32>> = hidden.into_iter().collect();
        let mut placed = Vec::with_capacity(rows.len());
        let mut bytes = 0;
        let mut rows = VecDeque::from(rows);
        while !rows.is_empty() && bytes < limits::SESSION_READ_AHEAD {
            let run = bodies_wanted(rows.make_contiguous(), limits::SESSION_READ_AHEAD - bytes);
            let mut bodies = self.bodies(&run).await?.into_iter();
            while let Some(row) = rows.front() {
                let segment = match &row.step {
                    Step::Segment(_) => match bodies.next() {
                        Some(segment) => Some(segment),
                        None => break,
                    },
                    Step::Opened { .. } | Step::Closed { .. } => None,
                };
                bytes += segment.as_ref().map_or(0, |segment| segment.body().len());
                if let Some(resolution) = rows.pop_front() {
                    let hidden = hidden.remove(&resolution.slot).unwrap_or_default().into();
                    placed.push(Arc::new(Placed { resolution, segment, hidden }));
                }
            }
        }
        Ok(placed)
    }

    /// Bodies of sealed segments, checked against what was voted for; at least one of those asked for.
    ///
    /// # Errors
    /// If no storage has an undamaged body of the first one.
    pub async fn bodies(&self, wanted: &[SealedSegment]) -> Result<Vec<Segment>, ReadError> {
        self.sources.bodies(wanted).await
    }

    /// The start of a replay after a place. The place right before the head can be named only by a position: nothing
    /// is left to compare an event id with.
    ///
    /// # Errors
    /// If the place is no longer retained, does not exist yet, or no storage answers.
    pub async fn start_after(&self, after: After) -> Result<Start, SubscribeError> {
        let failed = |error: ReadError| self.failed(&error);
        let Head { slot, position: oldest } = self.head();
        match after {
            After::Position(position) if position == Position(0) || position.next() == oldest => {
                Ok(Start { slot, position: oldest })
            }
            After::Position(position) if position < oldest => Err(self.gone()),
            After::Position(position) => {
                self.wait_for(|tail| tail.next_position > position).await?;
                if self.tail().next_position == position.next() {
                    return Ok(Start { slot: self.tail().next_slot, position: position.next() });
                }
                match self.row_of(position).await.map_err(failed)? {
                    Some(row) => Ok(Start { slot: row.slot, position: position.next() }),
                    None if position < self.head().position => Err(self.gone()),
                    None => Err(SubscribeError::Unavailable),
                }
            }
            After::Event(id) => {
                self.wait_for(|tail| tail.next_slot > id.slot()).await?;
                let rows = self.rows_or_recent(id.slot()).await.map_err(failed)?;
                let position =
                    Position((rows.base.0 + u64::from(id.offset()) + 1).min(rows.end().0));
                Ok(Start { slot: rows.slot, position })
            }
        }
    }

    /// The start of reading from a position on.
    ///
    /// # Errors
    /// Like [`Log::start_after`].
    pub async fn start_at(&self, position: Position) -> Result<Start, SubscribeError> {
        self.wait_for(|tail| tail.next_position >= position).await?;
        let tail = self.tail();
        if tail.next_position == position {
            return Ok(Start { slot: tail.next_slot, position });
        }
        if position < self.head().position {
            return Err(self.gone());
        }
        match self.row_of(position).await.map_err(|error| self.failed(&error))? {
            Some(row) => Ok(Start { slot: row.slot, position }),
            None if position < self.head().position => Err(self.gone()),
            None => Err(SubscribeError::Unavailable),
        }
    }

    fn failed(&self, error: &ReadError) -> SubscribeError {
        match error {
            ReadError::Gone { .. } => self.gone(),
            ReadError::Unavailable(reason) => {
                tracing::warn!(%reason, "a replay can't begin");
                SubscribeError::Unavailable
            }
        }
    }

    async fn wait_for(&self, there: impl Fn(&Tail) -> bool) -> Result<(), SubscribeError> {
        let mut tail = self.tail.clone();
        let reached = tokio::time::timeout(AHEAD_WAIT, tail.wait_for(|tail| there(tail))).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                let last = Position(self.tail().next_position.0.saturating_sub(1));
                Err(SubscribeError::Ahead { last })
            }
        }
    }

    async fn rows_or_recent(&self, slot: Slot) -> Result<Resolution, ReadError> {
        let oldest = self.head().slot;
        if slot < oldest {
            return Err(ReadError::Gone { oldest });
        }
        if let Some(placed) = self.recent(slot) {
            return Ok(placed.resolution.clone());
        }
        let rows = self.rows(slot, 1).await?;
        rows.into_iter().next().ok_or_else(|| ReadError::Unavailable("an empty answer".into()))
    }

    /// The row whose segment contains a position; `None` if no storage has it.
    ///
    /// # Errors
    /// If no storage answers.
    pub async fn row_of(&self, position: Position) -> Result<Option<Resolution>, ReadError> {
        let near = {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            let at = recent.placed.partition_point(|placed| placed.resolution.end() <= position);
            recent.placed.get(at).filter(|placed| placed.resolution.base <= position).cloned()
        };
        if let Some(placed) = near {
            return Ok(Some(placed.resolution.clone()));
        }
        self.sources.row_of(position).await
    }

    fn gone(&self) -> SubscribeError {
        SubscribeError::Gone { oldest: self.head().position }
    }
}

/// The segments of the first rows whose bodies fit into one answer.
pub(crate) fn bodies_wanted(rows: &[Resolution], limit: usize) -> Vec<SealedSegment> {
    let mut bytes = 0;
    let mut wanted = Vec::new();
    for row in rows {
        if let Step::Segment(sealed) = &row.step {
            bytes += sealed.length as usize;
            if bytes > limit && !wanted.is_empty() {
                break;
            }
            wanted.push(sealed.clone());
        }
    }
    wanted
}

/// A body that is not the one that was voted for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadBody(String);

/// Checks a body against the segment that was voted for, and reads it.
///
/// # Errors
/// If length, checksum, name, count or form differ.
pub fn open_body(sealed: &SealedSegment, body: Bytes) -> Result<Segment, BadBody> {
    if body.len() != sealed.length as usize || checksum(&body) != sealed.checksum {
        return Err(BadBody(format!("the body of {} has another checksum", sealed.id)));
    }
    let segment = Segment::parse(body).map_err(|error| BadBody(error.to_string()))?;
    if segment.id() != sealed.id || segment.count() != sealed.count {
        return Err(BadBody(format!("the body of {} says it is {}", sealed.id, segment.id())));
    }
    Ok(segment)
}

#[cfg(test)]
mod tests;

//! A storage: segment bodies and the rows of the order, in the node's file.
//!
//! An arriving body is checked, queued, written in the next group commit and only then voted for. A row of the order
//! is a few bytes in such a commit, together with its changes to the rows of the realms' state; the body it names is
//! never moved or written twice.
//!
//! Invariants:
//! - A storage vote is given only after the body is fsynced.
//! - A write belongs to the commit queue, not to its caller's future: a dropped future loses nothing.
//! - Rows are dense, and every segment of the storage's shards in them has its body here.
//! - The realms' state on disk is the one after the last row: both change in one commit.
//! - A body is dropped only once the order shows that its incarnation is fenced, or that its slot is released.
//!
//! Deliberately absent: following the order and fetching missing bodies (`replica`), serving others (`peer`), and folding the
//! log into the realms' state: its rows arrive ready to be written.
//!
//! In reading order: `staging` decides, pure; `arrival` receives bodies, and `senders` tracks which entries send them; `tables`
//! defines the bytes on disk; `writer` writes them; `reader` and `snapshot` read, within the limits of `reads`; `release`
//! deletes what is released.

mod arrival;
mod error;
mod open;
mod reader;
mod reads;
mod release;
mod senders;
mod snapshot;
mod staging;
mod tables;
#[cfg(test)]
pub(crate) mod testing;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch, OwnedSemaphorePermit, Semaphore};
use vulpes_raft::disk::commit::{CommitQueue, TrySubmitError};
use vulpes_raft::disk::file::{File, OpenError};
use vulpes_raft::ids::{AdvanceSegment, NodeId, Position, Shard, Shards, Slot};
use vulpes_raft::local_bodies::Deleting;
use vulpes_raft::net::wire::Identity;
use vulpes_raft::order::{Resolution, SealedSegment, Step};

use crate::recent::RecentBodies;
use crate::segment::checksum;
use crate::types::limits;
use crate::types::row::{FromRows, IndexedRow};
use reader::Reader;
use senders::Senders;
use staging::{BodyState, Next, Staging, Write};
use writer::{Durable, Job, SegmentWriter, Work};

pub use error::{IndexError, ReadError, ReleaseError, ReplaceError};
pub use reader::Stored;
pub use reads::Reads;
pub use snapshot::{StatePage, StateSnapshot};

/// Smallest share of the queue that one job takes, which also limits the number of jobs.
const LEAST_SHARE: usize = limits::STORAGE_QUEUE_BYTES / limits::STORAGE_QUEUE;

/// Snapshots of the realms' state that other nodes may be reading at once.
pub const STATE_SNAPSHOTS: usize = 4;

const _: () = {
    assert!(limits::SEGMENT_BODY <= limits::STORAGE_QUEUE_BYTES);
    assert!(limits::STORAGE_QUEUE_BYTES <= u32::MAX as usize);
    assert!(LEAST_SHARE * limits::STORAGE_QUEUE <= limits::STORAGE_QUEUE_BYTES);
};

/// What a storage holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageStatus {
    /// The oldest slot it has; if it has none, the slot of the next row it takes.
    pub oldest: Slot,
    /// The last slot that is durable here; 0 without any.
    pub indexed: Slot,
    /// Bodies, in the order or not.
    pub bodies: u64,
    /// Bodies that are not in the order, durable or queued.
    pub unresolved: u64,
    /// Bodies found damaged and not repaired yet.
    pub damaged: u64,
    /// Length of its file in bytes; 0 on a simulated disk.
    pub file_length: u64,
    /// The first retained slot that this storage knows of: everything before it is deleted here, or will be.
    pub head: Slot,
}

/// A handle on a storage. Clones share it; it closes when the last one is gone.
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    /// The shards of the storage's group.
    shards: Shards,
    path: PathBuf,
    recent: RecentBodies,
    reader: Reader,
    /// Locked while a decision is made and queued, so that both happen in one order.
    staging: Mutex<Staging>,
    queue: CommitQueue<Job>,
    /// How long a body may wait for a commit that another job starts.
    patience: Duration,
    closed: watch::Receiver<()>,
    /// Free bytes of the queue.
    room: Arc<Semaphore>,
    durable: Arc<Durable>,
    /// Tracks which bodies may be on their way here.
    senders: Mutex<Senders>,
    /// Counts arrivals, and everything else that ends the wait for a body.
    arrivals: watch::Sender<u64>,
    /// Bodies of log entries and slots that had to be fetched, because they had not arrived by themselves.
    fetched: AtomicU64,
    /// How often waiting for such a body timed out.
    late: AtomicU64,
    /// Called before bodies are deleted.
    deleting: OnceLock<Deleting>,
    /// The first retained slot that this storage knows of.
    head: AtomicU64,
    /// Its disk has too little free space.
    is_low: AtomicBool,
    /// Held while an end of the stored log is moved.
    ends: tokio::sync::Mutex<()>,
    /// Permits for snapshots that other nodes read.
    snapshots: Arc<Semaphore>,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

impl Storage {
    /// Loads the storage's part of a node's file, and joins the file's group commit. It stores the bodies of the segments in
    /// `shards`. Arriving bodies are also put into `recent`. Each waits at most `patience` for a commit that another job
    /// starts, such as one of a sync member that shares the file.
    ///
    /// # Errors
    /// If the file is damaged, or can't be read.
    pub fn open(
        file: &File,
        identity: &Identity,
        shards: Shards,
        recent: RecentBodies,
        patience: Duration,
    ) -> Result<Self, OpenError> {
        let reader = Reader::new(file.commits.database().clone());
        let (staging, tail) = open::open(file, &reader, shards)?;
        let durable = Arc::new(Durable::new(tail));
        let queue = file.commits.join(SegmentWriter::new(durable.clone()), limits::STORAGE_QUEUE);
        Ok(Self {
            inner: Arc::new(Inner {
                identity: identity.clone(),
                shards,
                path: file.path.clone(),
                recent,
                reader,
                staging: Mutex::new(staging),
                queue,
                patience,
                closed: file.commits.closed(),
                room: Arc::new(Semaphore::new(limits::STORAGE_QUEUE_BYTES)),
                durable,
                senders: Mutex::default(),
                arrivals: watch::Sender::new(0),
                fetched: AtomicU64::new(0),
                late: AtomicU64::new(0),
                deleting: OnceLock::new(),
                head: AtomicU64::new(1),
                is_low: AtomicBool::new(false),
                ends: tokio::sync::Mutex::default(),
                snapshots: Arc::new(Semaphore::new(STATE_SNAPSHOTS)),
            }),
        })
    }

    fn staging(&self) -> MutexGuard<'_, Staging> {
        self.inner.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node of this storage.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.identity.node
    }

    /// Whether bodies of this shard's segments are stored here.
    #[must_use]
    pub fn stores(&self, shard: Shard) -> bool {
        self.inner.shards.contains(shard)
    }

    /// Waits for room in the queue.
    async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let share = bytes.clamp(LEAST_SHARE, limits::STORAGE_QUEUE_BYTES) as u32;
        self.inner.room.clone().acquire_many_owned(share).await.ok()
    }

    /// Queues work. The caller has decided on it, still holds the lock on the staging, and has the work's share of the queue.
    fn submit(&self, work: Work, permit: OwnedSemaphorePermit) -> Result<(), Closing> {
        let job = Job { work, permit, patience: self.inner.patience };
        self.inner.queue.try_submit(job).map_err(|error| match error {
            TrySubmitError::Closed => Closing,
            TrySubmitError::Full => unreachable!("every job holds a share of the queue"),
        })
    }

    /// Queues the next rows of the order, all or none, each with its body if this storage lacks it (see
    /// [`Storage::lacks`]), and with its other changes. They are durable once [`Storage::indexed`] says so. When an
    /// entry opens or closes, unresolved bodies of its fenced incarnations are discarded.
    ///
    /// # Errors
    /// If the rows are not the next ones, contradict earlier ones, or lack a body that has to come with
    /// them.
    pub async fn index(&self, rows: Vec<IndexedRow>) -> Result<(), IndexError> {
        let mut weight = 0;
        for row in &rows {
            if let (Step::Segment(sealed), Some(body)) = (&row.resolution.step, &row.body) {
                if !is_body_of(sealed, body) {
                    return Err(IndexError::BodyWrong(sealed.id));
                }
            }
            weight += row.weight();
        }
        let fencing = rows.iter().filter(|row| !matches!(row.resolution.step, Step::Segment(_)));
        if let Some(slot) = fencing.map(|row| row.resolution.slot).next_back() {
            self.before_deleting(slot).await;
        }
        let permit = self.room(weight).await.ok_or(IndexError::Closed)?;
        let mut staging = self.staging();
        let writes = staging.index(rows)?;
        self.submit(Work::Index { writes }, permit).map_err(|Closing| IndexError::Closed)
    }

    /// Awaited before bodies are deleted because of the order through a slot.
    async fn before_deleting(&self, through: Slot) {
        if let Some(deleting) = self.inner.deleting.get() {
            deleting(through).await;
        }
    }

    /// Whether [`Storage::index`] needs the body together with its row: it belongs to this storage's shards, and exactly the
    /// body that was voted for is neither here nor queued.
    #[must_use]
    pub fn lacks(&self, sealed: &SealedSegment) -> bool {
        self.staging().lacks(sealed)
    }

    /// Whether a body of this name is here, or queued, and not known to be damaged.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn holds(&self, id: AdvanceSegment) -> Result<bool, ReadError> {
        let standing = {
            let staging = self.staging();
            if staging.is_damaged(id) {
                return Ok(false);
            }
            staging.body_state(id)
        };
        match standing {
            BodyState::Unresolved { .. } => Ok(true),
            BodyState::Unknown => Ok(false),
            BodyState::Past => self.inner.reader.has_body(id),
        }
    }

    /// The last slot whose row is durable here, as it grows; 0 before the first.
    #[must_use]
    pub fn indexed(&self) -> watch::Receiver<Slot> {
        self.inner.durable.indexed.subscribe()
    }

    /// The last row that is durable here.
    #[must_use]
    pub fn tail(&self) -> Option<Resolution> {
        self.inner.durable.tail()
    }

    /// A body that is durable here, with its checksum verified. The caller has to check that it is the one that was resolved. A
    /// damaged one is recorded: see [`Storage::damaged`].
    ///
    /// # Errors
    /// If it is damaged, or the disk can't be read.
    pub fn body(&self, id: &AdvanceSegment) -> Result<Option<Bytes>, ReadError> {
        let body = self.inner.reader.body(*id);
        if let Err(ReadError::Damaged(id)) = body {
            tracing::error!(segment = %id, "a body is damaged on disk and will be replaced");
            self.staging().mark_damaged(id);
        }
        body
    }

    /// Bodies that were found damaged: fetch each from another storage and give it to [`Storage::replace`].
    #[must_use]
    pub fn damaged(&self) -> Vec<AdvanceSegment> {
        self.staging().damaged().collect()
    }

    /// Writes a body over a damaged one, and returns once that is durable.
    ///
    /// # Errors
    /// If it is not the body that was voted for, or no body of that name is held.
    pub async fn replace(&self, sealed: &SealedSegment, body: Bytes) -> Result<(), ReplaceError> {
        let (id, checksum) = (sealed.id, sealed.checksum);
        if !is_body_of(sealed, &body) {
            return Err(ReplaceError::BodyWrong(id));
        }
        let weight = body.len();
        let permit = self.room(weight).await.ok_or(ReplaceError::Closed)?;
        let (waiting, answer) = oneshot::channel();
        {
            let staging = self.staging();
            match staging.body_state(id) {
                BodyState::Past => {}
                BodyState::Unresolved { checksum: held } if held == checksum => {}
                BodyState::Unresolved { .. } => return Err(ReplaceError::BodyWrong(id)),
                BodyState::Unknown => return Err(ReplaceError::NotHeld(id)),
            }
            let writes = vec![Write::Replace { id, checksum, body }];
            let work = Work::Append { writes, answer: Ok(()), waiting };
            self.submit(work, permit).map_err(|Closing| ReplaceError::Closed)?;
        }
        match answer.await {
            Ok(_) => {
                self.staging().mended(id);
                Ok(())
            }
            Err(_) => Err(ReplaceError::Closed),
        }
    }

    /// Durable rows from a slot on, at most `max` and [`limits::READ_ROWS`].
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn rows(&self, from: Slot, max: usize) -> Result<Vec<Resolution>, ReadError> {
        self.inner.reader.rows(from, max)
    }

    /// Durable rows from a slot on with their hidden events: at most `max` and [`limits::READ_ROWS`], and fewer if
    /// many events are hidden.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn rows_and_hidden(&self, from: Slot, max: usize) -> Result<Stored, ReadError> {
        self.inner.reader.rows_and_hidden(from, max)
    }

    /// The realms' state after the last durable row.
    ///
    /// # Errors
    /// If the disk, or a row, can't be read.
    pub fn state<S: FromRows>(&self) -> Result<S, ReadError> {
        self.inner.reader.snapshot(None)?.load()
    }

    /// A snapshot of the realms' state, to be read page by page by another node.
    ///
    /// # Errors
    /// [`ReadError::Busy`] if [`STATE_SNAPSHOTS`] are being read already; another error if the disk can't be
    /// read.
    pub fn snapshot(&self) -> Result<StateSnapshot, ReadError> {
        let place = self.inner.snapshots.clone().try_acquire_owned();
        let place = place.map_err(|_| ReadError::Busy)?;
        self.inner.reader.snapshot(Some(place))
    }

    /// The oldest slot that is here; if there is none, the slot of the next row.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn oldest(&self) -> Result<Slot, ReadError> {
        let oldest = self.inner.reader.oldest()?;
        Ok(oldest.unwrap_or_else(|| Next::after(self.tail().as_ref()).slot))
    }

    /// The row whose segment contains a position; `None` if there is no such durable row.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn slot_of(&self, position: Position) -> Result<Option<Resolution>, ReadError> {
        self.inner.reader.slot_of(position)
    }

    /// Accepts nothing more, and returns once the file is closed, which also requires that its other writers are closed.
    /// Opening it again then needs no recovery. Clones answer that the storage is shutting down.
    pub async fn close(&self) {
        self.inner.queue.close();
        // Nothing is ever sent: the channel closes after the file.
        let _ = self.inner.closed.clone().changed().await;
    }

    /// What is stored here.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn status(&self) -> Result<StorageStatus, ReadError> {
        let (unresolved, damaged) = {
            let staging = self.staging();
            (staging.unresolved() as u64, staging.damaged().count() as u64)
        };
        Ok(StorageStatus {
            oldest: self.oldest()?,
            indexed: *self.inner.durable.indexed.borrow(),
            bodies: self.inner.reader.bodies()?,
            unresolved,
            damaged,
            // The length comes from the path, without opening the file; a simulated disk has no such file.
            file_length: std::fs::metadata(&self.inner.path).map_or(0, |file| file.len()),
            head: Slot(self.inner.head.load(Ordering::Relaxed)),
        })
    }
}

/// The commit queue is closed: the node is ending.
struct Closing;

/// Bodies from the front, as many as fit one answer; `None` if this storage has none or a damaged one. Bodies that
/// are only queued count: a sync member asks for what its leader has just received.
pub(crate) fn read_bodies(
    storage: &Storage,
    segments: &[AdvanceSegment],
) -> Result<Vec<Option<Bytes>>, ReadError> {
    let mut bodies = Vec::new();
    let mut bytes = 0;
    for id in segments.iter().take(limits::READ_ROWS) {
        let body = match storage.inner.recent.get(*id) {
            Some(body) => Some(body),
            None => match storage.body(id) {
                Err(ReadError::Damaged(_)) => None,
                other => other?,
            },
        };
        bytes += body.as_ref().map_or(0, Bytes::len);
        bodies.push(body);
        if bytes >= limits::READ_BYTES {
            break;
        }
    }
    Ok(bodies)
}

/// Whether a body is the one that was voted for.
fn is_body_of(sealed: &SealedSegment, body: &[u8]) -> bool {
    body.len() == sealed.length as usize && checksum(body) == sealed.checksum
}

#[cfg(test)]
mod tests;

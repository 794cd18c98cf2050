//! A session's handle of an entry.
//!
//! Invariant: a batch is only handed over if there is room for it; otherwise it stays with its session.
//!
//! Deliberately absent: answers. They go to the channel that comes with each batch.

use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::entry::status::EntryStatus;
use crate::entry::Batch;
use crate::types::event::Event;
use crate::types::limits;

/// A batch on its way to the entry's task.
pub(super) struct Submitted {
    pub(super) batch: Batch,
    pub(super) at: Instant,
    /// Its share of [`limits::ENTRY_BATCH_BYTES`], released when the entry has taken the batch.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// The entry's task is gone: the node is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node takes no more messages, because it is stopping")]
pub struct EntryClosed;

/// A way to the entry's task.
#[derive(Clone, Debug)]
pub struct EntryHandle {
    batches: mpsc::Sender<Submitted>,
    /// One permit for each byte that may wait for the entry.
    room: Arc<Semaphore>,
    status: watch::Receiver<EntryStatus>,
}

/// Room for one batch.
#[derive(Debug)]
pub struct Permit<'a>(mpsc::Permit<'a, Submitted>);

impl EntryHandle {
    pub(super) fn new(
        batches: mpsc::Sender<Submitted>,
        status: watch::Receiver<EntryStatus>,
    ) -> Self {
        Self { batches, room: Arc::new(Semaphore::new(limits::ENTRY_BATCH_BYTES)), status }
    }

    /// Waits for room for one batch. Cancel safe, but a dropped future loses its place in the queue.
    ///
    /// # Errors
    /// If the entry's task is gone.
    pub async fn reserve(&self) -> Result<Permit<'_>, EntryClosed> {
        self.batches.reserve().await.map(Permit).map_err(|_| EntryClosed)
    }

    /// Room for one batch, if there is some now.
    ///
    /// # Errors
    /// If the entry's task is gone.
    pub fn try_reserve(&self) -> Result<Option<Permit<'_>>, EntryClosed> {
        match self.batches.try_reserve() {
            Ok(permit) => Ok(Some(Permit(permit))),
            Err(TrySendError::Full(())) => Ok(None),
            Err(TrySendError::Closed(())) => Err(EntryClosed),
        }
    }

    /// Waits for room and submits a batch.
    ///
    /// # Errors
    /// If the entry's task is gone; nothing of the batch is stored then.
    pub async fn submit(&self, batch: Batch) -> Result<(), EntryClosed> {
        let bytes: usize = batch.events.iter().map(Event::held).sum();
        let bytes = u32::try_from(bytes.min(limits::ENTRY_BATCH_BYTES)).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| EntryClosed)?;
        self.reserve().await?.send_in(batch, Some(room));
        Ok(())
    }

    /// The entry's state, as of its last turn.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<EntryStatus> {
        self.status.clone()
    }
}

impl Permit<'_> {
    /// Submits a batch. Its publishers' time limit starts now.
    pub fn send(self, batch: Batch) {
        self.send_in(batch, None);
    }

    fn send_in(self, batch: Batch, room: Option<OwnedSemaphorePermit>) {
        self.0.send(Submitted { batch, at: Instant::now(), room });
    }
}

/// The other end of a fake entry: it collects what sessions hand over.
#[cfg(test)]
pub(crate) struct Inbox {
    batches: mpsc::Receiver<Submitted>,
    _status: watch::Sender<EntryStatus>,
}

#[cfg(test)]
impl Inbox {
    pub(crate) fn new() -> (EntryHandle, Self) {
        let (sender, batches) = mpsc::channel(limits::ENTRY_BATCHES);
        let (status, watched) = watch::channel(EntryStatus::default());
        (EntryHandle::new(sender, watched), Self { batches, _status: status })
    }

    /// The events that were handed over since the last time.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let batches = std::iter::from_fn(|| self.batches.try_recv().ok());
        batches.flat_map(|submitted| submitted.batch.events).collect()
    }
}

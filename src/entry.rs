//! The entry role's write path: clients' publishes go into advance segments, to the storages and into the order;
//! answers come back.
//!
//! In reading order:
//! - [`order`]: sync, as an entry sees it.
//! - `core`: the state machine, pure.
//! - `driver`: the task that runs it; [`Entry`], [`EntryHandle`].
//! - [`Shortage`]: whether the storages have room for what clients publish.
//! - [`status`]: its state for operators.
//!
//! Invariant: a session's publishes are answered in the order in which they were submitted, each once. The answer is "stored"
//! only after a quorum of storages has them on disk and sync has committed their position. If the sync members are the
//! storages, both happen at once: see `vulpes_raft::local_bodies`.
//!
//! Deliberately absent: sessions and protocols (`gate`, `session`, `server`), and reading the log (`replica`).

mod core;
mod driver;
pub mod order;
mod shortage;
pub mod status;
#[cfg(test)]
mod sync_model;

use tokio::sync::mpsc;

#[cfg(test)]
pub(crate) use self::driver::Inbox;
pub use self::driver::{Entry, EntryClosed, EntryConfig, EntryHandle, Permit};
pub use self::order::{Lease, Opened, OrderError, OrderService};
pub use self::shortage::Shortage;
pub use self::status::{Counters, EntryStatus, StorageStatus};

use crate::types::answer::Answer;
use crate::types::limits;

/// The channel for a session's answers; `None` if no answer is needed.
pub type AnswerTo = Option<mpsc::Sender<Answer>>;

/// Consecutive publishes of one session, with the channel for their answers. If a session stops reading from its client while
/// [`limits::SESSION_UNANSWERED`] events or [`limits::SESSION_BATCHES`] batches are unanswered, a channel of
/// [`SESSION_ANSWERS`] has room for every answer. A session may have more batches than that: its own events, and the parts into
/// which merges divide one. Those batches are small and have two answers at most, a quarter of the room that is reserved for
/// each batch.
pub type Batch = self::core::Batch<AnswerTo>;

/// Largest batch, in bytes of its events: one turn's read from a client, or one message.
pub const BATCH_BYTES: usize = limits::CLIENT_MESSAGE + limits::SESSION_READ;

/// Most answers to one batch, one per segment that has a part of it: the segment that was open, those that it filled,
/// one sealed early because the next event was too large, and the last.
pub const BATCH_ANSWERS: usize = 3 + BATCH_BYTES.div_ceil(limits::SEGMENT_TARGET);

/// Capacity that a session's channel of answers needs.
pub const SESSION_ANSWERS: usize = limits::SESSION_BATCHES * BATCH_ANSWERS;

/// The entry's limits that a simulation reduces.
#[derive(Clone, Copy, Debug)]
pub struct EntryTuning {
    /// Size in bytes at which a segment takes no more events, even if it still waits for credit.
    pub segment_target: usize,
    /// Most segments on the way to a quorum of storages before the next one is sealed.
    pub storage_credit: u32,
    /// Bytes of bodies on the way to one storage; one body may exceed it.
    pub storage_sent_bytes: usize,
    /// Propose segments without waiting for storage votes, if the sync members are the storages.
    pub early: bool,
}

impl Default for EntryTuning {
    fn default() -> Self {
        Self {
            segment_target: limits::SEGMENT_TARGET,
            storage_credit: limits::STORAGE_CREDIT,
            storage_sent_bytes: limits::STORAGE_SENT_BYTES,
            early: true,
        }
    }
}

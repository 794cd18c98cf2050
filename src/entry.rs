//! The entry role's write path: what clients publish goes into advance segments, to the storages, into the order, and
//! comes back as answers.
//!
//! In reading order:
//! - [`order`]: sync, as an entry sees it.
//! - `core`: the state machine, pure.
//! - `driver`: the task that runs it; [`Entry`], [`EntryHandle`].
//! - [`status`]: what it tells about itself.
//!
//! Invariant: a session's publishes are answered in the order in which they were submitted, each once; "stored" only
//! after a quorum of storages has them on disk and sync has committed their place. Where the sync members are the
//! storages, both happen at once: see `vulpes_raft::bodies`.
//!
//! Deliberately absent: sessions and protocols (`gate`, `server`), and reading the log (`replica`).

mod core;
mod driver;
pub mod order;
pub mod status;
#[cfg(test)]
mod sync_model;

use tokio::sync::mpsc;

#[cfg(test)]
pub(crate) use self::driver::Inbox;
pub use self::driver::{Entry, EntryClosed, EntryConfig, EntryHandle, Permit};
pub use self::order::{Lease, Opened, OrderError, Ordering};
pub use self::status::{Counters, EntryStatus, StorageStatus};

use crate::types::answer::Answer;
use crate::types::limits;

/// The channel for a session's answers; none where nobody waits for them.
pub type AnswerTo = Option<mpsc::Sender<Answer>>;

/// Consecutive publishes of one session, with the channel for their answers. A session whose events of all
/// unanswered batches stay within [`limits::SESSION_UNANSWERED`], and the batches within [`limits::SESSION_BATCHES`],
/// needs a channel of [`SESSION_ANSWERS`], so that an answer never waits for a session.
pub type Batch = self::core::Batch<AnswerTo>;

/// Largest batch in bytes of its events: what is read from a client in one turn, or one message.
pub const BATCH_BYTES: usize = limits::CLIENT_MESSAGE + limits::SESSION_READ;

/// Most answers to one batch. Each is for the part of it in one segment: the one it found open, those it filled, one
/// left early because the next event was too large, and the last.
pub const BATCH_ANSWERS: usize = 3 + BATCH_BYTES.div_ceil(limits::SEGMENT_TARGET);

/// Room a session's channel of answers has to have.
pub const SESSION_ANSWERS: usize = limits::SESSION_BATCHES * BATCH_ANSWERS;

/// The entry's limits that a simulation makes smaller.
#[derive(Clone, Copy, Debug)]
pub struct EntryTuning {
    /// Size in bytes at which a segment that still waits for credit takes no more events.
    pub segment_target: usize,
    /// Most segments on the way to a quorum of storages before the next one is sealed.
    pub storage_credit: u32,
    /// Bytes of bodies on the way to one storage; one body may go beyond it.
    pub storage_sent_bytes: usize,
    /// Propose segments without waiting for storage votes, where the sync members are the storages.
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

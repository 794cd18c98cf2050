//! The messages between an entry and a storage about a segment: the request to append its body, and the storage vote.
//!
//! Invariant: an [`Appended`] is only made after the body is fsynced.
//!
//! Deliberately absent: their transport (`peer`), and writing (`storage`).

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{AdvanceSegment, Incarnation, NodeId};

use crate::segment::SealedBody;

/// A storage's promise that it has the sealed segment whole, on disk, fsynced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageVote {
    pub storage: NodeId,
    pub segment: AdvanceSegment,
    /// Length of the body in bytes.
    pub length: u32,
    /// XXH3-64 of the body as it was written.
    pub checksum: u64,
}

/// The answer to a body that was appended: the vote, and the storage's next credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    pub vote: StorageVote,
    /// How many segments of this entry may be on the way to this storage at once, from now on. At least 1.
    pub credit: u32,
}

/// Why a body was not appended, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum AppendError {
    /// The order shows a newer incarnation of the entry: the segment can't be resolved any more.
    #[error("the entry's incarnation is fenced")]
    Fenced,
    /// Another body is already stored under this name.
    #[error("another body is already stored under the name {0}")]
    Conflict(AdvanceSegment),
    /// The body's bytes do not match their checksum, or are no segment.
    #[error("the body arrived damaged: {0}")]
    Damaged(String),
    /// The storage can't be reached or did not answer in time. Appending again is harmless.
    #[error("storage {storage} does not answer: {reason}")]
    Unreachable { storage: NodeId, reason: String },
    /// It was resolved so long ago that it has been released: the order has shown its outcome.
    #[error("segment {0} was resolved and has been released")]
    Released(AdvanceSegment),
}

/// A storage, as an entry sees it.
pub trait SegmentStore: Send + Sync + 'static {
    /// Which storage it is.
    fn storage(&self) -> NodeId;

    /// Announces an entry's incarnation and asks for its first credit. Also shows whether the storage can be reached.
    fn begin(
        &self,
        entry: NodeId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<u32, AppendError>>;

    /// Asks a storage to append a body. Appending the same body again gets the same vote.
    fn append(&self, body: SealedBody) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Tells a storage that the bodies it lacks of the entry's incarnation through this segment will not be sent, so
    /// that it fetches what it needs instead of waiting.
    fn skip(&self, through: AdvanceSegment) -> BoxFuture<'_, Result<(), AppendError>>;
}

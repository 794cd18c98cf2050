//! The bodies of early segments: a sync member's view of the storage on its node.
//!
//! If the members of the sync group are the storages, a segment can be proposed as soon as it is sealed, without storage votes.
//! When a member acknowledges a log entry, it also votes for the bodies that the entry names. So a committed entry has its
//! bodies on the disks of a quorum, and one fsync makes both durable.
//!
//! Invariant: an entry that is not known to be committed enters the log only once its bodies are here, at least in memory, and
//! queued for the same file. So any leader can give them to others, and no crash leaves an entry without its bodies (`commit`).
//!
//! Before a storage deletes bodies because of the order, its member durably records that the order is committed up to that
//! slot. Otherwise, after a restart as leader, it could neither give these bodies to members that lack them, nor say that they
//! are not needed.
//!
//! Entries send bodies to all storages by themselves, and say which ones they will not send ([`LocalBodies::comes`]). No member
//! waits for those: a follower fetches them from the leader at once, and a leader reports at once that it lacks them.
//!
//! Deliberately absent: how bodies are stored (a storage does it), and entries that are known to be committed: a quorum holds
//! their bodies, which are fetched like those of any slot, or may be released already.

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::ids::{NodeId, Slot};
use crate::order::SealedSegment;

/// Called before bodies are deleted because of the order through a slot.
pub type Deleting = Box<dyn Fn(Slot) -> BoxFuture<'static, ()> + Send + Sync>;

/// The storage on a sync member's node.
pub trait LocalBodies: Send + Sync + 'static {
    /// Whether exactly this body is here, or its segment's outcome is decided already. A body that is here is on disk, or
    /// queued for the file of the log.
    fn held(&self, segment: &SealedSegment) -> bool;

    /// Whether a missing body may be on its way from its entry, as far as the entry says.
    fn comes(&self, segment: &SealedSegment) -> bool;

    /// Reports that these bodies have not arrived in time.
    fn late(&self, segments: &[SealedSegment]);

    /// Changes whenever a body arrives, is announced as not coming, or has been fetched.
    fn arrived(&self) -> watch::Receiver<u64>;

    /// Sets the callback that is awaited before bodies are deleted because of the order through a slot. Called once.
    fn before_deleting(&self, then: Deleting);

    /// Starts to fetch these bodies from another storage, and stores them here. `false`: a fetch from that storage is already
    /// running.
    fn fetch(&self, from: NodeId, segments: &[SealedSegment]) -> bool;
}

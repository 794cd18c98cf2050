//! How bodies arrive at a storage: credit, the queue for the disk, the storage vote; and waiting for them.
//!
//! Invariant: a storage vote is given only after the body is fsynced. A queued body is written, whether or not its
//! caller still waits.
//!
//! Deliberately absent: whether a body is accepted (`staging`), and bodies that come with their rows
//! (`Storage::index`).

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::{oneshot, watch, OwnedSemaphorePermit};
use tokio::time::Instant;
use vulpes_raft::ids::{AdvanceSegment, Incarnation, NodeId};
use vulpes_raft::local_bodies::Deleting;
use vulpes_raft::mutant::{planted, Mutant};
use vulpes_raft::order::SealedSegment;

use super::senders::Senders;
use super::staging::{Admission, BodyState, Refusal};
use super::writer::{Waiting, Work};
use super::{Closing, Storage};
use crate::append::{AppendError, Appended, SegmentStore, StorageVote};
use crate::segment::{checksum, SealedBody, Segment};
use crate::types::limits;

impl Storage {
    /// How many segments an entry may have on the way, depending on the free room in the queue; at least 1.
    fn credit(&self) -> u32 {
        let free = self.inner.room.available_permits();
        let share = limits::STORAGE_CREDIT as usize * free / limits::STORAGE_QUEUE_BYTES;
        u32::try_from(share).unwrap_or(limits::STORAGE_CREDIT).clamp(1, limits::STORAGE_CREDIT)
    }

    fn unreachable(&self, reason: &str) -> AppendError {
        AppendError::Unreachable { storage: self.node(), reason: reason.to_owned() }
    }

    fn closing(&self) -> AppendError {
        self.unreachable("it is shutting down")
    }

    /// Announces an incarnation; returns its first credit.
    ///
    /// # Errors
    /// [`AppendError::Fenced`] if the order shows a newer one.
    pub fn begin(&self, entry: NodeId, incarnation: Incarnation) -> Result<u32, AppendError> {
        if self.staging().is_fenced(entry, incarnation) {
            return Err(AppendError::Fenced);
        }
        self.senders().heard(entry);
        Ok(self.credit())
    }

    /// Stores a body and votes for it once it is durable. Appending the same body again gets the same vote. A queued body is
    /// written whether or not the caller still waits.
    ///
    /// # Errors
    /// [`AppendError`]: what is wrong with the body, or that its outcome is unknown.
    pub async fn append(&self, sealed: SealedBody) -> Result<Appended, AppendError> {
        let length = sealed.body.len();
        let vote = StorageVote {
            storage: self.node(),
            segment: sealed.id,
            length: u32::try_from(length).map_err(|_| AppendError::Damaged("too long".into()))?,
            checksum: sealed.checksum,
        };
        let (id, checksum) = (sealed.id, sealed.checksum);
        self.senders().heard(id.entry);
        let answer = self.queue(sealed).await?;
        let early = planted(Mutant::VoteBeforeFsync)
            && self.staging().body_state(id) == BodyState::Unresolved { checksum };
        if !early {
            answer.await.map_err(|_| self.closing())??;
        }
        Ok(Appended { vote, credit: self.credit() })
    }

    /// Takes a body that was fetched from another storage, and returns once it is here, and queued for the disk.
    ///
    /// # Errors
    /// Like [`Storage::append`].
    pub async fn take_fetched(&self, sealed: SealedBody) -> Result<(), AppendError> {
        self.queue(sealed).await?;
        self.has_fetched(1);
        Ok(())
    }

    /// Queues a body for the disk; returns the answer to send once it is durable.
    async fn queue(
        &self,
        sealed: SealedBody,
    ) -> Result<oneshot::Receiver<Result<(), AppendError>>, AppendError> {
        check_arrival(&sealed)?;
        let permit = self.room(sealed.body.len()).await.ok_or_else(|| self.closing())?;
        let (waiting, answer) = oneshot::channel();
        self.queue_body(sealed, waiting, permit)?;
        Ok(answer)
    }

    fn queue_body(
        &self,
        sealed: SealedBody,
        waiting: Waiting,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), AppendError> {
        let SealedBody { id, checksum, body, .. } = sealed;
        let mut staging = self.staging();
        let decision = staging.append(id, checksum, &body);
        if decision.is_ok() {
            self.inner.recent.insert(id, body.clone());
            self.look_again();
        }
        let work = match decision {
            Ok(Admission::Held(writes)) => Work::Append { writes, answer: Ok(()), waiting },
            Ok(Admission::Resolved) => Work::KeepAgain { id, checksum, waiting },
            Err(refusal) => {
                let error = match refusal {
                    Refusal::Fenced => AppendError::Fenced,
                    Refusal::Conflict => AppendError::Conflict(id),
                    Refusal::Full => self.unreachable("it holds too many unresolved segments"),
                };
                Work::Append { writes: Vec::new(), answer: Err(error), waiting }
            }
        };
        self.submit(work, permit).map_err(|Closing| self.closing())
    }

    /// Whether exactly this body is here, or queued, or the order shows its segment's outcome.
    #[must_use]
    pub fn held(&self, sealed: &SealedSegment) -> bool {
        self.staging().held(sealed)
    }

    fn senders(&self) -> MutexGuard<'_, Senders> {
        self.inner.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the callers that wait for bodies.
    pub fn look_again(&self) {
        self.inner.arrivals.send_modify(|arrivals| *arrivals += 1);
    }

    /// An entry says that it will not send the bodies that are missing through this segment.
    pub fn skipped(&self, through: AdvanceSegment) {
        self.senders().skipped(through);
        self.look_again();
    }

    /// The connection of an entry has ended: its bodies are not expected until it is heard from again.
    pub fn lost_sight_of(&self, entry: NodeId) {
        self.senders().lost(entry);
        self.look_again();
    }

    /// A body of an entry has not arrived in time: its bodies are not expected until it is heard from again.
    pub fn late(&self, entry: NodeId) {
        tracing::debug!(%entry, "a body of this entry has not come in time");
        self.inner.late.fetch_add(1, Ordering::Relaxed);
        self.lost_sight_of(entry);
    }

    /// Whether a missing body may be on its way from its entry.
    #[must_use]
    pub fn comes(&self, segment: AdvanceSegment) -> bool {
        self.senders().send(segment)
    }

    /// Waits for a body while it may be on its way, at most until this moment.
    pub async fn await_arrival(&self, sealed: &SealedSegment, until: Instant) {
        let mut arrivals = self.arrivals();
        while !self.held(sealed) && self.comes(sealed.id) {
            if tokio::time::timeout_at(until, arrivals.changed()).await.is_err() {
                self.late(sealed.id.entry);
            }
        }
    }

    /// Sets whether its disk has too little free space. It stores everything all the same: entries have to take less.
    pub fn runs_low(&self, is_low: bool) {
        self.inner.is_low.store(is_low, Ordering::Relaxed);
    }

    /// Whether its disk has too little free space.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.inner.is_low.load(Ordering::Relaxed)
    }

    /// Counts bodies that had to be fetched.
    pub fn has_fetched(&self, bodies: u64) {
        self.inner.fetched.fetch_add(bodies, Ordering::Relaxed);
    }

    /// Bodies fetched since the storage was opened, because they had not arrived from their entries.
    #[must_use]
    pub fn fetched(&self) -> u64 {
        self.inner.fetched.load(Ordering::Relaxed)
    }

    /// How often waiting for a body timed out since then.
    #[must_use]
    pub fn late_bodies(&self) -> u64 {
        self.inner.late.load(Ordering::Relaxed)
    }

    /// Changes whenever a body arrives, or is known not to arrive.
    #[must_use]
    pub fn arrivals(&self) -> watch::Receiver<u64> {
        self.inner.arrivals.subscribe()
    }

    /// Sets the callback that is awaited before bodies are deleted because of the order through a slot. Only the first call
    /// counts.
    pub fn when_deleting(&self, then: Deleting) {
        let first = self.inner.deleting.set(then).is_ok();
        debug_assert!(first, "there is one sync member beside a storage");
    }
}

impl SegmentStore for Storage {
    fn storage(&self) -> NodeId {
        self.node()
    }

    fn begin(
        &self,
        entry: NodeId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<u32, AppendError>> {
        Box::pin(async move { Self::begin(self, entry, incarnation) })
    }

    fn append(&self, body: SealedBody) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(Self::append(self, body))
    }

    fn skip(&self, through: AdvanceSegment) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async move {
            self.skipped(through);
            Ok(())
        })
    }
}

/// Checks that a body is whole, well-formed, and matches its envelope.
fn check_arrival(sealed: &SealedBody) -> Result<(), AppendError> {
    if checksum(&sealed.body) != sealed.checksum {
        return Err(AppendError::Damaged("its checksum differs".into()));
    }
    let segment = Segment::parse(sealed.body.clone())
        .map_err(|error| AppendError::Damaged(error.to_string()))?;
    if segment.id() != sealed.id {
        let found = segment.id();
        return Err(AppendError::Damaged(format!(
            "it came as {} and says it is {found}",
            sealed.id
        )));
    }
    if segment.count() != sealed.count || segment.shard() != sealed.shard || sealed.count == 0 {
        return Err(AppendError::Damaged("its count or shard differs".into()));
    }
    Ok(())
}

//! The state machine that Raft drives: the sequencer, what it has applied, and its snapshots.
//!
//! Invariant: readers see states that the group committed, in log order, and are woken after every applied batch. The
//! state lives in memory; a restarted member loads the last snapshot and applies the log after it.
//!
//! Deliberately absent: the rules of the order (`sequencer`).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;

use super::snapshot_store::SnapshotStore;
use super::types::{Answers, LogId, Membership, Snapshot, SnapshotMeta, Types};
use crate::disk::failure::CommitError;
use crate::sequencer::{Command, Sequencer};

/// The member of the Raft group on this node.
pub(crate) type Raft = openraft::Raft<Types, Machine>;

/// Largest snapshot that is read back, in bytes: the largest possible size of the sequencer's tables, with some
/// reserve.
pub(crate) const MAX_SNAPSHOT: usize = 64 << 20;

/// What has been applied.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) sequencer: Sequencer,
    pub(crate) last: Option<LogId>,
    pub(crate) membership: Membership,
}

/// The applied state, for all readers on this node.
pub(crate) struct Applied {
    state: Mutex<State>,
    /// Counts the batches that were applied.
    changes: watch::Sender<u64>,
}

impl Applied {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changes: watch::Sender::new(0) })
    }

    /// The current state. Hold it briefly: applying waits for it.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held is a broken invariant of the sequencer, which ends Raft by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whenever more was applied.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The planted bug [`Mutant::DispatchBeforeCommit`](crate::mutant::Mutant): shows a command's results before it
    /// is committed. If it is committed in this order after all, applying it is a repeat.
    pub(crate) fn apply_early(&self, command: Command) {
        self.state().sequencer.apply(command);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// openraft's state machine.
pub(crate) struct Machine {
    applied: Arc<Applied>,
    snapshots: SnapshotStore,
}

impl Machine {
    /// Starts from the newest snapshot.
    pub(crate) fn load(
        applied: Arc<Applied>,
        snapshots: SnapshotStore,
    ) -> Result<Self, CommitError> {
        let machine = Self { applied, snapshots };
        if let Some((meta, data)) = machine.snapshots.read()? {
            let sequencer =
                decode(&data).map_err(|error| CommitError::Damaged(error.to_string()))?;
            machine.replace(&meta, sequencer);
        }
        Ok(machine)
    }

    fn replace(&self, meta: &SnapshotMeta, sequencer: Sequencer) {
        let membership = meta.last_membership.clone();
        *self.applied.state() = State { sequencer, last: meta.last_log_id, membership };
        self.applied.changed();
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        let state = self.applied.state();
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let log_id = entry.log_id();
            let answers = match entry.payload {
                EntryPayload::Blank => {
                    self.applied.state().last = Some(log_id);
                    Vec::new()
                }
                EntryPayload::Normal(command) => {
                    let command = command.decode().map_err(io::Error::other)?;
                    let mut state = self.applied.state();
                    state.last = Some(log_id);
                    state.sequencer.apply(command)
                }
                EntryPayload::Membership(membership) => {
                    let mut state = self.applied.state();
                    state.last = Some(log_id);
                    state.membership = Membership::new(Some(log_id), membership);
                    Vec::new()
                }
            };
            if let Some(responder) = responder {
                responder.send(Answers(answers));
            }
        }
        self.applied.changed();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let state = self.applied.state();
        let meta =
            SnapshotMeta { last_log_id: state.last, last_membership: state.membership.clone() };
        let data = crate::net::wire::encode(&state.sequencer).into();
        Builder { meta, data, snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Bytes,
    ) -> Result<(), io::Error> {
        let sequencer = decode(&snapshot)?;
        self.snapshots.save(meta.clone(), snapshot).await?;
        self.replace(meta, sequencer);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let newest = self.snapshots.read().map_err(io::Error::other)?;
        Ok(newest.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// A view of the state at one log entry.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    data: Bytes,
    snapshots: SnapshotStore,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (meta, snapshot) = (self.meta.clone(), self.data.clone());
        self.snapshots.save(meta.clone(), snapshot.clone()).await?;
        Ok(Snapshot { meta, snapshot })
    }
}

fn decode(data: &[u8]) -> io::Result<Sequencer> {
    let config = bincode::config::standard().with_limit::<MAX_SNAPSHOT>();
    let (sequencer, used) = bincode::serde::decode_from_slice(data, config)
        .map_err(|error| io::Error::other(format!("malformed snapshot: {error}")))?;
    if used == data.len() {
        Ok(sequencer)
    } else {
        Err(io::Error::other("malformed snapshot: bytes left over"))
    }
}

//! Storages and a sync whose behavior the tests set.
//!
//! Invariant: a storage that votes has the segment; the log is shown in the order in which it grew.
//!
//! Deliberately absent: disks and networks; their effect on a call is a delay, or an error.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::sleep;
use vulpes_raft::host::{
    BoxStream, Clock, CommitMode, Disk, Host, InPlace, Listener, Net, Random, Workers,
};
use vulpes_raft::ids::{AdvanceSegment, Incarnation, NodeId, Stamp};
use vulpes_raft::order::{Resolution, SealedSegment, SegmentOutcome, StorageGroups};

use crate::append::{AppendError, Appended, SegmentStore, StorageVote};
use crate::entry::order::{Lease, Opened, OrderError, OrderService};
use crate::entry::sync_model::SyncModel;
use crate::segment::SealedBody;

/// A storage whose answers take as long as the test sets; with `None` it never answers.
pub(super) struct FakeStorage {
    node: NodeId,
    pub(super) delay: Mutex<Option<Duration>>,
    pub(super) appended: Mutex<BTreeSet<AdvanceSegment>>,
}

impl FakeStorage {
    pub(super) fn new(node: u64) -> Arc<Self> {
        Arc::new(Self {
            node: NodeId(node),
            delay: Mutex::new(Some(Duration::from_millis(1))),
            appended: Mutex::default(),
        })
    }

    pub(super) fn set_delay(&self, delay: Option<Duration>) {
        *self.delay.lock().unwrap() = delay;
    }

    async fn work(&self) -> Result<(), AppendError> {
        let delay = *self.delay.lock().unwrap();
        match delay {
            Some(delay) => {
                sleep(delay).await;
                Ok(())
            }
            None => Err(AppendError::Unreachable { storage: self.node, reason: "down".into() }),
        }
    }
}

impl SegmentStore for FakeStorage {
    fn storage(&self) -> NodeId {
        self.node
    }

    fn begin(
        &self,
        _entry: NodeId,
        _incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<u32, AppendError>> {
        async { self.work().await.map(|()| 4) }.boxed()
    }

    fn append(&self, body: SealedBody) -> BoxFuture<'_, Result<Appended, AppendError>> {
        async move {
            self.work().await?;
            self.appended.lock().unwrap().insert(body.id);
            let vote = StorageVote {
                storage: self.node,
                segment: body.id,
                length: body.body.len() as u32,
                checksum: body.checksum,
            };
            Ok(Appended { vote, credit: 4 })
        }
        .boxed()
    }

    fn skip(&self, _: AdvanceSegment) -> BoxFuture<'_, Result<(), AppendError>> {
        async { self.work().await }.boxed()
    }
}

/// A sync that takes a millisecond for everything, and shows the log as it grows.
pub(super) struct FakeSync {
    pub(super) model: Mutex<SyncModel>,
    log: mpsc::Sender<Arc<Vec<Resolution>>>,
}

impl FakeSync {
    pub(super) fn new(entry: NodeId, log: mpsc::Sender<Arc<Vec<Resolution>>>) -> Arc<Self> {
        Arc::new(Self { model: Mutex::new(SyncModel::new(entry)), log })
    }

    /// Changes the model, and shows what the change adds to the log.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut SyncModel) -> T) -> T {
        let mut model = self.model.lock().unwrap();
        let before = model.log.len();
        let result = act(&mut model);
        if model.log.len() > before {
            self.log.try_send(Arc::new(model.log[before..].to_vec())).unwrap();
        }
        result
    }

    fn after_a_while<T: Send>(
        &self,
        act: impl FnOnce(&mut SyncModel) -> T + Send + 'static,
    ) -> BoxFuture<'_, Result<T, OrderError>> {
        async move {
            sleep(Duration::from_millis(1)).await;
            Ok(self.with(act))
        }
        .boxed()
    }
}

impl OrderService for FakeSync {
    fn open(&self, _entry: NodeId, request: u64) -> BoxFuture<'_, Result<Opened, OrderError>> {
        self.after_a_while(move |model| model.open(request))
    }

    fn propose(
        &self,
        segments: Vec<SealedSegment>,
    ) -> BoxFuture<'_, Result<Vec<SegmentOutcome>, OrderError>> {
        self.after_a_while(move |model| model.propose(segments))
    }

    fn renew(
        &self,
        _entry: NodeId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<Lease, OrderError>> {
        self.after_a_while(move |model| model.renew(incarnation))
    }

    fn groups(&self) -> BoxFuture<'_, Result<StorageGroups, OrderError>> {
        self.after_a_while(|model| model.groups.clone())
    }
}

/// A host whose edges an entry does not use, except for one number.
pub(super) fn host() -> Host {
    struct Nothing;
    impl Net for Nothing {
        fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, std::io::Result<BoxStream>> {
            unreachable!("an entry opens no connections")
        }
        fn listen<'a>(&'a self, _: &'a str) -> BoxFuture<'a, std::io::Result<Box<dyn Listener>>> {
            unreachable!("an entry does not listen")
        }
    }
    impl Disk for Nothing {
        fn open_database(&self, _: &Path) -> Result<redb::Database, redb::DatabaseError> {
            unreachable!("an entry keeps nothing")
        }
        fn read_file(&self, _: &Path) -> std::io::Result<Option<Vec<u8>>> {
            unreachable!("an entry keeps nothing")
        }
        fn write_file(&self, _: &Path, _: &[u8]) -> std::io::Result<()> {
            unreachable!("an entry keeps nothing")
        }
        fn open_in_place(&self, _: &Path) -> std::io::Result<Box<dyn InPlace>> {
            unreachable!("an entry keeps nothing")
        }
    }
    impl Clock for Nothing {
        fn now(&self) -> Stamp {
            unreachable!("an entry asks nobody for the time of day")
        }
    }
    impl Random for Nothing {
        fn next_u64(&self) -> u64 {
            4
        }
    }
    Host {
        net: Arc::new(Nothing),
        disk: Arc::new(Nothing),
        clock: Arc::new(Nothing),
        random: Arc::new(Nothing),
        commits: CommitMode::Thread,
        clients: Workers::Here,
        fatal: Arc::new(|_| {}),
    }
}

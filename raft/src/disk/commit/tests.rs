//! Two writers on one file: which jobs share a commit, which ones start one, and what a crash leaves.

use std::path::Path;

use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use super::*;
use crate::disk::file::{self, File};
use crate::host::sim::{self, SimConfig, SimDisk};
use crate::ids::{DiskId, NodeId};
use crate::net::wire::Identity;

const COMMIT: Duration = Duration::from_millis(4);
const BODIES: TableDefinition<u64, u64> = TableDefinition::new("test-bodies");
const ENTRIES: TableDefinition<u64, u64> = TableDefinition::new("test-entries");

/// A row, its waiting caller, and how long it may wait.
struct Row {
    key: u64,
    patience: Duration,
    done: oneshot::Sender<()>,
}

struct Rows(TableDefinition<'static, u64, u64>);

impl Writer for Rows {
    type Job = Row;

    fn patience(row: &Row) -> Duration {
        row.patience
    }

    fn changes(row: &Row) -> bool {
        row.key > 0
    }

    fn write(
        &mut self,
        transaction: &WriteTransaction,
        jobs: &mut [Row],
    ) -> Result<(), CommitError> {
        let mut table = transaction.open_table(self.0)?;
        for row in jobs.iter().filter(|row| row.key > 0) {
            table.insert(row.key, row.key)?;
        }
        Ok(())
    }

    fn complete(&mut self, jobs: &mut Vec<Row>) {
        for row in jobs.drain(..) {
            let _ = row.done.send(());
        }
    }
}

/// A file with two writers, and the number of syncs it has seen.
struct Two {
    file: File,
    bodies: CommitQueue<Row>,
    entries: CommitQueue<Row>,
}

fn open(disk: &SimDisk, seed: u64) -> Two {
    let host = sim::host(SimConfig { seed, clock_ahead: 0, commit: COMMIT }, disk);
    let own = Identity { cluster: "test".into(), node: NodeId(1), disk: DiskId(1) };
    let file = File::open(&host, Path::new("data"), &own).unwrap();
    let bodies = file.commits.join(Rows(BODIES), 100);
    let entries = file.commits.join(Rows(ENTRIES), 100);
    Two { file, bodies, entries }
}

async fn put(queue: &CommitQueue<Row>, key: u64, patience: Duration) -> oneshot::Receiver<()> {
    let (done, waiting) = oneshot::channel();
    queue.submit(Row { key, patience, done }).await.unwrap();
    waiting
}

fn room(two: &Two) -> usize {
    two.bodies.door.room.available_permits()
}

fn keys(two: &Two, table: TableDefinition<'static, u64, u64>) -> Vec<u64> {
    let database = two.file.commits.database().upgrade().unwrap();
    match database.begin_read().unwrap().open_table(table) {
        Ok(table) => table.iter().unwrap().map(|row| row.unwrap().0.value()).collect(),
        Err(_) => Vec::new(),
    }
}

fn numbered(two: &Two) -> u64 {
    let database = two.file.commits.database().upgrade().unwrap();
    let Ok(log) = database.begin_read().unwrap().open_table(file::LOG) else { return 0 };
    let row = log.get(file::NUMBER).unwrap();
    row.map_or(0, |row| u64::from_le_bytes(row.value().try_into().unwrap()))
}

#[tokio::test(start_paused = true)]
async fn all_that_is_queued_goes_into_one_commit() {
    let two = open(&SimDisk::new(), 1);
    let patient = put(&two.bodies, 1, Duration::from_secs(60)).await;
    tokio::time::sleep(COMMIT * 100).await;
    assert_eq!(numbered(&two), 0, "nobody is in a hurry");
    let hurried = put(&two.entries, 2, Duration::ZERO).await;
    hurried.await.unwrap();
    patient.await.unwrap();
    assert_eq!((keys(&two, BODIES), keys(&two, ENTRIES)), (vec![1], vec![2]));
    assert_eq!(numbered(&two), 1);
}

#[tokio::test(start_paused = true)]
async fn patience_runs_out() {
    let two = open(&SimDisk::new(), 1);
    let patience = Duration::from_secs(3);
    let begun = Instant::now();
    let first = put(&two.bodies, 1, patience).await;
    put(&two.bodies, 2, patience * 2).await.await.unwrap();
    first.await.unwrap();
    assert!((patience..patience + COMMIT * 10).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    // A job that changes nothing waits for its turn, and makes no commit.
    put(&two.bodies, 0, Duration::ZERO).await.await.unwrap();
    assert_eq!(numbered(&two), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_wait_and_a_closed_one_takes_nothing() {
    let two = open(&SimDisk::new(), 1);
    let (done, _waiting) = oneshot::channel();
    let mut last = Some(Row { key: 7, patience: Duration::ZERO, done });
    for key in 1..=100 {
        drop(put(&two.bodies, key, Duration::from_secs(60)).await);
    }
    assert_eq!(room(&two), 0);
    let refused = two.bodies.try_submit(last.take().unwrap());
    assert_eq!(refused, Err(TrySubmitError::Full));
    put(&two.entries, 1, Duration::ZERO).await.await.unwrap();
    assert_eq!((room(&two), keys(&two, BODIES).len()), (100, 100));

    let late = put(&two.bodies, 101, Duration::from_secs(60)).await;
    two.bodies.close();
    let (done, _waiting) = oneshot::channel();
    let refused = two.bodies.submit(Row { key: 102, patience: Duration::ZERO, done }).await;
    assert_eq!(refused, Err(QueueClosed));
    let (mut closed, entries) = (two.file.commits.closed(), two.entries.clone());
    drop((two.file, two.entries));
    late.await.unwrap();
    assert!(tokio::time::timeout(COMMIT * 100, closed.changed()).await.is_err(), "one is open");
    drop(entries);
    assert!(closed.changed().await.is_err(), "the database is closed when the last one is");
}

/// Queues bodies, each followed by the entry that names it, and cuts the power some time later. Returns how many
/// entries are left without their bodies, over many seeds.
async fn bodiless() -> usize {
    let mut found = 0;
    for seed in 0..60 {
        let disk = SimDisk::new();
        let two = open(&disk, seed);
        for key in 1..20 {
            drop(put(&two.bodies, key, Duration::from_millis(5)).await);
            drop(put(&two.entries, key, Duration::ZERO).await);
            tokio::time::sleep(Duration::from_micros(seed * 31 % 2_000)).await;
        }
        disk.crash(seed);
        drop(two);
        let two = open(&disk, seed);
        let (bodies, entries) = (keys(&two, BODIES), keys(&two, ENTRIES));
        found += entries.iter().filter(|key| !bodies.contains(key)).count();
    }
    found
}

#[tokio::test(start_paused = true)]
async fn no_crash_leaves_what_was_queued_later_without_what_was_before() {
    assert_eq!(bodiless().await, 0);
}

#[cfg(feature = "mutants")]
#[tokio::test(start_paused = true)]
async fn writing_the_later_before_the_earlier_is_caught() {
    use crate::mutant::plant;
    plant(Some(Mutant::WrittenBeforeBody));
    let found = bodiless().await;
    plant(None);
    assert!(found > 0);
}

//! openraft's own suite on the log store and the state machine, and tests for what it does not cover: files and
//! restarts.

use std::path::Path;

use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::StorageError;

use super::beside::tests::Fake;
use super::beside::Beside;
use super::log_store::{Job, LogStore};
use super::machine::{Applied, Machine};
use super::snapshot_store;
use super::types::{EncodedCommand, LogEntry, LogId, Types, Vote, Voter};
use crate::disk::file::{File, OpenError};
use crate::host::Host;
use crate::ids::{DiskId, NodeId, Stamp};
use crate::net::wire::Identity;
use crate::sequencer::{Command, Vouched};

fn identity() -> Identity {
    Identity { cluster: "test".into(), node: NodeId(1), disk: DiskId(1) }
}

fn open_both(folder: &Path) -> Result<(LogStore, Machine), OpenError> {
    open_beside(folder, Beside::new(None))
}

fn open_beside(folder: &Path, beside: Beside) -> Result<(LogStore, Machine), OpenError> {
    let file = File::open(&Host::real(), folder, &identity())?;
    let (log, snapshots) = snapshot_store::open(&file, beside).unwrap();
    Ok((log, Machine::load(Applied::new(), snapshots).unwrap()))
}

struct InFolder;

impl StoreBuilder<Types, LogStore, Machine, tempfile::TempDir> for InFolder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<Types>> {
        let folder = tempfile::tempdir().unwrap();
        let (log, machine) = open_both(folder.path()).unwrap();
        Ok((folder, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite_of_openraft() {
    Suite::test_all(InFolder).await.unwrap();
}

fn log_id(term: u64, index: u64) -> LogId {
    use openraft::vote::RaftLeaderId;
    LogId { leader_id: RaftLeaderId::new(term, NodeId(1)), index }
}

fn entry(term: u64, index: u64) -> LogEntry {
    let command =
        Command { clocks: Vouched { from: Stamp(index), until: Stamp(index) }, steps: vec![] };
    let payload = openraft::EntryPayload::Normal(EncodedCommand::new(&command));
    LogEntry { log_id: log_id(term, index), payload }
}

/// Opens a file that an earlier store of this test may still be closing.
async fn reopen(folder: &Path) -> LogStore {
    reopen_with(folder, Beside::new(None)).await
}

async fn reopen_with(folder: &Path, beside: Beside) -> LogStore {
    for _ in 0..200 {
        match open_beside(folder, beside.clone()) {
            Ok((log, _)) => return log,
            Err(OpenError::Disk { .. }) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the database stays open");
}

#[tokio::test]
async fn a_reopened_log_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = reopen(folder.path()).await;
    log.save_vote(&Vote::new(3, NodeId(1))).await.unwrap();
    log.blocking_append((0..100).map(|index| entry(1, index))).await.unwrap();
    log.truncate_after(Some(log_id(1, 49))).await.unwrap();
    // Entries that a truncation replaced must be read as the new ones, before and after they are on disk.
    log.blocking_append((50..60).map(|index| entry(2, index))).await.unwrap();
    log.purge(log_id(1, 9)).await.unwrap();
    log.blocking_append([entry(2, 60)]).await.unwrap();
    let expected = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(expected.len(), 51);
    drop(log);

    let mut log = reopen(folder.path()).await;
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), expected);
    assert_eq!(log.try_get_log_entries(48..=51).await.unwrap(), expected[38..42]);
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(3, NodeId(1))));
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 9)));
    assert_eq!(state.last_log_id, Some(log_id(2, 60)));
}

#[tokio::test]
async fn the_committed_index_follows_now_and_then_and_is_never_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = reopen(folder.path()).await;
    log.blocking_append((0..400).map(|index| entry(1, index))).await.unwrap();
    for (committed, index) in [(255, 400), (300, 401), (400, 402)] {
        log.save_committed(Some(log_id(1, committed))).await.unwrap();
        assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, committed)));
        log.blocking_append([entry(1, index)]).await.unwrap();
    }
    drop(log);
    let mut log = reopen(folder.path()).await;
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 300)));
}

#[tokio::test]
async fn reads_are_limited_but_never_empty() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = reopen(folder.path()).await;
    let large = |index| {
        let payload = EncodedCommand(vec![0u8; 1 << 20].into());
        LogEntry { log_id: log_id(1, index), payload: openraft::EntryPayload::Normal(payload) }
    };
    // More than is kept in memory, so that the read crosses from disk to memory.
    log.blocking_append((0..20).map(large)).await.unwrap();
    log.blocking_append([entry(1, 20)]).await.unwrap();
    for start in 0..20 {
        let read = log.limited_get_log_entries(start, 21).await.unwrap();
        assert!((1..=3).contains(&read.len()), "{} from {start}", read.len());
        assert_eq!(read[0].log_id, log_id(1, start));
    }
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 21);
}

async fn indices(log: &mut LogStore) -> Vec<u64> {
    log.try_get_log_entries(..).await.unwrap().iter().map(|entry| entry.log_id.index).collect()
}

#[tokio::test]
async fn a_log_tells_which_entries_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = reopen(folder.path()).await;
    log.blocking_append((0..5).map(|index| entry(2, index))).await.unwrap();
    log.purge(log_id(2, 1)).await.unwrap();
    let has = |term, index| log.has(Some(log_id(term, index))).unwrap();
    assert!(has(2, 2) && has(2, 4));
    assert!(!has(2, 5) && !has(1, 4) && !has(2, 1));
    assert!(log.has(None).unwrap());
}

#[tokio::test]
async fn how_far_the_log_is_committed_is_durable_when_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = reopen(folder.path()).await;
    log.remember_committed().await.unwrap();
    log.blocking_append((0..5).map(|index| entry(1, index))).await.unwrap();
    log.save_committed(Some(log_id(1, 2))).await.unwrap();
    drop(log);
    let mut log = reopen(folder.path()).await;
    assert_eq!(log.read_committed().await.unwrap(), None, "it rides on an append now and then");
    log.save_committed(Some(log_id(1, 3))).await.unwrap();
    log.remember_committed().await.unwrap();
    // A purge that was requested earlier, and arrives after it, changes nothing.
    let (saved, done) = tokio::sync::oneshot::channel();
    let late = Job::Committed { committed: log_id(1, 1), saved };
    log.queue().submit(late).await.unwrap();
    done.await.unwrap();
    drop(log);
    let mut log = reopen(folder.path()).await;
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 3)));
}

#[tokio::test]
async fn entries_that_were_committed_when_they_came_are_known_to_be_so_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let early = |index| super::beside::tests::entry(index, &[index]);
    let beside = Beside::new(Some(Fake::with(&[0, 3, 4])));
    let mut log = reopen_with(folder.path(), beside.clone()).await;
    let limit = std::time::Duration::ZERO;
    let entries: Vec<_> = (0..5).map(early).collect();
    beside.take_in(&entries, 2, NodeId(2), limit).await.unwrap();
    log.blocking_append(entries).await.unwrap();
    assert!(log.blocking_append([early(5)]).await.is_err(), "its body is not here");
    drop((log, beside));
    let mut log = reopen(folder.path()).await;
    assert_eq!(indices(&mut log).await, [0, 1, 2, 3, 4]);
    assert_eq!(log.read_committed().await.unwrap().map(|committed| committed.index), Some(2));
}

/// Our file contains encoded openraft types. An openraft upgrade that changes their encoding needs a new format number.
#[test]
fn golden_bytes() {
    use crate::net::wire::encode;
    let mut voters = std::collections::BTreeMap::new();
    voters.insert(NodeId(1), Voter { address: "a:1".into(), disk: DiskId(9) });
    let membership = openraft::Membership::new(vec![[NodeId(1)].into()], voters).unwrap();
    let payload = openraft::EntryPayload::Membership(membership);
    let membership = LogEntry { log_id: log_id(0, 0), payload };
    let blank = LogEntry { log_id: log_id(2, 7), payload: openraft::EntryPayload::Blank };
    assert_eq!(encode(&entry(1, 2)), [1, 1, 2, 1, 3, 2, 2, 0]);
    assert_eq!(encode(&blank), [2, 1, 7, 0]);
    assert_eq!(encode(&membership), [0, 1, 0, 2, 1, 1, 1, 1, 1, 3, b'a', b':', b'1', 9]);
    assert_eq!(encode(&Vote::new_committed(3, NodeId(1))), [3, 1, 1]);
    assert_eq!(encode(&super::types::SnapshotMeta::default()), [0, 0, 0, 0, 0]);
}

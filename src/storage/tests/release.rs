//! Deleting from the front, starting over and filling in, with power cuts at any time.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use vulpes_raft::disk::file;
use vulpes_raft::ids::Incarnation;

use super::super::testing::fold::{self, fold, Logged};
use super::super::testing::{
    host, identity, plain, proposal, sealed, segment_id, Order, TestDisk, TestNet, COMMIT,
};
use super::super::*;
use super::{append_all, index, open, path};
use crate::append::AppendError;
use crate::realm::Realms;
use crate::segment::SealedBody;
use crate::types::row::Change;

fn bodies(storage: &Storage) -> u64 {
    storage.status().unwrap().bodies
}

#[tokio::test(start_paused = true)]
async fn what_is_released_is_gone_and_the_rest_is_whole() {
    let disk = TestDisk::default();
    let storage = open(&disk);
    let mut order = Order::default();
    let mut rows = vec![(order.opened(1, 1), None)];
    let all: Vec<SealedBody> =
        (0..9).map(|number| sealed(segment_id(1, 1, number), &[7; 100])).collect();
    append_all(&storage, &all).await;
    rows.extend(all.iter().map(|body| (order.segment(body), None)));
    let resolutions: Vec<Resolution> = rows.iter().map(|(row, _)| row.clone()).collect();
    index(&storage, rows).await;

    storage.release(Slot(5)).await.unwrap();
    assert_eq!(storage.oldest(), Ok(Slot(5)));
    assert_eq!(storage.rows(Slot(1), 100).unwrap(), resolutions[4..]);
    assert_eq!((bodies(&storage), storage.status().unwrap().head), (6, Slot(5)));
    assert_eq!(storage.body(&all[2].id), Ok(None));
    assert_eq!(storage.slot_of(resolutions[3].base), Ok(None));
    assert_eq!(storage.slot_of(resolutions[4].base), Ok(Some(resolutions[4].clone())));
    // No part of it can come back.
    let again = storage.append(all[2].clone()).await;
    assert_eq!(again, Err(AppendError::Released(all[2].id)));
    storage.replace(&proposal(&all[2]), all[2].body.clone()).await.unwrap();
    assert_eq!(storage.body(&all[2].id), Ok(None));
    assert!(storage.append(all[8].clone()).await.is_ok());
    // The last row stays, whatever is released, and the order continues after it.
    storage.release(Slot(100)).await.unwrap();
    let storage = open(&disk.cut_power());
    assert_eq!((storage.oldest(), bodies(&storage)), (Ok(Slot(10)), 1));
    let body = sealed(segment_id(1, 1, 9), b"next");
    index(&storage, vec![(order.segment(&body), Some(body.body.clone()))]).await;
    assert_eq!(storage.oldest(), Ok(Slot(10)));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_body_that_is_released_needs_no_repair() {
    let disk = TestDisk::default();
    let storage = open(&disk);
    let mut order = Order::default();
    let body = sealed(segment_id(1, 1, 0), b"a body that rots on its disk");
    append_all(&storage, std::slice::from_ref(&body)).await;
    let rows =
        vec![(order.opened(1, 1), None), (order.segment(&body), None), (order.opened(1, 2), None)];
    index(&storage, rows).await;
    disk.damage(path(), b"a body that rots");
    assert!(storage.body(&body.id).is_err());
    assert_eq!(storage.damaged(), [body.id]);
    storage.release(Slot(3)).await.unwrap();
    assert_eq!(storage.damaged(), []);
}

#[tokio::test(start_paused = true)]
async fn the_file_stops_growing() {
    const KEPT: u64 = 64;
    let disk = TestDisk::default();
    let storage = open(&disk);
    let mut order = Order::default();
    index(&storage, vec![(order.opened(1, 1), None)]).await;
    let mut lengths = Vec::new();
    for number in 0..16 * KEPT {
        let body = sealed(segment_id(1, 1, number), &[number as u8; 10_000]);
        index(&storage, vec![(order.segment(&body), Some(body.body.clone()))]).await;
        storage.release(Slot(order.slot.0.saturating_sub(KEPT))).await.unwrap();
        if (number + 1) % (4 * KEPT) == 0 {
            lengths.push(disk.length(path()));
        }
    }
    let appended = KEPT as usize * 10_000;
    assert!(lengths[3] <= lengths[0], "{lengths:?}");
    assert!(lengths[3] < 5 * appended, "{lengths:?} for {appended} bytes");
    assert_eq!(bodies(&storage), KEPT);
}

#[tokio::test(start_paused = true)]
async fn a_file_is_compacted_to_what_it_holds() {
    let disk = TestDisk::default();
    let storage = open(&disk);
    let mut order = Order::default();
    let mut rows = vec![(order.opened(1, 1), None)];
    for number in 0..200 {
        let body = sealed(segment_id(1, 1, number), &[number as u8; 20_000]);
        rows.push((order.segment(&body), Some(body.body)));
    }
    index(&storage, rows).await;
    storage.release(Slot(190)).await.unwrap();
    storage.close().await;
    let before = disk.length(path());
    let host = host(&disk, &TestNet::default());
    assert!(file::compact(&host, Path::new("data"), &identity(2)).is_err(), "another node's file");
    file::compact(&host, Path::new("data"), &identity(1)).unwrap();
    let after = disk.length(path());
    assert!(after < before / 4, "{before} bytes became {after}");
    let storage = open(&disk);
    assert_eq!((storage.oldest(), bodies(&storage)), (Ok(Slot(190)), 12));
}

/// Another storage's state after these slots.
fn state_behind(log: &[Logged]) -> (IndexedRow, Vec<(NodeId, Incarnation)>) {
    let (realms, applied) = fold(log);
    let mut rows = BTreeMap::new();
    for change in applied.iter().flat_map(|applied| &applied.changes) {
        match &change.value {
            Some(value) => drop(rows.insert(change.key.clone(), value.clone())),
            None => drop(rows.remove(&change.key)),
        }
    }
    let last = log.last().unwrap();
    let changes = rows.into_iter().map(|(key, value)| Change { key, value: Some(value) });
    let row = IndexedRow {
        resolution: last.row.clone(),
        body: last.body.as_ref().map(|body| body.body.clone()),
        hidden: applied.last().unwrap().hidden.clone(),
        changes: changes.collect(),
    };
    (row, realms.incarnations().collect())
}

/// A storage that has the first slots of a log, and voted for some more, starts over at a later one, and fills in the retained
/// rows before it, with occasional power cuts.
async fn begin_anew(log: &[Logged], has: usize, voted: usize, head: usize, cuts: &[u32]) {
    let mut disk = TestDisk::default();
    let mut storage = open(&disk);
    let (_, applied) = fold(log);
    let indexed = |at: usize| IndexedRow {
        resolution: log[at].row.clone(),
        body: log[at].body.as_ref().map(|body| body.body.clone()),
        hidden: applied[at].hidden.clone(),
        changes: applied[at].changes.clone(),
    };
    storage.index((0..has).map(indexed).collect()).await.unwrap();
    storage.indexed().wait_for(|slot| slot.0 == has as u64).await.unwrap();
    let mut votes = Vec::new();
    for body in log[has..voted].iter().filter_map(|logged| logged.body.clone()) {
        // Only bodies that the entry could still send: older incarnations are fenced by then.
        if storage.append(body.clone()).await.is_ok() {
            votes.push(body);
        }
    }
    let mut cuts = cuts.iter().map(|tenths| COMMIT * *tenths / 10);
    let (row, entries) = state_behind(log);
    loop {
        let cut = cuts.len() > 0;
        if storage.tail().is_some_and(|tail| tail.slot < row.resolution.slot) {
            let begins = storage.adopt(row.clone(), &entries);
            match cuts.next() {
                Some(time) => drop(tokio::time::timeout(time, begins).await),
                None => begins.await.unwrap(),
            }
        } else {
            let oldest = storage.oldest().unwrap().0 as usize;
            if oldest <= head {
                break;
            }
            let from = head.max(oldest.saturating_sub(4)) - 1;
            let rows = (from..oldest - 1).map(|at| IndexedRow {
                body: indexed(at).body.filter(|_| {
                    at % 2 == 0
                        || !votes.iter().any(|vote| {
                            log[at].body.as_ref().is_some_and(|body| body.id == vote.id)
                        })
                }),
                changes: Vec::new(),
                ..indexed(at)
            });
            let fills = storage.fill(rows.collect());
            match cuts.next() {
                Some(time) => drop(tokio::time::timeout(time, fills).await),
                None => fills.await.unwrap(),
            }
        }
        if cut {
            disk = disk.cut_power();
            storage = open(&disk);
        }
        check_votes(&storage, &log[head - 1..], &votes);
    }
    check_kept(&open(&disk.cut_power()), log, head);
}

/// No vote for a stored body is broken.
fn check_votes(storage: &Storage, appended: &[Logged], votes: &[SealedBody]) {
    let bodies = appended.iter().filter_map(|logged| logged.body.as_ref());
    for body in bodies.filter(|body| votes.iter().any(|vote| vote.id == body.id)) {
        let held = storage.body(&body.id).unwrap();
        assert_eq!(held.as_ref(), Some(&body.body), "a vote was taken back");
    }
}

fn check_kept(storage: &Storage, log: &[Logged], head: usize) {
    let (realms, applied) = fold(log);
    let stored = storage.rows_and_hidden(Slot(head as u64), usize::MAX).unwrap();
    let appended: Vec<Resolution> =
        log[head - 1..].iter().map(|logged| logged.row.clone()).collect();
    assert_eq!(stored.rows, appended);
    for (at, logged) in log.iter().enumerate().skip(head - 1) {
        if let Some(body) = &logged.body {
            assert_eq!(storage.body(&body.id).unwrap().as_ref(), Some(&body.body));
        }
        let hidden = stored.hidden.iter().find(|(slot, _)| *slot == logged.row.slot);
        let hidden = hidden.map(|(_, offsets)| offsets.clone()).unwrap_or_default();
        assert_eq!(hidden, applied[at].hidden);
    }
    assert_eq!(storage.state::<Realms>().unwrap().hash(), realms.hash());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_storage_that_was_away_begins_anew(
        doings in prop::collection::vec(any::<u8>(), 8..40),
        shares in (0..100usize, 0..100usize, 0..100usize),
        cuts in prop::collection::vec(0..40u32, 0..6),
    ) {
        let log = fold::log(&doings);
        let share = |from: usize, to: usize, share: usize| from + (to - from) * share / 100;
        let has = share(1, log.len() - 1, shares.0);
        let voted = share(has, log.len(), shares.1);
        let head = share(has + 1, log.len(), shares.2);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(begin_anew(&log, has, voted, head, &cuts));
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_rows_right_before_are_filled_in() {
    let log = fold::log(&[1, 2, 6, 9, 1, 6]);
    let storage = open(&TestDisk::default());
    let rows: Vec<_> =
        log.iter().map(|l| (l.row.clone(), l.body.as_ref().map(|b| b.body.clone()))).collect();
    index(&storage, rows[..2].to_vec()).await;
    let (row, entries) = state_behind(&log);
    let early = state_behind(&log[..2]).0;
    assert!(matches!(
        storage.adopt(early, &entries).await,
        Err(ReleaseError::Rows(IndexError::NotNext { .. }))
    ));
    storage.adopt(row, &entries).await.unwrap();
    assert_eq!((storage.oldest(), bodies(&storage)), (Ok(Slot(7)), 1));
    let gap = storage.fill(plain(rows[2..5].to_vec())).await;
    assert!(matches!(gap, Err(ReleaseError::Rows(IndexError::NotNext { .. }))), "{gap:?}");
    let mut bare = rows[4..6].to_vec();
    bare[1].1 = None;
    let missing = storage.fill(plain(bare)).await;
    assert!(matches!(missing, Err(ReleaseError::Rows(IndexError::BodyMissing { .. }))));
    storage.fill(plain(rows[4..6].to_vec())).await.unwrap();
    assert_eq!(storage.oldest(), Ok(Slot(5)));
}

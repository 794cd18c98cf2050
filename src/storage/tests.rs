//! A storage, op by op: its answers, what survives a power cut, and what it refuses.

use std::path::Path;
use std::time::Duration;

use vulpes_raft::host::CommitMode;
use vulpes_raft::ids::{DiskId, Incarnation, Shard, Shards};
use vulpes_raft::order::CloseReason;

use super::testing::{
    self, host, identity, plain, proposal, sealed, segment_id, Order, TestDisk, TestNet, COMMIT,
};
use super::*;
use crate::append::{AppendError, Appended, StorageVote};
use crate::segment::{OpenSegment, SealedBody};

mod groups;
mod model;
mod older;
mod release;
mod state;

pub(super) fn path() -> &'static Path {
    Path::new("data/node.redb")
}

pub(super) fn open_as(disk: &TestDisk, own: &Identity) -> Result<Storage, OpenError> {
    let host = host(disk, &TestNet::default());
    testing::open_as(&host, own, &RecentBodies::new(limits::RECENT_BODIES))
}

pub(super) fn open(disk: &TestDisk) -> Storage {
    open_as(disk, &identity(1)).unwrap()
}

async fn append_all(storage: &Storage, bodies: &[SealedBody]) {
    for body in bodies {
        storage.append(body.clone()).await.unwrap();
    }
}

async fn index(storage: &Storage, rows: Vec<(Resolution, Option<Bytes>)>) {
    let last = rows.last().unwrap().0.slot;
    storage.index(plain(rows)).await.unwrap();
    storage.indexed().wait_for(|slot| *slot >= last).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_kept_body_is_voted_for_and_there_after_a_power_cut() {
    let disk = TestDisk::default();
    let storage = open(&disk);
    let body = sealed(segment_id(1, 1, 0), b"first");
    assert_eq!(storage.begin(NodeId(1), Incarnation(1)), Ok(limits::STORAGE_CREDIT));
    let appended = storage.append(body.clone()).await.unwrap();
    let expected = StorageVote {
        storage: NodeId(1),
        segment: body.id,
        length: body.body.len() as u32,
        checksum: body.checksum,
    };
    assert_eq!(appended, Appended { vote: expected, credit: limits::STORAGE_CREDIT });
    // Appending the same body again gets the same vote; another body under that name is refused.
    assert_eq!(storage.append(body.clone()).await.unwrap().vote, expected);
    let other = sealed(body.id, b"other");
    assert_eq!(storage.append(other.clone()).await, Err(AppendError::Conflict(body.id)));

    let storage = open(&disk.cut_power());
    assert!(!storage.lacks(&proposal(&body)));
    assert!(storage.lacks(&proposal(&other)));
    assert_eq!(storage.body(&body.id), Ok(Some(body.body.clone())));
    assert_eq!(storage.append(body.clone()).await.unwrap().vote, expected);
    assert_eq!(storage.append(other).await, Err(AppendError::Conflict(body.id)));
}

#[tokio::test(start_paused = true)]
async fn a_vote_waits_for_the_disk_and_a_write_for_nobody() {
    let disk = TestDisk::default();
    let storage = open(&disk);
    let body = sealed(segment_id(1, 1, 0), b"first");
    let early = COMMIT / 2;
    let appended = tokio::time::timeout(early, storage.append(body.clone())).await;
    assert!(appended.is_err(), "the vote came before the commit");
    // It has arrived, so it can be read from memory, but it is not known to voters or readers yet.
    assert!(!storage.lacks(&proposal(&body)));
    assert_eq!(storage.inner.recent.get(body.id), Some(body.body.clone()));
    assert_eq!(storage.body(&body.id), Ok(None));
    assert_eq!(open(&disk.cut_power()).body(&body.id), Ok(None));
    // It is written although its caller no longer waits.
    tokio::time::sleep(COMMIT).await;
    assert_eq!(open(&disk.cut_power()).body(&body.id), Ok(Some(body.body)));
}

#[tokio::test(start_paused = true)]
async fn a_body_is_held_when_it_comes_and_when_the_order_shows_what_became_of_it() {
    let disk = TestDisk::default();
    let storage = open(&disk);
    let arrivals = storage.arrivals();
    let (body, other) = (sealed(segment_id(1, 1, 0), b"first"), sealed(segment_id(1, 1, 0), b"o"));
    assert!(!storage.held(&proposal(&body)));
    assert!(tokio::time::timeout(COMMIT / 2, storage.append(body.clone())).await.is_err());
    assert!(arrivals.has_changed().unwrap());
    assert!(storage.held(&proposal(&body)) && !storage.held(&proposal(&other)));
    let mut order = Order::default();
    let rows = vec![(order.opened(1, 1), None), (order.segment(&body), None)];
    index(&storage, rows).await;
    assert!(storage.held(&proposal(&body)));
    index(&storage, vec![(order.opened(1, 2), None)]).await;
    assert!(storage.held(&proposal(&sealed(segment_id(1, 1, 9), b"never"))));
    let next = sealed(segment_id(1, 2, 0), b"next");
    storage.append(next.clone()).await.unwrap();
    let storage = open(&disk.cut_power());
    assert!(storage.held(&proposal(&body)) && storage.held(&proposal(&next)));
}

#[tokio::test(start_paused = true)]
async fn a_body_waits_for_the_commit_of_another_writer_but_not_for_ever() {
    let disk = TestDisk::default();
    let host = host(&disk, &TestNet::default());
    let file = File::open(&host, Path::new("data"), &identity(1)).unwrap();
    let recent = RecentBodies::new(limits::RECENT_BODIES);
    let patience = COMMIT * 20;
    let storage = Storage::open(&file, &identity(1), Shards::ALL, recent, patience).unwrap();
    let begun = tokio::time::Instant::now();
    storage.append(sealed(segment_id(1, 1, 0), b"alone")).await.unwrap();
    assert_eq!(begun.elapsed().as_millis(), (patience + COMMIT).as_millis());
    // Rows wait, too; a job without patience starts a commit that includes all of them.
    let begun = tokio::time::Instant::now();
    let body = sealed(segment_id(1, 1, 1), b"in company");
    let order = async {
        tokio::time::sleep(COMMIT).await;
        storage.inner.queue.submit(hurried(&storage).await).await.unwrap();
    };
    let (appended, ()) = tokio::join!(storage.append(body), order);
    appended.unwrap();
    assert_eq!(begun.elapsed().as_millis(), (COMMIT * 2).as_millis());
}

/// A job that does not wait for others.
async fn hurried(storage: &Storage) -> Job {
    let (waiting, _) = oneshot::channel();
    let work = Work::Append { writes: Vec::new(), answer: Ok(()), waiting };
    Job { work, permit: storage.room(0).await.unwrap(), patience: Duration::ZERO }
}

#[tokio::test(start_paused = true)]
async fn before_bodies_are_deleted_sync_is_asked_first() {
    let disk = TestDisk::default();
    let storage = open(&disk);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let asking = asked.clone();
    storage.when_deleting(Box::new(move |slot| {
        let asking = asking.clone();
        Box::pin(async move {
            tokio::time::sleep(COMMIT).await;
            asking.lock().unwrap().push(slot);
        })
    }));
    let asked = || std::mem::take(&mut *asked.lock().unwrap());
    let bodies = [sealed(segment_id(1, 1, 0), b"kept"), sealed(segment_id(1, 1, 1), b"discarded")];
    append_all(&storage, &bodies).await;
    let mut order = Order::default();
    index(&storage, vec![(order.opened(1, 1), None), (order.segment(&bodies[0]), None)]).await;
    assert_eq!(asked(), [Slot(1)]);
    let more = sealed(segment_id(2, 1, 0), b"more");
    append_all(&storage, std::slice::from_ref(&more)).await;
    index(&storage, vec![(order.segment(&more), None)]).await;
    assert_eq!(asked(), [], "nothing is deleted for a segment");
    index(&storage, vec![(order.opened(1, 2), None)]).await;
    assert_eq!(asked(), [Slot(4)]);
    assert_eq!(storage.body(&bodies[1].id), Ok(None));
    storage.release(Slot(3)).await.unwrap();
    assert_eq!(asked(), [Slot(4)]);
    assert_eq!(storage.body(&bodies[0].id), Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_ends_the_node_and_nobody_gets_a_vote() {
    let disk = TestDisk::default();
    let mut host = host(&disk, &TestNet::default());
    let fatal = Arc::new(Mutex::new(Vec::new()));
    let reasons = fatal.clone();
    host.fatal = Arc::new(move |reason| reasons.lock().unwrap().push(reason.to_owned()));
    let storage = testing::open(&host, &RecentBodies::new(limits::RECENT_BODIES));
    disk.break_down();
    for number in 0..2 {
        let answer = storage.append(sealed(segment_id(1, 1, number), b"x")).await;
        assert!(matches!(answer, Err(AppendError::Unreachable { .. })), "{answer:?}");
    }
    let row = Order::default().opened(1, 1);
    assert_eq!(storage.index(plain(vec![(row, None)])).await, Err(IndexError::Closed));
    assert_eq!(*storage.indexed().borrow(), Slot(0));
    assert_eq!(fatal.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn rows_wait_for_the_disk_too() {
    let disk = TestDisk::default();
    let storage = open(&disk);
    let mut order = Order::default();
    let row = order.opened(1, 1);
    storage.index(plain(vec![(row.clone(), None)])).await.unwrap();
    assert_eq!(*storage.indexed().borrow(), Slot(0));
    assert_eq!(storage.rows(Slot(1), 10), Ok(vec![]));
    assert_eq!((storage.tail(), storage.oldest()), (None, Ok(Slot(1))));
    storage.indexed().wait_for(|slot| *slot == Slot(1)).await.unwrap();
    let storage = open(&disk.cut_power());
    assert_eq!(*storage.indexed().borrow(), Slot(1));
    assert_eq!(storage.rows(Slot(0), 10), Ok(vec![row.clone()]));
    assert_eq!((storage.tail(), storage.oldest()), (Some(row), Ok(Slot(1))));
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_not_what_they_say_are_refused() {
    let storage = open(&TestDisk::default());
    let sound = sealed(segment_id(1, 1, 0), b"first");
    let cut = sound.body.slice(..sound.body.len() - 1);
    let wrong = [
        SealedBody { checksum: 1, ..sound.clone() },
        SealedBody { body: cut.clone(), ..sound.clone() },
        SealedBody { checksum: checksum(&cut), body: cut, ..sound.clone() },
        SealedBody { id: segment_id(1, 1, 1), ..sound.clone() },
        SealedBody { count: 2, ..sound.clone() },
        SealedBody { shard: Shard(1), ..sound.clone() },
        OpenSegment::default().seal(sound.id, Shard(0)),
    ];
    for body in wrong {
        assert!(matches!(storage.append(body).await, Err(AppendError::Damaged(_))));
    }
    assert_eq!(storage.status().unwrap().bodies, 0);
    assert_eq!(storage.inner.recent.get(sound.id), None);
}

#[tokio::test(start_paused = true)]
async fn credit_follows_the_room_in_the_queue() {
    let storage = open(&TestDisk::default());
    let payload = vec![7; 900_000];
    let mut appends = tokio::task::JoinSet::new();
    for number in 0..40 {
        let (storage, body) = (storage.clone(), sealed(segment_id(1, 1, number), &payload));
        appends.spawn(async move { storage.append(body).await.unwrap().credit });
    }
    tokio::task::yield_now().await;
    assert_eq!(storage.begin(NodeId(1), Incarnation(1)), Ok(1));
    let credits = appends.join_all().await;
    assert!(credits.iter().all(|credit| (1..=limits::STORAGE_CREDIT).contains(credit)));
    assert_eq!(storage.begin(NodeId(1), Incarnation(1)), Ok(limits::STORAGE_CREDIT));
}

#[tokio::test(start_paused = true)]
async fn a_fence_discards_just_what_can_not_be_resolved_any_more() {
    let disk = TestDisk::default();
    let storage = open(&disk);
    let mut order = Order::default();
    let body = |entry, incarnation, number| sealed(segment_id(entry, incarnation, number), b"x");
    let resolved = body(1, 1, 0);
    let (late, next, other) = (body(1, 1, 1), body(1, 2, 0), body(2, 1, 0));
    append_all(&storage, &[resolved.clone(), late.clone(), next.clone(), other.clone()]).await;
    let rows = vec![
        (order.opened(1, 1), None),
        (order.segment(&resolved), None),
        (order.opened(1, 2), None),
    ];
    index(&storage, rows).await;
    for storage in [storage.clone(), open(&disk.cut_power())] {
        let held = [&resolved, &late, &next, &other].map(|body| storage.holds(body.id).unwrap());
        assert_eq!(held, [true, false, true, true]);
        assert_eq!(storage.body(&late.id), Ok(None));
        assert_eq!(storage.append(late.clone()).await, Err(AppendError::Fenced));
        assert_eq!(storage.begin(NodeId(1), Incarnation(1)), Err(AppendError::Fenced));
        assert!(storage.begin(NodeId(1), Incarnation(2)).is_ok());
        let status = storage.status().unwrap();
        assert_eq!((status.bodies, status.unresolved, status.indexed), (3, 2, Slot(3)));
    }
    // Closing fences the incarnation itself.
    let (entry, incarnation) = (NodeId(1), Incarnation(2));
    let closed = Step::Closed { entry, incarnation, reason: CloseReason::LeaseLost };
    index(&storage, vec![(order.step(closed), None)]).await;
    assert_eq!(storage.holds(next.id), Ok(false));
    assert_eq!(storage.append(next).await, Err(AppendError::Fenced));
    assert_eq!(storage.holds(resolved.id), Ok(true));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_again_after_its_place_was_found_is_compared() {
    let disk = TestDisk::default();
    let storage = open(&disk);
    let mut order = Order::default();
    let body = sealed(segment_id(1, 1, 0), b"x");
    let rows = vec![
        (order.opened(1, 1), None),
        // This storage was away when the quorum stored the body: it comes with the row.
        (order.segment(&body), Some(body.body.clone())),
    ];
    storage.index(plain(rows)).await.unwrap();
    // Queued behind the row, before it is durable.
    assert_eq!(storage.append(body.clone()).await.unwrap().vote.checksum, body.checksum);
    let other = sealed(body.id, b"other");
    assert_eq!(storage.append(other).await, Err(AppendError::Conflict(body.id)));
    let status = open(&disk.cut_power()).status().unwrap();
    assert_eq!((status.bodies, status.unresolved, status.indexed), (1, 0, Slot(2)));
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_not_the_next_ones_change_nothing() {
    let storage = open(&TestDisk::default());
    let mut order = Order::default();
    let [zero, one] = [0, 1].map(|number| sealed(segment_id(1, 2, number), b"x"));
    storage.append(zero.clone()).await.unwrap();
    index(&storage, vec![(order.opened(1, 2), None), (order.segment(&zero), None)]).await;
    let start = order.clone();
    let row = |body: &SealedBody| start.clone().segment(body);
    let mut gap = row(&one);
    gap.slot = gap.slot.next();
    let mut base = row(&one);
    base.base = base.base.next();
    let old = sealed(segment_id(1, 1, 5), b"x");
    let with = |body: &SealedBody| Some(body.body.clone());
    let slot = start.slot;
    let cases = [
        (gap, with(&one), IndexError::NotNext { expected: slot, found: slot.next() }),
        (
            base,
            with(&one),
            IndexError::WrongBase { slot, expected: start.base, found: start.base.next() },
        ),
        (row(&zero), with(&zero), IndexError::Fenced { slot, segment: zero.id }),
        (row(&old), with(&old), IndexError::Fenced { slot, segment: old.id }),
        (row(&one), None, IndexError::BodyMissing { slot, segment: one.id }),
        (row(&one), with(&zero), IndexError::BodyWrong(one.id)),
    ];
    for (row, body, expected) in cases {
        let refused = storage.index(plain(vec![(row.clone(), body.clone())])).await;
        assert_eq!(refused, Err(expected.clone()));
        if let IndexError::BodyMissing { .. } = expected {
            // A good row before it is not indexed either.
            let mut good = start.clone();
            let opened = (good.opened(2, 1), None);
            let missing = (good.segment(&one), None);
            let error = storage.index(plain(vec![opened, missing])).await.unwrap_err();
            let slot = slot.next();
            assert_eq!(error, IndexError::BodyMissing { slot, segment: one.id });
        }
    }
    index(&storage, vec![(order.segment(&one), with(&one))]).await;
    assert_eq!(storage.rows(Slot(1), 10).unwrap().len(), 3);
    assert_eq!(storage.rows(Slot(2), 1).unwrap()[0].slot, Slot(2));
}

#[tokio::test(start_paused = true)]
async fn a_row_with_another_checksum_shows_that_ours_is_the_wrong_body() {
    let disk = TestDisk::default();
    let storage = open(&disk);
    let mut order = Order::default();
    let ours = sealed(segment_id(1, 1, 0), b"ours");
    let theirs = sealed(ours.id, b"theirs");
    storage.append(ours.clone()).await.unwrap();
    let rows = |body| vec![(Order::default().segment(&theirs), body)];
    let slot = order.segment(&theirs).slot;
    let missing = IndexError::BodyMissing { slot, segment: ours.id };
    assert_eq!(storage.index(plain(rows(None))).await, Err(missing));
    index(&storage, rows(Some(theirs.body.clone()))).await;
    let storage = open(&disk.cut_power());
    assert_eq!(storage.body(&ours.id), Ok(Some(theirs.body)));
    assert_eq!(storage.status().unwrap().unresolved, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_rots_is_found_and_mended() {
    let disk = TestDisk::default();
    let mut order = Order::default();
    let [resolved, fresh, rotten] =
        [0, 1, 2].map(|number| sealed(segment_id(1, 1, number), b"a payload to be found again"));
    {
        let storage = open(&disk);
        append_all(&storage, &[resolved.clone(), fresh.clone(), rotten.clone()]).await;
        index(&storage, vec![(order.segment(&resolved), None)]).await;
        storage.close().await;
    }
    let disk = disk.cut_power();
    assert!(disk.damage(path(), b"payload to be found again") >= 2);
    let storage = open(&disk);
    for body in [&resolved, &fresh, &rotten] {
        assert_eq!(storage.holds(body.id), Ok(true), "nobody has looked yet");
        assert_eq!(storage.body(&body.id), Err(ReadError::Damaged(body.id)));
        assert_eq!(storage.holds(body.id), Ok(false));
    }
    assert_eq!(storage.damaged(), [resolved.id, fresh.id, rotten.id]);
    assert_eq!(read_bodies(&storage, &[resolved.id]), Ok(vec![None]));
    assert!(storage.lacks(&proposal(&fresh)));

    let wrong = storage.replace(&proposal(&resolved), fresh.body.clone()).await;
    assert_eq!(wrong, Err(ReplaceError::BodyWrong(resolved.id)));
    let stranger = sealed(segment_id(1, 1, 9), b"x");
    let unknown = storage.replace(&proposal(&stranger), stranger.body.clone()).await;
    assert_eq!(unknown, Err(ReplaceError::NotHeld(stranger.id)));
    storage.replace(&proposal(&resolved), resolved.body.clone()).await.unwrap();
    // The unresolved one is repaired when its entry appends it again.
    storage.append(fresh.clone()).await.unwrap();
    assert_eq!(storage.damaged(), [rotten.id]);
    // Known damage does not block the order.
    index(&storage, vec![(order.segment(&fresh), None), (order.segment(&rotten), None)]).await;
    assert_eq!(storage.damaged(), [rotten.id]);
    storage.replace(&proposal(&rotten), rotten.body.clone()).await.unwrap();
    assert_eq!(storage.damaged(), []);
    for body in [resolved, fresh, rotten] {
        assert_eq!(open(&disk.cut_power()).body(&body.id), Ok(Some(body.body)));
    }
}

#[tokio::test(start_paused = true)]
async fn positions_are_found_among_the_slots() {
    let storage = open(&TestDisk::default());
    assert_eq!(storage.slot_of(Position(1)), Ok(None));
    let mut order = Order::default();
    let mut rows = Vec::new();
    let mut expected = Vec::new();
    for number in 0..20 {
        // Several slots begin at one position if entries open in between.
        for incarnation in 0..number % 3 {
            rows.push((order.opened(2, incarnation + 1), None));
        }
        let body = sealed(segment_id(1, 1, number), b"x");
        let row = order.segment(&body);
        expected.push(row.clone());
        rows.push((row, Some(body.body)));
    }
    rows.push((order.opened(3, 1), None));
    index(&storage, rows).await;
    assert_eq!(storage.slot_of(Position(0)), Ok(None));
    for row in expected {
        assert_eq!(storage.slot_of(row.base), Ok(Some(row)));
    }
    assert_eq!(storage.slot_of(order.base), Ok(None));
}

#[tokio::test(start_paused = true)]
async fn another_node_s_file_is_left_alone() {
    let disk = TestDisk::default();
    drop(open(&disk));
    let strangers = [
        Identity { node: NodeId(2), ..identity(1) },
        Identity { disk: DiskId(7), ..identity(1) },
        Identity { cluster: "other".into(), ..identity(1) },
    ];
    for stranger in strangers {
        let error = open_as(&disk.cut_power(), &stranger).unwrap_err();
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("its own data directory"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_can_not_be_read_is_told() {
    let disk = TestDisk::default();
    drop(open(&disk));
    let disk = disk.cut_power();
    let host = host(&disk, &TestNet::default());
    let database = host.disk.open_database(path()).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut fences = transaction.open_table(tables::FENCES).unwrap();
    fences.insert(3, [7; 15].as_slice()).unwrap();
    drop(fences);
    transaction.commit().unwrap();
    drop(database);
    let error = open_as(&disk, &identity(1)).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("the fence of entry 3 is damaged"), "{error}");
}

#[tokio::test]
async fn a_thread_of_its_own_commits_in_a_real_process() {
    let disk = TestDisk::default();
    let mut host = host(&disk, &TestNet::default());
    host.commits = CommitMode::Thread;
    let storage = testing::open(&host, &RecentBodies::new(limits::RECENT_BODIES));
    let appends = (0..50).map(|number| {
        let body = sealed(segment_id(1, 1, number), b"x");
        let storage = storage.clone();
        async move { storage.append(body).await.map(|appended| appended.vote.segment.number.0) }
    });
    let appended =
        tokio::time::timeout(Duration::from_secs(30), futures::future::join_all(appends));
    let numbers: Result<Vec<_>, _> = appended.await.unwrap().into_iter().collect();
    assert_eq!(numbers, Ok((0..50).collect()));
    assert_eq!(open(&disk.cut_power()).status().unwrap().unresolved, 50);
}

//! A replica on a storage that loses power: the view of subscribers, the storage and the node.

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::log::{log, Tail};
use crate::peer::StorageClient;
use crate::realm::Realms;
use crate::storage::testing::fold::{self, fold, Logged};
use crate::storage::testing::{self, host, TestDisk, TestNet, COMMIT};
use crate::storage::{Reads, Storage};

/// An order that shows a few rows at a time, up to some slot.
struct Shown {
    rows: Vec<Resolution>,
}

impl OrderFeed for Shown {
    fn follow(&self, from: Slot) -> BoxFuture<'_, Result<Followed, String>> {
        Box::pin(async move {
            let rows = self.rows.get(from.0 as usize - 1..).unwrap_or_default();
            if rows.is_empty() {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            Ok(Followed::Rows(rows.iter().take(3).cloned().collect()))
        })
    }
}

fn open(disk: &TestDisk) -> (Storage, RecentBodies) {
    let recent = RecentBodies::new(limits::RECENT_BODIES);
    let host = host(disk, &TestNet::default());
    (testing::open(&host, &recent), recent)
}

fn log_of(storage: &Storage, realms: &Realms) -> Log {
    let tail = Tail { next_slot: realms.next(), next_position: realms.view().position };
    log(tail, vec![Arc::new(StorageClient::local(storage.clone(), Reads::inline()))]).1
}

/// A replica's output for some slots.
struct Told {
    placed: mpsc::Receiver<Arc<Placed>>,
    notices: mpsc::Receiver<Vec<Notice>>,
}

impl Told {
    /// Compares it with the slots that the replica should cover, as far as it came.
    fn check(&mut self, log: &[Logged], from: Slot) {
        let (_, applied) = fold(log);
        let mut slots = log.iter().zip(applied).skip(from.0 as usize - 1);
        let mut expected = Vec::new();
        while let Ok(placed) = self.placed.try_recv() {
            let (logged, applied) = slots.next().unwrap();
            assert_eq!(placed.resolution, logged.row);
            assert_eq!(placed.hidden[..], applied.hidden[..]);
            let offsets = 0..logged.body.as_ref().map_or(0, |body| body.count);
            let hidden = offsets.filter(|offset| placed.is_hidden(*offset));
            assert_eq!(hidden.collect::<Vec<_>>(), applied.hidden);
            expected.push(applied.notices);
        }
        expected.retain(|notices| !notices.is_empty());
        let mut notices = Vec::new();
        while let Ok(notice) = self.notices.try_recv() {
            notices.push(notice);
        }
        assert_eq!(notices, expected);
    }
}

/// Runs a replica from its storage's last slot to the end of the shown order.
async fn run(disk: &TestDisk, log: &[Logged], shown: usize, time: Option<Duration>) -> TestDisk {
    let (storage, recent) = open(disk);
    let realms = storage.state::<Realms>().unwrap();
    let (from, tail) = (realms.next(), storage.tail());
    assert_eq!(from, tail.map_or(Slot(1), |row| row.slot.next()));
    let (placed, placing) = mpsc::channel(log.len());
    let (notices, noticing) = mpsc::channel(log.len());
    let realms_read = log_of(&storage, &realms);
    let shared = SharedRealms::new(realms);
    let replica = Replica {
        host: host(disk, &TestNet::default()),
        order: Arc::new(Shown { rows: log[..shown].iter().map(|l| l.row.clone()).collect() }),
        index: Some(Arc::new(storage.clone())),
        log: realms_read,
        recent,
        realms: shared.clone(),
        notices: Some(notices),
        placed,
        left_behind: watch::Sender::new(false),
        observers: Vec::new(),
    };
    let running = tokio::spawn(replica.run());
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => {
            let mut indexed = storage.indexed();
            indexed.wait_for(|slot| slot.0 == shown as u64).await.unwrap();
            let (expected, _) = fold(&log[..shown]);
            assert_eq!(shared.with(|realms| (realms.next(), realms.hash())), {
                (expected.next(), expected.hash())
            });
        }
    }
    running.abort();
    Told { placed: placing, notices: noticing }.check(log, from);
    disk.cut_power()
}

/// Everything that a reader of the log gets from the storage alone.
async fn replay(disk: &TestDisk, log: &[Logged]) {
    let (storage, _) = open(disk);
    let reader = log_of(&storage, &storage.state::<Realms>().unwrap());
    let (_, applied) = fold(log);
    let mut next = Slot(1);
    while next <= log.last().unwrap().row.slot {
        for placed in reader.read(next).await.unwrap() {
            let at = next.0 as usize - 1;
            assert_eq!(placed.resolution, log[at].row);
            assert_eq!(placed.hidden[..], applied[at].hidden[..]);
            next = next.next();
        }
    }
}

/// An order that shows one row every eight milliseconds.
struct Paced(Vec<Resolution>);

impl OrderFeed for Paced {
    fn follow(&self, from: Slot) -> BoxFuture<'_, Result<Followed, String>> {
        Box::pin(async move {
            match self.0.get(from.0 as usize - 1) {
                Some(row) => {
                    tokio::time::sleep(Duration::from_millis(8)).await;
                    Ok(Followed::Rows(vec![row.clone()]))
                }
                None => std::future::pending().await,
            }
        })
    }
}

/// An index that lacks no body, and records when it gets which slots.
struct Noting {
    begun: Instant,
    noted: Mutex<Vec<(u128, Vec<u64>)>>,
}

impl SlotIndex for Noting {
    fn lacks(&self, _: &SealedSegment) -> bool {
        false
    }

    fn comes(&self, _: &SealedSegment) -> bool {
        false
    }

    fn arrival<'a>(&'a self, _: &'a SealedSegment, _: Instant) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn fetched(&self, _: u64) {}

    fn index(&self, rows: Vec<IndexedRow>) -> BoxFuture<'_, Result<(), IndexFailure>> {
        let slots = rows.iter().map(|row| row.resolution.slot.0).collect();
        self.noted.lock().unwrap().push((self.begun.elapsed().as_millis(), slots));
        Box::pin(std::future::ready(Ok(())))
    }
}

#[tokio::test(start_paused = true)]
async fn rows_wait_for_more_but_not_long_and_not_where_they_fence() {
    let recent = RecentBodies::new(limits::RECENT_BODIES);
    let mut order = testing::Order::default();
    let mut rows = vec![order.opened(1, 1)];
    for number in 0..6 {
        let body = testing::sealed(testing::segment_id(1, 1, number), b"x");
        rows.push(order.segment(&body));
        recent.insert(body.id, body.body);
    }
    rows.push(order.opened(1, 2));
    let (placed, _placing) = mpsc::channel(10);
    let index = Arc::new(Noting { begun: Instant::now(), noted: Mutex::default() });
    let replica = Replica {
        host: host(&TestDisk::default(), &TestNet::default()),
        order: Arc::new(Paced(rows)),
        index: Some(index.clone()),
        log: log(Tail { next_slot: Slot(1), next_position: Position(1) }, Vec::new()).1,
        recent,
        realms: SharedRealms::new(Realms::default()),
        notices: None,
        placed,
        left_behind: watch::Sender::new(false),
        observers: Vec::new(),
    };
    let running = tokio::spawn(replica.run());
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.abort();
    let noted = index.noted.lock().unwrap().clone();
    let expected = [(8, vec![1]), (36, vec![2, 3, 4]), (60, vec![5, 6, 7]), (64, vec![8])];
    assert_eq!(noted, expected);
}

#[tokio::test(start_paused = true)]
async fn a_replica_ends_where_all_others_have_released_what_it_needs() {
    let log = fold::log(&[1, 6, 9, 14, 6, 1, 6]);
    let (other_disk, disk) = (TestDisk::default(), TestDisk::default());
    let append = |disk: &TestDisk, log: Vec<Logged>| {
        let (storage, _) = open(disk);
        async move {
            for body in log.into_iter().filter_map(|logged| logged.body) {
                storage.append(body).await.unwrap();
            }
        }
    };
    append(&other_disk, log.clone()).await;
    let other_disk = run(&other_disk.cut_power(), &log, log.len(), None).await;
    let (other, _) = open(&other_disk);
    other.release(Slot(6)).await.unwrap();
    for (has, left_behind) in [(2, true), (5, false)] {
        let disk = disk.cut_power();
        append(&disk, log[..has].to_vec()).await;
        let disk = run(&disk.cut_power(), &log, has, None).await;
        let (storage, recent) = open(&disk);
        let realms = storage.state::<Realms>().unwrap();
        let tail = Tail { next_slot: realms.next(), next_position: realms.view().position };
        let client =
            |storage: &Storage| Arc::new(StorageClient::local(storage.clone(), Reads::inline()));
        let sources: Vec<Arc<dyn crate::log::Source>> = vec![client(&storage), client(&other)];
        let (placed, _placing) = mpsc::channel(log.len());
        let behind = watch::Sender::new(false);
        let replica = Replica {
            host: host(&disk, &TestNet::default()),
            order: Arc::new(Shown { rows: log.iter().map(|l| l.row.clone()).collect() }),
            index: Some(Arc::new(storage.clone())),
            log: crate::log::log(tail, sources).1,
            recent,
            realms: SharedRealms::new(realms),
            notices: None,
            placed,
            left_behind: behind.clone(),
            observers: Vec::new(),
        };
        let _ = tokio::time::timeout(Duration::from_secs(3), replica.run()).await;
        assert_eq!(*behind.borrow(), left_behind, "with {has} slots");
        let end = if left_behind { has } else { log.len() };
        assert_eq!(storage.tail().map(|row| row.slot), Some(Slot(end as u64)));
    }
}

async fn story(log: &[Logged], lives: &[(usize, u32)]) {
    let mut disk = TestDisk::default();
    let (storage, _) = open(&disk);
    for body in log.iter().filter_map(|logged| logged.body.clone()) {
        storage.append(body).await.unwrap();
    }
    disk = disk.cut_power();
    let mut shown = 0;
    for (more, tenths) in lives {
        shown = (shown + more).min(log.len());
        disk = run(&disk, log, shown, Some(COMMIT * *tenths / 10)).await;
    }
    disk = run(&disk, log, log.len(), None).await;
    replay(&disk, log).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_replica_goes_on_from_the_rows_of_its_storage(
        doings in prop::collection::vec(any::<u8>(), 1..60),
        lives in prop::collection::vec((1..30usize, 0..2000u32), 0..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(story(&fold::log(&doings), &lives));
    }
}

/// Sessions that send commands without end do not hold up the log.
#[tokio::test]
async fn a_flood_of_commands_does_not_hold_up_the_log() {
    let row = fold::log(&[0]).remove(0).row;
    let tail = Tail { next_slot: row.slot, next_position: row.base };
    let (log_tail, log) = log(tail, Vec::new());
    let (placed, placing) = mpsc::channel(1);
    let (commands, commanded) = mpsc::channel(limits::DISPATCH_COMMANDS);
    let dispatching =
        tokio::spawn(dispatch(Dispatcher::new(row.slot), log_tail, placing, commanded));
    let flooding = tokio::spawn(async move {
        loop {
            while commands.try_send(Command::Remove(SessionId(1))).is_ok() {}
            tokio::task::yield_now().await;
        }
    });
    tokio::task::yield_now().await;
    let slot = row.slot;
    let next = Placed { resolution: row, segment: None, hidden: Box::default() };
    placed.send(Arc::new(next)).await.unwrap();
    let reached = tokio::time::timeout(Duration::from_secs(5), log.reached(slot)).await;
    flooding.abort();
    dispatching.abort();
    reached.expect("the log goes on");
}

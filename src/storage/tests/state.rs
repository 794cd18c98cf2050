//! The realms' state on disk is the one after the last row, whenever the power is cut.

use proptest::prelude::*;

use super::super::testing::fold::{fold, log, Logged};
use super::super::testing::{event, sealed_of, segment_id, Order, TestDisk, COMMIT};
use super::super::*;
use super::{index, open};
use crate::realm::Realms;
use crate::segment::Segment;
use crate::types::act::{Act, Join};
use crate::types::event::{Event, SessionId};
use crate::types::row::Change;

/// A row with these changes of the state and these hidden events.
fn row(order: &mut Order, changes: Vec<Change>, hidden: Vec<u32>) -> IndexedRow {
    let resolution = order.opened(1, order.slot.0);
    IndexedRow { resolution, body: None, hidden, changes }
}

fn put(key: &[u8], value: &[u8]) -> Change {
    let value = Some(Bytes::copy_from_slice(value));
    Change { key: Bytes::copy_from_slice(key), value }
}

async fn indexed(storage: &Storage, rows: Vec<IndexedRow>) {
    let last = rows.last().unwrap().resolution.slot;
    storage.index(rows).await.unwrap();
    storage.indexed().wait_for(|slot| *slot >= last).await.unwrap();
}

/// Checks that a storage has exactly the state after its last row, and returns it.
fn check(storage: &Storage, log: &[Logged]) -> Realms {
    let rows = storage.tail().map_or(0, |tail| tail.slot.0 as usize);
    let (expected, applied) = fold(&log[..rows]);
    let found = storage.state::<Realms>().unwrap();
    assert_eq!((found.next(), found.hash()), (expected.next(), expected.hash()));
    let stored = storage.rows_and_hidden(Slot(1), usize::MAX).unwrap();
    assert_eq!(stored.rows, log[..rows].iter().map(|l| l.row.clone()).collect::<Vec<_>>());
    let hidden = (1..).map(Slot).zip(applied).map(|(slot, applied)| (slot, applied.hidden));
    let hidden: Vec<_> = hidden.filter(|(_, hidden)| !hidden.is_empty()).collect();
    assert_eq!(stored.hidden, hidden);
    found
}

/// Folds a log into a storage with occasional power cuts, a batch of rows and some tenths of a commit at a time.
async fn survive(log: &[Logged], cuts: &[(usize, u32, bool)]) {
    let mut disk = TestDisk::default();
    let mut storage = open(&disk);
    let mut realms = storage.state::<Realms>().unwrap();
    let mut cuts = cuts.iter().cycle();
    while let Some(rest) = log.get(realms.next().0 as usize - 1..).filter(|rest| !rest.is_empty()) {
        let (rows, tenths, cut) = *cuts.next().unwrap();
        let rows = rest.iter().take(rows).map(|logged| logged.apply(&mut realms).0);
        storage.index(rows.collect()).await.unwrap();
        tokio::time::sleep(COMMIT * tenths / 10).await;
        if cut {
            disk = disk.cut_power();
            storage = open(&disk);
            realms = check(&storage, log);
        }
    }
    let last = log.last().unwrap().row.slot;
    storage.indexed().wait_for(|slot| *slot == last).await.unwrap();
    assert_eq!(check(&open(&disk.cut_power()), log).hash(), realms.hash());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_state_on_disk_is_that_behind_the_last_row(
        doings in prop::collection::vec(any::<u8>(), 1..80),
        // The last one always lets rows become durable, so that a run ends.
        mut cuts in prop::collection::vec((1..9usize, 0..1500u32, any::<bool>()), 1..8),
    ) {
        cuts.push((5, 1000, true));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(survive(&log(&doings), &cuts));
    }
}

#[tokio::test(start_paused = true)]
async fn rows_of_the_state_are_written_over_and_removed() {
    let disk = TestDisk::default();
    let storage = open(&disk);
    let mut order = Order::default();
    let gone = Change { key: Bytes::from_static(b"b"), value: None };
    let rows = vec![
        row(&mut order, vec![put(b"a", b"1"), put(b"b", b"2")], vec![]),
        row(&mut order, vec![put(b"a", b"3"), gone.clone()], vec![0, 300]),
        row(&mut order, vec![gone], vec![]),
    ];
    indexed(&storage, rows).await;
    let storage = open(&disk.cut_power());
    let page = storage.snapshot().unwrap().next_page().unwrap();
    let appended = (Bytes::from_static(b"a"), Bytes::from_static(b"3"));
    assert_eq!(page, StatePage { rows: vec![appended], last: true });
    let stored = storage.rows_and_hidden(Slot(2), 9).unwrap();
    assert_eq!((stored.rows.len(), stored.hidden), (2, vec![(Slot(2), vec![0, 300])]));
    assert_eq!(
        storage.state::<Realms>().unwrap_err(),
        ReadError::DamagedState,
        "these are no real rows"
    );
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_of_one_moment_and_comes_in_pages() {
    let storage = open(&TestDisk::default());
    let mut order = Order::default();
    let value = vec![7; 1_000_000];
    let keys: Vec<[u8; 1]> = (0..10).map(|key| [key]).collect();
    let changes = keys.iter().map(|key| put(key, &value)).collect();
    let mut later: Vec<_> = keys.iter().map(|key| put(key, b"later")).collect();
    later.push(put(b"zz", b"later"));
    indexed(&storage, vec![row(&mut order, changes, vec![])]).await;
    let mut snapshot = storage.snapshot().unwrap();
    let mut found = Vec::new();
    for pages in 1.. {
        let page = snapshot.next_page().unwrap();
        let bytes: usize = page.rows.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(bytes <= limits::READ_BYTES);
        found.extend(page.rows);
        if page.last {
            assert_eq!(pages, 3);
            break;
        }
        if pages == 1 {
            indexed(&storage, vec![row(&mut order, later.clone(), vec![])]).await;
        }
    }
    assert_eq!(snapshot.tail().unwrap().slot, Slot(1));
    let expected = keys.iter().map(|key| (Bytes::copy_from_slice(key), Bytes::from(value.clone())));
    assert_eq!(found, expected.collect::<Vec<_>>());
    let page = storage.snapshot().unwrap().next_page().unwrap();
    assert_eq!((page.rows.len(), page.last), (11, true));
}

#[tokio::test(start_paused = true)]
async fn rows_with_much_hidden_come_in_several_reads() {
    let storage = open(&TestDisk::default());
    let mut order = Order::default();
    let hidden: Vec<u32> = (0..limits::SEGMENT_EVENTS as u32).collect();
    let rows = (0..40).map(|_| row(&mut order, vec![], hidden.clone())).collect();
    indexed(&storage, rows).await;
    let (mut next, mut reads) = (Slot(1), 0);
    while next <= Slot(40) {
        let stored = storage.rows_and_hidden(next, usize::MAX).unwrap();
        assert_eq!(stored.rows[0].slot, next);
        assert!(stored.rows.iter().map(|row| row.slot).eq(stored.hidden.iter().map(|(s, _)| *s)));
        next = stored.rows.last().unwrap().slot.next();
        reads += 1;
    }
    assert_eq!(reads, 2);
}

#[tokio::test(start_paused = true)]
async fn snapshots_have_a_limit() {
    let storage = open(&TestDisk::default());
    index(&storage, vec![(Order::default().opened(1, 1), None)]).await;
    let mut lent: Vec<_> = (0..STATE_SNAPSHOTS).map(|_| storage.snapshot().unwrap()).collect();
    assert_eq!(storage.snapshot().unwrap_err(), ReadError::Busy);
    assert!(storage.state::<Realms>().is_ok(), "a node's own start waits for nobody");
    lent.pop();
    assert!(storage.snapshot().is_ok());
    storage.close().await;
    assert!(matches!(storage.state::<Realms>(), Err(ReadError::Disk(_))));
}

#[test]
fn golden_bytes_of_state_and_hidden() {
    assert_eq!(vulpes_raft::net::wire::encode(&vec![0u32, 300]), [2, 0, 251, 44, 1]);
    let mut order = Order::default();
    let mut realms = Realms::default();
    let mut take = |row: Resolution, events: &[Event], number| {
        let body = (!events.is_empty()).then(|| sealed_of(segment_id(1, 1, number), events));
        let body = body.map(|body| Segment::parse(body.body).unwrap());
        realms.apply(&row, body.as_ref()).changes
    };
    let of = |key: &[u8], value: &[u8]| vec![put(key, value)];
    assert_eq!(take(order.opened(1, 1), &[], 0), of(&[0, 1], &[1]));
    let set = Event { retain: true, ..event("t", b"v") };
    let body = sealed_of(segment_id(1, 1, 0), std::slice::from_ref(&set));
    let stamp = [253, 64, 190, 89, 4, 162, 1, 0, 0];
    let mut expected = vec![1, 2];
    expected.extend_from_slice(&stamp);
    expected.extend_from_slice(&[0, 1, 0, 1, 0, 1, b'v', 0, 0, 0, 0]);
    let key = [2, 5, b'r', b'e', b'a', b'l', b'm', 1, b't'];
    assert_eq!(take(order.segment(&body), &[set], 0), of(&key, &expected));
    let join = Act::Join(Join { details: "{}".into(), ..Join::default() });
    let join = Event { publisher: SessionId(9), act: join.encode(), ..event("s", b"") };
    let body = sealed_of(segment_id(1, 1, 1), std::slice::from_ref(&join));
    let value = [5, b'r', b'e', b'a', b'l', b'm', 1, 1, 0, 0, 2, b'{', b'}'];
    assert_eq!(take(order.segment(&body), &[join], 1), of(&[1, 9], &value));
}

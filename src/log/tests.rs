//! Reading a log that is only partly retained.

use vulpes_raft::ids::{EventId, Shards, Stamp};

use super::*;
use crate::peer::StorageClient;
use crate::recent::RecentBodies;
use crate::segment::SealedBody;
use crate::storage::testing::{self, host, plain, sealed, segment_id, Order, TestDisk, TestNet};
use crate::storage::{Reads, Storage};

const STAMP: Stamp = Stamp(1_795_369_320_000);

/// A storage with an opening and nine events, one per slot, so position 1 is at slot 2.
async fn storage() -> (Storage, Tail) {
    let host = host(&TestDisk::default(), &TestNet::default());
    let storage = testing::open(&host, &RecentBodies::new(limits::RECENT_BODIES));
    let mut order = Order::default();
    let mut rows = vec![(order.opened(1, 1), None)];
    for number in 0..9 {
        let body = sealed(segment_id(1, 1, number), b"x");
        rows.push((order.segment(&body), Some(body.body)));
    }
    storage.index(plain(rows)).await.unwrap();
    storage.indexed().wait_for(|slot| *slot == Slot(10)).await.unwrap();
    (storage, Tail { next_slot: order.slot, next_position: order.base })
}

fn event(slot: u64) -> After {
    After::Event(EventId::new(STAMP, Slot(slot), 0))
}

#[tokio::test(start_paused = true)]
async fn places_before_the_head_are_refused_by_name() {
    let (storage, tail) = storage().await;
    let (_tail, log) =
        log(tail, vec![Arc::new(StorageClient::local(storage.clone(), Reads::inline()))]);
    let begin = |slot, position| Ok(Start { slot: Slot(slot), position: Position(position) });
    let at = |position| After::Position(Position(position));
    assert_eq!(log.start_after(at(0)).await, begin(1, 1));
    assert_eq!(log.start_after(at(1)).await, begin(2, 2));

    // Whether the storage has deleted it yet makes no difference.
    log.release(Head { slot: Slot(6), position: Position(5) });
    let gone = Err(SubscribeError::Gone { oldest: Position(5) });
    for _ in 0..2 {
        assert_eq!(log.start_after(at(0)).await, begin(6, 5));
        assert_eq!(log.start_after(at(4)).await, begin(6, 5));
        assert_eq!(log.start_after(at(5)).await, begin(6, 6));
        assert_eq!(log.start_after(event(6)).await, begin(6, 6));
        for place in [at(3), at(1), event(5), event(2)] {
            assert_eq!(log.start_after(place).await, gone, "{place:?}");
        }
        let oldest = Slot(6);
        assert_eq!(log.read(Slot(5)).await.unwrap_err(), ReadError::Gone { oldest });
        assert_eq!(log.read(oldest).await.unwrap().len(), 5);
        storage.release(oldest).await.unwrap();
    }
    // The head never moves back.
    log.release(Head::default());
    assert_eq!(log.head().slot, Slot(6));
}

/// A storage whose group holds half of the shards, with all rows and its own bodies.
async fn half(part: u32, bodies: &[SealedBody]) -> Storage {
    let host = host(&TestDisk::default(), &TestNet::default());
    let (shards, recent) = (Shards::part(part, 2), RecentBodies::new(0));
    let storage = testing::open_part(&host, &testing::identity(1), shards, &recent).unwrap();
    let mut order = Order::default();
    let row = |body: &SealedBody| {
        let own = shards.contains(body.shard).then(|| body.body.clone());
        (order.segment(body), own)
    };
    storage.index(plain(bodies.iter().map(row).collect())).await.unwrap();
    let last = Slot(bodies.len() as u64);
    storage.indexed().wait_for(|slot| *slot == last).await.unwrap();
    storage
}

#[tokio::test(start_paused = true)]
async fn each_storage_group_is_asked_for_its_own_bodies() {
    let body = |number: u64| {
        let shard = Shards::part(number as u32 % 3 % 2, 2).first();
        let payload = number.to_string();
        testing::sealed_in(
            segment_id(1, 1, number),
            shard,
            &[testing::event("a", payload.as_bytes())],
        )
    };
    let bodies: Vec<_> = (0..30).map(body).collect();
    let (one, two) = (half(0, &bodies).await, half(1, &bodies).await);
    let client = |storage: &Storage| {
        Arc::new(StorageClient::local(storage.clone(), Reads::inline())) as Arc<dyn Source>
    };
    let tail = Tail { next_slot: Slot(31), next_position: Position(31) };
    for sources in [vec![client(&one), client(&two)], vec![client(&two), client(&one)]] {
        let (_tail, log) = log(tail, sources);
        let wanted: Vec<_> = bodies.iter().map(testing::proposal).collect();
        let found = log.bodies(&wanted).await.unwrap();
        let names: Vec<_> = found.iter().map(Segment::id).collect();
        assert_eq!(names, wanted.iter().map(|sealed| sealed.id).collect::<Vec<_>>());
        assert_eq!(log.read(Slot(1)).await.unwrap().len(), 30);
    }
    // A run ends before the first body that no storage has.
    let (_tail, log) = log(tail, vec![client(&one)]);
    let wanted: Vec<_> = bodies.iter().map(testing::proposal).collect();
    assert_eq!(log.bodies(&wanted).await.unwrap().len(), 1);
    assert!(matches!(log.bodies(&wanted[1..]).await, Err(ReadError::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_lacks_what_is_kept_is_passed_over() {
    let (whole, tail) = storage().await;
    let (filling, _) = storage().await;
    filling.release(Slot(8)).await.unwrap();
    let client =
        |storage: &Storage| Arc::new(StorageClient::local(storage.clone(), Reads::inline()));
    let (_tail, alone) = log(tail, vec![client(&filling)]);
    assert!(matches!(alone.read(Slot(3)).await, Err(ReadError::Unavailable(_))));
    assert!(alone.is_released(Slot(7)).await && !alone.is_released(Slot(8)).await);
    let (_tail, both) = log(tail, vec![client(&filling), client(&whole)]);
    assert_eq!(both.read(Slot(3)).await.unwrap().len(), 8);
}

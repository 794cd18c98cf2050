//! A storage in one of several groups: it has all rows, and the bodies of its own shards.

use super::*;

/// The first or the second half of all shards.
fn half(part: u32) -> Shards {
    Shards::part(part, 2)
}

fn open_half(disk: &TestDisk) -> Storage {
    let host = host(disk, &TestNet::default());
    let recent = RecentBodies::new(limits::RECENT_BODIES);
    testing::open_part(&host, &identity(1), half(0), &recent).unwrap()
}

/// Six segments, alternately of the storage's own group and of the other one.
fn bodies() -> Vec<SealedBody> {
    let body = |number| {
        let shard = half(number as u32 % 2).first();
        testing::sealed_in(segment_id(1, 1, number), shard, &[testing::event("a", b"x")])
    };
    (0..6).map(body).collect()
}

#[tokio::test(start_paused = true)]
async fn all_rows_are_kept_and_only_the_bodies_of_the_own_shards() {
    let disk = TestDisk::default();
    let storage = open_half(&disk);
    let bodies = bodies();
    let mut order = Order::default();
    let rows: Vec<_> = bodies.iter().map(|body| order.segment(body)).collect();
    storage.append(bodies[0].clone()).await.unwrap();
    let lacked = bodies.iter().map(|body| storage.lacks(&proposal(body)));
    assert_eq!(lacked.collect::<Vec<_>>(), [false, false, true, false, true, false]);

    let bare = |at: usize| (rows[at].clone(), None);
    let with_body = |at: usize| (rows[at].clone(), Some(bodies[at].body.clone()));
    index(&storage, vec![bare(0), bare(1)]).await;
    let missing = IndexError::BodyMissing { slot: rows[2].slot, segment: bodies[2].id };
    assert_eq!(storage.index(plain(vec![bare(2), bare(3)])).await, Err(missing));
    index(&storage, vec![with_body(2), bare(3), with_body(4), bare(5)]).await;

    for storage in [storage, open_half(&disk.cut_power())] {
        assert_eq!(storage.rows(Slot(1), 10), Ok(rows.clone()));
        let held = bodies.iter().map(|body| storage.holds(body.id).unwrap());
        assert_eq!(held.collect::<Vec<_>>(), [true, false, true, false, true, false]);
        assert_eq!(storage.status().unwrap().bodies, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_voted_for_stays_whatever_the_group() {
    let disk = TestDisk::default();
    let storage = open_half(&disk);
    let bodies = bodies();
    storage.append(bodies[1].clone()).await.unwrap();
    let mut order = Order::default();
    let rows = vec![
        (order.segment(&bodies[0]), Some(bodies[0].body.clone())),
        (order.segment(&bodies[1]), None),
    ];
    index(&storage, rows).await;
    let storage = open_half(&disk.cut_power());
    assert_eq!(storage.body(&bodies[1].id), Ok(Some(bodies[1].body.clone())));
}

#[tokio::test(start_paused = true)]
async fn the_ends_move_without_the_bodies_of_others() {
    let disk = TestDisk::default();
    let storage = open_half(&disk);
    let bodies = bodies();
    let mut order = Order::default();
    let rows: Vec<_> = bodies.iter().map(|body| order.segment(body)).collect();
    let adopted = testing::plain(vec![(rows[5].clone(), None)]).remove(0);
    storage.adopt(adopted, &[(NodeId(1), Incarnation(1))]).await.unwrap();
    let bare = |at: usize| (rows[at].clone(), None);
    let missing = storage.fill(plain(vec![bare(4)])).await;
    assert!(matches!(missing, Err(ReleaseError::Rows(IndexError::BodyMissing { .. }))));
    let with_body = (rows[4].clone(), Some(bodies[4].body.clone()));
    storage.fill(plain(vec![bare(3), with_body])).await.unwrap();
    assert_eq!((storage.oldest(), storage.status().unwrap().bodies), (Ok(Slot(4)), 1));
    storage.release(Slot(6)).await.unwrap();
    assert_eq!((storage.oldest(), storage.status().unwrap().bodies), (Ok(Slot(6)), 0));
}

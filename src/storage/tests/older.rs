//! A data directory of an older release: it opens with its contents, and is written to.

use redb::TableDefinition;
use vulpes_raft::format::OLDEST_LOG_FORMAT;

use super::super::testing::{event, host, sealed_of, segment_id, Order, TestDisk, TestNet};
use super::super::*;
use super::{append_all, open, path};
use crate::realm::Realms;
use crate::segment::{checksum, SealedBody, Segment};
use crate::types::event::{Event, Extensions, Field, Tag};

/// The same body as the older release sealed it.
fn older(sealed: SealedBody) -> SealedBody {
    let body: Bytes = [b"VSG2", &sealed.body[4..]].concat().into();
    SealedBody { checksum: checksum(&body), body, ..sealed }
}

fn retained(topic: &str, payload: &[u8]) -> Event {
    Event { retain: true, ..event(topic, payload) }
}

/// Takes the next slot, with its body if it has one.
async fn take(
    storage: &Storage,
    realms: &mut Realms,
    (resolution, sealed): (Resolution, Option<&SealedBody>),
) {
    append_all(storage, sealed.map_or(&[], std::slice::from_ref)).await;
    let segment = sealed.map(|sealed| Segment::parse(sealed.body.clone()).unwrap());
    let applied = realms.apply(&resolution, segment.as_ref());
    let (slot, hidden, changes) = (resolution.slot, applied.hidden, applied.changes);
    storage.index(vec![IndexedRow { resolution, body: None, hidden, changes }]).await.unwrap();
    storage.indexed().wait_for(|indexed| *indexed >= slot).await.unwrap();
}

/// Marks a node's file as written by the older release.
fn make_older(disk: &TestDisk) {
    let database = host(disk, &TestNet::default()).disk.open_database(path()).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = TableDefinition::<&str, &[u8]>::new("meta");
    let format = OLDEST_LOG_FORMAT.to_le_bytes();
    transaction.open_table(meta).unwrap().insert("format", format.as_slice()).unwrap();
    transaction.commit().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_folder_of_the_older_format_is_read_and_written_on() {
    let disk = TestDisk::default();
    let storage = open(&disk);
    let (mut order, mut realms) = (Order::default(), Realms::default());
    take(&storage, &mut realms, (order.opened(1, 1), None)).await;
    let first = older(sealed_of(segment_id(1, 1, 0), &[retained("a", b"1"), event("b", b"2")]));
    take(&storage, &mut realms, (order.segment(&first), Some(&first))).await;
    let waiting = older(sealed_of(segment_id(1, 1, 1), &[retained("c", b"3")]));
    append_all(&storage, std::slice::from_ref(&waiting)).await;
    let disk = disk.cut_power();
    make_older(&disk);

    let storage = open(&disk);
    let mut realms = check(&storage, &realms);
    assert_eq!(storage.body(&first.id), Ok(Some(first.body.clone())));
    // Bodies that were not in the order yet are ordered now, and new segments follow.
    take(&storage, &mut realms, (order.segment(&waiting), Some(&waiting))).await;
    let fields = [Field { tag: Tag(9_999), value: b"x" }];
    let extensions = Extensions::new(&fields).unwrap();
    let newer = Event { extensions: extensions.clone(), ..retained("d", b"4") };
    let newer = sealed_of(segment_id(1, 1, 2), &[newer]);
    take(&storage, &mut realms, (order.segment(&newer), Some(&newer))).await;

    let storage = open(&disk.cut_power());
    check(&storage, &realms);
    let read = |sealed: &SealedBody| {
        let body = storage.body(&sealed.id).unwrap().unwrap();
        assert_eq!(body, sealed.body, "bodies stay as they were voted for");
        Segment::parse(body).unwrap()
    };
    assert_eq!(read(&first).count() + read(&waiting).count(), 3);
    let events: Vec<_> = read(&newer).events().collect();
    assert_eq!(events[0].extensions, extensions);
}

/// Checks that a storage has just this state, and gives it.
fn check(storage: &Storage, expected: &Realms) -> Realms {
    let found = storage.state::<Realms>().unwrap();
    assert_eq!((found.next(), found.hash()), (expected.next(), expected.hash()));
    found
}

//! Two nodes over connections in memory: votes, reads, broken connections, and peers that misbehave.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use vulpes_raft::host::{BoxStream, Net};
use vulpes_raft::ids::Shards;
use vulpes_raft::net::wire::{self as link, Link, Service};

use super::wire::Call;
use super::*;
use crate::realm::Realms;
use crate::recent::RecentBodies;
use crate::storage::testing::fold::Logged;
use crate::storage::testing::{
    self, event, host, identity, sealed, sealed_of, segment_id, Order, TestDisk, TestNet, COMMIT,
};
use crate::storage::{Reads, StatePage, STATE_SNAPSHOTS};
use crate::types::event::Event;
use crate::types::row::IndexedRow;

const ADDRESS: &str = "storage:1";

/// The entry, node 2, and the storage, node 1.
struct Two {
    net: TestNet,
    storage: Storage,
    server: AbortHandle,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Two {
    async fn new() -> Self {
        let net = TestNet::default();
        let recent = RecentBodies::new(limits::RECENT_BODIES);
        let host = host(&TestDisk::default(), &net);
        let storage = testing::open(&host, &recent);
        let connections = Arc::default();
        let server = listen(&net, &storage, &connections).await;
        Self { net, storage, server, connections }
    }

    fn client(&self, disk: Option<DiskId>) -> StorageClient {
        let host = host(&TestDisk::default(), &self.net);
        StorageClient::remote(&host, &identity(2), (NodeId(1), Shards::ALL), ADDRESS, disk)
    }

    /// Dials as the entry does, to send messages that an entry would not send.
    async fn dial(&self, service: Service) -> BoxStream {
        let host = host(&TestDisk::default(), &self.net);
        let expected = (NodeId(1), None);
        link::dial(&host, &identity(2), ADDRESS, service, expected).await.unwrap().stream
    }

    fn dialled(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    fn break_connections(&self) {
        self.connections.lock().unwrap().iter().for_each(AbortHandle::abort);
    }
}

async fn listen(
    net: &TestNet,
    storage: &Storage,
    connections: &Arc<Mutex<Vec<AbortHandle>>>,
) -> AbortHandle {
    let mut listener = net.listen(ADDRESS).await.unwrap();
    let (storage, connections) = (storage.clone(), connections.clone());
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let storage = storage.clone();
            let connection = tokio::spawn(async move {
                let Ok(link) = link::welcome(stream, &identity(1), |_, _| Ok(())).await else {
                    return;
                };
                match link.service {
                    Service::Append => serve_append(link, storage).await,
                    _ => serve_fetch(link, storage, Reads::inline()).await,
                }
            });
            connections.lock().unwrap().push(connection.abort_handle());
        }
    });
    server.abort_handle()
}

fn body(number: u64) -> SealedBody {
    sealed(segment_id(2, 1, number), b"x")
}

#[tokio::test(start_paused = true)]
async fn keeps_share_a_connection_and_a_commit() {
    let two = Two::new().await;
    let client = two.client(Some(identity(1).disk));
    assert_eq!(client.storage(), NodeId(1));
    assert_eq!(client.begin(NodeId(2), Incarnation(1)).await, Ok(limits::STORAGE_CREDIT));
    let start = Instant::now();
    let appended =
        futures::future::join_all((0..40).map(|number| client.append(body(number)))).await;
    for (number, appended) in appended.into_iter().enumerate() {
        let vote = appended.unwrap().vote;
        assert_eq!((vote.storage, vote.segment), (NodeId(1), body(number as u64).id));
    }
    assert!(start.elapsed() < COMMIT * 10, "{:?}", start.elapsed());
    assert_eq!(two.dialled(), 1);
    let conflict = client.append(sealed(body(0).id, b"other")).await;
    assert_eq!(conflict, Err(AppendError::Conflict(body(0).id)));
    assert_eq!(
        StorageClient::local(two.storage.clone(), Reads::inline())
            .append(body(0))
            .await
            .map(|_| ()),
        Ok(())
    );
}

#[tokio::test(start_paused = true)]
async fn an_entry_speaks_for_itself() {
    let two = Two::new().await;
    let client = two.client(None);
    let stranger = client.append(sealed(segment_id(3, 1, 0), b"x")).await;
    assert!(matches!(stranger, Err(AppendError::Damaged(_))), "{stranger:?}");
    let stranger = client.begin(NodeId(3), Incarnation(1)).await;
    assert!(matches!(stranger, Err(AppendError::Damaged(_))), "{stranger:?}");
    assert_eq!(two.storage.status().unwrap().bodies, 0);
}

#[tokio::test(start_paused = true)]
async fn here_and_there_read_the_same() {
    let two = Two::new().await;
    let large = vec![7; 900_000];
    let bodies: Vec<_> = (0..8).map(|number| sealed(segment_id(2, 1, number), &large)).collect();
    let mut order = Order::default();
    let row = |body: &SealedBody| IndexedRow::plain(order.segment(body), Some(body.body.clone()));
    let mut rows: Vec<_> = bodies.iter().map(row).collect();
    rows[3].hidden = vec![0];
    let resolutions: Vec<_> = rows.iter().map(|row| row.resolution.clone()).collect();
    two.storage.index(rows).await.unwrap();
    two.storage.indexed().wait_for(|slot| *slot == Slot(8)).await.unwrap();

    for client in [two.client(None), StorageClient::local(two.storage.clone(), Reads::inline())] {
        let mut wanted = vec![segment_id(2, 9, 9)];
        wanted.extend(bodies.iter().map(|body| body.id));
        let found = client.bodies(wanted).await.unwrap();
        let prefix: Vec<_> = [None]
            .into_iter()
            .chain(bodies.iter().map(|body| Some(body.body.clone())))
            .take(found.len())
            .collect();
        assert_eq!(found, prefix);
        assert!((2..8).contains(&found.len()), "an answer has a limit");

        let found = client.rows(Slot(3), 2).await.unwrap();
        let rows = resolutions[2..4].to_vec();
        let hidden = vec![(Slot(4), vec![0])];
        assert_eq!(found, Rows { rows, oldest: Slot(1), indexed: Slot(8), hidden });
        assert_eq!(client.rows(Slot(9), 2).await.unwrap().rows, []);
        assert_eq!(client.slot_of(Position(5)).await, Ok(Some(resolutions[4].clone())));
        assert_eq!(client.slot_of(Position(9)).await, Ok(None));
        assert_eq!(client.status().await, Ok(two.storage.status().unwrap()));

        let source: &dyn Source = &client;
        assert_eq!(source.rows(Slot(8), 9).await.unwrap().rows, resolutions[7..]);
        assert_eq!(source.row_of(Position(1)).await, Ok(Some(resolutions[0].clone())));

        let tail = log::Tail { next_slot: Slot(9), next_position: Position(9) };
        let (_, log) = log::log(tail, vec![Arc::new(client)]);
        let mut next = Slot(1);
        while next < Slot(9) {
            for placed in log.read(next).await.unwrap() {
                assert_eq!(placed.resolution.slot, next);
                assert_eq!(placed.is_hidden(0), next == Slot(4));
                assert!(!placed.is_hidden(1));
                next = next.next();
            }
        }
    }
}

/// A storage whose state takes several pages.
async fn with_state(two: &Two) -> Realms {
    let mut realms = Realms::default();
    let mut order = Order::default();
    let mut rows = Vec::new();
    for number in 0..10 {
        let topic = format!("t/{number}");
        let event = Event { retain: true, ..event(&topic, &vec![7; 900_000]) };
        let body = sealed_of(segment_id(2, 1, number), &[event]);
        let logged = Logged { row: order.segment(&body), body: Some(body) };
        rows.push(logged.apply(&mut realms).0);
    }
    two.storage.index(rows).await.unwrap();
    two.storage.indexed().wait_for(|slot| *slot == Slot(10)).await.unwrap();
    realms
}

#[tokio::test(start_paused = true)]
async fn the_state_comes_over_in_pages() {
    let two = Two::new().await;
    let nothing = two.client(None).state::<Realms>().await.unwrap();
    assert_eq!((nothing.next(), nothing.hash()), (Slot(1), Realms::default().hash()));
    let realms = with_state(&two).await;
    let remote = two.client(None);
    let (first, second) = futures::join!(remote.state::<Realms>(), remote.state::<Realms>());
    let local = StorageClient::local(two.storage.clone(), Reads::inline()).state::<Realms>().await;
    for found in [first, second, local] {
        let found = found.unwrap();
        assert_eq!((found.next(), found.hash()), (realms.next(), realms.hash()));
        assert_eq!(found.view().position, realms.view().position);
        assert_eq!(found.retained(), 10);
    }
}

fn fetch(client: &StorageClient) -> &Connector<FetchRequest, FetchAnswer> {
    match &client.place {
        Where::There(remote) => &remote.fetch,
        Where::Here(..) => panic!("it is on another node"),
    }
}

async fn begin_state(client: &StorageClient) -> Result<StateHead, ReadError> {
    match fetch(client).call(FetchRequest::StateBegin).await.unwrap() {
        FetchAnswer::StateBegin(head) => head,
        other => panic!("{other:?}"),
    }
}

async fn next_state(client: &StorageClient, id: u64) -> Result<StatePage, ReadError> {
    match fetch(client).call(FetchRequest::StateNext { id }).await.unwrap() {
        FetchAnswer::StateNext(page) => page,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_lent_for_a_while() {
    let two = Two::new().await;
    with_state(&two).await;
    let client = two.client(None);
    let gone = Err(ReadError::SnapshotGone);
    assert_eq!(next_state(&client, 1).await, gone);
    // A reader that keeps requesting pages may continue.
    let StateHead { id, tail } = begin_state(&client).await.unwrap();
    assert_eq!(tail.unwrap().slot, Slot(10));
    tokio::time::sleep(open_snapshot::IDLE * 3 / 4).await;
    assert!(!next_state(&client, id).await.unwrap().last);
    tokio::time::sleep(open_snapshot::IDLE * 3 / 4).await;
    assert!(!next_state(&client, id).await.unwrap().last);
    tokio::time::sleep(open_snapshot::IDLE * 5 / 4).await;
    assert_eq!(next_state(&client, id).await, gone);
    // A new one replaces the one before, and ends with its last page.
    let first = begin_state(&client).await.unwrap().id;
    let second = begin_state(&client).await.unwrap().id;
    assert_eq!(next_state(&client, first).await, gone);
    while !next_state(&client, second).await.unwrap().last {}
    assert_eq!(next_state(&client, second).await, gone);

    let clients: Vec<_> = (0..=STATE_SNAPSHOTS).map(|_| two.client(None)).collect();
    for client in &clients[1..] {
        begin_state(client).await.unwrap();
    }
    assert_eq!(begin_state(&clients[0]).await, Err(ReadError::Busy));
    // A connection that ends releases its snapshot permit.
    drop(clients);
    tokio::time::sleep(COMMIT).await;
    begin_state(&client).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_dialled_again() {
    let two = Two::new().await;
    let client = two.client(None);
    client.append(body(0)).await.unwrap();
    two.break_connections();
    tokio::time::sleep(COMMIT).await;
    client.append(body(1)).await.unwrap();
    // Broken while a call is under way: its outcome is unknown, and asking again is harmless.
    let waiting = client.append(body(2));
    let breaking = async {
        tokio::time::sleep(COMMIT / 2).await;
        two.break_connections();
    };
    let (answer, ()) = futures::join!(waiting, breaking);
    assert!(matches!(answer, Err(AppendError::Unreachable { .. })), "{answer:?}");
    client.append(body(2)).await.unwrap();
    assert_eq!(two.dialled(), 3);
    assert_eq!(two.storage.status().unwrap().bodies, 3);
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_is_away_holds_up_nobody_who_can_ask_another() {
    let two = Two::new().await;
    two.server.abort();
    tokio::task::yield_now().await;
    let client = two.client(None);
    for _ in 0..200 {
        let start = Instant::now();
        // Queued callers share one dial.
        let answers = futures::join!(client.status(), client.status(), client.status());
        for answer in [answers.0, answers.1, answers.2] {
            assert!(matches!(answer, Err(FetchError::Unreachable { .. })), "{answer:?}");
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let _server = listen(&two.net, &two.storage, &two.connections).await;
    let start = Instant::now();
    while client.status().await.is_err() {
        assert!(start.elapsed() <= Duration::from_secs(2), "it is not dialled again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(two.dialled(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_given_up() {
    let two = Two::new().await;
    two.server.abort();
    let mut listener = two.net.listen(ADDRESS).await.unwrap();
    let silent = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let link = link::welcome(stream, &identity(1), |_, _| Ok(())).await.unwrap();
        std::future::pending::<()>().await;
        drop(link);
    });
    let client = two.client(None);
    let start = Instant::now();
    let answer = client.append(body(0)).await;
    assert!(matches!(answer, Err(AppendError::Unreachable { .. })), "{answer:?}");
    assert_eq!(start.elapsed(), APPEND_DEADLINE);
    silent.abort();
    let _server = listen(&two.net, &two.storage, &two.connections).await;
    client.append(body(0)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_and_comes_back() {
    let two = Two::new().await;
    let client = two.client(None);
    client.status().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert!(two.connections.lock().unwrap()[0].is_finished());
    client.status().await.unwrap();
    assert_eq!(two.dialled(), 2);
}

#[tokio::test(start_paused = true)]
async fn another_disk_is_another_node() {
    let two = Two::new().await;
    let client = two.client(Some(DiskId(5)));
    assert_eq!(client.status().await, Err(FetchError::Wiped { storage: NodeId(1) }));
    let appended = client.append(body(0)).await;
    assert!(matches!(appended, Err(AppendError::Unreachable { .. })), "{appended:?}");

    let client = two.client(None);
    client.status().await.unwrap();
    client.expect_disk(identity(1).disk);
    client.status().await.unwrap();
    // The disk is learned after the connection was made: it is not used again.
    client.expect_disk(DiskId(5));
    assert_eq!(client.status().await, Err(FetchError::Wiped { storage: NodeId(1) }));
}

#[tokio::test(start_paused = true)]
async fn bad_frames_end_their_own_connection_only() {
    let two = Two::new().await;
    let client = two.client(None);
    client.append(body(0)).await.unwrap();
    client.status().await.unwrap();
    let frame = |body: &[u8]| [&(body.len() as u32).to_be_bytes()[..], body].concat();
    let trailing = [link::encode(&Call::Request { id: 1, request: FetchRequest::Status }), vec![0]];
    let garbage = [
        vec![0xff; 64],
        frame(b""),
        frame(b"garbage"),
        frame(&trailing.concat()),
        ((link::MAX_FRAME + 1) as u32).to_be_bytes().to_vec(),
        // A list whose length exceeds any frame.
        frame(&[0, 1, 0, 253, 255, 255, 255, 255, 255, 255, 255, 255]),
    ];
    for service in [Service::Append, Service::Fetch] {
        for bytes in &garbage {
            let mut stream = two.dial(service).await;
            stream.write_all(bytes).await.unwrap();
            let mut rest = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
            assert!(ended.await.is_ok(), "{service:?} {bytes:?}");
            assert!(rest.is_empty(), "{rest:?}");
        }
    }
    client.append(body(1)).await.unwrap();
    client.status().await.unwrap();
    assert_eq!(two.dialled(), 2 + 2 * garbage.len(), "the good connections are the first ones");
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_limit_and_doubled_ones_are_harmless() {
    let two = Two::new().await;
    let mut stream = two.dial(Service::Append).await;
    let mut bytes = Vec::new();
    for id in 0..100 {
        let request = AppendRequest::Append(body(id));
        // Each twice, and the even ones canceled at once.
        for call in [Call::Request { id, request }, Call::Request { id, request: begin() }] {
            let call = link::encode(&call);
            bytes.extend_from_slice(&(call.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&call);
        }
        if id % 2 == 0 {
            let cancel = link::encode(&Call::<AppendRequest>::Cancel { id });
            bytes.extend_from_slice(&(cancel.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&cancel);
        }
    }
    stream.write_all(&bytes).await.unwrap();
    drop(stream);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let client = two.client(None);
    let appended =
        futures::future::join_all((0..100).map(|number| client.append(body(number)))).await;
    assert!(appended.iter().all(Result::is_ok));
    assert_eq!(two.storage.status().unwrap().bodies, 100);
}

fn begin() -> AppendRequest {
    AppendRequest::Begin { entry: NodeId(2), incarnation: Incarnation(1) }
}

#[tokio::test(start_paused = true)]
async fn answers_that_make_no_sense_are_errors() {
    let two = Two::new().await;
    two.server.abort();
    let wrong = FetchAnswer::SlotOf(Ok(None));
    let wrong = tarpc::Response { request_id: 0, message: Ok(wrong) };
    for answer in [link::encode(&wrong), b"garbage".to_vec(), vec![]] {
        let mut listener = two.net.listen(ADDRESS).await.unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let link = link::welcome(stream, &identity(1), |_, _| Ok(())).await.unwrap();
            let Link { mut stream, .. } = link;
            let length = stream.read_u32().await.unwrap();
            stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
            stream.write_u32(answer.len() as u32).await.unwrap();
            stream.write_all(&answer).await.unwrap();
            std::future::pending::<()>().await;
        });
        let found = two.client(None).status().await;
        assert!(
            matches!(found, Err(FetchError::Refused { .. } | FetchError::Unreachable { .. })),
            "{found:?}"
        );
        server.abort();
    }
}

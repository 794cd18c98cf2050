//! The sync group on real edges: loopback TCP, files and threads.
//!
//! Invariant: nothing here depends on the machine's speed; every wait has a generous deadline.
//!
//! Deliberately absent: faults. The simulation has them.

use std::path::Path;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use vulpes_raft::client::SyncClient;
use vulpes_raft::disk::file::{File, OpenError};
use vulpes_raft::host::{Host, Listener};
use vulpes_raft::ids::{AdvanceSegment, DiskId, NodeId, SegmentNumber, Shard, Slot};
use vulpes_raft::net::wire::{self, Identity};
use vulpes_raft::node::{Member, SyncConfig, SyncNode};
use vulpes_raft::order::{SealedSegment, SegmentOutcome};
use vulpes_raft::sequencer::Opened;
use vulpes_raft::service::{Followed, SyncError};

struct Running {
    node: SyncNode,
    accepting: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.accepting.abort();
        self.node.shutdown().await;
    }
}

async fn start(
    host: &Host,
    folder: &Path,
    members: &[Member],
    mut listener: Box<dyn Listener>,
    number: u64,
) -> Running {
    let own = Identity { cluster: "test".into(), node: NodeId(number), disk: DiskId(number) };
    let config = SyncConfig {
        identity: own.clone(),
        members: members.to_vec(),
        storages: vec![members.to_vec()],
        heartbeat: Duration::from_millis(100),
        election: (Duration::from_millis(1_500), Duration::from_millis(2_000)),
        lease: Duration::from_secs(10),
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let file = loop {
        match File::open(host, &folder.join(number.to_string()), &own) {
            Ok(file) => break file,
            // An earlier life in this process may still have the file open.
            Err(OpenError::Disk { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    let started = SyncNode::start(host.clone(), config, &file).await;
    let node = started.expect("a member starts on a file of its own");
    let serving = node.clone();
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (node, own) = (serving.clone(), own.clone());
            tokio::spawn(async move {
                let admit = |peer: &Identity, service| node.admit(peer, service);
                if let Ok(link) = wire::welcome(stream, &own, admit).await {
                    node.serve(link).await;
                }
            });
        }
    });
    Running { node, accepting }
}

async fn cluster(folder: &Path, count: u64) -> (Vec<Running>, Vec<Member>) {
    let host = Host::real();
    let (mut listeners, mut members) = (Vec::new(), Vec::new());
    for number in 1..=count {
        let listener = host.net.listen("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_address().expect("bound").to_string();
        members.push(Member { node: NodeId(number), address });
        listeners.push(listener);
    }
    let mut running = Vec::new();
    for (number, listener) in (1..).zip(listeners) {
        running.push(start(&host, folder, &members, listener, number).await);
    }
    (running, members)
}

/// A client on the node of an entry: nodes speak for themselves.
fn client(members: &[Member], entry: u64) -> SyncClient {
    let own = Identity { cluster: "test".into(), node: NodeId(entry), disk: DiskId(entry) };
    SyncClient::new(Host::real(), own, members.to_vec(), None)
}

async fn open(client: &SyncClient, entry: u64) -> Opened {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match client.open(NodeId(entry), 1).await {
            Ok(opened) => return opened,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn batch(entry: u64, opened: &Opened, numbers: std::ops::Range<u64>) -> Vec<SealedSegment> {
    let segment = |number| SealedSegment {
        id: AdvanceSegment {
            entry: NodeId(entry),
            incarnation: opened.incarnation,
            number: SegmentNumber(number),
        },
        shard: Shard(0),
        count: 10,
        length: 100,
        checksum: number,
        votes: opened.groups.members().map(|member| member.node).collect(),
    };
    numbers.map(segment).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_alone_keeps_its_order_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut running, members) = cluster(folder.path(), 1).await;
    let opened = open(&client(&members, 50), 50).await;
    let first = running[0].node.propose(batch(50, &opened, 0..10)).await.expect("loopback");
    running.pop().expect("one").stop().await;

    let host = Host::real();
    let listener = host.net.listen(&members[0].address).await.expect("loopback");
    let again = start(&host, folder.path(), &members, listener, 1).await;
    assert_eq!(open(&client(&members, 50), 50).await, opened);
    let repeated = again.node.propose(batch(50, &opened, 0..10)).await.expect("loopback");
    assert_eq!(first, repeated);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_entries_propose_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (running, members) = cluster(folder.path(), 3).await;
    let segments = 100;
    let started = Instant::now();
    let entries: Vec<_> = [50, 60, 70]
        .into_iter()
        .map(|entry| {
            let client = client(&members, entry);
            tokio::spawn(async move {
                let opened = open(&client, entry).await;
                for number in 0..segments {
                    let outcomes = loop {
                        match client.propose(batch(entry, &opened, number..number + 1)).await {
                            Ok(outcomes) => break outcomes,
                            Err(SyncError::Unavailable(_) | SyncError::Unknown(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    };
                    assert!(matches!(outcomes[0], SegmentOutcome::Resolved(_)), "{outcomes:?}");
                }
            })
        })
        .collect();
    for entry in entries {
        entry.await.expect("loopback");
    }
    eprintln!("{} segments one at a time in {:?}", 3 * segments, started.elapsed());
    let last = Slot(3 + 3 * segments);
    for member in &running {
        let mut next = Slot(1);
        while next <= last {
            match member.node.follow(next, 1_000, Duration::from_secs(10)).await.unwrap() {
                Followed::Rows(rows) if !rows.is_empty() => next = Slot(next.0 + rows.len() as u64),
                other => panic!("{other:?} at {next}"),
            }
        }
    }
    for member in running {
        member.stop().await;
    }
}

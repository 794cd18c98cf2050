//! A host for tests: databases in memory whose power can be cut, connections in memory, no clock.
//!
//! Invariant: [`TestDisk::cut_power`] loses what was not synced, and nothing else.
//!
//! Deliberately absent: torn writes and delays in the network.

pub(crate) mod fold;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use vulpes_raft::disk::file::{File, OpenError};
use vulpes_raft::host::{
    BoxStream, Clock, CommitMode, Disk, Host, InPlace, Listener, Net, Random, Workers,
};
use vulpes_raft::ids::{
    AdvanceSegment, DiskId, Incarnation, NodeId, Position, SegmentNumber, Shard, Shards, Slot,
    Stamp,
};
use vulpes_raft::net::wire::Identity;
use vulpes_raft::order::{Resolution, SealedSegment, Step};

use super::Storage;
use crate::recent::RecentBodies;
use crate::segment::{OpenSegment, SealedBody};
use crate::types::event::{ClientTag, Event, Extensions, Payload, Qos, SessionId};
use crate::types::row::IndexedRow;
use crate::types::topic::{Realm, Topic};

/// How long a simulated commit takes.
pub(crate) const COMMIT: Duration = Duration::from_millis(1);

/// A host whose disk and network are these, committing in tasks.
pub(crate) fn host(disk: &TestDisk, net: &TestNet) -> Host {
    Host {
        net: Arc::new(net.clone()),
        disk: Arc::new(disk.clone()),
        clock: Arc::new(NoTime),
        random: Arc::new(Counter(AtomicU64::new(1))),
        commits: CommitMode::Task { delay: Arc::new(|| COMMIT) },
        clients: Workers::Here,
        fatal: Arc::new(|reason| panic!("fatal: {reason}")),
    }
}

/// Opens the storage of node 1 in a file of a host.
pub(crate) fn open(host: &Host, recent: &RecentBodies) -> Storage {
    open_as(host, &identity(1), recent).unwrap()
}

/// Opens a node's storage in a file of a host.
pub(crate) fn open_as(
    host: &Host,
    own: &Identity,
    recent: &RecentBodies,
) -> Result<Storage, OpenError> {
    open_part(host, own, Shards::ALL, recent)
}

/// Opens a storage whose group holds these shards.
pub(crate) fn open_part(
    host: &Host,
    own: &Identity,
    shards: Shards,
    recent: &RecentBodies,
) -> Result<Storage, OpenError> {
    let file = File::open(host, Path::new("data"), own)?;
    Storage::open(&file, own, shards, recent.clone(), Duration::ZERO)
}

struct NoTime;

impl Clock for NoTime {
    fn now(&self) -> Stamp {
        Stamp(0)
    }
}

struct Counter(AtomicU64);

impl Random for Counter {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Image {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Syncing fails, so nothing becomes durable any more.
    broken: bool,
}

/// Files in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestDisk {
    files: Arc<Mutex<BTreeMap<PathBuf, Arc<Mutex<Image>>>>>,
    small: SmallFiles,
}

/// Small files, which survive every power cut.
type SmallFiles = Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>;

impl TestDisk {
    /// A new disk with what is durable on this one now. This disk may continue; the new one never sees that.
    pub(crate) fn cut_power(&self) -> Self {
        // Small files first, then the databases: then what the small files say about a database was already true.
        let small = self.small.lock().unwrap().clone();
        let files = self.files.lock().unwrap();
        let survivors = files.iter().map(|(path, image)| {
            let durable = image.lock().unwrap().durable.clone();
            (
                path.clone(),
                Arc::new(Mutex::new(Image { current: durable.clone(), durable, broken: false })),
            )
        });
        let files = Arc::new(Mutex::new(survivors.collect()));
        Self { files, small: Arc::new(Mutex::new(small)) }
    }

    /// Length of a file in bytes.
    pub(crate) fn length(&self, path: &Path) -> usize {
        self.files.lock().unwrap()[path].lock().unwrap().current.len()
    }

    /// Makes every sync fail from now on.
    pub(crate) fn break_down(&self) {
        for image in self.files.lock().unwrap().values() {
            image.lock().unwrap().broken = true;
        }
    }

    /// Flips a bit wherever these bytes occur; returns the number of occurrences.
    pub(crate) fn damage(&self, path: &Path, needle: &[u8]) -> usize {
        let files = self.files.lock().unwrap();
        let mut image = files[path].lock().unwrap();
        let places: Vec<usize> = (0..image.current.len() - needle.len())
            .filter(|at| image.current[*at..].starts_with(needle))
            .collect();
        for at in &places {
            image.current[*at] ^= 1;
        }
        image.durable = image.current.clone();
        places.len()
    }
}

#[derive(Debug)]
struct Backend(Arc<Mutex<Image>>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let image = self.0.lock().unwrap();
        let from = offset as usize;
        out.copy_from_slice(&image.current[from..from + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().current.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut image = self.0.lock().unwrap();
        let Image { current, durable, broken } = &mut *image;
        if *broken {
            return Err(io::Error::other("the disk is broken"));
        }
        durable.clone_from(current);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let from = offset as usize;
        self.0.lock().unwrap().current[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}

impl Disk for TestDisk {
    fn open_database(&self, path: &Path) -> Result<redb::Database, redb::DatabaseError> {
        let image = self.files.lock().unwrap().entry(path.to_owned()).or_default().clone();
        // Practically no cache: reads return what the image holds.
        redb::Database::builder().set_cache_size(0).create_with_backend(Backend(image))
    }

    fn read_file(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.small.lock().unwrap().get(path).cloned())
    }

    fn write_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.small.lock().unwrap().insert(path.to_owned(), content.to_vec());
        Ok(())
    }

    fn open_in_place(&self, path: &Path) -> io::Result<Box<dyn InPlace>> {
        Ok(Box::new(SmallFile { files: self.small.clone(), path: path.to_owned() }))
    }
}

struct SmallFile {
    files: SmallFiles,
    path: PathBuf,
}

impl InPlace for SmallFile {
    fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.files.lock().unwrap().insert(self.path.clone(), content.to_vec());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Connections in memory, by address.
#[derive(Clone, Default)]
pub(crate) struct TestNet {
    listeners: Arc<Mutex<BTreeMap<String, mpsc::Sender<BoxStream>>>>,
}

/// Bytes that may be on the way in a connection in memory.
const PIPE: usize = 64 << 10;

struct TestListener(mpsc::Receiver<BoxStream>);

impl Net for TestNet {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let listener = self.listeners.lock().unwrap().get(address).cloned();
            let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (near, far) = tokio::io::duplex(PIPE);
            let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
            listener.send(Box::new(far)).await.map_err(refused)?;
            Ok(Box::new(near) as BoxStream)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (sender, receiver) = mpsc::channel(16);
            self.listeners.lock().unwrap().insert(address.to_owned(), sender);
            Ok(Box::new(TestListener(receiver)) as Box<dyn Listener>)
        })
    }
}

impl Listener for TestListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async move {
            let stream = self.0.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
            Ok((stream, SocketAddr::from(([127, 0, 0, 1], 1))))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 1)))
    }
}

pub(crate) fn identity(node: u64) -> Identity {
    Identity { cluster: "fox".into(), node: NodeId(node), disk: DiskId(node + 1000) }
}

pub(crate) fn segment_id(entry: u64, incarnation: u64, number: u64) -> AdvanceSegment {
    AdvanceSegment {
        entry: NodeId(entry),
        incarnation: Incarnation(incarnation),
        number: SegmentNumber(number),
    }
}

/// A sealed segment of one event with this payload.
pub(crate) fn sealed(id: AdvanceSegment, payload: &[u8]) -> SealedBody {
    sealed_of(id, &[event("a", payload)])
}

/// A sealed segment of these events.
pub(crate) fn sealed_of(id: AdvanceSegment, events: &[Event]) -> SealedBody {
    sealed_in(id, Shard(0), events)
}

/// A sealed segment of these events in a shard.
pub(crate) fn sealed_in(id: AdvanceSegment, shard: Shard, events: &[Event]) -> SealedBody {
    let mut open = OpenSegment::default();
    for event in events {
        open.push(event).unwrap();
    }
    open.seal(id, shard)
}

/// An event that is not retained and has no act.
pub(crate) fn event(topic: &str, payload: &[u8]) -> Event {
    Event {
        realm: Realm::new("realm").unwrap(),
        topic: Topic::from_canonical(topic),
        publisher: SessionId(1),
        client: ClientTag::NONE,
        exclude_me: true,
        disclose_me: false,
        retain: false,
        qos: Qos::AtLeastOnce,
        payload: Payload::raw(Bytes::copy_from_slice(payload)),
        properties: Bytes::new(),
        act: Bytes::new(),
        extensions: Extensions::default(),
    }
}

/// Rows that hide nothing and leave the realms' state unchanged.
pub(crate) fn plain(rows: Vec<(Resolution, Option<Bytes>)>) -> Vec<IndexedRow> {
    rows.into_iter().map(|(row, body)| IndexedRow::plain(row, body)).collect()
}

/// An order that a test makes up step by step.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) slot: Slot,
    pub(crate) base: Position,
}

impl Default for Order {
    fn default() -> Self {
        Self { slot: Slot(1), base: Position(1) }
    }
}

impl Order {
    pub(crate) fn step(&mut self, step: Step) -> Resolution {
        let resolution = Resolution {
            slot: self.slot,
            stamp: Stamp(1_795_369_320_000),
            ahead: 0,
            base: self.base,
            step,
        };
        self.slot = self.slot.next();
        self.base = resolution.end();
        resolution
    }

    pub(crate) fn segment(&mut self, body: &SealedBody) -> Resolution {
        self.step(Step::Segment(proposal(body)))
    }

    pub(crate) fn opened(&mut self, entry: u64, incarnation: u64) -> Resolution {
        let (entry, incarnation) = (NodeId(entry), Incarnation(incarnation));
        self.step(Step::Opened { entry, incarnation })
    }
}

pub(crate) fn proposal(body: &SealedBody) -> SealedSegment {
    body.proposal(vec![NodeId(1), NodeId(2)])
}

//! The edges of a real process: TCP, files, the system's clock and randomness.
//!
//! Invariant: a failed disk ends the process before it sends any answer, and a small file is replaced whole or not at all.
//! Listening on a name means listening on all its addresses.
//!
//! Deliberately absent: names that the system's resolver does not know, and retries.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;

use futures::future::BoxFuture;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{
    BoxStream, Clock, CommitMode, Disk, FileId, Host, InPlace, Listener, Net, Random, Space,
    Workers,
};
use crate::ids::Stamp;

/// How many bytes of a database redb may cache, unless configured otherwise.
const CACHE_BYTES: usize = 64 << 20;

/// The exit code of a node whose disk failed.
const EXIT_DISK_FAILED: i32 = 70;

impl Host {
    /// The host of a real process, with databases cached up to 64 MiB each.
    #[must_use]
    pub fn real() -> Self {
        Self::real_with(RealDisk { cache_bytes: CACHE_BYTES })
    }

    /// The host of a real process with this disk.
    #[must_use]
    pub fn real_with(disk: RealDisk) -> Self {
        let (disk, clock) = edges(disk);
        Self {
            net: Arc::new(Tcp),
            disk,
            clock,
            random: Arc::new(SystemRandom),
            commits: CommitMode::Thread,
            clients: Workers::Here,
            fatal: Arc::new(|reason| {
                // Standard error may be closed.
                let _ = writeln!(io::stderr(), "vulpes: fatal: {reason}");
                std::process::exit(EXIT_DISK_FAILED);
            }),
        }
    }
}

/// The disk and the clock. A test may have made them faulty.
#[cfg(feature = "faults")]
fn edges(disk: RealDisk) -> (Arc<dyn Disk>, Arc<dyn Clock>) {
    match super::faulty::Faults::from_environment() {
        Some(faults) => (faults.disk(disk), faults.clock(Arc::new(SystemClock))),
        None => (Arc::new(disk), Arc::new(SystemClock)),
    }
}

/// Disk and clock.
#[cfg(not(feature = "faults"))]
fn edges(disk: RealDisk) -> (Arc<dyn Disk>, Arc<dyn Clock>) {
    (Arc::new(disk), Arc::new(SystemClock))
}

/// Bytes that the system accepts for a connection in addition to those already sent.
#[cfg(target_os = "linux")]
const NOT_SENT: u32 = 128 << 10;

/// Connections that the system holds until they are accepted, if its own limit (`net.core.somaxconn`) allows. It
/// resets those that arrive while there is no room, and all clients of a node that ended come back at once.
const BACKLOG: u32 = 4096;

/// Small messages go out at once, and a socket accepts more as soon as the peer has read something. With the system's own
/// limits it would accept megabytes, and then nothing until a third of them has been sent, which takes minutes with a slow
/// reader.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(NOT_SENT)?;
    Ok(())
}

struct Tcp;

impl Net for Tcp {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let addresses = resolve(address).await?;
            let stream = TcpStream::connect(&addresses[..]).await?;
            tune(&stream)?;
            Ok(Box::new(stream) as BoxStream)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(
            async move { Ok(Box::new(Listening(listen_all(address).await?)) as Box<dyn Listener>) },
        )
    }
}

/// A host name that has no address.
#[derive(Debug, thiserror::Error)]
#[error("the name {name:?} does not resolve ({error}); correct it in the configuration, or add it to DNS or /etc/hosts")]
pub struct Unresolved {
    name: String,
    error: io::Error,
}

/// The addresses of `host:port`: at least one, each once.
async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let name = || address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
    let unresolved = |error| io::Error::other(Unresolved { name: name(), error });
    let mut addresses = Vec::new();
    for found in tokio::net::lookup_host(address).await.map_err(unresolved)? {
        if !addresses.contains(&found) {
            addresses.push(found);
        }
    }
    match addresses.is_empty() {
        true => Err(unresolved(io::ErrorKind::NotFound.into())),
        false => Ok(addresses),
    }
}

/// Listens on all addresses of `host:port`, as `localhost` does for 127.0.0.1 and `::1`. An address that this machine
/// does not have is skipped if another one works.
///
/// # Errors
/// Those of the resolver ([`Unresolved`] within) and of the sockets.
pub async fn listen_all(address: &str) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut missing = None;
    for mut wanted in resolve(address).await? {
        if let Some(first) = listeners.first().filter(|_| wanted.port() == 0) {
            wanted.set_port(first.local_addr()?.port());
        }
        match bind(wanted) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of the previous process may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// At least one socket.
struct Listening(Vec<TcpListener>);

impl Listener for Listening {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async move {
            let accepted = std::future::poll_fn(|context| {
                let ready =
                    self.0.iter().find_map(|listener| match listener.poll_accept(context) {
                        Poll::Ready(accepted) => Some(accepted),
                        Poll::Pending => None,
                    });
                ready.map_or(Poll::Pending, Poll::Ready)
            });
            let (stream, peer) = accepted.await?;
            tune(&stream)?;
            Ok((Box::new(stream) as BoxStream, peer))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.first().ok_or(io::ErrorKind::NotConnected)?.local_addr()
    }
}

/// Creates a directory and its parents, unless they exist. Only the user of this process can read it.
///
/// # Errors
/// If it can't be created.
pub fn make_private(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Files of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk {
    /// How many bytes of each database may be cached.
    pub cache_bytes: usize,
}

impl Disk for RealDisk {
    fn open_database(&self, path: &Path) -> Result<redb::Database, redb::DatabaseError> {
        if let Some(parent) = path.parent() {
            make_private(parent).map_err(redb::StorageError::Io)?;
        }
        redb::Database::builder().set_cache_size(self.cache_bytes).create(path)
    }

    fn read_file(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new("."));
        make_private(parent)?;
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let fresh = PathBuf::from(name);
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        // The rename itself is durable only once the directory is.
        std::fs::File::open(parent)?.sync_all()
    }

    fn file_id(&self, path: &Path) -> io::Result<Option<FileId>> {
        match std::fs::metadata(path) {
            Ok(found) => Ok(Some(FileId { device: found.dev(), number: found.ino() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn space(&self, directory: &Path) -> io::Result<Option<Space>> {
        let found = rustix::fs::statvfs(directory)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        // What only the superuser could still use is not there.
        Ok(Some(Space { free: bytes(found.f_bavail), total: bytes(found.f_blocks) }))
    }

    fn open_in_place(&self, path: &Path) -> io::Result<Box<dyn InPlace>> {
        let file = std::fs::OpenOptions::new().write(true).open(path)?;
        Ok(Box::new(Opened(file)))
    }
}

struct Opened(std::fs::File);

impl InPlace for Opened {
    fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.0.write_all_at(content, 0)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

struct SystemClock;

impl Clock for SystemClock {
    // The only place that reads the time of day; everything else asks its host.
    #[allow(clippy::disallowed_methods)]
    fn now(&self) -> Stamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Stamp(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
    }
}

struct SystemRandom;

impl Random for SystemRandom {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_listened_on_at_all_its_addresses() {
        let mut listener = Tcp.listen("localhost:0").await.unwrap();
        let port = listener.local_address().unwrap().port();
        let addresses = resolve(&format!("localhost:{port}")).await.unwrap();
        for address in addresses {
            // Names in /etc/hosts resolve even if the machine does not have the address.
            match TcpStream::connect(address).await {
                Ok(_) => drop(listener.accept().await.unwrap()),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{address}")
                }
            }
        }
        for failed in [
            Tcp.listen("no.such.host.invalid:1").await.err(),
            Tcp.connect("no.such.host.invalid:1").await.err(),
        ] {
            let text = failed.unwrap().to_string();
            assert!(text.contains("\"no.such.host.invalid\" does not resolve"), "{text}");
        }
    }

    #[test]
    fn small_files_are_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk { cache_bytes: 1 << 20 };
        let path = folder.path().join("deeper/identity");
        assert_eq!(disk.read_file(&path).unwrap(), None);
        disk.write_file(&path, b"first").unwrap();
        disk.write_file(&path, b"second").unwrap();
        assert_eq!(disk.read_file(&path).unwrap().as_deref(), Some(&b"second"[..]));
        let mut opened = disk.open_in_place(&path).unwrap();
        opened.write(b"SEC").unwrap();
        opened.write(b"sec").unwrap();
        opened.sync().unwrap();
        assert_eq!(disk.read_file(&path).unwrap().as_deref(), Some(&b"second"[..]));
        opened.write(b"SECOND").unwrap();
        assert_eq!(disk.read_file(&path).unwrap().as_deref(), Some(&b"SECOND"[..]));
        assert!(disk.open_in_place(&folder.path().join("none")).is_err());
        let names = std::fs::read_dir(folder.path().join("deeper")).unwrap().count();
        assert_eq!(names, 1);
        assert!(Host::real().clock.now() > Stamp(1_700_000_000_000));
    }
}

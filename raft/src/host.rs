//! The edges of a node: network, disk, clock, randomness and the way out when a disk fails.
//!
//! Invariant: nothing else in the product opens a socket or a file, reads a clock or draws a random number. A
//! simulation passes its own host and runs the same code from one seed.
//!
//! Deliberately absent: timers. They are tokio's, which a simulation controls by itself.

#[cfg(feature = "faults")]
mod faulty;
mod real;
#[cfg(feature = "sim")]
pub mod sim;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::ids::{NodeId, Stamp};

pub use real::{listen_all, make_private, RealDisk, Unresolved};
pub use workers::Workers;

/// A connection: bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// A connection of any kind.
pub type BoxStream = Box<dyn ByteStream>;

/// Dials and listens. Addresses are `host:port`.
pub trait Net: Send + Sync + 'static {
    /// Opens a connection, with `TCP_NODELAY` if it applies.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>>;

    /// Opens a connection to the node port of a node of the cluster. A network that can tell who is there makes sure that it
    /// is this node.
    fn connect_node<'a>(
        &'a self,
        address: &'a str,
        _node: NodeId,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        self.connect(address)
    }

    /// Starts listening; port 0 picks a free one.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}

/// A listening socket.
pub trait Listener: Send + 'static {
    /// Waits for the next connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>>;

    /// The address it listens on.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// Distinguishes a file from all others that exist at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    pub device: u64,
    pub number: u64,
}

/// The size of a file system, and what is left of it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub free: u64,
    pub total: u64,
}

/// Opens databases, and stores the few small files beside them.
pub trait Disk: Send + Sync + 'static {
    /// Opens the database at `path`, or creates it, including parent directories.
    fn open_database(&self, path: &Path) -> Result<redb::Database, redb::DatabaseError>;

    /// Reads a whole small file; `None` if it does not exist.
    fn read_file(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;

    /// Replaces a small file: a crash after it returns leaves the new content; a crash before leaves the old or the
    /// new one.
    fn write_file(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// The file that has this name now; `None` if there is none, or if the disk does not number its files.
    fn file_id(&self, _path: &Path) -> io::Result<Option<FileId>> {
        Ok(None)
    }

    /// The space of the file system of a directory; `None` if the disk has no end.
    fn space(&self, _directory: &Path) -> io::Result<Option<Space>> {
        Ok(None)
    }

    /// Opens an existing small file, to be overwritten in place.
    fn open_in_place(&self, path: &Path) -> io::Result<Box<dyn InPlace>>;
}

/// If a database file could not be opened because it is damaged: the description of the damage. Such a node needs another disk
/// or another file.
#[must_use]
pub fn damage(error: &redb::DatabaseError) -> Option<String> {
    match error {
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(reason)) => Some(reason.clone()),
        // redb's error if the first bytes are not those of a database.
        redb::DatabaseError::Storage(redb::StorageError::Io(error))
            if error.kind() == io::ErrorKind::InvalidData =>
        {
            Some(error.to_string())
        }
        _ => None,
    }
}

/// Whether an opened database's contents are not what was written. Otherwise the disk failed, or the process ends.
#[must_use]
pub fn is_damage(error: &redb::Error) -> bool {
    matches!(
        error,
        redb::Error::Corrupted(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableIsNotMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }
    )
}

/// A small file that is overwritten in place, always with the same number of bytes, too few to be torn.
pub trait InPlace: Send + 'static {
    /// Overwrites it. The write survives the end of the process; a power loss may undo it.
    fn write(&mut self, content: &[u8]) -> io::Result<()>;

    /// After it returns, the last write also survives a power loss.
    fn sync(&mut self) -> io::Result<()>;
}

/// Reads the time of day. It never decides the order; stamps come from it, only as a hint.
pub trait Clock: Send + Sync + 'static {
    /// Unix time in milliseconds.
    fn now(&self) -> Stamp;
}

/// Draws random numbers.
pub trait Random: Send + Sync + 'static {
    /// A number uniform over all of `u64`.
    fn next_u64(&self) -> u64;
}

/// How group commits run.
#[derive(Clone)]
pub enum CommitMode {
    /// On a separate operating-system thread, because redb blocks.
    Thread,
    /// Inline in a task, after a delay that represents the disk: for simulations, whose disk does not block.
    Task { delay: Arc<dyn Fn() -> Duration + Send + Sync> },
}

/// All edges of one node.
#[derive(Clone)]
pub struct Host {
    pub net: Arc<dyn Net>,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub commits: CommitMode,
    /// Runs the work for clients, separate from what keeps the cluster alive.
    pub clients: Workers,
    /// Ends the node at once, because its disk can no longer be trusted. In a real process it never returns; in a simulation it
    /// marks the node as dead, and the caller must not send any answer afterwards.
    pub fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Host")
    }
}

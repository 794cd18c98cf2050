//! The identity of a data directory: `identity.toml`, made when the directory is first used, never changed after.
//!
//! Invariant: a disk has one identity for life. A directory of another cluster, another node or a newer format is not opened,
//! so a node never runs with a disk that is not its own. A wiped directory gets a new disk number, which makes it another node
//! to the rest of the cluster.
//!
//! Deliberately absent: the databases beside it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vulpes_raft::host::Host;
use vulpes_raft::ids::{DiskId, NodeId};
use vulpes_raft::net::wire::Identity;

use super::NodeConfig;

/// The form of the data directory that this release reads and writes.
pub const FORMAT: u32 = 1;

/// The file's name within the data directory.
pub const FILE: &str = "identity.toml";

/// Why a data directory was not opened.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("can't use the data directory {path}: {error}; check that it exists and may be written", path = path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{path} can't be understood: {reason}; put a copy of this one file back, or give the node an empty data directory and a new number", path = path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{path} was written in format {found}, this release knows formats up to {FORMAT}; run the release that wrote it, or a newer one", path = path.display())]
    NewerFormat { path: PathBuf, found: u32 },
    #[error("{path} belongs to cluster {found:?}, the configuration says {expected:?}; correct `data` or `cluster`", path = path.display())]
    OtherCluster { path: PathBuf, found: String, expected: String },
    #[error("{path} belongs to node {found}, the configuration says node {expected}; correct `data` or `node`", path = path.display())]
    OtherNode { path: PathBuf, found: NodeId, expected: NodeId },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    format: u32,
    cluster: String,
    node: NodeId,
    disk: String,
}

/// The only part that is read while the file's format is not known yet.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Reads the identity of the data directory, or creates this node's in a new one.
///
/// # Errors
/// If it can't be read or written, or is not this node's.
pub fn open_identity(host: &Host, config: &NodeConfig) -> Result<Identity, IdentityError> {
    let path = config.data.join(FILE);
    let io_error = |error| IdentityError::Io { path: config.data.clone(), error };
    let Some(content) = host.disk.read_file(&path).map_err(io_error)? else {
        let identity = Identity {
            cluster: config.cluster.clone(),
            node: config.node,
            disk: DiskId(host.random.next_u64()),
        };
        host.disk.write_file(&path, write(&identity).as_bytes()).map_err(io_error)?;
        return Ok(identity);
    };
    let identity = read(&path, &content)?;
    if identity.cluster != config.cluster {
        let expected = config.cluster.clone();
        return Err(IdentityError::OtherCluster { path, found: identity.cluster, expected });
    }
    if identity.node != config.node {
        let expected = config.node;
        return Err(IdentityError::OtherNode { path, found: identity.node, expected });
    }
    Ok(identity)
}

/// Persisted: new fields need a new format.
fn write(identity: &Identity) -> String {
    let cluster = toml::Value::String(identity.cluster.clone());
    format!(
        "# Whose data this is. Written once; a changed or lost file makes the directory useless.\n\
         format = {FORMAT}\ncluster = {cluster}\nnode = {}\ndisk = \"{:016x}\"\n",
        identity.node, identity.disk.0
    )
}

fn read(path: &Path, content: &[u8]) -> Result<Identity, IdentityError> {
    let damaged = |reason: String| IdentityError::Damaged { path: path.to_owned(), reason };
    let text = std::str::from_utf8(content).map_err(|error| damaged(error.to_string()))?;
    let Format { format } =
        toml::from_str(text).map_err(|error| damaged(error.message().to_owned()))?;
    if format > FORMAT {
        return Err(IdentityError::NewerFormat { path: path.to_owned(), found: format });
    }
    if format != FORMAT {
        return Err(damaged(format!("there is no format {format}")));
    }
    let file: IdentityFile =
        toml::from_str(text).map_err(|error| damaged(error.message().to_owned()))?;
    let disk = u64::from_str_radix(&file.disk, 16)
        .map_err(|_| damaged("`disk` is not a hexadecimal number".into()))?;
    Ok(Identity { cluster: file.cluster, node: file.node, disk: DiskId(disk) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use futures::future::BoxFuture;
    use vulpes_raft::host::{
        BoxStream, Clock, CommitMode, Disk, InPlace, Listener, Net, Random, Workers,
    };
    use vulpes_raft::ids::Stamp;

    use super::*;

    /// Small files in memory, and numbers that count up.
    #[derive(Default)]
    struct FakeEdges {
        files: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
        drawn: AtomicU64,
    }

    impl Disk for FakeEdges {
        fn open_database(&self, _: &Path) -> Result<redb::Database, redb::DatabaseError> {
            unreachable!("no database here")
        }

        fn read_file(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
            Ok(self.files.lock().unwrap().get(path).cloned())
        }

        fn write_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
            if path.starts_with("/read-only") {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.files.lock().unwrap().insert(path.to_owned(), content.to_vec());
            Ok(())
        }

        fn open_in_place(&self, _: &Path) -> io::Result<Box<dyn InPlace>> {
            unreachable!("no file is written in place here")
        }
    }

    impl Random for FakeEdges {
        fn next_u64(&self) -> u64 {
            0xab00 + self.drawn.fetch_add(1, Ordering::Relaxed)
        }
    }

    impl Clock for FakeEdges {
        fn now(&self) -> Stamp {
            Stamp(0)
        }
    }

    impl Net for FakeEdges {
        fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
            unreachable!("no network here")
        }

        fn listen<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
            unreachable!("no network here")
        }
    }

    fn host(edges: &Arc<FakeEdges>) -> Host {
        Host {
            net: edges.clone(),
            disk: edges.clone(),
            clock: edges.clone(),
            random: edges.clone(),
            commits: CommitMode::Task { delay: Arc::new(|| Duration::ZERO) },
            clients: Workers::Here,
            fatal: Arc::new(|_| {}),
        }
    }

    fn config(cluster: &str, node: u64, data: &str) -> NodeConfig {
        let text = format!(
            "cluster = \"{cluster}\"\nnode = {node}\ndata = \"{data}\"\nrealms = [\"r\"]\n\
             [listen]\nmqtt = \"127.0.0.1:1\"\n\
             [[nodes]]\nid = {node}\npeer = \"127.0.0.1:2\"\nroles = [\"entry\", \"storage\", \"sync\"]\n"
        );
        NodeConfig::parse(&text, Path::new("/etc/vulpes.toml")).unwrap()
    }

    #[test]
    fn a_disk_keeps_its_identity() {
        let edges = Arc::default();
        let host = host(&edges);
        let first = open_identity(&host, &config("c", 1, "/data")).unwrap();
        assert_eq!(first, Identity { cluster: "c".into(), node: NodeId(1), disk: DiskId(0xab00) });
        assert_eq!(open_identity(&host, &config("c", 1, "/data")).unwrap(), first);
        let wiped = open_identity(&host, &config("c", 1, "/elsewhere")).unwrap();
        assert_ne!(wiped.disk, first.disk);
    }

    #[test]
    fn golden_text() {
        let identity = Identity { cluster: "a \"b\"".into(), node: NodeId(7), disk: DiskId(0x1f) };
        let text = write(&identity);
        assert!(
            text.ends_with(
                "format = 1\ncluster = 'a \"b\"'\nnode = 7\ndisk = \"000000000000001f\"\n"
            ),
            "{text}"
        );
        assert_eq!(read(Path::new(FILE), text.as_bytes()).unwrap(), identity);
    }

    #[test]
    fn a_directory_that_is_not_this_nodes_is_not_opened() {
        let cases: [(&str, &str); 8] = [
            (
                "format = 1\ncluster = \"other\"\nnode = 1\ndisk = \"1\"",
                "belongs to cluster \"other\"",
            ),
            ("format = 1\ncluster = \"c\"\nnode = 2\ndisk = \"1\"", "belongs to node 2"),
            ("format = 2\nnew = true", "format 2, this release knows formats up to 1"),
            ("format = 0\ncluster = \"c\"", "there is no format 0"),
            ("format = 1\ncluster = \"c\"\nnode = 1\ndisk = \"xyz\"", "not a hexadecimal number"),
            ("format = 1\ncluster = \"c\"\nnode = 1", "missing field `disk`"),
            ("\u{0}garbage", "can't be understood"),
            ("", "missing field `format`"),
        ];
        for (content, expected) in cases {
            let edges: Arc<FakeEdges> = Arc::default();
            edges.write_file(&Path::new("/data").join(FILE), content.as_bytes()).unwrap();
            let error = open_identity(&host(&edges), &config("c", 1, "/data")).unwrap_err();
            assert!(error.to_string().contains(expected), "{content:?}: {error}");
        }
        let edges = Arc::default();
        let error = open_identity(&host(&edges), &config("c", 1, "/read-only")).unwrap_err();
        assert!(error.to_string().contains("may be written"), "{error}");
    }
}

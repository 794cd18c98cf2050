//! The files of a cluster's authority, and those that it gives to nodes.
//!
//! Invariant: files with keys are readable by their user alone from their first byte on, and are replaced whole. All certificates
//! are made before the first is written.
//!
//! Deliberately absent: what is in the files (`tls`), and taking them to other machines.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use vulpes_raft::host::{make_private, Host};
use vulpes_raft::ids::Stamp;

use crate::config::peer_tls::PeerTls;
use crate::config::NodeConfig;
use crate::tls::authority::{Authority, Pair};
use crate::tls::name::NodeName;
use crate::tls::TlsError;

/// The authority's certificate, which nodes trust, within its directory.
const CERTIFICATE: &str = "ca.pem";

/// Its key, which no node needs.
const KEY: &str = "ca.key";

/// An authority in a directory.
pub(super) struct Kept {
    pub(super) authority: Authority,
    /// Its certificate, in PEM.
    pub(super) pem: String,
    /// What has yet to be written; none if it was there already.
    fresh: Option<String>,
    directory: PathBuf,
}

/// The time of day.
pub(super) fn now() -> Stamp {
    Host::real().clock.now()
}

impl Kept {
    /// Makes an authority. Nothing is written yet.
    pub(super) fn new(directory: &Path, cluster: &str) -> Result<Self, TlsError> {
        let (authority, Pair { certificate, key }) = Authority::new(cluster, now())?;
        let directory = directory.to_owned();
        Ok(Self { authority, pem: certificate, fresh: Some(key), directory })
    }

    /// Reads the authority in a directory.
    pub(super) fn read(directory: &Path, cluster: &str) -> anyhow::Result<Self> {
        let path = directory.join(CERTIFICATE);
        let authority = Authority::read(cluster, &path, &directory.join(KEY))?;
        let read = std::fs::read_to_string(&path);
        let pem = read.with_context(|| format!("can't read {}", path.display()))?;
        Ok(Self { authority, pem, fresh: None, directory: directory.to_owned() })
    }

    /// Whether there is one in a directory, or a part of one.
    pub(super) fn is_in(directory: &Path) -> bool {
        [CERTIFICATE, KEY].iter().any(|name| directory.join(name).exists())
    }

    /// Makes certificates for nodes; nothing is written yet.
    pub(super) fn issue<'a>(
        &self,
        configs: impl Iterator<Item = &'a NodeConfig>,
        days: u16,
    ) -> Result<Vec<Pair>, TlsError> {
        let issue = |config: &NodeConfig| {
            let (cluster, node) = (config.cluster.clone(), config.node);
            self.authority.issue(&NodeName { cluster, node }, &config.hosts(), now(), days)
        };
        configs.map(issue).collect()
    }

    /// Writes its files, unless they were there.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let Some(key) = &self.fresh else { return Ok(()) };
        write_private(&self.directory.join(KEY), key)?;
        write_private(&self.directory.join(CERTIFICATE), &self.pem)
    }
}

/// Writes a node's certificate and key. A node that looks in between finds two that don't fit, and looks again.
pub(super) fn write_pair(files: &PeerTls, pair: &Pair) -> anyhow::Result<()> {
    write_private(&files.key, &pair.key)?;
    write_private(&files.certificate, &pair.certificate)
}

/// Replaces a file that only its user may read. Directories that are missing are made, for this user alone.
pub(super) fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    try_write(path, content).with_context(|| format!("can't write {}", path.display()))
}

fn try_write(path: &Path, content: &str) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_private(parent)?;
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    // One that an earlier attempt has left may have another mode.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

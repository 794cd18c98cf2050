//! The files with which a node proves to the others who it is, and encrypts what they say to each other.
//!
//! Invariant: either all three files are named, or nothing is encrypted between nodes. Then no other machine reaches the node port,
//! or the operator has said that this is fine.
//!
//! Deliberately absent: what is in the files (`tls`).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Address, Problem};

/// A node's files for the node port; all are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTls {
    /// The node's certificate, followed by those between it and its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authorities of the cluster: one, or two while the second replaces the first.
    pub ca: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PeerTlsTable {
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

/// Reads the table, if there is one; without it, the node port may be open only to this machine, unless the operator knows that it
/// is `insecure`. Paths are relative to a folder.
pub(super) fn check(
    table: Option<PeerTlsTable>,
    insecure: bool,
    port: &Address,
    beside: &Path,
    problems: &mut Vec<Problem>,
) -> Option<PeerTls> {
    let Some(table) = table else {
        if !insecure && !port.is_loopback() {
            problems.push(Problem::OpenNodePort(port.clone()));
        }
        return None;
    };
    let mut path = |name, path: PathBuf| {
        if path.as_os_str().is_empty() {
            problems.push(Problem::NoPeerTlsPath(name));
        }
        beside.join(path)
    };
    Some(PeerTls {
        certificate: path("certificate", table.certificate),
        key: path("key", table.key),
        ca: path("ca", table.ca),
    })
}

/// Writes the table, line by line. `text` writes a string as TOML has it.
pub(super) fn write(
    files: Option<&PeerTls>,
    text: impl Fn(&str) -> String,
    line: &mut impl FnMut(String),
) {
    let Some(files) = files else { return };
    line("\n[peer_tls]  # PEM files for the node port, relative to this one; read again on SIGHUP, and when they change".into());
    for (name, path) in
        [("certificate", &files.certificate), ("key", &files.key), ("ca", &files.ca)]
    {
        line(format!("{name} = {}", text(&path.to_string_lossy())));
    }
}

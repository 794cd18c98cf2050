//! What a node's files of certificates contain, for operators.
//!
//! Invariant: the verdict is that of the node itself: what is said to fit here is what it would use.
//!
//! Deliberately absent: keys' contents, and asking a node that runs.

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use vulpes_raft::ids::Stamp;
use x509_cert::der::Decode;
use x509_cert::Certificate;

use super::files::{certificates, end};
use super::name::NodeName;
use super::nodes::NodeFiles;
use super::watched::Files;
use super::TlsError;
use crate::config::NodeConfig;

/// A certificate in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub path: PathBuf,
    pub subject: String,
    pub issuer: String,
    /// When it expires; none if that can't be read.
    pub expires: Option<Stamp>,
}

/// Files that belong together.
#[derive(Debug)]
pub struct Inspected {
    /// Whose they are.
    pub user: String,
    /// What can be read of them.
    pub certificates: Vec<Described>,
    /// Whether the node can use them.
    pub verdict: Result<(), TlsError>,
}

/// Looks at all certificates of a node: those for other nodes first, then those of its listeners.
#[must_use]
pub fn inspect(config: &NodeConfig) -> Vec<Inspected> {
    let own = NodeName { cluster: config.cluster.clone(), node: config.node };
    let nodes = config.peer_tls.clone().map(|files| NodeFiles { files, own });
    let mut found: Vec<Inspected> = nodes.iter().map(inspect_files).collect();
    let listeners = config.listeners.iter().filter_map(|one| one.tls.as_ref());
    found.extend(listeners.map(inspect_files));
    found
}

fn inspect_files(files: &impl Files) -> Inspected {
    let read = |path: &Path| {
        let found = certificates(path).unwrap_or_default();
        found.into_iter().map(|one| describe(path, &one)).collect::<Vec<_>>()
    };
    Inspected {
        user: files.user(),
        certificates: files.paths().into_iter().flat_map(read).collect(),
        verdict: files.load().map(|_| ()),
    }
}

fn describe(path: &Path, certificate: &CertificateDer<'_>) -> Described {
    let read = Certificate::from_der(certificate).ok();
    let names = read.map(|read| {
        let read = read.tbs_certificate();
        (read.subject().to_string(), read.issuer().to_string())
    });
    let (subject, issuer) = names.unwrap_or_else(|| ("unreadable".into(), "unreadable".into()));
    let expires = end(certificate).map(|end| end.at);
    Described { path: path.to_owned(), subject, issuer, expires }
}

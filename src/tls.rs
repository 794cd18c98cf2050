//! TLS 1.2 and 1.3 for clients and operators, and 1.3 between nodes: certificates from files, read again while the node runs,
//! and the connections that they secure.
//!
//! - [`files`]: from PEM files to what rustls takes, for both sides.
//! - `watched`: files that are read again.
//! - [`certificates`]: those of a node, as they are now.
//! - [`encrypted`]: an encrypted connection as a stream of bytes.
//! - [`stream`]: the handshakes of listeners' connections.
//! - [`name`]: which node a certificate names.
//! - [`nodes`]: connections between nodes.
//! - [`authority`]: makes the certificates of nodes.
//! - [`inspect`]: what a node's files contain.
//!
//! Invariant: only a certificate whose key fits it is served, and only `ring` does the cryptography.
//!
//! Deliberately absent: who the owner of a client's certificate is, and how many handshakes there are at a time (`server`,
//! `node`).

use std::io;
use std::path::PathBuf;

use name::NotItsName;

pub mod authority;
pub mod certificates;
pub mod encrypted;
pub mod files;
pub mod inspect;
pub mod name;
pub mod nodes;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
mod watched;

/// Why certificates or keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("can't read {path}: {error}; the file has to be there, and its node's or command's user has to be allowed to read it", path = path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} has more than {most} bytes, too many for certificates or a key; name another file", path = path.display(), most = files::PEM_FILE)]
    TooLarge { path: PathBuf },
    #[error("{path} is not PEM: {error}; write certificates between BEGIN CERTIFICATE and END CERTIFICATE", path = path.display())]
    Pem { path: PathBuf, error: rustls_pki_types::pem::Error },
    #[error("{path} has no certificate; write it there in PEM, as BEGIN CERTIFICATE", path = path.display())]
    NoCertificate { path: PathBuf },
    #[error("{path} has no revocation list; write the one of each authority there in PEM, as BEGIN X509 CRL, or remove client_revoked", path = path.display())]
    NoRevocationList { path: PathBuf },
    #[error("{path} has no private key; write it there in PEM, as BEGIN PRIVATE KEY, without a passphrase", path = path.display())]
    NoKey { path: PathBuf },
    #[error("the key in {path} can't be used: {error}; make one of RSA with 2048 bits or more, of ECDSA on P-256 or P-384, or of Ed25519", path = path.display())]
    BadKey { path: PathBuf, error: rustls::Error },
    #[error("the certificate in {path} can't be used: {error}; have it signed again, as an X.509 certificate of version 3", path = path.display())]
    BadCertificate { path: PathBuf, error: String },
    #[error("the key in {key} is not that of the certificate in {certificate}; name two files that belong together", key = key.display(), certificate = certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("{path} can't be shown to other nodes: {error}", path = path.display())]
    NotThisNode { path: PathBuf, error: NotItsName },
    #[error("the other nodes will not take the certificate in {path}, as those that {ca} names have not signed it for both sides: {error}; have the cluster's authority sign it, as `vulpes certs renew` does", path = path.display(), ca = ca.display())]
    NotOfTheCluster { path: PathBuf, ca: PathBuf, error: rustls::Error },
    #[error("{path} has several certificates; name the file that holds the authority's alone", path = path.display())]
    SeveralAuthorities { path: PathBuf },
    #[error("the given certificate and key are not the authority of cluster {cluster:?} that `vulpes init` or `vulpes certs authority` made; name its files, or sign with what made them")]
    NotTheAuthority { cluster: String },
    #[error("no certificate could be made: {0}")]
    NotMade(#[from] rcgen::Error),
    #[error("TLS can't be set up: {0}")]
    Setup(#[from] rustls::Error),
}

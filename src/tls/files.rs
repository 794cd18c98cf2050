//! From PEM files to what rustls takes.
//!
//! Invariant: a file larger than [`PEM_FILE`] is not read to its end.
//!
//! Deliberately absent: the system's authorities. Only those that a file names are trusted.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{ring, CryptoProvider};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use vulpes_raft::ids::Stamp;
use x509_cert::der::Decode;
use x509_cert::Certificate;

use super::TlsError;
use crate::config::listener::{ClientCertificates, TlsFiles};

/// Largest file of certificates or keys, in bytes.
pub const PEM_FILE: usize = 1 << 20;

/// Longest name of a certificate's owner that is shown, in characters.
const SUBJECT: usize = 256;

/// What is read for a listener, or for other nodes.
pub(super) struct Loaded<Config> {
    pub(super) config: Arc<Config>,
    /// When its own certificates, and those of the authorities that it trusts, expire.
    pub(super) ends: Vec<End>,
}

/// When a certificate expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) subject: String,
    pub(super) at: Stamp,
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Reads what a listener needs.
///
/// # Errors
/// If a file can't be read or used, or key and certificate don't fit.
pub(super) fn load(files: &TlsFiles) -> Result<Loaded<ServerConfig>, TlsError> {
    let chain = certificates(&files.certificate)?;
    let mut ends: Vec<End> = chain.iter().filter_map(end).collect();
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &files.clients {
        ClientCertificates::None => builder.with_no_client_auth(),
        ClientCertificates::Ask { ca } | ClientCertificates::Require { ca } => {
            let authorities = certificates(ca)?;
            ends.extend(authorities.iter().filter_map(end));
            let roots = Arc::new(roots(authorities, ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = match &files.clients {
                ClientCertificates::Require { .. } => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            let lists = files.revoked.as_deref().map(revocation_lists).transpose()?;
            // A list is bad for the same reasons as an authority, and later.
            let named = files.revoked.as_ref().unwrap_or(ca);
            let verifier = verifier.with_crls(lists.unwrap_or_default());
            builder.with_client_cert_verifier(verifier.build().map_err(|error| bad(named, error))?)
        }
    };
    let certified = certified(chain, &files.certificate, &files.key)?;
    let config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Ok(Loaded { config: Arc::new(config), ends })
}

/// What a command needs: the authorities that it trusts, and maybe a certificate of its own with its key.
///
/// # Errors
/// If a file can't be read or used, or key and certificate don't fit.
pub fn client_config(ca: &Path, own: Option<(&Path, &Path)>) -> Result<ClientConfig, TlsError> {
    let roots = Arc::new(roots(certificates(ca)?, ca)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider());
    let verifier = verifier.build().map_err(|error| bad(ca, error))?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_webpki_verifier(verifier);
    Ok(match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certified = certified(certificates(certificate)?, certificate, key)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    })
}

pub(super) fn bad(path: &Path, error: impl ToString) -> TlsError {
    TlsError::BadCertificate { path: path.to_owned(), error: error.to_string() }
}

/// A certificate's subject, as far as it is shown.
#[must_use]
pub fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(shown(&certificate))
}

/// The common name in a certificate's subject; nothing if there is none, or none that can be read.
#[must_use]
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let name = certificate.tbs_certificate().subject().common_name().ok()??;
    Some(name.value().into_owned())
}

fn shown(certificate: &Certificate) -> String {
    certificate.tbs_certificate().subject().to_string().chars().take(SUBJECT).collect()
}

/// None for a certificate that only rustls can read.
pub(super) fn end(certificate: &CertificateDer<'_>) -> Option<End> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let at = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    let at = Stamp(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
    Some(End { subject: shown(&certificate), at })
}

/// When a certificate begins to be valid, since 1970.
pub(super) fn begin(certificate: &CertificateDer<'_>) -> Option<Duration> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate().validity().not_before.to_unix_duration())
}

pub(super) fn roots(
    authorities: Vec<CertificateDer<'static>>,
    path: &Path,
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| bad(path, error))?;
    }
    Ok(roots)
}

pub(super) fn certified(
    chain: Vec<CertificateDer<'static>>,
    certificate: &Path,
    key: &Path,
) -> Result<CertifiedKey, TlsError> {
    let pem = read(key)?;
    let found = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        PemError::NoItemsFound => TlsError::NoKey { path: key.to_owned() },
        error => TlsError::Pem { path: key.to_owned(), error },
    })?;
    let found = provider().key_provider.load_private_key(found);
    let found = found.map_err(|error| TlsError::BadKey { path: key.to_owned(), error })?;
    let certified = CertifiedKey::new(chain, found);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() })
        }
        Err(error) => Err(bad(certificate, error)),
    }
}

/// Whether a file of authorities has this one.
///
/// # Errors
/// If it can't be read.
pub fn trusts(ca: &Path, authority: &CertificateDer<'_>) -> Result<bool, TlsError> {
    Ok(certificates(ca)?.contains(authority))
}

/// The certificates in a file: at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| TlsError::Pem { path: path.to_owned(), error })?;
    match found.is_empty() {
        true => Err(TlsError::NoCertificate { path: path.to_owned() }),
        false => Ok(found),
    }
}

/// The revocation lists in a file: at least one. With lists, each authority needs one, or none of its certificates is taken.
fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| TlsError::Pem { path: path.to_owned(), error })?;
    match found.is_empty() {
        true => Err(TlsError::NoRevocationList { path: path.to_owned() }),
        false => Ok(found),
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut content = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(PEM_FILE as u64 + 1).read_to_end(&mut content));
    read.map_err(|error| TlsError::Read { path: path.to_owned(), error })?;
    match content.len() > PEM_FILE {
        true => Err(TlsError::TooLarge { path: path.to_owned() }),
        false => Ok(content),
    }
}

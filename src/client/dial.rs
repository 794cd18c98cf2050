//! Connects to a node, encrypted or not.
//!
//! Invariant: an encrypted connection is to a node whose certificate names the host that was dialled, and for which an
//! authority vouches that the caller has named.
//!
//! Deliberately absent: the system's authorities, and falling back to an unencrypted connection.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, Error, InvalidMessage};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use vulpes_raft::host::BoxStream;

use crate::config::Address;
use crate::tls::files::client_config;
use crate::tls::TlsError;

/// The authorities that a client trusts, and its own certificate.
#[derive(Clone, Default)]
pub struct Dialer(Option<Arc<ClientConfig>>);

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Dialer(tls)" } else { "Dialer" })
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{0}")]
    Unreachable(#[from] io::Error),
    #[error("it is encrypted: name the PEM file of the authority that signed the node's certificate with --ca FILE; the system's authorities are not trusted by themselves")]
    NoAuthority,
    #[error("no encrypted connection came about: {0}")]
    NoTls(String),
}

impl Dialer {
    /// Trusts the authorities in a PEM file; shows a certificate, with its key, to nodes that ask for one.
    ///
    /// # Errors
    /// If a file can't be read or used.
    pub fn trusting(ca: &Path, own: Option<(&Path, &Path)>) -> Result<Self, TlsError> {
        Ok(Self(Some(Arc::new(client_config(ca, own)?))))
    }

    /// Connects to a node.
    ///
    /// # Errors
    /// If it can't be reached, or not be trusted.
    pub async fn connect(
        &self,
        address: &Address,
        encrypted: bool,
    ) -> Result<BoxStream, DialError> {
        let config = match (encrypted, &self.0) {
            (true, None) => return Err(DialError::NoAuthority),
            (true, Some(config)) => Some(config.clone()),
            (false, _) => None,
        };
        let stream = TcpStream::connect(address.as_str()).await?;
        stream.set_nodelay(true)?;
        let Some(config) = config else { return Ok(Box::new(stream)) };
        let host = address.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name =
            ServerName::try_from(host).map_err(|error| DialError::NoTls(error.to_string()))?;
        match TlsConnector::from(config).connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(match refusal(&error) {
                Some(reason) => DialError::NoTls(reason),
                None => error.into(),
            }),
        }
    }
}

/// What to do about a connection that TLS has ended, if it has. A node that does not like a client's certificate says so
/// only when the client reads.
pub(crate) fn refusal(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let advice = match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            return Some("the node does not speak TLS at this address".into());
        }
        Error::InvalidCertificate(_) => {
            "--ca has to name the authority that signed the node's certificate, and the certificate the host"
        }
        Error::AlertReceived(_) => {
            "the node may ask for a certificate, or not trust the one it was shown: see --cert and --key"
        }
        _ => return Some(error.to_string()),
    };
    Some(format!("{error}; {advice}"))
}

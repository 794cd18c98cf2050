//! The options of commands that connect to nodes with TLS.
//!
//! Deliberately absent: trusting the system's authorities. A cluster has its own, and a command says which.

use std::path::PathBuf;

use clap::Args;

use crate::client::dial::Dialer;
use crate::tls::TlsError;

/// Whom a command trusts, and who it says it is.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct TlsArgs {
    /// PEM file of the authorities that nodes' certificates may be signed by; needed for encrypted addresses
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file of the certificate to show to nodes that ask for one
    #[arg(long, value_name = "FILE", requires = "key", requires = "ca")]
    cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl TlsArgs {
    /// Reads the files.
    pub(super) fn dialer(&self) -> Result<Dialer, TlsError> {
        let Some(ca) = &self.ca else { return Ok(Dialer::default()) };
        Dialer::trusting(ca, self.cert.as_deref().zip(self.key.as_deref()))
    }
}

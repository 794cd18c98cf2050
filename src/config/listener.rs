//! The listeners of a node beside those under `[listen]`: any number for each protocol, each with TLS or without.
//!
//! Invariant: a [`Listener`] that exists asks clients for certificates only if it can check them.
//!
//! Deliberately absent: what is in the files of certificates and keys (`tls`).

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Address, Member, Problem, Role};

/// Most listeners of a node beside those under `[listen]`.
pub const LISTENERS: usize = 32;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerProtocol {
    /// MQTT over TCP; entries only.
    Mqtt,
    /// WAMP over WebSocket; entries only.
    Wamp,
    /// Admin HTTP.
    Admin,
}

impl fmt::Display for ListenerProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mqtt => "mqtt",
            Self::Wamp => "wamp",
            Self::Admin => "admin",
        })
    }
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub protocol: ListenerProtocol,
    pub address: Address,
    /// Without it, nothing is encrypted.
    pub tls: Option<TlsFiles>,
    /// A client's certificate names its user.
    pub certificate_user: bool,
}

/// Where the certificates and keys of a listener are; all files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The listener's certificate, followed by those between it and its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub clients: ClientCertificates,
    /// The lists of clients' certificates that are no longer taken: one of each authority. None if all are taken.
    pub revoked: Option<PathBuf>,
}

/// Whether clients show certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None is asked for.
    None,
    /// A client may show one of these authorities; one of another is refused.
    Ask { ca: PathBuf },
    /// A client has to show one of these authorities.
    Require { ca: PathBuf },
}

impl ClientCertificates {
    /// The file with the authorities that sign clients' certificates.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::Ask { ca } | Self::Require { ca } => Some(ca),
        }
    }
}

/// A mistake in one listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenerMistake {
    #[error(
        "node {0} is not an entry, and only entries serve clients; remove it or add the role entry"
    )]
    NoEntry(vulpes_raft::ids::NodeId),
    #[error("tls.{0} is empty; name a PEM file")]
    NoPath(&'static str),
    #[error("tls.client_ca is given, but clients are not asked for certificates; set client_certificates to \"ask\" or \"require\", or remove client_ca")]
    UnusedCa,
    #[error("tls.client_revoked is given, but clients are not asked for certificates; set client_certificates to \"require\" or \"ask\", or remove it")]
    UnusedRevoked,
    #[error("tls.certificate_user is set, but clients are not asked for certificates; set client_certificates to \"require\" or \"ask\", or remove it")]
    NoCertificateUser,
    #[error(
        "tls.certificate_user is for mqtt and wamp; who uses admin HTTP logs in with a password"
    )]
    AdminPassword,
    #[error("tls.client_certificates is {0:?}, but there is no client_ca; name the PEM file of the authorities that sign clients' certificates")]
    NoCa(&'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerTable {
    protocol: ListenerProtocol,
    address: Address,
    tls: Option<TlsTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_revoked: Option<PathBuf>,
    #[serde(default)]
    client_certificates: Policy,
    #[serde(default)]
    certificate_user: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Policy {
    #[default]
    None,
    Ask,
    Require,
}

/// Reads the listeners of a node. Paths are relative to a folder.
pub(super) fn check(
    tables: Vec<ListenerTable>,
    own: &Member,
    beside: &Path,
    problems: &mut Vec<Problem>,
) -> Vec<Listener> {
    if tables.len() > LISTENERS {
        problems.push(Problem::TooManyListeners(tables.len()));
    }
    let mut listeners = Vec::with_capacity(tables.len());
    for (number, table) in (1..).zip(tables) {
        let mut mistakes = Vec::new();
        let ListenerTable { protocol, address, tls } = table;
        if protocol != ListenerProtocol::Admin && !own.has(Role::Entry) {
            mistakes.push(ListenerMistake::NoEntry(own.id));
        }
        let certificate_user = tls.as_ref().is_some_and(|tls| tls.certificate_user);
        let tls = tls.map(|tls| check_tls(tls, beside, &mut mistakes));
        let asks = tls.as_ref().is_some_and(|tls| tls.clients.ca().is_some());
        match protocol {
            ListenerProtocol::Admin if certificate_user => {
                mistakes.push(ListenerMistake::AdminPassword);
            }
            _ if certificate_user && !asks => mistakes.push(ListenerMistake::NoCertificateUser),
            _ => {}
        }
        let mistakes = mistakes.into_iter();
        problems.extend(mistakes.map(|mistake| Problem::Listener { number, mistake }));
        listeners.push(Listener { protocol, address, tls, certificate_user });
    }
    listeners
}

fn check_tls(table: TlsTable, beside: &Path, mistakes: &mut Vec<ListenerMistake>) -> TlsFiles {
    let mut path = |name, path: PathBuf| {
        if path.as_os_str().is_empty() {
            mistakes.push(ListenerMistake::NoPath(name));
        }
        beside.join(path)
    };
    let certificate = path("certificate", table.certificate);
    let key = path("key", table.key);
    let ca = table.client_ca.map(|ca| path("client_ca", ca));
    let revoked = table.client_revoked.map(|lists| path("client_revoked", lists));
    let clients = match (table.client_certificates, ca) {
        (Policy::Ask, Some(ca)) => ClientCertificates::Ask { ca },
        (Policy::Require, Some(ca)) => ClientCertificates::Require { ca },
        (Policy::None, None) => ClientCertificates::None,
        (policy, _) => {
            mistakes.push(match policy {
                Policy::None => ListenerMistake::UnusedCa,
                Policy::Ask => ListenerMistake::NoCa("ask"),
                Policy::Require => ListenerMistake::NoCa("require"),
            });
            ClientCertificates::None
        }
    };
    if revoked.is_some() && clients.ca().is_none() {
        mistakes.push(ListenerMistake::UnusedRevoked);
    }
    TlsFiles { certificate, key, clients, revoked }
}

/// Writes the listeners, line by line. `text` writes a string as TOML has it.
pub(super) fn write(
    listeners: &[Listener],
    text: impl Fn(&str) -> String,
    line: &mut impl FnMut(String),
) {
    for listener in listeners {
        line(format!("\n[[listener]]\nprotocol = \"{}\"", listener.protocol));
        line(format!("address = {}", text(listener.address.as_str())));
        let Some(tls) = &listener.tls else { continue };
        let path = |path: &Path| text(&path.to_string_lossy());
        line("\n[listener.tls]  # PEM files, relative to this one; read again on SIGHUP, and when they change".into());
        line(format!("certificate = {}", path(&tls.certificate)));
        line(format!("key = {}", path(&tls.key)));
        let (policy, ca) = match &tls.clients {
            ClientCertificates::None => continue,
            ClientCertificates::Ask { ca } => ("ask", ca),
            ClientCertificates::Require { ca } => ("require", ca),
        };
        line(format!("client_ca = {}", path(ca)));
        line(format!("client_certificates = \"{policy}\""));
        if let Some(revoked) = &tls.revoked {
            line(format!("client_revoked = {}", path(revoked)));
        }
        if listener.certificate_user {
            line("certificate_user = true".into());
        }
    }
}

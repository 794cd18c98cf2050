//! TLS between nodes: 1.3 only, with certificates on both sides, signed by the cluster's authority alone.
//!
//! It is an edge: [`NodeTls::over`] is the host's network with encrypted dials, and [`NodeTls::accept`] is the other side. What
//! is spoken within is the same as without.
//!
//! Invariant: the dialler has a connection only to the node that it wanted, and before it says anything. The other side says
//! nothing before the dialler's certificate is one of the cluster's, and [`Shown::fits`] has to agree to what the hello says.
//! Every connection proves both certificates anew: none is resumed.
//!
//! Deliberately absent: deadlines and how many handshakes go on at a time, which the callers bound.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, Resumption};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage, RootCertStore,
    ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName, UnixTime};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use vulpes_raft::host::{BoxStream, Listener, Net};
use vulpes_raft::ids::NodeId;
use vulpes_raft::net::wire::Identity;

use super::encrypted::Encrypted;
use super::files::{bad, begin, certificates, certified, end, provider, roots, End, Loaded};
use super::name::{NodeName, NotItsName};
use super::watched::{Files, Reread, Watched};
use super::TlsError;
use crate::config::peer_tls::PeerTls;

/// A node's files, and whose they have to be.
#[derive(Clone, Debug)]
pub struct NodeFiles {
    pub files: PeerTls,
    pub own: NodeName,
}

/// What both sides of new connections begin with.
pub(super) struct Sides {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Files for NodeFiles {
    type Config = Sides;

    fn paths(&self) -> Vec<&Path> {
        let PeerTls { certificate, key, ca } = &self.files;
        vec![certificate, key, ca]
    }

    fn user(&self) -> String {
        format!("the node port with {}", self.files.certificate.display())
    }

    fn load(&self) -> Result<Loaded<Sides>, TlsError> {
        let PeerTls { certificate, key, ca } = &self.files;
        let chain = certificates(certificate)?;
        let authorities = certificates(ca)?;
        let ends: Vec<End> = chain.iter().chain(&authorities).filter_map(end).collect();
        let trusted = Arc::new(roots(authorities, ca)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(trusted.clone(), provider());
        let verifier = verifier.build().map_err(|error| bad(ca, error))?;
        let cluster = Arc::new(OfTheCluster { roots: trusted, provider: provider() });
        self.check(&chain, &verifier, &cluster)?;
        let own = Arc::new(SingleCertAndKey::from(certified(chain, certificate, key)?));
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(own.clone());
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(cluster)
            .with_client_cert_resolver(own);
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        let config = Arc::new(Sides { server: Arc::new(server), client: Arc::new(client) });
        Ok(Loaded { config, ends })
    }
}

impl NodeFiles {
    /// Checks that the others will take the certificate, as far as that can be known here. That it has expired is no reason to
    /// stop: a warning says so, and connections that are open go on.
    fn check(
        &self,
        chain: &[CertificateDer<'static>],
        client: &Arc<dyn ClientCertVerifier>,
        server: &OfTheCluster,
    ) -> Result<(), TlsError> {
        let path = || self.files.certificate.clone();
        let (own, between) =
            chain.split_first().ok_or_else(|| TlsError::NoCertificate { path: path() })?;
        self.own.is_in(own).map_err(|error| TlsError::NotThisNode { path: path(), error })?;
        let now = UnixTime::now();
        let taken = client.verify_client_cert(own, between, now).map(|_| ());
        let taken = taken.and_then(|()| server.verify(own, between, now));
        match taken {
            Err(Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ))
            | Ok(()) => Ok(()),
            Err(error) => {
                let ca = self.files.ca.clone();
                Err(TlsError::NotOfTheCluster { path: path(), ca, error })
            }
        }
    }
}

/// Takes certificates of the cluster's authority. Which node's it is, is checked once the connection stands: what is verified
/// here is a host name, and nodes have none.
#[derive(Debug)]
struct OfTheCluster {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl OfTheCluster {
    fn verify(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let shown = ParsedCertificate::try_from(shown)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&shown, &self.roots, between, now, algorithms)
    }
}

impl ServerCertVerifier for OfTheCluster {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(shown, between, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, shown, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, shown, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether nodes that trust this authority take this certificate once both are valid.
pub(super) fn signed(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'static>,
) -> bool {
    let mut roots = RootCertStore::empty();
    let begins = begin(certificate).max(begin(authority)).map(UnixTime::since_unix_epoch);
    let (Ok(()), Some(begins)) = (roots.add(authority.clone()), begins) else { return false };
    let cluster = OfTheCluster { roots: Arc::new(roots), provider: provider() };
    cluster.verify(certificate, &[], begins).is_ok()
}

/// Why a connection between nodes has not become an encrypted one.
#[derive(Debug, thiserror::Error)]
pub enum NoNodeTls {
    #[error("the peer does not speak TLS; give all nodes of the cluster [peer_tls], or none")]
    Plain,
    #[error("the peer has closed the connection in the handshake; if it is a node, give all nodes of the cluster [peer_tls], or none")]
    Closed,
    #[error("the peer's certificate is not taken: {0}; `vulpes certs show` tells at both nodes whether their files under [peer_tls] fit")]
    Foreign(Error),
    #[error("the peer does not take this node's certificate: {0}; `vulpes certs show` tells at both nodes whether their files under [peer_tls] fit")]
    NotTaken(Error),
    #[error("no TLS came about: {0}")]
    Failed(io::Error),
    #[error(transparent)]
    NotThatNode(#[from] NotItsName),
}

impl NoNodeTls {
    fn of(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::Plain,
            Some(wrong @ Error::InvalidCertificate(_)) => Self::Foreign(wrong.clone()),
            Some(told @ Error::AlertReceived(_)) => Self::NotTaken(told.clone()),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Failed(error),
        }
    }
}

/// What a dialling node has shown, and was checked to be of the cluster's authority.
pub struct Shown(Option<CertificateDer<'static>>);

impl Shown {
    /// Whether it is the certificate of the node that the peer says it is.
    ///
    /// # Errors
    /// If it is another's.
    pub fn fits(&self, peer: &Identity) -> Result<(), NotItsName> {
        let certificate = self.0.as_ref().ok_or(NotItsName::Unreadable)?;
        NodeName::of_peer(peer).is_in(certificate)
    }
}

/// Encrypts the connections of one node to others, and of others to it.
#[derive(Clone)]
pub struct NodeTls(Arc<Watched<NodeFiles>>);

impl NodeTls {
    pub(super) fn load(files: NodeFiles) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(Watched::load(files)?)))
    }

    pub(super) fn files(&self) -> &dyn Reread {
        &*self.0
    }

    /// Makes a connection that a node has opened an encrypted one.
    ///
    /// # Errors
    /// If the dialler is none of the cluster, with the connection, on which an alert may have been written.
    pub async fn accept(
        &self,
        stream: BoxStream,
    ) -> Result<(BoxStream, Shown), (NoNodeTls, BoxStream)> {
        let accepting = TlsAcceptor::from(self.0.config().server.clone()).accept(stream);
        let stream = accepting.into_fallible().await;
        let stream = stream.map_err(|(error, stream)| (NoNodeTls::of(error), stream))?;
        let stream = Encrypted::new(stream);
        let shown = Shown(stream.client_certificate().cloned());
        Ok((Box::new(stream), shown))
    }

    /// Makes a connection that this node has opened an encrypted one, to this node of the cluster.
    async fn reach(&self, stream: BoxStream, node: NodeId) -> Result<BoxStream, NoNodeTls> {
        let connector = TlsConnector::from(self.0.config().client.clone());
        // Neither sent nor checked: see `OfTheCluster`.
        let no_name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
        let stream = connector.connect(no_name, stream).await.map_err(NoNodeTls::of)?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let cluster = self.0.files.own.cluster.clone();
        let wanted = NodeName { cluster, node };
        wanted.is_in(shown.ok_or(NotItsName::Unreadable)?)?;
        Ok(Box::new(stream))
    }

    /// The same network, which opens encrypted connections to nodes.
    #[must_use]
    pub fn over(&self, net: Arc<dyn Net>) -> Arc<dyn Net> {
        Arc::new(Securing { net, tls: self.clone() })
    }
}

/// A network whose connections to nodes are encrypted.
struct Securing {
    net: Arc<dyn Net>,
    tls: NodeTls,
}

impl Net for Securing {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        self.net.connect(address)
    }

    fn connect_node<'a>(
        &'a self,
        address: &'a str,
        node: NodeId,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = self.net.connect_node(address, node).await?;
            self.tls.reach(stream, node).await.map_err(io::Error::other)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        self.net.listen(address)
    }
}

#[cfg(test)]
mod tests;

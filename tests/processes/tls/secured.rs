//! A node that speaks TLS at three more ports, its authority, and clients that trust it.
//!
//! Deliberately absent: what is expected of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use bytes::{Buf, BytesMut};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams,
};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, ALL_VERSIONS};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::TlsConnector;
use vulpes::client::mqtt::{self, Packet};
use vulpes_jepsen::port::Port;
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;
use x509_cert::der::Decode;

pub(super) type Tls = TlsStream<TcpStream>;

/// An authority, and its certificate.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: rcgen::Certificate,
}

impl Authority {
    pub(super) fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?;
        Ok(Self { issuer: Issuer::new(params, key), root })
    }

    /// A certificate for this machine's loopback interface, and its key.
    pub(super) fn sign(&self, name: &str) -> Result<(rcgen::Certificate, KeyPair)> {
        let mut params = CertificateParams::new(["localhost", "127.0.0.1"].map(str::to_owned))?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?, key))
    }

    /// A client that trusts this authority, speaks these versions, and shows a certificate of another one, if any.
    pub(super) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        shown: Option<&Self>,
    ) -> Result<Arc<ClientConfig>> {
        self.client_with(versions, shown.map(|other| other.sign("client-1")).transpose()?.as_ref())
    }

    /// Its list of these certificates, which it takes back.
    pub(super) fn revokes(&self, revoked: &[&rcgen::Certificate]) -> Result<String> {
        let at = rcgen::date_time_ymd(2026, 1, 1);
        let entry = |one: &&rcgen::Certificate| {
            let one = x509_cert::Certificate::from_der(one.der())?;
            let serial = one.tbs_certificate().serial_number().as_bytes().to_vec();
            anyhow::Ok(RevokedCertParams {
                serial_number: serial.into(),
                revocation_time: at,
                reason_code: None,
                invalidity_date: None,
            })
        };
        let list = CertificateRevocationListParams {
            this_update: at,
            next_update: rcgen::date_time_ymd(2099, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect::<Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// A client that shows this certificate, if any.
    pub(super) fn client_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        shown: Option<&(rcgen::Certificate, KeyPair)>,
    ) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone())?;
        let builder = ClientConfig::builder_with_provider(default_provider().into())
            .with_protocol_versions(versions)?
            .with_root_certificates(roots);
        Ok(Arc::new(match shown {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder.with_client_auth_cert(vec![certificate.der().clone()], key)?
            }
        }))
    }
}

pub(super) struct Secured {
    pub(super) cluster: Cluster,
    pub(super) authority: Authority,
    ports: [Port; 3],
}

impl Secured {
    /// One node, whose ports for clients ask for certificates, or not.
    pub(super) async fn start(client_certificates: &str) -> Result<Self> {
        let mut secured = Self::prepare(client_certificates)?;
        secured.cluster.node_mut(1).start()?;
        secured.cluster.ready().await?;
        Ok(secured)
    }

    pub(super) fn prepare(client_certificates: &str) -> Result<Self> {
        let cluster = crate::cluster().nodes(1).prepare()?;
        let ports = [Port::claim()?, Port::claim()?, Port::claim()?];
        let secured = Self { cluster, authority: Authority::new("authority")?, ports };
        let ca = secured.authority.root.pem();
        std::fs::write(secured.path("ca.pem"), ca)?;
        secured.certify("first")?;
        let (shown, key) = secured.authority.sign("device-7")?;
        std::fs::write(secured.path("client.pem"), shown.pem())?;
        std::fs::write(secured.path("client.key"), key.serialize_pem())?;
        let asked = match client_certificates {
            "none" => String::new(),
            asked => format!("client_ca = \"ca.pem\"\nclient_certificates = \"{asked}\"\n"),
        };
        let mut text = secured.cluster.config_of(1)?;
        for (protocol, port) in ["mqtt", "wamp", "admin"].iter().zip(&secured.ports) {
            let asked = if *protocol == "admin" { "" } else { &asked };
            text += &format!(
                "[[listener]]\nprotocol = \"{protocol}\"\naddress = \"{}\"\n[listener.tls]\n\
                 certificate = \"node.pem\"\nkey = \"node.key\"\n{asked}",
                port.address()
            );
        }
        secured.cluster.node(1).configure(&text)?;
        Ok(secured)
    }

    /// A file beside the configuration.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.cluster.node(1).folder().join(name)
    }

    /// Gives the node another certificate.
    pub(super) fn certify(&self, name: &str) -> Result<()> {
        let (certificate, key) = self.authority.sign(name)?;
        std::fs::write(self.path("node.pem"), certificate.pem())?;
        std::fs::write(self.path("node.key"), key.serialize_pem())?;
        Ok(())
    }

    pub(super) fn mqtt(&self) -> SocketAddr {
        self.ports[0].address()
    }

    pub(super) fn wamp(&self) -> SocketAddr {
        self.ports[1].address()
    }

    pub(super) fn admin(&self) -> SocketAddr {
        self.ports[2].address()
    }

    /// A client that trusts the node's authority, and shows nothing.
    pub(super) fn stranger(&self) -> Result<Arc<ClientConfig>> {
        self.authority.client(ALL_VERSIONS, None)
    }

    pub(super) async fn hang_up(&self) -> Result<()> {
        let kill = format!("kill -HUP {}", self.cluster.node(1).process()?);
        let status = tokio::process::Command::new("sh").arg("-c").arg(kill).status().await?;
        ensure!(status.success(), "{status}");
        Ok(())
    }

    /// Waits until the node has logged this.
    pub(super) async fn says(&self, words: &str) -> Result<()> {
        until(&format!("the node says {words:?}"), PATIENCE, || async {
            let log = std::fs::read(self.path("log"))?;
            ensure!(String::from_utf8_lossy(&log).contains(words), "it does not");
            Ok(())
        })
        .await
    }
}

pub(super) async fn dial(address: SocketAddr, config: Arc<ClientConfig>) -> Result<Tls> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = "localhost".to_owned().try_into()?;
    within("a handshake", PATIENCE, async {
        Ok(TlsConnector::from(config).connect(name, stream).await?)
    })
    .await
}

/// The name in the certificate that the node shows now.
pub(super) async fn shown(address: SocketAddr, config: Arc<ClientConfig>) -> Result<String> {
    let stream = dial(address, config).await?;
    let chain = stream.get_ref().1.peer_certificates().context("the node shows a certificate")?;
    vulpes::tls::files::subject(&chain[0]).context("it has a subject")
}

/// A session of MQTT 3.1.1.
pub(super) struct Mqtt {
    pub(super) stream: Tls,
    input: BytesMut,
}

impl Mqtt {
    pub(super) async fn connect(stream: Tls, name: &str) -> Result<Self> {
        let mut client = Self { stream, input: BytesMut::new() };
        let mut bytes = BytesMut::new();
        mqtt::connect(&mut bytes, name, None);
        client.send(&bytes).await?;
        client.expect(|packet| matches!(packet, Packet::ConnAck { code: 0 })).await?;
        Ok(client)
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// Waits for such a packet; no other one may come before.
    pub(super) async fn expect(&mut self, wanted: impl Fn(&Packet<'_>) -> bool) -> Result<()> {
        within("a packet", PATIENCE, async {
            loop {
                if let Some((packet, length)) = mqtt::read(&self.input)? {
                    ensure!(wanted(&packet), "{packet:?}");
                    self.input.advance(length);
                    return Ok(());
                }
                let read = self.stream.read_buf(&mut self.input).await?;
                ensure!(read > 0, "the connection is closed");
            }
        })
        .await
    }

    pub(super) async fn publish(&mut self, topic: &str, id: u16, text: &str) -> Result<()> {
        let mut bytes = BytesMut::new();
        mqtt::publish(&mut bytes, topic, id, text.as_bytes());
        self.send(&bytes).await?;
        self.expect(|packet| *packet == Packet::PubAck { id }).await
    }
}

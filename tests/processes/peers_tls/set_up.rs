//! A cluster of three nodes with the configurations and certificates of `vulpes init`, and those who dial its node ports.
//!
//! Deliberately absent: what is expected of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::client::TlsStream;
use tokio_rustls::TlsConnector;
use vulpes::config::NodeConfig;
use vulpes::tls::certificates::Certificates;
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;
use vulpes_raft::host::Host;
use vulpes_raft::ids::{DiskId, NodeId};
use vulpes_raft::net::wire::{self, Identity, Link, LinkError, Service};

const VULPES: &str = env!("CARGO_BIN_EXE_vulpes");

/// What a node logs when it has read its files again.
const READ: &str = "new connections of the node port";

/// Runs `vulpes init` for three nodes, with what else is to be said; returns what it prints.
pub(crate) fn init(folder: &Path, more: &[&str]) -> Result<String> {
    let ports = ["--peer-port", "61001", "--wamp-port", "61101", "--mqtt-port", "61201"];
    let output = std::process::Command::new(VULPES)
        .args(["init", "--nodes", "3", "--cluster", "test", "--admin-port", "61301"])
        .args(ports)
        .args(more)
        .arg("--dir")
        .arg(folder)
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

pub(crate) struct SetUp {
    pub(crate) cluster: Cluster,
}

impl SetUp {
    /// A cluster that lets everybody in.
    pub(super) async fn start() -> Result<Self> {
        let (mut set_up, _) = Self::prepare(&["--open"])?;
        for node in 1..=3 {
            set_up.cluster.node_mut(node).start()?;
        }
        set_up.cluster.ready().await?;
        Ok(set_up)
    }

    /// A cluster that is not started yet, and what `vulpes init` has printed.
    pub(crate) fn prepare(more: &[&str]) -> Result<(Self, String)> {
        let set_up = Self { cluster: crate::cluster().nodes(3).prepare()? };
        let printed = init(&set_up.first(), more)?;
        (1..=3).try_for_each(|node| set_up.take(node))?;
        Ok((set_up, printed))
    }

    /// The folder that init has made.
    pub(super) fn first(&self) -> PathBuf {
        self.cluster.folder().join("first")
    }

    /// Takes what init has made for a node to where it runs. Its ports are those that are free here.
    fn take(&self, node: u64) -> Result<()> {
        let mut text = std::fs::read_to_string(self.first().join(format!("node{node}.toml")))?;
        for other in self.cluster.nodes() {
            let ports = [other.peer(), other.wamp(), other.mqtt(), other.admin()];
            for (base, address) in [61_000, 61_100, 61_200, 61_300].into_iter().zip(ports) {
                let planned = format!("127.0.0.1:{}", base + other.id);
                text = text.replace(&planned, &address.to_string());
            }
        }
        ensure!(!text.contains(":61"), "{text}");
        let name = format!("tls/node{node}");
        let there = self.cluster.node(node).folder().join(&name);
        std::fs::create_dir_all(&there)?;
        for file in ["certificate.pem", "key.pem", "ca.pem"] {
            std::fs::copy(self.first().join(&name).join(file), there.join(file))?;
        }
        self.cluster.node(node).configure(&text)
    }

    /// Runs `vulpes certs`, for all nodes if it takes configurations. CA and NEW stand for the authorities' directories.
    pub(super) async fn certs(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(VULPES);
        command.arg("certs");
        for argument in arguments {
            match *argument {
                "CA" => command.arg(self.first().join("ca")),
                "NEW" => command.arg(self.first().join("new")),
                other => command.arg(other),
            };
        }
        if arguments[0] != "authority" {
            command.args(self.cluster.nodes().iter().map(|node| node.config()));
        }
        let output =
            within("vulpes certs", PATIENCE, async { Ok(command.output().await?) }).await?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(())
    }

    /// An authority's certificate.
    pub(super) fn authority(&self, directory: &str) -> Result<String> {
        Ok(std::fs::read_to_string(self.first().join(directory).join("ca.pem"))?)
    }

    /// Makes all nodes trust these authorities.
    pub(super) async fn trust(&self, authorities: &str) -> Result<()> {
        for node in self.cluster.nodes() {
            let path = node.folder().join(format!("tls/node{}/ca.pem", node.id));
            std::fs::write(path, authorities)?;
        }
        self.hang_up().await
    }

    fn reads(&self, node: u64) -> Result<usize> {
        let log = std::fs::read(self.cluster.node(node).folder().join("log"))?;
        Ok(String::from_utf8_lossy(&log).matches(READ).count())
    }

    /// Makes all nodes read their files again, and waits until they have.
    pub(super) async fn hang_up(&self) -> Result<()> {
        for node in self.cluster.nodes() {
            let before = self.reads(node.id)?;
            let kill = format!("kill -HUP {}", node.process()?);
            let status = Command::new("sh").arg("-c").arg(kill).status().await?;
            ensure!(status.success(), "{status}");
            until("a node reads its files again", PATIENCE, || async {
                ensure!(self.reads(node.id)? > before, "it has not");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    pub(super) fn alive(&mut self) -> Result<()> {
        (1..=3).try_for_each(|node| self.cluster.node_mut(node).check_alive())
    }

    /// Dials a node with the files of one that says it is `says`.
    pub(super) async fn dial(
        &self,
        files: u64,
        says: u64,
        to: u64,
        service: Service,
    ) -> Result<Link, LinkError> {
        let config = self.cluster.node(files).config();
        let address = self.cluster.node(to).peer().to_string();
        dial(Some(&config), says, &address, (to, service)).await
    }

    /// The same, with files that init has made somewhere.
    pub(super) async fn dial_from(
        &self,
        folder: &Path,
        files: u64,
        says: u64,
        to: u64,
        service: Service,
    ) -> Result<Link, LinkError> {
        let config = folder.join(format!("node{files}.toml"));
        let address = self.cluster.node(to).peer().to_string();
        dial(Some(&config), says, &address, (to, service)).await
    }

    /// A member that has been taken over dials another.
    pub(super) async fn dial_as_member(
        &self,
        node: u64,
        to: u64,
        service: Service,
    ) -> Result<Link> {
        let folder = self.cluster.node(node).folder();
        let text = std::fs::read_to_string(folder.join(format!("data/node{node}/identity.toml")))?;
        let disk = text.lines().find_map(|line| line.strip_prefix("disk = \"")?.strip_suffix('"'));
        let disk = DiskId(u64::from_str_radix(disk.context("it has a disk")?, 16)?);
        let own = Identity { disk, ..identity(node) };
        let config = NodeConfig::load(&self.cluster.node(node).config())?;
        let host = Host::real();
        let host = Certificates::load(&config, host.clock.clone())?.secure(host);
        let address = self.cluster.node(to).peer().to_string();
        Ok(wire::dial(&host, &own, &address, service, (NodeId(to), None)).await?)
    }

    pub(super) async fn dial_plainly(
        &self,
        says: u64,
        to: u64,
        service: Service,
    ) -> Result<Link, LinkError> {
        dial(None, says, &self.cluster.node(to).peer().to_string(), (to, service)).await
    }

    /// A node, which looks for node `to` at another address.
    pub(super) async fn dial_at(
        &self,
        address: &str,
        node: u64,
        to: u64,
    ) -> Result<Link, LinkError> {
        let config = self.cluster.node(node).config();
        dial(Some(&config), node, address, (to, Service::Fetch)).await
    }

    /// What a node says first, without TLS.
    pub(super) fn hello(&self, node: u64) -> Vec<u8> {
        let (version, service) = (wire::PROTOCOL_VERSION, Service::Fetch);
        let body = wire::encode(&(*b"VULP", version, identity(node), service, None::<String>));
        [&(body.len() as u32).to_be_bytes()[..], &body].concat()
    }
}

fn identity(node: u64) -> Identity {
    Identity { cluster: "test".into(), node: NodeId(node), disk: DiskId(7) }
}

async fn dial(
    config: Option<&Path>,
    says: u64,
    address: &str,
    (to, service): (u64, Service),
) -> Result<Link, LinkError> {
    let host = Host::real();
    let host = match config {
        None => host,
        Some(path) => {
            let config = NodeConfig::load(path).expect("the configuration of a node");
            let certificates = Certificates::load(&config, host.clock.clone());
            certificates.expect("the files of a node").secure(host)
        }
    };
    wire::dial(&host, &identity(says), address, service, (NodeId(to), None)).await
}

/// Somebody without a certificate, who takes every node for the right one.
#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Begins TLS without a certificate. In TLS 1.3 one learns that one is refused only when one reads.
pub(super) async fn stranger(address: SocketAddr) -> Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(default_provider().into())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Careless))
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let connecting = TlsConnector::from(Arc::new(config)).connect("node".try_into()?, stream);
    within("a handshake", PATIENCE, async { Ok(connecting.await?) }).await
}

/// The certificate that new connections to a node port get now.
pub(super) async fn shown(address: SocketAddr) -> Result<Vec<u8>> {
    let stream = stranger(address).await?;
    let chain = stream.get_ref().1.peer_certificates().context("it shows a certificate")?;
    Ok(chain[0].to_vec())
}

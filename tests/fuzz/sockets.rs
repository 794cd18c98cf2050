//! The ports of a real node that has users: many connections at a time, each of which says one input and goes.
//!
//! Invariant: the node lives, has logged no panic, holds no more memory than it may, and answers a probe and a login meanwhile.
//!
//! Deliberately absent: what each connection is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Result};
use base64::prelude::{Engine, BASE64_STANDARD};
use futures::future::join_all;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vulpes::auth::{Cost, Password, Salts, Verifiers};
use vulpes_jepsen::http;
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::port::Port;
use vulpes_jepsen::wait::{within, PATIENCE};
use vulpes_jepsen::Cluster;
use vulpes_raft::ids::{DiskId, NodeId};
use vulpes_raft::net::wire;

use crate::harness::{Run, Target};
use crate::mutate::Input;

/// Connections at once.
const AT_ONCE: usize = 24;

/// How long a connection waits for what it is told.
const HEARS: Duration = Duration::from_millis(60);

/// What the node may hold more than at first: its budget for who has not logged in, and what the allocator keeps.
const MORE: u64 = 160 << 20;

struct Fuzzed {
    cluster: Cluster,
    secured: Vec<Port>,
    at_first: u64,
    /// How often somebody has tried to log in.
    asked: u64,
}

/// A first administrator, so that whoever comes has to log in.
fn users() -> String {
    let password = Password::new(b"pencil").expect("a password");
    let made = Verifiers::derive(&password, &Salts::draw(|| 7), &Cost::CHEAP, None);
    let made = made.expect("there is memory");
    let verifiers = BASE64_STANDARD.encode(made.encode());
    format!("\n[first_administrator]\nname = \"ann\"\nverifiers = \"{verifiers}\"\n")
}

impl Fuzzed {
    async fn start() -> Result<Self> {
        let binary = env!("CARGO_BIN_EXE_vulpes");
        let mut cluster = Cluster::builder(binary).nodes(1).prepare()?;
        let params = CertificateParams::new(vec!["localhost".to_owned()])?;
        let key = KeyPair::generate()?;
        let folder = cluster.node(1).folder().to_owned();
        std::fs::write(folder.join("node.pem"), params.self_signed(&key)?.pem())?;
        std::fs::write(folder.join("node.key"), key.serialize_pem())?;
        let mut text = cluster.config_of(1)? + &users();
        let mut secured = Vec::new();
        for protocol in ["mqtt", "wamp", "admin"] {
            let port = Port::claim()?;
            text += &format!(
                "[[listener]]\nprotocol = \"{protocol}\"\naddress = \"{}\"\n[listener.tls]\n\
                 certificate = \"node.pem\"\nkey = \"node.key\"\n",
                port.address()
            );
            secured.push(port);
        }
        cluster.node(1).configure(&text)?;
        cluster.node_mut(1).start()?;
        cluster.ready().await?;
        let mut fuzzed = Self { cluster, secured, at_first: 0, asked: 0 };
        fuzzed.sound().await?;
        fuzzed.at_first = fuzzed.cluster.node(1).resident()?;
        Ok(fuzzed)
    }

    /// Finds out whether the node is as it was.
    async fn sound(&mut self) -> Result<()> {
        self.cluster.node_mut(1).check_alive()?;
        let node = self.cluster.node(1);
        if let Some(complaint) = node.complaint() {
            anyhow::bail!("it complains: {complaint}");
        }
        let answer = http::get(node.admin(), "/readyz").await?;
        ensure!(answer.status == 200, "{answer:?}");
        // Another name each time: failures make the next attempt wait.
        self.asked += 1;
        let name = string(&format!("probe{}", self.asked));
        let login = [string("MQTT"), vec![4, 0xc2, 0, 0], string(""), name, string("no")];
        let told = within("a login is answered", PATIENCE, async {
            let mut stream = TcpStream::connect(node.mqtt()).await?;
            stream.write_all(&packet(0x10, &login.concat())).await?;
            let mut told = [0; 4];
            stream.read_exact(&mut told).await?;
            Ok(told)
        });
        let told = told.await?;
        ensure!(told == [0x20, 2, 0, 4], "a wrong password is answered with {told:02x?}");
        let held = node.resident()?;
        ensure!(self.at_first == 0 || held < self.at_first + MORE, "it holds {held} bytes");
        Ok(())
    }

    /// Says inputs at these addresses until the time is over.
    async fn fuzz(mut self, target: Target, addresses: &[SocketAddr]) -> Result<()> {
        let mut run = Run::new(target);
        loop {
            let mut batch = Vec::new();
            while let Some((input, mut dice)) = run.next() {
                let address = *dice.pick(addresses);
                batch.push((input, address));
                if batch.len() == AT_ONCE {
                    break;
                }
            }
            if batch.is_empty() {
                return self.sound().await;
            }
            join_all(batch.iter().map(|(input, address)| say(input, *address))).await;
            if let Err(error) = self.sound().await {
                let all = batch.into_iter().flat_map(|(input, _)| input).collect();
                run.fail(&all, &format!("{error:#}; it was one of the last {AT_ONCE} inputs"));
            }
        }
    }
}

/// Says an input and listens a little. The node may hang up whenever it likes.
async fn say(input: &Input, address: SocketAddr) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    let _ = stream.set_nodelay(true);
    let said = async {
        for part in input {
            if stream.write_all(part).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = stream.shutdown().await;
        let mut told = [0; 4096];
        while stream.read(&mut told).await.is_ok_and(|length| length > 0) {}
    };
    let _ = tokio::time::timeout(HEARS, said).await;
}

#[tokio::test]
async fn the_node_port() -> Result<()> {
    let fuzzed = Fuzzed::start().await?;
    let identity = wire::Identity { cluster: "test".into(), node: NodeId(1), disk: DiskId(7) };
    let hello = |service: u32| {
        let body =
            wire::encode(&(*b"VULP", wire::PROTOCOL_VERSION, &identity, service, None::<String>));
        [&(body.len() as u32).to_be_bytes()[..], &body].concat()
    };
    let seeds = (0..5).map(|service| vec![hello(service), vec![0, 0, 0, 4, 1, 2, 3, 4]]).collect();
    let words: Vec<&[u8]> = vec![b"VULP", b"\0\0\x04\0", b"\0\x80\0\0", b"\xfc\xff\xff\xff\xff"];
    let target = Target { name: "the_node_port", seeds, words };
    let address = fuzzed.cluster.node(1).peer();
    fuzzed.fuzz(target, &[address]).await
}

#[tokio::test]
async fn the_mqtt_port() -> Result<()> {
    let fuzzed = Fuzzed::start().await?;
    let connect = |level: u8, properties: &[u8], user: &str| {
        let body = [string("MQTT"), vec![level, 0xc2, 0, 9], properties.to_vec()];
        let fields = [string("client"), string(user), string("pencil2")];
        packet(0x10, &[body.concat(), fields.concat()].concat())
    };
    let target = Target {
        name: "the_mqtt_port",
        seeds: vec![
            vec![connect(4, &[], "ann"), packet(0x82, b"\0\x01\0\x01#\0")],
            vec![connect(5, &[5, 0x11, 0, 0, 0, 9], "nobody"), packet(0xe0, &[])],
            vec![packet(
                0x10,
                &[
                    &string("MQTT")[..],
                    &[5, 2, 0, 9, 41, 0x15],
                    &string("SCRAM-SHA-256"),
                    &[0x16],
                    &string("n,,n=ann,r=abcdefghi"),
                    &string(""),
                ]
                .concat(),
            )],
        ],
        words: vec![b"MQTT", b"\xff\xff\xff\x7f", b"\xf0\0", b"\x26\0\x01a\0\x01b", b"eyJ.e30."],
    };
    let address = fuzzed.cluster.node(1).mqtt();
    fuzzed.fuzz(target, &[address]).await
}

/// A frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

#[tokio::test]
async fn the_wamp_port() -> Result<()> {
    let fuzzed = Fuzzed::start().await?;
    let upgrade = |serializer: &str, more: &str| {
        let text = format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: wamp.2.{serializer}\r\n{more}\r\n"
        );
        text.into_bytes()
    };
    let hello = br#"[1,"realm1",{"roles":{},"authmethods":["ticket"],"authid":"ann"}]"#;
    let target = Target {
        name: "the_wamp_port",
        seeds: vec![
            vec![upgrade("json", ""), frame(0x81, hello), frame(0x81, br#"[5,"no",{}]"#)],
            vec![
                upgrade("msgpack", "Origin: http://localhost\r\n"),
                frame(0x82, b"\x93\x01\xa6realm1\x80"),
            ],
            vec![upgrade("cbor", ""), frame(0x01, b"["), frame(0x89, b"ping"), frame(0x80, b"]")],
        ],
        words: vec![
            b"\r\n",
            b"\r\n\r\n",
            b"Content-Length: 99999999\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b": ",
            b"Sec-WebSocket-Extensions: permessage-deflate\r\n",
            b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x88\x80\0\0\0\0",
            b"HTTP/9.9",
        ],
    };
    let address = fuzzed.cluster.node(1).wamp();
    fuzzed.fuzz(target, &[address]).await
}

#[tokio::test]
async fn the_admin_port() -> Result<()> {
    let fuzzed = Fuzzed::start().await?;
    let ask = |line: &str, lines: &str, body: &str| {
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n");
        vec![format!("{head}{lines}\r\n").into_bytes(), body.as_bytes().to_vec()]
    };
    let basic = "Authorization: Basic YW5uOm5v\r\nContent-Type: application/json\r\n";
    let target = Target {
        name: "the_admin_port",
        seeds: vec![
            ask("GET /status", "", ""),
            ask("GET /log?from=1&max=2", "Origin: http://localhost\r\n", ""),
            ask("POST /users", basic, r#"[{"add":{"name":"x","password":"y"}}]"#),
            ask("GET /can?user=ann&action=publish&topic=a%2fb", "Expect: 100-continue\r\n", ""),
            ask("GET http://evil.example/roles", "Connection: close\r\n", ""),
        ],
        words: vec![
            b"\r\n",
            b"\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Host: ",
            b"HTTP/2.0",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"%",
            b"%00",
            b"?",
            b"/../",
            b"Authorization: Basic ",
            b"Content-Length: -1\r\n",
            b"fffffffffffffff\r\n",
        ],
    };
    let address = fuzzed.cluster.node(1).admin();
    fuzzed.fuzz(target, &[address]).await
}

/// What a client says first in TLS.
fn client_hello(versions: &[&'static SupportedProtocolVersion]) -> Result<Vec<u8>> {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    let authority = CertificateParams::new(Vec::new())?.self_signed(&KeyPair::generate()?)?;
    roots.add(authority.der().clone())?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_webpki_verifier(verifier.build()?)
        .with_no_client_auth();
    let mut client = ClientConnection::new(config.into(), "localhost".try_into()?)?;
    let mut said = Vec::new();
    client.write_tls(&mut said)?;
    Ok(said)
}

#[tokio::test]
async fn the_tls_ports() -> Result<()> {
    let fuzzed = Fuzzed::start().await?;
    let (old, new) =
        (client_hello(&[&rustls::version::TLS12])?, client_hello(rustls::ALL_VERSIONS)?);
    let record = |kind: u8, length: u16| [&[kind, 3, 3], &length.to_be_bytes()[..]].concat();
    let target = Target {
        name: "the_tls_ports",
        seeds: vec![
            vec![new.clone(), vec![0x14, 3, 3, 0, 1, 1], record(0x17, 64), vec![7; 64]],
            vec![old.clone(), record(0x16, 4), vec![0x10, 0, 0, 0]],
            // A hello over several records, and over several reads.
            vec![
                record(0x16, 4),
                new[5..9].to_vec(),
                record(0x16, (new.len() - 9) as u16),
                new[9..].to_vec(),
            ],
            vec![record(0x16, 0x4000), vec![1; 0x4000], record(0x16, 0x4001)],
            vec![record(0x15, 2), vec![2, 40]],
        ],
        words: vec![
            b"\x16\x03\x01\x40\0",
            b"\x16\x03\x03\x48\x01",
            b"\x14\x03\x03\0\x01\x01",
            b"\x15\x03\x03\0\0",
            b"\x80\x2e",
        ],
    };
    let addresses: Vec<SocketAddr> = fuzzed.secured.iter().map(Port::address).collect();
    fuzzed.fuzz(target, &addresses).await
}

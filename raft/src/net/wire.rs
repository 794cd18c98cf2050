//! The codec for messages between nodes and for data on disk, with limits; the handshake; and the transport.
//!
//! Invariant: every connection between nodes begins with a [`Hello`] in each direction, so that a node of another
//! cluster, version or disk is refused before its first request. No frame is larger than [`MAX_FRAME`], and decoding one never
//! allocates more than that at a time, whatever lengths it claims; decoding a hello, no more than [`HELLO_DECODED`].
//!
//! Deliberately absent: the services on a connection, and encryption, which is the network's ([`crate::host::Net`]) and that of
//! the listener's owner.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{de::DeserializeOwned, Deserialize, Serialize};
use tarpc::serde_transport::Transport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::LengthDelimitedCodec;

use crate::format::LOG_FORMAT;
use crate::host::{BoxStream, Host};
use crate::ids::{DiskId, NodeId};

/// Largest frame between nodes, in bytes: several of the largest segment bodies, with their overhead.
pub const MAX_FRAME: usize = 8 << 20;

/// Largest hello, in bytes.
const MAX_HELLO: usize = 1024;

/// What a hello may claim to hold: as a number of one byte counts as one of eight, more than it has bytes.
const HELLO_DECODED: usize = 16 * MAX_HELLO;

/// Time limit for a peer's hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(3);

/// Time limit for dialling.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Version of everything spoken between nodes. Nodes with different versions don't talk. The last three digits are
/// the version of the messages, the others are the log's format.
pub const PROTOCOL_VERSION: u32 = LOG_FORMAT * 1_000 + MESSAGES_VERSION;

/// Any change of a message gets the next number.
const MESSAGES_VERSION: u32 = 7;

const MAGIC: [u8; 4] = *b"VULP";

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_FRAME>()
}

/// The bytes do not have the expected form.
#[derive(Debug, thiserror::Error)]
#[error("malformed data: {0}")]
pub struct DecodeError(String);

/// Encodes a value. Little-endian, variable-length integers, struct fields in order, enum variants by index.
///
/// # Panics
/// Never for the types of this project, which all have a serde form of known shape.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, config()).expect("our own types always have a serde form")
}

/// Decodes the output of [`encode`]. Extra bytes are an error.
///
/// # Errors
/// If the bytes are too short, too long, or of another form.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, rest) = decode_front(bytes)?;
    match rest.len() {
        0 => Ok(value),
        left => Err(DecodeError(format!("{left} bytes left over"))),
    }
}

/// Decodes the output of [`encode`] at the front of some bytes, and returns the rest.
///
/// # Errors
/// If the bytes are too short, or of another form.
pub fn decode_front<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, config())
        .map_err(|error| DecodeError(error.to_string()))?;
    Ok((value, &bytes[used..]))
}

/// The purpose of a connection. Each has its own, so that heartbeats never wait behind bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Service {
    /// Raft among the sync members.
    Raft,
    /// Proposals, leases and the followed order, from any node to a sync member.
    Sync,
    /// Bodies and votes, between an entry and a storage.
    Append,
    /// Reading bodies and rows of a storage.
    Fetch,
    /// Calls from a caller's entry to a callee's, and their progress.
    Calls,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raft => "Raft",
            Self::Sync => "the order",
            Self::Append => "storing segments",
            Self::Fetch => "reading what is kept",
            Self::Calls => "calls",
        })
    }
}

/// The speaking node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's name; all its nodes have the same.
    pub cluster: String,
    pub node: NodeId,
    pub disk: DiskId,
}

/// The first frame each way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    magic: [u8; 4],
    version: u32,
    identity: Identity,
    service: Service,
    /// In the answer: why the connection is refused, if it is.
    refusal: Option<String>,
}

/// Why a connection between nodes failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("no connection: {0}")]
    Io(#[from] io::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the peer does not speak this protocol: {0}")]
    NotAPeer(String),
    #[error("refused: {0}")]
    Refused(String),
}

/// A connection whose hello is done.
pub struct Link {
    pub peer: Identity,
    pub service: Service,
    pub stream: BoxStream,
}

/// Dials a peer for one service and checks that it is the right node: `expected` is its number, and its disk if
/// known.
///
/// # Errors
/// If it can't be reached, is another node, or refuses.
pub async fn dial(
    host: &Host,
    own: &Identity,
    address: &str,
    service: Service,
    expected: (NodeId, Option<DiskId>),
) -> Result<Link, LinkError> {
    let connecting = host.net.connect_node(address, expected.0);
    let mut stream = within(CONNECT_TIMEOUT, connecting).await??;
    within(HELLO_TIMEOUT, async {
        let hello = Hello {
            magic: MAGIC,
            version: PROTOCOL_VERSION,
            identity: own.clone(),
            service,
            refusal: None,
        };
        write_hello(&mut stream, &hello).await?;
        let answer = read_hello(&mut stream).await?;
        if let Some(reason) = answer.refusal {
            return Err(LinkError::Refused(reason));
        }
        check(own, &answer).map_err(LinkError::NotAPeer)?;
        let (node, disk) = expected;
        if answer.identity.node != node {
            let found = answer.identity.node;
            return Err(LinkError::NotAPeer(format!("{address} is node {found}, not node {node}")));
        }
        if disk.is_some_and(|disk| disk != answer.identity.disk) {
            return Err(LinkError::Refused(wiped(node)));
        }
        Ok(answer.identity)
    })
    .await?
    .map(|peer| Link { peer, service, stream })
}

/// Answers a dialler's hello. `admit` says whether this peer may use this service, or why not.
///
/// # Errors
/// If the peer is not one of ours or was refused. In the latter case it was sent the reason.
pub async fn welcome(
    mut stream: BoxStream,
    own: &Identity,
    admit: impl FnOnce(&Identity, Service) -> Result<(), String>,
) -> Result<Link, LinkError> {
    within(HELLO_TIMEOUT, async {
        let hello = read_hello(&mut stream).await?;
        let verdict = check(own, &hello).and_then(|()| admit(&hello.identity, hello.service));
        let answer = Hello {
            magic: MAGIC,
            version: PROTOCOL_VERSION,
            identity: own.clone(),
            service: hello.service,
            refusal: verdict.clone().err(),
        };
        write_hello(&mut stream, &answer).await?;
        verdict.map_err(LinkError::Refused)?;
        Ok((hello.identity, hello.service))
    })
    .await?
    .map(|(peer, service)| Link { peer, service, stream })
}

/// The message to a node whose disk is not the one that its number was enrolled with.
#[must_use]
pub fn wiped(node: NodeId) -> String {
    format!(
        "node {node} comes with another disk than the one it was enrolled with; \
         give it its old data directory back, or add it to the cluster under a new number"
    )
}

fn check(own: &Identity, hello: &Hello) -> Result<(), String> {
    if hello.version != PROTOCOL_VERSION {
        return Err(format!(
            "node {} speaks version {} between nodes, node {} speaks {PROTOCOL_VERSION}; run the same release on all",
            hello.identity.node, hello.version, own.node
        ));
    }
    if hello.identity.cluster != own.cluster {
        return Err(format!(
            "node {} belongs to cluster {:?}, node {} to {:?}",
            hello.identity.node, hello.identity.cluster, own.node, own.cluster
        ));
    }
    Ok(())
}

async fn within<T>(
    limit: Duration,
    future: impl std::future::Future<Output = T>,
) -> Result<T, LinkError> {
    tokio::time::timeout(limit, future).await.map_err(|_| LinkError::Timeout(limit))
}

async fn write_hello(stream: &mut BoxStream, hello: &Hello) -> Result<(), LinkError> {
    let body = encode(hello);
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&body);
    stream.write_all(&frame).await?;
    stream.flush().await?;
    Ok(())
}

/// Whoever says it may be anybody, so its claims about lengths are held to what a hello can be.
fn decode_hello(body: &[u8]) -> Result<Hello, DecodeError> {
    let config = bincode::config::standard().with_limit::<HELLO_DECODED>();
    let (hello, used) = bincode::serde::decode_from_slice(body, config)
        .map_err(|error| DecodeError(error.to_string()))?;
    match body.len() - used {
        0 => Ok(hello),
        left => Err(DecodeError(format!("{left} bytes left over"))),
    }
}

async fn read_hello(stream: &mut BoxStream) -> Result<Hello, LinkError> {
    let length = stream.read_u32().await? as usize;
    if length > MAX_HELLO {
        return Err(LinkError::NotAPeer("its first frame is no hello".into()));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let hello = decode_hello(&body).map_err(|error| LinkError::NotAPeer(error.to_string()))?;
    if hello.magic != MAGIC {
        return Err(LinkError::NotAPeer("its first frame is no hello".into()));
    }
    Ok(hello)
}

/// A tarpc transport over a connection: length-delimited frames of [`encode`]d messages.
#[must_use]
pub fn transport<In, Out>(stream: BoxStream) -> Transport<BoxStream, In, Out, Codec<In, Out>>
where
    In: DeserializeOwned,
    Out: Serialize,
{
    let framed = LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_framed(stream);
    tarpc::serde_transport::new(framed, Codec(PhantomData))
}

/// The codec of [`transport`].
#[derive(Debug)]
pub struct Codec<In, Out>(PhantomData<fn() -> (In, Out)>);

impl<In: DeserializeOwned, Out> tokio_serde::Deserializer<In> for Codec<In, Out> {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, frame: &BytesMut) -> io::Result<In> {
        decode(frame).map_err(io::Error::other)
    }
}

impl<In, Out: Serialize> tokio_serde::Serializer<Out> for Codec<In, Out> {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, message: &Out) -> io::Result<Bytes> {
        Ok(encode(message).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let identity = Identity { cluster: "v".into(), node: NodeId(300), disk: DiskId(1) };
        assert_eq!(encode(&identity), [1, b'v', 251, 44, 1, 1]);
        assert_eq!(decode::<Identity>(&encode(&identity)).map_err(|e| e.to_string()), Ok(identity));
    }

    /// A node of another release, whether its messages or its log format differ.
    #[tokio::test]
    async fn another_version_is_refused_and_told_why() {
        let identity = |node| Identity { cluster: "v".into(), node: NodeId(node), disk: DiskId(1) };
        for version in [PROTOCOL_VERSION - 1_000, PROTOCOL_VERSION + 1_000, PROTOCOL_VERSION - 1] {
            let (here, there) = tokio::io::duplex(MAX_HELLO);
            let own = identity(1);
            let welcoming = welcome(Box::new(here), &own, |_, _| Ok(()));
            let dialling = async {
                let mut there: BoxStream = Box::new(there);
                let (magic, service, refusal) = (MAGIC, Service::Sync, None);
                let hello = Hello { magic, version, identity: identity(2), service, refusal };
                write_hello(&mut there, &hello).await.unwrap();
                read_hello(&mut there).await.unwrap()
            };
            let (welcomed, answer) = tokio::join!(welcoming, dialling);
            assert!(matches!(welcomed, Err(LinkError::Refused(_))));
            let said =
                format!("speaks version {version} between nodes, node 1 speaks {PROTOCOL_VERSION}");
            assert!(answer.refusal.unwrap().contains(&said));
        }
    }

    /// A few bytes that claim a name of megabytes have no room made for it.
    #[test]
    fn a_hello_claims_no_more_than_it_can_be() {
        let identity = |name: &str| Identity {
            cluster: name.into(),
            node: NodeId(u64::MAX),
            disk: DiskId(u64::MAX),
        };
        let refusal = Some("r".repeat(MAX_HELLO / 2));
        let hello = |name: &str| {
            encode(&(MAGIC, PROTOCOL_VERSION, identity(name), Service::Calls, &refusal))
        };
        let long = hello(&"n".repeat(MAX_HELLO / 2 - 64));
        assert!(long.len() <= MAX_HELLO && decode_hello(&long).is_ok());
        let mut claims = encode(&(MAGIC, PROTOCOL_VERSION));
        claims.push(252);
        claims.extend(6_000_000_u32.to_le_bytes());
        let error = decode_hello(&claims).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("LimitExceeded"), "{error}");
    }

    #[test]
    fn left_over_and_missing_bytes_are_errors() {
        assert!(decode::<u8>(&[1, 2]).is_err());
        assert!(decode::<(u8, u8)>(&[1]).is_err());
        assert!(decode::<Vec<u8>>(&[253, 255, 255, 255, 255, 255, 255, 255, 255, 1]).is_err());
    }
}

//! An event: what a client published, independent of the protocol.
//!
//! Invariant: a payload is stored in its original encoding, byte for byte; it is converted only for a subscriber that needs
//! another one.
//!
//! Deliberately absent: ids. An event has none until its segment is resolved.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::topic::{Realm, Topic};

mod extensions;

pub use extensions::{Extensions, ExtensionsError, Field, Tag};

/// A client's session: random, 1 to 2^53, unique over the cluster; a WAMP id.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SessionId(pub u64);

/// Identifies a client over all its sessions: a hash of its name (MQTT client identifier). Two clients of one realm
/// share one with a probability of 2^-64.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ClientTag(pub u64);

impl ClientTag {
    /// A client without a name: it has no other sessions.
    pub const NONE: Self = Self(0);

    /// The tag of a name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(name.as_bytes()).max(1))
    }
}

/// The encoding of a payload's bytes. Persisted: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Encoding {
    /// Bytes of an MQTT publisher, with unknown meaning.
    Raw = 0,
    /// JSON texts.
    Json = 1,
    /// MessagePack.
    MsgPack = 2,
    /// CBOR.
    Cbor = 3,
}

impl Encoding {
    /// The inverse of `as u8`.
    #[must_use]
    pub fn from_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            0 => Self::Raw,
            1 => Self::Json,
            2 => Self::MsgPack,
            3 => Self::Cbor,
            _ => return None,
        })
    }
}

/// A published payload. With [`Encoding::Raw`], `args` are the bytes themselves and `kwargs` is empty. Otherwise
/// `args` is an encoded list or empty, `kwargs` an encoded dictionary or empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    pub encoding: Encoding,
    pub args: Bytes,
    pub kwargs: Bytes,
}

impl Payload {
    /// Bytes from an MQTT publisher.
    #[must_use]
    pub fn raw(bytes: Bytes) -> Self {
        Self { encoding: Encoding::Raw, args: bytes, kwargs: Bytes::new() }
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.args.len() + self.kwargs.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The quality of service an event was published with; it caps the one it is delivered with to MQTT subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Qos {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl Qos {
    /// The inverse of `as u8`.
    #[must_use]
    pub fn from_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            0 => Self::AtMostOnce,
            1 => Self::AtLeastOnce,
            2 => Self::ExactlyOnce,
            _ => return None,
        })
    }
}

/// One event on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub realm: Realm,
    pub topic: Topic,
    pub publisher: SessionId,
    /// The publisher's client, which may have other sessions.
    pub client: ClientTag,
    /// Not delivered to its own publisher.
    pub exclude_me: bool,
    /// Subscribers learn the publisher's session.
    pub disclose_me: bool,
    /// It asks to become the topic's retained value.
    pub retain: bool,
    pub qos: Qos,
    pub payload: Payload,
    /// MQTT 5 properties that are passed on unchanged (MQTT 5 section 3.3.2.3): content type, response topic,
    /// correlation data, user properties, payload format; without their length prefix. Usually empty.
    pub properties: Bytes,
    /// Its request to the realm's state machine: an encoded `Act`. Usually empty.
    pub act: Bytes,
    /// Usually none.
    pub extensions: Extensions,
}

impl Event {
    /// An event that no subscriber sees: only an act.
    #[must_use]
    pub fn of_act(realm: Realm, topic: &str, publisher: SessionId, act: Bytes) -> Self {
        Self {
            realm,
            topic: Topic::from_canonical(topic),
            publisher,
            client: ClientTag::NONE,
            exclude_me: false,
            disclose_me: false,
            retain: false,
            qos: Qos::AtLeastOnce,
            payload: Payload { encoding: Encoding::Json, args: Bytes::new(), kwargs: Bytes::new() },
            properties: Bytes::new(),
            act,
            extensions: Extensions::default(),
        }
    }

    /// Bytes that a waiting event holds: its own, and those of its topic, which may not be shared.
    #[must_use]
    pub fn held(&self) -> usize {
        self.size() + self.topic.as_str().len()
    }

    /// Bytes the event takes in a segment, without dictionaries: this counts against the event limit.
    #[must_use]
    pub fn size(&self) -> usize {
        self.payload.len() + self.properties.len() + self.act.len() + self.extensions.len()
    }
}

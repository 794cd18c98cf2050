//! MQTT packets (3.1, 3.1.1 and 5) on the wire: our checks in front of rumqttd's codecs.
//!
//! ```text
//! frame      where a packet begins and ends                      here
//! reader     numbers, texts and property lists, all checked      reader, property
//! publish    PUBLISH, both ways, payload shared, not copied      publish
//! will       the will in a CONNECT                               will
//! auth       AUTH of a client                                    auth
//! answer     CONNACK, AUTH and DISCONNECT                              answer
//! codec      CONNECT, SUBSCRIBE, UNSUBSCRIBE, PUBACK and their answers: checked by us, then rumqttd's codec
//! ```
//!
//! Invariant: no bytes make this module panic, and its allocations are bounded by the packet's own length. A packet
//! reaches rumqttd's codec only after its type, flags, lengths, texts and properties were checked here.
//!
//! Deliberately absent: what a packet means for a session.

pub(crate) mod answer;
pub(crate) mod auth;
pub(crate) mod codec;
pub(crate) mod property;
pub(crate) mod publish;
pub(crate) mod reader;
pub(crate) mod will;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use self::codec::{Subscribe, Unsubscribe};
use self::publish::Publish;
use self::reader::Reader;

/// The supported protocol versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Protocol level 3, named `MQIsdp`. Its packets are those of 3.1.1, but a SUBACK can't refuse a filter.
    V31,
    /// Protocol level 4.
    V311,
    /// Protocol level 5.
    V5,
}

impl Version {
    /// Whether it has properties, reason codes and a DISCONNECT from the server.
    pub(crate) fn is_5(self) -> bool {
        self == Self::V5
    }
}

/// The reason codes of MQTT 5 that we send (section 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    Success = 0x00,
    Unspecified = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecific = 0x83,
    UnsupportedVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
}

/// Why a connection or a request is refused: the code for an MQTT 5 client, the text for it and for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) reason: Reason,
    pub(crate) text: Cow<'static, str>,
}

impl Violation {
    pub(crate) fn new(reason: Reason, text: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, text: text.into() }
    }

    pub(crate) fn malformed(text: &'static str) -> Self {
        Self::new(Reason::MalformedPacket, text)
    }

    pub(crate) fn protocol(text: &'static str) -> Self {
        Self::new(Reason::ProtocolError, text)
    }
}

/// Why no packet can be cut from a client's bytes any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the remaining length takes more than four bytes; is the client speaking MQTT?")]
    Length,
    #[error("a packet of {size} bytes was begun, but at most {limit} are accepted")]
    TooLarge { size: usize, limit: usize },
}

impl From<FrameError> for Violation {
    fn from(error: FrameError) -> Self {
        let reason = match error {
            FrameError::Length => Reason::MalformedPacket,
            FrameError::TooLarge { .. } => Reason::PacketTooLarge,
        };
        Self::new(reason, error.to_string())
    }
}

/// The place of a whole packet in a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Type and flags.
    pub(crate) first: u8,
    /// From its first byte on.
    pub(crate) whole: Range<usize>,
    /// What follows the fixed header.
    pub(crate) body: Range<usize>,
}

/// The number of bytes of whole packets at the front of `buffer`, which [`MqttGate`](super::MqttGate) can receive
/// now. 0 if more bytes are needed first. Drivers pass [`limits::CLIENT_MESSAGE`](crate::types::limits::CLIENT_MESSAGE) as
/// `max_packet`.
///
/// # Errors
/// If the first packet can never be accepted, because its length is malformed or it is larger than
/// `max_packet` bytes, fixed header included. This is known before the packet's body has arrived. Whole packets
/// before a bad one are returned first. Hand the bytes to the gate all the same: it finds the same error, tells the
/// client as the protocol does, and closes.
pub fn complete_prefix(buffer: &[u8], max_packet: usize) -> Result<usize, FrameError> {
    let mut at = 0;
    loop {
        match frame(buffer, at, max_packet) {
            Ok(Some(frame)) => at = frame.whole.end,
            Ok(None) => return Ok(at),
            Err(error) if at == 0 => return Err(error),
            Err(_) => return Ok(at),
        }
    }
}

/// How many bytes at the beginning of `buffer` are its first packet, if it is complete; see [`complete_prefix`].
///
/// # Errors
/// Like [`complete_prefix`].
pub fn first_complete(buffer: &[u8], max_packet: usize) -> Result<usize, FrameError> {
    Ok(frame(buffer, 0, max_packet)?.map_or(0, |frame| frame.whole.end))
}

/// The packet that begins at `at`, if it is complete.
pub(crate) fn frame(
    buffer: &[u8],
    at: usize,
    max_packet: usize,
) -> Result<Option<Frame>, FrameError> {
    let Some((first, rest)) = buffer[at..].split_first() else { return Ok(None) };
    let mut length = 0usize;
    for (index, byte) in rest.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let body = at + 2 + index;
            let size = 2 + index + length;
            if size > max_packet {
                return Err(FrameError::TooLarge { size, limit: max_packet });
            }
            let end = body + length;
            let whole = Frame { first: *first, whole: at..end, body: body..end };
            return Ok((end <= buffer.len()).then_some(whole));
        }
    }
    if rest.len() >= 4 {
        return Err(FrameError::Length);
    }
    Ok(None)
}

/// A packet of a client whose CONNECT was accepted.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming<'a> {
    Publish(Publish<'a>),
    Acknowledged {
        packet_id: u16,
    },
    /// A PUBREC.
    Received {
        packet_id: u16,
        failed: bool,
    },
    /// A PUBREL.
    Released {
        packet_id: u16,
    },
    /// A PUBCOMP.
    Completed {
        packet_id: u16,
    },
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    Ping,
    /// MQTT 5 only.
    Auth(auth::Auth),
    /// With a Session Expiry Interval, if the client changes it.
    Disconnect {
        reason: u8,
        expiry: Option<u32>,
    },
}

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 10;
const PINGREQ: u8 = 12;
const DISCONNECT: u8 = 14;
const AUTH: u8 = 15;

impl Frame {
    /// Whether it is a CONNECT, to be read by [`codec::read_connect`].
    pub(crate) fn is_connect(&self) -> bool {
        self.first >> 4 == CONNECT
    }

    /// Reads a packet other than CONNECT from the buffer it was found in.
    ///
    /// # Errors
    /// If it is malformed, or clients must not send it.
    pub(crate) fn read<'a>(
        &self,
        buffer: &'a Bytes,
        version: Version,
    ) -> Result<Incoming<'a>, Violation> {
        let kind = self.first >> 4;
        if kind == PUBLISH {
            return publish::read(buffer, self, version).map(Incoming::Publish);
        }
        // MQTT 5 section 2.1.3: the flags of all other packets are fixed.
        let flags = if matches!(kind, PUBREL | SUBSCRIBE | UNSUBSCRIBE) { 2 } else { 0 };
        // MQTT 3.1 marks a repeated SUBSCRIBE or UNSUBSCRIBE with the DUP flag.
        let ignored = if version == Version::V31 && flags == 2 { 8 } else { 0 };
        if self.first & 0x0F & !ignored != flags {
            return Err(Violation::malformed("reserved flags are set in the fixed header"));
        }
        let body = &buffer[self.body.clone()];
        match kind {
            PUBACK => codec::read_puback(&buffer[self.whole.clone()], body, version)
                .map(|packet_id| Incoming::Acknowledged { packet_id }),
            SUBSCRIBE => codec::read_subscribe(&buffer[self.whole.clone()], body, version)
                .map(Incoming::Subscribe),
            UNSUBSCRIBE => codec::read_unsubscribe(&buffer[self.whole.clone()], body, version)
                .map(Incoming::Unsubscribe),
            PINGREQ if body.is_empty() => Ok(Incoming::Ping),
            PINGREQ => Err(Violation::malformed("a PINGREQ has no body")),
            DISCONNECT => read_disconnect(body, version),
            AUTH if version.is_5() => auth::read(body).map(Incoming::Auth),
            PUBREC => codec::read_acknowledgement(body, version)
                .map(|(packet_id, failed)| Incoming::Received { packet_id, failed }),
            PUBREL => codec::read_acknowledgement(body, version)
                .map(|(packet_id, _)| Incoming::Released { packet_id }),
            PUBCOMP => codec::read_acknowledgement(body, version)
                .map(|(packet_id, _)| Incoming::Completed { packet_id }),
            CONNECT => Err(Violation::protocol("a second CONNECT")),
            _ => Err(Violation::protocol("a packet that no client sends")),
        }
    }
}

/// MQTT 5 section 3.14; without a reason code it is the normal one. Older versions have no body.
fn read_disconnect(body: &[u8], version: Version) -> Result<Incoming<'static>, Violation> {
    if !version.is_5() && !body.is_empty() {
        return Err(Violation::malformed("a DISCONNECT has no body before MQTT 5"));
    }
    let mut reader = Reader::new(body);
    let reason = if reader.is_empty() { 0 } else { reader.u8()? };
    let mut expiry = None;
    if !reader.is_empty() {
        property::walk(reader.block()?, property::DISCONNECT, |property| {
            if let (property::SESSION_EXPIRY, property::Value::Number(seconds)) =
                (property.id, property.value)
            {
                expiry = Some(seconds);
            }
            Ok(())
        })?;
    }
    reader.end()?;
    Ok(Incoming::Disconnect { reason, expiry })
}

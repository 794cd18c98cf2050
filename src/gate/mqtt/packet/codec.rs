//! The boundary to rumqttd's codecs: every packet is checked here first, field by field, and only then handed over.
//!
//! Invariant: no type of rumqttd leaves this file. A CONNECT is handed over without its password: MQTT allows any
//! bytes in it, the codec does not.
//!
//! Deliberately absent: packets whose rumqttd codec is unsafe or slow: PUBLISH, CONNACK, DISCONNECT and AUTH, and the
//! plain form of an incoming PUBACK.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::protocol::{
    v4::V4, v5::V5, Packet, PingResp, Protocol, PubAck, PubAckProperties, PubAckReason, QoS,
    RetainForwardRule, SubAck, SubAckProperties, SubscribeReasonCode, UnsubAck, UnsubAckReason,
};

use super::auth::{Authentication, Gathered};
use super::publish::put_varint;
use super::reader::Reader;
use super::{property, will, Reason, Version, Violation};
use crate::types::access::Secret;
use crate::types::act::Will;
use crate::types::event::Qos;

/// The first bytes of acknowledgements, and the reason code for an unknown packet identifier.
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;
const PACKET_IDENTIFIER_NOT_FOUND: u8 = 0x92;

/// A client's first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    /// Another server, which forwards what it receives: the highest bit of the protocol level says so.
    pub(crate) bridge: bool,
    /// Seconds; 0: never.
    pub(crate) keep_alive: u16,
    /// Clean Session, or Clean Start in MQTT 5.
    pub(crate) clean: bool,
    pub(crate) client_id: String,
    pub(crate) user_name: String,
    pub(crate) password: Option<Secret>,
    pub(crate) will: Option<Will>,
    /// Seconds that the session should outlive its connection: MQTT 5 only.
    pub(crate) session_expiry: u32,
    /// How many unacknowledged QoS 1 messages the client accepts.
    pub(crate) receive_maximum: u16,
    /// Largest packet the client accepts.
    pub(crate) max_packet: Option<u32>,
    /// The client accepts reason strings in any packet.
    pub(crate) problem_information: bool,
    pub(crate) authentication: Option<Authentication>,
}

/// Why a first packet is not an acceptable CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// Not MQTT, or so malformed that not even its version is known: no answer is possible.
    Foreign,
    /// An unsupported protocol level, and the version whose answers such a client can read.
    Level(Version, u8),
    Refused(Version, Violation),
}

/// A SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscribe {
    pub(crate) packet_id: u16,
    /// MQTT 5 only.
    pub(crate) identifier: Option<u32>,
    pub(crate) user_properties: Vec<(String, String)>,
    /// At least one.
    pub(crate) filters: Vec<Filter>,
}

/// When to send retained messages (MQTT 5 section 3.8.3.1). MQTT 3.1.1 has only the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetainHandling {
    EveryTime,
    IfNew,
    Never,
}

/// One line of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) text: String,
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: RetainHandling,
}

/// An UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsubscribe {
    pub(crate) packet_id: u16,
    /// At least one.
    pub(crate) filters: Vec<String>,
}

/// Results of checking a CONNECT that the hand-over needs. Offsets are within the packet's body.
struct Checked {
    version: Version,
    bridge: bool,
    /// Offset of the connect flags; the protocol's name and level are before them.
    flags_at: usize,
    fields: Fields,
}

/// The fields of a CONNECT that are not handed over, and where the others end.
struct Fields {
    /// Where the user name ends, and with it the part that is handed over.
    end: usize,
    password: Option<Range<usize>>,
    will: Option<Will>,
    authentication: Option<Authentication>,
}

/// A bit of the protocol level: the client is a bridge. No standard says so, but mosquitto, NanoMQ and others do.
const BRIDGE: u8 = 0x80;

const WILL_FLAG: u8 = 0x04;
const PASSWORD_FLAG: u8 = 0x40;
const USER_NAME_FLAG: u8 = 0x80;

/// Reads a CONNECT from the packet's body.
pub(crate) fn read_connect(first: u8, body: &[u8]) -> Result<Connect, ConnectError> {
    let checked = check_connect(first, body)?;
    let fields = &body[checked.flags_at..checked.fields.end];
    // The codec knows only one protocol name, and no bridges.
    let level = if checked.version.is_5() { 5 } else { 4 };
    let protocol = [0, 4, b'M', b'Q', b'T', b'T', level];
    let mut packet = BytesMut::with_capacity(5 + protocol.len() + fields.len());
    packet.put_u8(first);
    put_varint(&mut packet, (protocol.len() + fields.len()) as u32);
    packet.put_slice(&protocol);
    let flags = packet.len();
    packet.put_slice(fields);
    packet[flags] &= !PASSWORD_FLAG;
    let refused = |violation| ConnectError::Refused(checked.version, violation);
    let Packet::Connect(connect, properties, will, _, login) =
        decode(packet, checked.version).map_err(refused)?
    else {
        return Err(refused(disagreement()));
    };
    if will.is_some() != checked.fields.will.is_some() {
        return Err(refused(disagreement()));
    }
    let properties = properties.as_ref();
    let session_expiry = properties.and_then(|p| p.session_expiry_interval).unwrap_or(0);
    // A will does not wait longer than its session (MQTT 5 section 3.1.3.2.2).
    let will =
        checked.fields.will.map(|will| Will { delay: will.delay.min(session_expiry), ..will });
    Ok(Connect {
        version: checked.version,
        bridge: checked.bridge,
        keep_alive: connect.keep_alive,
        clean: connect.clean_session,
        client_id: connect.client_id,
        user_name: login.map(|login| login.username).unwrap_or_default(),
        password: checked.fields.password.map(|at| Secret(Bytes::copy_from_slice(&body[at]))),
        will,
        session_expiry,
        receive_maximum: properties.and_then(|p| p.receive_maximum).unwrap_or(u16::MAX),
        max_packet: properties.and_then(|p| p.max_packet_size),
        problem_information: properties.and_then(|p| p.request_problem_info) != Some(0),
        authentication: checked.fields.authentication,
    })
}

/// MQTT 5 section 3.1, MQTT 3.1.1 section 3.1.
fn check_connect(first: u8, body: &[u8]) -> Result<Checked, ConnectError> {
    let mut reader = Reader::new(body);
    let name = reader.text().map_err(|_| ConnectError::Foreign)?;
    let level = reader.u8().map_err(|_| ConnectError::Foreign)?;
    let version = match (name, level & !BRIDGE) {
        ("MQIsdp", 3) => Version::V31,
        ("MQTT", 4) => Version::V311,
        ("MQTT", 5) => Version::V5,
        // A client of a version before 5 can't read an answer of 5 (MQTT 5 section 3.1.2.2).
        ("MQIsdp", _) | ("MQTT", 0..=3) => return Err(ConnectError::Level(Version::V311, level)),
        ("MQTT", _) => return Err(ConnectError::Level(Version::V5, level)),
        _ => return Err(ConnectError::Foreign),
    };
    let flags_at = reader.position();
    let fields = check_connect_fields(first, reader, version)
        .map_err(|violation| ConnectError::Refused(version, violation))?;
    Ok(Checked { version, bridge: level & BRIDGE != 0, flags_at, fields })
}

fn check_connect_fields(
    first: u8,
    mut reader: Reader<'_>,
    version: Version,
) -> Result<Fields, Violation> {
    let flags = reader.u8()?;
    if first & 0x0F != 0 || flags & 1 != 0 {
        return Err(Violation::malformed("a reserved flag of the CONNECT is set"));
    }
    reader.u16()?;
    let mut authentication = None;
    if version.is_5() {
        let mut gathered = Gathered::default();
        property::walk(reader.block()?, property::CONNECT, |property| {
            gathered.take(&property);
            property::refuse_option(&property, "CONNECT")
        })?;
        authentication = gathered.authentication()?;
    }
    reader.text()?;
    let mut will = None;
    if flags & WILL_FLAG != 0 {
        will = Some(will::read(&mut reader, flags, version)?);
    } else if flags & 0x38 != 0 {
        return Err(Violation::malformed("flags of a will are set, but there is none"));
    }
    if flags & USER_NAME_FLAG != 0 {
        reader.text()?;
    }
    let end = reader.position();
    let mut password = None;
    if flags & PASSWORD_FLAG != 0 {
        if !version.is_5() && flags & USER_NAME_FLAG == 0 {
            return Err(Violation::malformed("a password without a user name"));
        }
        let length = reader.binary()?.len();
        password = Some(reader.position() - length..reader.position());
    }
    reader.end()?;
    Ok(Fields { end, password, will, authentication })
}

/// Reads a PUBACK. Whatever its reason code, the client is done with the message.
pub(crate) fn read_puback(whole: &[u8], body: &[u8], version: Version) -> Result<u16, Violation> {
    let (packet_id, _) = read_acknowledgement(body, version)?;
    if body.len() == 2 {
        return Ok(packet_id);
    }
    match decode(BytesMut::from(whole), version)? {
        Packet::PubAck(puback, _) => Ok(puback.pkid),
        _ => Err(disagreement()),
    }
}

/// Reads a PUBREC, PUBREL or PUBCOMP: a packet identifier, and in MQTT 5 maybe a reason code and properties (sections 3.5 to
/// 3.7). Returns whether the reason code says that it failed.
pub(crate) fn read_acknowledgement(
    body: &[u8],
    version: Version,
) -> Result<(u16, bool), Violation> {
    let mut reader = Reader::new(body);
    let packet_id = reader.packet_id()?;
    if reader.is_empty() {
        return Ok((packet_id, false));
    }
    if !version.is_5() {
        reader.end()?;
    }
    let failed = reader.u8()? >= 0x80;
    if !reader.is_empty() {
        property::check(reader.block()?, property::PUBACK)?;
    }
    reader.end()?;
    Ok((packet_id, failed))
}

/// Reads a SUBSCRIBE (MQTT 5 section 3.8).
pub(crate) fn read_subscribe(
    whole: &[u8],
    body: &[u8],
    version: Version,
) -> Result<Subscribe, Violation> {
    let mut reader = Reader::new(body);
    reader.packet_id()?;
    if version.is_5() {
        property::check(reader.block()?, property::SUBSCRIBE)?;
    }
    check_filters(&mut reader, |reader| {
        let options = reader.u8()?;
        let reserved = if version.is_5() { 0xC0 } else { 0xFC };
        if options & 3 == 3 || options & reserved != 0 || options & 0x30 == 0x30 {
            return Err(Violation::malformed("the options of a subscription are out of range"));
        }
        Ok(())
    })?;
    let Packet::Subscribe(subscribe, properties) = decode(BytesMut::from(whole), version)? else {
        return Err(disagreement());
    };
    let (identifier, user_properties) =
        properties.map(|p| (p.id, p.user_properties)).unwrap_or_default();
    let filters = subscribe.filters.into_iter().map(|filter| Filter {
        text: filter.path,
        qos: qos(filter.qos),
        no_local: filter.nolocal,
        retain_as_published: filter.preserve_retain,
        retain_handling: match filter.retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => RetainHandling::EveryTime,
            RetainForwardRule::OnNewSubscribe => RetainHandling::IfNew,
            RetainForwardRule::Never => RetainHandling::Never,
        },
    });
    Ok(Subscribe {
        packet_id: subscribe.pkid,
        identifier: identifier.and_then(|id| u32::try_from(id).ok()),
        user_properties,
        filters: filters.collect(),
    })
}

/// Reads an UNSUBSCRIBE (MQTT 5 section 3.10).
pub(crate) fn read_unsubscribe(
    whole: &[u8],
    body: &[u8],
    version: Version,
) -> Result<Unsubscribe, Violation> {
    let mut reader = Reader::new(body);
    reader.packet_id()?;
    if version.is_5() {
        property::check_without_options(reader.block()?, property::UNSUBSCRIBE, "UNSUBSCRIBE")?;
    }
    check_filters(&mut reader, |_| Ok(()))?;
    let Packet::Unsubscribe(unsubscribe, _) = decode(BytesMut::from(whole), version)? else {
        return Err(disagreement());
    };
    Ok(Unsubscribe { packet_id: unsubscribe.pkid, filters: unsubscribe.filters })
}

/// Checks the payload of a (UN)SUBSCRIBE: at least one filter. Filters beyond the limit are refused one by one.
fn check_filters(
    reader: &mut Reader<'_>,
    options: impl Fn(&mut Reader<'_>) -> Result<(), Violation>,
) -> Result<(), Violation> {
    if reader.is_empty() {
        return Err(Violation::protocol("a packet that must name a topic filter names none"));
    }
    while !reader.is_empty() {
        reader.text()?;
        options(reader)?;
    }
    Ok(())
}

fn decode(mut packet: BytesMut, version: Version) -> Result<Packet, Violation> {
    let size = packet.len();
    let decoded = match version {
        Version::V31 | Version::V311 => V4.read_mut(&mut packet, size),
        Version::V5 => V5.read_mut(&mut packet, size),
    };
    decoded.map_err(|error| Violation::new(Reason::MalformedPacket, error.to_string()))
}

/// The codec and our checks disagree about a packet, so neither is trusted.
fn disagreement() -> Violation {
    Violation::malformed("the packet can be read in two ways")
}

fn qos(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

fn encode(packet: Packet, version: Version, output: &mut BytesMut) {
    let written = match version {
        Version::V31 | Version::V311 => V4.write(packet, output),
        Version::V5 => V5.write(packet, output),
    };
    written.expect("acknowledgements are far below the largest packet");
}

/// Writes a PUBACK: success, or MQTT 5's refusal.
pub(crate) fn write_puback(
    version: Version,
    packet_id: u16,
    refusal: Option<(&Violation, bool)>,
    output: &mut BytesMut,
) {
    let (reason, properties) = match refusal {
        None => (PubAckReason::Success, None),
        Some((violation, with_text)) => {
            let properties = with_text.then(|| PubAckProperties {
                reason_string: Some(violation.text.to_string()),
                user_properties: Vec::new(),
            });
            (puback_reason(violation.reason), properties)
        }
    };
    encode(Packet::PubAck(PubAck { pkid: packet_id, reason }, properties), version, output);
}

/// Writes a PUBREC: success, or MQTT 5's refusal, which ends the exchange. Its reason codes are those of a PUBACK.
pub(crate) fn write_pubrec(
    version: Version,
    packet_id: u16,
    refusal: Option<(&Violation, bool)>,
    output: &mut BytesMut,
) {
    let start = output.len();
    write_puback(version, packet_id, refusal, output);
    output[start] = PUBREC;
}

/// Writes a PUBREL. `is_known` says whether the packet identifier stands for a message.
pub(crate) fn write_pubrel(
    version: Version,
    packet_id: u16,
    is_known: bool,
    output: &mut BytesMut,
) {
    write_step(PUBREL, version, (packet_id, is_known), output);
}

/// Writes a PUBCOMP. `is_known` says whether the packet identifier stands for a publish.
pub(crate) fn write_pubcomp(
    version: Version,
    packet_id: u16,
    is_known: bool,
    output: &mut BytesMut,
) {
    write_step(PUBCOMP, version, (packet_id, is_known), output);
}

fn write_step(
    first: u8,
    version: Version,
    (packet_id, is_known): (u16, bool),
    output: &mut BytesMut,
) {
    let [high, low] = packet_id.to_be_bytes();
    match is_known || !version.is_5() {
        true => output.put_slice(&[first, 2, high, low]),
        false => output.put_slice(&[first, 3, high, low, PACKET_IDENTIFIER_NOT_FOUND]),
    }
}

fn puback_reason(reason: Reason) -> PubAckReason {
    match reason {
        Reason::PayloadFormatInvalid => PubAckReason::PayloadFormatInvalid,
        Reason::ImplementationSpecific => PubAckReason::ImplementationSpecificError,
        Reason::QuotaExceeded => PubAckReason::QuotaExceeded,
        Reason::NotAuthorized => PubAckReason::NotAuthorized,
        Reason::TopicNameInvalid => PubAckReason::TopicNameInvalid,
        _ => PubAckReason::UnspecifiedError,
    }
}

/// Writes a SUBACK: for each filter the granted quality of service, or the reason for refusal.
pub(crate) fn write_suback(
    version: Version,
    packet_id: u16,
    codes: &[Result<Qos, Reason>],
    text: Option<&str>,
    output: &mut BytesMut,
) {
    let code = |code: &Result<Qos, Reason>| match (code, version) {
        (Ok(Qos::AtMostOnce), _) => SubscribeReasonCode::QoS0,
        (Ok(Qos::AtLeastOnce), _) => SubscribeReasonCode::QoS1,
        (Ok(Qos::ExactlyOnce), _) => SubscribeReasonCode::QoS2,
        (Err(_), Version::V31 | Version::V311) => SubscribeReasonCode::Failure,
        (Err(reason), Version::V5) => subscribe_reason(*reason),
    };
    let suback = SubAck { pkid: packet_id, return_codes: codes.iter().map(code).collect() };
    let properties = match (version, text) {
        (Version::V5, Some(text)) => Some(SubAckProperties {
            reason_string: Some(text.to_owned()),
            user_properties: Vec::new(),
        }),
        _ => None,
    };
    encode(Packet::SubAck(suback, properties), version, output);
}

fn subscribe_reason(reason: Reason) -> SubscribeReasonCode {
    match reason {
        Reason::ImplementationSpecific => SubscribeReasonCode::ImplementationSpecific,
        Reason::NotAuthorized => SubscribeReasonCode::NotAuthorized,
        Reason::TopicFilterInvalid => SubscribeReasonCode::TopicFilterInvalid,
        Reason::QuotaExceeded => SubscribeReasonCode::QuotaExceeded,
        Reason::SharedSubscriptionsNotSupported => {
            SubscribeReasonCode::SharedSubscriptionsNotSupported
        }
        _ => SubscribeReasonCode::Unspecified,
    }
}

/// Writes an UNSUBACK: for each filter whether there was a subscription, which only MQTT 5 can say.
pub(crate) fn write_unsuback(
    version: Version,
    packet_id: u16,
    existed: &[bool],
    output: &mut BytesMut,
) {
    let reason = |existed: &bool| match existed {
        true => UnsubAckReason::Success,
        false => UnsubAckReason::NoSubscriptionExisted,
    };
    let unsuback = UnsubAck { pkid: packet_id, reasons: existed.iter().map(reason).collect() };
    encode(Packet::UnsubAck(unsuback, None), version, output);
}

/// Writes a PINGRESP.
pub(crate) fn write_pingresp(version: Version, output: &mut BytesMut) {
    encode(Packet::PingResp(PingResp), version, output);
}

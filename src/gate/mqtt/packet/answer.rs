//! Encodes CONNACK, AUTH and DISCONNECT ourselves, because rumqttd's codec panics on some of their codes.
//!
//! Invariant: only MQTT 5 has a DISCONNECT from a server; none is written for older versions.
//!
//! Deliberately absent: Server Keep Alive and Server Reference, which we do not use yet.

use bytes::{BufMut, BytesMut};

use super::publish::{put_text, put_varint};
use super::{property, Reason, Version};

/// The contents of a CONNACK that accepts (MQTT 5 section 3.2.2.3).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted<'a> {
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: u32,
    /// An earlier session of this client continues.
    pub(crate) session_present: bool,
    /// The client asked for a persistent session and does not get one.
    pub(crate) session_ends_with_connection: bool,
    /// The name assigned to a client without one.
    pub(crate) assigned: Option<&'a str>,
    /// The authentication method, and its last message.
    pub(crate) authentication: Option<(&'a str, &'a str)>,
}

/// Writes a CONNACK that accepts.
pub(crate) fn connack_accepted(version: Version, accepted: &Accepted<'_>, output: &mut BytesMut) {
    let present = u8::from(accepted.session_present);
    if !version.is_5() {
        output.put_slice(&[0x20, 0x02, present, 0x00]);
        return;
    }
    let mut properties = BytesMut::new();
    if accepted.session_ends_with_connection {
        properties.put_u8(property::SESSION_EXPIRY);
        properties.put_u32(0);
    }
    properties.put_u8(property::RECEIVE_MAXIMUM);
    properties.put_u16(accepted.receive_maximum);
    properties.put_u8(property::MAXIMUM_PACKET_SIZE);
    properties.put_u32(accepted.max_packet);
    if let Some(client) = accepted.assigned {
        properties.put_u8(property::ASSIGNED_CLIENT_IDENTIFIER);
        put_text(&mut properties, client);
    }
    if let Some((method, data)) = accepted.authentication {
        put_authentication(&mut properties, method, data);
    }
    properties.put_slice(&[property::TOPIC_ALIAS_MAXIMUM, 0, 0]);
    properties.put_slice(&[property::WILDCARD_SUBSCRIPTION_AVAILABLE, 1]);
    properties.put_slice(&[property::SUBSCRIPTION_IDENTIFIERS_AVAILABLE, 1]);
    properties.put_slice(&[property::SHARED_SUBSCRIPTION_AVAILABLE, 0]);
    put_reasoned(output, 0x20, &[present, Reason::Success as u8], &properties);
}

/// Writes a CONNACK that refuses.
pub(crate) fn connack_refused(
    version: Version,
    reason: Reason,
    text: Option<&str>,
    output: &mut BytesMut,
) {
    match version {
        Version::V31 | Version::V311 => {
            output.put_slice(&[0x20, 0x02, 0x00, return_code(reason)]);
        }
        Version::V5 => put_reasoned(output, 0x20, &[0, reason as u8], &reason_string(text)),
    }
}

/// Writes an MQTT 5 AUTH.
pub(crate) fn auth(reason: u8, method: &str, data: &str, output: &mut BytesMut) {
    let mut properties = BytesMut::new();
    put_authentication(&mut properties, method, data);
    put_reasoned(output, 0xF0, &[reason], &properties);
}

fn put_authentication(properties: &mut BytesMut, method: &str, data: &str) {
    for (id, text) in
        [(property::AUTHENTICATION_METHOD, method), (property::AUTHENTICATION_DATA, data)]
    {
        properties.put_u8(id);
        put_text(properties, text);
    }
}

/// Writes an MQTT 5 DISCONNECT.
pub(crate) fn disconnect(reason: Reason, text: Option<&str>, output: &mut BytesMut) {
    put_reasoned(output, 0xE0, &[reason as u8], &reason_string(text));
}

/// The return codes of a CONNACK before MQTT 5 (MQTT 3.1.1 table 3.1). Anything that is not the client's fault is
/// "unavailable".
fn return_code(reason: Reason) -> u8 {
    match reason {
        Reason::UnsupportedVersion => 1,
        Reason::ClientIdentifierNotValid => 2,
        Reason::BadUserNameOrPassword => 4,
        Reason::NotAuthorized | Reason::Banned | Reason::TopicNameInvalid => 5,
        _ => 3,
    }
}

fn reason_string(text: Option<&str>) -> BytesMut {
    let mut properties = BytesMut::new();
    if let Some(text) = text {
        properties.put_u8(property::REASON_STRING);
        put_text(&mut properties, text);
    }
    properties
}

fn put_reasoned(output: &mut BytesMut, first: u8, head: &[u8], properties: &[u8]) {
    let mut length = BytesMut::with_capacity(4);
    put_varint(&mut length, properties.len() as u32);
    output.put_u8(first);
    put_varint(output, (head.len() + length.len() + properties.len()) as u32);
    output.put_slice(head);
    output.put_slice(&length);
    output.put_slice(properties);
}

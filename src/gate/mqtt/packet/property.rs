//! Property lists (MQTT 5 section 2.2.2): which property is allowed where, at most once each, with a valid value.
//!
//! Invariant: a list that passes [`walk`] is well-formed for its packet, so rumqttd's codec can only agree.
//!
//! Deliberately absent: properties that only a server sends.

use bytes::{BufMut, Bytes, BytesMut};

use super::reader::Reader;
use super::{Reason, Violation};

pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
pub(crate) const CONTENT_TYPE: u8 = 0x03;
pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
pub(crate) const CORRELATION_DATA: u8 = 0x09;
pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
pub(crate) const SESSION_EXPIRY: u8 = 0x11;
pub(crate) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
pub(crate) const WILL_DELAY: u8 = 0x18;
pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
pub(crate) const REASON_STRING: u8 = 0x1F;
pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub(crate) const TOPIC_ALIAS: u8 = 0x23;
pub(crate) const USER: u8 = 0x26;
pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
pub(crate) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
pub(crate) const SUBSCRIPTION_IDENTIFIERS_AVAILABLE: u8 = 0x29;
pub(crate) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;

/// Most characters of a property's name to show.
const SHOWN_NAME: usize = 64;

/// The properties a client may send, by packet.
pub(crate) const CONNECT: &[u8] = &[
    SESSION_EXPIRY,
    AUTHENTICATION_METHOD,
    AUTHENTICATION_DATA,
    REQUEST_PROBLEM_INFORMATION,
    REQUEST_RESPONSE_INFORMATION,
    RECEIVE_MAXIMUM,
    TOPIC_ALIAS_MAXIMUM,
    USER,
    MAXIMUM_PACKET_SIZE,
];
pub(crate) const WILL: &[u8] = &[
    PAYLOAD_FORMAT,
    MESSAGE_EXPIRY,
    CONTENT_TYPE,
    RESPONSE_TOPIC,
    CORRELATION_DATA,
    WILL_DELAY,
    USER,
];
pub(crate) const PUBLISH: &[u8] = &[
    PAYLOAD_FORMAT,
    MESSAGE_EXPIRY,
    CONTENT_TYPE,
    RESPONSE_TOPIC,
    CORRELATION_DATA,
    TOPIC_ALIAS,
    USER,
    // Only a server may send it here; it passes, to be refused with its own message.
    SUBSCRIPTION_IDENTIFIER,
];
pub(crate) const PUBACK: &[u8] = &[REASON_STRING, USER];
pub(crate) const SUBSCRIBE: &[u8] = &[SUBSCRIPTION_IDENTIFIER, USER];
pub(crate) const UNSUBSCRIBE: &[u8] = &[USER];
pub(crate) const AUTH: &[u8] = &[AUTHENTICATION_METHOD, AUTHENTICATION_DATA, REASON_STRING, USER];
pub(crate) const DISCONNECT: &[u8] = &[SESSION_EXPIRY, REASON_STRING, USER];

/// The prefix of user properties that are for us. All others are between the application's clients, and pass
/// unchanged (MQTT 5, MQTT-3.3.2-17 and 18).
const OPTION_PREFIX: &str = "vulpes-";

/// The option that a user property names, if it has our prefix.
pub(crate) fn option(name: &str) -> Option<&str> {
    name.strip_prefix(OPTION_PREFIX)
}

/// One property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Property<'a> {
    pub(crate) id: u8,
    pub(crate) value: Value<'a>,
    /// All its bytes, including the identifier.
    pub(crate) raw: &'a [u8],
}

/// What a property holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u32),
    Text(&'a str),
    Binary,
    Pair(&'a str, &'a str),
}

/// Checks a list of properties.
pub(crate) fn check(block: &[u8], allowed: &[u8]) -> Result<(), Violation> {
    walk(block, allowed, |_| Ok(()))
}

/// Checks a list of properties and shows each.
pub(crate) fn walk<'a>(
    block: &'a [u8],
    allowed: &[u8],
    mut visit: impl FnMut(Property<'a>) -> Result<(), Violation>,
) -> Result<(), Violation> {
    let mut reader = Reader::new(block);
    let mut seen = 0u64;
    while !reader.is_empty() {
        let start = reader.position();
        let id = reader.u8()?;
        if !allowed.contains(&id) {
            return Err(Violation::malformed("a property that the packet can't have"));
        }
        let bit = 1u64 << (id & 63);
        if id != USER && seen & bit != 0 {
            return Err(Violation::protocol("a property is given twice"));
        }
        seen |= bit;
        let value = read_value(id, &mut reader)?;
        visit(Property { id, value, raw: &block[start..reader.position()] })?;
    }
    Ok(())
}

/// Checks a property list that must not contain our options. An ignored option would have another effect than the
/// client asked for.
pub(crate) fn check_without_options(
    block: &[u8],
    allowed: &[u8],
    packet: &str,
) -> Result<(), Violation> {
    walk(block, allowed, |property| refuse_option(&property, packet))
}

/// Refuses a property that is one of our options.
pub(crate) fn refuse_option(property: &Property<'_>, place: &str) -> Result<(), Violation> {
    match property.value {
        Value::Pair(name, _) if option(name).is_some() => Err(no_such_option(name, place)),
        _ => Ok(()),
    }
}

/// The answer to an option that does not exist, or not in this packet.
pub(crate) fn no_such_option(name: &str, place: &str) -> Violation {
    let shown: String = name.chars().take(SHOWN_NAME).collect();
    let text = format!(
        "there is no option {shown} in a {place}: names that begin with {OPTION_PREFIX} are the router's own"
    );
    Violation::new(Reason::ImplementationSpecific, text)
}

/// Copies the properties of a list that are stored.
pub(crate) fn persistent(
    block: &[u8],
    allowed: &[u8],
    keep: impl Fn(&Property<'_>) -> bool,
) -> Result<Bytes, Violation> {
    let mut persistent = BytesMut::with_capacity(block.len());
    walk(block, allowed, |property| {
        if keep(&property) {
            persistent.put_slice(property.raw);
        }
        Ok(())
    })?;
    Ok(persistent.freeze())
}

fn read_value<'a>(id: u8, reader: &mut Reader<'a>) -> Result<Value<'a>, Violation> {
    Ok(match id {
        PAYLOAD_FORMAT | REQUEST_PROBLEM_INFORMATION | REQUEST_RESPONSE_INFORMATION => {
            let value = reader.u8()?;
            if value > 1 {
                return Err(Violation::protocol("a property that is 0 or 1 has another value"));
            }
            Value::Number(value.into())
        }
        TOPIC_ALIAS_MAXIMUM | TOPIC_ALIAS => Value::Number(reader.u16()?.into()),
        RECEIVE_MAXIMUM => Value::Number(not_zero(reader.u16()?.into())?),
        MAXIMUM_PACKET_SIZE => Value::Number(not_zero(reader.u32()?)?),
        SUBSCRIPTION_IDENTIFIER => Value::Number(not_zero(reader.varint()?)?),
        MESSAGE_EXPIRY | SESSION_EXPIRY | WILL_DELAY => Value::Number(reader.u32()?),
        CONTENT_TYPE | AUTHENTICATION_METHOD | REASON_STRING => Value::Text(reader.text()?),
        RESPONSE_TOPIC => {
            let topic = reader.text()?;
            if topic.is_empty() || topic.contains(['+', '#']) {
                return Err(Violation::protocol("a response topic is empty or has wildcards"));
            }
            Value::Text(topic)
        }
        CORRELATION_DATA | AUTHENTICATION_DATA => {
            reader.binary()?;
            Value::Binary
        }
        USER => Value::Pair(reader.text()?, reader.text()?),
        _ => return Err(Violation::new(Reason::MalformedPacket, "an unknown property")),
    })
}

fn not_zero(value: u32) -> Result<u32, Violation> {
    if value == 0 {
        return Err(Violation::protocol("a property that must not be 0 is 0"));
    }
    Ok(value)
}

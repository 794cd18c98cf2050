//! PUBLISH in both directions (MQTT 5 section 3.3), implemented here because rumqttd keeps its fields private.
//!
//! Invariant: payload and properties of an incoming packet are shared slices of the input, never copies. The one
//! exception is a property list from which some are removed.
//!
//! Payload format, content type, response topic, correlation data and user properties of a PUBLISH are stored unchanged, in
//! order, and passed on to MQTT 5 subscribers. User properties with the prefix `vulpes-` are options for us: they are removed,
//! and an unknown one refuses the message. The message expiry interval is removed, too, because the log retains events as long
//! as its retention says. Such a message may be delivered later than its publisher asked, and subscribers are not shown an
//! interval that is not obeyed.
//!
//! Deliberately absent: topic aliases, which we don't offer (`Topic Alias Maximum` 0).

use bytes::{BufMut, Bytes, BytesMut};

use super::property::{self, Property, Value};
use super::reader::Reader;
use super::{Frame, Reason, Version, Violation};
use crate::gate::terms::{self, TermsError};
use crate::payload::Serializer;
use crate::types::act::Terms;
use crate::types::event::{Payload, Qos};
use crate::types::value::Value as Json;

/// Publish options that are not supported yet.
const OPTIONS_NOT_BUILT: &[&str] = &[
    "exclude",
    "exclude_authid",
    "exclude_authrole",
    "eligible",
    "eligible_authid",
    "eligible_authrole",
];

/// An incoming PUBLISH.
#[derive(Debug, PartialEq)]
pub(crate) struct Publish<'a> {
    pub(crate) qos: Qos,
    /// From its flag or its user property.
    pub(crate) retain: bool,
    pub(crate) terms: Terms,
    /// 0 with QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) topic: &'a str,
    pub(crate) payload: Bytes,
    /// The properties to pass on, unchanged.
    pub(crate) properties: Bytes,
    pub(crate) exclude_me: bool,
    pub(crate) disclose_me: bool,
    /// Set if it is well-formed, but must not be published.
    pub(crate) refused: Option<Violation>,
}

/// Reads a PUBLISH from the buffer it was found in.
pub(crate) fn read<'a>(
    buffer: &'a Bytes,
    frame: &Frame,
    version: Version,
) -> Result<Publish<'a>, Violation> {
    let Some(qos) = Qos::from_tag((frame.first >> 1) & 3) else {
        return Err(Violation::malformed("a PUBLISH has QoS 3"));
    };
    if frame.first & 8 != 0 && qos == Qos::AtMostOnce {
        return Err(Violation::malformed("a PUBLISH with QoS 0 is marked as a duplicate"));
    }
    let mut reader = Reader::new(&buffer[frame.body.clone()]);
    let topic = reader.text()?;
    let packet_id = if qos == Qos::AtMostOnce { 0 } else { reader.packet_id()? };
    let mut publish = Publish {
        qos,
        retain: frame.first & 1 != 0,
        terms: Terms::default(),
        packet_id,
        topic,
        payload: Bytes::new(),
        properties: Bytes::new(),
        exclude_me: false,
        disclose_me: false,
        refused: None,
    };
    let mut text_payload = false;
    if version.is_5() {
        let block = reader.block()?;
        if !block.is_empty() {
            let end = frame.body.start + reader.position();
            let whole = || buffer.slice(end - block.len()..end);
            text_payload = publish.read_properties(block, whole)?;
        }
    }
    publish.payload = buffer.slice(frame.body.start + reader.position()..frame.body.end);
    if text_payload && std::str::from_utf8(&publish.payload).is_err() {
        publish.refuse(Reason::PayloadFormatInvalid, "the payload is not UTF-8 as announced");
    }
    Ok(publish)
}

impl Publish<'_> {
    /// Returns whether the payload is declared as text.
    fn read_properties(
        &mut self,
        block: &[u8],
        whole: impl FnOnce() -> Bytes,
    ) -> Result<bool, Violation> {
        let mut text_payload = false;
        let mut drops = false;
        property::walk(block, property::PUBLISH, |property| {
            drops |= !is_handed_on(&property);
            match (property.id, property.value) {
                (property::PAYLOAD_FORMAT, Value::Number(format)) => text_payload = format == 1,
                (property::TOPIC_ALIAS, _) => {
                    return Err(Violation::new(
                        Reason::TopicAliasInvalid,
                        "a topic alias was used, but none are offered",
                    ));
                }
                (property::SUBSCRIPTION_IDENTIFIER, _) => {
                    return Err(Violation::protocol(
                        "a client's PUBLISH has a subscription identifier",
                    ));
                }
                (_, Value::Pair(name, value)) => {
                    if let Some(option) = property::option(name) {
                        self.read_option(option, value);
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        self.properties = match drops {
            true => property::persistent(block, property::PUBLISH, is_handed_on)?,
            false => whole(),
        };
        if let Err(error) = terms::check(&self.terms, self.retain) {
            self.refuse(Reason::ImplementationSpecific, error.to_string());
        }
        Ok(text_payload)
    }

    /// `option` is the name without our prefix.
    fn read_option(&mut self, option: &str, value: &str) {
        let mut retain = false;
        let flag = match option {
            "exclude_me" => &mut self.exclude_me,
            "disclose_me" => &mut self.disclose_me,
            "retain" => &mut retain,
            "merge" => &mut self.terms.merge,
            "watch" => &mut self.terms.watch,
            _ => return self.read_value_option(option, value),
        };
        match value {
            "true" | "false" => *flag = value == "true",
            _ => self.refuse(
                Reason::ImplementationSpecific,
                format!("the user property vulpes-{option} is true or false"),
            ),
        }
        // In addition to MQTT's own flag.
        self.retain |= retain;
    }

    fn read_value_option(&mut self, option: &str, value: &str) {
        let read = match option {
            "when" if self.terms.when.is_none() => {
                json("when", value).map(|when| self.terms.when = Some(when))
            }
            "will" if self.terms.will.is_none() => {
                json("will", value).map(|will| self.terms.will = Some(will_payload(&will, value)))
            }
            "when" | "will" => {
                let text = format!("the user property vulpes-{option} is given twice");
                return self.refuse(Reason::ImplementationSpecific, text);
            }
            _ if OPTIONS_NOT_BUILT.contains(&option) => {
                let text = format!("the option vulpes-{option} is not available");
                return self.refuse(Reason::ImplementationSpecific, text);
            }
            _ => {
                let unknown = property::no_such_option(&format!("vulpes-{option}"), "PUBLISH");
                return self.refuse(unknown.reason, unknown.text);
            }
        };
        if let Err(error) = read {
            self.refuse(Reason::ImplementationSpecific, error.to_string());
        }
    }

    fn refuse(&mut self, reason: Reason, text: impl Into<std::borrow::Cow<'static, str>>) {
        self.refused.get_or_insert(Violation::new(reason, text));
    }
}

fn is_handed_on(property: &Property<'_>) -> bool {
    match property.value {
        Value::Pair(name, _) => property::option(name).is_none(),
        _ => property.id != property::MESSAGE_EXPIRY,
    }
}

fn json(option: &'static str, text: &str) -> Result<Json, TermsError> {
    terms::condition(option, Serializer::Json, text.as_bytes())
}

/// A will's payload is its JSON text as it came; null becomes an empty one, which deletes.
fn will_payload(will: &Json, text: &str) -> Payload {
    Payload::raw(match will {
        Json::Null => Bytes::new(),
        _ => Bytes::copy_from_slice(text.as_bytes()),
    })
}

/// An outgoing PUBLISH.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    /// It may have been sent before.
    pub(crate) duplicate: bool,
    pub(crate) retain: bool,
    pub(crate) qos: Qos,
    /// Present with QoS 1 and 2.
    pub(crate) packet_id: Option<u16>,
    pub(crate) topic: &'a str,
    /// Subscription identifiers: MQTT 5 only.
    pub(crate) identifiers: &'a [u32],
    /// A list of properties without its length: MQTT 5 only.
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl Outgoing<'_> {
    /// Bytes of everything after the fixed header, and of the properties in it.
    fn lengths(&self, version: Version) -> (usize, usize) {
        let mut properties = 0;
        let mut body = 2 + self.topic.len() + self.payload.len();
        body += if self.packet_id.is_some() { 2 } else { 0 };
        if version.is_5() {
            properties = self.properties.len();
            properties += self.identifiers.iter().map(|id| 1 + varint_len(*id)).sum::<usize>();
            body += varint_len(properties as u32) + properties;
        }
        (body, properties)
    }

    /// Bytes of the whole packet.
    pub(crate) fn size(&self, version: Version) -> usize {
        let (body, _) = self.lengths(version);
        1 + varint_len(body as u32) + body
    }

    /// Appends the packet. The limits of topics and events keep all lengths encodable.
    pub(crate) fn write(&self, version: Version, output: &mut BytesMut) {
        let (body, properties) = self.lengths(version);
        output.reserve(5 + body);
        let qos = (self.qos as u8) << 1;
        let duplicate = if self.duplicate { 0x08 } else { 0x00 };
        output.put_u8(0x30 | duplicate | qos | u8::from(self.retain));
        put_varint(output, body as u32);
        put_text(output, self.topic);
        if let Some(packet_id) = self.packet_id {
            output.put_u16(packet_id);
        }
        if version.is_5() {
            put_varint(output, properties as u32);
            for identifier in self.identifiers {
                output.put_u8(property::SUBSCRIPTION_IDENTIFIER);
                put_varint(output, *identifier);
            }
            output.put_slice(self.properties);
        }
        output.put_slice(self.payload);
    }
}

pub(crate) fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x001F_FFFF => 3,
        _ => 4,
    }
}

pub(crate) fn put_varint(output: &mut BytesMut, mut value: u32) {
    while value > 0x7F {
        output.put_u8((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    output.put_u8(value as u8);
}

/// A text after its two bytes of length; all our texts are far shorter than the maximum.
pub(crate) fn put_text(output: &mut BytesMut, text: &str) {
    let length = u16::try_from(text.len()).expect("topics and reasons are under their limits");
    output.put_u16(length);
    output.put_slice(text.as_bytes());
}

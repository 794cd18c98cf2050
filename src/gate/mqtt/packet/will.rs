//! The will in a CONNECT (MQTT 5 sections 3.1.3.2 to 3.1.3.4).
//!
//! Its properties are stored like those of a PUBLISH. The delay is read, and the message expiry interval is removed.
//!
//! Invariant: what is read is copied out of the packet, because a will is stored as long as its session lives.
//!
//! Deliberately absent: our options in user properties. A will with options is refused at CONNECT: when it is published, no
//! client is there to get an answer, and it must not be published differently than asked.

use bytes::Bytes;

use super::property::{self, Value};
use super::reader::Reader;
use super::{Reason, Version, Violation};
use crate::types::act::Will;
use crate::types::event::{Payload, Qos};
use crate::types::topic::{Topic, ROUTERS_OWN_TEXT};

/// The connect flags that belong to the will.
const QOS_SHIFT: u8 = 3;
const RETAIN_FLAG: u8 = 0x20;

/// Reads the will after the client identifier.
pub(crate) fn read(
    reader: &mut Reader<'_>,
    flags: u8,
    version: Version,
) -> Result<Will, Violation> {
    let Some(qos) = Qos::from_tag((flags >> QOS_SHIFT) & 3) else {
        return Err(Violation::malformed("the will has QoS 3"));
    };
    let mut delay = 0;
    let mut properties = Bytes::new();
    let mut is_text = false;
    if version.is_5() {
        let block = reader.block()?;
        property::walk(block, property::WILL, |property| {
            match (property.id, property.value) {
                (property::WILL_DELAY, Value::Number(seconds)) => delay = seconds,
                (property::PAYLOAD_FORMAT, Value::Number(format)) => is_text = format == 1,
                _ => {}
            }
            property::refuse_option(&property, "will")
        })?;
        properties = property::persistent(block, property::WILL, |property| {
            !matches!(property.id, property::WILL_DELAY | property::MESSAGE_EXPIRY)
        })?;
    }
    let topic = Topic::from_mqtt(reader.text()?)
        .map_err(|error| Violation::new(Reason::TopicNameInvalid, format!("will: {error}")))?;
    if topic.is_routers_own() {
        let text = format!("will: {ROUTERS_OWN_TEXT}");
        return Err(Violation::new(Reason::TopicNameInvalid, text));
    }
    let payload = reader.binary()?;
    if is_text && std::str::from_utf8(payload).is_err() {
        let text = "the will's payload is not UTF-8 as announced";
        return Err(Violation::new(Reason::PayloadFormatInvalid, text));
    }
    let payload = Payload::raw(Bytes::copy_from_slice(payload));
    Ok(Will { topic, payload, properties, qos, retain: flags & RETAIN_FLAG != 0, delay })
}

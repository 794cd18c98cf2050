//! A small MQTT 3.1.1 client for the bench: packets are written into one buffer and read from another, without
//! copies, in whole batches.
//!
//! Invariant: a broker's bytes are checked before they are used; a packet larger than [`PACKET`] is an error.
//!
//! Deliberately absent: QoS 2, sessions, wills, and everything about sockets except dialling.

use bytes::{BufMut, BytesMut};

/// Largest packet read, in bytes.
pub const PACKET: usize = 2 << 20;

/// Longest text that fits a packet (MQTT 3.1.1 section 1.5.3).
const TEXT: usize = 65_535;

/// Why a broker's bytes can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MqttError {
    #[error("the broker sent a packet of {0} bytes, more than the {PACKET} that are read")]
    TooLarge(usize),
    #[error("the broker broke the protocol: {0}")]
    Malformed(&'static str),
}

/// A packet from a broker; its bytes stay where they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// 0 accepts, other values refuse: [`refusal`].
    ConnAck {
        code: u8,
    },
    PubAck {
        id: u16,
    },
    /// Granted qualities of service; 0x80 is a refusal.
    SubAck {
        id: u16,
        granted: &'a [u8],
    },
    /// `id` is 0 with quality of service 0.
    Publish {
        topic: &'a [u8],
        qos: u8,
        id: u16,
        payload: &'a [u8],
    },
    UnsubAck {
        id: u16,
    },
    PingResp,
}

/// The meaning of a CONNACK's code (MQTT 3.1.1 section 3.2.2.3).
#[must_use]
pub fn refusal(code: u8) -> &'static str {
    match code {
        0 => "accepted",
        1 => "the broker does not speak MQTT 3.1.1",
        2 => "the broker does not like the client identifier",
        3 => "the broker is unavailable",
        4 => "bad user name or password",
        5 => "not authorised",
        _ => "unknown reason",
    }
}

/// Writes a CONNECT with a clean session and no keep-alive.
///
/// # Panics
/// If a text has more than 65,535 bytes.
pub fn connect(buffer: &mut BytesMut, client: &str, user: Option<&str>) {
    let user_length = user.map_or(0, |user| 2 + user.len());
    head(buffer, 0x10, 10 + 2 + client.len() + user_length);
    put_text(buffer, "MQTT");
    buffer.put_u8(4);
    buffer.put_u8(if user.is_some() { 0x82 } else { 0x02 });
    buffer.put_u16(0);
    put_text(buffer, client);
    if let Some(user) = user {
        put_text(buffer, user);
    }
}

/// Writes a PUBLISH with quality of service 1.
///
/// # Panics
/// If the topic has more than 65,535 bytes.
pub fn publish(buffer: &mut BytesMut, topic: &str, id: u16, payload: &[u8]) {
    put_publish(buffer, 0x32, topic, id, payload);
}

/// Writes a retained PUBLISH with quality of service 1; an empty one clears the retained value.
///
/// # Panics
/// If the topic has more than 65,535 bytes.
pub fn retain(buffer: &mut BytesMut, topic: &str, id: u16, payload: &[u8]) {
    put_publish(buffer, 0x33, topic, id, payload);
}

fn put_publish(buffer: &mut BytesMut, first: u8, topic: &str, id: u16, payload: &[u8]) {
    head(buffer, first, 2 + topic.len() + 2 + payload.len());
    put_text(buffer, topic);
    buffer.put_u16(id);
    buffer.put_slice(payload);
}

/// Writes a SUBSCRIBE for one filter.
///
/// # Panics
/// If the filter has more than 65,535 bytes.
pub fn subscribe(buffer: &mut BytesMut, id: u16, filter: &str, qos: u8) {
    head(buffer, 0x82, 2 + 2 + filter.len() + 1);
    buffer.put_u16(id);
    put_text(buffer, filter);
    buffer.put_u8(qos);
}

/// Writes an UNSUBSCRIBE for one filter.
///
/// # Panics
/// If the filter has more than 65,535 bytes.
pub fn unsubscribe(buffer: &mut BytesMut, id: u16, filter: &str) {
    head(buffer, 0xa2, 2 + 2 + filter.len());
    buffer.put_u16(id);
    put_text(buffer, filter);
}

/// Writes a PUBACK.
pub fn puback(buffer: &mut BytesMut, id: u16) {
    buffer.put_u32(0x4002_0000 | u32::from(id));
}

/// Writes a DISCONNECT.
pub fn disconnect(buffer: &mut BytesMut) {
    buffer.put_u16(0xe000);
}

fn head(buffer: &mut BytesMut, first: u8, mut length: usize) {
    buffer.put_u8(first);
    while length >= 0x80 {
        buffer.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    buffer.put_u8(length as u8);
}

fn put_text(buffer: &mut BytesMut, text: &str) {
    assert!(text.len() <= TEXT, "texts of our own making fit a packet");
    buffer.put_u16(text.len() as u16);
    buffer.put_slice(text.as_bytes());
}

/// Reads the packet at the start of `bytes` and returns its length; `None` while it is incomplete.
///
/// # Errors
/// If a broker does not send such a packet to this client.
pub fn read(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, MqttError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let mut length = 0usize;
    let mut at = 1;
    loop {
        let Some(&byte) = bytes.get(at) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if at == 5 {
            return Err(MqttError::Malformed("a length of more than four bytes"));
        }
    }
    if length > PACKET {
        return Err(MqttError::TooLarge(length));
    }
    let end = at + length;
    let Some(body) = bytes.get(at..end) else { return Ok(None) };
    Ok(Some((packet(first, body)?, end)))
}

fn packet(first: u8, body: &[u8]) -> Result<Packet<'_>, MqttError> {
    let number = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    match (first >> 4, body) {
        (2, [_, code]) => Ok(Packet::ConnAck { code: *code }),
        (3, [high, low, rest @ ..]) => {
            let length = usize::from(number(*high, *low));
            let qos = (first >> 1) & 3;
            let Some((topic, rest)) = rest.split_at_checked(length) else {
                return Err(MqttError::Malformed("a topic longer than its packet"));
            };
            match (qos, rest) {
                (0, payload) => Ok(Packet::Publish { topic, qos, id: 0, payload }),
                (1, [high, low, payload @ ..]) => {
                    Ok(Packet::Publish { topic, qos, id: number(*high, *low), payload })
                }
                _ => Err(MqttError::Malformed("a PUBLISH with a quality of service not asked for")),
            }
        }
        (4, [high, low]) => Ok(Packet::PubAck { id: number(*high, *low) }),
        (9, [high, low, granted @ ..]) if !granted.is_empty() => {
            Ok(Packet::SubAck { id: number(*high, *low), granted })
        }
        (11, [high, low]) => Ok(Packet::UnsubAck { id: number(*high, *low) }),
        (13, []) => Ok(Packet::PingResp),
        _ => Err(MqttError::Malformed("a packet that no broker sends to this client")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let mut buffer = BytesMut::new();
        connect(&mut buffer, "c1", None);
        assert_eq!(&buffer[..], b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02c1");
        buffer.clear();
        connect(&mut buffer, "c", Some("u@r"));
        assert_eq!(&buffer[..], b"\x10\x12\x00\x04MQTT\x04\x82\x00\x00\x00\x01c\x00\x03u@r");
        buffer.clear();
        publish(&mut buffer, "a/b", 513, b"xyz");
        assert_eq!(&buffer[..], b"\x32\x0a\x00\x03a/b\x02\x01xyz");
        buffer.clear();
        subscribe(&mut buffer, 1, "a/#", 1);
        assert_eq!(&buffer[..], b"\x82\x08\x00\x01\x00\x03a/#\x01");
        buffer.clear();
        unsubscribe(&mut buffer, 2, "a/#");
        retain(&mut buffer, "a", 3, b"x");
        assert_eq!(&buffer[..], b"\xa2\x07\x00\x02\x00\x03a/#\x33\x06\x00\x01a\x00\x03x");
        buffer.clear();
        puback(&mut buffer, 513);
        disconnect(&mut buffer);
        assert_eq!(&buffer[..], b"\x40\x02\x02\x01\xe0\x00");
    }

    #[test]
    fn packets_are_read() {
        let cases: &[(&[u8], Packet<'_>)] = &[
            (b"\x20\x02\x00\x05", Packet::ConnAck { code: 5 }),
            (b"\x40\x02\x01\x02", Packet::PubAck { id: 258 }),
            (b"\x90\x03\x00\x01\x80", Packet::SubAck { id: 1, granted: &[0x80] }),
            (b"\xb0\x02\x01\x02", Packet::UnsubAck { id: 258 }),
            (b"\xd0\x00", Packet::PingResp),
            (
                b"\x30\x05\x00\x01tpq",
                Packet::Publish { topic: b"t", qos: 0, id: 0, payload: b"pq" },
            ),
            (
                b"\x3a\x06\x00\x01t\x00\x09p",
                Packet::Publish { topic: b"t", qos: 1, id: 9, payload: b"p" },
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read(bytes), Ok(Some((expected.clone(), bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Ok(None), "{bytes:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [
            &b"\x30\x02\x00\x09"[..],
            b"\x34\x05\x00\x01tpq",
            b"\x32\x03\x00\x01t",
            b"\x10\x00",
            b"\x40\x01\x00",
            b"\x90\x02\x00\x01",
            b"\x30\xff\xff\xff\xff\x01",
            b"\x30\xff\xff\xff\x7f",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }

        #[test]
        fn long_packets_come_back(length in 0usize..40_000) {
            let payload = vec![7; length];
            let mut buffer = BytesMut::new();
            publish(&mut buffer, "t", 1, &payload);
            let expected = Packet::Publish { topic: b"t", qos: 1, id: 1, payload: &payload };
            prop_assert_eq!(read(&buffer), Ok(Some((expected, buffer.len()))));
        }
    }
}

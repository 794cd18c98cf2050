//! What no MQTT client may send: the server closes the connection each time, sometimes after an answer.
//!
//! Invariant: a case begins as correctly as its table says, so only its last packet is at fault.
//!
//! Deliberately absent: packets that a client may send and this server refuses with an answer.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};
use vulpes_jepsen::mqtt::{packet, string};

use super::{garbage, hangs_up_after};

/// How a case begins.
#[derive(Clone, Copy)]
enum Begin {
    /// Nothing has been sent.
    Raw,
    /// Connected with this protocol level.
    Connected(u8),
}

pub(super) struct Case {
    name: &'static str,
    begin: Begin,
    bytes: Vec<u8>,
    /// What the last answer must begin with, if the protocol says so.
    answer: &'static [u8],
}

impl Case {
    pub(super) async fn play(self, address: SocketAddr) -> Result<()> {
        let parts = match self.begin {
            Begin::Raw => vec![self.bytes],
            // A unique name: otherwise the same case of the other version would take over the session.
            Begin::Connected(level) => {
                let client = format!("{level} {}", self.name);
                vec![connect(level, &client), self.bytes]
            }
        };
        let told = hangs_up_after(address, &parts).await;
        let told = told.with_context(|| format!("MQTT: {}", self.name))?;
        ensure!(told.starts_with(self.answer), "MQTT: {}: answered {told:02x?}", self.name);
        Ok(())
    }
}

pub(super) fn connect(level: u8, client: &str) -> Vec<u8> {
    let mut body = string("MQTT");
    body.extend([level, 0x02, 0, 60]);
    if level == 5 {
        body.push(0);
    }
    body.extend(string(client));
    packet(0x10, &body)
}

/// A PUBLISH at QoS 1 with this topic, as bytes.
fn publish(topic: &[u8]) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend(topic);
    body.extend([0, 1]);
    packet(0x32, &body)
}

fn subscribe(first: u8, filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend(string(filter));
    body.push(1);
    packet(first, &body)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = before_connect();
    // 3.1.1 can't express a reason; MQTT 5 sends it in a DISCONNECT (0xe0).
    for (level, answer) in [(4, &b""[..]), (5, &[0xe0][..])] {
        cases.extend(after_connect(level).into_iter().map(|(name, bytes)| Case {
            name,
            begin: Begin::Connected(level),
            bytes,
            answer,
        }));
    }
    cases
}

fn before_connect() -> Vec<Case> {
    let mut twice_flagged = connect(4, "reserved");
    twice_flagged[9] |= 0x01;
    let mut unknown_name = connect(4, "name");
    unknown_name[4] = b'X';
    let mut bad_text = connect(4, "xyz");
    let last = bad_text.len() - 1;
    bad_text[last] = 0xff;
    let table: [(&str, Vec<u8>, &[u8]); 13] = [
        ("garbage", garbage(4000), b""),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), b""),
        ("half a CONNECT and silence", connect(4, "half")[..9].to_vec(), b""),
        ("a first byte and silence", vec![0x10], b""),
        ("an endless length", vec![0x10, 0xff, 0xff, 0xff, 0xff, 0x7f], b""),
        ("a CONNECT of 256 MB", vec![0x10, 0xff, 0xff, 0xff, 0x7f], b""),
        ("PUBLISH before CONNECT", publish(b"a"), b""),
        ("SUBSCRIBE before CONNECT", subscribe(0x82, "a"), b""),
        ("a reserved connect flag", twice_flagged, b""),
        ("an unknown protocol name", unknown_name, b""),
        ("a client name that is no UTF-8", bad_text, b""),
        ("an old protocol level", connect(3, "level"), &[0x20, 2, 0, 1]),
        ("an unknown protocol level", connect(9, "level"), &[0x20]),
    ];
    let case = |(name, bytes, answer)| Case { name, begin: Begin::Raw, bytes, answer };
    table.into_iter().map(case).collect()
}

fn after_connect(level: u8) -> Vec<(&'static str, Vec<u8>)> {
    let mut table = vec![
        ("a second CONNECT", connect(level, "again")),
        ("packet type 0", vec![0x00, 0]),
        ("a PUBREL full of garbage", packet(0x62, &garbage(300))),
        ("CONNACK from a client", vec![0x20, 2, 0, 0]),
        ("PINGRESP from a client", vec![0xd0, 0]),
        ("CONNACK with a long body", [vec![0x23, 0x01], vec![0x0d]].concat()),
        ("UNSUBACK with a long body", [vec![0xb0, 0x04], vec![0, 1, 2, 3]].concat()),
        ("QoS 3", [vec![0x36], publish(b"a")[1..].to_vec()].concat()),
        ("packet identifier 0", vec![0x32, 5, 0, 1, b'a', 0, 0]),
        ("a topic longer than its packet", vec![0x30, 4, 0, 9, b'a', b'b']),
        ("a PUBLISH without a topic length", vec![0x30, 1, 0]),
        ("a wildcard in a topic", publish(b"a/#")),
        ("a topic that is no UTF-8", publish(&[b'a', 0xc3, 0x28])),
        ("a zero character in a topic", publish(b"a\0b")),
        ("SUBSCRIBE with other flags", subscribe(0x80, "a")),
        ("SUBSCRIBE to nothing", vec![0x82, 2, 0, 1]),
        ("UNSUBSCRIBE with other flags", vec![0xa0, 5, 0, 1, 0, 1, b'a']),
        ("PUBREL with other flags", vec![0x60, 2, 0, 1]),
        ("a packet of 256 MB", vec![0x30, 0xff, 0xff, 0xff, 0x7f]),
        ("a packet larger than taken", packet(0x30, &[string("a"), vec![0; 3 << 20]].concat())),
    ];
    if level == 5 {
        // In MQTT 5 every packet has its properties after the fields of 3.1.1.
        table.retain(|(name, _)| *name != "SUBSCRIBE to nothing");
        table.extend([
            ("an unknown property", vec![0x30, 6, 0, 1, b'a', 2, 0x7f, 0]),
            ("a property twice", vec![0x30, 8, 0, 1, b'a', 4, 0x01, 0, 0x01, 0]),
            ("properties longer than the packet", vec![0x30, 4, 0, 1, b'a', 50]),
            ("an unknown topic alias", vec![0x30, 6, 0, 0, 3, 0x23, 0, 9]),
            ("AUTH that nobody asked for", vec![0xf0, 2, 0x18, 0]),
        ]);
    } else {
        table.push(("AUTH in 3.1.1", vec![0xf0, 0]));
    }
    table
}

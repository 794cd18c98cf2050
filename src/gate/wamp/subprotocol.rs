//! The WebSocket subprotocols of WAMP, one for each serializer.
//!
//! Deliberately absent: the handshake (`server/upgrade`).

use crate::payload::Serializer;

/// Chooses the first supported WebSocket subprotocol from a client's list, which is in order of preference. The
/// answer to the client is its [`subprotocol`].
#[must_use]
pub fn choose_subprotocol(offered: &[&str]) -> Option<Serializer> {
    let spoken = |name: &&str| Serializer::ALL.into_iter().find(|s| subprotocol(*s) == *name);
    offered.iter().find_map(spoken)
}

/// The name of the WebSocket subprotocol with this serializer.
#[must_use]
pub fn subprotocol(serializer: Serializer) -> &'static str {
    match serializer {
        Serializer::Json => "wamp.2.json",
        Serializer::MsgPack => "wamp.2.msgpack",
        Serializer::Cbor => "wamp.2.cbor",
    }
}

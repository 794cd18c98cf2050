//! What other clients may know about a session, as in WAMP's session meta API (WAMP advanced profile, "Session Meta
//! API").
//!
//! Invariant: it holds nothing secret, and its length is at most six times that of the given name (for JSON escapes),
//! plus [`BESIDE_AUTHID`].
//!
//! Deliberately absent: addresses, which a gate does not know.

use serde_json::json;

use crate::types::event::SessionId;

/// The role of a client that did not authenticate.
pub(super) const ANONYMOUS: &str = "anonymous";

/// The provider that admitted it.
pub(super) const PROVIDER: &str = "static";

/// Most bytes of a session's details besides its name.
pub(super) const BESIDE_AUTHID: usize = 512;

/// How a client is connected.
pub(super) struct Transport {
    /// `websocket`, or `tcp`.
    pub(super) kind: &'static str,
    /// The protocol and its serializer.
    pub(super) protocol: &'static str,
}

/// Describes a session, in JSON.
pub(super) fn describe(session: SessionId, authid: &str, transport: &Transport) -> String {
    let details = json!({
        "session": session.0,
        "authid": authid,
        "authrole": ANONYMOUS,
        "authmethod": ANONYMOUS,
        "authprovider": PROVIDER,
        "transport": { "type": transport.kind, "protocol": transport.protocol },
    });
    details.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_described_in_json() {
        let transport = Transport { kind: "tcp", protocol: "mqtt.5" };
        assert_eq!(
            describe(SessionId(7), "a\"b", &transport),
            r#"{"authid":"a\"b","authmethod":"anonymous","authprovider":"static","authrole":"anonymous","session":7,"transport":{"protocol":"mqtt.5","type":"tcp"}}"#
        );
    }
}

//! What others may know of a session, as WAMP's session meta API shows it (WAMP advanced profile, "Session Meta API").
//!
//! Invariant: it holds nothing secret, and its length is bounded by six times that of the name given, for its escapes in
//! JSON, and [`BESIDE_AUTHID`].
//!
//! Deliberately absent: addresses. A gate knows none.

use serde_json::json;

use crate::types::event::SessionId;

/// Who a client that was let in without being asked is.
pub(super) const ANONYMOUS: &str = "anonymous";

/// Who let it in.
pub(super) const PROVIDER: &str = "static";

/// Bytes of a session's details beside its name, at most.
pub(super) const BESIDE_AUTHID: usize = 512;

/// How a client is connected.
pub(super) struct Transport {
    /// `websocket`, or `tcp`.
    pub(super) kind: &'static str,
    /// The protocol and what it is written in.
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

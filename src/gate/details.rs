//! What other clients may know about a session, as in WAMP's session meta API (WAMP advanced profile, "Session Meta
//! API").
//!
//! Invariant: it holds nothing secret, and its length is at most six times that of the given name (for JSON escapes),
//! plus [`BESIDE_AUTHID`].
//!
//! Deliberately absent: addresses, which a gate does not know.

use serde_json::json;

use crate::types::access::{Identity, ANONYMOUS};
use crate::types::event::SessionId;

/// The provider that admitted a client that did not log in.
const PROVIDER: &str = "static";

/// Most bytes of a session's details besides its name.
pub(super) const BESIDE_AUTHID: usize = 512;

/// Who a client is for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authenticated {
    pub(super) authid: String,
    pub(super) authrole: String,
    pub(super) authmethod: &'static str,
    pub(super) authprovider: &'static str,
}

impl Authenticated {
    /// A client that did not log in.
    pub(super) fn anonymous(authid: &str) -> Self {
        Self {
            authid: authid.to_owned(),
            authrole: ANONYMOUS.to_owned(),
            authmethod: ANONYMOUS,
            authprovider: PROVIDER,
        }
    }

    /// A client that logged in.
    pub(super) fn of(identity: &Identity) -> Self {
        Self {
            authid: identity.user.clone(),
            authrole: identity.role.clone(),
            authmethod: identity.method,
            authprovider: identity.provider,
        }
    }
}

/// How a client is connected.
pub(super) struct Transport {
    /// `websocket`, or `tcp`.
    pub(super) kind: &'static str,
    /// The protocol and its serializer.
    pub(super) protocol: &'static str,
}

/// Describes a session, in JSON.
pub(super) fn describe(session: SessionId, who: &Authenticated, transport: &Transport) -> String {
    let details = json!({
        "session": session.0,
        "authid": who.authid,
        "authrole": who.authrole,
        "authmethod": who.authmethod,
        "authprovider": who.authprovider,
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
            describe(SessionId(7), &Authenticated::anonymous("a\"b"), &transport),
            r#"{"authid":"a\"b","authmethod":"anonymous","authprovider":"static","authrole":"anonymous","session":7,"transport":{"protocol":"mqtt.5","type":"tcp"}}"#
        );
    }
}

//! Whether a CONNECT is accepted, and as what.
//!
//! There are no users yet: everybody is anonymous. A user name only picks the realm (`user@realm`), and a password is
//! not looked at.
//!
//! Invariant: what can't be kept is refused, not silently lost: 3.1.1 sessions that are to outlive their connection
//! (`clean session` 0). An MQTT 5 client that asks for such a session is told in its CONNACK that it ends with the
//! connection, as that version provides for. What all nodes keep of a session has a bounded size.
//!
//! Deliberately absent: taking over from an older connection of the same client, which the driver does.

use super::packet::codec::Connect;
use super::packet::{Reason, Version, Violation};
use crate::act::Join;
use crate::event::SessionId;
use crate::gate::details::{self, Transport};
use crate::topic::Realm;

/// Longest client identifier, in bytes.
const CLIENT_IDENTIFIER: usize = 1024;

/// Longest user name, in bytes.
const USER_NAME: usize = 1024;

/// A client that may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) version: Version,
    pub(crate) realm: Realm,
    pub(crate) name: String,
    /// The name is ours, not the client's.
    pub(crate) assigned: bool,
    /// Seconds; 0: never.
    pub(crate) keep_alive: u16,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: Option<u32>,
    pub(crate) problem_information: bool,
    /// It asked for a session that outlives its connection.
    pub(crate) wants_expiry: bool,
}

/// Decides on a CONNECT; tells who comes in, and what all nodes are told of it.
pub(crate) fn admit(
    connect: Connect,
    default_realm: &Realm,
    session: SessionId,
) -> Result<(Client, Join), Violation> {
    if connect.authentication {
        return Err(Violation::new(
            Reason::BadAuthenticationMethod,
            "no authentication method is offered",
        ));
    }
    if connect.client_id.len() > CLIENT_IDENTIFIER {
        return Err(Violation::new(
            Reason::ClientIdentifierNotValid,
            "the client identifier is longer than 1024 bytes",
        ));
    }
    let assigned = connect.client_id.is_empty();
    if connect.version == Version::V311 && !connect.clean {
        if assigned {
            return Err(Violation::new(
                Reason::ClientIdentifierNotValid,
                "a client without an identifier must ask for a clean session",
            ));
        }
        return Err(Violation::new(
            Reason::ServerUnavailable,
            "persistent sessions are not available: the client must ask for a clean session",
        ));
    }
    if connect.user_name.len() > USER_NAME {
        return Err(Violation::new(
            Reason::BadUserNameOrPassword,
            "the user name is longer than 1024 bytes",
        ));
    }
    let (user, realm) = match connect.user_name.rsplit_once('@') {
        None => (connect.user_name.as_str(), default_realm.clone()),
        Some((user, realm)) => (
            user,
            Realm::new(realm).map_err(|error| {
                Violation::new(Reason::BadUserNameOrPassword, format!("user name: {error}"))
            })?,
        ),
    };
    let name = if assigned { format!("vulpes-{}", session.0) } else { connect.client_id };
    let protocol = match connect.version {
        Version::V311 => "mqtt.3.1.1",
        Version::V5 => "mqtt.5",
    };
    let authid = if user.is_empty() { &name } else { user };
    let details = details::describe(session, authid, &Transport { kind: "tcp", protocol });
    let join = Join { client: Some(name.clone()), will: connect.will, details };
    let client = Client {
        version: connect.version,
        realm,
        name,
        assigned,
        keep_alive: connect.keep_alive,
        receive_maximum: connect.receive_maximum,
        max_packet: connect.max_packet,
        problem_information: connect.problem_information,
        wants_expiry: connect.session_expiry > 0,
    };
    Ok((client, join))
}

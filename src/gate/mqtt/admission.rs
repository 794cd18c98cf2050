//! Whether a CONNECT is accepted, and as what.
//!
//! There are no users yet: everybody is anonymous. A user name only picks the realm (`user@realm`), and a password is
//! not looked at.
//!
//! Invariant: what all nodes keep of a session has a bounded size.
//!
//! Deliberately absent: taking over from an older connection of the same client, and whether there is room to keep
//! something beyond the connection, which all nodes decide alike.

use super::packet::codec::Connect;
use super::packet::{Reason, Version, Violation};
use crate::act::{Attach, Join, NEVER};
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
    /// Seconds for which it asked its session to outlive the connection.
    pub(crate) expiry: u32,
}

/// What all nodes are told of a client that comes in.
#[derive(Debug, PartialEq)]
pub(crate) enum Coming {
    /// Its session ends with the connection, and an earlier one is over.
    Join(Join),
    Attach(Attach),
}

/// Decides on a CONNECT; tells who comes in, and what all nodes are told of it.
pub(crate) fn admit(
    connect: Connect,
    default_realm: &Realm,
    session: SessionId,
) -> Result<(Client, Coming), Violation> {
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
    if connect.version == Version::V311 && !connect.clean && assigned {
        return Err(Violation::new(
            Reason::ClientIdentifierNotValid,
            "a client without an identifier must ask for a clean session",
        ));
    }
    // Of 3.1.1 there are only sessions that end with the connection, and sessions that never do.
    let expiry = match connect.version {
        Version::V311 if connect.clean => 0,
        Version::V311 => NEVER,
        Version::V5 => connect.session_expiry,
    };
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
        expiry,
    };
    let coming = match connect.clean && expiry == 0 {
        true => Coming::Join(join),
        false => Coming::Attach(Attach { join, clean: connect.clean, expiry }),
    };
    Ok((client, coming))
}

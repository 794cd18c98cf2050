//! Decides whether a CONNECT is accepted, and as which client.
//!
//! A user name chooses the realm if the part after its last `@` names one; otherwise the `@` is part of the name
//! (`bob@example.com`), and the realm is the default one. As long as the cluster has no users, every client is anonymous, and
//! passwords are not looked at.
//!
//! Invariant: what all nodes store about a session is at most as large as MQTT's own fields allow.
//!
//! Deliberately absent: taking over from an older connection of the same client, and whether there is room for a
//! persistent session; all nodes decide these alike.

use super::packet::auth::SCRAM;
use super::packet::codec::Connect;
use super::packet::{Reason, Version, Violation};
use crate::gate::details::{self, Authenticated, Transport};
use crate::gate::mqtt::{MqttConfig, CONNECT_PACKET};
use crate::types::access::{Identity, Login};
use crate::types::act::{Attach, Join, NEVER};
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::login::LoginStep;
use crate::types::topic::Realm;

/// A session's event holds the details twice, where a byte of the name may take six, and the will of the CONNECT.
const _: () = assert!(
    2 * (6 * limits::MQTT_TEXT + details::BESIDE_AUTHID)
        + CONNECT_PACKET
        + limits::SEGMENT_OVERHEAD
        < limits::SEGMENT_BODY
);

/// A client that is admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) version: Version,
    /// It forwards what it receives to another server.
    pub(crate) bridge: bool,
    pub(crate) realm: Realm,
    pub(crate) name: String,
    /// The name was assigned by us.
    pub(crate) assigned: bool,
    /// Seconds; 0: never.
    pub(crate) keep_alive: u16,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: Option<u32>,
    pub(crate) problem_information: bool,
    /// Seconds that its session should outlive the connection.
    pub(crate) expiry: u32,
}

/// What all nodes learn about an admitted client.
#[derive(Debug, PartialEq)]
pub(crate) enum Coming {
    /// Its session ends with the connection, and any earlier one is over.
    Join(Join),
    Attach(Attach),
}

/// A client whose CONNECT is in order.
#[derive(Debug, PartialEq)]
pub(crate) struct Admitted {
    pub(crate) client: Client,
    pub(crate) coming: Coming,
    /// It is to log in first.
    pub(crate) login: Option<LoginStep>,
}

/// What is known of a client before its CONNECT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    /// It has to log in.
    pub(crate) has_users: bool,
    /// It has shown a certificate that names its user.
    pub(crate) is_certified: bool,
}

impl Coming {
    /// The client has logged in.
    pub(crate) fn identify(&mut self, session: SessionId, version: Version, identity: &Identity) {
        let join = match self {
            Self::Join(join) => join,
            Self::Attach(attach) => &mut attach.join,
        };
        join.details = described(session, &Authenticated::of(identity), version);
    }
}

fn described(session: SessionId, who: &Authenticated, version: Version) -> String {
    let protocol = match version {
        Version::V31 => "mqtt.3.1",
        Version::V311 => "mqtt.3.1.1",
        Version::V5 => "mqtt.5",
    };
    details::describe(session, who, &Transport { kind: "tcp", protocol })
}

/// Decides on a CONNECT; returns the client, and what all nodes learn about it.
pub(crate) fn admit(
    connect: Connect,
    (config, Who { has_users, is_certified }): (&MqttConfig, Who),
    session: SessionId,
) -> Result<Admitted, Violation> {
    let refused = match &connect.authentication {
        Some(_) if !has_users => {
            Some("this cluster has no users: leave out the authentication method")
        }
        Some(asked) if asked.method != SCRAM => {
            Some("the only authentication method is SCRAM-SHA-256")
        }
        _ => None,
    };
    if let Some(text) = refused {
        return Err(Violation::new(Reason::BadAuthenticationMethod, text));
    }
    let assigned = connect.client_id.is_empty();
    if assigned {
        let text = match connect.version {
            Version::V31 => Some("a client has to have an identifier"),
            Version::V311 if !connect.clean => {
                Some("a client without an identifier must ask for a clean session")
            }
            Version::V311 | Version::V5 => None,
        };
        if let Some(text) = text {
            return Err(Violation::new(Reason::ClientIdentifierNotValid, text));
        }
    }
    // Before MQTT 5, a session either ends with its connection or never expires.
    let expiry = match connect.version {
        Version::V5 => connect.session_expiry,
        Version::V31 | Version::V311 if connect.clean => 0,
        Version::V31 | Version::V311 => NEVER,
    };
    let named = connect.user_name.rsplit_once('@').and_then(|(user, realm)| {
        let realm = Realm::new(realm).ok().filter(|realm| config.realms.contains(realm))?;
        Some((user, realm))
    });
    let (user, realm) =
        named.unwrap_or_else(|| (connect.user_name.as_str(), config.default_realm.clone()));
    let name = if assigned { format!("vulpes-{}", session.0) } else { connect.client_id };
    let login = match (connect.authentication, connect.password) {
        (Some(asked), _) => Some(LoginStep::Scram(asked.data)),
        _ if has_users && is_certified => Some(LoginStep::Certificate),
        (None, Some(password)) if has_users => {
            Some(LoginStep::Password(Login { user: user.to_owned(), password }))
        }
        (None, None) if has_users && !user.is_empty() => {
            let text = "this cluster has users: a user name needs its password";
            return Err(Violation::new(Reason::BadUserNameOrPassword, text));
        }
        _ => None,
    };
    let authid = if user.is_empty() { &name } else { user };
    let details = described(session, &Authenticated::anonymous(authid), connect.version);
    let join = Join { client: Some(name.clone()), will: connect.will, details };
    let client = Client {
        version: connect.version,
        bridge: connect.bridge,
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
    Ok(Admitted { client, coming, login })
}

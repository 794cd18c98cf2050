//! The procedures that every entry answers by itself, from its own fold of the log: WAMP's meta API of sessions and
//! registrations (WAMP advanced profile, "Session Meta API", "Registration Meta API").
//!
//! Invariant: equal folds give equal answers, at any node.
//!
//! Deliberately absent: procedures that change something, such as `wamp.session.kill`.

use super::{CallError, CallMessage};
use crate::payload::{self, Serializer};
use crate::realm::Realms;
use crate::types::event::{Payload, SessionId};
use crate::types::limits;
use crate::types::procedure::{Matching, RegistrationId};
use crate::types::topic::Realm;
use crate::types::value::Value;

const NO_SUCH_SESSION: &str = "wamp.error.no_such_session";
const NO_SUCH_REGISTRATION: &str = "wamp.error.no_such_registration";
const INVALID_ARGUMENT: &str = "wamp.error.invalid_argument";

/// Answers a call of one of the router's own procedures.
#[must_use]
pub fn answer(realms: &Realms, realm: &Realm, call: &super::Call) -> CallMessage {
    let args = arguments(&call.payload);
    let id = call.id;
    match result(realms, realm, call.procedure.as_str(), &args) {
        Ok(value) => {
            let args = payload::encode(Serializer::Json, &Value::List(vec![value])).into();
            let encoding = Serializer::Json.encoding();
            let payload = Payload { encoding, args, kwargs: bytes::Bytes::new() };
            if payload.len() > limits::EVENT {
                let sentence = format!("the answer has more than {} bytes", limits::EVENT);
                let error = own("wamp.error.payload_size_exceeded", &sentence);
                return CallMessage::Failed { call: id, error };
            }
            CallMessage::Result { call: id, progress: false, payload }
        }
        Err(error) => CallMessage::Failed { call: id, error },
    }
}

fn own(uri: &str, sentence: &str) -> CallError {
    CallError::Own { uri: uri.into(), sentence: sentence.into() }
}

fn arguments(payload: &Payload) -> Vec<Value> {
    let of = |serializer: &Serializer| serializer.encoding() == payload.encoding;
    let serializer = Serializer::ALL.into_iter().find(of);
    match serializer.map(|serializer| payload::decode(serializer, &payload.args)) {
        Some(Ok(Value::List(args))) => args,
        _ => Vec::new(),
    }
}

fn result(
    realms: &Realms,
    realm: &Realm,
    procedure: &str,
    args: &[Value],
) -> Result<Value, CallError> {
    match procedure {
        "wamp.session.count" => {
            let roles = roles(args)?;
            Ok(Value::integer(sessions(realms, realm, roles.as_deref()).count() as u64))
        }
        "wamp.session.list" => {
            let roles = roles(args)?;
            let ids = sessions(realms, realm, roles.as_deref());
            Ok(Value::List(ids.map(|session| Value::integer(session.0)).collect()))
        }
        "wamp.session.get" => {
            let session = SessionId(number(args, "a session's number")?);
            let state = realms.session(session).filter(|state| state.realm == *realm);
            let state = state.ok_or_else(|| own(NO_SUCH_SESSION, "there is no such session"))?;
            Ok(details(&state.details))
        }
        "wamp.registration.list" => {
            let pair = |matching: Matching| {
                let ids = realms.registrations(realm, matching).into_iter();
                let ids = ids.map(|id| Value::integer(id.0)).collect();
                (matching.word().to_owned(), Value::List(ids))
            };
            let all = [Matching::Exact, Matching::Prefix, Matching::Wildcard];
            Ok(Value::Dict(all.map(pair).into()))
        }
        "wamp.registration.lookup" => {
            let word = args.get(1).and_then(|options| options.get("match"));
            let matching = match word {
                None | Some(Value::Null) => Some(Matching::Exact),
                Some(Value::Str(word)) => Matching::from_word(word),
                Some(_) => None,
            };
            let matching = matching.ok_or_else(|| {
                own(INVALID_ARGUMENT, "match has to be \"exact\", \"prefix\" or \"wildcard\"")
            })?;
            let found = realms.registered_as(realm, matching, text(args)?);
            Ok(found.map_or(Value::Null, |found| Value::integer(found.id.0)))
        }
        "wamp.registration.match" => {
            let found = realms.registered_for(realm, text(args)?);
            Ok(found.map_or(Value::Null, |(_, found)| Value::integer(found.id.0)))
        }
        "wamp.registration.get"
        | "wamp.registration.list_callees"
        | "wamp.registration.count_callees" => registration(realms, realm, procedure, args),
        _ => Err(CallError::NoSuchProcedure),
    }
}

/// Answers a question about one registration.
fn registration(
    realms: &Realms,
    realm: &Realm,
    procedure: &str,
    args: &[Value],
) -> Result<Value, CallError> {
    let id = RegistrationId(number(args, "a registration's number")?);
    let found = realms.registration(id).filter(|(place, _)| place.realm == *realm);
    let (place, found) =
        found.ok_or_else(|| own(NO_SUCH_REGISTRATION, "there is no such registration"))?;
    let pair = |name: &str, text: &str| (name.to_owned(), Value::Str(text.to_owned()));
    let callees = || found.callees.iter().map(|callee| Value::integer(callee.session.0));
    Ok(match procedure {
        "wamp.registration.list_callees" => Value::List(callees().collect()),
        "wamp.registration.count_callees" => Value::integer(found.callees.len() as u64),
        _ => Value::Dict(vec![
            ("id".into(), Value::integer(id.0)),
            pair("created", &found.created.to_iso()),
            pair("uri", place.procedure.as_str()),
            pair("match", place.matching.word()),
            pair("invoke", found.invoke.word()),
        ]),
    })
}

fn sessions<'a>(
    realms: &'a Realms,
    realm: &'a Realm,
    roles: Option<&'a [String]>,
) -> impl Iterator<Item = SessionId> + 'a {
    let has_role = move |state: &crate::realm::SessionState| {
        let Some(roles) = roles else { return true };
        let details = details(&state.details);
        matches!(details.get("authrole"), Some(Value::Str(role)) if roles.contains(role))
    };
    let wanted = realms.sessions().filter(move |(_, state)| state.realm == *realm);
    wanted.filter(move |(_, state)| has_role(state)).map(|(session, _)| session)
}

fn details(json: &str) -> Value {
    payload::decode(Serializer::Json, json.as_bytes()).unwrap_or(Value::Dict(Vec::new()))
}

/// The roles that sessions should have; `None`: any.
fn roles(args: &[Value]) -> Result<Option<Vec<String>>, CallError> {
    let roles = match args.first() {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::List(roles)) => roles.iter().map(|role| match role {
            Value::Str(role) => Some(role.clone()),
            _ => None,
        }),
        Some(_) => return Err(own(INVALID_ARGUMENT, "the first argument is a list of roles")),
    };
    let roles: Option<Vec<String>> = roles.collect();
    roles.map(Some).ok_or_else(|| own(INVALID_ARGUMENT, "a role is a string"))
}

fn number(args: &[Value], what: &str) -> Result<u64, CallError> {
    let number = args.first().and_then(Value::whole);
    number.ok_or_else(|| own(INVALID_ARGUMENT, &format!("the first argument is {what}")))
}

fn text(args: &[Value]) -> Result<&str, CallError> {
    match args.first() {
        Some(Value::Str(text)) => Ok(text),
        _ => Err(own(INVALID_ARGUMENT, "the first argument is a procedure")),
    }
}

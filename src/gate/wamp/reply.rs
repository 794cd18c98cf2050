//! Encodes every message to a client, whole, each into its own buffer.
//!
//! Invariant: every id is an integer; a missing field is left out, never null.
//!
//! Deliberately absent: when a message is sent (`wamp`).

use vulpes_raft::ids::{EventId, Position};

use super::message::{code, RequestId};
use super::uri;
use crate::gate::details::Authenticated;
use crate::payload::{Arguments, Serializer, Writer};
use crate::types::event::SessionId;
use crate::types::login::Challenge;
use crate::types::subscription::SubscriptionId;
use crate::types::topic::Realm;

/// Only working features are announced (WAMP advanced profile, "Feature Announcement").
const BROKER_FEATURES: [&str; 4] = [
    "event_retention",
    "pattern_based_subscription",
    "publisher_exclusion",
    "publisher_identification",
];

const DEALER_FEATURES: [&str; 6] = [
    "call_canceling",
    "call_timeout",
    "caller_identification",
    "pattern_based_registration",
    "progressive_call_results",
    "shared_registration",
];

/// Room for a message without a payload.
pub(super) const SMALL: usize = 64;

/// Asks for what a method needs (WAMP advanced profile, "Authentication").
pub(super) fn challenge(serializer: Serializer, challenge: &Challenge) -> Vec<u8> {
    let mut writer = message(serializer, 8 * SMALL, 3, code::CHALLENGE);
    writer.text(challenge.method.name());
    writer.begin_dict(challenge.extra.len());
    for (key, value) in &challenge.extra {
        writer.key(key);
        writer.value(value);
    }
    writer.end_dict();
    finish(writer)
}

pub(super) fn welcome(
    serializer: Serializer,
    session: SessionId,
    realm: &Realm,
    (who, proof): &(Authenticated, Option<String>),
) -> Vec<u8> {
    let mut writer = message(serializer, 512, 3, code::WELCOME);
    writer.integer(session.0);
    writer.begin_dict(7 + usize::from(proof.is_some()));
    pair(&mut writer, "realm", realm.as_str());
    pair(&mut writer, "authid", &who.authid);
    pair(&mut writer, "authrole", &who.authrole);
    pair(&mut writer, "authmethod", who.authmethod);
    pair(&mut writer, "authprovider", who.authprovider);
    if let Some(proof) = proof {
        writer.key("authextra");
        writer.begin_dict(1);
        pair(&mut writer, "verifier", proof);
        writer.end_dict();
    }
    pair(&mut writer, "agent", concat!("vulpes/", env!("CARGO_PKG_VERSION")));
    writer.key("roles");
    writer.begin_dict(2);
    role(&mut writer, "broker", &BROKER_FEATURES);
    role(&mut writer, "dealer", &DEALER_FEATURES);
    writer.end_dict();
    writer.end_dict();
    finish(writer)
}

fn role(writer: &mut Writer, name: &str, features: &[&str]) {
    writer.key(name);
    writer.begin_dict(1);
    writer.key("features");
    writer.begin_dict(features.len());
    for feature in features {
        writer.key(feature);
        writer.value(&crate::types::value::Value::Bool(true));
    }
    writer.end_dict();
    writer.end_dict();
}

pub(super) fn abort(serializer: Serializer, uri: &str, sentence: &str) -> Vec<u8> {
    farewell(serializer, code::ABORT, uri, Some(sentence))
}

pub(super) fn goodbye(serializer: Serializer, uri: &str, sentence: Option<&str>) -> Vec<u8> {
    farewell(serializer, code::GOODBYE, uri, sentence)
}

fn farewell(serializer: Serializer, code: u64, uri: &str, sentence: Option<&str>) -> Vec<u8> {
    let mut writer = message(serializer, 2 * SMALL + sentence.map_or(0, str::len), 3, code);
    writer.begin_dict(usize::from(sentence.is_some()));
    if let Some(sentence) = sentence {
        pair(&mut writer, "message", sentence);
    }
    writer.end_dict();
    writer.text(uri);
    finish(writer)
}

/// Why a request failed.
pub(super) struct Failure<'a> {
    pub(super) uri: &'a str,
    /// For people; the first argument.
    pub(super) sentence: &'a str,
    /// For programs: a keyword with a position.
    pub(super) position: Option<(&'static str, Position)>,
}

pub(super) fn error(
    serializer: Serializer,
    code: u64,
    request: RequestId,
    failure: &Failure<'_>,
) -> Vec<u8> {
    let length = 6 + usize::from(failure.position.is_some());
    let mut writer = message(serializer, 2 * SMALL + failure.sentence.len(), length, code::ERROR);
    writer.integer(code);
    writer.integer(request.0);
    writer.begin_dict(0);
    writer.end_dict();
    writer.text(failure.uri);
    writer.begin_list(1);
    writer.text(failure.sentence);
    writer.end_list();
    if let Some((key, position)) = failure.position {
        writer.begin_dict(1);
        writer.key(key);
        writer.integer(position.0);
        writer.end_dict();
    }
    finish(writer)
}

/// The answer to a granted request: PUBLISHED, SUBSCRIBED or REGISTERED with the id that it produced; without an id,
/// the answer that ends one of these.
pub(super) fn granted(
    serializer: Serializer,
    code: u64,
    request: RequestId,
    id: Option<u64>,
) -> Vec<u8> {
    let mut writer = message(serializer, SMALL, 2 + usize::from(id.is_some()), code);
    writer.integer(request.0);
    if let Some(id) = id {
        writer.integer(id);
    }
    finish(writer)
}

/// UNSUBSCRIBED without a request (WAMP advanced profile, "Subscription Revocation").
pub(super) fn ended(serializer: Serializer, subscription: SubscriptionId) -> Vec<u8> {
    let mut writer = message(serializer, 2 * SMALL, 3, code::UNSUBSCRIBED);
    writer.integer(0);
    writer.begin_dict(2);
    writer.key("subscription");
    writer.integer(subscription.0);
    pair(&mut writer, "reason", uri::SNAPSHOT_COMPLETE);
    writer.end_dict();
    finish(writer)
}

/// The parts of an event that are the same for all subscriptions of the session.
pub(super) struct Shown<'a> {
    pub(super) position: Position,
    pub(super) id: EventId,
    /// Its topic as a string in the session's serializer.
    pub(super) topic: &'a [u8],
    /// If it is disclosed.
    pub(super) publisher: Option<SessionId>,
    pub(super) payload: Arguments,
}

pub(super) fn event(
    serializer: Serializer,
    subscription: SubscriptionId,
    retained: bool,
    shown: &Shown<'_>,
) -> Vec<u8> {
    let Arguments { args, kwargs } = &shown.payload;
    let length = match (args.is_empty(), kwargs.is_empty()) {
        (true, true) => 4,
        (false, true) => 5,
        (_, false) => 6,
    };
    let capacity = 3 * SMALL + shown.topic.len() + args.len() + kwargs.len();
    let mut writer = message(serializer, capacity, length, code::EVENT);
    writer.integer(subscription.0);
    writer.integer(shown.position.0);
    writer.begin_dict(2 + usize::from(shown.publisher.is_some()) + usize::from(retained));
    writer.key("topic");
    writer.raw(shown.topic);
    pair(&mut writer, "event_id", &shown.id.to_string());
    if let Some(publisher) = shown.publisher {
        writer.key("publisher");
        writer.integer(publisher.0);
    }
    if retained {
        writer.key("retained");
        writer.value(&crate::types::value::Value::Bool(true));
    }
    writer.end_dict();
    if !args.is_empty() {
        writer.raw(args);
    } else if !kwargs.is_empty() {
        writer.begin_list(0);
        writer.end_list();
    }
    if !kwargs.is_empty() {
        writer.raw(kwargs);
    }
    finish(writer)
}

pub(super) fn message(serializer: Serializer, capacity: usize, length: usize, code: u64) -> Writer {
    let mut writer = Writer::new(serializer, capacity);
    writer.begin_list(length);
    writer.integer(code);
    writer
}

pub(super) fn finish(mut writer: Writer) -> Vec<u8> {
    writer.end_list();
    writer.finish()
}

pub(super) fn pair(writer: &mut Writer, key: &str, text: &str) {
    writer.key(key);
    writer.text(text);
}

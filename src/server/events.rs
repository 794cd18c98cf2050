//! What a session says of itself in the log: that it begins, and that it ends.
//!
//! Both are events of WAMP's session meta API as well, and acts for the realm's state.
//!
//! Deliberately absent: what becomes of them (`realm`).

use bytes::Bytes;

use crate::act::{Act, Attach, Detach, Join, Leave};
use crate::event::{Encoding, Event, Payload, Qos, SessionId};
use crate::topic::{Realm, Topic};

/// A session begins.
pub(super) fn join(realm: Realm, session: SessionId, join: Join) -> Event {
    let details = match join.details.as_str() {
        "" => format!("{{\"session\":{}}}", session.0),
        details => details.to_owned(),
    };
    event(realm, session, "wamp/session/on_join", &details, &Act::Join(join))
}

/// A session ends.
pub(super) fn leave(realm: Realm, session: SessionId, drop_will: bool) -> Event {
    let act = Act::Leave(Leave { drop_will });
    event(realm, session, "wamp/session/on_leave", &session.0.to_string(), &act)
}

/// A session begins that outlives its connection.
pub(super) fn attach(realm: Realm, session: SessionId, attach: Attach) -> Event {
    let act = Act::Attach(attach.clone());
    Event { act: act.encode(), ..join(realm, session, attach.join) }
}

/// The connection of such a session ends.
pub(super) fn detach(realm: Realm, session: SessionId, detach: Detach) -> Event {
    let act = Act::Detach(detach);
    event(realm, session, "wamp/session/on_leave", &session.0.to_string(), &act)
}

/// Something about what is kept; no subscriber sees it.
pub(super) fn keeping(realm: Realm, publisher: SessionId, act: &Act) -> Event {
    event(realm, publisher, "vulpes/kept", "", act)
}

fn event(realm: Realm, session: SessionId, topic: &str, json: &str, act: &Act) -> Event {
    let args = format!("[{json}]").into();
    Event {
        realm,
        topic: Topic::from_canonical(topic),
        publisher: session,
        exclude_me: false,
        disclose_me: false,
        retain: false,
        qos: Qos::AtLeastOnce,
        payload: Payload { encoding: Encoding::Json, args, kwargs: Bytes::new() },
        properties: Bytes::new(),
        act: act.encode(),
    }
}

//! Events of the session itself in the log: that it begins, and that it ends.
//!
//! Both are events of WAMP's session meta API as well, and acts for the realm's state.
//!
//! Deliberately absent: their effect (`realm`).

use serde_json::Value;

use crate::types::act::{Act, Attach, Gone, Join};
use crate::types::event::{Event, Extensions, Payload, SessionId};
use crate::types::topic::Realm;

/// A session begins.
pub(crate) fn join(realm: Realm, session: SessionId, join: Join) -> Event {
    let details = match join.details.as_str() {
        "" => format!("{{\"session\":{}}}", session.0),
        details => details.to_owned(),
    };
    event(realm, session, "wamp/session/on_join", &details, &Act::Join(join))
}

/// The first event of a session whose client has logged in. Its user's name is short enough for it.
pub(crate) fn of_user(event: Event, user: &str) -> Event {
    let extensions = Extensions::of_user(user).unwrap_or_default();
    Event { extensions, ..event }
}

/// `authid` and `authrole` from a session's details, for the event of its end.
pub(crate) fn known_as(details: &str) -> [Value; 2] {
    let details: Value = serde_json::from_str(details).unwrap_or_default();
    ["authid", "authrole"].map(|key| details[key].clone())
}

/// A persistent session begins.
pub(crate) fn attach(realm: Realm, session: SessionId, attach: Attach) -> Event {
    let act = Act::Attach(attach.clone());
    Event { act: act.encode(), ..join(realm, session, attach.join) }
}

/// The connection of a session has ended (WAMP advanced profile, "Session Meta Events").
pub(crate) fn gone(realm: Realm, session: SessionId, known_as: &str, gone: Gone) -> Event {
    let arguments = format!("{},{known_as}", session.0);
    event(realm, session, "wamp/session/on_leave", &arguments, &Act::Gone(gone))
}

/// An event about a persistent session's state; no subscriber sees it.
pub(crate) fn persisting(realm: Realm, publisher: SessionId, act: &Act) -> Event {
    Event::of_act(realm, "vulpes/kept", publisher, act.encode())
}

fn event(realm: Realm, session: SessionId, topic: &str, json: &str, act: &Act) -> Event {
    let event = Event::of_act(realm, topic, session, act.encode());
    let args = format!("[{json}]").into();
    Event { payload: Payload { args, ..event.payload }, ..event }
}

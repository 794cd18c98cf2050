//! The state that this release makes of one log with an act of every kind, and the number of the log's format.
//!
//! If this test fails, nodes of this release and of the one before would come to different states from one log. Raise
//! [`LOG_FORMAT`], once per release, and update the expected state.

use vulpes_raft::format::LOG_FORMAT;

use super::*;
use crate::types::access::{ChangeUsers, User, UserChange, ADMIN, ANONYMOUS};
use crate::types::act::{Administer, Detach, Expire, PersistentSubscription, Progress};
use crate::types::ban::{AddBan, BanChange, BanTarget, ChangeBans};
use crate::types::procedure::{Invoke, Matching, Procedure, Register, RegistrationId};
use crate::types::rule::{ChangeRoles, Role, RoleChange};

/// The hash of the rows after a log with all acts of `OLDEST_LOG_FORMAT`, and the positions of events that subscribers do not
/// see. It must not change, because files of that format are opened.
const OLDER: (&str, &[u64]) =
    ("f53a62393d34b61291a9f258f1d275e1", &[4, 8, 11, 12, 13, 14, 15, 16, 26, 27, 28]);

/// The same after the acts that format 9 has beside them. It must not change either.
const NINTH: (&str, &[u64]) = (
    "fd0ea91a6f1a10a7924e5674d8bd0203",
    &[4, 8, 11, 12, 13, 14, 15, 16, 26, 27, 28, 37, 39, 40, 41, 42, 43, 45, 47],
);

/// The current format, and hash and positions after the acts that it adds.
const EXPECTED: (u32, &str, &[u64]) = (
    10,
    "d918684fc63bbf716e3d6d7f70aa275f",
    &[
        4, 8, 11, 12, 13, 14, 15, 16, 26, 27, 28, 37, 39, 40, 41, 42, 43, 45, 47, 48, 49, 50, 54,
        55, 56, 57, 58, 59,
    ],
);

fn publish(session: u64, topic: &str, value: &str, terms: Terms) -> Event {
    Event { act: Act::Publish(terms).encode(), ..event(session, topic, value) }
}

fn attach(session: u64, client: &str, expiry: u32, delay: u32) -> Event {
    let will = Will {
        topic: Topic::from_canonical("gone"),
        payload: payload("\"offline\""),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: true,
        delay,
    };
    let join = Join { client: Some(client.into()), will: Some(will), details: String::new() };
    act(session, "join", &Act::Attach(Attach { join, clean: false, expiry }))
}

fn keywords(topic: &str) -> Event {
    let payload = Payload { kwargs: "{\"k\":1}".into(), args: "[]".into(), ..payload("") };
    Event { payload, ..event(1, topic, "") }
}

fn once(session: u64, packet_id: u16) -> Event {
    let terms = Terms { merge: true, ..Terms::default() };
    let act = Act::Once { packet_id, terms }.encode();
    Event { act, retain: true, ..event(session, "once", "{\"n\":1}") }
}

fn gone(session: u64) -> Event {
    let progress = Some(Progress { sent: Position(9), ..Progress::default() });
    act(session, "leave", &Act::Gone(Gone { drop_will: true, expiry: Some(0), progress }))
}

fn detach(session: u64) -> Event {
    let progress = Progress { sent: Position(9), ..Progress::default() };
    act(session, "leave", &Act::Detach(Detach { drop_will: false, expiry: None, progress }))
}

fn keep() -> Act {
    let persistent = PersistentSubscription {
        qos: Qos::AtLeastOnce,
        no_local: true,
        retain_as_published: false,
        changes: true,
        identifier: Some(3),
        condition: Some(json("{\"a\": 1}")),
    };
    Act::Subscribe(vec![("a".into(), persistent.clone()), ("b".into(), persistent)])
}

fn register() -> Act {
    Act::Register(Register {
        procedure: Procedure::new("a.b", Matching::Exact).unwrap(),
        matching: Matching::Exact,
        invoke: Invoke::RoundRobin,
        concurrency: 2,
        disclose_caller: false,
    })
}

/// The events of the log, each in its own segment, with the entry it comes from.
fn events() -> Vec<(u64, Event)> {
    let lock = Terms {
        when: Some(Value::Null),
        watch: true,
        will: Some(payload("null")),
        ..Terms::default()
    };
    let fits = Terms { when: Some(json("{\"n\": 1}")), ..Terms::default() };
    let merge = Terms { merge: true, ..Terms::default() };
    let join = |client: &str| Join { client: Some(client.into()), ..Join::default() };
    let due = |session, number| Act::Due(DueId { session: SessionId(session), number });
    let expire = |client: &str, since| Expire { client: client.into(), since: OrderTime(since) };
    vec![
        (1, act(1, "join", &Act::Join(Join::default()))),
        (2, act(2, "join", &Act::Join(join("plain")))),
        (1, publish(1, "lock", "1", lock.clone())),
        (2, publish(2, "lock", "2", lock.clone())),
        (1, event(1, "value", "{\"n\": 1, \"m\": {\"a\": 1}}")),
        (1, publish(1, "value", "{\"m\": {\"b\": 2}}", merge)),
        (1, publish(1, "value", "{\"n\": 2}", fits.clone())),
        (1, publish(1, "value", "{\"n\": 3}", fits)),
        (1, event(1, "gone", "null")),
        (1, attach(3, "c", 60, 1)),
        (1, act(3, "keep", &keep())),
        (1, act(3, "keep", &Act::Unsubscribe(vec!["b".into()]))),
        (1, act(0, "save", &Act::Progress(vec![(SessionId(3), Progress::default())]))),
        (1, act(1, "offer", &register())),
        (2, act(2, "offer", &register())),
        (2, act(2, "offer", &Act::Unregister(RegistrationId(16)))),
        (1, detach(3)),
        (1, Event { retain: true, ..act(3, "gone", &due(3, 0)) }),
        (2, attach(4, "c", 1, 0)),
        (1, act(1, "leave", &Act::Leave(Leave { drop_will: false }))),
        (1, Event { payload: payload("null"), retain: true, ..act(1, "lock", &due(1, 0)) }),
        (
            2,
            Event {
                act: Act::Granted { waiting: Position(4), terms: lock }.encode(),
                ..event(2, "lock", "2")
            },
        ),
        (2, detach(4)),
        (2, Event { retain: true, ..act(4, "gone", &due(4, 0)) }),
        (2, attach(5, "d", 1, 0)),
        (1, act(0, "drop", &Act::Expire(expire("c", HOUR + 24_000)))),
        (1, act(0, "drop", &Act::Expire(expire("c", HOUR + 24_000)))),
        (1, act(0, "head", &Act::Release { slot: Slot(3), position: Position(1) })),
        // Keywords alone are retained, but are no value; the same holds for the four bytes of an MQTT payload.
        (1, keywords("value")),
        (1, publish(1, "value", "5", Terms { when: Some(Value::Null), ..Terms::default() })),
        (1, Event { payload: Payload::raw("null".into()), ..event(1, "bytes", "") }),
        // One client connects twice before what it left is published.
        (1, attach(6, "e", 0, 0)),
        (2, attach(7, "e", 0, 0)),
        (1, attach(8, "e", 0, 0)),
        (1, Event { retain: true, ..act(6, "gone", &due(6, 0)) }),
    ]
}

/// What the formats up to 9 added.
fn newer_events() -> Vec<(u64, Event)> {
    let user = User { verifier: "v".into(), roles: vec![ADMIN.into()], disabled: false };
    let add = |name: &str| UserChange::Add { name: name.into(), user: user.clone() };
    let users = |author: &str, changes| ChangeUsers { author: author.into(), changes };
    let join = act(10, "join", &Act::Join(Join::default()));
    let rules = vec!["deny publish,call {user}/+/# in r".parse().unwrap()];
    let set =
        |name: &str| RoleChange::Set { name: name.into(), role: Role { rules: rules.clone() } };
    let roles = |changes| ChangeRoles { author: "a".into(), changes };
    vec![
        // The last words of a session that was taken over, and of one that was not.
        (2, attach(9, "e", 0, 0)),
        (1, gone(8)),
        (2, gone(9)),
        // Users, and a session that needs one.
        (1, act(0, "users", &Act::ChangeUsers(users("", vec![add("a"), add("b")])))),
        (1, join),
        (1, act(0, "users", &Act::ChangeUsers(users("a", vec![add("c"), add("b")])))),
        // Roles, a session that registers by one, and its will, which waits for its delay.
        (1, act(0, "roles", &Act::ChangeRoles(roles(vec![set("x"), set("y")])))),
        (1, act(0, "users", &Act::ChangeUsers(users("a", vec![add(ANONYMOUS)])))),
        (1, attach(11, "f", 60, 60)),
        (1, act(11, "offer", &register())),
        (1, act(11, "leave", &Act::Gone(Gone { drop_will: false, expiry: None, progress: None }))),
        (
            1,
            act(
                0,
                "roles",
                &Act::ChangeRoles(roles(vec![RoleChange::Remove { name: "y".into() }])),
            ),
        ),
    ]
}

/// What this format adds.
fn newest_events() -> Vec<(u64, Event)> {
    let administer = |change| act(0, "users", &Act::Administer(change));
    let (author, user) = ("a".to_owned(), BanTarget::User(ANONYMOUS.into()));
    let ban = |target, lasts| BanChange::Add(AddBan { target, reason: "r".into(), lasts });
    let client = BanTarget::Client { name: "e".into(), realm: Some(Realm::new(REALM).unwrap()) };
    let bans = |changes| Administer::Bans(ChangeBans { author: author.clone(), changes });
    let c = User { verifier: "c".into(), roles: vec!["x".into()], disabled: false };
    let changes = vec![UserChange::Add { name: "c".into(), user: c }];
    let changes = ChangeUsers { author: author.clone(), changes };
    let role = vec![RoleChange::Remove { name: "x".into() }];
    vec![
        (1, administer(bans(vec![ban(user.clone(), Some(2500)), ban(client, None)]))),
        // By its name, and by its user until that ban is over.
        (1, attach(12, "e", 60, 0)),
        (2, attach(13, "g", 60, 0)),
        (1, attach(14, "h", 60, 0)),
        // Publishes of QoS 2: one twice, one whose exchange is complete, and one of a session that is over.
        (1, once(14, 1)),
        (1, once(14, 2)),
        (1, once(14, 1)),
        (1, act(14, "completed", &Act::Complete { packet_id: 2 })),
        (1, once(9, 3)),
        // Nobody could administer.
        (1, administer(bans(vec![ban(BanTarget::User("a".into()), None), ban(user, None)]))),
        (1, administer(Administer::Users(changes))),
        (1, administer(Administer::Roles(ChangeRoles { author: author.clone(), changes: role }))),
    ]
}

#[test]
fn one_log_is_one_state() {
    // Bodies of the older format make the same state: that is why files that hold them are opened.
    for older_bodies in [false, true] {
        let (hash, hidden) = state_of(events(), older_bodies);
        assert_eq!((hash.as_str(), hidden.as_slice()), OLDER, "what older formats have");
        let ninth = [events(), newer_events()].concat();
        let (hash, hidden) = state_of(ninth.clone(), older_bodies);
        assert_eq!((hash.as_str(), hidden.as_slice()), NINTH, "what format 9 has");
        let all = [ninth, newest_events()].concat();
        let (hash, hidden) = state_of(all, older_bodies);
        assert_eq!((LOG_FORMAT, hash.as_str(), hidden.as_slice()), EXPECTED);
    }
}

/// The hash of the rows after these events, and the positions of events that subscribers do not see.
fn state_of(events: Vec<(u64, Event)>, older_bodies: bool) -> (String, Vec<u64>) {
    let mut story = Story { older_bodies, ..Story::at_entries() };
    let mut hidden = Vec::new();
    for (entry, event) in events {
        let (position, shown) = story.event(entry, event);
        if !shown {
            hidden.push(position);
        }
    }
    let reason = CloseReason::LeaseLost;
    story.step(Step::Closed { entry: NodeId(2), incarnation: Incarnation(2), reason }, None);
    (story.realms.hash().to_string(), hidden)
}

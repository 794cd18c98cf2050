//! Roles, and what the fold decides by them.

use super::access::{add, user};
use super::bans::ban;
use super::*;
use crate::types::access::{ChangeUsers, User, UserChange, ADMIN, ANONYMOUS};
use crate::types::act::Administer;
use crate::types::ban::{BanChange, BanTarget, ChangeBans};
use crate::types::limits;
use crate::types::procedure::{Invoke, Matching, Procedure, Register};
use crate::types::rule::{Action, ChangeRoles, Role, RoleChange, Rule, DEFAULT};
use vulpes_raft::mutant::plant;

fn role(rules: &[&str]) -> Role {
    Role { rules: rules.iter().map(|rule| rule.parse().unwrap()).collect() }
}

fn set(name: &str, rules: &[&str]) -> RoleChange {
    RoleChange::Set { name: name.into(), role: role(rules) }
}

fn remove(name: &str) -> RoleChange {
    RoleChange::Remove { name: name.into() }
}

impl Story {
    fn roles(&mut self, changes: &[RoleChange]) -> Position {
        self.roles_by("admin", changes)
    }

    fn roles_by(&mut self, author: &str, changes: &[RoleChange]) -> Position {
        let change = ChangeRoles { author: author.into(), changes: changes.to_vec() };
        let (position, shown) = self.event(1, act(0, "vulpes/roles", &Act::ChangeRoles(change)));
        assert!(!shown);
        Position(position)
    }

    fn role_names(&self) -> Vec<&str> {
        self.realms.roles().map(|(name, _)| name).collect()
    }

    /// Whether a user may publish to a topic.
    fn may(&self, user: Option<&str>, topic: &str) -> bool {
        let realm = Realm::new(REALM).unwrap();
        let mut may = self.realms.permissions(user, Some("c"), &realm);
        may.allow(Action::Publish, &Topic::from_mqtt(topic).unwrap())
    }

    fn joins(&mut self, session: u64, user: &str, join: Join) {
        let extensions = Extensions::of_user(user).unwrap();
        let event = act(session, "wamp/session/on_join", &Act::Join(join));
        self.event(1, Event { extensions, ..event });
    }
}

/// `admin` administers, `joe` has the role `app`, `ann` none, and clients may be anonymous.
fn story() -> Story {
    let mut story = Story::at_entries();
    let changes = vec![
        add("admin", user(&[ADMIN])),
        add("ann", user(&[])),
        add("joe", user(&["app"])),
        add(ANONYMOUS, user(&["guest"])),
    ];
    let change = ChangeUsers { author: String::new(), changes };
    story.event(1, act(0, "vulpes/users", &Act::ChangeUsers(change)));
    story
}

/// A change of users or roles, of which some come too early.
pub(super) fn play(story: &mut Story, what: usize) {
    let users =
        |author: &str, changes| Act::ChangeUsers(ChangeUsers { author: author.into(), changes });
    let roles =
        |change| Act::ChangeRoles(ChangeRoles { author: "admin".into(), changes: vec![change] });
    let bans = |change| {
        let author = if story.realms.has_users() { "admin" } else { "" };
        let (author, changes) = (author.to_owned(), vec![change]);
        Act::Administer(Administer::Bans(ChangeBans { author, changes }))
    };
    let change = match what {
        0 => users("", vec![add("admin", user(&[ADMIN])), add(ANONYMOUS, user(&[]))]),
        1 => users("admin", vec![UserChange::Remove { name: ANONYMOUS.into() }]),
        2 => roles(set(DEFAULT, &["allow all lock", "allow register a.#"])),
        3 => roles(set(DEFAULT, &["allow publish gone"])),
        5 => bans(ban(BanTarget::User(ANONYMOUS.into()), None)),
        6 => bans(ban(BanTarget::Client { name: ANONYMOUS.into(), realm: None }, Some(5_000))),
        7 => bans(ban(BanTarget::Address("10.0.0.0/8".parse().unwrap()), Some(3_000))),
        8 => bans(BanChange::Remove(BanTarget::User(ANONYMOUS.into()))),
        9 => Act::Administer(audit::users("admin", &[add("joe", user(&[]))])),
        _ => roles(remove(DEFAULT)),
    };
    story.event(1, act(0, "vulpes/access", &change));
}

#[test]
fn users_may_do_what_their_roles_say() {
    let mut story = story();
    let everybody = [Some("admin"), Some("ann"), Some("joe"), None, Some("nobody")];
    let ask = |story: &Story, topic| everybody.map(|user| story.may(user, topic));
    // A role that is not set allows nothing, except for `default`.
    assert_eq!(ask(&story, "a"), [true, true, false, false, false]);
    story.roles(&[set("app", &["allow all a/{client}"]), set("guest", &["allow publish b"])]);
    assert_eq!(ask(&story, "a/c"), [true, true, true, false, false]);
    assert_eq!(ask(&story, "b"), [true, true, false, true, false]);
    story.roles(&[set(DEFAULT, &["allow publish {user}"])]);
    assert_eq!(ask(&story, "ann"), [true, true, false, false, false]);
    assert_eq!(ask(&story, "b"), [true, false, false, true, false]);
    story.roles(&[remove("app"), remove(DEFAULT)]);
    assert_eq!(ask(&story, "a/c"), [true, true, false, false, false]);
    assert!(Story::at_entries().may(Some("nobody"), "a"), "there are no users");
}

#[test]
fn roles_change_all_at_once_and_only_by_administrators() {
    let mut story = story();
    let mut before = Story::at_entries();
    before.roles_by("", &[set("x", &["allow all #"])]);
    assert_eq!(before.role_names(), [""; 0], "there is nobody to have it");
    let revision = story.realms.access_changed();
    for author in ["", "joe", "ann", "nobody", ANONYMOUS] {
        story.roles_by(author, &[set("x", &["allow all #"])]);
    }
    story.roles(&[set("x", &[]), remove("y")]);
    story.roles(&[set("x", &[]), set(ADMIN, &[])]);
    story.roles(&[set("x", &[]), set("a b", &[])]);
    assert_eq!(story.role_names(), [""; 0]);
    assert_eq!(story.realms.access_changed(), revision);
    let position = story.roles(&[set("x", &[]), set("y", &["allow all #"])]);
    assert_eq!(story.role_names(), ["x", "y"]);
    assert_ne!(story.realms.access_changed(), revision);
    let changed = story.roles(&[set("y", &[])]);
    let positions = |name: &str| story.realms.role(name).unwrap().changed;
    assert_eq!((positions("x"), positions("y")), (position, changed));
}

#[test]
fn roles_have_their_limits() {
    let mut story = story();
    let rule: Rule = "allow publish a".parse().unwrap();
    let of = |count: usize| Role { rules: vec![rule.clone(); count] };
    let set = |name: &str, role: Role| RoleChange::Set { name: name.into(), role };
    story.roles(&[set("most", of(limits::ROLE_RULES))]);
    story.roles(&[set("more", of(limits::ROLE_RULES + 1))]);
    let unfit = Rule { actions: Vec::new(), ..rule.clone() };
    story.roles(&[set("unfit", Role { rules: vec![unfit] })]);
    assert_eq!(story.role_names(), ["most"]);
    story.roles(&[remove("most")]);
    let many: Vec<_> = (0..limits::ROLES).map(|number| set(&format!("r{number}"), of(0))).collect();
    story.roles(&many);
    story.roles(&[set("x", of(0))]);
    assert_eq!(story.role_names().len(), limits::ROLES);
    story.roles(
        &many
            .iter()
            .map(|set| {
                remove(match set {
                    RoleChange::Set { name, .. } | RoleChange::Remove { name } => name,
                })
            })
            .collect::<Vec<_>>(),
    );
    // As many as fit, and one more.
    let long = Rule { pattern: "x".repeat(limits::RULE_PATTERN), ..rule };
    let size = limits::RULE_OVERHEAD + limits::RULE_PATTERN + limits::RULE_PART;
    let each = 1_500;
    let fitting = limits::RULES_BYTES / (each * size);
    for number in 0..=fitting {
        story.roles(&[set(&format!("r{number}"), Role { rules: vec![long.clone(); each] })]);
    }
    assert_eq!(story.role_names().len(), fitting);
}

fn with_will(client: &str, topic: &str, delay: u32) -> Join {
    let will = Will {
        topic: Topic::from_canonical(topic),
        payload: payload("1"),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: true,
        delay,
    };
    Join { client: Some(client.into()), will: Some(will), details: String::new() }
}

/// Whether the will of a session is seen that ends at once, after what happens in between.
fn will_is_seen(between: impl FnOnce(&mut Story)) -> bool {
    let mut story = story();
    story.roles(&[set("app", &["allow publish,retain w"])]);
    story.joins(5, "joe", with_will("c", "w", 0));
    between(&mut story);
    story.leave(5, 1);
    story.restart();
    let due = DueId { session: SessionId(5), number: 0 };
    let publish = Event { retain: true, payload: payload("1"), ..act(5, "w", &Act::Due(due)) };
    let (_, shown) = story.event(1, publish);
    assert!(story.realms.due_of(due).is_none());
    assert!(story.realms.access.due_users.is_empty());
    shown
}

#[test]
fn a_will_is_published_if_its_author_may_publish_it_then() {
    assert!(will_is_seen(|_| {}));
    assert!(!will_is_seen(|story| {
        story.roles(&[set("app", &["allow publish w"])]);
    }));
    assert!(!will_is_seen(|story| {
        story.roles(&[remove("app")]);
    }));
    assert!(will_is_seen(|story| {
        story.roles(&[remove("app")]);
        story.roles(&[set("app", &["allow all #"])]);
    }));
    plant(Some(Mutant::UncheckedWill));
    let seen = will_is_seen(|story| {
        story.roles(&[remove("app")]);
    });
    plant(None);
    assert!(seen, "the planted bug is not seen");
}

/// The client comes back with a clean start, so its delayed will is due at once.
#[test]
fn a_will_that_is_hurried_is_still_its_authors() {
    let mut story = story();
    story.roles(&[set("app", &["allow publish,retain w"])]);
    let join = with_will("c", "w", 60);
    let attach = Attach { join, clean: false, expiry: 60 };
    let event = act(5, "wamp/session/on_join", &Act::Attach(attach));
    story.event(1, Event { extensions: Extensions::of_user("joe").unwrap(), ..event });
    story.leave(5, 1);
    story.joins(6, "joe", Join { client: Some("c".into()), ..Join::default() });
    let due = DueId { session: SessionId(5), number: 0 };
    assert_eq!(story.realms.due_of(due).map(|due| due.not_before), Some(OrderTime(0)));
    assert_eq!(story.realms.access.due_users.get(&due).map(String::as_str), Some("joe"));
    // A user that is disabled has no wills, like one that is removed.
    let since = story.realms.user("joe").unwrap().changed;
    let disabled = User { disabled: true, ..user(&["app"]) };
    let set = UserChange::Set { name: "joe".into(), user: disabled, unchanged_since: since };
    let change = ChangeUsers { author: "admin".into(), changes: vec![set] };
    story.event(1, act(0, "vulpes/users", &Act::ChangeUsers(change)));
    let publish = Event { retain: true, payload: payload("1"), ..act(5, "w", &Act::Due(due)) };
    assert!(!story.event(1, publish).1);
}

#[test]
fn conditional_publishes_are_decided_by_the_rules_at_their_position() {
    let mut story = story();
    story.roles(&[set("app", &["allow publish,retain lock"])]);
    story.joins(5, "joe", Join::default());
    let lock = |value: &str| Terms { when: Some(json(value)), watch: true, ..Terms::default() };
    let ask = |terms: Terms| Event {
        retain: true,
        act: Act::Publish(terms).encode(),
        ..event(5, "lock", "1")
    };
    assert!(story.event(1, ask(lock("null"))).1);
    let waiting = story.event(1, ask(lock("2"))).0;
    story.roles(&[set("app", &["allow publish lock"])]);
    story.notices.clear();
    let (asked, shown) = story.event(1, ask(lock("1")));
    let refused = |asked| Notice::Decided {
        session: SessionId(5),
        asked: Position(asked),
        decision: Decision::Refused(Refusal::NotAllowed),
    };
    assert!(!shown);
    assert_eq!(std::mem::take(&mut story.notices), [refused(asked)]);
    // One that waited since before is refused when its turn comes.
    story.event(1, event(1, "lock", "2"));
    let granted = Act::Granted { waiting: Position(waiting), terms: lock("2") };
    let again = Event { retain: true, act: granted.encode(), ..event(5, "lock", "3") };
    assert!(!story.event(1, again).1);
    assert_eq!(story.notices.last(), Some(&refused(waiting)));
    assert_eq!(story.realms.waiting_count(), 0);
}

#[test]
fn callees_lose_what_they_may_not_register_any_more() {
    let mut story = story();
    story.roles(&[set("app", &["allow register a.#"]), set("guest", &["allow all #"])]);
    story.joins(5, "joe", Join::default());
    story.event(1, act(6, "wamp/session/on_join", &Act::Join(Join::default())));
    let register = |procedure: &str| {
        Act::Register(Register {
            procedure: Procedure::new(procedure, Matching::Exact).unwrap(),
            matching: Matching::Exact,
            invoke: Invoke::RoundRobin,
            concurrency: 0,
            disclose_caller: false,
        })
    };
    for (session, procedure) in [(5, "a.x"), (5, "b"), (5, "a.y"), (6, "a.x")] {
        story.event(1, act(session, "r", &register(procedure)));
    }
    let callees = |story: &Story, procedure: &str| {
        let realm = Realm::new(REALM).unwrap();
        let found = story.realms.registered_for(&realm, procedure);
        let callees = found.map(|(_, registration)| registration.callees.clone());
        callees.unwrap_or_default().iter().map(|callee| callee.session.0).collect::<Vec<_>>()
    };
    let all = |story: &Story| ["a.x", "a.y", "b"].map(|procedure| callees(story, procedure));
    assert_eq!(all(&story), [vec![5, 6], vec![5], vec![]]);
    story.roles(&[set("app", &["allow register a.#", "deny register a.x"])]);
    assert_eq!(all(&story), [vec![6], vec![5], vec![]]);
    let withdrawn =
        |notice: &Notice| matches!(notice, Notice::Withdrawn { session: SessionId(5), .. });
    assert_eq!(story.notices.iter().filter(|notice| withdrawn(notice)).count(), 1);
    let since = story.realms.user("joe").unwrap().changed;
    let other = UserChange::Set { name: "joe".into(), user: user(&[]), unchanged_since: since };
    story.roles(&[set(DEFAULT, &[])]);
    let change = ChangeUsers { author: "admin".into(), changes: vec![other] };
    story.event(1, act(0, "vulpes/users", &Act::ChangeUsers(change)));
    assert_eq!(all(&story), [vec![6], vec![], vec![]]);
}

//! Users, and the sessions that end with them.

use super::*;
use crate::types::access::{ChangeUsers, User, UserChange, ADMIN, ANONYMOUS};
use crate::types::limits;
use vulpes_raft::mutant::plant;

pub(super) fn user(roles: &[&str]) -> User {
    let roles = roles.iter().map(|role| role.to_string()).collect();
    User { verifier: "v".into(), roles, disabled: false }
}

pub(super) fn add(name: &str, user: User) -> UserChange {
    UserChange::Add { name: name.into(), user }
}

fn remove(name: &str) -> UserChange {
    UserChange::Remove { name: name.into() }
}

impl Story {
    /// Changes users; gives the position.
    fn change(&mut self, changes: &[UserChange]) -> Position {
        let author = if self.realms.has_users() { "admin" } else { "" };
        self.change_as(author, changes)
    }

    fn change_as(&mut self, author: &str, changes: &[UserChange]) -> Position {
        let change = ChangeUsers { author: author.into(), changes: changes.to_vec() };
        let (position, shown) = self.event(1, act(0, "vulpes/users", &Act::ChangeUsers(change)));
        assert!(!shown);
        Position(position)
    }

    /// A session begins, of a client that logged in as this user.
    fn comes(&mut self, session: u64, user: Option<&str>) {
        let event = act(session, "wamp/session/on_join", &Act::Join(Join::default()));
        let extensions = user.map(|user| Extensions::of_user(user).unwrap()).unwrap_or_default();
        self.event(1, Event { extensions, ..event });
    }

    /// The position of a user's last change.
    fn changed(&self, name: &str) -> Option<Position> {
        self.realms.user(name).map(|known| known.changed)
    }

    fn users(&self) -> Vec<&str> {
        self.realms.users().map(|(name, _)| name).collect()
    }

    /// What sessions were told.
    fn heard(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }
}

fn joined(session: u64) -> Notice {
    Notice::Joined { session: SessionId(session) }
}

fn revoked(session: u64) -> Notice {
    Notice::Ended { session: SessionId(session), cause: EndCause::Revoked }
}

#[test]
fn everybody_comes_in_until_there_are_users() {
    let mut story = Story::at_entries();
    story.comes(1, None);
    story.comes(2, Some("joe"));
    // Nobody could ever change users: nothing happens.
    story.change(&[add("joe", user(&[]))]);
    story.change(&[add("joe", User { verifier: Bytes::new(), ..user(&[ADMIN]) })]);
    story.change(&[add("joe", User { disabled: true, ..user(&[ADMIN]) })]);
    assert!(!story.realms.has_users());
    assert_eq!(story.heard(), [joined(1), revoked(2)]);
    story.change(&[add("admin", user(&[ADMIN])), add("joe", user(&[]))]);
    assert_eq!(story.users(), ["admin", "joe"]);
    assert_eq!(story.heard(), [revoked(1)]);
    for (session, name) in [(3, None), (4, Some("joe")), (5, Some("ann")), (6, Some("anonymous"))] {
        story.comes(session, name);
    }
    assert_eq!(story.heard(), [revoked(3), joined(4), revoked(5), revoked(6)]);
    assert_eq!(story.realms.user_of(SessionId(4)), Some("joe"));
}

#[test]
fn a_user_of_that_name_admits_clients_that_do_not_log_in() {
    let mut story = Story::at_entries();
    story.comes(1, None);
    story.change(&[add("admin", user(&[ADMIN])), add(ANONYMOUS, User::default())]);
    story.comes(2, None);
    assert_eq!(story.heard(), [joined(1), joined(2)]);
    story.change(&[remove(ANONYMOUS)]);
    assert_eq!(story.heard(), [revoked(1), revoked(2)]);
}

#[test]
fn sessions_end_with_their_user() {
    let mut story = Story::at_entries();
    story.change(&[add("admin", user(&[ADMIN])), add("joe", user(&[])), add("ann", user(&[]))]);
    for (session, name) in [(1, "joe"), (2, "ann"), (3, "joe"), (4, "joe")] {
        story.comes(session, Some(name));
    }
    story.leave(4, 1);
    story.heard();
    let since = story.changed("joe").unwrap();
    let disabled = User { disabled: true, ..user(&[]) };
    let set = |user: &User, unchanged_since| UserChange::Set {
        name: "joe".into(),
        user: user.clone(),
        unchanged_since,
    };
    // Somebody else has changed it since then.
    story.change(&[set(&disabled, Position(since.0 - 1))]);
    assert_eq!(story.heard(), []);
    let position = story.change(&[set(&disabled, since)]);
    assert_eq!(story.changed("joe"), Some(position));
    assert_eq!(story.heard(), [revoked(1), revoked(3)]);
    assert_eq!(story.realms.user_of(SessionId(1)), None);
    story.comes(5, Some("joe"));
    story.change(&[set(&user(&["a"]), position)]);
    story.comes(6, Some("joe"));
    assert_eq!(story.heard(), [revoked(5), joined(6)]);
    story.change(&[remove("joe"), remove("nobody")]);
    assert_eq!(story.heard(), [], "both or none");
    story.change(&[remove("joe")]);
    assert_eq!(story.heard(), [revoked(6)]);
}

#[test]
fn there_is_always_somebody_who_can_change_users() {
    let mut story = Story::at_entries();
    story.change(&[add("admin", user(&[ADMIN]))]);
    let since = story.changed("admin").unwrap();
    let set = |user| UserChange::Set { name: "admin".into(), user, unchanged_since: since };
    for change in [
        remove("admin"),
        set(user(&["other"])),
        set(User { disabled: true, ..user(&[ADMIN]) }),
        set(User { verifier: Bytes::new(), ..user(&[ADMIN]) }),
    ] {
        story.change(&[change]);
        assert_eq!(story.changed("admin"), Some(since));
    }
    // One name, added twice at once: the second changes nothing.
    let first = story.change(&[add("joe", user(&["a"]))]);
    story.change(&[add("joe", user(&["b"]))]);
    assert_eq!(story.changed("joe"), Some(first));
    story.change(&[add("ann", user(&[ADMIN])), remove("admin")]);
    assert_eq!(story.users(), ["ann", "joe"]);
    // Who can't administer, or not any more, changes nothing.
    for author in ["admin", "joe", "", "nobody"] {
        story.change_as(author, &[remove("joe")]);
        assert_eq!(story.users(), ["ann", "joe"], "{author}");
    }
    story.change_as("ann", &[remove("joe")]);
    assert_eq!(story.users(), ["ann"]);
}

#[test]
fn users_have_their_limits() {
    let mut story = Story::at_entries();
    story.change(&[add("admin", user(&[ADMIN]))]);
    let longest = "x".repeat(limits::USER_NAME);
    let roles: Vec<String> = (0..limits::USER_ROLES).map(|number| format!("r{number}")).collect();
    let verifier = Bytes::from(vec![1; limits::USER_VERIFIER]);
    let largest = User { verifier, roles, disabled: false };
    story.change(&[add(&longest, largest.clone())]);
    assert_eq!(story.users().len(), 2);
    let mut many_roles = largest.clone();
    many_roles.roles.push("one more".into());
    let long = Bytes::from(vec![1; limits::USER_VERIFIER + 1]);
    for (name, user) in [
        ("x".repeat(limits::USER_NAME + 1), user(&[])),
        ("a b".into(), user(&[])),
        ("a".into(), many_roles),
        ("a".into(), User { verifier: long, ..largest }),
        ("a".into(), user(&["#"])),
    ] {
        story.change(&[add(&name, user)]);
        assert_eq!(story.users().len(), 2, "{name}");
    }
}

/// What sessions of a user are told that is removed, also one that begins later.
fn told_of_a_removal() -> Vec<Notice> {
    let mut story = Story::at_entries();
    story.change(&[add("admin", user(&[ADMIN])), add("joe", user(&[]))]);
    story.comes(1, Some("joe"));
    story.change(&[remove("joe")]);
    story.comes(2, Some("joe"));
    story.heard()
}

#[test]
fn planted_bugs_are_seen() {
    let expected = [joined(1), revoked(1), revoked(2)];
    assert_eq!(told_of_a_removal(), expected);
    for bug in [Mutant::AdmitRemovedUsers, Mutant::SpareRemovedUsers] {
        plant(Some(bug));
        let told = told_of_a_removal();
        plant(None);
        assert_ne!(told, expected, "{bug:?}");
    }
}

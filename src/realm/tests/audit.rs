//! What is remembered of changes.

use super::access::{add, user};
use super::bans::{ban, of_user};
use super::*;
use crate::types::access::{ChangeUsers, User, UserChange, ADMIN};
use crate::types::act::Administer;
use crate::types::audit::Did;
use crate::types::ban::{BanChange, ChangeBans};
use crate::types::limits;
use crate::types::rule::{ChangeRoles, Role, RoleChange};

pub(super) fn users(author: &str, changes: &[UserChange]) -> Administer {
    Administer::Users(ChangeUsers { author: author.into(), changes: changes.to_vec() })
}

fn remembered(story: &Story) -> Vec<(Position, String, bool, Vec<Did>)> {
    let entries = story.realms.audit(Position(0));
    let shown =
        entries.map(|(at, entry, _)| (at, entry.author.clone(), entry.accepted, entry.did.clone()));
    shown.collect()
}

#[test]
fn each_change_is_remembered_with_its_author_and_outcome() {
    let mut story = Story::at_entries();
    assert!(story.administer(users("", &[add("ann", user(&[ADMIN])), add("joe", user(&["x"]))])));
    assert!(!story.administer(users("joe", &[UserChange::Remove { name: "ann".into() }])));
    let since = story.realms.user("joe").unwrap().changed;
    let set = |user: User| UserChange::Set { name: "joe".into(), user, unchanged_since: since };
    let secret = User { verifier: "secret".into(), ..user(&["x"]) };
    assert!(story.administer(users("ann", &[set(secret)])));
    assert!(!story.administer(users("ann", &[set(User { disabled: true, ..user(&["y"]) })])));
    let changes = vec![
        RoleChange::Set {
            name: "x".into(),
            role: Role { rules: vec!["allow all #".parse().unwrap()] },
        },
        RoleChange::Remove { name: "y".into() },
    ];
    let roles = |changes| Administer::Roles(ChangeRoles { author: "ann".into(), changes });
    assert!(!story.administer(roles(changes.clone())));
    assert!(story.administer(roles(changes[..1].to_vec())));
    let changes = vec![ban(of_user("joe"), Some(9))];
    assert!(story.administer(Administer::Bans(ChangeBans { author: "ann".into(), changes })));
    let changes = vec![BanChange::Remove(of_user("eve"))];
    assert!(!story.administer(Administer::Bans(ChangeBans { author: "ann".into(), changes })));
    story.restart();

    let name = || "joe".to_owned();
    let set_role = Did::SetRole { name: "x".into(), rules: 1 };
    let added = |name: &str, role: &str| Did::AddUser {
        name: name.into(),
        roles: vec![role.into()],
        disabled: false,
    };
    let expected = [
        ("", true, vec![added("ann", ADMIN), added("joe", "x")]),
        ("joe", false, vec![Did::RemoveUser { name: "ann".into() }]),
        (
            "ann",
            true,
            vec![Did::SetUser { name: name(), login: true, roles: None, disabled: None }],
        ),
        (
            "ann",
            false,
            vec![Did::SetUser {
                name: name(),
                login: true,
                roles: Some(vec!["y".into()]),
                disabled: Some(true),
            }],
        ),
        ("ann", false, vec![set_role.clone(), Did::RemoveRole { name: "y".into() }]),
        ("ann", true, vec![set_role]),
        (
            "ann",
            true,
            vec![Did::AddBan { target: of_user("joe"), reason: "r".into(), lasts: Some(9) }],
        ),
        ("ann", false, vec![Did::RemoveBan { target: of_user("eve") }]),
    ];
    let found = remembered(&story);
    assert_eq!(found.len(), expected.len());
    for ((at, (_, author, accepted, did)), expected) in (1..).zip(found).zip(expected) {
        assert_eq!((&*author, accepted, did), expected, "{at}");
    }
    let (at, entry, _) = story.realms.audit(Position(0)).next().unwrap();
    assert_eq!((at, entry.stamp), (Position(1), Stamp(HOUR + 2000)));
    assert_eq!(story.realms.audit(Position(7)).count(), 1);
    assert_eq!(story.realms.audit(Position(u64::MAX)).count(), 0);
    assert_eq!(story.realms.audit_from(), Position(1));
    assert!(!format!("{:?}", remembered(&story)).contains("secret"));
}

/// The users of older formats came without being remembered.
#[test]
fn it_is_known_from_where_on_changes_are() {
    let mut story = Story::at_entries();
    assert_eq!(story.realms.audit_from(), Position(1));
    let older = ChangeUsers { author: String::new(), changes: vec![add("ann", user(&[ADMIN]))] };
    story.event(1, act(0, "users", &Act::ChangeUsers(older)));
    story.restart();
    assert_eq!(story.realms.audit_from(), Position(2));
    story.event(1, event(1, "a", "1"));
    assert!(story.administer(users("ann", &[add("joe", user(&[]))])));
    story.restart();
    assert_eq!((remembered(&story).len(), story.realms.audit_from()), (1, Position(3)));
}

#[test]
fn the_oldest_changes_are_forgotten() {
    let mut story = Story::at_entries();
    assert!(story.administer(users("", &[add("ann", user(&[ADMIN]))])));
    let ineffective = act(0, "users", &Act::Administer(users("eve", &[])));
    let many = vec![ineffective; limits::AUDIT_ENTRIES / 2];
    story.events(1, &many);
    story.events(1, &many[1..]);
    assert_eq!(
        (remembered(&story).len(), story.realms.audit_from()),
        (limits::AUDIT_ENTRIES, Position(1))
    );
    assert!(story.administer(users("ann", &[add("joe", user(&[]))])));
    story.restart();
    assert_eq!(
        (remembered(&story).len(), story.realms.audit_from()),
        (limits::AUDIT_ENTRIES, Position(2))
    );
    // Large ones are forgotten by their size.
    let large = "x".repeat(limits::EVENT / 2);
    let fit = limits::AUDIT_BYTES / large.len();
    for number in 0..2 * fit {
        assert!(!story.administer(users(&format!("{large}{number}"), &[])));
    }
    story.restart();
    let sizes: usize = story.realms.audit(Position(0)).map(|(_, _, size)| size).sum();
    assert!(sizes <= limits::AUDIT_BYTES && sizes > limits::AUDIT_BYTES - limits::EVENT, "{sizes}");
    let oldest = story.realms.audit(Position(0)).next().unwrap().0;
    assert_eq!(story.realms.audit_from(), oldest);
}

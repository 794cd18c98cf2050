//! Bans: sessions end and do not begin, as long as a ban holds.

use super::access::{add, user};
use super::*;
use crate::types::access::{ChangeUsers, UserChange, ADMIN, ANONYMOUS};
use crate::types::act::Administer;
use crate::types::ban::{AddBan, BanChange, BanTarget, ChangeBans};
use crate::types::limits;
use vulpes_raft::mutant::plant;

pub(super) fn of_user(name: &str) -> BanTarget {
    BanTarget::User(name.into())
}

fn of_client(name: &str, realm: Option<&str>) -> BanTarget {
    BanTarget::Client { name: name.into(), realm: realm.map(|realm| Realm::new(realm).unwrap()) }
}

fn of_address(text: &str) -> BanTarget {
    BanTarget::Address(text.parse().unwrap())
}

pub(super) fn ban(target: BanTarget, lasts: Option<u64>) -> BanChange {
    BanChange::Add(AddBan { target, reason: "r".into(), lasts })
}

impl Story {
    /// Changes bans; returns whether that was done.
    fn bans_by(&mut self, author: &str, changes: &[BanChange]) -> bool {
        let change = ChangeBans { author: author.into(), changes: changes.to_vec() };
        self.administer(Administer::Bans(change))
    }

    fn bans(&mut self, changes: &[BanChange]) -> bool {
        let author = if self.realms.has_users() { "admin" } else { "" };
        self.bans_by(author, changes)
    }

    /// Makes a change; returns whether it was done, by what is remembered of it.
    pub(super) fn administer(&mut self, change: Administer) -> bool {
        let (position, shown) = self.event(1, act(0, "vulpes/bans", &Act::Administer(change)));
        assert!(!shown);
        let last = self.realms.audit(Position(position - 1)).next();
        let (at, entry, _) = last.expect("each change is remembered");
        assert_eq!(at, Position(position));
        entry.accepted
    }

    /// A session begins, of a client with this user and name, if any; returns whether it has.
    fn begins(&mut self, session: u64, user: Option<&str>, client: Option<&str>) -> bool {
        let client = client.map(str::to_owned);
        let persistent = client.is_some() && session.is_multiple_of(2);
        let join = Join { client, ..Join::default() };
        let join = match persistent {
            true => Act::Attach(Attach { join, clean: false, expiry: 1000 }),
            false => Act::Join(join),
        };
        let extensions = user.map(|user| Extensions::of_user(user).unwrap()).unwrap_or_default();
        let event = act(session, "wamp/session/on_join", &join);
        let (_, shown) = self.event(1, Event { extensions, ..event });
        let told = self.told();
        let begun = told.contains(&Notice::Joined { session: SessionId(session) });
        assert_eq!(told.contains(&banned(session)), !begun, "{told:?}");
        assert_eq!((shown, self.is_there(session)), (begun, begun));
        begun
    }

    fn is_there(&self, session: u64) -> bool {
        self.realms.session(SessionId(session)).is_some()
    }

    /// Which sessions have ended because of a ban.
    fn ended(&mut self) -> Vec<Notice> {
        let mut told = self.told();
        told.retain(|notice| matches!(notice, Notice::Ended { .. }));
        told
    }

    fn bars(&self, address: &str) -> bool {
        self.realms.bars_address(address.parse().unwrap(), self.realms.time())
    }
}

fn banned(session: u64) -> Notice {
    Notice::Ended { session: SessionId(session), cause: EndCause::Banned }
}

/// `admin` administers, `joe` and `ann` do not, and clients may be anonymous.
fn story() -> Story {
    let mut story = Story::at_entries();
    let changes = vec![
        add("admin", user(&[ADMIN])),
        add("ann", user(&[])),
        add("joe", user(&[])),
        add(ANONYMOUS, user(&[])),
    ];
    let first = ChangeUsers { author: String::new(), changes };
    assert!(story.administer(Administer::Users(first)));
    story
}

#[test]
fn sessions_of_a_banned_user_end_and_others_go_on() {
    let mut story = story();
    for (session, user, client) in [
        (1, Some("joe"), None),
        (2, Some("joe"), Some("j")),
        (3, Some("ann"), None),
        (4, None, Some("x")),
        (5, None, None),
    ] {
        assert!(story.begins(session, user, client));
    }
    assert!(story.bans(&[ban(of_user("joe"), None)]));
    assert_eq!(story.ended(), [banned(1), banned(2)]);
    for restarts in [false, true] {
        assert!(!story.begins(6, Some("joe"), None) && !story.begins(8, Some("joe"), Some("y")));
        if !restarts {
            story.restart();
        }
    }
    assert!(story.bans(&[ban(of_user(ANONYMOUS), None), BanChange::Remove(of_user("joe"))]));
    assert_eq!(story.ended(), [banned(4), banned(5)]);
    assert!(!story.begins(9, None, None) && story.begins(6, Some("joe"), None));
    assert!(story.is_there(3));
}

#[test]
fn clients_are_banned_by_their_names_in_a_realm_or_in_all() {
    let mut story = story();
    assert!(story.begins(1, Some("joe"), Some("c")) && story.begins(2, None, Some("d")));
    // A client of WAMP has no other name than its user's.
    assert!(story.begins(3, Some("joe"), None) && story.begins(5, None, None));
    assert!(story.bans(&[ban(of_client("c", Some("other")), None)]));
    assert_eq!(story.ended(), []);
    assert!(story.bans(&[ban(of_client("c", Some(REALM)), None)]));
    assert_eq!(story.ended(), [banned(1)]);
    assert!(story.bans(&[ban(of_client("d", None), None), ban(of_client("joe", None), None)]));
    assert_eq!(story.ended(), [banned(2), banned(3)]);
    for (session, user, client, begins) in [
        (6, Some("ann"), Some("c"), false),
        (8, Some("ann"), Some("d"), false),
        (9, Some("joe"), None, false),
        (10, Some("joe"), Some("other"), true),
        (11, Some("ann"), None, true),
    ] {
        assert_eq!(story.begins(session, user, client), begins, "{user:?} {client:?}");
    }
    assert!(story.is_there(5));
    assert!(!story.bans(&[BanChange::Remove(of_client("c", None))]), "that is another one");
}

/// Nobody writes anything when it does.
#[test]
fn a_ban_ends_by_the_orders_time() {
    let mut story = story();
    assert!(story.bans(&[ban(of_user("joe"), Some(10_000)), ban(of_address("192.0.2.7"), Some(1))]));
    let until = story.realms.ban(&of_user("joe")).unwrap().until.unwrap();
    assert_eq!(until, OrderTime(story.realms.time().0 + 10_000));
    assert!(story.bars("192.0.2.7"));
    assert!(!story.begins(1, Some("joe"), None));
    assert!(!story.bars("192.0.2.7"));
    // One millisecond before its end, and at its end.
    story.ahead = (until.0 - 1 - story.realms.time().0 - 1000) as i64;
    assert!(!story.begins(1, Some("joe"), None));
    story.ahead += 1 - 1000;
    assert!(story.begins(1, Some("joe"), None));
    assert_eq!(story.realms.time(), until);
    assert!(story.realms.ban(&of_user("joe")).is_some(), "its row is still there");
    // The next change takes the row away, and one that is over is none to be removed.
    assert!(!story.bans(&[BanChange::Remove(of_user("joe"))]));
    assert!(story.bans(&[ban(of_user("ann"), None)]));
    assert_eq!(story.realms.bans().count(), 1);
    story.restart();
    assert_eq!(story.realms.bans().count(), 1);
}

#[test]
fn addresses_are_known_to_all_nodes_and_looked_at_by_them() {
    let mut story = story();
    assert!(story.begins(1, Some("joe"), None));
    assert!(!story.bars("192.0.2.7"));
    let networks = ["192.0.2.7", "10.1.0.0/16", "2001:db8::/32"].map(of_address);
    let changes: Vec<BanChange> = networks.iter().map(|to| ban(to.clone(), None)).collect();
    assert!(story.bans(&changes));
    assert_eq!(story.told(), [Notice::AddressesBanned]);
    for restarted in [false, true] {
        for (address, bars) in [
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("192.0.2.8", false),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(story.bars(address), bars, "{address} {restarted}");
        }
        story.restart();
    }
    assert!(story.is_there(1), "where it comes from only its node knows");
    assert!(story.bans(&[BanChange::Remove(of_address("10.1.0.0/16"))]));
    assert_eq!(story.told(), []);
    assert!(!story.bars("10.1.0.0") && story.bars("192.0.2.7"));
}

#[test]
fn there_is_always_somebody_who_can_administer() {
    let mut story = story();
    let add_eve = |story: &mut Story, author: &str| {
        let changes = vec![add("eve", user(&[ADMIN]))];
        story.administer(Administer::Users(ChangeUsers { author: author.into(), changes }))
    };
    let remove = |name: &str| UserChange::Remove { name: name.into() };
    assert!(!story.bans(&[ban(of_user("joe"), None), ban(of_user("admin"), Some(1000))]));
    assert_eq!(story.realms.bans().count(), 0, "both or none");
    for author in ["joe", "", "nobody", ANONYMOUS] {
        assert!(!story.bans_by(author, &[ban(of_user("ann"), None)]), "{author}");
    }
    assert!(add_eve(&mut story, "admin"));
    assert!(story.bans_by("eve", &[ban(of_user("admin"), Some(60_000))]));
    // Who is banned changes nothing, and does not count as one who can.
    assert!(!story.bans_by("admin", &[BanChange::Remove(of_user("admin"))]));
    assert!(!story.bans_by("eve", &[ban(of_user("eve"), None)]));
    let changes = vec![remove("eve")];
    let asked = ChangeUsers { author: "eve".into(), changes };
    assert!(!story.administer(Administer::Users(asked.clone())));
    story.ahead = 60_000;
    assert!(story.administer(Administer::Users(asked)));
    assert!(!story.bans_by("admin", &[ban(of_user("admin"), None)]));
}

#[test]
fn without_users_everybody_may_ban() {
    let mut story = Story::at_entries();
    assert!(story.begins(1, None, Some("c")) && story.begins(2, None, Some("d")));
    assert!(!story.bans_by("ann", &[ban(of_client("c", None), None)]));
    assert!(story.bans_by("", &[ban(of_client("c", None), None), ban(of_user("ann"), None)]));
    assert_eq!(story.ended(), [banned(1)]);
    let first = |name: &str| {
        let changes = vec![add(name, user(&[ADMIN]))];
        Administer::Users(ChangeUsers { author: String::new(), changes })
    };
    assert!(!story.administer(first("ann")), "nobody could administer");
    assert!(story.administer(first("eve")));
}

#[test]
fn bans_have_their_limits() {
    let mut story = story();
    let network = |number: usize| {
        BanTarget::Address(format!("10.{}.{}.1", number / 256, number % 256).parse().unwrap())
    };
    let many: Vec<BanChange> = (0..limits::BANS).map(|n| ban(network(n), Some(9_000))).collect();
    assert!(!story.bans(&[&many[..], &[ban(of_user("joe"), None)]].concat()));
    assert_eq!(story.realms.bans().count(), 0);
    assert!(story.bans(&many));
    assert!(!story.bans(&[ban(of_user("joe"), None)]));
    assert!(story.bans(&[ban(network(7), Some(90_000))]), "it takes the place of the other");
    assert!(story.bans(&[BanChange::Remove(network(8)), ban(of_user("joe"), None)]));
    assert!(!story.bans(&[ban(of_user("ann"), None)]));
    // Those that are over make room.
    story.ahead = 9_000;
    assert!(story.bans(&[ban(of_user("ann"), None)]));
    assert_eq!(story.realms.bans().count(), 3);
    let long =
        AddBan { target: of_user("x"), reason: "x".repeat(limits::BAN_REASON + 1), lasts: None };
    assert!(!story.bans(&[BanChange::Add(long)]));
    assert!(!story.bans(&[ban(of_user("x"), Some(0))]));
    assert!(!story.bans(&[ban(of_client(&"x".repeat(limits::BAN_NAME + 1), None), None)]));
    assert!(story.bans(&[ban(of_client(&"x".repeat(limits::BAN_NAME), None), Some(u64::MAX))]));
}

/// A session with a will begins, ends so, and its client is banned so; whether its will may be published then.
fn will_is_seen(delay: u32, leaves: bool, target: BanTarget) -> bool {
    let mut story = story();
    let will = Will {
        topic: Topic::from_canonical("gone"),
        payload: payload("1"),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: true,
        delay,
    };
    let join = Join { client: Some("c".into()), will: Some(will), details: String::new() };
    let attach = Act::Attach(Attach { join, clean: false, expiry: 1000 });
    story.event(1, act(1, "wamp/session/on_join", &attach));
    if leaves {
        story.leave(1, 1);
    }
    assert!(story.bans(&[ban(target, None)]));
    story.ahead = 100_000;
    let Some((id, _)) = story.realms.due().next() else { return false };
    let due = Event { retain: true, ..act(1, "gone", &Act::Due(id)) };
    story.event(1, due).1
}

#[test]
fn nothing_more_is_heard_from_a_banned_client() {
    assert!(!will_is_seen(0, false, of_client("c", None)), "its will goes with its session");
    assert!(!will_is_seen(60, true, of_client("c", None)), "one that waits is void");
    assert!(will_is_seen(60, true, of_client("d", None)));
}

#[test]
fn a_ban_of_a_name_holds_for_a_user_that_is_added_later() {
    let mut story = story();
    assert!(story.bans(&[ban(of_user("later"), None)]));
    let changes = vec![add("later", user(&[]))];
    let added = ChangeUsers { author: "admin".into(), changes };
    assert!(story.administer(Administer::Users(added)));
    assert!(!story.begins(1, Some("later"), None));
}

/// Which of three sessions of a banned user are there: one from before the ban, one in it, one behind it.
fn sessions_around_a_ban() -> [bool; 3] {
    let mut story = story();
    let comes = |story: &mut Story, session| {
        let event = act(session, "wamp/session/on_join", &Act::Join(Join::default()));
        story.event(1, Event { extensions: Extensions::of_user("joe").unwrap(), ..event });
    };
    comes(&mut story, 1);
    assert!(story.bans(&[ban(of_user("joe"), Some(1500))]));
    comes(&mut story, 2);
    comes(&mut story, 3);
    [1, 2, 3].map(|session| story.is_there(session))
}

#[test]
fn planted_bugs_are_seen() {
    let expected = [false, false, true];
    assert_eq!(sessions_around_a_ban(), expected);
    for bug in [Mutant::AdmitBanned, Mutant::SpareBanned, Mutant::BanForever] {
        plant(Some(bug));
        let found = sessions_around_a_ban();
        plant(None);
        assert_ne!(found, expected, "{bug:?}");
    }
}

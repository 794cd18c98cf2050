//! Rules against trying them one by one, and the questions of both protocols.

use proptest::prelude::*;

use super::*;
use crate::types::rule::{Role, Rule};

fn role(rules: &[&str]) -> Role {
    Role { rules: rules.iter().map(|rule| rule.parse().unwrap()).collect() }
}

fn subject() -> Subject {
    let realm = Realm::new("r").unwrap();
    Subject { realm, user: "joe".into(), client: Some("c1".into()) }
}

/// What somebody with these roles may do.
fn permissions(roles: &[&[&str]]) -> Permissions {
    let index = |rules: &&[&str]| ("role".to_owned(), Arc::new(RoleIndex::new(&role(rules))));
    Permissions::of(subject(), roles.iter().map(index).collect())
}

fn topic(text: &str) -> Topic {
    Topic::from_mqtt(text).unwrap()
}

#[test]
fn what_is_denied_is_denied_whatever_allows_it() {
    let mut may = permissions(&[
        &["allow publish,retain a/#", "deny retain a/b", "allow publish x in other"],
        &["deny publish a/c/+", "allow subscribe {user}/{client}/+", "allow publish $x/y"],
    ]);
    for (action, text, allowed) in [
        (Action::Publish, "a", true),
        (Action::Publish, "a/b", true),
        (Action::Retain, "a/b", false),
        (Action::Retain, "a/b/c", true),
        (Action::Publish, "a/c/d", false),
        (Action::Publish, "a/c/d/e", true),
        (Action::Subscribe, "a/b", false),
        (Action::Publish, "x", false),
        (Action::Publish, "b", false),
        (Action::Subscribe, "joe/c1/x", true),
        (Action::Subscribe, "joe/c2/x", false),
        (Action::Subscribe, "ann/c1/x", false),
        (Action::Publish, "$x/y", true),
    ] {
        for _ in 0..2 {
            assert_eq!(may.allow(action, &topic(text)), allowed, "{action:?} {text}");
        }
        assert_eq!(may.explain(action, &topic(text)).0, allowed);
    }
    let (_, reason) = may.explain(Action::Retain, &topic("a/b"));
    assert_eq!(reason.to_string(), "role role: deny retain a/b");
    assert!(Permissions::everything().allow(Action::Call, &topic("a")));
    assert!(!Permissions::nothing().allow(Action::Call, &topic("a")));
    assert!(!permissions(&[]).allow(Action::Call, &topic("a")));
}

/// A name that looks like a wildcard is a name.
#[test]
fn names_are_no_wildcards() {
    let rules: &[&str] = &["allow publish dev/{client}/#", "allow publish x-{client}-{user}y"];
    let ask = |client: Option<&str>, text: &str| {
        let subject = Subject { client: client.map(Into::into), ..subject() };
        let index = Arc::new(RoleIndex::new(&role(rules)));
        Permissions::of(subject, vec![("role".into(), index)]).allow(Action::Publish, &topic(text))
    };
    assert!(ask(Some("a"), "dev/a/b"));
    for (client, text) in [
        (Some("+"), "dev/a/b"),
        (Some("#"), "dev/a/b"),
        (Some("a/b"), "dev/a/b"),
        (Some(""), "dev/a/b"),
        (Some("{user}"), "dev/joe/b"),
        (None, "dev//b"),
        (None, "dev/a/b"),
    ] {
        assert!(!ask(client, text), "{client:?} {text}");
    }
    assert!(ask(Some(""), "dev//b"));
    assert!(ask(Some("a-b"), "x-a-b-joey"));
    assert!(!ask(Some("a-b"), "x-a-b-joeyy"));
}

#[test]
fn subscriptions_to_patterns_need_some_topic() {
    let mut may =
        permissions(&[&["allow subscribe a/b/#", "allow subscribe c/+", "deny subscribe c/d/#"]]);
    for (text, allowed) in [
        ("#", true),
        ("+", false),
        ("+/+", true),
        ("a/#", true),
        ("a/b", true),
        ("a/+/c", true),
        ("a/c/#", false),
        ("c/+", true),
        ("c/d/+", false),
        ("c/d/#", false),
        ("c/#", true),
        ("d/#", false),
    ] {
        let pattern = Pattern::from_mqtt(text).unwrap();
        assert_eq!(may.allow_subscription(&pattern), allowed, "{text}");
    }
    for (text, allowed) in
        [("a", true), ("a.b", true), ("a.bb", false), ("a.b.c", true), ("b", false), ("", true)]
    {
        let Ok(pattern) = Pattern::from_wamp_prefix(text) else { continue };
        assert_eq!(may.allow_subscription(&pattern), allowed, "{text}");
    }
}

#[test]
fn registrations_need_all_their_procedures() {
    let mut may =
        permissions(&[&["allow register a.*.#", "allow register b.*", "deny register a.x.y"]]);
    for (text, matching, allowed) in [
        ("a.b", Matching::Exact, true),
        ("a", Matching::Exact, false),
        ("a.b", Matching::Prefix, true),
        ("a.x", Matching::Prefix, false),
        ("a.", Matching::Prefix, false),
        ("a.x%2", Matching::Prefix, false),
        ("a.y", Matching::Prefix, true),
        ("a", Matching::Prefix, false),
        ("b..", Matching::Wildcard, false),
        ("b.", Matching::Wildcard, true),
        ("b.c", Matching::Wildcard, true),
        (".c", Matching::Wildcard, false),
        ("a..z", Matching::Wildcard, true),
        ("a..y", Matching::Wildcard, false),
    ] {
        let procedure = Procedure::new(text, matching).unwrap();
        assert_eq!(may.allow_registration(&procedure, matching), allowed, "{text} {matching:?}");
    }
    let mut may = permissions(&[&["allow call wamp.session.*"]]);
    for (text, allowed) in
        [("wamp.session.list", true), ("wamp.session.kill.x", false), ("a", false)]
    {
        let procedure = Procedure::new(text, Matching::Exact).unwrap();
        assert_eq!(may.allow_call(&procedure), allowed, "{text}");
    }
}

#[test]
fn what_is_remembered_is_bounded_and_right() {
    let mut may = permissions(&[&["allow publish a/#"]]);
    for at in 0..4 * REMEMBERED {
        let topic = topic(&format!("{}/{at}/{}", ["a", "b"][at % 2], "x".repeat(at)));
        assert_eq!(may.allow(Action::Publish, &topic), at % 2 == 0);
        assert!(!may.allow(Action::Subscribe, &topic));
        assert_eq!(may.allow(Action::Publish, &topic), at % 2 == 0);
        let Extent::Limited(limited) = &may.0 else { panic!("it has rules") };
        assert!(limited.remembered.len() <= REMEMBERED);
        assert!(limited.remembered_bytes <= REMEMBERED_BYTES);
    }
}

/// Whether a rule is about a topic, by MQTT's matching with the names filled in.
fn is_about(rule: &Rule, text: &str) -> bool {
    let filled = rule.pattern.replace("{user}", "joe").replace("{client}", "c1");
    let mut parts = text.split('/');
    for part in filled.split('/') {
        match (part, parts.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (part, Some(own)) if part == own => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

fn any_text(rest: bool) -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("a"),
        Just("b"),
        Just("ab"),
        Just("joe"),
        Just("c1"),
        Just("+"),
        Just("{user}")
    ];
    (proptest::collection::vec(part, 1..4), any::<bool>()).prop_map(move |(mut parts, more)| {
        if more && rest {
            parts.push("#");
        }
        parts.join("/")
    })
}

proptest! {
    #[test]
    fn decisions_are_those_of_all_rules_one_by_one(
        rules in proptest::collection::vec((any::<bool>(), any_text(true)), 1..12),
        asked in proptest::collection::vec(any_text(false), 1..8),
        filter in any_text(true),
        prefix in "[ab.]{1,4}",
    ) {
        let rule = |(deny, pattern): &(bool, String)| {
            let actions = vec![Action::Subscribe, Action::Register];
            Rule { deny: *deny, actions, pattern: pattern.clone(), realm: None }
        };
        let role = Role { rules: rules.iter().map(rule).collect() };
        let index = Arc::new(RoleIndex::new(&role));
        let mut may = Permissions::of(subject(), vec![("r".into(), index)]);
        let plain = |text: &String| !text.contains(['+', '{']);
        let decide = |text: &str| {
            let about = |deny| role.rules.iter().any(|rule| rule.deny == deny && is_about(rule, text));
            about(false) && !about(true)
        };
        let filter = filter.replace("{user}", "joe");
        let mut patterns = vec![Pattern::from_mqtt(&filter).unwrap()];
        patterns.extend(Pattern::from_wamp_prefix(&prefix).ok());
        for text in asked.iter().filter(|text| plain(text)) {
            let allowed = decide(text);
            let topic = topic(text);
            prop_assert_eq!(may.allow(Action::Subscribe, &topic), allowed, "{}", text);
            for pattern in patterns.iter().filter(|pattern| pattern.matches(&topic)) {
                // Whoever may get some event of it may subscribe.
                prop_assert!(!allowed || may.allow_subscription(pattern), "{:?} {}", pattern, text);
            }
            // Whoever registers some procedures may register each.
            let wildcard = filter.replace('/', ".").replace('+', "");
            for (text, matching) in [(&prefix, Matching::Prefix), (&wildcard, Matching::Wildcard)] {
                let Ok(procedure) = Procedure::new(text, matching) else { continue };
                let pattern = match matching {
                    Matching::Prefix => Pattern::from_wamp_prefix(text),
                    _ => Pattern::from_wamp_wildcard(text),
                };
                let matches = pattern.is_ok_and(|pattern| pattern.matches(&topic));
                if matches && may.allow_registration(&procedure, matching) {
                    prop_assert!(allowed, "{} {:?} {}", text, matching, topic);
                }
            }
        }
    }
}

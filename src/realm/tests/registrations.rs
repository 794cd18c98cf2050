//! Registrations: which session offers which procedure, and where a call goes.

use proptest::prelude::*;

use super::*;
use crate::types::limits;
use crate::types::procedure::{Invoke, Matching, Procedure, Register, RegistrationId};

fn register(session: u64, procedure: &str, matching: Matching, invoke: Invoke) -> Event {
    let procedure = Procedure::new(procedure, matching).unwrap();
    let register = Register { procedure, matching, invoke, concurrency: 2, disclose_caller: false };
    act(session, "wamp/registration/register", &Act::Register(register))
}

/// One of a few registrations that conflict with each other.
pub(super) fn any_register(session: u64, what: usize) -> Event {
    let (procedure, matching, invoke) = [
        ("a.b", Matching::Exact, Invoke::RoundRobin),
        ("a.b", Matching::Exact, Invoke::Single),
        ("a", Matching::Prefix, Invoke::First),
        ("a.", Matching::Prefix, Invoke::Last),
        (".b", Matching::Wildcard, Invoke::Random),
        ("a..c", Matching::Wildcard, Invoke::Single),
    ][what];
    register(session, procedure, matching, invoke)
}

fn realm() -> Realm {
    Realm::new(REALM).unwrap()
}

fn all(story: &Story) -> Vec<RegistrationId> {
    let all = [Matching::Exact, Matching::Prefix, Matching::Wildcard];
    all.into_iter().flat_map(|how| story.realms.registrations(&realm(), how)).collect()
}

pub(super) fn any_registration(story: &Story, what: usize) -> Option<RegistrationId> {
    all(story).into_iter().cycle().nth(what)
}

/// Holds at any time.
pub(super) fn check(story: &Story) {
    for id in all(story) {
        let (place, found) = story.realms.registration(id).unwrap();
        let procedure = place.procedure.as_str();
        assert_eq!(story.realms.registered_as(&realm(), place.matching, procedure), Some(found));
        assert!(found.id == id && !found.callees.is_empty());
        let mut sessions: Vec<_> = found.callees.iter().map(|callee| callee.session).collect();
        assert!(sessions.iter().all(|session| story.realms.session(*session).is_some()));
        sessions.sort_unstable();
        sessions.dedup();
        assert_eq!(sessions.len(), found.callees.len(), "each once");
        assert!(found.invoke != Invoke::Single || found.callees.len() == 1);
        // A search finds what exists, and nothing else.
        let sample = match place.matching {
            Matching::Exact => procedure.to_owned(),
            Matching::Prefix => format!("{procedure}x"),
            Matching::Wildcard => {
                let parts =
                    procedure.split('.').map(|part| if part.is_empty() { "x" } else { part });
                parts.collect::<Vec<_>>().join(".")
            }
        };
        assert!(story.realms.registered_for(&realm(), &sample).is_some(), "{sample}");
    }
}

fn decision(story: &mut Story) -> Decision {
    match story.told()[..] {
        [Notice::Decided { decision, .. }] => decision,
        ref other => panic!("{other:?}"),
    }
}

fn accepted(story: &mut Story) -> RegistrationId {
    match decision(story) {
        Decision::Accepted(at) => at.position.into(),
        Decision::Refused(refusal) => panic!("{refusal}"),
    }
}

#[test]
fn a_registration_is_shared_and_ends_with_the_last_callee() {
    let mut story = Story::at_entries();
    for (session, entry) in [(11, 1), (12, 2), (13, 1)] {
        story.join(session, entry);
    }
    let shared = |session| register(session, "p", Matching::Exact, Invoke::RoundRobin);
    let (first, shown) = story.event(1, shared(11));
    assert!(!shown, "nobody sees it");
    let id = accepted(&mut story);
    assert_eq!(id, RegistrationId(first));
    story.event(2, shared(12));
    assert_eq!(accepted(&mut story), id, "all callees have the same registration");
    story.event(1, shared(11));
    assert_eq!(decision(&mut story), Decision::Refused(Refusal::ProcedureExists));
    story.event(1, register(13, "p", Matching::Exact, Invoke::Random));
    let other = Decision::Refused(Refusal::OtherPolicy(Invoke::RoundRobin));
    assert_eq!(decision(&mut story), other);
    story.event(1, register(13, "p", Matching::Prefix, Invoke::Single));
    assert_ne!(accepted(&mut story), id, "matched otherwise, it is another one");
    story.restart();
    check(&story);

    let unregister = |session| act(session, "x", &Act::Unregister(id));
    story.event(1, unregister(13));
    assert_eq!(decision(&mut story), Decision::Refused(Refusal::NoSuchRegistration));
    story.event(1, unregister(11));
    accepted(&mut story);
    let sessions = |story: &Story| -> Vec<u64> {
        let (_, found) = story.realms.registration(id).unwrap();
        found.callees.iter().map(|callee| callee.session.0).collect()
    };
    assert_eq!(sessions(&story), [12]);
    story.event(1, shared(11));
    assert_eq!((accepted(&mut story), sessions(&story)), (id, vec![12, 11]), "in order");
    // An entry is closed, and takes its callees with it.
    let (entry, incarnation) = (NodeId(2), Incarnation(2));
    story.step(Step::Closed { entry, incarnation, reason: CloseReason::LeaseLost }, None);
    assert_eq!(sessions(&story), [11]);
    story.leave(11, 1);
    assert_eq!(story.realms.registration(id), None);
    story.leave(13, 1);
    assert!(all(&story).is_empty());
    story.restart();
    story.told();
    story.event(1, shared(11));
    assert_eq!(decision(&mut story), Decision::Refused(Refusal::SessionEnded));
    assert_eq!(story.rows.len(), 1, "only the entry is left: {:?}", story.rows);
}

#[test]
fn one_callee_is_alone_where_it_said_so() {
    let mut story = Story::at_entries();
    story.join(11, 1);
    story.join(12, 2);
    story.event(1, register(11, "p", Matching::Exact, Invoke::Single));
    accepted(&mut story);
    for invoke in [Invoke::Single, Invoke::First] {
        story.event(2, register(12, "p", Matching::Exact, invoke));
        assert_eq!(decision(&mut story), Decision::Refused(Refusal::ProcedureExists));
    }
}

#[test]
fn a_registration_has_so_many_callees_and_no_more() {
    let mut story = Story::at_entries();
    let shared = |session| register(session, "p", Matching::Exact, Invoke::Last);
    for session in 0..=limits::REGISTRATION_CALLEES as u64 {
        story.join(session + 100, 1);
        story.event(1, shared(session + 100));
        let full = session == limits::REGISTRATION_CALLEES as u64;
        match decision(&mut story) {
            Decision::Refused(refusal) => assert!(full && refusal == Refusal::TooManyCallees),
            Decision::Accepted(_) => assert!(!full),
        }
    }
}

/// Where a call goes, as WAMP ranks matches: exact, then the longest prefix, then the wildcard with the longest run
/// of literal parts, part by part.
#[test]
fn the_best_registration_is_found() {
    let mut story = Story::at_entries();
    story.join(11, 1);
    let mut names = BTreeMap::new();
    for (procedure, matching) in [
        ("a1.b2.c3.d4.e55", Matching::Exact),
        ("a1.b2.c3.", Matching::Prefix),
        ("a1.b2.c3.d4", Matching::Prefix),
        ("ü", Matching::Prefix),
        ("üx.yyyyy", Matching::Prefix),
        ("a1.b2..d4.e5", Matching::Wildcard),
        ("a1.b2.c33..e5", Matching::Wildcard),
        ("a1.b2..d4.e5..g7", Matching::Wildcard),
        ("a1.b2..d4..f6.g7", Matching::Wildcard),
        ("..", Matching::Wildcard),
    ] {
        story.event(1, register(11, procedure, matching, Invoke::Single));
        names.insert(accepted(&mut story), format!("{} {procedure}", matching.word()));
    }
    story.restart();
    // The first cases are the examples of the WAMP specification. There the first prefix has no dot at its end, although
    // prefixes match as text and it would also match c33.
    for (called, expected) in [
        ("a1.b2.c3.d4.e55", Some("exact a1.b2.c3.d4.e55")),
        ("a1.b2.c3.d98.e74", Some("prefix a1.b2.c3.")),
        ("a1.b2.c3.d4.e325", Some("prefix a1.b2.c3.d4")),
        ("a1.b2.c55.d4.e5", Some("wildcard a1.b2..d4.e5")),
        ("a1.b2.c33.d4.e5", Some("wildcard a1.b2.c33..e5")),
        ("a1.b2.c88.d4.e5.f6.g7", Some("wildcard a1.b2..d4.e5..g7")),
        ("a2.b2.c2.d2.e2", None),
        ("x.y.z", Some("wildcard ..")),
        ("x.y", None),
        ("üx.yz", Some("prefix ü")),
        ("üx.yyyyy.z", Some("prefix üx.yyyyy")),
        ("a1", None),
    ] {
        let found = story.realms.registered_for(&realm(), called);
        let found = found.map(|(_, found)| names[&found.id].as_str());
        assert_eq!(found, expected, "{called}");
    }
    let elsewhere = Realm::new("other").unwrap();
    assert!(story.realms.registered_for(&elsewhere, "x.y.z").is_none());
}

proptest! {
    /// Compared with a search through all.
    #[test]
    fn the_tree_and_the_ranges_find_what_a_search_finds(
        patterns in proptest::collection::btree_set("[ab]{0,1}(\\.[ab]{0,1}){0,3}", 1..12),
        prefixes in proptest::collection::btree_set("[ab.]{1,4}", 0..8),
        gone in proptest::collection::vec(any::<bool>(), 20),
        called in "[ab](\\.[ab]){0,3}",
    ) {
        let mut story = Story::at_entries();
        story.join(11, 1);
        let wildcards = patterns.iter().map(|text| (text, Matching::Wildcard));
        let offered: Vec<_> = wildcards
            .chain(prefixes.iter().map(|text| (text, Matching::Prefix)))
            .filter(|(text, matching)| Procedure::new(text, *matching).is_ok())
            .collect();
        let mut left = Vec::new();
        for ((text, matching), gone) in offered.iter().zip(&gone) {
            story.event(1, register(11, text, *matching, Invoke::Single));
            let id = accepted(&mut story);
            if *gone {
                story.event(1, act(11, "x", &Act::Unregister(id)));
                accepted(&mut story);
            } else {
                left.push((text.as_str(), *matching, id));
            }
        }
        let fits = |pattern: &str| {
            let (one, other) = (pattern.split('.'), called.split('.'));
            one.clone().count() == other.clone().count()
                && one.zip(other).all(|(wanted, part)| wanted.is_empty() || wanted == part)
        };
        let prefix = left.iter().filter(|(text, how, _)| {
            *how == Matching::Prefix && called.starts_with(text)
        });
        let prefix = prefix.max_by_key(|(text, _, _)| text.len());
        let wildcard = left.iter().filter(|(text, how, _)| {
            *how == Matching::Wildcard && fits(text)
        });
        let wildcard = wildcard.max_by_key(|(text, _, _)| {
            text.split('.').map(|part| !part.is_empty()).collect::<Vec<_>>()
        });
        let expected = prefix.or(wildcard).map(|(_, _, id)| *id);
        let found = story.realms.registered_for(&realm(), &called).map(|(_, found)| found.id);
        prop_assert_eq!(found, expected);
    }
}

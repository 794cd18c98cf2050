//! Random logs: a restart changes nothing, and the invariants hold in every state.
//!
//! Deliberately absent: what a single act does (the other tests).

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
pub(super) enum Doing {
    Join(u64),
    Leave(u64),
    /// Begins or completes one.
    Exchange(u64, u16, bool),
    Lock(u64, bool),
    Set(u64, u8),
    Turns,
    Wills,
    /// Requests that the log is retained only from this slot on, counted from the newest.
    Release(usize),
    Reopen(u64),
    Register(u64, usize),
    Unregister(u64, usize),
    Attach(u64, bool, u32),
    Detach(u64, u64),
    Keep(u64, bool),
    Save(u64, u64),
    Expire,
    /// Users, roles and bans change.
    Access(usize),
    Restart,
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        (11u64..17).prop_map(Doing::Join),
        (11u64..17).prop_map(Doing::Leave),
        (11u64..17, any::<bool>()).prop_map(|(session, watch)| Doing::Lock(session, watch)),
        (11u64..17, 0u8..3).prop_map(|(session, value)| Doing::Set(session, value)),
        Just(Doing::Turns),
        Just(Doing::Turns),
        Just(Doing::Wills),
        (0usize..20).prop_map(Doing::Release),
        (1u64..3).prop_map(Doing::Reopen),
        (11u64..17, 0usize..6).prop_map(|(session, what)| Doing::Register(session, what)),
        (11u64..17, 0usize..6).prop_map(|(session, what)| Doing::Unregister(session, what)),
        (11u64..17, any::<bool>(), prop::sample::select(&[0, 2, 1000, NEVER][..]))
            .prop_map(|(session, clean, expiry)| Doing::Attach(session, clean, expiry)),
        (11u64..17, 0u64..99).prop_map(|(session, sent)| Doing::Detach(session, sent)),
        (11u64..17, any::<bool>()).prop_map(|(session, keep)| Doing::Keep(session, keep)),
        (11u64..17, 0u64..99).prop_map(|(session, sent)| Doing::Save(session, sent)),
        (11u64..17, 1u16..3, any::<bool>())
            .prop_map(|(session, id, begins)| Doing::Exchange(session, id, begins)),
        Just(Doing::Expire),
        (0usize..10).prop_map(Doing::Access),
        Just(Doing::Restart),
    ]
}

fn leave(story: &mut Story, session: u64) {
    let gone = Gone { drop_will: session.is_multiple_of(3), ..Gone::default() };
    story.gone(session, session % 2 + 1, gone);
}

/// Plays a random log; nodes carry out their notices when it is their turn.
fn play(doings: &[Doing], restarts: bool) -> (StateHash, Vec<Notice>, usize) {
    let mut story = Story::at_entries();
    let mut all = Vec::new();
    let mut there = BTreeSet::new();
    for doing in doings {
        match doing {
            Doing::Join(session) => {
                let join = act(*session, "wamp/session/on_join", &Act::Join(Join::default()));
                story.event(session % 2 + 1, join);
            }
            Doing::Leave(session) => leave(&mut story, *session),
            Doing::Lock(session, watch) => {
                story.event(session % 2 + 1, lock(*session, *watch));
            }
            Doing::Set(session, value) => {
                let value = ["null", r#"{"holder":0}"#, "1"][usize::from(*value)];
                story.event(1, event(*session, "lock", value));
            }
            Doing::Turns => {
                let waiting: Vec<_> = story.realms.waits.values().flatten().cloned().collect();
                for (_, _, waiting) in waiting {
                    for session in 11..17 {
                        story.event(session % 2 + 1, turn(session, waiting.0));
                    }
                }
            }
            Doing::Wills => {
                for id in story.realms.due().map(|(id, _)| id).collect::<Vec<_>>() {
                    let will = act(9, "lock", &Act::Due(id));
                    story.event(1, Event { retain: true, payload: payload("null"), ..will });
                }
            }
            Doing::Release(back) => {
                let head = story.realms.head();
                let asked = story.bases[story.bases.len().saturating_sub(back + 1)];
                let Head { slot, position } = asked;
                let release = Act::Release { slot, position };
                assert!(!story.event(1, act(0, "vulpes/log/release", &release)).1);
                let wanted = story.realms.wanted();
                let may = wanted.is_none_or(|wanted| position <= wanted);
                assert_eq!(story.realms.head(), if may { head.max(asked) } else { head });
            }
            Doing::Reopen(entry) => {
                let (entry, incarnation) = (NodeId(*entry), Incarnation(*entry));
                let reason = CloseReason::LeaseLost;
                story.step(Step::Closed { entry, incarnation, reason }, None);
                story.step(Step::Opened { entry, incarnation }, None);
            }
            Doing::Register(session, what) => {
                story.event(session % 2 + 1, registrations::any_register(*session, *what));
            }
            Doing::Unregister(session, what) => {
                if let Some(id) = registrations::any_registration(&story, *what) {
                    let unregister = act(*session, "x", &Act::Unregister(id));
                    story.event(session % 2 + 1, unregister);
                }
            }
            Doing::Exchange(..) => exchanges::play(&mut story, doing),
            Doing::Access(what) => roles::play(&mut story, *what),
            Doing::Restart if restarts => story.restart(),
            Doing::Restart => {}
            persistent => persistent::play(&mut story, persistent),
        }
        persistent::check_counts(&story.realms);
        assert!(story.realms.lines.values().all(|line| !line.is_empty()));
        registrations::check(&story);
        let told = story.told();
        wills::check(&story.realms, &told, &mut there);
        all.extend(told);
    }
    (story.realms.hash(), all, story.rows.len())
}

#[test]
fn what_two_lives_of_one_session_number_leave_is_told_apart() {
    let lock = Doing::Lock(15, false);
    let doings = [
        Doing::Join(15),
        lock.clone(),
        Doing::Reopen(2),
        Doing::Join(15),
        lock,
        Doing::Reopen(2),
        Doing::Restart,
    ];
    play(&doings, true);
}

proptest! {
    #[test]
    fn restarts_change_nothing(doings in proptest::collection::vec(doing(), 1..60)) {
        let (hash, notices, rows) = play(&doings, true);
        prop_assert_eq!((hash, &notices, rows), {
            let (hash, notices, rows) = play(&doings, false);
            (hash, &notices.clone(), rows)
        });
        let tokens = notices.iter().filter_map(|notice| match notice {
            // A session that joins a registration gets that registration's position.
            Notice::Decided { asked, decision: Decision::Accepted(at), .. } => {
                Some(at.position).filter(|position| position >= asked)
            }
            _ => None,
        });
        let tokens: Vec<_> = tokens.collect();
        prop_assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "tokens grow");
    }
}

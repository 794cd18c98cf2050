//! Scripted tests of what sessions leave, and of sessions whose clients are told that they began only after it is published.

use std::collections::BTreeSet;

use super::persistent::{progress, subscribe};
use super::*;
use crate::types::act::Detach;

pub(super) fn will(delay: u32) -> Will {
    Will {
        topic: Topic::from_canonical("status"),
        payload: Payload::raw("offline".into()),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: true,
        delay,
    }
}

/// A client with a will connects.
fn join(session: u64, expiry: Option<u32>, delay: u32) -> Event {
    let join = Join { client: Some("c".into()), will: Some(will(delay)), ..Join::default() };
    let act = match expiry {
        None => Act::Join(join),
        Some(expiry) => Act::Attach(Attach { join, clean: false, expiry }),
    };
    self::act(session, "wamp/session/on_join", &act)
}

fn id(session: u64, number: u32) -> DueId {
    DueId { session: SessionId(session), number }
}

fn due(session: u64, number: u32) -> Event {
    let act = act(99, "status", &Act::Due(id(session, number)));
    Event { retain: true, payload: Payload::raw("offline".into()), ..act }
}

fn joined(session: u64) -> Notice {
    Notice::Joined { session: SessionId(session) }
}

fn held_back(session: u64) -> Notice {
    Notice::HeldBack { session: SessionId(session) }
}

fn close(story: &mut Story, entry: u64) {
    let (entry, incarnation) = (NodeId(entry), Incarnation(entry));
    story.step(Step::Closed { entry, incarnation, reason: CloseReason::LeaseLost }, None);
}

/// In a random log: a client is told that its session began exactly if nothing is left under its name.
pub(super) fn check(realms: &Realms, told: &[Notice], there: &mut BTreeSet<SessionId>) {
    for notice in told {
        match notice {
            Notice::Joined { session } => assert!(there.insert(*session), "{session:?}: twice"),
            Notice::Ended { session, .. } => drop(there.remove(session)),
            _ => {}
        }
    }
    for (session, state) in realms.sessions() {
        let waits = realms.left_before(session).count() > 0;
        assert_eq!(there.contains(&session), !waits, "{session:?} {state:?}");
    }
    let left: usize = realms.left.values().map(BTreeSet::len).sum();
    let named = realms.due().filter(|(_, due)| due.client.is_some()).count();
    assert_eq!(left, named);
}

#[test]
fn a_client_is_told_that_it_is_there_behind_what_it_left() {
    for expiry in [None, Some(0), Some(NEVER)] {
        for end in ["taken over", "gone", "node lost"] {
            let mut story = Story::at_entries();
            story.event(1, join(11, expiry, 0));
            assert_eq!(story.told(), [joined(11)]);
            match end {
                "gone" => story.leave(11, 1),
                "node lost" => close(&mut story, 1),
                _ => {}
            }
            story.told();
            story.event(2, join(12, expiry, 0));
            assert_eq!(story.told().last(), Some(&held_back(12)), "{expiry:?} {end}");
            let waits: Vec<_> = story.realms.left_before(SessionId(12)).collect();
            assert_eq!(waits, [id(11, 0)]);
            let left = story.realms.due_of(id(11, 0)).unwrap();
            assert_eq!(story.realms.awaited_at(left), Some(NodeId(2)));
            story.restart();
            assert!(story.event(2, due(11, 0)).1);
            assert_eq!(story.told(), [joined(12)], "{expiry:?} {end}");
            // Another node has published it as well.
            assert!(!story.event(2, due(11, 0)).1);
            assert!(story.told().is_empty());
            // The next session finds nothing that was left before.
            story.event(2, act(12, "x", &Act::Leave(Leave { drop_will: true })));
            story.told();
            story.event(2, join(13, expiry, 0));
            assert_eq!(story.told().last(), Some(&joined(13)), "{expiry:?} {end}");
        }
    }
}

#[test]
fn values_bound_to_a_session_come_before_the_next_one_too() {
    let mut story = Story::at_entries();
    story.event(1, join(11, None, 0));
    let terms = Terms { will: Some(payload("0")), ..Terms::default() };
    let bound =
        |topic| Event { act: Act::Publish(terms.clone()).encode(), ..event(11, topic, "1") };
    story.event(1, bound("a"));
    story.event(1, bound("b"));
    story.event(2, join(12, None, 0));
    story.told();
    let value = |number| Event { payload: payload("0"), ..due(11, number) };
    story.event(2, Event { topic: Topic::from_canonical("a"), ..value(0) });
    assert!(story.told().is_empty());
    story.restart();
    story.event(1, due(11, 2));
    // Another client has given this topic another value: nothing is shown, and nothing is left.
    story.event(1, event(99, "b", "2"));
    assert!(story.told().is_empty());
    assert!(!story.event(2, Event { topic: Topic::from_canonical("b"), ..value(1) }).1);
    assert_eq!(story.told(), [joined(12)]);
}

#[test]
fn one_that_was_never_told_to_be_there_leaves_nothing() {
    let mut story = Story::at_entries();
    story.event(1, join(11, Some(NEVER), 0));
    story.event(2, join(12, Some(NEVER), 0));
    story.event(1, join(13, Some(NEVER), 0));
    story.told();
    let left: Vec<_> = story.realms.due().map(|(id, _)| id).collect();
    assert_eq!(left, [id(11, 0)]);
    // Nor does a session whose node is lost.
    close(&mut story, 1);
    story.restart();
    assert_eq!(story.realms.due().count(), 1);
    story.told();
    assert!(story.event(2, due(11, 0)).1);
    assert!(story.told().is_empty(), "nobody waits any more");
    story.event(2, join(14, Some(NEVER), 0));
    assert_eq!(story.told(), [joined(14)]);
}

#[test]
fn a_will_that_is_delayed_is_kept_back_or_comes_first() {
    // A step of the story takes a second.
    let gone = |clean: bool| {
        let mut story = Story::at_entries();
        story.event(1, join(11, Some(60), 30));
        let detach = Detach { drop_will: false, expiry: None, progress: progress(9, &[], 0) };
        story.event(1, act(11, "x", &Act::Detach(detach)));
        story.told();
        let join = Join { client: Some("c".into()), ..Join::default() };
        let attach = Attach { join, clean, expiry: 60 };
        story.event(2, act(12, "x", &Act::Attach(attach)));
        story
    };
    let mut story = gone(false);
    assert_eq!((story.told(), story.realms.due().count()), (vec![joined(12)], 0));
    let mut story = gone(true);
    assert_eq!(story.told().last(), Some(&held_back(12)));
    assert!(story.event(2, due(11, 0)).1, "it waits no longer");
    assert_eq!(story.told(), [joined(12)]);
    // Without a persistent session, the will is not delayed.
    let mut story = Story::at_entries();
    story.event(1, join(11, Some(0), 30));
    story.leave(11, 1);
    assert!(story.event(2, due(11, 0)).1);
}

/// A client disconnects from one node, and connects to another at once: its last word counts, although it comes later in the
/// order. Regression: its will was published, and the will's retained value stayed.
#[test]
fn a_goodbye_takes_the_will_back_behind_the_next_session() {
    for expiry in [None, Some(0), Some(NEVER)] {
        let mut story = Story::at_entries();
        story.event(1, join(11, expiry, 0));
        story.event(2, join(12, expiry, 0));
        assert_eq!(story.told().last(), Some(&held_back(12)));
        story.restart();
        story.gone(11, 1, Gone { drop_will: true, ..Gone::default() });
        assert_eq!(story.told().last(), Some(&joined(12)), "{expiry:?}");
        assert!(!story.event(2, due(11, 0)).1, "{expiry:?}: it was taken back");
        // The first will is withdrawn for good; the next session has its own will.
        story.event(2, join(13, expiry, 0));
        assert!(story.realms.due_of(id(12, 0)).is_some());
    }
}

#[test]
fn a_session_that_was_taken_over_confirms_what_it_left() {
    let mut story = Story::at_entries();
    story.event(1, join(11, None, 0));
    let terms = Terms { will: Some(payload("0")), ..Terms::default() };
    story.event(1, Event { act: Act::Publish(terms).encode(), ..event(11, "a", "1") });
    story.event(2, join(12, None, 0));
    story.told();
    // A value that is bound to a session ends with it, whatever its client's last word was.
    story.leave(11, 1);
    assert_eq!(story.told(), [Notice::Confirmed(id(11, 1))]);
    assert!(story.event(2, due(11, 1)).1);
}

/// Regression: the next session waited for a second, and so did nearly all clients that reconnected at once.
#[test]
fn a_session_that_was_never_open_is_waited_for_no_longer_than_it_takes_to_say_so() {
    let mut story = Story::at_entries();
    story.event(1, join(11, Some(60), 0));
    story.event(2, join(12, Some(60), 0));
    story.gone(11, 1, Gone { progress: Some(progress(7, &[(3, 1)], 0)), ..Gone::default() });
    story.event(1, join(13, Some(60), 0));
    story.told();
    assert_eq!(
        story.realms.persistent_of(SessionId(13)).unwrap().persistent.awaited,
        Some(SessionId(12))
    );
    story.gone(12, 2, Gone { drop_will: true, ..Gone::default() });
    assert!(story.told().contains(&Notice::Released { session: SessionId(13) }));
    let persistent = story.realms.persistent_of(SessionId(13)).unwrap().persistent;
    assert_eq!((persistent.progress.sent, persistent.progress.in_flight.len()), (Position(7), 1));
}

/// Regression: the client's next session was resumed although the client had ended the persistent session.
#[test]
fn a_state_that_its_client_ended_is_not_resumed() {
    let mut story = Story::at_entries();
    story.event(1, join(11, Some(60), 0));
    story.event(1, subscribe(11, &["a"]));
    story.event(2, join(12, Some(60), 0));
    assert!(story.realms.persistent_of(SessionId(12)).unwrap().persistent.resumed);
    story.told();
    let ended = Gone { drop_will: true, expiry: Some(0), progress: Some(progress(9, &[], 0)) };
    story.gone(11, 1, ended);
    assert_eq!(story.told(), [Notice::Released { session: SessionId(12) }, joined(12)]);
    let persistent = story.realms.persistent_of(SessionId(12)).unwrap();
    assert!(
        !persistent.persistent.resumed
            && persistent.filters.is_empty()
            && persistent.persistent.awaited.is_none()
    );
    story.restart();
}

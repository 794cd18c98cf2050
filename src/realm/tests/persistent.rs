//! Scripted tests of persistent sessions.

use super::random::Doing;
use super::*;
use crate::types::act::{Detach, Expire, InFlight, PersistentSubscription, Progress};

pub(super) fn attach(session: u64, clean: bool, expiry: u32) -> Event {
    let join = Join { client: Some("c".into()), ..Join::default() };
    act(session, "wamp/session/on_join", &Act::Attach(Attach { join, clean, expiry }))
}

pub(super) fn progress(sent: u64, in_flight: &[(u64, u16)], doubt: u64) -> Progress {
    let message =
        |(at, packet_id): &(u64, u16)| InFlight { position: Position(*at), packet_id: *packet_id };
    Progress {
        sent: Position(sent),
        in_flight: in_flight.iter().map(message).collect(),
        doubt: Position(doubt),
    }
}

fn detach(session: u64, expiry: Option<u32>, progress: Progress) -> Event {
    let detach = Detach { drop_will: false, expiry, progress };
    act(session, "wamp/session/on_leave", &Act::Detach(detach))
}

pub(super) fn subscribe(session: u64, texts: &[&str]) -> Event {
    let persistent = PersistentSubscription {
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        changes: false,
        identifier: None,
        condition: None,
    };
    let filters = texts.iter().map(|text| (text.to_string(), persistent.clone())).collect();
    act(session, "vulpes/kept", &Act::Subscribe(filters))
}

fn unsubscribe(session: u64, text: &str) -> Event {
    act(session, "vulpes/kept", &Act::Unsubscribe(vec![text.to_owned()]))
}

fn expire(since: u64) -> Event {
    let expire = Expire { client: "c".into(), since: OrderTime(since) };
    act(0, "vulpes/kept", &Act::Expire(expire))
}

/// Plays one step of a random log about persistent sessions: there are two clients.
pub(super) fn play(story: &mut Story, doing: &Doing) {
    match doing {
        Doing::Attach(session, clean, expiry) => {
            let client = Some(format!("c{}", session % 2));
            let will = Some(wills::will(if *clean { 0 } else { 1 })).filter(|_| session % 3 > 0);
            let join = Join { client, will, ..Join::default() };
            let attach = Attach { join, clean: *clean, expiry: *expiry };
            story.event(session % 2 + 1, act(*session, "x", &Act::Attach(attach)));
        }
        // In the form that logs of older formats contain.
        Doing::Detach(session, sent) if sent % 4 == 0 => {
            story.event(session % 2 + 1, detach(*session, None, progress(*sent, &[(1, 1)], 0)));
        }
        Doing::Detach(session, sent) => {
            let expiry = [None, Some(0), Some(60)][*sent as usize % 3];
            let progress = (sent % 5 > 0).then(|| progress(*sent, &[(1, 1)], 0));
            let gone = Gone { drop_will: sent % 2 == 0, expiry, progress };
            story.gone(*session, session % 2 + 1, gone);
        }
        Doing::Keep(session, true) => drop(story.event(1, subscribe(*session, &["a", "b"]))),
        Doing::Keep(session, false) => drop(story.event(1, unsubscribe(*session, "a"))),
        Doing::Save(session, sent) => {
            let all = vec![(SessionId(*session), progress(*sent, &[], 0))];
            story.event(session % 2 + 1, act(0, "x", &Act::Progress(all)));
        }
        _ => {
            let away: Vec<_> = story
                .realms
                .persistent()
                .map(|(_, client, persistent)| (client.to_owned(), persistent.since))
                .collect();
            for (client, since) in away {
                story.event(1, act(0, "x", &Act::Expire(Expire { client, since })));
            }
        }
    }
}

/// The counts match the contents.
pub(super) fn check_counts(realms: &Realms) {
    let table = &realms.persistent;
    let filters: usize = table.states.values().map(|state| state.filters.len()).sum();
    let exchanges = |client: &String, state: &PersistentState| {
        state.received.len() * (client.len() + crate::types::limits::EXCHANGE_OVERHEAD)
    };
    let bytes: usize = table
        .states
        .iter()
        .map(|((_, client), s)| client.len() + s.bytes + exchanges(client, s))
        .sum();
    assert_eq!((table.filters, table.bytes), (filters, bytes));
    for (session, name) in &table.awaited {
        assert_eq!(
            table.states.get(name).and_then(|state| state.persistent.awaited),
            Some(*session)
        );
    }
    for state in table.states.values() {
        assert!(state
            .persistent
            .attached
            .is_none_or(|session| realms.sessions.contains_key(&session)));
    }
}

fn persistent(story: &Story) -> Option<&PersistentSession> {
    story.realms.persistent().map(|(_, _, persistent)| persistent).next()
}

fn wanted(story: &Story) -> Option<u64> {
    story.realms.wanted().map(|position| position.0)
}

fn noted(session: u64, from: u64) -> Notice {
    Notice::FilterOutcome {
        session: SessionId(session),
        noted: FilterOutcome::From(Position(from)),
    }
}

#[test]
fn a_client_comes_back_to_what_it_kept() {
    let mut story = Story::at_entries();
    let (first, shown) = story.event(1, attach(11, false, 1000));
    assert!(shown);
    assert_eq!(story.told(), [Notice::Joined { session: SessionId(11) }]);
    let state = story.realms.persistent_of(SessionId(11)).unwrap();
    assert_eq!(
        (state.persistent.resumed, state.persistent.progress),
        (false, progress(first, &[], 0))
    );
    assert_eq!(wanted(&story), None, "without filters nothing is needed");
    let (at, shown) = story.event(1, subscribe(11, &["a", "b/#"]));
    assert!(!shown);
    assert_eq!(story.told(), [noted(11, at + 1)]);
    assert_eq!(wanted(&story), Some(at + 1));
    // Subscribing again only changes options.
    let (again, _) = story.event(1, subscribe(11, &["a"]));
    assert_eq!(story.told(), [noted(11, again + 1)]);
    story.event(1, unsubscribe(11, "b/#"));
    let state = story.realms.persistent_of(SessionId(11)).unwrap();
    let from: Vec<_> = state.filters.iter().map(|(text, f)| (&text[..], f.from.0)).collect();
    assert_eq!(from, [("a", at + 1)]);

    story.restart();
    story.told();
    let left = progress(40, &[(30, 2), (35, 1)], 0);
    assert!(story.event(1, detach(11, None, left.clone())).1);
    let cause = EndCause::Left { drop_will: false };
    let realm = Realm::new(REALM).unwrap();
    let away = Notice::Away { realm, client: "c".into() };
    assert_eq!(story.told(), [Notice::Ended { session: SessionId(11), cause }, away]);
    assert_eq!(wanted(&story), Some(30));
    story.restart();
    story.event(2, attach(12, false, 1000));
    let state = story.realms.persistent_of(SessionId(12)).unwrap();
    assert!(state.persistent.resumed && state.persistent.awaited.is_none());
    assert_eq!((&state.persistent.progress, state.filters.len()), (&left, 1));
    // A filter of a session that is over is not stored.
    story.told();
    story.event(1, subscribe(11, &["late"]));
    assert!(story.told().is_empty());
    // A session that is not persistent drops the persistent session.
    story.event(1, act(13, "x", &Act::Join(Join { client: Some("c".into()), ..Join::default() })));
    assert_eq!((persistent(&story), wanted(&story)), (None, None));
    assert!(story.rows.len() < 5, "{:?}", story.rows);
}

#[test]
fn progress_comes_from_the_session_s_own_entry() {
    let mut story = Story::at_entries();
    story.event(1, attach(11, false, NEVER));
    story.event(1, subscribe(11, &["a"]));
    let save =
        |progress: Progress| act(0, "vulpes/kept", &Act::Progress(vec![(SessionId(11), progress)]));
    story.event(2, save(progress(90, &[], 0)));
    assert_ne!(persistent(&story).unwrap().progress.sent, Position(90));
    assert!(!story.event(1, save(progress(50, &[(20, 1)], 0))).1);
    assert_eq!(persistent(&story).unwrap().progress, progress(50, &[(20, 1)], 0));
    story.restart();
    // The entry is lost: later events may have been sent.
    let closed = story.tail.as_ref().unwrap().end().0;
    let (entry, incarnation) = (NodeId(1), Incarnation(1));
    story.step(Step::Closed { entry, incarnation, reason: CloseReason::LeaseLost }, None);
    assert_eq!(persistent(&story).unwrap().progress, progress(50, &[(20, 1)], closed));
    story.event(2, attach(12, false, NEVER));
    assert!(persistent(&story).unwrap().awaited.is_none());
}

#[test]
fn the_last_word_of_a_session_that_was_taken_over_is_awaited() {
    let mut story = Story::at_entries();
    story.event(1, attach(11, false, NEVER));
    story.event(1, subscribe(11, &["a"]));
    story.told();
    let (at, _) = story.event(2, attach(12, false, NEVER));
    let ended = Notice::Ended { session: SessionId(11), cause: EndCause::TakenOver };
    assert_eq!(story.told(), [ended, Notice::Joined { session: SessionId(12) }]);
    let now = persistent(&story).unwrap();
    assert_eq!((now.awaited, now.progress.doubt), (Some(SessionId(11)), Position(at)));
    story.restart();
    // A third session comes before the first has sent its last word: only the first one knows the progress.
    story.event(2, attach(13, false, NEVER));
    assert_eq!(persistent(&story).unwrap().awaited, Some(SessionId(11)));
    story.told();
    let last = progress(9, &[(5, 3)], 2);
    assert!(!story.event(1, detach(11, None, last.clone())).1, "it was seen to leave before");
    assert_eq!(story.told(), [Notice::Released { session: SessionId(13) }]);
    let now = persistent(&story).unwrap();
    assert_eq!((now.awaited, &now.progress), (None, &last));
    story.event(1, detach(11, None, progress(1, &[], 0)));
    assert_eq!(persistent(&story).unwrap().progress, last, "one says its last once");

    // The waiting session ends before that, without a last word: it has sent nothing.
    story.event(1, attach(14, false, NEVER));
    story.leave(14, 1);
    story.event(2, detach(13, None, last.clone()));
    assert_eq!(persistent(&story).unwrap().progress, last);
}

/// Regression: what the second session had sent was forgotten when the first session's last word reached the third one.
#[test]
fn a_session_that_begins_without_a_last_word_says_so_first() {
    let mut story = Story::at_entries();
    story.event(1, attach(11, false, NEVER));
    story.event(1, subscribe(11, &["a"]));
    story.event(2, attach(12, false, NEVER));
    story.told();
    let known = persistent(&story).unwrap().progress.clone();
    let begins = act(0, "x", &Act::Progress(vec![(SessionId(12), known.clone())]));
    story.event(2, begins);
    assert_eq!(story.told(), [Notice::Released { session: SessionId(12) }]);
    assert_eq!(
        (persistent(&story).unwrap().awaited, &persistent(&story).unwrap().progress),
        (None, &known)
    );
    story.restart();
    story.told();
    let (at, _) = story.event(1, attach(13, false, NEVER));
    let now = persistent(&story).unwrap();
    assert_eq!((now.awaited, now.progress.doubt), (Some(SessionId(12)), Position(at)));
    story.told();
    // The first session's last word comes too late: it does not know what the second one sent.
    story.event(1, detach(11, None, progress(9, &[], 0)));
    assert!(story.told().is_empty() && persistent(&story).unwrap().awaited == Some(SessionId(12)));
    let last = progress(10, &[(5, 3)], known.doubt.0);
    story.event(2, detach(12, None, last.clone()));
    assert_eq!(story.told(), [Notice::Released { session: SessionId(13) }]);
    assert_eq!(persistent(&story).unwrap().progress, last);
}

#[test]
fn what_nobody_comes_back_for_expires() {
    let mut story = Story::at_entries();
    // Each step takes a second.
    story.event(1, attach(11, false, 3));
    story.event(1, subscribe(11, &["a"]));
    story.event(1, detach(11, None, progress(9, &[], 0)));
    let since = persistent(&story).unwrap().since.0;
    story.event(1, expire(since));
    assert!(persistent(&story).is_some(), "it is not time yet");
    story.event(1, expire(since - 1));
    assert!(persistent(&story).is_some(), "that was another time");
    assert_eq!(wanted(&story), Some(9));
    story.event(1, event(9, "x", "1"));
    assert_eq!(wanted(&story), None, "nobody has to wait for the event that says so");
    assert!(persistent(&story).is_some());
    story.restart();
    let rows = story.rows.len();
    story.event(1, expire(since));
    assert!(persistent(&story).is_none() && story.rows.len() == rows - 2);

    // A client that comes back too late finds nothing, even if no node has published the expiry.
    story.event(1, attach(12, false, 1));
    story.event(1, detach(12, None, progress(9, &[], 0)));
    story.event(1, event(9, "x", "1"));
    story.event(1, attach(13, false, 0));
    assert!(
        persistent(&story).is_none(),
        "a session that is to end with its connection finds nothing"
    );
}

#[test]
fn a_client_may_change_its_mind_when_it_goes() {
    let mut story = Story::at_entries();
    story.event(1, attach(11, false, 3));
    story.event(1, detach(11, Some(NEVER), progress(9, &[], 0)));
    assert_eq!(persistent(&story).unwrap().expiry, NEVER);
    story.event(1, attach(12, false, 0));
    assert!(story.realms.persistent_of(SessionId(12)).unwrap().persistent.resumed);
    // An expiry of zero can't be raised: the session ends with its connection.
    story.event(1, detach(12, Some(60), progress(9, &[], 0)));
    assert!(persistent(&story).is_none());
    story.event(1, attach(13, true, 3));
    story.event(1, attach(14, true, 3));
    assert!(!persistent(&story).unwrap().resumed, "clean start");
}

#[test]
fn a_will_waits_no_longer_than_what_was_kept() {
    let will = |delay| Will {
        topic: Topic::from_canonical("gone"),
        payload: Payload::raw("bye".into()),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: false,
        delay,
    };
    let attach = |session, clean| {
        let join = Join { client: Some("c".into()), will: Some(will(3600)), ..Join::default() };
        act(session, "x", &Act::Attach(Attach { join, clean, expiry: 7200 }))
    };
    let mut story = Story::at_entries();
    story.event(1, attach(11, false));
    story.event(1, detach(11, Some(1), progress(9, &[], 0)));
    let (_, due) = story.realms.due().next().unwrap();
    assert_eq!(due.not_before, OrderTime(story.tail.as_ref().unwrap().time().0 + 1000));
    // The persistent session was dropped: its will is due at once, even if the client is back.
    let mut story = Story::at_entries();
    story.event(1, attach(11, false));
    story.event(1, detach(11, None, progress(9, &[], 0)));
    assert!(story.realms.due().all(|(_, due)| due.not_before > OrderTime(0)));
    story.event(1, attach(12, true));
    assert!(story.realms.due().all(|(_, due)| due.not_before == OrderTime(0)));
    assert_eq!(story.realms.due().count(), 1);
    // Taken over by a session that continues it: the client has not gone.
    story.event(1, attach(13, false));
    assert_eq!(story.realms.due().count(), 1);
}

/// A majority of the clocks was 400 days ahead and is corrected: the stamps stand still, and the order's time runs
/// on.
#[test]
fn what_expires_does_so_by_the_orders_time_and_not_by_stamps() {
    let mut story = Story::at_entries();
    let (now, stands_still) = (story.tail.as_ref().unwrap().time().0, 400 * 24 * HOUR);
    story.event(1, attach(11, false, 60));
    story.event(1, detach(11, None, progress(9, &[], 0)));
    let since = persistent(&story).unwrap().since.0;
    assert_eq!(since, now + 2_000);
    // Stamps far behind what has passed, and far ahead of it.
    story.ahead = 59_000 - 1_000;
    story.event(1, expire(since));
    assert!(persistent(&story).is_some(), "59 s have passed");
    let mut later = story.tail.clone().unwrap();
    later.stamp = Stamp(later.stamp.0 + stands_still);
    (story.tail, story.ahead) = (Some(later), 58_000 - stands_still.cast_signed());
    story.event(1, expire(since));
    assert!(persistent(&story).is_none(), "60 s have passed");
}

//! Tests of the fold: scripted logs, and random logs with restarts in between.

use std::collections::BTreeMap;

use vulpes_raft::ids::{AdvanceSegment, SegmentNumber, Shard, Stamp};
use vulpes_raft::order::{CloseReason, SealedSegment};

use super::*;

mod access;
mod audit;
mod bans;
mod exchanges;
mod format;
mod random;
mod registrations;
mod roles;
mod values;
mod wills;
mod work;

use crate::payload::Serializer;
use crate::segment::OpenSegment;
use crate::types::act::{Attach, Gone, Join, Leave, Refusal, Will, NEVER};
use crate::types::event::{ClientTag, Encoding, Event, Extensions, Qos};
use crate::types::value::Value;

/// A log that is applied while it is written, and the outcomes.
#[derive(Default)]
struct Story {
    /// Bodies are written in the format before the newest.
    older_bodies: bool,
    realms: Realms,
    /// The same state, with large values decoded beforehand and without restarts.
    twin: Realms,
    rows: BTreeMap<Bytes, Bytes>,
    tail: Option<Resolution>,
    notices: Vec<Notice>,
    number: u64,
    /// Where the slots begin.
    bases: Vec<Head>,
    /// How far the order's time is ahead of the stamps.
    ahead: i64,
}

const REALM: &str = "r";
const HOUR: u64 = 3_600_000;

mod persistent;

impl Story {
    fn at_entries() -> Self {
        let mut story = Self::default();
        for node in [1, 2] {
            story.step(Step::Opened { entry: NodeId(node), incarnation: Incarnation(node) }, None);
        }
        story
    }

    fn step(&mut self, step: Step, segment: Option<&Segment>) -> Vec<u32> {
        let stamp = self.tail.as_ref().map_or(Stamp(HOUR), |tail| Stamp(tail.stamp.0 + 1000));
        let base = self.tail.as_ref().map_or(Position(1), Resolution::end);
        let (slot, ahead) = (self.realms.next(), self.ahead);
        let resolution = Resolution { slot, stamp, ahead, base, step };
        self.bases.push(Head { slot: resolution.slot, position: base });
        let applied = self.realms.apply(&resolution, segment);
        let unread = segment.map_or_else(Vec::new, |segment| self.twin.unread(segment));
        let read = unread.into_iter().map(Unread::read).collect();
        let twin = self.twin.apply_with((&resolution, segment), read);
        assert_eq!((&twin.hidden, &twin.notices), (&applied.hidden, &applied.notices));
        assert_eq!(self.twin.hash(), self.realms.hash(), "reading changes nothing");
        for change in applied.changes {
            match change.value {
                Some(value) => drop(self.rows.insert(change.key, value)),
                None => drop(self.rows.remove(&change.key).expect("only rows that are there go")),
            }
        }
        self.notices.extend(applied.notices);
        self.tail = Some(resolution);
        applied.hidden
    }

    /// Events from one entry in one segment; returns the position of the first, and which are hidden.
    fn events(&mut self, entry: u64, events: &[Event]) -> (u64, Vec<u32>) {
        let mut open = OpenSegment::default();
        for event in events {
            open.push(event).unwrap();
        }
        self.number += 1;
        let (entry, incarnation) = (NodeId(entry), Incarnation(entry));
        let id = AdvanceSegment { entry, incarnation, number: SegmentNumber(self.number) };
        let sealed = open.seal(id, Shard(0));
        let step = Step::Segment(SealedSegment {
            id,
            shard: Shard(0),
            count: sealed.count,
            length: sealed.body.len() as u32,
            checksum: sealed.checksum,
            votes: Vec::new(),
        });
        let base = self.tail.as_ref().map_or(1, |tail| tail.end().0);
        let body = match self.older_bodies {
            true => [b"VSG2", &sealed.body[4..]].concat().into(),
            false => sealed.body,
        };
        let hidden = self.step(step, Some(&Segment::parse(body).unwrap()));
        (base, hidden)
    }

    fn event(&mut self, entry: u64, event: Event) -> (u64, bool) {
        let (position, hidden) = self.events(entry, &[event]);
        (position, hidden.is_empty())
    }

    fn join(&mut self, session: u64, entry: u64) {
        self.event(entry, act(session, "wamp/session/on_join", &Act::Join(Join::default())));
        assert_eq!(self.notices.pop(), Some(Notice::Joined { session: SessionId(session) }));
    }

    fn leave(&mut self, session: u64, entry: u64) {
        self.gone(session, entry, Gone::default());
    }

    fn gone(&mut self, session: u64, entry: u64, gone: Gone) {
        self.event(entry, act(session, "wamp/session/on_leave", &Act::Gone(gone)));
    }

    fn value(&self, topic: &str) -> Value {
        let realm = Realm::new(REALM).unwrap();
        self.realms.value_of(&realm, &Topic::from_canonical(topic)).into_owned()
    }

    fn told(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn restart(&mut self) {
        let hash = self.realms.hash();
        self.realms = Realms::from_rows(self.tail.as_ref(), self.rows.clone()).unwrap();
        assert_eq!(self.realms.hash(), hash);
    }
}

fn event(session: u64, topic: &str, json: &str) -> Event {
    Event {
        realm: Realm::new(REALM).unwrap(),
        topic: Topic::from_canonical(topic),
        publisher: SessionId(session),
        client: ClientTag::NONE,
        exclude_me: true,
        disclose_me: false,
        retain: true,
        qos: Qos::AtLeastOnce,
        payload: payload(json),
        properties: Bytes::new(),
        act: Bytes::new(),
        extensions: Extensions::default(),
    }
}

fn payload(json: &str) -> Payload {
    let args = Bytes::copy_from_slice(format!("[{json}]").as_bytes());
    Payload { encoding: Encoding::Json, args, kwargs: Bytes::new() }
}

fn act(session: u64, topic: &str, act: &Act) -> Event {
    Event { act: act.encode(), retain: false, ..event(session, topic, "") }
}

fn json(text: &str) -> Value {
    payload::decode(Serializer::Json, text.as_bytes()).unwrap()
}

fn lock_terms(watch: bool) -> Terms {
    Terms { merge: true, when: Some(Value::Null), watch, will: Some(payload("null")) }
}

fn lock(session: u64, watch: bool) -> Event {
    let act = Act::Publish(lock_terms(watch)).encode();
    Event { act, ..event(session, "lock", &format!("{{\"holder\":{session}}}")) }
}

fn turn(session: u64, waiting: u64) -> Event {
    let act = Act::Granted { waiting: Position(waiting), terms: lock_terms(true) }.encode();
    Event { act, ..lock(session, true) }
}

fn decided(session: u64, asked: u64) -> impl Fn(&Notice) -> Option<Decision> {
    move |notice| match notice {
        Notice::Decided { session: s, asked: a, decision }
            if *s == SessionId(session) && *a == Position(asked) =>
        {
            Some(*decision)
        }
        _ => None,
    }
}

fn token(story: &mut Story, session: u64, asked: u64) -> Option<u64> {
    match story.told().iter().find_map(decided(session, asked))? {
        Decision::Accepted(at) => Some(at.position.0),
        Decision::Refused(_) => None,
    }
}

#[test]
fn a_lock_goes_from_one_to_the_next_in_line() {
    let mut story = Story::at_entries();
    for (session, entry) in [(11, 1), (12, 2), (13, 1)] {
        story.join(session, entry);
    }
    let (first, shown) = story.event(1, lock(11, true));
    assert!(shown);
    assert_eq!(token(&mut story, 11, first), Some(first));
    let (second, shown) = story.event(2, lock(12, true));
    assert!(!shown, "who waits is not seen");
    let (third, _) = story.event(1, lock(13, true));
    let (fourth, shown) = story.event(1, lock(13, false));
    assert!(!shown);
    let refused = story.told().iter().find_map(decided(13, fourth));
    assert_eq!(refused, Some(Decision::Refused(Refusal::NotAccepted)));
    story.restart();

    // The holder frees the lock: the next waiter has the turn, and no other publish overtakes it.
    story.event(1, event(11, "lock", "null"));
    let turn_of =
        |session, waiting| Notice::Turn { session: SessionId(session), waiting: Position(waiting) };
    assert_eq!(story.told(), [turn_of(12, second)]);
    story.restart();
    let (late, _) = story.event(1, lock(11, false));
    let refused = story.told().iter().find_map(decided(11, late));
    assert_eq!(refused, Some(Decision::Refused(Refusal::NotAccepted)));
    let (granted, shown) = story.event(2, turn(12, second));
    assert!(shown);
    assert_eq!(token(&mut story, 12, second), Some(granted));
    assert_eq!(story.value("lock"), json(r#"{"holder":12}"#));
    assert!(!story.event(2, turn(12, second)).1, "a turn is taken once");

    // The holder dies: its will frees the lock.
    story.leave(12, 2);
    let id = DueId { session: SessionId(12), number: 0 };
    let cause = EndCause::Left { drop_will: false };
    assert_eq!(story.told(), [Notice::Ended { session: SessionId(12), cause }, Notice::Due(id)]);
    assert_eq!(story.value("lock"), json(r#"{"holder":12}"#));
    story.restart();
    let will = Event { retain: true, ..act(99, "lock", &Act::Due(id)) };
    assert!(story.event(1, Event { payload: payload("null"), ..will.clone() }).1);
    assert_eq!(story.told(), [turn_of(13, third)]);
    assert!(!story.event(2, will).1, "a will is published once");
    assert_eq!(story.value("lock"), Value::Null);
}

#[test]
fn one_whose_turn_it_is_may_die_or_be_overtaken() {
    let mut story = Story::at_entries();
    for session in 11..14 {
        story.join(session, 1);
    }
    story.event(1, lock(11, true));
    let (second, _) = story.event(1, lock(12, true));
    let (third, _) = story.event(1, lock(13, true));
    story.event(1, event(11, "lock", "null"));
    assert!(
        matches!(story.told().last(), Some(Notice::Turn { waiting, .. }) if waiting.0 == second)
    );
    // A publish without a condition changes the value: the waiter with the turn keeps its place in the queue.
    story.event(1, event(11, "lock", "1"));
    assert!(!story.event(1, turn(12, second)).1);
    assert!(story.told().is_empty());
    story.event(1, event(11, "lock", "null"));
    assert!(matches!(story.told()[..], [Notice::Turn { waiting, .. }] if waiting.0 == second));
    // It dies: the next waiter has the turn.
    story.leave(12, 1);
    assert!(
        matches!(story.told().last(), Some(Notice::Turn { waiting, .. }) if waiting.0 == third)
    );
    assert!(story.event(1, turn(13, third)).1);
}

#[test]
fn several_are_woken_in_a_row() {
    let mut story = Story::at_entries();
    story.join(11, 1);
    story.join(12, 1);
    let waits = |session, when: &str, json: &str| {
        let terms = Terms { when: Some(self::json(when)), watch: true, ..Terms::default() };
        (terms.clone(), Event { act: Act::Publish(terms).encode(), ..event(session, "t", json) })
    };
    let (first_terms, first) = waits(11, r#"{"n":1}"#, r#"{"n":2}"#);
    let (second_terms, second) = waits(12, r#"{"n":2}"#, r#"{"n":3}"#);
    let (b, _) = story.event(1, second.clone());
    let (a, _) = story.event(1, first.clone());
    let again = |event: &Event, terms: Terms, waiting| {
        let act = Act::Granted { waiting: Position(waiting), terms }.encode();
        Event { act, ..event.clone() }
    };
    story.event(1, event(12, "t", r#"{"n":1}"#));
    assert!(matches!(story.told()[..], [Notice::Turn { waiting, .. }] if waiting.0 == a));
    assert!(story.event(1, again(&first, first_terms, a)).1);
    assert!(matches!(story.told()[..], [_, Notice::Turn { waiting, .. }] if waiting.0 == b));
    assert!(story.event(1, again(&second, second_terms, b)).1);
    assert_eq!(story.value("t"), json(r#"{"n":3}"#));
    assert!(story.realms.lines.is_empty() && story.realms.waits.is_empty());
}

#[test]
fn an_entry_that_is_closed_takes_its_sessions_with_it() {
    let mut story = Story::at_entries();
    story.join(11, 1);
    story.join(12, 2);
    story.event(1, lock(11, true));
    let (waiting, _) = story.event(2, lock(12, true));
    story.told();
    story.step(
        Step::Closed {
            entry: NodeId(1),
            incarnation: Incarnation(1),
            reason: CloseReason::LeaseLost,
        },
        None,
    );
    let id = DueId { session: SessionId(11), number: 0 };
    let ended = Notice::Ended { session: SessionId(11), cause: EndCause::EntryLost };
    assert_eq!(story.told(), [ended, Notice::Due(id)]);
    story.event(
        2,
        Event { retain: true, payload: payload("null"), ..act(9, "lock", &Act::Due(id)) },
    );
    assert!(matches!(story.told()[..], [Notice::Turn { waiting: w, .. }] if w.0 == waiting));
    assert!(
        !story.event(1, act(14, "x", &Act::Join(Join::default()))).1,
        "its incarnation is over"
    );
}

#[test]
fn a_name_is_taken_over_and_a_will_that_is_delayed_can_be_kept_back() {
    let will = |delay| Will {
        topic: Topic::from_canonical("gone"),
        payload: Payload::raw("bye".into()),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: false,
        delay,
    };
    let join = |session, delay| {
        let join = Join { client: Some("c".into()), will: Some(will(delay)), ..Join::default() };
        let attach = Attach { join, clean: false, expiry: NEVER };
        act(session, "wamp/session/on_join", &Act::Attach(attach))
    };
    let mut story = Story::at_entries();
    story.event(1, join(11, 0));
    story.told();
    story.event(2, join(12, 3600));
    let taken = Notice::Ended { session: SessionId(11), cause: EndCause::TakenOver };
    let id = DueId { session: SessionId(11), number: 0 };
    let held_back = Notice::HeldBack { session: SessionId(12) };
    assert_eq!(story.told(), [taken, Notice::Due(id), held_back]);
    assert!(story.event(2, act(9, "gone", &Act::Due(id))).1);
    assert_eq!(story.told(), [Notice::Joined { session: SessionId(12) }]);
    story.leave(12, 2);
    let later = DueId { session: SessionId(12), number: 0 };
    assert_eq!(story.told().last(), Some(&Notice::Due(later)));
    assert!(!story.event(1, act(9, "gone", &Act::Due(later))).1, "it is not time yet");
    story.event(1, join(13, 0));
    assert_eq!(story.realms.due().count(), 0);
    let drop_will = Act::Leave(Leave { drop_will: true });
    story.event(1, act(13, "wamp/session/on_leave", &drop_will));
    assert_eq!(story.realms.due().count(), 0);
}

#[test]
fn the_head_moves_on_by_an_event_and_survives() {
    let mut story = Story::at_entries();
    story.join(11, 1);
    story.event(1, event(11, "t", "1"));
    let release = |slot, position| {
        let (slot, position) = (Slot(slot), Position(position));
        act(0, "vulpes/log/release", &Act::Release { slot, position })
    };
    for (slot, position, expected) in [(4, 2, 4), (3, 1, 4), (6, 4, 6), (9, 9, 6), (8, 90, 6)] {
        assert!(!story.event(1, release(slot, position)).1, "nobody sees it");
        assert_eq!(story.realms.head().slot, Slot(expected), "asked for {slot}");
        story.restart();
        assert_eq!(story.realms.head().slot, Slot(expected));
    }
    assert_eq!(story.value("t"), json("1"), "what is retained stays");
    assert_eq!(story.realms.wanted(), None);
}

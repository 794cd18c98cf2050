//! Publishes of QoS 2 in persistent sessions.

use vulpes_raft::mutant::plant;

use super::persistent::{attach, progress};
use super::random::Doing;
use super::*;
use crate::types::limits;

pub(super) fn once(session: u64, packet_id: u16, json: &str) -> Event {
    let act = Act::Once { packet_id, terms: Terms::default() }.encode();
    Event { act, ..event(session, "once", json) }
}

pub(super) fn complete(session: u64, packet_id: u16) -> Event {
    act(session, "vulpes/completed", &Act::Complete { packet_id })
}

/// Plays one step of a random log.
pub(super) fn play(story: &mut Story, doing: &Doing) {
    let event = match doing {
        Doing::Exchange(session, id, true) => once(*session, *id, "1"),
        Doing::Exchange(session, id, false) => complete(*session, *id),
        _ => return,
    };
    story.event(event.publisher.0 % 2 + 1, event);
}

impl Story {
    /// Whether subscribers see a publish, and what its client is told.
    fn once(&mut self, session: u64, packet_id: u16, json: &str) -> (bool, Result<(), Refusal>) {
        self.told();
        let (position, shown) = self.event(1, once(session, packet_id, json));
        (shown, self.outcome(session, position))
    }

    fn complete(&mut self, session: u64, packet_id: u16) -> Result<(), Refusal> {
        self.told();
        let (position, shown) = self.event(1, complete(session, packet_id));
        assert!(!shown);
        self.outcome(session, position)
    }

    fn outcome(&mut self, session: u64, position: u64) -> Result<(), Refusal> {
        match self.told().iter().find_map(decided(session, position)).expect("it is decided") {
            Decision::Accepted(_) => Ok(()),
            Decision::Refused(refusal) => Err(refusal),
        }
    }
}

/// What a client sends until its publish is complete.
fn an_exchange() -> Vec<(bool, Result<(), Refusal>)> {
    let mut story = Story::at_entries();
    story.event(1, attach(11, false, 60));
    let mut told = vec![story.once(11, 7, "1"), story.once(11, 7, "1")];
    // The client comes back at another node, and repeats itself.
    story.event(2, attach(12, false, 60));
    story.restart();
    told.push(story.once(11, 8, "8"));
    told.push(story.once(12, 7, "1"));
    assert_eq!((story.complete(12, 7), story.complete(12, 7)), (Ok(()), Ok(())));
    assert_eq!(story.complete(11, 7), Err(Refusal::SessionEnded));
    told.push(story.once(12, 7, "2"));
    // The client begins a clean session, which knows nothing.
    story.event(1, attach(13, true, 60));
    told.push(story.once(13, 7, "3"));
    told
}

#[test]
fn a_publish_is_taken_once_until_its_exchange_is_complete() {
    let (new, known) = ((true, Ok(())), (false, Ok(())));
    let over = (false, Err(Refusal::SessionEnded));
    assert_eq!(an_exchange(), [new, known, over, known, new, new]);
    plant(Some(Mutant::PublishTwice));
    let twice = an_exchange();
    plant(None);
    assert_eq!(twice, [new, new, over, new, new, new]);
}

#[test]
fn a_publish_changes_its_topic_once() {
    let mut story = Story::at_entries();
    story.event(1, attach(11, false, 60));
    assert!(story.once(11, 1, "1").0);
    story.event(1, event(12, "once", "5"));
    assert!(!story.once(11, 1, "1").0);
    assert_eq!(story.value("once"), json("5"));
}

/// Otherwise it is decoded while everybody else waits for the state.
#[test]
fn what_a_publish_is_merged_into_is_read_ahead() {
    let mut story = Story::at_entries();
    story.event(1, attach(11, false, 60));
    story.event(1, event(12, "once", r#"{"a":1,"b":2}"#));
    let terms = Terms { merge: true, ..Terms::default() };
    let act = Act::Once { packet_id: 1, terms }.encode();
    let mut open = OpenSegment::default();
    open.push(&Event { act, ..event(11, "once", r#"{"c":3}"#) }).unwrap();
    let (entry, incarnation) = (NodeId(1), Incarnation(1));
    let id = AdvanceSegment { entry, incarnation, number: SegmentNumber(99) };
    let segment = Segment::parse(open.seal(id, Shard(0)).body).unwrap();
    assert_eq!(story.realms.unread(&segment).len(), 1);
}

#[test]
fn exchanges_end_with_their_persistent_session() {
    let mut story = Story::at_entries();
    let empty = story.realms.hash();
    story.event(1, attach(11, false, 60));
    assert!(story.once(11, 1, "null").0 && story.once(11, 2, "null").0);
    assert_eq!(story.realms.persistent_of(SessionId(11)).unwrap().received.len(), 2);
    story.gone(
        11,
        1,
        Gone { expiry: Some(0), progress: Some(progress(9, &[], 0)), drop_will: false },
    );
    assert_eq!((story.realms.hash(), story.realms.persistent.bytes), (empty, 0));
    // A session that is not persistent has none.
    story.join(12, 1);
    assert_eq!(story.once(12, 1, "1"), (false, Err(Refusal::SessionEnded)));
}

#[test]
fn a_client_has_so_many_exchanges() {
    let mut story = Story::at_entries();
    story.event(1, attach(11, false, 60));
    let events: Vec<Event> =
        (1..=limits::SESSION_EXCHANGES as u16).map(|id| once(11, id, "1")).collect();
    assert_eq!(story.events(1, &events).1, [0; 0]);
    let next = limits::SESSION_EXCHANGES as u16 + 1;
    assert_eq!(story.once(11, next, "1"), (false, Err(Refusal::TooManyExchanges)));
    assert_eq!(story.once(11, 1, "1"), (false, Ok(())));
    story.complete(11, 5).unwrap();
    assert_eq!(story.once(11, next, "1"), (true, Ok(())));
}

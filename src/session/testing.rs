//! A log for tests of a session's parts.

use std::sync::Arc;

use bytes::Bytes;
use vulpes_raft::ids::{
    AdvanceSegment, Incarnation, NodeId, Position, SegmentNumber, Shard, Slot, Stamp,
};
use vulpes_raft::order::{Resolution, Step};

use crate::log::Placed;
use crate::segment::{OpenSegment, Segment};
use crate::types::event::{Event, SessionId};
use crate::types::topic::Realm;

pub(crate) fn realm() -> Realm {
    Realm::new("realm").unwrap()
}

/// An event of another session.
pub(crate) fn event(topic: &str) -> Event {
    Event::of_act(realm(), topic, SessionId(9), Bytes::new())
}

/// A segment of these events, and its resolution at this place.
pub(crate) fn sealed(slot: Slot, base: Position, events: &[Event]) -> (Resolution, Segment) {
    let mut open = OpenSegment::default();
    for event in events {
        open.push(event).unwrap();
    }
    let number = SegmentNumber(slot.0);
    let id = AdvanceSegment { entry: NodeId(1), incarnation: Incarnation(1), number };
    let sealed = open.seal(id, Shard(0));
    let step = Step::Segment(sealed.proposal(vec![]));
    let resolution = Resolution { slot, stamp: Stamp(0), ahead: 0, base, step };
    (resolution, Segment::parse(sealed.body).unwrap())
}

/// The same, as an entry of the log.
pub(crate) fn placed(slot: Slot, base: Position, events: &[Event]) -> Arc<Placed> {
    let (resolution, segment) = sealed(slot, base, events);
    Arc::new(Placed { resolution, segment: Some(segment), hidden: Box::default() })
}

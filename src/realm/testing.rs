//! Realms' state for the tests of other modules.

use vulpes_raft::ids::{
    AdvanceSegment, Incarnation, NodeId, Position, SegmentNumber, Shard, Slot, Stamp,
};
use vulpes_raft::order::{Resolution, SealedSegment, Step};

use super::Realms;
use crate::segment::{OpenSegment, Segment};
use crate::types::act::Act;
use crate::types::event::{Event, SessionId};
use crate::types::topic::Realm;

/// The state after a log with one segment that has an event for each of these acts.
pub(crate) fn after(acts: &[Act]) -> Realms {
    let mut open = OpenSegment::default();
    for act in acts {
        let event = Event::of_act(Realm::new("r").unwrap(), "t", SessionId(0), act.encode());
        open.push(&event).unwrap();
    }
    let id =
        AdvanceSegment { entry: NodeId(1), incarnation: Incarnation(1), number: SegmentNumber(1) };
    let sealed = open.seal(id, Shard(0));
    let step = Step::Segment(SealedSegment {
        id,
        shard: Shard(0),
        count: sealed.count,
        length: sealed.body.len() as u32,
        checksum: sealed.checksum,
        votes: Vec::new(),
    });
    let resolution =
        Resolution { slot: Slot(1), stamp: Stamp(1), ahead: 0, base: Position(1), step };
    let mut realms = Realms::default();
    realms.apply(&resolution, Some(&Segment::parse(sealed.body).unwrap()));
    realms
}

//! Made-up logs that change the realms' state, and the expected results.
//!
//! Deliberately absent: what the fold means, which `realm` tests; here it only has to be the same everywhere.

use vulpes_raft::order::Resolution;

use super::{event, sealed_of, segment_id, Order};
use crate::realm::{Applied, Realms};
use crate::segment::{SealedBody, Segment};
use crate::types::act::{Act, Join, Leave, Terms};
use crate::types::event::{Event, SessionId};
use crate::types::row::IndexedRow;
use crate::types::value::Value;

/// One slot.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) row: Resolution,
    pub(crate) body: Option<SealedBody>,
}

impl Logged {
    /// Applies it; returns what a storage has to index of it.
    pub(crate) fn apply(&self, realms: &mut Realms) -> (IndexedRow, Applied) {
        let segment = self.body.as_ref().map(|body| Segment::parse(body.body.clone()).unwrap());
        let applied = realms.apply(&self.row, segment.as_ref());
        let indexed = IndexedRow {
            resolution: self.row.clone(),
            body: self.body.as_ref().map(|body| body.body.clone()),
            hidden: applied.hidden.clone(),
            changes: applied.changes.clone(),
        };
        (indexed, applied)
    }
}

/// The state after some slots, from the first one on, and the outcome of each.
pub(crate) fn fold(log: &[Logged]) -> (Realms, Vec<Applied>) {
    let mut realms = Realms::default();
    let applied = log.iter().map(|logged| logged.apply(&mut realms).1).collect();
    (realms, applied)
}

/// A log of one slot for each of these bytes, after the opening of its entry: values set and deleted, conditions that
/// hold or don't, sessions that come and go, and entries that open again.
pub(crate) fn log(doings: &[u8]) -> Vec<Logged> {
    let mut order = Order::default();
    let (mut incarnation, mut number) = (1, 0);
    let mut log = vec![Logged { row: order.opened(1, incarnation), body: None }];
    for doing in doings {
        let Some(events) = events(*doing) else {
            (incarnation, number) = (incarnation + 1, 0);
            log.push(Logged { row: order.opened(1, incarnation), body: None });
            continue;
        };
        let body = sealed_of(segment_id(1, incarnation, number), &events);
        number += 1;
        log.push(Logged { row: order.segment(&body), body: Some(body) });
    }
    log
}

fn events(doing: u8) -> Option<Vec<Event>> {
    let topic = format!("t/{}", doing / 8 % 4);
    let session = SessionId(u64::from(10 + doing / 8 % 4));
    let set = |payload: &[u8]| Event { retain: true, ..event(&topic, payload) };
    let lock = |watch| {
        let terms = Terms { when: Some(Value::Null), watch, ..Terms::default() };
        Event { publisher: session, act: Act::Publish(terms).encode(), ..set(b"1") }
    };
    let of = |act: &Act| Event { publisher: session, act: act.encode(), ..event("session", b"") };
    Some(match doing % 8 {
        0 => return None,
        1 => vec![set(&[b'0' + doing / 32])],
        2 => vec![set(b"")],
        3 => vec![lock(false)],
        4 => vec![of(&Act::Join(Join { client: Some(topic.clone()), ..Join::default() }))],
        5 => vec![of(&Act::Leave(Leave { drop_will: false }))],
        6 => vec![event(&topic, b"plain")],
        _ => vec![event(&topic, b"plain"), lock(false), set(b"2"), lock(false), lock(true)],
    })
}

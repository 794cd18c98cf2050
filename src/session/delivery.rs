//! What a session is delivering to its client: the rest of a segment, or some retained values.
//!
//! Invariant: a gate gets an event only while it can take one. It never gets one that is hidden, filtered out, that its client may not see, or that has a
//! critical extension field which this release does not know.
//!
//! Deliberately absent: the source of the events (`reader`).

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use vulpes_raft::ids::{EventId, Position, Slot};

use crate::gate::{Delivery, Gate, Sending};
use crate::log::Placed;
use crate::payload::{self, Serializer};
use crate::realm::{Compared, Retained};
use crate::segment::{Place, StoredEvent};
use crate::types::event::{Payload, SessionId};
use crate::types::limits;
use crate::types::subscription::SubscriptionId;
use crate::types::topic::Topic;

use super::reader::{Reader, RetainedValues, Wanted, LOOK_TOIL};
use super::sight::{may_see, Sight};

pub(crate) enum Current {
    Segment { wanted: Wanted, place: Place, chosen: Chosen },
    Retained { id: SubscriptionId, values: VecDeque<(Topic, Arc<Retained>)> },
}

/// The subscriptions that get the next event, once they are known, and how many of them have got it.
#[derive(Default)]
pub(crate) struct Chosen {
    known: bool,
    ids: Vec<SubscriptionId>,
    done: usize,
}

/// Bytes that are written with an event in addition to its own, roughly.
const EVENT_OVERHEAD: usize = 64;

impl Current {
    pub(crate) fn segment(wanted: Wanted) -> Self {
        Self::Segment { wanted, place: Place::default(), chosen: Chosen::default() }
    }

    /// Bytes of the log that it holds.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Segment { wanted, .. } => {
                wanted.placed.as_ref().map_or(0, |placed| placed.size())
            }
            Self::Retained { .. } => 0,
        }
    }

    /// Drops the segment, and keeps the place in it.
    pub(crate) fn let_go(&mut self) {
        if let Self::Segment { wanted, .. } = self {
            wanted.placed = None;
        }
    }

    /// The slot of the segment that has to be read again.
    pub(crate) fn missing(&self) -> Option<Slot> {
        match self {
            Self::Segment { wanted, .. } if wanted.placed.is_none() => Some(wanted.slot),
            _ => None,
        }
    }

    /// Takes the segment that was read again, if it still is the missing one.
    pub(crate) fn take_back(&mut self, placed: Arc<Placed>) {
        if self.missing() == Some(placed.resolution.slot) {
            if let Self::Segment { wanted, .. } = self {
                wanted.placed = Some(placed);
            }
        }
    }

    /// Whether the session's cursor is at this segment.
    pub(crate) fn is_at_cursor(&self) -> bool {
        matches!(self, Self::Segment { wanted, .. } if wanted.at_cursor)
    }

    pub(crate) fn retained(values: RetainedValues) -> Self {
        Self::Retained { id: values.id, values: values.values.into() }
    }

    /// Hands the gate as many events as there is room for behind the socket's waiting output.
    pub(crate) fn deliver<G: Gate, R, O: Outlet>(
        &mut self,
        gate: &mut G,
        reader: &mut Reader<R>,
        sight: &mut Sight,
        mut room: Room<'_, O>,
    ) -> Delivered {
        match self {
            Self::Segment { wanted, place, chosen } => {
                deliver_segment((gate, sight), reader, wanted, (place, chosen), &mut room)
            }
            Self::Retained { id, values } => {
                while gate.can_deliver() {
                    let Some((topic, retained)) = values.front() else { return Delivered::All };
                    let shown =
                        !retained.extensions.withhold() && may_see(gate.permissions(), topic);
                    if reader.is_active(*id) && shown {
                        let beside = beside(topic, &retained.properties);
                        if room.behind(gate, &retained.payload, beside) == 0 {
                            return Delivered::Some;
                        }
                        deliver_retained(gate, *id, topic, retained);
                    }
                    values.pop_front();
                }
                Delivered::Some
            }
        }
    }
}

/// How far a session has come with what it is delivering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    All,
    /// As much as there was room for.
    Some,
    /// It is not known what the client could see at this position.
    Unknown(Position),
}

/// The way to the client, as a session sees it: how much output waits, and how much more there is room for. All sessions of a
/// node share that room.
pub(crate) trait Outlet {
    /// Bytes that wait for the socket.
    fn waiting(&self) -> usize;

    /// Whether more may be written when this many bytes wait.
    fn has_room(&mut self, waiting: usize) -> bool;

    /// Whether there is room for `bytes` now, when `waiting` bytes wait. If not, the session is not woken later.
    fn has_room_for(&mut self, waiting: usize, bytes: usize) -> bool;

    /// How many bytes there is room for when `waiting` bytes wait, at least one event of this size. If it is 0, the session is
    /// woken when there is room.
    fn takes(&mut self, waiting: usize, size: usize) -> usize;

    /// Whether the client may send more requests that have to be answered in any case.
    fn has_room_for_answers(&mut self, waiting: usize) -> bool;

    /// Whether it is the session's turn to read a large value for its filters. If not, the session is woken when it is.
    fn may_filter(&mut self) -> bool;
}

/// The room behind the output that waits for the socket already.
pub(crate) struct Room<'a, O> {
    pub(crate) outlet: &'a mut O,
    /// The cost of the session's turn so far, in bytes. The turn ends when that is as much as one read.
    pub(crate) toil: &'a mut usize,
}

/// A session reads values up to this size for its filters without waiting for its turn.
const SMALL_VALUE: usize = 16 << 10;

impl<O: Outlet> Room<'_, O> {
    /// How many events with this payload and `beside` further bytes there is room for behind the gate's output.
    fn behind<G: Gate>(&mut self, gate: &G, payload: &Payload, beside: usize) -> usize {
        let waiting = self.outlet.waiting() + gate.output_size();
        if !self.outlet.has_room(waiting) {
            return 0;
        }
        let size = beside + self.written(gate.serializer(), payload, waiting + beside);
        self.outlet.takes(waiting, size).div_ceil(size)
    }

    /// How many bytes to ask for to write a payload. A payload that has to be translated is measured, by translating it, only
    /// if there is no room for the largest possible result.
    fn written(&mut self, to: Option<Serializer>, payload: &Payload, waiting: usize) -> usize {
        if !payload::is_translated(payload, to) {
            return payload.len();
        }
        let most = limits::GROWTH * payload.len();
        if self.outlet.has_room_for(waiting, most) {
            return most;
        }
        *self.toil += payload.len();
        payload::translated_size(payload, to)
    }
}

/// Bytes that are written with an event's payload, roughly.
fn beside(topic: &Topic, properties: &Bytes) -> usize {
    topic.as_str().len() + properties.len() + EVENT_OVERHEAD
}

fn deliver_segment<G: Gate, R, O: Outlet>(
    (gate, sight): (&mut G, &mut Sight),
    reader: &mut Reader<R>,
    wanted: &Wanted,
    (place, chosen): (&mut Place, &mut Chosen),
    room: &mut Room<'_, O>,
) -> Delivered {
    let Some(placed) = &wanted.placed else { return Delivered::Some };
    let Some(segment) = &placed.segment else { return Delivered::All };
    let resolution = &placed.resolution;
    let at_cursor = wanted.at_cursor;
    let session: SessionId = gate.session();
    let mut events = segment.events_from(*place);
    let delivered = loop {
        *place = events.place();
        if *room.toil >= limits::SESSION_READ || !gate.can_deliver() {
            break Delivered::Some;
        }
        let Some(event) = events.next() else {
            if at_cursor {
                reader.reached(resolution.slot.next(), resolution.end());
            }
            return Delivered::All;
        };
        let subscriptions = wanted.hits.on(event.topic);
        *room.toil += LOOK_TOIL * (1 + subscriptions.len());
        let position = Position(resolution.base.0 + u64::from(event.offset));
        let own = event.exclude_me && event.publisher == session;
        let withheld = placed.is_hidden(event.offset) || event.extensions.withhold();
        if own || withheld || position < wanted.from {
            continue;
        }
        let Some(sending) = reader.sending(at_cursor, position) else { continue };
        let (_, topic) = &segment.topics()[event.topic as usize];
        let visible = match sight.may_see(gate.permissions(), topic, position) {
            Ok(visible) => visible,
            Err(unknown) => break Delivered::Unknown(unknown),
        };
        if !visible {
            // Rules may have changed while the event waited for room.
            chosen.known = false;
            if let Sending::Again(packet_id) = sending {
                gate.give_up(packet_id);
            }
            continue;
        }
        if !chosen.known {
            let reads = event.payload.len() > SMALL_VALUE && filters(reader, subscriptions);
            if reads && !room.outlet.may_filter() {
                // Each takes milliseconds, and other sessions of this node wait meanwhile.
                break Delivered::Some;
            }
            chosen.known = true;
            *room.toil += choose(reader, subscriptions, (&event, position), &mut chosen.ids);
            chosen.done = 0;
        }
        let id = EventId::new(resolution.stamp, resolution.slot, event.offset);
        let delivery = Delivery {
            event: &event,
            topic,
            position,
            id,
            retained: false,
            sending,
            subscriptions: &[],
        };
        if !hand_over(gate, reader, at_cursor, delivery, chosen, room) {
            break Delivered::Some;
        }
        chosen.known = false;
    };
    if at_cursor {
        let next = Position(resolution.base.0 + u64::from(place.offset()));
        reader.reached(resolution.slot, next.max(wanted.from));
    }
    delivered
}

/// Hands over one event, or as much of it as there is room for; true if that was all.
fn hand_over<G: Gate, R, O: Outlet>(
    gate: &mut G,
    reader: &mut Reader<R>,
    at_cursor: bool,
    delivery: Delivery<'_>,
    chosen: &mut Chosen,
    room: &mut Room<'_, O>,
) -> bool {
    let event = delivery.event;
    let beside = beside(delivery.topic, &event.properties);
    let again = matches!(delivery.sending, Sending::Again(_)) && chosen.ids.is_empty();
    while again || chosen.done < chosen.ids.len() {
        let count = room.behind(gate, &event.payload, beside);
        if count == 0 {
            return false;
        }
        if at_cursor {
            reader.touch();
        }
        let rest = chosen.ids.len() - chosen.done;
        let count = if gate.sends_each() { count.min(rest) } else { rest };
        let subscriptions = &chosen.ids[chosen.done..chosen.done + count];
        gate.deliver(Delivery { subscriptions, ..delivery });
        chosen.done += count;
        if again {
            break;
        }
    }
    true
}

/// Whether any of these subscriptions has a filter.
fn filters<R>(reader: &Reader<R>, subscriptions: &[SubscriptionId]) -> bool {
    subscriptions.iter().any(|id| reader.wish(*id).is_some_and(|wish| wish.filter.is_some()))
}

/// The subscriptions that should get an event, among those whose pattern matches. Also returns the cost of their filters, in
/// bytes: as much to read the value as to write it. The filters of a session have a total size limit
/// (`limits::SESSION_FILTERS`).
fn choose<R>(
    reader: &Reader<R>,
    subscriptions: &[SubscriptionId],
    (event, position): (&StoredEvent, Position),
    chosen: &mut Vec<SubscriptionId>,
) -> usize {
    chosen.clear();
    let wishes = subscriptions.iter().filter_map(|id| Some((*id, reader.wish(*id)?)));
    let wanted =
        wishes.filter(|(_, wish)| position >= wish.from && (event.retain || !wish.changes_only));
    let value = OnceCell::new();
    let compared = OnceCell::new();
    for (id, wish) in wanted {
        let fitting = wish.filter.as_ref().is_none_or(|filter| {
            let value = value.get_or_init(|| payload::value(&event.payload));
            compared.get_or_init(|| Compared::new(value)).fits(filter)
        });
        if fitting {
            chosen.push(id);
        }
    }
    value.get().map_or(0, |_| event.payload.len())
}

fn deliver_retained<G: Gate>(gate: &mut G, id: SubscriptionId, topic: &Topic, retained: &Retained) {
    let event = StoredEvent {
        offset: retained.at.offset,
        topic: 0,
        publisher: retained.publisher,
        client: retained.client,
        exclude_me: false,
        disclose_me: retained.disclose_me,
        retain: true,
        qos: retained.qos,
        payload: retained.payload.clone(),
        properties: retained.properties.clone(),
        act: bytes::Bytes::new(),
        extensions: retained.extensions.clone(),
    };
    gate.deliver(Delivery {
        event: &event,
        topic,
        position: retained.at.position,
        id: retained.at.id(),
        retained: true,
        sending: Sending::Aside,
        subscriptions: &[id],
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::event::Encoding;

    /// Has room for a fixed number of bytes.
    struct Narrow(usize);

    impl Outlet for Narrow {
        fn waiting(&self) -> usize {
            0
        }

        fn has_room(&mut self, _: usize) -> bool {
            true
        }

        fn has_room_for(&mut self, waiting: usize, bytes: usize) -> bool {
            waiting + bytes <= self.0
        }

        fn takes(&mut self, _: usize, size: usize) -> usize {
            size
        }

        fn has_room_for_answers(&mut self, _: usize) -> bool {
            true
        }

        fn may_filter(&mut self) -> bool {
            true
        }
    }

    /// How many bytes a client with this serializer asks for when there is room for `room` bytes, and the cost of measuring.
    fn asked(payload: &Payload, to: Option<Serializer>, room: usize) -> (usize, usize) {
        let (mut outlet, mut toil) = (Narrow(room), 0);
        let mut room = Room { outlet: &mut outlet, toil: &mut toil };
        let size = room.written(to, payload, 0);
        (size, toil)
    }

    /// The stored size was counted: sessions that waited for room wrote five times as much as they had asked for.
    #[test]
    fn a_payload_asks_for_room_as_large_as_it_is_written() {
        let nils = [&[0x94][..], &[0xc0; 4]].concat();
        let payload = |encoding, args: &[u8]| Payload {
            encoding,
            args: Bytes::copy_from_slice(args),
            kwargs: Bytes::new(),
        };
        let packed = payload(Encoding::MsgPack, &nils);
        let json = b"[null,null,null,null]".len();
        let most = limits::GROWTH * nils.len();
        for to in [Some(Serializer::Json), None] {
            assert_eq!(asked(&packed, to, most), (most, 0), "there is room whatever it takes");
            assert_eq!(asked(&packed, to, most - 1), (json, nils.len()), "it has to be known");
        }
        assert_eq!(asked(&packed, Some(Serializer::MsgPack), 0), (nils.len(), 0));
        let raw = payload(Encoding::Raw, b"\x01\x01");
        assert_eq!(asked(&raw, None, 0), (2, 0));
        assert_eq!(asked(&raw, Some(Serializer::Json), 0).0, br#"["\u0001\u0001"]"#.len());
    }
}

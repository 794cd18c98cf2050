//! What a session has at hand for its client: the rest of a segment, or some retained values.
//!
//! Invariant: a gate is handed something only while it can take it, and nothing that is hidden or filtered out.
//!
//! Deliberately absent: where it comes from (`reader`).

use std::collections::VecDeque;
use std::sync::Arc;

use vulpes_raft::ids::{EventId, Position};

use crate::event::SessionId;
use crate::gate::{Delivery, Gate, Sending, SubscriptionId};
use crate::payload;
use crate::realm::{fits, Retained};
use crate::segment::{Place, StoredEvent};
use crate::topic::Topic;

use super::reader::{Reader, RetainedValues, Wanted};

/// Events looked at in one turn, and filters that are tried on them, where few of them are for the session.
const LOOKS_A_TURN: usize = 4096;

pub(super) enum Current {
    Segment { wanted: Wanted, place: Place, active: Vec<SubscriptionId> },
    Retained { id: SubscriptionId, values: VecDeque<(Topic, Arc<Retained>)> },
}

impl Current {
    pub(super) fn segment(wanted: Wanted) -> Self {
        Self::Segment { wanted, place: Place::default(), active: Vec::new() }
    }

    /// Whether it is what the session's cursor has come to.
    pub(super) fn is_at_cursor(&self) -> bool {
        matches!(self, Self::Segment { wanted, .. } if wanted.at_cursor)
    }

    pub(super) fn retained(values: RetainedValues) -> Self {
        Self::Retained { id: values.id, values: values.values.into() }
    }

    /// Hands the gate what it can take while less than `most` bytes wait in it; true when that was all.
    pub(super) fn deliver<G: Gate>(
        &mut self,
        gate: &mut G,
        reader: &mut Reader,
        most: usize,
    ) -> bool {
        match self {
            Self::Segment { wanted, place, active } => {
                deliver_segment(gate, reader, (wanted, most), place, active)
            }
            Self::Retained { id, values } => {
                while has_room(gate, most) {
                    let Some((topic, retained)) = values.pop_front() else { return true };
                    if reader.is_active(*id) {
                        deliver_retained(gate, *id, &topic, &retained);
                    }
                }
                false
            }
        }
    }
}

fn has_room<G: Gate>(gate: &G, most: usize) -> bool {
    gate.can_deliver() && gate.output_size() < most
}

fn deliver_segment<G: Gate>(
    gate: &mut G,
    reader: &mut Reader,
    (wanted, most): (&Wanted, usize),
    place: &mut Place,
    active: &mut Vec<SubscriptionId>,
) -> bool {
    let Some(segment) = &wanted.placed.segment else { return true };
    let resolution = &wanted.placed.resolution;
    let at_cursor = wanted.at_cursor;
    let session: SessionId = gate.session();
    let mut events = segment.events_from(*place);
    let mut looks = LOOKS_A_TURN;
    loop {
        if looks == 0 || !has_room(gate, most) {
            *place = events.place();
            if at_cursor {
                let next = Position(resolution.base.0 + u64::from(place.offset()));
                reader.reached(resolution.slot, next.max(wanted.from));
            }
            return false;
        }
        let Some(event) = events.next() else {
            if at_cursor {
                reader.reached(resolution.slot.next(), resolution.end());
            }
            return true;
        };
        let subscriptions = wanted.hits.on(event.topic);
        looks = looks.saturating_sub(1 + subscriptions.len());
        let position = Position(resolution.base.0 + u64::from(event.offset));
        let own = event.exclude_me && event.publisher == session;
        if own || position < wanted.from || wanted.placed.is_hidden(event.offset) {
            continue;
        }
        let Some(sending) = reader.sending(at_cursor, position) else { continue };
        choose(reader, subscriptions, (&event, position), active);
        if active.is_empty() && !matches!(sending, Sending::Again(_)) {
            continue;
        }
        if at_cursor {
            reader.touch();
        }
        let (_, topic) = &segment.topics()[event.topic as usize];
        let id = EventId::new(resolution.stamp, resolution.slot, event.offset);
        gate.deliver(Delivery {
            event: &event,
            topic,
            position,
            id,
            retained: false,
            sending,
            subscriptions: active,
        });
    }
}

/// The subscriptions that are to have an event, among those whose pattern it fits.
fn choose(
    reader: &Reader,
    subscriptions: &[SubscriptionId],
    (event, position): (&StoredEvent, Position),
    chosen: &mut Vec<SubscriptionId>,
) {
    chosen.clear();
    let mut value = None;
    for id in subscriptions {
        let Some(wish) = reader.wish(*id) else { continue };
        if position < wish.from || wish.changes_only && !event.retain {
            continue;
        }
        let fitting = wish.filter.as_ref().is_none_or(|filter| {
            fits(value.get_or_insert_with(|| payload::value(&event.payload)), filter)
        });
        if fitting {
            chosen.push(*id);
        }
    }
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

//! Publishes of QoS 2 in persistent sessions: each is published once, however often its client sends it, and at whichever node.
//!
//! A packet identifier stands for a publish from its position until the client has learned that it was received
//! ([`Act::Complete`](crate::types::act::Act)).
//!
//! Invariant: a client's row for a packet identifier exists exactly between those two events. It goes with the persistent session.
//!
//! Deliberately absent: sessions that end with their connections. Their exchanges do, too, so the gate alone knows of them.

use vulpes_raft::mutant::{planted, Mutant};

use super::persistent::Name;
use super::{Decision, Incoming, Key, Notice, Realms};
use crate::types::act::{Refusal, Terms};
use crate::types::limits;

impl Realms {
    /// Publishes an event unless its client has sent it before; returns whether subscribers see it.
    pub(super) fn publish_once(
        &mut self,
        incoming: &Incoming<'_>,
        packet_id: u16,
        terms: &Terms,
    ) -> bool {
        let session = incoming.event.publisher;
        let name = self.attached_to(session).map(|(name, _)| name);
        let known = name.as_ref().is_some_and(|name| self.persistent.has_received(name, packet_id));
        let decided = match name {
            // Its client sends it again in the session that has taken over.
            None => Err(Refusal::SessionEnded),
            Some(_) if known && !planted(Mutant::PublishTwice) => Ok(false),
            Some(name) => self.receive(incoming, &name, packet_id, terms),
        };
        let at = incoming.at;
        let decision = decided.map_or_else(Decision::Refused, |_| Decision::Accepted(at));
        self.notices.push(Notice::Decided { session, asked: at.position, decision });
        decided == Ok(true)
    }

    /// A publish that is new: publishes it, and remembers its packet identifier.
    fn receive(
        &mut self,
        incoming: &Incoming<'_>,
        name: &Name,
        packet_id: u16,
        terms: &Terms,
    ) -> Result<bool, Refusal> {
        if !self.persistent.has_room_to_receive(name) {
            return Err(Refusal::TooManyExchanges);
        }
        if !self.may_publish(incoming) {
            return Err(Refusal::NotAllowed);
        }
        if !self.persistent.has_received(name, packet_id) {
            let key = Key::Received(name.0.clone(), name.1.clone(), packet_id);
            self.rows.change(&key, None, Some(&()));
            self.persistent.receive(name, packet_id);
        }
        self.publish(incoming, terms);
        Ok(true)
    }

    /// A client knows that its publish was received.
    pub(super) fn complete(&mut self, incoming: &Incoming<'_>, packet_id: u16) {
        let (session, at) = (incoming.event.publisher, incoming.at);
        let name = self.attached_to(session).map(|(name, _)| name);
        let decision = match name {
            None => Decision::Refused(Refusal::SessionEnded),
            Some(name) => {
                self.forget_received(&name, packet_id);
                Decision::Accepted(at)
            }
        };
        self.notices.push(Notice::Decided { session, asked: at.position, decision });
    }

    /// A packet identifier stands for nothing any more.
    pub(super) fn forget_received(&mut self, name: &Name, packet_id: u16) {
        if self.persistent.forget_received(name, packet_id) {
            let key = Key::Received(name.0.clone(), name.1.clone(), packet_id);
            self.rows.change(&key, Some(&()), None);
        }
    }

    /// A client's exchanges are given up.
    pub(super) fn drop_exchanges(&mut self, name: &Name) {
        for packet_id in self.persistent.received(name) {
            self.forget_received(name, packet_id);
        }
    }
}

const _: () = assert!(limits::SESSION_EXCHANGES <= u16::MAX as usize);

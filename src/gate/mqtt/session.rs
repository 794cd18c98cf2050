//! An open MQTT session: handles its packets, and sends events to its subscriptions.
//!
//! Invariant: a message is sent at the highest quality of service that one of its subscriptions was granted, but
//! never at a higher one than it was published with.
//!
//! Deliberately absent: topic aliases, and decisions about retained messages, wills and persistent sessions,
//! which all nodes make alike.

use super::admission::Client;
use super::outbox::Outbox;
use super::packet::codec::{write_pingresp, write_pubrel};
use super::packet::publish::{Outgoing, Publish};
use super::packet::{Incoming, Reason, Violation};
use super::publishes::{Outcome, Publishes};
use super::subscriptions::Subscriptions;
use super::topics::Topics;
use super::window::Window;
use crate::gate::waits::TooMany;
use crate::gate::Allowed;
use crate::gate::{Delivery, Handover, Request, Resumed, Sending};
use crate::payload;
use crate::rules::Permissions;
use crate::types::act::{Act, Terms};
use crate::types::event::{ClientTag, Event, Extensions, Payload, Qos, SessionId};
use crate::types::limits;
use crate::types::topic::{TopicError, ROUTERS_OWN_TEXT};
use vulpes_raft::ids::Position;

/// The topic of events that complete an exchange of QoS 2, which nobody is sent.
const COMPLETED: &str = "vulpes/completed";

/// A client whose CONNECT was accepted.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) publishes: Publishes,
    pub(crate) subscriptions: Subscriptions,
    /// Messages not sent because they exceed the client's maximum packet size (MQTT 5 section 3.1.2.11.4).
    pub(crate) oversized: u64,
    /// The expiry interval in the client's DISCONNECT.
    pub(crate) expiry: Option<u32>,
    /// It outlives its connection: all nodes know its publishes of QoS 2.
    is_persistent: bool,
    /// Events before this position are from the client's offline period.
    back_at: Position,
    id: SessionId,
    /// The client's tag, the same for all its sessions.
    tag: ClientTag,
    /// Whether retained objects are always merged in its realm.
    merges: bool,
    window: Window,
    /// Those that it publishes to, once it does.
    topics: Option<Box<Topics>>,
    /// Subscription identifiers of the current message; kept to reuse its memory.
    identifiers: Vec<u32>,
}

impl Session {
    pub(crate) fn new(id: SessionId, client: Client, merges: bool) -> Self {
        Self {
            publishes: Publishes::new(client.version, client.problem_information),
            subscriptions: Subscriptions::new(&client),
            window: Window::new(client.receive_maximum),
            topics: None,
            identifiers: Vec::new(),
            oversized: 0,
            expiry: None,
            is_persistent: false,
            back_at: Position(0),
            id,
            tag: ClientTag::of(&client.name),
            merges,
            client,
        }
    }

    /// Continues earlier sessions of the client, or begins a persistent one.
    pub(crate) fn resume(&mut self, resumed: Resumed, out: &mut Outbox) {
        self.is_persistent = true;
        self.back_at = resumed.back_at;
        self.publishes.resume(resumed.received);
        self.window.resume(&resumed.in_flight);
        self.subscriptions.resume(resumed.filters, out);
    }

    /// What it leaves to later sessions.
    pub(crate) fn handover(&self) -> Handover {
        Handover { in_flight: self.window.in_flight(), expiry: self.expiry }
    }

    /// A message of an earlier session is done with.
    pub(crate) fn give_up(&mut self, packet_id: u16) {
        self.window.acknowledged(packet_id);
    }

    /// Handles a packet of a client that may do this.
    pub(crate) fn handle(
        &mut self,
        packet: Incoming<'_>,
        may: &mut Permissions,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        match packet {
            Incoming::Publish(publish) => self.publish(publish, may, out),
            Incoming::Acknowledged { packet_id } => {
                self.window.acknowledged(packet_id);
                Ok(())
            }
            Incoming::Received { packet_id, failed } => {
                match self.window.received(packet_id, failed) {
                    Some(is_known) => out.put(|output| {
                        write_pubrel(self.client.version, packet_id, is_known, output);
                    }),
                    None => Ok(()),
                }
            }
            Incoming::Completed { packet_id } => {
                self.window.completed(packet_id);
                Ok(())
            }
            Incoming::Released { packet_id } => self.release(packet_id, out),
            Incoming::Subscribe(subscribe) => self.subscriptions.subscribe(subscribe, may, out),
            Incoming::Unsubscribe(unsubscribe) => self.subscriptions.unsubscribe(&unsubscribe, out),
            Incoming::Ping => out.put(|output| write_pingresp(self.client.version, output)),
            // The gate handles them, because they are about the session itself.
            Incoming::Auth(_) | Incoming::Disconnect { .. } => Ok(()),
        }
    }

    fn publish(
        &mut self,
        mut publish: Publish<'_>,
        may: &mut Permissions,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        publish.terms.merge |= publish.retain && self.merges;
        let asked = (publish.qos, publish.packet_id);
        if publish.qos == Qos::ExactlyOnce && self.publishes.is_repeated(publish.packet_id, out)? {
            return Ok(());
        }
        let topic = match self.topics.get_or_insert_default().read(publish.topic) {
            Ok(topic) => topic,
            Err(error) => {
                let text = format!("PUBLISH: {error}");
                let violation = Violation::new(Reason::TopicNameInvalid, text);
                // A wildcard or an empty topic violates the protocol; other names are only refused.
                return match error {
                    TopicError::Empty | TopicError::Wildcard => Err(violation),
                    _ => self.refuse(asked, violation, out),
                };
            }
        };
        let reserved = topic.is_routers_own().then(routers_own);
        if let Some(violation) = reserved.or(publish.refused) {
            return self.refuse(asked, violation, out);
        }
        let allowed = may.allow_publish(&topic, publish.retain)
            && may.allow_condition(&topic, publish.terms.when.as_ref());
        if !allowed {
            return self.forbid(asked, out);
        }
        let event = Event {
            realm: self.client.realm.clone(),
            topic,
            publisher: self.id,
            client: self.tag,
            exclude_me: publish.exclude_me,
            disclose_me: publish.disclose_me,
            retain: publish.retain,
            qos: publish.qos,
            payload: Payload::raw(publish.payload),
            properties: publish.properties,
            act: publish.terms.encode(),
            extensions: Extensions::default(),
        };
        if event.size() > limits::EVENT {
            return Err(Violation::new(
                Reason::PacketTooLarge,
                format!("a message may have {} bytes at most", limits::EVENT),
            ));
        }
        let bytes = event.held();
        if let Err(error) = self.publishes.check(&publish.terms, bytes) {
            let text = error.to_string();
            if error == TooMany::Disk && event.qos == Qos::AtMostOnce {
                // As with what is forbidden: a client that comes back does the same again.
                out.drop_silently(text);
                return Ok(());
            }
            return self.refuse(asked, Violation::new(Reason::QuotaExceeded, text), out);
        }
        self.submit(event, (publish.packet_id, publish.terms), out)
    }

    /// Hands a publish to the node.
    fn submit(
        &mut self,
        event: Event,
        (packet_id, terms): (u16, Terms),
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        // A conditional publish is decided anew whenever its client sends it.
        let is_conditional = terms.is_conditional();
        let once = self.is_persistent && event.qos == Qos::ExactlyOnce && !is_conditional;
        let outcome = match is_conditional {
            true => Outcome::Conditional(event.held()),
            false if once => Outcome::Once,
            false => Outcome::Stored,
        };
        self.publishes.begin((event.qos, packet_id), outcome)?;
        let event = match once {
            true => Event { act: Act::Once { packet_id, terms: terms.clone() }.encode(), ..event },
            false => event,
        };
        out.requests.push_back(Request::Publish { event, terms, once });
        Ok(())
    }

    /// The client knows that its publish of QoS 2 was received.
    fn release(&mut self, packet_id: u16, out: &mut Outbox) -> Result<(), Violation> {
        if self.publishes.release(packet_id, self.is_persistent, out)? {
            let act = Act::Complete { packet_id };
            let realm = self.client.realm.clone();
            let event = Event::of_act(realm, COMPLETED, self.id, act.encode());
            out.requests.push_back(Request::Decide(event));
        }
        Ok(())
    }

    /// Only an MQTT 5 PUBACK can refuse a message and keep the connection open.
    fn refuse(
        &mut self,
        asked: (Qos, u16),
        violation: Violation,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        if asked.0 == Qos::AtMostOnce || !self.client.version.is_5() {
            return Err(violation);
        }
        self.publishes.refuse(asked, violation, out)
    }

    /// The user may not publish this. A client that does not ask for an answer goes on without it: to close its connection would
    /// make it come back and do the same.
    fn forbid(&mut self, asked: (Qos, u16), out: &mut Outbox) -> Result<(), Violation> {
        let text = "PUBLISH: the user may not publish this there";
        if asked.0 == Qos::AtMostOnce {
            out.drop_silently(text.to_owned());
            return Ok(());
        }
        self.refuse(asked, Violation::new(Reason::NotAuthorized, text), out)
    }

    pub(crate) fn allow(&mut self, allowed: Allowed) {
        self.publishes.allow(allowed);
        self.subscriptions.allow(allowed.subscriptions);
    }

    pub(crate) fn can_deliver(&self) -> bool {
        self.window.has_room() && !self.subscriptions.has_filter_changes()
    }

    /// Sends an event: once, however many of the session's subscriptions it is for.
    pub(crate) fn deliver(&mut self, delivery: Delivery<'_>, out: &mut Outbox) {
        let event = delivery.event;
        // Published by any session of the client, or as its will (MQTT-3.8.3-3).
        let own = event.client == self.tag;
        let mut granted = None;
        let mut retain = delivery.retained;
        self.identifiers.clear();
        for id in delivery.subscriptions {
            let Some(subscription) = self.subscriptions.granted(*id) else { continue };
            if own && subscription.no_local {
                continue;
            }
            granted = granted.max(Some(subscription.qos));
            retain |= subscription.changes || (subscription.retain_as_published && event.retain);
            self.identifiers.extend(subscription.identifier);
        }
        let granted = match (granted, delivery.sending) {
            (Some(granted), _) => granted,
            // A begun exchange is completed, even if its filter was dropped since (MQTT-3.10.4-3).
            (None, Sending::Again(_)) => Qos::AtLeastOnce,
            (None, _) => return,
        };
        let qos = granted.min(event.qos);
        let acknowledged = qos > Qos::AtMostOnce;
        // QoS 0 events from the offline period are not delivered.
        if !acknowledged && delivery.position < self.back_at && delivery.sending != Sending::Aside {
            return;
        }
        let version = self.client.version;
        let payload = payload::to_mqtt(&event.payload);
        let mut outgoing = Outgoing {
            duplicate: acknowledged
                && matches!(delivery.sending, Sending::Doubtful | Sending::Again(_)),
            retain,
            qos,
            packet_id: acknowledged.then_some(0),
            topic: delivery.topic.as_str(),
            identifiers: &self.identifiers,
            properties: &event.properties,
            payload: &payload,
        };
        if version.is_5() && outgoing.size(version) > out.max_packet {
            self.oversized += 1;
            return;
        }
        if acknowledged {
            let packet_id = match delivery.sending {
                Sending::Again(packet_id) => {
                    if !self.window.again(packet_id, delivery.position) {
                        return;
                    }
                    Some(packet_id)
                }
                _ if qos == Qos::ExactlyOnce => self.window.take_exactly(),
                Sending::Aside => self.window.take(None),
                Sending::First | Sending::Doubtful => self.window.take(Some(delivery.position)),
            };
            outgoing.packet_id =
                Some(packet_id.expect("events are delivered only while the window has room"));
        }
        outgoing.write(version, &mut out.output);
    }
}

fn routers_own() -> Violation {
    Violation::new(Reason::TopicNameInvalid, format!("PUBLISH: {ROUTERS_OWN_TEXT}"))
}

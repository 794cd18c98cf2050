//! An open MQTT session: handles its packets, and sends events to its subscriptions.
//!
//! Invariant: a message is sent at the highest quality of service that one of its subscriptions was granted, but
//! never at a higher one than it was published with.
//!
//! Deliberately absent: QoS 2, topic aliases, and decisions about retained messages, wills and persistent sessions,
//! which all nodes make alike.

use super::admission::Client;
use super::outbox::Outbox;
use super::packet::codec::write_pingresp;
use super::packet::publish::{Outgoing, Publish};
use super::packet::{Incoming, Reason, Violation};
use super::publishes::Publishes;
use super::subscriptions::Subscriptions;
use super::topics::Topics;
use super::window::Window;
use crate::gate::waits::TooMany;
use crate::gate::Allowed;
use crate::gate::{Delivery, Handover, Request, Resumed, Sending};
use crate::payload;
use crate::rules::Permissions;
use crate::types::event::{ClientTag, Event, Extensions, Payload, Qos, SessionId};
use crate::types::limits;
use crate::types::topic::{TopicError, ROUTERS_OWN_TEXT};
use vulpes_raft::ids::Position;

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
            back_at: Position(0),
            id,
            tag: ClientTag::of(&client.name),
            merges,
            client,
        }
    }

    /// Continues earlier sessions of the client, or begins a persistent one.
    pub(crate) fn resume(&mut self, resumed: Resumed, out: &mut Outbox) {
        self.back_at = resumed.back_at;
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
        if publish.qos == Qos::ExactlyOnce {
            return Err(Violation::new(Reason::QosNotSupported, "QoS 2 is not available"));
        }
        let topic = match self.topics.get_or_insert_default().read(publish.topic) {
            Ok(topic) => topic,
            Err(error) => {
                let text = format!("PUBLISH: {error}");
                let violation = Violation::new(Reason::TopicNameInvalid, text);
                // A wildcard or an empty topic violates the protocol; other names are only refused.
                return match error {
                    TopicError::Empty | TopicError::Wildcard => Err(violation),
                    _ => self.refuse(publish.qos, publish.packet_id, violation, out),
                };
            }
        };
        let reserved = topic.is_routers_own().then(routers_own);
        if let Some(violation) = reserved.or(publish.refused) {
            return self.refuse(publish.qos, publish.packet_id, violation, out);
        }
        let allowed = may.allow_publish(&topic, publish.retain)
            && may.allow_condition(&topic, publish.terms.when.as_ref());
        if !allowed {
            return self.forbid(publish.qos, publish.packet_id, out);
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
            let violation = Violation::new(Reason::QuotaExceeded, text);
            return self.refuse(event.qos, publish.packet_id, violation, out);
        }
        let conditional = publish.terms.is_conditional().then_some(bytes);
        self.publishes.begin(publish.packet_id, conditional)?;
        out.requests.push_back(Request::Publish { event, terms: publish.terms });
        Ok(())
    }

    /// Only an MQTT 5 PUBACK can refuse a message and keep the connection open.
    fn refuse(
        &mut self,
        qos: Qos,
        packet_id: u16,
        violation: Violation,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        if qos == Qos::AtMostOnce || !self.client.version.is_5() {
            return Err(violation);
        }
        self.publishes.refuse(packet_id, violation, out)
    }

    /// The user may not publish this. A client that does not ask for an answer goes on without it: to close its connection would
    /// make it come back and do the same.
    fn forbid(&mut self, qos: Qos, packet_id: u16, out: &mut Outbox) -> Result<(), Violation> {
        let text = "PUBLISH: the user may not publish this there";
        if qos == Qos::AtMostOnce {
            out.drop_silently(text.to_owned());
            return Ok(());
        }
        self.refuse(qos, packet_id, Violation::new(Reason::NotAuthorized, text), out)
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
        let acknowledged = granted.min(event.qos) > Qos::AtMostOnce;
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

//! PUBLISH: from a client's message to an event for the log.
//!
//! Invariant: an event that leaves here is within the limits, and its topic is not the router's own.
//!
//! Deliberately absent: its outcome (`publishes`).

use bytes::Bytes;

use super::message::{code, Publish, RequestId, Violation};
use super::options::PublishOptions;
use super::{uri, WampGate};
use crate::gate::Request;
use crate::types::event::{ClientTag, Event, Extensions, Qos};
use crate::types::limits;
use crate::types::topic::{Realm, Topic, ROUTERS_OWN_TEXT};

impl WampGate {
    pub(super) fn publish(
        &mut self,
        realm: Realm,
        input: &Bytes,
        publish: &Publish<'_>,
    ) -> Result<(), Violation> {
        let mut options = PublishOptions::read(self.serializer, publish.options)?;
        options.terms.merge |= options.retain && self.merging.contains(&realm);
        if let Some(error) = options.error {
            self.refuse_publish(&options, publish.request, error.uri(), &error.to_string());
            return Ok(());
        }
        let topic = match self.published_topics.topic(&publish.topic) {
            Ok(topic) => topic,
            Err(error) => {
                let sentence = error.to_string();
                self.refuse_publish(&options, publish.request, uri::INVALID_URI, &sentence);
                return Ok(());
            }
        };
        if topic.is_routers_own() {
            let sentence = ROUTERS_OWN_TEXT;
            self.refuse_publish(&options, publish.request, uri::INVALID_URI, sentence);
            return Ok(());
        }
        let allowed = self.permissions.allow_publish(&topic, options.retain)
            && self.permissions.allow_condition(&topic, options.terms.when.as_ref());
        if !allowed {
            let sentence = "the user may not publish this there";
            self.refuse_publish(&options, publish.request, uri::NOT_AUTHORIZED, sentence);
            return Ok(());
        }
        let event = self.event(realm, topic, input, publish, &options);
        if event.size() > limits::EVENT {
            let sentence = format!("an event has {} bytes at most", limits::EVENT);
            self.refuse_publish(&options, publish.request, uri::PAYLOAD_SIZE_EXCEEDED, &sentence);
            return Ok(());
        }
        if let Err(error) = self.publishes.check(&options.terms, event.held()) {
            let (uri, sentence) = (uri::of_too_many(error), error.to_string());
            self.refuse_publish(&options, publish.request, uri, &sentence);
            return Ok(());
        }
        let conditional = options.terms.is_conditional().then_some(event.held());
        let request = options.acknowledge.then_some(publish.request);
        match conditional {
            Some(bytes) => self.publishes.begin_waiting(request, bytes),
            None => self.publishes.begin(request),
        }
        self.requests.push_back(Request::Publish { event, terms: options.terms, once: false });
        Ok(())
    }

    fn event(
        &self,
        realm: Realm,
        topic: Topic,
        input: &Bytes,
        publish: &Publish<'_>,
        options: &PublishOptions,
    ) -> Event {
        Event {
            realm,
            topic,
            publisher: self.session,
            client: ClientTag::NONE,
            exclude_me: options.exclude_me,
            disclose_me: options.disclose_me,
            retain: options.retain,
            // WAMP has no QoS levels: the event is in the log, and each subscriber gets it at the level that it asked
            // for.
            qos: Qos::ExactlyOnce,
            payload: self.payload(input, &publish.carried),
            properties: Bytes::new(),
            act: options.terms.encode(),
            extensions: Extensions::default(),
        }
    }

    /// A publisher without `acknowledge` gets no answer, as WAMP says.
    pub(super) fn refuse_publish(
        &mut self,
        options: &PublishOptions,
        request: RequestId,
        uri: &str,
        sentence: &str,
    ) {
        if options.acknowledge {
            self.refuse(code::PUBLISH, request, uri, sentence);
        } else {
            self.dropped("PUBLISH", request.0, sentence);
        }
    }
}

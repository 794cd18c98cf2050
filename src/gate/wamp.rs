//! The WAMP gate: one session of a WAMP client (the basic profile, and the parts of the advanced profile that WELCOME
//! announces).
//!
//! Serializers `wamp.2.json`, `wamp.2.msgpack` and `wamp.2.cbor`; one WebSocket message is one WAMP message.
//!
//! | message      | code | from a client, its role here               | to a client, our role                    |
//! |--------------|------|--------------------------------------------|------------------------------------------|
//! | HELLO        | 1    | once, first                                |                                          |
//! | WELCOME      | 2    |                                            | router: the session is open              |
//! | ABORT        | 3    | any time: ends the session                 | router: refusal, or breach of protocol   |
//! | CHALLENGE    | 4    |                                            | router: a user has to show who it is     |
//! | AUTHENTICATE | 5    | once, the answer to a CHALLENGE            |                                          |
//! | GOODBYE      | 6    | ends the session                           | router: the answer to it, or ours        |
//! | ERROR        | 8    | callee: to an INVOCATION                   | router: a request failed                 |
//! | PUBLISH      | 16   | publisher                                  |                                          |
//! | PUBLISHED    | 17   |                                            | broker: durable, ordered and accepted    |
//! | SUBSCRIBE    | 32   | subscriber                                 |                                          |
//! | SUBSCRIBED   | 33   |                                            | broker                                   |
//! | UNSUBSCRIBE  | 34   | subscriber                                 |                                          |
//! | UNSUBSCRIBED | 35   |                                            | broker: asked for, or end of a snapshot  |
//! | EVENT        | 36   |                                            | broker                                   |
//! | CALL         | 48   | caller                                     |                                          |
//! | CANCEL       | 49   | caller: ignored if answered                |                                          |
//! | RESULT       | 50   |                                            | dealer                                   |
//! | REGISTER     | 64   | callee                                     |                                          |
//! | REGISTERED   | 65   |                                            | dealer: durable, ordered and decided     |
//! | UNREGISTER   | 66   | callee                                     |                                          |
//! | UNREGISTERED | 67   |                                            | dealer: durable, ordered and decided     |
//! | INVOCATION   | 68   |                                            | dealer                                   |
//! | INTERRUPT    | 69   |                                            | dealer, if the client announced it       |
//! | YIELD        | 70   | callee: ignored if the call is over        |                                          |
//!
//! A message that only a router sends is a protocol violation from a client at
//! any time.
//!
//! Invariant: no request is swallowed. It is answered as WAMP defines. If WAMP has no answer (a PUBLISH without
//! `acknowledge` that can't be taken), it is dropped and reported to the node's operator ([`Gate::poll_dropped`]).
//! Ending the session would not help: the client would come back and do it again.
//!
//! Deliberately absent: how logins are checked, and which sessions get an event or a call. A payload is never decoded here.

mod calls;
mod login;
mod message;
mod options;
mod publishes;
mod publishing;
mod reply;
mod subprotocol;
mod subscribing;
mod subscriptions;
mod topics;
mod unfit;
mod uri;

use std::collections::VecDeque;

use self::calls::Calls;
use self::message::{code, Message, RequestId, Violation};
use self::publishes::{Publishes, Undecided};
use self::reply::{Failure, Shown};
pub use self::subprotocol::{choose_subprotocol, subprotocol};
use self::subscriptions::{Ended, Subscriptions};
use super::details::Authenticated;
use super::{Delivery, Dropped, EndReason, Farewell, Gate, MergingRealms, OpenRefusal, Request};
use crate::call::CallMessage;
use crate::gate::Allowed;
use crate::payload::to_wamp;
pub use crate::payload::Serializer;
use crate::rules::Permissions;
use crate::types::access::LoginRefusal;
use crate::types::act::Refusal;
use crate::types::answer::{Answer, Stored};
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::login::LoginReply;
use crate::types::moment::Moment;
use crate::types::subscription::{SubscribeError, SubscriptionId};
use crate::types::topic::Realm;
use bytes::Bytes;

/// One WAMP client's session.
#[derive(Debug)]
pub struct WampGate {
    serializer: Serializer,
    session: SessionId,
    state: State,
    subscriptions: Subscriptions,
    published_topics: topics::Published,
    delivered_topics: topics::Delivered,
    publishes: Publishes,
    calls: Calls,
    merging: MergingRealms,
    has_users: bool,
    permissions: Permissions,
    requests: VecDeque<Request>,
    output: VecDeque<Bytes>,
    output_size: usize,
    /// What the transport says once it is closed.
    farewell: Farewell,
    dropped: Option<Dropped>,
}

#[derive(Debug)]
enum State {
    /// HELLO has not come.
    Connected {
        deadline: Moment,
    },
    /// The client has been challenged to show who it is.
    Challenged {
        deadline: Moment,
        realm: Realm,
    },
    /// The driver has been asked how to challenge the client, or whether its answer is right.
    LoggingIn {
        deadline: Moment,
        realm: Realm,
    },
    /// The driver has been asked to open the session.
    Opening {
        deadline: Moment,
        realm: Realm,
        who: Box<(Authenticated, Option<String>)>,
    },
    Open {
        realm: Realm,
    },
    /// Nothing more is received or sent.
    Closed,
}

impl WampGate {
    /// A session that waits for its client's HELLO.
    #[must_use]
    pub fn new(serializer: Serializer, session: SessionId, now: Moment) -> Self {
        let patience = u64::try_from(limits::HANDSHAKE.as_millis()).unwrap_or(u64::MAX);
        Self {
            serializer,
            session,
            state: State::Connected { deadline: Moment(now.0.saturating_add(patience)) },
            subscriptions: Subscriptions::default(),
            published_topics: topics::Published::default(),
            delivered_topics: topics::Delivered::default(),
            publishes: Publishes::default(),
            calls: Calls::default(),
            merging: MergingRealms::default(),
            has_users: false,
            permissions: Permissions::default(),
            requests: VecDeque::new(),
            output: VecDeque::new(),
            output_size: 0,
            farewell: Farewell::Said,
            dropped: None,
        }
    }

    /// Sets the realms in which retained objects are always merged.
    #[must_use]
    pub fn merging_in(self, merging: MergingRealms) -> Self {
        Self { merging, ..self }
    }

    /// Sets whether the cluster has users, so that clients log in.
    #[must_use]
    pub fn with_users(self, has_users: bool) -> Self {
        Self { has_users, ..self }
    }

    fn take(&mut self, input: &Bytes) -> Result<(), Violation> {
        let (message, unfit) = message::decode(self.serializer, input)?;
        if let Some(unfit) = unfit.filter(|_| self.is_open()) {
            if self.refuse_unfit(&message, unfit)? {
                return Ok(());
            }
        }
        match (&self.state, message) {
            (State::Closed, _) => Ok(()),
            (_, Message::Abort) => {
                self.close();
                Ok(())
            }
            (State::Open { realm }, Message::Publish(publish)) => {
                let realm = realm.clone();
                self.publish(realm, input, &publish)
            }
            (State::Open { .. }, Message::Subscribe { request, options, topic }) => {
                self.subscribe(request, options, &topic)
            }
            (State::Open { .. }, Message::Unsubscribe { request, subscription }) => {
                self.unsubscribe(request, subscription);
                Ok(())
            }
            (State::Open { realm }, Message::Register { request, options, procedure }) => {
                let realm = realm.clone();
                self.register(realm, request, options, &procedure)
            }
            (State::Open { realm }, Message::Unregister { request, registration }) => {
                let realm = realm.clone();
                self.unregister(realm, request, registration);
                Ok(())
            }
            (State::Open { .. }, Message::Call(call)) => self.call(input, &call),
            (State::Open { .. }, Message::Cancel { request, options }) => {
                self.cancel(request, options)
            }
            (State::Open { .. }, Message::Yield { invocation, options, carried }) => {
                self.yielded(input, invocation, options, &carried)
            }
            (State::Open { .. }, Message::Error { invocation, uri, carried }) => {
                self.failed(input, invocation, &uri, &carried);
                Ok(())
            }
            (State::Open { .. }, Message::Goodbye) => {
                self.send(reply::goodbye(self.serializer, uri::GOODBYE_AND_OUT, None));
                self.close();
                Ok(())
            }
            (_, message) => self.handshake(message),
        }
    }

    fn refuse(&mut self, code: u64, request: RequestId, uri: &str, sentence: &str) {
        let failure = Failure { uri, sentence, position: None };
        self.send(reply::error(self.serializer, code, request, &failure));
    }

    fn abort(&mut self, uri: &str, sentence: &str) {
        self.send(reply::abort(self.serializer, uri, sentence));
        self.close();
    }

    /// Ends the session without a WAMP message: stock clients do not reconnect after GOODBYE or ABORT, but do after a
    /// connection that closes without one.
    fn part(&mut self, farewell: Farewell) {
        self.farewell = farewell;
        self.close();
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.requests.push_back(Request::Close { drop_will: false });
    }

    fn send(&mut self, message: Vec<u8>) {
        self.output_size += message.len();
        self.output.push_back(message.into());
    }

    /// A request was granted, with the id that it produced.
    fn grant(&mut self, code: u64, request: RequestId, id: Option<u64>) {
        self.send(reply::granted(self.serializer, code, request, id));
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }
}

impl Gate for WampGate {
    fn permissions(&mut self) -> &mut Permissions {
        &mut self.permissions
    }

    fn receive(&mut self, input: Bytes, _now: Moment) {
        if matches!(self.state, State::Closed) {
            return;
        }
        if let Err(violation) = self.take(&input) {
            self.abort(uri::PROTOCOL_VIOLATION, &violation.to_string());
        }
    }

    fn awaits_answer(&self) -> bool {
        matches!(self.state, State::Challenged { .. })
    }

    fn logged_in(&mut self, result: Result<LoginReply, LoginRefusal>) {
        self.login_ended(result);
    }

    fn opened(&mut self, result: Result<(), OpenRefusal>) {
        let State::Opening { realm, who, .. } = &self.state else { return };
        let realm = realm.clone();
        match result {
            Ok(()) => {
                let welcome = reply::welcome(self.serializer, self.session, &realm, who);
                self.send(welcome);
                self.state = State::Open { realm };
            }
            Err(
                refusal @ (OpenRefusal::Unavailable
                | OpenRefusal::Stopping
                | OpenRefusal::TooManyConnections
                | OpenRefusal::NoRoom),
            ) => {
                let uri = uri::of_open_refusal(refusal);
                self.part(Farewell::Again(format!("{uri}: {refusal}")));
            }
            Err(
                refusal @ (OpenRefusal::NoSuchRealm
                | OpenRefusal::QuotaReached
                | OpenRefusal::TooFast
                | OpenRefusal::LoginNeeded
                | OpenRefusal::Banned
                | OpenRefusal::WillNotAllowed),
            ) => {
                self.abort(uri::of_open_refusal(refusal), &refusal.to_string());
            }
        }
    }

    fn answered(&mut self, answer: Answer) {
        if !self.is_open() {
            return;
        }
        while let Some(((code, request), outcome)) = self.publishes.next_answered(&answer) {
            match outcome {
                Ok(position) => self.grant(code::PUBLISHED, request, Some(position.0)),
                Err(error) => {
                    let uri = uri::of_publish_error(error);
                    self.refuse(code, request, uri, &error.to_string());
                }
            }
        }
    }

    fn decided(&mut self, sequence: u64, outcome: Result<Stored, Refusal>) {
        if !self.is_open() {
            return;
        }
        let Some(what) = self.publishes.decided(sequence) else { return };
        match (outcome, what) {
            (Err(refusal), _) => {
                let Some((code, request)) = what.request() else { return };
                self.refuse(code, request, uri::of_refusal(refusal), &refusal.to_string());
            }
            (Ok(_), Undecided::Publish(None)) => {}
            (Ok(stored), Undecided::Publish(Some(request))) => {
                self.grant(code::PUBLISHED, request, Some(stored.position.0));
            }
            (Ok(stored), Undecided::Register { request, concurrency }) => {
                self.registered(request, concurrency, stored.position.into());
            }
            (Ok(_), Undecided::Unregister { request, registration }) => {
                self.unregistered(request, registration);
            }
        }
    }

    fn told(&mut self, told: CallMessage) {
        if self.is_open() {
            self.told_of_calls(&told);
        }
    }

    fn subscribed(&mut self, id: SubscriptionId, result: Result<(), SubscribeError>) {
        if !self.is_open() {
            return;
        }
        for request in self.subscriptions.subscribed(id, result.is_ok()) {
            let message = match result {
                Ok(()) => reply::granted(self.serializer, code::SUBSCRIBED, request, Some(id.0)),
                Err(error) => {
                    let position = match error {
                        SubscribeError::Gone { oldest } => Some(("oldest", oldest)),
                        SubscribeError::Ahead { last } => Some(("last", last)),
                        SubscribeError::TooMany
                        | SubscribeError::NodeFull
                        | SubscribeError::QuotaReached
                        | SubscribeError::NoRoom
                        | SubscribeError::NotAllowed
                        | SubscribeError::Unavailable => None,
                    };
                    let (uri, sentence) = (uri::of_subscribe_error(error), error.to_string());
                    let failure = Failure { uri, sentence: &sentence, position };
                    reply::error(self.serializer, code::SUBSCRIBE, request, &failure)
                }
            };
            self.send(message);
        }
    }

    fn unsubscribed(&mut self, id: SubscriptionId) {
        if !self.is_open() {
            return;
        }
        if let Some(request) = self.subscriptions.unsubscribed(id) {
            self.grant(code::UNSUBSCRIBED, request, None);
        }
    }

    fn ended(&mut self, id: SubscriptionId) {
        if !self.is_open() {
            return;
        }
        match self.subscriptions.ended(id) {
            Ended::Unasked => self.send(reply::ended(self.serializer, id)),
            Ended::Asked(request) => self.grant(code::UNSUBSCRIBED, request, None),
            Ended::Unknown => {}
        }
    }

    fn deliver(&mut self, delivery: Delivery<'_>) {
        let event = delivery.event;
        // A retained value is shown to its publisher, too: it may want to know the current state.
        let is_own = event.exclude_me && event.publisher == self.session && !delivery.retained;
        if !self.is_open() || is_own {
            return;
        }
        let topic = self.delivered_topics.text(self.serializer, delivery.topic);
        let shown = Shown {
            position: delivery.position,
            id: delivery.id,
            topic: &topic,
            publisher: event.disclose_me.then_some(event.publisher),
            payload: to_wamp(&event.payload, self.serializer),
        };
        for id in delivery.subscriptions {
            let Some(kind) = self.subscriptions.standing(*id) else { continue };
            let retained = delivery.retained || kind.changes;
            let message = reply::event(self.serializer, *id, retained, &shown);
            self.output_size += message.len();
            self.output.push_back(message.into());
        }
    }

    fn serializer(&self) -> Option<Serializer> {
        Some(self.serializer)
    }

    fn sends_each(&self) -> bool {
        true
    }

    fn allow(&mut self, allowed: Allowed) {
        self.publishes.allow(allowed);
    }

    fn can_deliver(&self) -> bool {
        self.is_open()
    }

    fn deadline(&self) -> Option<Moment> {
        match self.state {
            State::Connected { deadline }
            | State::Challenged { deadline, .. }
            | State::LoggingIn { deadline, .. }
            | State::Opening { deadline, .. } => Some(deadline),
            State::Open { .. } | State::Closed => None,
        }
    }

    fn tick(&mut self, now: Moment) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.state {
            // The client has sent its HELLO in time; the node has not opened the session.
            State::Opening { .. } => self.opened(Err(OpenRefusal::Unavailable)),
            State::LoggingIn { .. } => self.login_ended(Err(LoginRefusal::Busy)),
            _ => self.end(EndReason::HandshakeTimeout),
        }
    }

    fn end(&mut self, reason: EndReason) {
        let (uri, sentence) = uri::of_end(reason);
        match (&self.state, reason) {
            (State::Closed, _) => {}
            (_, EndReason::Shutdown) => self.part(Farewell::Away(format!("{uri}: {sentence}"))),
            (
                _,
                EndReason::Unavailable
                | EndReason::Lost
                | EndReason::TooSlow
                | EndReason::FellBehind { .. },
            ) => {
                self.part(Farewell::Again(format!("{uri}: {sentence}")));
            }
            (
                State::Open { .. },
                EndReason::TakenOver
                | EndReason::Revoked
                | EndReason::Banned
                | EndReason::Expired
                | EndReason::HandshakeTimeout,
            ) => {
                self.send(reply::goodbye(self.serializer, uri, Some(&sentence)));
                self.close();
            }
            (_, EndReason::Revoked | EndReason::Banned | EndReason::Expired) => {
                self.abort(uri::NOT_AUTHORIZED, &sentence)
            }
            (_, EndReason::TakenOver | EndReason::HandshakeTimeout) => self.abort(uri, &sentence),
        }
    }

    fn poll_dropped(&mut self) -> Option<Dropped> {
        self.dropped.take()
    }

    fn farewell(&self) -> Farewell {
        self.farewell.clone()
    }

    fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    fn rest(&mut self) {
        self.requests.shrink_to_fit();
        self.output.shrink_to_fit();
    }

    fn poll_output(&mut self) -> Option<Bytes> {
        let message = self.output.pop_front()?;
        self.output_size -= message.len();
        Some(message)
    }

    fn output_size(&self) -> usize {
        self.output_size
    }

    fn session(&self) -> SessionId {
        self.session
    }
}

#[cfg(test)]
mod tests;

//! The MQTT gate: one client's session, MQTT 3.1, 3.1.1 or 5, as a state machine without I/O.
//!
//! ```text
//! Connecting --CONNECT--> Opening --opened--> Open --> Closed
//! packet, outbox                  bytes in and out, requests
//! admission, login                which clients are admitted, and as what
//! session                         an open session: publishes (topics, exchanges), subscriptions (filter), window
//! ```
//!
//! Invariant: a PUBACK is sent only for an event that is durable and has its position. What can't be done as the protocol
//! promises (sessions beyond the limits) is refused as the protocol defines, never silently lost.
//!
//! A protocol violation ends the session. An MQTT 5 client gets a DISCONNECT with reason code and text, an older one
//! a closed connection; the log gets [`MqttGate::close_reason`] in both cases. A refused CONNECT is answered in the
//! client's version of the protocol.
//!
//! Deliberately absent: whether a password is right (`server`), the message expiry interval (`packet::publish`).

mod admission;
mod ending;
mod exchanges;
mod filter;
mod login;
mod outbox;
pub mod packet;
mod publishes;
mod session;
mod subscriptions;
mod topics;
mod window;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use self::admission::{Client, Coming, Who};
use self::login::Exchange;
use self::outbox::Outbox;
use self::packet::answer::{self, Accepted};
use self::packet::auth::SCRAM;
use self::packet::codec::{read_connect, ConnectError};
use self::packet::{Frame, Incoming, Reason, Version, Violation};
use self::session::Session;

use super::{
    Delivery, Dropped, EndReason, Gate, Handover, MergingRealms, OpenRefusal, Request, Resumed,
};
use crate::gate::Allowed;
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

/// Largest packet accepted before the session is open, in bytes: five fields of MQTT's maximum length (client
/// identifier, topic and payload of a will, user name, password), and properties.
const CONNECT_PACKET: usize = 512 << 10;

const _: () = assert!(5 * (2 + limits::MQTT_TEXT) + (128 << 10) < CONNECT_PACKET);

/// Bytes a client may send while its CONNECT is being decided.
const HELD_BYTES: usize = limits::CLIENT_MESSAGE + limits::SESSION_READ;

/// The reason code of a DISCONNECT without a reason.
const NORMAL_DISCONNECTION: u8 = 0x00;

/// An operator's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttConfig {
    /// The realm of clients whose user name names none.
    pub default_realm: Realm,
    /// The existing realms.
    pub realms: Arc<BTreeSet<Realm>>,
    /// The realms in which retained objects are always merged.
    pub merging: MergingRealms,
}

/// One client's MQTT session.
#[derive(Debug)]
pub struct MqttGate {
    config: Arc<MqttConfig>,
    session: SessionId,
    begun: Moment,
    now: Moment,
    /// When something last came from the client since its session opened.
    heard: Option<Moment>,
    has_users: bool,
    permissions: Permissions,
    /// The client has shown a certificate that names its user.
    is_certified: bool,
    /// There if the client logs in by enhanced authentication.
    exchange: Option<Box<Exchange>>,
    state: State,
    out: Outbox,
}

#[derive(Debug)]
enum State {
    /// Nothing was received yet.
    Connecting,
    /// The CONNECT is accepted if the node opens the session.
    Opening(Box<Opening>),
    Open(Box<Session>),
    Closed(Box<Closed>),
}

/// What is left of a session.
#[derive(Debug)]
struct Closed {
    reason: Option<String>,
    oversized: u64,
    handover: Handover,
}

#[derive(Debug)]
struct Opening {
    client: Client,
    /// Input that the client sent after its CONNECT without waiting, as it may.
    held: Vec<Bytes>,
    held_bytes: usize,
    resumed: Option<Resumed>,
    /// There until it has logged in.
    coming: Option<Coming>,
    /// By which the client knows the node.
    proof: Option<String>,
}

impl MqttGate {
    /// A gate for a connection that was accepted just now.
    #[must_use]
    pub fn new(config: impl Into<Arc<MqttConfig>>, session: SessionId, now: Moment) -> Self {
        Self {
            config: config.into(),
            session,
            begun: now,
            now,
            heard: None,
            state: State::Connecting,
            out: Outbox::new(),
            has_users: false,
            permissions: Permissions::default(),
            is_certified: false,
            exchange: None,
        }
    }

    /// Sets whether the cluster has users: a client with a user name then has to give its password.
    #[must_use]
    pub fn with_users(self, has_users: bool) -> Self {
        Self { has_users, ..self }
    }

    /// Sets whether the client has shown a certificate that names its user, whatever its CONNECT says.
    #[must_use]
    pub fn with_certificate(self, is_certified: bool) -> Self {
        Self { is_certified, ..self }
    }

    /// Why the session ended, for the server's log. `None` while it is open, and if the client disconnected.
    #[must_use]
    pub fn close_reason(&self) -> Option<&str> {
        match &self.state {
            State::Closed(closed) => closed.reason.as_deref(),
            _ => None,
        }
    }

    /// Largest packet in bytes that is accepted now.
    fn max_packet(&self) -> usize {
        match self.state {
            State::Connecting => CONNECT_PACKET,
            _ => limits::CLIENT_MESSAGE,
        }
    }

    /// How many messages were not sent because they exceed the client's maximum packet size.
    #[must_use]
    pub fn oversized(&self) -> u64 {
        match &self.state {
            State::Open(session) => session.oversized,
            State::Closed(closed) => closed.oversized,
            State::Connecting | State::Opening(_) => 0,
        }
    }

    fn process(&mut self, input: &Bytes) {
        let mut at = 0;
        while at < input.len() {
            let is_challenged = self.is_challenged();
            if let (State::Opening(opening), false) = (&mut self.state, is_challenged) {
                // If this input is invalid, that is found after the input before it is handled.
                if let Err(violation) = opening.hold(input.slice(at..)) {
                    self.fail(&violation);
                }
                return;
            }
            let frame = match packet::frame(input, at, self.max_packet()) {
                Ok(Some(frame)) => frame,
                Ok(None) => return self.fail(&Violation::malformed("a packet is cut off")),
                Err(error) => return self.fail(&error.into()),
            };
            at = frame.whole.end;
            match &mut self.state {
                State::Connecting => self.connect(&frame, input),
                State::Open(session) => {
                    match frame.read(input, session.client.version) {
                        Ok(Incoming::Disconnect { reason, expiry }) => {
                            return self.leave(reason, expiry)
                        }
                        Ok(Incoming::Auth(auth)) => self.authenticate(auth),
                        Ok(packet) => session.handle(packet, &mut self.permissions, &mut self.out),
                        Err(violation) => Err(violation),
                    }
                    .unwrap_or_else(|violation| self.fail(&violation));
                }
                State::Opening(_) => {
                    match frame.read(input, Version::V5) {
                        Ok(Incoming::Disconnect { .. }) => return self.close(None),
                        Ok(Incoming::Auth(auth)) => self.authenticate(auth),
                        Ok(_) => Err(Violation::protocol("a packet before the login has ended")),
                        Err(violation) => Err(violation),
                    }
                    .unwrap_or_else(|violation| self.fail(&violation));
                }
                State::Closed(_) => return,
            }
        }
    }

    fn connect(&mut self, frame: &Frame, input: &Bytes) {
        if !frame.is_connect() {
            return self.close(Some("the first packet is not a CONNECT".to_owned()));
        }
        let connect = match read_connect(frame.first, &input[frame.body.clone()]) {
            Ok(connect) => connect,
            Err(ConnectError::Foreign) => {
                return self.close(Some("the first packet is not MQTT".to_owned()));
            }
            Err(ConnectError::Level(version, level)) => {
                let text = format!("MQTT protocol level {level} is not supported: use 3, 4 or 5");
                let violation = Violation::new(Reason::UnsupportedVersion, text);
                return self.refuse(version, &violation);
            }
            Err(ConnectError::Refused(version, violation)) => {
                let is_broken =
                    matches!(violation.reason, Reason::MalformedPacket | Reason::ProtocolError);
                return match is_broken && !version.is_5() {
                    false => self.refuse(version, &violation),
                    // Before MQTT 5, a malformed CONNECT has no answer (MQTT 3.1.1 section 4.8).
                    true => self.close(Some(violation.text.into_owned())),
                };
            }
        };
        let version = connect.version;
        let who = Who { has_users: self.has_users, is_certified: self.is_certified };
        self.out.max_packet = connect.max_packet.map_or(usize::MAX, |size| size as usize);
        match admission::admit(connect, (&self.config, who), self.session) {
            Ok(admitted) => self.admitted(admitted),
            Err(violation) => self.refuse(version, &violation),
        }
    }

    /// Refuses a CONNECT.
    fn refuse(&mut self, version: Version, violation: &Violation) {
        let reason = match violation.reason {
            // Not among the codes of a CONNACK (MQTT 5 table 3-1).
            Reason::ServerShuttingDown | Reason::SessionTakenOver => Reason::ServerUnavailable,
            Reason::AdministrativeAction => Reason::Banned,
            reason => reason,
        };
        let refused = self.out.put_explained(Some(&violation.text), |text, output| {
            answer::connack_refused(version, reason, text, output);
        });
        // If even this is too large for the client, closing the connection is the only answer.
        drop(refused);
        // A client that is not admitted leaves no will.
        self.close_dropping(Some(violation.text.to_string()), true);
    }

    /// Ends the session because of a violation, or because this node ends it.
    fn fail(&mut self, violation: &Violation) {
        self.fail_dropping(violation, false);
    }

    fn fail_dropping(&mut self, violation: &Violation, drop_will: bool) {
        match &self.state {
            State::Opening(opening) => return self.refuse(opening.client.version, violation),
            State::Open(session) if session.client.version.is_5() => {
                let told = self.out.put_explained(Some(&violation.text), |text, output| {
                    answer::disconnect(violation.reason, text, output);
                });
                // As in `refuse`.
                drop(told);
            }
            State::Closed(_) => return,
            State::Connecting | State::Open(_) => {}
        }
        self.close_dropping(Some(violation.text.to_string()), drop_will);
    }

    /// The client sent DISCONNECT. Only the normal one drops its will (MQTT 5 section 3.14.4).
    fn leave(&mut self, reason: u8, expiry: Option<u32>) {
        if let State::Open(session) = &mut self.state {
            if session.client.expiry == 0 && expiry.is_some_and(|seconds| seconds > 0) {
                let text = "a session that ends with its connection can't be persistent after all";
                return self.fail(&Violation::protocol(text));
            }
            session.expiry = expiry;
        }
        let failed = reason >= 0x80;
        let why = failed.then(|| format!("the client disconnected with reason 0x{reason:02x}"));
        self.close_dropping(why, reason == NORMAL_DISCONNECTION);
    }

    fn close(&mut self, why: Option<String>) {
        self.close_dropping(why, false);
    }

    fn close_dropping(&mut self, why: Option<String>, drop_will: bool) {
        let (oversized, handover) = (self.oversized(), self.handover());
        self.state = State::Closed(Box::new(Closed { reason: why, oversized, handover }));
        self.out.requests.push_back(Request::Close { drop_will });
    }

    /// Runs something that may end the session.
    fn in_session(
        &mut self,
        step: impl FnOnce(&mut Session, &mut Outbox) -> Result<(), Violation>,
    ) {
        if let State::Open(session) = &mut self.state {
            if let Err(violation) = step(session, &mut self.out) {
                self.fail(&violation);
            }
        }
    }
}

impl Opening {
    fn hold(&mut self, input: Bytes) -> Result<(), Violation> {
        self.held_bytes += input.len();
        if self.held_bytes > HELD_BYTES {
            return Err(Violation::new(
                Reason::QuotaExceeded,
                "too much was sent before the CONNECT was answered",
            ));
        }
        self.held.push(input);
        Ok(())
    }
}

impl Gate for MqttGate {
    fn permissions(&mut self) -> &mut Permissions {
        &mut self.permissions
    }

    fn receive(&mut self, input: Bytes, now: Moment) {
        self.now = now;
        self.heard = Some(now);
        self.process(&input);
    }

    fn awaits_answer(&self) -> bool {
        matches!(self.state, State::Opening(_)) && self.is_challenged()
    }

    fn logged_in(&mut self, result: Result<LoginReply, LoginRefusal>) {
        self.login_ended(result);
    }

    fn opened(&mut self, result: Result<(), OpenRefusal>) {
        let State::Opening(opening) = &mut self.state else { return };
        let held = std::mem::take(&mut opening.held);
        let (resumed, proof) = (opening.resumed.take(), opening.proof.take());
        let client = opening.client.clone();
        if let Err(refusal) = result {
            let reason = match refusal {
                OpenRefusal::NoSuchRealm => Reason::BadUserNameOrPassword,
                OpenRefusal::LoginNeeded | OpenRefusal::WillNotAllowed => Reason::NotAuthorized,
                OpenRefusal::Banned => Reason::Banned,
                OpenRefusal::TooManyConnections | OpenRefusal::NoRoom => Reason::ServerBusy,
                OpenRefusal::QuotaReached => Reason::QuotaExceeded,
                OpenRefusal::TooFast => Reason::ConnectionRateExceeded,
                OpenRefusal::Unavailable | OpenRefusal::Stopping => Reason::ServerUnavailable,
            };
            let violation = Violation::new(reason, format!("{}: {refusal}", client.realm));
            return self.refuse(client.version, &violation);
        }
        let version = client.version;
        let unkept = resumed.is_none() && client.expiry > 0;
        if unkept && !version.is_5() {
            let text = "as many sessions as there is room for outlive their connections already";
            return self.refuse(version, &Violation::new(Reason::ServerUnavailable, text));
        }
        let accepted = Accepted {
            receive_maximum: publishes::RECEIVE_MAXIMUM,
            max_packet: limits::CLIENT_MESSAGE as u32,
            session_present: resumed.as_ref().is_some_and(|resumed| resumed.present),
            session_ends_with_connection: unkept,
            assigned: client.assigned.then_some(client.name.as_str()),
            authentication: proof.as_deref().map(|proof| (SCRAM, proof)),
        };
        let told = self.out.put(|output| answer::connack_accepted(version, &accepted, output));
        // The client's silence counts from here; the driver's next tick supplies the time.
        self.heard = None;
        let merges = self.config.merging.contains(&client.realm);
        let mut session = Session::new(self.session, client, merges);
        if let Some(resumed) = resumed {
            session.resume(resumed, &mut self.out);
        }
        self.state = State::Open(Box::new(session));
        if let Err(violation) = told {
            return self.close(Some(violation.text.into_owned()));
        }
        for input in held {
            self.process(&input);
        }
    }

    fn resume(&mut self, resumed: Resumed) {
        if let State::Opening(opening) = &mut self.state {
            opening.resumed = Some(resumed);
        }
    }

    fn noted(&mut self, room: bool) {
        self.in_session(|session, out| session.subscriptions.noted(room, out));
    }

    fn handover(&self) -> Handover {
        match &self.state {
            State::Open(session) => session.handover(),
            State::Closed(closed) => closed.handover.clone(),
            State::Connecting | State::Opening(_) => Handover::default(),
        }
    }

    fn answered(&mut self, answer: Answer) {
        self.in_session(|session, out| session.publishes.answered(answer, out));
    }

    fn decided(&mut self, sequence: u64, outcome: Result<Stored, Refusal>) {
        let refusal = outcome.err();
        self.in_session(|session, out| session.publishes.decided(sequence, refusal, out));
    }

    fn subscribed(&mut self, id: SubscriptionId, result: Result<(), SubscribeError>) {
        self.in_session(|session, out| session.subscriptions.subscribed(id, result, out));
    }

    fn unsubscribed(&mut self, id: SubscriptionId) {
        self.in_session(|session, out| session.subscriptions.over(id, out));
    }

    fn ended(&mut self, id: SubscriptionId) {
        self.in_session(|session, out| session.subscriptions.over(id, out));
    }

    fn deliver(&mut self, delivery: Delivery<'_>) {
        if let State::Open(session) = &mut self.state {
            session.deliver(delivery, &mut self.out);
        }
    }

    fn can_deliver(&self) -> bool {
        matches!(&self.state, State::Open(session) if session.can_deliver())
    }

    fn allow(&mut self, allowed: Allowed) {
        if let State::Open(session) = &mut self.state {
            session.allow(allowed);
        }
    }

    fn alive(&mut self, now: Moment) {
        self.now = now;
        self.heard = Some(now);
    }

    fn deadline(&self) -> Option<Moment> {
        match &self.state {
            State::Connecting | State::Opening(_) => {
                Some(Moment(self.begun.0 + limits::HANDSHAKE.as_millis() as u64))
            }
            State::Open(session) if session.client.keep_alive > 0 => {
                // One and a half times the client's own interval (MQTT-3.1.2-22).
                let silence = u64::from(session.client.keep_alive) * 1500;
                Some(self.heard.map_or(self.now, |heard| Moment(heard.0 + silence)))
            }
            State::Open(_) | State::Closed(_) => None,
        }
    }

    fn tick(&mut self, now: Moment) {
        let due = self.deadline().is_some_and(|deadline| deadline <= now);
        self.now = now;
        if !due {
            return;
        }
        if let State::Open(_) = &self.state {
            if self.heard.is_none() {
                self.heard = Some(now);
                return;
            }
            let silent = "nothing came for one and a half times the keep-alive interval";
            return self.fail(&Violation::new(Reason::KeepAliveTimeout, silent));
        }
        match self.state {
            // The client has sent its CONNECT in time; the node has not opened the session.
            State::Opening(ref opening) if opening.coming.is_some() && !self.is_challenged() => {
                self.login_ended(Err(LoginRefusal::Busy));
            }
            State::Opening(ref opening) if opening.coming.is_none() => {
                self.opened(Err(OpenRefusal::Unavailable));
            }
            _ => self.end(EndReason::HandshakeTimeout),
        }
    }

    fn end(&mut self, reason: EndReason) {
        // Nobody hears from a banned client any more.
        self.fail_dropping(&ending::of_end(reason), reason == EndReason::Banned);
    }

    fn give_up(&mut self, packet_id: u16) {
        if let State::Open(session) = &mut self.state {
            session.give_up(packet_id);
        }
    }

    fn poll_dropped(&mut self) -> Option<Dropped> {
        self.out.dropped.take().map(|dropped| *dropped)
    }

    fn poll_request(&mut self) -> Option<Request> {
        self.out.requests.pop_front()
    }

    fn rest(&mut self) {
        self.out.rest();
    }

    fn poll_output(&mut self) -> Option<Bytes> {
        let output = &mut self.out.output;
        (!output.is_empty()).then(|| output.split().freeze())
    }

    fn output_size(&self) -> usize {
        self.out.output.len()
    }

    fn session(&self) -> SessionId {
        self.session
    }
}

#[cfg(test)]
mod tests;

//! From HELLO to WELCOME: which client comes, and whether it may.
//!
//! As long as the cluster has no users, every client is anonymous. Then a client logs in with a password, by the method
//! `ticket` (WAMP advanced profile, "Ticket-based Authentication"), or is anonymous, which all nodes admit only if there is
//! such a user.
//!
//! Invariant: nothing is asked of the node before the HELLO is complete, and a client has as long for its whole handshake as for
//! its HELLO.
//!
//! Deliberately absent: whether the password is right, which takes long to find out (`server`).

use super::message::{Message, Violation};
use super::options::{self, Offered};
use super::subprotocol::subprotocol;
use super::{calls, reply, uri, State, WampGate};
use crate::gate::details::{self, Authenticated, Transport, TICKET};
use crate::gate::{Farewell, Request};
use crate::types::access::{Identity, Login, LoginRefusal, Secret, ANONYMOUS};
use crate::types::act::Join;
use crate::types::moment::Moment;
use crate::types::topic::Realm;

impl WampGate {
    /// Takes a message of the handshake, or one that comes at the wrong time.
    pub(super) fn handshake(&mut self, message: Message<'_>) -> Result<(), Violation> {
        let when = match (&self.state, &message) {
            (State::Connected { deadline }, Message::Hello { realm, details }) => {
                return self.hello(*deadline, realm, details);
            }
            (State::Challenged { deadline, realm, user }, Message::Authenticate { signature }) => {
                let (deadline, realm, user) = (*deadline, realm.clone(), user.clone());
                self.authenticate(deadline, realm, user, signature);
                return Ok(());
            }
            (_, Message::Authenticate { .. }) => "without a CHALLENGE",
            (State::Connected { .. }, _) => "before HELLO",
            (State::Challenged { .. }, _) => "before AUTHENTICATE",
            (State::LoggingIn { .. } | State::Opening { .. }, _) => "before WELCOME",
            (State::Open { .. } | State::Closed, _) => "a second time",
        };
        Err(Violation::Unexpected { message: message.name(), when })
    }

    fn hello(&mut self, deadline: Moment, name: &str, details: &[u8]) -> Result<(), Violation> {
        let realm = match Realm::new(name) {
            Ok(realm) => realm,
            Err(error) => {
                self.abort(uri::INVALID_URI, &error.to_string());
                return Ok(());
            }
        };
        let Offered { anonymous, ticket, authid } = options::offered(self.serializer, details)?;
        self.calls.interrupts = calls::announces_canceling(self.serializer, details)?;
        match authid.filter(|_| ticket && self.has_users) {
            Some(user) => {
                self.send(reply::challenge(self.serializer, TICKET));
                self.state = State::Challenged { deadline, realm, user };
            }
            None if anonymous => {
                self.open(deadline, realm, Authenticated::anonymous(ANONYMOUS), None);
            }
            None => {
                let sentence = match (self.has_users, ticket) {
                    (true, true) => "name the user with authid",
                    (true, false) => {
                        "offer the authmethod \"ticket\" with an authid, or \"anonymous\""
                    }
                    (false, _) => {
                        "this cluster has no users; offer the authmethod \"anonymous\", or none"
                    }
                };
                self.abort(uri::NO_MATCHING_AUTH_METHOD, sentence);
            }
        }
        Ok(())
    }

    /// The client answers the challenge.
    fn authenticate(&mut self, deadline: Moment, realm: Realm, user: String, ticket: &str) {
        let password = Secret(ticket.as_bytes().to_vec().into());
        self.requests.push_back(Request::Login(Login { user, password }));
        self.state = State::LoggingIn { deadline, realm };
    }

    pub(super) fn login_ended(&mut self, result: Result<Identity, LoginRefusal>) {
        let State::LoggingIn { deadline, realm } = &self.state else { return };
        let (deadline, realm) = (*deadline, realm.clone());
        match result {
            Ok(identity) => {
                let who = Authenticated::with_password(&identity);
                self.open(deadline, realm, who, Some(identity.user));
            }
            Err(refusal @ LoginRefusal::Wrong) => {
                self.abort(uri::AUTHENTICATION_FAILED, &refusal.to_string());
            }
            Err(refusal @ LoginRefusal::Busy) => {
                self.part(Farewell::Again(format!("{}: {refusal}", uri::UNAVAILABLE)));
            }
        }
    }

    fn open(&mut self, deadline: Moment, realm: Realm, who: Authenticated, user: Option<String>) {
        let transport = Transport { kind: "websocket", protocol: subprotocol(self.serializer) };
        let details = details::describe(self.session, &who, &transport);
        let join = Join { client: None, will: None, details };
        self.requests.push_back(Request::Open { realm: realm.clone(), join, user });
        self.state = State::Opening { deadline, realm, who: Box::new(who) };
    }
}

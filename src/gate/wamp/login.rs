//! From HELLO to WELCOME: which client comes, and whether it may.
//!
//! As long as the cluster has no users, every client is anonymous. Then a client logs in by one of the methods that it offers (WAMP
//! advanced profile, "Authentication"), or is anonymous, which all nodes admit only if there is such a user.
//!
//! Invariant: nothing is asked of the node before the HELLO is complete, and a client has as long for its whole handshake as for
//! its HELLO.
//!
//! Deliberately absent: by which method, and whether the answer is right, which takes long to find out (`server`).

use super::message::{Message, Violation};
use super::options::{self, Offered};
use super::subprotocol::subprotocol;
use super::{calls, reply, uri, State, WampGate};
use crate::gate::details::{self, Authenticated, Transport};
use crate::gate::{Farewell, Request};
use crate::types::access::{LoginRefusal, Secret, ANONYMOUS};
use crate::types::act::Join;
use crate::types::login::{LoginReply, LoginStep, Method};
use crate::types::moment::Moment;
use crate::types::topic::Realm;

impl WampGate {
    /// Takes a message of the handshake, or one that comes at the wrong time.
    pub(super) fn handshake(&mut self, message: Message<'_>) -> Result<(), Violation> {
        let when = match (&self.state, &message) {
            (State::Connected { deadline }, Message::Hello { realm, details }) => {
                return self.hello(*deadline, realm, details);
            }
            (State::Challenged { deadline, realm }, Message::Authenticate { signature, extra }) => {
                let state = State::LoggingIn { deadline: *deadline, realm: realm.clone() };
                let extra = options::extra(self.serializer, extra)?;
                let signature = Secret(signature.as_bytes().to_vec().into());
                self.log_in(LoginStep::Answer { signature, extra }, state);
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
        let Offered { anonymous, methods, authid, extra } =
            options::offered(self.serializer, details)?;
        self.calls.interrupts = calls::announces_canceling(self.serializer, details)?;
        let has_method = !methods.is_empty();
        // A certificate has a name of its own.
        let needs_no_name = methods.contains(&Method::Tls);
        let authid = authid.or_else(|| needs_no_name.then(String::new));
        match authid.filter(|_| has_method && self.has_users) {
            Some(user) => {
                let state = State::LoggingIn { deadline, realm };
                self.log_in(LoginStep::Hello { user, methods, extra }, state);
            }
            None if anonymous => {
                let who = Authenticated::anonymous(ANONYMOUS);
                self.open(deadline, realm, (who, None), None);
            }
            None => {
                let sentence = match (self.has_users, has_method) {
                    (true, true) => "name the user with authid".to_owned(),
                    (true, false) => {
                        let names = Method::ALL.map(|method| format!("\"{}\"", method.name()));
                        format!(
                            "offer one of the authmethods {} with an authid, or \"anonymous\"",
                            names.join(", ")
                        )
                    }
                    (false, _) => {
                        "this cluster has no users; offer the authmethod \"anonymous\", or none"
                            .to_owned()
                    }
                };
                self.abort(uri::NO_MATCHING_AUTH_METHOD, &sentence);
            }
        }
        Ok(())
    }

    fn log_in(&mut self, step: LoginStep, state: State) {
        self.requests.push_back(Request::Login(step));
        self.state = state;
    }

    pub(super) fn login_ended(&mut self, result: Result<LoginReply, LoginRefusal>) {
        let State::LoggingIn { deadline, realm } = &self.state else { return };
        let (deadline, realm) = (*deadline, realm.clone());
        match result {
            Ok(LoginReply::Challenge(challenge)) => {
                self.send(reply::challenge(self.serializer, &challenge));
                self.state = State::Challenged { deadline, realm };
            }
            // Only MQTT's clients begin with SCRAM's own message.
            Ok(LoginReply::Data(_)) => {}
            Ok(LoginReply::Accepted { identity, proof }) => {
                let who = Authenticated::of(&identity);
                self.open(deadline, realm, (who, proof), Some(identity.user));
            }
            Err(refusal @ (LoginRefusal::Wrong | LoginRefusal::Misused(_))) => {
                self.abort(uri::AUTHENTICATION_FAILED, &refusal.to_string());
            }
            Err(refusal @ LoginRefusal::Busy) => {
                self.part(Farewell::Again(format!("{}: {refusal}", uri::UNAVAILABLE)));
            }
        }
    }

    /// By the proof, the client knows the node.
    fn open(
        &mut self,
        deadline: Moment,
        realm: Realm,
        (who, proof): (Authenticated, Option<String>),
        user: Option<String>,
    ) {
        let transport = Transport { kind: "websocket", protocol: subprotocol(self.serializer) };
        let details = details::describe(self.session, &who, &transport);
        let join = Join { client: None, will: None, details };
        self.requests.push_back(Request::Open { realm: realm.clone(), join, user });
        self.state = State::Opening { deadline, realm, who: Box::new((who, proof)) };
    }
}

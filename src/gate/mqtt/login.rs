//! From a CONNECT that is in order to the request for its session, with a login in between where the cluster has users; and logins of
//! an open session, which MQTT 5 calls re-authentication.
//!
//! A client logs in with its password, or by MQTT 5's enhanced authentication (section 4.12) with SCRAM-SHA-256 (RFC 5802): the first
//! message comes with the CONNECT, the last one goes with the CONNACK, and those between are AUTH packets.
//!
//! Invariant: a session is one user's as long as it lasts. One whose client fails to log in again ends.
//!
//! Deliberately absent: whether a password or a proof is right (`server`).

use super::admission::{Admitted, Coming};
use super::packet::answer;
use super::packet::auth::{self, Auth, SCRAM};
use super::packet::{Reason, Version, Violation};
use super::{MqttGate, Opening, State};
use crate::gate::Request;
use crate::types::access::{Identity, LoginRefusal};
use crate::types::login::{Extra, LoginReply, LoginStep};
use crate::types::topic::Realm;

/// Where a client stands that logs in by enhanced authentication.
#[derive(Debug)]
pub(super) struct Exchange {
    turn: Turn,
    /// Once it has logged in.
    user: String,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nobody's: the client may log in again.
    Done,
    /// The driver has been asked.
    Driver,
    /// The client's, which has been sent an AUTH.
    Client,
}

impl MqttGate {
    pub(super) fn admitted(&mut self, Admitted { client, coming, login }: Admitted) {
        let coming = match login {
            Some(step) => {
                if let LoginStep::Scram(_) = step {
                    let exchange = Exchange { turn: Turn::Driver, user: String::new() };
                    self.exchange = Some(Box::new(exchange));
                }
                self.out.requests.push_back(Request::Login(step));
                Some(coming)
            }
            None => {
                self.open(client.realm.clone(), coming, None);
                None
            }
        };
        let (held, resumed, proof) = (Vec::new(), None, None);
        let opening = Opening { client, held, held_bytes: 0, resumed, coming, proof };
        self.state = State::Opening(Box::new(opening));
    }

    fn open(&mut self, realm: Realm, coming: Coming, user: Option<String>) {
        self.out.requests.push_back(match coming {
            Coming::Join(join) => Request::Open { realm, join, user },
            Coming::Attach(attach) => Request::Attach { realm, attach, user },
        });
    }

    /// Whether the client has been sent an AUTH that it has to answer.
    pub(super) fn is_challenged(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.turn == Turn::Client)
    }

    /// The client sent AUTH.
    pub(super) fn authenticate(&mut self, auth: Auth) -> Result<(), Violation> {
        let Some(exchange) = &mut self.exchange else {
            let text = "AUTH was sent, but no authentication method was agreed on";
            return Err(Violation::new(Reason::BadAuthenticationMethod, text));
        };
        if auth.authentication.method != SCRAM {
            let text = "an AUTH names another authentication method than the CONNECT";
            return Err(Violation::protocol(text));
        }
        let data = auth.authentication.data;
        let step = match (exchange.turn, auth.reason) {
            (Turn::Client, auth::CONTINUE) => {
                LoginStep::Answer { signature: data, extra: Extra::default() }
            }
            (Turn::Done, auth::AGAIN) => LoginStep::Scram(data),
            _ => return Err(Violation::protocol("an AUTH at a time when none is expected")),
        };
        exchange.turn = Turn::Driver;
        self.out.requests.push_back(Request::Login(step));
        Ok(())
    }

    pub(super) fn login_ended(&mut self, result: Result<LoginReply, LoginRefusal>) {
        let handled = match result {
            // That is for WAMP's clients.
            Ok(LoginReply::Challenge(_)) => Ok(()),
            Ok(LoginReply::Data(data)) => self.go_on(&data),
            Ok(LoginReply::Accepted { identity, proof }) => self.accepted(identity, proof),
            Err(refusal) => Err(self.refused(&refusal)),
        };
        if let Err(violation) = handled {
            self.fail(&violation);
        }
    }

    /// Sends the client the next message.
    fn go_on(&mut self, data: &str) -> Result<(), Violation> {
        if let Some(exchange) = &mut self.exchange {
            exchange.turn = Turn::Client;
        }
        self.out.put(|output| answer::auth(auth::CONTINUE, SCRAM, data, output))
    }

    fn accepted(&mut self, identity: Identity, proof: Option<String>) -> Result<(), Violation> {
        let again = self.exchange.as_mut().is_some_and(|exchange| {
            exchange.turn = Turn::Done;
            let again = !exchange.user.is_empty();
            if !again {
                exchange.user.clone_from(&identity.user);
            }
            again
        });
        if again {
            return self.accepted_again(&identity.user, &proof.unwrap_or_default());
        }
        let State::Opening(opening) = &mut self.state else { return Ok(()) };
        let Some(mut coming) = opening.coming.take() else { return Ok(()) };
        opening.proof = proof;
        let (version, realm) = (opening.client.version, opening.client.realm.clone());
        coming.identify(self.session, version, &identity);
        self.open(realm, coming, Some(identity.user));
        Ok(())
    }

    fn accepted_again(&mut self, user: &str, proof: &str) -> Result<(), Violation> {
        if self.exchange.as_ref().is_some_and(|exchange| exchange.user != user) {
            let text = "a session can't become another user's";
            return Err(Violation::new(Reason::NotAuthorized, text));
        }
        self.out.put(|output| answer::auth(Reason::Success as u8, SCRAM, proof, output))
    }

    fn refused(&self, refusal: &LoginRefusal) -> Violation {
        let version = match &self.state {
            State::Opening(opening) => opening.client.version,
            _ => Version::V5,
        };
        let reason = match refusal {
            LoginRefusal::Busy => Reason::ServerBusy,
            // A DISCONNECT has no code for wrong passwords (MQTT 5 table 3-13).
            _ if matches!(self.state, State::Open(_)) => Reason::NotAuthorized,
            LoginRefusal::Misused(_) if version.is_5() => Reason::NotAuthorized,
            LoginRefusal::Wrong | LoginRefusal::Misused(_) => Reason::BadUserNameOrPassword,
        };
        Violation::new(reason, refusal.to_string())
    }
}

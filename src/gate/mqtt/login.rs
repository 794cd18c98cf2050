//! From a CONNECT that is in order to the request for its session: with a login in between where the cluster has users.
//!
//! Deliberately absent: whether the password is right, which takes long to find out (`server`).

use super::admission::{Admitted, Coming};
use super::packet::{Reason, Violation};
use super::{MqttGate, Opening, State};
use crate::gate::Request;
use crate::types::access::LoginRefusal;
use crate::types::login::{LoginReply, LoginStep};
use crate::types::topic::Realm;

impl MqttGate {
    pub(super) fn admitted(&mut self, Admitted { client, coming, login }: Admitted) {
        let coming = match login {
            Some(login) => {
                self.out.requests.push_back(Request::Login(LoginStep::Password(login)));
                Some(coming)
            }
            None => {
                self.open(client.realm.clone(), coming, None);
                None
            }
        };
        let (held, resumed) = (Vec::new(), None);
        self.state =
            State::Opening(Box::new(Opening { client, held, held_bytes: 0, resumed, coming }));
    }

    fn open(&mut self, realm: Realm, coming: Coming, user: Option<String>) {
        self.out.requests.push_back(match coming {
            Coming::Join(join) => Request::Open { realm, join, user },
            Coming::Attach(attach) => Request::Attach { realm, attach, user },
        });
    }

    pub(super) fn login_ended(&mut self, result: Result<LoginReply, LoginRefusal>) {
        let State::Opening(opening) = &mut self.state else { return };
        let Some(mut coming) = opening.coming.take() else { return };
        let (version, realm) = (opening.client.version, opening.client.realm.clone());
        match result {
            // A password is not answered with a challenge.
            Ok(LoginReply::Challenge(_)) => {}
            Ok(LoginReply::Accepted(identity)) => {
                coming.identify(self.session, version, &identity);
                self.open(realm, coming, Some(identity.user));
            }
            Err(refusal) => {
                let reason = match refusal {
                    LoginRefusal::Wrong | LoginRefusal::Misused(_) => Reason::BadUserNameOrPassword,
                    LoginRefusal::Busy => Reason::ServerBusy,
                };
                self.refuse(version, &Violation::new(reason, refusal.to_string()));
            }
        }
    }
}

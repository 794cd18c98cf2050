//! One client's login, step by step.
//!
//! Invariant: an answer is checked once, against the challenge before it. Which challenge a client gets tells nothing about
//! whether its user exists, unless the user's password was set before there were challenges.
//!
//! Deliberately absent: the methods themselves (`auth`).

use std::sync::Arc;

use super::{Logins, USERS};
use crate::auth::scram::{text, wamp};
use crate::auth::{cryptosign, draw, wampcra, Candidate, Exporter, Refused, UserName};
use crate::server::quotas::Came;
use crate::types::access::{KnownUser, Login, LoginRefusal, Secret};
use crate::types::event::SessionId;
use crate::types::login::{Challenge, Extra, LoginReply, LoginStep, Method};

/// A conversation after a step, and what the step has led to.
pub(crate) type Stepped = (Box<Conversation>, Result<LoginReply, LoginRefusal>);

/// What a client's connection shows of it.
#[derive(Clone, Default)]
pub(crate) struct Shown {
    /// The connection's own value, for channel binding.
    pub(crate) exporter: Option<Box<Exporter>>,
    /// The user that its certificate names, where that counts.
    pub(crate) user: Option<Box<str>>,
    /// Where it comes from, if that counts.
    pub(crate) came: Option<Arc<Came>>,
}

/// A client's login.
pub(crate) struct Conversation {
    logins: Logins,
    session: SessionId,
    shown: Shown,
    /// What the client was asked last.
    asked: Option<Asked>,
}

/// A challenge that waits for its answer.
enum Asked {
    Ticket { user: String },
    WampCra { claim: Claim, challenge: wampcra::Challenge },
    Cryptosign { claim: Claim, challenge: cryptosign::Challenge },
    Scram { claim: Claim, challenge: wamp::Challenge },
    ScramText { claim: Claim, challenge: text::ServerFirst },
}

/// Who a client says it is.
pub(super) struct Claim {
    pub(super) name: UserName,
    /// The user when the challenge was made.
    pub(super) known: Option<Arc<KnownUser>>,
    /// How it shows that.
    pub(super) method: &'static str,
}

/// MQTT's authentication method.
const SCRAM: &str = "SCRAM-SHA-256";

impl Conversation {
    pub(super) fn new(logins: Logins, session: SessionId, shown: Shown) -> Self {
        Self { logins, session, shown, asked: None }
    }

    /// Takes a step.
    pub(crate) async fn step(mut self: Box<Self>, step: LoginStep) -> Stepped {
        let result = match step {
            LoginStep::Password(login) => {
                let identity = self.logins.check(login).await;
                identity.map(|identity| LoginReply::Accepted { identity, proof: None })
            }
            LoginStep::Certificate => self.certificate(),
            LoginStep::Hello { user, methods, extra } => self.hello(user, &methods, &extra),
            LoginStep::Scram(first) => self.scram(&first).map(LoginReply::Data),
            LoginStep::Answer { signature, extra } => self.answer(signature, &extra).await,
        };
        (self, result)
    }

    /// The user is the one that the client's certificate names, whose authority has checked who it is.
    fn certificate(&self) -> Result<LoginReply, LoginRefusal> {
        let user = self.shown.user.as_deref().ok_or(LoginRefusal::Wrong)?;
        let name = UserName::new(user).map_err(|_| LoginRefusal::Wrong)?;
        let identity = self.logins.certified(&name).ok_or(LoginRefusal::Wrong)?;
        Ok(LoginReply::Accepted { identity, proof: None })
    }

    /// Takes the best of the client's methods that its user has, too.
    fn hello(
        &mut self,
        user: String,
        methods: &[Method],
        extra: &Extra,
    ) -> Result<LoginReply, LoginRefusal> {
        if user.is_empty() && methods.contains(&Method::Tls) {
            return self.certificate();
        }
        let name = UserName::new(&user).map_err(|_| LoginRefusal::Wrong)?;
        let (candidate, known) = self.logins.candidate(&name);
        let hello = cryptosign::Hello::read(extra, self.shown.exporter.as_deref());
        let is_own = hello.as_ref().is_ok_and(|hello| candidate.has_key(hello.key()).0);
        let method = choose(methods, |method| match method {
            Method::Tls => self.shown.user.as_deref() == Some(name.as_str()),
            Method::Cryptosign => is_own,
            method => candidate.methods().contains(&method),
        });
        let method = method.ok_or(LoginRefusal::Wrong)?;
        if method == Method::Tls {
            // Whoever says another name than its certificate is refused.
            let named = self.shown.user.as_deref() == Some(name.as_str());
            return if named { self.certificate() } else { Err(LoginRefusal::Wrong) };
        }
        let claim = Claim { name, known, method: method.name() };
        self.challenge((user, method), (claim, &candidate), (hello, extra))
            .map(LoginReply::Challenge)
    }

    /// Asks what a method needs.
    fn challenge(
        &mut self,
        (user, method): (String, Method),
        (claim, candidate): (Claim, &Candidate),
        (hello, extra): (Result<cryptosign::Hello, Refused>, &Extra),
    ) -> Result<Challenge, LoginRefusal> {
        let nonce = draw(|| self.logins.random());
        let (asked, challenge) = match method {
            // It needs nothing more.
            Method::Tls => return Err(LoginRefusal::Wrong),
            Method::Ticket => (Asked::Ticket { user }, Challenge { method, extra: Vec::new() }),
            Method::WampCra => {
                let (id, now) = (self.session.0, self.logins.now());
                let session = wampcra::Session { user: &claim.name, provider: USERS, id, now };
                let challenge = wampcra::Challenge::new(&session, candidate, &nonce);
                let asked = challenge.asked();
                (Asked::WampCra { claim, challenge }, asked)
            }
            Method::Cryptosign => {
                let hello = hello.map_err(misused)?;
                let (_, admits) = candidate.has_key(hello.key());
                let challenge = hello.challenge(&draw(|| self.logins.random()), admits);
                let asked = challenge.asked();
                (Asked::Cryptosign { claim, challenge }, asked)
            }
            Method::Scram => {
                let hello = wamp::Hello::read(&user, extra, self.shown.exporter.as_deref());
                let challenge = hello.map_err(misused)?.challenge(candidate, &nonce);
                let asked = challenge.asked();
                (Asked::Scram { claim, challenge }, asked)
            }
        };
        self.asked = Some(asked);
        Ok(challenge)
    }

    /// Answers the first message of SCRAM.
    fn scram(&mut self, first: &Secret) -> Result<String, LoginRefusal> {
        let first = text::ClientFirst::read(&first.0).map_err(misused)?;
        let name = first.user().clone();
        let (candidate, known) = self.logins.candidate(&name);
        let challenge = first.challenge(&candidate, &draw(|| self.logins.random()));
        let message = challenge.message().to_owned();
        let claim = Claim { name, known, method: SCRAM };
        self.asked = Some(Asked::ScramText { claim, challenge });
        Ok(message)
    }

    async fn answer(
        &mut self,
        signature: Secret,
        extra: &Extra,
    ) -> Result<LoginReply, LoginRefusal> {
        let text = || {
            let text = std::str::from_utf8(&signature.0);
            text.map_err(|_| Refused::Malformed("signature"))
        };
        let (claim, proof) = match self.asked.take().ok_or(LoginRefusal::Wrong)? {
            Asked::Ticket { user } => {
                let identity = self.logins.check(Login { user, password: signature }).await?;
                return Ok(LoginReply::Accepted { identity, proof: None });
            }
            Asked::WampCra { claim, challenge } => {
                let signed = text().and_then(|text| challenge.finish(text));
                (claim, signed.map(|()| None))
            }
            Asked::Cryptosign { claim, challenge } => {
                let signed = text().and_then(|text| challenge.finish(text));
                (claim, signed.map(|()| None))
            }
            Asked::Scram { claim, challenge } => {
                (claim, text().and_then(|text| challenge.finish(text, extra)).map(Some))
            }
            Asked::ScramText { claim, challenge } => {
                (claim, challenge.finish(&signature.0).map(Some))
            }
        };
        let (proof, refused) = match proof {
            Ok(proof) => (proof, None),
            Err(refused) => (None, Some(refused)),
        };
        let identity = self.logins.prove(claim, refused).await?;
        Ok(LoginReply::Accepted { identity, proof })
    }
}

/// The best of a client's methods that its user has. A user that has none of them is asked what one that doesn't exist is asked:
/// nobody has a key by chance.
fn choose(methods: &[Method], has: impl Fn(Method) -> bool) -> Option<Method> {
    let mut all = methods.iter().copied();
    let is_by_password = |method: &Method| !matches!(method, Method::Cryptosign | Method::Tls);
    let mut by_password = methods.iter().copied().filter(is_by_password);
    all.find(|method| has(*method)).or(by_password.next()).or(methods.first().copied())
}

/// The client is wrong, whatever its user's password is.
pub(super) fn misused(refused: Refused) -> LoginRefusal {
    LoginRefusal::Misused(refused.to_string())
}

#[cfg(test)]
mod tests;

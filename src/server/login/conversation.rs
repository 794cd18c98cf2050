//! One client's login, step by step.
//!
//! Invariant: an answer is checked once, against the challenge before it. Which challenge a client gets tells nothing about
//! whether its user exists, unless the user's password was set before there were challenges.
//!
//! Deliberately absent: the methods themselves (`auth`).

use std::sync::Arc;

use super::{Logins, USERS};
use crate::auth::{draw, wampcra, Refused, UserName};
use crate::types::access::{KnownUser, Login, LoginRefusal, Secret};
use crate::types::event::SessionId;
use crate::types::login::{Challenge, LoginReply, LoginStep, Method};

/// A conversation after a step, and what the step has led to.
pub(crate) type Stepped = (Box<Conversation>, Result<LoginReply, LoginRefusal>);

/// A client's login.
pub(crate) struct Conversation {
    logins: Logins,
    session: SessionId,
    /// What the client was asked last.
    asked: Option<Asked>,
}

/// A challenge that waits for its answer.
enum Asked {
    Ticket { user: String },
    WampCra { claim: Claim, challenge: wampcra::Challenge },
}

/// Who a client says it is.
pub(super) struct Claim {
    pub(super) name: UserName,
    /// The user when the challenge was made.
    pub(super) known: Option<Arc<KnownUser>>,
    pub(super) method: Method,
}

impl Conversation {
    pub(super) fn new(logins: Logins, session: SessionId) -> Self {
        Self { logins, session, asked: None }
    }

    /// Takes a step.
    pub(crate) async fn step(mut self: Box<Self>, step: LoginStep) -> Stepped {
        let result = match step {
            LoginStep::Password(login) => self.logins.check(login).await.map(LoginReply::Accepted),
            LoginStep::Hello { user, methods } => {
                self.challenge(user, &methods).map(LoginReply::Challenge)
            }
            LoginStep::Answer { signature } => self.answer(signature).await,
        };
        (self, result)
    }

    /// Asks what the best of the client's methods needs that its user has, too.
    fn challenge(&mut self, user: String, methods: &[Method]) -> Result<Challenge, LoginRefusal> {
        let name = UserName::new(&user).map_err(|_| LoginRefusal::Wrong)?;
        let (candidate, known) = self.logins.candidate(&name);
        let mut both = methods.iter().filter(|method| candidate.methods().contains(method));
        let method = both.next().or(methods.first()).copied().ok_or(LoginRefusal::Wrong)?;
        let (asked, challenge) = match method {
            Method::Ticket => (Asked::Ticket { user }, Challenge { method, extra: Vec::new() }),
            Method::WampCra => {
                let id = self.session.0;
                let now = self.logins.now();
                let session = wampcra::Session { user: &name, provider: USERS, id, now };
                let nonce = draw(|| self.logins.random());
                let challenge = wampcra::Challenge::new(&session, &candidate, &nonce);
                let asked = challenge.asked();
                (Asked::WampCra { claim: Claim { name, known, method }, challenge }, asked)
            }
        };
        self.asked = Some(asked);
        Ok(challenge)
    }

    async fn answer(&mut self, signature: Secret) -> Result<LoginReply, LoginRefusal> {
        let identity = match self.asked.take().ok_or(LoginRefusal::Wrong)? {
            Asked::Ticket { user } => {
                self.logins.check(Login { user, password: signature }).await?
            }
            Asked::WampCra { claim, challenge } => {
                let text = std::str::from_utf8(&signature.0);
                let text = text.map_err(|_| Refused::Malformed("signature"));
                self.logins.prove(claim, text.and_then(|text| challenge.finish(text))).await?
            }
        };
        Ok(LoginReply::Accepted(identity))
    }
}

#[cfg(test)]
mod tests;

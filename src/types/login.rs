//! How a client logs in, step by step, whatever its protocol.
//!
//! Invariant: what a client sends to show who it is is printed nowhere.
//!
//! Deliberately absent: what a step is checked with (`auth`), and what it looks like in a protocol (`gate`).

use crate::types::access::{Identity, Login, Secret};
use crate::types::value::Value;

/// How a user shows who it is, by WAMP's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// It sends its password.
    Ticket,
    /// It signs a text with a key that it derives from its password.
    WampCra,
}

impl Method {
    /// All of them, the best one first.
    pub const ALL: [Self; 2] = [Self::WampCra, Self::Ticket];

    /// Its name in WAMP.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ticket => "ticket",
            Self::WampCra => "wampcra",
        }
    }

    /// The method of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// What a client does to log in.
#[derive(Clone, Debug, PartialEq)]
pub enum LoginStep {
    /// It sends its name and password at once.
    Password(Login),
    /// It names itself, and the methods that it has, at least one: answered with a challenge.
    Hello { user: String, methods: Vec<Method> },
    /// It answers the challenge.
    Answer { signature: Secret },
}

/// What a client has to answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Challenge {
    pub method: Method,
    pub extra: Vec<(&'static str, Value)>,
}

/// What a step has led to.
#[derive(Clone, Debug, PartialEq)]
pub enum LoginReply {
    /// There is another one.
    Challenge(Challenge),
    /// It has logged in.
    Accepted(Identity),
}

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
    /// It proves that it knows the password, and the node proves the same.
    Scram,
    /// It signs random bytes with its private key.
    Cryptosign,
    /// Its certificate names it.
    Tls,
}

impl Method {
    /// All of them, the best one first.
    pub const ALL: [Self; 5] =
        [Self::Tls, Self::Cryptosign, Self::Scram, Self::WampCra, Self::Ticket];

    /// Its name in WAMP.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ticket => "ticket",
            Self::WampCra => "wampcra",
            Self::Scram => "wamp-scram",
            Self::Cryptosign => "cryptosign",
            Self::Tls => "tls",
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
    /// It has shown a certificate that names its user.
    Certificate,
    /// It names itself, and the methods that it has, at least one: answered with a challenge, unless its
    /// certificate is enough. The name may be empty then.
    Hello { user: String, methods: Vec<Method>, extra: Extra },
    /// The first message of SCRAM: answered with data.
    Scram(Secret),
    /// It answers the challenge.
    Answer { signature: Secret, extra: Extra },
}

/// What WAMP's methods add to HELLO and AUTHENTICATE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    pub nonce: Option<String>,
    pub pubkey: Option<String>,
    pub channel_binding: Option<String>,
    pub cbind_data: Option<String>,
    /// The function that the client can make keys with: an extension, for clients without argon2id.
    pub kdf: Option<String>,
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
    /// There is another one: the next message of SCRAM.
    Data(String),
    /// It has logged in. By the proof it knows the node.
    Accepted { identity: Identity, proof: Option<String> },
}

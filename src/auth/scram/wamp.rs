//! WAMP's `wamp-scram` (advanced profile, "Salted Challenge Response Authentication").
//!
//! Invariant: the fields of WAMP's messages have no escapes, but the conversation that is signed is RFC 5802's, with
//! the name as HELLO has it or, since clients differ there, as SASLprep makes it.
//!
//! Deliberately absent: the bindings `tls-unique` and `tls-server-end-point`. Clients of the draft of 2018, which call
//! the method `scram` and its function `argon2id-13`, and sign something else.

use super::{check, escape, named_binding, Flag, CLIENT_NONCE};
use crate::auth::binding::{Exporter, TLS_EXPORTER};
use crate::auth::encoding::{base64, from_base64};
use crate::auth::verifiers::ScramKeys;
use crate::auth::{Candidate, Refused, UserName, NONCE};
use crate::types::login::{Challenge as Asked, Extra, Method};
use crate::types::value::Value;

/// Shortest nonce of a client, in bytes before base64: the specification's example.
const SHORTEST_NONCE: usize = 8;

/// The function that makes a key of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kdf {
    Argon2id13,
    Pbkdf2,
}

impl Kdf {
    const fn name(self) -> &'static str {
        match self {
            Self::Argon2id13 => "argon2id13",
            Self::Pbkdf2 => "pbkdf2",
        }
    }
}

/// A client that said who it is.
#[derive(Debug)]
pub struct Hello {
    user: UserName,
    /// As it came.
    authid: String,
    nonce: String,
    kdf: Kdf,
    flag: Flag,
    /// What the last message is to be bound to.
    input: Vec<u8>,
}

impl Hello {
    /// Reads HELLO.
    ///
    /// # Errors
    /// It is not as specified, or asks for a binding that it can't have.
    pub fn read(authid: &str, extra: &Extra, channel: Option<&Exporter>) -> Result<Self, Refused> {
        const WRONG: Refused = Refused::Malformed("nonce");
        let nonce = extra.nonce.as_deref().filter(|nonce| nonce.len() <= CLIENT_NONCE);
        if from_base64(nonce.ok_or(WRONG)?).ok_or(WRONG)?.len() < SHORTEST_NONCE {
            return Err(WRONG);
        }
        Self::read_with(authid, extra, channel)
    }

    /// Without looking at the nonce: RFC 7677's example, which is specified to fit, is not in base64.
    pub(in crate::auth) fn read_with(
        authid: &str,
        extra: &Extra,
        channel: Option<&Exporter>,
    ) -> Result<Self, Refused> {
        let user = UserName::new(authid)?;
        let (flag, header) = match &extra.channel_binding {
            None => (Flag::Unable, "n,,".to_owned()),
            Some(name) => (named_binding(name)?, format!("p={name},,")),
        };
        let input = flag.input(&header, channel)?;
        let wants_pbkdf2 = extra.kdf.as_deref() == Some(Kdf::Pbkdf2.name());
        let kdf = if wants_pbkdf2 { Kdf::Pbkdf2 } else { Kdf::Argon2id13 };
        let nonce = extra.nonce.clone().unwrap_or_default();
        Ok(Self { user, authid: authid.to_owned(), nonce, kdf, flag, input })
    }

    /// Who it says it is.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// Answers. The nonce comes from a cryptographic generator, each time anew.
    #[must_use]
    pub fn challenge(self, candidate: &Candidate, nonce: &[u8; NONCE]) -> Challenge {
        self.challenge_with(candidate, &base64(nonce))
    }

    pub(in crate::auth) fn challenge_with(self, candidate: &Candidate, nonce: &str) -> Challenge {
        let (argon2id, pbkdf2) = (&candidate.scram_argon2id, &candidate.scram_pbkdf2);
        let kdf = self.kdf;
        let nonce = self.nonce.clone() + nonce;
        let (salt, iterations, memory, keys, admits) = match kdf {
            Kdf::Argon2id13 => {
                let verifier = &argon2id.verifier;
                let (iterations, memory) = (verifier.cost.iterations(), verifier.cost.memory());
                (verifier.salt, iterations, Some(memory), &verifier.keys, argon2id.admits)
            }
            Kdf::Pbkdf2 => {
                let verifier = &pbkdf2.verifier;
                let iterations = verifier.cost.iterations();
                (verifier.salt, iterations, None, &verifier.keys, pbkdf2.admits)
            }
        };
        let (salt, keys) = (base64(&salt), keys.clone());
        Challenge { hello: self, nonce, salt, iterations, memory, keys, admits }
    }
}

/// Waits for AUTHENTICATE. It is for one answer.
#[derive(Debug)]
pub struct Challenge {
    hello: Hello,
    nonce: String,
    salt: String,
    iterations: u32,
    /// KiB, for argon2id.
    memory: Option<u32>,
    keys: ScramKeys,
    admits: bool,
}

impl Challenge {
    /// What to send in CHALLENGE.
    #[must_use]
    pub fn asked(&self) -> Asked {
        let mut extra = vec![
            ("nonce", Value::Str(self.nonce.clone())),
            ("salt", Value::Str(self.salt.clone())),
            ("kdf", Value::Str(self.hello.kdf.name().to_owned())),
            ("iterations", Value::Int(self.iterations.into())),
        ];
        extra.extend(self.memory.map(|memory| ("memory", Value::Int(memory.into()))));
        Asked { method: Method::Scram, extra }
    }

    /// Checks the signature and extra fields of AUTHENTICATE; gives what to send in `WELCOME.Details.authextra.verifier`:
    /// the server's signature, by which the client knows the server. (The specification's example has `v=` before it, but
    /// its text and clients don't.)
    ///
    /// # Errors
    /// They are not as specified, are of another exchange or channel, or the proof is wrong.
    pub fn finish(&self, signature: &str, extra: &Extra) -> Result<String, Refused> {
        if extra.nonce.as_deref() != Some(&self.nonce) {
            return Err(Refused::Malformed("nonce"));
        }
        let binding = extra.channel_binding.as_deref();
        let is_bound = self.hello.flag == Flag::Exporter;
        if binding != is_bound.then_some(TLS_EXPORTER) || extra.cbind_data.is_some() != is_bound {
            return Err(Refused::Malformed("channel binding"));
        }
        if let Some(data) = &extra.cbind_data {
            let expected = base64(&self.hello.input[self.hello.input.len() - 32..]);
            if *data != expected {
                return Err(Refused::OtherChannel);
            }
        }
        let signed = self.check(&self.hello.authid, signature).or_else(|refused| {
            let prepared = self.hello.user.as_str();
            match refused.is_denied() && prepared != self.hello.authid {
                true => self.check(prepared, signature),
                false => Err(refused),
            }
        })?;
        Ok(base64(&signed))
    }

    /// Checks the proof, with a name as the client may have written it.
    fn check(&self, name: &str, signature: &str) -> Result<[u8; 32], Refused> {
        let Self { nonce, salt, iterations, .. } = self;
        let first = format!("n={},r={}", escape(name), self.hello.nonce);
        let challenge = format!("r={nonce},s={salt},i={iterations}");
        let last = format!("c={},r={nonce}", base64(&self.hello.input));
        check(&self.keys, self.admits, &format!("{first},{challenge},{last}"), signature)
    }
}

//! SCRAM's own messages (RFC 5802 section 7), which MQTT 5 carries as authentication data.
//!
//! Invariant: the conversation that is signed has the very bytes that were sent.
//!
//! Deliberately absent: channel binding. MQTT has no list of mechanisms, so a client that could bind does not learn that
//! the server can, and one that guesses wrong would have to be refused (RFC 5802 section 6).

use super::{check, named_binding, unescape, Flag, CLIENT_NONCE, MESSAGE};
use crate::auth::encoding::{base64, from_base64};
use crate::auth::verifiers::ScramKeys;
use crate::auth::{Candidate, Refused, UserName, NONCE};

/// `client-first-message`: who wants to log in.
#[derive(Debug)]
pub struct ClientFirst {
    user: UserName,
    nonce: String,
    /// The message without its header.
    bare: String,
    /// What `c=` of the last message has to be.
    input: Vec<u8>,
}

impl ClientFirst {
    /// Reads the authentication data of CONNECT, or of the first AUTH of a re-authentication.
    ///
    /// # Errors
    /// It isn't such a message, or asks for a binding or an identity that it can't have.
    pub fn read(data: &[u8]) -> Result<Self, Refused> {
        const WRONG: Refused = Refused::Malformed("first message");
        let message = text(data, WRONG)?;
        let (flag, rest) = message.split_once(',').ok_or(WRONG)?;
        let (identity, bare) = rest.split_once(',').ok_or(WRONG)?;
        let flag = match flag {
            "n" => Flag::Unable,
            "y" => Flag::Unoffered,
            _ => named_binding(flag.strip_prefix("p=").ok_or(WRONG)?)?,
        };
        let input = flag.input(&message[..message.len() - bare.len()], None)?;
        if bare.starts_with("m=") {
            return Err(Refused::Extension);
        }
        let mut attributes = bare.split(',');
        let name = attributes.next().and_then(|name| name.strip_prefix("n=")).ok_or(WRONG)?;
        let user = user_name(name)?;
        let nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).ok_or(WRONG)?;
        if nonce.is_empty() || nonce.len() > CLIENT_NONCE || !nonce.bytes().all(is_printable) {
            return Err(WRONG);
        }
        if !attributes.all(is_extension) {
            return Err(WRONG);
        }
        if !identity.is_empty() {
            let other = user_name(identity.strip_prefix("a=").ok_or(WRONG)?)?;
            if other != user {
                return Err(Refused::OtherIdentity);
            }
        }
        Ok(Self { user, nonce: nonce.to_owned(), bare: bare.to_owned(), input })
    }

    /// Who it says it is.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// Answers. The nonce comes from a cryptographic generator, each time anew.
    #[must_use]
    pub fn challenge(self, candidate: &Candidate, nonce: &[u8; NONCE]) -> ServerFirst {
        self.challenge_with(candidate, &base64(nonce))
    }

    pub(in crate::auth) fn challenge_with(self, candidate: &Candidate, nonce: &str) -> ServerFirst {
        let part = &candidate.scram_pbkdf2;
        let verifier = &part.verifier;
        let nonce = self.nonce + nonce;
        let (salt, iterations) = (base64(&verifier.salt), verifier.cost.iterations());
        ServerFirst {
            message: format!("r={nonce},s={salt},i={iterations}"),
            nonce,
            bare: self.bare,
            input: self.input,
            keys: verifier.keys.clone(),
            admits: part.admits,
        }
    }
}

/// `server-first-message`: the challenge. It is for one answer.
#[derive(Debug)]
pub struct ServerFirst {
    message: String,
    nonce: String,
    bare: String,
    input: Vec<u8>,
    keys: ScramKeys,
    admits: bool,
}

impl ServerFirst {
    /// The authentication data to send in AUTH with reason 0x18.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Reads `client-final-message`, the authentication data of the client's AUTH; gives `server-final-message`, which
    /// goes into CONNACK, or into AUTH with reason 0x00 after a re-authentication.
    ///
    /// # Errors
    /// It isn't such a message, is of another exchange or channel, or its proof is wrong.
    pub fn finish(&self, data: &[u8]) -> Result<String, Refused> {
        const WRONG: Refused = Refused::Malformed("final message");
        let message = text(data, WRONG)?;
        // Base64 has no comma, so what follows the last one is the proof.
        let (said, proof) = message.rsplit_once(",p=").ok_or(WRONG)?;
        let mut attributes = said.split(',');
        let input = attributes.next().and_then(|input| input.strip_prefix("c=")).ok_or(WRONG)?;
        let nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).ok_or(WRONG)?;
        if !attributes.all(is_extension) {
            return Err(WRONG);
        }
        if from_base64(input).ok_or(WRONG)? != self.input {
            return Err(Refused::OtherChannel);
        }
        if nonce != self.nonce {
            return Err(Refused::Malformed("nonce"));
        }
        let conversation = format!("{},{},{said}", self.bare, self.message);
        let signature = check(&self.keys, self.admits, &conversation, proof)?;
        Ok(format!("v={}", base64(&signature)))
    }
}

fn text(data: &[u8], wrong: Refused) -> Result<&str, Refused> {
    let is_short = data.len() <= MESSAGE;
    std::str::from_utf8(data).ok().filter(|_| is_short).ok_or(wrong)
}

fn user_name(name: &str) -> Result<UserName, Refused> {
    let name = unescape(name).ok_or(Refused::Malformed("user name"))?;
    Ok(UserName::new(&name)?)
}

/// RFC 5802 section 7, `printable`.
fn is_printable(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b','
}

/// An optional extension, which is to be ignored: `attr-val`.
fn is_extension(attribute: &str) -> bool {
    let mut characters = attribute.chars();
    characters.next().is_some_and(|letter| letter.is_ascii_alphabetic())
        && characters.next() == Some('=')
        && characters.next().is_some()
        && !attribute.contains('\0')
}

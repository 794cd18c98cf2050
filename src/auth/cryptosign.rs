//! WAMP's `cryptosign`: the client signs 32 random bytes with its Ed25519 key (advanced profile, "Cryptosign-based
//! Authentication").
//!
//! Invariant: a signature counts for the challenge of this exchange, XOR this connection's channel binding if the
//! client asked for it, and strictly (no key or point of small order).
//!
//! Deliberately absent: a key of the router's own, trust roots and certificates on a blockchain, `tls-unique` (TLS 1.3
//! has none).

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::binding::{Exporter, TLS_EXPORTER};
use super::encoding::{from_hex, hex};
use super::Refused;
use crate::types::login::{Challenge as Asked, Extra, Method};
use crate::types::value::Value;

/// A client's key. Persisted as its 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "[u8; 32]", into = "[u8; 32]")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// They aren't, or no such key can be safe.
    pub fn from_hex(text: &str) -> Result<Self, Refused> {
        from_hex(text).ok_or(Refused::Malformed("public key"))?.try_into()
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }
}

impl TryFrom<[u8; 32]> for PublicKey {
    type Error = Refused;

    fn try_from(bytes: [u8; 32]) -> Result<Self, Refused> {
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(bytes)),
            _ => Err(Refused::Malformed("public key")),
        }
    }
}

impl From<PublicKey> for [u8; 32] {
    fn from(key: PublicKey) -> Self {
        key.0
    }
}

/// A client that said which key it has.
#[derive(Debug)]
pub struct Hello {
    key: PublicKey,
    /// The channel to bind to.
    channel: Option<Exporter>,
}

impl Hello {
    /// Reads HELLO.
    ///
    /// # Errors
    /// It has no key. A binding that the connection can't have is left out of the challenge, as the specification has
    /// it: then it is the client that ends the exchange.
    pub fn read(extra: &Extra, channel: Option<&Exporter>) -> Result<Self, Refused> {
        let key = PublicKey::from_hex(extra.pubkey.as_deref().unwrap_or_default())?;
        let wanted = extra.channel_binding.as_deref() == Some(TLS_EXPORTER);
        Ok(Self { key, channel: channel.copied().filter(|_| wanted) })
    }

    /// The key that the client says it has.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Begins. The random bytes come from a cryptographic generator, each time anew. `admits` is false if the user
    /// doesn't have this key, or is disabled: the exchange is the same until its end.
    #[must_use]
    pub fn challenge(self, random: &[u8; 32], admits: bool) -> Challenge {
        let mut message = *random;
        for (byte, other) in message.iter_mut().zip(self.channel.iter().flatten()) {
            *byte ^= other;
        }
        Challenge { hello: self, random: *random, message, admits }
    }
}

/// Waits for AUTHENTICATE. It is for one answer.
#[derive(Debug)]
pub struct Challenge {
    hello: Hello,
    random: [u8; 32],
    /// What the client has to sign.
    message: [u8; 32],
    admits: bool,
}

impl Challenge {
    /// What to send in CHALLENGE.
    #[must_use]
    pub fn asked(&self) -> Asked {
        let binding = match self.hello.channel {
            Some(_) => Value::Str(TLS_EXPORTER.to_owned()),
            None => Value::Null,
        };
        let challenge = Value::Str(hex(&self.random));
        let extra = vec![("challenge", challenge), ("channel_binding", binding)];
        Asked { method: Method::Cryptosign, extra }
    }

    /// Checks the signature of AUTHENTICATE: 64 bytes of signature and the 32 that are signed, in hexadecimal.
    ///
    /// # Errors
    /// It isn't a signature, is of another challenge or channel, or isn't the user's.
    pub fn finish(&self, signature: &str) -> Result<(), Refused> {
        let bytes: [u8; 96] = from_hex(signature).ok_or(Refused::Malformed("signature"))?;
        let mut signature = [0; 64];
        signature.copy_from_slice(&bytes[..64]);
        let is_same = bool::from(bytes[64..].ct_eq(&self.message));
        let key = VerifyingKey::from_bytes(&self.hello.key.0).map_err(|_| Refused::Denied)?;
        let signature = Signature::from_bytes(&signature);
        let is_signed = key.verify_strict(&self.message, &signature).is_ok();
        match is_same & is_signed & self.admits {
            true => Ok(()),
            false => Err(Refused::Denied),
        }
    }
}

//! SCRAM-SHA-256, the server's side (RFC 5802, RFC 7677): both sides prove that they know the password, and neither
//! tells it.
//!
//! [`text`] has the messages of RFC 7677, for MQTT 5; [`wamp`] has those of WAMP's `wamp-scram`. Each step consumes the
//! one before, so none is skipped or repeated.
//!
//! Invariant: the proof is checked last, over all that was said, so that every other error tells nothing about the
//! user.
//!
//! Deliberately absent: SCRAM-SHA-1, and acting as another user than the one who authenticates.

pub mod text;
pub mod wamp;

use subtle::{Choice, ConstantTimeEq};

use super::binding::{Exporter, TLS_EXPORTER};
use super::encoding::from_base64_32;
use super::hash::{hmac, sha256, Key};
use super::verifiers::ScramKeys;
use super::Refused;
use crate::types::limits;

/// Longest message in bytes: a name with each character escaped, and two nonces.
const MESSAGE: usize = 2048;

/// Longest nonce of a client in characters.
const CLIENT_NONCE: usize = 256;

const _: () = assert!(MESSAGE >= 3 * limits::USER_NAME + 2 * CLIENT_NONCE + 256);

/// What a client said about channel binding (RFC 5802 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    /// `n`: the client can't.
    Unable,
    /// `y`: the client could, but believes that the server can't.
    Unoffered,
    /// `p=tls-exporter`.
    Exporter,
}

impl Flag {
    /// The bytes that the last message has to repeat: the header of the first, and the channel's value.
    fn input(self, header: &str, channel: Option<&Exporter>) -> Result<Vec<u8>, Refused> {
        let mut input = header.as_bytes().to_vec();
        match (self, channel) {
            (Self::Exporter, None) => return Err(Refused::NoSuchBinding),
            (Self::Exporter, Some(value)) => input.extend_from_slice(value),
            (Self::Unoffered, Some(_)) => return Err(Refused::Downgraded),
            (Self::Unable, _) | (Self::Unoffered, None) => {}
        }
        Ok(input)
    }
}

/// `p=` with the name of a binding type.
fn named_binding(name: &str) -> Result<Flag, Refused> {
    match name {
        TLS_EXPORTER => Ok(Flag::Exporter),
        _ => Err(Refused::NoSuchBinding),
    }
}

/// Checks a client's proof, in base64, over the whole conversation, and gives the server's signature over it.
fn check(
    keys: &ScramKeys,
    admits: bool,
    conversation: &str,
    proof: &str,
) -> Result<[u8; 32], Refused> {
    let proof = from_base64_32(proof).ok_or(Refused::Malformed("proof"))?;
    let mut client = Key(hmac(&keys.stored.0, &[conversation.as_bytes()]));
    client.0.iter_mut().zip(proof).for_each(|(byte, other)| *byte ^= other);
    let is_proof = sha256(&client.0).ct_eq(&keys.stored.0) & Choice::from(u8::from(admits));
    match bool::from(is_proof) {
        true => Ok(hmac(&keys.server.0, &[conversation.as_bytes()])),
        false => Err(Refused::Denied),
    }
}

/// A `saslname`: commas and equals signs are written as `=2C` and `=3D` (RFC 5802 section 5.1).
fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The opposite. `None` if there is an equals sign that isn't part of those.
fn unescape(name: &str) -> Option<String> {
    let mut pieces = name.split('=');
    let mut plain = pieces.next()?.to_owned();
    for piece in pieces {
        let (character, rest) = match piece {
            _ if piece.starts_with("2C") => (',', &piece[2..]),
            _ if piece.starts_with("3D") => ('=', &piece[2..]),
            _ => return None,
        };
        plain.push(character);
        plain.push_str(rest);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        for (plain, escaped) in
            [("user", "user"), ("a,b=c", "a=2Cb=3Dc"), ("=2C", "=3D2C"), ("", "")]
        {
            assert_eq!(escape(plain), escaped);
            assert_eq!(unescape(escaped).as_deref(), Some(plain));
        }
        for wrong in ["=", "a=2", "a=2c", "=é", "==3D"] {
            assert_eq!(unescape(wrong), None, "{wrong}");
        }
    }
}

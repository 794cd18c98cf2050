//! WAMP's `wampcra`: the client signs a text with a key that it derives from its password (advanced profile,
//! "Challenge Response Authentication", salted).
//!
//! Invariant: the key is the base64 text of PBKDF2-HMAC-SHA256, and the salt is used as text. The specification doesn't
//! say so, but clients do it.
//!
//! Deliberately absent: passwords without a salt, which the cluster would have to keep in clear. The user's role in what
//! is to be signed, which the specification's example has: a stranger would learn who exists.

use serde_json::Value as Json;

use super::candidate::Candidate;
use super::encoding::{base64, from_base64_32};
use super::hash::{is_hmac, Key};
use super::verifiers::cra_salt;
use super::{Refused, UserName, NONCE};
use crate::types::login::{Challenge as Asked, Method};
use crate::types::value::Value;

/// The last second of the year 9999: later ones have no four digits.
const LAST_SECOND: u64 = 253_402_300_799;

/// What the client is going to be, if it can sign it.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    pub user: &'a UserName,
    pub provider: &'a str,
    /// The id that WELCOME is going to give.
    pub id: u64,
    /// Unix seconds.
    pub now: u64,
}

/// Waits for AUTHENTICATE. It is for one answer.
#[derive(Debug)]
pub struct Challenge {
    text: String,
    salt: String,
    iterations: u32,
    key: Key,
    admits: bool,
}

impl Challenge {
    /// Begins. The nonce comes from a cryptographic generator, each time anew.
    #[must_use]
    pub fn new(session: &Session<'_>, candidate: &Candidate, nonce: &[u8; NONCE]) -> Self {
        let part = &candidate.wampcra;
        let text = |value: &str| Json::from(value).to_string();
        let fields = [
            ("authid", text(session.user.as_str())),
            ("authmethod", text(Method::WampCra.name())),
            ("authprovider", text(session.provider)),
            ("nonce", text(&base64(nonce))),
            ("timestamp", text(&timestamp(session.now))),
            ("session", session.id.to_string()),
        ];
        let fields = fields.map(|(name, value)| format!("\"{name}\":{value}"));
        Self {
            text: format!("{{{}}}", fields.join(",")),
            salt: cra_salt(&part.verifier.salt),
            iterations: part.verifier.cost.iterations(),
            key: part.verifier.key.clone(),
            admits: part.admits,
        }
    }

    /// What to send in CHALLENGE.
    #[must_use]
    pub fn asked(&self) -> Asked {
        let extra = vec![
            ("challenge", Value::Str(self.text.clone())),
            ("salt", Value::Str(self.salt.clone())),
            ("iterations", Value::Int(self.iterations.into())),
            ("keylen", Value::Int(32)),
        ];
        Asked { method: Method::WampCra, extra }
    }

    /// Checks the signature of AUTHENTICATE.
    ///
    /// # Errors
    /// It isn't a signature, or isn't the user's.
    pub fn finish(&self, signature: &str) -> Result<(), Refused> {
        let tag = from_base64_32(signature).ok_or(Refused::Malformed("signature"))?;
        let key = zeroize::Zeroizing::new(base64(&self.key.0));
        let is_signed = is_hmac(key.as_bytes(), self.text.as_bytes(), &tag);
        match is_signed & self.admits {
            true => Ok(()),
            false => Err(Refused::Denied),
        }
    }
}

/// Unix seconds as `2014-06-22T16:36:25.000Z`.
fn timestamp(now: u64) -> String {
    let now = now.min(LAST_SECOND);
    let (days, second) = (now / 86_400, now % 86_400);
    // Years begin in March here, so that the leap day is a year's last. 719,468 days before 1970 begins the year 0.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        for (now, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_403_454_985, "2014-06-22T16:36:25.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (u64::MAX, "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(timestamp(now), expected);
        }
    }
}

//! A password in clear: MQTT's user name and password, HTTP's basic authentication, WAMP's `ticket`.
//!
//! Invariant: a wrong password and a user that doesn't exist take the same time.
//!
//! Deliberately absent: recognizing a password that was right before (`fingerprint`).

use subtle::{Choice, ConstantTimeEq};

use super::candidate::Candidate;
use super::hash::argon2id;
use super::text::Password;

/// Whether the password is the user's. **Slow**: one argon2id. A node without memory for that answers no.
#[must_use]
pub fn verify(password: &Password, candidate: &Candidate) -> bool {
    let part = &candidate.plain;
    let verifier = &part.verifier;
    let Ok(hash) = argon2id(password.prepared(), &verifier.salt, verifier.cost) else {
        return false;
    };
    (hash.ct_eq(&verifier.hash) & Choice::from(u8::from(part.admits))).into()
}

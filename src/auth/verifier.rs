//! What the cluster stores instead of a password.
//!
//! Invariant: nothing here can be turned back into the password except by trying passwords, each at the [`Cost`] stored with the
//! verifier. A stored cost is within its limits when it is read back: no record makes a node compute for minutes or take
//! gigabytes.
//!
//! Persisted: variants and fields keep their order; new ones go to the end.
//!
//! Deliberately absent: verifiers of exchanges in which the password is not sent, public keys and certificates.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use super::text::{Password, UserName};

/// Bytes of a salt.
pub const SALT: usize = 16;

/// Memory of one computation in KiB.
const MEMORY: std::ops::RangeInclusive<u32> = 8..=262_144;

/// Passes of one computation over its memory.
const PASSES: std::ops::RangeInclusive<u32> = 1..=64;

/// Memory in KiB times passes: one to two seconds.
const WORK: u32 = 2_097_152;

/// A cost outside of its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("argon2id can't take {memory} KiB and {passes} passes")]
pub struct CostError {
    memory: u32,
    passes: u32,
}

/// No verifier could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("argon2id can't be computed: {0}; free some memory")]
pub struct DeriveError(argon2::Error);

/// How much work it is to try a password: argon2id with a parallelism of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u32, u32)", into = "(u32, u32)")]
pub struct Cost {
    /// In KiB.
    memory: u32,
    passes: u32,
}

impl Cost {
    /// The lowest that is accepted. For tests: such a password is guessed in no time.
    pub const CHEAP: Self = Self { memory: 8, passes: 1 };

    /// Memory in KiB, and passes over it.
    ///
    /// # Errors
    /// Outside of the limits.
    pub fn new(memory: u32, passes: u32) -> Result<Self, CostError> {
        let is_within = MEMORY.contains(&memory)
            && PASSES.contains(&passes)
            && memory.saturating_mul(passes) <= WORK;
        is_within.then_some(Self { memory, passes }).ok_or(CostError { memory, passes })
    }
}

impl Default for Cost {
    /// 19 MiB and 2 passes, the minimum of OWASP's Password Storage Cheat Sheet: 18 to 34 ms in a release build here.
    fn default() -> Self {
        Self { memory: 19_456, passes: 2 }
    }
}

impl TryFrom<(u32, u32)> for Cost {
    type Error = CostError;

    fn try_from((memory, passes): (u32, u32)) -> Result<Self, CostError> {
        Self::new(memory, passes)
    }
}

impl From<Cost> for (u32, u32) {
    fn from(cost: Cost) -> Self {
        (cost.memory, cost.passes)
    }
}

/// What a password is verified with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verifier {
    Argon2id { salt: [u8; SALT], cost: Cost, hash: [u8; 32] },
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl Verifier {
    /// Makes the verifier of a password, with a salt that is used for nothing else. **Slow**.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn derive(password: &Password, salt: [u8; SALT], cost: Cost) -> Result<Self, DeriveError> {
        let hash = argon2id(password, &salt, cost).map_err(DeriveError)?;
        Ok(Self::Argon2id { salt, cost, hash })
    }
}

/// Whether this is the user's password; without a verifier there is no such user, and it takes as long to say no. **Slow**. A node
/// without memory for it answers no.
#[must_use]
pub fn verify(password: &Password, verifier: Option<&Verifier>) -> bool {
    let decoy = Verifier::Argon2id { salt: [0; SALT], cost: Cost::default(), hash: [0; 32] };
    let Verifier::Argon2id { salt, cost, hash } = verifier.unwrap_or(&decoy);
    let Ok(found) = argon2id(password, salt, *cost) else { return false };
    (found.ct_eq(hash) & Choice::from(u8::from(verifier.is_some()))).into()
}

/// Argon2id, version 1.3 (RFC 9106).
fn argon2id(password: &Password, salt: &[u8], cost: Cost) -> Result<[u8; 32], argon2::Error> {
    let params = Params::new(cost.memory, cost.passes, 1, Some(32))?;
    let mut hash = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
        password.as_bytes(),
        salt,
        &mut hash,
    )?;
    Ok(hash)
}

/// Recognizes a password that was verified before. Whoever knows the key can try passwords against it for next to nothing, so it
/// stays in the memory of one process.
#[derive(Clone, Copy)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of a user's password, under a random key.
    #[must_use]
    pub fn of(key: &[u8; 64], user: &UserName, password: &Password) -> Self {
        let mut mac = Hmac::<Sha256>::new(key.into());
        mac.update(&user.as_str().len().to_le_bytes());
        mac.update(user.as_str().as_bytes());
        mac.update(password.as_bytes());
        Self(mac.finalize().into_bytes().into())
    }
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vulpes_raft::net::wire;

    fn password(text: &str) -> Password {
        Password::new(text.as_bytes()).unwrap()
    }

    fn verifier(text: &str) -> Verifier {
        let salt = std::array::from_fn(|index| index as u8);
        Verifier::derive(&password(text), salt, Cost::CHEAP).unwrap()
    }

    /// The tag of RFC 9106 section 5.3 needs a secret and associated data; this one was computed by another implementation.
    #[test]
    fn golden_bytes() {
        let bytes = wire::encode(&verifier("pencil"));
        let salt: Vec<u8> = (0..16).collect();
        assert_eq!(bytes[..19], [&[0][..], &salt, &[8, 1]].concat());
        assert_eq!(bytes.len(), 19 + 32);
        assert_eq!(wire::decode::<Verifier>(&bytes).unwrap(), verifier("pencil"));
    }

    #[test]
    fn costs_beyond_the_limits_are_not_read() {
        let bytes = wire::encode(&verifier("pencil"));
        for (at, from, to) in [(17, 8, 7), (18, 1, 0), (18, 1, 65)] {
            let mut bytes = bytes.clone();
            assert_eq!(std::mem::replace(&mut bytes[at], to), from);
            assert!(wire::decode::<Verifier>(&bytes).is_err());
        }
        for (memory, passes) in [(262_144, 8), (8, 64), (19_456, 2)] {
            assert!(Cost::new(memory, passes).is_ok());
        }
        for (memory, passes) in [(262_145, 1), (262_144, 9), (u32::MAX, u32::MAX)] {
            assert_eq!(Cost::new(memory, passes), Err(CostError { memory, passes }));
        }
    }

    #[test]
    fn only_the_right_password_of_a_user_is_verified() {
        for (text, verifier, right) in [
            ("pencil", Some(verifier("pencil")), true),
            ("pencil ", Some(verifier("pencil")), false),
            ("Pencil", Some(verifier("pencil")), false),
            // Both spellings are one password (RFC 4013).
            ("\u{2168}", Some(verifier("IX")), true),
            ("pencil", None, false),
        ] {
            assert_eq!(verify(&password(text), verifier.as_ref()), right, "{text:?} {verifier:?}");
        }
    }

    #[test]
    fn fingerprints_differ_by_user_password_and_key() {
        let of = |key, user, text| {
            Fingerprint::of(&[key; 64], &UserName::new(user).unwrap(), &password(text))
        };
        assert!(of(1, "a", "bc") == of(1, "a", "bc"));
        assert!(of(1, "a", "bc") != of(1, "ab", "c"));
        assert!(of(1, "a", "bc") != of(1, "a", "bd"));
        assert!(of(1, "a", "bc") != of(2, "a", "bc"));
    }
}

//! The functions that verifiers are made with, and the 32 bytes that come out of them.
//!
//! Invariant: a [`Key`] is compared in constant time, overwritten when it is dropped, and never printed.
//!
//! Slow: [`argon2id`] and [`pbkdf2`].

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroize;

use super::cost::{Argon2Cost, Pbkdf2Cost};

/// 32 secret bytes. Persisted as they are.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Key(pub(super) [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ConstantTimeEq for Key {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl Eq for Key {}

/// Bytes of a salt.
const SALT: usize = 16;

/// What makes two users' verifiers differ although their passwords are the same. Persisted as it is.
pub(super) type Salt = [u8; SALT];

/// Argon2id, version 1.3, with a parallelism of one, to 32 bytes. Slow.
pub(super) fn argon2id(
    password: &[u8],
    salt: &[u8],
    cost: Argon2Cost,
) -> Result<Key, argon2::Error> {
    let params = Params::new(cost.memory(), cost.iterations(), 1, Some(32))?;
    let mut key = Key([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt, &mut key.0)?;
    Ok(key)
}

/// PBKDF2 with HMAC-SHA256, to 32 bytes. Slow.
pub(super) fn pbkdf2(password: &[u8], salt: &[u8], cost: Pbkdf2Cost) -> Key {
    Key(pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, cost.iterations()))
}

/// HMAC-SHA256 over several pieces.
pub(super) fn hmac(key: &[u8], pieces: &[&[u8]]) -> [u8; 32] {
    mac(key, pieces).finalize().into_bytes().into()
}

/// Whether a tag is the HMAC-SHA256 of a text, in constant time.
pub(super) fn is_hmac(key: &[u8], text: &[u8], tag: &[u8]) -> bool {
    mac(key, &[text]).verify_slice(tag).is_ok()
}

fn mac(key: &[u8], pieces: &[&[u8]]) -> Hmac<Sha256> {
    // HMAC shortens a key that is longer than a block, and fills up a shorter one (RFC 2104), as done here: the
    // library's constructor for any length has an error that can't occur.
    let mut block = [0; 64];
    match block.get_mut(..key.len()) {
        Some(start) => start.copy_from_slice(key),
        None => block[..32].copy_from_slice(&sha256(key)),
    }
    let mut mac = Hmac::<Sha256>::new(&block.into());
    block.zeroize();
    for piece in pieces {
        mac.update(piece);
    }
    mac
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::encoding::hex;

    /// RFC 4231, test cases 1, 2 and 6: a short key, a text key, and one longer than a block.
    #[test]
    fn hmac_vectors() {
        let cases: [(&[u8], &[u8], &str); 3] = [
            (
                &[0x0B; 20],
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xAA; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, text, expected) in cases {
            let (first, rest) = text.split_at(text.len() / 2);
            let tag = hmac(key, &[first, rest]);
            assert_eq!(hex(&tag), expected);
            assert!(is_hmac(key, text, &tag));
            assert!(!is_hmac(key, text, &tag[..31]));
        }
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(format!("{:?}", Key([1; 32])), "Key(..)");
        assert_eq!(Key([1; 32]), Key([1; 32]));
        assert_ne!(Key([1; 32]), Key([2; 32]));
    }
}

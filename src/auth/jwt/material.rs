//! What a key is made of, and what is wrong with one.
//!
//! Invariant: each is for exactly one algorithm, and large enough for it.
//!
//! Deliberately absent: the files that keys come from (`keys`, `spki`).

use std::ops::RangeInclusive;

use ed25519_dalek::VerifyingKey;
use zeroize::Zeroizing;

/// Keys that tokens are checked with.
pub(super) const KEYS: usize = 64;

/// Largest file of keys in bytes.
pub const KEY_FILE: usize = 256 << 10;

/// Shortest secret for HS256 in bytes (RFC 7518 section 3.2).
pub(super) const SECRET: usize = 32;

/// Bytes of an RSA modulus.
const MODULUS: RangeInclusive<usize> = 256..=1024;

/// Keys that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("there is no key for tokens: give a secret, or a file of public keys")]
    None,
    #[error("there are more than {} keys for tokens: remove those that are no longer used", KEYS)]
    TooMany,
    #[error("the file of keys has more than {} bytes", KEY_FILE)]
    TooLarge,
    #[error(
        "the secret has fewer than {} bytes: make a longer one (RFC 7518 section 3.2)",
        SECRET
    )]
    ShortSecret,
    #[error("the secret is the text of a key file: give it as a file of public keys")]
    KeyAsSecret,
    #[error("the file holds a private key: give only the public one, and keep that where tokens are made")]
    Private,
    #[error("the file is neither PEM with a PUBLIC KEY nor a JSON Web Key Set")]
    NotKeys,
    #[error("the key is of another kind than RSA with 2048 to 8192 bits, P-256 or Ed25519")]
    Unsupported,
    #[error("a leeway of {0} seconds is too long: correct the clocks")]
    Leeway(u64),
}

#[derive(Clone)]
pub(super) enum Material {
    Hs256(Zeroizing<Vec<u8>>),
    /// Big-endian, without zeros before them.
    Rs256 {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// Uncompressed.
    Es256([u8; 65]),
    EdDsa(VerifyingKey),
}

/// An RSA key from big-endian numbers.
pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Material, KeyError> {
    let trimmed = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        number[zeros..].to_vec()
    };
    let (modulus, exponent) = (trimmed(modulus), trimmed(exponent));
    match MODULUS.contains(&modulus.len()) && (1..=4).contains(&exponent.len()) {
        true => Ok(Material::Rs256 { modulus, exponent }),
        false => Err(KeyError::Unsupported),
    }
}

/// An Ed25519 key from its 32 bytes.
pub(super) fn ed25519(bytes: &[u8]) -> Result<Material, KeyError> {
    let bytes = bytes.try_into().map_err(|_| KeyError::Unsupported)?;
    match VerifyingKey::from_bytes(bytes) {
        Ok(key) if !key.is_weak() => Ok(Material::EdDsa(key)),
        _ => Err(KeyError::Unsupported),
    }
}

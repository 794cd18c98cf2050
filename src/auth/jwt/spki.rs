//! Public keys as PEM files have them: `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7) in DER.
//!
//! Invariant: nothing is read beyond a length that was checked, and nothing is left over.
//!
//! Deliberately absent: DER beyond what the three kinds of keys need.

use super::material::{ed25519, rsa, KeyError, Material};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// `rsaEncryption` with its empty parameters (RFC 8017 appendix C).
const RSA: &[u8] = &[6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1, 5, 0];
/// `id-ecPublicKey` on `secp256r1` (RFC 5480 section 2.1.1).
const P256: &[u8] =
    &[6, 7, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 2, 1, 6, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1, 7];
/// `id-Ed25519` (RFC 8410 section 3).
const ED25519: &[u8] = &[6, 3, 0x2B, 0x65, 0x70];

/// Reads a key.
///
/// # Errors
/// It is of another kind, or damaged.
pub(super) fn read(der: &[u8]) -> Result<Material, KeyError> {
    let (algorithm, key) = parts(der).ok_or(KeyError::NotKeys)?;
    match algorithm {
        RSA => {
            let (modulus, exponent) = rsa_numbers(key).ok_or(KeyError::NotKeys)?;
            rsa(modulus, exponent)
        }
        P256 => match <[u8; 65]>::try_from(key) {
            Ok(point) if point[0] == 4 => Ok(Material::Es256(point)),
            _ => Err(KeyError::Unsupported),
        },
        ED25519 => ed25519(key),
        _ => Err(KeyError::Unsupported),
    }
}

fn parts(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let info = whole(der, SEQUENCE)?;
    let (algorithm, rest) = value(info, SEQUENCE)?;
    let (unused_bits, key) = whole(rest, BIT_STRING)?.split_first()?;
    (*unused_bits == 0).then_some((algorithm, key))
}

/// `RSAPublicKey` (RFC 8017 appendix A.1.1).
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (modulus, rest) = value(whole(der, SEQUENCE)?, INTEGER)?;
    Some((modulus, whole(rest, INTEGER)?))
}

/// The contents of a value with nothing behind it.
fn whole(der: &[u8], tag: u8) -> Option<&[u8]> {
    let (contents, rest) = value(der, tag)?;
    rest.is_empty().then_some(contents)
}

/// The contents of the first value, and what is behind it.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        length @ 0..=0x7F => (usize::from(length), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    if *first != tag {
        return None;
    }
    rest.split_at_checked(length)
}

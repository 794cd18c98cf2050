//! The keys that tokens are checked with, from secrets, PEM and JWKS files.
//!
//! Invariant: there are at most [`KEYS`], each for exactly one algorithm. No private key is read.
//!
//! Deliberately absent: fetching them. P-384, RSA with PSS, and certificates.

use std::fmt;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use ed25519_dalek::Signature;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::Algorithm;
use ring::signature::{
    RsaPublicKeyComponents, UnparsedPublicKey, ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256,
};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::material::{ed25519, rsa, KeyError, Material, KEYS, KEY_FILE, SECRET};
use super::spki;
use crate::auth::hash::is_hmac;

/// Keys to check tokens with.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<TokenKey>);

/// One key, for one algorithm.
#[derive(Clone)]
pub(super) struct TokenKey {
    /// `kid`. A key without one is tried for each token.
    id: Option<String>,
    material: Material,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenKey({:?} {:?})", self.algorithm(), self.id)
    }
}

impl TokenKey {
    fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Hs256(_) => Algorithm::HS256,
            Material::Rs256 { .. } => Algorithm::RS256,
            Material::Es256(_) => Algorithm::ES256,
            Material::EdDsa(_) => Algorithm::EdDSA,
        }
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Hs256(secret) => is_hmac(secret, message, signature),
            Material::Rs256 { modulus: n, exponent: e } => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            Material::Es256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(message, signature)
                .is_ok(),
            Material::EdDsa(key) => Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }
}

impl Keys {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a secret for HS256.
    ///
    /// # Errors
    /// It is short, or can't be meant as a secret.
    pub fn add_secret(&mut self, secret: &[u8]) -> Result<(), KeyError> {
        if secret.trim_ascii_start().starts_with(b"-----BEGIN") {
            return Err(KeyError::KeyAsSecret);
        }
        if secret.len() > KEY_FILE {
            return Err(KeyError::TooLarge);
        }
        if secret.len() < SECRET {
            return Err(KeyError::ShortSecret);
        }
        self.add(None, Material::Hs256(secret.to_vec().into()))
    }

    /// Adds the public key of a PEM file (`BEGIN PUBLIC KEY`): RSA for RS256, P-256 for ES256, Ed25519 for EdDSA.
    ///
    /// # Errors
    /// It has no such key, or more than one, or a private one.
    pub fn add_pem(&mut self, pem: &[u8]) -> Result<(), KeyError> {
        if pem.len() > KEY_FILE {
            return Err(KeyError::TooLarge);
        }
        let mut found = None;
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            match section.map_err(|_| KeyError::NotKeys)? {
                (SectionKind::PublicKey, der) if found.is_none() => found = Some(der),
                (SectionKind::PrivateKey, _)
                | (SectionKind::RsaPrivateKey, _)
                | (SectionKind::EcPrivateKey, _) => return Err(KeyError::Private),
                _ => return Err(KeyError::NotKeys),
            }
        }
        self.add(None, spki::read(&found.ok_or(KeyError::NotKeys)?)?)
    }

    /// Adds the keys of a JSON Web Key Set (RFC 7517). Those of other kinds or for other purposes are ignored (section 5).
    ///
    /// # Errors
    /// It isn't one, has a private key, or has too many. Then none is added.
    pub fn add_jwks(&mut self, document: &[u8]) -> Result<(), KeyError> {
        if document.len() > KEY_FILE {
            return Err(KeyError::TooLarge);
        }
        let set: Value = serde_json::from_slice(document).map_err(|_| KeyError::NotKeys)?;
        let values = set.get("keys").and_then(Value::as_array).ok_or(KeyError::NotKeys)?;
        if values.iter().any(|value| value.get("d").is_some()) {
            return Err(KeyError::Private);
        }
        let mut keys = self.clone();
        for value in values {
            let key = Jwk::deserialize(value).ok();
            if let Some((id, material)) = key.and_then(material) {
                keys.add(id.as_deref(), material)?;
            }
        }
        *self = keys;
        Ok(())
    }

    /// The keys that a token's header may mean.
    pub(super) fn fitting<'a>(
        &'a self,
        algorithm: Algorithm,
        id: Option<&'a str>,
    ) -> impl Iterator<Item = &'a TokenKey> {
        let is_meant = move |own: Option<&str>| own.is_none() || id.is_none() || own == id;
        self.0.iter().filter(move |key| key.algorithm() == algorithm && is_meant(key.id.as_deref()))
    }

    fn add(&mut self, id: Option<&str>, material: Material) -> Result<(), KeyError> {
        if self.0.len() == KEYS {
            return Err(KeyError::TooMany);
        }
        self.0.push(TokenKey { id: id.map(str::to_owned), material });
        Ok(())
    }
}

/// A key that is for checking signatures of an algorithm that is known here.
fn material(key: Jwk) -> Option<(Option<String>, Material)> {
    let common = key.common;
    let is_for_encryption =
        common.public_key_use.is_some_and(|r#use| r#use != PublicKeyUse::Signature);
    let operations = common.key_operations;
    let cannot_verify = operations.is_some_and(|all| !all.contains(&KeyOperations::Verify));
    if is_for_encryption || cannot_verify {
        return None;
    }
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let (algorithm, material) = match &key.algorithm {
        AlgorithmParameters::OctetKey(key) => {
            let secret = Zeroizing::new(decode(&key.value)?);
            let is_long = secret.len() >= SECRET;
            (KeyAlgorithm::HS256, is_long.then_some(Material::Hs256(secret))?)
        }
        AlgorithmParameters::RSA(key) => {
            (KeyAlgorithm::RS256, rsa(&decode(&key.n)?, &decode(&key.e)?).ok()?)
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            let point = [vec![4], decode(&key.x)?, decode(&key.y)?].concat();
            (KeyAlgorithm::ES256, Material::Es256(point.try_into().ok()?))
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (KeyAlgorithm::EdDSA, ed25519(&decode(&key.x)?).ok()?)
        }
        _ => return None,
    };
    let is_for_it = common.key_algorithm.is_none_or(|named| named == algorithm);
    is_for_it.then_some((common.key_id, material))
}

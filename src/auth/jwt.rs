//! JSON Web Tokens as passwords and tickets (RFC 7519, RFC 8725).
//!
//! Invariant: a key is for one algorithm, and the token's header has to name that one: no public key is taken for a
//! secret, and `none` is nothing. Claims are read only when the signature is right. A claim of the wrong type is an
//! error, not a missing one.
//!
//! Not slow: a signature takes less than a millisecond.
//!
//! Deliberately absent: tokens that never expire, roles in a token, encrypted tokens, keys that the token itself brings (`jwk`, `x5c`, `jku`), revocation, and
//! reading files (`server`).

mod keys;
mod material;
mod spki;

pub use keys::Keys;
pub use material::{KeyError, KEY_FILE};

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use jsonwebtoken::decode_header;
use serde_json::{Map, Value};

use super::{TextError, UserName};

/// Largest token in bytes.
const TOKEN: usize = 8192;

/// Longest difference between the clock of who issues tokens and this one, in seconds.
pub const LEEWAY: u64 = 600;

/// What a token has to say.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Who may issue tokens (`iss`); without any, everybody with the key.
    pub issuers: Vec<String>,
    /// Whom tokens are for (`aud`); without any, only tokens that are for nobody in particular (RFC 7519 section
    /// 4.1.3).
    pub audiences: Vec<String>,
    /// How much the issuer's clock may differ, in seconds.
    pub leeway: u64,
}

/// Whom a token is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: UserName,
    /// When it ceases to be valid, in Unix seconds, the leeway included: until then the session may last.
    pub expires: u64,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token has more than {} bytes", TOKEN)]
    TooLong,
    #[error("it is not a signed JSON Web Token")]
    Malformed,
    #[error("the token's header requires an extension: there are none here")]
    Extension,
    #[error(
        "no key has the token's key id (kid) and algorithm: add the key, or correct its algorithm"
    )]
    NoKey,
    #[error("the token's signature is wrong: it was made with another key, or changed")]
    WrongSignature,
    #[error("the token's claim {0} is missing, too long, or not of the right type")]
    Claim(&'static str),
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet: compare the clocks of this machine and the issuer")]
    NotYet,
    #[error("the token is of an issuer (iss) that is not in the configuration")]
    Issuer,
    #[error("the token is for an audience (aud) that is not in the configuration")]
    Audience,
    #[error("the token's user name is refused: {0}")]
    UserName(#[from] TextError),
}

/// Checks tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    keys: Keys,
    rules: Rules,
}

/// Whether a password or ticket is meant as a token: its header is a JSON object in base64url, and it has three parts.
/// No one else's password begins like this by accident.
#[must_use]
pub fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl Tokens {
    /// With at least one key.
    ///
    /// # Errors
    /// Without keys, or with rules that can't be meant.
    pub fn new(keys: Keys, rules: Rules) -> Result<Self, KeyError> {
        if keys.is_empty() {
            return Err(KeyError::None);
        }
        if rules.leeway > LEEWAY {
            return Err(KeyError::Leeway(rules.leeway));
        }
        Ok(Self { keys, rules })
    }

    /// Whom a token is about, at a time in Unix seconds.
    ///
    /// # Errors
    /// It is not a token, is not of one of the keys, or doesn't say what it has to.
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, TokenError> {
        if token.len() > TOKEN {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (_, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenError::Extension);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        let mut keys = self.keys.fitting(header.alg, header.kid.as_deref()).peekable();
        keys.peek().ok_or(TokenError::NoKey)?;
        if !keys.any(|key| key.verifies(message.as_bytes(), &signature)) {
            return Err(TokenError::WrongSignature);
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenError::Malformed)?;
        let claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
        self.identity(&claims, now)
    }

    fn identity(&self, claims: &Map<String, Value>, now: u64) -> Result<Identity, TokenError> {
        let rules = &self.rules;
        let expires = seconds(claims, "exp")?.ok_or(TokenError::Claim("exp"))?;
        let expires = expires.saturating_add(rules.leeway);
        if now >= expires {
            return Err(TokenError::Expired);
        }
        if seconds(claims, "nbf")?.is_some_and(|first| first > now.saturating_add(rules.leeway)) {
            return Err(TokenError::NotYet);
        }
        if !rules.issuers.is_empty() {
            let issuer = claims.get("iss").ok_or(TokenError::Claim("iss"))?;
            let issuer = issuer.as_str().ok_or(TokenError::Claim("iss"))?;
            if !rules.issuers.iter().any(|known| known == issuer) {
                return Err(TokenError::Issuer);
            }
        }
        let audiences = match claims.get("aud") {
            Some(audiences) => texts(audiences).ok_or(TokenError::Claim("aud"))?,
            None => Vec::new(),
        };
        let is_for_nobody = audiences.is_empty() && rules.audiences.is_empty();
        let is_own = |name: &&str| rules.audiences.iter().any(|own| own == name);
        if !is_for_nobody && !audiences.iter().any(is_own) {
            return Err(TokenError::Audience);
        }
        let user = claims.get("sub").and_then(Value::as_str);
        let user = UserName::new(user.ok_or(TokenError::Claim("sub"))?)?;
        Ok(Identity { user, expires })
    }
}

/// A `NumericDate` (RFC 7519 section 2): it may have a fraction.
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, TokenError> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    // A conversion of a float to an integer saturates, so what is before 1970 is at 1970.
    let seconds = value.as_u64().or_else(|| value.as_f64().map(|seconds| seconds as u64));
    seconds.map(Some).ok_or(TokenError::Claim(name))
}

/// A text, or a list of texts.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

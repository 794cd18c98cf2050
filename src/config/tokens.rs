//! JSON Web Tokens as passwords: where the keys are that they are checked with, and what they have to say.
//!
//! Invariant: a [`TokenConfig`] that exists names exactly one file of keys.
//!
//! Deliberately absent: what is in the file (`server`).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Problem;

/// Longest difference between the clock of who issues tokens and the node's, in seconds.
const LEEWAY: u64 = 600;

/// The same, unless the file says otherwise.
const USUAL_LEEWAY: u64 = 30;

/// Which tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    pub keys: KeyFile,
    /// Who may issue tokens; without any, everybody with the key.
    pub issuers: Vec<String>,
    /// Whom tokens are for; without any, only tokens that are for nobody in particular.
    pub audiences: Vec<String>,
    /// In seconds.
    pub leeway: u64,
}

/// A file of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFile {
    /// A JSON Web Key Set.
    Jwks(PathBuf),
    /// A public key in PEM: RSA, P-256 or Ed25519.
    PublicKey(PathBuf),
    /// A secret for HS256.
    Secret(PathBuf),
}

impl KeyFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Jwks(path) | Self::PublicKey(path) | Self::Secret(path) => path,
        }
    }
}

/// A mistake in `[jwt]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenMistake {
    #[error("name one file of keys: jwks, public_key or secret")]
    Keys,
    #[error("leeway_seconds is {0}; it may be {LEEWAY} at most: correct the clocks")]
    Leeway(u64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenTable {
    jwks: Option<PathBuf>,
    public_key: Option<PathBuf>,
    secret: Option<PathBuf>,
    #[serde(default)]
    issuers: Vec<String>,
    #[serde(default)]
    audiences: Vec<String>,
    leeway_seconds: Option<u64>,
}

/// Reads the table. Paths are relative to a folder.
pub(super) fn check(
    table: TokenTable,
    beside: &Path,
    problems: &mut Vec<Problem>,
) -> Option<TokenConfig> {
    let files = [
        table.jwks.map(|path| KeyFile::Jwks(beside.join(path))),
        table.public_key.map(|path| KeyFile::PublicKey(beside.join(path))),
        table.secret.map(|path| KeyFile::Secret(beside.join(path))),
    ];
    let mut files = files.into_iter().flatten();
    let keys = files.next().filter(|keys| keys.path() != beside.join(""));
    let keys = keys.filter(|_| files.next().is_none());
    let leeway = table.leeway_seconds.unwrap_or(USUAL_LEEWAY);
    if keys.is_none() {
        problems.push(Problem::Tokens(TokenMistake::Keys));
    }
    if leeway > LEEWAY {
        problems.push(Problem::Tokens(TokenMistake::Leeway(leeway)));
    }
    Some(TokenConfig { keys: keys?, issuers: table.issuers, audiences: table.audiences, leeway })
}

/// Writes the table, line by line. `text` writes a string as TOML has it.
pub(super) fn write(
    tokens: &TokenConfig,
    text: impl Fn(&str) -> String,
    line: &mut impl FnMut(String),
) {
    let name = match &tokens.keys {
        KeyFile::Jwks(_) => "jwks",
        KeyFile::PublicKey(_) => "public_key",
        KeyFile::Secret(_) => "secret",
    };
    let list =
        |names: &[String]| names.iter().map(|name| text(name)).collect::<Vec<_>>().join(", ");
    line("\n[jwt]  # tokens as passwords; the file is read again when it changes".into());
    line(format!("{name} = {}", text(&tokens.keys.path().to_string_lossy())));
    line(format!("issuers = [{}]", list(&tokens.issuers)));
    line(format!("audiences = [{}]", list(&tokens.audiences)));
    line(format!("leeway_seconds = {}", tokens.leeway));
}

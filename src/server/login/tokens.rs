//! The keys that tokens are checked with, as the file has them now.
//!
//! Invariant: what can't be used changes nothing: the node goes on with the keys that it has. Sessions that are open go on until
//! their token expires.
//!
//! Deliberately absent: fetching keys over the network, and revocation. Who must not come in any more is disabled as a user.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::auth::jwt::{Identity, KeyError, Keys, Rules, TokenError, Tokens, KEY_FILE};
use crate::config::tokens::{KeyFile, TokenConfig};

/// How often the node looks whether the file has changed.
const LOOK: Duration = Duration::from_secs(3);

/// A file of keys that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("can't read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{} has no keys that tokens can be checked with: {error}", path.display())]
    Keys { path: PathBuf, error: KeyError },
}

/// What shows that a file is another one; nothing where there is none.
type Seen = Option<(u64, i64, i64, u64)>;

/// Checks tokens.
pub(crate) struct TokenFiles {
    config: TokenConfig,
    tokens: RwLock<Arc<Tokens>>,
    /// The file as it was just before it was read when the node started.
    seen: Seen,
}

impl TokenFiles {
    /// Reads the file.
    pub(crate) fn load(config: &TokenConfig) -> Result<Arc<Self>, TokenFileError> {
        let seen = look(config.keys.path());
        let tokens = RwLock::new(Arc::new(read(config)?));
        Ok(Arc::new(Self { config: config.clone(), tokens, seen }))
    }

    /// Whom a token is about, at a time in Unix seconds.
    pub(super) fn verify(&self, token: &str, now: u64) -> Result<Identity, TokenError> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone();
        tokens.verify(token, now)
    }

    /// Reads the file again when it changes, for as long as the node lives.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut seen = self.seen;
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let these = self.clone();
            // The disk may take its time.
            let looked = tokio::task::spawn_blocking(move || these.reload_changed(seen));
            seen = looked.await.unwrap_or(seen);
        }
    }

    /// Reads the file if it is not the one that was seen; gives the one that is seen now.
    fn reload_changed(&self, seen: Seen) -> Seen {
        let found = look(self.config.keys.path());
        if found == seen {
            return seen;
        }
        let path = self.config.keys.path().display();
        match read(&self.config) {
            Ok(tokens) => {
                *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
                tracing::info!("tokens are checked with the keys that are in {path} now");
            }
            Err(error) => tracing::error!(
                "tokens are checked with the keys as they were, until this is corrected: {error}"
            ),
        }
        found
    }
}

fn look(path: &Path) -> Seen {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
}

fn read(config: &TokenConfig) -> Result<Tokens, TokenFileError> {
    let path = config.keys.path();
    let mut content = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(KEY_FILE as u64 + 1).read_to_end(&mut content));
    read.map_err(|error| TokenFileError::Read { path: path.to_owned(), error })?;
    let mut keys = Keys::default();
    let added = match &config.keys {
        KeyFile::Jwks(_) => keys.add_jwks(&content),
        KeyFile::PublicKey(_) => keys.add_pem(&content),
        KeyFile::Secret(_) => {
            let secret = content.strip_suffix(b"\n").unwrap_or(&content);
            keys.add_secret(secret.strip_suffix(b"\r").unwrap_or(secret))
        }
    };
    let rules = Rules {
        issuers: config.issuers.clone(),
        audiences: config.audiences.clone(),
        leeway: config.leeway,
    };
    let tokens = added.and_then(|()| Tokens::new(keys, rules));
    tokens.map_err(|error| TokenFileError::Keys { path: path.to_owned(), error })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The header of a token by HS256, and claims that expire far from now.
    const SIGNED: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqb2UiLCJleHAiOjQxMDI0NDQ4MDB9";

    /// The keys of a cluster whose tokens are [`signed`].
    pub(in super::super) fn files(folder: &Path) -> Arc<TokenFiles> {
        let path = folder.join("keys");
        std::fs::write(&path, [b'a'; 32]).unwrap();
        let keys = KeyFile::Secret(path);
        let config = TokenConfig { keys, issuers: vec![], audiences: vec![], leeway: 0 };
        TokenFiles::load(&config).unwrap()
    }

    /// The token of `joe`.
    pub(in super::super) fn signed() -> String {
        format!("{SIGNED}.YbW61LOsPAKAgz_CISMNbHM0To_XiW0kxM3ajJWkmWU")
    }

    #[test]
    fn the_keys_are_those_of_the_file_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let keys = KeyFile::Secret(path.clone());
        let config = TokenConfig { keys, issuers: vec![], audiences: vec![], leeway: 0 };
        let load = || TokenFiles::load(&config).map(|_| ()).unwrap_err().to_string();
        assert!(load().starts_with("can't read "), "{}", load());
        std::fs::write(&path, "short").unwrap();
        assert!(load().contains("fewer than 32 bytes"), "{}", load());
        std::fs::write(&path, [[b'a'; 32].as_slice(), b"\r\n"].concat()).unwrap();
        let files = TokenFiles::load(&config).unwrap();
        let token = format!("{SIGNED}.YbW61LOsPAKAgz_CISMNbHM0To_XiW0kxM3ajJWkmWU");
        let other = format!("{SIGNED}.GRbNat9caMTLDWk3xj8CvffecIBh--IpEeHya8VEE7I");
        let user = |token: &str| files.verify(token, 1).map(|found| found.user.as_str().to_owned());
        assert_eq!(user(&token), Ok("joe".to_owned()));
        assert_eq!(user(&other), Err(TokenError::WrongSignature));
        let seen = files.reload_changed(files.seen);
        assert_eq!(seen, files.seen);
        std::fs::write(&path, [b'b'; 40]).unwrap();
        let seen = files.reload_changed(seen);
        assert_ne!(seen, files.seen);
        assert_eq!(user(&other), Ok("joe".to_owned()));
        assert_eq!(user(&token), Err(TokenError::WrongSignature));
        // What can't be used changes nothing.
        std::fs::remove_file(&path).unwrap();
        files.reload_changed(seen);
        assert_eq!(user(&other), Ok("joe".to_owned()));
    }
}

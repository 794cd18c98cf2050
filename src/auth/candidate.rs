//! The verifiers that a login is checked with, whether there is such a user or not.
//!
//! Invariant: a user that doesn't exist, one that lacks the verifier of a method, and one that is disabled get a
//! challenge and a computation as all others do, and are refused at the end. What a stranger sees of a name is the same
//! each time, at each node.
//!
//! Deliberately absent: hiding that a user's password was set before its verifiers had the form that they have now.

use std::fmt;

use super::cost::Cost;
use super::cryptosign::PublicKey;
use super::hash::{hmac, Key, Salt};
use super::text::UserName;
use super::verifiers::{CraVerifier, PlainVerifier, ScramArgon2id, ScramKeys, ScramPbkdf2};
use super::Verifiers;
use crate::types::login::Method;

/// A verifier, and whether it may succeed.
#[derive(Clone, Debug)]
pub(super) struct Part<T> {
    pub(super) verifier: T,
    pub(super) admits: bool,
}

/// One user's verifiers for one login, made up where there are none.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub(super) plain: Part<PlainVerifier>,
    pub(super) wampcra: Part<CraVerifier>,
    pub(super) scram_pbkdf2: Part<ScramPbkdf2>,
    pub(super) scram_argon2id: Part<ScramArgon2id>,
    pub(super) keys: Part<Vec<PublicKey>>,
    methods: Vec<Method>,
}

impl Candidate {
    /// The methods that the user has by its password. One that doesn't exist has what a new one would have.
    #[must_use]
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// Whether a key is the user's, and whether the user may log in with it.
    #[must_use]
    pub fn has_key(&self, key: PublicKey) -> (bool, bool) {
        let has = self.keys.verifier.contains(&key);
        (has, has && self.keys.admits)
    }

    /// Lets no login succeed: for a user that is disabled, whose challenges stay what they were.
    #[must_use]
    pub fn locked(mut self) -> Self {
        self.plain.admits = false;
        self.wampcra.admits = false;
        self.scram_pbkdf2.admits = false;
        self.scram_argon2id.admits = false;
        self.keys.admits = false;
        self
    }
}

/// Makes up verifiers that can't be told from real ones.
#[derive(Clone)]
pub struct Decoys {
    secret: Key,
    /// All nodes have it, and users with other methods than a password.
    shared: bool,
    cost: Cost,
}

impl fmt::Debug for Decoys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Decoys").field("cost", &self.cost).finish_non_exhaustive()
    }
}

impl Decoys {
    /// Of the secret that users' verifiers contain. Who knows it can find out which users exist, no more.
    #[must_use]
    pub fn of(verifiers: &Verifiers) -> Option<Self> {
        let secret = verifiers.decoys.clone()?;
        Some(Self { secret, shared: true, cost: Cost::default() })
    }

    /// Of a random secret: as long as there are only users from before there was another method than a password.
    #[must_use]
    pub fn before_all(secret: [u8; 32]) -> Self {
        Self { secret: Key(secret), shared: false, cost: Cost::default() }
    }

    /// What to check a login with: the user's verifiers, or `None` if there is no such user.
    #[must_use]
    pub fn candidate(&self, user: &UserName, known: Option<&Verifiers>) -> Candidate {
        let methods = self.methods(known);
        let known = known.cloned().unwrap_or_default();
        Candidate {
            plain: part(known.plain, || PlainVerifier {
                salt: self.salt("plain", user),
                cost: self.cost.plain,
                hash: self.key("plain hash", user),
            }),
            wampcra: part(known.wampcra, || CraVerifier {
                salt: self.salt("wampcra", user),
                cost: self.cost.wampcra,
                key: self.key("wampcra key", user),
            }),
            scram_pbkdf2: part(known.scram_pbkdf2, || ScramPbkdf2 {
                salt: self.salt("scram pbkdf2", user),
                cost: self.cost.scram_pbkdf2,
                keys: ScramKeys::new(&self.key("scram pbkdf2 keys", user)),
            }),
            scram_argon2id: part(known.scram_argon2id, || ScramArgon2id {
                salt: self.salt("scram argon2id", user),
                cost: self.cost.scram_argon2id,
                keys: ScramKeys::new(&self.key("scram argon2id keys", user)),
            }),
            keys: Part { verifier: known.keys, admits: true },
            methods,
        }
    }

    fn methods(&self, known: Option<&Verifiers>) -> Vec<Method> {
        let has = |method: &Method| match (method, known) {
            // They depend on the key or certificate.
            (Method::Cryptosign | Method::Tls, _) => false,
            (Method::Ticket, None) => true,
            (Method::WampCra | Method::Scram, None) => self.shared,
            (Method::Scram, Some(known)) => known.scram_argon2id.is_some(),
            (Method::Ticket, Some(known)) => known.plain.is_some(),
            (Method::WampCra, Some(known)) => known.wampcra.is_some(),
        };
        Method::ALL.into_iter().filter(has).collect()
    }

    fn salt(&self, purpose: &str, user: &UserName) -> Salt {
        let mut salt = Salt::default();
        let length = salt.len();
        salt.copy_from_slice(&self.key(purpose, user).0[..length]);
        salt
    }

    /// A purpose has no zero byte, so no two pairs of purpose and name are one text.
    fn key(&self, purpose: &str, user: &UserName) -> Key {
        Key(hmac(&self.secret.0, &[purpose.as_bytes(), &[0], user.as_str().as_bytes()]))
    }
}

fn part<T>(known: Option<T>, decoy: impl FnOnce() -> T) -> Part<T> {
    match known {
        Some(verifier) => Part { verifier, admits: true },
        None => Part { verifier: decoy(), admits: false },
    }
}

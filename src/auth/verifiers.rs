//! What the cluster stores of a user to recognize it by.
//!
//! Invariant: nothing here can be turned back into the password but by trying, at the [`Cost`] stored with it. What is
//! read back has the right sizes and a cost within its limits: no record makes a node compute for minutes or take
//! gigabytes. Each verifier has its own salt, or one of them would contain the secret of another.
//!
//! Persisted: one [`Verifier`] after the other. Their variants and fields keep their order; new ones go last.
//!
//! Deliberately absent: where users are stored.

use serde::{Deserialize, Serialize};
use vulpes_raft::net::wire;

use super::cost::{Argon2Cost, Cost, Pbkdf2Cost};
use super::cryptosign::PublicKey;
use super::encoding::base64;
use super::hash::{argon2id, hmac, pbkdf2, sha256, Key, Salt};
use super::text::Password;

/// No verifiers could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("argon2id can't be computed: {0}; free some memory")]
pub struct DeriveError(argon2::Error);

/// One user's verifiers, one for each kind of login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verifiers {
    pub(super) plain: Option<PlainVerifier>,
    pub(super) wampcra: Option<CraVerifier>,
    pub(super) scram_pbkdf2: Option<ScramPbkdf2>,
    pub(super) scram_argon2id: Option<ScramArgon2id>,
    /// What verifiers are made up with for users that don't exist: the same for all users whose password is set after
    /// the first one's.
    pub(super) decoys: Option<Key>,
    /// For `cryptosign`.
    pub keys: Vec<PublicKey>,
}

/// What is stored.
#[derive(Serialize, Deserialize)]
enum Verifier {
    Argon2id(PlainVerifier),
    WampCra(CraVerifier),
    Decoys(Key),
    ScramPbkdf2(ScramPbkdf2),
    ScramArgon2id(ScramArgon2id),
    Key(PublicKey),
}

/// For a password in clear: MQTT's, HTTP's, WAMP's `ticket`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlainVerifier {
    pub(super) salt: Salt,
    pub(super) cost: Argon2Cost,
    pub(super) hash: Key,
}

/// For `wampcra`. **Whoever reads the key from a disk or a backup can log in with `wampcra` as this user**, without
/// knowing the password: the method prescribes it so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CraVerifier {
    pub(super) salt: Salt,
    pub(super) cost: Pbkdf2Cost,
    /// The key is the base64 text of this.
    pub(super) key: Key,
}

/// RFC 5802 section 3: who has these can check a proof, but not make one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScramKeys {
    pub(super) stored: Key,
    pub(super) server: Key,
}

/// For MQTT's `SCRAM-SHA-256`, and `wamp-scram` with `pbkdf2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScramPbkdf2 {
    pub(super) salt: Salt,
    pub(super) cost: Pbkdf2Cost,
    pub(super) keys: ScramKeys,
}

/// For `wamp-scram` with `argon2id13`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScramArgon2id {
    pub(super) salt: Salt,
    pub(super) cost: Argon2Cost,
    pub(super) keys: ScramKeys,
}

impl ScramKeys {
    pub(super) fn new(salted_password: &Key) -> Self {
        let client = Key(hmac(&salted_password.0, &[b"Client Key"]));
        let server = Key(hmac(&salted_password.0, &[b"Server Key"]));
        Self { stored: Key(sha256(&client.0)), server }
    }
}

/// Random bytes for the verifiers of one password: never use them for another.
#[derive(Clone, Copy)]
pub struct Salts {
    plain: Salt,
    wampcra: Salt,
    decoys: [u8; 32],
    scram_pbkdf2: Salt,
    scram_argon2id: Salt,
}

impl Salts {
    /// Draws them from a cryptographic generator.
    #[must_use]
    pub fn draw(random: impl Fn() -> u64) -> Self {
        Self {
            plain: draw(&random),
            wampcra: draw(&random),
            decoys: draw(&random),
            scram_pbkdf2: draw(&random),
            scram_argon2id: draw(&random),
        }
    }
}

/// Random bytes.
#[must_use]
pub fn draw<const N: usize>(random: impl Fn() -> u64) -> [u8; N] {
    let mut bytes = [0; N];
    for part in bytes.chunks_mut(8) {
        part.copy_from_slice(&random().to_le_bytes()[..part.len()]);
    }
    bytes
}

/// The salt of `wampcra` as its clients use it: as text, without decoding it.
pub(super) fn cra_salt(salt: &Salt) -> String {
    base64(salt)
}

impl Verifiers {
    /// Makes the verifiers of a password. **Slow**. `other` are another user's: both make up the same verifiers for users
    /// that don't exist.
    ///
    /// # Errors
    /// There is no memory for argon2id.
    pub fn derive(
        password: &Password,
        salts: &Salts,
        cost: &Cost,
        other: Option<&Self>,
    ) -> Result<Self, DeriveError> {
        let argon2id =
            |salt: &Salt, cost| argon2id(password.prepared(), salt, cost).map_err(DeriveError);
        let (salt, plain) = (salts.plain, cost.plain);
        let plain = PlainVerifier { salt, cost: plain, hash: argon2id(&salt, plain)? };
        let (salt, wampcra) = (salts.wampcra, cost.wampcra);
        // Its clients don't prepare passwords.
        let key = pbkdf2(password.raw(), cra_salt(&salt).as_bytes(), wampcra);
        let wampcra = CraVerifier { salt, cost: wampcra, key };
        let (salt, scram) = (salts.scram_pbkdf2, cost.scram_pbkdf2);
        let keys = ScramKeys::new(&pbkdf2(password.prepared(), &salt, scram));
        let scram_pbkdf2 = ScramPbkdf2 { salt, cost: scram, keys };
        let (salt, scram) = (salts.scram_argon2id, cost.scram_argon2id);
        let keys = ScramKeys::new(&argon2id(&salt, scram)?);
        let scram_argon2id = ScramArgon2id { salt, cost: scram, keys };
        let decoys = other.and_then(|other| other.decoys.clone());
        Ok(Self {
            plain: Some(plain),
            wampcra: Some(wampcra),
            scram_pbkdf2: Some(scram_pbkdf2),
            scram_argon2id: Some(scram_argon2id),
            decoys: Some(decoys.unwrap_or(Key(salts.decoys))),
            keys: Vec::new(),
        })
    }

    /// Whether others can be made up that look like these.
    #[must_use]
    pub fn has_decoys(&self) -> bool {
        self.decoys.is_some()
    }

    /// The same, without what a client could log in with instead of the password: they may be in a file that somebody carries about.
    #[must_use]
    pub fn without_keys_to_log_in_with(self) -> Self {
        Self { wampcra: None, ..self }
    }

    /// The form in which they are stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { plain, wampcra, scram_pbkdf2, scram_argon2id, decoys, keys } = self.clone();
        let all = [
            plain.map(Verifier::Argon2id),
            wampcra.map(Verifier::WampCra),
            decoys.map(Verifier::Decoys),
            scram_pbkdf2.map(Verifier::ScramPbkdf2),
            scram_argon2id.map(Verifier::ScramArgon2id),
        ];
        let keys = keys.into_iter().map(Verifier::Key);
        all.into_iter().flatten().chain(keys).flat_map(|one| wire::encode(&one)).collect()
    }

    /// Reads them back; `None` if a newer version made them, or nobody.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut all = Self::default();
        while !bytes.is_empty() {
            let (verifier, rest) = wire::decode_front(bytes).ok()?;
            bytes = rest;
            match verifier {
                Verifier::Argon2id(plain) => all.plain = Some(plain),
                Verifier::WampCra(wampcra) => all.wampcra = Some(wampcra),
                Verifier::Decoys(decoys) => all.decoys = Some(decoys),
                Verifier::ScramPbkdf2(scram) => all.scram_pbkdf2 = Some(scram),
                Verifier::ScramArgon2id(scram) => all.scram_argon2id = Some(scram),
                Verifier::Key(key) => all.keys.push(key),
            }
        }
        Some(all)
    }
}

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
use super::encoding::base64;
use super::hash::{argon2id, pbkdf2, Key, Salt};
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
    /// What verifiers are made up with for users that don't exist: the same for all users whose password is set after
    /// the first one's.
    pub(super) decoys: Option<Key>,
}

/// What is stored.
#[derive(Serialize, Deserialize)]
enum Verifier {
    Argon2id(PlainVerifier),
    WampCra(CraVerifier),
    Decoys(Key),
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

/// Random bytes for the verifiers of one password: never use them for another.
#[derive(Clone, Copy)]
pub struct Salts {
    plain: Salt,
    wampcra: Salt,
    decoys: [u8; 32],
}

impl Salts {
    /// Draws them from a cryptographic generator.
    #[must_use]
    pub fn draw(random: impl Fn() -> u64) -> Self {
        Self { plain: draw(&random), wampcra: draw(&random), decoys: draw(&random) }
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
        let (salt, plain) = (salts.plain, cost.plain);
        let hash = argon2id(password.prepared(), &salt, plain).map_err(DeriveError)?;
        let plain = PlainVerifier { salt, cost: plain, hash };
        let (salt, cost) = (salts.wampcra, cost.wampcra);
        // Its clients don't prepare passwords.
        let key = pbkdf2(password.raw(), cra_salt(&salt).as_bytes(), cost);
        let wampcra = CraVerifier { salt, cost, key };
        let decoys = other.and_then(|other| other.decoys.clone());
        let decoys = decoys.unwrap_or(Key(salts.decoys));
        Ok(Self { plain: Some(plain), wampcra: Some(wampcra), decoys: Some(decoys) })
    }

    /// Whether others can be made up that look like these.
    #[must_use]
    pub fn has_decoys(&self) -> bool {
        self.decoys.is_some()
    }

    /// The form in which they are stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { plain, wampcra, decoys } = self.clone();
        let all = [
            plain.map(Verifier::Argon2id),
            wampcra.map(Verifier::WampCra),
            decoys.map(Verifier::Decoys),
        ];
        all.iter().flatten().flat_map(wire::encode).collect()
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
            }
        }
        Some(all)
    }
}

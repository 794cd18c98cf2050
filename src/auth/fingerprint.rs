//! Recognizing a password that was verified before.
//!
//! Invariant: a fingerprint is worth nothing without its key, and never leaves the process.
//!
//! Deliberately absent: how long one is remembered (`server`).

use subtle::ConstantTimeEq;

use super::hash::hmac;
use super::text::{Password, UserName};

/// Recognizes a password that was verified before. Whoever knows the key can try passwords against it for next to nothing, so it
/// stays in the memory of one process.
#[derive(Clone, Copy)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of a user's password, under a random key.
    #[must_use]
    pub fn of(key: &[u8; 64], user: &UserName, password: &Password) -> Self {
        let user = user.as_str();
        let pieces = [&user.len().to_le_bytes()[..], user.as_bytes(), password.prepared()];
        Self(hmac(key, &pieces))
    }
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_differ_by_user_password_and_key() {
        let of = |key, user, text: &str| {
            let password = Password::new(text.as_bytes()).unwrap();
            Fingerprint::of(&[key; 64], &UserName::new(user).unwrap(), &password)
        };
        assert!(of(1, "a", "bc") == of(1, "a", "bc"));
        assert!(of(1, "a", "bc") != of(1, "ab", "c"));
        assert!(of(1, "a", "bc") != of(1, "a", "bd"));
        assert!(of(1, "a", "bc") != of(2, "a", "bc"));
    }
}

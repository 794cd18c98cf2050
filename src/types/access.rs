//! Users: who may connect, as all nodes know it.
//!
//! Invariant: persisted and sent; the order of variants and fields never changes. A password is never here, only what it is
//! verified with.
//!
//! Deliberately absent: how a login goes (`auth`), and rules about topics: each user may publish and subscribe to all of them.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vulpes_raft::ids::Position;

use crate::types::limits;

/// The user of clients that don't log in. Where there are users, they come in only if this one is among them.
pub const ANONYMOUS: &str = "anonymous";

/// The role whose users may change users, and use a node's admin port.
pub const ADMIN: &str = "admin";

/// What verifiers begin with that have public keys and no password.
pub const PUBLIC_KEY: u8 = 5;

/// A user, besides its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// What it logs in with, as `auth` encodes it. Empty: it can't log in.
    pub verifier: Bytes,
    /// Ascending.
    pub roles: Vec<String>,
    /// It may not connect.
    pub disabled: bool,
}

/// A password as a client sent it. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Bytes);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What a client logs in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: Secret,
}

/// Who a client is, once it has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    /// The first of its roles.
    pub role: String,
    /// How it has shown that, by WAMP's name of the method.
    pub method: &'static str,
    /// Who knows it.
    pub provider: &'static str,
    /// Until when it may stay, in Unix seconds.
    pub expires: Option<u64>,
}

/// Why a client could not log in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefusal {
    #[error("unknown user, or wrong password")]
    Wrong,
    #[error("{0}")]
    Misused(String),
    #[error("too many clients are logging in; try again")]
    Busy,
}

/// A user as of a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownUser {
    pub user: User,
    /// The position of its last change.
    pub changed: Position,
}

/// A change of one user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserChange {
    /// Adds a user, if there is none of this name.
    Add { name: String, user: User },
    /// Replaces a user, if there is one and it has not changed after this position.
    Set { name: String, user: User, unchanged_since: Position },
    /// Removes a user, if there is one.
    Remove { name: String },
}

/// Changes of users that take effect together, or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeUsers {
    /// The user who asked for them; empty if there was none yet.
    pub author: String,
    pub changes: Vec<UserChange>,
}

/// Why a name can't be a user's, or a role's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name has at least one character")]
    Empty,
    #[error("a name has at most {} bytes", limits::USER_NAME)]
    TooLong,
    #[error("a name has no control characters, white space, '#', '+', '/', ':' or '@'")]
    Character,
}

/// Checks a user's or a role's name. It has no character that means something in a topic, in a pattern or in an MQTT user
/// name, so that it can stand in each.
///
/// # Errors
/// If it can't be one.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > limits::USER_NAME {
        return Err(NameError::TooLong);
    }
    let is_bad = |c: char| c.is_control() || c.is_whitespace() || "#+/:@".contains(c);
    if name.contains(is_bad) {
        return Err(NameError::Character);
    }
    Ok(())
}

impl User {
    /// Whether it has this role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }

    /// Whether it has a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.verifier.first().is_some_and(|first| *first != PUBLIC_KEY)
    }

    /// Whether it can log in with a password and change users.
    #[must_use]
    pub fn can_administer(&self) -> bool {
        self.has_role(ADMIN) && !self.disabled && self.has_password()
    }

    /// Whether it is as small as all nodes expect of it.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.verifier.len() <= limits::USER_VERIFIER
            && self.roles.len() <= limits::USER_ROLES
            && self.roles.iter().all(|role| check_name(role).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who has only public keys can't use admin HTTP.
    #[test]
    fn administrators_have_a_password() {
        for (verifier, can) in [(&[][..], false), (&[0, 7], true), (&[PUBLIC_KEY, 7], false)] {
            let verifier = Bytes::copy_from_slice(verifier);
            let user = User { verifier, roles: vec![ADMIN.to_owned()], disabled: false };
            assert_eq!((user.has_password(), user.can_administer()), (can, can), "{user:?}");
        }
    }

    #[test]
    fn names_have_nothing_that_means_something_elsewhere() {
        for good in ["a", "bob", "café", "bob.smith", "a-b_c", &"x".repeat(limits::USER_NAME)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let cases = [
            ("", NameError::Empty),
            (&"x".repeat(limits::USER_NAME + 1), NameError::TooLong),
            ("a b", NameError::Character),
            ("a\u{7}", NameError::Character),
            ("bob@realm1", NameError::Character),
            ("a/b", NameError::Character),
            ("+", NameError::Character),
            ("#", NameError::Character),
            ("a:b", NameError::Character),
        ];
        for (bad, error) in cases {
            assert_eq!(check_name(bad), Err(error), "{bad}");
        }
    }
}

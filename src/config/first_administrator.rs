//! The first administrator of a cluster, which `vulpes init` writes into the file of every node.
//!
//! Invariant: it can be a user, and log in with a password. The file has what the password is verified with, and never the password,
//! nor what a client could log in with instead of it.
//!
//! Deliberately absent: how it comes into the log (`node`), and later changes. Once the log has users, this is not looked at any more.

use std::fmt;

use base64::prelude::{Engine, BASE64_STANDARD};
use serde::Deserialize;

use super::Problem;
use crate::auth::{UserName, Verifiers};
use crate::types::access::{check_name, User, ADMIN};

/// The user that a cluster begins with.
#[derive(Clone, PartialEq, Eq)]
pub struct FirstAdministrator {
    name: String,
    user: User,
}

/// Why it can't be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirstAdministratorMistake {
    #[error("{name:?} can't be a user's name: {reason}")]
    Name { name: String, reason: String },
    #[error("verifiers is not what `vulpes init` has written; copy the whole table from its file")]
    Verifiers,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FirstAdministratorTable {
    name: String,
    verifiers: String,
}

impl FirstAdministrator {
    /// One with this name, which logs in with what these verify.
    ///
    /// # Errors
    /// If a user can't have that name, or no password is verified.
    pub fn new(name: &str, verifiers: &Verifiers) -> Result<Self, FirstAdministratorMistake> {
        Self::encoded(name, verifiers.encode())
    }

    fn encoded(name: &str, verifiers: Vec<u8>) -> Result<Self, FirstAdministratorMistake> {
        let bad = |reason| FirstAdministratorMistake::Name { name: name.to_owned(), reason };
        let prepared = UserName::new(name).map_err(|error| bad(error.to_string()))?;
        check_name(prepared.as_str()).map_err(|error| bad(error.to_string()))?;
        let roles = vec![ADMIN.to_owned()];
        let user = User { verifier: verifiers.into(), roles, disabled: false };
        let is_whole = Verifiers::decode(&user.verifier).is_some();
        if !is_whole || !user.can_administer() || !user.fits() {
            return Err(FirstAdministratorMistake::Verifiers);
        }
        Ok(Self { name: prepared.as_str().to_owned(), user })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user that it is in the log.
    #[must_use]
    pub fn user(&self) -> &User {
        &self.user
    }
}

/// What verifies a password is shown nowhere.
impl fmt::Debug for FirstAdministrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FirstAdministrator").field(&self.name).finish()
    }
}

/// Reads the table.
pub(super) fn check(
    table: &FirstAdministratorTable,
    problems: &mut Vec<Problem>,
) -> Option<FirstAdministrator> {
    let verifiers = BASE64_STANDARD.decode(&table.verifiers);
    let verifiers = verifiers.map_err(|_| FirstAdministratorMistake::Verifiers);
    let read = verifiers.and_then(|bytes| FirstAdministrator::encoded(&table.name, bytes));
    read.map_err(|mistake| problems.push(Problem::FirstAdministrator(mistake))).ok()
}

/// Writes the table, line by line. `text` writes a string as TOML has it.
pub(super) fn write(
    first: Option<&FirstAdministrator>,
    text: impl Fn(&str) -> String,
    line: &mut impl FnMut(String),
) {
    let Some(first) = first else { return };
    line("\n[first_administrator]  # who comes in as long as the log has no users; the same on all nodes".into());
    line(format!("name = {}", text(&first.name)));
    line(format!("verifiers = \"{}\"", BASE64_STANDARD.encode(&first.user.verifier)));
}

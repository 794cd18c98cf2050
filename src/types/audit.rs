//! What is remembered of changes of users, roles and bans: who made them, when, and what they did.
//!
//! Invariant: persisted; the order of variants and fields never changes. Nothing that anybody logs in with is here.
//!
//! Deliberately absent: how it is told to people (`cli`).

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::Stamp;

use crate::types::ban::BanTarget;

/// A change, as it is remembered under its position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub stamp: Stamp,
    /// The user who asked for it; empty if there were no users yet.
    pub author: String,
    /// It was done. Otherwise it changed nothing, for example because somebody else was faster.
    pub accepted: bool,
    /// All of it was done, or nothing.
    pub did: Vec<Did>,
}

/// What a change did, or was to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    AddUser {
        name: String,
        roles: Vec<String>,
        disabled: bool,
    },
    SetUser {
        name: String,
        /// Its password or its keys changed.
        login: bool,
        /// Its roles, if they changed.
        roles: Option<Vec<String>>,
        /// Whether it is disabled, if that changed.
        disabled: Option<bool>,
    },
    RemoveUser {
        name: String,
    },
    SetRole {
        name: String,
        /// How many it has.
        rules: u64,
    },
    RemoveRole {
        name: String,
    },
    AddBan {
        target: BanTarget,
        reason: String,
        /// Milliseconds for which it holds.
        lasts: Option<u64>,
    },
    RemoveBan {
        target: BanTarget,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use vulpes_raft::net::wire;

    #[test]
    fn golden_bytes() {
        let (name, target) = ("n".to_owned(), BanTarget::User("b".into()));
        let did = vec![
            Did::AddUser { name: name.clone(), roles: vec!["r".into()], disabled: true },
            Did::SetUser { name: name.clone(), login: true, roles: None, disabled: Some(false) },
            Did::RemoveUser { name: name.clone() },
            Did::SetRole { name: name.clone(), rules: 3 },
            Did::RemoveRole { name },
            Did::AddBan { target: target.clone(), reason: "x".into(), lasts: Some(9) },
            Did::RemoveBan { target },
        ];
        let entry = AuditEntry { stamp: Stamp(7), author: "a".into(), accepted: true, did };
        let bytes = [
            &[7, 1, b'a', 1, 7, 0, 1, b'n', 1, 1, b'r', 1][..],
            &[1, 1, b'n', 1, 0, 1, 0, 2, 1, b'n', 3, 1, b'n', 3, 4, 1, b'n'],
            &[5, 0, 1, b'b', 1, b'x', 1, 9, 6, 0, 1, b'b'],
        ];
        assert_eq!(wire::encode(&entry), bytes.concat());
        assert_eq!(wire::decode::<AuditEntry>(&bytes.concat()).unwrap(), entry);
    }
}

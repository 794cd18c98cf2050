//! What is remembered of changes of users, roles and bans.
//!
//! It is state of its own, so that it outlives the release of the log, is the same at all nodes, and is read without the log.
//! Changes from before format 10 of the log are not in it.
//!
//! Invariant: each change is remembered under its position, whether or not it was done. How many are, and how large they are
//! together, is limited: the oldest are forgotten, and from where on all are known is remembered instead.
//!
//! Deliberately absent: what users log in with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::Position;
use vulpes_raft::net::wire;

use super::{Incoming, Key, Realms};
use crate::types::access::{ChangeUsers, UserChange};
use crate::types::act::Administer;
use crate::types::audit::{AuditEntry, Did};
use crate::types::ban::{AddBan, BanChange};
use crate::types::limits;
use crate::types::rule::RoleChange;

#[derive(Debug, Default)]
pub(super) struct Audit {
    /// The changes with their sizes as rows, by their positions.
    entries: BTreeMap<Position, (AuditEntry, usize)>,
    bytes: usize,
    /// From here on, all changes are known; none if all are.
    from: Option<From>,
}

/// From where on changes are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct From(pub(super) Position);

impl Audit {
    pub(super) fn load(&mut self, at: Position, entry: AuditEntry) {
        let size = wire::encode(&entry).len();
        self.bytes += size;
        self.entries.insert(at, (entry, size));
    }

    pub(super) fn load_from(&mut self, from: From) {
        self.from = Some(from);
    }

    /// Takes out the oldest change, if there are more than are remembered.
    fn forget(&mut self) -> Option<(Position, AuditEntry)> {
        let many = self.entries.len() > limits::AUDIT_ENTRIES || self.bytes > limits::AUDIT_BYTES;
        let (at, (entry, size)) = many.then(|| self.entries.pop_first()).flatten()?;
        self.bytes -= size;
        Some((at, entry))
    }
}

impl Realms {
    /// The remembered changes behind a position, in their order, with their sizes in bytes.
    pub fn audit(
        &self,
        after: Position,
    ) -> impl DoubleEndedIterator<Item = (Position, &AuditEntry, usize)> {
        let behind = Position(after.0.saturating_add(1))..;
        self.audit.entries.range(behind).map(|(at, (entry, size))| (*at, entry, *size))
    }

    /// From here on, all changes are remembered.
    #[must_use]
    pub fn audit_from(&self) -> Position {
        match self.audit.from {
            Some(From(from)) => from,
            // Where users came before the first change that is remembered, more may have come.
            None if self.audit.entries.is_empty() && self.has_users() => self.position,
            None => Position(1),
        }
    }

    /// Changes users, roles or bans, and remembers that.
    pub(super) fn administer(&mut self, incoming: &Incoming<'_>, change: Administer) {
        let at = incoming.at.position;
        if self.audit.entries.is_empty() && self.audit.from.is_none() && self.has_users() {
            self.know_from(at);
        }
        let (author, did) = (change.author().to_owned(), self.did(&change));
        let accepted = match change {
            Administer::Bans(change) => self.change_bans(incoming, change),
            Administer::Users(change) => {
                self.change_users(incoming, change);
                self.access_changed() == at
            }
            Administer::Roles(change) => {
                self.change_roles(incoming, change);
                self.access_changed() == at
            }
        };
        let entry = AuditEntry { stamp: incoming.at.stamp, author, accepted, did };
        self.rows.change(&Key::Audit(at), None, Some(&entry));
        self.audit.load(at, entry);
        while let Some((at, entry)) = self.audit.forget() {
            self.rows.change(&Key::Audit(at), Some(&entry), None);
            self.know_from(Position(at.0.saturating_add(1)));
        }
    }

    fn know_from(&mut self, position: Position) {
        let (old, new) = (self.audit.from, From(position));
        self.rows.change(&Key::AuditFrom, old.as_ref(), Some(&new));
        self.audit.from = Some(new);
    }

    /// What a change does to what is here now.
    fn did(&self, change: &Administer) -> Vec<Did> {
        match change {
            Administer::Users(ChangeUsers { changes, .. }) => {
                changes.iter().map(|change| self.did_with_user(change)).collect()
            }
            Administer::Roles(change) => change.changes.iter().map(did_with_role).collect(),
            Administer::Bans(change) => change.changes.iter().map(did_with_ban).collect(),
        }
    }

    fn did_with_user(&self, change: &UserChange) -> Did {
        match change {
            UserChange::Add { name, user } => Did::AddUser {
                name: name.clone(),
                roles: user.roles.clone(),
                disabled: user.disabled,
            },
            UserChange::Set { name, user, .. } => {
                let old = self.user(name).map(|known| known.user.clone()).unwrap_or_default();
                Did::SetUser {
                    name: name.clone(),
                    login: user.verifier != old.verifier,
                    roles: (user.roles != old.roles).then(|| user.roles.clone()),
                    disabled: (user.disabled != old.disabled).then_some(user.disabled),
                }
            }
            UserChange::Remove { name } => Did::RemoveUser { name: name.clone() },
        }
    }
}

fn did_with_role(change: &RoleChange) -> Did {
    match change {
        RoleChange::Set { name, role } => {
            Did::SetRole { name: name.clone(), rules: role.rules.len() as u64 }
        }
        RoleChange::Remove { name } => Did::RemoveRole { name: name.clone() },
    }
}

fn did_with_ban(change: &BanChange) -> Did {
    match change {
        BanChange::Add(AddBan { target, reason, lasts }) => {
            Did::AddBan { target: target.clone(), reason: reason.clone(), lasts: *lasts }
        }
        BanChange::Remove(target) => Did::RemoveBan { target: target.clone() },
    }
}

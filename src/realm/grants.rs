//! Who there is, and what their roles allow, as of one position.
//!
//! Invariant: a copy shares what has not changed since.
//!
//! Deliberately absent: changes (`access`, `roles`), and what was before them (`past`).

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use crate::rules::{Permissions, RoleIndex, Subject};
use crate::types::access::{KnownUser, ADMIN, ANONYMOUS};
use crate::types::limits;
use crate::types::rule::{KnownRole, RoleChange, DEFAULT};
use crate::types::topic::Realm;

/// The users, by name.
pub(super) type Users = OrdMap<String, Arc<KnownUser>>;

/// Who there is, and what their roles allow.
#[derive(Clone, Debug, Default)]
pub(super) struct Grants {
    pub(super) users: Users,
    pub(super) roles: Roles,
}

/// The roles that were set, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Roles(pub(super) OrdMap<String, Arc<SetRole>>);

#[derive(Debug)]
pub(super) struct SetRole {
    pub(super) known: KnownRole,
    index: Arc<RoleIndex>,
}

/// For roles of one name.
impl PartialEq for SetRole {
    fn eq(&self, other: &Self) -> bool {
        self.known.changed == other.known.changed
    }
}

impl Roles {
    pub(super) fn load(&mut self, name: String, known: KnownRole) {
        let index = Arc::new(RoleIndex::new(&known.role));
        self.0.insert(name, Arc::new(SetRole { known, index }));
    }

    /// Whether there is room for these changes.
    pub(super) fn have_room(&self, changes: &[RoleChange]) -> bool {
        let mut sizes: BTreeMap<&str, usize> =
            self.0.iter().map(|(name, set)| (name.as_str(), set.known.role.size())).collect();
        for change in changes {
            match change {
                RoleChange::Set { name, role } => sizes.insert(name, role.size()),
                RoleChange::Remove { name } => sizes.remove(name.as_str()),
            };
        }
        sizes.len() <= limits::ROLES && sizes.values().sum::<usize>() <= limits::RULES_BYTES
    }

    /// What a user with these roles may do.
    fn permissions(&self, roles: &[String], subject: impl FnOnce() -> Subject) -> Permissions {
        let default = [DEFAULT.to_owned()];
        let roles = if roles.is_empty() { &default } else { roles };
        let is_all = |role: &String| role == ADMIN || role == DEFAULT && !self.0.contains_key(role);
        if roles.iter().any(is_all) {
            return Permissions::everything();
        }
        let set = |role: &String| Some((role.clone(), self.0.get(role)?.index.clone()));
        Permissions::of(subject(), roles.iter().filter_map(set).collect())
    }
}

impl Grants {
    /// What a client of this user may do; without a user, one that did not log in.
    pub(super) fn permissions(
        &self,
        user: Option<&str>,
        client: Option<&str>,
        realm: &Realm,
    ) -> Permissions {
        if self.users.is_empty() {
            return Permissions::everything();
        }
        let name = user.unwrap_or(ANONYMOUS);
        let subject =
            || Subject { realm: realm.clone(), user: name.into(), client: client.map(Into::into) };
        match self.users.get(name) {
            Some(known) => self.roles.permissions(&known.user.roles, subject),
            None => Permissions::of(subject(), Vec::new()),
        }
    }
}

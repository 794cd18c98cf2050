//! Roles: what users may do, as of each position.
//!
//! A change of roles or users takes effect at its position. What the fold itself decides, it decides by the rules there: wills,
//! conditional publishes and registrations. Nodes decide the rest by the newest rules that they know.
//!
//! Invariant: a role is changed by a user who administers, as of the position of the change. How large all roles are together
//! is limited. No session is registered for what it may not register.
//!
//! Deliberately absent: what rules mean (`rules`).

use std::sync::Arc;

use imbl::ordmap::DiffItem;
use vulpes_raft::ids::Position;
use vulpes_raft::mutant::{planted, Mutant};

use super::grants::SetRole;
use super::past::PastPermissions;
use super::{Due, Incoming, Key, Notice, Realms};
use crate::rules::Permissions;
use crate::types::act::DueId;
use crate::types::event::SessionId;
use crate::types::procedure::{Matching, Procedure};
use crate::types::rule::{check_role_name, ChangeRoles, KnownRole, RoleChange};
use crate::types::topic::Realm;

impl Realms {
    /// The roles in the order of their names.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &KnownRole)> {
        self.access.now.roles.0.iter().map(|(name, set)| (name.as_str(), &set.known))
    }

    /// A role that was set.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&KnownRole> {
        self.access.now.roles.0.get(name).map(|set| &set.known)
    }

    /// What a client of this user may do; without a user, one that did not log in.
    #[must_use]
    pub fn permissions(
        &self,
        user: Option<&str>,
        client: Option<&str>,
        realm: &Realm,
    ) -> Permissions {
        self.access.now.permissions(user, client, realm)
    }

    /// What the client of a session may do; none if the session is over.
    #[must_use]
    pub fn permissions_of(&self, session: SessionId) -> Option<Permissions> {
        let state = self.sessions.get(&session)?;
        Some(self.permissions(self.user_of(session), state.client.as_deref(), &state.realm))
    }

    /// What the client of a session could do at a position, which is not behind the last change; none if the session is over.
    #[must_use]
    pub fn permissions_at(&self, session: SessionId, at: Position) -> Option<PastPermissions> {
        let state = self.sessions.get(&session)?;
        let (now, past) = (&self.access.now, &self.access.past);
        let (grants, from, until) = past.at(at).unwrap_or((now, Position(0), past.changed()));
        let client = state.client.as_deref();
        let permissions = grants.permissions(self.user_of(session), client, &state.realm);
        Some(PastPermissions { permissions, from, until })
    }

    /// The position of the last change of users or roles that this node knows of since it started.
    #[must_use]
    pub fn access_changed(&self) -> Position {
        self.access.past.changed()
    }

    /// Changes roles, all of it or nothing. Without users there is nobody to have them.
    pub(super) fn change_roles(&mut self, incoming: &Incoming<'_>, change: ChangeRoles) {
        if !self.has_users() || !self.may_administer(&change.author) {
            return;
        }
        if !self.access.now.roles.have_room(&change.changes) {
            return;
        }
        let mut roles = self.access.now.roles.clone();
        for change in change.changes {
            let (name, role) = match change {
                RoleChange::Set { name, role } => (name, Some(role)),
                RoleChange::Remove { name } => (name, None),
            };
            let Some(role) = role else {
                match roles.0.remove(&name) {
                    Some(_) => continue,
                    None => return,
                }
            };
            if check_role_name(&name).is_err() || !role.fits() {
                return;
            }
            roles.load(name, KnownRole { role, changed: incoming.at.position });
        }
        let old = self.access.now.clone();
        self.access.now.roles = roles.clone();
        let mut bytes = 0;
        for change in old.roles.0.diff(&roles.0) {
            let (name, old, new) = match change {
                DiffItem::Add(name, new) => (name, None, Some(new)),
                DiffItem::Update { old: (name, old), new: (_, new) } => {
                    (name, Some(old), Some(new))
                }
                DiffItem::Remove(name, old) => (name, Some(old), None),
            };
            bytes += old.map_or(0, |old| old.known.role.size());
            let known = |set: &Arc<SetRole>| set.known.clone();
            let (old, new) = (old.map(known), new.map(known));
            self.rows.change(&Key::Role(name.clone()), old.as_ref(), new.as_ref());
        }
        self.access.past.push(incoming.at.position, old, bytes);
        if !std::mem::replace(&mut self.access.ruled, true) {
            self.rows.change(&Key::Ruled, None, Some(&()));
        }
        self.withdraw_forbidden();
    }

    /// Ends registrations that may not be made any more: users or roles have changed.
    pub(super) fn withdraw_forbidden(&mut self) {
        if !self.access.ruled {
            return;
        }
        for (session, ids) in self.registered() {
            let Some(mut may) = self.permissions_of(session) else { continue };
            for registration in ids {
                let Some((place, _)) = self.registration(registration) else { continue };
                if !may.allow_registration(&place.procedure, place.matching) {
                    self.remove_callee(session, registration);
                    self.notices.push(Notice::Withdrawn { session, registration });
                }
            }
        }
    }

    /// Whether the client of a session may register this here.
    pub(super) fn may_offer(
        &self,
        session: SessionId,
        procedure: &Procedure,
        matching: Matching,
    ) -> bool {
        let may = || self.permissions_of(session);
        !self.access.ruled
            || may().is_none_or(|mut may| may.allow_registration(procedure, matching))
    }

    /// Whether the client of an event's session may publish it here.
    pub(super) fn may_publish(&self, incoming: &Incoming<'_>) -> bool {
        let (event, topic) = (incoming.event, incoming.topic);
        let may = || self.permissions_of(event.publisher);
        !self.access.ruled || may().is_none_or(|mut may| may.allow_publish(topic, event.retain))
    }

    /// Remembers whose will it is that a session leaves.
    pub(super) fn note_author(&mut self, id: DueId, user: String) {
        if self.access.ruled {
            self.rows.change(&Key::DueUser(id), None, Some(&user));
            self.access.due_users.insert(id, user);
        }
    }

    /// A will is done with; returns whose it was.
    pub(super) fn forget_author(&mut self, id: DueId) -> Option<String> {
        let user = self.access.due_users.remove(&id)?;
        self.rows.change(&Key::DueUser(id), Some(&user), None);
        Some(user)
    }

    /// Whether the client that left a publish may publish it here. A value that was bound to its session was decided when it
    /// was bound: a lock has to be freed.
    pub(super) fn may_leave(&self, id: DueId, due: &Due) -> bool {
        let Some(user) = self.access.due_users.get(&id) else { return true };
        let mut may = self.permissions(Some(user), due.client.as_deref(), &due.realm);
        let allowed = self.admits(Some(user)) && may.allow_publish(&due.topic, due.retain);
        allowed || planted(Mutant::UncheckedWill)
    }
}

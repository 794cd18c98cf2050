//! The users, and which sessions are theirs.
//!
//! As long as there is no user, everybody comes in. From the position of the first one on, a session needs a user: the one
//! that its client logged in as, or [`ANONYMOUS`]. A node checks a login before it lets a client in; that the user still
//! exists is decided here, at the position where the session begins.
//!
//! Invariant: no session of a user outlives the position at which the user is removed or disabled. As long as there are
//! users, one of them can change users, so nobody is locked out; and only such a user does, as of the position of the change.
//! How many there are is limited.
//!
//! Deliberately absent: what a user may do (`roles`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use vulpes_raft::ids::Position;
use vulpes_raft::mutant::{planted, Mutant};

use super::grants::{Grants, Users};
use super::past::Past;
use super::{EndCause, Incoming, Key, Notice, Realms};
use crate::types::access::{check_name, ChangeUsers, KnownUser, UserChange, ANONYMOUS};
use crate::types::act::DueId;
use crate::types::event::SessionId;
use crate::types::limits;

#[derive(Debug, Default)]
pub(super) struct Access {
    pub(super) now: Grants,
    /// What it was before the last changes.
    pub(super) past: Past,
    /// The users of sessions whose clients logged in.
    of: BTreeMap<SessionId, String>,
    /// The same, by user.
    sessions: BTreeMap<String, BTreeSet<SessionId>>,
    /// A role has been set. In older formats of the log, the fold did not look at users' roles.
    pub(super) ruled: bool,
    /// The users whose wills are still to be published.
    pub(super) due_users: BTreeMap<DueId, String>,
}

impl Access {
    pub(super) fn load_user(&mut self, name: String, user: KnownUser) {
        self.now.users.insert(name, Arc::new(user));
    }

    pub(super) fn load_session(&mut self, session: SessionId, user: String) {
        self.sessions.entry(user.clone()).or_default().insert(session);
        self.of.insert(session, user);
    }

    /// Whether clients of this user may have sessions; without a name, clients that did not log in.
    fn admits(&self, user: Option<&str>) -> bool {
        if user.is_none() && self.now.users.is_empty() {
            return true;
        }
        let user = self.now.users.get(user.unwrap_or(ANONYMOUS));
        user.is_some_and(|known| !known.user.disabled)
    }

    /// Whether this user may change users; the empty name is nobody's, who may add the first ones. The node that passed the
    /// change on may not have known the users as they are here.
    pub(super) fn lets_change(&self, author: &str) -> bool {
        match self.now.users.get(author) {
            Some(known) => known.user.can_administer(),
            None => author.is_empty() && self.now.users.is_empty(),
        }
    }
}

impl Realms {
    /// Whether clients of this user may have sessions now; without a name, clients that did not log in.
    #[must_use]
    pub fn admits(&self, user: Option<&str>) -> bool {
        self.access.admits(user)
    }

    /// Whether there are users, so that clients need one.
    #[must_use]
    pub fn has_users(&self) -> bool {
        !self.access.now.users.is_empty()
    }

    /// Whether this user may change users and roles.
    #[must_use]
    pub fn may_administer(&self, author: &str) -> bool {
        self.access.lets_change(author) && !self.bars_user(author, self.time)
    }

    /// A user.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<Arc<KnownUser>> {
        self.access.now.users.get(name).cloned()
    }

    /// The users in the order of their names.
    pub fn users(&self) -> impl Iterator<Item = (&str, &Arc<KnownUser>)> {
        self.access.now.users.iter().map(|(name, user)| (name.as_str(), user))
    }

    /// The user whose client has this session, if it logged in.
    #[must_use]
    pub fn user_of(&self, session: SessionId) -> Option<&str> {
        self.access.of.get(&session).map(String::as_str)
    }

    /// Whether a session may begin at this position. If not, it gets the notice that it has ended.
    pub(super) fn admit(&mut self, incoming: &Incoming<'_>) -> bool {
        let (session, user) = (incoming.event.publisher, incoming.event.extensions.user());
        if self.access.admits(user) || planted(Mutant::AdmitRemovedUsers) {
            return true;
        }
        self.notices.push(Notice::Ended { session, cause: EndCause::Revoked });
        false
    }

    /// A session that was admitted has begun.
    pub(super) fn belongs(&mut self, incoming: &Incoming<'_>) {
        let Some(user) = incoming.event.extensions.user() else { return };
        let session = incoming.event.publisher;
        let user = user.to_owned();
        self.rows.change(&Key::SessionUser(session), None, Some(&user));
        self.access.load_session(session, user);
    }

    /// A session has ended; returns its user, if its client had logged in.
    pub(super) fn forget_user_of(&mut self, session: SessionId) -> Option<String> {
        let user = self.access.of.remove(&session)?;
        if let Some(sessions) = self.access.sessions.get_mut(&user) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.access.sessions.remove(&user);
            }
        }
        self.rows.change(&Key::SessionUser(session), Some(&user), None);
        Some(user)
    }

    /// Changes users, all of it or nothing: as long as there are users, one of them can change users.
    pub(super) fn change_users(&mut self, incoming: &Incoming<'_>, change: ChangeUsers) {
        let at = incoming.at.position;
        if !self.may_administer(&change.author) {
            return;
        }
        let mut users = self.access.now.users.clone();
        for change in change.changes {
            if !applied(&mut users, change, at) {
                return;
            }
        }
        let old = self.access.now.clone();
        self.access.now.users = users.clone();
        if users.len() > limits::USERS || !self.is_administrable() {
            self.access.now = old;
            return;
        }
        let mut bytes = 0;
        for change in old.users.diff(&users) {
            let (name, old, new) = match change {
                DiffItem::Add(name, new) => (name, None, Some(new)),
                DiffItem::Update { old: (name, old), new: (_, new) } => {
                    (name, Some(old), Some(new))
                }
                DiffItem::Remove(name, old) => (name, Some(old), None),
            };
            bytes += limits::PAST_USER;
            self.rows.change(
                &Key::User(name.clone()),
                old.map(|old| &**old),
                new.map(|new| &**new),
            );
        }
        self.access.past.push(at, old, bytes);
        self.end_revoked();
        self.withdraw_forbidden();
    }

    /// Ends the sessions that could not begin any more.
    fn end_revoked(&mut self) {
        if planted(Mutant::SpareRemovedUsers) {
            return;
        }
        let access = &self.access;
        let users = access.sessions.iter().filter(|(user, _)| !access.admits(Some(user)));
        let mut over: Vec<SessionId> = users.flat_map(|(_, sessions)| sessions).copied().collect();
        if !access.admits(None) {
            let anonymous = self.sessions.keys().filter(|session| !access.of.contains_key(session));
            over.extend(anonymous.copied());
        }
        over.sort_unstable();
        for session in over {
            self.end_session(session, EndCause::Revoked);
        }
    }
}

/// Applies a change; `false` if it can't be.
fn applied(users: &mut Users, change: UserChange, at: Position) -> bool {
    let (name, user) = match change {
        UserChange::Add { name, user } if !users.contains_key(&name) => (name, user),
        UserChange::Set { name, user, unchanged_since } => match users.get(&name) {
            Some(known) if known.changed <= unchanged_since => (name, user),
            _ => return false,
        },
        UserChange::Remove { name } => return users.remove(&name).is_some(),
        UserChange::Add { .. } => return false,
    };
    let fits = check_name(&name).is_ok() && user.fits();
    if fits {
        users.insert(name, Arc::new(KnownUser { user, changed: at }));
    }
    fits
}

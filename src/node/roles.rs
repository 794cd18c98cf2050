//! Changes roles, and says what users may do.
//!
//! Invariant: as for users (`users`), an outcome is told only if the roles show it; otherwise it is unknown.
//!
//! Deliberately absent: what rules mean (`rules`), and HTTP (`http`).

use std::cmp::Ordering;
use std::collections::BTreeSet;

use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::time::{timeout_at, Instant};
use vulpes_raft::ids::Position;

use super::users::{Unsubmitted, Users};
use crate::http::{
    Author, Changed, Decision, Question, RemoveRole, RoleAdmin, RoleEdit, RoleInfo, RoleSummary,
    RolesError, SetRole,
};
use crate::realm::Realms;
use crate::types::act::{Act, Administer};
use crate::types::limits;
use crate::types::rule::{
    check_role_name, Action, ChangeRoles, KnownRole, Role, RoleChange, Rule, RuleError,
};
use crate::types::topic::Realm;

impl RoleAdmin for Users {
    fn roles(&self) -> Vec<RoleSummary> {
        let summary = |(name, known): (&str, &KnownRole)| RoleSummary {
            name: name.to_owned(),
            rules: known.role.rules.len(),
            changed: known.changed,
        };
        self.realms.with(|realms| realms.roles().map(summary).collect())
    }

    fn role(&self, name: &str) -> Option<RoleInfo> {
        let known = self.realms.with(|realms| realms.role(name).cloned())?;
        let rules = known.role.rules.iter().map(ToString::to_string).collect();
        Some(RoleInfo { name: name.to_owned(), rules, changed: known.changed })
    }

    fn change_roles(
        &self,
        author: Author,
        edits: Vec<RoleEdit>,
    ) -> BoxFuture<'_, Result<Changed, RolesError>> {
        async move {
            let writer = self.writer.as_ref().ok_or(RolesError::NoEntry)?;
            let asked =
                ChangeRoles { author: author.0, changes: changes(edits, &self.known_realms)? };
            let act = Act::Administer(Administer::Roles(asked.clone()));
            let bytes = act.encode().len();
            if bytes > limits::EVENT {
                return Err(RolesError::TooLarge(bytes));
            }
            // What would be refused does not go into the log.
            self.realms.with(|realms| refusal(realms, &asked)).map_or(Ok(()), Err)?;
            let deadline = Instant::now() + limits::USER_CHANGES_TIME;
            let turn = timeout_at(deadline, writer.turns.acquire()).await;
            // The semaphore is never closed.
            let Ok(Ok(_turn)) = turn else { return Err(RolesError::Busy) };
            let stored = writer.submit(&act, deadline).await.map_err(|error| match error {
                Unsubmitted::NotStored => RolesError::NotStored,
                Unsubmitted::Unknown => RolesError::Unknown,
            })?;
            let position = stored.position;
            self.realms.with(|realms| outcome(realms, &asked, position))?;
            tracing::info!(author = asked.author, %position, "roles changed");
            Ok(Changed { position })
        }
        .boxed()
    }

    fn decide(&self, question: &Question) -> Option<Decision> {
        let Question { user, action, topic, realm, client } = question;
        let realm = realm.as_ref().unwrap_or(&self.default_realm);
        let is_banned = self.bans.bars(Some(user), client.as_deref(), realm);
        self.realms.with(|realms| {
            let known = realms.user(user);
            if known.is_none() && realms.has_users() {
                return None;
            }
            if known.is_some_and(|known| known.user.disabled) {
                let reason = "the user is disabled".to_owned();
                return Some(Decision { allowed: false, reason });
            }
            if is_banned {
                let reason = "the user or the client is banned".to_owned();
                return Some(Decision { allowed: false, reason });
            }
            let own = match action {
                Action::Publish | Action::Retain => topic.is_routers_own(),
                Action::Register => topic.parts().next() == Some("wamp"),
                Action::Subscribe | Action::Call => false,
            };
            if own {
                let reason = "it is the router's own: no client may".to_owned();
                return Some(Decision { allowed: false, reason });
            }
            let permissions = realms.permissions(Some(user), client.as_deref(), realm);
            let (allowed, reason) = permissions.explain(*action, topic);
            Some(Decision { allowed, reason: reason.to_string() })
        })
    }
}

/// What is to be changed.
fn changes(edits: Vec<RoleEdit>, realms: &[Realm]) -> Result<Vec<RoleChange>, RolesError> {
    let names: BTreeSet<&str> = edits.iter().map(RoleEdit::name).collect();
    if edits.is_empty() || edits.len() > limits::ROLE_CHANGES || names.len() < edits.len() {
        return Err(RolesError::Changes);
    }
    let change = |edit: RoleEdit| {
        let (name, rules) = match edit {
            RoleEdit::Set(SetRole { name, rules }) => (name, rules),
            RoleEdit::Remove(RemoveRole { name }) => return Ok(RoleChange::Remove { name }),
        };
        if let Err(error) = check_role_name(&name) {
            return Err(RolesError::Name { name, reason: error.to_string() });
        }
        if rules.len() > limits::ROLE_RULES {
            return Err(RolesError::TooManyRules(name));
        }
        let rule = |(number, text): (usize, &String)| {
            let rule: Result<Rule, RuleError> = text.parse();
            let reason = match rule {
                Ok(Rule { realm: Some(realm), .. }) if !realms.contains(&realm) => {
                    format!("there is no realm {realm}")
                }
                Ok(rule) => return Ok(rule),
                Err(error) => error.to_string(),
            };
            Err(RolesError::Rule { role: name.clone(), number, reason })
        };
        let rules = (1..).zip(&rules).map(rule).collect::<Result<_, _>>()?;
        Ok(RoleChange::Set { name, role: Role { rules } })
    };
    edits.into_iter().map(change).collect()
}

/// Why a change could not be made now.
fn refusal(realms: &Realms, asked: &ChangeRoles) -> Option<RolesError> {
    if !realms.has_users() {
        return Some(RolesError::NoUsers);
    }
    if !realms.may_administer(&asked.author) {
        return Some(RolesError::NotAllowed);
    }
    let of = |change: &RoleChange| match change {
        RoleChange::Set { name, .. } | RoleChange::Remove { name } => name.clone(),
    };
    let changed: BTreeSet<String> = asked.changes.iter().map(of).collect();
    let stay = realms.roles().filter(|(name, _)| !changed.contains(*name));
    let (mut count, mut bytes) = (0, 0);
    for (_, known) in stay {
        count += 1;
        bytes += known.role.size();
    }
    for change in &asked.changes {
        match change {
            RoleChange::Set { role, .. } => {
                count += 1;
                bytes += role.size();
            }
            RoleChange::Remove { name } if realms.role(name).is_none() => {
                return Some(RolesError::NoSuchRole(name.clone()));
            }
            RoleChange::Remove { .. } => {}
        }
    }
    (count > limits::ROLES || bytes > limits::RULES_BYTES).then_some(RolesError::TooMany)
}

/// What became of a change that this node has applied. All of it was done, or nothing.
fn outcome(realms: &Realms, asked: &ChangeRoles, at: Position) -> Result<(), RolesError> {
    let sign = |change: &RoleChange| match change {
        RoleChange::Set { name, .. } => match realms.role(name).map(|known| known.changed.cmp(&at))
        {
            Some(Ordering::Equal) => Some(true),
            Some(Ordering::Less) => Some(false),
            // Somebody has changed it again.
            Some(Ordering::Greater) | None => None,
        },
        RoleChange::Remove { name } => match realms.role(name) {
            Some(known) if known.changed < at => Some(false),
            Some(_) => None,
            None => Some(true),
        },
    };
    let signs: Vec<Option<bool>> = asked.changes.iter().map(sign).collect();
    if signs.contains(&Some(false)) {
        return Err(refusal(realms, asked).unwrap_or(RolesError::Refused));
    }
    match signs.contains(&Some(true)) {
        true => Ok(()),
        false => Err(RolesError::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realm::testing;
    use crate::types::access::{ChangeUsers, User, UserChange, ADMIN};

    fn set(name: &str, rules: &[&str]) -> RoleChange {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        RoleChange::Set { name: name.into(), role: Role { rules } }
    }

    fn remove(name: &str) -> RoleChange {
        RoleChange::Remove { name: name.into() }
    }

    fn by(author: &str, changes: Vec<RoleChange>) -> ChangeRoles {
        ChangeRoles { author: author.into(), changes }
    }

    /// `ann` administers, `joe` does not, and there are the roles `one` and `two`.
    fn realms() -> Realms {
        let user = |roles: &[&str]| {
            let roles = roles.iter().map(|role| (*role).to_owned()).collect();
            User { verifier: "v".into(), roles, disabled: false }
        };
        let changes = vec![
            UserChange::Add { name: "ann".into(), user: user(&[ADMIN]) },
            UserChange::Add { name: "joe".into(), user: user(&[]) },
        ];
        testing::after(&[
            Act::ChangeUsers(ChangeUsers { author: String::new(), changes }),
            Act::ChangeRoles(by("ann", vec![set("one", &["allow all #"]), set("two", &[])])),
        ])
    }

    #[test]
    fn what_can_not_be_done_is_told() {
        let realms = realms();
        let many = (0..=limits::ROLES).map(|number| set(&format!("r{number}"), &[])).collect();
        for (asked, expected) in [
            (by("ann", vec![set("three", &[]), remove("one")]), None),
            (by("joe", vec![set("three", &[])]), Some(RolesError::NotAllowed)),
            (by("", vec![set("three", &[])]), Some(RolesError::NotAllowed)),
            (by("ann", vec![remove("three")]), Some(RolesError::NoSuchRole("three".into()))),
            (by("ann", many), Some(RolesError::TooMany)),
        ] {
            assert_eq!(refusal(&realms, &asked), expected);
        }
        let none = refusal(&Realms::default(), &by("", vec![set("one", &[])]));
        assert_eq!(none, Some(RolesError::NoUsers));
        let realm = [Realm::new("r").unwrap()];
        let edit = |name: &str, rules: &[&str]| {
            let rules = rules.iter().map(|rule| (*rule).to_owned()).collect();
            RoleEdit::Set(SetRole { name: name.into(), rules })
        };
        for (edits, expected) in [
            (vec![], "1 to 16 changes"),
            (vec![edit("a", &[]), edit("a", &[])], "each of another role"),
            (vec![edit("admin", &[])], "allows everything"),
            (vec![edit("a b", &[])], "white space"),
            (vec![edit("a", &["allow all #", "allow x y"])], "role a, rule 2: there is no action"),
            (vec![edit("a", &["allow all # in r", "deny all # in s"])], "there is no realm s"),
        ] {
            let error = changes(edits, &realm).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn only_what_the_roles_show_is_told() {
        let realms = realms();
        let at = realms.role("one").unwrap().changed;
        let (before, after) = (Position(at.0 - 1), Position(at.0 + 1));
        for (changes, position, expected) in [
            (vec![set("one", &[])], at, Ok(())),
            (vec![set("one", &[])], after, Err(RolesError::Refused)),
            (vec![set("one", &[])], before, Err(RolesError::Unknown)),
            (vec![remove("gone")], after, Ok(())),
            (vec![remove("one")], after, Err(RolesError::Refused)),
            (vec![remove("one")], before, Err(RolesError::Unknown)),
            (
                vec![remove("gone"), set("one", &[])],
                after,
                Err(RolesError::NoSuchRole("gone".into())),
            ),
        ] {
            let asked = by("ann", changes);
            assert_eq!(outcome(&realms, &asked, position), expected, "{asked:?} {position}");
        }
    }
}

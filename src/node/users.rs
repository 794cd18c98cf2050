//! Changes users, and decides who may use admin HTTP.
//!
//! A change is an act in the log. All nodes decide alike, at its position, whether it can be: this node waits until it has
//! applied that position, and tells from its users what became of the change.
//!
//! Invariant: an outcome is told only if the users show it; otherwise it is unknown. A password leaves this node only as what it
//! is verified with.
//!
//! Deliberately absent: what users may do, and HTTP (`http`).

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::sync::{mpsc, Semaphore};
use tokio::time::{timeout_at, Instant};
use vulpes_raft::host::{Host, Random};
use vulpes_raft::ids::Position;

use crate::auth::cryptosign::PublicKey;
use crate::auth::{Cost, Password, Salts, UserName, Verifiers};
use crate::entry::{Batch, EntryHandle};
use crate::http::{
    AccessRefusal, AddUser, Author, Changed, PasswordText, RemoveUser, SetUser, UserAdmin,
    UserEdit, UserInfo, UserPage, UsersError,
};
use crate::log::Log;
use crate::realm::{Realms, SharedRealms};
use crate::server::bans::Bans;
use crate::server::login::Logins;
use crate::types::access::{
    check_name, ChangeUsers, KnownUser, Login, LoginRefusal, NameError, User, UserChange, ADMIN,
};
use crate::types::act::{Act, Administer};
use crate::types::answer::{PublishError, Stored};
use crate::types::event::{Event, SessionId};
use crate::types::limits;
use crate::types::topic::Realm;

/// The topic of changes. No subscriber gets them.
const TOPIC: &str = "vulpes/users";

/// The cluster's users, as this node knows them.
pub(crate) struct Users {
    pub(super) realms: SharedRealms,
    pub(super) default_realm: Realm,
    pub(super) known_realms: Vec<Realm>,
    logins: Logins,
    pub(super) bans: Bans,
    /// None on a node that is not an entry.
    pub(super) writer: Option<Writer>,
}

/// The way of changes into the log.
pub(super) struct Writer {
    entry: EntryHandle,
    log: Log,
    /// The realm of the changes.
    realm: Realm,
    random: Arc<dyn Random>,
    pub(super) turns: Semaphore,
    /// One password is hashed at a time, also if nobody waits for it any more.
    hashing: Arc<Semaphore>,
}

impl Users {
    /// The users in these realms, who log in so. Changes go through the entry, if there is one, as events of the default realm.
    pub(super) fn new(
        host: &Host,
        (log, realms): (&Log, &SharedRealms),
        (default_realm, known_realms): (Realm, Vec<Realm>),
        (entry, logins, bans): (Option<EntryHandle>, &Logins, Bans),
    ) -> Self {
        let writer = entry.map(|entry| Writer::new(host, entry, log, &default_realm));
        let logins = logins.of_operators();
        Self { realms: realms.clone(), default_realm, known_realms, logins, bans, writer }
    }
}

impl UserAdmin for Users {
    fn admit(&self, login: Option<Login>) -> BoxFuture<'_, Result<Author, AccessRefusal>> {
        async move {
            if self.logins.awaits_users() {
                return Err(AccessRefusal::NotYet);
            }
            if !self.logins.has_users() {
                return Ok(Author(String::new()));
            }
            let login = login.ok_or(AccessRefusal::LoginNeeded)?;
            let identity = self.logins.check(login).await.map_err(|refused| match refused {
                LoginRefusal::Wrong | LoginRefusal::Misused(_) => AccessRefusal::Wrong,
                LoginRefusal::Busy => AccessRefusal::Busy,
            })?;
            if self.bans.bars_user(&identity.user) {
                return Err(AccessRefusal::Banned);
            }
            let known = self.realms.with(|realms| realms.user(&identity.user));
            match known.is_some_and(|known| known.user.has_role(ADMIN)) {
                true => Ok(Author(identity.user)),
                false => Err(AccessRefusal::NoRole),
            }
        }
        .boxed()
    }

    fn page(&self, after: Option<&str>, max: usize) -> UserPage {
        self.realms.with(|realms| {
            let behind = |name: &str| after.is_some_and(|after| name <= after);
            let mut left = realms.users().skip_while(|(name, _)| behind(name));
            let users = left.by_ref().take(max).map(|(name, known)| info(name, known)).collect();
            UserPage { users, more: left.next().is_some() }
        })
    }

    fn user(&self, name: &str) -> Option<UserInfo> {
        let known = self.realms.with(|realms| realms.user(name))?;
        Some(info(name, &known))
    }

    fn change(
        &self,
        author: Author,
        edits: Vec<UserEdit>,
    ) -> BoxFuture<'_, Result<Changed, UsersError>> {
        async move {
            let writer = self.writer.as_ref().ok_or(UsersError::NoEntry)?;
            let deadline = Instant::now() + limits::USER_CHANGES_TIME;
            let ready = async {
                // The semaphore is never closed.
                let turn = writer.turns.acquire().await.map_err(|_| UsersError::Busy)?;
                Ok((turn, self.changes(edits, writer).await?))
            };
            let (_turn, changes) =
                timeout_at(deadline, ready).await.unwrap_or(Err(UsersError::Busy))?;
            let asked = ChangeUsers { author: author.0, changes };
            // What would be refused does not go into the log.
            self.realms.with(|realms| refusal(realms, &asked)).map_or(Ok(()), Err)?;
            let act = Act::Administer(Administer::Users(asked.clone()));
            let stored = writer.submit(&act, deadline).await.map_err(|error| match error {
                Unsubmitted::NotStored => UsersError::NotStored,
                Unsubmitted::Unknown => UsersError::Unknown,
            })?;
            self.realms.with(|realms| outcome(realms, &asked, &stored))?;
            tracing::info!(author = asked.author, position = %stored.position, "users changed");
            Ok(Changed { position: stored.position })
        }
        .boxed()
    }
}

impl Writer {
    /// The way through this entry; changes are events of a realm.
    pub(super) fn new(host: &Host, entry: EntryHandle, log: &Log, realm: &Realm) -> Self {
        Self {
            entry,
            log: log.clone(),
            realm: realm.clone(),
            random: host.random.clone(),
            turns: Semaphore::new(limits::USER_CHANGES_AT_ONCE),
            hashing: Arc::new(Semaphore::new(1)),
        }
    }

    /// Has a change stored, and waits until this node has applied it.
    pub(super) async fn submit(&self, act: &Act, deadline: Instant) -> Result<Stored, Unsubmitted> {
        let event = Event::of_act(self.realm.clone(), TOPIC, SessionId(0), act.encode());
        let (answers, mut answered) = mpsc::channel(1);
        let batch = Batch { answers: Some(answers), ..Batch::own(vec![event]) };
        let applied = async {
            self.entry.submit(batch).await.map_err(|_| Unsubmitted::Unknown)?;
            let answer = answered.recv().await.ok_or(Unsubmitted::Unknown)?;
            let stored = answer.outcome.map_err(|error| match error {
                PublishError::Unknown => Unsubmitted::Unknown,
                PublishError::NotStored => Unsubmitted::NotStored,
            })?;
            self.log.reached(stored.slot).await;
            Ok(stored)
        };
        timeout_at(deadline, applied).await.unwrap_or(Err(Unsubmitted::Unknown))
    }
}

/// Why it is not known that a change is in the log.
pub(super) enum Unsubmitted {
    NotStored,
    Unknown,
}

impl Users {
    /// What is to be changed, with hashed passwords.
    async fn changes(
        &self,
        edits: Vec<UserEdit>,
        writer: &Writer,
    ) -> Result<Vec<UserChange>, UsersError> {
        let names: BTreeSet<&str> = edits.iter().map(UserEdit::name).collect();
        if edits.is_empty() || edits.len() > limits::USER_CHANGES || names.len() < edits.len() {
            return Err(UsersError::Changes);
        }
        let mut changes = Vec::new();
        let mut other = self.realms.with(verifiers_of_a_user);
        for edit in edits {
            changes.push(match edit {
                UserEdit::Add(AddUser { name, password, roles, disabled }) => {
                    let name = checked_name(&name)?;
                    let mut user = User { roles: checked_roles(&name, roles)?, ..User::default() };
                    user.disabled = disabled;
                    if let Some(password) = password {
                        let verifiers = hashed(&name, password, (writer, &mut other)).await?;
                        user.verifier = verifiers.encode().into();
                    }
                    UserChange::Add { name, user }
                }
                UserEdit::Set(SetUser {
                    name,
                    password,
                    roles,
                    disabled,
                    add_keys,
                    remove_keys,
                }) => {
                    let known = self.realms.with(|realms| realms.user(&name));
                    let known = known.ok_or_else(|| UsersError::NoSuchUser(name.clone()))?;
                    let mut user = known.user.clone();
                    if let Some(roles) = roles {
                        user.roles = checked_roles(&name, roles)?;
                    }
                    user.disabled = disabled.unwrap_or(user.disabled);
                    let has_keys = add_keys.len() + remove_keys.len() > 0;
                    if password.is_some() || has_keys {
                        let old = Verifiers::decode(&user.verifier).ok_or(UsersError::Newer)?;
                        let keys = changed_keys(&name, &old, (&add_keys, &remove_keys))?;
                        let mut new = match password {
                            Some(password) => hashed(&name, password, (writer, &mut other)).await?,
                            None => old,
                        };
                        new.keys = keys;
                        user.verifier = new.encode().into();
                    }
                    UserChange::Set { name, user, unchanged_since: known.changed }
                }
                UserEdit::Remove(RemoveUser { name }) => UserChange::Remove { name },
            });
        }
        Ok(changes)
    }
}

fn info(name: &str, known: &KnownUser) -> UserInfo {
    let keys = Verifiers::decode(&known.user.verifier).unwrap_or_default().keys;
    UserInfo {
        name: name.to_owned(),
        roles: known.user.roles.clone(),
        disabled: known.user.disabled,
        has_password: known.user.has_password(),
        keys: keys.iter().map(PublicKey::to_hex).collect(),
        changed: known.changed,
    }
}

/// A new user's name. It is stored as logins spell it.
fn checked_name(text: &str) -> Result<String, UsersError> {
    let bad = |reason: String| UsersError::Name { name: text.to_owned(), reason };
    let name = UserName::new(text).map_err(|error| bad(error.to_string()))?;
    check_name(name.as_str()).map_err(|error: NameError| bad(error.to_string()))?;
    Ok(name.as_str().to_owned())
}

fn checked_roles(user: &str, roles: Vec<String>) -> Result<Vec<String>, UsersError> {
    for role in &roles {
        check_name(role).map_err(|error| UsersError::bad_name(role, error))?;
    }
    let roles: BTreeSet<String> = roles.into_iter().collect();
    if roles.len() > limits::USER_ROLES {
        return Err(UsersError::TooManyRoles { name: user.to_owned() });
    }
    Ok(roles.into_iter().collect())
}

/// A user's public keys, after some were added and removed.
fn changed_keys(
    user: &str,
    old: &Verifiers,
    (added, removed): (&[String], &[String]),
) -> Result<Vec<PublicKey>, UsersError> {
    let mut keys = old.keys.clone();
    let read = |text: &String| {
        PublicKey::from_hex(text).map_err(|_| UsersError::Key(text.chars().take(80).collect()))
    };
    for text in removed {
        let key = read(text)?;
        let at = keys.iter().position(|own| *own == key);
        let missing = || UsersError::NoSuchKey { name: user.to_owned(), key: key.to_hex() };
        keys.remove(at.ok_or_else(missing)?);
    }
    for text in added {
        let key = read(text)?;
        if keys.contains(&key) {
            return Err(UsersError::HasKey { name: user.to_owned(), key: key.to_hex() });
        }
        if keys.len() == limits::USER_KEYS {
            return Err(UsersError::TooManyKeys { name: user.to_owned() });
        }
        keys.push(key);
    }
    Ok(keys)
}

/// The verifiers of a user whose made up companions all users share, if there is one.
fn verifiers_of_a_user(realms: &Realms) -> Option<Verifiers> {
    let all = realms.users().filter_map(|(_, known)| Verifiers::decode(&known.user.verifier));
    all.into_iter().find(Verifiers::has_decoys)
}

/// What a password is verified with. It becomes the other user of the next one.
async fn hashed(
    user: &str,
    password: PasswordText,
    (writer, other): (&Writer, &mut Option<Verifiers>),
) -> Result<Verifiers, UsersError> {
    let bad = |reason: String| UsersError::Password { name: user.to_owned(), reason };
    let password = Password::new(password.0.as_bytes()).map_err(|error| bad(error.to_string()))?;
    let salts = Salts::draw(|| writer.random.next_u64());
    let hashes = writer.hashing.clone().acquire_owned().await.map_err(|_| UsersError::Busy)?;
    let known = other.take();
    let derive = move || {
        let verifiers = Verifiers::derive(&password, &salts, &Cost::default(), known.as_ref());
        drop(hashes);
        verifiers
    };
    let verifiers = tokio::task::spawn_blocking(derive).await.map_err(|_| UsersError::Busy)?;
    let verifiers = verifiers.map_err(|error| bad(error.to_string()))?;
    Ok(other.insert(verifiers).clone())
}

/// Why a change could not be made now.
fn refusal(realms: &Realms, asked: &ChangeUsers) -> Option<UsersError> {
    if realms.has_users() && !realms.may_administer(&asked.author) {
        return Some(match asked.author.is_empty() {
            true => UsersError::NotFirst,
            false => UsersError::NotAllowed,
        });
    }
    let (mut changed, mut added, mut has_admin) = (BTreeSet::new(), 0, false);
    for change in &asked.changes {
        let (name, user) = match change {
            UserChange::Add { name, user } | UserChange::Set { name, user, .. } => {
                (name, Some(user))
            }
            UserChange::Remove { name } => (name, None),
        };
        let refused = match (change, realms.user(name)) {
            (UserChange::Add { .. }, None) => {
                added += 1;
                None
            }
            (UserChange::Add { .. }, Some(_)) => Some(UsersError::Exists(name.clone())),
            (_, None) => Some(UsersError::NoSuchUser(name.clone())),
            (UserChange::Set { unchanged_since, .. }, Some(known))
                if known.changed > *unchanged_since =>
            {
                Some(UsersError::ChangedMeanwhile(name.clone()))
            }
            _ => None,
        };
        if refused.is_some() {
            return refused;
        }
        has_admin |=
            user.is_some_and(User::can_administer) && !realms.bars_user(name, realms.time());
        changed.insert(name.as_str());
    }
    let mut others = realms.users().filter(|(name, _)| !changed.contains(name));
    let can = |name, known: &KnownUser| {
        known.user.can_administer() && !realms.bars_user(name, realms.time())
    };
    if !has_admin && !others.any(|(name, known)| can(name, known)) {
        return Some(match realms.has_users() {
            true => UsersError::LastAdmin,
            false => UsersError::NoAdmin,
        });
    }
    let is_full = added > 0 && realms.users().count() + added > limits::USERS;
    is_full.then_some(UsersError::TooManyUsers)
}

/// What became of a change that this node has applied. All of it was done, or nothing.
fn outcome(realms: &Realms, asked: &ChangeUsers, stored: &Stored) -> Result<(), UsersError> {
    // Nothing else that this entry puts into one slot changes users.
    let is_newest = realms.next() == stored.slot.next();
    let signs = asked.changes.iter().map(|change| sign(realms, change, stored.position));
    let signs: Vec<Option<bool>> = signs.collect();
    let is_gone = |change: &UserChange| match change {
        UserChange::Remove { name } => realms.user(name).is_none(),
        UserChange::Add { .. } | UserChange::Set { .. } => false,
    };
    if signs.contains(&Some(true)) || asked.changes.iter().all(is_gone) {
        return Ok(());
    }
    match signs.contains(&Some(false)) || is_newest {
        true => Err(refusal(realms, asked).unwrap_or(UsersError::Refused)),
        false => Err(UsersError::Unknown),
    }
}

/// Whether a user shows that its change was made at this position, or that it was not; `None` if it shows neither.
fn sign(realms: &Realms, change: &UserChange, at: Position) -> Option<bool> {
    let (UserChange::Add { name, .. } | UserChange::Set { name, .. } | UserChange::Remove { name }) =
        change;
    match realms.user(name)?.changed.cmp(&at) {
        Ordering::Less => Some(false),
        Ordering::Equal => Some(true),
        Ordering::Greater => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realm::testing;
    use vulpes_raft::ids::{Slot, Stamp};

    fn user(roles: &[&str]) -> User {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        User { verifier: "v".into(), roles, disabled: false }
    }

    fn add(name: &str, roles: &[&str]) -> UserChange {
        UserChange::Add { name: name.into(), user: user(roles) }
    }

    fn set(name: &str, roles: &[&str], since: u64) -> UserChange {
        UserChange::Set { name: name.into(), user: user(roles), unchanged_since: Position(since) }
    }

    fn remove(name: &str) -> UserChange {
        UserChange::Remove { name: name.into() }
    }

    fn by(author: &str, changes: Vec<UserChange>) -> ChangeUsers {
        ChangeUsers { author: author.into(), changes }
    }

    #[test]
    fn keys_are_added_and_removed() {
        let key = |first: &str| format!("{first}{}", "0".repeat(62));
        let real = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29".to_owned();
        let change = |old: &Verifiers, added: &[&String], removed: &[&String]| {
            let owned =
                |keys: &[&String]| keys.iter().map(|key| (*key).clone()).collect::<Vec<_>>();
            let keys = changed_keys("joe", old, (&owned(added), &owned(removed)))?;
            let mut new = old.clone();
            new.keys = keys;
            Ok::<_, UsersError>(new)
        };
        let none = Verifiers::default();
        let some = change(&none, &[&real], &[]).unwrap();
        assert_eq!(some.keys.first().map(PublicKey::to_hex).as_ref(), Some(&real));
        assert_eq!(some.encode().first(), Some(&crate::types::access::PUBLIC_KEY));
        assert!(change(&some, &[], &[&real.to_uppercase()]).unwrap().encode().is_empty());
        let (name, key_hex) = ("joe".to_owned(), real.clone());
        let twice = UsersError::HasKey { name, key: key_hex };
        assert_eq!(change(&some, &[&real], &[]), Err(twice));
        let (name, key_hex) = ("joe".to_owned(), real.clone());
        let missing = UsersError::NoSuchKey { name, key: key_hex };
        assert_eq!(change(&none, &[], &[&real]), Err(missing));
        // No point of the curve, one of small order, and no digits.
        for bad in [key("02"), key("01"), "x".repeat(64), String::new()] {
            assert_eq!(change(&none, &[&bad], &[]), Err(UsersError::Key(bad)));
        }
        let mut full = some.clone();
        full.keys = vec![some.keys[0]; limits::USER_KEYS];
        let other = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".to_owned();
        let too_many = UsersError::TooManyKeys { name: "joe".to_owned() };
        assert_eq!(change(&full, &[&other], &[]), Err(too_many));
    }

    /// Users of whom `ann` administers and `joe` does not.
    fn realms() -> Realms {
        let changes = vec![add("ann", &[ADMIN]), add("joe", &[])];
        testing::after(&[Act::ChangeUsers(by("", changes))])
    }

    #[test]
    fn what_can_not_be_done_is_told() {
        let realms = realms();
        let at = realms.user("ann").unwrap().changed.0;
        for (asked, expected) in [
            (by("ann", vec![add("eve", &[])]), None),
            (by("ann", vec![add("eve", &[ADMIN]), remove("ann")]), None),
            (by("ann", vec![set("joe", &[ADMIN], at), set("ann", &[], at)]), None),
            (by("", vec![add("eve", &[])]), Some(UsersError::NotFirst)),
            (by("joe", vec![add("eve", &[])]), Some(UsersError::NotAllowed)),
            (by("ann", vec![add("joe", &[])]), Some(UsersError::Exists("joe".into()))),
            (by("ann", vec![remove("eve")]), Some(UsersError::NoSuchUser("eve".into()))),
            (
                by("ann", vec![set("joe", &[], at - 1)]),
                Some(UsersError::ChangedMeanwhile("joe".into())),
            ),
            (by("ann", vec![remove("ann")]), Some(UsersError::LastAdmin)),
            (by("ann", vec![set("ann", &[], at)]), Some(UsersError::LastAdmin)),
        ] {
            assert_eq!(refusal(&realms, &asked), expected, "{asked:?}");
        }
        let nobody = Realms::default();
        assert_eq!(refusal(&nobody, &by("", vec![add("eve", &[])])), Some(UsersError::NoAdmin));
        assert_eq!(refusal(&nobody, &by("", vec![add("eve", &[ADMIN])])), None);
    }

    /// The users as they are, and what is asked of them at a position: before, at or after that of their last change.
    #[test]
    fn only_what_the_users_show_is_told() {
        let realms = realms();
        let at = realms.user("ann").unwrap().changed.0;
        let newest = Slot(realms.next().0 - 1);
        let exists = Err(UsersError::Exists("joe".into()));
        for (change, position, slot, expected) in [
            (add("joe", &[]), at, newest, Ok(())),
            (add("joe", &[]), at + 1, newest, exists),
            (add("joe", &[]), at - 1, Slot(0), Err(UsersError::Unknown)),
            (add("eve", &[]), at, Slot(0), Err(UsersError::Unknown)),
            (add("eve", &[]), at, newest, Err(UsersError::Refused)),
            (remove("eve"), at, Slot(0), Ok(())),
            (remove("ann"), at + 1, Slot(0), Err(UsersError::LastAdmin)),
            (remove("joe"), at - 1, Slot(0), Err(UsersError::Unknown)),
        ] {
            let stored = Stored { position: Position(position), slot, stamp: Stamp(0), offset: 0 };
            let asked = by("ann", vec![change]);
            assert_eq!(outcome(&realms, &asked, &stored), expected, "{asked:?} at {position}");
        }
    }
}

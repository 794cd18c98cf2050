//! Changes bans, and tells what is remembered of changes.
//!
//! Invariant: an outcome is told only if it is remembered under the position of the change; otherwise it is unknown.
//!
//! Deliberately absent: whom a ban keeps out (`realm`, `server`), and HTTP (`http`).

use std::collections::BTreeSet;

use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::time::{timeout_at, Instant};
use vulpes_raft::ids::{OrderTime, Position};

use super::users::{Unsubmitted, Users};
use crate::http::{
    AuditAdmin, AuditPage, Author, BanAdmin, BanEdit, BanInfo, BanPage, BansError, ChangeInfo,
    Changed, NewBan, RemoveBan,
};
use crate::realm::Realms;
use crate::types::access::KnownUser;
use crate::types::act::{Act, Administer};
use crate::types::audit::AuditEntry;
use crate::types::ban::{AddBan, BanChange, BanTarget, ChangeBans, KnownBan};
use crate::types::limits;
use crate::types::topic::Realm;

impl BanAdmin for Users {
    fn bans(&self, after: Position, max: usize) -> BanPage {
        let now = self.bans.now();
        self.realms.with(|realms| page(realms, now, (after, max)))
    }

    fn change_bans(
        &self,
        author: Author,
        edits: Vec<BanEdit>,
    ) -> BoxFuture<'_, Result<Changed, BansError>> {
        async move {
            let writer = self.writer.as_ref().ok_or(BansError::NoEntry)?;
            let changes = changes(edits, &self.known_realms)?;
            let asked = ChangeBans { author: author.0, changes };
            // What would be refused does not go into the log.
            let refused = || {
                let now = self.bans.now();
                self.realms.with(|realms| refusal(realms, now, &asked))
            };
            refused().map_or(Ok(()), Err)?;
            let deadline = Instant::now() + limits::USER_CHANGES_TIME;
            let turn = timeout_at(deadline, writer.turns.acquire()).await;
            // The semaphore is never closed.
            let Ok(Ok(_turn)) = turn else { return Err(BansError::Busy) };
            let act = Act::Administer(Administer::Bans(asked.clone()));
            let stored = writer.submit(&act, deadline).await.map_err(|error| match error {
                Unsubmitted::NotStored => BansError::NotStored,
                Unsubmitted::Unknown => BansError::Unknown,
            })?;
            let position = stored.position;
            match self.realms.with(|realms| was_accepted(realms, position)) {
                Some(true) => {}
                Some(false) => return Err(refused().unwrap_or(BansError::Refused)),
                None => return Err(BansError::Unknown),
            }
            tracing::info!(author = asked.author, %position, "bans changed");
            Ok(Changed { position })
        }
        .boxed()
    }
}

impl AuditAdmin for Users {
    fn audit(&self, after: Position, max: usize) -> AuditPage {
        self.realms.with(|realms| {
            let (mut changes, mut bytes) = (Vec::new(), 0);
            let mut left = realms.audit(after).peekable();
            while changes.len() < max && bytes < limits::AUDIT_SHOWN_BYTES {
                let Some((position, entry, size)) = left.next() else { break };
                changes.push(shown(position, entry));
                bytes += size;
            }
            AuditPage { from: realms.audit_from(), changes, more: left.peek().is_some() }
        })
    }
}

fn shown(position: Position, entry: &AuditEntry) -> ChangeInfo {
    let AuditEntry { stamp, author, accepted, did } = entry.clone();
    ChangeInfo { position, time: stamp.to_iso(), author, accepted, did }
}

/// Whether the change at this position was done; none if that is forgotten.
fn was_accepted(realms: &Realms, position: Position) -> Option<bool> {
    let before = Position(position.0.saturating_sub(1));
    let remembered = realms.audit(before).next().filter(|(at, ..)| *at == position);
    remembered.map(|(_, entry, _)| entry.accepted)
}

fn page(realms: &Realms, now: OrderTime, (after, max): (Position, usize)) -> BanPage {
    let is_shown = |ban: &KnownBan| ban.changed > after && ban.holds(now);
    let mut bans: Vec<_> = realms.bans().filter(|(_, ban)| is_shown(ban)).collect();
    bans.sort_by_key(|(_, ban)| ban.changed);
    let last = bans.get(max.saturating_sub(1)).map(|(_, ban)| ban.changed);
    let end = last.map_or(bans.len(), |last| bans.partition_point(|(_, ban)| ban.changed <= last));
    let info = |(target, ban): &(&BanTarget, &KnownBan)| BanInfo {
        target: (*target).clone(),
        reason: ban.reason.clone(),
        author: ban.author.clone(),
        milliseconds_left: ban.until.map(|until| until.0.saturating_sub(now.0)),
        changed: ban.changed,
    };
    BanPage { bans: bans[..end].iter().map(info).collect(), more: end < bans.len() }
}

/// What is to be changed.
fn changes(edits: Vec<BanEdit>, realms: &[Realm]) -> Result<Vec<BanChange>, BansError> {
    let change = |edit: BanEdit| {
        let change = match edit {
            BanEdit::Remove(RemoveBan { target }) => BanChange::Remove(target),
            BanEdit::Add(NewBan { target, reason, milliseconds: lasts }) => {
                let add = AddBan { target, reason, lasts };
                add.check()?;
                BanChange::Add(add)
            }
        };
        match change.target() {
            BanTarget::Client { realm: Some(realm), .. } if !realms.contains(realm) => {
                Err(BansError::NoSuchRealm(realm.clone()))
            }
            _ => Ok(change),
        }
    };
    let changes: Vec<BanChange> = edits.into_iter().map(change).collect::<Result<_, _>>()?;
    let targets: BTreeSet<&BanTarget> = changes.iter().map(BanChange::target).collect();
    if changes.is_empty() || changes.len() > limits::BAN_CHANGES || targets.len() < changes.len() {
        return Err(BansError::Changes);
    }
    Ok(changes)
}

/// Why a change could not be made now.
fn refusal(realms: &Realms, now: OrderTime, asked: &ChangeBans) -> Option<BansError> {
    if !realms.may_administer(&asked.author) {
        return Some(BansError::NotAllowed);
    }
    let holds = |target: &BanTarget| realms.ban(target).is_some_and(|ban| ban.holds(now));
    let mut held: BTreeSet<&BanTarget> =
        realms.bans().filter(|(_, ban)| ban.holds(now)).map(|(target, _)| target).collect();
    for change in &asked.changes {
        match change {
            BanChange::Remove(target) if !holds(target) => {
                return Some(BansError::NoSuchBan(target.clone()));
            }
            BanChange::Remove(target) => drop(held.remove(target)),
            BanChange::Add(add) => {
                if let BanTarget::User(name) = &add.target {
                    if realms.user(name).is_none() {
                        return Some(BansError::NoSuchUser(name.clone()));
                    }
                }
                held.insert(&add.target);
            }
        }
    }
    let can = |(name, known): (&str, &KnownUser)| {
        known.user.can_administer() && !held.contains(&BanTarget::User(name.to_owned()))
    };
    if realms.has_users() && !realms.users().any(|(name, known)| can((name, known))) {
        return Some(BansError::LastAdmin);
    }
    (held.len() > limits::BANS).then_some(BansError::TooMany)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realm::testing;
    use crate::types::access::{ChangeUsers, User, UserChange, ADMIN};

    fn of_user(name: &str) -> BanTarget {
        BanTarget::User(name.into())
    }

    fn of_address(number: usize) -> BanTarget {
        BanTarget::Address(format!("10.{}.{}.1", number / 256, number % 256).parse().unwrap())
    }

    fn add(target: BanTarget) -> BanChange {
        BanChange::Add(AddBan { target, reason: "r".into(), lasts: None })
    }

    fn by(author: &str, changes: Vec<BanChange>) -> ChangeBans {
        ChangeBans { author: author.into(), changes }
    }

    fn users() -> Act {
        let user = |roles: &[&str]| {
            let roles = roles.iter().map(|role| (*role).to_owned()).collect();
            User { verifier: "v".into(), roles, disabled: false }
        };
        let changes = vec![
            UserChange::Add { name: "ann".into(), user: user(&[ADMIN]) },
            UserChange::Add { name: "joe".into(), user: user(&[]) },
        ];
        Act::Administer(Administer::Users(ChangeUsers { author: String::new(), changes }))
    }

    /// `ann` administers, `joe` does not, and there are these bans.
    fn realms(bans: &[Vec<BanChange>]) -> Realms {
        let bans =
            bans.iter().map(|bans| Act::Administer(Administer::Bans(by("ann", bans.clone()))));
        testing::after(&[users()].into_iter().chain(bans).collect::<Vec<_>>())
    }

    #[test]
    fn what_can_not_be_done_is_told() {
        let realms = realms(&[vec![add(of_user("joe"))]]);
        let remove = BanChange::Remove;
        for (asked, expected) in [
            (by("ann", vec![add(of_user("joe"))]), None),
            (by("ann", vec![remove(of_user("joe"))]), None),
            (by("joe", vec![add(of_address(1))]), Some(BansError::NotAllowed)),
            (by("", vec![add(of_address(1))]), Some(BansError::NotAllowed)),
            (by("ann", vec![add(of_user("eve"))]), Some(BansError::NoSuchUser("eve".into()))),
            (by("ann", vec![remove(of_address(1))]), Some(BansError::NoSuchBan(of_address(1)))),
            (by("ann", vec![add(of_user("ann"))]), Some(BansError::LastAdmin)),
        ] {
            assert_eq!(refusal(&realms, realms.time(), &asked), expected, "{asked:?}");
        }
        let nobody = Realms::default();
        let anybody = by("", vec![add(of_address(1))]);
        assert_eq!(refusal(&nobody, nobody.time(), &anybody), None);
        assert_eq!(changes(Vec::new(), &[]), Err(BansError::Changes));
        let edit = |target| BanEdit::Remove(RemoveBan { target });
        assert_eq!(changes(vec![edit(of_user("a")); 2], &[]), Err(BansError::Changes));
        let many = (0..=limits::BAN_CHANGES).map(|number| edit(of_address(number)));
        assert_eq!(changes(many.collect(), &[]), Err(BansError::Changes));
        let realm = Realm::new("r").unwrap();
        let client = BanTarget::Client { name: "c".into(), realm: Some(realm.clone()) };
        assert_eq!(changes(vec![edit(client)], &[]), Err(BansError::NoSuchRealm(realm)));
    }

    #[test]
    fn there_are_only_so_many() {
        let many: Vec<BanChange> =
            (0..limits::BANS).map(|number| add(of_address(number))).collect();
        let realms = realms(&[many]);
        let one = |change| refusal(&realms, realms.time(), &by("ann", vec![change]));
        assert_eq!(one(add(of_user("joe"))), Some(BansError::TooMany));
        assert_eq!(one(add(of_address(1))), None);
    }

    #[test]
    fn bans_come_in_pages_and_what_was_made_together_in_one() {
        let realms = realms(&[
            vec![add(of_address(9))],
            vec![add(of_address(1)), add(of_address(2)), add(of_address(3))],
            vec![add(of_user("joe"))],
        ]);
        let shown = |after, max| {
            let page = page(&realms, realms.time(), (Position(after), max));
            (page.bans.iter().map(|ban| ban.changed.0).collect::<Vec<_>>(), page.more)
        };
        assert_eq!(shown(0, 9), (vec![2, 3, 3, 3, 4], false));
        assert_eq!(shown(0, 2), (vec![2, 3, 3, 3], true));
        assert_eq!(shown(3, 2), (vec![4], false));
        assert_eq!(shown(0, 1), (vec![2], true));
        assert_eq!(was_accepted(&realms, Position(3)), Some(true));
        assert_eq!(was_accepted(&realms, Position(5)), None);
    }
}

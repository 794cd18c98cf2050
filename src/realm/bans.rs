//! Bans: who may not have a session, as of each position.
//!
//! A ban of a user or of a client's name is decided here, where a session begins and where the ban does. Where a connection comes
//! from only its node knows: it is told when addresses are banned, and asks. A ban that is over does not hold any more, by the
//! order's time; its row goes with the next change of bans.
//!
//! Invariant: no session of a banned user or client outlives the position of its ban. As long as there are users, one of them
//! can administer and is not banned. How many bans there are is limited.
//!
//! Deliberately absent: connections and their addresses (`server`).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::OrdMap;
use vulpes_raft::ids::{OrderTime, Position};
use vulpes_raft::mutant::{planted, Mutant};

use super::{Due, EndCause, Incoming, Key, Notice, Realms};
use crate::types::access::ANONYMOUS;
use crate::types::act::DueId;
use crate::types::ban::{BanChange, BanTarget, ChangeBans, KnownBan, Network};
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::topic::Realm;

/// The bans, by target.
#[derive(Clone, Debug, Default)]
pub(super) struct Bans {
    all: OrdMap<BanTarget, Arc<KnownBan>>,
    /// The lengths of banned networks' prefixes: an address is looked for with each.
    lengths: BTreeSet<u8>,
}

impl Bans {
    pub(super) fn load(&mut self, target: BanTarget, ban: KnownBan) {
        if let BanTarget::Address(network) = &target {
            self.lengths.insert(network.length());
        }
        self.all.insert(target, Arc::new(ban));
    }

    fn hold(&self, target: &BanTarget, at: OrderTime) -> bool {
        self.all.get(target).is_some_and(|ban| ban.holds(at) || planted(Mutant::BanForever))
    }

    /// The same without those that are over, and with these changes; none if they can't be made.
    fn changed(
        &self,
        (author, changes): (&str, Vec<BanChange>),
        (now, changed): (OrderTime, Position),
    ) -> Option<Self> {
        let mut bans = self.clone();
        for (target, _) in self.all.iter().filter(|(_, ban)| !ban.holds(now)) {
            bans.all.remove(target);
        }
        for change in changes {
            let add = match change {
                BanChange::Add(add) => add,
                BanChange::Remove(target) => {
                    bans.all.remove(&target)?;
                    continue;
                }
            };
            add.check().ok()?;
            let until = add.lasts.map(|lasts| OrderTime(now.0.saturating_add(lasts)));
            let (author, reason) = (author.to_owned(), add.reason);
            bans.all.insert(add.target, Arc::new(KnownBan { reason, author, until, changed }));
        }
        bans.lengths = bans.all.keys().filter_map(length).collect();
        (bans.all.len() <= limits::BANS).then_some(bans)
    }
}

fn length(target: &BanTarget) -> Option<u8> {
    match target {
        BanTarget::Address(network) => Some(network.length()),
        BanTarget::User(_) | BanTarget::Client { .. } => None,
    }
}

impl Realms {
    /// All bans, in the order of their targets; some may be over.
    pub fn bans(&self) -> impl Iterator<Item = (&BanTarget, &KnownBan)> {
        self.bans.all.iter().map(|(target, ban)| (target, &**ban))
    }

    /// A ban, which may be over.
    #[must_use]
    pub fn ban(&self, target: &BanTarget) -> Option<&KnownBan> {
        self.bans.all.get(target).map(|ban| &**ban)
    }

    /// Whether this user is banned at this time.
    #[must_use]
    pub fn bars_user(&self, name: &str, at: OrderTime) -> bool {
        !self.bans.all.is_empty() && self.bans.hold(&BanTarget::User(name.to_owned()), at)
    }

    /// Whether clients from this address are banned at this time.
    #[must_use]
    pub fn bars_address(&self, address: IpAddr, at: OrderTime) -> bool {
        let networks = self.bans.lengths.iter().filter_map(|len| Network::around(address, *len));
        networks.into_iter().any(|network| self.bans.hold(&BanTarget::Address(network), at))
    }

    /// Whether a client is banned at this time, by its user or its name. Without a user, it did not log in.
    #[must_use]
    pub fn bars(
        &self,
        user: Option<&str>,
        client: Option<&str>,
        realm: &Realm,
        at: OrderTime,
    ) -> bool {
        let user = user.unwrap_or(ANONYMOUS);
        self.bars_user(user, at) || self.bars_client(client.unwrap_or(user), realm, at)
    }

    fn bars_client(&self, name: &str, realm: &Realm, at: OrderTime) -> bool {
        let bars = |realm: Option<&Realm>| {
            let (name, realm) = (name.to_owned(), realm.cloned());
            self.bans.hold(&BanTarget::Client { name, realm }, at)
        };
        !self.bans.all.is_empty() && (bars(None) || bars(Some(realm)))
    }

    /// Whether a session may not begin here because of a ban. Then it gets the notice that it has ended.
    pub(super) fn turns_away(&mut self, incoming: &Incoming<'_>, client: Option<&str>) -> bool {
        let (session, user) = (incoming.event.publisher, incoming.event.extensions.user());
        let banned = self.bars(user, client, incoming.realm, self.time);
        if !banned || planted(Mutant::AdmitBanned) {
            return false;
        }
        self.notices.push(Notice::Ended { session, cause: EndCause::Banned });
        true
    }

    /// Whether what a session left may not be published because its client is banned. A lock has to be freed.
    pub(super) fn is_of_banned(&self, id: DueId, due: &Due) -> bool {
        let user = self.access.due_users.get(&id).map(String::as_str);
        let name = due.client.as_deref().or(user);
        let bars_user = || user.is_some_and(|user| self.bars_user(user, self.time));
        let bars_name = |name| self.bars_client(name, &due.realm, self.time);
        !due.bound && (bars_user() || name.is_some_and(bars_name))
    }

    /// Changes bans, all of it or nothing; returns whether it was done. If there are users, one of them can still administer.
    pub(super) fn change_bans(&mut self, incoming: &Incoming<'_>, change: ChangeBans) -> bool {
        let ChangeBans { author, changes } = change;
        if !self.may_administer(&author) {
            return false;
        }
        let here = (self.time, incoming.at.position);
        let Some(bans) = self.bans.changed((&author, changes), here) else { return false };
        let old = std::mem::replace(&mut self.bans, bans);
        if self.has_users() && !self.is_administrable() {
            self.bans = old;
            return false;
        }
        let new = self.bans.all.clone();
        let (mut bans_addresses, mut bans_names) = (false, false);
        for change in old.all.diff(&new) {
            let (target, old, new) = match change {
                DiffItem::Add(target, new) => (target, None, Some(new)),
                DiffItem::Update { old: (target, old), new: (_, new) } => {
                    (target, Some(old), Some(new))
                }
                DiffItem::Remove(target, old) => (target, Some(old), None),
            };
            let is_address = matches!(target, BanTarget::Address(_));
            bans_addresses |= new.is_some() && is_address;
            bans_names |= new.is_some() && !is_address;
            let key = Key::Ban(target.clone());
            self.rows.change(&key, old.map(|old| &**old), new.map(|new| &**new));
        }
        if bans_addresses {
            self.notices.push(Notice::AddressesBanned);
        }
        if bans_names && !planted(Mutant::SpareBanned) {
            self.end_banned();
        }
        true
    }

    /// Whether a user can administer who is not banned.
    pub(super) fn is_administrable(&self) -> bool {
        let mut users = self.users();
        users.any(|(name, known)| known.user.can_administer() && !self.bars_user(name, self.time))
    }

    /// Ends the sessions that could not begin any more.
    fn end_banned(&mut self) {
        let over = |session: SessionId, state: &super::SessionState| {
            self.bars(self.user_of(session), state.client.as_deref(), &state.realm, self.time)
        };
        let sessions = self.sessions.iter().filter(|(session, state)| over(**session, state));
        let over: Vec<SessionId> = sessions.map(|(session, _)| *session).collect();
        for session in over {
            self.end_session(session, EndCause::Banned);
        }
    }
}

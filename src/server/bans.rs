//! Bans at this node: who is turned away before anything is written to the log, and which open sessions come from a banned
//! address.
//!
//! Users and clients' names are decided again in the order, where the session begins. Addresses are decided here alone, since
//! only this node knows where its connections come from. Whether a ban is over, it takes from the order's time as it reckons it:
//! the time of the newest slot, or what has passed since an earlier one by its own monotonic clock.
//!
//! Invariant: no session stays open whose address is banned. One is noted before its address is looked at, and the state bans an
//! address before its sessions are looked for, so that one of the two finds it.
//!
//! Deliberately absent: the admin port and other nodes, which no ban of an address keeps out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use vulpes_raft::ids::OrderTime;

use crate::realm::{Realms, SharedRealms};
use crate::types::event::SessionId;
use crate::types::topic::Realm;

/// What a node knows for its bans. Clones share it.
#[derive(Clone)]
pub(crate) struct Bans {
    realms: SharedRealms,
    known: Arc<Mutex<Known>>,
}

struct Known {
    /// A time of the order, and when it was that here.
    time: OrderTime,
    read: Instant,
    /// Where the sessions of this node come from.
    addresses: BTreeMap<SessionId, IpAddr>,
}

impl Bans {
    pub(crate) fn new(realms: SharedRealms) -> Self {
        let time = realms.with(Realms::time);
        let known = Known { time, read: Instant::now(), addresses: BTreeMap::new() };
        Self { realms, known: Arc::new(Mutex::new(known)) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The order's time now. Often asked for, it is nearer to the order's.
    pub(crate) fn now(&self) -> OrderTime {
        let newest = self.realms.with(Realms::time);
        let mut known = self.known();
        let passed = u64::try_from(known.read.elapsed().as_millis()).unwrap_or(u64::MAX);
        let reckoned = OrderTime(known.time.0.saturating_add(passed));
        if newest > reckoned {
            (known.time, known.read) = (newest, Instant::now());
        }
        newest.max(reckoned)
    }

    /// Whether a connection from there is to be closed.
    pub(crate) fn bars_address(&self, address: IpAddr) -> bool {
        let now = self.now();
        self.realms.with(|realms| realms.bars_address(address, now))
    }

    /// Whether this client may have no session.
    pub(crate) fn bars(&self, user: Option<&str>, client: Option<&str>, realm: &Realm) -> bool {
        let now = self.now();
        self.realms.with(|realms| realms.bars(user, client, realm, now))
    }

    /// Whether this user may not use admin HTTP.
    pub(crate) fn bars_user(&self, user: &str) -> bool {
        let now = self.now();
        self.realms.with(|realms| realms.bars_user(user, now))
    }

    /// Notes where a session comes from.
    pub(super) fn note(&self, session: SessionId, address: IpAddr) {
        self.known().addresses.insert(session, address);
    }

    pub(super) fn forget(&self, session: SessionId) {
        self.known().addresses.remove(&session);
    }

    /// The noted sessions whose address is banned.
    pub(super) fn banned(&self) -> Vec<SessionId> {
        let now = self.now();
        let known = self.known();
        self.realms.with(|realms| {
            let banned = known.addresses.iter().filter(|(_, at)| realms.bars_address(**at, now));
            banned.map(|(session, _)| *session).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::realm::testing;
    use crate::types::act::{Act, Administer};
    use crate::types::ban::{AddBan, BanChange, BanTarget, ChangeBans};

    /// Nothing more is in the log behind the ban.
    #[tokio::test(start_paused = true)]
    async fn a_ban_is_over_when_its_time_has_passed_here() {
        let ban = |target, lasts| {
            BanChange::Add(AddBan { target, reason: String::new(), lasts: Some(lasts) })
        };
        let address = BanTarget::Address("10.0.0.0/8".parse().unwrap());
        let changes = vec![ban(address, 3000), ban(BanTarget::User("joe".into()), 5000)];
        let change = ChangeBans { author: String::new(), changes };
        let realms = testing::after(&[Act::Administer(Administer::Bans(change))]);
        let bans = Bans::new(SharedRealms::new(realms));
        for (session, address) in [(1, "10.1.2.3"), (2, "11.1.2.3"), (3, "10.255.0.1")] {
            bans.note(SessionId(session), address.parse().unwrap());
        }
        bans.forget(SessionId(3));
        let realm = Realm::new("r").unwrap();
        let seen = || {
            let bars = |user| bans.bars(Some(user), Some("c"), &realm);
            let sessions: Vec<u64> = bans.banned().iter().map(|session| session.0).collect();
            let address = bans.bars_address("10.9.9.9".parse().unwrap());
            (sessions, address, bans.bars_user("joe"), bars("joe"), bars("ann"))
        };
        assert_eq!(seen(), (vec![1], true, true, true, false));
        tokio::time::advance(Duration::from_millis(2999)).await;
        assert_eq!(seen(), (vec![1], true, true, true, false));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(seen(), (vec![], false, true, true, false));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(seen(), (vec![], false, false, false, false));
    }
}

//! What the clients of one user, or of one address, may have and do at this node, all of them together.
//!
//! An address is counted from the moment when a connection is accepted, before TLS and before anything is read. Whose client it is
//! shows when its session begins. What a client sends is never refused for coming too fast: its socket is read more slowly.
//!
//! Invariant: every count is given back when what was counted is gone. The table of addresses is bounded: those that find no
//! place in it count as one. Where nothing is limited, there is no account, and nothing is counted.
//!
//! Deliberately absent: limits for a cluster. Each node keeps them by itself.

mod bucket;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bucket::Bucket;

use crate::config::limits::{Limits, Quota};
use crate::types::limits;
use crate::types::moment::Moment;

/// For how many seconds' worth of connects there may be at once.
const CONNECTS_AT_ONCE: u64 = 10;

/// The same of publishes and bytes.
const INPUT_AT_ONCE: u64 = 1;

/// For how many seconds' worth of bytes anonymous clients may write to the log at once.
const LOG_AT_ONCE: u64 = 256;

/// What a session without a name takes of the log and of each storage's file, beside what it says: its end, and two rows.
const SESSION_OVERHEAD: u64 = 640;

/// Sessions a second that begin at a node while publishes are refused because of a low disk: they take room on it, too.
const LOW_DISK_CONNECTS: u64 = 10;

/// Why a client does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As many as may be are there.
    Connections,
    /// They come too fast.
    Rate,
}

/// The quotas of a node. Clones share it.
#[derive(Clone)]
pub(crate) struct Quotas(Arc<Shared>);

struct Shared {
    limits: Limits,
    users: Mutex<Table<String>>,
    anonymous: Mutex<Table<Net>>,
    addresses: Mutex<Table<Net>>,
    /// What anonymous clients may write to the log.
    log: Option<Mutex<Bucket>>,
    /// Sessions that may begin while a disk runs low.
    low_disk: Mutex<Bucket>,
}

/// An address, or the network of addresses that one host has at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Net(IpAddr);

impl Net {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into()
            }
            address => address,
        })
    }
}

/// The accounts of one kind.
struct Table<K> {
    accounts: BTreeMap<K, Arc<Account>>,
    most: usize,
    /// That of all who find no place.
    others: Option<Arc<Account>>,
    /// When those that are not needed were last removed.
    swept: Moment,
}

/// How often a full table is searched for accounts that are not needed, in milliseconds.
const SWEPT: u64 = 1000;

impl<K: Ord> Table<K> {
    fn new(most: usize) -> Mutex<Self> {
        let (accounts, others) = (BTreeMap::new(), None);
        Mutex::new(Self { accounts, most, others, swept: Moment::default() })
    }

    fn account(&mut self, key: K, quota: Quota, now: Moment) -> Arc<Account> {
        if let Some(account) = self.accounts.get(&key) {
            account.adopt(quota, now);
            return account.clone();
        }
        if self.accounts.len() >= self.most && now.0 >= self.swept.0.saturating_add(SWEPT) {
            self.swept = now;
            self.accounts.retain(|_, account| account.is_needed(now));
        }
        let new = || Arc::new(Account::new(quota, now));
        if self.accounts.len() >= self.most {
            return self.others.get_or_insert_with(new).clone();
        }
        self.accounts.entry(key).or_insert_with(new).clone()
    }
}

/// What counts together.
pub(crate) struct Account(Mutex<State>);

struct State {
    quota: Quota,
    connections: u64,
    subscriptions: u64,
    connects: Option<Bucket>,
    publishes: Option<Bucket>,
    bytes: Option<Bucket>,
}

/// Where a client comes from.
pub(crate) struct Came {
    pub(super) address: IpAddr,
    /// What its address counts, if anything.
    pub(super) account: Option<Arc<Account>>,
}

/// A connection that is counted.
pub(crate) struct Member(Arc<Account>);

/// A subscription that is counted.
pub(crate) struct Counted(Arc<Account>);

impl Account {
    fn new(quota: Quota, now: Moment) -> Self {
        Self(Mutex::new(State::new(quota, now)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// The user may have got other roles.
    fn adopt(&self, quota: Quota, now: Moment) {
        let mut state = self.state();
        if state.quota != quota {
            let State { connections, subscriptions, .. } = *state;
            *state = State { connections, subscriptions, ..State::new(quota, now) };
        }
    }

    /// Whether it remembers anything.
    fn is_needed(self: &Arc<Self>, now: Moment) -> bool {
        let mut state = self.state();
        let State { connects, publishes, bytes, .. } = &mut *state;
        let mut buckets = [connects, publishes, bytes].into_iter().flatten();
        Arc::strong_count(self) > 1 || !buckets.all(|bucket| bucket.is_full(now))
    }

    fn enter(self: Arc<Self>, now: Moment) -> Result<Member, Refused> {
        let mut state = self.state();
        if state.quota.connections.is_some_and(|most| state.connections >= most) {
            return Err(Refused::Connections);
        }
        if state.connects.as_mut().is_some_and(|connects| !connects.try_take(1, now)) {
            return Err(Refused::Rate);
        }
        state.connections += 1;
        drop(state);
        Ok(Member(self))
    }

    /// Counts one more subscription, if there may be one.
    pub(super) fn subscribe(self: &Arc<Self>) -> Option<Counted> {
        let mut state = self.state();
        if state.quota.subscriptions.is_some_and(|most| state.subscriptions >= most) {
            return None;
        }
        state.subscriptions += 1;
        Some(Counted(self.clone()))
    }

    /// How many subscriptions there may be; nothing if any number.
    pub(super) fn most_subscriptions(&self) -> Option<u32> {
        let most = self.state().quota.subscriptions;
        most.map(|most| u32::try_from(most).unwrap_or(u32::MAX))
    }

    /// When input may be read again; nothing if it may be now.
    pub(super) fn ready_at(&self, now: Moment) -> Option<Moment> {
        let mut state = self.state();
        let State { publishes, bytes, .. } = &mut *state;
        let waits = [publishes, bytes].into_iter().flatten();
        waits.filter_map(|bucket| bucket.ready_at(now)).max()
    }

    /// How many messages may be read now; nothing if they are not counted.
    pub(super) fn messages(&self, now: Moment) -> Option<u64> {
        self.state().publishes.as_mut().map(|publishes| publishes.room(now))
    }

    /// Whether publishes are counted.
    pub(super) fn counts_publishes(&self) -> bool {
        self.state().publishes.is_some()
    }

    /// Counts what was read.
    pub(super) fn spend(&self, publishes: u64, bytes: u64, now: Moment) {
        let mut state = self.state();
        if let Some(bucket) = state.publishes.as_mut().filter(|_| publishes > 0) {
            bucket.spend(publishes, now);
        }
        if let Some(bucket) = state.bytes.as_mut().filter(|_| bytes > 0) {
            bucket.spend(bytes, now);
        }
    }
}

impl State {
    fn new(quota: Quota, now: Moment) -> Self {
        let bucket = |rate: Option<u64>, seconds| rate.map(|rate| Bucket::new(rate, seconds, now));
        Self {
            quota,
            connections: 0,
            subscriptions: 0,
            connects: bucket(quota.connects_per_second, CONNECTS_AT_ONCE),
            publishes: bucket(quota.publishes_per_second, INPUT_AT_ONCE),
            bytes: bucket(quota.bytes_per_second, INPUT_AT_ONCE),
        }
    }
}

impl Member {
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.0
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.state().connections -= 1;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.state().subscriptions -= 1;
    }
}

impl Quotas {
    pub(crate) fn new(limits: Limits) -> Self {
        let now = Moment::default();
        let log = limits.anonymous_log;
        let log = log.map(|rate| Mutex::new(Bucket::new(rate, LOG_AT_ONCE, now)));
        Self(Arc::new(Shared {
            limits,
            users: Table::new(limits::USERS),
            anonymous: Table::new(limits::QUOTA_ADDRESSES),
            addresses: Table::new(limits::QUOTA_ADDRESSES),
            log,
            low_disk: Mutex::new(Bucket::new(LOW_DISK_CONNECTS, CONNECTS_AT_ONCE, now)),
        }))
    }

    /// A connection comes from an address.
    pub(super) fn connects(&self, address: IpAddr, now: Moment) -> Result<Option<Member>, Refused> {
        let quota = self.0.limits.address;
        enter(&self.0.addresses, Net::of(address), quota, now)
    }

    /// What to keep of a connection from an address, with its place there; nothing if addresses don't count.
    pub(super) fn came(&self, address: IpAddr, place: Option<&Member>) -> Option<Arc<Came>> {
        let account = place.map(Member::account).cloned();
        let counts = account.is_some() || self.0.limits.anonymous != Quota::default();
        counts.then(|| Arc::new(Came { address, account }))
    }

    /// The session of a user with these roles begins.
    pub(super) fn logs_in(
        &self,
        user: &str,
        roles: &[String],
        now: Moment,
    ) -> Result<Option<Member>, Refused> {
        let quota = self.0.limits.of_user(roles);
        enter(&self.0.users, user.to_owned(), quota, now)
    }

    /// The session of a client that has not logged in begins; it takes this many bytes of the log.
    pub(super) fn comes_in(
        &self,
        address: Option<IpAddr>,
        bytes: usize,
        now: Moment,
    ) -> Result<Option<Member>, Refused> {
        let member = match address {
            Some(address) => {
                enter(&self.0.anonymous, Net::of(address), self.0.limits.anonymous, now)?
            }
            None => None,
        };
        let bytes = bytes as u64 + SESSION_OVERHEAD;
        let log = self.0.log.as_ref();
        let has_room = log.is_none_or(|log| lock(log).try_take(bytes, now));
        has_room.then_some(member).ok_or(Refused::Rate)
    }

    /// A session begins while a disk runs low.
    pub(super) fn begins_on_low_disk(&self, now: Moment) -> Result<(), Refused> {
        let begins = lock(&self.0.low_disk).try_take(1, now);
        begins.then_some(()).ok_or(Refused::Rate)
    }
}

fn enter<K: Ord>(
    table: &Mutex<Table<K>>,
    key: K,
    quota: Quota,
    now: Moment,
) -> Result<Option<Member>, Refused> {
    if quota == Quota::default() {
        return Ok(None);
    }
    let account = lock(table).account(key, quota, now);
    account.enter(now).map(Some)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

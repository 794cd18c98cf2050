//! Reads a client no faster than its user and its address may send.
//!
//! Invariant: nothing is refused for coming too fast. What has come counts, even if it is more than there was room for in one
//! piece; then nothing is read until that is made up for. A client that is not read for this is not silent.
//!
//! Deliberately absent: the limits (`server::quotas`).

use std::sync::Arc;

use super::Session;
use crate::gate::Gate;
use crate::server::quotas::{Account, Came};
use crate::server::transport::Transport;
use crate::types::moment::Moment;

/// What limits a session. Mostly it is nothing, and takes no memory.
#[derive(Default)]
pub(super) struct Paced(Option<Box<Limited>>);

#[derive(Default)]
struct Limited {
    accounts: Vec<Arc<Account>>,
    /// How many subscriptions they let a session have.
    subscriptions: Option<u32>,
    /// Publishes that are counted.
    counted: u64,
    /// Its client is not read until then.
    until: Option<Moment>,
}

impl Paced {
    /// Limited by what the client's address may do, if that is limited.
    pub(super) fn new(came: Option<&Came>) -> Self {
        let account = came.and_then(|came| came.account.clone());
        Self(
            account
                .map(|account| Box::new(Limited { accounts: vec![account], ..Limited::default() })),
        )
    }

    /// What the session counts for.
    pub(super) fn accounts(&self) -> Box<[Arc<Account>]> {
        self.0.as_ref().map_or_else(Box::default, |limited| limited.accounts.clone().into())
    }

    /// How many subscriptions the session may have.
    pub(super) fn subscriptions(&self) -> u32 {
        self.0.as_ref().and_then(|limited| limited.subscriptions).unwrap_or(u32::MAX)
    }

    /// Whether the client has to wait is asked anew in each turn.
    pub(super) fn look_again(&mut self) {
        if let Some(limited) = &mut self.0 {
            limited.until = None;
        }
    }

    /// Until when the client is not read.
    pub(super) fn until(&self) -> Option<Moment> {
        self.0.as_ref()?.until
    }
}

impl<G: Gate, T: Transport> Session<G, T> {
    /// The session is open, and counts for its user, or for those of its address without one.
    pub(super) fn is_counted(&mut self) {
        if let Some(member) = &self.held.member {
            let limited = self.paced.0.get_or_insert_default();
            limited.accounts.push(member.account().clone());
        }
        let Some(limited) = &mut self.paced.0 else { return };
        let most = limited.accounts.iter().filter_map(|account| account.most_subscriptions());
        limited.subscriptions = most.min();
        if limited.accounts.iter().any(|account| account.counts_publishes()) {
            self.transport.take_singly();
        }
    }

    /// How many messages of the client may be taken now, at most this many; nothing if its user or its address has to wait.
    pub(super) fn may_take(&mut self, most: usize) -> Option<usize> {
        let Some(limited) = &mut self.paced.0 else { return Some(most) };
        let now = self.clients.now();
        let accounts = &limited.accounts;
        limited.until = accounts.iter().filter_map(|account| account.ready_at(now)).max();
        if limited.until.is_some() {
            return None;
        }
        let room = accounts.iter().filter_map(|account| account.messages(now)).min();
        Some(room.map_or(most, |room| most.min(usize::try_from(room).unwrap_or(most)).max(1)))
    }

    /// Counts bytes that were read.
    pub(super) fn count_bytes(&mut self, bytes: usize) {
        let Some(limited) = &self.paced.0 else { return };
        let now = self.clients.now();
        limited.accounts.iter().for_each(|account| account.spend(0, bytes as u64, now));
    }

    /// Counts what the client has published since the last time.
    pub(super) fn count_publishes(&mut self, now: Moment) {
        let Some(limited) = &mut self.paced.0 else { return };
        let taken = self.core.ledger().taken();
        let more = taken - std::mem::replace(&mut limited.counted, taken);
        limited.accounts.iter().for_each(|account| account.spend(more, 0, now));
    }
}

//! A session's node and its way to the client, as its core sees them.
//!
//! Deliberately absent: anything that takes time. A core never waits.

use std::net::IpAddr;

use tokio::sync::OwnedSemaphorePermit;
use vulpes_raft::ids::{Incarnation, Position};

use crate::call::{CallMessage, CallRequest};
use crate::gate::{Allowed, OpenRefusal};
use crate::realm::{PastPermissions, PersistentState};
use crate::rules::Permissions;
use crate::server::calls::Attached;
use crate::server::clients::Clients;
use crate::server::filtering::Filtering;
use crate::server::identity;
use crate::server::outgo::Outgo;
use crate::server::publishing::{looked_at, Publishing};
use crate::server::quotas::{Member, Refused};
use crate::server::session_manager::Mailbox;
use crate::server::transport::Transport;
use crate::session::core::Node;
use crate::session::delivery::Outlet;
use crate::types::event::{Event, SessionId};
use crate::types::topic::Realm;

/// What a session holds at its node.
#[derive(Default)]
pub(super) struct Held {
    /// Its signals from the realms' state.
    pub(super) words: Option<Mailbox>,
    /// Its place among the connections of its user, if those are counted.
    pub(super) member: Option<Member>,
    /// Room for what all nodes store of it.
    pub(super) state_room: Option<OwnedSemaphorePermit>,
    /// Present once the session takes part in calls.
    pub(super) calls: Option<Box<Attached>>,
}

/// A session's view of its node.
pub(super) struct AtNode<'a> {
    pub(super) session: SessionId,
    pub(super) clients: &'a Clients,
    pub(super) held: &'a mut Held,
    pub(super) publishing: &'a Publishing,
    /// Where its client comes from.
    pub(super) address: Option<IpAddr>,
    /// How many subscriptions its user and its address let it have.
    pub(super) subscriptions: u32,
}

impl AtNode<'_> {
    /// Counts the session among those of its user, or of its address if it has none.
    fn enter(&self, user: Option<&str>, bytes: usize) -> Result<Option<Member>, Refused> {
        let Clients { quotas, realm_states, .. } = self.clients;
        let now = self.clients.now();
        if self.clients.shortage.is_there() {
            quotas.begins_on_low_disk(now)?;
        }
        let Some(user) = user else { return quotas.comes_in(self.address, bytes, now) };
        let known = realm_states.with(|realms| realms.user(user));
        quotas.logs_in(user, known.as_ref().map_or(&[], |known| &known.user.roles), now)
    }
}

impl Node for AtNode<'_> {
    fn register(
        &mut self,
        realm: &Realm,
        (name, user): (&str, Option<&str>),
        bytes: usize,
    ) -> Result<(), OpenRefusal> {
        if !self.clients.realms.contains(realm) {
            return Err(OpenRefusal::NoSuchRealm);
        }
        let room = self.clients.try_keep_state(bytes).ok_or(OpenRefusal::NoRoom)?;
        self.held.member = self.enter(user, bytes).map_err(|refused| match refused {
            Refused::Connections => OpenRefusal::QuotaReached,
            Refused::Rate => OpenRefusal::TooFast,
        })?;
        identity::is_called(name);
        self.held.words = Some(self.clients.manager.register(self.session));
        self.held.state_room = Some(room);
        // It may have been banned since it was accepted.
        let bars = |address| self.clients.manager.bans().bars_address(address);
        match identity::address().is_some_and(bars) {
            true => Err(OpenRefusal::Banned),
            false => Ok(()),
        }
    }

    fn admit(
        &self,
        user: Option<&str>,
        client: Option<&str>,
        realm: &Realm,
    ) -> Result<(), OpenRefusal> {
        if !self.clients.realm_states.with(|realms| realms.admits(user)) {
            return Err(OpenRefusal::LoginNeeded);
        }
        match self.clients.manager.bans().bars(user, client, realm) {
            true => Err(OpenRefusal::Banned),
            false => Ok(()),
        }
    }

    fn permissions(
        &self,
        user: Option<&str>,
        client: Option<&str>,
        realm: &Realm,
    ) -> (Permissions, Position) {
        self.clients
            .realm_states
            .with(|realms| (realms.permissions(user, client, realm), realms.access_changed()))
    }

    fn own_permissions(&self) -> Option<(Permissions, Position)> {
        self.clients
            .realm_states
            .with(|realms| Some((realms.permissions_of(self.session)?, realms.access_changed())))
    }

    fn past_permissions(&self, at: Position) -> Option<PastPermissions> {
        self.clients.realm_states.with(|realms| realms.permissions_at(self.session, at))
    }

    fn access_changed(&self) -> Position {
        self.clients.realm_states.access_changed()
    }

    fn call(&mut self, realm: &Realm, asked: CallRequest) -> Option<CallMessage> {
        let attach = || Box::new(self.clients.calls.attach(self.session));
        self.held.calls.get_or_insert_with(attach).ask(realm, asked)
    }

    fn incarnation(&self) -> Option<Incarnation> {
        let states = &self.clients.realm_states;
        states.with(|realms| realms.session(self.session).map(|session| session.incarnation))
    }

    fn persistent(&self) -> Option<PersistentState> {
        self.clients.realm_states.with(|realms| realms.persistent_of(self.session))
    }

    fn wills(&self) -> usize {
        self.clients.realm_states.with(|realms| realms.wills(self.session))
    }

    fn looked_at(&self, event: &Event, compares: bool) -> usize {
        looked_at(&self.clients.realm_states, event, compares)
    }

    fn room(&self) -> Allowed {
        let waits = self.publishing.has_room_to_wait();
        let publishes = !self.clients.shortage.is_there();
        Allowed { waits, publishes, subscriptions: self.subscriptions, ..Allowed::default() }
    }

    fn next_position(&self) -> Position {
        self.clients.log.tail().next_position
    }

    fn oldest(&self) -> Position {
        self.clients.log.head().position
    }
}

/// The way to the client.
pub(super) struct Way<'a, T> {
    pub(super) transport: &'a T,
    pub(super) outgo: &'a mut Outgo,
    pub(super) filtering: &'a mut Filtering,
}

impl<T: Transport> Outlet for Way<'_, T> {
    fn waiting(&self) -> usize {
        self.transport.pending()
    }

    fn has_room(&mut self, waiting: usize) -> bool {
        !self.outgo.is_held_up() && self.outgo.has_room(waiting)
    }

    fn has_room_for(&mut self, waiting: usize, bytes: usize) -> bool {
        self.outgo.has_room_for(waiting, bytes)
    }

    fn takes(&mut self, waiting: usize, size: usize) -> usize {
        self.outgo.takes(waiting, size)
    }

    fn has_room_for_answers(&mut self, waiting: usize) -> bool {
        self.outgo.has_room_for_answers(waiting)
    }

    fn may_filter(&mut self) -> bool {
        self.filtering.try_take()
    }
}

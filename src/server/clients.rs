//! What all client sessions of a node share.
//!
//! Deliberately absent: effects of sessions on each other, which the realms' state decides for all nodes.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use vulpes_raft::host::Host;

use crate::config::limits::Limits;
use crate::config::origins::Origins;
use crate::entry::{EntryHandle, Shortage};
use crate::gate::mqtt::MqttConfig;
use crate::gate::MergingRealms;
use crate::log::Log;
use crate::realm::SharedRealms;
use crate::replica::Command;
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::moment::Moment;
use crate::types::topic::Realm;

use super::budget::Budget;
use super::calls::Calls;
use super::drops::Drops;
use super::handshake::Handshakes;
use super::login::tokens::TokenFiles;
use super::login::Logins;
use super::publishing::Rooms;
use super::quotas::Quotas;
use super::session_manager::SessionManager;
use super::transport::Protocol;

/// Bytes of what all nodes keep of a session that are counted together.
const STATE_UNIT: usize = 256;

/// Bytes of the room for subscriptions per permit.
pub(super) const SUBSCRIPTION_UNIT: usize = 64;

pub(crate) struct Clients {
    pub(crate) host: Host,
    pub(crate) entry: EntryHandle,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) log: Log,
    pub(crate) realm_states: SharedRealms,
    pub(crate) manager: SessionManager,
    pub(crate) calls: Calls,
    /// The existing realms.
    pub(crate) realms: Arc<BTreeSet<Realm>>,
    pub(crate) mqtt: Arc<MqttConfig>,
    pub(crate) merging: MergingRealms,
    pub(crate) logins: Logins,
    /// Budgets of connections: for those whose session is not open yet, for the input of the others, and for their output.
    pub(crate) login: Budget,
    pub(crate) input: Budget,
    pub(crate) output: Budget,
    /// Parts of the log that sessions hold until their sockets take them.
    pub(crate) segments: Budget,
    /// The room for conditional publishes.
    pub(crate) rooms: Rooms,
    /// The turn at reading large values for filters: one session at a time.
    pub(crate) filtering: Budget,
    /// The room for all subscriptions.
    pub(crate) subscriptions: Arc<Semaphore>,
    /// One permit a connection.
    pub(crate) connections: Arc<Semaphore>,
    /// The total of these permits.
    pub(crate) most: usize,
    /// The origins of web pages that may connect.
    pub(crate) origins: Origins,
    /// One permit for each begun [`STATE_UNIT`] of what all nodes keep of a session.
    pub(crate) states: Arc<Semaphore>,
    /// One permit for each connection that is being told that there is no room.
    pub(crate) refusals: Arc<Semaphore>,
    /// The clients whose connections are not encrypted yet, but are to be.
    pub(crate) handshakes: Handshakes,
    /// Connections that are open now.
    pub(crate) wamp_sessions: AtomicU64,
    pub(crate) mqtt_sessions: AtomicU64,
    pub(crate) drops: Drops,
    /// What the clients of one user or address may have and do.
    pub(super) quotas: Quotas,
    /// Whether the storages have room for what clients publish.
    pub(crate) shortage: Shortage,
    stopping: watch::Receiver<bool>,
    started: Instant,
}

impl Clients {
    pub(crate) fn new(
        host: Host,
        entry: EntryHandle,
        commands: mpsc::Sender<Command>,
        log: Log,
        (realm_states, manager, calls): (SharedRealms, SessionManager, Calls),
        (realms, default_realm, merging): (BTreeSet<Realm>, Realm, MergingRealms),
        (most, origins, stopping): (usize, Origins, watch::Receiver<bool>),
    ) -> Self {
        let realms = Arc::new(realms);
        let logins = Logins::new(realm_states.clone(), &host);
        Self {
            logins,
            host,
            entry,
            commands,
            log,
            realm_states,
            manager,
            calls,
            mqtt: Arc::new(MqttConfig {
                default_realm,
                realms: realms.clone(),
                merging: merging.clone(),
            }),
            realms,
            merging,
            login: Budget::in_parts(limits::LOGIN_BYTES),
            input: Budget::in_parts(limits::INPUT_BYTES),
            output: Budget::new(limits::OUTPUT_BYTES),
            segments: Budget::new(limits::SEGMENTS_HELD),
            rooms: Rooms::default(),
            filtering: Budget::new(1),
            subscriptions: Arc::new(Semaphore::new(
                limits::SUBSCRIPTIONS_BYTES / SUBSCRIPTION_UNIT,
            )),
            connections: Arc::new(Semaphore::new(most)),
            states: Arc::new(Semaphore::new(limits::SESSION_STATES_BYTES / STATE_UNIT)),
            most,
            origins,
            refusals: Arc::new(Semaphore::new(limits::REFUSALS)),
            handshakes: Handshakes::new(limits::TLS_HANDSHAKES),
            wamp_sessions: AtomicU64::new(0),
            mqtt_sessions: AtomicU64::new(0),
            drops: Drops::default(),
            quotas: Quotas::new(Limits::none()),
            shortage: Shortage::default(),
            stopping,
            started: Instant::now(),
        }
    }

    /// The number of connections now open.
    pub(crate) fn sessions(&self, protocol: Protocol) -> &AtomicU64 {
        match protocol {
            Protocol::Wamp => &self.wamp_sessions,
            Protocol::Mqtt => &self.mqtt_sessions,
        }
    }

    /// A new session's number: 1 to 2^53 - 1.
    pub(crate) fn new_session(&self) -> SessionId {
        SessionId((self.host.random.next_u64() >> 11).max(1))
    }

    /// Reserves room for what all nodes store of a session.
    pub(crate) fn try_keep_state(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes / STATE_UNIT + 1).ok()?;
        self.states.clone().try_acquire_many_owned(permits).ok()
    }

    /// The time since the node began to serve clients.
    pub(crate) fn now(&self) -> Moment {
        Moment(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The moment as an instant.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        self.started + Duration::from_millis(moment.0)
    }

    /// The same, where clients may log in with these tokens.
    pub(crate) fn with_tokens(self, tokens: Option<Arc<TokenFiles>>) -> Self {
        let logins = self.logins.clone().with_tokens(tokens);
        Self { logins, ..self }
    }

    /// The same, where nobody comes in before the log has users, if it is to be `guarded`.
    pub(crate) fn guarded(self, guarded: bool) -> Self {
        let logins = self.logins.clone().guarded(guarded);
        Self { logins, ..self }
    }

    /// The same, where clients are limited like this.
    pub(crate) fn with_limits(self, limits: Limits) -> Self {
        Self { quotas: Quotas::new(limits), ..self }
    }

    /// Waits until no client is connected any more.
    pub(crate) async fn drained(&self) {
        // The semaphore is never closed.
        let _ = self.connections.acquire_many(self.most as u32).await;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.clone()
    }
}

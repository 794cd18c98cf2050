//! What all client sessions of a node share.
//!
//! Invariant: a client name is held by one session a realm, the last one that claimed it.
//!
//! Deliberately absent: names across nodes; those need sessions in the log.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch, Semaphore};
use tokio::time::Instant;
use vulpes_raft::host::Host;

use crate::entry::EntryHandle;
use crate::event::SessionId;
use crate::gate::Moment;
use crate::limits;
use crate::log::Log;
use crate::replica::Command;
use crate::topic::Realm;

/// A client's name in its realm.
pub(super) type Name = (Realm, String);

pub(super) struct Clients {
    pub(super) host: Host,
    pub(super) entry: EntryHandle,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) log: Log,
    pub(super) realms: BTreeSet<Realm>,
    pub(super) default_realm: Realm,
    /// One permit a connection.
    pub(super) connections: Arc<Semaphore>,
    /// Connections now open.
    pub(super) wamp_sessions: AtomicU64,
    pub(super) mqtt_sessions: AtomicU64,
    names: Mutex<HashMap<Name, (SessionId, oneshot::Sender<()>)>>,
    stopping: watch::Receiver<bool>,
    started: Instant,
}

impl Clients {
    pub(super) fn new(
        host: Host,
        entry: EntryHandle,
        commands: mpsc::Sender<Command>,
        log: Log,
        (realms, default_realm): (BTreeSet<Realm>, Realm),
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            host,
            entry,
            commands,
            log,
            realms,
            default_realm,
            connections: Arc::new(Semaphore::new(limits::CONNECTIONS)),
            wamp_sessions: AtomicU64::new(0),
            mqtt_sessions: AtomicU64::new(0),
            names: Mutex::default(),
            stopping,
            started: Instant::now(),
        }
    }

    /// A new session's number: 1 to 2^53 - 1.
    pub(super) fn new_session(&self) -> SessionId {
        SessionId((self.host.random.next_u64() >> 11).max(1))
    }

    /// The time since the node began to serve clients.
    pub(super) fn now(&self) -> Moment {
        Moment(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The instant of a moment.
    pub(super) fn instant(&self, moment: Moment) -> Instant {
        self.started + Duration::from_millis(moment.0)
    }

    /// Waits until no client is connected any more.
    pub(super) async fn drained(&self) {
        // The semaphore is never closed.
        let _ = self.connections.acquire_many(limits::CONNECTIONS as u32).await;
    }

    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.clone()
    }

    /// Gives a name to a session and tells the one that had it. The session learns by the answer when it loses it.
    pub(super) fn claim(&self, name: Name, session: SessionId) -> oneshot::Receiver<()> {
        let (taken_over, lost) = oneshot::channel();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, older)) = names.insert(name, (session, taken_over)) {
            // Its session may have ended just now.
            let _ = older.send(());
        }
        lost
    }

    /// Gives a name back, if the session still has it.
    pub(super) fn release(&self, name: &Name, session: SessionId) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.get(name).is_some_and(|(holder, _)| *holder == session) {
            names.remove(name);
        }
    }
}

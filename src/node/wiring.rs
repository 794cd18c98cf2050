//! A node: the roles its configuration names, started in the order of the data flow and wired to each other.
//!
//! Invariant: all listeners are open before any role runs, so that a port in use is reported before anything is done. Clients
//! are let in once this node reads the log.
//!
//! Deliberately absent: the process around it (`cli`) and admin HTTP (`admin`), which a simulation runs without.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use vulpes_raft::client::SyncClient;
use vulpes_raft::disk::file::{File, OpenError};
use vulpes_raft::host::{Host, Listener, Unresolved};
use vulpes_raft::ids::{DiskId, Slot};
use vulpes_raft::local_bodies::LocalBodies;
use vulpes_raft::net::wire::Identity;
use vulpes_raft::node::{Member as SyncMember, StartError as SyncStartError, SyncConfig, SyncNode};
use vulpes_raft::order::Resolution;

use crate::append::SegmentStore;
use crate::config::disk::LowWater;
use crate::config::identity::IdentityError;
use crate::config::origins::Origins;
use crate::config::{open_identity, Address, Member, NodeConfig, Role};
use crate::dispatch::Dispatcher;
use crate::entry::{Entry, EntryConfig, EntryHandle};
use crate::gate::MergingRealms;
use crate::log::{log, Log, Tail};
use crate::peer::StorageClient;
use crate::realm::{Realms, SharedRealms, View};
use crate::recent::RecentBodies;
use crate::replica::{dispatch, Replica, SlotIndex, NOTICE_SLOTS};
use crate::server::login::tokens::{TokenFileError, TokenFiles};
use crate::server::login::Logins;
use crate::storage::{ReadError, Reads, Storage};
use crate::tls::certificates::Certificates;
use crate::tls::TlsError;
use crate::types::limits;
use crate::types::topic::Realm;

use super::files::Files;
use super::first_administrator;
use super::peers::{serve_peers, NodePort, Served};
use super::tuning::Tuning;
use super::users::Users;
use crate::cluster::adapters::SyncTier;
use crate::cluster::local_storage::{self, StoredBodies};
use crate::cluster::repair::repair;
use crate::cluster::space;
use crate::cluster::storages::{
    self, enrol, furthest_first, nearest_first, report_stored, Own, Storages, RETRY,
};
use crate::cluster::upkeep::{catch_up, start_upkeep};
use crate::server::bans::Bans;
use crate::server::calls::links::call_out;
use crate::server::calls::Calls;
use crate::server::clients::Clients;
use crate::server::listen::{self, Entrance};
use crate::server::session_manager::SessionManager;
use crate::server::trim;

/// How long a stopping node tries to close its entry at sync, and waits for its clients to disconnect.
const LEAVE_WAIT: Duration = Duration::from_secs(2);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("can't listen on {address} for {what}: {error}{}", advice(.error))]
    Listen { what: &'static str, address: String, error: io::Error },
    #[error("TLS is not possible: {0}")]
    Tls(#[from] TlsError),
    #[error("[jwt] can't be used: {0}")]
    Tokens(#[from] TokenFileError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    File(#[from] OpenError),
    #[error("{0}; if that is not so, give the node an empty data directory and a new number")]
    State(ReadError),
    #[error("other machines may reach {0}, but the log has no users and the configuration no [first_administrator], so everybody would come in. Copy the table [first_administrator] from a file that `vulpes init` writes into that of each node, or write this line above the first table, if everybody who reaches that address is trusted: insecure = true")]
    NoUsers(Address),
    #[error("sync can't start: {0}")]
    SyncTier(#[from] SyncStartError),
}

impl StartError {
    /// Whether the disk is the cause, and not the operator's configuration.
    #[must_use]
    pub fn is_of_the_disk(&self) -> bool {
        match self {
            Self::File(error) | Self::SyncTier(SyncStartError::Open(error)) => {
                error.is_of_the_disk()
            }
            Self::State(_) | Self::Identity(IdentityError::Damaged { .. }) => true,
            _ => false,
        }
    }
}

/// What to do if an address can't be listened on.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; end the process that uses it, or choose another port",
        io::ErrorKind::AddrNotAvailable => {
            "; no interface of this machine has this address: name one of its own, or 0.0.0.0 for all of them"
        }
        io::ErrorKind::PermissionDenied => {
            "; choose a port from 1024 on, or give this program the right to lower ones"
        }
        // The error says everything.
        _ if error.get_ref().is_some_and(|inner| inner.is::<Unresolved>()) => "",
        _ => "; see [listen] in the configuration",
    }
}

/// A running node. It ends when this is dropped and its runtime with it, or by [`Node::stop`].
pub struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) identity: Identity,
    pub(crate) sync: Option<SyncNode>,
    pub(crate) storage: Option<Storage>,
    pub(crate) log: Option<Log>,
    /// The realms' state as this node has folded it; none if it does not read the log.
    pub(crate) realms: Option<SharedRealms>,
    pub(crate) entry: Option<EntryHandle>,
    pub(crate) clients: Option<Arc<Clients>>,
    /// The users as this node knows them; none if it does not read the log.
    pub(crate) users: Option<Users>,
    /// Present once the node is an entry that reads the log.
    calls: Arc<OnceLock<Calls>>,
    pub(crate) order: SyncClient,
    stopping: watch::Sender<bool>,
    /// How much of its disk is left free.
    pub(crate) low_water: watch::Sender<LowWater>,
    /// The node can't continue from what it has: see [`Node::left_behind`].
    left_behind: watch::Receiver<bool>,
}

/// All listeners, before any role runs.
struct Listeners {
    peer: Box<dyn Listener>,
    clients: Vec<Entrance>,
}

impl Node {
    /// Starts a node. Must be called within a tokio runtime, which keeps the cluster alive; clients are served on the host's
    /// workers for clients.
    ///
    /// # Errors
    /// If a port is in use, or the data directory is not this node's or can't be read.
    pub async fn start(host: Host, config: NodeConfig) -> Result<Self, StartError> {
        Self::start_tuned(host, config, Tuning::default()).await
    }

    /// Like [`Node::start`], with limits that make rare cases common.
    ///
    /// # Errors
    /// Like [`Node::start`].
    pub async fn start_tuned(
        host: Host,
        config: NodeConfig,
        tuning: Tuning,
    ) -> Result<Self, StartError> {
        let certificates = Certificates::load(&config, host.clock.clone())?;
        Self::start_with(host, config, tuning, &certificates).await
    }

    /// As [`Node::start_tuned`], with these certificates for its listeners.
    pub(crate) async fn start_with(
        host: Host,
        config: NodeConfig,
        mut tuning: Tuning,
        certificates: &Certificates,
    ) -> Result<Self, StartError> {
        let host = certificates.secure(host);
        let listeners = listen(&host, &config, certificates).await?;
        let identity = open_identity(&host, &config)?;
        let own = config.own().clone();
        let recent = RecentBodies::new(tuning.recent_bodies);
        let appends = own.has(Role::Storage) || own.has(Role::Sync);
        let file = appends.then(|| File::open(&host, &config.data, &identity)).transpose()?;
        let early = local_storage::early(&config);
        tuning.entry.early &= early;
        let storage = file.as_ref().filter(|_| own.has(Role::Storage)).map(|file| {
            let patience =
                if tuning.entry.early { local_storage::FOR_ITS_ENTRY } else { Duration::ZERO };
            Storage::open(file, &identity, config.shards(&own), recent.clone(), patience)
        });
        let storage = storage.transpose()?;
        let storages =
            storages::storages(&host, &config, &identity, storage.as_ref(), limits::OWN_READS);
        let mut sync = None;
        if let Some(file) = file.as_ref().filter(|_| own.has(Role::Sync)) {
            let sync_config = sync_config(&config, &identity);
            let beside = storage.clone().filter(|_| early).map(|storage| {
                Arc::new(StoredBodies::new(storage, storages.clone())) as Arc<dyn LocalBodies>
            });
            let (host, tuning) = (host.clone(), tuning.sync);
            let starting = SyncNode::start_tuned(host, sync_config, file, tuning, beside);
            sync = Some(Box::pin(starting).await?);
        }
        drop(file);
        tokio::spawn(Files::of(&host, &config.data).watch(host.clone()));
        let calls = Arc::<OnceLock<Calls>>::default();
        let (enrolling, enrolled) = watch::channel(storage.is_none());
        let served = Served {
            sync: sync.clone(),
            storage: storage.clone(),
            enrolled,
            reads: Reads::new(host.clients.clone(), limits::PEER_READS),
            calls: calls.clone(),
        };
        let entrance = NodePort { listener: listeners.peer, tls: certificates.nodes().cloned() };
        tokio::spawn(serve_peers(entrance, identity.clone(), served));
        let members = sync_members(&config);
        let order = SyncClient::new(host.clone(), identity.clone(), members, sync.clone());
        let (stopping, stop) = watch::channel(false);
        let low_water = watch::Sender::new(config.low_water);
        let mut node = Self {
            config,
            identity,
            sync,
            storage,
            log: None,
            realms: None,
            entry: None,
            clients: None,
            users: None,
            calls,
            order,
            stopping,
            low_water,
            left_behind: watch::channel(false).1,
        };
        if own.has(Role::Entry) || own.has(Role::Storage) {
            let clients = listeners.clients;
            let told = (enrolling, stop);
            node.start_reading(&host, &tuning, recent, (storages, clients), told).await?;
        }
        Ok(node)
    }

    /// Starts the replica, and the entry if the node is one.
    async fn start_reading(
        &mut self,
        host: &Host,
        tuning: &Tuning,
        recent: RecentBodies,
        (storages, entrances): (Storages, Vec<Entrance>),
        (enrolling, stop): (watch::Sender<bool>, watch::Receiver<bool>),
    ) -> Result<(), StartError> {
        let own = self.storage.as_ref();
        let read =
            storages::storages(host, &self.config, &self.identity, own, limits::CLIENT_READS);
        let enrolled = self.enrol(host, (&storages, &read), enrolling);
        if let Some(storage) = &self.storage {
            tokio::spawn(report_stored(self.order.clone(), storage.clone()));
            tokio::spawn(repair(storage.clone(), self.others(&storages)));
        }
        let realms = SharedRealms::new(self.known_to_users(self.beginning(&storages).await?)?);
        let View { next, position, .. } = realms.view();
        let tail = Tail { next_slot: next, next_position: position };
        let (log_tail, log) = log(tail, nearest_first(&self.config, &storages));
        let log_tail = log_tail.retaining(tuning.recent_slots);
        let (left_behind, wait) =
            start_upkeep(self.storage.clone(), self.others(&storages), &log, &realms);
        self.left_behind = wait;
        let (placed, placing) = mpsc::channel(limits::READ_ROWS);
        let (commands, commanded) = mpsc::channel(limits::DISPATCH_COMMANDS);
        let dispatcher = Dispatcher::new(tail.next_slot);
        host.clients.spawn(dispatch(dispatcher, log_tail, placing, commanded));
        let mut observers = Vec::new();
        let mut told = None;
        if self.config.own().has(Role::Entry) {
            let (observer, observed) = mpsc::channel(limits::OBSERVED_BATCHES);
            observers.push(observer);
            let (notices, noticed) = mpsc::channel(NOTICE_SLOTS);
            told = Some(notices);
            let entry = self.start_entry(host, tuning, &storages, observed, recent.clone());
            let calls = self.start_calls(host, &realms);
            let manager = SessionManager::new(calls.clone(), Bans::new(realms.clone()));
            self.start_asking(&log, &realms, &entry);
            trim::start(&manager, &host.clients);
            let node = self.identity.node;
            tokio::spawn(manager.clone().run(node, entry.clone(), realms.clone(), noticed));
            let clients = Clients::new(
                host.clone(),
                entry.clone(),
                commands,
                log.reading_from(nearest_first(&self.config, &read)),
                (realms.clone(), manager, calls),
                self.known_realms(),
                (tuning.connections, Origins::of(&self.config), stop),
            );
            let clients = clients.with_limits(self.config.limits.clone());
            let clients = clients.with_tokens(self.tokens()?).guarded(self.is_guarded());
            let clients = Arc::new(clients);
            let doors = first_administrator::doors(host, &self.config, (&log, &realms), &entry);
            first_administrator::let_in(host, &doors, entrances, &clients);
            self.entry = Some(entry);
            self.clients = Some(clients);
        }
        let index = self.storage.clone().map(|storage| Arc::new(storage) as Arc<dyn SlotIndex>);
        let replica = Replica {
            host: host.clone(),
            order: Arc::new(SyncTier(self.order.clone())),
            index,
            log: log.clone(),
            recent,
            realms: realms.clone(),
            notices: told,
            placed,
            left_behind,
            observers,
        };
        tokio::spawn(follow(enrolled, replica));
        self.watch_space(host, storages);
        self.knows(host, log, realms);
        Ok(())
    }

    /// Measures the disk that the storage has, and asks all storages about theirs if clients publish here.
    fn watch_space(&self, host: &Host, storages: Storages) {
        if !space::is_measured(host, &self.config.data) {
            return;
        }
        if let Some(storage) = self.storage.clone() {
            let (data, mark) = (self.config.data.clone(), self.low_water.subscribe());
            tokio::spawn(space::measure(host.clone(), data, mark, storage));
        }
        if let Some(clients) = &self.clients {
            for storage in storages.into_values() {
                tokio::spawn(space::ask(storage, clients.shortage.clone()));
            }
        }
    }

    /// The node reads the log, so it knows its end, its state and the users in it.
    fn knows(&mut self, host: &Host, log: Log, realms: SharedRealms) {
        // Clients and operators wait for each other's failures.
        let logins = self.clients.as_ref().map(|clients| clients.logins.clone());
        let own = || Logins::new(realms.clone(), host).guarded(self.is_guarded());
        let logins = logins.unwrap_or_else(own);
        let entry = self.entry.clone();
        let realm = (self.config.default_realm.clone(), self.config.realms.clone());
        let bans = self.clients.as_ref().map(|clients| clients.manager.bans().clone());
        let bans = bans.unwrap_or_else(|| Bans::new(realms.clone()));
        self.users = Some(Users::new(host, (&log, &realms), realm, (entry, &logins, bans)));
        (self.log, self.realms) = (Some(log), Some(realms));
    }

    /// Whether nobody comes in before the log has users.
    fn is_guarded(&self) -> bool {
        self.config.first_administrator.is_some()
    }

    /// The state of the log from which this node reads on, if clients are let in on purpose: they need a user, or can only be on this
    /// machine, or may be anybody.
    fn known_to_users(&self, state: Realms) -> Result<Realms, StartError> {
        match self.config.open_without_users() {
            Some(address) if !state.has_users() => Err(StartError::NoUsers(address.clone())),
            _ => Ok(state),
        }
    }

    /// Whether clients are still kept out because the log has no users.
    pub(super) fn awaits_users(&self) -> bool {
        let realms = self.realms.as_ref().filter(|_| self.is_guarded());
        realms.is_some_and(|realms| !realms.with(Realms::has_users))
    }

    /// What tokens are checked with, from now on as their file has it.
    fn tokens(&self) -> Result<Option<Arc<TokenFiles>>, StartError> {
        let tokens = self.config.tokens.as_ref().map(TokenFiles::load).transpose()?;
        if let Some(tokens) = &tokens {
            tokio::spawn(tokens.clone().watch());
        }
        Ok(tokens)
    }

    /// Checks that the storages are as when the cluster was formed, and lets this storage take bodies after that.
    fn enrol(
        &self,
        host: &Host,
        (own, clients): (&Storages, &Storages),
        enrolling: watch::Sender<bool>,
    ) -> JoinHandle<bool> {
        let storages = (own.clone(), clients.clone());
        let own = self.storage.as_ref().map(|storage| Own {
            node: self.identity.node,
            disk: self.identity.disk,
            stored: storage.tail().map_or(Slot(0), |tail| tail.slot),
            alone: sole_member(&self.config),
        });
        let groups = self.config.storage_groups();
        let enrolled = enrol(host.clone(), self.order.clone(), storages, groups, own);
        tokio::spawn(async move {
            let enrolled = enrolled.await;
            enrolling.send_replace(enrolled);
            enrolled
        })
    }

    /// The configured realms, the realm of clients that name none, and the realms in which retained values are merged.
    fn known_realms(&self) -> (BTreeSet<Realm>, Realm, MergingRealms) {
        let config = &self.config;
        let merging = config.merging.iter().cloned().collect();
        (config.realms.iter().cloned().collect(), config.default_realm.clone(), merging)
    }

    fn start_entry(
        &self,
        host: &Host,
        tuning: &Tuning,
        storages: &Storages,
        observed: mpsc::Receiver<Arc<Vec<Resolution>>>,
        recent: RecentBodies,
    ) -> EntryHandle {
        let stores =
            storages.values().map(|client| Arc::new(client.clone()) as Arc<dyn SegmentStore>);
        let config = EntryConfig {
            node: self.identity.node,
            storages: stores.map(|store| tuning.store(store)).collect(),
            lease: self.config.timing.lease,
            tuning: tuning.entry,
        };
        let order = tuning.ordering(Arc::new(SyncTier(self.order.clone())));
        Entry::start(config, host, order, observed, recent)
    }

    /// Starts to pass calls on to the other entries, and to take theirs.
    fn start_calls(&self, host: &Host, realms: &SharedRealms) -> Calls {
        let own = self.identity.node;
        let calls = self.calls.get_or_init(|| Calls::new(host, own, realms.clone()));
        let entries = self.config.nodes.iter().filter(|member| member.has(Role::Entry));
        for member in entries.filter(|member| member.id != own) {
            let address = member.peer.as_str().to_owned();
            tokio::spawn(call_out(calls.clone(), self.identity.clone(), member.id, address));
        }
        calls.clone()
    }

    /// The client of each storage on other nodes.
    fn others(&self, storages: &Storages) -> Vec<StorageClient> {
        let others = storages.values().filter(|other| other.node() != self.identity.node);
        others.cloned().collect()
    }

    /// The realms' state from which this node reads on: its own storage's, or that of the answering storage which has stored
    /// most.
    async fn beginning(&self, storages: &Storages) -> Result<Realms, StartError> {
        if let Some(storage) = &self.storage {
            if self.config.retention.is_limited() {
                catch_up(storage, &self.others(storages)).await;
            }
            return storage.state().map_err(StartError::State);
        }
        loop {
            for storage in furthest_first(storages).await {
                match storage.state().await {
                    Ok(realms) => return Ok(realms),
                    Err(error) => tracing::info!(%error, "waiting for a storage to begin from"),
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Completes when the node has to be started again because it was away for longer than the log is retained. It has given up
    /// what it had, and continues from the others' state.
    pub async fn left_behind(&self) {
        if self.left_behind.clone().wait_for(|left_behind| *left_behind).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The node's configuration.
    #[must_use]
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// The identity of its data directory.
    #[must_use]
    pub fn disk(&self) -> DiskId {
        self.identity.disk
    }

    /// The log as this node has read it; none on a node that is neither entry nor storage.
    #[must_use]
    pub fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// The node's way to put events into the log; none if it is not an entry.
    #[must_use]
    pub fn entry(&self) -> Option<&EntryHandle> {
        self.entry.as_ref()
    }

    /// The realms' state as this node has it; none on a node that is neither entry nor storage.
    #[must_use]
    pub fn realms(&self) -> Option<&SharedRealms> {
        self.realms.as_ref()
    }

    /// The node's sync role.
    #[must_use]
    pub fn sync(&self) -> Option<&SyncNode> {
        self.sync.as_ref()
    }

    /// The node's storage role.
    #[must_use]
    pub fn storage(&self) -> Option<&Storage> {
        self.storage.as_ref()
    }

    /// Ends clients' sessions and waits a little until they have disconnected.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        if let Some(clients) = &self.clients {
            let _ = tokio::time::timeout(LEAVE_WAIT, clients.drained()).await;
        }
        let incarnation = self.entry.as_ref().and_then(|entry| entry.status().borrow().incarnation);
        if let Some(incarnation) = incarnation {
            // Without this the lease expires by itself.
            let left = self.order.close(self.identity.node, incarnation);
            let _ = tokio::time::timeout(LEAVE_WAIT, left).await;
        }
        if let Some(sync) = &self.sync {
            sync.shutdown().await;
        }
        if let Some(storage) = &self.storage {
            storage.close().await;
        }
    }
}

/// Whether this node is the only sync member.
fn sole_member(config: &NodeConfig) -> bool {
    config.with_role(Role::Sync).all(|member| member.id == config.node)
}

/// Follows the order once the storages are known to be unchanged: with other groups, a storage would never store some of its
/// bodies.
async fn follow(enrolled: JoinHandle<bool>, replica: Replica) {
    if matches!(enrolled.await, Ok(true)) {
        replica.run().await;
    }
}

async fn listen(
    host: &Host,
    config: &NodeConfig,
    certificates: &Certificates,
) -> Result<Listeners, StartError> {
    let failed =
        |(what, address, error)| StartError::Listen { what, address: String::from(address), error };
    let own = &config.listen.peer;
    let peer = host.net.listen(own.as_str()).await;
    let peer = peer.map_err(|error| failed(("other nodes", own.clone(), error)))?;
    let clients = listen::entrances(host, config, certificates).await.map_err(failed)?;
    Ok(Listeners { peer, clients })
}

fn sync_members(config: &NodeConfig) -> Vec<SyncMember> {
    config.with_role(Role::Sync).map(sync_member).collect()
}

fn storage_group(config: &NodeConfig, group: u16) -> Vec<SyncMember> {
    config
        .with_role(Role::Storage)
        .filter(|member| member.group == group)
        .map(sync_member)
        .collect()
}

fn sync_member(member: &Member) -> SyncMember {
    SyncMember { node: member.id, address: member.peer.as_str().to_owned() }
}

fn sync_config(config: &NodeConfig, identity: &Identity) -> SyncConfig {
    SyncConfig {
        identity: identity.clone(),
        members: sync_members(config),
        storages: (1..=config.storage_groups()).map(|group| storage_group(config, group)).collect(),
        heartbeat: config.timing.heartbeat,
        election: (config.timing.election_min, config.timing.election_max),
        lease: config.timing.lease,
    }
}

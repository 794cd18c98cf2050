//! The certificates of a node, as they are now: those of its listeners, and the one that it shows to other nodes.
//!
//! Invariant: all of them are read before the node starts, and again when they change.
//!
//! Deliberately absent: connections that are open, which keep what they began with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::time::MissedTickBehavior;
use vulpes_raft::host::{Clock, Host};
use vulpes_raft::ids::Stamp;

use super::files::{load, Loaded};
use super::name::NodeName;
use super::nodes::{NodeFiles, NodeTls};
use super::watched::{millis, Files, Reread, Watched, DAY};
use super::TlsError;
use crate::config::listener::TlsFiles;
use crate::config::NodeConfig;

/// How often the node looks whether a file has changed.
const LOOK: Duration = Duration::from_secs(3);

/// The certificates of a node.
pub struct Certificates {
    sites: Vec<Arc<Site>>,
    nodes: Option<NodeTls>,
    clock: Arc<dyn Clock>,
}

/// The files of one listener, or of several that have the same.
type Site = Watched<TlsFiles>;

impl Files for TlsFiles {
    type Config = ServerConfig;

    fn paths(&self) -> Vec<&Path> {
        let own = [&*self.certificate, &*self.key].into_iter();
        own.chain(self.clients.ca()).chain(self.revoked.as_deref()).collect()
    }

    fn user(&self) -> String {
        format!("the listener with {}", self.certificate.display())
    }

    fn load(&self) -> Result<Loaded<ServerConfig>, TlsError> {
        load(self)
    }
}

/// What a listener needs to begin a connection.
#[derive(Clone)]
pub struct Acceptor(Arc<Site>);

impl Acceptor {
    /// What new connections begin with.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.config()
    }
}

#[cfg(test)]
impl Acceptor {
    /// For a test.
    pub(crate) fn of(files: &TlsFiles) -> Self {
        Self(Arc::new(Site::load(files.clone()).expect("the test has made them")))
    }
}

impl Certificates {
    /// Reads the files of all listeners, and those for other nodes.
    ///
    /// # Errors
    /// If one can't be read or used.
    pub fn load(config: &NodeConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, TlsError> {
        let mut sites: Vec<Arc<Site>> = Vec::new();
        for files in config.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            if !sites.iter().any(|site| site.files == *files) {
                sites.push(Arc::new(Site::load(files.clone())?));
            }
        }
        let own = || NodeName { cluster: config.cluster.clone(), node: config.node };
        let files = config.peer_tls.clone().map(|files| NodeFiles { files, own: own() });
        let nodes = files.map(NodeTls::load).transpose()?;
        Ok(Arc::new(Self { sites, nodes, clock }))
    }

    /// What a listener with these files needs.
    ///
    /// # Panics
    /// If they are not those of a listener of the configuration that was loaded.
    #[must_use]
    pub fn acceptor(&self, files: &TlsFiles) -> Acceptor {
        let site = self.sites.iter().find(|site| site.files == *files);
        Acceptor(site.expect("the files of every listener are loaded").clone())
    }

    /// What encrypts connections between nodes; none if nothing does.
    #[must_use]
    pub fn nodes(&self) -> Option<&NodeTls> {
        self.nodes.as_ref()
    }

    /// The same host, which dials other nodes with TLS if this node has certificates for them.
    #[must_use]
    pub fn secure(&self, host: Host) -> Host {
        match &self.nodes {
            Some(nodes) => Host { net: nodes.over(host.net), ..host },
            None => host,
        }
    }

    fn all(&self) -> impl Iterator<Item = &dyn Reread> {
        let sites = self.sites.iter().map(|site| &**site as &dyn Reread);
        sites.chain(self.nodes.as_ref().map(NodeTls::files))
    }

    /// Reads all files again.
    pub fn reload(&self) {
        self.all().for_each(Reread::reload);
        self.warn(self.clock.now());
    }

    /// Reads files again when they change, and warns before certificates expire, for as long as the node lives.
    pub async fn watch(self: Arc<Self>) {
        if self.all().next().is_none() {
            return;
        }
        let mut warned = self.clock.now();
        self.warn(warned);
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let these = self.clone();
            // The disk may take its time.
            let looked = tokio::task::spawn_blocking(move || these.reload_changed());
            let changed = looked.await.unwrap_or(false);
            let now = self.clock.now();
            if changed || now.0.saturating_sub(warned.0) >= millis(DAY) {
                warned = now;
                self.warn(now);
            }
        }
    }

    /// Reads the files that are no longer those that were read; tells whether there were some.
    fn reload_changed(&self) -> bool {
        let changed = self.all().filter(|files| files.has_changed());
        changed.map(Reread::reload).count() > 0
    }

    fn warn(&self, now: Stamp) {
        self.all().for_each(|files| files.warn(now));
    }
}

#[cfg(test)]
mod tests;

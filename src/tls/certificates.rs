//! The certificates of a node's listeners, as they are now.
//!
//! Invariant: what is served was read as a whole, and its key fits. What can't be used changes nothing: the listener goes
//! on with what it has. Connections that are open keep what they began with.
//!
//! Deliberately absent: revocation lists. Who must not come in any more gets another authority's file.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::time::MissedTickBehavior;
use vulpes_raft::host::Clock;
use vulpes_raft::ids::Stamp;

use super::files::{load, End, Loaded};
use super::TlsError;
use crate::config::listener::TlsFiles;
use crate::config::NodeConfig;

/// How often the node looks whether a file has changed.
const LOOK: Duration = Duration::from_secs(3);

/// How long before a certificate expires the node begins to warn.
const WARNING: Duration = Duration::from_secs(14 * DAY.as_secs());

/// How often it does.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The certificates of all listeners of a node.
pub struct Certificates {
    sites: Vec<Arc<Site>>,
    clock: Arc<dyn Clock>,
}

/// The files of one listener, or of several that have the same.
struct Site {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
    last: Mutex<Last>,
}

/// What was last read.
struct Last {
    /// The files as they were just before that.
    seen: Vec<Seen>,
    ends: Vec<End>,
}

/// What shows that a file is another one; nothing where there is none.
type Seen = Option<(u64, i64, i64, u64)>;

/// What a listener needs to begin a connection.
#[derive(Clone)]
pub struct Acceptor(Arc<Site>);

impl Acceptor {
    /// What new connections begin with.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
impl Acceptor {
    /// For a test.
    pub(crate) fn of(files: &TlsFiles) -> Self {
        Self(Arc::new(Site::load(files).expect("the test has made them")))
    }
}

impl Certificates {
    /// Reads the files of all listeners.
    ///
    /// # Errors
    /// If one can't be read or used.
    pub fn load(config: &NodeConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, TlsError> {
        let mut sites: Vec<Arc<Site>> = Vec::new();
        for files in config.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            if !sites.iter().any(|site| site.files == *files) {
                sites.push(Arc::new(Site::load(files)?));
            }
        }
        Ok(Arc::new(Self { sites, clock }))
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

    /// Reads all files again.
    pub fn reload(&self) {
        self.sites.iter().for_each(|site| site.reload());
        self.warn(self.clock.now());
    }

    /// Reads files again when they change, and warns before certificates expire, for as long as the node lives.
    pub async fn watch(self: Arc<Self>) {
        if self.sites.is_empty() {
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
        let changed = self.sites.iter().filter(|site| site.has_changed());
        changed.map(|site| site.reload()).count() > 0
    }

    fn warn(&self, now: Stamp) {
        for site in &self.sites {
            let path = site.files.certificate.display();
            for End { subject, at } in site.expiring(now) {
                let days = at.0.saturating_sub(now.0) / millis(DAY);
                if at <= now {
                    tracing::warn!("a certificate of the listener with {path} has expired, and clients refuse it: {subject:?}; replace it");
                } else {
                    tracing::warn!("a certificate of the listener with {path} expires in {days} days: {subject:?}; replace it");
                }
            }
        }
    }
}

impl Site {
    fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        // First how they look: what changes while they are read is read again.
        let seen = look(files);
        let Loaded { config, ends } = load(files)?;
        let (config, last) = (RwLock::new(config), Mutex::new(Last { seen, ends }));
        Ok(Self { files: files.clone(), config, last })
    }

    fn has_changed(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).seen != look(&self.files)
    }

    fn reload(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.seen = look(&self.files);
        let path = self.files.certificate.display();
        match load(&self.files) {
            Ok(Loaded { config, ends }) => {
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                last.ends = ends;
                tracing::info!("new connections get the certificate that is in {path} now");
            }
            Err(error) => tracing::error!(
                "the listener with {path} goes on with the certificate it has, until this is corrected: {error}"
            ),
        }
    }

    /// The certificates that expire soon, or have.
    fn expiring(&self, now: Stamp) -> Vec<End> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let soon = Stamp(now.0.saturating_add(millis(WARNING)));
        last.ends.iter().filter(|end| end.at <= soon).cloned().collect()
    }
}

fn look(files: &TlsFiles) -> Vec<Seen> {
    let paths = [Some(&*files.certificate), Some(&*files.key), files.clients.ca()];
    let identity = |found: Metadata| (found.ino(), found.mtime(), found.mtime_nsec(), found.len());
    let seen = |path: &Path| std::fs::metadata(path).ok().map(identity);
    paths.into_iter().flatten().map(seen).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

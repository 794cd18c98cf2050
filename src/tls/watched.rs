//! Files of certificates and keys that are read again while the node runs.
//!
//! Invariant: what is used was read as a whole, and fits. What can't be used changes nothing: its user goes on with what it
//! has. Connections that are open keep what they began with.
//!
//! Deliberately absent: when to look at the files (`certificates`), and what is in them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use vulpes_raft::ids::Stamp;

use super::files::{End, Loaded};
use super::TlsError;

/// How long before a certificate expires the node begins to warn.
pub(super) const WARNING: Duration = Duration::from_secs(14 * DAY.as_secs());

pub(super) const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Files that belong together.
pub(super) trait Files: Clone + Send + Sync + 'static {
    /// What connections begin with.
    type Config: Send + Sync + 'static;

    fn paths(&self) -> Vec<&Path>;

    /// Whose files they are, as the log says it.
    fn user(&self) -> String;

    fn load(&self) -> Result<Loaded<Self::Config>, TlsError>;
}

/// Such files, as they were when they could last be used.
pub(super) struct Watched<F: Files> {
    pub(super) files: F,
    pub(super) config: RwLock<Arc<F::Config>>,
    pub(super) last: Mutex<Last>,
}

/// What was last read.
pub(super) struct Last {
    /// The files as they were just before that.
    seen: Vec<Seen>,
    pub(super) ends: Vec<End>,
}

/// What shows that a file is another one; nothing where there is none.
type Seen = Option<(u64, i64, i64, u64)>;

impl<F: Files> Watched<F> {
    pub(super) fn load(files: F) -> Result<Self, TlsError> {
        // First how they look: what changes while they are read is read again.
        let seen = look(&files);
        let Loaded { config, ends } = files.load()?;
        let (config, last) = (RwLock::new(config), Mutex::new(Last { seen, ends }));
        Ok(Self { files, config, last })
    }

    /// What new connections begin with.
    pub(super) fn config(&self) -> Arc<F::Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The certificates that expire soon, or have.
    pub(super) fn expiring(&self, now: Stamp) -> Vec<End> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let soon = Stamp(now.0.saturating_add(millis(WARNING)));
        last.ends.iter().filter(|end| end.at <= soon).cloned().collect()
    }
}

/// Any files that are read again.
pub(super) trait Reread: Send + Sync {
    /// Whether they are no longer those that were read.
    fn has_changed(&self) -> bool;

    /// Reads them.
    fn reload(&self);

    /// Warns of what expires soon.
    fn warn(&self, now: Stamp);
}

impl<F: Files> Reread for Watched<F> {
    fn has_changed(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).seen != look(&self.files)
    }

    fn reload(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.seen = look(&self.files);
        let user = self.files.user();
        match self.files.load() {
            Ok(Loaded { config, ends }) => {
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                last.ends = ends;
                tracing::info!("new connections of {user} get the certificate that is there now");
            }
            Err(error) => tracing::error!(
                "{user} goes on with the certificate it has, until this is corrected: {error}"
            ),
        }
    }

    fn warn(&self, now: Stamp) {
        let user = self.files.user();
        for End { subject, at } in self.expiring(now) {
            let days = at.0.saturating_sub(now.0) / millis(DAY);
            if at <= now {
                tracing::warn!(
                    "a certificate of {user} has expired, and is refused: {subject:?}; replace it"
                );
            } else {
                tracing::warn!(
                    "a certificate of {user} expires in {days} days: {subject:?}; replace it"
                );
            }
        }
    }
}

fn look(files: &impl Files) -> Vec<Seen> {
    let identity = |found: Metadata| (found.ino(), found.mtime(), found.mtime_nsec(), found.len());
    let seen = |path: &Path| std::fs::metadata(path).ok().map(identity);
    files.paths().into_iter().map(seen).collect()
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

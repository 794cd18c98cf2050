//! Checks that a node's files are still those that it has open.
//!
//! A process can go on writing into a file that was unlinked, and everything it acknowledges is lost when it ends. So the node
//! checks every second whether the names in its data directory still refer to the files that were there when it started.
//!
//! Invariant: a node does not run for longer than a second or so after its files were removed or replaced.
//!
//! Deliberately absent: files that were changed in place, which checksums detect.

use std::path::{Path, PathBuf};
use std::time::Duration;

use vulpes_raft::disk::file;
use vulpes_raft::host::{FileId, Host};

use crate::config::identity;

/// How often it checks.
const EVERY: Duration = Duration::from_secs(1);

/// The files of a data directory, as they were found.
pub(crate) struct Files(Vec<(PathBuf, FileId)>);

impl Files {
    /// The files that are there now.
    pub(crate) fn of(host: &Host, folder: &Path) -> Self {
        let database = folder.join(file::FILE);
        let witness = database.with_extension("witness");
        let paths = [folder.join(identity::FILE), database, witness];
        let found = paths.into_iter().filter_map(|path| {
            let id = host.disk.file_id(&path).ok()??;
            Some((path, id))
        });
        Self(found.collect())
    }

    /// Ends the node when one of them was removed or replaced.
    pub(crate) async fn watch(self, host: Host) {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Some(reason) = self.0.iter().find_map(|(path, id)| lost(&host, path, *id)) {
                (host.fatal)(&reason);
                return;
            }
        }
    }
}

fn lost(host: &Host, path: &Path, id: FileId) -> Option<String> {
    let what = match host.disk.file_id(path) {
        Ok(Some(found)) if found == id => return None,
        Ok(Some(_)) => "was replaced",
        Ok(None) => "was removed",
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "can't see whether the node's file is there");
            return None;
        }
    };
    Some(format!(
        "{} {what} while the node ran, which would lose all that it writes from now on; put its data directory back as it \
         was and start it again, or give it an empty one and a new number",
        path.display()
    ))
}

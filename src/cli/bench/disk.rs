//! Measures the disk alone: the cost that every acknowledged publish shares.
//!
//! Invariant: the file that is written is removed again.
//!
//! Deliberately absent: anything more elaborate than one writer that waits for each sync, like a group commit.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use tokio::time::Instant;

/// Bytes written before each sync.
const BLOCK: usize = 64 << 10;

/// Syncs measured.
const ROUNDS: usize = 200;

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Disk {
    pub(super) directory: String,
    pub(super) block_bytes: usize,
    pub(super) median_us: u64,
    pub(super) p99_us: u64,
}

impl std::fmt::Display for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { directory, block_bytes, median_us, p99_us } = self;
        let size = block_bytes >> 10;
        write!(
            f,
            "{size} KiB written and synced in {median_us} µs (p99 {p99_us} µs) at {directory}"
        )
    }
}

pub(super) fn measure(directory: &Path) -> anyhow::Result<Disk> {
    let path = directory.join(format!("vulpes-bench-{:016x}.tmp", rand::random::<u64>()));
    let outcome = write(&path);
    // A file that could not be created needs no removal.
    let _ = std::fs::remove_file(&path);
    let mut times = outcome.with_context(|| {
        format!("can't measure the disk in {}; name a directory that exists and may be written with --fsync-dir", directory.display())
    })?;
    times.sort_unstable();
    Ok(Disk {
        directory: directory.display().to_string(),
        block_bytes: BLOCK,
        median_us: times[ROUNDS / 2],
        p99_us: times[ROUNDS * 99 / 100],
    })
}

fn write(path: &Path) -> std::io::Result<Vec<u64>> {
    let mut file = std::fs::File::create_new(path)?;
    let block = vec![0x5a; BLOCK];
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_measured_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let disk = measure(folder.path()).unwrap();
        assert!(disk.median_us <= disk.p99_us);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let error = measure(&folder.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("--fsync-dir"), "{error}");
    }
}

//! The free space of the storages' disks: each storage measures its own, and each entry asks all of them.
//!
//! Invariant: a storage is low from the moment when less is free than its mark, until an eighth more than the mark is free. So
//! what clients do about it does not flap.
//!
//! Deliberately absent: what is done about it (`entry::shortage`), and room within the node's file: what was released there is
//! used again, but not given back to the file system.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use vulpes_raft::host::{Host, Space};

use crate::config::disk::{size, LowWater};
use crate::entry::Shortage;
use crate::peer::StorageClient;
use crate::storage::Storage;

/// How often a storage measures. Until an entry has asked it, what is published goes on, and so does what is on its way then: the
/// mark has to be more than that.
const MEASURED: Duration = Duration::from_millis(100);

/// How often an entry asks, and how long it waits for an answer.
const ASKED: Duration = Duration::from_millis(200);
const ANSWER: Duration = Duration::from_secs(1);

/// Whether a disk runs low.
#[derive(Debug, Default, PartialEq, Eq)]
struct Gauge {
    is_low: bool,
}

impl Gauge {
    /// Takes a measurement.
    fn look(&mut self, space: Space, mark: LowWater) -> bool {
        let mark = mark.bytes(space.total);
        let enough =
            if self.is_low { mark.saturating_add(mark / 8).min(space.total) } else { mark };
        self.is_low = space.free < enough;
        self.is_low
    }
}

/// Whether the space of a disk can be measured here. A simulated disk has no end.
pub(crate) fn is_measured(host: &Host, data: &std::path::Path) -> bool {
    !matches!(host.disk.space(data), Ok(None))
}

/// Measures a storage's disk for as long as the node lives. The mark may change meanwhile.
pub(crate) async fn measure(
    host: Host,
    data: PathBuf,
    mut mark: watch::Receiver<LowWater>,
    storage: Storage,
) {
    let mut gauge = Gauge::default();
    loop {
        let now = *mark.borrow_and_update();
        match host.disk.space(&data) {
            Ok(Some(space)) => {
                let was = gauge.is_low;
                storage.runs_low(gauge.look(space, now));
                report(was, gauge.is_low, space, (now, &data));
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(data = %data.display(), %error, "can't see how much of the disk is free");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(MEASURED) => {}
            changed = mark.changed() => if changed.is_err() { return },
        }
    }
}

fn report(was: bool, is: bool, space: Space, (mark, data): (LowWater, &std::path::Path)) {
    let (free, mark) = (mebibytes(space.free), mark.bytes(space.total));
    let data = data.display();
    match (was, is) {
        (false, true) => tracing::warn!(
            "the disk runs low: {free} are free for {data}, and the mark ([disk] low_water) is {}; no node takes publishes \
             until there is more: make room, let less of the log be kept ([retention]) and run `vulpes compact`, or lower the \
             mark and send SIGHUP",
            mebibytes(mark)
        ),
        (true, false) => tracing::info!("the disk has room again: {free} are free for {data}"),
        _ => {}
    }
}

fn mebibytes(bytes: u64) -> String {
    size(bytes >> 20 << 20)
}

/// Asks a storage again and again, for as long as the node lives. One that is slow to answer delays no word of the others.
pub(crate) async fn ask(storage: StorageClient, shortage: Shortage) {
    loop {
        let answer = tokio::time::timeout(ANSWER, storage.is_low()).await;
        if shortage.note(storage.node(), matches!(answer, Ok(Ok(true)))) {
            let low: Vec<String> = shortage.storages().iter().map(ToString::to_string).collect();
            match low.is_empty() {
                true => tracing::info!("publishes are taken again: the storages have room"),
                false => tracing::warn!(
                    "publishes are refused: the disk runs low at node {}",
                    low.join(", ")
                ),
            }
        }
        // One that is away need not be dialled all the time.
        tokio::time::sleep(if matches!(answer, Ok(Ok(_))) { ASKED } else { ANSWER }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_until_an_eighth_more_is_free() {
        let mut gauge = Gauge::default();
        let mark = LowWater::Bytes(800);
        let mut look = |free, mark| gauge.look(Space { free, total: 10_000 }, mark);
        for (free, low) in [(801, false), (800, false), (799, true), (899, true), (900, false)] {
            assert_eq!(look(free, mark), low, "{free}");
        }
        assert!(!look(800, mark) && look(0, mark) && !look(0, LowWater::Off), "turned off");
        assert!(look(9_999, LowWater::Percent(100)) && !look(10_000, LowWater::Percent(100)));
    }
}

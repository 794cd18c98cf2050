//! The newest resolutions, kept for followers of the order.
//!
//! Invariant: slots are dense and ascending, and there are never more than [`RETAINED_RESOLUTIONS`] of them. A follower
//! that is further behind reads the rows from a storage.
//!
//! Deliberately absent: followers' progress. Storages report what they have on disk; other followers are not tracked.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{RETAINED_FOR_FOLLOWERS, RETAINED_RESOLUTIONS};
use crate::ids::Slot;
use crate::mutant::{planted, Mutant};
use crate::order::Resolution;

const _: () = assert!(RETAINED_FOR_FOLLOWERS < RETAINED_RESOLUTIONS);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tail(VecDeque<Resolution>);

impl Tail {
    pub(super) fn push(&mut self, resolution: Resolution) {
        if let Some(last) = self.0.back() {
            assert!(
                last.slot.next() == resolution.slot || planted(Mutant::ReuseSlot),
                "slots are dense"
            );
            assert!(
                last.end() == resolution.base || planted(Mutant::ReuseSlot),
                "positions are dense"
            );
            assert!(
                last.stamp <= resolution.stamp || planted(Mutant::StampsRunBack),
                "stamps never run backwards"
            );
            assert!(
                last.time() <= resolution.time() || planted(Mutant::FutureStandsStill),
                "time never runs backwards"
            );
        }
        self.0.push_back(resolution);
    }

    /// Drops what all storages have on disk, except for the newest, and what exceeds the limit.
    pub(super) fn trim(&mut self, everywhere: Slot) {
        while let Some(first) = self.0.front() {
            let stored = first.slot <= everywhere && self.0.len() > RETAINED_FOR_FOLLOWERS;
            if !stored && self.0.len() <= RETAINED_RESOLUTIONS {
                break;
            }
            self.0.pop_front();
        }
    }

    pub(super) fn oldest(&self) -> Option<Slot> {
        self.0.front().map(|resolution| resolution.slot)
    }

    pub(super) fn rows(&self, from: Slot, max: usize) -> Vec<Resolution> {
        let at = self.0.partition_point(|resolution| resolution.slot < from);
        self.0.iter().skip(at).take(max).cloned().collect()
    }
}

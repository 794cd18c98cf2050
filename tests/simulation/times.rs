//! The order's own time, compared with the time that has passed.
//!
//! Checked here: it never runs backwards. If any one clock of three is wrong, by any amount, the order's time is never ahead of
//! the other clocks, and has caught up in the end. If all were wrong and were corrected, it runs on as fast as time passes.
//! What is released because of its age has that age by the order's time.
//!
//! Deliberately absent: what expires by it, which the fold of the log decides (`vulpes::realm`).

use vulpes_raft::host::sim::EPOCH;
use vulpes_raft::ids::OrderTime;
use vulpes_raft::order::Resolution;

use crate::plan::WrongClocks;

/// How far the correct clocks differ, and how late a slot is observed, in milliseconds.
const SLACK: u64 = 2_000;

/// From when on the order's time has to run as fast as time passes: long enough after the last fault that no slot
/// shown then was stamped before its end.
pub(crate) const RUNS_FROM: u64 = 9_000;

/// Shortest observation that can distinguish it from a time that stands still.
const WATCHED: u64 = 2 * SLACK;

#[derive(Default)]
pub(crate) struct Times {
    /// How clocks are wrong, in a run about clocks.
    pub(crate) wrong: Option<WrongClocks>,
    /// How old an event may become, in milliseconds.
    pub(crate) age: Option<u64>,
    /// Milliseconds that have passed.
    pub(crate) now: u64,
    last: Option<(u64, OrderTime)>,
    /// The first slot that was shown after [`RUNS_FROM`], and when.
    first: Option<(u64, OrderTime)>,
}

impl Times {
    /// Takes the next slot.
    pub(crate) fn take(&mut self, row: &Resolution) -> Result<(), String> {
        let (slot, time, now) = (row.slot, row.time(), self.now);
        if self.last.is_some_and(|(_, last)| last > time) {
            return Err(format!("the order's time falls at slot {slot}"));
        }
        let right = EPOCH.0 + now;
        if self.wrong == Some(WrongClocks::One) && time.0.max(row.stamp.0) > right + SLACK {
            return Err(format!("slot {slot} is {} ms ahead of the right clocks", time.0 - right));
        }
        self.last = Some((now, time));
        if now >= RUNS_FROM {
            self.first.get_or_insert((now, time));
        }
        Ok(())
    }

    /// Checks a release, given the last released slot and the slot that requested the release.
    pub(crate) fn released(&self, last: &Resolution, at: &Resolution) -> Result<(), String> {
        let Some(age) = self.age else { return Ok(()) };
        let old = at.time().0 - last.time().0;
        if old < age {
            return Err(format!("slot {} is released when it is {old} ms old", last.slot));
        }
        Ok(())
    }

    /// Whether it was observed for long enough.
    pub(crate) fn is_watched(&self) -> bool {
        self.wrong.is_none() || self.watched().is_some_and(|(passed, _)| passed >= WATCHED)
    }

    /// The time that has passed, and by how much the order's time has advanced.
    fn watched(&self) -> Option<(u64, u64)> {
        let ((first, from), (last, until)) = (self.first?, self.last?);
        Some((last - first, until.0 - from.0))
    }

    /// Judges the run.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        let (Some(wrong), Some((passed, grown)), Some((now, time))) =
            (self.wrong, self.watched(), self.last)
        else {
            return Ok(());
        };
        if grown.abs_diff(passed) > SLACK {
            return Err(format!("in {passed} ms the order's time has grown by {grown} ms"));
        }
        let right = EPOCH.0 + now;
        if wrong == WrongClocks::One && time.0 + SLACK < right {
            return Err(format!("the order's time is {} ms late in the end", right - time.0));
        }
        Ok(())
    }
}

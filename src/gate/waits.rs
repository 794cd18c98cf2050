//! The undecided conditional publishes of a session.
//!
//! Invariant: their number and total bytes are limited, because the session's ledger holds each: when its turn comes, it is
//! published again.
//!
//! Deliberately absent: the answers, which each protocol gives in its own way. The events themselves are in the ledger; what is
//! counted here lets a gate refuse one at once, in the order of its answers.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use crate::types::act::Terms;
use crate::types::limits;

/// A limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMany {
    #[error(
        "a session may have {} conditional publishes undecided, of {} bytes together; wait for an answer",
        limits::SESSION_WAITS,
        limits::SESSION_WAIT_BYTES
    )]
    Waits,
    #[error(
        "the conditional publishes that wait at this node have {} bytes, which is all there is room for; try again",
        limits::WAITS_BYTES
    )]
    WaitsOfNode,
    #[error(
        "{} retained values change when this session ends, and that is the limit",
        limits::SESSION_WILLS
    )]
    Wills,
    #[error(
        "the disk of a storage runs low, so no publishes are taken right now; try again later"
    )]
    Disk,
}

/// What the node has room for right now, as far as the gate can't know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// Conditional publishes.
    pub waits: bool,
    /// Publishes with a will.
    pub wills: bool,
    /// Any publishes: the storages' disks have room.
    pub publishes: bool,
    /// Persistent subscriptions of the session.
    pub subscriptions: u32,
}

impl Default for Allowed {
    fn default() -> Self {
        Self { waits: true, wills: true, publishes: true, subscriptions: u32::MAX }
    }
}

/// Data of each one for when it is decided, by sequence number.
#[derive(Debug)]
pub(super) struct Waits<T> {
    undecided: BTreeMap<u64, (T, usize)>,
    bytes: usize,
    allowed: Allowed,
}

impl<T> Default for Waits<T> {
    fn default() -> Self {
        Self { undecided: BTreeMap::new(), bytes: 0, allowed: Allowed::default() }
    }
}

impl<T: Copy> Waits<T> {
    pub(super) fn allow(&mut self, allowed: Allowed) {
        self.allowed = allowed;
    }

    /// Whether there is room for a publish of this size on these terms.
    pub(super) fn check(&self, terms: &Terms, bytes: usize) -> Result<(), TooMany> {
        if !self.allowed.publishes {
            return Err(TooMany::Disk);
        }
        if terms.will.is_some() && !self.allowed.wills {
            return Err(TooMany::Wills);
        }
        if !terms.is_conditional() {
            return Ok(());
        }
        if !self.allowed.waits {
            return Err(TooMany::WaitsOfNode);
        }
        let room = self.undecided.len() < limits::SESSION_WAITS
            && self.bytes + bytes <= limits::SESSION_WAIT_BYTES;
        room.then_some(()).ok_or(TooMany::Waits)
    }

    pub(super) fn insert(&mut self, sequence: u64, value: T, bytes: usize) {
        self.bytes += bytes;
        if let Some((_, replaced)) = self.undecided.insert(sequence, (value, bytes)) {
            self.bytes -= replaced;
        }
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Option<T> {
        let (value, bytes) = self.undecided.remove(&sequence)?;
        self.bytes -= bytes;
        Some(value)
    }

    /// Removes the first one in a range.
    pub(super) fn remove_first(&mut self, sequences: impl RangeBounds<u64>) -> Option<T> {
        let first = *self.undecided.range(sequences).next()?.0;
        self.remove(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::event::Payload;
    use crate::types::value::Value;

    #[test]
    fn what_the_node_has_no_room_for_is_refused() {
        let mut waits = Waits::<()>::default();
        let when = Terms { when: Some(Value::Null), ..Terms::default() };
        let will = Terms { will: Some(Payload::raw("x".into())), ..Terms::default() };
        let of = |waits: &Waits<()>| {
            [&Terms::default(), &when, &will].map(|terms| waits.check(terms, 1).err())
        };
        assert_eq!(of(&waits), [None, None, None]);
        waits.allow(Allowed { waits: false, ..Allowed::default() });
        assert_eq!(of(&waits), [None, Some(TooMany::WaitsOfNode), None]);
        waits.allow(Allowed { wills: false, ..Allowed::default() });
        assert_eq!(of(&waits), [None, None, Some(TooMany::Wills)]);
        waits.allow(Allowed { publishes: false, ..Allowed::default() });
        assert_eq!(of(&waits), [Some(TooMany::Disk); 3]);
    }

    #[test]
    fn they_are_bounded_by_number_and_by_size() {
        let when = Terms { when: Some(Value::Null), ..Terms::default() };
        let mut waits = Waits::default();
        for sequence in 0..limits::SESSION_WAITS as u64 {
            waits.check(&when, 1).unwrap();
            waits.insert(sequence, sequence, 1);
        }
        assert_eq!(waits.check(&when, 1), Err(TooMany::Waits));
        assert_eq!(waits.remove_first(5..9), Some(5));
        assert_eq!(waits.remove(5), None);
        let left = limits::SESSION_WAIT_BYTES - (limits::SESSION_WAITS - 1);
        assert_eq!(waits.check(&when, left + 1), Err(TooMany::Waits));
        waits.check(&when, left).unwrap();
        waits.insert(5, 5, left);
        waits.insert(5, 5, left);
        waits.remove(5);
        waits.check(&when, left).unwrap();
    }
}

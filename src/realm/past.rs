//! Users and roles as they were before their last changes.
//!
//! An event goes by the rules at its own position. A session that has still to be sent events from before a change asks here.
//!
//! Invariant: bounded in number and in size. A position from before the oldest kept change is answered with what that change
//! replaced: later rules than its own, never earlier ones.
//!
//! Deliberately absent: rows. When a node starts, no session of it is behind.

use std::collections::VecDeque;

use vulpes_raft::ids::Position;

use super::grants::Grants;
use crate::rules::Permissions;
use crate::types::limits;

/// What a client could do after one change of users or roles and before the next.
#[derive(Debug)]
pub struct PastPermissions {
    pub permissions: Permissions,
    /// It holds for events behind this position,
    pub from: Position,
    /// up to this one.
    pub until: Position,
}

#[derive(Debug, Default)]
pub(super) struct Past {
    /// By the positions up to which they held, ascending.
    replaced: VecDeque<Replaced>,
    /// The bytes of all of them.
    bytes: usize,
    changed: Position,
}

#[derive(Debug)]
struct Replaced {
    until: Position,
    grants: Grants,
    /// Bytes that later ones do not share.
    bytes: usize,
}

impl Past {
    /// Notes what a change at this position has replaced, of which `bytes` are no longer in use.
    pub(super) fn push(&mut self, until: Position, grants: Grants, bytes: usize) {
        self.changed = until;
        self.replaced.push_back(Replaced { until, grants, bytes });
        self.bytes += bytes;
        while self.replaced.len() > limits::PAST_CHANGES || self.bytes > limits::PAST_BYTES {
            let Some(oldest) = self.replaced.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
    }

    /// The position of the last change since the node started; 0 if there was none.
    pub(super) fn changed(&self) -> Position {
        self.changed
    }

    /// What held at a position, and from which position up to which. Nothing if that still holds, or is as good as forgotten.
    pub(super) fn at(&self, position: Position) -> Option<(&Grants, Position, Position)> {
        let place = self.replaced.partition_point(|replaced| replaced.until < position);
        let found = self.replaced.get(place)?;
        let before = place.checked_sub(1).and_then(|before| self.replaced.get(before));
        Some((&found.grants, before.map_or(Position(0), |before| before.until), found.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(past: &Past, position: u64) -> Option<(u64, u64)> {
        past.at(Position(position)).map(|(_, from, until)| (from.0, until.0))
    }

    #[test]
    fn what_held_at_a_position_is_known_until_there_is_no_room() {
        let mut past = Past::default();
        assert_eq!((past.changed(), held(&past, 7)), (Position(0), None));
        past.push(Position(10), Grants::default(), 1);
        past.push(Position(20), Grants::default(), 1);
        assert_eq!(past.changed(), Position(20));
        assert_eq!(
            [1, 10, 11, 20, 21].map(|position| held(&past, position)),
            [Some((0, 10)), Some((0, 10)), Some((10, 20)), Some((10, 20)), None]
        );
        past.push(Position(30), Grants::default(), limits::PAST_BYTES - 1);
        assert_eq!(held(&past, 1), Some((0, 20)), "later rules stand in for forgotten ones");
        past.push(Position(40), Grants::default(), limits::PAST_BYTES + 1);
        assert_eq!((past.changed(), held(&past, 1)), (Position(40), None));
        for change in 0..=limits::PAST_CHANGES as u64 {
            past.push(Position(100 + change), Grants::default(), 0);
        }
        assert_eq!(past.replaced.len(), limits::PAST_CHANGES);
        assert_eq!((past.bytes, held(&past, 1)), (0, Some((0, 101))));
    }
}

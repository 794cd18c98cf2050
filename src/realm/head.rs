//! The head of the log: the first position that is retained. Everything before it is released, and each storage deletes it when
//! it gets to it.
//!
//! Invariant: the head never moves back, never past the event that moves it, and never past a position that an offline session
//! still has to read. An event that requests more is refused as a whole, and not reduced to what is allowed: only the
//! requesting entry knows where slots begin; the state does not.
//!
//! Deliberately absent: when to release (`node::retention`), and deleting (`storage`).

use vulpes_raft::ids::Position;

use super::{Key, Realms};
use crate::types::head::Head;

impl Head {
    /// Whether an event at `end` may move the head from `self` to `asked`.
    fn may_become(self, asked: Self, end: Self, wanted: Option<Position>) -> bool {
        asked.slot > self.slot
            && asked.position >= self.position
            && asked.slot <= end.slot
            && asked.position <= end.position
            && wanted.is_none_or(|wanted| asked.position <= wanted)
    }
}

impl Realms {
    /// Where the retained log begins.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Moves the head, if that is allowed. `end` is where the requesting slot begins.
    pub(super) fn move_head(&mut self, asked: Head, end: Head) {
        if self.head.may_become(asked, end, self.wanted()) {
            let old = (self.head != Head::default()).then_some(self.head);
            self.rows.change(&Key::Head, old.as_ref(), Some(&asked));
            self.head = asked;
        }
    }
}

#[cfg(test)]
mod tests {
    use vulpes_raft::ids::Slot;

    use super::*;

    fn head(slot: u64, position: u64) -> Head {
        Head { slot: Slot(slot), position: Position(position) }
    }

    #[test]
    fn the_head_only_moves_on_and_stops_before_what_is_wanted() {
        let (from, end) = (head(5, 50), head(9, 90));
        for (asked, wanted, expected) in [
            (head(6, 50), None, true),
            (head(9, 90), None, true),
            (head(5, 50), None, false),
            (head(4, 40), None, false),
            (head(6, 49), None, false),
            (head(10, 90), None, false),
            (head(9, 91), None, false),
            (head(7, 70), Some(70), true),
            (head(7, 71), Some(70), false),
            (head(6, 50), Some(10), false),
        ] {
            let wanted = wanted.map(Position);
            assert_eq!(from.may_become(asked, end, wanted), expected, "{asked:?} {wanted:?}");
        }
    }
}

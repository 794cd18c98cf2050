//! Whether more may be made for a client that has not taken all that there is.
//!
//! Invariant: it is a function of what waits, and never of what one poll has seen of a socket. A socket may take what
//! waits in any number of steps; a decision that looks for one step in particular misses it.
//!
//! Deliberately absent: what waits, and for whom.

use crate::types::limits;

/// The room for events, which a full output has again when half of it was taken: not each time that a socket takes a
/// little.
#[derive(Debug, Default)]
pub(crate) struct Room {
    full: bool,
}

impl Room {
    /// Whether there is room beside so many bytes that wait.
    pub(crate) fn beside(&mut self, waiting: usize) -> bool {
        let most = if self.full { limits::SESSION_OUTPUT / 2 } else { limits::SESSION_OUTPUT };
        self.full = waiting >= most;
        !self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_output_has_room_again_when_half_of_it_is_taken() {
        let most = limits::SESSION_OUTPUT;
        let mut room = Room::default();
        let table = [
            (0, true),
            (most - 1, true),
            (most, false),
            (most - 1, false),
            (most / 2, false),
            (most / 2 - 1, true),
            (most - 1, true),
            (most + 1, false),
            (0, true),
        ];
        for (waiting, expected) in table {
            assert_eq!(room.beside(waiting), expected, "{waiting}");
        }
    }
}

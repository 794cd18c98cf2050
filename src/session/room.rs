//! Whether more output may be made for a client that has not taken all that waits for it.
//!
//! Invariant: it is a function of the waiting bytes, never of what one poll of a socket has shown. A socket may take waiting
//! bytes in any number of steps, and a decision that depends on one particular step may miss it.
//!
//! Deliberately absent: the waiting output, and its client.

use crate::types::limits;

/// The room for events. A full output has room again when half of it was taken, not each time that a socket takes a little.
#[derive(Debug, Default)]
pub(crate) struct Room {
    full: bool,
}

impl Room {
    /// Whether there is room when this many bytes wait.
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

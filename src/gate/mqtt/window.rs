//! The window of QoS 1 messages that a client has not acknowledged yet, and their packet identifiers.
//!
//! Invariant: an identifier is given out again only after its PUBACK, and never more of them than the window is wide.
//!
//! Deliberately absent: the messages. Nothing is sent twice on one connection, and no session outlives its connection.

use std::collections::VecDeque;

/// Most QoS 1 messages on the way to one client, whatever it would take.
const WIDEST: u16 = 1024;

const WORDS: usize = WIDEST as usize / 64 + 1;

/// Packet identifiers 1 to the window's width.
#[derive(Debug)]
pub(crate) struct Window {
    width: u16,
    /// Identifiers up to here were given out at least once.
    fresh: u16,
    /// Those of them that are free again, longest free first.
    free: VecDeque<u16>,
    on_the_way: [u64; WORDS],
}

impl Window {
    /// `receive_maximum` is what the client takes at once.
    pub(crate) fn new(receive_maximum: u16) -> Self {
        Self {
            width: receive_maximum.clamp(1, WIDEST),
            fresh: 0,
            free: VecDeque::new(),
            on_the_way: [0; WORDS],
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.fresh < self.width || !self.free.is_empty()
    }

    pub(crate) fn take(&mut self) -> Option<u16> {
        let packet_id = if self.fresh < self.width {
            self.fresh += 1;
            self.fresh
        } else {
            self.free.pop_front()?
        };
        self.on_the_way[usize::from(packet_id / 64)] |= 1 << (packet_id % 64);
        Some(packet_id)
    }

    /// A PUBACK. One that was not waited for changes nothing.
    pub(crate) fn acknowledged(&mut self, packet_id: u16) {
        let bit = 1 << (packet_id % 64);
        if let Some(word) = self.on_the_way.get_mut(usize::from(packet_id / 64)) {
            if *word & bit != 0 {
                *word &= !bit;
                self.free.push_back(packet_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_come_back_only_with_their_acknowledgement() {
        let mut window = Window::new(2);
        assert_eq!((window.take(), window.take(), window.take()), (Some(1), Some(2), None));
        assert!(!window.has_room());
        for unknown in [0, 3, 64, 1025, u16::MAX] {
            window.acknowledged(unknown);
            assert!(!window.has_room(), "{unknown}");
        }
        window.acknowledged(2);
        window.acknowledged(2);
        assert_eq!((window.take(), window.take()), (Some(2), None));
        window.acknowledged(2);
        window.acknowledged(1);
        assert_eq!((window.take(), window.take(), window.take()), (Some(2), Some(1), None));
    }

    #[test]
    fn a_generous_client_gets_our_own_width() {
        let mut window = Window::new(u16::MAX);
        for expected in 1..=WIDEST {
            assert_eq!(window.take(), Some(expected));
        }
        assert_eq!(window.take(), None);
        window.acknowledged(WIDEST);
        assert!(window.has_room());
    }
}

//! Finds the length of the current message from the bytes that pass by, for each framing.
//!
//! Invariant: it finds the same message boundaries as the framing's own codec. Input that is no valid message ends with an
//! error in the codec; here it is counted as if it were one.
//!
//! Deliberately absent: the content of messages.

use std::ops::ControlFlow;

/// How messages are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// One message that does not announce its length: the WebSocket upgrade request.
    Upgrade,
    /// Frames of a client; a message may consist of several.
    WebSocket,
    /// MQTT control packets.
    Mqtt,
    /// A length of four bytes, then that many bytes.
    Length,
}

/// Longest header of a frame, in bytes.
const HEADER: usize = 14;

/// Follows bytes as they are read, from message to message.
#[derive(Debug)]
pub(super) struct Follower {
    framing: Framing,
    header: [u8; HEADER],
    header_length: usize,
    /// Bytes of the current frame's payload that are still to come.
    left: u64,
    /// Bytes of the current message that have arrived. Includes its headers if its codec stores them, and excludes other frames
    /// between its own.
    come: u64,
    /// The length of its frames up to this one, as announced by their headers.
    told: u64,
    /// More frames of it follow.
    goes_on: bool,
    /// The current frame is a control frame between those of a message.
    aside: bool,
    /// How many messages have arrived completely.
    messages: u64,
}

impl Follower {
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            framing,
            header: [0; HEADER],
            header_length: 0,
            left: 0,
            come: 0,
            told: 0,
            goes_on: false,
            aside: false,
            messages: 0,
        }
    }

    pub(super) fn is_upgrade(&self) -> bool {
        self.framing == Framing::Upgrade
    }

    /// How many messages have arrived completely.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes of the current message that have arrived.
    pub(super) fn come(&self) -> u64 {
        self.come
    }

    /// The size of the current message in bytes, as far as it is known.
    pub(super) fn told(&self) -> u64 {
        self.told.max(self.come)
    }

    /// How many more bytes of the current message were announced; `None` if its length is not known.
    pub(super) fn left(&self) -> Option<u64> {
        (!self.goes_on && self.framing != Framing::Upgrade).then_some(self.left)
    }

    /// Starts again without a message; returns how many bytes of one had arrived.
    pub(super) fn forget(&mut self) -> u64 {
        let come = self.come;
        *self = Self::new(self.framing);
        come
    }

    /// Takes bytes that were read; returns how many of them their codec stores.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) -> usize {
        let mut keeps = bytes.len();
        if self.framing == Framing::Upgrade {
            self.come += bytes.len() as u64;
            return keeps;
        }
        while !bytes.is_empty() {
            if self.left > 0 {
                let here = self.left.min(bytes.len() as u64);
                self.left -= here;
                if self.aside {
                    keeps -= here as usize;
                } else {
                    self.come += here;
                }
                bytes = &bytes[here as usize..];
                self.end_frame();
                continue;
            }
            self.header[self.header_length] = bytes[0];
            self.header_length += 1;
            // A codec of frames stores no headers: a message may have any number of empty frames.
            let kept = u64::from(self.framing != Framing::WebSocket);
            self.come += kept;
            keeps -= usize::from(kept == 0);
            bytes = &bytes[1..];
            if let ControlFlow::Break(payload) = self.header() {
                if !self.aside {
                    let frame = payload.saturating_add(kept * self.header_length as u64);
                    self.told = self.told.saturating_add(frame);
                }
                self.left = payload;
                self.header_length = 0;
                self.end_frame();
            }
        }
        keeps
    }

    fn end_frame(&mut self) {
        if self.left > 0 {
            return;
        }
        if std::mem::take(&mut self.aside) || self.goes_on {
            return;
        }
        (self.come, self.told) = (0, 0);
        self.messages += 1;
    }

    /// The payload's length, once the header is whole.
    fn header(&mut self) -> ControlFlow<u64> {
        let header = &self.header[..self.header_length];
        match self.framing {
            Framing::Upgrade => ControlFlow::Continue(()),
            Framing::Length => match header {
                [a, b, c, d] => ControlFlow::Break(u32::from_be_bytes([*a, *b, *c, *d]).into()),
                _ => ControlFlow::Continue(()),
            },
            Framing::Mqtt => match header {
                [_, length @ .., last] if last & 0x80 == 0 || length.len() == 3 => {
                    let low = length.iter().rev().fold(u64::from(last & 0x7F), |sum, byte| {
                        sum << 7 | u64::from(byte & 0x7F)
                    });
                    ControlFlow::Break(low)
                }
                _ => ControlFlow::Continue(()),
            },
            Framing::WebSocket => self.websocket_header(),
        }
    }

    fn websocket_header(&mut self) -> ControlFlow<u64> {
        let [first, second, rest @ ..] = &self.header[..self.header_length] else {
            return ControlFlow::Continue(());
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let extended = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < extended + mask {
            return ControlFlow::Continue(());
        }
        let payload = match extended {
            0 => u64::from(second & 0x7F),
            _ => rest[..extended].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let is_control = first & 0x08 != 0;
        if is_control {
            self.aside = self.goes_on;
        } else {
            self.goes_on = first & 0x80 == 0;
        }
        ControlFlow::Break(payload)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame of a client, and whether a message ends with it.
    fn websocket(first: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(mask | length as u8),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(vec![1; if masked { 4 } else { 0 }]);
        frame.extend(vec![0xFF; length]);
        frame
    }

    fn mqtt(length: usize) -> Vec<u8> {
        let mut frame = vec![0x30];
        let mut left = length;
        loop {
            frame.push(left as u8 & 0x7F | if left > 0x7F { 0x80 } else { 0 });
            left >>= 7;
            if left == 0 {
                break;
            }
        }
        frame.extend(vec![0xFF; length]);
        frame
    }

    fn length(length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes().to_vec();
        frame.extend(vec![0xFF; length]);
        frame
    }

    /// The size of each message is known as soon as its header is there, however it is cut, and it ends with its last byte.
    fn check(framing: Framing, messages: &[Vec<u8>], cuts: &[usize]) {
        let mut follower = Follower::new(framing);
        let mut cuts = cuts.iter().cycle();
        for message in messages {
            let mut rest = &message[..];
            // The payload begins here.
            let begin = match (framing, message[1] & 0x7F) {
                (Framing::WebSocket, length) => {
                    let extended = [0, 2, 8][usize::from(length.saturating_sub(125))];
                    2 + extended + usize::from(message[1] >> 7) * 4
                }
                _ => 0,
            };
            while !rest.is_empty() {
                let come = message.len() - rest.len();
                assert_eq!(follower.come(), come.saturating_sub(begin) as u64);
                if come >= HEADER {
                    assert_eq!(follower.told(), (message.len() - begin) as u64);
                    assert_eq!(follower.left(), Some(rest.len() as u64));
                }
                let cut = (*cuts.next().unwrap()).clamp(1, rest.len());
                follower.follow(&rest[..cut]);
                rest = &rest[cut..];
            }
            assert_eq!((follower.come(), follower.told(), follower.left()), (0, 0, Some(0)));
        }
    }

    proptest! {
        #[test]
        fn messages_are_told_whole(
            lengths in proptest::collection::vec(
                prop_oneof![0..300usize, 16_000..17_000usize, 65_530..66_000usize], 1..6),
            cuts in proptest::collection::vec(prop_oneof![1..20usize, 1..70_000usize], 1..8),
            masked: bool,
        ) {
            let all = |of: &dyn Fn(usize) -> Vec<u8>| lengths.iter().map(|at| of(*at)).collect::<Vec<_>>();
            check(Framing::Mqtt, &all(&mqtt), &cuts);
            check(Framing::Length, &all(&length), &cuts);
            check(Framing::WebSocket, &all(&|at| websocket(0x82, at, masked)), &cuts);
        }
    }

    #[test]
    fn frames_without_a_payload_make_no_message_longer() {
        let mut follower = Follower::new(Framing::WebSocket);
        follower.follow(&websocket(0x02, 10, true));
        for _ in 0..1000 {
            follower.follow(&websocket(0x00, 0, true));
            follower.follow(&websocket(0x89, 125, true));
        }
        assert_eq!((follower.come(), follower.told()), (10, 10));
        // A length that no message has.
        follower.follow(&[0x80, 0xFF]);
        follower.follow(&[0xFF; 12]);
        assert_eq!(follower.told(), u64::MAX);
    }

    #[test]
    fn a_message_in_fragments_ends_with_its_last_one() {
        let mut follower = Follower::new(Framing::WebSocket);
        follower.follow(&websocket(0x02, 200, true));
        assert_eq!((follower.come(), follower.left()), (200, None));
        follower.follow(&websocket(0x89, 5, true));
        assert_eq!((follower.come(), follower.left()), (200, None));
        follower.follow(&websocket(0x00, 10, true));
        assert_eq!((follower.come(), follower.left()), (210, None));
        follower.follow(&websocket(0x80, 70_000, true)[..20]);
        assert_eq!((follower.told(), follower.left()), (210 + 70_000, Some(69_994)));
        follower.follow(&[0; 69_994]);
        assert_eq!((follower.come(), follower.left()), (0, Some(0)));
        follower.follow(&websocket(0x89, 5, true));
        assert_eq!((follower.come(), follower.left()), (0, Some(0)));
    }

    #[test]
    fn an_upgrade_never_ends() {
        let mut follower = Follower::new(Framing::Upgrade);
        follower.follow(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!((follower.come(), follower.told(), follower.left()), (18, 18, None));
    }
}

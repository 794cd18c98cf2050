//! What the bench publishes: a text that says who sent it, which of theirs it is, and when.
//!
//! Invariant: a payload is found again whatever a broker puts around it, and one of another run is never taken for
//! one of this run.
//!
//! Deliberately absent: anything that JSON would have to escape.

use bytes::{BufMut, BytesMut};

/// `vB`, run (8 hexadecimal digits), publisher (4), sequence (12), microseconds (12).
pub(super) const LEAST: usize = MARK + 4 + 12 + 12;

/// Length of the mark that a run's payloads begin with.
const MARK: usize = 10;

/// What a payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) publisher: u16,
    /// Counts from 0 at each publisher.
    pub(super) sequence: u64,
    /// When it was sent, in microseconds of the run's own clock.
    pub(super) sent: u64,
}

/// The mark of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark([u8; MARK]);

impl Mark {
    pub(super) fn new(run: u32) -> Self {
        let mut mark = *b"vB\0\0\0\0\0\0\0\0";
        put_hex(&mut mark[2..], u64::from(run));
        Self(mark)
    }

    /// Writes a payload of `size` bytes, [`LEAST`] at least.
    pub(super) fn write(&self, buffer: &mut BytesMut, content: Content, size: usize) {
        let mut head = [0; LEAST];
        head[..MARK].copy_from_slice(&self.0);
        put_hex(&mut head[MARK..MARK + 4], u64::from(content.publisher));
        put_hex(&mut head[MARK + 4..MARK + 16], content.sequence);
        put_hex(&mut head[MARK + 16..], content.sent);
        buffer.put_slice(&head);
        buffer.put_bytes(b'.', size.saturating_sub(LEAST));
    }

    /// Reads a payload that `bytes` begins with.
    fn read_at(&self, bytes: &[u8]) -> Option<Content> {
        let bytes = bytes.get(..LEAST)?;
        if bytes[..MARK] != self.0 {
            return None;
        }
        Some(Content {
            publisher: u16::try_from(hex(&bytes[MARK..MARK + 4])?).ok()?,
            sequence: hex(&bytes[MARK + 4..MARK + 16])?,
            sent: hex(&bytes[MARK + 16..])?,
        })
    }

    /// Finds the payload of `size` bytes in a message that ends with it and `tail` more bytes, or anywhere else.
    pub(super) fn find(&self, message: &[u8], size: usize, tail: usize) -> Option<Content> {
        let guess = message.len().checked_sub(size + tail);
        if let Some(content) = guess.and_then(|at| self.read_at(&message[at..])) {
            return Some(content);
        }
        (0..message.len()).find_map(|at| {
            if message[at] == self.0[0] {
                self.read_at(&message[at..])
            } else {
                None
            }
        })
    }
}

fn put_hex(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    let mut number = 0;
    for digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u64::from(value);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_text() {
        let mut buffer = BytesMut::new();
        let content = Content { publisher: 0x1f, sequence: 0xabc, sent: 5 };
        Mark::new(0xdead).write(&mut buffer, content, 40);
        assert_eq!(&buffer[..], b"vB0000dead001f000000000abc000000000005..");
    }

    proptest! {
        #[test]
        fn payloads_are_found(
            publisher: u16,
            sequence in 0u64..1 << 48,
            sent in 0u64..1 << 48,
            size in LEAST..300,
            before in "[ -~]{0,40}",
            after in "[ -~]{0,40}",
        ) {
            let content = Content { publisher, sequence, sent };
            let mark = Mark::new(7);
            let mut message = BytesMut::from(before.as_bytes());
            mark.write(&mut message, content, size);
            message.extend_from_slice(after.as_bytes());
            prop_assert_eq!(mark.find(&message, size, after.len()), Some(content));
            prop_assert_eq!(mark.find(&message, size, 3), Some(content));
            prop_assert_eq!(Mark::new(8).find(&message, size, after.len()), None);
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, size: u16, tail: u8) {
            prop_assert_eq!(Mark::new(7).find(&bytes, size.into(), tail.into()), None);
        }
    }
}

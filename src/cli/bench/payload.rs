//! The bench's payloads: a text with its publisher, sequence number and time.
//!
//! ```text
//! 38 bytes and more   `vB`, then hexadecimal: run (8 digits), publisher (4), sequence (12), microseconds (12); then dots
//! 16 to 37 bytes      96 bits, six a character: run (14 bits), publisher (13), sequence (32), microseconds (37); then dots
//! ```
//!
//! Invariant: a payload is found whatever a broker puts around it, and a payload of another run is never mistaken for one of
//! this run. For short payloads this holds only together with the topic, which has the whole number of the run.
//!
//! Deliberately absent: characters that JSON would have to escape.

use bytes::{BufMut, BytesMut};

/// The smallest payload, in bytes.
pub(super) const LEAST: usize = 16;

/// From this size on, payloads are in hexadecimal.
const LONG: usize = MARK + 4 + 12 + 12;

/// Bits of the parts of a short payload, in their order.
const SHORT_BITS: [u32; 4] = [14, 13, 32, 37];

const _: () = assert!(
    SHORT_BITS[0] + SHORT_BITS[1] + SHORT_BITS[2] + SHORT_BITS[3] == 6 * LEAST as u32
        && crate::cli::bench::CONNECTIONS < 1 << SHORT_BITS[1]
);

/// The alphabet of short payloads.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Length of the mark that a run's payloads begin with.
const MARK: usize = 10;

/// The contents of a payload.
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
pub(super) struct Mark {
    run: u32,
    long: [u8; MARK],
}

impl Mark {
    pub(super) fn new(run: u32) -> Self {
        let mut long = *b"vB\0\0\0\0\0\0\0\0";
        put_hex(&mut long[2..], u64::from(run));
        Self { run, long }
    }

    /// Writes a payload of `size` bytes, [`LEAST`] at least.
    pub(super) fn write(&self, buffer: &mut BytesMut, content: Content, size: usize) {
        if size < LONG {
            buffer.put_slice(&self.short(content));
            return buffer.put_bytes(b'.', size.saturating_sub(LEAST));
        }
        let mut head = [0; LONG];
        head[..MARK].copy_from_slice(&self.long);
        put_hex(&mut head[MARK..MARK + 4], u64::from(content.publisher));
        put_hex(&mut head[MARK + 4..MARK + 16], content.sequence);
        put_hex(&mut head[MARK + 16..], content.sent);
        buffer.put_slice(&head);
        buffer.put_bytes(b'.', size - LONG);
    }

    fn short(&self, content: Content) -> [u8; LEAST] {
        let parts =
            [u64::from(self.run), u64::from(content.publisher), content.sequence, content.sent];
        let mut all = 0u128;
        for (part, bits) in parts.into_iter().zip(SHORT_BITS) {
            all = all << bits | u128::from(part & ((1 << bits) - 1));
        }
        let mut text = [0; LEAST];
        for digit in text.iter_mut().rev() {
            *digit = DIGITS[(all & 63) as usize];
            all >>= 6;
        }
        text
    }

    /// Reads a short payload that `bytes` begins with.
    fn read_short(&self, bytes: &[u8]) -> Option<Content> {
        let mut all = 0u128;
        for byte in bytes.get(..LEAST)? {
            all = all << 6 | u128::from(value_of(*byte)?);
        }
        let mut parts = [0; SHORT_BITS.len()];
        for (part, bits) in parts.iter_mut().zip(SHORT_BITS).rev() {
            *part = (all & ((1 << bits) - 1)) as u64;
            all >>= bits;
        }
        let [run, publisher, sequence, sent] = parts;
        let ours = u64::from(self.run) & ((1 << SHORT_BITS[0]) - 1);
        (run == ours).then_some(Content {
            publisher: u16::try_from(publisher).ok()?,
            sequence,
            sent,
        })
    }

    /// Reads a payload of `size` bytes that `bytes` begins with.
    fn read_at(&self, bytes: &[u8], size: usize) -> Option<Content> {
        if size < LONG {
            return self.read_short(bytes);
        }
        let bytes = bytes.get(..LONG)?;
        if bytes[..MARK] != self.long {
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
        if let Some(content) = guess.and_then(|at| self.read_at(&message[at..], size)) {
            return Some(content);
        }
        (0..message.len()).find_map(|at| self.read_at(&message[at..], size))
    }
}

/// The value of a character of a short payload.
fn value_of(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    })
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
        buffer.clear();
        Mark::new(0xdead).write(&mut buffer, content, 18);
        assert_eq!(&buffer[..], b"erQD4AABV4AAAAAF..");
    }

    proptest! {
        #[test]
        fn payloads_are_found(
            publisher in 0u16..1 << 13,
            sequence in 0u64..1 << 32,
            sent in 0u64..1 << 37,
            size in LEAST..300,
            before in "[ -~]{0,40}\"",
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
            let size = usize::from(size) + LONG;
            prop_assert_eq!(Mark::new(7).find(&bytes, size, tail.into()), None);
            // Sixteen random characters may be a valid short payload.
            let _ = Mark::new(7).find(&bytes, LEAST, tail.into());
        }
    }
}

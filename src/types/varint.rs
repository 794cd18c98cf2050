//! Numbers of variable length: seven bits per byte, lowest first; the top bit says that another byte follows.
//!
//! Persisted: segment bodies and extension fields use them.

use bytes::BufMut;

/// Bytes of the longest one.
pub(crate) const LONGEST: usize = 5;

/// Bytes that a number takes.
pub(crate) fn len(value: u32) -> usize {
    (value.max(1).ilog2() as usize) / 7 + 1
}

/// Appends a number.
pub(crate) fn put(buffer: &mut impl BufMut, mut value: u32) {
    while value >= 0x80 {
        buffer.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

/// The number at the front, and its length in bytes; `None` if it is cut short or exceeds a `u32`.
pub(crate) fn read(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut value = 0u32;
    for (at, byte) in bytes.iter().take(LONGEST).enumerate() {
        if at == LONGEST - 1 && *byte > 0x0f {
            return None;
        }
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let cases: [(u32, &[u8]); 4] = [
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ];
        for (value, bytes) in cases {
            let mut buffer = Vec::new();
            put(&mut buffer, value);
            assert_eq!(buffer, bytes);
        }
        for bad in [&[][..], &[0x80], &[0xff, 0xff, 0xff, 0xff, 0x1f]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(value: u32, rest: Vec<u8>) {
            let mut buffer = Vec::new();
            put(&mut buffer, value);
            prop_assert_eq!(buffer.len(), len(value));
            let length = buffer.len();
            buffer.extend(rest);
            prop_assert_eq!(read(&buffer), Some((value, length)));
        }
    }
}

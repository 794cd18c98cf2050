//! Text forms of bytes in messages.
//!
//! Invariant: one text for each value: base64 is canonical (RFC 4648), and of exactly as many bytes as are expected.
//!
//! Deliberately absent: base64url.

use base64::engine::general_purpose::STANDARD;
use base64::Engine;

/// Characters of the base64 text of 32 bytes.
const BASE64_32: usize = 44;

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of a base64 text whose length the caller has bounded.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// The 32 bytes of a key, proof or signature in base64.
pub(super) fn from_base64_32(text: &str) -> Option<[u8; 32]> {
    if text.len() != BASE64_32 {
        return None;
    }
    from_base64(text)?.try_into().ok()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The `N` bytes of a text of two hexadecimal digits for each, in either case.
pub(super) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let nibble =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal() {
        assert_eq!(hex(&[0, 0x9A, 0xFF]), "009aff");
        assert_eq!(from_hex::<3>("009aFF"), Some([0, 0x9A, 0xFF]));
        for wrong in ["", "009af", "009aff0", "00 aff", "00+aff", "é9af"] {
            assert_eq!(from_hex::<3>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn base64_has_one_form() {
        let text = base64(&[7; 32]);
        assert_eq!(from_base64_32(&text), Some([7; 32]));
        assert_eq!(from_base64_32(text.trim_end_matches('=')), None);
        assert_eq!(from_base64_32(&text.replace("c=", "d=")), None);
        assert_eq!(from_base64_32(&format!("{text}\n")), None);
    }
}

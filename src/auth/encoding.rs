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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_one_form() {
        let text = base64(&[7; 32]);
        assert_eq!(from_base64_32(&text), Some([7; 32]));
        assert_eq!(from_base64_32(text.trim_end_matches('=')), None);
        assert_eq!(from_base64_32(&text.replace("c=", "d=")), None);
        assert_eq!(from_base64_32(&format!("{text}\n")), None);
    }
}

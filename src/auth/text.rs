//! User names and passwords, prepared with SASLprep (RFC 4013), so that every keyboard's spelling is the same name.
//!
//! Invariant: a [`UserName`] and a [`Password`] are not empty, are within their limits, and contain nothing prohibited.
//!
//! Deliberately absent: rules for what a good password is.

use std::fmt;

use stringprep::saslprep;
use zeroize::Zeroizing;

use crate::types::limits;

/// A name or a password that can't be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("it is empty")]
    Empty,
    #[error("it has more than {limit} bytes")]
    TooLong { limit: usize },
    #[error("it is not UTF-8")]
    NotText,
    /// A control character, one that Unicode 3.2 doesn't have, or a mixture of writing directions (RFC 4013 section 2.3
    /// to 2.5).
    #[error("it has characters that SASLprep (RFC 4013) prohibits: use others")]
    Prohibited,
}

/// A user's name as it is stored and compared: after SASLprep.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

impl UserName {
    /// Prepares a name.
    ///
    /// # Errors
    /// What can't be a name.
    pub fn new(name: &str) -> Result<Self, TextError> {
        prepare(name, limits::USER_NAME).map(Self)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A password in clear. It is overwritten when it is dropped, and never printed.
#[derive(Clone)]
pub struct Password {
    /// As it was typed: what `wampcra` clients use.
    raw: Zeroizing<String>,
    /// After SASLprep: what all others use.
    prepared: Zeroizing<String>,
}

impl Password {
    /// Takes a password as a client or an administrator sent it.
    ///
    /// # Errors
    /// What can't be a password of anybody. It depends on nothing but the bytes, so answering at once tells a stranger
    /// nothing about users.
    pub fn new(bytes: &[u8]) -> Result<Self, TextError> {
        if bytes.len() > limits::PASSWORD {
            return Err(TextError::TooLong { limit: limits::PASSWORD });
        }
        let raw = std::str::from_utf8(bytes).map_err(|_| TextError::NotText)?;
        let prepared = prepare(raw, limits::PASSWORD)?.into();
        Ok(Self { raw: raw.to_owned().into(), prepared })
    }

    pub(super) fn raw(&self) -> &[u8] {
        self.raw.as_bytes()
    }

    pub(super) fn prepared(&self) -> &[u8] {
        self.prepared.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(..)")
    }
}

fn prepare(text: &str, limit: usize) -> Result<String, TextError> {
    if text.len() > limit {
        return Err(TextError::TooLong { limit });
    }
    let prepared = saslprep(text).map_err(|_| TextError::Prohibited)?.into_owned();
    match prepared.len() {
        0 => Err(TextError::Empty),
        length if length > limit => Err(TextError::TooLong { limit }),
        _ => Ok(prepared),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4013 section 3, and limits.
    #[test]
    fn names_are_prepared() {
        let long = "n".repeat(limits::USER_NAME + 1);
        let grows = "\u{FDFA}".repeat(limits::USER_NAME / 3);
        let too_long = Err(TextError::TooLong { limit: limits::USER_NAME });
        for (name, expected) in [
            ("I\u{AD}X", Ok("IX")),
            ("user", Ok("user")),
            ("USER", Ok("USER")),
            ("\u{AA}", Ok("a")),
            ("\u{2168}", Ok("IX")),
            ("\u{7}", Err(TextError::Prohibited)),
            ("\u{627}\u{31}", Err(TextError::Prohibited)),
            ("a\u{A0}b", Ok("a b")),
            ("\u{1F98A}", Err(TextError::Prohibited)),
            ("", Err(TextError::Empty)),
            ("\u{AD}", Err(TextError::Empty)),
            (&long, too_long),
            (&grows, too_long),
        ] {
            let got = UserName::new(name);
            assert_eq!(got.as_ref().map(UserName::as_str), expected.as_ref().copied(), "{name:?}");
        }
    }

    #[test]
    fn passwords_are_prepared_and_not_printed() {
        let password = Password::new("\u{2168}".as_bytes()).unwrap();
        assert_eq!(password.prepared(), b"IX");
        assert_eq!(password.raw(), "\u{2168}".as_bytes());
        assert_eq!(format!("{password:?}"), "Password(..)");
        let error = |bytes: &[u8]| Password::new(bytes).map(|_| ()).unwrap_err();
        assert_eq!(error(b""), TextError::Empty);
        assert_eq!(error(&[0xFF]), TextError::NotText);
        assert_eq!(error(b"a\0b"), TextError::Prohibited);
        let limit = limits::PASSWORD;
        assert_eq!(error(&vec![b'a'; limit + 1]), TextError::TooLong { limit });
    }
}

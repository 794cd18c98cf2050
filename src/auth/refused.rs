//! Why a login in steps ends.
//!
//! Invariant: nothing of what the client sent is repeated. A user that doesn't exist and a wrong password are the same.
//!
//! Deliberately absent: URIs and reason codes (`gate`).

use super::text::TextError;

/// Why a client that answers challenges is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The client doesn't speak the method as it is specified: its developer's mistake.
    #[error("the {0} is not as the authentication method specifies it")]
    Malformed(&'static str),
    #[error("the user name is refused: {0}")]
    UserName(#[from] TextError),
    #[error("the client requires a SCRAM extension: there are none here")]
    Extension,
    #[error("the client wants to act as another user than the one it authenticates")]
    OtherIdentity,
    #[error("the client asks for a channel binding that this connection does not have: there is only tls-exporter, for WAMP over TLS 1.3")]
    NoSuchBinding,
    #[error("the client believes that there is no channel binding, but there is: somebody in between may have said so")]
    Downgraded,
    #[error("the channel binding is of another connection")]
    OtherChannel,
    /// The password or key is wrong, or there is no such user.
    #[error("the user name, the password or the key is wrong")]
    Denied,
}

impl Refused {
    /// Whether the credentials are wrong, and not the client: to be counted and slowed down as a failed login.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied)
    }
}

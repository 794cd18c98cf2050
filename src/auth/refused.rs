//! Why a login in steps ends.
//!
//! Invariant: nothing of what the client sent is repeated. A user that doesn't exist and a wrong password are the same.
//!
//! Deliberately absent: URIs and reason codes (`gate`).

/// Why a client that answers challenges is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The client doesn't speak the method as it is specified: its developer's mistake.
    #[error("the {0} is not as the authentication method specifies it")]
    Malformed(&'static str),
    /// The password is wrong, or there is no such user.
    #[error("the user name or the password is wrong")]
    Denied,
}

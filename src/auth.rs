//! Passwords: what is stored of them, and how a login is verified.
//!
//! Invariant: pure; randomness comes from the caller. Garbage is an error, never a panic. Secrets are compared in constant
//! time, and verifying a password takes the same time whether or not there is such a user.
//!
//! Slow, so for a thread where nothing else waits: [`Verifier::derive`] and [`verify`].
//!
//! Deliberately absent: where users are stored, how failures are slowed down, and the protocols' reason codes (`gate`).

mod text;
mod verifier;

pub use text::{Password, TextError, UserName};
pub use verifier::{verify, Cost, CostError, DeriveError, Fingerprint, Verifier, SALT};

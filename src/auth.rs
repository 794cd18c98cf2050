//! Who a client is: what is stored of users, and how a login is verified.
//!
//! A gate reads the messages of its protocol and gives their fields to the node, which has a method here say what to answer and, at
//! last, whether the client is who it says.
//!
//! Invariant: pure; the time and everything random come from the caller. Garbage is an error, never a panic. Secrets are compared in
//! constant time, and a user that doesn't exist is answered like one that does ([`Decoys`]).
//!
//! Slow, so for a thread where nothing else waits: [`Verifiers::derive`] and [`plain::verify`]. Everything else takes microseconds.
//!
//! Deliberately absent: where users are stored, how failures are slowed down, and the protocols' reason codes (`gate`).

mod binding;
mod candidate;
mod cost;
pub mod cryptosign;
mod encoding;
mod fingerprint;
mod hash;
pub mod jwt;
pub mod plain;
mod refused;
pub mod scram;
mod text;
mod verifiers;
pub mod wampcra;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use binding::Exporter;
pub use candidate::{Candidate, Decoys};
pub use cost::{Argon2Cost, Cost, CostError, Pbkdf2Cost};
pub use fingerprint::Fingerprint;
pub use refused::Refused;
pub use text::{Password, TextError, UserName};
pub use verifiers::{draw, DeriveError, Salts, Verifiers};

/// Bytes of a nonce that is made here.
pub const NONCE: usize = 24;

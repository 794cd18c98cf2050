//! Every method from the client's side: the specifications' vectors, right logins, wrong ones, and garbage.

mod cryptosign;
mod decoys;
mod scram_text;
mod scram_wamp;
mod tokens;
mod verifiers;
mod wampcra;

use super::testing::verifiers;
use super::{Candidate, Decoys, Password, UserName};

/// Another nonce would do as well.
const NONCE: [u8; super::NONCE] = [9; super::NONCE];

fn password(text: &str) -> Password {
    Password::new(text.as_bytes()).unwrap()
}

fn decoys() -> Decoys {
    Decoys::of(&verifiers("x")).unwrap()
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

/// The user `joe` with a password.
fn joe(password: &str) -> Candidate {
    decoys().candidate(&user("joe"), Some(&verifiers(password)))
}

/// Somebody who doesn't exist.
fn nobody() -> Candidate {
    decoys().candidate(&user("nobody"), None)
}

/// An ASCII text with one byte changed to another.
fn changed(text: &str, index: usize, by: u8) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let index = index % bytes.len();
    bytes[index] = (bytes[index] - b' ' + 1 + by % 93) % 94 + b' ';
    String::from_utf8(bytes).unwrap()
}

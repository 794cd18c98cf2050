//! The client's side of logins.
//!
//! Deliberately absent: wrong answers, which each test makes of right ones.

use super::encoding::base64;
use super::hash::{hmac, pbkdf2};
use super::{Cost, Password, Pbkdf2Cost, Salts, Verifiers};
use crate::types::login::Challenge;
use crate::types::value::Value;

/// The verifiers of a password, as cheap as may be, and those of its companions that don't exist.
pub(crate) fn verifiers(password: &str) -> Verifiers {
    let password = Password::new(password.as_bytes()).unwrap();
    let next = std::cell::Cell::new(0_u8);
    let byte = || next.replace(next.get() + 1);
    let salts = Salts::draw(|| u64::from_le_bytes(std::array::from_fn(|_| byte())));
    Verifiers::derive(&password, &salts, &Cost::CHEAP, None).unwrap()
}

/// A field of a challenge.
pub(crate) fn field(challenge: &Challenge, name: &str) -> Value {
    let found = challenge.extra.iter().find(|(key, _)| *key == name);
    found.unwrap_or_else(|| panic!("{name} in {challenge:?}")).1.clone()
}

/// The same; it has to be text.
pub(crate) fn text(challenge: &Challenge, name: &str) -> String {
    let Value::Str(text) = field(challenge, name) else { panic!("{name}") };
    text
}

fn cost(challenge: &Challenge) -> Pbkdf2Cost {
    let Value::Int(iterations) = field(challenge, "iterations") else { panic!() };
    Pbkdf2Cost::new(iterations.try_into().unwrap()).unwrap()
}

/// The answer to `wampcra`, as clients make it: the salt is text, and the key is base64.
pub(crate) fn sign_cra(password: &str, challenge: &Challenge) -> String {
    let salt = text(challenge, "salt");
    let key = pbkdf2(password.as_bytes(), salt.as_bytes(), cost(challenge));
    base64(&hmac(base64(&key.0).as_bytes(), &[text(challenge, "challenge").as_bytes()]))
}

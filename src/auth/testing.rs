//! The client's side of logins.
//!
//! Deliberately absent: wrong answers, which each test makes of right ones.

use ed25519_dalek::{Signer, SigningKey};

use super::encoding::{base64, from_base64, from_hex, hex};
use super::hash::{argon2id, hmac, pbkdf2, sha256, Key};
use super::{Argon2Cost, Cost, Exporter, Password, Pbkdf2Cost, Salts, Verifiers};
use crate::types::login::{Challenge, Extra};
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

/// A client's proof and the server's signature that it expects, in base64 (RFC 5802 section 3).
fn prove(salted: &Key, conversation: &str) -> (String, String) {
    let client = hmac(&salted.0, &[b"Client Key"]);
    let signature = hmac(&sha256(&client), &[conversation.as_bytes()]);
    let proof: Vec<u8> = client.iter().zip(signature).map(|(byte, other)| byte ^ other).collect();
    let server = hmac(&salted.0, &[b"Server Key"]);
    (base64(&proof), base64(&hmac(&server, &[conversation.as_bytes()])))
}

/// SCRAM's last message of a client that began with a header and this bare message, and what the server should answer.
pub(crate) fn scram_last(
    (header, bare): (&str, &str),
    password: &str,
    challenge: &str,
) -> (String, String) {
    let (salt, iterations) = challenge.split_once(",s=").unwrap().1.split_once(",i=").unwrap();
    let cost = Pbkdf2Cost::new(iterations.parse().unwrap()).unwrap();
    let salted = pbkdf2(password.as_bytes(), &from_base64(salt).unwrap(), cost);
    let nonce = challenge.strip_prefix("r=").unwrap().split_once(',').unwrap().0;
    let said = format!("c={},r={nonce}", base64(header.as_bytes()));
    let (proof, signature) = prove(&salted, &format!("{bare},{challenge},{said}"));
    (format!("{said},p={proof}"), format!("v={signature}"))
}

/// The nonce of the clients of `wamp-scram` here: the specification's example.
pub(crate) const NONCE: &str = "egVDf3DMJh0=";

/// The answer to `wamp-scram` of a client that writes its name so, bound to a channel or not, and the verifier that it expects.
pub(crate) fn scram_wamp(
    (name, password): (&str, &str),
    challenge: &Challenge,
    exporter: Option<Exporter>,
) -> (String, Extra, String) {
    let (nonce, salt) = (text(challenge, "nonce"), text(challenge, "salt"));
    let Value::Int(iterations) = field(challenge, "iterations") else { panic!() };
    let bytes = from_base64(&salt).unwrap();
    let salted = if text(challenge, "kdf") == "pbkdf2" {
        pbkdf2(password.as_bytes(), &bytes, cost(challenge))
    } else {
        let Value::Int(memory) = field(challenge, "memory") else { panic!() };
        let (memory, passes) = (memory.try_into().unwrap(), iterations.try_into().unwrap());
        argon2id(password.as_bytes(), &bytes, Argon2Cost::new(memory, passes).unwrap()).unwrap()
    };
    let input = match exporter {
        Some(exporter) => base64(&[&b"p=tls-exporter,,"[..], &exporter].concat()),
        None => "biws".to_owned(),
    };
    let conversation =
        format!("n={name},r={NONCE},r={nonce},s={salt},i={iterations},c={input},r={nonce}");
    let (proof, verifier) = prove(&salted, &conversation);
    let extra = Extra {
        nonce: Some(nonce),
        channel_binding: exporter.map(|_| "tls-exporter".to_owned()),
        cbind_data: exporter.map(|exporter| base64(&exporter)),
        ..Extra::default()
    };
    (proof, extra, verifier)
}

/// The public key of a client whose private key is this, and its answer to `cryptosign`.
pub(crate) fn cryptosign(seed: [u8; 32]) -> (String, impl Fn(&Challenge) -> String) {
    let key = SigningKey::from_bytes(&seed);
    let pubkey = hex(key.verifying_key().as_bytes());
    let sign = move |challenge: &Challenge| {
        let message = from_hex::<32>(&text(challenge, "challenge")).unwrap();
        hex(&key.sign(&message).to_bytes()) + &hex(&message)
    };
    (pubkey, sign)
}

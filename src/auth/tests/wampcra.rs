//! WAMP's `wampcra`.

use proptest::prelude::*;
use serde_json::{json, Value as Json};

use super::{changed, joe, nobody, user, NONCE};
use crate::auth::encoding::base64;
use crate::auth::hash::hmac;
use crate::auth::testing::{field, sign_cra, text};
use crate::auth::wampcra::{Challenge, Session};
use crate::auth::{Candidate, Refused};
use crate::types::value::Value;

fn challenge(candidate: &Candidate) -> Challenge {
    let (user, provider) = (&user("joe"), "the \"users\"");
    let session = Session { user, provider, id: 3_251_278_072_152_162, now: 1_403_454_985 };
    Challenge::new(&session, candidate, &NONCE)
}

/// The signature was computed by another implementation of PBKDF2 and HMAC, as Autobahn's clients do it: without
/// SASLprep, which would change this password.
#[test]
fn as_clients_sign() {
    let challenge = challenge(&joe("pässwörd\u{2168}"));
    let signed = concat!(
        r#"{"authid":"joe","authmethod":"wampcra","authprovider":"the \"users\"","#,
        r#""nonce":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJ","#,
        r#""timestamp":"2014-06-22T16:36:25.000Z","session":3251278072152162}"#,
    );
    assert_eq!(text(&challenge.asked(), "challenge"), signed);
    let fields: Json = serde_json::from_str(signed).unwrap();
    assert_eq!(fields["authprovider"], json!("the \"users\""));
    assert_eq!(text(&challenge.asked(), "salt"), "EBESExQVFhcYGRobHB0eHw==");
    assert_eq!(field(&challenge.asked(), "iterations"), Value::Int(4096));
    assert_eq!(field(&challenge.asked(), "keylen"), Value::Int(32));
    assert_eq!(challenge.finish("plI9qjpYE8x8f1sJ6gxcsY7klrnQ1VPy+dc6G9rSWGQ="), Ok(()));
}

#[test]
fn only_the_right_password_of_an_admitted_user() {
    for (candidate, password, expected) in [
        (joe("pencil"), "pencil", Ok(())),
        (joe("pencil"), "Pencil", Err(Refused::Denied)),
        (joe("pencil").locked(), "pencil", Err(Refused::Denied)),
        (nobody(), "pencil", Err(Refused::Denied)),
    ] {
        let challenge = challenge(&candidate);
        let signature = sign_cra(password, &challenge.asked());
        assert_eq!(challenge.finish(&signature), expected);
    }
    let garbage = challenge(&joe("pencil")).finish("AAAA");
    assert_eq!(garbage, Err(Refused::Malformed("signature")));
}

/// Who learns the key of a name that doesn't exist still isn't let in.
#[test]
fn a_made_up_key_opens_nothing() {
    let candidate = nobody();
    let key = base64(&candidate.wampcra.verifier.key.0);
    let challenge = challenge(&candidate);
    let signed = text(&challenge.asked(), "challenge");
    let signature = base64(&hmac(key.as_bytes(), &[signed.as_bytes()]));
    assert_eq!(challenge.finish(&signature), Err(Refused::Denied));
}

proptest! {
    #[test]
    fn a_changed_signature_logs_nobody_in(at: usize, by: u8, garbage: String) {
        let right = challenge(&joe("pencil"));
        let signature = sign_cra("pencil", &right.asked());
        prop_assert!(right.finish(&changed(&signature, at, by)).is_err());
        prop_assert!(right.finish(&garbage).is_err());
    }
}

//! WAMP's `wamp-scram`.

use super::{changed, decoys, joe, nobody, user, verifiers};
use crate::auth::scram::wamp::{Challenge, Hello};
use crate::auth::testing::{scram_wamp, text, NONCE};
use crate::auth::{Candidate, Exporter, Refused, TextError};
use crate::types::login::Extra;
use crate::types::value::Value;
use proptest::prelude::*;

const EXPORTER: Exporter = [3; 32];

/// Functions that make keys, as clients ask for them.
const KDFS: [&str; 2] = ["argon2id13", "pbkdf2"];

fn extra(nonce: &str, kdf: &str, binding: Option<&str>) -> Extra {
    Extra {
        nonce: Some(nonce.to_owned()),
        channel_binding: binding.map(str::to_owned),
        kdf: Some(kdf.to_owned()),
        ..Extra::default()
    }
}

fn challenge(candidate: &Candidate, kdf: &str, binding: Option<&str>) -> Challenge {
    let hello = Hello::read("joe", &extra(NONCE, kdf, binding), Some(&EXPORTER)).unwrap();
    hello.challenge(candidate, &super::NONCE)
}

/// RFC 7677's example, whose conversation WAMP's is by specification.
#[test]
fn rfc_7677() {
    let mut candidate = joe("unused");
    let salt = crate::auth::encoding::from_base64("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let verifier = &mut candidate.scram_pbkdf2.verifier;
    verifier.salt = salt.try_into().unwrap();
    let salted = crate::auth::hash::pbkdf2(b"pencil", &verifier.salt, verifier.cost);
    verifier.keys = crate::auth::verifiers::ScramKeys::new(&salted);
    let asks = extra("rOprNGfwEbeRWgbNEkqO", "pbkdf2", None);
    let hello = Hello::read_with("user", &asks, None).unwrap();
    let challenge = hello.challenge_with(&candidate, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
    let nonce = Some(text(&challenge.asked(), "nonce"));
    let extra = Extra { nonce, ..Extra::default() };
    let verifier = challenge.finish("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", &extra);
    assert_eq!(verifier.unwrap(), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

/// Computed by another implementation of argon2id and HMAC, from the specification's text.
#[test]
fn argon2id() {
    let mut candidate = decoys().candidate(&user("a,b=c"), Some(&verifiers("pencil")));
    let verifier = &mut candidate.scram_argon2id.verifier;
    verifier.salt = std::array::from_fn(|index| 32 + index as u8);
    let salted = crate::auth::hash::argon2id(b"pencil", &verifier.salt, verifier.cost);
    verifier.keys = crate::auth::verifiers::ScramKeys::new(&salted.unwrap());
    let asks = Extra { nonce: Some(NONCE.to_owned()), ..Extra::default() };
    let challenge = Hello::read("a,b=c", &asks, None).unwrap().challenge(&candidate, &super::NONCE);
    let nonce = "egVDf3DMJh0=CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJ";
    let text = |text: &str| Value::Str(text.to_owned());
    assert_eq!(
        challenge.asked().extra,
        [
            ("nonce", text(nonce)),
            ("salt", text("ICEiIyQlJicoKSorLC0uLw==")),
            ("kdf", text("argon2id13")),
            ("iterations", Value::Int(1)),
            ("memory", Value::Int(8)),
        ]
    );
    let extra = Extra { nonce: Some(nonce.to_owned()), ..Extra::default() };
    let verifier = challenge.finish("3ACUL+m+VUp+ZP4YKRjQ2QCPrQiTcvtzXScgHiZSdww=", &extra);
    assert_eq!(verifier.unwrap(), "gYKA0sF9ZQIlflDcq99LlBbvHYGTOpJc6y8FZw6S8Gw=");
}

#[test]
fn both_functions_and_only_the_right_password() {
    for kdf in KDFS {
        for (candidate, password, is_right) in [
            (joe("pencil"), "pencil", true),
            (joe("pencil"), "Pencil", false),
            (joe("pencil").locked(), "pencil", false),
            (nobody(), "pencil", false),
        ] {
            let challenge = challenge(&candidate, kdf, None);
            assert_eq!(text(&challenge.asked(), "kdf"), kdf);
            let (proof, extra, verifier) = scram_wamp(("joe", password), &challenge.asked(), None);
            let got = challenge.finish(&proof, &extra);
            assert_eq!(got, if is_right { Ok(verifier) } else { Err(Refused::Denied) });
        }
    }
}

/// A client may sign its name as it sent it, or as SASLprep makes it.
#[test]
fn names_are_prepared() {
    for (written, is_right) in [("\u{2168}", true), ("IX", true), ("ix", false)] {
        let candidate = decoys().candidate(&user("IX"), Some(&verifiers("pencil")));
        let hello = Hello::read("\u{2168}", &extra(NONCE, "pbkdf2", None), None).unwrap();
        let challenge = hello.challenge(&candidate, &super::NONCE);
        let (proof, extra, _) = scram_wamp((written, "pencil"), &challenge.asked(), None);
        assert_eq!(challenge.finish(&proof, &extra).is_ok(), is_right, "{written}");
    }
}

#[test]
fn channel_binding() {
    let bound = Some("tls-exporter");
    for (asked, exporter, expected) in [
        (bound, Some(EXPORTER), Ok(())),
        (bound, Some([4; 32]), Err(Refused::OtherChannel)),
        (bound, None, Err(Refused::Malformed("channel binding"))),
        (None, Some(EXPORTER), Err(Refused::Malformed("channel binding"))),
    ] {
        let challenge = challenge(&joe("pencil"), "pbkdf2", asked);
        let (proof, extra, _) = scram_wamp(("joe", "pencil"), &challenge.asked(), exporter);
        assert_eq!(challenge.finish(&proof, &extra).map(|_| ()), expected);
    }
    let read = |binding, channel| {
        Hello::read("joe", &extra(NONCE, "pbkdf2", binding), channel).map(|_| ())
    };
    assert_eq!(read(bound, None), Err(Refused::NoSuchBinding));
    assert_eq!(read(None, Some(&EXPORTER)), Ok(()));
    assert_eq!(read(Some("tls-unique"), Some(&EXPORTER)), Err(Refused::NoSuchBinding));
}

#[test]
fn hellos() {
    let long = "a".repeat(260);
    let nonce = Err(Refused::Malformed("nonce"));
    for (authid, text, expected) in [
        ("joe", "egVDf3DMJh0=", Ok(())),
        ("", "egVDf3DMJh0=", Err(Refused::UserName(TextError::Empty))),
        ("joe", "egVDf3DMJh0", nonce),
        ("joe", "egVDf3DMJh1=", nonce),
        ("joe", "egVDf3DMJg==", nonce),
        ("joe", "", nonce),
        ("joe", &long, nonce),
    ] {
        let got = Hello::read(authid, &extra(text, "pbkdf2", None), None).map(|_| ());
        assert_eq!(got, expected, "{authid} {text}");
    }
}

proptest! {
    #[test]
    fn a_changed_answer_logs_nobody_in(at: usize, by: u8, which in 0..4) {
        let challenge = challenge(&joe("pencil"), "pbkdf2", Some("tls-exporter"));
        let (proof, mut extra, _) =
            scram_wamp(("joe", "pencil"), &challenge.asked(), Some(EXPORTER));
        let change = |text: &str| changed(text, at, by);
        let proof = if which == 0 { change(&proof) } else { proof };
        match which {
            1 => extra.nonce = extra.nonce.as_deref().map(change),
            2 => extra.channel_binding = extra.channel_binding.as_deref().map(change),
            3 => extra.cbind_data = extra.cbind_data.as_deref().map(change),
            _ => {}
        }
        prop_assert!(challenge.finish(&proof, &extra).is_err());
    }

    #[test]
    fn garbage_is_an_error(
        authid: String,
        nonce: Option<String>,
        channel_binding: Option<String>,
        cbind_data: Option<String>,
    ) {
        let extra = Extra { nonce, channel_binding, cbind_data, ..Extra::default() };
        let _ = Hello::read(&authid, &extra, Some(&EXPORTER));
        let challenge = challenge(&nobody(), "pbkdf2", Some("tls-exporter"));
        prop_assert!(challenge.finish(&authid, &extra).is_err());
    }
}

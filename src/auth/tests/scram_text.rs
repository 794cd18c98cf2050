//! SCRAM-SHA-256 as MQTT 5 has it.

use proptest::prelude::*;

use super::{changed, joe, nobody, user, NONCE};
use crate::auth::hash::pbkdf2;
use crate::auth::scram::text::{ClientFirst, ServerFirst};
use crate::auth::testing::scram_last;
use crate::auth::verifiers::ScramKeys;
use crate::auth::{Candidate, Refused, TextError};
use crate::types::limits;

/// A client that may say something else than it should.
#[derive(Clone, Copy)]
struct Client<'a> {
    /// With its comma, as `n,,`.
    header: &'a str,
    /// `n=...,r=...`.
    bare: &'a str,
    password: &'a str,
}

fn honest(password: &str) -> Client<'_> {
    Client { header: "n,,", bare: "n=joe,r=abc", password }
}

impl Client<'_> {
    fn first(&self) -> String {
        format!("{}{}", self.header, self.bare)
    }

    fn last(&self, challenge: &str) -> (String, String) {
        scram_last((self.header, self.bare), self.password, challenge)
    }

    fn challenge(&self, candidate: &Candidate) -> Result<ServerFirst, Refused> {
        Ok(ClientFirst::read(self.first().as_bytes())?.challenge(candidate, &NONCE))
    }

    /// The whole exchange, as the client sees it.
    fn log_in(&self, candidate: &Candidate) -> Result<(), Refused> {
        let challenge = self.challenge(candidate)?;
        let (last, expected) = self.last(challenge.message());
        assert_eq!(challenge.finish(last.as_bytes())?, expected);
        Ok(())
    }
}

/// RFC 7677 section 3.
#[test]
fn rfc_7677() {
    let mut candidate = joe("unused");
    let salt = crate::auth::encoding::from_base64("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let verifier = &mut candidate.scram_pbkdf2.verifier;
    verifier.salt = salt.try_into().unwrap();
    verifier.keys = ScramKeys::new(&pbkdf2(b"pencil", &verifier.salt, verifier.cost));

    let first = ClientFirst::read(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
    assert_eq!(first.user(), &user("user"));
    let challenge = first.challenge_with(&candidate, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
    assert_eq!(
        challenge.message(),
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let message = challenge.finish(last).unwrap();
    assert_eq!(message, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

#[test]
fn only_the_right_password_of_an_admitted_user() {
    let joe = joe("pencil");
    assert_eq!(honest("pencil").log_in(&joe), Ok(()));
    assert_eq!(honest("Pencil").log_in(&joe), Err(Refused::Denied));
    assert_eq!(honest("pencil").log_in(&nobody()), Err(Refused::Denied));
    assert_eq!(honest("pencil").log_in(&joe.locked()), Err(Refused::Denied));
}

/// There is no binding in MQTT, and nobody acts as another.
#[test]
fn headers() {
    let joe = joe("pencil");
    let malformed = Err(Refused::Malformed("first message"));
    for (header, expected) in [
        ("n,,", Ok(())),
        ("y,,", Ok(())),
        ("p=tls-exporter,,", Err(Refused::NoSuchBinding)),
        ("p=tls-unique,,", Err(Refused::NoSuchBinding)),
        ("p,,", malformed),
        ("N,,", malformed),
        ("n,a=joe,", Ok(())),
        ("n,a=ann,", Err(Refused::OtherIdentity)),
        ("n,joe,", malformed),
        ("n,a=j=oe,", Err(Refused::Malformed("user name"))),
    ] {
        let client = Client { header, ..honest("pencil") };
        assert_eq!(client.log_in(&joe), expected, "{header}");
    }
}

#[test]
fn first_messages() {
    let long = format!("n,,n=joe,r={}", "a".repeat(257));
    let name = format!("n,,n={},r=a", "a".repeat(limits::USER_NAME + 1));
    let huge = format!("n,,n=joe,r=a,x={}", "a".repeat(2048));
    let malformed = Err(Refused::Malformed("first message"));
    let too_long = TextError::TooLong { limit: limits::USER_NAME };
    for (message, expected) in [
        ("n,,n=joe,r=abc", Ok("joe")),
        ("n,,n=a=2Cb=3Dc,r=abc", Ok("a,b=c")),
        ("n,,n=\u{2168},r=abc", Ok("IX")),
        ("n,,n=joe,r=abc,x=y,z=,=", malformed),
        ("n,,n=joe,r=abc,x=y,z==", Ok("joe")),
        ("n,,m=x,n=joe,r=abc", Err(Refused::Extension)),
        ("n,,n=joe,r=", malformed),
        ("n,,n=joe,r=a b", malformed),
        ("n,,n=joe", malformed),
        ("n,,r=abc,n=joe", malformed),
        ("n,n=joe,r=abc", malformed),
        ("", malformed),
        ("n,,n=,r=abc", Err(Refused::UserName(TextError::Empty))),
        ("n,,n=a=b,r=abc", Err(Refused::Malformed("user name"))),
        ("n,,n=a\0,r=abc", Err(Refused::UserName(TextError::Prohibited))),
        (&name, Err(Refused::UserName(too_long))),
        (&long, malformed),
        (&huge, malformed),
    ] {
        let read = ClientFirst::read(message.as_bytes());
        let user = read.as_ref().map(|first| first.user().as_str());
        assert_eq!(user, expected.as_ref().copied(), "{message}");
    }
}

#[test]
fn final_messages() {
    let malformed = Refused::Malformed("final message");
    for (from, to, expected) in [
        ("r=abc", "r=abd", Refused::Malformed("nonce")),
        ("c=biws", "c=eSws", Refused::OtherChannel),
        ("c=biws", "c=bi", malformed),
        (",p=", ",x=y,p=", Refused::Denied),
        (",p=", ",xy,p=", malformed),
        (",p=", ",p=A", Refused::Malformed("proof")),
        (",p=", ",q=", malformed),
    ] {
        let client = honest("pencil");
        let challenge = client.challenge(&joe("pencil")).unwrap();
        let last = client.last(challenge.message()).0.replace(from, to);
        assert_eq!(challenge.finish(last.as_bytes()).unwrap_err(), expected, "{last}");
    }
}

/// What a client signs that appends an extension is what it sent.
#[test]
fn extensions_are_signed() {
    let client = Client { bare: "n=joe,r=abc,x=y", ..honest("pencil") };
    assert_eq!(client.log_in(&joe("pencil")), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_right_password_logs_in_and_another_does_not(password in "[ -~]{1,40}", at: usize, by: u8) {
        let candidate = joe(&password);
        prop_assert_eq!(honest(&password).log_in(&candidate), Ok(()));
        let other = changed(&password, at, by);
        prop_assert_eq!(honest(&other).log_in(&candidate), Err(Refused::Denied));
    }
}

proptest! {
    #[test]
    fn a_changed_first_message_logs_nobody_in(at: usize, by: u8) {
        let client = honest("pencil");
        let first = changed(&client.first(), at, by);
        if let Ok(first) = ClientFirst::read(first.as_bytes()) {
            let challenge = first.challenge(&joe("pencil"), &NONCE);
            let (last, _) = client.last(challenge.message());
            prop_assert!(challenge.finish(last.as_bytes()).is_err());
        }
    }

    #[test]
    fn a_changed_final_message_logs_nobody_in(at: usize, by: u8) {
        let client = honest("pencil");
        let challenge = client.challenge(&joe("pencil")).unwrap();
        let (last, _) = client.last(challenge.message());
        let last = changed(&last, at, by);
        prop_assert!(challenge.finish(last.as_bytes()).is_err());
    }

    #[test]
    fn garbage_is_an_error(
        first in prop_oneof![
            "[nyp],a?=?.{0,4},[nmr]=.{0,8},[nr]=.{0,8}(,.{0,4})?".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..64),
        ],
        last in prop_oneof![
            "c=[a-zA-Z0-9=]{0,8},r=.{0,40},p=[a-zA-Z0-9=]{0,48}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..64),
        ],
    ) {
        let _ = ClientFirst::read(&first);
        let challenge = honest("pencil").challenge(&nobody()).unwrap();
        prop_assert!(challenge.finish(&last).is_err());
    }
}

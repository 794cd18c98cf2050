//! Users that don't exist, beside those that do.

use super::{decoys, joe, nobody, password, user, verifiers};
use crate::auth::{plain, Decoys};
use crate::types::login::Method;

#[test]
fn passwords() {
    for (text, candidate, right) in [
        ("pencil", joe("pencil"), true),
        ("pencil ", joe("pencil"), false),
        ("Pencil", joe("pencil"), false),
        // Both spellings are one password (RFC 4013).
        ("\u{2168}", joe("IX"), true),
        ("pencil", joe("pencil").locked(), false),
        ("pencil", nobody(), false),
    ] {
        assert_eq!(plain::verify(&password(text), &candidate), right, "{text:?} {candidate:?}");
    }
}

#[test]
fn a_name_is_answered_the_same_each_time() {
    let salt = |candidate: &crate::auth::Candidate| candidate.wampcra.verifier.salt;
    assert_eq!(salt(&nobody()), salt(&nobody()));
    let other = decoys().candidate(&user("nobody else"), None);
    assert_ne!(salt(&nobody()), salt(&other));
    let elsewhere = Decoys::before_all([8; 32]).candidate(&user("nobody"), None);
    assert_ne!(salt(&nobody()), salt(&elsewhere));
    assert_eq!(salt(&joe("pencil")), salt(&joe("pencil").locked()));
}

#[test]
fn who_does_not_exist_has_the_methods_of_a_new_user() {
    let all = [Method::Scram, Method::WampCra, Method::Ticket];
    assert_eq!(joe("pencil").methods(), all);
    assert_eq!(joe("pencil").locked().methods(), all);
    assert_eq!(nobody().methods(), all);
    // As long as everybody's password was set before there was another method.
    let mut old = verifiers("pencil");
    (old.wampcra, old.scram_argon2id) = (None, None);
    let before = Decoys::before_all([7; 32]);
    for known in [None, Some(&old)] {
        assert_eq!(before.candidate(&user("joe"), known).methods(), [Method::Ticket]);
    }
    assert_eq!(decoys().candidate(&user("joe"), Some(&old)).methods(), [Method::Ticket]);
}

/// No two made up values are one, or one would open what the other is for.
#[test]
fn made_up_values_differ() {
    let nobody = nobody();
    let mut salts = [
        nobody.plain.verifier.salt,
        nobody.wampcra.verifier.salt,
        nobody.scram_pbkdf2.verifier.salt,
        nobody.scram_argon2id.verifier.salt,
    ];
    salts.sort_unstable();
    assert!(salts.windows(2).all(|pair| pair[0] != pair[1]));
    assert_ne!(nobody.scram_pbkdf2.verifier.keys, nobody.scram_argon2id.verifier.keys);
    assert_ne!(nobody.plain.verifier.hash, nobody.wampcra.verifier.key);
}

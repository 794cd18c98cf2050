//! What is stored of a password.

use proptest::prelude::*;

use super::{password, user, verifiers};
use crate::auth::{plain, Cost, Decoys, Salts, Verifiers};

fn salt(first: u8) -> Vec<u8> {
    (first..first + 16).collect()
}

#[test]
fn golden_bytes() {
    let verifiers = verifiers("pencil");
    let (plain, wampcra) = (verifiers.plain.as_ref().unwrap(), verifiers.wampcra.as_ref().unwrap());
    let pbkdf2 = verifiers.scram_pbkdf2.as_ref().unwrap();
    let argon2id = verifiers.scram_argon2id.as_ref().unwrap();
    let expected = [
        [vec![0], salt(0), vec![8, 1], plain.hash.0.to_vec()].concat(),
        [vec![1], salt(16), vec![251, 0, 16], wampcra.key.0.to_vec()].concat(),
        [vec![2], salt(32), salt(48)].concat(),
        [vec![3], salt(64), vec![251, 0, 16]].concat(),
        [pbkdf2.keys.stored.0, pbkdf2.keys.server.0].concat(),
        [vec![4], salt(80), vec![8, 1]].concat(),
        [argon2id.keys.stored.0, argon2id.keys.server.0].concat(),
    ];
    let bytes = verifiers.encode();
    assert_eq!(bytes, expected.concat());
    assert_eq!(Verifiers::decode(&bytes), Some(verifiers));
    assert!(Verifiers::default().encode().is_empty());
    assert_eq!(Verifiers::decode(&[]), Some(Verifiers::default()));
}

/// As it was stored when there were only passwords. It was computed by another implementation of argon2id.
#[test]
fn verifiers_of_before_are_still_read() {
    let hash: [u8; 32] = verifiers("pencil").plain.unwrap().hash.0;
    let old = [vec![0], salt(0), vec![8, 1], hash.to_vec()].concat();
    assert_eq!(old.len(), 51);
    let known = Verifiers::decode(&old).unwrap();
    assert!(!known.has_decoys());
    let decoys = Decoys::before_all([7; 32]);
    let candidate = decoys.candidate(&user("joe"), Some(&known));
    assert!(plain::verify(&password("pencil"), &candidate));
    assert!(!plain::verify(&password("Pencil"), &candidate));
}

#[test]
fn costs_beyond_the_limits_are_not_read() {
    let bytes = verifiers("pencil").encode();
    let iterations = 51 + 1 + 16 + 2;
    for (at, from, to) in [(17, 8, 7), (18, 1, 0), (18, 1, 65), (iterations, 16, 15)] {
        let mut bytes = bytes.clone();
        assert_eq!(std::mem::replace(&mut bytes[at], to), from);
        assert_eq!(Verifiers::decode(&bytes), None, "{at}");
    }
    assert_eq!(Verifiers::decode(&bytes[..bytes.len() - 1]), None);
    assert_eq!(Verifiers::decode(&[&bytes[..], &[200]].concat()), None);
}

#[test]
fn all_users_share_what_is_made_up() {
    let first = verifiers("pencil");
    let other = Salts::draw(|| 5);
    let second = Verifiers::derive(&password("x"), &other, &Cost::CHEAP, Some(&first)).unwrap();
    assert_eq!(second.decoys, first.decoys);
    let alone = Verifiers::derive(&password("x"), &other, &Cost::CHEAP, None).unwrap();
    assert_ne!(alone.decoys, first.decoys);
}

#[test]
fn secrets_are_not_printed() {
    let text = format!("{:?}", verifiers("pencil"));
    assert!(text.contains("hash: Key(..)") && text.contains("key: Key(..)"), "{text}");
    assert!(!text.contains("pencil"));
}

#[test]
fn the_largest_are_stored() {
    let all = Verifiers::derive(&password("pencil"), &Salts::draw(|| 7), &Cost::default(), None);
    let mut all = all.unwrap();
    let key = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
    let key = crate::auth::cryptosign::PublicKey::from_hex(key).unwrap();
    all.keys = vec![key; crate::types::limits::USER_KEYS];
    assert!(all.encode().len() <= crate::types::limits::USER_VERIFIER);
}

proptest! {
    #[test]
    fn garbage_is_not_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Some(verifiers) = Verifiers::decode(&bytes) {
            prop_assert_eq!(Verifiers::decode(&verifiers.encode()), Some(verifiers));
        }
    }
}

//! WAMP's `cryptosign`.

use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;

use crate::auth::cryptosign::{Challenge, Hello, PublicKey};
use crate::auth::encoding::{from_hex, hex};
use crate::auth::testing::{field, text};
use crate::auth::Refused;
use crate::types::login::Extra;
use crate::types::value::Value;

const CHANNEL: &str = "62e935ae755f3d48f80d4d59f6121358c435722a67e859cc0caa8b539027f2ff";
const KEYS: [&str; 3] = [
    "4d57d97a68f555696620a6d849c0ce582568518d729eb753dc7c732de2804510",
    "d511fe78e23934b3dadb52fcd022974b80bd92bccc7c5cf404e46cc0a8a2f5cd",
    "6e1fde9cf9e2359a87420b65a87dc0c66136e66945196ba2475990d8a0c3a25b",
];
const CHALLENGES: [&str; 3] = [
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "b26c1f87c13fc1da14997f1b5a71995dff8fbe0a62fae8473c7bdbd05bfb607d",
    "b05e6b8ad4d69abf74aa3be3c0ee40ae07d66e1895b9ab09285a2f1192d562d2",
];
/// Without and with the channel, for each key.
const SIGNATURES: [[&str; 2]; 3] = [
    [
        "b32675b221f08593213737bef8240e7c15228b07028e19595294678c90d11c0cae80a357331bfc5cc9fb71081464e6e75013517c2cf067ad566a6b7b728e5d03ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "9b6f41540c9b95b4b7b281c3042fa9c54cef43c842d62ea3fd6030fcb66e70b3e80d49d44c29d1635da9348d02ec93f3ed1ef227dfb59a07b580095c2b82f80f9d16ca518aa0c2b707f2b2a609edeca73bca8dd59817a633f35574ac6fd80d00",
    ],
    [
        "d4209ad10d5aff6bfbc009d7e924795de138a63515efc7afc6b01b7fe5201372190374886a70207b042294af5bd64ce725cd8dceb344e6d11c09d1aaaf4d660fb26c1f87c13fc1da14997f1b5a71995dff8fbe0a62fae8473c7bdbd05bfb607d",
        "305aaa3ac25e98f651427688b3fc43fe7d8a68a7ec1d7d61c61517c519bd4a427c3015599d83ca28b4c652333920223844ef0725eb5dc2febfd6af7677b73f01d0852a29b460fc92ec943242ac638a053bbacc200512b18b30d15083cbdc9282",
    ],
    [
        "7beb282184baadd08f166f16dd683b39cab53816ed81e6955def951cb2ddad1ec184e206746fd82bda075af03711d3d5658fc84a76196b0fa8d1ebc92ef9f30bb05e6b8ad4d69abf74aa3be3c0ee40ae07d66e1895b9ab09285a2f1192d562d2",
        "ee3c7644fd8070532bc1fde3d70d742267da545d8c8f03e63bda63f1ad4214f4d2c4bfdb4eb9526def42deeb7e31602a6ff99eba893e0a4ad4d45892ca75e608d2b75e24a189a7f78ca776ba36fc53f6c3e31c32f251f2c524f0a44202f2902d",
    ],
];

fn bytes(text: &str) -> [u8; 32] {
    from_hex(text).unwrap()
}

fn key(index: usize) -> SigningKey {
    SigningKey::from_bytes(&bytes(KEYS[index]))
}

fn extra(key: &SigningKey, binding: Option<&str>) -> Extra {
    Extra {
        pubkey: Some(hex(key.verifying_key().as_bytes())),
        channel_binding: binding.map(str::to_owned),
        ..Extra::default()
    }
}

fn challenge(index: usize, is_bound: bool) -> Challenge {
    let extra = extra(&key(index), is_bound.then_some("tls-exporter"));
    let hello = Hello::read(&extra, Some(&bytes(CHANNEL))).unwrap();
    hello.challenge(&bytes(CHALLENGES[index]), true)
}

/// The specification's six vectors, each against each exchange: only its own accepts it.
#[test]
fn specification() {
    for exchange in 0..6 {
        for signature in 0..6 {
            let challenge = challenge(exchange / 2, exchange % 2 == 1);
            let got = challenge.finish(SIGNATURES[signature / 2][signature % 2]);
            let expected = if exchange == signature { Ok(()) } else { Err(Refused::Denied) };
            assert_eq!(got, expected, "{exchange} {signature}");
        }
    }
}

#[test]
fn the_channel_is_used_if_there_is_one_and_the_client_asks() {
    let bound = Some("tls-exporter");
    for (binding, channel, expected) in [
        (None, None, Value::Null),
        (None, Some([3; 32]), Value::Null),
        (bound, None, Value::Null),
        (bound, Some([3; 32]), Value::Str("tls-exporter".to_owned())),
        (Some("tls-unique"), Some([3; 32]), Value::Null),
    ] {
        let hello = Hello::read(&extra(&key(0), binding), channel.as_ref()).unwrap();
        let asked = hello.challenge(&[1; 32], true).asked();
        assert_eq!(field(&asked, "channel_binding"), expected, "{binding:?} {channel:?}");
        assert_eq!(text(&asked, "challenge"), "01".repeat(32));
    }
    let none = Hello::read(&Extra::default(), None).map(|_| ());
    assert_eq!(none, Err(Refused::Malformed("public key")));
}

#[test]
fn an_unknown_key_is_refused_at_the_end() {
    let hello = Hello::read(&extra(&key(0), None), None).unwrap();
    let challenge = hello.challenge(&bytes(CHALLENGES[0]), false);
    assert_eq!(challenge.finish(SIGNATURES[0][0]), Err(Refused::Denied));
    let short = &SIGNATURES[0][0][..128];
    assert_eq!(self::challenge(0, false).finish(short), Err(Refused::Malformed("signature")));
}

#[test]
fn keys_are_stored_as_their_bytes() {
    let text = hex(key(0).verifying_key().as_bytes());
    let key = PublicKey::from_hex(&text).unwrap();
    assert_eq!(key.to_hex(), text);
    let mut verifiers = super::verifiers("pencil");
    let without = verifiers.encode();
    verifiers.keys = vec![key];
    let bytes = verifiers.encode();
    assert_eq!(bytes, [&without[..], &[5], &from_hex::<32>(&text).unwrap()].concat());
    assert_eq!(crate::auth::Verifiers::decode(&bytes), Some(verifiers));
    // The neutral element, under which anything is signed.
    let weak = [&[5, 1][..], &[0; 31]].concat();
    assert_eq!(crate::auth::Verifiers::decode(&weak), None);
}

proptest! {
    #[test]
    fn the_right_key_logs_in_and_nothing_else(
        seed: [u8; 32],
        random: [u8; 32],
        channel: [u8; 32],
        at in 0..96_usize,
        by in 1..=255_u8,
        garbage: String,
    ) {
        let key = SigningKey::from_bytes(&seed);
        let hello = Hello::read(&extra(&key, Some("tls-exporter")), Some(&channel)).unwrap();
        let challenge = hello.challenge(&random, true);
        let message: [u8; 32] = std::array::from_fn(|index| random[index] ^ channel[index]);
        let mut signed = [&key.sign(&message).to_bytes()[..], &message].concat();
        prop_assert_eq!(challenge.finish(&hex(&signed)), Ok(()));
        prop_assert_eq!(challenge.finish(&hex(&signed).to_uppercase()), Ok(()));
        signed[at] ^= by;
        prop_assert_eq!(challenge.finish(&hex(&signed)), Err(Refused::Denied));
        prop_assert!(challenge.finish(&garbage).is_err());
    }
}

//! JSON Web Tokens.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;
use serde_json::{json, Value};

use super::{changed, user};
use crate::auth::hash::hmac;
use crate::auth::jwt::{is_token, Identity, KeyError, Keys, Rules, TokenError, Tokens, KEY_FILE};
use crate::auth::TextError;
use crate::types::limits;

const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RSA_PEM: &[u8] = b"-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAofgWCuLjybRlzo0tZWJj
NiuSfb4p4fAkd/wWJcyQoTbji9k0l8W26mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEz
P1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMsD1W/YpRPEwOWvG6b32690r2jZ47soMZo
9wGzjb/7OMg0LOL+bSf63kpaSHSXndS5z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTB
EMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxX
FvUK+DWNmoudF8NAco9/h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp
oQIDAQAB
-----END PUBLIC KEY-----
";
const EC_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const EC_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const EC_PEM: &[u8] = b"-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7
6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==
-----END PUBLIC KEY-----
";
const ED_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const ED_PEM: &[u8] = b"-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
";
const SECRET: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";

/// RFC 7515 appendix A.1 to A.3: `{"iss":"joe","exp":1300819380,...}`.
const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const HS256: [&str; 2] =
    ["eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"];
const RS256: [&str; 2] = ["eyJhbGciOiJSUzI1NiJ9", "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"];
const ES256: [&str; 2] = [
    "eyJhbGciOiJFUzI1NiJ9",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
];
/// RFC 8037 appendix A.4: what is signed is no set of claims.
const EDDSA: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

const NOW: u64 = 1_700_000_000;

fn own_secret() -> [u8; 32] {
    [5; 32]
}

fn own_keys() -> Keys {
    let mut keys = Keys::default();
    keys.add_secret(&own_secret()).unwrap();
    keys
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn sign(header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let tag = hmac(&own_secret(), &[message.as_bytes()]);
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn token(claims: &Value) -> String {
    sign(&json!({"alg": "HS256", "typ": "JWT"}), claims)
}

fn tokens(rules: Rules) -> Tokens {
    Tokens::new(own_keys(), rules).unwrap()
}

fn rfc_jwks() -> Value {
    json!({"keys": [
        {"kty": "oct", "k": SECRET, "alg": "HS256"},
        {"kty": "RSA", "n": RSA_N, "e": "AQAB", "use": "sig"},
        {"kty": "EC", "crv": "P-256", "x": EC_X, "y": EC_Y, "key_ops": ["verify"]},
        {"kty": "OKP", "crv": "Ed25519", "x": ED_X, "kid": "ed"},
    ]})
}

/// Each algorithm's vector, with keys from files and from a set.
#[test]
fn specifications() {
    let mut files = Keys::default();
    files.add_secret(&URL_SAFE_NO_PAD.decode(SECRET).unwrap()).unwrap();
    files.add_pem(RSA_PEM).unwrap();
    files.add_pem(EC_PEM).unwrap();
    files.add_pem(ED_PEM).unwrap();
    let mut set = Keys::default();
    let document = rfc_jwks().to_string();
    assert_eq!(set.add_jwks(document.as_bytes()), Ok(()));
    assert!(format!("{set:?}").contains("HS256 None"), "{set:?}");
    for keys in [files, set] {
        let tokens = Tokens::new(keys, Rules { leeway: 30, ..Rules::default() }).unwrap();
        for [header, signature] in [HS256, RS256, ES256] {
            let token = format!("{header}.{CLAIMS}.{signature}");
            assert!(is_token(&token));
            // The signature is right; the claims name nobody.
            assert_eq!(tokens.verify(&token, 1_300_819_409), Err(TokenError::Claim("sub")));
            assert_eq!(tokens.verify(&token, 1_300_819_410), Err(TokenError::Expired));
            let wrong = token.replace(".eyJpc3MiOiJqb2Ui", ".eyJpc3MiOiJqb2Yi");
            assert_eq!(tokens.verify(&wrong, 0), Err(TokenError::WrongSignature));
        }
        assert_eq!(tokens.verify(EDDSA, 0), Err(TokenError::Malformed));
        assert_eq!(tokens.verify(&changed(EDDSA, 25, 0), 0), Err(TokenError::WrongSignature));
    }
}

#[test]
fn eddsa() {
    let key = SigningKey::from_bytes(&[6; 32]);
    let x = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]}).to_string();
    let mut keys = Keys::default();
    keys.add_jwks(set.as_bytes()).unwrap();
    let tokens = Tokens::new(keys, Rules::default()).unwrap();
    let message = [json!({"alg": "EdDSA"}), json!({"sub": "joe", "exp": NOW + 1})];
    let message = message.map(|part| encode(&part)).join(".");
    let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()).to_bytes());
    let identity = tokens.verify(&format!("{message}.{signature}"), NOW).unwrap();
    assert_eq!(identity.user, user("joe"));
}

#[test]
fn claims() {
    let rules = Rules {
        issuers: vec!["us".to_owned(), "them".to_owned()],
        audiences: vec!["vulpes".to_owned()],
        leeway: 30,
    };
    let right = json!({"sub": "joe", "exp": NOW, "iss": "us", "aud": "vulpes"});
    let long = "a".repeat(limits::USER_NAME + 1);
    for (name, value, expected) in [
        ("jti", json!(1), Ok(NOW + 30)),
        ("exp", json!(NOW - 29), Ok(NOW + 1)),
        ("exp", json!(1_699_999_971.9), Ok(NOW + 1)),
        ("exp", json!(NOW - 30), Err(TokenError::Expired)),
        ("exp", json!(-1), Err(TokenError::Expired)),
        ("exp", json!(u64::MAX), Ok(u64::MAX)),
        ("exp", json!("1800000000"), Err(TokenError::Claim("exp"))),
        ("exp", Value::Null, Err(TokenError::Claim("exp"))),
        ("nbf", json!(NOW + 30), Ok(NOW + 30)),
        ("nbf", json!(NOW + 31), Err(TokenError::NotYet)),
        ("nbf", json!("1"), Err(TokenError::Claim("nbf"))),
        ("iss", json!("them"), Ok(NOW + 30)),
        ("iss", json!("others"), Err(TokenError::Issuer)),
        ("iss", json!(["us"]), Err(TokenError::Claim("iss"))),
        ("aud", json!(["x", "vulpes"]), Ok(NOW + 30)),
        ("aud", json!(["x"]), Err(TokenError::Audience)),
        ("aud", json!([]), Err(TokenError::Audience)),
        ("aud", json!({"vulpes": 1}), Err(TokenError::Claim("aud"))),
        ("sub", json!(7), Err(TokenError::Claim("sub"))),
        ("sub", json!(""), Err(TokenError::UserName(TextError::Empty))),
        ("sub", json!(long), Err(TextError::TooLong { limit: limits::USER_NAME }.into())),
    ] {
        let mut claims = right.clone();
        claims[name] = value;
        let got = tokens(rules.clone()).verify(&token(&claims), NOW);
        let expected = expected.map(|expires| Identity { user: user("joe"), expires });
        assert_eq!(got, expected, "{claims}");
    }
    for (name, expected) in [
        ("exp", TokenError::Claim("exp")),
        ("iss", TokenError::Claim("iss")),
        ("aud", TokenError::Audience),
        ("sub", TokenError::Claim("sub")),
    ] {
        let mut claims = right.clone();
        claims.as_object_mut().unwrap().remove(name);
        let got = tokens(rules.clone()).verify(&token(&claims), NOW);
        assert_eq!(got, Err(expected), "{name}");
    }
    // Whoever has no name isn't meant by a token that has one.
    let meant = token(&json!({"sub": "joe", "exp": NOW + 1, "aud": "others"}));
    assert_eq!(tokens(Rules::default()).verify(&meant, NOW), Err(TokenError::Audience));
}

/// RFC 8725 section 2.1.
#[test]
fn algorithms_are_not_confused() {
    let claims = json!({"sub": "joe", "exp": NOW + 1});
    let mut keys = Keys::default();
    keys.add_pem(RSA_PEM).unwrap();
    let tokens = Tokens::new(keys.clone(), Rules::default()).unwrap();
    let message = format!("{}.{}", encode(&json!({"alg": "HS256"})), encode(&claims));
    let tag = hmac(RSA_PEM, &[message.as_bytes()]);
    let forged = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
    assert_eq!(tokens.verify(&forged, NOW), Err(TokenError::NoKey));
    let alone =
        |algorithm: &str| format!("{}.{}.", encode(&json!({"alg": algorithm})), encode(&claims));
    for (algorithm, expected) in [
        ("none", TokenError::Malformed),
        ("None", TokenError::Malformed),
        ("HS256", TokenError::NoKey),
        ("RS384", TokenError::NoKey),
        ("PS256", TokenError::NoKey),
        ("RS256", TokenError::WrongSignature),
    ] {
        assert_eq!(tokens.verify(&alone(algorithm), NOW), Err(expected), "{algorithm}");
    }
    assert_eq!(keys.add_secret(RSA_PEM), Err(KeyError::KeyAsSecret));
}

#[test]
fn headers() {
    let claims = json!({"sub": "joe", "exp": NOW + 1});
    let mut keys = Keys::default();
    let secret = |secret: [u8; 32]| URL_SAFE_NO_PAD.encode(secret);
    let set = json!({"keys": [
        {"kty": "oct", "kid": "new", "k": secret(own_secret())},
        {"kty": "oct", "kid": "old", "k": secret([6; 32])},
    ]});
    keys.add_jwks(set.to_string().as_bytes()).unwrap();
    let tokens = Tokens::new(keys, Rules::default()).unwrap();
    for (header, expected) in [
        (json!({"alg": "HS256"}), None),
        (json!({"alg": "HS256", "kid": "new"}), None),
        (json!({"alg": "HS256", "kid": "old"}), Some(TokenError::WrongSignature)),
        (json!({"alg": "HS256", "kid": "other"}), Some(TokenError::NoKey)),
        (json!({"alg": "HS256", "kid": 1}), Some(TokenError::Malformed)),
        (json!({"alg": "HS256", "crit": ["b64"], "b64": false}), Some(TokenError::Extension)),
        (json!({"alg": "HS256", "crit": []}), Some(TokenError::Extension)),
        (json!({"kid": "new"}), Some(TokenError::Malformed)),
    ] {
        assert_eq!(tokens.verify(&sign(&header, &claims), NOW).err(), expected, "{header}");
    }
    let huge = "a".repeat(8193);
    assert_eq!(tokens.verify(&huge, NOW), Err(TokenError::TooLong));
    let right = token(&claims);
    for wrong in ["", ".", "..", "...", &format!("{right}."), &format!("{right}=")] {
        assert_eq!(tokens.verify(wrong, NOW), Err(TokenError::Malformed), "{wrong}");
    }
    assert!(is_token(&right) && !is_token("eyJ.") && !is_token("a.b.c"));
}

#[test]
fn keys_that_are_refused() {
    let mut keys = Keys::default();
    assert_eq!(keys.add_secret(&[1; 31]), Err(KeyError::ShortSecret));
    let private = b"-----BEGIN PRIVATE KEY-----\nMC4CAQA=\n-----END PRIVATE KEY-----\n";
    let certificate = b"-----BEGIN CERTIFICATE-----\nMC4CAQA=\n-----END CERTIFICATE-----\n";
    let damaged = b"-----BEGIN PUBLIC KEY-----\nMC4CAQA=\n-----END PUBLIC KEY-----\n";
    // Ed448's identifier, and a modulus of eight bits.
    let other = b"-----BEGIN PUBLIC KEY-----\nMAowBQYDK2VxAwEA\n-----END PUBLIC KEY-----\n";
    let small = b"-----BEGIN PUBLIC KEY-----\nMBowDQYJKoZIhvcNAQEBBQADCQAwBgIBfwIBAw==\n-----END PUBLIC KEY-----\n";
    let two = [ED_PEM, EC_PEM].concat();
    for (pem, expected) in [
        (&private[..], KeyError::Private),
        (certificate, KeyError::NotKeys),
        (damaged, KeyError::NotKeys),
        (other, KeyError::Unsupported),
        (small, KeyError::Unsupported),
        (&two, KeyError::NotKeys),
        (b"", KeyError::NotKeys),
        (&vec![b' '; KEY_FILE + 1], KeyError::TooLarge),
    ] {
        let text = String::from_utf8_lossy(pem);
        assert_eq!(keys.add_pem(pem), Err(expected), "{:.60}", text);
    }
    for (set, expected) in [
        (json!({"keys": 1}), KeyError::NotKeys),
        (json!([]), KeyError::NotKeys),
        (
            json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": ED_X, "d": ED_X}]}),
            KeyError::Private,
        ),
        (json!({"keys": vec![&rfc_jwks()["keys"][3]; 65]}), KeyError::TooMany),
    ] {
        assert_eq!(keys.add_jwks(set.to_string().as_bytes()), Err(expected));
    }
    assert_eq!(keys.add_jwks(b"{"), Err(KeyError::NotKeys));
    assert_eq!(format!("{keys:?}"), "Keys([])", "of a refused set nothing is added");
    assert_eq!(Tokens::new(keys, Rules::default()).map(|_| ()), Err(KeyError::None));
    let slow = Rules { leeway: 601, ..Rules::default() };
    assert_eq!(Tokens::new(own_keys(), slow).map(|_| ()), Err(KeyError::Leeway(601)));
}

#[test]
fn keys_of_a_set_that_are_ignored() {
    let mut keys = own_keys();
    let set = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "x": EC_X, "y": EC_Y, "use": "enc"},
        {"kty": "EC", "crv": "P-256", "x": EC_X, "y": EC_Y, "key_ops": ["sign"]},
        {"kty": "EC", "crv": "P-256", "x": EC_X, "y": "AA"},
        {"kty": "EC", "crv": "P-384", "x": EC_X, "y": EC_Y},
        {"kty": "RSA", "n": RSA_N, "e": "AQAB", "alg": "PS256"},
        {"kty": "RSA", "n": "fw", "e": "AQAB"},
        {"kty": "RSA", "n": RSA_N},
        {"kty": "OKP", "crv": "Ed25519", "x": "AQ"},
        {"kty": "oct", "k": "AQ"},
        {"kty": "new"},
        {},
        7,
        {"kty": "OKP", "crv": "Ed25519", "x": ED_X, "alg": "EdDSA"},
    ]});
    assert_eq!(keys.add_jwks(set.to_string().as_bytes()), Ok(()));
    assert_eq!(format!("{keys:?}"), "Keys([TokenKey(HS256 None), TokenKey(EdDSA None)])");
}

proptest! {
    #[test]
    fn the_right_token_is_accepted_and_a_changed_one_is_not(name in "[a-z]{1,20}", at: usize, by: u8) {
        let token = token(&json!({"sub": name, "exp": NOW + 1}));
        let tokens = tokens(Rules::default());
        prop_assert_eq!(tokens.verify(&token, NOW).unwrap().user, user(&name));
        prop_assert!(tokens.verify(&changed(&token, at, by), NOW).is_err());
    }

    #[test]
    fn garbage_is_an_error(
        text: String,
        claims in "\\{\"(exp|sub|aud|nbf)\":[0-9a-z\"\\[\\]{}.e-]{0,12}\\}",
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let tokens = tokens(Rules::default());
        prop_assert!(tokens.verify(&text, NOW).is_err());
        let message = format!("{}.{}", encode(&json!({"alg": "HS256"})), URL_SAFE_NO_PAD.encode(claims));
        let tag = URL_SAFE_NO_PAD.encode(hmac(&own_secret(), &[message.as_bytes()]));
        let token = [message, tag].join(".");
        prop_assert!(tokens.verify(&token, NOW).is_err());
        let _ = Keys::default().add_jwks(text.as_bytes());
        let _ = Keys::default().add_pem(&bytes);
        let der = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n");
        prop_assert!(Keys::default().add_pem(pem.as_bytes()).is_err());
    }

    #[test]
    fn a_damaged_key_file_is_an_error_or_another_key(at: usize, by: u8, cut in 0..400_usize) {
        let pem = String::from_utf8(RSA_PEM.to_vec()).unwrap();
        let _ = Keys::default().add_pem(&pem.as_bytes()[..cut]);
        let _ = Keys::default().add_pem(changed(&pem.replace('\n', " "), at, by).as_bytes());
        let set = changed(&rfc_jwks().to_string(), at, by);
        let _ = Keys::default().add_jwks(set.as_bytes());
    }
}

//! Parsers and state machines: each input is given to one as a connection would give it.
//!
//! Deliberately absent: what the answers are. A core that neither panics nor grows is right here.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{json, Value};
use tokio::io::AsyncWriteExt;
use vulpes::auth::cryptosign;
use vulpes::auth::jwt::{self, Keys, Rules, Tokens};
use vulpes::auth::scram;
use vulpes::auth::{wampcra, Candidate, Cost, Decoys, Exporter, Password, Salts, UserName};
use vulpes::auth::{Verifiers, NONCE};
use vulpes::config::hosts::Hosts;
use vulpes::config::origins::Origins;
use vulpes::gate::mqtt::{MqttConfig, MqttGate};
use vulpes::gate::wamp::{Serializer, WampGate};
use vulpes::gate::{EndReason, Gate, MergingRealms, OpenRefusal, Request};
use vulpes::types::access::{Identity, LoginRefusal};
use vulpes::types::event::SessionId;
use vulpes::types::login::{Challenge, Extra, LoginReply, Method};
use vulpes::types::moment::Moment;
use vulpes::types::topic::Realm;
use vulpes_jepsen::dice::Dice;
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_raft::ids::{DiskId, NodeId};
use vulpes_raft::net::wire;

use crate::harness::{fuzz, Target};
use crate::mutate::Input;

/// Unix seconds.
const NOW: u64 = 1_700_000_000;

/// What becomes of a login, and of the session that is to be opened.
fn reply(dice: &mut Dice) -> Result<LoginReply, LoginRefusal> {
    match dice.below(5) {
        0 => Err(LoginRefusal::Wrong),
        1 => Err(LoginRefusal::Misused("it is not as specified".into())),
        2 => Ok(LoginReply::Data("r=abc,s=QQ==,i=4096".into())),
        3 => {
            let method = *dice.pick(&Method::ALL);
            Ok(LoginReply::Challenge(Challenge { method, extra: Vec::new() }))
        }
        _ => {
            let (user, role) = ("joe".to_owned(), "user".to_owned());
            let method = dice.pick(&Method::ALL).name();
            let identity = Identity { user, role, method, provider: "users", expires: None };
            Ok(LoginReply::Accepted { identity, proof: dice.chance(0.5).then(|| "v=x".into()) })
        }
    }
}

/// Gives a gate what is read, until its session is open. Its node answers as it should: a challenge only to who has asked for one.
fn drive(gate: &mut impl Gate, input: &Input, dice: &mut Dice) {
    for (at, part) in (1..).zip(input) {
        gate.receive(Bytes::copy_from_slice(part), Moment(at));
        while let Some(request) = gate.poll_request() {
            match request {
                Request::Login(_) => gate.logged_in(reply(dice)),
                Request::Open { .. } | Request::Attach { .. } if dice.chance(0.7) => return,
                Request::Open { .. } | Request::Attach { .. } => {
                    gate.opened(Err(OpenRefusal::LoginNeeded));
                }
                Request::Close { .. } => return,
                _ => {}
            }
        }
        while gate.poll_output().is_some() {}
        if dice.chance(0.05) {
            gate.end(EndReason::HandshakeTimeout);
        }
    }
}

/// A CONNECT: its protocol, flags and properties, and its fields.
fn connect(level: u8, flags: u8, properties: &[u8], fields: &[&str]) -> Vec<u8> {
    let mut body = string(if level == 3 { "MQIsdp" } else { "MQTT" });
    body.extend([level, flags, 0, 60]);
    if level == 5 {
        body.push(properties.len() as u8);
        body.extend(properties);
    }
    for (at, field) in fields.iter().enumerate() {
        if level == 5 && flags & 4 != 0 && at == 1 {
            body.push(0);
        }
        body.extend(string(field));
    }
    packet(0x10, &body)
}

#[test]
fn mqtt_before_login() {
    let method = [&[0x15][..], &string("SCRAM-SHA-256"), &[0x16], &string("n,,n=joe,r=abc")];
    let method = method.concat();
    let more = [0x11, 0, 0, 0, 9, 0x21, 0, 9, 0x27, 0, 1, 0, 0, 0x22, 0, 5, 0x19, 1, 0x17, 0];
    let own = [&[0x26][..], &string("vulpes-x"), &string("1")].concat();
    let last = [&[0x15][..], &string("SCRAM-SHA-256"), &[0x16], &string("c=biws,r=abc,p=QQ==")];
    let last = last.concat();
    let auth = packet(0xf0, &[&[0x18, last.len() as u8][..], &last].concat());
    let target = Target {
        name: "mqtt_before_login",
        seeds: vec![
            vec![connect(4, 2, &[], &["client"]), packet(0xc0, &[])],
            vec![connect(4, 0xc6, &[], &["client", "will/topic", "gone", "joe", "pencil"])],
            vec![connect(3, 0xc2, &[], &["client", "joe@realm1", "pencil"])],
            vec![connect(5, 0xc2, &more, &["client", "joe", "pencil"]), packet(0xe0, &[0])],
            vec![connect(5, 0xc6, &own, &["client", "will/topic", "gone", "joe", "pencil"])],
            vec![connect(5, 2, &method, &["client"]), auth.clone(), auth],
        ],
        words: vec![b"MQTT", b"MQIsdp", b"\x26\0\x01a\0\x01b", b"\xff\xff\xff\x7f", b"\x80\x80"],
    };
    let realm = Realm::new("realm1").unwrap();
    let config = Arc::new(MqttConfig {
        default_realm: realm.clone(),
        realms: Arc::new([realm].into()),
        merging: MergingRealms::default(),
    });
    fuzz(target, 8, |input, dice| {
        let mut gate = MqttGate::new(config.clone(), SessionId(7), Moment(0))
            .with_users(dice.chance(0.8))
            .with_certificate(dice.chance(0.2));
        drive(&mut gate, input, dice);
    });
}

/// Messages in a serializer.
fn written(serializer: Serializer, messages: &[Value]) -> Input {
    let write = |message: &Value| match serializer {
        Serializer::Json => message.to_string().into_bytes(),
        Serializer::MsgPack => rmp_serde::to_vec(message).expect("a value can be written"),
        Serializer::Cbor => {
            let mut bytes = Vec::new();
            ciborium::into_writer(message, &mut bytes).expect("a value can be written");
            bytes
        }
    };
    messages.iter().map(write).collect()
}

fn wamp(name: &'static str, serializer: Serializer, words: Vec<&'static [u8]>) {
    let roles = json!({"publisher": {"features": {"x": true}}, "subscriber": {}});
    let hello = |more: Value| {
        let mut details = json!({"roles": roles, "agent": "a"});
        let (details_map, more) = (details.as_object_mut(), more.as_object());
        details_map.expect("it is one").extend(more.expect("it is one").clone());
        json!([1, "realm1", details])
    };
    let authenticate = json!([5, "c2lnbmF0dXJl", {"nonce": "QQ==", "channel_binding": null}]);
    let extra = json!({"nonce": "QUFBQUFBQUE=", "pubkey": "aa", "channel_binding": "tls-exporter"});
    let methods = ["tls", "cryptosign", "wamp-scram", "wampcra", "ticket", "anonymous"];
    let login = hello(json!({"authmethods": methods, "authid": "joe", "authextra": extra}));
    let target = Target {
        name,
        seeds: vec![
            written(serializer, &[hello(json!({})), json!([6, {}, "wamp.close.normal"])]),
            written(serializer, &[login, authenticate.clone(), authenticate]),
            written(serializer, &[json!([3, {"message": "x"}, "wamp.error.x"])]),
        ],
        words,
    };
    // What is nested too deep is skipped with a stack on the heap, which has 32 bytes for each of its bytes and doubles, up to
    // a depth of 65,536.
    fuzz(target, 128, |input, dice| {
        let mut gate =
            WampGate::new(serializer, SessionId(7), Moment(0)).with_users(dice.chance(0.8));
        drive(&mut gate, input, dice);
    });
}

#[test]
fn wamp_json_before_login() {
    let words: Vec<&[u8]> =
        vec![b"[", b"{\"a\":", b"\"\\ud800\"", b"1e999", b"\\u0000", b",", b"null", b"\"authid\":"];
    wamp("wamp_json_before_login", Serializer::Json, words);
}

#[test]
fn wamp_msgpack_before_login() {
    let words: Vec<&[u8]> =
        vec![b"\x91", b"\x81", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6", b"\xc1"];
    wamp("wamp_msgpack_before_login", Serializer::MsgPack, words);
}

#[test]
fn wamp_cbor_before_login() {
    let words: Vec<&[u8]> = vec![
        b"\x81",
        b"\xa1",
        b"\x9f",
        b"\xbf",
        b"\xff",
        b"\xc1",
        b"\x9b\xff\xff\xff\xff",
        b"\x7f",
    ];
    wamp("wamp_cbor_before_login", Serializer::Cbor, words);
}

/// The verifiers of a user, or of none.
fn candidate(name: &str, dice: &mut Dice, known: &Verifiers) -> (UserName, Candidate) {
    let user = UserName::new(name).unwrap_or_else(|_| UserName::new("joe").expect("a name"));
    let decoys = Decoys::of(known).expect("they have the secret");
    let candidate = decoys.candidate(&user, dice.chance(0.5).then_some(known));
    (user, candidate)
}

fn verifiers() -> Verifiers {
    let password = Password::new(b"pencil").expect("a password");
    let made = Verifiers::derive(&password, &Salts::draw(|| 7), &Cost::CHEAP, None);
    made.expect("there is memory")
}

#[test]
fn scram_messages() {
    let parts = |text: &[&str]| text.iter().map(|part| part.as_bytes().to_vec()).collect();
    let target = Target {
        name: "scram_messages",
        seeds: vec![
            parts(&["n,,n=joe,r=rOprNGfwEbeRWgbNEkqO", "c=biws,r=rOprNGfwEbeRWgbNEkqOQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJC,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="]),
            parts(&["y,a=j=2Coe,n=j=2Coe,r=abc,x=y", "c=eSws,r=abcQkJC,p=QQ==,v=x"]),
            parts(&["p=tls-exporter,,n=j\u{f6}e,r=abc", "c=QQ==,r=abc,p=QQ=="]),
        ],
        words: vec![b",", b"=2C", b"=3D", b"n=", b"r=", b"m=", b"c=", b"p=", b"=", b"\xc2\xad"],
    };
    let known = verifiers();
    fuzz(target, 16, |input, dice| {
        let Some(first) = input.first().and_then(|data| scram::text::ClientFirst::read(data).ok())
        else {
            return;
        };
        let (_, candidate) = candidate(first.user().as_str(), dice, &known);
        let waiting = first.challenge(&candidate, &[0x42; NONCE]);
        assert!(waiting.message().starts_with("r="));
        for last in &input[1..] {
            assert!(waiting.finish(last).is_err(), "nobody knows the password");
        }
    });
}

/// The parts of an input as the fields of WAMP's messages.
fn extra(input: &Input) -> (String, Extra, String) {
    let mut fields = input.iter().map(|part| String::from_utf8_lossy(part).into_owned());
    let name = fields.next().unwrap_or_default();
    let extra = Extra {
        nonce: fields.next(),
        pubkey: fields.next(),
        channel_binding: fields.next(),
        cbind_data: fields.next(),
        kdf: fields.next(),
    };
    (name, extra, fields.next().unwrap_or_default())
}

#[test]
fn wamp_challenges() {
    let key = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
    let parts = |text: [&str; 7]| text.iter().map(|part| part.as_bytes().to_vec()).collect();
    let target = Target {
        name: "wamp_challenges",
        seeds: vec![
            parts(["joe", "QUFBQUFBQUE=", key, "", "", "", &"ab".repeat(96)]),
            parts(["joe", "QUFBQUFBQUE=", key, "tls-exporter", "QQ==", "pbkdf2", "QQ=="]),
        ],
        words: vec![b"tls-exporter", b"pbkdf2", b"argon2id13", b"=", b",", b"==", b"\xc2\xad"],
    };
    let known = verifiers();
    let channel: Exporter = [9; 32];
    fuzz(target, 32, |input, dice| {
        let (name, extra, signature) = extra(input);
        let (user, candidate) = candidate(&name, dice, &known);
        let channel = dice.chance(0.5).then_some(&channel);
        if let Ok(hello) = scram::wamp::Hello::read(&name, &extra, channel) {
            let challenge = hello.challenge(&candidate, &[0x42; NONCE]);
            let _ = challenge.asked();
            assert!(challenge.finish(&signature, &extra).is_err(), "nobody knows the password");
        }
        if let Ok(hello) = cryptosign::Hello::read(&extra, channel) {
            assert_eq!(cryptosign::PublicKey::from_hex(&hello.key().to_hex()), Ok(hello.key()));
            let challenge = hello.challenge(&[0x42; 32], dice.chance(0.5));
            let _ = challenge.asked();
            assert!(challenge.finish(&signature).is_err(), "nobody has the key");
        }
        let session = wampcra::Session { user: &user, provider: "users", id: 7, now: dice.throw() };
        let challenge = wampcra::Challenge::new(&session, &candidate, &[0x42; NONCE]);
        let _ = challenge.asked();
        assert!(challenge.finish(&signature).is_err(), "nobody knows the password");
    });
}

const JWKS: &str = r#"{"keys":[
{"kty":"RSA","e":"AQAB","use":"sig","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"},
{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// RFC 7515 appendix A.1 to A.3, RFC 8037 appendix A.4.
const TOKENS: [&str; 4] = [
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
];

#[test]
fn json_web_tokens() {
    use base64::prelude::{Engine, BASE64_URL_SAFE_NO_PAD as BASE64};
    let decoded = |token: &str| -> Input {
        token.split('.').map(|part| BASE64.decode(part).unwrap()).collect()
    };
    let mut seeds: Vec<Input> = TOKENS.iter().map(|token| decoded(token)).collect();
    seeds.push(vec![
        br#"{"alg":"HS256","kid":"ed","crit":["x"]}"#.to_vec(),
        br#"{"sub":"joe","exp":1700000100,"nbf":1,"aud":["a","b"],"iss":"https://id.example"}"#
            .to_vec(),
        vec![7; 32],
    ]);
    let words: Vec<&[u8]> = vec![
        b"\"alg\":\"none\"",
        b"\"HS256\"",
        b"\"EdDSA\"",
        b"\"kid\":",
        b"\"exp\":",
        b"\"sub\":",
        b"1e400",
        b"-1",
        b"null",
        b"[",
        b"{",
        b"\"jwk\":{}",
        b"\"x5c\":[\"\"]",
        b".",
    ];
    let target = Target { name: "json_web_tokens", seeds, words };
    let mut keys = Keys::default();
    keys.add_secret(&[5; 64]).unwrap();
    keys.add_jwks(JWKS.as_bytes()).unwrap();
    let rules = Rules { issuers: vec!["https://id.example".into()], ..Rules::default() };
    let tokens = [Tokens::new(keys.clone(), rules), Tokens::new(keys, Rules::default())];
    let tokens = tokens.map(Result::unwrap);
    fuzz(target, 64, |input, dice| {
        // Changed before or after it is encoded.
        let parts = input.iter().map(|part| match dice.chance(0.9) {
            true => BASE64.encode(part),
            false => String::from_utf8_lossy(part).into_owned(),
        });
        let token = parts.collect::<Vec<_>>().join(".");
        let _ = jwt::is_token(&token);
        for tokens in &tokens {
            assert!(tokens.verify(&token, NOW).is_err(), "nobody has a key: {token}");
        }
    });
}

#[test]
fn names_passwords_hosts_and_origins() {
    let target = Target {
        name: "names_passwords_hosts_and_origins",
        seeds: [
            "joe",
            "j\u{f6}e@realm1",
            "localhost:9081",
            "[::1]:9081",
            "https://app.example:8443",
            "null",
        ]
        .map(|text| vec![text.as_bytes().to_vec()])
        .to_vec(),
        words: vec![
            b":",
            b"[",
            b"]",
            b"@",
            b"://",
            b".",
            b"\xc2\xad",
            b"\xd7\x90",
            b"\xe2\x80\x8f",
        ],
    };
    let (hosts, origins) = (Hosts::default(), Origins::default());
    fuzz(target, 64, |input, _| {
        for part in input {
            let _ = Password::new(part);
            let text = String::from_utf8_lossy(part);
            if let Ok(name) = UserName::new(&text) {
                assert_eq!(UserName::new(name.as_str()).as_ref(), Ok(&name), "it is prepared");
            }
            let _ = (hosts.allow(&text), origins.allows(&text));
        }
    });
}

#[test]
fn hello_of_the_node_port() {
    let identity = wire::Identity { cluster: "test".into(), node: NodeId(1), disk: DiskId(7) };
    let hello = |service: u32, refusal: Option<&str>| {
        let body = wire::encode(&(*b"VULP", wire::PROTOCOL_VERSION, &identity, service, refusal));
        vec![[&(body.len() as u32).to_be_bytes()[..], &body].concat()]
    };
    let target = Target {
        name: "hello_of_the_node_port",
        seeds: vec![
            hello(0, None),
            hello(3, Some("no")),
            hello(4, None),
            // A name that claims to be longer than a hello can be.
            vec![b"\0\0\0\x10\xfb\xff\xff\x56\x55\xfc\x04te\0\0\0\xffest\x01\x07".to_vec()],
        ],
        words: vec![b"VULP", b"\0\0\0\xff", b"\0\0\x04\0", b"\xfc", b"\xfd", b"\xfb\xff\xff"],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // Twice the pipe that it comes through.
    fuzz(target, 32, |input, _| {
        runtime.block_on(async {
            let (ours, mut theirs) = tokio::io::duplex(4 << 10);
            let say = async {
                for part in input {
                    // The node may have hung up.
                    if theirs.write_all(part).await.is_err() {
                        return;
                    }
                }
                let _ = theirs.shutdown().await;
            };
            let hear = async {
                let welcomed = wire::welcome(Box::new(ours), &identity, |_, _| Ok(())).await;
                drop(welcomed);
            };
            tokio::join!(say, hear);
        });
    });
}

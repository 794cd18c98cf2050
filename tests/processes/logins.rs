//! Logins without a password that travels: SCRAM over both protocols, from the client's side, and tokens.
//!
//! Deliberately absent: `wampcra` and the methods that stock clients have (`stock`), and wrong messages (the gates' own tests).

use anyhow::{ensure, Context, Result};
use base64::prelude::{Engine, BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use vulpes_jepsen::cluster::REALM;
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::{Cluster, Node};
use vulpes_raft::host::Host;

use crate::raw::{frame, Raw};
use crate::users::{self, add_ann, file, settled, user, Who};

const METHOD: &str = "SCRAM-SHA-256";

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// A client's proof and the signature that it expects, in base64 (RFC 5802 section 3).
fn prove(password: &str, salt: &str, iterations: u32, conversation: &str) -> Result<[String; 2]> {
    let salt = BASE64_STANDARD.decode(salt)?;
    let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), &salt, iterations);
    let client = hmac(&salted, b"Client Key");
    let signature = hmac(&Sha256::digest(&client), conversation.as_bytes());
    let proof: Vec<u8> = client.iter().zip(signature).map(|(byte, other)| byte ^ other).collect();
    let signature = hmac(&hmac(&salted, b"Server Key"), conversation.as_bytes());
    Ok([proof, signature].map(|bytes| BASE64_STANDARD.encode(bytes)))
}

/// The last message of SCRAM, and the one that should answer it.
fn last(bare: &str, password: &str, challenge: &str) -> Result<(String, String)> {
    let mut fields = challenge.split(',').map(|field| field.get(2..).unwrap_or_default());
    let mut field = || fields.next().context("a field is missing");
    let (nonce, salt, iterations) = (field()?, field()?, field()?.parse()?);
    let said = format!("c=biws,r={nonce}");
    let conversation = format!("{bare},{challenge},{said}");
    let [proof, signature] = prove(password, salt, iterations, &conversation)?;
    Ok((format!("{said},p={proof}"), format!("v={signature}")))
}

/// The properties that say how a client logs in.
fn properties(data: &str) -> Vec<u8> {
    let fields = [vec![0x15], string(METHOD), vec![0x16], string(data)].concat();
    [vec![fields.len() as u8], fields].concat()
}

/// The text of one of these properties.
fn property(body: &[u8], id: u8) -> Option<String> {
    let method = string(METHOD);
    let at = body.windows(method.len()).position(|window| window == method)? + method.len();
    let data = body.get(at..).filter(|rest| rest.first() == Some(&id))?;
    let length = usize::from(u16::from_be_bytes([*data.get(1)?, *data.get(2)?]));
    String::from_utf8(data.get(3..3 + length)?.to_vec()).ok()
}

/// The rest of an exchange whose first message was sent, up to the packet that ends it: its first byte, and its code.
async fn finish(raw: &mut Raw, name: &str, password: &str) -> Result<(u8, u8)> {
    let (first, body) = within("an AUTH", PATIENCE, raw.packet()).await?;
    ensure!((first, body[0]) == (0xf0, 0x18), "{first:02x} {body:02x?}");
    let challenge = property(&body, 0x16).context("no challenge")?;
    let (last, expected) = last(&format!("n={name},r=abc"), password, &challenge)?;
    raw.send(&packet(0xf0, &[vec![0x18], properties(&last)].concat())).await?;
    let (first, body) = within("an answer", PATIENCE, raw.packet()).await?;
    let code = if first == 0x20 { body[1] } else { body[0] };
    ensure!(code != 0 || property(&body, 0x16) == Some(expected), "{body:02x?}");
    Ok((first, code))
}

/// Logs in to MQTT by SCRAM.
async fn mqtt(node: &Node, name: &str, password: &str) -> Result<(Raw, u8)> {
    let mut raw = Raw::open(node.mqtt()).await?;
    let first = properties(&format!("n,,n={name},r=abc"));
    let body = [string("MQTT"), vec![5, 2, 0, 0], first, string("")].concat();
    raw.send(&packet(0x10, &body)).await?;
    let (first, code) = finish(&mut raw, name, password).await?;
    ensure!(first == 0x20, "{first:02x}");
    Ok((raw, code))
}

/// Logs in to WAMP by SCRAM: the answer to AUTHENTICATE.
async fn wamp(node: &Node, name: &str, password: &str) -> Result<Value> {
    let nonce = "egVDf3DMJh0=";
    let details = json!({
        "roles": {"subscriber": {}}, "authmethods": ["ticket", "wamp-scram"], "authid": name,
        "authextra": {"nonce": nonce, "channel_binding": null, "kdf": "pbkdf2"},
    });
    let mut raw = Raw::websocket(node.wamp()).await?;
    raw.send(&frame(&json!([1, REALM, details]).to_string())).await?;
    let challenge = within("a CHALLENGE", PATIENCE, raw.message()).await?;
    ensure!(challenge[0] == 4 && challenge[1] == "wamp-scram", "{challenge}");
    let extra = &challenge[2];
    let text = |name: &str| extra[name].as_str().context("a field is missing");
    let (whole, salt) = (text("nonce")?, text("salt")?);
    ensure!(extra["kdf"] == "pbkdf2" && whole.starts_with(nonce), "{challenge}");
    let iterations = extra["iterations"].as_u64().context("no iterations")? as u32;
    let conversation =
        format!("n={name},r={nonce},r={whole},s={salt},i={iterations},c=biws,r={whole}");
    let [proof, signature] = prove(password, salt, iterations, &conversation)?;
    let extra = json!({"nonce": whole, "channel_binding": null, "cbind_data": null});
    raw.send(&frame(&json!([5, proof, extra]).to_string())).await?;
    let answer = within("an answer", PATIENCE, raw.message()).await?;
    let known = answer[2]["authextra"]["verifier"] == signature.as_str();
    ensure!(answer[0] != 2 || known, "{answer}");
    Ok(answer)
}

async fn cluster() -> Result<Cluster> {
    let cluster = crate::cluster().nodes(3).start().await?;
    add_ann(&cluster, 1, "").await?;
    let line = format!("add joe --new-password-file {}", file(&cluster, "geheim")?);
    user(&cluster, 2, Some(("ann", "pencil")), &line).await?;
    settled(&cluster).await?;
    Ok(cluster)
}

#[tokio::test]
async fn clients_prove_that_they_know_the_password() -> Result<()> {
    let cluster = cluster().await?;
    for node in 1..=3 {
        let node = cluster.node(node);
        for (name, password, right) in [
            ("ann", "pencil", true),
            ("joe", "geheim", true),
            ("joe", "x", false),
            ("x", "x", false),
        ] {
            let (_, code) = mqtt(node, name, password).await?;
            ensure!(code == if right { 0 } else { 0x86 }, "{name} {password}: {code:02x}");
            let answer = wamp(node, name, password).await?;
            match right {
                true => ensure!(
                    answer[2]["authid"] == name && answer[2]["authmethod"] == "wamp-scram",
                    "{answer}"
                ),
                false => ensure!(answer[2] == "wamp.error.authentication_failed", "{answer}"),
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_open_mqtt_session_can_log_in_again() -> Result<()> {
    let cluster = cluster().await?;
    let again = |name: &str| {
        let first = properties(&format!("n,,n={name},r=abc"));
        packet(0xf0, &[vec![0x19], first].concat())
    };
    let (mut raw, code) = mqtt(cluster.node(3), "joe", "geheim").await?;
    ensure!(code == 0, "{code:02x}");
    for _ in 0..2 {
        raw.send(&again("joe")).await?;
        ensure!(finish(&mut raw, "joe", "geheim").await? == (0xf0, 0));
    }
    // A new password does not end a session, but makes it fail to log in again.
    let line = format!("passwd joe --new-password-file {}", file(&cluster, "other")?);
    user(&cluster, 3, Some(("ann", "pencil")), &line).await?;
    raw.send(&again("joe")).await?;
    ensure!(finish(&mut raw, "joe", "geheim").await? == (0xe0, 0x87));
    // And nobody becomes another user.
    let (mut raw, _) = mqtt(cluster.node(3), "joe", "other").await?;
    raw.send(&again("ann")).await?;
    ensure!(finish(&mut raw, "ann", "pencil").await? == (0xe0, 0x87));
    Ok(())
}

/// A token that expires after some seconds.
fn token(secret: &[u8], user: &str, seconds: u64) -> Result<String> {
    let now = Host::real().clock.now().0 / 1000;
    let parts = [json!({"alg": "HS256"}), json!({"sub": user, "exp": now + seconds})];
    let message = parts.map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let tag = BASE64_URL_SAFE_NO_PAD.encode(hmac(secret, message.as_bytes()));
    Ok(format!("{message}.{tag}"))
}

/// The answers of a node to this login by each protocol: MQTT 5's code, WAMP's URI.
async fn answers(node: &Node, who: Who<'_>) -> Result<(u8, Option<String>)> {
    Ok((users::mqtt(node.mqtt(), 5, who).await?.1, users::wamp(node.wamp(), who).await?.1))
}

#[tokio::test]
async fn tokens_are_passwords_until_they_expire() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("secret");
    let (first, second) = ([b'a'; 32], [b'b'; 32]);
    std::fs::write(&path, first)?;
    let settings = format!("[jwt]\nsecret = \"{}\"\nleeway_seconds = 0\n", path.display());
    let cluster = crate::cluster().nodes(3).settings(&settings).start().await?;
    add_ann(&cluster, 1, "").await?;
    user(&cluster, 2, Some(("ann", "pencil")), "add joe --no-password").await?;
    settled(&cluster).await?;
    let failed = || Some("wamp.error.authentication_failed".to_owned());
    let long = token(&first, "joe", 600)?;
    let other = token(&second, "joe", 600)?;
    for node in 1..=3 {
        let node = cluster.node(node);
        ensure!(answers(node, Some(("joe", &long))).await? == (0, None));
        ensure!(answers(node, Some(("ann", &long))).await? == (0x86, failed()));
        ensure!(answers(node, Some(("joe", &other))).await? == (0x86, failed()));
    }
    let node = cluster.node(2);
    let short = token(&first, "joe", 4)?;
    let (mut mqtt, code) = users::mqtt(node.mqtt(), 5, Some(("joe", &short))).await?;
    let (mut wamp, uri) = users::wamp(node.wamp(), Some(("joe", &short))).await?;
    ensure!((code, &uri) == (0, &None), "{code:02x} {uri:?}");
    let (first_byte, body) = within("MQTT is closed", PATIENCE, mqtt.packet()).await?;
    ensure!((first_byte, body[0]) == (0xe0, 0x87), "{first_byte:02x} {body:02x?}");
    let goodbye = within("WAMP is closed", PATIENCE, wamp.message()).await?;
    ensure!(goodbye[0] == 6 && goodbye[2] == "wamp.close.killed", "{goodbye}");
    ensure!(answers(node, Some(("joe", &short))).await? == (0x86, failed()));
    // Other keys count soon after they are there.
    std::fs::write(&path, second)?;
    until("the new key counts", PATIENCE, || async {
        ensure!(answers(node, Some(("joe", &other))).await? == (0, None));
        Ok(())
    })
    .await?;
    ensure!(answers(node, Some(("joe", &long))).await? == (0x86, failed()));
    Ok(())
}

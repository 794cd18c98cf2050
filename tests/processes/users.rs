//! Users: who may connect and administer, at every node, from a change on.
//!
//! Invariant: a change holds at all nodes as soon as the command is done, or a moment later where its node is not the one that was
//! asked; and it still does after all nodes were killed.
//!
//! Deliberately absent: every way in which a login can be wrong, which the gates' own tests have.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use base64::prelude::{Engine, BASE64_STANDARD};
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use vulpes_jepsen::cluster::REALM;
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;

use crate::raw::{frame, Raw};

/// A user's name and password.
pub(crate) type Who<'a> = Option<(&'a str, &'a str)>;

pub(crate) const ANN: Who<'static> = Some(("ann", "pencil"));
pub(crate) const JOE: Who<'static> = Some(("joe", "geheim"));

/// How long a change may take to be seen at another node. It is a moment, on a machine that does nothing else.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// MQTT's refusals: those of 3.1.1, and those of 5.
const MQTT_NOBODY: (u8, u8) = (5, 0x87);
const MQTT_WRONG: (u8, u8) = (4, 0x86);

/// Runs `vulpes user` at a node, as somebody.
async fn run(cluster: &Cluster, node: u64, who: Who<'_>, line: &str) -> Result<Output> {
    let words: Vec<&str> = ["user"].into_iter().chain(line.split(' ')).collect();
    vulpes(cluster, node, who, &words).await
}

/// Runs a command that asks a node's admin port, as somebody.
pub(crate) async fn vulpes(
    cluster: &Cluster,
    node: u64,
    who: Who<'_>,
    words: &[&str],
) -> Result<Output> {
    let admin = format!("http://{}", cluster.node(node).admin());
    let mut command = Command::new(env!("CARGO_BIN_EXE_vulpes"));
    command.args(words).args(["--node-admin", &admin]);
    command.env_remove("VULPES_USER").env_remove("VULPES_PASSWORD").stdin(Stdio::null());
    if let Some((user, password)) = who {
        command.env("VULPES_USER", user).env("VULPES_PASSWORD", password);
    }
    command.kill_on_drop(true);
    within(&words.join(" "), PATIENCE, async { Ok(command.output().await?) }).await
}

/// The same; it has to succeed.
pub(crate) async fn user(cluster: &Cluster, node: u64, who: Who<'_>, line: &str) -> Result<String> {
    let output = run(cluster, node, who, line).await?;
    ensure!(output.status.success(), "{line}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The same; it has to fail, and to say this.
async fn refused(cluster: &Cluster, node: u64, who: Who<'_>, line: &str, why: &str) -> Result<()> {
    let output = run(cluster, node, who, line).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && said.contains(why), "{line}: {output:?}");
    Ok(())
}

/// A file with a password.
pub(crate) fn file(cluster: &Cluster, password: &str) -> Result<String> {
    let path: PathBuf = cluster.folder().join(format!("{password}.txt"));
    std::fs::write(&path, format!("{password}\n"))?;
    Ok(path.display().to_string())
}

/// Adds `ann` as the first user, with what else is on the line.
pub(crate) async fn add_ann(cluster: &Cluster, node: u64, more: &str) -> Result<()> {
    let line = format!("add ann --new-password-file {}{more}", file(cluster, "pencil")?);
    user(cluster, node, None, &line).await?;
    settled(cluster).await
}

/// Waits until all nodes know the same users: those that were not asked for a change follow a moment later.
pub(crate) async fn settled(cluster: &Cluster) -> Result<()> {
    until("all nodes know the same users", SOON, || async {
        let mut all = Vec::new();
        for node in cluster.nodes() {
            all.push(user(cluster, node.id, ANN, "list --json").await?);
        }
        ensure!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
        Ok(())
    })
    .await
}

async fn add_joe(cluster: &Cluster, node: u64) -> Result<()> {
    let line = format!("add joe --new-password-file {}", file(cluster, "geheim")?);
    user(cluster, node, ANN, &line).await?;
    settled(cluster).await
}

/// An MQTT connection and the code of its CONNACK.
pub(crate) async fn mqtt(address: SocketAddr, level: u8, who: Who<'_>) -> Result<(Raw, u8)> {
    let mut body = string("MQTT");
    body.extend([level, if who.is_some() { 0xc2 } else { 2 }, 0, 0]);
    if level == 5 {
        body.push(0);
    }
    body.extend(string(""));
    if let Some((user, password)) = who {
        body.extend([string(user), string(password)].concat());
    }
    let mut raw = Raw::open(address).await?;
    raw.send(&packet(0x10, &body)).await?;
    let (first, body) = within("a CONNACK", PATIENCE, raw.packet()).await?;
    ensure!(first == 0x20, "{first:02x} {body:02x?}");
    Ok((raw, body[1]))
}

/// A WAMP connection, and the URI with which it was refused, if it was.
pub(crate) async fn wamp(address: SocketAddr, who: Who<'_>) -> Result<(Raw, Option<String>)> {
    let mut details = json!({"roles": {"publisher": {}, "subscriber": {}}});
    if let Some((user, _)) = who {
        details["authmethods"] = json!(["ticket"]);
        details["authid"] = user.into();
    }
    let mut raw = Raw::websocket(address).await?;
    raw.send(&frame(&json!([1, REALM, details]).to_string())).await?;
    let mut answer = within("an answer to HELLO", PATIENCE, raw.message()).await?;
    if answer[0] == 4 {
        let (_, password) = who.context("an anonymous client is challenged")?;
        raw.send(&frame(&json!([5, password, {}]).to_string())).await?;
        answer = within("an answer to AUTHENTICATE", PATIENCE, raw.message()).await?;
    }
    match answer[0].as_u64() {
        Some(2) => Ok((raw, None)),
        Some(3) => Ok((raw, answer[2].as_str().map(str::to_owned))),
        _ => anyhow::bail!("{answer}"),
    }
}

/// The answers of a node to logins by each protocol: of MQTT 3.1.1, of MQTT 5, of WAMP.
async fn answers(cluster: &Cluster, node: u64, who: Who<'_>) -> Result<((u8, u8), Option<String>)> {
    let node = cluster.node(node);
    let codes = (mqtt(node.mqtt(), 4, who).await?.1, mqtt(node.mqtt(), 5, who).await?.1);
    Ok((codes, wamp(node.wamp(), who).await?.1))
}

/// Every node answers so, at once or soon.
async fn all_answer(
    cluster: &Cluster,
    who: Who<'_>,
    codes: (u8, u8),
    uri: Option<&str>,
) -> Result<()> {
    for node in 1..=3 {
        until("a node answers as expected", SOON, || async move {
            let found = answers(cluster, node, who).await?;
            ensure!(found == (codes, uri.map(str::to_owned)), "node {node}: {who:?}: {found:02x?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn all_let_in(cluster: &Cluster, who: Who<'_>) -> Result<()> {
    all_answer(cluster, who, (0, 0), None).await
}

async fn all_refuse(cluster: &Cluster, who: Who<'_>) -> Result<()> {
    let (codes, uri) = match who {
        Some(_) => (MQTT_WRONG, "wamp.error.authentication_failed"),
        None => (MQTT_NOBODY, "wamp.error.not_authorized"),
    };
    all_answer(cluster, who, codes, Some(uri)).await
}

/// Open sessions of a client: of MQTT 3.1.1, of MQTT 5, of WAMP.
async fn sessions(cluster: &Cluster, node: u64, who: Who<'_>) -> Result<[Raw; 3]> {
    let node = cluster.node(node);
    let (old, old_code) = mqtt(node.mqtt(), 4, who).await?;
    let (new, new_code) = mqtt(node.mqtt(), 5, who).await?;
    let (wamp, uri) = wamp(node.wamp(), who).await?;
    ensure!((old_code, new_code, &uri) == (0, 0, &None), "{old_code} {new_code} {uri:?}");
    Ok([old, new, wamp])
}

/// They are closed, and told why.
async fn are_closed([mut old, mut new, mut wamp]: [Raw; 3]) -> Result<()> {
    let closed = within("MQTT 3.1.1 is closed", SOON, async { Ok(old.packet().await) }).await?;
    ensure!(closed.is_err(), "{closed:02x?}");
    let disconnect = within("MQTT 5 is closed", SOON, new.packet()).await?;
    ensure!(disconnect.0 == 0xe0 && disconnect.1[0] == 0x87, "{disconnect:02x?}");
    let goodbye = within("WAMP is closed", SOON, wamp.message()).await?;
    ensure!(goodbye[0] == 6 && goodbye[2] == "wamp.close.killed", "{goodbye}");
    Ok(())
}

/// They are open: a request is answered.
async fn are_open([old, new, wamp]: &mut [Raw; 3]) -> Result<()> {
    for mqtt in [old, new] {
        mqtt.send(&packet(0xc0, &[])).await?;
        let (first, _) = within("a PINGRESP", PATIENCE, mqtt.packet()).await?;
        ensure!(first == 0xd0, "{first:02x}");
    }
    wamp.send(&frame(&json!([32, 1, {}, "open"]).to_string())).await?;
    let subscribed = within("a SUBSCRIBED", PATIENCE, wamp.message()).await?;
    ensure!(subscribed[0] == 33, "{subscribed}");
    Ok(())
}

/// The status of a node's answer to a GET.
async fn status(cluster: &Cluster, node: u64, path: &str, who: Who<'_>) -> Result<u16> {
    let login = who.map_or_else(String::new, |(user, password)| {
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        format!("Authorization: Basic {encoded}\r\n")
    });
    let mut stream = TcpStream::connect(cluster.node(node).admin()).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n{login}\r\n").as_bytes()).await?;
    let mut answer = String::new();
    within("an answer", PATIENCE, async { Ok(stream.read_to_string(&mut answer).await?) }).await?;
    Ok(answer.split(' ').nth(1).context("no status")?.parse()?)
}

/// `ann` administers, `joe` does not, and nobody else comes in, at all nodes.
async fn is_closed_to_strangers(cluster: &Cluster) -> Result<()> {
    all_refuse(cluster, None).await?;
    for who in [ANN, JOE] {
        all_let_in(cluster, who).await?;
    }
    for wrong in [("ann", "geheim"), ("nobody", "pencil")] {
        all_refuse(cluster, Some(wrong)).await?;
    }
    for node in 1..=3 {
        for (path, who, code) in [
            ("/healthz", None, 200),
            ("/readyz", None, 200),
            ("/status", None, 401),
            ("/users", None, 401),
            ("/log", Some(("ann", "wrong")), 401),
            ("/log", JOE, 403),
            ("/log", ANN, 200),
            ("/users/joe", ANN, 200),
            ("/users/nobody", ANN, 404),
        ] {
            let found = status(cluster, node, path, who).await?;
            ensure!(found == code, "node {node}: {path} {who:?}: {found}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_first_user_closes_the_cluster_for_good() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    ensure!(status(&cluster, 2, "/users", None).await? == 200);
    let mut open = Vec::new();
    for node in 1..=3 {
        open.push(sessions(&cluster, node, None).await?);
    }
    refused(&cluster, 1, None, "add ann --no-password", "role admin and a password").await?;
    let without = format!("add ann --role x --new-password-file {}", file(&cluster, "pencil")?);
    refused(&cluster, 1, None, &without, "role admin and a password").await?;
    for sessions in &mut open {
        are_open(sessions).await?;
    }
    add_ann(&cluster, 1, "").await?;
    for sessions in open {
        are_closed(sessions).await?;
    }
    refused(&cluster, 1, None, "list", "--password-file").await?;
    add_joe(&cluster, 2).await?;
    is_closed_to_strangers(&cluster).await?;
    let shown = user(&cluster, 3, ANN, "show ann --json").await?;
    let shown: Value = serde_json::from_str(&shown)?;
    let changed = shown["changed"].clone();
    let expected = json!({
        "name": "ann", "roles": ["admin"], "disabled": false, "has_password": true, "changed": changed,
    });
    ensure!(shown == expected && changed.is_u64(), "{shown}");

    for node in 1..=3 {
        cluster.node_mut(node).kill().await?;
    }
    for node in 1..=3 {
        cluster.node_mut(node).start()?;
    }
    cluster.ready().await?;
    is_closed_to_strangers(&cluster).await
}

#[tokio::test]
async fn anonymous_clients_go_on_as_long_as_there_is_such_a_user() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut open = sessions(&cluster, 2, None).await?;
    add_ann(&cluster, 1, " --anonymous").await?;
    all_let_in(&cluster, ANN).await?;
    all_let_in(&cluster, None).await?;
    are_open(&mut open).await?;
    ensure!(status(&cluster, 2, "/status", None).await? == 401, "operators log in all the same");
    user(&cluster, 3, ANN, "disable anonymous").await?;
    are_closed(open).await?;
    all_refuse(&cluster, None).await?;
    all_let_in(&cluster, ANN).await
}

#[tokio::test]
async fn a_user_that_may_connect_no_more_is_disconnected_everywhere() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    add_ann(&cluster, 1, "").await?;
    add_joe(&cluster, 1).await?;
    all_let_in(&cluster, JOE).await?;
    let mut others = sessions(&cluster, 3, ANN).await?;
    for (line, back) in [("disable joe", "enable joe"), ("remove joe", "")] {
        let mut open = Vec::new();
        for node in 1..=3 {
            open.push(sessions(&cluster, node, JOE).await?);
        }
        user(&cluster, 2, ANN, line).await?;
        for sessions in open {
            are_closed(sessions).await?;
        }
        all_refuse(&cluster, JOE).await?;
        if !back.is_empty() {
            user(&cluster, 3, ANN, back).await?;
            all_let_in(&cluster, JOE).await?;
        }
    }
    are_open(&mut others).await
}

#[tokio::test]
async fn a_new_password_makes_the_old_one_useless() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    add_ann(&cluster, 1, "").await?;
    all_let_in(&cluster, ANN).await?;
    let line = format!("passwd ann --new-password-file {}", file(&cluster, "other")?);
    user(&cluster, 2, ANN, &line).await?;
    all_refuse(&cluster, ANN).await?;
    all_let_in(&cluster, Some(("ann", "other"))).await?;
    refused(&cluster, 3, ANN, "list", "wrong password").await?;
    user(&cluster, 3, Some(("ann", "other")), "list").await?;
    Ok(())
}

/// Also if its password is changed; and a key alone is not enough to administer.
#[tokio::test]
async fn keys_stay_with_their_user() -> Result<()> {
    const KEY: &str = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
    let cluster = crate::cluster().nodes(3).start().await?;
    add_ann(&cluster, 1, "").await?;
    let add = format!("key add ann {KEY}");
    let remove = format!("key remove ann {KEY}");
    user(&cluster, 2, ANN, &add).await?;
    refused(&cluster, 2, ANN, &add, "already").await?;
    refused(&cluster, 2, ANN, "key add ann 5", "64 hexadecimal digits").await?;
    let line = format!("passwd ann --new-password-file {}", file(&cluster, "other")?);
    user(&cluster, 2, ANN, &line).await?;
    let ann = Some(("ann", "other"));
    let shown = user(&cluster, 3, ann, "show ann --json").await?;
    ensure!(shown.contains(&format!(r#""keys":["{KEY}"]"#)), "{shown}");
    user(&cluster, 1, ann, &remove).await?;
    refused(&cluster, 1, ann, &remove, "does not have").await?;
    user(&cluster, 1, ann, "add bob --no-password --role admin").await?;
    user(&cluster, 1, ann, &format!("key add bob {KEY}")).await?;
    refused(&cluster, 2, ann, "remove ann", "the last user").await?;
    all_let_in(&cluster, ann).await
}

#[tokio::test]
async fn somebody_can_always_administer() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    add_ann(&cluster, 1, "").await?;
    for line in ["remove ann", "disable ann", "roles ann other"] {
        refused(&cluster, 2, ANN, line, "the last user").await?;
    }
    add_joe(&cluster, 2).await?;
    refused(&cluster, 1, JOE, "remove ann", "role admin").await?;
    user(&cluster, 3, ANN, "roles joe admin other").await?;
    all_let_in(&cluster, JOE).await?;
    user(&cluster, 1, JOE, "remove ann").await?;
    refused(&cluster, 2, JOE, "remove joe", "the last user").await?;
    refused(&cluster, 2, JOE, "remove ann", "no user ann").await?;
    Ok(())
}

/// How many of three commands at three nodes succeeded; the others have to say one of these.
async fn at_once(cluster: &Cluster, who: Who<'_>, lines: [&str; 3], why: &[&str]) -> Result<usize> {
    let [one, two, three] = lines;
    let outputs = tokio::try_join!(
        run(cluster, 1, who, one),
        run(cluster, 2, who, two),
        run(cluster, 3, who, three)
    )?;
    let mut done = 0;
    for output in [outputs.0, outputs.1, outputs.2] {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => done += 1,
            false => ensure!(why.iter().any(|why| said.contains(why)), "{output:?}"),
        }
    }
    Ok(done)
}

#[tokio::test]
async fn of_users_that_are_added_at_once_one_is_added() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    add_ann(&cluster, 1, "").await?;
    all_let_in(&cluster, ANN).await?;
    for round in 0..5 {
        let line = format!("add joe{round} --no-password");
        let line = line.as_str();
        let done = at_once(&cluster, ANN, [line; 3], &["already"]).await?;
        ensure!(done == 1, "round {round}: {done} were added");
    }
    Ok(())
}

/// The nodes that were asked did not know of each other's users.
#[tokio::test]
async fn of_first_users_that_are_added_at_once_one_is_added() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let password = file(&cluster, "pencil")?;
    let line = |name: &str| format!("add {name} --new-password-file {password}");
    let (ann, bob, eve) = (line("ann"), line("bob"), line("eve"));
    let why = ["log in", "not known"];
    let done = at_once(&cluster, None, [&ann, &bob, &eve], &why).await?;
    ensure!(done <= 1, "{done} were added");
    let mut found = Vec::new();
    for name in ["ann", "bob", "eve"] {
        if wamp(cluster.node(1).wamp(), Some((name, "pencil"))).await?.1.is_none() {
            found.push(name);
        }
    }
    ensure!(found.len() == 1, "{found:?}");
    let users = user(&cluster, 1, Some((found[0], "pencil")), "list --json").await?;
    ensure!(users.lines().count() == 1, "{users}");
    Ok(())
}

#[tokio::test]
async fn a_login_of_any_length_is_answered_at_once() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    add_ann(&cluster, 1, "").await?;
    for length in [1_024, 4_090, 8_000, 60_000] {
        let began = tokio::time::Instant::now();
        let password = "x".repeat(length);
        let (_, refusal) = wamp(cluster.node(1).wamp(), Some(("bob", &password))).await?;
        ensure!(refusal.as_deref() == Some("wamp.error.authentication_failed"), "{refusal:?}");
        // A connection is given up after ten.
        ensure!(began.elapsed().as_secs() < 8, "{length}: {:?}", began.elapsed());
    }
    Ok(())
}

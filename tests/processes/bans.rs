//! Bans: who is kept out, at every node, from a change on; and what is remembered of changes.
//!
//! Invariant: a ban holds at all nodes as soon as the command is done, or a moment later where its node is not the one that was
//! asked. When it is over, nobody has to do anything.
//!
//! Deliberately absent: what the state decides about bans (its own tests).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;

use crate::raw::{connect, hello, Raw};
use crate::users::{add_ann, file, mqtt, settled, user, vulpes, wamp, Who, ANN, JOE, SOON};

/// A second address of this machine.
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Runs a command at a node, as somebody.
async fn run(cluster: &Cluster, node: u64, who: Who<'_>, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let output = vulpes(cluster, node, who, &words).await?;
    ensure!(output.status.success(), "{line}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The same; it has to fail, and to say this.
async fn refused(cluster: &Cluster, node: u64, who: Who<'_>, line: &str, why: &str) -> Result<()> {
    let words: Vec<&str> = line.split(' ').collect();
    let output = vulpes(cluster, node, who, &words).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && said.contains(why), "{line}: {output:?}");
    Ok(())
}

/// The bans, as a node tells them.
async fn bans(cluster: &Cluster, node: u64, who: Who<'_>) -> Result<Vec<Value>> {
    let shown = run(cluster, node, who, "ban list --json").await?;
    shown.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// `ann` administers, and `joe` does not.
async fn with_users() -> Result<Cluster> {
    let cluster = crate::cluster().nodes(3).start().await?;
    add_ann(&cluster, 1, "").await?;
    let line = format!("add joe --new-password-file {}", file(&cluster, "geheim")?);
    user(&cluster, 1, ANN, &line).await?;
    settled(&cluster).await?;
    Ok(cluster)
}

/// Open sessions of a user at a node: of MQTT 3.1.1, of MQTT 5, of WAMP.
async fn sessions(cluster: &Cluster, node: u64, who: Who<'_>) -> Result<[Raw; 3]> {
    let node = cluster.node(node);
    let (old, old_code) = mqtt(node.mqtt(), 4, who).await?;
    let (new, new_code) = mqtt(node.mqtt(), 5, who).await?;
    let (wamp, uri) = wamp(node.wamp(), who).await?;
    ensure!((old_code, new_code, &uri) == (0, 0, &None), "{old_code} {new_code} {uri:?}");
    Ok([old, new, wamp])
}

/// They are closed, and told why.
async fn are_closed([mut old, new, mut wamp]: [Raw; 3]) -> Result<()> {
    let closed = within("MQTT 3.1.1 is closed", SOON, async { Ok(old.packet().await) }).await?;
    ensure!(closed.is_err(), "{closed:02x?}");
    is_disconnected(new).await?;
    let goodbye = within("WAMP is closed", SOON, wamp.message()).await?;
    ensure!(goodbye[0] == 6 && goodbye[2] == "wamp.close.killed", "{goodbye}");
    Ok(())
}

/// A session of MQTT 5 is closed, and told why.
async fn is_disconnected(mut mqtt: Raw) -> Result<()> {
    let disconnect = within("MQTT 5 is closed", SOON, mqtt.packet()).await?;
    ensure!(disconnect.0 == 0xe0 && disconnect.1[0] == 0x98, "{disconnect:02x?}");
    Ok(())
}

async fn is_open(mqtt: &mut Raw) -> Result<()> {
    mqtt.send(&packet(0xc0, &[])).await?;
    let (first, _) = within("a PINGRESP", PATIENCE, mqtt.packet()).await?;
    ensure!(first == 0xd0, "{first:02x}");
    Ok(())
}

/// Every node answers logins so, at once or soon.
async fn all_answer(
    cluster: &Cluster,
    who: Who<'_>,
    codes: (u8, u8),
    uri: Option<&str>,
) -> Result<()> {
    for node in cluster.nodes() {
        until("a node answers as expected", SOON, || async move {
            let found = (mqtt(node.mqtt(), 4, who).await?.1, mqtt(node.mqtt(), 5, who).await?.1);
            ensure!(found == codes, "node {}: {found:02x?}", node.id);
            let found = wamp(node.wamp(), who).await?.1;
            ensure!(found.as_deref() == uri, "node {}: {found:?}", node.id);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn all_refuse(cluster: &Cluster, who: Who<'_>) -> Result<()> {
    all_answer(cluster, who, (5, 0x8a), Some("wamp.error.not_authorized")).await
}

async fn all_let_in(cluster: &Cluster, who: Who<'_>) -> Result<()> {
    all_answer(cluster, who, (0, 0), None).await
}

#[tokio::test]
async fn a_banned_user_is_disconnected_everywhere_and_comes_back_when_it_may() -> Result<()> {
    let cluster = with_users().await?;
    let [_, mut others, _] = sessions(&cluster, 3, ANN).await?;
    let mut open = Vec::new();
    for node in 1..=3 {
        open.push(sessions(&cluster, node, JOE).await?);
    }
    let did = run(&cluster, 2, ANN, "ban add user joe --reason floods --json").await?;
    let did: Value = serde_json::from_str(&did)?;
    for sessions in open {
        are_closed(sessions).await?;
    }
    all_refuse(&cluster, JOE).await?;
    for node in 1..=3 {
        let target = json!({"user": "joe"});
        let expected = json!({
            "target": target, "reason": "floods", "author": "ann", "changed": did["position"],
        });
        ensure!(bans(&cluster, node, ANN).await? == [expected]);
    }
    run(&cluster, 3, ANN, "ban remove user joe").await?;
    all_let_in(&cluster, JOE).await?;
    is_open(&mut others).await?;

    // For a while: nobody has to end it.
    let open = sessions(&cluster, 1, JOE).await?;
    run(&cluster, 1, ANN, "ban add user joe --for 4s").await?;
    are_closed(open).await?;
    all_refuse(&cluster, JOE).await?;
    all_let_in(&cluster, JOE).await?;
    for node in 1..=3 {
        until("it is shown no more", SOON, || async {
            let left = bans(&cluster, node, ANN).await?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_administrator_is_always_left() -> Result<()> {
    let cluster = with_users().await?;
    refused(&cluster, 2, ANN, "ban add user ann --for 1s", "nobody could administer").await?;
    refused(&cluster, 2, JOE, "ban add user ann", "role admin").await?;
    refused(&cluster, 2, ANN, "ban add user eve", "no user eve").await?;
    refused(&cluster, 2, ANN, "ban remove user joe", "no ban of user joe").await?;
    refused(&cluster, 2, ANN, "ban add client c --realm nowhere", "no realm nowhere").await?;
    refused(&cluster, 2, ANN, "ban add address 10.0.0", "is no address").await?;
    refused(&cluster, 2, ANN, "ban add user joe --for 0s", "above 0").await?;
    user(&cluster, 1, ANN, "roles joe admin").await?;
    settled(&cluster).await?;
    run(&cluster, 2, JOE, "ban add user ann").await?;
    for node in 1..=3 {
        until("who is banned does not administer", SOON, || {
            refused(&cluster, node, ANN, "ban remove user ann", "you are banned")
        })
        .await?;
    }
    refused(&cluster, 2, JOE, "user remove joe", "the last user").await?;
    run(&cluster, 2, JOE, "ban remove user ann").await?;
    all_let_in(&cluster, ANN).await
}

/// A session of MQTT 5 for a client of this name, and the code of its CONNACK.
async fn named(address: SocketAddr, name: &str, from: Option<IpAddr>) -> Result<(Raw, u8)> {
    let mut raw = match from {
        Some(from) => Raw::open_from(address, from).await?,
        None => Raw::open(address).await?,
    };
    let body = [string("MQTT"), vec![5, 2, 0, 0, 0], string(name)].concat();
    raw.send(&packet(0x10, &body)).await?;
    let (first, body) = within("a CONNACK", PATIENCE, raw.packet()).await?;
    ensure!(first == 0x20, "{first:02x} {body:02x?}");
    Ok((raw, body[1]))
}

/// Where there are no users, anybody at the admin port may.
#[tokio::test]
async fn clients_are_banned_by_their_names() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let (banned, _) = named(cluster.node(1).mqtt(), "c", None).await?;
    let (mut other, _) = named(cluster.node(1).mqtt(), "d", None).await?;
    run(&cluster, 2, None, "ban add client c --realm realm1").await?;
    is_disconnected(banned).await?;
    let answers = |code: u8| {
        let cluster = &cluster;
        async move {
            for node in cluster.nodes() {
                until("a node answers as expected", SOON, || async move {
                    let found = named(node.mqtt(), "c", None).await?.1;
                    ensure!(found == code, "node {}: {found:02x}", node.id);
                    Ok(())
                })
                .await?;
            }
            anyhow::Ok(())
        }
    };
    answers(0x8a).await?;
    is_open(&mut other).await?;
    let mut cluster_bans = Vec::new();
    for node in 1..=3 {
        cluster_bans.push(bans(&cluster, node, None).await?);
    }
    let target = &cluster_bans[0][0]["target"];
    ensure!(*target == json!({"client": {"name": "c", "realm": "realm1"}}), "{target}");
    ensure!(cluster_bans.windows(2).all(|pair| pair[0] == pair[1]), "{cluster_bans:?}");
    run(&cluster, 3, None, "ban remove client c --realm realm1").await?;
    answers(0).await
}

/// A node says nothing on connections from there and closes them, and answers its admin port all the same.
async fn is_shut(cluster: &Cluster, node: u64, from: IpAddr) -> Result<()> {
    let node = cluster.node(node);
    for (address, request) in [
        (node.mqtt(), connect("", 2, 0)),
        (node.wamp(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
    ] {
        let mut stream = Raw::stream_from(address, from).await?;
        // It may be closed before that.
        drop(stream.write_all(&request).await);
        let read = within("an answer or the end", PATIENCE, async { Ok(stream.read_u8().await) });
        let read = read.await?;
        ensure!(read.is_err(), "node {} answers: {read:?}", node.id);
    }
    let mut admin = Raw::stream_from(node.admin(), from).await?;
    admin.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    within("an answer", PATIENCE, async { Ok(admin.read_to_string(&mut answer).await?) }).await?;
    ensure!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn addresses_are_banned_at_all_nodes_but_not_at_their_admin_ports() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let (mut open, mut open_wamp) = (Vec::new(), Vec::new());
    for node in cluster.nodes() {
        open.push(named(node.mqtt(), "", Some(OTHER)).await?.0);
        let mut raw = Raw::websocket_from(node.wamp(), OTHER).await?;
        raw.send(&hello()).await?;
        let welcome = within("a WELCOME", PATIENCE, raw.message()).await?;
        ensure!(welcome[0] == 2, "{welcome}");
        open_wamp.push(raw);
    }
    let (mut other, _) = named(cluster.node(2).mqtt(), "", None).await?;
    run(&cluster, 1, None, "ban add address 127.0.0.2/31").await?;
    for mqtt in open {
        is_disconnected(mqtt).await?;
    }
    for mut wamp in open_wamp {
        let goodbye = within("WAMP is closed", SOON, wamp.message()).await?;
        ensure!(goodbye[0] == 6 && goodbye[2] == "wamp.close.killed", "{goodbye}");
    }
    for node in 1..=3 {
        is_shut(&cluster, node, OTHER).await?;
    }
    is_open(&mut other).await?;
    // It is kept on disk.
    cluster.node_mut(3).kill().await?;
    cluster.restart(3).await?;
    until("a node that begins knows it", SOON, || is_shut(&cluster, 3, OTHER)).await?;
    run(&cluster, 3, None, "ban add address 127.0.0.2/31 --for 2s").await?;
    for node in 1..=3 {
        let address = cluster.node(node).mqtt();
        until("it is over", SOON, || named(address, "", Some(OTHER))).await?;
    }
    Ok(())
}

/// What a node remembers of changes: author, whether it was done, and what it did.
async fn audit(cluster: &Cluster, node: u64, who: Who<'_>) -> Result<Vec<Value>> {
    let shown = run(cluster, node, who, "audit --json").await?;
    shown.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[tokio::test]
async fn all_nodes_remember_who_changed_what() -> Result<()> {
    let mut cluster = with_users().await?;
    let other = file(&cluster, "other")?;
    user(&cluster, 2, ANN, &format!("passwd joe --new-password-file {other}")).await?;
    user(&cluster, 2, ANN, "roles joe app").await?;
    vulpes(&cluster, 2, ANN, &["role", "set", "app", "allow all #", "deny call x"]).await?;
    run(&cluster, 2, ANN, "ban add address 10.0.0.0/8 --for 1h --reason flood").await?;
    run(&cluster, 2, ANN, "ban remove address 10.0.0.0/8").await?;
    let found = audit(&cluster, 2, ANN).await?;
    let did: Vec<(&Value, &Value)> =
        found.iter().map(|change| (&change["author"], &change["did"][0])).collect();
    let target = json!({"address": "10.0.0.0/8"});
    let ann = &json!("ann");
    let expected = [
        (&json!(""), &json!({"add_user": {"name": "ann", "roles": ["admin"], "disabled": false}})),
        (ann, &json!({"add_user": {"name": "joe", "roles": [], "disabled": false}})),
        (
            ann,
            &json!({"set_user": {"name": "joe", "login": true, "roles": null, "disabled": null}}),
        ),
        (
            ann,
            &json!({"set_user": {"name": "joe", "login": false, "roles": ["app"], "disabled": null}}),
        ),
        (ann, &json!({"set_role": {"name": "app", "rules": 2}})),
        (ann, &json!({"add_ban": {"target": target, "reason": "flood", "lasts": 3_600_000}})),
        (ann, &json!({"remove_ban": {"target": target}})),
    ];
    ensure!(did == expected, "{found:#?}");
    ensure!(found.iter().all(|change| change["accepted"] == true), "{found:#?}");
    let text = run(&cluster, 2, ANN, "audit --limit 3").await?;
    ensure!(text.contains("change user joe: new password or keys"), "{text}");
    ensure!(text.contains("yes") && !text.contains("set role"), "{text}");
    let after = found[5]["position"].as_u64().context("a position")?;
    let last = run(&cluster, 2, ANN, &format!("audit --json --after {after}")).await?;
    ensure!(serde_json::from_str::<Value>(&last)? == found[6], "{last}");
    refused(&cluster, 2, Some(("joe", "other")), "audit", "role admin").await?;
    for node in 1..=3 {
        cluster.node_mut(node).kill().await?;
    }
    for node in 1..=3 {
        cluster.node_mut(node).start()?;
    }
    cluster.ready().await?;
    for node in 1..=3 {
        until("all remember the same", SOON, || async {
            let other = audit(&cluster, node, ANN).await?;
            ensure!(other == found, "node {node}: {other:#?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

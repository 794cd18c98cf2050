//! A cluster as `vulpes init` makes it: nobody but its first administrator comes in.
//!
//! Invariant: nobody comes in before the log has that user either, and its password is nowhere but in what `vulpes init` printed.
//!
//! Deliberately absent: how users are added after that (`users`).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use vulpes_jepsen::http;
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;

use crate::peers_tls::set_up::SetUp;
use crate::raw::Raw;
use crate::users::{add_ann, mqtt, vulpes, wamp, Who};

/// What `vulpes init` has printed about the administrator.
fn printed(text: &str) -> Result<(String, String)> {
    let find = |what: &str| text.lines().find_map(|line| line.strip_prefix(what));
    let name = find("administrator ").context("it names the administrator")?;
    let password = find("password ").context("it shows the password")?;
    ensure!(text.matches(password).count() == 1, "it is shown once");
    Ok((name.to_owned(), password.to_owned()))
}

/// Nobody comes in at any node but with this password, by either protocol and at the admin port.
async fn only(cluster: &Cluster, who: Who<'_>) -> Result<()> {
    let (name, password) = who.context("somebody may come in")?;
    let wrong = format!("{}x", &password[..password.len() - 1]);
    let others = [None, Some((name, wrong.as_str())), Some(("root", password))];
    for node in cluster.nodes() {
        for other in others {
            let (_, old) = mqtt(node.mqtt(), 4, other).await?;
            let (_, new) = mqtt(node.mqtt(), 5, other).await?;
            let (_, refused) = wamp(node.wamp(), other).await?;
            ensure!(old != 0 && new >= 0x80 && refused.is_some(), "{other:?} at {}", node.id);
            for words in [&["status"][..], &["user", "list"], &["role", "list"]] {
                let output = vulpes(cluster, node.id, other, words).await?;
                let said = [&output.stdout[..], &output.stderr].concat();
                let said = String::from_utf8_lossy(&said).into_owned();
                ensure!(!output.status.success(), "{words:?}: {output:?}");
                ensure!(
                    said.contains("log in") || said.contains("wrong password"),
                    "{words:?}: {said}"
                );
            }
        }
        ensure!(mqtt(node.mqtt(), 5, who).await?.1 == 0, "MQTT at {}", node.id);
        ensure!(wamp(node.wamp(), who).await?.1.is_none(), "WAMP at {}", node.id);
        let output = vulpes(cluster, node.id, who, &["user", "list"]).await?;
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success() && list.contains(name), "{output:?}");
    }
    Ok(())
}

/// Calls `look` with every file below a folder.
fn every_file(folder: &Path, look: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => every_file(&path, look)?,
            false => look(&path)?,
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_of_init_lets_nobody_in_but_its_first_administrator() -> Result<()> {
    let (mut set_up, text) = SetUp::prepare(&["--administrator", "ann"])?;
    let (name, password) = printed(&text)?;
    let who = Some((name.as_str(), password.as_str()));
    ensure!(name == "ann" && password.len() >= 20, "{name} {password}");
    // Alone, a node can't know of any user yet: it is not ready, and a client gets no answer.
    set_up.cluster.node_mut(1).start()?;
    let (admin, port) = (set_up.cluster.node(1).admin(), set_up.cluster.node(1).mqtt());
    until("the node is up", PATIENCE, || async move {
        ensure!(http::get(admin, "/healthz").await?.status == 200, "it is not");
        Ok(())
    })
    .await?;
    ensure!(http::get(admin, "/readyz").await?.status == 503, "it is ready");
    let mut early = Raw::open(port).await?;
    early.send(b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02me").await?;
    for node in 2..=3 {
        set_up.cluster.node_mut(node).start()?;
    }
    set_up.cluster.ready().await?;
    let (first, answer) = within("a CONNACK", PATIENCE, early.packet()).await?;
    ensure!(first == 0x20 && answer == [0, 5], "who came early is told no: {answer:?}");
    only(&set_up.cluster, who).await?;
    // All start anew, and another administrator is in the files of one: the log has users.
    for node in 1..=3 {
        set_up.cluster.node_mut(node).kill().await?;
    }
    let (other, text) = SetUp::prepare(&["--administrator", "eve"])?;
    let (eve, eves) = printed(&text)?;
    let table = |set_up: &SetUp, node| -> Result<(String, String)> {
        let text = std::fs::read_to_string(set_up.cluster.node(node).config())?;
        let start = text.find("[first_administrator]").context("the table is there")?;
        let end = start + text[start..].find("[[nodes]]").context("the nodes follow")?;
        Ok((text.clone(), text[start..end].to_owned()))
    };
    let ((text, old), (_, new)) = (table(&set_up, 2)?, table(&other, 2)?);
    set_up.cluster.node(2).configure(&text.replace(&old, &new))?;
    for node in 1..=3 {
        set_up.cluster.node_mut(node).start()?;
    }
    set_up.cluster.ready().await?;
    only(&set_up.cluster, who).await?;
    ensure!(mqtt(set_up.cluster.node(2).mqtt(), 5, Some((&eve, &eves))).await?.1 == 0x86, "eve");
    set_up.cluster.node_mut(1).stop().await?;
    every_file(set_up.cluster.folder(), &mut |path| {
        let content = std::fs::read(path)?;
        let has = content.windows(password.len()).any(|part| part == password.as_bytes());
        ensure!(!has, "{} has the password", path.display());
        Ok(())
    })?;
    every_file(&set_up.cluster.node(1).data(), &mut |path| {
        let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{} has the mode {mode:o}", path.display());
        Ok(())
    })
}

/// The configuration of node 1 with MQTT in TLS at all its addresses.
fn reached_by_all(set_up: &SetUp) -> Result<String> {
    let node = set_up.cluster.node(1);
    let text = std::fs::read_to_string(node.config())?;
    let own = format!("mqtt = \"{}\"\n", node.mqtt());
    ensure!(text.contains(&own), "{text}");
    Ok(format!(
        "{}\n[[listener]]\nprotocol = \"mqtt\"\naddress = \"0.0.0.0:{}\"\n[listener.tls]\n\
         certificate = \"tls/node1/certificate.pem\"\nkey = \"tls/node1/key.pem\"\n",
        text.replace(&own, ""),
        node.mqtt().port()
    ))
}

#[tokio::test]
async fn a_node_that_all_reach_wants_users() -> Result<()> {
    let (mut set_up, _) = SetUp::prepare(&["--open"])?;
    let near = std::fs::read_to_string(set_up.cluster.node(1).config())?;
    let far = reached_by_all(&set_up)?;
    set_up.cluster.node(1).configure(&far)?;
    for node in 1..=3 {
        set_up.cluster.node_mut(node).start()?;
    }
    let ended = set_up.cluster.node_mut(1).ended().await?;
    ensure!(ended.code() == Some(1), "{ended}");
    let log = std::fs::read_to_string(set_up.cluster.node(1).folder().join("log"))?;
    for told in
        ["the log has no users", "[first_administrator]", "`vulpes init`", "insecure = true"]
    {
        ensure!(log.contains(told), "{told}: {log}");
    }
    set_up.cluster.node(1).configure(&format!("insecure = true\n{far}"))?;
    set_up.cluster.restart(1).await?;
    set_up.cluster.node_mut(1).stop().await?;
    set_up.cluster.node(1).configure(&near)?;
    set_up.cluster.restart(1).await?;
    add_ann(&set_up.cluster, 1, "").await?;
    set_up.cluster.node_mut(1).stop().await?;
    // Whoever comes is asked who it is by now.
    set_up.cluster.node(1).configure(&far)?;
    set_up.cluster.restart(1).await
}

//! Shared state: locks, retained values and wills, the same at every node.
//!
//! Invariant: the protected resource has its own record, which decides.
//!
//! Deliberately absent: the options' spelling, which the gates' own tests have.

use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value};
use tokio::process::Command;
use tokio::time::Instant;
use vulpes_jepsen::code::{ERROR, EVENT, PUBLISH, PUBLISHED, SUBSCRIBE, SUBSCRIBED, UNSUBSCRIBED};
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;

use crate::peer::Peer;

/// How long a lock may stay with a holder that was killed; and with one whose node was killed: the lease and a second.
const HANDOVER: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(3);

impl Peer {
    /// Publishes; returns the position, or the error's URI.
    pub(crate) async fn publish(
        &mut self,
        topic: &str,
        value: Value,
        mut options: Value,
    ) -> Result<std::result::Result<u64, String>> {
        self.request += 1;
        options["acknowledge"] = true.into();
        self.wamp.send(&json!([PUBLISH, self.request, options, topic, [value]])).await?;
        loop {
            let answer = self.wamp.receive().await?.context("closed before PUBLISHED")?;
            match answer[0].as_u64() {
                Some(PUBLISHED) if answer[1] == self.request => {
                    return Ok(Ok(answer[2].as_u64().context("no position")?));
                }
                Some(ERROR) if answer[2] == self.request => {
                    return Ok(Err(answer[4].as_str().unwrap_or_default().to_owned()));
                }
                _ => {}
            }
        }
    }

    async fn set(&mut self, topic: &str, value: Value) -> Result<u64> {
        let set = self.publish(topic, value, json!({ "retain": true })).await?;
        set.map_err(|uri| anyhow::anyhow!("a retained publish was refused: {uri}"))
    }

    /// Waits for a lock; returns the token.
    async fn lock(&mut self, topic: &str, holder: &str) -> Result<u64> {
        let options = json!({ "retain": true, "when": null, "will": null, "watch": true });
        let token = self.publish(topic, holder.into(), options).await?;
        token.map_err(|uri| anyhow::anyhow!("the lock was refused: {uri}"))
    }

    async fn free(&mut self, topic: &str) -> Result<()> {
        self.set(topic, Value::Null).await.map(drop)
    }

    async fn subscribe(&mut self, topic: &str, options: Value) -> Result<()> {
        self.request += 1;
        self.wamp.send(&json!([SUBSCRIBE, self.request, options, topic])).await?;
        let answer = self.wamp.receive().await?.context("closed before SUBSCRIBED")?;
        ensure!(answer[0] == SUBSCRIBED, "no SUBSCRIBED but {answer}");
        Ok(())
    }

    /// The values of a snapshot subscription, and their positions.
    pub(crate) async fn snapshot(
        &mut self,
        topic: &str,
        options: Value,
    ) -> Result<Vec<(Value, u64)>> {
        self.subscribe(topic, options).await?;
        let mut values = Vec::new();
        loop {
            let message = self.wamp.receive().await?.context("closed before UNSUBSCRIBED")?;
            match message[0].as_u64() {
                Some(EVENT) => {
                    let position = message[2].as_u64().context("no position")?;
                    values.push((message[4][0].clone(), position));
                }
                Some(UNSUBSCRIBED) => return Ok(values),
                _ => bail!("unexpected {message}"),
            }
        }
    }

    /// The next event: its first argument, and its details.
    async fn event(&mut self) -> Result<(Value, Value)> {
        within("an event comes", PATIENCE, async {
            let message = self.wamp.receive().await?.context("closed before an EVENT")?;
            ensure!(message[0] == EVENT, "no EVENT but {message}");
            Ok((message[4][0].clone(), message[3].clone()))
        })
        .await
    }
}

/// The resource that a lock protects: it records each holder's token, and checks that there is no other holder.
#[derive(Default)]
struct Resource {
    holder: Option<usize>,
    grants: Vec<(usize, u64)>,
}

fn look(resource: &Mutex<Resource>) -> MutexGuard<'_, Resource> {
    resource.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn use_by_turns(
    mut peer: Peer,
    who: usize,
    grants: usize,
    resource: Arc<Mutex<Resource>>,
) -> Result<()> {
    loop {
        let token = within("a lock", Duration::from_secs(60), peer.lock("lock", "x")).await?;
        let done = {
            let mut resource = look(&resource);
            ensure!(resource.holder.is_none(), "{who} got what {:?} has", resource.holder);
            resource.holder = Some(who);
            resource.grants.push((who, token));
            resource.grants.len() >= grants
        };
        tokio::task::yield_now().await;
        look(&resource).holder = None;
        if done {
            // The other clients get the lock when this session has ended.
            return Ok(());
        }
        peer.free("lock").await?;
    }
}

#[tokio::test]
async fn a_lock_is_fair_at_all_nodes_and_its_tokens_grow() -> Result<()> {
    const CLIENTS: usize = 20;
    const GRANTS: usize = 1000;
    let cluster = crate::cluster().nodes(3).start().await?;
    let resource = Arc::<Mutex<Resource>>::default();
    let mut clients = Vec::new();
    for who in 0..CLIENTS {
        let peer = Peer::at(&cluster, who as u64 % 3 + 1).await?;
        let using = use_by_turns(peer, who, GRANTS, resource.clone());
        clients.push(tokio::spawn(using));
    }
    for client in clients {
        client.await??;
    }
    let grants = std::mem::take(&mut look(&resource).grants);
    ensure!(grants.len() >= GRANTS, "{} grants", grants.len());
    for pair in grants.windows(2) {
        ensure!(pair[0].1 < pair[1].1, "token {} comes after {}", pair[1].1, pair[0].1);
    }
    // A client that gets the lock again had waited behind all clients that were waiting already.
    let mut counts = [0; CLIENTS];
    for (who, _) in &grants {
        counts[*who] += 1;
    }
    let (least, most) = (counts.iter().min(), counts.iter().max());
    ensure!(least.zip(most).is_some_and(|(least, most)| most - least <= 5), "{counts:?}");
    cluster.verify(1).await
}

#[tokio::test]
async fn a_lock_goes_on_when_its_holder_or_the_holders_node_dies() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let mut first = Peer::at(&cluster, 1).await?;
    let mut second = Peer::at(&cluster, 2).await?;
    let mut third = Peer::at(&cluster, 3).await?;
    let token = first.lock("lock", "first").await?;
    let waiting = tokio::spawn(async move {
        let token = second.lock("lock", "second").await?;
        anyhow::Ok((token, Instant::now(), second))
    });
    wait_in_line(&cluster, 1, 1).await?;
    let blow = Instant::now();
    drop(first);
    let (next, granted, second) =
        within("the next holder", PATIENCE, async { waiting.await? }).await?;
    println!("the holder's end was noticed in {:?}", granted - blow);
    ensure!(next > token && granted - blow < HANDOVER, "{:?}", granted - blow);

    let waiting = tokio::spawn(async move {
        let token = third.lock("lock", "third").await?;
        anyhow::Ok((token, Instant::now()))
    });
    wait_in_line(&cluster, 1, 1).await?;
    cluster.node_mut(2).kill().await?;
    let blow = Instant::now();
    let (last, granted) = within("the last holder", PATIENCE, async { waiting.await? }).await?;
    println!("the end of the holder's node was noticed in {:?}", granted - blow);
    ensure!(last > next && granted - blow < LEASE + HANDOVER, "{:?}", granted - blow);
    drop(second);
    cluster.restart(2).await?;
    cluster.verify(1).await
}

#[tokio::test]
async fn a_lock_is_freed_when_its_holder_falls_silent() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut silent = Peer::at(&cluster, 1).await?;
    let token = silent.lock("lock", "silent").await?;
    // Its connection stays open, but the client neither reads nor answers any more.
    let mut second = Peer::at(&cluster, 2).await?;
    let next = within("the next holder", PATIENCE, second.lock("lock", "second")).await?;
    ensure!(next > token, "{next} after {token}");
    drop(silent);
    Ok(())
}

/// Waits until a node knows this many waiting publishes.
async fn wait_in_line(cluster: &Cluster, node: u64, count: u64) -> Result<()> {
    until("a publish waits in line", PATIENCE, || async {
        let waiting = &cluster.status(node).await?["state"]["waiting"];
        ensure!(*waiting == count, "{waiting} publishes wait");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_value_written_at_one_node_is_read_at_another() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let mut writer = Peer::at(&cluster, 1).await?;
    let mut reader = Peer::at(&cluster, 3).await?;
    writer.set("state.a", json!({ "x": 1 })).await?;
    writer.set("state.b", json!(5)).await?;
    let merge = json!({ "retain": true, "merge": true });
    let last = writer.publish("state.a", json!({ "y": 2 }), merge).await?;
    let last = last.ok().context("refused")?;
    reader.subscribe("state.#", json!({ "retained": true, "after": last })).await?;
    let (value, details) = reader.event().await?;
    ensure!(value == json!({ "x": 1, "y": 2 }) && details["retained"] == true, "{value} {details}");
    ensure!(reader.event().await?.0 == 5);
    // An event that changes no value is not for this subscription.
    writer.publish("state.c", json!("plain"), json!({})).await?.ok().context("refused")?;
    writer.set("state.b", json!(6)).await?;
    ensure!(reader.event().await?.0 == 6);

    let refused = writer.publish("state.b", json!(7), json!({ "retain": true, "when": 5 })).await?;
    ensure!(refused == Err("fox.error.not_accepted".to_owned()), "{refused:?}");
    let swapped = writer.publish("state.b", json!(7), json!({ "retain": true, "when": 6 })).await?;
    ensure!(swapped.is_ok(), "{swapped:?}");
    ensure!(reader.event().await?.0 == 7, "the refused one is not seen");

    for node in 1..=3 {
        cluster.node_mut(node).kill().await?;
    }
    for node in 1..=3 {
        cluster.node_mut(node).start()?;
    }
    cluster.ready().await?;
    let mut reader = Peer::at(&cluster, 2).await?;
    reader.subscribe("state.*", json!({ "retainedState": true })).await?;
    ensure!(reader.event().await?.0 == json!({ "x": 1, "y": 2 }));
    ensure!(reader.event().await?.0 == 7);
    cluster.verify(2).await
}

#[tokio::test]
async fn a_will_is_published_once_when_its_node_dies() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let mut watcher = Peer::at(&cluster, 1).await?;
    watcher.subscribe("status.#", json!({})).await?;
    let mut doomed = Peer::at(&cluster, 3).await?;
    let bound = json!({ "retain": true, "will": "gone" });
    let _ = doomed.publish("status.doomed", json!("here"), bound).await?;
    ensure!(watcher.event().await?.0 == "here");
    cluster.node_mut(3).kill().await?;
    ensure!(watcher.event().await?.0 == "gone");
    cluster.restart(3).await?;
    let mut marker = Peer::at(&cluster, 2).await?;
    marker.publish("status.mark", json!("mark"), json!({})).await?.ok().context("refused")?;
    ensure!(watcher.event().await?.0 == "mark", "the will came twice");
    Ok(())
}

#[tokio::test]
async fn the_commands_share_state() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let run = |node: u64, line: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vulpes"));
        let url = format!("ws://{}/", cluster.node(node).wamp());
        command.arg(line[0]).args(["--node", &url]).args(&line[1..]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        async move {
            let output = within("a command ends", PATIENCE, async { Ok(command.output().await?) });
            let output = output.await?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            anyhow::Ok((output.status.code(), text, complaint))
        }
    };
    let (code, position, complaint) = run(1, &["set", "demo.state", r#"{"on": true}"#]).await?;
    ensure!(code == Some(0), "{complaint}");
    let (_, line, _) = run(3, &["get", "demo.#", "--after", &position]).await?;
    ensure!(line.ends_with(r#"demo.state {"on":true}"#) && line.starts_with(&position), "{line}");
    let (code, _, complaint) = run(2, &["set", "demo.state", "1", "--when", "null"]).await?;
    ensure!(code == Some(1) && complaint.contains("fox.error.not_accepted"), "{complaint}");
    let (code, _, _) = run(2, &["set", "demo.state", "--delete"]).await?;
    ensure!(code == Some(0));
    let (_, line, _) = run(1, &["get", "demo.state"]).await?;
    ensure!(line.is_empty(), "{line}");
    let (_, lines, _) = run(3, &["history", "demo.#"]).await?;
    ensure!(lines.lines().count() == 2, "{lines}");

    let token = ["lock", "demo.lock", "--", "sh", "-c", "echo $VULPES_TOKEN; exit 7"];
    let (code, first, complaint) = run(1, &token).await?;
    ensure!(code == Some(7), "{code:?} {complaint}");
    let (_, second, _) = run(2, &token).await?;
    ensure!(first.parse::<u64>()? < second.parse::<u64>()?, "{first} {second}");
    let mut holder = Peer::at(&cluster, 1).await?;
    holder.lock("demo.lock", "me").await?;
    let (code, _, complaint) = run(3, &["lock", "demo.lock", "--wait", "0s", "--", "true"]).await?;
    ensure!(code == Some(1) && complaint.contains("somebody else"), "{complaint}");
    Ok(())
}

//! Rules: what a user may do, at every node, from a change on.
//!
//! Invariant: what is refused is told as each protocol tells it, and harms nothing else. No event behind a change reaches who may
//! not see it by then, at any node.
//!
//! Deliberately absent: how rules are read and matched, which their own tests have.

use std::process::Output;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;

use crate::raw::{frame, Raw};
use crate::users::{add_ann, file, mqtt, settled, user, vulpes, wamp, Who, ANN, JOE, SOON};

/// Runs `vulpes role` or another command at a node; it has to succeed.
async fn done(cluster: &Cluster, node: u64, who: Who<'_>, words: &[&str]) -> Result<String> {
    let output = vulpes(cluster, node, who, words).await?;
    ensure!(output.status.success(), "{words:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The same; it has to fail, and to say this.
async fn refused(cluster: &Cluster, who: Who<'_>, words: &[&str], why: &str) -> Result<()> {
    let output = vulpes(cluster, 1, who, words).await?;
    let said = said(&output);
    ensure!(output.status.code() == Some(1) && said.contains(why), "{words:?}: {output:?}");
    Ok(())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// `ann` administers, and `joe` has the role `app`.
async fn cluster_with_joe() -> Result<Cluster> {
    let cluster = crate::cluster().nodes(3).start().await?;
    add_ann(&cluster, 1, "").await?;
    let password = file(&cluster, "geheim")?;
    let line = format!("add joe --role app --new-password-file {password}");
    user(&cluster, 1, ANN, &line).await?;
    settled(&cluster).await?;
    Ok(cluster)
}

/// Sets the rules of `app`, and gives the position.
async fn set_app(cluster: &Cluster, node: u64, rules: &[&str]) -> Result<u64> {
    let words = [&["role", "set", "app", "--json"], rules].concat();
    let told: Value = serde_json::from_str(&done(cluster, node, ANN, &words).await?)?;
    told["position"].as_u64().context("no position")
}

/// A session that is open soon: another node may learn a moment later that there are users.
async fn opened(cluster: &Cluster, node: u64, level: Option<u8>, who: Who<'_>) -> Result<Raw> {
    let node = cluster.node(node);
    until("a login", SOON, || async move {
        match level {
            Some(level) => {
                let (raw, code) = mqtt(node.mqtt(), level, who).await?;
                ensure!(code == 0, "{code}");
                Ok(raw)
            }
            None => {
                let (raw, uri) = wamp(node.wamp(), who).await?;
                ensure!(uri.is_none(), "{uri:?}");
                Ok(raw)
            }
        }
    })
    .await
}

/// The answer to a WAMP request: nothing if it was granted, the URI if not.
async fn ask(raw: &mut Raw, request: Value) -> Result<Option<String>> {
    raw.send(&frame(&request.to_string())).await?;
    let answer = within("an answer", PATIENCE, raw.message()).await?;
    Ok((answer[0] == 8).then(|| answer[4].as_str().unwrap_or_default().to_owned()))
}

/// A PUBLISH of QoS 1 with one byte of payload.
fn publish(level: u8, topic: &str, retain: bool) -> Vec<u8> {
    let mut body = string(topic);
    body.extend([0, 1]);
    if level == 5 {
        body.push(0);
    }
    body.push(b'1');
    packet(0x32 | u8::from(retain), &body)
}

fn subscribe(level: u8, filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    if level == 5 {
        body.push(0);
    }
    body.extend(string(filter));
    body.push(1);
    packet(0x82, &body)
}

/// The last byte of the answer to an MQTT packet: its reason code, unless there is none.
async fn code(raw: &mut Raw, sent: &[u8]) -> Result<(u8, Vec<u8>)> {
    raw.send(sent).await?;
    within("an answer", PATIENCE, raw.packet()).await
}

/// What `joe` may do by WAMP: publish, retain, subscribe, call, register.
async fn wamp_matrix(cluster: &Cluster, node: u64) -> Result<()> {
    let not = Some("wamp.error.not_authorized".to_owned());
    let mut raw = opened(cluster, node, None, JOE).await?;
    let name = |text: &str| format!("{text}.n{node}");
    let acknowledged = json!({"acknowledge": true});
    let retained = json!({"acknowledge": true, "retain": true});
    for (request, expected) in [
        (json!([16, 1, acknowledged, "app.x", [1]]), &None),
        (json!([16, 2, acknowledged, "other.x", [1]]), &not),
        (json!([16, 3, retained, "app.x", [1]]), &not),
        (json!([16, 4, retained, "app.joe", [1]]), &None),
        (json!([32, 5, {}, "app.x"]), &None),
        (json!([32, 6, {}, "other"]), &not),
        (json!([32, 7, {"match": "prefix"}, "other"]), &not),
        (json!([32, 8, {"match": "wildcard"}, ".x"]), &None),
        (json!([64, 9, {}, name("app.p")]), &None),
        (json!([64, 10, {}, name("other.p")]), &not),
        (json!([48, 11, {}, "wamp.session.count"]), &None),
        (json!([48, 12, {}, "wamp.session.list"]), &not),
        (json!([48, 13, {}, "app.none"]), &Some("wamp.error.no_such_procedure".to_owned())),
    ] {
        let found = ask(&mut raw, request.clone()).await?;
        ensure!(found == *expected, "node {node}: {request}: {found:?}");
    }
    Ok(())
}

/// The same by MQTT: the answers to publishes and subscriptions.
async fn mqtt_matrix(cluster: &Cluster, node: u64) -> Result<()> {
    let mut raw = opened(cluster, node, Some(5), JOE).await?;
    for (topic, retain, expected) in [
        ("app/x", false, None),
        ("other/x", false, Some(0x87)),
        ("app/x", true, Some(0x87)),
        ("app/joe", true, None),
    ] {
        let (first, body) = code(&mut raw, &publish(5, topic, retain)).await?;
        ensure!(first == 0x40 && body.get(2).copied() == expected, "{topic} {retain}: {body:02x?}");
    }
    let mut old = opened(cluster, node, Some(4), JOE).await?;
    for (filter, new_code, old_code) in
        [("app/x", 1, 1), ("other/#", 0x87, 0x80), ("+/y", 1, 1), ("$replay/0/other", 0x87, 0x80)]
    {
        let (_, body) = code(&mut raw, &subscribe(5, filter)).await?;
        ensure!(body.last() == Some(&new_code), "{filter}: {body:02x?}");
        let (_, body) = code(&mut old, &subscribe(4, filter)).await?;
        ensure!(body.last() == Some(&old_code), "{filter}: {body:02x?}");
    }
    old.send(&publish(4, "other/x", false)).await?;
    let closed = within("MQTT 3.1.1 is closed", SOON, async { Ok(old.packet().await) }).await?;
    ensure!(closed.is_err(), "{closed:02x?}");
    Ok(())
}

const APP: &[&str] = &[
    "allow publish,subscribe,register app/#",
    "allow retain app/{user}",
    "allow call wamp.session.count",
    "allow call app.#",
];

#[tokio::test]
async fn each_action_is_refused_as_its_protocol_says() -> Result<()> {
    let mut cluster = cluster_with_joe().await?;
    // A role without rules allows nothing.
    let mut raw = opened(&cluster, 2, None, JOE).await?;
    let asked = json!([16, 1, {"acknowledge": true}, "app.x", [1]]);
    ensure!(ask(&mut raw, asked).await? == Some("wamp.error.not_authorized".to_owned()));
    set_app(&cluster, 1, APP).await?;
    for node in 1..=3 {
        wamp_matrix(&cluster, node).await?;
        mqtt_matrix(&cluster, node).await?;
    }
    let shown = done(&cluster, 3, ANN, &["role", "show", "app"]).await?;
    ensure!(shown.lines().count() == APP.len() && shown.contains(APP[1]), "{shown}");
    for (words, allowed) in [
        (["can", "joe", "retain", "app.joe"], true),
        (["can", "joe", "retain", "app/x"], false),
        (["can", "ann", "call", "x"], true),
        (["can", "ann", "publish", "$SYS/x"], false),
        (["can", "ann", "register", "wamp.x"], false),
    ] {
        let output = vulpes(&cluster, 2, ANN, &words).await?;
        let word = if allowed { "yes: " } else { "no: " };
        ensure!(
            output.status.success() == allowed && said(&output).starts_with(word),
            "{output:?}"
        );
    }
    for node in 1..=3 {
        cluster.node_mut(node).kill().await?;
    }
    for node in 1..=3 {
        cluster.node_mut(node).start()?;
    }
    cluster.ready().await?;
    for node in 1..=3 {
        wamp_matrix(&cluster, node).await?;
    }
    Ok(())
}

#[tokio::test]
async fn wills_are_checked_when_they_are_left_and_when_they_are_published() -> Result<()> {
    let cluster = cluster_with_joe().await?;
    set_app(&cluster, 1, APP).await?;
    let connect = |topic: &str| {
        let mut body = string("MQTT");
        body.extend([5, 0xc6, 0, 0, 0]);
        body.extend([string("w"), vec![0], string(topic), string("gone")].concat());
        body.extend([string("joe"), string("geheim")].concat());
        packet(0x10, &body)
    };
    let mut watcher = opened(&cluster, 3, None, ANN).await?;
    ensure!(ask(&mut watcher, json!([32, 1, {}, "#"])).await?.is_none());
    let mut raw = Raw::open(cluster.node(2).mqtt()).await?;
    let (_, body) = code(&mut raw, &connect("other")).await?;
    ensure!(body[1] == 0x87, "{body:02x?}");
    for (rules, seen) in [(APP, true), (&["deny publish app/last", "allow all #"][..], false)] {
        set_app(&cluster, 2, APP).await?;
        let mut raw = Raw::open(cluster.node(2).mqtt()).await?;
        let (_, body) = code(&mut raw, &connect("app/last")).await?;
        ensure!(body[1] == 0, "{body:02x?}");
        set_app(&cluster, 1, rules).await?;
        drop(raw);
        // The order says that there is no will: it would come before what is published once the session is over.
        let mut count = opened(&cluster, 1, None, ANN).await?;
        let count = &std::sync::Arc::new(tokio::sync::Mutex::new(&mut count));
        until("its session is over", PATIENCE, || async move {
            let mut raw = count.lock().await;
            raw.send(&frame(&json!([48, 1, {}, "wamp.session.list"]).to_string())).await?;
            let answer = raw.message().await?;
            let sessions = answer[3][0].as_array().map_or(0, Vec::len);
            ensure!(sessions <= 2, "{answer}");
            Ok(())
        })
        .await?;
        let mut marker = opened(&cluster, 2, None, ANN).await?;
        let acknowledged = json!([16, 2, {"acknowledge": true}, "marker", [1]]);
        ensure!(ask(&mut marker, acknowledged).await?.is_none());
        let mut found = false;
        loop {
            let event = within("an event", PATIENCE, watcher.message()).await?;
            match event[3]["topic"].as_str() {
                Some("marker") => break,
                topic => found |= topic == Some("app.last"),
            }
        }
        ensure!(found == seen, "{rules:?}: {found}");
    }
    Ok(())
}

/// Events of `app.secret` as a subscriber of `#` at each node gets them, until one of `app.end`: their positions.
async fn positions(raw: &mut Raw) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    loop {
        let event = within("an event", PATIENCE, raw.message()).await?;
        ensure!(event[0] == 36, "{event}");
        match event[3]["topic"].as_str() {
            Some("app.end") => return Ok(found),
            Some("app.secret") => found.push(event[2].as_u64().context("no position")?),
            topic => anyhow::bail!("{topic:?}"),
        }
    }
}

#[tokio::test]
async fn a_change_under_load_takes_effect_at_one_position_at_all_nodes() -> Result<()> {
    let cluster = cluster_with_joe().await?;
    set_app(&cluster, 1, APP).await?;
    let mut readers = Vec::new();
    for node in 1..=3 {
        for who in [ANN, JOE] {
            let mut raw = opened(&cluster, node, None, who).await?;
            ensure!(ask(&mut raw, json!([32, 1, {}, "app.#"])).await?.is_none());
            readers.push((who == JOE, raw));
        }
    }
    let mut publisher = opened(&cluster, 3, None, ANN).await?;
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let load = tokio::spawn(async move {
        let mut count = 0;
        while !*stopped.borrow_and_update() && count < 200_000 {
            let mut burst = Vec::new();
            for _ in 0..50 {
                count += 1;
                burst.extend(frame(
                    &json!([16, count, {"exclude_me": false}, "app.secret", [1]]).to_string(),
                ));
            }
            let last = json!([16, count + 1, {"acknowledge": true}, "app.secret", [1]]);
            publisher.send(&burst).await?;
            ask(&mut publisher, last).await?;
            count += 1;
        }
        ask(&mut publisher, json!([16, count + 1, {"acknowledge": true}, "app.end", [1]])).await?;
        anyhow::Ok(())
    });
    let deny = [APP, &["deny subscribe app.secret"]].concat();
    let mut changes = Vec::new();
    for round in 0..6 {
        let rules = if round % 2 == 0 { &deny[..] } else { APP };
        changes.push(set_app(&cluster, 1 + round % 3, rules).await?);
    }
    stop.send_replace(true);
    load.await??;
    let allowed = |at: u64| changes.iter().filter(|change| **change < at).count() % 2 == 0;
    let mut all = Vec::new();
    for (is_joe, raw) in &mut readers {
        let seen = positions(raw).await?;
        ensure!(seen.windows(2).all(|pair| pair[0] < pair[1]));
        if *is_joe {
            let wrong: Vec<_> = seen.iter().filter(|at| !allowed(**at)).collect();
            ensure!(wrong.is_empty(), "behind a change {changes:?}: {wrong:?}");
            ensure!(
                seen.last() > changes.last(),
                "it is allowed again: {:?} {changes:?}",
                seen.last()
            );
        } else if all.is_empty() {
            all = seen;
        } else {
            ensure!(seen == all, "who may see everything sees everything");
        }
    }
    let between = |pair: &[u64]| all.iter().filter(|at| (pair[0]..pair[1]).contains(*at)).count();
    ensure!(changes.windows(2).all(|pair| between(pair) > 0), "there was load: {changes:?}");
    Ok(())
}

/// How a call of `app.p` at a node ends: nothing if it reaches its callee, which is to answer it.
async fn call(caller: &mut Raw, callee: &mut Raw) -> Result<Option<String>> {
    caller.send(&frame(&json!([48, 9, {}, "app.p"]).to_string())).await?;
    tokio::select! {
        answer = caller.message() => {
            let answer = answer?;
            Ok(Some(answer[4].as_str().context("an error")?.to_owned()))
        }
        invocation = callee.message() => {
            let invocation = invocation?;
            callee.send(&frame(&json!([70, invocation[1], {}, [1]]).to_string())).await?;
            let answer = within("a result", PATIENCE, caller.message()).await?;
            ensure!(answer[0] == 50, "{answer}");
            Ok(None)
        }
    }
}

#[tokio::test]
async fn a_callee_that_may_not_be_one_any_more_gets_no_calls() -> Result<()> {
    let cluster = cluster_with_joe().await?;
    set_app(&cluster, 1, APP).await?;
    let mut callee = opened(&cluster, 2, None, JOE).await?;
    ensure!(ask(&mut callee, json!([64, 1, {}, "app.p"])).await?.is_none());
    let mut caller = opened(&cluster, 3, None, ANN).await?;
    let gone = "wamp.error.no_such_procedure".to_owned();
    let found = within("a call", PATIENCE, call(&mut caller, &mut callee)).await?;
    ensure!(found.is_none(), "{found:?}");
    set_app(&cluster, 3, &[APP, &["deny register app/p"]].concat()).await?;
    // The node that was asked obeys it already, and it is the caller's.
    let found = within("a call", PATIENCE, call(&mut caller, &mut callee)).await?;
    ensure!(found == Some(gone), "{found:?}");
    // The callee's session goes on.
    ensure!(ask(&mut callee, json!([64, 2, {}, "app.q"])).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn roles_have_their_limits() -> Result<()> {
    let cluster = cluster_with_joe().await?;
    let rules = |count: usize| (0..count).map(|at| format!("allow publish app/{at}/#\n")).collect();
    let path = cluster.folder().join("rules.txt");
    let set = ["role", "set", "app", "--file", path.to_str().context("its name is text")?];
    let write = |text: String| std::fs::write(&path, text);
    write(rules(10_001))?;
    refused(&cluster, ANN, &set, "more than 10000 rules").await?;
    write(rules(10_000))?;
    done(&cluster, 2, ANN, &set).await?;
    let mut raw = opened(&cluster, 3, None, JOE).await?;
    for (topic, allowed) in [("app.9999.x", true), ("app.10000.x", false)] {
        let asked = json!([16, 1, {"acknowledge": true}, topic, [1]]);
        let found = ask(&mut raw, asked).await?;
        ensure!(found.is_none() == allowed, "{topic}: {found:?}");
    }
    ensure!(done(&cluster, 3, ANN, &["role", "show", "app"]).await?.lines().count() == 10_000);
    let many = |count: usize| {
        let mut body = vec![0, 1];
        (0..count).for_each(|_| body.extend([string("other"), vec![0]].concat()));
        packet(0x82, &body)
    };
    let mut mqtt = opened(&cluster, 1, Some(4), JOE).await?;
    let (_, body) = code(&mut mqtt, &many(1_000)).await?;
    ensure!(body[2..].iter().all(|code| *code == 0x80) && body.len() == 1_002, "{}", body.len());
    mqtt.send(&many(1_001)).await?;
    let closed = within("it is closed", SOON, async { Ok(mqtt.packet().await) }).await?;
    ensure!(closed.is_err(), "{closed:02x?}");
    for (words, why) in [
        (&["role", "set", "app", "allow all # in nowhere"][..], "no realm nowhere"),
        (&["role", "set", "admin", "allow all #"], "allows everything"),
        (&["role", "set", "app", "allow publish a/#/b"], "rule 1: the pattern"),
        (&["role", "set", "app", "allow publish a/{name}"], "no placeholder"),
        (&["role", "remove", "none"], "no role none"),
        (&["role", "show", "none"], "no role none"),
        (&["can", "joe", "write", "a"], "no action"),
        (&["can", "nobody", "publish", "a"], "no user nobody"),
    ] {
        refused(&cluster, ANN, words, why).await?;
    }
    refused(&cluster, JOE, &["role", "set", "app", "allow all #"], "role admin").await?;
    refused(&cluster, None, &["role", "list"], "log in").await
}

//! Calls across all nodes, and their outcome when a callee, its node or the connection to it is lost.
//!
//! Invariant: a caller's answer is compared with what its callee says it did: a result carries its own call's number.
//!
//! Deliberately absent: the options' spelling, which the gates' own tests have.

mod kills;

use std::collections::BTreeMap;
use std::future::Future;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use vulpes_jepsen::code::{
    CALL, CANCEL, ERROR, INTERRUPT, INVOCATION, REGISTER, REGISTERED, RESULT, UNREGISTER,
    UNREGISTERED, YIELD,
};
use vulpes_jepsen::wait::{within, PATIENCE};
use vulpes_jepsen::wamp::Wamp;
use vulpes_jepsen::Cluster;

use crate::peer::Peer;

/// How long it may take until a caller gets the error that its callee is gone.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The outcome of a call: its result's arguments, or the error's URI.
type Outcome = std::result::Result<Value, String>;

impl Peer {
    async fn register(&mut self, procedure: &str, options: Value) -> Result<u64> {
        self.request += 1;
        self.wamp.send(&json!([REGISTER, self.request, options, procedure])).await?;
        let answer = within("REGISTERED", PATIENCE, self.receive()).await?;
        ensure!(answer[0] == REGISTERED && answer[1] == self.request, "no REGISTERED: {answer}");
        answer[2].as_u64().context("no registration")
    }

    async fn begin(&mut self, procedure: &str, args: Value, options: Value) -> Result<u64> {
        self.request += 1;
        self.wamp.send(&json!([CALL, self.request, options, procedure, args])).await?;
        Ok(self.request)
    }

    async fn outcome(&mut self, request: u64) -> Result<Outcome> {
        within("a call is answered", PATIENCE, async {
            let answer = self.receive().await?;
            outcome(&answer, request).with_context(|| format!("{answer} to call {request}"))
        })
        .await
    }

    async fn call(&mut self, procedure: &str, args: Value) -> Result<Outcome> {
        let request = self.begin(procedure, args, json!({})).await?;
        self.outcome(request).await
    }

    /// The next event of this topic.
    async fn meta_event(&mut self, topic: &str) -> Result<Value> {
        loop {
            let event = within(topic, PATIENCE, self.receive()).await?;
            if event[3]["topic"] == topic {
                return Ok(event);
            }
        }
    }

    /// Calls until the node knows of the procedure.
    async fn reach(&mut self, procedure: &str, args: Value) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.call(procedure, args.clone()).await? {
                Ok(result) => return Ok(result),
                Err(uri) if uri == "wamp.error.no_such_procedure" => {}
                Err(uri) => bail!("{procedure}: {uri}"),
            }
            ensure!(Instant::now() < deadline, "nobody knows {procedure}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn outcome(answer: &Value, request: u64) -> Option<Outcome> {
    match answer[0].as_u64() {
        Some(RESULT) if answer[1] == request => {
            let args = answer.get(3).cloned().unwrap_or_else(|| json!([]));
            Some(Ok(args))
        }
        Some(ERROR) if answer[2] == request => {
            Some(Err(answer[4].as_str().unwrap_or_default().to_owned()))
        }
        _ => None,
    }
}

/// A callee that answers each invocation with its arguments and its own name.
struct Callee(JoinHandle<Result<()>>);

impl Drop for Callee {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Callee {
    async fn echo(
        cluster: &Cluster,
        node: u64,
        options: Value,
        name: &'static str,
    ) -> Result<Self> {
        let answer = move |args: Value| async move { json!([args[0], name]) };
        Self::start(cluster, node, options, answer).await
    }

    /// Starts a callee that answers each invocation independently.
    async fn start<F, A>(cluster: &Cluster, node: u64, options: Value, answer: F) -> Result<Self>
    where
        F: Fn(Value) -> A + Send + 'static,
        A: Future<Output = Value> + Send + 'static,
    {
        let mut peer = Peer::at(cluster, node).await?;
        peer.register("p", options).await?;
        let (results, mut done) = tokio::sync::mpsc::channel(1000);
        Ok(Self(tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = peer.receive() => {
                        let message = message?;
                        if message[0] != INVOCATION {
                            continue;
                        }
                        let args = message.get(4).cloned().unwrap_or_default();
                        let (id, answering) = (message[1].clone(), answer(args));
                        let results = results.clone();
                        tokio::spawn(async move {
                            let _ = results.send(json!([YIELD, id, {}, answering.await])).await;
                        });
                    }
                    Some(result) = done.recv() => peer.wamp.send(&result).await?,
                }
            }
        })))
    }
}

/// Waits until all nodes know this many registrations.
pub(crate) async fn registered(cluster: &Cluster, count: usize) -> Result<()> {
    for node in 1..=3 {
        let mut peer = Peer::at(cluster, node).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let all = peer.call("wamp.registration.list", json!([])).await?;
            let all = all.map_err(|uri| anyhow::anyhow!(uri))?;
            let lists =
                ["exact", "prefix", "wildcard"].map(|how| all[0][how].as_array().map(Vec::len));
            if lists.iter().flatten().sum::<usize>() == count {
                break;
            }
            ensure!(Instant::now() < deadline, "node {node} knows of {all}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_procedure_is_called_from_every_node() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut callee = Peer::at(&cluster, 1).await?;
    let registration = callee.register("calls.add", json!({ "disclose_caller": true })).await?;
    registered(&cluster, 1).await?;
    for node in 1..=3 {
        let mut caller = Peer::at(&cluster, node).await?;
        let options = json!({ "receive_progress": true });
        let request = caller.begin("calls.add", json!([node, 2]), options).await?;
        let invocation = within("an invocation", PATIENCE, callee.receive()).await?;
        ensure!(invocation[0] == INVOCATION && invocation[2] == registration, "{invocation}");
        ensure!(
            invocation[3]["caller"].is_u64() && invocation[4] == json!([node, 2]),
            "{invocation}"
        );
        let id = &invocation[1];
        callee.wamp.send(&json!([YIELD, id, { "progress": true }, ["half"]])).await?;
        callee.wamp.send(&json!([YIELD, id, {}, [node + 2]])).await?;
        // Late, and without a receiver.
        callee.wamp.send(&json!([YIELD, id, {}, ["again"]])).await?;
        let part = within("a part", PATIENCE, caller.receive()).await?;
        ensure!(part == json!([RESULT, request, { "progress": true }, ["half"]]), "{part}");
        ensure!(caller.outcome(request).await? == Ok(json!([node + 2])));

        let request = caller.begin("calls.add", json!([]), json!({})).await?;
        let invocation = within("an invocation", PATIENCE, callee.receive()).await?;
        let error = json!([ERROR, INVOCATION, invocation[1], {}, "app.error.x", ["why"]]);
        callee.wamp.send(&error).await?;
        let answer = within("an error", PATIENCE, caller.receive()).await?;
        ensure!(answer == json!([ERROR, CALL, request, {}, "app.error.x", ["why"]]), "{answer}");
        let request = caller.begin("calls.add", json!([]), json!({ "timeout": 50 })).await?;
        ensure!(caller.outcome(request).await? == Err("wamp.error.timeout".into()));
        within("an invocation", PATIENCE, callee.receive()).await?;
    }
    callee.wamp.send(&json!([UNREGISTER, 9, registration])).await?;
    let answer = within("UNREGISTERED", PATIENCE, callee.receive()).await?;
    ensure!(answer == json!([UNREGISTERED, 9]), "{answer}");
    registered(&cluster, 0).await?;
    let mut caller = Peer::at(&cluster, 2).await?;
    let outcome = caller.call("calls.add", json!([])).await?;
    ensure!(outcome == Err("wamp.error.no_such_procedure".into()), "{outcome:?}");
    cluster.verify(1).await
}

#[tokio::test]
async fn a_callee_that_goes_is_told_of_at_once() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    for blow in ["session", "node"] {
        let mut callee = Peer::at(&cluster, 2).await?;
        callee.register("p", json!({ "concurrency": 1 })).await?;
        registered(&cluster, 1).await?;
        let mut caller = Peer::at(&cluster, 1).await?;
        let request = caller.begin("p", json!([]), json!({})).await?;
        within("an invocation", PATIENCE, callee.receive()).await?;
        let waiting = caller.begin("p", json!([]), json!({})).await?;
        let began = Instant::now();
        match blow {
            "session" => drop(callee),
            _ => cluster.node_mut(2).kill().await?,
        }
        let mut outcomes = BTreeMap::new();
        for _ in 0..2 {
            let answer = within("an error", PATIENCE, caller.receive()).await?;
            outcomes.insert(answer[2].as_u64(), answer[4].clone());
        }
        let elapsed = began.elapsed();
        println!("the end of the callee's {blow} was told in {elapsed:?}");
        ensure!(outcomes[&Some(request)] == "wamp.error.canceled", "{outcomes:?}");
        ensure!(outcomes.contains_key(&Some(waiting)), "{outcomes:?}");
        ensure!(elapsed < AT_ONCE, "{elapsed:?}");
        registered(&cluster, 0).await.or_else(|error| match blow {
            // Its node is down, and can't be asked.
            "node" => Ok(()),
            _ => Err(error),
        })?;
    }
    // The order shows that the callee is gone: from then on, calls no longer go there.
    let mut caller = Peer::at(&cluster, 3).await?;
    let deadline = Instant::now() + PATIENCE;
    while caller.call("p", json!([])).await? != Err("wamp.error.no_such_procedure".into()) {
        ensure!(Instant::now() < deadline, "the callee's node is dead, and its callee is not");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.restart(2).await?;
    let _callee = Callee::echo(&cluster, 2, json!({}), "back").await?;
    ensure!(caller.reach("p", json!([1])).await? == json!([1, "back"]));
    Ok(())
}

#[tokio::test]
async fn a_caller_that_goes_or_changes_its_mind_interrupts() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let mut callee = Wamp::open(cluster.node(1).wamp()).await?;
    let roles = json!({ "callee": { "features": { "call_canceling": true } } });
    callee.send(&json!([1, "realm1", { "roles": roles }])).await?;
    within("WELCOME", PATIENCE, async { callee.receive().await?.context("closed") }).await?;
    let mut callee = Peer { wamp: callee, request: 0 };
    callee.register("p", json!({})).await?;
    registered(&cluster, 1).await?;
    for blow in ["cancel", "session", "node"] {
        let mut caller = Peer::at(&cluster, 3).await?;
        let request = caller.begin("p", json!([]), json!({})).await?;
        let invocation = within("an invocation", PATIENCE, callee.receive()).await?;
        match blow {
            "cancel" => {
                caller.wamp.send(&json!([CANCEL, request, { "mode": "killnowait" }])).await?;
                ensure!(caller.outcome(request).await? == Err("wamp.error.canceled".into()));
            }
            "session" => drop(caller),
            _ => cluster.node_mut(3).kill().await?,
        }
        let interrupt = within("INTERRUPT", PATIENCE, callee.receive()).await?;
        ensure!(interrupt[0] == INTERRUPT && interrupt[1] == invocation[1], "{blow}: {interrupt}");
        callee.wamp.send(&json!([ERROR, INVOCATION, invocation[1], {}, "stopped"])).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_callee_works_on_so_many_at_once_and_the_others_wait() -> Result<()> {
    const CONCURRENCY: usize = 2;
    let cluster = crate::cluster().nodes(3).start().await?;
    let busy = Arc::<AtomicUsize>::default();
    let most = Arc::<AtomicUsize>::default();
    let (now, peak) = (busy.clone(), most.clone());
    let answer = move |args: Value| {
        let (now, peak) = (now.clone(), peak.clone());
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            args
        }
    };
    let options = json!({ "concurrency": CONCURRENCY });
    let _callee = Callee::start(&cluster, 2, options, answer).await?;
    registered(&cluster, 1).await?;
    let mut callers = Vec::new();
    for node in 1..=3 {
        let mut caller = Peer::at(&cluster, node).await?;
        callers.push(tokio::spawn(async move {
            for number in 0..20 {
                caller.begin("p", json!([number]), json!({})).await?;
            }
            for request in 1..=20 {
                // First come, first served: a caller's calls are answered in order, except for those in flight
                // together.
                let answer = within("an answer", PATIENCE, caller.receive()).await?;
                ensure!(answer[0] == RESULT, "{request}: {answer}");
                ensure!(answer[3][0] == json!(answer[1].as_u64().unwrap_or(0) - 1), "{answer}");
            }
            anyhow::Ok(())
        }));
    }
    for caller in callers {
        caller.await??;
    }
    ensure!(most.load(Ordering::SeqCst) == CONCURRENCY, "{most:?} at once");
    Ok(())
}

#[tokio::test]
async fn callees_at_three_nodes_have_their_turns() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let shared = || json!({ "invoke": "roundrobin" });
    let mut callees = Vec::new();
    for (node, name) in [(1, "one"), (2, "two"), (3, "three")] {
        callees.push(Callee::echo(&cluster, node, shared(), name).await?);
    }
    for node in 1..=3 {
        let mut caller = Peer::at(&cluster, node).await?;
        let deadline = Instant::now() + PATIENCE;
        // A node that is behind knows only some of them.
        loop {
            let id = caller.call("wamp.registration.match", json!(["p"])).await?;
            let id = id.map_err(|uri| anyhow::anyhow!(uri))?[0].clone();
            let count = caller.call("wamp.registration.count_callees", json!([id])).await?;
            if count == Ok(json!([3])) {
                break;
            }
            ensure!(Instant::now() < deadline, "node {node} knows of {count:?} callees");
        }
        let mut counts = BTreeMap::<String, usize>::new();
        for number in 0..12 {
            let result = caller.call("p", json!([number])).await?;
            let result = result.map_err(|uri| anyhow::anyhow!(uri))?;
            ensure!(result[0] == number, "{result}");
            *counts.entry(result[1].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        ensure!(counts.values().all(|count| *count == 4) && counts.len() == 3, "{counts:?}");
    }
    Ok(())
}

#[tokio::test]
async fn all_nodes_tell_the_same_of_sessions_and_registrations() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut watcher = Peer::at(&cluster, 3).await?;
    watcher.wamp.send(&json!([32, 1, { "match": "prefix" }, "wamp.session."])).await?;
    let subscribed = within("SUBSCRIBED", PATIENCE, watcher.receive()).await?;
    ensure!(subscribed[0] == 33, "{subscribed}");
    let mut callee = Peer::at(&cluster, 1).await?;
    let joined = watcher.meta_event("wamp.session.on_join").await?;
    let details = &joined[4][0];
    ensure!(details["authrole"] == "anonymous" && details["authid"] == "anonymous", "{joined}");
    let session = details["session"].clone();
    let id = callee.register("a..c", json!({ "match": "wildcard", "invoke": "last" })).await?;
    registered(&cluster, 1).await?;
    // Each peer checks one node; all are connected before the first one checks.
    let mut peers = vec![Peer::at(&cluster, 1).await?, Peer::at(&cluster, 2).await?];
    peers.push(Peer::at(&cluster, 3).await?);
    let mut seen = Vec::new();
    for peer in &mut peers {
        let deadline = Instant::now() + PATIENCE;
        while peer.call("wamp.session.count", json!([])).await? != Ok(json!([5])) {
            ensure!(Instant::now() < deadline, "not all sessions are known");
        }
        let mut answers = Vec::new();
        for (procedure, args) in [
            ("wamp.session.list", json!([])),
            ("wamp.session.list", json!([["anonymous"]])),
            ("wamp.session.count", json!([["nobody"]])),
            ("wamp.session.get", json!([session])),
            ("wamp.session.get", json!([4711])),
            ("wamp.session.get", json!(["x"])),
            ("wamp.registration.list", json!([])),
            ("wamp.registration.get", json!([id])),
            ("wamp.registration.get", json!([4711])),
            ("wamp.registration.lookup", json!(["a..c", { "match": "wildcard" }])),
            ("wamp.registration.lookup", json!(["a..c"])),
            ("wamp.registration.match", json!(["a.b.c"])),
            ("wamp.registration.list_callees", json!([id])),
            ("wamp.registration.count_callees", json!([id])),
            ("wamp.session.kill", json!([session])),
        ] {
            answers.push(peer.call(procedure, args).await?);
        }
        seen.push(answers);
    }
    ensure!(seen.iter().all(|answers| *answers == seen[0]), "{seen:#?}");
    let answers = &seen[0];
    ensure!(answers[0] == answers[1] && answers[2] == Ok(json!([0])), "{answers:#?}");
    ensure!(answers[3] == Ok(json!([details])), "{answers:#?}");
    ensure!(answers[4] == Err("wamp.error.no_such_session".into()), "{answers:#?}");
    ensure!(answers[5] == Err("wamp.error.invalid_argument".into()), "{answers:#?}");
    ensure!(answers[6] == Ok(json!([{ "exact": [], "prefix": [], "wildcard": [id] }])));
    let got = answers[7].clone().unwrap_or_default();
    ensure!(got[0]["uri"] == "a..c" && got[0]["match"] == "wildcard", "{got}");
    ensure!(got[0]["invoke"] == "last" && got[0]["id"] == id, "{got}");
    ensure!(got[0]["created"].as_str().is_some_and(|time| time.ends_with('Z')), "{got}");
    ensure!(answers[8] == Err("wamp.error.no_such_registration".into()), "{answers:#?}");
    ensure!(answers[9] == Ok(json!([id])) && answers[10] == Ok(json!([null])), "{answers:#?}");
    ensure!(answers[11] == Ok(json!([id])), "{answers:#?}");
    ensure!(answers[12] == Ok(json!([[session]])) && answers[13] == Ok(json!([1])), "{answers:#?}");
    ensure!(answers[14] == Err("wamp.error.no_such_procedure".into()), "{answers:#?}");

    drop(callee);
    loop {
        let event = watcher.meta_event("wamp.session.on_leave").await?;
        if event[4][0] == session {
            ensure!(event[4] == json!([session, "anonymous", "anonymous"]), "{event}");
            return Ok(());
        }
    }
}

#[tokio::test]
async fn the_command_calls() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let _callee = Callee::echo(&cluster, 1, json!({}), "echo").await?;
    registered(&cluster, 1).await?;
    let run = |node: u64, line: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vulpes"));
        let url = format!("ws://{}/", cluster.node(node).wamp());
        command.arg("call").args(["--node", &url]).args(line);
        command.stdin(Stdio::null()).kill_on_drop(true);
        async move {
            let output = within("a command ends", PATIENCE, async { Ok(command.output().await?) });
            let output = output.await?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            anyhow::Ok((output.status.code(), text, complaint))
        }
    };
    let (code, text, complaint) = run(2, &["p", r#"{"n": 1}"#, "--timeout", "10s"]).await?;
    ensure!((code, text.as_str()) == (Some(0), r#"[{"n":1},"echo"]"#), "{text} {complaint}");
    let (_, text, _) = run(3, &["wamp.session.count"]).await?;
    ensure!(text.parse::<u64>().is_ok_and(|count| count >= 2), "{text}");
    let (code, text, complaint) = run(3, &["nobody.has.this"]).await?;
    ensure!(code == Some(1) && text.is_empty(), "{code:?} {text}");
    ensure!(complaint.contains("wamp.error.no_such_procedure"), "{complaint}");
    Ok(())
}

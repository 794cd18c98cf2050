//! Stock clients call each other: every callee at one node, every caller at another.
//!
//! Invariant: a caller's output for a call is the same, whatever languages and serializers the two clients use.
//!
//! Deliberately absent: failing nodes (`crate::calls`).

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use vulpes_jepsen::wait::until;

use super::kinds::{installed, Client, Protocol};
use super::{ensure_required, PATIENCE};

/// Requests to a callee, and the expected results.
fn table(callee: &str) -> Vec<(Value, Value)> {
    let procedure = |name: &str| format!("{callee}.{name}");
    let call = |name: &str, args: Value, kwargs: Value| json!({ "procedure": procedure(name), "args": args, "kwargs": kwargs });
    let value = |name: &str, progress: Value, value: Value| json!({ "procedure": procedure(name), "progress": progress, "value": value });
    let nested = json!({ "list": [1, null, "ü"] });
    vec![
        (call("echo", json!([nested]), json!({})), value("echo", json!([]), nested.clone())),
        (
            call("echo", json!([1, "two"]), json!({ "k": 3 })),
            value("echo", json!([]), json!({ "args": [1, "two"], "kwargs": { "k": 3 } })),
        ),
        (
            call("echo", json!([{ "$hex": "00ff10" }]), json!({})),
            json!({ "procedure": procedure("echo"), "progress": [], "binary": "00ff10" }),
        ),
        (call("parts", json!([3]), json!({})), value("parts", json!([1, 2, 3]), json!("done"))),
        (
            call("fail", json!(["why"]), json!({ "k": 1 })),
            json!({
                "procedure": procedure("fail"), "error": "app.error.no",
                "args": ["why"], "kwargs": { "k": 1 },
            }),
        ),
        (
            call("any.thing", json!([]), json!({})),
            value("any.thing", json!([]), json!(procedure("any.thing"))),
        ),
    ]
}

#[tokio::test]
async fn every_caller_reaches_every_callee_at_another_node() -> Result<()> {
    let clients = installed();
    ensure_required(&clients)?;
    let is_wamp = |client: &&Client| client.protocol() == Protocol::Wamp;
    let clients: Vec<&Client> = clients.iter().filter(is_wamp).collect();
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut callees = Vec::new();
    for client in &clients {
        callees.push(client.serve(cluster.node(1))?);
    }
    for callee in &callees {
        until("a callee is ready", PATIENCE, || async { callee.ready() }).await?;
    }
    crate::calls::registered(&cluster, 4 * clients.len()).await?;

    let table: Vec<_> = clients.iter().flat_map(|client| table(&client.callee())).collect();
    let (calls, expected): (Vec<Value>, Vec<Value>) = table.into_iter().unzip();
    let mut callers = Vec::new();
    for (client, node) in clients.iter().zip([2, 3].into_iter().cycle()) {
        callers.push((client.name(), client.call(cluster.node(node), &calls).await?));
    }
    for (name, caller) in &mut callers {
        caller.finish(PATIENCE).await.with_context(|| format!("{name} calls"))?;
        let mut called = caller.called();
        ensure!(called.len() == expected.len(), "{name} shows {} calls", called.len());
        for wanted in &expected {
            let at = called.iter().position(|shown| shown == wanted);
            let at = at.with_context(|| format!("{name}: {wanted} is not in {called:#?}"))?;
            called.swap_remove(at);
        }
    }
    Ok(())
}

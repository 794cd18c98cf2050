//! `vulpes bench` against real nodes: everything it can measure, for a second each.
//!
//! Deliberately absent: speed. A test's machine is never quiet.

use anyhow::{ensure, Context, Result};
use serde_json::Value;
use tokio::process::Command;
use vulpes_jepsen::Cluster;

/// Runs the bench for a second, and returns its JSON.
async fn bench(cluster: &Cluster, line: &str) -> Result<Value> {
    let short = "--connections 3 --window 8 --seconds 1 --warmup 0 --json --fsync-dir";
    let output = Command::new(env!("CARGO_BIN_EXE_vulpes"))
        .arg("bench")
        .args(line.split_whitespace())
        .args(short.split_whitespace())
        .arg(cluster.folder())
        .kill_on_drop(true)
        .output()
        .await?;
    let (printed, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{line}: {}\n{printed}{complaint}", output.status);
    serde_json::from_str(&printed).with_context(|| format!("{line} printed {printed}"))
}

/// Runs another command, and returns its output.
async fn vulpes(arguments: &[&str]) -> Result<String> {
    let program = env!("CARGO_BIN_EXE_vulpes");
    let output = Command::new(program).args(arguments).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn number(report: &Value, name: &str) -> Result<u64> {
    let value = report.pointer(name).and_then(Value::as_u64);
    value.with_context(|| format!("no number at {name} of {report}"))
}

/// Nodes' addresses in both protocols, as `--targets` takes them.
fn targets(cluster: &Cluster) -> [(&'static str, String); 2] {
    let mqtt: Vec<_> = cluster.nodes().iter().map(|node| node.mqtt().to_string()).collect();
    let wamp: Vec<_> =
        cluster.nodes().iter().map(|node| format!("ws://{}/", node.wamp())).collect();
    [("mqtt", mqtt.join(",")), ("wamp", wamp.join(","))]
}

#[tokio::test]
async fn the_bench_measures_all_that_a_cluster_does() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    for (protocol, targets) in targets(&cluster) {
        let common = format!("--protocol {protocol} --targets {targets}");
        let replay = bench(&cluster, &format!("{common} --subscribers 2 --replay")).await?;
        let acknowledged = number(&replay, "/acknowledged")?;
        ensure!(acknowledged > 0, "{replay}");
        // Each subscriber reads everything that was published, also after the measured time.
        ensure!(number(&replay, "/deliveries")? >= acknowledged * 2, "{replay}");
        ensure!(replay["deliveries_per_second"].as_f64() > Some(0.0), "{replay}");
        ensure!(number(&replay, "/disk/median_us")? > 0, "{replay}");
        // Each node has its own figures, for its own publishers and its own subscribers.
        ensure!(number(&replay, "/targets/2/latency/p99_us")? > 0, "{replay}");
        ensure!(number(&replay, "/targets/1/delivery/p99_us")? > 0, "{replay}");
        ensure!(replay.pointer("/targets/2/delivery").is_none(), "{replay}");

        let reads = bench(&cluster, &format!("{common} --retained --size 16")).await?;
        ensure!(number(&reads, "/acknowledged")? > 0, "{reads}");
        ensure!(reads["measured"] == "read_retained", "{reads}");

        let large = bench(&cluster, &format!("{common} --size 900000 --subscribers 1")).await?;
        ensure!(number(&large, "/acknowledged")? > 0, "{large}");
    }
    // The bench has deleted its retained values: only this one exists.
    let node = format!("ws://{}/", cluster.node(1).wamp());
    vulpes(&["set", "bench.here", "1", "--node", &node]).await?;
    let kept = vulpes(&["get", "bench.#", "--node", &node]).await?;
    ensure!(kept.lines().count() == 1 && kept.contains("bench.here"), "{kept}");
    Ok(())
}

#[tokio::test]
async fn a_cluster_is_compared_with_itself() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    let node = cluster.node(1);
    let picture = cluster.folder().join("compare.svg");
    let line = format!(
        "compare --rounds 2 --subscribers 1 --target mqtt={} --target wamp=ws://{}/:wamp --svg {}",
        node.mqtt(),
        node.wamp(),
        picture.display(),
    );
    let report = bench(&cluster, &line).await?;
    ensure!(number(&report, "/rounds")? == 2, "{report}");
    let targets = report["targets"].as_array().context("no targets")?;
    ensure!(targets.len() == 2 && targets[1]["name"] == "wamp", "{report}");
    for target in targets {
        ensure!(number(target, "/unclean_rounds")? == 0, "{report}");
        for figure in ["acknowledged_per_second", "deliveries_per_second", "p50_us", "p99_us"] {
            let at = |name: &str| target[figure][name].as_f64().context("no such figure");
            let (min, median, max) = (at("min")?, at("median")?, at("max")?);
            ensure!(0.0 < min && min <= median && median <= max, "{figure}: {report}");
            ensure!(at("ratio")? > 0.0, "{figure}: {report}");
        }
    }
    ensure!(targets[0]["p50_us"]["ratio"] == 1.0, "{report}");
    let drawn = std::fs::read_to_string(&picture)?;
    ensure!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n"), "{drawn}");
    Ok(())
}

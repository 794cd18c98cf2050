//! What operators see: probes, `vulpes status`, the log.
//!
//! Invariant: a node that can't serve reports that to every probe; a node that can serve answers under any load.
//!
//! Deliberately absent: single answers of admin HTTP, which its own tests have.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use vulpes_jepsen::node::Launch;
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;

/// Time limit for a probe's answer.
const PROBED: Duration = Duration::from_secs(10);

const VULPES: &str = env!("CARGO_BIN_EXE_vulpes");

async fn status(cluster: &Cluster, more: &[&str]) -> Result<Output> {
    let admin = format!("http://{}", cluster.node(1).admin());
    let mut command = Command::new(VULPES);
    command.args(["status", "--node-admin", &admin]).args(more).stdin(Stdio::null());
    within("vulpes status", PATIENCE, async { Ok(command.output().await?) }).await
}

async fn unready(cluster: &Cluster, id: u64) -> Result<()> {
    until("the node is not ready", PATIENCE, || async move {
        let page = cluster.page(id, "/readyz").await?;
        ensure!(page.status == 503 && page.body.contains("sync"), "{page:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_node_that_no_majority_stands_behind_is_not_ready() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let all = status(&cluster, &[]).await?;
    ensure!(all.status.success(), "all are ready: {all:?}");

    // The remaining node still remembers a leader, whether it led itself or followed.
    let leader = cluster.leader().await?;
    for left in [leader, leader % 3 + 1] {
        let gone: Vec<u64> = (1..=3).filter(|id| *id != left).collect();
        for id in &gone {
            cluster.node_mut(*id).kill().await?;
        }
        unready(&cluster, left).await?;
        let told = cluster.status(left).await?;
        ensure!(told["ready"] == false, "{told}");
        for id in &gone {
            cluster.node_mut(*id).start()?;
        }
        cluster.ready().await?;
    }

    cluster.node_mut(2).kill().await?;
    let told = status(&cluster, &[]).await?;
    let shown = String::from_utf8_lossy(&told.stdout);
    ensure!(told.status.code() == Some(1) && shown.contains("no answer"), "{told:?}");
    cluster.node_mut(2).start()?;
    let waited = status(&cluster, &["--wait", "30s"]).await?;
    ensure!(waited.status.success(), "{waited:?}");

    let log = cluster.node(leader).log_tail();
    for word in
        ["started: Vulpes", "leads sync in term", " ready", "not ready: ", "can't be reached"]
    {
        ensure!(log.contains(word), "no word of {word:?} in\n{log}");
    }
    for debug in ["Some(", "None", "Ok(", "Err(", "NodeId(", " { "] {
        ensure!(!log.contains(debug), "{debug:?} in\n{log}");
    }
    Ok(())
}

/// An acknowledged event is in the log, but not immediately on every storage's disk.
#[tokio::test]
async fn a_proof_holds_all_that_was_acknowledged_before_it() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut client = cluster.wamp(2).await?;
    let admin = format!("http://{}", cluster.node(1).admin());
    for number in 0..12 {
        let position = client.publish_and_wait("load.a", &format!("a-{number}")).await?;
        let position = position.context("WAMP tells the position")?;
        let mut command = Command::new(VULPES);
        command.args(["verify", "--json", "--node-admin", &admin]).stdin(Stdio::null());
        let told = within("vulpes verify", PATIENCE, async { Ok(command.output().await?) }).await?;
        ensure!(told.status.success(), "{told:?}");
        let proof: serde_json::Value = serde_json::from_slice(&told.stdout)?;
        // Positions count from 1, and each has an event.
        let events = proof["events"].as_u64().context("how many events")?;
        ensure!(events >= position, "position {position} is not in {proof}");
    }
    Ok(())
}

#[tokio::test]
async fn probes_are_answered_whoever_holds_connections() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    let mut held = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(cluster.node(1).admin()).await?;
        let begun: &[u8] = if number % 2 == 0 { b"" } else { b"GET /status HTTP/1.1\r\nHo" };
        stream.write_all(begun).await?;
        held.push(stream);
    }
    for path in ["/healthz", "/readyz", "/status"] {
        let page = within(path, PROBED, cluster.page(1, path)).await?;
        ensure!(page.status == 200, "{path}: {page:?}");
    }
    Ok(())
}

#[tokio::test]
async fn clients_leave_files_to_operators() -> Result<()> {
    let mut cluster = crate::cluster().nodes(1).prepare()?;
    let shell = ["sh", "-c", "ulimit -n 300; exec \"$@\"", "sh"].map(str::to_owned);
    cluster.node_mut(1).launch(Launch { through: shell.to_vec(), ..Launch::default() });
    cluster.restart(1).await?;
    let mut held = Vec::new();
    for _ in 0..250 {
        held.push(TcpStream::connect(cluster.node(1).mqtt()).await?);
    }
    let page = within("/healthz", PROBED, cluster.page(1, "/healthz")).await?;
    ensure!(page.status == 200, "{page:?}");
    // The system has accepted all of them; the node gets to the last ones a little later.
    until("some are turned away", PATIENCE, || async {
        let log = cluster.node(1).log_tail();
        ensure!(log.contains("turned away: 150 clients are connected"), "{log}");
        Ok(())
    })
    .await?;
    let log = cluster.node(1).log_tail();
    ensure!(log.matches("turned away").count() < 40, "{log}");
    Ok(())
}

/// A separate process, whose log filter is not set by the environment.
struct Logged {
    child: tokio::process::Child,
    log: std::path::PathBuf,
}

impl Logged {
    fn start(cluster: &Cluster, id: u64) -> Result<Self> {
        let log = cluster.folder().join(format!("logged-{id}"));
        let child = Command::new(VULPES)
            .args(["node", "--config"])
            .arg(cluster.node(id).config())
            .env_remove("VULPES_LOG")
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child, log })
    }

    fn text(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    async fn says(&self, word: &str) -> Result<()> {
        until(&format!("the log says {word:?}"), PATIENCE, || async move {
            let text = self.text()?;
            ensure!(text.contains(word), "{text}");
            Ok(())
        })
        .await
    }

    async fn hang_up(&self) -> Result<()> {
        let process = self.child.id().context("it runs")?;
        let kill = format!("kill -HUP {process}");
        let status = Command::new("sh").arg("-c").arg(&kill).status().await?;
        ensure!(status.success(), "{kill}: {status}");
        Ok(())
    }
}

#[tokio::test]
async fn sighup_reads_the_log_filter_again() -> Result<()> {
    let cluster = crate::cluster().nodes(1).prepare()?;
    let good = cluster.config_of(1)?;
    let node = Logged::start(&cluster, 1)?;
    node.says(" ready").await?;
    ensure!(!node.text()?.contains("DEBUG"), "{}", node.text()?);

    cluster.node(1).configure(&format!("log = \"debug\"\n{good}"))?;
    node.hang_up().await?;
    node.says("reloaded on SIGHUP: the log is debug").await?;
    drop(TcpStream::connect(cluster.node(1).mqtt()).await?);
    node.says("DEBUG").await?;

    cluster.node(1).configure(&format!("log = \"loud\"\n{good}"))?;
    node.hang_up().await?;
    node.says("nothing changed").await?;
    node.says("\"loud\" is not a log filter").await?;
    let page = cluster.page(1, "/healthz").await?;
    ensure!(page.status == 200, "{page:?}");
    Ok(())
}

#[tokio::test]
async fn what_clients_do_again_and_again_fills_no_log() -> Result<()> {
    let cluster = crate::cluster().nodes(1).prepare()?;
    let node = Logged::start(&cluster, 1)?;
    node.says(" ready").await?;
    // A client that vanishes is not an error.
    for _ in 0..20 {
        let mut stream = TcpStream::connect(cluster.node(1).wamp()).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nUpgrade: webs").await?;
    }
    for _ in 0..300 {
        let mut stream = TcpStream::connect(cluster.node(1).wamp()).await?;
        // It may be closed before all of it is read.
        let _ = stream.write_all(b"nonsense\r\n\r\n").await;
    }
    node.says("client{protocol=WAMP peer=127.0.0.1:").await?;
    let text = node.text()?;
    let told: Vec<&str> = text.lines().filter(|line| line.contains("client{")).collect();
    ensure!(told.len() < 40, "{} lines", told.len());
    for line in told {
        ensure!(!line.contains("not finished"), "who vanished is blamed: {line}");
    }
    Ok(())
}

#[tokio::test]
async fn a_peer_whose_name_does_not_resolve_is_named() -> Result<()> {
    let cluster = crate::cluster().nodes(3).prepare()?;
    let peer = cluster.node(2).peer().to_string();
    let config = cluster.config_of(1)?.replace(&peer, "no.such.host.invalid:1735");
    cluster.node(1).configure(&config)?;
    let node = Logged::start(&cluster, 1)?;
    node.says("node 2 at no.such.host.invalid:1735 can't be reached").await?;
    node.says("the name \"no.such.host.invalid\" does not resolve").await
}

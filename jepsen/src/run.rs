//! One run: a cluster, clients, faults; then healing, and everything that a verdict needs.
//!
//! Invariant: whatever happens, processes, namespaces and links go away with the run. What can't be observed in the
//! end is an error of the harness, not a pass.
//!
//! Deliberately absent: judging (`crate::check`) and reporting (`crate::report`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout, Instant};

use crate::check::MARK;
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::http;
use crate::journal::Journal;
use crate::layout::Layout;
use crate::matrix::{LYING_DISK, PLANT};
use crate::nemesis::arena::{Arena, ARMED, FAULTS};
use crate::nemesis::schedule::{self, Agenda};
use crate::nemesis::NEMESES;
use crate::network::Network;
use crate::node::{Launch, Role};
use crate::op::{Died, Healed, Order, Plan, Row, State};
use crate::stage::{Door, Phase, Stage};
use crate::wait::until;
use crate::workload::{self, Answer, Asking, Draft};

/// Time limit for all nodes of a healed cluster to serve.
const HEAL: Duration = Duration::from_secs(60);

/// How long clients continue in the healed cluster.
const CALM: Duration = Duration::from_secs(2);

/// Time limit for clients to end.
const CLIENTS_END: Duration = Duration::from_secs(90);

/// Time limit for an event that marks the end, and how many times it is tried.
const MARKED: Duration = Duration::from_secs(12);
const TRIES: usize = 5;

/// A lease, plus time for the consequences of its end.
const LEASE: Duration = Duration::from_secs(6);

/// How many times to ask nodes for their state until all are seen at one slot, and the pause in between.
const STATES: usize = 60;
const STATES_PAUSE: Duration = Duration::from_millis(250);

/// How often to check that nodes still run.
const LOOK: Duration = Duration::from_millis(250);

/// The settings of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    pub plan: Plan,
    pub binary: PathBuf,
    /// The run's own folder.
    pub folder: PathBuf,
    /// A bug to plant in all nodes.
    pub planted: Option<&'static str>,
}

/// Carries out the whole run, up to a history that can be judged.
///
/// # Errors
/// If the harness could not do or observe what it has to.
pub async fn run(settings: &Settings) -> Result<()> {
    let plan = &settings.plan;
    let journal = Journal::create(&settings.folder)?;
    journal.nemesis("plan", plan);
    let (mut cluster, network) = build(settings)?;
    let needs_faults =
        NEMESES.iter().any(|(name, _, needs)| *needs && plan.nemeses.iter().any(|n| n == name));
    for id in plan.layout.nodes() {
        cluster.node_mut(id).start()?;
    }
    if needs_faults {
        armed(&cluster).await?;
    }
    cluster.ready().await?;
    let doors = plan.layout.of(Role::Entry).iter().map(|&id| {
        let node = cluster.node(id);
        Door { node: id, wamp: node.wamp(), mqtt: node.mqtt() }
    });
    let (phase, phases) = watch::channel(Phase::Work);
    let dice = Dice::new(plan.seed);
    let stage = Arc::new(Stage::new(journal.clone(), doors.collect(), phases, dice));
    let mut clients = JoinSet::new();
    for name in &plan.workloads {
        workload::start(name, &stage, &mut clients);
    }
    let mut arena = Arena::new(cluster, network, plan.layout.clone(), journal.clone());
    storm(plan, &mut arena).await;
    println!("  healing");
    let healed = arena.heal(HEAL).await;
    let lost = arena.lost.iter().copied().collect();
    journal.nemesis("healed", &Healed { lost });
    if let Err(error) = &healed {
        // The checks see it in the history: these nodes acknowledge nothing.
        println!("  {error:#}");
    }
    sleep(CALM).await;
    let floor = stage.known();
    let marks = mark(&stage, &arena).await;
    // There are no receivers only if no workload has clients that stay.
    let _ = phase.send(Phase::Finish { marks: Arc::new(marks), floor });
    println!("  waiting for {} clients to end", clients.len());
    let ended = timeout(CLIENTS_END, async { while clients.join_next().await.is_some() {} }).await;
    ensure!(ended.is_ok(), "clients did not end within {CLIENTS_END:?}");
    sleep(LEASE).await;
    look_at_all(&stage, &arena, &plan.layout).await;
    journal.finish()
}

/// The network, and a cluster in it that is not started yet.
fn build(settings: &Settings) -> Result<(Cluster, Option<Network>)> {
    let layout = &settings.plan.layout;
    let nodes = layout.nodes();
    let network = match Network::lay(&nodes) {
        Ok(network) => Some(network),
        Err(error) => {
            println!("  no network namespaces ({error:#}): nodes share the loopback interface, and no link can be cut");
            None
        }
    };
    let mut builder = Cluster::builder(&settings.binary).layout(layout).folder(&settings.folder);
    if let Some(network) = &network {
        builder = builder.addresses(nodes.iter().map(|node| (*node, network.address(*node))));
    }
    let mut cluster = builder.prepare()?;
    for &id in &nodes {
        let node = cluster.node_mut(id);
        let faults = node.folder().join(FAULTS);
        std::fs::create_dir_all(&faults)?;
        let through = network.as_ref().map(|network| {
            ["ip", "netns", "exec", &network.namespace(id)].map(str::to_owned).to_vec()
        });
        let mut environment =
            vec![("VULPES_FAULTS".to_owned(), faults.to_string_lossy().into_owned())];
        match settings.planted {
            Some(LYING_DISK) => std::fs::write(faults.join("disk"), "lies")?,
            Some(bug) => environment.push((PLANT.to_owned(), bug.to_owned())),
            None => {}
        }
        node.launch(Launch { through: through.unwrap_or_default(), environment, tied: true });
    }
    Ok((cluster, network))
}

/// Waits until all nodes confirm that they inject requested faults.
async fn armed(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let path = node.folder().join(FAULTS).join("armed");
        until("the router obeys", ARMED, || async {
            ensure!(path.exists(), "{} is not there", path.display());
            Ok(())
        })
        .await
        .context("this router was built without what these nemeses need; build it with: cargo build --features faults")?;
    }
    Ok(())
}

/// Injects the faults as planned; a failed one is tried again.
async fn storm(plan: &Plan, arena: &mut Arena) {
    let length = Duration::from_secs(plan.seconds);
    let blows = schedule::plan(plan.seed, &plan.nemeses, length, plan.layout.is_split());
    let begun = Instant::now();
    let mut coming = Agenda::new(blows, length);
    // Active faults: when each ends, and its number.
    let mut ends: Vec<(Instant, u64)> = Vec::new();
    while begun.elapsed() < length {
        let next = coming.next().map(|at| begun + at);
        let end = ends.iter().min().copied();
        let wake = [next, end.map(|(at, _)| at)].into_iter().flatten().min();
        let wake = wake.unwrap_or(begun + length).min(begun + length);
        sleep_until(wake.min(Instant::now() + LOOK)).await;
        arena.look().await;
        if let Some((at, number)) = end.filter(|(at, _)| *at <= Instant::now()) {
            ends.retain(|one| *one != (at, number));
            arena.relieve(number).await;
        } else if let Some(blow) = coming.take(begun.elapsed()) {
            match arena.strike(&blow).await {
                Some(number) => {
                    ends.push((Instant::now() + blow.lasts, number));
                    coming.struck(&blow.nemesis);
                }
                None => coming.again(blow, begun.elapsed()),
            }
        }
    }
}

/// Acknowledged events from each node that serves, after everything else.
async fn mark(stage: &Stage, arena: &Arena) -> Vec<(String, String)> {
    let mut marks = Vec::new();
    for &door in stage.doors.iter().filter(|door| !arena.lost.contains(&door.node)) {
        for base in workload::MARKED {
            let topic = format!("{base}.{MARK}");
            let Some(id) = mark_at(stage, door, &topic).await else {
                let silent = Died { node: door.node, told: excuse(arena, door.node).await };
                println!("  node {} acknowledges nothing: {}", silent.node, silent.told);
                stage.journal.nemesis("silent", &silent);
                break;
            };
            marks.push((topic, id));
        }
    }
    marks
}

/// The reason that a node gives for not serving.
async fn excuse(arena: &Arena, node: u64) -> String {
    let ready = match arena.cluster.page(node, "/readyz").await {
        Ok(answer) => format!("{} {}", answer.status, answer.body.trim()),
        Err(error) => format!("{error:#}"),
    };
    let complaint = arena.cluster.node(node).complaint().unwrap_or_default();
    format!("/readyz says {ready:?}, its log {complaint:?}")
}

async fn mark_at(stage: &Stage, door: Door, topic: &str) -> Option<String> {
    for _ in 0..TRIES {
        let id = stage.id("mark");
        let Some(mut session) = Asking::open(stage, MARK, door).await else { continue };
        let topic = topic.to_owned();
        let draft = Draft { f: "publish", topic, id: id.clone(), ..Draft::default() };
        if let Answer::At(_) = session.publish(stage, draft, MARKED).await {
            return Some(id);
        }
    }
    None
}

/// What every node shows in the end: all events, the order, its state. A node that can't show what it has is left to the
/// checks; the other nodes are still read.
async fn look_at_all(stage: &Stage, arena: &Arena, layout: &Layout) {
    let kept = |node: &u64| !arena.lost.contains(node);
    println!("  reading the logs of all nodes");
    for door in stage.doors.iter().filter(|door| kept(&door.node)) {
        if let Err(error) = workload::drain(stage, *door).await {
            println!("  node {}: {error:#}", door.node);
        }
    }
    for &node in layout.of(Role::Storage).iter().filter(|node| kept(node)) {
        if let Err(error) = read_order(stage, arena, node).await {
            println!("  node {node}: {error:#}");
        }
    }
    let readers: Vec<u64> = layout.readers().into_iter().filter(kept).collect();
    for _ in 0..STATES {
        let mut slots = Vec::new();
        for &node in &readers {
            match read_state(arena, node).await {
                Ok(state) => {
                    slots.push(state.slot);
                    stage.journal.nemesis("state", &state);
                }
                Err(error) => return println!("  node {node}: {error:#}"),
            }
        }
        if slots.windows(2).all(|two| two[0] == two[1]) {
            return;
        }
        sleep(STATES_PAUSE).await;
    }
}

async fn read_state(arena: &Arena, node: u64) -> Result<State> {
    let status = arena.cluster.status(node).await?;
    let slot = status["state"]["next_slot"].as_u64().context("no state in /status")?;
    let hash = status["state"]["hash"].as_str().context("no hash in /status")?.to_owned();
    Ok(State { node, slot, hash })
}

async fn read_order(stage: &Stage, arena: &Arena, node: u64) -> Result<()> {
    let admin = arena.cluster.node(node).admin();
    let mut from = 1;
    loop {
        let answer = http::get(admin, &format!("/log?from={from}")).await?;
        ensure!(answer.status == 200, "node {node}: {} {}", answer.status, answer.body);
        let page: Value = serde_json::from_str(&answer.body)?;
        let shown = page["rows"].as_array().context("no rows in /log")?;
        let rows: Vec<Row> = shown.iter().map(row).collect::<Result<_>>()?;
        let ended = rows.is_empty();
        from = rows.last().map_or(from, |row| row.slot + 1);
        stage.journal.nemesis("order", &Order { node, rows, ended });
        if ended {
            return Ok(());
        }
    }
}

/// A row as `/log` shows it.
fn row(shown: &Value) -> Result<Row> {
    let number = |value: &Value| value.as_u64().with_context(|| format!("a row {shown}"));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let segment = text(&shown["segment"]);
    let mut parts = segment.iter().flat_map(|text| text.split('/')).map(str::parse::<u64>);
    let mut part = |field: &str| match parts.next() {
        Some(part) => part.with_context(|| format!("a row {shown}")),
        None => number(&shown[field]),
    };
    Ok(Row {
        slot: number(&shown["slot"])?,
        base: number(&shown["base"])?,
        count: shown["count"].as_u64().unwrap_or(0),
        stamp: number(&shown["stamp"])?,
        step: text(&shown["kind"]).context("a row of no kind")?,
        entry: part("entry")?,
        incarnation: part("incarnation")?,
        number: segment.is_some().then(|| part("number")).transpose()?,
        checksum: text(&shown["checksum"]),
        body: text(&shown["body_checksum"]),
    })
}

/// The router's program: beside this one.
///
/// # Errors
/// If it is not there.
pub fn find_binary() -> Result<PathBuf> {
    let mine = std::env::current_exe()?;
    let folder = mine.parent().unwrap_or(Path::new("."));
    let binary = folder.join("vulpes");
    let release = if folder.ends_with("release") { " --release" } else { "" };
    ensure!(
        binary.exists(),
        "{} is not there. Build it: cargo build{release} --features faults (a release build asks for VULPES_FAULTS_IN_RELEASE=1)",
        binary.display()
    );
    Ok(binary)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_read_as_nodes_show_them() {
        let shown = json!({ "slot": 3, "stamp": 9, "base": 4, "kind": "segment", "segment": "1/2/7",
                            "count": 5, "length": 80, "checksum": "ab", "body_checksum": null });
        let expected = Row {
            slot: 3,
            base: 4,
            count: 5,
            stamp: 9,
            step: "segment".into(),
            entry: 1,
            incarnation: 2,
            number: Some(7),
            checksum: Some("ab".into()),
            body: None,
        };
        assert_eq!(row(&shown).unwrap(), expected);
        let shown = json!({ "slot": 1, "stamp": 9, "base": 1, "kind": "opened", "entry": 1, "incarnation": 2 });
        assert_eq!(row(&shown).unwrap().incarnation, 2);
        assert!(row(&json!({ "slot": 1 })).is_err());
    }
}

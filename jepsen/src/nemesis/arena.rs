//! The nemesis's view of the cluster: which nodes are down, frozen or cut off, and why.
//!
//! Invariant: whatever began a fault ends it. A node is started by the fault that took it down, and only if no other
//! fault keeps it down.
//!
//! Deliberately absent: the timing; see `schedule`.

mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde_json::Value;

use super::crowd::{self, Entrance};
use super::damage;
use super::schedule::{Aim, Planned};
use crate::client::Client;
use crate::dice::Dice;
use crate::http;
use crate::journal::Journal;
use crate::layout::Layout;
use crate::network::Network;
use crate::node::Role;
use crate::op::{Blow, Died};
use crate::wait::{until, within};
use crate::Cluster;

/// The error of a clock that was never set: 400 days, in milliseconds.
const FAR_OFF: i64 = 400 * 86_400_000;

/// Time limit for a node to confirm that it obeys.
pub const ARMED: Duration = Duration::from_secs(20);

/// Time limit for a stopped node to serve again, before the next is stopped.
const SERVES: Duration = Duration::from_secs(30);

/// The minimum age of a stale block.
const STALE: Duration = Duration::from_secs(1);

/// A node that has crashed this many times is not restarted any more.
const DEATHS: usize = 3;

/// Time limit for naming the leader.
const NAMED: Duration = Duration::from_millis(500);

/// The folder beside a node's data through which faults are requested.
pub const FAULTS: &str = "faults";

/// A fault at work.
#[derive(Debug)]
struct Active {
    blow: Blow,
    /// Links that were cut, and those that are bad.
    cuts: Vec<(u64, u64)>,
    bad: Vec<(u64, u64)>,
    /// Clients that put a load on nodes.
    clients: Vec<Client>,
}

/// See the top of the file.
#[derive(Debug)]
pub struct Arena {
    pub cluster: Cluster,
    pub network: Option<Network>,
    layout: Layout,
    journal: Arc<Journal>,
    active: BTreeMap<u64, Active>,
    /// Nodes that are down, and the faults that keep them down.
    down: BTreeMap<u64, BTreeSet<u64>>,
    /// The requested faults, by node and file: one word per fault.
    orders: BTreeMap<(u64, &'static str), BTreeMap<u64, String>>,
    /// Nodes whose disks were damaged.
    damaged: BTreeSet<u64>,
    /// Damaged nodes that refuse to continue.
    pub lost: BTreeSet<u64>,
    /// How often each node ended without a reason.
    deaths: BTreeMap<u64, usize>,
    next: u64,
}

impl Arena {
    #[must_use]
    pub fn new(
        cluster: Cluster,
        network: Option<Network>,
        layout: Layout,
        journal: Arc<Journal>,
    ) -> Self {
        Self {
            cluster,
            network,
            layout,
            journal,
            active: BTreeMap::new(),
            down: BTreeMap::new(),
            orders: BTreeMap::new(),
            damaged: BTreeSet::new(),
            lost: BTreeSet::new(),
            deaths: BTreeMap::new(),
            next: 0,
        }
    }

    fn ids(&self) -> Vec<u64> {
        self.cluster.nodes().iter().map(|node| node.id).collect()
    }

    /// Nodes that are running and can be hit.
    fn standing(&self) -> Vec<u64> {
        let stands =
            |id: &u64| !self.down.contains_key(id) && !self.lost.contains(id) && !self.is_dead(*id);
        self.ids().into_iter().filter(stands).collect()
    }

    /// Injects a fault; returns its number, which ends it.
    pub async fn strike(&mut self, planned: &Planned) -> Option<u64> {
        self.next += 1;
        let mut dice = Dice::new(planned.seed);
        let nodes = self.aim(planned, &mut dice).await;
        let among = planned.group.map_or(String::new(), |role| format!(" of {}", role.name()));
        let how = format!("{} {}{among}", planned.kind, planned.aim.name()).trim().to_owned();
        let nemesis = planned.nemesis.clone();
        let blow = Blow { number: self.next, nemesis, how, nodes, proof: String::new() };
        self.journal.nemesis("strike", &blow);
        let mut active = Active { blow, cuts: Vec::new(), bad: Vec::new(), clients: Vec::new() };
        match self.hurt(planned, &mut active, &mut dice).await {
            Ok(proof) => {
                active.blow.proof = proof;
                println!(
                    "    {} {} {:?}: {}",
                    active.blow.nemesis, active.blow.how, active.blow.nodes, active.blow.proof
                );
                self.journal.nemesis("start", &active.blow);
                self.active.insert(self.next, active);
                Some(self.next)
            }
            Err(error) => {
                active.blow.proof = format!("{error:#}");
                println!(
                    "    failed: {} {}: {}",
                    active.blow.nemesis, active.blow.how, active.blow.proof
                );
                // Its effects are undone.
                self.undo(&mut active).await;
                self.journal.nemesis("failed", &active.blow);
                None
            }
        }
    }

    /// The nodes that a fault can be aimed at.
    fn group(&self, planned: &Planned) -> Vec<u64> {
        let role = match planned.aim {
            Aim::Leader => Some(Role::Sync),
            Aim::Busiest => Some(Role::Entry),
            _ => planned.group,
        };
        role.map_or_else(|| self.ids(), |role| self.layout.of(role).to_vec())
    }

    /// The nodes that a fault hits. A fault that happens only once should hit a running node.
    async fn aim(&self, planned: &Planned, dice: &mut Dice) -> Vec<u64> {
        let aim = planned.aim;
        let mut nodes = self.group(planned);
        dice.shuffle(&mut nodes);
        nodes.sort_by_key(|id| self.lost.contains(id));
        let minority = (nodes.len() - 1) / 2;
        let count = match aim {
            Aim::Leader | Aim::Busiest | Aim::One => 1,
            Aim::Minority => minority.max(1),
            Aim::Majority => nodes.len() / 2 + 1,
            Aim::All => nodes.len(),
        };
        if aim == Aim::Leader {
            if let Some(leader) = self.leader().await {
                nodes.sort_by_key(|id| *id != leader);
            }
        }
        if aim == Aim::Busiest {
            let sessions = self.sessions().await;
            nodes.sort_by_key(|id| std::cmp::Reverse(sessions.get(id).copied()));
        }
        if planned.nemesis == "corrupt" {
            nodes.sort_by_key(|id| self.down.contains_key(id));
        }
        nodes.truncate(count);
        nodes.sort_unstable();
        nodes
    }

    /// The leader according to the first node that answers.
    async fn leader(&self) -> Option<u64> {
        for id in self.standing() {
            let named = within("a leader", NAMED, self.cluster.status(id)).await;
            if let Some(leader) = named.ok().and_then(|status| status["sync"]["leader"].as_u64()) {
                return Some(leader);
            }
        }
        None
    }

    /// The number of clients of each entry, as it reports.
    async fn sessions(&self) -> BTreeMap<u64, u64> {
        let mut sessions = BTreeMap::new();
        for id in self.standing() {
            let status = within("a status", NAMED, self.cluster.status(id)).await;
            let count = |status: &Value, kind: &str| status["entry"][kind].as_u64().unwrap_or(0);
            if let Ok(status) = status {
                let all = count(&status, "wamp_sessions") + count(&status, "mqtt_sessions");
                sessions.insert(id, all);
            }
        }
        sessions
    }

    /// Injects the fault; returns the proof that it happened.
    async fn hurt(
        &mut self,
        planned: &Planned,
        active: &mut Active,
        dice: &mut Dice,
    ) -> Result<String> {
        let nodes = active.blow.nodes.clone();
        match planned.nemesis.as_str() {
            "kill" | "power" => self.take_down(active.blow.number, &nodes).await,
            "pause" => self.pause(&nodes).await,
            "partition" => self.partition(planned.kind, active, dice),
            "restart" => self.restart(&nodes).await,
            "flaky" => self.flaky(planned.kind, active, dice).await,
            "relay" => self.relay(active.blow.number, &nodes, dice).await,
            "storm" => {
                active.clients = crowd::storm(&self.entrances()).await?;
                Ok(format!("{} sessions were opened at once", active.clients.len()))
            }
            "deaf" => {
                active.clients = crowd::deaf(&self.entrances()).await?;
                Ok(format!("{} clients subscribed, and read nothing", active.clients.len()))
            }
            "corrupt" => self.corrupt(planned, active, dice).await,
            "eio" => self.order(active.blow.number, &nodes, "disk", "eio"),
            "enospc" => self.order(active.blow.number, &nodes, "disk", "enospc"),
            "slow" => self.order(
                active.blow.number,
                &nodes,
                "disk",
                &format!("slow={}", dice.between(20, 400)),
            ),
            "clock" => {
                let wrong = *dice.pick(&[50_i64, 700, 5_000, 60_000, 3_600_000, FAR_OFF]);
                let wrong = if dice.chance(0.5) { wrong } else { -wrong };
                self.order(active.blow.number, &nodes, "clock", &wrong.to_string())
            }
            other => bail!("no nemesis {other}"),
        }
    }

    async fn take_down(&mut self, number: u64, nodes: &[u64]) -> Result<String> {
        let mut proofs = Vec::new();
        for &id in nodes {
            if !self.down.contains_key(&id) && self.cluster.node(id).is_running() {
                let process = self.cluster.node(id).process()?;
                self.cluster.node_mut(id).kill().await?;
                proofs.push(format!("process {process} is gone"));
            }
            self.down.entry(id).or_default().insert(number);
        }
        ensure!(!proofs.is_empty(), "all of {nodes:?} were down");
        Ok(proofs.join(", "))
    }

    /// Two of three are frozen while the third loses power and comes back, then the two lose power: no node may form a separate
    /// cluster from what is left.
    async fn relay(&mut self, number: u64, nodes: &[u64], dice: &mut Dice) -> Result<String> {
        let mut nodes: Vec<u64> =
            self.standing().into_iter().filter(|node| nodes.contains(node)).collect();
        dice.shuffle(&mut nodes);
        ensure!(nodes.len() > 2, "only {nodes:?} stand");
        let (first, rest) = (nodes[0], nodes[1..].to_vec());
        let frozen = self.pause(&rest).await?;
        let gone = self.take_down(number, &[first]).await?;
        self.let_up(first, number);
        tokio::time::sleep(Duration::from_millis(dice.between(500, 3_000))).await;
        let all = self.take_down(number, &rest).await?;
        Ok(format!("{frozen}; node {first}: {gone}, and a new one; then {all}"))
    }

    fn entrances(&self) -> Vec<Entrance> {
        let nodes = self.cluster.nodes().iter().filter(|node| node.is_entry());
        nodes.map(|node| Entrance { wamp: node.wamp(), mqtt: node.mqtt() }).collect()
    }

    /// Takes a node down, by stopping or killing it, and damages its disk meanwhile. redb checks a database when it is opened
    /// only if it was not closed cleanly.
    async fn corrupt(
        &mut self,
        planned: &Planned,
        active: &Active,
        dice: &mut Dice,
    ) -> Result<String> {
        let node = active.blow.nodes[0];
        let data = self.cluster.node(node).data();
        ensure!(self.damaged.is_subset(&BTreeSet::from([node])), "another disk is damaged");
        damage::remember(&data)?;
        tokio::time::sleep(STALE).await;
        let stands = !self.down.contains_key(&node);
        let down = if !stands {
            self.down.entry(node).or_default().insert(active.blow.number);
            "it was down".to_owned()
        } else if dice.chance(0.5) {
            let status = self.cluster.node_mut(node).stop().await?;
            self.down.entry(node).or_default().insert(active.blow.number);
            format!("stopped: {status}")
        } else {
            self.take_down(active.blow.number, &[node]).await?
        };
        self.damaged.insert(node);
        // The disk of a node that was down has not changed since it was copied.
        let kind = if stands { planned.kind } else { "bits" };
        Ok(format!("{down}; {}", damage::damage(&data, kind, dice)?))
    }

    async fn pause(&mut self, nodes: &[u64]) -> Result<String> {
        let mut proofs = Vec::new();
        for &id in nodes.iter().filter(|id| !self.down.contains_key(id)) {
            let node = self.cluster.node(id);
            let process = node.process()?;
            node.pause().await?;
            until("it is frozen", Duration::from_secs(2), || async move {
                let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
                let state = text.rsplit_once(") ").context("no state")?.1;
                ensure!(state.starts_with('T'), "state {state:.1}");
                Ok(())
            })
            .await?;
            proofs.push(format!("process {process} is in state T"));
        }
        ensure!(!proofs.is_empty(), "all of {nodes:?} were down");
        Ok(proofs.join(", "))
    }

    async fn restart(&mut self, nodes: &[u64]) -> Result<String> {
        let mut proofs = Vec::new();
        for &id in nodes {
            if self.down.contains_key(&id) || self.lost.contains(&id) {
                continue;
            }
            let status = self.cluster.node_mut(id).stop().await?;
            self.cluster.node_mut(id).start()?;
            let _ = within("it serves", SERVES, self.cluster.ready_node(id)).await;
            proofs.push(format!("node {id} stopped: {status}"));
        }
        ensure!(!proofs.is_empty(), "all of {nodes:?} were down");
        Ok(proofs.join(", "))
    }

    /// Adds requested faults of nodes.
    fn order(
        &mut self,
        number: u64,
        nodes: &[u64],
        name: &'static str,
        word: &str,
    ) -> Result<String> {
        for &id in nodes {
            let folder = self.cluster.node(id).folder().join(FAULTS);
            ensure!(folder.join("armed").exists(), "node {id} does not obey");
            self.orders.entry((id, name)).or_default().insert(number, word.to_owned());
            self.tell(id, name)?;
        }
        Ok(format!("{name} of {nodes:?} is told: {word}"))
    }

    /// Writes the requested faults into a node's folder.
    fn tell(&self, id: u64, name: &str) -> Result<()> {
        let orders = self.orders.iter().filter(|((of, file), _)| *of == id && *file == name);
        let words: Vec<&str> =
            orders.flat_map(|(_, words)| words.values().map(String::as_str)).collect();
        let path = self.cluster.node(id).folder().join(FAULTS).join(name);
        Ok(std::fs::write(path, words.join(" "))?)
    }

    /// Ends a fault.
    pub async fn relieve(&mut self, number: u64) {
        let Some(mut active) = self.active.remove(&number) else { return };
        self.undo(&mut active).await;
        self.journal.nemesis("stop", &active.blow);
    }

    async fn undo(&mut self, active: &mut Active) {
        self.mend(active);
        for &id in &active.blow.nodes {
            if matches!(active.blow.nemesis.as_str(), "pause" | "relay")
                && self.cluster.node(id).is_running()
            {
                let _ = self.cluster.node(id).resume().await;
            }
            for name in ["disk", "clock"] {
                let orders = self.orders.get_mut(&(id, name));
                if orders.is_some_and(|orders| orders.remove(&active.blow.number).is_some()) {
                    // If the folder can't be written to any more, the fault continues, which makes the run harder but not
                    // wrong.
                    let _ = self.tell(id, name);
                }
            }
            self.let_up(id, active.blow.number);
        }
    }

    /// Starts a node if this was the last fault that kept it down.
    fn let_up(&mut self, id: u64, number: u64) {
        let Some(reasons) = self.down.get_mut(&id) else { return };
        reasons.remove(&number);
        if !reasons.is_empty() {
            return;
        }
        self.down.remove(&id);
        if self.lost.contains(&id) || self.is_dead(id) {
            return;
        }
        if let Err(error) = self.cluster.node_mut(id).start() {
            println!("    node {id} can't be started: {error:#}");
        }
    }

    /// Checks for nodes that ended by themselves. A failed or damaged disk is an excuse; any other node has crashed.
    pub async fn look(&mut self) {
        for id in self.standing() {
            let Err(error) = self.cluster.node_mut(id).check_alive() else { continue };
            let told = last_words(&format!("{error:#}"));
            let _ = self.cluster.node_mut(id).ended().await;
            let broken = self.active.values().map(|active| &active.blow);
            let broken = broken
                .filter(|blow| {
                    matches!(blow.nemesis.as_str(), "eio" | "enospc") && blow.nodes.contains(&id)
                })
                .map(|blow| blow.number)
                .collect::<BTreeSet<u64>>();
            if !broken.is_empty() {
                println!("    node {id} ended: its disk fails");
                self.down.insert(id, broken);
            } else if self.damaged.contains(&id) {
                println!("    node {id} refuses its damaged disk");
                self.lost.insert(id);
            } else {
                println!("    CRASHED: {told}");
                self.journal.nemesis("died", &Died { node: id, told });
                *self.deaths.entry(id).or_default() += 1;
                if self.is_dead(id) {
                    println!("    and is not started any more");
                } else if let Err(error) = self.cluster.node_mut(id).start() {
                    println!("    node {id} can't be started: {error:#}");
                }
            }
        }
    }

    /// Whether a node has crashed so often that it is left alone. That excuses nothing.
    fn is_dead(&self, id: u64) -> bool {
        self.deaths.get(&id).is_some_and(|deaths| *deaths >= DEATHS)
    }

    /// Ends all faults and waits until all nodes serve that can.
    ///
    /// # Errors
    /// If a node does not report in time that it serves.
    pub async fn heal(&mut self, limit: Duration) -> Result<()> {
        for number in self.active.keys().copied().collect::<Vec<_>>() {
            self.relieve(number).await;
        }
        let deadline = tokio::time::Instant::now() + limit;
        let mut waiting = self.standing();
        while !waiting.is_empty() && tokio::time::Instant::now() < deadline {
            self.look().await;
            let mut still = Vec::new();
            for id in self.standing() {
                let answer = http::get(self.cluster.node(id).admin(), "/readyz").await;
                if !answer.is_ok_and(|answer| answer.status == 200) {
                    still.push(id);
                }
            }
            waiting = still;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ensure!(
            waiting.is_empty(),
            "nodes {waiting:?} do not serve {limit:?} after all faults ended"
        );
        Ok(())
    }
}

/// A summary of how a node ended: the first and the last line it wrote. The whole log is stored as well.
fn last_words(told: &str) -> String {
    let mut lines = told.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default();
    lines.next_back().map_or(first.to_owned(), |last| format!("{first}: {last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_quoted_with_its_reason() {
        assert_eq!(
            last_words("node 2 ended\n--- log ---\nstarting\nfull\n\n"),
            "node 2 ended: full"
        );
        assert_eq!(last_words("node 2 ended"), "node 2 ended");
        assert_eq!(last_words(""), "");
    }
}

//! `vulpes up`: a cluster on this machine, one process per node, until Ctrl-C.
//!
//! Invariant: nothing is started or deleted before it is known that the data was made by `vulpes up` and every port is free. No
//! node outlives this process, because each ends when its standard input is closed.
//!
//! Deliberately absent: restarting a node that died. A user may kill one on purpose, to try the cluster out. And certificates: on
//! loopback, nodes speak with each other unencrypted, so that trying the cluster out needs nothing and costs nothing.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use comfy_table::{presets, Table};
use tokio::signal::unix::{signal, Signal, SignalKind};
use tokio::time::Instant;

use super::plan::{self, Plan, PlannedNode, Ports};
use super::status;
use crate::client::admin::{self, AdminUrl};
use crate::config::{Address, NodeConfig, Role};
use crate::http::MemberStatus;
use children::Child;
use directory::{Directory, Marker};

mod children;
mod directory;

/// Time limit until all nodes serve clients. A node that was killed checks its data first.
const READY: Duration = Duration::from_secs(120);

/// How often starting nodes are asked whether they are ready, and running ones are checked for having ended.
const POLL: Duration = Duration::from_millis(100);

/// Time limit for nodes to stop before they are killed.
const STOP: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  vulpes up                             three nodes, data in ./vulpes-data
  vulpes up                             the same again: goes on with the data that is there
  vulpes up --fresh                     start over
  vulpes up --nodes 1 --data /tmp/one   one node
  vulpes up --groups 2 --data /tmp/two  two storage groups of three nodes
  vulpes up --keep-mib 1024             keep about a gibibyte of the log; goes for this start

All of it is on loopback, unencrypted: whoever uses this machine can use the cluster. `vulpes init` is for more than that.

Ctrl-C stops all nodes. Each writes its log beside its data, as in vulpes-data/node1.log.";

/// Run a cluster on this machine until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Up {
    /// Number of nodes in each storage group [default: as many as the existing data has, else 3]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: Option<u16>,
    /// Number of storage groups, each of which keeps a part of what is published [default: as many as the existing
    /// data has, else 1]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4))]
    groups: Option<u16>,
    /// Directory for the nodes' data, configurations and logs
    #[arg(long, value_name = "DIR", default_value = "./vulpes-data")]
    data: PathBuf,
    /// Delete the data first, if it belongs to a cluster that `vulpes up` made
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    realms: plan::Realms,
    /// Node port of the first node [default: as last time, else 1735]
    #[arg(long, value_name = "PORT")]
    peer_port: Option<u16>,
    /// WAMP port of the first node [default: as last time, else 9031]
    #[arg(long, value_name = "PORT")]
    wamp_port: Option<u16>,
    /// MQTT port of the first node [default: as last time, else 1881]
    #[arg(long, value_name = "PORT")]
    mqtt_port: Option<u16>,
    /// Admin port of the first node [default: as last time, else 9081]
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    #[command(flatten)]
    keep: plan::Keep,
}

impl Up {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        super::files::keep_private();
        let directory = Directory::look(&self.data)?;
        let marker = self.marker(directory.marker())?;
        if let Some(last) = directory.marker() {
            // Also check the ports that were used last time: a cluster that still runs there still uses the data.
            check_ports(&configs(last, &self.realms, self.keep)?)?;
        }
        let configs = configs(&marker, &self.realms, self.keep)?;
        check_ports(&configs)?;
        directory.claim(&marker, self.fresh)?;
        let mut cluster = Cluster { data: self.data, children: Vec::new(), configs };
        let mut stop = StopSignals::new()?;
        cluster.start()?;
        let stopped = tokio::select! {
            outcome = cluster.run() => outcome,
            () = stop.wait() => Ok(()),
        };
        eprintln!("stopping …");
        tokio::select! {
            () = children::stop(&mut cluster.children, STOP) => {}
            () = stop.wait() => eprintln!("stopped again: killing the remaining nodes"),
        }
        stopped
    }

    /// The cluster to run, given the previous one.
    fn marker(&self, last: Option<&Marker>) -> anyhow::Result<Marker> {
        let mut marker = match last {
            None => Marker::new(self.nodes.unwrap_or(3), self.groups.unwrap_or(1), Ports::DEFAULT),
            Some(last) => {
                let nodes = self.nodes.unwrap_or(last.nodes);
                let groups = self.groups.unwrap_or(last.groups);
                anyhow::ensure!(
                    self.fresh || (nodes, groups) == (last.nodes, last.groups),
                    "{} holds the data of {}, not of {}; leave out --nodes and --groups, choose another --data, \
                     or delete the data with --fresh",
                    self.data.display(),
                    size(last.nodes, last.groups),
                    size(nodes, groups)
                );
                Marker::new(nodes, groups, last.ports())
            }
        };
        let given = [self.peer_port, self.wamp_port, self.mqtt_port, self.admin_port];
        let ports = marker.ports();
        let last = [ports.peer, ports.wamp, ports.mqtt, ports.admin];
        let [peer, wamp, mqtt, admin] = std::array::from_fn(|at| given[at].unwrap_or(last[at]));
        marker.set_ports(Ports { peer, wamp, mqtt, admin });
        Ok(marker)
    }
}

fn size(nodes: u16, groups: u16) -> String {
    if groups == 1 {
        format!("{nodes} nodes")
    } else {
        format!("{groups} groups of {nodes} nodes")
    }
}

/// The configurations of a cluster on this machine, with data directories relative to the files.
fn configs(
    marker: &Marker,
    realms: &plan::Realms,
    keep: plan::Keep,
) -> anyhow::Result<Vec<NodeConfig>> {
    let mut nodes = Vec::new();
    for further in 0..marker.nodes * marker.groups {
        let group = further / marker.nodes + 1;
        nodes.push(PlannedNode {
            name: format!("node{}", further + 1),
            host: "127.0.0.1".into(),
            roles: plan::roles_in(group, &Role::ALL),
            group,
            ports: marker.ports().further(further).context("the ports end at 65535")?,
        });
    }
    let (cluster, realms) = ("vulpes".into(), realms.clone());
    let (tls, first_administrator, retention) = (false, None, keep.into());
    let plan = Plan { cluster, realms, nodes, retention, tls, first_administrator };
    plan.configs(|node| PathBuf::from(&node.name))
}

/// Fails if a port that a node needs is in use.
fn check_ports(configs: &[NodeConfig]) -> anyhow::Result<()> {
    for config in configs {
        let listen = &config.listen;
        for (what, option, address) in [
            ("node", "--peer-port", Some(&listen.peer)),
            ("WAMP", "--wamp-port", listen.wamp.as_ref()),
            ("MQTT", "--mqtt-port", listen.mqtt.as_ref()),
            ("admin", "--admin-port", listen.admin.as_ref()),
        ] {
            let Some(address) = address else { continue };
            std::net::TcpListener::bind(address.as_str()).with_context(|| {
                format!(
                    "node {} can't have {address} as its {what} port; end what uses it (another `vulpes up`?), \
                     or choose another one with {option}",
                    config.node
                )
            })?;
        }
    }
    Ok(())
}

struct Cluster {
    data: PathBuf,
    configs: Vec<NodeConfig>,
    /// One for each configuration, in the same order.
    children: Vec<Child>,
}

impl Cluster {
    fn start(&mut self) -> anyhow::Result<()> {
        let executable = std::env::current_exe().context("can't find this executable")?;
        for config in &self.configs {
            let path = self.file(config);
            let text = format!(
                "# Node {} of `vulpes up`, which writes this file at every start.\n{}",
                config.node,
                config.to_toml()
            );
            std::fs::write(&path, text)
                .with_context(|| format!("can't write {}", path.display()))?;
            let log = path.with_extension("log");
            self.children.push(Child::start(&executable, config.node, &path, &log)?);
        }
        Ok(())
    }

    fn file(&self, config: &NodeConfig) -> PathBuf {
        self.data.join(format!("node{}.toml", config.node))
    }

    /// Runs until all nodes have ended by themselves.
    async fn run(&mut self) -> anyhow::Result<()> {
        let waiting = self.wait_ready().await;
        self.bury();
        self.greet(&waiting)?;
        while self.children.iter().any(Child::is_alive) {
            tokio::time::sleep(POLL).await;
            self.bury();
        }
        anyhow::bail!("all nodes ended; their logs in {} say why", self.data.display())
    }

    /// Waits until every running node can serve; returns the reasons of those that still can't.
    async fn wait_ready(&mut self) -> BTreeMap<usize, String> {
        let deadline = Instant::now() + READY;
        let mut waiting: BTreeMap<usize, String> =
            (0..self.children.len()).map(|at| (at, String::new())).collect();
        while !waiting.is_empty() && Instant::now() < deadline {
            for at in 0..self.children.len() {
                if !self.children[at].is_alive() {
                    waiting.remove(&at);
                }
                let Some(reason) = waiting.get_mut(&at) else { continue };
                let Some(admin) = &self.configs[at].listen.admin else { continue };
                match admin::ready(&AdminUrl::new(admin.clone())).await {
                    Ok(readiness) if readiness.ready => {
                        waiting.remove(&at);
                    }
                    Ok(readiness) => *reason = readiness.reason.unwrap_or_default(),
                    Err(error) => *reason = error.to_string(),
                }
            }
            self.bury();
            tokio::time::sleep(POLL).await;
        }
        waiting
    }

    /// Reports nodes that ended since the last call.
    fn bury(&mut self) {
        let total = self.children.len();
        for (child, config) in self.children.iter_mut().zip(&self.configs) {
            let Some(end) = child.take_end() else { continue };
            eprintln!(
                "\nnode {} ended: {end}. The last lines of {}:",
                config.node,
                child.log().display()
            );
            for line in child.last_lines() {
                eprintln!("  {line}");
            }
            if total > 1 {
                eprintln!("The other nodes keep running.");
            }
            let file = self.data.join(format!("node{}.toml", config.node));
            eprintln!(
                "To bring it back, in another terminal:  {} node --config {}",
                own_name(),
                file.display()
            );
            eprintln!("Or stop all with Ctrl-C and run `vulpes up` again, on the same data.\n");
        }
    }

    fn greet(&self, waiting: &BTreeMap<usize, String>) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", self.table(waiting))?;
        for (at, reason) in waiting {
            let node = self.configs[*at].node;
            writeln!(out, "node {node} is not ready after {} s: {reason}", READY.as_secs())?;
        }
        writeln!(out, "{}", self.first_try())?;
        out.flush()?;
        Ok(())
    }

    fn table(&self, waiting: &BTreeMap<usize, String>) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        table.set_header([
            "node",
            "process",
            "state",
            "roles",
            "node port",
            "WAMP",
            "MQTT",
            "admin",
        ]);
        for (at, (config, child)) in self.configs.iter().zip(&self.children).enumerate() {
            let own = MemberStatus::new(config.own(), config);
            let (state, process) = match child.process() {
                None => ("ended", String::new()),
                Some(process) if waiting.contains_key(&at) => ("starting", process.to_string()),
                Some(process) => ("ready", process.to_string()),
            };
            let listen = &config.listen;
            let url = |scheme: &str, address: &Option<Address>| {
                address.as_ref().map_or_else(String::new, |address| format!("{scheme}{address}"))
            };
            table.add_row([
                config.node.to_string(),
                process,
                state.to_owned(),
                status::role_words(&own.roles, own.group),
                listen.peer.to_string(),
                url("ws://", &listen.wamp),
                url("", &listen.mqtt),
                url("http://", &listen.admin),
            ]);
        }
        table
    }

    /// Commands for the user to paste, without options that have their default value.
    fn first_try(&self) -> String {
        let first = &self.configs[0];
        let last = self.configs.last().unwrap_or(first);
        let second = self.configs.get(1).unwrap_or(first);
        let mqtt = |config: &NodeConfig| config.listen.mqtt.as_ref().map_or(0, Address::port);
        let realm = match first.default_realm.as_str() {
            super::DEFAULT_REALM => String::new(),
            other => format!(" --realm {other}"),
        };
        let wamp = |config: &NodeConfig| {
            let wamp = config.listen.wamp.as_ref();
            let url = wamp.map_or_else(String::new, |wamp| format!("ws://{wamp}/"));
            let node =
                if url == super::DEFAULT_NODE { String::new() } else { format!(" --node {url}") };
            node + &realm
        };
        let admin = first.listen.admin.as_ref();
        let admin = admin.map_or_else(String::new, |admin| format!("http://{admin}"));
        let admin = if admin == super::DEFAULT_ADMIN {
            String::new()
        } else {
            format!(" --node-admin {admin}")
        };
        let vulpes = own_name();
        format!(
            "Data, configurations and logs: {data}. Ctrl-C stops all nodes.\n\
             It is open: unless it has users, whoever uses this machine may do everything. {vulpes} init makes one that is not.\n\n\
             A first try, each line in a terminal of its own:\n  \
             mosquitto_sub -h 127.0.0.1 -p {mqtt_second} -q 1 -t 'demo/#' -v\n  \
             {vulpes} sub 'demo.#'{wamp_last}\n  \
             mosquitto_pub -h 127.0.0.1 -p {mqtt_first} -q 1 -t demo/hello -m '{{\"text\": \"hi\"}}'\n  \
             {vulpes} pub demo.hello '{{\"text\": \"hi again\"}}'{wamp_first}\n  \
             {vulpes} log{wamp_last}\n  \
             {vulpes} status{admin}\n  \
             {vulpes} verify{admin}",
            data = self.data.display(),
            mqtt_first = mqtt(first),
            mqtt_second = mqtt(second),
            wamp_first = wamp(first),
            wamp_last = wamp(last),
        )
    }
}

/// The command that runs this executable again.
fn own_name() -> String {
    let name = std::env::args().next().unwrap_or_default();
    if name.is_empty() {
        return "vulpes".into();
    }
    let here = std::env::current_dir().unwrap_or_default();
    match Path::new(&name).strip_prefix(&here) {
        Ok(relative) => format!("./{}", relative.display()),
        Err(_) => name,
    }
}

/// What stops the cluster: Ctrl-C, SIGTERM, or the terminal closing.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;

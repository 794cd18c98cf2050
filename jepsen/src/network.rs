//! A network of its own for a run: each node in its own network namespace, all on one bridge, and links that fall
//! silent.
//!
//! A link is cut one way at a time: in the sender's namespace the receiver's address is given a hardware address that
//! nobody has. What is sent from then on is lost without a word, connections that stand included, as when a cable is
//! pulled. It needs neither a packet filter nor kernel modules.
//!
//! Invariant: namespaces, bridge and links go away with the [`Network`]. What another run that was killed left behind
//! is removed by the next that gets its number.
//!
//! Deliberately absent: loss, delay and reordering of single packets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

/// Numbers a network may have; each is claimed by holding the UDP port behind [`CLAIMS`].
const NETWORKS: u8 = 200;
const CLAIMS: u16 = 10_000;

/// The run's own address on the bridge.
const HOST: u8 = 254;

/// A hardware address that nobody has.
const NOBODY: &str = "02:56:00:00:00:00";

/// How long a connection is tried through a link that should be cut.
const TRIED: Duration = Duration::from_millis(400);

/// Networks have names like `vx7`, nodes' namespaces like `vx7n1`.
const PREFIX: &str = "vx";

/// Namespaces on a bridge.
#[derive(Debug)]
pub struct Network {
    number: u8,
    nodes: Vec<u64>,
    /// How many cuts each one-way link has; cuts may overlap.
    cuts: BTreeMap<(u64, u64), u32>,
    _claim: UdpSocket,
}

impl Network {
    /// Lays the network.
    ///
    /// # Errors
    /// Where that is not allowed (it takes root and the program `ip`), or no number is free.
    pub fn lay(nodes: &[u64]) -> Result<Self> {
        for number in 1..=NETWORKS {
            let port = (Ipv4Addr::LOCALHOST, CLAIMS + u16::from(number));
            let Ok(claim) = UdpSocket::bind(port) else { continue };
            let network =
                Self { number, nodes: nodes.to_vec(), cuts: BTreeMap::new(), _claim: claim };
            network.sweep();
            network.build()?;
            return Ok(network);
        }
        bail!("all {NETWORKS} networks are in use")
    }

    fn build(&self) -> Result<()> {
        let bridge = self.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}/24", self.host()), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for &node in &self.nodes {
            let (space, outside) = (self.namespace(node), self.namespace(node));
            ip(&["netns", "add", &space])?;
            ip(&[
                "link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &space,
            ])?;
            ip(&["link", "set", &outside, "master", &bridge, "up"])?;
            let inside = |arguments: &[&str]| ip(&[&["-n", space.as_str()], arguments].concat());
            inside(&["link", "set", "eth0", "address", &self.hardware(node)])?;
            inside(&["addr", "add", &format!("{}/24", self.address(node)), "dev", "eth0"])?;
            inside(&["link", "set", "lo", "up"])?;
            inside(&["link", "set", "eth0", "up"])?;
        }
        for &from in &self.nodes {
            for &to in self.nodes.iter().filter(|to| **to != from) {
                self.point(from, to, &self.hardware(to))?;
            }
        }
        Ok(())
    }

    fn bridge(&self) -> String {
        format!("{PREFIX}{}", self.number)
    }

    /// The name of a node's namespace.
    #[must_use]
    pub fn namespace(&self, node: u64) -> String {
        format!("{}n{node}", self.bridge())
    }

    fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, HOST)
    }

    /// A node's address.
    #[must_use]
    pub fn address(&self, node: u64) -> IpAddr {
        Ipv4Addr::new(10, 213, self.number, u8::try_from(node).unwrap_or(HOST - 1)).into()
    }

    fn hardware(&self, node: u64) -> String {
        format!("02:56:{:02x}:00:00:{node:02x}", self.number)
    }

    /// Where packets from one node to another go.
    fn point(&self, from: u64, to: u64, hardware: &str) -> Result<()> {
        let (space, address) = (self.namespace(from), self.address(to).to_string());
        let what = ["lladdr", hardware, "dev", "eth0", "nud", "permanent"];
        ip(&[&["-n", &space, "neigh", "replace", &address], &what[..]].concat())
    }

    /// Nothing that one node sends reaches the other any more, in this direction.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn cut(&mut self, from: u64, to: u64) -> Result<()> {
        let cuts = self.cuts.entry((from, to)).or_default();
        *cuts += 1;
        if *cuts == 1 {
            self.point(from, to, NOBODY)?;
        }
        Ok(())
    }

    /// Takes one cut back.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn mend(&mut self, from: u64, to: u64) -> Result<()> {
        let cuts = self.cuts.get_mut(&(from, to)).context("a link is mended that was not cut")?;
        *cuts -= 1;
        if *cuts == 0 {
            self.cuts.remove(&(from, to));
            self.point(from, to, &self.hardware(to))?;
        }
        Ok(())
    }

    /// Tries to connect from one node to another's port: what comes of it, in words.
    #[must_use]
    pub fn probe(&self, from: u64, to: SocketAddr) -> String {
        let target = format!("</dev/tcp/{}/{}", to.ip(), to.port());
        let seconds = TRIED.as_secs_f64().to_string();
        let space = self.namespace(from);
        let tried =
            run(&["ip", "netns", "exec", &space, "timeout", &seconds, "bash", "-c", &target]);
        match tried.map(|output| output.status.code()) {
            Ok(Some(0)) => "connects".to_owned(),
            Ok(Some(124)) => "silence".to_owned(),
            Ok(_) => "refused".to_owned(),
            Err(error) => format!("not tried: {error:#}"),
        }
    }

    /// Removes everything that bears this network's names, and all that runs in it.
    fn sweep(&self) {
        let listed = run(&["ip", "netns", "list"]).map(|output| output.stdout).unwrap_or_default();
        let mine = format!("{}n", self.bridge());
        for line in String::from_utf8_lossy(&listed).lines() {
            let space = line.split(' ').next().unwrap_or_default();
            if !space.starts_with(&mine) {
                continue;
            }
            // Nodes end with the run that started them; this is for those that were frozen when it was killed.
            let inside = run(&["ip", "netns", "pids", space]).map(|output| output.stdout);
            for process in String::from_utf8_lossy(&inside.unwrap_or_default()).lines() {
                let _ = run(&["kill", "-9", process]);
            }
            let _ = ip(&["netns", "del", space]);
        }
        // A namespace takes its links with it, but at its leisure: their names must be free for the next run.
        for &node in &self.nodes {
            let _ = ip(&["link", "del", &self.namespace(node)]);
        }
        let _ = ip(&["link", "del", &self.bridge()]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.sweep();
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = run(&[&["ip"], arguments].concat())?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), complaint.trim());
    Ok(())
}

fn run(command: &[&str]) -> Result<Output> {
    let (program, arguments) = command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.output().with_context(|| format!("start {program}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_fall_silent_one_way_and_come_back() {
        // Ordinary users may not lay networks; that the runner says so is its own test.
        let Ok(mut network) = Network::lay(&[1, 2]) else { return };
        let port = |node| SocketAddr::from((network.address(node), 9));
        let (one, two) = (port(1), port(2));
        // Nobody listens, so that whoever is reached refuses.
        assert_eq!([network.probe(1, two), network.probe(2, one)], ["refused", "refused"]);
        network.cut(1, 2).unwrap();
        network.cut(1, 2).unwrap();
        assert_eq!(network.probe(1, two), "silence");
        network.mend(1, 2).unwrap();
        assert_eq!(network.probe(1, two), "silence");
        network.mend(1, 2).unwrap();
        assert_eq!(network.probe(1, two), "refused");
        let space = network.namespace(1);
        drop(network);
        let left = run(&["ip", "netns", "list"]).unwrap().stdout;
        assert!(!String::from_utf8_lossy(&left).contains(&space));
    }
}

//! A separate network for a run: each node in its own network namespace, all on one bridge, and links that can be
//! cut.
//!
//! A link is cut one way at a time: in the sender's namespace, the receiver's address is mapped to a hardware address that does
//! not exist. From then on packets are silently lost, also those of open connections, as if a cable was pulled. It needs
//! neither a packet filter nor kernel modules. A bad link is made in the same way: the receiver's address is mapped to the
//! hardware address of a switch in this process, which drops, delays or doubles the packets.
//!
//! Invariant: namespaces, bridge and links go away with the [`Network`]. Leftovers of another, killed run are removed
//! by the next run with its number.
//!
//! Deliberately absent: bad links between clients and nodes.

mod switch;
pub mod weather;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use switch::{Addresses, Switch};
use weather::{Fates, Link};

/// Numbers that a network may have. Each is claimed by holding the UDP port with this number plus [`CLAIMS`].
const NETWORKS: u8 = 200;
const CLAIMS: u16 = 10_000;

/// The run's own address on the bridge.
const HOST: u8 = 254;

/// A hardware address that does not exist.
const NOBODY: [u8; 6] = [0x02, 0x56, 0, 0, 0, 0];

/// How long to try a connection through a link that should be cut.
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
    /// Links whose packets go through the switch.
    bad: BTreeSet<(u64, u64)>,
    /// Created when the first link becomes bad.
    switch: Option<Switch>,
    _claim: UdpSocket,
}

impl Network {
    /// Creates the network.
    ///
    /// # Errors
    /// If that is not allowed (it needs root and the program `ip`), or no number is free.
    pub fn lay(nodes: &[u64]) -> Result<Self> {
        for number in 1..=NETWORKS {
            let port = (Ipv4Addr::LOCALHOST, CLAIMS + u16::from(number));
            let Ok(claim) = UdpSocket::bind(port) else { continue };
            let network = Self {
                number,
                nodes: nodes.to_vec(),
                cuts: BTreeMap::new(),
                bad: BTreeSet::new(),
                switch: None,
                _claim: claim,
            };
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
            let hardware = spelt(self.hardware(node));
            inside(&["link", "set", "eth0", "address", &hardware])?;
            inside(&["addr", "add", &format!("{}/24", self.address(node)), "dev", "eth0"])?;
            inside(&["link", "set", "lo", "up"])?;
            inside(&["link", "set", "eth0", "up"])?;
        }
        for &from in &self.nodes {
            for &to in self.nodes.iter().filter(|to| **to != from) {
                self.steer(from, to)?;
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

    /// A node's hardware address ends with its number.
    fn hardware(&self, node: u64) -> [u8; 6] {
        [0x02, 0x56, self.number, 0, 0, u8::try_from(node).unwrap_or(HOST - 1)]
    }

    /// The destination of packets that should go through the switch.
    fn hardware_of_switch(&self) -> [u8; 6] {
        [0x02, 0x56, self.number, 1, 0, 0]
    }

    fn tap(&self) -> String {
        format!("{}tap", self.bridge())
    }

    /// Directs packets from one node to another to their current destination.
    fn steer(&self, from: u64, to: u64) -> Result<()> {
        let (space, address) = (self.namespace(from), self.address(to).to_string());
        let hardware = if self.cuts.contains_key(&(from, to)) {
            NOBODY
        } else if self.bad.contains(&(from, to)) {
            self.hardware_of_switch()
        } else {
            self.hardware(to)
        };
        let what = ["lladdr", &spelt(hardware), "dev", "eth0", "nud", "permanent"];
        ip(&[&["-n", &space, "neigh", "replace", &address], &what[..]].concat())
    }

    /// Cuts the link from one node to the other, in this direction.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn cut(&mut self, from: u64, to: u64) -> Result<()> {
        let cuts = self.cuts.entry((from, to)).or_default();
        *cuts += 1;
        if *cuts == 1 {
            self.steer(from, to)?;
        }
        Ok(())
    }

    /// Undoes one cut.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn mend(&mut self, from: u64, to: u64) -> Result<()> {
        let cuts = self.cuts.get_mut(&(from, to)).context("a link is mended that was not cut")?;
        *cuts -= 1;
        if *cuts == 0 {
            self.cuts.remove(&(from, to));
            self.steer(from, to)?;
        }
        Ok(())
    }

    /// Makes the link from one node to the other a bad one, in this direction.
    ///
    /// # Errors
    /// If the link is bad already, or this machine has no TAP devices.
    pub fn spoil(&mut self, from: u64, to: u64, link: Link) -> Result<()> {
        if self.switch.is_none() {
            self.switch = Some(self.plug()?);
        }
        let switch = self.switch.as_ref().context("no switch")?;
        switch.treat(from, to, link)?;
        self.bad.insert((from, to));
        self.steer(from, to)
    }

    /// The switch, as a port of the bridge.
    fn plug(&self) -> Result<Switch> {
        let (tap, hardware) = (self.tap(), self.hardware_of_switch());
        let addresses = Addresses { switch: hardware, node: self.hardware(0) };
        let switch = Switch::start(&tap, addresses)?;
        ip(&["link", "set", &tap, "master", &self.bridge(), "up"])?;
        // Flooding would find it as well, until the switch has sent something.
        run_well(&["bridge", "fdb", "replace", &spelt(hardware), "dev", &tap, "master", "static"])?;
        Ok(switch)
    }

    /// The fates of a bad link's packets.
    #[must_use]
    pub fn fates(&self, from: u64, to: u64) -> Fates {
        self.switch.as_ref().map(|switch| switch.fates(from, to)).unwrap_or_default()
    }

    /// Makes a bad link good again; returns the fates of its packets.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn clear(&mut self, from: u64, to: u64) -> Result<Fates> {
        self.bad.remove(&(from, to));
        let steered = self.steer(from, to);
        let fates = self.switch.as_ref().map(|switch| switch.release(from, to));
        steered.map(|()| fates.unwrap_or_default())
    }

    /// Tries to connect from one node to another's port; returns the result in words.
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

    /// Removes everything with this network's names, and all processes in it.
    fn sweep(&self) {
        let listed = run(&["ip", "netns", "list"]).map(|output| output.stdout).unwrap_or_default();
        let mine = format!("{}n", self.bridge());
        for line in String::from_utf8_lossy(&listed).lines() {
            let space = line.split(' ').next().unwrap_or_default();
            if !space.starts_with(&mine) {
                continue;
            }
            // Nodes end with the run that started them; this is for nodes that were frozen when the run was killed.
            let inside = run(&["ip", "netns", "pids", space]).map(|output| output.stdout);
            for process in String::from_utf8_lossy(&inside.unwrap_or_default()).lines() {
                let _ = run(&["kill", "-9", process]);
            }
            let _ = ip(&["netns", "del", space]);
        }
        // A namespace takes its links with it, but with a delay: their names must be free for the next run.
        for &node in &self.nodes {
            let _ = ip(&["link", "del", &self.namespace(node)]);
        }
        let _ = ip(&["link", "del", &self.tap()]);
        let _ = ip(&["link", "del", &self.bridge()]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.sweep();
    }
}

/// A hardware address in the form of the system's programs.
fn spelt(hardware: [u8; 6]) -> String {
    hardware.map(|byte| format!("{byte:02x}")).join(":")
}

fn ip(arguments: &[&str]) -> Result<()> {
    run_well(&[&["ip"], arguments].concat())
}

fn run_well(command: &[&str]) -> Result<()> {
    let output = run(command)?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", command.join(" "), complaint.trim());
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
    use super::weather::Weather;
    use super::*;
    use crate::dice::Dice;

    #[test]
    fn links_fall_silent_one_way_and_come_back() {
        // Ordinary users can't create networks; another test checks that the runner reports that.
        let Ok(mut network) = Network::lay(&[1, 2]) else { return };
        let port = |node| SocketAddr::from((network.address(node), 9));
        let (one, two) = (port(1), port(2));
        // No process listens, so a node that is reached refuses.
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

    #[tokio::test(flavor = "multi_thread")]
    async fn bad_links_carry_packets_and_lose_some() {
        let Ok(mut network) = Network::lay(&[1, 2]) else { return };
        let two = SocketAddr::from((network.address(2), 9));
        let link = |kind| {
            let mut dice = Dice::new(1);
            Link::new(Weather::of(kind, &mut dice).unwrap(), dice)
        };
        // On machines without TAP devices this fails, which the runner reports.
        if network.spoil(1, 2, link("doubles")).is_err() {
            return;
        }
        let probe = |network: &Network| tokio::task::block_in_place(|| network.probe(1, two));
        for _ in 0..20 {
            assert_eq!(probe(&network), "refused");
        }
        assert!(network.fates(1, 2).doubled > 0, "{}", network.fates(1, 2));
        assert_eq!(network.fates(2, 1), Fates::default());
        assert!(network.spoil(1, 2, link("loss")).is_err(), "it is bad already");
        network.cut(1, 2).unwrap();
        assert_eq!(probe(&network), "silence");
        network.mend(1, 2).unwrap();
        let packets = network.fates(1, 2).packets;
        assert_eq!(probe(&network), "refused");
        assert!(network.clear(1, 2).unwrap().packets > packets);
        network.spoil(1, 2, link("loss")).unwrap();
        for _ in 0..60 {
            probe(&network);
        }
        assert!(network.clear(1, 2).unwrap().lost > 0);
        assert_eq!(probe(&network), "refused");
        let tap = network.tap();
        drop(network);
        assert!(ip(&["link", "show", &tap]).is_err());
    }
}

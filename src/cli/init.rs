//! `vulpes init`: writes the configurations of a cluster, one file per node, makes the certificates by which its nodes know
//! each other, and its first administrator.
//!
//! Invariant: an existing file is not overwritten unless requested, and an authority never. All files are checked before the
//! first is written, and only their user can read them. None has the administrator's password.
//!
//! Deliberately absent: copying the files to the machines, and starting anything.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::authority::{write_pair, write_private, Kept};
use super::first_administrator;
use super::plan::{self, Plan, PlannedNode, Ports};
use crate::config::peer_tls::PeerTls;
use crate::config::{NodeConfig, Role};
use crate::tls::authority::NODE_DAYS;

const EXAMPLES: &str = "\
Examples:
  vulpes init --nodes 3 --dir etc
      three nodes with all roles on this machine
  vulpes init --nodes 3 --dir etc --host 10.0.0.1 --host 10.0.0.2 --host 10.0.0.3
      one node on each of three machines
  vulpes init --nodes 3 --dir etc --split
      three nodes of each role, nine processes
  vulpes init --nodes 3 --groups 2 --dir etc
      two storage groups of three nodes; those of the first give the order
  vulpes node --config etc/node1.toml
      run one of them

The cluster lets nobody in but its first administrator, whose password is printed once and is in no file. It adds other users:
see `vulpes user --help`. As soon as the cluster has started once, only the users in its log count.

Beyond loopback, clients and operators come in with TLS, too: give commands and clients the authority's certificate, as in
  vulpes status --node-admin https://10.0.0.1:9081 --ca etc/ca/ca.pem --user admin

Nodes speak with each other in TLS, with the files under tls/. A node's machine needs its configuration and its directory there,
as etc/node1.toml and etc/tls/node1. The authority that signs the certificates is in etc/ca. Keep that directory where no node
is, and safe: whoever has ca.key can be every node. If it is there already, it signs again. See `vulpes certs`.";

/// Write the configurations of a cluster
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Init {
    /// Number of nodes; with --split, of each role; with --groups, of each group
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=20))]
    nodes: u16,
    /// Directory to write the files to
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Host name or address of a node, once for each node; or one for all of them
    #[arg(long = "host", value_name = "HOST", default_value = "127.0.0.1")]
    hosts: Vec<String>,
    /// Give each process one role, instead of all three
    #[arg(long)]
    split: bool,
    /// Number of storage groups, each of which keeps a part of what is published
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10))]
    groups: u16,
    /// The cluster's name
    #[arg(long, default_value = "vulpes")]
    cluster: String,
    #[command(flatten)]
    realms: plan::Realms,
    /// Directory for the nodes' data, relative to the files; each node has its own in it
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// First node port
    #[arg(long, default_value_t = Ports::DEFAULT.peer)]
    peer_port: u16,
    /// First WAMP port
    #[arg(long, default_value_t = Ports::DEFAULT.wamp)]
    wamp_port: u16,
    /// First MQTT port
    #[arg(long, default_value_t = Ports::DEFAULT.mqtt)]
    mqtt_port: u16,
    /// First admin port
    #[arg(long, default_value_t = Ports::DEFAULT.admin)]
    admin_port: u16,
    #[command(flatten)]
    keep: plan::Keep,
    /// Make no certificates: nothing is encrypted, and nodes believe everybody who reaches their node port.
    /// Beyond loopback, `insecure = true` is written into their files
    #[arg(long)]
    no_tls: bool,
    /// The first administrator, whose password is made and printed
    #[arg(long, value_name = "NAME", default_value = "admin")]
    administrator: String,
    /// Let everybody in, without an administrator, until the first user is added. Beyond loopback, `insecure = true` is
    /// written into the files
    #[arg(long, conflicts_with = "administrator")]
    open: bool,
    /// Overwrite existing files, except those of the authority
    #[arg(long)]
    force: bool,
}

/// Distance between the ports of the roles with --split, in this order: entries, sync, storages.
const SPLIT_STEP: u16 = 10;

impl Init {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut plan = self.plan()?;
        let made = match self.open {
            true => None,
            false => Some(first_administrator::make(&self.administrator)?),
        };
        plan.first_administrator = made.as_ref().map(|(first, _)| first.clone());
        let configs = plan.configs(|node| self.data.join(&node.name))?;
        let paths: Vec<PathBuf> =
            plan.nodes.iter().map(|node| self.dir.join(format!("{}.toml", node.name))).collect();
        let of_nodes: Vec<PeerTls> = configs.iter().filter_map(|one| self.peer_tls(one)).collect();
        let certificates = of_nodes.iter().flat_map(|files| [&files.certificate, &files.key]);
        let written = paths.iter().chain(certificates);
        if let Some(path) = written.into_iter().find(|path| path.exists() && !self.force) {
            anyhow::bail!(
                "{} is there already; choose another --dir, or overwrite it with --force",
                path.display()
            );
        }
        if !self.no_tls {
            self.certify(&configs, &of_nodes)?;
        }
        let mut out = std::io::stdout().lock();
        for (config, path) in configs.iter().zip(&paths) {
            let text = format!(
                "# Node {} of cluster {:?}, written by `vulpes init`. demo/vulpes.example.toml explains every setting.\n{}",
                config.node, config.cluster, config.to_toml()
            );
            write_private(path, &text)?;
            writeln!(out, "vulpes node --config {}", path.display())?;
        }
        match made {
            Some((first, password)) => {
                writeln!(out, "administrator {}\npassword {password}", first.name())?;
                eprintln!("The password is shown this once. It is the administrator's in a cluster without data");
            }
            None => {
                eprintln!("Everybody who reaches the cluster may do everything, until it has users")
            }
        }
        if !self.no_tls {
            let ca = self.dir.join("ca");
            eprintln!(
                "{} can make any node's certificate: keep it safe, and off the nodes",
                ca.display()
            );
        }
        Ok(())
    }

    /// A node's files for the node port, as seen from here.
    fn peer_tls(&self, config: &NodeConfig) -> Option<PeerTls> {
        let PeerTls { certificate, key, ca } = config.peer_tls.as_ref()?;
        let [certificate, key, ca] = [certificate, key, ca].map(|path| self.dir.join(path));
        Some(PeerTls { certificate, key, ca })
    }

    /// Makes the authority, unless there is one, and what it gives to the nodes.
    fn certify(&self, configs: &[NodeConfig], of_nodes: &[PeerTls]) -> anyhow::Result<()> {
        let directory = self.dir.join("ca");
        let kept = match Kept::is_in(&directory) {
            true => Kept::read(&directory, &self.cluster)?,
            false => Kept::new(&directory, &self.cluster)?,
        };
        let pairs = kept.issue(configs.iter(), NODE_DAYS)?;
        kept.write()?;
        for (files, pair) in of_nodes.iter().zip(&pairs) {
            write_pair(files, pair)?;
            write_private(&files.ca, &kept.pem)?;
        }
        Ok(())
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        let base = Ports {
            peer: self.peer_port,
            wamp: self.wamp_port,
            mqtt: self.mqtt_port,
            admin: self.admin_port,
        };
        let kinds: Vec<(&str, Vec<Role>, u16)> = if self.split {
            vec![
                ("entry", vec![Role::Entry], 1),
                ("sync", vec![Role::Sync], 1),
                ("storage", vec![Role::Storage], self.groups),
            ]
        } else {
            vec![("node", Role::ALL.to_vec(), self.groups)]
        };
        let each = usize::from(self.nodes);
        let all = kinds.iter().map(|(_, _, groups)| each * usize::from(*groups)).sum();
        anyhow::ensure!(
            [1, each, all].contains(&self.hosts.len()),
            "{} hosts are given for {all} nodes; give one for all of them, or {each}{}",
            self.hosts.len(),
            if all == each { String::new() } else { format!(", or {all}") }
        );
        let mut nodes = Vec::with_capacity(all);
        let mut step = 0;
        for (kind, roles, groups) in kinds {
            let count = self.nodes * groups;
            // Each kind has its own range of ports, so that any number of kinds can share a machine.
            let mut on_host: BTreeMap<&str, u16> = BTreeMap::new();
            for number in 0..count {
                let at = if self.hosts.len() == all { nodes.len() } else { usize::from(number) };
                let host = &self.hosts[at % self.hosts.len()];
                let further = on_host.entry(host).or_default();
                let ports = base.further(step + *further).context("the ports end at 65535")?;
                *further += 1;
                let name = format!("{kind}{}", number + 1);
                let group = number / self.nodes + 1;
                let roles = plan::roles_in(group, &roles);
                nodes.push(PlannedNode { name, host: host.clone(), roles, group, ports });
            }
            step += SPLIT_STEP.max(count);
        }
        let (cluster, realms) = (self.cluster.clone(), self.realms.clone());
        let (tls, retention) = (!self.no_tls, self.keep.into());
        Ok(Plan { cluster, realms, nodes, retention, tls, first_administrator: None })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;
    use vulpes_raft::host::Host;

    use super::*;
    use crate::tls::certificates::Certificates;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        init: Init,
    }

    fn init(line: &str) -> anyhow::Result<()> {
        Line::try_parse_from(std::iter::once("init").chain(line.split(' ')))?.init.run()
    }

    fn peers(dir: &std::path::Path, name: &str) -> Vec<String> {
        let config = NodeConfig::load(&dir.join(name)).unwrap();
        config.nodes.iter().map(|member| member.peer.to_string()).collect()
    }

    #[test]
    fn clusters_are_laid_out_by_host() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let at = |name: &str| path(name).display().to_string();
        init(&format!("--nodes 3 --dir {}", at("local"))).unwrap();
        assert_eq!(
            peers(&path("local"), "node3.toml"),
            ["127.0.0.1:1735", "127.0.0.1:1736", "127.0.0.1:1737"]
        );
        init(&format!("--nodes 2 --dir {} --host a --host b", at("hosts"))).unwrap();
        assert_eq!(peers(&path("hosts"), "node2.toml"), ["a:1735", "b:1735"]);
        let far = NodeConfig::load(&path("hosts").join("node2.toml")).unwrap();
        let encrypted = far.listeners.iter().filter(|one| one.tls.is_some()).count();
        assert!(encrypted == 3 && far.listen.admin.is_none() && !far.insecure, "{far:?}");
        assert!(far.first_administrator.is_some_and(|first| first.name() == "admin"));
        init(&format!("--nodes 2 --dir {} --split", at("split"))).unwrap();
        assert_eq!(
            peers(&path("split"), "storage2.toml"),
            [1735, 1736, 1745, 1746, 1755, 1756].map(|port| format!("127.0.0.1:{port}"))
        );
        init(&format!("--nodes 3 --dir {} --split --groups 2", at("groups"))).unwrap();
        let grouped = NodeConfig::load(&path("groups").join("storage4.toml")).unwrap();
        let storages: Vec<_> =
            grouped.with_role(Role::Storage).map(|member| (member.id.0, member.group)).collect();
        assert_eq!(storages, [(7, 1), (8, 1), (9, 1), (10, 2), (11, 2), (12, 2)]);
        assert_eq!((grouped.node.0, grouped.with_role(Role::Sync).count()), (10, 3));
        init(&format!("--nodes 1 --dir {} --keep-hours 2 --keep-mib 3", at("kept"))).unwrap();
        let kept = NodeConfig::load(&path("kept").join("node1.toml")).unwrap().retention;
        assert_eq!((kept.age.unwrap().as_secs(), kept.size), (7_200, Some(3 << 20)));
        let sync = NodeConfig::load(&path("split").join("sync1.toml")).unwrap();
        assert!(sync.has(Role::Sync) && !sync.has(Role::Entry) && sync.listen.wamp.is_none());
        assert_eq!(sync.data, path("split").join("data/sync1"));
    }

    fn mode(path: &std::path::Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn each_node_gets_a_certificate_that_only_its_user_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("etc");
        let line = format!("--nodes 2 --cluster c --dir {}", dir.display());
        init(&line).unwrap();
        let at = |name: &str| dir.join(name);
        for (name, expected) in [
            ("", 0o700),
            ("ca", 0o700),
            ("ca/ca.key", 0o600),
            ("ca/ca.pem", 0o600),
            ("tls", 0o700),
            ("tls/node2", 0o700),
            ("tls/node2/key.pem", 0o600),
            ("tls/node2/certificate.pem", 0o600),
            ("node2.toml", 0o600),
        ] {
            assert_eq!(mode(&at(name)), expected, "{name}");
        }
        let load = |name: &str| {
            let config = NodeConfig::load(&at(name)).unwrap();
            Certificates::load(&config, Host::real().clock).map(|_| config)
        };
        let config = load("node2.toml").unwrap();
        assert_eq!(config.peer_tls.unwrap().key, at("tls/node2/key.pem"));
        load("node1.toml").unwrap();
        let read = |name: &str| std::fs::read(at(name)).unwrap();
        let (authority, key) = (read("ca/ca.key"), read("tls/node1/key.pem"));
        init(&format!("{line} --force --nodes 3").replacen("--nodes 2 ", "", 1)).unwrap();
        assert!(authority == read("ca/ca.key") && key != read("tls/node1/key.pem"));
        load("node3.toml").unwrap();
        // Everything is checked before anything is written.
        let other = format!("{line} --force").replace("--cluster c", "--cluster d");
        let error = init(&other).unwrap_err().to_string();
        assert!(error.contains("not the authority of cluster \"d\""), "{error}");
        load("node1.toml").unwrap();
        std::fs::remove_file(at("node1.toml")).unwrap();
        std::fs::remove_file(at("node2.toml")).unwrap();
        let error = init(&line).unwrap_err().to_string();
        assert!(error.contains("certificate.pem is there already"), "{error}");

        let open = folder.path().join("open");
        init(&format!("--nodes 1 --no-tls --dir {}", open.display())).unwrap();
        assert_eq!(NodeConfig::load(&open.join("node1.toml")).unwrap().peer_tls, None);
        assert!(!open.join("ca").exists() && !open.join("tls").exists());
        let line = format!("--nodes 1 --no-tls --force --dir {}", open.display());
        init(&line).unwrap();
        assert!(!NodeConfig::load(&open.join("node1.toml")).unwrap().insecure);
        init(&format!("{line} --host 10.0.0.1")).unwrap();
        assert!(NodeConfig::load(&open.join("node1.toml")).unwrap().insecure);
        let line = format!("--nodes 1 --open --force --dir {}", open.display());
        init(&line).unwrap();
        let config = NodeConfig::load(&open.join("node1.toml")).unwrap();
        assert!(config.first_administrator.is_none() && !config.insecure);
        init(&format!("{line} --host 10.0.0.1")).unwrap();
        let config = NodeConfig::load(&open.join("node1.toml")).unwrap();
        assert!(config.first_administrator.is_none() && config.insecure);
    }

    #[test]
    fn mistakes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        for (line, expected) in [
            (format!("--nodes 3 --dir {at} --host a --host b"), "2 hosts are given for 3 nodes"),
            (format!("--nodes 3 --dir {at} --mqtt-port 65534"), "the ports end at 65535"),
            (format!("--nodes 3 --dir {at} --mqtt-port 9031"), "are both 127.0.0.1:9031"),
            (format!("--nodes 1 --dir {at} --host a/b"), "is not an address"),
            (format!("--nodes 1 --dir {at} --keep-mib 0"), "retention.size_mib: 0 is outside"),
        ] {
            let error = init(&line).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
        init(&format!("--nodes 1 --dir {at}")).unwrap();
        let error = init(&format!("--nodes 1 --dir {at}")).unwrap_err().to_string();
        assert!(error.contains("overwrite it with --force"), "{error}");
        init(&format!("--nodes 1 --dir {at} --force")).unwrap();
    }
}

//! The nodes of a cluster and their addresses: the configurations that `up` and `init` write.
//!
//! Invariant: all configurations of a plan name the same nodes, and each passes the checks for a configuration that
//! an operator wrote.
//!
//! Deliberately absent: files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use vulpes_raft::ids::NodeId;

use crate::config::disk::LowWater;
use crate::config::first_administrator::FirstAdministrator;
use crate::config::limits::Limits;
use crate::config::listener::{ClientCertificates, Listener, ListenerProtocol, TlsFiles};
use crate::config::peer_tls::PeerTls;
use crate::config::{Address, ConfigError, Listen, Member, NodeConfig, Role, Timing};
use crate::retention::Retention;
use crate::types::topic::Realm;

/// The ports of a node, or of the first of several on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) peer: u16,
    pub(super) wamp: u16,
    pub(super) mqtt: u16,
    pub(super) admin: u16,
}

impl Ports {
    /// Where the first node of a machine listens by default.
    pub(super) const DEFAULT: Self = Self { peer: 1735, wamp: 9031, mqtt: 1881, admin: 9081 };

    /// The ports of the node that is `further` nodes after this one on the same machine; `None` past the last port.
    pub(super) fn further(self, further: u16) -> Option<Self> {
        Some(Self {
            peer: self.peer.checked_add(further)?,
            wamp: self.wamp.checked_add(further)?,
            mqtt: self.mqtt.checked_add(further)?,
            admin: self.admin.checked_add(further)?,
        })
    }
}

/// The realms of a cluster, on the command line.
#[derive(Clone, Debug, Args)]
pub(super) struct Realms {
    /// A realm that clients may join; can be given several times, the first is the default
    #[arg(long = "realm", value_name = "REALM", default_value = super::DEFAULT_REALM, value_parser = realm)]
    pub(super) realms: Vec<Realm>,
    /// Merge every retained object into the one before, as clients of fox-wamp expect, even without `merge`
    #[arg(long)]
    pub(super) retain_merges: bool,
    /// Let web pages of this origin connect, as https://app.example; can be given several times, * means all. Those of the
    /// nodes' own hosts always may
    #[arg(long = "origin", value_name = "ORIGIN")]
    pub(super) origins: Vec<String>,
}

impl Realms {
    /// The realms in which every retained publish merges.
    fn merging(&self) -> BTreeSet<Realm> {
        self.realms.iter().filter(|_| self.retain_merges).cloned().collect()
    }
}

/// How much of the log a cluster retains, on the command line.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Keep {
    /// Keep this many hours of the log [default: all of it]
    #[arg(long, value_name = "HOURS")]
    keep_hours: Option<u64>,
    /// Keep about this much of what was published, in mebibytes [default: all of it]
    #[arg(long, value_name = "MIB")]
    keep_mib: Option<u64>,
}

impl From<Keep> for Retention {
    fn from(keep: Keep) -> Self {
        Self {
            age: keep.keep_hours.map(|hours| Duration::from_secs(hours.saturating_mul(3_600))),
            size: keep.keep_mib.map(|mib| mib.saturating_mul(1 << 20)),
        }
    }
}

/// A planned node.
#[derive(Clone, Debug)]
pub(super) struct PlannedNode {
    /// Its file's name, unique in the plan.
    pub(super) name: String,
    pub(super) host: String,
    pub(super) roles: Vec<Role>,
    /// Its storage group, if it is a storage.
    pub(super) group: u16,
    pub(super) ports: Ports,
}

impl PlannedNode {
    /// Where it listens, in clear.
    fn listen(&self, member: &Member) -> anyhow::Result<Listen> {
        let client = |port| match member.has(Role::Entry) {
            true => Address::new(&self.host, port).map(Some),
            false => Ok(None),
        };
        Ok(Listen {
            peer: member.peer.clone(),
            wamp: client(self.ports.wamp)?,
            mqtt: client(self.ports.mqtt)?,
            admin: member.admin.clone(),
            origins: Vec::new(),
            hosts: Vec::new(),
        })
    }

    /// Its files for the node port, relative to its configuration.
    fn peer_tls(&self) -> PeerTls {
        let file = |name| Path::new("tls").join(&self.name).join(name);
        PeerTls { certificate: file("certificate.pem"), key: file("key.pem"), ca: file("ca.pem") }
    }

    /// A place where clients or operators come in, with the certificate that the node has for other nodes: it names the host as well.
    fn encrypted(&self, protocol: ListenerProtocol, address: Address) -> Listener {
        let PeerTls { certificate, key, .. } = self.peer_tls();
        let clients = ClientCertificates::None;
        let tls = TlsFiles { certificate, key, clients, revoked: None };
        Listener { protocol, address, tls: Some(tls), certificate_user: false }
    }
}

/// The subset of `roles` that a node in a storage group gets. Only the nodes of the first group are sync members.
pub(super) fn roles_in(group: u16, roles: &[Role]) -> Vec<Role> {
    roles.iter().copied().filter(|role| group == 1 || *role != Role::Sync).collect()
}

/// A planned cluster. Its nodes are numbered from 1 in this order.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) cluster: String,
    pub(super) realms: Realms,
    pub(super) nodes: Vec<PlannedNode>,
    pub(super) retention: Retention,
    /// Whether nodes have certificates, in `tls` beside their configurations: for each other, and beyond loopback for clients.
    pub(super) tls: bool,
    /// Whom the cluster begins with. Without, everybody comes in.
    pub(super) first_administrator: Option<FirstAdministrator>,
}

impl Plan {
    /// Whether its nodes may be reached from other machines.
    fn is_safe(&self) -> bool {
        self.tls && self.first_administrator.is_some()
    }

    /// The nodes' configurations, in order. `data` gives each node's data directory.
    pub(super) fn configs(
        &self,
        data: impl Fn(&PlannedNode) -> PathBuf,
    ) -> anyhow::Result<Vec<NodeConfig>> {
        let mut members = Vec::with_capacity(self.nodes.len());
        for (number, node) in (1..).zip(&self.nodes) {
            members.push(Member {
                id: NodeId(number),
                peer: Address::new(&node.host, node.ports.peer)?,
                admin: Some(Address::new(&node.host, node.ports.admin)?),
                roles: node.roles.clone(),
                group: node.group,
            });
        }
        let mut configs = Vec::with_capacity(self.nodes.len());
        for (node, member) in self.nodes.iter().zip(&members) {
            let is_near = member.peer.is_loopback();
            let mut listen = node.listen(member)?;
            let mut listeners = Vec::new();
            if self.tls && !is_near {
                for (protocol, address) in [
                    (ListenerProtocol::Wamp, listen.wamp.take()),
                    (ListenerProtocol::Mqtt, listen.mqtt.take()),
                    (ListenerProtocol::Admin, listen.admin.take()),
                ] {
                    listeners.extend(address.map(|address| node.encrypted(protocol, address)));
                }
            }
            listen.origins.clone_from(&self.realms.origins);
            configs.push(NodeConfig {
                cluster: self.cluster.clone(),
                node: member.id,
                data: data(node),
                realms: self.realms.realms.clone(),
                default_realm: self.realms.realms.first().cloned().ok_or_else(no_realms)?,
                merging: self.realms.merging(),
                listen,
                listeners,
                peer_tls: self.tls.then(|| node.peer_tls()),
                // Nobody has to be asked again for what was chosen on the command line.
                insecure: !is_near && !self.is_safe(),
                first_administrator: self.first_administrator.clone(),
                nodes: members.clone(),
                timing: Timing::default(),
                tokens: None,
                retention: self.retention,
                limits: Limits::default(),
                low_water: LowWater::default(),
                log: None,
            });
        }
        for config in &configs {
            check(config)?;
        }
        Ok(configs)
    }
}

fn no_realms() -> anyhow::Error {
    anyhow::anyhow!("a cluster needs a realm; name one with --realm")
}

/// Applies the same checks as to an operator's configuration.
fn check(config: &NodeConfig) -> anyhow::Result<()> {
    match NodeConfig::parse(&config.to_toml(), Path::new("")) {
        Ok(_) => Ok(()),
        Err(ConfigError::Invalid { problems, .. }) => {
            let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::bail!("this cluster is not possible: {}", texts.join("; "))
        }
        Err(error) => Err(error.into()),
    }
}

/// A realm's name from the command line.
fn realm(text: &str) -> Result<Realm, String> {
    Realm::new(text).map_err(|error| error.to_string())
}

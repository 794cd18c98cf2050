//! The format of the configuration file: what the TOML contains, how it is checked, how it is written.
//!
//! Invariant: what is written is read back as the same configuration.
//!
//! Deliberately absent: reading the disk, except for the path that `data` is relative to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::EnvFilter;
use vulpes_raft::ids::NodeId;

use super::disk::{self, DiskTable};
use super::exposure;
use super::first_administrator::{self, FirstAdministratorTable};
use super::hosts;
use super::limits::{self, LimitsTable};
use super::listener::{self, Listener, ListenerProtocol, ListenerTable};
use super::origins::is_origin;
use super::peer_tls::{self, PeerTlsTable};
use super::tokens::{self, TokenTable};
use super::{
    Address, ConfigError, Listen, Member, NodeConfig, Problem, Role, Timing, CLUSTER_NAME, NODES,
    REALMS,
};
use crate::retention::Retention;
use crate::types::topic::Realm;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    cluster: String,
    node: NodeId,
    data: PathBuf,
    realms: Vec<String>,
    default_realm: Option<String>,
    /// The settings of single realms, by name.
    #[serde(default)]
    realm: BTreeMap<String, RealmTable>,
    #[serde(default)]
    listen: ListenTable,
    #[serde(default)]
    listener: Vec<ListenerTable>,
    peer_tls: Option<PeerTlsTable>,
    nodes: Vec<NodeTable>,
    #[serde(default)]
    timing: TimingTable,
    jwt: Option<TokenTable>,
    #[serde(default)]
    retention: RetentionTable,
    #[serde(default)]
    limits: LimitsTable,
    #[serde(default)]
    disk: DiskTable,
    log: Option<String>,
    #[serde(default)]
    insecure: bool,
    first_administrator: Option<FirstAdministratorTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RealmTable {
    #[serde(default)]
    retain_merges: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ListenTable {
    peer: Option<Address>,
    wamp: Option<Address>,
    mqtt: Option<Address>,
    admin: Option<Address>,
    #[serde(default)]
    origins: Vec<String>,
    #[serde(default)]
    hosts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeTable {
    id: NodeId,
    peer: Address,
    admin: Option<Address>,
    roles: Vec<Role>,
    group: Option<u16>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct TimingTable {
    heartbeat_ms: Option<u64>,
    election_min_ms: Option<u64>,
    election_max_ms: Option<u64>,
    lease_ms: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RetentionTable {
    age_hours: Option<u64>,
    size_mib: Option<u64>,
}

/// Longest retention: a hundred years.
const AGE_HOURS: u64 = 876_000;

/// Largest retention: a pebibyte.
const SIZE_MIB: u64 = 1 << 30;

pub(super) fn parse(text: &str, path: &Path) -> Result<NodeConfig, ConfigError> {
    let file: ConfigFile = toml::from_str(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        error: error.to_string().trim_end().to_owned(),
    })?;
    let mut problems = Vec::new();
    let config = check(file, path, &mut problems);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(ConfigError::Invalid { path: path.to_owned(), problems }),
    }
}

/// Gathers every problem; the result is valid only if there are none.
fn check(file: ConfigFile, path: &Path, problems: &mut Vec<Problem>) -> Option<NodeConfig> {
    let length = file.cluster.len();
    if length == 0 || length > CLUSTER_NAME || file.cluster.contains(char::is_control) {
        problems.push(Problem::ClusterName);
    }
    if file.data.as_os_str().is_empty() {
        problems.push(Problem::NoData);
    }
    let (realms, default_realm) = check_realms(&file.realms, file.default_realm, problems);
    let merging = check_merging(&file.realm, &realms, problems);
    let nodes = check_nodes(file.nodes, problems);
    let timing = check_timing(&file.timing, problems);
    let retention = check_retention(&file.retention, problems);
    let limits = limits::check(file.limits, problems);
    let low_water = disk::check(file.disk, problems);
    if let Some(log) = file.log.as_ref().filter(|log| !is_log_filter(log)) {
        problems.push(Problem::Log(log.clone()));
    }
    let Some(own) = nodes.iter().find(|member| member.id == file.node) else {
        problems.push(Problem::UnknownNode(file.node));
        return None;
    };
    let listen = Listen {
        peer: file.listen.peer.unwrap_or_else(|| own.peer.clone()),
        wamp: file.listen.wamp,
        mqtt: file.listen.mqtt,
        admin: file.listen.admin,
        origins: file.listen.origins,
        hosts: file.listen.hosts,
    };
    let wrong = listen.origins.iter().filter(|origin| !is_origin(origin));
    problems.extend(wrong.map(|origin| Problem::Origin(origin.clone())));
    hosts::check(&listen.hosts, problems);
    let beside = path.parent().unwrap_or(Path::new(""));
    let listeners = listener::check(file.listener, own, beside, problems);
    let peer_tls = peer_tls::check(file.peer_tls, file.insecure, &listen.peer, beside, problems);
    exposure::check(file.insecure, (&listen, &listeners), problems);
    let first = file.first_administrator;
    let first_administrator = first.and_then(|table| first_administrator::check(&table, problems));
    let tokens = file.jwt.and_then(|table| tokens::check(table, beside, problems));
    check_listen(own, &listen, &listeners, problems);
    check_addresses(own, (&listen, &listeners), &nodes, problems);
    Some(NodeConfig {
        cluster: file.cluster,
        node: file.node,
        data: beside.join(file.data),
        realms,
        default_realm: default_realm?,
        merging,
        listen,
        listeners,
        peer_tls,
        insecure: file.insecure,
        first_administrator,
        nodes,
        tokens,
        timing,
        retention,
        limits,
        low_water,
        log: file.log,
    })
}

/// Whether it is a usable log filter. A bare word that is not a level would be taken for a module that does not exist.
fn is_log_filter(text: &str) -> bool {
    let means =
        |part: &str| part.contains(['=', '[']) || part.trim().parse::<LevelFilter>().is_ok();
    EnvFilter::try_new(text).is_ok() && text.split(',').all(means)
}

fn check_realms(
    names: &[String],
    default: Option<String>,
    problems: &mut Vec<Problem>,
) -> (Vec<Realm>, Option<Realm>) {
    if names.is_empty() {
        problems.push(Problem::NoRealms);
    }
    if names.len() > REALMS {
        problems.push(Problem::TooManyRealms(names.len()));
    }
    let mut realms = Vec::new();
    let mut seen = BTreeSet::new();
    for name in names {
        match Realm::new(name) {
            Ok(realm) if !seen.insert(realm.clone()) => {
                problems.push(Problem::DuplicateRealm(realm));
            }
            Ok(realm) => realms.push(realm),
            Err(error) => problems.push(Problem::BadRealm { name: name.clone(), error }),
        }
    }
    let default_realm = match default {
        None => realms.first().cloned(),
        Some(name) => {
            let found = realms.iter().find(|realm| realm.as_str() == name).cloned();
            if found.is_none() {
                problems.push(Problem::UnknownDefaultRealm(name));
            }
            found
        }
    };
    (realms, default_realm)
}

/// The realms in which every retained publish merges.
fn check_merging(
    tables: &BTreeMap<String, RealmTable>,
    realms: &[Realm],
    problems: &mut Vec<Problem>,
) -> BTreeSet<Realm> {
    let mut merging = BTreeSet::new();
    for (name, table) in tables {
        match realms.iter().find(|realm| realm.as_str() == name) {
            Some(realm) if table.retain_merges => drop(merging.insert(realm.clone())),
            Some(_) => {}
            None => problems.push(Problem::UnknownRealm(name.clone())),
        }
    }
    merging
}

fn check_nodes(tables: Vec<NodeTable>, problems: &mut Vec<Problem>) -> Vec<Member> {
    if tables.is_empty() {
        problems.push(Problem::NoNodes);
        return Vec::new();
    }
    if tables.len() > NODES {
        problems.push(Problem::TooManyNodes(tables.len()));
    }
    let mut nodes: Vec<Member> = Vec::with_capacity(tables.len());
    for table in tables {
        check_node(&table, problems);
        if nodes.iter().any(|member| member.id == table.id) {
            problems.push(Problem::DuplicateNode(table.id));
        }
        let roles: BTreeSet<Role> = table.roles.into_iter().collect();
        let roles = roles.into_iter().collect();
        let NodeTable { id, peer, admin, .. } = table;
        nodes.push(Member { id, peer, admin, roles, group: table.group.unwrap_or(1) });
    }
    for role in Role::ALL {
        if !nodes.iter().any(|member| member.has(role)) {
            problems.push(Problem::RoleMissing(role));
        }
    }
    let storages = nodes.iter().filter(|member| member.has(Role::Storage));
    let groups: BTreeSet<u16> = storages.map(|member| member.group).collect();
    let last = groups.last().copied().unwrap_or(1);
    if let Some(missing) = (1..last).find(|group| !groups.contains(group)) {
        problems.push(Problem::GroupMissing { missing, last });
    }
    nodes.sort_by_key(|member| member.id);
    nodes
}

fn check_node(table: &NodeTable, problems: &mut Vec<Problem>) {
    let node = table.id;
    if node == NodeId(0) {
        problems.push(Problem::ZeroNode);
    }
    if table.roles.is_empty() {
        problems.push(Problem::NoRole(node));
    }
    match table.group {
        Some(_) if !table.roles.contains(&Role::Storage) => {
            problems.push(Problem::GroupWithoutStorage(node));
        }
        Some(0) => problems.push(Problem::ZeroGroup(node)),
        _ => {}
    }
    for (at, role) in table.roles.iter().enumerate() {
        if table.roles[..at].contains(role) {
            problems.push(Problem::DuplicateRole { node, role: *role });
        }
    }
    if table.peer.port() == 0 {
        problems.push(Problem::PeerPortZero { node, address: table.peer.clone() });
    }
    if table.peer.is_wildcard() {
        problems.push(Problem::PeerWildcard { node, address: table.peer.clone() });
    }
}

fn check_listen(
    own: &Member,
    listen: &Listen,
    listeners: &[Listener],
    problems: &mut Vec<Problem>,
) {
    if own.has(Role::Entry) {
        let others = listeners.iter().any(|one| one.protocol != ListenerProtocol::Admin);
        if listen.wamp.is_none() && listen.mqtt.is_none() && !others {
            problems.push(Problem::EntryWithoutListen(own.id));
        }
        return;
    }
    if listen.wamp.is_some() {
        problems.push(Problem::ListenWithoutEntry("wamp", own.id));
    }
    if listen.mqtt.is_some() {
        problems.push(Problem::ListenWithoutEntry("mqtt", own.id));
    }
}

/// Checks that no address is used twice. This node's own listeners share a machine, so for them a wildcard conflicts too.
fn check_addresses(
    own: &Member,
    (listen, listeners): (&Listen, &[Listener]),
    nodes: &[Member],
    problems: &mut Vec<Problem>,
) {
    let mut local = vec![("listen.peer".to_owned(), &listen.peer)];
    for (name, address) in
        [("wamp", &listen.wamp), ("mqtt", &listen.mqtt), ("admin", &listen.admin)]
    {
        local.extend(address.as_ref().map(|address| (format!("listen.{name}"), address)));
    }
    local.extend((1..).zip(listeners).map(|(number, one)| {
        let admin = if one.protocol == ListenerProtocol::Admin { "admin " } else { "" };
        (format!("{admin}listener {number}"), &one.address)
    }));
    let mut clash = |first: &str, second: &str, address: &Address| {
        problems.push(Problem::SharedAddress {
            first: first.to_owned(),
            second: second.to_owned(),
            address: address.clone(),
        });
    };
    for (at, (name, address)) in local.iter().enumerate() {
        for (earlier_name, earlier) in &local[..at] {
            if address.clashes(earlier) {
                clash(earlier_name, name, address);
            }
        }
    }
    let mut public: Vec<(String, &Address)> = Vec::new();
    for member in nodes {
        public.push((format!("the peer address of node {}", member.id), &member.peer));
        if let Some(admin) = &member.admin {
            public.push((format!("the admin address of node {}", member.id), admin));
        }
        if member.id != own.id {
            continue;
        }
        // Its peer and admin addresses are listed already, as others reach them.
        let clients = local.iter().filter(|(name, _)| {
            name == "listen.wamp" || name == "listen.mqtt" || name.starts_with("listener ")
        });
        public.extend(clients.map(|(name, address)| (name.clone(), *address)));
    }
    for (at, (name, address)) in public.iter().enumerate() {
        for (earlier_name, earlier) in &public[..at] {
            if address == earlier && address.port() != 0 {
                clash(earlier_name, name, address);
            }
        }
    }
}

fn check_timing(table: &TimingTable, problems: &mut Vec<Problem>) -> Timing {
    let default = Timing::default();
    let mut value = |name, given: Option<u64>, default: Duration, least, most| {
        let Some(value) = given else { return default };
        if !(least..=most).contains(&value) {
            problems.push(Problem::TimingRange { name, value, least, most });
        }
        Duration::from_millis(value)
    };
    let timing = Timing {
        heartbeat: value("heartbeat_ms", table.heartbeat_ms, default.heartbeat, 10, 10_000),
        election_min: value(
            "election_min_ms",
            table.election_min_ms,
            default.election_min,
            20,
            60_000,
        ),
        election_max: value(
            "election_max_ms",
            table.election_max_ms,
            default.election_max,
            20,
            60_000,
        ),
        lease: value("lease_ms", table.lease_ms, default.lease, 100, 600_000),
    };
    if timing.election_min < timing.heartbeat.saturating_mul(2) {
        problems.push(Problem::ElectionTooSoon);
    }
    if timing.election_max <= timing.election_min {
        problems.push(Problem::ElectionNotSpread);
    }
    if timing.lease < timing.election_max.saturating_mul(2) {
        problems.push(Problem::LeaseTooShort);
    }
    timing
}

fn check_retention(table: &RetentionTable, problems: &mut Vec<Problem>) -> Retention {
    let mut value = |name, given: Option<u64>, most| {
        given.filter(|value| {
            let fits = (1..=most).contains(value);
            if !fits {
                problems.push(Problem::RetentionRange { name, value: *value, least: 1, most });
            }
            fits
        })
    };
    let age = value("age_hours", table.age_hours, AGE_HOURS);
    let size = value("size_mib", table.size_mib, SIZE_MIB);
    Retention {
        age: age.map(|hours| Duration::from_secs(hours * 3_600)),
        size: size.map(|mib| mib << 20),
    }
}

pub(super) fn write(config: &NodeConfig) -> String {
    let realms: Vec<String> = config.realms.iter().map(|realm| text(realm.as_str())).collect();
    let mut out = String::new();
    let mut line = |line: String| {
        out.push_str(&line);
        out.push('\n');
    };
    line(format!("cluster = {}  # all nodes of a cluster have the same", text(&config.cluster)));
    line(format!("node = {}", config.node));
    let data = config.data.to_string_lossy();
    line(format!("data = {}  # relative to this file", text(&data)));
    line(format!("realms = [{}]", realms.join(", ")));
    line(format!(
        "default_realm = {}  # for MQTT clients whose user name names none",
        text(config.default_realm.as_str())
    ));
    if let Some(log) = &config.log {
        line(format!("log = {}  # read again on SIGHUP", text(log)));
    }
    if config.insecure {
        line(
            "insecure = true  # it may listen beyond loopback without TLS and without users".into(),
        );
    }
    for realm in &config.merging {
        line(format!("\n[realm.{}]  # the same on all nodes", text(realm.as_str())));
        line("retain_merges = true".into());
    }
    write_listen(config, &mut line);
    listener::write(&config.listeners, text, &mut line);
    peer_tls::write(config.peer_tls.as_ref(), text, &mut line);
    first_administrator::write(config.first_administrator.as_ref(), text, &mut line);
    for member in &config.nodes {
        let roles: Vec<String> = member.roles.iter().map(|role| format!("\"{role}\"")).collect();
        line(format!("\n[[nodes]]\nid = {}", member.id));
        line(format!("peer = {}", text(member.peer.as_str())));
        if let Some(admin) = &member.admin {
            line(format!("admin = {}", text(admin.as_str())));
        }
        line(format!("roles = [{}]", roles.join(", ")));
        if member.has(Role::Storage) && config.storage_groups() > 1 {
            line(format!("group = {}  # the storage group", member.group));
        }
    }
    if let Some(tokens) = &config.tokens {
        tokens::write(tokens, text, &mut line);
    }
    let timing = &config.timing;
    if *timing != Timing::default() {
        line("\n[timing]".into());
        for (name, value) in [
            ("heartbeat_ms", timing.heartbeat),
            ("election_min_ms", timing.election_min),
            ("election_max_ms", timing.election_max),
            ("lease_ms", timing.lease),
        ] {
            line(format!("{name} = {}", value.as_millis()));
        }
    }
    limits::write(&config.limits, text, &mut line);
    disk::write(config.low_water, text, &mut line);
    write_retention(&config.retention, &mut line);
    out
}

fn write_retention(retention: &Retention, line: &mut impl FnMut(String)) {
    if !retention.is_limited() {
        return;
    }
    line("\n[retention]  # what of the log is kept; the same on all nodes".into());
    let Retention { age, size } = retention;
    let age = age.map(|age| age.as_secs() / 3_600);
    for (name, value) in [("age_hours", age), ("size_mib", size.map(|size| size >> 20))] {
        if let Some(value) = value {
            line(format!("{name} = {value}"));
        }
    }
}

/// A string in TOML syntax.
fn text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn write_listen(config: &NodeConfig, line: &mut impl FnMut(String)) {
    line("\n[listen]  # what this node listens on".into());
    let peer = Some(&config.listen.peer).filter(|peer| **peer != config.own().peer);
    for (name, address) in [
        ("peer", peer),
        ("wamp", config.listen.wamp.as_ref()),
        ("mqtt", config.listen.mqtt.as_ref()),
        ("admin", config.listen.admin.as_ref()),
    ] {
        if let Some(address) = address {
            line(format!("{name} = {}", text(address.as_str())));
        }
    }
    let Listen { origins, hosts, .. } = &config.listen;
    for (name, listed, what) in [
        ("origins", origins, "of web pages that may connect"),
        ("hosts", hosts, "names by which admin HTTP may be asked"),
    ] {
        if !listed.is_empty() {
            let listed: Vec<String> = listed.iter().map(|one| text(one)).collect();
            line(format!("{name} = [{}]  # {what}", listed.join(", ")));
        }
    }
}

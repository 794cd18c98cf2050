//! `vulpes status`: the state of a cluster's nodes, as each node reports it.
//!
//! Invariant: a node that does not answer is shown as such, never left out. The exit code is 0 only if every node of the
//! cluster reported that it is ready.
//!
//! Deliberately absent: history; it shows one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use clap::Args;
use comfy_table::{presets, Table};
use serde::Serialize;
use tokio::time::Instant;
use vulpes_raft::ids::{NodeId, Position};

use super::login::{self, LoginArgs};
use super::secure::TlsArgs;
use super::{events, Reported};
use crate::client::admin::{AdminClient, AdminUrl};
use crate::config::{Address, Role};
use crate::http::{NodeStatus, SyncState};

/// Digits shown of the hash of a node's state.
const HASH_DIGITS: usize = 8;

const EXAMPLES: &str = "\
Examples:
  vulpes status
  vulpes status --node-admin http://10.0.0.2:9081
  vulpes status --wait 2m                     return as soon as all nodes are ready
  vulpes status --json

The exit code is 1 if a node is down or not ready.";

/// How often the nodes are asked again with --wait.
const AGAIN: Duration = Duration::from_millis(200);

/// Show the nodes, their roles, the leader, and how far each is with the log
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Status {
    /// Admin URL of a node to ask about the others; can be given several times
    #[arg(
        long,
        value_name = "URL",
        default_value = super::DEFAULT_ADMIN,
        value_delimiter = ','
    )]
    node_admin: Vec<AdminUrl>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Wait until all nodes are ready, for so long at most, as in 30s or 5m
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        default_missing_value = "60s",
        value_parser = events::duration
    )]
    wait: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    login: LoginArgs,
}

/// A node, and its answer.
#[derive(Debug, Serialize)]
pub(super) struct Asked {
    /// Its number, if any node knows it.
    pub(super) node: Option<NodeId>,
    /// Its admin URL, if any node knows it.
    pub(super) admin: Option<String>,
    pub(super) roles: Vec<Role>,
    pub(super) status: Option<NodeStatus>,
    /// Why there is no status.
    pub(super) error: Option<String>,
}

/// A cluster, as its nodes report it.
#[derive(Debug, Serialize)]
struct Overview {
    cluster: Option<String>,
    /// The leader according to the sync node with the highest term.
    leader: Option<NodeId>,
    term: Option<u64>,
    voters: Vec<NodeId>,
    /// Position of the next event, according to the most advanced node.
    tail_position: Option<Position>,
    /// First retained position, according to the most advanced node.
    oldest_position: Option<Position>,
    nodes: Vec<Asked>,
}

impl Status {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = self.login.admin()?;
        let deadline = Instant::now() + self.wait.unwrap_or_default();
        let dialer = self.tls.dialer()?;
        let urls: Vec<_> = self.node_admin.into_iter().map(|url| url.trusting(&dialer)).collect();
        let overview = loop {
            let overview = overview(ask_all(&client, &urls).await);
            if overview.all_ready() || Instant::now() >= deadline {
                break overview;
            }
            tokio::time::sleep(AGAIN).await;
        };
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&overview)?)?;
        } else {
            write!(out, "{}", render(&overview))?;
        }
        out.flush()?;
        // The lines below the table say what to do about a refusal.
        let refused = |asked: &Asked| asked.error.as_deref().is_some_and(login::is_advised);
        let answered = |asked: &Asked| asked.status.is_some() || refused(asked);
        let answered = overview.nodes.iter().any(answered);
        anyhow::ensure!(
            answered,
            "no node answers; start one, or name the admin URL of one with --node-admin"
        );
        if overview.all_ready() {
            Ok(())
        } else {
            // The table and the lines below it say which node is not ready, and why.
            Err(Reported.into())
        }
    }
}

impl Overview {
    fn all_ready(&self) -> bool {
        self.nodes.iter().all(|asked| asked.status.as_ref().is_some_and(|status| status.ready))
    }
}

/// Asks these nodes for their status, and the nodes that they name.
pub(super) async fn ask_all(client: &AdminClient, urls: &[AdminUrl]) -> Vec<Asked> {
    let mut asked: Vec<Asked> = Vec::new();
    for url in urls {
        asked.push(ask(client, url, None, Vec::new()).await);
    }
    let mut known: BTreeSet<NodeId> = asked.iter().filter_map(|asked| asked.node).collect();
    let mut others = BTreeMap::new();
    for (url, asked) in urls.iter().zip(&asked) {
        for member in asked.status.iter().flat_map(|status| &status.members) {
            if known.insert(member.node) {
                others.insert(member.node, (url, member.clone()));
            }
        }
    }
    for (node, (url, member)) in others {
        asked.push(match member.admin {
            Some(address) => ask(client, &url.beside(address), Some(node), member.roles).await,
            None => Asked {
                node: Some(node),
                admin: None,
                roles: member.roles,
                status: None,
                error: Some("the [[nodes]] of the configuration give it no admin address".into()),
            },
        });
    }
    forget_doubles(&mut asked);
    asked.sort_by_key(|asked| (asked.node.is_none(), asked.node));
    asked
}

/// Removes duplicates: a node that was asked at two URLs, and a URL without an answer that may belong to a known node.
fn forget_doubles(asked: &mut Vec<Asked>) {
    let mut nodes = BTreeSet::new();
    asked.retain(|asked| asked.node.is_none_or(|node| nodes.insert(node)));
    let named: BTreeSet<String> = asked
        .iter()
        .filter(|asked| asked.node.is_some())
        .filter_map(|asked| asked.admin.clone())
        .collect();
    asked.retain(|asked| {
        asked.node.is_some() || asked.admin.as_ref().is_none_or(|admin| !named.contains(admin))
    });
}

async fn ask(
    client: &AdminClient,
    url: &AdminUrl,
    node: Option<NodeId>,
    roles: Vec<Role>,
) -> Asked {
    let admin = Some(url.to_string());
    match client.status(url).await {
        Ok(status) => match node {
            Some(node) if node != status.node => {
                let error = format!("node {} answers there, not node {node}", status.node);
                Asked { node: Some(node), admin, roles, status: None, error: Some(error) }
            }
            _ => Asked {
                node: Some(status.node),
                admin,
                roles: status.roles.clone(),
                status: Some(status),
                error: None,
            },
        },
        Err(error) => {
            Asked { node, admin, roles, status: None, error: Some(login::advised(error)) }
        }
    }
}

fn overview(nodes: Vec<Asked>) -> Overview {
    let statuses = || nodes.iter().filter_map(|asked| asked.status.as_ref());
    // A deposed leader may not know yet that it is deposed: the highest term is right.
    let newest = statuses()
        .filter_map(|status| status.sync.as_ref())
        .max_by_key(|sync| (sync.term, sync.leader.is_some(), sync.state == SyncState::Leader));
    let tail_position = statuses().filter_map(tail).max();
    let oldest = |status: &NodeStatus| status.state.as_ref().map(|state| state.oldest_position);
    let oldest_position = statuses().filter_map(oldest).max();
    Overview {
        cluster: statuses().next().map(|status| status.cluster.clone()),
        leader: newest.and_then(|sync| sync.leader),
        term: newest.map(|sync| sync.term),
        voters: newest.map(|sync| sync.voters.clone()).unwrap_or_default(),
        tail_position,
        oldest_position,
        nodes,
    }
}

fn tail(status: &NodeStatus) -> Option<Position> {
    let sync = status.sync.as_ref().map(|sync| sync.tail_position);
    let replica = status.replica.as_ref().map(|replica| replica.tail_position);
    sync.max(replica)
}

fn render(overview: &Overview) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "node", "roles", "state", "sync", "term", "tail", "applied", "hash", "lag", "sessions",
        "WAMP", "MQTT", "admin",
    ]);
    for asked in &overview.nodes {
        table.add_row(row(asked, overview.tail_position));
    }
    let word = |number: Option<NodeId>| number.map_or("none".into(), |n| n.to_string());
    let voters: Vec<String> = overview.voters.iter().map(ToString::to_string).collect();
    // Positions count from 1, so the next one gives the number of events.
    let events = overview
        .tail_position
        .map_or("unknown".into(), |tail| tail.0.saturating_sub(1).to_string());
    let oldest = overview.oldest_position.filter(|oldest| oldest.0 > 1);
    let oldest = oldest.map_or_else(String::new, |oldest| format!("   kept from {oldest}"));
    let mut text = format!(
        "cluster {}   leader {}   term {}   voters {}   events {events}{oldest}{}\n{table}\n",
        overview.cluster.as_deref().unwrap_or("unknown"),
        word(overview.leader),
        overview.term.map_or("unknown".into(), |term| term.to_string()),
        if voters.is_empty() { "unknown".into() } else { voters.join(" ") },
        kept(overview),
    );
    for asked in &overview.nodes {
        let name = asked.node.map_or("a node".into(), |node| format!("node {node}"));
        let status = asked.status.as_ref();
        let complaint =
            asked.error.as_ref().or(status.and_then(|status| status.not_ready.as_ref()));
        if let Some(complaint) = complaint {
            text.push_str(&format!("{name}: {complaint}\n"));
        }
    }
    text.extend(shortage(overview));
    text
}

/// Says that publishes are refused, if they are.
fn shortage(overview: &Overview) -> Option<String> {
    let statuses = overview.nodes.iter().filter_map(|asked| asked.status.as_ref());
    let low = statuses.filter(|one| one.storage.as_ref().is_some_and(|storage| storage.disk_low));
    let low: Vec<String> = low.map(|status| status.node.to_string()).collect();
    let words = low.join(", ");
    (!low.is_empty()).then(|| format!("publishes are refused: the disk runs low at node {words}\n"))
}

/// Number of persistent sessions according to the most advanced node; nothing if there are none.
fn kept(overview: &Overview) -> String {
    let states = overview.nodes.iter().filter_map(|asked| asked.status.as_ref()?.state.as_ref());
    let Some(state) = states.max_by_key(|state| state.next_slot) else { return String::new() };
    match (state.kept_attached, state.kept_away) {
        (0, 0) => String::new(),
        (attached, away) => format!("   kept sessions {attached} attached {away} away"),
    }
}

/// Roles; a storage's with its group, if there are several.
pub(super) fn role_words(roles: &[Role], group: Option<u16>) -> String {
    let word = |role: &Role| match (role, group) {
        (Role::Storage, Some(group)) => format!("{role}/{group}"),
        (role, _) => role.to_string(),
    };
    roles.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn roles(asked: &Asked) -> String {
    let own = asked
        .status
        .as_ref()
        .and_then(|status| status.members.iter().find(|member| member.node == status.node));
    role_words(&asked.roles, own.and_then(|member| member.group))
}

fn row(asked: &Asked, tail_position: Option<Position>) -> Vec<String> {
    let roles = roles(asked);
    let text =
        |address: &Option<Address>| address.as_ref().map_or_else(String::new, ToString::to_string);
    let node = asked.node.map_or_else(|| "?".into(), |node| node.to_string());
    let admin = asked.admin.clone().unwrap_or_default();
    let Some(status) = &asked.status else {
        let mut row = vec![node, roles, "no answer".into()];
        row.resize(12, String::new());
        row.push(admin);
        return row;
    };
    let (sync, term) = status.sync.as_ref().map_or_else(Default::default, |sync| {
        (format!("{:?}", sync.state).to_lowercase(), sync.term.to_string())
    });
    let applied = status.replica.as_ref().map(|replica| replica.applied_position);
    // Both are the position after the last event: shown as the last event itself.
    let shown = |position: Option<Position>| {
        position.map_or_else(String::new, |position| position.0.saturating_sub(1).to_string())
    };
    let lag = tail_position.zip(applied).map(|(tail, applied)| tail.0.saturating_sub(applied.0));
    let sessions = status.entry.as_ref().map(|entry| entry.wamp_sessions + entry.mqtt_sessions);
    vec![
        node,
        roles,
        if status.ready { "ready" } else { "not ready" }.into(),
        sync,
        term,
        shown(tail(status)),
        shown(applied),
        status.state.as_ref().map_or_else(String::new, |state| shortened(&state.hash)),
        lag.map_or_else(String::new, |lag| lag.to_string()),
        sessions.map_or_else(String::new, |sessions| sessions.to_string()),
        text(&status.listen.wamp),
        text(&status.listen.mqtt),
        admin,
    ]
}

/// Enough digits of a hash to compare two by eye.
fn shortened(hash: &str) -> String {
    hash.chars().take(HASH_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vulpes_raft::ids::{DiskId, Slot};

    use super::*;
    use crate::config::NodeConfig;
    use crate::http::{ReplicaStatus, StateStatus, SyncStatus};

    fn node(number: u64, term: u64, leader: Option<u64>, applied: u64) -> Asked {
        let text = include_str!("../../demo/vulpes.example.toml");
        let text = text.replacen("node = 1", &format!("node = {number}"), 1);
        let config = NodeConfig::parse(&text, Path::new("x.toml")).unwrap();
        let mut status = NodeStatus::new(&config, Some(DiskId(1)));
        status.sync = Some(SyncStatus {
            state: if leader == Some(number) { SyncState::Leader } else { SyncState::Follower },
            term,
            leader: leader.map(NodeId),
            voters: vec![NodeId(1), NodeId(2), NodeId(3)],
            last_index: None,
            applied_index: None,
            tail_slot: Slot(0),
            tail_position: Position(91),
        });
        status.replica = Some(ReplicaStatus {
            applied_slot: Slot(0),
            applied_position: Position(applied),
            tail_position: Position(90),
            withheld_events: 0,
        });
        status.state = Some(StateStatus {
            next_slot: Slot(1),
            hash: "00c0ffee42".into(),
            sessions: 0,
            retained: 0,
            waiting: 0,
            oldest_slot: Slot(1),
            oldest_position: Position(1),
            kept_attached: 0,
            kept_away: 2,
        });
        Asked {
            node: Some(NodeId(number)),
            admin: Some(format!("http://127.0.0.1:908{number}")),
            roles: status.roles.clone(),
            status: Some(status),
            error: None,
        }
    }

    fn silent(node: Option<u64>, admin: &str) -> Asked {
        Asked {
            node: node.map(NodeId),
            admin: Some(admin.into()),
            roles: Vec::new(),
            status: None,
            error: Some("connection refused".into()),
        }
    }

    #[test]
    fn the_newest_term_names_the_leader() {
        let overview =
            overview(vec![node(1, 4, Some(1), 91), node(2, 5, Some(2), 71), silent(Some(3), "x")]);
        assert_eq!((overview.leader, overview.term), (Some(NodeId(2)), Some(5)));
        assert_eq!(overview.tail_position, Some(Position(91)));
        let text = render(&overview);
        let mut shortened = overview;
        let state = shortened.nodes[0].status.as_mut().and_then(|status| status.state.as_mut());
        state.unwrap().oldest_position = Position(17);
        let shortened = super::overview(shortened.nodes);
        assert!(render(&shortened).contains("   events 90   kept from 17   kept sessions"));
        assert!(text
            .starts_with("cluster vulpes   leader 2   term 5   voters 1 2 3   events 90   kept "));
        assert!(text.contains("kept sessions 0 attached 2 away\n"), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(cells(lines[4]).join(" ").contains("leader 4 90 90 00c0ffee 0"), "{text}");
        assert!(cells(lines[5]).join(" ").contains("leader 5 90 70 00c0ffee 20"), "{text}");
        assert!(lines[6].contains("no answer"), "{text}");
        assert!(text.contains("node 3: connection refused"), "{text}");
        assert!(text.contains("node 1: the node is starting"), "{text}");
    }

    #[test]
    fn all_are_ready_or_the_cluster_is_not() {
        let ready = |number| {
            let mut asked = node(number, 1, Some(1), 1);
            asked.status.iter_mut().for_each(|status| status.ready = true);
            asked
        };
        assert!(overview(vec![ready(1), ready(2)]).all_ready());
        assert!(!overview(vec![ready(1), node(2, 1, Some(1), 1)]).all_ready());
        assert!(!overview(vec![ready(1), silent(Some(2), "x")]).all_ready());
    }

    #[test]
    fn a_storage_shows_its_group_where_there_are_several() {
        let mut asked = node(2, 1, None, 1);
        assert_eq!(roles(&asked), "entry storage sync");
        for member in asked.status.iter_mut().flat_map(|status| &mut status.members) {
            member.group = Some(u16::try_from(member.node.0).unwrap());
        }
        assert_eq!(roles(&asked), "entry storage/2 sync");
    }

    #[test]
    fn nobody_is_listed_twice() {
        let mut asked = vec![
            silent(None, "http://127.0.0.1:9081"),
            node(1, 1, None, 1),
            node(1, 1, None, 1),
            silent(None, "http://127.0.0.1:7"),
        ];
        forget_doubles(&mut asked);
        let admins: Vec<&str> = asked.iter().filter_map(|asked| asked.admin.as_deref()).collect();
        assert_eq!(admins, ["http://127.0.0.1:9081", "http://127.0.0.1:7"]);
    }
}

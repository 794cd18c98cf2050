//! Tests what `up` does before and around its processes; the cluster itself is tested with real nodes elsewhere.

use std::os::unix::fs::PermissionsExt;

use clap::Parser;
use vulpes_raft::ids::NodeId;

use super::children::stop;
use super::*;
use crate::types::topic::Realm;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    up: Up,
}

fn up(line: &str) -> Up {
    Line::try_parse_from(std::iter::once("up").chain(line.split_whitespace())).unwrap().up
}

fn realms(name: &str) -> plan::Realms {
    plan::Realms {
        realms: vec![Realm::new(name).unwrap()],
        retain_merges: false,
        origins: Vec::new(),
    }
}

fn last(nodes: u16) -> Marker {
    Marker::new(nodes, 1, Ports { peer: 1, wamp: 2, mqtt: 3, admin: 4 })
}

#[test]
fn the_cluster_is_what_it_was_unless_told_otherwise() {
    let fresh = up("").marker(None).unwrap();
    assert_eq!(fresh, Marker::new(3, 1, Ports::DEFAULT));
    assert_eq!(up("").marker(Some(&last(5))).unwrap(), last(5));
    let moved = up("--mqtt-port 9").marker(Some(&last(5))).unwrap();
    assert_eq!(moved.ports(), Ports { peer: 1, wamp: 2, mqtt: 9, admin: 4 });
    let error = up("--nodes 3").marker(Some(&last(5))).unwrap_err().to_string();
    assert!(error.contains("the data of 5 nodes, not of 3"), "{error}");
    assert_eq!(up("--nodes 3 --fresh").marker(Some(&last(5))).unwrap().nodes, 3);
    let error = up("--groups 2").marker(Some(&last(5))).unwrap_err().to_string();
    assert!(error.contains("the data of 5 nodes, not of 2 groups of 5 nodes"), "{error}");
}

#[test]
fn the_first_group_of_a_cluster_gives_the_order() {
    let marker = up("--groups 2 --nodes 2").marker(None).unwrap();
    let realms = realms("realm1");
    let configs = configs(&marker, &realms, plan::Keep::default()).unwrap();
    assert_eq!(configs.len(), 4);
    let groups: Vec<u16> = configs[0].nodes.iter().map(|member| member.group).collect();
    assert_eq!(groups, [1, 1, 2, 2]);
    let sync: Vec<bool> = configs.iter().map(|config| config.has(Role::Sync)).collect();
    assert_eq!(sync, [true, true, false, false]);
    assert!(configs.iter().all(|config| config.has(Role::Entry) && config.has(Role::Storage)));
    let folder = tempfile::tempdir().unwrap();
    Directory::look(folder.path()).unwrap().claim(&marker, false).unwrap();
    let directory = Directory::look(folder.path()).unwrap();
    assert_eq!(up("").marker(directory.marker()).unwrap(), marker);
}

#[test]
fn only_what_up_made_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    Directory::look(&path).unwrap().claim(&last(1), true).unwrap();
    for name in ["node1.toml", "node1.log", "node1.log.old", "notes.txt", "node.txt"] {
        std::fs::write(path.join(name), "x").unwrap();
    }
    for name in ["node1", "node"] {
        std::fs::create_dir(path.join(name)).unwrap();
        std::fs::write(path.join(name).join("file"), "x").unwrap();
    }
    let directory = Directory::look(&path).unwrap();
    assert_eq!(directory.marker(), Some(&last(1)));
    directory.claim(&last(2), true).unwrap();
    assert_eq!(Directory::look(&path).unwrap().marker(), Some(&last(2)));
    let mut left: Vec<String> = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["node", "node.txt", "notes.txt", "vulpes-up.toml"]);
}

#[test]
fn a_strangers_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Directory::look(folder.path()).is_ok(), "an empty one is as good as none");
    std::fs::write(folder.path().join("thesis.txt"), "x").unwrap();
    let error = Directory::look(folder.path()).unwrap_err().to_string();
    assert!(error.contains("did not make"), "{error}");
    let error = Directory::look(&folder.path().join("thesis.txt")).unwrap_err().to_string();
    assert!(error.contains("can't use"), "{error}");
    std::fs::write(folder.path().join("vulpes-up.toml"), "format = 9").unwrap();
    let error = Directory::look(folder.path()).unwrap_err().to_string();
    assert!(error.contains("newer release"), "{error}");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ports = Ports { peer: port, wamp: 0, mqtt: 0, admin: 0 };
    let realms = realms("r");
    let mut configs = configs(&Marker::new(1, 1, ports), &realms, plan::Keep::default()).unwrap();
    configs[0].listen.wamp = None;
    let error = format!("{:#}", check_ports(&configs).unwrap_err());
    let expected = format!("node 1 can't have 127.0.0.1:{port} as its node port");
    assert!(error.contains(&expected), "{error}");
    assert!(error.contains("--peer-port"), "{error}");
}

/// A stand-in for the executable.
fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("fake");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Starts it. The file may still look open for writing, in a process that another test is starting just now.
fn start(executable: &Path, log: &Path) -> Child {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match Child::start(executable, NodeId(1), Path::new("x.toml"), log) {
            Ok(child) => return child,
            Err(error) if format!("{error:#}").contains("busy") && Instant::now() < deadline => {}
            Err(error) => panic!("{error:#}"),
        }
    }
}

async fn end_of(child: &mut Child) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(end) = child.take_end() {
            return end;
        }
        assert!(Instant::now() < deadline, "it does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_child_that_dies_leaves_its_last_lines() {
    let folder = tempfile::tempdir().unwrap();
    let fake = script(folder.path(), "seq 1 100; echo the reason >&2; exit 3");
    let log = folder.path().join("node1.log");
    let mut child = start(&fake, &log);
    assert_eq!(end_of(&mut child).await, "exit code 3");
    assert_eq!(child.take_end(), None);
    let lines = child.last_lines();
    assert_eq!((lines.len(), lines.last().map(String::as_str)), (12, Some("the reason")));
}

#[tokio::test]
async fn children_stop_when_their_input_closes_and_are_killed_when_they_don_t() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("node1.log");
    let well_behaved = script(folder.path(), "cat > /dev/null; echo bye");
    let mut children = [start(&well_behaved, &log)];
    assert_eq!(children[0].take_end(), None);
    stop(&mut children, Duration::from_secs(30)).await;
    assert_eq!(children[0].last_lines(), ["bye"]);

    let folder = tempfile::tempdir().unwrap();
    let stubborn = script(folder.path(), "while :; do sleep 60; done");
    let mut children = [start(&stubborn, &log)];
    stop(&mut children, Duration::from_millis(50)).await;
    assert!(!children[0].is_alive() && children[0].process().is_none());
}

#[test]
fn the_greeting_names_every_address() {
    let text = |realm: &str, ports| {
        let realms = realms(realm);
        let configs = configs(&Marker::new(3, 1, ports), &realms, plan::Keep::default()).unwrap();
        Cluster { data: "d".into(), configs, children: Vec::new() }.first_try()
    };
    let usual = text("realm1", Ports::DEFAULT);
    for expected in ["-p 1881", "-p 1882", "sub 'demo.#' --node ws://127.0.0.1:9033/\n"] {
        assert!(usual.contains(expected), "{expected}: {usual}");
    }
    assert!(usual.contains(" status\n") && !usual.contains("--realm"), "{usual}");
    let unusual = text("other", Ports { wamp: 19_031, admin: 19_081, ..Ports::DEFAULT });
    for expected in
        ["--node ws://127.0.0.1:19031/ --realm other\n", "--node-admin http://127.0.0.1:19081"]
    {
        assert!(unusual.contains(expected), "{expected}: {unusual}");
    }
}

//! The critical path: what has to happen one after the other until a publish is acknowledged.
//!
//! ```text
//! publisher ──▶ entry                                    one way
//!               entry ──▶ leader                         one way, unless the entry leads
//!                         leader ──▶ followers: fsync ──▶ leader    there and back, one sync
//!               entry ◀── leader                         one way, unless the entry leads
//! publisher ◀── entry                                    one way
//! ```
//!
//! The body is on its way meanwhile, and each member's sync covers both. If the sync members are not the storages,
//! the body comes first:
//!
//! ```text
//!               entry ──▶ storages: fsync ──▶ entry      there and back, one sync (a quorum: itself and the faster peer)
//! ```
//!
//! Invariant: a message takes [`MESSAGE`] and a commit [`COMMIT`], and nothing else takes time; so the time to an
//! acknowledgement shows how many of each it took.
//!
//! Deliberately absent: load, under which many messages share all of this.

use std::time::Duration;

use tokio::time::Instant;
use vulpes_raft::mutant::{plant, Mutant};

use crate::client::Client;
use crate::cluster::{run, Delays};

const MESSAGE: Duration = Duration::from_millis(20);
const COMMIT: Duration = Duration::from_millis(400);

/// Publishes that are timed at each node.
const ROUNDS: usize = 3;

/// The steps of an acknowledgement, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Path {
    /// One-way messages, including the publisher's own two.
    messages: u128,
    syncs: u128,
}

impl Path {
    /// The simulation steps in milliseconds, so that each part may take one more.
    fn of(took: Duration) -> Self {
        let messages = took.as_millis() % COMMIT.as_millis() / MESSAGE.as_millis();
        Self { messages, syncs: took.as_millis() / COMMIT.as_millis() }
    }
}

/// Publishes at each node of an idle cluster; returns whether it leads, and the steps of its acknowledgements.
fn paths(nodes: u64, voting: bool) -> Vec<(bool, Path)> {
    let delays = Delays { message: MESSAGE, commit: COMMIT, voting };
    run(nodes, delays, |cluster| async move {
        let mut paths = Vec::new();
        for node in cluster.nodes() {
            cluster.settled().await;
            let mut client = Client::connect(node, "publisher").await?;
            for _ in 0..ROUNDS {
                cluster.quiet().await;
                let leads = cluster.leader() == Some(node);
                let begun = Instant::now();
                client.publish(1, b"x").await?;
                let took = begun.elapsed();
                println!("node {node}, leads: {leads}: {took:?}");
                paths.push((leads, Path::of(took)));
            }
        }
        Ok(paths)
    })
}

/// The steps in a cluster of three, with and without the entry leading.
fn check(voting: bool, syncs: u128, messages: (u128, u128)) {
    let paths = paths(3, voting);
    let leading = paths.iter().filter(|(leads, _)| *leads).count();
    assert_eq!((paths.len(), leading), (3 * ROUNDS, ROUNDS), "one node leads all along");
    for (leads, path) in paths {
        let messages = if leads { messages.0 } else { messages.1 };
        assert_eq!(path, Path { messages, syncs }, "leads: {leads}");
    }
}

#[test]
fn an_acknowledgement_takes_one_sync_and_one_or_two_round_trips() {
    // To the entry and back; to the followers and back; and if another node leads, to it and back.
    check(false, 1, (4, 6));
}

#[test]
fn with_storage_votes_it_takes_a_sync_and_a_round_trip_more() {
    // To the storages and back, too.
    check(true, 2, (6, 8));
}

#[test]
fn alone_an_acknowledgement_takes_one_sync_and_no_peer() {
    for (leads, path) in paths(1, false) {
        assert!(leads);
        assert_eq!(path, Path { messages: 2, syncs: 1 });
    }
}

/// Proves that the check can fail: without a quorum, the entry does not wait for another node's storage.
#[test]
fn an_acknowledgement_without_a_quorum_is_a_round_trip_too_short() {
    plant(Some(Mutant::AcknowledgeBeforeQuorum));
    let paths = paths(3, true);
    plant(None);
    for (leads, path) in paths {
        let messages = if leads { 4 } else { 6 };
        assert_eq!(path, Path { messages, syncs: 2 }, "leads: {leads}");
    }
}

#[test]
fn times_are_taken_apart() {
    for (millis, messages, syncs) in
        [(0, 0, 0), (45, 2, 0), (840, 2, 2), (930, 6, 2), (979, 8, 2), (1_365, 8, 3)]
    {
        assert_eq!(Path::of(Duration::from_millis(millis)), Path { messages, syncs }, "{millis}");
    }
}

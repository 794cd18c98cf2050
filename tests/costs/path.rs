//! The critical path: what has to happen one after the other until a publish is acknowledged.
//!
//! ```text
//! publisher ──▶ entry                                    one way
//!               entry ──▶ storages: fsync ──▶ entry      there and back, one sync (a quorum: itself and the faster peer)
//!               entry ──▶ leader                         one way, unless the entry leads
//!                         leader ──▶ followers: fsync ──▶ leader    there and back, one sync
//!               entry ◀── leader                         one way, unless the entry leads
//! publisher ◀── entry                                    one way
//! ```
//!
//! Invariant: a message takes [`MESSAGE`] and a commit [`COMMIT`], and all else takes no time; so the time to an
//! acknowledgement tells how many of each it took.
//!
//! Deliberately absent: load, under which many messages share all of it.

use std::time::Duration;

use tokio::time::Instant;
use vulpes_raft::mutant::{plant, Mutant};

use crate::client::Client;
use crate::cluster::{run, Delays};

const MESSAGE: Duration = Duration::from_millis(20);
const COMMIT: Duration = Duration::from_millis(400);

/// Publishes that are timed at each node.
const ROUNDS: usize = 3;

/// What an acknowledgement took, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Path {
    /// Messages one way, the publisher's own two among them.
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

/// Publishes at each node of an idle cluster: whether it leads, and what its acknowledgements took.
fn paths(nodes: u64) -> Vec<(bool, Path)> {
    let delays = Delays { message: MESSAGE, commit: COMMIT };
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

#[test]
fn an_acknowledgement_takes_two_syncs_and_two_or_three_round_trips() {
    let paths = paths(3);
    let leading = paths.iter().filter(|(leads, _)| *leads).count();
    assert_eq!((paths.len(), leading), (3 * ROUNDS, ROUNDS), "one node leads all along");
    for (leads, path) in paths {
        // To the entry and back; to the storages and back; to the followers and back; and where another one leads, to it and
        // back.
        let messages = if leads { 6 } else { 8 };
        assert_eq!(path, Path { messages, syncs: 2 }, "leads: {leads}");
    }
}

#[test]
fn alone_an_acknowledgement_takes_two_syncs_and_no_peer() {
    for (leads, path) in paths(1) {
        assert!(leads);
        assert_eq!(path, Path { messages: 2, syncs: 2 });
    }
}

/// That the count can be wrong: without a quorum, nobody waits for a peer's storage.
#[test]
fn an_acknowledgement_without_a_quorum_is_a_round_trip_too_short() {
    plant(Some(Mutant::AcknowledgeBeforeQuorum));
    let paths = paths(3);
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

//! Hand-made logs, good and bad: each kind of damage is found, by the check and through the whole command.

use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use vulpes_raft::ids::{
    AdvanceSegment, DiskId, Incarnation, OrderTime, Position, SegmentNumber, Stamp,
};
use vulpes_raft::order::CloseReason;

use super::*;
use crate::config::NodeConfig;
use crate::http::{
    Admin, AuditAdmin, BanAdmin, Checksum, LogReadError, LogStep, NodeStatus, Readiness,
    ReplicaStatus, RoleAdmin, StateStatus, UserAdmin,
};

/// Builds rows from a script: `open ENTRY INCARNATION`, `close …`, `segment ENTRY INCARNATION NUMBER COUNT`.
fn rows(script: &str) -> Vec<LogRow> {
    let mut rows = Vec::new();
    let mut base = 1;
    for (slot, line) in (1..).zip(script.split(';')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let (entry, incarnation) = (NodeId(number(1)), Incarnation(number(2)));
        let (stamp, time, base_of) = (Stamp(slot), OrderTime(slot), Position(base));
        let row = |step| LogRow { slot: Slot(slot), stamp, time, base: base_of, step };
        let step = match words[0] {
            "open" => LogStep::Opened { entry, incarnation },
            "close" => LogStep::Closed { entry, incarnation, reason: CloseReason::LeaseLost },
            _ => LogStep::Segment {
                segment: AdvanceSegment { entry, incarnation, number: SegmentNumber(number(3)) },
                count: number(4) as u32,
                length: 100,
                checksum: Checksum(slot),
                body_checksum: Some(Checksum(slot)),
                elsewhere: false,
            },
        };
        rows.push(row(step));
        base = rows[rows.len() - 1].end().0;
    }
    rows
}

const GOOD: &str =
    "open 1 1; open 2 1; segment 1 1 0 5; segment 2 1 0 1; segment 1 1 1 2; close 2 1; \
                    open 2 2; segment 2 2 0 3; open 1 2; segment 1 2 0 1";

fn first_damage(rows: &[LogRow]) -> Option<String> {
    let mut check = LogCheck::new(rows[0].slot);
    for row in rows {
        if let Err(damage) = check.row(row) {
            return Some(damage.to_string());
        }
        if let Some(damage) = body_damage(row) {
            return Some(damage.to_string());
        }
    }
    None
}

#[test]
fn good_logs_pass_from_any_slot_on() {
    let rows = rows(GOOD);
    for start in 0..rows.len() {
        assert_eq!(first_damage(&rows[start..]), None, "from row {start}");
    }
    let mut check = LogCheck::new(Slot(1));
    rows.iter().for_each(|row| check.row(row).unwrap());
    assert_eq!(check.events(), 12);
}

#[test]
fn scripts_with_damage_are_caught() {
    for (script, expected) in [
        ("segment 1 1 0 1", "an incarnation that never opened"),
        ("open 1 1; segment 1 2 0 1", "an incarnation that never opened"),
        ("open 1 1; segment 1 1 1 1", "holds segment 1/1/1, but number 0 is due"),
        ("open 1 1; segment 1 1 0 1; segment 1 1 0 1", "holds segment 1/1/0, but number 1 is due"),
        ("open 1 1; segment 1 1 0 1; segment 1 1 2 1", "holds segment 1/1/2, but number 1 is due"),
        ("open 1 1; open 1 2; segment 1 1 0 1", "fenced incarnation: incarnation 2 opened before"),
        ("open 1 1; close 1 1; segment 1 1 0 1", "fenced incarnation: it was closed before"),
        ("open 1 1; open 1 1", "opens incarnation 1 of entry 1 after 1"),
        ("open 1 2; open 1 1", "opens incarnation 1 of entry 1 after 2"),
        ("open 1 1; close 1 1; open 1 1", "opens incarnation 1 of entry 1 after 1"),
        ("close 1 1", "closes incarnation 1 of entry 1, which is not open"),
        ("open 1 1; close 1 1; close 1 1", "which is not open"),
        ("open 1 2; close 1 1", "which is not open"),
        ("open 1 1; segment 1 1 0 0", "without any event"),
    ] {
        let damage = first_damage(&rows(script)).unwrap_or_default();
        assert!(damage.contains(expected), "{script}: {damage}");
    }
}

/// A change that makes a row wrong, and what the error has to say.
type Blow = (fn(&mut LogRow), &'static str);

/// Applied to slot 5 of the good log, which holds a segment.
const BLOWS: [Blow; 7] = [
    (|row| row.slot = Slot(6), "slot 5 is missing: slot 6 stands in its place"),
    (
        |row| row.base = Position(6),
        "begins at position 6 instead of 7: positions are given out twice",
    ),
    (|row| row.base = Position(8), "begins at position 8 instead of 7: positions are missing"),
    (|row| row.stamp = Stamp(3), "the stamp 3, before the 4 of the slot before"),
    (|row| row.time = OrderTime(3), "time at slot 5 is 3, before the 4 of the slot before"),
    (|row| body(row, None), "the body of segment 1/1/1 can't be read here"),
    (
        |row| body(row, Some(Checksum(0xbad))),
        "has the checksum 0000000000000bad here, the order says 0000000000000005",
    ),
];

fn body(row: &mut LogRow, read: Option<Checksum>) {
    if let LogStep::Segment { body_checksum, .. } = &mut row.step {
        *body_checksum = read;
    }
}

#[test]
fn a_body_that_another_group_keeps_is_not_missing() {
    let mut row = rows(GOOD).remove(2);
    assert!(is_whole(&row) && body_damage(&row).is_none());
    let whole = row.clone();
    body(&mut row, None);
    assert!(!is_whole(&row) && body_damage(&row).is_some());
    if let LogStep::Segment { elsewhere, .. } = &mut row.step {
        *elsewhere = true;
    }
    assert!(!is_whole(&row) && body_damage(&row).is_none() && !differs(&whole, &row));
}

#[test]
fn rows_with_damage_are_caught() {
    for (blow, expected) in BLOWS {
        let mut rows = rows(GOOD);
        blow(&mut rows[4]);
        let damage = first_damage(&rows).unwrap_or_default();
        assert!(damage.contains(expected), "{expected}: {damage}");
    }
}

/// A node that shows these rows, the last of them only after some requests.
struct FakeNode {
    node: NodeId,
    rows: Vec<LogRow>,
    /// How many rows it shows, one more each time it is asked.
    shown: Mutex<usize>,
    /// The slots and hashes it shows of its state, one after the other; the last one stays.
    states: Mutex<Vec<(Slot, String)>>,
    /// The last slot of the log, as it knows it.
    tail: Slot,
}

impl Admin for FakeNode {
    fn ready(&self) -> BoxFuture<'_, Readiness> {
        unreachable!("verify does not ask")
    }

    fn status(&self) -> BoxFuture<'_, NodeStatus> {
        let text = include_str!("../../../demo/vulpes.example.toml");
        let config = NodeConfig::parse(text, Path::new("x.toml")).unwrap();
        let status = NodeStatus::new(&config, Some(DiskId(1)));
        let mut states = self.states.lock().unwrap();
        let (next_slot, hash) = states[0].clone();
        if states.len() > 1 {
            states.remove(0);
        }
        let state = Some(StateStatus {
            next_slot,
            hash,
            sessions: 0,
            retained: 0,
            waiting: 0,
            oldest_slot: Slot(1),
            oldest_position: Position(1),
            kept_attached: 0,
            kept_away: 0,
        });
        let replica = Some(ReplicaStatus {
            applied_slot: self.tail,
            applied_position: Position(1),
            tail_position: Position(1),
            withheld_events: 0,
        });
        // It names no other nodes, so that no other node that runs on this machine is asked.
        let status = NodeStatus { node: self.node, state, replica, members: vec![], ..status };
        Box::pin(async { status })
    }

    fn log(&self, from: Slot, max: usize) -> BoxFuture<'_, Result<LogPage, LogReadError>> {
        let mut shown = self.shown.lock().unwrap();
        let visible = &self.rows[..*shown];
        *shown = self.rows.len().min(*shown + 1);
        let oldest = visible[0].slot;
        // By index, not by the slot in the row: a damaged row is shown, too.
        let skip = from.0.saturating_sub(oldest.0) as usize;
        let rows = visible.iter().skip(skip).take(max).cloned().collect();
        let end = Slot(oldest.0 + visible.len() as u64);
        let page = LogPage { node: self.node, oldest, end, rows };
        Box::pin(async { Ok(page) })
    }

    fn users(&self) -> Option<&dyn UserAdmin> {
        None
    }

    fn roles(&self) -> Option<&dyn RoleAdmin> {
        None
    }

    fn bans(&self) -> Option<&dyn BanAdmin> {
        None
    }

    fn audit(&self) -> Option<&dyn AuditAdmin> {
        None
    }
}

async fn start(node: u64, rows: Vec<LogRow>, shown: usize) -> AdminUrl {
    start_with(node, rows, shown, &[(11, "aa")]).await
}

async fn start_with(
    node: u64,
    rows: Vec<LogRow>,
    shown: usize,
    states: &[(u64, &str)],
) -> AdminUrl {
    // The first one is shown once more, for the request that finds the log's end.
    let states = states.iter().take(1).chain(states);
    let states = states.map(|(slot, hash)| (Slot(*slot), (*hash).to_owned())).collect();
    let states = Mutex::new(states);
    let tail = Slot(rows[0].slot.0 + shown as u64 - 1);
    let fake = FakeNode { node: NodeId(node), rows, shown: Mutex::new(shown), states, tail };
    serve(fake).await
}

async fn serve(node: FakeNode) -> AdminUrl {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(crate::http::serve(listener, Arc::new(node), crate::http::Visitors::default()));
    url
}

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn equal_logs_are_proved_and_who_is_behind_is_waited_for() {
    let all = rows(GOOD);
    let urls = [
        start(1, all.clone(), 1).await,
        start(2, all.clone(), all.len()).await,
        start(3, all.clone(), 4).await,
    ];
    let proof = verify(&AdminClient::default(), &urls, PATIENCE).await.unwrap();
    let nodes = vec![NodeId(1), NodeId(2), NodeId(3)];
    assert!(proof
        .to_string()
        .contains("nodes 1, 2, 3 hold the same log: slots 1 to 10, 12 events"));
    let states = Some(Slot(11));
    assert_eq!(
        proof,
        Proof { nodes, oldest: Slot(1), end: Slot(11), events: 12, elsewhere: 0, states }
    );
}

/// The slots and hashes that the second node shows one after the other, and the expected result.
type StatesCase<'a> = (&'a [(u64, &'a str)], Result<Option<u64>, &'a str>);

#[tokio::test]
async fn states_are_compared_where_nodes_are_at_one_slot() {
    let cases: [StatesCase<'_>; 4] = [
        (&[(15, "aa")], Ok(Some(15))),
        (&[(15, "bb")], Err("before slot 15, the state of node 1 has the hash aa")),
        // The nodes are never at one slot at the same time, but both have been at 15.
        (&[(14, "99"), (14, "99"), (15, "aa"), (16, "cc")], Ok(Some(15))),
        (&[(14, "99")], Ok(None)),
    ];
    for (second, expected) in cases {
        let urls = [
            start_with(1, rows(GOOD), 10, &[(15, "aa"), (17, "dd")]).await,
            start_with(2, rows(GOOD), 10, second).await,
        ];
        match (verify(&AdminClient::default(), &urls, PATIENCE).await, expected) {
            (Ok(proof), Ok(slot)) => {
                assert_eq!(proof.states, slot.map(Slot));
                let said = if slot.is_some() { "before slot 15" } else { "could not be compared" };
                assert!(proof.to_string().contains(said), "{proof}");
            }
            (Err(error), Err(said)) => assert!(error.to_string().contains(said), "{error}"),
            (found, _) => panic!("{second:?}: {found:?}"),
        }
    }
}

#[tokio::test]
async fn a_node_that_stays_behind_is_named() {
    let all = rows(GOOD);
    let short = all[..7].to_vec();
    let urls = [start(1, all.clone(), all.len()).await, start(2, short, 7).await];
    let error = verify(&AdminClient::default(), &urls, Duration::from_millis(1)).await.unwrap_err();
    assert!(error.to_string().contains("does not show slot 8"), "{error}");
}

/// An event that was just acknowledged is in sync's order, but not on the storages' disks yet.
#[tokio::test]
async fn all_is_read_that_stood_in_the_log_when_it_began() {
    let all = rows(GOOD);
    let behind = || start(1, all.clone(), 9);
    let node = FakeNode {
        node: NodeId(2),
        rows: all.clone(),
        shown: Mutex::new(9),
        states: Mutex::new(vec![
            (Slot(10), "99".into()),
            (Slot(10), "99".into()),
            (Slot(11), "aa".into()),
        ]),
        tail: Slot(10),
    };
    let urls = [behind().await, serve(node).await];
    let proof = verify(&AdminClient::default(), &urls, PATIENCE).await.unwrap();
    assert_eq!((proof.end, proof.states), (Slot(11), Some(Slot(11))));
    // A node that does not show the last known slot is not proved to hold it.
    let short = all[..9].to_vec();
    let knows = FakeNode {
        node: NodeId(2),
        rows: short,
        shown: Mutex::new(9),
        states: Mutex::new(vec![(Slot(11), "aa".into())]),
        tail: Slot(10),
    };
    let error = verify(&AdminClient::default(), &[serve(knows).await], Duration::from_millis(1))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("does not show slot 10"), "{error}");
}

#[tokio::test]
async fn damage_on_any_node_is_found() {
    for damaged in [0, 1] {
        for (blow, expected) in BLOWS {
            let mut logs = [rows(GOOD), rows(GOOD)];
            blow(&mut logs[damaged][4]);
            let [first, second] = logs;
            let urls = [start(1, first, 10).await, start(2, second, 10).await];
            let error =
                verify(&AdminClient::default(), &urls, PATIENCE).await.unwrap_err().to_string();
            let found = error.contains(expected) || error.contains("node 2 shows");
            assert!(found, "{expected}: {error}");
            assert!(error.contains(&format!("node {}", damaged + 1)), "{error}");
        }
    }
}

#[tokio::test]
async fn two_good_logs_that_differ_are_told_apart() {
    let urls = [
        start(1, rows("open 1 1; segment 1 1 0 2"), 2).await,
        start(2, rows("open 1 1; segment 1 1 0 3"), 2).await,
    ];
    let error = verify(&AdminClient::default(), &urls, PATIENCE).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, VerifyError::Different { .. }), "{text}");
    assert!(text.starts_with("slot 2: node 1 shows"), "{text}");
    assert!(text.contains(r#""count":3"#), "{text}");
}

#[tokio::test]
async fn one_node_is_not_taken_for_two() {
    let urls = [start(1, rows(GOOD), 10).await, start(1, rows(GOOD), 10).await];
    let error = verify(&AdminClient::default(), &urls, PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("are both node 1"), "{error}");
}

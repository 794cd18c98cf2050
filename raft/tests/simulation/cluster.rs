//! A sync group of three in a simulation: its promises while members crash, lose power, and are cut off.
//!
//! Invariant: every run follows from its seed; a failing seed becomes a named test.
//!
//! Deliberately absent: bodies, storages and entries, which the whole cluster's simulation has.

use std::time::Duration;

use crate::support::{
    insist, members, rows, segment, simulate, simulate_tuned, until, Hand, LEASE,
};
use vulpes_raft::ids::{Incarnation, NodeId, SegmentNumber, Slot};
use vulpes_raft::node::{MemberState, Tuning};
use vulpes_raft::order::{CloseReason, Place, SealedSegment, SegmentOutcome, Step};
use vulpes_raft::service::{Followed, Lease, SyncError};

/// Frequent snapshots, so that a short test sees many.
const OFTEN: Tuning = Tuning { snapshot_every: 40, log_kept: 5, lag_limit: 60, shown: u64::MAX };

fn place(outcome: &SegmentOutcome) -> Place {
    match outcome {
        SegmentOutcome::Resolved(place) => *place,
        other => panic!("not resolved: {other:?}"),
    }
}

/// Resolves a run of segments through any member, retrying until it succeeds.
async fn resolve(hand: &Hand, segments: Vec<SealedSegment>) -> Vec<Place> {
    let client = hand.client_of(segments[0].id.entry.0);
    let outcomes = insist(|| client.propose(segments.clone())).await;
    outcomes.iter().map(place).collect()
}

fn segments(
    entry: u64,
    incarnation: Incarnation,
    numbers: std::ops::Range<u64>,
) -> Vec<SealedSegment> {
    numbers.map(|number| segment(entry, incarnation, number)).collect()
}

#[test]
fn every_member_takes_proposals_and_shows_one_order() {
    simulate(1, |hand| async move {
        let leader = hand.leader().await;
        let groups = hand.client().groups().await.expect("formed");
        let storages: Vec<_> = groups.members().map(|member| member.node).collect();
        assert_eq!(storages, [NodeId(1), NodeId(2), NodeId(3)]);

        let mut last = Slot(0);
        for node in hand.running() {
            let entry = node.id().0;
            let opened = insist(|| node.open(NodeId(entry), 7)).await;
            assert_eq!(insist(|| node.open(NodeId(entry), 7)).await, opened);
            assert_eq!(opened.groups, groups);
            let batch = segments(entry, opened.incarnation, 0..5);
            let first = insist(|| node.propose(batch.clone())).await;
            let again = insist(|| node.propose(batch.clone())).await;
            assert_eq!(first, again);
            let ahead = insist(|| node.propose(segments(entry, opened.incarnation, 9..10))).await;
            assert_eq!(ahead, [SegmentOutcome::Gap { expected: SegmentNumber(5) }]);
            last = place(&first[4]).slot;
            assert_eq!(insist(|| node.renew(NodeId(entry), opened.incarnation)).await, Lease::Held);
        }
        assert_eq!(last, Slot(18));
        let mut orders = Vec::new();
        for node in hand.running() {
            orders.push(rows(&node, last).await);
            let state =
                if node.id().0 == leader { MemberState::Leader } else { MemberState::Follower };
            assert_eq!(node.status().state, state);
            assert_eq!(node.status().voters, storages);
        }
        assert!(orders.iter().all(|order| *order == orders[0]));
    });
}

#[test]
fn followers_are_woken_by_the_commit_not_by_the_heartbeat() {
    simulate(2, |hand| async move {
        hand.leader().await;
        let mut opened = Vec::new();
        for node in hand.running() {
            opened.push(insist(|| node.open(node.id(), 1)).await);
        }
        let mut slowest = Duration::ZERO;
        for number in 0..50 {
            let (node, turn) = (1 + number % 3, number / 3);
            let proposer = hand.node(node).expect("runs");
            let incarnation = opened[node as usize - 1].incarnation;
            let batch = segments(node, incarnation, turn..turn + 1);
            let slot = place(&insist(|| proposer.propose(batch.clone())).await[0]).slot;
            let answered = tokio::time::Instant::now();
            for node in hand.running() {
                let followed = node.follow(slot, 1, Duration::from_secs(1)).await.expect("runs");
                assert!(matches!(followed, Followed::Rows(rows) if rows.len() == 1));
            }
            slowest = slowest.max(answered.elapsed());
        }
        // One message takes 5 ms at most; the heartbeat is every 100 ms.
        assert!(slowest < Duration::from_millis(30), "{slowest:?}");
    });
}

#[test]
fn the_order_goes_on_when_the_leader_is_gone() {
    simulate(3, |hand| async move {
        let leader = hand.leader().await;
        let opened = hand.open(50).await;
        let before = resolve(&hand, segments(50, opened.incarnation, 0..10)).await;
        hand.crash(leader).await;
        let repeated = resolve(&hand, segments(50, opened.incarnation, 0..10)).await;
        assert_eq!(before, repeated);
        let after = resolve(&hand, segments(50, opened.incarnation, 10..20)).await;
        assert_eq!(after[0].slot, before[9].slot.next());
        assert_ne!(hand.leader().await, leader);

        hand.start(leader).await;
        let back = until("the old leader is back", || hand.node(leader)).await;
        let caught_up = rows(&back, after[9].slot).await;
        let other = hand.running().into_iter().find(|node| node.id().0 != leader).expect("two");
        assert_eq!(caught_up, rows(&other, after[9].slot).await);
    });
}

#[test]
fn everything_survives_a_loss_of_all_power() {
    for seed in 10..20 {
        simulate_tuned(seed, OFTEN, |hand| async move {
            hand.leader().await;
            let opened = hand.open(50).await;
            let mut places = Vec::new();
            for round in 0..3 {
                let numbers = round * 60..(round + 1) * 60;
                for number in numbers {
                    let batch = segments(50, opened.incarnation, number..number + 1);
                    places.extend(resolve(&hand, batch).await);
                }
                let order = rows(&hand.running()[0], places[places.len() - 1].slot).await;
                for node in 1..=3 {
                    hand.crash(node).await;
                }
                for node in 1..=3 {
                    hand.start(node).await;
                }
                hand.leader().await;
                let again =
                    resolve(&hand, segments(50, opened.incarnation, 0..places.len() as u64)).await;
                assert_eq!(places, again);
                for node in hand.running() {
                    assert_eq!(order, rows(&node, places[places.len() - 1].slot).await);
                }
            }
        });
    }
}

#[test]
fn a_member_far_behind_gets_a_snapshot() {
    simulate_tuned(4, OFTEN, |hand| async move {
        let leader = hand.leader().await;
        let away = 1 + leader % 3;
        let opened = hand.open(50).await;
        hand.crash(away).await;
        let mut last = Slot(0);
        for number in 0..200 {
            let batch = segments(50, opened.incarnation, number..number + 1);
            last = resolve(&hand, batch).await[0].slot;
        }
        hand.start(away).await;
        let node = until("it is back", || hand.node(away)).await;
        let expected = rows(&hand.node(leader).expect("runs"), last).await;
        assert_eq!(rows(&node, last).await, expected);
        // It is a full member again, so the other follower may crash.
        hand.crash(6 - leader - away).await;
        resolve(&hand, segments(50, opened.incarnation, 200..210)).await;
    });
}

#[test]
fn a_silent_entry_is_closed_and_a_heard_one_is_not() {
    simulate(5, |hand| async move {
        hand.leader().await;
        let (quiet, client) = (hand.client_of(50), hand.client_of(60));
        let silent = insist(|| quiet.open(NodeId(50), 1)).await;
        let heard = insist(|| client.open(NodeId(60), 1)).await;
        let closed = until_closed(&hand, NodeId(50), heard.incarnation).await;
        assert!(closed >= LEASE && closed < LEASE * 2, "{closed:?}");
        assert_eq!(insist(|| quiet.renew(NodeId(50), silent.incarnation)).await, Lease::Lost);
        let late = insist(|| quiet.propose(segments(50, silent.incarnation, 0..1))).await;
        assert_eq!(late, [SegmentOutcome::NotOpen]);

        // A new leader starts all leases afresh, and then tracks them like the old one.
        let leader = hand.leader().await;
        hand.crash(leader).await;
        tokio::time::sleep(LEASE / 2).await;
        assert_eq!(insist(|| client.renew(NodeId(60), heard.incarnation)).await, Lease::Held);
        insist(|| client.close(NodeId(60), heard.incarnation)).await;
        assert_eq!(insist(|| client.renew(NodeId(60), heard.incarnation)).await, Lease::Lost);

        let node = &hand.running()[0];
        let order = rows(node, node.status().tail).await;
        let reasons: Vec<_> = order
            .iter()
            .filter_map(|row| match row.step {
                Step::Closed { entry, reason, .. } => Some((entry.0, reason)),
                _ => None,
            })
            .collect();
        assert_eq!(reasons, [(50, CloseReason::LeaseLost), (60, CloseReason::Left)]);
    });
}

/// How long it takes until `silent` is closed, while entry 60 is renewed.
async fn until_closed(hand: &Hand, silent: NodeId, heard: Incarnation) -> Duration {
    let start = tokio::time::Instant::now();
    let client = hand.client_of(60);
    loop {
        assert_eq!(insist(|| client.renew(NodeId(60), heard)).await, Lease::Held);
        let status = hand.running()[0].status();
        if status.entries.iter().any(|(entry, _, open)| *entry == silent && !open) {
            return start.elapsed();
        }
        assert!(start.elapsed() < LEASE * 3, "the silent entry stays open");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn a_wiped_member_is_another_node() {
    for wiped in 1..=3 {
        simulate(30 + wiped, move |hand| async move {
            hand.leader().await;
            let opened = hand.open(50).await;
            resolve(&hand, segments(50, opened.incarnation, 0..10)).await;
            hand.crash(wiped).await;
            hand.wipe(wiped);
            hand.start(wiped).await;
            let node = until("it starts", || hand.node(wiped)).await;
            resolve(&hand, segments(50, opened.incarnation, 10..20)).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            let status = node.status();
            assert_eq!((status.state, status.tail), (MemberState::Learner, Slot(0)));
            let refused = node.open(NodeId(51), 1).await;
            assert!(matches!(refused, Err(SyncError::Wiped(_))), "{refused:?}");
            // The other two are a quorum by themselves; the wiped one must not count towards one.
            let other = 1 + wiped % 3;
            hand.crash(other).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            let alone = hand.client_of(52).open(NodeId(52), 1).await;
            assert!(alone.is_err(), "{alone:?}");
        });
    }
}

#[test]
fn a_follower_far_behind_is_told_so() {
    simulate(6, |hand| async move {
        hand.leader().await;
        let client = hand.client_of(50);
        let opened = insist(|| client.open(NodeId(50), 1)).await;
        let mut last = Slot(0);
        for round in 0..12 {
            let batch = segments(50, opened.incarnation, round * 200..(round + 1) * 200);
            last = resolve(&hand, batch).await[199].slot;
        }
        let first = client.follow(Slot(1), 10, Duration::ZERO).await.expect("runs");
        assert!(matches!(first, Followed::Rows(rows) if rows.len() == 10));
        for storage in members() {
            let node = hand.node(storage.node.0).expect("runs");
            insist(|| node.stored(storage.node, last)).await;
        }
        let behind = client.follow(Slot(1), 10, Duration::ZERO).await.expect("runs");
        let Followed::Behind { oldest } = behind else { panic!("{behind:?}") };
        assert!(oldest > Slot(1) && oldest < last);
        let kept = client.follow(oldest, 10, Duration::ZERO).await.expect("runs");
        assert!(matches!(kept, Followed::Rows(rows) if rows[0].slot == oldest));
        let none = client.follow(last.next(), 10, Duration::from_millis(200)).await.expect("runs");
        assert_eq!(none, Followed::Rows(vec![]));
    });
}

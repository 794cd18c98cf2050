//! What a log entry waits for, with a fake storage.

use std::collections::BTreeSet;
use std::sync::Mutex;

use tokio::sync::watch;

use super::*;
use crate::consensus::types::{EncodedCommand, LogId};
use crate::ids::{AdvanceSegment, Incarnation, SegmentNumber, Shard};
use crate::local_bodies::Deleting;
use crate::sequencer::{Command, Vouched};

/// A storage that has the bodies that a test gives it.
pub(crate) struct Fake {
    held: Mutex<BTreeSet<u64>>,
    arrivals: watch::Sender<u64>,
    /// Which bodies were fetched, and from which node.
    fetched: Mutex<Vec<(NodeId, u64)>>,
    /// Whether another storage has the fetched bodies.
    elsewhere: bool,
    /// Bodies that are known not to be sent.
    not_sent: Mutex<BTreeSet<u64>>,
    late: Mutex<BTreeSet<u64>>,
}

impl Fake {
    pub(crate) fn with(held: &[u64]) -> Arc<Self> {
        Arc::new(Self::new(held, false))
    }

    fn new(held: &[u64], elsewhere: bool) -> Self {
        Self {
            held: Mutex::new(held.iter().copied().collect()),
            arrivals: watch::Sender::new(0),
            fetched: Mutex::default(),
            elsewhere,
            not_sent: Mutex::default(),
            late: Mutex::default(),
        }
    }

    fn keep(&self, number: u64) {
        self.held.lock().unwrap().insert(number);
        self.arrivals.send_modify(|arrivals| *arrivals += 1);
    }

    /// The entry says that it will not send this body.
    fn not_sent(&self, number: u64) {
        self.not_sent.lock().unwrap().insert(number);
        self.arrivals.send_modify(|arrivals| *arrivals += 1);
    }

    fn fetched(&self) -> Vec<(NodeId, u64)> {
        self.fetched.lock().unwrap().clone()
    }
}

impl LocalBodies for Fake {
    fn held(&self, segment: &SealedSegment) -> bool {
        self.held.lock().unwrap().contains(&segment.id.number.0)
    }

    fn comes(&self, segment: &SealedSegment) -> bool {
        !self.not_sent.lock().unwrap().contains(&segment.id.number.0)
    }

    fn late(&self, segments: &[SealedSegment]) {
        self.late.lock().unwrap().extend(segments.iter().map(|segment| segment.id.number.0));
    }

    fn arrived(&self) -> watch::Receiver<u64> {
        self.arrivals.subscribe()
    }

    fn before_deleting(&self, _then: Deleting) {}

    fn fetch(&self, from: NodeId, segments: &[SealedSegment]) -> bool {
        for segment in segments {
            self.fetched.lock().unwrap().push((from, segment.id.number.0));
            if self.elsewhere {
                self.keep(segment.id.number.0);
            }
        }
        true
    }
}

pub(crate) fn segment(number: u64) -> SealedSegment {
    let (entry, incarnation) = (NodeId(1), Incarnation(1));
    SealedSegment {
        id: AdvanceSegment { entry, incarnation, number: SegmentNumber(number) },
        shard: Shard(0),
        count: 1,
        length: 10,
        checksum: number,
        votes: Vec::new(),
    }
}

/// A log entry that proposes these segments early, and one segment with votes.
pub(crate) fn entry(index: u64, early: &[u64]) -> LogEntry {
    use openraft::vote::RaftLeaderId;
    let early = early.iter().map(|number| Proposal::ResolveEarly(segment(*number)));
    let steps = early.chain([Proposal::Resolve(segment(1_000))]).collect();
    let command = Command { clocks: Vouched::NOTHING, steps };
    let payload = openraft::EntryPayload::Normal(EncodedCommand::new(&command));
    LogEntry { log_id: LogId { leader_id: RaftLeaderId::new(1, NodeId(1)), index }, payload }
}

fn beside(fake: &Arc<Fake>) -> Beside {
    Beside::new(Some(fake.clone()))
}

#[test]
fn an_entry_is_taken_where_all_its_bodies_are_here() {
    let beside = beside(&Fake::with(&[1, 2, 3]));
    let check = |entries: &[LogEntry]| beside.check(entries);
    assert_eq!(check(&[entry(4, &[1, 2]), entry(5, &[3])]).unwrap(), None);
    assert_eq!(check(&[entry(4, &[])]).unwrap(), None);
    let lacking = check(&[entry(4, &[1]), entry(5, &[4])]).unwrap_err();
    assert_eq!(lacking.to_string(), "the body of 1/1/4 is not here");
}

#[test]
fn without_a_storage_nothing_early_is_taken() {
    let beside = Beside::new(None);
    assert!(beside.check(&[entry(4, &[1])]).is_err());
    assert_eq!(beside.check(&[entry(4, &[])]).unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn committed_entries_are_taken_without_their_bodies_and_remembered() {
    let beside = beside(&Fake::with(&[3]));
    let entries = [entry(4, &[1]), entry(5, &[2]), entry(6, &[3])];
    beside.take_in(&entries, 5, NodeId(2), Duration::ZERO).await.unwrap();
    assert_eq!(beside.check(&entries).unwrap(), Some(5));
    let fresh = [entry(7, &[4])];
    assert!(beside.take_in(&fresh, 5, NodeId(2), Duration::from_millis(5)).await.is_err());
    assert!(beside.check(&fresh).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_body_is_waited_for_and_then_fetched() {
    let limit = Duration::from_millis(100);
    let fake = Fake::with(&[1]);
    let waiting = beside(&fake);
    let entries = [entry(4, &[1, 2])];
    let coming = async {
        tokio::time::sleep(ON_ITS_WAY / 2).await;
        fake.keep(2);
    };
    let (taken, ()) = tokio::join!(waiting.take_in(&entries, 0, NodeId(2), limit), coming);
    taken.unwrap();
    assert!(fake.fetched().is_empty(), "it came by itself");

    let fake = Arc::new(Fake::new(&[1], true));
    beside(&fake).take_in(&entries, 0, NodeId(2), limit).await.unwrap();
    assert_eq!(fake.fetched(), [(NodeId(2), 2)]);
    assert_eq!(*fake.late.lock().unwrap(), BTreeSet::from([2]));

    let fake = Fake::with(&[1]);
    let begun = Instant::now();
    let lacking = beside(&fake).take_in(&entries, 0, NodeId(2), limit).await.unwrap_err();
    assert_eq!(lacking.to_string(), "the body of 1/1/2 is not here");
    assert_eq!(begun.elapsed().as_millis(), limit.as_millis());
    // The leader itself has no member to fetch from.
    assert!(beside(&fake).come(vec![segment(2)], None, limit).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_sent_is_fetched_at_once() {
    let limit = Duration::from_millis(100);
    let entries = [entry(4, &[1, 2, 3])];
    let begun = Instant::now();
    let fake = Arc::new(Fake::new(&[1, 2], true));
    fake.not_sent(3);
    beside(&fake).take_in(&entries, 0, NodeId(2), limit).await.unwrap();
    assert_eq!((fake.fetched(), begun.elapsed()), (vec![(NodeId(2), 3)], Duration::ZERO));

    // The others may still come, and are not fetched. A later message counts as well.
    let fake = Arc::new(Fake::new(&[], true));
    fake.not_sent(3);
    let waiting = beside(&fake);
    let telling = async {
        tokio::time::sleep(ON_ITS_WAY / 5).await;
        fake.keep(1);
        tokio::time::sleep(ON_ITS_WAY / 5).await;
        fake.not_sent(2);
    };
    let begun = Instant::now();
    let (taken, ()) = tokio::join!(waiting.take_in(&entries, 0, NodeId(2), limit), telling);
    taken.unwrap();
    assert!(begun.elapsed() < ON_ITS_WAY, "{:?}", begun.elapsed());
    let fetched: BTreeSet<u64> = fake.fetched().into_iter().map(|(_, number)| number).collect();
    assert_eq!(fetched, BTreeSet::from([2, 3]));
    assert!(fake.late.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_leader_says_at_once_that_it_lacks_what_is_not_sent() {
    let limit = Duration::from_millis(100);
    let fake = Fake::with(&[1]);
    fake.not_sent(2);
    let begun = Instant::now();
    let lacking = beside(&fake).come(vec![segment(1), segment(2)], None, limit).await.unwrap_err();
    assert_eq!(lacking.to_string(), "the body of 1/1/2 is not here");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // A body that may be on its way is awaited until the deadline.
    let coming = async {
        tokio::time::sleep(limit / 2).await;
        fake.keep(3);
    };
    let leader = beside(&fake);
    let (come, ()) = tokio::join!(leader.come(vec![segment(3)], None, limit), coming);
    come.unwrap();
}

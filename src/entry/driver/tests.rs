//! The entry's task with fake storages and a fake sync, on paused time.
//!
//! Invariant: every wait has a deadline, so an answer that never comes fails its test.
//!
//! Deliberately absent: event orderings that only matter to the core, which has its own tests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{timeout, Instant};
use vulpes_raft::ids::{Incarnation, NodeId, Position};

use super::fakes::{host, FakeStorage, FakeSync};
use super::*;
use crate::entry::{Batch, Entry, EntryConfig, EntryHandle, SESSION_ANSWERS};
use crate::types::answer::{Answer, PublishError};
use crate::types::event::{ClientTag, Event, Extensions, Payload, Qos, SessionId};
use crate::types::topic::{Realm, Topic};

const NODE: NodeId = NodeId(7);

struct Bench {
    entry: EntryHandle,
    storages: Vec<Arc<FakeStorage>>,
    sync: Arc<FakeSync>,
    recent: RecentBodies,
}

struct Session {
    next: u64,
    sender: mpsc::Sender<Answer>,
    answers: mpsc::Receiver<Answer>,
}

fn start() -> Bench {
    let (log, observed) = mpsc::channel(4096);
    let storages: Vec<_> = (1..=3).map(FakeStorage::new).collect();
    let sync = FakeSync::new(NODE, log);
    let recent = RecentBodies::new(1 << 20);
    let stores =
        storages.iter().map(|storage| Arc::clone(storage) as Arc<dyn SegmentStore>).collect();
    let (lease, tuning) = (Duration::from_secs(9), EntryTuning::default());
    let config = EntryConfig { node: NODE, storages: stores, lease, tuning };
    let order = Arc::clone(&sync) as Arc<dyn OrderService>;
    let entry = Entry::start(config, &host(), order, observed, recent.clone());
    Bench { entry, storages, sync, recent }
}

impl Bench {
    /// Waits until the status fits.
    async fn until(&self, what: &str, fits: impl FnMut(&EntryStatus) -> bool) {
        let mut status = self.entry.status();
        let reached = timeout(Duration::from_secs(60), status.wait_for(fits)).await;
        assert!(reached.is_ok_and(|reached| reached.is_ok()), "never {what}");
    }

    async fn until_ready(&self) {
        let ready = |status: &EntryStatus| {
            status.incarnation.is_some()
                && status.storages.iter().filter(|storage| storage.credit > 0).count() >= 2
        };
        self.until("ready", ready).await;
    }
}

impl Session {
    fn new() -> Self {
        let (sender, answers) = mpsc::channel(SESSION_ANSWERS);
        Self { next: 0, sender, answers }
    }

    fn batch(&mut self, count: u64) -> Batch {
        let event = Event {
            realm: Realm::new("realm").unwrap(),
            topic: Topic::from_mqtt("a/b").unwrap(),
            publisher: SessionId(1),
            client: ClientTag::NONE,
            exclude_me: true,
            disclose_me: false,
            retain: false,
            qos: Qos::AtLeastOnce,
            payload: Payload::raw(Bytes::from_static(b"hello")),
            properties: Bytes::new(),
            act: Bytes::new(),
            extensions: Extensions::default(),
        };
        let events = (0..count).map(|_| event.clone()).collect();
        let first = self.next;
        self.next += count;
        Batch {
            session: SessionId(1),
            incarnation: None,
            first,
            events,
            answers: Some(self.sender.clone()),
        }
    }

    async fn answer(&mut self) -> Answer {
        let answer = timeout(Duration::from_secs(60), self.answers.recv()).await;
        answer.expect("an answer comes").expect("the session holds a sender itself")
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_entry_answers_at_once() {
    let bench = start();
    bench.until_ready().await;
    let mut session = Session::new();
    let before = Instant::now();
    bench.entry.submit(session.batch(3)).await.unwrap();
    let answer = session.answer().await;
    // One millisecond for the storages, one for sync; timers round up.
    assert!(before.elapsed() <= Duration::from_millis(4), "{:?}", before.elapsed());
    assert_eq!((answer.first, answer.count), (0, 3));
    assert_eq!(answer.outcome.unwrap().position, Position(1));
    let id = vulpes_raft::ids::AdvanceSegment {
        entry: NODE,
        incarnation: Incarnation(1),
        number: vulpes_raft::ids::SegmentNumber(0),
    };
    assert!(bench.recent.get(id).is_some(), "readers near the tail find the body");
}

#[tokio::test(start_paused = true)]
async fn what_a_node_says_itself_is_stored_and_answered_to_nobody() {
    const BATCHES: u64 = 3000;
    let bench = start();
    bench.until_ready().await;
    let events = Session::new().batch(1).events;
    for _ in 0..BATCHES {
        bench.entry.submit(Batch::own(events.clone())).await.unwrap();
    }
    bench.until("all counted", |status| status.counters.events_resolved == BATCHES).await;
}

#[tokio::test(start_paused = true)]
async fn a_loaded_entry_batches_by_itself() {
    const BATCHES: u64 = 2000;
    let bench = start();
    bench.until_ready().await;
    let mut session = Session::new();
    let (sender, mut answers) = mpsc::channel(BATCHES as usize);
    session.sender = sender;
    for _ in 0..BATCHES {
        bench.entry.submit(session.batch(1)).await.unwrap();
    }
    for first in 0..BATCHES {
        let answer = answers.recv().await.unwrap();
        assert_eq!((answer.first, answer.count), (first, 1));
        assert_eq!(answer.outcome.unwrap().position, Position(first + 1));
    }
    bench.until("all counted", |status| status.counters.events_resolved == BATCHES).await;
    let sealed = bench.entry.status().borrow().counters.segments_sealed;
    assert!(sealed < BATCHES / 10, "{sealed} segments");
}

#[tokio::test(start_paused = true)]
async fn two_storages_of_three_are_enough_and_a_slow_one_holds_nobody_up() {
    for delay in [None, Some(Duration::from_secs(2)), Some(Duration::from_secs(20))] {
        let bench = start();
        bench.storages[1].set_delay(delay);
        bench.until_ready().await;
        let mut session = Session::new();
        let before = Instant::now();
        for first in 0..100 {
            bench.entry.submit(session.batch(1)).await.unwrap();
            let answer = session.answer().await;
            assert_eq!(answer.first, first);
            assert!(answer.outcome.is_ok());
        }
        assert!(before.elapsed() <= Duration::from_millis(500), "{:?}", before.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_publishers_learn_that_nobody_knows_and_later_ones_go_on() {
    let bench = start();
    bench.until_ready().await;
    bench.storages[0].set_delay(None);
    bench.storages[1].set_delay(None);
    let mut session = Session::new();
    let before = Instant::now();
    bench.entry.submit(session.batch(2)).await.unwrap();
    bench.entry.submit(session.batch(1)).await.unwrap();
    for expected in [(0, 2), (2, 1)] {
        let answer = session.answer().await;
        assert_eq!((answer.first, answer.count), expected);
        assert_eq!(answer.outcome, Err(PublishError::Unknown));
    }
    assert!(before.elapsed() >= limits::PUBLISH_TIMEOUT);
    bench.storages[1].set_delay(Some(Duration::from_millis(1)));
    bench.entry.submit(session.batch(1)).await.unwrap();
    let answer = session.answer().await;
    assert_eq!((answer.first, answer.count), (3, 1));
    // The earlier events were ordered after all, before these.
    assert_eq!(answer.outcome.unwrap().position, Position(4));
}

#[tokio::test(start_paused = true)]
async fn a_fenced_entry_opens_anew_and_goes_on() {
    let bench = start();
    bench.until_ready().await;
    let mut session = Session::new();
    bench.entry.submit(session.batch(1)).await.unwrap();
    assert!(session.answer().await.outcome.is_ok());
    for round in 1..=3 {
        if round == 2 {
            bench.sync.with(|model| model.close());
        } else {
            bench.sync.with(|model| model.steal());
        }
        bench.entry.submit(session.batch(1)).await.unwrap();
        let answer = session.answer().await;
        // Both are possible, depending on whether it was sealed before the entry learned of it.
        assert!(matches!(answer.outcome, Ok(_) | Err(PublishError::NotStored)), "{answer:?}");
        bench.entry.submit(session.batch(1)).await.unwrap();
        assert!(session.answer().await.outcome.is_ok());
    }
    assert_eq!(bench.entry.status().borrow().counters.incarnations, 4);
}

#[tokio::test(start_paused = true)]
async fn an_idle_incarnation_is_renewed_and_opened_anew_when_lost() {
    let bench = start();
    bench.until_ready().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let opened = |status: &EntryStatus| status.incarnation == Some(Incarnation(2));
    assert!(!opened(&bench.entry.status().borrow()));
    // The log does not show this here: only the renewal can notice it.
    bench.sync.model.lock().unwrap().close();
    bench.until("reopened", opened).await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_whose_log_ends_answers_everybody_and_takes_no_more() {
    let (log, observed) = mpsc::channel(1);
    let storages: Vec<Arc<dyn SegmentStore>> = Vec::new();
    let (lease, tuning) = (Duration::from_secs(9), EntryTuning::default());
    let config = EntryConfig { node: NODE, storages, lease, tuning };
    let (sync_log, _kept) = mpsc::channel(16);
    let order = FakeSync::new(NODE, sync_log) as Arc<dyn OrderService>;
    let entry = Entry::start(config, &host(), order, observed, RecentBodies::new(0));
    let mut session = Session::new();
    entry.submit(session.batch(2)).await.unwrap();
    entry.submit(session.batch(1)).await.unwrap();
    drop(log);
    assert_eq!(session.answer().await.outcome, Err(PublishError::Unknown));
    assert_eq!(session.answer().await.outcome, Err(PublishError::Unknown));
    assert_eq!(entry.reserve().await.err(), Some(EntryClosed));
}

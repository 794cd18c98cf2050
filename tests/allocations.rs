//! Allocations for each published message, on the way of an MQTT publish through an entry to an MQTT subscriber.
//!
//! ```text
//! bytes ─▶ gate ─▶ entry (segment writer, seal) ─▶ body ─▶ parse ─▶ dispatch ─▶ gate ─▶ bytes
//!            ◀─ answers ─┘
//! ```
//!
//! Invariant: only the product's own allocations are counted, not those of the fake storage, order and client around
//! it. A count is the same on any machine; raising a bound is a decision, made here.
//!
//! Deliberately absent: sockets, tasks of sessions, and the other nodes.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use allocation_counter::{measure, opt_out};
use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::sync::mpsc;
use vulpes::append::{AppendError, Appended, SegmentStore, StorageVote};
use vulpes::client::mqtt::{self, Packet};
use vulpes::dispatch::{mailbox, Deliveries, Dispatcher, Join};
use vulpes::entry::{
    Batch, Entry, EntryConfig, EntryHandle, EntryTuning, Lease, Opened, OrderError, OrderService,
    SESSION_ANSWERS,
};
use vulpes::gate::mqtt::{MqttConfig, MqttGate};
use vulpes::gate::{Delivery, Gate, MergingRealms, Request, Sending};
use vulpes::log::Placed;
use vulpes::recent::RecentBodies;
use vulpes::segment::{SealedBody, Segment};
use vulpes::types::answer::Answer;
use vulpes::types::event::SessionId;
use vulpes::types::moment::Moment;
use vulpes::types::topic::Realm;
use vulpes_raft::host::sim::{self, SimConfig, SimDisk};
use vulpes_raft::ids::{AdvanceSegment, EventId, Incarnation, NodeId, Position, Slot, Stamp};
use vulpes_raft::order::{
    Place, Resolution, SealedSegment, SegmentOutcome, Step, StorageGroup, StorageGroups,
};

/// Messages that a client sends at once.
const BATCH: u16 = 64;

/// Counted batches, after as many to warm up.
const ROUNDS: u16 = 50;

/// Topics that are published to in turn.
const TOPICS: u16 = 4;

/// Most allocations per message, in batches and alone, with a small margin over the measured count.
const IN_BATCHES: f64 = 0.8;
const ALONE: f64 = 30.0;

/// A storage that stores everything and passes it to the test.
struct FakeStorage(Mutex<Vec<SealedBody>>);

impl SegmentStore for FakeStorage {
    fn storage(&self) -> NodeId {
        NodeId(1)
    }

    fn begin(&self, _: NodeId, _: Incarnation) -> BoxFuture<'_, Result<u32, AppendError>> {
        async { Ok(4) }.boxed()
    }

    fn append(&self, body: SealedBody) -> BoxFuture<'_, Result<Appended, AppendError>> {
        let vote = StorageVote {
            storage: NodeId(1),
            segment: body.id,
            length: body.body.len() as u32,
            checksum: body.checksum,
        };
        opt_out(|| self.0.lock().expect("nobody panics").push(body));
        async move { Ok(Appended { vote, credit: 4 }) }.boxed()
    }

    fn skip(&self, _: AdvanceSegment) -> BoxFuture<'_, Result<(), AppendError>> {
        async { Ok(()) }.boxed()
    }
}

/// An order that places everything at once.
struct FakeOrder {
    groups: StorageGroups,
    next: Mutex<Place>,
}

impl OrderService for FakeOrder {
    fn open(&self, _: NodeId, _: u64) -> BoxFuture<'_, Result<Opened, OrderError>> {
        let opened = Opened { incarnation: Incarnation(1), groups: self.groups.clone() };
        async move { Ok(opened) }.boxed()
    }

    fn propose(
        &self,
        segments: Vec<SealedSegment>,
    ) -> BoxFuture<'_, Result<Vec<SegmentOutcome>, OrderError>> {
        let mut next = self.next.lock().expect("nobody panics");
        let place = |segment: &SealedSegment| {
            let place = *next;
            next.slot = next.slot.next();
            next.base.0 += u64::from(segment.count);
            SegmentOutcome::Resolved(place)
        };
        let outcomes = opt_out_of(|| segments.iter().map(place).collect());
        async move { Ok(outcomes) }.boxed()
    }

    fn renew(&self, _: NodeId, _: Incarnation) -> BoxFuture<'_, Result<Lease, OrderError>> {
        async { Ok(Lease::Held) }.boxed()
    }

    fn groups(&self) -> BoxFuture<'_, Result<StorageGroups, OrderError>> {
        let groups = self.groups.clone();
        async move { Ok(groups) }.boxed()
    }
}

/// Runs some work without counting its allocations.
fn opt_out_of<T>(work: impl FnOnce() -> T) -> T {
    let mut result = None;
    opt_out(|| result = Some(work()));
    result.expect("it was done")
}

/// An open session of this client.
fn session(number: u64) -> MqttGate {
    let default_realm = Realm::new("realm1").expect("a realm's name");
    let realms = Arc::new([default_realm.clone()].into());
    let merging = MergingRealms::default();
    let config = MqttConfig { default_realm, realms, merging };
    let mut gate = MqttGate::new(config, SessionId(number), Moment(0));
    let mut packet = BytesMut::new();
    mqtt::connect(&mut packet, &format!("client-{number}"), None);
    gate.receive(packet.freeze(), Moment(0));
    assert!(matches!(gate.poll_request(), Some(Request::Open { .. })));
    gate.opened(Ok(()));
    assert!(gate.poll_output().is_some(), "a CONNACK");
    gate
}

/// A publisher, a subscriber, and everything between them.
struct Line {
    publisher: MqttGate,
    subscriber: MqttGate,
    entry: EntryHandle,
    storage: Arc<FakeStorage>,
    dispatcher: Dispatcher,
    deliveries: Deliveries,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
    sequence: u64,
    place: Place,
    /// Ends the entry when it is dropped.
    _observed: mpsc::Sender<Arc<Vec<Resolution>>>,
}

impl Line {
    fn new() -> Self {
        let storage = Arc::new(FakeStorage(Mutex::default()));
        let disk = SimDisk::new();
        let config = SimConfig { seed: 1, clock_ahead: 0, commit: Duration::from_millis(1) };
        let host = sim::host(config, &disk);
        let place = Place { slot: Slot(0), stamp: Stamp(1), base: Position(1) };
        let groups = StorageGroups::even(vec![StorageGroup { members: vec![member()] }]);
        let order = FakeOrder { groups, next: Mutex::new(place) };
        let (observed, rows) = mpsc::channel(4);
        let config = EntryConfig {
            node: NodeId(1),
            storages: vec![storage.clone()],
            lease: Duration::from_secs(1_000_000),
            tuning: EntryTuning::default(),
        };
        let recent = RecentBodies::new(1 << 20);
        let entry = Entry::start(config, &host, Arc::new(order), rows, recent);
        let mut dispatcher = Dispatcher::new(Slot(0));
        let mut subscriber = session(2);
        let deliveries = subscribe(&mut subscriber, &mut dispatcher);
        Self {
            publisher: session(1),
            subscriber,
            entry,
            storage,
            dispatcher,
            deliveries,
            answers: mpsc::channel(SESSION_ANSWERS),
            sequence: 0,
            place,
            _observed: observed,
        }
    }

    /// Publishes a client's input, and waits until it is acknowledged; returns how many messages were.
    async fn publish(&mut self, input: Bytes) -> usize {
        self.publisher.receive(input, Moment(0));
        let mut events = Vec::new();
        while let Some(request) = self.publisher.poll_request() {
            let Request::Publish { event, .. } = request else { panic!("{request:?}") };
            events.push(event);
        }
        let count = events.len() as u64;
        let batch = Batch {
            session: self.publisher.session(),
            incarnation: None,
            first: self.sequence,
            events,
            answers: Some(self.answers.0.clone()),
        };
        self.entry.submit(batch).await.expect("the entry runs");
        self.sequence += count;
        let mut answered = 0;
        while answered < count {
            let answer = self.answers.1.recv().await.expect("the entry answers");
            answered += u64::from(answer.count);
            self.publisher.answered(answer);
        }
        let acknowledged = self.publisher.poll_output().expect("acknowledgements");
        acknowledged.len() / 4
    }

    /// Hands the stored bodies to the subscriber; returns how many messages it got.
    async fn deliver(&mut self) -> usize {
        let bodies = std::mem::take(&mut *self.storage.0.lock().expect("nobody panics"));
        let mut delivered = 0;
        for sealed in bodies {
            let count = u64::from(sealed.count);
            let step = Step::Segment(sealed.proposal(Vec::new()));
            let Place { slot, stamp, base } = self.place;
            let segment = Some(Segment::parse(sealed.body).expect("a segment"));
            let resolution = Resolution { slot, stamp, ahead: 0, base, step };
            let placed = Arc::new(Placed { resolution, segment, hidden: Box::default() });
            self.place.slot = slot.next();
            self.place.base.0 += count;
            self.dispatcher.dispatch(&placed);
            let next = poll_fn(|context| self.deliveries.poll_next(context));
            let handed = next.now_or_never().flatten().expect("the subscriber wants all");
            let segment = placed.segment.as_ref().expect("a segment");
            for event in segment.events() {
                let (_, topic) = &segment.topics()[event.topic as usize];
                self.subscriber.deliver(Delivery {
                    event: &event,
                    topic,
                    position: Position(base.0 + u64::from(event.offset)),
                    id: EventId::new(stamp, slot, event.offset),
                    retained: false,
                    sending: Sending::First,
                    subscriptions: handed.hits.on(event.topic),
                });
            }
            while let Some(output) = self.subscriber.poll_output() {
                let acknowledgements = opt_out_of(|| acknowledge(&output));
                delivered += acknowledgements.len() / 4;
                self.subscriber.receive(acknowledgements, Moment(0));
            }
        }
        delivered
    }

    /// Sends this many messages at once, all the way.
    async fn carry(&mut self, count: u16) {
        let input = opt_out_of(|| publishes(count));
        assert_eq!(self.publish(input).await, usize::from(count));
        assert_eq!(self.deliver().await, usize::from(count));
    }
}

fn member() -> vulpes_raft::order::StorageMember {
    vulpes_raft::order::StorageMember { node: NodeId(1), disk: vulpes_raft::ids::DiskId(1) }
}

/// Subscribes to everything that is published here.
fn subscribe(gate: &mut MqttGate, dispatcher: &mut Dispatcher) -> Deliveries {
    let mut packet = BytesMut::new();
    mqtt::subscribe(&mut packet, 1, "costs/#", 1);
    gate.receive(packet.freeze(), Moment(0));
    let Some(Request::Subscribe(subscription)) = gate.poll_request() else { panic!("no request") };
    let (mailbox, deliveries) = mailbox();
    let join = Join {
        session: gate.session(),
        realm: Realm::new("realm1").expect("a realm's name"),
        subscriptions: vec![(subscription.id, subscription.pattern)],
        at: None,
        mailbox: Some(mailbox),
    };
    dispatcher.join(join).expect("it is at the tail");
    gate.subscribed(subscription.id, Ok(()));
    assert!(gate.poll_output().is_some(), "a SUBACK");
    deliveries
}

fn publishes(count: u16) -> Bytes {
    let mut input = BytesMut::new();
    for id in 1..=count {
        mqtt::publish(&mut input, &format!("costs/{}", id % TOPICS), id, &[b'x'; 128]);
    }
    input.freeze()
}

/// A client's answers to messages.
fn acknowledge(output: &Bytes) -> Bytes {
    let (mut output, mut answers) = (output.clone(), BytesMut::new());
    while let Some((packet, length)) = mqtt::read(&output).expect("packets") {
        let Packet::Publish { id, qos: 1, payload, .. } = packet else { panic!("{packet:?}") };
        assert_eq!(payload.len(), 128);
        mqtt::puback(&mut answers, id);
        output.advance(length);
    }
    answers.freeze()
}

#[test]
fn a_message_costs_few_allocations() {
    for (batch, most) in [(BATCH, IN_BATCHES), (1, ALONE)] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut line = runtime.block_on(async { Line::new() });
        let mut carry = || {
            runtime.block_on(async {
                for _ in 0..ROUNDS {
                    line.carry(batch).await;
                }
            });
        };
        carry();
        let used = measure(carry);
        let messages = f64::from(batch) * f64::from(ROUNDS);
        let (allocations, bytes) =
            (used.count_total as f64 / messages, used.bytes_total as f64 / messages);
        println!("{batch} at once: {allocations:.2} allocations and {bytes:.0} bytes a message");
        assert!(allocations <= most, "{allocations:.2} allocations a message, {most} at most");
    }
}

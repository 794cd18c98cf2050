//! Random schedules of the core against a model of sync and of three storages: even if messages are lost, late,
//! repeated or overtaken, answers are true, in order, and given once.
//!
//! Invariant: only the model decides what is true; the core's view is only compared with it.
//!
//! Deliberately absent: holes in the log, and a second writer under one incarnation; the scripts have these
//! (`tests`).

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use vulpes_raft::mutant::{plant, Mutant};

use super::tests::event;
use super::*;
use crate::append::StorageVote;
use crate::entry::sync_model::{groups_of, SyncModel};
use crate::segment::Segment;
use crate::types::answer::Stored;

const NODE: NodeId = NodeId(7);
const SESSIONS: u64 = 3;

/// Bytes on the way to a storage with little room: about two small segments.
const NARROW: usize = 400;

#[derive(Debug, Clone, Copy)]
enum Op {
    Submit { session: u64, count: u64, large: bool },
    Turn,
    Advance { milliseconds: u64 },
    Call { pick: usize, fate: Fate },
    Log { steps: usize },
    Steal,
    Close,
    Noise,
}

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    AnswerLost,
    Lost,
}

fn op() -> impl Strategy<Value = Op> {
    let fate =
        prop_oneof![6 => Just(Fate::Done), 1 => Just(Fate::AnswerLost), 1 => Just(Fate::Lost)];
    prop_oneof![
        16 => (0..SESSIONS, 1u64..4, prop::bool::weighted(0.05))
            .prop_map(|(session, count, large)| Op::Submit { session, count, large }),
        4 => Just(Op::Turn),
        4 => prop_oneof![1u64..100, 100u64..4000]
            .prop_map(|milliseconds| Op::Advance { milliseconds }),
        60 => (0usize..64, fate).prop_map(|(pick, fate)| Op::Call { pick, fate }),
        12 => (1usize..6).prop_map(|steps| Op::Log { steps }),
        1 => Just(Op::Steal),
        1 => Just(Op::Close),
        2 => Just(Op::Noise),
    ]
}

struct World {
    core: Core<u64>,
    now: Moment,
    sync: SyncModel,
    /// How much of the log the core has seen.
    shown: usize,
    bodies: BTreeMap<AdvanceSegment, SealedBody>,
    storages: [BTreeSet<AdvanceSegment>; 5],
    /// The segments that were sent to each storage, or are on the way.
    sent: [BTreeSet<AdvanceSegment>; 5],
    /// The number of `Output::Skip` requests.
    skips: u64,
    most_bytes: usize,
    /// For each storage, the segment of the last skip notice that it got or is getting.
    told: [Option<AdvanceSegment>; 5],
    calls: Vec<Output<u64>>,
    submitted: [u64; SESSIONS as usize],
    answered: [u64; SESSIONS as usize],
    not_stored: BTreeSet<(u64, u64)>,
    stored: u64,
}

impl World {
    fn new(kind: Kind, narrow: bool) -> Self {
        let usual = EntryTuning::default();
        let storage_sent_bytes = if narrow { NARROW } else { usual.storage_sent_bytes };
        let tuning = EntryTuning { early: kind == Kind::Early, storage_sent_bytes, ..usual };
        let mut sync = SyncModel::new(NODE);
        if kind == Kind::Groups {
            sync.groups = groups_of(&[&[1, 2, 3], &[4, 5]]);
        }
        Self {
            core: Core::new(NODE, 1, Duration::from_secs(9)).tuned(tuning),
            now: Moment(0),
            sync,
            shown: 0,
            bodies: BTreeMap::new(),
            storages: Default::default(),
            sent: Default::default(),
            skips: 0,
            most_bytes: storage_sent_bytes,
            told: Default::default(),
            calls: Vec::new(),
            submitted: [0; SESSIONS as usize],
            answered: [0; SESSIONS as usize],
            not_stored: BTreeSet::new(),
            stored: 0,
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Submit { session, count, large } => return self.submit(session, count, large),
            Op::Turn => {}
            Op::Advance { milliseconds } => self.now = after(self.now, milliseconds),
            Op::Call { pick, fate } if !self.calls.is_empty() => {
                let call = self.calls.remove(pick % self.calls.len());
                self.call(call, fate);
            }
            Op::Call { .. } => {}
            Op::Log { steps } => self.show(steps),
            Op::Steal => self.sync.steal(),
            Op::Close => self.sync.close(),
            Op::Noise => self.sync.noise(),
        }
        self.turn();
    }

    fn submit(&mut self, session: u64, count: u64, large: bool) {
        if self.core.is_full() {
            return;
        }
        let first = self.submitted[session as usize];
        let events = (first..first + count).map(|sequence| {
            let mut payload = BytesMut::new();
            payload.put_u64(session);
            payload.put_u64(sequence);
            payload.put_bytes(0, if large { 150_000 } else { 4 });
            event(session, payload.freeze())
        });
        let batch = Batch {
            incarnation: None,
            session: SessionId(session),
            first,
            events: events.collect(),
            answers: session,
        };
        self.submitted[session as usize] += count;
        self.core.accept(batch, self.now);
    }

    fn show(&mut self, steps: usize) {
        for _ in 0..steps {
            let Some(resolution) = self.sync.log.get(self.shown) else { return };
            self.core.observed(resolution, self.now);
            self.shown += 1;
        }
    }

    fn turn(&mut self) {
        self.core.end_turn(self.now);
        while let Some(output) = self.core.poll() {
            match output {
                Output::Sealed(body) => assert!(self.bodies.insert(body.id, body).is_none()),
                Output::Answer { to, answer } => self.answer(to, answer),
                call => {
                    match &call {
                        Output::Append { storage, body } => {
                            self.sent[storage.0 as usize - 1].insert(body.id);
                        }
                        Output::Skip { storage, through } => {
                            self.skips += 1;
                            self.told[storage.0 as usize - 1] = Some(*through);
                        }
                        _ => {}
                    }
                    self.calls.push(call);
                }
            }
        }
        self.check_sent();
        assert!(self.core.deadline().is_none_or(|at| at > self.now), "it would spin");
        assert!(self.core.pending.len() <= limits::ENTRY_PENDING);
        let most = 5 * (limits::STORAGE_SENDS + 2) + 10;
        assert!(self.calls.len() < most, "calls are bounded: {}", self.calls.len());
    }

    /// Every storage that answers was sent the bodies that lack votes, or gets a skip notice for them. No storage has more on
    /// the way to it than it has room for.
    fn check_sent(&self) {
        let mut status = EntryStatus::default();
        self.core.report(&mut status);
        if status.incarnation.is_none() {
            return;
        }
        let answering = status.storages.iter().filter(|storage| storage.credit > 0);
        for storage in answering.map(|storage| storage.node) {
            let at = storage.0 as usize - 1;
            let is_skip = |call: &Output<u64>| matches!(call, Output::Skip { storage: to, .. } if *to == storage);
            let telling = self.calls.iter().any(is_skip);
            for (body, votes) in self.core.pending.lacking() {
                let members = &self.sync.groups.of(body.shard).unwrap().members;
                let wants = members.iter().any(|member| member.node == storage);
                let known = votes.contains(&storage) || self.sent[at].contains(&body.id);
                let told = telling || self.told[at] >= Some(body.id);
                assert!(!wants || known || told, "{storage} is not told of {}", body.id);
            }
            let on_the_way = self.calls.iter().filter_map(|call| match call {
                Output::Append { storage: to, body } if *to == storage => Some(body.body.len()),
                _ => None,
            });
            let (count, bytes) = on_the_way.fold((0, 0), |(n, sum), size| (n + 1, sum + size));
            assert!(count <= limits::STORAGE_SENDS, "{count} bodies on the way to {storage}");
            assert!(count <= 1 || bytes <= self.most_bytes, "{bytes} bytes to {storage}");
        }
    }

    fn call(&mut self, call: Output<u64>, fate: Fate) {
        let (done, told, now) = (fate != Fate::Lost, fate == Fate::Done, self.now);
        let silent = if done { OrderError::Unknown } else { OrderError::Unavailable };
        let unreachable =
            |storage| AppendError::Unreachable { storage, reason: "lost on the way".into() };
        match call {
            Output::Open { request } => {
                let result = done.then(|| self.sync.open(request)).filter(|_| told);
                self.core.opened(result.ok_or(silent), now);
            }
            Output::Begin { storage, incarnation } => {
                let result = if told { Ok(2) } else { Err(unreachable(storage)) };
                self.core.begun(storage, incarnation, result, now);
            }
            Output::Append { storage, body } => {
                if done {
                    self.storages[storage.0 as usize - 1].insert(body.id);
                }
                let vote = StorageVote {
                    storage,
                    segment: body.id,
                    length: body.body.len() as u32,
                    checksum: body.checksum,
                };
                let appended = Appended { vote, credit: 2 };
                let result = if told { Ok(appended) } else { Err(unreachable(storage)) };
                self.core.voted(storage, body.id, result, now);
            }
            Output::Skip { storage, through } => {
                let result = if told { Ok(()) } else { Err(unreachable(storage)) };
                self.core.told(storage, through, result, now);
            }
            Output::Propose { call, segments } => {
                let held = segments.iter().filter(|segment| self.quorum_holds(segment));
                self.sync.held = held.map(|segment| segment.id).collect();
                let result = done.then(|| self.sync.propose(segments)).filter(|_| told);
                self.core.proposed(call, result.ok_or(silent), now);
            }
            Output::Regroup => {
                let groups = self.sync.groups.clone();
                self.core.regrouped(told.then_some(groups).ok_or(silent), now);
            }
            Output::Renew { incarnation } => {
                let lease = self.sync.renew(incarnation);
                self.core.renewed(incarnation, told.then_some(lease).ok_or(silent), now);
            }
            Output::Sealed(_) | Output::Answer { .. } => unreachable!("no calls"),
        }
    }

    fn answer(&mut self, session: u64, answer: Answer) {
        let next = &mut self.answered[session as usize];
        assert_eq!(answer.first, *next, "answers come in order, each once");
        *next += u64::from(answer.count);
        assert!(*next <= self.submitted[session as usize]);
        let sequences = answer.first..answer.first + u64::from(answer.count);
        match answer.outcome {
            Ok(stored) => {
                self.stored += u64::from(answer.count);
                self.check_stored(session, sequences, stored);
            }
            Err(PublishError::NotStored) => {
                self.not_stored.extend(sequences.map(|sequence| (session, sequence)));
            }
            Err(PublishError::Unknown) => {}
        }
    }

    fn check_stored(&self, session: u64, sequences: std::ops::Range<u64>, stored: Stored) {
        let resolution = &self.sync.log[stored.slot.0 as usize - 1];
        let Step::Segment(segment) = &resolution.step else { panic!("no segment stands there") };
        assert_eq!(resolution.base.0 + u64::from(stored.offset), stored.position.0);
        assert_eq!(resolution.stamp, stored.stamp);
        assert!(self.quorum_holds(segment));
        let events = self.events(segment.id);
        let place = stored.offset as usize;
        let expected: Vec<_> = sequences.map(|sequence| (session, sequence)).collect();
        assert_eq!(events[place..place + expected.len()], expected);
    }

    /// Whether two storages of its group have a body: a quorum in every group.
    fn quorum_holds(&self, segment: &SealedSegment) -> bool {
        let group = self.sync.groups.of(segment.shard).unwrap().members.iter();
        let storages = group.map(|member| &self.storages[member.node.0 as usize - 1]);
        storages.filter(|storage| storage.contains(&segment.id)).count() >= 2
    }

    fn events(&self, id: AdvanceSegment) -> Vec<(u64, u64)> {
        let segment = Segment::parse(self.bodies[&id].body.clone()).unwrap();
        let number = |bytes: &Bytes, at| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let events = segment.events();
        events
            .map(|event| (number(&event.payload.args, 0), number(&event.payload.args, 8)))
            .collect()
    }

    /// Everything works again: lost calls fail, and everything that waits completes.
    fn heal(&mut self) {
        for round in 0..200 {
            if round >= 10 && self.core.unanswered() == 0 && self.core.pending.is_empty() {
                return;
            }
            for call in std::mem::take(&mut self.calls) {
                self.call(call, Fate::Done);
            }
            self.show(usize::MAX);
            self.now = after(self.now, 500);
            self.turn();
        }
        panic!("it never comes to rest: {:?}", self.core);
    }

    /// What the log contains at the end.
    fn check_log(&self) {
        let mut last = [None; SESSIONS as usize];
        for resolution in &self.sync.log {
            let Step::Segment(segment) = &resolution.step else { continue };
            for (session, sequence) in self.events(segment.id) {
                assert!(!self.not_stored.contains(&(session, sequence)), "it was not to be stored");
                let last = &mut last[session as usize];
                assert!(*last < Some(sequence), "nothing is doubled or reordered");
                *last = Some(sequence);
            }
        }
    }
}

/// How often the schedules had each outcome.
#[derive(Debug, Default)]
struct Coverage {
    stored: Cell<u64>,
    not_stored: Cell<u64>,
    expired: Cell<u64>,
    reopened: Cell<u64>,
    gaps: Cell<u64>,
    keeps_failed: Cell<u64>,
    proposals_failed: Cell<u64>,
    skips: Cell<u64>,
}

impl Coverage {
    fn add(&self, world: &World) {
        let counters = world.core.counters;
        let add = |cell: &Cell<u64>, count| cell.set(cell.get() + count);
        add(&self.stored, world.stored);
        add(&self.not_stored, world.not_stored.len() as u64);
        add(&self.expired, counters.events_expired);
        add(&self.reopened, counters.incarnations - 1);
        add(&self.gaps, world.sync.gaps);
        add(&self.keeps_failed, counters.keeps_failed);
        add(&self.proposals_failed, counters.proposals_failed);
        add(&self.skips, world.skips);
    }

    fn check(&self) {
        let Self { stored, not_stored, expired, reopened, gaps, .. } = self;
        let Self { keeps_failed, proposals_failed, skips, .. } = self;
        let outcomes = [stored, not_stored, expired, reopened, gaps];
        let all = outcomes.into_iter().chain([keeps_failed, proposals_failed, skips]);
        assert!({ all }.all(|cell| cell.get() > 10), "schedules without faults: {self:?}");
    }
}

/// The kind of cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Three storages, which are the sync members: segments are proposed early.
    Early,
    /// Three storages that vote.
    Voting,
    /// Two groups of storages that vote.
    Groups,
}

fn run(kind: Kind, narrow: bool, ops: Vec<Op>, coverage: &Coverage) {
    let mut world = World::new(kind, narrow);
    for op in ops {
        world.step(op);
    }
    world.turn();
    world.heal();
    assert_eq!(world.answered, world.submitted);
    // Whatever happened, later publishes succeed.
    let before = world.stored;
    for session in 0..SESSIONS {
        world.step(Op::Submit { session, count: 2, large: false });
        world.turn();
    }
    world.heal();
    assert_eq!(world.answered, world.submitted);
    assert_eq!(world.stored, before + 2 * SESSIONS);
    world.check_log();
    coverage.add(&world);
}

/// Runs random schedules.
fn schedules(config: ProptestConfig, coverage: &Coverage) -> Result<(), String> {
    let config = ProptestConfig { failure_persistence: None, ..config };
    let kinds = prop_oneof![Just(Kind::Early), Just(Kind::Voting), Just(Kind::Groups)];
    let schedules = (kinds, prop::bool::ANY, prop::collection::vec(op(), 1..300));
    let result = TestRunner::new(config).run(&schedules, |(kind, narrow, ops)| {
        run(kind, narrow, ops, coverage);
        Ok(())
    });
    result.map_err(|error| error.to_string())
}

#[test]
fn answers_are_true_in_order_and_given_once() {
    let coverage = Coverage::default();
    let config = ProptestConfig { cases: 400, ..ProptestConfig::default() };
    if let Err(error) = schedules(config, &coverage) {
        panic!("{error}");
    }
    coverage.check();
}

#[test]
fn skipping_a_storage_without_saying_so_is_caught() {
    plant(Some(Mutant::SkipWithoutSaying));
    let config = ProptestConfig { cases: 400, max_shrink_iters: 0, ..ProptestConfig::default() };
    let outcome = schedules(config, &Coverage::default());
    plant(None);
    let complaint = outcome.expect_err("the bug survived");
    assert!(complaint.contains("is not told of"), "another check was first: {complaint}");
}

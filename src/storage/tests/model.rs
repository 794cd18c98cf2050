//! Random operations on a storage, with power cuts, against a model of a few maps.
//!
//! Operations that were queued but unanswered at a power cut may be on disk or not, but only whole ones, in the order
//! in which they were queued; everything that was answered is there.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tokio::task::JoinHandle;
use vulpes_raft::ids::{Incarnation, SegmentNumber};
use vulpes_raft::order::CloseReason;

use super::super::staging::Fence;
use super::super::testing::{plain, sealed, segment_id, Order, TestDisk, COMMIT};
use super::super::*;
use super::open;
use crate::append::{AppendError, Appended};
use crate::segment::SealedBody;

#[derive(Clone, Debug)]
enum Op {
    /// A body arrives from an entry: of its current incarnation or an adjacent one, in one of two variants.
    Append {
        entry: u64,
        incarnation: u64,
        number: u64,
        variant: u8,
    },
    /// The order resolves the entry's next segment.
    Resolve {
        entry: u64,
        variant: u8,
    },
    Open {
        entry: u64,
    },
    Close {
        entry: u64,
    },
    /// Releases what is durable, except for this many rows.
    Release {
        but: u64,
    },
    /// Time passes: commits happen.
    Wait {
        commits: u32,
    },
    CutPower,
}

fn any_op() -> impl Strategy<Value = Op> {
    let entry = 1..3u64;
    prop_oneof![
        6 => (entry.clone(), 0..4u64, 0..4u64, 0..2u8).prop_map(
            |(entry, incarnation, number, variant)| {
                Op::Append { entry, incarnation, number, variant }
            }
        ),
        4 => (entry.clone(), 0..2u8).prop_map(|(entry, variant)| Op::Resolve { entry, variant }),
        1 => entry.clone().prop_map(|entry| Op::Open { entry }),
        1 => entry.prop_map(|entry| Op::Close { entry }),
        1 => (0..6u64).prop_map(|but| Op::Release { but }),
        3 => (1..3u32).prop_map(|commits| Op::Wait { commits }),
        1 => Just(Op::CutPower),
    ]
}

/// What a storage's disk holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    rows: Vec<Resolution>,
    bodies: BTreeMap<AdvanceSegment, Bytes>,
    unresolved: BTreeMap<AdvanceSegment, u64>,
    fences: BTreeMap<NodeId, Fence>,
}

impl Held {
    fn read(storage: &Storage, named: impl Iterator<Item = AdvanceSegment>) -> Self {
        let fences = storage.inner.reader.fences().unwrap();
        let held = Self {
            rows: storage.rows(Slot(1), usize::MAX).unwrap(),
            bodies: named.filter_map(|id| Some((id, storage.body(&id).unwrap()?))).collect(),
            unresolved: storage.inner.reader.unresolved(&fences).unwrap(),
            fences,
        };
        assert_eq!(held.bodies.len() as u64, storage.status().unwrap().bodies);
        held
    }

    fn fence(&self, entry: u64) -> Fence {
        self.fences.get(&NodeId(entry)).copied().unwrap_or_default()
    }

    fn order(&self) -> Order {
        let next = Next::after(self.rows.last());
        Order { slot: next.slot, base: next.base }
    }

    fn append(&mut self, body: &SealedBody) -> Result<u64, AppendError> {
        let fence = self.fence(body.id.entry.0);
        if body.id.incarnation < fence.incarnation {
            return Err(AppendError::Fenced);
        }
        let is_past = body.id.incarnation == fence.incarnation && body.id.number < fence.number;
        if is_past && !self.bodies.contains_key(&body.id) {
            return Err(AppendError::Released(body.id));
        }
        let held = self.bodies.entry(body.id).or_insert_with(|| body.body.clone());
        if *held != body.body {
            return Err(AppendError::Conflict(body.id));
        }
        if body.id.incarnation > fence.incarnation || body.id.number >= fence.number {
            self.unresolved.insert(body.id, body.checksum);
        }
        Ok(body.checksum)
    }

    fn release(&mut self, before: Slot) {
        let appended = self.rows.iter().position(|row| row.slot >= before).unwrap_or(0);
        for row in self.rows.drain(..appended) {
            if let Step::Segment(sealed) = row.step {
                self.bodies.remove(&sealed.id);
            }
        }
    }

    fn last(&self) -> u64 {
        self.rows.last().map_or(0, |row| row.slot.0)
    }

    fn resolve(&mut self, body: &SealedBody, row: Resolution) {
        let id = body.id;
        self.unresolved.remove(&id);
        self.bodies.insert(id, body.body.clone());
        self.rows.push(row);
        let fence = Fence { incarnation: id.incarnation, number: id.number.next() };
        self.fences.insert(id.entry, fence);
    }

    fn raise(&mut self, entry: u64, incarnation: Incarnation, row: Resolution) {
        let fenced = |id: &AdvanceSegment| id.entry.0 == entry && id.incarnation < incarnation;
        self.bodies.retain(|id, _| !(fenced(id) && self.unresolved.contains_key(id)));
        self.unresolved.retain(|id, _| !fenced(id));
        self.fences.insert(NodeId(entry), Fence { incarnation, number: SegmentNumber(0) });
        self.rows.push(row);
    }
}

struct Waiting {
    /// The state that holds once it is answered.
    state: usize,
    /// The checksum that is voted for, or the expected error.
    expected: Result<u64, AppendError>,
    answer: JoinHandle<Result<Appended, AppendError>>,
}

struct Run {
    disk: TestDisk,
    storage: Storage,
    /// The contents after each operation since the last power cut, beginning with the state before.
    states: Vec<Held>,
    /// Appends that are not answered yet.
    waiting: Vec<Waiting>,
    /// The latest release.
    releasing: Option<JoinHandle<()>>,
    /// The state that answers have proved to be on disk.
    answered: usize,
    /// Every name that a body had.
    named: BTreeSet<AdvanceSegment>,
}

impl Run {
    fn new() -> Self {
        let disk = TestDisk::default();
        let storage = open(&disk);
        Self {
            disk,
            storage,
            states: vec![Held::default()],
            waiting: Vec::new(),
            releasing: None,
            answered: 0,
            named: BTreeSet::new(),
        }
    }

    fn now(&self) -> Held {
        self.states.last().cloned().unwrap_or_default()
    }

    fn body(&mut self, id: AdvanceSegment, variant: u8) -> SealedBody {
        self.named.insert(id);
        sealed(id, &[variant; 40])
    }

    async fn step(&mut self, op: Op) {
        let mut held = self.now();
        match op {
            Op::Append { entry, incarnation, number, variant } => {
                let body = self.body(segment_id(entry, incarnation, number), variant);
                let expected = held.append(&body);
                let storage = self.storage.clone();
                let answer = tokio::spawn(async move { storage.append(body).await });
                tokio::task::yield_now().await;
                self.waiting.push(Waiting { state: self.states.len(), expected, answer });
            }
            Op::Resolve { entry, variant } => {
                let Fence { incarnation, number } = held.fence(entry);
                let id = AdvanceSegment { entry: NodeId(entry), incarnation, number };
                let body = self.body(id, variant);
                let row = held.order().segment(&body);
                let sealed = super::proposal(&body);
                let given = self.storage.lacks(&sealed).then(|| body.body.clone());
                held.resolve(&body, row.clone());
                self.storage.index(plain(vec![(row, given)])).await.unwrap();
            }
            Op::Open { entry } => {
                let incarnation = held.fence(entry).incarnation.next();
                let row = held.order().opened(entry, incarnation.0);
                held.raise(entry, incarnation, row.clone());
                self.storage.index(plain(vec![(row, None)])).await.unwrap();
            }
            Op::Close { entry } => {
                let (closed, incarnation) = (NodeId(entry), held.fence(entry).incarnation);
                let reason = CloseReason::Left;
                let row = held.order().step(Step::Closed { entry: closed, incarnation, reason });
                held.raise(entry, incarnation.next(), row.clone());
                self.storage.index(plain(vec![(row, None)])).await.unwrap();
            }
            Op::Release { but } => {
                // Another release is queued only when this one is done, after everything that is queued meanwhile.
                if let Some(releasing) = self.releasing.take() {
                    releasing.await.unwrap();
                }
                let before = Slot(self.storage.indexed().borrow().0.saturating_sub(but));
                held.release(before);
                let storage = self.storage.clone();
                let releasing = async move { drop(storage.release(before).await) };
                self.releasing = Some(tokio::spawn(releasing));
                tokio::task::yield_now().await;
            }
            Op::Wait { commits } => {
                tokio::time::sleep(COMMIT * commits + COMMIT / 2).await;
                self.hear().await;
                return;
            }
            Op::CutPower => return self.cut_power().await,
        }
        self.states.push(held);
    }

    /// Takes the answers that have arrived, and compares them with the model's predictions.
    async fn hear(&mut self) {
        let mut waiting = Vec::new();
        for append in self.waiting.drain(..) {
            if append.answer.is_finished() {
                let appended = append.answer.await.unwrap();
                assert_eq!(appended.map(|appended| appended.vote.checksum), append.expected);
                self.answered = self.answered.max(append.state);
            } else {
                waiting.push(append);
            }
        }
        self.waiting = waiting;
        let indexed = *self.storage.indexed().borrow();
        let state = self.states.iter().position(|held| held.last() >= indexed.0);
        self.answered = self.answered.max(state.expect("rows are durable that were never queued"));
    }

    async fn cut_power(&mut self) {
        self.hear().await;
        self.waiting.clear();
        self.releasing = None;
        self.disk = self.disk.cut_power();
        self.storage = open(&self.disk);
        let found = Held::read(&self.storage, self.named.iter().copied());
        let possible = &self.states[self.answered..];
        assert!(possible.contains(&found), "found {found:#?}, expected one of {possible:#?}");
        self.states = vec![found];
        self.answered = 0;
    }
}

fn check(ops: Vec<Op>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut run = Run::new();
        for op in ops {
            run.step(op).await;
        }
        // In the end everything queued is answered, and nothing else is on disk.
        run.step(Op::Wait { commits: 200 }).await;
        assert!(run.waiting.is_empty());
        let last = run.now();
        let held = Held::read(&run.storage, run.named.iter().copied());
        assert_eq!(held, last);
        run.answered = run.states.len() - 1;
        run.cut_power().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_storage_holds_what_the_model_says(ops in prop::collection::vec(any_op(), 1..60)) {
        check(ops);
    }
}

/// The model once assumed that the second release was queued before the body that came after it.
#[test]
fn a_body_that_was_released_comes_again_between_two_releases() {
    let again = || Op::Append { entry: 1, incarnation: 0, number: 0, variant: 0 };
    let mut ops = vec![Op::Resolve { entry: 1, variant: 0 }; 7];
    ops.extend([again(), Op::Wait { commits: 1 }, Op::Release { but: 2 }, Op::Release { but: 0 }]);
    ops.extend([again(), Op::Wait { commits: 1 }, Op::CutPower]);
    check(ops);
}

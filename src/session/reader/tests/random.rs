//! Random schedules of a reader beside a real dispatcher.

use std::sync::Weak;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::bench::pattern;
use super::*;
use crate::dispatch::{mailbox, Deliveries, Dispatcher, Handed, Join};
use crate::gate::RetainedMode;
use crate::session::testing::{event, placed, realm};
use crate::types::event::SessionId;

const TOPICS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Copy, Debug)]
enum Act {
    /// Adds this many slots, with an event of this topic each.
    Log(usize, usize),
    /// From now on, or from the beginning.
    Subscribe {
        topic: usize,
        from_beginning: bool,
    },
    Unsubscribe(usize),
    /// The reader takes this many steps.
    Steps(usize, bool),
    /// The work in progress is done.
    Finish,
    /// No segment is in memory any more.
    Forget,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (prop_oneof![9 => 1_usize..5, 1 => Just(200)], 0_usize..3)
            .prop_map(|(count, topic)| Act::Log(count, topic)),
        2 => (0_usize..3, any::<bool>())
            .prop_map(|(topic, from_beginning)| Act::Subscribe { topic, from_beginning }),
        1 => any::<usize>().prop_map(Act::Unsubscribe),
        6 => (1_usize..9, any::<bool>()).prop_map(|(steps, room)| Act::Steps(steps, room)),
        5 => Just(Act::Finish),
        1 => Just(Act::Forget),
    ];
    proptest::collection::vec(act, 1..120)
}

/// A node with a log, its last slots in memory, and a dispatcher.
struct Node {
    log: Vec<Arc<Placed>>,
    /// What is in memory.
    recent: Vec<Arc<Placed>>,
    dispatcher: Dispatcher,
    deliveries: Option<Deliveries>,
}

impl Source for Node {
    type Room = ();

    fn tail(&self) -> Tail {
        let next = self.log.len() as u64 + 1;
        Tail { next_slot: Slot(next), next_position: Position(next) }
    }

    fn view(&self) -> View {
        crate::realm::Realms::default().view()
    }

    fn try_room(&self, _: usize) -> Result<(), SubscribeError> {
        Ok(())
    }

    fn next_live(&mut self) -> Live {
        let deliveries = self.deliveries.as_mut().expect("it has a mailbox");
        match deliveries.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Handed { slot, placed, hits })) => {
                Live::Segment { slot, placed: Weak::upgrade(&placed), hits }
            }
            Poll::Ready(None) => deliveries.left_at().map_or(Live::Ended, Live::Left),
            Poll::Pending => Live::Nothing,
        }
    }
}

/// A subscription as the test expects it.
struct Known {
    topic: usize,
    /// Where it begins, once known.
    from: Option<usize>,
    /// It must get all its events up to here.
    until: Option<usize>,
    seen: Vec<usize>,
}

struct World {
    node: Node,
    reader: Reader<()>,
    work: Option<Work>,
    topics: Vec<usize>,
    known: Vec<Known>,
}

impl World {
    fn new() -> Self {
        let node = Node {
            log: Vec::new(),
            recent: Vec::new(),
            dispatcher: Dispatcher::new(Slot(1)),
            deliveries: None,
        };
        let (topics, known) = (Vec::new(), Vec::new());
        Self { node, reader: Reader::new(realm()), work: None, topics, known }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Log(count, topic) => (0..count).for_each(|_| self.log(topic)),
            Act::Subscribe { topic, from_beginning } => {
                let id = SubscriptionId(self.known.len() as u64);
                let from = from_beginning.then_some(0);
                self.known.push(Known { topic, from, until: None, seen: Vec::new() });
                self.reader.subscribe(Subscription {
                    id,
                    pattern: pattern(TOPICS[topic]),
                    after: from_beginning.then_some(After::Position(Position(0))),
                    snapshot: false,
                    retained: RetainedMode::None,
                    filter: None,
                });
            }
            Act::Unsubscribe(at) if !self.known.is_empty() => {
                let at = at % self.known.len();
                self.reader.unsubscribe(SubscriptionId(at as u64));
            }
            Act::Unsubscribe(_) => {}
            Act::Steps(steps, room) => {
                for _ in 0..steps {
                    self.step(room);
                }
            }
            Act::Finish => self.finish(),
            Act::Forget => self.node.recent.clear(),
        }
    }

    fn log(&mut self, topic: usize) {
        let Tail { next_slot, next_position } = self.node.tail();
        let made = placed(next_slot, next_position, &[event(TOPICS[topic])]);
        self.node.dispatcher.dispatch(&made);
        self.node.recent.push(made.clone());
        // A segment that is read from a storage is another copy.
        self.node.log.push(Arc::new(Placed::clone(&made)));
        self.topics.push(topic);
    }

    /// Whether the reader has made progress.
    fn step(&mut self, room: bool) -> bool {
        let step = self.reader.next(&mut self.node, room);
        if !self.reader.has_mailbox() {
            self.node.deliveries = None;
        }
        match step {
            Step::Reading(reading) => self.read(reading),
            Step::Work(work) => assert!(self.work.replace(work).is_none(), "one at a time"),
            Step::Moved => {}
            Step::Wait => return false,
        }
        true
    }

    fn finish(&mut self) {
        let Some(work) = self.work.take() else { return };
        let done = match work {
            Work::StartAfter(_) => Done::Start(Ok(Start { slot: Slot(1), position: Position(1) })),
            Work::Read { from, .. } => {
                let rest = &self.node.log[from.0 as usize - 1..];
                Done::Read(Ok(rest.iter().take(7).cloned().collect()))
            }
            Work::Join { subscriptions, at, mailbox: anew } => {
                let (mailbox, deliveries) = anew.then(mailbox).unzip();
                let ids: Vec<SubscriptionId> = subscriptions.iter().map(|(id, _)| *id).collect();
                let join =
                    Join { session: SessionId(7), realm: realm(), subscriptions, at, mailbox };
                let result = self.node.dispatcher.join(join);
                let from = result.unwrap_or_else(|error| error.next);
                for id in ids {
                    let known = &mut self.known[id.0 as usize];
                    known.from.get_or_insert(from.0 as usize - 1);
                }
                if result.is_ok() && deliveries.is_some() {
                    self.node.deliveries = deliveries;
                }
                Done::Joined(result)
            }
            Work::Leave(id) => {
                self.node.dispatcher.leave(SessionId(7), id);
                Done::Over
            }
            work => panic!("{work:?}"),
        };
        if let Some(reading) = self.reader.done(done, &self.node) {
            self.read(reading);
        }
    }

    fn read(&mut self, reading: Reading) {
        match reading {
            Reading::Segment(wanted) => {
                let slot = wanted.slot.0 as usize - 1;
                let here = wanted.placed.unwrap().resolution.base >= wanted.from;
                for id in wanted.hits.on(0).iter().filter(|_| here) {
                    if self.reader.is_active(*id) {
                        self.known[id.0 as usize].seen.push(slot);
                    }
                }
            }
            Reading::Subscribed(_, result) => result.unwrap(),
            Reading::Unsubscribed(id) => {
                let all = self.topics.len();
                let known = &mut self.known[id.0 as usize];
                known.until = Some(known.seen.last().map_or(0, |last| last + 1).min(all));
            }
            other => panic!("{other:?}"),
        }
    }

    /// Until there is nothing left to read.
    fn read_on(&mut self) {
        loop {
            while self.step(true) {}
            if self.work.is_none() {
                return;
            }
            self.finish();
        }
    }

    fn check(&self) {
        for (id, known) in self.known.iter().enumerate() {
            let until = known.until.unwrap_or(self.topics.len());
            let from = known.from.unwrap_or(until);
            let expected: Vec<usize> =
                (from..until).filter(|slot| self.topics[*slot] == known.topic).collect();
            assert_eq!(known.seen, expected, "subscription {id} from {from} until {until}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever the order of steps, work and the log: each subscription gets every event from its start on, once and in order.
    /// The remaining events come without any wake-up of the reader, so it never waits for what is there already.
    #[test]
    fn any_schedule_shows_all_once(acts in acts()) {
        let mut world = World::new();
        acts.iter().for_each(|act| world.act(*act));
        world.read_on();
        world.check();
    }
}

/// A replay joined the live stream while segments for others waited there: its own came behind them, and were lost, or came again,
/// when one of those was no longer in memory.
#[test]
fn a_schedule_that_left_events_out() {
    let from = |topic, from_beginning| Act::Subscribe { topic, from_beginning };
    let acts = [
        Act::Log(1, 0),
        from(2, true),
        Act::Steps(2, false),
        Act::Finish,
        Act::Steps(2, true),
        Act::Finish,
        from(2, false),
        Act::Log(1, 0),
        Act::Log(1, 0),
        Act::Steps(2, false),
        Act::Finish,
        Act::Steps(2, true),
        Act::Steps(1, false),
        Act::Finish,
        Act::Steps(3, true),
        Act::Log(2, 2),
        Act::Log(2, 2),
        from(0, false),
        Act::Steps(1, false),
        Act::Finish,
        from(0, true),
        Act::Log(1, 0),
        Act::Steps(2, false),
        Act::Finish,
        Act::Steps(3, true),
        Act::Log(1, 0),
        Act::Log(1, 0),
        Act::Log(1, 0),
        Act::Forget,
    ];
    let mut world = World::new();
    acts.iter().for_each(|act| world.act(*act));
    world.read_on();
    world.check();
}

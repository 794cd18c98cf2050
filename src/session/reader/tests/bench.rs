//! Runs the scripts: reads `> input` lines, and writes down what the reader does after each.
//!
//! Invariant: after every input the reader runs until it waits.
//!
//! Deliberately absent: any check besides comparing texts.

use std::fmt::Write;

use super::*;
use crate::gate::RetainedMode;
use crate::session::testing::{event, placed, realm};
use crate::types::act::{InFlight, Progress};

/// A node as described by a script.
pub(super) struct Node {
    pub(super) log: Vec<Arc<Placed>>,
    pub(super) live: VecDeque<Live>,
    pub(super) has_room: bool,
}

/// The log's first slot is 1, and its first position 10.
impl Node {
    pub(super) fn log(&mut self, topics: &[&str]) {
        let Tail { next_slot, next_position } = self.tail();
        let events: Vec<_> = topics.iter().map(|topic| event(topic)).collect();
        self.log.push(placed(next_slot, next_position, &events));
    }

    fn at(&self, slot: Slot) -> &Arc<Placed> {
        &self.log[slot.0 as usize - 1]
    }
}

impl Source for Node {
    type Room = ();

    fn tail(&self) -> Tail {
        let first = Tail { next_slot: Slot(1), next_position: Position(10) };
        self.log.last().map_or(first, |last| Tail {
            next_slot: last.resolution.slot.next(),
            next_position: last.resolution.end(),
        })
    }

    fn view(&self) -> View {
        crate::realm::Realms::default().view()
    }

    fn try_room(&self, _: usize) -> Result<(), SubscribeError> {
        self.has_room.then_some(()).ok_or(SubscribeError::NodeFull)
    }

    fn next_live(&mut self) -> Live {
        self.live.pop_front().unwrap_or(Live::Nothing)
    }
}

pub(super) struct Bench {
    pub(super) reader: Reader<()>,
    pub(super) node: Node,
    pub(super) room: bool,
    pub(super) text: String,
}

pub(super) fn pattern(topic: &str) -> Pattern {
    Pattern::from_mqtt(topic).unwrap()
}

fn subscription(words: &[&str]) -> Subscription {
    let number = |word: &str| word.parse().unwrap();
    let after = words.iter().position(|word| *word == "after").map(|at| number(words[at + 1]));
    Subscription {
        id: SubscriptionId(number(words[0])),
        pattern: pattern(words[1]),
        after: after.map(|after| After::Position(Position(after))),
        snapshot: words.contains(&"snapshot"),
        retained: if words.contains(&"retained") {
            RetainedMode::State
        } else {
            RetainedMode::None
        },
        filter: None,
    }
}

fn persistent(words: &[&str]) -> Vec<PersistentReading> {
    words
        .iter()
        .map(|word| {
            let parts: Vec<&str> = word.split(':').collect();
            PersistentReading {
                id: SubscriptionId(parts[0].parse().unwrap()),
                pattern: pattern(parts[1]),
                retained: RetainedMode::None,
                changes: false,
                condition: None,
                from: Some(Position(parts[2].parse().unwrap())),
            }
        })
        .collect()
}

impl Bench {
    pub(super) fn new() -> Self {
        let node = Node { log: Vec::new(), live: VecDeque::new(), has_room: true };
        Self { reader: Reader::new(realm()), node, room: true, text: String::new() }
    }

    pub(super) fn input(&mut self, words: &[&str]) {
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "subscribe" => self.reader.subscribe(subscription(&words[1..])),
            "unsubscribe" => self.reader.unsubscribe(SubscriptionId(number(1))),
            "again" => self.reader.read_again(Slot(number(1))),
            "log" => self.node.log(&words[1..]),
            "room" => self.room = words[1] == "on",
            "full" => self.node.has_room = false,
            "live" => {
                let placed = self.node.at(Slot(number(1))).clone();
                let matcher =
                    self.reader.live.iter().map(|(id, (pattern, _))| (*id, pattern)).collect();
                let topics = placed.segment.as_ref().unwrap().topics();
                let hits = Hits::of(topics, &realm(), &matcher).unwrap();
                let there = words.get(2) != Some(&"forgotten");
                let (slot, placed) = (placed.resolution.slot, there.then_some(placed));
                self.node.live.push_back(Live::Segment { slot, placed, hits });
            }
            "ended" => self.node.live.push_back(Live::Ended),
            "left" => self.node.live.push_back(Live::Left(Slot(number(1)))),
            "idle" => {
                let Tail { next_slot: slot, next_position: position } = self.node.tail();
                self.node.live.push_back(Live::Idle(Start { slot, position }));
            }
            "resume" => {
                let in_flight = words[2].split(',').filter(|word| *word != "-").map(|word| {
                    InFlight { position: Position(word.parse().unwrap()), packet_id: 1 }
                });
                let sent = Position(number(1));
                let progress = Progress { sent, in_flight: in_flight.collect(), doubt: sent };
                let tail = self.node.tail().next_position;
                self.reader.resume(progress, persistent(&words[3..]), tail);
            }
            "persist" => self.reader.persist(persistent(&words[1..]), Vec::new(), true),
            _ => self.done(words),
        }
    }

    /// The result of the work.
    fn done(&mut self, words: &[&str]) {
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let done = match (words[0], words[1]) {
            ("start", "gone") => Done::Start(Err(SubscribeError::Gone { oldest: Position(1) })),
            ("start", "unavailable") => Done::Start(Err(SubscribeError::Unavailable)),
            ("start", _) => {
                Done::Start(Ok(Start { slot: Slot(number(1)), position: Position(number(2)) }))
            }
            ("read", "gone") => Done::Read(Err(ReadError::Gone { oldest: Slot(1) })),
            ("read", "unavailable") => Done::Read(Err(ReadError::Unavailable("x".into()))),
            ("read", _) => {
                let slots = words[1..].iter().map(|word| Slot(word.parse().unwrap()));
                Done::Read(Ok(slots.map(|slot| self.node.at(slot).clone()).collect()))
            }
            ("joined", "at") => Done::Joined(Ok(Slot(number(2)))),
            ("joined", "not") => Done::Joined(Err(JoinError { next: Slot(number(2)) })),
            ("is", "over") => Done::Over,
            ("is", "stopped") => Done::Stopped,
            _ => panic!("not an input: {words:?}"),
        };
        if let Some(reading) = self.reader.done(done, &self.node) {
            self.show(reading);
        }
    }

    pub(super) fn outputs(&mut self) {
        loop {
            let step = self.reader.next(&mut self.node, self.room);
            if !self.reader.has_mailbox() {
                self.node.live.clear();
            }
            match step {
                Step::Reading(reading) => self.show(reading),
                Step::Work(work) => {
                    let text = shown(&work);
                    self.text.push_str(&text);
                }
                Step::Moved => {}
                Step::Wait => return,
            }
        }
    }

    fn show(&mut self, reading: Reading) {
        let text = match reading {
            Reading::Subscribed(id, Ok(())) => format!("subscribed {}", id.0),
            Reading::Subscribed(id, Err(error)) => format!("subscribed {} not: {error}", id.0),
            Reading::Unsubscribed(id) => format!("unsubscribed {}", id.0),
            Reading::Ended(id) => format!("ended {}", id.0),
            Reading::Segment(wanted) => {
                let resolution = &wanted.placed.as_ref().unwrap().resolution;
                let ids: Vec<String> = (0..2)
                    .flat_map(|topic| wanted.hits.on(topic))
                    .map(|id| id.0.to_string())
                    .collect();
                let cursor = if wanted.at_cursor { " at cursor" } else { "" };
                if wanted.at_cursor {
                    self.reader.reached(resolution.slot.next(), resolution.end());
                }
                format!(
                    "segment {} from {} for {}{cursor}",
                    wanted.slot,
                    wanted.from,
                    ids.join(",")
                )
            }
            Reading::FilterOutcome(room) => format!("noted {room}"),
            Reading::Retained(values) => {
                format!("{} values for {}", values.values.len(), values.id.0)
            }
            Reading::Back(placed) => format!("back {}", placed.resolution.slot),
            Reading::Gone => "gone".to_owned(),
            Reading::Stopped => "stopped".to_owned(),
        };
        writeln!(self.text, "{text}").unwrap();
    }
}

fn shown(work: &Work) -> String {
    match work {
        Work::StartAfter(After::Position(position)) => format!("start after {position}\n"),
        Work::StartAt(position) => format!("start at {position}\n"),
        Work::Read { from, later } => {
            format!("read {from}{}\n", if *later { " later" } else { "" })
        }
        Work::Reach(slot) => format!("reach {slot}\n"),
        Work::Join { subscriptions, at, mailbox } => {
            let ids: Vec<String> = subscriptions.iter().map(|(id, _)| id.0.to_string()).collect();
            let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
            format!("join {}{at}{}\n", ids.join(","), if *mailbox { " anew" } else { "" })
        }
        Work::Leave(id) => format!("leave {}\n", id.0),
        Work::Pause => "pause\n".to_owned(),
        work @ Work::StartAfter(_) => panic!("{work:?}"),
    }
}

pub(super) fn check(script: &str) {
    let mut bench = Bench::new();
    let script: Vec<&str> = script.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for line in &script {
        if let Some(input) = line.strip_prefix("> ") {
            writeln!(bench.text, "{line}").unwrap();
            bench.input(&input.split(' ').collect::<Vec<_>>());
            bench.outputs();
        }
    }
    assert_eq!(bench.text.lines().collect::<Vec<_>>(), script, "\n{}", bench.text);
}

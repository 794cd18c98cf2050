//! Scripts of the reader, and random schedules of it.
//!
//! A script has `> input` lines, each followed by all that comes of it. The log of a script has two events in each slot, and
//! grows by `> log` alone; the live stream has what `> live` says.
//!
//! Invariant: a script lists everything that happens; nothing else may happen.
//!
//! Deliberately absent: what is handed to a gate (`delivery`).

mod random;

use std::fmt::Write;

use super::*;
use crate::gate::RetainedMode;
use crate::session::testing::{event, placed, realm};
use crate::types::act::{InFlight, Progress};

/// A node as a script says.
struct Node {
    log: Vec<Arc<Placed>>,
    live: VecDeque<Live>,
    has_room: bool,
}

/// The log's first slot is 1, and its first position 10.
impl Node {
    fn log(&mut self, topics: &[&str]) {
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

    fn try_room(&self, _: usize) -> Option<()> {
        self.has_room.then_some(())
    }

    fn next_live(&mut self) -> Live {
        self.live.pop_front().unwrap_or(Live::Nothing)
    }
}

struct Bench {
    reader: Reader<()>,
    node: Node,
    room: bool,
    text: String,
}

fn pattern(topic: &str) -> Pattern {
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

fn kept(words: &[&str]) -> Vec<KeptReading> {
    words
        .iter()
        .map(|word| {
            let parts: Vec<&str> = word.split(':').collect();
            KeptReading {
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
    fn new() -> Self {
        let node = Node { log: Vec::new(), live: VecDeque::new(), has_room: true };
        Self { reader: Reader::new(realm()), node, room: true, text: String::new() }
    }

    fn input(&mut self, words: &[&str]) {
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
                self.reader.resume(progress, kept(&words[3..]), tail);
            }
            "keep" => self.reader.keep(kept(&words[1..]), Vec::new(), true),
            _ => self.done(words),
        }
    }

    /// What came of the work.
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

    fn outputs(&mut self) {
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
            Reading::Noted(room) => format!("noted {room}"),
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

fn check(script: &str) {
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

#[test]
fn a_subscription_joins_the_live_stream_and_leaves_it() {
    check(
        "
        > subscribe 1 a
          join 1 anew
        > subscribe 2 b
        > joined at 1
          subscribed 1
          join 2
        > log a b
        > joined at 1
          subscribed 2
        > live 1
          segment 1 from 10 for 1,2
        > unsubscribe 1
          leave 1
        > log b
        > live 2
          segment 2 from 12 for 2
        > is over
          unsubscribed 1
        > unsubscribe 3
          unsubscribed 3
        ",
    );
}

#[test]
fn a_replay_reads_the_log_and_then_joins() {
    check(
        "
        > log a b
        > log a c
        > log c d
        > subscribe 1 a after 10
          start after 10
        > start 1 11
          subscribed 1
          read 1
        > read 1 2
          segment 1 from 11 for 1
          segment 2 from 11 for 1
          read 3
        > log a
        > read unavailable
          read 3 later
        > read 3
          read 4
        > read 4
          segment 4 from 11 for 1
          join 1 at 5 anew
        > joined not 6
          join 1 at 5 anew
        > log a
        > joined at 5
        > live 5
          segment 5 from 17 for 1
        ",
    );
}

#[test]
fn what_can_not_begin_is_refused() {
    check(
        "
        > subscribe 1 a after 3
          start after 3
        > start gone
          subscribed 1 not: the log is kept only from position 1 on
        > full
        > subscribe 2 a
          subscribed 2 not: this node has no room for more subscriptions; connect to another one
        ",
    );
}

#[test]
fn a_snapshot_ends_at_the_tail_of_its_start() {
    check(
        "
        > log a b
        > subscribe 1 a snapshot
          start after 0
        > subscribe 2 a snapshot retained
        > start 1 10
          subscribed 1
          subscribed 2
          ended 2
          read 1
        > log a
        > read 1 2
          segment 1 from 10 for 1
          ended 1
        ",
    );
}

#[test]
fn who_is_slow_falls_behind_and_comes_back() {
    check(
        "
        > subscribe 1 a
          join 1 anew
        > joined at 1
          subscribed 1
        > log a b
        > log a
        > log a
        > room off
        > live 1
        > live 2 forgotten
        > left 3
        > room on
          segment 1 from 10 for 1
          read 2
        > read 2 3
          segment 2 from 0 for 1
          segment 3 from 0 for 1
          join 1 at 4 anew
        > joined at 4
        > left 4
          join 1 at 4 anew
        > joined at 4
        ",
    );
}

/// It saw once more what it had read before it joined, where a segment was forgotten that had stood in the mailbox for others.
#[test]
fn what_joined_later_is_not_shown_anything_again() {
    check(
        "
        > subscribe 1 a
          join 1 anew
        > joined at 1
          subscribed 1
        > log a
        > log a
        > subscribe 2 a after 9
          start after 9
        > start 1 10
          subscribed 2
          read 1
        > read 1 2
          segment 1 from 10 for 2
          segment 2 from 10 for 2
          join 2 at 3
        > room off
        > live 1 forgotten
        > joined at 3
        > room on
          read 1
        > read 1 2
          segment 1 from 0 for 1
          segment 2 from 0 for 1
          join 1 at 3 anew
        > joined at 3
          join 2 at 3
        > joined at 3
        ",
    );
}

#[test]
fn replays_and_the_live_stream_take_turns() {
    check(
        "
        > log a
        > log a
        > log a
        > subscribe 1 a
          join 1 anew
        > joined at 4
          subscribed 1
        > subscribe 2 a after 9
          start after 9
        > room off
        > start 1 10
          subscribed 2
        > log a
        > log a
        > live 4
        > live 5
        > room on
          segment 4 from 13 for 1
          read 1
          segment 5 from 14 for 1
        > read 1 2 3 4 5
          segment 1 from 10 for 2
          segment 2 from 10 for 2
          segment 3 from 10 for 2
          segment 4 from 10 for 2
          segment 5 from 10 for 2
          join 2 at 6
        > joined at 6
        ",
    );
}

/// It asked to join again and again, for as long as nothing was published, where the dispatcher had put it out of the live
/// stream and it never came to hear of that.
#[test]
fn a_join_that_fails_leaves_the_live_stream_its_turn() {
    for replay_next in [false, true] {
        let mut bench = Bench::new();
        bench.node.log(&["a"]);
        for line in ["subscribe 1 a", "joined at 2", "subscribe 2 a after 10"] {
            bench.input(&line.split(' ').collect::<Vec<_>>());
            bench.outputs();
        }
        bench.input(&["start", "2", "11"]);
        bench.reader.replay_next = replay_next;
        bench.node.live.push_back(Live::Left(Slot(2)));
        let mut joins = 0;
        while bench.reader.has_mailbox() && joins < 10 {
            bench.outputs();
            bench.input(&["joined", "not", "2"]);
            joins += 1;
        }
        assert!(joins <= 2, "it does not listen");
    }
}

#[test]
fn a_segment_that_was_let_go_of_is_read_again() {
    check(
        "
        > log a
        > log a
        > again 1
          read 1
        > again 1
        > read unavailable
          read 1 later
        > read 1 2
          back 1
        > again 2
          read 2
        > read gone
          gone
        ",
    );
}

/// What an earlier session had on the way is read again first, then all from where that one was.
#[test]
fn a_session_resumes_at_its_cursor() {
    check(
        "
        > log a b
        > log c d
        > log a b
        > log a b
        > resume 14 10 1:a:10 2:b:10
          start at 10
        > start unavailable
          pause
        > is over
          start at 10
        > start 1 10
          read 1
        > read 1
          segment 1 from 10 for 1,2 at cursor
          start at 14
        > start 3 14
          read 3
        > read 3 4
          segment 3 from 14 for 1,2 at cursor
          segment 4 from 14 for 1,2 at cursor
          join 1,2 at 5 anew
        > joined at 5
        > keep 3:c:18
          noted true
          join 1,2,3 at 5 anew
        > log c a
        > joined at 5
        > live 5
          segment 5 from 18 for 3,1 at cursor
        ",
    );
}

#[test]
fn a_node_that_ends_says_so() {
    check(
        "
        > subscribe 1 a
          join 1 anew
        > is stopped
          stopped
        ",
    );
}

//! Random schedules of a reader, a publisher, their sockets and the order.

use proptest::prelude::*;

use super::bench::Bench;

#[derive(Clone, Copy, Debug)]
enum Doing {
    /// Other sessions publish this many events.
    Log(usize),
    /// The other client publishes this many events, some with a condition.
    Publish(usize, bool),
    Order,
    /// The reader's socket takes this many bytes.
    Take(usize),
    /// The publisher's socket takes this many bytes.
    TakeAnswers(usize),
    Pass(u64),
}

fn schedule() -> impl Strategy<Value = Vec<Doing>> {
    let doing = prop_oneof![
        3 => (1_usize..4).prop_map(Doing::Log),
        1 => Just(Doing::Log(90)),
        3 => (1_usize..4, any::<bool>()).prop_map(|(count, when)| Doing::Publish(count, when)),
        3 => Just(Doing::Order),
        6 => (1_usize..200).prop_map(Doing::Take),
        2 => (1_usize..200).prop_map(Doing::TakeAnswers),
        1 => (1_u64..900).prop_map(Doing::Pass),
    ];
    proptest::collection::vec(doing, 1..60)
}

/// How many bytes a socket holds.
const LIMIT: usize = 300;

/// The state of a schedule, and the expected totals.
struct World {
    bench: Bench,
    published: usize,
    /// Events that the reader is to see.
    events: usize,
    /// Publishes without a position so far.
    ordering: usize,
}

impl World {
    fn new() -> Self {
        let mut bench = Bench::new(LIMIT);
        for line in ["1 says open", "2 says open", "order", "1 says subscribe 1 a", "1 takes 999"] {
            bench.input(&line.split(' ').collect::<Vec<_>>());
        }
        bench.input(&["2", "takes", "999"]);
        Self { bench, published: 0, events: 0, ordering: 0 }
    }

    fn act(&mut self, doing: Doing) {
        match doing {
            Doing::Log(count) => {
                (0..count).for_each(|_| self.bench.input(&["log", "a"]));
                self.events += count;
            }
            Doing::Publish(count, when) => {
                let words = ["2", "says", "publish", "a", "when"];
                let words = if when { &words[..] } else { &words[..4] };
                (0..count).for_each(|_| self.bench.input(words));
                self.published += count;
                self.ordering += count;
            }
            Doing::Order => self.bench.input(&["order"]),
            Doing::Take(bytes) => self.bench.input(&["1", "takes", &bytes.to_string()]),
            Doing::TakeAnswers(bytes) => self.bench.input(&["2", "takes", &bytes.to_string()]),
            Doing::Pass(time) => self.bench.input(&["after", &time.to_string()]),
        }
    }

    /// The positions of the events that the reader saw.
    fn seen(&self) -> Vec<u64> {
        let events = self.bench.told(1).iter().filter_map(|text| text.strip_prefix("event "));
        events.filter_map(|event| event.split(' ').next()?.parse().ok()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the order of inputs, answers, events and drains: the reader gets each event once and in order, nothing is
    /// withheld that it has room for, and the publisher gets an answer to each of its publishes.
    #[test]
    fn any_schedule_comes_to_the_same(schedule in schedule()) {
        let mut world = World::new();
        for doing in schedule {
            world.act(doing);
            if matches!(doing, Doing::Take(_)) && world.bench.has_all(1) {
                // It has taken everything, so nothing may be left to deliver.
                let seen = world.seen().len();
                prop_assert!(seen >= world.events, "{seen} of {}", world.events);
            }
        }
        while !(world.bench.has_all(1) && world.bench.has_all(2)) || world.ordering > 0 {
            world.ordering = 0;
            for input in [["1", "takes", "999999"], ["2", "takes", "999999"]] {
                world.bench.input(&input);
            }
            world.bench.input(&["order"]);
        }
        let (first, events) = (3, world.events + world.published);
        let seen = world.seen();
        prop_assert_eq!(seen.len(), events);
        prop_assert!(seen.iter().copied().eq(first..first + events as u64), "{:?}", seen);
        let answers = world.bench.told(2).iter().filter_map(|text| text.strip_prefix("stored "));
        let answered: usize = answers
            .filter_map(|text| text.split(['+', ' ']).nth(1)?.parse::<usize>().ok())
            .sum();
        prop_assert_eq!(answered, world.published);
    }
}

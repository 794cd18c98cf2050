//! A register that clients write, compare and set, and read: the answers have to be explained by one register that is used by
//! one client at a time.
//!
//! Invariant: an operation takes effect once between its call and its answer; an operation without an answer, at any time after
//! its call or never. No value is written twice, so that each read identifies its write.
//!
//! Deliberately absent: clients and clocks. The caller records calls and answers in the order in which they happen.

use std::collections::BTreeMap;

use anyhow::{ensure, Context, Result};
use todc_utils::{Action, History as Actions, Specification, WGLChecker};

/// Most operations of one history: finding an order is a search.
pub const OPERATIONS: usize = 400;

/// A client's request to the register, which is empty at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Read,
    Write(u64),
    /// Write the second value if the first is there.
    Swap(Option<u64>, u64),
}

/// The answer that a client got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// What was read.
    Value(Option<u64>),
    Written,
    /// Another value was there.
    Refused,
}

/// Names a call of one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(usize);

/// What happened to one register, as its clients saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    calls: Vec<Call>,
    answers: Vec<Option<Answer>>,
    /// Calls, and with `true` their answers, in order.
    order: Vec<(usize, bool)>,
}

impl History {
    /// Records a call before its request is sent.
    pub fn call(&mut self, call: Call) -> Ticket {
        self.order.push((self.calls.len(), false));
        self.calls.push(call);
        self.answers.push(None);
        Ticket(self.calls.len() - 1)
    }

    /// Records the answer to a call.
    pub fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.answers[ticket.0] = Some(answer);
        self.order.push((ticket.0, true));
    }

    /// How many calls there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// How many of them were answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answers.iter().flatten().count()
    }

    /// Searches for an order of all operations that explains all answers.
    ///
    /// # Errors
    /// If there is none, or the history is too long to search.
    pub fn check(&self) -> Result<()> {
        ensure!(self.len() <= OPERATIONS, "{} operations are too many to judge", self.len());
        let mut actions = Vec::new();
        for (at, answered) in &self.order {
            let Some(done) = self.done(*at) else { continue };
            let action = if *answered { Action::Response(done) } else { Action::Call(done) };
            actions.push((*at, action));
        }
        // An operation without an answer may take effect after everything else, which is as good as never.
        let open = (0..self.len()).filter(|at| self.answers[*at].is_none());
        actions.extend(open.filter_map(|at| Some((at, Action::Response(self.done(at)?)))));
        // The checker does not accept empty histories.
        let fits = actions.is_empty()
            || WGLChecker::<Register>::is_linearizable(Actions::from_actions(actions));
        ensure!(fits, "no order of these operations explains what was told:\n{}", self.told());
        Ok(())
    }

    /// What is known of an operation; `None` if it can't have had any visible effect.
    fn done(&self, at: usize) -> Option<Done> {
        match (self.calls[at], self.answers[at]) {
            (Call::Read, Some(Answer::Value(value))) => Some(Done::Read(value)),
            (Call::Read, _) => None,
            (Call::Write(value), _) => Some(Done::Write(value)),
            (Call::Swap(from, to), Some(Answer::Written)) => Some(Done::Swapped(from, to)),
            (Call::Swap(from, _), Some(_)) => Some(Done::Refused(from)),
            (Call::Swap(from, to), None) => Some(Done::Maybe(from, to)),
        }
    }

    fn told(&self) -> String {
        let line = |(at, answered): &(usize, bool)| match (answered, self.answers[*at]) {
            (true, Some(answer)) => format!("{at}: {answer:?}"),
            _ => format!("{at}: {:?}?", self.calls[*at]),
        };
        self.order.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Several registers, each used for a while, and what their clients know together.
#[derive(Debug, Default)]
pub struct Registers {
    histories: BTreeMap<u64, History>,
    seen: BTreeMap<u64, u64>,
    values: u64,
    newest: u64,
}

impl Registers {
    /// Records a call before its request is sent.
    pub fn call(&mut self, register: u64, call: Call) -> Ticket {
        self.histories.entry(register).or_default().call(call)
    }

    /// Records the answer to a call.
    pub fn answer(&mut self, register: u64, ticket: Ticket, answer: Answer) {
        let history = self.histories.entry(register).or_default();
        let there = match (history.calls[ticket.0], answer) {
            (_, Answer::Value(value)) => value,
            (Call::Write(value) | Call::Swap(_, value), Answer::Written) => Some(value),
            (_, Answer::Written | Answer::Refused) => None,
        };
        history.answer(ticket, answer);
        if let Some(there) = there {
            self.seen.insert(register, there);
        }
    }

    /// A client learned a position: that of its write, of what it read, or of a marker.
    pub fn told(&mut self, position: u64) {
        self.newest = self.newest.max(position);
    }

    /// The newest position that any client learned. A read after it sees everything that any client knows to be
    /// written.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The value last seen in a register: most likely its current one.
    #[must_use]
    pub fn seen(&self, register: u64) -> Option<u64> {
        self.seen.get(&register).copied()
    }

    /// A value that has not been written yet.
    pub fn fresh(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    /// How many operations were answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.histories.values().map(History::answered).sum()
    }

    /// Whether each history can be explained.
    ///
    /// # Errors
    /// The first that can't.
    pub fn check(&self) -> Result<()> {
        self.histories.iter().try_for_each(|(register, history)| {
            history.check().with_context(|| format!("register {register}"))
        })
    }
}

/// An operation with its outcome.
#[derive(Debug, Clone, Copy)]
enum Done {
    Read(Option<u64>),
    Write(u64),
    Swapped(Option<u64>, u64),
    Refused(Option<u64>),
    /// Swapped or refused, whichever fits.
    Maybe(Option<u64>, u64),
}

struct Register;

impl Specification for Register {
    type State = Option<u64>;
    type Operation = Done;

    fn init() -> Self::State {
        None
    }

    fn apply(operation: &Done, state: &Self::State) -> (bool, Self::State) {
        match *operation {
            Done::Read(value) => (value == *state, *state),
            Done::Write(value) => (true, Some(value)),
            Done::Swapped(from, to) => (from == *state, Some(to)),
            Done::Refused(from) => (from != *state, *state),
            Done::Maybe(from, to) => (true, if from == *state { Some(to) } else { *state }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Answer::{Refused, Value, Written};
    use super::Call::{Read, Swap, Write};
    use super::*;

    /// Calls and answers in order: an answer names its call by its index.
    enum Line {
        Asks(Call),
        Told(usize, Answer),
    }
    use Line::{Asks, Told};

    fn judge(lines: &[Line]) -> Result<()> {
        let mut history = History::default();
        let mut tickets = BTreeMap::new();
        for (at, line) in lines.iter().enumerate() {
            match line {
                Asks(call) => drop(tickets.insert(at, history.call(*call))),
                Told(asked, answer) => history.answer(tickets[asked], *answer),
            }
        }
        history.check()
    }

    #[test]
    fn what_one_register_would_tell_passes() {
        let told = |call, answer| [Asks(call), Told(0, answer)];
        judge(&[]).unwrap();
        judge(&told(Read, Value(None))).unwrap();
        judge(&told(Swap(None, 1), Written)).unwrap();
        judge(&told(Swap(Some(1), 2), Refused)).unwrap();
        // A write may be seen before its answer comes, and one without an answer at any time.
        judge(&[Asks(Write(1)), Asks(Read), Told(1, Value(Some(1))), Told(0, Written)]).unwrap();
        judge(&[
            Asks(Write(1)),
            Asks(Read),
            Told(1, Value(None)),
            Asks(Read),
            Told(3, Value(Some(1))),
        ])
        .unwrap();
        judge(&[Asks(Swap(None, 1)), Asks(Swap(None, 2)), Told(1, Refused)]).unwrap();
    }

    #[test]
    fn what_it_would_not_tell_is_caught() {
        let failures = [
            ("a value from nowhere", judge(&[Asks(Read), Told(0, Value(Some(1)))])),
            (
                "a stale read",
                judge(&[Asks(Write(1)), Told(0, Written), Asks(Read), Told(2, Value(None))]),
            ),
            (
                "a read that goes back",
                judge(&[
                    Asks(Write(1)),
                    Asks(Read),
                    Told(1, Value(Some(1))),
                    Asks(Read),
                    Told(3, Value(None)),
                    Told(0, Written),
                ]),
            ),
            (
                "two swaps of one value",
                judge(&[
                    Asks(Swap(None, 1)),
                    Asks(Swap(None, 2)),
                    Told(0, Written),
                    Told(1, Written),
                ]),
            ),
            ("a refusal without a reason", judge(&[Asks(Swap(None, 1)), Told(0, Refused)])),
            (
                "a lost write",
                judge(&[
                    Asks(Write(1)),
                    Told(0, Written),
                    Asks(Swap(Some(1), 2)),
                    Told(2, Refused),
                ]),
            ),
        ];
        for (name, failure) in failures {
            assert!(failure.is_err(), "{name} was not seen");
        }
    }
}

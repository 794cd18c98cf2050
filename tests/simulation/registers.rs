//! Registers: clients that write, compare and set, and read retained values, as if each were one register.
//!
//! Checked here: their answers can be explained by one register per topic (`vulpes_jepsen::register`). A read goes to another
//! node than the writes. It reads after the position of a marker that its client publishes first, or after the newest position
//! that any client got, which has to suffice as well.
//!
//! Invariant: calls and answers are recorded as they happen. A refused client knows that there is a newer value, but not its
//! position. A marker gives it a position that is newer still.
//!
//! Deliberately absent: what the log shows (`state`).

use std::io;
use std::time::Duration;

use serde_json::{json, Value as Json};
use vulpes_jepsen::register::{Answer, Call};
use vulpes_raft::ids::Position;

use crate::chance::Chance;
use crate::connection::{Outcome, Said};
use crate::plan::Plan;
use crate::record::{Phase, Shared};
use crate::wamp::{Wamp, ERROR, EVENT, PUBLISH, SUBSCRIBE, SUBSCRIBED, UNSUBSCRIBED};

/// The common prefix of these clients' shared values.
pub(crate) const BELOW: &str = "$state";

/// Number of clients.
pub(crate) const CLIENTS: u64 = 3;

/// Their seeds start here.
const CHANCES: u64 = 400;

/// How long each register is used, in milliseconds: histories have to stay short enough to be judged.
const SPAN: u64 = 400;

/// Time limit of all steps of one operation.
const PATIENCE: Duration = Duration::from_millis(2_000);

/// Uses the registers until the rest phase.
pub(crate) async fn client(plan: Plan, client: u64, shared: Shared) {
    let mut chance = plan.chance(CHANCES + client);
    let entries = plan.shape.entries();
    while shared.borrow().phase == Phase::Work {
        let (one, other) = (chance.pick(&entries), chance.pick(&entries));
        let mut using = match Using::open(one, other, client, &shared).await {
            Ok(using) => using,
            Err(error) => {
                shared.borrow_mut().trace(|| format!("registrar {client} is not let in: {error}"));
                pause(&mut chance, 100).await;
                continue;
            }
        };
        let end = using.run(&mut chance).await;
        shared
            .borrow_mut()
            .trace(|| format!("registrar {client} leaves {one} and {other}: {end:?}"));
        pause(&mut chance, 100).await;
    }
}

async fn pause(chance: &mut Chance, most: u64) {
    tokio::time::sleep(Duration::from_millis(chance.between(1, most))).await;
}

async fn patiently<T>(work: impl std::future::Future<Output = io::Result<T>>) -> io::Result<T> {
    let work = tokio::time::timeout(PATIENCE, work).await;
    work.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn failed(reason: impl ToString) -> io::Error {
    io::Error::other(reason.to_string())
}

/// One client's sessions: it writes in one and reads in the other, usually at another node.
struct Using<'a> {
    client: u64,
    shared: &'a Shared,
    writing: Wamp,
    reading: Wamp,
    request: u64,
}

impl<'a> Using<'a> {
    async fn open(one: u64, other: u64, client: u64, shared: &'a Shared) -> io::Result<Self> {
        let writing = patiently(Wamp::open(&crate::node::name(one))).await?;
        let reading = patiently(Wamp::open(&crate::node::name(other))).await?;
        Ok(Self { client, shared, writing, reading, request: 0 })
    }

    async fn run(&mut self, chance: &mut Chance) -> io::Result<()> {
        // A value that is bound to this session is replaced when the session ends.
        let will = format!("{} is gone", self.shared.borrow_mut().registers.fresh());
        let bound = json!({ "acknowledge": true, "retain": true, "will": will });
        let topic = format!("{BELOW}.client{}", self.client);
        let here = self.shared.borrow_mut().registers.fresh();
        self.put(&topic, json!(here.to_string()), bound).await?;
        patiently(self.outcome()).await?;
        while self.shared.borrow().phase == Phase::Work && !chance.one_in(30) {
            let register = self.shared.borrow().now / SPAN;
            match chance.below(8) {
                0..=2 => patiently(self.read(register, chance)).await?,
                3 | 4 => patiently(self.write(register)).await?,
                5 | 6 => patiently(self.swap(register, 1)).await?,
                // Two swaps sent together usually share a segment; at most one of them can fit.
                _ => patiently(self.swap(register, 2)).await?,
            }
            pause(chance, 20).await;
        }
        Ok(())
    }

    async fn put(&mut self, topic: &str, value: Json, options: Json) -> io::Result<()> {
        self.request += 1;
        self.writing.send(&json!([PUBLISH, self.request, options, topic, [value]])).await
    }

    /// The next answer to a publish; `None` if it was refused. An unknown outcome, or a publish that was not stored, ends the
    /// session.
    async fn outcome(&mut self) -> io::Result<Option<Position>> {
        loop {
            match self.writing.next().await? {
                Said::Answer { outcome: Outcome::Stored(Some(position)), .. } => {
                    return Ok(Some(position));
                }
                Said::Answer { outcome: Outcome::Refused, .. } => return Ok(None),
                Said::Alive => {}
                other => return Err(failed(format!("not published: {other:?}"))),
            }
        }
    }

    /// Publishes something that changes nothing, to learn a position that is newer than all that any client got.
    async fn mark(&mut self) -> io::Result<Position> {
        let topic = format!("$mark.{}", self.client);
        self.put(&topic, json!(null), json!({ "acknowledge": true })).await?;
        let position = self.outcome().await?.ok_or_else(|| failed("a marker was refused"))?;
        self.shared.borrow_mut().registers.told(position.0);
        Ok(position)
    }

    async fn write(&mut self, register: u64) -> io::Result<()> {
        let (ticket, value) = {
            let registers = &mut self.shared.borrow_mut().registers;
            let value = registers.fresh();
            (registers.call(register, Call::Write(value)), value)
        };
        let options = json!({ "acknowledge": true, "retain": true });
        self.put(&topic(register), json!(value.to_string()), options).await?;
        let position = self.outcome().await?.ok_or_else(|| failed("a write was refused"))?;
        let registers = &mut self.shared.borrow_mut().registers;
        registers.told(position.0);
        registers.answer(register, ticket, Answer::Written);
        Ok(())
    }

    /// Swaps the value that was last seen for another one, or for one of several.
    async fn swap(&mut self, register: u64, times: u64) -> io::Result<()> {
        let from = self.shared.borrow().registers.seen(register);
        let when = from.map(|value| value.to_string());
        let options = json!({ "acknowledge": true, "retain": true, "when": when });
        let mut asked = Vec::new();
        for _ in 0..times {
            let (ticket, to) = {
                let registers = &mut self.shared.borrow_mut().registers;
                let to = registers.fresh();
                (registers.call(register, Call::Swap(from, to)), to)
            };
            asked.push(ticket);
            self.put(&topic(register), json!(to.to_string()), options.clone()).await?;
        }
        let mut told = Vec::new();
        for ticket in asked {
            told.push((ticket, self.outcome().await?));
        }
        if told.iter().any(|(_, position)| position.is_none()) {
            self.mark().await?;
        }
        let registers = &mut self.shared.borrow_mut().registers;
        for (ticket, position) in told {
            let answer = match position {
                Some(position) => {
                    registers.told(position.0);
                    Answer::Written
                }
                None => Answer::Refused,
            };
            registers.answer(register, ticket, answer);
        }
        Ok(())
    }

    async fn read(&mut self, register: u64, chance: &mut Chance) -> io::Result<()> {
        let ticket = self.shared.borrow_mut().registers.call(register, Call::Read);
        let after = match chance.one_in(2) {
            true => self.mark().await?.0,
            false => self.shared.borrow().registers.newest(),
        };
        self.request += 1;
        let options = json!({ "retainedState": true, "snapshot": true, "after": after });
        self.reading.send(&json!([SUBSCRIBE, self.request, options, topic(register)])).await?;
        let mut value = None;
        loop {
            let Some(message) = self.reading.message().await? else { continue };
            match message[0].as_u64() {
                Some(SUBSCRIBED) => {}
                Some(EVENT) => {
                    let read = message[4][0].as_str().and_then(|text| text.parse::<u64>().ok());
                    value = Some(read.ok_or_else(|| failed(&message))?);
                    let position = message[2].as_u64().ok_or_else(|| failed(&message))?;
                    self.shared.borrow_mut().registers.told(position);
                }
                Some(UNSUBSCRIBED) => break,
                Some(ERROR) => return Err(failed(format!("not read: {message}"))),
                _ => return Err(failed(format!("unexpected: {message}"))),
            }
        }
        let registers = &mut self.shared.borrow_mut().registers;
        registers.answer(register, ticket, Answer::Value(value));
        Ok(())
    }
}

fn topic(register: u64) -> String {
    format!("{BELOW}.register{register}")
}

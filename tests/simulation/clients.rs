//! The simulation's clients: publishers and subscribers that connect to another node when theirs fails.
//!
//! Invariant: a publish is never repeated; without an answer its outcome stays unknown. A subscriber continues after
//! the last event it has seen, at any node.
//!
//! Deliberately absent: checks. Everything that clients receive goes to the record.

use std::io;
use std::time::Duration;

use vulpes_raft::ids::Position;

use crate::chance::Chance;
use crate::connection::{Connection, Gone, Outcome, Protocol, Said};
use crate::plan::Plan;
use crate::record::{Phase, Shared};
use crate::value::Value;

/// How long a publisher waits for an answer before it connects to another node.
const ANSWER: Duration = Duration::from_millis(1_500);

/// How long a subscriber hears nothing before it checks whether its node is alive, and then again before it leaves.
const SILENCE: Duration = Duration::from_millis(400);

/// How many publishers and subscribers there are.
pub(crate) const PUBLISHERS: u64 = 4;
pub(crate) const READERS: u64 = 3;

/// Numbers of the clients that ask a node to serve again in the rest phase start here.
const PROBES: u64 = 100;

async fn pause(chance: &mut Chance, first: u64, last: u64) {
    tokio::time::sleep(Duration::from_millis(chance.between(first, last))).await;
}

/// Publishes until the rest phase.
pub(crate) async fn publisher(plan: Plan, client: u64, shared: Shared) {
    let mut chance = plan.chance(client);
    let entries = plan.shape.entries();
    let protocol = if client.is_multiple_of(2) { Protocol::Wamp } else { Protocol::Mqtt };
    let mut session = 0;
    while shared.borrow().phase == Phase::Work {
        session += 1;
        let node = chance.pick(&entries);
        let mut publishing = Publishing { plan: &plan, shared: &shared, client, session, next: 0 };
        let end = match Connection::open(protocol, node, &format!("publisher-{client}")).await {
            Ok(connection) => publishing.run(connection, &mut chance).await,
            Err(error) => Err(error),
        };
        shared.borrow_mut().trace(|| {
            format!("publisher {client} leaves node {node} after session {session}: {end:?}")
        });
        pause(&mut chance, 5, 100).await;
    }
}

/// One session of a publisher.
struct Publishing<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    client: u64,
    session: u64,
    next: u64,
}

impl Publishing<'_> {
    async fn run(&mut self, mut connection: Connection, chance: &mut Chance) -> io::Result<()> {
        loop {
            let burst = chance.between(1, self.plan.window);
            for _ in 0..burst {
                self.publish(&mut connection, chance).await?;
                if chance.one_in(3) {
                    pause(chance, 0, 4).await;
                }
            }
            // Some leave without waiting for their answers.
            if chance.one_in(20) {
                return Ok(());
            }
            for _ in 0..burst {
                self.answer(&mut connection).await?;
            }
            if chance.one_in(12) || self.shared.borrow().phase != Phase::Work {
                return Ok(());
            }
            pause(chance, 0, self.plan.pause).await;
        }
    }

    async fn publish(
        &mut self,
        connection: &mut Connection,
        chance: &mut Chance,
    ) -> io::Result<()> {
        let value = Value { client: self.client, session: self.session, sequence: self.next };
        self.next += 1;
        self.shared.borrow_mut().attempt(value);
        let padding = if chance.one_in(50) { 5_000 } else { chance.below(100) };
        connection.publish(self.client, value.sequence, &value.text(padding)).await
    }

    /// Waits for the next answer; returns whether it says that the value is stored.
    async fn answer(&mut self, connection: &mut Connection) -> io::Result<bool> {
        match connection.next(ANSWER).await? {
            Said::Answer { number: sequence, outcome } => {
                let value = Value { client: self.client, session: self.session, sequence };
                let mut record = self.shared.borrow_mut();
                match outcome {
                    Outcome::Stored(position) => record.acknowledged(value, position),
                    Outcome::NotStored => record.refused(value),
                    Outcome::Refused => {
                        record.check(Err(format!("{value} has no condition, and did not meet it")));
                    }
                    Outcome::Unknown => record.trace(|| format!("{value} has no known outcome")),
                }
                Ok(matches!(outcome, Outcome::Stored(_)))
            }
            other => Err(io::Error::other(format!("a publisher got {other:?}"))),
        }
    }
}

/// In the rest phase, publishes at one node until that is acknowledged.
pub(crate) async fn probe(plan: Plan, node: u64, shared: Shared) {
    while shared.borrow().phase == Phase::Work {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let client = PROBES + node;
    let mut chance = plan.chance(client);
    let protocol = if chance.one_in(2) { Protocol::Wamp } else { Protocol::Mqtt };
    for session in 1.. {
        let mut publishing = Publishing { plan: &plan, shared: &shared, client, session, next: 0 };
        let asking = async {
            let mut connection = Connection::open(protocol, node, &format!("probe-{node}")).await?;
            publishing.publish(&mut connection, &mut chance).await?;
            publishing.answer(&mut connection).await
        };
        match asking.await {
            Ok(true) => return shared.borrow_mut().served(node),
            other => {
                shared.borrow_mut().trace(|| format!("node {node} does not serve: {other:?}"));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Reads everything, for the whole run.
pub(crate) async fn reader(plan: Plan, reader: u64, shared: Shared) {
    let mut chance = plan.chance(50 + reader);
    let entries = plan.shape.entries();
    let protocol = if reader.is_multiple_of(2) { Protocol::Wamp } else { Protocol::Mqtt };
    loop {
        let node = chance.pick(&entries);
        if (plan.log_size.is_some() || plan.age.is_some())
            && shared.borrow().read_by(reader) == Position(0)
        {
            // Position 0 would mean wherever the log begins by then.
            shared.borrow_mut().skip(reader, Position(2));
        }
        let end = read(protocol, node, reader, &shared, &mut chance).await;
        shared.borrow_mut().trace(|| format!("reader {reader} leaves node {node}: {end:?}"));
        pause(&mut chance, 5, 100).await;
    }
}

async fn read(
    protocol: Protocol,
    node: u64,
    reader: u64,
    shared: &Shared,
    chance: &mut Chance,
) -> io::Result<()> {
    let mut connection = Connection::open(protocol, node, &format!("reader-{reader}")).await?;
    let (after, id) = place(shared, reader, chance);
    if let Err(error) = connection.subscribe(after, id).await {
        gone(shared, reader, &error);
        return Err(error);
    }
    let mut asked = false;
    loop {
        match connection.next(SILENCE).await {
            Ok(Said::Event { text, place }) => {
                asked = false;
                let mut record = shared.borrow_mut();
                match text.parse() {
                    Ok(value) => record.delivered(reader, value, place),
                    Err(reason) => record.check(Err(format!("reader {reader}: {reason}"))),
                }
            }
            Ok(Said::Alive) => asked = false,
            Ok(other) => return Err(io::Error::other(format!("a reader got {other:?}"))),
            Err(error) if error.kind() == io::ErrorKind::TimedOut && !asked => {
                asked = true;
                connection.ping().await?;
            }
            Err(error) => return Err(error),
        }
        // Some leave without a reason.
        if chance.one_in(200) {
            return Ok(());
        }
    }
}

/// Lets a subscriber continue where the log begins, if that is why it was refused. MQTT 3.1.1 does not say.
fn gone(shared: &Shared, reader: u64, error: &io::Error) {
    let mut record = shared.borrow_mut();
    let told = error.get_ref().and_then(|error| error.downcast_ref::<Gone>());
    match told {
        Some(Gone { oldest: Some(oldest) }) => record.gone(reader, *oldest),
        Some(Gone { oldest: None }) => {
            let head = record.log.head().position;
            if head > record.read_by(reader).next() {
                record.skip(reader, head);
            }
        }
        None => {}
    }
}

/// Where a subscriber continues: after a position, or after an event id.
fn place(shared: &Shared, reader: u64, chance: &mut Chance) -> (Position, Option<String>) {
    let record = shared.borrow();
    let after = record.read_by(reader);
    let id = record.log.event_id(after).map(|id| id.to_string());
    (after, id.filter(|_| chance.one_in(2)))
}

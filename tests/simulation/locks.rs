//! Lockers: clients that take turns with one lock, and the rules for it.
//!
//! Checked here: in the log, the lock is only taken while it is free, whichever client freed it; a grant that a client received
//! is in the log with that token, and each token is granted once.
//!
//! Invariant: what the log shows about the lock is checked by its own order alone, without the product's state.
//!
//! Deliberately absent: real time. A client that was cut off may believe that it still has a lock that has moved on.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use vulpes::payload;
use vulpes::types::event::Payload;
use vulpes::types::value::Value;
use vulpes_raft::ids::Position;

use crate::chance::Chance;
use crate::plan::Plan;
use crate::record::{Phase, Shared};
use crate::wamp::Wamp;

/// The lock's topic, which subscribers of everything don't get.
pub(crate) const TOPIC: &str = "$lock";

/// Number of lockers.
pub(crate) const LOCKERS: u64 = 3;

/// Their seeds start here.
const CHANCES: u64 = 200;

/// How long a locker waits for the lock before it connects to another node.
const PATIENCE: Duration = Duration::from_millis(4_000);

/// What the log shows about the lock.
#[derive(Default)]
pub(crate) struct LockLog {
    holder: Option<Position>,
    /// Which locker took it, by token.
    taken: BTreeMap<Position, u64>,
}

impl LockLog {
    /// The next change of the lock's topic.
    pub(crate) fn shown(&mut self, position: Position, payload: &Payload) -> Result<(), String> {
        match (payload::value(payload), self.holder) {
            (Value::Null, _) => self.holder = None,
            (_, Some(holder)) => {
                return Err(format!("the lock is taken at {position}, and was taken at {holder}"));
            }
            (value, None) => {
                let Some(Value::Int(locker)) = value.get("locker") else {
                    return Err(format!("the lock has {value:?} at {position}"));
                };
                self.holder = Some(position);
                self.taken.insert(position, *locker as u64);
            }
        }
        Ok(())
    }

    /// Compares the lockers' grants with the log.
    pub(crate) fn verdict(&self, grants: &[(u64, Position)]) -> Result<(), String> {
        let mut told = BTreeMap::new();
        for (locker, token) in grants {
            if self.taken.get(token) != Some(locker) {
                let taken = self.taken.get(token);
                return Err(format!("locker {locker} was told {token}, which has {taken:?}"));
            }
            if let Some(first) = told.insert(token, locker) {
                return Err(format!("token {token} was told to {first} and to {locker}"));
            }
        }
        Ok(())
    }
}

/// Takes the lock again and again, at any node, until it has had it in the rest phase.
pub(crate) async fn locker(plan: Plan, locker: u64, shared: Shared) {
    let mut chance = plan.chance(CHANCES + locker);
    let entries = plan.shape.entries();
    loop {
        let node = chance.pick(&entries);
        let end = tokio::time::timeout(PATIENCE, take(node, locker, &shared, &mut chance)).await;
        let end = end.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        shared.borrow_mut().trace(|| format!("locker {locker} leaves node {node}: {end:?}"));
        if matches!(end, Ok(Phase::Rest)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(chance.between(5, 100))).await;
    }
}

/// Takes the lock once; returns in which phase it had it.
async fn take(node: u64, locker: u64, shared: &Shared, chance: &mut Chance) -> io::Result<Phase> {
    let mut wamp = Wamp::open(&crate::node::name(node)).await?;
    let token = wamp.lock(TOPIC, locker).await?;
    shared.borrow_mut().granted(locker, token);
    let phase = shared.borrow().phase;
    tokio::time::sleep(Duration::from_millis(chance.between(0, 40))).await;
    // Some die while holding it.
    if phase == Phase::Work && chance.one_in(4) {
        return Ok(phase);
    }
    wamp.free(TOPIC).await?;
    Ok(phase)
}

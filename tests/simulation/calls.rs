//! Callees and callers, and the rules for calls.
//!
//! Checked here: a call is answered at most once, with its own result or an error, and in bounded time while its
//! caller's node is there to answer; in the rest phase, every caller gets results again.
//!
//! Invariant: no two calls carry the same number, and a callee returns its arguments.
//!
//! Deliberately absent: whether a failed call was carried out, which no client can know.

use std::future::Future;
use std::io;
use std::time::Duration;

use serde_json::{json, Value as Json};

use crate::chance::Chance;
use crate::plan::Plan;
use crate::record::{Phase, Shared};
use crate::wamp::Wamp;

/// The number of callers and callees.
pub(crate) const CALLERS: u64 = 3;
pub(crate) const CALLEES: u64 = 2;

/// Their seeds start here.
const CALLER_CHANCES: u64 = 240;
const CALLEE_CHANCES: u64 = 250;

const PROCEDURE: &str = "sim.echo";

/// Time limit to open a session or register, before another node is tried.
const OPENING: Duration = Duration::from_millis(1_500);

/// How long a client hears nothing before it checks whether its node is alive, and then again before it leaves.
const SILENCE: Duration = Duration::from_millis(400);

/// Longest wait for an answer, in milliseconds. A callee that is cut off from its node is noticed by its silence,
/// which may take ten seconds; everything else is noticed much earlier.
const BOUND: u64 = 13_000;

/// Longest wait for an answer to a call with a timeout, in milliseconds, and its timeout.
const BOUND_WITH_TIMEOUT: u64 = 1_500;
const TIMEOUT: u64 = 1_000;

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The next message, or [`io::ErrorKind::TimedOut`] if the node does not answer any more.
async fn heard(wamp: &mut Wamp) -> io::Result<Option<Json>> {
    match within(SILENCE, wamp.message()).await {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            within(SILENCE, wamp.ping()).await?;
            within(SILENCE, wamp.message()).await
        }
        other => other,
    }
}

async fn pause(chance: &mut Chance, first: u64, last: u64) {
    tokio::time::sleep(Duration::from_millis(chance.between(first, last))).await;
}

/// Serves at any node, for the whole run.
pub(crate) async fn callee(plan: Plan, callee: u64, shared: Shared) {
    let mut chance = plan.chance(CALLEE_CHANCES + callee);
    let entries = plan.shape.entries();
    loop {
        let node = chance.pick(&entries);
        let end = serve(node, &shared, &mut chance).await;
        shared.borrow_mut().trace(|| format!("callee {callee} leaves node {node}: {end:?}"));
        pause(&mut chance, 5, 100).await;
    }
}

async fn serve(node: u64, shared: &Shared, chance: &mut Chance) -> io::Result<()> {
    let mut wamp = within(OPENING, Wamp::open(&crate::node::name(node))).await?;
    within(OPENING, wamp.register(PROCEDURE)).await?;
    loop {
        let Some(message) = heard(&mut wamp).await? else { continue };
        if message[0] != Wamp::INVOCATION {
            return Err(io::Error::other(format!("a callee got {message}")));
        }
        // Some are slow, and some die meanwhile.
        if chance.one_in(4) {
            pause(chance, 0, 40).await;
        }
        if chance.one_in(40) && shared.borrow().phase == Phase::Work {
            return Ok(());
        }
        within(SILENCE, wamp.answer(&message)).await?;
    }
}

/// Calls from any node, until it has had a result in the rest phase.
pub(crate) async fn caller(plan: Plan, caller: u64, shared: Shared) {
    let mut chance = plan.chance(CALLER_CHANCES + caller);
    let entries = plan.shape.entries();
    loop {
        let node = chance.pick(&entries);
        let end = call(node, caller, &shared, &mut chance).await;
        shared.borrow_mut().trace(|| format!("caller {caller} leaves node {node}: {end:?}"));
        if end.is_ok() {
            return;
        }
        pause(&mut chance, 5, 100).await;
    }
}

/// Makes calls at a node, one after the other; ends well once it had a result in the rest phase.
async fn call(node: u64, caller: u64, shared: &Shared, chance: &mut Chance) -> io::Result<()> {
    let mut wamp = within(OPENING, Wamp::open(&crate::node::name(node))).await?;
    for request in 1.. {
        let number = shared.borrow_mut().call();
        let timeout = chance.one_in(3).then_some(TIMEOUT);
        within(SILENCE, wamp.call(request, PROCEDURE, number, timeout)).await?;
        let began = shared.borrow().now;
        let bound = if timeout.is_some() { BOUND_WITH_TIMEOUT } else { BOUND };
        let outcome = loop {
            if let Some(message) = heard(&mut wamp).await? {
                // The calls end with the session.
                if message[0] == Wamp::GOODBYE {
                    return Err(io::Error::other(format!("its session ended: {message}")));
                }
                break answer(&message, request, number);
            }
            // Its node is there, but does not answer.
            let waited = shared.borrow().now - began;
            if waited > bound {
                break Err(format!("call {number} is not answered after {waited} ms"));
            }
        };
        let phase = shared.borrow().phase;
        shared.borrow_mut().called(caller, number, outcome);
        if phase == Phase::Rest && shared.borrow().has_called(caller) {
            return Ok(());
        }
        if chance.one_in(15) {
            return Err(io::Error::other("it goes elsewhere"));
        }
        pause(chance, 10, 200).await;
    }
    Ok(())
}

/// Whether an answer is a result, if it belongs to the call.
fn answer(message: &Json, request: u64, number: u64) -> Result<bool, String> {
    if message[0] == Wamp::RESULT && message[1] == request {
        return match message[3] == json!([number]) {
            true => Ok(true),
            false => Err(format!("call {number} got the result {}", message[3])),
        };
    }
    if message[0] == Wamp::ERROR && message[2] == request {
        return Ok(false);
    }
    Err(format!("the caller of {number}, request {request}, got {message}"))
}

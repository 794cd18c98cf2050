//! Callers and callees at different nodes. Callees come and go, some of them during calls.
//!
//! Invariant: each call has a unique argument, and callees answer with that plus one: a result identifies its call. A
//! callee records an invocation before it answers it.
//!
//! Deliberately absent: the options' spelling, progressive results and canceling, which the router's own tests have.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at, Instant};

use crate::check::UNANSWERED;
use crate::client::Client;
use crate::code::{CALL, ERROR, INVOCATION, REGISTER, REGISTERED, RESULT, YIELD};
use crate::dice::Dice;
use crate::journal::Open;
use crate::op::{Call, Invoked, Protocol};
use crate::stage::Stage;
use crate::wamp::Wamp;

const CALLERS: u64 = 4;
const CALLEES: u64 = 4;
const PROCEDURES: u64 = 3;

/// Most calls of one caller in flight.
const WINDOW: u64 = 8;

/// Longest pause between two calls of one caller, in milliseconds.
const PACE: u64 = 40;

/// Most calls of one session.
const SESSION: u64 = 200;

/// Longest session of a callee, in milliseconds.
const STAY: u64 = 6_000;

/// The most that a callee sometimes takes for a call, in milliseconds.
const WORK: u64 = 60;

/// How long a call may stay unanswered in an open session. The slowest answer is the error for a callee that has fallen silent
/// (fifteen seconds), after a pause of its node.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause after a node that does not admit a client.
const AGAIN: Duration = Duration::from_millis(100);

/// Errors after which it is certain that the call was not carried out.
const REFUSALS: [&str; 4] = [
    "wamp.error.no_such_procedure",
    "vulpes.error.unavailable",
    "vulpes.error.callee_busy",
    "vulpes.error.too_many_calls",
];

pub(super) fn start(stage: &Arc<Stage>, clients: &mut JoinSet<()>) {
    for number in 0..CALLEES {
        clients.spawn(callee(stage.clone(), format!("e{number}"), number));
    }
    let arguments = Arc::new(AtomicU64::new(1));
    for number in 0..CALLERS {
        let name = format!("r{number}");
        let dice = stage.dice(&name);
        clients.spawn(Caller { stage: stage.clone(), dice, arguments: arguments.clone() }.run());
    }
}

fn procedure(number: u64) -> String {
    format!("j.call.p{}", number % PROCEDURES)
}

async fn open(stage: &Stage, dice: &mut Dice) -> Option<(Wamp, u64)> {
    let door = stage.door(dice);
    let Some(Client::Wamp(wamp)) = stage.open(door, Protocol::Wamp).await else {
        sleep(AGAIN).await;
        return None;
    };
    Some((*wamp, door.node))
}

async fn callee(stage: Arc<Stage>, name: String, number: u64) {
    let mut dice = stage.dice(&name);
    while stage.works() {
        let Some((wamp, node)) = open(&stage, &mut dice).await else { continue };
        // Whatever ended the session, a new one follows.
        if serve(&stage, wamp, node, number, &mut dice).await.is_none() {
            sleep(AGAIN).await;
        }
    }
}

/// Answers calls for a while. Calls that are pending when the session ends stay unanswered.
async fn serve(
    stage: &Stage,
    mut wamp: Wamp,
    node: u64,
    number: u64,
    dice: &mut Dice,
) -> Option<()> {
    let options = json!({ "invoke": "roundrobin" });
    wamp.send(&json!([REGISTER, 1, options, procedure(number)])).await.ok()?;
    let until = Instant::now() + Duration::from_millis(dice.below(STAY));
    while stage.works() {
        let message = timeout_at(until, wamp.receive()).await.ok()?.ok()??;
        match message[0].as_u64() {
            Some(INVOCATION) => {
                let (id, argument) = (message[4][0].as_str()?, message[4][1].as_u64()?);
                stage.journal.note("invoked", &Invoked { id: id.to_owned(), node });
                if dice.chance(0.2) {
                    sleep(Duration::from_millis(dice.below(WORK))).await;
                }
                let answer = json!([YIELD, message[1], {}, [argument + 1]]);
                wamp.send(&answer).await.ok()?;
            }
            Some(REGISTERED) => {}
            _ => return None,
        }
    }
    Some(())
}

struct Caller {
    stage: Arc<Stage>,
    dice: Dice,
    arguments: Arc<AtomicU64>,
}

/// Calls in flight, by request: the deadline of each, and the call itself.
type Waiting = BTreeMap<u64, (Instant, Open, Call)>;

impl Caller {
    async fn run(mut self) {
        while self.stage.works() {
            if let Some((wamp, node)) = open(&self.stage, &mut self.dice).await {
                let mut waiting = Waiting::new();
                let reason = self.session(wamp, node, &mut waiting).await;
                for (until, open, mut what) in waiting.into_values() {
                    // One unanswered call ends the session, and with it the others.
                    let overdue = reason != UNANSWERED || until <= Instant::now();
                    let reason = if overdue { reason.as_str() } else { "given up" };
                    what.reason = Some(reason.to_owned());
                    self.stage.journal.unknown(open, &what);
                }
            }
        }
    }

    /// Calls until the session has lasted long enough, and all calls are answered. Returns why it ended.
    async fn session(&mut self, mut wamp: Wamp, node: u64, waiting: &mut Waiting) -> String {
        let window = self.dice.between(1, WINDOW) as usize;
        let most = self.dice.between(1, SESSION);
        let mut done: BTreeMap<u64, Call> = BTreeMap::new();
        let mut request = 0;
        loop {
            let goes_on = request < most && self.stage.works();
            if !goes_on && waiting.is_empty() {
                return "the session is over".to_owned();
            }
            let pause = Duration::from_millis(self.dice.below(PACE));
            match timeout(pause, wamp.receive()).await {
                Ok(Ok(Some(answer))) => self.hear(&answer, waiting, &mut done),
                Ok(Ok(None)) => return "the connection is gone".to_owned(),
                Ok(Err(error)) => return format!("{error:#}"),
                Err(_) if goes_on && waiting.len() < window => {
                    request += 1;
                    let what = self.next(node);
                    let open = self.stage.journal.ask("call", &what);
                    let call = [CALL.into(), request.into(), json!({})];
                    let arguments = json!([what.id, what.argument]);
                    let procedure = procedure(self.dice.below(PROCEDURES)).into();
                    let message = Value::from([&call[..], &[procedure, arguments]].concat());
                    waiting.insert(request, (Instant::now() + PATIENCE, open, what));
                    if let Err(error) = wamp.send(&message).await {
                        return format!("{error:#}");
                    }
                }
                Err(_) => {}
            }
            if waiting.values().any(|(until, ..)| *until <= Instant::now()) {
                return UNANSWERED.to_owned();
            }
        }
    }

    fn next(&mut self, node: u64) -> Call {
        // Steps of two, so that no result is another call's argument.
        let argument = self.arguments.fetch_add(2, Ordering::Relaxed);
        Call { id: self.stage.id("call"), node, argument, result: None, reason: None }
    }

    fn hear(&self, answer: &Value, waiting: &mut Waiting, done: &mut BTreeMap<u64, Call>) {
        let (request, result, reason) = match answer[0].as_u64() {
            Some(RESULT) => (answer[1].as_u64(), answer[3][0].as_u64(), None),
            Some(ERROR) => (answer[2].as_u64(), None, answer[4].as_str().map(str::to_owned)),
            _ => return,
        };
        let Some(request) = request else { return };
        let said = |what: &Call| Call { result, reason: reason.clone(), ..what.clone() };
        match (waiting.remove(&request), done.get(&request)) {
            (Some((_, open, what)), _) => {
                match &reason {
                    None => self.stage.journal.ok(open, &said(&what)),
                    Some(uri) if REFUSALS.contains(&uri.as_str()) => {
                        self.stage.journal.fail(open, &said(&what));
                    }
                    Some(_) => self.stage.journal.unknown(open, &said(&what)),
                }
                done.insert(request, what);
            }
            (None, Some(what)) => self.stage.journal.note("answer", &said(what)),
            (None, None) => {}
        }
    }
}

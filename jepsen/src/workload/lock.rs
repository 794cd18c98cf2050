//! Locks, and what they protect: a resource that refuses a token smaller than one it has seen.
//!
//! Invariant: the resource decides alone, by the token it is shown, in the order of requests.
//!
//! Deliberately absent: holders that trust their clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::asking::{Answer, Asking, Draft, ANSWER};
use crate::dice::Dice;
use crate::op::{End, Use};
use crate::stage::Stage;

const CLIENTS: u64 = 5;
const LOCKS: u64 = 2;

/// How long a client waits for the lock before it gives up on its session.
const LINE: Duration = Duration::from_secs(12);

/// Longest pause between two uses of the resource, in milliseconds.
const VISIT: u64 = 60;

pub(super) fn start(stage: &Arc<Stage>, clients: &mut JoinSet<()>) {
    let resource = Arc::new(Resource::default());
    for number in 0..CLIENTS {
        clients.spawn(client(stage.clone(), format!("h{number}"), resource.clone()));
    }
}

/// What the locks protect: the largest token each has seen.
#[derive(Default)]
struct Resource {
    tokens: Mutex<HashMap<String, u64>>,
}

impl Resource {
    fn visit(&self, stage: &Stage, topic: &str, session: &str, token: u64) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let what = Use { topic: topic.to_owned(), session: session.to_owned(), token };
        let open = stage.journal.ask("use", &what);
        let largest = tokens.entry(what.topic.clone()).or_default();
        if *largest <= token {
            *largest = token;
            stage.journal.ok(open, &what);
        } else {
            stage.journal.fail(open, &what);
        }
    }
}

async fn client(stage: Arc<Stage>, name: String, resource: Arc<Resource>) {
    let mut dice = stage.dice(&name);
    while stage.works() {
        let door = stage.door(&mut dice);
        let Some(mut session) = Asking::open(&stage, &name, door).await else {
            sleep(Duration::from_millis(VISIT)).await;
            continue;
        };
        while stage.works() && take(&stage, &mut session, &mut dice, &resource).await {}
        let end = End { session: session.session.clone(), clean: false, known: false };
        drop(session);
        stage.journal.note("end", &end);
    }
}

/// Takes a lock, uses the resource, and frees the lock; returns whether the session can still be used.
async fn take(stage: &Stage, session: &mut Asking, dice: &mut Dice, resource: &Resource) -> bool {
    let topic = format!("j.lock.l{}", dice.below(LOCKS));
    let acquire = Draft {
        f: "acquire",
        topic: topic.clone(),
        id: stage.id("t"),
        retain: true,
        expect: Some(String::new()),
        watch: true,
        will: Some(String::new()),
    };
    let Answer::At(token) = session.publish(stage, acquire, LINE).await else { return false };
    for _ in 0..dice.between(1, 3) {
        resource.visit(stage, &topic, &session.session, token);
        sleep(Duration::from_millis(dice.below(VISIT))).await;
        let sign = Draft {
            f: "publish",
            topic: "j.lock.signs".to_owned(),
            id: stage.id("s"),
            ..Draft::default()
        };
        if !matches!(session.publish(stage, sign, ANSWER).await, Answer::At(_)) {
            return false;
        }
    }
    // Some die while holding the lock.
    if dice.chance(0.1) {
        return false;
    }
    let release = Draft { f: "release", topic, retain: true, ..Draft::default() };
    matches!(session.publish(stage, release, ANSWER).await, Answer::At(_))
}

//! Retained values that change, are deleted, and have events between them, while subscriptions begin with them.
//!
//! Invariant: subscriptions begin at random moments, and most see live events after the values.
//!
//! Deliberately absent: merging; a value is its event's id.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::asking::{Answer, Asking, Draft, ANSWER};
use super::consumer::Consumer;
use crate::op::{Mode, Pattern, Protocol};
use crate::stage::Stage;

const WRITERS: u64 = 3;
const JOINERS: u64 = 5;
const KEYS: u64 = 12;

/// Longest pause between two publishes of one writer, in milliseconds.
const PACE: u64 = 30;

/// Longest duration of a subscription, in milliseconds.
const STAY: u64 = 1_500;

pub(super) fn start(stage: &Arc<Stage>, clients: &mut JoinSet<()>) {
    for number in 0..WRITERS {
        clients.spawn(writer(stage.clone(), format!("v{number}")));
    }
    for number in 0..JOINERS {
        let protocol = if number < 3 { Protocol::Wamp } else { Protocol::Mqtt };
        let pattern = Pattern::Below { topic: "j.ret".to_owned() };
        let name = format!("j{number}");
        clients.spawn(joiner(
            Consumer::new(stage, &name, protocol, pattern, Mode::State),
            stage.clone(),
        ));
    }
}

async fn writer(stage: Arc<Stage>, name: String) {
    let mut dice = stage.dice(&name);
    while stage.works() {
        let door = stage.door(&mut dice);
        let Some(mut session) = Asking::open(&stage, &name, door).await else {
            sleep(Duration::from_millis(PACE)).await;
            continue;
        };
        while stage.works() {
            sleep(Duration::from_millis(dice.below(PACE))).await;
            let retain = dice.chance(0.7);
            let deletes = retain && dice.chance(0.15);
            let draft = Draft {
                f: "publish",
                topic: format!("j.ret.k{}", dice.below(KEYS)),
                id: if deletes { String::new() } else { stage.id(&format!("{name}-")) },
                retain,
                ..Draft::default()
            };
            if session.publish(&stage, draft, ANSWER).await == Answer::Lost || dice.chance(0.01) {
                break;
            }
        }
    }
}

async fn joiner(mut consumer: Consumer, stage: Arc<Stage>) {
    while stage.works() {
        let stay = consumer.dice.below(STAY);
        consumer.live(Duration::from_millis(stay), |_| !stage.works()).await;
    }
}
